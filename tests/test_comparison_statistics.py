"""Statistics of comparisons: intervals hold what they should, pairs stay paired, clips are drawn whole."""

import math

import numpy as np
import pytest

from meshrec.comparison.comparison import Metric
from meshrec.comparison.statistics import (
    FEWEST,
    MOST_LEVELS,
    clusters_of,
    differences_of,
    drawn_means,
    flips_of,
    intervals,
    joint_differences,
    level_differences,
    meetings_px,
    members_of,
    partings_px,
)

ERROR = Metric("error_mm", "error", "mm", "lower", "")
SHARE = Metric("share", "share", "", "higher", "")


@pytest.fixture
def random():
    return np.random.default_rng(0)


def alone(people):
    return np.arange(people)


def test_an_interval_is_that_of_the_normal_distribution_for_many_people(random):
    values = random.normal(50, 10, (400, 1))
    (interval,) = intervals(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean()) and interval.people == 400
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)


def test_intervals_hold_the_truth_about_as_often_as_they_say(random):
    found = intervals(random.exponential(3.0, (60, 400)))
    assert 0.88 < np.mean([each.low <= 3.0 <= each.high for each in found]) < 0.98


def test_who_is_not_known_is_in_no_mean():
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    known, nobody = intervals(values)
    assert (known.mean, known.people, known.median) == (2.0, 2, 2.0)
    assert nobody.people == 0 and math.isnan(nobody.mean) and math.isnan(nobody.low)


def test_too_few_to_draw_from_leave_the_interval_open(random):
    values = random.normal(10, 1, (FEWEST, 2))
    values[0, 1] = np.nan
    enough, few = intervals(values)
    assert values[:, 0].min() <= enough.low < enough.mean < enough.high <= values[:, 0].max()
    assert math.isnan(few.low) and math.isnan(few.high) and few.people == FEWEST - 1
    many_of_one_clip = random.normal(10, 1, (300, 1))
    (one_clip,) = intervals(many_of_one_clip, np.zeros(300, int))
    assert one_clip.people == 300 and math.isnan(one_clip.low), "all draws of one clip are alike"
    figures = {"one": {"error_mm": many_of_one_clip[:, 0]}, "other": {"error_mm": np.zeros(300)}}
    (difference,) = differences_of(figures, [ERROR], np.zeros(300, int))
    assert not difference.settled


def test_a_median_stays_where_most_people_are():
    (interval,) = intervals(np.array([[1.0], [2.0], [3.0], [4.0], [1e6], [np.nan]]))
    assert interval.median == 3.0 < interval.mean


def test_the_same_seed_draws_the_same_and_another_does_not(random):
    values = random.normal(size=(50, 2))
    assert np.array_equal(drawn_means(values, seed=3), drawn_means(values, seed=3))
    assert not np.array_equal(drawn_means(values, seed=3), drawn_means(values, seed=4))


def test_draws_do_not_depend_on_how_many_are_made_at_once(random, monkeypatch):
    values = random.normal(size=(30, 2))
    whole = drawn_means(values)
    monkeypatch.setattr("meshrec.comparison.statistics.COUNTS_AT_ONCE", 70)
    assert np.allclose(drawn_means(values), whole, atol=1e-12)


def test_a_clip_of_copies_counts_as_one_person(random):
    values = random.normal(size=(40, 1))
    copies = np.repeat(values, 9, axis=0)
    clips = clusters_of([f"clip {place // 9}" for place in range(len(copies))])
    order = np.unique(clips, return_index=True)[1]
    (whole,), (copied,) = intervals(copies[order]), intervals(copies, clips)
    assert (whole.low, whole.high) == pytest.approx((copied.low, copied.high))
    (blind,) = intervals(copies)
    assert blind.high - blind.low < 0.5 * (copied.high - copied.low), "as if all copies were people of their own"


def test_who_is_of_no_clip_is_drawn_alone():
    clusters = clusters_of(["a", "", "a", ""])
    assert clusters[0] == clusters[2] and len(set(clusters.tolist())) == 3


def test_what_both_share_is_in_no_difference(random):
    hard = random.normal(0, 100, 200)
    figures = {"one": {"error_mm": 60 + hard}, "other": {"error_mm": 61 + hard + random.normal(0, 1, 200)}}
    (difference,) = differences_of(figures, [ERROR], alone(200))
    assert difference.settled and difference.interval.high - difference.interval.low < 0.5
    assert difference.interval.mean == pytest.approx(-1, abs=0.3) and difference.wins > 0.6


def test_turning_a_pair_turns_the_difference(random):
    one, other = ({"error_mm": random.normal(place, 5, 80)} for place in (50, 51))
    (forth,) = differences_of({"one": one, "other": other}, [ERROR], alone(80))
    (back,) = differences_of({"other": other, "one": one}, [ERROR], alone(80))
    assert back.interval.mean == -forth.interval.mean and back.wins == pytest.approx(1 - forth.wins)
    assert (back.interval.low, back.interval.high) == pytest.approx((-forth.interval.high, -forth.interval.low))


def test_wins_go_by_what_is_better_and_ties_count_half():
    values = {"one": np.array([1.0, 2.0, 3.0, np.nan]), "other": np.array([2.0, 2.0, 2.0, 2.0])}
    figures = {name: {"error_mm": each, "share": each} for name, each in values.items()}
    low, high = differences_of(figures | {"third": {}}, [ERROR, SHARE], alone(4))
    assert low.wins == 0.5 and low.interval.people == 3
    figures["one"]["share"] = figures["one"]["share"] + 0.5
    low, high = differences_of(figures, [ERROR, SHARE], alone(4))
    assert high.wins == pytest.approx(2 / 3) and high.metric == "share"


def test_levels_with_few_people_and_groups_of_one_level_say_nothing(random):
    labels = ["many"] * 20 + ["few"] * (FEWEST - 1) + ["enough"] * FEWEST + [""] * 3
    people = len(labels)
    assert set(members_of(labels)) == {"many", "enough"}
    assert members_of(["many"] * 20 + ["few"] * (FEWEST - 1)) == {}, "one level alone is compared with nothing"
    assert members_of(["same"] * 9) == {} and members_of([str(place) for place in range(MOST_LEVELS + 1)]) == {}
    figures = {
        "one": {"error_mm": np.where(np.array(labels) == "many", 1.0, 5.0)},
        "other": {"error_mm": np.full(people, 3.0)},
    }
    found = level_differences(figures, [ERROR], {"crowd": labels}, alone(people))
    assert {each.level: each.interval.mean for each in found} == {"many": -2.0, "enough": 2.0}
    assert {each.group for each in found} == {"crowd"} and {each.wins for each in found} == {0.0, 1.0}


def test_joints_keep_their_names():
    errors = {"one": np.array([[1.0, 5.0], [1.0, 7.0]]), "other": np.array([[4.0, 5.0], [2.0, 5.0]])}
    errors |= {"third": errors["other"] + 1}
    found = joint_differences(errors, ("left_wrist", "right_wrist"), ERROR, alone(2))
    told = {(each.one, each.other, each.level): each.interval.mean for each in found}
    assert told[("one", "other", "left_wrist")] == -2.0 and told[("one", "other", "right_wrist")] == 1.0
    assert told[("one", "third", "left_wrist")] == -3.0 and told[("other", "third", "right_wrist")] == -1.0
    assert joint_differences({"one": errors["one"]}, ("left_wrist", "right_wrist"), ERROR, alone(2)) == []


def test_curves_meet_where_their_lines_do():
    curves = np.array([[-2.0, 2.0, 4.0], [-3.0, -1.0, 1.0], [-1.0, -1.0, -1.0], [1.0, -1.0, 1.0], [-1.0, 0.0, 5.0]])
    found = meetings_px((0.0, 4.0, 10.0), curves)
    assert found.tolist() == [2.0, 7.0, math.inf, 0.0, 4.0]
    rising = partings_px((0.0, 4.0, 10.0), curves)
    assert rising.tolist() == [2.0, 7.0, math.inf, 7.0, 4.0]
    assert partings_px((0.0, 4.0, 10.0), np.array([[1.0, 1.0, 1.0], [-1.0, 1.0, -1.0]])).tolist() == [0.0, math.inf]


def test_an_order_that_turns_back_and_forth_is_settled_from_its_last_turn_on(random):
    noise, people = (0.0, 2.0, 4.0, 6.0), 200
    means = (-10.0, 10.0, -10.0, 10.0)
    figures = {
        level: {"one": {"error_mm": mean + random.normal(0, 1, people)}, "other": {"error_mm": np.zeros(people)}}
        for level, mean in zip(noise, means, strict=True)
    }
    (flip,) = flips_of(figures, ERROR, alone(people))
    assert flip.noise_px.low == pytest.approx(1.0, abs=0.1) and flip.noise_px.high == pytest.approx(5.0, abs=0.1)
    assert flips_of(figures, ERROR, np.arange(people) % 3) == [], "three clips settle nothing"


def test_the_noise_that_turns_an_order_is_found_whichever_comes_first(random):
    noise, people = (0.0, 2.0, 5.0, 10.0), 300
    hard = random.normal(0, 30, people)
    own = {level: random.normal(0, 2, (2, people)) for level in noise}
    steep = {level: 50 + 4 * level + hard + own[level][0] for level in noise}
    both = {"steep": steep, "flat": {level: 74 + hard + own[level][1] for level in noise}}
    for names in (("steep", "flat"), ("flat", "steep")):
        figures = {level: {name: {"error_mm": both[name][level]} for name in names} for level in noise}
        (flip,) = flips_of(figures, ERROR, alone(people))
        assert (flip.one, flip.other) == ("steep", "flat") and flip.noise_px.people == people
        assert flip.noise_px.low < 6.0 < flip.noise_px.high and flip.noise_px.mean == pytest.approx(6.0, abs=0.2)
    shares = {level: {name: {"share": -both[name][level]} for name in both} for level in noise}
    (flip,) = flips_of(shares, SHARE, alone(people))
    assert flip.one == "steep"
    never = {level: {"steep": {"error_mm": steep[level]}, "worse": {"error_mm": steep[level] + 5}} for level in noise}
    assert flips_of(never, ERROR, alone(people)) == []
