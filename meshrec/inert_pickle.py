"""Pickles read without running anything that they say.

A pickle is a program. Here every name that it asks for is answered by an inert stand-in, which keeps what it is given
and does nothing: so what trainers save beside their weights need not be installed, and a hostile program can do no
harm. Nor can it take forever: it may take so many steps, and what is looked up by its hash must be simple, since the
hash of tuples in tuples takes exponential time, or ends the process.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Iterable
from io import BufferedIOBase
from typing import Any

MAX_STEPS = 2_000_000
"""A checkpoint with an optimizer of 2,000 tensors takes a tenth of it."""

MAX_NAMES = 10_000
"""So many things may a program ask for; trainers ask for a hundred."""

MAX_INT = 2**60
"""Larger ones share their hashes, and then looking one up means to look at all."""

MAX_TUPLE = 16
"""So long may a tuple be that is looked up."""

PROGRAMS = (
    "os",
    "posix",
    "nt",
    "sys",
    "subprocess",
    "commands",
    "shutil",
    "runpy",
    "importlib",
    "socket",
    "ctypes",
    "pty",
)
BUILTINS = ("builtins", "__builtin__")
HARMLESS = ("set", "frozenset", "list", "dict", "tuple", "object", "bytearray", "complex", "slice", "range", "int")
"""What of Python's builtins a configuration may hold."""


class BadFileError(ValueError):
    """What is wrong with a file, as the end of a sentence that begins with it."""


class Inert:
    """Stands in for whatever a program asks for: keeps the arguments of a call, and forgets all else."""

    asked = ""
    arguments: tuple[Any, ...] = ()

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Lists of other kinds."""

    def extend(self, values: Any) -> None:
        """Lists of other kinds."""

    def add(self, value: Any) -> None:
        """Sets of other kinds."""


class InertDict(dict):
    """Stands in for `collections.OrderedDict`, whose attributes are forgotten."""

    def __init__(self, pairs: Iterable[Any] = ()) -> None:
        super().__init__()
        for key, value in pairs:
            self[simple(key)] = value

    def __setstate__(self, state: Any) -> None:
        pass


def simple(key: Any) -> Any:
    """What is looked up by its hash: a text, a number, a stand-in, or a short tuple of these; else refused."""
    parts = key if type(key) is tuple and len(key) <= MAX_TUPLE else (key,)
    if not all(map(_is_simple, parts)):
        raise BadFileError(f"looks something up by a {kind_of(key)}, as no file of arrays does")
    return key


def _is_simple(part: Any) -> bool:
    if type(part) is int:
        return abs(part) < MAX_INT
    return part is None or type(part) in (str, bytes, float, bool) or isinstance(part, Inert | type)


def _checking(load: Callable[[Any], None], step: int) -> Callable[[Any], None]:
    """A step of the unpickler that first checks what it looks up: each `step`th of the things above the mark."""

    def checked(reader: Any) -> None:
        for key in reader.stack[::step]:
            simple(key)
        load(reader)

    return checked


def _checking_one(reader: Any) -> None:
    """The step that puts one key with its value."""
    simple(reader.stack[-2])
    reader.load_setitem()


_STEPS = pickle._Unpickler.dispatch  # type: ignore[attr-defined]


class InertUnpickler(pickle._Unpickler):  # type: ignore[name-defined]
    """Python's unpickler, except that it finds nothing but stand-ins."""

    dispatch = _STEPS | {
        pickle.SETITEM[0]: _checking_one,
        pickle.SETITEMS[0]: _checking(_STEPS[pickle.SETITEMS[0]], 2),
        pickle.DICT[0]: _checking(_STEPS[pickle.DICT[0]], 2),
        pickle.ADDITEMS[0]: _checking(_STEPS[pickle.ADDITEMS[0]], 1),
        pickle.FROZENSET[0]: _checking(_STEPS[pickle.FROZENSET[0]], 1),
    }

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, fix_imports=False, encoding="latin1")
        self._kinds: dict[str, type] = {"collections.OrderedDict": InertDict}

    def find_class(self, module_name: str, global_name: str) -> type:
        """A stand-in, the same for the same name."""
        asked = f"{module_name}.{global_name}"
        package = module_name.partition(".")[0]
        if package in PROGRAMS or (package in BUILTINS and global_name not in HARMLESS):
            raise BadFileError(f"asks for {asked}, which no file of arrays needs")
        if asked not in self._kinds:
            if len(self._kinds) >= MAX_NAMES:
                raise BadFileError(f"asks for more than {MAX_NAMES} things")
            self._kinds[asked] = type("_Named", (Inert,), {"asked": asked})
        return self._kinds[asked]


def walk(file: BufferedIOBase) -> None:
    """Read a program once without running it: whole to its end, short, and with a small memory."""
    for count, (step, argument, _) in enumerate(pickletools.genops(file)):  # type: ignore[arg-type]
        if step.name.startswith("EXT"):
            raise BadFileError("asks for what other programs registered")
        cell = argument if step.name in ("PUT", "BINPUT", "LONG_BINPUT") else 0
        if max(count, cell or 0) > MAX_STEPS:
            raise BadFileError(f"takes more than {MAX_STEPS} steps to read")


def kind_of(value: Any) -> str:
    """What a value is, in a word."""
    return value.asked if isinstance(value, Inert) else type(value).__name__.strip("_").lower()
