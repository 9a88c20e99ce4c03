"""Named tensors in safetensors files, with a header in JSON: one file, so the two can never differ."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from meshrec.errors import MeshrecError
from meshrec.files import write_whole

HEADER = "meshrec"
"""The header's name in the file's metadata."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: str) -> Path:
    """Write tensors and a header, JSON text, whole or not at all."""
    whole = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    return write_whole(path, lambda neighbour: _save(whole, neighbour, header))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file, on the CPU, and its header; empty where another program wrote the file."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, (file.metadata() or {}).get(HEADER, "")
    except OSError as error:
        raise MeshrecError(f"Cannot read {path}: {error.strerror or error}.") from error
    except SafetensorError as error:
        raise MeshrecError(f"{path} is no safetensors file, or is cut off ({error}). Take another file.") from error


def _save(tensors: dict[str, Tensor], path: Path, header: str) -> None:
    """safetensors wraps what the disk says in an error of its own."""
    try:
        save_file(tensors, path, {HEADER: header})
    except SafetensorError as error:
        raise OSError(str(error).rpartition("I/O error: ")[2]) from error
