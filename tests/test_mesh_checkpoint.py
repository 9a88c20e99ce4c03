"""Published weights: read without running the file, every tensor accounted for, and the answers as specified."""

import collections
import io
import os
import pickle
import re
import struct
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from meshrec.errors import MeshrecError
from meshrec.models.checkpoint import load_backbone, read_official
from meshrec.models.regressor import MeshNetConfig, MeshRegressor
from meshrec.models.torch_file import TorchFile
from meshrec.tensor_files import write_tensors

SIZE = 64
OFFICIAL = MeshNetConfig("hrnet_w18", base="nothing", root="camera")


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network() -> MeshRegressor:
    """Random weights whose maps keep their size, with batch norms that are not those of the start."""
    made = MeshRegressor(OFFICIAL, torch.Generator().manual_seed(0)).train()
    generator = torch.Generator().manual_seed(1)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.normal_(module.weight, 1.0, 0.2, generator=generator)
            nn.init.normal_(module.bias, 0.0, 0.2, generator=generator)
    for layer in (made.head.pose_mlp, made.head.shape_mlp, made.head.cam_mlp, made.head.keypoint_final_layer):
        nn.init.normal_(layer.weight, 0.0, 0.1, generator=generator)
    for layer in (made.head.shape_mlp, made.head.cam_mlp, made.head.keypoint_final_layer, made.head.smpl_final_layer):
        assert layer.bias is not None
        nn.init.normal_(layer.bias, 0.0, 0.1, generator=generator)
    with torch.no_grad():
        made(random(8, 3, SIZE, SIZE, seed=2))
    return made.eval().requires_grad_(False)


def official_state(network: MeshRegressor) -> dict[str, Tensor]:
    """The tensors of a published checkpoint: those of the network, and those that take no part."""
    state = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    return state | {
        "model.backbone.final_layer.weight": torch.zeros(17, 18, 1, 1),
        "model.backbone.final_layer.bias": torch.zeros(17),
        "model.head.init_pose": random(1, 144),
        "model.head.init_shape": random(1, 10),
        "model.head.init_cam": random(1, 3),
        "model.head.temperature": torch.tensor(7.0),
        "model.smpl.smpl.v_template": torch.zeros(4, 3),
        "smpl.v_template": torch.zeros(4, 3),
    }


def save_as_trainers_do(path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, **options: Any) -> Path:
    """As Lightning does: the weights among callbacks and a configuration, of packages that are not installed here."""
    for module, kind, bases in (("yacs.config", "CfgNode", (dict,)), ("pytorch_lightning.callbacks", "Watch", ())):
        package = types.ModuleType(module)
        made = type(kind, bases, {"__module__": module})
        vars(package)[kind] = made
        monkeypatch.setitem(sys.modules, module.partition(".")[0], types.ModuleType(module.partition(".")[0]))
        monkeypatch.setitem(sys.modules, module, package)
    config = sys.modules["yacs.config"].CfgNode(BACKBONE="hrnet", NESTED=sys.modules["yacs.config"].CfgNode(LR=1e-4))
    config.immutable = True
    watch = sys.modules["pytorch_lightning.callbacks"].Watch
    everything = {
        "epoch": 3,
        "callbacks": {watch: {"best": torch.tensor(50.9), "path": Path("best.ckpt"), "score": np.float64(50.9)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}],
        "hyper_parameters": config,
        "state_dict": collections.OrderedDict(state),
        "seen": {1, 2},
    }
    torch.save(everything, path, **options)
    monkeypatch.undo()
    return path


# ---- the network as specified, written down a second time


class Plain:
    """The published network from its named tensors alone: loops, no modules."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = {name.removeprefix("model."): tensor.double() for name, tensor in state.items()}

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return conv2d(x, weight, self.state.get(f"{name}.bias"), stride, padding=weight.shape[-1] // 2)

    def norm(self, name: str, x: Tensor) -> Tensor:
        scale, shift, mean, variance = (
            self.state[f"{name}.{part}"].reshape(1, -1, 1, 1)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def block(self, name: str, x: Tensor) -> Tensor:
        y, layers = x, 3 if f"{name}.conv3.weight" in self.state else 2
        for layer in range(1, layers + 1):
            y = self.norm(f"{name}.bn{layer}", self.conv(f"{name}.conv{layer}", y))
            y = y.clamp(min=0) if layer < layers else y
        if f"{name}.downsample.0.weight" in self.state:
            x = self.norm(f"{name}.downsample.1", self.conv(f"{name}.downsample.0", x))
        return (x + y).clamp(min=0)

    def step(self, name: str, x: Tensor, stride: int, rectified: bool = True) -> Tensor:
        y = self.norm(f"{name}.1", self.conv(f"{name}.0", x, stride))
        return y.clamp(min=0) if rectified else y

    def exchange(self, name: str, xs: list[Tensor]) -> list[Tensor]:
        """One module of a stage: four blocks in each branch, then every branch to every other."""
        for branch in range(len(xs)):
            for block in range(4):
                xs[branch] = self.block(f"{name}.branches.{branch}.{block}", xs[branch])
        sums = []
        for to in range(len(xs)):
            total = torch.zeros_like(xs[to])
            for source, x in enumerate(xs):
                fuse = f"{name}.fuse_layers.{to}.{source}"
                if source > to:
                    x = self.step(fuse, x, 1, rectified=False)
                    x = x.repeat_interleave(2 ** (source - to), -1).repeat_interleave(2 ** (source - to), -2)
                for doubling in range(to - source):
                    x = self.step(f"{fuse}.{doubling}", x, 2, rectified=doubling < to - source - 1)
                total = total + x
            sums.append(total.clamp(min=0))
        return sums

    def features(self, x: Tensor) -> Tensor:
        root = "backbone"
        for layer in (1, 2):
            x = self.norm(f"{root}.bn{layer}", self.conv(f"{root}.conv{layer}", x, 2)).clamp(min=0)
        for block in range(4):
            x = self.block(f"{root}.layer1.{block}", x)
        xs = [self.step(f"{root}.transition1.0", x, 1), self.step(f"{root}.transition1.1.0", x, 2)]
        for stage, modules in ((2, 1), (3, 4), (4, 3)):
            if stage > 2:
                xs.append(self.step(f"{root}.transition{stage - 1}.{stage - 1}.0", xs[-1], 2))
            for module in range(modules):
                xs = self.exchange(f"{root}.stage{stage}.{module}", xs)
        for branch in (1, 2, 3):
            for doubling in range(branch):
                layer = f"{root}.upsample_stage_{branch + 1}.{4 * doubling}"
                conv, norm = (f"{root}.upsample_stage_{branch + 1}.{4 * doubling + place}" for place in (1, 2))
                assert f"{layer}.weight" not in self.state
                larger = interpolate(xs[branch], scale_factor=2, mode="bilinear", align_corners=True)
                xs[branch] = self.norm(norm, self.conv(conv, larger)).clamp(min=0)
        return torch.cat(xs, dim=1)

    def branch(self, name: str, x: Tensor) -> Tensor:
        for layer in (0, 3):
            x = self.norm(f"head.{name}.{layer + 1}", self.conv(f"head.{name}.{layer}", x)).clamp(min=0)
        return x

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        x = self.features(image.double())
        logits = self.conv("head.keypoint_final_layer", self.branch("keypoint_deconv_layers", x))
        body = self.branch("smpl_deconv_layers", x)
        shape = self.conv("head.smpl_final_layer", body)
        maps, rotations, columns = [], [], []
        for part in range(24):
            weight = logits[:, 1 + part].exp()
            weight = weight / weight.sum((1, 2), keepdim=True)
            maps.append(weight)
            sixd = (body * weight[:, None]).sum((2, 3)) @ self.state["head.pose_mlp.weight"][0, :, :, part, 0, 0].T
            first, second = sixd[:, [0, 2, 4]], sixd[:, [1, 3, 5]]
            first = first / first.norm(dim=1, keepdim=True)
            second = second - (first * second).sum(1, keepdim=True) * first
            second = second / second.norm(dim=1, keepdim=True)
            rotations.append(torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1))
            columns.append((shape * weight[:, None]).sum((2, 3)))
        flat = torch.stack(columns, dim=-1).reshape(len(image), 64 * 24)
        linear = {
            name: (self.state[f"head.{name}.weight"], self.state[f"head.{name}.bias"])
            for name in ("shape_mlp", "cam_mlp")
        }
        betas, weak = (flat @ weight.T + bias for weight, bias in linear.values())
        return {
            "rotations": torch.stack(rotations, dim=1),
            "betas": betas,
            "weak": weak,
            "attention": torch.stack(maps, dim=1),
        }


@pytest.mark.parametrize("legacy", [False, True])
def test_an_official_checkpoint_gives_the_official_answers(network, legacy, tmp_path, monkeypatch):
    state = official_state(network)
    path = save_as_trainers_do(
        tmp_path / "official.ckpt", state, monkeypatch, _use_new_zipfile_serialization=not legacy
    )
    loaded = read_official(path)
    assert loaded.config == OFFICIAL
    assert not loaded.training
    image = random(2, 3, SIZE, SIZE, seed=4)
    said, expected = loaded(image), Plain(state)(image)
    exact = loaded.double()(image.double())
    for name in ("rotations", "betas", "weak", "attention"):
        torch.testing.assert_close(getattr(exact, name), expected[name], rtol=0, atol=1e-9)
        close = 1e-5 if name == "attention" else 2e-4  # of random weights, whose betas and cameras reach 8
        torch.testing.assert_close(getattr(said, name).double(), expected[name], rtol=0, atol=close)
    assert (said.rotations - torch.eye(3)).abs().max() > 1
    assert said.attention.max() > 3 / said.attention[0, 0].numel()


def test_a_bare_state_dict_of_the_network_is_official_too(network, tmp_path):
    path = tmp_path / "bare.pt"
    torch.save({name.removeprefix("model."): tensor for name, tensor in official_state(network).items()}, path)
    assert torch.equal(read_official(path).head.pose_mlp.weight, network.head.pose_mlp.weight)


BROKEN = [
    ("model.head.cam_mlp.bias", lambda t: None, r"its tensor head\.cam_mlp\.bias is missing, where the network has"),
    ("model.head.cam_mlp.bias", lambda t: t[:2], r"head\.cam_mlp\.bias is fractions of shape \(2,\)"),
    ("model.head.cam_mlp.bias", lambda t: t.long(), r"head\.cam_mlp\.bias is integers"),
    ("model.head.cam_mlp.bias", lambda t: t * torch.nan, r"head\.cam_mlp\.bias has values that are not finite"),
    ("model.backbone.bn1.running_var", lambda t: -t, r"backbone\.bn1\.running_var must be 0 or more"),
    ("model.head.surprise", lambda t: torch.ones(2), r"head\.surprise is fractions .* where the network has missing"),
    ("another.weight", lambda t: torch.ones(2), r"another\.weight is fractions"),
    (
        "model.backbone.stage2.0.branches.0.0.conv1.weight",
        lambda t: t[:17],
        r"has 17 channels, where HRNets have 18",
    ),
    ("model.backbone.stage2.0.branches.0.0.conv1.weight", lambda t: t[:0], r"has 0 channels"),
    ("model.backbone.stage2.0.branches.0.0.conv1.weight", lambda t: None, r"so it has no HRNet with a part attention"),
]


@pytest.mark.parametrize(("name", "change", "sentence"), BROKEN)
def test_an_official_checkpoint_that_does_not_fit_is_refused_by_tensor(network, name, change, sentence, tmp_path):
    state = official_state(network)
    changed = change(state.get(name))
    state = {key: tensor for key, tensor in (state | {name: changed}).items() if tensor is not None}
    torch.save({"state_dict": state}, tmp_path / "official.ckpt")
    with pytest.raises(MeshrecError, match=sentence) as told:
        read_official(tmp_path / "official.ckpt")
    assert "official.ckpt" in str(told.value)


# ---- backbones


def backbone_state(network: MeshRegressor) -> dict[str, Tensor]:
    state = network.backbone.state_dict()
    return {name: tensor + 1 for name, tensor in state.items() if not name.startswith(("upsample", "deconv"))}


IMAGENET_HEAD = {
    "incre_modules.0.0.conv1.weight": torch.zeros(32, 18, 1, 1),
    "downsamp_modules.0.0.weight": torch.zeros(256, 128, 3, 3),
    "final_layer.0.weight": torch.zeros(2048, 1024, 1, 1),
    "classifier.weight": torch.zeros(1000, 2048),
}


def of_poses(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A pose network computes its finest branch alone at the end."""
    coarse = re.compile(r"stage4\.2\.fuse_layers\.[123]\..*")
    return {name: tensor for name, tensor in state.items() if not coarse.fullmatch(name)} | {
        "final_layer.weight": torch.zeros(17, 18, 1, 1),
        "final_layer.bias": torch.zeros(17),
    }


@pytest.mark.parametrize("kind", ["imagenet", "pose", "wrapped", "mmpose", "old", "safetensors", "official"])
def test_hrnets_are_loaded_into_the_backbone(network, kind, tmp_path):
    state = backbone_state(network)
    saved: dict[str, Any] = {
        "imagenet": state | IMAGENET_HEAD,
        "pose": of_poses(state),
        "wrapped": {"state_dict": {f"module.{name}": tensor for name, tensor in of_poses(state).items()}, "epoch": 3},
        "mmpose": {f"backbone.{name}": tensor for name, tensor in of_poses(state).items()}
        | {"keypoint_head.final_layer.weight": torch.zeros(1)},
        "old": {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")},
        "safetensors": state | IMAGENET_HEAD,
        "official": {f"model.backbone.{name}": tensor for name, tensor in state.items()}
        | {"model.head.cam_mlp.bias": torch.zeros(3)},
    }[kind]
    if kind == "safetensors":
        path = write_tensors(tmp_path / "hrnet.safetensors", saved, "")
    else:
        path = tmp_path / "hrnet.pth"
        torch.save(saved, path, _use_new_zipfile_serialization=kind != "pose")
    fresh = MeshRegressor(MeshNetConfig("hrnet_w18"), torch.Generator().manual_seed(9))
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    load = load_backbone(fresh, path)
    ours = fresh.backbone.state_dict()
    assert set(load.loaded) | set(load.left) == set(ours)
    assert all(torch.equal(ours[name], state[name]) for name in load.loaded)
    assert all(torch.equal(ours[name], before[f"backbone.{name}"]) for name in load.left)
    lacking = {"pose": "stage4.2.fuse_layers", "old": "num_batches_tracked"}.get(kind, "upsample_stage_2")
    assert any(lacking in name for name in load.left)
    assert all(torch.equal(tensor, before[f"head.{name}"]) for name, tensor in fresh.head.state_dict().items())


def test_a_proxy_network_keeps_its_own_first_layer(network, tmp_path):
    torch.save(backbone_state(network), tmp_path / "hrnet.pth")
    fresh = MeshRegressor(MeshNetConfig("hrnet_w18", "proxy"))
    assert "conv1.weight" in load_backbone(fresh, tmp_path / "hrnet.pth").left
    torch.testing.assert_close(fresh.backbone.conv2.weight, network.backbone.conv2.weight + 1)


def test_resnets_are_loaded_with_deconvolutions_where_they_have_some(tmp_path):
    made = MeshRegressor(MeshNetConfig("resnet50"), torch.Generator().manual_seed(1))
    state = made.backbone.state_dict()
    classes = {name: tensor for name, tensor in state.items() if not name.startswith("deconv_layers")}
    torch.save(classes | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, tmp_path / "classes.pth")
    torch.save(state | {"final_layer.weight": torch.zeros(16, 256, 1, 1)}, tmp_path / "poses.pth")
    for file, left in (("classes.pth", 18), ("poses.pth", 0)):
        load = load_backbone(MeshRegressor(MeshNetConfig("resnet50")), tmp_path / file)
        assert len(load.left) == left
        assert all(name.startswith("deconv_layers") for name in load.left)


def test_a_checkpoint_of_another_backbone_is_refused_by_tensor(network, tmp_path):
    torch.save(backbone_state(network), tmp_path / "hrnet_w18.pth")
    for other, sentence in (
        ("hrnet_w32", r"its tensor transition1\.0\.0\.weight is fractions of shape \(18, 256, 3, 3\), .*\(hrnet_w32\)"),
        (
            "resnet50",
            r"its tensor conv1\.weight is fractions of shape \(64, 3, 3, 3\), where the network has",
        ),
    ):
        with torch.device("meta"):
            wrong = MeshRegressor(MeshNetConfig(other))
        with pytest.raises(MeshrecError, match=sentence):
            load_backbone(wrong, tmp_path / "hrnet_w18.pth")
    torch.save(backbone_state(network) | {"neck.weight": torch.ones(1)}, tmp_path / "neck.pth")
    with pytest.raises(MeshrecError, match=r"its tensor neck\.weight is fractions .* has missing"):
        load_backbone(MeshRegressor(MeshNetConfig("hrnet_w18")), tmp_path / "neck.pth")


# ---- hostile files


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("asked", ["system", "eval", "exec", "Popen", "getattr", "__import__"])
def test_calls_are_refused_by_name_and_never_made(asked, legacy, tmp_path):
    mark = tmp_path / "mark"
    call = {
        "system": Call(os.system, f"touch {mark}"),
        "eval": Call(eval, f"open({str(mark)!r}, 'w').close()"),
        "exec": Call(exec, f"open({str(mark)!r}, 'w').close()"),
        "Popen": Call(subprocess.Popen, ["touch", str(mark)]),
        "getattr": Call(getattr, "text", "upper"),
        "__import__": Call(__import__, "os"),
    }[asked]
    path = tmp_path / "hostile.ckpt"
    torch.save({"state_dict": {"w": torch.ones(2)}, "config": call}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(MeshrecError, match=rf"asks for [\w.]*{asked}, which no file of arrays needs"):
        read_official(path)
    assert not mark.exists()


def test_calls_of_other_packages_are_not_made(tmp_path):
    mark = tmp_path / "mark"
    path = tmp_path / "hostile.ckpt"
    call = Call(np.save, str(mark), np.zeros(1))
    torch.save({"state_dict": {"w": torch.ones(2)}, "config": call, "again": Call(torch.load, "absent.pt")}, path)
    assert list(TorchFile(path).read(["w"])["w"]) == [1.0, 1.0]
    assert not list(tmp_path.glob("mark*"))


@pytest.mark.parametrize("value", [3, "text", None, [torch.ones(1)], {"w": torch.ones(1)}, Call(complex, 1.0)])
def test_what_is_no_tensor_is_named(value, tmp_path):
    torch.save({"fine": torch.ones(1), "odd": value}, tmp_path / "x.pt")
    with pytest.raises(MeshrecError, match=r"no weights that torch saved: it has 'odd', a [\w.]+, where a tensor"):
        TorchFile(tmp_path / "x.pt")


def archive(path: Path, program: bytes, storages: dict[str, bytes] | None = None, compression: int = 0) -> Path:
    """An archive as torch lays it out, with any program."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", program)
        for key, raw in (storages or {}).items():
            file.writestr(f"archive/data/{key}", raw)
    return path


def tensor_program(count: str, offset: str, size: str, stride: str, kind: str = "FloatStorage") -> bytes:
    """A dictionary of one tensor, written by hand."""
    storage = f"((S'storage'\nctorch\n{kind}\nS'0'\nS'cpu'\n{count}tQ"
    return (f"(dS'w'\nctorch._utils\n_rebuild_tensor_v2\n{storage}{offset}{size}{stride}I00\n(dtRs.").encode()


GOOD = ("I4\n", "I0\n", "(I2\nI2\nt", "(I2\nI1\nt")


def test_a_tensor_written_by_hand_is_read(tmp_path):
    path = archive(tmp_path / "x.pt", tensor_program(*GOOD), {"0": struct.pack("<4f", 1, 2, 3, 4)})
    assert TorchFile(path).read(["w"])["w"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({0: "I4000000000000\n"}, "16 bytes for 4000000000000 numbers"),
        ({0: "I-4\n"}, "storage of an unknown form"),
        ({0: "S'4'\n"}, "storage of an unknown form"),
        ({1: "I1\n"}, r"the tensor w, which has the shape \(2, 2\), of which its file holds 4 numbers"),
        ({1: "I-1\n"}, "the tensor w, which is a damaged tensor"),
        ({2: "(I1000000\nI1000000\nt", 3: "(I0\nI0\nt"}, "of which its file holds 4 numbers"),
        ({2: "(I-1\nI-1\nt"}, "damaged tensor"),
        ({2: "(I2\nt"}, "damaged tensor"),
        ({2: "I2\n"}, "damaged tensor"),
        ({3: "(I100000000000\nI1\nt"}, "of which its file holds 4 numbers"),
        ({4: "QInt8Storage"}, "unknown type, torch.QInt8Storage"),
        ({2: "(I4611686018427387904\nI4\nI0\nt", 3: "(I1\nI1\nI1\nt"}, "damaged tensor"),
        ({2: "(I281474976710656\nI281474976710656\nI0\nt", 3: "(I1\nI1\nI1\nt"}, "makes no sense|overflow"),
        ({2: "(" + 50 * "I1\n" + "t", 3: "(" + 50 * "I1\n" + "t"}, "damaged tensor"),
        ({3: "(I2\nI2\nt"}, "of which its file holds 4 numbers"),
        ({1: "I9223372036854775808\n", 2: "(I0\nt", 3: "(I1\nt"}, "damaged tensor"),
    ],
)
def test_tensors_lie_inside_their_file(change, sentence, tmp_path):
    parts = [*GOOD, "FloatStorage"]
    for place, text in change.items():
        parts[place] = text
    path = archive(tmp_path / "x.pt", tensor_program(*parts), {"0": bytes(16)})
    with pytest.raises(MeshrecError, match=sentence):
        TorchFile(path)
    short = archive(tmp_path / "short.pt", tensor_program(*GOOD), {"0": bytes(15)})
    with pytest.raises(MeshrecError, match="15 bytes for 4 numbers"):
        TorchFile(short)


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "asks for os.system"),
        (b"(S'true'\nios\nsystem\n.", "asks for os.system"),
        (b"(cos\nsystem\nS'true'\no.", "asks for os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "asks for os.system"),
        (b"\x82\x01.", "what other programs registered"),
        (b"I1\nr\xff\xff\xff\x7f.", "more than 2000000 steps"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc.", "makes no sense"),
        (b"cyacs\nCfgNode\n}S'__setstate__'\nI1\nsb.", "makes no sense"),
        (b"(" * 100 + b".", "makes no sense"),
        (b"S'w'\nQ.", "makes no sense|unknown form"),
        (b"}.", "holds a dict, not named tensors"),
        (b"I1\n.", "holds a int"),
        (b"}I1\nI2\ns.", "a name that is no text but a int"),
        (b"", "makes no sense"),
    ],
)
def test_hostile_programs_get_a_sentence(program, sentence, tmp_path):
    path = archive(tmp_path / "hostile.pt", program)
    with pytest.raises(MeshrecError, match=sentence):
        TorchFile(path)


DOUBLED = b"".join(b"q" + bytes([step]) + b"h" + bytes([step]) + b"\x86" for step in range(60))
"""A tuple of itself twice, 60 times over: its hash would take 2^60 steps."""
NESTED = 20_000 * b"\x85"
"""A tuple in a tuple, and so on: to hash it, or to compare it, would fill the stack of the process."""


@pytest.mark.parametrize("tuples", [DOUBLED, NESTED], ids=["doubled", "nested"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"})", b"Ns."),
        (b"}()", b"Nu."),
        (b"()", b"Nd."),
        (b"\x80\x04\x8f()", b"\x90."),
        (b"\x80\x04()", b"\x91."),
        (b"ccollections\nOrderedDict\n((l(l)", b"aNaatR."),
    ],
    ids=["key", "keys", "dict", "set", "frozenset", "ordered"],
)
def test_what_would_take_forever_to_look_up_is_refused(before, tuples, after, tmp_path):
    path = archive(tmp_path / "hostile.pt", before + tuples + after)
    with pytest.raises(MeshrecError, match="looks something up by a tuple"):
        TorchFile(path)


def test_numbers_that_share_a_hash_are_refused(tmp_path):
    alike = b"".join(b"\x8a\x0a" + ((2**61 - 1) * count).to_bytes(10, "little") + b"N" for count in range(1, 10_000))
    with pytest.raises(MeshrecError, match="looks something up by a int"):
        TorchFile(archive(tmp_path / "hostile.pt", b"}(" + alike + b"u."))


def test_simple_keys_of_every_kind_are_read(tmp_path):
    saved = {"state_dict": {"w": torch.ones(2)}, 3: 1, ("a", 4): 2, None: 3, b"b": 4, 0.5: 5, True: 6, torch.float32: 7}
    ordered = collections.OrderedDict({("a", 1): collections.OrderedDict(b=torch.ones(1))})
    torch.save(saved | {"sets": {1, "a"}, "frozen": frozenset({("a", 2)}), "more": ordered}, tmp_path / "x.pt")
    assert TorchFile(tmp_path / "x.pt").read(["w"])["w"].tolist() == [1, 1]


def test_a_storage_is_not_described_anew(tmp_path):
    storage = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ"
    change = b"}S'count'\nI1000\nsb"
    program = b"(dS'w'\nctorch._utils\n_rebuild_tensor_v2\n(" + storage + change + b"I0\n(I2\nt(I1\ntI00\n(dtRs."
    with pytest.raises(MeshrecError, match="changes a storage that it has described"):
        TorchFile(archive(tmp_path / "hostile.pt", program, {"0": bytes(16)}))


def test_a_program_asks_for_few_things_and_a_sentence_stays_short(tmp_path):
    many = b"](" + b"".join(b"cm%d\nx\n" % count for count in range(10_001)) + b"e."
    with pytest.raises(MeshrecError, match="asks for more than 10000 things"):
        TorchFile(archive(tmp_path / "hostile.pt", many))
    with pytest.raises(MeshrecError) as told:
        TorchFile(archive(tmp_path / "hostile.pt", b"cos\n" + 10_000 * b"x" + b"\n."))
    assert "asks for os.xxx" in str(told.value) and len(str(told.value)) < 1000


def test_archives_with_a_password_get_a_sentence(tmp_path):
    path = archive(tmp_path / "x.pt", tensor_program(*GOOD), {"0": bytes(16)})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/byteorder", b"little")
    content = path.read_bytes()
    entry, place = content.rfind(b"PK\x03\x04"), content.rfind(b"PK\x01\x02")
    locked = bytearray(content)
    locked[entry + 6] |= 1
    locked[place + 8] |= 1
    path.write_bytes(bytes(locked))
    with pytest.raises(MeshrecError, match="makes no sense"):
        TorchFile(path)


def test_numbers_of_another_byte_order_are_refused(tmp_path):
    path = archive(tmp_path / "x.pt", tensor_program(*GOOD), {"0": bytes(16)})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/byteorder", b"big")
    with pytest.raises(MeshrecError, match="numbers in another byte order"):
        TorchFile(path)
    stream = io.BytesIO()
    torch.save({"w": torch.ones(2)}, stream, _use_new_zipfile_serialization=False)
    content = bytearray(stream.getvalue())
    content[content.index(b"\x88", content.index(b"little_endian"))] = 0x89
    path.write_bytes(content)
    with pytest.raises(MeshrecError, match="another byte order"):
        TorchFile(path)


def test_archives_that_unfold_are_refused(tmp_path):
    bomb = archive(tmp_path / "bomb.pt", b"\x00" * 50_000_000, compression=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 100_000
    with pytest.raises(MeshrecError, match=r"is compressed at archive/data\.pkl"):
        TorchFile(bomb)


@pytest.mark.parametrize("content", [b"", b"no weights", b"<!DOCTYPE html>", b"PK\x03\x04", b"version https://git-lfs"])
def test_other_files_get_a_sentence(content, tmp_path):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(MeshrecError, match=r"x\.ckpt holds no weights that torch saved"):
        read_official(tmp_path / "x.ckpt")


def test_missing_files_folders_and_programs_get_a_sentence(tmp_path):
    for path in (tmp_path / "absent.ckpt", tmp_path):
        with pytest.raises(MeshrecError, match="Cannot read"):
            read_official(path)
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(MeshrecError, match="is a TorchScript program"):
        read_official(tmp_path / "script.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_every_truncation_and_flipped_byte_is_read_or_refused(legacy, tmp_path):
    stream = io.BytesIO()
    state = {"a": random(3, 4), "b": random(5).half(), "c": torch.arange(3)}
    torch.save({"state_dict": state, "epoch": 1}, stream, _use_new_zipfile_serialization=not legacy)
    whole, path, refused = stream.getvalue(), tmp_path / "x.pt", 0
    path.write_bytes(whole)
    file = TorchFile(path)
    assert all(torch.equal(tensor, state[name]) for name, tensor in file.read(file.layout).items())
    for length in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:length])
        with pytest.raises(MeshrecError):
            read_all(path)
    rng = np.random.default_rng(2)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            read_all(path)
        except MeshrecError:
            refused += 1
    assert refused > 20


def read_all(path: Path) -> None:
    file = TorchFile(path)
    file.read(file.layout)


def test_views_parameters_and_other_types_come_back(tmp_path):
    table = torch.arange(24.0).reshape(4, 6)
    state = {
        "rows": table.T[1:3],
        "part": nn.Parameter(table[1, ::2]),
        "one": torch.tensor(2.5, dtype=torch.float64),
        "none": torch.zeros(0, 3),
        "half": table.bfloat16(),
        "truth": table > 3,
    }
    for legacy in (False, True):
        torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
        file = TorchFile(tmp_path / "x.pt")
        assert file.layout.keys() == state.keys()
        for name, tensor in file.read(state).items():
            assert torch.equal(tensor, state[name])
            assert tensor.dtype == state[name].dtype == file.layout[name].dtype


def test_pickles_of_every_protocol_are_read(tmp_path):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        torch.save({"w": torch.ones(2)}, tmp_path / "x.pt", pickle_protocol=protocol)
        assert TorchFile(tmp_path / "x.pt").read(["w"])["w"].tolist() == [1, 1]
