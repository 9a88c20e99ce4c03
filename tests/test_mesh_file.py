"""Laws of mesh regressors' files: what is written comes back, and what is foreign or broken gets a sentence."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from meshrec.assets import find_regressor
from meshrec.config import flat_settings
from meshrec.errors import MeshrecError
from meshrec.models.mesh_file import OURS, open_regressor, read_regressor, write_regressor
from meshrec.models.regressor import MeshNetConfig, MeshRegressor, for_inference
from meshrec.tensor_files import read_tensors, write_tensors
from meshrec.train.checkpoint import Card

CONFIG = MeshNetConfig("hrnet_w18", "proxy", "downsampled", crop_px=64, root="sight")
WEIGHTS = Path(__file__).parents[1] / "meshrec" / "weights"


@pytest.fixture(scope="module")
def network() -> MeshRegressor:
    made = MeshRegressor(CONFIG, torch.Generator().manual_seed(0)).train()
    with torch.no_grad():
        for _ in range(2):
            made(torch.randn(4, 18, 32, 32, generator=torch.Generator().manual_seed(1)))
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def written(network, tmp_path_factory) -> Path:
    return write_regressor(tmp_path_factory.mktemp("written") / "mesh.safetensors", network)


def test_a_written_regressor_comes_back_in_half_precision(network, written):
    loaded, parameters, state = read_regressor(written), dict(network.named_parameters()), network.state_dict()
    assert loaded.config == CONFIG
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    for name, tensor in loaded.state_dict().items():
        before = state[name]
        expected = before.half().float() if name in parameters else before
        assert torch.equal(tensor, expected)
        assert tensor.dtype == before.dtype
    assert written.stat().st_size < 2.2 * sum(parameter.numel() for parameter in network.parameters())


def test_the_best_model_of_a_run_is_a_regressor(network, tmp_path):
    tensors = {f"{OURS}{name}": tensor for name, tensor in network.state_dict().items()}
    settings = {f"{OURS}{name}": value for name, value in flat_settings(CONFIG).items()} | {"loop.batch": 32}
    card = json.dumps(asdict(Card(7, {"pa_mpjpe_mm": 50.0}, settings)))
    path = write_tensors(tmp_path / "best.safetensors", tensors | {"other.x": torch.ones(1)}, card)
    loaded, state = read_regressor(path), network.state_dict()
    assert loaded.config == CONFIG
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    last = write_tensors(tmp_path / "last.safetensors", {"optimizer/x/step": torch.ones(1)}, card)
    with pytest.raises(MeshrecError, match=r"last checkpoint of a run; give the file best_"):
        read_regressor(last)


def test_only_what_can_be_read_again_is_written(network, tmp_path):
    with pytest.raises(ValueError, match="only a regressor as it was built can be written: its tensor backbone"):
        folded = MeshRegressor(CONFIG)
        folded.backbone = for_inference(folded).network.backbone  # type: ignore[assignment]
        write_regressor(tmp_path / "x.safetensors", folded)
    diverged = MeshRegressor(CONFIG)
    diverged.head.cam_mlp.weight.data[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"head\.cam_mlp\.weight has values that are not finite in torch\.float16"):
        write_regressor(tmp_path / "x.safetensors", diverged)
    assert not list(tmp_path.iterdir())


BROKEN = [
    ("head.cam_mlp.bias", lambda t: None, r"head\.cam_mlp\.bias is missing"),
    ("head.cam_mlp.bias", lambda t: t[:2], r"head\.cam_mlp\.bias is fractions of shape \(2,\)"),
    ("head.cam_mlp.bias", lambda t: t * torch.nan, r"head\.cam_mlp\.bias has values that are not finite"),
    ("surprise", lambda t: torch.zeros(3), r"surprise is fractions of shape \(3,\), where the network has missing"),
    ("backbone.bn1.running_var", lambda t: -t, r"running_var must be 0 or more"),
    ("backbone.bn1.num_batches_tracked", lambda t: t.float(), r"num_batches_tracked is fractions"),
    ("head.shape_mlp.weight", lambda t: t.float() + 3e38, "what it says of a grey picture is no finite number"),
]


@pytest.mark.parametrize(("name", "change", "sentence"), BROKEN)
def test_a_broken_file_is_refused_by_the_name_of_the_tensor(written, name, change, sentence, tmp_path):
    tensors, header = read_tensors(written)
    changed = tensors | {name: change(tensors.get(name))}
    path = write_tensors(tmp_path / "m.safetensors", {k: v for k, v in changed.items() if v is not None}, header)
    with pytest.raises(MeshrecError, match=sentence) as told:
        read_regressor(path)
    assert str(path) in str(told.value)


@pytest.mark.parametrize(
    "header", ["", "{]", "[]", '{"kind": "flow"}', '{"crop_px": 100}', '{"crop_px": 1e9}', '{"backbone": "vit"}']
)
def test_a_file_whose_header_is_of_something_else_is_refused(header, tmp_path):
    path = write_tensors(tmp_path / "m.safetensors", {"x": torch.ones(1)}, header)
    with pytest.raises(MeshrecError, match="is no mesh regressor: its header is not that of one"):
        read_regressor(path)


@pytest.mark.parametrize("change", [{"backbone": "hrnet_w32"}, {"input": "rgb"}, {"base": "nothing"}])
def test_a_header_of_another_regressor_is_refused(written, change, tmp_path):
    header = json.dumps(asdict(replace(CONFIG, **change)))
    path = write_tensors(tmp_path / "m.safetensors", read_tensors(written)[0], header)
    with pytest.raises(MeshrecError, match="does not fit: its tensor"):
        read_regressor(path)


def test_a_header_that_says_nothing_of_the_root_means_the_camera_s_axes(written, tmp_path):
    """As in files and runs from before there was a choice."""
    header = {name: value for name, value in asdict(CONFIG).items() if name != "root"}
    path = write_tensors(tmp_path / "m.safetensors", read_tensors(written)[0], json.dumps(header))
    assert read_regressor(path).config == replace(CONFIG, root="camera")


def test_damaged_and_foreign_files_are_refused(written, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(written.read_bytes()[:-100])
    with pytest.raises(MeshrecError, match=r"cut\.safetensors is no safetensors file, or is cut off"):
        read_regressor(tmp_path / "cut.safetensors")
    for foreign in WEIGHTS.glob("prior_flow.safetensors"):
        with pytest.raises(MeshrecError, match="is no mesh regressor"):
            read_regressor(foreign)


def test_regressors_are_found_by_name_and_by_path(written, tmp_path, monkeypatch):
    monkeypatch.setenv("MESHREC_DATA", str(tmp_path))
    (tmp_path / "weights").mkdir()
    mine = tmp_path / "weights" / "mesh_mine.safetensors"
    mine.write_bytes(written.read_bytes())
    (tmp_path / "weights" / "mesh_pare.ckpt").write_bytes(b"no weights")
    assert find_regressor("mesh_mine") == find_regressor(mine) == find_regressor(str(mine)) == mine
    assert open_regressor("mesh_mine").config == CONFIG
    with pytest.raises(MeshrecError, match=r"mesh_pare\.ckpt holds no weights that torch saved"):
        open_regressor("mesh_pare")
    with pytest.raises(MeshrecError, match=r"no mesh regressor named 'lift'; there is mesh, mesh_mine, mesh_pare\."):
        open_regressor("lift")
