"""Arrays are read without running or believing what the file says."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from meshrec import arrays
from meshrec.arrays import array_names, read_array, read_arrays
from meshrec.errors import MeshrecError

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
    monkeypatch.setattr(arrays, "MAX_BYTES", 10_000)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(MeshrecError, match=r"bomb\.npz unpacks to 0\.8 MB, more than the 0\.0 MB"):
        read_arrays(path)
    monkeypatch.undo()
    monkeypatch.setattr(arrays, "MAX_BYTES", 10_000)
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
