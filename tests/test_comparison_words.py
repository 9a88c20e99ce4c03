"""What a comparison says in words and tables: the better branch is called better, and doubt is called doubt."""

import csv
import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from meshrec.comparison.assembly import shared
from meshrec.comparison.comparison import Comparison, Difference, Flip, Interval, Metric, NoiseCurve
from meshrec.comparison.exhibits import chosen
from meshrec.comparison.sentences import AGREEMENT_ONLY, amount, sentences_of
from meshrec.comparison.statistics import differences_of, level_differences, means_of
from meshrec.comparison.tables import csv_files, record_of, tell

ERROR = Metric("pa_mpjpe_mm", "PA-MPJPE", "mm", "lower", "an error")
SHARE = Metric("auc_150mm", "AUC", "", "higher", "a share")
PEOPLE = 60


def comparison_of(figures, metrics=(ERROR,), groups=None, **others):
    """What was measured of some people, without those parts that need any."""
    groups, cluster = groups or {}, np.arange(PEOPLE)
    names = {metric.name for metric in metrics}
    known = {branch: {name: columns[name] for name in names} for branch, columns in figures.items()}
    fields = {
        "title": "some people",
        "data": ("lab",),
        "against": "truth",
        "protocol": {"truth": "known [not]"},
        "branches": tuple(known),
        "metrics": tuple(metrics),
        "people": tuple(f"row {place}" for place in range(PEOPLE)),
        "groups": groups,
        "angle_rad": np.full(PEOPLE, math.nan),
        "figures": known,
        "joint_names": ("left_wrist",),
        "joint_errors_mm": {branch: np.ones((PEOPLE, 1)) for branch in known},
        "means": means_of(known, cluster),
        "shared_means": means_of(shared(known, metrics), cluster),
        "differences": (
            *differences_of(known, metrics, cluster),
            *level_differences(known, metrics[:1], groups, cluster),
        ),
        "unanswered": {branch: int(np.isnan(columns[metrics[0].name]).sum()) for branch, columns in known.items()},
    }
    return Comparison(**(fields | others))


@pytest.fixture
def random():
    return np.random.default_rng(0)


def errors(random, mean, spread=5.0):
    return {"pa_mpjpe_mm": random.normal(mean, spread, PEOPLE)}


def test_the_better_branch_is_called_better_whichever_comes_first(random):
    good, bad = errors(random, 50), errors(random, 80)
    for figures in ({"good": good, "bad": bad}, {"bad": bad, "good": good}):
        order, pair, *rest = sentences_of(comparison_of(figures))
        assert order.index("good") < order.index("bad") and "best first" in order
        assert pair.startswith("good is better than bad by ") and "for 100 in 100" in pair and not rest
        by_mm = float(pair.split(" by ")[1].split(" mm")[0])
        low, high = map(float, pair.split("[")[1].split("]")[0].split(", "))
        assert 0 < low < by_mm < high and by_mm == pytest.approx(30, abs=3)


def test_higher_is_better_where_it_is(random):
    figures = {name: {"auc_150mm": random.normal(mean, 0.02, PEOPLE)} for name, mean in (("bad", 0.4), ("good", 0.6))}
    order, pair, *_ = sentences_of(comparison_of(figures, (SHARE,)))
    assert order.index("good") < order.index("bad") and pair.startswith("good is better than bad by 0.2")


def test_doubt_is_called_doubt(random):
    _, pair = sentences_of(comparison_of({"one": errors(random, 50, 30), "other": errors(random, 50, 30)}))
    assert "does not decide" in pair and "holds zero" in pair and "is better" not in pair


def test_a_few_people_are_no_certainty(random):
    few = np.where(np.arange(PEOPLE) < 4, 1.0, math.nan)
    figures = {"one": {"pa_mpjpe_mm": 50 * few}, "other": {"pa_mpjpe_mm": 80 * few}}
    *_, pair = sentences_of(comparison_of(figures))
    assert pair.startswith("Between one and other nothing is decided") and "30.0 mm over 4 people" in pair
    assert "is better" not in pair and "nan" not in pair


def test_where_the_order_turns_is_said(random):
    crowd = tuple("dense" if place % 3 == 0 else "thin" for place in range(PEOPLE))
    turn = np.where(np.array(crowd) == "dense", 70.0, 40.0)
    figures = {"one": {"pa_mpjpe_mm": turn + random.normal(0, 1, PEOPLE)}, "other": errors(random, 60, 1)}
    told = sentences_of(comparison_of(figures, groups={"crowd": crowd, "side": ("left", "right") * (PEOPLE // 2)}))
    turned = [sentence for sentence in told if sentence.startswith("Where")]
    assert len(turned) == 1 and "crowd is 'dense', other is better than one" in turned[0]
    same = sentences_of(
        comparison_of({"one": errors(random, 40), "other": errors(random, 90)}, groups={"crowd": crowd})
    )
    assert any("At every level of crowd" in sentence for sentence in same)


def test_branches_that_answer_others_are_ordered_on_the_people_of_all(random):
    """One answers the easy people alone: of all whom it answers it is best, of the same people it is not."""
    hard = np.where(np.arange(PEOPLE) < 30, 0.0, 100.0)
    picky = np.where(hard > 0, math.nan, 55.0)
    figures = {"picky": {"pa_mpjpe_mm": picky}, "good": {"pa_mpjpe_mm": 50 + hard + random.normal(0, 0.1, PEOPLE)}}
    comparison = comparison_of(figures)
    assert comparison.means["picky"]["pa_mpjpe_mm"].mean < comparison.means["good"]["pa_mpjpe_mm"].mean
    silent, order, pair = sentences_of(comparison)
    assert "picky says nothing of 30 of 60 people" in silent
    assert order.index("good") < order.index("picky") and "the 30 people whom all answer" in order
    assert pair.startswith("good is better than picky by 5.0 mm")


def test_a_metric_that_one_branch_never_has_leaves_the_others_people(random):
    figures = {"one": errors(random, 50), "two": errors(random, 50), "bare": {"pa_mpjpe_mm": np.full(PEOPLE, math.nan)}}
    figures["two"]["pa_mpjpe_mm"][0] = math.nan
    kept = shared(figures, [ERROR])
    assert np.isfinite(kept["one"]["pa_mpjpe_mm"]).sum() == PEOPLE - 1 and np.isnan(kept["bare"]["pa_mpjpe_mm"]).all()


def test_agreement_is_never_called_better(random):
    figures = {"one": errors(random, 50), "other": errors(random, 80)}
    told = sentences_of(comparison_of(figures, against="each other"))
    assert told[0] == AGREEMENT_ONLY and "not accuracy" in told[0] and not any("better" in each for each in told)
    assert told[-1].startswith("one and other are ") and told[-1].endswith(" of PA-MPJPE apart.")
    told = sentences_of(comparison_of(figures | {"third": errors(random, 20)}, against="each other"))
    assert told[-1].index("third") < told[-1].index("one") < told[-1].index("other") and "nearest first" in told[-1]
    assert not any("better" in each for each in told)


def noise_of(branch, first, last):
    return NoiseCurve(
        branch, ERROR.name, (0.0, 5.0), (Interval(first, first - 1, first + 1, 9), Interval(last, 0.0, 99.0, 9))
    )


def test_noise_that_turns_an_order_is_told_with_its_interval(random):
    figures = {"one": errors(random, 50), "other": errors(random, 80)}
    curves = (noise_of("one", 50.0, 90.0), noise_of("other", 80.0, 81.0))
    sure, open_end = (Flip(ERROR.name, "one", "other", Interval(3.2, 2.9, high, 60)) for high in (3.6, math.inf))
    told = sentences_of(comparison_of(figures, noise=curves, flips=(sure,)))
    assert "one is better than other by PA-MPJPE up to 3.2 px of noise on the keypoints [2.9, 3.6], and" in told[-1]
    doubtful = sentences_of(comparison_of(figures, noise=curves, flips=(open_end,)))[-1]
    assert "[2.9, beyond 5]" in doubtful and "not settled at 5 px" in doubtful and "from there on" not in doubtful
    assert "no two branches stand in another order" in sentences_of(comparison_of(figures, noise=curves))[-1]
    early = Flip(ERROR.name, "one", "other", Interval(3.2, 0.0, 3.6, 60))
    unsure = sentences_of(comparison_of(figures, noise=curves, flips=(early,)))[-1]
    assert unsure.startswith("one is ahead of other") and "not settled without noise, and other is better" in unsure
    neither = Flip(ERROR.name, "one", "other", Interval(3.2, 0.0, math.inf, 60))
    unsure = sentences_of(comparison_of(figures, noise=curves, flips=(neither,)))[-1]
    assert "neither is settled from 0 to 5 px" in unsure and "better" not in unsure
    assert any("With 5 px of noise on the keypoints one goes from 50.0 mm" in sentence for sentence in told)


def test_amounts_have_their_unit():
    assert amount(Interval(45.24, 44.06, 46.0, 5), ERROR) == "45.2 mm [44.1, 46.0]"
    assert amount(Interval(0.5124, 0.5, 0.6, 5), SHARE) == "0.512 [0.500, 0.600]"


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_tables_hold_what_was_measured(random):
    groups = {"crowd": ("dense", "thin") * (PEOPLE // 2)}
    figures = {"one, two": errors(random, 50), "bare": errors(random, 70)}
    figures["bare"]["pa_mpjpe_mm"][3] = math.nan
    comparison = comparison_of(figures, groups=groups, noise=(noise_of("bare", 1.0, 2.0),))
    files = csv_files(comparison)
    one, bare = read(files["summary.csv"])
    assert one["branch"] == "one, two" and float(one["mean"]) == pytest.approx(
        figures["one, two"]["pa_mpjpe_mm"].mean()
    )
    assert bare["people"] == str(PEOPLE - 1)
    assert float(one["median"]) == pytest.approx(np.median(figures["one, two"]["pa_mpjpe_mm"]))
    people = read(files["people.csv"])
    assert len(people) == PEOPLE and people[3]["bare pa_mpjpe_mm"] == "" and people[3]["crowd"] == "thin"
    assert float(people[5]["bare pa_mpjpe_mm"]) == pytest.approx(figures["bare"]["pa_mpjpe_mm"][5], abs=1e-3)
    levels = {(row["level"], row["branch"]): float(row["mean"]) for row in read(files["levels.csv"])}
    assert levels["dense", "one, two"] == pytest.approx(figures["one, two"]["pa_mpjpe_mm"][::2].mean())
    assert len(read(files["noise.csv"])) == 2 and len(read(files["differences.csv"])) == 3
    assert read(files["joints.csv"])[0]["joint"] == "left_wrist"


def test_the_record_is_plain_json(random):
    comparison = comparison_of({"one": errors(random, 50), "other": {"pa_mpjpe_mm": np.full(PEOPLE, math.nan)}})
    record = json.loads(json.dumps(record_of(comparison, {"seed": 0}), allow_nan=False))
    unknown = {"mean": None, "low": None, "high": None, "people": 0, "median": None}
    assert record["branches"][1]["figures"]["pa_mpjpe_mm"] == unknown
    assert record["protocol"] == {"truth": "known [not]"} and record["asked"] == {"seed": 0}
    assert record["differences"] == [] and record["sentences"] == []


def test_the_terminal_shows_every_interval(random):
    comparison = comparison_of({"one": errors(random, 50), "[other]": errors(random, 80)})
    console = Console(file=io.StringIO(), width=130)
    tell(comparison, console)
    text = console.file.getvalue()
    for branch in ("one", "[other]"):
        interval = comparison.means[branch]["pa_mpjpe_mm"]
        assert branch in text and f"{interval.mean:.1f} [{interval.low:.1f}, {interval.high:.1f}]" in text
        assert "median" in text and f"{interval.median:.1f}" in text
    assert "known [not]" in text and "from the truth" in text


@pytest.mark.parametrize("people", [1, 2, 3, 5, 7, 12, 60])
def test_nobody_is_shown_twice_and_the_best_are_the_best(people, random):
    values = random.permutation(PEOPLE).astype(float)
    values[people:] = math.nan
    comparison = comparison_of({"one": {"pa_mpjpe_mm": values}, "other": {"pa_mpjpe_mm": values + 1}})
    shown = chosen(comparison)
    places = [place for place, _ in shown]
    assert len(set(places)) == len(places) == min(people, 12) and np.isfinite(values[places]).all()
    means = {why: np.mean([values[place] for place, kind in shown if kind == why]) for _, why in shown}
    assert list(means.values()) == sorted(means.values()) and shown[0] == (int(np.nanargmin(values)), "best")
    shares = comparison_of({"one": {"auc_150mm": values}, "other": {"auc_150mm": values}}, (SHARE,))
    assert chosen(shares)[0] == (int(np.nanargmax(values)), "best")


def test_a_difference_is_settled_when_its_interval_leaves_zero():
    def difference(low, high):
        return Difference("m", "one", "other", "", "", Interval((low + high) / 2, low, high, 9), 0.5)

    assert difference(1.0, 2.0).settled and difference(-2.0, -1.0).settled and not difference(-1.0, 2.0).settled
