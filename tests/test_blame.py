"""Which joints are to blame: the best turn is a minimum, changes no other joint, and finds what was broken."""

import pytest
import roma
import torch

from meshrec.prior_files import open_prior
from meshrec.skeletons import SMPL24
from priors.blame import best_turns, blame, foretold_gains

JOINTS = SMPL24.joints[1:]
BATCHES = [(), (1,), (3,), (2, 3)]


@pytest.fixture(scope="module", params=["gaussian", "mixture"])
def prior(request):
    return open_prior(request.param)


def usual_poses(prior, *batch):
    """Poses near the mode, in double precision."""
    generator = torch.Generator().manual_seed(0)
    count = int(torch.tensor(batch).prod()) if batch else 1
    pose = prior.sample(count, 0.5, generator).double()
    return roma.special_procrustes(pose).reshape(*batch, len(JOINTS), 3, 3)


def broken(pose, joint, *rotvec):
    """The pose with a joint turned further."""
    result = pose.clone()
    turn = roma.rotvec_to_rotmat(torch.tensor(rotvec, dtype=pose.dtype))
    result[..., JOINTS.index(joint), :, :] = result[..., JOINTS.index(joint), :, :] @ turn
    return result


def with_turn(pose, turns, joint):
    """The pose with one joint at its best rotation."""
    result = pose.clone()
    result[..., joint, :, :] = turns.rotations[..., joint, :, :]
    return result


@pytest.mark.parametrize("batch", BATCHES)
def test_the_gain_is_what_the_energy_loses(prior, batch):
    pose = broken(usual_poses(prior, *batch), "left_elbow", 0.0, 1.5, 0.0)
    turns = best_turns(prior, pose)
    assert turns.gain.shape == (*batch, len(JOINTS))
    assert bool((turns.gain >= 0).all())
    for joint in range(0, len(JOINTS), 5):
        lost = prior.energy(pose) - prior.energy(with_turn(pose, turns, joint))
        torch.testing.assert_close(turns.gain[..., joint], lost)


def test_the_best_rotation_is_one_at_which_the_joint_has_no_gradient(prior):
    pose = broken(usual_poses(prior, 4), "right_knee", -1.0, 0.2, 0.0)
    turns = best_turns(prior, pose)
    for joint in range(len(JOINTS)):
        equations = prior.normal_equations(with_turn(pose, turns, joint))
        own = slice(3 * joint, 3 * joint + 3)
        stiffness = equations.hessian[..., own, own].diagonal(dim1=-2, dim2=-1).sqrt().amax(dim=-1)
        assert bool((equations.gradient[..., own].norm(dim=-1) < 1e-3 * stiffness).all())


def test_no_nearby_rotation_is_better(prior):
    pose = broken(usual_poses(prior, 2), "neck", 0.0, 1.0, 0.0)
    turns, generator = best_turns(prior, pose), torch.Generator().manual_seed(1)
    for joint in range(0, len(JOINTS), 4):
        best = with_turn(pose, turns, joint)
        for size in (0.01, 0.1):
            nudge = size * torch.randn(3, generator=generator, dtype=torch.float64)
            nudged = broken(best, JOINTS[joint], *nudge.tolist())
            assert bool((prior.energy(nudged) >= prior.energy(best) - 1e-9).all())


def test_each_joint_is_judged_with_the_others_as_they_are(prior):
    """A batch of poses is judged pose by pose, in float32 as in float64."""
    pose = usual_poses(prior, 3)
    together = best_turns(prior, pose).gain
    torch.testing.assert_close(together[1], best_turns(prior, pose[1]).gain)
    torch.testing.assert_close(best_turns(prior, pose.float()).gain.double(), together, atol=5e-3, rtol=1e-3)


def test_the_foretold_gain_is_the_gain_where_the_energy_is_quadratic(prior):
    pose = usual_poses(prior, 5)
    foretold, gain = foretold_gains(prior, pose), best_turns(prior, pose).gain
    assert float(((foretold - gain).abs() < 0.05 + 0.1 * gain).double().mean()) > 0.9


@pytest.mark.parametrize(
    ("joint", "rotvec"),
    [
        ("left_knee", (-1.9, 0.0, 0.0)),
        ("right_knee", (-1.9, 0.0, 0.0)),
        ("head", (0.0, 2.5, 0.0)),
        ("left_elbow", (0.0, 2.0, 0.0)),
        ("spine2", (1.2, 0.0, 0.0)),
    ],
)
def test_what_was_broken_is_blamed_first(prior, joint, rotvec):
    pose = usual_poses(prior, 6)
    found = blame(prior, broken(pose, joint, *rotvec), most=3)
    assert [JOINTS[index] for index in found.joints[:, 0].tolist()] == [joint] * 6
    before = blame(prior, pose, most=1).gain[:, 0]
    assert bool((found.gain[:, 1] < before + 2).all()), "the joints beside it are not to blame"


@pytest.mark.parametrize("most", [-1, 0, len(JOINTS) + 1])
def test_no_more_joints_than_there_are_can_be_blamed(prior, most):
    with pytest.raises(ValueError, match=f"most is {most}"):
        blame(prior, usual_poses(prior), most)


def test_two_broken_joints_are_both_blamed(prior):
    pose = broken(broken(usual_poses(prior, 4), "head", 0.0, 2.0, 0.0), "left_knee", -1.9, 0.0, 0.0)
    found = blame(prior, pose, most=2).joints
    assert found.sort(dim=-1).values.tolist() == [sorted(map(JOINTS.index, ("head", "left_knee")))] * 4


def test_blame_begins_with_the_joint_that_gains_most_alone_and_names_none_twice(prior):
    found = blame(prior, usual_poses(prior, 2, 3), most=5)
    assert found.joints.shape == found.gain.shape == (2, 3, 5)
    torch.testing.assert_close(found.gain[..., 0], found.alone.amax(dim=-1))
    torch.testing.assert_close(found.joints[..., 0], found.alone.argmax(dim=-1))
    assert all(len(set(joints)) == 5 for joints in found.joints.flatten(0, 1).tolist())
