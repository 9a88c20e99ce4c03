"""MPII Human Pose: the official `mpii_human_pose_v1_u12_1.mat`, or the JSON that pose networks share; and images/.

Pixels are Matlab's, whose first pixel has its centre at 1, in both files: half a pixel is taken away. A joint that is
annotated although it is hidden (`is_visible` 0) keeps its place with COCO's confidence for it, 0.5; without the flag,
as the file has it for the head's two points, it counts as visible. In the JSON a joint that is not annotated is at 0 or
below.

Boxes. MPII has a rough centre and a scale for each person, the body height in units of 200 pixels, and no box. The
field's crop is the square of 1.25 x 200 scale around a point 15 scale below the centre: the box is the one whose crop
(1.2 longer sides) this square is.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from torch import Tensor

from convert.source import SCALE_PX, Annotation, Sheet, Source, first_of, image_name, numbers, read_json, square_box
from meshrec.data.record_files import Header
from meshrec.errors import MeshrecError
from meshrec.keypoint_entries import VISIBILITY_CONFIDENCE
from meshrec.skeletons import MPII16
from meshrec.types import Keypoints

Split = Literal["train", "valid", "trainval"]

LICENCE = "MPII Human Pose: annotations under the Simplified BSD licence, photographs for research only."

WIDER = 1.25
LOWER_PX = 15.0
"""How the field's crop differs from MPII's centre and scale."""

FIRST_PIXEL = 0.5
"""From Matlab's pixels, which begin with 1 in the middle of the first one, to continuous ones."""

NO_MAT = (MatReadError, OSError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError)
"""What scipy raises at a file that is none of Matlab's, and Python at one that holds something else."""


@dataclass(frozen=True, eq=False)
class Pose:
    """One person as either file tells them; pixels as the file has them."""

    image: str
    joints: Float[Tensor, "16 3"]
    """x, y, and 0 (not annotated), 1 (hidden) or 2 (visible)."""
    center: Float[Tensor, "2"]
    scale: float
    sequence: str = ""

    @property
    def annotated(self) -> int:
        """How many joints have a place."""
        return int((self.joints[:, 2] > 0).sum())

    def annotation(self) -> Annotation:
        """In continuous pixels."""
        confidence = torch.tensor([VISIBILITY_CONFIDENCE[int(flag)] for flag in self.joints[:, 2]])
        xy_px = torch.where(confidence[:, None] > 0, self.joints[:, :2] - FIRST_PIXEL, 0.0).float()
        center_px = self.center - FIRST_PIXEL + torch.tensor([0.0, LOWER_PX * self.scale])
        box = square_box(center_px, WIDER * SCALE_PX * self.scale)
        return Annotation(box, Keypoints(xy_px, confidence, MPII16), sequence=self.sequence)


def read_mpii(
    folder: Path,
    split: Split = "train",
    annotations: Path | None = None,
    images: Path | None = None,
    least_joints: int = 8,
) -> Source:
    """Everybody in the annotated photographs with at least so many annotated joints."""
    path = annotations or first_of(annotation_files(folder, split), "annotations of MPII", "--annotations")
    photos = images or first_of([folder / "images"], "photographs of MPII", "--images")
    poses = list(poses_of_mat(path, split) if path.suffix == ".mat" else poses_of_json(path))
    kept = defaultdict(list)
    for pose in poses:
        if pose.annotated >= least_joints and pose.scale > 0:
            kept[pose.image].append(pose)
    people = sum(map(len, kept.values()))
    made_from = (
        f"MPII {split}: {path.name}, {people} people with {least_joints} joints or more in {len(kept)} photographs"
    )
    header = Header("mpii", split, MPII16.name, made_from=made_from, licence=LICENCE)
    sheets = [Sheet(photos / image, image, partial(_people, poses)) for image, poses in kept.items()]
    return Source(header, sheets, {f"fewer than {least_joints} joints annotated, or no scale": len(poses) - people})


def annotation_files(folder: Path, split: Split) -> Iterator[Path]:
    """Where the annotations may be."""
    for parent in (folder, folder / "annot", folder / "annotations"):
        yield from (parent / f"{split}.json", parent / f"mpii_{split}.json")
    yield from sorted(folder.glob("mpii_human_pose*.mat")) or sorted(folder.glob("*/mpii_human_pose*.mat"))
    yield folder / "mpii_human_pose_v1_u12_1.mat"


def _people(poses: Iterable[Pose]) -> list[Annotation]:
    return [pose.annotation() for pose in poses]


def poses_of_json(path: Path) -> list[Pose]:
    """Everybody in a JSON list of `image`, `joints`, `joints_vis`, `center` and `scale`."""
    content = read_json(path)
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise MeshrecError(f"{path} is no list of people; it is not MPII's JSON.")
    return [_pose_of_row(path, row) for row in content]


def _pose_of_row(path: Path, row: dict[str, Any]) -> Pose:
    image = image_name(path, row.get("image"))
    xy = numbers(path, row.get("joints"), f"joints of {image}", len(MPII16), 2)
    seen = numbers(path, row.get("joints_vis"), f"joints_vis of {image}", len(MPII16)) > 0
    placed = (xy > 0).all(-1)
    flags = torch.where(placed, 1.0 + seen, 0.0)
    center = numbers(path, row.get("center"), f"center of {image}", 2)
    scale = float(numbers(path, row.get("scale"), f"scale of {image}"))
    return Pose(image, torch.cat([xy, flags[:, None]], dim=-1), center, scale)


def poses_of_mat(path: Path, split: Split) -> Iterator[Pose]:
    """Everybody in the training images of the official file; the joints of the others are withheld."""
    if split != "train":
        raise MeshrecError(f"{path} has joints for its training images alone: give --split train, or a JSON file.")
    release = _release(path)
    trained = np.atleast_1d(release.img_train)
    for image, is_trained in zip(np.atleast_1d(release.annolist), trained, strict=True):
        if is_trained == 1:
            name = image_name(path, getattr(getattr(image, "image", None), "name", None))
            video = np.atleast_1d(getattr(image, "vididx", ()))
            sequence = f"video {int(video[0])}" if video.size else ""
            for person in np.atleast_1d(getattr(image, "annorect", ())):
                if (pose := _pose_of_struct(path, name, sequence, person)) is not None:
                    yield pose


def _release(path: Path) -> Any:
    """The struct RELEASE of the file, its structs as objects."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MeshrecError(f"Cannot read {path}: {error.strerror or error}.") from error
    try:
        content = loadmat(BytesIO(data), struct_as_record=False, squeeze_me=True, variable_names=["RELEASE"])
        images, trained = (np.atleast_1d(getattr(content["RELEASE"], name)) for name in ("annolist", "img_train"))
    except NO_MAT as error:
        raise MeshrecError(
            f"{path} is no annotation file of MPII, or is cut off ({error}). Download it again."
        ) from error
    if len(images) != len(trained):
        raise MeshrecError(
            f"{path} tells of {len(images)} images, and of {len(trained)} whether they are for training."
        )
    return content["RELEASE"]


def _pose_of_struct(path: Path, image: str, sequence: str, person: Any) -> Pose | None:
    """A person of the official file; None where nothing but a head rectangle is told of them."""
    points = np.atleast_1d(getattr(getattr(person, "annopoints", None), "point", ()))
    place, scale = getattr(person, "objpos", None), np.atleast_1d(getattr(person, "scale", ()))
    if not points.size or not scale.size or place is None or not hasattr(place, "x"):
        return None
    joints = torch.zeros(len(MPII16), 3, dtype=torch.float64)
    for point in points:
        told = [getattr(point, name, None) for name in ("id", "x", "y")]
        joint, x, y = numbers(path, told, f"id, x and y of a joint in {image}", 3).tolist()
        if joint not in range(len(MPII16)):
            raise MeshrecError(f"{path}: a joint in {image} has the id {joint:g}; 0 to {len(MPII16) - 1} are known.")
        hidden = str(getattr(point, "is_visible", "")) == "0"
        joints[int(joint)] = torch.tensor([x, y, 1.0 if hidden else 2.0])
    center = numbers(path, [place.x, place.y], f"objpos in {image}", 2)
    return Pose(image, joints, center, float(numbers(path, scale[0], f"scale in {image}")), sequence)
