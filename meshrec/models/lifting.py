"""The geometry of lifting: rays, virtual cameras, and what every body's joints have in common.

Points lie on the image plane at distance 1, x right and y down: (xy_px - center_px) / focal_px. Joints are in the
camera frame (x right, y down, z away) relative to the pelvis. Both are in the order of H36M17. A unit is the length of
the way from the top of the head over thorax and spine to the pelvis.
"""

from itertools import pairwise

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize, relu

from meshrec.skeletons import H36M17

MIRROR = list(H36M17.mirror)
"""Where each joint's mirror image stands."""

NEAREST = 0.2
"""Nothing of a person is nearer to the camera than this share of the pelvis's distance."""

LIMB_JOINTS = tuple(joint for joint in H36M17.joints if joint.endswith(("_knee", "_ankle", "_elbow", "_wrist")))
"""The joints that limbs bend at or end in."""

_PATH = H36M17.indices("head_top", "thorax", "spine", "pelvis")
_ROOT = H36M17.index("pelvis")
_HIPS = H36M17.indices("left_hip", "right_hip")
assert _ROOT == 0, "with_root puts the pelvis first"

_STATURE = {
    "hip": 0.050,
    "knee": 0.245,
    "ankle": 0.246,
    "spine": 0.144,
    "thorax": 0.144,
    "face": 0.085,
    "head_top": 0.097,
    "shoulder": 0.1125,
    "elbow": 0.186,
    "wrist": 0.146,
}
"""Bone lengths as fractions of the stature, by the joint at a bone's end.

Drillis and Contini, "Body segment parameters" (1966): thigh 0.245, shank 0.246, upper arm 0.186, forearm 0.146, and the
heights of hip 0.530, shoulder 0.818 (the spine halves what is between), chin 0.870 and eyes 0.936 (the face is midway).
Breadths between joints, not over flesh: hips 0.72 of the 0.14 between the iliac spines (Bell, Pedersen and Brand 1990);
shoulders 0.225, the biacromial breadth (Pheasant, "Bodyspace", 1986).
"""

HEAD_PELVIS_SHARE = sum(_STATURE[joint] for joint in ("head_top", "face", "thorax", "spine"))
"""A unit as a fraction of the stature: 0.470, from the hips to the top of the head."""

BONES = H36M17.bones
"""(parent, child) of the 16 bones; bone i ends at joint i + 1."""

BONE_UNITS = tuple(
    _STATURE[H36M17.joints[child].removeprefix("left_").removeprefix("right_")] / HEAD_PELVIS_SHARE
    for _, child in BONES
)
"""Lengths of an average adult's bones, units."""

_ENDS = [child for _, child in BONES]
BONE_MIRROR = [_ENDS.index(H36M17.mirror[child]) for child in _ENDS]
"""Where each bone's mirror image stands among the bones."""

_LIMBS = [bone for bone, child in enumerate(_ENDS) if H36M17.joints[child] in LIMB_JOINTS]
_LIMB_SHARES = [BONE_UNITS[bone] * HEAD_PELVIS_SHARE for bone in _LIMBS]

_LEFT = [bone for bone, child in enumerate(_ENDS) if H36M17.joints[child].startswith("left_")]
_RIGHT = [BONE_MIRROR[bone] for bone in _LEFT]


def look_at_root(
    points: Float[Tensor, "*batch 17 2"], seen: Bool[Tensor, "*batch 17"] | None = None
) -> tuple[Float[Tensor, "*batch 17 2"], Float[Tensor, "*batch 3 3"]]:
    """The points in the camera turned to the pelvis, without roll, and that turn R: ray' = R ray, then divided by z.

    joints = R^T joints' takes what is lifted from them back to the camera. Without a seen pelvis the camera looks at
    the middle of the seen hips, or else of all seen points. Unseen points come out as 0.
    """
    seen = seen_everywhere(points) if seen is None else seen
    points = zeroed(points, seen)
    rotation = _turn_to(_aim(points, seen))
    rays = turned(with_depth(points, torch.ones_like(points[..., 0])), rotation)
    return zeroed(rays[..., :2] / rays[..., 2:], seen), rotation


def _aim(points: Float[Tensor, "*batch 17 2"], seen: Bool[Tensor, "*batch 17"]) -> Float[Tensor, "*batch 2"]:
    """The pelvis; where it is not seen, the middle of the seen hips; without them, of all that is seen."""
    aim = _middle(points, seen)
    for joints in (_HIPS, [_ROOT]):
        known = seen[..., joints].any(-1, keepdim=True)
        aim = torch.where(known, _middle(points[..., joints, :], seen[..., joints]), aim)
    return aim


def _middle(points: Float[Tensor, "*batch K 2"], seen: Bool[Tensor, "*batch K"]) -> Float[Tensor, "*batch 2"]:
    return (points * seen[..., None]).sum(-2) / seen.sum(-1, keepdim=True).clamp_min(1)


def _turn_to(aim: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation that takes the ray (x, y, 1) to the optical axis and keeps the image's horizontal: yaw, then pitch.

    Its rows are the new axes: right = (1, 0, -x) and forward = (x, y, 1), normalised, and down = forward × right.
    """
    x, y = aim.unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    right = normalize(torch.stack([one, zero, -x], dim=-1), dim=-1)
    forward = normalize(torch.stack([x, y, one], dim=-1), dim=-1)
    return torch.stack([right, torch.linalg.cross(forward, right, dim=-1), forward], dim=-2)


def turned(joints: Float[Tensor, "*batch K 3"], rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch K 3"]:
    """R joint, for every joint."""
    return joints @ rotation.mT


def with_depth(points: Float[Tensor, "*batch K 2"], depth: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch K 3"]:
    """(x, y, z)."""
    return torch.cat([points, depth[..., None]], dim=-1)


def with_root(below: Float[Tensor, "*batch 16 D"]) -> Float[Tensor, "*batch 17 D"]:
    """The 16 other joints, after a pelvis at the origin."""
    return torch.cat([torch.zeros_like(below[..., :1, :]), below], dim=-2)


def on_rays(
    points: Float[Tensor, "*batch K 2"],
    depth: Float[Tensor, "*batch K"],
    distance: Float[Tensor, "*batch"],
    zoom: Float[Tensor, ""] | float = 1.0,
) -> Float[Tensor, "*batch K 3"]:
    """Joints [points (distance + zoom depth), depth] that `project_units` takes back to their points exactly.

    The pelvis stands on the optical axis at `distance`. A joint comes no nearer to the camera than `NEAREST` of it.
    """
    distance = distance[..., None]
    depth = torch.maximum(depth, (NEAREST - 1) / zoom * distance)
    return with_depth(points * (distance + zoom * depth)[..., None], depth)


def project_units(
    joints: Float[Tensor, "*batch K 3"], distance: Float[Tensor, "*batch"], zoom: Float[Tensor, ""] | float = 1.0
) -> Float[Tensor, "*batch K 2"]:
    """Points (x, y) / (distance + zoom z) of joints whose pelvis stands on the optical axis at `distance`.

    zoom = 1 is the true perspective. Nothing is nearer than `NEAREST` of the distance.
    """
    distance = distance[..., None]
    return joints[..., :2] / torch.maximum(distance + zoom * joints[..., 2], NEAREST * distance)[..., None]


def novel_rotation(
    azimuth_rad: Float[Tensor, "*batch"],
    elevation_rad: Float[Tensor, "*batch"],
    new_elevation_rad: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch 3 3"]:
    """R_x(new elevation) R_y(azimuth) R_x(-elevation): the joints as another camera that looks at the pelvis sees them.

    The camera goes around the world's vertical by `azimuth_rad`, from one elevation to another; it is positive where
    the camera stands above and looks down.
    """
    return roma.euler_to_rotmat("XYX", [new_elevation_rad, azimuth_rad, -elevation_rad])


def path_length(places: Float[Tensor, "*batch 17 D"]) -> Float[Tensor, "*batch"]:
    """The way from the top of the head over thorax and spine to the pelvis, in the plane or in space."""
    return sum(
        (torch.linalg.vector_norm(places[..., a, :] - places[..., b, :], dim=-1) for a, b in pairwise(_PATH)),
        start=torch.zeros_like(places[..., 0, 0]),
    )


def mean_path(points: Float[Tensor, "N 17 2"], seen: Bool[Tensor, "N 17"]) -> Float[Tensor, ""]:
    """The mean path length of the poses that show all of the path.

    Where none does, 1 / 0.613 times the mean distance of thorax and pelvis, as in `BONE_UNITS`.
    """
    whole = seen[:, _PATH].all(-1)
    if whole.any():
        return path_length(points[whole]).mean()
    ends = H36M17.indices("thorax", "pelvis")
    trunk = seen[:, ends].all(-1)
    if not trunk.any():
        raise ValueError(f"none of {len(points)} poses shows both thorax and pelvis: their size is unknown")
    thorax, pelvis = points[trunk][:, ends].unbind(1)
    share = sum(BONE_UNITS[_ENDS.index(joint)] for joint in H36M17.indices("spine", "thorax"))
    return torch.linalg.vector_norm(thorax - pelvis, dim=-1).mean() / share


def mean_squares(points: Float[Tensor, "N 17 2"], seen: Bool[Tensor, "N 17"]) -> Float[Tensor, "17"]:
    """The mean of each joint's |p|^2 over the poses that show it; 0 for a joint that none shows."""
    return (_squares(points) * seen).sum(0) / seen.sum(0).clamp_min(1)


def size_of(
    points: Float[Tensor, "*batch 17 2"], seen: Bool[Tensor, "*batch 17"], squares: Float[Tensor, "17"]
) -> Float[Tensor, "*batch"]:
    """s = sqrt(sum |p|^2 / sum squares) over the seen joints: 1 on average where `squares` are `mean_squares`.

    A foreshortened limb changes it little, a lost one hardly. It is 1 where no joint but the pelvis is seen.
    """
    expected = (squares * seen).sum(-1)
    found = torch.where(seen, _squares(points), 0.0).sum(-1)
    known = (expected > 0) & (found > 0)
    return (torch.where(known, found, 1.0) / torch.where(known, expected, 1.0)).sqrt()


def _squares(points: Float[Tensor, "*batch K 2"]) -> Float[Tensor, "*batch K"]:
    return points.square().sum(-1)


def mirrored_points(points: Float[Tensor, "*batch 17 2"]) -> Float[Tensor, "*batch 17 2"]:
    """The picture of the mirrored person: left and right change names and x its sign."""
    return points[..., MIRROR, :] * points.new_tensor([-1.0, 1.0])


def mirrored_joints(joints: Float[Tensor, "*batch 17 3"]) -> Float[Tensor, "*batch 17 3"]:
    """The mirrored person: left and right change names and x its sign."""
    return joints[..., MIRROR, :] * joints.new_tensor([-1.0, 1.0, 1.0])


def mirrored_seen(seen: Bool[Tensor, "*batch 17"]) -> Bool[Tensor, "*batch 17"]:
    """What is seen of the mirrored person."""
    return seen[..., MIRROR]


def facing(joints: Float[Tensor, "*batch 17 3"]) -> Float[Tensor, "*batch 3"]:
    """f = ((left - right shoulder) + (left - right hip)) × (head - pelvis), of length 1: where the trunk faces."""
    across = from_to(joints, "right_shoulder", "left_shoulder") + from_to(joints, "right_hip", "left_hip")
    return normalize(torch.linalg.cross(across, from_to(joints, "pelvis", "head_top"), dim=-1), dim=-1)


def chirality(joints: Float[Tensor, "*batch 17 3"]) -> Float[Tensor, "*batch"]:
    """The sum of relu(-v f) over what people bend forwards, in units: about 0 for a person, more for a depth inversion.

    v is each knee from the middle of its hip and ankle, and the head from the thorax; f is `facing`. No turn and no
    mirror changes it; z -> -z changes the sign of every v f.
    """
    bends = [from_to(joints, "thorax", "head_top")]
    for side in ("left", "right"):
        hip, knee, ankle = joints[..., H36M17.indices(f"{side}_hip", f"{side}_knee", f"{side}_ankle"), :].unbind(-2)
        bends.append(knee - (hip + ankle) / 2)
    forwards = (torch.stack(bends, dim=-2) * facing(joints)[..., None, :]).sum(-1)
    return relu(-forwards).sum(-1)


def from_to(joints: Float[Tensor, "*batch 17 3"], start: str, end: str) -> Float[Tensor, "*batch 3"]:
    """The way from one joint to another."""
    return joints[..., H36M17.index(end), :] - joints[..., H36M17.index(start), :]


def bone_lengths(joints: Float[Tensor, "*batch 17 3"]) -> Float[Tensor, "*batch 16"]:
    """Lengths of the bones, in the order of `BONES`."""
    parents, children = ([bone[end] for bone in BONES] for end in (0, 1))
    return torch.linalg.vector_norm(joints[..., children, :] - joints[..., parents, :], dim=-1)


def asymmetry(lengths: Float[Tensor, "*batch 16"]) -> Float[Tensor, "*batch"]:
    """The mean of |left - right| over the six pairs of bones."""
    return (lengths[..., _LEFT] - lengths[..., _RIGHT]).abs().mean(-1)


def bone_log_ratios(lengths: Float[Tensor, "*batch 16"]) -> Float[Tensor, "*batch 16"]:
    """log(length / `BONE_UNITS`), of lengths in units; a bone shorter than 0.01 counts as 0.01."""
    return (lengths.clamp_min(0.01) / lengths.new_tensor(BONE_UNITS)).log()


def stature(joints: Float[Tensor, "*batch 17 3"]) -> Float[Tensor, "*batch"]:
    """The body height that goes with thighs, shanks, upper arms and forearms: the geometric mean of length / share.

    In the unit of the joints. Heads and trunks have no say: where their joints are differs between joint sets.
    """
    lengths = bone_lengths(joints)[..., _LIMBS].clamp_min(1e-6)
    return (lengths / lengths.new_tensor(_LIMB_SHARES)).log().mean(-1).exp()


def slerp(
    start: Float[Tensor, "*batch D"], end: Float[Tensor, "*batch D"], share: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch D"]:
    """Between two latent points along the sphere, 0 <= share <= 1; the norm goes evenly from one's to the other's.

    Directions a, b at an angle w: (sin((1 - t) w) a + sin(t w) b) / sin w (Shoemake 1985). Where they are equal or
    opposite, and no way is singled out, it is straight.
    """
    t = share[..., None]
    a, b = normalize(start, dim=-1), normalize(end, dim=-1)
    angle = 2 * torch.atan2(_norm(a - b), _norm(a + b))
    curved = angle.sin() > 1e-6
    sine = torch.where(curved, angle.sin(), 1.0)
    of_a, of_b = (torch.where(curved, (part * angle).sin() / sine, part) for part in (1 - t, t))
    return ((1 - t) * _norm(start) + t * _norm(end)) * (of_a * a + of_b * b)


def _norm(vectors: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch 1"]:
    return torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)


def seen_everywhere(points: Float[Tensor, "*batch K 2"]) -> Bool[Tensor, "*batch K"]:
    """The mask of points that are all seen."""
    return torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)


def zeroed(points: Float[Tensor, "*batch K D"], seen: Bool[Tensor, "*batch K"]) -> Float[Tensor, "*batch K D"]:
    """The points with the unseen ones at 0, whatever they were."""
    return torch.where(seen[..., None], points, 0.0)
