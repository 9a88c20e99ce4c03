"""What became of photographs: the table of `recover`, its sentences, and its JSON."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

COLUMNS = ("photo", "person", "seen", "off by", "plausible", "converged", "depth", "seconds")


@dataclass(frozen=True)
class Outcome:
    """What became of one photograph."""

    photo: Path
    folder: Path
    seconds: float = 0.0
    record: dict | None = None
    error: str = ""


def tell(outcomes: list[Outcome], problems: Sequence[str], output: Path, console: Console, as_json: bool) -> None:
    """A table of the people, a sentence for each thing that failed, and where the results lie."""
    if as_json:
        _print_json(outcomes, problems)
    if any(outcome.record for outcome in outcomes):
        console.print(_table(outcomes))
    for error in (*problems, *(outcome.error for outcome in outcomes if outcome.error)):
        console.print(f"[red]{escape(error)}[/red]", soft_wrap=True)
    for outcome in outcomes:
        if outcome.record and outcome.record["left_out"]:
            few = f"{outcome.photo}: too little is seen of {outcome.record['left_out']} more to place a body"
            console.print(f"[yellow]{escape(few)}[/yellow]", soft_wrap=True)
    done = sum(outcome.record is not None for outcome in outcomes)
    where = f"; results are in {output}" if done else ""
    console.print(escape(f"{done} of {len(outcomes)} photographs recovered{where}"), soft_wrap=True)


def _table(outcomes: Sequence[Outcome]) -> Table:
    """A row for each person; what the branch says of nobody has no column."""
    rows = [
        _row(outcome, index, person)
        for outcome in outcomes
        for index, person in enumerate(outcome.record["people"] if outcome.record else [])
    ]
    table = Table(title="recovered")
    told = [column for column, cells in enumerate(zip(*rows, strict=True)) if set(cells) != {"-"}]
    for column in told:
        table.add_column(COLUMNS[column], no_wrap=COLUMNS[column] != "photo", overflow="fold")
    for row in rows:
        table.add_row(*(row[column] for column in told))
    return table


def _row(outcome: Outcome, index: int, person: dict) -> list[str]:
    """A person's cells, as `COLUMNS` has them; "-" is for what the branch does not say."""
    report, seen = person.get("report", {}), person["joints17_seen"]
    off_px, plausible, root_m = report.get("reprojection_px"), report.get("plausibility"), person["root_m"]
    return [
        outcome.photo.name if index == 0 else "",
        str(index),
        f"{sum(seen)} of {len(seen)}",
        "-" if off_px is None else f"{off_px:.1f} px",
        "-" if plausible is None else f"{plausible:.0%}",
        {True: "yes", False: "no", None: "-"}[report.get("converged")],
        "-" if root_m is None else f"{root_m[2]:.1f} m",
        f"{outcome.seconds:.1f}" if index == 0 else "",
    ]


def _print_json(outcomes: list[Outcome], problems: Sequence[str]) -> None:
    """Results and failures on standard output."""
    results = [{"folder": str(outcome.folder), **outcome.record} for outcome in outcomes if outcome.record]
    failures = [{"photo": str(outcome.photo), "error": outcome.error} for outcome in outcomes if outcome.error]
    failures += [{"photo": None, "error": problem} for problem in problems]
    sys.stdout.write(json.dumps({"results": results, "failed": failures}, indent=1, allow_nan=False) + "\n")
