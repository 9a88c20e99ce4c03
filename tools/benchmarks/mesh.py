"""The mesh regressor: inference against the same network in torch's own order, and ONNX against it.

Where no regressor ships, its weights are random, with batch norms that have seen some noise: how long it takes does not
depend on them.
"""

import tempfile
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.clock import Figure, medians_s
from meshrec.assets import REGRESSORS
from meshrec.body import load_body_model
from meshrec.errors import MeshrecError
from meshrec.export_onnx import INPUT, OUTPUTS, export_onnx
from meshrec.metrics import pa_mpjpe_mm, root_relative
from meshrec.models.mesh_file import open_regressor
from meshrec.models.part_attention import Regressed
from meshrec.models.regressor import CHANNELS, MeshNetConfig, MeshRegressor, Precision, for_inference
from meshrec.skeletons import H36M17
from meshrec.types import BodyParams

CROPS = 4
"""Of one photograph with some people."""

PEER = "the network, eager"


def inference(precision: Precision, repeats: int) -> Figure:
    """Crops a second."""
    network, whose = _network()
    light, crops = for_inference(network, precision), _crops(CROPS)

    def peer() -> Regressed:
        with torch.no_grad():
            return network(crops)

    ours_s, peer_s = medians_s(lambda: light(crops), peer, repeats=repeats)
    note = whose if precision == "float32" else f"{whose}; the peer computes in float32"
    return Figure(CROPS / ours_s, "crops/s", CROPS / peer_s, PEER, note, more_is_better=True)


def difference(repeats: int) -> Figure:
    """The largest difference that folding and the order of channels make to an entry of a rotation."""
    del repeats
    network, whose = _network()
    crops = _crops(2 * CROPS)
    with torch.no_grad():
        apart = (for_inference(network)(crops).rotations - network(crops).rotations).abs().max()
    return Figure(float(apart), "1", note=whose)


def bfloat16_loss(repeats: int) -> Figure:
    """By how much the joints of the answers in bfloat16 are off those in float32, by PA-MPJPE."""
    del repeats
    network, whose = _network()
    crops = _crops(2 * CROPS)
    single, half = (_joints_m(for_inference(network, precision)(crops)) for precision in ("float32", "bfloat16"))
    return Figure(float(pa_mpjpe_mm(half, single).mean()), "mm", note=f"{whose}; on noise")


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


@torch.no_grad()
def _joints_m(said: Regressed) -> Float[Tensor, "N 17 3"]:
    root, below = said.rotations[:, 0], said.rotations[:, 1:]
    params = BodyParams(root, below, said.betas, torch.zeros(len(root), 3))
    return root_relative(load_body_model().regressed(params, H36M17), H36M17)


@cache
def _network() -> tuple[MeshRegressor, str]:
    """The one that ships, or one at its random start."""
    try:
        return open_regressor(REGRESSORS.prefix), "the shipped regressor"
    except MeshrecError:
        network = MeshRegressor(MeshNetConfig(), torch.Generator().manual_seed(0)).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network(torch.randn(8, CHANNELS["rgb"], 128, 128, generator=torch.Generator().manual_seed(1)))
    return network.eval().requires_grad_(False), "random weights"


def _crops(count: int) -> Float[Tensor, "N C S S"]:
    config = _network()[0].config
    shape = (count, CHANNELS[config.input], config.crop_px, config.crop_px)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))
