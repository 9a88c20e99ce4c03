"""The loader: the same people whatever the threads, wherever work resumes; errors that say where; no thread stays."""

import gc
import threading
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from meshrec.body import load_body_model
from meshrec.data.augment import AugmentConfig
from meshrec.data.loader import Loader, validation_batches
from meshrec.data.mixture import Mixture
from meshrec.data.record_files import Header
from meshrec.data.record_writer import NewRecord, RecordWriter, encode_picture
from meshrec.data.records import Records, open_records
from meshrec.errors import MeshrecError
from meshrec.skeletons import COCO17, MPII16, Skeleton
from meshrec.types import Batched, Keypoints

CROP_PX = 32
BODIES = {"neutral": load_body_model()}
RATIOS = {"first": 0.6, "second": 0.4}
AUGMENT = AugmentConfig(shift=0.1, blur_p=0.5, occlude_p=0.5)
BATCH = 8


def written(folder: Path, name: str, skeleton: Skeleton, people: int) -> Records:
    random = torch.Generator().manual_seed(len(name))
    box = torch.tensor([20.0, 10.0, 60.0, 90.0])
    with RecordWriter(folder, Header(name, "train", skeleton.name)) as writer:
        for seed in range(people):
            small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            photo = np.asarray(Image.fromarray(small).resize((100, 100), Image.Resampling.BICUBIC))
            xy_px = 100 * torch.rand(len(skeleton), 2, generator=random)
            seen = Keypoints(xy_px, torch.ones(len(skeleton)), skeleton)
            writer.add(NewRecord(encode_picture(photo, box), box, seen, source=f"{name}/{seed}.jpg"))
    return open_records(folder)


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> list[Records]:
    folder = tmp_path_factory.mktemp("records")
    return [written(folder / "first", "first", COCO17, 5), written(folder / "second", "second", MPII16, 9)]


def loader(sets: list[Records], workers: int = 2, seed: int = 3, ahead: int = 2) -> Loader:
    return Loader(sets, Mixture.of(sets, RATIOS), BODIES, CROP_PX, AUGMENT, seed, workers, ahead)


def same(ours: Batched, theirs: Batched) -> bool:
    """Whether two nouns agree to the last bit."""
    for field in fields(ours):  # type: ignore[arg-type]
        one, other = getattr(ours, field.name), getattr(theirs, field.name)
        if not (same(one, other) if isinstance(one, Batched) else bool(torch.all(torch.as_tensor(one == other)))):
            return False
    return True


def every(batch: int = BATCH) -> slice:
    return slice(0, batch)


def test_batches_are_the_same_with_any_number_of_threads(sets):
    taken = [[loader(sets, workers).take(step, every()) for step in range(3)] for workers in (1, 2, 4)]
    for others in taken[1:]:
        assert all(same(one, other) for one, other in zip(taken[0], others, strict=True))
    assert taken[0][0].pixels.shape == (BATCH, 3, CROP_PX, CROP_PX)
    assert not same(taken[0][0], taken[0][1])


def test_work_resumes_at_any_step(sets):
    going = loader(sets)
    steps = [going.take(step, every()) for step in range(5)]
    for step in (4, 2, 3):
        assert same(loader(sets).take(step, every()), steps[step])
    assert same(going.take(1, every()), steps[1]), "and goes back"
    assert not same(loader(sets, seed=4).take(2, every()), steps[2])


@pytest.mark.parametrize("ahead", [0, 5])
def test_how_far_it_works_ahead_changes_nothing(sets, ahead):
    assert same(loader(sets, ahead=ahead).take(1, every()), loader(sets).take(1, every()))


def test_shares_together_are_the_global_batch(sets):
    whole, shared = loader(sets).take(2, every()), loader(sets)
    for part in (slice(0, 3), slice(3, 4), slice(4, 8)):
        assert same(shared.take(2, part), whole[part])


def test_the_people_are_those_that_the_mixture_draws(sets):
    one = loader(sets)
    people, rows = one.take(7, every(64)), one.rows(7, 64)
    assert torch.equal(people.dataset, rows.dataset) and torch.equal(people.row, rows.row)
    first, last = (sets[int(people.dataset[place])][int(people.row[place])] for place in (0, -1))
    for record, place in ((first, 0), (last, -1)):
        known = people.weight[place] > 0
        assert len(record.keypoints.confidence) - int(known.sum()) == (2 if record.dataset == "second" else 0)
    assert set(people.flipped.tolist()) == {True, False}


def test_everybody_is_validated_once_and_unchanged(sets):
    batches = list(validation_batches(sets[1], BODIES, CROP_PX, batch=4))
    assert [len(batch) for batch in batches] == [4, 4, 1]
    assert torch.cat([batch.row for batch in batches]).tolist() == list(range(9))
    assert not any(batch.flipped.any() or batch.square.angle_rad.any() for batch in batches)
    assert same(batches[2], next(validation_batches(sets[1], BODIES, CROP_PX, batch=9))[8:])


def broken(tmp_path: Path) -> tuple[list[Records], int]:
    """Records of which one has a damaged picture."""
    records = written(tmp_path / "first", "first", COCO17, 5)
    row = 3
    images = next((tmp_path / "first").rglob("images.tar"))
    data = bytearray(images.read_bytes())
    start = int(records.column("image_offset")[row])
    data[start + 200 : start + 400] = bytes(200)
    images.write_bytes(data)
    return [records], row


def test_a_broken_picture_is_told_with_where_it_lies(tmp_path):
    records, row = broken(tmp_path)
    told = rf"Data set first, row {row}:.*taken from first/{row}.jpg"
    one = Loader(records, Mixture.of(records, {"first": 1.0}), BODIES, CROP_PX, workers=2)
    whole = [step for step in range(20) if row not in one.rows(step, 4).row.tolist()]
    damaged = next(step for step in range(20) if step not in whole)
    for _ in range(2):
        with pytest.raises(MeshrecError, match=told):
            one.take(damaged, every(4))
    assert len(one.take(whole[0], every(4))) == 4, "the others still come"
    with pytest.raises(MeshrecError, match=told):
        list(validation_batches(records[0], BODIES, CROP_PX, batch=2))


def test_numbers_that_make_no_sense_are_told_with_where_they_lie(tmp_path):
    written(tmp_path / "first", "first", COCO17, 5)
    file = tmp_path / "first" / "shard-00000" / "box_xyxy_px.npy"
    boxes = np.load(file)
    boxes[3] = np.nan
    np.save(file, boxes)
    with pytest.raises(MeshrecError, match=r"Data set first, row 3: row 3 of .*taken from first/3.jpg"):
        list(validation_batches(open_records(tmp_path / "first"), BODIES, CROP_PX))


def threads() -> int:
    return sum(thread.name.startswith("loader") for thread in threading.enumerate())


def test_threads_end_when_the_loader_is_let_go(sets):
    gc.collect()
    ended = time.monotonic() + 10
    while threads() and time.monotonic() < ended:
        time.sleep(0.01)
    one = loader(sets, workers=3)
    one.take(0, every(64))
    assert threads() > 0
    del one
    gc.collect()
    while threads() and time.monotonic() < ended:
        time.sleep(0.01)
    assert threads() == 0


def test_a_validation_that_is_left_ends_its_threads(sets):
    before = threading.active_count()
    batches = validation_batches(sets[0], BODIES, CROP_PX, batch=1)
    next(batches)
    batches.close()
    assert threading.active_count() <= before
