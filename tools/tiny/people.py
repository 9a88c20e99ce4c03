"""Who is in the pictures: bodies that move about a spot of the ground, and what they wear. World: metres, y up."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.assets import find_prior
from meshrec.body import BodyModel
from meshrec.data.poses import open_poses
from meshrec.prior_files import read_prior
from meshrec.skeletons import SMPL24
from meshrec.types import BodyParams

HZ = 60
"""Frames a second of the motion; pictures show every second one."""

KEY_EVERY = 24
"""Frames from one drawn pose to the next."""

SHAPE_SPREAD = 1.0
WALK_M_PER_S = 0.3
LEAN_RAD = 0.06

Poses = Callable[[int, np.random.Generator], Float[Tensor, "N 23 3 3"]]
"""Draws poses, a function of the generator alone."""


@dataclass(frozen=True)
class Cast:
    """Who may be drawn, how many at once, and how large the images are."""

    model: BodyModel
    poses: Poses
    people: int
    """Most people in an image: one in the first, two in the second, and so on, then from one again."""
    size_px: tuple[int, int]
    """Width and height."""
    seed: int


CLOTHES = {
    "skin": ("head", "neck", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand"),
    "shirt": ("spine1", "spine2", "spine3", "left_collar", "right_collar", "left_shoulder", "right_shoulder"),
    "trousers": ("pelvis", "left_hip", "right_hip", "left_knee", "right_knee"),
    "shoes": ("left_ankle", "right_ankle", "left_foot", "right_foot"),
}
"""What covers the part of the body that each joint moves."""

SKINS = ((0.96, 0.80, 0.69), (0.87, 0.67, 0.53), (0.71, 0.49, 0.35), (0.47, 0.31, 0.22), (0.32, 0.21, 0.16))
HAIR = ((0.10, 0.08, 0.07), (0.28, 0.18, 0.11), (0.62, 0.48, 0.28), (0.55, 0.53, 0.50))
HAIR_ABOVE = 0.72
"""Share of the head, from its lowest vertex up, that has no hair."""


@dataclass(frozen=True)
class Actor:
    """One person, frame by frame."""

    params: BodyParams
    """In the world."""
    colors: Float[Tensor, "V 3"]
    """sRGB, 0 to 1."""


def poses_of_prior(name: str, temperature: float) -> Poses:
    """Poses that a prior draws."""
    prior = read_prior(find_prior(name))

    def draw(count: int, random: np.random.Generator) -> Float[Tensor, "N 23 3 3"]:
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        return prior.sample(count, temperature, generator)

    return draw


def poses_of_files(paths: tuple[Path, ...]) -> Poses:
    """Poses of collections and files of motion."""
    collection = open_poses(paths, hz=30.0)
    rows = collection.rows()

    def draw(count: int, random: np.random.Generator) -> Float[Tensor, "N 23 3 3"]:
        return collection.rotations(random.choice(rows, count))[:, 1:]

    return draw


def actor(
    model: BodyModel, poses: Poses, frames: int, spot_m: tuple[float, float], random: np.random.Generator
) -> Actor:
    """Somebody who moves from pose to pose, turns and drifts about a spot (x, z), the lowest vertex on the ground."""
    pose = between(poses(2 + (frames - 1) // KEY_EVERY, random).double(), frames)
    seconds = torch.arange(frames, dtype=torch.float64)[:, None] / HZ
    yaw = random.uniform(-np.pi, np.pi) + random.normal(0, 0.4) * seconds
    lean = _turn(random.normal(0, LEAN_RAD), "z") @ _turn(random.normal(0, LEAN_RAD), "x")
    root = roma.rotvec_to_rotmat(yaw * torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)) @ lean
    betas = torch.from_numpy(SHAPE_SPREAD * random.standard_normal(10)).expand(frames, -1)
    walk = torch.from_numpy(random.normal(0, WALK_M_PER_S, 2)) * seconds
    ground = torch.tensor(spot_m, dtype=torch.float64) + walk
    still = BodyParams(root, pose, betas, torch.zeros(frames, 3, dtype=torch.float64))
    lowest = model(still.to(model.template.dtype)).vertices_m[..., 1].amin(-1).double()
    transl_m = torch.stack([ground[:, 0], -lowest, ground[:, 1]], dim=-1)
    return Actor(BodyParams(root, pose, betas, transl_m), dressed(model, random))


def between(keys: Float[Tensor, "K J 3 3"], frames: int) -> Float[Tensor, "frames J 3 3"]:
    """Frames on the geodesics from key to key, `KEY_EVERY` apart."""
    time = torch.arange(frames) / KEY_EVERY
    start = time.floor().long()
    begin, end = keys[start], keys[start + 1]
    share = (time - start).to(keys)[:, None, None]
    return begin @ roma.rotvec_to_rotmat(share * roma.rotmat_to_rotvec(begin.mT @ end))


def dressed(model: BodyModel, random: np.random.Generator) -> Float[Tensor, "V 3"]:
    """A colour for each vertex: skin, hair, a striped shirt, trousers and shoes."""
    template = model.template.view(-1, 3).cpu()
    colors = torch.zeros_like(template)
    tones = {"skin": SKINS[random.integers(len(SKINS))]}
    for cloth, joints in CLOTHES.items():
        mask = torch.isin(model.parts.cpu(), torch.tensor(SMPL24.indices(*joints)))
        colors[mask] = torch.tensor(tones.get(cloth, tuple(random.uniform(0.08, 0.95, 3)))).to(colors)
    _stripe(colors, template, model, random)
    head = model.parts.cpu() == SMPL24.index("head")
    height = template[:, 1]
    low, high = height[head].aminmax()
    hairy = head & (height > low + HAIR_ABOVE * (high - low))
    colors[hairy] = torch.tensor(HAIR[random.integers(len(HAIR))]).to(colors)
    return colors.float()


def _stripe(colors: Tensor, template: Tensor, model: BodyModel, random: np.random.Generator) -> None:
    """Stripes of another colour on the shirt."""
    shirt = torch.isin(model.parts.cpu(), torch.tensor(SMPL24.indices(*CLOTHES["shirt"])))
    wave = torch.sin(2 * np.pi * template[:, int(random.integers(2))] / random.uniform(0.06, 0.2))
    colors[shirt & (wave > random.uniform(0.0, 1.2))] = torch.from_numpy(random.uniform(0.08, 0.95, 3)).to(colors)


def _turn(angle_rad: float, axis: str) -> Float[Tensor, "3 3"]:
    return roma.euler_to_rotmat(axis, [torch.tensor(angle_rad, dtype=torch.float64)])
