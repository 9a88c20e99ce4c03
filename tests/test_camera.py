"""The pinhole: round trips, scaling laws, directions and the pixel convention."""

import math

import pytest
import torch

from meshrec.camera import (
    assumed_focal_px,
    camera_from_body_axes,
    centered_camera,
    project,
    sight_rotation,
    unproject,
)
from meshrec.types import Camera

BATCHES = [(), (1,), (3,), (2, 3)]


def _camera(*batch: int) -> Camera:
    generator = torch.Generator().manual_seed(0)
    focal_px = 500 + 1000 * torch.rand(batch, generator=generator, dtype=torch.float64)
    center_px = 200 + 100 * torch.rand(*batch, 2, generator=generator, dtype=torch.float64)
    return Camera(focal_px, center_px, 640, 480, "given")


def _points_m(*batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(*batch, 7, 3, generator=generator, dtype=torch.float64)
    points[..., 2] = 2 + points[..., 2].abs()
    return points


@pytest.mark.parametrize("batch", BATCHES)
def test_unproject_undoes_project(batch):
    points_m, camera = _points_m(*batch), _camera(*batch)
    pixels = project(points_m, camera)
    assert pixels.shape == (*batch, 7, 2)
    torch.testing.assert_close(unproject(pixels, points_m[..., 2], camera), points_m)


@pytest.mark.parametrize("batch", BATCHES)
def test_each_person_is_seen_by_the_own_camera(batch):
    points_m, camera = _points_m(*batch), _camera(*batch)
    flat, cameras = points_m.reshape(-1, 7, 3), camera.map(lambda t: t.reshape(-1, *t.shape[len(batch) :]))
    pixels = project(points_m, camera).reshape(-1, 7, 2)
    for person in range(len(flat)):
        torch.testing.assert_close(project(flat[person], cameras[person]), pixels[person])


def test_one_camera_serves_a_batch():
    points_m, camera = _points_m(2, 3), _camera()
    torch.testing.assert_close(project(points_m, camera)[1, 2], project(points_m[1, 2], camera))


def test_points_along_a_line_of_sight_have_one_pixel():
    points_m, camera = _points_m(3), _camera(3)
    torch.testing.assert_close(project(2.5 * points_m, camera), project(points_m, camera))


def test_twice_the_focal_length_is_twice_as_far_from_the_centre():
    points_m, camera = _points_m(3), _camera(3)
    center_px = camera.center_px[:, None]
    longer = Camera(2 * camera.focal_px, camera.center_px, 640, 480, "given")
    torch.testing.assert_close(project(points_m, longer) - center_px, 2 * (project(points_m, camera) - center_px))


def test_a_resized_image_has_a_resized_camera():
    points_m, camera = _points_m(3), _camera(3)
    half = Camera(camera.focal_px / 2, camera.center_px / 2, 320, 240, "given")
    torch.testing.assert_close(project(points_m, half), project(points_m, camera) / 2)


def test_x_is_right_y_is_down_and_the_middle_of_the_image_is_half_its_size():
    camera = centered_camera(640, 480, 1000.0, "given")
    points_m = torch.tensor([[0.0, 0.0, 2.0], [0.1, 0.0, 2.0], [0.0, 0.1, 2.0]])
    expected = torch.tensor([[320.0, 240.0], [370.0, 240.0], [320.0, 290.0]])
    torch.testing.assert_close(project(points_m, camera), expected)


def test_the_image_ends_at_its_width_and_the_first_pixel_is_centred_on_a_half():
    camera = centered_camera(4, 4, 2.0, "given")
    corners = unproject(torch.tensor([[0.0, 0.0], [4.0, 4.0], [0.5, 0.5]]), torch.ones(3), camera)
    torch.testing.assert_close(corners[0], torch.tensor([-1.0, -1.0, 1.0]))
    torch.testing.assert_close(corners[1], torch.tensor([1.0, 1.0, 1.0]))
    torch.testing.assert_close(corners[2], torch.tensor([-0.75, -0.75, 1.0]))


def test_the_assumed_focal_length_sees_53_degrees_across_the_diagonal():
    focal_px = assumed_focal_px(640, 480)
    assert focal_px == 800
    assert math.degrees(2 * math.atan(400 / focal_px)) == pytest.approx(53.13, abs=0.01)


def test_body_axes_are_seen_upright_and_from_the_front():
    rotation = camera_from_body_axes(dtype=torch.float64)
    up, front, left = torch.eye(3, dtype=torch.float64)[[1, 2, 0]]
    assert torch.linalg.det(rotation) == 1
    assert torch.equal(rotation @ up, -up), "up in the body is up in the image, where y points down"
    assert torch.equal(rotation @ front, -front), "the body faces the camera, which looks along z"
    assert torch.equal(rotation @ left, left), "the left hand of a person who faces us is on our right"


def test_projection_has_the_gradient_of_finite_differences():
    camera = _camera(3)
    assert torch.autograd.gradcheck(lambda points: project(points, camera), _points_m(3).requires_grad_())


@pytest.mark.parametrize("batch", BATCHES)
def test_the_sight_rotation_takes_the_axis_to_the_ray_and_turns_no_more_than_that(batch):
    camera = _camera(*batch)
    xy_px = camera.center_px + 900 * torch.randn(*batch, 2, generator=torch.Generator().manual_seed(3)).double()
    R = sight_rotation(camera, xy_px)
    assert R.shape == (*batch, 3, 3)
    torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=R.dtype).expand_as(R))
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(batch, dtype=R.dtype))
    torch.testing.assert_close(project(R[..., None, :, 2], camera)[..., 0, :], xy_px)
    assert (R[..., 2, 2] > 0).all()
    turn = torch.acos((R.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2)
    torch.testing.assert_close(turn, torch.acos(R[..., 2, 2]))


def test_along_the_optical_axis_nothing_turns():
    camera = _camera(3)
    assert torch.equal(sight_rotation(camera, camera.center_px), torch.eye(3, dtype=torch.float64).expand(3, 3, 3))


def test_a_point_to_the_right_is_looked_at_by_turning_to_the_right():
    """And what stands along that line of sight is, for the turned camera, on its axis."""
    camera = _camera()
    ahead = unproject(camera.center_px[None] + torch.tensor([[80.0, 0.0]]), torch.ones(1).double(), camera)[0]
    R_camera_sight = sight_rotation(camera, camera.center_px + torch.tensor([80.0, 0.0]))
    assert R_camera_sight[0, 2] > 0 and R_camera_sight[2, 0] < 0
    torch.testing.assert_close(R_camera_sight.T @ ahead, torch.tensor([0.0, 0.0, 1.0]).double() * ahead.norm())


def test_a_body_seen_along_the_line_of_sight_looks_as_from_the_front():
    """Points about a place off the axis, turned by the sight rotation, shift in the picture but keep their shape."""
    camera = Camera(torch.tensor(600.0).double(), torch.tensor([320.0, 240.0]).double(), 640, 480, "given")
    points_m = 0.1 * torch.randn(20, 3, generator=torch.Generator().manual_seed(2)).double()
    xy_px = torch.tensor([560.0, 400.0]).double()
    R = sight_rotation(camera, xy_px)
    far = 50.0
    front = project(points_m + torch.tensor([0.0, 0.0, far]), camera) - camera.center_px
    aside = project(points_m @ R.T + far * R[:, 2], camera) - xy_px
    unturned = project(points_m + far * R[:, 2], camera) - xy_px
    scaled = R[2, 2] * aside
    assert (scaled - front).norm() < 0.2 * front.norm()
    assert (R[2, 2] * unturned - front).norm() > 2 * (scaled - front).norm()
