"""Every joint a body can say: its rows are the regressors', and other skeletons' joints find theirs by name."""

import pytest
import roma
import torch

from meshrec.body import load_body_model
from meshrec.data.body_joints import (
    BODY58,
    DOUBTS,
    MID_HIP,
    NEAREST,
    OWN,
    UNSURE,
    UNSURE_ABOVE_CM,
    body_joints,
    placed,
    row_name,
)
from meshrec.skeletons import COCO17, H36M17, LSP14, MEDIAPIPE33, MPII16, OPENPOSE25, SKELETONS, SMPL24
from meshrec.types import BodyParams

BATCHES = [(), (1,), (3,), (2, 3)]
MODEL = load_body_model(dtype=torch.float64)
LIMBS = [f"{side}_{joint}" for side in ("left", "right") for joint in ("shoulder", "elbow", "wrist", "knee", "ankle")]


def params(*batch: int) -> BodyParams:
    random = torch.Generator().manual_seed(0)
    rotations = roma.rotvec_to_rotmat(0.4 * torch.randn(*batch, 24, 3, generator=random, dtype=torch.float64))
    betas = torch.randn(*batch, 10, generator=random, dtype=torch.float64)
    return BodyParams.from_rotations(rotations, betas, torch.randn(*batch, 3, generator=random, dtype=torch.float64))


def at_rest(*rows: str) -> torch.Tensor:
    """The middle of some rows of the body at rest."""
    rest = BodyParams.from_rotations(
        torch.eye(3, dtype=torch.float64).expand(24, 3, 3),
        torch.zeros(10, dtype=torch.float64),
        torch.zeros(3, dtype=torch.float64),
    )
    return body_joints(MODEL, rest)[BODY58.indices(*rows)].mean(dim=0)


@pytest.mark.parametrize("batch", BATCHES)
def test_the_rows_are_the_three_skeletons_as_the_body_has_them(batch):
    joints = body_joints(MODEL, params(*batch))
    assert joints.shape == (*batch, 58, 3)
    vertices, tree = MODEL(params(*batch)).vertices_m, MODEL.joints24(params(*batch))
    for skeleton in (COCO17, H36M17):
        regressor = torch.tensor(MODEL.file.regressors[skeleton.name], dtype=torch.float64)
        rows = BODY58.indices(*(row_name(joint, skeleton) for joint in skeleton.joints))
        torch.testing.assert_close(joints[..., rows, :], regressor @ vertices, rtol=0, atol=1e-6)
    rows = BODY58.indices(*(row_name(joint, SMPL24) for joint in SMPL24.joints))
    torch.testing.assert_close(joints[..., rows, :], tree)


def test_each_row_has_its_mirror_image_in_its_own_skeleton():
    for joint, other in enumerate(BODY58.mirror):
        assert BODY58.mirror[other] == joint
        name, _, skeleton = BODY58.joints[joint].partition("@")
        assert BODY58.joints[other].partition("@")[2] == skeleton
        assert (joint == other) == (not name.startswith(("left_", "right_")))


def test_a_row_and_its_mirror_image_are_mirror_images_at_rest():
    rest = torch.stack([at_rest(row) for row in BODY58.joints])
    reflected = rest * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(rest[list(BODY58.mirror)], reflected, rtol=0, atol=1e-5)


def test_the_middle_of_the_hips_is_between_left_and_right():
    assert [BODY58.joints[row] for row in MID_HIP] == ["left_hip@coco17", "right_hip@coco17"]


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
@pytest.mark.parametrize("batch", BATCHES)
def test_every_joint_is_placed_by_its_name_or_nowhere(skeleton, batch):
    values = torch.arange(1.0, 1 + len(skeleton))[:, None].expand(*batch, -1, 2)
    weights = torch.linspace(0.1, 1, len(skeleton)).expand(*batch, -1)
    rows, rows_weight = placed(values, weights, skeleton)
    assert rows.shape == (*batch, 58, 2) and rows_weight.shape == (*batch, 58)
    known = set()
    for place, joint in enumerate(skeleton.joints):
        row = row_name(joint, skeleton) if skeleton in OWN else NEAREST.get(joint)
        if row is None or (skeleton not in OWN and joint in UNSURE):
            continue
        known.add(row)
        assert (rows[..., BODY58.index(row), :] == place + 1).all()
        torch.testing.assert_close(rows_weight[..., BODY58.index(row)], weights[..., place])
    unknown = BODY58.indices(*(set(BODY58.joints) - known))
    assert (rows_weight[..., unknown] == 0).all() and rows.isfinite().all()


@pytest.mark.parametrize(
    ("skeleton", "number"), [(COCO17, 17), (H36M17, 17), (SMPL24, 24), (MPII16, 14), (LSP14, 13), (OPENPOSE25, 18)]
)
def test_so_many_joints_of_each_skeleton_teach(skeleton, number):
    _, weights = placed(torch.zeros(len(skeleton), 2), torch.ones(len(skeleton)), skeleton)
    assert weights.sum() == number


def test_detected_joints_are_those_of_coco():
    _, weights = placed(torch.zeros(33, 2), torch.ones(33), MEDIAPIPE33)
    assert [BODY58.joints[row] for row in weights.nonzero()[:, 0]] == [row_name(j, COCO17) for j in COCO17.joints]


@pytest.mark.parametrize("doubt", DOUBTS, ids=lambda doubt: f"{doubt.joint} or {doubt.others[0]}")
def test_the_table_says_how_far_apart_definitions_lie(doubt):
    apart_cm = 100 * (at_rest(NEAREST[doubt.joint]) - at_rest(*doubt.others)).norm().item()
    assert apart_cm == pytest.approx(doubt.apart_cm, abs=0.06)


def test_what_lies_too_far_apart_is_unsure_and_limbs_are_not():
    assert {"thorax", "upper_neck"} == UNSURE
    for joint in LIMBS:
        for skeleton in (H36M17, SMPL24):
            apart_cm = 100 * (at_rest(row_name(joint, COCO17)) - at_rest(row_name(joint, skeleton))).norm().item()
            assert apart_cm < 0.15 < UNSURE_ABOVE_CM


def test_the_top_of_the_head_is_nearly_the_highest_vertex():
    rest = BodyParams.from_rotations(
        torch.eye(3).double().expand(24, 3, 3), torch.zeros(10).double(), torch.zeros(3).double()
    )
    vertices = MODEL(rest).vertices_m
    apart_cm = 100 * (vertices[vertices[:, 1].argmax()] - at_rest(NEAREST["head_top"])).norm().item()
    assert apart_cm == pytest.approx(1.6, abs=0.1)


def test_values_of_another_skeleton_are_a_callers_bug():
    with pytest.raises(ValueError, match="coco17 has 17 joints, the values have 16"):
        placed(torch.zeros(16, 2), torch.zeros(16), COCO17)
