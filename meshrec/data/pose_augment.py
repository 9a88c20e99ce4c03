"""Poses made from poses: seen in a mirror, shaken, and put together from the limbs of several."""

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meshrec.skeletons import SMPL24

BODY_JOINTS = SMPL24.joints[1:]
"""The joints of a pose: all but the pelvis."""

LIMBS = {
    f"{side}_{limb}": tuple(BODY_JOINTS.index(f"{side}_{joint}") for joint in joints)
    for side in ("left", "right")
    for limb, joints in {
        "leg": ("hip", "knee", "ankle", "foot"),
        "arm": ("collar", "shoulder", "elbow", "wrist", "hand"),
    }.items()
}
"""The joints of each limb, as places in `BODY_JOINTS`."""

_MIRROR = [BODY_JOINTS.index(SMPL24.joints[SMPL24.mirror[SMPL24.index(joint)]]) for joint in BODY_JOINTS]


def mirrored(rotations: Float[Tensor, "*batch 23 3 3"]) -> Float[Tensor, "*batch 23 3 3"]:
    """The pose in a mirror: sides swapped, S R S with S the reflection of x."""
    reflection = torch.diag(rotations.new_tensor([-1.0, 1.0, 1.0]))
    return reflection @ rotations[..., _MIRROR, :, :] @ reflection


def jittered(
    rotations: Float[Tensor, "*batch 23 3 3"], jitter_rad: float, noise: np.random.Generator
) -> Float[Tensor, "*batch 23 3 3"]:
    """R exp(delta), delta from N(0, jitter^2 I)."""
    delta = noise.normal(scale=jitter_rad, size=rotations.shape[:-1])
    return rotations @ roma.rotvec_to_rotmat(torch.from_numpy(delta).to(rotations))


def recombined(
    rotations: Float[Tensor, "*batch N 23 3 3"], share: float, choice: np.random.Generator
) -> Float[Tensor, "*batch N 23 3 3"]:
    """Poses each of whose limbs is, with probability `share`, that of another one among the N.

    What limbs have in common is learned less by heart: people that were never seen combine them anew.
    """
    result = rotations.clone()
    for joints in LIMBS.values():
        taken = torch.from_numpy(choice.random(rotations.shape[:-3]) < share)
        giver = torch.from_numpy(choice.integers(rotations.shape[-4], size=rotations.shape[:-3]))
        result[..., joints, :, :] = _replaced(rotations[..., joints, :, :], taken, giver)
    return result


def _replaced(
    limb: Float[Tensor, "*batch N J 3 3"], taken: Bool[Tensor, "*batch N"], giver: Int[Tensor, "*batch N"]
) -> Float[Tensor, "*batch N J 3 3"]:
    others = torch.take_along_dim(limb, giver.to(limb.device)[..., None, None, None], dim=-4)
    return torch.where(taken.to(limb.device)[..., None, None, None], others, limb)
