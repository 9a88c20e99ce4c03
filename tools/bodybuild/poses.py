"""Random poses within the reach of human joints, as matrices in SMPL's frames."""

import numpy as np
from jaxtyping import Float

from bodybuild.joints import split_side
from bodybuild.skinning import rotation
from meshrec.skeletons import SMPL24

REACH_DEG = {
    "hip": ((-115, 30), (-35, 35), (-20, 55)),
    "knee": ((-5, 140), (-12, 12), (-5, 5)),
    "ankle": ((-35, 35), (-20, 20), (-18, 18)),
    "foot": ((-35, 30), (0, 0), (0, 0)),
    "spine1": ((-20, 35), (-20, 20), (-18, 18)),
    "spine2": ((-15, 25), (-20, 20), (-15, 15)),
    "spine3": ((-15, 25), (-20, 20), (-15, 15)),
    "neck": ((-30, 35), (-35, 35), (-20, 20)),
    "head": ((-25, 30), (-35, 35), (-20, 20)),
    "collar": ((-8, 8), (-20, 15), (-12, 25)),
    "shoulder": ((-75, 75), (-100, 35), (-85, 75)),
    "elbow": ((-75, 75), (-145, 5), (-8, 8)),
    "wrist": ((-35, 35), (-25, 25), (-60, 60)),
    "hand": ((-5, 5), (-10, 10), (-60, 20)),
}
"""Least and greatest x, y and z of the rotation vector of a joint of the left side or of the middle."""

MOVED = 0.75
"""Share of the joints that leave the T-pose."""


def random_poses(count: int, seed: int) -> Float[np.ndarray, "N 24 3 3"]:
    """Rotations of every joint in its parent; the pelvis keeps still."""
    rng = np.random.default_rng(seed)
    rotvecs = np.zeros((count, len(SMPL24), 3))
    for joint, name in enumerate(SMPL24.joints[1:], start=1):
        side, kind = split_side(name)
        low, high = np.deg2rad(REACH_DEG[kind]).T
        drawn = rng.uniform(low, high, (count, 3)) * np.sqrt(rng.random((count, 1)))
        mirrored = np.array([1, -1, -1]) if side == ".R" else 1
        rotvecs[:, joint] = drawn * mirrored * (rng.random((count, 1)) < MOVED)
    return rotation(rotvecs)
