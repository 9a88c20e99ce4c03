"""The people of a mesh training: who is at which place, what a detector says of them, and in what order they come."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from meshrec.branches.mesh import coco_of
from meshrec.data.body_joints import BODY58, placed
from meshrec.data.detector_errors import NO_ERRORS, DetectorErrors
from meshrec.data.loader import Loader
from meshrec.data.people import UNKNOWN, People
from meshrec.skeletons import COCO17, SKELETONS
from meshrec.train.mesh_people import (
    UNSEEN_SEED,
    Crowd,
    Unseen,
    annotated,
    detected,
    fingerprint_of,
    size_px,
)
from meshrec.types import Camera, Keypoints, Square, joined

CROP_PX = 32
CPU = torch.device("cpu")


def people_of(rows: range, mark: int = 0) -> People:
    """People whose joints are spread over their crops; `mark` is the colour of all pixels."""
    count = len(rows)
    random = torch.Generator().manual_seed(mark)
    zero, no = torch.zeros(count), torch.zeros(count, dtype=torch.bool)
    return People(
        pixels=torch.full((count, 3, CROP_PX, CROP_PX), mark, dtype=torch.uint8),
        square=Square(torch.zeros(count, 2), zero + CROP_PX, zero),
        flipped=no,
        points=CROP_PX * torch.rand(count, len(BODY58), 2, generator=random),
        weight=torch.ones(count, len(BODY58)),
        joints_m=torch.zeros(count, len(BODY58), 3),
        joints_weight=torch.zeros(count, len(BODY58)),
        params=UNKNOWN.map(lambda tensor: tensor.expand(count, *tensor.shape)),
        rest_pelvis_m=torch.zeros(count, 3),
        camera=Camera(zero + 100, torch.zeros(count, 2), CROP_PX, CROP_PX, "given"),
        posed=~no,
        shaped=~no,
        placed=~no,
        gender=torch.zeros(count, dtype=torch.long),
        dataset=torch.zeros(count, dtype=torch.long),
        row=torch.tensor(rows, dtype=torch.long),
    )


@dataclass
class Made:
    """A loader that notes what it is asked for."""

    mark: int
    asked: list[tuple[int, int, int]] = field(default_factory=list)

    def take(self, step: int, rows: slice) -> People:
        self.asked.append((step, rows.start, rows.stop))
        return people_of(range(rows.start, rows.stop), self.mark)


def crowd_of(share: float, known: Made, made: Made) -> Crowd:
    records = Mock(Loader, take=known.take, records=())
    return Crowd(records, made, share, NO_ERRORS, 0, CPU)


@pytest.mark.parametrize("share", [0.25, 0.3, 0.5, 0.9])
def test_each_place_is_the_same_persons_however_a_batch_is_cut(share):
    whole = crowd_of(share, Made(1), Made(2)).take(3, slice(0, 24)).people
    made = whole.pixels[:, 0, 0, 0] == 2
    assert int(made.sum()) == int(share * 24)
    assert torch.equal(whole.row[made], torch.arange(int(made.sum())))
    assert torch.equal(whole.row[~made], torch.arange(24 - int(made.sum())))
    runs = np.diff(np.flatnonzero(made.numpy()))
    assert runs.max() - runs.min() <= 1, "they are spread evenly"
    cuts = [slice(start, start + 6) for start in range(0, 24, 6)]
    parts = [crowd_of(share, Made(1), Made(2)).take(3, cut).people for cut in cuts]
    assert torch.equal(torch.cat([part.row for part in parts]), whole.row)
    assert torch.equal(torch.cat([part.pixels for part in parts]), whole.pixels)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_loader_of_whom_nobody_is_wanted_is_not_asked(share):
    known, made = Made(1), Made(2)
    assert (crowd_of(share, known, made).take(0, slice(4, 8)).people.pixels == (2 if share else 1)).all()
    assert [known.asked, made.asked] == [[], [(0, 4, 8)]] if share else [[(0, 4, 8)], []]


def test_a_detector_errs_by_seed_step_and_row_alone():
    people = people_of(range(10, 16))
    whole = detected(people, DetectorErrors(), 0, 5)
    again = detected(people[torch.tensor([4, 1])], DetectorErrors(), 0, 5)
    assert torch.equal(again.points, whole.points[[4, 1]])
    assert torch.equal(again.confidence, whole.confidence[[4, 1]])
    for seed, step in ((1, 5), (0, 6)):
        assert not torch.equal(detected(people, DetectorErrors(), seed, step).points, whole.points)


def test_without_errors_the_true_joints_are_found():
    people = people_of(range(3))
    rows = BODY58.indices(*(f"{joint}@coco17" for joint in COCO17.joints))
    for sighted in (annotated(people), detected(people, NO_ERRORS, 0, 0)):
        torch.testing.assert_close(sighted.points, people.points[:, rows])
        assert (sighted.confidence > 0.99).all()


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda skeleton: skeleton.name)
def test_joints_of_any_skeleton_are_found_by_name(skeleton):
    """As the branch takes them from a detector's; those whose definitions lie too far apart are not noted at all."""
    random = torch.Generator().manual_seed(0)
    xy_px = CROP_PX * torch.rand(2, len(skeleton), 2, generator=random)
    sure = torch.rand(2, len(skeleton), generator=random)
    points, weight = placed(xy_px, sure, skeleton)
    sighted = annotated(replace(people_of(range(2)), points=points, weight=weight))
    wanted, confidence = coco_of(Keypoints(xy_px, sure, skeleton))
    torch.testing.assert_close(sighted.confidence, confidence)
    torch.testing.assert_close(sighted.points, wanted)


def test_a_persons_size_is_that_of_what_is_seen():
    people = people_of(range(2))
    points = torch.full_like(people.points, 16.0)
    points[:, 0], points[:, 1], points[:, 2] = torch.tensor([6.0, 4.0]), torch.tensor([10.0, 28.0]), 99.0
    weight = people.weight.index_fill(1, torch.tensor([2]), 0.0)
    nobody = torch.stack([weight[0], torch.zeros_like(weight[1])])
    size = size_px(replace(people, points=points, weight=nobody))
    torch.testing.assert_close(size, torch.tensor([1.08 * 24, CROP_PX / 2]))


def test_synthetic_people_are_validated_on_once_made():
    made = Made(7)
    unseen = Unseen([], {}, made, 11, NO_ERRORS, crop_px=CROP_PX, batch=4, workers=1, device=CPU)
    first, again = ([len(sighted) for sighted in unseen] for _ in range(2))
    assert first == again == [4, 4, 3]
    assert made.asked == [(0, 0, 4), (0, 4, 8), (0, 8, 11)]
    wanted = detected(people_of(range(4, 8), 7), DetectorErrors(), UNSEEN_SEED, 0)
    erring = Unseen([], {}, made, 11, DetectorErrors(), crop_px=CROP_PX, batch=4, workers=1, device=CPU)
    assert torch.equal(list(erring)[1].points, wanted.points)
    assert UNSEEN_SEED > 10**6, "no run has this seed by chance"


@pytest.mark.parametrize("counts", [(1,), (3, 2), (2, 1, 4)])
def test_what_is_cut_is_joined_again(counts):
    whole = people_of(range(sum(counts)))
    again = joined([whole[part] for part in torch.arange(sum(counts)).split(list(counts))])
    assert torch.equal(again.points, whole.points)
    assert torch.equal(again.camera.center_px, whole.camera.center_px)
    assert again.camera.width_px == CROP_PX
    with pytest.raises(ValueError, match="differ in width_px"):
        joined([whole, replace(whole, camera=replace(whole.camera, width_px=3))])


def test_other_files_are_other_data_wherever_they_lie(tmp_path: Path):
    for folder in ("here", "there"):
        (tmp_path / folder / "pictures").mkdir(parents=True)
        (tmp_path / folder / "pictures" / "a.jpg").write_bytes(b"abc")
        (tmp_path / folder / "walk.npz").write_bytes(b"12345")

    def mark(folder: str) -> str:
        return fingerprint_of([], [], [tmp_path / folder / "walk.npz", tmp_path / folder / "pictures"])

    assert mark("here") == mark("there")
    (tmp_path / "there" / "pictures" / "a.jpg").write_bytes(b"abcd")
    assert mark("here") != mark("there")
    assert fingerprint_of([], [], []) not in {mark("here"), mark("there")}
