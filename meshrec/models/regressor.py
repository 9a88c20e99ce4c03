"""The mesh regressor: a backbone and a part attention head, from a crop to the parameters of a body."""

import copy
import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from meshrec.models.backbones import COARSEST, BackboneName, build_backbone
from meshrec.models.joint_guess import JointGuess
from meshrec.models.packed import can_pack, pack
from meshrec.models.part_attention import (
    PARTS,
    SPREAD,
    Base,
    PartAttentionHead,
    PartLinear,
    Regressed,
    ShapeAttention,
    regressed,
    upright,
)
from meshrec.skeletons import COCO17

Input = Literal["rgb", "proxy"]
Root = Literal["camera", "sight"]
Precision = Literal["float32", "bfloat16"]

CHANNELS: dict[Input, int] = {"rgb": 3, "proxy": 1 + len(COCO17)}
"""A colour picture; or one of edges and a map for each joint that a detector found."""

LARGEST_PX = 1024
"""What a file's header says cannot fill the memory."""


@dataclass(frozen=True)
class MeshNetConfig:
    """What a mesh regressor is; the defaults are the published network's, but for the base."""

    backbone: BackboneName | Literal["none"] = "hrnet_w32"
    """What looks at the picture; none: nobody does, and the joints' guess is the answer."""
    input: Input = "rgb"
    shape_attention: ShapeAttention = "same"
    """Shape and camera look where the pose looks, or through a second attention at half the resolution."""
    crop_px: int = 224
    """Side of the crops that it is made for."""
    base: Base = "mean"
    """What answers are added to: a body that stands upright; what the joints of a proxy alone tell; or, as in the
    published checkpoints, nothing."""
    root: Root = "camera"
    """In whose axes the root is told: the camera's, as in the published checkpoints; or those of a camera that is
    turned to look at the middle of the crop (`meshrec.camera.sight_rotation`), so that the crop alone tells it."""

    def __post_init__(self) -> None:
        if not COARSEST <= self.crop_px <= LARGEST_PX or self.crop_px % COARSEST:
            raise ValueError(f"crop_px is {self.crop_px}; it must be a multiple of {COARSEST} up to {LARGEST_PX}")
        if self.base == "joints" and self.input != "proxy":
            raise ValueError(f"base is joints, which a proxy shows; input is {self.input}")
        if self.backbone == "none" and self.base != "joints":
            raise ValueError(f"backbone is none, so that joints alone are looked at; base is {self.base}")


class MeshRegressor(nn.Module):
    """32.86 million parameters with HRNet-W32; 30.9 GFLOP for a crop of 224 pixels.

    A random start is a function of the generator, where one is given.
    """

    def __init__(self, config: MeshNetConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.guess = JointGuess(upright()) if config.base == "joints" else None
        self.backbone = self.head = None
        if config.backbone != "none":
            self.backbone = build_backbone(config.backbone, CHANNELS[config.input])
            self.head = PartAttentionHead(self.backbone.features, config.shape_attention, config.base)
        _start(self, generator)

    def forward(self, image: Float[Tensor, "N C S S"]) -> Regressed:
        """Normalised crops, or proxies, to bodies."""
        guess = None if self.guess is None else self.guess(image)
        if self.backbone is not None and self.head is not None:
            return self.head(self.backbone(image), guess)
        assert guess is not None
        return regressed(guess, guess.new_zeros(guess.shape[0], 1 + PARTS, 1, 1))


class LightRegressor(nn.Module):
    """A regressor for inference alone: pixels in its own memory format and type, answers in single precision."""

    def __init__(self, network: MeshRegressor, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.config, self.dtype = network, network.config, dtype

    @torch.no_grad()
    def forward(self, image: Float[Tensor, "N C S S"]) -> Regressed:
        """As `MeshRegressor` does."""
        return self.network(image.to(self.dtype).contiguous(memory_format=torch.channels_last))


def for_inference(
    network: MeshRegressor, precision: Precision = "float32", device: torch.device | None = None
) -> LightRegressor:
    """The same regressor for use alone, on a device, by default the network's own, where it stays: see `folded`.

    In float32 on a CPU its convolutions are packed too, where this torch can: without that the answers are the same,
    but slower.
    """
    light = folded(network, precision).to(device or next(network.parameters()).device)
    if can_pack(next(light.parameters()).device, light.dtype):
        pack(light)
    return light


def folded(network: MeshRegressor, precision: Precision = "float32") -> LightRegressor:
    """The same regressor, of torch's own layers: batch norms are part of their convolutions, channels lie last.

    In "bfloat16" the maps are computed in it; what is pooled from them, and all after, in float32. Otherwise the type
    is the network's own.
    """
    light = copy.deepcopy(network).eval().requires_grad_(False)
    _fold(light)
    maps = [module for module in light.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    dtype = torch.bfloat16 if precision == "bfloat16" and maps else next(light.parameters()).dtype
    for module in maps:
        module.to(dtype)
    light.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return LightRegressor(light, dtype)


def _fold(module: nn.Module) -> None:
    """Put each batch norm into the convolution that stands before it, here and below."""
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            assert before is not None and isinstance(before[1], nn.Conv2d | nn.ConvTranspose2d)
            transposed = isinstance(before[1], nn.ConvTranspose2d)
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child, transpose=transposed))
            setattr(module, name, nn.Identity())
        else:
            _fold(child)
        before = name, child


@torch.no_grad()
def _start(network: MeshRegressor, generator: torch.Generator | None) -> None:
    """Kaiming's normal start for the maps, as timm does; torch's for the guess; almost nothing for the last layers."""
    head, guess = network.head, network.guess
    last: set[nn.Module] = set() if guess is None else {guess.last}
    if head is not None:
        last |= {head.keypoint_final_layer, head.pose_mlp, head.shape_mlp, head.cam_mlp}
    for module in network.modules():
        if module in last:
            assert isinstance(module, nn.Conv2d | nn.Linear | PartLinear)
            nn.init.normal_(module.weight, std=SPREAD, generator=generator)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, math.sqrt(5), generator=generator)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


assert set(CHANNELS) == set(get_args(Input))
