"""How good branches are on records: people in pictures whose bodies are known."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from meshrec.body import load_body_model
from meshrec.branches.mesh import MeshConfig
from meshrec.branches.registry import MESH_BUILDERS, Branch, MeshChoice, build_branch
from meshrec.data.records import open_records
from meshrec.errors import MeshrecError
from meshrec.evaluation_report import console_of, give, progress
from meshrec.files import make_folder, write_text
from meshrec.record_evaluation import TruthBodies, measured, protocol_of, roll_of
from meshrec.record_page import page
from meshrec.record_report import Asked, RecordEvaluation, record_of, tell


def evaluate_records(asked: Asked, per_joint: bool, json: bool, report: Path | None) -> int:
    """Measure branches on the same people of records, and tell it."""
    options = asked.options
    for path in (report, options.page):
        if path is not None:
            make_folder(path.parent)
    console = console_of()
    roll = roll_of([open_records(path) for path in asked.data], asked.frames)
    model = load_body_model(asked.body)
    truth = TruthBodies(model, roll.genders, options.gendered)
    protocol = protocol_of(options.protocol, truth)
    branches = [build_branch(name, model, asked.prior, _choice(name, asked)) for name in _names(asked)]
    evaluations = []
    for branch in branches:
        with progress(console, len(roll), f"people answered by {branch.name}") as advance:
            found = measured(branch, truth, roll, advance)
        evaluations.append(RecordEvaluation(branch.name, protocol, roll, found))
    tell(evaluations, options.published, per_joint, console)
    silent = [evaluation.branch for evaluation in evaluations if evaluation.unanswered == len(roll)]
    if len(silent) < len(evaluations):
        _give(evaluations, branches, truth, asked, json, report, console)
    if silent:
        raise MeshrecError(f"The branch {' and '.join(silent)} answered none of the {len(roll)} people.")
    return 0


def _give(
    evaluations: Sequence[RecordEvaluation],
    branches: Sequence[Branch],
    truth: TruthBodies,
    asked: Asked,
    json: bool,
    report: Path | None,
    console: Console,
) -> None:
    """The files that were asked for."""
    give(record_of(evaluations, asked), json, report, console)
    if (path := asked.options.page) is not None:
        text = page(evaluations, branches, truth, asked.options.published)
        console.print(escape(f"wrote {write_text(path, text)}"), soft_wrap=True)


def _names(asked: Asked) -> tuple[str, ...]:
    if len(set(asked.branches)) < len(asked.branches):
        raise MeshrecError(f"--branch {','.join(asked.branches)} names a branch twice: name each once.")
    return asked.branches


def _choice(name: str, asked: Asked) -> MeshChoice:
    """What is asked of a branch; of several that which a branch with no network has no use for is not asked of it."""
    options = asked.options
    choice = MeshChoice(options.mesh_weights, MeshConfig(precision=options.precision, flip=options.flip))
    useless = name not in MESH_BUILDERS and any(other in MESH_BUILDERS for other in asked.branches)
    return MeshChoice() if useless else choice
