"""How far an estimate is from the truth: metres in, millimetres out, one number for each pose.

Every metric takes any leading batch axes and loops over no people. `mask` says which joints count (Bool) or how much
(Float, 0 or more); a joint that does not count may hold anything. A pose with NaN among the joints that count, or with
none that counts, has the error NaN; the others in the batch are untouched.
"""

import itertools
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
    shares = _shares(predicted_m, mask).expand(*batch, joints)
    counted = (_counted(predicted_m, mask), _counted(true_m, mask), shares)
    predicted, true, shares = (values.reshape(-1, *values.shape[len(batch) :]) for values in counted)
    sheets = _sheets(predicted, true, [min(len(predicted), POSES_AT_ONCE)])
    errors = [
        _aligned_error_mm(*chunk, sheets=sheets[..., : len(chunk[0])])
        for chunk in zip(*(poses.split(POSES_AT_ONCE) for poses in (predicted, true, shares)), strict=True)
    ]
    return torch.cat(errors).reshape(batch)


@torch.no_grad()
def pa_joint_error_mm(
    predicted_m: Float[Tensor, "*batch K 3"],
    true_m: Float[Tensor, "*batch K 3"],
    mask: Bool[Tensor, "*#batch K"] | Float[Tensor, "*#batch K"] | None = None,
) -> Float[Tensor, "*batch K"]:
    """Distance of each joint from its true place after the best similarity of those that count, `procrustes`."""
    return joint_error_mm(procrustes(predicted_m, true_m, mask).apply(predicted_m), true_m)


@torch.no_grad()
def pa_mpjpe_thesis_mm(
    predicted_m: Float[Tensor, "*batch K 3"], true_m: Float[Tensor, "*batch K 3"], skeleton: Skeleton
) -> Float[Tensor, "*batch"]:
    """PA-MPJPE as some lifters report it: kinder than `pa_mpjpe_mm`, and not to be compared with it.

    The similarity is fitted to the K - 1 joints without the pelvis and may be a reflection: of the pose and its mirror
    image (x to -x, left and right kept) the one with less squared error counts. The pelvis counts as a joint without
    error: the sum of the others is divided by K.
    """
    others = [joint for joint, name in enumerate(skeleton.joints) if name != "pelvis"]
    predicted_m, true_m = predicted_m[..., others, :], true_m[..., others, :]
    images = (predicted_m, predicted_m * predicted_m.new_tensor([-1.0, 1.0, 1.0]))
    errors = torch.stack([pa_joint_error_mm(image, true_m) for image in images])
    better = errors.square().sum(-1).argmin(0, keepdim=True)
    return errors.sum(-1).gather(0, better)[0] / len(skeleton)


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
    sheets = _sheets(predicted_m, true_m, predicted_m.shape[:-2])
    predicted_mean = _centre(sheets[0], _counted(predicted_m, mask), shares, sheets[2])
    true_mean = _centre(sheets[1], _counted(true_m, mask), shares, sheets[2]).movedim(0, -1)
    scale, rotation = _scaled_rotation(predicted_mean, shares, sheets)
    turned_mean = (rotation @ predicted_mean.movedim(0, -1)[..., None])[..., 0]
    return Similarity(scale, rotation, true_mean - scale[..., None] * turned_mean)


def _sheets(predicted_m: Tensor, true_m: Tensor, batch: Sequence[int]) -> Float[Tensor, "4 3 K *batch"]:
    """Memory for both poses and two products, written over again and again: fresh memory costs more than the sums.

    The batch lies innermost, where sums are fast.
    """
    dtype = torch.result_type(predicted_m, true_m)
    return torch.empty(4, 3, predicted_m.shape[-2], *batch, dtype=dtype, device=predicted_m.device)


def _centre(
    sheet: Float[Tensor, "3 K *batch"],
    points_m: Float[Tensor, "*batch K 3"],
    shares: Float[Tensor, "K *batch"],
    product: Float[Tensor, "3 K *batch"],
) -> Float[Tensor, "3 *batch"]:
    """Write the points about the mean of those that count to the sheet; the mean."""
    sheet.copy_(points_m.movedim((-1, -2), (0, 1)))
    mean = torch.mul(shares, sheet, out=product).sum(1)
    sheet.sub_(mean[:, None])
    return mean


def _aligned_error_mm(
    predicted_m: Float[Tensor, "N K 3"],
    true_m: Float[Tensor, "N K 3"],
    shares: Float[Tensor, "N K"],
    sheets: Float[Tensor, "4 3 K N"],
) -> Float[Tensor, "N"]:
    shares = shares.movedim(-1, 0)
    predicted, residual, product, _ = sheets
    mean = _centre(predicted, predicted_m, shares, product)
    _centre(residual, true_m, shares, product)
    scale, rotation = _scaled_rotation(mean, shares, sheets)
    for column, coordinate in zip((scale[:, None, None] * rotation).unbind(-1), predicted, strict=True):
        residual.addcmul_(column.mT[:, None], coordinate, value=-1)
    distance = torch.sum(residual.square_(), 0, out=product[0]).sqrt_()
    return MM_PER_M * distance.mul_(shares).sum(0)


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


def _scaled_rotation(
    predicted_mean: Float[Tensor, "3 *batch"], shares: Float[Tensor, "K *batch"], sheets: Float[Tensor, "4 3 K *batch"]
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch 3 3"]]:
    """The best scale and rotation of the centred points on the sheets, from their covariances on in float64."""
    predicted, true, weighted, product = sheets
    torch.mul(shares, predicted, out=weighted)
    spread = torch.mul(weighted, predicted, out=product).sum((0, 1)).double()
    covariance = product.new_empty(3, *product.shape[:1], *product.shape[2:])
    for (row, t), (column, p) in itertools.product(enumerate(true), enumerate(weighted)):
        torch.sum(torch.mul(t, p, out=product[0]), 0, out=covariance[row, column])
    covariance = covariance.double()
    rotation = nearest_rotation(covariance.movedim((0, 1), (-2, -1)))
    rounding = 32 * torch.finfo(predicted.dtype).eps * predicted_mean.abs().amax(0)
    stretch = (rotation.movedim((-2, -1), (0, 1)) * covariance).sum((0, 1))
    scale = torch.where(spread > rounding.square(), stretch / spread, 1.0)
    return scale.to(predicted.dtype), rotation.to(predicted.dtype)


@torch.no_grad()
def nearest_rotation(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation R, det R = +1, with the greatest trace of Rᵀ M.

    With singular values s and M = R P scaled to |M| = 1, the trace l of P, which is s1 + s2 ± s3, is the largest root
    of Horn's quartic (1987) (l² - 1)² - 8 det(M) l - 4 |cof M|², found by Newton's method from above (Theobald 2005).
    As cof M = R (P² - l P + m) with m = (l² - 1) / 2, the theorem of Cayley and Hamilton for P leaves
    R = (l cof M + (l² - m) M - M Mᵀ M) / (l m - det M).
    The denominator (s1 + s2)(s1 ± s3)(s2 ± s3) says how well M determines R; the few that it does not take the SVD.
    It carries no gradient: what it computes is written over, for fresh memory would cost more than the sums.
    """
    entries = matrix.movedim((-2, -1), (0, 1))
    scratch = entries.square()
    size = scratch.sum((0, 1)).sqrt()
    m = entries / size
    x, y, z = m
    cofactors = torch.empty_like(m)
    for rows, cofactor in zip(((y, z), (z, x), (x, y)), cofactors, strict=True):
        torch.linalg.cross(*rows, dim=0, out=cofactor)
    det = (x * cofactors[0]).sum(0)
    trace = _trace_of_stretch(det, torch.mul(cofactors, cofactors, out=scratch).sum((0, 1)))
    minors = (trace.square() - 1.0) / 2.0
    determinacy = trace * minors - det
    cube = _product(_product(m, m.transpose(0, 1), scratch), m, torch.empty_like(m))
    rotation = cofactors.mul_(trace).addcmul_(trace.square() - minors, m).sub_(cube).div_(determinacy)
    rotation = rotation.movedim((0, 1), (-2, -1))
    hard = ~(determinacy > LEAST_DETERMINACY) & size.isfinite()
    if hard.any():
        rotation[hard] = _nearest_rotation_by_svd(matrix[hard])
    return rotation


def _product(
    a: Float[Tensor, "3 3 *batch"], b: Float[Tensor, "3 3 *batch"], product: Float[Tensor, "3 3 *batch"]
) -> Float[Tensor, "3 3 *batch"]:
    """The matrix products a b, written to `product`."""
    torch.mul(a[:, 0, None], b[0], out=product)
    return product.addcmul_(a[:, 1, None], b[1]).addcmul_(a[:, 2, None], b[2])


def _trace_of_stretch(det: Float[Tensor, "*batch"], cofactors2: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The largest root of Horn's quartic, from an upper bound downwards (the root is at most √3).

    With e = l² - 1 a step of Newton's method leads to (3/4 e² + e + |cof M|²) / (l e - 2 det M). Where the quartic is
    flat, at a double root, a step is rounding noise: it must not lead up again.
    """
    trace = (1.0 + 2.0 * (cofactors2 + 2.0 * 3**0.5 * det.clamp_min(0)).sqrt()).sqrt()
    minus_one, slope = torch.full_like(det, -1.0), -2.0 * det
    for _ in range(NEWTON_STEPS):
        excess = torch.addcmul(minus_one, trace, trace)
        step = torch.addcmul(cofactors2, excess, excess, value=0.75).add_(excess)
        trace = torch.minimum(trace, step.div_(torch.addcmul(slope, trace, excess)))
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
