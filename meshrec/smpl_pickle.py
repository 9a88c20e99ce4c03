"""The official SMPL pickles, and nested arrays in others, read without running anything they say.

A pickle is a program. Here every name that it asks for is answered by an inert stand-in or refused by name; a stand-in
keeps what it is given and does nothing, so neither chumpy nor scipy is needed and numpy itself is not called while the
program runs. Arrays are decoded from the kept bytes afterwards, one field at a time. Python 2's text is latin-1.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from meshrec.arrays import MAX_BYTES
from meshrec.errors import MeshrecError
from meshrec.inert_pickle import BadFileError, InertUnpickler

MAX_STEPS = 50_000
"""A real file takes a few thousand steps; so many nested tuples still fit on the C stack."""

MAX_ELEMENTS = 10**8
"""A sparse matrix may not unfold to more numbers; SMPL's regressor has 165,360."""

MALFORMED = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What Python's unpickler raises at a program that makes no sense."""


def read_smpl_pickle(path: Path, names: Collection[str]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Those of the fields `names` that the file has, as arrays, and the names of all its fields; None is no field."""
    fields = {name: value for name, value in _run(path).items() if value is not None}
    arrays = {}
    for name in names:
        if name in fields:
            try:
                arrays[name] = _array(fields[name])
            except MALFORMED as error:
                raise MeshrecError(f"{path}: the field {name} {_reason(error)}.") from error
    return arrays, tuple(str(name) for name in fields)


def unpickle_arrays(path: Path, data: bytes) -> Any:
    """What a pickle inside the file `path` holds: dicts of text, lists, text, numbers and arrays, in each other."""
    built = _built(path, data, "nested arrays")
    try:
        return _Unfolding().of(built)
    except MALFORMED as error:
        raise MeshrecError(f"{path}: the pickle inside {_reason(error)}. Save plain arrays in its place.") from error


def _run(path: Path) -> dict[Any, Any]:
    fields = _built(path, _read(path), "an SMPL file")
    if not isinstance(fields, dict):
        raise MeshrecError(f"{path} holds a {_kind(fields)}, not the named fields of an SMPL file.")
    return fields


def _built(path: Path, data: bytes, expected: str) -> Any:
    """What the program builds of stand-ins; `expected` is what the file should be, for messages."""
    _walk(path, data, expected)
    try:
        return _Reader(path, data, expected).load()
    except MALFORMED as error:
        raise MeshrecError(f"{path} is a damaged pickle: {_reason(error)}. Download the file again.") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MeshrecError(f"Cannot read {path}: {error.strerror or error}.") from error


def _walk(path: Path, data: bytes, expected: str) -> None:
    """Read the program once without running it: whole to its end, short, and with a small memory."""
    try:
        for count, (step, argument) in enumerate(_steps(io.BytesIO(data))):
            cell = argument if step in ("PUT", "BINPUT", "LONG_BINPUT") else 0
            if max(count, cell) > MAX_STEPS:
                raise MeshrecError(f"{path} takes more than {MAX_STEPS} steps to read: not {expected}; refused.")
    except MALFORMED as error:
        start = data[:12].decode("latin-1")
        raise MeshrecError(
            f"{path} is cut off or no pickle: {len(data)} bytes that start with {start!r}. Download the file again."
        ) from error


def _steps(stream: io.BytesIO) -> Iterator[tuple[str, Any]]:
    """Name and argument of every step; the text of protocol 0 is skipped, for `pickletools` takes it to be ASCII."""
    step = ""
    while step != "STOP":
        opcode = _OPCODES[stream.read(1).decode("latin-1")]
        step, argument = opcode.name, None
        if step == "STRING":
            stream.readline()
        elif opcode.arg is not None:
            argument = opcode.arg.reader(stream)
        yield step, argument


_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}


class _Inert:
    """Stands in for an object that a pickle asks for: keeps what it is given, does nothing."""

    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        raise ValueError("is a Python object, not an array")


class _Reconstructor(_Inert):
    """Stands in for `copy_reg._reconstructor(kind, object, None)`: an empty stand-in of that kind."""

    def __new__(cls, kind: Any, *_: Any) -> Any:
        if not (isinstance(kind, type) and issubclass(kind, _Inert)):
            raise ValueError(f"it rebuilds a {_kind(kind)}")
        return kind()


class _Encoded(_Inert):
    """Stands in for `_codecs.encode(text, "latin1")`, and for `bytes()`: how Python 3 writes bytes then."""


class _DType(_Inert):
    """Stands in for `numpy.dtype`: its name in `arguments`, its byte order in `state`."""

    def plain(self) -> np.dtype:
        name = self.arguments[0]
        if not re.fullmatch(r"b1|[iuf][1248]", name):
            raise ValueError(f"holds Python objects or text (numpy type {name!r}), not numbers")
        order = self.state[1] if self.state else "="
        return np.dtype(name).newbyteorder(order)


class _Array(_Inert):
    """Stands in for `numpy.ndarray` and for the function that makes an empty one."""

    def array(self) -> np.ndarray:
        shape, dtype, fortran, raw = self.state[-4:]
        return _decode(raw, dtype, shape, "F" if fortran else "C")

    def objects(self) -> Any:
        """The Python objects that the array holds, one alone or a list of them; None where it holds numbers."""
        shape, dtype, _, held = self.state[-4:]
        if not (isinstance(dtype, _DType) and dtype.arguments[0] in ("O", "O4", "O8") and isinstance(held, list)):
            return None
        return held[0] if shape == () and len(held) == 1 else held


class _Buffer(_Inert):
    """Stands in for `numpy._frombuffer(buffer, dtype, shape, order)`, an array in protocol 5."""

    def array(self) -> np.ndarray:
        raw, dtype, shape, order = self.arguments
        return _decode(raw, dtype, shape, order)


class _Scalar(_Inert):
    """Stands in for `numpy.core.multiarray.scalar(dtype, bytes)`."""

    def array(self) -> np.ndarray:
        dtype, raw = self.arguments
        return _decode(raw, dtype, (), "C")


class _Chumpy(_Inert):
    """Stands in for a chumpy object: `Ch` keeps its value as `x`, `Select` picks entries of another."""

    asked = "chumpy"

    def array(self) -> np.ndarray:
        state = self.state or {}
        if "x" in state:
            return _array(state["x"])
        if self.asked.endswith(".Select"):
            picked = _array(state["a"]).ravel()[_array(state["idxs"])]
            shape = state.get("preferred_shape", picked.shape)
            return picked.reshape(shape if isinstance(shape, tuple) else _array(shape))
        raise ValueError(f"is an expression of {self.asked}, not a value: save its `.r` in its place")


class _Sparse(_Inert):
    """Stands in for a compressed scipy matrix; `by_columns` tells csc from csr."""

    by_columns = True

    def array(self) -> np.ndarray:
        shape = _shape(self.state.get("_shape", self.state.get("shape")))
        data, indices, starts = (_array(self.state[name]) for name in ("data", "indices", "indptr"))
        if math.prod(shape) > MAX_ELEMENTS:
            raise ValueError(f"is a matrix of {shape}, far too large")
        dense = np.zeros(shape[::-1] if self.by_columns else shape, dtype=data.dtype)
        lengths = np.diff(starts)
        inside = indices.size == 0 or (indices.min() >= 0 and indices.max() < dense.shape[1])
        if len(lengths) != len(dense) or (lengths < 0).any() or lengths.sum() != len(indices) or not inside:
            raise ValueError("is a damaged sparse matrix")
        np.add.at(dense, (np.repeat(np.arange(len(dense)), lengths), indices), data)
        return dense.T if self.by_columns else dense


class _SparseRows(_Sparse):
    by_columns = False


_CORES = ("numpy.core", "numpy._core")
_STAND_INS: dict[str, type[_Inert]] = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _DType,
    "_codecs.encode": _Encoded,
    "__builtin__.bytes": _Encoded,
    **{f"{core}.multiarray._reconstruct": _Array for core in _CORES},
    **{f"{core}.multiarray.scalar": _Scalar for core in _CORES},
    **{f"{core}.numeric._frombuffer": _Buffer for core in _CORES},
    **{f"{module}._reconstructor": _Reconstructor for module in ("copy_reg", "copyreg")},
    **{f"{module}.{name}": _Inert for module in ("__builtin__", "builtins") for name in ("object", "set")},
}
_SPARSE: dict[str, type[_Inert]] = {
    "csc_matrix": _Sparse,
    "csc_array": _Sparse,
    "csr_matrix": _SparseRows,
    "csr_array": _SparseRows,
}


class _Reader(InertUnpickler):
    """Finds the stand-ins above, and nothing else."""

    def __init__(self, path: Path, data: bytes, expected: str) -> None:
        super().__init__(io.BytesIO(data))
        self.path, self.expected = path, expected

    def find_class(self, module_name: str, global_name: str) -> type[_Inert]:
        asked = f"{module_name}.{global_name}"
        if asked in _STAND_INS:
            return _STAND_INS[asked]
        if module_name.startswith("scipy.sparse") and global_name in _SPARSE:
            return _SPARSE[global_name]
        if module_name.split(".")[0] == "chumpy":
            return type("_NamedChumpy", (_Chumpy,), {"asked": asked})
        raise MeshrecError(f"{self.path} asks for {asked}: not {self.expected}; refused.")


class _Unfolding:
    """Turns what a pickle built into plain values; of bounded size, for a pickle can name one part a million times."""

    def __init__(self) -> None:
        self.parts = self.bytes = 0

    def of(self, value: Any) -> Any:
        """The value with every stand-in in it decoded."""
        self.parts += 1
        if self.parts > MAX_STEPS:
            raise ValueError(f"unfolds to more than {MAX_STEPS} parts")
        if isinstance(value, dict):
            return {self._key(key): self.of(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(part) for part in value]
        if isinstance(value, str | int | float | None):
            return value
        if isinstance(value, _Array) and (held := value.objects()) is not None:
            return self.of(held)
        if not isinstance(value, _Inert):
            raise ValueError(f"holds a {_kind(value)}, not arrays in dicts and lists")
        array = value.array()
        self.bytes += array.nbytes
        if self.bytes > MAX_BYTES:
            raise ValueError(f"unfolds to more than {MAX_BYTES / 1e6:.0f} MB")
        return array

    def _key(self, key: Any) -> str:
        if not isinstance(key, str):
            raise ValueError(f"has a key that is no text, {str(key)[:40]}")
        return key


def _array(value: Any) -> np.ndarray:
    if isinstance(value, str):
        return np.array(value)
    if not isinstance(value, _Inert):
        raise ValueError(f"is a {_kind(value)}, not an array")
    return value.array()


def _decode(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if isinstance(raw, _Encoded):
        raw = raw.arguments[0] if raw.arguments else ""
    if not isinstance(dtype, _DType) or not isinstance(raw, str | bytes | bytearray):
        raise ValueError("holds Python objects, not numbers")
    plain, shape = dtype.plain(), _shape(shape)
    data = raw.encode("latin-1") if isinstance(raw, str) else bytes(raw)
    if math.prod(shape) * plain.itemsize != len(data):
        raise ValueError(f"claims the shape {shape} but has {len(data)} bytes")
    values = np.frombuffer(data, plain).reshape(shape, order="F" if order == "F" else "C")
    return np.ascontiguousarray(values.astype(plain.newbyteorder("="))).reshape(shape)


def _shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError("has no valid shape")
    return shape


def _kind(value: Any) -> str:
    return type(value).__name__.strip("_")


def _reason(error: BaseException) -> str:
    return str(error) if type(error) in (ValueError, BadFileError) else f"makes no sense ({type(error).__name__})"
