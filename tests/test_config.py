"""Configurations: the file says what differs, comes back whole, and is refused by the name of what is wrong."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshrec.config import checked_config, config_text, flat_settings, read_config, task_of
from meshrec.errors import MeshrecError
from meshrec.train.descent import OptimizerConfig
from meshrec.train.training import LoopConfig


@dataclass(frozen=True)
class FlowConfig:
    layers: int = 4
    kind: Literal["linear", "coupling"] = "linear"


@dataclass(frozen=True)
class PriorConfig:
    task: Literal["prior"] = "prior"
    data: tuple[Path, ...] = ()
    mirrored: bool = True
    jitter_rad: float = 0.03
    mix: dict[str, float] = field(default_factory=dict)
    note: str | None = None
    flow: FlowConfig = field(default_factory=FlowConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)


def written(folder: Path, text: str) -> Path:
    path = folder / "prior.yaml"
    path.write_text(text, encoding="utf-8")
    return path


floats = st.floats(1e-300, 1e300)
configs = st.builds(
    PriorConfig,
    data=st.lists(st.sampled_from([Path("a b/ü.npz"), Path("1e-4"), Path("/mocap/01"), Path("no")])).map(tuple),
    mirrored=st.booleans(),
    jitter_rad=floats,
    mix=st.dictionaries(st.text(min_size=1, max_size=5), floats, max_size=3),
    note=st.none() | st.text(max_size=10),
    flow=st.builds(FlowConfig, layers=st.integers(-9, 9), kind=st.sampled_from(["linear", "coupling"])),
    loop=st.builds(LoopConfig, steps=st.integers(1, 10**9), optimizer=st.builds(OptimizerConfig, learning_rate=floats)),
)


@settings(deadline=None, max_examples=50)
@given(config=configs)
def test_what_is_written_is_read_back(config, tmp_path_factory):
    path = written(tmp_path_factory.getbasetemp(), config_text(config))
    assert read_config(path, PriorConfig) == config
    assert task_of(path, ("prior", "lift")) == "prior"


def test_a_file_is_a_difference_from_the_defaults(tmp_path):
    assert read_config(written(tmp_path, ""), PriorConfig) == PriorConfig()
    assert read_config(written(tmp_path, "# nothing differs\n"), PriorConfig) == PriorConfig()
    config = read_config(written(tmp_path, "loop: {optimizer: {learning_rate: 1e-4, clip_norm: 2}}"), PriorConfig)
    assert config == PriorConfig(loop=LoopConfig(optimizer=OptimizerConfig(learning_rate=1e-4, clip_norm=2.0)))
    assert isinstance(config.loop.optimizer.clip_norm, float)


def test_what_came_another_way_is_held_to_the_same_rules():
    config = PriorConfig(data=(Path("a"),), jitter_rad=0.1)
    assert checked_config(config, "here") == config
    with pytest.raises(MeshrecError, match=r"^here: jitter_rad is \.nan; it should be a finite number"):
        checked_config(replace(config, jitter_rad=math.nan), "here")


def test_numbers_may_have_exponents_and_settings_may_be_merged(tmp_path):
    assert read_config(written(tmp_path, "loop: {steps: 1e3, ema: 9e-1}"), PriorConfig).loop == LoopConfig(
        1000, ema=0.9
    )
    text = "loop: &a {steps: 7}\nmix: &b {x: 1.0}\nflow: {<<: {layers: 3}, layers: 5}"
    config = read_config(written(tmp_path, text), PriorConfig)
    assert (config.loop.steps, config.flow.layers) == (7, 5)


REFUSED = [
    ("loop: {stesp: 4}", r"no setting loop\.stesp; did you mean loop\.steps\?"),
    ("steps: 4", r"no setting steps; did you mean loop\.steps\?"),
    ("loop: {optimizer: {lerning_rate: 4}}", r"did you mean loop\.optimizer\.learning_rate\?"),
    ("flow: {qqqq: 4}", r"no setting flow\.qqqq; the settings there are flow\.layers, flow\.kind"),
    ("flow: {kind: spline}", r"flow\.kind is spline; it should be 'linear' or 'coupling'"),
    ("loop: {steps: many}", r"loop\.steps is many; it should be a valid integer"),
    ("loop: {steps: 2.5}", r"loop\.steps is 2\.5; it should be a valid integer"),
    ("loop: {steps: 0}", r"loop: steps is 0; it must be positive"),
    ("loop: {steps: yes}", r"loop\.steps is true; numbers should stand there"),
    ("loop: {ema: no}", r"loop\.ema is false; numbers should stand there"),
    ("loop: {optimizer: {betas: [no, 0.9]}}", r"betas is \[false, 0\.9\]; numbers should stand there"),
    ("loop: {optimizer: {betas: [2, 3]}}", r"loop\.optimizer: betas is \(2\.0, 3\.0\); both must be in \[0, 1\)"),
    ("loop: {optimizer: {weight_decay: -1}}", r"weight_decay is -1\.0; it must be from 0"),
    ("loop: {ema: 1.0}", r"loop: ema is 1\.0; it must be in \[0, 1\)"),
    ("loop: {seed: 100000000000000000000000}", r"loop: seed is 1000*; it must be from 0"),
    ("loop: {batch: 100000000000}", r"loop: batch is 1000*; it must be from 1 to 1000000"),
    ("loop: {ema: .nan}", r"loop\.ema is \.nan; it should be a finite number"),
    ("loop: {optimizer: {betas: [0.9]}}", r"loop\.optimizer\.betas\.1 is missing|betas"),
    ("loop: 3", r"loop is 3; it should be a dictionary"),
    ("loop:", r"loop is null; it should be a dictionary"),
    ("data: mocap", r"data is mocap; it should be a valid tuple"),
    ("- 3", r"holds \[3\]; it should hold lines of the form"),
    ("seed: 1\nseed: 2", r"prior\.yaml, line 2: this is no YAML: seed stands twice"),
    ("loop:\n  steps: 3\n  ema: [0.1\nflow: 3", r"prior\.yaml, line \d: this is no YAML"),
    ("note: 2024-99-99", r"prior\.yaml is no YAML: month"),
    ("note: !!python/object/apply:os.getcwd []", r"line 1: this is no YAML: could not determine a constructor"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_a_wrong_file_is_refused_by_name(text, said, tmp_path):
    path = written(tmp_path, text)
    with pytest.raises(MeshrecError, match=said) as error:
        read_config(path, PriorConfig)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_advice(tmp_path):
    with pytest.raises(MeshrecError, match=r"Cannot read .*nowhere\.yaml: No such file"):
        read_config(tmp_path / "nowhere.yaml", PriorConfig)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MeshrecError, match=r"bytes\.yaml is no YAML"):
        read_config(tmp_path / "bytes.yaml", PriorConfig)


@pytest.mark.parametrize(
    ("text", "said"), [("loop: {}", "does not say which"), ("task: prio", "names the task prio"), ("task: [1]", "task")]
)
def test_a_file_must_say_which_task(text, said, tmp_path):
    with pytest.raises(MeshrecError, match=rf"{said}.*prior, lift"):
        task_of(written(tmp_path, text), ("prior", "lift"))


def test_settings_are_named_by_their_paths():
    flat = flat_settings(PriorConfig(data=(Path("a"),), mix={"mpii": 0.4}))
    assert flat["data"] == ["a"]
    assert flat["mix.mpii"] == 0.4
    assert flat["loop.optimizer.betas"] == [0.9, 0.999]
