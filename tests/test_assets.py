"""Body files: what goes in comes out, the user's come first, and everything wrong gets a sentence."""

import json
import pickle
from collections.abc import Callable
from dataclasses import fields as fields_of
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro

import meshrec
from meshrec.assets import (
    BodyFile,
    add_asset,
    check_asset,
    command,
    data_directory,
    export_pickle,
    find_prior,
    list_assets,
    load_body_file,
    smpl_fields,
)
from meshrec.errors import MeshrecError
from meshrec.joint_regressors import REGRESSED, compose
from meshrec.skeletons import COCO17, H36M17, SMPL24, Skeleton

BODIES = Path(meshrec.__file__).parent / "bodies"
ARRAYS = ("v_template", "shapedirs", "posedirs", "joint_regressor", "weights", "faces")
Fields = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory."""
    monkeypatch.setenv("MESHREC_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@cache
def _joints_m() -> np.ndarray:
    """The shipped body's joints."""
    shipped = load_body_file(BODIES / "neutral.npz")
    return (shipped.joint_regressor @ shipped.v_template).astype(np.float64)


def _small(seed: int = 0, count: int = 30) -> Fields:
    """A stick body that keeps every rule of the format: a vertex at each joint of a person, and a few between them."""
    rng = np.random.default_rng(seed)
    joints_m = _joints_m()
    share = rng.random((count - 24, 1))
    between = share * joints_m[rng.integers(0, 24, count - 24)] + (1 - share) * joints_m[: count - 24]
    regressor = np.concatenate(
        [0.97 * np.eye(24) + 0.03 * rng.dirichlet(np.ones(24), 24), np.zeros((24, count - 24))], 1
    )
    parents = np.array(SMPL24.parents) % 2**32
    return {
        "v_template": np.concatenate([joints_m, between]),
        "shapedirs": rng.normal(size=(count, 3, 12)) * 0.01,
        "posedirs": rng.normal(size=(count, 3, 207)) * 0.01,
        "J_regressor": regressor,
        "weights": rng.dirichlet(np.ones(24), count),
        "kintree_table": np.stack([parents, np.arange(24)]).astype(np.uint32),
        "f": rng.integers(0, count, (50, 3)).astype(np.uint32),
    }


def _npz(path: Path, fields: Fields) -> Path:
    np.savez(path, **fields)  # type: ignore[arg-type]
    return path


def _full() -> Fields:
    """The shipped body as a user's file: in float64, with no regressor but SMPL's own."""
    keep = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
    fields = smpl_fields(load_body_file())
    return {name: fields[name].astype(np.float64) if fields[name].dtype.kind == "f" else fields[name] for name in keep}


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's file with SMPL's 6,890 vertices."""
    return _npz(tmp_path_factory.mktemp("official") / "basicModel_f_lbs_10_207_0_v1.0.0.npz", _full())


def test_shipped_body_keeps_its_promises() -> None:
    body = load_body_file()
    assert body.v_template.shape == (6890, 3)
    assert body.shapedirs.shape[2] >= 10
    assert body.v_template.dtype == np.float32
    assert set(body.regressors) == {skeleton.name for skeleton in REGRESSED}
    assert (body.gender, body.composed, body.notes) == ("neutral", (), ())
    assert json.loads(body.path.with_suffix(".json").read_text())["sha256"] == body.sha256
    joints = body.joint_regressor @ body.v_template
    assert joints[SMPL24.index("left_wrist"), 0] > 0.4 > -0.4 > joints[SMPL24.index("right_wrist"), 0]
    assert joints[SMPL24.index("head"), 1] > joints[SMPL24.index("left_ankle"), 1] + 1
    assert body.v_template[:, 2].max() > -body.v_template[:, 2].min()


def test_mirror_of_the_shipped_body_is_its_mirror_image() -> None:
    body = load_body_file()
    assert body.mirror is not None
    np.testing.assert_array_equal(body.mirror[body.mirror], np.arange(len(body.mirror)))
    np.testing.assert_allclose(body.v_template[body.mirror] * [-1, 1, 1], body.v_template, atol=1e-6)
    assert body.parts is not None
    np.testing.assert_array_equal(np.array(SMPL24.mirror)[body.parts[body.mirror]], body.parts)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_body_written_under_smpls_names_is_read_back(tmp_path: Path, dtype: type) -> None:
    small = {name: array.astype(dtype) if array.dtype.kind == "f" else array for name, array in _small().items()}
    body = load_body_file(_npz(tmp_path / "small.npz", small))
    again = load_body_file(_npz(tmp_path / "again.npz", smpl_fields(body)))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(again, name), getattr(body, name))
    assert again.v_template.dtype == dtype
    np.testing.assert_array_equal(body.joint_regressor, small["J_regressor"])
    np.testing.assert_array_equal(body.faces, small["f"])


def test_the_pickle_gives_the_same_body(tmp_path: Path) -> None:
    small = _small()
    (tmp_path / "small.pkl").write_bytes(pickle.dumps(small, 2))
    one, other = load_body_file(tmp_path / "small.pkl"), load_body_file(_npz(tmp_path / "small.npz", small))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    (tmp_path / "more.pkl").write_bytes(pickle.dumps(small | {"gender": "female", "vt": None, "ft": None}, 2))
    more = load_body_file(tmp_path / "more.pkl")
    assert (more.gender, more.uv, one.gender) == ("female", None, "neutral")


@pytest.mark.parametrize(("stored", "read"), [(10, 10), (16, 16), (300, 300), (320, 300)])
def test_betas_are_kept_up_to_300(tmp_path: Path, stored: int, read: int) -> None:
    directions = 0.01 * np.random.default_rng(0).normal(size=(30, 3, stored))
    body = load_body_file(_npz(tmp_path / "betas.npz", _small() | {"shapedirs": directions}))
    np.testing.assert_array_equal(body.shapedirs, directions[..., :read])


@pytest.mark.parametrize(
    ("stem", "gender"),
    [
        ("basicModel_f_lbs_10_207_0_v1.0.0", "female"),
        ("basicmodel_m_lbs_10_207_0_v1.1.0", "male"),
        ("basicmodel_neutral_lbs_10_207_0_v1.1.0", "neutral"),
        ("SMPL_FEMALE", "female"),
        ("SMPL_MALE", "male"),
        ("emma", "neutral"),
    ],
)
def test_gender_is_read_from_the_usual_names(tmp_path: Path, stem: str, gender: str) -> None:
    assert load_body_file(_npz(tmp_path / f"{stem}.npz", _small())).gender == gender


def _nan(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.ravel()[3] = np.nan
    return array


def _turned(*columns: int) -> Callable[[np.ndarray], np.ndarray]:
    """The template with other axes: each column is an old one, counted from 1 and with its sign."""
    return lambda array: np.stack([np.sign(c) * array[:, abs(c) - 1] for c in columns], axis=1)


def _with(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """The rows with one weight moved from one joint to the next."""

    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[7, :2] = [value, array[7, :2].sum() - value]
        return array

    return change


def _other_tree(table: np.ndarray) -> np.ndarray:
    table = table.copy()
    table[0, SMPL24.index("left_knee")] = SMPL24.index("right_hip")
    return table


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("posedirs", None, "posedirs is missing; SMPL has .*this file has v_template"),
        ("f", None, "f is missing"),
        ("v_template", np.transpose, "v_template has the shape"),
        ("v_template", lambda a: a * 1000, "spans 1543; a body in metres spans 0.5 to 3"),
        ("v_template", lambda a: a * 2, "a body in metres spans"),
        ("v_template", lambda a: a / 4, "a body in metres spans"),
        ("v_template", lambda a: a[:0], "metres"),
        ("v_template", _turned(1, -3, 2), "y is not up: the head lies at y = -0.06.*SMPL's frame"),
        ("v_template", _turned(1, 3, -2), "y is not up"),
        ("v_template", _turned(-1, -2, 3), "y is not up"),
        ("v_template", _turned(2, 1, 3), "y is not up"),
        ("v_template", _turned(-1, 2, -3), "the left hip lies at x = -0.11, the right at 0.11; SMPL's frame"),
        ("v_template", _turned(-1, 2, 3), "the left hip lies"),
        ("v_template", _turned(1, 2, -3), "the toes lie at z = -0.16, behind the ankles at -0.02; SMPL's frame"),
        ("weights", np.transpose, r"weights has the shape \(24, 30\), SMPL wants \(30, 24\)"),
        ("weights", lambda a: a * 0.9, "a row of weights sums to 0.900"),
        ("weights", _with(-0.01), "weights go down to -0.01"),
        ("J_regressor", lambda a: a * 0, "a row of J_regressor sums to 0.000"),
        ("J_regressor", np.transpose, "J_regressor has the shape"),
        ("J_regressor", lambda a: a * 1.1, "a row of J_regressor sums to 1.100"),
        ("shapedirs", lambda a: a[..., :9], "shapedirs has 9 betas"),
        ("shapedirs", lambda a: a * 1000, "half of shapedirs is above .* a unit of beta; SMPL's frame has metres"),
        ("posedirs", lambda a: a * 1000, "posedirs reaches .* a unit of R - I; SMPL's frame has metres"),
        ("shapedirs", _nan, "shapedirs has 1 values that are NaN"),
        ("posedirs", _nan, "posedirs has 1 values that are NaN"),
        ("posedirs", lambda a: a[..., :200], "posedirs has the shape"),
        ("posedirs", lambda a: a.astype(int), "posedirs holds int64"),
        ("kintree_table", _other_tree, "another tree than SMPL's"),
        ("kintree_table", _other_tree, "the parent of left_knee is joint 2, SMPL's is 1[.]$"),
        ("kintree_table", lambda a: a[:, ::-1], "another tree than SMPL's: its joint 0 is number 23"),
        ("kintree_table", lambda a: a.astype(str), "kintree_table holds <U10"),
        ("kintree_table", lambda a: np.where(a == 3, np.nan, a), "kintree_table holds float64 or NaN"),
        ("f", lambda a: a[:0], "f is empty"),
        ("f", lambda a: a + 20, "f counts from .* allowed is 0 to 29"),
        ("f", lambda a: a.astype(float), "f holds float64"),
        ("J_regressor", lambda a: np.array(a, dtype=object), "J_regressor of .* holds Python objects.*plain array"),
    ],
)
def test_every_wrong_field_is_named(
    tmp_path: Path, name: str, change: Callable[[np.ndarray], np.ndarray] | None, sentence: str
) -> None:
    fields = _small()
    fields = fields | {name: change(fields[name])} if change else {k: v for k, v in fields.items() if k != name}
    with pytest.raises(MeshrecError, match=sentence):
        load_body_file(_npz(tmp_path / "wrong.npz", fields))


def test_a_mirror_that_is_none_is_refused(tmp_path: Path) -> None:
    assert load_body_file(_npz(tmp_path / "good.npz", _small() | {"mirror": np.arange(30)[::-1]})).mirror is not None
    with pytest.raises(MeshrecError, match="mirror is no mirror"):
        load_body_file(_npz(tmp_path / "wrong.npz", _small() | {"mirror": np.roll(np.arange(30), 1)}))


@pytest.mark.parametrize(("stored", "read"), [("f2", "f4"), (">f4", "f4"), (">f8", "f8"), ("g", "f8")])
def test_floating_point_of_any_kind_is_read_as_one_of_two(tmp_path: Path, stored: str, read: str) -> None:
    small = {name: array.astype(stored) if array.dtype.kind == "f" else array for name, array in _small().items()}
    texture = {"vt": np.zeros((3, 2), stored), "ft": np.zeros((50, 3), int)}
    body = load_body_file(_npz(tmp_path / "small.npz", small | texture))
    for array in (body.v_template, body.shapedirs, body.posedirs, body.weights, body.joint_regressor, body.uv):
        assert array is not None and array.dtype == np.dtype(read) and array.dtype.isnative


def test_real_numbers_for_the_tree_and_small_rounding_are_forgiven(tmp_path: Path) -> None:
    small = _small()
    table = small["kintree_table"].astype(np.float64)
    table[0, 0] = -1
    body = load_body_file(
        _npz(tmp_path / "small.npz", small | {"kintree_table": table, "weights": _with(-1e-5)(small["weights"])})
    )
    assert body.weights.min() < 0


@pytest.mark.parametrize(("joints", "family"), [(52, "SMPL-H"), (55, "SMPL-X"), (16, "MANO")])
@pytest.mark.parametrize("field", ["weights", "posedirs"])
def test_other_families_are_recognised(tmp_path: Path, joints: int, family: str, field: str) -> None:
    fields = _small() | {"weights": np.ones((30, joints)), "posedirs": np.ones((30, 3, 9 * (joints - 1)))}
    del fields["posedirs" if field == "weights" else "weights"]
    with pytest.raises(MeshrecError, match=f"{family}.*{joints} joints.*basicmodel_neutral"):
        load_body_file(_npz(tmp_path / "other.npz", fields))


def test_truncated_and_foreign_files_get_a_sentence(tmp_path: Path) -> None:
    whole = _npz(tmp_path / "whole.npz", _small()).read_bytes()
    path = tmp_path / "broken.npz"
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    for content in (b"", b"hello", whole[:100], whole[: len(whole) // 2], whole[:-30], bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(MeshrecError, match=r"broken\.npz"):
            load_body_file(path)
    with pytest.raises(MeshrecError, match=r"neither \.npz nor \.pkl"):
        (tmp_path / "body.obj").touch()
        load_body_file(tmp_path / "body.obj")
    with pytest.raises(MeshrecError, match=r"There is no file .*absent\.npz"):
        load_body_file(tmp_path / "absent.npz")
    with pytest.raises(MeshrecError, match=r"is a folder; give one of its files: broken\.npz"):
        load_body_file(tmp_path)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshrec.arrays.MAX_BYTES", 1000)
    with pytest.raises(MeshrecError, match="unpacks to"):
        load_body_file(_npz(tmp_path / "bomb.npz", _small()))


def test_the_users_body_hides_the_shipped_one(data: Path, tmp_path: Path) -> None:
    shipped = load_body_file("neutral")
    add_asset(_npz(tmp_path / "mine.npz", _small()), name="neutral")
    mine = load_body_file("neutral")
    assert mine.path == data / "bodies" / "neutral.npz" != shipped.path
    assert len(mine.v_template) == 30
    assert [(report.name, report.owner) for report in list_assets()] == [("neutral", "yours")]


def test_an_unknown_name_lists_what_there_is(data: Path) -> None:
    with pytest.raises(MeshrecError, match=f"no body named 'nobody'; there is neutral. Looked in {data}/bodies and "):
        load_body_file("nobody")


def test_data_directory_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MESHREC_DATA")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert data_directory() == tmp_path / "meshrec"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_directory() == tmp_path / ".local" / "share" / "meshrec"


def test_added_body_is_the_file_in_full_and_says_whose_licence_holds(tmp_path: Path, official: Path) -> None:
    path = add_asset(official)
    assert path.name == "smpl_female.npz"
    body = load_body_file("smpl_female")
    for name, array in _full().items():
        if array.dtype.kind == "f":
            attribute = "joint_regressor" if name == "J_regressor" else name
            np.testing.assert_array_equal(getattr(body, attribute), array)
            assert getattr(body, attribute).dtype == np.float64
    assert body.gender == "female"
    assert "licence" in body.notes[0]
    assert sum("h36m17 joints are composed" in note for note in body.notes) == 1


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "a b", "foo.npz", "foo.pkl", "foo.PKL"])
def test_names_of_bodies_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(MeshrecError, match="is no name for a body"):
        add_asset(_npz(tmp_path / "mine.npz", _small()), name=name)


def test_half_written_files_are_not_listed(data: Path, tmp_path: Path) -> None:
    path = add_asset(_npz(tmp_path / "mine.npz", _small()), name="v1.0")
    path.with_name(".v2.0-abc.npz").write_bytes(b"half")
    assert [(report.name, report.problem) for report in list_assets()] == [("v1.0", ""), ("neutral", "")]


@pytest.mark.parametrize("skeleton", REGRESSED, ids=lambda skeleton: skeleton.name)
def test_composed_joints_lie_where_the_fitted_ones_do(official: Path, skeleton: Skeleton) -> None:
    body, shipped = load_body_file(official), load_body_file()
    assert skeleton.name in body.composed
    composed = body.regressors[skeleton.name] @ body.v_template
    fitted = shipped.regressors[skeleton.name] @ shipped.v_template
    distance = dict(zip(skeleton.joints, np.linalg.norm(composed - fitted, axis=1), strict=True))
    assert {joint: far for joint, far in distance.items() if far > 0.03} == {}


@pytest.mark.parametrize("skeleton", REGRESSED, ids=lambda skeleton: skeleton.name)
def test_composed_joints_move_with_the_body_and_mirror_with_it(official: Path, skeleton: Skeleton) -> None:
    body = load_body_file(official)
    rows = body.regressors[skeleton.name]
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-6)
    joints = rows @ body.v_template
    away = dict(zip(skeleton.joints, np.abs(joints[list(skeleton.mirror)] * [-1, 1, 1] - joints).max(1), strict=True))
    assert max(away.values()) < 1e-5


def test_other_vertex_counts_have_no_composed_joints(tmp_path: Path) -> None:
    body = load_body_file(_npz(tmp_path / "small.npz", _small()))
    assert (dict(body.regressors), body.composed) == ({}, ())
    assert sum("6,890" in note for note in body.notes) == len(REGRESSED)
    assert compose(H36M17, body.joint_regressor) is None


def _swapped(one: str, other: str) -> Callable[[np.ndarray], np.ndarray]:
    """Human3.6M's rows with two of them exchanged."""
    order = [{one: other, other: one}.get(joint, joint) for joint in H36M17.joints]
    return lambda rows: rows[H36M17.indices(*order)]


def _save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


@pytest.mark.parametrize("skeleton", [H36M17, COCO17], ids=lambda skeleton: skeleton.name)
def test_companions_are_used_as_published_and_stay_with_the_body(
    tmp_path: Path, official: Path, skeleton: Skeleton
) -> None:
    published = load_body_file().regressors[skeleton.name].astype(np.float64)
    companion = {skeleton.name: _save(tmp_path / "J_regressor.npy", published)}
    add_asset(official, companion, "mine")
    body = load_body_file("mine")
    np.testing.assert_array_equal(body.regressors[skeleton.name], published)
    assert skeleton.name not in body.composed
    assert not any(note.startswith(skeleton.name) for note in body.notes)


def _left_first() -> np.ndarray:
    """Human3.6M's regressor with the left leg before the right one."""
    rows = load_body_file(BODIES / "neutral.npz").regressors["h36m17"].astype(np.float64)
    legs = [f"{side}_{joint}" for side in ("left", "right") for joint in ("hip", "knee", "ankle")]
    rows[H36M17.indices(*legs)] = rows[H36M17.indices(*legs[3:], *legs[:3])]
    return rows


def test_legs_in_the_other_published_order_are_put_right_and_it_stays_said(tmp_path: Path, official: Path) -> None:
    companion = {"h36m17": _save(tmp_path / "J_regressor_h36m.npy", _left_first())}
    add_asset(official, companion, "mine")
    for body in (load_body_file(official, companion), load_body_file("mine")):
        np.testing.assert_array_equal(body.regressors["h36m17"], load_body_file().regressors["h36m17"])
        assert sum("J_regressor_h36m.npy names some left joints right; they were put" in n for n in body.notes) == 1
    add_asset(data_directory() / "bodies" / "mine.npz", name="again")
    again = load_body_file("again")
    assert sum("names some left joints right" in note for note in again.notes) == 1
    assert sum("coco17 joints are composed" in note for note in again.notes) == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: rows[::-1], "lands .* from the body's own. Its rows must be in the order of h36m17"),
        (_swapped("spine", "thorax"), "its row for thorax lands below that for spine. Its rows must be in the order"),
        (_swapped("face", "thorax"), "its row for face lands below that for thorax"),
        (_swapped("face", "head_top"), "its row for head_top lands below that for face"),
        (_swapped("pelvis", "spine"), "its row for spine lands below that for pelvis"),
        (lambda rows: rows * 0.9, "a row sums to 0.900; every row of a joint regressor must sum to 1"),
        (lambda rows: rows * 0, "a row sums to 0.000"),
        (lambda rows: rows[:14], r"holds float64 of \(14, 6890\)"),
        (np.transpose, r"of \(6890, 17\)"),
        (lambda rows: rows * np.nan, "NaN"),
        (lambda rows: np.array([None]), "wrong.npy holds Python objects"),
        (lambda rows: (rows > 0).astype(int), "holds int64"),
    ],
)
def test_wrong_companions_get_a_sentence(
    tmp_path: Path, official: Path, change: Callable[[np.ndarray], np.ndarray], sentence: str
) -> None:
    rows = load_body_file().regressors["h36m17"].astype(np.float64)
    with pytest.raises(MeshrecError, match=sentence):
        add_asset(official, {"h36m17": _save(tmp_path / "wrong.npy", change(rows))})
    with pytest.raises(MeshrecError, match="Cannot read"):
        load_body_file(official, {"h36m17": tmp_path / "absent.npy"})


def test_reports_name_the_good_and_the_bad(tmp_path: Path) -> None:
    good, bad = _npz(tmp_path / "good.npz", _small()), tmp_path / "bad.npz"
    bad.write_bytes(b"bad")
    report = check_asset(good)
    assert (report.problem, report.vertices, report.betas, len(report.sha256)) == ("", 30, 12, 64)
    assert "bad.npz" in check_asset(bad).problem


def test_priors_are_found_by_name_and_by_path(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("meshrec.assets.SHIPPED", tmp_path / "shipped")
    for folder in (data, tmp_path / "shipped"):
        (folder / "weights").mkdir(parents=True)
    shipped = tmp_path / "shipped" / "weights" / "prior_mixture.safetensors"
    shipped.touch()
    assert find_prior("mixture") == shipped
    assert find_prior(shipped) == find_prior(str(shipped)) == shipped
    mine = data / "weights" / "prior_mixture.safetensors"
    mine.touch()
    assert find_prior("mixture") == mine
    with pytest.raises(
        MeshrecError, match=r"no prior named 'flow'; there is mixture.*fit_priors\.py, or .* a \.safetensors file"
    ):
        find_prior("flow")


def _meshrec_assets(*arguments: str) -> int:
    return tyro.cli(command, args=arguments)


def test_the_verb_lists_checks_and_adds(tmp_path: Path, official: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _meshrec_assets("list", "--json") == 0
    (shipped,) = json.loads(capsys.readouterr().out)
    assert (shipped["name"], shipped["owner"], shipped["vertices"]) == ("neutral", "shipped", 6890)
    companion = _save(tmp_path / "h36m.npy", load_body_file().regressors["h36m17"])
    assert _meshrec_assets("add", str(official), "--name", "mine", "--h36m", str(companion)) == 0
    assert "mine" in capsys.readouterr().out
    assert load_body_file("mine").composed == ("coco17", "mediapipe33")
    bad = tmp_path / "bad.pkl"
    bad.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert _meshrec_assets("check", str(official), str(bad), "--json") == 1
    first, second = json.loads(capsys.readouterr().out)
    assert first["problem"] == ""
    assert "os.system" in second["problem"]
    assert _meshrec_assets("check", str(official)) == 0
    assert _meshrec_assets("list") == 0
    assert "composed" in capsys.readouterr().out


def test_the_table_cuts_no_name(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    name = "a_name_" * 6 + "end"
    assert _meshrec_assets("add", str(_npz(tmp_path / "small.npz", _small())), "--name", name) == 0
    rows = [line.split("│")[1:3] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert "".join(first.strip() for first, _ in rows) == name


def _posed(model: Any) -> np.ndarray:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    betas, pose, root = (torch.randn(2, size, generator=generator).double() * 0.3 for size in (10, 69, 3))
    return model(betas=betas, body_pose=pose, global_orient=root).vertices.detach().numpy()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_our_files_load_in_smplx(tmp_path: Path, official: Path) -> None:
    smplx, torch = pytest.importorskip("smplx"), pytest.importorskip("torch")
    body = load_body_file(official)
    assert _meshrec_assets("export", str(official), str(tmp_path / "SMPL_NEUTRAL.pkl")) == 0
    structs = [
        smplx.utils.Struct(**smpl_fields(body)),
        smplx.utils.Struct(**np.load(add_asset(official))),
        smplx.utils.Struct(**np.load(load_body_file().path)),
    ]
    settings: dict[str, Any] = {"dtype": torch.float64, "batch_size": 2}
    models = [smplx.SMPL(model_path="", data_struct=struct, **settings) for struct in structs]
    models.append(smplx.SMPL(str(tmp_path / "SMPL_NEUTRAL.pkl"), **settings))
    models.append(smplx.SMPL(str(tmp_path), **settings))
    vertices = [_posed(model) for model in models]
    for others in vertices[1:]:
        np.testing.assert_allclose(others, vertices[0], atol=1e-10)
    at_rest = models[0]()
    np.testing.assert_allclose(at_rest.vertices[0].detach(), body.v_template, atol=1e-10)
    joints = body.joint_regressor @ body.v_template
    np.testing.assert_allclose(at_rest.joints[0, : len(SMPL24)].detach(), joints, atol=1e-10)


def test_an_exported_pickle_is_read_back_in_full(tmp_path: Path) -> None:
    body = load_body_file()
    again = load_body_file(export_pickle(body, tmp_path / "SMPL_NEUTRAL.pkl"))
    for field in fields_of(BodyFile):
        one, other = getattr(body, field.name), getattr(again, field.name)
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other)
    assert set(again.regressors) == set(body.regressors)
    assert again.composed == ()
    female = replace(body, gender="female")
    assert load_body_file(export_pickle(female, tmp_path / "exported.pkl")).gender == "female"
