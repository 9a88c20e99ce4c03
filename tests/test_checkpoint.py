"""Checkpoints: one file, whole or not at all, refused by the name of what does not fit."""

import errno
import io
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from meshrec import tensor_files
from meshrec.errors import MeshrecError
from meshrec.train.checkpoint import LAST, Best, Card, Checkpoints, State, load_best, read_checkpoint, write_checkpoint
from meshrec.train.descent import Descent, OptimizerConfig, Phase
from meshrec.train.journal import LOG, LogFile, read_log
from meshrec.train.loop import LOCK, run
from meshrec.train.processes import Share
from meshrec.train.training import LoopConfig

STATE = State(7, 2, (Best(0.1, 4), Best(0.30000000000000004, 6)), ("fit/mse",), {"loop.steps": 9, "data": ["a"]})
CARD = Card(7, {"mse": 0.1}, {"loop.steps": 9})
TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.bool]


@pytest.mark.parametrize("header", [STATE, CARD])
@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_written_is_read_back(header, dtype, tmp_path):
    numbers = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 10
    whole = numbers.to(dtype)
    odd = {"last": whole.to(memory_format=torch.channels_last), "turned": whole.mT, "part": whole[0, 1:, ::2]}
    tensors = {"whole": whole, "same": whole, "none": whole[:0], "number": whole[0, 0, 0, 0], **odd}
    path = write_checkpoint(tmp_path / "a.safetensors", header, tensors)
    again, read = read_checkpoint(path, type(header))
    assert again == header
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) and read[name].dtype == dtype for name in tensors)


def test_the_best_models_stay_until_last_no_longer_lists_them(tmp_path, monkeypatch):
    files = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        files.write_best(Best(-float(step), step), nn.Linear(2, 2), CARD)
    files.write_last(State(best=(Best(-1.0, 1), Best(-2.0, 2))), {})
    assert names(tmp_path) == {LAST, "best_00000001.safetensors", "best_00000002.safetensors"}
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(tensor_files, "save_file", interrupt)
        files.write_last(State(best=(Best(-3.0, 3),)), {})
    assert names(tmp_path) == {LAST, "best_00000001.safetensors", "best_00000002.safetensors"}
    assert files.read_last() == (State(best=(Best(-1.0, 1), Best(-2.0, 2))), {})


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (nn.Linear(2, 4), r"its tensor weight is float32 \(3, 2\), where the model to load has float32 \(4, 2\)"),
        (nn.Linear(2, 3).double(), r"its tensor weight is float32 \(3, 2\), where .* float64 \(3, 2\)"),
        (nn.Linear(2, 3, bias=False), r"its tensor bias is float32 \(3,\), where the model to load has missing"),
        (nn.Sequential(nn.Linear(2, 3)), r"its tensor 0\.weight is missing, where .* has float32 \(3, 2\)"),
    ],
)
def test_the_weights_of_another_model_are_refused_and_nothing_is_loaded(other, said, tmp_path):
    path = write_checkpoint(tmp_path / "a.safetensors", CARD, nn.Linear(2, 3).state_dict())
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(MeshrecError, match=said):
        load_best(path, other)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


DAMAGE = [
    (lambda whole: whole[:-1], "cut off"),
    (lambda whole: whole[:20], "cut off"),
    (lambda whole: b"", "cut off"),
    (lambda whole: b"no tensors at all", "cut off"),
    (lambda whole: whole.replace(b"stale", b"stele"), "not written by this training loop"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGE)
def test_a_damaged_file_is_refused(damage, said, tmp_path):
    path = write_checkpoint(tmp_path / "a.safetensors", STATE, {"x": torch.zeros(9)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(MeshrecError, match=rf"a\.safetensors .*{said}"):
        read_checkpoint(path, State)


@pytest.mark.parametrize(("header", "kind"), [(STATE, Card), (CARD, State)])
def test_one_kind_of_file_is_not_taken_for_the_other(header, kind, tmp_path):
    path = write_checkpoint(tmp_path / "a.safetensors", header, {})
    with pytest.raises(MeshrecError, match="not written by this training loop"):
        read_checkpoint(path, kind)


def test_a_foreign_file_and_none_at_all_are_refused(tmp_path):
    save_file({"x": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(MeshrecError, match=r"foreign\.safetensors was not written"):
        read_checkpoint(tmp_path / "foreign.safetensors", Card)
    with pytest.raises(MeshrecError, match=r"Cannot read .*absent"):
        read_checkpoint(tmp_path / "absent.safetensors", Card)


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_an_optimiser_goes_on_from_its_tensors(kind):
    def built() -> tuple[nn.Module, Descent]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.PReLU(), nn.Linear(4, 1))
        return model, Descent(Phase("fit", (model,)), OptimizerConfig(kind=kind, weight_decay=0.1), model)

    def step(model: nn.Module, descent: Descent, seed: int) -> None:
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
        descent.backward(model(x).square().mean())
        descent.step(0.01)

    model, descent = built()
    for seed in range(3):
        step(model, descent, seed)
    other, again = built()
    other.load_state_dict(model.state_dict())
    again.load({name: tensor.clone() for name, tensor in descent.tensors()})
    for seed in range(3, 6):
        step(model, descent, seed)
        step(other, again, seed)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


# ---- a full disk


@dataclass(frozen=True)
class LineConfig:
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=9, batch=2, log_every=1, validate_every=3, checkpoint_every=2)
    )


class Line:
    """y = 2 x, with enough weights to fill a small disk."""

    selected_by = "mse"
    fingerprint = ""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(1, 2000)
        self.phases = (Phase("fit", (self.model,)),)

    def batch(self, step: int, share: Share) -> Tensor:
        return torch.arange(step, step + 2.0)[share.rows(2), None]

    def losses(self, phase: str, batch: Any) -> dict[str, Tensor]:
        return {"mse": (self.model(batch) - 2 * batch).square().mean()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        return {"mse": float((model.weight - 2).square().mean())}

    def describe(self, batch: Any) -> str:
        return f"{batch.tolist()}"


def train(folder: Path) -> None:
    run(Line(), LineConfig(), folder, console=Console(file=io.StringIO()))


@contextmanager
def disk_of(bytes_a_file: int) -> Iterator[None]:
    """The system refuses to let any file grow beyond this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_without_room_is_advice_before_the_first_step(tmp_path):
    with disk_of(10_000), pytest.raises(MeshrecError, match=r"Cannot write .*last\.safetensors: File too large"):
        train(tmp_path)
    assert names(tmp_path) == {"config.yaml", LOG, LOCK}
    assert read_log(tmp_path / LOG) == []


@pytest.mark.parametrize("writes", [1, 2, 3, 4, 5])
def test_a_disk_that_fills_leaves_the_last_checkpoint_and_the_run_goes_on_from_it(writes, tmp_path, monkeypatch):
    left = [writes]

    def filling(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        if not left[0]:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        save_file(tensors, path, metadata)

    with monkeypatch.context() as disk:
        disk.setattr(tensor_files, "save_file", filling)
        with pytest.raises(MeshrecError, match=r"Cannot write .*safetensors: No space left on device\. Free"):
            train(tmp_path / "full")
    files = Checkpoints(tmp_path / "full")
    found = files.read_last()
    assert found is not None
    assert {best.file for best in found[0].best} <= names(tmp_path / "full")
    train(tmp_path / "full")
    train(tmp_path / "whole")
    assert names(tmp_path / "full") == names(tmp_path / "whole")
    for name in names(tmp_path / "full") - {LOG}:
        assert (tmp_path / "full" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    steps = [[line["step"] for line in read_log(tmp_path / one / LOG)] for one in ("full", "whole")]
    assert steps[0] == steps[1]
    assert load_file(tmp_path / "full" / LAST)["model/weight"].isfinite().all()


def test_a_log_that_cannot_grow_is_advice(tmp_path):
    log = LogFile(tmp_path / LOG, 0)
    log.figures(1, {"mse": 0.5})
    with disk_of(40), pytest.raises(MeshrecError, match=r"Cannot write .*log\.jsonl: File too large.*goes on from"):
        try:
            log.figures(2, {"mse": 0.25})
        finally:
            log.close()
    assert read_log(tmp_path / LOG) == [{"step": 1, "mse": 0.5}]


def test_a_log_goes_on_after_its_step(tmp_path):
    log = LogFile(tmp_path / LOG, 0)
    for step in range(1, 6):
        log.figures(step, {"mse": step / 2})
    log.close()
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 6, "ms')
    assert [line["step"] for line in read_log(tmp_path / LOG)] == [1, 2, 3, 4, 5]
    log = LogFile(tmp_path / LOG, 3)
    log.figures(4, {"mse": float("nan")})
    log.close()
    assert [line["mse"] for line in read_log(tmp_path / LOG)] == [0.5, 1.0, 1.5, None]


@pytest.mark.parametrize("text", [b"hello\n{}\n", b"{}\n", b"[1]\n{}\n", b'{"step": null}\n', b"\xff\xfe\n{}\n"])
def test_a_log_that_is_none_is_refused(text, tmp_path):
    (tmp_path / LOG).write_bytes(text)
    with pytest.raises(MeshrecError, match=r"log\.jsonl is damaged"):
        LogFile(tmp_path / LOG, 0)
