"""The tables of the page: means, differences, groups and joints, each number with its interval."""

import math
from collections.abc import Iterable, Mapping, Sequence

from meshrec.comparison.comparison import EVERYBODY, Comparison, Difference, Interval, Metric
from meshrec.comparison.markup import Scale, decimals, ink, number, tag, text
from meshrec.comparison.summaries import better, joint_means, level_means, levels, winner

ANSWERED = (
    "Means over the people whom a branch answers, with 95 % intervals, and medians: a few lost people move a mean far, "
    "and a median hardly."
)
SHARED = "The same people for every branch: those whom all answer."
BOLD = "Bold is who is {} than every other branch on the same people, beyond the doubt of the interval."


def main_tables(comparison: Comparison) -> str:
    """The means of everybody; and where somebody has no answer, those of the people whom all answer."""
    table = tag("p", f"{ANSWERED} {BOLD.format(better(comparison))}", class_="note") + means_table(
        comparison, comparison.means
    )
    if not (comparison.answers_differ and comparison.shared_means):
        return table
    return table + tag("p", SHARED, class_="note") + means_table(comparison, comparison.shared_means)


def means_table(comparison: Comparison, means: Mapping[str, Mapping[str, Interval]]) -> str:
    """A row a branch, a column a metric; the page sorts it by any column."""
    costs = _costs(comparison)
    headings = [("branch", ""), *((metric.label, metric.unit) for metric in comparison.metrics)]
    head = "".join(_heading(name, unit) for name, unit in [*headings, *((name, unit) for name, unit, _ in costs)])
    rows = []
    for place, branch in enumerate(comparison.branches):
        cells = tag("th", tag("i", class_=f"chip {ink(place)}"), text(branch), scope="row", data_value=branch)
        for metric in comparison.metrics:
            of_all = {name: found[metric.name] for name, found in means.items() if metric.name in found}
            cells += _mean(of_all.get(branch), _places(of_all.values()), branch == _best(comparison, metric))
        cells += "".join(_plain(values.get(branch, math.nan)) for _, _, values in costs)
        rows.append(tag("tr", cells))
    table = tag("table", tag("thead", tag("tr", head)), tag("tbody", *rows), class_="sortable")
    return tag("div", table, class_="wide", tabindex="0", role="region", aria_label="means of all branches")


def _costs(comparison: Comparison) -> list[tuple[str, str, dict[str, float]]]:
    """Columns beside the metrics: what an answer costs, and how many people have none."""
    columns: list[tuple[str, str, dict[str, float]]] = []
    for key, name, unit in (("seconds", "time", "s a person"), ("peak_mb", "memory", "MB")):
        values = {branch: cost[key] for branch, cost in comparison.cost.items() if key in cost}
        columns += [(name, unit, values)] if values else []
    missing = {branch: float(count) for branch, count in comparison.unanswered.items()}
    return [*columns, ("no answer", "people", missing)] if any(missing.values()) else columns


def _heading(name: str, unit: str) -> str:
    button = tag("button", text(name), type="button")
    return tag("th", button, tag("small", text(unit)) if unit else "", scope="col", aria_sort="none")


def _mean(mean: Interval | None, places: int, best: bool) -> str:
    if mean is None or not math.isfinite(mean.mean):
        return tag("td", "–", data_value="")
    value = tag("b" if best else "span", number(mean.mean, places))
    middle = tag("small", f"median {number(mean.median, places)}") if math.isfinite(mean.median) else ""
    return tag("td", value, tag("small", _bounds(mean, places)), middle, data_value=repr(float(mean.mean)))


def _plain(value: float) -> str:
    if not math.isfinite(value):
        return tag("td", "–", data_value="")
    return tag("td", number(value, 0 if float(value).is_integer() else decimals(value)), data_value=repr(float(value)))


def _bounds(interval: Interval, places: int) -> str:
    known = math.isfinite(interval.low) and math.isfinite(interval.high)
    return f"[{number(interval.low, places)}, {number(interval.high, places)}]" if known else ""


def _places(means: Iterable[Interval]) -> int:
    """Decimals for all numbers of a column."""
    return decimals(max((abs(each.mean) for each in means if math.isfinite(each.mean)), default=math.nan))


def _best(comparison: Comparison, metric: Metric) -> str | None:
    """Who is better than every other branch beyond doubt, if anybody is and the metric judges."""
    pairs = [each for each in comparison.differences if each.metric == metric.name and each.group == EVERYBODY]
    pairs = [each for each in pairs if each.interval.people]
    rivals = {name for each in pairs for name in (each.one, each.other)}
    won = [winner(comparison, each) for each in pairs]
    return next((name for name in rivals if won.count(name) == len(rivals) - 1), None)


def differences_table(comparison: Comparison) -> str:
    """A part for each metric and pair: everybody, then each level of each group; intervals are drawn and in numbers."""
    if not comparison.differences:
        return ""
    head = _head("people", "difference", "", f"first is {better(comparison)}")
    parts: dict[tuple[str, str, str], list[Difference]] = {}
    for each in comparison.differences:
        parts.setdefault((each.metric, each.one, each.other), []).append(each)
    bodies = [_pair(comparison, comparison.metric(key[0]), found) for key, found in parts.items()]
    pairs = dict.fromkeys(_pair_name(each) for each in comparison.differences)
    options = "".join(tag("option", text(pair), value=pair) for pair in pairs)
    choice = tag("p", tag("label", "pair ", tag("select", options, id="pair")), class_="bar-line")
    note = tag("p", text(DIFFERENCES_NOTE.format(better(comparison))), class_="note")
    table = tag("table", head, *bodies, class_="differences")
    return choice + note + tag("div", table, class_="wide", tabindex="0", role="region", aria_label="differences")


DIFFERENCES_NOTE = (
    "The first minus the second of the same people, with the 95 % interval of the mean, which has the colour of the "
    "{0} one where it leaves no doubt. The share is of the people on whom the first is {0}."
)


def _pair_name(each: Difference) -> str:
    return f"{each.one} − {each.other}"


def _pair(comparison: Comparison, metric: Metric, found: Sequence[Difference]) -> str:
    known = [abs(v) for each in found for v in (each.interval.low, each.interval.high) if math.isfinite(v)]
    reach = max([*known, 1e-9])
    scale, places = Scale(-reach, reach, 4.0, 196.0), decimals(max(known, default=math.nan))
    caption = f"{_pair_name(found[0])}, {metric.label}{f', {metric.unit}' if metric.unit else ''}"
    rows = tag("tr", tag("th", text(caption), colspan="4", scope="rowgroup"), class_="caption")
    group = EVERYBODY
    for each in found:
        if each.group != group:
            group = each.group
            rows += tag("tr", tag("th", text(f"by {group}"), colspan="4", scope="rowgroup"), class_="group")
        rows += _difference(comparison, each, scale, places)
    return tag("tbody", rows, data_metric=metric.name, data_pair=_pair_name(found[0]))


def _difference(comparison: Comparison, each: Difference, scale: Scale, places: int) -> str:
    who = f"{each.level or 'everybody'}"
    people = tag("small", f" {each.interval.people:,}")
    told = tag("span", number(each.interval.mean, places)) + tag("small", _bounds(each.interval, places))
    judged = comparison.metric(each.metric).judges and math.isfinite(each.wins)
    wins = f"{each.wins:.0%}" if judged else "–"
    drawn = tag("td", _range(comparison, each, scale), class_="range")
    return tag("tr", tag("th", text(who), people, scope="row"), tag("td", told), drawn, tag("td", wins))


def _range(comparison: Comparison, each: Difference, scale: Scale) -> str:
    """The interval about zero, in the colour of the branch that is better if there is no doubt."""
    interval = each.interval
    if not all(map(math.isfinite, (interval.mean, interval.low, interval.high))):
        return ""
    won = winner(comparison, each)
    color = "unsettled" if won is None else ink(comparison.branches.index(won))
    zero, low, high, mean = (scale.at(value) for value in (0.0, interval.low, interval.high, interval.mean))
    content = tag("line", class_="zero", x1=zero, x2=zero, y1=0.0, y2=16.0)
    content += tag("line", class_="whisker", x1=low, x2=high, y1=8.0, y2=8.0)
    content += tag("circle", class_="mean", cx=mean, cy=8.0, r=4.0)
    size = {"width": "200", "height": "16"}
    return tag("svg", content, viewBox="0 0 200 16", class_=color, aria_hidden="true", **size)


def levels_table(comparison: Comparison) -> str:
    """A part for each metric: the mean of each branch over the people of each level of each group."""
    found = levels(comparison)
    if not found:
        return ""
    bodies = [
        tag("tbody", *_level_rows(comparison, metric, found), data_metric=metric.name) for metric in comparison.metrics
    ]
    chips = [tag("i", class_=f"chip {ink(place)}") + text(branch) for place, branch in enumerate(comparison.branches)]
    table = tag("table", _head("people", *chips), *bodies)
    return tag("div", table, class_="wide", tabindex="0", role="region", aria_label="groups")


def _head(*cells: str) -> str:
    return tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in cells)))


def _level_rows(comparison: Comparison, metric: Metric, found: Mapping[str, tuple[str, ...]]) -> Iterable[str]:
    columns = str(1 + len(comparison.branches))
    caption = f"{metric.label}, {metric.unit}" if metric.unit else metric.label
    yield tag("tr", tag("th", text(caption), colspan=columns, scope="rowgroup"), class_="caption")
    for group, names in found.items():
        yield tag("tr", tag("th", text(f"by {group}"), colspan=columns, scope="rowgroup"), class_="group")
        for level in names:
            means = level_means(comparison, metric.name, group, level)
            most = max((mean.people for mean in means.values()), default=0)
            cells = [_alone(means.get(branch), _places(means.values())) for branch in comparison.branches]
            yield tag("tr", tag("th", text(level), tag("small", f" {most:,}"), scope="row"), *cells)


def _alone(mean: Interval | None, places: int) -> str:
    """A mean whose interval is not told."""
    return tag("td", number(math.nan if mean is None else mean.mean, places))


def joints_table(comparison: Comparison) -> str:
    """A row a joint, a column a branch, then a column for each pair's difference."""
    means = joint_means(comparison)
    pairs: dict[str, dict[str, Difference]] = {}
    for each in comparison.joint_differences:
        pairs.setdefault(_pair_name(each), {})[each.level] = each
    rows = []
    for joint in comparison.joint_names:
        cells = [_alone(means[branch][joint], 1) for branch in means]
        cells += [_mean(found[joint].interval if joint in found else None, 1, best=False) for found in pairs.values()]
        rows.append(tag("tr", tag("th", text(joint.replace("_", " ")), scope="row"), *cells))
    table = tag("table", _head("joint", *map(text, [*means, *pairs])), tag("tbody", *rows))
    return tag("div", table, class_="wide", tabindex="0", role="region", aria_label="joints")
