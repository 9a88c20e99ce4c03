"""Proxies: where edges and joints stand, what leaves them alone, and what a mirror makes of them."""

import math

import pytest
import torch
from torch.nn.functional import interpolate

from meshrec.models.proxy import JOINT, edges, heatmaps, mirrored_proxy, outlines, proxy, read_heatmaps
from meshrec.skeletons import COCO17

BATCHES = [(), (1,), (3,), (2, 3)]
SIZE = 64


def pixels_of(*batch, seed=0, size=SIZE):
    """Blotches of colours."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(math.prod(batch), 3, 8, 8, generator=generator)
    smooth = interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    return (255 * smooth).round().clamp(0, 255).to(torch.uint8).reshape(*batch, 3, size, size)


def joints_of(*batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = SIZE * torch.rand(*batch, 17, 2, generator=generator)
    return points, torch.rand(*batch, 17, generator=generator)


@pytest.mark.parametrize("batch", BATCHES)
def test_each_crop_is_looked_at_alone(batch):
    pixels, (points, confidence) = pixels_of(*batch), joints_of(*batch)
    image = proxy(pixels, points, confidence)
    assert image.shape == (*batch, 18, SIZE, SIZE) and image.dtype == torch.float32
    assert image.min() >= 0 and image.max() <= 1
    flat = image.reshape(-1, 18, SIZE, SIZE)
    each = zip(pixels.reshape(-1, 3, SIZE, SIZE), points.reshape(-1, 17, 2), confidence.reshape(-1, 17), strict=True)
    for row, (crop, some, sure) in enumerate(each):
        assert torch.equal(proxy(crop, some, sure), flat[row])
    torch.testing.assert_close(image[..., 0, :, :], edges(pixels))
    torch.testing.assert_close(image[..., 1:, :, :], heatmaps(points, confidence, SIZE))


@pytest.mark.parametrize("batch", BATCHES)
def test_a_joint_s_map_is_highest_at_its_continuous_pixel(batch):
    """The mean place under a map that lies within the crop is the joint itself; the first pixel's middle is 0.5."""
    points, confidence = joints_of(*batch)
    points = 16 + points / 2
    maps = heatmaps(points, confidence, SIZE).double()
    middles = torch.arange(SIZE, dtype=torch.float64) + 0.5
    mass = maps.sum((-2, -1))
    x, y = (maps.sum(-2) * middles).sum(-1) / mass, (maps.sum(-1) * middles).sum(-1) / mass
    torch.testing.assert_close(torch.stack([x, y], dim=-1), points.double(), atol=1e-3, rtol=0)
    variance = (maps.sum(-2) * (middles - x[..., None]).square()).sum(-1) / mass
    torch.testing.assert_close(variance.sqrt(), torch.full_like(variance, JOINT * SIZE), rtol=0.05, atol=0)


def test_a_map_is_as_high_as_the_joint_is_sure():
    points, confidence = torch.full((17, 2), 20.5), torch.linspace(0, 1, 17)
    assert torch.equal(heatmaps(points, confidence, SIZE)[:, 20, 20], confidence)
    unknown = points.index_fill(0, torch.tensor([3]), torch.nan)
    maps = heatmaps(unknown, confidence.index_fill(0, torch.tensor([3]), 0.0), SIZE)
    assert maps.isfinite().all() and (maps[3] == 0).all() and (maps[4] > 0).any()
    assert (heatmaps(points + 1e6, confidence, SIZE) == 0).all()


def test_points_are_read_back_from_their_maps():
    random = torch.Generator().manual_seed(4)
    points, confidence = 8 + 48 * torch.rand(5, 17, 2, generator=random), torch.rand(5, 17, generator=random)
    confidence[0, 3] = 0.0
    read, sure = read_heatmaps(heatmaps(points, confidence, 64))
    torch.testing.assert_close(sure, confidence, atol=1e-4, rtol=0)
    assert not read[0, 3].any(), "an empty map"
    found = confidence > 0
    torch.testing.assert_close(read[found], points[found], atol=1e-3, rtol=0)
    at_border = torch.full_like(points, 0.0)
    read, sure = read_heatmaps(heatmaps(at_border, torch.ones_like(confidence), 64))
    assert (read > 0).all() and (read < 1.5).all() and (sure < 0.5).all()


@pytest.mark.parametrize("batch", BATCHES)
def test_the_mirror_image_s_proxy_is_the_proxy_mirrored(batch):
    pixels, (points, confidence) = pixels_of(*batch), joints_of(*batch)
    mirror = list(COCO17.mirror)
    reflected = torch.stack([SIZE - points[..., 0], points[..., 1]], dim=-1)[..., mirror, :]
    mirrored = proxy(pixels.flip(-1), reflected, confidence[..., mirror])
    torch.testing.assert_close(mirrored, mirrored_proxy(proxy(pixels, points, confidence)), atol=1e-4, rtol=0)
    assert torch.equal(mirrored_proxy(mirrored_proxy(mirrored)), mirrored)


def test_edges_run_down_as_they_run_across():
    pixels = pixels_of(2)
    torch.testing.assert_close(edges(pixels.mT), edges(pixels).mT, atol=1e-4, rtol=0)
    torch.testing.assert_close(edges(pixels.flip(-2)), edges(pixels).flip(-2), atol=1e-4, rtol=0)


def disc(colour=(255, 255, 255), ground=(0, 0, 0), size=160, radius=50):
    """Of one colour before another."""
    middles = torch.arange(size) + 0.5 - size / 2
    inside = (middles[:, None].square() + middles.square()).sqrt() < radius
    return torch.where(inside, *(torch.tensor(one)[:, None, None] for one in (colour, ground))).to(torch.uint8)


@pytest.mark.parametrize("ground", [(0, 0, 0), (90, 90, 90), (255, 0, 0)])
def test_an_outline_is_thin_and_where_the_colour_changes(ground):
    """The last ground is as light as the disc, and of another colour."""
    colour = (0, 130, 0) if ground == (255, 0, 0) else (200, 200, 200)
    found = edges(disc(colour, ground))
    middles = torch.arange(160) + 0.5 - 80
    away = ((middles[:, None].square() + middles.square()).sqrt() - 50).abs()
    assert found[away > 3].max() < 0.05
    assert (found > 0.5).sum() < 2.2 * 2 * math.pi * 50 and (found > 0.5).sum() > 0.9 * 2 * math.pi * 50
    assert found[away < 0.5].mean() > 0.7


def test_a_crop_s_own_contrast_is_what_counts():
    strong, weak = (edges(disc((one, one, one), (100, 100, 100))) for one in (240, 150))
    assert (strong - weak).abs().max() < 0.2
    assert (edges(torch.full((3, SIZE, SIZE), 7, dtype=torch.uint8)) < 1e-6).all()


def test_grass_is_fainter_than_the_outline_before_it():
    generator = torch.Generator().manual_seed(3)
    grass = disc() * 0 + torch.randint(70, 130, (1, 160, 160), generator=generator)
    picture = torch.where(disc() > 0, 230, grass).to(torch.uint8)
    found = edges(picture)
    middles = torch.arange(160) + 0.5 - 80
    radius = (middles[:, None].square() + middles.square()).sqrt()
    assert found[(radius - 50).abs() < 0.7].mean() > 4 * found[radius > 60].mean()


def test_the_same_person_looks_alike_in_crops_of_any_size():
    """Smoothing grows with the crop; an outline is as long in pixels as the crop is wide."""
    small, large = (edges(disc(size=size, radius=size // 3)).sum() / size for size in (96, 224))
    assert abs(small / large - 1) < 0.25


def test_edges_are_what_networks_were_trained_on():
    """A shipped network knows these very numbers; another edge map is another network's."""
    middles = torch.arange(96) + 0.5
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    red = 120 + 80 * (0.3 * x).sin() * (0.11 * y).cos()
    green = 60 + 100 * (((x - 40).square() + (y - 52).square()).sqrt() < 27)
    found = edges(torch.stack([red, green, 30 + 1.5 * x]).round().to(torch.uint8))
    torch.testing.assert_close(found.mean(), torch.tensor(0.0967), atol=3e-4, rtol=0)
    torch.testing.assert_close(found.square().mean(), torch.tensor(0.0328), atol=3e-4, rtol=0)
    torch.testing.assert_close(found[52, 10:14], torch.tensor([0.3554, 0.0, 0.6916, 0.6879]), atol=2e-3, rtol=0)
    torch.testing.assert_close(found[24:28, 40], torch.tensor([0.6914, 0.6835, 0.0438, 0.1193]), atol=2e-3, rtol=0)


def test_outlines_have_derivatives_where_canny_has_none():
    picture = pixels_of(1).float() / 255
    picture.requires_grad_()
    outlines(picture).sum().backward()
    assert picture.grad is not None and picture.grad.isfinite().all() and (picture.grad != 0).float().mean() > 0.3
    flat = torch.full((3, SIZE, SIZE), 0.5, requires_grad=True)
    outlines(flat).sum().backward()
    assert flat.grad is not None and flat.grad.isfinite().all()


def test_low_precision_about_it_changes_nothing():
    pixels, (points, confidence) = pixels_of(2), joints_of(2)
    plain = proxy(pixels, points, confidence)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(proxy(pixels, points, confidence), plain)
