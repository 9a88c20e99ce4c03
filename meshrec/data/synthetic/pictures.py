"""A folder of pictures, some of which are kept in memory."""

from collections import OrderedDict
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from meshrec.errors import MeshrecError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
LONGEST_PX = 640
"""Larger pictures are made smaller: photographs of people need no more."""

KEPT_BYTES = 2**28
"""What is kept in memory, at most."""


class Pictures:
    """The pictures of a folder and its folders, in the order of their paths, read when they are asked for."""

    def __init__(self, folder: Path, kept_bytes: int = KEPT_BYTES) -> None:
        self.folder, self.kept_bytes = folder, kept_bytes
        if not folder.is_dir():
            raise MeshrecError(f"There is no folder of backgrounds {folder}; name one, or none for made-up grounds.")
        self.paths = sorted(path for path in folder.rglob("[!.]*") if path.suffix.lower() in SUFFIXES)
        if not self.paths:
            endings = ", ".join(sorted(SUFFIXES))
            raise MeshrecError(f"The folder of backgrounds {folder} has no pictures ({endings}); put some in.")
        if broken := next((path for path in self.paths if not _begins_well(path)), None):
            raise _unreadable(broken)
        self._lock = Lock()
        self._kept: OrderedDict[int, UInt8[np.ndarray, "h w 3"]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> UInt8[np.ndarray, "h w 3"]:
        """A picture, RGB."""
        with self._lock:
            if place in self._kept:
                self._kept.move_to_end(place)
                return self._kept[place]
        picture = _read(self.paths[place])
        with self._lock:
            if place not in self._kept:
                self._kept[place] = picture
                self._bytes += picture.nbytes
            while self._bytes > self.kept_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return picture


def _begins_well(path: Path) -> bool:
    """Whether a file begins as a picture does: what a look at a thousand files can tell before work begins."""
    try:
        with Image.open(path):
            return True
    except (OSError, Image.DecompressionBombError):
        return False


def _read(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    try:
        bgr = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as error:
        raise MeshrecError(f"Cannot read the background {path}: {error}. Repair it or take it out.") from error
    if bgr is None:
        raise _unreadable(path)
    share = LONGEST_PX / max(bgr.shape[:2])
    if share < 1:
        bgr = cv2.resize(bgr, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _unreadable(path: Path) -> MeshrecError:
    return MeshrecError(f"The background {path} is no picture that can be read. Repair it or take it out.")
