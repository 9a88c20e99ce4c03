"""Photographs: found on the disk, read upright as RGB, and the camera that took them."""

import errno
import glob
import math
import os
import stat
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from meshrec.camera import assumed_focal_px, centered_camera
from meshrec.errors import MeshrecError
from meshrec.files import write_whole
from meshrec.types import Camera, FocalSource

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga"}
    | {".tif", ".tiff", ".webp"}
)
"""What counts as a photograph in a folder or a pattern; a file that is named is read whatever its suffix."""

SMALLEST_SIDE_PX = 32
MOST_PIXELS = 150_000_000
"""A larger picture is refused before it is decoded; 12,000 x 12,000 is read (432 MB as RGB)."""

_DAMAGED = (OSError, EOFError, ValueError, SyntaxError, RuntimeError, LookupError, AttributeError, struct.error)
"""What Pillow raises at a picture that is cut short or damaged."""

_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""Millimetres in EXIF's FocalPlaneResolutionUnit: inch, centimetre, millimetre, micrometre."""
_FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)
_PLAUSIBLE_DIAGONALS = (0.15, 30.0)
"""Focal lengths in image diagonals that a lens has: from a fisheye's to a 1300 mm telephoto's on film."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A photograph, upright."""

    pixels: UInt8[np.ndarray, "H W 3"]
    """RGB."""
    path: Path
    focal_px: float | None = None
    """From the file's EXIF data; None where it says nothing, or nothing credible."""

    @property
    def width_px(self) -> int:
        return self.pixels.shape[1]

    @property
    def height_px(self) -> int:
        return self.pixels.shape[0]


@dataclass(frozen=True)
class Found:
    """What names of photographs lead to."""

    photos: tuple[Path, ...]
    problems: tuple[str, ...] = ()
    """A sentence for each name that leads nowhere."""


def read_photo(path: str | Path) -> Photo:
    """The photograph at `path` in any format that Pillow reads, turned upright as its EXIF orientation says.

    Grey, palette, CMYK and 16-bit pictures become 8-bit RGB (65535 becomes 255); transparency is laid over white; of an
    animation the first frame is read.
    """
    path = Path(path)
    with _open(path) as image:
        _check_size(image, path)
        focal_px = _exif_focal_px(image)
        try:
            _check_sums(image, path)
            pixels = _rgb(ImageOps.exif_transpose(image))
        except _DAMAGED as error:
            raise MeshrecError(
                f"{path} begins as a {image.format} picture but cannot be decoded: {error}. It is cut short or "
                f"damaged; copy it again from where it came."
            ) from error
    return Photo(pixels, path, focal_px)


def find_photos(names: Sequence[str | Path]) -> Found:
    """The photographs meant by files, folders (their own pictures, sorted, not those of subfolders) and patterns.

    In the order of `names`, each file once. A pattern is what holds `*`, `?` or `[` and is no file itself; `~` is home.
    A name that leads nowhere is a problem to tell; only if all do it is a `MeshrecError`.
    """
    if not names:
        raise MeshrecError("No photograph was named. Name files, folders or patterns such as 'holiday/*.jpg'.")
    unique: dict[Path, Path] = {}
    problems = []
    for name in names:
        try:
            for path in _meant_by(_expanded(name)):
                unique.setdefault(path.resolve(), path)
        except MeshrecError as error:
            problems.append(str(error))
    if not unique:
        raise MeshrecError("\n".join(problems))
    return Found(tuple(unique.values()), tuple(problems))


def look_at(path: Path) -> Literal["nothing", "file", "folder", "device"]:
    """What stands at a path."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _NOTHING_THERE:
            return "nothing"
        reason = getattr(error, "strerror", None) or error
        raise MeshrecError(f"Cannot look at {path}: {reason}. Check the name and its permissions.") from error
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "device"


def entries_of(folder: Path) -> list[Path]:
    """Everything in a folder, sorted."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise MeshrecError(f"Cannot list the folder {folder}: {error.strerror}. Check its permissions.") from error


def camera_of(photo: Photo, focal_px: float | None = None) -> Camera:
    """The camera of a photograph: the given focal length, else the EXIF one, else the image diagonal."""
    low, high = plausible_focal_px(photo.width_px, photo.height_px)
    if focal_px is not None and not low <= focal_px <= high:
        raise MeshrecError(
            f"A focal length of {focal_px:g} pixels fits no lens: for {photo.path} choose one from {low:.0f} to "
            f"{high:.0f}."
        )
    source: FocalSource = "assumed"
    if focal_px is not None:
        source = "given"
    elif photo.focal_px is not None:
        focal_px, source = photo.focal_px, "exif"
    else:
        focal_px = assumed_focal_px(photo.width_px, photo.height_px)
    return centered_camera(photo.width_px, photo.height_px, focal_px, source)


def plausible_focal_px(width_px: int, height_px: int) -> tuple[float, float]:
    """The shortest and the longest focal length that a lens has, for a picture of this size."""
    low, high = (share * math.hypot(width_px, height_px) for share in _PLAUSIBLE_DIAGONALS)
    return low, high


def write_png(path: Path, pixels: UInt8[np.ndarray, "H W 3"]) -> Path:
    """Write RGB pixels as PNG, whole or not at all."""
    return write_whole(path, lambda neighbour: Image.fromarray(pixels).save(neighbour, format="PNG"))


def _expanded(name: str | Path) -> Path:
    return Path(os.path.expanduser(name))  # noqa: PTH111  (pathlib's own fails at ~nobody; this lets it stand)


def _meant_by(name: Path) -> list[Path]:
    match look_at(name):
        case "folder":
            return _pictures_in(name)
        case "nothing":
            return _pictures_like(name)
        case _:
            return [name]


def _pictures_in(folder: Path) -> list[Path]:
    entries = entries_of(folder)
    pictures = [entry for entry in entries if _is_picture(entry)]
    if not pictures:
        raise MeshrecError(
            f"The folder {folder} holds {len(entries)} entries but no picture; pictures end in {_suffixes()}. "
            f"Subfolders are not searched: name them."
        )
    return pictures


def _pictures_like(pattern: Path) -> list[Path]:
    if not glob.has_magic(str(pattern)):
        raise MeshrecError(f"There is no file or folder {pattern} (looked in {Path.cwd()}). Check the spelling.")
    matches = sorted(Path(match) for match in glob.glob(str(pattern), recursive=True))  # noqa: PTH207
    pictures = [match for match in matches if _is_picture(match)]
    if not pictures:
        raise MeshrecError(
            f"No picture matches {pattern} (looked in {Path.cwd()}; {len(matches)} other files match). "
            f"Pictures end in {_suffixes()}."
        )
    return pictures


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and look_at(path) == "file"


def _suffixes() -> str:
    return ", ".join(sorted(SUFFIXES))


def _open(path: Path) -> Image.Image:
    match look_at(path):
        case "nothing":
            raise MeshrecError(f"There is no photograph {path} (looked in {Path.cwd()}). Check the spelling.")
        case "folder":
            raise MeshrecError(f"{path} is a folder, not a photograph. Name a picture in it.")
    try:
        return _undecoded(path)
    except UnidentifiedImageError as error:
        raise MeshrecError(
            f"{path} is not a picture in a format that is read here. Convert it to JPEG or PNG "
            f"(phones that write HEIC can export JPEG)."
        ) from error
    except Image.DecompressionBombError as error:
        raise MeshrecError(f"{path} is too large: {str(error).partition(',')[0]}. {_scale_it_down()}") from error
    except OSError as error:
        raise MeshrecError(f"Cannot read {path}: {error.strerror or error}. Check its permissions.") from error
    except _DAMAGED as error:
        raise MeshrecError(f"{path} is a damaged picture: {error}. Copy it again from where it came.") from error


def _undecoded(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked in `_check_size` alone
        return Image.open(path)


def _check_sums(image: Image.Image, path: Path) -> None:
    """Raise at a PNG whose checksums do not hold: Pillow decodes it without a look at them."""
    if image.format == "PNG":
        with _undecoded(path) as again:
            again.verify()


def _check_size(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if min(width, height) < SMALLEST_SIDE_PX:
        raise MeshrecError(
            f"{path} is {width}x{height} pixels; nobody can be measured in a picture with a side under "
            f"{SMALLEST_SIDE_PX} pixels. Choose a larger one."
        )
    if width * height > MOST_PIXELS:
        raise MeshrecError(f"{path} is too large: {width}x{height} pixels. {_scale_it_down()}")


def _scale_it_down() -> str:
    return f"At most {MOST_PIXELS // 1_000_000} million pixels are read; scale it down, to 4000 pixels across, say."


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_deep_grey(np.asarray(image), image.mode)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _from_deep_grey(grey: np.ndarray, mode: str) -> UInt8[np.ndarray, "H W 3"]:
    """Integers are 16-bit: 65535 is white. Floats have white at 1, or at 255 if any is above 1."""
    white = 65535.0
    if mode == "F":
        if not np.isfinite(grey).all():
            raise ValueError("it holds values that are not finite")
        white = 255.0 if grey.max() > 1 else 1.0
    scaled = np.clip(np.rint(grey * (255.0 / white)), 0, 255).astype(np.uint8)
    return np.repeat(scaled[..., None], 3, axis=-1)


def _exif_focal_px(image: Image.Image) -> float | None:
    """Focal length of the stored picture; turning it upright changes nothing, its pixels are square."""
    try:
        exif = image.getexif().get_ifd(ExifTags.IFD.Exif)
        focal_px = _focal_px_of(exif, *image.size)
    except (*_DAMAGED, TypeError, ZeroDivisionError, KeyError):
        return None  # EXIF data is written by careless hands; a photograph with broken EXIF is one without
    low, high = plausible_focal_px(*image.size)
    return focal_px if low <= focal_px <= high else None


def _focal_px_of(exif: dict, width_px: int, height_px: int) -> float:
    """From the 35 mm equivalent by the ratio of diagonals, else from the pixel pitch in the focal plane.

    NaN where neither is known. The pitch belongs to the picture as taken; where EXIF says how large that was, later
    scaling is accounted for.
    """
    on_film_mm = float(exif.get(ExifTags.Base.FocalLengthIn35mmFilm, 0))
    if on_film_mm > 0:
        return on_film_mm / _FILM_DIAGONAL_MM * math.hypot(width_px, height_px)
    focal_mm = float(exif.get(ExifTags.Base.FocalLength, math.nan))
    pixels_per_unit = float(exif.get(ExifTags.Base.FocalPlaneXResolution, math.nan))
    taken = [float(exif.get(tag, 0)) for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)]
    scaling = max(width_px, height_px) / max(taken) if max(taken) > 0 else 1.0
    return focal_mm * pixels_per_unit / _MM_PER_UNIT[exif.get(ExifTags.Base.FocalPlaneResolutionUnit, 2)] * scaling
