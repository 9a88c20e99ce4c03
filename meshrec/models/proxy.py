"""Proxies: what a network that has never seen a photograph looks at in one (Sengupta et al., STRAPS, BMVC 2020).

One map of edges, in which renders and photographs look alike, and a map for each joint that a detector found. All is
computed in float32, each crop alone, by arithmetic that is the same everywhere.
"""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate, pad

from meshrec.skeletons import COCO17

BRIGHTEST = 255

SMOOTH = 1 / 160
"""Standard deviation of the smoothing before the gradient, in sides of the crop: finer detail is no outline."""

REACH = 2
"""Of a Gaussian, in standard deviations."""

CELLS = 32
"""Across a crop, of the map of contrast."""

AROUND = 1 / 16
"""Standard deviation of what is about a pixel, whose contrast its own is compared with, in sides of the crop."""

FAINTEST, WHOLE, ABOUT = 0.01, 0.5, 1.0
"""A colour rises by this over one standard deviation of the smoothing where an edge counts half in an empty picture; in
others, by so much more of the whole crop's contrast, and of the mean contrast about it."""

THIN = 6.0
"""How steeply a pixel fades where its neighbour across the edge is stronger: gone where that is by 1 / THIN."""

JOINT = 1 / 56
"""Standard deviation of a joint's map, in sides of the crop."""

LEAST = 1e-12
"""Added where a root or a quotient of 0 would have no derivative."""

_MIRROR = (0, *(1 + joint for joint in COCO17.mirror))


def proxy(
    pixels: UInt8[Tensor, "*batch 3 S S"],
    points: Float[Tensor, "*batch 17 2"],
    confidence: Float[Tensor, "*batch 17"],
) -> Float[Tensor, "*batch 18 S S"]:
    """What a proxy network takes: edges, then COCO-17's joints; RGB, and points in pixels of the crop."""
    image = _bumps(pad(points, (0, 0, 1, 0)), pad(confidence, (1, 0)), pixels.shape[-1])
    image[..., 0, :, :] = edges(pixels)
    return image


def mirrored_proxy(image: Float[Tensor, "*batch 18 S S"]) -> Float[Tensor, "*batch 18 S S"]:
    """The proxy of the mirror image: left is right, and each joint is the other side's."""
    return image[..., _MIRROR, :, :].flip(-1)


def heatmaps(
    points: Float[Tensor, "*batch 17 2"], confidence: Float[Tensor, "*batch 17"], crop_px: int
) -> Float[Tensor, "*batch 17 S S"]:
    """exp(-d^2 / (2 sigma^2)) about each point, times its confidence; all 0 where that is 0, wherever the point is."""
    return _bumps(points, confidence, crop_px)


def read_heatmaps(
    maps: Float[Tensor, "*batch 17 S S"],
) -> tuple[Float[Tensor, "*batch 17 2"], Float[Tensor, "*batch 17"]]:
    """The points, in pixels of the crop, and confidences that `heatmaps` made maps of; both 0 where a map is empty.

    A point near the border, whose map is cut off there, is told a little farther inside, and less surely.
    """
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    crop_px = maps.shape[-1]
    middles = torch.arange(crop_px, dtype=maps.dtype, device=maps.device) + 0.5
    whole = maps.sum((-2, -1))
    moments = torch.stack([maps.sum(-2) @ middles, maps.sum(-1) @ middles], dim=-1)
    return moments / whole[..., None].clamp_min(LEAST), whole / (2 * math.pi * (JOINT * crop_px) ** 2)


def edges(pixels: UInt8[Tensor, "*batch 3 S S"]) -> Float[Tensor, "*batch S S"]:
    """How surely an outline runs through each pixel of an RGB picture, 0 to 1."""
    return outlines(pixels / BRIGHTEST)


def outlines(picture: Float[Tensor, "*batch 3 S S"]) -> Float[Tensor, "*batch S S"]:
    """`edges` of colours from 0 to 1, differentiable: Canny's, but that nothing is decided (PAMI 1986).

    The picture is smoothed; its gradient, of the colour that changes most, thinned to where it is the strongest across
    itself, is compared with the contrast about it, so that an outline before a plain wall stands out and grass does
    not.
    """
    sigma_px = SMOOTH * picture.shape[-1]
    right, down = _steepest(*_gradient(_smoothed(picture.float(), sigma_px)))
    strength = (right.square() + down.square() + LEAST).sqrt()
    common = _common(strength, sigma_px).square()
    thin = _thinned(strength, right, down).square()
    return thin / (thin + common)


def _bumps(
    points: Float[Tensor, "*batch K 2"], confidence: Float[Tensor, "*batch K"], crop_px: int
) -> Float[Tensor, "*batch K S S"]:
    """A Gaussian about each point, as high as its confidence."""
    seen = confidence > 0
    at = torch.where(seen[..., None], points, 0.0).float()
    middles = torch.arange(crop_px, device=points.device) + 0.5
    x, y = torch.exp(-0.5 * ((middles - at[..., None]) / (JOINT * crop_px)).square()).unbind(-2)
    return (torch.where(seen, confidence, 0.0).float()[..., None] * y)[..., :, None] * x[..., None, :]


def _smoothed(picture: Float[Tensor, "*batch H H"], sigma_px: float) -> Float[Tensor, "*batch H H"]:
    """By a Gaussian; beyond its border the picture goes on as it ends."""
    reach = math.ceil(REACH * sigma_px)
    weights = [math.exp(-0.5 * (offset / sigma_px) ** 2) for offset in range(reach + 1)]
    whole = weights[0] + 2 * sum(weights[1:])
    for axis in (-1, -2):
        wider, size = _widened(picture, reach, axis), picture.shape[axis]
        picture = weights[0] / whole * picture
        for offset in range(1, reach + 1):
            pair = wider.narrow(axis, reach - offset, size) + wider.narrow(axis, reach + offset, size)
            picture = torch.add(picture, pair, alpha=weights[offset] / whole)
    return picture


def _gradient(
    picture: Float[Tensor, "*batch S S"],
) -> tuple[Float[Tensor, "*batch S S"], Float[Tensor, "*batch S S"]]:
    """From left to right and from top to bottom, over two pixels."""
    across, along = _widened(picture, 1, -1), _widened(picture, 1, -2)
    return across[..., 2:] - across[..., :-2], along[..., 2:, :] - along[..., :-2, :]


def _steepest(
    right: Float[Tensor, "*batch C S S"], down: Float[Tensor, "*batch C S S"]
) -> tuple[Float[Tensor, "*batch S S"], Float[Tensor, "*batch S S"]]:
    """The gradient of that of some colours which changes most, pixel by pixel."""
    (best_right, *rights), (best_down, *downs) = right.unbind(-3), down.unbind(-3)
    best, *others = (right.square() + down.square()).unbind(-3)
    for square, one_right, one_down in zip(others, rights, downs, strict=True):
        more = square > best
        best_right, best_down = torch.where(more, one_right, best_right), torch.where(more, one_down, best_down)
        best = torch.maximum(square, best)
    return best_right, best_down


def _common(strength: Float[Tensor, "*batch S S"], sigma_px: float) -> Float[Tensor, "*batch S S"]:
    """The strength that is nothing special at each pixel."""
    size = strength.shape[-1]
    flat = strength.reshape(-1, 1, size, size)
    whole = flat.square().mean(dim=(-2, -1), keepdim=True).sqrt()
    coarse = adaptive_avg_pool2d(flat, CELLS)
    level = 2 * FAINTEST / sigma_px + WHOLE * whole + ABOUT * _smoothed(coarse, AROUND * CELLS)
    return interpolate(level, size=(size, size), mode="bilinear", align_corners=False).reshape(strength.shape)


def _thinned(
    strength: Float[Tensor, "*batch S S"], right: Float[Tensor, "*batch S S"], down: Float[Tensor, "*batch S S"]
) -> Float[Tensor, "*batch S S"]:
    """The strength where neither neighbour across the edge is stronger, fading where one is.

    The neighbours stand where the gradient's line leaves the square of the eight pixels about one: between a side's
    middle and a corner.
    """
    size = strength.shape[-1]
    wider = _widened(_widened(strength, 1, -1), 1, -2)

    def pair(x: int, y: int) -> Tensor:
        one, other = (wider[..., 1 + s * y : 1 + s * y + size, 1 + s * x : 1 + s * x + size] for s in (1, -1))
        return torch.maximum(one, other)

    across, along = right.abs(), down.abs()
    share = torch.minimum(across, along) / torch.maximum(across, along).clamp_min(LEAST)
    side = torch.where(across >= along, pair(1, 0), pair(0, 1))
    corner = torch.where(right * down > 0, pair(1, 1), pair(1, -1))
    above = torch.lerp(side, corner, share) / strength
    return strength * (1 + THIN - THIN * above).clamp(0.0, 1.0)


def _widened(picture: Float[Tensor, "*batch H W"], by: int, axis: int) -> Float[Tensor, "*batch K L"]:
    """On both sides of an axis, as the picture ends there."""
    first, last = picture.narrow(axis, 0, 1), picture.narrow(axis, picture.shape[axis] - 1, 1)
    return torch.cat([first] * by + [picture] + [last] * by, dim=axis)
