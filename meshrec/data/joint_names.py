"""Which joint of a captured skeleton moves which of SMPL's, told by the names that the trade gives them."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from meshrec.errors import MeshrecError

SYNONYMS = (
    ("hip", ("upleg", "thigh", "upperleg", "femur", "hip")),
    ("knee", ("knee", "shin", "calf", "lowerleg", "lowleg", "tibia", "leg")),
    ("ankle", ("ankle", "foot")),
    ("foot", ("toebase", "toe", "toes", "toe0", "ball", "foot")),
    ("shoulder", ("arm", "upperarm", "uparm", "humerus", "shoulder")),
    ("elbow", ("forearm", "elbow", "lowerarm", "lowarm", "radius")),
    ("collar", ("collar", "clavicle", "shoulder")),
    ("wrist", ("wrist", "hand")),
)
"""SMPL's joint without its side, and what others call it, the surest name first.

The rows are read from the top and a joint is given once, so a name may stand in two rows: a `foot` is the toe joint if
there is an `ankle`, a `shoulder` is the collar if there is an `arm`. In CMU's skeletons `lwrist`, called
`LeftHand` in BVH, turns the forearm; the bend of the hand, one joint further down, is left out like the fingers.
"""

CHAINS = (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist"))
"""Joints down a leg and an arm: no skeleton can be read without them."""

SPINE = ("spine1", "spine2", "spine3")

SIDES = {"left": ("left", "l"), "right": ("right", "r")}

_NAMESPACE = re.compile(r"^.*:")
_RIG = re.compile(r"^(mixamorig|bip|character)\d*")


def drivers(names: Sequence[str], parents: Sequence[int]) -> dict[str, int]:
    """For SMPL's joints, the joint of the skeleton that turns with it; those that nothing turns are left out.

    Left out is also the hand, which stays straight. The pelvis is where the legs part, and the spine is what lies
    between that and where the arms part: its joints are shared out evenly. A joint that is no one's gives its rotation
    to the next one below it. A skeleton without whole arms and legs is refused.
    """
    found = _limbs(names)
    for side in SIDES:
        _refuse_broken(found, side, names, parents)
    found["pelvis"] = _meeting(found["left_hip"], found["right_hip"], parents)
    chest = _meeting(found["left_shoulder"], found["right_shoulder"], parents)
    found |= _spine(_way(found["pelvis"], chest, parents))
    return found | _neck(names, parents, chest)


def _limbs(names: Sequence[str]) -> dict[str, int]:
    """The joints of arms and legs, by name."""
    sided: dict[tuple[str, str], int] = {}
    for joint, name in enumerate(names):
        for side, stem in _readings(name):
            sided.setdefault((side, stem), joint)
    found: dict[str, int] = {}
    for stem, others in SYNONYMS:
        for side in SIDES:
            known = [sided[side, other] for other in others if (side, other) in sided]
            if free := [joint for joint in known if joint not in found.values()]:
                found[f"{side}_{stem}"] = free[0]
    return found


def _refuse_broken(found: dict[str, int], side: str, names: Sequence[str], parents: Sequence[int]) -> None:
    """A leg and an arm have all their joints, one below the other."""
    limbs = [[f"{side}_{stem}" for stem in limb] for limb in CHAINS]
    if missing := [joint for limb in limbs for joint in limb if joint not in found]:
        raise MeshrecError(f"no joint is known to be {', '.join(missing)}")
    for limb in limbs:
        for upper, lower in pairwise(found[joint] for joint in limb):
            if upper not in _above(lower, parents):
                raise MeshrecError(f"{names[lower]} should be below {names[upper]}")


def _bare(name: str) -> str:
    """`mixamorig:LeftUpLeg` and `Bip01 L Thigh` are leftupleg and lthigh."""
    return _RIG.sub("", re.sub(r"[^a-z0-9]", "", _NAMESPACE.sub("", name).lower()))


def _readings(name: str) -> Iterator[tuple[str, str]]:
    """Every way to see a side at the beginning or the end of a name, and what is left of it."""
    bare = _bare(name)
    for side, marks in SIDES.items():
        for mark in marks:
            if bare.startswith(mark):
                yield side, bare.removeprefix(mark)
            if bare.endswith(mark):
                yield side, bare.removesuffix(mark)


def _spine(way: list[int]) -> dict[str, int]:
    """The joints of the way up, shared out among SMPL's three: a long spine gives each the last of its third."""
    count = len(way) - 1
    return {joint: way[round((third + 1) * count / len(SPINE))] for third, joint in enumerate(SPINE)}


def _neck(names: Sequence[str], parents: Sequence[int], chest: int) -> dict[str, int]:
    """The neck is the first joint between chest and head; the head, or without one the neck's end, the last."""
    bare = [_bare(name) for name in names]
    tops = [bare.index("head")] if "head" in bare else [joint for joint, name in enumerate(bare) if name[:4] == "neck"]
    way = _way(chest, tops[-1], parents)[1:] if tops else []
    if "head" in bare and len(way) == 1:
        return {"head": way[0]}
    return {"neck": way[0], "head": way[-1]} if way else {}


def _above(joint: int, parents: Sequence[int]) -> list[int]:
    """The joint and all above it, up to the root."""
    above = [joint]
    while parents[above[-1]] >= 0:
        above.append(parents[above[-1]])
    return above


def _meeting(one: int, other: int, parents: Sequence[int]) -> int:
    """The lowest joint above both."""
    return next(joint for joint in _above(one, parents) if joint in _above(other, parents))


def _way(top: int, joint: int, parents: Sequence[int]) -> list[int]:
    """The joints from `top` down to `joint`, both included; `top` alone if `joint` is not below it."""
    above = _above(joint, parents)
    return above[above.index(top) :: -1] if top in above else [top]
