"""Ship a trained mesh regressor: its weights in half precision, and a card that says what it is and how good.

    meshrec synthesize --benchmark -o benchmark
    python tools/publish_mesh.py runs/mesh_joints --benchmarks benchmark --sources train.npz

The weights are measured as they will be read, alone and with the fit, beside the fit alone.
"""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from fit_priors import ACKNOWLEDGEMENT, best_file, checksum
from publish_lifter import WEIGHTS, plain
from rich.console import Console
from tyro.conf import Positional

from meshrec.body import load_body_model
from meshrec.branches.registry import MeshChoice, build_branch
from meshrec.config import read_config
from meshrec.data.records import open_records
from meshrec.files import write_text
from meshrec.models.mesh_file import read_regressor, write_regressor
from meshrec.models.regressor import MeshNetConfig
from meshrec.prior_files import DEFAULT_PRIOR
from meshrec.record_evaluation import TruthBodies, measured, protocol_of, roll_of
from meshrec.record_report import RecordEvaluation
from meshrec.train.mesh import MeshRun

NAMED_ELSEWHERE = {"data": (), "validation": (), "start": None}
"""Paths of the machine that trained, of which the card tells otherwise or nothing."""

BRANCHES = ("mesh", "mesh+fit", "fit")


@dataclass(frozen=True)
class Publication:
    """What is shipped, and what its card tells."""

    run: Positional[Path]
    """The folder of a training run, whose best model is shipped."""
    benchmarks: tuple[Path, ...]
    """Folders of records to measure on."""
    sources: tuple[Path, ...] = ()
    """Files of motion that the run drew poses from, for the card."""
    backgrounds: str = ""
    """What the pictures behind people were, for the card."""
    people: int | None = None
    """Of each benchmark, evenly spread; by default all."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = WEIGHTS
    name: str = "mesh"


def scores(weights: Path, records: Path, people: int | None, console: Console) -> dict[str, dict[str, Any]]:
    """The figures of each branch on the same people, in all and at each level."""
    model, roll = load_body_model(), roll_of([open_records(records)], people)
    truth = TruthBodies(model, roll.genders, False)
    protocol, found = protocol_of("3dpw", truth), {}
    for name in BRANCHES:
        choice = MeshChoice(str(weights)) if name != "fit" else MeshChoice()
        branch = build_branch(name, model, DEFAULT_PRIOR, choice)
        evaluation = RecordEvaluation(name, protocol, roll, measured(branch, truth, roll))
        levels = {
            kind: {level: rounded(evaluation.figures(whom)) for level, whom in groups.items()}
            for kind, groups in evaluation.levels.items()
            if kind != "sequence"
        }
        found[name] = {**rounded(evaluation.figures(evaluation.everybody)), "unanswered": evaluation.unanswered}
        console.print(records.name, name, found[name])
        found[name] |= levels
    return found


def seen(network: MeshNetConfig) -> str:
    """What a network looks at."""
    return "a person's detected joints" if network.backbone == "none" else "a person's crop: edges and detected joints"


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """To what is worth telling."""
    return {name: round(value, 2) for name, value in figures.items()}


def training_of(run: Path, batch: int) -> dict[str, float]:
    """How long a run has gone on, by its log."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    speeds = [(line["step"], line["examples_per_s"]) for line in lines if "examples_per_s" in line]
    steps = [step for step, _ in speeds]
    seconds = sum(
        (step - before) * batch / speed
        for before, (step, speed) in zip([0, *steps[:-1]], speeds, strict=True)
        if step > before
    )
    return {"steps": max(steps), "people": max(steps) * batch, "hours": round(seconds / 3600, 2)}


def card_of(publication: Publication, best: Path, weights: Path, console: Console) -> dict[str, Any]:
    """Everything that a user should know of the weights."""
    config = read_config(publication.run / "config.yaml", MeshRun)
    people = replace(config.synthetic, mocap=(), backgrounds=None)
    benchmarks = publication.benchmarks
    return {
        "name": publication.name,
        "what": f"{seen(config.network)}, to SMPL's parameters; meshrec.models.mesh_file reads it",
        "licence": "Apache-2.0",
        "acknowledgement": ACKNOWLEDGEMENT,
        "trained_on": "synthetic people alone: the shipped body, poses of the prior `flow`, of motion and of key poses",
        "motion": [f"{path.name} sha256 {checksum(path)}" for path in publication.sources],
        "backgrounds": publication.backgrounds,
        "never_trained_on": list(config.synthetic.without),
        "how": plain(asdict(replace(config, **NAMED_ELSEWHERE, synthetic=people))),
        "training": training_of(publication.run, config.loop.batch),
        "best_after": best.stem,
        "measured_how": "3DPW's protocol (14 joints by the H36M regressor, mm; PVE; coco17_px is the error of "
        "reprojected joints in pixels of the photograph) on SYNTHETIC people with true boxes and joints as a detector "
        "finds them",
        "measured": {path.name: scores(weights, path, publication.people, console) for path in benchmarks},
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }


def main(publication: Publication) -> int:
    """Write the weights and the card beside them."""
    console, best = Console(), best_file(publication.run)
    weights = write_regressor(publication.output / f"{publication.name}.safetensors", read_regressor(best))
    card = card_of(publication, best, weights, console)
    write_text(publication.output / f"{publication.name}.json", json.dumps(card, indent=2) + "\n")
    console.print(f"{weights}: {weights.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Publication, description=__doc__)))
