"""Rotations, forward kinematics, and the two ways of moving a skin with its bones."""

import numpy as np
import roma
import torch
from jaxtyping import Float

from meshrec.skeletons import SMPL24


def blend_skin(
    weights: Float[np.ndarray, "V B"],
    skin_m: Float[np.ndarray, "V 3"],
    rotations: Float[np.ndarray, "B 3 3"],
    shifts_m: Float[np.ndarray, "B 3"],
    parents: tuple[int, ...],
) -> Float[np.ndarray, "V 3"]:
    """Mean of linear and dual-quaternion skinning with the bone motions x -> R x + t."""
    linear = (weights @ np.concatenate([rotations, shifts_m[..., None]], -1).reshape(-1, 12)).reshape(-1, 3, 4)
    turn = roma.rotmat_to_unitquat(torch.from_numpy(rotations)).numpy()
    for bone, parent in enumerate(parents):
        if parent >= 0 and turn[bone] @ turn[parent] < 0:
            turn[bone] *= -1
    pure = np.concatenate([shifts_m, np.zeros((len(shifts_m), 1))], -1)
    dual = weights @ np.concatenate([turn, 0.5 * _quaternion_product(pure, turn)], -1)
    dual /= np.linalg.norm(dual[:, :4], axis=1, keepdims=True)
    real, moved = dual[:, :4], dual[:, 4:]
    axis, scalar = real[:, :3], real[:, 3:]
    swing = np.cross(axis, skin_m)
    rotated = skin_m + 2 * (scalar * swing + np.cross(axis, swing))
    shift = 2 * _quaternion_product(moved, real * np.array([-1, -1, -1, 1]))[:, :3]
    return 0.5 * (apply(linear[..., :3], skin_m) + linear[..., 3] + rotated + shift)


def apply(
    matrices: Float[np.ndarray, "*batch 3 3"], vectors: Float[np.ndarray, "*batch 3"]
) -> Float[np.ndarray, "*batch 3"]:
    """Each matrix times its vector."""
    return np.einsum("...ij,...j->...i", matrices, vectors)


def rotation(rotvec_rad: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3 3"]:
    """Rotation matrices of rotation vectors."""
    return roma.rotvec_to_rotmat(torch.from_numpy(np.asarray(rotvec_rad, dtype=np.float64))).numpy()


def shortest(start: Float[np.ndarray, "N 3"], end: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "N 3 3"]:
    """The smallest rotations that take directions `start` to directions `end`."""
    end = np.broadcast_to(end, start.shape)
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = np.arctan2(sine, (start * end).sum(-1, keepdims=True))
    return rotation(axis / np.maximum(sine, 1e-12) * angle)


def forward_kinematics(
    rotations: Float[np.ndarray, "24 3 3"], joints_m: Float[np.ndarray, "24 3"]
) -> tuple[Float[np.ndarray, "24 3 3"], Float[np.ndarray, "24 3"]]:
    """Orientation and place of SMPL's joints, from each joint's rotation in its parent and the joints at rest."""
    turned, moved = rotations.copy(), joints_m.copy()
    for joint, parent in enumerate(SMPL24.parents):
        if parent >= 0:
            turned[joint] = turned[parent] @ rotations[joint]
            moved[joint] = moved[parent] + turned[parent] @ (joints_m[joint] - joints_m[parent])
    return turned, moved


def joint_motions(
    weights: Float[np.ndarray, "V 24"],
    rotations: Float[np.ndarray, "24 3 3"],
    joints_m: Float[np.ndarray, "24 3"],
) -> tuple[Float[np.ndarray, "V 3 3"], Float[np.ndarray, "V 3"]]:
    """SMPL's skinning: the matrix and the shift x -> A x + b that moves each vertex."""
    turned, moved = forward_kinematics(rotations, joints_m)
    shifts = moved - apply(turned, joints_m)
    motions = (weights @ np.concatenate([turned, shifts[..., None]], -1).reshape(-1, 12)).reshape(-1, 3, 4)
    return motions[..., :3], motions[..., 3]


def _quaternion_product(p: Float[np.ndarray, "*batch 4"], q: Float[np.ndarray, "*batch 4"]) -> np.ndarray:
    return roma.quat_product(torch.from_numpy(p), torch.from_numpy(q)).numpy()
