"""Where a run stands, in few bytes, to be carried to another machine: there it goes on, though not to the same bits.

A folder of safetensors and a card. Large tensors are packed in blocks of `BLOCK` numbers, all else stays as it is:

- weights: float16;
- their average: its difference to these, in 8 bits, even steps up to the block's largest;
- Adam's moments m and v: the step m / sqrt(v), which is what is made of them, in 8 bits alike; and log v in 8 bits,
  even steps over the block's range. So the next step is off by 1/254 of the block's largest however wide v ranges.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int8, UInt8
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from torch.nn.functional import pad

from meshrec.errors import MeshrecError
from meshrec.files import whole_folder, write_text
from meshrec.tensor_files import read_tensors, write_tensors
from meshrec.train.checkpoint import State

MARK = "portable.json"
OURS = re.compile(rf"{re.escape(MARK)}|part_\d+\.safetensors")

LARGE = 1024
"""Tensors of fewer numbers stay as they are."""

BLOCK = 256

STEPS = 127
"""Even steps of 8 bits on either side of 0."""

LEVELS = 254
"""Even steps of 8 bits above their lowest level; one more code is 0 itself."""

WIDEST = math.log(1e12)
"""A second moment below exp(-WIDEST) of its block's largest is raised to that: it then steps less far, not farther."""

PART_BYTES = 14 * 2**20
"""Of each file, unless one tensor alone is larger."""

FIRST, SECOND = "/exp_avg", "/exp_avg_sq"
"""How the names of Adam's moments end, in torch and here."""

SCALE, HIGH, SPAN = ":scale", ":high", ":span"
"""What is appended to the name of a packed tensor for its blocks' numbers."""


@dataclass(frozen=True)
class PortableCard:
    """What `portable.json` holds."""

    format: Literal["meshrec run 1"]
    state: State
    parts: dict[str, str]
    """Each file's SHA-256."""


_CARDS = TypeAdapter(PortableCard)


def write_portable(folder: Path, state: State, tensors: Mapping[str, Tensor]) -> Path:
    """Write where a run stands, as its last checkpoint tells it, whole or not at all."""
    with whole_folder(folder, MARK, OURS) as neighbour:
        parts: dict[str, str] = {}
        for number, part in enumerate(_parts(packed(tensors))):
            path = write_tensors(neighbour / f"part_{number}.safetensors", part, "")
            parts[path.name] = _digest(path)
        card = PortableCard("meshrec run 1", state, parts)
        write_text(neighbour / MARK, _CARDS.dump_json(card, indent=1).decode() + "\n")
    return folder


def read_portable(folder: Path) -> tuple[State, dict[str, Tensor]]:
    """What `write_portable` was given, off by the roundings of `packed`; all else is refused with the reason."""
    path = folder / MARK
    try:
        card = _CARDS.validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MeshrecError(
            f"{folder} holds no state of a run: cannot read {path} ({error.strerror or error}). Name a folder that a "
            f"run with --loop.portable has written."
        ) from error
    except ValueError as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise MeshrecError(f"{path} is damaged ({reason}). Copy the folder again.") from error
    tensors: dict[str, Tensor] = {}
    for name, digest in card.parts.items():
        part = folder / name
        if not part.is_file() or _digest(part) != digest:
            raise MeshrecError(f"{part} is missing or not what {MARK} says it is. Copy the whole folder again.")
        tensors |= read_tensors(part)[0]
    return card.state, unpacked(tensors)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parts(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The tensors in order, as many together as a file may have."""
    part: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if part and size + tensor.nbytes > PART_BYTES:
            yield part
            part, size = {}, 0
        part[name] = tensor
        size += tensor.nbytes
    yield part


# ---- what becomes of each tensor


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint in about 5 bytes for each weight, with average and Adam's moments."""
    told: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if tensor.numel() < LARGE or not tensor.is_floating_point():
            told[name] = tensor
        elif kind == "average":
            told[name], told[name + SCALE] = _linear(tensor - _half(f"model/{rest}", tensors).to(tensor))
        elif name.endswith(FIRST):
            second = tensors[name.removesuffix(FIRST) + SECOND]
            told[name], told[name + SCALE] = _linear(torch.where(second > 0, tensor / second.sqrt(), 0.0))
        elif name.endswith(SECOND):
            told[name], told[name + HIGH], told[name + SPAN] = _logarithmic(tensor)
        else:
            told[name] = _half(name, tensors)
    return told


def unpacked(told: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that were packed, in float32."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in told.items():
        if name.endswith(SECOND) and name + HIGH in told:
            tensors[name] = _of_logarithmic(tensor, told[name + HIGH], told[name + SPAN])
        elif not name.endswith((SCALE, HIGH, SPAN)):
            tensors[name] = tensor.float() if tensor.dtype == torch.float16 else tensor
    for name in [name for name in tensors if name + SCALE in told]:
        steps = _of_linear(tensors[name], told[name + SCALE])
        if name.endswith(FIRST):
            tensors[name] = steps * tensors[name.removesuffix(FIRST) + SECOND].sqrt()
        else:
            tensors[name] = tensors[f"model/{name.partition('/')[2]}"] + steps
    return tensors


def _half(name: str, tensors: Mapping[str, Tensor]) -> Float[Tensor, "*shape"]:
    half = tensors[name].half()
    if not half.isfinite().all():
        raise MeshrecError(f"The weights {name} are beyond float16, so they cannot be carried elsewhere.")
    return half


def _linear(values: Float[Tensor, "*shape"]) -> tuple[Int8[Tensor, "*shape"], Float[Tensor, "blocks"]]:
    """Codes and the largest of each block: the nearest of even steps between its negative and itself."""
    blocks = _blocks(values)
    largest = blocks.abs().amax(-1)
    codes = (blocks / largest[:, None].clamp_min(torch.finfo(largest.dtype).tiny) * STEPS).round()
    return _shaped(codes, values).to(torch.int8), largest


def _of_linear(codes: Int8[Tensor, "*shape"], largest: Float[Tensor, "blocks"]) -> Float[Tensor, "*shape"]:
    return _shaped(_blocks(codes.float()) * (largest / STEPS)[:, None], codes)


def _logarithmic(
    values: Float[Tensor, "*shape"],
) -> tuple[UInt8[Tensor, "*shape"], Float[Tensor, "blocks"], Float[Tensor, "blocks"]]:
    """Codes, the logarithm of each block's largest and how far below it the others reach; code 0 is the number 0."""
    blocks = _blocks(values)
    logs = torch.where(blocks > 0, blocks, torch.inf).log()
    high = torch.where(blocks > 0, logs, -torch.inf).amax(-1)
    high = torch.where(high.isfinite(), high, 0.0)
    span = (high - torch.minimum(logs.amin(-1), high)).clamp(max=WIDEST)
    below = ((high[:, None] - logs) / span[:, None].clamp_min(1e-6)).clamp(0, 1)
    codes = torch.where(blocks > 0, 1 + LEVELS - (LEVELS * below).round(), 0.0)
    return _shaped(codes, values).to(torch.uint8), high, span


def _of_logarithmic(
    codes: UInt8[Tensor, "*shape"], high: Float[Tensor, "blocks"], span: Float[Tensor, "blocks"]
) -> Float[Tensor, "*shape"]:
    blocks = _blocks(codes.float())
    below = (1 + LEVELS - blocks) / LEVELS
    return _shaped(torch.where(blocks > 0, (high[:, None] - span[:, None] * below).exp(), 0.0), codes)


def _blocks(values: Float[Tensor, "*shape"]) -> Float[Tensor, "blocks B"]:
    """The numbers in order, `BLOCK` a row, the last row filled up with 0."""
    flat = values.reshape(-1)
    return pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)


def _shaped(blocks: Tensor, like: Tensor) -> Tensor:
    return blocks.reshape(-1)[: like.numel()].view(like.shape)
