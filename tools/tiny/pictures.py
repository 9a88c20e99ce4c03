"""JPEGs on their way to the disk."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

QUALITY = 95


def write_jpeg(path: Path, pixels: UInt8[np.ndarray, "H W 3"]) -> Path:
    """Write RGB pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done, "any 8-bit RGB picture can be a JPEG"
    path.write_bytes(data.tobytes())
    return path
