"""Skeletons: trees, mirror images, conversion by name, and the published orders."""

import pytest
import torch

from meshrec.skeletons import (
    COCO17,
    H36M17,
    LSP14,
    MEDIAPIPE33,
    MPII16,
    OPENPOSE25,
    SKELETONS,
    SMPL24,
    convert,
    visibility,
)

ALL = list(SKELETONS.values())
BATCHES = [(), (1,), (3,), (2, 3)]


@pytest.fixture(params=ALL, ids=lambda skeleton: skeleton.name)
def skeleton(request):
    return request.param


def test_names_are_unique_and_as_many_as_the_skeleton_says(skeleton):
    assert len(set(skeleton.joints)) == len(skeleton)
    assert skeleton.name.endswith(str(len(skeleton)))
    assert SKELETONS[skeleton.name] is skeleton


def test_index_is_the_inverse_of_joints(skeleton):
    assert skeleton.indices(*skeleton.joints) == list(range(len(skeleton)))


def test_an_unknown_joint_is_named_with_those_there_are(skeleton):
    with pytest.raises(ValueError, match=f"{skeleton.name} has no joint 'tail'; it has .*left_knee"):
        skeleton.index("tail")


def test_every_joint_hangs_on_one_root(skeleton):
    roots = set()
    for joint in range(len(skeleton)):
        steps = 0
        while skeleton.parents[joint] >= 0:
            joint, steps = skeleton.parents[joint], steps + 1
            assert steps <= len(skeleton), "the tree has a loop"
        roots.add(joint)
    assert len(roots) == 1
    assert skeleton.parents.count(-1) == 1


def test_bones_are_the_parents_read_the_other_way(skeleton):
    assert len(skeleton.bones) == len(skeleton) - 1
    assert all(skeleton.parents[child] == parent for parent, child in skeleton.bones)


def test_smpl_and_h36m_list_parents_before_children():
    for skeleton in (SMPL24, H36M17):
        assert all(parent < child for parent, child in skeleton.bones)


def test_mirror_is_an_involution_that_swaps_sides_only(skeleton):
    for joint, image in enumerate(skeleton.mirror):
        name, mirrored = skeleton.joints[joint], skeleton.joints[image]
        assert skeleton.mirror[image] == joint
        assert name.startswith(("left_", "right_")) == (image != joint)
        assert {name.partition("_")[0], mirrored.partition("_")[0]} == {"left", "right"} or name == mirrored
        assert image == joint or name.partition("_")[2] == mirrored.partition("_")[2]


def test_mirror_keeps_the_tree(skeleton):
    for joint, parent in enumerate(skeleton.parents):
        expected = skeleton.mirror[parent] if parent >= 0 else -1
        assert skeleton.parents[skeleton.mirror[joint]] == expected


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("target", ALL, ids=lambda skeleton: skeleton.name)
def test_conversion_there_and_back_keeps_the_joints_both_know(skeleton, target, batch):
    values = torch.randn(*batch, len(skeleton), 3, dtype=torch.float64)
    there, known = convert(values, skeleton, target)
    back, returned = convert(there, target, skeleton)
    shared = torch.tensor([joint in target.joints for joint in skeleton.joints])
    assert there.shape == (*batch, len(target), 3)
    assert torch.equal(returned, shared)
    assert known.sum() == shared.sum()
    assert torch.equal(back[..., shared, :], values[..., shared, :])
    assert (back[..., ~shared, :] == 0).all() and (there[..., ~known, :] == 0).all()


def test_conversion_goes_by_name_whatever_the_type():
    numbers = torch.arange(len(COCO17))[:, None]
    there, known = convert(numbers, COCO17, LSP14)
    assert there.dtype == numbers.dtype
    for row, joint in enumerate(LSP14.joints):
        assert known[row] == (joint in COCO17.joints)
        assert there[row, 0] == (COCO17.index(joint) if known[row] else 0)


def test_a_missing_joint_is_zero_though_its_stand_in_is_nan():
    values = torch.full((len(COCO17), 2), torch.nan)
    there, known = convert(values, COCO17, H36M17)
    assert (there[~known] == 0).all()


def test_conversion_refuses_values_of_another_skeleton():
    with pytest.raises(ValueError, match="coco17 has 17 joints, the values have 24"):
        convert(torch.zeros(24, 3), COCO17, H36M17)


@pytest.mark.parametrize(
    ("skeleton", "joint", "place"),
    [
        (SMPL24, "pelvis", 0),
        (SMPL24, "left_hip", 1),
        (SMPL24, "right_hip", 2),
        (SMPL24, "left_ankle", 7),
        (SMPL24, "neck", 12),
        (SMPL24, "head", 15),
        (SMPL24, "left_shoulder", 16),
        (SMPL24, "right_wrist", 21),
        (SMPL24, "right_hand", 23),
        (H36M17, "pelvis", 0),
        (H36M17, "right_hip", 1),
        (H36M17, "left_hip", 4),
        (H36M17, "thorax", 8),
        (H36M17, "head_top", 10),
        (H36M17, "left_shoulder", 11),
        (H36M17, "right_wrist", 16),
        (COCO17, "nose", 0),
        (COCO17, "left_eye", 1),
        (COCO17, "left_shoulder", 5),
        (COCO17, "right_wrist", 10),
        (COCO17, "left_hip", 11),
        (COCO17, "right_ankle", 16),
        (MPII16, "right_ankle", 0),
        (MPII16, "left_hip", 3),
        (MPII16, "pelvis", 6),
        (MPII16, "head_top", 9),
        (MPII16, "right_wrist", 10),
        (MPII16, "left_wrist", 15),
        (LSP14, "right_ankle", 0),
        (LSP14, "left_ankle", 5),
        (LSP14, "right_wrist", 6),
        (LSP14, "head_top", 13),
        (OPENPOSE25, "upper_neck", 1),
        (OPENPOSE25, "right_shoulder", 2),
        (OPENPOSE25, "pelvis", 8),
        (OPENPOSE25, "left_foot_index", 19),
        (OPENPOSE25, "right_heel", 24),
        (MEDIAPIPE33, "left_ear", 7),
        (MEDIAPIPE33, "left_shoulder", 11),
        (MEDIAPIPE33, "right_hip", 24),
        (MEDIAPIPE33, "right_foot_index", 32),
    ],
)
def test_the_orders_are_those_of_the_data_sets(skeleton, joint, place):
    assert skeleton.index(joint) == place


def test_limbs_hang_on_their_own_side(skeleton):
    for parent, child in skeleton.bones:
        sides = {skeleton.joints[end].partition("_")[0] for end in (parent, child)}
        assert not {"left", "right"} <= sides


@pytest.mark.parametrize("limb", [("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist")])
@pytest.mark.parametrize("side", ["left", "right"])
def test_limbs_are_chains_in_every_skeleton(skeleton, side, limb):
    near, middle, far = (f"{side}_{part}" for part in limb)
    assert skeleton.parents[skeleton.index(far)] == skeleton.index(middle)
    assert skeleton.parents[skeleton.index(middle)] == skeleton.index(near)


@pytest.mark.parametrize("batch", BATCHES)
def test_visibility_of_a_shared_joint_is_its_own_confidence(batch):
    confidence = torch.rand(*batch, len(COCO17), dtype=torch.float64)
    seen = visibility(confidence, COCO17, H36M17)
    own, known = convert(confidence[..., None], COCO17, H36M17)
    assert seen.shape == (*batch, len(H36M17))
    assert torch.equal(seen[..., known], own[..., known, 0])
    assert ((seen >= 0) & (seen <= 1)).all()


def test_an_unseen_side_stays_unseen_in_another_skeleton():
    confidence = torch.tensor([0.0 if joint.startswith("left_") else 1.0 for joint in COCO17.joints])
    seen = visibility(confidence, COCO17, SMPL24)
    for row, joint in enumerate(SMPL24.joints):
        assert not joint.startswith("left_") or seen[row] < 1, joint
        assert not joint.startswith("right_") or seen[row] > 0, joint
