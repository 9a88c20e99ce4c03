"""Joints in 3D, frame after frame, of many people: from captures, motions through a body, and Human3.6M."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped

from meshrec.arrays import read_arrays
from meshrec.body import BodyModel, load_body_model
from meshrec.data.h36m_files import Take, read_h36m_3d, read_mmpose_takes
from meshrec.data.layouts import Layout, layout_of, read_each
from meshrec.data.poses import open_poses
from meshrec.errors import MeshrecError
from meshrec.skeletons import H36M17
from meshrec.types import BodyParams

PLAUSIBLE_M = (0.1, 3.0)
"""How far heads are from pelvises, in the middle: beyond it a file is not in metres."""

BODIES = 4096
"""Bodies posed at once."""

CAPTURE_FIELDS = ("joints17", "h36m17_names", "valid", "clip_start", "clip_len", "clip_name", "clip_subject")

CAPTURE_PREFIXES = {"L_": "left_", "R_": "right_"}
CAPTURE_JOINTS = {"neck_nose": "face"}
"""How captures of ours name joints."""


@dataclass(frozen=True)
class JointFrames:
    """The 17 joints of a person, in every usable frame, and whose and what it is."""

    joints_m: Float[np.ndarray, "N 17 3"]
    """In the order of H36M17; y up, in the world."""
    subject: Shaped[np.ndarray, "N"]
    action: Shaped[np.ndarray, "N"]
    """What the person does; the clip's name where a file does not say."""
    clip: Shaped[np.ndarray, "N"]
    file: Shaped[np.ndarray, "N"]
    problems: tuple[str, ...] = ()
    """What is wrong with the files that were left out."""

    def __len__(self) -> int:
        return len(self.joints_m)


def split_people(
    subject: Shaped[np.ndarray, "N"], held_out: Collection[str]
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m"]]:
    """The rows of everyone else, and those of the people held out, each of whom must be there."""
    known = set(np.unique(subject).tolist())
    if unknown := sorted(set(held_out) - known):
        told = ", ".join(sorted(known - {""})) or "nobody named"
        raise MeshrecError(f"Nobody among the poses is called {', '.join(unknown)}: {told} are.")
    unseen = np.isin(subject, np.array(sorted(held_out), subject.dtype))
    return np.flatnonzero(~unseen), np.flatnonzero(unseen)


def read_joint_frames(paths: Sequence[Path], body: BodyModel | None = None) -> JointFrames:
    """Every usable frame of the files, in order; a file that cannot be read is a problem to tell, unless all are.

    Our own captures bring their joints. Other motions and collections are posed as `body`, by default the shipped
    neutral one of mean shape, and its regressor finds the joints. Human3.6M is read in two layouts: VideoPose3D's
    (z up, turned to y up) and mmpose's, which is in camera axes and stands upright as far as the camera was level.
    """
    parts, problems = read_each(paths, joint_reader(body), "poses in 3D")
    return joined_frames(parts, problems)


def joint_reader(body: BodyModel | None = None) -> Callable[[Path], JointFrames]:
    """Reads one file of joints in 3D; the shipped body is loaded when a first motion asks for one."""
    known_body = cache(lambda: body or load_body_model("neutral"))
    readers: dict[Layout, Callable[[Path], list[Take]]] = {
        "capture": read_capture_takes,
        "motion": lambda path: _through_body(path, known_body()),
        "h36m_3d": read_h36m_3d,
        "mmpose": read_mmpose_takes,
    }

    def read(path: Path) -> JointFrames:
        if (layout := layout_of(path)) not in readers:
            raise MeshrecError(f"{path} holds joints in 2D alone; name files of poses in 3D.")
        return _frames_of(path, readers[layout](path))

    return read


def joined_frames(parts: Sequence[JointFrames], problems: tuple[str, ...] = ()) -> JointFrames:
    """The parts, one after another."""
    names = ("joints_m", "subject", "action", "clip", "file")
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return JointFrames(**columns, problems=tuple(said for part in parts for said in part.problems) + problems)


def _frames_of(path: Path, takes: Sequence[Take]) -> JointFrames:
    """The takes of a file, if they can be joints in metres."""
    with np.errstate(over="ignore"):
        parts_m = [take.joints_m.astype(np.float32) for take in takes]
    joints_m = np.concatenate([np.zeros((0, len(H36M17), 3), np.float32), *parts_m])
    if not len(joints_m):
        raise MeshrecError(f"{path} has no usable frame in it.")
    if len(bad := np.flatnonzero(~np.isfinite(joints_m).all(axis=(1, 2)))):
        raise MeshrecError(f"{path} has joints that are not finite, first in its usable frame {bad[0]} (from 0).")
    require_metres(path, joints_m)
    counts = [len(take.joints_m) for take in takes]

    def column(texts: list[str]) -> Shaped[np.ndarray, "N"]:
        return np.repeat(np.array(texts, np.dtypes.StringDType()), counts)

    return JointFrames(
        joints_m,
        subject=column([take.subject for take in takes]),
        action=column([take.action for take in takes]),
        clip=column([take.clip for take in takes]),
        file=column([str(path)] * len(takes)),
    )


def require_metres(path: Path, joints_m: Float[np.ndarray, "N 17 3"]) -> None:
    """A `MeshrecError` where heads are not as far from pelvises as they are in metres."""
    up_m = joints_m[:, H36M17.index("head_top")] - joints_m[:, H36M17.index("pelvis")]
    height_m = float(np.median(np.linalg.norm(up_m, axis=-1)))
    if not PLAUSIBLE_M[0] < height_m < PLAUSIBLE_M[1]:
        raise MeshrecError(f"{path} has heads {height_m:.4g} from pelvises; in metres it would be about 0.7.")


def read_capture_takes(path: Path) -> list[Take]:
    """The clips of a capture of ours with the joints of its own skeleton; the valid frames alone."""
    fields = read_arrays(path, (*CAPTURE_FIELDS, "clip_action"))
    if missing := [name for name in CAPTURE_FIELDS if name not in fields]:
        raise MeshrecError(f"{path} is no capture of ours: it lacks {', '.join(missing)}.")
    _refuse_misfits(path, fields)
    order = _capture_order(path, fields["h36m17_names"].tolist())
    actions = fields.get("clip_action", fields["clip_name"])
    takes = []
    names = (fields["clip_name"], fields["clip_subject"], actions, fields["clip_start"], fields["clip_len"])
    for clip, subject, action, start, length in zip(*(array.tolist() for array in names), strict=True):
        rows = slice(start, start + length)
        joints_m = fields["joints17"][rows][fields["valid"][rows]][:, order]
        takes.append(Take(joints_m, subject, action, clip))
    return takes


def _refuse_misfits(path: Path, fields: dict[str, np.ndarray]) -> None:
    """Arrays have the kinds and shapes of the layout, and clips lie within the frames, no two of them on one."""
    frames, clips = fields["joints17"].shape[:1], fields["clip_start"].shape
    kinds = {"joints17": "f", "valid": "b", "clip_start": "iu", "clip_len": "iu"}
    shapes = {name: clips for name in fields if name.startswith("clip_")}
    shapes |= {"joints17": (*frames, len(H36M17), 3), "h36m17_names": (len(H36M17),), "valid": frames}
    for name, shape in shapes.items():
        array = fields[name]
        if array.shape != shape or len(shape) == 0 or array.dtype.kind not in kinds.get(name, "U"):
            raise MeshrecError(f"{path} has {name} of shape {array.shape} and type {array.dtype}; {shape} is needed.")
    start, length = fields["clip_start"].astype(np.int64), fields["clip_len"].astype(np.int64)
    for clip in np.flatnonzero((start < 0) | (length < 0) | (start + length > frames[0]))[:1]:
        raise MeshrecError(f"{path} has a clip {fields['clip_name'][clip]} beyond its {frames[0]} rows.")
    if length.sum() > frames[0]:
        raise MeshrecError(f"{path} has clips of {length.sum()} rows in all, but {frames[0]} rows: some overlap.")


def _capture_order(path: Path, names: list[str]) -> list[int]:
    """Where each joint of H36M17 stands among the names of a capture."""
    ours = [CAPTURE_JOINTS.get(name, CAPTURE_PREFIXES.get(name[:2], name[:2]) + name[2:]) for name in names]
    if missing := [joint for joint in H36M17.joints if joint not in ours]:
        raise MeshrecError(f"{path} names no {', '.join(missing)} in h36m17_names: {', '.join(names)}.")
    return [ours.index(joint) for joint in H36M17.joints]


def _through_body(path: Path, body: BodyModel) -> list[Take]:
    """A motion or a collection of poses: every clip as the body moves, and as its regressor finds the joints."""
    poses = open_poses([path])
    rows = poses.rows()
    joints_m = [_posed(poses.rotations(some), poses.transl_m(some), body) for some in _chunks(rows)]
    of_rows = np.concatenate([np.zeros((0, len(H36M17), 3), np.float32), *joints_m])
    clip_of = poses.clip_of(rows)
    return [
        Take(of_rows[clip_of == index], clip.subject, clip.name, clip.name) for index, clip in enumerate(poses.clips)
    ]


def _posed(
    rotations: Float[torch.Tensor, "n 24 3 3"], transl_m: Float[torch.Tensor, "n 3"], body: BodyModel
) -> Float[np.ndarray, "n 17 3"]:
    params = BodyParams.from_rotations(rotations, torch.zeros(len(rotations), body.num_betas), transl_m)
    with torch.inference_mode():
        return body.regressed(params, H36M17).numpy().astype(np.float32)


def _chunks(rows: Int[np.ndarray, "n"]) -> list[Int[np.ndarray, "m"]]:
    return [rows[start : start + BODIES] for start in range(0, len(rows), BODIES)]
