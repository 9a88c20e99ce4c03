"""The `fit` branch: a body fitted to one person's keypoints, as Bogo et al. (SMPLify, 2016) but in one batched solve.

Where the parts of the person are seen too, their masks can be fitted as well.

Every person starts from four directions, turned in the image as the torso is; the start that ends lowest wins. Or the
fit goes on from a body that another branch found, which counts as evidence: clear keypoints correct it, and what they
do not show stays as it was.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.branches.estimate import estimate_of
from meshrec.camera import camera_from_body_axes
from meshrec.config import require_range
from meshrec.errors import MeshrecError
from meshrec.keypoints import SEEN_CONFIDENCE
from meshrec.minimize import MinimizeConfig, Minimum, minimize
from meshrec.objective import Objective, ObjectiveConfig, Observations, PartSight, Start
from meshrec.part_alignment import NOISE_SHARE, PartEvidence
from meshrec.part_masks import PartMasks
from meshrec.photo import Photo
from meshrec.skeletons import H36M17, SKELETONS, SMPL24, Skeleton, convert, visibility
from meshrec.skin_points import SkinPoints, skin_points
from meshrec.translation import iterated_translation
from meshrec.types import BodyParams, Camera, Estimate, FitReport, Keypoints, Person, stack
from priors.prior import Prior

FEWEST_JOINTS = 2
"""With fewer joints no translation can be found."""

PEOPLE_FOR_THREADS = 32
"""From so many people on, several threads solve faster than one."""

LEAST_NOISE_PX = 0.5
"""No detector is better than this."""

LEAST_SPREAD = 1e-4
"""No start is as good as this."""

GIVEN_START = -1
"""The start in the report of a fit that went on from a given body."""


@dataclass(frozen=True)
class FitConfig:
    """How people are fitted."""

    noise_px: float | None = None
    """Standard deviation of the keypoints; by default a share of each person's size in the picture."""
    noise_share: float = 0.01
    """That share."""
    part_noise_share: float = NOISE_SHARE
    """Standard deviation of the borders of part masks, as a share of the person's size in the picture."""
    points_of_part: int = 12
    """So many vertices stand for the skin of each of the 24 parts."""
    min_confidence: float = SEEN_CONFIDENCE
    """Joints below it are marked as not seen."""
    least_weight: float = 0.2
    """What a doubtful keypoint still counts, if its confidence is not 0: a detector's guess beats a prior's."""
    scepticism: float = 1.0
    """A keypoint counts as this power of its confidence."""
    betas: int = 10
    starts: int = 4
    scout_iterations: int = 8
    """After so many steps only the starts with a chance go on."""
    scout_margin: float = 40.0
    """A start has a chance if it is not worse than the best by more than this (nats)."""
    start_spread_rad: float = 0.08
    """How far a body that the fit goes on from may be wrong: the standard deviation of each joint's rotation about each
    axis, radians. Infinity: such a body is a start and no more."""
    start_root_spread_rad: float = 0.1
    """The same of its root."""
    start_betas_spread: float = 0.5
    """The same of each of its betas, in standard deviations of the shape space."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    minimize: MinimizeConfig = field(default_factory=MinimizeConfig)

    def __post_init__(self) -> None:
        spreads = ("start_spread_rad", "start_root_spread_rad", "start_betas_spread")
        require_range(self, scepticism=(0, 100), **dict.fromkeys(spreads, (LEAST_SPREAD, math.inf)))


class FitBranch:
    """Keypoints to `Estimate`, for any number of people at once."""

    name = "fit"

    def __init__(self, model: BodyModel, prior: Prior | None, config: FitConfig) -> None:
        if H36M17.name not in model.regressors:
            raise MeshrecError(
                f"The body {model.file.name!r} has no H36M-17 joint regressor, and none can be composed for its "
                f"{len(model.weights)} vertices; give one with `meshrec assets add FILE --h36m J_regressor_h36m.npy`."
            )
        self.model, self.prior, self.config = model, prior, config

    def __call__(self, photo: Photo, people: Sequence[Person], camera: Camera) -> Estimate:
        """Fit the people of a photograph; their keypoints are of one skeleton."""
        cameras = camera.map(lambda tensor: tensor.expand(len(people), *tensor.shape))
        return self.fit(stack([person.keypoints for person in people]), cameras)

    def fit(
        self, keypoints: Keypoints, camera: Camera, parts: PartMasks | None = None, start: BodyParams | None = None
    ) -> Estimate:
        """Fit N people, given nouns with one leading axis N, on the device of the body model.

        Joints whose place is not finite count as not seen. `parts` are the part masks of the same people. The fit goes
        on from the bodies `start`, placed anew, and is pulled to them; without them it tries the starts of its own.
        """
        like = self.model.template
        keypoints, camera = only_finite(keypoints.to(like.device, like.dtype)), camera.to(like.device, like.dtype)
        skeleton = closest_skeleton(self.model, keypoints.skeleton)
        sighting = self._sight(keypoints, camera, skeleton)
        seen, masks = sighting.observations, None if parts is None else self._sight_parts(parts, camera)
        start = None if start is None else start.to(like.device, like.dtype)
        pull = None if start is None else self._pull(start)
        objective = Objective(self.model, self.prior, skeleton, seen, self.config.objective, masks, pull)
        begins = self._starts(seen, skeleton) if start is None else start[None]
        starts, solvable = self._placed(begins, seen, camera, skeleton)
        with _threads_for(len(solvable)):
            best, winner = self._race(objective, starts)
        report = FitReport(
            terms=best.terms,
            reprojection_px=masked_median(objective.reprojection_px(best.params), sighting.sure),
            plausibility=self._plausibility(best.params),
            start=winner if start is None else torch.full_like(winner, GIVEN_START),
            iterations=best.iterations,
            converged=best.converged,
            solvable=solvable & best.terms.total.isfinite(),
        )
        confidence = visibility(keypoints.confidence, keypoints.skeleton, H36M17)
        joints17, least = self.model.regressed(best.params, H36M17), self.config.min_confidence
        return estimate_of(self.name, self.model, best.params, joints17, camera, confidence, least, report)

    def _pull(self, start: BodyParams) -> Start:
        """The start, and how far it may be from the truth."""
        spread_rad = torch.full_like(start.rotations[..., 0, 0], self.config.start_spread_rad)
        spread_rad[:, SMPL24.index("pelvis")] = self.config.start_root_spread_rad
        betas_spread = torch.full_like(spread_rad[:, 0], self.config.start_betas_spread)
        return Start(start.rotations, start.betas, spread_rad, betas_spread)

    def _sight(self, keypoints: Keypoints, camera: Camera, skeleton: Skeleton) -> "Sighting":
        """Keypoints in the skeleton of the body's regressor, their weights and their noise."""
        confidence = convert(keypoints.confidence[..., None], keypoints.skeleton, skeleton)[0][..., 0]
        xy_px = convert(keypoints.xy_px - camera.center_px[:, None], keypoints.skeleton, skeleton)[0]
        seen = confidence > 0
        sure = seen & (confidence >= self.config.min_confidence)
        sure = torch.where(sure.sum(dim=-1, keepdim=True) >= FEWEST_JOINTS, sure, seen)
        weight = torch.where(seen, (confidence**self.config.scepticism).clamp_min(self.config.least_weight), 0.0)
        landmarks_m, landmark_weight = torch.zeros_like(xy_px[..., :1]).expand(-1, -1, 3), torch.zeros_like(weight)
        if keypoints.landmarks_m is not None:
            landmarks_m = convert(keypoints.landmarks_m, keypoints.skeleton, skeleton)[0]
            landmark_weight = torch.where(landmarks_m.isfinite().all(dim=-1), weight, 0.0)
        observations = Observations(
            xy_px=torch.where(seen[..., None], xy_px, 0.0),
            weight=weight,
            noise_px=self._noise_px(xy_px, sure),
            focal_px=camera.focal_px,
            landmarks_m=torch.where(landmark_weight[..., None] > 0, landmarks_m, 0.0),
            landmark_weight=landmark_weight,
        )
        return Sighting(observations, sure)

    def _sight_parts(self, parts: PartMasks, camera: Camera) -> PartSight:
        """Part masks about the principal point, and their noise."""
        like = self.model.template
        if len(parts.size_px) != len(camera.focal_px):
            raise ValueError(f"part masks of {len(parts.size_px)} people do not fit {len(camera.focal_px)} cameras")
        masks = parts.to(like.device, like.dtype).about(camera.center_px)
        everyone = torch.arange(len(masks.size_px), device=like.device)
        noise_px = (self.config.part_noise_share * masks.size_px).clamp_min(LEAST_NOISE_PX)
        return PartSight(PartEvidence(masks, noise_px, everyone), self._skin_points.to(like.device, like.dtype))

    @cached_property
    def _skin_points(self) -> SkinPoints:
        """Chosen once, when part masks first come."""
        return skin_points(self.model, self.config.points_of_part)

    def _noise_px(self, xy_px: Float[Tensor, "N K 2"], sure: Bool[Tensor, "N K"]) -> Float[Tensor, "N"]:
        """As configured, or the share of the longer side of the box around the keypoints that are surely seen."""
        if self.config.noise_px is not None:
            return torch.full_like(xy_px[:, 0, 0], self.config.noise_px)
        low = torch.where(sure[..., None], xy_px, torch.inf).amin(dim=1)
        high = torch.where(sure[..., None], xy_px, -torch.inf).amax(dim=1)
        return (self.config.noise_share * (high - low).amax(dim=-1)).clamp_min(LEAST_NOISE_PX)

    def _plausibility(self, params: BodyParams) -> Float[Tensor, "N"]:
        return torch.full_like(params.betas[:, 0], torch.nan) if self.prior is None else self.prior.score(params.pose)

    def _starts(self, observations: Observations, skeleton: Skeleton) -> BodyParams:
        """The mean pose towards several directions, S x N, not placed yet."""
        people = len(observations.xy_px)
        upright = self._upright(observations, skeleton)
        yaw_rad = torch.arange(self.config.starts) * (2 * math.pi / self.config.starts)
        turn = roma.rotvec_to_rotmat(yaw_rad[:, None] * torch.tensor([0.0, 1.0, 0.0])).to(upright)
        batch = (self.config.starts, people)
        rest = torch.eye(3).expand(23, 3, 3) if self.prior is None else self.prior.mean_rotations
        return BodyParams(
            root=upright @ turn[:, None],
            pose=rest.to(upright).expand(*batch, 23, 3, 3),
            betas=upright.new_zeros(*batch, self.config.betas),
            transl_m=upright.new_zeros(*batch, 3),
        )

    def _placed(
        self, starts: BodyParams, observations: Observations, camera: Camera, skeleton: Skeleton
    ) -> tuple[BodyParams, Bool[Tensor, "N"]]:
        """The starts, S x N, where the keypoints show them; and for whom a translation could be found at all."""
        batch = starts.transl_m.shape[:2]
        joints = self.model.regressed(replace(starts, transl_m=torch.zeros_like(starts.transl_m)), skeleton)
        xy_px = observations.xy_px + camera.center_px.to(joints)[:, None]
        solved = iterated_translation(
            joints, xy_px.expand(*batch, -1, -1), observations.weight.expand(*batch, -1), camera.to(joints.dtype)
        )
        return replace(starts, transl_m=solved.transl_m), solved.ok.any(dim=0)

    def _upright(self, observations: Observations, skeleton: Skeleton) -> Float[Tensor, "N 3 3"]:
        """Facing the camera, turned in the image so that the torso points where the seen torso does.

        An unseen torso is taken for upright.
        """
        shoulders, shoulders_seen = _middle(observations, skeleton.indices("left_shoulder", "right_shoulder"))
        hips, hips_seen = _middle(observations, skeleton.indices("left_hip", "right_hip"))
        vertical = shoulders.new_tensor([0.0, -1.0])
        up = torch.where((shoulders_seen & hips_seen)[:, None], shoulders - hips, vertical)
        lean_rad = torch.atan2(up[:, 0], -up[:, 1])
        roll = roma.rotvec_to_rotmat(lean_rad[:, None] * up.new_tensor([0.0, 0.0, 1.0]))
        return roll @ camera_from_body_axes().to(roll)

    def _race(self, objective: Objective, starts: BodyParams) -> tuple[Minimum, Int[Tensor, "N"]]:
        """Scout every start, go on with the promising ones, and keep each person's best; its steps include the scout's.

        A start whose objective is not a number ranks behind every other.
        """
        count, people = starts.transl_m.shape[:2]
        person = torch.arange(people, device=starts.transl_m.device)
        everyone = person.repeat(count)
        scouting = replace(self.config.minimize, iterations=self.config.scout_iterations)
        scouted = minimize(objective.of(everyone), starts.map(lambda tensor: tensor.flatten(0, 1)), scouting)
        cost = _ranked(scouted.terms.total).unflatten(0, (count, people))
        promising = (cost <= cost.amin(dim=0) + self.config.scout_margin).flatten().nonzero()[:, 0]
        final = minimize(objective.of(everyone[promising]), scouted.params[promising], self.config.minimize)
        cost = torch.full_like(cost, torch.inf).flatten().index_copy(0, promising, _ranked(final.terms.total))
        place = torch.full_like(everyone, -1)
        place[promising] = torch.arange(len(promising), device=place.device)
        start = cost.unflatten(0, (count, people)).argmin(dim=0)
        winner = start * people + person
        steps = scouted.iterations[winner] + final.iterations[place[winner]]
        return replace(final[place[winner]], iterations=steps), start


@dataclass(frozen=True)
class Sighting:
    """What was seen, and which joints of it surely: at least two, or all that were seen."""

    observations: Observations
    sure: Bool[Tensor, "N K"]


@contextmanager
def _threads_for(people: int) -> Iterator[None]:
    """One thread for a few people: what they need is less than what handing it out to several costs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if people < PEOPLE_FOR_THREADS else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def only_finite(keypoints: Keypoints) -> Keypoints:
    """Confidence 0 for the keypoints whose place is not finite."""
    finite = keypoints.xy_px.isfinite().all(dim=-1)
    return replace(keypoints, confidence=torch.where(finite, keypoints.confidence, 0.0))


def _middle(observations: Observations, joints: list[int]) -> tuple[Float[Tensor, "N 2"], Bool[Tensor, "N"]]:
    """The weighted mean of some joints, and whether any of them was seen."""
    weight = observations.weight[:, joints, None]
    mean = (weight * observations.xy_px[:, joints]).sum(dim=1) / weight.sum(dim=1).clamp_min(1e-6)
    return mean, (weight > 0).any(dim=1)[:, 0]


def _ranked(cost: Float[Tensor, "M"]) -> Float[Tensor, "M"]:
    """Costs that can be compared: what is no finite number is the greatest number, but below infinity."""
    return torch.where(cost.isfinite(), cost, torch.finfo(cost.dtype).max)


def masked_median(values: Float[Tensor, "N K"], mask: Bool[Tensor, "N K"]) -> Float[Tensor, "N"]:
    """The median of each row's marked values; NaN where there are none."""
    return torch.where(mask, values, torch.nan).nanmedian(dim=-1).values


def closest_skeleton(model: BodyModel, skeleton: Skeleton) -> Skeleton:
    """The skeleton itself where the body has a regressor for it, else the one that shares most joint names."""
    if skeleton.name in model.regressors:
        return skeleton
    known = [SKELETONS[name] for name in model.regressors]
    return max(known, key=lambda other: len(set(other.joints) & set(skeleton.joints)))
