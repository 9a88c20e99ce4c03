"""The verb: several branches on the same people, told on a page and in tables that are there whole or not at all."""

import csv
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from comparison_people import PEOPLE, Knowing, bare, params_of, shifted, write_people

import meshrec.compare as compare
from meshrec.body import load_body_model
from meshrec.camera import project
from meshrec.cli import main
from meshrec.comparison.assembly import comparison_of
from meshrec.comparison.comparison import TRUTH
from meshrec.comparison.contestants import contestant_of
from meshrec.comparison.exhibits import exhibits_of
from meshrec.comparison.measuring import measured
from meshrec.comparison.people import RecordPeople
from meshrec.data.records import open_records
from meshrec.errors import MeshrecError
from meshrec.photo import camera_of, write_png
from meshrec.skeletons import COCO17, H36M17
from meshrec.types import Keypoints, Person

NAMES = tuple(f"light_{index % 2}/place_0" for index in range(PEOPLE))


@pytest.fixture(scope="module")
def model():
    return load_body_model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    return write_people(tmp_path_factory.mktemp("records") / "lab", model, NAMES)


@pytest.fixture
def branches(monkeypatch, model):
    """Four branches of known mistakes under the names that the verb takes."""
    turned = shifted("left_wrist", "right_knee", by=(0.0, 0.1, 0.0))
    known = {
        "fit": Knowing("fit", model, shifted("left_wrist")),
        "mesh": Knowing("mesh", model, turned),
        "lift": Knowing("lift", model, bare),
        "silent": Knowing("silent", model, lambda estimate, index: (_ for _ in ()).throw(MeshrecError("nothing"))),
    }
    monkeypatch.setattr(compare, "build_branch", lambda name, *chosen: known[name])
    monkeypatch.setattr(compare, "write_plots", lambda folder, comparison: ())
    return known


def run(*flags):
    return main(["compare", *map(str, flags)])


def test_branches_are_compared_on_the_same_people(branches, folder, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--data", folder, "--branches", "fit,mesh,lift", "--noise", "0,5", "-o", out, "--json"]
    assert run(*flags) == 0
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert record == json.loads((out / "comparison.json").read_text()) and record["people"] == PEOPLE
    figures = {each["branch"]: each["figures"] for each in record["branches"]}
    assert figures["fit"]["mpjpe_mm"]["mean"] == pytest.approx(30 / 14, abs=0.02)
    assert figures["mesh"]["mpjpe_mm"]["mean"] == pytest.approx(200 / 14, abs=0.02)
    assert figures["lift"]["pve_mm"]["people"] == 0 and figures["fit"]["pve_mm"]["mean"] < 0.1
    pairs = {(each["one"], each["other"]) for each in record["differences"] if each["metric"] == "pa_mpjpe_mm"}
    assert pairs == {("fit", "mesh"), ("fit", "lift"), ("mesh", "lift")}
    whole = [each for each in record["differences"] if each["group"] == "" and each["metric"] == "mpjpe_mm"]
    assert whole[0]["wins"] == 1.0 and whole[0]["high"] < 0, "fit is better than mesh for everybody"
    joints = {each["level"]: each["mean"] for each in record["differences"] if each["group"] == "joint"}
    assert set(joints) >= {"left_wrist", "right_knee"}
    assert {each["group"] for each in record["differences"]} >= {"", "light", "noise", "joint"}
    assert [level["noise_px"] for level in record["noise"][0]["levels"]] == [0.0, 5.0]
    assert "fit is better than mesh" in said.err and "PA-MPJPE" in said.err and "from the truth" in said.err
    with (out / "people.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == PEOPLE and {row["light"] for row in rows} == {"0", "1"}
    page = (out / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") > 9 and "fit is better than mesh" in page


def test_the_same_is_measured_again_whatever_was_there_before(branches, folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    flags = ["--data", folder, "--branches", "fit,mesh", "--frames", "3", "-o", out, "--json"]
    assert run(*flags) == 0
    first = json.loads(capsys.readouterr().out)
    (out / "mine.txt").write_text("mine")
    assert run(*flags) == 0
    again = json.loads(capsys.readouterr().out)
    for record in (first, again):
        for branch in record["branches"]:
            del branch["cost"]
    assert first == again and first["people"] == 3 and (out / "mine.txt").read_text() == "mine"

    def full(*told):
        raise MeshrecError("the disk is full")

    before = (out / "comparison.json").read_text()
    monkeypatch.setattr(compare, "csv_files", full)
    assert run(*flags, "--seed", "1") == 1 and (out / "comparison.json").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_folder_of_something_else_is_left_alone_before_anybody_is_asked(
    branches, folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(compare, "measured", lambda *told: pytest.fail("asked in vain"))
    (tmp_path / "mine.txt").write_text("mine")
    assert run("--data", folder, "--branches", "fit,mesh", "--frames", "2", "-o", tmp_path) == 1
    assert "left alone" in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_predictions_stand_beside_the_branches(branches, folder, tmp_path, model, capsys):
    np.savez(tmp_path / "theirs.npz", joints17_m=model.regressed(params_of(), H36M17).numpy())
    flags = ["--predictions", f"theirs={tmp_path / 'theirs.npz'}", "--noise", "3", "-o", tmp_path / "out", "--json"]
    assert run("--data", folder, "--branches", "fit", *flags) == 0
    record = json.loads(capsys.readouterr().out)
    theirs = next(each for each in record["branches"] if each["branch"] == "theirs")
    assert theirs["figures"]["mpjpe_mm"]["mean"] < 0.1 and theirs["unanswered"] == 0
    assert {curve["branch"] for curve in record["noise"]} == {"fit"}, "nobody can be asked anew of a file"


def test_agreement_with_a_file_is_told_at_every_noise(branches, tmp_path, model, capsys):
    unknown = write_people(tmp_path / "unknown", model, NAMES, known=False)
    np.savez(tmp_path / "theirs.npz", joints17_m=model.regressed(params_of(), H36M17).numpy())
    flags = ["--predictions", f"theirs={tmp_path / 'theirs.npz'}", "--noise", "5", "-o", tmp_path / "out", "--json"]
    assert run("--data", unknown, "--branches", "fit,mesh", *flags) == 0
    record = json.loads(capsys.readouterr().out)
    curves = {(curve["branch"], curve["metric"]): curve["levels"] for curve in record["noise"]}
    assert {branch for branch, _ in curves} == {"fit", "mesh"}
    for level in curves["fit", "apart_mm"]:
        assert level["mean"] == pytest.approx((30 + 70 + 100) / 14 / 2, abs=0.05) and level["people"] == PEOPLE


class Seeing:
    """A detector that sees the person of `params_of` whose number the photograph is named by."""

    name = "seeing"

    def __init__(self, model):
        self.model = model

    def __call__(self, photo):
        params = params_of()[int(photo.path.stem)][None]
        xy_px = project(self.model.regressed(params, COCO17), camera_of(photo))[0]
        box = torch.cat([xy_px.amin(0) - 9, xy_px.amax(0) + 9])
        return [Person(box, 0.9, Keypoints(xy_px, torch.ones(17), COCO17))]


def test_names_that_are_no_text_are_told_with_question_marks(branches, tmp_path, model, monkeypatch):
    folder = tmp_path / os.fsdecode(b"odd\xff")
    for index in range(2):
        write_png(folder / f"{index}.png", np.full((300, 400, 3), 90, np.uint8))
    monkeypatch.setattr(compare, "build_detector", lambda *chosen: Seeing(model))
    assert run("--data", folder, "--branches", "fit,mesh", "-o", tmp_path / "out") == 0
    assert "odd?" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_photographs_tell_of_agreement_alone(branches, tmp_path, model, monkeypatch, capsys):
    for index in range(6):
        write_png(tmp_path / "photos" / f"{index}.png", np.full((300, 400, 3), 90, np.uint8))
    monkeypatch.setattr(compare, "build_detector", lambda *chosen: Seeing(model))
    flags = ["--data", tmp_path / "photos", "-o", tmp_path / "out", "--json"]
    assert run(*flags, "--branches", "fit,mesh") == 0
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert record["against"] == "each other" and "not accuracy" in record["sentences"][0]
    assert {each["name"] for each in record["metrics"]} == {"pa_apart_mm", "apart_mm", "detection_px"}
    assert record["branches"][0]["figures"]["apart_mm"]["mean"] == pytest.approx((70 + 100) / 14, abs=0.05)
    assert "agreement, not accuracy" in " ".join(said.err.split()) and "better" not in " ".join(record["sentences"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "not accuracy" in page
    assert run(*flags, "--branches", "fit") == 1
    assert "two where no truth is known" in " ".join(capsys.readouterr().err.split())


def test_answers_and_truth_are_drawn_where_the_person_stands(model, folder):
    moved = params_of()
    moved = replace(moved, transl_m=moved.transl_m + torch.tensor([0.15, 0.0, 0.0]))
    skin, joints = (
        Knowing("skin", model),
        Knowing("joints", model, lambda estimate, index: replace(estimate, body=None)),
    )
    skin.params = moved
    people, contestants = RecordPeople([open_records(folder)], 3), [contestant_of(skin), contestant_of(joints)]
    comparison = comparison_of(measured(people, contestants, model), people, model)
    exhibits = exhibits_of(comparison, people, contestants, model)
    assert [exhibit.why for exhibit in exhibits] == ["best", "median", "worst"]
    assert sorted(exhibit.person for exhibit in exhibits) == [0, 1, 2]
    for exhibit in exhibits:
        assert list(exhibit.answers) == ["skin", "joints", TRUTH] and max(exhibit.photo.shape) == 384
        x0, y0, x1, y1 = exhibit.box_xyxy_px
        middles = {}
        for name, answer in exhibit.answers.items():
            drawn = np.abs(answer.overlay.astype(int) - exhibit.photo).sum(-1) > 60
            middles[name] = drawn.nonzero()[1].mean()
            rows = drawn.nonzero()[0]
            assert rows.min() > y0 - 20 and rows.max() < y1 + 20
        assert middles["skin"] - middles[TRUTH] > 0.05 * (x1 - x0), "to the right of the truth"
        assert abs(middles["joints"] - middles[TRUTH]) < 0.15 * (x1 - x0)
        assert exhibit.answers["joints"].vertices_m is None and exhibit.answers[TRUTH].vertices_m is not None
        pelvis = exhibit.answers[TRUTH].joints17_m[H36M17.index("pelvis")]
        assert np.allclose(pelvis, 0, atol=1e-6) and exhibit.answers["skin"].figures["mpjpe_mm"] < 0.1


def test_who_answers_nobody_is_no_result(branches, folder, tmp_path, capsys):
    assert run("--data", folder, "--branches", "fit,silent", "-o", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "silent answered none of the 12 people" in " ".join(error.split()) and "nothing" in error
    assert "more" in error and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--branches", "fit"], "name records, or photographs"),
        (["--branches", "fit,fit"], "fit is to be compared twice"),
        (["--branches", ""], "Too few to compare"),
        (["--branches", "fit,mesh", "--noise", "two"], "--noise takes pixels"),
        (["--branches", "fit,mesh", "--noise", "-1"], "--noise takes pixels"),
        (["--branches", "fit,mesh", "--noise", "1,nan"], "--noise takes pixels"),
        (["--branches", "fit,mesh", "--frames", "0"], "--frames takes"),
        (["--branches", "fit,mesh", "--seed", "-1"], "--seed takes"),
        (["--branches", "fit", "--predictions", "fit=a.npz"], "twice"),
        (["--branches", "fit", "--predictions", "theirs"], "NAME=FILE"),
        (["--branches", "fit", "--predictions", "theirs=missing.npz"], "missing.npz"),
        (["--branches", "fit", "--predictions", "truth=missing.npz"], "may be called 'truth'"),
        (["--branches", "fit,truth"], "may be called 'truth'"),
    ],
)
def test_wrong_choices_are_sentences(branches, folder, tmp_path, capsys, flags, sentence):
    data = [] if "records, or" in sentence else ["--data", folder]
    assert run(*data, *[f"{flags[at]}={flags[at + 1]}" for at in range(0, len(flags), 2)], "-o", tmp_path / "out") == 1
    error = " ".join(capsys.readouterr().err.split())
    assert sentence in error and "Traceback" not in error and not (tmp_path / "out").exists()


def test_nobody_counts_twice(branches, folder, tmp_path, capsys):
    again = tmp_path / "again"
    again.symlink_to(folder)
    assert run("--data", folder, again, "--branches", "fit,mesh", "-o", tmp_path / "out") == 1
    assert "twice: give each folder" in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "out").exists()


def test_records_and_photographs_are_not_mixed(branches, folder, tmp_path, capsys):
    write_png(tmp_path / "photos" / "0.png", np.full((300, 400, 3), 90, np.uint8))
    assert run("--data", folder, tmp_path / "photos", "--branches", "fit,mesh") == 1
    assert "one kind at a time" in " ".join(capsys.readouterr().err.split())
