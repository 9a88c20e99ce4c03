"""Motions come back from every layout that they are written in, and a faulty file says where."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from motion_writers import (
    CM,
    CMU,
    CMU_RIG,
    INCH,
    PLAIN_RIG,
    Rig,
    Style,
    random_motion,
    slanted,
    world_of,
    write_amc,
    write_bvh,
)

from meshrec.data import text_file
from meshrec.data.asf_amc import read_amc
from meshrec.data.bvh import read_bvh
from meshrec.data.joint_names import drivers
from meshrec.data.motion import Motion, Reading, subject_of
from meshrec.data.motion_files import find_motion_files, read_motions
from meshrec.errors import MeshrecError
from meshrec.skeletons import SMPL24

FRAMES = 4

BIPED = {"UpLeg": "Thigh", "Leg": "Calf", "Foot": "Foot", "ToeBase": "Toe0"}
BIPED |= {"Shoulder": "Clavicle", "Arm": "UpperArm", "ForeArm": "Forearm", "Hand": "Hand"}
SHOULDERS = {"UpLeg": "Hip", "Leg": "Knee", "Foot": "Ankle", "ToeBase": "Toe"}
SHOULDERS |= {"Shoulder": "Collar", "Arm": "Shoulder", "ForeArm": "Elbow", "Hand": "Wrist"}
MIDDLE = {"Hips": "Hips", "LowerBack": "Chest", "Spine": "Chest2", "Spine1": "Chest3", "Neck": "Neck", "Head": "Head"}


def smpl_name(name: str) -> str:
    """`LeftUpLeg` is `L_Hip` with those who write SMPL."""
    return PLAIN_RIG.joint(name).title().replace("Left_", "L_").replace("Right_", "R_")


def sided(name: str, parts: dict[str, str], pattern: str) -> str:
    for side in ("Left", "Right"):
        if name.startswith(side):
            return pattern.format(side=side, letter=side[0], part=parts[name.removeprefix(side)])
    return MIDDLE[name]


NAMINGS = {
    "cmu": lambda name: name,
    "mixamo": lambda name: f"mixamorig:{name}",
    "smpl": smpl_name,
    "biped": lambda name: f"Bip01 {sided(name, BIPED, '{letter} {part}')}",
    "collars": lambda name: sided(name, SHOULDERS, "{side}{part}").lower(),
    "blender": lambda name: sided(name, BIPED, "{part}.{letter}"),
}


def angles_between(motion: Motion, rotations: torch.Tensor) -> torch.Tensor:
    """Between what was read and what was written, (frames, joints)."""
    return roma.rotmat_geodesic_distance(roma.rotvec_to_rotmat(torch.from_numpy(motion.axis_angle)), rotations)


HALF_TURN_OF_HEADING = roma.rotvec_to_rotmat(torch.tensor([0.0, 2.1, 0.0], dtype=torch.float64))
Z_UP = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]], dtype=torch.float64)
QUARTER = roma.rotvec_to_rotmat(torch.tensor([0.0, math.pi / 2, 0.0], dtype=torch.float64))

STYLES = {
    "zero angles": Style(),
    "a T-pose first": Style(t_frame=True),
    "crooked zero angles": Style(crooked=True, t_frame=True),
    "facing elsewhere": Style(crooked=True, t_frame=True, facing=HALF_TURN_OF_HEADING),
    "z up": Style(crooked=True, t_frame=True, upright=Z_UP, facing=QUARTER @ Z_UP),
    "inches": Style(unit_m=INCH),
    "metres": Style(unit_m=1.0),
    "CMU's unit": Style(unit_m=CMU),
}


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
@pytest.mark.parametrize("rig", [CMU_RIG, PLAIN_RIG], ids=["with extra joints", "plain"])
def test_what_is_written_as_bvh_is_read(tmp_path, rig, style):
    rotations, transl_m = random_motion(seed=3)
    motion = read_bvh(write_bvh(tmp_path / "7" / "7_02.bvh", rig, rotations, transl_m, style))
    assert angles_between(motion, rotations).max() < 1e-6
    assert np.abs(motion.transl_m - transl_m.numpy()).max() < 1e-9
    assert (motion.name, motion.subject, motion.fps, len(motion)) == ("7_02", "7", 120.0, FRAMES)
    assert motion.valid.all()


X_TO_Y_TO_Z = np.full(3, 2 * math.pi / 3 / math.sqrt(3))
"""A quarter turn about x and then one about z, both axes at rest: x goes to y, y to z, z to x."""


def test_the_first_channel_of_bvh_is_the_outermost(tmp_path):
    still = torch.eye(3).double().expand(2, len(SMPL24), 3, 3)
    path = write_bvh(tmp_path / "a.bvh", CMU_RIG, still, torch.zeros(2, 3).double())
    channels = "CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation"
    text = re.sub("CHANNELS 6.*", channels, path.read_text(), count=1)
    head, row = text.rstrip().rsplit("\n", 1)
    path.write_text(head + "\n" + " ".join(["0 0 0 90 0 90", *row.split()[6:]]))
    assert read_bvh(path).axis_angle[-1, 0] == pytest.approx(X_TO_Y_TO_Z)


def test_the_first_angle_of_amc_is_turned_first(tmp_path):
    still = torch.eye(3).double().expand(2, len(SMPL24), 3, 3)
    path = write_amc(tmp_path / "02_01.amc", CMU_RIG, still, torch.zeros(2, 3).double(), Style())
    skeleton = path.with_name("02.asf")
    skeleton.write_text(re.sub("order .*", "order TX TY TZ RX RY RZ", skeleton.read_text()))
    path.write_text(re.sub("root .*", "root 0 0 0 90 0 90", path.read_text()))
    assert read_amc(path).axis_angle[-1, 0] == pytest.approx(X_TO_Y_TO_Z)


@pytest.mark.parametrize("rename", NAMINGS.values(), ids=NAMINGS)
def test_the_same_skeleton_by_other_names_is_the_same(tmp_path, rename):
    rotations, transl_m = random_motion(seed=4)
    motion = read_bvh(write_bvh(tmp_path / "a.bvh", PLAIN_RIG.renamed(rename), rotations, transl_m))
    assert angles_between(motion, rotations).max() < 1e-6


def test_a_spine_of_fewer_joints_keeps_every_frame_in_the_world(tmp_path):
    rotations, transl_m = random_motion(seed=5)
    motion = read_bvh(write_bvh(tmp_path / "a.bvh", CMU_RIG.without("Spine"), rotations, transl_m))
    read = world_of(roma.rotvec_to_rotmat(torch.from_numpy(motion.axis_angle)))
    others = [joint for joint in range(len(SMPL24)) if joint != SMPL24.index("spine2")]
    assert (read - world_of(rotations))[:, others].abs().max() < 1e-9
    assert np.abs(motion.axis_angle[:, SMPL24.index("spine2")]).max() < 1e-9


def test_a_long_spine_gives_its_rotations_to_the_joints_above(tmp_path):
    tree = list(CMU_RIG.tree)
    at = CMU_RIG.names.index("Spine1")
    tree[at] = ("Spine1", "Between", *tree[at][2:])
    tree.insert(at, ("Between", "Spine", "", (0.0, 0.05, 0.0)))
    rotations, transl_m = random_motion(seed=6)
    motion = read_bvh(write_bvh(tmp_path / "a.bvh", Rig(tuple(tree)), rotations, transl_m))
    read = world_of(roma.rotvec_to_rotmat(torch.from_numpy(motion.axis_angle)))
    others = [joint for joint in range(len(SMPL24)) if joint != SMPL24.index("spine2")]
    assert (read - world_of(rotations))[:, others].abs().max() < 1e-9


def about_z(angle_rad: float, *parts: str) -> dict[str, torch.Tensor]:
    """The same turn of both sides, mirrored, away from the body where the angle is above 0."""
    turns = {}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, sign * angle_rad], dtype=torch.float64))
        turns |= {f"{side}_{part}": turn for part in parts}
    return turns


SPREAD_LEGS = about_z(math.radians(20), "hip", "knee", "ankle", "foot")
HANGING_ARMS = about_z(-math.radians(46), "shoulder", "elbow", "wrist")


def test_limbs_point_in_the_world_where_those_of_a_spread_skeleton_do(tmp_path):
    rotations, transl_m = random_motion(seed=7)
    rig = slanted(CMU_RIG, SPREAD_LEGS)
    motion = read_bvh(write_bvh(tmp_path / "a.bvh", rig, rotations, transl_m, Style(slant=SPREAD_LEGS)))
    assert angles_between(motion, rotations).max() < 1e-6


def test_hanging_arms_are_a_t_pose_only_if_told(tmp_path):
    rotations, transl_m = random_motion(seed=8)
    rig = slanted(CMU_RIG, HANGING_ARMS)
    path = write_bvh(tmp_path / "a.bvh", rig, rotations, transl_m, Style(slant=HANGING_ARMS))
    with pytest.raises(MeshrecError, match=r"a\.bvh: no T-pose.* 46 degrees off"):
        read_bvh(path)
    assert angles_between(read_bvh(path, Reading(rest="zero")), rotations).max() < 1e-6


def test_a_unit_that_is_told_is_not_guessed(tmp_path):
    rotations, transl_m = random_motion(seed=3)
    path = write_bvh(tmp_path / "a.bvh", CMU_RIG, rotations, transl_m, Style(unit_m=0.02))
    assert np.abs(read_bvh(path, Reading(unit_m=0.02)).transl_m - transl_m.numpy()).max() < 1e-9


def test_a_joint_without_a_side_or_a_limb_is_told():
    names = [name.replace("RightForeArm", "Thing") for name in CMU_RIG.names]
    with pytest.raises(MeshrecError, match="right_elbow"):
        drivers(names, CMU_RIG.parents)
    names = [{"LeftUpLeg": "LeftLeg", "LeftLeg": "LeftUpLeg"}.get(name, name) for name in CMU_RIG.names]
    with pytest.raises(MeshrecError, match="LeftLeg should be below LeftUpLeg"):
        drivers(names, CMU_RIG.parents)


BVH_FAULTS = {
    "cut off in the tree": (lambda text: text[: text.index("Spine1") + 7], "its end: there is no MOTION"),
    "cut off in the frames": (lambda text: "\n".join(text.split("\n")[:-2]), r"4 frames are announced, 3 found"),
    "a row too short": (lambda text: text.rstrip().rsplit(" ", 1)[0], r"line \d+: \d+ numbers are needed, \d+ found"),
    "a word for a number": (lambda text: text.rstrip() + "x", r"line \d+: a number is needed"),
    "not a number": (lambda text: text.rstrip().rsplit(" ", 1)[0] + " nan", r"line \d+: nan is not a finite number"),
    "no frames": (
        lambda text: re.sub(r"Frames: .*", "Frames: 0\nFrame Time: .01\n", text, flags=re.DOTALL),
        "0 frames are announced, 0 found",
    ),
    "no time": (lambda text: text.replace("Time: .0083333", "Time: 0"), "the time of a frame is 0"),
    "an unknown channel": (lambda text: text.replace("Xrotation", "Wrotation", 1), "line 5: wrotation is no channel"),
    "a channel twice": (lambda text: text.replace("Xrotation", "Yrotation", 1), "line 5: one channel is named twice"),
    "channels miscounted": (lambda text: text.replace("CHANNELS 6", "CHANNELS 5"), "line 5: 6 channels are named"),
    "a brace too many": (lambda text: text.replace("MOTION", "}\nMOTION"), "a brace closes that was not opened"),
    "a brace too few": (lambda text: text.replace("}\nMOTION", "MOTION"), "line 2: its brace is never closed"),
    "an odd word": (lambda text: text.replace("CHANNELS 6", "SCALE 6"), "line 5: SCALE has no place here"),
    "two roots": (lambda text: text.replace("JOINT LowerBack", "ROOT LowerBack"), "ROOT LowerBack has no place here"),
    "no names of the trade": (lambda text: text.replace("Left", "Laft"), r"left_hip.*Its joints are Hips"),
    "another format": (lambda text: "#!/bin/sh\n", "this is no BVH file"),
    "an empty file": (lambda text: "", "this is no BVH file"),
}


@pytest.mark.parametrize(("spoil", "says"), BVH_FAULTS.values(), ids=BVH_FAULTS)
def test_a_faulty_bvh_says_what_and_where(tmp_path, spoil, says):
    rotations, transl_m = random_motion(seed=1)
    path = write_bvh(tmp_path / "a.bvh", CMU_RIG, rotations, transl_m)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(MeshrecError, match=says) as caught:
        read_bvh(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("unit_m", [CMU, CM, INCH])
@pytest.mark.parametrize("slant", [{}, SPREAD_LEGS], ids=["straight", "spread"])
def test_what_is_written_as_asf_and_amc_is_read(tmp_path, slant, unit_m):
    rotations, transl_m = random_motion(seed=9)
    rig = slanted(CMU_RIG, slant)
    path = write_amc(tmp_path / "02" / "02_01.amc", rig, rotations, transl_m, Style(unit_m=unit_m, slant=slant))
    motion = read_amc(path)
    assert angles_between(motion, rotations).max() < 1e-6
    assert np.abs(motion.transl_m - transl_m.numpy()).max() < 1e-8
    assert (motion.name, motion.subject, motion.fps) == ("02_01", "02", 120.0)


def test_asf_and_bvh_of_one_motion_agree(tmp_path):
    rotations, transl_m = random_motion(seed=10)
    amc = read_amc(write_amc(tmp_path / "02_01.amc", CMU_RIG, rotations, transl_m, Style(unit_m=CMU)))
    bvh = read_bvh(write_bvh(tmp_path / "02_01.bvh", CMU_RIG, rotations, transl_m, Style(unit_m=CMU)))
    assert np.abs(amc.axis_angle - bvh.axis_angle).max() < 1e-6


AMC_FAULTS = {
    "a bone too few": (lambda text: re.sub("thorax .*\n", "", text, count=1), "line 33: the frame above lacks thorax"),
    "an unknown bone": (lambda text: text.replace("thorax ", "pelvis ", 1), r"line \d+: pelvis is no bone"),
    "a bone twice": (lambda text: text.replace("thorax ", "head ", 1), r"line \d+: head .* stands twice in the frame"),
    "a frame left out": (lambda text: text.replace("\n3\n", "\n7\n"), r"line \d+: frame 2 is followed by frame 7"),
    "a frame of no number": (lambda text: text.replace("\n3\n", "\n\u00b3\n"), r"line \d+: \u00b3 is no bone"),
    "the last frame cut off": (lambda text: text[: text.rindex("lowerneck")], r"its end: the frame above lacks lowern"),
    "a number too few": (lambda text: text.rstrip().rsplit(" ", 1)[0], r"line \d+: 3 numbers are needed, 2 found"),
    "no frame number": (lambda text: text.replace("\n1\n", "\n", 1), "line 4: a frame should begin with its number"),
    "no frames": (lambda text: ":DEGREES", "its end: there are no frames"),
}


@pytest.mark.parametrize(("spoil", "says"), AMC_FAULTS.values(), ids=AMC_FAULTS)
def test_a_faulty_amc_says_what_and_where(tmp_path, spoil, says):
    rotations, transl_m = random_motion(seed=1)
    path = write_amc(tmp_path / "02_01.amc", CMU_RIG, rotations, transl_m, Style())
    path.write_text(spoil(path.read_text()))
    with pytest.raises(MeshrecError, match=says) as caught:
        read_amc(path)
    assert str(path) in str(caught.value)


ASF_FAULTS = {
    "no bones": (lambda text: text.replace(":bonedata", ":bones"), "its end: there is no :bonedata"),
    "a bone of no name": (lambda text: text.replace("name lfemur", "nome lfemur"), r"line \d+: the bone has no name"),
    "a bone of two parents": (
        lambda text: text.replace("lfemur ltibia", "lfemur ltibia rtibia"),
        r"line \d+: .* cannot be above",
    ),
    "a bone on its own": (lambda text: text.replace("lfoot ltoes", "lfoot"), "has no ltoes below it"),
    "a root elsewhere": (lambda text: text.replace("position 0 0 0", "position 0 1 0"), r"line \d+: a position"),
    "a bone that stretches": (lambda text: text.replace("dof r", "dof l r", 1), r"line \d+: l is not understood"),
}


@pytest.mark.parametrize(("spoil", "says"), ASF_FAULTS.values(), ids=ASF_FAULTS)
def test_a_faulty_asf_says_what_and_where(tmp_path, spoil, says):
    rotations, transl_m = random_motion(seed=1)
    path = write_amc(tmp_path / "02_01.amc", CMU_RIG, rotations, transl_m, Style())
    skeleton = path.with_name("02.asf")
    skeleton.write_text(spoil(skeleton.read_text()))
    with pytest.raises(MeshrecError, match=says) as caught:
        read_amc(path)
    assert str(skeleton) in str(caught.value)


def test_a_motion_without_its_skeleton_says_so(tmp_path):
    rotations, transl_m = random_motion(seed=1)
    path = write_amc(tmp_path / "02_01.amc", CMU_RIG, rotations, transl_m, Style())
    (tmp_path / "02.asf").unlink()
    with pytest.raises(MeshrecError, match=r"02\.asf beside it"):
        read_amc(path)


def write_amass(path: Path, rotations: torch.Tensor, transl_m: torch.Tensor, **changes) -> Path:
    """SMPL+H with z up, as AMASS has it; its fingers are bent and should not matter."""
    poses = np.full((len(rotations), 52, 3), 0.3)
    turned = rotations.clone()
    turned[:, 0] = Z_UP.mT @ turned[:, 0]
    poses[:, : SMPL24.index("left_hand")] = roma.rotmat_to_rotvec(turned)[:, : SMPL24.index("left_hand")]
    fields = {"poses": poses.reshape(len(poses), -1), "trans": (transl_m @ Z_UP).numpy(), "betas": np.zeros(16)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{**fields, "mocap_framerate": 100.0, **changes})
    return path


def test_amass_is_turned_to_y_up(tmp_path):
    rotations, transl_m = random_motion(seed=11)
    (motion,) = read_motions(write_amass(tmp_path / "ACCAD" / "s007" / "walk_poses.npz", rotations, transl_m))
    assert angles_between(motion, rotations).max() < 1e-5
    assert np.abs(motion.transl_m - transl_m.numpy()).max() < 1e-6
    assert (motion.name, motion.subject, motion.source, motion.fps) == ("walk", "s007", "ACCAD", 100.0)


AMASS_FAULTS = {
    "no frames": ({"poses": np.zeros((0, 156)), "trans": np.zeros((0, 3))}, "no frames"),
    "not finite": ({"trans": np.full((FRAMES, 3), np.nan)}, "not finite"),
    "other poses": ({"poses": np.zeros((FRAMES, 100))}, "100 numbers a pose"),
    "no rate": ({"mocap_framerate": np.zeros(2)}, "frame rate that is not one number"),
    "a rate of nought": ({"mocap_framerate": 0.0}, "0.0 frames a second"),
    "a rate of all but nought": ({"mocap_framerate": 1e-310}, "1e-310 frames a second"),
    "a rate beyond measure": ({"mocap_framerate": 1e300}, r"1e\+300 frames a second"),
    "a place beyond measure": ({"trans": np.full((FRAMES, 3), 1e6)}, "above 10000 radians or metres.*frame 0"),
    "no poses": ({"poses": np.array("walk")}, "not numbers"),
}


@pytest.mark.parametrize(("changes", "says"), AMASS_FAULTS.values(), ids=AMASS_FAULTS)
def test_a_faulty_amass_file_says_what(tmp_path, changes, says):
    path = write_amass(tmp_path / "a.npz", *random_motion(seed=1), **changes)
    with pytest.raises(MeshrecError, match=says) as caught:
        read_motions(path)
    assert str(path) in str(caught.value)


def write_capture(path: Path, **changes) -> Path:
    """Two clips of our own layout, the second first on disk; one frame is not valid."""
    rotations, transl_m = random_motion(seed=12, frames=7)
    fields = {
        "poses": roma.rotmat_to_rotvec(rotations).numpy().astype(np.float32),
        "trans": transl_m.numpy().astype(np.float32),
        "valid": np.arange(7) != 3,
        "fps": np.float32(30.0),
        "clip_start": np.array([4, 0]),
        "clip_len": np.array([3, 4]),
        "clip_name": np.array(["run", "sit"]),
        "clip_subject": np.array(["ann", "bob"]),
        "clip_source": np.array(["here", "there"]),
    }
    np.savez(path, **{name: array for name, array in {**fields, **changes}.items() if array is not None})
    return path


def test_clips_of_our_own_layout_are_motions(tmp_path):
    run, sit = read_motions(write_capture(tmp_path / "a.npz"))
    rotations, transl_m = random_motion(seed=12, frames=7)
    assert angles_between(run, rotations[4:].float()).max() < 1e-3
    assert np.allclose(sit.transl_m, transl_m[:4])
    assert [(one.name, one.subject, one.source, one.fps) for one in (run, sit)] == [
        ("run", "ann", "here", 30.0),
        ("sit", "bob", "there", 30.0),
    ]
    assert sit.valid.tolist() == [True, True, True, False]


BIG_ENDIAN_AND_LONG = ("<f8", ">f8", np.longdouble)


@pytest.mark.parametrize("dtype", BIG_ENDIAN_AND_LONG)
@pytest.mark.parametrize(
    "write", [lambda path, **more: write_amass(path, *random_motion(seed=11), **more), write_capture]
)
def test_numbers_are_the_same_in_every_byte_order_and_precision(tmp_path, write, dtype):
    path = write(tmp_path / "a.npz")
    with np.load(path) as file:
        stored = {name: file[name].astype(dtype) for name in ("poses", "trans")}
    for one, other in zip(read_motions(path), read_motions(write(tmp_path / "a.npz", **stored)), strict=True):
        assert np.array_equal(one.axis_angle, other.axis_angle)
        assert np.array_equal(one.transl_m, other.transl_m)


def test_the_shape_of_the_person_does_not_matter_to_a_motion(tmp_path):
    rotations, transl_m = random_motion(seed=11)
    plain, odd = (write_amass(tmp_path / name, rotations, transl_m, betas=np.zeros(count)) for name, count in SHAPES)
    assert np.array_equal(read_motions(plain)[0].axis_angle, read_motions(odd)[0].axis_angle)


SHAPES = (("a.npz", 16), ("b.npz", 2_000_000))


def test_angles_are_pi_at_most_and_the_rotations_the_same(tmp_path):
    rotations, _ = random_motion(seed=12, frames=7)
    vectors = roma.rotmat_to_rotvec(rotations)
    axes = torch.nn.functional.normalize(vectors, dim=-1)
    for turns in (-3, -1, 0, 1, 2):
        wound = (vectors + 2 * math.pi * turns * axes).numpy()
        run, _ = read_motions(write_capture(tmp_path / "a.npz", poses=wound))
        assert np.linalg.norm(run.axis_angle, axis=-1).max() < math.pi + 1e-6
        assert np.abs(run.axis_angle - vectors[4:].numpy()).max() < 1e-5
    with pytest.raises(MeshrecError, match="above 10000 radians"):
        read_motions(write_capture(tmp_path / "a.npz", poses=np.full((7, 24, 3), 1e5)))


def test_names_that_cannot_be_written_are_written_with_a_question_mark(tmp_path):
    names = {name: np.array(["a\ud800", "b"]) for name in ("clip_name", "clip_subject", "clip_source")}
    first, _ = read_motions(write_capture(tmp_path / "\udcff.npz", **names))
    assert (first.name, first.subject, first.source) == ("a?", "a?", "a?")
    assert first.file == str(tmp_path / "?.npz")


def test_more_rotations_than_fit_are_refused_before_they_are_made(tmp_path, monkeypatch):
    rotations, transl_m = random_motion(seed=1)
    paths = [write_bvh(tmp_path / "a.bvh", CMU_RIG, rotations, transl_m)]
    paths.append(write_amc(tmp_path / "02_01.amc", CMU_RIG, rotations, transl_m, Style()))
    joints = len(CMU_RIG.names)
    for path in paths:
        monkeypatch.setattr(text_file, "MAX_ROTATIONS", FRAMES * joints)
        assert len(read_motions(path)[0]) == FRAMES
        monkeypatch.setattr(text_file, "MAX_ROTATIONS", FRAMES * joints - 1)
        with pytest.raises(MeshrecError, match=f"{joints} joints in {FRAMES} frames.*shorter files"):
            read_motions(path)


def test_frame_time_is_known_in_any_case(tmp_path):
    path = write_bvh(tmp_path / "a.bvh", CMU_RIG, *random_motion(seed=1))
    path.write_text(path.read_text().replace("Frame Time:", "FRAME  time:").replace("Frames:", "FRAMES:"))
    assert read_bvh(path).fps == 120.0


def test_frames_that_are_not_valid_may_hold_anything(tmp_path):
    poses = np.zeros((7, 24, 3))
    poses[3] = [np.nan, np.inf, 1e300]
    read_motions(write_capture(tmp_path / "a.npz", poses=poses))
    with pytest.raises(MeshrecError, match=r"a\.npz: the clip sit has numbers that are not finite.*frame 3"):
        read_motions(write_capture(tmp_path / "a.npz", poses=poses, valid=np.full(7, True)))


CAPTURE_FAULTS = {
    "no frame rate": ({"fps": None}, "it lacks fps"),
    "a clip too long": ({"clip_len": np.array([4, 4])}, "a clip run from row 4 on, 4 long, but 7 rows"),
    "a clip before the first row": ({"clip_start": np.array([4, -1])}, "a clip sit from row -1"),
    "an empty clip": ({"clip_len": np.array([0, 4])}, "the clip run has no frames"),
    "a name too few": ({"clip_name": np.array(["run"])}, r"clip_name of shape \(1,\)"),
    "no list of clips": ({"clip_start": np.array(0)}, "clip_len of shape"),
    "poses in another shape": ({"poses": np.zeros((7, 72), np.float32)}, r"poses of shape \(7, 72\)"),
    "validity in numbers": ({"valid": np.zeros(7)}, "valid of shape .* and type float64"),
}


@pytest.mark.parametrize(("changes", "says"), CAPTURE_FAULTS.values(), ids=CAPTURE_FAULTS)
def test_a_faulty_capture_says_what(tmp_path, changes, says):
    path = write_capture(tmp_path / "a.npz", **changes)
    with pytest.raises(MeshrecError, match=says) as caught:
        read_motions(path)
    assert str(path) in str(caught.value)


def test_frames_are_kept_at_a_rate_and_none_is_made_up():
    numbers = np.arange(10.0)
    axis_angle = np.broadcast_to(numbers[:, None, None], (10, 24, 3))
    motion = Motion("a", "b", "c", 120.0, axis_angle, np.zeros((10, 3)), np.full(10, True))
    kept = motion.every_hz(30.0)
    assert kept.axis_angle[:, 0, 0].tolist() == [0.0, 4.0, 8.0]
    assert (kept.fps, len(kept), len(kept.transl_m)) == (30.0, 3, 3)
    assert replace(motion, fps=100.0).every_hz(30.0).fps == pytest.approx(100 / 3)
    assert len(replace(motion, fps=25.0).every_hz(30.0)) == 10


def test_the_subject_is_found_in_the_path():
    path = Path("cmu/02/02_01.bvh")
    assert subject_of(path, "parent") == "02"
    assert subject_of(Path("cmu/all/35_01.bvh"), "name") == "35"
    assert subject_of(Path("cmu/all/s35-01.bvh"), r"s(\d+)-") == "35"
    with pytest.raises(MeshrecError, match="no subject in its path"):
        subject_of(path, r"s(\d+)-")
    with pytest.raises(MeshrecError, match="regular expression"):
        subject_of(path, "(")


def test_motions_are_found_in_folders_and_shapes_alone_are_not(tmp_path):
    for name in (
        "b/two.bvh",
        "a/one.AMC",
        "a/one.asf",
        "a/shape.npz",
        "b/neutral_stagei.npz",
        "a/.hidden.npz",
        "c.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_motion_files([tmp_path / "b", tmp_path, tmp_path / "c.txt"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["b/two.bvh", "a/one.AMC", "c.txt"]
    with pytest.raises(MeshrecError, match=r"c\.txt is no file of motion: \.npz, \.bvh, \.amc"):
        read_motions(tmp_path / "c.txt")
    with pytest.raises(MeshrecError, match="There is no"):
        find_motion_files([tmp_path / "d"])
