"""Ship a trained lifter: its weights in half precision, and a card that says what it is and how good.

    python tools/publish_lifter.py runs/lift train.npz extra_idle_mit.npz --table out/lift/table.json

The weights are measured again as they will be read, on the held-out subjects of the run.
"""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from fit_priors import ACKNOWLEDGEMENT, best_file, checksum
from lift_experiment import figures_of, questions
from rich.console import Console
from tyro.conf import Positional

from meshrec.config import read_config
from meshrec.data.views import open_views
from meshrec.files import write_text
from meshrec.models.lifter_file import read_lifter, write_lifter
from meshrec.train.lift import LiftRun

WEIGHTS = Path(__file__).parents[1] / "meshrec" / "weights"


@dataclass(frozen=True)
class Publication:
    """What is shipped, and what its card tells."""

    run: Positional[Path]
    """The folder of a training run, whose best model is shipped."""
    data: Positional[tuple[Path, ...]]
    """What it was trained on; its held-out subjects are measured."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = WEIGHTS
    name: str = "lift"
    tables: tuple[Path, ...] = ()
    """Tables of tools/lift_experiment.py for the card."""
    views: int = 39_624
    """Held-out views to measure on."""


def card_of(publication: Publication, best: Path, weights: Path) -> dict[str, Any]:
    """Everything that a user should know of the weights."""
    config = read_config(publication.run / "config.yaml", LiftRun)
    _, held_out = open_views(publication.data, config.cameras, config.held_out)
    asked = questions(held_out, publication.views)
    return {
        "name": publication.name,
        "what": "17 joints (H36M-17) in 3D from their 2D places, for meshrec lift; meshrec.models.lifter_file reads it",
        "licence": "Apache-2.0",
        "acknowledgement": ACKNOWLEDGEMENT,
        "learned_from": "2D poses alone" if config.unsupervised else "2D poses and their 3D truth",
        "never_trained_on": config.held_out,
        "trained_on": [f"{path.name} sha256 {checksum(path)}" for path in publication.data],
        "how": plain(asdict(config)) | {"data": []},
        "best_after": best.stem,
        "measured_how": "PA-MPJPE in mm (17 joints, proper rotation) of synthetic views of the held-out subjects: true "
        "2D, cameras 4 to 6 m away all around, zero variance, not averaged with the mirror image unless it says so; "
        "with 5 px of noise on people 1000 px tall; with three limb joints missing; without spine, face and head; the "
        "mean of ten samples and the best of them, which only the truth can tell. Settings were chosen on these "
        "subjects, so the figures are slightly optimistic",
        "measured": {name: round(value, 2) for name, value in figures_of(weights, asked).items()},
        "experiments": [json.loads(path.read_text(encoding="utf-8")) for path in publication.tables],
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }


def plain(value: Any) -> Any:
    """What JSON can hold."""
    return json.loads(json.dumps(value, default=str))


def main(publication: Publication) -> int:
    """Write the weights and the card beside them."""
    best = best_file(publication.run)
    weights = write_lifter(publication.output / f"{publication.name}.safetensors", read_lifter(best))
    card = card_of(publication, best, weights)
    write_text(publication.output / f"{publication.name}.json", json.dumps(card, indent=2) + "\n")
    Console().print(card["measured"])
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Publication, description=__doc__)))
