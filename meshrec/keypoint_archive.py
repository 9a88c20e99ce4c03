"""Our own archive of keypoints."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.arrays import read_arrays
from meshrec.errors import MeshrecError
from meshrec.keypoint_entries import MOST_SIDE_PX, Entry, Listed, confidence_of, keypoints_of, mean_seen
from meshrec.photo import Photo
from meshrec.skeletons import SKELETONS, Skeleton
from meshrec.types import Keypoints


class NpzFile:
    """Our own archive of the P people of one photo: `xy_px (P, K, 2)`, `confidence (P, K)`, the name of the `skeleton`.

    Optional: `size_px (2,)`, width and height of the image, `boxes_xyxy_px (P, 4)`, and `landmarks_m (P, K, 3)`,
    metres in camera axes. If anybody's landmark of a known keypoint is missing (not finite), everybody's landmarks are
    left out: people are stacked, so all have them or none has.
    """

    holds_one_photo = True

    def __init__(self, path: Path):
        self._path = path
        arrays = read_arrays(path)
        self._size_px = _size_of(path, arrays.get("size_px"))
        self._skeleton = self._skeleton_of(arrays)
        joints = len(self._skeleton)
        confidence = self._array(arrays, "confidence", (None, joints))
        people = len(confidence)
        confidence = [confidence_of(path, f"confidence[{person}]", row) for person, row in enumerate(confidence)]
        xy_px = self._array(arrays, "xy_px", (people, joints, 2))
        landmarks_m = self._array(arrays, "landmarks_m", (people, joints, 3)) if "landmarks_m" in arrays else None
        boxes = self._array(arrays, "boxes_xyxy_px", (people, 4)) if "boxes_xyxy_px" in arrays else [None] * people
        keypoints = [
            keypoints_of(np.column_stack(rows), self._skeleton) for rows in zip(xy_px, confidence, strict=True)
        ]
        keypoints = keypoints if landmarks_m is None else _with_landmarks(keypoints, landmarks_m)
        self._entries = [Entry(k, mean_seen(k), _float32(box)) for k, box in zip(keypoints, boxes, strict=True)]

    def photos(self) -> list[Listed]:
        return [Listed(self._path.stem, lambda: self._entries, self._size_px)]

    def entries(self, photo: Photo) -> list[Entry]:
        return self._entries

    def _skeleton_of(self, arrays: dict[str, np.ndarray]) -> Skeleton:
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
        if not fits or array.dtype.kind not in "iuf":
            wanted = ", ".join("people" if size is None else str(size) for size in shape)
            raise MeshrecError(
                f"{self._path}: `{name}` is {array.dtype} {array.shape}; it should be real numbers ({wanted}), as many "
                f"people as `confidence` has and the joints of `skeleton` {self._skeleton.name}."
            )
        return array.astype(np.float64)


def _with_landmarks(people: list[Keypoints], landmarks_m: Float[np.ndarray, "P K 3"]) -> list[Keypoints]:
    """The people with landmarks if each known keypoint has its own, else as they are; zero where none is needed."""
    landmarks = torch.tensor(landmarks_m, dtype=torch.float32)
    finite = landmarks.isfinite().all(dim=-1)
    if not all(bool(has[k.confidence > 0].all()) for k, has in zip(people, finite, strict=True)):
        return people
    landmarks = torch.where(finite[..., None], landmarks, 0.0)
    return [replace(k, landmarks_m=theirs) for k, theirs in zip(people, landmarks, strict=True)]


def _float32(box: Float[np.ndarray, "4"] | None) -> Float[Tensor, "4"] | None:
    return None if box is None else torch.tensor(box, dtype=torch.float32)


def _size_of(path: Path, size: np.ndarray | None) -> tuple[int, int] | None:
    """Width and height of the image; None where the archive says nothing."""
    if size is None:
        return None
    if size.shape != (2,) or size.dtype.kind not in "iuf" or not ((size >= 1) & (size <= MOST_SIDE_PX)).all():
        found = size.tolist() if size.size <= 4 else f"an array {size.shape}"
        raise MeshrecError(
            f"{path}: `size_px` is {found}; it should be the width and the height, each from 1 to {MOST_SIDE_PX:,} px."
        )
    return int(size[0]), int(size[1])
