"""What an evaluation on records found: tables for the terminal and the page, and a record of named figures.

A table is a noun here, so that the terminal and the page show the same.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from meshrec.models.regressor import Precision
from meshrec.record_evaluation import JOINTS14, Measured, Protocol, ProtocolName, Roll

FIGURES = {
    "mpjpe_mm": "MPJPE",
    "pa_mpjpe_mm": "PA-MPJPE",
    "pve_mm": "PVE",
    "n_mpjpe_mm": "N-MPJPE",
    "mpjpe17_mm": "MPJPE 17",
    "pa_mpjpe17_mm": "PA 17",
    "reprojection_px": "2D px",
    "coco17_px": "COCO px",
    "coco17_percent": "COCO %",
}
"""Every figure, and its column."""

NOT_TOLD = "not told"
"""The sequence of records that name none."""

MOST_PROBLEMS = 5
"""So many of what could not be answered are told one by one on the terminal."""


@dataclass(frozen=True)
class Published:
    """Figures of a method as its authors give them, on the test set of 3DPW; None where they give none."""

    method: str
    mpjpe_mm: float
    pa_mpjpe_mm: float
    pve_mm: float | None


PUBLISHED = (
    Published("PARE", 82.0, 50.9, 97.9),
    Published("PARE, trained on 3DPW too", 74.5, 46.5, 88.6),
    Published("PARE, mmhuman3d's", 81.8, 49.4, None),
    Published("HMR2.0b", 81.3, 54.3, 93.1),
    Published("CameraHMR", 62.1, 38.5, 72.9),
    Published("NLF", 60.3, 37.3, 71.4),
    Published("SAM 3D Body", 54.8, 33.8, 63.6),
)

PUBLISHED_NOTE = (
    "Published rows are their authors' own figures, for all of 3DPW's test set and by their own evaluation; none was "
    "measured here."
)


@dataclass(frozen=True)
class RecordOptions:
    """How records are evaluated."""

    protocol: ProtocolName = "3dpw"
    """By which answers about records are measured."""
    mesh_weights: str | None = None
    """Network of the branches mesh and mesh+fit, by name or file: one of ours, or an official checkpoint."""
    flip: bool = False
    """Let the mesh branch look at the mirror image too, and take the mean."""
    precision: Precision = "float32"
    """Of the mesh network's layers."""
    gendered: bool = False
    """Show the records' truth by the bodies male and female, which are yours to add."""
    published: bool = False
    """Print figures that others published beside those measured on records."""
    page: Path | None = None
    """Also write the records' tables and worst cases as a web page."""


@dataclass(frozen=True)
class Asked:
    """What is asked of records, of one branch after another."""

    data: tuple[Path, ...]
    branches: tuple[str, ...]
    options: RecordOptions
    frames: int | None
    """At most so many people, evenly spread."""
    body: str
    prior: str


@dataclass(frozen=True, eq=False)
class RecordEvaluation:
    """What was found of a branch on a roll of people."""

    branch: str
    protocol: Protocol
    roll: Roll
    found: Measured

    def figures(self, whom: Bool[Tensor, "N"]) -> dict[str, float]:
        """The mean of each figure over those of the people who have it; NaN where nobody has."""
        return {name: mean_of(getattr(self.found.errors, name)[whom]) for name in FIGURES}

    @property
    def everybody(self) -> Bool[Tensor, "N"]:
        """Everybody on the roll."""
        return torch.ones(len(self.roll), dtype=torch.bool)

    @property
    def unanswered(self) -> int:
        """People of whom the branch said nothing."""
        return int((~self.found.answered).sum())

    def groups(self, what: str) -> dict[str, Bool[Tensor, "N"]]:
        """Who belongs to each "dataset" or "sequence"."""
        labels = self.roll.datasets if what == "dataset" else self.roll.sequences
        return _members(labels.tolist())

    @cached_property
    def levels(self) -> dict[str, dict[str, Bool[Tensor, "N"]]]:
        """Who belongs to each sequence; or to each part of it, where all are named like "light_2/crowd_0".

        What the parts of one place are called is what their names have in common: "light", "crowd".
        """
        parts = list(zip(*(str(label).split("/") for label in self.roll.sequences), strict=False))
        apart = len({str(label).count("/") for label in self.roll.sequences}) == 1 and len(parts) > 1
        if not apart:
            return {"sequence": self.groups("sequence")}
        return {_kind(names, place): _members(names) for place, names in enumerate(parts)}

    @property
    def joints(self) -> dict[str, tuple[float, float]]:
        """Mean error of each counted joint, as it is and after the best similarity, mm."""
        errors, answered = self.found.errors, self.found.answered
        means = (values[answered].double().mean(0).tolist() for values in (errors.joints_mm, errors.pa_joints_mm))
        return dict(zip(JOINTS14, zip(*means, strict=True), strict=True))


def _kind(names: Sequence[str], place: int) -> str:
    """What the parts of sequences' names at one place tell of."""
    kinds = {name.rpartition("_")[0] for name in names}
    return kinds.pop() if len(kinds) == 1 and kinds != {""} else f"part {place + 1} of the sequence"


def _members(names: Sequence[str]) -> dict[str, Bool[Tensor, "N"]]:
    labels = np.array(names)
    return {str(label) or NOT_TOLD: torch.from_numpy(labels == label) for label in np.unique(labels)}


@dataclass(frozen=True)
class Sheet:
    """A table: its headings, and its rows of text."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def table(self) -> Table:
        """For the terminal."""
        table = Table(title=escape(self.title))
        for column, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if column else "left", no_wrap=column == 0, overflow="fold")
        for row in self.rows:
            table.add_row(*map(escape, row))
        return table


def mean_of(values: Float[Tensor, "N"]) -> float:
    """The mean of what is finite; NaN where nothing is."""
    finite = values[values.isfinite()]
    return float(finite.double().mean()) if len(finite) else math.nan


def sheets_of(evaluations: Sequence[RecordEvaluation], published: bool = False) -> list[Sheet]:
    """Of branches that were asked for the same people: the main table, the joints', and one for each kind of levels."""
    kinds = [kind for kind, groups in evaluations[0].levels.items() if len(groups) > 1]
    return [
        main_sheet(evaluations, published),
        joint_sheet(evaluations),
        *(level_sheet(evaluations, kind) for kind in kinds),
    ]


def main_sheet(evaluations: Sequence[RecordEvaluation], published: bool = False) -> Sheet:
    """A row for each branch on each data set, and on all where there are several; then what others published."""
    rows = []
    for evaluation in evaluations:
        groups = evaluation.groups("dataset")
        groups |= {"all": evaluation.everybody} if len(groups) > 1 else {}
        rows += [_row(evaluation, f"{evaluation.branch} on {name}", whom) for name, whom in groups.items()]
    theirs = [_published_row(each) for each in PUBLISHED] if published else []
    people, protocol = len(evaluations[0].roll), evaluations[0].protocol.name
    title = f"{people:,} people by the protocol of {protocol}, errors in mm"
    return Sheet(title, ("", "people", "no answer", *FIGURES.values()), (*rows, *theirs))


def _row(evaluation: RecordEvaluation, name: str, whom: Bool[Tensor, "N"]) -> tuple[str, ...]:
    missing = int((whom & ~evaluation.found.answered).sum())
    figures = evaluation.figures(whom).values()
    return (name, f"{int(whom.sum()):,}", str(missing), *map(_told, figures))


def _published_row(theirs: Published) -> tuple[str, ...]:
    figures = [_told(math.nan if getattr(theirs, name, None) is None else getattr(theirs, name)) for name in FIGURES]
    return (f"published: {theirs.method}", "-", "-", *figures)


def joint_sheet(evaluations: Sequence[RecordEvaluation]) -> Sheet:
    """A row for each joint that counts."""
    whose = [f"{evaluation.branch}, " * (len(evaluations) > 1) for evaluation in evaluations]
    headings = [name + what for name in whose for what in ("about the pelvis", "after the best similarity")]
    found = [evaluation.joints for evaluation in evaluations]
    rows = tuple((joint, *(_told(error) for joints in found for error in joints[joint])) for joint in JOINTS14)
    return Sheet("per joint, mm", ("joint", *headings), rows)


def level_sheet(evaluations: Sequence[RecordEvaluation], kind: str) -> Sheet:
    """A row for each branch at each level of a kind."""
    several = len(evaluations) > 1
    rows = tuple(
        _row(evaluation, f"{name}: {evaluation.branch}" if several else name, whom)
        for name, whom in evaluations[0].levels[kind].items()
        for evaluation in evaluations
    )
    return Sheet(f"per {kind}, mm", (kind, "people", "no answer", *FIGURES.values()), rows)


def protocol_lines(evaluation: RecordEvaluation) -> list[str]:
    """What the figures mean, a line for each choice."""
    protocol = evaluation.protocol
    genders = ", ".join(f"{gender}: {body}" for gender, body in protocol.truth_bodies.items())
    whose = (
        "men's and women's own bodies" if protocol.gendered else "the body of the answers for everybody (not gendered)"
    )
    return [
        f"protocol {protocol.name}, {protocol.average}",
        f"truth: {whose}; {genders}",
        f"answers: {protocol.body}",
        f"joints: {protocol.regressor}, applied to the vertices of both; root {protocol.root}",
        f"counted: {', '.join(protocol.joints)}",
        f"PA-MPJPE: {protocol.pa_mpjpe}",
        f"PVE: {protocol.pve}; every vertex counts the same",
        "MPJPE 17 and PA 17: of all 17 joints, the pelvis among them; N-MPJPE: after the best scale",
        "2D px: mean distance of the counted joints in the photograph, where the true place is known",
        "COCO px: mean distance of COCO-17's joints from where those of the true body are projected, of all that lie "
        "in the photograph, hidden ones too",
        "COCO %: the same in hundredths of the longer side of the person's box",
        *(
            [f"{evaluation.roll.left_out:,} records without SMPL truth were not asked for"]
            * bool(evaluation.roll.left_out)
        ),
    ]


def tell(evaluations: Sequence[RecordEvaluation], published: bool, per_joint: bool, console: Console) -> None:
    """The tables, what they mean, and who has no answer."""
    main, joints, *groups = sheets_of(evaluations, published)
    for sheet in (main, *([joints] if per_joint else []), *groups):
        console.print(sheet.table())
    lines = protocol_lines(evaluations[0]) + ([PUBLISHED_NOTE] if published else [])
    console.print(escape("\n".join(lines)), soft_wrap=True)
    for evaluation in evaluations:
        _tell_answers(evaluation, f"{evaluation.branch}: " * (len(evaluations) > 1), console)


def _tell_answers(evaluation: RecordEvaluation, whose: str, console: Console) -> None:
    """Who has no answer, and how fast the others came."""
    problems, people = evaluation.found.problems, len(evaluation.roll)
    for problem in problems[:MOST_PROBLEMS]:
        console.print(f"[red]{escape(whose + problem)}[/red]", soft_wrap=True)
    if evaluation.unanswered:
        told = f"{whose}{evaluation.unanswered} of {people} people have no answer, and are in no mean"
        console.print(f"[yellow]{escape(told)}[/yellow]", soft_wrap=True)
    console.print(escape(f"{whose}{people / max(evaluation.found.seconds, 1e-9):,.1f} people a second"))


def record_of(evaluations: Sequence[RecordEvaluation], asked: Asked) -> dict[str, Any]:
    """Everything, for JSON; of several branches a list of what it is of each, `branches`."""
    records = [_branch_record(evaluation, asked) for evaluation in evaluations]
    return records[0] if len(records) == 1 else {"meshrec": version("meshrec"), "branches": records}


def _branch_record(evaluation: RecordEvaluation, asked: Asked) -> dict[str, Any]:
    """What was found of a branch: null where there is no number; names carry their units."""
    roll, found = evaluation.roll, evaluation.found
    return {
        "meshrec": version("meshrec"),
        "branch": evaluation.branch,
        "mesh_weights": asked.options.mesh_weights,
        "flip": asked.options.flip,
        "precision": asked.options.precision,
        "prior": asked.prior,
        "frames_at_most": asked.frames,
        "protocol": asdict(evaluation.protocol),
        "data": [_data_record(evaluation, index) for index in range(len(roll.records))],
        "people": len(roll),
        "unanswered": evaluation.unanswered,
        "without_truth": roll.left_out,
        "problems": list(found.problems),
        "seconds": _plain(found.seconds),
        "figures": {name: _summary(getattr(found.errors, name)) for name in FIGURES},
        "per_dataset": _group_records(evaluation, "dataset", evaluation.groups("dataset")),
        "per_sequence": _group_records(evaluation, "sequence", evaluation.groups("sequence")),
        "per_level": {
            kind: _group_records(evaluation, "level", groups)
            for kind, groups in evaluation.levels.items()
            if kind != "sequence"
        },
        "per_joint": [
            {"joint": joint, "mpjpe_mm": _plain(plain), "pa_mpjpe_mm": _plain(aligned)}
            for joint, (plain, aligned) in evaluation.joints.items()
        ],
        "published": [asdict(theirs) for theirs in PUBLISHED] if asked.options.published else [],
    }


def _data_record(evaluation: RecordEvaluation, index: int) -> dict[str, Any]:
    records = evaluation.roll.records[index]
    return {
        "path": str(records.path),
        "name": records.name,
        "split": records.split,
        "fingerprint": records.fingerprint,
        "records": len(records),
    }


def _group_records(
    evaluation: RecordEvaluation, what: str, groups: Mapping[str, Bool[Tensor, "N"]]
) -> list[dict[str, Any]]:
    return [
        {
            what: name,
            "people": int(whom.sum()),
            "unanswered": int((whom & ~evaluation.found.answered).sum()),
            **{figure: _plain(value) for figure, value in evaluation.figures(whom).items()},
        }
        for name, whom in groups.items()
    ]


def _summary(values: Float[Tensor, "N"]) -> dict[str, Any]:
    """Mean, median, the value that 95 in 100 stay below, and how many have one."""
    finite = values[values.isfinite()].double().numpy()
    shares = np.quantile(finite, [0.5, 0.95]) if len(finite) else (math.nan, math.nan)
    return {
        "mean": _plain(mean_of(values)),
        "median": _plain(float(shares[0])),
        "p95": _plain(float(shares[1])),
        "people": len(finite),
    }


def _plain(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _told(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "-"


def worst_first(evaluation: RecordEvaluation) -> Sequence[int]:
    """People who have an answer, the greatest PA-MPJPE first."""
    errors = evaluation.found.errors.pa_mpjpe_mm
    order = errors.nan_to_num(-1.0).argsort(descending=True, stable=True)
    return [person for person in order.tolist() if errors[person].isfinite()]
