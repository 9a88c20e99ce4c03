"""The network that ships: what its card says of it, and that it knows bodies by their joints."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from meshrec.assets import SHIPPED
from meshrec.body import load_body_model
from meshrec.branches.registry import build_branch
from meshrec.data.detector_errors import NO_ERRORS, DetectorErrors
from meshrec.data.synthetic.people import SyntheticLoader
from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.metrics import mpjpe_mm, pa_mpjpe_mm, root_relative
from meshrec.models.mesh_file import open_regressor
from meshrec.models.proxy import mirrored_proxy, proxy
from meshrec.photo import Photo
from meshrec.skeletons import COCO17, H36M17, SMPL24, visibility
from meshrec.train.mesh_lesson import into_sight, turned_whole
from meshrec.train.mesh_people import Sighted, detected
from meshrec.types import BodyParams, Keypoints, Person

MODEL = load_body_model()
WEIGHTS = SHIPPED / "weights" / "mesh.safetensors"
PEOPLE, CROP_PX = 96, 32


@pytest.fixture(scope="module")
def network():
    return open_regressor("mesh")


@pytest.fixture(scope="module")
def people(network):
    """Whom nobody was trained with, and who need not be drawn."""
    loader = SyntheticLoader(SyntheticConfig(), MODEL, network.config.crop_px, seed=5, ahead=0, drawn=False)
    return loader.take(0, slice(0, PEOPLE))


def said_of(network, sighted: Sighted) -> BodyParams:
    """The network's answers in the camera's frame."""
    with torch.no_grad():
        said = network(proxy(sighted.people.pixels, sighted.points, sighted.confidence))
    rotations = turned_whole(into_sight(sighted.people).mT, said.rotations)
    return BodyParams.from_rotations(rotations, said.betas, torch.zeros_like(said.weak))


def off_mm(network, people, errors: DetectorErrors) -> tuple[float, float]:
    """PA-MPJPE and MPJPE of all 17 joints."""
    joints_m, true_m = (
        root_relative(MODEL.regressed(params, H36M17), H36M17)
        for params in (said_of(network, detected(people, errors, 0, 0)), people.params)
    )
    return float(pa_mpjpe_mm(joints_m, true_m).mean()), float(mpjpe_mm(joints_m, true_m).mean())


def test_the_card_is_that_of_the_weights():
    card = json.loads(WEIGHTS.with_suffix(".json").read_text(encoding="utf-8"))
    assert card["sha256"] == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert card["licence"] == "Apache-2.0" and "mocap.cs.cmu.edu" in card["acknowledgement"]
    assert WEIGHTS.stat().st_size < 25e6
    assert '"/' not in json.dumps(card), "no path of the machine that trained"
    for figures in card["measured"].values():
        assert figures["mesh"]["pa_mpjpe_mm"] < figures["fit"]["pa_mpjpe_mm"], "why it is the default"
        assert figures["mesh+fit"]["coco17_percent"] < min(figures[name]["coco17_percent"] for name in ("mesh", "fit"))


def test_it_knows_bodies_by_their_joints(network, people):
    true, found = off_mm(network, people, NO_ERRORS), off_mm(network, people, DetectorErrors())
    assert true[0] < 75 and true[1] < 110, "by the true joints"
    assert found[0] < 100 and found[1] < 170, "by a detector's"
    somebody = replace(people, params=people.params[torch.arange(PEOPLE).roll(1)])
    assert off_mm(network, somebody, NO_ERRORS)[0] > 1.5 * true[0], "by their own"


def test_joints_are_as_sure_as_their_keypoints(people):
    """A network that looks at no picture has no attention that could doubt them."""
    sighted = detected(people, DetectorErrors(), 0, 0)[:8]
    camera = people.camera[0].to(torch.float32)
    persons = [
        Person(torch.tensor([0.0, 0.0, CROP_PX, CROP_PX]), 1.0, Keypoints(points, confidence, COCO17))
        for points, confidence in zip(sighted.points, sighted.confidence, strict=True)
    ]
    photo = Photo(np.zeros((CROP_PX, CROP_PX, 3), np.uint8), Path("black.png"))
    estimate = build_branch("mesh", MODEL, "none")(photo, persons, camera)
    shown = visibility(sighted.confidence, COCO17, H36M17)
    torch.testing.assert_close(estimate.confidence, shown, atol=1e-5, rtol=0)
    assert estimate.seen.any(dim=1).sum() > 4


def test_left_and_right_are_the_person_s(network, people):
    """The mirror image's body is nearly the mirrored one."""
    sighted = detected(people, NO_ERRORS, 0, 0)
    image = proxy(people.pixels, sighted.points, sighted.confidence)
    with torch.no_grad():
        said, other = network(image), network(mirrored_proxy(image))
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    again = flip @ other.rotations[:, SMPL24.mirror] @ flip
    straight = (said.rotations - again).square().mean()
    swapped = (said.rotations - flip @ other.rotations @ flip).square().mean()
    assert straight < 0.25 * swapped
