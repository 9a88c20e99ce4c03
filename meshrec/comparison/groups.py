"""What people of records may be told apart by: how they stand to the camera, how large and how much of them is seen."""

import math
from collections.abc import Sequence

import numpy as np
import roma
import torch
from jaxtyping import Float, Int

from meshrec.comparison.figures import LIMB_JOINTS
from meshrec.comparison.people import RecordPeople, rows_of
from meshrec.keypoints import SEEN_CONFIDENCE

SIZES_PX = (200, 400)
"""Of the longer side of a box in the photograph: below the first people are small, from the second on large."""

MANY = 4
"""So many joints unseen are many."""

CUT_SHARE = 0.01
"""Who reaches beyond the photograph by more than this share of their box is cut off by its border."""


def groups_of(people: RecordPeople) -> dict[str, tuple[str, ...]]:
    """The level of each person in each group; sequences that are named like "light_2/crowd_0" are groups of their own.

    What such names tell of occlusion or truncation goes before what keypoints and boxes do.
    """
    several = len(people.records) > 1
    datasets = [people.records[which].name for which in people.which] if several else []
    groups = {
        "view": views_of(angles_rad(people)),
        "occlusion": _occlusion(people),
        "truncation": _truncation(people),
        "size": _sizes(people),
        "data": tuple(datasets),
        **parts_of(people.texts("sequence")),
    }
    return {name: levels for name, levels in groups.items() if any(levels)}


def parts_of(sequences: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The sequences; or each part of their names, where all have as many parts, under what these have in common.

    Parts that have the same in common are not told apart.
    """
    parts = list(zip(*(name.split("/") for name in sequences), strict=False))
    if len({name.count("/") for name in sequences}) != 1 or len(parts) < 2:
        return {"sequence": tuple(sequences)}
    kinds = {_kind(names, place): names for place, names in enumerate(parts)}
    if len(kinds) < len(parts):
        return {"sequence": tuple(sequences)}
    return {kind: tuple(name.removeprefix(f"{kind}_") for name in names) for kind, names in kinds.items()}


def _kind(names: Sequence[str], place: int) -> str:
    kinds = {name.rpartition("_")[0] for name in names}
    return kinds.pop() if len(kinds) == 1 and kinds != {""} else f"part {place + 1} of the sequence"


def angles_rad(people: RecordPeople) -> Float[np.ndarray, "N"]:
    """Which way the true person faces, about the vertical: 0 to the camera, positive to the right of the picture.

    The camera is looked for where the body stands, or in front where its place is not known.
    """
    if not people.known:
        return np.full(len(people), math.nan)
    root = people.column("pose_axis_angle")[:, 0]
    facing = roma.rotvec_to_rotmat(torch.from_numpy(np.array(root)).double())[:, :, 2].numpy()
    place = people.column("transl_m").astype(float)
    straight = np.array([0.0, 0.0, 1.0])
    away = np.where(np.isfinite(place).all(1, keepdims=True), place, straight)
    away = np.where(away[:, 2:] > 0, away, straight)
    return _wrapped(np.arctan2(facing[:, 0], -facing[:, 2]) + np.arctan2(away[:, 0], away[:, 2]))


def _wrapped(angles: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Into -pi to pi."""
    return np.arctan2(np.sin(angles), np.cos(angles))


def views_of(angles: Float[np.ndarray, "N"]) -> tuple[str, ...]:
    """Front within 45 degrees of the camera, back within 45 of the other way, else side; empty: not known."""
    turned = np.abs(angles)
    names = np.where(turned < math.pi / 4, "front", np.where(turned > 3 * math.pi / 4, "back", "side"))
    return tuple(np.where(np.isfinite(angles), names, "").tolist())


def _occlusion(people: RecordPeople) -> tuple[str, ...]:
    """By how many limb joints are not seen."""
    unseen = np.empty(len(people), int)
    for index, records in enumerate(people.records):
        theirs = people.which == index
        limbs = [records.skeleton.index(joint) for joint in LIMB_JOINTS if joint in records.skeleton.joints]
        confidence = rows_of(records, "keypoints", people.row[theirs])[:, limbs, 2]
        unseen[theirs] = (confidence < SEEN_CONFIDENCE).sum(1)
    return _named(unseen, (1, MANY), ("no limb joint unseen", f"1 to {MANY - 1} unseen", f"{MANY} or more unseen"))


def _truncation(people: RecordPeople) -> tuple[str, ...]:
    boxes, photos = people.column("box_xyxy_px").astype(float), people.column("photo_size_px")
    beyond = np.concatenate([-boxes[:, :2], boxes[:, 2:] - photos], axis=1).max(1)
    cut = beyond > CUT_SHARE * _sides_px(people)
    return tuple(np.where(cut, "cut off by the border", "whole").tolist())


def _sizes(people: RecordPeople) -> tuple[str, ...]:
    small, large = SIZES_PX
    sides = _sides_px(people).astype(int)
    return _named(sides, SIZES_PX, (f"under {small} px", f"{small} to {large} px", f"{large} px or more"))


def _sides_px(people: RecordPeople) -> Float[np.ndarray, "N"]:
    """The longer sides of the boxes."""
    boxes = people.column("box_xyxy_px").astype(float)
    return (boxes[:, 2:] - boxes[:, :2]).max(1)


def _named(numbers: Int[np.ndarray, "N"], borders: Sequence[int], names: Sequence[str]) -> tuple[str, ...]:
    """The name of what each number lies in; borders belong to what is above them."""
    return tuple(names[int(place)] for place in np.searchsorted(borders, numbers, side="right"))
