"""A mesh regressor as one ONNX file, checked against torch before it appears."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from rich.markup import escape
from torch import Tensor, nn

from meshrec.errors import MeshrecError
from meshrec.files import write_whole
from meshrec.models.mesh_file import config_json, open_regressor
from meshrec.models.proxy import JOINT
from meshrec.models.regressor import CHANNELS, Input, MeshRegressor, Root, folded
from meshrec.randomness import generator_of
from meshrec.skeletons import SMPL24

INPUT = "image"
PEOPLE = "people"
"""The name of the batch axis, which takes any size."""

OUTPUTS = {
    "rotations": "SMPL-24 rotation matrices: the root in the axes that `root` says, else relative to the parent",
    "betas": "10 shape parameters of SMPL",
    "weak": "weak perspective camera of the crop: s, and tx and ty in metres",
    "part_logits": "maps of the background and of SMPL-24's parts; attention is the softmax over the pixels of a map",
}
INPUTS: dict[Input, str] = {
    "rgb": "RGB crops in [0, 1] minus the mean (0.485, 0.456, 0.406), by the deviation (0.229, 0.224, 0.225)",
    "proxy": "edges from 0 to 1, then a map for each COCO-17 joint: its confidence times a Gaussian about its place, "
    f"of standard deviation crop / {1 / JOINT:.0f}",
}
ROOTS: dict[Root, str] = {
    "camera": "the camera's: x right, y down, z away",
    "sight": "those of a camera that stands in the same place and is turned, by the least angle, to the crop's middle",
}

TOLERANCE = 1e-3
"""Of the largest value of an output."""


class _Tuple(nn.Module):
    """A regressor whose answer is a tuple, in the order of `OUTPUTS`."""

    def __init__(self, regressor: nn.Module) -> None:
        super().__init__()
        self.regressor = regressor

    def forward(self, image: Float[Tensor, "N C S S"]) -> tuple[Tensor, ...]:
        said = self.regressor(image)
        return tuple(getattr(said, name) for name in OUTPUTS)


def export_onnx(network: MeshRegressor, path: Path) -> float:
    """Write a regressor in float32, for crops of its own size and any number of people.

    Batch norms are part of the convolutions. Before the file appears, onnxruntime and torch answer the same crops: the
    largest difference, as a share of the largest value of its output, is returned.
    """
    modules = _modules()
    whole = _Tuple(network.eval())
    differences: list[float] = []

    def write(neighbour: Path) -> None:
        _export(network, neighbour)
        _describe(modules["onnx"], network, neighbour)
        differences.append(_difference(modules["onnxruntime"], whole, network, neighbour, path))

    write_whole(path, write)
    return differences[0]


def _modules() -> Mapping[str, Any]:
    try:
        import onnx
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise MeshrecError(f'ONNX needs packages that are missing ({error}): pip install "meshrec[onnx]".') from error
    return {"onnx": onnx, "onnxruntime": onnxruntime, "onnxscript": onnxscript}


def _export(network: MeshRegressor, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Tuple(folded(network)).eval(),
            (_crops(network, 2),),
            str(path),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim(PEOPLE)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _describe(onnx: Any, network: MeshRegressor, path: Path) -> None:
    """Say in the file what goes in and what comes out."""
    model = onnx.load(str(path))
    words = {"meshrec": config_json(network.config), INPUT: INPUTS[network.config.input], **OUTPUTS}
    words |= {"root": ROOTS[network.config.root], "joints": " ".join(SMPL24.joints)}
    onnx.helper.set_model_props(model, words)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _difference(runtime: Any, whole: _Tuple, network: MeshRegressor, written: Path, path: Path) -> float:
    """How far onnxruntime is from torch, for one person and for three; too far is a `MeshrecError`."""
    session = runtime.InferenceSession(str(written), providers=["CPUExecutionProvider"])
    worst = 0.0
    for people in (1, 3):
        crops = _crops(network, people)
        answers = session.run(list(OUTPUTS), {INPUT: crops.numpy()})
        with torch.no_grad():
            expected = whole(crops)
        for name, one, other in zip(OUTPUTS, answers, expected, strict=True):
            share = float(np.abs(one - other.numpy()).max() / max(1.0, float(other.abs().max())))
            if not share <= TOLERANCE:
                raise MeshrecError(
                    f"onnxruntime and torch differ by {share:.1g} of the largest value of {name}, so {path} is not "
                    f"written. Try other versions of onnxscript and onnxruntime."
                )
            worst = max(worst, share)
    return worst


def _crops(network: MeshRegressor, people: int) -> Float[Tensor, "N C S S"]:
    shape = (people, CHANNELS[network.config.input], network.config.crop_px, network.config.crop_px)
    return torch.from_numpy(generator_of(0, "onnx crops", people).standard_normal(shape)).float()


def command(
    weights: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="WEIGHTS")]],
    /,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("mesh.onnx"),
) -> int:
    """Write the network of the mesh branch as an ONNX file, and check in onnxruntime that it answers as torch does.

    It takes `image` (people, channels, crop, crop) and gives `rotations` (people, 24, 3, 3), `betas` (people, 10),
    `weak` (people, 3) and `part_logits` (people, 25, crop / 4, crop / 4), or (people, 25, 1, 1) of a network that looks
    at no picture; the file's metadata says what they are.

    meshrec export-onnx best_00010000.safetensors -o mesh.onnx

    Args:
        weights: A mesh regressor: a name, a file (also the best one of a training run), or a published checkpoint.
        output: The file to write.
    """
    difference = export_onnx(open_regressor(weights), output)
    size_mb = output.stat().st_size / 1e6
    told = f"wrote {output} ({size_mb:.0f} MB); onnxruntime answers as torch does, to {difference:.0e}"
    Console(stderr=True).print(escape(told), soft_wrap=True)
    return 0
