"""Which bones of MakeHuman make up each joint of SMPL: its centre and its skin."""

import numpy as np
from jaxtyping import Float

from bodybuild.rig import Rig
from meshrec.skeletons import SMPL24

KNUCKLES = ("finger2-1", "finger3-1", "finger4-1", "finger5-1")
TOES = ("toe1-1", "toe2-1", "toe3-1", "toe4-1", "toe5-1")

CENTRE_OF = {
    "pelvis": ("root",),
    "spine1": ("spine03",),
    "spine2": ("spine02",),
    "spine3": ("spine01",),
    "neck": ("neck01",),
    "head": ("head",),
    "hip": ("upperleg01",),
    "knee": ("lowerleg01",),
    "ankle": ("foot",),
    "foot": TOES,
    "collar": ("clavicle",),
    "shoulder": ("upperarm01",),
    "elbow": ("lowerarm01",),
    "wrist": ("wrist",),
    "hand": KNUCKLES,
}
"""Bones whose heads, on average, are the centre of a joint of SMPL."""

SKIN_OF = {
    "pelvis": ("root", "pelvis", "spine05", "spine04"),
    "spine1": ("spine03",),
    "spine2": ("spine02",),
    "spine3": ("spine01",),
    "neck": ("neck",),
    "head": ("head", "eye"),
    "hip": ("upperleg",),
    "knee": ("lowerleg",),
    "ankle": ("foot",),
    "foot": ("toe",),
    "collar": ("clavicle", "shoulder01"),
    "shoulder": ("upperarm",),
    "elbow": ("lowerarm",),
    "wrist": ("wrist", "metacarpal", "finger1-1"),
    "hand": ("finger",),
}
"""First letters of the bones whose skin follows a joint; the longest match counts."""

LEAST_WEIGHT = 2e-3


def joint_of_bone(bone: str) -> str:
    """The joint of SMPL that moves a bone of MakeHuman."""
    starts = {start: kind for kind, bones in SKIN_OF.items() for start in bones if bone.startswith(start)}
    kind = starts[max(starts, key=len)]
    side = {"L": "left_", "R": "right_"}.get(bone.rpartition(".")[2], "")
    return side + kind if side + kind in SMPL24.joints else kind


def smpl_weights(rig: Rig) -> Float[np.ndarray, "V 24"]:
    """Skinning weights of SMPL's joints, mirror symmetric; traces below `LEAST_WEIGHT` are dropped."""
    weights = np.zeros((len(rig.weights), len(SMPL24)))
    np.add.at(weights.T, SMPL24.indices(*map(joint_of_bone, rig.bones)), rig.weights.T)
    weights[weights < LEAST_WEIGHT] = 0
    weights /= weights.sum(1, keepdims=True)
    return (weights + weights[rig.mirror][:, SMPL24.mirror]) / 2


def joint_centres(rig: Rig, heads_m: Float[np.ndarray, "N B 3"]) -> Float[np.ndarray, "N 24 3"]:
    """The 24 joints of SMPL: means of bone heads."""
    rows = np.zeros((len(SMPL24), len(rig.bones)))
    for row, joint in zip(rows, SMPL24.joints, strict=True):
        side, kind = split_side(joint)
        bones = [bone + side for bone in CENTRE_OF[kind]]
        row[[rig.bone(bone) for bone in bones]] = 1 / len(bones)
    return np.einsum("jb,nbc->njc", rows, heads_m)


def split_side(joint: str) -> tuple[str, str]:
    """Suffix of MakeHuman's bones on the side of a joint of SMPL, and the joint's name without side."""
    side, _, kind = joint.partition("_")
    return ({"left": ".L", "right": ".R"}[side], kind) if kind else ("", joint)
