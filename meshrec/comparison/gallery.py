"""The people that a page shows: pictures as JPEG, and bodies as numbers that the page's 3D view reads."""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Integer, UInt8
from PIL import Image, ImageDraw

from meshrec.comparison.comparison import TRUTH, Answer, Comparison, Exhibit
from meshrec.comparison.markup import INKS, decimals, ink, number, tag, text
from meshrec.skeleton_plot import side_of
from meshrec.skeletons import H36M17

PICTURE_PX = 400
"""Longest side of a picture."""

QUALITY = 80
"""Of the JPEG pictures."""

BOX_COLOR = (240, 180, 40)

STEPS = 32767
"""A coordinate is a whole number of so many steps from the pelvis to the farthest point: a 60,000th of a person."""

WHY = {
    "truth": {"best": "Best", "median": "Median", "worst": "Worst"},
    "each other": {"best": "Most alike", "median": "In the middle", "worst": "Least alike"},
}
"""Why somebody is shown, by what the branches are compared with."""

NOTE = (
    "Drag a body, or choose it and use the arrow keys: all bodies of a person turn together, in one scale. Of joints "
    "alone, the person's left is orange and the right blue."
)

LINES = 2
"""So many figures stand over a picture."""

VIEWS = (("as photographed", 0, 0), ("from the right", 90, 0), ("from behind", 180, 0), ("from above", 0, 60))
"""Buttons under a person: name, turn and tilt in degrees."""


def gallery(comparison: Comparison, exhibits: Sequence[Exhibit]) -> str:
    """Each person: photo, overlays, and the bodies that turn together."""
    shown = (_shown(comparison, exhibit, place) for place, exhibit in enumerate(exhibits))
    return tag("p", text(NOTE), class_="note") + "".join(shown) if exhibits else ""


def _shown(comparison: Comparison, exhibit: Exhibit, place: int) -> str:
    main = comparison.metrics[0]
    rank = f"{WHY[comparison.against][exhibit.why]} by {main.label}"
    heading = tag("h3", tag("span", text(rank), class_=f"why {exhibit.why}"), text(comparison.people[exhibit.person]))
    photo = (
        tag("figcaption", "photo")
        + tag("div", class_="figures")
        + picture(boxed(exhibit), "the photo, with the person’s box")
    )
    tiles = tag("figure", photo, class_="tile")
    for name in [*comparison.branches, TRUTH]:
        tiles += _tile(comparison, exhibit, name)
    body = tag("div", tiles, class_="tiles") + _handles(place)
    return tag("article", heading, body, class_="exhibit", data_exhibit=str(place))


def _tile(comparison: Comparison, exhibit: Exhibit, name: str) -> str:
    """What one branch, or the truth, says of a person: over the photo, and in 3D."""
    answer = exhibit.answers.get(name)
    if answer is None:
        missing = tag("p", "no answer", class_="missing")
        return "" if name == TRUTH else tag("figure", _name(comparison, name), missing, class_="tile")
    content = _name(comparison, name) + tag("div", _figures(comparison, answer), class_="figures")
    if answer.overlay is not None:
        content += picture(answer.overlay, f"{name} over the photo")
    else:
        content += tag("p", "its place on the photo is not known", class_="missing")
    if np.isfinite(answer.joints17_m).all():
        content += tag(
            "canvas",
            class_="body",
            role="img",
            tabindex="0",
            width="300",
            height="300",
            data_answer=name,
            aria_label=f"{name} in 3D: the arrow keys turn it, plus and minus bring it nearer, Home turns it back",
        )
    return tag("figure", content, class_="tile")


def _name(comparison: Comparison, name: str) -> str:
    color = ink(comparison.branches.index(name)) if name in comparison.branches else "inktruth"
    return tag("figcaption", tag("i", class_=f"chip {color}"), text(name))


def _figures(comparison: Comparison, answer: Answer) -> str:
    """The first figures that are known of a person, a line each."""
    known = [
        f"{metric.label} {number(value, decimals(abs(value)))} {metric.unit}"
        for metric in comparison.metrics
        if math.isfinite(value := float(answer.figures.get(metric.name, math.nan)))
    ]
    return "".join(tag("div", text(line)) for line in known[:LINES])


def _handles(place: int) -> str:
    """What turns the bodies of a person without a mouse."""
    sliders = ""
    for name, reach in (("turn", 180), ("tilt", 90)):
        bounds = {"min": str(-reach), "max": str(reach), "step": "5", "value": "0"}
        slider = tag("input", type="range", class_=name, aria_label=f"{name} the bodies, degrees", **bounds)
        sliders += tag("label", name, slider)
    buttons = "".join(
        tag("button", name, type="button", class_="view", data_turn=str(turn), data_tilt=str(tilt))
        for name, turn, tilt in VIEWS
    )
    ghost = tag(
        "label", tag("input", type="checkbox", class_="ghost"), "truth’s skeleton over each", class_="with-truth"
    )
    label = f"3D view of person {place + 1}"
    return tag("div", sliders, buttons, ghost, class_="handles", role="group", aria_label=label)


def picture(pixels: UInt8[np.ndarray, "h w 3"], alt: str) -> str:
    """An image that holds its own pixels, scaled down."""
    small = Image.fromarray(pixels)
    small.thumbnail((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
    store = io.BytesIO()
    small.save(store, "JPEG", quality=QUALITY)
    source = "data:image/jpeg;base64," + base64.b64encode(store.getvalue()).decode()
    return tag("img", src=source, alt=alt, width=str(small.width), height=str(small.height), loading="lazy")


def boxed(exhibit: Exhibit) -> UInt8[np.ndarray, "h w 3"]:
    """The photo with the person's box."""
    drawn = Image.fromarray(exhibit.photo)
    width = max(1, round(max(drawn.size) / PICTURE_PX * 2))
    ImageDraw.Draw(drawn).rectangle(exhibit.box_xyxy_px, outline=BOX_COLOR, width=width)
    return np.asarray(drawn)


def bodies_json(comparison: Comparison, exhibits: Sequence[Exhibit], faces: Integer[np.ndarray, "F 3"]) -> str:
    """What the 3D view reads: skeleton, faces once, and each answer's joints and vertices in whole numbers."""
    meshes = any(answer.vertices_m is not None for exhibit in exhibits for answer in exhibit.answers.values())
    told = {
        "bones": [list(bone) for bone in H36M17.bones],
        "sides": [side_of(bone) for bone in H36M17.bones],
        "branches": list(comparison.branches),
        "inks": INKS,
        "steps": STEPS,
        "faces": packed(faces.astype(np.uint32)) if meshes else "",
        "exhibits": [_bodies(exhibit) for exhibit in exhibits],
    }
    return json.dumps(told, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _bodies(exhibit: Exhibit) -> dict[str, object]:
    reach_m = reach_of(exhibit.answers)
    return {
        "reach_m": reach_m,
        "answers": {
            name: {
                "joints": in_steps(answer.joints17_m, reach_m).ravel().tolist(),
                "vertices": None if _lost(answer) else packed(in_steps(_vertices(answer), reach_m)),
            }
            for name, answer in exhibit.answers.items()
            if np.isfinite(answer.joints17_m).all()
        },
    }


def _lost(answer: Answer) -> bool:
    return answer.vertices_m is None or not np.isfinite(answer.vertices_m).all()


def _vertices(answer: Answer) -> Float[np.ndarray, "V 3"]:
    assert answer.vertices_m is not None
    return answer.vertices_m


def reach_of(answers: Mapping[str, Answer]) -> float:
    """The farthest coordinate of all answers: they are shown in one scale."""
    points = [answer.joints17_m for answer in answers.values()]
    points += [_vertices(answer) for answer in answers.values() if not _lost(answer)]
    known = np.concatenate([part[np.isfinite(part)] for part in points] or [np.ones(1)])
    return float(np.abs(known).max(initial=1e-3))


def in_steps(points_m: Float[np.ndarray, "P 3"], reach_m: float) -> Integer[np.ndarray, "P 3"]:
    """Points in whole steps of reach / 32767."""
    return np.round(points_m * (STEPS / reach_m)).astype(np.int16)


def packed(numbers: Integer[np.ndarray, "P 3"]) -> str:
    """Numbers as base64, the lowest byte first."""
    return base64.b64encode(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()).decode()
