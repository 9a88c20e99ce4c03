"""People seen in 2D: keypoints in pixels and the cameras that saw them, as files of keypoints tell it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from meshrec.arrays import read_arrays
from meshrec.camera import assumed_focal_px
from meshrec.errors import MeshrecError
from meshrec.keypoint_entries import VISIBILITY_CONFIDENCE
from meshrec.skeletons import COCO17, SKELETONS
from meshrec.types import Keypoints

PIXEL_CENTRE = 0.5
"""COCO's coordinates count pixels from the middle of the first."""

MOST_PX = 1_000_000
"""No image is wider or higher."""

_Side = Annotated[int, Field(gt=0, le=MOST_PX)]


@dataclass(frozen=True)
class Sightings:
    """N people, each with a camera of its own."""

    keypoints: Keypoints
    """Batch axes (N,)."""
    focal_px: Float[Tensor, "N"]
    center_px: Float[Tensor, "N 2"]
    subject: Shaped[np.ndarray, "N"]
    """Empty where it is not known."""
    action: Shaped[np.ndarray, "N"]
    frame: Int[np.ndarray, "N"]
    """The same number: the same pose seen by several cameras."""
    joints_m: Float[Tensor, "N 17 3"] | None = None
    """The truth where a file has it: H36M17, camera axes, about the pelvis."""


def text_column(texts: Sequence[str]) -> Shaped[np.ndarray, "N"]:
    """Text of any length, each as long as it is."""
    return np.array(texts, np.dtypes.StringDType())


@dataclass(frozen=True)
class _Image:
    id: int | str
    width: _Side
    height: _Side


@dataclass(frozen=True)
class _Annotation:
    image_id: int | str
    keypoints: list[float]
    iscrowd: int = 0


@dataclass(frozen=True)
class _Coco:
    """What is needed of COCO's annotations."""

    images: list[_Image]
    annotations: list[_Annotation]


_COCO = TypeAdapter(_Coco)


def read_coco(path: Path) -> Sightings:
    """COCO's annotations of people; cameras look through the middle of their images, with the diagonal's focal length.

    Labelled joints count, hidden or not; crowds do not.
    """
    coco = _read_coco(path)
    sizes = {image.id: (image.width, image.height) for image in coco.images}
    people = [person for person in coco.annotations if not person.iscrowd and any(person.keypoints[2::3])]
    if not people:
        raise MeshrecError(f"{path} annotates nobody's keypoints.")
    if wrong := [len(person.keypoints) for person in people if len(person.keypoints) != 3 * len(COCO17)]:
        raise MeshrecError(f"{path} has a person of {wrong[0]} numbers; COCO's have {3 * len(COCO17)}.")
    if missing := [person.image_id for person in people if person.image_id not in sizes]:
        raise MeshrecError(f"{path} has nothing in `images` of the image {missing[0]}, so its size is not known.")
    triples = torch.tensor([person.keypoints for person in people]).view(len(people), len(COCO17), 3)
    confidence = torch.zeros(triples.shape[:-1])
    for flag, value in VISIBILITY_CONFIDENCE.items():
        confidence[triples[..., 2] == flag] = value
    return Sightings(
        Keypoints(triples[..., :2] + PIXEL_CENTRE, confidence, COCO17),
        *_cameras_of([sizes[person.image_id] for person in people]),
        subject=text_column([""] * len(people)),
        action=text_column([""] * len(people)),
        frame=np.arange(len(people)),
    )


def _read_coco(path: Path) -> _Coco:
    try:
        return _COCO.validate_json(path.read_bytes())
    except OSError as error:
        raise MeshrecError(f"Cannot read {path}: {error.strerror or error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise MeshrecError(
            f"{path} is no file of COCO annotations, with `images` and their sizes: {where}: {first['msg']}. Other "
            f"keypoints can be read from an .npz of xy_px, confidence, skeleton and size_px."
        ) from error


def _cameras_of(sizes_px: Sequence[tuple[int, int]]) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 2"]]:
    """Focal lengths and centres of cameras of which only the sizes of their images are known."""
    focal_px = torch.tensor([assumed_focal_px(width, height) for width, height in sizes_px])
    return focal_px, torch.tensor(sizes_px, dtype=torch.float32).view(-1, 2) / 2


def read_keypoint_archive(path: Path) -> Sightings:
    """An `.npz` of many people: `xy_px (N, K, 2)`, `confidence (N, K)`, `skeleton`, and `size_px`, (2,) or (N, 2).

    `size_px` are width and height of the images. Instead of it, or besides, `focal_px` and `center_px` name a camera.
    Optional `subject (N,)` and `action (N,)` are text, and rows of one `frame (N,)` show the same pose.
    """
    names = ("xy_px", "confidence", "skeleton", "size_px", "focal_px", "center_px", "subject", "action", "frame")
    fields = read_arrays(path, names)
    skeleton = SKELETONS.get(str(fields.get("skeleton")))
    if skeleton is None:
        raise MeshrecError(f"{path}: `skeleton` is {fields.get('skeleton')}; it should be of {', '.join(SKELETONS)}.")
    people = len(fields["xy_px"]) if fields["xy_px"].ndim else 0
    xy_px = _numbers(path, fields, "xy_px", (people, len(skeleton), 2))
    confidence = _numbers(path, fields, "confidence", (people, len(skeleton)))
    known = xy_px.isfinite().all(dim=-1) & confidence.isfinite()
    keypoints = Keypoints(
        torch.where(known[..., None], xy_px, 0.0), torch.where(known, confidence, 0.0).clamp(0.0, 1.0), skeleton
    )
    focal_px, center_px = _cameras_in(path, fields, people)
    subject, action = (_texts(path, fields, name, people) for name in ("subject", "action"))
    frame = fields.get("frame", np.arange(people))
    if frame.shape != (people,) or frame.dtype.kind not in "iu":
        raise MeshrecError(f"{path}: `frame` is {frame.dtype} {frame.shape}; whole numbers ({people},) are needed.")
    return Sightings(keypoints, focal_px, center_px, subject, action, np.unique(frame, return_inverse=True)[1])


def _cameras_in(
    path: Path, fields: dict[str, np.ndarray], people: int
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 2"]]:
    """What the archive says of its cameras, what it leaves out being assumed of the size of the images."""
    if "size_px" not in fields and not {"focal_px", "center_px"} <= set(fields):
        raise MeshrecError(f"{path} does not say how large its images are: add `size_px`, width and height.")
    width_height = _broadcast(path, fields, "size_px", (people, 2)) if "size_px" in fields else torch.ones(people, 2)
    if not ((width_height >= 1) & (width_height <= MOST_PX)).all():
        raise MeshrecError(f"{path} has images whose `size_px` is not from 1 to {MOST_PX} pixels.")
    focal_px, center_px = _cameras_of([(int(width), int(height)) for width, height in width_height.tolist()])
    if "focal_px" in fields:
        focal_px = _broadcast(path, fields, "focal_px", (people,))
    if "center_px" in fields:
        center_px = _broadcast(path, fields, "center_px", (people, 2))
    if not ((focal_px > 0) & focal_px.isfinite() & center_px.isfinite().all(dim=-1)).all():
        raise MeshrecError(f"{path} has focal lengths that are not above zero, or centres that are no numbers.")
    return focal_px, center_px


def _broadcast(path: Path, fields: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> Tensor:
    """One row for everybody, or one for each."""
    alone = fields[name].shape == shape[1:]
    return _numbers(path, fields, name, shape[1:] if alone else shape).expand(shape)


def _numbers(path: Path, fields: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> Tensor:
    array = fields[name]
    if array.shape != shape or array.dtype.kind not in "iuf":
        raise MeshrecError(f"{path}: `{name}` is {array.dtype} {array.shape}; real numbers {shape} are needed.")
    return torch.from_numpy(array.astype(np.float32))


def _texts(path: Path, fields: dict[str, np.ndarray], name: str, people: int) -> Shaped[np.ndarray, "N"]:
    array = fields.get(name, np.full(people, ""))
    if array.shape != (people,) or array.dtype.kind != "U":
        raise MeshrecError(f"{path}: `{name}` is {array.dtype} {array.shape}; text ({people},) is needed.")
    return text_column(array.tolist())
