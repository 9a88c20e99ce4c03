"""What a mesh regressor learns from: one number for each person, which is 0 where the person teaches nothing of it.

Terms and weights are those of SPIN (Kolotouros et al., ICCV 2019) and PARE (Kocabas et al., ICCV 2021). They divide by
the examples that know a quantity; here each term is the mean over all examples, so that shares of a batch add up, and
the weight of a data set is its share of the mix.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from meshrec.body import BodyModel
from meshrec.config import require_range
from meshrec.data.body_joints import body_joints
from meshrec.kinematics import pose_features
from meshrec.losses import body_part_alignment, keypoint_alignment
from meshrec.models.regressor import Regressed
from meshrec.part_masks import part_masks
from meshrec.skin_points import skin_points
from meshrec.train.mesh_lesson import Lesson, about_hips
from meshrec.types import BodyParams, Camera
from meshrec.weak_perspective import CROP_FOCAL_AT_PX, CROP_FOCAL_PX
from priors.prior import Prior

FOCAL = 2 * CROP_FOCAL_PX / CROP_FOCAL_AT_PX
"""Focal length of the crop's camera where the crop goes from -1 to 1."""

STEEP = 20.0
"""Of the camera term: (exp(-10 s))^2."""

USUAL_ENERGY = 34.5
"""Nats: half the squared length of 69 standard normal numbers, which is what a real pose's energy is about."""

POINTS_OF_PART = 16
"""Points of each part's skin that are compared with the true body's, or with pictures of the parts."""

Norm = Literal["mse", "l1"]


@dataclass(frozen=True)
class MeshLosses:
    """What each term counts; 0 leaves it out. The defaults are end to end: 5, 1 and 0.001, no part supervision."""

    joints: float = 5.0
    """Of the 3D joints about the middle of the hips, m^2: the mean over coordinates of the known joints."""
    points: float = 5.0
    """Of the 2D joints by the network's own camera, in half crops squared, times the confidence of each."""
    norm: Literal["mse", "l1"] = "mse"
    """Of joints, points and skin: the square of a coordinate's error, as SPIN and PARE have it, or its size."""
    skin: float = 0.0
    """Of points on the skin about the pelvis, m^2, of people whose body is known whole: the mean over coordinates."""
    pose: float = 1.0
    """Of the 24 rotation matrices' entries, squared."""
    shape: float = 0.001
    """Of the 10 betas, squared."""
    camera: float = 1.0
    """Of exp(-10 s)^2, which keeps the camera's scale s above 0 and is nothing where it is."""
    parts: float = 0.0
    """Of the part maps' cross-entropy with pictures of the true bodies' parts, nats a pixel."""
    parts_until: int = 0
    """The step from which parts are no longer taught; 0: taught to the end."""
    parts_px: int = 0
    """Side of these pictures, to which the maps are scaled up; 0: the crop's."""
    prior: float = 0.0
    """Of log(1 + E / 34.5), E being the pose prior's energy of the predicted pose in nats."""
    keypoint_alignment: float = 0.0
    """Of KA (`meshrec.losses`), in half crops: the 2D joints whatever the network's camera is."""
    part_alignment: float = 0.0
    """Of BA (`meshrec.losses`), nats: the skin's points against the same pictures of parts."""
    scale: float = 1.0
    """Of everything; the published recipe has 60."""

    def __post_init__(self) -> None:
        numbers = [name for name in self.__dataclass_fields__ if name != "norm"]
        require_range(self, **dict.fromkeys(numbers, (0, math.inf)))
        require_range(self, parts_px=(0, 1024))

    def labels_px(self, step: int, crop_px: int) -> int:
        """How wide pictures of the parts are needed at a step; 0 where none are."""
        asked = self.part_alignment > 0 or self.teaches_parts(step)
        return (self.parts_px or crop_px) if asked else 0

    def teaches_parts(self, step: int) -> bool:
        """Whether parts are taught at a step."""
        return self.parts > 0 and (not self.parts_until or step < self.parts_until)


class MeshCriterion(nn.Module):
    """The terms of a body model, and of a pose prior where one is asked."""

    def __init__(self, weights: MeshLosses, model: BodyModel, prior: Prior | None = None) -> None:
        super().__init__()
        if weights.prior and prior is None:
            raise ValueError(f"losses.prior is {weights.prior}, and there is no pose prior")
        self.weights, self.model, self.prior = weights, model, prior
        self.skin = skin_points(model, POINTS_OF_PART) if weights.part_alignment or weights.skin else None

    def forward(self, said: Regressed, lesson: Lesson, step: int) -> dict[str, Float[Tensor, "n"]]:
        """Every term that ever counts, times its weight at this step; one number for each person."""
        weights = self.weights
        params = BodyParams.from_rotations(said.rotations, said.betas, torch.zeros_like(said.weak))
        joints = body_joints(self.model, params)
        points, sizes = on_crop(joints, said.weak), weights.norm
        table: dict[str, Callable[[], Tensor]] = {
            "joints": lambda: off(about_hips(joints, lesson.middle), lesson.joints_m, lesson.joints_weight, sizes),
            "points": lambda: off(points, lesson.points, lesson.points_weight, sizes),
            "skin": lambda: self._off_skin(params, lesson),
            "pose": lambda: lesson.posed * (said.rotations - lesson.rotations).square().mean((-3, -2, -1)),
            "shape": lambda: lesson.shaped * (said.betas - lesson.betas).square().mean(-1),
            "camera": lambda: behind(said.weak[..., 0]),
            "parts": lambda: self._mislabelled(said.part_logits, lesson, step),
            "prior": lambda: self._implausible(said.rotations),
            "keypoint_alignment": lambda: misplaced(joints, lesson),
            "part_alignment": lambda: self._misaligned(params, said.weak, lesson),
        }
        counts = {name: weights.scale * getattr(weights, name) for name in table}
        return {name: counts[name] * term() for name, term in table.items() if counts[name]}

    def _mislabelled(self, logits: Float[Tensor, "n C h w"], lesson: Lesson, step: int) -> Float[Tensor, "n"]:
        """0 where there is no picture of the parts, and when they are no longer taught."""
        if not self.weights.teaches_parts(step):
            return logits.new_zeros(len(logits))
        assert lesson.labels is not None and lesson.labelled is not None
        return lesson.labelled * mislabelled(logits, lesson.labels)

    def _implausible(self, rotations: Float[Tensor, "n 24 3 3"]) -> Float[Tensor, "n"]:
        """The prior's energy, slowly: its slope falls where a pose is none yet, as a network's first answers are."""
        assert self.prior is not None
        return (self.prior.energy(rotations[..., 1:, :, :]) / USUAL_ENERGY).log1p()

    def _off_skin(self, params: BodyParams, lesson: Lesson) -> Float[Tensor, "n"]:
        """What the skin is off by; 0 where the body is not known whole."""
        known = lesson.posed & lesson.shaped
        with torch.no_grad():
            true = BodyParams.from_rotations(lesson.rotations, lesson.betas, torch.zeros_like(params.transl_m))
            wanted = self._skin_about_pelvis(true)
        weight = known[:, None].expand(wanted.shape[:2]).to(wanted.dtype)
        return off(self._skin_about_pelvis(params), wanted, weight, self.weights.norm)

    def _skin_about_pelvis(self, params: BodyParams) -> Float[Tensor, "n P 3"]:
        assert self.skin is not None
        tree = self.model.kinematics(params)
        points_m = self.skin.posed(tree, params.betas, pose_features(params.rotations)).points_m
        return points_m.flatten(1, 2) - tree.joints_m[:, :1]

    def _misaligned(self, params: BodyParams, weak: Float[Tensor, "n 3"], lesson: Lesson) -> Float[Tensor, "n"]:
        """BA of the skin's points and the pictures of parts; 0 where there is no picture, NaN for no finite answer."""
        assert self.skin is not None and lesson.labels is not None and lesson.labelled is not None
        posed = self.skin.posed(self.model.kinematics(params), params.betas, pose_features(params.rotations))
        depth_m = torch.cat([weak[:, 1:], FOCAL / weak[:, :1]], dim=-1)
        size_px = lesson.labels.shape[-1]
        xy = on_crop(posed.points_m.flatten(1, 2), weak).unflatten(1, posed.points_m.shape[1:3])
        finite = xy.isfinite().flatten(1).all(1)
        xy_px = torch.where(finite[:, None, None, None], (xy + 1) * size_px / 2, 0.0)
        energy = body_part_alignment(xy_px, posed.facing(depth_m.detach()), part_masks(lesson.labels - 1))
        return torch.where(lesson.labelled, torch.where(finite, energy, torch.nan), 0.0)


def on_crop(points_m: Float[Tensor, "*batch K 3"], weak: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch K 2"]:
    """`crop_project` on a crop that goes from -1 to 1, without its division by s: s (X + tx) / (1 + s Z / F).

    So a network whose s passes through 0 learns on.
    """
    scale = weak[..., None, :1]
    return scale * (points_m[..., :2] + weak[..., None, 1:]) / (1 + scale * points_m[..., 2:] / FOCAL)


def off(
    found: Float[Tensor, "*batch K D"],
    wanted: Float[Tensor, "*batch K D"],
    weight: Float[Tensor, "*batch K"],
    norm: Norm,
) -> Float[Tensor, "*batch"]:
    """What known joints are off by, times their weights: the mean over their coordinates; 0 where none is known."""
    difference = found - wanted
    size = (difference.square() if norm == "mse" else difference.abs()).mean(-1)
    return (weight * size).sum(-1) / (weight > 0).sum(-1).clamp_min(1)


def behind(scale: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """exp(-10 s)^2, and below 0, where it would soon be infinite, its tangent there."""
    return torch.where(scale > 0, (-STEEP * scale.clamp_min(0)).exp(), 1 - STEEP * scale)


def mislabelled(logits: Float[Tensor, "n C h w"], labels: Int[Tensor, "n H W"]) -> Float[Tensor, "n"]:
    """Cross-entropy of maps, scaled up, in nats: the mean over pixels."""
    large = interpolate(logits, labels.shape[-2:], mode="bilinear")
    return cross_entropy(large, labels.long(), reduction="none").mean((-2, -1))


def misplaced(joints_m: Float[Tensor, "*batch 58 3"], lesson: Lesson) -> Float[Tensor, "*batch"]:
    """KA of the joints by the crop's camera, in half crops."""
    focal = torch.full_like(lesson.points_weight[..., 0], FOCAL)
    camera = Camera(focal, torch.zeros_like(lesson.points[..., 0, :]), 2, 2, "assumed")
    return keypoint_alignment(joints_m, lesson.points, lesson.points_weight, camera)
