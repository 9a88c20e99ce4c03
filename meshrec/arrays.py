"""Arrays of files, read without running anything and without more memory than they may take."""

import lzma
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from meshrec.errors import MeshrecError

MAX_BYTES = 2 * 10**9
"""The arrays of one file may not take more than this; an hour of motion takes a twentieth of it."""

UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    LookupError,
    MemoryError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)
"""What numpy and zipfile raise at a damaged, encrypted or hostile file."""

NPY_START = b"\x93NUMPY"


def array_names(path: Path) -> tuple[str, ...]:
    """The names of the arrays of an `.npz`, in the order of the file; none of them is read."""
    with _archive(path) as archive:
        return tuple(_members(archive))


def read_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`, those of `names` that it has or all of them, without pickles and of bounded size."""
    with _archive(path) as archive:
        members = {name: entry for name, entry in _members(archive).items() if names is None or name in names}
        _refuse_above_the_bound(path, sum(entry.file_size for entry in members.values()))
        arrays = {}
        for name, entry in members.items():
            with _advice(f"the field {name} of {path}"), archive.open(entry) as file:
                arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
        return arrays


def read_array(path: Path) -> np.ndarray:
    """The array of an `.npy`, without pickles and of bounded size."""
    try:
        with path.open("rb") as file:
            if file.read(len(NPY_START)) != NPY_START:
                raise MeshrecError(f"{path} is no plain .npy array. Download or convert it again.")
            size = file.seek(0, os.SEEK_END)
            _refuse_above_the_bound(path, size)
            file.seek(0)
            with _advice(str(path)):
                return np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise MeshrecError(f"Cannot read {path}: {error.strerror or error}.") from error


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except OSError as error:
        raise MeshrecError(f"Cannot read {path}: {error.strerror or error}.") from error
    except UNREADABLE as error:
        raise MeshrecError(
            f"{path} is no .npz archive, or is cut off ({error}). Download or convert it again."
        ) from error


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The arrays of an archive by name; numpy stores each as `NAME.npy`."""
    entries = (entry for entry in archive.infolist() if entry.filename.endswith(".npy"))
    return {entry.filename.removesuffix(".npy"): entry for entry in entries}


def _refuse_above_the_bound(path: Path, size: int) -> None:
    if size > MAX_BYTES:
        raise MeshrecError(
            f"{path} unpacks to {size / 1e6:.1f} MB, more than the {MAX_BYTES / 1e6:.1f} MB that are read; refused."
        )


@contextmanager
def _advice(what: str) -> Iterator[None]:
    """Turn what numpy and zipfile say of an array into one sentence."""
    try:
        yield
    except UNREADABLE as error:
        if "Object arrays" in str(error):
            raise MeshrecError(
                f"{what} holds Python objects, which are never loaded. Save it as a plain array of numbers or text."
            ) from error
        raise MeshrecError(f"{what} is damaged or cut off ({error}). Download or convert the file again.") from error
