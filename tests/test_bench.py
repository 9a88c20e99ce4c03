"""The benchmarks' rows have their names and fields; how fast anything is, no test says."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parent.parent / "tools"
PROMISED = {f"body.{path}.b{bodies}" for path in ("kinematics", "regressed", "full") for bodies in (1, 32, 256)}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("smplx")
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("bench")


def test_rows_are_ratios_to_a_peer(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(only=("body.kinematics.b1", "render.224"), repeats=1, json=True) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == ["body.kinematics.b1", "render.224", "render.224.trimesh"]
    for row in rows.values():
        assert row["unit"] == "ms" and row["peer_name"] and row["threads"] >= 1
        assert row["ours"] > 0 and row["peer"] > 0
        assert row["ratio"] == pytest.approx(row["peer"] / row["ours"])


def test_a_rate_is_better_when_it_is_higher(bench: ModuleType) -> None:
    assert bench.Figure(80.0, "people/s", 20.0, more_is_better=True).ratio == 4
    assert bench.Figure(2.0, "ms", 8.0).ratio == 4
    assert bench.Figure(1500.0, "MB").ratio is None


def test_a_goal_is_met_by_what_reaches_it(bench: ModuleType) -> None:
    figure = bench.Figure(2.0, "ms", 8.0)
    assert bench.Case(print, ratio=4).met(figure) and not bench.Case(print, ratio=5).met(figure)
    assert bench.Case(print, most=2).met(figure) and not bench.Case(print, most=1).met(figure)
    assert bench.Case(print, least=2).met(figure) and not bench.Case(print, least=3).met(figure)


def test_the_table_holds_what_is_promised(bench: ModuleType) -> None:
    assert set(bench.CASES) >= PROMISED | {
        "body.full_dense.b256",
        "metrics.pa_mpjpe.100k",
        "fit.people_per_second",
        "priors.training.paper",
    }


def test_a_row_that_is_not_there_is_named(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(only=("body.hair",)) == 1
    assert "body.hair" in (told := capsys.readouterr().out) and "body.kinematics.b256" in told
