"""What an evaluation found: tables for the terminal, and a record of named figures."""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from meshrec.data.views import Views
from meshrec.evaluation import ANGLES_DEG, BIN_DEG, FIGURES, Errors, Summary, angle_of, means_by, summary_of
from meshrec.files import write_text
from meshrec.skeletons import H36M17

Kind = Literal["branch", "sample", "oracle", "baseline"]
"""What a row is: an answer, one of many drawn, the best of these by the truth itself, or what has to be beaten."""

FACING = {0: "front", 45: "front quarter", 90: "side", 135: "back quarter", 180: "back"}

PAGE_WIDTH = 130
"""Columns of the tables where they are not printed to a terminal."""

NOT_TOLD = "not told"
"""The action or subject of views that name none."""


@dataclass(frozen=True)
class Row:
    """A method under a condition."""

    method: str
    condition: str
    kind: Kind
    errors: Errors
    """Of every view, in their order."""


@dataclass(frozen=True)
class Evaluation:
    """What was found; its first row is the branch's own answer to what it was shown as it is."""

    views: Views
    rows: tuple[Row, ...]
    answers_per_s: float
    means: Float[Tensor, "N L"] | None = None
    """Where the views lie in the branch's latent space, if it has one."""

    @property
    def main(self) -> Errors:
        """The branch's own."""
        return self.rows[0].errors

    @property
    def actions(self) -> Shaped[np.ndarray, "N"]:
        """What the person of each view does."""
        return np.where(self.views.action == "", NOT_TOLD, self.views.action)

    @property
    def subjects(self) -> Shaped[np.ndarray, "N"]:
        """Who is seen in each view."""
        return np.where(self.views.subject == "", NOT_TOLD, self.views.subject)

    @property
    def angles_deg(self) -> Int[np.ndarray, "N"]:
        """The bin of each view's viewing angle."""
        return angle_of(self.views.azimuth_rad)

    def summaries(self, row: Row) -> dict[str, Summary | None]:
        """Each figure of a row; None where the branch cannot know it."""
        values = ((figure, getattr(row.errors, figure)) for figure in FIGURES)
        return {figure: None if value is None else summary_of(value, self.subjects) for figure, value in values}

    def loss_mm(self, row: Row) -> float | None:
        """How much worse than the branch's first row another of its own answers is; None where that says nothing."""
        if row is self.rows[0] or row.kind != "branch":
            return None
        ours, clean = (self.summaries(each)[FIGURES[0]] for each in (row, self.rows[0]))
        assert ours is not None and clean is not None
        return ours.poses - clean.poses

    def by(self, what: Literal["action", "subject"]) -> dict[str, tuple[int, float]]:
        """Views and mean PA-MPJPE of each action or subject."""
        return means_by(self.main.pa_mpjpe_mm, self.actions if what == "action" else self.subjects)

    @property
    def by_angle(self) -> dict[int, tuple[int, float]]:
        """Views and mean PA-MPJPE of each bin of the viewing angle, from -135 to 180 degrees; empty bins too."""
        found = {int(angle): figure for angle, figure in means_by(self.main.pa_mpjpe_mm, self.angles_deg).items()}
        return {angle: found.get(angle, (0, math.nan)) for angle in sorted(ANGLES_DEG)}

    @property
    def by_joint_mm(self) -> dict[str, float]:
        """Mean error of each joint after the best similarity: their mean is the first row's PA-MPJPE."""
        answered = self.main.joints_mm.isfinite().all(-1)
        means = self.main.joints_mm[answered].double().mean(0)
        return dict(zip(H36M17.joints, means.tolist(), strict=True))


def angle_name(angle_deg: int) -> str:
    """A bin of the viewing angle in words."""
    sign = "+" if 0 < angle_deg < 180 else ""
    return f"{sign}{angle_deg}° {FACING[abs(angle_deg)]}"


def record_of(evaluation: Evaluation, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for JSON: null where there is no number; names carry their units."""
    return {
        "meshrec": version("meshrec"),
        **asked,
        "poses": len(evaluation.views),
        "frames": len(np.unique(evaluation.views.frame)),
        "subjects": sorted(evaluation.by("subject")),
        "poses_per_s": _plain(evaluation.answers_per_s),
        "rows": [_row_record(evaluation, row) for row in evaluation.rows],
        "per_joint": [
            {"joint": joint, "pa_mpjpe_mm": _plain(error)} for joint, error in evaluation.by_joint_mm.items()
        ],
        "per_action": list(_group_records("action", evaluation.by("action"))),
        "per_subject": list(_group_records("subject", evaluation.by("subject"))),
        "by_angle": [
            {
                "from_deg": angle - BIN_DEG / 2,
                "to_deg": angle + BIN_DEG / 2,
                "facing": FACING[abs(angle)],
                "poses": count,
                "pa_mpjpe_mm": _plain(mean),
            }
            for angle, (count, mean) in evaluation.by_angle.items()
        ],
    }


def _row_record(evaluation: Evaluation, row: Row) -> dict[str, Any]:
    summaries = {
        figure: None if summary is None else {name: _plain(value) for name, value in asdict(summary).items()}
        for figure, summary in evaluation.summaries(row).items()
    }
    loss = _plain(evaluation.loss_mm(row))
    return {"method": row.method, "kind": row.kind, "condition": row.condition, **summaries, "loss_mm": loss}


def _group_records(what: str, groups: Mapping[str, tuple[int, float]]) -> Iterator[dict[str, Any]]:
    for name, (count, mean) in groups.items():
        yield {what: name, "poses": count, "pa_mpjpe_mm": _plain(mean)}


def main_table(evaluation: Evaluation) -> Table:
    """A line for each method and condition."""
    table = Table(title=f"{len(evaluation.views):,} views, errors in mm")
    for heading in ("method", "shown", "PA-MPJPE", "over subjects", "thesis's PA", "N-MPJPE", "MPJPE", "loss"):
        left = heading in ("method", "shown")
        table.add_column(heading, justify="left" if left else "right", no_wrap=not left)
    for row in evaluation.rows:
        pa, *others = evaluation.summaries(row).values()
        assert pa is not None
        spread = "" if pa.subjects_sd is None else f" ± {pa.subjects_sd:.1f}"
        loss = evaluation.loss_mm(row)
        name = f"{row.method} (an oracle)" if row.kind == "oracle" else row.method
        table.add_row(
            name,
            row.condition,
            f"{pa.poses:.2f}",
            f"{pa.subjects:.1f}{spread}",
            *("-" if other is None else f"{other.poses:.2f}" for other in others),
            "" if loss is None else f"{loss:+.2f}",
        )
    return table


def group_table(title: str, groups: Mapping[str, tuple[int, float]]) -> Table:
    """A line for each group of views."""
    table = Table(title, "views", "PA-MPJPE mm")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, (count, mean) in groups.items():
        table.add_row(escape(name), f"{count:,}", "-" if math.isnan(mean) else f"{mean:.2f}")
    return table


def joint_table(evaluation: Evaluation) -> Table:
    """A line for each joint, and their mean."""
    table = Table("joint", "mm after the best similarity")
    table.columns[1].justify = "right"
    for joint, error in evaluation.by_joint_mm.items():
        table.add_row(joint.replace("_", " "), f"{error:.2f}")
    table.add_section()
    table.add_row("mean", f"{torch.tensor(list(evaluation.by_joint_mm.values())).mean():.2f}")
    return table


def _plain(number: float | int | None) -> float | int | None:
    """Seven digits; null for what JSON has no number for."""
    if number is None or isinstance(number, int):
        return number
    return float(f"{number:.7g}") if math.isfinite(number) else None


def console_of() -> Console:
    """Where what is told for reading goes; a page wide where that is no terminal."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else PAGE_WIDTH)


@contextmanager
def progress(console: Console, total: int, what: str = "views answered") -> Iterator[Callable[[int], None]]:
    """A bar of answered questions."""
    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.advance(task, done)


def give(record: dict[str, Any], to_output: bool, report: Path | None, console: Console) -> None:
    """The record, on standard output or in a file."""
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    if to_output:
        sys.stdout.write(text)
    if report is not None:
        console.print(escape(f"wrote {write_text(report, text)}"), soft_wrap=True)
