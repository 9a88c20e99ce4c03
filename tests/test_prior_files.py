"""Laws of prior files: what is written comes back, what is broken is refused by name, what ships is what it says."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import roma
import torch
from pydantic import TypeAdapter

from meshrec.data.pose_augment import BODY_JOINTS, mirrored
from meshrec.errors import MeshrecError
from meshrec.prior_files import open_prior, read_prior, write_prior
from meshrec.tensor_files import read_tensors, write_tensors
from priors.build import BaseConfig, PriorConfig, build_prior
from priors.flow import FlowConfig
from priors.prior import Prior
from priors.so3 import nearest_rotations
from priors.vae import VAEConfig

WEIGHTS = Path(__file__).parents[1] / "meshrec" / "weights"
SHIPPED = sorted(path.stem for path in WEIGHTS.glob("prior_*.safetensors"))
KINDS = {
    "gaussian": PriorConfig(kind="gaussian"),
    "mixture": PriorConfig(kind="mixture", components=3),
    "flow": PriorConfig(kind="flow", flow=FlowConfig(activation="coupling", depth=2, hidden=8)),
    "paper": PriorConfig(
        kind="flow", chart="six_d", flow=FlowConfig(activation="prelu"), base=BaseConfig(kind="normal")
    ),
    "vae": PriorConfig(kind="vae", vae=VAEConfig(latent=4, hidden=16)),
}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def poses(*batch: int, seed: int = 1) -> torch.Tensor:
    return roma.rotvec_to_rotmat(0.4 * random(*batch, 23, 3, seed=seed))


def made(config: PriorConfig) -> Prior:
    """A prior whose every tensor differs from what `build_prior` gives."""
    prior = build_prior(config, torch.Generator().manual_seed(2), quantiles=5)
    state = prior.state_dict()
    for name, tensor in state.items():
        match name.rpartition(".")[-1]:
            case "mean_rotations":
                tensor.copy_(roma.rotvec_to_rotmat(0.3 * random(23, 3, seed=3)))
            case "energy_quantiles":
                tensor.copy_(torch.linspace(10, 200, 5))
            case "log_weights":
                tensor.copy_(random(*tensor.shape).log_softmax(0))
            case "whitening" | "whitenings":
                tensor.copy_((2 * tensor + 0.1 * random(*tensor.shape)).tril())
            case _:
                tensor.add_(0.02 * random(*tensor.shape))
    return prior


@pytest.mark.parametrize("kind", KINDS)
def test_a_written_prior_comes_back(kind, tmp_path):
    prior = made(KINDS[kind])
    loaded = read_prior(write_prior(tmp_path / "prior.safetensors", prior, KINDS[kind]))
    rotations = poses(4)
    for method in ("log_prob", "energy", "score"):
        again, before = getattr(loaded, method)(rotations), getattr(prior, method)(rotations)
        torch.testing.assert_close(again, before, rtol=1e-4, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("kind", ["gaussian", "paper"])
def test_mean_rotations_are_exact_though_the_file_is_in_single_precision(kind, tmp_path):
    prior = made(KINDS[kind])
    assert prior.mean_rotations.dtype == torch.float32
    means = read_prior(write_prior(tmp_path / "prior.safetensors", prior, KINDS[kind])).mean_rotations
    torch.testing.assert_close(means, prior.mean_rotations.double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(means.mT @ means, torch.eye(3).double().expand(23, 3, 3), rtol=0, atol=1e-14)


BROKEN: list[tuple[str, Callable, str]] = [
    ("density.means", lambda t: None, "density.means is missing"),
    ("surprise", lambda t: torch.zeros(3), "surprise is of shape"),
    ("density.means", lambda t: t[:, :-1], "density.means"),
    ("density.log_weights", lambda t: t[:-1], "density.log_weights"),
    ("density.log_weights", lambda t: t + 1, "log_weights must be the logarithms"),
    ("density.whitenings", lambda t: torch.where(t == t.max(), torch.nan, t), "whitenings has values that are not fin"),
    ("density.whitenings", lambda t: -t, "whitenings must have positive diagonals"),
    ("density.whitenings", lambda t: t.mT.contiguous(), "whitenings must be lower triangular"),
    ("chart.mean_rotations", lambda t: t[:-1], "mean_rotations"),
    ("chart.mean_rotations", lambda t: t * 2, "mean_rotations has matrices that are no rotations"),
    ("chart.mean_rotations", lambda t: -t, "mean_rotations has matrices that are no rotations"),
    ("energy_quantiles", lambda t: t.flip(0), "energy_quantiles must be two or more"),
    ("energy_quantiles", lambda t: t[:1], "energy_quantiles must be two or more"),
    ("energy_quantiles", lambda t: t.long(), "energy_quantiles is torch.int64"),
]


@pytest.mark.parametrize(("name", "change", "sentence"), BROKEN)
def test_a_broken_file_is_refused_by_the_name_of_the_tensor(name, change, sentence, tmp_path):
    path = write_prior(tmp_path / "prior.safetensors", made(KINDS["mixture"]), KINDS["mixture"])
    tensors, header = read_tensors(path)
    tensors = {key: value for key, value in (tensors | {name: change(tensors.get(name))}).items() if value is not None}
    write_tensors(path, tensors, header)
    with pytest.raises(MeshrecError, match=sentence) as told:
        read_prior(path)
    assert str(path) in str(told.value)


@pytest.mark.parametrize(
    ("kind", "name", "number"),
    [
        ("flow", "density.layers.0.weight", 0.0),
        ("flow", "density.base.log_dof", 1e4),
        ("vae", "decoder.last.weight", 1e38),
    ],
)
def test_a_prior_without_an_energy_is_refused(kind, name, number, tmp_path):
    """Every tensor alone is fine."""
    path = write_prior(tmp_path / "prior.safetensors", made(KINDS[kind]), KINDS[kind])
    tensors, header = read_tensors(path)
    write_tensors(path, tensors | {name: torch.full_like(tensors[name], number)}, header)
    with pytest.raises(MeshrecError, match="no finite number at its own mean pose"):
        read_prior(path)


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("", "its header is not that of one"),
        ("{]", "its header is not that of one"),
        ('{"kind": "oracle"}', "its header is not that of one"),
        (TypeAdapter(PriorConfig).dump_json(replace(KINDS["mixture"], joints=21)).decode(), "one of 21 joints"),
        (
            TypeAdapter(PriorConfig).dump_json(replace(KINDS["mixture"], components=4)).decode(),
            "log_weights is",
        ),
        ('{"kind": "mixture", "components": 1000000000000}', "its header is not that of one"),
        ('{"kind": "mixture", "components": 3, "colour": 5}', "its header is not that of one"),
        ('{"kind": "mixture", "components": 3, "base": {"colour": 5}}', "its header is not that of one"),
        ('{"kind": "flow", "base": {"dof": 0}}', "its header is not that of one"),
        ('{"kind": "flow", "base": {"dof": -1}}', "its header is not that of one"),
        ('{"kind": "flow", "base": {"dof": NaN}}', "its header is not that of one"),
        ('{"kind": "flow", "flow": {"depth": 1000000}}', "its header is not that of one"),
        ('{"kind": "vae", "vae": {"draws": 0}}', "its header is not that of one"),
        ('{"kind": "vae", "vae": {"draws": 1000000000000}}', "its header is not that of one"),
        ('{"kind": "vae", "vae": {"least_std_rad": -1}}', "its header is not that of one"),
    ],
)
def test_a_file_whose_header_is_of_something_else_is_refused(header, sentence, tmp_path):
    path = write_prior(tmp_path / "prior.safetensors", made(KINDS["mixture"]), KINDS["mixture"])
    write_tensors(path, read_tensors(path)[0], header)
    with pytest.raises(MeshrecError, match=sentence):
        read_prior(path)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no safetensors at all"])
def test_a_damaged_file_is_refused(damage, tmp_path):
    path = write_prior(tmp_path / "prior.safetensors", made(KINDS["gaussian"]), KINDS["gaussian"])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(MeshrecError, match=r"prior\.safetensors is no safetensors file"):
        read_prior(path)


def test_an_absent_file_an_unknown_name_and_none():
    with pytest.raises(MeshrecError, match="There is no file"):
        open_prior(Path("absent.safetensors"))
    with pytest.raises(MeshrecError, match=r"There is no prior named 'oracle'; there is .*gaussian"):
        open_prior("oracle")
    assert open_prior("none") is None


# ---- what ships


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_prior_is_what_its_card_says(name):
    path = WEIGHTS / f"{name}.safetensors"
    card = json.loads((WEIGHTS / f"{name}.json").read_text(encoding="utf-8"))
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "mocap.cs.cmu.edu" in card["acknowledgement"]
    assert read_prior(path).mean_rotations.shape == (23, 3, 3)


def test_all_shipped_priors_together_are_small():
    assert sum(path.stat().st_size for path in WEIGHTS.glob("prior_*")) < 2_000_000


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_prior_hardly_knows_left_from_right(name):
    prior = read_prior(WEIGHTS / f"{name}.safetensors")
    rotations = prior.sample(400, generator=torch.Generator().manual_seed(5)).double()
    energy = prior.energy(rotations)
    assert (energy - prior.energy(mirrored(rotations))).abs().mean() < energy.std() / 2


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_prior_knows_a_person_from_a_puppet(name):
    prior = read_prior(WEIGHTS / f"{name}.safetensors")
    rotations = prior.sample(400, generator=torch.Generator().manual_seed(4)).double()
    assert float(prior.score(rotations).mean()) > 0.3
    swapped = prior.energy(mirrored(rotations)).median() / prior.energy(rotations).median()
    assert 0.8 < float(swapped) < 1.4
    knee = BODY_JOINTS.index("left_knee")
    bent, backwards = rotations.clone(), rotations.clone()
    bent[:, knee] = roma.rotvec_to_rotmat(torch.tensor([0.8, 0.0, 0.0]).to(rotations))
    backwards[:, knee] = bent[:, knee].mT
    assert (prior.energy(backwards) > prior.energy(bent) + 2).double().mean() > 0.9
    anyhow = nearest_rotations(random(100, 23, 3, 3, seed=22))
    assert prior.score(anyhow).max() == 0
    straight = torch.eye(3, dtype=torch.float64).expand(23, 3, 3)
    assert float(prior.energy(straight)) < 10 * 3 * 23
