"""How likely a 2D pose is: a normalising flow on joints in the image, whatever their size."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from meshrec.models.lifting import mean_squares, seen_everywhere, size_of
from meshrec.skeletons import H36M17
from priors.flow import Flow, FlowConfig
from priors.gaussian import fit_gaussian

DENSITY = FlowConfig(activation="coupling", depth=8, hidden=256)

SPREAD = 0.02
"""Least standard deviation of the flow's Gaussian start: all poses of one size lie on a sphere, where no density is."""

COORDINATES = 2 * (len(H36M17) - 1)


class PoseDensity2D(nn.Module):
    """log p(x) of x = points / (r s) below the pelvis: s the pose's size, r the mean size, so that x is about 1.

    Points are as the lifter takes them, from a camera that looks at the pelvis; their scale changes nothing.
    """

    squares: Tensor

    def __init__(self, config: FlowConfig = DENSITY, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.flow = Flow(COORDINATES, config, generator=generator)
        self.register_buffer("squares", torch.ones(len(H36M17)))

    @torch.no_grad()
    def start_at(
        self,
        points: Float[Tensor, "N 17 2"],
        seen: Bool[Tensor, "N 17"],
        generator: torch.Generator | None = None,
    ) -> None:
        """Begin as the Gaussian of those poses that show all joints."""
        self.squares.copy_(mean_squares(points, seen))
        x = self.coordinates(points[seen.all(-1)])
        if not len(x):
            raise ValueError(f"none of {len(points)} poses shows all {len(H36M17)} joints: there is no density of them")
        self.flow.start_at(fit_gaussian(x.double(), x.new_ones(len(x)).double(), SPREAD), generator)

    def coordinates(self, points: Float[Tensor, "*batch 17 2"]) -> Float[Tensor, "*batch 32"]:
        """x: what the density is of."""
        squares = self.squares.to(points)
        size = size_of(points, seen_everywhere(points), squares) * (squares.sum() / COORDINATES).sqrt()
        return (points[..., 1:, :] / size[..., None, None]).flatten(-2)

    def log_likelihood(self, points: Float[Tensor, "*batch 17 2"]) -> Float[Tensor, "*batch"]:
        """log p(x), nats; every joint counts as seen."""
        return self.flow.log_prob(self.coordinates(points))
