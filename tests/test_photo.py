"""Laws of reading photographs: one picture, however it is stored, gives the same pixels."""

import math
import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from meshrec.errors import MeshrecError
from meshrec.photo import Photo, camera_of, find_photos, look_at, read_photo, write_png

WIDTH, HEIGHT = 60, 40


@pytest.fixture
def pixels() -> np.ndarray:
    """A smooth picture without any symmetry."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([4 * x, 5 * y, 120 + x - y], axis=-1).astype(np.uint8)


def save(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "tga"])
def test_lossless_formats_give_the_pixels(tmp_path: Path, pixels: np.ndarray, suffix: str):
    photo = read_photo(save(tmp_path / f"a.{suffix}", Image.fromarray(pixels)))
    assert np.array_equal(photo.pixels, pixels)
    assert (photo.width_px, photo.height_px, photo.focal_px) == (WIDTH, HEIGHT, None)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats_come_close(tmp_path: Path, pixels: np.ndarray, suffix: str):
    photo = read_photo(save(tmp_path / f"a.{suffix}", Image.fromarray(pixels), quality=95))
    assert np.abs(photo.pixels.astype(int) - pixels).mean() < 3


def test_write_png_is_undone_by_read_photo(tmp_path: Path, pixels: np.ndarray):
    assert np.array_equal(read_photo(write_png(tmp_path / "new" / "a.png", pixels)).pixels, pixels)


ORIENTED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}
"""How a camera held so stores an upright picture (EXIF 2.3, tag 0x0112)."""


@pytest.mark.parametrize("orientation", ORIENTED)
def test_every_orientation_is_turned_upright(tmp_path: Path, pixels: np.ndarray, orientation: int):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = Image.fromarray(np.ascontiguousarray(ORIENTED[orientation](pixels)))
    assert np.array_equal(read_photo(save(tmp_path / "a.png", stored, exif=exif)).pixels, pixels)


def test_sixteen_bits_are_scaled(tmp_path: Path):
    grey = np.linspace(0, 65535, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint16)
    for name in ("a.png", "a.tif"):
        photo = read_photo(save(tmp_path / name, Image.fromarray(grey)))
        assert np.abs(photo.pixels[..., 1] - grey / 257).max() <= 0.5
        assert photo.pixels.max() == 255 and (photo.pixels[..., 0] == photo.pixels[..., 2]).all()


def test_floats_are_scaled(tmp_path: Path):
    grey = np.linspace(0, 1, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.float32)
    one = read_photo(save(tmp_path / "a.tif", Image.fromarray(grey)))
    many = read_photo(save(tmp_path / "b.tif", Image.fromarray(255 * grey)))
    assert np.array_equal(one.pixels, many.pixels) and one.pixels.max() == 255
    grey[0, 0] = np.nan
    with pytest.raises(MeshrecError, match="not finite"):
        read_photo(save(tmp_path / "c.tif", Image.fromarray(grey)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_colour_modes_become_rgb(tmp_path: Path, pixels: np.ndarray, mode: str):
    image = Image.fromarray(pixels).convert(mode)
    suffix = "tif" if mode in ("CMYK", "YCbCr") else "png"
    photo = read_photo(save(tmp_path / f"a.{suffix}", image))
    assert np.abs(photo.pixels.astype(int) - np.asarray(image.convert("RGB"))).max() <= 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_over_white(tmp_path: Path, mode: str):
    image = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, WIDTH // 2, HEIGHT))
    photo = read_photo(save(tmp_path / "a.png", image.convert(mode)))
    assert (photo.pixels[:, : WIDTH // 2] == 255).all() and (photo.pixels[:, WIDTH // 2 :] == 0).all()


def test_half_transparent_black_over_white_is_grey(tmp_path: Path):
    photo = read_photo(save(tmp_path / "a.png", Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 128))))
    assert (photo.pixels == 127).all()


def with_exif(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), orientation: int = 1, **tags) -> Photo:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif).update({ExifTags.Base[name].value: value for name, value in tags.items()})
    return read_photo(save(path, Image.new("RGB", size), exif=exif))


@pytest.mark.parametrize("orientation", [1, 6])
def test_focal_length_on_film(tmp_path: Path, orientation: int):
    photo = with_exif(tmp_path / "a.jpg", (600, 400), orientation, FocalLengthIn35mmFilm=36)
    assert photo.focal_px == pytest.approx(600.0)  # 36 mm of film width, 600 pixels of image width
    assert photo.pixels.shape == ((400, 600, 3) if orientation == 1 else (600, 400, 3))


@pytest.mark.parametrize(("unit", "per_unit"), [(2, 2540.0), (3, 1000.0), (4, 100.0)])
def test_focal_length_from_the_pixel_pitch(tmp_path: Path, unit: int, per_unit: float):
    pitch = {"FocalPlaneXResolution": per_unit, "FocalPlaneResolutionUnit": unit}
    photo = with_exif(tmp_path / "a.jpg", (600, 400), FocalLength=5.0, **pitch)
    assert photo.focal_px == pytest.approx(500.0)
    halved = with_exif(tmp_path / "b.jpg", (600, 400), FocalLength=5.0, ExifImageWidth=1200, **pitch)
    assert halved.focal_px == pytest.approx(250.0)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"FocalLengthIn35mmFilm": 0},
        {"FocalLengthIn35mmFilm": 65535},
        {"FocalLengthIn35mmFilm": 1},
        {"FocalLength": 5.0},
        {"FocalLength": 5.0, "FocalPlaneXResolution": 0.0},
        {"FocalLength": 5.0, "FocalPlaneXResolution": 100.0, "FocalPlaneResolutionUnit": 9},
    ],
)
def test_absurd_exif_is_ignored(tmp_path: Path, tags: dict):
    assert with_exif(tmp_path / "a.jpg", **tags).focal_px is None


def test_camera_prefers_given_then_exif_then_assumed(tmp_path: Path):
    pixels = np.zeros((400, 300, 3), np.uint8)
    cameras = [
        camera_of(Photo(pixels, tmp_path, exif), given) for exif, given in [(9.0, 170.0), (9.0, None), (None, None)]
    ]
    assert [camera.focal_source for camera in cameras] == ["given", "exif", "assumed"]
    assert [float(camera.focal_px) for camera in cameras] == [170.0, 9.0, 500.0]
    assert torch.equal(cameras[0].center_px, torch.tensor([150.0, 200.0]))
    assert (cameras[0].width_px, cameras[0].height_px) == (300, 400)
    for absurd in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(MeshrecError, match="fits no lens"):
            camera_of(Photo(pixels, tmp_path), absurd)


def huge_png(path: Path, side: int) -> Path:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")))
    return path


@pytest.mark.parametrize("side", [12_300, 20_000])
@pytest.mark.filterwarnings("error")
def test_a_huge_picture_is_refused_at_once(tmp_path: Path, side: int):
    start = time.perf_counter()
    with pytest.raises(MeshrecError, match="scale it down"):
        read_photo(huge_png(tmp_path / "a.png", side))
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("size", [(1, 1), (31, 400), (400, 31)])
def test_a_tiny_picture_is_refused(tmp_path: Path, size: tuple[int, int]):
    with pytest.raises(MeshrecError, match=f"{size[0]}x{size[1]}"):
        read_photo(save(tmp_path / "a.png", Image.new("RGB", size)))


def test_what_is_no_photograph_is_refused(tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(MeshrecError, match="no photograph"):
        read_photo(tmp_path / "missing.jpg")
    with pytest.raises(MeshrecError, match="is a folder"):
        read_photo(tmp_path)
    for name, content in {"text.jpg": b"hello", "empty.png": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MeshrecError, match="not a picture"):
            read_photo(tmp_path / name)
    locked = save(tmp_path / "locked.png", Image.fromarray(pixels))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(MeshrecError, match="Permission denied"):
        read_photo(locked)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp", "gif", "avif", "dds"])
def test_a_truncated_or_damaged_picture_is_advice(tmp_path: Path, suffix: str):
    """Wherever a file is cut or hit, it is either read or refused in a sentence; nothing else comes out."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    whole = save(tmp_path / f"a.{suffix}", noise).read_bytes()
    broken = tmp_path / f"b.{suffix}"
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MeshrecError, match=r"b\."):
        read_photo(broken)
    for _ in range(60):
        damaged = bytearray(whole)
        for at in rng.integers(0, min(len(whole), 400), 3):
            damaged[at] = rng.integers(256)
        broken.write_bytes(damaged)
        try:
            read_photo(broken)
        except MeshrecError as error:
            assert "b." in str(error)


def test_a_png_whose_checksums_fail_is_refused(tmp_path: Path):
    """Stored bytes change the pixels and nothing else: the checksum alone tells."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    content = bytearray(save(tmp_path / "a.png", noise, compress_level=0).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(MeshrecError, match=r"a\.png .*checksum"):
        read_photo(tmp_path / "a.png")


def found(*names: str | Path) -> list[Path]:
    result = find_photos(names)
    assert result.problems == ()
    return list(result.photos)


def test_find_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("b.JPG", "a.png", ".hidden.png", "notes.txt", "sub/c.png", "odd[1].png", "photo.raw"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop.png").symlink_to("loop.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "sub"))
    names = [path.name for path in found("b.JPG", tmp_path, "*.png", "sub", "photo.raw", "sub/../a.png")]
    assert names == ["b.JPG", "a.png", "odd[1].png", "c.png", "photo.raw"]
    assert found("odd[1].png") == [Path("odd[1].png")]
    assert found("~/*.png", "~") == [tmp_path / "sub" / "c.png"]


def test_one_wrong_name_does_not_hide_the_others(tmp_path: Path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    result = find_photos([tmp_path / "a.png", tmp_path / "nope.jpg", "~nobody-of-this-name/x.png", tmp_path / "b.png"])
    assert result.photos == (tmp_path / "a.png", tmp_path / "b.png")
    assert len(result.problems) == 2 and "nope.jpg" in result.problems[0] and "~nobody" in result.problems[1]
    with pytest.raises(MeshrecError, match=r"(?s)nope\.jpg.*\*\.gif"):
        find_photos([tmp_path / "nope.jpg", tmp_path / "*.gif"])


def test_find_photos_says_what_it_looked_for(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    for names, words in [
        ([], "No photograph"),
        ([tmp_path / "nope.jpg"], "nope.jpg"),
        ([tmp_path], "no picture"),
        ([tmp_path / "*.jpg"], "No picture matches"),
        ([tmp_path / "*.txt"], "1 other files"),
        (["a" * 5000], "File name too long"),
        (["a" * 5000 + "*"], "File name too long"),
        (["a\0b"], "null byte"),
    ]:
        with pytest.raises(MeshrecError, match=words):
            find_photos(names)
    with pytest.raises(MeshrecError, match="File name too long"):
        read_photo("a" * 5000)


def test_what_may_not_be_looked_at_is_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.png").touch()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", refuse)
        with pytest.raises(MeshrecError, match=r"Cannot list the folder .* Permission denied"):
            find_photos([tmp_path])
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", refuse)
        for act in (look_at, read_photo, lambda path: find_photos([path])):
            with pytest.raises(MeshrecError, match=r"Cannot look at .*a\.png: Permission denied"):
                act(tmp_path / "a.png")


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder with a picture in it that may be neither listed nor entered."""
    if os.geteuid() == 0:
        pytest.skip("root may look everywhere")
    folder = tmp_path / "locked"
    folder.mkdir()
    (folder / "a.png").touch()
    folder.chmod(0)
    yield folder
    folder.chmod(0o700)


def test_a_locked_folder_is_advice(locked: Path):
    for name in (locked, locked / "a.png", locked / "*.png"):
        with pytest.raises(MeshrecError, match=r"Permission denied\. Check"):
            find_photos([name])
    with pytest.raises(MeshrecError, match=r"Permission denied\. Check"):
        read_photo(locked / "a.png")
    locked.chmod(0o400)  # it may be listed, but not entered
    with pytest.raises(MeshrecError, match=r"Permission denied\. Check"):
        find_photos([locked])
