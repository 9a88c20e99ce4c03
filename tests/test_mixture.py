"""Draws from several data sets: as often as told, from the seed, the step and the place alone."""

from pathlib import Path

import pytest
import torch

from meshrec.data.mixture import Mixture
from meshrec.data.record_files import Index
from meshrec.data.records import Records
from meshrec.errors import MeshrecError

RATIOS = {"3dpw": 0.6, "mpii": 0.4}


def records(name: str, people: int) -> Records:
    """What a mixture asks of records: how they are called and how many they are."""
    return Records(Path(name), Index(name, "train", "coco17", people=people), ())


SETS = [records("3dpw", 40), records("mpii", 1000)]


def test_ratios_need_not_add_up_to_one():
    assert Mixture.of(SETS, {"3dpw": 3.0, "mpii": 2.0}).shares == pytest.approx((0.6, 0.4))


def test_the_realised_ratio_approaches_the_ratio():
    mix = Mixture.of(SETS, RATIOS)
    drawn = torch.cat([mix.draw(0, step, 64).dataset for step in range(300)])
    realised = mix.realised(drawn)
    assert realised["3dpw"] == pytest.approx(0.6, abs=0.012) and sum(realised.values()) == pytest.approx(1)


def test_within_a_data_set_everybody_is_drawn_as_often():
    mix = Mixture.of(SETS, RATIOS)
    drawn = [mix.draw(1, step, 64) for step in range(300)]
    rows = torch.cat([one.row[one.dataset == 0] for one in drawn])
    counts = torch.bincount(rows, minlength=40).double()
    assert len(counts) == 40
    expected = counts.mean()
    assert ((counts - expected).square() / expected).sum() < 80, "chi squared with 39 degrees of freedom"
    assert all(((one.row >= 0) & (one.row < torch.where(one.dataset == 0, 40, 1000))).all() for one in drawn)


def test_a_draw_is_a_function_of_seed_step_and_place():
    mix = Mixture.of(SETS, RATIOS)
    late = mix.draw(5, 17, 32)
    for step in (3, 900):
        mix.draw(5, step, 7)
    again = Mixture.of(SETS, RATIOS).draw(5, 17, 32)
    assert torch.equal(late.row, again.row) and torch.equal(late.dataset, again.dataset)
    assert torch.equal(late.row[:10], mix.draw(5, 17, 10).row), "whatever the size of the batch"
    assert not torch.equal(late.row, mix.draw(5, 18, 32).row)
    assert not torch.equal(late.row, mix.draw(6, 17, 32).row)
    assert not torch.equal(mix.draw(0, 1, 32).row, mix.draw(1, 0, 32).row)


def test_ratio_zero_leaves_a_data_set_out():
    assert (Mixture.of(SETS, {"3dpw": 1.0, "mpii": 0.0}).draw(0, 0, 500).dataset == 0).all()
    assert (Mixture.of(SETS, {"3dpw": 0.0, "mpii": 7.0}).draw(0, 0, 500).dataset == 1).all()


@pytest.mark.parametrize(
    ("sets", "ratios", "words"),
    [
        (SETS, {"3dpw": -0.6, "mpii": 0.4}, "ratio for 3dpw is -0.6; it must be 0 or more"),
        (SETS, {"3dpw": float("nan"), "mpii": 0.4}, "ratio for 3dpw is nan"),
        (SETS, {"3dpw": float("inf"), "mpii": 0.4}, "ratio for 3dpw is inf"),
        (SETS, {"3dpw": 0.0, "mpii": 0.0}, "Every ratio of the mixture is 0; at least one of 3dpw, mpii"),
        (SETS, {**RATIOS, "coco": 0.1}, "names coco, which is none of the data sets given: 3dpw, mpii"),
        (SETS, {"3dpw": 1.0}, "no ratio for mpii; give one for each of 3dpw, mpii"),
        ([SETS[0], records("mpii", 0)], RATIOS, "data set mpii is empty"),
        ([SETS[0], SETS[0]], {"3dpw": 1.0}, "Two data sets are called 3dpw"),
        ([], {}, "no data set to mix"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_a_sentence(sets, ratios, words):
    with pytest.raises(MeshrecError, match=words) as refusal:
        Mixture.of(sets, ratios)
    assert "\n" not in str(refusal.value)
