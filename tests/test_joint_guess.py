"""What joints alone tell: a guess that sees no picture, and that a look at the picture corrects."""

from dataclasses import asdict

import pytest
import roma
import torch

from meshrec.models.joint_guess import TOLD, told
from meshrec.models.mesh_file import read_regressor, write_regressor
from meshrec.models.part_attention import rotations_from_sixd, upright
from meshrec.models.proxy import heatmaps
from meshrec.models.regressor import MeshNetConfig, MeshRegressor, for_inference
from meshrec.skeletons import COCO17

CROP_PX = 32
BLIND = MeshNetConfig("none", "proxy", base="joints", crop_px=CROP_PX, root="sight")
SEEING = MeshNetConfig("hrnet_w18_small", "proxy", base="joints", crop_px=CROP_PX, root="sight")


def made(config: MeshNetConfig) -> MeshRegressor:
    return MeshRegressor(config, torch.Generator().manual_seed(0)).eval()


def seen(people: int = 3) -> torch.Tensor:
    """Proxies of anybody."""
    random = torch.Generator().manual_seed(1)
    points = CROP_PX * (0.2 + 0.6 * torch.rand(people, len(COCO17), 2, generator=random))
    maps = heatmaps(points, 0.1 + 0.8 * torch.rand(people, len(COCO17), generator=random), CROP_PX)
    return torch.cat([torch.rand(people, 1, CROP_PX, CROP_PX, generator=random), maps], dim=1)


def test_a_joint_is_told_by_its_place_and_how_surely_it_is_found():
    points, confidence = torch.full((1, len(COCO17), 2), 8.0), torch.full((1, len(COCO17)), 0.5)
    points[0, 3], confidence[0, 3], confidence[0, 5] = torch.tensor([24.0, 16.0]), 0.9, 0.0
    numbers = told(heatmaps(points, confidence, CROP_PX)).unflatten(1, (len(COCO17), TOLD))[0]
    torch.testing.assert_close(numbers[0], torch.tensor([-0.5, -0.5, 0.0, 1.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(numbers[3], torch.tensor([0.5, 0.0, 0.25 * 2.197, 1.0]), atol=0.02, rtol=0)
    assert not numbers[5].any(), "one that is not found"


def test_a_new_guess_is_near_a_body_that_stands_upright():
    with torch.no_grad():
        said = made(BLIND)(seen())
    rest = rotations_from_sixd(upright()[:-13].unflatten(0, (24, 6)))
    turn_rad = roma.rotmat_geodesic_distance(said.rotations, rest)
    assert 0 < turn_rad.mean() < 0.5 and turn_rad.max() < 1.2
    assert said.betas.abs().max() < 1
    torch.testing.assert_close(said.weak, upright()[-3:].expand(3, 3), atol=0.6, rtol=0)


def test_who_looks_at_joints_alone_sees_no_edges():
    image = seen()
    other = image.clone()
    other[:, 0] = 0
    blind, seeing = made(BLIND), made(SEEING)
    assert torch.equal(blind(image).rotations, blind(other).rotations)
    assert not torch.equal(seeing(image).rotations, seeing(other).rotations)
    other[:, 1] = 0
    assert not torch.equal(blind(image).rotations, blind(other).rotations)
    assert blind(image).attention.shape == (3, 24, 1, 1)


def test_the_picture_corrects_the_guess():
    network = made(SEEING).requires_grad_(False)
    image, before = seen(), made(SEEING)(seen())
    network.guess.mean[-1] += 0.5
    torch.testing.assert_close(network(image).weak, before.weak + torch.tensor([0.0, 0.0, 0.5]))
    torch.testing.assert_close(network(image).betas, before.betas)


@pytest.mark.parametrize("config", [BLIND, SEEING], ids=["blind", "seeing"])
def test_files_and_inference_keep_what_is_said(config, tmp_path):
    network = made(config)
    read = read_regressor(write_regressor(tmp_path / "network.safetensors", network))
    assert asdict(read.config) == asdict(config)
    with torch.no_grad():
        said, light = read(seen()), for_inference(read)(seen())
        torch.testing.assert_close(said.rotations, network(seen()).rotations, atol=2e-2, rtol=0)
        torch.testing.assert_close(light.rotations, said.rotations, atol=1e-4, rtol=0)
        coarse = for_inference(read, "bfloat16")(seen())
    torch.testing.assert_close(coarse.rotations, said.rotations, atol=3e-2, rtol=0)


def test_a_few_people_are_soon_told_apart_by_their_joints():
    network, image = made(BLIND).train(), seen(8)
    wanted = upright() + 0.3 * torch.randn(8, len(upright()), generator=torch.Generator().manual_seed(2))
    adam = torch.optim.Adam(network.parameters(), 1e-3)
    errors = []
    for _ in range(60):
        error = (network.guess(image) - wanted).square().mean()
        adam.zero_grad()
        error.backward()
        adam.step()
        errors.append(float(error.detach()))
    assert errors[-1] < 0.05 * errors[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base": "joints"}, "base is joints, which a proxy shows; input is rgb"),
        ({"backbone": "none", "input": "proxy"}, "backbone is none, so that joints alone are looked at; base is mean"),
    ],
)
def test_networks_that_cannot_be_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        MeshNetConfig(**changes)
