"""A motion: one person, frame after frame, as rotations of SMPL's joints."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from meshrec.errors import MeshrecError

Rest = Literal["auto", "zero", "first"]
"""Where a skeleton's T-pose is: all angles zero, or the first frame."""

RATES_HZ = (0.01, 1e5)
"""The lowest and the highest frame rate that can be meant."""

LARGEST = 1e4
"""Radians or metres: float32 holds what is smaller to a thousandth; what is larger is neither."""


@dataclass(frozen=True)
class Reading:
    """What files of motion leave unsaid."""

    rest: Rest = "auto"
    """Where the T-pose of a BVH file is. `auto`: zero angles if that is one, else the first frame."""
    unit_m: float | None = None
    """Metres in a BVH or ASF file's unit of length; by default guessed from the length of the legs."""
    amc_fps: float = 120.0
    """Frames a second of AMC files, which do not say it."""
    subject_from: str = "parent"
    """Who moves, where a file does not say: `parent`, the folder's name; `name`, the file's name up to its first `_`;
    or a regular expression that is searched in the path, whose first group is the subject."""
    source: str = ""
    """The name of the data set, where a file does not say."""


@dataclass(frozen=True)
class Motion:
    """One clip."""

    name: str
    subject: str
    source: str
    """The data set that it is from."""
    fps: float
    axis_angle: Float[np.ndarray, "T 24 3"]
    """Local rotations in SMPL's joint order, radians, of pi at most; y up, and at rest the T-pose that faces +z."""
    transl_m: Float[np.ndarray, "T 3"]
    """Place of the pelvis; AMASS's is off by the pelvis's place in the rest pose."""
    valid: Bool[np.ndarray, "T"]
    """Frames to use; the others may hold anything."""
    file: str = ""
    """Where it was read."""

    def __len__(self) -> int:
        return len(self.valid)

    def every_hz(self, hz: float) -> "Motion":
        """Every k-th frame, k the whole number that comes nearest to `hz` frames a second; none is made up."""
        if hz <= 0:
            raise ValueError(f"frames are kept at a rate above 0, not {hz}")
        step = max(1, round(self.fps / hz))
        thinned = {name: getattr(self, name)[::step] for name in ("axis_angle", "transl_m", "valid")}
        return replace(self, fps=self.fps / step, **thinned)


def checked(motion: Motion) -> Motion:
    """The motion with angles of pi at most and names that can be written, if it can be one at all."""
    texts = {name: _written(getattr(motion, name)) for name in ("name", "subject", "source", "file")}
    motion = replace(motion, **texts, axis_angle=_wrapped(motion.axis_angle))
    where = f"{motion.file}: the clip {motion.name}"
    if not len(motion):
        raise MeshrecError(f"{where} has no frames.")
    if not RATES_HZ[0] <= motion.fps <= RATES_HZ[1]:
        raise MeshrecError(
            f"{where} has {motion.fps} frames a second; {RATES_HZ[0]:g} to {RATES_HZ[1]:g} can be meant."
        )
    usable = np.isfinite(motion.axis_angle).all(axis=(1, 2)) & (np.abs(motion.transl_m) < LARGEST).all(axis=1)
    if len(bad := np.flatnonzero(motion.valid & ~usable)):
        raise MeshrecError(
            f"{where} has numbers that are not finite, or above {LARGEST:g} radians or metres, first in its frame "
            f"{bad[0]} (from 0)."
        )
    return motion


def _wrapped(axis_angle: Float[np.ndarray, "T 24 3"]) -> Float[np.ndarray, "T 24 3"]:
    """The same rotations by angles of pi at most, and nan for angles above `LARGEST`; others are left as they are."""
    with np.errstate(all="ignore"):
        angles = np.linalg.norm(axis_angle.astype(np.float64), axis=-1, keepdims=True)
        turns = np.where(angles < LARGEST, np.round(angles / (2 * np.pi)), np.nan)
        return np.where(turns == 0, axis_angle, axis_angle * (1 - 2 * np.pi * turns / angles)).astype(axis_angle.dtype)


def _written(text: str) -> str:
    """The text with a question mark for what UTF-8 cannot write: names of files may hold it."""
    return text.encode("utf-8", "replace").decode()


def subject_of(path: Path, subject_from: str) -> str:
    """Who moves in the file at `path`: see `Reading.subject_from`."""
    if subject_from == "parent":
        return path.absolute().parent.name
    if subject_from == "name":
        return path.stem.partition("_")[0]
    try:
        found = re.search(subject_from, path.as_posix())
    except re.error as error:
        raise MeshrecError(
            f"Subjects cannot be found by {subject_from!r} ({error}): give parent, name or a regular expression."
        ) from error
    if found is None:
        raise MeshrecError(f"{path} has no subject in its path: {subject_from!r} is not found there.")
    return found.group(1 if found.re.groups else 0) or ""
