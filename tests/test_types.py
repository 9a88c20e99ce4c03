"""What every noun can do: map, index, stack, move; and the order of the rotations."""

from dataclasses import FrozenInstanceError, fields

import pytest
import torch

from meshrec.skeletons import H36M17, SMPL24
from meshrec.types import Batched, Body, BodyParams, Camera, Estimate, FitReport, FitTerms, Keypoints, stack

BATCHES = [(), (1,), (3,), (2, 3)]


def _numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def _params(*batch: int) -> BodyParams:
    return BodyParams(_numbers(*batch, 3, 3), _numbers(*batch, 23, 3, 3), _numbers(*batch, 10), _numbers(*batch, 3))


def _report(*batch: int) -> FitReport:
    terms = [_numbers(*batch).abs() + place for place in range(8)]
    whole = torch.ones(batch, dtype=torch.int64)
    yes = torch.ones(batch, dtype=torch.bool)
    return FitReport(FitTerms(*terms[:6]), *terms[6:], start=whole, iterations=7 * whole, converged=yes, solvable=yes)


def _estimate(*batch: int) -> Estimate:
    return Estimate(
        "fit",
        joints17_m=_numbers(*batch, len(H36M17), 3),
        confidence=_numbers(*batch, len(H36M17)),
        seen=torch.ones(*batch, len(H36M17), dtype=torch.bool),
        root_m=_numbers(*batch, 3),
        params=_params(*batch),
        body=Body(_numbers(*batch, 5, 3), _numbers(*batch, len(SMPL24), 3)),
        camera=Camera(_numbers(*batch), _numbers(*batch, 2), 640, 480, "exif"),
        report=_report(*batch),
    )


def _tensors(noun: Batched) -> dict[str, torch.Tensor]:
    """Every tensor in a noun, nested nouns included, by its dotted name."""
    found = {}
    for field in fields(noun):  # type: ignore[arg-type]
        value = getattr(noun, field.name)
        if isinstance(value, torch.Tensor):
            found[field.name] = value
        elif isinstance(value, Batched):
            found |= {f"{field.name}.{name}": tensor for name, tensor in _tensors(value).items()}
    return found


def _assert_same(one: Batched, other: Batched) -> None:
    left, right = _tensors(one), _tensors(other)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("batch", BATCHES)
def test_map_reaches_every_tensor_and_nothing_else(batch):
    estimate = _estimate(*batch)
    cleared = estimate.map(torch.zeros_like)
    before, after = _tensors(estimate), _tensors(cleared)
    assert len(before) == 4 + 4 + 2 + 2 + 12
    assert before.keys() == after.keys()
    assert not any(tensor.any() for tensor in after.values())
    assert cleared.branch == "fit"
    assert cleared.camera is not None
    assert (cleared.camera.width_px, cleared.camera.focal_source) == (640, "exif")


def test_map_leaves_what_is_not_there_alone():
    keypoints = Keypoints(_numbers(3, 17, 2), _numbers(3, 17), H36M17)
    assert keypoints.map(torch.neg).landmarks_m is None
    assert keypoints.map(torch.neg).skeleton is H36M17


@pytest.mark.parametrize("batch", BATCHES)
def test_indexing_undoes_stacking(batch):
    estimates = [_estimate(*batch), _estimate(*batch).map(torch.zeros_like)]
    together = stack(estimates)
    assert together.joints17_m.shape == (2, *batch, 17, 3)
    for place, estimate in enumerate(estimates):
        _assert_same(together[place], estimate)


def test_indexing_takes_masks_slices_and_several_axes():
    estimate = _estimate(2, 3)
    assert estimate[1, 2].joints17_m.shape == (17, 3)
    assert estimate[:, :1].joints17_m.shape == (2, 1, 17, 3)
    mask = torch.tensor([[True, False, True], [False, False, True]])
    chosen = estimate[mask]
    assert chosen.report is not None and chosen.report.terms.total.shape == (3,)
    torch.testing.assert_close(chosen.joints17_m[2], estimate.joints17_m[1, 2])


def test_moving_changes_the_precision_of_floats_alone():
    moved = _tensors(_estimate(3).to(torch.float32))
    for name, tensor in _tensors(_estimate(3)).items():
        expected = torch.float32 if tensor.is_floating_point() else tensor.dtype
        assert moved[name].dtype == expected


def test_nouns_are_frozen():
    with pytest.raises(FrozenInstanceError):
        _params().betas = torch.zeros(10)  # type: ignore[misc]


@pytest.mark.parametrize("batch", BATCHES)
def test_rotations_are_the_root_and_then_the_joints(batch):
    params = _params(*batch)
    rotations = params.rotations
    assert rotations.shape == (*batch, 24, 3, 3)
    assert torch.equal(rotations[..., SMPL24.index("pelvis"), :, :], params.root)
    assert torch.equal(rotations[..., SMPL24.index("right_hand"), :, :], params.pose[..., -1, :, :])
    _assert_same(BodyParams.from_rotations(rotations, params.betas, params.transl_m), params)


def test_the_objective_is_the_sum_of_its_terms():
    terms = _report(3).terms
    parts = (terms.keypoints, terms.landmarks, terms.parts, terms.prior, terms.shape, terms.pull)
    torch.testing.assert_close(terms.total, torch.stack(parts).sum(0))


def test_a_report_and_its_terms_have_no_name_in_common():
    """A result has them side by side."""
    assert not {field.name for field in fields(FitTerms)} & {field.name for field in fields(FitReport)}


def test_shapes_are_executed():
    with pytest.raises(Exception, match=r"xy_px|confidence"):
        Keypoints(_numbers(3, 17, 2), _numbers(3, 16), H36M17)
