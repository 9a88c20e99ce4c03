"""Files of motion in the layouts that there are: AMASS's, our own, BVH and ASF/AMC."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import roma
from jaxtyping import Float

from meshrec.arrays import array_names, read_arrays
from meshrec.data.asf_amc import read_amc
from meshrec.data.bvh import read_bvh
from meshrec.data.motion import Motion, Reading, checked, subject_of
from meshrec.errors import MeshrecError
from meshrec.pose_files import FRAME_RATES, read_poses_without_shape
from meshrec.skeletons import SMPL24

CLIP_FIELDS = ("clip_start", "clip_len", "clip_name", "clip_subject")

CAPTURE_FIELDS = ("poses", "trans", "valid", "fps", *CLIP_FIELDS)
"""What a file of our own layout holds: frames one after another, and for each clip its rows and whose it is."""

NO_MOTION = ("shape.npz", "*_stagei.npz")
"""Files of AMASS beside the motions: a person's shape alone."""


def read_motions(path: Path, reading: Reading | None = None) -> list[Motion]:
    """The motions of one file, told by its suffix and what is in it; any fault of it is a `MeshrecError`."""
    reading = reading or Reading()
    if (read := READERS.get(path.suffix.lower())) is None:
        raise MeshrecError(f"{path} is no file of motion: {', '.join(READERS)} are read.")
    return read(path, reading)


def find_motion_files(paths: Iterable[Path]) -> list[Path]:
    """Every file of motion among the paths and in the folders among them, in order."""
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise MeshrecError(f"There is no {path}.")
        inside = sorted(found for found in path.rglob("*") if _is_motion(found)) if path.is_dir() else [path]
        if not inside:
            raise MeshrecError(f"{path} holds no file of motion: {', '.join(READERS)} are read.")
        files += inside
    return list(dict.fromkeys(files))


def _is_motion(path: Path) -> bool:
    hidden = path.name.startswith(".") or any(path.match(pattern) for pattern in NO_MOTION)
    return path.suffix.lower() in READERS and path.is_file() and not hidden


def _read_npz(path: Path, reading: Reading) -> list[Motion]:
    """Our own layout is known by its clips."""
    if set(CLIP_FIELDS) & set(array_names(path)):
        return read_capture(path, reading)
    return [read_amass(path, reading)]


def read_amass(path: Path, reading: Reading | None = None) -> Motion:
    """A motion in AMASS's layout, turned from z up to y up; its data set is named by the folder above the person's."""
    reading = reading or Reading()
    poses = read_poses_without_shape(path)
    rates = read_arrays(path, FRAME_RATES)
    if not rates:
        raise MeshrecError(f"{path} has no frame rate; AMASS calls it {' or '.join(FRAME_RATES)}.")
    upright = poses.upright.double()
    rotations = poses.params.rotations.double()
    rotations[:, 0] = upright @ rotations[:, 0]
    return checked(
        Motion(
            name=path.stem.removesuffix("_poses").removesuffix("_stageii"),
            subject=subject_of(path, reading.subject_from),
            source=reading.source or path.absolute().parent.parent.name,
            fps=_rate(path, next(iter(rates.values()))),
            axis_angle=roma.rotmat_to_rotvec(rotations).numpy(),
            transl_m=(poses.params.transl_m.double() @ upright.mT).numpy(),
            valid=np.ones(len(rotations), dtype=bool),
            file=str(path),
        )
    )


def _rate(path: Path, rate: np.ndarray) -> float:
    if rate.size != 1 or rate.dtype.kind not in "iuf":
        raise MeshrecError(f"{path} has a frame rate that is not one number.")
    return float(rate.reshape(()))


def read_capture(path: Path, reading: Reading | None = None) -> list[Motion]:
    """The clips of a file of our own layout, which says itself whose they are."""
    fields = read_arrays(path, (*CAPTURE_FIELDS, "clip_source"))
    if missing := [name for name in CAPTURE_FIELDS if name not in fields]:
        raise MeshrecError(f"{path} is no capture of ours: it lacks {', '.join(missing)}.")
    _refuse_misfits(path, fields)
    source = (reading or Reading()).source
    sources = fields.get("clip_source", np.full(len(fields["clip_start"]), ""))
    fps = _rate(path, fields["fps"])
    motions = []
    for start, length, name, subject, own in zip(*(fields[name] for name in CLIP_FIELDS), sources, strict=True):
        rows = slice(int(start), int(start) + int(length))
        motions.append(
            Motion(
                name=str(name),
                subject=str(subject),
                source=source or str(own),
                fps=fps,
                axis_angle=_float32(fields["poses"][rows]),
                transl_m=_float32(fields["trans"][rows]),
                valid=fields["valid"][rows],
                file=str(path),
            )
        )
    return [checked(motion) for motion in motions]


def _float32(numbers: np.ndarray) -> Float[np.ndarray, "*shape"]:
    """Numbers of any precision and byte order; what float32 cannot hold is infinite."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def _refuse_misfits(path: Path, fields: dict[str, np.ndarray]) -> None:
    """Arrays have the kinds and shapes of the layout, and clips lie within the frames."""
    frames, clips = fields["poses"].shape[:1], fields["clip_start"].shape
    kinds = {"poses": "f", "trans": "f", "valid": "b", "clip_start": "iu", "clip_len": "iu"}
    shapes = {"poses": (*frames, len(SMPL24), 3), "trans": (*frames, 3), "valid": frames}
    shapes |= {name: clips for name in (*CLIP_FIELDS, "clip_source") if name in fields}
    for name, shape in shapes.items():
        array = fields[name]
        if array.shape != shape or array.dtype.kind not in kinds.get(name, "U"):
            raise MeshrecError(f"{path} has {name} of shape {array.shape} and type {array.dtype}; {shape} is needed.")
    if len(clips) != 1 or not clips[0]:
        raise MeshrecError(f"{path} has no list of clips.")
    start, length = fields["clip_start"].astype(np.int64), fields["clip_len"].astype(np.int64)
    for clip in np.flatnonzero((start < 0) | (length < 0) | (start + length > frames[0]))[:1]:
        raise MeshrecError(
            f"{path} has a clip {fields['clip_name'][clip]} from row {start[clip]} on, {length[clip]} long, "
            f"but {frames[0]} rows."
        )


READERS: dict[str, Callable[[Path, Reading], list[Motion]]] = {
    ".npz": _read_npz,
    ".bvh": lambda path, reading: [read_bvh(path, reading)],
    ".amc": lambda path, reading: [read_amc(path, reading)],
}
"""How a file of each suffix is read."""
