"""2D joints to 3D joints: photographs or keypoint files in, 17 joints of each person out, with pictures of them."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from meshrec.branches.lift import HEIGHTS_M, LiftBranch, LiftConfig, Points
from meshrec.detect import Detector, build_detector
from meshrec.errors import MeshrecError
from meshrec.files import make_folder, write_text, write_whole
from meshrec.keypoint_entries import MOST_SIDE_PX
from meshrec.keypoints import SEEN_CONFIDENCE
from meshrec.lift_inputs import Job, Picture, Sizes, find_jobs, in_h36m17_px
from meshrec.lift_result import Failure, Interpolation, LiftedPicture, LiftResult, lift_arrays, lift_csv, lift_record
from meshrec.models.lifter_file import DEFAULT_LIFTER, find_lifter, read_lifter
from meshrec.models.vae_lifter import Precision
from meshrec.photo import read_photo, write_png
from meshrec.randomness import generator_of
from meshrec.skeleton_page import MOST_PEOPLE, lift_page, way_page
from meshrec.skeleton_plot import LiftFigure, lift_picture, pose_strip
from meshrec.types import Estimate

PAGE_WIDTH = 120
"""Columns of the table where it is not printed to a terminal."""

AT_ONCE = 1024
"""Poses that are lifted together."""

MOST_ROWS = 30
"""People that the table names."""

MOST_HYPOTHESES = 10_000

STRIP = 9
"""Poses of an interpolation that its picture shows."""

Format = Literal["json", "npz", "csv"]


def lift_all(branch: LiftBranch, pictures: Sequence[Picture], noise: Float[Tensor, "H L"]) -> list[LiftedPicture]:
    """The people of pictures in 3D, and a hypothesis of each for each row of noise: the same rows for everybody."""
    if not pictures:
        return []
    sights = [sight for picture in pictures for sight in picture.sights]
    everybody = _stacked(sights)
    estimates = _joined_estimates([branch.estimate_points(part) for part in _chunks(everybody, AT_ONCE)])
    draws = _hypotheses(branch, everybody, noise) if len(noise) else None
    lifted, start = [], 0
    for picture in pictures:
        rows = slice(start, start + len(picture.people))
        lifted.append(LiftedPicture(picture, estimates[rows], None if draws is None else draws[rows]))
        start = rows.stop
    return lifted


def _hypotheses(branch: LiftBranch, people: Points, noise: Float[Tensor, "H L"]) -> Float[Tensor, "N H 17 3"]:
    """Draws from what the lifter thinks of each person: z = mean + standard deviation * noise."""
    draws = []
    for part in _chunks(people, max(1, AT_ONCE // len(noise))):
        count = len(part.points)
        repeated = part.map(lambda tensor: tensor.repeat_interleave(len(noise), dim=0))
        drawn = branch.estimate_points(repeated, noise.repeat(count, 1)).joints17_m
        draws.append(drawn.unflatten(0, (count, len(noise))))
    return torch.cat(draws)


def noise_of(count: int, latent: int, seed: int) -> Float[Tensor, "H L"]:
    """Standard normal rows; those of a smaller count come first in a larger one's."""
    drawn = generator_of(seed, "hypotheses").standard_normal((count, latent))
    return torch.from_numpy(drawn).float()


def _stacked(sights: Sequence[Points]) -> Points:
    return Points(
        torch.stack([sight.points for sight in sights]),
        torch.stack([sight.known for sight in sights]),
        torch.stack([sight.seen for sight in sights]),
        torch.stack([sight.confidence for sight in sights]),
    )


def _chunks(people: Points, size: int) -> Iterator[Points]:
    for start in range(0, len(people.points), size):
        yield people[start : start + size]


def _joined_estimates(parts: Sequence[Estimate]) -> Estimate:
    return Estimate(
        parts[0].branch,
        torch.cat([part.joints17_m for part in parts]),
        torch.cat([part.confidence for part in parts]),
        torch.cat([part.seen for part in parts]),
        torch.cat([part.root_m for part in parts if part.root_m is not None]),
    )


def interpolated(branch: LiftBranch, lifted: Sequence[LiftedPicture], count: int) -> Interpolation:
    """Poses in equal steps from the first person to the last, both included."""
    people = [sight for picture in lifted for sight in picture.picture.sights]
    if len(people) < 2:
        raise MeshrecError(
            f"--interpolate goes from the first person to the last, and {len(people)} can be lifted: name two people."
        )
    shares = torch.linspace(0.0, 1.0, count)
    return Interpolation(shares, branch.between(people[0], people[-1], shares))


def see_all(jobs: Sequence[Job], console: Console) -> tuple[list[Picture], list[Failure]]:
    """Look at every picture, with a progress bar; what is wrong with one is told and the rest goes on."""
    seen: list[Picture] = []
    failed: list[Failure] = []
    for job in _tracked(jobs, "looking", console):
        try:
            seen.append(job.see())
        except MeshrecError as error:
            failed.append(Failure(job.name, str(error)))
        except MemoryError:
            failed.append(Failure(job.name, f"{job.name}: the memory is full; scale it down."))
    return seen, failed


def _tracked(things: Sequence[Any], what: str, console: Console) -> Iterator[Any]:
    """The things one by one, with a progress bar that goes when they are through."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(things, description=what)


def figure_of(lifted: LiftedPicture, row: int, unit: Literal["m", "units"], pixels: np.ndarray | None) -> LiftFigure:
    """What is drawn of a person."""
    picture, estimate, keypoints = lifted.picture, lifted.estimate[row], lifted.picture.people[row]
    return LiftFigure(
        title=f"{picture.name}, person {picture.persons[row]}",
        joints=estimate.joints17_m.double().numpy(),
        seen=estimate.seen.numpy(),
        unit=unit,
        xy_px=in_h36m17_px(picture.sights[row], picture.camera).double().numpy(),
        pixels=pixels,
        around_px=keypoints.xy_px[keypoints.confidence >= SEEN_CONFIDENCE].double().numpy(),
        hypotheses=None if lifted.hypotheses is None else lifted.hypotheses[row].double().numpy(),
    )


def picture_names(names: Sequence[str]) -> list[str]:
    """A name for the pictures of each image, safe as that of a file; images of one name are numbered."""
    given: dict[str, int] = {}
    taken = []
    for name in names:
        stem = re.sub(r"[^\w.-]+", "_", Path(name).stem).strip(".") or "image"
        given[stem] = given.get(stem, 0) + 1
        taken.append(stem if given[stem] == 1 else f"{stem}_{given[stem]}")
    return taken


def draw_all(result: LiftResult, output: Path, console: Console) -> list[Path]:
    """A PNG of each person, one web page of all, and both of an interpolation."""
    names = picture_names([lifted.picture.name for lifted in result.pictures])
    shown: list[LiftFigure] = []
    written: list[Path] = []
    for lifted, name in _tracked(list(zip(result.pictures, names, strict=True)), "drawing", console):
        photo = lifted.picture.photo
        pixels = None if photo is None else read_photo(photo).pixels
        for row, person in enumerate(lifted.picture.persons):
            figure = figure_of(lifted, row, result.unit, pixels)
            written.append(write_png(output / f"{name}_person{person}.png", lift_picture(figure)))
            if len(shown) < MOST_PEOPLE:
                shown.append(figure)
    if result.interpolation is not None:
        written += _draw_way(result.interpolation, result.unit, output)
    return [*written, write_text(output / "lift.html", lift_page(shown, "meshrec lift"))]


def _drawing_fault(result: LiftResult, output: Path, console: Console) -> str:
    """Draw; empty, or what cannot be drawn, as the page without plotly: it loses no numbers."""
    try:
        draw_all(result, output, console)
    except MeshrecError as error:
        return str(error)
    return ""


def _draw_way(way: Interpolation, unit: Literal["m", "units"], output: Path) -> list[Path]:
    """The interpolation as a strip of poses and as a page with a slider."""
    nothing, seen = np.zeros((17, 2)), np.ones(17, dtype=bool)
    poses = [
        LiftFigure(f"{share:.0%}", joints.double().numpy(), seen, unit, nothing)
        for share, joints in zip(way.shares.tolist(), way.joints, strict=True)
    ]
    chosen = np.unique(np.linspace(0, len(poses) - 1, min(STRIP, len(poses))).round().astype(int))
    strip = write_png(output / "interpolation.png", pose_strip([poses[index] for index in chosen]))
    return [strip, write_text(output / "interpolation.html", way_page(poses, "from the first person to the last"))]


def write_all(result: LiftResult, record: dict[str, Any], formats: Sequence[Format], output: Path) -> None:
    """The numbers, in each of the formats."""
    if "json" in formats:
        write_text(output / "lift.json", json.dumps(record, indent=1, allow_nan=False))
    if "npz" in formats:
        arrays = lift_arrays(result)
        write_whole(output / "lift.npz", lambda path: np.savez_compressed(path, allow_pickle=False, **arrays))
    if "csv" in formats:
        write_text(output / "lift.csv", lift_csv(result))


def command(
    inputs: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEYPOINTS|PHOTO...")]],
    /,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("lifted"),
    height_m: float | None = None,
    hypotheses: int = 0,
    interpolate: int = 0,
    seed: int = 0,
    plot: bool = False,
    format: tuple[Format, ...] = ("json", "npz"),
    image_size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="W H")] = None,
    focal_px: float | None = None,
    weights: str = DEFAULT_LIFTER,
    precision: Precision = "float32",
    flip: bool = True,
    detector: Literal["mediapipe", "rcnn"] = "mediapipe",
    detector_weights: Path | None = None,
    keypoints: Path | None = None,
    json: bool = False,
) -> int:
    """Lift people's 2D joints to 17 joints in 3D (H36M-17), in the camera's axes, relative to the pelvis.

    Inputs are photographs, or files of keypoints without: COCO JSON (annotations with `images`, or a list of results),
    OpenPose JSON, npz (`xy_px (people, K, 2)`, `confidence`, `skeleton`, perhaps `size_px`), or folders of them. DIR
    gets lift.json and lift.npz, whose fields say their units. Joints that were not seen are estimated and marked. An
    input that cannot be used is reported, and the rest goes on.

    meshrec lift photo.jpg -o out --plot --height-m 1.75

    meshrec lift person_keypoints.json -o out --format json csv npz

    meshrec lift openpose_folder -o out --image-size 1920 1080 --hypotheses 20 --plot

    meshrec lift first.npz second.npz -o out --interpolate 9 --plot

    Args:
        inputs: Keypoint files, photographs, folders of either, or patterns of photographs.
        output: Folder for the results.
        height_m: Body height; lengths are then in metres. Without it they are in units of one head-pelvis path.
        hypotheses: So many poses beside the estimate, drawn from what the lifter finds possible.
        interpolate: So many poses from the first person to the last, along the sphere of the latent space.
        seed: Another number draws other hypotheses.
        plot: Draw each person (PNG) and all on a page to turn with the mouse (needs pip install "meshrec[plot]").
        format: Files of numbers to write.
        image_size: Of images whose size no file tells; else the camera looks at the middle of the keypoints, in an
            image twice as high as the largest person.
        focal_px: Focal length in pixels; by default from EXIF data, else the image diagonal.
        weights: The lifter: a name, or a file (also the best one of a training run).
        precision: Of the network's layers.
        flip: Average each pose with the mirrored pose of the mirrored joints; --no-flip leaves it.
        detector: How people are found in photographs.
        detector_weights: Weights of the detector, in place of those it downloads.
        keypoints: 2D joints of the photographs from a file or folder, in place of a detector's.
        json: Print the content of lift.json on standard output.
    """
    _check(height_m, hypotheses, interpolate, seed, image_size, focal_px, format)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else PAGE_WIDTH)
    make_folder(output)
    path = find_lifter(weights)
    branch = LiftBranch(read_lifter(path), LiftConfig(height_m, precision, flip))

    def build(photos: Sequence[Path]) -> Detector:
        return build_detector(detector, detector_weights, keypoints, photos)

    jobs = find_jobs(inputs, Sizes(image_size, focal_px), build)
    if not jobs.photos and (idle := keypoints or detector_weights):
        raise MeshrecError(f"{idle} is for photographs, and no input is one: name keypoint files as inputs.")
    pictures, failed = see_all(jobs.jobs, console)
    failed = [*(Failure(None, problem) for problem in jobs.problems), *failed]
    lifted = lift_all(branch, pictures, noise_of(hypotheses, branch.lifter.config.latent, seed))
    way = interpolated(branch, lifted, interpolate) if interpolate else None
    result = LiftResult(tuple(lifted), path, height_m, seed, way)
    record = lift_record(result, failed)
    if lifted:
        write_all(result, record, format, output)
    undrawn = _drawing_fault(result, output, console) if lifted and plot else ""
    _tell(result, failed, undrawn, output, console)
    if json:
        _print_json(record)
    return 1 if failed or undrawn else 0


def _check(
    height_m: float | None,
    hypotheses: int,
    interpolate: int,
    seed: int,
    image_size: tuple[int, int] | None,
    focal_px: float | None,
    formats: Sequence[Format],
) -> None:
    """Refuse what makes no sense before anything is read."""
    low, high = HEIGHTS_M
    if height_m is not None and not low <= height_m <= high:
        raise MeshrecError(f"--height-m takes a body height in metres, from {low:g} to {high:g}, not {height_m:g}.")
    if not 0 <= hypotheses <= MOST_HYPOTHESES:
        raise MeshrecError(f"--hypotheses takes a number from 0 to {MOST_HYPOTHESES}, not {hypotheses}.")
    if interpolate and not 2 <= interpolate <= MOST_HYPOTHESES:
        raise MeshrecError(f"--interpolate takes a number of poses from 2 to {MOST_HYPOTHESES}, not {interpolate}.")
    if seed < 0:
        raise MeshrecError(f"--seed takes a whole number from 0 on, not {seed}.")
    if image_size is not None and not 1 <= min(image_size) <= max(image_size) <= MOST_SIDE_PX:
        width, height = image_size
        raise MeshrecError(f"--image-size takes width and height, 1 to {MOST_SIDE_PX:,} px, not {width} {height}.")
    if focal_px is not None and not 0 < focal_px < float("inf"):
        raise MeshrecError(f"--focal-px takes a focal length in pixels, above 0, not {focal_px:g}.")
    if not formats:
        raise MeshrecError("--format names no format: choose of json, npz and csv.")


def _print_json(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record, indent=1, allow_nan=False) + "\n")


def _tell(result: LiftResult, failed: Sequence[Failure], undrawn: str, output: Path, console: Console) -> None:
    """A table of the people, a sentence for each thing that failed or was assumed, and where the results lie."""
    people = list(result.people())
    table = Table(title="lifted" if len(people) <= MOST_ROWS else f"lifted (the first {MOST_ROWS} of {len(people)})")
    for column in ("picture", "person", "seen", "distance", "focal length", "image size"):
        table.add_column(column, no_wrap=column != "picture", overflow="fold")
    for lifted, row in people[:MOST_ROWS]:
        table.add_row(*_row(result, lifted, row))
    if table.rows:
        console.print(table)
    assumed = sum(lifted.picture.size_source == "assumed" for lifted in result.pictures)
    if assumed:
        console.print(
            f"[yellow]{assumed} of {len(result.pictures)} inputs tell no size: the camera is assumed to look at the "
            f"middle of the keypoints, in an image twice as high as the largest person. Give --image-size W H, or "
            f"--focal-px.[/yellow]",
            soft_wrap=True,
        )
    for sentence in (sentence for lifted in result.pictures for sentence in lifted.picture.left_out):
        console.print(f"[yellow]left out: {escape(sentence)}[/yellow]", soft_wrap=True)
    for error in (*(failure.error for failure in failed), *([undrawn] if undrawn else [])):
        console.print(f"[red]{escape(error)}[/red]", soft_wrap=True)
    total = len(result.pictures) + len(failed)
    where = f"; results are in {output}" if people else ""
    who = "1 person" if len(people) == 1 else f"{len(people)} people"
    told = f"{who} in {len(result.pictures)} of {total} inputs lifted{where}"
    console.print(escape(told), soft_wrap=True)


def _row(result: LiftResult, lifted: LiftedPicture, row: int) -> list[str]:
    picture, estimate = lifted.picture, lifted.estimate[row]
    assert estimate.root_m is not None
    unit = "m" if result.unit == "m" else "units"
    return [
        picture.name if row == 0 else "",
        str(picture.persons[row]),
        f"{int(estimate.seen.sum())} of {len(estimate.seen)}",
        f"{float(estimate.root_m.norm()):.1f} {unit}",
        f"{float(picture.camera.focal_px):.0f} px ({picture.camera.focal_source})",
        f"{picture.camera.width_px}x{picture.camera.height_px} ({picture.size_source})",
    ]
