"""Arrays of Python objects in an `.npz`: dicts and lists of arrays, read without running anything they say."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from meshrec.arrays import MAX_BYTES, UNREADABLE, read_arrays
from meshrec.errors import MeshrecError
from meshrec.smpl_pickle import unpickle_arrays


def read_objects(path: Path, name: str) -> Any:
    """What an `.npz` has under `name`: an array, or the dicts and lists of arrays that are pickled there; or None."""
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{name}.npy" not in archive.namelist():
                return None
            entry = archive.getinfo(f"{name}.npy")
            if entry.file_size > MAX_BYTES:
                raise MeshrecError(f"{path}: {name} unpacks to {entry.file_size / 1e6:.0f} MB; refused.")
            with archive.open(entry) as file:
                pickled = _after_header(file)
    except OSError as error:
        raise MeshrecError(f"Cannot read {path}: {error.strerror or error}.") from error
    except UNREADABLE as error:
        raise MeshrecError(f"{path} is no .npz archive, or is cut off ({error}). Download it again.") from error
    return read_arrays(path, [name])[name] if pickled is None else unpickle_arrays(path, pickled)


def _after_header(file: Any) -> bytes | None:
    """The pickle of an array of objects; None where the array holds numbers or text."""
    if np.lib.format.read_magic(file) != (1, 0):
        return None
    _, _, dtype = np.lib.format.read_array_header_1_0(file)
    return file.read() if dtype.hasobject else None
