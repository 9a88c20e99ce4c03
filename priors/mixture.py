"""A mixture of full-covariance Gaussians on R^D, and its expectation-maximisation."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from priors.gaussian import floored, log_determinant, moments, whitening_of
from priors.prior import NormalEquations, half_squared_norm, standard_normal


class Mixture(nn.Module):
    """Sum over k of w_k N(mean_k, (W_k^T W_k)^-1), each W_k lower triangular.

    Its energy is that of the nearest component by penalised distance, min over k of 1/2 ||W_k (x - mean_k)||^2 + c_k,
    where c_k >= 0 is how far log w_k + log det W_k stays below the best component's. So -energy differs from log p by
    a constant and by what the other components add (Olson and Agarwal, RSS 2012: the max-mixture). The penalty enters
    the residual as one more entry, sqrt(2 c_k), which no point can change.
    """

    log_weights: Tensor
    means: Tensor
    whitenings: Tensor

    def __init__(
        self, log_weights: Float[Tensor, "K"], means: Float[Tensor, "K D"], whitenings: Float[Tensor, "K D D"]
    ) -> None:
        super().__init__()
        self.register_buffer("log_weights", log_weights)
        self.register_buffer("means", means)
        self.register_buffer("whitenings", whitenings)

    def log_prob(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """log sum over k of w_k N(x; k), all components counted."""
        return self.log_joint(points).logsumexp(dim=-1)

    def log_joint(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch K"]:
        """log w_k + log N(x; k) of every component."""
        constant = self._merits.to(points) - points.shape[-1] / 2 * math.log(2 * math.pi)
        return constant - half_squared_norm(self._whitened(points))

    def residual(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch E"]:
        """W_k (x - mean_k) and sqrt(2 c_k) of the nearest component, E = D + 1."""
        return self._residual_and_component(points)[0]

    def residual_and_jacobian(
        self, points: Float[Tensor, "*batch D"]
    ) -> tuple[Float[Tensor, "*batch E"], Float[Tensor, "*batch E D"]]:
        """The residual, and W_k of the nearest component above a row of zeros."""
        residual, component = self._residual_and_component(points)
        return residual, nn.functional.pad(self.whitenings.to(points), (0, 0, 0, 1))[component]

    def normal_equations(self, points: Float[Tensor, "*batch D"]) -> NormalEquations:
        """Energy, W_k^T r and the precision W_k^T W_k of the nearest component."""
        residual, component = self._residual_and_component(points)
        whitenings = self.whitenings.to(points)
        chosen = nn.functional.one_hot(component, len(whitenings)).to(points)
        gradient = (chosen[..., None] * residual[..., None, :-1]).flatten(-2) @ whitenings.flatten(0, 1)
        precision = (whitenings.mT @ whitenings)[component]
        return NormalEquations(half_squared_norm(residual), gradient, precision)

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "{n} D"]:
        """mean_k + temperature W_k^-1 z, z from N(0, I) and k by its weight."""
        weights = self.log_weights.exp()
        device = weights.device if generator is None else generator.device
        component = torch.multinomial(weights.to(device), n, replacement=True, generator=generator).to(weights.device)
        z = temperature * standard_normal(n, self.means.shape[-1], self.means, generator)
        points = self.means[component]
        for k, whitening in enumerate(self.whitenings):
            rows = component == k
            points[rows] += torch.linalg.solve_triangular(whitening, z[rows].mT, upper=False).mT
        return points

    @property
    def _merits(self) -> Float[Tensor, "K"]:
        return self.log_weights + log_determinant(self.whitenings)

    def _whitened(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch K D"]:
        whitenings, means = self.whitenings.to(points), self.means.to(points)
        shift = torch.linalg.vecdot(whitenings, means[:, None, :])
        return (points @ whitenings.flatten(0, 1).mT - shift.flatten()).unflatten(-1, shift.shape)

    def _residual_and_component(
        self, points: Float[Tensor, "*batch D"]
    ) -> tuple[Float[Tensor, "*batch E"], Int[Tensor, "*batch"]]:
        penalties = (self._merits.max() - self._merits).to(points)
        whitened = self._whitened(points)
        component = (half_squared_norm(whitened) + penalties).argmin(dim=-1)
        chosen = torch.take_along_dim(whitened, component[..., None, None], dim=-2).squeeze(dim=-2)
        return torch.cat([chosen, (2 * penalties).sqrt()[component][..., None]], dim=-1), component


def fit_mixture(
    points: Float[Tensor, "N D"],
    weights: Float[Tensor, "N"],
    components: int,
    floor: float,
    shrinkage: float = 0.0,
    iterations: int = 100,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> Mixture:
    """Expectation-maximisation from a k-means++ start, until the mean log-likelihood gains less than `tolerance` nats.

    `floor` is the least standard deviation of any direction. `shrinkage` pulls each covariance towards the covariance
    of all points, as if that had been seen with this share of the total weight.
    """
    weights = weights / weights.sum()
    overall = moments(points, weights)[1]
    nearest = torch.cdist(points, _centres(points, weights, components, seed)).argmin(dim=-1)
    mixture = _maximised(
        points, weights, nn.functional.one_hot(nearest, components).to(points), overall, floor, shrinkage
    )
    likelihood = -math.inf
    for _ in range(iterations):
        joint = mixture.log_joint(points)
        evidence = joint.logsumexp(dim=-1)
        previous, likelihood = likelihood, float(weights @ evidence)
        if likelihood - previous < tolerance:
            break
        mixture = _maximised(points, weights, (joint - evidence[:, None]).exp(), overall, floor, shrinkage)
    return mixture


def _maximised(
    points: Float[Tensor, "N D"],
    weights: Float[Tensor, "N"],
    responsibilities: Float[Tensor, "N K"],
    overall: Float[Tensor, "D D"],
    floor: float,
    shrinkage: float,
) -> Mixture:
    """The mixture of greatest expected likelihood, given who answers for which point."""
    shares = (weights[:, None] * responsibilities).mT
    mass = shares.sum(dim=-1)
    means, covariances = zip(*(moments(points, share) for share in shares), strict=True)
    pull = (shrinkage / (mass + shrinkage))[:, None, None]
    covariance = floored(torch.lerp(torch.stack(covariances), overall.expand(len(mass), -1, -1), pull), floor)
    return Mixture(mass.log(), torch.stack(means), whitening_of(covariance))


def _centres(
    points: Float[Tensor, "N D"], weights: Float[Tensor, "N"], components: int, seed: int, rounds: int = 20
) -> Float[Tensor, "K D"]:
    """k-means++ seeds (Arthur and Vassilvitskii, SODA 2007), then a few rounds of Lloyd's k-means."""
    generator = torch.Generator(points.device).manual_seed(seed)
    centres = points[torch.multinomial(weights, 1, generator=generator)]
    while len(centres) < components:
        squared = torch.cdist(points, centres).min(dim=-1).values.square()
        centres = torch.cat([centres, points[torch.multinomial(weights * squared, 1, generator=generator)]])
    for _ in range(rounds):
        member = nn.functional.one_hot(torch.cdist(points, centres).argmin(dim=-1), components).to(points)
        mass = weights @ member
        centres = torch.where(mass[:, None] > 0, (weights[:, None] * member).mT @ points / mass[:, None], centres)
    return centres
