"""The rasteriser against rays, its laws at shared edges, depths and batches; and the pictures made of it."""

import math
import subprocess
import sys

import numpy as np
import pytest
import roma
import torch
import trimesh

from meshrec import render, shading
from meshrec.camera import centered_camera, project
from meshrec.rasterize import BACKGROUND, NEAR_M, rasterize
from meshrec.types import Camera

BATCHES = [(), (1,), (3,), (2, 3)]


def wide_camera() -> Camera:
    """Not square, and its centre is not the image's."""
    return Camera(torch.tensor(61.0), torch.tensor([37.3, 20.8]), 70, 45, "given")


def ball(center_m=(0.0, 0.0, 2.0), radius_m=0.6, subdivisions=2):
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius_m)
    return torch.tensor(mesh.vertices).float() + torch.tensor(center_m), torch.tensor(mesh.faces)


def bent_ball(seed=0):
    """A lump with folds: faces hide each other."""
    vertices, faces = ball((0.0, 0.0, 0.0), 0.5)
    generator = torch.Generator().manual_seed(seed)
    lump = vertices * (1 + 0.45 * torch.sin(9 * vertices + 3 * torch.rand(3, generator=generator)))
    return lump + torch.tensor([0.05, -0.1, 1.6]), faces


def rectangle(x0, y0, x1, y1, z, camera):
    """Two triangles facing the camera, its corners at the given pixels."""
    xy = torch.tensor([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    points = torch.cat([(xy - camera.center_px) / camera.focal_px, torch.ones(4, 1)], dim=-1) * z
    return points, torch.tensor([[0, 2, 1], [0, 3, 2]])


def nearest_by_rays(vertices, faces, camera):
    """Face, barycentrics and depth of each pixel: every ray against every front-facing triangle, in float64."""
    corners = vertices.double()[faces]
    x = (torch.arange(camera.width_px) + 0.5 - camera.center_px[0]) / camera.focal_px
    y = (torch.arange(camera.height_px) + 0.5 - camera.center_px[1]) / camera.focal_px
    rays = torch.stack([*torch.meshgrid(x, y, indexing="xy"), torch.ones(len(y), len(x))], dim=-1).double()
    weights = torch.einsum("hwc,fkc->hwfk", rays, torch.linalg.inv(corners).mT)
    depth = 1 / weights.sum(-1)
    front = torch.linalg.det(corners) < 0
    hit = (weights >= 0).all(-1) & front & (depth >= NEAR_M)
    depth = torch.where(hit, depth, torch.inf)
    nearest, face = depth.min(-1)
    shares = weights / weights.sum(-1, keepdim=True)
    chosen = shares.gather(2, face[..., None, None].expand(*face.shape, 1, 3))[:, :, 0]
    return torch.where(nearest.isfinite(), face, BACKGROUND), chosen, nearest


@pytest.mark.parametrize("shape", [ball(), bent_ball(0), bent_ball(1), ball((0.3, 0.2, 0.55))])
def test_every_pixel_sees_what_its_ray_meets(shape):
    vertices, faces = shape
    camera = wide_camera()
    fragments = rasterize(vertices, faces, camera)
    face, shares, depth = nearest_by_rays(vertices, faces, camera)
    assert torch.equal(fragments.face.long(), face)
    seen = face != BACKGROUND
    assert 200 < seen.sum() < seen.numel()
    torch.testing.assert_close(fragments.barycentric[seen].double(), shares[seen], atol=1e-5, rtol=0)
    torch.testing.assert_close(fragments.depth_m.double(), depth, atol=1e-6, rtol=1e-6)
    assert (fragments.barycentric[~seen] == 0).all()


def test_the_fragment_projects_to_its_pixel_s_centre():
    vertices, faces = bent_ball()
    camera = wide_camera()
    fragments = rasterize(vertices, faces, camera)
    seen = fragments.face != BACKGROUND
    points = shading.interpolate(vertices, faces, fragments)[seen]
    rows, columns = seen.nonzero().T
    centres = torch.stack([columns, rows], dim=-1) + 0.5
    torch.testing.assert_close(project(points, camera), centres, atol=1e-3, rtol=0)
    torch.testing.assert_close(points[:, 2], fragments.depth_m[seen], atol=1e-5, rtol=0)


def test_a_triangle_through_the_near_plane_is_cut_there_and_nowhere_else():
    """A floor from behind the camera to the far distance: every ray below the horizon meets it."""
    floor = torch.tensor([[-9.0, 0.5, -4.0], [9.0, 0.5, -4.0], [9.0, 0.5, 50.0], [-9.0, 0.5, 50.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    camera = wide_camera()
    fragments = rasterize(floor, faces, camera)
    face, _, depth = nearest_by_rays(floor, faces, camera)
    assert torch.equal(fragments.face != BACKGROUND, face != BACKGROUND)
    assert (face[-1] != BACKGROUND).all()
    torch.testing.assert_close(fragments.depth_m.double(), depth, atol=0, rtol=1e-5)


def test_what_lies_behind_the_camera_or_nearer_than_the_near_plane_is_not_drawn():
    vertices, faces = ball((0.0, 0.0, -2.0))
    assert (rasterize(vertices, faces, wide_camera()).face == BACKGROUND).all()
    points, faces = rectangle(0.0, 0.0, 70.0, 45.0, 0.9 * NEAR_M, wide_camera())
    assert (rasterize(points, faces, wide_camera()).face == BACKGROUND).all()


def test_a_ball_around_the_camera_is_not_seen_from_inside():
    vertices, faces = ball((0.0, 0.0, 0.0), 1.0)
    assert (rasterize(vertices, faces, wide_camera()).face == BACKGROUND).all()
    assert (rasterize(vertices, faces.flip(-1), wide_camera()).face != BACKGROUND).all()


def test_vertices_that_are_not_numbers_draw_nothing():
    vertices, faces = ball()
    broken = torch.full_like(vertices, torch.nan)
    assert (rasterize(broken, faces, wide_camera()).face == BACKGROUND).all()


@pytest.mark.parametrize("corner", [(10.0, 7.0, 31.0, 22.0), (10.5, 7.5, 31.5, 22.5), (9.75, 6.25, 30.25, 23.5)])
def test_edges_follow_the_top_left_rule(corner):
    """Pixel centres on a left or top edge belong to the rectangle, on a right or bottom one they do not."""
    camera = Camera(torch.tensor(64.0), torch.tensor([32.0, 16.0]), 64, 32, "given")
    x0, y0, x1, y1 = corner
    mask = rasterize(*rectangle(*corner, 2.0, camera), camera).face != BACKGROUND
    expected = torch.zeros_like(mask)
    expected[math.ceil(y0 - 0.5) : math.ceil(y1 - 0.5), math.ceil(x0 - 0.5) : math.ceil(x1 - 0.5)] = True
    assert torch.equal(mask, expected)


@pytest.mark.parametrize("depth_m", [0.2, 3.0, 100.0])
def test_triangles_of_one_surface_leave_no_hole_and_cover_nothing_twice(depth_m):
    """A jittered grid whose vertices lie on pixel centres and anywhere: each pixel in exactly one triangle."""
    camera = Camera(torch.tensor(256.0), torch.tensor([16.0, 16.0]), 32, 32, "given")
    n = 17
    generator = torch.Generator().manual_seed(0)
    grid = torch.stack(torch.meshgrid(torch.arange(n), torch.arange(n), indexing="xy"), dim=-1) * 2.0 - 0.5
    grid[1:-1, 1:-1] += torch.randint(-2, 3, (n - 2, n - 2, 2), generator=generator) / 4
    xy = grid.reshape(-1, 2)
    points = torch.cat([(xy - camera.center_px) / camera.focal_px, torch.ones(n * n, 1)], dim=-1) * depth_m
    i = (torch.arange(n - 1)[:, None] * n + torch.arange(n - 1)).flatten()
    faces = torch.cat([torch.stack([i, i + n + 1, i + 1], -1), torch.stack([i, i + n, i + n + 1], -1)])
    inside = rasterize(points, faces, camera).face[:-1, :-1] != BACKGROUND
    assert inside.all()
    count = sum((rasterize(points, face[None], camera).face != BACKGROUND).int() for face in faces)
    assert (count[:-1, :-1] == 1).all()


@pytest.mark.parametrize("depth_m", [0.2, 1.0, 10.0, 100.0])
def test_the_nearer_of_two_close_surfaces_wins_whatever_their_order(depth_m):
    camera = wide_camera()
    near, faces = rectangle(5.0, 5.0, 60.0, 40.0, depth_m, camera)
    far, _ = rectangle(5.0, 5.0, 60.0, 40.0, depth_m * (1 + 1e-6), camera)
    for scene, first in (((near, far), True), ((far, near), False)):
        fragments = rasterize(*render.merge(scene, faces), camera)
        seen = fragments.face != BACKGROUND
        assert ((fragments.face[seen] < 2) == first).all()
        torch.testing.assert_close(fragments.depth_m[seen], torch.full((int(seen.sum()),), depth_m), rtol=2e-7, atol=0)


def test_a_tie_goes_to_the_first_face():
    points, faces = rectangle(5.0, 5.0, 60.0, 40.0, 2.0, wide_camera())
    face = rasterize(points, torch.cat([faces, faces]), wide_camera()).face
    assert torch.equal(face, rasterize(points, faces, wide_camera()).face)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("cameras", ["one", "each"])
def test_a_batch_is_its_bodies_one_by_one(batch, cameras):
    generator = torch.Generator().manual_seed(1)
    vertices, faces = bent_ball()
    bodies = vertices + 0.1 * torch.randn(*batch, 1, 3, generator=generator)
    one = wide_camera()
    each = Camera(60 + 5 * torch.rand(batch, generator=generator), one.center_px.expand(*batch, 2), 70, 45, "given")
    camera = one if cameras == "one" else each
    fragments = rasterize(bodies.double(), faces, camera)
    colors = torch.rand(len(vertices), 3, generator=generator)
    rgba = shading.shade(fragments, bodies, faces, camera, colors)
    assert fragments.face.shape == (*batch, 45, 70) and rgba.shape == (*batch, 45, 70, 4)
    for index in np.ndindex(batch):
        alone = one if cameras == "one" else each[index]
        single = rasterize(bodies[index], faces, alone)
        assert torch.equal(fragments.face[index], single.face)
        assert torch.equal(fragments.depth_m[index], single.depth_m)
        assert torch.equal(rgba[index], shading.shade(single, bodies[index], faces, alone, colors))


def test_normals_of_a_ball_point_away_from_its_centre():
    vertices, faces = ball(subdivisions=4)
    centre = torch.tensor([0.0, 0.0, 2.0])
    torch.testing.assert_close(shading.vertex_normals(vertices, faces), (vertices - centre) / 0.6, atol=8e-3, rtol=0)
    fragments = rasterize(vertices, faces, wide_camera())
    normals = shading.normals(fragments, vertices, faces)
    seen = fragments.face != BACKGROUND
    points = shading.interpolate(vertices, faces, fragments)
    torch.testing.assert_close(normals[seen], (points[seen] - centre) / 0.6, atol=1e-2, rtol=0)
    assert (normals[~seen] == 0).all() and (normals[seen][:, 2] < 0.1).all()


def test_turning_body_and_normals_is_the_same():
    vertices, faces = bent_ball()
    R = roma.rotvec_to_rotmat(torch.tensor([0.3, -1.1, 0.7]))
    turned = shading.vertex_normals(vertices @ R.T, faces)
    torch.testing.assert_close(turned, shading.vertex_normals(vertices, faces) @ R.T, atol=1e-5, rtol=0)


def test_labels_are_those_of_the_nearest_vertex_and_of_the_face():
    vertices, faces = ball()
    fragments = rasterize(vertices, faces, wide_camera())
    seen = fragments.face != BACKGROUND
    labels = torch.arange(len(vertices))
    by_vertex = shading.vertex_labels(fragments, faces, labels)
    assert (by_vertex[~seen] == BACKGROUND).all()
    onehot = shading.interpolate(torch.eye(len(vertices)), faces, fragments)
    assert torch.equal(by_vertex[seen], onehot[seen].argmax(-1))
    by_face = shading.face_labels(fragments, 7 * torch.arange(len(faces)))
    assert torch.equal(by_face[seen], 7 * fragments.face[seen].long()) and (by_face[~seen] == BACKGROUND).all()


def test_supersampling_is_the_mean_of_the_fine_picture():
    vertices, faces = ball()
    camera, colors = wide_camera(), torch.full((len(vertices), 3), 0.7)
    fine = render.render_rgba(vertices, faces, render.supersampled(camera, 2), colors, samples=1)
    mean = fine.unflatten(0, (45, 2)).unflatten(2, (70, 2)).mean((1, 3))
    torch.testing.assert_close(render.render_rgba(vertices, faces, camera, colors), mean, atol=1e-6, rtol=0)
    assert set(fine[..., 3].unique().tolist()) == {0.0, 1.0}


def test_a_window_is_cut_out_of_the_whole_picture():
    vertices, faces = bent_ball()
    camera, window = wide_camera(), render.Window(20, 11, 51, 33)
    colors = torch.rand(len(vertices), 3, generator=torch.Generator().manual_seed(3))
    whole = render.render_rgba(vertices, faces, camera, colors)
    part = render.render_rgba(vertices, faces, render.windowed(camera, window), colors)
    torch.testing.assert_close(part, whole[11:33, 20:51], atol=2e-5, rtol=0)


def test_light_comes_from_the_upper_left():
    vertices, faces = ball(subdivisions=4)
    camera = centered_camera(60, 60, 70.0, "given")
    rgba = render.render_rgba(vertices, faces, camera, torch.full_like(vertices, 0.8))
    brightness = rgba[..., :3].sum(-1)
    assert brightness[20, 20] > brightness[20, 40] > brightness[40, 40]
    assert brightness[20, 30] > brightness[40, 30]
    assert rgba.min() >= 0 and rgba.max() <= 1


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)


def test_an_overlay_changes_only_what_the_bodies_cover(photo):
    vertices, faces = ball()
    kept = photo.copy()
    drawn = render.overlay(photo, [vertices], faces, wide_camera())
    alpha = render.render_rgba(vertices, faces, wide_camera(), torch.zeros_like(vertices))[..., 3].numpy()
    assert np.array_equal(photo, kept)
    assert np.array_equal(drawn[alpha == 0], photo[alpha == 0])
    assert (drawn[alpha == 1] != photo[alpha == 1]).mean() > 0.9
    assert np.array_equal(render.overlay(photo, [vertices], faces, wide_camera(), opacity=0.0), photo)
    assert np.array_equal(render.overlay(photo, [], faces, wide_camera()), photo)


def test_the_nearer_person_hides_the_other_in_any_order(photo):
    near, faces = ball((0.0, 0.0, 1.5), 0.3)
    far = ball((0.1, 0.0, 3.0), 0.8)[0]
    red, blue = (0.9, 0.1, 0.1), (0.1, 0.1, 0.9)
    first = render.overlay(photo, [near, far], faces, wide_camera(), [red, blue])
    second = render.overlay(photo, [far, near], faces, wide_camera(), [blue, red])
    assert np.array_equal(first, second)
    x, y = project(near.mean(0, keepdim=True), wide_camera())[0].int().tolist()
    assert first[y, x, 0] > 2 * first[y, x, 2]


def test_unseen_parts_are_drawn_in_grey(photo):
    vertices, faces = ball()
    seen = vertices[:, 1] < 0
    orange = (0.9, 0.5, 0.1)
    drawn = render.overlay(photo, [vertices], faces, wide_camera(), [orange], 1.0, [seen]).astype(int)
    above, below = drawn[12, 37], drawn[30, 37]
    assert above[0] - above[2] > 60 and abs(below[0] - below[2]) < 25


def test_tiles_meet_without_a_seam(photo, monkeypatch):
    bodies, faces = [bent_ball()[0], ball((0.5, 0.2, 2.5))[0]], ball()[1]
    whole = render.overlay(photo, bodies, faces, wide_camera())
    monkeypatch.setattr(render, "TILE_PX", 16)
    assert np.abs(render.overlay(photo, bodies, faces, wide_camera()).astype(int) - whole).max() <= 1


def test_a_body_out_of_the_image_changes_nothing_and_one_at_the_camera_does(photo):
    far_left, faces = ball((-9.0, 0.0, 2.0))
    assert np.array_equal(render.overlay(photo, [far_left], faces, wide_camera()), photo)
    around = ball((0.0, 0.9, 0.3), 0.8)[0]
    assert (render.overlay(photo, [around], faces, wide_camera()) != photo).any()


def test_callers_mistakes_are_named(photo):
    vertices, faces = ball()
    with pytest.raises(ValueError, match="the camera's image"):
        render.overlay(photo[:-1], [vertices], faces, wide_camera())
    with pytest.raises(ValueError, match="not finite"):
        render.overlay(photo, [vertices * torch.nan], faces, wide_camera())


@pytest.mark.parametrize("index", [-1, 162, 2**31])
def test_faces_that_name_no_vertex_are_named(index):
    vertices, faces = ball()
    broken, fragments = faces.clone(), rasterize(vertices, faces, wide_camera())
    broken[7, 1] = index
    for draw in (
        lambda: rasterize(vertices, broken, wide_camera()),
        lambda: shading.vertex_normals(vertices, broken),
        lambda: shading.interpolate(vertices, broken, fragments),
        lambda: shading.shade(fragments, vertices, broken, wide_camera(), torch.zeros_like(vertices)),
    ):
        with pytest.raises(ValueError, match=f"name vertices .*{index}.* mesh has 162"):
            draw()
    assert (rasterize(vertices, faces[:0], wide_camera()).face == BACKGROUND).all()


def test_fragments_of_another_mesh_are_refused():
    vertices, faces = ball()
    fragments = rasterize(vertices, faces, wide_camera())
    for draw in (
        lambda: shading.interpolate(vertices, faces[:9], fragments),
        lambda: shading.shade(fragments, vertices, faces[:9], wide_camera(), torch.zeros_like(vertices)),
    ):
        with pytest.raises(ValueError, match=r"fragments name face .* mesh has 9"):
            draw()


def test_attributes_are_spread_over_the_fragments_batch():
    vertices, faces = ball()
    bodies = torch.stack([vertices, vertices + torch.tensor([0.2, 0.1, 0.3])])
    camera, attributes = wide_camera(), torch.rand(len(vertices), 4, generator=torch.Generator().manual_seed(2))
    fragments = rasterize(bodies, faces, camera)
    both = shading.interpolate(attributes, faces, fragments)
    assert both.shape == (2, 45, 70, 4)
    for index in range(2):
        assert torch.equal(both[index], shading.interpolate(attributes, faces, fragments[index]))
        assert torch.equal(
            shading.interpolate(bodies, faces, fragments[0])[index],
            shading.interpolate(bodies[index], faces, fragments[0]),
        )
    for draw in (
        lambda: shading.interpolate(attributes.expand(3, -1, -1), faces, fragments),
        lambda: shading.shade(fragments, vertices.expand(3, -1, -1), faces, camera, vertices),
    ):
        with pytest.raises(ValueError, match=r"\(3,\) .* fragments of \(2,\)"):
            draw()


def test_a_turn_is_about_the_vertical_through_the_middle():
    vertices, _ = bent_ball()
    middle = (vertices.amin(0) + vertices.amax(0)) / 2
    torch.testing.assert_close(render.turn(vertices, 0.0), vertices - middle)
    facing_camera = torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [0.0, 1.0, 0.0]])
    turned = render.turn(facing_camera, math.pi / 2)
    torch.testing.assert_close(turned[0], torch.tensor([-1.0, 0.0, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(turned[2:], facing_camera[2:], atol=1e-6, rtol=0)


def test_side_view_and_sheet():
    vertices, faces = ball()
    vertices = vertices * torch.tensor([0.2, 1.0, 0.6])
    studio = render.Studio(width_px=60, height_px=80)
    front, side = render.studio_view(vertices, faces, studio=studio), render.side_view(vertices, faces, studio=studio)
    assert front.shape == side.shape == (80, 60, 3)
    assert (side[40] < 200).any(-1).sum() > 2 * (front[40] < 200).any(-1).sum()
    assert front[0].min() > 235
    sheet = render.body_sheet([vertices, 0.5 * vertices], faces, [0.0, 1.0, 2.0], studio)
    assert sheet.shape == (160, 180, 3)
    assert (sheet[80:] < 200).any(-1).sum() < 0.5 * (sheet[:80] < 200).any(-1).sum()


def test_the_rasteriser_starts_in_silence():
    story = (
        "import torch; from meshrec.rasterize import rasterize; from meshrec.camera import centered_camera;"
        "rasterize(torch.eye(3), torch.tensor([[0, 1, 2]]), centered_camera(8, 8, 8.0, 'given'))"
    )
    done = subprocess.run([sys.executable, "-c", story], capture_output=True, text=True, check=True)
    assert done.stdout == "" and done.stderr == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_sees_what_the_processor_sees():
    vertices, faces = bent_ball()
    here = rasterize(vertices, faces, wide_camera())
    there = rasterize(vertices.cuda(), faces.cuda(), wide_camera())
    assert torch.equal(there.face.cpu(), here.face)
    torch.testing.assert_close(there.depth_m.cpu(), here.depth_m)
    labels, colors = torch.arange(len(vertices)), torch.rand(len(vertices), 3)
    for see in (
        lambda fragments: shading.vertex_labels(fragments, faces, labels),
        lambda fragments: shading.face_labels(fragments, torch.arange(len(faces))),
        lambda fragments: shading.interpolate(vertices, faces, fragments),
        lambda fragments: shading.normals(fragments, vertices, faces),
        lambda fragments: shading.shade(fragments, vertices, faces, wide_camera(), colors),
    ):
        assert see(there).is_cuda
        torch.testing.assert_close(see(there).cpu(), see(here), atol=1e-4, rtol=0)
