"""Laws of the backbones: timm's tensors under timm's names, and features that are those of timm, fused as specified."""

import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import batch_norm, conv2d, interpolate, relu

from meshrec.models.backbones import HRNet, build_backbone

FEATURES = {"hrnet_w18": 270, "hrnet_w32": 480, "hrnet_w48": 720, "resnet50": 256}
PARAMETERS = {"hrnet_w18": 10_228_332, "hrnet_w32": 31_408_960, "hrnet_w48": 70_056_192, "resnet50": 33_995_328}
OURS = ("upsample_stage_", "deconv_layers.")


@pytest.mark.parametrize(("name", "channels"), [*((name, 3) for name in FEATURES), ("hrnet_w18", 18)])
def test_all_but_the_fusion_is_timms(name, channels):
    options = {"out_indices": (4,)} if name == "resnet50" else {"feature_location": "", "out_indices": (1, 2, 3, 4)}
    with torch.device("meta"):
        ours = build_backbone(name, channels)
        theirs = timm.create_model(name, features_only=True, in_chans=channels, **options)
    assert ours.features == FEATURES[name]
    shapes = {key: tensor.shape for key, tensor in ours.state_dict().items() if not key.startswith(OURS)}
    assert shapes == {key: tensor.shape for key, tensor in theirs.state_dict().items()}
    assert len(shapes) == (318 if name == "resnet50" else 1830)
    if channels == 3:
        assert sum(parameter.numel() for parameter in ours.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["hrnet_w18", "resnet50"])
def test_features_lie_at_a_quarter_of_the_picture(name):
    backbone = build_backbone(name, 3)
    with torch.no_grad():
        assert backbone(torch.randn(2, 3, 64, 64)).shape == (2, FEATURES[name], 16, 16)


def test_hrnets_branches_are_doubled_to_the_finest_and_stacked():
    torch.manual_seed(0)
    backbone = HRNet("hrnet_w18", 3).train()
    theirs = timm.create_model("hrnet_w18", features_only=True, feature_location="", out_indices=(1, 2, 3, 4)).train()
    theirs.load_state_dict({k: v for k, v in backbone.state_dict().items() if not k.startswith(OURS)})
    image = torch.randn(2, 3, 64, 64)
    state = backbone.state_dict()
    with torch.no_grad():
        stacked = backbone(image).split((18, 36, 72, 144), dim=1)
        branches = theirs(image)
    torch.testing.assert_close(stacked[0], branches[0])
    for stage, branch in enumerate(branches[1:], start=2):
        for doubling in range(stage - 1):
            layer = f"upsample_stage_{stage}.{4 * doubling + 1}"
            branch = interpolate(branch, scale_factor=2, mode="bilinear", align_corners=True)
            branch = conv2d(branch, state[f"{layer}.weight"], padding=1)
            branch = relu(batch_norm(branch, None, None, training=True))
        torch.testing.assert_close(stacked[stage - 1], branch, rtol=1e-4, atol=1e-4)


def test_every_parameter_of_a_backbone_takes_part():
    """Else training on several machines waits for gradients that never come."""
    backbone = build_backbone("hrnet_w18", 3).train()
    backbone(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert not [name for name, parameter in backbone.named_parameters() if parameter.grad is None]


def test_resnets_deconvolutions_double_exactly():
    backbone = build_backbone("resnet50", 3)
    steps = [layer for layer in backbone.deconv_layers if isinstance(layer, nn.ConvTranspose2d)]
    assert [(step.in_channels, step.out_channels) for step in steps] == [(2048, 256), (256, 256), (256, 256)]
    assert all(step(torch.zeros(1, step.in_channels, 3, 5)).shape[-2:] == (6, 10) for step in steps)
