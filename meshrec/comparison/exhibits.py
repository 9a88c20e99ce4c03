"""The people who are shown: the best, the middle and the worst, with what every branch says of them."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.branches.mesh import Sight
from meshrec.camera import project
from meshrec.comparison.comparison import TRUTH, Answer, Comparison, Exhibit, Why
from meshrec.comparison.contestants import Contestant
from meshrec.comparison.figures import Found
from meshrec.comparison.people import People, true_found
from meshrec.render import PALETTE, overlay
from meshrec.skeleton_plot import skeletons_over
from meshrec.types import Camera

OF_EACH = 4
"""So many people are shown of each kind."""

PHOTO_PX = 384
"""The longer side of their pictures."""

MOST_LARGER = 2.0
"""A small picture is made larger by this at most."""

MARGIN = 0.2
"""About a person's box, of its longer side."""

TRUTH_COLOR, COLORS = PALETTE[2], (PALETTE[0], PALETTE[1], *PALETTE[3:])


def chosen(comparison: Comparison, of_each: int = OF_EACH) -> list[tuple[int, Why]]:
    """Places of people by the mean of the branches' first metric, among those whom all can answer; each once."""
    metric = comparison.metrics[0]
    table = np.stack([comparison.figures[branch][metric.name] for branch in comparison.branches])
    means = np.where(np.isfinite(table).all(0), table.mean(0), np.nan)
    order = np.argsort(means if metric.better == "lower" else -means, kind="stable")[: int(np.isfinite(means).sum())]
    count = min(of_each, -(-len(order) // 3))
    best, rest = order[:count], order[count:]
    worst, rest = rest[len(rest) - min(count, len(rest)) :][::-1], rest[: max(0, len(rest) - count)]
    start = max(0, (len(rest) - count) // 2)
    median = rest[start : start + count]
    kinds: tuple[tuple[Why, np.ndarray], ...] = (("best", best), ("median", median), ("worst", worst))
    return [(int(place), why) for why, places in kinds for place in places]


@torch.no_grad()
def exhibits_of(
    comparison: Comparison, people: People, contestants: Sequence[Contestant], model: BodyModel
) -> list[Exhibit]:
    """Ask everybody again about those who are shown; who has no picture is left out."""
    every = (_exhibit(comparison, people, contestants, model, place, why) for place, why in chosen(comparison))
    return [exhibit for exhibit in every if exhibit is not None]


def _exhibit(
    comparison: Comparison,
    people: People,
    contestants: Sequence[Contestant],
    model: BodyModel,
    place: int,
    why: Why,
) -> Exhibit | None:
    few = people.few([place])
    sight = few.sights[0]
    if not isinstance(sight, Sight):
        return None
    photo, camera, box_px = _around(sight)
    answers = {}
    for color, contestant in zip(_colors(len(contestants)), contestants, strict=True):
        found = contestant.about(few).found
        if found.joints17_m.isfinite().all():
            figures = {
                metric.name: float(comparison.figures[contestant.name][metric.name][place])
                for metric in comparison.metrics
            }
            answers[contestant.name] = _answer(found, photo, camera, model, color, figures)
    if few.params is not None:
        answers[TRUTH] = _answer(true_found(model, few, skin=True), photo, camera, model, TRUTH_COLOR, {})
    return Exhibit(place, why, photo, box_px, answers)


def _colors(count: int) -> list[tuple[float, float, float]]:
    return [COLORS[place % len(COLORS)] for place in range(count)]


def _answer(
    found: Found,
    photo: UInt8[np.ndarray, "h w 3"],
    camera: Camera,
    model: BodyModel,
    color: tuple[float, float, float],
    figures: dict[str, float],
) -> Answer:
    skin = found.vertices_m if found.vertices_m is not None and found.vertices_m.isfinite().all() else None
    over = None
    if found.root_m.isfinite().all():
        over = _over(
            found.joints17_m[0], None if skin is None else skin[0], found.root_m[0], photo, camera, model, color
        )
    return Answer(over, found.joints17_m[0].numpy(), None if skin is None else skin[0].numpy(), figures)


def _over(
    joints17_m: Float[Tensor, "17 3"],
    skin_m: Float[Tensor, "V 3"] | None,
    root_m: Float[Tensor, "3"],
    photo: UInt8[np.ndarray, "h w 3"],
    camera: Camera,
    model: BodyModel,
    color: tuple[float, float, float],
) -> UInt8[np.ndarray, "h w 3"]:
    """A body over the picture, or a skeleton where there is no skin."""
    if skin_m is not None:
        return overlay(photo, [skin_m + root_m], model.faces.cpu(), camera, [color])
    joints_m = joints17_m + root_m
    xy_px, everything = project(joints_m, camera).numpy(), np.ones(len(joints_m), bool)
    return skeletons_over(photo, [(xy_px, everything, joints_m[:, 2].numpy())])


def _around(sight: Sight) -> tuple[UInt8[np.ndarray, "h w 3"], Camera, tuple[float, float, float, float]]:
    """The part of a picture around its person, its camera, and the box on it."""
    pixels, box = sight.photo.pixels, sight.people[0].box_xyxy_px.double().numpy()
    size = np.array([sight.photo.width_px, sight.photo.height_px])
    box = box if np.isfinite(box).all() else np.array([0.0, 0.0, *size])
    extra = MARGIN * (box[2:] - box[:2]).max()
    low = np.clip(np.floor(box[:2] - extra), 0, size - 1).astype(int)
    high = np.clip(np.ceil(box[2:] + extra), low + 1, size).astype(int)
    scale = min(PHOTO_PX / (high - low).max(), MOST_LARGER)
    width, height = np.maximum(((high - low) * scale).round().astype(int), 1).tolist()
    part = Image.fromarray(pixels[low[1] : high[1], low[0] : high[0]])
    photo = np.asarray(part.resize((width, height), Image.Resampling.LANCZOS))
    corner = torch.from_numpy(low).float()
    camera = Camera(
        sight.camera.focal_px * float(scale),
        (sight.camera.center_px - corner) * float(scale),
        width,
        height,
        sight.camera.focal_source,
    )
    x0, y0, x1, y1 = ((box - np.tile(low, 2)) * scale).tolist()
    return photo, camera, (x0, y0, x1, y1)
