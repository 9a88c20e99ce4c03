"""What a run says while it goes: lines of JSON, TensorBoard where it is installed, and the terminal."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from meshrec.errors import MeshrecError
from meshrec.files import write_text

LOG = "log.jsonl"
REFRESH_SECONDS = 0.1


@runtime_checkable
class Sink(Protocol):
    """One place where a run is told of."""

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Named figures after `step` steps."""
        ...

    def tick(self, step: int) -> None:
        """So many steps are done; called after each, so it must cost nothing."""
        ...

    def say(self, sentence: str) -> None:
        """Something for the person who watches."""
        ...

    def close(self) -> None:
        """The run has ended."""
        ...


class Journal:
    """Tells a run to all its sinks, of which every process but the first has none."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        for sink in self._sinks:
            sink.close()

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Named figures after `step` steps."""
        for sink in self._sinks:
            sink.figures(step, figures)

    def tick(self, step: int) -> None:
        """So many steps are done."""
        for sink in self._sinks:
            sink.tick(step)

    def say(self, sentence: str) -> None:
        """Something for the person who watches."""
        for sink in self._sinks:
            sink.say(sentence)


def open_journal(folder: Path, step: int, steps: int, console: Console) -> Journal:
    """The sinks of a run that goes on after `step` steps; what was told of later ones is taken back."""
    board = _tensorboard(folder, step)
    return Journal([LogFile(folder / LOG, step), Terminal(console, step, steps), *([board] if board else [])])


class LogFile:
    """A line of JSON for each set of figures."""

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        write_text(path, "".join(f"{json.dumps(line)}\n" for line in read_log(path) if line["step"] <= step))
        self._file = path.open("a", encoding="utf-8")

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Appended and handed to the system at once, so that a killed run loses no line; null for what is no number."""
        finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        try:
            self._file.write(f"{json.dumps({'step': step, **finite}, allow_nan=False)}\n")
            self._file.flush()
        except OSError as error:
            raise MeshrecError(
                f"Cannot write {self._path}: {error.strerror or error}. Free some space and start again: the run goes "
                f"on from its last checkpoint."
            ) from error

    def tick(self, step: int) -> None:
        """Nothing."""

    def say(self, sentence: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Close the file; a line that a full disk refused is refused again, and was told of already."""
        with suppress(OSError):
            self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; none if there is no log, and without a last line that was cut short."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        told = [json.loads(line) for line in lines[:-1]] + [json.loads(line) for line in lines[-1:] if line[-1:] == "}"]
    except (ValueError, RecursionError) as error:
        raise MeshrecError(f"{path} is damaged ({error}). Move it away and start again.") from error
    if not all(isinstance(line, dict) and isinstance(line.get("step"), int) for line in told):
        raise MeshrecError(f"{path} is damaged (a line has no step). Move it away and start again.")
    return told


class Terminal:
    """A line for each validation, and on a terminal a progress bar with the first of the losses."""

    def __init__(self, console: Console, step: int, steps: int) -> None:
        self._console, self._steps = console, steps
        self._shown: dict[str, float] = {}
        self._refresh = 0.0
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=console, auto_refresh=False)
            self._task = self._bar.add_task("", total=steps, completed=step)
            self._bar.start()

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Printed with the latest losses if they are of a validation."""
        self._shown |= {name: value for name, value in figures.items() if _is_of_interest(name)}
        texts = [f"{name} {value:.4g}" for name, value in self._shown.items()]
        if any(name.startswith("validation/") for name in figures):
            self.say(f"step {step} of {self._steps}: {'  '.join(texts)}")
        elif self._bar is not None:
            self._bar.update(self._task, description=escape(texts[0]))

    def tick(self, step: int) -> None:
        """Move the bar, a few times a second."""
        if self._bar is not None and time.monotonic() > self._refresh:
            self._refresh = time.monotonic() + REFRESH_SECONDS
            self._bar.update(self._task, completed=step, refresh=True)

    def say(self, sentence: str) -> None:
        """Above the bar."""
        self._console.print(escape(sentence), soft_wrap=True, highlight=False)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()


def _is_of_interest(name: str) -> bool:
    return not name.endswith(("/learning_rate", "/gradient_norm"))


class TensorBoard:
    """The same figures for TensorBoard."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """A scalar each."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def tick(self, step: int) -> None:
        """Nothing."""

    def say(self, sentence: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def _tensorboard(folder: Path, step: int) -> TensorBoard | None:
    """TensorBoard's own writer, if TensorBoard is there; later steps of an earlier start are purged."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return TensorBoard(SummaryWriter(folder / "tensorboard", purge_step=step + 1))
