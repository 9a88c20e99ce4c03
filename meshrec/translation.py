"""Where a skeleton stands in front of the camera: its translation in closed form from its 2D joints.

The supplement of Zanfir et al., "Weakly supervised 3D human pose and shape reconstruction with normalizing flows"
(ECCV 2020), eq. 2, relaxes the projection to weak perspective and solves for the translation by least squares. Pixels
are divided by the focal length first, so the sums are well scaled and float32 is enough.

Nothing here fails for a whole batch. A person without an answer has `ok` False: fewer than two joints with confidence,
all of them within a tenth of a millimetre, or joints that fit best behind the camera (as an upside-down guess does).
Its translation is then a finite stand-in: the joints' mean on the line of sight through the mean of the seen joints, at
the depth where the skeleton is as large as what is seen of it; 5 m where nothing tells a size. That depth carries no
gradient. A joint that is not finite counts as not seen.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from meshrec.types import Batched, Camera

STANDIN_DEPTH_M = 5.0
FARTHEST_M = 1e4
"""Beyond it a depth is noise."""
LEAST_SIZE_M = 1e-4
LEAST_SIZE_SEEN = 1e-7
"""The same in the image at focal length 1."""
ROUNDS = 5


@dataclass(frozen=True)
class Translation(Batched):
    """Camera-frame translations, to be added to the joints they were solved for."""

    transl_m: Float[Tensor, "*batch 3"]
    ok: Bool[Tensor, "*batch"]
    """False: `transl_m` is a stand-in."""


@dataclass(frozen=True)
class _Sight(Batched):
    """Joints and what is seen of them: weights that add up to one, means, and both about their means."""

    weights: Float[Tensor, "*batch K"]
    joints_mean: Float[Tensor, "*batch 3"]
    joints: Float[Tensor, "*batch K 3"]
    image_mean: Float[Tensor, "*batch 2"]
    image: Float[Tensor, "*batch K 2"]
    """At focal length 1 and about the principal point: X / Z and Y / Z."""
    enough: Bool[Tensor, "*batch"]


def weak_translation(
    joints_m: Float[Tensor, "*batch K 3"],
    xy_px: Float[Tensor, "*batch K 2"],
    confidence: Float[Tensor, "*batch K"],
    camera: Camera,
) -> Translation:
    """Weak perspective, one depth for all joints (eq. 2).

    s = Σ w (X u + Y v) / Σ w (X² + Y²) about the means, then T = (ū / s - X̄, v̄ / s - Ȳ, f / s - Z̄).
    """
    sight = _sight(joints_m, xy_px, confidence, camera)
    depth, ok = _weak_depth(sight)
    return _translation(sight, depth, sight.image_mean * depth[..., None] - sight.joints_mean[..., :2], ok)


def linear_translation(
    joints_m: Float[Tensor, "*batch K 3"],
    xy_px: Float[Tensor, "*batch K 2"],
    confidence: Float[Tensor, "*batch K"],
    camera: Camera,
) -> Translation:
    """Full perspective, linear least squares of f (X + Tx) = u (Z + Tz) and its twin in v (SPIN, Kolotouros 2019).

    Exact without noise; far away, noise in u draws the person towards the camera. About the means it decouples:
    Tz = Σ w u (X - u Z) / Σ w u² with f = 1, and so Tx = mean(u (Z + Tz) - X).
    """
    sight = _sight(joints_m, xy_px, confidence, camera)
    seen = sight.image_mean[..., None, :] + sight.image
    offset = _about_mean(sight.joints[..., :2] - seen * sight.joints[..., 2:], sight.weights)[1]
    size2 = _product(sight.image, sight.image, sight.weights)
    ok = sight.enough & (size2 > LEAST_SIZE_SEEN**2)
    depth = _product(sight.image, offset, sight.weights) / torch.where(ok, size2, 1.0)
    ok = ok & (depth > 0) & (depth < FARTHEST_M)
    across = _about_mean(seen * (sight.joints[..., 2:] + depth[..., None, None]), sight.weights)[0]
    return _translation(sight, depth, across - sight.joints_mean[..., :2], ok)


def iterated_translation(
    joints_m: Float[Tensor, "*batch K 3"],
    xy_px: Float[Tensor, "*batch K 2"],
    confidence: Float[Tensor, "*batch K"],
    camera: Camera,
) -> Translation:
    """Weak perspective, made nearly exact in a few rounds: the one to use.

    In each, every seen joint is moved to where weak perspective would show it, u (Z + Tz) / (Z̄ + Tz), and the
    translation is solved for again (as POSIT does; DeMenthon and Davis 1995). Five rounds leave, of 95 in 100 people
    in any pose, 4 cm at 0.6 m from the camera, 1 cm at 1 m and 1 mm from 1.2 m on; half of them are within 0.1 mm.
    """
    sight = first = _sight(joints_m, xy_px, confidence, camera)
    depth, ok = _weak_depth(sight)
    seen = first.image_mean[..., None, :] + first.image
    for _ in range(ROUNDS):
        stretch = 1 + first.joints[..., 2:] / depth[..., None, None]
        mean, image = _about_mean(seen * stretch, first.weights)
        sight = _Sight(first.weights, first.joints_mean, first.joints, mean, image, first.enough)
        depth, still_ok = _weak_depth(sight)
        ok = ok & still_ok
    return _translation(first, depth, sight.image_mean * depth[..., None] - first.joints_mean[..., :2], ok)


def _sight(
    joints_m: Float[Tensor, "*batch K 3"],
    xy_px: Float[Tensor, "*batch K 2"],
    confidence: Float[Tensor, "*batch K"],
    camera: Camera,
) -> _Sight:
    seen = (confidence > 0) & confidence.isfinite() & xy_px.isfinite().all(-1) & joints_m.isfinite().all(-1)
    weights = torch.where(seen, confidence, 0.0)
    some = seen.any(-1, keepdim=True)
    weights = weights / torch.where(some, weights.sum(-1, keepdim=True), 1.0)
    center_px, focal_px = camera.center_px[..., None, :], camera.focal_px[..., None, None]
    image_mean, image = _about_mean((torch.where(seen[..., None], xy_px, center_px) - center_px) / focal_px, weights)
    joints_mean, joints = _about_mean(torch.where(seen[..., None], joints_m, 0.0), weights)
    size2 = _product(joints[..., :2], joints[..., :2], weights)
    enough = (seen.sum(-1) > 1) & (size2 > LEAST_SIZE_M**2)
    return _Sight(weights, joints_mean, joints, image_mean, image, enough)


def _weak_depth(sight: _Sight) -> tuple[Float[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
    """The depth Z̄ + Tz of weak perspective, and whether it is one; a stand-in where it is not."""
    xy = sight.joints[..., :2]
    scale = _product(xy, sight.image, sight.weights)
    size2 = _product(xy, xy, sight.weights)
    ok = sight.enough & (scale > size2 / FARTHEST_M)
    return torch.where(ok, size2 / torch.where(ok, scale, 1.0), _standin_depth(sight)), ok


def _standin_depth(sight: _Sight) -> Float[Tensor, "*batch"]:
    """The depth at which the skeleton is as large as what is seen of it, or 5 m."""
    xy, image, weights = sight.joints[..., :2].detach(), sight.image.detach(), sight.weights.detach()
    size_m, size_seen = _product(xy, xy, weights).sqrt(), _product(image, image, weights).sqrt()
    told = sight.enough & (size_seen > size_m / FARTHEST_M)
    return torch.where(told, size_m / torch.where(told, size_seen, 1.0), STANDIN_DEPTH_M)


def _translation(
    sight: _Sight, depth: Float[Tensor, "*batch"], xy_m: Float[Tensor, "*batch 2"], ok: Bool[Tensor, "*batch"]
) -> Translation:
    """The translation to a depth of the joints' mean and to `xy_m`; the stand-in where that is not ok."""
    standin = _standin_depth(sight)
    standin_xy_m = sight.image_mean * standin[..., None] - sight.joints_mean[..., :2]
    depth, xy_m = torch.where(ok, depth, standin), torch.where(ok[..., None], xy_m, standin_xy_m)
    return Translation(torch.cat([xy_m, (depth - sight.joints_mean[..., 2])[..., None]], dim=-1), ok)


def _about_mean(
    values: Float[Tensor, "*batch K D"], weights: Float[Tensor, "*batch K"]
) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch K D"]]:
    """The weighted mean, and the values about it."""
    mean = (weights[..., None] * values).sum(-2)
    return mean, values - mean[..., None, :]


def _product(
    a: Float[Tensor, "*batch K D"], b: Float[Tensor, "*batch K D"], weights: Float[Tensor, "*batch K"]
) -> Float[Tensor, "*batch"]:
    """Σ w <a, b>."""
    return (weights * (a * b).sum(-1)).sum(-1)
