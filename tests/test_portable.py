"""Portable states: rounded by no more than is said; and a run goes on elsewhere as if it had stayed."""

import io
import json
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from meshrec.errors import MeshrecError
from meshrec.models.regressor import MeshNetConfig, MeshRegressor
from meshrec.randomness import generator_of
from meshrec.train.checkpoint import Best, State
from meshrec.train.descent import OptimizerConfig, Phase
from meshrec.train.journal import LOG, read_log
from meshrec.train.loop import PORTABLE, Outcome, run
from meshrec.train.portable import BLOCK, MARK, WIDEST, packed, read_portable, unpacked, write_portable
from meshrec.train.processes import Share
from meshrec.train.training import LoopConfig

MIB = 2**20
MOMENTS = "optimizer/fit/w"


def checkpoint(shape: tuple[int, ...] = (70, 61), spread: float = 3.0, seed: int = 0) -> dict[str, Tensor]:
    """Tensors of a run after many steps: moments over many orders of magnitude, those of idle weights 0."""
    random = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(shape, generator=random)

    w, second = 0.1 * normal(), 1e-8 * (spread * normal()).exp()
    second.view(-1)[::17] = 0
    return {
        "model/w": w,
        "model/few": torch.randn(5, 5, generator=random),
        "model/count": torch.tensor(7),
        "average/w": w + 0.001 * normal(),
        f"{MOMENTS}/exp_avg": 0.3 * second.sqrt() * normal(),
        f"{MOMENTS}/exp_avg_sq": second,
        f"{MOMENTS}/step": torch.tensor(12.0),
    }


def largest(values: Tensor) -> Tensor:
    """Of each number's block."""
    flat = values.abs().flatten()
    return torch.cat([part.amax().expand(len(part)) for part in flat.split(BLOCK)]).view(values.shape)


@pytest.mark.parametrize("shape", [(70, 61), (4096,), (64, 32, 3, 3)])
def test_what_is_rounded_is_rounded_by_as_much_as_is_said(shape):
    given = checkpoint(shape)
    found = unpacked(packed(given))
    assert found.keys() == given.keys()
    for name in ("model/few", "model/count", f"{MOMENTS}/step"):
        assert torch.equal(found[name], given[name])
    w = given["model/w"]
    assert ((found["model/w"] - w).abs() <= 2**-11 * w.abs() + 2**-25).all()
    assert (
        (found["average/w"] - given["average/w"]).abs() <= 1.01 * largest(given["average/w"] - w) / 254 + 1e-6
    ).all()
    first, second = (given[f"{MOMENTS}/{name}"] for name in ("exp_avg", "exp_avg_sq"))
    first_found, second_found = (found[f"{MOMENTS}/{name}"] for name in ("exp_avg", "exp_avg_sq"))
    some = second > 0
    assert torch.equal(second_found > 0, some)
    assert (second_found[some] / second[some]).log().abs().max() <= WIDEST / 508 + 1e-4
    steps = torch.where(some, first / second.sqrt(), 0.0)
    off = torch.where(some, first_found / second_found.sqrt(), 0.0) - steps
    assert (off.abs() <= 1.001 * largest(steps) / 254 + 1e-6).all()


def test_a_second_moment_far_below_its_neighbours_is_raised_and_its_step_stays():
    given = checkpoint()
    first, second = (given[f"{MOMENTS}/{name}"].view(-1) for name in ("exp_avg", "exp_avg_sq"))
    first[1], second[1] = 1e-17, 1e-34
    found = unpacked(packed(given))
    raised = found[f"{MOMENTS}/exp_avg_sq"].view(-1)
    assert raised[1] > 10 * second[1]
    assert raised[1] <= 1.1e-12 * raised[:BLOCK].max()
    assert float(found[f"{MOMENTS}/exp_avg"].view(-1)[1] / raised[1].sqrt()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("value", [0.0, 1e-30, 2.0])
def test_numbers_that_are_all_alike_stay_what_they_are(value):
    given = {name: torch.full_like(tensor, value) for name, tensor in checkpoint().items()}
    for name, tensor in unpacked(packed(given)).items():
        torch.testing.assert_close(tensor, given[name].to(tensor), rtol=1e-5, atol=2**-25, check_dtype=False)


def test_what_was_rounded_once_is_not_rounded_again():
    once = unpacked(packed(checkpoint()))
    twice = unpacked(packed(once))
    for name, tensor in once.items():
        torch.testing.assert_close(twice[name], tensor, rtol=1e-4, atol=1e-8)


def test_weights_beyond_float16_are_refused():
    given = checkpoint() | {"model/w": torch.full((70, 61), 1e5)}
    with pytest.raises(MeshrecError, match="model/w are beyond float16"):
        packed(given)


def test_a_mesh_regressor_with_all_that_trains_it_is_small(tmp_path):
    network = MeshRegressor(MeshNetConfig("hrnet_w18", "proxy"), torch.Generator().manual_seed(0))
    model = network.state_dict()
    random = torch.Generator().manual_seed(1)
    tensors = {f"{kind}/{name}": tensor for kind in ("model", "average") for name, tensor in model.items()}
    for name, parameter in network.named_parameters():
        square = torch.rand(parameter.shape, generator=random)
        tensors |= {f"optimizer/mesh/{name}/exp_avg": square - 0.5, f"optimizer/mesh/{name}/exp_avg_sq": square}
    write_portable(tmp_path / "state", STATE, tensors)
    sizes = [path.stat().st_size for path in (tmp_path / "state").iterdir()]
    assert max(sizes) < 15 * MIB
    assert sum(sizes) < 60 * MIB
    assert len(sizes) > 4


# ---- the folder

STATE = State(step=12, stale=1, best=(Best(3.0, 8),), settings={"loop.steps": 40}, fingerprint="points")


def test_what_is_written_is_read_back(tmp_path):
    given = checkpoint()
    write_portable(tmp_path / "state", STATE, given)
    write_portable(tmp_path / "state", replace(STATE, step=13), given)
    state, found = read_portable(tmp_path / "state")
    assert state == replace(STATE, step=13)
    for name, tensor in unpacked(packed(given)).items():
        assert torch.equal(found[name], tensor)


def spoil(folder: Path, how: str) -> None:
    part = folder / "part_0.safetensors"
    match how:
        case "gone":
            part.unlink()
        case "cut":
            part.write_bytes(part.read_bytes()[:-1])
        case "card":
            (folder / MARK).write_text("{")
        case "format":
            card = json.loads((folder / MARK).read_text())
            (folder / MARK).write_text(json.dumps(card | {"format": "meshrec run 9"}))
        case "no card":
            (folder / MARK).unlink()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("gone", r"part_0\.safetensors is missing or not what portable\.json says"),
        ("cut", r"part_0\.safetensors is missing or not what portable\.json says"),
        ("card", r"portable\.json is damaged"),
        ("format", r"portable\.json is damaged \(.*meshrec run 1"),
        ("no card", r"holds no state of a run: .*--loop\.portable"),
    ],
)
def test_a_folder_that_lacks_something_is_refused(how, said, tmp_path):
    folder = write_portable(tmp_path / "state", STATE, checkpoint())
    spoil(folder, how)
    with pytest.raises(MeshrecError, match=said):
        read_portable(folder)


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(MeshrecError, match=r"holds no portable\.json, so it is left alone"):
        write_portable(tmp_path, STATE, checkpoint())


# ---- a run that moves


@dataclass(frozen=True)
class CurveConfig:
    task: Literal["curve"] = "curve"
    hidden: int = 64
    loop: LoopConfig = field(default_factory=LoopConfig)


ADAM = OptimizerConfig(kind="adamw", learning_rate=0.01, warmup_steps=20, clip_norm=1.0)
LOOP = LoopConfig(
    steps=120, batch=32, optimizer=ADAM, ema=0.95, log_every=10, validate_every=60, checkpoint_every=60, portable=True
)


class Curve:
    """y = sin(x w), learnt by a network with a batch norm, large enough to be rounded."""

    selected_by = "mse"
    fingerprint = "curve"

    def __init__(self, config: CurveConfig) -> None:
        torch.manual_seed(0)
        self.batch_size, hidden = config.loop.batch, config.hidden
        layers = (nn.Linear(4, hidden), nn.BatchNorm1d(hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.model = nn.Sequential(*layers, nn.Linear(hidden, 1))
        self.phases = (Phase("fit", (self.model,)),)

    def points(self, step: int) -> tuple[Tensor, Tensor]:
        x = torch.from_numpy(generator_of(0, "curve", step).standard_normal((self.batch_size, 4))).float()
        return x, (x @ torch.tensor([[1.0], [-2.0], [0.5], [0.3]])).sin()

    def batch(self, step: int, share: Share) -> Any:
        x, y = self.points(step)
        rows = share.rows(self.batch_size)
        return x[rows], y[rows]

    def losses(self, phase: str, batch: Any) -> dict[str, Tensor]:
        return {"mse": (self.model(batch[0]) - batch[1]).square().mean()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        x, y = self.points(10**6)
        return {"mse": float((model(x) - y).square().mean())}

    def describe(self, batch: Any) -> str:
        return "points"


def train(folder: Path, config: CurveConfig, said: io.StringIO | None = None) -> Outcome:
    return run(Curve(config), config, folder, console=Console(file=said or io.StringIO()))


def changed(config: CurveConfig, **loop: Any) -> CurveConfig:
    return replace(config, loop=replace(config.loop, **loop))


def losses(folder: Path) -> dict[int, float]:
    return {line["step"]: line["fit/mse"] for line in read_log(folder / LOG) if "fit/mse" in line}


def test_a_run_goes_on_elsewhere_as_if_it_had_stayed(tmp_path):
    stays, moves = CurveConfig(loop=LOOP), CurveConfig(loop=replace(LOOP, steps=60))
    train(tmp_path / "stays", stays)
    train(tmp_path / "here", moves)
    said, there = io.StringIO(), changed(stays, portable_start=tmp_path / "here" / PORTABLE)
    outcome = train(tmp_path / "there", there, said)
    assert outcome.step == 120
    assert "after the 60 steps" in said.getvalue()
    assert "not to the same bits" in said.getvalue()
    assert "All settings are its" in said.getvalue()
    whole, rest = losses(tmp_path / "stays"), losses(tmp_path / "there")
    assert list(rest) == [70, 80, 90, 100, 110, 120]
    assert rest[70] == pytest.approx(whole[70], rel=0.02)
    assert whole[70] < 0.8 * whole[20], "it learns, so that a loss which stays is worth something"
    assert rest[120] == pytest.approx(whole[120], rel=0.2)


def test_elsewhere_it_is_a_run_like_any_other(tmp_path):
    """What it goes on from is read once: its own checkpoints lead on to the same bits."""
    start = CurveConfig(loop=LOOP)
    train(tmp_path / "here", changed(start, steps=20, validate_every=20))
    there = changed(start, portable_start=tmp_path / "here" / PORTABLE, validate_every=20)
    train(tmp_path / "whole", changed(there, steps=60))
    train(tmp_path / "halves", changed(there, steps=40))
    train(tmp_path / "halves", changed(there, steps=60, portable_start=None))
    whole, halves = (read_log(tmp_path / name / LOG) for name in ("whole", "halves"))
    assert [line | {"examples_per_s": 0} for line in whole] == [line | {"examples_per_s": 0} for line in halves]


def test_what_differs_is_told_and_another_network_refused(tmp_path):
    start = CurveConfig(loop=LOOP)
    train(tmp_path / "here", changed(start, steps=20, validate_every=20))
    there, said = changed(start, portable_start=tmp_path / "here" / PORTABLE, steps=21, batch=64), io.StringIO()
    train(tmp_path / "there", there, said)
    assert "Settings that differ: loop.batch was 32 and is 64; loop.validate_every was 20 and is 60." in said.getvalue()
    with pytest.raises(MeshrecError, match=r"portable is of another model: its tensor 0\.weight"):
        train(tmp_path / "other", replace(there, hidden=65))
    slower = replace(there, loop=replace(there.loop, optimizer=OptimizerConfig("sgd", learning_rate=0.01)))
    with pytest.raises(MeshrecError, match=r"holds the moments of loop\.optimizer\.kind adamw, and this run's is sgd"):
        train(tmp_path / "slower", slower)
    with pytest.raises(MeshrecError, match="holds no state of a run"):
        train(tmp_path / "none", changed(there, portable_start=tmp_path / "nowhere"))


class Stopped(Curve):
    """Asked to stop in its 13th step."""

    def batch(self, step: int, share: Share) -> Any:
        if step == 12:
            signal.raise_signal(signal.SIGTERM)
        return super().batch(step, share)


class Absolute(Curve):
    """Learns something else."""

    def losses(self, phase: str, batch: Any) -> dict[str, Tensor]:
        return {"l1": (self.model(batch[0]) - batch[1]).abs().mean()}


def test_a_run_that_is_stopped_between_validations_can_be_moved_and_learn_something_else(tmp_path):
    here = CurveConfig(loop=replace(LOOP, validate_every=10))
    run(Stopped(here), here, tmp_path / "here", console=Console(file=io.StringIO()))
    state, _ = read_portable(tmp_path / "here" / PORTABLE)
    assert (state.step, state.recent) == (13, ("fit/mse", "fit/gradient_norm"))
    there = changed(here, steps=60, validate_every=60, keep_best=2, portable_start=tmp_path / "here" / PORTABLE)
    outcome = run(Absolute(there), there, tmp_path / "there", console=Console(file=io.StringIO()))
    assert outcome.step == 60
    assert [best.step for best in outcome.best] == [60], "the best models from before are not here"
