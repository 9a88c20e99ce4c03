"""Backbones: a picture to one map of features at a quarter of its size.

HRNet and ResNet are timm's, under timm's names, which are also those of the published checkpoints.
"""

from itertools import chain, pairwise
from typing import Literal

import torch
from jaxtyping import Float
from timm.models.hrnet import HighResolutionNetFeatures, cfg_cls
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

BackboneName = Literal["hrnet_w18_small", "hrnet_w18", "hrnet_w32", "hrnet_w48", "resnet50"]

REDUCTION = 4
"""Pixels of the picture to one of the features, along each axis."""
COARSEST = 32
"""Pixels of the picture to one of the coarsest features inside: its sides must be whole numbers of these."""

RESNET50_BLOCKS = (3, 4, 6, 3)
RESNET50_FEATURES = 2048
DECONVOLUTIONS = 3
DECONVOLVED = 256


class HRNet(HighResolutionNetFeatures):
    """timm's HRNet, its four resolutions brought to the finest and stacked: 480 channels for W32 (32 + 64 + 128 + 256).

    A branch at 1/8, 1/16 or 1/32 of the picture is doubled once, twice or three times, with a learned layer each time.
    Sun et al., Deep High-Resolution Representation Learning for Human Pose Estimation, CVPR 2019.
    """

    def __init__(self, name: BackboneName, channels: int) -> None:
        super().__init__(dict(cfg_cls[name]), in_chans=channels, feature_location="", out_indices=(1, 2, 3, 4))
        finest, *coarser = self.feature_info.channels()
        for stage, width in enumerate(coarser, start=2):
            self.add_module(f"upsample_stage_{stage}", _doublings(width, stage - 1))
        self.features = sum((finest, *coarser))

    def forward(self, x: Float[Tensor, "N C S S"]) -> Float[Tensor, "N F h h"]:  # type: ignore[override]
        """The four branches at the finest one's size, finest first."""
        finest, *coarser = super().forward(x)
        doubled = (self.get_submodule(f"upsample_stage_{stage}")(y) for stage, y in enumerate(coarser, start=2))
        return torch.cat([finest, *doubled], dim=1)


class DeconvolvedResNet(ResNet):
    """timm's ResNet-50, whose last features three transposed convolutions bring from 1/32 to 1/4 of the picture.

    Xiao et al., Simple Baselines for Human Pose Estimation and Tracking, ECCV 2018; the names are theirs.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(Bottleneck, RESNET50_BLOCKS, num_classes=0, in_chans=channels)  # type: ignore[arg-type]
        widths = (RESNET50_FEATURES, *(DECONVOLUTIONS * (DECONVOLVED,)))
        self.deconv_layers = nn.Sequential(*chain.from_iterable(_deconvolution(*pair) for pair in pairwise(widths)))
        self.features = DECONVOLVED

    def forward(self, x: Float[Tensor, "N C S S"]) -> Float[Tensor, "N F h h"]:
        """The deconvolved features of the last layer."""
        return self.deconv_layers(self.forward_features(x))


Backbone = HRNet | DeconvolvedResNet


def build_backbone(name: BackboneName, channels: int) -> Backbone:
    """A backbone for pictures of so many channels, at timm's random start."""
    return DeconvolvedResNet(channels) if name == "resnet50" else HRNet(name, channels)


def _doublings(width: int, count: int) -> nn.Sequential:
    """`count` times: twice the size, then a learned layer."""
    layers: list[nn.Module] = []
    for _ in range(count):
        layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True))
        layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _deconvolution(before: int, after: int) -> list[nn.Module]:
    """Twice the size, by a transposed convolution."""
    convolution = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
