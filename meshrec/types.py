"""The nouns that flow between the rooms: frozen dataclasses of tensors, with any leading batch axes.

Frames: camera is OpenCV's (x right, y down, z forward); the body's own is SMPL's (y up, facing +z). Metres, radians,
pixels; the image is [0, W] x [0, H] and the first pixel's centre is (0.5, 0.5).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meshrec.skeletons import Skeleton

FocalSource = Literal["given", "exif", "assumed", "true"]
"""How a focal length was found: by the user, in the photograph's EXIF data, assumed from its size, known exactly."""


Noun = TypeVar("Noun", bound="Batched")


class Batched:
    """What every noun can do along its leading batch axes."""

    __iter__ = None
    """A noun is no sequence: index its batch axes instead."""

    def map(self: Noun, change: Any) -> Noun:
        """The same noun with `change` applied to every tensor in it, nested nouns included."""
        changed = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = change(value)
            elif isinstance(value, Batched):
                changed[field.name] = value.map(change)
        return replace(self, **changed)  # type: ignore[type-var]

    def __getitem__(self: Noun, item: Any) -> Noun:
        """Index the leading batch axes of every tensor."""
        return self.map(lambda tensor: tensor[item])

    def to(self: Noun, *args: Any, **kwargs: Any) -> Noun:
        """Move every floating tensor, as `Tensor.to` does; the others follow to the device alone."""

        def move(tensor: Tensor) -> Tensor:
            moved = tensor.to(*args, **kwargs)
            return moved if tensor.is_floating_point() else tensor.to(moved.device)

        return self.map(move)


def stack(nouns: list[Noun]) -> Noun:
    """Nouns of equal shapes as one, along a new first batch axis; what is no tensor must be the same in all."""
    if not nouns:
        raise ValueError("there is nothing to stack")
    columns = {}
    for field in fields(nouns[0]):  # type: ignore[arg-type]
        values = [getattr(noun, field.name) for noun in nouns]
        if all(isinstance(value, Tensor) for value in values):
            columns[field.name] = torch.stack(values)
        elif all(isinstance(value, Batched) for value in values):
            columns[field.name] = stack(values)
        elif any(value is not values[0] and value != values[0] for value in values):
            raise ValueError(f"nouns that differ in {field.name} cannot be stacked")
    return replace(nouns[0], **columns)  # type: ignore[type-var]


def joined(nouns: Sequence[Noun]) -> Noun:
    """Nouns one after another, along their first batch axis; what is no tensor must be the same in all."""
    if not nouns:
        raise ValueError("there is nothing to join")
    columns: dict[str, Any] = {}
    for field in fields(nouns[0]):  # type: ignore[arg-type]
        values = [getattr(noun, field.name) for noun in nouns]
        if isinstance(values[0], Tensor):
            columns[field.name] = torch.cat(values)
        elif isinstance(values[0], Batched):
            columns[field.name] = joined(values)
        elif any(value != values[0] for value in values):
            raise ValueError(f"nouns that differ in {field.name} cannot be joined")
    return replace(nouns[0], **columns)  # type: ignore[type-var]


@dataclass(frozen=True)
class Keypoints(Batched):
    """Joints seen in an image; a missing joint has confidence 0 (its coordinates are then finite but mean nothing)."""

    xy_px: Float[Tensor, "*batch K 2"]
    confidence: Float[Tensor, "*batch K"]
    """0 (missing) to 1 (certain)."""
    skeleton: Skeleton
    landmarks_m: Float[Tensor, "*batch K 3"] | None = None
    """The detector's own 3D guess: metres, camera axes, its origin is arbitrary."""


@dataclass(frozen=True)
class Person:
    """One detected person in a photograph."""

    box_xyxy_px: Float[Tensor, "4"]
    score: float
    keypoints: Keypoints


@dataclass(frozen=True)
class Camera(Batched):
    """A pinhole: `x_px = focal_px * X / Z + center_px`, square pixels, no distortion."""

    focal_px: Float[Tensor, "*batch"]
    center_px: Float[Tensor, "*batch 2"]
    width_px: int
    height_px: int
    focal_source: FocalSource


@dataclass(frozen=True)
class Square(Batched):
    """A square of a photograph, turned about its centre: what a crop shows.

    `xy_crop = R(angle) (xy_photo - center) crop_px / side + crop_px / 2`, the crop being [0, crop_px] on both axes.
    """

    center_px: Float[Tensor, "*batch 2"]
    """In the photograph."""
    side_px: Float[Tensor, "*batch"]
    """In pixels of the photograph."""
    angle_rad: Float[Tensor, "*batch"]
    """What the photograph shows is turned by this in the crop, from x (right) towards y (down)."""

    def matrix(self, crop_px: int) -> Float[Tensor, "*batch 2 3"]:
        """The affine map [A | t] from pixels of the photograph to pixels of the crop."""
        cosine, sine = self.angle_rad.cos(), self.angle_rad.sin()
        turn = torch.stack([torch.stack([cosine, -sine], dim=-1), torch.stack([sine, cosine], dim=-1)], dim=-2)
        linear = turn * (crop_px / self.side_px)[..., None, None]
        shift = crop_px / 2 - linear @ self.center_px[..., None]
        return torch.cat([linear, shift], dim=-1)

    def into(self, xy_px: Float[Tensor, "*batch K 2"], crop_px: int) -> Float[Tensor, "*batch K 2"]:
        """Points of the photograph in the crop."""
        linear = self.matrix(crop_px)[..., :2]
        return (xy_px - self.center_px[..., None, :]) @ linear.mT + crop_px / 2

    def back(self, xy_px: Float[Tensor, "*batch K 2"], crop_px: int) -> Float[Tensor, "*batch K 2"]:
        """Points of the crop in the photograph: the inverse of `into`."""
        linear = self.matrix(crop_px)[..., :2] * (self.side_px / crop_px)[..., None, None].square()
        return (xy_px - crop_px / 2) @ linear + self.center_px[..., None, :]


@dataclass(frozen=True)
class Crop(Batched):
    """The square that the network sees, and the way back to the photograph."""

    image: Float[Tensor, "*batch C S S"]
    """What the network takes: RGB about ImageNet's mean, in its standard deviations, or a proxy."""
    square: Square


@dataclass(frozen=True)
class BodyParams(Batched):
    """What SMPL asks for; the frame of `root` and `transl_m` is the frame of the body that comes out."""

    root: Float[Tensor, "*batch 3 3"]
    """Rotation of the pelvis: body axes to the outer frame, about the pelvis joint."""
    pose: Float[Tensor, "*batch 23 3 3"]
    """Rotations of the 23 other joints, each relative to its parent."""
    betas: Float[Tensor, "*batch B"]
    """Shape, in standard deviations of the body's shape space."""
    transl_m: Float[Tensor, "*batch 3"]

    @property
    def rotations(self) -> Float[Tensor, "*batch 24 3 3"]:
        """Root and joints along one axis, in the order of SMPL24."""
        return torch.cat([self.root[..., None, :, :], self.pose], dim=-3)

    @classmethod
    def from_rotations(
        cls,
        rotations: Float[Tensor, "*batch 24 3 3"],
        betas: Float[Tensor, "*batch B"],
        transl_m: Float[Tensor, "*batch 3"],
    ) -> "BodyParams":
        """The inverse of `rotations`."""
        return cls(rotations[..., 0, :, :], rotations[..., 1:, :, :], betas, transl_m)


@dataclass(frozen=True)
class Body(Batched):
    """A posed body, in the frame of its `BodyParams`."""

    vertices_m: Float[Tensor, "*batch V 3"]
    joints_m: Float[Tensor, "*batch 24 3"]
    """The 24 joints of the kinematic tree, in the order of SMPL24."""


@dataclass(frozen=True)
class FitTerms(Batched):
    """A fit's objective, term by term, in nats."""

    keypoints: Float[Tensor, "*batch"]
    """Robust, confidence-weighted reprojection error, in squared units of keypoint noise."""
    landmarks: Float[Tensor, "*batch"]
    """The same of the 3D landmarks; 0 where they were not used."""
    parts: Float[Tensor, "*batch"]
    """Body-part alignment, times its weight; 0 where no part masks were given."""
    prior: Float[Tensor, "*batch"]
    """The pose prior's energy, times its weight."""
    shape: Float[Tensor, "*batch"]
    """Half the squared length of `betas`, times its weight."""
    pull: Float[Tensor, "*batch"]
    """How far the body is from the one that the fit went on from, in squared units of its spread; 0 without one."""

    @property
    def total(self) -> Float[Tensor, "*batch"]:
        """The objective: the sum of its terms."""
        return self.keypoints + self.landmarks + self.parts + self.prior + self.shape + self.pull


@dataclass(frozen=True)
class FitReport(Batched):
    """How a fit ended."""

    terms: FitTerms
    reprojection_px: Float[Tensor, "*batch"]
    """Median distance of projected and detected joints, over the seen ones."""
    plausibility: Float[Tensor, "*batch"]
    """Share of real poses that the prior finds less likely than this one, 0 to 1."""
    start: Int[Tensor, "*batch"]
    """Which of the starts won; -1: the fit went on from a body that was given."""
    iterations: Int[Tensor, "*batch"]
    """Steps of the winning start."""
    converged: Bool[Tensor, "*batch"]
    """Whether no further step would have lowered the objective by more than the tolerance."""
    solvable: Bool[Tensor, "*batch"]
    """False where too few joints were seen to place a body; the estimate then means nothing."""


@dataclass(frozen=True)
class Estimate(Batched):
    """What a branch says of a person: 17 joints always, the rest where the branch has it."""

    branch: str
    joints17_m: Float[Tensor, "*batch 17 3"]
    """H36M-17 joints in camera axes, relative to the pelvis."""
    confidence: Float[Tensor, "*batch 17"]
    seen: Bool[Tensor, "*batch 17"]
    """False: the joint was not seen, its place is what the prior expects."""
    root_m: Float[Tensor, "*batch 3"] | None = None
    """The pelvis of `joints17_m` in the camera frame."""
    params: BodyParams | None = None
    body: Body | None = None
    camera: Camera | None = None
    report: FitReport | None = None
