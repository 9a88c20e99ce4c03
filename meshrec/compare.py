"""Which branch to use: several on the same people, with the statistics to tell them apart, and a page to look at."""

import json as jsons
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from jaxtyping import Bool
from rich.console import Console
from rich.markup import escape

from meshrec.body import BodyModel, load_body_model
from meshrec.branches.mesh import MeshConfig
from meshrec.branches.registry import MESH_BUILDERS, MeshChoice, build_branch
from meshrec.comparison.assembly import comparison_of
from meshrec.comparison.comparison import TRUTH, Comparison, Exhibit
from meshrec.comparison.contestants import Contestant, contestant_of
from meshrec.comparison.exhibits import exhibits_of
from meshrec.comparison.measuring import measured
from meshrec.comparison.page import page
from meshrec.comparison.people import People, PhotoPeople, RecordPeople
from meshrec.comparison.plots import write_plots
from meshrec.comparison.predictions import open_predictions, parted
from meshrec.comparison.sentences import listed
from meshrec.comparison.tables import csv_files, record_of, tell
from meshrec.data.records import open_records
from meshrec.detect import build_detector
from meshrec.errors import MeshrecError
from meshrec.evaluation import PERSON_PX
from meshrec.evaluation_report import console_of, progress
from meshrec.files import whole_folder, write_text
from meshrec.models.regressor import Precision
from meshrec.photo import find_photos
from meshrec.prior_files import DEFAULT_PRIOR
from meshrec.record_evaluation import holds_records

MARK = "comparison.json"
PAGE = "report.html"
OUR_FILES = re.compile(
    r"comparison\.json|report\.html|(summary|levels|differences|joints|noise|people)\.csv|[a-z_]+\.png"
)

MOST_PROBLEMS = 5
"""So many of what went wrong are told one by one."""


@dataclass(frozen=True)
class Choice:
    """Who is compared, and how they are made."""

    branches: tuple[str, ...]
    predictions: tuple[str, ...]
    mesh: MeshChoice
    prior: str


@dataclass(frozen=True)
class PhotoChoice:
    """How people are found in photographs."""

    detector: Literal["mediapipe", "rcnn"]
    keypoints: Path | None


def open_people(data: Sequence[Path], frames: int | None, choice: PhotoChoice, console: Console) -> People:
    """Those of records, or those in photographs."""
    held = [holds_records(path) for path in data]
    if all(held):
        _refuse_twice(data)
        return RecordPeople([open_records(path) for path in data], frames)
    if any(held):
        raise MeshrecError(
            f"--data names records ({data[held.index(True)]}) and photographs ({data[held.index(False)]}); of one kind "
            f"at a time."
        )
    found = find_photos(data)
    detector = build_detector(choice.detector, None, choice.keypoints, found.photos)
    with progress(console, len(found.photos), "photographs looked at") as advance:
        return PhotoPeople(found.photos, detector, frames, found.problems, advance)


def _refuse_twice(folders: Sequence[Path]) -> None:
    """Whoever counts twice makes intervals too narrow."""
    places = [folder.resolve() for folder in folders]
    if len(set(places)) < len(places):
        again = next(folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1)
        raise MeshrecError(f"--data names {again} twice: give each folder of records once.")


def build_contestants(choice: Choice, model: BodyModel, people: People) -> list[Contestant]:
    """Branches and predictions, in their order."""
    names = [*choice.branches, *(parted(named)[0] for named in choice.predictions)]
    if twice := {name for name in names if names.count(name) > 1}:
        raise MeshrecError(f"{', '.join(sorted(twice))} is to be compared twice: give each name once.")
    if TRUTH in names:
        raise MeshrecError(
            f"Nobody who is compared may be called {TRUTH!r}, as the true bodies are: choose another name."
        )
    if len(names) < (1 if people.known else 2):
        raise MeshrecError(
            "Too few to compare: name branches with --branches and files with --predictions, two where no truth is "
            "known."
        )
    if choice.predictions and not isinstance(people, RecordPeople):
        raise MeshrecError(
            "--predictions are of the people of records, whose number is known: name records with --data."
        )
    nothing = MeshChoice()
    branches = [
        build_branch(name, model, choice.prior, choice.mesh if name in MESH_BUILDERS else nothing)
        for name in choice.branches
    ]
    total = people.total if isinstance(people, RecordPeople) else 0
    predicted = [open_predictions(named, model, total) for named in choice.predictions]
    return [*map(contestant_of, branches), *predicted]


def write_comparison(
    folder: Path, comparison: Comparison, exhibits: Sequence[Exhibit], model: BodyModel, record: dict[str, Any]
) -> None:
    """The page, the tables, the record, and the pictures where they can be drawn."""
    write_text(folder / PAGE, page(comparison, exhibits, model.faces.cpu().numpy()))
    for name, text in csv_files(comparison).items():
        write_text(folder / name, text)
    if can_plot():
        write_plots(folder, comparison)
    write_text(folder / MARK, jsons.dumps(record, indent=1, allow_nan=False) + "\n")


def can_plot() -> bool:
    """Whether the library is there that draws the pictures; the page shows the same."""
    return find_spec("matplotlib") is not None


def command(
    data: tuple[Path, ...] = (),
    branches: str = "lift,fit",
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("out/comparison"),
    noise: str = "0",
    frames: int | None = None,
    predictions: tuple[str, ...] = (),
    mesh_weights: str | None = None,
    flip: bool = False,
    precision: Precision = "float32",
    body: str = "neutral",
    prior: str = DEFAULT_PRIOR,
    detector: Literal["mediapipe", "rcnn"] = "mediapipe",
    keypoints: Path | None = None,
    seed: int = 0,
    json: bool = False,
) -> int:
    """Compare branches on the same people: which is better, where, by how much, and how sure that is.

    Of folders of records, which hold people in pictures and their SMPL truth, every branch is measured against the
    truth; paired differences come with 95 % bootstrap intervals, for everybody, joint by joint, and by view, occlusion,
    truncation, size and sequence. Of photographs, or of records without truth, nobody knows who is right: the branches
    are then compared with each other and with the keypoints, which is agreement and not accuracy.

    The output folder gets report.html, one page that needs no network, the tables as CSV, comparison.json, and PNG
    pictures where matplotlib is installed.

    Args:
        data: Folders of records; or photographs, folders of them, or patterns.
        branches: Who is compared, as "lift,mesh,fit,mesh+fit", or branches that other packages add.
        output: Folder for the results.
        noise: Standard deviations, as "0,2,5,10", of noise on the keypoints with which branches are asked again, in
            pixels of a person whose box is 1000 px high or wide.
        frames: At most so many people (or photographs), evenly spread; by default all.
        predictions: Another system's answers about the records, as NAME=FILE.npz with joints17_m (P, 17, 3) or
            vertices_m (P, V, 3) in metres and camera axes, and optionally root_m (P, 3) and person (P).
        mesh_weights: Network of the branches mesh and mesh+fit, by name or file.
        flip: Let the mesh branch look at the mirror image too, and take the mean.
        precision: Of the mesh network's layers.
        body: Body model of the truth and of the branches, by name or path.
        prior: Pose prior of the fit.
        detector: How people are found in photographs.
        keypoints: 2D joints of photographs from a file or folder in place of a detector's.
        seed: Of the noise and of the bootstrap.
        json: Print everything as JSON on standard output.
    """
    levels = _noise_levels(noise)
    _check(data, frames, seed)
    console = console_of()
    model = load_body_model(body)
    people = open_people(data, frames, PhotoChoice(detector, keypoints), console)
    choice = Choice(
        _names(branches), predictions, MeshChoice(mesh_weights, MeshConfig(precision=precision, flip=flip)), prior
    )
    contestants = build_contestants(choice, model, people)
    asked = {"data": [str(path) for path in data], "branches": [each.name for each in contestants]}
    asked |= {"noise_px": list(levels), "frames_at_most": frames, "predictions": list(predictions)}
    asked |= {"mesh_weights": mesh_weights, "flip": flip, "precision": precision, "body": body, "prior": prior}
    with whole_folder(output, MARK, OUR_FILES) as inside:
        with progress(console, len(people), "people asked about") as advance:
            found = measured(people, contestants, model, levels, seed, advance)
        _tell_problems((*people.problems, *found.problems), console)
        _refuse_silence(found.answered, len(people))
        comparison = comparison_of(found, people, model, seed)
        record = record_of(comparison, asked | {"seed": seed})
        write_comparison(inside, comparison, exhibits_of(comparison, people, contestants, model), model, record)
    if not can_plot():
        console.print("no PNG pictures, which matplotlib draws: pip install 'meshrec[plot]'", markup=False)
    if json:
        sys.stdout.write(jsons.dumps(record, indent=1, allow_nan=False) + "\n")
    tell(comparison, console)
    console.print(escape(f"wrote {output / PAGE}"), soft_wrap=True)
    return 0


def _names(branches: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in branches.split(",") if name.strip())


def _noise_levels(noise: str) -> tuple[float, ...]:
    """The levels, the least first; no noise is always among them."""
    try:
        levels = {0.0, *(float(level) for level in noise.split(","))}
    except ValueError as error:
        raise MeshrecError(f"--noise takes pixels as in 0,2,5,10, not {noise!r}.") from error
    if not all(0 <= level < PERSON_PX for level in levels):
        raise MeshrecError(f"--noise takes pixels from 0 to below {PERSON_PX:g}, a person's height, not {noise!r}.")
    return tuple(sorted(levels))


def _check(data: Sequence[Path], frames: int | None, seed: int) -> None:
    """Refuse what makes no sense before anything is read."""
    if not data:
        raise MeshrecError("Nobody to compare on: name records, or photographs, with --data PATH...")
    if frames is not None and frames < 1:
        raise MeshrecError(f"--frames takes a number of people from 1 on, not {frames}.")
    if seed < 0:
        raise MeshrecError(f"--seed takes a whole number from 0 on, not {seed}.")


def _tell_problems(problems: Sequence[str], console: Console) -> None:
    for problem in problems[:MOST_PROBLEMS]:
        console.print(f"[yellow]{escape(problem)}[/yellow]", soft_wrap=True)
    if len(problems) > MOST_PROBLEMS:
        console.print(f"[yellow]and {len(problems) - MOST_PROBLEMS} more[/yellow]")


def _refuse_silence(answered: Mapping[str, Bool[np.ndarray, "N"]], people: int) -> None:
    """Who answers nobody cannot be compared."""
    if silent := [name for name, known in answered.items() if not known.any()]:
        raise MeshrecError(
            f"{listed(silent)} answered none of the {people:,} people; leave out who has no answer, or see that the "
            f"data hold what is asked for."
        )
