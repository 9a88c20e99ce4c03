"""The benchmark: people that are the same everywhere, so many at each level, and told from all others."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import meshrec.data.synthetic.benchmark as benchmark
from meshrec.body import load_body_model
from meshrec.camera import project
from meshrec.data.motion import Motion
from meshrec.data.poses import write_collection
from meshrec.data.records import Records, open_records
from meshrec.data.synthetic.benchmark import (
    LEAST_SHOWN,
    OF_TWENTY,
    PLACES,
    SUMS,
    Benchmark,
    as_shipped,
    motion_halves,
    shipped_halves,
    sums_of,
)
from meshrec.errors import MeshrecError
from meshrec.skeletons import COCO17
from meshrec.synthetic_folders import Wanted, make_benchmark

COUNT = 18
"""One for each place of each half."""

pytestmark = pytest.mark.usefixtures("small_pictures")


@pytest.fixture(scope="module")
def made() -> Benchmark:
    return Benchmark(shipped_halves(), load_body_model())


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Records:
    folder = tmp_path_factory.mktemp("benchmark") / "made"
    make_benchmark(folder, Wanted(COUNT))
    return open_records(folder, verify=True)


def test_there_are_as_many_at_each_level_of_both_halves(made, records):
    names = [sequence.decode() for sequence in records.column("sequence")]
    expected = {
        f"poses_{half}/occlusion_{occlusion}/truncation_{truncation}": 1
        for half in ("prior", "key")
        for occlusion, truncation in set(PLACES)
    }
    assert Counter(names) == expected and len(expected) == 18
    whole = Counter((made.half(number).name, made.levels(number)) for number in range(benchmark.PEOPLE))
    for occlusion, row in enumerate(OF_TWENTY):
        for truncation, count in enumerate(row):
            assert {whole[half, (occlusion, truncation)] for half in ("prior", "key")} == {25 * count}
    assert sum(whole.values()) == 1000


def test_truncation_is_what_lies_beyond_the_border(records):
    model = load_body_model()
    for record in records:
        assert record.truth is not None and record.camera is not None
        xy_px = project(model.regressed(record.truth.params, COCO17), record.camera)
        beyond = float(((xy_px < 0) | (xy_px >= torch.tensor(record.photo_size_px))).any(-1).float().mean())
        low, high = ((0.0, 0.0), (1e-6, 1 / 3), (1 / 3 + 1e-6, 2 / 3))[int(record.sequence[-1])]
        assert low <= beyond <= high + 1e-6, record.sequence


def test_occlusion_is_what_another_body_or_a_thing_hides(made):
    for number in range(0, COUNT, 3):
        scene, person = made.scene(number)
        within = len(COCO17) - person.beyond
        occlusion, truncation = made.levels(number)
        assert person.levels == (occlusion, truncation) and person.shown >= LEAST_SHOWN
        assert [0, 1, 2][occlusion] == (person.hidden > 0) + (person.hidden > within / 3)
        if not scene.things and len(scene) == 1:
            assert person.hidden == 0
        field = 2 * torch.atan(max(scene.photo_px) / 2 / scene.camera.focal_px)
        assert 24.9 < torch.rad2deg(field) < 75.1 and scene.params.betas.abs().max() <= 3


def test_a_person_is_a_function_of_their_number_alone(made, records):
    record = made.record(7)
    row = records[7]
    assert row.frame == 7 and record.sequence == row.sequence and row.truth is not None and record.truth is not None
    assert torch.equal(record.keypoints.xy_px, row.keypoints.xy_px)
    assert torch.allclose(record.truth.params.rotations, row.truth.params.rotations, atol=1e-6)
    assert torch.equal(record.truth.params.transl_m, row.truth.params.transl_m)


def test_the_first_people_are_those_that_ship(records):
    assert as_shipped(records).all()


def test_people_are_told_from_all_others(records, tmp_path, monkeypatch):
    sums = sums_of(records)
    assert sums.shape == (COUNT, 4) and len(np.unique(sums.round(3), axis=0)) == COUNT
    rounding = 1e-4 * np.random.default_rng(0).normal(size=sums.shape)
    for column in range(4):
        other = sums + rounding
        other[3, column] += 1.0
        np.save(tmp_path / "sums.npy", other.astype(np.float32))
        monkeypatch.setattr(benchmark, "SUMS", tmp_path / "sums.npy")
        assert (~as_shipped(records)).nonzero()[0].tolist() == [3]
    np.save(tmp_path / "sums.npy", sums[:10].astype(np.float32))
    assert as_shipped(records).tolist() == [True] * 10 + [False] * 8


def test_sums_ship_for_everybody():
    sums = np.load(SUMS, allow_pickle=False)
    assert sums.shape == (benchmark.PEOPLE, 4) and sums.dtype == np.float32 and np.isfinite(sums).all()


def test_motion_makes_a_second_set_of_the_people_who_are_asked_for(tmp_path: Path):
    vectors = np.full((40, 24, 3), 0.1)
    motions = [
        Motion("stand", who, "made", 30.0, scale * vectors, np.zeros((40, 3)), np.ones(40, bool), who)
        for who, scale in (("ann", 1.0), ("bob", 2.0))
    ]
    write_collection(tmp_path / "poses", motions, "float32")
    half = motion_halves([tmp_path / "poses"], ["bob"])[0]
    drawn = half.source(6, np.random.default_rng(0)).rotations
    assert torch.allclose(drawn, drawn[:1].expand_as(drawn))
    both = motion_halves([tmp_path / "poses"])[0].source(20, np.random.default_rng(0)).rotations
    assert not torch.allclose(both, both[:1].expand_as(both))
    with pytest.raises(MeshrecError, match="cia"):
        motion_halves([tmp_path / "poses"], ["cia"])
    made = Benchmark((half,), load_body_model())
    assert [made.levels(number) for number in range(40)] == 2 * list(PLACES)
    assert made.record(0).sequence == "poses_motion/occlusion_0/truncation_0"
