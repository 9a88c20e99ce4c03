"""Student's t on blocks of coordinates: a base for flows whose tails forgive a limb that does what none did before."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.prior import NormalEquations, half_squared_norm, standard_normal


class StudentT(nn.Module):
    """The product of multivariate t densities, one for every `block` neighbouring coordinates of R^D.

    log p(x) = sum over blocks b of log G((nu+d)/2) - log G(nu/2) - d/2 log(nu pi) - (nu+d)/2 log(1 + q/nu), with
    q = ||x_b||^2 and the degrees of freedom nu learned for each block. Its energy, (nu+d)/2 log(1 + q/nu), is -log p
    up to a constant.
    """

    def __init__(self, dimension: int, block: int, dof: float) -> None:
        super().__init__()
        if dimension % block:
            raise ValueError(f"blocks of {block} coordinates do not fill {dimension}")
        self.block = block
        self.log_dof = nn.Parameter(torch.full((dimension // block,), math.log(dof)))

    def log_prob(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """As above, in nats."""
        nu, d = self.log_dof.to(points).exp(), self.block
        constant = torch.lgamma((nu + d) / 2) - torch.lgamma(nu / 2) - d / 2 * (nu * math.pi).log()
        squared = points.unflatten(-1, (-1, d)).square().sum(dim=-1)
        return (constant - (nu + d) / 2 * (squared / nu).log1p()).sum(dim=-1)

    def residual(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """x_b f(q), f^2 = (nu+d)/nu log(1 + u)/u, u = q/nu."""
        blocks = points.unflatten(-1, (-1, self.block))
        return (self._stretch(blocks)[0][..., None] * blocks).flatten(-2)

    def residual_and_jacobian(
        self, points: Float[Tensor, "*batch D"]
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch D D"]]:
        """The residual, and the block-diagonal f I + 2 f' x x^T."""
        blocks = points.unflatten(-1, (-1, self.block))
        stretch, slope = self._stretch(blocks)
        identity = torch.eye(self.block, dtype=points.dtype, device=points.device)
        outer = blocks[..., :, None] * blocks[..., None, :]
        rows = torch.arange(points.shape[-1], device=points.device).unflatten(0, (-1, self.block))
        jacobian = points.new_zeros(*points.shape, points.shape[-1])
        jacobian[..., rows[:, :, None], rows[:, None, :]] = (
            stretch[..., None, None] * identity + 2 * slope[..., None, None] * outer
        )
        return (stretch[..., None] * blocks).flatten(-2), jacobian

    def normal_equations(self, points: Float[Tensor, "*batch D"]) -> NormalEquations:
        """From the residual and its Jacobian."""
        residual, jacobian = self.residual_and_jacobian(points)
        gradient = (jacobian.mT @ residual[..., None]).squeeze(dim=-1)
        return NormalEquations(half_squared_norm(residual), gradient, jacobian.mT @ jacobian)

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "{n} D"]:
        """temperature z sqrt(nu / c), z from N(0, I) and c of each block from chi-squared with nu degrees of freedom.

        Drawn through numpy, whose gamma variates follow a seed on every platform.
        """
        nu = self.log_dof.detach().double().exp().cpu()
        z = standard_normal(n, len(nu) * self.block, self.log_dof.detach(), generator).unflatten(-1, (-1, self.block))
        seed = torch.randint(2**31, (1,), generator=generator, device="cpu" if generator is None else generator.device)
        chi_squared = _chi_squared(n, nu, int(seed))
        return (temperature * z * (nu / chi_squared).sqrt().to(z)[..., None]).flatten(-2)

    def _stretch(
        self, blocks: Float[Tensor, "*batch G d"]
    ) -> tuple[Float[Tensor, "*batch G"], Float[Tensor, "*batch G"]]:
        """f of each block, and df/dq."""
        nu = self.log_dof.to(blocks).exp()
        u = blocks.square().sum(dim=-1) / nu
        ratio, slope = log1p_ratio(u)
        gain = (nu + self.block) / nu
        f = (gain * ratio).sqrt()
        return f, gain * slope / (2 * f * nu)


def log1p_ratio(u: Float[Tensor, "*batch"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """log(1 + u) / u and its derivative, by their series where u is small."""
    small = u < 1e-2
    safe = torch.where(small, torch.ones_like(u), u)
    ratio = safe.log1p() / safe
    slope = (1 / (1 + safe) - ratio) / safe
    series = 1 - u * (1 / 2 - u * (1 / 3 - u * (1 / 4 - u * (1 / 5 - u * (1 / 6 - u / 7)))))
    its_slope = -1 / 2 + u * (2 / 3 - u * (3 / 4 - u * (4 / 5 - u * (5 / 6 - u * 6 / 7))))
    return torch.where(small, series, ratio), torch.where(small, its_slope, slope)


def _chi_squared(n: int, dof: Float[Tensor, "G"], seed: int) -> Float[Tensor, "{n} G"]:
    draws = np.random.default_rng(seed).chisquare(dof.numpy(), size=(n, len(dof)))
    return torch.from_numpy(draws)
