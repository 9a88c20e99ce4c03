"""Laws of made poses: a mirror undone by itself, jitter of the stated size, limbs that come from somewhere."""

import numpy as np
import pytest
import roma
import torch

from meshrec.body import load_body_model
from meshrec.data.pose_augment import BODY_JOINTS, LIMBS, jittered, mirrored, recombined
from meshrec.skeletons import SMPL24
from meshrec.types import BodyParams

BATCHES = [(), (1,), (3,), (2, 3)]


def poses(*batch: int) -> torch.Tensor:
    vectors = torch.randn(*batch, 23, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return roma.rotvec_to_rotmat(0.5 * vectors)


@pytest.mark.parametrize("batch", BATCHES)
def test_a_mirror_is_undone_by_itself_and_gives_rotations(batch):
    rotations = poses(*batch)
    image = mirrored(rotations)
    torch.testing.assert_close(mirrored(image), rotations)
    torch.testing.assert_close(torch.linalg.det(image), torch.ones(*batch, 23, dtype=torch.float64))


def test_the_mirrored_pose_poses_the_mirrored_body():
    model = load_body_model(dtype=torch.float64)
    rotations = poses(1)

    def joints(pose: torch.Tensor) -> torch.Tensor:
        root = torch.eye(3, dtype=torch.float64).expand(1, 3, 3)
        zeros = torch.zeros(1, 3, dtype=torch.float64)
        return model.joints24(BodyParams(root, pose, torch.zeros(1, 10, dtype=torch.float64), zeros))[0]

    swapped = joints(rotations)[list(SMPL24.mirror)] * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(joints(mirrored(rotations)), swapped, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch", BATCHES)
def test_jitter_has_its_size_and_follows_its_generator(batch):
    rotations = poses(*batch)
    shaken = jittered(rotations, 0.03, np.random.default_rng(1))
    torch.testing.assert_close(shaken, jittered(rotations, 0.03, np.random.default_rng(1)), rtol=0, atol=0)
    assert shaken.shape == rotations.shape
    still = jittered(rotations, 0.0, np.random.default_rng(1))
    torch.testing.assert_close(still, rotations)


def test_jitter_is_a_standard_deviation_of_every_axis():
    rotations = poses(500)
    delta = roma.rotmat_to_rotvec(rotations.mT @ jittered(rotations, 0.03, np.random.default_rng(2)))
    spread = delta.flatten(0, 1).std(dim=0)
    torch.testing.assert_close(spread, torch.full((3,), 0.03, dtype=torch.float64), rtol=0.05, atol=0)


def test_limbs_are_whole_and_sides_match():
    assert {name.partition("_")[2] for name in LIMBS} == {"leg", "arm"}
    for name, joints in LIMBS.items():
        assert all(BODY_JOINTS[joint].startswith(name.partition("_")[0]) for joint in joints)
    assert len({joint for joints in LIMBS.values() for joint in joints}) == 18


@pytest.mark.parametrize("batch", [(7,), (3, 7)])
def test_every_limb_of_a_recombined_pose_is_someones_and_the_trunk_stays(batch):
    rotations = poses(*batch)
    mixed = recombined(rotations, 0.5, np.random.default_rng(3))
    trunk = [joint for joint in range(23) if not any(joint in limb for limb in LIMBS.values())]
    torch.testing.assert_close(mixed[..., trunk, :, :], rotations[..., trunk, :, :], rtol=0, atol=0)
    changed = 0
    for joints in LIMBS.values():
        limb, source = mixed[..., joints, :, :], rotations[..., joints, :, :]
        same = (limb[..., :, None, :, :, :] == source[..., None, :, :, :, :]).flatten(-3).all(dim=-1)
        assert same.any(dim=-1).all()
        changed += int((~same.diagonal(dim1=-2, dim2=-1)).sum())
    assert changed > 0


def test_nothing_is_recombined_with_share_zero():
    rotations = poses(5)
    torch.testing.assert_close(recombined(rotations, 0.0, np.random.default_rng(0)), rotations, rtol=0, atol=0)
