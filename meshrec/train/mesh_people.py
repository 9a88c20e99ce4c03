"""The people of a mesh training: of records, synthetic ones, or some of each; and where their joints are found."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.data.body_joints import BODY58, OWN, row_name
from meshrec.data.detector_errors import DetectorErrors, detected_like
from meshrec.data.loader import Loader, validation_batches
from meshrec.data.mixture import Mixture
from meshrec.data.people import People
from meshrec.data.records import Gender, Records
from meshrec.errors import MeshrecError
from meshrec.randomness import generator_of
from meshrec.skeletons import COCO17
from meshrec.types import Batched, joined

COCO = BODY58.indices(*(row_name(joint, COCO17) for joint in COCO17.joints))

ALIKE = tuple(
    (COCO17.indices(*names), BODY58.indices(*(row_name(joint, skeleton) for joint in names)))
    for skeleton in OWN
    if (names := [joint for joint in COCO17.joints if joint in skeleton.joints]) and skeleton is not COCO17
)
"""COCO-17's joints, and the rows of those of the same name by each other definition."""

SYNTHETIC = "synthetic"
"""What synthetic people are called in the log."""

UNSEEN_SEED = 2**31 - 1
"""Of the synthetic people that are validated on: the same in every run."""

SKIN_BEYOND_JOINTS = 1.08
"""The box about a body over the box about its joints."""

LEAST_SIZE = 0.5
"""A person is at least so long in a crop, in its sides, however few of the joints are seen."""


@dataclass(frozen=True)
class Sighted(Batched):
    """People, and where a detector finds COCO-17's joints, in pixels of their crops."""

    people: People
    points: Float[Tensor, "*batch 17 2"]
    confidence: Float[Tensor, "*batch 17"]
    """0: not found."""

    def __len__(self) -> int:
        return len(self.people)


def annotated(people: People) -> Sighted:
    """The joints that are noted of them count as found: by COCO-17's definition, or else by another's of that name."""
    points, confidence = people.points[..., COCO, :], people.weight[..., COCO]
    for joints, rows in ALIKE:
        other = (confidence[..., joints] <= 0) & (people.weight[..., rows] > 0)
        confidence[..., joints] = torch.where(other, people.weight[..., rows], confidence[..., joints])
        points[..., joints, :] = torch.where(other[..., None], people.points[..., rows, :], points[..., joints, :])
    return Sighted(people, points, confidence)


def detected(people: People, errors: DetectorErrors, seed: int, step: int) -> Sighted:
    """The joints with a detector's errors, which are a function of (seed, step, row)."""
    randoms = [generator_of(seed, "detector", step, row) for row in people.row.tolist()]
    true, weight = people.points[..., COCO, :], people.weight[..., COCO]
    return Sighted(people, *detected_like(true, weight, size_px(people), errors, randoms))


def size_px(people: People) -> Float[Tensor, "n"]:
    """The longer side of the box about what is seen of each person, about, in pixels of the crop."""
    seen = (people.weight > 0)[..., None]
    low = torch.where(seen, people.points, torch.inf).amin(-2)
    high = torch.where(seen, people.points, -torch.inf).amax(-2)
    return (SKIN_BEYOND_JOINTS * (high - low).amax(-1)).clamp(LEAST_SIZE * people.crop_px, people.crop_px)


@runtime_checkable
class PeopleLoader(Protocol):
    """People of every step and place, of which nobody knows how they are come by."""

    def take(self, step: int, rows: slice) -> People:
        """Those at the places `rows` of a step."""
        ...


class Crowd:
    """Everybody that is trained on: each place of a batch is synthetic, or a record's, in every step."""

    def __init__(
        self,
        records: Loader | None,
        synthetic: PeopleLoader | None,
        share: float,
        errors: DetectorErrors,
        seed: int,
        device: torch.device,
    ) -> None:
        """A `share` of each batch is synthetic, 0 where there is no such loader and 1 where there are no records."""
        self.records, self.synthetic, self.share = records, synthetic, share
        self.errors, self.seed, self.device = errors, seed, device
        self._speed = 0.0

    def take(self, step: int, rows: slice) -> Sighted:
        """The places `rows` of the global batch of a step."""
        made = slice(self._made(rows.start), self._made(rows.stop))
        known = slice(rows.start - made.start, rows.stop - made.stop)
        groups: list[Sighted] = []
        if made.stop > made.start:
            assert self.synthetic is not None
            people = self.synthetic.take(step, made)
            people = replace(people, dataset=torch.full_like(people.dataset, len(self._sets)))
            groups.append(detected(people, self.errors, self.seed, step))
        if known.stop > known.start:
            assert self.records is not None
            groups.append(annotated(self.records.take(step, known)))
        first = [place for place in range(rows.start, rows.stop) if self._made(place + 1) > self._made(place)]
        then = [place for place in range(rows.start, rows.stop) if self._made(place + 1) == self._made(place)]
        order = torch.tensor(first + then).argsort()
        return joined([group.to(self.device) for group in groups])[order.to(self.device)]

    def shares(self, steps: Sequence[int], batch: int) -> dict[str, float]:
        """The share of each data set among the people of some steps, by name."""
        made = self._made(batch) / batch
        shares = {SYNTHETIC: made} if self.synthetic is not None else {}
        if self.records is None or made == 1:
            return shares
        known = batch - self._made(batch)
        drawn = torch.cat([self.records.rows(step, known).dataset for step in steps])
        realised = self.records.mixture.realised(drawn)
        return shares | {name: (1 - made) * share for name, share in realised.items()}

    def alone_per_s(self, batch: int) -> dict[str, float]:
        """People of records a second while nothing else is done, measured once, by the name of the figure."""
        if self.records is None:
            return {}
        if not self._speed:
            start = time.perf_counter()
            self._speed = len(self.records.take(0, slice(0, batch))) / (time.perf_counter() - start)
        return {"loader_images_per_s": self._speed}

    def told(self, dataset: int, row: int) -> str:
        """Where a person is to be found."""
        if dataset == len(self._sets):
            return f"{SYNTHETIC} person {row}"
        known = self._sets[dataset]
        return f"{known.name} {known.told(row)}, frame {int(known.column('frame')[row])}"

    @property
    def _sets(self) -> Sequence[Records]:
        return () if self.records is None else self.records.records

    def _made(self, place: int) -> int:
        """How many of the places before this one are synthetic."""
        return math.floor(self.share * place + 1e-9)


class Unseen:
    """Everybody that is never trained on: of records, whose joints count as found, and synthetic people."""

    def __init__(
        self,
        records: Sequence[Records],
        bodies: Mapping[Gender, BodyModel],
        synthetic: PeopleLoader | None,
        count: int,
        errors: DetectorErrors,
        *,
        crop_px: int,
        batch: int,
        workers: int,
        device: torch.device,
    ) -> None:
        """With `count` synthetic people."""
        if records and not any(one.known_bodies.any() for one in records):
            raise MeshrecError(
                f"None of the people in {', '.join(str(one.path) for one in records)} has a known body, so nothing "
                f"can be measured on them. Name other folders with --validation FOLDER..."
            )
        self.records, self.bodies, self.synthetic, self.count = records, bodies, synthetic, count
        self.errors, self.crop_px, self.batch, self.workers, self.device = errors, crop_px, batch, workers, device

    def __iter__(self) -> Iterator[Sighted]:
        """In batches, those whose bodies are not known left out."""
        for sighted in self.made:
            yield sighted.to(self.device)
        for records in self.records:
            for people in validation_batches(records, self.bodies, self.crop_px, self.batch, self.workers):
                if bool((people.posed & people.shaped).any()):
                    yield annotated(people).to(self.device)

    @cached_property
    def made(self) -> list[Sighted]:
        """The synthetic people, made once."""
        if self.synthetic is None:
            return []
        batches = [slice(start, min(start + self.batch, self.count)) for start in range(0, self.count, self.batch)]
        return [detected(self.synthetic.take(0, rows), self.errors, UNSEEN_SEED, 0) for rows in batches]


def fingerprint_of(records: Sequence[Records], unseen: Sequence[Records], files: Sequence[Path]) -> str:
    """A hash of the data sets' own, and of the names and sizes of other files and of what is in folders."""
    digest = sha256()
    for split in (records, unseen):
        digest.update(repr([(one.name, one.split, one.fingerprint) for one in split]).encode())
    for path in files:
        inside = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        digest.update(repr([(one.name, one.stat().st_size) for one in inside]).encode())
    return digest.hexdigest()[:16]


def mixture_of(records: Sequence[Records], mix: Mapping[str, float]) -> Mixture:
    """How often each data set is drawn from: by its ratio, or, with none given, everybody as often."""
    return Mixture.of(records, mix or {one.name: float(len(one)) for one in records})
