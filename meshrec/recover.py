"""Photographs to bodies: detect the people, let a branch recover each body, write meshes, pictures and numbers."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Bool
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from meshrec.body import BodyModel, load_body_model
from meshrec.branches.registry import Branch, build_branch
from meshrec.detect import Detector, build_detector
from meshrec.errors import MeshrecError
from meshrec.export import write_mesh
from meshrec.files import whole_folder, write_text, write_whole
from meshrec.photo import Photo, camera_of, find_photos, read_photo, write_png
from meshrec.render import overlay, side_view
from meshrec.result import RESULT_FILE, result_arrays, result_record
from meshrec.skeletons import SMPL24, visibility
from meshrec.types import Estimate, Person


@dataclass(frozen=True)
class Recovery:
    """The people of one photograph and what a branch says of them."""

    photo: Photo
    people: tuple[Person, ...]
    estimate: Estimate
    """One leading axis: the people."""


class Recoverer:
    """From photographs to recoveries, with one detector, one branch and one body."""

    def __init__(self, detector: Detector, branch: Branch, model: BodyModel, focal_px: float | None = None) -> None:
        self.detector, self.branch, self.model, self.focal_px = detector, branch, model, focal_px

    @torch.no_grad()
    def __call__(self, photo: Photo) -> Recovery:
        """Every person in the photograph; a `MeshrecError` if there is nobody, or nobody's place can be solved."""
        people = self.detector(photo)
        if not people:
            raise MeshrecError(
                f"{photo.path}: no person was found. Crop the picture to the person, or give the keypoints with "
                f"--keypoints FILE."
            )
        estimate = self.branch(photo, people, camera_of(photo, self.focal_px))
        if estimate.report is not None and not estimate.report.solvable.all():
            kept = estimate.report.solvable.nonzero()[:, 0]
            if len(kept) == 0:
                raise MeshrecError(f"{photo.path}: too few joints are seen to place a body; at least two are needed.")
            estimate, people = estimate[kept], [people[index] for index in kept.tolist()]
        return Recovery(photo, tuple(people), estimate)


def seen_vertices(model: BodyModel, person: Person, threshold: float = 0.3) -> Bool[Tensor, "V"]:
    """The skin of body parts whose far end was seen; a leaf of the tree is its own far end."""
    confidence = visibility(person.keypoints.confidence, person.keypoints.skeleton, SMPL24)
    far_ends = [[child for parent, child in SMPL24.bones if parent == joint] or [joint] for joint in range(len(SMPL24))]
    seen = torch.stack([(confidence[ends] >= threshold).any() for ends in far_ends])
    return seen[model.parts]


def write_recovery(folder: Path, recovery: Recovery, model: BodyModel) -> dict:
    """Write a photograph's meshes, pictures and numbers into `folder`, all or nothing; returns the result's record."""
    body, camera = recovery.estimate.body, recovery.estimate.camera
    assert body is not None and camera is not None
    masks = [seen_vertices(model, person) for person in recovery.people]
    photo_camera, pixels = camera[0], recovery.photo.pixels
    record = result_record(recovery.photo, recovery.people, recovery.estimate, model)
    with whole_folder(folder, mark=RESULT_FILE) as inside:
        for index, (vertices_m, mask) in enumerate(zip(body.vertices_m, masks, strict=True)):
            write_mesh(inside / f"person{index}.obj", vertices_m, model.faces)
            picture = overlay(pixels, [vertices_m], model.faces, photo_camera, vertex_seen=[mask])
            write_png(inside / f"person{index}_overlay.png", picture)
            write_png(inside / f"person{index}_side.png", side_view(vertices_m, model.faces, mask))
        if len(masks) > 1:
            everyone = overlay(pixels, list(body.vertices_m), model.faces, photo_camera, vertex_seen=masks)
            write_png(inside / "overlay.png", everyone)
        arrays = result_arrays(recovery.people, recovery.estimate)
        write_whole(inside / "result.npz", lambda path: np.savez_compressed(path, allow_pickle=False, **arrays))
        write_text(inside / RESULT_FILE, json.dumps(record, indent=1, allow_nan=False))
    return record


@dataclass(frozen=True)
class Outcome:
    """What became of one photograph."""

    photo: Path
    folder: Path
    seconds: float
    record: dict | None = None
    error: str = ""


def folder_names(photos: Sequence[Path]) -> list[str]:
    """A folder for each photograph, named after it; photographs of one name are numbered."""
    names: list[str] = []
    for photo in photos:
        name, number = photo.stem, 2
        while name in names:
            name, number = f"{photo.stem}_{number}", number + 1
        names.append(name)
    return names


def recover_one(recoverer: Recoverer, photo: Path, folder: Path) -> Outcome:
    """Recover a photograph into a folder; whatever is wrong with it is told in the outcome."""
    began = time.perf_counter()
    try:
        record = write_recovery(folder, recoverer(read_photo(photo)), recoverer.model)
    except MeshrecError as error:
        return Outcome(photo, folder, time.perf_counter() - began, error=str(error))
    return Outcome(photo, folder, time.perf_counter() - began, record)


def command(
    photos: tyro.conf.Positional[tuple[str, ...]],
    /,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("out"),
    branch: str = "fit",
    body: str = "neutral",
    prior: str = "mixture",
    detector: Literal["mediapipe", "rcnn"] = "mediapipe",
    weights: Path | None = None,
    keypoints: Path | None = None,
    focal_px: float | None = None,
    json: bool = False,
) -> int:
    """Recover the body of every person in photographs.

    Each photograph gets a folder in the output folder: for each person an OBJ mesh, an overlay and a side view; and
    result.json (with result.npz) holding boxes, keypoints, camera, SMPL parameters, joints and the fit's report. Parts
    of a body that the photograph does not show are drawn in grey. A photograph that cannot be used is reported, and
    the rest goes on.

    Args:
        photos: Photographs, folders of them, or patterns.
        output: Folder for the results.
        branch: How bodies are recovered.
        body: Body model: a name of `meshrec assets list`, or a .npz or .pkl file.
        prior: Pose prior: a name, a file, or "none".
        detector: How people are found.
        weights: Weights of the detector, in place of those it downloads.
        keypoints: 2D joints from a file or folder (COCO JSON, OpenPose JSON, npz) in place of a detector's.
        focal_px: Focal length in pixels; by default from EXIF data, else the image diagonal.
        json: Print the results as JSON on standard output.
    """
    console = Console(stderr=True)
    paths = find_photos(photos)
    model = load_body_model(body)
    for note in model.file.notes:
        console.print(f"[yellow]{escape(note)}[/yellow]", soft_wrap=True)
    recoverer = Recoverer(
        build_detector(detector, weights, keypoints), build_branch(branch, model, prior), model, focal_px
    )
    outcomes = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("recovering", total=len(paths))
        for path, name in zip(paths, folder_names(paths), strict=True):
            progress.update(task, description=escape(path.name))
            outcomes.append(recover_one(recoverer, path, output / name))
            progress.advance(task)
    _tell(outcomes, console, as_json=json)
    return 1 if any(outcome.error for outcome in outcomes) else 0


def _tell(outcomes: list[Outcome], console: Console, as_json: bool) -> None:
    if as_json:
        _print_json(outcomes)
    table = Table("photo", "person", "seen", "off by", "plausible", "converged", "depth", "seconds", title="recovered")
    for outcome in outcomes:
        people = outcome.record["people"] if outcome.record else []
        for index, person in enumerate(people):
            table.add_row(*_row(outcome, index, person))
    if table.rows:
        console.print(table)
    for outcome in outcomes:
        if outcome.error:
            console.print(f"[red]{escape(outcome.error)}[/red]", soft_wrap=True)
    done = [outcome for outcome in outcomes if outcome.record]
    if done:
        folders = done[0].folder if len(done) == 1 else done[0].folder.parent
        console.print(
            f"{len(done)} of {len(outcomes)} photographs recovered; the results lie in {escape(str(folders))}"
        )


def _row(outcome: Outcome, index: int, person: dict) -> list[str]:
    report, seen = person["report"], person["joints17_seen"]
    plausible = report["plausibility"]
    return [
        outcome.photo.name if index == 0 else "",
        str(index),
        f"{sum(seen)} of {len(seen)}",
        f"{report['reprojection_px']:.1f} px",
        "-" if plausible is None else f"{plausible:.0%}",
        "yes" if report["converged"] else "no",
        f"{person['smpl']['transl_m'][2]:.1f} m",
        f"{outcome.seconds:.1f}" if index == 0 else "",
    ]


def _print_json(outcomes: list[Outcome]) -> None:
    """Results and failures on standard output."""
    results = [{"folder": str(outcome.folder), **outcome.record} for outcome in outcomes if outcome.record]
    failures = [{"photo": str(outcome.photo), "error": outcome.error} for outcome in outcomes if outcome.error]
    sys.stdout.write(json.dumps({"results": results, "failed": failures}, indent=1, allow_nan=False) + "\n")
