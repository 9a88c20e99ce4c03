"""Files and folders appear whole or not at all."""

import errno
import os
import re
import tempfile
from pathlib import Path

import pytest

from meshrec.errors import MeshrecError
from meshrec.files import whole_folder, write_text, write_whole

OURS = re.compile(r"result\.json|\w+\.obj")


def _full_disk(path: Path) -> None:
    path.write_bytes(b"half of it")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_is_written_is_there_alone(tmp_path):
    path = tmp_path / "new" / "folder" / "pose.json"
    assert write_text(path, "größer") == path
    assert path.read_bytes() == "größer".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_second_text_replaces_the_first(tmp_path):
    path = tmp_path / "pose.json"
    write_text(path, "a long first text")
    write_text(path, "short")
    assert path.read_text() == "short"


def test_the_writer_sees_a_neighbour_with_the_same_suffix_and_the_old_file_in_place(tmp_path):
    path = write_text(tmp_path / "mesh.glb", "old")
    seen = []

    def write(neighbour: Path) -> None:
        seen.append((neighbour.parent, neighbour.suffix, neighbour != path, path.read_text()))
        neighbour.write_text("new")

    write_whole(path, write)
    assert seen == [(tmp_path, ".glb", True, "old")]
    assert path.read_text() == "new"


def test_a_full_disk_is_advice_and_leaves_the_old_file(tmp_path):
    path = write_text(tmp_path / "mesh.glb", "old")
    with pytest.raises(MeshrecError, match=r"Cannot write .*mesh\.glb: No space left on device.*-o DIR"):
        write_whole(path, _full_disk)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_at_the_sync_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_text(tmp_path / "mesh.glb", "old")

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(MeshrecError, match="Input/output error"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [ValueError("the mesh has no faces"), KeyboardInterrupt()])
def test_another_failure_passes_through_and_leaves_the_old_file(tmp_path, failure):
    path = write_text(tmp_path / "mesh.glb", "old")

    def write(neighbour: Path) -> None:
        neighbour.write_text("half")
        raise failure

    with pytest.raises(type(failure)):
        write_whole(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_read_only_folder_is_advice(tmp_path, monkeypatch):
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(MeshrecError, match="Read-only file system"):
        write_text(tmp_path / "pose.json", "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_advice(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(MeshrecError, match="Permission denied"):
        write_text(tmp_path / "pose.json", "new")
    tmp_path.chmod(0o700)


def test_a_folder_in_the_way_is_advice_and_stays(tmp_path):
    path = tmp_path / "pose.json"
    path.mkdir()
    with pytest.raises(MeshrecError, match=r"Cannot write .*pose\.json"):
        write_text(path, "new")
    assert path.is_dir()
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_way_of_a_folder_is_advice_and_stays(tmp_path):
    blocker = write_text(tmp_path / "out", "a file")
    with pytest.raises(MeshrecError, match=r"Cannot write .*pose\.json"):
        write_text(blocker / "pose.json", "new")
    assert blocker.read_text() == "a file"
    assert list(tmp_path.iterdir()) == [blocker]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_file_has_the_permissions_of_any_other(tmp_path, umask):
    before = os.umask(umask)
    try:
        path = write_text(tmp_path / "pose.json", "new")
    finally:
        assert os.umask(before) == umask, "writing leaves the mask as it was"
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_folder_takes_the_place_of_an_earlier_one_of_its_kind(tmp_path):
    path = tmp_path / "out" / "person"
    for text in ("old", "new"):
        with whole_folder(path, "result.json", OURS) as folder:
            write_text(folder / "result.json", text)
            write_text(folder / f"{text}.obj", text)
            assert not (path / "new.obj").exists()
    assert {file.name for file in path.iterdir()} == {"result.json", "new.obj"}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [ValueError("no person"), OSError(errno.ENOSPC, "No space left on device")])
def test_a_folder_that_fails_halfway_leaves_the_old_one(tmp_path, failure):
    path = tmp_path / "person"
    with whole_folder(path, "result.json", OURS) as folder:
        write_text(folder / "result.json", "old")
    expected = MeshrecError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected), whole_folder(path, "result.json", OURS) as folder:
        write_text(folder / "result.json", "half")
        raise failure
    assert (path / "result.json").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_of_another_kind_is_left_alone(tmp_path):
    path = tmp_path / "holiday"
    path.mkdir()
    write_text(path / "beach.txt", "sand")
    with (
        pytest.raises(MeshrecError, match=r"holiday exists and holds no result\.json"),
        whole_folder(path, "result.json", OURS),
    ):
        pass
    assert (path / "beach.txt").read_text() == "sand"


def test_what_the_user_put_beside_a_result_moves_over(tmp_path: Path) -> None:
    folder = tmp_path / "photo"
    for content in ("first", "second"):
        with whole_folder(folder, "result.json", OURS) as inside:
            (inside / "result.json").write_text(content)
        (folder / "notes.txt").write_text("mine")
        (folder / "mesh.obj").write_text("of an earlier result")
    with whole_folder(folder, "result.json", OURS) as inside:
        (inside / "result.json").write_text("third")
    assert (folder / "result.json").read_text() == "third"
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "mesh.obj").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["photo"]


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "Free some space, or choose another"), (errno.EACCES, ". Choose another")]
)
def test_space_is_asked_for_only_where_it_is_short(number, advice, tmp_path):
    def fail(_: Path) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(MeshrecError, match=re.escape(advice)):
        write_whole(tmp_path / "a.txt", fail)
