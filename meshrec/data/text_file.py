"""Text files of motion, whose faults are told by line."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.errors import MeshrecError

MAX_BYTES = 150 * 10**6
"""A larger file is refused; a quarter of an hour of motion at 120 frames a second takes about this much."""

MAX_ROTATIONS = 5 * 10**6
"""Joints times frames; the rotations of so many take 360 MB, and a few copies of them are needed."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line without the blanks around it, and its number from 1."""

    number: int
    text: str

    @property
    def words(self) -> tuple[str, ...]:
        """Split whenever they are asked for: the words of a whole file would take ten times its size."""
        return tuple(self.text.split())


@dataclass(frozen=True)
class TextFile:
    """The lines of a file that have words in them."""

    path: Path
    lines: tuple[Line, ...]

    def fault(self, line: Line | None, what: str) -> MeshrecError:
        """The error that says what is wrong, and in which line; None is the end of the file."""
        place = f"line {line.number}" if line else "its end"
        return MeshrecError(f"{self.path}, {place}: {what}.")

    def numbers(self, line: Line, words: Sequence[str], count: int) -> list[float]:
        """The `count` finite numbers that `words` of a line are."""
        if len(words) != count:
            raise self.fault(line, f"{count} numbers are needed, {len(words)} found")
        try:
            numbers = [float(word) for word in words]
        except ValueError as error:
            raise self.fault(line, f"a number is needed ({error})") from error
        for number in numbers:
            if not abs(number) < float("inf"):
                raise self.fault(line, f"{number} is not a finite number")
        return numbers

    def table(self, rows: Iterable[tuple[Line, Sequence[str]]], count: int) -> Float[Tensor, "T C"]:
        """One row of `count` finite numbers for each line."""
        return torch.from_numpy(
            np.stack([np.array(self.numbers(line, words, count), np.float64) for line, words in rows])
        )

    def refuse_too_many(self, joints: int, frames: int) -> None:
        """No more rotations than fit into the memory."""
        if joints * frames > MAX_ROTATIONS:
            raise MeshrecError(
                f"{self.path} has {joints} joints in {frames} frames, more than {MAX_ROTATIONS} rotations: cut it into "
                f"shorter files."
            )


def read_text(path: Path, comment: str = "") -> TextFile:
    """The lines of a text file; what follows `comment` in a line is left out."""
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise MeshrecError(f"{path} has {size / 1e6:.0f} MB, more than the {MAX_BYTES / 1e6:.0f} MB that are read.")
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise MeshrecError(f"Cannot read {path}: {error.strerror or error}.") from error
    return TextFile(path, tuple(_lines(text, comment)))


def _lines(text: str, comment: str) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), start=1):
        words = (line.partition(comment)[0] if comment else line).strip()
        if words:
            yield Line(number, words)
