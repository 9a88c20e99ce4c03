"""Whom comparisons ask about: people as they lie in records, however many at once, with noise of their own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from comparison_people import PEOPLE, YAWS_RAD, Knowing, bare, params_of, shifted, write_people

from meshrec.body import load_body_model
from meshrec.branches.mesh import Sight
from meshrec.branches.registry import build_branch
from meshrec.comparison.assembly import comparison_of
from meshrec.comparison.contestants import contestant_of, found_of, gathered
from meshrec.comparison.figures import counted_errors_mm
from meshrec.comparison.groups import angles_rad, groups_of, parts_of, views_of
from meshrec.comparison.measuring import measured
from meshrec.comparison.people import PhotoPeople, RecordPeople, evenly, rows_of, spans_of, true_found
from meshrec.comparison.statistics import clusters_of
from meshrec.data.records import open_records
from meshrec.errors import MeshrecError
from meshrec.photo import write_png
from meshrec.record_evaluation import TruthBodies
from meshrec.skeletons import COCO17
from meshrec.types import Keypoints, Person


@pytest.fixture(scope="module")
def model():
    return load_body_model()


@pytest.fixture(scope="module")
def records(tmp_path_factory, model):
    return open_records(write_people(tmp_path_factory.mktemp("records") / "lab", model))


@pytest.fixture
def people(records):
    return RecordPeople([records])


def everybody(people):
    return people.few(range(len(people)))


def test_people_are_asked_about_as_their_records_show_them(people, records):
    few = everybody(people)
    for place, sight in enumerate(few.sights):
        photo, person, camera = records[place].as_photo()
        assert records[place].scale < 1
        assert isinstance(sight, Sight) and np.array_equal(sight.photo.pixels, photo.pixels)
        assert sight.photo.path == photo.path and (sight.camera.width_px, sight.camera.height_px) == (
            photo.width_px,
            photo.height_px,
        )
        assert torch.allclose(sight.people[0].keypoints.xy_px, person.keypoints.xy_px, atol=1e-3)
        assert torch.allclose(sight.people[0].box_xyxy_px, person.box_xyxy_px, atol=1e-3)
        assert torch.allclose(sight.camera.focal_px, camera.focal_px)
        assert torch.allclose(sight.camera.center_px, camera.center_px, atol=1e-3)


def test_the_truth_is_that_of_the_evaluation(people, records, model):
    found, shown = (
        true_found(model, everybody(people), skin=True),
        TruthBodies(model, {"neutral"}, False).shown(list(records)),
    )
    assert torch.allclose(found.joints17_m, shown.joints17_m, atol=1e-5)
    assert torch.allclose(found.vertices_m, shown.vertices_m, atol=1e-5)
    assert torch.allclose(found.root_m, shown.root_m, atol=1e-5)
    assert true_found(model, everybody(people), skin=False).vertices_m is None


def test_spans_hold_everybody_once_and_nobody_of_two_folders(records, monkeypatch):
    monkeypatch.setattr("meshrec.comparison.people.RECORDS_AT_ONCE", 5)
    both = RecordPeople([records, records])
    spans = list(both.spans())
    assert [place for span in spans for place in span] == list(range(2 * PEOPLE))
    assert all(len({both.which[place] for place in span}) == 1 for span in spans) and both.total == 2 * PEOPLE
    assert both.few(spans[-1]).numbers.tolist() == list(spans[-1])
    assert both.told()[PEOPLE] == records.told(0)


def test_rows_of_several_shards_come_in_the_order_asked():
    shards = tuple({"frame": np.arange(start, stop)} for start, stop in ((0, 4), (4, 5), (5, 9)))

    class Sharded:
        index = type("Index", (), {"shards": [type("Shard", (), {"people": len(each["frame"])}) for each in shards]})

    Sharded.shards = shards
    for rows in ([8, 0, 4, 3, 5], [2], [7, 6], list(range(9))):
        assert rows_of.__wrapped__(Sharded, "frame", np.array(rows)).tolist() == rows


def test_fewer_people_are_evenly_spread_and_keep_their_numbers(records):
    few = RecordPeople([records], 3)
    assert few.few(range(3)).numbers.tolist() == [0, 6, PEOPLE - 1] or few.numbers[[0, -1]].tolist() == [0, PEOPLE - 1]
    assert evenly(np.arange(5), 9).tolist() == [0, 1, 2, 3, 4]
    assert [list(span) for span in spans_of(2, 7, 2)] == [[2, 3], [4, 5], [6]]


def test_noise_is_a_function_of_the_seed_and_the_person(people, records):
    def noise(whom, places, noise_px, seed=0):
        few = whom.few(places)
        return few.with_noise(noise_px, seed).seen.keypoints.xy_px - few.seen.keypoints.xy_px

    whole = noise(people, range(PEOPLE), 5.0)
    assert torch.allclose(noise(people, [7, 3], 5.0), whole[[7, 3]], atol=1e-4)
    thinned = RecordPeople([records], 4)
    assert torch.allclose(noise(thinned, range(4), 5.0), whole[thinned.numbers], atol=1e-4)
    assert torch.allclose(noise(people, range(PEOPLE), 10.0), 2 * whole, atol=1e-3), "more of it is the same, larger"
    assert not torch.allclose(noise(people, range(PEOPLE), 5.0, seed=1), whole)
    assert not torch.allclose(whole[0] / whole[0].norm(), whole[1] / whole[1].norm())
    unit_px = everybody(people).seen.unit_px
    assert float((whole / unit_px[:, None, None]).std()) == pytest.approx(5.0, rel=0.15)


def test_noise_leaves_pictures_boxes_and_truth(people):
    few = everybody(people)
    noisy = few.with_noise(10.0, 0)
    assert noisy.pictures is few.pictures and noisy.seen.box_xyxy_px is few.seen.box_xyxy_px
    assert not torch.equal(noisy.sights[0].people[0].keypoints.xy_px, few.sights[0].people[0].keypoints.xy_px)


def test_people_of_one_name_in_two_data_sets_are_not_alike(tmp_path, model):
    subjects, clips = ("S1",) * (PEOPLE - 1) + ("",), ("walk",) * PEOPLE
    records = open_records(write_people(tmp_path / "lab", model, clips, subjects))
    other = replace(records, index=replace(records.index, name="other"))
    found = clusters_of(RecordPeople([records, records, other]).clips())
    assert len(set(found[: PEOPLE - 1])) == 1 and found[0] == found[PEOPLE] != found[2 * PEOPLE]
    assert len(set(found)) == 2 + 3, "who has no name is alone"


def test_some_at_a_time_is_all_at_once(people, model, monkeypatch):
    contestants = [
        contestant_of(Knowing("one", model, shifted("left_wrist"))),
        contestant_of(Knowing("two", model, bare)),
    ]
    whole = measured(people, contestants, model, (0.0, 5.0))
    monkeypatch.setattr("meshrec.comparison.people.RECORDS_AT_ONCE", 5)
    told = []
    parts = measured(people, contestants, model, (0.0, 5.0), advance=told.append)
    assert told == [5, 5, 2]
    for noise in (0.0, 5.0):
        for branch in ("one", "two"):
            for metric, values in whole.figures[noise][branch].items():
                assert np.allclose(parts.figures[noise][branch][metric], values, atol=1e-4, equal_nan=True)
    assert parts.figures[0.0]["one"]["mpjpe_mm"] == pytest.approx([30 / 14] * PEOPLE, abs=0.01)
    assert np.isnan(parts.figures[0.0]["two"]["pve_mm"]).all() and parts.answered["two"].all()
    assert set(parts.costs["one"]) == {"seconds", "peak_mb"} and parts.costs["one"]["peak_mb"] > 10


def test_noise_is_asked_with_other_keypoints_and_measured_against_what_was_seen(people, model):
    branch = Knowing("one", model)
    found = measured(people, [contestant_of(branch)], model, (0.0, 5.0))
    assert len(branch.asked) == 2 * PEOPLE and not torch.equal(branch.asked[0][1], branch.asked[PEOPLE][1])
    plain, noisy = (found.figures[noise]["one"]["detection_px"] for noise in (0.0, 5.0))
    assert np.allclose(plain, noisy)


def test_who_cannot_be_answered_is_told_and_costs_nobody_else(people, model):
    def moody(estimate, index):
        if index == 4:
            raise MeshrecError("not in the mood")
        lost = torch.full_like(estimate.joints17_m, torch.nan)
        return replace(estimate, joints17_m=lost) if index == 2 else estimate

    found = measured(people, [contestant_of(Knowing("moody", model, moody))], model)
    assert np.flatnonzero(~found.answered["moody"]).tolist() == [2, 4]
    assert found.problems == ("moody, person 4: not in the mood",)
    assert np.flatnonzero(np.isnan(found.figures[0.0]["moody"]["pve_mm"])).tolist() == [2, 4]


def test_a_damaged_picture_is_one_without_an_answer(model, tmp_path):
    records = open_records(write_people(tmp_path / "lab", model))
    images = next((tmp_path / "lab").glob("shard-*/images.tar"))
    content = bytearray(images.read_bytes())
    start = int(records.shards[0]["image_offset"][3])
    content[start : start + 100] = bytes(100)
    images.write_bytes(content)
    people = RecordPeople([open_records(tmp_path / "lab")])
    found = measured(people, [contestant_of(Knowing("one", model))], model)
    assert np.flatnonzero(~found.answered["one"]).tolist() == [3] and "damaged" in found.problems[0]


def test_what_a_report_excludes_is_no_answer_and_one_without_a_place_has_no_skin(model, people):
    branch = Knowing("one", model)
    sight = people.few([0]).sights[0]
    estimate = branch(sight.photo, sight.people, sight.camera)
    assert counted_errors_mm(found_of(estimate), true_found(model, people.few([0]), False)).max() < 0.05
    placeless = found_of(bare(estimate, 0))
    assert placeless.root_m.isnan().all() and placeless.vertices_m is None
    together = gathered([found_of(estimate), None, placeless])
    assert together.vertices_m.isfinite().flatten(1).all(1).tolist() == [True, False, False]
    assert together.joints17_m.isfinite().flatten(1).all(1).tolist() == [True, False, True]


def test_which_way_people_face(people):
    found = angles_rad(people)
    place = params_of().transl_m
    seen_from = torch.atan2(place[:, 0], place[:, 2]).numpy()
    apart = np.asarray(YAWS_RAD) + seen_from - found
    assert np.allclose(np.arctan2(np.sin(apart), np.cos(apart)), 0, atol=1e-3)
    assert (found[np.asarray(YAWS_RAD) > 1] > 0)[:2].all(), "to the right of the picture"
    assert views_of(np.array([0.1, -0.7, 1.0, -2.0, 2.9, -3.1, np.nan])) == (
        "front", "front", "side", "side", "back", "back", "",
    )  # fmt: skip


def test_groups_are_what_records_tell(model, tmp_path):
    names = [f"light_{index % 2}/occlusion_{index % 3}" for index in range(PEOPLE)]
    people = RecordPeople([open_records(write_people(tmp_path / "parts", model, names))])
    groups = groups_of(people)
    assert groups["light"] == tuple(str(index % 2) for index in range(PEOPLE))
    assert groups["occlusion"] == tuple(str(index % 3) for index in range(PEOPLE)), "names go before keypoints"
    assert set(groups["truncation"]) <= {"whole", "cut off by the border"} and "sequence" not in groups
    assert groups["view"] == views_of(angles_rad(people)) and "data" not in groups
    assert all(len(levels) == PEOPLE for levels in groups.values())
    assert parts_of(["walk", "sit/down"]) == {"sequence": ("walk", "sit/down")}
    assert parts_of(["part_1/part_2", "part_2/part_2"])["sequence"] == ("part_1/part_2", "part_2/part_2")
    assert set(groups_of(RecordPeople(people.records * 2))["data"]) == {"lab"}


def test_people_of_a_clip_are_those_of_one_subject_and_sequence(model, tmp_path, people):
    names, subjects = ["walk", "sit"] * (PEOPLE // 2), ["one"] * (PEOPLE // 2) + [""] * (PEOPLE // 2)
    clips = RecordPeople([open_records(write_people(tmp_path / "clips", model, names, subjects))]).clips()
    assert clips[0] == clips[2] != clips[1] and clips[-1] == "" and people.clips() == ("",) * PEOPLE


def test_records_without_truth_are_people_nobody_knows(model, tmp_path):
    people = RecordPeople([open_records(write_people(tmp_path / "unknown", model, known=False))])
    assert not people.known and len(people) == PEOPLE and np.isnan(angles_rad(people)).all()
    assert everybody(people).params is None and "view" not in groups_of(people)
    one, two = Knowing("one", model), Knowing("two", model, shifted("left_wrist"))
    found = measured(people, [contestant_of(one), contestant_of(two)], model)
    assert found.figures[0.0]["one"]["apart_mm"] == pytest.approx([30 / 14] * PEOPLE, abs=0.01)


class Seeing:
    """A detector that sees as many people as the grey of the photograph says."""

    name = "seeing"

    def __call__(self, photo):
        if photo.path.stem == "bad":
            raise MeshrecError("too bad to look at")
        xy_px = torch.arange(34.0).view(17, 2)
        box = torch.tensor([0.0, 0.0, 20.0, 30.0])
        count = int(photo.pixels[0, 0, 0])
        return [Person(box, 0.5, Keypoints(xy_px + place, torch.ones(17), COCO17)) for place in range(count)]


def test_people_of_photographs_are_found_once_and_looked_at_in_their_photographs(tmp_path):
    sizes, counts = {"a": (40, 34), "bad": (40, 33), "c": (50, 60), "d": (40, 40)}, {"a": 2, "bad": 1, "c": 3, "d": 0}
    paths = [
        write_png(tmp_path / f"{name}.png", np.full((*sizes[name][::-1], 3), counts[name], np.uint8)) for name in sizes
    ]
    people = PhotoPeople(paths, Seeing())
    assert len(people) == 5 and not people.known and len(set(people.clips())) == 2
    assert people.told()[2] == f"person 0 of {tmp_path / 'c.png'}" and len(people.problems) == 2
    few = people.few([1, 2])
    assert [sight.photo.width_px for sight in few.sights] == [40, 50]
    assert [sight.camera.width_px for sight in few.sights] == [40, 50]
    assert few.sights[0].people[0].keypoints.xy_px[0].tolist() == [1.0, 2.0] and few.scores == (0.5, 0.5)
    with pytest.raises(MeshrecError, match="Nobody was found"):
        PhotoPeople(paths[-1:], Seeing())


def test_branches_that_need_no_picture_look_at_none(people):
    def refuse():
        raise AssertionError("a picture was read")

    lift = contestant_of(build_branch("lift", load_body_model(), "none"))
    few = replace(people.few([0, 5]), pictures=refuse)
    alone = [lift.about(people.few([place])).found for place in (0, 5)]
    together = lift.about(few).found
    assert torch.allclose(together.joints17_m, torch.cat([found.joints17_m for found in alone]), atol=1e-4)
    assert together.joints17_m.isfinite().all() and together.vertices_m is None


def test_branches_that_share_nobody_cannot_be_compared(model, tmp_path):
    def half(which):
        def change(estimate, index):
            lost = torch.full_like(estimate.joints17_m, torch.nan)
            return estimate if index % 2 == which else replace(estimate, joints17_m=lost)

        return change

    people = RecordPeople([open_records(write_people(tmp_path / "unknown", model, known=False))])
    branches = [contestant_of(Knowing(f"half {which}", model, half(which))) for which in (0, 1)]
    with pytest.raises(MeshrecError, match="No two of them answer the same person"):
        comparison_of(measured(people, branches, model), people, model)
