"""The tools that make and compare priors: what is published is what was measured, on the same people for all."""

import hashlib
import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from meshrec.data.motion import Motion
from meshrec.data.poses import write_collection
from meshrec.errors import MeshrecError
from meshrec.prior_files import read_prior

TOOLS = Path(__file__).parent.parent / "tools"
PEOPLE = {"a": 300, "b": 200, "c": 150, "02": 120}


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("fit_priors")


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("prior_experiment")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("capture") / "made"
    write_collection(path, [motion(name, frames) for name, frames in PEOPLE.items()], "float32", "made up")
    return path


def motion(subject: str, frames: int) -> Motion:
    random = np.random.default_rng(frames)
    swing = np.sin(np.linspace(0, 20, frames))[:, None, None] * random.normal(0, 0.3, (1, 24, 3))
    vectors = swing + random.normal(0, 0.05, (frames, 24, 3))
    return Motion("walk", subject, "made", 30.0, vectors, np.zeros((frames, 3)), np.ones(frames, bool))


def test_a_published_gaussian_is_what_its_card_says(tool, folder, tmp_path):
    recipe = tool.Recipe(held_out=("02",), poses_made=400)
    tool.command((folder,), recipe, tmp_path, gaussian=True, folds=2)
    card = json.loads((tmp_path / "prior_gaussian.json").read_text())
    path = tmp_path / "prior_gaussian.safetensors"
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["measured"]["held_out"]["frames"] == PEOPLE["02"]
    assert card["measured"]["fitted"]["frames"] == sum(PEOPLE.values()) - PEOPLE["02"]
    collection = tool.open_poses((folder,))
    again = tool.measured(read_prior(path), collection, collection.rows({"02"}), 0.03)
    assert again["nll"] == pytest.approx(card["measured"]["held_out"]["nll"], abs=0.05)
    assert card["measured"]["fitted"]["score_mean"] > 0.5


def test_a_run_is_published_with_its_best_weights(tool, folder, tmp_path):
    from meshrec.cli import main

    (tmp_path / "a.yaml").write_text(
        "task: prior\nposes: {held_out: ['02']}\nprior: {flow: {depth: 1, hidden: 4}}\n"
        "loop: {steps: 4, batch: 8, validate_every: 2}\n"
    )
    words = ["train", str(tmp_path / "a.yaml"), "--data", str(folder), "-o", str(tmp_path / "run"), "--device", "cpu"]
    assert main(words) == 0
    tool.command((folder,), tool.Recipe(), tmp_path, runs={"tiny": tmp_path / "run"}, folds=2, fold_steps=2)
    card = json.loads((tmp_path / "prior_tiny.json").read_text())
    assert card["never_fitted"] == ["02"]
    prior = read_prior(tmp_path / "prior_tiny.safetensors")
    assert prior.energy_quantiles.diff().min() >= 0 and prior.energy_quantiles[-1] > prior.energy_quantiles[0]
    with pytest.raises(MeshrecError, match="holds no best model"):
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "config.yaml").write_text("task: prior\n")
        tool.command((folder,), tool.Recipe(), tmp_path, runs={"none": tmp_path / "empty"})


def test_every_training_holds_out_the_same_people(tool):
    for file in sorted((TOOLS.parent / "configs").glob("prior_*.yaml")):
        assert tool.read_config(file, tool.PriorRun).poses.held_out == tool.VALIDATION, file


def test_weighted_quantiles_are_numpys_where_weights_are_equal(tool):
    values = np.random.default_rng(0).normal(size=4001)
    table = tool.weighted_quantiles(values, np.full(4001, 1 / 4001)).numpy()
    np.testing.assert_allclose(table, np.quantile(values, np.linspace(0, 1, len(table))), atol=1e-9)
    doubled = tool.weighted_quantiles(np.array([0.0, 1.0, 2.0]), np.array([0.25, 0.5, 0.25]))
    assert doubled[len(doubled) // 2] == 1.0


def test_still_joints_cost_the_entropy_of_their_jitter(tool, folder):
    collection = tool.open_poses((folder,))
    still, degrees = tool.motion(collection, collection.rows())
    assert (still, degrees) == (0, 69)


def test_an_experiment_compares_priors_on_the_same_people(experiment, folder, tmp_path):
    setting = experiment.Setting(people=3, tuning_people=2, weights=(1.0,), subjects=("a", "b"))
    with torch.no_grad():
        priors = dict(map(experiment.opened, ("none", "gaussian")))
        results = list(experiment.experiment(priors, setting, [folder]))
    assert [(result.prior, result.loss) for result in results] == [
        (name, loss) for name in ("none", "gaussian") for loss in ("KA", "KA+BA")
    ]
    assert all(len(result.mpvpe_mm) == 3 and result.row["mpvpe_mm"] > 0 for result in results)
    assert results[0].prior_weight == 0.0 and results[2].prior_weight == 1.0
    pytest.importorskip("matplotlib")
    experiment.draw([result.row for result in results], tmp_path / "bars.png")
    assert (tmp_path / "bars.png").stat().st_size > 5000
