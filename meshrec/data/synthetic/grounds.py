"""What is behind synthetic people: parts of pictures from a folder, or pictures made up of shapes and blotches."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from meshrec.data.synthetic.canvas import Canvas, ellipse, oriented
from meshrec.data.synthetic.pictures import Pictures
from meshrec.types import Square

BOX = np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])
"""The corners of a box about the origin, in halves of its sides."""

FINEST = 70
"""Cells of the finest blotches along either side of a photograph."""


@runtime_checkable
class Ground(Protocol):
    """A picture that covers a photograph."""

    def seen(self, square: Square, size_px: int) -> UInt8[np.ndarray, "S S 3"]:
        """What a square of the photograph shows of it."""
        ...


@dataclass(frozen=True, eq=False)
class PictureGround:
    """A part of a picture of a folder."""

    pictures: Pictures
    place: int
    """Of the picture."""
    photo_px: tuple[int, int]
    zoom: float
    """1: the largest part that fills the photograph; more: a smaller one."""
    shift: tuple[float, float]
    """Which part: 0 the leftmost or highest, 1 the opposite."""
    flip: bool

    def seen(self, square: Square, size_px: int) -> UInt8[np.ndarray, "S S 3"]:
        """What a square of the photograph shows of it; beyond the photograph too."""
        picture = self.pictures[self.place]
        size, photo = np.array(picture.shape[1::-1]), np.array(self.photo_px)
        scale = self.zoom * (photo / size).max()
        corner = (size - photo / scale) * self.shift
        matrix = np.column_stack([np.eye(2) * scale, -scale * corner])
        if self.flip:
            matrix[0] = [-matrix[0, 0], 0.0, photo[0] - matrix[0, 2]]
        canvas = Canvas.of(square, size_px)
        shrink = 1 / (scale * canvas.scale)
        if shrink > 1.5:
            less = cv2.resize(picture, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
            ratio = size / less.shape[1::-1]
            picture, matrix = less, np.column_stack([matrix[:, :2] * ratio, matrix[:, 2]])
        canvas.image(picture, matrix)
        return canvas.pixels


@dataclass(frozen=True)
class MadeUpGround:
    """A wall and a floor, with things that have edges before them, and blotches over all."""

    seed: int
    photo_px: tuple[int, int]

    def seen(self, square: Square, size_px: int) -> UInt8[np.ndarray, "S S 3"]:
        """What a square of the photograph shows of it; beyond the photograph too."""
        random = np.random.default_rng(self.seed)
        canvas = Canvas.of(square, size_px)
        size = np.array(self.photo_px, float)
        _backdrop(canvas, size, random)
        for _ in range(random.integers(2, 12)):
            _ELEMENTS[random.integers(len(_ELEMENTS))](canvas, size, random)
        return _blotched(canvas, size, random)


def ground_of(
    pictures: Pictures | None, made_up: float, photo_px: tuple[int, int], random: np.random.Generator
) -> Ground:
    """A part of one of the pictures, or, with probability `made_up` or where there are none, one that is made up."""
    chance, seed = random.random(), int(random.integers(2**62))
    if pictures is None or chance < made_up:
        return MadeUpGround(seed, photo_px)
    place, zoom = int(random.integers(len(pictures))), float(random.uniform(1, 2) ** 1.5)
    shift = random.random(2)
    return PictureGround(
        pictures, place, photo_px, zoom, (float(shift[0]), float(shift[1])), bool(random.random() < 0.5)
    )


def _tone(random: np.random.Generator) -> tuple[float, float, float]:
    grey = random.uniform(15, 240)
    tone = (grey + random.normal(0, 30, 3)).clip(0, 255)
    return float(tone[0]), float(tone[1]), float(tone[2])


def _backdrop(canvas: Canvas, size: Float[np.ndarray, "2"], random: np.random.Generator) -> None:
    """A wall above a floor."""
    middle, horizon, reach = size / 2, size[1] * random.uniform(0.3, 1.0), 3 * size.max()
    canvas.pixels[:] = np.rint(_tone(random))
    floor = np.array([(-reach, horizon), (reach, horizon), (reach, reach), (-reach, reach)])
    tilt = random.normal(0, 0.04)
    canvas.polygon(oriented(floor - middle, tilt) + middle, _tone(random))


def _boxes(canvas: Canvas, size: Float[np.ndarray, "2"], random: np.random.Generator) -> None:
    """Furniture, doors, windows: upright boxes, one in another."""
    center, half = random.uniform(0, 1, 2) * size, random.uniform(0.02, 0.25, 2) * size
    for _ in range(random.integers(1, 4)):
        canvas.polygon(BOX * half + center, _tone(random))
        half = half * random.uniform(0.5, 0.92)


def _bars(canvas: Canvas, size: Float[np.ndarray, "2"], random: np.random.Generator) -> None:
    """Fences, blinds, planks, the edges of tiles: parallel lines, sometimes crossed by others."""
    center, half = random.uniform(0, 1, 2) * size, random.uniform(0.08, 0.5, 2) * size
    count, angle = int(random.integers(3, 16)), random.choice([0.0, np.pi / 2, random.uniform(0, np.pi)])
    color, width = _tone(random), random.uniform(0.5, 6)
    for _ in range(random.integers(1, 3)):
        steps = np.linspace(-1, 1, count)
        ends = np.stack([np.stack([steps, np.full(count, end)], axis=1) for end in (-1.0, 1.0)], axis=1)
        canvas.lines(oriented((ends * half).reshape(-1, 2), angle).reshape(-1, 2, 2) + center, color, width)
        angle = angle + np.pi / 2


def _leaves(canvas: Canvas, size: Float[np.ndarray, "2"], random: np.random.Generator) -> None:
    """Plants, gravel, crowds: many small blobs of like tones."""
    center, half = random.uniform(0, 1, 2) * size, random.uniform(0.08, 0.4, 2) * size
    count, tone = int(random.integers(20, 90)), np.array(_tone(random))
    blob = random.uniform(0.006, 0.03) * size.max()
    places = center + random.normal(size=(count, 2)) * half / 2
    sides, angles = blob * random.uniform(0.3, 1.2, (count, 2)), random.uniform(0, np.pi, count)
    tones = (tone * random.uniform(0.4, 1.5, (count, 1))).clip(0, 255).tolist()
    for place, side, angle, color in zip(places, sides, angles, tones, strict=True):
        canvas.polygon(ellipse(place, side, angle, 7), tuple(color))


def _shapes(canvas: Canvas, size: Float[np.ndarray, "2"], random: np.random.Generator) -> None:
    """Things of any outline."""
    for _ in range(random.integers(1, 5)):
        center, half = random.uniform(0, 1, 2) * size, random.uniform(0.02, 0.2, 2) * size
        outline = ellipse(center, half, random.uniform(0, np.pi), int(random.choice([3, 4, 5, 24])))
        canvas.polygon(outline, _tone(random))


def _wires(canvas: Canvas, size: Float[np.ndarray, "2"], random: np.random.Generator) -> None:
    """Branches, cables, cracks: crooked lines."""
    count = int(random.integers(1, 8))
    start = random.uniform(0, 1, (count, 1, 2)) * size
    steps = random.normal(0, 15, (count, 1, 2)) + random.normal(0, 0.06, (count, 8, 2)) * size.max()
    ways = start + np.cumsum(steps, axis=1)
    canvas.lines(ways, _tone(random), random.uniform(0.5, 8))


_ELEMENTS = (_boxes, _boxes, _bars, _bars, _leaves, _shapes, _wires)


def _blotched(canvas: Canvas, size: Float[np.ndarray, "2"], random: np.random.Generator) -> UInt8[np.ndarray, "S S 3"]:
    """Light that falls unevenly, stains and grain of surfaces."""
    total = np.zeros((FINEST, FINEST), np.float32)
    for cells, most in ((4, 40), (16, 25), (FINEST, 18)):
        grid = random.normal(0, random.uniform(0.1, 1) * most, (cells, cells)).astype(np.float32)
        total += cv2.resize(grid, (FINEST, FINEST), interpolation=cv2.INTER_CUBIC)
    field = canvas.field(total, np.column_stack([np.diag(size / FINEST), np.zeros(2)]))
    return cv2.add(canvas.pixels, cv2.cvtColor(field, cv2.COLOR_GRAY2RGB), dtype=cv2.CV_8U)
