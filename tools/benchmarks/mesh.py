"""The mesh regressor: inference against the same network in torch's own order, and ONNX against it.

Its weights are those of the file that the environment variable MESHREC_MESH_WEIGHTS names, else it is PARE's own, an
HRNet-W32, at random weights with batch norms that have seen the crops: how long it takes does not depend on them.
"""

import os
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import skimage.data
import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.clock import Figure, medians_s
from meshrec.data.crop import cut, normalised
from meshrec.export_onnx import INPUT, OUTPUTS, export_onnx
from meshrec.models.mesh_file import open_regressor
from meshrec.models.part_attention import Regressed
from meshrec.models.regressor import CHANNELS, MeshNetConfig, MeshRegressor, Precision, for_inference
from meshrec.types import Square

CROPS = 4
"""Of one photograph with some people."""

WEIGHTS = "MESHREC_MESH_WEIGHTS"
"""The environment variable that names a file of weights."""

PEER = "the network, eager"


def inference(precision: Precision, people: int, repeats: int) -> Figure:
    """Crops a second, so many together."""
    network, whose = _network()
    light, crops = for_inference(network, precision), _crops(people)

    def peer() -> Regressed:
        with torch.no_grad():
            return network(crops)

    ours_s, peer_s = medians_s(lambda: light(crops), peer, repeats=repeats)
    note = whose if precision == "float32" else f"{whose}; the peer computes in float32"
    return Figure(people / ours_s, "crops/s", people / peer_s, PEER, note, more_is_better=True)


def difference(repeats: int) -> Figure:
    """The largest difference that folding and the order of channels make to an entry of a rotation."""
    del repeats
    network, whose = _network()
    crops = _crops(2 * CROPS)
    with torch.no_grad():
        apart = (for_inference(network)(crops).rotations - network(crops).rotations).abs().max()
    return Figure(float(apart), "1", note=whose)


def onnx(repeats: int) -> Figure:
    """Crops a second in onnxruntime, on as many threads as torch has."""
    import onnxruntime

    network, whose = _network()
    crops = _crops(CROPS)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.onnx"
        apart = export_onnx(network, path)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def peer() -> Regressed:
        with torch.no_grad():
            return network(crops)

    pixels = crops.numpy()
    ours_s, peer_s = medians_s(lambda: session.run(list(OUTPUTS), {INPUT: pixels}), peer, repeats=repeats)
    note = f"{whose}; answers differ by {apart:.0e}"
    return Figure(CROPS / ours_s, "crops/s", CROPS / peer_s, PEER, note, more_is_better=True)


@cache
def _network() -> tuple[MeshRegressor, str]:
    """The one that is named, or PARE's at its random start."""
    if named := os.environ.get(WEIGHTS):
        return open_regressor(named), named
    network = MeshRegressor(MeshNetConfig(), torch.Generator().manual_seed(0)).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network(_crops_of(network.config, 2 * CROPS))
    return network.eval().requires_grad_(False), "random weights"


def _crops(count: int) -> Float[Tensor, "N C S S"]:
    return _crops_of(_network()[0].config, count)


@cache
def _crops_of(config: MeshNetConfig, count: int) -> Float[Tensor, "N C S S"]:
    """Squares of a photograph, each elsewhere and of another size, channel after channel, as the peer's layers are.

    Noise for a network that sees no colours.
    """
    if config.input != "rgb":
        shape = (count, CHANNELS[config.input], config.crop_px, config.crop_px)
        return torch.randn(shape, generator=torch.Generator().manual_seed(2))
    pixels, random = skimage.data.astronaut(), torch.Generator().manual_seed(2)
    place = torch.rand(count, 3, generator=random)
    squares = Square(100 + 300 * place[:, :2], 120 + 280 * place[:, 2], torch.zeros(count))
    cuts = [cut(pixels, squares[row], config.crop_px) for row in range(count)]
    return normalised(torch.from_numpy(np.stack(cuts)).permute(0, 3, 1, 2)).contiguous()
