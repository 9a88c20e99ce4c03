"""What the loop asks of a thing that is trained."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from meshrec.train.descent import Phase
from meshrec.train.processes import Share


@runtime_checkable
class Task(Protocol):
    """Networks, the batches they learn from, what is minimised, and how good they are.

    The model stands on the device of the processes. It is in training mode but for validations; a network with parts
    that should not be (frozen batch norms) overrides `train`.
    """

    @property
    def model(self) -> nn.Module:
        """All that is trained, kept and averaged: its `state_dict` is what a best model's file holds."""
        ...

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What steps together; a step of the loop runs the phases in this order."""
        ...

    @property
    def selected_by(self) -> str:
        """The figure of `validate` by which the best model is chosen; lower is better."""
        ...

    @property
    def fingerprint(self) -> str:
        """A few letters that change with the data, wherever they lie; a run goes on with the same ones alone."""
        ...

    def batch(self, step: int, share: Share) -> Any:
        """A share of global batch `step` (0, 1, ...), a function of the two and of the seed.

        All randomness of a step is drawn here, for the global batch, and then cut: `generator_of(seed, "noise", step)`,
        `share.rows(batch)`. So the shares together are the same batch however many there are.
        """
        ...

    def losses(self, phase: str, batch: Any) -> dict[str, Tensor]:
        """The terms of a phase, by name; their sum is minimised.

        Each is a scalar: the mean over the examples of something that each example has alone, so that the mean over
        equal shares is that of the global batch. The names are the same in every step.
        """
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures of the model as it stands (or of its average), without gradients, in evaluation mode and float32."""
        ...

    def describe(self, batch: Any) -> str:
        """Where the examples of a batch come from, in a few words for the message on a loss that is not a number."""
        ...


@runtime_checkable
class TellingTask(Task, Protocol):
    """A task with figures of its own for the log: how fast its data come, and what share of them comes from where."""

    def told(self) -> dict[str, float]:
        """Figures since this was last asked; the names of speeds end in _per_s."""
        ...
