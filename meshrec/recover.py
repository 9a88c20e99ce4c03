"""Photographs to bodies: detect the people, let a branch recover each one, write meshes, pictures and numbers."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
import torch
import tyro
from jaxtyping import Bool
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from meshrec.body import BodyModel, load_body_model
from meshrec.branches.lift import LiftBranch
from meshrec.branches.mesh import MeshConfig, Sight
from meshrec.branches.registry import Branch, MeshChoice, Several, ask, build_branch, refined, usual_branch
from meshrec.camera import project
from meshrec.detect import Detector, build_detector
from meshrec.errors import MeshrecError
from meshrec.export import write_mesh
from meshrec.files import make_folder, whole_folder, write_text, write_whole
from meshrec.keypoints import SEEN_CONFIDENCE
from meshrec.models.regressor import Precision
from meshrec.photo import Photo, camera_of, find_photos, read_photo, write_png
from meshrec.prior_files import DEFAULT_PRIOR
from meshrec.recover_report import Outcome, tell
from meshrec.render import overlay, side_view
from meshrec.result import OUR_FILES, RESULT_FILE, person_files, placed_joints17_m, result_arrays, result_record
from meshrec.skeleton_plot import LiftFigure, pose_views, skeletons_over
from meshrec.skeletons import SMPL24, visibility
from meshrec.types import Estimate, Person

Done = TypeVar("Done")

PAGE_WIDTH = 120
"""Columns of the table where it is not printed to a terminal."""

PHOTOS_AT_ONCE = 16
"""Photographs that are looked at before a branch is asked for all of them, where it can be."""

MOST_BYTES = 200_000_000
"""Once their pixels fill so much of the memory, the branch is asked."""

WRITERS = 2
"""Photographs that are drawn and written at once."""

FAR_ENDS = [[child for parent, child in SMPL24.bones if parent == joint] or [joint] for joint in range(len(SMPL24))]
"""The joints at which each joint's body part ends."""


@dataclass(frozen=True)
class Recovery:
    """The people of one photograph and what a branch says of them."""

    photo: Photo
    people: tuple[Person, ...]
    estimate: Estimate
    """One leading axis: the people."""
    left_out: int = 0
    """People of whom too little was seen to place a body."""
    height_m: float | None = None
    """Body height that sets the scale; None where the branch finds the scale itself."""


class Recoverer:
    """From photographs to recoveries, with one detector, one branch and one body."""

    def __init__(self, detector: Detector, branch: Branch, model: BodyModel, focal_px: float | None = None) -> None:
        self.detector, self.branch, self.model, self.focal_px = detector, branch, model, focal_px

    @torch.no_grad()
    def __call__(self, photo: Photo) -> Recovery:
        """Every person in the photograph; a `MeshrecError` if there is nobody, or nobody's place can be solved."""
        sight = self.look(photo)
        return self.recovery(sight, self.branch(photo, sight.people, sight.camera))

    @torch.no_grad()
    def look(self, photo: Photo) -> Sight:
        """Whom the detector sees, and the camera; a `MeshrecError` if there is nobody."""
        people = self.detector(photo)
        if not people:
            raise MeshrecError(
                f"{photo.path}: no person was found. Crop the picture to the person, or give the keypoints with "
                f"--keypoints FILE."
            )
        return Sight(photo, people, camera_of(photo, self.focal_px))

    @torch.no_grad()
    def recovery(self, sight: Sight, estimate: Estimate) -> Recovery:
        """The people who could be placed; a `MeshrecError` if nobody could."""
        photo, people = sight.photo, sight.people
        placed = placed_people(estimate).nonzero()[:, 0]
        if len(placed) == 0:
            raise MeshrecError(
                f"{photo.path}: too few joints are seen to place a body; at least two are needed, and for --branch "
                f"lift one of them a hip."
            )
        kept = tuple(people[index] for index in placed.tolist())
        height_m = self.branch.config.height_m if isinstance(self.branch, LiftBranch) else None
        return Recovery(photo, kept, estimate[placed], len(people) - len(kept), height_m)


def placed_people(estimate: Estimate) -> Bool[Tensor, "N"]:
    """Of whom a branch can say something: all but those its report excludes and those whose joints are not finite."""
    finite = estimate.joints17_m.isfinite().flatten(1).all(dim=1)
    return finite if estimate.report is None else estimate.report.solvable


def seen_vertices(model: BodyModel, person: Person) -> Bool[Tensor, "V"]:
    """The skin of body parts whose far end was seen; a leaf of the tree is its own far end."""
    confidence = visibility(person.keypoints.confidence, person.keypoints.skeleton, SMPL24)
    seen = torch.stack([(confidence[ends] >= SEEN_CONFIDENCE).any() for ends in FAR_ENDS])
    return seen.to(model.parts.device)[model.parts]


def write_recovery(folder: Path, recovery: Recovery, model: BodyModel) -> dict:
    """Write a photograph's meshes, pictures and numbers into `folder`, all or nothing; returns the result's record."""
    _refuse_other_photo(folder, recovery.photo)
    record = result_record(
        recovery.photo, recovery.people, recovery.estimate, model, recovery.left_out, recovery.height_m
    )
    arrays = result_arrays(recovery.people, recovery.estimate)
    with whole_folder(folder, RESULT_FILE, OUR_FILES) as inside:
        _write_bodies(inside, recovery, model)
        _write_skeletons(inside, recovery)
        write_whole(inside / "result.npz", lambda path: np.savez_compressed(path, allow_pickle=False, **arrays))
        write_text(inside / RESULT_FILE, json.dumps(record, indent=1, allow_nan=False))
    return record


def _refuse_other_photo(folder: Path, photo: Photo) -> None:
    """An earlier result of the same photograph may be replaced, that of another one of the same name may not."""
    try:
        earlier = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))["photo"]
    except (OSError, ValueError, LookupError, TypeError):
        return
    if Path(earlier).resolve() != photo.path.resolve():
        raise MeshrecError(f"{folder} holds the result of {earlier}, not of {photo.path}; choose another -o DIR.")


def _write_bodies(folder: Path, recovery: Recovery, model: BodyModel) -> None:
    """A mesh and two pictures for each body, and one picture of all; nothing where a branch knows joints alone."""
    body, cameras, pixels = recovery.estimate.body, recovery.estimate.camera, recovery.photo.pixels
    if body is None or cameras is None:
        return
    camera, faces = cameras[0], model.faces
    seen = [seen_vertices(model, person) for person in recovery.people]
    for index, (vertices_m, mask) in enumerate(zip(body.vertices_m, seen, strict=True)):
        files = person_files(index)
        write_mesh(folder / files["mesh"], vertices_m, faces)
        write_png(folder / files["overlay"], overlay(pixels, [vertices_m], faces, camera, vertex_seen=[mask]))
        write_png(folder / files["side"], side_view(vertices_m, faces, mask))
    if len(seen) > 1:
        write_png(folder / "overlay.png", overlay(pixels, list(body.vertices_m), faces, camera, vertex_seen=seen))


def _write_skeletons(folder: Path, recovery: Recovery) -> None:
    """Two pictures for each person, and one of all, where a branch knows placed joints but no body."""
    estimate, pixels = recovery.estimate, recovery.photo.pixels
    if estimate.body is not None or estimate.camera is None or estimate.root_m is None:
        return
    joints_m = placed_joints17_m(estimate)
    xy_px, depth_m = project(joints_m, estimate.camera).cpu().numpy(), joints_m[..., 2].cpu().numpy()
    seen, joints = estimate.seen.cpu().numpy(), estimate.joints17_m.cpu().numpy()
    skeletons = list(zip(xy_px, seen, depth_m, strict=True))
    for index, skeleton in enumerate(skeletons):
        files = person_files(index)
        write_png(folder / files["overlay"], skeletons_over(pixels, [skeleton]))
        write_png(folder / files["side"], pose_views(LiftFigure("", joints[index], seen[index], "m", xy_px[index]))[1])
    if len(skeletons) > 1:
        write_png(folder / "overlay.png", skeletons_over(pixels, skeletons))


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
    return next(recover_group(recoverer, [(photo, folder)]))


def recover_group(
    recoverer: Recoverer, jobs: Sequence[tuple[Path, Path]], looked_at: Callable[[Path], object] = lambda photo: None
) -> Iterator[Outcome]:
    """Recover photographs into folders, in their order; the branch is asked for all together, as memory allows.

    What is wrong with one is told in its outcome and costs the others nothing. `looked_at` is told of each photograph
    when its people have been found.
    """
    waiting: list[_Looked] = []
    for photo, folder in jobs:
        began = time.perf_counter()
        seen = _or_sentence(photo, lambda photo=photo: recoverer.look(read_photo(photo)))
        waiting.append(_Looked(photo, folder, time.perf_counter() - began, seen))
        looked_at(photo)
        if sum(looked.seen.photo.pixels.nbytes for looked in waiting if isinstance(looked.seen, Sight)) > MOST_BYTES:
            yield from _answered(recoverer, waiting)
            waiting = []
    yield from _answered(recoverer, waiting)


@dataclass(frozen=True)
class _Looked:
    """What was seen in a photograph, or what is wrong with it."""

    photo: Path
    folder: Path
    seconds: float
    seen: Sight | str


def _answered(recoverer: Recoverer, waiting: Sequence[_Looked]) -> Iterator[Outcome]:
    """The outcomes of photographs that were looked at; some are written at once."""
    began = time.perf_counter()
    sights = [looked.seen for looked in waiting if isinstance(looked.seen, Sight)]
    with torch.no_grad():
        answers = iter(ask(recoverer.branch, sights))
    share = (time.perf_counter() - began) / max(len(sights), 1)
    with ThreadPoolExecutor(WRITERS, "writer") as writers:
        written = [
            writers.submit(_written, recoverer, looked, looked.seen, next(answers), share)
            for looked in waiting
            if isinstance(looked.seen, Sight)
        ]
        outcomes = iter(written)
        for looked in waiting:
            if isinstance(looked.seen, str):
                yield Outcome(looked.photo, looked.folder, looked.seconds, error=looked.seen)
            else:
                yield next(outcomes).result()


def _written(
    recoverer: Recoverer, looked: _Looked, sight: Sight, answer: Estimate | MeshrecError, seconds: float
) -> Outcome:
    def work() -> dict:
        if isinstance(answer, MeshrecError):
            raise answer
        return write_recovery(looked.folder, recoverer.recovery(sight, answer), recoverer.model)

    began = time.perf_counter()
    record = _or_sentence(looked.photo, work)
    seconds += looked.seconds + time.perf_counter() - began
    error, record = (record, None) if isinstance(record, str) else ("", record)
    return Outcome(looked.photo, looked.folder, seconds, record, error)


def _or_sentence(photo: Path, work: Callable[[], Done]) -> Done | str:
    """What the work gives, or what went wrong with it."""
    try:
        return work()
    except MeshrecError as error:
        return str(error)
    except MemoryError:
        return f"{photo}: the memory is full; scale it down."


def recover_all(recoverer: Recoverer, photos: Sequence[Path], output: Path, console: Console) -> Iterator[Outcome]:
    """Recover photographs, with a progress bar, each into a folder of its own.

    The bar moves by half a photograph when its people are found, and by the other half when they are recovered.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    jobs = list(zip(photos, (output / name for name in folder_names(photos)), strict=True))
    together = PHOTOS_AT_ONCE if isinstance(recoverer.branch, Several) else 1
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(escape(photos[0].name) if photos else "", total=len(photos))

        def half_done(photo: Path) -> None:
            progress.update(task, description=escape(photo.name), advance=0.5)

        for start in range(0, len(jobs), together):
            for outcome in recover_group(recoverer, jobs[start : start + together], half_done):
                yield outcome
                half_done(outcome.photo)


def command(
    photos: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="PHOTO...")]],
    /,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("out"),
    branch: str | None = None,
    body: str = "neutral",
    prior: str = DEFAULT_PRIOR,
    detector: Literal["mediapipe", "rcnn"] = "mediapipe",
    weights: Path | None = None,
    keypoints: Path | None = None,
    focal_px: float | None = None,
    mesh_weights: str | None = None,
    refine: bool = False,
    flip: bool = False,
    precision: Precision = "float32",
    json: bool = False,
) -> int:
    """Recover the body of every person in photographs.

    Each photograph gets a folder in the output folder: for each person an OBJ mesh, an overlay and a side view; and
    result.json (with result.npz) holding boxes, keypoints, camera, SMPL parameters, joints and the fit's report. Parts
    of a body that the photograph does not show are drawn in grey. A photograph that cannot be used is reported, and
    the rest goes on.

    `--branch fit` fits a body to the keypoints. `--branch mesh` asks a network: the one that ships, which knows bodies
    by their keypoints, or another, which looks at the picture, whose file `--mesh-weights` names; with `--refine` (or
    `--branch mesh+fit`) the fit goes on from there. `--branch lift` finds 17 joints alone, for a body height of 1.7 m:
    its pictures show skeletons, and there is no mesh (`meshrec lift` takes other heights).

    Args:
        photos: Photographs, folders of them, or patterns.
        output: Folder for the results.
        branch: How bodies are recovered: fit, mesh, mesh+fit, lift, or one that another package adds. By default
            mesh+fit; fit where the body is not the shipped one, which the shipped network was taught.
        body: Body model: a name of `meshrec assets list`, or a .npz or .pkl file.
        prior: Pose prior: a name, a file, or "none".
        detector: How people are found.
        weights: Weights of the detector, in place of those it downloads.
        keypoints: 2D joints from a file or folder (COCO JSON, OpenPose JSON, npz) in place of a detector's.
        focal_px: Focal length in pixels; by default from EXIF data, else the image diagonal.
        mesh_weights: The mesh branch's network, by name or file: one of `meshrec train`, or an official checkpoint.
        refine: Fit the body that the mesh branch finds to the keypoints.
        flip: Let the mesh branch look at the mirror image too, and take the mean.
        precision: Of the mesh network's layers.
        json: Print the results as JSON on standard output.
    """
    console = Console(stderr=True, width=None if sys.stderr.isatty() else PAGE_WIDTH)
    found = find_photos(photos)
    make_folder(output)
    model = load_body_model(body)
    for note in model.file.notes:
        console.print(f"[yellow]{escape(note)}[/yellow]", soft_wrap=True)
    detection = build_detector(detector, weights, keypoints, found.photos)
    choice = MeshChoice(mesh_weights, MeshConfig(precision=precision, flip=flip))
    name = branch or usual_branch(model, choice)
    asked = build_branch(refined(name) if refine else name, model, prior, choice)
    recoverer = Recoverer(detection, asked, model, focal_px)
    outcomes: list[Outcome] = []
    try:
        for outcome in recover_all(recoverer, found.photos, output, console):
            outcomes.append(outcome)
    finally:
        tell(outcomes, found.problems, output, console, as_json=json)
    return 1 if found.problems or any(outcome.error for outcome in outcomes) else 0
