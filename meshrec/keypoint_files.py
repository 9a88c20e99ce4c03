"""Keypoints that another program wrote: COCO's JSON, OpenPose's JSON and our own NumPy archive.

Pixels become continuous ones. COCO's keypoints are indices of pixels, so half a pixel is added; its boxes and the other
two formats are continuous already and are taken as they stand.
"""

import json
import math
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.errors import MeshrecError
from meshrec.keypoints import box_of, enough_seen, only_inside
from meshrec.photo import Photo
from meshrec.skeletons import COCO17, OPENPOSE25, SKELETONS, Skeleton
from meshrec.types import Keypoints, Person

OPENPOSE18_JOINTS = (
    *("nose", "upper_neck"),
    *("right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("right_eye", "left_eye", "right_ear", "left_ear"),
)
"""OpenPose's older 18-joint output (its `COCO` model), in its order; all of them stand in `OPENPOSE25`."""

VISIBILITY_CONFIDENCE = {0: 0.0, 1: 0.5, 2: 1.0}
"""COCO's annotation flags: not labelled; labelled but hidden; labelled and visible."""


@dataclass(frozen=True)
class Entry:
    """One person as a file tells it."""

    keypoints: Keypoints
    score: float
    box_xyxy_px: Float[Tensor, "4"] | None = None


@runtime_checkable
class KeypointFile(Protocol):
    """An opened file of keypoints."""

    skeleton: Skeleton

    def entries(self, photo: Photo) -> list[Entry]:
        """The people that the file knows in `photo`."""
        ...


class FileDetector:
    """Keypoints that another program found: a file, or a folder of `STEM_keypoints.json`, `STEM.json` or `STEM.npz`.

    COCO's JSON knows its photos by name; the other formats hold one photo each.
    """

    name = "file"

    def __init__(self, path: Path):
        if not path.exists():
            raise MeshrecError(f"There is no keypoint file or folder {path} (looked in {Path.cwd()}).")
        self._path = path
        first = (
            next((p for p in sorted(path.iterdir()) if p.suffix in (".json", ".npz")), None) if path.is_dir() else path
        )
        if first is None:
            raise MeshrecError(f"The folder {path} holds no keypoint files (*.json, *.npz).")
        self._first = open_keypoints(first)
        self.skeleton = self._first.skeleton
        self._photo: Path | None = None

    def __call__(self, photo: Photo) -> list[Person]:
        entries = self._file_of(photo).entries(photo)
        people = [self._person(entry, photo) for entry in entries]
        return sorted((person for person in people if person is not None), key=lambda person: -person.score)

    def _file_of(self, photo: Photo) -> KeypointFile:
        if not self._path.is_dir():
            self._check_photo(photo)
            return self._first
        names = [f"{photo.path.stem}{ending}" for ending in ("_keypoints.json", ".json", ".npz")]
        for name in names:
            if (self._path / name).is_file():
                return open_keypoints(self._path / name)
        raise MeshrecError(
            f"The folder {self._path} has no keypoints of {photo.path.name}: none of {', '.join(names)}."
        )

    def _check_photo(self, photo: Photo) -> None:
        """A file of one photo's keypoints serves one photo."""
        if not isinstance(self._first, CocoFile) and self._photo not in (None, photo.path):
            raise MeshrecError(
                f"{self._path} holds the keypoints of one photo and was used for {self._photo}; give {photo.path} its "
                f"own, or a folder of them."
            )
        self._photo = photo.path

    def _person(self, entry: Entry, photo: Photo) -> Person | None:
        known = entry.keypoints.confidence > 0
        if bool((entry.keypoints.xy_px[known].abs() <= 1).all()):
            raise MeshrecError(
                f"{self._path}: the keypoints of {photo.path.name} lie between -1 and 1, so they are shares of the "
                f"image; pixels are needed (OpenPose: --keypoint_scale 0)."
            )
        keypoints = only_inside(entry.keypoints, photo)
        if not (keypoints.confidence > 0).any():
            raise MeshrecError(
                f"{self._path}: a person lies wholly outside {photo.path.name}, which is {photo.width_px}x"
                f"{photo.height_px} pixels; these are the keypoints of another photo, or of another size of it."
            )
        if entry.box_xyxy_px is None and not enough_seen(keypoints):
            return None
        box = box_of(keypoints) if entry.box_xyxy_px is None else entry.box_xyxy_px
        return Person(box, entry.score, keypoints)


def open_keypoints(path: Path) -> KeypointFile:
    """The keypoint file at `path`; its content says which of the formats it is."""
    if path.suffix.lower() == ".npz":
        return NpzFile(path)
    content = _json(path)
    if isinstance(content, dict) and "people" in content:
        return OpenPoseFile(path, content["people"])
    if isinstance(content, list):
        return CocoFile(path, _rows(path, "", content))
    if isinstance(content, dict) and "annotations" in content:
        images = {row.get("id"): row.get("file_name") for _, row in _rows(path, "images", content.get("images"))}
        return CocoFile(path, _rows(path, "annotations", content["annotations"]), images)
    found = (
        f"the fields {', '.join(map(str, content)) or '(none)'}" if isinstance(content, dict) else repr(content)[:40]
    )
    raise MeshrecError(
        f"{path} is no keypoint file: it holds {found}. It should be COCO's JSON (`annotations`, or a list of "
        f"results), OpenPose's (`people`) or an npz."
    )


class CocoFile:
    """COCO keypoints: the annotations of a data set, or a list of results.

    A row belongs to a photo if the file name of its image is the photo's; without `images`, if its `image_id` is the
    photo's name or the number at the end of it (`COCO_val2014_000000000785.jpg` is image 785).
    """

    skeleton = COCO17

    def __init__(self, path: Path, rows: Iterable[tuple[str, dict]], images: dict[Any, Any] | None = None):
        self._path, self._images = path, images
        self._rows_of: dict[Any, list[tuple[str, dict]]] = {}
        for field, row in rows:
            if "image_id" not in row:
                raise MeshrecError(f"{path}: {field} has no `image_id`, so nobody can say whose photo it is.")
            self._rows_of.setdefault(row["image_id"], []).append((field, row))

    def entries(self, photo: Photo) -> list[Entry]:
        rows = [row for image_id in self._image_ids(photo) for row in self._rows_of.get(image_id, [])]
        return [entry for field, row in rows if (entry := self._entry(field, row)) is not None]

    def _image_ids(self, photo: Photo) -> list[Any]:
        if self._images is not None:
            ids = [i for i, name in self._images.items() if Path(str(name)).name == photo.path.name]
            if ids:
                return ids
            raise MeshrecError(
                f"{self._path}: none of its {len(self._images)} `images` has the file_name {photo.path.name}"
                f"{_for_example(self._images.values())}. Give the photo the name that it has there."
            )
        number = re.search(r"(\d+)$", photo.path.stem)
        ids = [photo.path.name, photo.path.stem, *([int(number[1])] if number else [])]
        if number or any(i in self._rows_of for i in ids):
            return ids
        raise MeshrecError(
            f"{self._path}: no `image_id` is {photo.path.name}{_for_example(self._rows_of)}. Rename the photo to end "
            f"in the number of its image, or give a file with `images`."
        )

    def _entry(self, field: str, row: dict) -> Entry | None:
        values = _triples(self._path, f"{field}.keypoints", row.get("keypoints"), [len(COCO17)])
        values[:, :2] += 0.5
        values[:, 2] = _confidence(self._path, f"{field}.keypoints", values[:, 2])
        if not (values[:, 2] > 0).any():
            return None
        box = None
        if row.get("bbox") is not None:
            x, y, width, height = _numbers(self._path, f"{field}.bbox", row["bbox"], [4])
            box = torch.tensor([x, y, x + width, y + height], dtype=torch.float32)
        keypoints = _keypoints(values, COCO17)
        score = row.get("score")
        return Entry(keypoints, _mean_seen(keypoints) if score is None else float(score), box)


class OpenPoseFile:
    """OpenPose's output for one photo: BODY_25, or the older 18 joints, which become 25 with the others missing."""

    skeleton = OPENPOSE25

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
        keypoints = [self._person(field, row) for field, row in self._people]
        return [Entry(k, _mean_seen(k)) for k in keypoints if (k.confidence > 0).any()]

    def _person(self, field: str, row: dict) -> Keypoints:
        name = f"{field}.pose_keypoints_2d"
        counts = [len(OPENPOSE25), len(OPENPOSE18_JOINTS)]
        values = _triples(self._path, name, row.get("pose_keypoints_2d", row.get("pose_keypoints")), counts)
        values[:, 2] = _confidence(self._path, name, values[:, 2])
        if len(values) == len(OPENPOSE18_JOINTS):
            whole = np.zeros((len(OPENPOSE25), 3))
            whole[OPENPOSE25.indices(*OPENPOSE18_JOINTS)] = values
            values = whole
        return _keypoints(values, OPENPOSE25)


class NpzFile:
    """Our own archive of the P people of one photo: `xy_px (P, K, 2)`, `confidence (P, K)`, the name of the `skeleton`.

    Optional: `landmarks_m (P, K, 3)`, metres in camera axes, and `boxes_xyxy_px (P, 4)`.
    """

    def __init__(self, path: Path):
        self._path = path
        arrays = _arrays(path)
        self.skeleton = self._skeleton(arrays)
        joints = len(self.skeleton)
        self._confidence = self._array(arrays, "confidence", (None, joints))
        people = len(self._confidence)
        self._xy_px = self._array(arrays, "xy_px", (people, joints, 2))
        self._landmarks_m = self._array(arrays, "landmarks_m", (people, joints, 3)) if "landmarks_m" in arrays else None
        self._boxes = self._array(arrays, "boxes_xyxy_px", (people, 4)) if "boxes_xyxy_px" in arrays else None

    def entries(self, photo: Photo) -> list[Entry]:
        found = []
        for person, confidence in enumerate(self._confidence):
            confidence = _confidence(self._path, f"confidence[{person}]", confidence)
            values = np.concatenate([self._xy_px[person], confidence[:, None]], axis=1)
            landmarks_m = None if self._landmarks_m is None else self._landmarks_m[person]
            box = None if self._boxes is None else torch.tensor(self._boxes[person], dtype=torch.float32)
            keypoints = _keypoints(values, self.skeleton, landmarks_m)
            if (keypoints.confidence > 0).any():
                found.append(Entry(keypoints, _mean_seen(keypoints), box))
        return found

    def _skeleton(self, arrays: dict[str, np.ndarray]) -> Skeleton:
        name = str(arrays.get("skeleton", "(missing)"))
        if name not in SKELETONS:
            raise MeshrecError(f"{self._path}: `skeleton` is {name}; it should be one of {', '.join(SKELETONS)}.")
        return SKELETONS[name]

    def _array(self, arrays: dict[str, np.ndarray], name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        if name not in arrays:
            raise MeshrecError(f"{self._path} has no `{name}`; it holds {', '.join(arrays)}.")
        array = arrays[name]
        fits = array.ndim == len(shape) and all(
            want in (None, got) for want, got in zip(shape, array.shape, strict=True)
        )
        if not fits or not np.issubdtype(array.dtype, np.number):
            wanted = ", ".join("people" if size is None else str(size) for size in shape)
            raise MeshrecError(
                f"{self._path}: `{name}` is {array.dtype} {array.shape}; it should be numbers ({wanted}), as many "
                f"people as `confidence` has and the joints of `skeleton` {self.skeleton.name}."
            )
        return array.astype(np.float64)


def _keypoints(values: np.ndarray, skeleton: Skeleton, landmarks_m: np.ndarray | None = None) -> Keypoints:
    """Rows of x, y and confidence; whatever is not finite makes its keypoint a missing one, at zero."""
    known = np.asarray(np.isfinite(values).all(axis=1))
    if landmarks_m is not None:
        known = known & np.isfinite(landmarks_m).all(axis=1)
        landmarks_m = np.where(known[:, None], landmarks_m, 0.0)
    tensor = torch.tensor(np.where(known[:, None], values, 0.0), dtype=torch.float32)
    landmarks = None if landmarks_m is None else torch.tensor(landmarks_m, dtype=torch.float32)
    return Keypoints(tensor[:, :2], tensor[:, 2], skeleton, landmarks)


def _mean_seen(keypoints: Keypoints) -> float:
    confidence = keypoints.confidence
    return float(confidence[confidence > 0].mean()) if (confidence > 0).any() else 0.0


def _confidence(path: Path, field: str, values: np.ndarray) -> np.ndarray:
    """Scores as they are; COCO's flags, known by a 2 among them, by `VISIBILITY_CONFIDENCE`. NaN stays NaN."""
    known = values[~np.isnan(values)]
    if (known == 2).any() and np.isin(known, list(VISIBILITY_CONFIDENCE)).all():
        return np.array([VISIBILITY_CONFIDENCE.get(v, math.nan) for v in values.tolist()])
    if (known < 0).any() or (known > 1).any():
        raise MeshrecError(
            f"{path}: {field} has confidences from {known.min():g} to {known.max():g}; they should be within 0 to 1, "
            f"or COCO's flags 0, 1, 2."
        )
    return values


def _triples(path: Path, field: str, content: Any, joints: list[int]) -> np.ndarray:
    return _numbers(path, field, content, [3 * count for count in joints]).reshape(-1, 3)


def _numbers(path: Path, field: str, content: Any, counts: list[int]) -> np.ndarray:
    wanted = " or ".join(map(str, counts))
    if not isinstance(content, list) or len(content) not in counts:
        found = f"{len(content)} values" if isinstance(content, list) else repr(content)[:40]
        raise MeshrecError(f"{path}: {field} is {found}; it should be a list of {wanted} numbers.")
    values = [math.nan if value is None else value for value in content]
    if not all(isinstance(value, int | float) for value in values):
        raise MeshrecError(f"{path}: {field} holds something other than numbers; it should be {wanted} numbers.")
    return np.array(values, dtype=np.float64)


def _rows(path: Path, field: str, content: Any) -> list[tuple[str, dict]]:
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


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise MeshrecError(
            f"Cannot read the keypoint archive {path}: {error}. Write it again with numpy.savez."
        ) from error


def _for_example(names: Iterable[Any]) -> str:
    some = [str(name) for name, _ in zip(names, range(3), strict=False)]
    return f" (they are {', '.join(some)} ...)" if some else ""
