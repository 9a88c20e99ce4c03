"""Laws of what a lifter is shown: whose views, what is hidden of them, and what the discriminator is told."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from meshrec.data.views import Views
from meshrec.models.lifting import LIMB_JOINTS, project_units, with_root
from meshrec.skeletons import COCO17, H36M17
from meshrec.train.lift_draws import UNNAMED, AugmentConfig, Dealer, Poses, hidden
from meshrec.train.lift_imagined import ImagineConfig
from meshrec.train.lift_losses import GanConfig

STEPS = range(16)


def views(counts: dict[str, int], seed: int = 0) -> Views:
    """Anybody, off the middle of the picture."""
    total = sum(counts.values())
    generator = torch.Generator().manual_seed(seed)
    below, aside = (torch.randn(*shape, generator=generator) for shape in ((total, 16, 3), (total, 1, 3)))
    joints_m = with_root(0.3 * below) + 0.5 * aside + torch.tensor([0.0, 0.0, 5.0])
    subject = np.repeat(np.array(list(counts)), list(counts.values()))
    points = joints_m[..., :2] / joints_m[..., 2:]
    return Views(points, torch.ones(total, 17, dtype=torch.bool), joints_m, subject, subject, np.arange(total))


def dealer(sight: Views, balance: float = 0.5, **augment) -> Dealer:
    return Dealer(Poses.of(sight), sight.subject, balance, AugmentConfig(**augment), seed=3)


def test_the_truth_is_turned_with_the_camera_that_looks_at_the_pelvis():
    sight = views({"a": 20})
    poses = Poses.of(sight)
    assert poses.joints_m is not None and sight.joints_m is not None
    distance_m = sight.joints_m[:, H36M17.index("pelvis")].norm(dim=-1)
    torch.testing.assert_close(project_units(poses.joints_m, distance_m), poses.points, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("balance", "share"), [(0.0, 0.9), (0.5, 0.75), (1.0, 0.5)])
def test_a_subject_of_n_views_counts_as_its_balance_says(balance, share):
    """n^(1 - balance) of 900 and of 100 views."""
    row = dealer(views({"a": 900, "b": 100}), balance).draws(STEPS, 500, 2, 1.0).row
    assert abs(float((row < 900).double().mean()) - share) < 0.02
    assert len(row.unique()) > 980


def test_novel_views_are_compared_with_poses_that_show_all_joints():
    sight, wrist = views({"a": 60}), H36M17.index("left_wrist")
    seen = sight.seen.clone()
    seen[10:, wrist] = False
    dealt = dealer(replace(sight, seen=seen), mirror=False)
    real = dealt.contest(STEPS, 20, GanConfig()).real
    assert (real[..., wrist, :] != 0).all()
    draws = dealt.draws(STEPS, 20, 2, 1.0)
    assert torch.equal(draws.poses.seen, draws.shown) and torch.equal(draws.shown[..., wrist], draws.row < 10)


def test_what_is_hidden_is_what_was_asked():
    random = np.random.default_rng(0)
    limbs = torch.tensor([joint in LIMB_JOINTS for joint in H36M17.joints])
    lost = hidden((3000,), 0.0, 1.0, 0.0, random)
    assert not lost[:, ~limbs].any()
    counts = lost.sum(-1).bincount(minlength=18) / 3000
    torch.testing.assert_close(counts[1:4], torch.full((3,), 1 / 3), rtol=0, atol=0.04)
    torch.testing.assert_close(lost[:, limbs].float().mean(0), torch.full((8,), 2 / 8), rtol=0, atol=0.04)
    nameless = hidden((3000,), 0.0, 0.0, 0.5, random)
    assert torch.equal(nameless.any(-1), nameless[:, UNNAMED].all(-1))
    assert nameless.sum() == nameless[:, UNNAMED].sum() and abs(float(nameless.any(-1).float().mean()) - 0.5) < 0.04
    some = hidden((3000,), 0.6, 0.0, 0.0, random)
    assert not some[:, 0].any() and abs(float(some[:, 1:].float().mean()) - 0.3) < 0.02
    assert not hidden((9,), 0.0, 0.0, 0.0, random).any()


def test_the_unnamed_are_what_cocos_joints_do_not_tell():
    told = {*COCO17.joints, "pelvis", "thorax"}
    assert {H36M17.joints[joint] for joint in UNNAMED} == set(H36M17.joints) - told


def test_flipped_labels_are_of_the_other_kind():
    dealt = dealer(views({"a": 50}))
    contest = dealt.contest(STEPS, 200, GanConfig(flip=0.25, fake_labels=(0.0, 0.3), times=2))
    assert contest.real_labels.shape == (16, 200, 2)
    for labels, lies in (
        (contest.real_labels, contest.real_labels < 0.5),
        (contest.fake_labels, contest.fake_labels > 0.5),
    ):
        assert abs(float(lies.float().mean()) - 0.25) < 0.03
        assert labels.max() > 1.15 and labels.min() < 0.02
    assert contest.wanted_labels.min() >= 0.7
    assert ((contest.fake_labels > 0.3) == (contest.fake_labels >= 0.7)).all()


def test_the_discriminators_noise_is_in_units_of_its_points_and_fades():
    contest = dealer(views({"a": 50})).contest(STEPS, 200, GanConfig(noise=0.2, noise_steps=32))
    for noise in (contest.real_noise, contest.fake_noise):
        for step in (0, 8):
            assert float(noise[step].std()) == pytest.approx(0.02 * (1 - step / 32), rel=0.05)
    assert not torch.equal(contest.real_noise, contest.fake_noise)


def test_of_the_imagined_a_share_is_chosen_and_all_but_the_hidden_shown():
    fancy = dealer(views({"a": 9})).fancies(STEPS, 300, ImagineConfig(0.6, 0.3, 0.1, 0.0, 1.0, 0.0))
    assert abs(float(fancy.chosen.float().mean()) - 0.6) < 0.03
    assert abs(float(fancy.swapped.float().mean()) - 0.3) < 0.02
    assert float(fancy.stretch.std()) == pytest.approx(0.1, rel=0.03)
    assert set((~fancy.shown).sum(-1).unique().tolist()) == {1, 2, 3}
