"""What the README says exists."""

import re
from pathlib import Path

import pytest

from meshrec.cli import VERBS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHIPPED = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("meshrec/bodies", "meshrec/weights", "pictures")
    for path in (ROOT / folder).iterdir()
    if path.suffix != ".json"
)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_table(verb: str) -> None:
    assert f"| `meshrec {verb} " in README


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:tools|tests|meshrec|pictures)/[\w/]+\.\w+", README))))
def test_every_file_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("path", SHIPPED)
def test_every_shipped_file_has_its_licence_stated(path: str) -> None:
    licences = README.split("## Licences")[1].split("## ")[0]
    assert Path(path).name in licences


@pytest.mark.parametrize("target", ["setup", "demo", "test", "bench", "lint"])
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
