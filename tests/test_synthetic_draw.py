"""Pictures of scenes: the truth projects where the picture shows it, at any resolution and any turn of the square."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
import roma
import torch

from meshrec.body import load_body_model
from meshrec.camera import camera_from_body_axes, project
from meshrec.data.body_joints import BODY58, body_joints
from meshrec.data.crop import square_of
from meshrec.data.synthetic.draw import NOBODY, THING, draw, maps, pictures
from meshrec.data.synthetic.looks import REGIONS, light_of
from meshrec.data.synthetic.occluders import Thing
from meshrec.data.synthetic.people import box_of, seen
from meshrec.data.synthetic.scene import BEFORE, TOUCHING, Scene, Synthesizer
from meshrec.data.synthetic.settings import SyntheticConfig
from meshrec.data.synthetic.visibility import first_hits
from meshrec.randomness import generator_of
from meshrec.skeletons import SMPL24
from meshrec.types import BodyParams, Square, stack

SHARP = SyntheticConfig(
    prior="gaussian", softness_px=(0.0, 0.0), grain=(0.0, 0.0), contrast=(1.0, 1.0), cloth_m=0.0, temperature=0.7
)
ALONE = replace(SHARP, others=0.0, occlude=0.0)
CROWD = replace(SHARP, others=1.0, occlude=0.0)
MODEL = load_body_model()
MAKERS = {config: Synthesizer(config, MODEL) for config in (ALONE, CROWD)}
SURFACE = MAKERS[ALONE].surface


@dataclass(frozen=True)
class Plain:
    """A ground of one grey."""

    grey: int

    def seen(self, square: Square, size_px: int) -> np.ndarray:
        """The same everywhere."""
        return np.full((size_px, size_px, 3), self.grey, np.uint8)


def scenes_of(config: SyntheticConfig, number: int, seed: int = 0) -> list[Scene]:
    return MAKERS[config].scenes([generator_of(seed, "test", place) for place in range(number)])


def squares_of(scenes: list[Scene], angle_rad: float = 0.0) -> Square:
    square = stack([square_of(box_of(scene)) for scene in scenes])
    return replace(square, angle_rad=torch.full_like(square.side_px, angle_rad))


def differ(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one != other).double().mean())


def test_a_silhouette_is_where_the_vertices_project():
    scenes = scenes_of(ALONE, 6)
    square, size_px = squares_of(scenes, 0.3), 128
    person = maps(scenes, square, size_px, SURFACE).person
    for row, scene in enumerate(scenes):
        photo_px = project(scene.vertices_m[0], scene.camera)
        inside = ((photo_px >= 0) & (photo_px < torch.tensor(scene.photo_px))).all(-1)
        spots = square[row].into(photo_px, size_px)[inside].floor().long()
        spots = spots[((spots >= 0) & (spots < size_px)).all(-1)]
        mask = (person[row] == 0).numpy().astype(np.uint8)
        near = torch.from_numpy(cv2.dilate(mask, np.ones((3, 3))))
        assert near[spots[:, 1], spots[:, 0]].float().mean() > 0.995
        dots = torch.zeros(size_px, size_px, dtype=torch.uint8)
        dots[spots[:, 1], spots[:, 0]] = 1
        around = cv2.dilate(dots.numpy(), np.ones((13, 13)))
        assert mask[around == 0].sum() <= 0.02 * mask.sum(), "and nowhere else"


def test_the_picture_shows_the_body_where_the_maps_have_it():
    scenes = scenes_of(ALONE, 6)
    square, size_px = squares_of(scenes, -0.2), 96
    shown = [
        pictures([replace(scene, ground=Plain(grey)) for scene in scenes], square, size_px, SURFACE).float()
        for grey in (0, 255)
    ]
    gain = stack([scene.sensor for scene in scenes]).gain[..., None, None]
    coverage = (1 - (shown[1] - shown[0]) / (255 * gain)).mean(1)
    found = maps(scenes, square, size_px, SURFACE)
    inside = torch.stack([_inside(scene, square[row], size_px) for row, scene in enumerate(scenes)])
    sure = inside & ((coverage < 0.02) | (coverage > 0.98))
    assert differ((coverage > 0.5)[sure], (found.person == 0)[sure]) < 0.002
    assert float(sure.float().mean()) > 0.6
    assert torch.equal(found.parts > 0, found.person == 0)
    assert torch.equal(found.depth_m.isfinite(), found.person >= 0)


def _inside(scene: Scene, square: Square, size_px: int) -> torch.Tensor:
    """Pixels that lie in the photograph, well within."""
    middles = torch.arange(size_px) + 0.5
    grid = torch.stack(torch.meshgrid(middles, middles, indexing="xy"), dim=-1).reshape(-1, 2)
    at, size = square.back(grid, size_px), torch.tensor(scene.photo_px)
    border = square.side_px / size_px
    return ((at > border) & (at < size - border)).all(-1).view(size_px, size_px)


def test_beyond_the_photograph_all_is_black_and_unknown():
    scenes = scenes_of(ALONE, 8)
    square = squares_of(scenes)
    square = replace(square, side_px=2 * square.side_px)
    drawn = draw([replace(scene, ground=Plain(200)) for scene in scenes], square, 64, SURFACE)
    for row, scene in enumerate(scenes):
        far = ~_inside(scene, replace(square[row], side_px=square.side_px[row]), 64)
        far = torch.from_numpy(cv2.erode(far.numpy().astype(np.uint8), np.ones((5, 5)), borderValue=1)) > 0
        assert far.any()
        assert not drawn.pixels[row][:, far].any() and not drawn.maps.parts[row][far].any()
        assert (drawn.maps.person[row][far] == NOBODY).all() and drawn.maps.depth_m[row][far].isinf().all()


def test_a_third_of_the_pixels_have_their_centres_in_common():
    scenes = scenes_of(CROWD, 4)
    square = squares_of(scenes, 0.5)
    coarse, fine = maps(scenes, square, 32, SURFACE), maps(scenes, square, 96, SURFACE)
    for name in ("parts", "person"):
        assert differ(getattr(coarse, name), getattr(fine, name)[:, 1::3, 1::3]) < 0.002, name
    known = coarse.depth_m.isfinite() & fine.depth_m[:, 1::3, 1::3].isfinite()
    torch.testing.assert_close(coarse.depth_m[known], fine.depth_m[:, 1::3, 1::3][known], atol=1e-4, rtol=1e-3)


def test_a_scene_is_the_same_at_any_resolution():
    scenes = [replace(scene, ground=Plain(90)) for scene in scenes_of(CROWD, 4)]
    square = squares_of(scenes)
    fine = pictures(scenes, square, 192, SURFACE).float()
    mean = torch.nn.functional.avg_pool2d(fine, 2)
    assert float((mean - pictures(scenes, square, 96, SURFACE)).abs().mean()) < 3


def test_a_square_on_its_side_shows_the_same_on_its_side():
    scenes = [replace(scene, ground=Plain(90)) for scene in scenes_of(CROWD, 4)]
    upright, lying = (draw(scenes, squares_of(scenes, angle), 64, SURFACE) for angle in (0.0, np.pi / 2))
    assert differ(torch.rot90(upright.maps.parts, -1, (1, 2)), lying.maps.parts) < 0.01
    assert differ(torch.rot90(upright.maps.person, -1, (1, 2)), lying.maps.person) < 0.01
    turned = torch.rot90(upright.pixels, -1, (2, 3)).float()
    assert float((turned - lying.pixels).abs().mean()) < 2, "the light turns with the picture"


def test_a_scene_is_drawn_alike_alone_and_among_others():
    scenes = scenes_of(CROWD, 3) + scenes_of(ALONE, 2, seed=1)
    square = squares_of(scenes)
    for row, grey in ((0, 250), (2, 20), (3, 120)):
        thing = Thing(False, square.center_px[row].double().numpy(), np.full(2, 30.0), 0.2, Plain(grey))
        scenes[row] = replace(scenes[row], things=(thing,))
    together = draw(scenes, square, 64, SURFACE)
    for row in (0, 2, 3, 4):
        alone = draw([scenes[row]], square[row : row + 1], 64, SURFACE)
        assert torch.equal(alone.pixels[0], together.pixels[row])
        assert torch.equal(alone.maps.parts[0], together.maps.parts[row])


@dataclass(frozen=True)
class Step:
    """A ground that is black on the left of a column of the photograph, and white on its right."""

    column_px: float

    def seen(self, square: Square, size_px: int) -> np.ndarray:
        """Of upright squares."""
        left_px = float(square.center_px[0] - square.side_px / 2)
        x = left_px + (np.arange(size_px) + 0.5) * float(square.side_px) / size_px
        return np.broadcast_to(255 * (x > self.column_px)[None, :, None], (size_px, size_px, 3)).astype(np.uint8)


def plain(scene: Scene, **changes) -> Scene:
    """Seen by a camera that adds nothing of its own."""
    sensor = replace(scene.sensor, gain=torch.ones(3), black=torch.tensor(0.0))
    return replace(scene, **{"sensor": sensor} | changes)


def gone(scene: Scene) -> Scene:
    """The photograph without its people."""
    return replace(scene, vertices_m=scene.vertices_m + torch.tensor([0.0, 0.0, 1e4]))


@pytest.mark.parametrize("pixels", [1, 2])
def test_a_lens_blurs_by_pixels_of_the_photograph(pixels):
    scene = plain(gone(scenes_of(ALONE, 1)[0]), ground=Step(100.0))
    scene = replace(scene, sensor=replace(scene.sensor, softness_px=torch.tensor(1.0)))
    square = Square(torch.tensor([[100.0, 100.0]]), torch.tensor([40.0]), torch.tensor([0.0]))
    profile = pictures([scene], square, 40 * pixels, SURFACE)[0, 0, 5].double()
    weight, at_px = profile.diff() / 255, torch.arange(1, 40 * pixels).double() / pixels - 20
    assert float(weight.sum()) == pytest.approx(1, abs=0.01) and float(weight @ at_px) == pytest.approx(0, abs=0.05)
    assert float((weight @ at_px**2).sqrt()) == pytest.approx(1.0, abs=0.06)


def test_the_photograph_ends_where_its_border_is():
    scene = plain(gone(scenes_of(ALONE, 1)[0]), ground=Plain(200))
    (width, height), side_px = scene.photo_px, torch.tensor([32.0])
    first, last = (
        pictures([scene], Square(torch.tensor([corner]), side_px, torch.zeros(1)), 64, SURFACE)[0, 0].float()
        for corner in ((0.0, 0.0), (float(width), float(height)))
    )
    assert (first[32:, 32:] == 200).all() and float(first.sum()) == 200 * 32 * 32
    assert (last[:32, :32] == 200).all() and float(last.sum()) == 200 * 32 * 32


def visible(scene: Scene, square: Square, size_px: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertices of the person that the square shows, well inside the body's outline, and their pixels (row, column)."""
    shown = maps([scene], square[None], size_px, SURFACE)[0]
    xy = square.into(project(scene.vertices_m[0], scene.camera), size_px).floor().long()
    at_px = project(scene.vertices_m[0], scene.camera)
    within = ((xy > 1) & (xy < size_px - 2)).all(-1) & ((at_px > 4) & (at_px < torch.tensor(scene.photo_px) - 4)).all(
        -1
    )
    x, y = xy.clamp(0, size_px - 1).unbind(-1)
    inner = torch.from_numpy(cv2.erode((shown.person == 0).numpy().astype(np.uint8), np.ones((5, 5)))) > 0
    met = within & inner[y, x] & ((scene.vertices_m[0, :, 2] - shown.depth_m[y, x]).abs() < 0.005)
    rows = met.nonzero()[:, 0]
    return rows, torch.stack([y[rows], x[rows]])


def evenly_lit(scene: Scene, sky: float, ground: float) -> Scene:
    """By a sky and a ground alone."""
    light = scene.light.map(torch.zeros_like)
    grey = torch.ones(3)
    return plain(scene, light=replace(light, up=scene.light.up, sky=sky * grey, ground=ground * grey))


def test_what_faces_up_in_the_world_is_lit_by_the_sky():
    for scene in scenes_of(ALONE, 4):
        white = torch.zeros(1, 5, 16)
        white[..., :6] = 0.5
        lit = evenly_lit(replace(scene, look=replace(scene.look, materials=white)), 1.0, 0.0)
        square = squares_of([scene])
        rows, (y, x) = visible(scene, square[0], 160)
        told = pictures([lit], square, 160, SURFACE)[0, 0, y, x].float() / 255
        up = (SURFACE.normals(scene.vertices_m)[0, rows] @ scene.light.up + 1) / 2
        assert len(rows) > 60 and float(torch.corrcoef(torch.stack([told**2, up]))[0, 1]) > 0.8, "all but the face"
        assert float((told**2 - 0.5 * up).abs().median()) < 0.03


def test_the_light_s_up_is_the_world_s():
    R = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
    assert torch.equal(light_of(R, generator_of(0, "light")).up, R @ torch.tensor([0.0, 1.0, 0.0]))


def test_clothes_are_where_the_rest_pose_has_them():
    seams = torch.tensor([[0.5, -0.2, -0.85, -1.0, 0.3, 0.45, 0.5, 0.0]])
    greys = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    materials = torch.zeros(1, 5, 16)
    materials[..., :6] = greys[:, None] ** 2
    across, up = SURFACE.rest_m[:, 0].abs(), SURFACE.rest_m[:, 1]
    expected = torch.full((len(up),), -1)
    expected[(across > 0.25) & (across < 0.45) & (up > 0.15)] = REGIONS.index("shirt")
    expected[(across > 0.55) & (up > 0.15)] = REGIONS.index("skin")
    expected[(up > -0.15) & (up < 0.2) & (across < 0.1)] = REGIONS.index("shirt")
    expected[(up > -0.8) & (up < -0.25) & (across < 0.3)] = REGIONS.index("trousers")
    expected[(up > -0.95) & (up < -0.9)] = REGIONS.index("skin")
    expected[up < -1.05] = REGIONS.index("shoes")
    found = torch.zeros(len(REGIONS))
    for scene in scenes_of(ALONE, 6):
        look = replace(scene.look, materials=materials, seams=seams)
        square = squares_of([scene])
        rows, (y, x) = visible(scene, square[0], 128)
        told = pictures([evenly_lit(replace(scene, look=look), 1.0, 1.0)], square, 128, SURFACE)[0, 0, y, x] / 255
        known = expected[rows] >= 0
        right = (told[known] - greys[expected[rows][known]]).abs() < 0.02
        assert float(right.float().mean()) > 0.93
        found += torch.bincount(expected[rows][known], minlength=len(REGIONS))
    assert (found[[REGIONS.index(name) for name in ("skin", "shirt", "trousers", "shoes")]] > 20).all()


def test_clothes_stand_off_the_body():
    scenes = [plain(scene, ground=Plain(0)) for scene in scenes_of(ALONE, 4)]
    square, dark = squares_of(scenes), []
    for away_m in (0.0, 0.04):
        looks = [replace(scene.look, thickness_m=torch.full((1, 5), away_m)) for scene in scenes]
        worn = [evenly_lit(replace(one, look=look), 1.0, 1.0) for one, look in zip(scenes, looks, strict=True)]
        dark.append((pictures(worn, square, 96, SURFACE).amax(1) == 0).flatten(1))
    bare, dressed = dark
    assert (bare.sum(1) > 1.02 * dressed.sum(1)).all() and (dressed & ~bare).sum() < 0.002 * dressed.sum()


@pytest.mark.parametrize("joint", ["left_wrist@coco17", "right_ankle@h36m17"])
def test_a_spot_on_a_joint_is_found_there(joint):
    scenes = scenes_of(ALONE, 8)
    joints_m = body_joints(MODEL, stack([scene.params[0] for scene in scenes]))[:, BODY58.index(joint)]
    square, size_px, found = squares_of(scenes, 0.4), 128, 0
    for row, scene in enumerate(scenes):
        at_px = project(joints_m[row : row + 1], scene.camera)
        place = square[row].into(at_px, size_px)[0]
        if not ((place > 8) & (place < size_px - 8)).all() or not (at_px > 6).all():
            continue
        if not (at_px < torch.tensor(scene.photo_px) - 6).all():
            continue
        radius = np.full(2, 4 * float(square.side_px[row]) / size_px)
        spot = Thing(True, at_px[0].double().numpy(), radius, 0.0, Plain(255))
        dark = replace(scene, things=(spot,), ground=Plain(0), light=scene.light.map(torch.zeros_like))
        drawn = draw([dark], square[row : row + 1], size_px, SURFACE)
        y, x = (drawn.pixels[0].float().mean(0) > 100).nonzero().unbind(1)
        middle = torch.stack([x.float().mean(), y.float().mean()]) + 0.5
        torch.testing.assert_close(middle, place, atol=0.5, rtol=0)
        y, x = (drawn.maps.person[0] == THING).nonzero().unbind(1)
        torch.testing.assert_close(torch.stack([x.float().mean(), y.float().mean()]) + 0.5, place, atol=0.5, rtol=0)
        found += 1
    assert found >= 4


def test_a_visible_limb_is_the_side_that_its_joint_names():
    scenes = scenes_of(ALONE, 24)
    joints_m = body_joints(MODEL, stack([scene.params[0] for scene in scenes]))
    square, size_px = squares_of(scenes), 128
    known, parts = seen(scenes, joints_m, SURFACE), maps(scenes, square, size_px, SURFACE).parts
    right, wrong = 0, 0
    for side in ("left", "right"):
        for name in ("wrist", "elbow", "knee", "ankle"):
            column = BODY58.index(f"{side}_{name}@coco17")
            for row, scene in enumerate(scenes):
                if not known.inside[row, column] or known.own[row, column]:
                    continue
                x, y = square[row].into(project(joints_m[row, column : column + 1], scene.camera), size_px)[0].long()
                shown = int(parts[row, y.clamp(0, size_px - 1), x.clamp(0, size_px - 1)])
                if shown:
                    right += SMPL24.joints[shown - 1].startswith(side)
                    wrong += not SMPL24.joints[shown - 1].startswith(side)
    assert right > 80 and wrong <= 0.08 * right


def test_first_hits_are_those_of_every_triangle():
    scenes = scenes_of(CROWD, 3)
    joints_m = body_joints(MODEL, stack([scene.params[0] for scene in scenes]))
    faces = SURFACE.faces.numpy()
    for row, scene in enumerate(scenes):
        found = first_hits(joints_m[row : row + 1], scene.vertices_m[None], SURFACE.faces)[0]
        for body in range(len(scene)):
            corners = scene.vertices_m[body].double().numpy()[faces]
            for point in range(0, len(BODY58), 3):
                expected = _nearest(joints_m[row, point].double().numpy(), corners)
                ours = float(found[body, point])
                assert ours == pytest.approx(expected, abs=1e-4) or _grazes(joints_m[row, point], corners, ours)


def _nearest(point: np.ndarray, corners: np.ndarray) -> float:
    """The depth at which a ray from the origin first meets a triangle from outside (Moller and Trumbore, 1997)."""
    a, b, c = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    ray = point / point[2]
    p = np.cross(ray, c)
    det = (b * p).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = (-a * p).sum(1) / det
        q = np.cross(-a, b)
        v, t = (q @ ray) / det, (c * q).sum(1) / det
    met = (det > 0) & (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
    return float(t[met].min()) if met.any() else np.inf


def _grazes(point: torch.Tensor, corners: np.ndarray, ours: float) -> bool:
    """Whether rounding decides, because the ray passes by an outline."""
    moved = [_nearest(point.double().numpy() + shift, corners) for shift in 1e-5 * np.eye(3)[:2]]
    moved += [_nearest(point.double().numpy() - shift, corners) for shift in 1e-5 * np.eye(3)[:2]]
    return any(ours == pytest.approx(one, abs=1e-3) for one in moved)


def test_joints_are_seen_unless_a_body_or_a_thing_is_before_them():
    scenes = scenes_of(CROWD, 12)
    joints_m = body_joints(MODEL, stack([scene.params[0] for scene in scenes]))
    known = seen(scenes, joints_m, SURFACE)
    assert known.behind.any() and not known.behind.all()
    names = ("params", "vertices_m", "joints_m", "look")
    alone = [replace(one, **{name: getattr(one, name)[:1] for name in names}) for one in scenes]
    by_themselves = seen(alone, joints_m, SURFACE)
    assert not by_themselves.behind.any()
    assert torch.equal(by_themselves.own, known.own) and torch.equal(by_themselves.inside, known.inside)
    middle = project(joints_m[0, :1], scenes[0].camera)[0].double().numpy()
    wall = Thing(False, middle, np.full(2, 1e4), 0.0, Plain(0))
    assert seen([replace(scenes[0], things=(wall,))], joints_m[:1], SURFACE).behind.all()
    square, size_px = squares_of(scenes), 160
    person = maps(scenes, square, size_px, SURFACE).person
    xy = torch.stack([square[row].into(project(joints_m[row], one.camera), size_px) for row, one in enumerate(scenes)])
    within = known.inside & ((xy >= 1) & (xy < size_px - 1)).all(-1)
    row, column = within.nonzero().unbind(1)
    x, y = xy[row, column].long().unbind(-1)
    shown = person[row, y, x]
    assert differ(known.behind[row, column][shown >= 0], (shown > 0)[shown >= 0]) < 0.03


def standing(turn: tuple[float, float, float]) -> tuple[Scene, torch.Tensor]:
    """Somebody with their arms out, 4 m away, turned so; and their joints."""
    root = roma.rotvec_to_rotmat(torch.tensor([turn])) @ camera_from_body_axes()
    params = BodyParams(root, torch.eye(3).expand(1, 23, 3, 3), torch.zeros(1, 10), torch.tensor([[0.0, 0.2, 4.0]]))
    body, scene = MODEL(params), scenes_of(ALONE, 1)[0]
    scene = replace(scene, params=params, vertices_m=body.vertices_m, joints_m=body.joints_m)
    return scene, body_joints(MODEL, params)


def test_a_limb_before_the_body_hides_and_a_joint_s_own_flesh_does_not():
    limbs = [f"{side}_{joint}@coco17" for side in ("left", "right") for joint in ("hip", "knee", "shoulder", "elbow")]
    for turn in ((0.0, 0.0, 0.0), (0.0, np.pi, 0.0)):
        scene, joints_m = standing(turn)
        assert not seen([scene], joints_m, SURFACE).own[0, BODY58.indices(*limbs)].any()
    scene, joints_m = standing((0.0, np.pi / 2, 0.0))
    near, far = sorted(("left", "right"), key=lambda side: float(joints_m[0, BODY58.index(f"{side}_wrist@coco17"), 2]))
    own = seen([scene], joints_m, SURFACE).own[0]
    assert own[BODY58.indices(*(f"{far}_{joint}@coco17" for joint in ("shoulder", "elbow", "knee")))].all()
    assert not own[BODY58.indices(*(f"{near}_{joint}@coco17" for joint in ("hip", "knee", "ankle")))].any()


def test_flesh_is_the_more_of_that_before_and_that_behind_a_joint():
    scene, joints_m = standing((0.0, 0.0, 0.0))
    away = torch.tensor([0.0, 0.0, 200.0])
    point, corners = joints_m[0] + away, (scene.vertices_m[0] + away).double().numpy()[SURFACE.faces.numpy()]
    for joint in ("pelvis@smpl24", "spine2@smpl24", "left_knee@smpl24", "right_ankle@coco17", "left_shoulder@h36m17"):
        row = BODY58.index(joint)
        x, y, z = point[row].double().tolist()
        before = z - _nearest(np.array([x, y, z]), corners)
        flipped = (corners - (x, y, z)) * (-1.0, 1.0, -1.0) + (x, y, z)
        behind = z - _nearest(np.array([x, y, z]), flipped)
        assert float(SURFACE.flesh_m[row]) == pytest.approx(max(before, behind), abs=0.006), joint
        assert abs(before - behind) > 0.004 or joint == "spine2@smpl24"
    assert SURFACE.flesh_m[BODY58.index("nose@coco17")] == 0


def test_others_touch_the_person_in_the_picture_or_stand_anywhere_in_it():
    scenes, touching, nearer = scenes_of(CROWD, 60), [], []
    for scene in scenes:
        joints_px, size = project(scene.joints_m, scene.camera), torch.tensor(scene.photo_px)
        hands_px = joints_px[1:, SMPL24.indices(*TOUCHING)]
        away_px = torch.cdist(hands_px, joints_px[:1].expand(len(hands_px), -1, -1))
        touches = (away_px < 0.05).flatten(1).any(1)
        pelvis_px = joints_px[1:, SMPL24.index("pelvis")]
        assert ((pelvis_px >= 0) & (pelvis_px <= size)).all(-1)[~touches].all()
        touching.append(touches)
        nearer.append(scene.joints_m[1:, 0, 2] < scene.joints_m[0, :, 2].amax())
    touches, near = torch.cat(touching), torch.cat(nearer)
    assert float(touches.float().mean()) == pytest.approx(BEFORE, abs=0.15)
    assert float(near[touches].float().mean()) > 0.8 > float(near[~touches].float().mean())
