"""A comparison as one web page: tables, drawings, and people whose bodies turn; it needs no network."""

import base64
import hashlib
from collections.abc import Callable, Sequence
from importlib.resources import files

import numpy as np
from jaxtyping import Integer

from meshrec.comparison.charts import angles, joints, noise, spread
from meshrec.comparison.comparison import Comparison, Exhibit, Metric
from meshrec.comparison.gallery import bodies_json, gallery
from meshrec.comparison.markup import ink, tag, text
from meshrec.comparison.page_tables import (
    differences_table,
    joints_table,
    levels_table,
    main_tables,
)
from meshrec.comparison.sentences import AGREEMENT_ONLY, counted
from meshrec.comparison.summaries import better, joint_goal

SCRIPTS = ("view3d.js", "page.js")

READING = {
    "spread": "Each shape shows how many people have which value; the bar holds the middle half of them, the tick is "
    "the median, the dot the mean with its 95 % interval. The largest 2 % are not drawn.",
    "angles": "Mean over the people who face that way, with 1.96 standard errors, as if nobody were alike.",
    "noise": "Gaussian noise was added to the keypoints; the band is the 95 % interval over people.",
    "joints": "Mean distance of each joint from {}, about the pelvis and with no alignment, one bar a branch; the "
    "number is the smallest of them in millimetres.",
}


def page(comparison: Comparison, exhibits: Sequence[Exhibit], faces: Integer[np.ndarray, "F 3"]) -> str:
    """The page of a comparison; `faces` are those of every exhibited body."""
    sections = {
        "words": ("In words", _sentences(comparison)),
        "table": ("All branches", main_tables(comparison)),
        "measure": ("One measure at a time", _chosen(comparison)),
        "differences": ("Differences, person by person", differences_table(comparison)),
        "levels": ("Where: means of each group", levels_table(comparison)),
        "people": ("People", gallery(comparison, exhibits)),
        "protocol": ("What was measured, and how", _protocol(comparison)),
    }
    shown = {name: (heading, content) for name, (heading, content) in sections.items() if content}
    links = tag(
        "nav", *(tag("a", heading, href=f"#{name}") for name, (heading, _) in shown.items()), aria_label="parts"
    )
    parts = [tag("section", tag("h2", heading), content, id=name) for name, (heading, content) in shown.items()]
    bodies = tag("script", bodies_json(comparison, exhibits, faces), id="bodies", type="application/json")
    body = tag("main", _opening(comparison), links, *parts) + bodies
    return "<!DOCTYPE html>\n" + tag("html", _head(comparison), tag("body", body, _scripts()), lang="en") + "\n"


def _head(comparison: Comparison) -> str:
    """Nothing may be loaded from elsewhere, and no script runs but the page's own two."""
    hashes = " ".join(f"'sha256-{_digest(_asset(name))}'" for name in SCRIPTS)
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}"
    return tag(
        "head",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        tag("title", text(comparison.title)),
        tag("style", _asset("page.css")),
    )


def _asset(name: str) -> str:
    return files("meshrec.comparison").joinpath(name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _scripts() -> str:
    return "".join(tag("script", _asset(name)) for name in SCRIPTS)


def _opening(comparison: Comparison) -> str:
    people = (
        f"{counted(len(comparison.people))}, {len(comparison.branches)} branches, from {', '.join(comparison.data)}."
    )
    opening = tag("h1", text(comparison.title)) + tag("p", text(people), class_="lead")
    if comparison.against == "each other":
        opening += tag("p", text(AGREEMENT_ONLY), class_="warning", role="note")
    return tag("header", opening)


def _sentences(comparison: Comparison) -> str:
    told = [each for each in comparison.sentences if each != AGREEMENT_ONLY]
    return tag("ul", *(tag("li", text(each)) for each in told)) if told else ""


def _chosen(comparison: Comparison) -> str:
    """All that is shown for one metric at a time, under the bar that chooses it."""
    content = tag("div", _choice(comparison), _legend(comparison), class_="bar", id="choice")
    drawn = _metric_figures(comparison, "spread", "Spread over people", spread)
    drawn += _metric_figures(comparison, "angles", "Against the viewing angle", angles)
    drawn += _metric_figures(comparison, "noise", "Against noise on the keypoints", noise)
    content += tag("div", drawn + _joints(comparison), class_="charts")
    return content


def _choice(comparison: Comparison) -> str:
    options = "".join(tag("option", text(metric.label), value=metric.name) for metric in comparison.metrics)
    return tag("label", "measure ", tag("select", options, id="metric"))


def _legend(comparison: Comparison) -> str:
    chips = [tag("i", class_=f"chip {ink(place)}") + text(name) for place, name in enumerate(comparison.branches)]
    return tag("span", *(tag("span", chip) for chip in chips), class_="legend")


def _metric_figures(comparison: Comparison, name: str, heading: str, draw: Callable[[Comparison, Metric], str]) -> str:
    """One drawing a metric, of which one is seen at a time."""
    figures = ""
    for metric in comparison.metrics:
        if drawing := draw(comparison, metric):
            sense = f"{metric.better} is {better(comparison, metric)}"
            caption = tag("figcaption", tag("b", text(heading)), f" ({sense}). ", text(READING[name]))
            figures += tag("figure", caption, drawing, class_=f"chart {name}", data_metric=metric.name)
    return figures


def _joints(comparison: Comparison) -> str:
    if not (drawing := joints(comparison)):
        return ""
    reading = READING["joints"].format(joint_goal(comparison))
    caption = tag("figcaption", tag("b", "Joint by joint"), " (whatever the measure). ", text(reading))
    exact = tag("details", tag("summary", "the numbers"), joints_table(comparison))
    return tag("figure", caption, drawing, exact, class_="chart joints")


def _protocol(comparison: Comparison) -> str:
    told = "".join(tag("dt", text(name)) + tag("dd", text(words)) for name, words in comparison.protocol.items())
    for metric in comparison.metrics:
        unit = f", {metric.unit}" if metric.unit else ""
        told += tag("dt", text(metric.label)) + tag(
            "dd", text(f"{metric.what} ({metric.better} is {better(comparison, metric)}{unit})")
        )
    return tag("dl", told)
