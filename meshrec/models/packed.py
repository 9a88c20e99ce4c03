"""Convolutions of a network for inference in float32 on a CPU, as torch's own compiler has them.

Their weights lie in oneDNN's order already, and what comes after, a residual sum and a ReLU, is part of them. These
operators of torch are private: where it has none, networks stay as they are and say the same, only slower.
"""

import torch
from jaxtyping import Float
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

OPERATORS = ("_reorder_convolution_weight", "_convolution_pointwise", "_convolution_pointwise_")


class PackedConv(nn.Module):
    """A convolution, and the ReLU after it where there is one; it stays on the CPU."""

    def __init__(self, convolution: nn.Conv2d, relu: bool) -> None:
        super().__init__()
        assert isinstance(convolution.padding, tuple) and convolution.padding_mode == "zeros"
        self.geometry = (convolution.padding, convolution.stride, convolution.dilation, convolution.groups)
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(convolution.weight.detach(), *self.geometry)
        self.bias = None if convolution.bias is None else convolution.bias.detach()
        self.activation = "relu" if relu else "none"

    def forward(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N D k l"]:
        """In the order of channels last, whatever that of `x`."""
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, *self.geometry, self.activation, [], ""
        )

    def added(self, x: Float[Tensor, "N C h w"], other: Float[Tensor, "N D k l"]) -> Float[Tensor, "N D k l"]:
        """To `other`, which is written over; the ReLU comes after the sum."""
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            other, x, self.weight, self.bias, *self.geometry, "add", 1.0, self.activation, [], ""
        )


class PackedBlock(nn.Module):
    """A residual block: the sum, and its ReLU, are part of the last convolution.

    Where nothing changes the shortcut the sum is written over the input, which in these networks no one else reads.
    """

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        assert block.se is None
        *first, last = [PackedConv(child, relu=True) for child in block.children() if isinstance(child, nn.Conv2d)]
        self.first, self.last = nn.Sequential(*first), last
        self.shortcut = nn.Identity() if block.downsample is None else block.downsample
        pack(self.shortcut)

    def forward(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N D k l"]:
        """As the block does."""
        return self.last.added(self.first(x), self.shortcut(x))


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there are operators for such weights."""
    if device.type != "cpu" or dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return False
    return all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS)


def pack(module: nn.Module) -> None:
    """Put packed convolutions in the place of a network's own, here and below; batch norms are folded already.

    Neighbours by name follow each other in computation too, as where batch norms are folded.
    """
    before: PackedConv | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d):
            before = PackedConv(child, relu=False)
            setattr(module, name, before)
        elif isinstance(child, nn.ReLU) and before is not None:
            before.activation, before = "relu", None
            setattr(module, name, nn.Identity())
        elif not isinstance(child, nn.Identity):
            before = None
            if isinstance(child, BasicBlock | Bottleneck):
                setattr(module, name, PackedBlock(child))
            else:
                pack(child)
