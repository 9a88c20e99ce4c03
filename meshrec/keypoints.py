"""What keypoints say of a person: who is seen, where, and whether two poses are the same one."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.photo import Photo
from meshrec.types import Keypoints

SEEN_CONFIDENCE = 0.3
"""A keypoint less certain than this is not seen: it says nothing of where the person is."""
BOX_MARGIN = 0.1
FEWEST_SEEN = 4
"""With fewer keypoints seen there is no person."""
TRUNK = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")
"""Of these at least one must be seen: a face alone is no body."""


def box_of(keypoints: Keypoints, margin: float = BOX_MARGIN) -> Float[Tensor, "*batch 4"]:
    """The box x0, y0, x1, y1 around the seen keypoints, wider on each side by `margin` of its longer side.

    The image does not bound it. Without any seen keypoint it is not finite.
    """
    seen = (keypoints.confidence >= SEEN_CONFIDENCE)[..., None]
    low = torch.where(seen, keypoints.xy_px, torch.inf).amin(dim=-2)
    high = torch.where(seen, keypoints.xy_px, -torch.inf).amax(dim=-2)
    extra = margin * (high - low).amax(dim=-1, keepdim=True)
    return torch.cat([low - extra, high + extra], dim=-1)


def agreement(ours: Keypoints, theirs: Keypoints, joints: tuple[str, ...] = ()) -> float:
    """How alike two poses are, 0 to 1: mean of exp(-d^2 / (2 (0.1 s)^2)) weighted by the lesser confidence.

    COCO's object keypoint similarity with one tolerance for all joints; s^2 is the area of the larger box.
    """
    boxes = torch.stack([box_of(ours, 0.0), box_of(theirs, 0.0)])
    variance = 0.1**2 * (boxes[:, 2:] - boxes[:, :2]).clamp(min=1.0).prod(dim=-1).max()
    which = ours.skeleton.indices(*joints) if joints else slice(None)
    weight = torch.minimum(ours.confidence, theirs.confidence)[which]
    alike = torch.exp(-(ours.xy_px - theirs.xy_px)[which].square().sum(dim=-1) / (2 * variance))
    return float((weight * alike).sum() / weight.sum().clamp(min=1e-6))


def only_inside(keypoints: Keypoints, photo: Photo) -> Keypoints:
    """Confidence 0 for the keypoints outside the image: they are not seen, however sure a detector is of them."""
    size = torch.tensor([photo.width_px, photo.height_px])
    inside = ((keypoints.xy_px >= 0) & (keypoints.xy_px <= size)).all(dim=-1)
    return replace(keypoints, confidence=keypoints.confidence * inside)


def enough_seen(keypoints: Keypoints) -> bool:
    """Whether so many keypoints are seen, some of the trunk among them, that somebody is there."""
    seen = keypoints.confidence >= SEEN_CONFIDENCE
    return int(seen.sum()) >= FEWEST_SEEN and bool(seen[keypoints.skeleton.indices(*TRUNK)].any())
