"""What a data set is once its annotations are read: photographs, and what is said of the people in them."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.data.record_files import Header
from meshrec.data.records import Truth
from meshrec.errors import MeshrecError
from meshrec.types import Camera, Keypoints

MARGIN = 1.2
"""The field's crops are squares of so many longer sides of a box."""

SCALE_PX = 200.0
"""Data sets that give a `scale` for a person give the side of a square in this many pixels."""


@dataclass(frozen=True)
class Lens:
    """The pinhole of a calibrated photograph, whose pixels may be not quite square."""

    focal_xy_px: tuple[float, float]
    center_px: tuple[float, float]

    @property
    def focal_px(self) -> float:
        """One focal length for both axes: the geometric mean."""
        return sqrt(self.focal_xy_px[0] * self.focal_xy_px[1])

    def project(self, points_m: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 2"]:
        """Pixels as the two focal lengths have them."""
        return points_m[..., :2] / points_m[..., 2:] * points_m.new_tensor(self.focal_xy_px) + self._center(points_m)

    def beside(self, point_m: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Where a camera with the one focal length sees the point at the pixel that `project` gives it.

        A body that is moved so with its pelvis is off by |f_x - f_y| / 2f of its size in the image: 0.2 % in 3DPW.
        """
        one = self.focal_px
        return point_m * point_m.new_tensor([self.focal_xy_px[0] / one, self.focal_xy_px[1] / one, 1.0])

    def camera(self, width_px: int, height_px: int) -> Camera:
        """With square pixels."""
        center_px = torch.tensor(self.center_px, dtype=torch.float32)
        return Camera(torch.tensor(self.focal_px, dtype=torch.float32), center_px, width_px, height_px, "true")

    def _center(self, like: Tensor) -> Float[Tensor, "2"]:
        return like.new_tensor(self.center_px)


@dataclass(frozen=True, eq=False)
class Annotation:
    """One person, in pixels of the photograph and in the frame of its camera."""

    box_xyxy_px: Float[Tensor, "4"]
    keypoints: Keypoints
    lens: Lens | None = None
    truth: Truth | None = None
    joints_m: Float[Tensor, "K 3"] | None = None
    joints_weight: Float[Tensor, "K"] | None = None
    subject: str = ""
    sequence: str = ""
    frame: int = -1


@dataclass(frozen=True, eq=False)
class Sheet:
    """A photograph, and the people that are annotated in it."""

    photo: Path
    name: str
    """The photograph within its data set."""
    people: Callable[[], Sequence[Annotation]]


@dataclass(frozen=True, eq=False)
class Source:
    """A data set, ready to be converted: always the same sheets in the same order."""

    header: Header
    sheets: Sequence[Sheet]
    left_out: Mapping[str, int] = field(default_factory=dict)
    """How many people were passed over, by the reason."""
    notes: tuple[str, ...] = ()
    """What the user should know of how it was read."""


def first_of(paths: Iterable[Path], what: str, option: str) -> Path:
    """The first path that exists; a `MeshrecError` that says where `what` was looked for."""
    looked = list(paths)
    for path in looked:
        if path.exists():
            return path
    places = ", ".join(map(str, looked))
    raise MeshrecError(f"There are no {what}: looked for {places}. Name the data set's own folder, or give {option}.")


def read_json(path: Path) -> Any:
    """What a JSON file holds."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise MeshrecError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise MeshrecError(f"{path} is cut off or no JSON ({error}). Download it again.") from error


def rows_of(path: Path, content: Any, name: str) -> list[dict[str, Any]]:
    """The list of objects that a JSON object has under `name`."""
    rows = content.get(name) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MeshrecError(f"{path} has no list of objects `{name}`: it is not the annotation file that is needed.")
    return rows


def numbers(path: Path, values: Any, what: str, *shape: int, finite: bool = True) -> Float[Tensor, "*shape"]:
    """Numbers of a given shape out of a file, finite in single precision too; -1 in the shape is any length."""
    try:
        array = torch.as_tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MeshrecError(f"{path}: {what} should be numbers ({error}). Download the file again.") from error
    fits = array.ndim == len(shape) and all(want in (-1, have) for have, want in zip(array.shape, shape, strict=True))
    if not fits or (finite and not bool(array.float().isfinite().all())):
        sides = " x ".join("n" if side < 0 else str(side) for side in shape)
        wanted = f"{sides} finite numbers" if shape else "one finite number"
        found = "some that are not finite" if fits else " x ".join(map(str, array.shape)) or "one number"
        raise MeshrecError(f"{path}: {what} should be {wanted}, found {found}.")
    return array


def lens_of(path: Path, focal_xy_px: Sequence[float], center_px: Sequence[float], what: str) -> Lens:
    """The pinhole that a file tells of."""
    (fx, fy), (cx, cy) = focal_xy_px, center_px
    if min(fx, fy) <= 0:
        raise MeshrecError(f"{path}: the focal lengths of {what} are {fx:g} and {fy:g}; no camera has these.")
    return Lens((fx, fy), (cx, cy))


def image_name(path: Path, name: Any) -> str:
    """The name of a file, and of nothing outside its folder."""
    if not isinstance(name, str) or not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise MeshrecError(f"{path}: {name!r} is no name of an image.")
    return name


def square_box(center_px: Float[Tensor, "2"], side_px: float) -> Float[Tensor, "4"]:
    """The box whose crop (1.2 longer sides) is the square of this centre and side."""
    half = side_px / MARGIN / 2
    return torch.cat([center_px - half, center_px + half]).float()


def box_around(points: Float[Tensor, "*batch K 3"]) -> Float[Tensor, "*batch 4"]:
    """The box around the points whose third number is above 0; not finite where there is none."""
    known = points[..., 2:] > 0
    low = torch.where(known, points[..., :2], torch.inf).amin(-2)
    high = torch.where(known, points[..., :2], -torch.inf).amax(-2)
    return torch.cat([low, high], dim=-1)
