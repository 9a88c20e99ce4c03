"""Body-part alignment: every part's skin covers the part's pixels, and stays within them.

The supplement of Zanfir et al., "Weakly supervised 3D human pose and shape reconstruction with normalizing flows"
(ECCV 2020) names such a term without a formula. Here it is, for each part b that is seen, with its pixels S_b and its
projected points V_b whose skin faces the camera:

    mean over p in S_b of rho(min over v in V_b of |p - v|)  +  mean over v in V_b of rho(distance from v to S_b)

with Geman and McClure's rho(r) = c^2/2 r^2 / (c^2 + r^2), which grows no further than c^2/2; r is in units of the
masks' noise. No renderer is needed. The term is smooth but where the set of points that face the camera changes.
What hides a part from the camera is left to the kernel: a point behind another part is at most an outlier.
"""

from dataclasses import dataclass, replace
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from meshrec.part_masks import PartMasks, PartSet

NOISE_SHARE = 0.01
"""Standard deviation of the borders of part masks, as a share of the person's size in the picture."""

OUTLIER = 7.0
"""c, in units of that noise."""

FAR = 1e9
"""A squared distance, in units of noise, that is as good as infinite."""


@dataclass(frozen=True)
class PartEvidence:
    """The part masks of M people, for N bodies: several may be guesses of one person."""

    masks: PartMasks
    noise_px: Float[Tensor, "M"]
    person: Int[Tensor, "N"]
    """Whose masks each body is compared with."""

    def of(self, bodies: Int[Tensor, "L"]) -> "PartEvidence":
        """What some of the bodies see; the masks are not copied."""
        return replace(self, person=self.person[bodies])


@dataclass(frozen=True)
class Pull:
    """Slope and Gauss-Newton curvature by the place of each point in the picture, per pixel and squared pixel."""

    gradient: Float[Tensor, "N 24 n 2"]
    curvature: Float[Tensor, "N 24 n 2 2"]


def alignment_energy(
    xy_px: Float[Tensor, "N 24 n 2"], facing: Bool[Tensor, "N 24 n"], evidence: PartEvidence, outlier: float
) -> Float[Tensor, "N"]:
    """The term, summed over the parts that are seen; `outlier` is c.

    Points and masks are in the pixels of one frame. It has a gradient by the points.
    """
    match = _match(xy_px, facing, evidence)
    covered = _cost(match.gap2, outlier).mean(-1)
    contained = (match.share * _cost(match.outside.square(), outlier)).sum(-1)
    return (match.seen * (covered + contained)).sum(-1)


@torch.no_grad()
def alignment_pull(
    xy_px: Float[Tensor, "N 24 n 2"], facing: Bool[Tensor, "N 24 n"], evidence: PartEvidence, outlier: float
) -> Pull:
    """Its slope, and Gauss-Newton's curvature: the kernel is taken for the square that it is as steep as.

    All pixels that are nearest to one point draw it to their weighted mean, as one; a part's border draws it along the
    border's normal.
    """
    match = _match(xy_px, facing, evidence)
    pixel = match.seen[..., None] * _trust(match.gap2, outlier) / match.gap2.shape[-1]
    tied = torch.zeros_like(match.share).scatter_add_(-1, match.nearest, pixel)
    place = match.nearest[..., None].expand_as(match.gap)
    drawn = torch.zeros_like(match.slope).scatter_add_(-2, place, pixel[..., None] * match.gap)
    point = match.seen[..., None] * match.share * _trust(match.outside.square(), outlier)
    gradient = drawn + (point * match.outside)[..., None] * match.slope
    curvature = tied[..., None, None] * torch.eye(2).to(xy_px)
    curvature = curvature + (point[..., None] * match.slope)[..., None] * match.slope[..., None, :]
    noise_px = evidence.noise_px[evidence.person, None, None, None]
    slots = _slots(evidence.masks.parts, xy_px.shape[2]).to(xy_px.device)
    gradient = _ungrouped(gradient / noise_px, slots, xy_px.shape[1:3])
    return Pull(gradient, _ungrouped(curvature / noise_px[..., None].square(), slots, xy_px.shape[1:3]))


@dataclass(frozen=True)
class _Match:
    """Pixels and points of each part, K to a part, against each other; lengths in units of noise."""

    seen: Float[Tensor, "N P"]
    """1 where the part is seen."""
    gap: Float[Tensor, "N P S 2"]
    """From each pixel to the nearest point that faces the camera."""
    gap2: Float[Tensor, "N P S"]
    nearest: Int[Tensor, "N P S"]
    share: Float[Tensor, "N P K"]
    """Of each point in the mean over those that face the camera."""
    outside: Float[Tensor, "N P K"]
    """Distance of each point from the part's pixels."""
    slope: Float[Tensor, "N P K 2"]
    """Of that distance: a unit vector away from them, 0 among them."""


def _match(xy_px: Float[Tensor, "N 24 n 2"], facing: Bool[Tensor, "N 24 n"], evidence: PartEvidence) -> _Match:
    masks, person = evidence.masks, evidence.person
    noise_px = evidence.noise_px[person, None, None, None]
    slots = _slots(masks.parts, xy_px.shape[2]).to(xy_px.device)
    points = xy_px.flatten(1, 2)[:, slots.clamp_min(0)]
    counts = facing.flatten(1, 2)[:, slots.clamp_min(0)] & (slots >= 0)
    outside_px, slope = _outside(points, evidence)
    points, pixels = points / noise_px, masks.pixels_px[person] / noise_px
    with torch.no_grad():
        half = torch.where(counts, points.square().sum(-1) / 2, FAR)
        nearest = (half[..., None, :] - pixels @ points.mT).argmin(-1)
    gap = points.gather(2, nearest[..., None].expand_as(pixels)) - pixels
    some = counts.any(-1, keepdim=True)
    return _Match(
        seen=masks.seen[person].to(gap),
        gap=gap,
        gap2=torch.where(some, gap.square().sum(-1), FAR),
        nearest=nearest,
        share=counts / counts.sum(-1, keepdim=True).clamp_min(1).to(gap),
        outside=outside_px / noise_px[..., 0],
        slope=slope,
    )


def _outside(
    points_px: Float[Tensor, "N P K 2"], evidence: PartEvidence
) -> tuple[Float[Tensor, "N P K"], Float[Tensor, "N P K 2"]]:
    """The distance field at each point, between the centres of four cells, and its slope; beyond the grid, its edge."""
    masks, person = evidence.masks, evidence.person
    parts, height, width = masks.distance_px.shape[1:]
    cell_px = masks.cell_px[person, None, None, None]
    place = (points_px - masks.corner_px[person, None, None]) / cell_px - 0.5
    last = place.new_tensor([width - 1, height - 1])
    within = (place > 0) & (place < last)
    place = place.clamp(torch.zeros_like(last), last)
    low = place.detach().floor().clamp(max=last - 1)
    x, y = (place - low).unbind(-1)
    column, row = low.long().unbind(-1)
    part = person[:, None, None] * parts + torch.arange(parts, device=person.device)[:, None]
    here = (part * height + row) * width + column
    field = masks.distance_px.flatten()
    a, b, c, d = field[here], field[here + 1], field[here + width], field[here + width + 1]
    above, below = torch.lerp(a, b, x), torch.lerp(c, d, x)
    slope = torch.stack([torch.lerp(b - a, d - c, y), below - above], dim=-1)
    return torch.lerp(above, below, y), slope * within / cell_px


def _cost(squared: Tensor, outlier: float) -> Tensor:
    """Geman and McClure's kernel of a squared distance."""
    return outlier**2 / 2 * squared / (outlier**2 + squared)


def _trust(squared: Tensor, outlier: float) -> Tensor:
    """Its slope over the slope of half the square: what a reweighted square counts."""
    return (1 + squared / outlier**2) ** -2


@cache
def _slots(parts: PartSet, count: int) -> Int[Tensor, "P K"]:
    """The points of each part, `count` to each joint of the tree; -1 where it has fewer than another."""
    owner = torch.tensor(parts.label_of_joint).repeat_interleave(count)
    own = [(owner == label).nonzero()[:, 0] for label in range(len(parts))]
    return pad_sequence(own, batch_first=True, padding_value=-1)


def _ungrouped(values: Float[Tensor, "N P K *D"], slots: Int[Tensor, "P K"], shape: torch.Size) -> Tensor:
    """The values of grouped points in the order of the tree's joints; 0 for a point that no part has."""
    used = slots >= 0
    flat = values.new_zeros(len(values), shape[0] * shape[1], *values.shape[3:])
    flat[:, slots[used]] = values[:, used]
    return flat.unflatten(1, shape)
