"""From a source to a folder of records: photographs are read by several threads, records are written in order.

What is written does not depend on the number of threads, and a conversion that was stopped goes on behind the last
finished shard. A photograph that cannot be used is told in the records and left out.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from convert.source import Annotation, Sheet, Source
from meshrec.data.record_files import Index, read_index
from meshrec.data.record_writer import PEOPLE_PER_SHARD, NewRecord, RecordWriter, encode_picture
from meshrec.errors import MeshrecError
from meshrec.keypoint_entries import MOST_SIDE_PX
from meshrec.photo import read_photo

AHEAD = 4
"""Photographs that are read ahead, for each thread."""

Item = TypeVar("Item")
Made = TypeVar("Made")


def convert(
    source: Source, output: Path, workers: int, console: Console, people_per_shard: int = PEOPLE_PER_SHARD
) -> Index:
    """Write all that is not yet written of a source, with a progress bar; what the records then say of themselves."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        RecordWriter(output, source.header, people_per_shard) as writer,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        done = writer.items_done
        task = progress.add_task(source.header.name, total=len(source.sheets), completed=done)
        problems: list[str] = []
        for people, wrong in in_order(records_of, source.sheets[done:], workers):
            problems.extend(wrong)
            writer.add(*people, problems=wrong)
            told = f" ({len(problems)} left out)" if problems else ""
            progress.update(task, advance=1, description=source.header.name + told)
        if problems and not writer.people:
            raise MeshrecError(f"None of {len(source.sheets)} photographs can be used. The first: {problems[0]}")
    return read_index(output)


def records_of(sheet: Sheet) -> tuple[list[NewRecord], list[str]]:
    """The people of a photograph, and a sentence for everyone who cannot be used, or for the whole photograph."""
    if not sheet.photo.exists():
        return [], [f"{sheet.name} is missing."]
    try:
        pixels, people = read_photo(sheet.photo).pixels, sheet.people()
    except MeshrecError as error:
        return [], [str(error).replace(str(sheet.photo), sheet.name)]
    records, problems = [], []
    for person in people:
        try:
            records.append(_record(sheet.name, person, pixels))
        except MeshrecError as error:
            problems.append(str(error))
    return records, problems


def _record(name: str, person: Annotation, pixels: UInt8[np.ndarray, "H W 3"]) -> NewRecord:
    height, width = pixels.shape[:2]
    box = x0, y0, x1, y1 = person.box_xyxy_px.tolist()
    if not (x0 < width and y0 < height and x1 > 0 and y1 > 0):
        raise MeshrecError(f"{name}: a box {box} lies outside the photograph of {width} x {height} pixels.")
    if not (x0 < x1 and y0 < y1 and max(map(abs, box)) < MOST_SIDE_PX):
        raise MeshrecError(f"{name}: a box {box} goes around nothing that can be cut out.")
    return NewRecord(
        picture=encode_picture(pixels, person.box_xyxy_px),
        box_xyxy_px=person.box_xyxy_px,
        keypoints=person.keypoints,
        camera=person.lens.camera(width, height) if person.lens else None,
        truth=person.truth,
        joints_m=person.joints_m,
        joints_weight=person.joints_weight,
        subject=person.subject,
        sequence=person.sequence,
        frame=person.frame,
        source=name,
    )


def in_order(make: Callable[[Item], Made], items: Sequence[Item], workers: int) -> Iterator[Made]:
    """What `make` makes of each item, by several threads but in order, a few ahead of what is asked for."""
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
