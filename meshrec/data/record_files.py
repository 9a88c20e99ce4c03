"""The one on-disk format of people in images, and how its files are told, checked and mapped.

A folder of records needs numpy, a JPEG decoder and a JSON reader, no meshrec:

    records.json                 what it is: see `Index`; written last, so a folder without it is unfinished
    shard-00000/images.tar       a plain tar of 00000000.jpg, 00000001.jpg, ...: the stored picture of each person
    shard-00000/COLUMN.npy       one row a person, in the order of the tar; see `columns_of`
    shard-00000/shard.json       the shard's own entry of records.json
    shard-00001/...

A stored picture shows the part of a photograph around one person, scaled down by `picture_scale` (1 at most). Pixels
are continuous, the first pixel's centre is (0.5, 0.5): photo px = picture px / picture_scale + picture_corner_px. Every
annotation is in pixels of the photograph; the camera frame is x right, y down, z forward; NaN means unknown.

| column | row | dtype | |
|---|---|---|---|
| box_xyxy_px | 4 | float32 | the person's box; it may reach beyond the photograph |
| keypoints | K, 3 | float32 | x, y and confidence (0: unknown) of the joints of `skeleton` |
| joints_m | K3, 3 | float32 | joints of `joints_skeleton` in the camera frame |
| joints_weight | K3 | float32 | how much each of them is to be trusted; 0: unknown |
| pose_axis_angle | 24, 3 | float32 | SMPL's rotations, the root in the camera frame |
| betas | 10 | float32 | SMPL's shape |
| transl_m | 3 | float32 | SMPL's translation in the camera frame |
| gender | | S1 | the SMPL body that the truth belongs to: n, m, f, or empty (as n) |
| focal_px, center_px | ; 2 | float32 | the pinhole of the photograph |
| photo_size_px | 2 | int32 | width and height of the photograph |
| picture_corner_px | 2 | float32 | where in the photograph the stored picture begins |
| picture_scale | | float32 | stored pixels for a pixel of the photograph |
| picture_size_px | 2 | int32 | width and height of the stored picture |
| image_offset, image_bytes | | int64 | where in images.tar the JPEG lies |
| image_crc32 | | uint32 | its checksum, as zlib counts it |
| subject, sequence, source | | S | text in UTF-8; `source` names the image that it was taken from |
| frame | | int32 | the number of the frame in its sequence; -1: none |

The two columns of joints are there only where `joints_skeleton` is not empty.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from meshrec.arrays import UNREADABLE
from meshrec.errors import MeshrecError
from meshrec.skeletons import SKELETONS, SMPL24, Skeleton

MARK = "records.json"
SHARD_MARK = "shard.json"
IMAGES = "images.tar"

FORMAT = "meshrec records"
VERSION = 1

BETAS = 10

TEXTS = ("subject", "sequence", "source")

GENDERS = {"neutral": b"n", "male": b"m", "female": b"f"}


@dataclass(frozen=True)
class File:
    """A file of a shard."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """One folder of people."""

    folder: str
    people: int
    items: int
    """How many things of the source it holds: photographs, or whatever was converted one by one."""
    skipped: tuple[str, ...]
    """What was wrong with those of them, or of the people in them, that were left out."""
    files: dict[str, File]


@dataclass(frozen=True)
class Header:
    """What a folder of records is."""

    name: str
    """The data set, as a mixture names it."""
    split: str
    skeleton: str
    """Whose joints `keypoints` are."""
    joints_skeleton: str = ""
    """Whose joints `joints_m` are; empty where there are none."""
    made_from: str = ""
    """What was converted, and how; a conversion goes on only with the same."""
    licence: str = ""


@dataclass(frozen=True)
class Index(Header):
    """What `records.json` holds."""

    format: str = FORMAT
    version: int = VERSION
    people: int = 0
    posed: int = 0
    """How many of them have an SMPL pose."""
    skipped: tuple[str, ...] = ()
    shards: tuple[Shard, ...] = ()


def shard_name(number: int) -> str:
    """The folder of a shard."""
    return f"shard-{number:05d}"


def image_name(row: int) -> str:
    """The stored picture of a row of a shard, in its tar."""
    return f"{row:08d}.jpg"


def skeleton_named(name: str, path: Path) -> Skeleton:
    """The skeleton that an index names."""
    if name not in SKELETONS:
        raise MeshrecError(
            f"The records {path} have joints of {name!r}, which is none of {', '.join(SKELETONS)}. Convert them again."
        )
    return SKELETONS[name]


def columns_of(skeleton: Skeleton, joints_skeleton: Skeleton | None) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The columns of a shard: the dtype ("S" for text of any width) and the shape of a row."""
    joints = len(joints_skeleton) if joints_skeleton else 0
    three_d = {"joints_m": ("<f4", (joints, 3)), "joints_weight": ("<f4", (joints,))}
    return {
        "box_xyxy_px": ("<f4", (4,)),
        "keypoints": ("<f4", (len(skeleton), 3)),
        **(three_d if joints_skeleton else {}),
        "pose_axis_angle": ("<f4", (len(SMPL24), 3)),
        "betas": ("<f4", (BETAS,)),
        "transl_m": ("<f4", (3,)),
        "gender": ("S1", ()),
        "focal_px": ("<f4", ()),
        "center_px": ("<f4", (2,)),
        "photo_size_px": ("<i4", (2,)),
        "picture_corner_px": ("<f4", (2,)),
        "picture_scale": ("<f4", ()),
        "picture_size_px": ("<i4", (2,)),
        "image_offset": ("<i8", ()),
        "image_bytes": ("<i8", ()),
        "image_crc32": ("<u4", ()),
        **dict.fromkeys(TEXTS, ("S", ())),
        "frame": ("<i4", ()),
    }


def read_index(path: Path) -> Index:
    """What `records.json` in the folder `path` says."""
    fields = _read_fields(path)
    if fields.get("format") != FORMAT:
        raise MeshrecError(f"{path / MARK} is not of records: its format is {fields.get('format')!r}, not {FORMAT!r}.")
    if fields.get("version") != VERSION:
        raise MeshrecError(
            f"{path} holds records of version {fields.get('version')}, and this meshrec reads version {VERSION}. "
            f"Convert the data set again with the tools of this version, or use the meshrec that wrote them."
        )
    index = checked(Index, fields, path / MARK)
    if index.people != sum(shard.people for shard in index.shards):
        raise damaged(path, f"{MARK} tells of {index.people} people, its shards of another number")
    return index


def checked(kind: type, fields: Any, path: Path) -> Any:
    """A JSON value as a dataclass."""
    try:
        return TypeAdapter(kind).validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise damaged(path.parent, f"in {path.name}, {where}: {first['msg']}") from error


def _read_fields(path: Path) -> dict[str, Any]:
    try:
        text = (path / MARK).read_text(encoding="utf-8")
    except OSError as error:
        raise _nothing_to_read(path, error) from error
    except ValueError as error:
        raise damaged(path, f"{MARK} is no text") from error
    return json_fields(text, path / MARK)


def json_fields(text: str, path: Path) -> dict[str, Any]:
    """The fields of a JSON object."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path.parent, f"{path.name} is cut off or no JSON ({error})") from error
    if not isinstance(fields, dict):
        raise damaged(path.parent, f"{path.name} holds no named fields")
    return fields


def _nothing_to_read(path: Path, error: OSError) -> MeshrecError:
    if (path / shard_name(0)).is_dir():
        return MeshrecError(
            f"The records {path} are unfinished: there is no {MARK} yet. Run their conversion again; it goes on where "
            f"it stood."
        )
    if path.exists():
        return MeshrecError(
            f"{path} holds no records: cannot read {MARK} in it ({error.strerror or error}). Name a folder that "
            f"tools/convert_records.py wrote."
        )
    return MeshrecError(f"There is no folder of records {path} (looked in {Path.cwd()}). Check the spelling.")


def open_columns(path: Path, shard: Shard, columns: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
    """The columns of a shard, mapped; every file must be there, whole, and have a row for each of its people."""
    folder = path / shard.folder
    if not re.fullmatch(r"shard-\d{5,}", shard.folder):
        raise damaged(path, f"{MARK} names a shard {shard.folder!r}")
    if not folder.is_dir():
        raise damaged(path, f"the shard {shard.folder} is missing")
    for name in (IMAGES, *(f"{column}.npy" for column in columns)):
        _check_size(path, folder / name, shard)
    mapped = {name: _mapped(path, folder / f"{name}.npy", shard.people, *columns[name]) for name in columns}
    ends = mapped["image_offset"] + mapped["image_bytes"]
    inside = (mapped["image_offset"] >= 0) & (mapped["image_bytes"] > 0) & (ends <= shard.files[IMAGES].bytes)
    if not inside.all():
        raise damaged(path, f"{shard.folder}/{IMAGES} ends before some of its pictures")
    return mapped


def _check_size(path: Path, file: Path, shard: Shard) -> None:
    name = f"{shard.folder}/{file.name}"
    if file.name not in shard.files:
        raise damaged(path, f"{MARK} does not tell of {name}")
    try:
        size = file.stat().st_size
    except OSError as error:
        raise damaged(path, f"{name} is missing or cannot be read ({error.strerror or error})") from error
    if size != shard.files[file.name].bytes:
        raise damaged(
            path,
            f"{name} has {size} bytes and was written with {shard.files[file.name].bytes}: it is cut "
            f"off or another file",
        )


def _mapped(path: Path, file: Path, people: int, dtype: str, row: tuple[int, ...]) -> np.ndarray:
    name = f"{file.parent.name}/{file.name}"
    try:
        array = np.lib.format.open_memmap(file, mode="r").view(np.ndarray)
    except OSError as error:
        raise damaged(path, f"cannot read {name} ({error.strerror or error})") from error
    except UNREADABLE as error:
        raise damaged(path, f"{name} is cut off or no array ({error})") from error
    fits = array.dtype.kind == "S" if dtype == "S" else array.dtype == np.dtype(dtype)
    if array.shape != (people, *row) or not fits:
        found, wanted = f"{array.dtype} {array.shape}", f"{dtype} {(people, *row)}"
        raise damaged(path, f"{name} is {found} where {wanted} should be")
    return array


def file_of(path: Path) -> File:
    """Size and checksum of a file."""
    try:
        with path.open("rb") as file:
            return File(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise MeshrecError(f"Cannot read {path}: {error.strerror or error}.") from error


def damaged(path: Path, what: str) -> MeshrecError:
    """What is wrong with a folder of records, and what to do."""
    return MeshrecError(
        f"The records {path} are damaged: {what}. Convert the data set again, or copy the folder again."
    )
