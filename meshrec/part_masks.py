"""Where the parts of a person's body are seen in a picture: a map of part labels, made ready to be fitted to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meshrec.skeletons import SMPL24
from meshrec.types import Batched

GRID = 96
"""Cells along either side of the square around a person."""

MARGIN = 0.1
"""What the square leaves around a person on either side, as a share of the person's size."""

PIXELS = 32
"""So many pixels stand for each part."""

LEAST_CELLS = 3
"""A part seen in fewer cells is taken for a slip of the labels."""

_UNKNOWN = -2
"""The label of cells outside the picture, where any part may be."""


@dataclass(frozen=True)
class PartSet:
    """The parts that a part map tells apart, in the order of its labels 0, 1, ...; any other label is background."""

    name: str
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    """Each part's name, and the joints of SMPL24 whose skin it is: that which they move most."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Part names in the order of the labels."""
        return tuple(name for name, _ in self.groups)

    @cached_property
    def label_of_joint(self) -> tuple[int, ...]:
        """The label of each SMPL24 joint's skin; -1 where no part has it."""
        owner = {joint: label for label, (_, joints) in enumerate(self.groups) for joint in joints}
        return tuple(owner.get(joint, -1) for joint in SMPL24.joints)

    def __len__(self) -> int:
        return len(self.groups)


def _sided(part: str, *joints: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(f"{side}_{part}", tuple(f"{side}_{joint}" for joint in joints)) for side in ("left", "right")]


PARTS24 = PartSet("parts24", tuple((joint, (joint,)) for joint in SMPL24.joints))
"""One part for each joint of the tree, named as it is: `BodyModel.parts` holds these labels."""

PARTS14 = PartSet(
    "parts14",
    (
        ("head", ("neck", "head")),
        ("torso", ("pelvis", "spine1", "spine2", "spine3", "left_collar", "right_collar")),
        *_sided("upper_arm", "shoulder"),
        *_sided("lower_arm", "elbow"),
        *_sided("hand", "wrist", "hand"),
        *_sided("thigh", "hip"),
        *_sided("shin", "knee"),
        *_sided("foot", "ankle", "foot"),
    ),
)
"""What coarser part maps tell apart."""


@dataclass(frozen=True)
class PartMasks(Batched):
    """Where each of P parts is seen, of any batch of people; pixels of the picture, or about its principal point."""

    parts: PartSet
    seen: Bool[Tensor, "*batch P"]
    pixels_px: Float[Tensor, "*batch P S 2"]
    """S pixels of each part, evenly spread over it; they mean nothing where the part is not seen."""
    distance_px: Float[Tensor, "*batch P h w"]
    """From the centre of each cell of a grid to the part, 0 in the part; 0 too where the part is not seen."""
    corner_px: Float[Tensor, "*batch 2"]
    """The upper left corner of the grid."""
    cell_px: Float[Tensor, "*batch"]
    """The side of its square cells."""
    size_px: Float[Tensor, "*batch"]
    """The person's size: the longer side of the box around what is seen."""

    def about(self, center_px: Float[Tensor, "*batch 2"]) -> "PartMasks":
        """The same masks in pixels about a point."""
        pixels_px = self.pixels_px - center_px[..., None, None, :]
        return replace(self, pixels_px=pixels_px, corner_px=self.corner_px - center_px)


def part_masks(labels: Int[Tensor, "*batch H W"], parts: PartSet = PARTS24) -> PartMasks:
    """The masks of one person in each picture, at the resolution of a grid around that person.

    Outside the picture every part may be: distances are those to the part or to the picture's edge.
    """
    batch, pictures = labels.shape[:-2], labels.reshape(-1, *labels.shape[-2:])
    body = (pictures >= 0) & (pictures < len(parts))
    corner_px, cell_px, size_px = _square_around(body)
    cells = _cells(pictures, corner_px, cell_px)
    owned = cells[:, None] == torch.arange(len(parts), device=labels.device)[:, None, None]
    seen = owned.sum((2, 3)) >= LEAST_CELLS
    masks = PartMasks(
        parts=parts,
        seen=seen,
        pixels_px=corner_px[:, None, None] + cell_px[:, None, None, None] * _spread(owned, PIXELS),
        distance_px=cell_px[:, None, None, None] * _distances(owned, cells == _UNKNOWN, seen),
        corner_px=corner_px,
        cell_px=cell_px,
        size_px=size_px,
    )
    return masks.map(lambda tensor: tensor.reshape([*batch, *tensor.shape[1:]]))


def _square_around(
    body: Bool[Tensor, "N H W"],
) -> tuple[Float[Tensor, "N 2"], Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Corner and cell of the grid around a person, and the person's size; the whole picture where nobody is seen."""
    spans = []
    for across in (body.any(1), body.any(2)):
        some, length = across.any(1), across.shape[1]
        first = torch.where(some, across.int().argmax(1), 0)
        last = torch.where(some, length - across.flip(1).int().argmax(1), length)
        spans.append(torch.stack([first, last], dim=-1).float())
    low, high = torch.stack(spans, dim=-1).unbind(1)
    size_px = (high - low).amax(-1)
    side_px = (1 + 2 * MARGIN) * size_px
    return (low + high) / 2 - side_px[:, None] / 2, side_px / GRID, size_px


def _cells(
    pictures: Int[Tensor, "N H W"], corner_px: Float[Tensor, "N 2"], cell_px: Float[Tensor, "N"]
) -> Int[Tensor, "N h w"]:
    """The label under the centre of each cell of the grid."""
    centers = (torch.arange(GRID, device=pictures.device) + 0.5) * cell_px[:, None]
    (height, width), person = pictures.shape[1:], torch.arange(len(pictures), device=pictures.device)
    x, y = ((corner_px[:, axis, None] + centers).floor().long() for axis in (0, 1))
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None]
    here = pictures[person[:, None, None], y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None]]
    return torch.where(inside, here, _UNKNOWN)


def _spread(owned: Bool[Tensor, "N P h w"], count: int) -> Float[Tensor, "N P {count} 2"]:
    """Centres (x, y), in cells, of `count` of each part's cells: at even steps along a curve that fills the grid."""
    order = torch.tensor(_z_curve(GRID), device=owned.device)
    before = owned.flatten(2)[:, :, order].cumsum(-1, dtype=torch.int32)
    step = (torch.arange(count, device=owned.device) + 0.5) / count
    rank = (step * before[:, :, -1:]).floor().to(torch.int32) + 1
    cell = order[torch.searchsorted(before, rank).clamp(max=GRID**2 - 1)]
    return torch.stack([cell % GRID, cell // GRID], dim=-1) + 0.5


@cache
def _z_curve(side: int) -> Sequence[int]:
    """Morton's order of a square grid's cells: neighbours along it are neighbours in the grid."""
    bits = np.arange(side.bit_length())
    spread = ((np.arange(side)[:, None] >> bits & 1) << 2 * bits).sum(1)
    return np.argsort((2 * spread[:, None] + spread).ravel(), kind="stable").tolist()


def _distances(
    owned: Bool[Tensor, "N P h w"], unknown: Bool[Tensor, "N h w"], seen: Bool[Tensor, "N P"]
) -> Float[Tensor, "N P h w"]:
    """Cells from each cell's centre to the border of the part, 0 in it."""
    away = (~(owned | unknown[:, None])).cpu().numpy().astype(np.uint8)
    distances = np.zeros(away.shape, np.float32)
    for person, part in seen.nonzero().tolist():
        distances[person, part] = cv2.distanceTransform(away[person, part], cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return torch.from_numpy(distances).sub_(0.5).clamp_(min=0).to(owned.device)
