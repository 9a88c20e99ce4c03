"""Photographs that never were: synthetic people as records, in the layouts of other data sets, or as the benchmark."""

import json as json_format
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from meshrec.body import load_body_model
from meshrec.data.records import open_records
from meshrec.data.synthetic.benchmark import PEOPLE
from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.errors import MeshrecError
from meshrec.photo import write_png
from meshrec.synthetic_folders import Layout, Made, Wanted, make_benchmark, make_layout, make_records
from meshrec.synthetic_sheet import sheet as sheet_of

SIZE = (1280, 960)

SHEET = "sheet.png"

SMALLEST_PX, LARGEST_PX = 64, 4096

MOST_PEOPLE, MOST_SHOWN = 8, 200

COUNT = 100
"""Photographs, where no number is given."""

FRAMES = 16
GENDERS: tuple[Literal["n", "m", "f"], ...] = ("n",)
"""Of 3DPW's layout."""

ELSEWHERE = {
    "photo_px": "--size",
    "mocap": "--poses",
    "backgrounds": "--backgrounds",
    "others": "--people",
    "others_most": "--people",
}
"""What other flags say of a scene."""


def command(
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    count: Annotated[int | None, tyro.conf.arg(aliases=["-n"])] = None,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    people: int = 1,
    poses: tuple[Path, ...] = (),
    subjects: tuple[str, ...] = (),
    backgrounds: Path | None = None,
    layout: Layout = "records",
    frames: int = FRAMES,
    genders: tuple[Literal["n", "m", "f"], ...] = GENDERS,
    maps: bool = False,
    sheet: int = 24,
    benchmark: bool = False,
    body: str = "neutral",
    workers: int = 2,
    json: bool = False,
    scene: SyntheticConfig = SyntheticConfig(),  # noqa: B008  (it is frozen)
) -> int:
    """Make people in photographs of whom everything is known: to train on, to measure with, to try things out.

    Poses are a prior's or those of files, bodies, clothes, lights, cameras and things in the way are drawn by chance,
    and 2D joints are as a detector would find them. The same seed gives the same photographs, and a larger number
    gives the same ones first; what was interrupted goes on.

    `--benchmark` makes 1,000 people that are the same everywhere, half of the prior's poses and half key poses, 400 of
    them wholly in view and the others at stated levels of occlusion and truncation; `meshrec evaluate --branch fit,lift
    --data DIR` compares branches on them. With `--poses` it is as many people in those poses.

    Args:
        output: Folder for what is made.
        count: How many photographs, by default 100; of the benchmark how many people, by default all.
        seed: Another number gives other photographs; the benchmark has its own.
        size: Width and height of the photographs, in pixels; some are held upright. Records keep the part around a
            person.
        people: At most so many people in a photograph; each of whom enough is seen (6 of COCO's joints) is told of.
        poses: Collections or files of motion to take poses from, beside the prior's; of the benchmark instead of them.
        subjects: People of these files to take poses of; by default all.
        backgrounds: Folder of pictures to put behind people; by default they are made up.
        layout: Records, or the files of 3DPW or MPII, which are written whole or not at all.
        frames: Images of each sequence of 3DPW's layout.
        genders: What its files call the people, in turn; whatever they say, the truth is that of `body`.
        maps: Also write the photographs, and what each pixel shows: parts of bodies, depth, whose body; and joints. All
            of these are the bodies', off which clothes stand by up to 3 cm.
        sheet: So many people are shown in DIR/sheet.png; 0 for no sheet.
        benchmark: Make the benchmark.
        body: Body to draw, by name or path.
        workers: Threads.
        json: Print what was made as JSON on standard output.
        scene: What photographs are like, in every number.
    """
    _check(count, seed, size, people, sheet, frames, genders, workers, subjects, poses)
    _check_scene(scene, layout, frames, genders)
    config = replace(scene, photo_px=size, mocap=poses, backgrounds=backgrounds)
    wanted = Wanted(count or COUNT, layout, seed, people, config, subjects, body, frames, genders)
    console, began = Console(stderr=True), time.perf_counter()
    if benchmark:
        _refuse(count, wanted, maps, scene)
        wanted = replace(wanted, count=count or PEOPLE)
    elif maps and layout != "records":
        raise MeshrecError(f"--maps go with records, not with --layout {layout}.")
    with _progress(console, wanted.count, "people" if benchmark else "photographs") as advance:
        if benchmark:
            made = make_benchmark(output, wanted, workers, advance)
        elif layout == "records":
            made = make_records(output, wanted, maps, workers, advance)
        else:
            made = make_layout(output, wanted, advance)
    seconds = time.perf_counter() - began
    picture = _write_sheet(output, sheet, body) if sheet and layout == "records" else None
    if json:
        sys.stdout.write(json_format.dumps(_record(made, wanted, output, seconds, picture), indent=1) + "\n")
    _tell(made, output, seconds, picture, console)
    return 0


@contextmanager
def _progress(console: Console, total: int, what: str) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.advance(task, done)


def _write_sheet(output: Path, most: int, body: str) -> Path:
    records = open_records(output)
    people = [records[row] for row in range(min(most, len(records)))]
    return write_png(output / SHEET, sheet_of(people, load_body_model(body)))


def _record(made: Made, wanted: Wanted, output: Path, seconds: float, picture: Path | None) -> dict[str, Any]:
    """What was made, for JSON."""
    return {
        "meshrec": version("meshrec"),
        "output": str(output),
        "layout": wanted.layout,
        "seed": wanted.seed,
        "seconds": seconds,
        "sheet": picture and str(picture),
        **asdict(made),
    }


def _tell(made: Made, output: Path, seconds: float, picture: Path | None, console: Console) -> None:
    """What was made, and how fast."""
    pace = f"{made.new / max(seconds, 1e-9):,.1f} people/s" if made.new else "all were there already"
    told = f"{made.people:,} people in {made.photographs:,} photographs in {output}; {seconds:.1f} s, {pace}"
    console.print(escape(told), soft_wrap=True)
    if made.as_shipped is not None:
        console.print(escape(_checked(made.as_shipped, made.people)), soft_wrap=True)
    if picture:
        console.print(escape(f"a sheet of them: {picture}"), soft_wrap=True)


def _checked(same: int, people: int) -> str:
    """Whether the benchmark is the one that ships."""
    which = "the benchmark that ships" if people == PEOPLE else f"the first {people:,} of the benchmark that ships"
    if same == people:
        return f"checksum: this is {which}, person by person"
    return f"checksum: {same:,} of {people:,} people are those of {which}; say so beside any figure measured with them"


def _refuse(count: int | None, wanted: Wanted, maps: bool, scene: SyntheticConfig) -> None:
    """Refuse what would make another benchmark."""
    given = {"--seed": wanted.seed, "--people": wanted.people != 1, "--backgrounds": wanted.scene.backgrounds}
    given |= {"--layout": wanted.layout != "records", "--maps": maps, "--scene": scene != SyntheticConfig()}
    given |= {"--body": wanted.body != "neutral", "--size": wanted.scene.photo_px != SIZE}
    if wrong := [flag for flag, value in given.items() if value]:
        raise MeshrecError(f"{', '.join(wrong)}: the benchmark is always the same. Leave it out, or --benchmark.")
    if count is not None and count > PEOPLE:
        raise MeshrecError(f"The benchmark is {PEOPLE:,} people; -n takes 1 to {PEOPLE:,} of them, not {count:,}.")


def _check_scene(scene: SyntheticConfig, layout: Layout, frames: int, genders: Sequence[str]) -> None:
    """Refuse what would be passed over."""
    usual = SyntheticConfig()
    for name, flag in ELSEWHERE.items():
        if getattr(scene, name) != getattr(usual, name):
            raise MeshrecError(f"--scene.{name.replace('_', '-')} is told by {flag} here: give that instead.")
    if layout != "3dpw" and (frames, tuple(genders)) != (FRAMES, GENDERS):
        raise MeshrecError(f"--frames and --genders are of --layout 3dpw, not of {layout}: leave them.")


def _check(
    count: int | None,
    seed: int,
    size: tuple[int, int],
    people: int,
    sheet: int,
    frames: int,
    genders: Sequence[str],
    workers: int,
    subjects: Sequence[str],
    poses: Sequence[Path],
) -> None:
    """Refuse what cannot be made before anything is."""
    if count is not None and count < 1:
        raise MeshrecError(f"-n takes a number of photographs from 1 on, not {count}.")
    if seed < 0:
        raise MeshrecError(f"--seed takes a whole number from 0 on, not {seed}.")
    if not SMALLEST_PX <= min(size) <= max(size) <= LARGEST_PX:
        raise MeshrecError(f"--size takes a width and a height from {SMALLEST_PX} to {LARGEST_PX} pixels, not {size}.")
    if not 1 <= people <= MOST_PEOPLE:
        raise MeshrecError(f"--people takes a number from 1 to {MOST_PEOPLE}, not {people}.")
    if not 0 <= sheet <= MOST_SHOWN:
        raise MeshrecError(f"--sheet takes a number of people from 0 to {MOST_SHOWN}, not {sheet}.")
    if frames < 1 or workers < 1:
        raise MeshrecError("--frames and --workers take numbers from 1 on.")
    if not genders:
        raise MeshrecError("--genders takes one or more of n, m, f.")
    if subjects and not poses:
        raise MeshrecError("--subjects are people of the files that --poses names: name these too.")
