"""The full-covariance Gaussian on R^D."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.prior import NormalEquations, half_squared_norm, standard_normal


class Gaussian(nn.Module):
    """N(mean, (W^T W)^-1), with W the lower-triangular whitening matrix: W (x - mean) is N(0, I)."""

    mean: Tensor
    whitening: Tensor

    def __init__(self, mean: Float[Tensor, "D"], whitening: Float[Tensor, "D D"]) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)

    @classmethod
    def from_covariance(cls, mean: Float[Tensor, "D"], covariance: Float[Tensor, "D D"]) -> "Gaussian":
        """The Gaussian with these two moments."""
        return cls(mean, whitening_of(covariance))

    @property
    def covariance(self) -> Float[Tensor, "D D"]:
        """(W^T W)^-1."""
        return covariance_of(self.whitening)

    def log_prob(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """-1/2 ||W (x - mean)||^2 + log det W - D/2 log 2 pi."""
        constant = log_determinant(self.whitening.to(points)) - points.shape[-1] / 2 * math.log(2 * math.pi)
        return constant - half_squared_norm(self.residual(points))

    def residual(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """W (x - mean)."""
        return (points - self.mean.to(points)) @ self.whitening.to(points).mT

    def residual_and_jacobian(
        self, points: Float[Tensor, "*batch D"]
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch D D"]]:
        """W (x - mean), and W for every point (a view: it takes no memory)."""
        whitening = self.whitening.to(points)
        return self.residual(points), whitening.expand(*points.shape[:-1], *whitening.shape)

    def normal_equations(self, points: Float[Tensor, "*batch D"]) -> NormalEquations:
        """Energy, W^T r and the precision W^T W for every point (a view)."""
        whitening = self.whitening.to(points)
        residual = self.residual(points)
        precision = (whitening.mT @ whitening).expand(*points.shape[:-1], *whitening.shape)
        return NormalEquations(half_squared_norm(residual), residual @ whitening, precision)

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "{n} D"]:
        """mean + temperature W^-1 z, z from N(0, I)."""
        z = temperature * standard_normal(n, len(self.mean), self.mean, generator)
        return self.mean + torch.linalg.solve_triangular(self.whitening, z.mT, upper=False).mT


def fit_gaussian(points: Float[Tensor, "N D"], weights: Float[Tensor, "N"], floor: float) -> Gaussian:
    """Maximum likelihood from weighted points; no direction is narrower than the standard deviation `floor`."""
    mean, covariance = moments(points, weights)
    return Gaussian.from_covariance(mean, floored(covariance, floor))


def moments(
    points: Float[Tensor, "N D"], weights: Float[Tensor, "N"]
) -> tuple[Float[Tensor, "D"], Float[Tensor, "D D"]]:
    """Weighted mean and covariance."""
    share = weights / weights.sum()
    mean = share @ points
    centred = points - mean
    return mean, centred.mT @ (share[:, None] * centred)


def floored(covariance: Float[Tensor, "*batch D D"], floor: float) -> Float[Tensor, "*batch D D"]:
    """The covariance with every eigenvalue at least floor^2."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(floor**2)[..., None, :]) @ vectors.mT


def whitening_of(covariance: Float[Tensor, "*batch D D"]) -> Float[Tensor, "*batch D D"]:
    """The lower-triangular W with W covariance W^T = I: the inverse of the Cholesky factor."""
    root = torch.linalg.cholesky(covariance)
    identity = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
    return torch.linalg.solve_triangular(root, identity.expand_as(root), upper=False)


def covariance_of(whitening: Float[Tensor, "*batch D D"]) -> Float[Tensor, "*batch D D"]:
    """The inverse of `whitening_of`: (W^T W)^-1."""
    identity = torch.eye(whitening.shape[-1], dtype=whitening.dtype, device=whitening.device)
    root = torch.linalg.solve_triangular(whitening, identity.expand_as(whitening), upper=False)
    return root @ root.mT


def log_determinant(whitening: Float[Tensor, "*batch D D"]) -> Float[Tensor, "*batch"]:
    """log det W of a triangular matrix with a positive diagonal."""
    return whitening.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
