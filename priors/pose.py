"""Binds a density on R^D to J joint rotations, through a chart."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.prior import Chart, Density, NormalEquations, half_squared_norm, share_above

LIFTS = 64
"""Lifts that `log_prob` is averaged over, where the chart needs any."""


class PosePrior(nn.Module):
    """A density on the coordinates of a chart, as a prior on rotations."""

    energy_quantiles: Tensor

    def __init__(self, chart: Chart, density: Density, energy_quantiles: Float[Tensor, "Q"]) -> None:
        """`energy_quantiles` are the energies of real poses at the levels 0, 1/(Q-1), ..., 1: the scale of `score`."""
        super().__init__()
        self.chart = chart
        self.density = density
        self.register_buffer("energy_quantiles", energy_quantiles)

    @property
    def mean_rotations(self) -> Float[Tensor, "J 3 3"]:
        """The chart's."""
        return self.chart.mean_rotations

    @property
    def noise_size(self) -> int:
        """What a lift consumes."""
        return self.chart.noise_size

    def log_prob(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch"]:
        """Log-density on SO(3)^J in nats, per radian^3 a joint.

        Exact where the chart needs no lift, else `bound` with the same lifts for every pose. Part of its error, about a
        nat, is then common to all poses, so for a mean over many give `bound` noise of each pose's own.
        """
        generator = torch.Generator().manual_seed(0)
        lifts = LIFTS if self.noise_size else 1
        noise = torch.randn(lifts, self.noise_size, generator=generator, dtype=torch.float64).to(rotations)
        return self.bound(rotations, noise.expand(*rotations.shape[:-3], *noise.shape))

    def bound(
        self, rotations: Float[Tensor, "*batch J 3 3"], noise: Float[Tensor, "*batch K L"]
    ) -> Float[Tensor, "*batch"]:
        """log 1/K sum over k of p(x_k) w_k for the lifts x_k, in nats: at most log p on average over noise.

        The importance-weighted bound (Burda et al., ICLR 2016).
        """
        repeated = rotations[..., None, :, :, :].expand(*noise.shape[:-1], *rotations.shape[-3:])
        return (-self.loss(repeated, noise)).logsumexp(dim=-1) - math.log(noise.shape[-2])

    def loss(
        self, rotations: Float[Tensor, "*batch J 3 3"], noise: Float[Tensor, "*batch L"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """-log p of one lift of the pose, in nats; its mean over noise is at least the pose's -log p."""
        if noise is None:
            noise = torch.randn(*rotations.shape[:-3], self.noise_size).to(rotations)
        points, log_weight = self.chart.lift(rotations, noise)
        return -(self.density.log_prob(points) + log_weight)

    def energy(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch"]:
        """1/2 ||residual||^2."""
        return half_squared_norm(self.residual(rotations))

    def residual(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch E"]:
        """The density's residual at the pose's coordinates."""
        return self.density.residual(self.chart.points(rotations))

    def residual_and_jacobian(
        self, rotations: Float[Tensor, "*batch J 3 3"]
    ) -> tuple[Float[Tensor, "*batch E"], Float[Tensor, "*batch E T"]]:
        """The residual and its derivative along the right tangent: (dr/dx) B, T = 3 J, B the chart's blocks."""
        points, blocks = self.chart.points_and_blocks(rotations)
        residual, jacobian = self.density.residual_and_jacobian(points)
        return residual, _pulled_back(blocks, jacobian.mT).mT

    def normal_equations(self, rotations: Float[Tensor, "*batch J 3 3"]) -> NormalEquations:
        """Energy, gradient B^T g and Gauss-Newton Hessian B^T H B along the right tangent, T = 3 J.

        The same as from `residual_and_jacobian`, without forming the Jacobian.
        """
        points, blocks = self.chart.points_and_blocks(rotations)
        energy, gradient, hessian = self.density.normal_equations(points)
        half_way = _pulled_back(blocks, hessian)
        return NormalEquations(
            energy, _pulled_back(blocks, gradient[..., None]).squeeze(dim=-1), _pulled_back(blocks, half_way.mT)
        )

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "{n} J 3 3"]:
        """Random poses; `temperature` multiplies the standard deviations."""
        return self.chart.rotations(self.density.sample(n, temperature, generator))

    def score(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch"]:
        """The share of real poses whose energy is higher, 0 to 1, linear between the stored quantiles."""
        return share_above(self.energy(rotations), self.energy_quantiles)


def _pulled_back(
    blocks: Float[Tensor, "*batch J d 3"], rows: Float[Tensor, "*batch D N"]
) -> Float[Tensor, "*batch T N"]:
    """B^T rows for the block-diagonal B."""
    return torch.einsum("...jba,...jbn->...jan", blocks, rows.unflatten(-2, blocks.shape[-3:-1])).flatten(-3, -2)
