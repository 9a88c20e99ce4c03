"""MediaPipe's BlazePose, made to find everybody in a photograph."""

import math
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from meshrec.errors import MeshrecError
from meshrec.keypoints import agreement, box_of, enough_seen, only_inside
from meshrec.photo import Photo
from meshrec.silence import quiet_stderr
from meshrec.skeletons import MEDIAPIPE33
from meshrec.types import Keypoints, Person

WINDOWS_ACROSS = (1, 3)
"""The photo is searched whole and in square windows of a third of its longer side."""
WINDOW_STEP = 0.6
"""From one window to the next, in window sides."""
WINDOW_PX, PATCH_PX = 448, 768
"""Larger cuts are first averaged down to this, twice and three times what the two networks take."""
LEAST_AGREEMENT = 0.5
"""Between the two looks at a person. On collages nine of ten false alarms lay below 0.25, 19 of 20 people above 0.8."""
LEAST_SCORE = 0.4
SAME_PERSON = 0.5
"""Agreement, of the whole pose or of the head alone, at which two detections are of one person."""
UNSURE_SCORE = 0.6
"""Below it, a detection that lies mostly within a surer person's box is a limb taken for a body."""
MOST_PEOPLE = 12
_HEAD = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")

_PEOPLE_GRAPH = """
input_stream: "image"
output_stream: "people"
node { calculator: "PoseDetectionCpu" input_stream: "IMAGE:image" output_stream: "DETECTIONS:people" }
"""
_POSE_GRAPH = """
input_stream: "image"
input_stream: "square"
input_side_packet: "model_complexity"
output_stream: "landmarks"
output_stream: "world_landmarks"
output_stream: "next_square"
node { calculator: "ImagePropertiesCalculator" input_stream: "IMAGE_CPU:image" output_stream: "SIZE:size" }
node {
  calculator: "PoseLandmarkByRoiCpu"
  input_side_packet: "MODEL_COMPLEXITY:model_complexity"
  input_stream: "IMAGE:image"
  input_stream: "ROI:square"
  output_stream: "LANDMARKS:landmarks"
  output_stream: "AUXILIARY_LANDMARKS:alignment"
  output_stream: "WORLD_LANDMARKS:world_landmarks"
}
node {
  calculator: "PoseLandmarksToRoi"
  input_stream: "LANDMARKS:alignment"
  input_stream: "IMAGE_SIZE:size"
  output_stream: "ROI:next_square"
}
"""
_FULL_MODEL = 1
"""The only landmark model inside the wheel; MediaPipe would download the others."""


Seen = TypeVar("Seen")


@dataclass(frozen=True)
class _Square:
    """Where to look for one pose: a square about the hips, turned so that the trunk stands upright in it."""

    center_px: np.ndarray
    side_px: float
    angle_rad: float
    """Clockwise in the image."""
    score: float
    """Of the detection it comes from."""


@dataclass(frozen=True)
class _Cut:
    """A part of a photo, averaged down, and the way back: photo = corner + scale * cut."""

    pixels: UInt8[np.ndarray, "h w 3"]
    corner_px: np.ndarray
    scale: np.ndarray

    @property
    def size(self) -> np.ndarray:
        return np.array(self.pixels.shape[1::-1])


@contextmanager
def _without_deprecation() -> Iterator[None]:
    """MediaPipe calls a part of protobuf that protobuf deprecates, which is nobody's concern here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"SymbolDatabase\.GetPrototype\(\) is deprecated")
        yield


class MediaPipeDetector:
    """BlazePose (Bazarevsky et al. 2020): 33 keypoints with metric landmarks, of every person that it finds.

    MediaPipe's own pose solution reports one person, looks at the whole picture only and misses people smaller than
    about a quarter of it. Here its two networks are run apart: the person detector over windows, then the landmark
    network twice per person, the second time on the square that the first look proposes. People in whom the two looks
    disagree are dropped; otherwise the keypoints are the mean of both, and the confidence is the least visibility and
    presence.
    Landmarks: metres, hip-centred, camera axes (x right, y down, z away).
    """

    name = "mediapipe"

    @_without_deprecation()
    def __init__(self, threads: int | None = None):
        self._threads = threads or min(4, os.cpu_count() or 1)
        self._networks = [_BlazePose() for _ in range(self._threads)]
        self._pool = ThreadPoolExecutor(self._threads)

    @_without_deprecation()
    def __call__(self, photo: Photo) -> list[Person]:
        windows = search_windows(photo.width_px, photo.height_px)
        found = self._share_out(lambda network, window: network.squares(photo, window), windows)
        squares = _distinct([square for squares in found for square in squares])[:MOST_PEOPLE]
        people = self._share_out(lambda network, square: network.person(photo, square), squares)
        return _one_each([person for person in people if person is not None and person.score >= LEAST_SCORE])

    @_without_deprecation()
    def in_box(self, photo: Photo, box_xyxy_px: Float[Tensor, "4"]) -> Person | None:
        """The person in a given box: the surest whose hips lie in it; failing that, whoever an upright square shows."""
        x0, y0, x1, y1 = box_xyxy_px.tolist()
        center, side = np.array([x0 + x1, y0 + y1]) / 2, max(x1 - x0, y1 - y0)
        window = (*(center - 0.75 * side), *(center + 0.75 * side))
        inside = [s for s in self._networks[0].squares(photo, window) if _inside(s.center_px, box_xyxy_px)]
        upright = _Square(center, 1.25 * side, 0.0, score=0.5)
        for square in [*sorted(inside, key=lambda s: -s.score), upright]:
            if (person := self._networks[0].person(photo, square)) is not None:
                return person
        return None

    def _share_out(self, look: Callable[["_BlazePose", Any], Seen], places: list[Any]) -> list[Seen]:
        """`look` at every place, each thread with networks of its own; the order does not depend on their number."""

        def share(thread: int) -> list[Seen]:
            return [look(self._networks[thread], place) for place in places[thread :: self._threads]]

        shares = list(self._pool.map(share, range(self._threads)))
        return [shares[i % self._threads][i // self._threads] for i in range(len(places))]


def search_windows(width_px: int, height_px: int) -> list[tuple[float, float, float, float]]:
    """The windows x0, y0, x1, y1 in which people are looked for; they cover the photo once for each scale."""
    windows = []
    for across in WINDOWS_ACROSS:
        side = max(width_px, height_px) / across
        width, height = min(side, float(width_px)), min(side, float(height_px))
        for y in _starts(height_px, height):
            windows += [(x, y, x + width, y + height) for x in _starts(width_px, width)]
    return windows


def _starts(length: int, side: float) -> list[float]:
    steps = math.ceil((length - side) / (WINDOW_STEP * side) - 1e-6)
    return np.linspace(0.0, length - side, steps + 1).tolist()


class _BlazePose:
    """The two networks; not to be used by two threads at once."""

    def __init__(self):
        solution, self._rectangle = _mediapipe()
        with quiet_stderr():
            self._people = solution(graph_config=_PEOPLE_GRAPH)
            self._pose = solution(graph_config=_POSE_GRAPH, side_inputs={"model_complexity": _FULL_MODEL})
            grey = _Cut(np.full((64, 64, 3), 128, np.uint8), np.zeros(2), np.ones(2))
            self._people.process(grey.pixels)  # the networks load, and chat, at their first picture
            self._look(grey, _Square(grey.size / 2, 64.0, 0.0, 0.0))

    def squares(self, photo: Photo, window: tuple[float, float, float, float]) -> list[_Square]:
        """Everybody that the person detector finds in a window."""
        if (cut := _cut(photo, window, WINDOW_PX)) is None:
            return []
        return [_square(detection, cut) for detection in self._people.process(cut.pixels).people or []]

    def person(self, photo: Photo, square: _Square) -> Person | None:
        """The person in a square, from two looks that agree."""
        first = self._pose_in(photo, square)
        second = None if first is None else self._pose_in(photo, first[1])
        if first is None or second is None:
            return None
        looks = [only_inside(keypoints, photo) for keypoints, _ in (first, second)]
        if not all(enough_seen(look) for look in looks):
            return None
        keypoints, alike = only_inside(_mean(*looks), photo), agreement(looks[0], looks[1])
        if alike < LEAST_AGREEMENT or not enough_seen(keypoints):
            return None
        return Person(box_of(keypoints), square.score * alike, keypoints)

    def _pose_in(self, photo: Photo, square: _Square) -> tuple[Keypoints, _Square] | None:
        """The pose that the landmark network sees in a square, and the square it would look at next."""
        reach = square.side_px / 2 * (abs(math.cos(square.angle_rad)) + abs(math.sin(square.angle_rad)))
        cut = _cut(photo, (*(square.center_px - reach), *(square.center_px + reach)), PATCH_PX)
        seen = None if cut is None else self._look(cut, square)
        if cut is None or seen is None or seen.landmarks is None:
            return None
        landmarks, world, proposal = seen.landmarks.landmark, seen.world_landmarks.landmark, seen.next_square
        xy = np.array([(point.x, point.y) for point in landmarks]) * cut.size * cut.scale + cut.corner_px
        keypoints = Keypoints(
            torch.tensor(xy, dtype=torch.float32),
            torch.tensor([min(point.visibility, point.presence) for point in landmarks]),
            MEDIAPIPE33,
            torch.tensor([(point.x, point.y, point.z) for point in world]),
        )
        center = np.array([proposal.x_center, proposal.y_center]) * cut.size * cut.scale + cut.corner_px
        side = proposal.width * cut.size[0] * cut.scale[0]
        return keypoints, _Square(center, side, proposal.rotation, square.score)

    def _look(self, cut: _Cut, square: _Square) -> Any:
        x, y = (square.center_px - cut.corner_px) / cut.scale / cut.size
        width, height = square.side_px / cut.scale / cut.size
        place = self._rectangle(x_center=x, y_center=y, width=width, height=height, rotation=square.angle_rad)
        return self._pose.process({"image": cut.pixels, "square": place})


def _square(detection: Any, cut: _Cut) -> _Square:
    """From the detector's hip centre and the point on the circle around the whole body, 1.25 times its diameter."""
    points = np.array([(point.x, point.y) for point in detection.location_data.relative_keypoints])
    hips, rim = (points * cut.size * cut.scale + cut.corner_px)[:2]
    right, down = rim - hips
    return _Square(hips, 2.5 * math.hypot(right, down), math.atan2(right, -down), detection.score[0])


def _cut(photo: Photo, window: tuple[float, ...], longest_px: int) -> _Cut | None:
    """The part of the photo in a window, no side longer than `longest_px`; None if the window lies beside the photo."""
    x0, y0 = (max(0, math.floor(low)) for low in window[:2])
    x1, y1 = (
        min(size, math.ceil(high)) for size, high in zip((photo.width_px, photo.height_px), window[2:], strict=True)
    )
    if min(x1 - x0, y1 - y0) < 8:
        return None
    pixels, shrink = photo.pixels[y0:y1, x0:x1], longest_px / max(x1 - x0, y1 - y0)
    if shrink < 1:
        size = (max(1, round((x1 - x0) * shrink)), max(1, round((y1 - y0) * shrink)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    scale = np.array([x1 - x0, y1 - y0]) / np.array(pixels.shape[1::-1])
    return _Cut(np.ascontiguousarray(pixels), np.array([x0, y0]), scale)


def _distinct(squares: list[_Square]) -> list[_Square]:
    """Of squares of like size about like centres the surest, the surest first."""
    kept: list[_Square] = []
    for square in sorted(squares, key=lambda s: -s.score):
        if not any(_alike(square, other) for other in kept):
            kept.append(square)
    return kept


def _alike(one: _Square, other: _Square) -> bool:
    small, large = sorted([one.side_px, other.side_px])
    return large < 2 * small and float(np.hypot(*(one.center_px - other.center_px))) < large / 8


def _one_each(people: list[Person]) -> list[Person]:
    """Every person once, the surest first."""
    kept: list[Person] = []
    for person in sorted(people, key=lambda p: -p.score):
        if not any(_same_person(person, surer) for surer in kept):
            kept.append(person)
    return kept


def _same_person(person: Person, surer: Person) -> bool:
    """Whether two detections share the pose or the head, or an unsure one lies mostly within the other's box."""
    pair = person.keypoints, surer.keypoints
    alike = max(agreement(*pair), agreement(*pair, joints=_HEAD)) > SAME_PERSON
    return alike or (person.score < UNSURE_SCORE and _share_within(person.box_xyxy_px, surer.box_xyxy_px) > 0.5)


def _share_within(box: Float[Tensor, "4"], other: Float[Tensor, "4"]) -> float:
    """The share of a box's area that lies in another."""
    common = torch.minimum(box[2:], other[2:]) - torch.maximum(box[:2], other[:2])
    return float(common.clamp(min=0.0).prod() / (box[2:] - box[:2]).prod())


def _mean(one: Keypoints, other: Keypoints) -> Keypoints:
    """The mean of two looks, as sure as the less sure of them."""
    assert one.landmarks_m is not None and other.landmarks_m is not None
    confidence = torch.minimum(one.confidence, other.confidence)
    landmarks_m = (one.landmarks_m + other.landmarks_m) / 2
    return Keypoints((one.xy_px + other.xy_px) / 2, confidence, one.skeleton, landmarks_m)


def _inside(point_px: np.ndarray, box_xyxy_px: Float[Tensor, "4"]) -> bool:
    x0, y0, x1, y1 = box_xyxy_px.tolist()
    return bool(x0 <= point_px[0] <= x1 and y0 <= point_px[1] <= y1)


def _mediapipe() -> tuple[Any, Any]:
    try:
        from mediapipe.framework.formats.rect_pb2 import NormalizedRect  # pyright: ignore[reportAttributeAccessIssue]
        from mediapipe.python.solution_base import SolutionBase
    except ImportError as error:
        raise MeshrecError(
            f'MediaPipe cannot be imported ({error}). Run pip install "meshrec[detect]" (Python 3.12 or older), use '
            f"another detector, or give keypoints with --keypoints PATH."
        ) from error
    return SolutionBase, NormalizedRect
