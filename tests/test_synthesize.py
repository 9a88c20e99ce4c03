"""Synthetic people as records: the truth is what the pictures show, and a seed gives the same people every time."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import meshrec.cli as cli
import meshrec.synthetic_folders as synthetic_folders
from meshrec.body import BodyModel, load_body_model
from meshrec.camera import project
from meshrec.cli import main
from meshrec.data.detector_errors import NO_ERRORS
from meshrec.data.record_files import Header
from meshrec.data.record_writer import RecordWriter, encode_picture
from meshrec.data.records import Records, open_records
from meshrec.data.synthetic.photograph import LEAST_SEEN, level, photographed, sitters, whom_about
from meshrec.data.synthetic.scene import Synthesizer
from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.data.synthetic.stored import Album, stored_pictures
from meshrec.errors import MeshrecError
from meshrec.files import write_text
from meshrec.randomness import generator_of
from meshrec.skeletons import COCO17, SMPL24
from meshrec.synthetic_folders import Wanted, make_records

SCENE = SyntheticConfig(photo_px=(200, 150), prior="gaussian")
COUNT = 8

pytestmark = pytest.mark.usefixtures("small_pictures")


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


@pytest.fixture(scope="module")
def maker(model) -> Synthesizer:
    return Synthesizer(replace(SCENE, others=1.0), model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("made") / "records"
    make_records(made, Wanted(COUNT, people=2, scene=SCENE), workers=2, maps=True)
    return made


@pytest.fixture(scope="module")
def records(folder) -> Records:
    return open_records(folder, verify=True)


def test_keypoints_of_a_detector_without_errors_are_the_projected_truth(maker, model):
    album = Album(maker, 3, 2, NO_ERRORS, together=4)
    people = [record for page in album.pages(0) for record in page.records]
    assert len(people) > 4
    for person in people:
        assert person.truth is not None and person.camera is not None
        joints_m = model.regressed(person.truth.params, COCO17)
        found = person.keypoints.confidence > 0
        off = (project(joints_m, person.camera) - person.keypoints.xy_px).norm(dim=-1)
        assert found.sum() >= 6 and off[found].max() < 0.05
        low, high = person.box_xyxy_px.view(2, 2)
        inside = person.keypoints.xy_px[found]
        assert ((inside > low - 8) & (inside < high + 8)).all()


def test_a_stored_picture_is_the_part_of_the_photograph_that_is_kept_of_any(maker):
    scenes = maker.scenes([generator_of(1, "test", number) for number in range(3)])
    boxes = [people[0].box_xyxy_px for people in sitters(scenes, maker)]
    stored = stored_pictures(scenes, boxes, maker.surface)
    for picture, photograph, box in zip(stored, photographed(scenes, maker), boxes, strict=True):
        kept = encode_picture(photograph.pixels, box)
        assert (picture.corner_px, picture.size_px, picture.photo_size_px) == (
            kept.corner_px,
            kept.size_px,
            kept.photo_size_px,
        )
        assert picture.scale == kept.scale
        ours, theirs = (
            cv2.imdecode(np.frombuffer(one.jpeg, np.uint8), cv2.IMREAD_GRAYSCALE).astype(float)
            for one in (picture, kept)
        )
        slopes = np.stack([slope.ravel() for slope in np.gradient(theirs)], axis=1)
        off_px = np.linalg.lstsq(slopes, (theirs - ours).ravel(), rcond=None)[0]
        assert abs(ours - theirs).mean() < 12 and np.hypot(*off_px) < 0.12, "not off by a fraction of a pixel"


def test_the_stored_pictures_show_the_truth(maker, model, tmp_path):
    """Without people the same photograph differs where the truth puts the body, and nowhere else."""
    scene = maker.scenes([generator_of(1, "test", 7)])[0]
    scene = replace(scene, things=())
    person = sitters([scene], maker)[0][0]
    with RecordWriter(tmp_path / "r", Header("lab", "test", COCO17.name)) as writer:
        for distance_m in (0.0, 100.0):
            moved = replace(scene, vertices_m=scene.vertices_m + torch.tensor([0.0, 0.0, distance_m]))
            picture = stored_pictures([moved], [person.box_xyxy_px], maker.surface)[0]
            made = Album(maker, 0, 1, NO_ERRORS, 2).pages(0)[0].records[0]
            writer.add(replace(made, picture=picture, camera=scene.camera))
    shown, without = (record.pixels.astype(int) for record in open_records(tmp_path / "r"))
    different = np.abs(shown - without).max(-1) > 40
    record = open_records(tmp_path / "r")[0]
    inside = project(scene.vertices_m.flatten(0, 1), scene.camera)
    spots = record.in_picture(inside).floor().long()
    kept = ((spots >= 0) & (spots < torch.tensor([different.shape[1], different.shape[0]]))).all(-1)
    covered = np.zeros_like(different)
    covered[spots[kept, 1], spots[kept, 0]] = True
    assert different[covered].mean() > 0.6 and covered.mean() > 0.02
    low, high = spots[kept].amin(0) - 6, spots[kept].amax(0) + 7
    outside = np.ones_like(different)
    outside[max(0, low[1]) : high[1], max(0, low[0]) : high[0]] = False
    assert different[outside].mean() < 0.01


def test_people_are_told_by_how_much_of_them_is_seen(records, maker):
    assert {record.subject for record in records} == {"person_0", "person_1"}
    for record in records:
        occlusion, truncation = (part.rpartition("_")[2] for part in record.sequence.split("/"))
        assert record.sequence.startswith("occlusion_") and 0 <= int(occlusion) <= 3 and 0 <= int(truncation) <= 3
        assert record.source == f"synthetic_{record.frame:08d}.jpg" and record.placed and record.shaped
    assert [level(share) for share in (0.0, 0.01, 1 / 3, 0.34, 2 / 3, 0.7, 1.0)] == [0, 1, 1, 2, 2, 3, 3]


def test_joints_beyond_the_border_are_those_that_project_there(maker):
    for people, scene in zip(sitters(scenes := maker.scenes([generator_of(2, "test", 0)]), maker), scenes, strict=True):
        for index, person in enumerate(people):
            xy_px = project(maker.model.regressed(scene.params[index], COCO17), scene.camera)
            beyond = ((xy_px < 0) | (xy_px >= torch.tensor(scene.photo_px))).any(-1)
            assert person.beyond == int(beyond.sum())
            assert torch.equal(whom_about(scene, index).vertices_m[0], scene.vertices_m[index])


def columns_of(records: Records) -> dict[str, np.ndarray]:
    names = [name for name in records.shards[0] if name not in ("image_offset", "image_crc32")]
    return {name: records.column(name) for name in names}


def assert_beginning(few: Records, many: Records) -> None:
    """What the first records say and show is what the second ones begin with."""
    for name, values in columns_of(few).items():
        assert np.array_equal(values, columns_of(many)[name][: len(few)], equal_nan=values.dtype.kind == "f"), name
    for row in range(len(few)):
        assert np.array_equal(few[row].pixels, many[row].pixels)


def test_fewer_are_the_first_of_more_whatever_the_threads(records, tmp_path):
    for workers in (1, 3):
        made = make_records(tmp_path / str(workers), Wanted(3, people=2, scene=SCENE), workers=workers)
        few = open_records(tmp_path / str(workers))
        assert made.people == len(few) == made.new and made.photographs == 3
        assert_beginning(few, records)
    make_records(tmp_path / "other", Wanted(3, seed=1, people=2, scene=SCENE))
    other = open_records(tmp_path / "other").column("betas")
    assert not np.isclose(other[:2], records.column("betas")[:2]).any()


def test_what_was_interrupted_goes_on_and_becomes_the_same(records, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic_folders, "RecordWriter", partial(RecordWriter, people_per_shard=3))
    done = []

    def stop(count: int) -> None:
        done.append(count)
        if sum(done) == 6:
            raise KeyboardInterrupt

    wanted = Wanted(COUNT, people=2, scene=SCENE)
    with pytest.raises(KeyboardInterrupt):
        make_records(tmp_path / "r", wanted, advance=stop)
    with pytest.raises(MeshrecError, match="unfinished"):
        open_records(tmp_path / "r")
    with pytest.raises(MeshrecError, match="beginning of other records"):
        make_records(tmp_path / "r", replace(wanted, seed=5))
    with pytest.raises(MeshrecError, match="-n asks for 1"):
        make_records(tmp_path / "r", replace(wanted, count=1))
    with pytest.raises(MeshrecError, match="begun without --maps"):
        make_records(tmp_path / "r", wanted, maps=True)
    again: list[int] = []
    made = make_records(tmp_path / "r", wanted, advance=again.append)
    assert again[0] > 0 and sum(again) == COUNT and 0 < made.new < made.people == len(records)
    assert_beginning(open_records(tmp_path / "r"), records)
    with pytest.raises(MeshrecError, match="finished records"):
        make_records(tmp_path / "r", wanted)


def test_maps_say_what_the_photograph_shows(folder, records):
    known = {int(path.stem) for path in (folder / "maps").glob("*.npz")}
    assert known == set(range(COUNT)) and len(list((folder / "maps").glob("*.jpg"))) == COUNT
    found = 0
    for number in known:
        with np.load(folder / "maps" / f"{number:08d}.npz", allow_pickle=False) as file:
            arrays = dict(file)
        assert arrays["parts"].shape == arrays["depth_m"].shape == arrays["person"].shape
        assert ((arrays["parts"] > 0) == (arrays["person"] >= 0)).all() and arrays["parts"].max() <= len(SMPL24)
        bodies = np.isfinite(arrays["depth_m"])
        assert bodies[arrays["person"] >= 0].all()
        joints = arrays["joints"].tolist()
        coco = [joints.index(f"{joint}@coco17") for joint in COCO17.joints]
        shown = (arrays["inside"] & ~arrays["behind"])[:2, coco].sum(1)
        told = {record.subject for record in records if record.frame == number}
        assert told == {f"person_{person}" for person, count in enumerate(shown) if count >= LEAST_SEEN}
        for person, (xy_px, points_m) in enumerate(zip(arrays["xy_px"], arrays["points_m"], strict=True)):
            shown = arrays["inside"][person] & ~arrays["behind"][person] & ~arrays["own"][person]
            for side in ("left", "right"):
                row = joints.index(f"{side}_knee@smpl24")
                x, y = xy_px[row].astype(int)
                if shown[row] and arrays["person"][y, x] == person:
                    legs = [1 + SMPL24.index(f"{side}_{joint}") for joint in ("hip", "knee", "ankle")]
                    assert 0 < points_m[row, 2] - arrays["depth_m"][y, x] < 0.25
                    found += int(arrays["parts"][y, x] in legs)
    assert found >= 5


@pytest.fixture
def verb(monkeypatch):
    monkeypatch.setitem(cli.VERBS, "synthesize", ("meshrec.synthesize:command", "people"))
    return lambda *flags: main(["synthesize", *map(str, flags)])


def test_the_verb_tells_what_it_made(verb, tmp_path, capsys):
    assert verb("-n", 2, "-o", tmp_path / "r", "--size", 160, 120, "--sheet", 2, "--json") == 0
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert record["photographs"] == 2 and record["people"] == len(open_records(tmp_path / "r"))
    assert Path(record["sheet"]).stat().st_size > 10_000 and "people/s" in said.err
    assert verb("-n", 2, "-o", tmp_path / "r") == 1 and "finished records" in capsys.readouterr().err
    assert verb("-n", 2, "-o", tmp_path / "m", "--layout", "mpii", "--size", 160, 120) == 0
    assert (tmp_path / "m" / "synthetic.json").is_file() and not (tmp_path / "m" / "sheet.png").exists()


def test_what_is_wrong_is_told_in_a_sentence(verb, tmp_path, capsys):
    write_text(tmp_path / "file", "mine")
    wrong = {
        ("-n", 0): "-n takes",
        ("--seed", -1): "--seed takes",
        ("--size", 10, 480): "64 to 4096",
        ("--people", 0): "--people takes",
        ("--sheet", -1): "--sheet takes",
        ("--frames", 0): "from 1 on",
        ("--subjects", "02"): "name these too",
        ("--backgrounds", tmp_path / "nowhere"): "no folder of backgrounds",
        ("--poses", tmp_path / "nowhere"): "nowhere",
        ("--scene.prior", "missing"): "missing",
        ("--layout", "mpii", "--maps"): "--maps go with records",
        ("--layout", "mpii", "--frames", 3): "not of mpii",
        ("--genders", "m"): "not of records",
        ("--scene.photo-px", 100, 100): "--size",
        ("--scene.others", 1): "--people",
        ("--benchmark", "--seed", 3): "always the same",
        ("--benchmark", "-n", 2000): "1,000 people",
        ("--body", "missing"): "missing",
    }
    for flags, sentence in wrong.items():
        assert verb("-o", tmp_path / "made", "-n", 1, *flags) == 1, flags
        error = capsys.readouterr().err
        assert sentence in error and "Traceback" not in error, flags
    assert verb("-o", tmp_path / "file" / "made", "-n", 1) == 1
    assert "Choose" in capsys.readouterr().err and not (tmp_path / "made" / "records.json").exists()


def test_who_is_hardly_seen_is_not_told_of(maker, monkeypatch):
    monkeypatch.setattr("meshrec.data.synthetic.stored.LEAST_SEEN", 16)
    pages = Album(maker, 3, 2, NO_ERRORS, together=4).pages(0)
    shown = [[one.shown >= 16 for one in people[:2]] for people in sitters([page.scene for page in pages], maker)]
    assert [len(page.records) for page in pages] == [sum(some) for some in shown]
    assert 0 < sum(map(sum, shown)) < sum(map(len, shown))
