"""Pickles as Python 2 wrote them with protocol 2: text and the bytes of arrays are raw latin-1 strings."""

import struct
from typing import Any

import numpy as np

_RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
_EMPTY_ARRAY = _RECONSTRUCT + b"(cnumpy\nndarray\n" + b"(K\x00tU\x01btR"


def dumps(value: Any) -> bytes:
    """A pickle of dicts, lists, text, whole numbers and arrays of numbers."""
    return b"\x80\x02" + _steps(value) + b"."


def _steps(value: Any) -> bytes:
    """The program that builds a value."""
    match value:
        case str():
            return _string(value.encode("latin-1"))
        case int():
            return b"J" + struct.pack("<i", value)
        case list():
            return b"](" + b"".join(map(_steps, value)) + b"e"
        case dict():
            return b"}(" + b"".join(_steps(key) + _steps(part) for key, part in value.items()) + b"u"
        case np.ndarray():
            return _array(value)
    raise ValueError(f"{type(value).__name__} is not written here")


def _array(values: np.ndarray) -> bytes:
    """An empty array, and the state that fills it: version, shape, dtype, order, bytes."""
    shape = b"(" + b"".join(map(_steps, values.shape)) + b"t"
    kind = f"{values.dtype.kind}{values.dtype.itemsize}"
    order = "|" if values.dtype.itemsize == 1 else "<"
    state = b"(K\x03" + _steps(order) + b"NNN" + _steps(-1) + _steps(-1) + b"K\x00t"
    dtype = b"cnumpy\ndtype\n(" + _steps(kind) + b"K\x00K\x01tR" + state + b"b"
    raw = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    return _EMPTY_ARRAY + b"(K\x01" + shape + dtype + b"\x89" + _string(raw) + b"tb"


def _string(data: bytes) -> bytes:
    return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data
