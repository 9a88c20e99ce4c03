"""How synthetic people look: skin, hair and clothes as functions of a place on the body at rest, and the light.

Seams are where coordinates of the rest pose say (how far out a sleeve ends, how low trousers reach), so that they are
sharp at any resolution, and patterns are solid: they are cut out of space around the body at rest.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.types import Batched

REGIONS = ("skin", "hair", "shirt", "trousers", "shoes")
"""What a place on the body is made of, in the order of `Look.materials`."""

MATERIAL = ("colour", "other colour", "pattern", "wave", "other wave", "phase", "cut", "fold")
"""What the 16 numbers of a material are: two colours (linear), a pattern of two waves (radians a metre), its folds."""

PATTERNS = ("plain", "stripes", "checks", "blotches")
"""What `pattern` numbers."""

SEAMS = ("sleeve", "waist", "hem", "shoe", "collar", "hairline", "fringe", "bare_feet")
"""Where materials meet on the body at rest, in metres: across for the sleeve, else up."""

SKINS = ((0.96, 0.80, 0.69), (0.87, 0.67, 0.53), (0.71, 0.49, 0.35), (0.47, 0.31, 0.22), (0.32, 0.21, 0.16))
HAIR = ((0.10, 0.08, 0.07), (0.28, 0.18, 0.11), (0.45, 0.28, 0.15), (0.72, 0.58, 0.36), (0.60, 0.58, 0.56))
WARMEST = (1.0, 0.85, 0.65)
"""Of a key light, against white."""

BRIGHTEST = 0.95

CLOTH_SHARES = (0.0, 1.5, 1.0, 1.0, 0.4)
"""How far each region may stand off the body, over `cloth_m`."""


@dataclass(frozen=True)
class Look(Batched):
    """What somebody wears."""

    materials: Float[Tensor, "*batch 5 16"]
    seams: Float[Tensor, "*batch 8"]
    thickness_m: Float[Tensor, "*batch 5"]
    """Of each region: how far it stands off the body."""


@dataclass(frozen=True)
class Light(Batched):
    """What falls on everybody: linear light, directions in the camera's axes."""

    direction: Float[Tensor, "*batch 3"]
    """Towards the key light."""
    up: Float[Tensor, "*batch 3"]
    key: Float[Tensor, "*batch 3"]
    sky: Float[Tensor, "*batch 3"]
    """From above, without shadow."""
    ground: Float[Tensor, "*batch 3"]
    """From below."""


@dataclass(frozen=True)
class Sensor(Batched):
    """What a camera makes of light."""

    softness_px: Float[Tensor, "*batch"]
    """Standard deviation of the lens' blur, in pixels of the photograph."""
    grain: Float[Tensor, "*batch"]
    """Standard deviation of the noise, 1 being white."""
    black: Float[Tensor, "*batch"]
    """What black becomes, 1 being white."""
    gain: Float[Tensor, "*batch 3"]
    """What white becomes, less that: red, green, blue."""
    seed: Int[Tensor, "*batch"]
    """Of the noise."""


def look_of(config: SyntheticConfig, random: np.random.Generator) -> Look:
    """Somebody's."""
    skin = np.array(SKINS[random.integers(len(SKINS))]) * random.uniform(0.85, 1.1)
    hair = np.array(HAIR[random.integers(len(HAIR))]) * random.uniform(0.7, 1.3)
    cloths = [_colour(random) for _ in range(3)]
    if random.random() < 0.15:
        cloths[1] = cloths[0]
    rows = [_material(skin, random, patterned=False), _material(hair, random, patterned=True)]
    rows += [_material(cloth, random, patterned=random.random() < 0.55) for cloth in cloths]
    thickness = config.cloth_m * random.random(5) * CLOTH_SHARES
    parts = (torch.from_numpy(part).float() for part in (np.stack(rows), _seams(random), thickness))
    return Look(*parts)


def _colour(random: np.random.Generator) -> Float[np.ndarray, "3"]:
    """Greys, denim and any colours."""
    if random.random() < 0.4:
        return random.uniform(0.04, BRIGHTEST) * random.uniform(0.92, 1.0, 3)
    return random.uniform(0.05, BRIGHTEST, 3)


def _material(colour: Float[np.ndarray, "3"], random: np.random.Generator, patterned: bool) -> Float[np.ndarray, "16"]:
    second = _colour(random) if random.random() < 0.5 else colour * random.uniform(0.4, 1.6)
    kind = random.integers(1, len(PATTERNS)) if patterned else 0
    waves = random.normal(size=(2, 3))
    if random.random() < 0.6:
        waves = np.eye(3)[random.permutation(3)[:2]]
    waves *= 2 * np.pi / (np.linalg.norm(waves, axis=1, keepdims=True) * random.uniform(0.015, 0.16))
    cut, fold = random.uniform(-0.6, 0.8), random.uniform(0.0, 0.5)
    colours = np.concatenate([colour, second]).clip(0.02, BRIGHTEST) ** 2
    return np.array([*colours, kind, *waves[0], *waves[1], random.uniform(0, 100), cut, fold])


def _seams(random: np.random.Generator) -> Float[np.ndarray, "8"]:
    sleeve = random.choice([random.uniform(0.2, 0.45), random.uniform(0.62, 0.69)])
    waist = random.uniform(-0.3, -0.1) if random.random() < 0.85 else random.uniform(-0.7, -0.35)
    hem = random.choice([random.uniform(-0.75, -0.4), random.uniform(-1.08, -0.95)])
    shoe, collar = random.uniform(-1.1, -0.98), random.uniform(0.24, 0.34)
    hairline, fringe = random.uniform(0.34, 0.5), random.uniform(0.495, 0.54)
    if random.random() < 0.08:
        hairline = 1.0
    return np.array([sleeve, waist, hem, shoe, collar, hairline, fringe, float(random.random() < 0.15)])


def light_of(R_camera_world: Float[Tensor, "3 3"], random: np.random.Generator) -> Light:
    """A key light from the camera's side, a sky and a ground."""
    up = R_camera_world[:, 1]
    direction = torch.from_numpy(random.normal(size=3)).float() + 0.8 * up + torch.tensor([0.0, 0.0, -0.7])
    tint = 1 - random.random() * (1 - np.array(WARMEST))
    key, fill = random.uniform(0.3, 1.0), random.uniform(0.1, 0.6)
    sky = fill * random.uniform(0.8, 1.0, 3)
    ground = sky * random.uniform(0.2, 0.9)
    parts = (torch.from_numpy(part).float() for part in (key * tint, sky, ground))
    return Light(torch.nn.functional.normalize(direction, dim=0), up, *parts)


def sensor_of(config: SyntheticConfig, random: np.random.Generator) -> Sensor:
    """A camera's."""
    contrast, tint = random.uniform(*config.contrast), random.uniform(0.9, 1.0, 3)
    return Sensor(
        softness_px=torch.tensor(random.uniform(*config.softness_px), dtype=torch.float32),
        grain=torch.tensor(random.uniform(*config.grain), dtype=torch.float32),
        black=torch.tensor((1 - contrast) * random.random(), dtype=torch.float32),
        gain=torch.from_numpy(contrast * tint).float(),
        seed=torch.tensor(random.integers(2**31)),
    )
