"""What `result.json` and `result.npz` say of a photograph: named fields, metres, pixels, the camera frame."""

import math
import re
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import version
from typing import Any

import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.photo import Photo
from meshrec.skeletons import H36M17, SMPL24
from meshrec.types import BodyParams, Camera, Estimate, FitReport, Keypoints, Person

RESULT_FILE = "result.json"

OUR_FILES = re.compile(r"person\d+(_overlay|_side)?\.(obj|png)|overlay\.png|result\.(json|npz)")
"""What `recover` writes into a photograph's folder; what else lies there is the user's."""


def result_record(
    photo: Photo,
    people: Sequence[Person],
    estimate: Estimate,
    model: BodyModel,
    left_out: int,
    height_m: float | None = None,
) -> dict[str, Any]:
    """The content of `result.json`; every place is in the frame of the camera (x right, y down, z forward).

    `left_out` people were seen, but too little of them to place a body. `height_m` is the body height that was assumed
    to turn joints into metres; None where the branch finds the scale itself.
    """
    body = {"name": model.file.name, "path": str(model.file.path), "sha256": model.file.sha256}
    return {
        "meshrec": version("meshrec"),
        "photo": str(photo.path),
        "width_px": photo.width_px,
        "height_px": photo.height_px,
        "branch": estimate.branch,
        "body": None if estimate.params is None else body,
        "assumed_height_m": height_m,
        "left_out": left_out,
        "joints17_names": list(H36M17.joints),
        "joints24_names": list(SMPL24.joints),
        "people": [_person_record(index, person, estimate[index]) for index, person in enumerate(people)],
    }


def _person_record(index: int, person: Person, estimate: Estimate) -> dict[str, Any]:
    record = {
        "box_xyxy_px": plain(person.box_xyxy_px),
        "score": person.score,
        "keypoints": keypoints_record(person.keypoints),
        "root_m": None if estimate.root_m is None else plain(estimate.root_m),
        "joints17_m": plain(placed_joints17_m(estimate)),
        "joints17_seen": estimate.seen.tolist(),
        "joints17_confidence": plain(estimate.confidence),
        "files": _files_of(index, estimate),
    }
    if estimate.camera is not None:
        record["camera"] = camera_record(estimate.camera)
    if estimate.params is not None:
        record["smpl"] = _smpl_record(estimate.params)
    if estimate.body is not None:
        record["joints24_m"] = plain(estimate.body.joints_m)
    if estimate.report is not None:
        record["report"] = _report_record(estimate.report)
    return record


def placed_joints17_m(estimate: Estimate) -> Float[Tensor, "*batch 17 3"]:
    """The joints in the frame of the camera; about the pelvis where a branch does not know where that is."""
    return estimate.joints17_m if estimate.root_m is None else estimate.joints17_m + estimate.root_m[..., None, :]


def person_files(index: int) -> dict[str, str]:
    """The files of one person's body, by what they show."""
    return {
        "mesh": f"person{index}.obj",
        "overlay": f"person{index}_overlay.png",
        "side": f"person{index}_side.png",
    }


def _files_of(index: int, estimate: Estimate) -> dict[str, str]:
    """The files that are written of a person: no mesh without a body, no picture without a place."""
    if estimate.body is not None:
        return person_files(index)
    placed = estimate.camera is not None and estimate.root_m is not None
    return {what: name for what, name in person_files(index).items() if what != "mesh"} if placed else {}


def keypoints_record(keypoints: Keypoints) -> dict[str, Any]:
    """One person's keypoints by name."""
    return {
        "skeleton": keypoints.skeleton.name,
        "names": list(keypoints.skeleton.joints),
        "xy_px": plain(keypoints.xy_px),
        "confidence": plain(keypoints.confidence),
    }


def camera_record(camera: Camera) -> dict[str, Any]:
    """One camera by name."""
    return {
        "focal_px": plain(camera.focal_px),
        "center_px": plain(camera.center_px),
        "focal_source": camera.focal_source,
    }


def _smpl_record(params: BodyParams) -> dict[str, Any]:
    return {
        "pose_axis_angle": plain(roma.rotmat_to_rotvec(params.rotations).flatten()),
        "rotations": plain(params.rotations),
        "betas": plain(params.betas),
        "transl_m": plain(params.transl_m),
    }


def _report_record(report: FitReport) -> dict[str, Any]:
    ending = {field.name: getattr(report, field.name) for field in fields(report) if field.name != "terms"}
    terms = {field.name: getattr(report.terms, field.name) for field in fields(report.terms)}
    return {name: plain(value) for name, value in {"total": report.terms.total, **terms, **ending}.items()}


def plain(tensor: Tensor) -> Any:
    """Numbers and lists as JSON knows them: floats to seven digits, what is not finite as null."""
    return _finite(tensor.detach().cpu().tolist())


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def result_arrays(people: Sequence[Person], estimate: Estimate) -> dict[str, np.ndarray]:
    """The content of `result.npz`: the same numbers and the vertices, with one leading axis for the people."""
    arrays = {
        "box_xyxy_px": torch.stack([person.box_xyxy_px for person in people]),
        "keypoints_xy_px": torch.stack([person.keypoints.xy_px for person in people]),
        "keypoints_confidence": torch.stack([person.keypoints.confidence for person in people]),
        "joints17_m": placed_joints17_m(estimate),
        "joints17_seen": estimate.seen,
    }
    if estimate.params is not None:
        arrays["pose_axis_angle"] = roma.rotmat_to_rotvec(estimate.params.rotations).flatten(1)
        arrays["rotations"] = estimate.params.rotations
        arrays["betas"] = estimate.params.betas
        arrays["transl_m"] = estimate.params.transl_m
    if estimate.body is not None:
        arrays["joints24_m"] = estimate.body.joints_m
        arrays["vertices_m"] = estimate.body.vertices_m
    if estimate.camera is not None:
        arrays["focal_px"] = estimate.camera.focal_px
        arrays["center_px"] = estimate.camera.center_px
    return {name: tensor.cpu().numpy() for name, tensor in arrays.items()}
