"""Every joint that a body can say, each by its own definition, and where other data sets' joints have their row.

Data sets mean different places by one name. So a body answers with three whole skeletons one after another, and what a
data set has annotated is compared with the row whose definition is the nearest.
"""

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.skeletons import COCO17, H36M17, SMPL24, Skeleton
from meshrec.types import BodyParams

OWN = (COCO17, H36M17, SMPL24)
"""The skeletons whose joints have rows of their own, in the order of the rows."""

UNSURE_ABOVE_CM = 3.0
"""Joints whose definitions lie farther apart say nothing about a body."""


def row_name(joint: str, skeleton: Skeleton) -> str:
    """What the row of a joint, as this skeleton defines it, is called."""
    return f"{joint}@{skeleton.name}"


BODY58 = Skeleton(
    "body58",
    tuple(
        (row_name(joint, skeleton), parent and row_name(parent, skeleton))
        for skeleton in OWN
        for joint, parent in skeleton.tree
    ),
)
"""The rows: COCO17, H36M17 and SMPL24, one after another."""

MID_HIP = tuple(BODY58.indices("left_hip@coco17", "right_hip@coco17"))
"""The rows whose mean is the middle of the hips: what 3D joints are compared about."""

NEAREST = {
    **{joint: row_name(joint, COCO17) for joint in COCO17.joints},
    **{joint: row_name(joint, H36M17) for joint in ("pelvis", "thorax", "head_top")},
    "upper_neck": row_name("neck", SMPL24),
}
"""The row of a joint in a skeleton without rows of its own."""


_SHOULDERS = (row_name("left_shoulder", COCO17), row_name("right_shoulder", COCO17))


@dataclass(frozen=True)
class Doubt:
    """Where else than in its row of `NEAREST` a joint is put."""

    joint: str
    others: tuple[str, ...]
    """It is put at the mean of these rows."""
    apart_cm: float
    """How far from its row that is, on the shipped body in its rest pose."""


DOUBTS = (
    Doubt("left_hip", (row_name("left_hip", H36M17),), 0.0),
    Doubt("right_hip", (row_name("right_hip", H36M17),), 0.0),
    Doubt("left_hip", (row_name("left_hip", SMPL24),), 0.1),
    Doubt("right_hip", (row_name("right_hip", SMPL24),), 0.1),
    Doubt("pelvis", (row_name("left_hip", COCO17), row_name("right_hip", COCO17)), 0.0),
    Doubt("pelvis", (row_name("pelvis", SMPL24),), 1.8),
    Doubt("thorax", _SHOULDERS, 5.9),
    Doubt("upper_neck", _SHOULDERS, 5.9),
    Doubt("upper_neck", (row_name("head", SMPL24),), 10.4),
)
"""The definitions in use.

Thorax and neck are the middle of the shoulders to some (OpenPose's neck is by definition); to others the neck is where
it meets the skull, near SMPL's head. MPII tells thorax and upper neck apart; the body's rows for the two lie 0.04 cm
from each other, so they cannot both be meant. Shoulders, elbows, wrists, knees and ankles are within 0.1 cm by all
three of the body's own definitions, and the head's top is 1.6 cm from the highest vertex.
"""

UNSURE = frozenset(doubt.joint for doubt in DOUBTS if doubt.apart_cm > UNSURE_ABOVE_CM)
"""Joints that say nothing, in skeletons without rows of their own."""


def body_joints(model: BodyModel, params: BodyParams) -> Float[Tensor, "*batch 58 3"]:
    """The joints of BODY58, in the frame of `params`; touches no vertex."""
    regressed = [model.regressed(params, skeleton) for skeleton in (COCO17, H36M17)]
    return torch.cat([*regressed, model.joints24(params)], dim=-2)


def placed(
    values: Float[Tensor, "*batch K D"], weights: Float[Tensor, "*batch K"], skeleton: Skeleton
) -> tuple[Float[Tensor, "*batch 58 D"], Float[Tensor, "*batch 58"]]:
    """Values of a skeleton's joints in the rows of BODY58, and their weights; 0 where a row is not known or unsure."""
    if values.shape[-2] != len(skeleton):
        raise ValueError(f"{skeleton.name} has {len(skeleton)} joints, the values have {values.shape[-2]}")
    rows, joints = _rows(skeleton)
    placed_values = values.new_zeros(*values.shape[:-2], len(BODY58), values.shape[-1])
    placed_weights = weights.new_zeros(*weights.shape[:-1], len(BODY58))
    placed_values[..., rows, :] = values[..., joints, :]
    placed_weights[..., rows] = weights[..., joints]
    return placed_values, placed_weights


@cache
def _rows(skeleton: Skeleton) -> tuple[Int[Tensor, "k"], Int[Tensor, "k"]]:
    """Rows of BODY58, and the joints of the skeleton that belong there."""
    if skeleton in OWN:
        names = {joint: row_name(joint, skeleton) for joint in skeleton.joints}
    else:
        names = {joint: NEAREST[joint] for joint in skeleton.joints if joint in NEAREST.keys() - UNSURE}
    return torch.tensor(BODY58.indices(*names.values())), torch.tensor(skeleton.indices(*names))
