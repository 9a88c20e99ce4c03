"""The layers of a flow, as `normflows` flows: `forward` maps z to x, `inverse` x to z, each with its log-determinant.

Layers see points as rows, N of them, and compute in the type and on the device of the points.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import normflows as nf
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, prelu, softplus

Pullback = Callable[[Tensor], Tensor]
"""Rows times a layer's dz/dx: (R, D) or (N, R, D) to (R, D) or (N, R, D)."""

LEAST_SLOPE = 1e-3
WIDEST_LOG_SCALE = 2.0


class Layer(nf.flows.Flow, ABC):
    """An invertible map of R^D that can also start as the identity and be linearised."""

    @abstractmethod
    def start(self, generator: torch.Generator | None) -> None:
        """Make the layer the identity, drawing afresh what is random in it."""

    @abstractmethod
    def image(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """x of z, without the log-determinant: no matrix is factorised."""

    @abstractmethod
    def forward(self, z: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N"]]:
        """x of z, and log |det dx/dz|."""

    @abstractmethod
    def inverse(self, x: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N"]]:
        """z of x, and log |det dz/dx|."""

    @abstractmethod
    def linearised(self, x: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N D"], Pullback]:
        """z of x, and the product of rows with dz/dx there."""


class Linear(Layer):
    """x = W z + b; the way back takes one LU factorisation of W."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(dimension))
        self.bias = nn.Parameter(torch.zeros(dimension))

    @torch.no_grad()
    def start(self, generator: torch.Generator | None) -> None:
        """W = I, b = 0."""
        nn.init.eye_(self.weight)
        nn.init.zeros_(self.bias)

    def image(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """W z + b."""
        return linear(z, self.weight.to(z), self.bias.to(z))

    def forward(self, z: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N"]]:
        """W z + b, and log |det W|."""
        return self.image(z), torch.linalg.slogdet(self.weight.to(z)).logabsdet.expand(len(z))

    def inverse(self, x: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N"]]:
        """W^-1 (x - b), and -log |det W|."""
        z, log_det, _ = self._solved(x)
        return z, log_det.expand(len(x))

    def linearised(self, x: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N D"], Pullback]:
        """W^-1 (x - b), and rows W^-1."""
        z, _, inverse = self._solved(x)
        return z, lambda rows: rows @ inverse

    def _solved(self, x: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N D"], Float[Tensor, ""], Float[Tensor, "D D"]]:
        return Solve.apply(x, self.weight.to(x), self.bias.to(x))  # type: ignore[return-value]


class Solve(torch.autograd.Function):
    """(x, W, b) to (z, c, A): z = A (x - b), c = -log |det W| and A = W^-1, all from one LU factorisation of W.

    The inverse is formed because the derivative of c needs it; then every derivative is a matrix product.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "N D"], weight: Float[Tensor, "D D"], bias: Float[Tensor, "D"]
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, ""], Float[Tensor, "D D"]]:
        """The three results; A and z are all that the derivatives need."""
        factors, pivots, _ = torch.linalg.lu_factor_ex(weight)
        inverse = torch.linalg.lu_solve(factors, pivots, torch.eye(len(bias), dtype=x.dtype, device=x.device))
        z = (x - bias) @ inverse.mT
        ctx.save_for_backward(z, inverse)
        ctx.set_materialize_grads(False)
        return z, -factors.diagonal().abs().log().sum(), inverse

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """g_x = g_z A, g_b = -sum of g_x over the points, g_W = -g_x^T z - g_c A^T - A^T g_A A^T."""
        z, inverse = ctx.saved_tensors
        slope_z, slope_c, slope_inverse = slopes
        x, weight, bias = None, None, None
        if slope_z is not None:
            x = slope_z @ inverse
            bias = -x.sum(dim=0)
        if ctx.needs_input_grad[1]:
            weight = -slope_c * inverse.mT if slope_c is not None else torch.zeros_like(inverse)
            weight = weight if x is None else torch.addmm(weight, x.mT, z, alpha=-1)
            weight = weight if slope_inverse is None else weight - inverse.mT @ slope_inverse @ inverse.mT
        return x, weight, bias


class PReLU(Layer):
    """x = z where z >= 0, a z elsewhere; one positive slope a for all coordinates, or one for each.

    The slope is softplus(raw) + 0.001. The density jumps at the kinks unless a = 1; ||z||^2 does not.
    """

    def __init__(self, slopes: int) -> None:
        super().__init__()
        self.raw_slope = nn.Parameter(torch.empty(slopes))
        self.start(None)

    @torch.no_grad()
    def start(self, generator: torch.Generator | None) -> None:
        """a = 1."""
        nn.init.constant_(self.raw_slope, math.log(math.expm1(1 - LEAST_SLOPE)))

    def image(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """max(z, 0) + a min(z, 0)."""
        return prelu(z, self._slope(z))

    def forward(self, z: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N"]]:
        """The image, and the sum of log a over negative coordinates."""
        slope = self._slope(z)
        return prelu(z, slope), _sum_over_negatives(z, slope.log())

    def inverse(self, x: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N"]]:
        """max(x, 0) + min(x, 0) / a, and minus the sum of log a over negative coordinates."""
        steepness = 1 / self._slope(x)
        return prelu(x, steepness), _sum_over_negatives(x, steepness.log())

    def linearised(self, x: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N D"], Pullback]:
        """The inverse; its derivative is diagonal: 1 or 1 / a."""
        steepness = 1 / self._slope(x)
        diagonal = torch.where(x < 0, steepness, torch.ones_like(steepness))[:, None, :]
        return prelu(x, steepness), lambda rows: rows * diagonal

    def _slope(self, like: Tensor) -> Float[Tensor, "S"]:
        return softplus(self.raw_slope.to(like)) + LEAST_SLOPE


def _sum_over_negatives(points: Float[Tensor, "N D"], terms: Float[Tensor, "S"]) -> Float[Tensor, "N"]:
    return (points < 0).to(points) @ terms.expand(points.shape[-1])


class Coupling(Layer):
    """Half of the coordinates, v, moves as the other half, u, tells: v to v exp(s(u)) + t(u), u stays.

    s = 2 tanh(net(u) / 2), so that no scale leaves [e^-2, e^2]; t is a net of its own (Dinh, Sohl-Dickstein and
    Bengio, "Density estimation using Real NVP", ICLR 2017). `first_moves` says which half v is.
    """

    def __init__(self, dimension: int, hidden: int, first_moves: bool) -> None:
        super().__init__()
        if dimension < 2:
            raise ValueError(f"a coupling needs two coordinates or more, and the dimension is {dimension}")
        self.sizes = [dimension // 2, dimension - dimension // 2]
        self.first_moves = first_moves
        moved, kept = self.sizes if first_moves else self.sizes[::-1]
        self.scale = Net(kept, hidden, moved)
        self.shift = Net(kept, hidden, moved)

    @torch.no_grad()
    def start(self, generator: torch.Generator | None) -> None:
        """s = t = 0."""
        self.scale.start(generator)
        self.shift.start(generator)

    def image(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """u, and v exp(s) + t."""
        return self.forward(z)[0]

    def forward(self, z: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N"]]:
        """u and v exp(s) + t, and the sum of s."""
        kept, moved = self._parted(z)
        log_scale = _bounded(self.scale(kept))
        return self._joined(kept, moved * log_scale.exp() + self.shift(kept)), log_scale.sum(dim=-1)

    def inverse(self, x: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N"]]:
        """u and (v - t) exp(-s), and minus the sum of s."""
        kept, moved = self._parted(x)
        log_scale = _bounded(self.scale(kept))
        return self._joined(kept, (moved - self.shift(kept)) * (-log_scale).exp()), -log_scale.sum(dim=-1)

    def linearised(self, x: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N D"], Pullback]:
        """The inverse v' = (v - t) exp(-s); dv'/dv = exp(-s), dv'/du = -exp(-s) dt/du - v' ds/du."""
        kept, moved = self._parted(x)
        raw, raw_jacobian = self.scale.linearised(kept)
        shift, shift_jacobian = self.shift.linearised(kept)
        log_scale = _bounded(raw)
        shrink = (-log_scale).exp()
        moved = (moved - shift) * shrink
        steepness = moved * (1 - (log_scale / WIDEST_LOG_SCALE).square())
        crossed = shrink[:, :, None] * shift_jacobian + steepness[:, :, None] * raw_jacobian

        def pullback(rows: Tensor) -> Tensor:
            kept_rows, moved_rows = self._parted(rows)
            return self._joined(kept_rows - moved_rows @ crossed, moved_rows * shrink[:, None, :])

        return self._joined(kept, moved), pullback

    def _parted(self, points: Float[Tensor, "*rows D"]) -> tuple[Float[Tensor, "*rows U"], Float[Tensor, "*rows V"]]:
        first, second = points.split(self.sizes, dim=-1)
        return (second, first) if self.first_moves else (first, second)

    def _joined(self, kept: Float[Tensor, "*rows U"], moved: Float[Tensor, "*rows V"]) -> Float[Tensor, "*rows D"]:
        return torch.cat([moved, kept] if self.first_moves else [kept, moved], dim=-1)


def _bounded(raw: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
    """2 tanh(raw / 2), whose derivative is 1 - (value / 2)^2."""
    return WIDEST_LOG_SCALE * (raw / WIDEST_LOG_SCALE).tanh()


class Net(nn.Module):
    """W3 tanh(W2 tanh(W1 u + b1) + b2) + b3."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        sizes = [(hidden, inputs), (hidden, hidden), (outputs, hidden)]
        self.weights = nn.ParameterList(torch.zeros(size) for size in sizes)
        self.biases = nn.ParameterList(torch.zeros(outs) for outs, _ in sizes)

    @torch.no_grad()
    def start(self, generator: torch.Generator | None) -> None:
        """Zero, whatever the input; the hidden layers are uniform within 1 / sqrt(inputs)."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            reach = 1 / math.sqrt(weight.shape[-1])
            for parameter in (weight, bias):
                parameter.copy_(torch.empty(parameter.shape).uniform_(-reach, reach, generator=generator))
        nn.init.zeros_(self.weights[-1])
        nn.init.zeros_(self.biases[-1])

    def forward(self, given: Float[Tensor, "N U"]) -> Float[Tensor, "N V"]:
        """The outputs."""
        first, second, last = self._affine(given)
        return linear(linear(linear(given, *first).tanh(), *second).tanh(), *last)

    def linearised(self, given: Float[Tensor, "N U"]) -> tuple[Float[Tensor, "N V"], Float[Tensor, "N V U"]]:
        """The outputs, and their derivative W3 diag(1 - h2^2) W2 diag(1 - h1^2) W1."""
        first, second, last = self._affine(given)
        h1 = linear(given, *first).tanh()
        h2 = linear(h1, *second).tanh()
        to_h1 = (last[0] * (1 - h2.square())[:, None, :]) @ second[0]
        return linear(h2, *last), (to_h1 * (1 - h1.square())[:, None, :]) @ first[0]

    def _affine(self, like: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(weight.to(like), bias.to(like)) for weight, bias in zip(self.weights, self.biases, strict=True)]
