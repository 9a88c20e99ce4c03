"""The page of a comparison: it needs nothing else, shows what it is given, and is never changed by words from data."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import comparison_examples as examples
import numpy as np
import pytest
from PIL import Image

from meshrec.comparison import plots
from meshrec.comparison.charts import angles, joints, noise, place, spread
from meshrec.comparison.comparison import TRUTH, Answer, Comparison, Exhibit, Interval
from meshrec.comparison.gallery import STEPS, bodies_json, in_steps, reach_of
from meshrec.comparison.markup import Scale, decimals, number, tag, text
from meshrec.comparison.page import page
from meshrec.comparison.page_tables import differences_table, joints_table, main_tables, means_table
from meshrec.comparison.sentences import AGREEMENT_ONLY
from meshrec.comparison.summaries import BINS, FEWEST, angle_curve, density, joint_means, mean_interval, winner
from meshrec.skeletons import H36M17

VOID = {"meta", "img", "input", "br"}
HOSTILE = '</script><img src=x onerror="pwned=1">\'&<b>'


class Read(HTMLParser):
    """Elements with their attributes and depth, and the words of a page; fails where an element is not closed."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(markup)
        self.close()
        assert not self.open, f"{self.open} are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


@pytest.fixture(scope="module")
def shown() -> str:
    return page(examples.comparison(), examples.exhibits(), examples.faces())


def bodies_of(shown: str) -> dict:
    return json.loads(re.search(r'<script id="bodies" type="application/json">(.*?)</script>', shown, re.S)[1])


def renamed(comparison: Comparison, suffix: str) -> Comparison:
    """The same with a suffix on every word."""

    def named(values: dict) -> dict:
        return {key + suffix: value for key, value in values.items()}

    def levels(values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(value + suffix for value in values)

    return replace(
        comparison,
        title=comparison.title + suffix,
        data=levels(comparison.data),
        protocol={key + suffix: value + suffix for key, value in comparison.protocol.items()},
        branches=levels(comparison.branches),
        metrics=tuple(
            replace(m, name=m.name + suffix, label=m.label + suffix, unit=m.unit + suffix, what=m.what + suffix)
            for m in comparison.metrics
        ),
        people=levels(comparison.people),
        groups={key + suffix: levels(values) for key, values in comparison.groups.items()},
        figures={key: named(values) for key, values in named(comparison.figures).items()},
        joint_errors_mm=named(comparison.joint_errors_mm),
        means={key: named(values) for key, values in named(comparison.means).items()},
        differences=tuple(
            replace(
                each,
                metric=each.metric + suffix,
                one=each.one + suffix,
                other=each.other + suffix,
                group=each.group and each.group + suffix,
                level=each.level and each.level + suffix,
            )
            for each in comparison.differences
        ),
        noise=tuple(replace(c, branch=c.branch + suffix, metric=c.metric + suffix) for c in comparison.noise),
        shared_means={key: named(values) for key, values in named(comparison.shared_means).items()},
        joint_differences=tuple(
            replace(each, one=each.one + suffix, other=each.other + suffix) for each in comparison.joint_differences
        ),
        cost=named(comparison.cost),
        unanswered=named(comparison.unanswered),
        sentences=levels(comparison.sentences),
    )


def renamed_exhibits(exhibits: list[Exhibit], suffix: str) -> list[Exhibit]:
    return [
        replace(
            each,
            answers={
                name if name == TRUTH else name + suffix: replace(
                    answer, figures={key + suffix: value for key, value in answer.figures.items()}
                )
                for name, answer in each.answers.items()
            },
        )
        for each in exhibits
    ]


def test_words_from_data_never_become_elements() -> None:
    plain, hostile = (
        Read(
            page(
                renamed(examples.comparison(), suffix), renamed_exhibits(examples.exhibits(), suffix), examples.faces()
            )
        )
        for suffix in (" plain", HOSTILE)
    )
    assert [name for name, _ in plain.elements] == [name for name, _ in hostile.elements]
    for (_, one), (_, other) in zip(plain.elements, hostile.elements, strict=True):
        assert one.keys() == other.keys()
    written = "".join(hostile.words)
    known = renamed(examples.comparison(), HOSTILE)
    for words in (known.title, *known.data, *known.branches, *known.sentences, *known.protocol, *known.groups):
        assert words in written


def test_the_page_needs_nothing_else(shown: str) -> None:
    read = Read(shown)
    for _, attributes in read.elements:
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    assert not {"link", "iframe", "object", "base", "form"} & {name for name, _ in read.elements}
    assert "url(" not in shown and "@import" not in shown
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|eval|Function|innerHTML)\b", shown)
    assert not any(key.startswith("on") for _, attributes in read.elements for key in attributes)
    targets = {attributes.get("id") for _, attributes in read.elements}
    assert {each["href"].removeprefix("#") for each in read.all("a")} <= targets  # type: ignore[union-attr]


def test_only_the_scripts_of_the_page_may_run(shown: str) -> None:
    policy = next(each["content"] for each in Read(shown).all("meta") if "content" in each and "http-equiv" in each)
    assert policy is not None and "default-src 'none'" in policy
    scripts = re.findall(r"<script>(.*?)</script>", shown, re.S)
    allowed = {f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts}
    assert len(scripts) == 2
    assert set(re.findall(r"'sha256-[^']+'", policy)) == allowed


def test_what_is_seen_has_words_for_those_who_do_not_see(shown: str) -> None:
    read = Read(shown)
    assert all(each.get("alt") for each in read.all("img"))
    assert all(each.get("aria-label") for each in read.all("canvas") if each)
    assert all(each.get("aria-label") or each.get("aria-hidden") for each in read.all("svg"))
    assert all(each.get("tabindex") == "0" for each in read.all("canvas"))


def test_every_mean_is_in_the_table_and_the_best_is_bold() -> None:
    comparison = examples.comparison()
    rows = re.findall(r"<tr><th scope=\"row\".*?</tr>", means_table(comparison, comparison.shared_means))
    assert len(rows) == len(comparison.branches)
    values = {branch: re.findall(r'data-value="([^"]*)"', row) for branch, row in zip(examples.BRANCHES, rows)}  # noqa: B905
    for branch, found in comparison.shared_means.items():
        told = values[branch][1 : 1 + len(comparison.metrics)]
        for metric, value in zip(comparison.metrics, told, strict=True):
            mean = found[metric.name].mean
            assert (value == "") == math.isnan(mean)
            assert math.isnan(mean) or float(value) == mean
    bold = [re.findall(r"<b>([^<]*)</b>", row) for row in rows]
    assert [len(each) for each in bold] == [1, 2, 0], "lift has the best PCK, mesh the best PA-MPJPE and PVE"


def test_nobody_is_the_best_where_a_difference_leaves_doubt() -> None:
    comparison = examples.comparison()
    assert main_tables(comparison).count("<table") == 2 and main_tables(comparison).count("<b>") == 6
    doubtful = tuple(
        replace(each, interval=Interval(-5.0, -11.0, 1.0, 58)) if {each.one, each.other} == {"lift", "mesh"} else each
        for each in comparison.differences
    )
    doubted = replace(comparison, differences=doubtful, unanswered={})
    assert main_tables(doubted).count("<table") == 1
    assert main_tables(doubted).count("<b>") == 0, "lift and mesh may be equal, and fit is better than neither"


def test_joints_are_told_with_their_differences() -> None:
    table = joints_table(examples.comparison())
    rows = dict(re.findall(r"<tr><th scope=\"row\">([^<]+)</th>(.*?)</tr>", table))
    assert list(rows) == [joint.replace("_", " ") for joint in H36M17.joints]
    assert [name for name, row in rows.items() if "[7.0, 12.0]" in row] == [
        name for name in rows if name.endswith(("knee", "wrist"))
    ]


def test_a_difference_is_drawn_on_its_side_of_zero_in_the_colour_of_who_is_better() -> None:
    comparison = examples.comparison(40)
    drawn = differences_table(comparison)
    read = re.findall(r'<svg viewBox="0 0 200 16" class="(\w+)".*?<circle class="mean" cx="([^"]+)"', drawn)
    known = [each for each in comparison.differences if math.isfinite(each.interval.mean)]
    assert len(read) == len(known) and {ink for ink, _ in read} == {"ink0", "ink1", "unsettled"}
    for each, (ink, x) in zip(known, read, strict=True):
        if abs(float(x) - 100) > 0.2:
            assert (float(x) > 100) == (each.interval.mean > 0)
        lower = each.one if each.interval.mean < 0 else each.other
        higher = each.other if each.interval.mean < 0 else each.one
        better = lower if comparison.metric(each.metric).better == "lower" else higher
        assert ink == (f"ink{comparison.branches.index(better)}" if each.settled else "unsettled")


def test_without_truth_the_page_says_that_agreement_is_not_accuracy(shown: str) -> None:
    alone = page(examples.photos_only(), examples.exhibits(), examples.faces())
    assert alone.count(text(AGREEMENT_ONLY)) == 1 and text(AGREEMENT_ONLY) not in shown
    assert "lower is better" in shown and "Best by" in shown
    assert "lower is nearer" in alone and "Most alike by" in alone
    assert not re.search("better|Best|Worst", " ".join(Read(alone).words[:-3])), "the last three are data and scripts"


def test_without_bodies_there_are_no_faces() -> None:
    assert bodies_of(page(examples.comparison(), [], examples.faces()))["faces"] == ""


def test_bodies_come_back_from_the_page(shown: str) -> None:
    told, known = bodies_of(shown), examples.exhibits()
    np.testing.assert_array_equal(_numbers(told["faces"], "<u4"), examples.faces())
    assert [tuple(bone) for bone in told["bones"]] == list(H36M17.bones)
    for exhibit, each in zip(told["exhibits"], known, strict=True):
        assert exhibit["answers"].keys() == each.answers.keys()
        step_m = exhibit["reach_m"] / STEPS
        for name, answer in each.answers.items():
            found = exhibit["answers"][name]
            joints_m = np.array(found["joints"]).reshape(-1, 3) * step_m
            np.testing.assert_allclose(joints_m, answer.joints17_m, rtol=0, atol=0.51 * step_m)
            assert (found["vertices"] is None) == (answer.vertices_m is None)
            if answer.vertices_m is not None:
                vertices_m = _numbers(found["vertices"], "<i2") * step_m
                np.testing.assert_allclose(vertices_m, answer.vertices_m, rtol=0, atol=0.51 * step_m)


def _numbers(packed: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed), kind).reshape(-1, 3).astype(float)


def test_the_farthest_coordinate_is_the_last_step() -> None:
    points = np.array([[0.0, -1.7, 0.3], [0.2, 0.1, 1.2]])
    answers = {"one": Answer(None, np.zeros((17, 3)), points)}
    assert reach_of(answers) == pytest.approx(1.7)
    assert in_steps(points, 1.7).min() == -STEPS


def test_answers_that_are_lost_are_left_out_and_missing_ones_are_told() -> None:
    comparison, exhibits = examples.comparison(), examples.exhibits()
    lost = replace(exhibits[0].answers["mesh"], joints17_m=np.full((17, 3), np.nan))
    first = replace(exhibits[0], answers={**exhibits[0].answers, "mesh": lost})
    told = json.loads(bodies_json(comparison, [first], examples.faces()))
    assert "mesh" not in told["exhibits"][0]["answers"] and "fit" in told["exhibits"][0]["answers"]
    read = Read(page(comparison, [first, *exhibits[1:]], examples.faces()))
    assert read.words.count("no answer") == 3, "a column of both tables, and fit in the last exhibit"
    shown = [each["data-answer"] for each in read.all("canvas")]
    assert shown[:3] == ["lift", "fit", TRUTH]


def test_a_thousand_people_and_bodies_of_full_size_are_under_ten_megabytes() -> None:
    random = np.random.default_rng(0)
    photo = np.clip(random.normal(128, 12, (480, 480, 3)) + np.linspace(-90, 90, 480)[:, None], 0, 255).astype(np.uint8)
    joints17, vertices = examples.standing(), random.normal(0, 0.3, (6890, 3))
    answers = {name: Answer(photo, joints17, vertices, {}) for name in (*examples.BRANCHES, TRUTH)}
    exhibits = [Exhibit(index, "best", photo, (100.0, 60.0, 380.0, 470.0), answers) for index in range(9)]
    faces = random.integers(0, 6890, (13776, 3))
    assert len(page(examples.comparison(1000), exhibits, faces).encode()) < 10e6


def test_left_joints_stand_to_the_right_of_their_mirror_images() -> None:
    for joint, other in enumerate(H36M17.mirror):
        (x, y), (mirrored_x, mirrored_y) = place(H36M17.joints[joint]), place(H36M17.joints[other])
        assert x - place("pelvis")[0] == pytest.approx(place("pelvis")[0] - mirrored_x) and y == mirrored_y
        if H36M17.joints[joint].startswith("left_"):
            assert x > mirrored_x


def test_bars_on_the_figure_are_as_tall_as_the_errors() -> None:
    comparison = examples.comparison()
    bars = re.findall(
        r'<rect class="bar ink(\d)" x="[^"]+" y="([^"]+)" width="[^"]+" height="([^"]+)"><title>([^,]+),',
        joints(comparison),
    )
    means = joint_means(comparison)
    assert len(bars) == 3 * (len(H36M17) - 1), "the pelvis has no error"
    known = [means[comparison.branches[int(ink)]][name.replace(" ", "_")].mean for ink, _, _, name in bars]
    heights = np.array([float(height) for _, _, height, _ in bars])
    np.testing.assert_allclose(heights, np.array(known) * heights.max() / max(known), atol=0.11)
    for _, top, height, name in bars:
        assert float(top) + float(height) == pytest.approx(place(name.replace(" ", "_"))[1], abs=0.11)


@pytest.mark.parametrize("draw", [spread, angles, noise])
def test_a_drawing_stays_within_its_frame(draw) -> None:
    comparison = examples.comparison(500)
    for metric in comparison.metrics:
        for points in re.findall(r'points="([^"]*)"', draw(comparison, metric)):
            xy = np.array([pair.split(",") for pair in points.split()], float)
            assert xy.min() >= 0 and xy[:, 0].max() <= 440 and xy[:, 1].max() <= 280


def test_nothing_is_drawn_of_what_is_not_known() -> None:
    alone = examples.photos_only()
    assert joints(alone) == angles(alone, alone.metrics[0]) == noise(alone, alone.metrics[0]) == ""
    assert spread(alone, alone.metrics[0])
    few = examples.comparison(3)
    assert "polygon" not in spread(few, few.metrics[0]), "three people have no density: they are dots"


def test_a_density_moves_and_grows_with_its_people() -> None:
    values = np.random.default_rng(1).gamma(3.0, 20.0, 700)
    one, other = density(values), density(5 + 3 * values)
    assert one is not None and other is not None
    np.testing.assert_allclose(other.places, 5 + 3 * one.places)
    np.testing.assert_allclose(other.heights, one.heights, atol=1e-9)
    np.testing.assert_allclose(other.quartiles, 5 + 3 * np.array(one.quartiles))
    assert density(np.full(50, 2.0)) is None


def test_a_density_of_many_is_that_of_their_quantiles() -> None:
    values = np.random.default_rng(2).normal(50, 10, 20_000)
    found = density(values)
    assert found is not None
    np.testing.assert_allclose(found.heights, np.exp(-0.5 * ((found.places - 50) / 10) ** 2), atol=0.04)


def test_a_viewing_angle_that_turns_by_a_bin_moves_its_mean_by_one() -> None:
    random = np.random.default_rng(3)
    angle, values = random.uniform(-np.pi, np.pi, 900), random.normal(50, 5, 900)
    still, turned = angle_curve(angle, values), angle_curve(angle + 2 * np.pi / BINS, values)
    np.testing.assert_allclose(turned.mean[1:], still.mean[:-1])
    assert still.mean[0] == still.mean[-1] and still.people[:-1].sum() == 900
    facing = angle_curve(np.zeros(9), np.arange(9.0))
    assert facing.mean[BINS // 2] == 4 and np.isnan(np.delete(facing.mean, BINS // 2)).all()
    unknown = angle_curve(np.full(9, np.nan), np.arange(9.0))
    assert np.isnan(unknown.mean).all()


def test_an_interval_holds_the_mean_in_95_of_100_draws() -> None:
    random = np.random.default_rng(4)
    found = [mean_interval(random.normal(10, 3, 40)) for _ in range(800)]
    assert 0.92 < np.mean([each.low < 10 < each.high for each in found]) < 0.97
    assert math.isnan(mean_interval(np.ones(FEWEST - 1)).mean)
    assert mean_interval(np.array([1.0, np.nan, 3, 1, 3, 2])).people == 5


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (0.0, 0.03), (-7.0, 130.0), (49.2, 50.1), (0.0, 9.99), (12e3, 98e3)])
def test_ticks_are_round_even_and_within(low: float, high: float) -> None:
    scale = Scale(low, high, 300.0, 10.0)
    ticks = scale.ticks()
    assert 3 <= len(ticks) <= 8
    assert min(ticks) >= low - 1e-9 and max(ticks) <= high + 1e-9
    np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0])
    assert float(f"{ticks[1] - ticks[0]:.0e}") == pytest.approx(ticks[1] - ticks[0]), "one digit"
    assert scale.at(low) == 300 and scale.at(high) == pytest.approx(10)


def test_numbers_are_as_long_as_they_must_be() -> None:
    assert [number(value, decimals(abs(value))) for value in (1234.56, 51.26, -3.14159, 0.8765)] == [
        "1,234.6",
        "51.3",
        "−3.14",
        "0.876",
    ]
    assert number(math.nan, 1) == "–"


def test_attributes_are_escaped_and_none_is_left_out() -> None:
    assert tag("i", class_="a", data_x='"<', hidden=True, title=None, y=1.0) == (
        '<i class="a" data-x="&quot;&lt;" hidden y="1"></i>'
    )


def test_pictures_are_written_of_what_is_known(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    written = plots.write_plots(tmp_path, examples.comparison(40))
    assert {path.name for path in written} == {
        f"{n}.png" for n in ("spread", "angles", "noise", "joints", "differences")
    }
    for path in written:
        pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
        inked = [(np.abs(pixels - _rgb(ink)).max(1) < 30).mean() for ink in plots.INKS[:3]]
        assert max(inked) > 1e-4 and (pixels == 255).all(1).mean() > 0.5
    alone = plots.write_plots(tmp_path / "alone", examples.photos_only())
    assert {path.name for path in alone} == {"spread.png", "differences.png"}


def _rgb(ink: str) -> np.ndarray:
    return np.array([int(ink[start : start + 2], 16) for start in (1, 3, 5)])


def test_nearness_to_the_keypoints_makes_nobody_best() -> None:
    comparison = examples.comparison()
    metrics = tuple(replace(metric, judges=metric.name != "pa_mpjpe_mm") for metric in comparison.metrics)
    kept = replace(comparison, metrics=metrics)
    assert main_tables(comparison).count("<b>") == 6 and main_tables(kept).count("<b>") == 4
    drawn = page(kept, (), examples.faces())
    assert drawn.count("(lower is nearer)") == 3 and drawn.count("lower is better") > 0
    pairs = [each for each in comparison.differences if each.metric == "pa_mpjpe_mm"]
    assert any(winner(comparison, each) for each in pairs) and not any(winner(kept, each) for each in pairs)


def test_few_people_are_drawn_without_bands() -> None:
    drawn = page(few := examples.comparison(3), (), examples.faces())
    assert len(few.people) == 3 and "nan" not in re.sub(r"<script.*?</script>", "", drawn, flags=re.DOTALL).lower()
    lone = tuple(
        replace(curve, intervals=tuple(Interval(50.0, math.nan, math.nan, 3, 50.0) for _ in curve.intervals))
        for curve in few.noise
    )
    drawn = noise(replace(few, noise=lone), few.metrics[0])
    assert "nan" not in drawn and 'class="band"' not in drawn and 'class="line"' in drawn


def test_a_mean_without_an_interval_is_told_alone() -> None:
    comparison = examples.comparison()
    alone = {branch: dict(found) for branch, found in comparison.means.items()}
    alone["lift"]["pa_mpjpe_mm"] = Interval(60.0, math.nan, math.nan, 1)
    table = means_table(comparison, alone)
    assert "nan" not in table.lower() and 'data-value="60.0"' in table


def test_joints_are_told_from_what_they_are_measured_against() -> None:
    known = examples.comparison()
    for comparison, goal in ((known, "from its true place"), (replace(known, against="each other"), "from where the")):
        assert goal in page(comparison, (), examples.faces())
