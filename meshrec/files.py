"""Files that appear whole or not at all, arrays that run nothing when they are read, and a silent error stream."""

import lzma
import os
import re
import shutil
import struct
import sys
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
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

STDERR = 2
"""The file descriptor of the error stream."""


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Call `write` on a temporary neighbour of `path`, sync it to the disk and rename it to `path`.

    The neighbour keeps the suffix of `path`, because many writers choose their format by it. On any failure the
    neighbour is removed and whatever stood at `path` before is untouched. A full disk, a read-only folder or a file in
    the way of a folder is a `MeshrecError`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise _cannot_write(path, error) from error
    neighbour = Path(name)
    try:
        write(neighbour)
        _sync(neighbour)
        neighbour.chmod(0o666 & ~_umask())
        neighbour.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        neighbour.unlink(missing_ok=True)
    return path


@contextmanager
def whole_folder(path: Path, mark: str, ours: re.Pattern[str]) -> Iterator[Path]:
    """A temporary neighbour of the folder `path`, which takes its place when the block ends well, and else vanishes.

    Only a folder that is empty or holds a file named `mark`, the sign of an earlier one of its kind, is replaced; files
    in it whose names are not `ours` move over.
    """
    try:
        _refuse_foreign(path, mark)
        path.parent.mkdir(parents=True, exist_ok=True)
        neighbour = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield neighbour
        neighbour.chmod(0o777 & ~_umask())
        _swap(neighbour, path, ours)
    except OSError as error:
        raise _cannot_write(path, error) from error
    except MeshrecError as error:
        raise MeshrecError(str(error).replace(str(neighbour), str(path))) from error
    finally:
        shutil.rmtree(neighbour, ignore_errors=True)


def _refuse_foreign(path: Path, mark: str) -> None:
    if path.exists() and not (path.is_dir() and ((path / mark).is_file() or not any(path.iterdir()))):
        raise MeshrecError(
            f"{path} exists and holds no {mark}, so it is left alone; choose another folder with -o DIR."
        )


def _swap(new: Path, path: Path, ours: re.Pattern[str]) -> None:
    """Put the folder `new` at `path`; what stood there goes aside first, and back if that fails."""
    if not path.exists():
        new.replace(path)
        return
    aside = new.with_name(new.name + "-old")
    path.replace(aside)
    try:
        new.replace(path)
    except BaseException:
        aside.replace(path)
        raise
    for foreign in aside.iterdir():
        if not ours.fullmatch(foreign.name):
            foreign.replace(path / foreign.name)
    shutil.rmtree(aside, ignore_errors=True)


def make_folder(path: Path) -> Path:
    """The folder `path`, made if it is not there; a `MeshrecError` where nothing can be written into it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise _cannot_write(path, error) from error
    return path


def write_text(path: Path, text: str) -> Path:
    """Write `text` as UTF-8, whole or not at all."""
    return write_whole(path, lambda neighbour: neighbour.write_text(text, encoding="utf-8"))


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


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep from the terminal what native code writes on the error stream; exceptions pass as ever.

    The stream belongs to the whole process: what other threads write meanwhile is lost too.
    """
    sys.stderr.flush()
    terminal, nowhere = os.dup(STDERR), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, STDERR)
        yield
    finally:
        os.dup2(terminal, STDERR)
        os.close(terminal)
        os.close(nowhere)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _cannot_write(path: Path, error: OSError) -> MeshrecError:
    return MeshrecError(
        f"Cannot write {path}: {error.strerror or error}. Free some space, or choose another folder with -o DIR."
    )
