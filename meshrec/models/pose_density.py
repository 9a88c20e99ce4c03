"""How likely a 2D pose is: a normalising flow on joints in the image, whatever their size."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from meshrec.skeletons import H36M17
from priors.flow import Flow, FlowConfig
from priors.gaussian import fit_gaussian

DENSITY = FlowConfig(activation="coupling", depth=8, hidden=256)

SPREAD = 0.02
"""Least standard deviation of the flow's Gaussian start: all poses of one size lie on a sphere, where no density is."""

LEAST_SQUARE = 1e-12
"""Joints that all lie on one point stay finite."""

COORDINATES = 2 * (len(H36M17) - 1)


class PoseDensity2D(nn.Module):
    """log p(x) of x = points / r below the pelvis, r the root of their mean square, so that x is about 1.

    Points are as the lifter takes them, from a camera that looks at the pelvis; their scale changes nothing.
    """

    def __init__(self, config: FlowConfig = DENSITY, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.flow = Flow(COORDINATES, config, generator=generator)

    @torch.no_grad()
    def start_at(
        self,
        points: Float[Tensor, "N 17 2"],
        seen: Bool[Tensor, "N 17"],
        generator: torch.Generator | None = None,
    ) -> None:
        """Begin as the Gaussian of those poses that show all joints."""
        x = self.coordinates(points[seen.all(-1)])
        if not len(x):
            raise ValueError(f"none of {len(points)} poses shows all {len(H36M17)} joints: there is no density of them")
        self.flow.start_at(fit_gaussian(x.double(), x.new_ones(len(x)).double(), SPREAD), generator)

    def coordinates(self, points: Float[Tensor, "*batch 17 2"]) -> Float[Tensor, "*batch 32"]:
        """x: what the density is of."""
        below = points[..., 1:, :].flatten(-2)
        return below / below.square().mean(dim=-1, keepdim=True).clamp_min(LEAST_SQUARE).sqrt()

    def log_likelihood(self, points: Float[Tensor, "*batch 17 2"]) -> Float[Tensor, "*batch"]:
        """log p(x), nats; every joint counts as seen."""
        return self.flow.log_prob(self.coordinates(points))
