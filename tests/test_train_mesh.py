"""Training of mesh regressors: the whole chain from records to bodies, however the work is cut and wherever it stops.

Run as a script it trains into a folder, alone or under torchrun.
"""

import io
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import roma
import torch
from peers import impatient, peer
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from meshrec.body import BodyModel, load_body_model
from meshrec.branches.mesh import MeshBranch, MeshConfig
from meshrec.camera import camera_from_body_axes, project
from meshrec.config import read_config
from meshrec.data.augment import AugmentConfig
from meshrec.data.body_joints import BODY58
from meshrec.data.people import People
from meshrec.data.record_files import Header
from meshrec.data.record_writer import NewRecord, RecordWriter, encode_picture
from meshrec.data.records import Records, Truth, open_records
from meshrec.data.synthetic import people as synthetic_people
from meshrec.data.synthetic.scene import Synthesizer
from meshrec.errors import MeshrecError
from meshrec.models.mesh_file import read_regressor, write_regressor
from meshrec.models.part_attention import Regressed
from meshrec.models.proxy import heatmaps
from meshrec.models.regressor import CHANNELS, MeshNetConfig, MeshRegressor
from meshrec.record_evaluation import JOINTS14
from meshrec.render import render_rgba
from meshrec.skeletons import COCO17, H36M17, MPII16
from meshrec.train import mesh, mesh_start
from meshrec.train.checkpoint import LAST
from meshrec.train.descent import OptimizerConfig
from meshrec.train.journal import LOG, read_log
from meshrec.train.loop import Outcome, run
from meshrec.train.mesh import JUDGED, MeshRun, MeshTask, build_mesh_task
from meshrec.train.mesh_lesson import into_sight, lesson_of, turned_whole
from meshrec.train.mesh_losses import MeshLosses
from meshrec.train.mesh_people import fingerprint_of
from meshrec.train.mesh_start import started
from meshrec.train.processes import Processes, Share, launched
from meshrec.train.training import LoopConfig, Training
from meshrec.types import BodyParams, Camera, Keypoints

CONFIGS = Path(__file__).parent.parent / "configs"
PHOTO_PX, CROP_PX = 96, 32
MODEL = load_body_model()
CPU = torch.device("cpu")
PLAIN = AugmentConfig(flip=0.0, rotate_p=0.0, scale=0.0, colour=(1.0, 1.0), blur_p=0.0)
SMALL = MeshNetConfig("hrnet_w18", crop_px=CROP_PX)


@torch.no_grad()
def write_people(folder: Path, name: str, count: int, bodies: bool = True, seed: int = 0) -> Path:
    """Records of rendered people, of whom all is known, or their joints in 2D alone."""
    random = torch.Generator().manual_seed(seed)
    focal_px = torch.tensor(1.2 * PHOTO_PX)
    camera = Camera(focal_px, torch.full((2,), PHOTO_PX / 2), PHOTO_PX, PHOTO_PX, "true")
    skeleton = COCO17 if bodies else MPII16
    with RecordWriter(folder, Header(name, "train", skeleton.name)) as writer:
        for number in range(count):
            rotations = roma.rotvec_to_rotmat(0.3 * torch.randn(24, 3, generator=random))
            rotations[0] = camera_from_body_axes() @ rotations[0]
            betas, transl_m = torch.randn(10, generator=random), torch.tensor([0.0, 0.25, 2.6])
            params = BodyParams.from_rotations(rotations, betas, transl_m)
            vertices = MODEL(params).vertices_m
            colours = torch.rand(1, 3, generator=random).expand(len(vertices), 3)
            rgba = render_rgba(vertices, MODEL.faces, camera, colours, samples=1)
            pixels = np.ascontiguousarray((255 * rgba[..., :3].clamp(0, 1)).byte().numpy())
            joints_px = project(MODEL.regressed(params, COCO17), camera)
            box = torch.cat([joints_px.amin(0) - 4, joints_px.amax(0) + 4])
            xy_px = joints_px if bodies else joints_px[: len(MPII16)]
            seen = Keypoints(xy_px, torch.linspace(0.2, 1.0, len(skeleton)), skeleton)
            known = {"camera": camera, "truth": Truth(params, "neutral")} if bodies else {}
            picture = encode_picture(pixels, box)
            writer.add(NewRecord(picture, box, seen, frame=number, source=f"{name}/{number:03}.png", **known))
    return folder


@pytest.fixture(autouse=True, scope="module")
def made_once() -> Iterator[None]:
    """Every task has the same bodies, prior, poses and synthetic people: to make them takes longer than to train here.

    That synthetic people are a function of what they are remembered by is a law of their own tests.
    """
    honest, people = synthetic_people.made, {}

    def made(synthesizer: Synthesizer, *key: Any) -> People:
        if (synthesizer.config, *key) not in people:
            people[synthesizer.config, *key] = honest(synthesizer, *key)
        return people[synthesizer.config, *key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh_start, "load_body_model", cache(load_body_model))
        for name in ("load_body_model", "open_prior", "poses_of"):
            patch.setattr(mesh, name, cache(getattr(mesh, name)))
        patch.setattr(synthetic_people, "made", made)
        patch.setattr(synthetic_people, "Synthesizer", cache(Synthesizer))
        patch.setattr(mesh, "AHEAD", 0)
        yield


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    write_people(folder / "whole", "whole", 6)
    write_people(folder / "flat", "flat", 5, bodies=False, seed=1)
    return folder


class Glance(MeshRegressor):
    """A regressor of a few weights: it looks once, in quarters, and has a batch norm."""

    def __init__(self, config: MeshNetConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(CHANNELS[config.input], 4, 8, stride=8), nn.BatchNorm2d(4)
        self.pose, self.rest = nn.Linear(64, 24 * 6), nn.Linear(64, 13)
        self.parts = nn.Conv2d(4, 25, 1)

    def forward(self, image: Tensor) -> Regressed:
        maps = self.norm(self.conv(image)).tanh()
        parts = self.parts(maps)
        maps = maps + parts.mean(1, keepdim=True)
        pose = 0.1 * self.pose(maps.flatten(1)).view(-1, 24, 3, 2) + torch.eye(3)[:, :2]
        weak = self.rest(maps.flatten(1))
        return Regressed(
            roma.special_gramschmidt(pose), weak[:, 3:], 0.1 * weak[:, :3] + torch.tensor([0.9, 0, 0]), parts
        )


def loop(**changes: Any) -> LoopConfig:
    sgd = OptimizerConfig("sgd", learning_rate=0.01, clip_norm=1.0)
    return replace(LoopConfig(steps=6, batch=8, optimizer=sgd, log_every=2, validate_every=3), **changes)


def config_of(sets: Path, **changes: Any) -> MeshRun:
    plain = MeshRun(
        data=(sets / "whole", sets / "flat"),
        mix={"whole": 0.6, "flat": 0.4},
        validation=(sets / "whole",),
        network=SMALL,
        losses=MeshLosses(parts=0.1, parts_until=4, parts_px=16, prior=0.01),
        workers=1,
        loop=loop(),
    )
    return replace(plain, **changes)


def task_of(config: MeshRun) -> MeshTask:
    """The task of a configuration, with a glance in the network's place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh, "started", lambda network, *_: Glance(network))
        return build_mesh_task(config, CPU)


def train(folder: Path, config: MeshRun, task: MeshTask | None = None, **options: Any) -> Outcome:
    return run(task or task_of(config), config, folder, console=Console(file=io.StringIO()), **options)


def figures(folder: Path) -> list[dict[str, float]]:
    return [{name: v for name, v in line.items() if not name.endswith("_per_s")} for line in read_log(folder / LOG)]


# ---- however the work is cut, and wherever it stops


class Killed(BaseException):
    pass


def test_a_run_that_is_killed_goes_on_to_the_same_bits_whatever_the_threads(sets, tmp_path):
    adam = OptimizerConfig("adamw", learning_rate=1e-3)
    config = config_of(sets, channels_last=True, loop=loop(optimizer=adam, ema=0.9, checkpoint_every=2))
    train(tmp_path / "whole", config)
    config = replace(config, workers=3)
    for step in (1, 5):
        task = task_of(config)
        honest = task.batch

        def stop(now: int, share: Share, step: int = step, honest: Any = honest) -> Any:
            if now == step:
                raise Killed
            return honest(now, share)

        task.batch = stop
        with pytest.raises(Killed):
            train(tmp_path / "killed", config, task)
    train(tmp_path / "killed", replace(config, workers=1))
    files = sorted(path.name for path in (tmp_path / "whole").glob("*.safetensors"))
    assert LAST in files
    assert len(files) == 2
    for name in files:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")


def test_people_lie_elsewhere_and_the_run_goes_on(sets, tmp_path):
    train(tmp_path / "run", config_of(sets, loop=loop(steps=1)))
    (tmp_path / "moved").symlink_to(sets, target_is_directory=True)
    assert train(tmp_path / "run", config_of(tmp_path / "moved", loop=loop(steps=2))).step == 2
    other = config_of(sets, validation=(sets / "whole", sets / "whole"), loop=loop(steps=2))
    with pytest.raises(MeshrecError, match="other data"):
        train(tmp_path / "run", other)


SPLIT = {"norms": "frozen", "channels_last": False}


def close(a: Path, b: Path) -> None:
    first, second = (load_file(folder / LAST) for folder in (a, b))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-4, atol=1e-6, msg=lambda t, at=name: f"{at}: {t}")
    for one, two in zip(figures(a), figures(b), strict=True):
        assert one == pytest.approx(two, rel=1e-3)


@pytest.fixture(scope="module")
def undivided(sets, tmp_path_factory) -> Path:
    """A run of one process, its batches in one piece."""
    folder = tmp_path_factory.mktemp("run")
    train(folder, config_of(sets, **SPLIT))
    return folder


def test_two_processes_are_one_and_their_parts_too(sets, undivided, tmp_path):
    with peer(__file__, str(sets), str(tmp_path)):
        main(sets, tmp_path)
    close(undivided, tmp_path)


def test_batch_norms_take_part_unless_they_are_frozen(sets):
    for norms in ("batch", "frozen"):
        task = task_of(config_of(sets, norms=norms))
        training = Training(task, task.config.loop, Processes())
        training.advance()
        moved = bool((task.networks.network.norm.running_mean != 0).any())
        assert moved == (norms == "batch")
        assert task.networks.training


def test_how_pictures_lie_changes_nothing(sets):
    terms = []
    for channels_last in (False, True):
        task = task_of(config_of(sets, channels_last=channels_last))
        terms.append(task.losses("mesh", task.batch(0, Share())))
    for name, term in terms[0].items():
        torch.testing.assert_close(terms[1][name], term, rtol=1e-4, atol=1e-6)


# ---- synthetic people, and proxies

PROXY = replace(SMALL, input="proxy", root="sight")


def synthetic(sets: Path, **changes: Any) -> MeshRun:
    """A run that sees synthetic people, and none else unless they are asked for."""
    plain = {"data": (), "mix": {}, "validation": (), "synthetic_share": 1.0, "validation_synthetic": 5}
    return config_of(sets, **plain | {"network": PROXY} | changes)


BLIND = replace(PROXY, backbone="none", base="joints")


@pytest.mark.parametrize(
    "changes", [{}, {"network": BLIND, "losses": MeshLosses(), "synthetic_repeats": 2}], ids=["drawn", "by joints"]
)
def test_synthetic_people_are_the_same_wherever_a_run_stops(changes, sets, tmp_path, monkeypatch):
    monkeypatch.setattr("meshrec.data.synthetic.people.ROUND", 2)
    adam = OptimizerConfig("adamw", learning_rate=1e-3)
    config = synthetic(sets, **changes, loop=loop(optimizer=adam, steps=4, validate_every=2, log_every=1))
    train(tmp_path / "whole", config)
    train(tmp_path / "halves", replace(config, workers=2, loop=replace(config.loop, steps=2)))
    train(tmp_path / "halves", config)
    whole, halves = (load_file(tmp_path / name / LAST) for name in ("whole", "halves"))
    assert whole.keys() == halves.keys()
    for name, tensor in whole.items():
        assert torch.equal(halves[name], tensor), name
    assert figures(tmp_path / "halves") == figures(tmp_path / "whole")
    line = figures(tmp_path / "whole")[0]
    assert line["share/synthetic"] == 1.0
    assert {"validation/pa_mpjpe_mm", "validation/pve_mm"} < set().union(*figures(tmp_path / "whole"))


def test_how_a_batch_is_cut_does_not_change_who_is_in_it(sets):
    mixed = {"data": (sets / "whole", sets / "flat"), "mix": {"whole": 0.6, "flat": 0.4}, "synthetic_share": 0.3}
    task = task_of(synthetic(sets, **mixed))
    whole = task.batch(1, Share()).sighted
    halves = [task_of(synthetic(sets, **mixed)).batch(1, Share(index, 2)).sighted for index in range(2)]
    for field in ("points", "confidence"):
        assert torch.equal(torch.cat([getattr(half, field) for half in halves]), getattr(whole, field))
    assert torch.equal(torch.cat([half.people.pixels for half in halves]), whole.people.pixels)
    made = whole.people.dataset == 2
    assert made.tolist() == [False, False, False, True, False, False, True, False]
    told = task.describe(task.batch(1, Share()))
    assert told.count("synthetic person") == 2
    assert told.count("frame") == 6
    shares = task.told()
    assert shares["share/synthetic"] == 0.25
    assert sum(value for name, value in shares.items() if name.startswith("share/")) == pytest.approx(1)


def test_a_network_of_colours_sees_synthetic_people_too(sets):
    task = task_of(synthetic(sets, network=SMALL))
    assert all(bool(term.isfinite()) for term in task.losses("mesh", task.batch(0, Share())).values())


def test_records_joints_count_as_found(sets):
    task = task_of(config_of(sets, network=PROXY))
    people = (sighted := next(iter(task.unseen))).people
    rows = BODY58.indices(*(f"{joint}@coco17" for joint in COCO17.joints))
    assert torch.equal(sighted.points, people.points[:, rows])
    assert torch.equal(sighted.confidence, people.weight[:, rows])


def test_the_network_is_taught_with_what_the_branch_shows_it(sets):
    task, shown = task_of(config_of(sets, network=PROXY)), []

    class Looking:
        config = PROXY

        def __call__(self, image: Tensor) -> Regressed:
            shown.append(image)
            return Glance(PROXY).eval()(image)

    branch, records = MeshBranch(Looking(), MODEL, MeshConfig()), open_records(sets / "whole")
    for row in range(len(records)):
        photo, person, camera = records[row].as_photo()
        branch(photo, [person], camera)
    sighted = next(iter(task.unseen))
    torch.testing.assert_close(task._image(sighted), torch.cat(shown), atol=1e-3, rtol=0)
    found = replace(sighted, points=sighted.points + 4, confidence=sighted.confidence.flip(-1))
    wanted = heatmaps(found.points, found.confidence, CROP_PX)
    torch.testing.assert_close(task._image(found)[:, 1:], wanted)


def test_who_looks_at_the_middle_of_the_crop_knows_the_root(sets):
    """Moved across the photograph so that a crop shows the same, a body has the same root as seen from there."""
    task = task_of(synthetic(sets))
    people = next(iter(task.unseen)).people
    lesson = lesson_of(people, task.bodies, 0, "sight")
    turn = into_sight(people)
    torch.testing.assert_close(lesson.rotations[:, 0], turn @ people.params.root)
    torch.testing.assert_close(lesson.rotations[:, 1:], people.params.pose)
    ray = torch.cat([(CROP_PX / 2 - people.camera.center_px) / people.camera.focal_px[:, None], torch.ones(5, 1)], 1)
    straight = (turn @ ray[..., None])[..., 0]
    torch.testing.assert_close(straight[:, :2], torch.zeros(5, 2), atol=1e-5, rtol=0)
    assert (straight[:, 2] > 0).all()
    plain = lesson_of(people, task.bodies)
    torch.testing.assert_close(lesson.joints_m, plain.joints_m @ turn.mT, atol=1e-5, rtol=0)
    torch.testing.assert_close(lesson.points, plain.points)
    said = Regressed(lesson.rotations, people.params.betas, torch.ones(5, 3), torch.zeros(5, 25, 2, 2))
    for value in task._errors(said, people).values():
        torch.testing.assert_close(value, torch.zeros(5), atol=2e-3, rtol=0)


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3)])
def test_a_body_is_turned_by_its_root_alone(batch):
    random = torch.Generator().manual_seed(0)
    rotations = roma.random_rotmat((*batch, 24), dtype=torch.float64)
    turn = roma.rotvec_to_rotmat(torch.randn(*batch, 3, dtype=torch.float64, generator=random))
    turned = turned_whole(turn, rotations)
    torch.testing.assert_close(turned_whole(turn.mT, turned), rotations)
    torch.testing.assert_close(turned[..., 0, :, :], turn @ rotations[..., 0, :, :])
    assert torch.equal(turned[..., 1:, :, :], rotations[..., 1:, :, :])


# ---- what is learned, and told


def test_a_few_people_are_soon_known_by_heart(tmp_path):
    """The true network: crops of records, its answers, bodies, errors."""
    write_people(tmp_path / "two", "two", 2)
    adam = OptimizerConfig("adamw", learning_rate=1e-3, warmup_steps=5, clip_norm=1.0)
    config = MeshRun(
        data=(tmp_path / "two",),
        validation=(tmp_path / "two",),
        network=SMALL,
        losses=MeshLosses(norm="l1"),
        augment=PLAIN,
        norms="frozen",
        channels_last=False,
        workers=1,
        select_by="mpjpe_mm",
        loop=LoopConfig(steps=7, batch=2, optimizer=adam, validate_every=7, log_every=5),
    )
    task = build_mesh_task(config, CPU)
    with torch.no_grad():
        before = task.validate(task.networks.eval())["mpjpe_mm"]
    outcome = train(tmp_path / "run", config, task)
    assert outcome.best[0].figure < 0.6 * before
    learned = task.networks.network.state_dict()
    again = started(SMALL, outcome.folder / outcome.best[0].file, "regressor", 0)
    assert all(torch.equal(tensor, learned[name]) for name, tensor in again.state_dict().items())
    assert all(parameter.requires_grad for parameter in again.parameters()) and again.config == SMALL


def test_the_log_has_every_term_and_the_shares_of_the_data_sets(sets, tmp_path):
    config = config_of(sets)
    task = task_of(config)
    train(tmp_path, config, task)
    lines = [line for line in read_log(tmp_path / LOG) if "mesh/joints" in line]
    records = task.crowd.records
    assert records is not None
    for line in lines:
        drawn = torch.cat([records.rows(step, 8).dataset for step in range(line["step"] - 2, line["step"])])
        assert line["share/flat"] == pytest.approx(float((drawn == 1).double().mean()))
    terms = {f"mesh/{name}" for name in ("joints", "points", "pose", "shape", "camera", "parts", "prior")}
    assert terms < lines[0].keys()
    for line in lines:
        assert line["share/whole"] + line["share/flat"] == pytest.approx(1)
        assert line["loader_images_per_s"] > 0
    assert lines[0]["mesh/parts"] > 0 == lines[-1]["mesh/parts"], "parts are taught for four steps"
    validation = next(line for line in read_log(tmp_path / LOG) if "validation/pa_mpjpe_mm" in line)
    assert validation.keys() == {"step"} | {f"validation/{name}_mm" for name in ("pa_mpjpe", "mpjpe", "pve")}


def test_validation_is_3dpws_protocol(sets):
    """The truth has no error; a moved body none; a turned one has, but none after Procrustes."""
    task = task_of(config_of(sets))
    people = next(iter(task.unseen)).people
    truth = Regressed(people.params.rotations, people.params.betas, torch.ones(6, 3), torch.zeros(6, 25, 2, 2))
    for value in task._errors(truth, people).values():
        torch.testing.assert_close(value, torch.zeros(6), atol=2e-3, rtol=0)
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, math.pi / 2]))
    rotations = torch.cat([turn @ truth.rotations[:, :1], truth.rotations[:, 1:]], dim=1)
    errors = task._errors(replace(truth, rotations=rotations), people)
    assert (errors["pa_mpjpe_mm"] < 0.01).all()
    assert (errors["mpjpe_mm"] > 200).all()
    some = replace(people, posed=torch.arange(6) < 2)
    assert len(task._errors(truth, some)["mpjpe_mm"]) == 2
    counted = {name.removesuffix("@h36m17") for name in (BODY58.joints[row] for row in JUDGED)}
    assert len(JUDGED) == len(counted) == 14
    assert counted == {"thorax", "head_top"} | {
        f"{side}_{joint}"
        for side in ("left", "right")
        for joint in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
    }


def test_answers_are_judged_as_the_neutral_body_against_the_truths_own(sets, monkeypatch):
    tall = BodyModel(replace(MODEL.file, v_template=1.1 * MODEL.file.v_template))
    monkeypatch.setattr(mesh_start, "load_body_model", lambda name: tall if name == "female" else MODEL)
    task = task_of(config_of(sets, gendered=True))
    people = replace(next(iter(task.unseen)).people, gender=torch.tensor([0, 1, 2, 0, 1, 2]))
    truth = Regressed(people.params.rotations, people.params.betas, torch.ones(6, 3), torch.zeros(6, 25, 2, 2))
    errors = task._errors(truth, people)
    for name in ("mpjpe_mm", "pve_mm"):
        assert (errors[name] > 10).tolist() == [False, False, True] * 2
    found, true = (MODEL.regressed(people.params, H36M17), tall.regressed(people.params, H36M17))
    found, true = (joints - joints[:, H36M17.indices("pelvis")] for joints in (found, true))
    apart_m = (found - true)[2, H36M17.indices(*JOINTS14)].norm(dim=-1).mean()
    assert float(errors["mpjpe_mm"][2]) == pytest.approx(1000 * float(apart_m), rel=1e-3)


def test_bf16_is_for_the_network_alone(sets, tmp_path):
    config = config_of(sets, loop=loop(precision="bf16", steps=2))
    task, seen = task_of(config), []
    task.networks.network.conv.register_forward_hook(lambda layer, _, out: seen.append((layer.training, out.dtype)))
    task.criterion.register_forward_pre_hook(lambda _, given: seen.append(given[0].part_logits.dtype))
    train(tmp_path, config, task)
    assert (True, torch.bfloat16) in seen and (False, torch.float32) in seen
    assert {one for one in seen if isinstance(one, torch.dtype)} == {torch.float32}


# ---- what goes wrong


def test_a_loss_that_is_no_number_names_the_term_and_the_records(sets, tmp_path):
    config = config_of(sets)
    train(tmp_path, replace(config, loop=loop(steps=3)))
    before = (tmp_path / LAST).read_bytes()
    task = task_of(config)
    honest = task.batch

    def spoiled(step: int, share: Share) -> Any:
        turn = honest(step, share)
        bad = replace(turn.lesson, points=turn.lesson.points * math.nan)
        return replace(turn, lesson=bad) if step == 4 else turn

    task.batch = spoiled
    with pytest.raises(MeshrecError, match=r"^mesh/points is nan at step 5, on .*records") as caught:
        train(tmp_path, config, task)
    assert task.crowd.records is not None
    rows = task.crowd.records.rows(4, 8)
    for dataset, row in zip(rows.dataset.tolist(), rows.row.tolist(), strict=True):
        name = ("whole", "flat")[dataset]
        assert f"{name}/{row:03}.png" in str(caught.value)
        assert f"frame {row}" in str(caught.value)
    assert (tmp_path / LAST).read_bytes() == before
    assert train(tmp_path, config).step == 6


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": ()}, r"No people for data: name folders of records with --data"),
        ({"validation": ()}, r"No people for validation: .*--validation"),
        ({"data": (), "synthetic_share": 0.5}, r"No people for data: .*--synthetic-share 1"),
        ({"synthetic_share": 1.0}, r"synthetic_share is 1, so nobody of data would be drawn"),
        ({"data": (Path("nowhere"),)}, r"nowhere"),
        ({"mix": {"whole": 0.6, "mpii": 0.4}}, r"mpii"),
        ({"mix": {"whole": 0.6, "flat": -0.4}}, r"-0\.4"),
        ({"mix": {"whole": 0.0, "flat": 0.0}}, r"flat|whole"),
        ({"mix": {"whole": 1.0}}, r"flat"),
        ({"body": "nobody"}, r"nobody"),
    ],
)
def test_what_cannot_be_trained_is_told(changes, said, sets):
    with pytest.raises(MeshrecError, match=said):
        task_of(config_of(sets, **changes))


def test_a_body_is_known_whose_every_number_is():
    pose, betas = np.zeros((4, 24, 3)), np.zeros((4, 10))
    pose[1, 5, 2] = betas[2, 9] = pose[3] = np.nan
    records = Mock(Records)
    records.column = {"pose_axis_angle": pose, "betas": betas}.get
    assert Records.known_bodies.func(records).tolist() == [True, False, False, False]


def test_other_people_are_other_data_wherever_they_lie():
    whole, flat, other = (Mock(Records, split="train", fingerprint=mark) for mark in ("1", "2", "3"))
    whole.name = flat.name = other.name = "people"
    splits = [([whole], [flat]), ([whole], [other]), ([other], [flat]), ([flat], [whole]), ([whole, flat], [])]
    marks = [fingerprint_of(seen, unseen, ()) for seen, unseen in splits]
    assert len(set(marks)) == len(marks)


def test_validation_needs_a_known_body(sets):
    with pytest.raises(MeshrecError, match=r"None of the people in .*flat has a known body"):
        task_of(config_of(sets, validation=(sets / "flat",)))


def test_a_body_of_any_number_of_shapes_but_fewer_than_the_answers(sets, monkeypatch):
    """More shape directions stay 0; a body of other vertices cannot be another's truth."""
    plain, config = task_of(config_of(sets)), config_of(sets, body="own")
    shapes = MODEL.file.shapedirs
    for betas in (MODEL.num_betas + 6, 4):
        kept = np.pad(shapes[..., :betas], ((0, 0), (0, 0), (0, max(betas - shapes.shape[2], 0))), constant_values=0.1)
        own = BodyModel(replace(MODEL.file, shapedirs=kept))
        monkeypatch.setattr(mesh_start, "load_body_model", lambda name, own=own: own)
        if betas < 10:
            with pytest.raises(MeshrecError, match="has 4 shape directions, and a mesh regressor answers with 10"):
                task_of(config)
        else:
            task = task_of(config)
            for name, term in plain.losses("mesh", plain.batch(0, Share())).items():
                torch.testing.assert_close(task.losses("mesh", task.batch(0, Share()))[name], term)
            with torch.no_grad():
                assert all(0 < figure < 9999 for figure in task.validate(task.networks.eval()).values())


def test_bodies_of_other_vertices_are_refused(sets, monkeypatch):
    bald = SimpleNamespace(parts=MODEL.parts[1:], num_betas=10, file=SimpleNamespace(name="male"))
    monkeypatch.setattr(mesh_start, "load_body_model", lambda name: bald if name == "male" else MODEL)
    with pytest.raises(MeshrecError, match=r"The bodies neutral and male have .* vertices and cannot be compared"):
        task_of(config_of(sets, gendered=True))


def test_weights_to_start_from_are_of_the_same_network(monkeypatch):
    with torch.device("meta"):
        given = MeshRegressor(SMALL)
    monkeypatch.setattr(mesh_start, "open_regressor", lambda path: given)
    changes = {"backbone": "resnet50", "shape_attention": "downsampled", "base": "nothing", "root": "sight"}
    for name, value in changes.items():
        with pytest.raises(MeshrecError, match=rf"whose {name} is .*; network\.{name} is {value}"):
            started(replace(SMALL, **{name: value}), Path("start.ckpt"), "regressor", 0)
    assert started(replace(SMALL, crop_px=64), Path("start.ckpt"), "regressor", 0).config.crop_px == 64


@pytest.mark.parametrize("kind", ["regressor", "backbone"])
def test_weights_that_are_not_there_are_told(kind):
    with pytest.raises(MeshrecError, match=r"nowhere\.pth"):
        started(SMALL, Path("nowhere.pth"), kind, 0)
    with pytest.raises(MeshrecError, match=r"start_is is backbone, and no weights are given\. Name"):
        started(SMALL, None, "backbone", 0)


def test_a_backbone_alone_is_a_start(tmp_path):
    plain = started(SMALL, None, "regressor", 0)
    given = {name: 2 * tensor for name, tensor in plain.backbone.state_dict().items()}
    save_file(given, tmp_path / "hrnet.safetensors")
    network = started(SMALL, tmp_path / "hrnet.safetensors", "backbone", 0)
    assert torch.equal(network.backbone.state_dict()["conv1.weight"], given["conv1.weight"])
    assert torch.equal(network.head.state_dict()["cam_mlp.weight"], plain.head.state_dict()["cam_mlp.weight"])


def test_a_guess_alone_is_a_start(tmp_path):
    blind, seeing = (MeshRegressor(replace(BLIND, backbone=name)) for name in ("none", "hrnet_w18_small"))
    write_regressor(tmp_path / "guess.safetensors", blind)
    network = started(seeing.config, tmp_path / "guess.safetensors", "guess", 0)
    given = read_regressor(tmp_path / "guess.safetensors").guess
    assert all(torch.equal(tensor, network.guess.state_dict()[name]) for name, tensor in given.state_dict().items())
    learns = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert learns == {name for name, _ in network.named_parameters() if not name.startswith("guess.")}, "it stays"
    with pytest.raises(MeshrecError, match=r"start_is is guess, .* network\.base is another"):
        started(PROXY, tmp_path / "guess.safetensors", "guess", 0)
    write_regressor(tmp_path / "other.safetensors", MeshRegressor(PROXY))
    with pytest.raises(MeshrecError, match=r"that of .*other\.safetensors is another"):
        started(seeing.config, tmp_path / "other.safetensors", "guess", 0)
    with pytest.raises(MeshrecError, match=r"whose root is sight; network\.root is camera"):
        started(replace(seeing.config, root="camera"), tmp_path / "guess.safetensors", "guess", 0)
    with pytest.raises(MeshrecError, match="nothing to learn beside the guess"):
        started(BLIND, tmp_path / "guess.safetensors", "guess", 0)
    with pytest.raises(MeshrecError, match="has no backbone"):
        started(BLIND, tmp_path / "other.safetensors", "backbone", 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"synthetic_repeats": 0}, "synthetic_repeats is 0"),
        ({"network": BLIND, "losses": MeshLosses(parts=0.1)}, "without a backbone draws no parts"),
        ({"synthetic_share": 1.1}, r"synthetic_share is 1\.1"),
        ({"workers": 0}, "workers is 0"),
        ({"loop": LoopConfig(batch=4, accumulate=4)}, "batch norms need 2 examples"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        MeshRun(**changes)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("mesh_*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_can_be_read_and_says_what_differs(file):
    config = read_config(file, MeshRun)
    assert config != MeshRun()
    assert file.read_text().startswith("# ")


# ---- the script


def main(sets: Path, folder: Path) -> None:
    config = config_of(sets, **SPLIT, loop=loop(accumulate=2))
    with launched("cpu") as processes:
        train(folder, config, processes=processes)


if __name__ == "__main__":
    impatient()
    main(Path(sys.argv[1]), Path(sys.argv[2]))
