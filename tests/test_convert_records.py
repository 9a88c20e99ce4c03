"""Records do not depend on threads, on stops or on broken photographs, and the command says what it did."""

import importlib
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from dataset_writers import coco_person, write_coco
from rich.console import Console

from meshrec.data.records import open_records
from meshrec.errors import MeshrecError

TOOLS = Path(__file__).parent.parent / "tools"
IMAGES = 12
BROKEN, MISSING = "000000000002.jpg", "000000000007.jpg"


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(TOOLS)
    names = ("convert_records", "convert.coco", "convert.conversion", "convert.source")
    return SimpleNamespace(**{name.split(".")[-1]: importlib.import_module(name) for name in names})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photographs of one or two people; one of them is cut off, and one is not there."""
    people = [coco_person(image, 10 * image + one) for image in range(IMAGES) for one in range(1 + image % 2)]
    write_coco(tmp_path / "coco", people)
    broken = tmp_path / "coco" / "val2017" / BROKEN
    broken.write_bytes(broken.read_bytes()[:700])
    (tmp_path / "coco" / "val2017" / MISSING).unlink()
    return tmp_path / "coco"


@pytest.fixture
def converted(tools: SimpleNamespace, folder: Path, tmp_path: Path) -> Callable[..., Path]:
    def into(name: str, workers: int = 1) -> Path:
        source = tools.coco.read_coco(folder, "val2017")
        tools.conversion.convert(source, tmp_path / name, workers, Console(quiet=True), people_per_shard=3)
        return tmp_path / name

    return into


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_photograph_that_cannot_be_used_is_told_and_the_rest_goes_on(converted: Callable[..., Path]) -> None:
    records = open_records(converted("out"), verify=True)
    assert len(records) == 18 - 1 - 2
    assert [problem.split()[0] for problem in records.index.skipped] == [BROKEN, MISSING]
    sources = [record.source for record in records]
    assert sources == sorted(sources) and not {BROKEN, MISSING} & set(sources)


def test_records_do_not_depend_on_the_number_of_threads(converted: Callable[..., Path]) -> None:
    assert bytes_in(converted("one")) == bytes_in(converted("three", workers=3))


@pytest.mark.parametrize("stop", [1, 5, 9])
def test_a_conversion_that_was_stopped_goes_on(
    converted: Callable[..., Path], tools: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """The photographs of finished shards are not read again, and the end is the same to the last byte."""
    whole, real, read = bytes_in(converted("whole")), tools.conversion.records_of, []

    def stopping(sheet: Any) -> Any:
        if int(sheet.name.split(".")[0]) == stop:
            raise KeyboardInterrupt
        return real(sheet)

    def counting(sheet: Any) -> Any:
        read.append(sheet.name)
        return real(sheet)

    monkeypatch.setattr(tools.conversion, "records_of", stopping)
    with pytest.raises(KeyboardInterrupt):
        converted("stopped", workers=2)
    assert not (tmp_path / "stopped" / "records.json").exists()
    monkeypatch.setattr(tools.conversion, "records_of", counting)
    assert bytes_in(converted("stopped")) == whole
    assert len(read) == IMAGES if stop == 1 else len(read) < IMAGES


def test_another_conversion_does_not_go_on_in_its_folder(
    converted: Callable[..., Path], tools: SimpleNamespace, folder: Path
) -> None:
    done = converted("out")
    with pytest.raises(MeshrecError, match="holds finished records"):
        converted("out")
    (done / "records.json").unlink()
    other = tools.coco.read_coco(folder, "val2017", least_joints=3)
    with pytest.raises(MeshrecError, match="beginning of other records"):
        tools.conversion.convert(other, done, 1, Console(quiet=True))


def test_a_box_beside_the_photograph_is_told(tools: SimpleNamespace, tmp_path: Path) -> None:
    """Others in the same photograph are kept, and so are all others if a box goes around nothing."""
    beside = [[400.0, 10.0, 30.0, 40.0], [10.0, 130.0, 30.0, 40.0], [-50.0, 10.0, 30.0, 40.0], [9.0, -99.0, 30.0, 40.0]]
    nothing = [[10.0, 10.0, 1e-9, 40.0], [0.0, 0.0, 1e30, 1e30]]
    people = [coco_person(1, 10 + number, bbox=box) for number, box in enumerate([*beside, *nothing])]
    people = [coco_person(1, 1), *people, coco_person(1, 2), coco_person(2, 3)]
    source = tools.coco.read_coco(write_coco(tmp_path / "coco", people), "val2017")
    index = tools.conversion.convert(source, tmp_path / "out", 1, Console(quiet=True))
    assert index.people == 3 and [shard.items for shard in index.shards] == [2]
    assert ["outside the photograph of 160 x 120" in one for one in index.skipped] == [True] * 4 + [False] * 2
    assert all("goes around nothing" in one for one in index.skipped[4:])


def test_things_come_in_order_and_not_all_at_once(tools: SimpleNamespace) -> None:
    begun: list[int] = []

    def square(item: int) -> int:
        begun.append(item)
        return item**2

    squares: Iterator[int] = tools.conversion.in_order(square, range(100), 2)
    assert [next(squares) for _ in range(3)] == [0, 1, 4] and len(begun) < 20
    assert list(squares) == [item**2 for item in range(3, 100)]


def test_the_command_tells_what_it_did(
    tools: SimpleNamespace, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert_records: ModuleType = tools.convert_records
    conversion = convert_records.ConvertCOCO(folder=folder, output=tmp_path / "out", split="val2017", workers=1)
    assert convert_records.command(conversion, Console(stderr=True, width=120)) == 1
    told = capsys.readouterr().err
    assert f"left out: {MISSING} is missing." in told and "left out          │ 2" in told
    again = convert_records.ConvertCOCO(folder=folder, output=tmp_path / "out2", split="val2017", workers=0)
    with pytest.raises(MeshrecError, match="--workers is 0"):
        convert_records.command(again, Console(stderr=True))


def test_a_wrong_folder_is_answered_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    monkeypatch.setattr(sys, "argv", ["convert_records.py", "coco", str(tmp_path), "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="There are no keypoints of COCO: looked for"):
        runpy.run_path(str(TOOLS / "convert_records.py"), run_name="__main__")
    assert not (tmp_path / "out").exists()


def test_photographs_that_are_all_elsewhere_are_told_of(tools: SimpleNamespace, tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "coco", [coco_person(1, 1), coco_person(2, 2)])
    for photo in (folder / "val2017").iterdir():
        photo.unlink()
    with pytest.raises(
        MeshrecError, match=r"None of 2 photographs can be used. The first: 000000000001.jpg is missing"
    ):
        tools.conversion.convert(tools.coco.read_coco(folder, "val2017"), tmp_path / "out", 1, Console(quiet=True))
