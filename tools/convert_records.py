"""Converts official data sets of people in images to records, for training and measuring.

    python tools/convert_records.py 3dpw 3DPW/ -o records/3dpw_train --split train
    python tools/convert_records.py mpii MPII/ -o records/mpii
    python tools/convert_records.py coco COCO/ -o records/coco --split train2017
    python tools/convert_records.py h36m Human36M/ -o records/h36m

The same command goes on where an earlier one was stopped. A photograph that cannot be used, or somebody with a box
beside it, is named and left out, and the exit code is 1 then.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from convert.coco import read_coco
from convert.conversion import convert
from convert.h36m import Split as SplitH36M
from convert.h36m import read_h36m
from convert.mpii import Split as SplitMPII
from convert.mpii import read_mpii
from convert.source import Source
from convert.threedpw import Boxes, read_3dpw
from convert.threedpw import Split as Split3DPW
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from meshrec.data.record_files import MARK, Index
from meshrec.data.record_writer import PEOPLE_PER_SHARD
from meshrec.errors import MeshrecError

MOST_WORKERS = 8

MOST_TOLD = 50
"""So many of what was left out are named; the records name them all."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What every data set is asked for."""

    folder: Positional[Path]
    """The data set's own folder."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder for the records; those of an unfinished conversion are kept, and it goes on behind them."""
    workers: int = min(MOST_WORKERS, os.cpu_count() or 1)
    """Threads that read photographs; what is written does not depend on it."""
    people_per_shard: int = PEOPLE_PER_SHARD
    """A conversion that is stopped loses no more than these."""

    def read(self) -> Source:
        """The annotations."""
        raise NotImplementedError

    def check(self) -> None:
        """Refuse counts of nothing."""
        for name in ("workers", "people_per_shard", "every", "least_joints"):
            if getattr(self, name, 1) < 1:
                raise MeshrecError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it should be 1 or more.")


@dataclass(frozen=True, kw_only=True)
class Convert3DPW(Conversion):
    """3DPW: the folder that holds imageFiles and sequenceFiles."""

    split: Split3DPW = "train"
    """Which of the folders of sequenceFiles."""
    boxes: Boxes = "keypoints"
    """Around the 2D detections, as published figures have it, or around the projected body."""
    every: int = 1
    """Take every so manieth frame."""

    def read(self) -> Source:
        return read_3dpw(self.folder, self.split, self.boxes, self.every)


@dataclass(frozen=True, kw_only=True)
class ConvertMPII(Conversion):
    """MPII Human Pose: the folder that holds images and the annotations, .mat or JSON."""

    split: SplitMPII = "train"
    """The .mat has the training photographs alone; of the JSON files it is the name."""
    annotations: Path | None = None
    """The annotation file, where it lies elsewhere."""
    images: Path | None = None
    """The folder of photographs, where it lies elsewhere."""
    least_joints: int = 8
    """People with fewer annotated joints are passed over; SPIN asks for all 16."""

    def read(self) -> Source:
        return read_mpii(self.folder, self.split, self.annotations, self.images, self.least_joints)


@dataclass(frozen=True, kw_only=True)
class ConvertCOCO(Conversion):
    """COCO person keypoints: the folder that holds annotations and the images."""

    split: str = "train2017"
    """The annotation file is person_keypoints_SPLIT.json, the images lie in SPLIT or images/SPLIT."""
    annotations: Path | None = None
    """The annotation file, where it lies elsewhere."""
    images: Path | None = None
    """The folder of photographs, where it lies elsewhere."""
    least_joints: int = 8
    """People with fewer annotated joints are passed over."""

    def read(self) -> Source:
        return read_coco(self.folder, self.split, self.annotations, self.images, self.least_joints)


@dataclass(frozen=True, kw_only=True)
class ConvertH36M(Conversion):
    """Human3.6M: the folder that holds images and annotations, JSON for each subject or mmpose's npz."""

    split: SplitH36M = "train"
    """train: subjects 1, 5, 6, 7, 8; test: 9, 11."""
    subjects: tuple[int, ...] = ()
    """Other subjects than the split's; JSON only."""
    annotations: Path | None = None
    """The folder of JSON files, or an .npz, where it lies elsewhere."""
    images: Path | None = None
    """The folder of images, where it lies elsewhere."""
    every: int = 5
    """Take every so manieth frame."""

    def read(self) -> Source:
        return read_h36m(self.folder, self.split, self.subjects, self.annotations, self.images, self.every)


Action = (
    Annotated[Convert3DPW, tyro.conf.subcommand("3dpw")]
    | Annotated[ConvertMPII, tyro.conf.subcommand("mpii")]
    | Annotated[ConvertCOCO, tyro.conf.subcommand("coco")]
    | Annotated[ConvertH36M, tyro.conf.subcommand("h36m")]
)


def command(conversion: Conversion, console: Console) -> int:
    """Convert, and say what became of it: 1 if something was left out that is annotated."""
    conversion.check()
    with console.status("reading the annotations"):
        source = conversion.read()
    for note in source.notes:
        console.print(f"[yellow]{escape(note)}[/yellow]", soft_wrap=True)
    index = convert(source, conversion.output, conversion.workers, console, conversion.people_per_shard)
    tell(source, index, conversion.output, console)
    return 1 if index.skipped else 0


def tell(source: Source, index: Index, output: Path, console: Console) -> None:
    """A table of counts, and what was left out."""
    table = Table(title=f"{index.name} {index.split}", show_header=False)
    counts = {
        "people": index.people,
        "with an SMPL pose": index.posed,
        "photographs": len(source.sheets),
        "left out": len(index.skipped),
        **{f"passed over ({reason})": count for reason, count in source.left_out.items() if count},
    }
    for name, count in counts.items():
        table.add_row(name, str(count))
    console.print(table)
    for problem in index.skipped[:MOST_TOLD]:
        console.print(f"[red]left out: {escape(problem)}[/red]", soft_wrap=True)
    if (more := len(index.skipped) - MOST_TOLD) > 0:
        console.print(f"[red]and {more} more, which {escape(str(output / MARK))} lists[/red]", soft_wrap=True)
    console.print(escape(f"the records are in {output}"), soft_wrap=True)


if __name__ == "__main__":
    try:
        sys.exit(command(tyro.cli(Action, description=__doc__), Console(stderr=True)))  # type: ignore[arg-type]
    except MeshrecError as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted: the same command goes on where it stood.")
