"""Files of mesh regressors: safetensors whose header is the regressor's configuration; and regressors by name."""

from pathlib import Path

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from meshrec.assets import find_regressor
from meshrec.errors import MeshrecError
from meshrec.models.backbones import COARSEST
from meshrec.models.checkpoint import read_official
from meshrec.models.network_tensors import as_stored, first_mismatch, put_checked, refused, run_settings
from meshrec.models.regressor import CHANNELS, MeshNetConfig, MeshRegressor
from meshrec.tensor_files import read_tensors, write_tensors

OURS = "network."
"""What the names of a regressor's tensors and settings begin with in a training run's files."""

_HEADERS = TypeAdapter(tuple[MeshNetConfig], config=ConfigDict(extra="forbid"))
"""Of a tuple of one: pydantic takes no rules for a dataclass, but hands a tuple's down to its items."""


def open_regressor(name_or_path: str | Path) -> MeshRegressor:
    """A mesh regressor by name or path: one of ours, or a published checkpoint."""
    path = find_regressor(name_or_path)
    return read_regressor(path) if path.suffix == ".safetensors" else read_official(path)


def write_regressor(path: Path, network: MeshRegressor) -> Path:
    """Write a regressor whole or not at all: what it learned in float16, its statistics in float32."""
    state, parameters = network.state_dict(), dict(network.named_parameters())
    if mismatch := first_mismatch(state, _empty(network.config).state_dict()):
        raise ValueError(f"only a regressor as it was built can be written: {mismatch}")
    stored = {name: as_stored(tensor, name in parameters) for name, tensor in state.items()}
    for name, tensor in stored.items():
        if not tensor.isfinite().all():
            raise ValueError(f"the regressor's {name} has values that are not finite in {tensor.dtype}")
    return write_tensors(path, stored, config_json(network.config))


def read_regressor(path: Path) -> MeshRegressor:
    """What `write_regressor` wrote, or the best model of a training run, on the CPU, in float32, without gradients.

    All else is refused with the reason.
    """
    tensors, header = read_tensors(path)
    of_run = run_settings(header, OURS)
    try:
        (config,) = _HEADERS.validate_json(f"[{of_run or header}]")
    except ValidationError as error:
        raise MeshrecError(
            f"{path} is no mesh regressor: its header is not that of one. Choose another file."
        ) from error
    if any(name.startswith("optimizer/") for name in tensors):
        raise MeshrecError(f"{path} is the last checkpoint of a run; give the file best_*.safetensors beside it.")
    if of_run:
        tensors = {name.removeprefix(OURS): one for name, one in tensors.items() if name.startswith(OURS)}
    network = _empty(config)
    if mismatch := first_mismatch(tensors, network.state_dict()):
        raise refused(path, mismatch)
    put_checked(network, tensors, path)
    network.eval().requires_grad_(False)
    if not _can_answer(network):
        raise refused(path, "what it says of a grey picture is no finite number")
    return network


def config_json(config: MeshNetConfig) -> str:
    """A configuration as the header of a file has it."""
    return TypeAdapter(MeshNetConfig).dump_json(config).decode()


def _empty(config: MeshNetConfig) -> MeshRegressor:
    """A regressor without memory: what a header asks for costs nothing."""
    with torch.device("meta"):
        return MeshRegressor(config)


def _can_answer(network: MeshRegressor) -> bool:
    said = network(torch.zeros(1, CHANNELS[network.config.input], COARSEST, COARSEST))
    return all(bool(part.isfinite().all()) for part in (said.rotations, said.betas, said.weak, said.part_logits))
