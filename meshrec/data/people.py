"""People as a network is taught with them: crops, and all that is known of who is in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.camera import assumed_focal_px, centered_camera
from meshrec.data.augment import PLAIN, Draw
from meshrec.data.body_joints import BODY58, placed
from meshrec.data.crop import (
    crop_camera,
    cut,
    mirrored_camera,
    mirrored_params,
    square_of,
    turned,
    turned_points,
)
from meshrec.data.record_files import BETAS
from meshrec.data.records import Gender, Record
from meshrec.skeletons import SMPL24
from meshrec.types import Batched, BodyParams, Camera, Noun, Square, stack

GENDER_NAMES: tuple[Gender, ...] = get_args(Gender)
"""What `People.gender` numbers."""

UNKNOWN = BodyParams.from_rotations(torch.eye(3).expand(len(SMPL24), 3, 3), torch.zeros(BETAS), torch.zeros(3))
"""Stands in for a body that is not known."""

_MIRROR = torch.tensor(BODY58.mirror)


@dataclass(frozen=True)
class People(Batched):
    """What a network is taught with. What is not known has a finite stand-in, and its flag or weight says so."""

    pixels: UInt8[Tensor, "*batch 3 S S"]
    """RGB."""
    square: Square
    """Of the photograph."""
    flipped: Bool[Tensor, "*batch"]
    """Whether the crop, and all that is said of it, is the mirror image of what the square shows."""
    points: Float[Tensor, "*batch 58 2"]
    """Joints of BODY58, in pixels of the crop."""
    weight: Float[Tensor, "*batch 58"]
    """How sure they are, 0 to 1; 0: not known."""
    joints_m: Float[Tensor, "*batch 58 3"]
    """Joints that were measured without a body, in the frame of `camera`."""
    joints_weight: Float[Tensor, "*batch 58"]
    params: BodyParams
    """In the frame of `camera`."""
    rest_pelvis_m: Float[Tensor, "*batch 3"]
    """What `params.root` turns the body about."""
    camera: Camera
    """The exact pinhole of the crop."""
    posed: Bool[Tensor, "*batch"]
    """Whether the rotations are known."""
    shaped: Bool[Tensor, "*batch"]
    """Whether `betas` are."""
    placed: Bool[Tensor, "*batch"]
    """Whether `transl_m` and `camera` are."""
    gender: Int[Tensor, "*batch"]
    """A place in `GENDER_NAMES`: the body that `params` are for."""
    dataset: Int[Tensor, "*batch"]
    """Which of the loader's data sets."""
    row: Int[Tensor, "*batch"]
    """In that data set."""

    @property
    def crop_px(self) -> int:
        """Side of the crops."""
        return self.pixels.shape[-1]

    def __len__(self) -> int:
        return len(self.pixels)

    def mirrored(self) -> "People":
        """The same people in a mirror: left is right, and each joint is the other side's."""
        return replace(self.told_of_mirror(), pixels=self.pixels.flip(-1))

    def told_of_mirror(self) -> "People":
        """What is said of the people in a mirror, about the same pixels."""
        mirror, reflection = _MIRROR.to(self.points.device), self.joints_m.new_tensor([-1.0, 1.0, 1.0])
        x, y = self.points.unbind(-1)
        return replace(
            self,
            flipped=~self.flipped,
            points=torch.stack([self.crop_px - x, y], dim=-1)[..., mirror, :],
            weight=self.weight[..., mirror],
            joints_m=(self.joints_m * reflection)[..., mirror, :],
            joints_weight=self.joints_weight[..., mirror],
            params=mirrored_params(self.params, self.rest_pelvis_m),
            camera=mirrored_camera(self.camera),
        )


@dataclass(frozen=True)
class RestPelvis:
    """Where the pelvis of each gender's body is before root and translation: what the root turns it about."""

    template_m: Float[Tensor, "3 3"]
    """A row for each of `GENDER_NAMES`."""
    directions_m: Float[Tensor, "3 3 B"]

    @classmethod
    def of(cls, bodies: Mapping[Gender, BodyModel]) -> "RestPelvis":
        """Of these bodies; the neutral one stands in for those that are not at hand, as it does in published training.

        A man's or a woman's `transl_m` was found with the body that `made_from` of the records tells: with another one
        the person is off by the distance of the two bodies' pelvises at rest.
        """
        if "neutral" not in bodies:
            raise ValueError(f"the neutral body stands in for others, and the bodies are {', '.join(bodies)}")
        chosen = [bodies.get(gender, bodies["neutral"]) for gender in GENDER_NAMES]
        templates = [body.rest_template[0] for body in chosen]
        directions = [body.rest_directions[0, :, :BETAS] for body in chosen]
        return cls(torch.stack(templates).float().cpu(), torch.stack(directions).float().cpu())

    def __call__(self, gender: Int[Tensor, "*batch"], betas: Float[Tensor, "*batch B"]) -> Float[Tensor, "*batch 3"]:
        """Of bodies of these genders and shapes."""
        return self.template_m[gender] + (self.directions_m[gender] @ betas[..., None])[..., 0]


@dataclass(frozen=True, eq=False)
class Sight:
    """A crop of a record, as chance made it: what has to be done for each person alone."""

    record: Record
    square: Square
    flip: bool
    pixels: UInt8[np.ndarray, "S S 3"]


def sight_of(record: Record, draw: Draw = PLAIN, crop_px: int = 224) -> Sight:
    """What a person is shown as."""
    square = draw.square(square_of(record.box_xyxy_px))
    pixels = cut(record.pixels, record.picture_square(square), crop_px)
    seen_px = record.keypoints.xy_px[record.keypoints.confidence > 0]
    pixels = draw.painted(pixels, square.into(seen_px, crop_px).numpy())
    return Sight(record, square, draw.flip, cv2.flip(pixels, 1) if draw.flip else pixels)


def people_of(sights: Sequence[Sight], rest_pelvis: RestPelvis) -> People:
    """The people of some crops, along one batch axis, rows of one data set; what is said of all is done at once."""
    records, square = [sight.record for sight in sights], stack([sight.square for sight in sights])
    pixels = torch.from_numpy(np.stack([sight.pixels for sight in sights])).permute(0, 3, 1, 2).contiguous()
    crop_px = pixels.shape[-1]
    points, weight = _seen(records)
    joints_m, joints_weight = _measured(records)
    params = stack([record.truth.params if record.truth else UNKNOWN for record in records])
    gender = torch.tensor([GENDER_NAMES.index(record.truth.gender) if record.truth else 0 for record in records])
    rest_pelvis_m = rest_pelvis(gender, params.betas)
    people = People(
        pixels=pixels,
        square=square,
        flipped=torch.zeros(len(records), dtype=torch.bool),
        points=square.into(points, crop_px),
        weight=weight,
        joints_m=turned_points(joints_m, square.angle_rad),
        joints_weight=joints_weight,
        params=turned(params, square.angle_rad, rest_pelvis_m),
        rest_pelvis_m=rest_pelvis_m,
        camera=crop_camera(stack([_camera(record) for record in records]), square, crop_px),
        posed=torch.tensor([record.posed for record in records]),
        shaped=torch.tensor([record.shaped for record in records]),
        placed=torch.tensor([record.placed for record in records]),
        gender=gender,
        dataset=torch.zeros(len(records), dtype=torch.long),
        row=torch.arange(len(records)),
    )
    return _either(torch.tensor([sight.flip for sight in sights]), people.told_of_mirror(), people)


def example_of(record: Record, rest_pelvis: RestPelvis, draw: Draw = PLAIN, crop_px: int = 224) -> People:
    """One person, without batch axes."""
    return people_of([sight_of(record, draw, crop_px)], rest_pelvis)[0]


def _seen(records: Sequence[Record]) -> tuple[Float[Tensor, "n 58 2"], Float[Tensor, "n 58"]]:
    """The joints that were seen, in the photograph, and how surely."""
    seen = [record.keypoints for record in records]
    rows = [placed(keypoints.xy_px, keypoints.confidence, keypoints.skeleton) for keypoints in seen]
    return torch.stack([points for points, _ in rows]), torch.stack([weight for _, weight in rows])


def _measured(records: Sequence[Record]) -> tuple[Float[Tensor, "n 58 3"], Float[Tensor, "n 58"]]:
    """The joints that were measured in 3D, and how surely."""
    joints_m, weight = torch.zeros(len(records), len(BODY58), 3), torch.zeros(len(records), len(BODY58))
    for place, record in enumerate(records):
        if record.joints_m is not None and record.joints_weight is not None and record.joints_skeleton is not None:
            joints_m[place], weight[place] = placed(record.joints_m, record.joints_weight, record.joints_skeleton)
    return joints_m, weight


def _camera(record: Record) -> Camera:
    """The photograph's, or one that stands in for it; source and size are left out, so that all can be stacked."""
    if record.camera is not None:
        camera = record.camera
    else:
        camera = centered_camera(*record.photo_size_px, assumed_focal_px(*record.photo_size_px), "given")
    return replace(camera, width_px=0, height_px=0, focal_source="given")


def _either(which: Bool[Tensor, "n"], these: Noun, those: Noun) -> Noun:
    """The rows of `these` where `which`, else those of `those`."""
    chosen: dict[str, Any] = {}
    for field in fields(these):  # type: ignore[arg-type]
        one, other = getattr(these, field.name), getattr(those, field.name)
        if isinstance(one, Tensor) and one is not other:
            chosen[field.name] = torch.where(which.view(-1, *[1] * (one.ndim - 1)), one, other)
        elif isinstance(one, Batched):
            chosen[field.name] = _either(which, one, other)
    return replace(these, **chosen)  # type: ignore[type-var]
