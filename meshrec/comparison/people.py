"""The people whom branches are asked about, some at a time: those of records, or those a detector finds in photographs.

All that is known of everybody but the pictures is small and in the memory; pictures are read when they are looked at.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import roma
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.branches.mesh import Sight
from meshrec.camera import assumed_focal_px
from meshrec.comparison.figures import Found, Seen
from meshrec.data.record_files import TEXTS
from meshrec.data.records import Records
from meshrec.detect import Detector
from meshrec.errors import MeshrecError
from meshrec.photo import Photo, camera_of, read_photo
from meshrec.randomness import generator_of
from meshrec.skeletons import H36M17
from meshrec.types import BodyParams, Camera, Keypoints, Person, stack

RECORDS_AT_ONCE = 128
PHOTOS_AT_ONCE = 4
"""Of whole photographs few fit into the memory."""

Pictures = Callable[[], list[Photo | MeshrecError]]


@dataclass(frozen=True, eq=False)
class Few:
    """Some people as branches are asked about them; nouns have one leading axis."""

    numbers: Int[np.ndarray, "N"]
    """Who they are among all people of the data: the same whoever else is asked about."""
    seen: Seen
    """In pixels of the pictures."""
    pictures: Pictures
    """Of each, or what is wrong with it."""
    scores: tuple[float, ...]
    """How sure their detector was of each."""
    params: BodyParams | None = None
    """The true bodies, where they are known."""
    placed: Float[Tensor, "N"] | None = None
    """1 where the place of the true body is known."""

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def sights(self) -> list[Sight | MeshrecError]:
        """Each person in a picture of their own."""
        return [
            picture if isinstance(picture, MeshrecError) else self._sight(place, picture)
            for place, picture in enumerate(self.pictures())
        ]

    def _sight(self, place: int, picture: Photo) -> Sight:
        mine = self.seen[place]
        person = Person(mine.box_xyxy_px, self.scores[place], mine.keypoints)
        return Sight(picture, (person,), replace(mine.camera, width_px=picture.width_px, height_px=picture.height_px))

    def with_noise(self, noise_px: float, seed: int) -> "Few":
        """Gaussian noise on every coordinate of the keypoints, a function of the seed and who the person is.

        Its standard deviation is in pixels of a person whose box is 1000 px high or wide; more of it is the same noise,
        larger. Boxes and pictures stay.
        """
        keypoints = self.seen.keypoints
        shape = tuple(keypoints.xy_px.shape[1:])
        drawn = [generator_of(seed, "keypoint noise", int(number)).standard_normal(shape) for number in self.numbers]
        noise = torch.from_numpy(np.stack(drawn)).to(keypoints.xy_px)
        xy_px = keypoints.xy_px + noise_px * self.seen.unit_px[:, None, None] * noise
        return replace(self, seen=replace(self.seen, keypoints=replace(keypoints, xy_px=xy_px)))


@runtime_checkable
class People(Protocol):
    """Everybody whom branches are asked about."""

    data: tuple[str, ...]
    """Where they are from."""
    known: bool
    """Whether the true bodies are."""
    problems: tuple[str, ...]
    """A sentence for each who could not be asked about."""

    def __len__(self) -> int: ...

    def few(self, places: Sequence[int]) -> Few:
        """Some of them; all of one span."""
        ...

    def spans(self) -> Iterator[range]:
        """Everybody, some at a time."""
        ...

    def told(self) -> tuple[str, ...]:
        """Where each lies, in words."""
        ...

    def clips(self) -> tuple[str, ...]:
        """The clip that each is from, who are alike; empty for one who is from none."""
        ...


class RecordPeople:
    """Those of records: all whose pose and shape are known, or, where nobody's are, everybody."""

    def __init__(self, records: Sequence[Records], most: int | None = None) -> None:
        self.records, self.data = tuple(records), tuple(readable(f"{each.name} ({each.path})") for each in records)
        bodies = [each.known_bodies for each in records]
        self.known = any(mask.any() for mask in bodies)
        self.numbers = np.flatnonzero(np.concatenate(bodies)) if self.known else np.arange(sum(map(len, records)))
        self.left_out = sum(map(len, records)) - len(self.numbers)
        if most is not None:
            self.numbers = evenly(self.numbers, most)
        self.starts = np.cumsum([0, *map(len, records)])
        self.which = np.searchsorted(self.starts, self.numbers, side="right") - 1
        self.row = self.numbers - self.starts[self.which]
        self.problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def total(self) -> int:
        """Everybody in the records, asked about or not: they are numbered from 0 to before it."""
        return int(self.starts[-1])

    def spans(self) -> Iterator[range]:
        """Each of one folder of records."""
        borders = [0, *(np.flatnonzero(np.diff(self.which)) + 1).tolist(), len(self)]
        for low, high in pairwise(borders):
            yield from spans_of(low, high, RECORDS_AT_ONCE)

    def few(self, places: Sequence[int]) -> Few:
        """In the stored pictures, each a photograph of its own."""
        records, rows = self.records[self.which[places[0]]], self.row[list(places)]
        columns = {name: rows_of(records, name, rows) for name in _NUMBERS}
        scale, corner_px = (_tensor(columns[name]) for name in ("picture_scale", "picture_corner_px"))
        keypoints = _tensor(columns["keypoints"])
        xy_px = (keypoints[..., :2] - corner_px[:, None]) * scale[:, None, None]
        box_px = ((_tensor(columns["box_xyxy_px"]).view(-1, 2, 2) - corner_px[:, None]) * scale[:, None, None]).flatten(
            1
        )
        focal_px, center_px = _pinholes(columns)
        camera = Camera(focal_px * scale, (center_px - corner_px) * scale[:, None], 0, 0, "true")
        seen = Seen(Keypoints(xy_px, keypoints[..., 2], records.skeleton), camera, box_px)
        params, placed = _bodies(columns) if self.known else (None, None)
        scores = (1.0,) * len(rows)
        return Few(self.numbers[list(places)], seen, cache(lambda: _stored(records, rows)), scores, params, placed)

    def told(self) -> tuple[str, ...]:
        """Row, file and source."""
        places = zip(self.which, self.row, strict=True)
        return tuple(readable(self.records[which].told(int(row))) for which, row in places)

    def clips(self) -> tuple[str, ...]:
        """Data set, subject and sequence, where subjects are told: people of none are not alike."""
        names = (self.records[which].name for which in self.which)
        told = zip(names, self.texts("subject"), self.texts("sequence"), strict=True)
        return tuple(f"{data}\0{who}\0{clip}" if who else "" for data, who, clip in told)

    def texts(self, column: str) -> list[str]:
        """A column of text."""
        assert column in TEXTS
        return [bytes(text).decode("utf-8", "replace") for text in self.column(column)]

    def column(self, name: str) -> Shaped[np.ndarray, "N *row"]:
        """An annotation of everybody, in their order."""
        parts = [rows_of(each, name, self.row[self.which == index]) for index, each in enumerate(self.records)]
        return np.concatenate(parts)


class PhotoPeople:
    """Those whom a detector finds in photographs; what is true of them is not known."""

    known = False

    def __init__(
        self,
        photos: Sequence[Path],
        detector: Detector,
        most: int | None = None,
        problems: Sequence[str] = (),
        advance: Callable[[int], object] = lambda done: None,
    ) -> None:
        self.data = (f"{len(photos)} photographs",)
        self.people: list[tuple[Path, Person, Camera, str]] = []
        problems = list(problems)
        for path in photos if most is None else [photos[place] for place in evenly(np.arange(len(photos)), most)]:
            try:
                photo = read_photo(path)
                found, camera = detector(photo), camera_of(photo)
                self.people += [
                    (path, person, camera, readable(f"person {place} of {path}")) for place, person in enumerate(found)
                ]
                problems += [] if found else [f"{path}: no person was found."]
            except MeshrecError as error:
                problems.append(str(error))
            advance(1)
        self.problems = tuple(problems)
        if not self.people:
            raise MeshrecError("\n".join(["Nobody was found in the photographs.", *problems]))

    def __len__(self) -> int:
        return len(self.people)

    def spans(self) -> Iterator[range]:
        """A few photographs' people."""
        return spans_of(0, len(self), PHOTOS_AT_ONCE)

    def few(self, places: Sequence[int]) -> Few:
        """In their photographs."""
        some = [self.people[place] for place in places]
        cameras = stack([replace(camera, width_px=0, height_px=0, focal_source="assumed") for _, _, camera, _ in some])
        boxes = torch.stack([person.box_xyxy_px for _, person, _, _ in some])
        seen = Seen(stack([person.keypoints for _, person, _, _ in some]), cameras, boxes)
        scores = tuple(person.score for _, person, _, _ in some)
        return Few(np.array(places), seen, cache(lambda: [_photo(path) for path, *_ in some]), scores)

    def told(self) -> tuple[str, ...]:
        """Photograph and place in it."""
        return tuple(where for *_, where in self.people)

    def clips(self) -> tuple[str, ...]:
        """The photograph."""
        return tuple(str(path) for path, *_ in self.people)


_NUMBERS = (
    "keypoints",
    "box_xyxy_px",
    "picture_corner_px",
    "picture_scale",
    "photo_size_px",
    "focal_px",
    "center_px",
    "pose_axis_angle",
    "betas",
    "transl_m",
)


@torch.no_grad()
def true_found(model: BodyModel, few: Few, skin: bool) -> Found:
    """The true bodies of people who have them; their skin only if somebody's answer has one."""
    assert few.params is not None and few.placed is not None
    params = few.params.to(model.template.device, model.template.dtype)
    joints17 = model.regressed(params, H36M17)
    root = joints17[:, H36M17.index("pelvis")]
    vertices = model(params).vertices_m - root[:, None] if skin else None
    known = torch.where(few.placed[:, None] > 0, root.cpu().float(), torch.nan)
    return Found((joints17 - root[:, None]).cpu().float(), known, None if vertices is None else vertices.cpu().float())


def readable(words: str) -> str:
    """Words as any file can hold them: what is no text in the name of a file becomes question marks."""
    return words.encode("utf-8", "replace").decode()


def evenly(numbers: Int[np.ndarray, "N"], most: int) -> Int[np.ndarray, "n"]:
    """At most so many of them, evenly spread."""
    return numbers[np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)]


def spans_of(low: int, high: int, most: int) -> Iterator[range]:
    """The places from `low` to before `high`, at most so many at a time."""
    return (range(start, min(start + most, high)) for start in range(low, high, most))


def rows_of(records: Records, name: str, rows: Int[np.ndarray, "N"]) -> Shaped[np.ndarray, "N *row"]:
    """An annotation of some people; of the files only these rows are read."""
    starts = np.cumsum([0, *(shard.people for shard in records.index.shards)])
    which = np.searchsorted(starts, rows, side="right") - 1
    parts = [shard[name][rows[which == index] - starts[index]] for index, shard in enumerate(records.shards)]
    order = np.concatenate([np.flatnonzero(which == index) for index in range(len(parts))])
    return np.concatenate(parts)[np.argsort(order)]


def _pinholes(columns: Mapping[str, np.ndarray]) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 2"]]:
    """Those of the photographs; the diagonal for a focal length where none is known."""
    focal_px, center_px, sizes = (_tensor(columns[name]) for name in ("focal_px", "center_px", "photo_size_px"))
    known = focal_px.isfinite()
    assumed = torch.tensor([assumed_focal_px(*size) for size in sizes.long().tolist()]).to(focal_px)
    focal_px = torch.where(known, focal_px, assumed)
    return focal_px, torch.where(known[:, None], center_px, sizes / 2)


def _bodies(columns: Mapping[str, np.ndarray]) -> tuple[BodyParams, Float[Tensor, "N"]]:
    """The true bodies, and 1 where their place and their camera are known."""
    transl_m, focal_px = _tensor(columns["transl_m"]), _tensor(columns["focal_px"])
    placed = transl_m.isfinite().all(-1) & focal_px.isfinite()
    rotations = roma.rotvec_to_rotmat(_tensor(columns["pose_axis_angle"]))
    params = BodyParams.from_rotations(rotations, _tensor(columns["betas"]), transl_m.nan_to_num(0.0))
    return params, placed.float()


def _stored(records: Records, rows: Int[np.ndarray, "N"]) -> list[Photo | MeshrecError]:
    def read(row: int) -> Photo | MeshrecError:
        try:
            return records[row].as_photo()[0]
        except MeshrecError as error:
            return error

    return [read(int(row)) for row in rows]


def _photo(path: Path) -> Photo | MeshrecError:
    try:
        return read_photo(path)
    except MeshrecError as error:
        return error


def _tensor(values: np.ndarray) -> Float[Tensor, "*shape"]:
    return torch.from_numpy(np.array(values)).float()
