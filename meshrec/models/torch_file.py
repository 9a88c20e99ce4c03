"""Files that `torch.save` wrote, read without running anything that they say: their named tensors and nothing else.

Such a file is a pickle, which is read by `inert_pickle`, and the numbers of its tensors. The numbers are decoded
afterwards, those that are asked for. Both layouts are read: the archive, and what torch wrote before 1.6.
"""

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from meshrec.errors import MeshrecError
from meshrec.inert_pickle import BadFileError, Inert, InertUnpickler, kind_of, walk

MAX_PROGRAM = 100_000_000
"""Bytes of the pickle alone; the largest known take one hundredth."""

ENTRY = b"PK\x03\x04"
"""What an archive, and every entry in it, begins with."""

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

STATE_DICT = "state_dict"
"""Where trainers put the tensors when they save more than them."""

DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}

MALFORMED = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    AttributeError,
    LookupError,
    MemoryError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What the unpickler, zipfile and torch raise at a file that makes no sense."""

MAX_COUNT = 2**48
"""Of numbers, along each axis of a tensor; the largest disks hold fewer."""

MAX_AXES = 16

MAX_REASON = 300
"""Letters of what is said of a file: a name in it may be as long as the file."""


@dataclass(frozen=True)
class _Storage:
    """A run of numbers of one type, somewhere in the file."""

    key: str
    dtype: torch.dtype
    count: int

    def __setstate__(self, state: Any) -> None:
        raise BadFileError("changes a storage that it has described")


@dataclass(frozen=True)
class _View:
    """A tensor: which numbers of a storage, in which order."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        if math.prod(self.shape) > self.storage.count or self.end > self.storage.count:
            raise BadFileError(f"has the shape {self.shape}, of which its file holds {self.storage.count} numbers")

    @property
    def end(self) -> int:
        """One past the last number; for an empty tensor 0."""
        if 0 in self.shape:
            return 0
        return 1 + self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))

    def empty(self, device: str) -> Tensor:
        """A tensor of its shape and type, with no numbers yet."""
        return torch.empty(self.shape, dtype=self.storage.dtype, device=device)


class TorchFile:
    """A file that `torch.save` wrote: the tensors of the saved dictionary, or of the `state_dict` inside it.

    `read` gives their numbers.
    """

    layout: dict[str, Tensor]
    """The tensors without their numbers, on the meta device."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                saved, self._places = _of_archive(file) if file.read(4) == ENTRY else _of_legacy(file)
            self._views = _views(saved)
            self.layout = {name: view.empty("meta") for name, view in self._views.items()}
        except OSError as error:
            raise MeshrecError(f"Cannot read {path}: {error.strerror or error}.") from error
        except MALFORMED as error:
            raise MeshrecError(
                f"{path} holds no weights that torch saved: it {_reason(error)}. Take another file, or get it again."
            ) from error

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """These of the tensors, on the CPU."""
        try:
            with self.path.open("rb") as file:
                return {name: self._tensor(file, self._views[name]) for name in names}
        except OSError as error:
            raise MeshrecError(f"Cannot read {self.path}: {error.strerror or error}.") from error
        except MALFORMED as error:
            raise MeshrecError(f"{self.path} is damaged: it {_reason(error)}. Download the file again.") from error

    def _tensor(self, file: BufferedIOBase, view: _View) -> Tensor:
        dtype, numbers = view.storage.dtype, view.end - view.offset
        if view.end == 0:
            return view.empty("cpu")
        place = self._places[view.storage.key]
        file.seek(place + view.offset * dtype.itemsize)
        raw = bytearray(_exactly(file, numbers * dtype.itemsize))
        return torch.frombuffer(raw, dtype=dtype).as_strided(view.shape, view.stride).clone()


def _of_archive(file: BufferedIOBase) -> tuple[Any, dict[str, int]]:
    """What the program of an archive builds, and where in the file each storage begins."""
    with zipfile.ZipFile(file) as archive:
        programs = [entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")]
        if len(programs) != 1:
            raise BadFileError(f"is an archive with {len(programs)} programs `data.pkl`, not one")
        (program,) = programs
        folder = program.filename.removesuffix("data.pkl")
        entries = {entry.filename.removeprefix(folder): entry for entry in archive.infolist()}
        if "constants.pkl" in entries:
            raise BadFileError("is a TorchScript program, not a dictionary of weights")
        if packed := [entry.filename for entry in entries.values() if entry.compress_type != zipfile.ZIP_STORED]:
            raise BadFileError(f"is compressed at {packed[0]}, which torch never does")
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise BadFileError("has its numbers in another byte order")
        saved, storages = _built(_bounded(file, _start(file, program), program.file_size))
    places = {}
    for storage in storages.values():
        entry = entries[f"data/{storage.key}"]
        if entry.file_size < storage.count * storage.dtype.itemsize:
            raise BadFileError(f"has {entry.file_size} bytes for {storage.count} numbers at {entry.filename}")
        places[storage.key] = _start(file, entry)
    return saved, places


def _start(file: BufferedIOBase, entry: zipfile.ZipInfo) -> int:
    """Where the bytes of an entry that is not compressed begin: after a header of its own."""
    file.seek(entry.header_offset)
    signature, name, extra = struct.unpack("<4s22xHH", _exactly(file, 30))
    if signature != ENTRY:
        raise BadFileError(f"is damaged at {entry.filename}")
    return entry.header_offset + 30 + name + extra


def _of_legacy(file: BufferedIOBase) -> tuple[Any, dict[str, int]]:
    """As `_of_archive`, for what torch wrote before 1.6: five programs, then the numbers of each storage."""
    file.seek(0)
    magic, _ = _built(_program(file))
    if magic != LEGACY_MAGIC:
        raise BadFileError("begins with another program")
    version, _ = _built(_program(file))
    machine, _ = _built(_program(file))
    if version != LEGACY_PROTOCOL or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise BadFileError("is of another version, or has its numbers in another byte order")
    saved, storages = _built(_program(file))
    keys, _ = _built(_program(file))
    places = {}
    for key in keys:
        (count,) = struct.unpack("<q", _exactly(file, 8))
        if _text(key) not in storages or count != storages[key].count:
            raise BadFileError(f"has {count} numbers for a storage that it does not describe so, {key}")
        places[key] = file.tell()
        file.seek(count * storages[key].dtype.itemsize, io.SEEK_CUR)
    return saved, places


def _program(file: BufferedIOBase) -> bytes:
    """The pickle that begins here; the file then stands behind it."""
    start = file.tell()
    walk(file)
    return _bounded(file, start, file.tell() - start)


def _bounded(file: BufferedIOBase, start: int, size: int) -> bytes:
    if size > MAX_PROGRAM:
        raise BadFileError(f"has a program of {size} bytes")
    file.seek(start)
    return _exactly(file, size)


def _exactly(file: BufferedIOBase, size: int) -> bytes:
    """So many bytes; they are counted before memory is taken for them."""
    here = file.tell()
    end = file.seek(0, io.SEEK_END)
    if here + size > end:
        raise BadFileError(f"is cut off after {end} bytes")
    file.seek(here)
    return file.read(size)


def _built(program: bytes) -> tuple[Any, dict[str, _Storage]]:
    """What a program builds of stand-ins, and the storages that it names."""
    walk(io.BytesIO(program))
    reader = _Reader(io.BytesIO(program))
    return reader.load(), reader.storages


class _Reader(InertUnpickler):
    """The unpickler of what `torch.save` writes, which notes the storages."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        """("storage", its type, its key, its device, how many numbers), and in old files None."""
        what, kind, key, _, count, *view = pid
        if what != "storage" or any(part is not None for part in view) or not _counts((count,)):
            raise BadFileError("has a storage of an unknown form")
        asked = kind.asked if isinstance(kind, type) and issubclass(kind, Inert) else kind_of(kind)
        if asked not in DTYPES or not isinstance(key, str):
            raise BadFileError(f"has numbers of an unknown type, {asked}")
        storage = _Storage(key, DTYPES[asked], count)
        known = self.storages.setdefault(key, storage)
        if known != storage:
            raise BadFileError(f"says two things of its storage {key}")
        return known


def _views(saved: Any) -> dict[str, _View]:
    """The named tensors of what was saved."""
    named = saved.get(STATE_DICT, saved) if isinstance(saved, dict) else saved
    if not isinstance(named, dict) or not named:
        raise BadFileError(f"holds a {kind_of(named)}, not named tensors")
    return {_text(name): _view(name, value) for name, value in named.items()}


def _view(name: Any, value: Any) -> _View:
    if isinstance(value, Inert) and value.asked == "torch._utils._rebuild_parameter":
        value = value.arguments[0]
    if not isinstance(value, Inert) or value.asked != "torch._utils._rebuild_tensor_v2":
        raise BadFileError(f"has {_text(name)[:60]!r}, a {kind_of(value)}, where a tensor should be")
    try:
        return _View(*_checked(*value.arguments[:4]))
    except BadFileError as error:
        raise BadFileError(f"has the tensor {_text(name)[:60]}, which {error}") from error


def _checked(storage: Any, offset: Any, shape: Any, stride: Any) -> tuple[_Storage, int, Any, Any]:
    if not isinstance(storage, _Storage) or not _counts((offset,), shape, stride) or len(shape) != len(stride):
        raise BadFileError("is a damaged tensor")
    return storage, offset, shape, stride


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise BadFileError(f"has a name that is no text but a {kind_of(name)}")
    return name


def _counts(*groups: Any) -> bool:
    """Whether these are short tuples of whole numbers from 0 on."""
    short = all(isinstance(group, tuple) and len(group) <= MAX_AXES for group in groups)
    return short and all(type(n) is int and 0 <= n <= MAX_COUNT for group in groups for n in group)


def _reason(error: BaseException) -> str:
    told = str(error).partition("\n")[0][:MAX_REASON]
    return told if isinstance(error, BadFileError) else f"makes no sense ({type(error).__name__}: {told})"
