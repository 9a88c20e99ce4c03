"""The command line: quick to answer, its table true, its errors one sentence."""

import importlib
import subprocess
import sys

import pytest

from meshrec.cli import VERBS, main


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS)


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        f"import sys; from meshrec.cli import main; main({words});"
        "heavy = {'torch', 'numpy', 'cv2', 'warp', 'tyro', 'rich', 'mediapipe'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_exists_and_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, function = VERBS[verb][0].split(":")
    assert callable(getattr(importlib.import_module(module), function))
    try:
        code = main([verb, "--help"])
    except SystemExit as end:
        code = end.code
    assert code == 0
    assert f"meshrec {verb}" in capsys.readouterr().out


def test_a_misspelt_verb_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recovr"]) == 2
    assert "did you mean recover?" in capsys.readouterr().err


def test_advice_is_one_sentence_and_exit_code_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recover", "nowhere.jpg"]) == 1
    error = capsys.readouterr().err
    assert "nowhere.jpg" in error
    assert "Traceback" not in error


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("meshrec ")
