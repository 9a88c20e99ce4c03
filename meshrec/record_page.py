"""An evaluation on records as one web page: the tables, and people shown with answer and truth; it needs no network."""

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from meshrec.body import BodyModel
from meshrec.branches.registry import Branch
from meshrec.camera import project
from meshrec.metrics import joint_error_mm
from meshrec.record_evaluation import Case, TruthBodies, cases
from meshrec.record_report import (
    FIGURES,
    PUBLISHED_NOTE,
    RecordEvaluation,
    Sheet,
    protocol_lines,
    sheets_of,
    worst_first,
)
from meshrec.render import PALETTE, Studio, overlay, studio_view
from meshrec.skeleton_plot import skeletons_over
from meshrec.skeletons import H36M17
from meshrec.types import Camera

WORST, MIDDLE, BEST = 12, 4, 4
"""So many people are shown of each kind."""

TILE_PX = 256
"""Height of the pictures."""

QUALITY = 82
"""Of the JPEG pictures: a page stays under three megabytes."""

ANSWER, TRUTH = PALETTE[0], PALETTE[2]
"""Colours of the two bodies."""

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #30343c; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: .6rem 0 1.6rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #e2e5ea; }
td { font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; } tr.published td { color: #858b96; font-style: italic; }
ul.protocol { color: #59606c; padding-left: 1.2rem; }
figure { margin: 0 0 1.4rem; } figcaption { margin-top: .3rem; color: #59606c; }
.tiles { display: flex; gap: 6px; flex-wrap: wrap; } .tile { font-size: .8rem; color: #858b96; text-align: center; }
.tile img { display: block; height: 256px; border-radius: 4px; }
"""


@dataclass(frozen=True, eq=False)
class Tile:
    """A picture and what it shows."""

    name: str
    pixels: UInt8[np.ndarray, "h w 3"]


def page(
    evaluations: Sequence[RecordEvaluation],
    branches: Sequence[Branch],
    truth: TruthBodies,
    published: bool = False,
) -> str:
    """The page; the branches, each with its evaluation, are asked again for those who are shown: the first's worst."""
    evaluation = evaluations[0]
    order = worst_first(evaluation)
    middle = max(0, (len(order) - MIDDLE) // 2)
    kinds = {
        "The worst": order[:WORST],
        "In the middle": order[middle : middle + MIDDLE],
        "The best": order[::-1][:BEST],
    }
    names = ", ".join(each.branch for each in evaluations)
    title = f"{names}: {len(evaluation.roll):,} people by the protocol of {evaluation.protocol.name}"
    main, *sheets = sheets_of(evaluations, published)
    parts = [f"<h1>{html.escape(title)}</h1>", table(main)]
    parts += [f"<p>{html.escape(PUBLISHED_NOTE)}</p>"] if published else []
    parts += [listed(protocol_lines(evaluation))]
    whose = f" of {evaluation.branch}" * (len(evaluations) > 1)
    for kind, people in kinds.items():
        shown = (_shown(evaluations, branches, truth, person) for person in people)
        parts += [f"<h2>{kind}, by PA-MPJPE{html.escape(whose)}</h2>", *shown]
    parts += [f"<h2>{'Everybody' if order else 'Nobody has an answer'}</h2>", *map(table, sheets)]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def table(sheet: Sheet) -> str:
    """A table as HTML."""
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in sheet.headings)
    rows = []
    for row in sheet.rows:
        kind = ' class="published"' if row[0].startswith("published") else ""
        rows.append(f"<tr{kind}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>")
    return f"<table><caption>{html.escape(sheet.title)}</caption><tr>{head}</tr>{''.join(rows)}</table>"


def listed(lines: Sequence[str]) -> str:
    """Lines as a list."""
    return '<ul class="protocol">' + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def _shown(evaluations: Sequence[RecordEvaluation], branches: Sequence[Branch], truth: TruthBodies, person: int) -> str:
    """One person: pictures, and the figures of each branch."""
    record = evaluations[0].roll.record(person)
    with torch.no_grad():
        found = [cases(branch, truth, [record])[0] for branch in branches]
    frame = f", frame {record.frame}" if record.frame >= 0 else ""
    whose = f"{record.dataset}, {record.sequence or record.source or 'not told'}{frame}"
    several = len(branches) > 1
    captions, tiles = [whose], []
    for place, (evaluation, case) in enumerate(zip(evaluations, found, strict=True)):
        captions.append(f"{evaluation.branch}: " * several + _figures(evaluation, case, person))
        shown = [tile for tile in tiles_of(case, truth.model) if place == 0 or tile.name.startswith("answer")]
        name = evaluation.branch if several else "answer"
        tiles += [replace(tile, name=tile.name.replace("answer", name)) for tile in shown]
    pictures = "".join(
        f'<div class="tile"><img src="{jpeg_uri(scaled(tile.pixels))}" alt="{html.escape(tile.name)}">'
        f"{html.escape(tile.name)}</div>"
        for tile in tiles
    )
    caption = "<br>".join(map(html.escape, captions)) if several else html.escape(" · ".join(captions))
    return f'<figure><div class="tiles">{pictures}</div><figcaption>{caption}</figcaption></figure>'


def _figures(evaluation: RecordEvaluation, case: Case, person: int) -> str:
    """A person's figures, those that are known."""
    errors = evaluation.found.errors[person]
    figures = [f"{name} {float(getattr(errors, figure)):.1f}" for figure, name in FIGURES.items()]
    known = [told for told in figures if not told.endswith("nan")]
    return " · ".join([*known, f"farthest: {farthest_joint(case)}"])


def farthest_joint(case: Case) -> str:
    """The joint that is farthest from its place about the pelvis, and how far."""
    errors = joint_error_mm(case.placed.joints17_m[0], case.truth.joints17_m[0])
    joint = int(errors.argmax())
    return f"{H36M17.joints[joint]} {float(errors[joint]):.0f} mm"


def tiles_of(case: Case, model: BodyModel) -> list[Tile]:
    """The crop; answer and truth over it, from the front as the camera sees them, and from the side."""
    crop = case.record.pixels
    tiles = [Tile("picture", crop), Tile("answer", _over(case, model))]
    if case.record.placed:
        true_m = case.truth.vertices_m[0] + case.truth.root_m[0]
        over = overlay(crop, [true_m], model.faces.cpu(), case.sight.camera, [TRUTH])
        tiles.append(Tile("truth", over))
    true_m, found_m = case.truth.vertices_m[0], case.placed.vertices_m[0]
    bodies = {"truth": (true_m, TRUTH)}
    if found_m.isfinite().all():
        bodies = {"answer": (found_m, ANSWER), **bodies}
    extent_m = 1.05 * max(_extent_m(body) for body, _ in bodies.values())
    for azimuth_rad, name in ((0.0, "front"), (math.pi / 2, "side")):
        for whose, (body, color) in bodies.items():
            studio = Studio(width_px=TILE_PX, height_px=TILE_PX, color=color, extent_m=extent_m)
            view = studio_view(body, model.faces.cpu(), azimuth_rad, studio=studio)
            tiles.append(Tile(f"{whose}, {name}", view))
    return tiles


def _over(case: Case, model: BodyModel) -> UInt8[np.ndarray, "h w 3"]:
    """The answer over the picture: a body, joints alone, or nothing where its place is not known."""
    crop, placed, camera = case.record.pixels, case.placed, case.sight.camera
    if not placed.root_m.isfinite().all():
        return crop
    if placed.vertices_m.isfinite().all():
        return overlay(crop, [placed.vertices_m[0] + placed.root_m[0]], model.faces.cpu(), camera, [ANSWER])
    joints_m = placed.joints17_m[0] + placed.root_m[0]
    return skeletons_over(crop, [_skeleton(joints_m, camera)])


def _skeleton(joints_m: Float[Tensor, "17 3"], camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return project(joints_m, camera).numpy(), np.ones(len(joints_m), bool), joints_m[:, 2].numpy()


def _extent_m(vertices_m: Float[Tensor, "V 3"]) -> float:
    """The longest side of a body's box."""
    return float((vertices_m.amax(0) - vertices_m.amin(0)).max())


def scaled(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """A picture as high as all of them."""
    width = max(1, round(pixels.shape[1] * TILE_PX / pixels.shape[0]))
    return np.asarray(Image.fromarray(pixels).resize((width, TILE_PX), Image.Resampling.LANCZOS))


def jpeg_uri(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    """A picture as an address that holds it."""
    store = io.BytesIO()
    Image.fromarray(pixels).save(store, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(store.getvalue()).decode()
