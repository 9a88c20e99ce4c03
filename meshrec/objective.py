"""What a fit minimises: keypoints, 3D landmarks, body parts, priors and a known start, with analytic derivatives.

All terms are negative log-likelihoods up to constants: residuals in units of their noise, halved squares, a robust
kernel on what a detector or a start says. Unknowns are the 24 rotations (right tangent, R <- R exp(delta)), betas,
transl.
"""

from dataclasses import dataclass, replace

import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.kinematics import Kinematics, pose_features
from meshrec.part_alignment import OUTLIER, PartEvidence, alignment_energy, alignment_pull
from meshrec.skeletons import SMPL24, Skeleton
from meshrec.skin_points import PosedPoints, SkinPoints
from meshrec.types import Batched, BodyParams, FitTerms
from priors.prior import Prior
from priors.so3 import inverse_right_jacobian

NEAREST_M = 0.2
"""No joint that was seen may come nearer to the camera."""

SCALE_ROUNDS = 4
"""Rounds of reweighting that find the scale of 3D landmarks."""


@dataclass(frozen=True)
class Observations(Batched):
    """What was seen of N people, in the units of the objective."""

    xy_px: Float[Tensor, "N K 2"]
    """Relative to the principal point."""
    weight: Float[Tensor, "N K"]
    """The detector's confidence; 0 where nothing was seen."""
    noise_px: Float[Tensor, "N"]
    focal_px: Float[Tensor, "N"]
    landmarks_m: Float[Tensor, "N K 3"]
    landmark_weight: Float[Tensor, "N K"]


@dataclass(frozen=True)
class Start(Batched):
    """Bodies that N people are said to have, and how far from the truth those may be."""

    rotations: Float[Tensor, "N 24 3 3"]
    betas: Float[Tensor, "N B"]
    spread_rad: Float[Tensor, "N 24"]
    """Standard deviation of each joint's rotation about each axis."""
    betas_spread: Float[Tensor, "N"]
    """Standard deviation of each beta."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """How much each kind of evidence is trusted."""

    outlier: float = 5.0
    """Residuals beyond so many units of noise are taken for outliers (Cauchy's kernel)."""
    landmark_noise_m: tuple[float, float, float] = (0.06, 0.06, 0.1)
    """Standard deviation of 3D landmarks along x, y and depth, metres."""
    landmark_scale_spread: float = 0.05
    """How far the landmarks' scale may be off: the detector does not know the person's height."""
    part_outlier: float = OUTLIER
    """The same of body parts, in units of the part masks' noise (Geman and McClure's kernel)."""
    parts_weight: float = 1.0
    """Each part that is seen counts as so many keypoints: its mean pixel as one, its mean point as one more."""
    start_outlier: float = 3.0
    """The same of the start: a joint that is turned away from it by more than so many of its spreads (Cauchy's)."""
    prior_weight: float = 1.0
    shape_weight: float = 1.0


@dataclass(frozen=True)
class PartSight:
    """What was seen of the parts of N people, and the points of the skin that are compared with it."""

    evidence: PartEvidence
    skin: SkinPoints


@dataclass(frozen=True)
class Quadratic:
    """The objective's Gauss-Newton model around some parameters; U = 72 + B + 3 unknowns."""

    gradient: Float[Tensor, "N U"]
    hessian: Float[Tensor, "N U U"]


@dataclass(frozen=True)
class Evidence:
    """Residual rows of one kind, robustly weighted: r, and for each row the direction a with dr = a . dx."""

    residual: Float[Tensor, "N K D"]
    direction: Float[Tensor, "N K D 3"]
    energy: Float[Tensor, "N"]


class Objective:
    """The objective of N people, for parameters with one leading axis N."""

    def __init__(
        self,
        model: BodyModel,
        prior: Prior | None,
        skeleton: Skeleton,
        observations: Observations,
        config: ObjectiveConfig,
        parts: PartSight | None = None,
        start: Start | None = None,
    ) -> None:
        self.model, self.prior, self.skeleton = model, prior, skeleton
        self.regressor = model.regressor(skeleton)
        self.observations, self.config, self.parts, self.start = observations, config, parts, start

    def of(self, people: Int[Tensor, "M"]) -> "Objective":
        """The objective of some of the people."""
        parts = None if self.parts is None else replace(self.parts, evidence=self.parts.evidence.of(people))
        start = None if self.start is None else self.start[people]
        return Objective(self.model, self.prior, self.skeleton, self.observations[people], self.config, parts, start)

    def terms(self, params: BodyParams) -> FitTerms:
        """Every term; infinite where a seen joint comes too near to the camera or behind it."""
        tree, features = self.model.kinematics(params), pose_features(params.rotations)
        joints = self.regressor(tree, self.model.pad_betas(params.betas), features)
        joints = joints + self.regressor.total[:, None] * params.transl_m[:, None]
        behind = ((joints[..., 2] < NEAREST_M) & (self.observations.weight > 0)).any(dim=-1)
        keypoints = self._keypoints(joints).energy
        nothing = torch.zeros_like(keypoints)
        energy = nothing if self.prior is None else self.prior.energy(params.pose)
        return FitTerms(
            keypoints=torch.where(behind, torch.inf, keypoints),
            landmarks=self._landmarks(joints).energy if self._uses_landmarks else nothing,
            parts=nothing if self.parts is None else self._part_energy(self.parts, tree, params, features),
            prior=self.config.prior_weight * energy,
            shape=self.config.shape_weight * params.betas.square().sum(dim=-1) / 2,
            pull=nothing if self.start is None else self._pull_energy(self.start, params),
        )

    def reprojection_px(self, params: BodyParams) -> Float[Tensor, "N K"]:
        """Distances of projected and seen keypoints; they mean nothing where nothing was seen."""
        seen = self.observations
        joints = self.model.regressed(params, self.skeleton)
        xy_px = seen.focal_px[:, None, None] * joints[..., :2] / joints[..., 2:].clamp_min(NEAREST_M)
        return (xy_px - seen.xy_px).norm(dim=-1)

    def quadratic(self, params: BodyParams) -> Quadratic:
        """Gradient and Gauss-Newton Hessian."""
        tree, features = self.model.kinematics(params), pose_features(params.rotations)
        betas = self.model.pad_betas(params.betas)
        joints, levers, by_betas = self.regressor.with_jacobian(tree, betas, features, self.model.rest_directions)
        joints = joints + self.regressor.total[:, None] * params.transl_m[:, None]
        by_betas = by_betas[..., : params.betas.shape[-1]]
        rows = [_rows(self._keypoints(joints), levers, tree.world, by_betas, self.regressor.total)]
        if self._uses_landmarks:
            share = self._landmark_share
            centred_levers = levers - torch.einsum("nk,nkic->nic", share, levers)[:, None]
            centred_total = self.regressor.total - share @ self.regressor.total[:, None]
            centred_betas = by_betas - torch.einsum("nk,nkcb->ncb", share, by_betas)[:, None]
            rows.append(_rows(self._landmarks(joints), centred_levers, tree.world, centred_betas, centred_total))
        residual = torch.cat([row[0] for row in rows], dim=1)
        jacobian = torch.cat([row[1] for row in rows], dim=1)
        gradient = (jacobian.mT @ residual[..., None])[..., 0]
        hessian = jacobian.mT @ jacobian
        if self.parts is not None:
            parts = self._part_quadratic(self.parts, tree, params, features)
            gradient, hessian = gradient + parts.gradient, hessian + parts.hessian
        return self._add_priors(gradient, hessian, params)

    def _keypoints(self, joints: Float[Tensor, "N K 3"]) -> Evidence:
        """Projected minus seen, in units of keypoint noise."""
        seen = self.observations
        xy, direction = _projected(joints, seen.focal_px / seen.noise_px)
        residual = xy - seen.xy_px / seen.noise_px[:, None, None]
        return _robust(residual, direction, seen.weight, self.config.outlier)

    def _part_energy(
        self, parts: PartSight, tree: Kinematics, params: BodyParams, features: Float[Tensor, "N 207"]
    ) -> Float[Tensor, "N"]:
        """Body-part alignment at the points of the skin."""
        posed = parts.skin.posed(tree, params.betas, features)
        xy_px, _ = _projected_points(posed, params.transl_m, self.observations.focal_px)
        facing = posed.facing(params.transl_m)
        return self.config.parts_weight * alignment_energy(xy_px, facing, parts.evidence, self.config.part_outlier)

    def _part_quadratic(
        self, parts: PartSight, tree: Kinematics, params: BodyParams, features: Float[Tensor, "N 207"]
    ) -> Quadratic:
        """Its derivatives."""
        posed, betas = parts.skin.posed(tree, params.betas, features), params.betas.shape[-1]
        xy_px, direction = _projected_points(posed, params.transl_m, self.observations.focal_px)
        facing = posed.facing(params.transl_m)
        pull = alignment_pull(xy_px, facing, parts.evidence, self.config.part_outlier)
        force = (pull.gradient[..., None, :] @ direction)[..., 0, :]
        return Quadratic(
            gradient=self.config.parts_weight * parts.skin.gradient(tree, posed, force, betas),
            hessian=self.config.parts_weight * parts.skin.hessian(tree, posed, direction, pull.curvature, betas),
        )

    def _landmarks(self, joints: Float[Tensor, "N K 3"]) -> Evidence:
        """Joints minus scaled landmarks, both about their means, at the most likely scale.

        At that scale the objective does not change with it, so the derivatives need not know of it.
        """
        seen = self.observations
        share = self._landmark_share
        centred = joints - torch.einsum("nk,nkc->nc", share, joints)[:, None]
        guess = seen.landmarks_m - torch.einsum("nk,nkc->nc", share, seen.landmarks_m)[:, None]
        noise_m = joints.new_tensor(self.config.landmark_noise_m)
        scale = self._landmark_scale(centred, guess, noise_m)
        residual = (centred - scale[:, None, None] * guess) / noise_m
        direction = torch.diag(1 / noise_m).expand(*centred.shape, 3)
        evidence = _robust(residual, direction, seen.landmark_weight, self.config.outlier)
        unlikely = (scale - 1).square() / (2 * self.config.landmark_scale_spread**2)
        return replace(evidence, energy=evidence.energy + unlikely)

    def _landmark_scale(
        self, centred: Float[Tensor, "N K 3"], guess: Float[Tensor, "N K 3"], noise_m: Float[Tensor, "3"]
    ) -> Float[Tensor, "N"]:
        """The landmarks' most likely scale, by least squares reweighted with the robust kernel."""
        tightness = self.config.landmark_scale_spread**-2
        scale = torch.ones_like(centred[:, 0, 0])
        for _ in range(SCALE_ROUNDS):
            ratio = ((centred - scale[:, None, None] * guess) / noise_m).square().sum(-1) / self.config.outlier**2
            trust = (self.observations.landmark_weight / (1 + ratio))[..., None] / noise_m.square()
            overlap, size = (trust * centred * guess).sum((1, 2)), (trust * guess.square()).sum((1, 2))
            scale = (overlap + tightness) / (size + tightness)
        return scale

    @property
    def _uses_landmarks(self) -> bool:
        return bool((self.observations.landmark_weight > 0).any())

    @property
    def _landmark_share(self) -> Float[Tensor, "N K"]:
        weight = self.observations.landmark_weight
        return weight / weight.sum(dim=-1, keepdim=True).clamp_min(1e-6)

    def _add_priors(
        self, gradient: Float[Tensor, "N U"], hessian: Float[Tensor, "N U U"], params: BodyParams
    ) -> Quadratic:
        pose = slice(3, 3 * len(SMPL24))
        shape = slice(pose.stop, pose.stop + params.betas.shape[-1])
        if self.prior is not None:
            prior = self.prior.normal_equations(params.pose)
            gradient[:, pose] += self.config.prior_weight * prior.gradient
            hessian[:, pose, pose] += self.config.prior_weight * prior.hessian
        gradient[:, shape] += self.config.shape_weight * params.betas
        hessian[:, shape, shape].diagonal(dim1=1, dim2=2).add_(self.config.shape_weight)
        if self.start is not None:
            self._add_pull(gradient, hessian, self.start, params)
        return Quadratic(gradient, hessian)

    def _turned(self, start: Start, params: BodyParams) -> Evidence:
        """log(S_j^T R_j) of each joint from its start S_j, in units of its spread."""
        phi = roma.rotmat_to_rotvec(start.rotations.mT @ params.rotations)
        residual = phi / start.spread_rad[..., None]
        direction = inverse_right_jacobian(phi) / start.spread_rad[..., None, None]
        return _robust(residual, direction, torch.ones_like(start.spread_rad), self.config.start_outlier)

    def _pull_energy(self, start: Start, params: BodyParams) -> Float[Tensor, "N"]:
        """The turns' robust energy, and that of the change of shape."""
        reshaped = (params.betas - start.betas) / start.betas_spread[:, None]
        return self._turned(start, params).energy + reshaped.square().sum(dim=-1) / 2

    def _add_pull(
        self, gradient: Float[Tensor, "N U"], hessian: Float[Tensor, "N U U"], start: Start, params: BodyParams
    ) -> None:
        """Its derivatives, in place: a block of the Hessian for each joint, and the diagonal of the betas."""
        turned, joints = self._turned(start, params), len(SMPL24)
        turns, shape = slice(3 * joints), slice(3 * joints, 3 * joints + params.betas.shape[-1])
        by_turn = turned.direction.mT
        gradient[:, turns] += (by_turn @ turned.residual[..., None]).flatten(1)
        blocks = hessian[:, turns, turns].unflatten(2, (joints, 3)).unflatten(1, (joints, 3))
        blocks.diagonal(dim1=1, dim2=3).add_((by_turn @ turned.direction).permute(0, 2, 3, 1))
        tightness = start.betas_spread[:, None] ** -2
        gradient[:, shape] += tightness * (params.betas - start.betas)
        hessian[:, shape, shape].diagonal(dim1=1, dim2=2).add_(tightness)


def retract(params: BodyParams, step: Float[Tensor, "N U"]) -> BodyParams:
    """Move the parameters by a step in their tangent space."""
    tangent, betas, transl_m = step.split([3 * len(SMPL24), params.betas.shape[-1], 3], dim=-1)
    turned = params.rotations @ roma.rotvec_to_rotmat(tangent.unflatten(-1, (-1, 3)))
    return BodyParams.from_rotations(turned, params.betas + betas, params.transl_m + transl_m)


def _projected(
    points_m: Float[Tensor, "N K 3"], scale: Float[Tensor, "N"]
) -> tuple[Float[Tensor, "N K 2"], Float[Tensor, "N K 2 3"]]:
    """Points in a picture with that focal length, about its principal point, and the derivatives by the points."""
    depth = points_m[..., 2].clamp_min(NEAREST_M)
    x, y = points_m[..., 0] / depth, points_m[..., 1] / depth
    zero = torch.zeros_like(x)
    by_point = torch.stack([1 + zero, zero, -x, zero, 1 + zero, -y], dim=-1).unflatten(-1, (2, 3))
    return scale[:, None, None] * torch.stack([x, y], dim=-1), (scale[:, None] / depth)[..., None, None] * by_point


def _projected_points(
    posed: PosedPoints, transl_m: Float[Tensor, "N 3"], focal_px: Float[Tensor, "N"]
) -> tuple[Float[Tensor, "N 24 n 2"], Float[Tensor, "N 24 n 2 3"]]:
    """The same of the points of the skin."""
    xy_px, direction = _projected(posed.points_m.flatten(1, 2) + transl_m[:, None], focal_px)
    shape = posed.points_m.shape[1:3]
    return xy_px.unflatten(1, shape), direction.unflatten(1, shape)


def _robust(
    residual: Float[Tensor, "N K D"],
    direction: Float[Tensor, "N K D 3"],
    weight: Float[Tensor, "N K"],
    outlier: float,
) -> Evidence:
    """Cauchy's kernel on each residual vector: c^2/2 log(1 + |r|^2 / c^2); rows scaled by its square-root weight.

    The scaled rows give the kernel's gradient, and its Gauss-Newton Hessian (Triggs et al., 2000, without the
    negative second-order part).
    """
    ratio = residual.square().sum(dim=-1) / outlier**2
    energy = (weight * outlier**2 * ratio.log1p()).sum(dim=-1) / 2
    root = (weight / (1 + ratio)).sqrt()[..., None]
    return Evidence(root * residual, root[..., None] * direction, energy)


def _rows(
    evidence: Evidence,
    levers: Float[Tensor, "N K 24 3"],
    world: Float[Tensor, "N 24 3 3"],
    by_betas: Float[Tensor, "N K 3 B"],
    by_translation: Float[Tensor, "*people K"],
) -> tuple[Float[Tensor, "N R"], Float[Tensor, "N R U"]]:
    """Residuals, and their derivatives by every unknown: `a . (w x lever) = (lever x a) . w` with `w = G delta`.

    `by_translation` says how far each joint moves when the body does: 1, and 0 for joints about their own mean.
    """
    direction = evidence.direction
    turning = torch.linalg.cross(levers.transpose(1, 2)[:, :, :, None], direction[:, None])
    turning = turning.flatten(2, 3) @ world
    by_rotation = turning.transpose(1, 2).flatten(2)
    by_shape = (direction @ by_betas).flatten(1, 2)
    by_moving = (by_translation[..., None, None] * direction).flatten(1, 2)
    return evidence.residual.flatten(1), torch.cat([by_rotation, by_shape, by_moving], dim=-1)
