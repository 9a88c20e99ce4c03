"""Human3.6M as COCO-style JSON for each subject, with cameras, joints and SMPL fits beside it; or as mmpose's npz.

annotations/Human36M_subjectS_data.json (images and boxes), _camera.json, _joint_3d.json (17 joints in the world, by
action, subaction and frame), and, where the user has it, _smpl_param.json (SMPL in the world, for the neutral body);
millimetres, but SMPL's `trans` in metres. The 2D joints are the projected 3D ones. Files of these names come with two
kinds of `t`: X_c = R X + t, or the camera's own place, X_c = R (X - t); the boxes tell which.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from convert.bodies import Bodies, first_betas, in_camera
from convert.h36m_archive import read_archive, refuse_other_units
from convert.source import (
    Annotation,
    Lens,
    Sheet,
    Source,
    box_around,
    first_of,
    image_name,
    lens_of,
    numbers,
    read_json,
    rows_of,
)
from meshrec.data.record_files import Header
from meshrec.data.records import Truth
from meshrec.errors import MeshrecError
from meshrec.skeletons import H36M17
from meshrec.types import BodyParams, Keypoints

Split = Literal["train", "test"]

SUBJECTS: dict[Split, tuple[int, ...]] = {"train": (1, 5, 6, 7, 8), "test": (9, 11)}

LICENCE = "Human3.6M is for academic use; records of it stay under its licence and may not be passed on."

MM = 1e-3

PELVIS = H36M17.index("pelvis")

Pose = tuple[str, str, str]
"""Action, subaction and frame."""


@dataclass(frozen=True, eq=False)
class Viewpoint:
    """One of the four cameras: X_camera = R X_world + t."""

    R_camera_world: Float[Tensor, "3 3"]
    t_m: Float[Tensor, "3"]
    lens: Lens

    def seen(self, points_m: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Points of the world in the camera's frame."""
        return points_m @ self.R_camera_world.T + self.t_m


@dataclass(frozen=True, eq=False)
class Subject:
    """What the files of one subject tell."""

    number: int
    path: Path
    """The folder of annotations."""
    views: Mapping[str, Viewpoint]
    joints: Mapping[str, Any]
    """17 x 3 millimetres by action, subaction and frame."""
    fits: Mapping[str, Any]
    """SMPL by the same keys; empty where there are none."""
    bodies: Bodies

    def person(self, image: dict[str, Any], box: Float[Tensor, "4"]) -> list[Annotation]:
        """Who is in an image."""
        view, pose = self.views[str(image["cam_idx"])], _pose_of(image)
        joints_m = view.seen(joints_of(self.path, self.joints, pose))
        xy_px = view.lens.project(joints_m).float()
        doing, take = image.get("action_name", image["action_idx"]), image["subaction_idx"]
        moved = view.lens.beside(joints_m[PELVIS]) - joints_m[PELVIS]
        return [
            Annotation(
                box_xyxy_px=box,
                keypoints=Keypoints(xy_px, torch.ones(len(H36M17)), H36M17),
                lens=view.lens,
                truth=self._truth(view, pose),
                joints_m=(joints_m + moved).float(),
                joints_weight=torch.ones(len(H36M17)),
                subject=f"S{self.number}",
                sequence=f"{doing} {take} camera {image['cam_idx']}",
                frame=image["frame_idx"],
            )
        ]

    def _truth(self, view: Viewpoint, pose: Pose) -> Truth | None:
        fit = _at(self.fits, pose)
        if fit is None:
            return None
        what = f"in the SMPL fit of frame {' '.join(pose)}"
        if not isinstance(fit, dict):
            raise MeshrecError(f"{self.path}: there are no named fields {what}.")
        rotvecs = numbers(self.path, fit.get("pose"), f"pose {what}", 72).view(1, 24, 3)
        rotations = in_camera(roma.rotvec_to_rotmat(rotvecs), view.R_camera_world[None])[0]
        betas = first_betas(numbers(self.path, fit.get("shape"), f"shape {what}", -1))
        rest_m = self.bodies.pelvis_m("neutral", betas)
        trans_m = numbers(self.path, fit.get("trans"), f"trans {what}", 3)
        transl_m = view.lens.beside(view.seen(rest_m + trans_m)) - rest_m
        return Truth(BodyParams.from_rotations(rotations.float(), betas.float(), transl_m.float()), "neutral")


def read_h36m(
    folder: Path,
    split: Split = "train",
    subjects: tuple[int, ...] = (),
    annotations: Path | None = None,
    images: Path | None = None,
    every: int = 5,
) -> Source:
    """Every so manieth frame of the subjects of a split, or of those named; JSON or npz, as `annotations` is."""
    archive = f"h36m_{split}.npz"
    places = [folder / "annotations", folder / "annotation_body3d" / "fps50" / archive, folder / archive]
    path = annotations or first_of(places, "annotations of Human3.6M", "--annotations")
    photos = images or first_of([folder / "images"], "images of Human3.6M", "--images")
    chosen = subjects or SUBJECTS[split]
    if path.is_dir():
        bodies = Bodies()
        sheets = [sheet for number in chosen for sheet in _sheets(path, photos, number, every, bodies)]
        told = f"S{' S'.join(map(str, chosen))}"
    else:
        sheets, told = read_archive(path, photos, every), path.name
    made_from = f"Human3.6M {split}: {told}, {len(sheets)} images, every {every}"
    return Source(Header("h36m", split, H36M17.name, H36M17.name, made_from=made_from, licence=LICENCE), sheets)


def _sheets(path: Path, photos: Path, number: int, every: int, bodies: Bodies) -> Iterator[Sheet]:
    """The images of one subject."""
    start = path / f"Human36M_subject{number}"
    data_file = Path(f"{start}_data.json")
    data = read_json(data_file)
    images = {image.get("id"): image for image in rows_of(data_file, data, "images")}
    joints = by_pose(read_json(Path(f"{start}_joint_3d.json")), number)
    fits_file = Path(f"{start}_smpl_param.json")
    fits = by_pose(read_json(fits_file), number) if fits_file.exists() else {}
    rows = []
    for row in rows_of(data_file, data, "annotations"):
        image = images.get(row.get("image_id"))
        if image is None or any(not isinstance(image.get(name), int) for name in (*KEYS, "cam_idx")):
            told = ", ".join((*KEYS, "cam_idx"))
            raise MeshrecError(
                f"{data_file}: the annotation {row.get('id')} has no image with whole numbers for {told}."
            )
        if image["frame_idx"] % every == 0 and _at(joints, _pose_of(image)) is not None:
            rows.append((image, _box(data_file, row)))
    views = views_of(Path(f"{start}_camera.json"), joints, rows)
    if fits:
        bodies.rest("neutral")  # before there are threads
    subject = Subject(number, path, views, joints, fits, bodies)
    for image, box in rows:
        name = image_name(data_file, image.get("file_name"))
        yield Sheet(photos / name, name, partial(subject.person, image, box))


KEYS = ("action_idx", "subaction_idx", "frame_idx")


def _pose_of(image: dict[str, Any]) -> Pose:
    action, subaction, frame = (str(image[key]) for key in KEYS)
    return action, subaction, frame


def by_pose(content: Any, number: int) -> Mapping[str, Any]:
    """What a file holds by action, subaction and frame; some files have the subject above them."""
    depth, value = 0, content
    while isinstance(value, dict) and value and "pose" not in value:
        depth, value = depth + 1, next(iter(value.values()))
    return content.get(str(number), {}) if depth > len(KEYS) else content


def _at(tree: Mapping[str, Any], pose: Pose) -> Any:
    value: Any = tree
    for key in pose:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def joints_of(path: Path, joints: Mapping[str, Any], pose: Pose) -> Float[Tensor, "17 3"]:
    """The joints of a frame in the world, in metres."""
    joints_m = numbers(path, _at(joints, pose), f"the joints of frame {' '.join(pose)}", len(H36M17), 3) * MM
    refuse_other_units(path, joints_m[None])
    return joints_m


def _box(path: Path, row: dict[str, Any]) -> Float[Tensor, "4"]:
    x, y, width, height = numbers(path, row.get("bbox"), f"bbox of annotation {row.get('id')}", 4).tolist()
    return torch.tensor([x, y, x + width, y + height])


def views_of(path: Path, joints: Mapping[str, Any], rows: list[tuple[dict[str, Any], Tensor]]) -> dict[str, Viewpoint]:
    """The cameras that the images ask for; the first box of each tells what its `t` means."""
    cameras = read_json(path)
    views: dict[str, Viewpoint] = {}
    for image, box in rows:
        index = str(image["cam_idx"])
        if index not in views:
            camera = cameras.get(index) if isinstance(cameras, dict) else None
            if not isinstance(camera, dict):
                raise MeshrecError(f"{path} has no camera {index}, which {image['file_name']} asks for.")
            views[index] = _view(path, index, camera, joints_of(path, joints, _pose_of(image)), box)
    return views


def _view(path: Path, index: str, camera: dict[str, Any], joints_m: Float[Tensor, "17 3"], box: Tensor) -> Viewpoint:
    R = numbers(path, camera.get("R"), f"R of camera {index}", 3, 3)
    t_m = numbers(path, camera.get("t"), f"t of camera {index}", 3) * MM
    focal_px = numbers(path, camera.get("f"), f"f of camera {index}", 2).tolist()
    center_px = numbers(path, camera.get("c"), f"c of camera {index}", 2).tolist()
    lens = lens_of(path, focal_px, center_px, f"camera {index}")
    for moved_m in (t_m, -R @ t_m):
        view = Viewpoint(R, moved_m, lens)
        if _shows(view, joints_m, box):
            return view
    raise MeshrecError(
        f"{path}: camera {index} shows nobody in the box {box.tolist()}, whether its t is a translation or its place. "
        f"The files of a subject belong together: download all of them again."
    )


def _shows(view: Viewpoint, joints_m: Float[Tensor, "17 3"], box: Tensor) -> bool:
    """Whether the joints are before the camera and the middle of them is in the box."""
    seen_m = view.seen(joints_m)
    if bool((seen_m[:, 2] <= 0).any()):
        return False
    around = box_around(torch.cat([view.lens.project(seen_m), torch.ones(len(seen_m), 1)], dim=-1))
    middle = (around[:2] + around[2:]) / 2
    return bool(((middle > box[:2]) & (middle < box[2:])).all())
