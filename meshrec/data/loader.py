"""Batches of people, made ahead by threads: the same ones whatever the number of threads, and wherever work resumes."""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import torch

from meshrec.body import BodyModel
from meshrec.data.augment import PLAIN, AugmentConfig, Draw, draw_of
from meshrec.data.mixture import Mixture, Rows
from meshrec.data.people import People, RestPelvis, Sight, people_of, sight_of
from meshrec.data.records import Gender, Records
from meshrec.errors import MeshrecError
from meshrec.randomness import generator_of


@dataclass(frozen=True, eq=False)
class Begun:
    """A batch that threads are at work on."""

    rows: Rows
    sights: list[Future[Sight]]

    def people(self, rest_pelvis: RestPelvis) -> People:
        """The batch, once it is done; the first error in it is raised, and what was not begun is left undone."""
        try:
            people = people_of([sight.result() for sight in self.sights], rest_pelvis)
        except BaseException:
            self.cancel()
            raise
        return replace(people, dataset=self.rows.dataset, row=self.rows.row)

    def cancel(self) -> None:
        """Leave undone what was not begun."""
        for sight in self.sights:
            sight.cancel()


def look(records: Records, row: int, draw: Draw, crop_px: int) -> Sight:
    """A crop of one person; whatever is wrong with it is told with where it lies."""
    try:
        return sight_of(records[row], draw, crop_px)
    except (MeshrecError, OSError, ValueError, RuntimeError, cv2.error) as error:
        where = "" if isinstance(error, MeshrecError) else f" {records.told(row)}:"
        raise MeshrecError(f"Data set {records.name}, row {row}:{where} {error}") from error


class Loader:
    """Training batches: who is drawn, how the crop is changed, and all else is a function of (seed, step, place).

    OpenCV works without Python's lock, so threads are enough. They end when the loader is let go.
    """

    def __init__(
        self,
        records: Sequence[Records],
        mixture: Mixture,
        bodies: Mapping[Gender, BodyModel],
        crop_px: int = 224,
        augment: AugmentConfig | None = None,
        seed: int = 0,
        workers: int = 2,
        ahead: int = 2,
    ) -> None:
        self.records, self.mixture, self.rest_pelvis = records, mixture, RestPelvis.of(bodies)
        self.crop_px, self.augment, self.seed, self.ahead = crop_px, augment, seed, ahead
        self.threads = _threads(self, workers)
        self.begun: dict[tuple[int, int, int], Begun] = {}

    def take(self, step: int, rows: slice) -> People:
        """The places `rows` of the global batch of a step; the same places of the next steps are begun."""
        places = range(rows.start or 0, rows.stop)
        wanted = {(one, places.start, places.stop): one for one in range(step, step + 1 + self.ahead)}
        for key in self.begun.keys() - wanted.keys():
            self.begun.pop(key).cancel()
        for key, one in wanted.items():
            if key not in self.begun:
                self.begun[key] = self._begin(one, places)
        return self.begun.pop((step, places.start, places.stop)).people(self.rest_pelvis)

    def rows(self, step: int, batch: int) -> Rows:
        """Who is in the global batch of a step."""
        return self.mixture.draw(self.seed, step, batch)

    def _begin(self, step: int, places: range) -> Begun:
        rows = self.rows(step, places.stop)[places.start :]
        who = zip(rows.dataset.tolist(), rows.row.tolist(), places, strict=True)
        return Begun(
            rows,
            [
                self.threads.submit(look, self.records[dataset], row, self._draw(step, place), self.crop_px)
                for dataset, row, place in who
            ],
        )

    def _draw(self, step: int, place: int) -> Draw:
        if self.augment is None:
            return PLAIN
        return draw_of(self.augment, generator_of(self.seed, "augment", step, place))


def validation_batches(
    records: Records, bodies: Mapping[Gender, BodyModel], crop_px: int = 224, batch: int = 64, workers: int = 2
) -> Iterator[People]:
    """Everybody in the order of the rows, as a photograph shows them; batches are made while others are used."""
    rest_pelvis = RestPelvis.of(bodies)
    with ThreadPoolExecutor(workers, "loader") as threads:

        def begin(start: int) -> Begun:
            rows = torch.arange(start, max(start, min(start + batch, len(records))))
            sights = [threads.submit(look, records, row, PLAIN, crop_px) for row in rows.tolist()]
            return Begun(Rows(torch.zeros_like(rows), rows), sights)

        begun = begin(0)
        for start in range(0, len(records), batch):
            ready, begun = begun, begin(start + batch)
            try:
                yield ready.people(rest_pelvis)
            except BaseException:
                begun.cancel()
                raise


def _threads(owner: object, workers: int) -> ThreadPoolExecutor:
    """Threads that are told to end when their owner is let go."""
    threads = ThreadPoolExecutor(workers, "loader")
    weakref.finalize(owner, threads.shutdown, wait=False, cancel_futures=True)
    return threads
