"""Drawn bodies: the same for the same seed, read back as they were written, and each in its place on the sheet."""

from itertools import islice

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

from meshrec import sample
from meshrec.body import load_body_model
from meshrec.errors import MeshrecError
from meshrec.pose_files import read_poses
from meshrec.prior_files import open_prior
from meshrec.sheet import FONT_PX, GAP_PX, captioned, grid


@pytest.fixture(scope="module")
def model():
    return load_body_model("neutral")


@pytest.fixture(scope="module")
def mixture():
    return open_prior("mixture")


@pytest.fixture(autouse=True)
def load_once(model, monkeypatch):
    """The shipped body is read once for all tests."""
    monkeypatch.setattr(sample, "load_body_model", lambda name="neutral": model)


def drawn(prior, count, temperature=1.0, seed=0):
    return torch.stack(list(islice(sample.draws(prior, temperature, seed), count)))


def test_the_first_bodies_of_a_seed_are_the_same_however_many_are_drawn(mixture):
    assert torch.equal(drawn(mixture, 3), drawn(mixture, 40)[:3])
    few, many = (sample.standing(drawn(mixture, n), 10, 1.0) for n in (3, 40))
    assert torch.equal(few.betas, many.betas[:3])


def test_another_seed_gives_other_bodies(mixture):
    first, second = drawn(mixture, 2), drawn(mixture, 2, seed=1)
    assert not torch.equal(first, second)
    assert not torch.equal(*(sample.standing(first, 10, 1.0, seed).betas for seed in (0, 1)))


def test_without_temperature_every_body_is_the_mode():
    prior = open_prior("gaussian")
    pose = drawn(prior, 5, temperature=0.0)
    assert torch.equal(pose, pose[:1].expand_as(pose))
    assert float(prior.energy(pose.double()).max()) < 1e-4


def test_without_temperature_a_mixture_draws_the_means_of_its_components(mixture):
    pose = drawn(mixture, 24, temperature=0.0)
    means = mixture.chart.rotations(mixture.density.means)
    assert bool(((pose[:, None] - means).abs().amax(dim=(-3, -2, -1)) < 1e-5).any(dim=1).all())


def test_temperature_scales_the_spread():
    prior = open_prior("gaussian")
    narrow, wide = (prior.residual(drawn(prior, 50, temperature).double()) for temperature in (0.25, 0.5))
    torch.testing.assert_close(wide, 2 * narrow, atol=0.02, rtol=0.02)


def test_a_prior_finds_its_own_samples_plausible(mixture):
    """Real poses that it was not fitted to are spread wider than its own, so these lie in the middle of them."""
    score = mixture.score(drawn(mixture, 200))
    assert 0.3 < float(score.mean()) < 0.85
    assert float(score.min()) > 0.05
    assert float(score.max() - score.min()) > 0.3


@pytest.mark.parametrize("count", [1, 3])
def test_written_poses_are_read_back(tmp_path, mixture, count):
    params = sample.standing(drawn(mixture, count), 10, 1.5, seed=3)
    read = read_poses(sample.write_poses(tmp_path / "p.npz", params))
    torch.testing.assert_close(read.params.rotations, params.rotations, atol=1e-6, rtol=0)
    torch.testing.assert_close(read.params.betas, params.betas)
    assert torch.equal(read.upright, torch.eye(3))
    assert not read.params.transl_m.any()


def test_shapes_have_the_spread_that_was_asked_for(mixture):
    pose = drawn(mixture, 1).expand(500, -1, -1, -1)
    assert not sample.standing(pose, 10).betas.any()
    assert float(sample.standing(pose, 10, 2.0).betas.std()) == pytest.approx(2.0, rel=0.05)


def test_bodies_stand_upright_on_white(mixture, model):
    """Heads are above feet, and what is nearer to the ground than to the head casts the shadow."""
    pixels = sample.sheet(model, sample.standing(drawn(mixture, 1, temperature=0.0), 10))
    assert pixels.shape == (sample.STUDIO.height_px, 2 * sample.STUDIO.width_px + 2 * GAP_PX, 3)
    assert (pixels[0] == 255).all()
    assert (pixels[:, :GAP_PX] == 255).all()
    inked = np.flatnonzero((pixels < 250).any(axis=(1, 2)))
    widths = (pixels < 250).any(axis=2).sum(axis=1)
    assert widths[inked[5]] < widths[inked[-15]], "a head is narrower than two legs and their shadow"


def test_a_grid_keeps_the_order_and_leaves_blanks_at_the_end():
    tiles = [np.full((30, 40, 3), shade, np.uint8) for shade in (10, 20, 30, 40, 50, 60, 70)]
    sheet = grid(tiles)
    rows, columns = sheet.shape[0] // 30, sheet.shape[1] // (40 + 2 * GAP_PX)
    assert rows * columns >= len(tiles)
    for index, place in enumerate((row, column) for row in range(rows) for column in range(columns)):
        row, column = place
        left = column * (40 + 2 * GAP_PX) + GAP_PX
        found = sheet[row * 30 : row * 30 + 30, left : left + 40]
        assert (found == (tiles[index] if index < len(tiles) else np.uint8(255))).all()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 16, 17, 30, 100])
def test_a_grid_is_neither_a_strip_nor_mostly_blank(count):
    sheet = grid([np.zeros((28, 40, 3), np.uint8)] * count)
    height, width, _ = sheet.shape
    assert 0.6 < width / height < 6
    assert (sheet == 0).all(axis=2).sum() >= 0.4 * height * width


def test_a_caption_stands_below_the_tile_and_long_ones_lose_their_beginning():
    tile = np.full((20, 120, 3), 99, np.uint8)
    short, long, end = (captioned(tile, [line]) for line in ("frame 7", "x" * 90 + "frame 7", ""))
    assert all((pixels[:20] == tile).all() for pixels in (short, long))
    assert (short[20:] < 128).any()
    assert (end[20:] == 255).all()
    strip = long[20:]
    assert (strip[:, : FONT_PX // 4] == 255).all(), "nothing is cut at the edges"
    assert (strip[:, -FONT_PX // 4 :] == 255).all()


def test_the_verb_writes_a_picture_and_poses(tmp_path, capsys):
    flags = ["--prior", "mixture", "-n", "3", "-o", str(tmp_path / "s.png"), "--poses", str(tmp_path / "p.npz")]
    assert tyro.cli(sample.command, args=[*flags, "--seed", "5", "--shape-spread", "1"]) == 0
    told = capsys.readouterr().err
    assert "seed 5" in told
    assert "s.png" in told
    assert "%" in told
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.mode == "RGB"
    assert len(read_poses(tmp_path / "p.npz").names) == 3
    pictures = [tmp_path / "s.png", tmp_path / "again.png"]
    assert sample.command("mixture", 3, pictures[1], seed=5, shape_spread=1.0) == 0
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_more_bodies_than_a_sheet_holds_are_all_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sample, "MOST_DRAWN", 2)
    assert sample.command("mixture", 5, tmp_path / "s.png", poses=tmp_path / "p.npz") == 0
    assert "first 2" in capsys.readouterr().err
    assert len(read_poses(tmp_path / "p.npz").names) == 5


def test_poses_beyond_numbers_are_not_drawn(tmp_path, monkeypatch, mixture):
    monkeypatch.setattr(mixture, "sample", lambda n, temperature, random: torch.full((n, 23, 3, 3), torch.nan))
    monkeypatch.setattr(sample, "open_prior", lambda name: mixture)
    with pytest.raises(MeshrecError, match="poses beyond numbers"):
        sample.command("mixture", 2, tmp_path / "s.png", poses=tmp_path / "p.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"prior": "none"}, "No prior"),
        ({"prior": "nobody"}, "no prior named 'nobody'"),
        ({"count": 0}, "-n"),
        ({"temperature": -0.1}, "--temperature"),
        ({"temperature": float("nan")}, "--temperature"),
        ({"temperature": 1e30}, "--temperature"),
        ({"seed": -1}, "--seed"),
        ({"shape_spread": -1.0}, "--shape-spread"),
        ({"shape_spread": 1e30}, "--shape-spread"),
        ({"output": "sheet.jpg"}, ".png"),
        ({"poses": "poses.json"}, ".npz"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(tmp_path, flags, words):
    paths = {name: tmp_path / value for name, value in flags.items() if name in ("output", "poses")}
    with pytest.raises(MeshrecError, match=words):
        sample.command(**({"prior": "mixture", "output": tmp_path / "s.png"} | flags | paths))
    assert not list(tmp_path.iterdir())
