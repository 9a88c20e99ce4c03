"""The part attention head: a map of features to the rotations, shape and weak camera of a body.

Kocabas et al., PARE: Part Attention Regressor for 3D Human Body Estimation, ICCV 2021. Tensors have the names and
shapes of its published checkpoints.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import roma
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from meshrec.camera import camera_from_body_axes
from meshrec.skeletons import SMPL24
from meshrec.types import Batched

ShapeAttention = Literal["same", "downsampled"]
Base = Literal["nothing", "mean", "joints"]

PARTS = len(SMPL24)
BETAS = 10
WIDTH = 128
"""Channels of the part branch, and of the features that rotations come from."""
SHAPE_WIDTH = 64
"""Channels of the features that shape and camera come from."""
SIXD = 6
WEAK = 3
SIZES = (PARTS * SIXD, BETAS, WEAK)
"""Of what a network answers with, one after another."""
START = (0.9, 0.0, 0.0)
"""Scale and translation that a new network begins at: a person who stands upright fills the crop."""

LEAST_LENGTH = 1e-12
"""Shorter columns are divided by this in place of their length: no number is then infinite."""

SPREAD = 0.01
"""Standard deviation of the last layers' random start: a new network begins close to its mean parameters."""


@dataclass(frozen=True)
class Regressed(Batched):
    """What the network says of a crop."""

    rotations: Float[Tensor, "*batch 24 3 3"]
    """SMPL-24: of the root in the axes that `MeshNetConfig.root` names, of the others relative to their parents."""
    betas: Float[Tensor, "*batch 10"]
    weak: Float[Tensor, "*batch 3"]
    """(s, tx, ty): the crop's weak perspective; tx and ty in metres, s such that 2/s metres span the crop."""
    part_logits: Float[Tensor, "*batch 25 h w"]
    """Channel 0 is the background, 1 + j the skin of SMPL-24 joint j."""

    @property
    def attention(self) -> Float[Tensor, "*batch 24 h w"]:
        """Where the network looks for each joint: a softmax over the pixels, not over the parts."""
        return spatial_softmax(self.part_logits[..., 1:, :, :])


class PartLinear(nn.Module):
    """One linear map per part, without bias: 18,432 weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, outputs, inputs, PARTS, 1, 1))

    def forward(self, x: Float[Tensor, "N A 24"]) -> Float[Tensor, "N 24 B"]:
        """A map of its own for each column."""
        return torch.einsum("nap,bap->npb", x, self.weight[0, :, :, :, 0, 0])


class PartAttentionHead(nn.Module):
    """Two branches of features, one of which says where each part is and so pools the other.

    The layers on maps compute in the type of their weights; what is pooled, and all after it, in single precision at
    least. Answers are added to a body that stands upright, or to a guess, as iterative regressors do; or to nothing.
    """

    init_pose: Tensor
    init_shape: Tensor
    init_cam: Tensor

    def __init__(self, features: int, shape_attention: ShapeAttention, base: Base) -> None:
        super().__init__()
        self.shape_attention = shape_attention
        self.base = base
        self.keypoint_deconv_layers = _branch(features)
        self.smpl_deconv_layers = _branch(features)
        self.keypoint_final_layer = nn.Conv2d(WIDTH, 1 + PARTS, 1)
        self.smpl_final_layer = nn.Conv2d(WIDTH, SHAPE_WIDTH, 1)
        self.pose_mlp = PartLinear(WIDTH, SIXD)
        self.shape_mlp = nn.Linear(SHAPE_WIDTH * PARTS, BETAS)
        self.cam_mlp = nn.Linear(SHAPE_WIDTH * PARTS, WEAK)
        if base == "mean":
            for name, part in zip(("init_pose", "init_shape", "init_cam"), upright().split(SIZES), strict=True):
                self.register_buffer(name, part[None])

    def forward(self, x: Float[Tensor, "N F h w"], guess: Float[Tensor, "N 157"] | None = None) -> Regressed:
        """Part maps, pooled features, parameters; a head whose base is the joints' takes their guess."""
        logits = self.keypoint_final_layer(self.keypoint_deconv_layers(x))
        body = self.smpl_deconv_layers(x)
        shape = self.smpl_final_layer(body)
        with torch.autocast(x.device.type, enabled=False):
            logits, body, shape = map(_single_at_least, (logits, body, shape))
            parts = logits[:, 1:]
            sixd = self.pose_mlp(pooled(body, parts)).flatten(1)
            described = self._pooled_shape(shape, parts).flatten(1)
            numbers = torch.cat([sixd, self.shape_mlp(described), self.cam_mlp(described)], dim=1)
            return regressed(numbers if (base := self._base(guess)) is None else base + numbers, logits)

    def _base(self, guess: Float[Tensor, "N 157"] | None) -> Float[Tensor, "#N 157"] | None:
        """What the answers are added to."""
        assert (guess is not None) == (self.base == "joints")
        if self.base == "mean":
            return torch.cat([self.init_pose, self.init_shape, self.init_cam], dim=1)
        return guess

    def _pooled_shape(
        self, features: Float[Tensor, "N C h w"], parts: Float[Tensor, "N 24 h w"]
    ) -> Float[Tensor, "N C 24"]:
        """By the same attention, or by one at half the resolution, which costs a quarter."""
        if self.shape_attention == "same":
            return pooled(features, parts)
        return pooled(avg_pool2d(features, 2), avg_pool2d(parts, 2))


def regressed(numbers: Float[Tensor, "N 157"], part_logits: Float[Tensor, "N 25 h w"]) -> Regressed:
    """An answer of 24 rotations, by two columns each, of shape and camera."""
    sixd, betas, weak = numbers.split(SIZES, dim=1)
    return Regressed(rotations_from_sixd(sixd.unflatten(1, (PARTS, SIXD))), betas, weak, part_logits)


def upright() -> Float[Tensor, "157"]:
    """The mean shape in the rest pose, upright and facing a camera that it fills the crop of."""
    root, below = camera_from_body_axes()[None], torch.eye(3).expand(PARTS - 1, 3, 3)
    sixd = sixd_from_rotations(torch.cat([root, below]))
    return torch.cat([sixd.flatten(), torch.zeros(BETAS), torch.tensor(START)])


def spatial_softmax(logits: Float[Tensor, "*batch P h w"]) -> Float[Tensor, "*batch P h w"]:
    """Weights that sum to 1 over the pixels of each map."""
    return logits.flatten(-2).softmax(dim=-1).reshape(logits.shape)


def pooled(features: Float[Tensor, "N C h w"], logits: Float[Tensor, "N P h w"]) -> Float[Tensor, "N C P"]:
    """The mean of the features under each map's spatial softmax."""
    return features.flatten(-2) @ spatial_softmax(logits).flatten(-2).mT


def rotations_from_sixd(sixd: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Gram-Schmidt on the two columns of the 3 x 2 matrix (Zhou et al., CVPR 2019), in the layout of SPIN and PARE."""
    return roma.special_gramschmidt(sixd.unflatten(-1, (3, 2)), epsilon=LEAST_LENGTH)  # type: ignore[arg-type]


def sixd_from_rotations(rotations: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """The first two columns; `rotations_from_sixd` gives the rotations back."""
    return rotations[..., :2].flatten(-2)


def _branch(features: int) -> nn.Sequential:
    widths = (features, WIDTH, WIDTH)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _single_at_least(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
