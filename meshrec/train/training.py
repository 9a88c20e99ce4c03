"""All that a run changes, and one step of it."""

import math
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from meshrec.config import require_positive, require_range
from meshrec.errors import MeshrecError
from meshrec.randomness import seed_torch
from meshrec.train.checkpoint import Best, State, load_best, put_tensors
from meshrec.train.descent import Descent, OptimizerConfig, learning_rate
from meshrec.train.processes import Processes, Share
from meshrec.train.task import Task


@dataclass(frozen=True)
class LoopConfig:
    """How long, how fast, and how often to look."""

    steps: int = 100_000
    """Steps of the whole run."""
    batch: int = 64
    """Examples in a step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts that each process cuts its share of the batch into, to need less memory."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: float = 0.0
    """Decay of the averaged weights, which are then what is validated and kept; 0 averages nothing."""
    precision: Literal["float32", "bf16"] = "float32"
    """What the networks compute in; the weights are float32 in any case."""
    seed: int = 0
    """Of everything random: the same seed gives the same run."""
    log_every: int = 100
    """Steps from one line of the log, the mean of their losses, to the next."""
    validate_every: int = 1000
    """Steps from one validation to the next; the last step is followed by one too."""
    patience: int = 0
    """Validations without a better figure after which the run ends, or drops; 0 waits for the last step."""
    drops: int = 0
    """How often, instead of ending, the run goes back to the best model with a lower learning rate."""
    drop_factor: float = 0.1
    """What each drop multiplies the learning rates by."""
    checkpoint_every: int = 1000
    """Besides the checkpoint after each validation."""
    keep_best: int = 1
    """How many of the best models are kept."""
    portable: bool = False
    """Besides, write where the run stands in few bytes, to `portable`, at each validation and at the end."""
    portable_start: Path | None = None
    """Such a folder, of another machine's run of the same network: begin there, though not to the same bits."""

    def __post_init__(self) -> None:
        require_positive(self, "steps", "accumulate", "log_every", "validate_every", "checkpoint_every", "keep_best")
        require_range(self, batch=(1, 1_000_000), seed=(0, 2**63 - 1), patience=(0, math.inf))
        require_range(self, drops=(0, math.inf), drop_factor=(0, 1))
        if self.drops and not self.patience:
            raise ValueError(f"drops is {self.drops}; say with patience after how many validations to drop")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; it must be in [0, 1)")


class Average:
    """The exponential moving average of a model's weights: a <- d a + (1 - d) w, d = min(decay, (1 + t) / (10 + t)).

    The decay rises with the step t = 0, 1, ..., so that the random start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._source, self._decay = model, decay
        self.model = deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step t."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        for mean, value in zip(self.model.parameters(), self._source.parameters(), strict=True):
            mean.lerp_(value, weight)

    def take_buffers(self) -> None:
        """Buffers are not averaged: they become those of the model as it is now."""
        for mean, value in zip(self.model.buffers(), self._source.buffers(), strict=True):
            mean.copy_(value)


class Training:
    """The weights, their average and the optimisers of a run, how far it is, and its best models.

    The losses of each step stay on the device and are looked at together, for the log and before anything is validated
    or written. So a loss that is not a number is known to the step and term, reaches no file, and costs no waiting.
    """

    def __init__(self, task: Task, config: LoopConfig, processes: Processes) -> None:
        parts = processes.count * config.accumulate
        if config.batch % parts:
            raise MeshrecError(
                f"loop.batch is {config.batch}, which cannot be cut into {parts} equal parts ({processes.count} "
                f"processes times loop.accumulate {config.accumulate}). Choose a multiple of {parts}."
            )
        self._task, self._config, self._processes = task, config, processes
        self.step = 0
        self.stale = 0
        self.dropped = 0
        self.best: tuple[Best, ...] = ()
        self._columns: tuple[str, ...] = ()
        self._recent: list[Tensor] = []
        processes.follow_(list(task.model.state_dict().values()))
        self._model = task.model.train()
        self._average = Average(task.model, config.ema) if config.ema else None
        self._descents = [Descent(phase, phase.optimizer or config.optimizer, task.model) for phase in task.phases]

    def advance(self) -> None:
        """One step: each phase in turn goes down the losses of the global batch."""
        seed_torch(self._processes.device, self._config.seed, "torch", self.step, self._processes.rank)
        shares = self._processes.shares(self._config.accumulate)
        batches = [self._task.batch(self.step, share) for share in shares]
        row: dict[str, Tensor] = {}
        for descent in self._descents:
            for _ in range(descent.phase.times):
                row |= self._descend(descent, batches)
        if self._average is not None:
            self._average.update(self.step)
        self._remember(row)
        self.step += 1

    def _descend(self, descent: Descent, batches: list[Any]) -> dict[str, Tensor]:
        """One step of a phase; returns the terms of its loss and the norm of its gradient."""
        name = descent.phase.name
        told: dict[str, list[Tensor]] = {}
        for batch in batches:
            with self._precision():
                terms = self._task.losses(name, batch)
            descent.backward(reduce(add, terms.values()), 1 / len(batches))
            for term, value in terms.items():
                told.setdefault(f"{name}/{term}", []).append(value.detach())
        row = {term: _mean(values) for term, values in told.items()}
        self._processes.average_([*descent.gradients(), *row.values()])
        return row | {f"{name}/gradient_norm": descent.step(self.learning_rate(descent))}

    def _precision(self) -> AbstractContextManager:
        if self._config.precision == "float32":
            return nullcontext()
        return torch.autocast(self._processes.device.type, torch.bfloat16)

    @property
    def fingerprint(self) -> str:
        """The task's."""
        return self._task.fingerprint

    def fixed_by(self, state: State) -> set[str]:
        """Settings that a run in this state must keep: steps that a learning rate depends on, patience, and drops."""
        paced = any(descent.config.schedule == "cosine" for descent in self._descents)
        fixed = {"loop.steps": paced, "loop.patience": self._config.drops > 0}
        fixed["loop.drops"] = self._config.drops < state.dropped
        return {name for name, kept in fixed.items() if kept}

    def learning_rate(self, descent: Descent) -> float:
        """The rate of a phase at this step: that of its schedule, less by each drop."""
        return learning_rate(descent.config, self.step, self._config.steps) * self._config.drop_factor**self.dropped

    @property
    def learning_rates(self) -> dict[str, float]:
        """The rate of every phase at this step."""
        return {f"{descent.phase.name}/learning_rate": self.learning_rate(descent) for descent in self._descents}

    # ---- what the losses were

    def _remember(self, row: dict[str, Tensor]) -> None:
        columns = tuple(row)
        if self._recent and columns != self._columns:
            raise ValueError(f"the losses are {columns} at step {self.step}, and were {self._columns} before")
        self._columns = columns
        self._recent.append(torch.stack(list(row.values())))

    def _look(self) -> Float[Tensor, "steps columns"]:
        """The losses since the last line of the log; a `MeshrecError` if one of them is not a number, or infinite."""
        if not self._recent:
            return torch.empty(0, len(self._columns), dtype=torch.float64)
        table = torch.stack(self._recent).double().cpu()
        bad = (~table.isfinite()).nonzero()
        if len(bad):
            raise MeshrecError(self._accusation(table, *bad[0].tolist()))
        return table

    def _accusation(self, table: Float[Tensor, "steps columns"], row: int, column: int) -> str:
        """Who, when and where; the batch is drawn again, because it is a function of the step."""
        step = self.step - len(table) + row + 1
        parts = self._processes.count * self._config.accumulate
        shares = [Share(index, parts) for index in range(parts)]
        batches = "; ".join(self._task.describe(self._task.batch(step - 1, share)) for share in shares)
        return (
            f"{self._columns[column]} is {float(table[row, column])} at step {step}, on {batches}. The checkpoints of "
            f"earlier steps are intact; mend the data, or start another run with a lower learning rate or a clip_norm."
        )

    def figures(self) -> dict[str, float]:
        """Means over the steps since this was last asked, and the learning rates now."""
        means = self._look().mean(dim=0)
        self._recent = []
        return dict(zip(self._columns, means.tolist(), strict=True)) | self.learning_rates

    # ---- how good it is

    @property
    def judged(self) -> nn.Module:
        """The model that is validated and kept: the average, where there is one."""
        return self._model if self._average is None else self._average.model

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The first process's figures; random numbers are the same in every validation."""
        self.check()
        seed_torch(self._processes.device, self._config.seed, "validation")
        figures: dict[str, float] = {}
        if self._processes.first:
            figures = self._task.validate(self.judged.eval())
            self.judged.train()
        return self._processes.told(figures)

    def judge(self, figures: dict[str, float]) -> Best | None:
        """Take note of a validation; returns its place among the best models if it has one. The earlier of two equals
        is the better."""
        name = self._task.selected_by
        if name not in figures:
            raise ValueError(f"validate gives {sorted(figures)}, without {name}, by which models are selected")
        if not math.isfinite(figures[name]):
            raise MeshrecError(
                f"The validation figure {name} is {figures[name]} after step {self.step}, so no model can be chosen by "
                f"it. The last checkpoint is intact; mend the validation data, or start with a lower learning rate."
            )
        candidate = Best(figures[name], self.step)
        self.stale = 0 if not self.best or candidate.figure < self.best[0].figure else self.stale + 1
        self.best = tuple(sorted((*self.best, candidate), key=lambda one: one.figure)[: self._config.keep_best])
        return candidate if candidate in self.best else None

    @property
    def stuck(self) -> bool:
        """Whether so many validations as patience asks for brought nothing better."""
        return 0 < self._config.patience <= self.stale

    def drop(self, path: Path) -> None:
        """Go back to the best model, whose file this is, with fresh optimisers and a lower rate; the steps go on."""
        load_best(path, self._model)
        if self._average is not None:
            load_best(path, self._average.model)
        for descent in self._descents:
            descent.forget()
        self.stale, self.dropped = 0, self.dropped + 1

    # ---- there and back

    def check(self) -> None:
        """A `MeshrecError` where a loss, a gradient or a weight is not a number; afterwards all processes agree."""
        self._look()
        self._processes.follow_(list(self._model.buffers()))
        if self._average is not None:
            self._average.take_buffers()
        for name, tensor in self._model.state_dict().items():
            if not tensor.isfinite().all():
                raise MeshrecError(
                    f"The weights {name} are not finite after step {self.step}, though every loss was. The last "
                    f"checkpoint is intact; start another run with a lower learning rate or a clip_norm."
                )

    def state(self, settings: dict[str, Any]) -> State:
        """Where the run stands."""
        recent = self._columns if self._recent else ()
        return State(self.step, self.stale, self.best, recent, settings, self._task.fingerprint, self.dropped)

    def tensors(self) -> dict[str, Tensor]:
        """Everything else that the next step depends on."""
        named = {f"model/{name}": tensor for name, tensor in self._model.state_dict().items()}
        if self._average is not None:
            named |= {f"average/{name}": tensor for name, tensor in self._average.model.state_dict().items()}
        for descent in self._descents:
            named |= {f"optimizer/{descent.phase.name}/{name}": tensor for name, tensor in descent.tensors()}
        return named | {"recent": torch.stack(self._recent) if self._recent else torch.empty(0)}

    def load(self, state: State, tensors: dict[str, Tensor], where: str) -> None:
        """Stand where a run stood."""
        put_tensors(_inside("model/", tensors), self._model, where)
        if self._average is not None:
            put_tensors(_inside("average/", tensors), self._average.model, where)
        for descent in self._descents:
            descent.load(_inside(f"optimizer/{descent.phase.name}/", tensors))
        self._recent = list(tensors["recent"].to(self._processes.device)) if state.recent else []
        self._columns, self.step, self.best = state.recent, state.step, state.best
        self.stale, self.dropped = state.stale, state.dropped


def _mean(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean(dim=0)


def _inside(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
