"""Keypoints that another program wrote: COCO's JSON, OpenPose's JSON and our own NumPy archive.

Pixels become continuous ones. COCO's keypoints are indices of pixels, so half a pixel is added; its boxes and the other
two formats are continuous already and are taken as they stand.
"""

import json
import math
import re
from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from meshrec.errors import MeshrecError
from meshrec.keypoint_archive import NpzFile
from meshrec.keypoint_entries import Entry, Listed, confidence_of, keypoints_of, mean_seen
from meshrec.photo import Photo, entries_of, look_at
from meshrec.skeletons import COCO17, OPENPOSE25
from meshrec.types import Keypoints

OPENPOSE18_JOINTS = (
    *("nose", "upper_neck"),
    *("right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("right_eye", "left_eye", "right_ear", "left_ear"),
)
"""OpenPose's older 18-joint output (its `COCO` model), in its order; all of them stand in `OPENPOSE25`."""

ImageId = int | float | str

Rows = list[tuple[str, dict]]
"""The objects of a JSON list, each with its name for messages."""

ENDINGS = ("_keypoints.json", ".json", ".npz")
"""What the files of a folder are called: the stem of their photo and one of these."""


@runtime_checkable
class KeypointFile(Protocol):
    """An opened file of keypoints, or a folder of them."""

    holds_one_photo: bool

    def photos(self) -> list[Listed]:
        """Every photo that the file knows, in its order; a folder opens all of its files."""
        ...

    def entries(self, photo: Photo) -> list[Entry]:
        """The people that the file lists in `photo`; a `MeshrecError` if it does not know the photo."""
        ...


def open_keypoints(path: Path) -> KeypointFile:
    """The keypoint file or folder at `path`; the content of a JSON file says which of the formats it is."""
    match look_at(path):
        case "nothing":
            raise MeshrecError(f"There is no keypoint file or folder {path} (looked in {Path.cwd()}).")
        case "folder":
            return KeypointFolder(path)
    if path.suffix.lower() == ".npz":
        return NpzFile(path)
    content = _json(path)
    if isinstance(content, dict) and "people" in content:
        return OpenPoseFile(path, content["people"])
    if isinstance(content, list):
        return CocoFile(path, _rows(path, "", content))
    if isinstance(content, dict) and "annotations" in content:
        rows = _rows(path, "annotations", content["annotations"])
        return CocoFile(path, rows, _rows(path, "images", content.get("images")))
    found = f"the fields {', '.join(map(str, content)) or '(none)'}" if isinstance(content, dict) else _shown(content)
    raise MeshrecError(
        f"{path} is no keypoint file: it holds {found}. It should be COCO's JSON (`annotations`, or a list of "
        f"results), OpenPose's (`people`) or an npz."
    )


class KeypointFolder:
    """A folder with a file for each photo, which is opened when its photo comes."""

    holds_one_photo = False

    def __init__(self, path: Path):
        self._path = path
        self._files = {f"{entry.stem}{entry.suffix.lower()}": entry for entry in entries_of(path)}
        if not any(name.endswith(ENDINGS) for name in self._files):
            raise MeshrecError(f"The folder {path} holds no keypoint files (*.json, *.npz).")

    def paths(self) -> list[Path]:
        """Its keypoint files, sorted."""
        return [path for name, path in self._files.items() if name.endswith(ENDINGS)]

    def photos(self) -> list[Listed]:
        return [photo for path in self.paths() for photo in open_keypoints(path).photos()]

    def entries(self, photo: Photo) -> list[Entry]:
        names = [f"{photo.path.stem}{ending}" for ending in ENDINGS]
        for name in names:
            if name in self._files:
                return open_keypoints(self._files[name]).entries(photo)
        known = [name for name in self._files if name.endswith(ENDINGS)]
        raise MeshrecError(
            f"The folder {self._path} has no keypoints of {photo.path.name}: none of {', '.join(names)} (it has "
            f"{some(known)})."
        )


class CocoFile:
    """COCO keypoints: the annotations of a data set, or a list of results.

    A row belongs to a photo if the file name of its image is the photo's; without `images`, if its `image_id` is the
    photo's name or the number at the end of it (`COCO_val2014_000000000785.jpg` is image 785).
    """

    holds_one_photo = False

    def __init__(self, path: Path, rows: Rows, images: Rows | None = None):
        self._path, self._by_name = path, images is not None
        names = dict(_image(path, field, row) for field, row in images or ())
        self._sizes = {_image(path, field, row)[1]: _size(row) for field, row in images or ()}
        self._rows_of: dict[ImageId, Rows] = {}
        for field, row in rows:
            image = _image_id(path, f"{field}.image_id", row.get("image_id"))
            if image in names or images is None:
                self._rows_of.setdefault(names.get(image, image), []).append((field, row))

    def photos(self) -> list[Listed]:
        rows_of = self._rows_of.items()
        return [Listed(str(name), partial(self._entries, rows), self._sizes.get(str(name))) for name, rows in rows_of]

    def entries(self, photo: Photo) -> list[Entry]:
        keys = [photo.path.name] if self._by_name else _ids_of(photo)
        rows = [row for key in keys for row in self._rows_of.get(key, [])]
        if rows:
            return self._entries(rows)
        what = "image with people in it has the file_name" if self._by_name else "row has the image_id"
        raise MeshrecError(
            f"{self._path} knows nobody in {photo.path.name}: no {what} {' or '.join(map(str, keys))} (there are "
            f"{some(self._rows_of)}). Give the photo the name that it has there."
        )

    def _entries(self, rows: Rows) -> list[Entry]:
        return [self._entry(field, row) for field, row in rows]

    def _entry(self, field: str, row: dict) -> Entry:
        values = _triples(self._path, f"{field}.keypoints", row.get("keypoints"), [len(COCO17)])
        values[:, :2] += 0.5
        values[:, 2] = confidence_of(self._path, f"{field}.keypoints", values[:, 2])
        keypoints, box = keypoints_of(values, COCO17), None
        if row.get("bbox") is not None:
            x, y, width, height = _numbers(self._path, f"{field}.bbox", row["bbox"], [4])
            box = torch.tensor([x, y, x + width, y + height], dtype=torch.float32)
        if row.get("score") is None:
            return Entry(keypoints, mean_seen(keypoints), box)
        return Entry(keypoints, _finite(self._path, f"{field}.score", row["score"]), box)


class OpenPoseFile:
    """OpenPose's output for one photo: BODY_25, or the older 18 joints, which become 25 with the others missing."""

    holds_one_photo = True

    def __init__(self, path: Path, people: Any):
        self._path = path
        self._people = _rows(path, "people", people)

    def entries(self, photo: Photo) -> list[Entry]:
        stem = self._path.stem.removesuffix("_keypoints")
        if stem != self._path.stem and stem != photo.path.stem:
            raise MeshrecError(
                f"{self._path} holds the keypoints of {stem}, not of {photo.path.name}. Name the folder that holds the "
                f"files of all photos."
            )
        return self._entries()

    def photos(self) -> list[Listed]:
        return [Listed(self._path.stem.removesuffix("_keypoints"), self._entries)]

    def _entries(self) -> list[Entry]:
        keypoints = [self._person(field, row) for field, row in self._people]
        return [Entry(k, mean_seen(k)) for k in keypoints]

    def _person(self, field: str, row: dict) -> Keypoints:
        name = f"{field}.pose_keypoints_2d"
        counts = [len(OPENPOSE25), len(OPENPOSE18_JOINTS)]
        values = _triples(self._path, name, row.get("pose_keypoints_2d", row.get("pose_keypoints")), counts)
        values[:, 2] = confidence_of(self._path, name, values[:, 2])
        if len(values) == len(OPENPOSE18_JOINTS):
            whole = np.zeros((len(OPENPOSE25), 3))
            whole[OPENPOSE25.indices(*OPENPOSE18_JOINTS)] = values
            values = whole
        return keypoints_of(values, OPENPOSE25)


def _triples(path: Path, field: str, content: Any, joints: list[int]) -> np.ndarray:
    return _numbers(path, field, content, [3 * count for count in joints]).reshape(-1, 3)


def _numbers(path: Path, field: str, content: Any, counts: list[int]) -> np.ndarray:
    """As many numbers as one of `counts`; null becomes NaN."""
    wanted = " or ".join(map(str, counts))
    if not isinstance(content, list) or len(content) not in counts:
        found = f"{len(content)} values" if isinstance(content, list) else _shown(content)
        raise MeshrecError(f"{path}: {field} is {found}; it should be a list of {wanted} numbers.")
    return np.array([math.nan if value is None else _number(path, field, value) for value in content])


def _number(path: Path, field: str, value: Any) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    except OverflowError:
        pass
    raise MeshrecError(f"{path}: {field} holds {_shown(value)}, which is no number that can be read.")


def _finite(path: Path, field: str, value: Any) -> float:
    number = _number(path, field, value)
    if not math.isfinite(number):
        raise MeshrecError(f"{path}: {field} is {number}; it should be a finite number, or be left out.")
    return number


def _image(path: Path, field: str, row: dict) -> tuple[ImageId, str]:
    """Id and name of an image."""
    image, name = _image_id(path, f"{field}.id", row.get("id")), row.get("file_name")
    if not isinstance(name, str):
        raise MeshrecError(f"{path}: {field}.file_name is {_shown(name)}; it should be the name of a photo.")
    return image, Path(name).name


def _size(row: dict) -> tuple[int, int] | None:
    """Width and height of an image; None where they are left out or no numbers of pixels."""
    match row:
        case {"width": int(width), "height": int(height)} if min(width, height) >= 1:
            return width, height
    return None


def _image_id(path: Path, field: str, value: Any) -> ImageId:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        return value
    raise MeshrecError(f"{path}: {field} is {_shown(value)}; it should be the number or the name of an image.")


def _ids_of(photo: Photo) -> list[ImageId]:
    """What a photo may be called where images have no names."""
    number = re.search(r"(\d+)$", photo.path.stem)
    return list(dict.fromkeys([photo.path.name, photo.path.stem, *([int(number[1])] if number else [])]))


def _rows(path: Path, field: str, content: Any) -> Rows:
    """The objects of a list, each with its name for messages."""
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise MeshrecError(f"{path}: `{field or 'the file'}` should be a list of objects.")
    return [(f"{field}[{index}]", row) for index, row in enumerate(content)]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise MeshrecError(f"Cannot read the keypoint file {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise MeshrecError(f"{path} is not JSON ({error}). Keypoint files are JSON or npz.") from error


def some(names: Iterable[Any]) -> str:
    """The first three, for a message."""
    shown = list(islice((str(name) for name in names), 4))
    return ", ".join([*shown[:3], *(["..."] if len(shown) > 3 else [])]) or "none"


def _shown(value: Any) -> str:
    """The beginning of a value, for a message."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
