"""How far what branches say of people is from the truth, from what the others say, and from what was detected.

Joints are those of H36M-17 that count in the protocol of 3DPW, about the pelvis. Distances in the image are in pixels
of a person whose box is `PERSON_PX` high or wide, so that they mean the same for people of all sizes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.camera import project
from meshrec.comparison.comparison import Metric
from meshrec.data.h36m17 import h36m17_of
from meshrec.evaluation import PERSON_PX
from meshrec.keypoints import SEEN_CONFIDENCE
from meshrec.metrics import (
    MPI_INF_THRESHOLDS_MM,
    auc,
    joint_error_mm,
    mrpe_mm,
    n_mpjpe_mm,
    pa_joint_error_mm,
    pck,
    pve_mm,
)
from meshrec.record_evaluation import JOINTS14, PLACES14
from meshrec.skeletons import H36M17
from meshrec.types import Batched, Camera, Keypoints

PCK_MM = 150.0

LIMB_JOINTS = tuple(
    f"{side}_{joint}" for side in ("left", "right") for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
)
"""Joints that detectors and bodies name alike."""

DETECTION = Metric(
    "detection_px",
    "2D from detection",
    "px",
    "lower",
    "Mean distance of the shown limb joints from the keypoints of confidence 0.3 or more, in pixels of a person whose "
    "box is 1000 px high or wide.",
    judges=False,
)

ACCURACY = (
    Metric("pa_mpjpe_mm", "PA-MPJPE", "mm", "lower", "MPJPE after the best similarity, a proper rotation."),
    Metric("mpjpe_mm", "MPJPE", "mm", "lower", "Mean distance of 14 joints, answer and truth about their pelvis."),
    Metric("n_mpjpe_mm", "N-MPJPE", "mm", "lower", "MPJPE after the best scale."),
    Metric("pve_mm", "PVE", "mm", "lower", "Mean distance of the vertices, both bodies about their pelvis."),
    Metric("mrpe_mm", "MRPE", "mm", "lower", "Distance of the pelvis from its true place before the camera."),
    Metric("pck_150mm", "PCK@150", "", "higher", "Share of the 14 joints within 150 mm of their place."),
    Metric("auc_150mm", "AUC", "", "higher", "Mean PCK over the distances 0, 5, ... 150 mm."),
    Metric(
        "reprojection_px",
        "2D from truth",
        "px",
        "lower",
        "Mean distance in the image of the 14 joints from the true ones, those outside the picture too, in pixels of a "
        "person whose box is 1000 px high or wide.",
    ),
    DETECTION,
)
"""What is told of branches where the truth is known; the first is the one that they are ordered by."""

AGREEMENT = (
    Metric("pa_apart_mm", "PA from others", "mm", "lower", "The mean of the PA-MPJPEs from each other branch."),
    Metric("apart_mm", "from others", "mm", "lower", "The mean of the MPJPEs from each other branch."),
    DETECTION,
)
"""What is told where it is not: how far a branch is from the others, which says nothing of who is right."""


@dataclass(frozen=True)
class Found(Batched):
    """People as a branch or the truth has them, in the axes of the camera; NaN is not known."""

    joints17_m: Float[Tensor, "*batch 17 3"]
    """H36M-17 about the pelvis."""
    root_m: Float[Tensor, "*batch 3"]
    """The pelvis."""
    vertices_m: Float[Tensor, "*batch V 3"] | None = None
    """About the pelvis; None where nobody has a body."""


@dataclass(frozen=True)
class Seen(Batched):
    """What an image shows of people."""

    keypoints: Keypoints
    camera: Camera
    box_xyxy_px: Float[Tensor, "*batch 4"]

    @property
    def unit_px(self) -> Float[Tensor, "*batch"]:
        """Pixels of the image in a pixel of a person whose box is `PERSON_PX` high or wide."""
        return (self.box_xyxy_px[..., 2:] - self.box_xyxy_px[..., :2]).amax(-1) / PERSON_PX


def pair_metric(branch: str) -> Metric:
    """How far the others are from a branch."""
    what = f"PA-MPJPE from what {branch} says."
    return Metric(f"pa_from_{branch}_mm", f"PA from {branch}", "mm", "lower", what)


def agreement_metrics(branches: Sequence[str]) -> tuple[Metric, ...]:
    """What is told of branches without a truth: with three or more, of each pair too."""
    pairs = tuple(map(pair_metric, branches)) if len(branches) > 2 else ()
    return (*AGREEMENT, *pairs)


def counted_errors_mm(found: Found, true: Found) -> Float[Tensor, "N 14"]:
    """Distance of each joint that counts, about the pelvis."""
    return joint_error_mm(found.joints17_m[:, PLACES14], true.joints17_m[:, PLACES14])


def accuracy(found: Found, true: Found, seen: Seen) -> dict[str, Float[np.ndarray, "N"]]:
    """Every figure of `ACCURACY`."""
    joints, goals = found.joints17_m[:, PLACES14], true.joints17_m[:, PLACES14]
    errors_mm = joint_error_mm(joints, goals)
    whole = ~errors_mm.isnan().any(-1)
    shares = torch.where(whole[:, None], errors_mm, torch.nan)
    figures = {
        "pa_mpjpe_mm": pa_joint_error_mm(joints, goals).mean(-1),
        "mpjpe_mm": errors_mm.mean(-1),
        "n_mpjpe_mm": n_mpjpe_mm(joints, goals),
        "pve_mm": _skin_error_mm(found, true),
        "mrpe_mm": mrpe_mm(found.root_m, true.root_m),
        "pck_150mm": pck(shares, (PCK_MM,))[:, 0],
        "auc_150mm": auc(shares, MPI_INF_THRESHOLDS_MM),
        "reprojection_px": _shown_apart_px(found, true, seen),
        "detection_px": detection_px(found, seen),
    }
    return {name: values.double().numpy() for name, values in figures.items()}


def agreement(found: Mapping[str, Found], seen: Seen) -> dict[str, dict[str, Float[np.ndarray, "N"]]]:
    """Every figure of `AGREEMENT`, and of the pairs, of each branch."""
    figures: dict[str, dict[str, Tensor]] = {branch: {} for branch in found}
    for branch, mine in found.items():
        others = {name: theirs for name, theirs in found.items() if name != branch}
        pa_mm = {name: _pa_apart_mm(mine, theirs) for name, theirs in others.items()}
        apart_mm = [counted_errors_mm(mine, theirs).mean(-1) for theirs in others.values()]
        nobody = torch.full_like(mine.root_m[:, 0], torch.nan)
        figures[branch] = {
            "pa_apart_mm": _mean_of_known([*pa_mm.values(), nobody]),
            "apart_mm": _mean_of_known([*apart_mm, nobody]),
            "detection_px": detection_px(mine, seen),
        }
        if len(found) > 2:
            figures[branch] |= {pair_metric(name).name: pa_mm.get(name, nobody) for name in found}
    return {
        branch: {name: values.double().numpy() for name, values in columns.items()}
        for branch, columns in figures.items()
    }


def joints_apart_mm(found: Mapping[str, Found], branch: str) -> Float[Tensor, "N 14"]:
    """Distance of each joint that counts from where the other branches have it, their mean."""
    others = [counted_errors_mm(found[branch], theirs) for name, theirs in found.items() if name != branch]
    return _mean_of_known([*others, torch.full((len(found[branch].root_m), len(JOINTS14)), torch.nan)])


def detection_px(found: Found, seen: Seen) -> Float[Tensor, "N"]:
    """Mean distance of limb joints in the image from their keypoints, those that were seen."""
    keypoints = h36m17_of(seen.keypoints)
    limbs = H36M17.indices(*LIMB_JOINTS)
    joints_m = found.joints17_m[:, limbs] + found.root_m[:, None]
    apart_px = (project(joints_m, seen.camera) - keypoints.xy_px[:, limbs]).norm(dim=-1)
    apart_px = torch.where(joints_m[..., 2] > 0, apart_px, torch.nan)
    sure = (keypoints.confidence[:, limbs] >= SEEN_CONFIDENCE) & keypoints.xy_px[:, limbs].isfinite().all(-1)
    return torch.where(sure, apart_px, 0.0).sum(-1) / sure.sum(-1) / seen.unit_px


def _pa_apart_mm(one: Found, other: Found) -> Float[Tensor, "N"]:
    """Between two answers: the mean of both ways, as each way measures by the scale of its goal."""
    joints, goals = one.joints17_m[:, PLACES14], other.joints17_m[:, PLACES14]
    return (pa_joint_error_mm(joints, goals).mean(-1) + pa_joint_error_mm(goals, joints).mean(-1)) / 2


def _skin_error_mm(found: Found, true: Found) -> Float[Tensor, "N"]:
    if found.vertices_m is None or true.vertices_m is None:
        return torch.full_like(found.root_m[:, 0], torch.nan)
    return pve_mm(found.vertices_m, true.vertices_m)


def _shown_apart_px(found: Found, true: Found, seen: Seen) -> Float[Tensor, "N"]:
    """NaN where a joint is behind the camera, or a place is not known."""
    joints_m, goals_m = (body.joints17_m[:, PLACES14] + body.root_m[:, None] for body in (found, true))
    apart_px = (project(joints_m, seen.camera) - project(goals_m, seen.camera)).norm(dim=-1)
    before = (joints_m[..., 2] > 0) & (goals_m[..., 2] > 0)
    return torch.where(before, apart_px, torch.nan).mean(-1) / seen.unit_px


def _mean_of_known(values: Sequence[Float[Tensor, "*shape"]]) -> Float[Tensor, "*shape"]:
    return torch.stack(list(values)).nanmean(0)
