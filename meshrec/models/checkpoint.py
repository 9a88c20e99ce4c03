"""Weights that others published: part attention checkpoints, and backbones to start a training from.

Every tensor of a file is accounted for: it is loaded, or a table here says why it is not, or the file is refused with
the tensor named.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from meshrec.errors import MeshrecError
from meshrec.models.backbones import BackboneName
from meshrec.models.network_tensors import first_mismatch, put_checked, refused
from meshrec.models.regressor import Input, MeshNetConfig, MeshRegressor
from meshrec.models.torch_file import TorchFile
from meshrec.tensor_files import read_tensors

Table = Mapping[str, str]
"""Regular expressions of tensors' names, each with what it is that they name."""

NETWORK = "model."
"""What the names of the network itself begin with in a published checkpoint."""

UNUSED_OFFICIAL: Table = {
    r"model\.backbone\.final_layer\..*": "the backbone's heat maps, from its own pre-training",
    r"model\.head\.init_(pose|shape|cam)": "mean parameters, which the published network does not add",
    r"model\.head\.temperature": "a scale of the attention, which is taken of the raw logits",
    r"(model\.)?(head\.)?smpl\..*": "the body model: it is the user's to choose",
    r"J_regressor.*": "joints of the body model, for evaluation",
}
"""What of a published checkpoint takes no part in its answers."""

UNUSED_BACKBONE: Table = {
    r"incre_modules\..*": "HRNet's classification head",
    r"downsamp_modules\..*": "HRNet's classification head",
    r"head\..*": "HRNet's classification head, under its other name",
    r"final_layer\..*": "HRNet's classification head, or the heat maps of a pose network",
    r"classifier\..*": "HRNet's 1,000 classes",
    r"fc\..*": "ResNet's 1,000 classes",
}
"""What of a backbone's checkpoint belongs to the task that it was trained for."""

LEFT_AT_START: Table = {
    r"upsample_stage_[234]\..*": "the fusion, which is ours",
    r"deconv_layers\..*": "the deconvolutions, which only pose networks have",
    r"stage4\.2\.fuse_layers\.[123]\..*": "the coarse outputs, which a pose network does not compute",
    r".*\.num_batches_tracked": "a counter that old files lack",
}
"""What a backbone's checkpoint need not have."""

WRAPPINGS = ("", "module.", "backbone.", "module.backbone.", "model.backbone.")
"""What the names of a backbone may begin with, as the trainers of others wrap it; all else is then of their heads."""

FIRST = "conv1.weight"
WIDTH_OF = "stage2.0.branches.0.0.conv1.weight"
WIDTHS: dict[int, BackboneName] = {18: "hrnet_w18", 32: "hrnet_w32", 48: "hrnet_w48"}


@dataclass(frozen=True)
class BackboneLoad:
    """What became of the tensors when a backbone's checkpoint was loaded."""

    loaded: tuple[str, ...]
    left: tuple[str, ...]
    """Those of the backbone that the file lacks: they stay as they were."""
    unused: tuple[str, ...]
    """Those of the file that belong to its own task."""


def read_official(path: Path) -> MeshRegressor:
    """A published part attention checkpoint with an HRNet, on the CPU, in evaluation mode, without gradients."""
    file = _Weights(path)
    prefix = NETWORK if any(name.startswith(NETWORK) for name in file.layout) else ""
    used = (name for name in file.layout if not _explains(UNUSED_OFFICIAL, name if prefix else NETWORK + name))
    found = {name.removeprefix(prefix): name for name in used}
    config = MeshNetConfig(backbone=_hrnet(path, file.layout, prefix), base="nothing", root="camera")
    with torch.device("meta"):
        network = MeshRegressor(config)
    if mismatch := first_mismatch({ours: file.layout[name] for ours, name in found.items()}, network.state_dict()):
        raise refused(path, mismatch)
    tensors = file.read(found.values())
    put_checked(network, {ours: tensors[name] for ours, name in found.items()}, path)
    return network.eval().requires_grad_(False)


def load_backbone(network: MeshRegressor, path: Path) -> BackboneLoad:
    """Load an HRNet (of image classes or of poses) or a ResNet-50 into the backbone of a network; says what it did.

    Where the network sees proxies and the file's sees colours, the first layer stays as it was.
    """
    if network.backbone is None:
        raise MeshrecError(f"{path} cannot be loaded: the network has no backbone. Choose one with --network.backbone.")
    file = _Weights(path)
    wanted = network.backbone.state_dict()
    prefix = next((wrapping for wrapping in WRAPPINGS if wrapping + FIRST in file.layout), "")
    inside = {name.removeprefix(prefix): name for name in file.layout if name.startswith(prefix)}
    found = {ours: name for ours, name in inside.items() if ours in wanted or not _explains(UNUSED_BACKBONE, ours)}
    if _other_input(network.config.input, file.layout.get(found.get(FIRST, ""))):
        del found[FIRST]
    left = tuple(name for name in wanted if name not in found and _may_be_left(name, network.config.input))
    fits = {name: tensor for name, tensor in wanted.items() if name not in left}
    if mismatch := first_mismatch({ours: file.layout[name] for ours, name in found.items()}, fits):
        raise refused(path, f"{mismatch} ({network.config.backbone})")
    tensors = file.read(found.values())
    put_checked(network.backbone, {ours: tensors[name] for ours, name in found.items()}, path, strict=False)
    loaded = set(found.values())
    return BackboneLoad(tuple(found), left, tuple(name for name in file.layout if name not in loaded))


class _Weights:
    """A file of weights: what torch saved, or safetensors."""

    def __init__(self, path: Path) -> None:
        self._file = None if path.suffix == ".safetensors" else TorchFile(path)
        self.layout = read_tensors(path)[0] if self._file is None else self._file.layout

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """These of the tensors."""
        return {name: self.layout[name] for name in names} if self._file is None else self._file.read(names)


def _hrnet(path: Path, layout: Mapping[str, Tensor], prefix: str) -> BackboneName:
    """Which HRNet a checkpoint has, told by the width of its finest branch."""
    name = f"{prefix}backbone.{WIDTH_OF}"
    if name not in layout:
        raise refused(path, f"its tensor {name} is missing, so it has no HRNet with a part attention head")
    width = layout[name].shape[0] if layout[name].ndim else 0
    if width not in WIDTHS:
        raise refused(path, f"its tensor {name} has {width} channels, where HRNets have {', '.join(map(str, WIDTHS))}")
    return WIDTHS[width]


def _explains(table: Table, name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in table)


def _may_be_left(name: str, sees: Input) -> bool:
    return _explains(LEFT_AT_START, name) or (name == FIRST and sees == "proxy")


def _other_input(sees: Input, first: Tensor | None) -> bool:
    """Whether a proxy network is given a first layer for colours."""
    return sees == "proxy" and first is not None and first.ndim == 4 and first.shape[1] == 3
