"""One person as a file of keypoints tells it, and what every format of such files asks of its numbers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.errors import MeshrecError
from meshrec.skeletons import Skeleton
from meshrec.types import Keypoints

MOST_SIDE_PX = 1_000_000
"""No image is wider or higher."""

VISIBILITY_CONFIDENCE = {0: 0.0, 1: 0.5, 2: 1.0}
"""COCO's annotation flags: not labelled; labelled but hidden; labelled and visible."""


@dataclass(frozen=True)
class Entry:
    """One person as a file tells it."""

    keypoints: Keypoints
    score: float
    box_xyxy_px: Float[Tensor, "4"] | None = None


@dataclass(frozen=True)
class Listed:
    """A photo that a file knows, whether or not anybody has it."""

    name: str
    read: Callable[[], list[Entry]]
    """The people in it; a `MeshrecError` if the file is wrong there."""
    size_px: tuple[int, int] | None = None
    """Width and height, where the file tells them."""


def keypoints_of(values: Float[np.ndarray, "K 3"], skeleton: Skeleton) -> Keypoints:
    """Rows of x, y and confidence; a row that is not finite in single precision is a missing keypoint, at zero."""
    rows = torch.tensor(values, dtype=torch.float32)
    rows = torch.where(rows.isfinite().all(dim=1, keepdim=True), rows, 0.0)
    return Keypoints(rows[:, :2], rows[:, 2], skeleton)


def mean_seen(keypoints: Keypoints) -> float:
    """Mean confidence of the known keypoints; 0 where none is."""
    confidence = keypoints.confidence
    return float(confidence[confidence > 0].mean()) if (confidence > 0).any() else 0.0


def confidence_of(path: Path, field: str, values: np.ndarray) -> np.ndarray:
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
