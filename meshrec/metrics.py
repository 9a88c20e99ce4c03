"""How far an estimate is from the truth: metres in, millimetres out, one number for each pose.

Every metric takes any leading batch axes and loops over no people. `mask` says which joints count (Bool) or how much
(Float, 0 or more); a joint that does not count may hold anything. A pose with NaN among the joints that count, or with
none that counts, has the error NaN; the others in the batch are untouched.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meshrec.skeletons import Skeleton
from meshrec.types import Batched

MM_PER_M = 1000.0
MPI_INF_THRESHOLDS_MM = tuple(5.0 * step for step in range(31))
"""0 to 150 mm: where MPI-INF-3DHP (Mehta et al. 2017) takes the area under the curve."""

POSES_AT_ONCE = 4096
"""So many are aligned together: few enough for the processor's cache."""
LEAST_DETERMINACY = 3e-3
"""Below it (planes are far above, lines below) the closed form of a rotation hands over to the SVD."""
NEWTON_STEPS = 12
"""Enough for every covariance above `LEAST_DETERMINACY`; the rotation is then good to 1e-11."""


@dataclass(frozen=True)
class Similarity(Batched):
    """The map x -> scale * rotation @ x + translation_m."""

    scale: Float[Tensor, "*batch"]
    rotation: Float[Tensor, "*batch 3 3"]
    """Proper: its determinant is +1."""
    translation_m: Float[Tensor, "*batch 3"]

    def apply(self, points_m: Float[Tensor, "*batch K 3"]) -> Float[Tensor, "*batch K 3"]:
        """The points after the map."""
        linear = self.scale[..., None, None] * self.rotation
        return (linear[..., None, :, :] * points_m[..., None, :]).sum(-1) + self.translation_m[..., None, :]


def root_relative(joints_m: Float[Tensor, "*batch K 3"], skeleton: Skeleton, *root: str) -> Float[Tensor, "*batch K 3"]:
    """Joints about their root: the pelvis, another joint by name, or the middle of several (both hips, say)."""
    return joints_m - joints_m[..., skeleton.indices(*root or ("pelvis",)), :].mean(-2, keepdim=True)


def joint_error_mm(
    predicted_m: Float[Tensor, "*batch K 3"], true_m: Float[Tensor, "*batch K 3"]
) -> Float[Tensor, "*batch K"]:
    """Distance of each joint from its true place."""
    return MM_PER_M * torch.linalg.vector_norm(predicted_m - true_m, dim=-1)


def mpjpe_mm(
    predicted_m: Float[Tensor, "*batch K 3"],
    true_m: Float[Tensor, "*batch K 3"],
    mask: Bool[Tensor, "*#batch K"] | Float[Tensor, "*#batch K"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Mean per-joint position error of the joints as given: align the roots first, with `root_relative`."""
    return _mean(joint_error_mm(predicted_m, true_m), mask)


def n_mpjpe_mm(
    predicted_m: Float[Tensor, "*batch K 3"],
    true_m: Float[Tensor, "*batch K 3"],
    mask: Bool[Tensor, "*#batch K"] | Float[Tensor, "*#batch K"] | None = None,
) -> Float[Tensor, "*batch"]:
    """MPJPE after the best scale about the origin (Rhodin et al. 2018): align the roots first.

    The scale is <predicted, true> / <predicted, predicted>, and 0 where that would turn the pose inside out; 1 where
    the prediction is all at the origin.
    """
    overlap = _mean((predicted_m * true_m).sum(-1), mask)
    size = _mean(predicted_m.square().sum(-1), mask)
    nowhere = size == 0
    scale = torch.where(nowhere, 1.0, overlap.clamp_min(0) / torch.where(nowhere, 1.0, size))
    return mpjpe_mm(scale[..., None, None] * predicted_m, true_m, mask)


@torch.no_grad()
def pa_mpjpe_mm(
    predicted_m: Float[Tensor, "*batch K 3"],
    true_m: Float[Tensor, "*batch K 3"],
    mask: Bool[Tensor, "*#batch K"] | Float[Tensor, "*#batch K"] | None = None,
) -> Float[Tensor, "*batch"]:
    """MPJPE after the best similarity, `procrustes`. A measurement and no loss: it carries no gradient."""
    *batch, joints, _ = predicted_m.shape
    predicted_m, true_m = _counted(predicted_m, mask), _counted(true_m, mask)
    shares = _shares(predicted_m, mask).expand(*batch, joints)
    poses = (values.reshape(-1, *values.shape[len(batch) :]) for values in (predicted_m, true_m, shares))
    errors = [_aligned_error_mm(*some) for some in zip(*(values.split(POSES_AT_ONCE) for values in poses), strict=True)]
    return torch.cat(errors).reshape(batch)


@torch.no_grad()
def procrustes(
    predicted_m: Float[Tensor, "*batch K 3"],
    true_m: Float[Tensor, "*batch K 3"],
    mask: Bool[Tensor, "*#batch K"] | Float[Tensor, "*#batch K"] | None = None,
) -> Similarity:
    """The similarity that takes `predicted_m` to `true_m` with the least sum of squares (Umeyama 1991).

    The rotation is proper: a mirrored pose is not turned inside out. Where the joints leave it open (all on a line, or
    on a point) it is one of the best. A prediction all on one point keeps the scale 1. It carries no gradient.
    """
    shares = _shares(predicted_m, mask).expand(predicted_m.shape[:-1]).movedim(-1, 0)
    predicted_mean, predicted = _centred(_counted(predicted_m, mask), shares)
    true_mean, true = _centred(_counted(true_m, mask), shares)
    scale, rotation = _scaled_rotation(predicted_mean, predicted, true, shares)
    turned_mean = (rotation @ predicted_mean.movedim(0, -1)[..., None])[..., 0]
    return Similarity(scale, rotation, true_mean.movedim(0, -1) - scale[..., None] * turned_mean)


def _aligned_error_mm(
    predicted_m: Float[Tensor, "N K 3"], true_m: Float[Tensor, "N K 3"], shares: Float[Tensor, "N K"]
) -> Float[Tensor, "N"]:
    shares = shares.movedim(-1, 0)
    mean, predicted = _centred(predicted_m, shares)
    _, true = _centred(true_m, shares)
    scale, rotation = _scaled_rotation(mean, predicted, true, shares)
    residual = -true
    for column, coordinate in zip((scale[:, None, None] * rotation).unbind(-1), predicted, strict=True):
        residual = torch.addcmul(residual, column.mT[:, None], coordinate)
    return MM_PER_M * (shares * residual.square().sum(0).sqrt()).sum(0)


def _counted(
    points_m: Float[Tensor, "*batch K 3"], mask: Bool[Tensor, "*#batch K"] | Float[Tensor, "*#batch K"] | None
) -> Float[Tensor, "*batch K 3"]:
    """The points with those that do not count at the origin, whatever they held."""
    return points_m if mask is None else torch.where(mask[..., None] > 0, points_m, 0.0)


def _shares(
    points_m: Float[Tensor, "*batch K 3"], mask: Bool[Tensor, "*#batch K"] | Float[Tensor, "*#batch K"] | None
) -> Float[Tensor, "*#batch K"]:
    """How much each joint counts; they add up to one."""
    weights = points_m.new_ones(points_m.shape[-2]) if mask is None else mask.to(points_m.dtype)
    return weights / weights.sum(-1, keepdim=True)


def _centred(
    points_m: Float[Tensor, "*batch K 3"], shares: Float[Tensor, "K *batch"]
) -> tuple[Float[Tensor, "3 *batch"], Float[Tensor, "3 K *batch"]]:
    """The mean of the points that count, and the points about it; the batch lies innermost, where sums are fast."""
    points = points_m.movedim((-1, -2), (0, 1)).contiguous()
    mean = (shares * points).sum(1)
    return mean, points - mean[:, None]


def _scaled_rotation(
    predicted_mean: Float[Tensor, "3 *batch"],
    predicted: Float[Tensor, "3 K *batch"],
    true: Float[Tensor, "3 K *batch"],
    shares: Float[Tensor, "K *batch"],
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch 3 3"]]:
    """The best scale and rotation of centred points; covariances are summed in float64."""
    weighted = shares * predicted
    spread = (weighted * predicted).sum((0, 1)).double()
    weighted, target = weighted.double(), true.double()
    covariance = torch.stack([(t * p).sum(0) for t in target for p in weighted]).unflatten(0, (3, 3))
    rotation = nearest_rotation(covariance.movedim((0, 1), (-2, -1)))
    rounding = 32 * torch.finfo(predicted.dtype).eps * predicted_mean.abs().amax(0)
    stretch = (rotation.movedim((-2, -1), (0, 1)) * covariance).sum((0, 1))
    scale = torch.where(spread > rounding.square(), stretch / spread, 1.0)
    return scale.to(predicted.dtype), rotation.to(predicted.dtype)


def nearest_rotation(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation R, det R = +1, with the greatest trace of Rᵀ M.

    With singular values s and M = R P scaled to |M| = 1, the trace l of P, which is s1 + s2 ± s3, is the largest root
    of Horn's quartic (1987) (l² - 1)² - 8 det(M) l - 4 |cof M|², found by Newton's method from above (Theobald 2005).
    As cof M = R (P² - l P + m) with m = (l² - 1) / 2, the theorem of Cayley and Hamilton for P leaves
    R = (l cof M + (l² - m) M - M Mᵀ M) / (l m - det M).
    The denominator (s1 + s2)(s1 ± s3)(s2 ± s3) says how well M determines R; the few that it does not take the SVD.
    """
    entries = matrix.movedim((-2, -1), (0, 1))
    size = entries.square().sum((0, 1)).sqrt()
    m = entries / size
    x, y, z = m
    cofactors = torch.stack([torch.linalg.cross(*rows, dim=0) for rows in ((y, z), (z, x), (x, y))])
    det = (x * cofactors[0]).sum(0)
    trace = _trace_of_stretch(det, cofactors.square().sum((0, 1)))
    minors = (trace.square() - 1) / 2
    determinacy = trace * minors - det
    gram = (m[:, :, None] * m[:, None]).sum(0)
    cube = (m[:, :, None] * gram).sum(1)
    rotation = (trace * cofactors + (trace.square() - minors) * m - cube) / determinacy
    rotation = rotation.movedim((0, 1), (-2, -1))
    hard = ~(determinacy > LEAST_DETERMINACY) & size.isfinite()
    if hard.any():
        rotation[hard] = _nearest_rotation_by_svd(matrix[hard])
    return rotation


def _trace_of_stretch(det: Float[Tensor, "*batch"], cofactors2: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The largest root of Horn's quartic, from an upper bound downwards (the root is at most √3).

    Where the quartic is flat, at a double root, a step is rounding noise: it must not lead up again.
    """
    trace = (1 + 2 * (cofactors2 + 2 * 3**0.5 * det.clamp_min(0)).sqrt()).sqrt()
    for _ in range(NEWTON_STEPS):
        excess = trace.square() - 1
        step = (excess * (3 * excess + 4) + 4 * cofactors2) / (4 * (trace * excess - 2 * det))
        trace = torch.minimum(trace, step)
    return trace


def _nearest_rotation_by_svd(matrix: Float[Tensor, "N 3 3"]) -> Float[Tensor, "N 3 3"]:
    """The same by Umeyama's formula, for any matrix."""
    left, _, right = torch.linalg.svd(matrix)
    sign = torch.linalg.det(left @ right).sign()
    return torch.cat([left[..., :2], left[..., 2:] * sign[:, None, None]], dim=-1) @ right


def pve_mm(predicted_m: Float[Tensor, "*batch V 3"], true_m: Float[Tensor, "*batch V 3"]) -> Float[Tensor, "*batch"]:
    """Mean distance of the vertices as given: every vertex counts the same, so hands and face count most."""
    return mpjpe_mm(predicted_m, true_m)


def pve_area_mm(
    predicted_m: Float[Tensor, "*batch V 3"], true_m: Float[Tensor, "*batch V 3"], areas_m2: Float[Tensor, "*#batch V"]
) -> Float[Tensor, "*batch"]:
    """Mean distance over the surface: every vertex counts by its share of it (`vertex_areas` of the true mesh)."""
    return mpjpe_mm(predicted_m, true_m, areas_m2)


def vertex_areas(vertices_m: Float[Tensor, "*batch V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "*batch V"]:
    """A third of the area, in square metres, of the triangles about each vertex; they add up to the whole surface."""
    a, b, c = (vertices_m[..., faces[:, corner], :] for corner in range(3))
    triangles_m2 = torch.linalg.vector_norm(torch.linalg.cross(b - a, c - a), dim=-1) / 2
    return torch.zeros_like(vertices_m[..., 0]).index_add(-1, faces.mT.flatten(), (triangles_m2 / 3).tile(3))


def mrpe_mm(
    predicted_root_m: Float[Tensor, "*batch 3"], true_root_m: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch"]:
    """Distance of the root from its true place in the camera frame (Moon et al. 2019)."""
    return MM_PER_M * torch.linalg.vector_norm(predicted_root_m - true_root_m, dim=-1)


def pck(
    distance: Float[Tensor, "*batch K"],
    thresholds: Sequence[float],
    mask: Bool[Tensor, "*#batch K"] | Float[Tensor, "*#batch K"] | None = None,
) -> Float[Tensor, "*batch T"]:
    """Share of joints, 0 to 1, no farther than each threshold, in the unit of `distance` (3DPCK: 150 mm)."""
    limits = torch.tensor(thresholds, dtype=distance.dtype, device=distance.device)
    close = (distance[..., None, :] <= limits[:, None]).to(distance.dtype)
    close = torch.where(distance.isnan()[..., None, :], torch.nan, close)
    return _mean(close, None if mask is None else mask[..., None, :])


def auc(
    distance: Float[Tensor, "*batch K"],
    thresholds: Sequence[float],
    mask: Bool[Tensor, "*#batch K"] | Float[Tensor, "*#batch K"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Mean PCK over evenly spaced thresholds (`MPI_INF_THRESHOLDS_MM`): the area under its curve, 0 to 1."""
    return pck(distance, thresholds, mask).mean(-1)


def pck_2d(
    predicted_px: Float[Tensor, "*batch K 2"],
    true_px: Float[Tensor, "*batch K 2"],
    reference_px: Float[Tensor, "*batch"],
    thresholds: Sequence[float],
    mask: Bool[Tensor, "*#batch K"] | Float[Tensor, "*#batch K"] | None = None,
) -> Float[Tensor, "*batch T"]:
    """Share of joints no farther than each threshold times a length of the person in the image.

    PCKh@0.5: half the head's length (Andriluka et al. 2014); PCK@0.2: a fifth of the torso's.
    """
    distance_px = torch.linalg.vector_norm(predicted_px - true_px, dim=-1)
    return pck(distance_px / reference_px[..., None], thresholds, mask)


def acceleration_mm_per_s2(joints_m: Float[Tensor, "*batch T K 3"], fps: float) -> Float[Tensor, "*batch F K"]:
    """Length of each joint's acceleration at every frame but the first and the last."""
    return MM_PER_M * torch.linalg.vector_norm(_acceleration(joints_m, fps), dim=-1)


def acceleration_error_mm_per_s2(
    predicted_m: Float[Tensor, "*batch T K 3"], true_m: Float[Tensor, "*batch T K 3"], fps: float
) -> Float[Tensor, "*batch"]:
    """Mean distance of the joints' accelerations (Kanazawa et al. 2019, who leave it in mm per frame²)."""
    return joint_error_mm(_acceleration(predicted_m, fps), _acceleration(true_m, fps)).mean((-2, -1))


def _acceleration(joints_m: Float[Tensor, "*batch T K 3"], fps: float) -> Float[Tensor, "*batch F K 3"]:
    """Second differences, in metres per second squared."""
    if joints_m.shape[-3] < 3:
        raise ValueError(f"an acceleration needs three frames, the joints have {joints_m.shape[-3]}")
    if fps <= 0:
        raise ValueError(f"fps must be positive, it is {fps}")
    before, now, after = joints_m[..., :-2, :, :], joints_m[..., 1:-1, :, :], joints_m[..., 2:, :, :]
    return (before - 2 * now + after) * fps**2


def _mean(
    values: Float[Tensor, "*batch K"], mask: Bool[Tensor, "*#batch K"] | Float[Tensor, "*#batch K"] | None
) -> Float[Tensor, "*batch"]:
    """Mean over the last axis of what counts."""
    if mask is None:
        return values.mean(-1)
    return (torch.where(mask > 0, values, 0.0) * mask).sum(-1) / mask.sum(-1)
