"""A collection of poses: clips of many people, on disk or in memory, frame by frame for training and measuring.

On disk it is a folder of `axis_angle.npy (N, 24, 3)`, `transl_m.npy (N, 3)`, `valid.npy (N,)`, and `clips.json`, which
says what each run of rows is. The arrays are mapped, so a collection opens at once and may be larger than the memory.
Rotations kept in float16 are off by 0.0015 rad at most, and by 0.0005 rad where the angle is below 1 rad.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from meshrec.arrays import UNREADABLE
from meshrec.data.motion import Motion, Reading
from meshrec.data.motion_files import find_motion_files, read_motions
from meshrec.errors import MeshrecError
from meshrec.files import whole_folder, write_text
from meshrec.skeletons import SMPL24

Precision = Literal["float16", "float32"]

MARK = "clips.json"

ARRAYS: dict[str, tuple[int, ...]] = {"axis_angle": (len(SMPL24), 3), "transl_m": (3,), "valid": ()}
"""The arrays of a collection, and the shape of a row."""

OURS = re.compile(rf"{re.escape(MARK)}|({'|'.join(ARRAYS)})\.npy")


@dataclass(frozen=True)
class Clip:
    """What a run of rows is."""

    name: str
    subject: str
    source: str
    start: int
    length: int
    fps: float
    file: str
    """The file that it was read from."""


@dataclass(frozen=True)
class Index:
    """What `clips.json` holds."""

    format: Literal["meshrec poses 1"]
    precision: Precision
    frames: int
    valid_frames: int
    licence: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class Part:
    """Clips one after another: a collection on disk, or the motions of a path."""

    clips: tuple[Clip, ...]
    axis_angle: Float[np.ndarray, "N 24 3"]
    transl_m: Float[np.ndarray, "N 3"]
    valid: Bool[np.ndarray, "N"]
    licence: str = ""
    """What its maker noted of the terms of use."""


@dataclass(frozen=True)
class PoseCollection:
    """Poses by row: the rows of its parts, one after another."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, motions: Iterable[Motion]) -> "PoseCollection":
        """The motions as one part in memory, in float32."""
        gathered = tuple(motions)
        if not gathered:
            raise ValueError("a collection needs at least one motion")
        clips = tuple(_clips(gathered))
        columns = {name: np.concatenate([getattr(motion, name) for motion in gathered]) for name in ARRAYS}
        axis_angle, transl_m = (columns[name].astype(np.float32) for name in ("axis_angle", "transl_m"))
        return cls((Part(clips, axis_angle, transl_m, columns["valid"]),))

    def __len__(self) -> int:
        return int(self._ends[-1])

    @cached_property
    def _ends(self) -> Int[np.ndarray, "P"]:
        """One past the last row of each part."""
        return np.cumsum([len(part.valid) for part in self.parts])

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        """Every clip, its start a row of the whole collection."""
        shifts = [0, *self._ends[:-1].tolist()]
        parts = zip(self.parts, shifts, strict=True)
        return tuple(replace(clip, start=clip.start + shift) for part, shift in parts for clip in part.clips)

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """Who is in it, each once: clips of one name are one person's, whatever data set they are from."""
        return tuple(sorted({clip.subject for clip in self.clips}))

    @cached_property
    def subject_of_clip(self) -> Int[np.ndarray, "C"]:
        """Where in `subjects` each clip's person stands."""
        return np.searchsorted(self.subjects, [clip.subject for clip in self.clips])

    def clip_of(self, rows: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """Where in `clips` the clip of each row stands."""
        return np.searchsorted([clip.start for clip in self.clips], self._known(rows), side="right") - 1

    def subject_of(self, rows: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """Where in `subjects` the person of each row stands."""
        return self.subject_of_clip[self.clip_of(rows)]

    def part_of(self, rows: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """Which part, that is which of the paths of `open_poses`, each row is from."""
        return np.searchsorted(self._ends, self._known(rows), side="right")

    def rows(self, subjects: Collection[str] | None = None, without: Collection[str] = ()) -> Int[np.ndarray, "n"]:
        """The valid rows of these people, or of all, but none of `without`, who need not be in the collection."""
        if unknown := sorted(set(subjects or ()) - set(self.subjects)):
            raise MeshrecError(
                f"Nobody among the poses is called {', '.join(unknown)}: {', '.join(self.subjects)} are."
            )
        chosen = set(self.subjects if subjects is None else subjects) - set(without)
        wanted = np.repeat([clip.subject in chosen for clip in self.clips], [clip.length for clip in self.clips])
        return np.flatnonzero(np.concatenate([part.valid for part in self.parts]) & wanted)

    def split(self, held_out: Collection[str]) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m"]]:
        """The valid rows of everyone else, and those of the people held out; a frame alone is never held out."""
        return self.rows(without=held_out), self.rows(held_out)

    def rotations(self, rows: Int[np.ndarray, "n"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "n 24 3 3"]:
        """Local rotations, the root first; y up."""
        return roma.rotvec_to_rotmat(torch.from_numpy(self._gathered("axis_angle", rows)).to(dtype))

    def transl_m(self, rows: Int[np.ndarray, "n"]) -> Float[Tensor, "n 3"]:
        """Places of the pelvis; y up."""
        return torch.from_numpy(self._gathered("transl_m", rows))

    def _gathered(self, name: str, rows: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n *row"]:
        gathered = np.empty((len(rows), *ARRAYS[name]), np.float32)
        parts = self.part_of(rows)
        for part in np.unique(parts):
            array = getattr(self.parts[part], name)
            gathered[parts == part] = array[rows[parts == part] - self._ends[part] + len(array)]
        return gathered

    def _known(self, rows: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise ValueError(f"rows are 0 to {len(self) - 1}, not {rows.min()} to {rows.max()}")
        return rows


def open_poses(paths: Sequence[Path], hz: float | None = None, reading: Reading | None = None) -> PoseCollection:
    """Collections, files of motion and folders of these as one, a part for each path; any fault is an error.

    Files of motion are read into memory, thinned to `hz` frames a second; a collection stays on disk, as it is.
    """
    if not paths:
        raise MeshrecError("No poses are named: give collections, files of motion or folders of these.")
    return PoseCollection(tuple(part for path in paths for part in _opened(path, hz, reading).parts))


def _opened(path: Path, hz: float | None, reading: Reading | None) -> PoseCollection:
    if (path / MARK).is_file():
        return open_collection(path)
    motions = (motion for file in find_motion_files([path]) for motion in _read(file, reading))
    return PoseCollection.of(motion.every_hz(hz) if hz else motion for motion in motions)


def _read(file: Path, reading: Reading | None) -> list[Motion]:
    try:
        return read_motions(file, reading)
    except MeshrecError as error:
        raise MeshrecError(
            f"{error} To leave out what is faulty and to thin the rest, collect the files once with "
            f"tools/collect_poses.py and name the collection instead."
        ) from error


def write_collection(
    path: Path, motions: Iterable[Motion], precision: Precision = "float16", licence: str = ""
) -> PoseCollection:
    """Write motions as they come to the folder `path`, whole or not at all, and open it."""
    with whole_folder(path, MARK, OURS) as folder:
        clips = _write_frames(folder, motions, precision)
        if not clips:
            raise MeshrecError(f"There is no motion to collect in {path}.")
        frames, valid_frames = clips[-1].start + clips[-1].length, int(_mapped(folder / "valid.npy").sum())
        index = Index("meshrec poses 1", precision, frames, valid_frames, licence, clips)
        write_text(folder / MARK, TypeAdapter(Index).dump_json(index, indent=1).decode() + "\n")
    return open_collection(path)


def _write_frames(folder: Path, motions: Iterable[Motion], precision: Precision) -> tuple[Clip, ...]:
    """Write the arrays; the clips of them."""
    with ExitStack() as files:
        appends = [
            (name, files.enter_context(_growing(folder / f"{name}.npy", dtype)))
            for name, dtype in _dtypes(precision).items()
        ]

        def written() -> Iterator[Motion]:
            for motion in motions:
                for name, append in appends:
                    append(getattr(motion, name))
                yield motion

        return tuple(_clips(written()))


def _dtypes(precision: Precision) -> dict[str, str]:
    return {"axis_angle": precision, "transl_m": "float32", "valid": "bool"}


def _clips(motions: Iterable[Motion]) -> Iterator[Clip]:
    """One clip a motion, one after another."""
    start = 0
    for motion in motions:
        yield Clip(motion.name, motion.subject, motion.source, start, len(motion), motion.fps, motion.file)
        start += len(motion)


@contextmanager
def _growing(path: Path, dtype: str) -> Iterator[Callable[[np.ndarray], None]]:
    """An `.npy` that grows row by row: its header has room for any number of them and is written again at the end."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
    row, rows = ARRAYS[path.stem], 0

    def append(more: Shaped[np.ndarray, "T *row"]) -> None:
        nonlocal rows
        with np.errstate(over="ignore", invalid="ignore"):
            file.write(np.ascontiguousarray(more, dtype).tobytes())
        rows += len(more)

    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header | {"shape": (rows, *row)})
        start = file.tell()
        yield append
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header | {"shape": (rows, *row)})
        assert file.tell() == start, "numpy leaves room for the number of rows"
        file.flush()
        os.fsync(file.fileno())


def open_collection(path: Path) -> PoseCollection:
    """A collection on disk; its arrays are read when rows are asked for."""
    index = _read_index(path / MARK)
    arrays = {name: _mapped(path / f"{name}.npy") for name in ARRAYS}
    for name, dtype in _dtypes(index.precision).items():
        array = arrays[name]
        if array.shape != (index.frames, *ARRAYS[name]) or array.dtype != dtype:
            raise _damaged(path, f"{name}.npy is {array.dtype} {array.shape} and does not fit {MARK}")
    start = 0
    for clip in index.clips:
        if clip.start != start or clip.length < 1 or not 0 < clip.fps < float("inf"):
            raise _damaged(path, f"the clip {clip.name} has a start, length or frame rate that cannot be")
        start += clip.length
    if start != index.frames or int(arrays["valid"].sum()) != index.valid_frames:
        raise _damaged(path, f"the frames of its clips, or the valid ones, are not as many as {MARK} says")
    return PoseCollection((Part(index.clips, **arrays, licence=index.licence),))


def _read_index(path: Path) -> Index:
    try:
        return TypeAdapter(Index).validate_json(path.read_bytes())
    except OSError as error:
        raise MeshrecError(f"{path.parent} is no collection of poses: cannot read {path.name}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise _damaged(path.parent, f"in {path.name}, {where}: {first['msg']}") from error


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise _damaged(path.parent, f"cannot read {path.name} ({error.strerror or error})") from error
    except UNREADABLE as error:
        raise _damaged(path.parent, f"{path.name} is cut off or no array ({error})") from error


def _damaged(path: Path, what: str) -> MeshrecError:
    return MeshrecError(f"The collection of poses {path} is damaged: {what}. Collect it again.")
