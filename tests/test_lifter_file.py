"""Laws of lifter files: what is written comes back, and what is foreign or broken is refused with a sentence."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter

from meshrec.assets import find_lifter
from meshrec.config import flat_settings
from meshrec.errors import MeshrecError
from meshrec.models.lifter_file import open_lifter, read_lifter, write_lifter
from meshrec.models.lifting import seen_everywhere
from meshrec.models.vae_lifter import LifterConfig, VaeLifter, folded
from meshrec.tensor_files import read_tensors, write_tensors
from meshrec.train.checkpoint import Card
from meshrec.train.lift import LiftRun

WEIGHTS = Path(__file__).parents[1] / "meshrec" / "weights"
SHIPPED = sorted(path.stem for path in WEIGHTS.glob("lift*.safetensors"))
THESIS = LifterConfig(hidden=16, latent=4)
BEST = replace(
    THESIS, place="ray", scale="pose", distance="learned", elevation="learned", split_encoders=True, dropout=0.0
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(config: LifterConfig) -> VaeLifter:
    """A lifter that has seen some poses: its statistics are not those of the start."""
    lifter = VaeLifter(config, torch.Generator().manual_seed(1)).train()
    points = 0.2 * random(200, 17, 2)
    lifter.start_at(points, seen_everywhere(points))
    with torch.no_grad():
        for parameter in lifter.parameters():
            parameter.add_(0.05 * random(*parameter.shape, seed=2))
        lifter(points, seen_everywhere(points))
    return lifter.eval()


def test_the_best_model_of_a_run_is_a_lifter(tmp_path):
    lifter, run = made(BEST), flat_settings(LiftRun(lifter=BEST))
    tensors = {f"lifter.{name}": tensor for name, tensor in lifter.state_dict().items()}
    card = Card(7, {"pa_mpjpe_mm": 50.0}, run)
    path = write_tensors(tmp_path / "b.safetensors", tensors | {"density.x": torch.ones(1)}, json.dumps(asdict(card)))
    loaded = read_lifter(path)
    assert loaded.config == BEST
    for name, tensor in lifter.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_the_last_checkpoint_of_a_run_points_to_the_best(tmp_path):
    state = json.dumps({"step": 7, "settings": flat_settings(LiftRun())})
    path = write_tensors(tmp_path / "last.safetensors", {"optimizer/lifter/x/step": torch.ones(1)}, state)
    with pytest.raises(MeshrecError, match=r"last checkpoint of a run; give the file best_"):
        read_lifter(path)


@pytest.mark.parametrize("config", [THESIS, BEST], ids=["thesis", "best"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_written_lifter_comes_back_in_half_precision(config, dtype, tmp_path):
    lifter = made(config).to(dtype)
    loaded = read_lifter(write_lifter(tmp_path / "lift.safetensors", lifter))
    assert loaded.config == config
    assert not loaded.training
    parameters = dict(lifter.named_parameters())
    for name, tensor in loaded.state_dict().items():
        before = lifter.state_dict()[name]
        expected = before.half() if name in parameters else before
        torch.testing.assert_close(tensor, expected.to(tensor), rtol=0, atol=0)
        assert tensor.dtype == (torch.int64 if name.endswith("num_batches_tracked") else torch.float32)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    points = 0.2 * random(5, 17, 2, seed=4)
    again, before = (
        model(points.to(kind), seen_everywhere(points)) for model, kind in ((loaded, torch.float32), (lifter, dtype))
    )
    torch.testing.assert_close(again.joints, before.joints.float(), rtol=0, atol=0.02)


def test_a_second_round_trip_changes_nothing(tmp_path):
    once = read_lifter(write_lifter(tmp_path / "once.safetensors", made(BEST)))
    twice = read_lifter(write_lifter(tmp_path / "twice.safetensors", once))
    for name, tensor in once.state_dict().items():
        assert torch.equal(tensor, twice.state_dict()[name])


def test_a_lifter_of_the_thesis_takes_nine_megabytes(tmp_path):
    path = write_lifter(tmp_path / "lift.safetensors", VaeLifter(LifterConfig()))
    assert path.stat().st_size < 9_000_000


def test_only_what_can_be_read_again_is_written(tmp_path):
    with pytest.raises(ValueError, match="not a folded one: its tensor encoder"):
        write_lifter(tmp_path / "lift.safetensors", folded(made(THESIS)))
    diverged = made(THESIS)
    diverged.decoder.joints.weight.data[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"decoder\.joints\.weight has values that are not finite in torch\.float16"):
        write_lifter(tmp_path / "lift.safetensors", diverged)
    assert not list(tmp_path.iterdir())


NORM = "encoder.trunks.0.0.norm"
BROKEN: list[tuple[str, Callable, str]] = [
    ("decoder.joints.bias", lambda t: None, "decoder.joints.bias is missing"),
    ("surprise", lambda t: torch.zeros(3), r"surprise is fractions of shape \(3,\), where .* has missing"),
    ("encoder.mean.weight", lambda t: t[:-1], r"encoder.mean.weight is fractions of shape \(3, 16\)"),
    ("encoder.mean.weight", lambda t: t.int(), "encoder.mean.weight is integers"),
    ("encoder.mean.weight", lambda t: t * torch.nan, "encoder.mean.weight has values that are not finite"),
    (f"{NORM}.running_var", lambda t: -t, "running_var must be 0 or more"),
    (f"{NORM}.num_batches_tracked", lambda t: t.float(), "num_batches_tracked is fractions"),
    ("path", lambda t: 0 * t, "path must be above 0"),
    ("path", lambda t: t[None], r"path is fractions of shape \(1,\)"),
    ("path", lambda t: t / 0, "path has values that are not finite"),
    ("squares", lambda t: 0 * t, "squares must be 0 or more, and not all 0"),
    ("squares", lambda t: -t, "squares must be 0 or more, and not all 0"),
    ("squares", lambda t: t[1:], "squares is fractions of shape"),
]


@pytest.mark.parametrize(("name", "change", "sentence"), BROKEN)
def test_a_broken_file_is_refused_by_the_name_of_the_tensor(name, change, sentence, tmp_path):
    path = write_lifter(tmp_path / "lift.safetensors", made(THESIS))
    tensors, header = read_tensors(path)
    tensors = {key: value for key, value in (tensors | {name: change(tensors.get(name))}).items() if value is not None}
    write_tensors(path, tensors, header)
    with pytest.raises(MeshrecError, match=sentence) as told:
        read_lifter(path)
    assert str(path) in str(told.value)


def test_a_lifter_without_a_finite_answer_is_refused(tmp_path):
    """Every tensor alone is fine."""
    path = write_lifter(tmp_path / "lift.safetensors", made(THESIS))
    tensors, header = read_tensors(path)
    large = {name: tensor.float() * 1e30 for name, tensor in tensors.items() if name.endswith("linear.weight")}
    write_tensors(path, tensors | large, header)
    with pytest.raises(MeshrecError, match="what it lifts is no finite number"):
        read_lifter(path)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{]",
        "[]",
        '{"kind": "flow"}',
        '{"hidden": 1000000000000}',
        '{"hidden": 0}',
        '{"blocks": 100000}',
        '{"dropout": NaN}',
        '{"radius": -1}',
        '{"place": "anywhere"}',
        '{"hidden": 16, "latent": 4}, {"hidden": 16, "latent": 4}',
    ],
)
def test_a_file_whose_header_is_of_something_else_is_refused(header, tmp_path):
    path = write_lifter(tmp_path / "lift.safetensors", made(THESIS))
    write_tensors(path, read_tensors(path)[0], header)
    with pytest.raises(MeshrecError, match="is no lifter: its header is not that of one"):
        read_lifter(path)


@pytest.mark.parametrize("change", [{"hidden": 32}, {"hidden": 10_000, "blocks": 100}, {"distance": "learned"}])
def test_a_header_of_another_lifter_is_refused(change, tmp_path):
    path = write_lifter(tmp_path / "lift.safetensors", made(THESIS))
    header = TypeAdapter(LifterConfig).dump_json(replace(THESIS, **change)).decode()
    write_tensors(path, read_tensors(path)[0], header)
    with pytest.raises(MeshrecError, match="is no lifter that can be read: its tensor"):
        read_lifter(path)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no safetensors at all"])
def test_a_damaged_file_is_refused(damage, tmp_path):
    path = write_lifter(tmp_path / "lift.safetensors", made(THESIS))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(MeshrecError, match=r"lift\.safetensors is no safetensors file"):
        read_lifter(path)


def test_a_prior_is_no_lifter():
    with pytest.raises(MeshrecError, match="is no lifter: its header is not that of one"):
        read_lifter(WEIGHTS / "prior_flow.safetensors")


def test_lifters_are_found_by_name_and_by_path(tmp_path, monkeypatch):
    monkeypatch.setenv("MESHREC_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("meshrec.assets.SHIPPED", tmp_path / "shipped")
    shipped = write_lifter(tmp_path / "shipped" / "weights" / "lift.safetensors", made(THESIS))
    write_tensors(tmp_path / "shipped" / "weights" / "prior_flow.safetensors", {}, "")
    assert find_lifter("lift") == find_lifter(shipped) == find_lifter(str(shipped)) == shipped
    assert open_lifter().config == THESIS
    mine = write_lifter(tmp_path / "data" / "weights" / "lift.safetensors", made(BEST))
    other = write_lifter(tmp_path / "data" / "weights" / "lift_mine.safetensors", made(BEST))
    assert (find_lifter("lift"), find_lifter("lift_mine")) == (mine, other)
    assert open_lifter("lift_mine").config == BEST
    with pytest.raises(MeshrecError, match=r"no lifter named 'prior_flow'; there is lift, lift_mine\. .*meshrec train"):
        open_lifter("prior_flow")
    with pytest.raises(MeshrecError, match="There is no file"):
        open_lifter(Path("absent.safetensors"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_lifter_is_what_its_card_says(name):
    path = WEIGHTS / f"{name}.safetensors"
    card = json.loads((WEIGHTS / f"{name}.json").read_text(encoding="utf-8"))
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stat().st_size < 10_000_000
    assert open_lifter(name).config
