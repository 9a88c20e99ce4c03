"""Predictions of files: what a row says is said of its person, and files that say something else are refused."""

import numpy as np
import pytest
import torch
from comparison_people import PEOPLE, params_of, write_people

from meshrec.body import load_body_model
from meshrec.comparison.figures import counted_errors_mm
from meshrec.comparison.people import RecordPeople, true_found
from meshrec.comparison.predictions import open_predictions, parted
from meshrec.data.records import open_records
from meshrec.errors import MeshrecError
from meshrec.skeletons import H36M17


@pytest.fixture(scope="module")
def model():
    return load_body_model()


@pytest.fixture(scope="module")
def people(tmp_path_factory, model):
    return RecordPeople([open_records(write_people(tmp_path_factory.mktemp("records") / "lab", model))])


@pytest.fixture(scope="module")
def truth(model):
    """Joints and skin where people stand, and their pelvis."""
    joints = model.regressed(params_of(), H36M17).numpy()
    return {"joints17_m": joints, "vertices_m": model(params_of()).vertices_m.numpy(), "root_m": joints[:, 0]}


def opened(tmp_path, model, **arrays):
    np.savez(tmp_path / "theirs.npz", **arrays)
    return open_predictions(f"theirs={tmp_path / 'theirs.npz'}", model, PEOPLE)


def test_joints_are_compared_about_their_pelvis_wherever_they_stand(tmp_path, model, people, truth):
    predicted = opened(tmp_path, model, joints17_m=truth["joints17_m"] + np.float32(7))
    few = people.few([2, 9])
    found, true = predicted.about(few).found, true_found(model, few, skin=False)
    assert predicted.name == "theirs" and not predicted.asks
    assert counted_errors_mm(found, true).max() < 0.01 and found.root_m.isnan().all() and found.vertices_m is None


def test_skin_alone_has_joints_and_both_agree(tmp_path, model, people, truth):
    few = people.few(range(PEOPLE))
    true = true_found(model, few, skin=True)
    for arrays in (("vertices_m",), ("vertices_m", "root_m"), ("vertices_m", "joints17_m", "root_m")):
        found = opened(tmp_path, model, **{name: truth[name] for name in arrays}).about(few).found
        assert torch.allclose(found.vertices_m, true.vertices_m, atol=1e-4)
        assert counted_errors_mm(found, true).max() < 0.1
        if "root_m" in arrays:
            assert torch.allclose(found.root_m, true.root_m, atol=1e-4)


def test_rows_say_whom_they_are_of_and_the_others_have_no_answer(tmp_path, model, people, truth):
    order = np.array([7, 0, 3])
    joints = truth["joints17_m"][order]
    joints[2, 5] = np.nan
    predicted = opened(tmp_path, model, joints17_m=joints, person=order)
    found = predicted.about(people.few(range(PEOPLE))).found
    answered = found.joints17_m.isfinite().flatten(1).all(1)
    assert np.flatnonzero(answered.numpy()).tolist() == [0, 7], "a row that is not finite is no answer"
    true = true_found(model, people.few(range(PEOPLE)), skin=False)
    assert counted_errors_mm(found[[0, 7]], true[[0, 7]]).max() < 0.01


def test_fewer_people_than_the_file_has_keep_their_rows(tmp_path, model, people, truth):
    thinned = RecordPeople(people.records, 3)
    found = opened(tmp_path, model, joints17_m=truth["joints17_m"]).about(thinned.few(range(3))).found
    assert counted_errors_mm(found, true_found(model, thinned.few(range(3)), skin=False)).max() < 0.01


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda joints: {"joints17_m": 1000 * joints}, "Write metres"),
        (lambda joints: {"joints17_m": joints / 100}, "Write metres"),
        (lambda joints: {"joints17_m": joints[:, :16]}, "is needed"),
        (lambda joints: {"joints17_m": joints.astype(int)}, "floating-point"),
        (lambda joints: {"joints17_m": joints[0, 0, 0]}, "is needed"),
        (lambda joints: {"joints17_m": joints[:5]}, "5 people, and the data hold 12"),
        (lambda joints: {"joints17_m": joints[:2], "person": np.array([3, 3])}, "twice"),
        (lambda joints: {"joints17_m": joints[:2], "person": np.array([3, 12])}, "names number 12"),
        (lambda joints: {"joints17_m": joints[:2], "person": np.array([3.0, 4.0])}, "whole numbers"),
        (lambda joints: {"joints17_m": np.full_like(joints, np.nan)}, "nothing to compare"),
        (lambda joints: {"root_m": joints[:, 0]}, "has neither"),
        (lambda joints: {"joints17_m": joints, "root_m": joints}, "root_m is"),
        (lambda joints: {"vertices_m": joints}, "vertices_m is"),
        (lambda joints: {"joints17_m": np.array(joints.tolist(), object)}, "Python objects"),
    ],
)
def test_what_is_no_prediction_is_refused(tmp_path, model, truth, change, sentence):
    with pytest.raises(MeshrecError, match=sentence):
        opened(tmp_path, model, **change(truth["joints17_m"].copy()))


def test_a_prediction_has_a_name_and_a_file(model, tmp_path):
    assert parted("theirs=a=b.npz")[0] == "theirs" and str(parted("theirs=a=b.npz")[1]) == "a=b.npz"
    for named in ("theirs", "=file.npz", "theirs="):
        with pytest.raises(MeshrecError, match="NAME=FILE"):
            parted(named)
    with pytest.raises(MeshrecError, match="missing"):
        open_predictions(f"theirs={tmp_path / 'missing.npz'}", model, PEOPLE)
