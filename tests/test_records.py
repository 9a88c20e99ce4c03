"""Records give back the people that went in, picture and truth in agreement to a fraction of a pixel."""

import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import roma
import torch
from PIL import Image

from meshrec.body_file import MIN_BETAS
from meshrec.camera import project
from meshrec.data.crop import cut, square_of
from meshrec.data.record_files import BETAS, MARK, Header
from meshrec.data.record_writer import PICTURE_PX, NewRecord, RecordWriter, encode_picture
from meshrec.data.records import Record, Records, Truth, open_records
from meshrec.errors import MeshrecError
from meshrec.skeletons import COCO17, H36M17, SMPL24
from meshrec.types import BodyParams, Camera, Keypoints, Square

HEADER = Header("lab", "train", COCO17.name, H36M17.name, made_from="nothing", licence="none")

SIZE = (640, 420)
"""Width and height of the photographs."""

BOXES = {
    "small and whole": (100.0, 90.0, 180.0, 230.0),
    "large": (150.0, 20.0, 420.0, 400.0),
    "at the corner": (-40.0, -60.0, 230.5, 330.0),
    "beyond the other": (300.25, 120.0, 700.0, 470.0),
}


def photograph(seed: int = 0) -> np.ndarray:
    """Soft blobs of colour: what JPEG keeps well."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC))


def keypoints(generator: torch.Generator) -> Keypoints:
    xy_px = torch.rand(17, 2, generator=generator, dtype=torch.float64) * torch.tensor([640.0, 420.0])
    return Keypoints(xy_px, torch.rand(17, generator=generator, dtype=torch.float64), COCO17)


def truth(generator: torch.Generator, **known: bool) -> Truth:
    rotations = roma.random_rotmat(24, generator=generator, dtype=torch.float64)
    betas, transl_m = (torch.randn(size, generator=generator, dtype=torch.float64) for size in (10, 3))
    transl_m = transl_m + torch.tensor([0.0, 0.0, 6.0])
    return Truth(BodyParams.from_rotations(rotations, betas, transl_m), "female", **known)


def camera() -> Camera:
    return Camera(torch.tensor(700.0), torch.tensor([330.0, 190.0]), *SIZE, "true")


def person(seed: int, box: tuple[float, ...] = BOXES["large"]) -> NewRecord:
    """Someone of whom everything is known."""
    generator = torch.Generator().manual_seed(seed)
    box_xyxy_px = torch.tensor(box)
    weight = (torch.arange(17) % 3).double()
    return NewRecord(
        encode_picture(photograph(seed), box_xyxy_px),
        box_xyxy_px,
        keypoints(generator),
        camera(),
        truth(generator),
        torch.randn(17, 3, generator=generator, dtype=torch.float64),
        weight,
        subject="Åsa",
        sequence="walk_00",
        frame=seed,
        source=f"imageFiles/walk_00/image_{seed:05d}.jpg",
    )


def written(folder: Path, people: list[NewRecord], per_shard: int = 2, header: Header = HEADER) -> Records:
    with RecordWriter(folder, header, per_shard) as writer:
        for one in people:
            writer.add(one)
    return open_records(folder)


def one(tmp_path: Path, new: NewRecord) -> Record:
    return written(tmp_path / "one", [new])[0]


def test_what_is_added_is_what_is_read(tmp_path):
    people = [person(seed) for seed in range(5)]
    records = written(tmp_path / "records", people)
    assert len(records) == 5 and [shard.people for shard in records.index.shards] == [2, 2, 1]
    assert (records.name, records.split, records.skeleton) == ("lab", "train", COCO17)
    for new, record in zip(people, records, strict=True):
        assert new.truth and new.joints_m is not None and new.joints_weight is not None
        assert record.truth and record.camera and record.joints_m is not None
        assert torch.allclose(record.box_xyxy_px, new.box_xyxy_px)
        assert torch.allclose(record.keypoints.xy_px.double(), new.keypoints.xy_px, atol=1e-4)
        assert torch.allclose(record.keypoints.confidence.double(), new.keypoints.confidence)
        assert torch.allclose(record.truth.params.rotations.double(), new.truth.params.rotations, atol=1e-5)
        assert torch.allclose(record.truth.params.betas.double(), new.truth.params.betas)
        assert torch.allclose(record.truth.params.transl_m.double(), new.truth.params.transl_m)
        assert (record.truth.gender, record.posed, record.shaped, record.placed) == ("female", True, True, True)
        known = new.joints_weight > 0
        assert torch.allclose(record.joints_m.double()[known], new.joints_m[known])
        assert not record.joints_m[~known].any() and torch.equal(record.joints_weight.double(), new.joints_weight)
        assert (record.camera.width_px, record.camera.height_px) == record.photo_size_px == SIZE
        assert torch.equal(record.camera.center_px, torch.tensor([330.0, 190.0])) and record.camera.focal_px == 700.0
        told = (record.dataset, record.subject, record.sequence, record.frame, record.source)
        assert told == ("lab", "Åsa", "walk_00", new.frame, new.source)


@pytest.mark.parametrize("known", [{"shaped": False}, {"placed": False}])
def test_what_is_not_known_is_told_and_stands_in_as_zero(tmp_path, known):
    record = one(tmp_path, replace(person(1), truth=truth(torch.Generator().manual_seed(1), **known)))
    assert record.truth and (record.shaped, record.placed) == ("shaped" not in known, "placed" not in known)
    assert bool(record.truth.params.betas.any()) == record.shaped
    assert bool(record.truth.params.transl_m.any()) == record.placed


def test_a_person_of_whom_only_joints_in_the_picture_are_known(tmp_path):
    new = person(2)
    record = one(tmp_path, NewRecord(new.picture, new.box_xyxy_px, new.keypoints))
    assert (record.camera, record.truth, record.posed, record.shaped, record.placed) == (
        None,
        None,
        False,
        False,
        False,
    )
    assert record.joints_weight is not None and not record.joints_weight.any() and record.frame == -1
    header = replace(HEADER, joints_skeleton="")
    flat = written(tmp_path / "flat", [NewRecord(new.picture, new.box_xyxy_px, new.keypoints)], header=header)
    assert (flat[0].joints_m, flat[0].joints_weight, flat.joints_skeleton) == (None, None, None)


def test_an_unknown_joint_may_be_anything(tmp_path):
    new = person(1)
    assert new.joints_m is not None and new.joints_weight is not None
    joints_m = torch.where(new.joints_weight[:, None] > 0, new.joints_m, torch.nan)
    record = one(tmp_path, replace(new, joints_m=joints_m))
    assert record.joints_m is not None and record.joints_m.isfinite().all()


def test_every_body_has_a_direction_for_each_shape_number():
    assert MIN_BETAS >= BETAS


@pytest.mark.parametrize("gender", ["neutral", "male", "female"])
def test_genders_are_read_as_written(tmp_path, gender):
    known = replace(truth(torch.Generator().manual_seed(1)), gender=gender)
    record = one(tmp_path, replace(person(1), truth=known))
    assert record.truth and record.truth.gender == gender


def test_no_gender_is_neutral_and_a_strange_one_is_damage(tmp_path):
    folder = tmp_path / "records"
    written(folder, [person(0), person(1)])
    resaved(folder / "shard-00000" / "gender.npy", lambda genders: np.array([b"", b"x"], "S1"))
    records = open_records(folder)
    neutral = records[0].truth
    assert neutral and neutral.gender == "neutral"
    with pytest.raises(MeshrecError, match=r"the gender of row 1 of .*00001.jpg\) is b'x'"):
        records[1]


def test_a_record_is_its_readers_own(tmp_path):
    """What is done to one leaves the records as they are."""
    records = written(tmp_path / "records", [person(0)])
    for _ in range(2):
        record = records[0]
        assert record.truth and record.pixels.any() and record.truth.params.pose.any()
        for tensor in (record.truth.params.pose, record.truth.params.root, record.keypoints.xy_px, record.box_xyxy_px):
            assert tensor.any()
            tensor.zero_()
        record.pixels[:] = 0


def test_a_body_of_known_place_without_a_camera_is_not_placed(tmp_path):
    assert not one(tmp_path, replace(person(1), camera=None)).placed


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_the_camera_of_the_picture_sees_what_the_camera_of_the_photograph_sees(tmp_path, box):
    record = one(tmp_path, person(3, box))
    assert record.camera
    points_m = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 0.0, 7.0])
    photo, shown, pinhole = record.as_photo()
    expected = record.in_picture(project(points_m, record.camera))
    assert torch.allclose(project(points_m, pinhole), expected, atol=1e-3)
    assert torch.allclose(record.in_photo(expected), project(points_m, record.camera), atol=1e-3)
    assert (pinhole.width_px, pinhole.height_px) == (photo.width_px, photo.height_px) == record.pixels.shape[1::-1]
    assert torch.allclose(shown.keypoints.xy_px, record.in_picture(record.keypoints.xy_px))
    assert torch.allclose(record.in_photo(shown.box_xyxy_px.view(2, 2)).flatten(), record.box_xyxy_px, atol=1e-3)


def test_an_unknown_camera_is_assumed_of_the_photograph_not_of_the_picture(tmp_path):
    record = one(tmp_path, replace(person(3), camera=None))
    _, _, pinhole = record.as_photo()
    assert pinhole.focal_source == "assumed"
    assert float(pinhole.focal_px) == pytest.approx(np.hypot(*SIZE) * record.scale)
    middle = record.in_photo(pinhole.center_px)
    assert torch.allclose(middle, torch.tensor([320.0, 210.0]), atol=1e-3)


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_a_square_of_the_photograph_shows_the_same_in_the_picture(tmp_path, box):
    record = one(tmp_path, person(3, box))
    square = Square(torch.tensor([210.0, 170.0]), torch.tensor(140.0), torch.tensor(0.3))
    points = torch.rand(8, 2, generator=torch.Generator().manual_seed(0)) * 400
    within = record.picture_square(square)
    assert torch.allclose(square.into(points, 224), within.into(record.in_picture(points), 224), atol=1e-3)


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_a_crop_of_the_picture_is_the_crop_of_the_photograph(tmp_path, box):
    record = one(tmp_path, person(3, box))
    square = replace(square_of(record.box_xyxy_px), angle_rad=torch.tensor(0.2))
    crops = cut(record.pixels, record.picture_square(square), 96), cut(photograph(3), square, 96)
    known = cut(np.full((*SIZE[::-1], 3), 255, np.uint8), square, 96).min(-1) == 255
    known = cv2.erode(known.astype(np.uint8), np.ones((5, 5))) > 0
    difference = np.abs(crops[0].astype(int) - crops[1].astype(int))[known]
    assert known.mean() > 0.3 and difference.mean() < 1.5 and np.percentile(difference, 99) <= 6


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_a_spot_in_the_photograph_is_found_where_the_picture_puts_it(tmp_path, box):
    """A round bright spot about a keypoint; pixel centres are at halves, and a shift of half a pixel would show."""
    left, top, right, bottom = (max(0.0, min(edge, limit)) for edge, limit in zip(box, SIZE * 2, strict=True))
    for share in ((0.3, 0.4), (0.71, 0.62)):
        x, y = left + share[0] * (right - left), top + share[1] * (bottom - top)
        columns, rows = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
        spot = 200 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 4.0**2))
        pixels = np.repeat(np.rint(spot + 20).astype(np.uint8)[..., None], 3, axis=2)
        box_xyxy_px = torch.tensor(box)
        new = replace(person(0), picture=encode_picture(pixels, box_xyxy_px), box_xyxy_px=box_xyxy_px)
        record = written(tmp_path / f"{share[0]}", [new])[0]
        weight = (record.pixels.mean(-1) - 26).clip(min=0)
        columns, rows = np.meshgrid(*(np.arange(size) + 0.5 for size in weight.shape[::-1]))
        found = torch.tensor([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
        expected = record.in_picture(torch.tensor([x, y]))
        assert (found - expected).abs().max() < 0.1, (found, expected)


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_the_picture_holds_the_square_about_the_box_as_far_as_the_photograph_goes(box):
    picture = encode_picture(photograph(), torch.tensor(box))
    left, top, right, bottom = box
    side = 1.8 * max(right - left, bottom - top)
    assert picture.scale == pytest.approx(min(1.0, PICTURE_PX / side)) and picture.photo_size_px == SIZE
    wanted = [
        (left + right - side) / 2,
        (top + bottom - side) / 2,
        (left + right + side) / 2,
        (top + bottom + side) / 2,
    ]
    wanted = np.clip(wanted, 0, [*SIZE, *SIZE])
    corner = np.array(picture.corner_px)
    end = corner + np.array(picture.size_px) / picture.scale
    assert (corner <= wanted[:2]).all() and (corner > wanted[:2] - 1).all()
    assert (np.abs(end - wanted[2:]) <= 1 + 1 / picture.scale).all()
    assert (end <= np.array(SIZE) + 1e-3).all() and max(picture.size_px) <= PICTURE_PX + 2


def test_pictures_hold_their_colours(tmp_path):
    """Red stays red."""
    pixels = np.zeros((200, 200, 3), np.uint8)
    pixels[...] = (220, 30, 90)
    box = torch.tensor([20.0, 20.0, 180.0, 180.0])
    record = one(tmp_path, replace(person(0), picture=encode_picture(pixels, box), camera=None, box_xyxy_px=box))
    assert np.abs(record.pixels.astype(int) - (220, 30, 90)).max() <= 3


@pytest.mark.parametrize("box", [(5.0, 5.0, 5.0, 9.0), (float("nan"), 0.0, 4.0, 4.0), (900.0, 10.0, 950.0, 60.0)])
def test_what_is_no_box_in_the_photograph_is_no_picture(box):
    with pytest.raises(ValueError, match="box"):
        encode_picture(photograph(), torch.tensor(box))


def test_columns_hold_everyone_in_order(tmp_path):
    people = [person(seed) for seed in range(5)]
    records = written(tmp_path / "records", people)
    assert records.column("frame").tolist() == [0, 1, 2, 3, 4]
    assert records.column("keypoints").shape == (5, 17, 3)
    assert records.column("source")[3].decode() == people[3].source
    for row in (-1, 5):
        with pytest.raises(IndexError, match="rows are 0 to 4"):
            records[row]
    with pytest.raises(ValueError, match="no column 'age'"):
        records.column("age")


WITHOUT_MESHREC = """
import io, json, sys, tarfile, numpy as np
from pathlib import Path
from PIL import Image
folder = Path(sys.argv[1])
index = json.loads((folder / "records.json").read_text())
shard = folder / index["shards"][-1]["folder"]
box, corner, scale = (
    np.load(shard / f"{name}.npy", mmap_mode="r")[0] for name in ("box_xyxy_px", "picture_corner_px", "picture_scale")
)
with tarfile.open(shard / "images.tar") as tar:
    pixels = np.asarray(Image.open(tar.extractfile("00000000.jpg")))
shown = ((box.reshape(2, 2) - corner) * scale).tolist()
print(json.dumps([index["people"], pixels.shape, shown, "meshrec" in sys.modules]))
"""


def test_numpy_and_tarfile_are_enough_to_read_them(tmp_path):
    records = written(tmp_path / "records", [person(seed) for seed in range(3)])
    command = [sys.executable, "-c", WITHOUT_MESHREC, str(tmp_path / "records")]
    people, shape, box, ours = json.loads(subprocess.run(command, capture_output=True, check=True, cwd=tmp_path).stdout)
    record = records[2]
    assert people == 3 and tuple(shape) == record.pixels.shape and not ours
    assert np.allclose(box, record.in_picture(record.box_xyxy_px.view(2, 2)).numpy(), atol=1e-3)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_killed_conversion_goes_on_and_ends_as_if_it_had_not_been(tmp_path):
    """Items of none, one and two people, and one that is skipped."""
    items = [[0], [], [], [1, 2], [3], None, [4, 5], [6], []]

    def convert(folder: Path, until: int) -> None:
        with RecordWriter(folder, HEADER, people_per_shard=2) as writer:
            for number, item in enumerate(items[writer.items_done :], writer.items_done):
                if number == until:
                    raise KeyboardInterrupt
                if item is None:
                    writer.skip(f"item {number} is broken")
                else:
                    writer.add(*(person(seed) for seed in item))
                assert writer.items_done == number + 1

    convert(tmp_path / "whole", 99)
    for until in (1, 4, 7):
        with pytest.raises(KeyboardInterrupt):
            convert(tmp_path / "killed", until)
        with pytest.raises(
            MeshrecError, match=r"unfinished.*Run their conversion again" if until > 3 else "no records"
        ):
            open_records(tmp_path / "killed")
    (tmp_path / "killed" / ".shard-00002-half").mkdir()
    convert(tmp_path / "killed", 99)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert not list((tmp_path / "killed").glob(".*"))
    records = open_records(tmp_path / "killed", verify=True)
    assert records.column("frame").tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert (records.index.posed, records.index.skipped) == (7, ("item 5 is broken",))


def test_a_conversion_of_something_else_does_not_go_on(tmp_path):
    with pytest.raises(KeyboardInterrupt), RecordWriter(tmp_path, HEADER, 1) as writer:
        writer.add(person(0))
        raise KeyboardInterrupt
    with pytest.raises(MeshrecError, match="beginning of other records"):
        RecordWriter(tmp_path, replace(HEADER, split="test"))


def test_finished_records_are_left_alone_and_nobody_is_no_records(tmp_path):
    written(tmp_path / "records", [person(0)])
    with pytest.raises(MeshrecError, match="finished records"):
        RecordWriter(tmp_path / "records", HEADER)
    with pytest.raises(MeshrecError, match="Nobody was found"), RecordWriter(tmp_path / "none", HEADER) as writer:
        writer.skip("nothing here")


@pytest.mark.parametrize(
    "wrong",
    [
        {"keypoints": Keypoints(torch.zeros(24, 2), torch.zeros(24), SMPL24)},
        {"joints_m": None},
        {"joints_m": torch.zeros(24, 3), "joints_weight": torch.zeros(24)},
        {"box_xyxy_px": torch.tensor([0.0, float("nan"), 9.0, 9.0])},
        {"camera": Camera(torch.tensor(1.0), torch.zeros(2), 10, 10, "true")},
        {"camera": replace(camera(), focal_px=torch.tensor(0.0))},
        {"camera": replace(camera(), focal_px=torch.tensor(-700.0))},
        {"camera": replace(camera(), center_px=torch.tensor([float("nan"), 1.0]))},
        {"joints_m": torch.full((17, 3), torch.nan)},
        {"joints_weight": torch.full((17,), torch.inf)},
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_written(tmp_path, wrong):
    with pytest.raises(ValueError), RecordWriter(tmp_path, HEADER) as writer:
        writer.add(replace(person(0), **wrong))


def cut_off(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def resaved(path: Path, change) -> None:
    """Change an array and the index with it, so that sizes fit again and only the contents are wrong."""
    np.save(path, change(np.load(path)))
    index_path = path.parent.parent / MARK
    index = json.loads(index_path.read_text())
    index["shards"][0]["files"][path.name]["bytes"] = path.stat().st_size
    index_path.write_text(json.dumps(index))


def reindexed(folder: Path, **fields: object) -> None:
    index = json.loads((folder / MARK).read_text())
    (folder / MARK).write_text(json.dumps(index | fields))


FAULTS = {
    "version 2.*reads version 1.*[Cc]onvert": lambda folder: reindexed(folder, version=2),
    "format is 'poses'": lambda folder: reindexed(folder, format="poses"),
    "records.json is cut off": lambda folder: cut_off(folder / MARK, 300),
    "tells of 9 people": lambda folder: reindexed(folder, people=9),
    "people: Input should be": lambda folder: reindexed(folder, people="many"),
    "joints of 'coco99'": lambda folder: reindexed(folder, skeleton="coco99"),
    "no records: cannot read records.json": lambda folder: shutil.rmtree(folder) or folder.mkdir(),
    "no folder of records": lambda folder: shutil.rmtree(folder),
    "shard shard-00001 is missing": lambda folder: shutil.rmtree(folder / "shard-00001"),
    "shard-00000/betas.npy is missing": lambda folder: (folder / "shard-00000" / "betas.npy").unlink(),
    "shard-00001/images.tar has 1000 bytes": lambda folder: cut_off(folder / "shard-00001" / "images.tar", 1000),
    "shard-00000/keypoints.npy has 200 bytes": lambda folder: cut_off(folder / "shard-00000" / "keypoints.npy", 200),
    r"betas.npy is float32 \(1, 10\)": lambda folder: resaved(folder / "shard-00000" / "betas.npy", lambda a: a[:1]),
    "frame.npy is int64": lambda folder: resaved(folder / "shard-00000" / "frame.npy", lambda a: a.astype("i8")),
    "images.tar ends before": lambda folder: resaved(folder / "shard-00000" / "image_bytes.npy", lambda a: a * 99),
}


@pytest.mark.parametrize("says", FAULTS)
def test_every_damage_is_one_sentence_that_names_the_file(tmp_path, says):
    folder = tmp_path / "records"
    written(folder, [person(seed) for seed in range(3)])
    FAULTS[says](folder)
    with pytest.raises(MeshrecError, match=says) as caught:
        open_records(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_picture_names_its_row_and_its_source(tmp_path):
    folder = tmp_path / "records"
    records = written(folder, [person(seed) for seed in range(3)])
    tar = folder / "shard-00001" / "images.tar"
    data = bytearray(tar.read_bytes())
    data[2000] ^= 0xFF
    tar.write_bytes(data)
    with pytest.raises(MeshrecError, match=r"row 2 of .*shard-00001/images.tar, 00000000.jpg, taken from .*00002.jpg"):
        records[2]
    assert records[1].frame == 1
    with pytest.raises(MeshrecError, match=r"images.tar is not as it was written"):
        open_records(folder, verify=True)


def test_fingerprints_tell_records_apart(tmp_path):
    people = [person(seed) for seed in range(3)]
    same, again = (written(tmp_path / name, people).fingerprint for name in ("a", "b"))
    other = written(tmp_path / "c", [*people[:2], person(9)]).fingerprint
    assert same == again != other


def test_threads_may_read_at_once(tmp_path):
    records = written(tmp_path / "records", [person(seed) for seed in range(6)])
    expected = [record.pixels for record in records]
    wrong: list[int] = []

    def read(start: int) -> None:
        for step in range(12):
            row = (start + step) % 6
            if not np.array_equal(records[row].pixels, expected[row]):
                wrong.append(row)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
