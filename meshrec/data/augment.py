"""What chance does to a crop: which square is cut, and what happens to its pixels.

Geometry moves the picture, the joints and the body together; colours, blur and things in the way change the picture
alone, and the truth stays what it was.
"""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from meshrec.config import require_range
from meshrec.types import Square

BRIGHTEST = 255


@dataclass(frozen=True)
class AugmentConfig:
    """How far training crops differ from those of a photograph."""

    flip: float = 0.5
    """Probability of a mirror image."""
    rotate_p: float = 0.4
    """Probability of a turn."""
    rotate_rad: float = math.pi / 6
    """Standard deviation of the turn."""
    rotate_most_rad: float = math.pi / 3
    """Wider turns are clipped to this."""
    scale: float = 0.25
    """Standard deviation of what the square's side is multiplied by, about 1."""
    scale_range: tuple[float, float] = (0.75, 1.25)
    """What lies outside is clipped."""
    shift: float = 0.0
    """The square's centre moves by up to this along each axis, in sides of the square."""
    colour: tuple[float, float] = (0.6, 1.4)
    """What each of red, green and blue is multiplied by."""
    blur_p: float = 0.1
    """Probability of motion blur."""
    blur_px: float = 10.0
    """The longest way that the picture moves, in pixels of the crop."""
    occlude_p: float = 0.0
    """Probability that something stands in the way."""
    occluders: int = 3
    """At most so many things."""
    occluder_size: tuple[float, float] = (0.1, 0.4)
    """Their width and height, in sides of the crop."""

    def __post_init__(self) -> None:
        require_range(self, flip=(0, 1), rotate_p=(0, 1), blur_p=(0, 1), occlude_p=(0, 1))
        require_range(self, rotate_rad=(0, math.pi), rotate_most_rad=(0, math.pi), scale=(0, 1), shift=(0, 0.5))
        require_range(self, blur_px=(0, 100), occluders=(1, 100))
        for name, highest in {"scale_range": 4.0, "colour": 10.0, "occluder_size": 1.0}.items():
            low, high = getattr(self, name)
            if not 0 < low <= high <= highest:
                raise ValueError(f"{name} is {low} to {high}; it must rise, above 0 and up to {highest:g}")


@dataclass(frozen=True)
class Occluder:
    """Something in the way: a box or an ellipse, of one colour or of blotches."""

    round: bool
    blotched: bool
    where: float
    """Which of the seen joints it covers: 0 the first, 1 one past the last."""
    size: tuple[float, float]
    """In sides of the crop."""
    angle_rad: float
    seed: int
    """Of its colours."""


@dataclass(frozen=True)
class Draw:
    """What chance does to one crop; by itself, nothing."""

    flip: bool = False
    """After everything else."""
    angle_rad: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur_px: float = 0.0
    blur_rad: float = 0.0
    occluders: tuple[Occluder, ...] = ()

    def square(self, square: Square) -> Square:
        """The square that is cut instead."""
        shift = square.center_px.new_tensor(self.shift) * square.side_px[..., None]
        return replace(
            square,
            center_px=square.center_px + shift,
            side_px=square.side_px * self.scale,
            angle_rad=square.angle_rad + self.angle_rad,
        )

    def painted(
        self, pixels: UInt8[np.ndarray, "S S 3"], points: Float[np.ndarray, "n 2"]
    ) -> UInt8[np.ndarray, "S S 3"]:
        """The crop with other colours, blurred, and with things before some of the seen joints `points`."""
        if self.occluders and len(points):
            pixels = pixels.copy()
            for occluder in self.occluders:
                _occlude(pixels, points, occluder)
        if self.colour != (1.0, 1.0, 1.0):
            pixels = cv2.LUT(pixels, _colours(self.colour))
        if self.blur_px:
            pixels = cv2.filter2D(pixels, -1, line_kernel(self.blur_px, self.blur_rad))
        return pixels


PLAIN = Draw()
"""The crop as a photograph gives it."""


def draw_of(config: AugmentConfig, random: np.random.Generator) -> Draw:
    """What happens to one crop."""
    turns, blurs, occludes = random.random(3) < (config.rotate_p, config.blur_p, config.occlude_p)
    angle = float(np.clip(random.normal(0.0, config.rotate_rad), -config.rotate_most_rad, config.rotate_most_rad))
    shift, colour = random.uniform(-config.shift, config.shift, 2), random.uniform(*config.colour, 3)
    return Draw(
        flip=bool(random.random() < config.flip),
        angle_rad=angle if turns else 0.0,
        scale=float(np.clip(random.normal(1.0, config.scale), *config.scale_range)),
        shift=(float(shift[0]), float(shift[1])),
        colour=(float(colour[0]), float(colour[1]), float(colour[2])),
        blur_px=float(random.uniform(0.0, config.blur_px)) if blurs else 0.0,
        blur_rad=float(random.uniform(0.0, math.pi)),
        occluders=_occluders(config, random) if occludes else (),
    )


def line_kernel(length_px: float, angle_rad: float) -> Float[np.ndarray, "k k"]:
    """The trace of a point that moves evenly along a line about its place: what motion does to each pixel."""
    reach = math.ceil(length_px / 2) + 1
    along = (np.arange(8 * reach) + 0.5) / (8 * reach) - 0.5
    places = reach + length_px * along[:, None] * (math.cos(angle_rad), math.sin(angle_rad))
    low = np.floor(places).astype(int)
    share = places - low
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for right, below in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = np.abs(1 - right - share[:, 0]) * np.abs(1 - below - share[:, 1])
        np.add.at(kernel, (low[:, 1] + below, low[:, 0] + right), weight)
    return kernel / kernel.sum()


def _colours(factors: tuple[float, float, float]) -> UInt8[np.ndarray, "1 256 3"]:
    """What becomes of each value of red, green and blue."""
    values = np.arange(BRIGHTEST + 1)[:, None] * np.array(factors)
    return np.rint(values).clip(max=BRIGHTEST).astype(np.uint8)[None]


def _occluders(config: AugmentConfig, random: np.random.Generator) -> tuple[Occluder, ...]:
    low, high = config.occluder_size
    return tuple(
        Occluder(
            round=bool(random.random() < 0.5),
            blotched=bool(random.random() < 0.5),
            where=float(random.random()),
            size=(float(random.uniform(low, high)), float(random.uniform(low, high))),
            angle_rad=float(random.uniform(0.0, math.pi)),
            seed=int(random.integers(2**31)),
        )
        for _ in range(random.integers(1, config.occluders + 1))
    )


def _occlude(pixels: UInt8[np.ndarray, "S S 3"], points: Float[np.ndarray, "n 2"], occluder: Occluder) -> None:
    """Paint it over the crop."""
    crop_px = len(pixels)
    x, y = points[int(occluder.where * len(points))]
    outline = ((float(x), float(y)), tuple(crop_px * side for side in occluder.size), math.degrees(occluder.angle_rad))
    mask = np.zeros(pixels.shape[:2], np.uint8)
    if occluder.round:
        cv2.ellipse(mask, outline, 1, cv2.FILLED)
    else:
        cv2.fillConvexPoly(mask, np.rint(cv2.boxPoints(outline)).astype(np.int32), 1)
    np.copyto(pixels, _texture(occluder, crop_px), where=mask[..., None] > 0)


def _texture(occluder: Occluder, crop_px: int) -> UInt8[np.ndarray, "S S 3"]:
    """One colour, or blotches of many."""
    blotches = 8 if occluder.blotched else 1
    colours = np.random.default_rng(occluder.seed).integers(0, BRIGHTEST + 1, (blotches, blotches, 3), dtype=np.uint8)
    return cv2.resize(colours, (crop_px, crop_px), interpolation=cv2.INTER_LINEAR)
