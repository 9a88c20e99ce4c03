"""How synthetic photographs are taken: the camera, where it stands, and which part of whom is where in the picture.

The world's y is up. A person is put where the projection of a chosen point is the chosen pixel, at the distance that
gives the body the chosen size, so near cameras have all their perspective.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from meshrec.camera import camera_from_body_axes, centered_camera, project
from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.skeletons import SMPL24
from meshrec.types import Batched, Camera

AIMS = ("head", "neck", "spine3", "spine1", "pelvis", "left_knee", "right_knee", "left_wrist", "right_wrist")
"""What photographs of a part of the body are of."""

AIM_SHARES = (0.2, 0.2, 0.2, 0.15, 0.1, 0.05, 0.05, 0.025, 0.025)

STEEPEST_RAD = 1.4
"""No camera looks down or up by more."""

FLESH_M = 0.3
"""How much larger than the box around its joints a body is."""

LEAST_JOINTS = 8
"""A photograph shows so many joints of the tree, or the whole body instead."""

WHOLE = 0.8
"""Then it takes at most so much of the photograph's shorter side."""


@dataclass(frozen=True)
class Shot(Batched):
    """A camera, and what it shows where."""

    camera: Camera
    """Without the photograph's size, so that upright and level photographs can be stacked."""
    photo_px: Float[Tensor, "*batch 2"]
    """Width and height of the photograph."""
    R_camera_world: Float[Tensor, "*batch 3 3"]
    size_px: Float[Tensor, "*batch"]
    """The body's, in the photograph."""
    spot_px: Float[Tensor, "*batch 2"]
    """Where the aim is."""
    aim: Float[Tensor, "*batch 24"]
    """Shares of the joints whose mean is at the spot; none: the middle of the body is."""


def shot_of(config: SyntheticConfig, random: np.random.Generator) -> Shot:
    """A photograph of a whole body or of a part of it."""
    width, height = config.photo_px
    size = (height, width) if random.random() < config.portrait else (width, height)
    focal_px = max(size) / 2 / math.tan(random.uniform(*config.fov_rad) / 2)
    close, middle, shorter = random.random() < config.close, np.array(size) / 2, min(size)
    low, high = np.log(config.close_size if close else config.size)
    size_px = math.exp(random.uniform(low, high)) * shorter
    aim = torch.zeros(len(SMPL24))
    joint = AIMS[random.choice(len(AIMS), p=AIM_SHARES)]
    reach = 0.25 * np.array(size) if close else np.maximum(middle - 0.4 * size_px, 0.05 * middle)
    if close:
        aim[SMPL24.index(joint)] = 1.0
    spot = middle + reach * random.uniform(-1, 1, 2)
    return Shot(
        camera=replace(centered_camera(*size, focal_px, "true"), width_px=0, height_px=0),
        photo_px=torch.tensor(size, dtype=torch.float32),
        R_camera_world=_attitude(config, random),
        size_px=torch.tensor(size_px, dtype=torch.float32),
        spot_px=torch.from_numpy(spot).float(),
        aim=aim,
    )


def _attitude(config: SyntheticConfig, random: np.random.Generator) -> Float[Tensor, "3 3"]:
    """Looking down or up, rolled, from any side; upright and from the front it would be half a turn about x."""
    anyhow = random.random() < config.anyhow
    down = random.uniform(-1, 1) * STEEPEST_RAD if anyhow else random.normal(0.1, config.height_rad)
    down = float(np.clip(down, -STEEPEST_RAD, STEEPEST_RAD))
    roll, yaw = random.normal(0, config.roll_rad), random.uniform(-math.pi, math.pi)
    turns = roma.rotvec_to_rotmat(torch.tensor([[0.0, 0.0, roll], [down, 0.0, 0.0], [0.0, yaw, 0.0]]))
    return turns[0] @ turns[1] @ camera_from_body_axes() @ turns[2]


def framed(joints_m: Float[Tensor, "n 24 3"], shot: Shot, nearest_m: float) -> Float[Tensor, "n 3"]:
    """What moves bodies to where the camera shows them as told; joints in the camera's axes.

    A shot that would show too little of a body is one of the whole body instead.
    """
    moved = _framed(joints_m, shot, nearest_m)
    size_px = torch.minimum(shot.size_px, WHOLE * shot.photo_px.amin(-1))
    whole = replace(shot, size_px=size_px, spot_px=shot.camera.center_px, aim=torch.zeros_like(shot.aim))
    enough = shown(joints_m + moved[:, None], shot.camera, shot.photo_px).sum(-1) >= LEAST_JOINTS
    return torch.where(enough[:, None], moved, _framed(joints_m, whole, nearest_m))


def _framed(joints_m: Float[Tensor, "n 24 3"], shot: Shot, nearest_m: float) -> Float[Tensor, "n 3"]:
    low, high = joints_m.amin(1), joints_m.amax(1)
    aimed = (shot.aim.sum(-1) > 0)[:, None]
    target_m = torch.where(aimed, (shot.aim[:, None] @ joints_m)[:, 0], (low + high) / 2)
    extent_m = (high - low)[:, :2].amax(-1) + FLESH_M
    depth_m = shot.camera.focal_px * extent_m / shot.size_px
    in_front_m = target_m[:, 2] - low[:, 2] + FLESH_M / 2
    return seen_at(shot.spot_px, torch.maximum(depth_m, in_front_m + nearest_m), shot.camera) - target_m


def seen_at(xy_px: Float[Tensor, "n 2"], depth_m: Float[Tensor, "n"], camera: Camera) -> Float[Tensor, "n 3"]:
    """The points that a camera shows there, so deep."""
    xy = (xy_px - camera.center_px) / camera.focal_px[:, None]
    return torch.cat([xy, torch.ones_like(xy[:, :1])], dim=-1) * depth_m[:, None]


def shown(
    points_m: Float[Tensor, "*batch K 3"], camera: Camera, photo_px: Float[Tensor, "*batch 2"]
) -> Bool[Tensor, "*batch K"]:
    """Which points lie in a photograph so wide and high."""
    xy_px = project(points_m, camera)
    return ((xy_px >= 0) & (xy_px < photo_px[..., None, :])).all(-1) & (points_m[..., 2] > 0)
