"""The training loop: killed anywhere it goes on to the same bits, and however work is cut up the result is the same.

Run as a script it trains the toy tasks into a folder, alone or under torchrun.
"""

import errno
import fcntl
import io
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from peers import impatient, peer
from pydantic import TypeAdapter
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

from meshrec import tensor_files
from meshrec.config import read_config
from meshrec.errors import MeshrecError
from meshrec.randomness import generator_of
from meshrec.tensor_files import write_tensors
from meshrec.train.checkpoint import LAST, State, load_best, read_checkpoint
from meshrec.train.descent import Descent, OptimizerConfig, Phase, learning_rate
from meshrec.train.journal import LOG, read_log
from meshrec.train.loop import LOCK, Outcome, run
from meshrec.train.processes import Processes, Share, launched
from meshrec.train.task import Task
from meshrec.train.training import Average, LoopConfig, Training


@dataclass(frozen=True)
class ToyConfig:
    task: Literal["toy"] = "toy"
    loop: LoopConfig = field(default_factory=LoopConfig)
    dropout: float = 0.0
    hidden: int = 8


ADAM = OptimizerConfig(
    kind="adamw", learning_rate=0.02, weight_decay=0.01, clip_norm=1.0, schedule="exponential", decay=0.9, decay_steps=3
)
LOOP = LoopConfig(
    steps=12, batch=8, optimizer=ADAM, ema=0.9, log_every=3, validate_every=4, checkpoint_every=5, keep_best=2
)
CONFIG = ToyConfig(loop=LOOP, dropout=0.3)


class Regression:
    """y = x w + noise, learnt by a small network with dropout."""

    selected_by = "mse"
    fingerprint = "points"

    def __init__(self, config: ToyConfig, during: Callable[[int], None] = lambda step: None) -> None:
        torch.manual_seed(config.loop.seed)
        self.loop, self.during = config.loop, during
        layers = (nn.Linear(4, config.hidden), nn.Tanh(), nn.Dropout(config.dropout), nn.Linear(config.hidden, 1))
        self.model = nn.Sequential(*layers).double()
        self.phases = (Phase("fit", (self.model,)),)

    def points(self, step: int, rows: int) -> tuple[Tensor, Tensor]:
        noise = generator_of(self.loop.seed, "toy", step)
        x = torch.from_numpy(noise.standard_normal((rows, 4)))
        return x, x[:, :1] - 2 * x[:, 1:2] + 0.1 * torch.from_numpy(noise.standard_normal((rows, 1)))

    def batch(self, step: int, share: Share) -> Any:
        self.during(step)
        rows = share.rows(self.loop.batch)
        x, y = self.points(step, self.loop.batch)
        return step, rows, x[rows], y[rows]

    def losses(self, phase: str, batch: Any) -> dict[str, Tensor]:
        _, _, x, y = batch
        error = self.model(x) - y
        return {"mse": error.square().mean(), "l1": 0.1 * error.abs().mean()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        x, y = self.points(10**6, 50)
        return {"mse": float((model(x) - y).square().mean()), "size": float(x.abs().max() + torch.rand(()))}

    def describe(self, batch: Any) -> str:
        step, rows, *_ = batch
        return f"rows {rows.start} to {rows.stop - 1} of batch {step}"


class Gan(Regression):
    """Points on a circle: two networks, two optimisers, the discriminator twice a step."""

    selected_by = "radius_off"

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.generator = nn.Sequential(nn.Linear(4, 8), nn.Mish(), nn.Linear(8, 2)).double()
        self.discriminator = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(), nn.Linear(8, 1)).double()
        self.model = nn.ModuleDict({"generator": self.generator, "discriminator": self.discriminator})
        self.phases = (
            Phase("discriminator", (self.discriminator,), OptimizerConfig(learning_rate=0.003), times=2),
            Phase("generator", (self.generator[0], self.generator[2]), OptimizerConfig(clip_norm=0.1)),
        )

    def losses(self, phase: str, batch: Any) -> dict[str, Tensor]:
        x = batch[2]
        real, fake = nn.functional.normalize(x[:, :2], dim=-1), self.generator(x)
        if phase == "generator":
            return {"fooled": nn.functional.softplus(-self.discriminator(fake)).mean()}
        seen = {"real": -self.discriminator(real), "fake": self.discriminator(fake.detach())}
        return {name: nn.functional.softplus(value).mean() for name, value in seen.items()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        return {"radius_off": float((model["generator"](self.points(9, 50)[0]).norm(dim=-1) - 1).abs().mean())}


TASKS = {"regression": Regression, "gan": Gan}


def quiet() -> Console:
    return Console(file=io.StringIO(), force_terminal=False)


def train(folder: Path, config: ToyConfig = CONFIG, task: Task | None = None, **options: Any) -> Outcome:
    return run(task or Regression(config), config, folder, console=quiet(), **options)


def changed(config: ToyConfig = CONFIG, **loop: Any) -> ToyConfig:
    return replace(config, loop=replace(config.loop, **loop))


def content(folder: Path) -> dict[str, Any]:
    """Everything in a run's folder, but how fast it was."""
    log = [{name: value for name, value in line.items() if name != "examples_per_s"} for line in read_log(folder / LOG)]
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOG} | {LOG: log}


# ---- resume


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("kind", "how"), [("regression", "killed"), ("regression", "asked to stop"), ("gan", "killed")]
)
def test_a_run_that_stops_anywhere_goes_on_to_the_same_bits(kind, how, tmp_path):
    config = CONFIG if kind == "regression" else changed(ema=0.0)
    train(tmp_path / "whole", config, TASKS[kind](config))
    whole = content(tmp_path / "whole")
    for step in range(LOOP.steps):
        folder, task = tmp_path / str(step), TASKS[kind](config)

        def stop(now: int, step: int = step) -> None:
            if now == step and how == "killed":
                raise Killed
            if now == step:
                os.kill(os.getpid(), signal.SIGTERM)

        task.during = stop
        if how == "killed":
            with pytest.raises(Killed):
                train(folder, config, task)
        else:
            outcome = train(folder, config, task)
            assert outcome.step == step + 1
            assert outcome.exit_code == (143 if step + 1 < LOOP.steps else 0)
        outcome = train(folder, config, TASKS[kind](config))
        assert (outcome.step, outcome.ending, outcome.exit_code) == (LOOP.steps, "steps", 0)
        assert content(folder) == whole


def test_sigkill_at_a_random_moment_loses_nothing(tmp_path):
    config = changed(steps=300, log_every=5, validate_every=20, checkpoint_every=7)
    train(tmp_path / "whole", config)
    child = script(tmp_path / "killed", "slow")
    chance = random.Random(os.getpid())
    wait_for_step(tmp_path / "killed" / "regression" / LOG, chance.randrange(20, 200), child)
    time.sleep(chance.random() / 20)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    killed_at = read_log(tmp_path / "killed" / "regression" / LOG)[-1]["step"]
    assert killed_at < 300
    train(tmp_path / "killed" / "regression", config)
    assert content(tmp_path / "killed" / "regression") == content(tmp_path / "whole")
    steps = [line["step"] for line in read_log(tmp_path / "whole" / LOG) if "fit/mse" in line]
    assert steps == list(range(5, 301, 5))


def script(folder: Path, pace: str) -> subprocess.Popen:
    """This file as a process of its own."""
    command = [sys.executable, __file__, str(folder), pace]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_step(log: Path, step: int, child: subprocess.Popen) -> None:
    for _ in range(6000):
        assert child.poll() is None, child.stderr and child.stderr.read()
        lines = log.read_text().splitlines()[:-1] if log.exists() else []
        if lines and json.loads(lines[-1])["step"] >= step:
            return
        time.sleep(0.01)
    raise TimeoutError(f"{log} never came to step {step}")


def test_a_finished_run_has_nothing_left_to_do_until_more_is_asked(tmp_path):
    first = train(tmp_path / "a")
    before = content(tmp_path / "a")
    assert train(tmp_path / "a") == first
    assert content(tmp_path / "a") == before
    train(tmp_path / "b", changed(steps=20))
    train(tmp_path / "a", changed(steps=20, checkpoint_every=1))
    a, b = (load_file(tmp_path / run / LAST) for run in "ab")
    assert all(torch.equal(a[name], b[name]) for name in b)
    assert (tmp_path / "a" / "config.yaml").read_text().count("steps: 20") == 1
    assert read_config(tmp_path / "b" / "config.yaml", ToyConfig) == changed(steps=20)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (changed(batch=4), r"holds 12 steps of another run: loop\.batch was 8 and is 4\."),
        (changed(seed=1, ema=0.0), r"loop\.ema was 0\.9 and is 0\.0; loop\.seed was 0 and is 1"),
        (changed(optimizer=replace(ADAM, learning_rate=1.0)), r"loop\.optimizer\.learning_rate was 0\.02 and is 1\.0"),
    ],
)
def test_another_configuration_is_refused_by_what_differs(other, said, tmp_path):
    train(tmp_path)
    before = content(tmp_path)
    with pytest.raises(MeshrecError, match=said):
        train(tmp_path, other)
    assert content(tmp_path) == before


def test_other_data_are_refused_and_the_same_data_elsewhere_are_not(tmp_path):
    train(tmp_path)
    task = Regression(CONFIG)
    task.fingerprint = "other points"
    with pytest.raises(MeshrecError, match=r"holds 12 steps of a run on other data"):
        train(tmp_path, CONFIG, task)


def test_two_runs_at_once_do_not_share_a_folder(tmp_path):
    train(tmp_path)
    before = content(tmp_path)
    with (tmp_path / LOCK).open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(MeshrecError, match=r"Another run is training in"):
            train(tmp_path)
    assert content(tmp_path) == before
    train(tmp_path)


def test_a_schedule_that_knows_its_end_keeps_it(tmp_path):
    config = changed(optimizer=replace(ADAM, schedule="cosine"))
    train(tmp_path, config)
    with pytest.raises(MeshrecError, match=r"loop\.steps was 12 and is 20"):
        train(tmp_path, changed(config, steps=20))


def test_another_model_is_refused_by_its_first_tensor(tmp_path):
    train(tmp_path)
    with pytest.raises(MeshrecError, match=r"last\.safetensors .*0\.weight is float64 \(8, 4\).* has float64 \(9, 4\)"):
        train(tmp_path, CONFIG, Regression(replace(CONFIG, hidden=9)))


def test_best_models_without_their_run_are_not_overwritten(tmp_path):
    train(tmp_path)
    (tmp_path / LAST).unlink()
    with pytest.raises(MeshrecError, match=r"holds best_0000\d+\.safetensors.* but no last\.safetensors"):
        train(tmp_path)


def test_what_a_killed_writer_left_is_cleared(tmp_path):
    for name in (".last-x1.safetensors", ".best_00000004-x1.safetensors", "mine.safetensors"):
        (tmp_path / name).write_bytes(b"half")
    outcome = train(tmp_path)
    kept = {LAST, LOG, LOCK, "config.yaml", "mine.safetensors"} | {best.file for best in outcome.best}
    assert {path.name for path in tmp_path.iterdir()} == kept


# ---- the same result however the work is cut


def close(a: Path, b: Path) -> None:
    first, second = load_file(a / LAST), load_file(b / LAST)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(
            second[name], tensor, rtol=1e-9, atol=1e-9, msg=lambda text, at=name: f"{at}: {text}"
        )


def test_two_processes_are_one(tmp_path):
    """As torchrun starts them, but that this process is the first."""
    for kind, task in TASKS.items():
        train(tmp_path / f"one_{kind}", SPLIT, task(SPLIT))
    config = split_dropping()
    train(tmp_path / "one_dropping", config, Watched(config))
    with peer(__file__, str(tmp_path), "plain"):
        main(tmp_path, "plain")
    for kind in (*TASKS, "stopped", "dropping"):
        one = tmp_path / f"one_{kind.replace('stopped', 'regression')}"
        close(one, tmp_path / kind)
        same_logs(one, tmp_path / kind)


def test_no_process_outlives_its_test():
    with pytest.raises(KeyError), peer("-c", "import time; time.sleep(600)") as child:
        raise KeyError
    assert child.returncode is not None
    with pytest.raises(AssertionError, match="trouble"), peer("-c", "raise SystemExit('trouble')"):
        pass
    assert "RANK" not in os.environ


@pytest.mark.parametrize("kind", TASKS)
def test_two_halves_are_one_batch(kind, tmp_path):
    for parts in (1, 2):
        config = changed(SPLIT, accumulate=parts)
        train(tmp_path / str(parts), config, TASKS[kind](config))
    close(tmp_path / "1", tmp_path / "2")
    same_logs(tmp_path / "1", tmp_path / "2")


def same_logs(a: Path, b: Path) -> None:
    for one, two in zip(read_log(a / LOG), read_log(b / LOG), strict=True):
        assert {name: value for name, value in one.items() if name != "examples_per_s"} == pytest.approx(
            {name: value for name, value in two.items() if name != "examples_per_s"}, rel=1e-9
        )


class Lonely(Processes):
    """One of two that never hears of the other."""

    def average_(self, tensors: Any) -> None: ...

    def follow_(self, tensors: Any) -> None: ...


def test_every_process_draws_numbers_of_its_own():
    drawn = []
    for rank in range(2):
        task = Regression(CONFIG)
        task.model.register_forward_hook(lambda *_: drawn.append(float(torch.rand(()))))
        Training(task, LOOP, Lonely(rank, 2)).advance()
    assert drawn[0] != drawn[1]


def test_half_of_what_torchrun_tells_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MeshrecError, match=r"has WORLD_SIZE but not RANK, MASTER_ADDR, MASTER_PORT"), launched("cpu"):
        pass


def test_the_trouble_of_one_process_is_told_and_what_is_made_comes_back():
    def fail() -> None:
        raise MeshrecError("no poses")

    assert Processes().all_make(lambda: 3) == 3
    with pytest.raises(MeshrecError, match="no poses"):
        Processes().all_make(fail)


def test_a_batch_that_cannot_be_cut_is_refused(tmp_path):
    with pytest.raises(MeshrecError, match=r"loop\.batch is 8, which cannot be cut into 3 equal parts"):
        train(tmp_path, changed(accumulate=3))
    with pytest.raises(MeshrecError, match=r"cut into 6 equal parts"):
        Training(Regression(CONFIG), replace(LOOP, accumulate=2), Processes(2, 3))


@pytest.mark.parametrize(("batch", "parts"), [(12, 1), (12, 4), (12, 12)])
def test_shares_make_up_the_batch(batch, parts):
    shares = [share for rank in range(parts) for share in Processes(rank, parts).shares(1)]
    assert [row for share in shares for row in range(batch)[share.rows(batch)]] == list(range(batch))
    assert [s for r in range(2) for s in Processes(r, 2).shares(3)] == [Share(index, 6) for index in range(6)]


# ---- the mathematics of a step


def test_a_step_is_torchs_own(tmp_path):
    config = changed(CONFIG, ema=0.0, optimizer=OptimizerConfig(learning_rate=0.01))
    config = replace(config, dropout=0.0)
    train(tmp_path, config)
    plain = Regression(config)
    adam = torch.optim.Adam(plain.model.parameters(), 0.01, foreach=False)
    for step in range(LOOP.steps):
        adam.zero_grad()
        sum(plain.losses("fit", plain.batch(step, Share())).values()).backward()
        adam.step()
    saved = load_file(tmp_path / LAST)
    for name, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(saved[f"model/{name}"], tensor, rtol=1e-9, atol=1e-12)


def test_the_average_follows_its_formula():
    model = nn.Linear(2, 2).double()
    model.register_buffer("count", torch.zeros(()))
    average = Average(model, 0.5)
    mean = model.weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            model.weight.add_(step + 1.0)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * model.weight.detach()
        torch.testing.assert_close(average.model.weight, mean, rtol=1e-12, atol=1e-12)
    model.count += 30
    average.take_buffers()
    assert average.model.count == 30


def test_the_average_is_judged_with_the_buffers_of_now():
    task = Regression(CONFIG)
    task.model.register_buffer("seen", torch.zeros((), dtype=torch.float64))
    training = Training(task, LOOP, Processes())
    task.model.get_buffer("seen").add_(3)
    training.check()
    assert training.judged is not task.model
    assert training.judged.get_buffer("seen") == 3


RATES = [
    (OptimizerConfig(learning_rate=2.0), {0: 2.0, 99: 2.0}),
    (OptimizerConfig(learning_rate=2.0, warmup_steps=4), {0: 0.5, 1: 1.0, 3: 2.0, 99: 2.0}),
    (
        OptimizerConfig(learning_rate=2.0, schedule="exponential", decay=0.5, decay_steps=10),
        {0: 2.0, 9: 2.0, 10: 1.0, 39: 0.25},
    ),
    (OptimizerConfig(learning_rate=2.0, schedule="cosine"), {0: 2.0, 50: 1.0, 100: 0.0}),
    (OptimizerConfig(learning_rate=2.0, schedule="cosine", warmup_steps=20), {9: 1.0, 20: 2.0, 60: 1.0, 100: 0.0}),
]


@pytest.mark.parametrize(("config", "rates"), RATES)
def test_the_learning_rate_follows_its_schedule(config, rates):
    for step, rate in rates.items():
        assert learning_rate(config, step, 100) == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize("clip_norm", [0.0, 0.5, 1e6])
def test_each_network_is_clipped_alone(clip_norm):
    model = nn.ModuleList([nn.Linear(3, 3).double(), nn.Linear(3, 3).double()])
    before = [[p.detach().clone() for p in network.parameters()] for network in model]
    config = OptimizerConfig(kind="sgd", clip_norm=clip_norm)
    descent = Descent(Phase("both", tuple(model)), config, model)
    loss = 30 * model[0](torch.ones(3).double()).sum() + 40 * model[1](torch.ones(3).double()).square().sum()
    descent.backward(loss)
    gradients = [[p.grad.clone() for p in network.parameters()] for network in model]
    norm = descent.step(0.1)
    norms = [torch.cat([g.flatten() for g in one]).norm() for one in gradients]
    torch.testing.assert_close(norm, torch.stack(norms).norm())
    for network, start, gradient, length in zip(model, before, gradients, norms, strict=True):
        scale = min(1.0, clip_norm / float(length)) if clip_norm else 1.0
        for parameter, was, slope in zip(network.parameters(), start, gradient, strict=True):
            torch.testing.assert_close(parameter.detach(), was - 0.1 * scale * slope, rtol=1e-5, atol=1e-9)


def test_a_phase_moves_its_own_networks_alone(tmp_path):
    task = Gan(changed(ema=0.0))
    task.phases = task.phases[:1]
    start = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    train(tmp_path, changed(ema=0.0), task)
    moved = {
        name.partition(".")[0] for name, now in task.model.state_dict().items() if not torch.equal(now, start[name])
    }
    assert moved == {"discriminator"}
    assert all(parameter.grad is None for parameter in task.generator.parameters())


def test_a_network_that_the_losses_forget_is_named(tmp_path):
    task = Gan(changed(ema=0.0))
    task.phases = (Phase("discriminator", (task.model,)),)
    with pytest.raises(ValueError, match=r"'discriminator' do not depend on generator\.0\.weight"):
        train(tmp_path, changed(ema=0.0), task)


def test_bf16_reaches_the_networks_and_leaves_the_weights(tmp_path):
    config, seen = changed(precision="bf16"), []
    task = Regression(config)
    task.model.float()
    task.points = lambda step, rows: tuple(part.float() for part in Regression.points(task, step, rows))
    task.model[0].register_forward_hook(lambda layer, _, out: seen.append((layer.training, out.dtype)))
    train(tmp_path, config, task)
    assert set(seen) == {(True, torch.bfloat16), (False, torch.float32)}
    assert load_file(tmp_path / LAST)["model/0.weight"].dtype == torch.float32


# ---- when to stop, what to keep


class Scripted(Regression):
    """Validation figures as they are told."""

    def __init__(self, config: ToyConfig, figures: list[float]) -> None:
        super().__init__(config)
        self.left = list(figures)

    def validate(self, model: nn.Module) -> dict[str, float]:
        return {"mse": self.left.pop(0)}


FIGURES = [5.0, 3.0, 4.0, 3.0, 2.0, 6.0, 6.0, 6.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("patience", "keep", "step", "best"),
    [(0, 3, 10, [9, 10, 5]), (3, 1, 8, [5]), (2, 2, 4, [2, 4]), (4, 99, 10, [9, 10, 5, 2, 4, 3, 1, 6, 7, 8])],
)
def test_patience_ends_and_the_best_stay(patience, keep, step, best, tmp_path):
    config = changed(steps=10, validate_every=1, patience=patience, keep_best=keep)
    outcome = train(tmp_path, config, Scripted(config, FIGURES))
    assert (outcome.step, outcome.ending) == (step, "steps" if step == 10 else "patience")
    assert [one.step for one in outcome.best] == best
    assert sorted(path.name for path in tmp_path.glob("best*")) == sorted(one.file for one in outcome.best)
    assert outcome.best_path == tmp_path / f"best_{best[0]:08d}.safetensors"
    if outcome.ending == "patience":
        more = changed(config, patience=5)
        assert train(tmp_path, more, Scripted(more, FIGURES[step:])).step == 10


def test_the_best_model_is_the_average_that_was_validated(tmp_path):
    outcome = train(tmp_path)
    assert outcome.best_path is not None
    fresh = Regression(CONFIG)
    card = load_best(outcome.best_path, fresh.model)
    fresh.model.eval()
    with torch.no_grad():
        assert fresh.validate(fresh.model)["mse"] == card.figures["mse"] == outcome.best[0].figure
    assert card.settings["loop.batch"] == 8


# ---- back to the best, with a lower rate


DROPPING = changed(
    steps=14, validate_every=1, patience=2, drops=2, optimizer=replace(ADAM, schedule="constant"), log_every=1
)
FALLING = [5.0, 3.0, 4.0, 4.0, 2.0, 6.0, 6.0, 6.0, 6.0, 1.0]
"""Best at 2, so back to it before step 5; best at 5, back before step 8; then nothing better in two."""


def split_dropping() -> ToyConfig:
    """What processes can share: an average, no dropout, and every best model is kept."""
    return replace(changed(DROPPING, ema=0.9, keep_best=9), dropout=0.0)


class Watched(Scripted):
    """A script that notes the weights of every batch's start, and gives the same figures wherever it goes on."""

    def __init__(self, config: ToyConfig, during: Callable[[int], None] = lambda step: None) -> None:
        super().__init__(config, FALLING)
        self.seen: dict[int, dict[str, Tensor]] = {}
        self.at, self.during = 0, during

    def batch(self, step: int, share: Share) -> Any:
        self.at = step + 1
        self.seen[step] = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        return super().batch(step, share)

    def validate(self, model: nn.Module) -> dict[str, float]:
        return {"mse": FALLING[self.at - 1]}


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run_that_is_stuck_goes_back_to_its_best_model_with_a_lower_rate(ema, tmp_path):
    config = changed(DROPPING, ema=ema, keep_best=9)
    task = Watched(config)
    outcome = train(tmp_path, config, task)
    assert (outcome.step, outcome.ending) == (9, "patience")
    for step, best in ((4, 2), (7, 5)):
        kept = load_file(tmp_path / f"best_{best:08d}.safetensors")
        assert all(torch.equal(tensor, kept[name]) for name, tensor in task.seen[step].items())
    if ema:
        before, after = (load_file(tmp_path / f"best_{best:08d}.safetensors") for best in (2, 5))
        for name, mean in after.items():
            torch.testing.assert_close(mean, before[name].lerp(task.seen[5][name], 1 - 5 / 14))
    rates = {line["step"]: line["fit/learning_rate"] for line in read_log(tmp_path / LOG) if "fit/mse" in line}
    assert [rates[step] / 0.02 for step in (1, 4, 5, 7, 8, 9)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    moments = load_file(tmp_path / LAST)
    assert moments["optimizer/fit/0.weight/step"] == 2, "the optimiser began anew before step 8"


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run_that_drops_and_stops_anywhere_goes_on_to_the_same_bits(ema, tmp_path):
    config = changed(DROPPING, ema=ema)
    train(tmp_path / "whole", config, Watched(config))
    for step in range(9):
        folder = tmp_path / str(step)

        def stop(now: int, step: int = step) -> None:
            if now == step:
                raise Killed

        with pytest.raises(Killed):
            train(folder, config, Watched(config, stop))
        assert train(folder, config, Watched(config)).step == 9
        assert content(folder) == content(tmp_path / "whole")


def test_more_drops_can_be_asked_of_a_run_that_has_ended_and_fewer_cannot(tmp_path):
    train(tmp_path / "whole", DROPPING, Watched(DROPPING))
    for drops, step in ((0, 4), (1, 7), (2, 9)):
        config = changed(DROPPING, drops=drops)
        assert train(tmp_path / "more", config, Watched(config)).step == step
    assert content(tmp_path / "more")[LAST] == content(tmp_path / "whole")[LAST]
    for other in ({"drops": 1}, {"patience": 3}, {"drop_factor": 0.2}):
        with pytest.raises(MeshrecError, match=rf"loop\.{next(iter(other))} was"):
            train(tmp_path / "more", changed(DROPPING, **other))


def test_a_full_disk_at_any_file_of_a_run_that_drops_costs_nothing(tmp_path, monkeypatch):
    config, honest, written = changed(DROPPING, ema=0.9), tensor_files._save, []

    def save(tensors: dict[str, Tensor], path: Path, header: str) -> None:
        written.append(path)
        if len(written) == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        honest(tensors, path, header)

    monkeypatch.setattr(tensor_files, "_save", save)
    full_at = 0
    train(tmp_path / "whole", config, Watched(config))
    for full_at in range(1, len(written) + 1):
        written.clear()
        with pytest.raises(MeshrecError, match="No space left on device"):
            train(tmp_path / str(full_at), config, Watched(config))
        assert train(tmp_path / str(full_at), config, Watched(config)).step == 9
        assert content(tmp_path / str(full_at)) == content(tmp_path / "whole")


def test_a_best_model_that_is_lost_is_named(tmp_path):
    config = changed(DROPPING, steps=4)
    train(tmp_path, config, Watched(config))
    (tmp_path / "best_00000002.safetensors").unlink()
    with pytest.raises(MeshrecError, match=r"best_00000002\.safetensors: No such file"):
        train(tmp_path, DROPPING, Watched(DROPPING))


def test_drops_say_what_they_do_and_need_patience(tmp_path):
    console = Console(file=io.StringIO())
    run(Watched(DROPPING), DROPPING, tmp_path, console=console)
    assert "No better figure since step 5, so back to its model (drop 2): fit/learning_rate 0.0002" in (
        " ".join(console.file.getvalue().split())
    )
    with pytest.raises(ValueError, match="drops is 1; say with patience"):
        LoopConfig(drops=1)


def test_a_checkpoint_from_before_there_were_drops_goes_on(tmp_path):
    train(tmp_path / "whole")
    train(tmp_path / "old", changed(steps=8))
    state, tensors = read_checkpoint(tmp_path / "old" / LAST, State)
    header = json.loads(TypeAdapter(State).dump_json(state))
    del header["dropped"], header["settings"]["loop.drops"], header["settings"]["loop.drop_factor"]
    write_tensors(tmp_path / "old" / LAST, tensors, json.dumps(header))
    assert train(tmp_path / "old").step == 12
    old, whole = (load_file(tmp_path / name / LAST) for name in ("old", "whole"))
    assert all(torch.equal(old[name], whole[name]) for name in whole)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_what_an_optimiser_remembers_lies_as_its_parameters_do(kind):
    """The fused optimisers run along memory: a moment in another order would go to other weights."""

    def descent() -> tuple[nn.Module, Descent]:
        torch.manual_seed(0)
        model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return model, Descent(Phase("fit", (model,)), OptimizerConfig(kind, learning_rate=0.1), model)

    def step(model: nn.Module, down: Descent) -> None:
        down.backward(model(torch.arange(75.0).view(1, 3, 5, 5)).square().mean())
        down.step(0.1)

    (model, down), (other, other_down) = descent(), descent()
    step(model, down)
    other.load_state_dict({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
    other_down.load({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in down.tensors()})
    step(model, down)
    step(other, other_down)
    assert torch.equal(model.weight, other.weight)


class Telling(Regression):
    """A task with a figure of its own."""

    def told(self) -> dict[str, float]:
        return {"loader_images_per_s": 7.0}


def test_what_a_task_tells_stands_in_the_log_and_its_speed_beside_the_run_s(tmp_path):
    console = Console(file=io.StringIO(), width=1000)
    run(Telling(CONFIG), CONFIG, tmp_path, console=console)
    assert re.search(r"examples_per_s \S+ +loader_images_per_s 7", console.file.getvalue())
    assert [line.get("loader_images_per_s") for line in read_log(tmp_path / LOG)] == [7, None, 7, None, 7, 7, None]


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_weights_decay_and_biases_do_not(kind):
    model = nn.Linear(3, 2)
    nn.init.ones_(model.bias)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    descent = Descent(Phase("fit", (model,)), OptimizerConfig(kind, learning_rate=0.1, weight_decay=0.5), model)
    descent.backward(0 * sum(parameter.sum() for parameter in model.parameters()))
    descent.step(0.1)
    torch.testing.assert_close(model.weight.detach(), 0.95 * before["weight"])
    torch.testing.assert_close(model.bias.detach(), before["bias"], rtol=0, atol=0)


# ---- what goes wrong


def spoiled(kind: str) -> Regression:
    """A loss that is no number, an infinite one, or a good one with a gradient that is none; all from batch 7 on."""
    task = Regression(CONFIG)
    honest = task.losses

    def losses(phase: str, batch: Any) -> dict[str, Tensor]:
        terms = honest(phase, batch)
        zero = (batch[2] * 0).sum() * task.model[0].weight.sum()
        bad = {"nan": zero * math.nan, "inf": zero + math.inf, "gradient": (zero + 0).sqrt()}[kind]
        return terms | ({"l1": terms["l1"] + bad} if batch[0] == 7 else {})

    task.losses = losses
    return task


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("nan", r"^fit/l1 is nan at step 8, on rows 0 to 7 of batch 7\."),
        ("inf", r"^fit/l1 is inf at step 8, on rows 0 to 7 of batch 7\."),
        ("gradient", r"^fit/gradient_norm is nan at step 8, on rows 0 to 7 of batch 7\."),
    ],
)
def test_a_loss_that_is_no_number_is_named_and_never_kept(kind, said, tmp_path):
    with pytest.raises(MeshrecError, match=said):
        train(tmp_path, CONFIG, spoiled(kind))
    assert all(
        tensor.isfinite().all() for path in tmp_path.glob("*.safetensors") for tensor in load_file(path).values()
    )
    train(tmp_path)
    whole = train(tmp_path / "whole").folder
    assert (tmp_path / LAST).read_bytes() == (whole / LAST).read_bytes()


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_a_validation_figure_that_is_no_number_ends_the_run(figure, tmp_path):
    with pytest.raises(MeshrecError, match=rf"validation figure mse is {figure} after step 4,"):
        train(tmp_path, CONFIG, Scripted(CONFIG, [figure]))


def test_weights_that_overflow_are_not_written(tmp_path):
    config = changed(optimizer=OptimizerConfig(kind="sgd", learning_rate=1e308), validate_every=1)
    with pytest.raises(MeshrecError, match=r"weights \d\.weight are not finite after step 1"):
        train(tmp_path, config)
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / LAST).values())


def test_losses_that_change_their_names_are_the_tasks_fault(tmp_path):
    task = Regression(CONFIG)
    honest = task.losses
    task.losses = lambda phase, batch: honest(phase, batch) | ({"new": torch.tensor(0.0)} if batch[0] == 1 else {})
    with pytest.raises(ValueError, match=r"fit/new"):
        train(tmp_path, CONFIG, task)


# ---- what is told


def test_the_log_has_every_figure(tmp_path):
    train(tmp_path)
    log = read_log(tmp_path / LOG)
    assert [line["step"] for line in log] == [3, 4, 6, 8, 9, 12, 12]
    told = {"step", "fit/mse", "fit/l1", "fit/gradient_norm", "fit/learning_rate", "examples_per_s"}
    assert log[0].keys() == told
    assert log[1].keys() == {"step", "validation/mse", "validation/size"}
    assert log[1]["validation/size"] == log[3]["validation/size"], "validations draw the same random numbers"
    assert log[2]["fit/learning_rate"] == pytest.approx(0.02 * 0.9**2)


def test_the_terminal_shows_the_figures_and_a_file_gets_lines(tmp_path):
    for terminal in (False, True):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
        run(Regression(CONFIG), CONFIG, tmp_path / str(terminal), console=console)
        text = console.file.getvalue()
        assert "validation/mse" in text
        assert "12 steps are done. The best model" in text
        assert "step 4 of 12: " in text
        run(Regression(CONFIG), CONFIG, tmp_path / str(terminal), console=console)
        assert "holds 12 steps of this run" in console.file.getvalue()


def test_tensorboard_is_told_where_it_is_installed(tmp_path, monkeypatch):
    told = []
    writer = SimpleNamespace(add_scalar=lambda *figure: told.append(figure), close=lambda: told.append("closed"))
    module = SimpleNamespace(SummaryWriter=lambda folder, purge_step: told.append(purge_step) or writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    train(tmp_path)
    assert told[0] == 1
    assert told[-1] == "closed"
    assert {figure[0] for figure in told[1:-1]} > {"fit/mse", "validation/mse"}


# ---- random numbers


def test_streams_seeds_and_steps_are_their_own():
    places = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "a", 0, 1)]
    draws = [generator_of(*place).standard_normal() for place in places]
    assert len(set(draws)) == len(places)
    assert generator_of(0, "a", 0).standard_normal() == draws[0]


# ---- the script


SPLIT = replace(changed(ema=0.9), dropout=0.0)


def main(folder: Path, pace: str) -> None:
    with launched("cpu") as processes:
        if pace == "slow":
            config = changed(steps=300, log_every=5, validate_every=20, checkpoint_every=7)
            run(Regression(config, lambda step: time.sleep(0.005)), config, folder / "regression", processes)
            return
        for kind, task in TASKS.items():
            made = task(SPLIT)
            if not processes.first:
                for parameter in made.model.parameters():
                    nn.init.ones_(parameter)
            train(folder / kind, SPLIT, made, processes=processes)

        def stop(step: int) -> None:
            if step == 4 and not processes.first:
                os.kill(os.getpid(), signal.SIGTERM)

        outcome = train(folder / "stopped", SPLIT, Regression(SPLIT, stop), processes=processes)
        assert (outcome.step, outcome.exit_code) == (5, 143), "a signal to one process ends all of them"
        train(folder / "stopped", SPLIT, Regression(SPLIT), processes=processes)
        config = split_dropping()
        outcome = train(folder / "dropping", config, Watched(config, lambda step: stop(step + 1)), processes=processes)
        assert outcome.step == 4, "it stopped between being stuck and going back"
        task = Watched(config)
        train(folder / "dropping", config, task, processes=processes)
        for step, best in ((4, 2), (7, 5)):
            kept = load_file(folder / "dropping" / f"best_{best:08d}.safetensors")
            assert all(torch.equal(tensor, kept[name]) for name, tensor in task.seen[step].items())
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in threads if "gloo" in name], "threads that outlive training may abort the exit"


if __name__ == "__main__":
    impatient()
    main(Path(sys.argv[1]), sys.argv[2])
