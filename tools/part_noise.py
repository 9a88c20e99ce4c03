"""Part maps of synthetic people, true and with a stated corruption: what a segmentation network would get wrong.

`corrupted` does this for each person, in this order; s is the person's size, the longer side of the box of the labels.

1. Borders are jittered: `label'(p) = label(p + u(p))`. The field u is white noise N(0, jitter^2 s^2) along each axis on
   a grid of spacing `smoothness * s`, interpolated bicubically; between the nodes half of its variance is left.
2. Patches are mistaken: Poisson(`patches`) discs around random labelled pixels, of diameters uniform in
   [`least_patch`, `greatest_patch`] * s, take the label found at a random place one diameter from their middle: that of
   a neighbour, or background.
3. Parts are lost: with the probability `lost`, each independently, a part becomes background.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import interpolate

from meshrec.body import BodyModel
from meshrec.part_masks import PARTS24, PartSet
from meshrec.rasterize import BACKGROUND, rasterize
from meshrec.shading import vertex_labels
from meshrec.types import BodyParams, Camera


@dataclass(frozen=True)
class PartNoise:
    """How much of each; lengths are shares of the person's size."""

    jitter: float = 0.01
    smoothness: float = 0.05
    patches: float = 4.0
    least_patch: float = 0.02
    greatest_patch: float = 0.08
    lost: float = 0.1


def true_part_maps(
    model: BodyModel, params: BodyParams, camera: Camera, parts: PartSet = PARTS24
) -> Int[Tensor, "N H W"]:
    """Which part each pixel of N people's pictures sees; int8, and -1 is background."""
    label = torch.tensor(parts.label_of_joint)[model.parts.cpu()]
    maps = []
    for person in range(len(params.betas)):
        fragments = rasterize(model(params[person]).vertices_m, model.faces, camera[person])
        maps.append(vertex_labels(fragments, model.faces, label).to(torch.int8))
    return torch.stack(maps)


def corrupted(labels: Int[Tensor, "N H W"], noise: PartNoise, generator: torch.Generator) -> Int[Tensor, "N H W"]:
    """The part maps of N people, one to a picture, with the noise; labels are 0, 1, ..., and below 0 is background."""
    return torch.stack([_corrupted_one(picture, noise, generator) for picture in labels])


def _corrupted_one(labels: Int[Tensor, "H W"], noise: PartNoise, generator: torch.Generator) -> Int[Tensor, "H W"]:
    body = (labels >= 0).nonzero()
    if len(body) == 0:
        return labels
    size_px = float((body.amax(0) - body.amin(0) + 1).max())
    return _lost(_patched(_jittered(labels, size_px, noise, generator), size_px, noise, generator), noise, generator)


def _jittered(
    labels: Int[Tensor, "H W"], size_px: float, noise: PartNoise, generator: torch.Generator
) -> Int[Tensor, "H W"]:
    spacing = noise.smoothness * size_px
    nodes = [math.ceil(side / spacing) + 1 for side in labels.shape]
    field = torch.randn(1, 2, *nodes, generator=generator) * noise.jitter * size_px
    reach = [math.ceil(count * spacing) for count in nodes]
    shift = interpolate(field, size=reach, mode="bicubic")[0, :, : labels.shape[0], : labels.shape[1]].round().long()
    row, column = torch.meshgrid(*(torch.arange(side) for side in labels.shape), indexing="ij")
    return _at(labels, row + shift[0], column + shift[1])


def _patched(
    labels: Int[Tensor, "H W"], size_px: float, noise: PartNoise, generator: torch.Generator
) -> Int[Tensor, "H W"]:
    count = int(torch.poisson(torch.tensor(noise.patches), generator=generator))
    body = (labels >= 0).nonzero()
    if len(body) == 0:
        return labels
    patched = labels.clone()
    row, column = torch.meshgrid(*(torch.arange(side) for side in labels.shape), indexing="ij")
    for _ in range(count):
        middle = body[int(torch.randint(len(body), (), generator=generator))]
        share, angle = torch.rand(2, generator=generator).tolist()
        diameter_px = size_px * (noise.least_patch + share * (noise.greatest_patch - noise.least_patch))
        aside = torch.tensor([math.sin(2 * math.pi * angle), math.cos(2 * math.pi * angle)]) * diameter_px
        found = _at(labels, *(middle + aside.round().long()).unbind())
        patched[(row - middle[0]) ** 2 + (column - middle[1]) ** 2 <= (diameter_px / 2) ** 2] = found
    return patched


def _lost(labels: Int[Tensor, "H W"], noise: PartNoise, generator: torch.Generator) -> Int[Tensor, "H W"]:
    gone = torch.rand(int(labels.max()) + 1, generator=generator) < noise.lost
    return torch.where((labels >= 0) & gone[labels.clamp_min(0).long()], BACKGROUND, labels)


def _at(labels: Int[Tensor, "H W"], row: Tensor, column: Tensor) -> Tensor:
    """The labels at some pixels; background outside the picture."""
    inside = (row >= 0) & (row < labels.shape[0]) & (column >= 0) & (column < labels.shape[1])
    here = labels[row.clamp(0, labels.shape[0] - 1), column.clamp(0, labels.shape[1] - 1)]
    return torch.where(inside, here, BACKGROUND)
