"""Folders of synthetic people: records, the benchmark, and the files of other data sets."""

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import torch

from meshrec.body import load_body_model
from meshrec.data.poses import open_poses
from meshrec.data.record_files import Header
from meshrec.data.record_writer import RecordWriter
from meshrec.data.records import open_records
from meshrec.data.synthetic.benchmark import Benchmark, as_shipped, motion_halves, shipped_halves
from meshrec.data.synthetic.layout_3dpw import STEADY, takes, write_3dpw
from meshrec.data.synthetic.layout_mpii import photographs, write_mpii
from meshrec.data.synthetic.poses import HZ
from meshrec.data.synthetic.scene import Synthesizer
from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.data.synthetic.stored import Album, Page, map_file, write_maps
from meshrec.errors import MeshrecError
from meshrec.files import whole_folder, write_text
from meshrec.skeletons import COCO17

Layout = Literal["records", "3dpw", "mpii"]

MARK = "synthetic.json"
"""What tells a folder of another layout from one that is not ours; it holds the settings."""

OURS = re.compile(rf"sequenceFiles|imageFiles|images|annot|mpii_human_pose_v1_u12_2|{re.escape(MARK)}")

MAPS = "maps"

LICENCE = "made by meshrec: no photograph and nobody's likeness is in it, but for the backgrounds and motion given"

Item = TypeVar("Item")

Advance = Callable[[int], object]
"""Is told of each few that are done."""


@dataclass(frozen=True)
class Wanted:
    """What to make, and of what."""

    count: int
    """Photographs; or, of the benchmark, people."""
    layout: Layout = "records"
    seed: int = 0
    people: int = 1
    """At most so many in a photograph."""
    scene: SyntheticConfig = field(default_factory=SyntheticConfig)
    subjects: tuple[str, ...] = ()
    """Whose motion it is; none: everybody's."""
    body: str = "neutral"
    frames: int = 16
    """Images of each sequence of 3DPW's layout."""
    genders: tuple[str, ...] = ("n",)
    """What its files call the people, in turn."""


@dataclass(frozen=True)
class Made:
    """What was made."""

    people: int
    """That are there."""
    new: int
    """Of these those that were not there before."""
    photographs: int
    as_shipped: int | None = None
    """How many people are those of the benchmark that ships; None of anything else."""


def make_records(
    output: Path, wanted: Wanted, maps: bool = False, workers: int = 2, advance: Advance = lambda done: None
) -> Made:
    """Photographs' people as records; goes on where an interrupted run of the same settings was stopped."""
    header = Header("synthetic", "train", COCO17.name, "", _made_from(wanted), LICENCE)
    maker = _maker(replace(wanted, scene=_peopled(wanted.scene, wanted.people)))
    with RecordWriter(output, header) as writer:
        begun, before = _begun(writer, wanted), writer.people
        if maps and begun and not map_file(output / MAPS, begun - 1).is_file():
            raise MeshrecError(f"{output} was begun without --maps: leave them out, or choose another folder.")
        advance(begun)
        for number, page in _album(Album(maker, wanted.seed, wanted.people), begun, wanted.count, workers):
            if maps:
                write_maps(output / MAPS, number, page.scene, maker)
            writer.add(*page.records)
            advance(1)
        people = writer.people
    return Made(people, people - before, wanted.count)


def _album(album: Album, begin: int, end: int, workers: int) -> Iterator[tuple[int, Page]]:
    """Photographs in their order, made ahead by threads, some at a time: always the same ones together."""
    first = begin // album.together
    chunks = _ahead(album.pages, range(first, -(-end // album.together)), workers)
    pages = enumerate((page for pages in chunks for page in pages), first * album.together)
    return islice(pages, begin - first * album.together, end - first * album.together)


def make_benchmark(output: Path, wanted: Wanted, workers: int = 2, advance: Advance = lambda done: None) -> Made:
    """The benchmark, or the first of its people, and how many of them are those that ship."""
    made = write_benchmark(output, wanted, workers, advance)
    return made if wanted.scene.mocap else replace(made, as_shipped=int(as_shipped(open_records(output)).sum()))


def write_benchmark(output: Path, wanted: Wanted, workers: int = 2, advance: Advance = lambda done: None) -> Made:
    """Its people as records; in poses of motion where `scene` names any."""
    motion = wanted.scene.mocap
    benchmark = Benchmark(motion_halves(motion, wanted.subjects) if motion else shipped_halves(), load_body_model())
    made_from = ", ".join([str(benchmark), *map(str, (*motion, *wanted.subjects))])
    with RecordWriter(output, Header("benchmark", "test", COCO17.name, "", made_from, LICENCE)) as writer:
        begun = _begun(writer, wanted)
        advance(begun)
        for record in _ahead(benchmark.record, range(begun, wanted.count), workers):
            writer.add(record)
            advance(1)
    return Made(wanted.count, wanted.count - begun, wanted.count)


def _begun(writer: RecordWriter, wanted: Wanted) -> int:
    """How many are there already, of an interrupted run."""
    if writer.items_done > wanted.count:
        raise MeshrecError(
            f"{writer.folder} holds the beginning of {writer.items_done} or more, and -n asks for {wanted.count}: ask "
            f"for as many, or choose another folder with -o DIR."
        )
    return writer.items_done


def make_layout(output: Path, wanted: Wanted, advance: Advance = lambda done: None) -> Made:
    """The files of another data set, whole or not at all."""
    steady = replace(wanted.scene, **STEADY) if wanted.layout == "3dpw" else wanted.scene
    makers = [_maker(replace(wanted, scene=_company(steady, others))) for others in range(wanted.people)]
    people = 0
    with whole_folder(output, MARK, OURS) as folder:
        if wanted.layout == "3dpw":
            sequences = takes(makers, wanted.seed, wanted.count, wanted.frames)
            written = write_3dpw(folder, sequences, makers[0], wanted.genders)
        else:
            written = write_mpii(folder, photographs(makers, wanted.seed, wanted.count), makers[0].model)
        for photograph in written:
            people += len(photograph.people)
            advance(1)
        write_text(folder / MARK, json.dumps(asdict(wanted), indent=1, default=str) + "\n")
    return Made(people, people, wanted.count)


def _peopled(config: SyntheticConfig, people: int) -> SyntheticConfig:
    """One to `people` people, every number as likely."""
    if people == 1:
        return replace(config, others=0.0)
    return replace(config, others=1 - 1 / people, others_most=people - 1)


def _company(config: SyntheticConfig, others: int) -> SyntheticConfig:
    """Somebody alone, or up to so many others with them."""
    return replace(config, others=float(others > 0), others_most=max(1, others))


def _maker(wanted: Wanted) -> Synthesizer:
    config = wanted.scene
    if wanted.subjects:
        collection = open_poses(config.mocap, HZ)
        collection.rows(wanted.subjects)
        config = replace(config, without=tuple(sorted(set(collection.subjects) - set(wanted.subjects))))
    return Synthesizer(config, load_body_model(wanted.body))


def _made_from(wanted: Wanted) -> str:
    """All that photographs depend on, but how many there are."""
    settings = {name: value for name, value in asdict(wanted).items() if name not in ("count", "frames", "genders")}
    return f"meshrec synthesize {json.dumps(settings, default=str)}"


def _ahead(make: Callable[[int], Item], which: Iterable[int], workers: int) -> Iterator[Item]:
    """What threads make of numbers, in their order; at an error what was not begun is left undone."""
    rest, begun = iter(which), deque[Future[Item]]()
    threads = ThreadPoolExecutor(workers, "synthesize", initializer=torch.set_num_threads, initargs=(1,))
    try:
        begun.extend(threads.submit(make, number) for number in islice(rest, 2 * workers))
        while begun:
            made = begun.popleft().result()
            begun.extend(threads.submit(make, number) for number in islice(rest, 1))
            yield made
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
