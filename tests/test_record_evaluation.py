"""Evaluation on records: who knows the truth makes no error, and a known error is found as large as it is."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch

import meshrec.evaluate_records as evaluate_records
from meshrec.body import load_body_model
from meshrec.branches.registry import build_branch
from meshrec.camera import camera_from_body_axes, centered_camera, project
from meshrec.cli import main
from meshrec.data.record_files import Header
from meshrec.data.record_writer import NewRecord, RecordWriter, encode_picture
from meshrec.data.records import Truth, open_records
from meshrec.errors import MeshrecError
from meshrec.record_evaluation import JOINTS14, TruthBodies, cases, measured, protocol_of, roll_of
from meshrec.record_page import page, tiles_of
from meshrec.record_report import (
    FIGURES,
    PUBLISHED,
    Asked,
    RecordEvaluation,
    RecordOptions,
    main_sheet,
    protocol_lines,
    record_of,
    sheets_of,
    worst_first,
)
from meshrec.skeletons import COCO17, H36M17
from meshrec.types import BodyParams, Estimate, Keypoints

SIZE = (1280, 960)
CAMERA = centered_camera(*SIZE, 1100.0, "true")
PEOPLE = 5
SEQUENCES = ("walk", "walk", "sit", "sit", "sit")


@pytest.fixture(scope="module")
def model():
    return load_body_model()


def params_of(count=PEOPLE):
    generator = torch.Generator().manual_seed(0)
    rotations = roma.rotvec_to_rotmat(0.3 * torch.randn(count, 24, 3, generator=generator))
    rotations[:, 0] = camera_from_body_axes() @ rotations[:, 0]
    across = torch.linspace(-0.5, 0.5, count)[:, None]
    transl_m = torch.cat([across, 0.2 * across, 2.5 + across.abs()], dim=-1)
    return BodyParams.from_rotations(rotations, torch.randn(count, 10, generator=generator), transl_m)


def write_records(folder, model, truths=None, gender="neutral"):
    """People large in their photographs, so that the stored pictures are scaled down; the last has no truth."""
    params = params_of()
    xy_px = project(model.regressed(params, COCO17), CAMERA)
    pixels = np.full((SIZE[1], SIZE[0], 3), 120, np.uint8)
    with RecordWriter(folder, Header("lab", "test", COCO17.name, "", made_from="nothing", licence="none")) as writer:
        for index in range(PEOPLE):
            box = torch.cat([xy_px[index].amin(0) - 20, xy_px[index].amax(0) + 20])
            truth = None if truths is not None and index >= truths else Truth(params[index], gender)
            keypoints = Keypoints(xy_px[index], torch.ones(len(COCO17)), COCO17)
            sequence, source = SEQUENCES[index], f"{index}.jpg"
            known = {"sequence": sequence, "frame": index, "source": source}
            writer.add(NewRecord(encode_picture(pixels, box), box, keypoints, CAMERA, truth, **known))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    return write_records(tmp_path_factory.mktemp("records") / "lab", model)


@pytest.fixture(scope="module")
def roll(folder):
    return roll_of([open_records(folder)])


class Knowing:
    """A branch that knows everybody by the name of their photograph; `change` is what it gets wrong."""

    name = "knowing"

    def __init__(self, model, change=lambda estimate: estimate, params=None):
        self.model, self.change, self.params, self.asked = model, change, params or params_of(), []

    def __call__(self, photo, people, camera):
        index = int(photo.path.stem)
        params = self.params[index : index + 1]
        joints17 = self.model.regressed(params, H36M17)
        pelvis = joints17[:, H36M17.index("pelvis")]
        known, sure = joints17 - pelvis[:, None], torch.ones(1, 17)
        cameras = camera.map(lambda tensor: tensor.expand(1, *tensor.shape))
        body = self.model(params)
        return self.change(Estimate(self.name, known, sure, sure > 0, pelvis, params, body, cameras))


def shifted(*joints, by=(0.0, 0.03, 0.0)):
    def change(estimate):
        moved = estimate.joints17_m.clone()
        moved[:, H36M17.indices(*joints)] += torch.tensor(by)
        return replace(estimate, joints17_m=moved)

    return change


def errors_of(model, roll, change=lambda estimate: estimate, params=None):
    return measured(Knowing(model, change, params), TruthBodies(model, {"neutral"}, False), roll).errors


def test_the_counted_joints_are_those_of_the_field():
    """Human3.6M's indices as the published evaluations write them, in its order with the right leg first."""
    published = [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]
    assert sorted(H36M17.joints[index] for index in published) == sorted(JOINTS14) and len(JOINTS14) == 14


def test_who_knows_the_truth_makes_no_error(model, roll):
    errors = errors_of(model, roll)
    for figure in FIGURES:
        values = getattr(errors, figure)
        assert values.shape == (PEOPLE,) and values.max() < 0.05, figure


def test_a_joint_s_error_is_shared_by_those_that_count(model, roll):
    errors = errors_of(model, roll, shifted("left_wrist"))
    assert torch.allclose(errors.mpjpe_mm, torch.tensor(30 / 14), atol=1e-2)
    assert torch.allclose(errors.mpjpe17_mm, torch.tensor(30 / 17), atol=1e-2)
    assert torch.allclose(errors.joints_mm[:, JOINTS14.index("left_wrist")], torch.tensor(30.0), atol=1e-2)
    assert (errors.pa_mpjpe_mm > 0.5).all()
    uncounted = errors_of(model, roll, shifted("spine", "face"))
    assert (uncounted.mpjpe_mm < 0.01).all() and torch.allclose(uncounted.mpjpe17_mm, torch.tensor(60 / 17), atol=1e-2)


def test_a_moved_body_is_wrong_in_the_picture_alone(model, roll):
    params = params_of()
    moved = replace(params, transl_m=params.transl_m + torch.tensor([0.1, 0.0, 0.0]))
    errors = errors_of(model, roll, params=moved)
    assert errors.mpjpe_mm.max() < 0.05 and errors.pve_mm.max() < 0.05
    joints17 = model.regressed(params, H36M17)[:, H36M17.indices(*JOINTS14)]
    expected_px = (CAMERA.focal_px * 0.1 / joints17[..., 2]).mean(-1)
    assert torch.allclose(errors.reprojection_px, expected_px, rtol=1e-3), "in pixels of the photograph"


def test_coco_s_joints_are_compared_in_the_photograph_and_by_the_person_s_box(model, roll):
    params = params_of()
    errors = errors_of(model, roll, params=replace(params, transl_m=params.transl_m + torch.tensor([0.0, 0.1, 0.0])))
    expected_px = (CAMERA.focal_px * 0.1 / model.regressed(params, COCO17)[..., 2]).mean(-1)
    boxes = torch.stack([record.box_xyxy_px for record in roll.records[0]]).view(-1, 2, 2)
    assert torch.allclose(errors.coco17_px, expected_px, rtol=1e-3)
    assert torch.allclose(errors.coco17_percent, 100 * expected_px / (boxes[:, 1] - boxes[:, 0]).amax(-1), rtol=1e-3)
    near = replace(params, transl_m=params.transl_m + torch.tensor([0.0, 0.0, 0.3]))
    assert errors_of(model, roll, params=near).coco17_px.min() > 1, "depth is seen too"


def test_joints_beyond_the_border_are_not_looked_for_in_the_photograph(model, tmp_path):
    """Who stands at the left border, half out of the photograph, and is said to be wrong there alone."""
    params = params_of()
    aside = replace(params, transl_m=params.transl_m - torch.tensor([0.58, 0.0, 0.0]) * params.transl_m[:, 2:])
    xy_px = project(model.regressed(aside, COCO17), CAMERA)[2]
    beyond = xy_px[:, 0] < 0
    assert 3 <= beyond.sum() <= 14
    pixels = np.full((SIZE[1], SIZE[0], 3), 120, np.uint8)
    box = torch.tensor([0.0, float(xy_px[:, 1].min()), float(xy_px[:, 0].max()), float(xy_px[:, 1].max())])
    keypoints = Keypoints(xy_px, (~beyond).float(), COCO17)
    with RecordWriter(tmp_path / "r", Header("lab", "test", COCO17.name)) as writer:
        picture, truth = encode_picture(pixels, box), Truth(aside[2], "neutral")
        writer.add(NewRecord(picture, box, keypoints, CAMERA, truth, source="2.jpg"))
    roll = roll_of([open_records(tmp_path / "r")])
    near = replace(aside, transl_m=aside.transl_m + torch.tensor([0.0, 0.0, 0.2]))
    off_px = (project(model.regressed(near, COCO17), CAMERA)[2] - xy_px).norm(dim=-1)
    found = errors_of(model, roll, params=near).coco17_px
    assert found[0] == pytest.approx(float(off_px[~beyond].mean()), rel=1e-3)
    assert abs(found[0] - off_px.mean()) > 1


def test_who_stands_behind_the_camera_has_no_place_in_the_picture(model, roll):
    behind = errors_of(model, roll, lambda estimate: replace(estimate, root_m=-estimate.root_m))
    assert behind.reprojection_px.isnan().all() and behind.mpjpe_mm.max() < 0.05
    far = replace(params_of(), transl_m=-params_of().transl_m)
    assert errors_of(model, roll, params=far).coco17_px.isnan().all()


def test_a_turned_body_is_right_after_the_best_similarity_and_a_mirrored_one_is_not(model, roll):
    params = params_of()
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 1.0, 0.0]))
    errors = errors_of(model, roll, params=replace(params, root=turn @ params.root))
    assert errors.pa_mpjpe_mm.max() < 0.05 and errors.mpjpe_mm.min() > 50 and errors.pve_mm.min() > 50
    flip = torch.tensor([-1.0, 1.0, 1.0])
    image = errors_of(model, roll, lambda estimate: replace(estimate, joints17_m=estimate.joints17_m * flip))
    assert image.pa_mpjpe_mm.min() > 20, "the rotation is proper"


def test_a_larger_body_is_right_after_the_best_scale(model, roll):
    errors = errors_of(model, roll, lambda estimate: replace(estimate, joints17_m=1.1 * estimate.joints17_m))
    assert errors.n_mpjpe_mm.max() < 0.05 and errors.mpjpe_mm.min() > 20


def test_the_skin_s_error_is_about_the_pelvis(model, roll):
    def swollen(estimate):
        body = replace(estimate.body, vertices_m=estimate.body.vertices_m + torch.tensor([0.0, 0.0, 0.02]))
        return replace(estimate, body=body)

    errors = errors_of(model, roll, swollen)
    assert torch.allclose(errors.pve_mm, torch.tensor(20.0), atol=1e-2) and errors.mpjpe_mm.max() < 0.05


def test_joints_alone_have_no_skin_and_without_a_place_no_pixels(model, roll):
    errors = errors_of(model, roll, lambda estimate: replace(estimate, body=None, params=None, root_m=None))
    assert errors.pve_mm.isnan().all() and errors.reprojection_px.isnan().all() and errors.mpjpe_mm.max() < 0.05
    assert errors.coco17_px.isnan().all()


class Moody(Knowing):
    """It has nothing to say of the second, and of the fourth something that is no number."""

    def __call__(self, photo, people, camera):
        if photo.path.stem == "1":
            raise MeshrecError("not in the mood")
        estimate = super().__call__(photo, people, camera)
        lost = torch.full_like(estimate.joints17_m, torch.nan)
        return replace(estimate, joints17_m=lost) if photo.path.stem == "3" else estimate


def evaluated(branch, roll, model):
    truth = TruthBodies(model, roll.genders, False)
    return RecordEvaluation(branch.name, protocol_of("3dpw", truth), roll, measured(branch, truth, roll)), truth


def test_who_has_no_answer_is_counted_and_in_no_mean(model, roll):
    evaluation, _ = evaluated(Moody(model, shifted("left_wrist")), roll, model)
    assert evaluation.unanswered == 2 and evaluation.found.answered.tolist() == [True, False, True, False, True]
    assert len(evaluation.found.problems) == 1 and "not in the mood" in evaluation.found.problems[0]
    assert evaluation.figures(evaluation.everybody)["mpjpe_mm"] == pytest.approx(30 / 14, abs=0.01)
    record = record_of([evaluation], asked())
    assert record["unanswered"] == 2 and record["figures"]["mpjpe_mm"]["people"] == 3
    assert {each["sequence"]: each["unanswered"] for each in record["per_sequence"]} == {"walk": 1, "sit": 1}
    assert set(worst_first(evaluation)) == {0, 2, 4}


def test_a_damaged_picture_is_one_without_an_answer(model, tmp_path):
    records = open_records(write_records(tmp_path / "lab", model))
    images = next((tmp_path / "lab").glob("shard-*/images.tar"))
    content = bytearray(images.read_bytes())
    place = int(records.shards[0]["image_offset"][2])
    content[place : place + 200] = bytes(200)
    images.write_bytes(content)
    evaluation, _ = evaluated(Knowing(model), roll_of([open_records(tmp_path / "lab")]), model)
    assert evaluation.found.answered.tolist() == [True, True, False, True, True]
    assert "damaged" in evaluation.found.problems[0]


def test_some_at_a_time_is_all_at_once(model, roll, monkeypatch):
    whole = errors_of(model, roll, shifted("head_top"))
    monkeypatch.setattr("meshrec.record_evaluation.PEOPLE_AT_ONCE", 2)
    told = []
    parts = measured(Knowing(model, shifted("head_top")), TruthBodies(model, {"neutral"}, False), roll, told.append)
    assert told == [2, 2, 1]
    for figure in FIGURES:
        assert torch.allclose(getattr(parts.errors, figure), getattr(whole, figure), atol=1e-3)


def test_people_without_truth_are_not_asked_for_and_counted(model, tmp_path):
    records = open_records(write_records(tmp_path / "some", model, truths=3))
    assert len(roll_of([records])) == 3 and roll_of([records]).left_out == 2
    thin = roll_of([records], 2)
    assert thin.row.tolist() == [0, 2] and list(thin.sequences) == ["walk", "sit"]
    nobody = open_records(write_records(tmp_path / "none", model, truths=0))
    with pytest.raises(MeshrecError, match="no answer can be measured"):
        roll_of([nobody])


def test_gendered_truth_is_shown_by_bodies_of_its_own(model, tmp_path, monkeypatch):
    monkeypatch.setenv("MESHREC_DATA", str(tmp_path))
    roll = roll_of([open_records(write_records(tmp_path / "lab", model, gender="female"))])
    assert roll.genders == {"female"}
    with pytest.raises(MeshrecError, match="--gendered"):
        TruthBodies(model, roll.genders, True)
    larger = load_body_model()
    larger.template.mul_(1.05)
    larger.rest_template.mul_(1.05)
    monkeypatch.setattr("meshrec.record_evaluation.load_body_model", lambda gender: {"female": larger}[gender])
    plain, gendered = (
        measured(Knowing(model), TruthBodies(model, roll.genders, own), roll).errors for own in (False, True)
    )
    assert plain.pve_mm.max() < 0.05 and gendered.pve_mm.min() > 10
    protocol = protocol_of("3dpw", TruthBodies(model, roll.genders, True))
    assert protocol.gendered and set(protocol.truth_bodies) == {"female"}


def test_bodies_of_other_vertices_are_not_compared(model, monkeypatch):
    coarse = load_body_model()
    coarse.parts = coarse.parts[:10]
    monkeypatch.setattr("meshrec.record_evaluation.load_body_model", lambda gender: coarse)
    with pytest.raises(MeshrecError, match="cannot be compared"):
        TruthBodies(model, {"male"}, True)


def asked(**options):
    return Asked((Path("lab"),), ("knowing",), RecordOptions(**options), None, "neutral", "none")


def test_every_figure_stands_beside_its_protocol(model, roll):
    evaluation, _ = evaluated(Knowing(model, shifted("left_wrist")), roll, model)
    record = json.loads(json.dumps(record_of([evaluation], asked()), allow_nan=False))
    assert record["protocol"]["joints"] == list(JOINTS14) and record["protocol"]["gendered"] is False
    assert record["protocol"]["pve"] and record["protocol"]["body"].startswith("neutral (sha256")
    assert record["figures"]["mpjpe_mm"]["mean"] == pytest.approx(30 / 14, abs=0.01)
    assert {each["joint"] for each in record["per_joint"]} == set(JOINTS14) and record["published"] == []
    per_joint = {each["joint"]: each["mpjpe_mm"] for each in record["per_joint"]}
    assert per_joint["left_wrist"] == pytest.approx(30, abs=0.05) and per_joint["right_wrist"] == pytest.approx(
        0, abs=0.05
    )
    assert record["data"][0]["fingerprint"] == roll.records[0].fingerprint
    told = " ".join(protocol_lines(evaluation))
    assert "not gendered" in told and "pelvis" in told and "left_wrist" in told


def test_what_others_published_is_told_as_theirs_and_only_when_asked(model, roll):
    evaluation, _ = evaluated(Knowing(model), roll, model)
    ours = main_sheet([evaluation]).rows
    both = main_sheet([evaluation], published=True).rows
    assert len(ours) == 1 and len(both) == 1 + len(PUBLISHED)
    assert all(row[0].startswith("published: ") for row in both[1:])
    assert len(record_of([evaluation], asked(published=True))["published"]) == len(PUBLISHED)


def test_two_data_sets_have_a_row_each_and_one_together(model, folder):
    roll = roll_of([open_records(folder), open_records(folder)])
    other = replace(
        roll, records=(roll.records[0], replace(roll.records[1], index=replace(roll.records[1].index, name="hall")))
    )
    evaluation, _ = evaluated(Knowing(model), other, model)
    assert [row[0] for row in main_sheet([evaluation]).rows] == ["knowing on hall", "knowing on lab", "knowing on all"]
    assert [row[1] for row in main_sheet([evaluation]).rows] == ["5", "5", "10"]


def test_sequences_that_are_named_by_parts_are_told_part_by_part(model, roll):
    names = ("poses_a/light_0/x", "poses_a/light_1/y", "poses_b/light_1/x", "poses_b/light_1/x", "poses_b/light_2/y")
    parted = replace(roll)
    parted.__dict__["sequences"] = np.array(names)
    evaluation, _ = evaluated(Knowing(model, shifted("left_wrist")), parted, model)
    assert set(evaluation.levels) == {"poses", "light", "part 3 of the sequence"}
    people = {kind: {name: int(whom.sum()) for name, whom in of.items()} for kind, of in evaluation.levels.items()}
    assert people["light"] == {"light_0": 1, "light_1": 3, "light_2": 1}
    assert people["poses"] == {"poses_a": 2, "poses_b": 3}
    told = record_of([evaluation], asked())
    assert [level["level"] for level in told["per_level"]["light"]] == ["light_0", "light_1", "light_2"]
    assert told["per_level"]["light"][1]["mpjpe_mm"] == pytest.approx(30 / 14, abs=0.01)
    assert len(told["per_sequence"]) == 4
    titles = [sheet.title for sheet in sheets_of([evaluation])]
    assert titles[2:] == ["per poses, mm", "per light, mm", "per part 3 of the sequence, mm"]
    plain, _ = evaluated(Knowing(model), roll, model)
    assert list(plain.levels) == ["sequence"] and record_of([plain], asked())["per_level"] == {}


class Named(Knowing):
    def __init__(self, name, *arguments):
        super().__init__(*arguments)
        self.name = name


def test_several_branches_stand_side_by_side(model, folder, tmp_path, monkeypatch, capsys):
    built = {"fit": Named("fit", model, shifted("left_wrist")), "lift": Named("lift", model, shifted("left_knee"))}
    monkeypatch.setattr(evaluate_records, "build_branch", lambda name, *chosen: built[name])
    flags = ["--data", folder, "--branch", "fit,lift", "--json", "--per-joint", "--page", tmp_path / "page.html"]
    assert main(["evaluate", *map(str, flags)]) == 0
    said = capsys.readouterr()
    branches = json.loads(said.out)["branches"]
    assert [each["branch"] for each in branches] == ["fit", "lift"]
    assert {each["people"] for each in branches} == {PEOPLE}
    errors = [{joint["joint"]: joint["mpjpe_mm"] for joint in each["per_joint"]} for each in branches]
    assert errors[0]["left_wrist"] > 29 > 1 > errors[0]["left_knee"]
    assert errors[1]["left_knee"] > 29 > 1 > errors[1]["left_wrist"]
    text = (tmp_path / "page.html").read_text()
    assert "fit on lab" in said.err and "lift on lab" in said.err and "sit: lift" in said.err
    assert text.count(">lift, front</div>") == text.count(">fit, front</div>") == text.count("truth, front</div>") >= 3
    assert main(["evaluate", "--data", str(folder), "--branch", "fit,fit"]) == 1
    assert "names a branch twice" in capsys.readouterr().err


def test_flags_of_the_network_are_not_held_against_the_other_branches(folder, capsys):
    flags = ["--branch", "fit,mesh", "--mesh-weights", "missing.safetensors"]
    assert main(["evaluate", "--data", str(folder), *flags]) == 1
    assert "missing.safetensors" in capsys.readouterr().err


def test_the_page_needs_nothing_but_itself(model, roll):
    evaluation, truth = evaluated(Moody(model, shifted("left_wrist")), roll, model)
    text = page([evaluation], [Moody(model, shifted("left_wrist"))], truth, published=True)
    assert "http" not in text.replace("http-equiv", "") and 'src="data:image/jpeg;base64,' in text
    assert len(text) < 2_000_000 and text.count("<figure>") >= 3
    assert "left_wrist" in text and "published: PARE" in text and "none was measured here" in text


def test_answer_and_truth_are_drawn_where_the_person_stands(model, roll):
    params = params_of()
    moved = replace(params, transl_m=params.transl_m + torch.tensor([0.4, 0.0, 0.0]))
    truth = TruthBodies(model, {"neutral"}, False)
    case = cases(Knowing(model, params=moved), truth, [roll.record(2)])[0]
    tiles = {tile.name: tile.pixels.astype(int) for tile in tiles_of(case, model)}
    assert set(tiles) == {"picture", "answer", "truth", "answer, front", "truth, front", "answer, side", "truth, side"}
    middles = {}
    for name in ("answer", "truth"):
        drawn = np.abs(tiles[name] - tiles["picture"]).sum(-1) > 60
        middles[name] = drawn.nonzero()[1].mean()
    shift_px = case.record.scale * 1100 * 0.4 / params.transl_m[2, 2]
    assert middles["answer"] - middles["truth"] == pytest.approx(float(shift_px), rel=0.15)


def test_the_verb_measures_records(model, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate_records, "build_branch", lambda *chosen: Knowing(model, shifted("left_wrist")))
    flags = ["--data", folder, "--branch", "mesh", "--protocol", "3dpw", "--json", "--per-joint", "--frames", "3"]
    files = ["--report", tmp_path / "out" / "report.json", "--page", tmp_path / "out" / "page.html"]
    assert main(["evaluate", *map(str, flags + files)]) == 0
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert record == json.loads((tmp_path / "out" / "report.json").read_text())
    assert record["people"] == 3 and record["figures"]["mpjpe_mm"]["mean"] == pytest.approx(30 / 14, abs=0.01)
    assert (tmp_path / "out" / "page.html").stat().st_size > 10_000
    assert "not gendered" in said.err and "MPJPE" in said.err and "left_wrist" in said.err


def test_a_branch_that_answers_nobody_is_no_result(model, folder, monkeypatch, capsys):
    class Silent(Knowing):
        def __call__(self, photo, people, camera):
            raise MeshrecError("nothing to say")

    built = {"fit": Silent(model), "lift": Knowing(model)}
    monkeypatch.setattr(evaluate_records, "build_branch", lambda name, *chosen: built[name])
    assert main(["evaluate", "--data", str(folder), "--branch", "fit", "--json"]) == 1
    said = capsys.readouterr()
    assert "answered none of the 5 people" in said.err and not said.out
    assert main(["evaluate", "--data", str(folder), "--branch", "fit,lift", "--json"]) == 1
    said = capsys.readouterr()
    assert "answered none of the 5 people" in said.err, "and the others' answers are not lost"
    assert [each["unanswered"] for each in json.loads(said.out)["branches"]] == [5, 0]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--branch", "fit", "--mesh-weights", "some.safetensors"], "leave them"),
        (["--branch", "mesh", "--mesh-weights", "missing.safetensors"], "missing.safetensors"),
        (["--height-m", "1.8"], "not for records"),
        (["--held-out", "02"], "not for records"),
    ],
)
def test_wrong_choices_are_sentences(folder, capsys, flags, sentence):
    assert main(["evaluate", "--data", str(folder), *flags]) == 1
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error


def test_the_fit_is_asked_through_the_stored_picture(model, folder):
    roll = roll_of([open_records(folder)], 1)
    found = measured(build_branch("fit", model, "gaussian"), TruthBodies(model, {"neutral"}, False), roll)
    assert found.answered.all() and found.errors.reprojection_px.max() < 10 and math.isfinite(found.seconds)
