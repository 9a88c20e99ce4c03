"""The branches as what answers keypoints and a camera, without a photograph."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.body import load_body_model
from meshrec.branches.fit import FitBranch
from meshrec.branches.lift import LiftBranch, LiftConfig, points_of
from meshrec.branches.registry import MESH_BUILDERS, build_branch
from meshrec.errors import MeshrecError
from meshrec.evaluation import Estimator
from meshrec.models.lifter_file import find_lifter, read_lifter
from meshrec.models.lifting import look_at_root
from meshrec.prior_files import DEFAULT_PRIOR
from meshrec.types import Camera, Estimate, Keypoints

LIFT = "lift"
"""The branch that takes weights by name or file."""


@dataclass(frozen=True)
class LiftSampler:
    """The lift branch as a sampler; without a body height it knows no metres and says no place."""

    branch: LiftBranch

    @property
    def name(self) -> str:
        """The branch's."""
        return self.branch.name

    @property
    def latent(self) -> int:
        """Dimensions of the lifter's latent space."""
        return self.branch.lifter.config.latent

    def estimate(
        self, keypoints: Keypoints, camera: Camera, noise: Float[Tensor, "*batch L"] | None = None
    ) -> Estimate:
        """Joints in metres for a body height, else in units."""
        estimate = self.branch.estimate(keypoints, camera, noise)
        return estimate if self.branch.config.height_m is not None else replace(estimate, root_m=None)

    def means(self, keypoints: Keypoints, camera: Camera) -> Float[Tensor, "*batch L"]:
        """The encoder's, as the points are and not mirrored."""
        sight = points_of(keypoints, camera, self.branch.config.min_confidence)
        return self.branch.lifter.encode(look_at_root(sight.points, sight.known)[0], sight.known)[0]


@dataclass(frozen=True)
class Fitted:
    """The fit branch as an estimator."""

    branch: FitBranch

    @property
    def name(self) -> str:
        """The branch's."""
        return self.branch.name

    def estimate(self, keypoints: Keypoints, camera: Camera) -> Estimate:
        """Bodies fitted to the keypoints; someone who cannot be placed has no answer."""
        estimate = self.branch.fit(keypoints, camera)
        assert estimate.report is not None
        placed = estimate.report.solvable[:, None, None]
        return replace(estimate, joints17_m=torch.where(placed, estimate.joints17_m, torch.nan))


def build_estimator(
    branch: str,
    weights: str | None = None,
    height_m: float | None = None,
    body: str = "neutral",
    prior: str = DEFAULT_PRIOR,
) -> Estimator:
    """A branch by name, as what answers keypoints and a camera."""
    if branch == LIFT:
        lifter = read_lifter(find_lifter(weights or LIFT))
        return LiftSampler(LiftBranch(lifter, LiftConfig(height_m=height_m)))
    if weights is not None or height_m is not None:
        raise MeshrecError(f"--weights and --height-m belong to the branch {LIFT}, and this is {branch}: leave them.")
    if branch in MESH_BUILDERS:
        raise MeshrecError(_wants_photographs(branch))
    built = build_branch(branch, load_body_model(body), prior)
    if isinstance(built, FitBranch):
        return Fitted(built)
    if not isinstance(built, Estimator):
        raise MeshrecError(f"{_wants_photographs(branch)} (It has no method estimate(keypoints, camera).)")
    return built


def _wants_photographs(branch: str) -> str:
    return (
        f"The branch {branch} wants a photograph and cannot be asked for keypoints and a camera alone: name folders of "
        f"records with --data, or choose {LIFT} or fit with --branch."
    )
