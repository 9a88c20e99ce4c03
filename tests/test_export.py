"""Mesh files: the same vertices come back, nothing is mirrored, and one bad input does not stop the others."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
import trimesh
import tyro

from meshrec import export, pose_files
from meshrec.body import load_body_model
from meshrec.errors import MeshrecError
from meshrec.skeletons import SMPL24
from meshrec.types import BodyParams

FORMATS = (".obj", ".ply", ".glb")


@pytest.fixture(scope="module")
def model():
    return load_body_model("neutral")


@pytest.fixture(autouse=True)
def load_once(model, monkeypatch):
    """The shipped body is read once for all tests."""
    monkeypatch.setattr(export, "load_body_model", lambda name="neutral": model)


@pytest.fixture
def box():
    """A box of three different sides, in front of the camera."""
    mesh = trimesh.creation.box((0.4, 1.0 / 3.0, 0.7))
    return torch.tensor(mesh.vertices).float() + torch.tensor([0.1, 0.2, 3.0]), torch.tensor(mesh.faces)


def load(path: Path) -> trimesh.Trimesh:
    return trimesh.load(path, process=False, force="mesh", maintain_order=True)


def write_result(path: Path, rotations, betas, transl_m, **body) -> Path:
    people = [
        {"smpl": {"pose_axis_angle": roma.rotmat_to_rotvec(r).flatten().tolist(), "betas": b.tolist(), "transl_m": t}}
        for r, b, t in zip(rotations, betas, transl_m.tolist(), strict=True)
    ]
    made_with = {"name": "neutral", "path": "", "sha256": ""} | body
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"meshrec": "0", "photo": "beach.jpg", "body": made_with, "people": people}))
    return path


def write_motion(path: Path, poses, trans, betas, **more) -> Path:
    np.savez(path, poses=poses, trans=trans, betas=betas, **more)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("frame", ["upright", "camera"])
def test_reading_back_gives_the_same_mesh(tmp_path, box, suffix, frame):
    vertices, faces = box
    mesh = load(export.write_mesh(tmp_path / f"box{suffix}", vertices, faces, frame))
    signs = [1, -1, -1] if frame == "upright" else [1, 1, 1]
    assert np.array_equal(mesh.vertices.astype(np.float32), vertices.numpy() * np.float32(signs))
    assert np.array_equal(mesh.faces, faces.numpy())


@pytest.mark.parametrize("suffix", FORMATS)
def test_upright_mirrors_nothing(tmp_path, box, suffix):
    vertices, faces = box
    mesh = load(export.write_mesh(tmp_path / f"box{suffix}", vertices, faces))
    assert mesh.volume == pytest.approx(0.4 * 1 / 3 * 0.7, rel=1e-4)
    assert mesh.vertices[:, 1].mean() == pytest.approx(-0.2, abs=1e-6)


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_mesh_gives_the_same_bytes(tmp_path, box, suffix):
    first = export.write_mesh(tmp_path / f"a{suffix}", *box).read_bytes()
    assert export.write_mesh(tmp_path / f"b{suffix}", *box).read_bytes() == first
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"a{suffix}", f"b{suffix}"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_body_keeps_its_vertices_and_their_order(tmp_path, model, suffix):
    vertices = model.template.view(-1, 3)
    mesh = load(export.write_mesh(tmp_path / f"body{suffix}", vertices, model.faces, "camera"))
    assert np.array_equal(mesh.vertices.astype(np.float32), vertices.numpy())
    assert np.array_equal(mesh.faces, model.faces.numpy())


def test_texture_points_do_not_tear_the_vertices_of_an_obj(tmp_path, model):
    texture = export.texture_of(model)
    path = export.write_mesh(tmp_path / "body.obj", model.template.view(-1, 3), model.faces, texture=texture)
    lines = [line.split() for line in path.read_text().splitlines()]
    assert sum(line[0] == "v" for line in lines) == len(model.weights)
    corners = np.array([[int(x) for corner in line[1:] for x in corner.split("/")] for line in lines if line[0] == "f"])
    assert np.array_equal(corners[:, 0::2] - 1, model.faces.numpy())
    assert np.array_equal(corners[:, 1::2] - 1, texture.corners)
    points = np.array([line[1:] for line in lines if line[0] == "vt"], dtype=np.float32)
    assert np.array_equal(points, texture.coordinates.astype(np.float32))


def test_an_unknown_suffix_and_broken_vertices_are_refused(tmp_path, box):
    with pytest.raises(MeshrecError, match=r"\.obj, \.ply or \.glb"):
        export.write_mesh(tmp_path / "box.fbx", *box)
    with pytest.raises(ValueError, match="not finite"):
        export.write_mesh(tmp_path / "box.obj", box[0] * torch.nan, box[1])


def test_every_person_of_a_result_stands_where_the_camera_saw_it(tmp_path, model):
    generator = torch.Generator().manual_seed(0)
    rotations = roma.rotvec_to_rotmat(0.5 * torch.randn(2, len(SMPL24), 3, generator=generator))
    betas, transl_m = torch.randn(2, 10, generator=generator), torch.tensor([[0.5, 0.1, 3.0], [-0.5, 0.2, 4.0]])
    result = write_result(tmp_path / "out" / "result.json", rotations, betas, transl_m)
    assert export.command((result,), frame="camera", output=tmp_path / "meshes") == 0
    bodies = model(BodyParams.from_rotations(rotations, betas, transl_m)).vertices_m.numpy()
    for index, expected in enumerate(bodies):
        mesh = load(tmp_path / "meshes" / f"beach_person{index}.obj")
        assert len(mesh.faces) == len(model.faces)
        np.testing.assert_allclose(obj_vertices(tmp_path / "meshes" / f"beach_person{index}.obj"), expected, atol=1e-5)


def obj_vertices(path: Path) -> np.ndarray:
    return np.array([line.split()[1:] for line in path.read_text().splitlines() if line.startswith("v ")], float)


def test_a_z_up_motion_stands_upright_and_a_y_up_motion_stays(tmp_path, model):
    rest = np.zeros((1, 156))
    rest[0, :3] = [np.pi / 2, 0, 0]
    amass = write_motion(tmp_path / "amass.npz", rest, np.zeros((1, 3)), np.zeros(16), mocap_framerate=30.0)
    plain = write_motion(tmp_path / "plain.npz", np.zeros((1, 72)), np.zeros((1, 3)), np.zeros(10))
    assert export.command((amass, plain), format="ply") == 0
    lying, standing = load(tmp_path / "amass_000000.ply").vertices, load(tmp_path / "plain_000000.ply").vertices
    template = model.template.view(-1, 3).numpy()
    np.testing.assert_allclose(standing, template, atol=1e-5)
    pelvis = (model.file.joint_regressor[SMPL24.index("pelvis")] @ template)[None]
    quarter = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    np.testing.assert_allclose(lying, template - pelvis + pelvis @ quarter.T, atol=1e-5)


def test_a_motion_keeps_its_translation_and_its_hands_straight(tmp_path, model):
    poses = np.full((1, 156), 0.3)
    poses[:, : 3 * pose_files.SHARED_JOINTS] = 0
    path = write_motion(tmp_path / "m.npz", poses, np.array([[1.0, 2.0, 3.0]]), np.zeros(10), mocap_frame_rate=60.0)
    read = pose_files.read_poses(path)
    torch.testing.assert_close(read.params.rotations, torch.eye(3).expand(1, len(SMPL24), 3, 3))
    moved = next(export.posed(read, model)).numpy().mean(0) - next(export.posed(still(read), model)).numpy().mean(0)
    np.testing.assert_allclose(moved, [1.0, -3.0, -2.0] * np.array([1, 1, -1]), atol=1e-5)


def still(poses: pose_files.Poses) -> pose_files.Poses:
    params = dataclasses.replace(poses.params, transl_m=torch.zeros_like(poses.params.transl_m))
    return dataclasses.replace(poses, params=params)


def test_every_and_zero_pose(tmp_path, model):
    path = write_motion(tmp_path / "walk.npz", np.full((9, 24, 3), 0.1), np.zeros((9, 3)), np.zeros(10))
    assert export.command((path,), every=4, output=tmp_path / "all", format="glb") == 0
    assert [p.name for p in sorted((tmp_path / "all").iterdir())] == [f"walk_{i:06d}.glb" for i in (0, 4, 8)]
    assert export.command((path,), zero_pose=True, output=tmp_path / "shape", format="ply") == 0
    (shape,) = (tmp_path / "shape").iterdir()
    template = model.template.view(-1, 3).numpy()
    np.testing.assert_allclose(load(shape).vertices, template, atol=1e-6)
    with pytest.raises(MeshrecError, match="--every"):
        export.every_nth(pose_files.read_poses(path), 0)


BAD = {
    "missing.json": None,
    "broken.json": b"{",
    "list.json": b"[1]",
    "empty.json": b'{"people": [], "body": {"name": "neutral"}}',
    "no_body.json": b'{"people": [{"smpl": {"pose_axis_angle": [0], "betas": [0], "transl_m": [0, 0, 0]}}]}',
    "uneven.json": b'{"people": [{"smpl": {"pose_axis_angle": [0, 0]}}, {"smpl": {"pose_axis_angle": [0]}}]}',
    "deep.json": b"[" * 100_000,
    "large.json": b'{"people": [{"smpl": {"pose_axis_angle": [1' + b"0" * 400 + b']}}], "body": {}}',
    "words.json": b'{"people": [{"smpl": {"pose_axis_angle": ["x"]}}], "body": {}}',
    "foreign.npz": b"PK",
    "photo.jpg": b"x",
}


@pytest.mark.parametrize("shape", [(3, 10), (2, 2, 10)])
def test_betas_of_another_number_of_frames_are_refused(tmp_path, shape):
    path = write_motion(tmp_path / "motion.npz", np.zeros((4, 72)), np.zeros((4, 3)), np.zeros(shape))
    with pytest.raises(MeshrecError, match="betas of shape"):
        pose_files.read_poses(path)


def test_more_betas_than_any_body_has_are_refused(tmp_path):
    path = write_motion(tmp_path / "motion.npz", np.zeros((4, 72)), np.zeros((4, 3)), np.zeros(2_000_000))
    with pytest.raises(MeshrecError, match="2000000 betas"):
        pose_files.read_poses(path)


@pytest.mark.parametrize("dtype", [">f4", np.longdouble, ">i2"])
def test_numbers_of_every_kind_are_read(tmp_path, dtype):
    poses, trans, betas = (np.ones(shape, dtype) for shape in ((2, 72), (2, 3), 10))
    read = pose_files.read_poses(write_motion(tmp_path / "motion.npz", poses, trans, betas))
    expected = roma.rotvec_to_rotmat(torch.ones(2, len(SMPL24), 3))
    torch.testing.assert_close(read.params.rotations, expected, rtol=0.0, atol=1e-6)
    assert (read.params.transl_m == 1).all() and (read.params.betas == 1).all()


def test_texture_coordinates_are_written_when_asked_for(tmp_path):
    motion = write_motion(tmp_path / "motion.npz", np.zeros((1, 72)), np.zeros((1, 3)), np.zeros(10))
    for texture, count in ((False, 0), (True, 1)):
        assert export.command((motion,), output=tmp_path / str(texture), texture=texture) == 0
        lines = (tmp_path / str(texture) / "motion_000000.obj").read_text().splitlines()
        assert (sum(line.startswith("vt ") for line in lines) > 0) == bool(count)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_input_is_one_sentence_and_stops_nothing(tmp_path, capsys, name):
    bad = tmp_path / name
    if BAD[name] is not None:
        bad.write_bytes(BAD[name])
    good = write_motion(tmp_path / "good.npz", np.zeros((1, 72)), np.zeros((1, 3)), np.zeros(10))
    assert export.command((bad, good), output=tmp_path / "out") == 1
    assert (tmp_path / "out" / "good_000000.obj").is_file()
    told = capsys.readouterr().err
    assert name in told and "Traceback" not in told


@pytest.mark.parametrize(
    ("poses", "trans", "words"),
    [
        (np.zeros((2, 70)), np.zeros((2, 3)), "70 numbers"),
        (np.zeros((2, 72)), np.zeros((3, 3)), r"\(3, 3\)"),
        (np.full((2, 72), np.nan), np.zeros((2, 3)), "not finite"),
        (np.zeros((0, 72)), np.zeros((0, 3)), "no frames"),
    ],
)
def test_what_is_wrong_with_a_motion_is_named(tmp_path, poses, trans, words):
    with pytest.raises(MeshrecError, match=words):
        pose_files.read_poses(write_motion(tmp_path / "m.npz", poses, trans, np.zeros(10)))


def test_two_inputs_never_write_the_same_file(tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_motion(tmp_path / folder / "m.npz", np.zeros((1, 72)), np.zeros((1, 3)), np.zeros(10))
    assert export.command((tmp_path / "a" / "m.npz", tmp_path / "b" / "m.npz"), output=tmp_path / "out") == 1
    assert "Two inputs" in capsys.readouterr().err


def test_a_result_of_another_body_is_refused(tmp_path, capsys):
    identity = torch.eye(3).expand(1, len(SMPL24), 3, 3)
    result = write_result(tmp_path / "result.json", identity, torch.zeros(1, 10), torch.zeros(1, 3), sha256="0" * 64)
    assert export.command((result,)) == 1
    assert "--body" in capsys.readouterr().err
    assert export.command((result,), body="neutral") == 0


def test_the_flags(tmp_path):
    path = write_motion(tmp_path / "m.npz", np.zeros((2, 72)), np.zeros((2, 3)), np.zeros(10))
    flags = [str(path), "-f", "ply", "-o", str(tmp_path / "out"), "--every", "2", "--frame", "camera"]
    assert tyro.cli(export.command, args=flags) == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["m_000000.ply"]
