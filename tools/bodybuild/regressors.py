"""Joints as weighted means of the skin: non-negative rows that sum to one, mirror symmetric."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import nnls

from bodybuild.joints import KNUCKLES, split_side
from bodybuild.people import People
from bodybuild.poses import random_poses
from bodybuild.rig import Rig
from bodybuild.skinning import apply, forward_kinematics, joint_motions
from meshrec.joint_regressors import MIDDLE
from meshrec.skeletons import COCO17, H36M17, MEDIAPIPE33, SMPL24, Skeleton
from meshrec.surface_points import SURFACE_POINTS

BAND_M = {
    "hip": ("y", 0.08),
    "knee": ("y", 0.06),
    "ankle": ("y", 0.03),
    "foot": ("z", 0.03),
    "collar": ("x", 0.08),
    "shoulder": ("x", 0.06),
    "elbow": ("x", 0.05),
    "wrist": ("x", 0.02),
    "hand": ("x", 0.02),
    "head": ("y", 0.05),
    "neck": ("y", 0.05),
}
"""How far along which axis a joint's skin may lie from it; a joint that is not named takes 0.03 m along y."""

TRUNK = ("pelvis", "left_hip", "right_hip", "spine1", "spine2", "spine3", "left_collar", "right_collar")
REACH_M = 0.32
MOST_CANDIDATES = 320
FEWEST_CANDIDATES = 40
SCALP_M = 0.055
"""Radius of the skin around the top of the head."""

RIDGE = 1e-4
SUM_WEIGHT = 30.0
MEAN_WEIGHT = 2.5

Row = Float[np.ndarray, "V"]


@dataclass(frozen=True)
class Skin:
    """What the rows are chosen from: the mean body, its joints and weights, and how it mirrors."""

    template_m: Float[np.ndarray, "V 3"]
    joints_m: Float[np.ndarray, "24 3"]
    weights: Float[np.ndarray, "V 24"]
    mirror: Int[np.ndarray, "V"]

    def both_sides(self, row: Row) -> Row:
        """The row made symmetric."""
        return (row + row[self.mirror]) / 2

    def complete(self, rows: dict[str, Row]) -> dict[str, Row]:
        """The rows with those of the right side, mirror images of the left; rows of the middle made symmetric."""
        whole = {}
        for name, row in rows.items():
            whole[name] = row if name.startswith("left_") else self.both_sides(row)
            if name.startswith("left_"):
                whole[name.replace("left_", "right_")] = row[self.mirror]
        return whole


@dataclass(frozen=True)
class Moving:
    """A body that takes shapes and poses, as SMPL's files describe it."""

    skin: Skin
    directions_m: Float[np.ndarray, "V 3 K"]
    posedirs_m: Float[np.ndarray, "V 3 207"]
    regressor: Float[np.ndarray, "24 V"]


@dataclass(frozen=True)
class Posed:
    """Bodies of several shapes in several poses."""

    skin_m: Float[np.ndarray, "N V 3"]
    joints_m: Float[np.ndarray, "N 24 3"]

    def __getitem__(self, item: slice) -> "Posed":
        return Posed(self.skin_m[item], self.joints_m[item])


def fit_joint_regressor(skin: Skin, people: People) -> Float[np.ndarray, "24 V"]:
    """SMPL's joints from the skin of people in the T-pose."""
    names = [name for name in SMPL24.joints if not name.startswith("right_")]
    rows = {name: _fit_joint(skin, name, people.skin_m, people.joints_m) for name in names}
    return _stack(SMPL24, skin.complete(rows))


def posed_people(body: Moving, count: int, seed: int) -> Posed:
    """Random bodies in random poses, and their 24 joints; one in four keeps the T-pose."""
    rng = np.random.default_rng(seed)
    skins, joints = [], []
    for k, pose in enumerate(random_poses(count, seed)):
        shaped = body.skin.template_m + body.directions_m @ rng.normal(size=body.directions_m.shape[-1])
        centres = body.regressor @ shaped
        rotations = np.tile(np.eye(3), (len(SMPL24), 1, 1)) if k % 4 == 0 else pose
        corrected = shaped + body.posedirs_m @ (rotations[1:] - np.eye(3)).ravel()
        matrices, shifts = joint_motions(body.skin.weights, rotations, centres)
        skins.append((apply(matrices, corrected) + shifts).astype(np.float32))
        joints.append(forward_kinematics(rotations, centres)[1])
    return Posed(np.stack(skins), np.stack(joints))


def fit_named_rows(
    rig: Rig,
    skin: Skin,
    people: People,
    posed: Posed,
) -> dict[str, Row]:
    """Rows of every named joint that a skeleton of photographs may ask for.

    Joints are fitted to posed bodies, because a photograph shows those; points of face and hand, which move rigidly
    with their bone, to people in the T-pose.
    """
    kinds = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
    joints = ("spine2", "spine3", "neck", "head", *(f"left_{kind}" for kind in kinds))
    rows = {name: _fit_joint(skin, name, posed.skin_m, posed.joints_m) for name in joints}
    rows |= {name: _fit_point(skin, people, people.marks_m[:, k], "head") for k, name in _left_marks(rig)}
    for finger, bone in (("thumb", "finger1-2"), ("index", KNUCKLES[0]), ("pinky", KNUCKLES[-1])):
        knuckle = people.heads_m[:, rig.bone(f"{bone}.L")]
        rows[f"left_{finger}"] = _fit_point(skin, people, knuckle, "left_wrist", "left_hand")
    rows["left_heel"] = np.eye(1, len(skin.mirror), SURFACE_POINTS["left_heel"])[0]
    rows["left_foot_index"] = np.eye(1, len(skin.mirror), SURFACE_POINTS["left_big_toe"])[0]
    top = skin.template_m[SURFACE_POINTS["head_top"]]
    scalp = (np.linalg.norm(skin.template_m - top, axis=1) < SCALP_M).astype(float)
    rows["head_top"] = scalp / scalp.sum()
    whole = skin.complete(rows)
    for name, recipe in MIDDLE.items():
        whole[name] = np.sum([weight * whole[source] for source, weight in recipe], axis=0)
    return whole


def photograph_regressors(rows: Mapping[str, Row]) -> dict[str, Float[np.ndarray, "K V"]]:
    """Regressors of the skeletons of photographs, by the names of their joints."""
    return {skeleton.name: _stack(skeleton, rows) for skeleton in (H36M17, COCO17, MEDIAPIPE33)}


def row_errors_m(rows: Mapping[str, Row], posed: Posed) -> dict[str, float]:
    """Mean distance between rows and the joints of SMPL that they are named after; the left side stands for both."""
    names = [name for name in rows if name in SMPL24.joints and name != "pelvis" and not name.startswith("right_")]
    found = {name: np.einsum("v,nvc->nc", rows[name], posed.skin_m) for name in names}
    return {
        name: float(np.linalg.norm(points - posed.joints_m[:, SMPL24.index(name)], axis=-1).mean())
        for name, points in found.items()
    }


def _left_marks(rig: Rig) -> list[tuple[int, str]]:
    return [(k, name) for k, name in enumerate(rig.marks) if not name.startswith("right_")]


def _stack(skeleton: Skeleton, rows: Mapping[str, Row]) -> Float[np.ndarray, "J V"]:
    return np.stack([rows[name] for name in skeleton.joints])


def _fit_joint(skin: Skin, name: str, skin_m: Float[np.ndarray, "N V 3"], joints_m: Float[np.ndarray, "N 24 3"]) -> Row:
    return _fit(skin, _skin_around(skin, name), skin_m, joints_m[:, SMPL24.index(name)])


def _fit_point(skin: Skin, people: People, points_m: Float[np.ndarray, "N 3"], *parts: str) -> Row:
    """A point that moves with the skin of `parts`, from the vertices next to it."""
    distance = np.linalg.norm(skin.template_m - points_m.mean(0), axis=1)
    distance[skin.weights[:, SMPL24.indices(*parts)].sum(1) < 0.9] = np.inf
    return _fit(skin, np.sort(distance.argsort()[:FEWEST_CANDIDATES]), people.skin_m, points_m)


def _fit(
    skin: Skin, near: Int[np.ndarray, "K"], skin_m: Float[np.ndarray, "N V 3"], target_m: Float[np.ndarray, "N 3"]
) -> Row:
    """Non-negative least squares over the vertices `near`, exact for the mean person as far as can be."""
    people, middle = len(skin_m), target_m.mean(0)
    seen = (skin_m[:, near].astype(np.float64) - middle).transpose(0, 2, 1)
    mean = MEAN_WEIGHT * np.sqrt(people) * seen.mean(0)
    ridge = np.sqrt(RIDGE * people) * np.eye(len(near))
    system = np.concatenate([seen.reshape(-1, len(near)), mean, np.full((1, len(near)), SUM_WEIGHT), ridge])
    wanted = np.concatenate([(target_m - middle).ravel(), np.zeros(3), [SUM_WEIGHT], np.zeros(len(near))])
    shares, _ = nnls(system, wanted, maxiter=20 * len(near))
    shares[shares < 1e-4] = 0
    row = np.zeros(len(skin.mirror))
    row[near] = shares / shares.sum()
    return row


def _skin_around(skin: Skin, name: str) -> Int[np.ndarray, "K"]:
    """Vertices that a joint may be a mean of: a band of skin around it."""
    kind = split_side(name)[1]
    parent = SMPL24.joints[SMPL24.parents[SMPL24.index(name)]]
    parts = {"spine1": TRUNK, "spine2": TRUNK, "spine3": TRUNK, "pelvis": TRUNK}.get(name, (name, parent))
    if kind == "collar":
        parts = (name, parent, name.replace("collar", "shoulder"), "neck")
    axis, half_m = BAND_M.get(kind, ("y", 0.03))
    offset = skin.template_m - skin.joints_m[SMPL24.index(name)]
    within = (skin.weights[:, SMPL24.indices(*parts)].sum(1) > 0.5) & (np.linalg.norm(offset, axis=1) < REACH_M)
    along = np.abs(offset[:, "xyz".index(axis)])
    while (near := np.flatnonzero(within & (along < half_m))).size < FEWEST_CANDIDATES:
        half_m *= 1.4
    if len(near) > MOST_CANDIDATES:
        near = np.random.default_rng(SMPL24.index(name)).choice(near, MOST_CANDIDATES, replace=False)
    on_both_sides = name == SMPL24.joints[SMPL24.mirror[SMPL24.index(name)]]
    return np.unique(np.concatenate([near, skin.mirror[near]]) if on_both_sides else near)
