"""The `fit` branch: a body fitted to one person's keypoints, as Bogo et al. (SMPLify, 2016) but in one batched solve.

Every person starts from four directions, turned in the image as the torso is; the start that ends lowest wins.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.camera import camera_from_body_axes
from meshrec.minimize import MinimizeConfig, Minimum, minimize
from meshrec.objective import Objective, ObjectiveConfig, Observations
from meshrec.photo import Photo
from meshrec.skeletons import H36M17, SKELETONS, Skeleton, convert, visibility
from meshrec.translation import iterated_translation
from meshrec.types import BodyParams, Camera, Estimate, FitReport, Keypoints, Person, stack
from priors.pose import PosePrior


@dataclass(frozen=True)
class FitConfig:
    """How people are fitted."""

    noise_px: float | None = None
    """Standard deviation of the keypoints; by default a share of each person's size in the picture."""
    noise_share: float = 0.012
    """That share."""
    min_confidence: float = 0.3
    """Joints below it are marked as not seen."""
    least_weight: float = 0.2
    """What a doubtful keypoint still counts, if its confidence is not 0: a detector's guess beats a prior's."""
    betas: int = 10
    starts: int = 4
    scout_iterations: int = 8
    """After so many steps only the starts with a chance go on."""
    scout_margin: float = 40.0
    """A start has a chance if it is not worse than the best by more than this (nats)."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    minimize: MinimizeConfig = field(default_factory=MinimizeConfig)


class FitBranch:
    """Keypoints to `Estimate`, for any number of people at once."""

    name = "fit"

    def __init__(self, model: BodyModel, prior: PosePrior | None, config: FitConfig) -> None:
        self.model, self.prior, self.config = model, prior, config

    def __call__(self, photo: Photo, people: Sequence[Person], camera: Camera) -> Estimate:
        """Fit the people of a photograph; their keypoints are of one skeleton."""
        cameras = camera.map(lambda tensor: tensor.expand(len(people), *tensor.shape))
        return self.fit(stack([person.keypoints for person in people]), cameras)

    def fit(self, keypoints: Keypoints, camera: Camera) -> Estimate:
        """Fit N people, given `Keypoints` and `Camera` with one leading axis N."""
        skeleton = closest_skeleton(self.model, keypoints.skeleton)
        observations = self._observe(keypoints, camera, skeleton)
        objective = Objective(self.model, self.prior, skeleton, observations, self.config.objective)
        starts, solvable = self._starts(observations, camera, skeleton)
        best, start = self._race(objective, starts)
        return self._estimate(keypoints, camera, objective, best, start, solvable)

    def _observe(self, keypoints: Keypoints, camera: Camera, skeleton: Skeleton) -> Observations:
        """Keypoints in the skeleton of the body's regressor, and their noise."""
        dtype = self.model.template.dtype
        confidence = convert(keypoints.confidence[..., None], keypoints.skeleton, skeleton)[0][..., 0]
        seen = confidence > 0
        weight = torch.where(seen, confidence.clamp_min(self.config.least_weight), 0.0)
        xy_px = convert(keypoints.xy_px - camera.center_px[:, None], keypoints.skeleton, skeleton)[0]
        landmarks_m = torch.zeros_like(keypoints.xy_px[..., :1]).expand(-1, -1, 3)
        landmarks_m = landmarks_m if keypoints.landmarks_m is None else keypoints.landmarks_m
        return Observations(
            xy_px=torch.where(seen[..., None], xy_px, 0.0),
            weight=weight,
            noise_px=self._noise_px(xy_px, seen),
            focal_px=camera.focal_px,
            landmarks_m=convert(landmarks_m, keypoints.skeleton, skeleton)[0],
            landmark_weight=torch.zeros_like(weight) if keypoints.landmarks_m is None else weight,
        ).to(dtype)

    def _noise_px(self, xy: Float[Tensor, "N K 2"], seen: Bool[Tensor, "N K"]) -> Float[Tensor, "N"]:
        """As configured, or the share of the longer side of the box around the seen keypoints."""
        if self.config.noise_px is not None:
            return torch.full_like(xy[:, 0, 0], self.config.noise_px)
        low = torch.where(seen[..., None], xy, torch.inf).amin(dim=1)
        high = torch.where(seen[..., None], xy, -torch.inf).amax(dim=1)
        return (self.config.noise_share * (high - low).amax(dim=-1)).clamp_min(0.5)

    def _starts(
        self, observations: Observations, camera: Camera, skeleton: Skeleton
    ) -> tuple[BodyParams, Bool[Tensor, "N"]]:
        """The mean pose towards several directions, S x N; and for whom a translation could be found at all."""
        people = len(observations.xy_px)
        upright = self._upright(observations, skeleton)
        yaw_rad = torch.arange(self.config.starts) * (2 * math.pi / self.config.starts)
        turn = roma.rotvec_to_rotmat(yaw_rad[:, None] * torch.tensor([0.0, 1.0, 0.0])).to(upright)
        batch = (self.config.starts, people)
        rest = torch.eye(3).expand(23, 3, 3) if self.prior is None else self.prior.mean_rotations
        params = BodyParams(
            root=upright @ turn[:, None],
            pose=rest.to(upright).expand(*batch, 23, 3, 3),
            betas=upright.new_zeros(*batch, self.config.betas),
            transl_m=upright.new_zeros(*batch, 3),
        )
        joints = self.model.regressed(params, skeleton)
        xy_px = observations.xy_px + camera.center_px.to(upright)[:, None]
        solved = iterated_translation(
            joints, xy_px.expand(*batch, -1, -1), observations.weight.expand(*batch, -1), camera.to(upright.dtype)
        )
        return replace(params, transl_m=solved.transl_m), solved.ok.any(dim=0)

    def _upright(self, observations: Observations, skeleton: Skeleton) -> Float[Tensor, "N 3 3"]:
        """Facing the camera, turned in the image so that the torso points where the seen torso does.

        An unseen torso is taken for upright.
        """
        middle = {}
        for part in ("shoulder", "hip"):
            pair = skeleton.indices(f"left_{part}", f"right_{part}")
            weight = observations.weight[:, pair, None]
            middle[part] = (weight * observations.xy_px[:, pair]).sum(1) / weight.sum(1).clamp_min(1e-6)
            middle[part + "_seen"] = (weight > 0).any(dim=1)[:, 0]
        up = middle["shoulder"] - middle["hip"]
        up = torch.where((middle["shoulder_seen"] & middle["hip_seen"])[:, None], up, up.new_tensor([0.0, -1.0]))
        lean_rad = torch.atan2(up[:, 0], -up[:, 1])
        roll = roma.rotvec_to_rotmat(lean_rad[:, None] * up.new_tensor([0.0, 0.0, 1.0]))
        return roll @ camera_from_body_axes().to(roll)

    def _race(self, objective: Objective, starts: BodyParams) -> tuple[Minimum, Int[Tensor, "N"]]:
        """Scout every start, go on with the promising ones, and keep each person's best."""
        count, people = starts.transl_m.shape[:2]
        person = torch.arange(people).repeat(count)
        scouting = replace(self.config.minimize, iterations=self.config.scout_iterations)
        scouted = minimize(objective.of(person), starts.map(lambda tensor: tensor.flatten(0, 1)), scouting)
        cost = scouted.terms.total.unflatten(0, (count, people))
        promising = (cost <= cost.amin(dim=0) + self.config.scout_margin).flatten().nonzero()[:, 0]
        final = minimize(objective.of(person[promising]), scouted.params[promising], self.config.minimize)
        cost = torch.full_like(cost, torch.inf).flatten().index_copy(0, promising, final.terms.total)
        start = cost.unflatten(0, (count, people)).argmin(dim=0)
        place = torch.full((count * people,), -1).index_copy(0, promising, torch.arange(len(promising)))
        winner = place[start * people + torch.arange(people)]
        return final[winner], start

    def _estimate(
        self,
        keypoints: Keypoints,
        camera: Camera,
        objective: Objective,
        best: Minimum,
        start: Int[Tensor, "N"],
        solvable: Bool[Tensor, "N"],
    ) -> Estimate:
        params = best.params
        joints17 = self.model.regressed(params, H36M17)
        confidence = visibility(keypoints.confidence, keypoints.skeleton, H36M17)
        return Estimate(
            branch=self.name,
            joints17_m=joints17 - joints17[:, :1],
            confidence=confidence,
            seen=confidence >= self.config.min_confidence,
            root_m=joints17[:, 0],
            params=params,
            body=self.model(params),
            camera=camera,
            report=FitReport(
                keypoints=best.terms.keypoints,
                landmarks=best.terms.landmarks,
                prior=best.terms.prior,
                shape=best.terms.shape,
                reprojection_px=objective.reprojection_px(params),
                plausibility=torch.full_like(best.terms.prior, torch.nan)
                if self.prior is None
                else self.prior.score(params.pose),
                start=start,
                iterations=best.iterations,
                converged=best.converged,
                solvable=solvable,
            ),
        )


def closest_skeleton(model: BodyModel, skeleton: Skeleton) -> Skeleton:
    """The skeleton itself where the body has a regressor for it, else the one that shares most joint names."""
    if skeleton.name in model.regressors:
        return skeleton
    known = [SKELETONS[name] for name in model.regressors]
    return max(known, key=lambda other: len(set(other.joints) & set(skeleton.joints)))
