"""A variational autoencoder of joint rotations, of the size of VPoser (Pavlakos et al., CVPR 2019)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import roma
import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.charts import SixD
from priors.prior import NormalEquations, half_squared_norm, share_above, standard_normal
from priors.so3 import inverse_right_jacobian, log_volume

Activation = Literal["leaky_relu", "elu", "tanh"]

_START_EXCESS_RAD = 0.05
"""How far above the least each joint's standard deviation starts. From 0.3 rad, training is slow to come down."""
_JACOBIANS_AT_ONCE = 256
_DRAWS_AT_ONCE = 4096
_COLUMNS = SixD(torch.eye(3)[None])
"""Two columns of each matrix, and back; no mean enters."""


@dataclass(frozen=True)
class VAEConfig:
    """The sizes of a VAE, and what its loss is."""

    latent: int = 32
    hidden: int = 512
    activation: Activation = "tanh"
    kl_weight: float = 1.0
    """Weight of the KL divergence in `VAE.loss`; 1 makes it the bound."""
    least_std_rad: float = 0.02
    """No joint's likelihood is narrower."""
    draws: int = 64
    """Latent draws behind `VAE.log_prob`."""

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"draws must be 1 or more; found {self.draws}")
        if not 0 < self.least_std_rad < math.inf:
            raise ValueError(f"least_std_rad must be above 0 and finite; found {self.least_std_rad}")


class Perceptron(nn.Module):
    """y = W3 a(W2 a(W1 x + b1) + b2) + b3, the activation a element by element; computed in the type of x."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, activation: Activation, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.first = _random_layer(inputs, hidden, generator)
        self.middle = _random_layer(hidden, hidden, generator)
        self.last = _random_layer(hidden, outputs, generator)
        self.activation, self.slope = _ACTIVATIONS[activation]

    def forward(self, x: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch B"]:
        """y."""
        inner = self.activation(_affine(self.first, x))
        return _affine(self.last, self.activation(_affine(self.middle, inner)))

    def value_and_jacobian(
        self, x: Float[Tensor, "*batch A"], outputs: int
    ) -> tuple[Float[Tensor, "*batch B"], Float[Tensor, "*batch B A"]]:
        """The first so many entries of y, and dy/dx = W3 S2 W2 S1 W1, multiplied from its thinner side."""
        before1 = _affine(self.first, x)
        before2 = _affine(self.middle, self.activation(before1))
        value = _affine(self.last, self.activation(before2))[..., :outputs]
        w1, w2, w3 = (layer.weight.to(x) for layer in (self.first, self.middle, self.last))
        w3 = w3[:outputs]
        s1, s2 = self.slope(before1)[..., None, :], self.slope(before2)[..., None, :]
        if outputs <= x.shape[-1]:
            return value, ((w3 * s2) @ w2 * s1) @ w1
        return value, (((w1.mT * s1) @ w2.mT * s2) @ w3.mT).mT


class VAE(nn.Module):
    """p(R) = the integral over z of N(z; 0, I) p(R | z), p(R | z) = prod_j N(log(D_j(z)^T R_j); 0, s_j^2 I) / volume.

    The decoder D takes z to two columns of each matrix and Gram-Schmidt makes rotations of them; s_j is learned, one
    for each joint. The encoder gives q(z | R) = N(mean, diag(variance)) from the columns of R. What the likelihood has
    beyond angles of pi is not on SO(3): the little that it is, p(R) is too low.
    """

    energy_quantiles: Tensor

    def __init__(
        self,
        joints: int,
        config: VAEConfig,
        generator: torch.Generator | None = None,
        energy_quantiles: Float[Tensor, "Q"] | None = None,
    ) -> None:
        """Random parameters; `energy_quantiles` are those of `PosePrior`, and without them `score` is 0."""
        super().__init__()
        self.config = config
        self.encoder = Perceptron(6 * joints, config.hidden, 2 * config.latent, config.activation, generator)
        self.decoder = Perceptron(config.latent, config.hidden, 6 * joints, config.activation, generator)
        self.log_growth = nn.Parameter(torch.zeros(joints))
        self.register_buffer("energy_quantiles", torch.zeros(2) if energy_quantiles is None else energy_quantiles)

    @torch.no_grad()
    def start_at(self, mean_rotations: Float[Tensor, "J 3 3"]) -> None:
        """Shift the decoder's last bias so that decode(0) is these rotations: a sane start for training."""
        bias = self.decoder.last.bias
        bias += _COLUMNS.points(mean_rotations.to(bias)) - self.decoder(bias.new_zeros(self.config.latent))

    @property
    def std_rad(self) -> Float[Tensor, "J"]:
        """s_j, radians."""
        return self.config.least_std_rad + _START_EXCESS_RAD * self.log_growth.exp()

    @property
    def noise_size(self) -> int:
        """One number for each latent dimension."""
        return self.config.latent

    @property
    @torch.no_grad()
    def mean_rotations(self) -> Float[Tensor, "J 3 3"]:
        """decode(0), without gradient."""
        return self.decode(self.log_growth.new_zeros(self.config.latent))

    def posterior(
        self, rotations: Float[Tensor, "*batch J 3 3"]
    ) -> tuple[Float[Tensor, "*batch L"], Float[Tensor, "*batch L"]]:
        """The mean and the log variance of q(z | R)."""
        mean, log_variance = self.encoder(_COLUMNS.points(rotations)).chunk(2, dim=-1)
        return mean, log_variance

    def encode(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch L"]:
        """The mean of q(z | R)."""
        return self.posterior(rotations)[0]

    def decode(self, latent: Float[Tensor, "*batch L"]) -> Float[Tensor, "*batch J 3 3"]:
        """D(z), the mode of p(R | z)."""
        return _COLUMNS.rotations(self.decoder(latent))

    def offsets(
        self, rotations: Float[Tensor, "*batch J 3 3"], latent: Float[Tensor, "*batch L"]
    ) -> Float[Tensor, "*batch J 3"]:
        """log(D_j(z)^T R_j), radians: how far the rotations are from the decoded ones."""
        return roma.rotmat_to_rotvec(self.decode(latent).mT @ rotations)

    def log_likelihood(
        self, rotations: Float[Tensor, "*batch J 3 3"], latent: Float[Tensor, "*batch L"]
    ) -> Float[Tensor, "*batch"]:
        """log p(R | z) in nats, per radian^3 a joint."""
        phi = self.offsets(rotations, latent)
        std = self.std_rad.to(phi)
        density = -half_squared_norm(phi / std[:, None]) - 3 * std.log() - 1.5 * math.log(2 * math.pi)
        return (density - log_volume(phi)).sum(dim=-1)

    def negative_elbo(
        self, rotations: Float[Tensor, "*batch J 3 3"], noise: Float[Tensor, "*batch L"], kl_weight: float = 1.0
    ) -> Float[Tensor, "*batch"]:
        """-log p(R | z) + KL(q(z | R) || N(0, I)) at z = mean + std * noise (Kingma and Welling, ICLR 2014).

        With weight 1 its mean over noise is at least -log p(R); a warm-up calls it with a weight that grows to 1.
        """
        mean, log_variance = self.posterior(rotations)
        latent = mean + (log_variance / 2).exp() * noise.to(mean)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=-1) / 2
        return kl_weight * divergence - self.log_likelihood(rotations, latent)

    def loss(
        self, rotations: Float[Tensor, "*batch J 3 3"], noise: Float[Tensor, "*batch L"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """`negative_elbo` with the config's weight, nats a pose; `noise` is drawn afresh when it is None."""
        if noise is None:
            noise = torch.randn(*rotations.shape[:-3], self.noise_size).to(rotations)
        return self.negative_elbo(rotations, noise, self.config.kl_weight)

    def log_prob(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch"]:
        """A lower bound of the log-density on SO(3)^J in nats, per radian^3 a joint: `bound` with K fixed draws.

        All poses, and all calls, share the draws. They are K = `config.draws`; more come closer.
        """
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(self.config.draws, self.noise_size, generator=generator, dtype=torch.float64)

        def bound_of(some: Float[Tensor, "N J 3 3"]) -> tuple[Float[Tensor, "N"]]:
            return (self.bound(some, noise.to(some).expand(len(some), -1, -1)),)

        return _in_chunks(bound_of, rotations, max(1, _DRAWS_AT_ONCE // self.config.draws))[0]

    def bound(
        self, rotations: Float[Tensor, "*batch J 3 3"], noise: Float[Tensor, "*batch K L"]
    ) -> Float[Tensor, "*batch"]:
        """log 1/K sum over k of p(R | z_k) N(z_k; 0, I) / q(z_k | R), z_k = mean + std * noise_k, in nats.

        The importance-weighted bound (Burda et al., ICLR 2016): on average over noise it is at most log p(R), and at
        least the evidence bound that `negative_elbo` negates.
        """
        mean, log_variance = (moment[..., None, :] for moment in self.posterior(rotations))
        latent = mean + (log_variance / 2).exp() * noise
        log_ratio = half_squared_norm(noise) - half_squared_norm(latent) + log_variance.sum(dim=-1) / 2
        repeated = rotations[..., None, :, :, :].expand(*latent.shape[:-1], *rotations.shape[-3:])
        joint = self.log_likelihood(repeated, latent)
        return (joint + log_ratio).logsumexp(dim=-1) - math.log(noise.shape[-2])

    def energy(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch"]:
        """1/2 ||residual||^2."""
        return half_squared_norm(self.residual(rotations))

    def residual(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch E"]:
        """z and log(D_j(z)^T R_j) / s_j at the encoder's mean z, E = L + 3 J.

        So the energy is -log p(z) - log p(R | z) there, up to a constant and the volume that the logarithm stretches.
        """
        latent = self.encode(rotations)
        phi = self.offsets(rotations, latent)
        return torch.cat([latent, (phi / self.std_rad.to(phi)[:, None]).flatten(-2)], dim=-1)

    def residual_and_jacobian(
        self, rotations: Float[Tensor, "*batch J 3 3"]
    ) -> tuple[Float[Tensor, "*batch E"], Float[Tensor, "*batch E T"]]:
        """The residual and its derivative along the right tangent, T = 3 J.

        When R_j <- R_j exp(delta_j) and D_j <- D_j exp(epsilon_j), phi_j = log(D_j^T R_j) moves by
        Jr^-1(phi_j) delta_j - Jl^-1(phi_j) epsilon_j, and Jl^-1 is the transpose of Jr^-1.
        """
        latent, latent_by_delta = self._latent_and_jacobian(rotations)
        decoded, by_latent = self._decoded_and_jacobian(latent)
        phi = roma.rotmat_to_rotvec(decoded.mT @ rotations)
        blocks = inverse_right_jacobian(phi)
        by_delta = -(blocks.mT @ (by_latent @ latent_by_delta[..., None, :, :]))
        by_delta = by_delta.unflatten(-1, phi.shape[-2:])
        by_delta.diagonal(dim1=-4, dim2=-2).add_(blocks.movedim(-3, -1))
        std = self.std_rad.to(phi)[:, None]
        whitened = (by_delta.flatten(-2) / std[..., None]).flatten(-3, -2)
        return torch.cat([latent, (phi / std).flatten(-2)], dim=-1), torch.cat([latent_by_delta, whitened], dim=-2)

    def normal_equations(self, rotations: Float[Tensor, "*batch J 3 3"]) -> NormalEquations:
        """Energy, J^T r and J^T J along the right tangent, T = 3 J."""
        return NormalEquations(*_in_chunks(self._normal_equations, rotations, _JACOBIANS_AT_ONCE))

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "{n} J 3 3"]:
        """Random poses of p(R), the likelihood's noise included; `temperature` multiplies the standard deviations.

        D_j(T z) exp(T s_j e_j), z and e_j from N(0, I). Calmer poses, without the noise, are decode(T z).
        """
        noise = temperature * standard_normal(n, self.noise_size + 3 * len(self.log_growth), self.log_growth, generator)
        with torch.no_grad():
            phi = self.std_rad[:, None] * noise[:, self.noise_size :].unflatten(-1, (-1, 3))
            return self.decode(noise[:, : self.noise_size]) @ roma.rotvec_to_rotmat(phi)

    def score(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch"]:
        """The share of real poses whose energy is higher, 0 to 1, linear between the stored quantiles."""
        return share_above(self.energy(rotations), self.energy_quantiles)

    def _normal_equations(self, rotations: Float[Tensor, "N J 3 3"]) -> NormalEquations:
        residual, jacobian = self.residual_and_jacobian(rotations)
        gradient = (jacobian.mT @ residual[..., None]).squeeze(dim=-1)
        return NormalEquations(half_squared_norm(residual), gradient, jacobian.mT @ jacobian)

    def _latent_and_jacobian(
        self, rotations: Float[Tensor, "*batch J 3 3"]
    ) -> tuple[Float[Tensor, "*batch L"], Float[Tensor, "*batch L T"]]:
        """encode(R), and its derivative along the right tangent."""
        columns, blocks = _COLUMNS.points_and_blocks(rotations)
        latent, by_columns = self.encoder.value_and_jacobian(columns, self.config.latent)
        by_joint = by_columns.unflatten(-1, blocks.shape[-3:-1])
        return latent, torch.einsum("...ljc,...jct->...ljt", by_joint, blocks).flatten(-2)

    def _decoded_and_jacobian(
        self, latent: Float[Tensor, "*batch L"]
    ) -> tuple[Float[Tensor, "*batch J 3 3"], Float[Tensor, "*batch J 3 L"]]:
        """decode(z), and its derivative dz -> epsilon_j, D_j <- D_j exp(epsilon_j)."""
        columns, by_latent = self.decoder.value_and_jacobian(latent, 6 * len(self.log_growth))
        blocks = gram_schmidt_blocks(columns.unflatten(-1, (-1, 6)))
        return _COLUMNS.rotations(columns), blocks @ by_latent.unflatten(-2, (-1, 6))


def gram_schmidt_blocks(columns: Float[Tensor, "*batch J 6"]) -> Float[Tensor, "*batch J 3 6"]:
    """The derivative dx -> epsilon of Gram-Schmidt, D <- D exp(epsilon), at two columns x = [a b] written row by row.

    With D = [d1 d2 d3], n = ||a|| and m = d2 . b: epsilon_1 = (d3 . db - (d1 . b / n) d3 . da) / m,
    epsilon_2 = -d3 . da / n, epsilon_3 = d2 . da / n.
    """
    a, b = columns.unflatten(-1, (3, 2)).unbind(dim=-1)
    d1, d2, d3 = _COLUMNS.rotations(columns.flatten(-2)).unbind(dim=-1)
    n, m = a.norm(dim=-1, keepdim=True), (d2 * b).sum(dim=-1, keepdim=True)
    shear = (d1 * b).sum(dim=-1, keepdim=True)
    by_a = torch.stack([-shear / (n * m) * d3, -d3 / n, d2 / n], dim=-2)
    by_b = torch.stack([d3 / m, torch.zeros_like(d3), torch.zeros_like(d3)], dim=-2)
    return torch.stack([by_a, by_b], dim=-1).flatten(-2)


def _random_layer(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    """Glorot's uniform weights (AISTATS 2010), no bias yet."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def _affine(layer: nn.Linear, x: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch B"]:
    return nn.functional.linear(x, layer.weight.to(x), layer.bias.to(x))


def _in_chunks(
    function: Callable[[Tensor], tuple[Tensor, ...]], rotations: Float[Tensor, "*batch J 3 3"], size: int
) -> tuple[Tensor, ...]:
    """function(rotations), so many poses at a time."""
    batch, pose = rotations.shape[:-3], rotations.shape[-3:]
    answers = [function(some) for some in rotations.reshape(-1, *pose).split(size)]
    whole = [torch.cat(parts) for parts in zip(*answers, strict=True)]
    return tuple(answer.reshape((*batch, *answer.shape[1:])) for answer in whole)


def _leaky_relu_slope(x: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
    return torch.full_like(x, 0.01).masked_fill(x > 0, 1)


def _elu_slope(x: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
    return x.clamp_max(0).exp()


def _tanh_slope(x: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
    return 1 - x.tanh().square()


_ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "leaky_relu": (nn.functional.leaky_relu, _leaky_relu_slope),
    "elu": (nn.functional.elu, _elu_slope),
    "tanh": (torch.tanh, _tanh_slope),
}
"""Each function with its derivative."""
