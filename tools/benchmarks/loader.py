"""The loader of training crops, from stored pictures and from the photographs that they were stored of."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.clock import Figure, Run, medians_s
from meshrec.body import BodyModel, load_body_model
from meshrec.data.augment import AugmentConfig
from meshrec.data.loader import Loader
from meshrec.data.mixture import Mixture
from meshrec.data.record_files import Header
from meshrec.data.record_writer import NewRecord, RecordWriter, encode_picture
from meshrec.data.records import Gender, Record, Records, Truth, open_records
from meshrec.skeletons import COCO17, SMPL24
from meshrec.types import BodyParams, Camera, Keypoints

WIDTH, HEIGHT = 1920, 1080
FRAMES = 24
BATCH = 128
THREADS = 2
QUALITY = 95
"""What cameras and data sets compress photographs with."""


@dataclass(frozen=True, eq=False)
class Frames(Records):
    """The same people, each read from a whole photograph."""

    annotated: tuple[Record, ...] = ()

    def __getitem__(self, row: int) -> Record:
        record = self.annotated[row]
        bgr = cv2.imread(record.source, cv2.IMREAD_COLOR)
        assert bgr is not None, f"{record.source} was written a moment ago"
        return replace(record, pixels=cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), corner_px=torch.zeros(2), scale=1.0)


def stored_crops(repeats: int) -> Figure:
    """Augmented crops of 224 a second by two threads; the peer decodes frames of 1080p and cuts from them."""
    with _people() as records:
        frames = Frames(records.path, records.index, records.shards, tuple(records))
        ours_s, peer_s = medians_s(_batches(records), _batches(frames), repeats=repeats)
    note = f"{THREADS} threads, batches of {BATCH}, nothing made ahead"
    return Figure(BATCH / ours_s, "images/s", BATCH / peer_s, "cv2.imread of 1080p", note, more_is_better=True)


def _batches(records: Records) -> Run:
    """Takes one batch after another."""
    mixture = Mixture.of([records], {records.name: 1.0})
    bodies: dict[Gender, BodyModel] = {"neutral": load_body_model()}
    loader = Loader([records], mixture, bodies, augment=AugmentConfig(), workers=THREADS, ahead=0)
    steps = iter(range(10**9))
    return lambda: loader.take(next(steps), slice(0, BATCH))


@contextmanager
def _people() -> Iterator[Records]:
    """A person in each of some made photographs, which lie beside the records."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "records"
        with RecordWriter(made, Header("made", "train", COCO17.name)) as writer:
            for number in range(FRAMES):
                path = Path(folder) / f"{number:02d}.jpg"
                photo = _photograph(random)
                cv2.imwrite(str(path), photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
                writer.add(_person(photo, path, random))
        yield open_records(made)


def _photograph(random: np.random.Generator) -> np.ndarray:
    """Noise of all sizes, the larger the stronger, as photographs have it: their JPEGs are about as long."""
    whole = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for size in (4, 8, 16, 32, 64, 128, 256, 512, 1024):
        noise = random.standard_normal((size * HEIGHT // WIDTH + 1, size, 3), dtype=np.float32)
        whole += 80 / size**0.5 * cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return (128 + whole).clip(0, 255).astype(np.uint8)


def _person(photo: np.ndarray, path: Path, random: np.random.Generator) -> NewRecord:
    """Somebody of whom everything is annotated; what exactly makes no difference to the time."""
    height = random.uniform(300, 900)
    low = random.uniform(0, (WIDTH - height / 2, HEIGHT - height))
    box = torch.tensor([low[0], low[1], low[0] + height / 2, low[1] + height], dtype=torch.float32)
    xy_px = torch.from_numpy(random.uniform(low, low + height, (len(COCO17), 2))).float()
    rotations = torch.eye(3).expand(len(SMPL24), 3, 3)
    return NewRecord(
        encode_picture(photo, box),
        box,
        Keypoints(xy_px, torch.ones(len(COCO17)), COCO17),
        Camera(torch.tensor(1900.0), torch.tensor([WIDTH / 2, HEIGHT / 2]), WIDTH, HEIGHT, "true"),
        Truth(BodyParams.from_rotations(rotations, torch.zeros(10), torch.tensor([0.0, 0.0, 5.0])), "neutral"),
        source=str(path),
    )
