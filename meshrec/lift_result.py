"""What `meshrec lift` writes: `lift.json`, `lift.npz` and `lift.csv`, whose fields carry their units in their names.

Joints are H36M-17 in the camera's axes (x right, y down, z away), relative to the pelvis; the root is where the pelvis
stands before the camera. Lengths are metres for a body height, else units of one head-pelvis path.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.lift_inputs import Picture, in_h36m17_px
from meshrec.result import camera_record, keypoints_record, plain
from meshrec.skeleton_plot import Unit
from meshrec.skeletons import H36M17
from meshrec.types import Estimate

FRAME = "the camera's axes: x right, y down, z away; joints17 are relative to the pelvis, root is the pelvis"

UNITS = {
    "m": "metres for a body height of {height_m:g} m",
    "units": "units of one head-pelvis path (head, thorax, spine, pelvis) of each person",
}


@dataclass(frozen=True)
class LiftedPicture:
    """The people of one picture in 3D."""

    picture: Picture
    estimate: Estimate
    """One leading axis: the people."""
    hypotheses: Float[Tensor, "N H 17 3"] | None = None
    """Draws, each as plausible to the lifter."""


@dataclass(frozen=True)
class Interpolation:
    """Poses on the way from the first person to the last."""

    shares: Float[Tensor, "T"]
    joints: Float[Tensor, "T 17 3"]


@dataclass(frozen=True)
class LiftResult:
    """Everything that one call lifted."""

    pictures: tuple[LiftedPicture, ...]
    weights: Path
    height_m: float | None
    seed: int
    interpolation: Interpolation | None = None

    @property
    def unit(self) -> Unit:
        return "units" if self.height_m is None else "m"

    def people(self) -> Iterator[tuple[LiftedPicture, int]]:
        """Every person: the picture, and the row in it."""
        for lifted in self.pictures:
            for row in range(len(lifted.picture.people)):
                yield lifted, row


@dataclass(frozen=True)
class Failure:
    """An input that could not be used, and why; None where a name led to no input."""

    input: str | None
    error: str


def lift_record(result: LiftResult, failed: Sequence[Failure]) -> dict[str, Any]:
    """The content of `lift.json`."""
    record = {
        "meshrec": version("meshrec"),
        "branch": "lift",
        "weights": str(result.weights),
        "unit": UNITS[result.unit].format(height_m=result.height_m),
        "height_m": result.height_m,
        "frame": FRAME,
        "seed": result.seed,
        "joints17_names": list(H36M17.joints),
        "people": [_person_record(result.unit, lifted, row) for lifted, row in result.people()],
        "left_out": [sentence for lifted in result.pictures for sentence in lifted.picture.left_out],
        "failed": [asdict(failure) for failure in failed],
    }
    if result.interpolation is not None:
        way = {"share": plain(result.interpolation.shares)}
        record["interpolation"] = way | {f"joints17_{result.unit}": plain(result.interpolation.joints)}
    return record


def _person_record(unit: Unit, lifted: LiftedPicture, row: int) -> dict[str, Any]:
    picture, estimate = lifted.picture, lifted.estimate[row]
    assert estimate.root_m is not None
    record = {
        "picture": picture.name,
        "source": str(picture.source),
        "person": picture.persons[row],
        "image_size_px": [picture.camera.width_px, picture.camera.height_px],
        "image_size_source": picture.size_source,
        "camera": camera_record(picture.camera),
        "keypoints": keypoints_record(picture.people[row]),
        f"joints17_{unit}": plain(estimate.joints17_m),
        f"root_{unit}": plain(estimate.root_m),
        "joints17_seen": estimate.seen.tolist(),
        "joints17_confidence": plain(estimate.confidence),
    }
    if lifted.hypotheses is not None:
        record[f"hypotheses17_{unit}"] = plain(lifted.hypotheses[row])
    return record


def lift_arrays(result: LiftResult) -> dict[str, np.ndarray]:
    """The content of `lift.npz`: one leading axis for all people, in the order of `lift.json`."""
    unit, parts = result.unit, result.pictures
    arrays: dict[str, np.ndarray] = {
        f"joints17_{unit}": _joined([lifted.estimate.joints17_m for lifted in parts]),
        f"root_{unit}": _joined([lifted.estimate.root_m for lifted in parts]),
        "joints17_seen": _joined([lifted.estimate.seen for lifted in parts]),
        "joints17_confidence": _joined([lifted.estimate.confidence for lifted in parts]),
        "points17_px": np.stack([_xy_px(lifted, row) for lifted, row in result.people()]),
        "picture": np.array([lifted.picture.name for lifted, _ in result.people()]),
        "person": np.array([lifted.picture.persons[row] for lifted, row in result.people()]),
        "focal_px": np.array([float(lifted.picture.camera.focal_px) for lifted, _ in result.people()]),
        "center_px": np.stack([lifted.picture.camera.center_px.numpy() for lifted, _ in result.people()]),
        "joints17_names": np.array(H36M17.joints),
        "unit": np.array(UNITS[unit].format(height_m=result.height_m)),
        "frame": np.array(FRAME),
    }
    if result.height_m is not None:
        arrays["height_m"] = np.array(result.height_m)
    if all(lifted.hypotheses is not None for lifted in parts):
        arrays[f"hypotheses17_{unit}"] = _joined([lifted.hypotheses for lifted in parts])
    if result.interpolation is not None:
        arrays["interpolation_share"] = result.interpolation.shares.numpy()
        arrays[f"interpolation_joints17_{unit}"] = result.interpolation.joints.numpy()
    return arrays


def _joined(parts: list[Tensor | None]) -> np.ndarray:
    return torch.cat([part for part in parts if part is not None]).numpy()


def _xy_px(lifted: LiftedPicture, row: int) -> np.ndarray:
    return in_h36m17_px(lifted.picture.sights[row], lifted.picture.camera).numpy()


def lift_csv(result: LiftResult) -> str:
    """The content of `lift.csv`: a line for each joint of each pose.

    `pose` is `estimate`, `hypothesis K` or `interpolation SHARE`; what belongs to the image stands in the lines of
    estimates alone.
    """
    text, unit = io.StringIO(), result.unit
    table = csv.writer(text, lineterminator="\n")
    axes = [f"{axis}_{unit}" for axis in "xyz"]
    table.writerow(["picture", "person", "pose", "joint", *axes, "seen", "confidence", "x_px", "y_px"])
    for lifted, row in result.people():
        table.writerows(_person_lines(lifted, row))
    if result.interpolation is not None:
        for share, pose in zip(result.interpolation.shares.tolist(), result.interpolation.joints, strict=True):
            table.writerows(_pose_lines(["", "", f"interpolation {share:g}"], pose))
    return text.getvalue()


def _person_lines(lifted: LiftedPicture, row: int) -> Iterator[list[Any]]:
    who = [lifted.picture.name, lifted.picture.persons[row]]
    estimate, xy_px = lifted.estimate[row], _xy_px(lifted, row)
    for joint, line in enumerate(_pose_lines([*who, "estimate"], estimate.joints17_m)):
        pixel = [f"{value:.7g}" if np.isfinite(value) else "" for value in xy_px[joint].tolist()]
        yield [*line, int(estimate.seen[joint]), f"{float(estimate.confidence[joint]):.4g}", *pixel]
    for index, pose in enumerate([] if lifted.hypotheses is None else lifted.hypotheses[row]):
        yield from _pose_lines([*who, f"hypothesis {index}"], pose)


def _pose_lines(start: list[Any], pose: Float[Tensor, "17 3"]) -> Iterator[list[Any]]:
    for name, place in zip(H36M17.joints, pose.tolist(), strict=True):
        yield [*start, name, *(f"{value:.7g}" for value in place)]
