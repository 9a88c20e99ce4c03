"""Laws of training lifters: what is learned from 2D alone, what every option does, and that a killed run goes on."""

import io
import math
from dataclasses import replace
from typing import Any

import jaxtyping
import numpy as np
import pytest
import roma
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.distributions import kl_divergence as torch_kl
from torch.nn.functional import binary_cross_entropy_with_logits

from meshrec.data.joints import JointFrames
from meshrec.data.views import Views, ViewsConfig, virtual_views
from meshrec.errors import MeshrecError
from meshrec.metrics import pa_mpjpe_mm
from meshrec.models.lifting import mirrored_joints, mirrored_points
from meshrec.models.vae_lifter import LifterConfig
from meshrec.skeletons import H36M17
from meshrec.train.descent import OptimizerConfig
from meshrec.train.lift import BLOCK, DensityConfig, LiftRun, LiftTask
from meshrec.train.lift_draws import AugmentConfig
from meshrec.train.lift_imagined import ImagineConfig
from meshrec.train.lift_losses import BetaCycle, GanConfig, LossWeights, kl_divergence
from meshrec.train.loop import run
from meshrec.train.processes import Processes, Share
from meshrec.train.training import LoopConfig, Training
from priors.flow import FlowConfig

CPU = torch.device("cpu")

REST_M = {
    "hip": (0.11, 0.0, 0.0),
    "knee": (0.0, -0.42, 0.0),
    "ankle": (0.0, -0.42, 0.0),
    "spine": (0.0, 0.25, 0.0),
    "thorax": (0.0, 0.25, 0.0),
    "face": (0.0, 0.12, 0.06),
    "head_top": (0.0, 0.14, -0.04),
    "shoulder": (0.18, -0.03, 0.0),
    "elbow": (0.0, -0.3, 0.0),
    "wrist": (0.0, -0.25, 0.0),
}
"""Bones of a stick person who stands, y up, facing z, left at x; of the left side."""

SWING_RAD = {
    "hip": ((0, 0), (0, 0)),
    "knee": ((-1.2, 0.3), (-0.1, 0.3)),
    "ankle": ((0.0, 1.4), (0, 0)),
    "spine": ((-0.1, 0.5), (-0.2, 0.2)),
    "thorax": ((-0.1, 0.2), (-0.1, 0.1)),
    "shoulder": ((0, 0), (0, 0)),
    "elbow": ((-2.0, 0.6), (0.1, 1.2)),
    "wrist": ((-1.8, 0.0), (0, 0)),
}
"""How a bone turns about x (backwards) and about z, besides its parent's turn."""


def stick_people(count: int, seed: int) -> np.ndarray:
    """Joints in metres of people who bend as people do."""
    random = np.random.default_rng(seed)
    joints = torch.zeros(count, 17, 3)
    turns = [torch.eye(3).expand(count, 3, 3)] * 17
    for child, (name, parent) in enumerate(H36M17.tree):
        if not parent:
            continue
        side, _, rest = name.partition("_")
        bone, sign = (rest, -1.0 if side == "right" else 1.0) if side in ("left", "right") else (name, 1.0)
        about_x, about_z = (
            torch.from_numpy(random.uniform(*span, count)) for span in SWING_RAD.get(bone, ((0, 0),) * 2)
        )
        turn = roma.euler_to_rotmat("ZX", [sign * about_z, about_x]).float()
        up = H36M17.index(parent)
        turns[child] = turns[up] @ turn
        offset = torch.tensor(REST_M[bone]) * torch.tensor([sign, 1.0, 1.0])
        joints[:, child] = joints[:, up] + (turns[child] @ offset[:, None])[..., 0]
    return joints.numpy()


def frames(people: dict[str, int], seed: int = 0) -> JointFrames:
    """So many poses of each person."""
    joints_m = np.concatenate([stick_people(count, seed + index) for index, count in enumerate(people.values())])
    names = np.repeat(np.array(list(people)), list(people.values()))
    return JointFrames(joints_m, names, names, names, names)


def views(people: dict[str, int], seed: int = 0) -> Views:
    """Each pose from two cameras."""
    known = frames(people, seed)
    return virtual_views(known, np.arange(len(known.joints_m)), ViewsConfig(views=2, seed=seed))


PEOPLE = {"a": 300, "b": 100, "c": 100}
SMALL = LifterConfig(hidden=32, latent=8, dropout=0.0)
BEST = LiftRun(
    lifter=replace(
        SMALL, hidden=64, place="ray", scale="pose", distance="learned", elevation="learned", start_gain=0.1
    ),
    losses=LossWeights(
        reprojection=10.0,
        adversarial=0.0,
        likelihood=1.0,
        again=30.0,
        symmetry=1.0,
        bones=1.0,
        chirality=1.0,
    ),
    beta=BetaCycle(10, 30, 10),
    augment=AugmentConfig(drop=0.1, drop_limbs=0.3),
    density=DensityConfig(FlowConfig(depth=2, hidden=16)),
    loop=LoopConfig(
        steps=200,
        batch=64,
        ema=0.98,
        log_every=50,
        validate_every=100,
        optimizer=OptimizerConfig(learning_rate=2e-3, schedule="cosine", clip_norm=2.0),
    ),
)
THESIS = LiftRun(
    lifter=replace(SMALL, dropout=0.2),
    loop=LoopConfig(steps=6, batch=16, optimizer=OptimizerConfig(learning_rate=2e-4, clip_norm=2.0)),
)


@pytest.fixture(scope="module")
def halves() -> tuple[Views, Views]:
    return views(PEOPLE).split({"c"})


@pytest.fixture
def unchecked():
    """Every other test checks types; in hundreds of steps that would take most of the time."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def changed(config: LiftRun, **loop: Any) -> LiftRun:
    return replace(config, loop=replace(config.loop, **loop))


def made(config: LiftRun, halves: tuple[Views, Views]) -> LiftTask:
    return LiftTask(config, *halves, CPU)


def trained(config: LiftRun, halves: tuple[Views, Views]) -> tuple[LiftTask, Training]:
    task = made(config, halves)
    training = Training(task, config.loop, Processes())
    for _ in range(config.loop.steps):
        training.advance()
    return task, training


def weights_of(task: LiftTask) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in task.model.parameters()])


@torch.no_grad()
def validated(task: LiftTask) -> dict[str, float]:
    return task.validate(task.model.eval())


def errors_mm(task: LiftTask, training: Training) -> tuple[float, float]:
    """Of the lifter and of poses without depth, as a camera far away sees them."""
    true = task.unseen.poses.joints_m
    flat = torch.cat([task.unseen.poses.points, torch.zeros_like(true[..., :1])], dim=-1)
    return training.validate()["pa_mpjpe_mm"], float(pa_mpjpe_mm(flat, true).mean())


# ---- learning


def test_depth_is_learned_from_2d_alone(halves, unchecked):
    lifted_mm, flat_mm = errors_mm(*trained(BEST, halves))
    assert lifted_mm < 0.85 * flat_mm


def test_the_thesis_learns_to_reproject(halves, unchecked):
    config = changed(THESIS, steps=60, batch=64, optimizer=OptimizerConfig(learning_rate=2e-3, clip_norm=2.0))
    task = made(replace(config, beta=BetaCycle(5, 15, 5)), halves)
    training, rows = Training(task, config.loop, Processes()), []
    for _ in range(3):
        for _ in range(20):
            training.advance()
        rows.append(training.figures())
    first, *_, last = (row["lifter/reprojection"] for row in rows)
    assert last < 0.7 * first
    assert all(math.isfinite(value) and abs(value) < 10 for row in rows for value in row.values())


def test_the_truth_teaches_where_it_may(halves, unchecked):
    config = changed(THESIS, steps=80, batch=64, optimizer=OptimizerConfig(learning_rate=4e-3))
    config = replace(config, supervision="3d", lifter=replace(SMALL, hidden=64, start_gain=0.1))
    task, training = trained(config, halves)
    lifted_mm, flat_mm = errors_mm(task, training)
    assert lifted_mm < flat_mm
    assert set(training.figures()) >= {"lifter/joints", "lifter/kld"}
    assert [phase.name for phase in task.phases] == ["lifter"]


# ---- what may be known


def test_without_supervision_no_truth_is_held(halves):
    task = made(THESIS, halves)
    assert task.views.joints_m is None and task.dealer.poses.joints_m is None
    assert task.batch(0, Share()).draws.poses.joints_m is None
    assert made(replace(THESIS, supervision="3d"), halves).batch(0, Share()).draws.poses.joints_m is not None


@pytest.mark.parametrize("held", [False, True])
def test_another_truth_changes_no_weight(halves, held):
    others = list(halves)
    others[held] = replace(halves[held], joints_m=halves[held].joints_m.flip(0) * 1.7)
    first, again = (trained(changed(THESIS, steps=3), pair)[0] for pair in (halves, tuple(others)))
    assert torch.equal(weights_of(first), weights_of(again))
    blind = made(THESIS, (halves[0].without_truth(), halves[1].without_truth()))
    assert "pa_mpjpe_mm" not in validated(blind)


# ---- randomness


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return all(same(getattr(one, name), getattr(other, name)) for name in vars(one)) if hasattr(one, "map") else True


def test_shares_of_a_batch_are_the_batch(halves):
    config = replace(BEST, losses=replace(BEST.losses, adversarial=1.0))
    task, again = made(config, halves), made(config, halves)
    for step in (BLOCK + 3, BLOCK - 1):
        whole = task.batch(step, Share()).draws
        for index in range(4):
            rows = slice(16 * index, 16 * index + 16)
            assert same(again.batch(step, Share(index, 4)).draws, whole[rows])
    assert not torch.equal(task.batch(0, Share()).draws.row, task.batch(1, Share()).draws.row)


@pytest.mark.parametrize("config", [THESIS, replace(BEST, losses=replace(BEST.losses, adversarial=0.1))])
def test_parts_of_a_batch_add_up_to_it(halves, config):
    """Without dropout, and with batch norms that hold still, which else see each part alone."""
    config = replace(config, lifter=replace(config.lifter, dropout=0.0), gan=replace(config.gan, dropout=0.0))
    steps = {}
    for parts in (1, 4):
        task = made(changed(config, ema=0.0, batch=32, accumulate=parts), halves)
        for module in task.model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.train = lambda mode=True, norm=module: nn.Module.train(norm, False)
        training = Training(task, replace(config.loop, ema=0.0, batch=32, accumulate=parts), Processes())
        training.advance()
        steps[parts] = training.figures()
    for name, value in steps[1].items():
        assert steps[4][name] == pytest.approx(value, rel=2e-3, abs=1e-6), name


def test_a_run_killed_after_a_step_goes_on_to_the_same_bits(halves, tmp_path):
    class KilledError(Exception):
        pass

    class Mortal(LiftTask):
        def batch(self, step: int, share: Share) -> Any:
            if step == 5:
                raise KilledError
            return super().batch(step, share)

    config = replace(
        changed(THESIS, ema=0.9, checkpoint_every=2, validate_every=4, steps=8),
        losses=LossWeights(likelihood=1.0, again=1.0),
        imagine=ImagineConfig(share=0.5),
        select_by="last",
        density=BEST.density,
        gan=GanConfig(times=2, noise=0.1, noise_steps=6),
    )
    quiet = Console(file=io.StringIO())
    run(made(config, halves), config, tmp_path / "whole", console=quiet)
    with pytest.raises(KilledError):
        run(Mortal(config, *halves, CPU), config, tmp_path / "cut", console=quiet)
    run(made(config, halves), config, tmp_path / "cut", console=quiet)
    for name in ("last.safetensors", *(path.name for path in (tmp_path / "whole").glob("best_*"))):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


# ---- parts


def test_the_divergence_is_torchs():
    generator = torch.Generator().manual_seed(0)
    for batch in ((), (1,), (3,), (2, 3)):
        mean, log_variance = (torch.randn(*batch, 51, generator=generator, dtype=torch.float64) for _ in range(2))
        normal = Independent(Normal(mean, (log_variance / 2).exp()), 1)
        standard = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
        torch.testing.assert_close(kl_divergence(mean, log_variance), torch_kl(normal, standard))


def test_the_divergence_is_taken_over_48_coordinates(halves):
    task = made(THESIS, halves)
    told = validated(task)["loss_kld"]
    lifted = task.networks.lifter(task.unseen.given, task.unseen.shown)
    whole = kl_divergence(lifted.mean, lifted.log_variance).sum() / (len(halves[1]) * 48)
    assert told == pytest.approx(0.001 * float(whole.detach()), rel=1e-5)


def test_beta_waits_rises_and_holds():
    cycle = BetaCycle(wait=10, rise=30, hold=10)
    found = [cycle.beta(step) for step in range(100)]
    assert found[:10] == [0.0] * 10
    for start in (10, 50):
        np.testing.assert_allclose(found[start : start + 30], np.arange(30) / 30)
        assert found[start + 30 : start + 40] == [1.0] * 10
    assert [BetaCycle(2, 0, 1).beta(step) for step in range(4)] == [0.0, 0.0, 1.0, 1.0]


def test_the_loop_follows_the_cycle(halves):
    task = made(replace(THESIS, beta=BetaCycle(1, 2, 1)), halves)
    told = [float(task.losses("lifter", task.batch(step, Share()))["kld"].detach()) for step in range(4)]
    assert told[0] == told[1] == 0.0 < told[2] < told[3]


def test_only_real_labels_are_smoothed(halves):
    contest = made(changed(THESIS, batch=512), halves).batch(0, Share()).draws.contest
    for labels in (contest.real_labels, contest.wanted_labels):
        assert 0.7 <= labels.min() < 0.72 and 1.18 < labels.max() <= 1.2
    assert not contest.fake_labels.any()
    assert not torch.equal(contest.real_labels, contest.wanted_labels)


def test_real_and_novel_poses_are_judged_apart_and_the_lifter_wants_the_verdict_real(halves):
    task = made(replace(THESIS, gan=GanConfig(times=2, noise=0.1, flip=0.3, dropout=0.0)), halves)
    turn, (lifter, judge) = task.batch(0, Share()), (task.networks.lifter, task.networks.discriminator)
    contest = turn.draws.contest

    def expected(points: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
        scores = judge(lifter.normalised(points, torch.ones(points.shape[:-1], dtype=torch.bool)) + noise)
        return binary_cross_entropy_with_logits(scores, labels)

    for turns in range(2):
        told, of_this = task.losses("discriminator", turn), contest[:, turns]
        fake = turn.sight.fake.points
        real_loss = expected(of_this.real, of_this.real_noise, of_this.real_labels)
        torch.testing.assert_close(told["real"], real_loss)
        torch.testing.assert_close(told["fake"], expected(fake, of_this.fake_noise, of_this.fake_labels))
    wanted = expected(fake, contest.fake_noise[:, 0], contest.wanted_labels[:, 0])
    torch.testing.assert_close(task.losses("lifter", turn)["adversarial"], 0.001 * wanted)


def test_the_density_learns_real_poses_with_noise(halves):
    task = made(BEST, halves)
    turn, density = task.batch(0, Share()), task.networks.density
    x = density.coordinates(turn.draws.real) + 0.03 * turn.draws.jitter
    torch.testing.assert_close(task.losses("density", turn)["nll"], -density.flow.log_prob(x).mean())


def test_who_judges_learns_before_the_lifter(halves):
    config = replace(BEST, losses=replace(BEST.losses, adversarial=1.0))
    assert [phase.name for phase in made(config, halves).phases] == ["density", "discriminator", "lifter"]


def test_each_phase_moves_its_own_networks(halves):
    config = replace(BEST, losses=replace(BEST.losses, adversarial=1.0))
    task = made(config, halves)
    training, batch = Training(task, config.loop, Processes()), task.batch(0, Share())
    networks = {
        name: list(getattr(task.networks, name).parameters()) for name in ("density", "discriminator", "lifter")
    }
    for descent in training._descents:
        before = {name: [one.detach().clone() for one in ones] for name, ones in networks.items()}
        training._descend(descent, [batch])
        for name, ones in networks.items():
            still = all(torch.equal(one, old) for one, old in zip(ones, before[name], strict=True))
            assert still == (name != descent.phase.name)
            assert all(one.grad is None for one in ones)


def test_the_phases_of_a_step_share_one_look(halves):
    task, looks = made(THESIS, halves), []
    task.networks.lifter.encoder.register_forward_hook(lambda *_: looks.append(1))
    Training(task, THESIS.loop, Processes()).advance()
    assert len(looks) == 1


def test_flipped_poses_are_poses_in_a_mirror(halves):
    plain = replace(THESIS, supervision="3d", augment=AugmentConfig(mirror=False))
    alone, both = (made(one, halves) for one in (plain, replace(plain, augment=AugmentConfig())))
    for task, share in ((alone, 0.0), (both, 0.5)):
        flipped = []
        for step in range(BLOCK):
            draws = task.batch(step, Share()).draws
            rows = task.poses[draws.row]
            mirrors = (draws.poses.points - rows.points).abs().amax((1, 2)) > 1e-7
            expected = torch.where(mirrors[:, None, None], mirrored_joints(rows.joints_m), rows.joints_m)
            assert torch.equal(draws.poses.joints_m, expected)
            expected = torch.where(mirrors[:, None, None], mirrored_points(rows.points), rows.points)
            assert torch.equal(draws.given, expected)
            flipped.append(mirrors)
        assert abs(torch.cat(flipped).double().mean() - share) < 0.12


def test_what_is_hidden_is_asked_for(halves):
    task = made(replace(THESIS, augment=AugmentConfig(drop=0.5, drop_limbs=0.5)), halves)
    draws = task.batch(0, Share()).draws
    hidden = ~draws.shown
    assert not hidden[:, H36M17.index("pelvis")].any() and 0.1 < hidden.double().mean() < 0.5
    assert draws.poses.seen.all()
    points = torch.where(hidden[..., None], draws.given + 1, draws.given)
    lifter = task.networks.lifter.eval()
    torch.testing.assert_close(lifter(points, draws.shown).joints, lifter(draws.given, draws.shown).joints)


def test_noise_fades(halves):
    task = made(changed(replace(THESIS, augment=AugmentConfig(noise=0.1, noise_steps=10)), batch=256), halves)
    unit = float(task.networks.lifter.path)
    for step, left in ((0, 1.0), (5, 0.5), (10, 0.0), (12, 0.0)):
        draws = task.batch(step, Share()).draws
        off = draws.given - draws.poses.points
        assert not off[:, H36M17.index("pelvis")].any()
        assert float(off[:, 1:].std()) == pytest.approx(0.1 * left * unit, rel=0.05)


OPTIONS = {
    "flip": replace(THESIS, gan=GanConfig(flip=0.5)),
    "two_sided": replace(THESIS, gan=GanConfig(fake_labels=(0.0, 0.3))),
    "noise": replace(THESIS, augment=AugmentConfig(noise=0.1, noise_steps=100)),
    "gan_noise": replace(THESIS, gan=GanConfig(noise=0.1, noise_steps=100)),
    "times": replace(THESIS, gan=GanConfig(times=3)),
    "sgd": replace(THESIS, gan=GanConfig(optimizer=OptimizerConfig(kind="sgd", learning_rate=0.01))),
    "wasserstein": replace(THESIS, gan=GanConfig(loss="wasserstein")),
    "penalty": replace(THESIS, gan=GanConfig(loss="wasserstein", gradient_penalty=10.0)),
    "clipped": replace(THESIS, gan=GanConfig(loss="wasserstein", clip_weights=0.01)),
    "drop": replace(THESIS, augment=AugmentConfig(drop=0.3)),
    "drop_limbs": replace(THESIS, augment=AugmentConfig(drop_limbs=0.5)),
    "raise": replace(THESIS, augment=AugmentConfig(raise_rad=math.pi / 9)),
    "mirror": replace(THESIS, augment=AugmentConfig(mirror=False)),
    "balance": replace(THESIS, balance=1.0),
    **{
        name: replace(THESIS, losses=replace(LossWeights(), **{name: 1.0}), density=BEST.density)
        for name in ("likelihood", "again", "again_2d", "symmetry", "bones", "chirality")
    },
    "ray": replace(THESIS, lifter=replace(THESIS.lifter, place="ray")),
    "scale": replace(THESIS, lifter=replace(THESIS.lifter, scale="pose")),
    "distance": replace(THESIS, lifter=replace(THESIS.lifter, distance="learned")),
    "elevation": replace(THESIS, lifter=replace(THESIS.lifter, elevation="learned")),
    "encoders": replace(THESIS, lifter=replace(THESIS.lifter, split_encoders=True)),
    "bf16": changed(THESIS, precision="bf16"),
}


@pytest.fixture(scope="module")
def plain(halves) -> Tensor:
    return decoded(trained(changed(THESIS, steps=3), halves)[0])


def decoded(task: LiftTask) -> Tensor:
    """What the decoder gives, whatever heads it has."""
    return task.networks.lifter.decoder.joints.weight.detach().clone()


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_runs_and_changes_something(halves, plain, name):
    task, training = trained(changed(OPTIONS[name], steps=3), halves)
    assert all(math.isfinite(value) for value in training.figures().values())
    assert all(math.isfinite(value) for value in training.validate().values())
    assert not torch.equal(decoded(task), plain)
    if name == "clipped":
        task.losses("lifter", task.batch(3, Share()))
        assert max(float(one.detach().abs().max()) for one in task.networks.discriminator.parameters()) <= 0.01 + 1e-8


def test_geometry_and_losses_stay_in_float32(halves):
    config = replace(BEST, losses=replace(BEST.losses, adversarial=1.0))
    terms = {}
    for enabled in (False, True):
        task = made(config, halves)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            turn = task.batch(0, Share())
            for phase in task.phases:
                terms[enabled, phase.name] = task.losses(phase.name, turn)
    for phase in task.phases:
        for name, value in terms[False, phase.name].items():
            rounded = terms[True, phase.name][name]
            assert rounded.dtype == torch.float32
            exact = phase.name == "density" or name == "reprojection"
            torch.testing.assert_close(
                rounded, value, rtol=1e-6 if phase.name == "density" else 0.1, atol=1e-6 if exact else 0.02
            )


# ---- choosing and refusing


def test_the_best_model_is_chosen_as_is_asked(halves):
    for choice in ("loss", "last", "pa_mpjpe_mm"):
        task = made(replace(THESIS, select_by=choice), halves)
        for step in (3, 7):
            task.batch(step, Share())
        figures = validated(task)
        assert task.selected_by == choice and figures["last"] == -7.0
        assert figures["loss"] == pytest.approx(figures["loss_reprojection"] + figures["loss_kld"])


def test_views_are_described_by_their_people(halves):
    task = made(THESIS, halves)
    assert task.describe(task.batch(0, Share())) == "16 views of a, b"


@pytest.mark.parametrize(
    ("config", "held_out", "sentence"),
    [
        (THESIS, (), "0 to validate on"),
        (replace(THESIS, supervision="3d"), ("c",), "some of the data are 2D alone"),
        (replace(THESIS, select_by="pa_mpjpe_mm"), ("c",), "have no truth"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(halves, config, held_out, sentence):
    blind = views(PEOPLE).without_truth()
    with pytest.raises(MeshrecError, match=sentence):
        made(config, blind.split(set(held_out)))


def test_novel_views_need_whole_poses_to_be_compared_with(halves):
    seen = halves[0].seen.clone()
    seen[:, H36M17.index("left_wrist")] = False
    half = replace(halves[0], seen=seen)
    with pytest.raises(MeshrecError, match="No view shows all 17 joints"):
        made(THESIS, (half, halves[1]))
    lonely = replace(THESIS, losses=LossWeights(adversarial=0.0, chirality=1.0))
    assert trained(changed(lonely, steps=2), (half, halves[1]))[1].step == 2


@pytest.mark.parametrize(
    "change",
    [
        {"lifter": replace(SMALL, elevation="learned"), "losses": LossWeights(adversarial=0.0)},
        {"lifter": replace(SMALL, elevation="learned"), "supervision": "3d"},
        {"lifter": replace(SMALL, distance="learned"), "supervision": "3d"},
    ],
)
def test_heads_that_nothing_teaches_are_refused(change):
    with pytest.raises(ValueError, match=r"^lifter\."):
        LiftRun(**change)


def test_a_batch_of_one_is_refused():
    """Nothing can be normed by itself."""
    with pytest.raises(ValueError, match="batch is 6; batch norms need 2"):
        changed(THESIS, batch=6, accumulate=4)
