"""Image files of every kind become square 8-bit RGB, or one clear line."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saadi.data.images import find_outside, is_turned, open_rgb, summarise, to_square
from saadi.errors import BadInput


def _refused(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        open_rgb(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def _noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def test_rgb_of_the_right_size_is_untouched(tmp_path: Path) -> None:
    image = _noise(32, 32)
    image.save(tmp_path / "a.png")
    opened, note = open_rgb(tmp_path / "a.png")
    pixels = np.asarray(to_square(opened, 32, "pad"))
    assert note is None
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.asarray(image))


@pytest.mark.parametrize(
    ("mode", "note"),
    [("L", "grey"), ("P", "palette"), ("CMYK", "CMYK"), ("1", "1-bit"), ("RGBA", "RGBA"), ("LA", "grey-alpha")],
)
def test_other_modes_are_converted_and_said(tmp_path: Path, mode: str, note: str) -> None:
    path = tmp_path / "a.tif" if mode == "CMYK" else tmp_path / "a.png"
    Image.new("RGB", (40, 40), (255, 255, 255)).convert(mode).save(path)
    image, said = open_rgb(path)
    assert said == f"{note} converted to RGB"
    assert image.mode == "RGB"
    assert np.asarray(image).min() >= 250


def test_sixteen_bit_grey_is_scaled_by_its_full_range(tmp_path: Path) -> None:
    values = np.array([[0, 257, 128 * 257, 65535]] * 4, np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    image, note = open_rgb(tmp_path / "a.png")
    assert note == "16-bit grey converted to RGB"
    np.testing.assert_array_equal(np.asarray(image)[0, :, 0], [0, 1, 128, 255])


def test_sixteen_bit_rgb_is_said(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = (b"\0" + struct.pack(">3H", 65535, 128 * 257, 0) * 4) * 4
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(png)
    image, note = open_rgb(tmp_path / "a.png")
    assert note == "16-bit RGB converted to RGB"
    assert image.getpixel((0, 0)) == (255, 128, 0)


def test_transparency_is_laid_on_black(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4, 4), (200, 100, 50, 128), np.uint8), "RGBA").save(tmp_path / "a.png")
    image, _ = open_rgb(tmp_path / "a.png")
    np.testing.assert_allclose(np.asarray(image)[0, 0], np.array([200, 100, 50]) * 128 / 255, atol=1)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by 90 degrees
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGB", (40, 20)).save(tmp_path / "b.jpg")
    assert open_rgb(tmp_path / "a.jpg")[0].size == (20, 40)
    assert is_turned(tmp_path / "a.jpg")
    assert not is_turned(tmp_path / "b.jpg")


def test_pad_centres_on_black_and_crop_cuts_the_ends() -> None:
    wide = Image.new("RGB", (64, 32), (9, 9, 9))
    wide.paste((200, 0, 0), (0, 0, 8, 32))
    padded = np.asarray(to_square(wide, 32, "pad"))
    assert padded[:8].max() == padded[24:].max() == 0
    assert padded[8:24].min(axis=(0, 1)).max() > 0
    cropped = np.asarray(to_square(wide, 32, "crop"))
    assert (cropped == 9).all()


def test_a_hairline_stays_at_least_one_pixel() -> None:
    assert np.asarray(to_square(Image.new("RGB", (3000, 1), (255, 255, 255)), 32, "pad")).max() == 255


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    _noise(64, 64).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    _refused(path)


def test_files_that_are_no_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    assert "0 bytes" in _refused(tmp_path / "empty.png")
    assert "not an image" in _refused(tmp_path / "text.png")
    assert "no such image" in _refused(tmp_path / "absent.png")
    _refused(tmp_path)


def test_postscript_is_not_even_opened(tmp_path: Path) -> None:
    _noise(8, 8).save(tmp_path / "a.eps")
    assert "not an image" in _refused(tmp_path / "a.eps")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_001, 40_000])
def test_huge_images_are_refused_by_their_header(tmp_path: Path, side: int) -> None:
    Image.new("1", (8, 8)).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    (tmp_path / "a.png").write_bytes(data)
    assert "megapixels" in _refused(tmp_path / "a.png")


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "a.tif")
    assert "32-bit" in _refused(tmp_path / "a.tif")


def test_find_outside(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (tmp_path / "secret.png").touch()
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    find_outside(root / "a" / ".." / "b.png", root)
    for name in ("../secret.png", "link.png", "loop.png", "/etc/hosts"):
        with pytest.raises(BadInput, match="outside the data folder"):
            find_outside(root / name, root)


def test_summarise_counts_by_kind() -> None:
    notes = ["RGBA converted to RGB", None, "grey converted to RGB", "RGBA converted to RGB"]
    assert summarise(notes) == ("2 RGBA images converted to RGB", "1 grey image converted to RGB")
