"""How well recovered bodies agree with photographs: with what the detector saw, and with annotated joints.

    python tools/photo_fit.py PHOTOS... --annotations annotations.json -o out/photo_fit --branch mesh+fit

The annotations hold `images`, each with a `file` name and `persons`: `names` "coco17", `keypoints` (17 rows of x, y, v
in pixels, those of the first pixel being 0) and `bbox` (x, y, width, height). "off" is the median distance of projected
and detected joints in per cent of the longer side of the box around the detected ones (aim: at most 2). PCK@0.1 is the
share of annotated joints (v > 0) within a tenth of the longer side of the annotated box, once of the body and once of
the detector; an annotated person who was not found has 0. Settings of the fit are flags: `--fit.noise-share 0.02`.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Annotated

import cv2
import numpy as np
import torch
import tyro
from jaxtyping import Float, UInt8
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from meshrec.blazepose import MediaPipeDetector
from meshrec.body import BodyModel, load_body_model
from meshrec.branches.fit import FitBranch, FitConfig
from meshrec.branches.registry import MeshChoice, build_branch
from meshrec.camera import project
from meshrec.errors import MeshrecError
from meshrec.keypoints import SEEN_CONFIDENCE, agreement, box_of
from meshrec.metrics import pck_2d
from meshrec.photo import Photo, find_photos, read_photo, write_png
from meshrec.prior_files import DEFAULT_PRIOR, open_prior
from meshrec.recover import Recoverer, Recovery, seen_vertices
from meshrec.render import overlay, side_view
from meshrec.skeletons import COCO17, convert
from meshrec.types import Keypoints, Person

THRESHOLDS = (0.1, 0.05)
LEAST_LIKENESS = 0.3
"""Below it a recovered person is not the annotated one."""
HEADERS = ("photo", "person", "off %", "PCK .1", ".05", "detector .1", ".05", "plausible", "energy", "converged", "s")
"""Of a table; the fields of a `Row` in their order."""
CELL_PX = 448
DOT = (60, 255, 60)


@dataclass(frozen=True)
class Row:
    """One person of a photograph; nothing where there is nothing to compare, no person where nobody was found."""

    photo: str
    person: int | None = None
    off_percent: float | None = None
    pck_10: float | None = None
    pck_05: float | None = None
    detector_pck_10: float | None = None
    detector_pck_05: float | None = None
    plausibility: float | None = None
    prior_energy: float | None = None
    converged: bool | None = None
    seconds: float | None = None
    """Detection and fit of the whole photograph."""


class BoxDetector:
    """Looks into annotated boxes where a photograph has some, else everywhere."""

    def __init__(self, detector: MediaPipeDetector, annotations: Mapping[str, Sequence[Person]]) -> None:
        self.name = detector.name
        self._detector, self._annotations = detector, annotations

    def __call__(self, photo: Photo) -> list[Person]:
        known = self._annotations.get(photo.path.name)
        if not known:
            return self._detector(photo)
        inside = [(self._detector.in_box(photo, person.box_xyxy_px), person.box_xyxy_px) for person in known]
        return [replace(person, box_xyxy_px=box) for person, box in inside if person is not None]


def read_annotations(path: Path) -> dict[str, list[Person]]:
    """The annotated people by the name of their photograph; their joints have confidence 1, or 0 if not annotated.

    In the project's pixels: the middle of the first one is (0.5, 0.5). People without any annotated joint are left out.
    """
    try:
        images = json.loads(path.read_text())["images"]
        people = {image["file"]: [_annotated(person) for person in image.get("persons", ())] for image in images}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MeshrecError(
            f"{path} holds no annotations that can be read: {error!r}. --help tells the layout."
        ) from error
    return {name: [p for p in found if p.keypoints.confidence.any()] for name, found in people.items()}


def _annotated(person: dict) -> Person:
    if person["names"] != COCO17.name:
        raise ValueError(f"the joints of a person are {person['names']}, not {COCO17.name}")
    x, y, v = torch.tensor(person["keypoints"], dtype=torch.float32).reshape(len(COCO17), 3).T
    left, top, width, height = person["bbox"]
    keypoints = Keypoints(torch.stack([x, y], dim=-1) + 0.5, (v > 0).float(), COCO17)
    return Person(torch.tensor([left, top, left + width, top + height]), 1.0, keypoints)


def matches(people: Sequence[Person], annotated: Sequence[Person]) -> dict[int, int]:
    """Annotated person -> recovered person, the most alike pair first."""
    pairs = [(likeness(p, a), i, j) for i, a in enumerate(annotated) for j, p in enumerate(people)]
    matched: dict[int, int] = {}
    for alike, i, j in sorted(pairs, reverse=True):
        if alike >= LEAST_LIKENESS and i not in matched and j not in matched.values():
            matched[i] = j
    return matched


def likeness(person: Person, annotated: Person) -> float:
    """The larger of the overlap of the boxes (intersection over union) and the agreement of the joints."""
    one, other = box_of(person.keypoints, 0.0), annotated.box_xyxy_px
    common = (torch.minimum(one[2:], other[2:]) - torch.maximum(one[:2], other[:2])).clamp(min=0).prod()
    union = (one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - common
    return max(float(common / union), agreement(coco(person.keypoints), annotated.keypoints))


def coco(keypoints: Keypoints) -> Keypoints:
    """The same as COCO-17."""
    xy_px = convert(keypoints.xy_px, keypoints.skeleton, COCO17)[0]
    confidence = convert(keypoints.confidence[..., None], keypoints.skeleton, COCO17)[0][..., 0]
    return Keypoints(xy_px, confidence, COCO17)


def look(recoverer: Recoverer, photo: Photo, annotated: Sequence[Person]) -> tuple[Recovery | None, list[Row]]:
    """Recover a photograph and measure; no recovery where nobody is found."""
    began = time.perf_counter()
    try:
        recovery = recoverer(photo)
    except MeshrecError:  # it says that nobody was found, and a row says so too
        return None, [missed(photo.path.name) for _ in annotated] or [Row(photo.path.name)]
    return recovery, measure(recoverer.model, recovery, annotated, time.perf_counter() - began)


def measure(model: BodyModel, recovery: Recovery, annotated: Sequence[Person], seconds: float) -> list[Row]:
    """A row for everybody who was recovered, and one for each annotated person who was not."""
    name, matched = recovery.photo.path.name, matches(recovery.people, annotated)
    truth = {j: annotated[i] for i, j in matched.items()}
    rows = [_row(model, recovery, index, truth.get(index), seconds) for index in range(len(recovery.people))]
    return rows + [missed(name) for i in range(len(annotated)) if i not in matched]


def missed(photo: str) -> Row:
    """An annotated person whom nobody found."""
    return Row(photo, pck_10=0.0, pck_05=0.0, detector_pck_10=0.0, detector_pck_05=0.0)


def _row(model: BodyModel, recovery: Recovery, index: int, truth: Person | None, seconds: float) -> Row:
    person, estimate = recovery.people[index], recovery.estimate[index]
    assert estimate.params is not None and estimate.camera is not None
    xy_px, seen = project(model.regressed(estimate.params, COCO17), estimate.camera), coco(person.keypoints)
    ours = detectors = (None, None)
    if truth is not None:
        ours, detectors = _pck(xy_px, truth), _pck(seen.xy_px, truth)
    report = estimate.report
    return Row(
        recovery.photo.path.name,
        index,
        100 * _off_px(xy_px, seen) / float(_longer_side(box_of(person.keypoints, 0.0))),
        *ours,
        *detectors,
        plausibility=None if report is None or report.plausibility.isnan() else float(report.plausibility),
        prior_energy=None if report is None else float(report.terms.prior),
        converged=None if report is None else bool(report.converged),
        seconds=seconds,
    )


def _off_px(xy_px: Float[Tensor, "17 2"], seen: Keypoints) -> float:
    """The median distance of joints to where they are detected."""
    return float((xy_px - seen.xy_px).norm(dim=-1)[seen.confidence >= SEEN_CONFIDENCE].median())


def _pck(xy_px: Float[Tensor, "17 2"], truth: Person) -> tuple[float, ...]:
    size = _longer_side(truth.box_xyxy_px)
    return tuple(pck_2d(xy_px, truth.keypoints.xy_px, size, THRESHOLDS, truth.keypoints.confidence).tolist())


def _longer_side(box_xyxy_px: Float[Tensor, "4"]) -> Float[Tensor, ""]:
    return (box_xyxy_px[2:] - box_xyxy_px[:2]).amax()


def strips(model: BodyModel, recovery: Recovery, rows: Sequence[Row]) -> list[UInt8[np.ndarray, "h w 3"]]:
    """For every person the photograph with the detected joints, the overlay and the side view, under a label."""
    body, camera = recovery.estimate.body, recovery.estimate.camera
    assert body is not None and camera is not None
    pictures = []
    for person, row, vertices_m in zip(recovery.people, rows, body.vertices_m, strict=False):
        seen = seen_vertices(model, person)
        drawn = overlay(recovery.photo.pixels, [vertices_m], model.faces, camera[0], opacity=0.8, vertex_seen=[seen])
        cells = [
            _cell(_around(_dotted(recovery.photo, person), person)),
            _cell(_around(drawn, person)),
            _cell(side_view(vertices_m, model.faces, seen)),
        ]
        pictures.append(np.concatenate([_label(row, 3 * CELL_PX), np.concatenate(cells, axis=1)]))
    return pictures


def _dotted(photo: Photo, person: Person) -> UInt8[np.ndarray, "h w 3"]:
    picture, keypoints = photo.pixels.copy(), coco(person.keypoints)
    radius = max(1, round(float(_longer_side(person.box_xyxy_px)) / 100))
    for xy, confidence in zip(keypoints.xy_px.tolist(), keypoints.confidence.tolist(), strict=True):
        if confidence >= SEEN_CONFIDENCE:
            cv2.circle(picture, (int(xy[0]), int(xy[1])), radius, DOT, -1, cv2.LINE_AA)
    return picture


def _around(picture: UInt8[np.ndarray, "h w 3"], person: Person) -> UInt8[np.ndarray, "y x 3"]:
    """The part of a picture about a person."""
    x0, y0, x1, y1 = person.box_xyxy_px.tolist()
    reach = 0.6 * max(x1 - x0, y1 - y0)
    left, top = max(0, int((x0 + x1) / 2 - reach)), max(0, int((y0 + y1) / 2 - reach))
    return picture[top : int((y0 + y1) / 2 + reach) + 1, left : int((x0 + x1) / 2 + reach) + 1]


def _cell(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "y x 3"]:
    """The picture scaled into a square, on white."""
    scale = CELL_PX / max(picture.shape[:2])
    width, height = (max(1, round(scale * side)) for side in picture.shape[1::-1])
    cell = np.full((CELL_PX, CELL_PX, 3), 255, np.uint8)
    place = cell[(CELL_PX - height) // 2 :, (CELL_PX - width) // 2 :][:height, :width]
    place[:] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return cell


def _label(row: Row, width_px: int) -> UInt8[np.ndarray, "h w 3"]:
    label = np.full((28, width_px, 3), 255, np.uint8)
    text = "   ".join(f"{name} {_shown(value)}" for name, value in zip(HEADERS, asdict(row).values(), strict=True))
    return np.asarray(cv2.putText(label, text, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA))


def summary(rows: Sequence[Row]) -> dict[str, float | int]:
    """Means over annotated people, missed ones included; the rest over everybody who was recovered."""
    annotated = [row for row in rows if row.pck_10 is not None]
    off = [row.off_percent for row in rows if row.off_percent is not None]
    said: dict[str, float | int] = {
        "photographs": len({row.photo for row in rows}),
        "people": len(off),
        "annotated": len(annotated),
        "annotated_found": sum(row.person is not None for row in annotated),
    }
    if off:
        said |= {"off_percent_median": median(off), "off_percent_worst": max(off)}
        said["converged"] = sum(bool(row.converged) for row in rows)
    for name in ("pck_10", "pck_05", "detector_pck_10", "detector_pck_05") if annotated else ():
        said[name] = fmean(getattr(row, name) for row in annotated)
    return said


def _shown(value: float | str | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _tell(rows: Sequence[Row], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"summary": summary(rows), "people": [asdict(row) for row in rows]}, indent=1))
        return
    table = Table(*HEADERS)
    for row in rows:
        table.add_row(*map(_shown, asdict(row).values()))
    console = Console()
    console.print(table)
    console.print(", ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in summary(rows).items()))


def main(
    photos: tyro.conf.Positional[tuple[str, ...]],
    /,
    annotations: Path | None = None,
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    in_box: bool = False,
    branch: str = "fit",
    mesh_weights: str | None = None,
    prior: str = DEFAULT_PRIOR,
    body: str = "neutral",
    fit: FitConfig = FitConfig(),  # noqa: B008
    json: bool = False,
) -> int:
    """Recover everybody in photographs and print how well the bodies agree with what is seen.

    Args:
        photos: Photographs, folders of them, or patterns.
        annotations: Annotated joints and boxes.
        output: Folder for a sheet of pictures.
        in_box: Look for people in the annotated boxes, where there are some.
        branch: How bodies are recovered: one that finds them, as fit, mesh and mesh+fit.
        mesh_weights: The network of the mesh branches, by name or file.
        prior: Pose prior: a name, a file, or "none".
        body: Body model: a name or a file.
        fit: Settings of the fit.
        json: Print JSON in place of a table.
    """
    truth = {} if annotations is None else read_annotations(annotations)
    model, detector = load_body_model(body), MediaPipeDetector()
    mesh = None if mesh_weights is None else MeshChoice(mesh_weights)
    asked = FitBranch(model, open_prior(prior), fit) if branch == "fit" else build_branch(branch, model, prior, mesh)
    recoverer = Recoverer(BoxDetector(detector, truth) if in_box else detector, asked, model)
    rows: list[Row] = []
    pictures: list[np.ndarray] = []
    for path in track(find_photos(photos).photos, "recovering", console=Console(stderr=True), transient=True):
        recovery, found = look(recoverer, read_photo(path), truth.get(path.name, []))
        rows += found
        pictures += [] if output is None or recovery is None else strips(model, recovery, found)
    _tell(rows, as_json=json)
    if output is not None and pictures:
        Console(stderr=True).print(f"See {write_png(output / 'sheet.png', np.concatenate(pictures))}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(tyro.cli(main))
    except MeshrecError as wrong:
        sys.exit(str(wrong))
