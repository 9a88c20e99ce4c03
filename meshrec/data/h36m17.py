"""Keypoints of any skeleton as the 17 joints of Human3.6M."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.skeletons import H36M17, Skeleton
from meshrec.types import Keypoints

MIDPOINTS = {"pelvis": ("left_hip", "right_hip"), "thorax": ("left_shoulder", "right_shoulder")}
"""Joints that lie halfway between two others, wherever a skeleton does not name them."""


def h36m17_of(keypoints: Keypoints) -> Keypoints:
    """The same people as H36M-17: joints by name, pelvis and thorax else midway between hips and between shoulders.

    A midpoint is as certain as the less certain of its two witnesses. Whatever the skeleton neither names nor tells so
    is missing: confidence 0, at zero.
    """
    columns = [keypoints.confidence[..., None], keypoints.xy_px]
    if keypoints.landmarks_m is not None:
        columns.append(keypoints.landmarks_m)
    rows = torch.cat(columns, dim=-1)
    rows = torch.stack([_joint(rows, keypoints.skeleton, joint) for joint in H36M17.joints], dim=-2)
    confidence, xy_px, landmarks_m = rows[..., 0], rows[..., 1:3], rows[..., 3:]
    landmarks_m = None if keypoints.landmarks_m is None else landmarks_m
    return replace(keypoints, xy_px=xy_px, confidence=confidence, skeleton=H36M17, landmarks_m=landmarks_m)


def _joint(rows: Float[Tensor, "*batch K D"], skeleton: Skeleton, joint: str) -> Float[Tensor, "*batch D"]:
    """Confidence and places of one joint."""
    if joint in skeleton.joints:
        return rows[..., skeleton.index(joint), :]
    witnesses = MIDPOINTS.get(joint, ())
    if not witnesses or not set(witnesses) <= set(skeleton.joints):
        return torch.zeros_like(rows[..., 0, :])
    pair = rows[..., skeleton.indices(*witnesses), :]
    return torch.cat([pair[..., :1].amin(dim=-2), pair[..., 1:].mean(dim=-2)], dim=-1)
