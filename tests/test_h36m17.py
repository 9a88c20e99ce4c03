"""Joints travel to H36M-17 by name and keep their side; what lies between two others lies midway."""

import pytest
import torch

from meshrec.data.h36m17 import MIDPOINTS, h36m17_of
from meshrec.skeletons import COCO17, H36M17, LSP14, MEDIAPIPE33, MPII16, OPENPOSE25, SKELETONS, SMPL24, Skeleton
from meshrec.types import Keypoints

BATCHES = [(), (1,), (3,), (2, 3)]

MISSING = {
    COCO17: {"spine", "face", "head_top"},
    MEDIAPIPE33: {"spine", "face", "head_top"},
    OPENPOSE25: {"spine", "face", "head_top"},
    MPII16: {"spine", "face"},
    LSP14: {"spine", "face"},
    SMPL24: {"spine", "face", "head_top"},
    H36M17: set(),
}


def random_keypoints(skeleton: Skeleton, batch: tuple[int, ...] = (), seed: int = 0) -> Keypoints:
    generator = torch.Generator().manual_seed(seed)
    shape = (*batch, len(skeleton))
    xy_px = 1000 * torch.rand(*shape, 2, generator=generator, dtype=torch.float64)
    confidence = 0.5 + 0.5 * torch.rand(shape, generator=generator, dtype=torch.float64)
    landmarks_m = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    return Keypoints(xy_px, confidence, skeleton, landmarks_m)


def mirrored(keypoints: Keypoints) -> Keypoints:
    order = list(keypoints.skeleton.mirror)
    assert keypoints.landmarks_m is not None
    return Keypoints(
        keypoints.xy_px[..., order, :] * torch.tensor([-1.0, 1.0]),
        keypoints.confidence[..., order],
        keypoints.skeleton,
        keypoints.landmarks_m[..., order, :] * torch.tensor([-1.0, 1.0, 1.0]),
    )


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_named_joints_keep_their_place_and_the_others_lie_midway_or_are_missing(skeleton, batch):
    given = random_keypoints(skeleton, batch)
    found = h36m17_of(given)
    assert found.skeleton is H36M17
    for index, joint in enumerate(H36M17.joints):
        row = [getattr(found, name)[..., index, :] for name in ("xy_px", "landmarks_m")]
        if joint in MISSING[skeleton]:
            assert not found.confidence[..., index].any() and not any(part.any() for part in row)
            continue
        witnesses = (joint,) if joint in skeleton.joints else MIDPOINTS[joint]
        places = skeleton.indices(*witnesses)
        assert torch.equal(found.confidence[..., index], given.confidence[..., places].amin(dim=-1))
        for part, name in zip(row, ("xy_px", "landmarks_m"), strict=True):
            assert torch.allclose(part, getattr(given, name)[..., places, :].mean(dim=-2))


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_a_mirror_before_is_a_mirror_after(skeleton):
    given = random_keypoints(skeleton, (3,), seed=1)
    before, after = h36m17_of(mirrored(given)), mirrored(h36m17_of(given))
    for name in ("xy_px", "confidence", "landmarks_m"):
        assert torch.allclose(getattr(before, name), getattr(after, name))


def test_a_midpoint_is_missing_where_one_of_its_witnesses_is():
    given = random_keypoints(COCO17)
    given.confidence[COCO17.index("left_hip")] = 0.0
    given.confidence[COCO17.index("right_shoulder")] = 0.4
    found = h36m17_of(given)
    assert found.confidence[H36M17.index("pelvis")] == 0
    assert found.confidence[H36M17.index("thorax")] == 0.4
    assert found.confidence[H36M17.index("right_hip")] == given.confidence[COCO17.index("right_hip")]


def test_without_landmarks_there_are_none():
    given = random_keypoints(MPII16)
    assert h36m17_of(Keypoints(given.xy_px, given.confidence, MPII16)).landmarks_m is None
