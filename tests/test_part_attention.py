"""Laws of part attention: what pools what, the layout of rotations, and where a new network begins."""

import copy
from functools import cache

import pytest
import roma
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import avg_pool2d
from torch.utils.flop_counter import FlopCounterMode

from meshrec.camera import camera_from_body_axes
from meshrec.models import packed
from meshrec.models.packed import PackedConv, can_pack
from meshrec.models.part_attention import (
    PARTS,
    PartAttentionHead,
    PartLinear,
    Regressed,
    pooled,
    rotations_from_sixd,
    sixd_from_rotations,
    spatial_softmax,
)
from meshrec.models.regressor import CHANNELS, LightRegressor, MeshNetConfig, MeshRegressor, folded, for_inference

BATCHES = [(), (1,), (3,), (2, 3)]
BACKBONES = ["hrnet_w18", "resnet50"]


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@cache
def settled(config: MeshNetConfig) -> MeshRegressor:
    """A regressor whose batch norms have seen some pictures: at the start, maps grow from layer to layer."""
    network = MeshRegressor(config, torch.Generator().manual_seed(0)).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network(random(6, CHANNELS[config.input], config.crop_px, config.crop_px, dtype=torch.float32))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network() -> MeshRegressor:
    return settled(MeshNetConfig("hrnet_w18", crop_px=64))


@pytest.mark.parametrize("batch", BATCHES)
def test_six_numbers_are_two_columns_of_a_rotation(batch):
    rotations = roma.unitquat_to_rotmat(nn.functional.normalize(random(*batch, 4), dim=-1))
    sixd = sixd_from_rotations(rotations)
    torch.testing.assert_close(sixd[..., 0::2], rotations[..., 0])
    torch.testing.assert_close(sixd[..., 1::2], rotations[..., 1])
    torch.testing.assert_close(rotations_from_sixd(sixd), rotations)


@pytest.mark.parametrize("batch", BATCHES)
def test_any_six_numbers_are_a_rotation(batch):
    sixd = random(*batch, 6)
    R = rotations_from_sixd(sixd)
    torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=R.dtype).expand_as(R))
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(batch, dtype=R.dtype))
    first, second = sixd[..., 0::2], sixd[..., 1::2]
    torch.testing.assert_close(rotations_from_sixd(torch.stack([3 * first, second + first], -1).flatten(-2)), R)
    turn = roma.rotvec_to_rotmat(random(3, seed=1))
    turned = (turn @ sixd.unflatten(-1, (3, 2))).flatten(-2)
    torch.testing.assert_close(rotations_from_sixd(turned), turn @ R)


def test_features_are_averaged_under_a_softmax_over_pixels():
    features, logits = random(2, 5, 4, 6), random(2, 3, 4, 6, seed=1)
    weights = logits.exp() / logits.exp().sum((-2, -1), keepdim=True)
    torch.testing.assert_close(spatial_softmax(logits), weights)
    expected = (features[:, :, None] * weights[:, None]).sum((-2, -1))
    torch.testing.assert_close(pooled(features, logits), expected)
    torch.testing.assert_close(pooled(features, logits + random(2, 3, 1, 1)), expected)
    peak = torch.zeros(2, 3, 4, 6, dtype=torch.float64)
    peak[:, 1, 2, 5] = 1000.0
    torch.testing.assert_close(pooled(features, peak)[..., 1], features[..., 2, 5])


def test_each_part_has_a_linear_map_of_its_own():
    layer = PartLinear(5, 6).double()
    nn.init.normal_(layer.weight)
    x = random(2, 5, PARTS)
    y = layer(x)
    assert layer.weight.shape == (1, 6, 5, PARTS, 1, 1)
    for part in (0, 1, PARTS - 1):
        torch.testing.assert_close(y[:, part], x[:, :, part] @ layer.weight[0, :, :, part, 0, 0].mT)


def head(**options) -> PartAttentionHead:
    made = PartAttentionHead(7, **({"shape_attention": "same", "base": "nothing"} | options)).double().eval()
    generator = torch.Generator().manual_seed(3)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return made


def test_the_background_pools_nothing():
    made, x = head(), random(2, 7, 8, 8)
    before = made(x)
    assert made.keypoint_final_layer.bias is not None
    with torch.no_grad():
        made.keypoint_final_layer.weight[0] += 1.0
    after = made(x)
    assert not torch.equal(before.part_logits[:, 0], after.part_logits[:, 0])
    for name in ("rotations", "betas", "weak", "attention"):
        torch.testing.assert_close(getattr(before, name), getattr(after, name))


def test_rotations_come_from_the_body_branch_and_each_from_its_own_part():
    made, x = head(), random(2, 7, 8, 8)
    before = made(x)
    with torch.no_grad():
        made.keypoint_final_layer.weight[1 + 5] *= -1.0
    after = made(x)
    changed = (before.rotations - after.rotations).abs().amax((0, -2, -1)) > 1e-9
    assert changed.tolist() == [part == 5 for part in range(PARTS)]
    assert not torch.allclose(before.betas, after.betas)


def test_shape_and_camera_read_features_before_parts():
    """The flattened features run over parts first: 64 features of 24 parts each."""
    made, x = head(), random(1, 7, 8, 8)
    said = made(x)
    body = made.smpl_deconv_layers(x)
    shape = made.smpl_final_layer(body)
    rows = [(shape[:, c] * said.attention[:, p]).sum((-2, -1)) for c in range(64) for p in range(PARTS)]
    torch.testing.assert_close(said.betas, made.shape_mlp(torch.stack(rows, dim=-1)))
    torch.testing.assert_close(said.weak, made.cam_mlp(torch.stack(rows, dim=-1)))


def test_a_downsampled_attention_changes_shape_and_camera_alone():
    same, down, x = head(), head(shape_attention="downsampled"), random(2, 7, 8, 8)
    one, other = same(x), down(x)
    torch.testing.assert_close(one.rotations, other.rotations)
    assert not torch.allclose(one.betas, other.betas)
    features = down.smpl_final_layer(down.smpl_deconv_layers(x))
    halved = pooled(avg_pool2d(features, 2), avg_pool2d(other.part_logits[:, 1:], 2))
    torch.testing.assert_close(other.betas, down.shape_mlp(halved.flatten(1)))


@pytest.mark.parametrize(("backbone", "parameters"), [("hrnet_w32", 32_860_710), ("hrnet_w18", 11_196_242)])
def test_networks_are_of_the_published_size(backbone, parameters):
    with torch.device("meta"):
        network = MeshRegressor(MeshNetConfig(backbone))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_a_crop_costs_what_is_published():
    with FakeTensorMode():
        network = MeshRegressor(MeshNetConfig("hrnet_w32")).eval()
        with FlopCounterMode(display=False) as counter:
            said = network(torch.zeros(1, 3, 224, 224))
    assert round(counter.get_total_flops() / 1e9, 1) == 30.9
    assert said.part_logits.shape == (1, 25, 56, 56)


@pytest.mark.parametrize("size", [32, 64, 96])
def test_a_network_answers_at_any_multiple_of_32(network, size):
    said = network(random(2, 3, size, size, dtype=torch.float32))
    assert said.rotations.shape == (2, 24, 3, 3)
    assert said.attention.shape == (2, 24, size // 4, size // 4)
    torch.testing.assert_close(said.attention.sum((-2, -1)), torch.ones(2, 24))
    assert said[0].betas.shape == (10,)


@pytest.mark.parametrize(
    "config", [MeshNetConfig("resnet50", crop_px=64), MeshNetConfig("hrnet_w18", "proxy", crop_px=64)]
)
def test_a_new_network_begins_near_a_body_that_stands_upright(config):
    """In training mode, as training begins."""
    image = random(4, CHANNELS[config.input], 64, 64, dtype=torch.float32)
    said = copy.deepcopy(settled(config)).train()(image)
    upright = torch.eye(3).repeat(24, 1, 1)
    upright[0] = camera_from_body_axes()
    assert (said.rotations - upright).abs().max() < 0.5
    assert said.betas.abs().max() < 1.5
    assert (said.weak - torch.tensor([0.9, 0.0, 0.0])).abs().max() < 1.0
    assert said.attention.max() < 100 / said.attention[0, 0].numel()


def test_a_start_is_a_function_of_the_generator():
    config = MeshNetConfig("hrnet_w18", crop_px=64)
    one, same, other = (MeshRegressor(config, torch.Generator().manual_seed(seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["backbone.conv1.weight"], other["backbone.conv1.weight"])


def test_published_networks_have_no_mean_parameters():
    with torch.device("meta"):
        ours, official = (MeshRegressor(MeshNetConfig("hrnet_w18", base=base)) for base in ("mean", "nothing"))
    means = {"head.init_pose", "head.init_shape", "head.init_cam"}
    assert ours.state_dict().keys() - official.state_dict().keys() == means


PACKS = can_pack(torch.device("cpu"), torch.float32)


def packed_in(light: LightRegressor) -> bool:
    return any(isinstance(module, PackedConv) for module in light.modules())


def agree(said: Regressed, wanted: Regressed, tolerance: float) -> None:
    for name in ("rotations", "betas", "weak", "attention"):
        one, other = getattr(said, name), getattr(wanted, name)
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_inference_says_what_the_network_says(backbone):
    """In double precision, in torch's own layers; each norm is part of its convolution."""
    network = copy.deepcopy(settled(MeshNetConfig(backbone, crop_px=64))).double()
    light, image = for_inference(network), random(2, 3, 64, 64, seed=5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in light.modules()) and not packed_in(light)
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    agree(light(image), network(image), 1e-10)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_packed_convolutions_say_what_plain_ones_say(backbone):
    """Twice, and the image is as it was: sums are written over nothing that is read again."""
    network = settled(MeshNetConfig(backbone, crop_px=64))
    light, plain = for_inference(network), folded(network)
    assert packed_in(light) == PACKS and not packed_in(plain)
    assert any(isinstance(module, nn.Conv2d) for module in light.modules()) != PACKS
    for people, size in ((1, 64), (3, 32), (2, 96)):
        image = random(people, 3, size, size, seed=6, dtype=torch.float32)
        kept, expected = image.clone(), plain(image)
        for _ in range(2):
            agree(light(image), expected, 5e-5)
        assert torch.equal(image, kept)


def test_only_single_precision_on_a_cpu_is_packed(monkeypatch):
    cpu, single = torch.device("cpu"), torch.float32
    assert not can_pack(torch.device("cuda"), single)
    assert not can_pack(cpu, torch.float64) and not can_pack(cpu, torch.bfloat16)
    with monkeypatch.context() as patch:
        patch.setattr(packed, "OPERATORS", (*packed.OPERATORS, "_of_another_torch"))
        assert not can_pack(cpu, single)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not can_pack(cpu, single)


def test_bfloat16_computes_maps_alone(network):
    image, light = random(2, 3, 64, 64, seed=5, dtype=torch.float32), for_inference(network, "bfloat16")
    before, after = network(image), light(image)
    assert not packed_in(light)
    assert {getattr(after, name).dtype for name in ("rotations", "betas", "weak", "part_logits")} == {torch.float32}
    torch.testing.assert_close(after.rotations @ after.rotations.mT, torch.eye(3).expand(2, 24, 3, 3))
    assert 0 < (after.rotations - before.rotations).abs().max() < 0.1


def test_mixed_precision_leaves_the_parameters_in_single(network):
    image = random(2, 3, 64, 64, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        said = network(image)
    assert isinstance(said, Regressed)
    assert {said.rotations.dtype, said.betas.dtype, said.weak.dtype, said.part_logits.dtype} == {torch.float32}
    torch.testing.assert_close(said.rotations @ said.rotations.mT, torch.eye(3).expand(2, 24, 3, 3))


@pytest.mark.parametrize("size", [0, 16, 100, 2048])
def test_crops_are_multiples_of_32(size):
    with pytest.raises(ValueError, match=f"crop_px is {size}"):
        MeshNetConfig(crop_px=size)
