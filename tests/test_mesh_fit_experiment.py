"""The comparison of a network, a fit and both: who its people are, and that it adds up."""

import importlib
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import roma
import torch

from meshrec.body import BodyModel, load_body_model
from meshrec.branches.fit import FitConfig
from meshrec.camera import project
from meshrec.minimize import MinimizeConfig
from meshrec.prior_files import open_prior
from meshrec.skeletons import COCO17
from priors.prior import Prior

TOOLS = Path(__file__).parent.parent / "tools"
PEOPLE = 12


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("mesh_fit_experiment")


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


@pytest.fixture(scope="module")
def prior() -> Prior:
    prior = open_prior("mixture")
    assert prior is not None
    return prior


def people_of(experiment: ModuleType, model: BodyModel, prior: Prior, **setting: float):
    rotations = torch.cat(
        [torch.eye(3).expand(PEOPLE, 1, 3, 3), prior.mean_rotations.float().expand(PEOPLE, 23, 3, 3)], dim=1
    )
    return experiment.make_people(model, prior, rotations, experiment.Setting(people=PEOPLE, **setting))


def test_a_network_without_errors_knows_the_pose(experiment: ModuleType, model: BodyModel, prior: Prior) -> None:
    people = people_of(experiment, model, prior, wrong_rad=0.0, wrong_root_rad=0.0)
    assert torch.allclose(people.start.rotations, people.params.rotations, atol=1e-5)
    assert torch.allclose(people.start.betas, people.params.betas / 2)


def test_a_network_that_is_tilted_is_wrong_at_the_root_alone(
    experiment: ModuleType, model: BodyModel, prior: Prior
) -> None:
    people = people_of(experiment, model, prior, wrong_rad=0.0)
    assert torch.allclose(people.start.pose, people.params.pose, atol=1e-5)
    angle_rad = roma.rotmat_geodesic_distance(people.start.root, people.params.root)
    assert (angle_rad > 0.01).all() and (angle_rad < math.radians(30)).all()


def test_everybody_is_before_the_camera_and_no_leg_of_a_half_is_seen(
    experiment: ModuleType, model: BodyModel, prior: Prior
) -> None:
    people = people_of(experiment, model, prior)
    joints = model.regressed(people.params, COCO17)
    assert (joints[..., 2] > 0.2).all()
    size_px = (project(joints, people.camera).amax(1) - project(joints, people.camera).amin(1)).amax(-1)
    assert (size_px > 0.3 * people.camera.height_px).all() and (size_px < 1.5 * people.camera.height_px).all()
    legs = people.keypoints.confidence[:, COCO17.indices(*experiment.LEGS)]
    half = people.level == experiment.LEVELS.index("half")
    assert (legs[half] == 0).all() and (legs[people.level == experiment.LEVELS.index("whole")] > 0.5).any()


def test_every_method_is_scored_for_everybody_and_each_way(
    experiment: ModuleType, model: BodyModel, prior: Prior
) -> None:
    people = people_of(experiment, model, prior, focal_factor=1.3)
    assert torch.allclose((people.told.focal_px / people.camera.focal_px).log().abs(), torch.tensor(math.log(1.3)))
    fit = FitConfig(scout_iterations=2, minimize=MinimizeConfig(iterations=2))
    found = experiment.compared(model, prior, people, fit, (0.1, math.inf))
    assert [score.method for score in found[::4]] == [
        "network", "fit", "network + fit, 0.1 rad", "network + fit, inf rad"
    ]  # fmt: skip
    for all_of_them, *ways in (found[start : start + 4] for start in range(0, len(found), 4)):
        mean = sum(score.mpjpe_mm for score in ways) / len(ways)
        assert all_of_them.seen == "all" and mean == pytest.approx(all_of_them.mpjpe_mm, rel=1e-4)
    exact = replace(people, start=people.params, told=people.camera)
    truth, *_ = experiment.scores("truth", model, exact, people.params)
    assert truth.off_px < 1e-3 and truth.mpjpe_mm < 1e-2 and truth.pve_mm < 1e-2
