"""Laws of training priors: what a batch is made of, where a flow starts, that it learns, and what is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch

from meshrec.cli import main
from meshrec.data.motion import Motion
from meshrec.data.pose_augment import LIMBS, jittered, mirrored
from meshrec.data.poses import PoseCollection, open_collection, write_collection
from meshrec.errors import MeshrecError
from meshrec.train.priors import BLOCK, PosesConfig, PriorRun, PriorTask, build_prior_task, frame_weights
from meshrec.train.processes import Share
from meshrec.train.training import LoopConfig
from priors.build import BaseConfig, PriorConfig
from priors.flow import FlowConfig
from priors.gaussian import fit_gaussian
from priors.so3 import centred_log
from priors.vae import VAEConfig

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
SMALL = PriorConfig(flow=FlowConfig(activation="coupling", depth=2, hidden=8))


def motion(subject: str, frames: int, seed: int) -> Motion:
    """A few joints swing together, each person about another pose."""
    random = np.random.default_rng(seed)
    swing = np.sin(np.linspace(0, 20, frames))[:, None, None] * random.normal(0, 0.3, (1, 24, 3))
    vectors = swing + random.normal(0, 0.1, (1, 24, 3)) + random.normal(0, 0.02, (frames, 24, 3))
    return Motion(f"{subject}_01", subject, "made", 30.0, vectors, np.zeros((frames, 3)), np.ones(frames, bool))


def motions() -> list[Motion]:
    return [motion(name, frames, seed) for seed, (name, frames) in enumerate((("a", 400), ("b", 100), ("c", 90)))]


@pytest.fixture(scope="module")
def collection() -> PoseCollection:
    return PoseCollection.of(motions())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("poses") / "made"
    write_collection(path, motions(), "float32", "made up")
    return path


def config(**changes) -> PriorRun:
    run = PriorRun(poses=PosesConfig(held_out=("c",)), prior=SMALL, loop=LoopConfig(steps=40, batch=16))
    return replace(run, **changes)


# ---- batches


def test_shares_of_a_batch_are_the_batch_whatever_their_number(collection):
    task = PriorTask(config(), collection, CPU)
    for step in (0, BLOCK - 1, BLOCK):
        whole = task.batch(step, Share())
        for count in (2, 4):
            parts = [task.batch(step, Share(index, count)) for index in range(count)]
            for place in (0, 1):
                torch.testing.assert_close(torch.cat([part[place] for part in parts]), whole[place], rtol=0, atol=0)


def test_a_batch_is_a_function_of_seed_and_step_alone(collection):
    first, again = (PriorTask(config(), collection, CPU) for _ in range(2))
    later = first.batch(BLOCK + 3, Share())[0]
    first.batch(2, Share())
    again.batch(BLOCK + 2, Share())
    torch.testing.assert_close(again.batch(BLOCK + 3, Share())[0], later, rtol=0, atol=0)
    torch.testing.assert_close(first.batch(BLOCK + 3, Share())[0], later, rtol=0, atol=0)
    other = PriorTask(config(loop=LoopConfig(steps=40, batch=16, seed=1)), collection, CPU)
    assert not torch.equal(other.batch(BLOCK + 3, Share())[0], later)
    assert not torch.equal(first.batch(BLOCK + 4, Share())[0], later)


def test_nobody_who_is_held_out_is_drawn(collection):
    plain = PosesConfig(held_out=("c",), mirror=False, recombine=0.0, jitter_rad=0.0)
    task = PriorTask(config(poses=plain), collection, CPU)
    drawn = task.batch(0, Share())[0]
    seen = collection.rotations(collection.rows(without=("c",)))[:, 1:]
    unseen = collection.rotations(collection.rows({"c"}))[:, 1:]
    nearest = (drawn[:, None] - seen).flatten(2).abs().amax(-1).amin(1)
    assert nearest.max() < 1e-6
    assert (drawn[:, None] - unseen).flatten(2).abs().amax(-1).min() > 1e-2


def of_batches(collection: PoseCollection, **poses) -> tuple[PriorTask, torch.Tensor]:
    """A task, and the poses of a block of its batches; nothing is made of them but what is asked."""
    plain = {"held_out": ("c",), "mirror": False, "recombine": 0.0, "jitter_rad": 0.0} | poses
    task = PriorTask(config(poses=PosesConfig(**plain)), collection, CPU)
    return task, torch.cat([task.batch(step, Share())[0] for step in range(BLOCK)])


def frames_of(poses: torch.Tensor, rotations: torch.Tensor, joints: list[int]) -> torch.Tensor:
    """Which of the rotations each pose has at these joints; -1 where it has none of them."""
    poses, rotations = (one[:, joints].double().flatten(1) for one in (poses, rotations))
    off = torch.cdist(poses, rotations)
    return torch.where(off.amin(1) < 1e-3, off.argmin(1), -1)


def test_frames_are_drawn_as_often_as_they_weigh(collection):
    task, drawn = of_batches(collection, balance=1.0)
    frames = frames_of(drawn, task.collection.rotations(task.rows)[:, 1:], list(range(23)))
    assert (frames >= 0).all()
    for chunk in np.array_split(np.arange(len(task.rows)), 10):
        share = task.weights[chunk].sum()
        assert abs(np.isin(frames.numpy(), chunk).mean() - share) < 5 * (share / len(frames)) ** 0.5


def test_half_of_the_poses_are_seen_in_a_mirror(collection):
    task, drawn = of_batches(collection, mirror=True)
    rotations = task.collection.rotations(task.rows)[:, 1:]
    plain, flipped = (frames_of(drawn, one, list(range(23))) >= 0 for one in (rotations, mirrored(rotations)))
    assert (plain ^ flipped).all()
    assert abs(flipped.double().mean() - 0.5) < 0.06


def test_limbs_come_from_other_poses_of_the_batch(collection):
    task, drawn = of_batches(collection, recombine=0.3)
    rotations = task.collection.rotations(task.rows)[:, 1:]
    limbs = {joint for joints in LIMBS.values() for joint in joints}
    trunk = frames_of(drawn, rotations, [joint for joint in range(23) if joint not in limbs])
    assert (trunk >= 0).all()
    for joints in LIMBS.values():
        limb = frames_of(drawn, rotations, list(joints))
        assert (limb >= 0).all()
        assert 0.2 < (limb != trunk).double().mean() < 0.35


def test_a_batch_is_jittered_as_wide_as_is_asked(collection):
    _, still = of_batches(collection)
    _, shaken = of_batches(collection, jitter_rad=0.1)
    delta = roma.rotmat_to_rotvec(still.mT @ shaken)
    torch.testing.assert_close(delta.std(dim=(0, 2)), torch.full((23,), 0.1), rtol=0.1, atol=0)


def test_a_fingerprint_is_of_the_poses_and_not_of_their_place(collection, folder, tmp_path):
    copy = write_collection(tmp_path / "copy", motions(), "float32", "made up")
    prints = [PriorTask(config(), one, CPU).fingerprint for one in (collection, open_collection(folder), copy)]
    assert len(set(prints)) == 1
    changed = motions()
    changed[0].axis_angle[0, 3] += 0.1
    others = [changed, motions()[::-1], [replace(motions()[0], subject="d"), *motions()[1:]]]
    for other in others:
        assert PriorTask(config(), PoseCollection.of(other), CPU).fingerprint != prints[0]


def test_weights_balance_subjects_and_follow_shares(collection):
    rows = collection.rows(without=("c",))
    subject = collection.subject_of(rows)
    for balance, share in ((0.0, 0.8), (1.0, 0.5), (0.5, 400**0.5 / (400**0.5 + 100**0.5))):
        weights = frame_weights(collection, rows, PosesConfig(balance=balance))
        np.testing.assert_allclose(weights[subject == 0].sum(), share, rtol=1e-9)
    twice = PoseCollection((*collection.parts, *collection.parts))
    every = twice.rows()
    weights = frame_weights(twice, every, PosesConfig(shares=(0.9, 0.1)))
    np.testing.assert_allclose(weights[twice.part_of(every) == 1].sum(), 0.1, rtol=1e-9)


# ---- the start


def test_the_chart_is_centred_at_the_mean_of_the_weighted_poses(collection):
    task, _ = of_batches(collection, balance=1.0)
    rotations = collection.rotations(task.rows, torch.float64)[:, 1:]
    mean = torch.einsum("n,njkl->jkl", torch.from_numpy(task.weights), rotations)
    u, _, v = torch.linalg.svd(mean)
    assert (torch.linalg.det(u @ v) > 0).all()
    torch.testing.assert_close(task.prior.mean_rotations.double(), u @ v, rtol=0, atol=1e-2)


def test_a_flow_starts_at_the_gaussian_of_the_data(collection):
    normal = replace(SMALL, base=BaseConfig(kind="normal"))
    plain = PosesConfig(held_out=("c",), mirror=False, balance=0.0)
    task = PriorTask(config(prior=normal, poses=plain), collection, CPU)
    prior = task.prior.double().requires_grad_(False)
    rotations = task.seen.double()
    phi = centred_log(rotations, prior.mean_rotations).flatten(-2)
    gaussian = fit_gaussian(phi, torch.ones(len(phi), dtype=torch.float64), 0.02)
    again = jittered(collection.rotations(task.rows, torch.float64)[:, 1:], 0.03, np.random.default_rng(1))
    phi = centred_log(again, prior.mean_rotations).flatten(-2)
    start, closed = (-model.log_prob(phi).mean() for model in (prior.density, gaussian))
    assert abs(float(start - closed)) < 1.0 < abs(float(closed))


@pytest.mark.parametrize(
    "prior",
    [
        SMALL,
        replace(SMALL, chart="six_d", base=BaseConfig(kind="normal"), flow=FlowConfig(activation="prelu", depth=1)),
        PriorConfig(kind="vae", vae=VAEConfig(latent=4, hidden=32)),
    ],
)
def test_every_prior_that_is_trained_learns(prior, folder, tmp_path):
    text = json.dumps({"kind": prior.kind, "chart": prior.chart, "base": {"kind": prior.base.kind}})
    (tmp_path / "a.yaml").write_text(
        f"task: prior\nposes: {{held_out: [c], recombine: 0.0}}\nprior: {text}\n"
        "loop: {steps: 60, batch: 32, validate_every: 20, log_every: 20, optimizer: {learning_rate: 3.0e-3}}\n"
    )
    words = ["train", str(tmp_path / "a.yaml"), "--data", str(folder), "-o", str(tmp_path / "run"), "--device", "cpu"]
    words += ["--prior.flow.activation", prior.flow.activation, "--prior.flow.depth", str(prior.flow.depth)]
    words += ["--prior.flow.hidden", "8", "--prior.vae.hidden", "32", "--prior.vae.latent", "4"]
    assert main(words) == 0
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    seen = [line["validation/nll_seen"] for line in log if "validation/nll_seen" in line]
    assert len(seen) == 3 and seen[-1] < seen[0] - 0.5


# ---- refusals


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("balance", value) for value in (-0.1, 1e4, math.nan)],
        *[("recombine", value) for value in (7.0, -0.1, math.nan)],
        *[("jitter_rad", value) for value in (-1.0, math.nan, math.inf)],
        *[("validation_frames", value) for value in (0, -3)],
        *[("shares", (value,)) for value in (0.0, -1.0, math.nan, math.inf)],
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name} is "):
        PosesConfig(**{name: value})


def test_a_prior_of_other_joints_is_refused():
    with pytest.raises(ValueError, match=r"prior\.joints is 5"):
        PriorRun(prior=replace(SMALL, joints=5))


@pytest.mark.parametrize(
    ("option", "said", "code"),
    [
        ("--loop.stesp=1", "--loop.steps", 2),
        ("--prior.kind=spline", "vae", 2),
        ("--loop.steps=0", "must be positive", 2),
        ("--loop.optimizer.learning-rate=inf", "learning_rate is .inf", 1),
    ],
)
def test_an_option_is_held_to_the_rules_of_the_file(option, said, code, capsys):
    try:
        left = main(["train", str(ROOT / "configs" / "prior_flow.yaml"), option])
    except SystemExit as end:
        left = end.code
    assert left == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [["-o", "x.yaml", "configs/prior_flow.yaml"], ["--loop.steps", "3"]])
def test_the_file_comes_first(words, capsys):
    assert main(["train", *words]) == 1
    assert f"found {words[0]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "No poses to train on"),
        (["--data", "absent.npz", "--poses.shares"], "absent.npz"),
        (["--data", "FOLDER", "--poses.shares"], "Nobody among the poses is called 02, 10"),
        (["--data", "FOLDER", "--poses.shares", "--poses.held-out", "a", "b", "c"], "0 frames are there to train on"),
        (["--data", "FOLDER"], "poses.shares has 2 numbers for 1 paths"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(flags, sentence, folder, tmp_path, capsys):
    words = ["train", str(ROOT / "configs" / "prior_flow.yaml"), "-o", str(tmp_path / "run"), *flags]
    assert main([str(folder) if word == "FOLDER" else word for word in words]) == 1
    told = capsys.readouterr().err
    assert sentence in told and told.count("\n") == 1


def test_a_gaussian_is_not_trained_step_by_step(folder, tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("task: prior\nprior: {kind: gaussian}\n")
    assert main(["train", str(tmp_path / "a.yaml"), "--data", str(folder), "-o", str(tmp_path / "run")]) == 1
    assert "fitted in one go, by tools/fit_priors.py" in capsys.readouterr().err


def test_a_verb_without_its_file_says_what_it_wants(capsys):
    assert main(["train"]) == 1
    assert "Name the YAML file" in capsys.readouterr().err
    assert main(["train", "--help"]) == 0
    assert "meshrec train CONFIG.yaml" in capsys.readouterr().out


def test_shares_that_fit_no_path_are_refused_before_anything_is_read(folder):
    with pytest.raises(MeshrecError, match=r"poses\.shares"):
        build_prior_task(config(data=(folder,), poses=PosesConfig(held_out=("c",), shares=(0.1, 0.9))), CPU)


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_training_can_be_read_and_explained(file, capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", str(file), "--help"])
    assert left.value.code == 0
    assert "--loop.steps" in capsys.readouterr().out
