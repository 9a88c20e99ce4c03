"""A sample of adults, and the pose they all take: SMPL's T-pose."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from bodybuild.joints import KNUCKLES, joint_centres
from bodybuild.rig import Rig
from bodybuild.skinning import apply, blend_skin, rotation, shortest

PELVIS_M = np.array([0.0, -0.23, 0.03])
"""Where the pelvis of every person stands."""

CLAVICLE_UP_RAD = np.deg2rad(14.0)
LEGS_OUT_RAD = np.deg2rad(2.5)
FOREARM_TWIST = {"lowerarm01": 0.35, "lowerarm02": 0.8}
"""How much of the turn that lays the palm down each bone of the forearm takes; the hand takes it all."""

ADULT_AGES = (18.0, 65.0)
LIMBS = ("arm", "upperarm", "lowerarm", "leg", "upperleg", "lowerleg", "foot", "hand")
TRUNK = ("torso", "hip", "buttocks", "neck", "stomach-tone", "stomach-navel", "head-scale", "head-fat", "measure")
LOCAL_SPREAD = 0.12
"""Standard deviation of each local change of the body (longer forearms, wider feet, ...), within [-1, 1]."""


@dataclass(frozen=True)
class People:
    """People in the T-pose, with the pelvis where SMPL's stands."""

    skin_m: Float[np.ndarray, "N V 3"]
    joints_m: Float[np.ndarray, "N 24 3"]
    heads_m: Float[np.ndarray, "N B 3"]
    marks_m: Float[np.ndarray, "N K 3"]

    def __getitem__(self, item: slice) -> "People":
        return People(self.skin_m[item], self.joints_m[item], self.heads_m[item], self.marks_m[item])


def sample_builds(rig: Rig, count: int, seed: int) -> Float[np.ndarray, "N C"]:
    """Adults whose every trait is bell-shaped between MakeHuman's extremes, heights as in anny's calibration.

    anny's own distribution has two sexes and many people at the extremes of weight and muscle, so that a person at
    three standard deviations lies far outside of what MakeHuman can draw. Here three deviations stay near its extremes.
    """
    rng = np.random.default_rng(seed)
    gender = rng.beta(1.3, 1.3, count)
    races = rng.dirichlet((1.5, 1.5, 1.5), count)
    traits = {
        "gender": gender,
        "age": _anny_age(rig, rng.uniform(*ADULT_AGES, count)),
        "height": (1 - gender) * rng.beta(16.5, 25.66, count) + gender * rng.beta(13.68, 25.75, count),
        "weight": rng.beta(1.1, 1.1, count),
        "muscle": rng.beta(2, 2, count),
        **{trait: rng.beta(3, 3, count) for trait in ("proportions", "cupsize", "firmness")},
        **dict(zip(("african", "asian", "caucasian"), races.T, strict=True)),
    }
    return _builds(rig, traits, _local_changes(rig, rng, count))


def sample_calibrated_builds(rig: Rig, count: int, seed: int) -> Float[np.ndarray, "N C"]:
    """Men and women of anny's own distribution, calibrated on measured populations: to test against, not to fit."""
    from anny.shape_distribution import SimpleShapeDistribution

    def tensor(value: float) -> torch.Tensor:
        return torch.tensor(value, dtype=torch.float64)

    distribution = SimpleShapeDistribution(
        rig.model,
        torch.distributions.Uniform(tensor(ADULT_AGES[0]), tensor(ADULT_AGES[1])),
        torch.distributions.Bernoulli(probs=tensor(0.5)),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _, traits = distribution.sample(count)
    changes = _local_changes(rig, np.random.default_rng(seed), count)
    return _builds(rig, {name: value.numpy() for name, value in traits.items()}, changes)


def in_t_pose(rig: Rig, builds: Float[np.ndarray, "N C"]) -> People:
    """People of these builds in SMPL's T-pose."""
    rest, marks = rig.heads(builds), rig.face(builds)
    rotations, heads = t_pose(rig, rest)
    shift = PELVIS_M - joint_centres(rig, heads)[:, 0]
    heads = heads + shift[:, None]
    skin = np.stack([skinned(rig, *pose) for pose in zip(rig.skin(builds), rotations, rest, heads, strict=True)])
    head = rig.bone("head")
    marks = marks + (heads - rest)[:, head, None]
    return People(skin.astype(np.float32), joint_centres(rig, heads), heads, marks)


def t_pose(
    rig: Rig, heads_m: Float[np.ndarray, "N B 3"]
) -> tuple[Float[np.ndarray, "N B 3 3"], Float[np.ndarray, "N B 3"]]:
    """Rotations of the bones from MakeHuman's rest to the T-pose, and where their heads then are."""
    turned = _turn_side(rig, heads_m, ".L", 1.0) | _turn_side(rig, heads_m, ".R", -1.0)
    rotations = np.tile(np.eye(3), (*heads_m.shape[:2], 1, 1))
    moved = heads_m.copy()
    for bone, (name, parent) in enumerate(zip(rig.bones, rig.parents, strict=True)):
        if parent < 0:
            continue
        rotations[:, bone] = turned.get(name, rotations[:, parent])
        offset = heads_m[:, bone] - heads_m[:, parent]
        moved[:, bone] = moved[:, parent] + apply(rotations[:, parent], offset)
    return rotations, moved


def skinned(
    rig: Rig,
    skin_m: Float[np.ndarray, "V 3"],
    rotations: Float[np.ndarray, "B 3 3"],
    heads_m: Float[np.ndarray, "B 3"],
    moved_m: Float[np.ndarray, "B 3"],
) -> Float[np.ndarray, "V 3"]:
    """Skin after every bone turned about its head and its head moved: half linear, half dual-quaternion blending.

    Linear blending alone collapses a bent elbow, dual quaternions alone let it bulge (Kavan et al. 2008).
    """
    return blend_skin(rig.weights, skin_m, rotations, moved_m - apply(rotations, heads_m), rig.parents)


def _turn_side(rig: Rig, heads_m: Float[np.ndarray, "N B 3"], side: str, sign: float) -> dict[str, np.ndarray]:
    """Rotations of one side's limbs: clavicle raised, arm along x with the palm down, leg a little outward."""

    def head(bone: str) -> np.ndarray:
        return heads_m[:, rig.bone(bone + side)]

    out = np.array([sign, 0.0, 0.0])
    upper = shortest(head("lowerarm01") - head("upperarm01"), out)
    fore = shortest(apply(upper, head("wrist") - head("lowerarm01")), out) @ upper
    knuckles = np.mean([head(bone) for bone in KNUCKLES], axis=0)
    hand = shortest(apply(fore, knuckles - head("wrist")), out) @ fore
    across = apply(hand, head("finger2-1") - head("finger5-1"))
    palm_down = np.arctan2(across[:, 1], across[:, 2])[:, None] * np.array([1.0, 0.0, 0.0])
    leg = head("foot") - head("upperleg01")
    straddle = leg.copy()
    straddle[:, 0] = sign * np.tan(LEGS_OUT_RAD) * np.abs(leg[:, 1])
    turned = {
        "clavicle": np.broadcast_to(rotation(np.array([0.0, 0.0, sign * CLAVICLE_UP_RAD])), upper.shape),
        "upperarm01": upper,
        **{bone: rotation(share * palm_down) @ fore for bone, share in FOREARM_TWIST.items()},
        "wrist": rotation(palm_down) @ hand,
        "upperleg01": shortest(leg, straddle),
        "foot": np.broadcast_to(np.eye(3), upper.shape),
    }
    return {bone + side: matrix for bone, matrix in turned.items()}


def _anny_age(rig: Rig, years: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """anny's measure of age (-1/3 newborn, 2/3 young, 1 old) of people of these years."""
    from anny.shape_distribution import SimpleShapeDistribution

    mapping = SimpleShapeDistribution(rig.model).morphological_age_mapping
    return mapping.morphological_to_anny_age(torch.from_numpy(years)).numpy()


def _local_changes(rig: Rig, rng: np.random.Generator, count: int) -> dict[str, torch.Tensor]:
    """Small changes of parts of the body, the same on both sides."""
    changes = {}
    for label in rig.model.local_change_labels:  # type: ignore[attr-defined]
        part = label.removeprefix("l-")
        if label.startswith("r-") or not part.startswith(LIMBS + TRUNK) or "pregnant" in part or "trans" in part:
            continue
        changes[label] = torch.from_numpy(np.clip(rng.normal(0, LOCAL_SPREAD, count), -1, 1))
        if part != label:
            changes[f"r-{part}"] = changes[label]
    return changes


def _builds(rig: Rig, traits: dict[str, np.ndarray], changes: dict[str, torch.Tensor]) -> Float[np.ndarray, "N C"]:
    phenotypes = {name: torch.from_numpy(np.asarray(value, dtype=np.float64)) for name, value in traits.items()}
    model = rig.model
    return model.get_phenotype_blendshape_coefficients(**phenotypes, local_changes=changes).numpy()  # type: ignore
