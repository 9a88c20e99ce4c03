"""People in images, as every data set is kept for training and measuring: the reader of `meshrec.data.record_files`.

records = open_records(Path("out/3dpw_train"))
record = records[0]
crop = cut(record.pixels, record.picture_square(square), 224)
"""

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from pydantic import TypeAdapter
from torch import Tensor

from meshrec.camera import assumed_focal_px, centered_camera
from meshrec.data.record_files import (
    GENDERS,
    IMAGES,
    Index,
    columns_of,
    damaged,
    file_of,
    image_name,
    open_columns,
    read_index,
    skeleton_named,
)
from meshrec.errors import MeshrecError
from meshrec.photo import Photo
from meshrec.skeletons import Skeleton
from meshrec.types import BodyParams, Camera, Keypoints, Person, Square

Gender = Literal["neutral", "male", "female"]

_GENDER_OF: dict[bytes, Gender] = {code: gender for gender, code in GENDERS.items()}  # type: ignore[misc]
_GENDER_OF[b""] = "neutral"


@dataclass(frozen=True, eq=False)
class Truth:
    """The SMPL body of a person, in the camera frame of the photograph."""

    params: BodyParams
    """Without batch axes; `betas` are 0 where the shape is not known, `transl_m` is 0 where the place is not known."""
    gender: Gender
    """The body that the numbers belong to; `made_from` of the records tells which body found `transl_m`."""
    shaped: bool = True
    """Whether the shape is known."""
    placed: bool = True
    """Whether the translation is known."""


@dataclass(frozen=True, eq=False)
class Record:
    """One annotated person: a part of a photograph, and what is known of who is in it, in pixels of the photograph."""

    pixels: UInt8[np.ndarray, "h w 3"]
    """RGB; the stored picture."""
    corner_px: Float[Tensor, "2"]
    """Where in the photograph the stored picture begins."""
    scale: float
    """Stored pixels for a pixel of the photograph, 1 at most."""
    photo_size_px: tuple[int, int]
    """Width and height."""
    box_xyxy_px: Float[Tensor, "4"]
    keypoints: Keypoints
    camera: Camera | None
    """The photograph's."""
    truth: Truth | None
    joints_m: Float[Tensor, "K 3"] | None
    """Joints in the camera frame; 0 where they are not known."""
    joints_weight: Float[Tensor, "K"] | None
    """0 where a joint is not known."""
    joints_skeleton: Skeleton | None
    dataset: str
    subject: str
    sequence: str
    frame: int
    """-1 where there is none."""
    source: str
    """The image that it was taken from."""

    @property
    def posed(self) -> bool:
        """Whether the pose is known."""
        return self.truth is not None

    @property
    def shaped(self) -> bool:
        """Whether the shape is known."""
        return self.truth is not None and self.truth.shaped

    @property
    def placed(self) -> bool:
        """Whether the body's place and the camera are known, so that it can be projected."""
        return self.truth is not None and self.truth.placed and self.camera is not None

    def in_picture(self, xy_px: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Pixels of the photograph as pixels of the stored picture."""
        return (xy_px - self.corner_px) * self.scale

    def in_photo(self, xy_px: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Pixels of the stored picture as pixels of the photograph."""
        return xy_px / self.scale + self.corner_px

    def picture_square(self, square: Square) -> Square:
        """A square of the photograph as a square of the stored picture."""
        return replace(square, center_px=self.in_picture(square.center_px), side_px=square.side_px * self.scale)

    def as_photo(self) -> tuple[Photo, Person, Camera]:
        """The stored picture as a photograph of its own, with its exact pinhole: the frame of the camera is the same.

        Where the camera is not known, the photograph's focal length is assumed to be its diagonal.
        """
        height, width = self.pixels.shape[:2]
        camera = self.camera or centered_camera(*self.photo_size_px, assumed_focal_px(*self.photo_size_px), "assumed")
        camera = Camera(
            camera.focal_px * self.scale, self.in_picture(camera.center_px), width, height, camera.focal_source
        )
        keypoints = replace(self.keypoints, xy_px=self.in_picture(self.keypoints.xy_px))
        person = Person(self.in_picture(self.box_xyxy_px.view(2, 2)).flatten(), 1.0, keypoints)
        return Photo(self.pixels, Path(self.source or self.dataset)), person, camera


@dataclass(frozen=True, eq=False)
class Records:
    """A folder of records: annotations are mapped, pictures are read when a record is asked for.

    It may be read by several threads at once.
    """

    path: Path
    index: Index
    shards: tuple[Mapping[str, np.ndarray], ...]
    """The columns of each shard."""

    @property
    def name(self) -> str:
        """The data set."""
        return self.index.name

    @property
    def split(self) -> str:
        """Which part of it."""
        return self.index.split

    @cached_property
    def skeleton(self) -> Skeleton:
        """Whose joints the keypoints are."""
        return skeleton_named(self.index.skeleton, self.path)

    @cached_property
    def joints_skeleton(self) -> Skeleton | None:
        """Whose joints the joints in 3D are; None where there are none."""
        return skeleton_named(self.index.joints_skeleton, self.path) if self.index.joints_skeleton else None

    @cached_property
    def fingerprint(self) -> str:
        """Tells these records from all others: a hash of what they say of themselves, checksums included."""
        return hashlib.sha256(TypeAdapter(Index).dump_json(self.index)).hexdigest()[:16]

    @cached_property
    def _starts(self) -> Int[np.ndarray, "S"]:
        """The first row of each shard."""
        return np.cumsum([0, *(shard.people for shard in self.index.shards[:-1])])

    def __len__(self) -> int:
        return self.index.people

    def __iter__(self) -> Iterator[Record]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> Record:
        """The record of a row, its picture decoded."""
        shard, place = self._place(row)
        columns = self.shards[shard]
        keypoints = _tensor(columns["keypoints"][place])
        return Record(
            pixels=self._pixels(shard, place),
            corner_px=_tensor(columns["picture_corner_px"][place]),
            scale=float(columns["picture_scale"][place]),
            photo_size_px=_pair(columns["photo_size_px"][place]),
            box_xyxy_px=_tensor(columns["box_xyxy_px"][place]),
            keypoints=Keypoints(keypoints[:, :2], keypoints[:, 2], self.skeleton),
            camera=_camera(columns, place),
            truth=self._truth(shard, place),
            joints_m=_tensor(columns["joints_m"][place]).nan_to_num(0.0) if self.joints_skeleton else None,
            joints_weight=_tensor(columns["joints_weight"][place]) if self.joints_skeleton else None,
            joints_skeleton=self.joints_skeleton,
            dataset=self.name,
            subject=_text(columns["subject"][place]),
            sequence=_text(columns["sequence"][place]),
            frame=int(columns["frame"][place]),
            source=_text(columns["source"][place]),
        )

    def column(self, name: str) -> Shaped[np.ndarray, "N *row"]:
        """An annotation of all people, as `meshrec.data.record_files` tells of it; text is bytes in UTF-8."""
        if name not in self.shards[0]:
            raise ValueError(f"records have no column {name!r}; they have {', '.join(self.shards[0])}")
        return np.concatenate([shard[name] for shard in self.shards])

    @cached_property
    def known_bodies(self) -> Bool[np.ndarray, "N"]:
        """Of which people pose and shape are known."""
        pose, betas = (np.isfinite(self.column(name)) for name in ("pose_axis_angle", "betas"))
        return np.logical_and(pose.all((1, 2)), betas.all(1))

    def told(self, row: int) -> str:
        """Where a row lies, for messages."""
        shard, place = self._place(row)
        source = _text(self.shards[shard]["source"][place])
        taken = f", taken from {source}" if source else ""
        return f"row {row} of {self.path} ({self.index.shards[shard].folder}/{IMAGES}, {image_name(place)}{taken})"

    def verify(self) -> None:
        """Check the checksum of every file; reads all of it."""
        for shard in self.index.shards:
            for name, written in shard.files.items():
                if file_of(self.path / shard.folder / name) != written:
                    raise damaged(self.path, f"{shard.folder}/{name} is not as it was written")

    def _place(self, row: int) -> tuple[int, int]:
        """The shard of a row, and the row in it."""
        if not 0 <= row < len(self):
            raise IndexError(f"rows are 0 to {len(self) - 1}, not {row}")
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        return shard, row - int(self._starts[shard])

    @cached_property
    def _rotations(self) -> dict[int, Float[Tensor, "n 24 3 3"]]:
        """SMPL's of the shards that were asked for: a shard's take hardly longer than those of one person."""
        return {}

    def _truth(self, shard: int, place: int) -> Truth | None:
        columns = self.shards[shard]
        if not np.isfinite(columns["pose_axis_angle"][place]).all():
            return None
        if shard not in self._rotations:
            self._rotations[shard] = roma.rotvec_to_rotmat(_tensor(columns["pose_axis_angle"]))
        code = bytes(columns["gender"][place])
        if code not in _GENDER_OF:
            row = int(self._starts[shard]) + place
            raise damaged(self.path, f"the gender of {self.told(row)} is {code!r}; n, m, f and nothing are known")
        betas, shaped = _known(columns["betas"][place])
        transl_m, placed = _known(columns["transl_m"][place])
        rotations = self._rotations[shard][place].clone()
        return Truth(BodyParams.from_rotations(rotations, betas, transl_m), _GENDER_OF[code], shaped, placed)

    def _pixels(self, shard: int, place: int) -> UInt8[np.ndarray, "h w 3"]:
        columns = self.shards[shard]
        data = self._stored(shard, int(columns["image_offset"][place]), int(columns["image_bytes"][place]))
        intact = zlib.crc32(data) == int(columns["image_crc32"][place])
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if intact else None
        if bgr is None or bgr.shape[1::-1] != _pair(columns["picture_size_px"][place]):
            row = int(self._starts[shard]) + place
            raise MeshrecError(
                f"The picture of {self.told(row)} is damaged. Convert the data set again, or copy it again."
            )
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)

    def _stored(self, shard: int, offset: int, size: int) -> bytes:
        path = self.path / self.index.shards[shard].folder / IMAGES
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise MeshrecError(f"Cannot read {path}: {error.strerror or error}.") from error


def open_records(path: Path, verify: bool = False) -> Records:
    """The records in a folder; `verify` reads every file and checks its sum."""
    index = read_index(path)
    if not index.people:
        raise damaged(path, "there is nobody in them")
    skeleton = skeleton_named(index.skeleton, path)
    three_d = skeleton_named(index.joints_skeleton, path) if index.joints_skeleton else None
    columns = columns_of(skeleton, three_d)
    records = Records(path, index, tuple(open_columns(path, shard, columns) for shard in index.shards))
    if verify:
        records.verify()
    return records


def _camera(columns: Mapping[str, np.ndarray], place: int) -> Camera | None:
    focal_px = float(columns["focal_px"][place])
    if not np.isfinite(focal_px):
        return None
    width, height = _pair(columns["photo_size_px"][place])
    return Camera(torch.tensor(focal_px), _tensor(columns["center_px"][place]), width, height, "true")


def _known(row: Float[np.ndarray, "D"]) -> tuple[Float[Tensor, "D"], bool]:
    """The numbers, and whether they are known; 0 where they are not."""
    known = bool(np.isfinite(row).all())
    return _tensor(row if known else np.zeros_like(row)), known


def _tensor(row: Float[np.ndarray, "*row"]) -> Float[Tensor, "*row"]:
    """A copy in memory."""
    return torch.from_numpy(np.array(row))


def _pair(row: Int[np.ndarray, "2"]) -> tuple[int, int]:
    return int(row[0]), int(row[1])


def _text(row: bytes) -> str:
    return bytes(row).decode("utf-8", errors="replace")
