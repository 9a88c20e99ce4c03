"""The closed-form translation: exactness, equivariance, gradients, and people without an answer."""

import pytest
import torch

from meshrec.camera import project
from meshrec.skeletons import SMPL24
from meshrec.translation import iterated_translation, linear_translation, weak_translation
from meshrec.types import Camera

SOLVERS = [weak_translation, linear_translation, iterated_translation]
EXACT = [linear_translation, iterated_translation]
BATCHES = [(), (1,), (3,), (2, 3)]
FOCAL_PX = 1000.0

REST_M = {
    "pelvis": (0.0, 0.0, 0.0),
    "hip": (0.07, 0.09, 0.0),
    "spine1": (0.0, -0.11, 0.02),
    "knee": (0.03, 0.38, 0.0),
    "spine2": (0.0, -0.13, -0.02),
    "ankle": (-0.01, 0.40, 0.04),
    "spine3": (0.0, -0.05, -0.02),
    "foot": (0.02, 0.06, -0.12),
    "neck": (0.0, -0.21, 0.03),
    "collar": (0.08, -0.11, 0.02),
    "head": (0.0, -0.08, -0.05),
    "shoulder": (0.12, -0.04, 0.02),
    "elbow": (0.25, 0.01, 0.02),
    "wrist": (0.25, -0.01, 0.0),
    "hand": (0.08, 0.0, 0.0),
}
"""Bones of a person facing the camera, in camera axes; those of the right side are mirrored."""


def _camera(dtype: torch.dtype = torch.float64, focal_px: float = FOCAL_PX, center_px=(300.0, 520.0)) -> Camera:
    return Camera(torch.tensor(focal_px, dtype=dtype), torch.tensor(center_px, dtype=dtype), 600, 1000, "given")


def _joints_m(*batch: int, seed: int = 0) -> torch.Tensor:
    """People in random poses and at random yaws, pelvis at the origin."""
    generator = torch.Generator().manual_seed(seed)
    joints = torch.zeros(*batch, len(SMPL24), 3, dtype=torch.float64)
    for child, parent in enumerate(SMPL24.parents):
        if parent < 0:
            continue
        side, _, part = SMPL24.joints[child].partition("_")
        bone = torch.tensor(REST_M[part or side], dtype=torch.float64)
        bone = bone * torch.tensor([-1.0 if side == "right" else 1.0, 1.0, 1.0], dtype=torch.float64)
        swing = 0.4 * bone.norm() * torch.randn(*batch, 3, generator=generator, dtype=torch.float64)
        joints[..., child, :] = joints[..., parent, :] + bone + swing
    yaw = 6.3 * torch.rand(batch, generator=generator, dtype=torch.float64)
    x, y, z = joints.unbind(-1)
    cos, sin = yaw.cos()[..., None], yaw.sin()[..., None]
    return torch.stack([cos * x + sin * z, y, cos * z - sin * x], dim=-1)


def _scene(*batch: int, depth_m: float = 3.0, noise_px: float = 0.0, seed: int = 1):
    """Joints, their pixels, confidences and true translations."""
    generator = torch.Generator().manual_seed(seed)
    joints_m = _joints_m(*batch, seed=seed)
    spread = torch.tensor([0.1 * depth_m, 0.05 * depth_m, 0.0], dtype=torch.float64)
    transl_m = spread * torch.randn(*batch, 3, generator=generator, dtype=torch.float64)
    transl_m[..., 2] = depth_m
    xy_px = project(joints_m + transl_m[..., None, :], _camera())
    xy_px = xy_px + noise_px * torch.randn(xy_px.shape, generator=generator, dtype=torch.float64)
    confidence = 0.2 + 0.8 * torch.rand(joints_m.shape[:-1], generator=generator, dtype=torch.float64)
    return joints_m, xy_px, confidence, transl_m


def _depth_error(solve, depth_m: float, noise_px: float) -> tuple[float, float]:
    """Median |ΔTz| / Tz and median ΔTz / Tz over people, with equal confidences."""
    joints_m, xy_px, confidence, transl_m = _scene(2000, depth_m=depth_m, noise_px=noise_px)
    solved = solve(joints_m, xy_px, torch.ones_like(confidence), _camera())
    error = (solved.transl_m - transl_m)[..., 2] / depth_m
    return error.abs().median().item(), error.median().item()


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("solve", SOLVERS)
def test_a_flat_skeleton_is_placed_exactly_by_every_solver(solve, batch):
    joints_m, _, confidence, transl_m = _scene(*batch)
    joints_m = joints_m * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    xy_px = project(joints_m + transl_m[..., None, :], _camera())
    solved = solve(joints_m, xy_px, confidence, _camera())
    assert solved.ok.all() and solved.ok.shape == batch
    torch.testing.assert_close(solved.transl_m, transl_m, rtol=0, atol=1e-10)


@pytest.mark.parametrize("batch", BATCHES)
def test_linear_is_exact_and_iterated_nearly_so_without_noise(batch):
    joints_m, xy_px, confidence, transl_m = _scene(*batch, depth_m=3.0)
    linear = linear_translation(joints_m, xy_px, confidence, _camera())
    torch.testing.assert_close(linear.transl_m, transl_m, rtol=0, atol=1e-10)
    iterated = iterated_translation(joints_m, xy_px, confidence, _camera())
    torch.testing.assert_close(iterated.transl_m, transl_m, rtol=0, atol=3e-4)


@pytest.mark.parametrize(("depth_m", "worst_m"), [(0.6, 0.05), (1.0, 0.01), (1.2, 0.0012), (3.0, 1e-5)])
def test_what_five_rounds_leave_of_95_people_in_100(depth_m, worst_m):
    joints_m, xy_px, confidence, transl_m = _scene(2000, depth_m=depth_m)
    in_front = (joints_m[..., 2] > 0.1 - depth_m).all(-1)
    solved = iterated_translation(joints_m, xy_px, torch.ones_like(confidence), _camera())
    left_m = (solved.transl_m - transl_m).norm(dim=-1)[in_front & solved.ok]
    assert left_m.quantile(0.95) < worst_m and left_m.median() < 1e-4


def test_close_up_weak_perspective_is_off_by_percents_and_the_others_by_none():
    assert 0.015 < _depth_error(weak_translation, 1.2, 0.0)[0] < 0.09
    assert _depth_error(linear_translation, 1.2, 0.0)[0] < 1e-9
    assert _depth_error(iterated_translation, 1.2, 0.0)[0] < 1e-3


def test_at_three_metres_two_pixels_of_noise_cost_a_few_per_mille():
    weak, linear, iterated = (_depth_error(solve, 3.0, 2.0)[0] for solve in SOLVERS)
    assert weak > 2 * iterated and iterated < 5e-3 and abs(linear - iterated) < 1e-3


def test_far_away_the_linear_solution_is_drawn_to_the_camera():
    _, bias = _depth_error(linear_translation, 30.0, 6.0)
    assert bias < -0.12
    for solve in (weak_translation, iterated_translation):
        error, bias = _depth_error(solve, 30.0, 6.0)
        assert error < 0.09 and abs(bias) < 0.02


@pytest.mark.parametrize("solve", SOLVERS)
def test_focal_length_and_pixels_scale_together(solve):
    joints_m, xy_px, confidence, _ = _scene(3, noise_px=3.0)
    camera = _camera()
    larger = Camera(2 * camera.focal_px, 2 * camera.center_px, 1200, 2000, "given")
    once, twice = (solve(joints_m, xy, confidence, c) for xy, c in ((xy_px, camera), (2 * xy_px, larger)))
    torch.testing.assert_close(once.transl_m, twice.transl_m)


@pytest.mark.parametrize("solve", SOLVERS)
def test_the_image_may_be_shifted_with_its_principal_point(solve):
    joints_m, xy_px, confidence, _ = _scene(3, noise_px=3.0)
    shift_px = torch.tensor([40.0, -70.0], dtype=torch.float64)
    shifted = Camera(_camera().focal_px, _camera().center_px + shift_px, 600, 1000, "given")
    here = solve(joints_m, xy_px, confidence, _camera()).transl_m
    torch.testing.assert_close(solve(joints_m, xy_px + shift_px, confidence, shifted).transl_m, here)


@pytest.mark.parametrize("solve", SOLVERS)
def test_turning_the_camera_about_its_axis_turns_the_translation(solve):
    joints_m, xy_px, confidence, _ = _scene(3, noise_px=3.0)
    angle = torch.tensor(0.7, dtype=torch.float64)
    turn = torch.eye(3, dtype=torch.float64)
    turn[:2, :2] = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    center_px = _camera().center_px
    turned_px = (xy_px - center_px) @ turn[:2, :2].T + center_px
    turned = solve(joints_m @ turn.T, turned_px, confidence, _camera()).transl_m
    torch.testing.assert_close(turned, solve(joints_m, xy_px, confidence, _camera()).transl_m @ turn.T)


@pytest.mark.parametrize("solve", SOLVERS)
def test_moving_the_joints_moves_the_translation_back(solve):
    joints_m, xy_px, confidence, _ = _scene(3, noise_px=3.0)
    shift_m = torch.tensor([0.3, -2.0, 1.5], dtype=torch.float64)
    moved = solve(joints_m + shift_m, xy_px, confidence, _camera()).transl_m
    torch.testing.assert_close(moved + shift_m, solve(joints_m, xy_px, confidence, _camera()).transl_m)


@pytest.mark.parametrize("solve", SOLVERS)
def test_a_larger_person_stands_farther_away_in_proportion(solve):
    joints_m, xy_px, confidence, _ = _scene(3, noise_px=3.0)
    larger = solve(1.3 * joints_m, xy_px, confidence, _camera()).transl_m
    torch.testing.assert_close(larger, 1.3 * solve(joints_m, xy_px, confidence, _camera()).transl_m)


@pytest.mark.parametrize("solve", SOLVERS)
def test_confidence_is_a_relative_weight_and_none_means_unseen(solve):
    joints_m, xy_px, confidence, _ = _scene(3, noise_px=3.0)
    confidence[..., SMPL24.indices("left_knee", "right_wrist")] = 0.0
    wild_px, wild_m = xy_px.clone(), joints_m.clone()
    wild_px[..., SMPL24.index("left_knee"), :] = torch.nan
    wild_m[..., SMPL24.index("right_wrist"), :] = 1e3
    here = solve(joints_m, xy_px, confidence, _camera()).transl_m
    torch.testing.assert_close(solve(wild_m, wild_px, 0.01 * confidence, _camera()).transl_m, here)


@pytest.mark.parametrize("solve", SOLVERS)
def test_each_person_may_have_a_camera(solve):
    joints_m, xy_px, confidence, _ = _scene(3, noise_px=3.0)
    camera = Camera(
        torch.tensor([800.0, 1000.0, 1500.0], dtype=torch.float64),
        torch.tensor([[300.0, 500.0], [310.0, 520.0], [280.0, 490.0]], dtype=torch.float64),
        600,
        1000,
        "given",
    )
    together = solve(joints_m, xy_px, confidence, camera)
    for person in range(3):
        alone = solve(joints_m[person], xy_px[person], confidence[person], camera[person])
        torch.testing.assert_close(together.transl_m[person], alone.transl_m)


@pytest.mark.parametrize("solve", SOLVERS)
def test_gradients_are_those_of_finite_differences(solve):
    joints_m, xy_px, confidence, _ = _scene(2, noise_px=3.0)
    inputs = [tensor.requires_grad_() for tensor in (joints_m, xy_px, confidence)]
    assert torch.autograd.gradcheck(lambda *args: solve(*args, _camera()).transl_m, inputs, atol=1e-6)


@pytest.mark.parametrize("solve", SOLVERS)
def test_float32_is_kept_and_is_enough(solve):
    joints_m, xy_px, confidence, _ = _scene(50, depth_m=8.0, noise_px=2.0)
    double = solve(joints_m, xy_px, confidence, _camera()).transl_m
    single = solve(joints_m.float(), xy_px.float(), confidence.float(), _camera(torch.float32)).transl_m
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)


def _people_without_an_answer():
    """Nobody seen, one joint seen, a skeleton on a point, pixels on a point, upside down, and all NaN."""
    joints_m, xy_px, confidence, _ = _scene(6)
    confidence[0] = 0.0
    confidence[1, 1:] = 0.0
    joints_m[2] = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    xy_px[3] = torch.tensor([120.0, 150.0], dtype=torch.float64)
    joints_m[4, :, :2] *= -1
    xy_px[5] = torch.nan
    return joints_m, xy_px, confidence


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solve", SOLVERS)
def test_people_without_an_answer_are_flagged_finite_and_spare_the_others(solve, dtype):
    joints_m, xy_px, confidence, _ = _scene(3)
    bad = [tensor.to(dtype) for tensor in _people_without_an_answer()]
    batch = [torch.cat([b, g.to(dtype)]) for b, g in zip(bad, (joints_m, xy_px, confidence), strict=True)]
    inputs = [tensor.requires_grad_() for tensor in batch]
    solved = solve(*inputs, _camera(dtype))
    assert solved.ok.tolist() == [False] * 6 + [True] * 3
    assert solved.transl_m.isfinite().all()
    assert (solved.transl_m[:6, 2] > -1).all() and (solved.transl_m[:6, 2] < 50).all()
    alone = solve(*(tensor[6:] for tensor in batch), _camera(dtype))
    torch.testing.assert_close(solved.transl_m[6:], alone.transl_m)
    solved.transl_m.sum().backward()
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in inputs)


@pytest.mark.parametrize("solve", SOLVERS)
def test_an_upside_down_guess_stands_in_at_the_depth_of_its_size(solve):
    joints_m, xy_px, confidence, transl_m = _scene(3, depth_m=8.0)
    flipped = joints_m * torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)
    solved = solve(flipped, xy_px, confidence, _camera())
    assert not solved.ok.any()
    torch.testing.assert_close(solved.transl_m[..., 2], transl_m[..., 2], rtol=0.05, atol=0)


@pytest.mark.parametrize("solve", SOLVERS)
def test_a_stand_in_hangs_on_the_line_of_sight_of_what_is_seen(solve):
    joints_m, xy_px, confidence, _ = _scene(3)
    confidence[:, 1:] = 0.0
    solved = solve(joints_m, xy_px, confidence, _camera())
    placed = project(joints_m + solved.transl_m[..., None, :], _camera())
    torch.testing.assert_close(placed[:, 0], xy_px[:, 0])
    torch.testing.assert_close((joints_m[:, 0] + solved.transl_m)[:, 2], torch.full((3,), 5.0, dtype=torch.float64))
