"""The tools that compare and publish lifters: variants differ in what they name, and cards tell what was measured."""

import hashlib
import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from joint_writers import people_m, write_capture

from meshrec.config import flat_settings
from meshrec.models.lifter_file import read_lifter
from meshrec.train.lift import LiftRun

TOOLS = Path(__file__).parent.parent / "tools"


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("lift_experiment")


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("publish_lifter")


def setting_of(experiment: ModuleType, data: tuple[Path, ...] = (), output: Path = Path("out")):
    return experiment.Setting(data, output, ("best", "thesis"), steps=4, hidden=8, precision="float32", views=30)


def test_a_variant_differs_in_what_it_names_and_in_nothing_else(experiment):
    setting = setting_of(experiment)
    best = flat_settings(experiment.recipe("best", 0, setting))
    for name, (file, changes) in experiment.VARIANTS.items():
        other = flat_settings(experiment.recipe(name, 0, setting))
        if file == "lift":
            assert {key for key in best if best[key] != other[key]} == set(changes), name
        assert {key: other[key] for key in changes} == changes, f"{name} changes nothing"


def test_the_thesis_is_the_default_but_for_who_is_held_out_and_how_long(experiment):
    config = experiment.recipe("thesis", 0, setting_of(experiment))
    free = flat_settings(replace(config, loop=LiftRun().loop, beta=LiftRun().beta, held_out=(), select_by="loss"))
    lifter = {key: value for key, value in flat_settings(LiftRun()).items() if key != "lifter.hidden"}
    assert {key: free[key] for key in lifter} == lifter
    assert (config.loop.optimizer.learning_rate, config.loop.optimizer.clip_norm) == (2e-4, 2.0)
    assert (config.loop.optimizer.kind, config.loop.optimizer.betas) == ("adam", (0.9, 0.999))


def test_the_cycle_goes_with_the_steps_as_with_the_epochs(experiment):
    config = experiment.recipe("thesis", 0, replace(setting_of(experiment), steps=4000))
    assert (config.beta.wait, config.beta.rise, config.beta.hold) == (100, 300, 100)


def test_what_is_published_is_what_was_measured(experiment, publisher, tmp_path):
    held_out = experiment.recipe("best", 0, setting_of(experiment)).held_out
    clips = [(f"walk {name}", name, people_m(12, seed)) for seed, name in enumerate(("a", "b", *held_out))]
    data = (write_capture(tmp_path / "poses.npz", clips),)
    setting = setting_of(experiment, data, tmp_path / "out")
    assert experiment.main(setting) == 0
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert list(table["pa_mpjpe_mm"]) == ["best", "thesis"]
    assert (tmp_path / "out" / "table.png").read_bytes().startswith(b"\x89PNG")
    measured = table["pa_mpjpe_mm"]["best"][0]
    assert set(experiment.FIGURES) < set(measured)
    assert measured["best_of_10"] < measured["sample"]
    publication = publisher.Publication(
        tmp_path / "out" / "best_0", data, tmp_path, "lift_made", (tmp_path / "out" / "table.json",), views=30
    )
    assert publisher.main(publication) == 0
    weights, card = tmp_path / "lift_made.safetensors", json.loads((tmp_path / "lift_made.json").read_text())
    assert card["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert card["learned_from"] == "2D poses alone"
    assert tuple(card["never_trained_on"]) == held_out
    assert card["experiments"] == [table]
    assert read_lifter(weights).config == experiment.recipe("best", 0, setting).lifter
    assert card["measured"]["clean"] == pytest.approx(measured["clean"], abs=0.5), "half precision changes little"
    assert experiment.main(setting) == 0, "what is trained is only measured again"
    assert json.loads((tmp_path / "out" / "table.json").read_text()) == table
