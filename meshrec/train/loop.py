"""The training loop: advance, log, validate, keep; and go on exactly where a killed run stood."""

import errno
import fcntl
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from rich.console import Console

from meshrec.config import config_text, flat_settings
from meshrec.errors import MeshrecError
from meshrec.files import make_folder, write_text
from meshrec.train.checkpoint import Best, Card, Checkpoints, State
from meshrec.train.journal import Journal, open_journal
from meshrec.train.portable import read_portable, write_portable
from meshrec.train.processes import Processes
from meshrec.train.task import Task, TellingTask
from meshrec.train.training import LoopConfig, Training

MAY_CHANGE = {
    *("data", "validation", "workers"),
    *("loop.steps", "loop.patience", "loop.checkpoint_every", "loop.drops", "loop.portable", "loop.portable_start"),
}
"""What a run may be resumed with other values of: no step depends on them, and data are told by their fingerprint.

The last step is validated even where `validate_every` would not, so more steps can come after one validation more.
A run that drops keeps its patience, which says when; and drops that are done stay done.
"""

BEFORE = {"loop.drops": 0, "loop.drop_factor": 0.1}
"""Settings that older checkpoints do not name, and the values that they were made with."""

PORTABLE = "portable"
"""The folder in a run's own that can be carried to another machine."""

LOCK = ".lock"
"""An empty file of the folder, which the run that trains there holds."""


@runtime_checkable
class RunConfig(Protocol):
    """The configuration of a run: a frozen dataclass, of whose fields the loop knows one."""

    @property
    def loop(self) -> LoopConfig:
        """How long, how fast, and how often to look."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    folder: Path
    step: int
    """Steps done."""
    ending: Literal["steps", "patience", "signal"]
    """All steps are done; no better figure came; or a signal asked to stop."""
    best: tuple[Best, ...]
    """From the best on."""
    signal: int = 0

    @property
    def best_path(self) -> Path | None:
        """The weights of the best model, which `load_best` reads."""
        return self.folder / self.best[0].file if self.best else None

    @property
    def exit_code(self) -> int:
        """0, or what a shell expects of a program that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal if self.signal else 0

    def __str__(self) -> str:
        why = {
            "steps": f"All {self.step} steps are done.",
            "patience": f"After {self.step} steps no better figure came in the last loop.patience validations.",
            "signal": f"A signal asked to stop after {self.step} steps, and the same command goes on.",
        }[self.ending]
        best = f" The best model, {self.best[0].figure:.6g}, is {self.best_path}." if self.best else ""
        return f"{why}{best}"


def run(
    task: Task, config: RunConfig, folder: Path, processes: Processes | None = None, console: Console | None = None
) -> Outcome:
    """Train a task into a folder, or go on with what stands there if its configuration is the same.

    The folder holds config.yaml, log.jsonl, last.safetensors and the best models; with several machines all of them
    must see it. Whatever kills the run, the same call goes on from the last checkpoint as if nothing had happened.
    """
    processes = processes or Processes()
    loop, settings = config.loop, flat_settings(config)
    training = Training(task, loop, processes)
    checkpoints = Checkpoints(make_folder(folder))
    with ExitStack() as during:
        during.enter_context(_alone_in(folder, processes))
        resumed = _resume(training, checkpoints, settings, processes)
        moved = "" if resumed else _move_in(training, loop.portable_start, settings, processes)
        journal = during.enter_context(_journal(folder, training.step, config, processes, console))
        interruption = during.enter_context(_interruption())
        if resumed:
            journal.say(f"{folder} holds {training.step} steps of this run, which goes on from there.")
        else:
            if moved:
                journal.say(moved)
            _save(training, checkpoints, settings, processes)
        pace, stop = Pace(training.step), 0
        while (ending := _ending(training, loop, stop)) is None:
            if training.stuck:
                _drop(training, checkpoints, journal, processes)
            training.advance()
            step = training.step
            journal.tick(step)
            stop = processes.highest(interruption.signal)
            if step % loop.log_every == 0:
                speed = loop.batch * pace.steps_per_s(step)
                told = task.told() if isinstance(task, TellingTask) else {}
                journal.figures(step, training.figures() | {"examples_per_s": speed} | told)
            validated = step % loop.validate_every == 0 or step == loop.steps
            if validated:
                _validate(training, checkpoints, settings, journal, processes)
            if validated or stop or step % loop.checkpoint_every == 0:
                _save(training, checkpoints, settings, processes)
                if loop.portable and processes.first and (validated or stop):
                    write_portable(folder / PORTABLE, training.state(settings), training.tensors())
                pace = Pace(step)
        outcome = Outcome(folder, training.step, ending, training.best, stop if ending == "signal" else 0)
        journal.say(str(outcome))
    return outcome


@contextmanager
def _alone_in(folder: Path, processes: Processes) -> Iterator[None]:
    """Hold the folder for the first process, until it ends in whatever way; a `MeshrecError` if another run has it.

    A file system that knows no locks is trusted to have one run.
    """
    with (folder / LOCK).open("a") as file:
        taken = False
        try:
            if processes.first:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            taken = True
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        if processes.told(taken):
            raise MeshrecError(f"Another run is training in {folder}. Wait for it, or choose another with -o DIR.")
        yield


def _ending(training: Training, loop: LoopConfig, stop: int) -> Literal["steps", "patience", "signal"] | None:
    """Why a run is over, if it is."""
    if training.step >= loop.steps:
        return "steps"
    if training.stuck and training.dropped >= loop.drops:
        return "patience"
    return "signal" if stop else None


def _validate(
    training: Training, checkpoints: Checkpoints, settings: dict[str, Any], journal: Journal, processes: Processes
) -> None:
    """Measure the model, and keep it if it is among the best."""
    figures = training.validate()
    journal.figures(training.step, {f"validation/{name}": value for name, value in figures.items()})
    best = training.judge(figures)
    if best is not None and processes.first:
        checkpoints.write_best(best, training.judged, Card(training.step, figures, settings))


def _drop(training: Training, checkpoints: Checkpoints, journal: Journal, processes: Processes) -> None:
    """Go back to the best model with a lower rate.

    It follows from where the run stands after a validation, so a checkpoint need not know whether it was done yet.
    """
    best = training.best[0]
    processes.all_make(lambda: training.drop(checkpoints.folder / best.file))
    rates = ", ".join(f"{name} {rate:.3g}" for name, rate in training.learning_rates.items())
    journal.say(f"No better figure since step {best.step}, so back to its model (drop {training.dropped}): {rates}.")


def _save(training: Training, checkpoints: Checkpoints, settings: dict[str, Any], processes: Processes) -> None:
    """Make this step the one from which a killed run goes on."""
    training.check()
    if processes.first:
        checkpoints.write_last(training.state(settings), training.tensors())


def _resume(training: Training, checkpoints: Checkpoints, settings: dict[str, Any], processes: Processes) -> bool:
    """Stand where the run in the folder stood, if there is one; a `MeshrecError` if it is another run."""
    checkpoints.refuse_orphans()
    found = checkpoints.read_last()
    if found is not None:
        _refuse_other_run(training, checkpoints, settings, found[0])
        training.load(*found, str(checkpoints.last))
    seen = processes.all_told(found is not None)
    if len(set(seen)) > 1:
        raise MeshrecError(f"Not every process sees {checkpoints.last}. Choose a folder that all machines share.")
    if processes.first:
        checkpoints.sweep(training.best)
    return seen[0]


def _move_in(training: Training, folder: Path | None, settings: dict[str, Any], processes: Processes) -> str:
    """Stand where a run of another machine stood, if one is named; returns what is to be said of it."""
    if folder is None:
        return ""
    state, tensors = processes.all_make(lambda: read_portable(folder))
    changed = {name for name in settings.keys() | state.settings if settings.get(name) != state.settings.get(name)}
    for name in sorted(name for name in changed if name.endswith("optimizer.kind")):
        raise MeshrecError(
            f"{folder} holds the moments of {name} {state.settings.get(name)}, and this run's is {settings.get(name)}. "
            f"Leave it as it was."
        )
    begun = replace(state, best=(), stale=0, recent=())
    processes.all_make(lambda: training.load(begun, tensors, str(folder)))
    other = "; ".join(
        f"{name} was {state.settings.get(name, 'unknown')} and is {settings.get(name, 'unknown')}"
        for name in sorted(changed - MAY_CHANGE)
    )
    return (
        f"The run goes on after the {state.step} steps of {folder}, but not to the same bits: weights, averages and "
        f"moments were rounded to be carried. {f'Settings that differ: {other}.' if other else 'All settings are its.'}"
    )


def _refuse_other_run(training: Training, checkpoints: Checkpoints, settings: dict[str, Any], state: State) -> None:
    """A checkpoint is gone on from only with the settings that it was made with, but for what `MAY_CHANGE`."""
    before = BEFORE | state.settings
    changed = {name for name in settings.keys() | before if settings.get(name) != before.get(name)}
    if state.fingerprint != training.fingerprint:
        raise MeshrecError(
            f"{checkpoints.folder} holds {state.step} steps of a run on other data, or its data have changed since. "
            f"Give it the same data to go on, or choose another folder with -o DIR."
        )
    free = MAY_CHANGE - training.fixed_by(state)
    if changed - free:
        said = "; ".join(
            f"{name} was {before.get(name, 'unknown')} and is {settings.get(name, 'unknown')}"
            for name in sorted(changed - free)
        )
        raise MeshrecError(
            f"{checkpoints.folder} holds {state.step} steps of another run: {said}. Give it the same settings to go "
            f"on, or choose another folder with -o DIR."
        )


def _journal(folder: Path, step: int, config: RunConfig, processes: Processes, console: Console | None) -> Journal:
    """The journal of the first process, beside the configuration; the others' is empty."""
    if not processes.first:
        return Journal([])
    write_text(folder / "config.yaml", config_text(config))
    return open_journal(folder, step, config.loop.steps, console or Console(stderr=True))


class Pace:
    """How fast the steps are, since it was last asked or made."""

    def __init__(self, step: int) -> None:
        self._step, self._time = step, time.perf_counter()

    def steps_per_s(self, step: int) -> float:
        """Since the last time, up to `step`."""
        now = time.perf_counter()
        speed = (step - self._step) / max(now - self._time, 1e-9)
        self._step, self._time = step, now
        return speed


class Interruption:
    """Whether a signal has asked to stop."""

    signal: int = 0


@contextmanager
def _interruption() -> Iterator[Interruption]:
    """Let Ctrl-C and SIGTERM end the run after its step; a second one acts at once."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return

    def note(number: int, _: object) -> None:
        interruption.signal = number
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
