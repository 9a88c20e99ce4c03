"""Things before synthetic people: boxes, ellipses and edges of walls, told in the photograph's pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from meshrec.data.synthetic.canvas import centres_px, ellipse, oriented
from meshrec.data.synthetic.grounds import BOX, Ground, ground_of
from meshrec.data.synthetic.pictures import Pictures
from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.types import Square

WALL = 0.2
"""Probability that a thing reaches from its edge to the border of the photograph and beyond: a table, a wall, a car."""


@dataclass(frozen=True, eq=False)
class Thing:
    """A flat thing that hides what is behind it."""

    round: bool
    center_px: Float[np.ndarray, "2"]
    half_px: Float[np.ndarray, "2"]
    """Half its width and half its height."""
    angle_rad: float
    surface: Ground
    """What it shows."""

    @property
    def outline_px(self) -> Float[np.ndarray, "n 2"]:
        """Its corners."""
        if self.round:
            return ellipse(self.center_px, self.half_px, self.angle_rad, 48)
        return oriented(BOX * self.half_px, self.angle_rad) + self.center_px

    def inside_px(self, xy_px: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n"]:
        """How far points of the photograph lie inside its outline, nearly; outside it is less than 0."""
        own = np.abs(oriented(xy_px - self.center_px, -self.angle_rad))
        if not self.round:
            return (self.half_px - own).min(1)
        away = np.linalg.norm(own / self.half_px, axis=1)
        slope = np.linalg.norm(own / self.half_px**2, axis=1) / np.maximum(away, 1e-9)
        return (1 - away) / np.maximum(slope, 1 / self.half_px.max())

    def covers(self, xy_px: Float[np.ndarray, "n 2"]) -> Bool[np.ndarray, "n"]:
        """Which points of the photograph it hides."""
        return self.inside_px(xy_px) >= 0


def front_of(things: Sequence[Thing], square: Square, size_px: int) -> UInt8[np.ndarray, "S S 4"]:
    """Things as a square of the photograph shows them, one before the other; the last channel is their coverage."""
    layer = np.zeros((size_px, size_px, 4), np.uint8)
    matrix = square.matrix(size_px).double().numpy()
    for thing in things:
        corners = thing.outline_px @ matrix[:, :2].T + matrix[:, 2]
        low = np.floor(corners.min(0) - 1).clip(0, size_px).astype(int)
        high = np.ceil(corners.max(0) + 1).clip(0, size_px).astype(int)
        if (high > low).all():
            side = int((high - low).max())
            part = _part(square, size_px, low, side)
            here = layer[low[1] : low[1] + side, low[0] : low[0] + side]
            here[:] = _over(here, thing, part, side)
    return layer


def _part(square: Square, size_px: int, corner: Int[np.ndarray, "2"], side: int) -> Square:
    """The square that some of its pixels are of."""
    middle = torch.from_numpy(corner + side / 2).to(square.center_px)
    center_px = square.back(middle[None], size_px)[0]
    return Square(center_px, square.side_px * (side / size_px), square.angle_rad)


def _over(behind: UInt8[np.ndarray, "h w 4"], thing: Thing, square: Square, side: int) -> UInt8[np.ndarray, "h w 4"]:
    """A thing before what there is; the layer's border may cut off the right and the lower side of the square."""
    height, width, _ = behind.shape
    scale = side / float(square.side_px)
    at_px = centres_px(square, side)[:height, :width]
    inside_px = thing.inside_px(at_px.reshape(-1, 2)).reshape(height, width, 1)
    share = (scale * inside_px + 0.5).clip(0, 1).astype(np.float32)
    opaque = cv2.cvtColor(thing.surface.seen(square, side), cv2.COLOR_RGB2RGBA)
    return np.rint(behind + share * (opaque[:height, :width] - behind.astype(np.float32))).astype(np.uint8)


def things_of(
    config: SyntheticConfig,
    joints_px: Float[np.ndarray, "24 2"],
    photo_px: tuple[int, int],
    pictures: Pictures | None,
    random: np.random.Generator,
) -> tuple[Thing, ...]:
    """Things before some of a person's joints, where chance wants any."""
    if random.random() >= config.occlude:
        return ()
    size = np.clip(joints_px, 0, photo_px)
    size_px = float((size.max(0) - size.min(0)).max())
    return tuple(
        _thing(config, joints_px, size_px, photo_px, pictures, random)
        for _ in range(random.integers(1, config.occluders_most + 1))
    )


def _thing(
    config: SyntheticConfig,
    joints_px: Float[np.ndarray, "24 2"],
    size_px: float,
    photo_px: tuple[int, int],
    pictures: Pictures | None,
    random: np.random.Generator,
) -> Thing:
    surface = ground_of(pictures, 0.6, photo_px, random)
    if random.random() < WALL:
        return _wall(joints_px, photo_px, surface, random)
    half_px = size_px * random.uniform(*config.occluder_size, 2) / 2
    center_px = joints_px[random.integers(len(joints_px))] + random.uniform(-0.8, 0.8, 2) * half_px
    angle_rad = random.choice([0.0, random.uniform(0, np.pi)])
    return Thing(bool(random.random() < 0.4), center_px, half_px, float(angle_rad), surface)


def _wall(
    joints_px: Float[np.ndarray, "24 2"], photo_px: tuple[int, int], surface: Ground, random: np.random.Generator
) -> Thing:
    """What hides all below, left or right of a joint, of the half of the joints that lies there."""
    away = np.array([(0.0, 1.0), (0.0, 1.0), (-1.0, 0.0), (1.0, 0.0)][random.integers(4)])
    along = joints_px @ away
    beyond = joints_px[along >= np.median(along)]
    far = 2.0 * max(photo_px)
    center_px = beyond[random.integers(len(beyond))] + far * away
    return Thing(False, center_px, np.array([far, far]), float(random.normal(0, 0.03)), surface)
