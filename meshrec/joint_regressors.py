"""Joints of other skeletons from a body's surface: published regressors, and composed ones where there is none.

A regressor is a matrix (joints, V): its rows times the posed vertices are the joints. A composed row is a combination
of the rows of SMPL's own 24 joints and of single vertices, with weights that sum to one.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float

from meshrec.arrays import read_array
from meshrec.errors import MeshrecError
from meshrec.skeletons import COCO17, H36M17, MEDIAPIPE33, SMPL24, Skeleton
from meshrec.surface_points import SURFACE_POINTS

REGRESSED = (H36M17, COCO17, MEDIAPIPE33)
"""The skeletons that a body's surface is asked for."""

SURFACE_VERTICES = 6890
"""The bodies that `SURFACE_POINTS` numbers."""

MAX_OFFSET_M = 0.15
"""How far a published regressor may put a limb's joint from the body's own."""

ROW_SUM_TOLERANCE = 0.02
"""A row that sums to 0.98 moves a point one metre from the origin by two centimetres."""

UPWARDS = ("pelvis", "spine", "thorax", "face", "head_top")
"""Joints of the middle, from below, as far as a skeleton has them."""

Recipe = tuple[tuple[str, float], ...]
"""(SMPL24 joint or surface point, weight) pairs; the weights sum to one."""


def compose(skeleton: Skeleton, joint_regressor: Float[np.ndarray, "24 V"]) -> Float[np.ndarray, "K V"] | None:
    """A regressor of the skeleton out of SMPL's own joints and surface points; None for a body of other vertices."""
    if joint_regressor.shape[1] != SURFACE_VERTICES:
        return None
    return np.stack([_row(RECIPES.get(joint, ((joint, 1.0),)), joint_regressor) for joint in skeleton.joints])


def read_regressor(
    path: Path,
    skeleton: Skeleton,
    joints_m: Float[np.ndarray, "24 3"],
    template: Float[np.ndarray, "V 3"],
) -> tuple[Float[np.ndarray, "K V"], tuple[str, ...]]:
    """A published regressor (`.npy`) with its rows in the order of `skeleton`, and a note where they were not.

    Two orders of Human3.6M's legs are in circulation, left first and right first; on the template, which faces +z, the
    person's left is +x and tells them apart.
    """
    rows = _load(path, (len(skeleton), len(template)))
    order = _left_at_plus_x(skeleton, (rows @ template)[:, 0])
    rows = rows[order]
    _check_places(path, skeleton, rows @ template, joints_m)
    if order == list(range(len(skeleton))):
        return rows, ()
    return rows, (f"{path.name} names some left joints right; they were put in order by the template",)


def wrong_row_sum(rows: Float[np.ndarray, "K V"]) -> float | None:
    """The sum of the row that is farthest from summing to one, where that is too far."""
    sums = rows.sum(axis=1, dtype=np.float64)
    worst = float(sums[np.abs(sums - 1).argmax()])
    return worst if abs(worst - 1) > ROW_SUM_TOLERANCE else None


def _load(path: Path, shape: tuple[int, int]) -> np.ndarray:
    rows = read_array(path)
    if rows.shape != shape or rows.dtype.kind != "f":
        raise MeshrecError(
            f"{path} holds {rows.dtype} of {rows.shape}; a joint regressor of this body is floating-point of {shape}."
        )
    if not np.isfinite(rows).all():
        raise MeshrecError(f"{path} has {np.sum(~np.isfinite(rows))} values that are NaN or infinite.")
    if (wrong := wrong_row_sum(rows)) is not None:
        raise MeshrecError(f"{path}: a row sums to {wrong:.3f}; every row of a joint regressor must sum to 1.")
    return rows


def _left_at_plus_x(skeleton: Skeleton, across_m: np.ndarray) -> list[int]:
    """The order of rows in which every left joint lies at greater x than its mirror image."""
    order = list(range(len(skeleton)))
    for joint, other in enumerate(skeleton.mirror):
        is_left = skeleton.joints[joint].startswith("left_")
        if joint != other and (across_m[joint] > across_m[other]) != is_left:
            order[joint] = other
    return order


def _check_places(
    path: Path, skeleton: Skeleton, places_m: Float[np.ndarray, "K 3"], joints_m: Float[np.ndarray, "24 3"]
) -> None:
    """The limbs' joints must lie where the body's own joints do, those of the middle one above the other."""
    order = f"Its rows must be in the order of {skeleton.name}: {', '.join(skeleton.joints)}."
    for joint, place in zip(skeleton.joints, places_m, strict=True):
        if joint in SMPL24.joints and joint not in RECIPES:
            offset = float(np.linalg.norm(place - joints_m[SMPL24.index(joint)]))
            if offset > MAX_OFFSET_M:
                raise MeshrecError(f"{path}: its row for {joint} lands {offset:.2f} m from the body's own. {order}")
    middle = [joint for joint in UPWARDS if joint in skeleton.joints]
    heights_m = places_m[skeleton.indices(*middle), 1].tolist()
    for below, above in pairwise(zip(middle, heights_m, strict=True)):
        if below[1] >= above[1]:
            raise MeshrecError(f"{path}: its row for {above[0]} lands below that for {below[0]}. {order}")


def _row(recipe: Recipe, joint_regressor: Float[np.ndarray, "24 V"]) -> Float[np.ndarray, "V"]:
    row = np.zeros_like(joint_regressor[0])
    for source, weight in recipe:
        if source in SMPL24.joints:
            row += weight * joint_regressor[SMPL24.index(source)]
        else:
            row[SURFACE_POINTS[source]] += weight
    return row


def _side_recipes(side: str, other: str) -> dict[str, Recipe]:
    """Knuckles lie midway between the wrist and the fingertips, the mouth's corners below the nose."""
    knuckles = {
        f"{side}_{finger}": ((f"{side}_wrist", 0.5), (f"{side}_{finger}", 0.5))
        for finger in ("thumb", "index", "pinky")
    }
    return knuckles | {
        f"{side}_eye_inner": ((f"{side}_eye", 1.0),),
        f"{side}_eye_outer": ((f"{side}_eye", 1.0),),
        f"{side}_mouth": (("nose", 0.7), ("neck", 0.3), (f"{side}_eye", 0.4), (f"{other}_eye", -0.4)),
        f"{side}_foot_index": ((f"{side}_big_toe", 1.0),),
    }


MIDDLE: dict[str, Recipe] = {
    "pelvis": (("left_hip", 0.5), ("right_hip", 0.5)),
    "spine": (("spine2", 0.65), ("spine3", 0.35)),
    "thorax": (("neck", 1.0),),
    "face": (("head", 0.55), ("nose", 0.45)),
}
"""What photographs' joints of the middle are; the shipped body's regressors are made by it too."""

RECIPES = MIDDLE | _side_recipes("left", "right") | _side_recipes("right", "left")
"""Joints that are not a joint of SMPL24 or a surface point of the same name."""
