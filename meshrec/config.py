"""A YAML file and what the command line adds to it, as one frozen dataclass; and back."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from meshrec.errors import MeshrecError

Config = TypeVar("Config")
"""A frozen dataclass of plain values and of such dataclasses, every field with a default: a file says what differs."""


def read_config(path: Path, kind: type[Config]) -> Config:
    """The settings of a YAML file; a file that cannot be understood is a `MeshrecError`."""
    return decode_config(_settings(path), kind, str(path))


def checked_config(config: Config, where: str) -> Config:
    """A configuration that came by another way than a file, held to the rules of a file."""
    return decode_config(_plain(config), type(config), where)


def require_positive(config: object, *names: str) -> None:
    """A `ValueError` for the first of these settings that is not above zero."""
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} is {getattr(config, name)}; it must be positive")


def require_range(config: object, **ranges: tuple[float | int, float | int]) -> None:
    """A `ValueError` for the first setting that is not from the lowest to the highest value, both allowed."""
    for name, (lowest, highest) in ranges.items():
        if not lowest <= getattr(config, name) <= highest:
            raise ValueError(f"{name} is {getattr(config, name)}; it must be from {lowest} to {highest}")


def task_of(path: Path, known: Collection[str]) -> str:
    """Which task a YAML file is for: its key `task`, one of `known`."""
    task = _settings(path).get("task")
    if not isinstance(task, str) or task not in known:
        said = "does not say which" if task is None else f"names the task {_shown(task)}"
        raise MeshrecError(f"{path} {said}; write `task: NAME` at its top, NAME being one of {', '.join(known)}.")
    return task


def config_text(config: object) -> str:
    """The YAML of every setting, those that have their defaults too; `read_config` gives the same dataclass back."""
    return yaml.dump(_plain(config), Dumper=_Dumper, sort_keys=False, width=120)


def flat_settings(config: object) -> dict[str, Any]:
    """Every setting by its dotted path, as the plain values of JSON."""
    return dict(_leaves(_plain(config)))


def _plain(config: object) -> dict[str, Any]:
    return _adapter(type(config)).dump_python((config,), mode="json")[0]


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


# ---- reading


class _Loader(yaml.SafeLoader):
    """YAML in which a key may stand only once, where the library would keep the last, and 1e3 is a number."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)  # pyright: ignore[reportArgumentType]
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands twice", problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return node


class _Dumper(yaml.SafeDumper):
    """YAML for `_Loader`: text that looks like 1e3 is quoted."""


_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
"""Numbers that YAML 1.1 takes for text, because they lack a point or a sign."""

for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def _settings(path: Path) -> dict[str, Any]:
    """What a YAML file says, before anything is known of what it may say."""
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise MeshrecError(f"Cannot read {path}: {error.strerror or error}.") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise MeshrecError(f"{path}{line}: this is no YAML: {error.problem or error.context}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise MeshrecError(f"{path} is no YAML: {' '.join(str(error).split())}.") from error
    if settings is not None and not isinstance(settings, dict):
        raise MeshrecError(f"{path} holds {_shown(settings)}; it should hold lines of the form `name: value`.")
    return settings or {}


def decode_config(settings: Mapping[str, Any], kind: type[Config], where: str) -> Config:
    """The dataclass of some settings; an unknown name or a wrong value is a `MeshrecError` that names its path."""
    try:
        config = _adapter(kind).validate_python([settings])[0]
    except ValidationError as error:
        raise MeshrecError(f"{where}: {_advice(error.errors(include_url=False), kind)}") from error
    decoded = flat_settings(config)
    for name, value in _leaves(settings):
        if _switches(value) != _switches(decoded.get(name, value)):
            raise MeshrecError(f"{where}: {name} is {_shown(value)}; numbers should stand there, not yes or no.")
    return config


def _switches(value: object) -> int:
    """How many values are true or false."""
    return sum(isinstance(one, bool) for one in (value if isinstance(value, list) else [value]))


@cache
def _adapter(kind: type) -> TypeAdapter:
    """What decodes a tuple of one: pydantic takes no rules for a dataclass, but hands a tuple's down to its items."""
    rules = ConfigDict(extra="forbid", allow_inf_nan=False)
    return TypeAdapter(tuple[kind], config=rules)  # pyright: ignore[reportInvalidTypeForm]


def _advice(errors: Sequence[ErrorDetails], kind: type) -> str:
    """One sentence on the first thing that is wrong; a misspelt name comes before what is missing because of it."""
    worst = min(errors, key=lambda error: error["type"] != "unexpected_keyword_argument")
    setting = ".".join(str(part) for part in worst["loc"][1:])
    if worst["type"] == "unexpected_keyword_argument":
        return f"there is no setting {setting}; {_nearest(setting, tuple(_names(kind)))}"
    if worst["type"] == "missing":
        return f"the setting {setting} is missing and has no default; add it."
    if worst["type"] == "value_error":
        return f"{setting + ': ' if setting else ''}{worst.get('ctx', {}).get('error')}."
    found = f"{setting or 'the file'} is {_shown(worst['input'])}"
    return f"{found}; {worst['msg'].replace('Input should', 'it should', 1)}."


def _nearest(setting: str, known: Sequence[str]) -> str:
    """The known name that was meant: one that is spelt alike in its place, else the same name elsewhere."""
    room, _, name = setting.rpartition(".")
    here = {path.rpartition(".")[2]: path for path in known if path.rpartition(".")[0] == room}
    alike = [here[one] for one in get_close_matches(name, here, n=1)]
    elsewhere = [path for path in known if path.rpartition(".")[2] == name]
    guess = (alike + elsewhere)[:1]
    return f"did you mean {guess[0]}?" if guess else f"the settings there are {', '.join(here.values())}."


def _names(kind: type, prefix: str = "") -> Iterator[str]:
    """The dotted path of every setting of a dataclass, and of those inside it."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        hint = hints[field.name]
        yield f"{prefix}{field.name}"
        for inner in (hint, *get_args(hint)):
            if is_dataclass(inner) and isinstance(inner, type):
                yield from _names(inner, f"{prefix}{field.name}.")


def _shown(value: object) -> str:
    """A value as YAML writes it, cut short."""
    text = (
        yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000).removesuffix("\n...\n").strip()
    )
    return text if len(text) <= 60 else f"{text[:57]}..."
