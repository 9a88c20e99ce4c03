"""The restricted unpickler: the official layout comes back exactly, and nothing that a file asks for is ever run."""

import os
import pickle
import struct
import sys
from pathlib import Path
from types import FunctionType
from typing import Any, ClassVar

import numpy as np
import pytest

from meshrec.errors import MeshrecError
from meshrec.smpl_pickle import MAX_STEPS, _Array, read_smpl_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def _named(module: str, name: str) -> Any:
    """The class is pickled under a name whose module need not be there."""

    def rename(kind: type) -> type:
        kind.__module__, kind.__name__ = module, name
        return kind

    return rename


@_named("chumpy.ch", "Ch")
class Ch:
    """Pickles as chumpy's array does: a bare object whose state has the value at `x`."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x
        self._dirty_vars: set[str] = set()


@_named("chumpy.reordering", "Select")
class Select:
    """Pickles as chumpy's reordering does."""

    def __init__(self, a: Ch, idxs: np.ndarray, preferred_shape: tuple[int, ...]) -> None:
        self.a, self.idxs, self.preferred_shape = a, idxs, preferred_shape


@_named("chumpy.ch_ops", "add")
class Sum:
    """Pickles as an expression of chumpy does."""


@_named("scipy.sparse.csc", "csc_matrix")
class Columns:
    """Pickles as scipy's compressed columns do."""

    def __init__(self, dense: np.ndarray) -> None:
        columns, rows = np.nonzero(dense.T)
        self._shape = dense.shape
        self.data = dense[rows, columns]
        self.indices = rows.astype(np.int32)
        self.indptr = np.searchsorted(columns, np.arange(dense.shape[1] + 1)).astype(np.int32)


PicklerInPython: Any = vars(pickle)["_Pickler"]


class Python2Pickler(PicklerInPython):
    """Writes what Python 2 and an old numpy wrote: `str` raw, with no encoding named, and the modules of that time."""

    dispatch: ClassVar[dict[type, Any]] = PicklerInPython.dispatch.copy()

    def save_raw(self, text: str | bytes) -> None:
        raw = text.encode("latin-1") if isinstance(text, str) else text
        self.write(b"T" + struct.pack("<i", len(raw)) + raw if self.proto else b"S" + repr(raw)[1:].encode() + b"\n")
        self.memoize(text)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = obj.__module__.replace("numpy._core", "numpy.core")
        module = {"copyreg": "copy_reg", "builtins": "__builtin__"}.get(module, module)
        self.write(f"c{module}\n{name or obj.__name__}\n".encode())
        self.memoize(obj)

    dispatch[str] = save_raw
    dispatch[bytes] = save_raw
    dispatch[FunctionType] = save_global


def _official(path: Path, fields: dict[str, Any], protocol: int = 2) -> Path:
    with path.open("wb") as file:
        Python2Pickler(file, protocol=protocol).dump(fields)
    return path


def _numbers() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "rows": rng.normal(size=(4, 3, 2)),
        "columns": np.asfortranarray(rng.normal(size=(4, 5))),
        "faces": rng.integers(0, 9, size=(7, 3)).astype(np.uint32),
        "foreign": rng.normal(size=6).astype(">f4"),
        "one": np.float64(0.5),
        "strided": rng.normal(size=(6, 4))[::2, ::-1],
        "empty": np.zeros((0, 3)),
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_arrays_come_back_from_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps({**_numbers(), "bs_type": "lrotmin"}, protocol))
    arrays, found = read_smpl_pickle(path, [*_numbers(), "absent"])
    assert set(found) == {*_numbers(), "bs_type"}
    assert set(arrays) == set(_numbers())
    for name, expected in _numbers().items():
        np.testing.assert_array_equal(arrays[name], expected)
        assert arrays[name].dtype == expected.dtype.newbyteorder("=")
        assert arrays[name].flags.c_contiguous


@pytest.mark.parametrize("protocol", [0, 1, 2])
@pytest.mark.parametrize("module", ["scipy.sparse.csc", "scipy.sparse._csc"])
def test_official_layout_comes_back_without_chumpy_or_scipy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, protocol: int
) -> None:
    rng = np.random.default_rng(1)
    directions, regressor = rng.normal(size=(5, 3, 10)), rng.normal(size=(4, 6)) * (rng.random((4, 6)) < 0.4)
    monkeypatch.setattr(Columns, "__module__", module)
    fields = {
        "shapedirs": Ch(directions),
        "reversed": Select(Ch(directions), np.arange(directions.size)[::-1].copy(), (3, 5, 10)),
        "J_regressor": Columns(regressor),
        "f": np.array([[0, 1, 2]], dtype=np.uint32),
    }
    loaded = set(sys.modules)
    arrays, _ = read_smpl_pickle(_official(tmp_path / "SMPL_NEUTRAL.pkl", fields, protocol), list(fields))
    np.testing.assert_array_equal(arrays["shapedirs"], directions)
    np.testing.assert_array_equal(arrays["reversed"], directions.ravel()[::-1].reshape(3, 5, 10))
    np.testing.assert_array_equal(arrays["J_regressor"], regressor)
    np.testing.assert_array_equal(arrays["f"], fields["f"])
    assert not {name.split(".")[0] for name in set(sys.modules) - loaded} & {"chumpy", "scipy"}


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_python2_bytes_survive_latin_1(tmp_path: Path, protocol: int) -> None:
    every_byte = np.arange(256, dtype=np.uint8)
    arrays, _ = read_smpl_pickle(_official(tmp_path / "bytes.pkl", {"f": every_byte}, protocol), ["f"])
    np.testing.assert_array_equal(arrays["f"], every_byte)


@pytest.mark.parametrize("by_columns", [True, False])
def test_sparse_matrices_of_scipy_itself(tmp_path: Path, by_columns: bool) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    dense = np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]])
    matrix = (sparse.csc_matrix if by_columns else sparse.csr_array)(dense)
    path = tmp_path / "sparse.pkl"
    path.write_bytes(pickle.dumps({"J_regressor": matrix}, 2))
    np.testing.assert_array_equal(read_smpl_pickle(path, ["J_regressor"])[0]["J_regressor"], dense)


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _mark(path: Path) -> str:
    return f"open({str(path)!r}, 'w').close()"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("asked", ["system", "eval", "exec", "getattr", "load"])
def test_calls_are_refused_by_name_and_never_made(tmp_path: Path, protocol: int, asked: str) -> None:
    mark = tmp_path / "mark"
    calls = {
        "system": Call(os.system, f"touch {mark}"),
        "eval": Call(eval, _mark(mark)),
        "exec": Call(exec, _mark(mark)),
        "getattr": Call(getattr, np, "load"),
        "load": Call(np.load, "x.npy"),
    }
    if asked == "getattr":
        calls["getattr"] = Call(getattr, "text", "upper")
    path = tmp_path / "hostile.pkl"
    path.write_bytes(pickle.dumps({"v_template": calls[asked]}, protocol))
    with pytest.raises(MeshrecError, match=rf"asks for [\w.]*{asked}.*refused"):
        read_smpl_pickle(path, ["v_template"])
    assert not mark.exists()


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "asks for os.system: not an SMPL file; refused"),
        (b"(S'true'\nios\nsystem\n.", "asks for os.system"),
        (b"(cos\nsystem\nS'true'\no.", "asks for os.system"),
        (b"cnumpy.f2py\ncompile\n(S'true'\ntR.", "asks for numpy.f2py.compile"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "asks for numpy.ndarray.tofile"),
        (b"cscipy.sparse\nload_npz\n.", "asks for scipy.sparse.load_npz"),
        (b"Pother\n.", "damaged"),
        (b"\x82\x01.", "damaged"),
        (b"cnumpy\nndarray\n}S'__setstate__'\nI1\nsb.", "damaged"),
        (b"ccopy_reg\n_reconstructor\n(I1\ntR.", "damaged"),
        (b"]I1\na.", "holds a list"),
        (b"I1\nr\xff\xff\xff\x7f.", f"more than {MAX_STEPS} steps"),
        (b"(" * (MAX_STEPS + 1) + b".", f"more than {MAX_STEPS} steps"),
        (b"}" + b"(" + b"(" * 30_000 + b"t" * 30_000 + b"I1\nu.", f"more than {MAX_STEPS} steps"),
        (b"\x80\x02}K\x01\x85" + 40 * b"2\x86" + b"K\x01s.", "looks something up by a tuple"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc.", "cut off"),
        (b"", "0 bytes"),
        (b"<!DOCTYPE html>", "<!DOCTYPE"),
        (b"version https://git-lfs.github.com/spec/v1\n", "version"),
    ],
)
def test_hostile_and_broken_programs_get_a_sentence(tmp_path: Path, program: bytes, sentence: str) -> None:
    path = tmp_path / "hostile.pkl"
    path.write_bytes(program)
    with pytest.raises(MeshrecError, match=sentence.replace("(", r"\(")):
        read_smpl_pickle(path, ["v_template"])
    assert "__setstate__" in vars(_Array.__mro__[1])


def test_a_missing_file_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(MeshrecError, match="Cannot read"):
        read_smpl_pickle(tmp_path / "absent.pkl", [])


def _array_program(shape: str, dtype: str, raw: str) -> bytes:
    """A dictionary with one array, written by hand."""
    return (
        "(dS'f'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        f"(I1\n{shape}cnumpy\ndtype\n(S'{dtype}'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n{raw}tbs."
    ).encode()


@pytest.mark.parametrize(
    ("shape", "dtype", "raw", "sentence"),
    [
        ("(I1000000000000\nt", "f8", "S'abc'\n", "claims the shape"),
        ("(I-1\nt", "f8", "S'abcdefgh'\n", "no valid shape"),
        ("S'ab'\n", "f8", "S'abcdefgh'\n", "no valid shape"),
        ("(I1\nt", "O8", "(lNa", "Python objects"),
        ("(I1\nt", "O8", "S'abcdefgh'\n", "Python objects"),
        ("(I1\nt", "V8", "S'abcdefgh'\n", "Python objects"),
        ("(I1\nt", "f8,O8", "S'abcdefgh'\n", "Python objects"),
    ],
)
def test_arrays_are_decoded_only_when_they_are_numbers(
    tmp_path: Path, shape: str, dtype: str, raw: str, sentence: str
) -> None:
    path = tmp_path / "array.pkl"
    path.write_bytes(_array_program(shape, dtype, raw))
    with pytest.raises(MeshrecError, match=f"field f .*{sentence}"):
        read_smpl_pickle(path, ["f"])
    assert read_smpl_pickle(path, [])[1] == ("f",)


def test_what_is_no_array_is_named(tmp_path: Path) -> None:
    path = _official(tmp_path / "SMPL.pkl", {"list": ["lbs"], "huge": 1, "expression": Sum()})
    for name, sentence in (
        ("list", "is a list"),
        ("huge", "is a int"),
        ("expression", "expression of chumpy.ch_ops.add"),
    ):
        with pytest.raises(MeshrecError, match=f"field {name} .*{sentence}"):
            read_smpl_pickle(path, [name])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_text_is_text_and_none_is_no_field(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "text.pkl"
    path.write_bytes(pickle.dumps({"gender": "female", "vt": None, "f": np.zeros(3)}, protocol))
    arrays, found = read_smpl_pickle(path, ["gender", "vt", "f"])
    assert found == ("gender", "f") == tuple(arrays)
    assert str(arrays["gender"]) == "female"


def test_huge_and_damaged_sparse_matrices_are_refused(tmp_path: Path) -> None:
    for change, sentence in (
        ({"_shape": (10**9, 10**9)}, "far too large"),
        ({"_shape": (2, 3)}, "damaged sparse"),
        ({"indices": np.array([0, 7], dtype=np.int32)}, "damaged sparse"),
        ({"indptr": np.array([0, 3, 2], dtype=np.int32)}, "damaged sparse"),
    ):
        matrix = Columns(np.eye(2))
        vars(matrix).update(change)
        path = _official(tmp_path / "sparse.pkl", {"J_regressor": matrix})
        with pytest.raises(MeshrecError, match=sentence):
            read_smpl_pickle(path, ["J_regressor"])


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_every_truncation_and_flipped_byte_is_read_or_refused(tmp_path: Path) -> None:
    path = _official(tmp_path / "SMPL.pkl", {"shapedirs": Ch(np.ones((2, 3))), "J_regressor": Columns(np.eye(3))})
    whole = path.read_bytes()
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        with pytest.raises(MeshrecError):
            read_smpl_pickle(path, ["shapedirs", "J_regressor"])
    rng = np.random.default_rng(2)
    refused = 0
    for _ in range(500):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            read_smpl_pickle(path, ["shapedirs", "J_regressor"])
        except MeshrecError:
            refused += 1
    assert refused > 100
