"""How well `fit` recovers synthetic people from 17 noisy joints: real poses, random shapes, cameras and noise.

    python tools/synthetic_fit.py train.npz --subjects 02 10 27

Poses are collections or motion files of any kind that is read. Frames are spread evenly over the subjects named; shapes
are N(0, 1), the camera looks from every side with a pitch of N(0, 10 degrees), from 3 to 5 m, f = 1000 px; the fit is
told the noise. The truth is the posed body's H36M-17 joints. Name subjects that the prior was not trained on.
"""

import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import roma
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from meshrec.body import BodyModel, load_body_model
from meshrec.branches.fit import FitBranch, FitConfig
from meshrec.camera import camera_from_body_axes, project
from meshrec.data.poses import open_poses
from meshrec.errors import MeshrecError
from meshrec.metrics import mpjpe_mm, pa_mpjpe_mm
from meshrec.objective import ObjectiveConfig
from meshrec.prior_files import DEFAULT_PRIOR, open_prior
from meshrec.skeletons import H36M17
from meshrec.types import BodyParams, Camera, Keypoints

VALIDATION = ("02", "10", "27", "29", "131", "u_basketball_signal", "gs_charleston")


@dataclass(frozen=True)
class People:
    """Synthetic people with their truth, one leading axis."""

    params: BodyParams
    joints17_m: Tensor
    keypoints: Keypoints
    camera: Camera


@dataclass(frozen=True)
class Score:
    """Errors in millimetres, over all people."""

    evidence: str
    mpjpe_mm: float
    pa_mpjpe_mm: float
    median_mpjpe_mm: float
    over_150_mm: float
    converged: float
    people_per_second: float


def held_out_poses(paths: list[Path], subjects: tuple[str, ...], count: int) -> Tensor:
    """(count, 24, 3, 3) rotations of valid frames, evenly spaced over the subjects' frames."""
    collection = open_poses(paths)
    rows = collection.rows(subjects)
    if len(rows) < count:
        raise MeshrecError(f"The subjects {', '.join(subjects)} have {len(rows)} valid frames, {count} are asked for.")
    return collection.rotations(rows[np.linspace(0, len(rows) - 1, count).round().astype(int)])


def make_people(model: BodyModel, rotations: Tensor, noise_px: float, landmark_noise_m: float, seed: int) -> People:
    """The people as the detector would report them; no landmarks where their noise is 0."""
    random = torch.Generator().manual_seed(seed)
    count = len(rotations)

    def turn(angle_rad: Tensor, axis: tuple[float, float, float]) -> Tensor:
        return roma.rotvec_to_rotmat(angle_rad[:, None] * torch.tensor(axis))

    yaw = turn((2 * torch.rand(count, generator=random) - 1) * math.pi, (0.0, 1.0, 0.0))
    pitch = turn(math.radians(10) * torch.randn(count, generator=random), (1.0, 0.0, 0.0))
    root = camera_from_body_axes() @ pitch @ yaw @ rotations[:, 0]
    betas = torch.randn(count, 10, generator=random)
    depth_m = 3 + 2 * torch.rand(count, generator=random)
    at_origin = BodyParams(root, rotations[:, 1:], betas, torch.zeros(count, 3))
    pelvis = model.regressed(at_origin, H36M17)[:, 0]
    transl_m = torch.stack([0 * depth_m, 0 * depth_m, depth_m], dim=-1) - pelvis
    params = BodyParams(root, rotations[:, 1:], betas, transl_m)
    joints = model.regressed(params, H36M17)
    camera = Camera(torch.full((count,), 1000.0), torch.full((count, 2), 500.0), 1000, 1000, "true")
    xy_px = project(joints, camera) + noise_px * torch.randn(count, 17, 2, generator=random)
    landmarks = joints - joints[:, :1] + landmark_noise_m * torch.randn(count, 17, 3, generator=random)
    keypoints = Keypoints(xy_px, torch.ones(count, 17), H36M17, landmarks if landmark_noise_m else None)
    return People(params, joints, keypoints, camera)


def score_fit(branch: FitBranch, people: People, evidence: str) -> Score:
    """Fit everybody in one batch and measure."""
    began = time.perf_counter()
    estimate = branch.fit(people.keypoints, people.camera)
    seconds = time.perf_counter() - began
    truth = people.joints17_m - people.joints17_m[:, :1]
    error = mpjpe_mm(estimate.joints17_m, truth)
    assert estimate.report is not None
    return Score(
        evidence=evidence,
        mpjpe_mm=error.mean().item(),
        pa_mpjpe_mm=pa_mpjpe_mm(estimate.joints17_m, truth).mean().item(),
        median_mpjpe_mm=error.median().item(),
        over_150_mm=(error > 150).float().mean().item(),
        converged=estimate.report.converged.float().mean().item(),
        people_per_second=len(error) / seconds,
    )


def main(
    poses: tyro.conf.Positional[list[Path]],
    /,
    subjects: tuple[str, ...] = VALIDATION,
    count: int = 1000,
    noise_px: float = 3.0,
    landmark_noise_mm: float = 30.0,
    prior: str = DEFAULT_PRIOR,
    body: str = "neutral",
    seed: int = 0,
    json: bool = False,
) -> None:
    """Fit synthetic people made from held-out poses and print the errors, without and with 3D landmarks."""
    torch.set_grad_enabled(False)
    model = load_body_model(body)
    rotations = held_out_poses(poses, subjects, count)
    noise_m = landmark_noise_mm / 1000
    config = FitConfig(noise_px=noise_px, objective=ObjectiveConfig(landmark_noise_m=(noise_m, noise_m, noise_m)))
    branch = FitBranch(model, open_prior(prior), config)
    scores = []
    for evidence, noise_mm in (("17 joints", 0.0), (f"with {landmark_noise_mm:g} mm landmarks", landmark_noise_mm)):
        people = make_people(model, rotations, noise_px, noise_mm / 1000, seed)
        scores.append(score_fit(branch, people, evidence))
    _tell(scores, f"{count} synthetic people, {noise_px:g} px noise", as_json=json)


def _tell(scores: list[Score], title: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(score) for score in scores], indent=1))
        return
    table = Table(*asdict(scores[0]), title=title)
    for score in scores:
        table.add_row(score.evidence, *(f"{value:.3g}" for value in list(asdict(score).values())[1:]))
    Console().print(table)


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except MeshrecError as error:
        sys.exit(f"{error}")
