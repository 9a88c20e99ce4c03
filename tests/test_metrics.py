"""Metrics: the similarity against the SVD, invariances, degenerate poses, masks and units."""

import math

import numpy as np
import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meshrec import metrics
from meshrec.metrics import mpjpe_mm, n_mpjpe_mm, nearest_rotation, pa_mpjpe_mm, procrustes, root_relative
from meshrec.skeletons import COCO17, H36M17

BATCHES = [(), (1,), (3,), (2, 3)]
DOUBLE = torch.float64
POINTWISE = [mpjpe_mm, n_mpjpe_mm, pa_mpjpe_mm]


def _poses_m(*batch: int, joints: int = 17, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape_m = torch.tensor([0.25, 0.5, 0.15], dtype=DOUBLE)
    return shape_m * torch.randn(*batch, joints, 3, generator=generator, dtype=DOUBLE)


def _pair_m(*batch: int, noise_m: float = 0.05, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A prediction, turned, scaled, moved and noisy, and the truth."""
    true_m = _poses_m(*batch, seed=seed)
    noisy = true_m + noise_m * _poses_m(*batch, seed=seed + 1)
    return _similarity(*batch, seed=seed).apply(noisy), true_m


def _similarity(*batch: int, seed: int = 0) -> metrics.Similarity:
    generator = torch.Generator().manual_seed(seed + 100)
    scale = 0.5 + torch.rand(batch, generator=generator, dtype=DOUBLE)
    rotation = roma.rotvec_to_rotmat(2 * torch.randn(*batch, 3, generator=generator, dtype=DOUBLE))
    return metrics.Similarity(scale, rotation, torch.randn(*batch, 3, generator=generator, dtype=DOUBLE))


def _umeyama(predicted_m: np.ndarray, true_m: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The reference of one pose: Umeyama (1991), eq. 40 to 43, by numpy's SVD."""
    predicted, true = predicted_m - predicted_m.mean(0), true_m - true_m.mean(0)
    left, stretch, right = np.linalg.svd(true.T @ predicted)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = (left * signs) @ right
    spread = (predicted**2).sum()
    scale = (stretch * signs).sum() / spread if spread > 0 else 1.0
    return scale, rotation, true_m.mean(0) - scale * rotation @ predicted_m.mean(0)


def _reference_mm(predicted_m: torch.Tensor, true_m: torch.Tensor) -> torch.Tensor:
    """PA-MPJPE, one pose after the other."""
    errors = []
    for predicted, true in zip(predicted_m.double().numpy(), true_m.double().numpy(), strict=True):
        scale, rotation, translation = _umeyama(predicted, true)
        aligned = scale * predicted @ rotation.T + translation
        errors.append(1000 * np.linalg.norm(aligned - true, axis=-1).mean())
    return torch.tensor(np.array(errors))


@pytest.mark.parametrize("batch", BATCHES)
def test_procrustes_finds_the_similarity_that_was_applied(batch):
    true_m, expected = _poses_m(*batch), _similarity(*batch)
    found = procrustes(true_m, expected.apply(true_m))
    torch.testing.assert_close(found.scale, expected.scale)
    torch.testing.assert_close(found.rotation, expected.rotation)
    torch.testing.assert_close(found.translation_m, expected.translation_m)


@pytest.mark.parametrize("batch", BATCHES)
def test_procrustes_is_umeyama_by_the_svd(batch):
    predicted_m, true_m = _pair_m(*batch)
    found = procrustes(predicted_m, true_m).map(lambda t: t.reshape(-1, *t.shape[len(batch) :]))
    for pose, (one, other) in enumerate(zip(predicted_m.reshape(-1, 17, 3), true_m.reshape(-1, 17, 3), strict=True)):
        scale, rotation, translation = _umeyama(one.numpy(), other.numpy())
        assert found.scale[pose].item() == pytest.approx(scale, rel=1e-12)
        np.testing.assert_allclose(found.rotation[pose], rotation, atol=1e-12)
        np.testing.assert_allclose(found.translation_m[pose], translation, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance_mm"), [(DOUBLE, 1e-6), (torch.float32, 0.1)])
@pytest.mark.parametrize("noise_m", [1e-6, 0.05, 1.0, 10.0])
@pytest.mark.parametrize("extent_m", [(1, 1, 1), (1, 0.3, 0.1), (1, 0.1, 0.01), (1, 1, 0), (1, 1e-3, 1e-4), (1, 0, 0)])
def test_pa_mpjpe_is_that_of_the_svd_in_solids_planes_and_lines(extent_m, noise_m, dtype, tolerance_mm):
    extent = torch.tensor(extent_m, dtype=DOUBLE)
    true_m, noise = extent * _poses_m(300), extent * _poses_m(300, seed=1)
    predicted_m = _similarity(300).apply(true_m + noise_m * noise)
    predicted_m, true_m = predicted_m.to(dtype), true_m.to(dtype)
    found = pa_mpjpe_mm(predicted_m, true_m)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), _reference_mm(predicted_m, true_m), rtol=0, atol=tolerance_mm)


@pytest.mark.parametrize("joints", [1, 2, 3, 4, 17])
def test_pa_mpjpe_is_that_of_the_svd_for_few_joints(joints):
    predicted_m, true_m = _poses_m(50, joints=joints), _poses_m(50, joints=joints, seed=1)
    found = pa_mpjpe_mm(predicted_m, true_m)
    torch.testing.assert_close(found, _reference_mm(predicted_m, true_m), rtol=0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    singular=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    exponents=st.lists(st.floats(-9, 0), min_size=3, max_size=3),
    sign=st.sampled_from([-1.0, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_the_nearest_rotation_of_any_matrix_reaches_the_greatest_trace(singular, exponents, sign, seed):
    stretch = torch.tensor(singular, dtype=DOUBLE) * 10 ** torch.tensor(exponents, dtype=DOUBLE)
    stretch, _ = stretch.sort(descending=True)
    stretch[2] *= sign
    turns = _similarity(2, seed=seed).rotation
    matrix = turns[0] @ torch.diag(stretch) @ turns[1]
    rotation = nearest_rotation(matrix)
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3, dtype=DOUBLE), rtol=0, atol=1e-10)
    assert torch.linalg.det(rotation).item() == pytest.approx(1.0, abs=1e-10)
    assert (rotation * matrix).sum().item() == pytest.approx(stretch.sum().item(), abs=1e-12)


def test_the_nearest_rotation_holds_where_the_closed_form_hands_over_to_the_svd():
    generator = torch.Generator().manual_seed(0)
    count = 20_000
    second = 10 ** (-6 * torch.rand(count, generator=generator, dtype=DOUBLE))
    gap = 10 ** (-8 * torch.rand(count, generator=generator, dtype=DOUBLE))
    sign = torch.randint(2, (count,), generator=generator) * 2.0 - 1
    stretch = torch.stack([torch.ones(count, dtype=DOUBLE), second, sign * second * (1 - gap)], dim=-1)
    turns = _similarity(2, count).rotation
    matrix = turns[0] @ (stretch[..., None] * turns[1])
    rotation = nearest_rotation(matrix)
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3, dtype=DOUBLE).expand(count, 3, 3))
    torch.testing.assert_close((rotation * matrix).sum((-2, -1)), stretch.sum(-1), rtol=0, atol=1e-12)
    told = (stretch[:, 1] + stretch[:, 2]) > 1e-2
    torch.testing.assert_close(rotation[told], (turns[0] @ turns[1])[told], rtol=0, atol=1e-10)


def test_a_mirrored_pose_is_not_turned_inside_out():
    true_m = _poses_m(20)
    mirrored = true_m * torch.tensor([-1.0, 1.0, 1.0], dtype=DOUBLE)
    similarity = procrustes(mirrored, true_m)
    torch.testing.assert_close(torch.linalg.det(similarity.rotation), torch.ones(20, dtype=DOUBLE))
    assert (pa_mpjpe_mm(mirrored, true_m) > 50).all()
    torch.testing.assert_close(pa_mpjpe_mm(mirrored, true_m), _reference_mm(mirrored, true_m), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_equal_poses_have_no_error(dtype):
    pose_m = _poses_m(3).to(dtype)
    for metric in POINTWISE:
        torch.testing.assert_close(metric(pose_m, pose_m), torch.zeros(3, dtype=dtype), rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
@pytest.mark.parametrize("offset_m", [0.0, 0.3, 5.1])
def test_a_prediction_on_one_point_is_moved_to_the_middle(dtype, offset_m):
    true_m = _poses_m(3).to(dtype)
    point_m = torch.full_like(true_m, offset_m)
    middle_m = true_m.mean(-2, keepdim=True).expand_as(true_m)
    torch.testing.assert_close(pa_mpjpe_mm(point_m, true_m), mpjpe_mm(middle_m, true_m), rtol=1e-5, atol=1e-6)
    assert (procrustes(point_m, true_m).scale == 1).all()
    torch.testing.assert_close(pa_mpjpe_mm(true_m, point_m), torch.zeros(3, dtype=dtype), rtol=0, atol=1e-2)


@pytest.mark.parametrize("batch", BATCHES)
def test_alignment_ignores_a_similarity_of_the_prediction_and_scales_with_the_truth(batch):
    predicted_m, true_m = _pair_m(*batch)
    error_mm = pa_mpjpe_mm(predicted_m, true_m)
    assert error_mm.shape == batch
    torch.testing.assert_close(pa_mpjpe_mm(_similarity(*batch, seed=5).apply(predicted_m), true_m), error_mm)
    torch.testing.assert_close(pa_mpjpe_mm(predicted_m, 3 * true_m), 3 * error_mm)
    torch.testing.assert_close(n_mpjpe_mm(7 * predicted_m, true_m), n_mpjpe_mm(predicted_m, true_m))


def test_better_alignments_have_smaller_sums_of_squares():
    predicted_m, true_m = (root_relative(pose, H36M17) for pose in _pair_m(30))
    best = procrustes(predicted_m, true_m)
    least = (best.apply(predicted_m) - true_m).square().sum((-2, -1))
    for seed in range(5):
        nudge = _similarity(30, seed=seed)
        turn = roma.rotvec_to_rotmat(0.05 * nudge.translation_m)
        other = metrics.Similarity(best.scale * (1 + 0.02 * nudge.scale), turn @ best.rotation, best.translation_m)
        assert ((other.apply(predicted_m) - true_m).square().sum((-2, -1)) > least).all()


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("metric", POINTWISE)
def test_a_mask_is_as_if_the_others_were_not_there(metric, batch):
    predicted_m, true_m = _pair_m(*batch)
    mask = torch.ones(*batch, 17, dtype=torch.bool)
    mask[..., [2, 5, 11]] = False
    predicted_m[..., 2, :], true_m[..., 5, :], predicted_m[..., 11, :] = torch.nan, torch.inf, 1e6
    kept = [joint for joint in range(17) if joint not in (2, 5, 11)]
    expected = metric(predicted_m[..., kept, :], true_m[..., kept, :])
    torch.testing.assert_close(metric(predicted_m, true_m, mask), expected)
    torch.testing.assert_close(metric(predicted_m, true_m, 0.3 * mask.double()), expected)


@pytest.mark.parametrize("metric", POINTWISE)
def test_a_weight_of_two_is_a_joint_twice(metric):
    predicted_m, true_m = _pair_m(3)
    weights = torch.ones(17, dtype=DOUBLE)
    weights[4] = 2.0
    twice = [*range(17), 4]
    expected = metric(predicted_m[:, twice], true_m[:, twice])
    torch.testing.assert_close(metric(predicted_m, true_m, weights), expected)


@pytest.mark.parametrize("metric", POINTWISE)
def test_nan_stays_with_its_pose(metric):
    predicted_m, true_m = _pair_m(2, 3)
    expected = metric(predicted_m, true_m)
    predicted_m[1, 0, 4, 2] = torch.nan
    found = metric(predicted_m, true_m)
    assert found.isnan().tolist() == [[False, False, False], [True, False, False]]
    torch.testing.assert_close(found[0], expected[0])
    mask = torch.ones(2, 3, 17, dtype=torch.bool)
    mask[0, 1] = False
    assert metric(true_m, true_m, mask).isnan().tolist() == [[False, True, False], [False, False, False]]


def test_chunks_leave_no_seam():
    predicted_m, true_m = _pair_m(2 * metrics.POSES_AT_ONCE + 3)
    torch.testing.assert_close(
        pa_mpjpe_mm(predicted_m, true_m), mpjpe_mm(procrustes(predicted_m, true_m).apply(predicted_m), true_m)
    )
    assert pa_mpjpe_mm(predicted_m[:0], true_m[:0]).shape == (0,)


def test_alignment_carries_no_gradient():
    predicted_m, true_m = _pair_m(3)
    assert not pa_mpjpe_mm(predicted_m.requires_grad_(), true_m).requires_grad


def test_mpjpe_and_n_mpjpe_have_the_gradients_of_finite_differences():
    predicted_m, true_m = _pair_m(2)
    for metric in (mpjpe_mm, n_mpjpe_mm):
        assert torch.autograd.gradcheck(lambda p, m=metric: m(p, true_m), predicted_m.requires_grad_(), rtol=1e-3)


def test_a_centimetre_is_ten_millimetres():
    true_m = _poses_m(3)
    shift_m = torch.tensor([0.006, 0.0, -0.008], dtype=DOUBLE)
    ten = torch.full((3,), 10.0, dtype=DOUBLE)
    torch.testing.assert_close(mpjpe_mm(true_m + shift_m, true_m), ten)
    torch.testing.assert_close(metrics.pve_mm(true_m + shift_m, true_m), ten)
    torch.testing.assert_close(metrics.mrpe_mm(true_m[:, 0] + shift_m, true_m[:, 0]), ten)
    assert (pa_mpjpe_mm(true_m + shift_m, true_m) < 1e-9).all()


def test_the_scale_is_taken_about_the_origin_and_is_the_best():
    predicted_m, true_m = (root_relative(pose, H36M17) for pose in _pair_m(20))
    sizes = torch.linspace(0, 3, 31, dtype=DOUBLE)[:, None, None, None]
    squares = (sizes * predicted_m - true_m).square().sum((-2, -1))
    scale = ((predicted_m * true_m).sum((-2, -1)) / predicted_m.square().sum((-2, -1))).clamp_min(0)
    assert ((scale[:, None, None] * predicted_m - true_m).square().sum((-2, -1)) <= squares + 1e-12).all()
    torch.testing.assert_close(n_mpjpe_mm(predicted_m, true_m), mpjpe_mm(scale[:, None, None] * predicted_m, true_m))
    torch.testing.assert_close(n_mpjpe_mm(0 * predicted_m, true_m), mpjpe_mm(0 * predicted_m, true_m))


def test_no_scale_turns_a_pose_inside_out():
    true_m = root_relative(_poses_m(20), H36M17)
    for opposite in (-true_m, -0.3 * true_m):
        torch.testing.assert_close(n_mpjpe_mm(opposite, true_m), mpjpe_mm(0 * true_m, true_m))
    torch.testing.assert_close(n_mpjpe_mm(0.3 * true_m, true_m), torch.zeros(20, dtype=DOUBLE))


@pytest.mark.parametrize("batch", BATCHES)
def test_the_aligned_errors_of_the_joints_have_the_aligned_error_as_their_mean(batch):
    predicted_m, true_m = _pair_m(*batch)
    errors_mm = metrics.pa_joint_error_mm(predicted_m, true_m)
    assert errors_mm.shape == (*batch, 17)
    torch.testing.assert_close(errors_mm.mean(-1), pa_mpjpe_mm(predicted_m, true_m))
    turned = metrics.pa_joint_error_mm(_similarity(*batch, seed=5).apply(predicted_m), true_m)
    torch.testing.assert_close(turned, errors_mm)
    mask = torch.arange(17) != H36M17.index("left_wrist")
    counted = metrics.pa_joint_error_mm(predicted_m, true_m, mask)[..., mask]
    torch.testing.assert_close(counted.mean(-1), pa_mpjpe_mm(predicted_m, true_m, mask))


@pytest.mark.parametrize("batch", BATCHES)
def test_the_thesis_counts_the_pelvis_as_a_joint_without_error_wherever_it_is(batch):
    predicted_m, true_m = _pair_m(*batch)
    others = [joint for joint in range(17) if joint != H36M17.index("pelvis")]
    expected = pa_mpjpe_mm(predicted_m[..., others, :], true_m[..., others, :]) * 16 / 17
    found = metrics.pa_mpjpe_thesis_mm(predicted_m, true_m, H36M17)
    assert found.shape == batch
    torch.testing.assert_close(found, expected)
    predicted_m[..., H36M17.index("pelvis"), :] += 1.0
    torch.testing.assert_close(metrics.pa_mpjpe_thesis_mm(predicted_m, true_m, H36M17), expected)


@pytest.mark.parametrize("batch", BATCHES)
def test_the_thesis_forgives_a_mirrored_pose(batch):
    predicted_m, true_m = _pair_m(*batch)
    mirrored = predicted_m * torch.tensor([1.0, 1.0, -1.0], dtype=DOUBLE)
    assert (pa_mpjpe_mm(mirrored, true_m) > 50).all()
    found, expected = (metrics.pa_mpjpe_thesis_mm(pose, true_m, H36M17) for pose in (mirrored, predicted_m))
    torch.testing.assert_close(found, expected)


def test_the_thesis_takes_the_image_that_umeyama_without_the_sign_takes():
    """A linear map that may be a reflection: the SVD with the sign left out is the least in squares."""
    predicted_m, true_m = _poses_m(40, seed=1), _poses_m(40, seed=2)
    others = [joint for joint in range(17) if joint != H36M17.index("pelvis")]
    expected = []
    for predicted, true in zip(predicted_m[:, others].numpy(), true_m[:, others].numpy(), strict=True):
        predicted, true = predicted - predicted.mean(0), true - true.mean(0)
        left, stretch, right = np.linalg.svd(true.T @ predicted)
        aligned = stretch.sum() / (predicted**2).sum() * predicted @ (left @ right).T
        expected.append(1000 * np.linalg.norm(aligned - true, axis=-1).sum() / 17)
    found = metrics.pa_mpjpe_thesis_mm(predicted_m, true_m, H36M17)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("batch", BATCHES)
def test_root_alignment_takes_away_the_place_of_the_root(batch):
    joints_m = _poses_m(*batch)
    shifted = joints_m + _similarity(*batch).translation_m[..., None, :]
    torch.testing.assert_close(root_relative(shifted, H36M17), root_relative(joints_m, H36M17))
    assert (root_relative(joints_m, H36M17)[..., H36M17.index("pelvis"), :] == 0).all()
    hips = root_relative(joints_m, COCO17, "left_hip", "right_hip")[..., COCO17.indices("left_hip", "right_hip"), :]
    torch.testing.assert_close(hips.mean(-2), torch.zeros(*batch, 3, dtype=DOUBLE))
    with pytest.raises(ValueError, match="no joint 'pelvis'"):
        root_relative(joints_m, COCO17)


def _cube() -> tuple[torch.Tensor, torch.Tensor]:
    corners = torch.tensor([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=DOUBLE)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return corners, torch.tensor([triangle for a, b, c, d in quads for triangle in ((a, b, c), (a, c, d))])


@pytest.mark.parametrize("batch", BATCHES)
def test_vertex_areas_add_up_to_the_surface_whatever_the_rotation(batch):
    corners, faces = _cube()
    areas = metrics.vertex_areas((_similarity(*batch).rotation @ corners.T).mT, faces)
    assert areas.shape == (*batch, 8)
    torch.testing.assert_close(areas.sum(-1), torch.full(batch, 6.0, dtype=DOUBLE))
    torch.testing.assert_close(metrics.vertex_areas(2 * corners, faces), 4 * metrics.vertex_areas(corners, faces))
    one = metrics.vertex_areas(corners, faces[:1])
    torch.testing.assert_close(one, torch.tensor([1, 1, 0, 1, 0, 0, 0, 0], dtype=DOUBLE) / 6)


def test_area_weights_forgive_dense_vertices():
    corners, faces = _cube()
    predicted = corners.clone()
    predicted[0, 0] += 0.01
    areas = metrics.vertex_areas(corners, faces)
    assert metrics.pve_mm(predicted, corners).item() == pytest.approx(10 / 8)
    assert metrics.pve_area_mm(predicted, corners, areas).item() == pytest.approx(10 * areas[0].item() / 6)
    torch.testing.assert_close(
        metrics.pve_area_mm(predicted, corners, torch.ones(8, dtype=DOUBLE)), metrics.pve_mm(predicted, corners)
    )


@pytest.mark.parametrize("batch", BATCHES)
def test_pck_is_a_share_that_grows_with_its_threshold(batch):
    distance_mm = metrics.joint_error_mm(*_pair_m(*batch))
    shares = metrics.pck(distance_mm, (0.0, 300.0, 600.0, 1e9))
    assert shares.shape == (*batch, 4)
    assert (shares.diff(dim=-1) >= 0).all()
    assert (shares[..., -1] == 1).all()
    torch.testing.assert_close(shares[..., 1], (distance_mm <= 300).double().mean(-1))


def test_pck_counts_joints():
    distance_mm = torch.tensor([10.0, 149.0, 150.0, 151.0])
    mask = torch.tensor([True, False, True, True])
    torch.testing.assert_close(metrics.pck(distance_mm, (150.0,)), torch.tensor([0.75]))
    torch.testing.assert_close(metrics.pck(distance_mm, (150.0,), mask), torch.tensor([2 / 3]))
    distance_mm[1] = torch.nan
    assert metrics.pck(distance_mm, (150.0,)).isnan().all()
    torch.testing.assert_close(metrics.pck(distance_mm, (150.0,), mask), torch.tensor([2 / 3]))


def test_auc_is_the_mean_of_the_curve():
    thresholds = metrics.MPI_INF_THRESHOLDS_MM
    assert (thresholds[0], thresholds[-1], len(thresholds)) == (0.0, 150.0, 31)
    distance_mm = torch.tensor([[0.0, 0.0], [75.0, 75.0], [151.0, 1e9]], dtype=DOUBLE)
    expected = torch.tensor([1.0, 16 / 31, 0.0], dtype=DOUBLE)
    torch.testing.assert_close(metrics.auc(distance_mm, thresholds), expected)


def test_pck_in_the_image_is_relative_to_the_person():
    true_px = torch.zeros(2, 4, 2)
    predicted_px = torch.tensor([[3.0, 4.0], [6.0, 8.0], [0.0, 11.0], [0.0, 0.0]]).expand(2, 4, 2)
    shares = metrics.pck_2d(predicted_px, true_px, torch.tensor([20.0, 10.0]), (0.5,))
    torch.testing.assert_close(shares, torch.tensor([[0.75], [0.5]]))


@pytest.mark.parametrize("batch", BATCHES)
def test_falling_joints_accelerate_by_gravity(batch):
    fps, gravity = 50.0, 9.81
    time_s = torch.arange(6, dtype=DOUBLE) / fps
    fall_m = torch.zeros(*batch, 6, 17, 3, dtype=DOUBLE)
    fall_m[..., 1] = (gravity * time_s**2 / 2 + 3 * time_s)[:, None]
    pose_m = _poses_m(*batch)[..., None, :, :]
    found = metrics.acceleration_mm_per_s2(pose_m + fall_m, fps)
    torch.testing.assert_close(found, torch.full((*batch, 4, 17), 9810.0, dtype=DOUBLE))
    still = pose_m.expand_as(fall_m)
    error = metrics.acceleration_error_mm_per_s2(pose_m + fall_m, still, fps)
    torch.testing.assert_close(error, torch.full(batch, 9810.0, dtype=DOUBLE))


def test_acceleration_needs_three_frames_and_a_frame_rate():
    with pytest.raises(ValueError, match="three frames, the joints have 2"):
        metrics.acceleration_mm_per_s2(torch.zeros(2, 17, 3), 50.0)
    with pytest.raises(ValueError, match="fps must be positive, it is 0"):
        metrics.acceleration_mm_per_s2(torch.zeros(3, 17, 3), 0.0)


def test_all_metrics_are_finite_on_many_random_pairs():
    predicted_m, true_m = _pair_m(5000)
    error_mm = pa_mpjpe_mm(predicted_m, true_m)
    assert error_mm.isfinite().all() and math.isclose(error_mm.mean(), _reference_mm(predicted_m, true_m).mean())
