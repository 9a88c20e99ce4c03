"""Writes people in images to the folder that `meshrec.data.record_files` tells of, shard by shard.

    with RecordWriter(folder, Header("3dpw", "train", SMPL24.name)) as writer:
        for photo in photos[writer.items_done :]:
            writer.add(*people_of(photo))

Shards appear whole; a conversion that was killed goes on at the first one that is not there.
"""

import io
import math
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import roma
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from pydantic import TypeAdapter
from torch import Tensor

from meshrec.data.record_files import (
    BETAS,
    GENDERS,
    IMAGES,
    MARK,
    SHARD_MARK,
    TEXTS,
    Header,
    Index,
    Shard,
    checked,
    columns_of,
    file_of,
    image_name,
    json_fields,
    open_columns,
    shard_name,
    skeleton_named,
)
from meshrec.data.records import Truth
from meshrec.errors import MeshrecError
from meshrec.files import make_folder, whole_folder, write_text
from meshrec.skeletons import SMPL24
from meshrec.types import Camera, Keypoints

PICTURE_MARGIN = 1.8
"""Side of the square that is stored, in longer sides of the box: room for crops that are larger, moved and turned."""

PICTURE_PX = 384
"""Pixels that this square is scaled down to: a crop of 224 of 1.2 longer sides needs no enlarging, 256 = 384 / 1.5."""

JPEG_QUALITY = 92

PEOPLE_PER_SHARD = 2048

ANYTHING = re.compile(r".*")
"""Nothing in the folder of a shard that is written anew is kept."""


@dataclass(frozen=True, eq=False)
class Picture:
    """The part of a photograph that is stored."""

    jpeg: bytes
    corner_px: tuple[float, float]
    """Where in the photograph it begins."""
    scale: float
    """Stored pixels for a pixel of the photograph; a float32."""
    size_px: tuple[int, int]
    """Width and height."""
    photo_size_px: tuple[int, int]


@dataclass(frozen=True, eq=False)
class NewRecord:
    """What is known of one person; everything in pixels of the photograph and in the frame of its camera."""

    picture: Picture
    box_xyxy_px: Float[Tensor, "4"]
    keypoints: Keypoints
    camera: Camera | None = None
    truth: Truth | None = None
    joints_m: Float[Tensor, "K 3"] | None = None
    """Joints of the header's `joints_skeleton`, where there is no truth or more than it; unknown ones have weight 0."""
    joints_weight: Float[Tensor, "K"] | None = None
    subject: str = ""
    sequence: str = ""
    frame: int = -1
    source: str = ""


def encode_picture(
    pixels: UInt8[np.ndarray, "H W 3"], box_xyxy_px: Float[Tensor, "4"], quality: int = JPEG_QUALITY
) -> Picture:
    """The part of a photograph (RGB) around a box, scaled down if it is large, as JPEG.

    The scale is the same along both axes, to the last digit: the part is cut off where a whole stored pixel ends.
    """
    height, width = pixels.shape[:2]
    x0, y0, x1, y1, side = _part(box_xyxy_px, width, height)
    scale = float(np.float32(min(1.0, PICTURE_PX / side)))
    size = max(1, math.floor((x1 - x0) * scale)), max(1, math.floor((y1 - y0) * scale))
    if scale < 1:
        ends = (min(x0 + size[0] / scale, width), min(y0 + size[1] / scale, height))
        shown = Image.fromarray(pixels[y0:y1, x0:x1])
        part = (0.0, 0.0, ends[0] - x0, ends[1] - y0)
        shown = np.asarray(shown.resize(size, Image.Resampling.HAMMING, box=part))
    else:
        shown = pixels[y0:y1, x0:x1]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "any 8-bit RGB picture can be a JPEG"
    return Picture(data.tobytes(), (float(x0), float(y0)), scale, size, (width, height))


def _part(box_xyxy_px: Float[Tensor, "4"], width: int, height: int) -> tuple[int, int, int, int, float]:
    """The square around a box, cut off at the photograph's edges: x0, y0, x1, y1 and its whole side."""
    left, top, right, bottom = box_xyxy_px.tolist()
    side = PICTURE_MARGIN * max(right - left, bottom - top)
    if not (right > left and bottom > top and math.isfinite(side)):
        raise ValueError(f"{box_xyxy_px.tolist()} is no box")
    x, y = (left + right) / 2, (top + bottom) / 2
    x0, y0 = (max(0, math.floor(middle - side / 2)) for middle in (x, y))
    x1, y1 = min(width, math.ceil(x + side / 2)), min(height, math.ceil(y + side / 2))
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f"the box {box_xyxy_px.tolist()} lies outside the photograph of {width} x {height} pixels")
    return x0, y0, x1, y1, side


class RecordWriter:
    """A folder of records in the making."""

    def __init__(self, folder: Path, header: Header, people_per_shard: int = PEOPLE_PER_SHARD) -> None:
        """Begin, or go on where an earlier writer of the same header was stopped."""
        if (folder / MARK).exists():
            raise MeshrecError(f"{folder} holds finished records. Remove it, or choose another folder with -o DIR.")
        self.folder, self.header, self.people_per_shard = make_folder(folder), header, people_per_shard
        self.skeleton = skeleton_named(header.skeleton, folder)
        self.joints_skeleton = skeleton_named(header.joints_skeleton, folder) if header.joints_skeleton else None
        self._columns = columns_of(self.skeleton, self.joints_skeleton)
        self._shards, self._posed = self._finished_shards()
        self._begin_shard()

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()

    @property
    def items_done(self) -> int:
        """How many things of the source were added: go on behind them."""
        return sum(shard.items for shard in self._shards) + self._items

    @property
    def people(self) -> int:
        """How many people were added."""
        return sum(shard.people for shard in self._shards) + len(self._people)

    def add(self, *people: NewRecord, problems: Sequence[str] = ()) -> None:
        """The people of one thing of the source, a photograph say, and why others of it were left out."""
        for person in people:
            self._check(person)
        self._people.extend(people)
        self._skipped.extend(problems)
        self._items += 1
        if len(self._people) >= self.people_per_shard:
            self._write_shard()

    def skip(self, problem: str) -> None:
        """One thing of the source is left out, and why."""
        self.add(problems=[problem])

    def close(self) -> Path:
        """Write the rest, and then `records.json`."""
        if self._people:
            self._write_shard()
        if not self._shards:
            raise MeshrecError(f"Nobody was found to write to {self.folder}; check what is converted.")
        index = Index(
            **asdict(self.header),
            people=self.people,
            posed=self._posed,
            skipped=(*(problem for shard in self._shards for problem in shard.skipped), *self._skipped),
            shards=tuple(self._shards),
        )
        return write_text(self.folder / MARK, TypeAdapter(Index).dump_json(index, indent=1).decode() + "\n")

    def _begin_shard(self) -> None:
        self._people: list[NewRecord] = []
        self._skipped: list[str] = []
        self._items = 0

    def _check(self, person: NewRecord) -> None:
        """Refuse what could not be told apart from damage when it is read."""
        if person.keypoints.skeleton.name != self.skeleton.name:
            raise ValueError(f"keypoints of {person.keypoints.skeleton.name}, the header says {self.skeleton.name}")
        if (person.joints_m is None) != (person.joints_weight is None):
            raise ValueError("joints_m and joints_weight go together")
        size = person.camera and (person.camera.width_px, person.camera.height_px)
        if size and size != person.picture.photo_size_px:
            raise ValueError(f"the camera's image is {size}, the photograph {person.picture.photo_size_px}")
        joints = len(self.joints_skeleton) if self.joints_skeleton else 0
        if person.joints_m is not None and len(person.joints_m) != joints:
            raise ValueError(f"{len(person.joints_m)} joints_m, {self.header.joints_skeleton!r} has {joints}")
        numbers = [person.box_xyxy_px, person.keypoints.xy_px, person.keypoints.confidence]
        if person.joints_m is not None and person.joints_weight is not None:
            numbers += [person.joints_weight, person.joints_m[person.joints_weight > 0]]
        if person.camera:
            numbers += [person.camera.focal_px.log(), person.camera.center_px]
        if person.truth:
            params = person.truth.params
            numbers += [params.rotations, params.betas, params.transl_m]
            if params.betas.shape != (BETAS,):
                raise ValueError(f"betas are {BETAS} numbers, not {tuple(params.betas.shape)}")
        if not all(bool(tensor.isfinite().all()) for tensor in numbers):
            raise ValueError(f"{person.source}: box, joints, camera or truth hold numbers that are not finite")

    def _write_shard(self) -> None:
        path = self.folder / shard_name(len(self._shards))
        with whole_folder(path, SHARD_MARK, ANYTHING) as folder:
            places = _write_pictures(folder / IMAGES, [person.picture for person in self._people])
            rows = [self._row(person) | place for person, place in zip(self._people, places, strict=True)]
            for name, (dtype, row) in self._columns.items():
                values = np.array([cells[name] for cells in rows], dtype).reshape(len(rows), *row)
                _write(folder / f"{name}.npy", _npy(values))
            files = {name: file_of(folder / name) for name in (IMAGES, *(f"{name}.npy" for name in self._columns))}
            shard = Shard(path.name, len(self._people), self._items, tuple(self._skipped), files)
            entry = _Entry(self.header, self._posed_now(), shard)
            _write(folder / SHARD_MARK, TypeAdapter(_Entry).dump_json(entry, indent=1))
        self._shards.append(shard)
        self._posed += entry.posed
        self._begin_shard()

    def _posed_now(self) -> int:
        return sum(person.truth is not None for person in self._people)

    def _row(self, person: NewRecord) -> dict[str, Any]:
        """A cell for each column but those of the tar."""
        keypoints, picture, camera = person.keypoints, person.picture, person.camera
        texts = {name: getattr(person, name).encode("utf-8") for name in TEXTS}
        return {
            **texts,
            **_truth_cells(person.truth),
            **self._joints_cells(person),
            "box_xyxy_px": person.box_xyxy_px.numpy(),
            "keypoints": torch.cat([keypoints.xy_px, keypoints.confidence[:, None]], dim=-1).numpy(),
            "focal_px": float(camera.focal_px) if camera else np.nan,
            "center_px": camera.center_px.numpy() if camera else np.full(2, np.nan),
            "photo_size_px": picture.photo_size_px,
            "picture_corner_px": picture.corner_px,
            "picture_scale": picture.scale,
            "picture_size_px": picture.size_px,
            "frame": person.frame,
        }

    def _joints_cells(self, person: NewRecord) -> dict[str, Any]:
        if self.joints_skeleton is None:
            return {}
        if person.joints_m is None or person.joints_weight is None:
            joints = len(self.joints_skeleton)
            return {"joints_m": np.full((joints, 3), np.nan), "joints_weight": np.zeros(joints)}
        known = person.joints_weight > 0
        joints_m = torch.where(known[:, None], person.joints_m, torch.nan)
        return {"joints_m": joints_m.numpy(), "joints_weight": person.joints_weight.numpy()}

    def _finished_shards(self) -> tuple[list[Shard], int]:
        """The shards of an earlier writer, one after another, and how many of their people have a pose."""
        for half in self.folder.glob(f".{shard_name(0).partition('-')[0]}-*"):
            shutil.rmtree(half, ignore_errors=True)
        shards, posed = [], 0
        while (mark := self.folder / shard_name(len(shards)) / SHARD_MARK).is_file():
            entry = _read_entry(mark)
            if entry.header != self.header:
                raise MeshrecError(
                    f"{self.folder} holds the beginning of other records ({entry.header}). Remove it, or choose "
                    f"another folder with -o DIR."
                )
            open_columns(self.folder, entry.shard, self._columns)
            shards.append(entry.shard)
            posed += entry.posed
        return shards, posed


@dataclass(frozen=True)
class _Entry:
    """What `shard.json` holds."""

    header: Header
    posed: int
    shard: Shard


def _read_entry(mark: Path) -> _Entry:
    try:
        text = mark.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise MeshrecError(f"Cannot read {mark}: {error}. Remove {mark.parent} to convert it again.") from error
    return checked(_Entry, json_fields(text, mark), mark)


def _truth_cells(truth: Truth | None) -> dict[str, Any]:
    """The columns of SMPL; rotations as axis-angle."""
    if truth is None:
        unknown = {"pose_axis_angle": (len(SMPL24), 3), "betas": (BETAS,), "transl_m": (3,)}
        return {"gender": b"", **{name: np.full(shape, np.nan) for name, shape in unknown.items()}}
    params = truth.params
    return {
        "gender": GENDERS[truth.gender],
        "pose_axis_angle": roma.rotmat_to_rotvec(params.rotations.double()).numpy(),
        "betas": params.betas.numpy() if truth.shaped else np.full(BETAS, np.nan),
        "transl_m": params.transl_m.numpy() if truth.placed else np.full(3, np.nan),
    }


def _write_pictures(path: Path, pictures: Iterable[Picture]) -> list[dict[str, int]]:
    """A plain tar of the JPEGs; where in it each lies."""
    places = []
    with path.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for row, picture in enumerate(pictures):
                entry = tarfile.TarInfo(image_name(row))
                entry.size = len(picture.jpeg)
                offset = tar.offset + tarfile.BLOCKSIZE
                tar.addfile(entry, io.BytesIO(picture.jpeg))
                crc = zlib.crc32(picture.jpeg)
                places.append({"image_offset": offset, "image_bytes": entry.size, "image_crc32": crc})
        _synced(file)
    return places


def _npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, values, allow_pickle=False)
    return stream.getvalue()


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        _synced(file)


def _synced(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
