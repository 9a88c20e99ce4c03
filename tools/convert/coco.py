"""COCO's person keypoints: annotations/person_keypoints_SPLIT.json and a folder of images called SPLIT.

Keypoints are indices of pixels, so half a pixel is added; boxes are continuous already. A joint that is annotated
although it is hidden (v = 1) has confidence 0.5. Crowds are passed over.
"""

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from convert.source import Annotation, Sheet, Source, first_of, image_name, numbers, read_json, rows_of
from meshrec.data.record_files import Header
from meshrec.errors import MeshrecError
from meshrec.keypoint_entries import VISIBILITY_CONFIDENCE
from meshrec.skeletons import COCO17
from meshrec.types import Keypoints

LICENCE = "COCO: annotations under CC BY 4.0; the photographs are under the licences of their owners on Flickr."

PIXEL_CENTRE = 0.5


def read_coco(
    folder: Path,
    split: str = "train2017",
    annotations: Path | None = None,
    images: Path | None = None,
    least_joints: int = 8,
) -> Source:
    """Everybody with a box and at least so many annotated joints who is no crowd."""
    name = f"person_keypoints_{split}.json"
    path = annotations or first_of([folder / "annotations" / name, folder / name], "keypoints of COCO", "--annotations")
    photos = images or first_of([folder / split, folder / "images" / split], "photographs of COCO", "--images")
    content = read_json(path)
    files = {str(row.get("id")): image_name(path, row.get("file_name")) for row in rows_of(path, content, "images")}
    kept, left_out = defaultdict(list), defaultdict(int)
    for row in rows_of(path, content, "annotations"):
        if reason := _unusable(path, row, least_joints):
            left_out[reason] += 1
        elif str(row.get("image_id")) not in files:
            raise MeshrecError(f"{path}: the annotation {row.get('id')} is of an image that is not listed.")
        else:
            kept[str(row["image_id"])].append(row)
    people = sum(map(len, kept.values()))
    made_from = (
        f"COCO {split}: {path.name}, {people} people with {least_joints} joints or more in {len(kept)} photographs"
    )
    header = Header("coco", split, COCO17.name, made_from=made_from, licence=LICENCE)
    sheets = [Sheet(photos / files[image], files[image], partial(_people, path, rows)) for image, rows in kept.items()]
    return Source(header, sheets, left_out)


def _unusable(path: Path, row: dict[str, Any], least_joints: int) -> str:
    """Why somebody is passed over, if they are."""
    if row.get("iscrowd"):
        return "a crowd"
    flags = row["keypoints"][2::3] if isinstance(row.get("keypoints"), list) else []
    if sum(flag > 0 for flag in flags if isinstance(flag, int | float)) < least_joints:
        return f"fewer than {least_joints} joints annotated"
    width, height = numbers(path, row.get("bbox"), f"bbox of annotation {row.get('id')}", 4).tolist()[2:]
    return "" if width > 0 and height > 0 else "an empty box"


def _people(path: Path, rows: list[dict[str, Any]]) -> list[Annotation]:
    return [_person(path, row) for row in rows]


def _person(path: Path, row: dict[str, Any]) -> Annotation:
    what = f"of annotation {row.get('id')}"
    values = numbers(path, row.get("keypoints"), f"keypoints {what}", 3 * len(COCO17)).view(-1, 3)
    if unknown := set(values[:, 2].tolist()) - set(VISIBILITY_CONFIDENCE):
        raise MeshrecError(f"{path}: a keypoint {what} has the flag {unknown.pop():g}; 0, 1 and 2 are known.")
    confidence = torch.tensor([VISIBILITY_CONFIDENCE[int(flag)] for flag in values[:, 2].tolist()])
    xy_px = torch.where(confidence[:, None] > 0, values[:, :2] + PIXEL_CENTRE, 0.0).float()
    x, y, width, height = numbers(path, row["bbox"], f"bbox {what}", 4).tolist()
    box = torch.tensor([x, y, x + width, y + height])
    return Annotation(box, Keypoints(xy_px, confidence, COCO17), sequence=str(row["image_id"]))
