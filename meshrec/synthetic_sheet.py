"""A picture of synthetic people: crops of records, their true skeletons, and what a detector would have found."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from meshrec.body import BodyModel
from meshrec.camera import project
from meshrec.data.crop import cut, square_of
from meshrec.data.records import Record
from meshrec.keypoints import SEEN_CONFIDENCE
from meshrec.sheet import captioned, grid
from meshrec.skeleton_plot import skeletons_over
from meshrec.skeletons import H36M17

TILE_PX = 224

FOUND, SURE_PX = (255, 235, 60), 3
"""Colour and radius of what the detector found and is sure of."""


def sheet(records: Sequence[Record], model: BodyModel) -> UInt8[np.ndarray, "H W 3"]:
    """Everybody as the network sees them, and once more with the truth over it and rings at the found joints."""
    return grid([_tile(record, model) for record in records])


def _tile(record: Record, model: BodyModel) -> UInt8[np.ndarray, "h w 3"]:
    assert record.truth is not None and record.camera is not None
    square = square_of(record.box_xyxy_px)
    crop = cut(record.pixels, record.picture_square(square), TILE_PX)
    joints_m = model.regressed(record.truth.params, H36M17)
    xy_px = square.into(project(joints_m, record.camera), TILE_PX).numpy()
    over = skeletons_over(crop, [(xy_px, joints_m[:, 2].numpy() > 0, joints_m[:, 2].numpy())])
    sure = record.keypoints.confidence >= SEEN_CONFIDENCE
    for x, y in square.into(record.keypoints.xy_px[sure], TILE_PX).round().int().tolist():
        cv2.circle(over, (x, y), SURE_PX, FOUND, 1, cv2.LINE_AA)
    return captioned(np.concatenate([crop, over], axis=1), [record.sequence])
