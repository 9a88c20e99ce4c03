"""An ONNX file answers as torch does, for any number of people, and does not appear otherwise."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from meshrec import export_onnx as module
from meshrec.errors import MeshrecError
from meshrec.export_onnx import INPUT, OUTPUTS, command, export_onnx
from meshrec.models.mesh_file import write_regressor
from meshrec.models.regressor import MeshNetConfig, MeshRegressor

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CONFIG = MeshNetConfig("resnet50", crop_px=32)


@pytest.fixture(scope="module")
def network() -> MeshRegressor:
    made = MeshRegressor(CONFIG, torch.Generator().manual_seed(0)).train()
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        made(torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "mesh.onnx"
    assert export_onnx(network, path) < 1e-4
    return path


@pytest.mark.parametrize("people", [1, 2, 5])
def test_onnxruntime_answers_as_torch_does(network, exported, people):
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    image = torch.randn(people, 3, 32, 32, generator=torch.Generator().manual_seed(people))
    expected = network(image)
    for name, answer in zip(OUTPUTS, session.run(list(OUTPUTS), {INPUT: image.numpy()}), strict=True):
        torch.testing.assert_close(torch.from_numpy(answer), getattr(expected, name), rtol=1e-3, atol=1e-4)


def test_the_file_says_what_it_is(exported):
    model = onnx.load(str(exported))
    words = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(words["meshrec"])["backbone"] == "resnet50"
    assert words["joints"].split()[0] == "pelvis"
    assert words.keys() >= OUTPUTS.keys() | {INPUT}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "people"
    assert words["root"].startswith("the camera's")
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)


def test_a_network_that_looks_at_joints_alone_is_a_file_too(tmp_path):
    config = MeshNetConfig("none", "proxy", crop_px=32, base="joints", root="sight")
    blind = MeshRegressor(config, torch.Generator().manual_seed(0)).eval()
    assert export_onnx(blind, tmp_path / "blind.onnx") < 1e-3, "of one person, and of three"


def test_a_network_of_proxies_takes_eighteen_maps_and_says_whose_axes_it_answers_in(exported, tmp_path):
    with torch.device("meta"):
        proxies = MeshRegressor(MeshNetConfig("resnet50", "proxy", crop_px=32, root="sight"))
    assert module._crops(proxies, 2).shape == (2, 18, 32, 32)
    path = Path(shutil.copy(exported, tmp_path / "mesh.onnx"))
    module._describe(onnx, proxies, path)
    words = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    assert words["root"].startswith("those of a camera that stands in the same place") and "COCO-17" in words[INPUT]


def test_a_file_that_answers_otherwise_does_not_appear(network, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_export", lambda other, path: shutil.copy(exported, path))
    with torch.random.fork_rng():
        other = MeshRegressor(CONFIG, torch.Generator().manual_seed(3)).eval()
    with pytest.raises(MeshrecError, match=r"onnxruntime and torch differ by .*mesh\.onnx is not written"):
        export_onnx(other, tmp_path / "mesh.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages_are_named(network, missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MeshrecError, match=rf'{missing}.*pip install "meshrec\[onnx\]"'):
        export_onnx(network, tmp_path / "mesh.onnx")


def test_the_verb_writes_the_file(network, exported, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "_export", lambda other, path: shutil.copy(exported, path))
    monkeypatch.setattr(module, "TOLERANCE", 0.2)
    weights = write_regressor(tmp_path / "mesh.safetensors", network)
    assert command(str(weights), output=tmp_path / "mesh.onnx") == 0
    assert (tmp_path / "mesh.onnx").is_file()
    assert "onnxruntime answers as torch does" in capsys.readouterr().err
    with pytest.raises(MeshrecError, match="no mesh regressor named"):
        command("absent", output=tmp_path / "other.onnx")
