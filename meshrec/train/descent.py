"""Gradient descent of one phase of a task: its optimiser, its learning rate and its clipping."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from meshrec.config import require_positive, require_range


@dataclass(frozen=True)
class OptimizerConfig:
    """How gradients become steps."""

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    """SGD has no momentum."""
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam: decay of the means of the gradient and of its square."""
    weight_decay: float = 0.0
    """Of matrices and convolutions alone: biases, slopes and scales have no reason to be small."""
    clip_norm: float = 0.0
    """The gradient of each network is scaled down to this norm; 0 leaves it as it is."""
    schedule: Literal["constant", "exponential", "cosine"] = "constant"
    """How the rate falls: never, by `decay` every `decay_steps`, or along half a wave to 0 at the last step."""
    decay: float = 1.0
    """Exponential: the rate is multiplied by this every `decay_steps` steps."""
    decay_steps: int = 10_000
    warmup_steps: int = 0
    """The rate rises linearly over the first steps, whatever the schedule."""

    def __post_init__(self) -> None:
        require_positive(self, "learning_rate", "decay", "decay_steps")
        require_range(self, weight_decay=(0, math.inf), clip_norm=(0, math.inf), warmup_steps=(0, math.inf))
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas is {self.betas}; both must be in [0, 1)")


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The rate of step 0, 1, ..., `steps` - 1: warm-up times schedule.

    Exponential: rate decay^floor(step / decay_steps). Cosine: half a wave from the rate to 0, after the warm-up.
    """
    warmth = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    if config.schedule == "exponential":
        return config.learning_rate * warmth * config.decay ** (step // config.decay_steps)
    if config.schedule == "cosine":
        way = max(step - config.warmup_steps, 0) / max(steps - config.warmup_steps, 1)
        return config.learning_rate * warmth * (1 + math.cos(math.pi * min(way, 1.0))) / 2
    return config.learning_rate * warmth


@dataclass(frozen=True)
class Phase:
    """Networks that step together, down the sum of losses of their own.

    Most tasks have one phase. A GAN has two, and each step runs them in turn.
    """

    name: str
    networks: tuple[nn.Module, ...]
    """Their parameters that require gradients are trained; each network is clipped on its own."""
    optimizer: OptimizerConfig | None = None
    """None takes the optimiser of the loop."""
    times: int = 1
    """Steps of this phase in each step of the loop."""


class Descent:
    """The optimiser of one phase, with its tensors by name."""

    def __init__(self, phase: Phase, config: OptimizerConfig, model: nn.Module) -> None:
        self.phase, self.config = phase, config
        self._networks = [[p for p in network.parameters() if p.requires_grad] for network in phase.networks]
        names = {parameter: name for name, parameter in model.named_parameters()}
        trained = (parameter for network in self._networks for parameter in network)
        self.parameters = sorted(trained, key=_is_vector)
        missing = [tuple(parameter.shape) for parameter in self.parameters if parameter not in names]
        if missing or not self.parameters:
            raise ValueError(f"phase {phase.name!r} trains parameters of shapes {missing}, which the model has not")
        self._names = [names[parameter] for parameter in self.parameters]
        self.optimizer = _optimizer(config, self.parameters)

    def backward(self, loss: Float[Tensor, ""], weight: float = 1.0) -> None:
        """Add the gradient of weight * loss to this phase's parameters, and to no others that it flows through."""
        torch.autograd.backward(loss, torch.full_like(loss, weight), inputs=self.parameters)

    def gradients(self) -> list[Tensor]:
        """The gradient of every parameter."""
        found = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if len(found) < len(self.parameters):
            idle = [n for n, p in zip(self._names, self.parameters, strict=True) if p.grad is None]
            raise ValueError(f"the losses of phase {self.phase.name!r} do not depend on {', '.join(idle)}")
        return found

    def step(self, rate: float) -> Float[Tensor, ""]:
        """One clipped step, which uses the gradients up; returns their norm before the clipping."""
        norms = [self._clipped(network) for network in self._networks if network]
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        for parameter in self.parameters:
            parameter.grad = None
        return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))

    def _clipped(self, network: list[nn.Parameter]) -> Float[Tensor, ""]:
        norm = nn.utils.get_total_norm([parameter.grad for parameter in network if parameter.grad is not None])
        if self.config.clip_norm:
            nn.utils.clip_grads_with_norm_(network, self.config.clip_norm, norm)
        return norm

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What the optimiser remembers, by the name of the parameter and of the quantity."""
        for name, parameter in zip(self._names, self.parameters, strict=True):
            for quantity, value in self.optimizer.state[parameter].items():
                yield f"{name}/{quantity}", value

    def forget(self) -> None:
        """Remember nothing, as at the start."""
        self.optimizer = _optimizer(self.config, self.parameters)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Remember what `tensors` gave."""
        state: dict[int, dict[str, Tensor]] = {index: {} for index in range(len(self._names))}
        places = {name: index for index, name in enumerate(self._names)}
        for key, value in tensors.items():
            name, _, quantity = key.rpartition("/")
            place = places[name]
            state[place][quantity] = _laid_out_as(self.parameters[place], value)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": {i: s for i, s in state.items() if s}, "param_groups": groups})


def _is_vector(parameter: nn.Parameter) -> bool:
    return parameter.ndim < 2


def _laid_out_as(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """A tensor in a parameter's order of memory, along which the fused optimisers run; counts as they are."""
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value) if value.shape == parameter.shape else value


def _optimizer(config: OptimizerConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """torch's fused optimisers: one pass over each parameter, more than twice as fast as the others on a CPU too."""
    groups = [
        {"params": [parameter for parameter in parameters if _is_vector(parameter) == vector], "weight_decay": decay}
        for vector, decay in ((False, config.weight_decay), (True, 0.0))
    ]
    if config.kind == "sgd":
        return torch.optim.SGD(groups, config.learning_rate, fused=True)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.kind]
    return kind(groups, config.learning_rate, config.betas, fused=True)
