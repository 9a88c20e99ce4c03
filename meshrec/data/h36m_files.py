"""Human3.6M as others pass it on: VideoPose3D's archives of 3D and of 2D joints, and mmpose's annotations."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from meshrec.arrays import read_arrays
from meshrec.camera import assumed_focal_px, camera_from_body_axes
from meshrec.data.object_arrays import read_objects
from meshrec.data.sightings import MOST_PX, Sightings, text_column
from meshrec.errors import MeshrecError
from meshrec.skeletons import COCO17, H36M17, Skeleton
from meshrec.types import Keypoints

H36M32_JOINTS = (
    *("pelvis", "right_hip", "right_knee", "right_ankle", "right_toes", "right_toe_tip"),
    *("left_hip", "left_knee", "left_ankle", "left_toes", "left_toe_tip"),
    *("lower_spine", "spine", "thorax", "face", "head_top"),
    *(
        "left_collar",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
        "left_hand",
        "left_thumb",
        "left_fingers",
        "left_tip",
    ),
    *("right_collar", "right_shoulder", "right_elbow", "right_wrist"),
    *("right_hand", "right_thumb", "right_fingers", "right_tip"),
)
"""All joints of the capture in its order; those of `H36M17` among them are the ones that differ and move."""

H36M_FOCAL_PX = 1147.0
H36M_CENTER_PX = (514.0, 507.0)
"""The mean of the four cameras' calibrations; they are within 3 and 9 pixels of it, in images of 1000 x 1000."""

LAYOUTS_2D = {"h36m": H36M17, "coco": COCO17}
"""How VideoPose3D's archives of 2D joints call their skeletons."""

MMPOSE_NAME = re.compile(r"(?P<take>(?P<subject>S\d+)_(?P<action>[A-Za-z]+)[^./]*)\.\d+_(?P<number>\d+)\.\w+$")
"""An image of Human3.6M: `S1/S1_Directions_1.54138969/S1_Directions_1.54138969_000001.jpg`."""


@dataclass(frozen=True)
class Take:
    """One person doing one thing, frame after frame; y up."""

    joints_m: Float[np.ndarray, "T 17 3"]
    subject: str
    action: str
    clip: str


def read_h36m_3d(path: Path) -> list[Take]:
    """VideoPose3D's `positions_3d`: takes by subject and action, or an array (N, J, 3); metres, z up, 32 or 17 joints.

    An array alone may have `subject` and `action` beside it, (N,) text.
    """
    content = read_objects(path, "positions_3d")
    if isinstance(content, np.ndarray):
        return _takes_of_rows(path, _upright(_ordered(path, content, 3)), _labels(path, len(content)))
    return [
        Take(_upright(_ordered(path, array, 3)), _subject(names), _action(names), " ".join(names))
        for names, array in _leaves(path, content)
    ]


def _labels(path: Path, rows: int) -> tuple[list[str], list[str]]:
    """The subjects and the actions of an archive's rows."""
    fields = read_arrays(path, ("subject", "action"))
    for name, array in fields.items():
        if array.shape != (rows,) or array.dtype.kind != "U":
            raise MeshrecError(f"{path}: `{name}` is {array.dtype} {array.shape}; text ({rows},) is needed.")
    subject, action = (fields.get(name, np.full(rows, "")).tolist() for name in ("subject", "action"))
    return subject, action


def _takes_of_rows(
    path: Path, joints_m: Float[np.ndarray, "N 17 3"], labels: tuple[list[str], list[str]]
) -> list[Take]:
    """Runs of rows of one person and one action."""
    keys = list(zip(*labels, strict=True))
    runs = [list(rows) for _, rows in groupby(range(len(keys)), keys.__getitem__)]
    return [Take(joints_m[rows], *keys[rows[0]], clip=f"{path.stem} {rows[0]}") for rows in runs]


def _upright(joints_m: Float[np.ndarray, "T 17 3"]) -> Float[np.ndarray, "T 17 3"]:
    """From z up to y up: (x, y, z) to (x, z, -y)."""
    x, y, z = np.moveaxis(joints_m, -1, 0)
    return np.stack([x, z, -y], axis=-1)


def read_h36m_2d(path: Path) -> Sightings:
    """VideoPose3D's `positions_2d`: pixels by subject, action and camera; `metadata` may name the skeleton and sizes.

    Without sizes of videos the cameras are Human3.6M's, whose calibrations differ little. Cameras of one take show the
    same poses.
    """
    metadata = read_objects(path, "metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    skeleton = LAYOUTS_2D.get(layout := str(metadata.get("layout_name", "h36m"))[:40])
    if skeleton is None:
        raise MeshrecError(f"{path} has joints in the layout {layout}; {' and '.join(LAYOUTS_2D)} are read.")
    leaves = [
        (names, _ordered(path, array, 2, skeleton))
        for names, array in _leaves(path, read_objects(path, "positions_2d"))
    ]
    if not any(len(array) for _, array in leaves):
        raise MeshrecError(f"{path} has no frame in its positions_2d.")
    cameras = [_camera_of(path, names, metadata) for names, _ in leaves]
    counts = torch.tensor([len(array) for _, array in leaves])
    xy_px = torch.from_numpy(np.concatenate([array for _, array in leaves]).astype(np.float32))
    return Sightings(
        _finite_keypoints(xy_px, torch.ones(xy_px.shape[:-1]), skeleton),
        focal_px=torch.tensor([focal_px for focal_px, _ in cameras]).repeat_interleave(counts),
        center_px=torch.tensor([center_px for _, center_px in cameras]).repeat_interleave(counts, dim=0),
        subject=np.repeat(text_column([_subject(names) for names, _ in leaves]), counts.numpy()),
        action=np.repeat(text_column([_action(names) for names, _ in leaves]), counts.numpy()),
        frame=_frames_of([(names[:2], len(array)) for names, array in leaves]),
    )


def _frames_of(takes: list[tuple[tuple[str, ...], int]]) -> Int[np.ndarray, "N"]:
    """A number for each frame; those of a take are the same in all its cameras."""
    lengths: dict[tuple[str, ...], int] = {}
    for take, length in takes:
        lengths[take] = max(length, lengths.get(take, 0))
    starts = dict(zip(lengths, np.cumsum([0, *lengths.values()]).tolist(), strict=False))
    return np.concatenate([starts[take] + np.arange(length) for take, length in takes])


def _camera_of(path: Path, names: tuple[str, ...], metadata: dict[str, Any]) -> tuple[float, tuple[float, float]]:
    """Focal length and centre of the camera of a take: of a video of known size, or of Human3.6M."""
    videos = metadata.get("video_metadata")
    if not videos:
        return H36M_FOCAL_PX, H36M_CENTER_PX
    size = videos.get(_subject(names)) if isinstance(videos, dict) else None
    if not (
        isinstance(size, dict) and all(isinstance(size.get(side), int) and 0 < size[side] <= MOST_PX for side in "wh")
    ):
        raise MeshrecError(f"{path}: its metadata says not how large the video {_subject(names)} is.")
    return assumed_focal_px(size["w"], size["h"]), (size["w"] / 2, size["h"] / 2)


def read_mmpose_takes(path: Path) -> list[Take]:
    """The truth of mmpose's annotations, about the pelvis; y up as far as the camera was level."""
    sightings = read_mmpose(path)
    if sightings.joints_m is None:
        raise MeshrecError(f"{path} has no 3D joints: its S is missing.")
    joints_m = (sightings.joints_m @ camera_from_body_axes()).numpy()
    return _takes_of_rows(path, joints_m, (sightings.subject.tolist(), sightings.action.tolist()))


def read_mmpose(path: Path) -> Sightings:
    """mmpose's annotations: `imgname`, `part` (N, 17, 3) in pixels, and the truth `S` (N, 17, 3 or 4) in camera axes.

    The cameras are Human3.6M's, or one of which the file has the matrix `K`. Names of images tell who does what, and
    which of them show the same pose.
    """
    fields = read_arrays(path, ("imgname", "part", "S", "K"))
    people = fields["imgname"].size
    shapes = {"imgname": [(people,)], "part": [(people, len(H36M17), 3)], "K": [(3, 3)]}
    shapes["S"] = [(people, len(H36M17), size) for size in (3, 4)]
    for name, array in fields.items():
        if (
            array.shape not in shapes[name]
            or not people
            or array.dtype.kind not in ("U" if name == "imgname" else "iuf")
        ):
            raise MeshrecError(f"{path}: `{name}` is {array.dtype} {array.shape}; {shapes[name][-1]} is needed.")
    subject, action, frame = _told_by(fields["imgname"].tolist())
    part = torch.from_numpy(fields["part"].astype(np.float32))
    matrix = fields.get("K", np.array([[H36M_FOCAL_PX, 0.0, H36M_CENTER_PX[0]], [0.0, 0.0, H36M_CENTER_PX[1]]]))
    if not 0 < (focal_px := float(matrix[0, 0])) < math.inf:
        raise MeshrecError(f"{path}: the focal length in `K` is {focal_px} pixels; it must be above zero.")
    return Sightings(
        _finite_keypoints(part[..., :2], (part[..., 2] > 0).float(), H36M17),
        focal_px=torch.full((people,), focal_px),
        center_px=torch.tensor(matrix[:2, 2].astype(np.float32)).expand(people, 2),
        subject=text_column(subject),
        action=text_column(action),
        frame=frame,
        joints_m=_about_pelvis(fields["S"]) if "S" in fields else None,
    )


def _about_pelvis(joints_m: Shaped[np.ndarray, "N 17 C"]) -> Float[Tensor, "N 17 3"]:
    joints = torch.from_numpy(joints_m[..., :3].astype(np.float32))
    return joints - joints[:, [H36M17.index("pelvis")]]


def _told_by(images: list[str]) -> tuple[list[str], list[str], Int[np.ndarray, "N"]]:
    """Subjects, actions and numbers of frames; an image of another name shows nobody known in a frame of its own."""
    found = [MMPOSE_NAME.search(image) for image in images]
    subject, action = ([match[name] if match else "" for match in found] for name in ("subject", "action"))
    poses = [f"{match['take']} {match['number']}" if match else f"/{row}" for row, match in enumerate(found)]
    numbers = {pose: number for number, pose in enumerate(dict.fromkeys(poses))}
    return subject, action, np.array([numbers[pose] for pose in poses])


def _finite_keypoints(xy_px: Float[Tensor, "N K 2"], confidence: Float[Tensor, "N K"], skeleton: Skeleton) -> Keypoints:
    """What is not finite is missing, at zero."""
    known: Bool[Tensor, "N K"] = xy_px.isfinite().all(dim=-1)
    return Keypoints(torch.where(known[..., None], xy_px, 0.0), confidence * known, skeleton)


def _leaves(path: Path, content: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """Every array in dicts and lists, under the names and numbers that lead to it."""
    if isinstance(content, np.ndarray):
        yield names, content
    elif isinstance(content, dict | list):
        inside = content.items() if isinstance(content, dict) else ((str(n), part) for n, part in enumerate(content))
        for name, part in inside:
            yield from _leaves(path, part, (*names, name))
    else:
        where = " ".join(names) or "its positions"
        raise MeshrecError(f"{path} holds {type(content).__name__} under {where}, where an array of joints should be.")


def _ordered(path: Path, array: np.ndarray, axes: int, skeleton: Skeleton = H36M17) -> Float[np.ndarray, "T J C"]:
    """The joints of the skeleton in its order, of these alone or of all 32 of the capture."""
    counts = (len(skeleton), len(H36M32_JOINTS)) if skeleton == H36M17 else (len(skeleton),)
    fits = array.ndim == 3 and array.shape[1] in counts and array.shape[2] == axes and array.dtype.kind == "f"
    if not fits:
        wanted = f"(frames, {' or '.join(map(str, counts))}, {axes})"
        raise MeshrecError(f"{path} has joints of {array.dtype} {array.shape}; real numbers {wanted} are needed.")
    whole = array.shape[1] == len(H36M32_JOINTS)
    return array[:, [H36M32_JOINTS.index(joint) for joint in H36M17.joints]] if whole else array


def _subject(names: tuple[str, ...]) -> str:
    return names[0] if names else ""


def _action(names: tuple[str, ...]) -> str:
    """`Directions 1` is the action Directions."""
    return names[1].rpartition(" ")[0] or names[1] if len(names) > 1 else ""
