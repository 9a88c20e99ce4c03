"""Files that appear whole or not at all."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from meshrec.errors import MeshrecError


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


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _cannot_write(path: Path, error: OSError) -> MeshrecError:
    full = error.errno in (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "Free some space, or choose" if full else "Choose"
    return MeshrecError(f"Cannot write {path}: {error.strerror or error}. {advice} another folder with -o DIR.")
