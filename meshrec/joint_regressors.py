"""Joints of other skeletons from a body's surface: published regressors, and composed ones where there is none.

A regressor is a matrix (joints, V): its rows times the posed vertices are the joints. A composed row is a combination
of the rows of SMPL's own 24 joints and of single vertices, with weights that sum to one.
"""

import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float

from meshrec.errors import MeshrecError
from meshrec.skeletons import COCO17, H36M17, MEDIAPIPE33, SMPL24, Skeleton
from meshrec.surface_points import SURFACE_POINTS

REGRESSED = (H36M17, COCO17, MEDIAPIPE33)
"""The skeletons that a body's surface is asked for."""

SURFACE_VERTICES = 6890
"""The bodies that `SURFACE_POINTS` numbers."""

MAX_OFFSET_M = 0.15
"""How far a published regressor may put a limb's joint from the body's own."""

UNREADABLE = (zipfile.BadZipFile, EOFError, LookupError, MemoryError, OverflowError, TypeError, ValueError)

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


def _load(path: Path, shape: tuple[int, int]) -> np.ndarray:
    try:
        rows = np.load(path, allow_pickle=False)
    except OSError as error:
        raise MeshrecError(f"Cannot read {path}: {error.strerror or error}.") from error
    except UNREADABLE as error:
        raise MeshrecError(f"{path} is no plain .npy array ({error}). Download it again.") from error
    if not isinstance(rows, np.ndarray) or rows.shape != shape or rows.dtype.kind != "f":
        found = f"{rows.dtype} of {rows.shape}" if isinstance(rows, np.ndarray) else "an archive"
        raise MeshrecError(f"{path} holds {found}; a joint regressor of this body is floating-point of {shape}.")
    if not np.isfinite(rows).all():
        raise MeshrecError(f"{path} has {np.sum(~np.isfinite(rows))} values that are NaN or infinite.")
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
    """The limbs' joints must lie where the body's own joints do."""
    for joint, place in zip(skeleton.joints, places_m, strict=True):
        if joint in SMPL24.joints and joint not in RECIPES:
            offset = float(np.linalg.norm(place - joints_m[SMPL24.index(joint)]))
            if offset > MAX_OFFSET_M:
                raise MeshrecError(
                    f"{path}: its row for {joint} lands {offset:.2f} m from the body's own. Its rows must be in the "
                    f"order of {skeleton.name}: {', '.join(skeleton.joints)}."
                )


def _row(recipe: Recipe, joint_regressor: Float[np.ndarray, "24 V"]) -> Float[np.ndarray, "V"]:
    row = np.zeros_like(joint_regressor[0])
    for source, weight in recipe:
        if source in SMPL24.joints:
            row += weight * joint_regressor[SMPL24.index(source)]
        else:
            row[SURFACE_POINTS[source]] += weight
    return row


def _between(one: str, other: str) -> Recipe:
    return ((one, 0.5), (other, 0.5))


def _side_recipes(side: str, other: str) -> dict[str, Recipe]:
    """Knuckles lie midway between the wrist and the fingertips, the mouth's corners below the nose."""
    return {
        f"{side}_eye_inner": ((f"{side}_eye", 1.0),),
        f"{side}_eye_outer": ((f"{side}_eye", 1.0),),
        f"{side}_mouth": (("nose", 0.7), ("neck", 0.3), (f"{side}_eye", 0.4), (f"{other}_eye", -0.4)),
        **{f"{side}_{finger}": _between(f"{side}_wrist", f"{side}_{finger}") for finger in ("thumb", "index", "pinky")},
        f"{side}_foot_index": ((f"{side}_big_toe", 1.0),),
    }


RECIPES: dict[str, Recipe] = {
    "pelvis": _between("left_hip", "right_hip"),
    "spine": _between("spine2", "spine3"),
    "thorax": (("neck", 1.0),),
    "face": _between("head", "nose"),
    **_side_recipes("left", "right"),
    **_side_recipes("right", "left"),
}
"""Joints that are not a joint of SMPL24 or a surface point of the same name."""
