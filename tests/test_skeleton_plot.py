"""Pictures of skeletons: each joint in its place, both sides in their colours, equal scale in every view."""

import builtins
import math

import numpy as np
import pytest

from meshrec import skeleton_page
from meshrec.errors import MeshrecError
from meshrec.skeleton_plot import (
    GROUND,
    PANEL_PX,
    SIDE_COLORS,
    SIDE_RAD,
    LiftFigure,
    draw_skeleton,
    frame_of,
    lift_picture,
    pose_strip,
    pose_views,
    side_of,
    skeletons_over,
    turned,
)
from meshrec.skeletons import H36M17


def pose(scale: float = 1.0) -> np.ndarray:
    """One who stands and faces the camera: y down, left on the right of the picture."""
    places = {"pelvis": (0, 0), "hip": (0.1, 0), "knee": (0.11, 0.45), "ankle": (0.12, 0.88), "spine": (0, -0.25)}
    places |= {"thorax": (0, -0.5), "face": (0, -0.6), "head_top": (0, -0.75), "shoulder": (0.18, -0.48)}
    places |= {"elbow": (0.3, -0.22), "wrist": (0.35, 0.05)}
    rows = []
    for joint in H36M17.joints:
        side, _, rest = joint.partition("_") if joint.startswith(("left_", "right_")) else ("", "", joint)
        x, y = places[rest]
        rows.append((x if side == "left" else -x, y, -0.1 if rest == "wrist" else 0.0))
    return scale * np.array(rows)


def figure(**changes) -> LiftFigure:
    seen = np.ones(17, dtype=bool)
    fields = {"title": "a", "joints": pose(), "seen": seen, "unit": "m", "xy_px": pose()[:, :2] * 200 + [320, 240]}
    return LiftFigure(**(fields | changes))


def inked(pixels: np.ndarray, color: tuple[int, int, int], tolerance: int = 12) -> np.ndarray:
    """Rows and columns of the pixels of a colour."""
    return np.argwhere(np.abs(pixels.astype(int) - color).max(axis=-1) <= tolerance)


def test_left_is_orange_and_stands_on_the_right_of_who_faces_the_camera() -> None:
    front, _ = pose_views(figure())
    left, right = (inked(front, SIDE_COLORS[side])[:, 1].mean() for side in ("left", "right"))
    assert left > PANEL_PX[0] / 2 > right
    mirrored, _ = pose_views(figure(joints=pose() * [-1, 1, 1]))
    assert inked(mirrored, SIDE_COLORS["left"])[:, 1].mean() < PANEL_PX[0] / 2


def test_every_bone_has_the_colour_of_its_side() -> None:
    for bone in H36M17.bones:
        name = H36M17.joints[bone[1]]
        assert side_of(bone) == (name.split("_")[0] if name.startswith(("left_", "right_")) else "middle")


def test_one_who_faces_the_camera_looks_left_in_the_side_view() -> None:
    forwards = turned(np.array([[0.0, 0.0, -1.0]]), SIDE_RAD)[0]
    assert forwards[0] == pytest.approx(-1)
    assert turned(np.array([[0.0, 0.0, 1.0]]), 0.0)[0, 1] < 0, "what is farther away stands higher"
    assert turned(np.array([[0.0, 1.0, 0.0]]), SIDE_RAD)[0, 1] > 0.9, "down stays down"
    places = np.random.default_rng(0).standard_normal((5, 3))
    np.testing.assert_allclose(np.linalg.norm(turned(places, 0.7), axis=1), np.linalg.norm(places, axis=1))


def test_both_views_have_one_scale() -> None:
    heights = []
    for view in pose_views(figure()):
        rows = np.concatenate([inked(view, SIDE_COLORS["left"]), inked(view, SIDE_COLORS["middle"])])[:, 0]
        heights.append(rows.max() - rows.min())
    assert heights[0] == pytest.approx(heights[1], rel=0.05)


def test_size_does_not_change_how_a_pose_fills_its_view() -> None:
    small, large = (inked(pose_views(figure(joints=pose(s)))[0], SIDE_COLORS["left"]) for s in (0.5, 2.0))
    np.testing.assert_allclose(np.ptp(small, axis=0), np.ptp(large, axis=0), atol=3)


def test_a_joint_is_drawn_where_it_is() -> None:
    pixels = np.full((480, 640, 3), 255, np.uint8)
    xy_px = pose()[:, :2] * 200 + [320.5, 240.5]
    draw_skeleton(pixels, xy_px, np.ones(17, dtype=bool))
    x, y = np.floor(xy_px[H36M17.index("left_wrist")]).astype(int)
    assert tuple(pixels[y, x]) == SIDE_COLORS["left"]
    assert (pixels[5, 5] == 255).all()


def test_what_was_not_seen_is_hollow_dashed_or_left_out() -> None:
    seen, wrist = np.ones(17, dtype=bool), H36M17.index("left_wrist")
    seen[wrist] = False
    pictures = []
    for only_seen in (False, True):
        pixels = np.full((480, 640, 3), 240, np.uint8)
        xy_px = pose()[:, :2] * 200 + [320.5, 240.5]
        draw_skeleton(pixels, xy_px, seen, only_seen=only_seen)
        x, y = np.floor(xy_px[wrist]).astype(int)
        pictures.append((pixels[y, x], pixels[y - 12 : y + 12, x - 12 : x + 12]))
    (middle, around), (nothing, empty) = pictures
    assert (middle == 255).all() and len(inked(around, SIDE_COLORS["left"]))
    assert (nothing == 240).all() and not len(inked(empty, SIDE_COLORS["left"]))


def test_of_two_bones_that_cross_the_nearer_one_is_seen() -> None:
    xy_px, depth = np.full((17, 2), 10.5), np.zeros(17)
    for side, x in (("left", 100.5), ("right", 200.5)):
        elbow, wrist = H36M17.indices(f"{side}_elbow", f"{side}_wrist")
        xy_px[elbow], xy_px[wrist] = (x, 100.5), (300.5 - x + 0.5, 200.5)
    for nearer, farther in (("left", "right"), ("right", "left")):
        depth[H36M17.indices(f"{nearer}_elbow", f"{nearer}_wrist")] = 1.0
        depth[H36M17.indices(f"{farther}_elbow", f"{farther}_wrist")] = 2.0
        pixels = np.full((300, 300, 3), 255, np.uint8)
        draw_skeleton(pixels, xy_px, np.ones(17, dtype=bool), depth, width_px=8.0)
        assert tuple(pixels[150, 150]) == SIDE_COLORS[nearer]


def test_the_view_from_the_side_alone_says_where_the_camera_is() -> None:
    front, side = (view[:40, : PANEL_PX[0] // 3] for view in pose_views(figure()))
    assert (front == GROUND).all() and (side != GROUND).any()


def test_a_place_that_is_none_is_not_drawn() -> None:
    xy_px = pose()[:, :2] * 200 + [320, 240]
    seen = np.ones(17, dtype=bool)
    seen[0], xy_px[0] = False, np.nan
    assert lift_picture(figure(xy_px=xy_px, seen=seen)).dtype == np.uint8
    draw_skeleton(np.zeros((50, 50, 3), np.uint8), np.full((17, 2), 1e9), seen)


def test_the_photograph_lies_under_the_joints() -> None:
    photo = np.zeros((480, 640, 3), np.uint8)
    photo[:, :320] = (0, 200, 0)
    picture = lift_picture(figure(pixels=photo))
    panel = picture[-PANEL_PX[1] - 50 : -50, 18 : 18 + PANEL_PX[0]]
    green, black = (inked(panel, color)[:, 1].mean() for color in ((0, 200, 0), (0, 0, 0)))
    assert green < PANEL_PX[0] / 2 < black, "left of the photograph is left in the picture"
    low, high = frame_of(figure(pixels=photo))
    joints = figure().xy_px
    assert (low < joints.min(axis=0)).all() and (high > joints.max(axis=0)).all()
    assert (high - low)[0] / (high - low)[1] == pytest.approx(PANEL_PX[0] / PANEL_PX[1])


def test_a_photograph_that_ends_beside_the_person_is_no_failure() -> None:
    for size in ((40, 40, 3), (480, 330, 3)):
        assert lift_picture(figure(pixels=np.zeros(size, np.uint8))).std() > 0


def test_hypotheses_are_paler_than_the_pose() -> None:
    moved = pose()[None] + np.array([0.3, 0.0, 0.0])
    plain, drawn = (pose_views(figure(hypotheses=h, joints=pose()))[0] for h in (moved[:0], moved))
    assert len(inked(drawn, SIDE_COLORS["left"])) <= len(inked(plain, SIDE_COLORS["left"]))
    pale = tuple(round(0.3 * c + 0.7 * g) for c, g in zip(SIDE_COLORS["left"], GROUND, strict=True))
    assert len(inked(drawn, pale)) > 5 * max(1, len(inked(plain, pale)))


def test_people_over_a_photograph_nearest_last() -> None:
    photo = np.full((480, 640, 3), 200, np.uint8)
    xy_px, seen = pose()[:, :2] * 200 + [320, 240], np.ones(17, dtype=bool)
    people = [(xy_px, seen, np.full(17, depth)) for depth in (2.0, 5.0)]
    people[1] = (xy_px * [-1, 1] + [640, 0], seen, people[1][2])
    picture = skeletons_over(photo, people)
    assert (photo == 200).all()
    assert np.array_equal(picture, skeletons_over(photo, people[::-1]))
    x, y = np.floor(xy_px[H36M17.index("left_wrist")]).astype(int)
    assert tuple(picture[y, x]) == SIDE_COLORS["left"], "the nearer one hides the other"


def test_a_strip_has_a_column_for_each_pose() -> None:
    assert pose_strip([figure(title=f"{k}") for k in range(3)]).shape[1] == 3 * PANEL_PX[0]
    assert pose_strip([figure()], math.pi / 2).shape[1] == PANEL_PX[0]


def test_on_the_page_up_is_up() -> None:
    np.testing.assert_array_equal(skeleton_page._upright(np.array([1.0, 2.0, 3.0])), [1, 3, -2])
    ranges = skeleton_page._input_ranges(figure())
    (left, right), (bottom, top) = ranges["xaxis.range"], ranges["yaxis.range"]
    assert left < right and bottom > top, "an image's rows go down"


def test_the_page_holds_everybody_and_escapes_names() -> None:
    pytest.importorskip("plotly")
    seen = np.ones(17, dtype=bool)
    seen[3] = False
    photo = np.full((480, 640, 3), 90, np.uint8)
    figures = [figure(title="<b>one</b>", pixels=photo), figure(title="two", seen=seen, hypotheses=pose()[None])]
    page = skeleton_page.lift_page(figures, "title")
    assert "two" in page and "left_knee" in page and "right_ankle (not seen)" in page
    assert "<b>one</b>" not in page
    assert ";base64," in page, "the photograph's part"
    assert "sliders" in skeleton_page.way_page(figures, "way")


def test_without_plotly_there_is_advice(monkeypatch) -> None:
    imported = builtins.__import__

    def refuse(name, *rest, **more):
        if name.partition(".")[0] == "plotly":
            raise ImportError(name)
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MeshrecError, match=r'pip install "meshrec\[plot\]"'):
        skeleton_page.lift_page([figure()], "title")
