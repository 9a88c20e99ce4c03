"""Pose correctives: what must be added to the T-pose so that SMPL's linear skinning ends where the full rig would.

The rig bends with 89 bones, spreads the twist of a limb over it, and blends linear with dual-quaternion skinning; SMPL
has 24 joints and linear skinning, and adds `posedirs @ (R - I)` to the T-pose to make up for it (Loper et al. 2015).
"""

from dataclasses import dataclass

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, Int

from bodybuild.joints import joint_centres, joint_of_bone, split_side
from bodybuild.people import PELVIS_M, t_pose
from bodybuild.poses import random_poses
from bodybuild.rig import FLIP_X, Rig
from bodybuild.skinning import apply, blend_skin, forward_kinematics, joint_motions, rotation
from meshrec.skeletons import SMPL24

TWIST = {"upperarm01": 0.4, "lowerarm01": 0.45, "upperleg01": 0.5, "lowerleg01": 0.5}
"""How much of its joint's twist the upper bone of a limb takes; the lower bone takes it all."""

FOREARM_TWIST = 0.5
"""How much of the wrist's twist the lower bone of the forearm takes."""

CHILD = {"shoulder": "elbow", "elbow": "wrist", "hip": "knee", "knee": "ankle"}

FEATURES = 9 * (len(SMPL24) - 1)
RIDGE = 3.0
MOST_M = 0.06
"""Corrections are cut to this length."""

LEAST_M = 2e-5
"""Smaller coefficients are dropped."""

TRACE = 0.02
"""Weight from which a joint's rotation may correct a vertex."""

INVERTIBLE = 0.15
"""Share of the largest singular value below which a collapsed vertex's motion is not inverted."""


MERGING_POSES = 40


@dataclass(frozen=True)
class MeanPerson:
    """The mean person in the rig's own rest, and in the T-pose."""

    rest_m: Float[np.ndarray, "V 3"]
    rotations: Float[np.ndarray, "B 3 3"]
    shifts_m: Float[np.ndarray, "B 3"]
    """x -> R x + t takes each bone from the rest to the T-pose."""
    skin_m: Float[np.ndarray, "V 3"]
    joints_m: Float[np.ndarray, "24 3"]


@dataclass(frozen=True)
class Correctives:
    """`posedirs`, and how far held-out poses are from the rig without and with it."""

    posedirs_m: Float[np.ndarray, "V 3 207"]
    without_m: float
    with_m: float
    worst_without_m: float
    worst_with_m: float
    """Means over the vertices that are off by more than 5 mm without."""


def mean_person(rig: Rig, build: Float[np.ndarray, "C"]) -> MeanPerson:
    """A person with the mean of all builds."""
    heads = rig.heads(build[None])
    rotations, moved = t_pose(rig, heads)
    moved = moved + PELVIS_M - joint_centres(rig, moved)[:, 0]
    shifts = moved - apply(rotations, heads)
    rest = rig.skin(build)
    skin = blend_skin(rig.weights, rest, rotations[0], shifts[0], rig.parents)
    return MeanPerson(rest, rotations[0], shifts[0], skin, joint_centres(rig, moved)[0])


def fit_correctives(
    rig: Rig, weights: Float[np.ndarray, "V 24"], person: MeanPerson, train: int, held_out: int, seed: int
) -> Correctives:
    """Ridge regression from `R - I` to the missing offsets over random poses; each vertex hears its own joints."""
    poses = random_poses(train + held_out, seed)
    features = (poses[:, 1:] - np.eye(3)).reshape(len(poses), FEATURES)
    missing = np.stack([missing_offsets(rig, weights, person, pose) for pose in poses])
    length = np.linalg.norm(missing, axis=-1, keepdims=True)
    missing *= np.minimum(1, MOST_M / np.maximum(length, 1e-9)).astype(np.float32)
    posedirs = _symmetric(_ridge(features[:train], missing[:train], _joints_heard(weights, rig.mirror)), rig.mirror)
    posedirs[np.abs(posedirs) < LEAST_M] = 0
    return _judged(posedirs, features[train:], missing[train:])


def missing_offsets(
    rig: Rig, weights: Float[np.ndarray, "V 24"], person: MeanPerson, pose: Float[np.ndarray, "24 3 3"]
) -> Float[np.ndarray, "V 3"]:
    """What SMPL's skinning of the T-pose lacks to reach the rig's skin in this pose, in the frame of the T-pose."""
    rotations, shifts = bone_motions(rig, person, pose)
    total = rotations @ person.rotations
    moved = apply(rotations, person.shifts_m) + shifts
    wanted = blend_skin(rig.weights, person.rest_m, total, moved, rig.parents)
    matrices, offsets = joint_motions(weights, pose, person.joints_m)
    reached = apply(matrices, person.skin_m) + offsets
    return apply(np.linalg.pinv(matrices, rcond=INVERTIBLE), wanted - reached).astype(np.float32)


def merging_error_m(rig: Rig, weights: Float[np.ndarray, "V 24"], person: MeanPerson, seed: int) -> tuple[float, float]:
    """Mean and largest distance between linear skinning by all the rig's bones and by the 24 joints they merge into."""
    joint = SMPL24.indices(*map(joint_of_bone, rig.bones))
    distances = []
    for pose in random_poses(MERGING_POSES, seed):
        turned, moved = forward_kinematics(pose, person.joints_m)
        motions = np.concatenate([turned, (moved - apply(turned, person.joints_m))[..., None]], -1)
        own = (rig.weights @ motions[joint].reshape(-1, 12)).reshape(-1, 3, 4)
        matrices, shifts = joint_motions(weights, pose, person.joints_m)
        gap = apply(own[..., :3] - matrices, person.skin_m) + own[..., 3] - shifts
        distances.append(np.linalg.norm(gap, axis=-1))
    return float(np.mean(distances)), float(np.max(distances))


def bone_motions(
    rig: Rig, person: MeanPerson, pose: Float[np.ndarray, "24 3 3"]
) -> tuple[Float[np.ndarray, "B 3 3"], Float[np.ndarray, "B 3"]]:
    """The motion of every bone from the T-pose to this pose, with the twist of limbs spread along them."""
    turned, moved = forward_kinematics(pose, person.joints_m)
    rotations, shifts = [], []
    for bone in rig.bones:
        name = joint_of_bone(bone)
        joint = SMPL24.index(name)
        turn = _bone_turn(bone, name, pose, turned, person.joints_m)
        rotations.append(turn)
        shifts.append(moved[joint] - turn @ person.joints_m[joint])
    return np.stack(rotations), np.stack(shifts)


def _bone_turn(
    bone: str,
    name: str,
    pose: Float[np.ndarray, "24 3 3"],
    turned: Float[np.ndarray, "24 3 3"],
    joints_m: Float[np.ndarray, "24 3"],
) -> Float[np.ndarray, "3 3"]:
    """Orientation of one bone in a posed rig."""
    stem, joint = bone.partition(".")[0], SMPL24.index(name)
    if stem != "lowerarm02" and stem not in TWIST:
        return turned[joint]
    side, kind = name.partition("_")[0], split_side(name)[1]
    child = SMPL24.index(f"{side}_{CHILD[kind]}")
    axis = joints_m[child] - joints_m[joint]
    axis /= np.linalg.norm(axis)
    if stem == "lowerarm02":
        return turned[joint] @ rotation(FOREARM_TWIST * _twist(pose[child], axis) * axis)
    back = (TWIST[stem] - 1) * _twist(pose[joint], axis)
    return turned[joint] @ rotation(back * axis)


def _twist(turn: Float[np.ndarray, "3 3"], axis: Float[np.ndarray, "3"]) -> float:
    """Angle about `axis` of a rotation = swing @ twist, in (-pi, pi]."""
    quaternion = roma.rotmat_to_unitquat(torch.from_numpy(turn)).numpy()
    angle = 2 * np.arctan2(quaternion[:3] @ axis, quaternion[3])
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def _joints_heard(weights: Float[np.ndarray, "V 24"], mirror: Int[np.ndarray, "V"]) -> Bool[np.ndarray, "V 24"]:
    """Which joints may correct a vertex: those that move it, the next along a limb, the shoulder in its girdle."""
    moves = weights > TRACE
    heard = moves.copy()
    for joint, parent in enumerate(SMPL24.parents):
        name = SMPL24.joints[parent]
        if parent > 0 and not name.startswith("spine"):
            heard[:, joint] |= moves[:, parent] & (weights[:, parent] > 0.3)
    for side in ("left", "right"):
        heard[:, SMPL24.index(f"{side}_shoulder")] |= moves[:, SMPL24.index(f"{side}_collar")]
    heard |= heard[mirror][:, SMPL24.mirror]
    heard[:, SMPL24.index("pelvis")] = False
    return heard


def _ridge(
    features: Float[np.ndarray, "N 207"], missing: Float[np.ndarray, "N V 3"], heard: Bool[np.ndarray, "V 24"]
) -> Float[np.ndarray, "V 3 207"]:
    """One ridge regression for every set of joints that some vertices share."""
    posedirs = np.zeros((*missing.shape[1:], FEATURES))
    sets, member = np.unique(heard, axis=0, return_inverse=True)
    for number, joints in enumerate(sets):
        columns = np.flatnonzero(np.repeat(joints[1:], 9))
        vertices = np.flatnonzero(member.reshape(-1) == number)
        if not len(columns):
            continue
        seen, wanted = features[:, columns], missing[:, vertices].reshape(len(features), -1)
        fit = np.linalg.solve(seen.T @ seen + RIDGE * np.eye(len(columns)), seen.T @ wanted)
        posedirs[vertices[:, None], :, columns] = fit.reshape(len(columns), len(vertices), 3).transpose(1, 0, 2)
    return posedirs


def _symmetric(posedirs: Float[np.ndarray, "V 3 207"], mirror: Int[np.ndarray, "V"]) -> Float[np.ndarray, "V 3 207"]:
    """The mean of the correctives and their mirror image."""
    return (posedirs + mirrored_correctives(posedirs, mirror)) / 2


def mirrored_correctives(
    posedirs: Float[np.ndarray, "V 3 207"], mirror: Int[np.ndarray, "V"]
) -> Float[np.ndarray, "V 3 207"]:
    """P'[v, c, j, a, b] = s_c s_a s_b P[mirror v, c, mirror j, a, b] with s = (-1, 1, 1)."""
    table = posedirs.reshape(-1, 3, len(SMPL24) - 1, 3, 3)
    joints = np.array(SMPL24.mirror[1:]) - 1
    signs = FLIP_X[:, None, None, None] * FLIP_X[:, None] * FLIP_X
    return (table[mirror][:, :, joints] * signs).reshape(posedirs.shape)


def _judged(
    posedirs: Float[np.ndarray, "V 3 207"], features: Float[np.ndarray, "N 207"], missing: Float[np.ndarray, "N V 3"]
) -> Correctives:
    without = np.linalg.norm(missing, axis=-1)
    given = (features @ posedirs.reshape(-1, FEATURES).T).reshape(missing.shape)
    left = np.linalg.norm(missing - given, axis=-1)
    worst = without > 0.005
    figures = (without.mean(), left.mean(), without[worst].mean(), left[worst].mean())
    return Correctives(posedirs, *map(float, figures))
