"""Writes the sums that tell whether somebody's benchmark is the one that ships.

    python tools/freeze_benchmark.py out/benchmark

To be run after every change of what the benchmark is made of; figures that were measured before are of another one.
"""

import sys
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress

from meshrec.data.record_files import MARK
from meshrec.data.records import open_records
from meshrec.data.synthetic.benchmark import PEOPLE, SUMS, sums_of
from meshrec.errors import MeshrecError
from meshrec.files import write_whole
from meshrec.synthetic_folders import Wanted, write_benchmark


def freeze(records: tyro.conf.Positional[Path], output: Path = SUMS) -> Path:
    """Make the benchmark, unless the folder holds one, and write its sums.

    Args:
        records: Folder of the benchmark.
        output: Where its sums go.
    """
    if not (records / MARK).is_file():
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("people", total=PEOPLE)
            write_benchmark(records, Wanted(PEOPLE), advance=lambda done: progress.advance(task, done))
    made = open_records(records, verify=True)
    if made.name != "benchmark" or len(made) != PEOPLE:
        raise MeshrecError(f"{records} holds {len(made)} people of {made.name}: give all {PEOPLE} of the benchmark.")
    sums = sums_of(made).astype(np.float32)
    return write_whole(output, lambda neighbour: np.save(neighbour, sums, allow_pickle=False))


if __name__ == "__main__":
    try:
        Console(stderr=True).print(f"wrote {tyro.cli(freeze, description=__doc__)}", soft_wrap=True)
    except MeshrecError as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted: nothing was frozen; the benchmark goes on where it stood.")
