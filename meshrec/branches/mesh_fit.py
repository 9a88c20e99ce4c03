"""The `mesh+fit` branch: the fit goes on from the body that the mesh branch reads from a crop, and is held to it."""

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import accumulate, groupby, pairwise

import torch
from jaxtyping import Bool
from torch import Tensor

from meshrec.branches.fit import FitBranch, FitConfig
from meshrec.branches.mesh import MeshBranch, Sight, expanded
from meshrec.objective import ObjectiveConfig
from meshrec.photo import Photo
from meshrec.skeletons import Skeleton
from meshrec.types import Batched, BodyParams, Camera, Estimate, FitReport, Noun, Person, joined, stack

REFINING = FitConfig(
    least_weight=0.02,
    scepticism=12.0,
    start_spread_rad=0.05,
    start_root_spread_rad=0.02,
    start_betas_spread=0.1,
    objective=ObjectiveConfig(outlier=3.0, start_outlier=30.0, prior_weight=0.05),
)
"""Of a fit that goes on from what a network says that was shown the same joints.

Such a network knows already which poses there are, and how far a detector may be off: it is held to; joints of which
the detector is not quite sure, or that lie far from where the network has them, count little, and so does the prior.
"""


class MeshFitBranch:
    """Crops and keypoints to `Estimate`."""

    name = "mesh+fit"

    def __init__(self, mesh: MeshBranch, fit: FitBranch) -> None:
        self.mesh, self.fit = mesh, fit

    def __call__(self, photo: Photo, people: Sequence[Person], camera: Camera) -> Estimate:
        """The people of one photograph."""
        return self.several([Sight(photo, people, camera)])[0]

    def several(self, sights: Sequence[Sight]) -> list[Estimate]:
        """The people of several photographs; one with too few keypoints stays as the network has it."""
        pairs = zip(sights, self.mesh.several(sights), strict=True)
        return [
            estimate
            for _, some in groupby(pairs, key=lambda pair: _kind(pair[0]))
            for estimate in self._refined([*some])
        ]

    def _refined(self, pairs: Sequence[tuple[Sight, Estimate]]) -> list[Estimate]:
        """Everybody at once, whose keypoints are of one kind."""
        keypoints = joined([stack([person.keypoints for person in sight.people]) for sight, _ in pairs])
        camera = joined([_lens(expanded(sight.camera, len(sight.people))) for sight, _ in pairs])
        start = joined([_params(read) for _, read in pairs])
        fitted = self.fit.fit(keypoints, camera, start=start)
        enough = self.mesh.enough(keypoints.to(fitted.joints17_m.device))
        ends = list(accumulate(len(sight.people) for sight, _ in pairs))
        rows = [slice(*ends) for ends in pairwise([0, *ends])]
        return [
            self._chosen(read, replace(fitted[some], camera=read.camera), enough[some])
            for (_, read), some in zip(pairs, rows, strict=True)
        ]

    def _chosen(self, read: Estimate, fitted: Estimate, enough: Bool[Tensor, "N"]) -> Estimate:
        """The fit's answer where there is one, by enough keypoints; else the network's."""
        assert fitted.report is not None
        better = fitted.report.solvable & enough
        known = read.joints17_m.isfinite().all(dim=-1).all(dim=-1)
        kept = replace(read, report=_unfitted(fitted.report, known))
        sure = {"confidence": read.confidence, "seen": read.seen}
        return replace(_where(better, replace(fitted, **sure), kept), branch=self.name)


def _params(read: Estimate) -> BodyParams:
    assert read.params is not None
    return read.params


def _kind(sight: Sight) -> tuple[Skeleton, bool]:
    """What keypoints must have in common to be fitted together."""
    keypoints = sight.people[0].keypoints
    return keypoints.skeleton, keypoints.landmarks_m is None


def _lens(camera: Camera) -> Camera:
    """What a fit knows of a camera: neither the picture's size nor how its focal length was found."""
    return replace(camera, width_px=0, height_px=0, focal_source="given")


def _unfitted(report: FitReport, known: Bool[Tensor, "N"]) -> FitReport:
    """The report on people who were not fitted: no steps, and no number of them."""
    unknown = report.map(lambda tensor: torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor)
    still = torch.zeros_like(report.iterations)
    return replace(unknown, iterations=still, converged=torch.zeros_like(known), solvable=known)


def _where(mask: Bool[Tensor, "N"], one: Noun, other: Noun) -> Noun:
    """The rows of one noun where the mask holds, and of another of the same build elsewhere."""
    chosen = {}
    for field in fields(one):  # type: ignore[arg-type]
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, Tensor):
            chosen[field.name] = torch.where(mask.view(-1, *(1,) * (mine.dim() - 1)), mine, theirs)
        elif isinstance(mine, Batched):
            chosen[field.name] = _where(mask, mine, theirs)
    return replace(one, **chosen)  # type: ignore[type-var]
