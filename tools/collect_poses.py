"""Collects motions into one folder to train and measure on: AMASS, BVH, ASF/AMC and our own captures.

    python tools/collect_poses.py CMU/ captures.npz -o out/poses --hz 30 --license "free for research"

A file that cannot be read is named and left out, and the exit code is 1 then. The folder is written whole or not at
all.
"""

import json as json_text
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional

from meshrec.data.motion import RATES_HZ, Motion, Reading
from meshrec.data.motion_files import find_motion_files, read_motions
from meshrec.data.poses import PoseCollection, Precision, write_collection
from meshrec.errors import MeshrecError


@dataclass(frozen=True)
class Gathering:
    """Files on their way into a collection, and those that were left out."""

    files: list[Path]
    reading: Reading
    hz: float | None
    skipped: dict[Path, str] = field(default_factory=dict)
    """What is wrong with each file that was left out."""

    def motions(self, console: Console) -> Iterator[Motion]:
        """Every motion of every file that can be read, with a progress bar."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=len(self.files))
            for file in self.files:
                progress.update(task, description=escape(file.name))
                yield from self._read(file, console)
                progress.advance(task)

    def _read(self, file: Path, console: Console) -> list[Motion]:
        try:
            motions = read_motions(file, self.reading)
        except MeshrecError as error:
            self.skipped[file] = str(error)
            console.print(f"[red]left out: {escape(str(error))}[/red]", soft_wrap=True)
            return []
        return [motion.every_hz(self.hz) for motion in motions] if self.hz else motions


@dataclass(frozen=True)
class Count:
    """How much there is of one data set, or of all."""

    source: str
    clips: int
    frames: int
    valid: int
    subjects: int
    minutes: float


def counts_of(collection: PoseCollection) -> list[Count]:
    """A count for each data set, and last one for all."""
    rows = collection.rows()
    valid = Counter(collection.clip_of(rows).tolist())
    sources = sorted({clip.source for clip in collection.clips})
    counts = []
    for source, chosen in [*((source, {source}) for source in sources), ("all", set(sources))]:
        clips = [(index, clip) for index, clip in enumerate(collection.clips) if clip.source in chosen]
        counts.append(
            Count(
                source,
                len(clips),
                sum(clip.length for _, clip in clips),
                sum(valid[index] for index, _ in clips),
                len({clip.subject for _, clip in clips}),
                round(sum(clip.length / clip.fps for _, clip in clips) / 60, 2),
            )
        )
    return counts


def collect(gathering: Gathering, output: Path, precision: Precision, licence: str, console: Console) -> PoseCollection:
    """Write the collection; with every file left out there is none."""
    try:
        return write_collection(output, gathering.motions(console), precision, licence)
    except MeshrecError as error:
        if len(gathering.skipped) == len(gathering.files):
            raise MeshrecError(
                f"None of {_files(len(gathering.files))} can be read; {output} is not written."
            ) from error
        raise


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


def table_of(counts: list[Count], skipped: int) -> Table:
    """The counts, the sum below a line."""
    table = Table(title="collected", caption=f"{_files(skipped)} left out" if skipped else None)
    for column in ("data set", "clips", "frames", "valid", "subjects", "minutes"):
        table.add_column(column, justify="left" if column == "data set" else "right")
    for count in counts:
        if count is counts[-1]:
            table.add_section()
        cells = (count.clips, count.frames, count.valid, count.subjects, f"{count.minutes:.1f}")
        table.add_row(escape(count.source), *map(str, cells))
    return table


def command(
    inputs: Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="INPUT...")]],
    /,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    reading: OmitArgPrefixes[Reading],
    hz: float | None = 30.0,
    dtype: Precision = "float16",
    license: str = "",
    json: bool = False,
) -> int:
    """Collect the motions of files and folders.

    Args:
        inputs: Files of motion (.npz of AMASS or of our own layout, .bvh, .amc with its .asf beside it), or folders.
        output: Folder for the collection; an earlier collection there is replaced.
        reading: What the files leave unsaid.
        hz: Keep every k-th frame, k such that this rate comes nearest; None keeps all.
        dtype: Precision of the rotations; float16 is off by 0.0015 rad at most.
        license: A note of the terms of use, kept with the poses.
        json: Print the summary as JSON on standard output.
    """
    console = Console(stderr=True)
    if hz is not None and not RATES_HZ[0] <= hz <= RATES_HZ[1]:
        raise MeshrecError(
            f"Frames cannot be kept at {hz} a second: give --hz a number from {RATES_HZ[0]:g} to {RATES_HZ[1]:g}, "
            f"or None."
        )
    if not inputs:
        raise MeshrecError("Nothing to collect: name files of motion, or folders of them.")
    gathering = Gathering(find_motion_files(inputs), reading, hz)
    collection = collect(gathering, output, dtype, license, console)
    counts = counts_of(collection)
    console.print(table_of(counts, len(gathering.skipped)))
    if json:
        skipped = [{"file": str(file), "error": error} for file, error in gathering.skipped.items()]
        summary = {"folder": str(output), "counts": [vars(count) for count in counts], "skipped": skipped}
        sys.stdout.write(json_text.dumps(summary, indent=1) + "\n")
    return 1 if gathering.skipped else 0


if __name__ == "__main__":
    try:
        sys.exit(tyro.cli(command, description=__doc__))
    except MeshrecError as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted: nothing was written.")
