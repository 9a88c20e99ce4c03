"""The normalizing flow on R^D: a chain of FC layers and invertible activations from z of N(0, I) to the point x."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.flow_layers import Coupling, Layer, Linear, PReLU
from priors.gaussian import Gaussian
from priors.prior import Density, NormalEquations, half_squared_norm, standard_normal

CACHED_CHUNK = 128
LARGE_CHUNK = 4096
"""Jacobians in work at one time: on a processor they should stay in its cache; elsewhere memory is the limit."""


@dataclass(frozen=True)
class FlowConfig:
    """FC, then `depth` times an activation and an FC.

    The activation is a PReLU with one slope, a PReLU with a slope for each coordinate, or a RealNVP coupling whose two
    nets have two layers of `hidden` units.
    """

    activation: Literal["prelu", "prelu_per_coordinate", "coupling"] = "coupling"
    depth: int = 4
    hidden: int = 128

    def __post_init__(self) -> None:
        if self.depth < 0 or self.hidden < 1:
            raise ValueError(f"depth must be 0 or more and hidden 1 or more; found {self.depth} and {self.hidden}")


class Flow(nn.Module):
    """x = decode(z), with z of the base density: N(0, I), or another one such as a mixture.

    log p(x) = log base(z) + log |det dz/dx|, z = encode(x). The energy is the base's at z, 1/2 ||z||^2 for N(0, I),
    without the determinant: with PReLUs the density jumps where the energy is continuous. With one-slope PReLUs in
    138 dimensions this is the low-capacity flow of Zanfir et al., "Weakly supervised 3D human pose and shape
    reconstruction with normalizing flows", ECCV 2020: 95,914 parameters. It is made as the identity.
    """

    def __init__(
        self,
        dimension: int,
        config: FlowConfig,
        base: Density | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.dimension = dimension
        self.config = config
        self.base = base
        self.layers = nn.ModuleList([Linear(dimension)])
        for step in range(config.depth):
            self.layers.extend([_activation(dimension, config, step), Linear(dimension)])
        self.start_at(Gaussian(torch.zeros(dimension), torch.eye(dimension)), generator)

    @torch.no_grad()
    def start_at(self, gaussian: Gaussian, generator: torch.Generator | None = None) -> None:
        """Forget all training and make x = L z + mean, L L^T the covariance: on N(0, I), that Gaussian exactly.

        The activations become the identity, the FCs random rotations or reflections, and the last FC undoes them.
        """
        for layer in self._chain():
            layer.start(generator)
        *inner, last = (layer for layer in self._chain() if isinstance(layer, Linear))
        undo = identity = torch.eye(self.dimension, dtype=torch.float64)
        for layer in inner:
            turn = nn.init.orthogonal_(torch.empty_like(identity), generator=generator)
            layer.weight.copy_(turn)
            undo = undo @ turn.mT
        last.weight.copy_(torch.linalg.solve_triangular(gaussian.whitening.to(undo), undo, upper=False))
        last.bias.copy_(gaussian.mean)

    def encode(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """z of x."""
        return self._encoded(self._rows(points))[0].reshape(points.shape)

    def decode(self, z: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """x of z: products only, no matrix is inverted."""
        x = self._rows(z)
        for layer in self._chain():
            x = layer.image(x)
        return x.reshape(z.shape)

    def log_prob(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """log base(z) + log |det dz/dx|."""
        z, log_det = self._encoded(self._rows(points))
        return (self._base_log_prob(z) + log_det).reshape(points.shape[:-1])

    def residual(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch E"]:
        """z, or the base's residual at z."""
        z = self.encode(points)
        return z if self.base is None else self.base.residual(z)

    def residual_and_jacobian(
        self, points: Float[Tensor, "*batch D"]
    ) -> tuple[Float[Tensor, "*batch E"], Float[Tensor, "*batch E D"]]:
        """The residual, and its derivative as the product of the layers'."""
        residual, jacobian = self._by_chunks(self._linearised, points)
        return residual, jacobian

    def normal_equations(self, points: Float[Tensor, "*batch D"]) -> NormalEquations:
        """Energy, J^T r and J^T J."""

        def of_rows(rows: Float[Tensor, "N D"]) -> tuple[Tensor, ...]:
            residual, jacobian = self._linearised(rows)
            gradient = (residual[:, None, :] @ jacobian).squeeze(dim=-2)
            return half_squared_norm(residual), gradient, jacobian.mT @ jacobian

        return NormalEquations(*self._by_chunks(of_rows, points))

    @torch.no_grad()
    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "{n} D"]:
        """decode(z), z from the base with its standard deviations times `temperature`; for gradients, use `decode`."""
        if self.base is not None:
            return self.decode(self.base.sample(n, temperature, generator))
        return self.decode(temperature * standard_normal(n, self.dimension, next(self.parameters()), generator))

    def _base_log_prob(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N"]:
        if self.base is not None:
            return self.base.log_prob(z)
        return -half_squared_norm(z) - self.dimension / 2 * math.log(2 * math.pi)

    def _encoded(self, points: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N"]]:
        last, *others = reversed(self._chain())
        points, log_det = last.inverse(points)
        for layer in others:
            points, step = layer.inverse(points)
            log_det = log_det + step
        return points, log_det

    def _linearised(self, points: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N E"], Float[Tensor, "N E D"]]:
        """Points go through the layers from x to z, then rows of the Jacobian back from z to x."""
        pullbacks = []
        for layer in reversed(self._chain()):
            points, pullback = layer.linearised(points)
            pullbacks.append(pullback)
        rows = torch.eye(self.dimension, dtype=points.dtype, device=points.device)
        if self.base is not None:
            points, rows = self.base.residual_and_jacobian(points)
        for pullback in reversed(pullbacks):
            rows = pullback(rows)
        return points, rows.expand(len(points), -1, -1)

    def _by_chunks(
        self, function: Callable[[Tensor], tuple[Tensor, ...]], points: Float[Tensor, "*batch D"]
    ) -> tuple[Tensor, ...]:
        """The function on some rows at a time, its answers joined and given the batch shape of the points."""
        chunks = self._rows(points).split(CACHED_CHUNK if points.device.type == "cpu" else LARGE_CHUNK)
        answers = zip(*map(function, chunks), strict=True)
        return tuple(torch.cat(parts).reshape(points.shape[:-1] + parts[0].shape[1:]) for parts in answers)

    def _rows(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "N D"]:
        if points.shape[-1] != self.dimension:
            raise ValueError(f"the flow is on R^{self.dimension} and the points have shape {tuple(points.shape)}")
        return points.reshape(-1, self.dimension)

    def _chain(self) -> list[Layer]:
        """The layers from z to x."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]


def _activation(dimension: int, config: FlowConfig, step: int) -> Layer:
    match config.activation:
        case "prelu":
            return PReLU(1)
        case "prelu_per_coordinate":
            return PReLU(dimension)
        case "coupling":
            return Coupling(dimension, config.hidden, first_moves=step % 2 == 1)
    raise ValueError(f"unknown activation {config.activation!r}")
