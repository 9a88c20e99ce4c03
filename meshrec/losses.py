"""What pictures without 3D truth teach a network: keypoint alignment and body-part alignment.

Both are of the supplement of Zanfir et al., "Weakly supervised 3D human pose and shape reconstruction with normalizing
flows" (ECCV 2020), are one number for each person, and carry gradients.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from meshrec.camera import project
from meshrec.part_alignment import NOISE_SHARE, OUTLIER, PartEvidence, alignment_energy
from meshrec.part_masks import PartMasks
from meshrec.translation import iterated_translation
from meshrec.types import Camera

NEAREST_M = 0.2
"""A joint that comes nearer to the camera is taken to be at this depth."""


def keypoint_alignment(
    joints_m: Float[Tensor, "*batch K 3"],
    xy_px: Float[Tensor, "*batch K 2"],
    confidence: Float[Tensor, "*batch K"],
    camera: Camera,
) -> Float[Tensor, "*batch"]:
    """KA, pixels: the mean of |project(joint + T) - keypoint|, weighted by confidence; 0 where nothing was seen.

    T is the closed-form translation of the joints that best meets the keypoints, and the gradient runs through it. The
    distance is not squared. A keypoint that is not finite counts as not seen.
    """
    seen = (confidence > 0) & xy_px.isfinite().all(-1)
    weight, goal = torch.where(seen, confidence, 0.0), torch.where(seen[..., None], xy_px, 0.0)
    placed = joints_m + iterated_translation(joints_m, goal, weight, camera).transl_m[..., None, :]
    placed = torch.cat([placed[..., :2], placed[..., 2:].clamp_min(NEAREST_M)], dim=-1)
    distance_px = torch.linalg.vector_norm(project(placed, camera) - goal, dim=-1)
    return (weight * distance_px).sum(-1) / weight.sum(-1).clamp_min(torch.finfo(weight.dtype).tiny)


def body_part_alignment(
    xy_px: Float[Tensor, "*batch 24 n 2"],
    facing: Bool[Tensor, "*batch 24 n"],
    masks: PartMasks,
    noise_share: float = NOISE_SHARE,
    outlier: float = OUTLIER,
) -> Float[Tensor, "*batch"]:
    """BA, nats: how far n projected points of each part's skin, and the part's mask, are from covering each other.

    `facing` says which points face the camera: the others do not count. `SkinPoints` has such points. The noise of the
    masks is that share of the person's size in the picture, so the picture's scale does not matter.
    """
    batch = facing.shape[:-2]
    flat = masks.to(xy_px.device, xy_px.dtype).map(lambda tensor: tensor.reshape([-1, *tensor.shape[len(batch) :]]))
    everyone = torch.arange(len(flat.size_px), device=xy_px.device)
    evidence = PartEvidence(flat, noise_share * flat.size_px, everyone)
    points, turned = xy_px.reshape(-1, *xy_px.shape[-3:]), facing.reshape(-1, *facing.shape[-2:])
    return alignment_energy(points, turned, evidence, outlier).reshape(batch)
