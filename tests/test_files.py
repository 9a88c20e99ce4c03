"""Files appear whole or not at all, and arrays are read without running or believing what the file says."""

import errno
import os
import re
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from meshrec import files
from meshrec.errors import MeshrecError
from meshrec.files import array_names, quiet_stderr, read_array, read_arrays, whole_folder, write_text, write_whole

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


ARRAYS = {"poses": np.arange(12.0).reshape(3, 4), "gender": np.array("female"), "none": np.zeros((0, 3), np.float32)}


def _npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def test_arrays_come_back_as_they_were_saved_and_only_those_asked_for(tmp_path):
    path = _npz(tmp_path / "file.npz", **ARRAYS)
    assert array_names(path) == tuple(ARRAYS)
    back = read_arrays(path)
    assert set(back) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype
    assert set(read_arrays(path, ("poses", "absent"))) == {"poses"}
    np.save(tmp_path / "one.npy", ARRAYS["poses"])
    np.testing.assert_array_equal(read_array(tmp_path / "one.npy"), ARRAYS["poses"])


def test_what_is_no_archive_gets_a_sentence(tmp_path):
    np.save(tmp_path / "renamed.npy", ARRAYS["poses"])
    path = (tmp_path / "renamed.npy").rename(tmp_path / "renamed.npz")
    for content in (path.read_bytes(), b"", b"hello", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(MeshrecError, match=r"renamed\.npz is no \.npz archive"):
            read_arrays(path)
        with pytest.raises(MeshrecError, match=r"renamed\.npz is no \.npz archive"):
            array_names(path)
    with pytest.raises(MeshrecError, match=r"Cannot read .*absent\.npz: No such file"):
        read_arrays(tmp_path / "absent.npz")
    with pytest.raises(MeshrecError, match=r"Cannot read .*: Is a directory"):
        read_arrays(tmp_path)
    with pytest.raises(MeshrecError, match=r"Cannot read .*: No such file"):
        read_array(tmp_path / "absent.npy")
    with pytest.raises(MeshrecError, match=r"is no plain \.npy array"):
        read_array(_npz(tmp_path / "archive.npy.npz", **ARRAYS))


@pytest.mark.filterwarnings("ignore")
def test_every_truncation_and_flipped_byte_is_read_or_refused(tmp_path):
    path = tmp_path / "broken.npz"
    for save, read in ((np.savez_compressed, read_arrays), (np.savez, read_arrays), (np.save, read_array)):
        with path.open("wb") as file:
            save(file, ARRAYS["poses"])
        whole = path.read_bytes()
        for length in range(0, len(whole), 3):
            path.write_bytes(whole[:length])
            with pytest.raises(MeshrecError, match=r"broken\.npz"):
                read(path)
        rng = np.random.default_rng(0)
        for _ in range(400):
            damaged = bytearray(whole)
            damaged[rng.integers(len(whole))] = rng.integers(256)
            path.write_bytes(bytes(damaged))
            try:
                read(path)
            except MeshrecError as error:
                assert "broken.npz" in str(error)


def test_python_objects_are_never_loaded(tmp_path):
    path = _npz(tmp_path / "objects.npz", poses=np.zeros(3), extra=np.array([{"a": 1}], dtype=object))
    assert set(read_arrays(path, ("poses",))) == {"poses"}
    with pytest.raises(MeshrecError, match=r"the field extra of .*objects\.npz holds Python objects"):
        read_arrays(path)
    np.save(tmp_path / "objects.npy", np.array([None]))
    with pytest.raises(MeshrecError, match=r"objects\.npy holds Python objects"):
        read_array(tmp_path / "objects.npy")


def test_what_unpacks_to_too_much_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = _npz(tmp_path / "bomb.npz", huge=np.zeros(100_000), small=np.zeros(3))
    monkeypatch.setattr(files, "MAX_BYTES", 10_000)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(MeshrecError, match=r"bomb\.npz unpacks to 0\.8 MB, more than the 0\.0 MB"):
        read_arrays(path)
    monkeypatch.undo()
    monkeypatch.setattr(files, "MAX_BYTES", 10_000)
    assert set(read_arrays(path, ("small",))) == {"small"}
    np.save(tmp_path / "bomb.npy", np.zeros(100_000))
    with pytest.raises(MeshrecError, match=r"bomb\.npy .*0\.8 MB"):
        read_array(tmp_path / "bomb.npy")


def test_a_header_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n"
    claim = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)
    (tmp_path / "claim.npy").write_bytes(claim)
    with zipfile.ZipFile(tmp_path / "claim.npz", "w") as archive:
        archive.writestr("poses.npy", claim)
        archive.writestr("notes.txt", b"words")
    for read, name in ((read_array, "claim.npy"), (read_arrays, "claim.npz")):
        with pytest.raises(MeshrecError, match=f"{name} is .*cut off"):
            read(tmp_path / name)
    assert array_names(tmp_path / "claim.npz") == ("poses",)


def test_the_error_stream_is_silent_for_a_while_and_then_speaks_again(capfd):
    def say(words: str) -> None:
        os.write(2, words.encode())

    say("before,")
    with quiet_stderr():
        say("meanwhile,")
    say("after")
    with pytest.raises(ValueError, match="told"), quiet_stderr():
        raise ValueError("told")
    say("!")
    assert capfd.readouterr().err == "before,after!"


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
