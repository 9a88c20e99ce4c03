"""What branches are asked of people whose 3D is known, and how far their answers are from it.

A view becomes pixels of a camera in which a person of ordinary height stands `PERSON_PX` tall, so a keypoint's noise in
pixels means the same in every view. Whatever answers keypoints and a camera with an `Estimate` can be measured.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from meshrec.data.views import Views
from meshrec.metrics import mpjpe_mm, n_mpjpe_mm, pa_joint_error_mm, pa_mpjpe_thesis_mm, root_relative
from meshrec.models.lifting import LIMB_JOINTS
from meshrec.randomness import generator_of
from meshrec.skeletons import H36M17
from meshrec.types import Batched, Camera, Estimate, Keypoints

PERSON_PX = 1000.0
STATURE_M = 1.7
"""So tall a person, at the distance of the pelvis, stands `PERSON_PX` tall."""

IMAGE_PX = 2000
"""Side of the image; the camera looks through its middle."""

FIGURES = ("pa_mpjpe_mm", "pa_mpjpe_thesis_mm", "n_mpjpe_mm", "mpjpe_mm")
"""Every figure by name; the first is the one that methods are compared by."""

BIN_DEG = 45
ANGLES_DEG = (0, 45, 90, 135, 180, -135, -90, -45)
"""Middles of the bins of the viewing angle; 0: the person faces the camera."""

AT_ONCE = 1024
"""So many views are asked for at a time."""


@runtime_checkable
class Estimator(Protocol):
    """Whatever answers 2D joints and a camera."""

    @property
    def name(self) -> str:
        """What its answers are called."""
        ...

    def estimate(self, keypoints: Keypoints, camera: Camera) -> Estimate:
        """People of one leading axis; `root_m` is given only by what knows metres."""
        ...


@dataclass(frozen=True)
class Questions(Batched):
    """People as a branch is asked for them, and the answer."""

    keypoints: Keypoints
    camera: Camera
    true_m: Float[Tensor, "*batch 17 3"]
    """H36M-17 joints in camera axes, relative to the pelvis."""

    def __len__(self) -> int:
        return len(self.true_m)


@dataclass(frozen=True)
class Errors(Batched):
    """How far answers are from the truth."""

    joints_mm: Float[Tensor, "*batch 17"]
    """Of each joint, after the best similarity (a proper rotation) of all 17."""
    pa_mpjpe_thesis_mm: Float[Tensor, "*batch"]
    """See `metrics.pa_mpjpe_thesis_mm`: fitted without the pelvis, reflections allowed, divided by 17."""
    n_mpjpe_mm: Float[Tensor, "*batch"]
    """About the pelvis, after the best scale."""
    mpjpe_mm: Float[Tensor, "*batch"] | None = None
    """About the pelvis, as answered; None where the branch knows no metres."""

    @property
    def pa_mpjpe_mm(self) -> Float[Tensor, "*batch"]:
        """Mean over the joints after the best similarity."""
        return self.joints_mm.mean(-1)


@dataclass(frozen=True)
class Summary:
    """A figure of many views; a view without an answer (its error is not finite) is left out and counted."""

    poses: float
    """Mean over the views."""
    subjects: float
    """Mean over the subjects of each one's mean."""
    subjects_sd: float | None
    """Standard deviation of the subjects' means; None for one subject."""
    unanswered: int


def questions_of(views: Views) -> Questions:
    """Views whose truth is known, in pixels."""
    if views.joints_m is None:
        raise ValueError("views without their 3D joints cannot be evaluated")
    distance_m = views.joints_m[:, H36M17.index("pelvis"), 2]
    focal_px = PERSON_PX * distance_m / STATURE_M
    center_px = torch.full_like(views.points[:, 0], IMAGE_PX / 2)
    xy_px = focal_px[:, None, None] * views.points + center_px[:, None]
    keypoints = Keypoints(xy_px, torch.ones_like(xy_px[..., 0]), H36M17)
    camera = Camera(focal_px, center_px, IMAGE_PX, IMAGE_PX, "true")
    questions = Questions(keypoints, camera, root_relative(views.joints_m, H36M17))
    return unseen(questions, ~views.seen)


def unseen(questions: Questions, hidden: Bool[Tensor, "N 17"]) -> Questions:
    """The same people with some joints missing: confidence 0, and a place that says nothing."""
    keypoints, center_px = questions.keypoints, questions.camera.center_px[:, None]
    xy_px = torch.where(hidden[..., None], center_px, keypoints.xy_px)
    return replace(
        questions, keypoints=replace(keypoints, xy_px=xy_px, confidence=keypoints.confidence.masked_fill(hidden, 0.0))
    )


def noisy(questions: Questions, noise_px: float, seed: int = 0) -> Questions:
    """Gaussian noise of this standard deviation on every coordinate."""
    keypoints = questions.keypoints
    drawn = generator_of(seed, "keypoint noise").standard_normal(keypoints.xy_px.shape)
    noise = noise_px * torch.from_numpy(drawn).to(keypoints.xy_px)
    return replace(questions, keypoints=replace(keypoints, xy_px=keypoints.xy_px + noise))


def without_limbs(questions: Questions, missing: int, seed: int = 0) -> Questions:
    """So many random limb joints of each view missing, beside those that are missing anyway."""
    random = generator_of(seed, "missing joints").random((len(questions), len(LIMB_JOINTS)))
    chosen = np.asarray(H36M17.indices(*LIMB_JOINTS))[random.argsort(axis=1)[:, :missing]]
    hidden = np.zeros(questions.keypoints.confidence.shape, bool)
    np.put_along_axis(hidden, chosen, True, axis=1)
    return unseen(questions, torch.from_numpy(hidden))


def errors_of(estimate: Estimate, true_m: Float[Tensor, "N 17 3"]) -> Errors:
    """An answer against the truth."""
    predicted_m = estimate.joints17_m.to(true_m)
    return Errors(
        joints_mm=pa_joint_error_mm(predicted_m, true_m),
        pa_mpjpe_thesis_mm=pa_mpjpe_thesis_mm(predicted_m, true_m, H36M17),
        n_mpjpe_mm=n_mpjpe_mm(predicted_m, true_m),
        mpjpe_mm=None if estimate.root_m is None else mpjpe_mm(predicted_m, true_m),
    )


@torch.no_grad()
def measured(
    estimator: Estimator, questions: Questions, advance: Callable[[int], object] = lambda done: None
) -> tuple[Errors, float]:
    """The errors of all answers, and how many seconds the answers alone took; `advance` is told of each chunk."""
    parts, seconds = [], 0.0
    for start in range(0, len(questions), AT_ONCE):
        chunk = questions[start : start + AT_ONCE]
        began = time.perf_counter()
        estimate = estimator.estimate(chunk.keypoints, chunk.camera)
        seconds += time.perf_counter() - began
        parts.append(errors_of(estimate, chunk.true_m))
        advance(len(chunk))
    return joined(parts), seconds


def joined(parts: list[Errors]) -> Errors:
    """Errors one after another."""
    metric = [part.mpjpe_mm for part in parts if part.mpjpe_mm is not None]
    return Errors(
        joints_mm=torch.cat([part.joints_mm for part in parts]),
        pa_mpjpe_thesis_mm=torch.cat([part.pa_mpjpe_thesis_mm for part in parts]),
        n_mpjpe_mm=torch.cat([part.n_mpjpe_mm for part in parts]),
        mpjpe_mm=torch.cat(metric) if len(metric) == len(parts) else None,
    )


def angle_of(azimuth_rad: Float[Tensor, "N"]) -> Int[np.ndarray, "N"]:
    """Which of `ANGLES_DEG` each direction is nearest to, in degrees."""
    turns = torch.round(torch.rad2deg(azimuth_rad) / BIN_DEG).long() % len(ANGLES_DEG)
    return np.asarray(ANGLES_DEG)[turns.numpy()]


def means_by(values: Float[Tensor, "N"], labels: Shaped[np.ndarray, "N"]) -> dict[str, tuple[int, float]]:
    """Of each label the number of values and the mean of those that are finite; NaN where none is."""
    names, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    numbers = values.double().numpy()
    finite = np.isfinite(numbers)
    sums = np.bincount(which[finite], numbers[finite], len(names))
    finite_counts = np.bincount(which[finite], minlength=len(names))
    means = np.divide(sums, finite_counts, out=np.full(len(names), np.nan), where=finite_counts > 0)
    return {str(name): (int(n), float(mean)) for name, n, mean in zip(names, counts, means, strict=True)}


def summary_of(values: Float[Tensor, "N"], subjects: Shaped[np.ndarray, "N"]) -> Summary:
    """A figure over the views and over the subjects."""
    finite = values.isfinite()
    each = np.array([mean for _, mean in means_by(values, subjects).values()])
    each = each[np.isfinite(each)]
    return Summary(
        poses=float(values[finite].double().mean()),
        subjects=float(each.mean()) if len(each) else float("nan"),
        subjects_sd=float(each.std(ddof=1)) if len(each) > 1 else None,
        unanswered=int((~finite).sum()),
    )
