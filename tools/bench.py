"""How fast meshrec is: every row is measured against a peer in the same run, in turn with it.

    python tools/bench.py
    python tools/bench.py body fit.people_per_second --repeats 5 --json

Times are medians over the repeats, after a warm-up; a ratio above 1 means that ours is better.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import tyro
from benchmarks import bodies, errors, fits, lift, loader, mesh, photographs, pictures, priors, synthetic
from benchmarks.clock import Figure
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

PAGE = 150
"""Width of the table, in characters, where it goes to no terminal."""


@dataclass(frozen=True)
class Case:
    """What a row measures, and what it has to reach."""

    measure: Callable[[int], Figure]
    ratio: float = 0.0
    """At least."""
    least: float = 0.0
    """Ours, in its unit."""
    most: float = float("inf")

    def met(self, figure: Figure) -> bool:
        """Whether the figure is as good as it has to be."""
        return self.least <= figure.ours <= self.most and (figure.ratio or 0.0) >= self.ratio

    @property
    def goal(self) -> str:
        """In words; empty where there is none."""
        goals = [f"ratio >= {self.ratio:g}"] if self.ratio else []
        goals += [f">= {self.least:g}"] if self.least else []
        return ", ".join(goals + ([f"<= {self.most:g}"] if self.most < float("inf") else []))


CASES = {
    "body.kinematics.b1": Case(partial(bodies.kinematics, 1)),
    "body.kinematics.b32": Case(partial(bodies.kinematics, 32)),
    "body.kinematics.b256": Case(partial(bodies.kinematics, 256), ratio=60),
    "body.regressed.b1": Case(partial(bodies.regressed, 1)),
    "body.regressed.b32": Case(partial(bodies.regressed, 32)),
    "body.regressed.b256": Case(partial(bodies.regressed, 256), ratio=9),
    "body.full.b1": Case(partial(bodies.full, 1)),
    "body.full.b32": Case(partial(bodies.full, 32)),
    "body.full.b256": Case(partial(bodies.full, 256), ratio=3),
    "body.full_dense.b256": Case(partial(bodies.full_dense, 256), ratio=1.5),
    "metrics.pa_mpjpe.100k": Case(errors.pa_mpjpe, ratio=50),
    "fit.people_per_second": Case(fits.against_adam, least=40),
    "fit.lbfgs": Case(fits.against_lbfgs, least=40),
    "priors.energy.flow": Case(priors.flow_energy, ratio=1),
    "priors.energy.paper": Case(priors.paper_energy, ratio=1),
    "priors.training.paper": Case(priors.paper_training, least=300),
    "lift.inference": Case(partial(lift.inference, "float32"), ratio=0.95),
    "lift.inference.bfloat16": Case(partial(lift.inference, "bfloat16"), ratio=2.3),
    "lift.bfloat16_loss": Case(lift.bfloat16_loss, most=0.1),
    "lift.training": Case(lift.training, ratio=1),
    "loader.stored_crops": Case(loader.stored_crops, ratio=4),
    "mesh.inference": Case(partial(mesh.inference, "float32", 1), ratio=1.3),
    "mesh.inference.several": Case(partial(mesh.inference, "float32", mesh.CROPS), ratio=1.3),
    "mesh.inference.bfloat16": Case(partial(mesh.inference, "bfloat16", mesh.CROPS), ratio=1.8),
    "mesh.inference.difference": Case(mesh.difference, most=1e-5),
    "mesh.onnx": Case(mesh.onnx, ratio=1),
    "render.224": Case(pictures.against_numpy, most=2),
    "render.224.trimesh": Case(pictures.against_trimesh, most=2),
    "synthetic.people": Case(synthetic.people, least=60),
    "recover.photo_warm": Case(photographs.photo_warm, most=1.5),
    "recover.detect": Case(photographs.detect),
    "recover.fit": Case(photographs.fit),
    "recover.overlay": Case(photographs.drawing),
    "recover.files": Case(photographs.files),
    "recover.peak_memory": Case(photographs.peak_memory),
}


def main(
    only: Positional[tuple[str, ...]] = (), repeats: int = 7, threads: int | None = None, json: bool = False
) -> int:
    """Measure, and print a table.

    Args:
        only: Rows whose names begin so; by default all.
        repeats: Rounds of ours and the peer; slow peers take part in fewer.
        threads: Of torch; by default as many as torch takes.
        json: Print a list of rows instead.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    names = [name for name in CASES if not only or name.startswith(only)]
    console = Console(stderr=json, width=None if sys.stdout.isatty() else PAGE)
    if not names:
        console.print(f"No row begins with {' or '.join(only)}; there are {', '.join(CASES)}.")
        return 1
    figures = {}
    for name in names:
        with Console(stderr=True).status(name):
            figures[name] = CASES[name].measure(repeats)
    if json:
        _print_json(figures)
    else:
        console.print(_table(figures))
    return 0


def _print_json(figures: dict[str, Figure]) -> None:
    rows = [_record(name, figure) for name, figure in figures.items()]
    sys.stdout.write(json.dumps(rows, indent=1, allow_nan=False) + "\n")


def _record(name: str, figure: Figure) -> dict[str, object]:
    return {
        "name": name,
        "ours": figure.ours,
        "peer": figure.peer,
        "ratio": figure.ratio,
        "unit": figure.unit,
        "peer_name": figure.peer_name,
        "threads": torch.get_num_threads(),
        "goal": CASES[name].goal,
        "met": CASES[name].met(figure),
        "note": figure.note,
    }


def _table(figures: dict[str, Figure]) -> Table:
    title = f"meshrec against its peers: torch {torch.__version__}, {torch.get_num_threads()} threads"
    table = Table(title=title, caption=f"load of the machine {os.getloadavg()[0]:.1f}")
    for heading in ("row", "ours", "peer", "unit", "ratio", "goal", "", "peer, note"):
        number = heading in ("ours", "peer", "ratio")
        table.add_column(heading, justify="right" if number else "left", no_wrap=heading != "peer, note")
    for name, figure in figures.items():
        case = CASES[name]
        verdict = "" if not case.goal else "[green]met[/green]" if case.met(figure) else "[red]missed[/red]"
        words = "; ".join(text for text in (figure.peer_name, figure.note) if text)
        ours, peer, ratio = map(_number, (figure.ours, figure.peer, figure.ratio))
        table.add_row(name, ours, peer, figure.unit, ratio, case.goal, verdict, words)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
