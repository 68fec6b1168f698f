"""Mask files: what is read as class ids, laid like their images, and one clear line for each thing that is not."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saadi.data.classes import ClassTable
from saadi.data.masks import between, open_mask, read_mask, shown, square_mask
from saadi.errors import BadInput
from saadi.records import IGNORE

IDS = ClassTable(("background", "hook", "clip"), {0: 0, 1: 1, 2: 2, 9: IGNORE})
COLOURS = ClassTable(("background", "hook"), {0: 0, 0xFF0000: 1, 0xFFFFFF: IGNORE}, colours=True)
BINARY = ClassTable(("background", "tool"), {0: 0, 255: 1})


def _disc(value: int = 1, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    return np.where((x - width / 2) ** 2 + (y - height / 2) ** 2 < 200, value, 0).astype(np.uint8)


def _save(path: Path, values: NDArray[np.uint8], mode: str = "L", **options: Any) -> Path:
    image = Image.fromarray(values)
    if mode == "P":
        image = Image.frombytes("P", image.size, values.tobytes())
        image.putpalette([200, 9, 9, 0, 200, 9] + [3] * 762)
    image.save(path, **options)
    return path


def _refused(path: Path, table: ClassTable = IDS, *, image: tuple[Path, Image.Image] | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        read_mask(path, table, 32, "pad", image)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


@pytest.mark.parametrize("mode", ["L", "P"])
def test_grey_values_and_palette_indices_are_ids(tmp_path: Path, mode: str) -> None:
    values = _disc(2)
    values[0, :3] = 9, 255, 1
    mask = open_mask(_save(tmp_path / "a.png", values, mode), IDS)
    expected = values.copy()
    expected[0, 0] = IGNORE
    np.testing.assert_array_equal(mask.ids, expected)
    assert mask.size == (64, 48)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_few_bits_a_pixel_hold_ids_too(tmp_path: Path, bits: int, mode: str) -> None:
    values = _disc(1 if bits == 1 else 2)
    mask = open_mask(_save(tmp_path / "a.png", values, mode, bits=bits), IDS)
    np.testing.assert_array_equal(mask.ids, values)


def test_colours_are_read_from_rgb_opaque_rgba_and_palettes(tmp_path: Path) -> None:
    values = _disc()
    rgb = np.zeros((*values.shape, 3), np.uint8)
    rgb[values > 0] = 255, 0, 0
    rgb[0, 0] = 255, 255, 255
    expected = values.copy()
    expected[0, 0] = IGNORE
    image = Image.fromarray(rgb)
    for name, kind in (("rgb", image), ("rgba", image.convert("RGBA")), ("palette", image.quantize(8))):
        kind.save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(open_mask(tmp_path / f"{name}.png", COLOURS).ids, expected, err_msg=name)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "bmp", "tif"])
def test_png_only_and_lossy_ones_say_why(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(_disc()).convert("RGB").save(tmp_path / f"a.{suffix}")
    message = _refused(tmp_path / f"a.{suffix}")
    assert "PNG" in message
    assert ("blurs ids at edges" in message) == (suffix in ("jpg", "webp"))
    (tmp_path / f"a.{suffix}").rename(tmp_path / "named.png")  # the content counts, not the name
    assert message.split(": ")[1] == _refused(tmp_path / "named.png").split(": ")[1]


def test_pixels_that_are_no_ids_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(_disc()).convert("RGB").save(path)
    assert "RGB pixels, but classes.json lists ids" in _refused(path)
    Image.fromarray(_disc().astype(np.uint16)).save(path)
    assert "16-bit" in _refused(path)
    Image.fromarray(np.dstack([_disc(), _disc(100)])).save(path)
    assert "transparent" in _refused(path)
    Image.fromarray(np.dstack([_disc(), np.full_like(_disc(), 255)])).save(path)
    assert shown(read_mask(path, IDS, 32, "pad"), IDS.space) == ("hook",)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 3, (64, 64), np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "damaged" in _refused(path)
    path.write_bytes(b"")
    assert "0 bytes" in _refused(path)
    path.write_text("hello")
    assert "not an image" in _refused(path)
    path.unlink()
    assert "no such image" in _refused(path)
    _save(path, _disc())
    huge = bytearray(path.read_bytes())
    huge[16:24] = struct.pack(">II", 10_001, 10_001)
    huge[29:33] = struct.pack(">I", zlib.crc32(bytes(huge[12:29])))
    path.write_bytes(huge)
    assert "megapixels" in _refused(path)


def test_unknown_values_are_counted_and_named(tmp_path: Path) -> None:
    values = _disc(1)
    values[:4, :4], values[10:12, :2], values[20, :3] = 7, 8, [11, 12, 12]
    message = _refused(_save(tmp_path / "a.png", values))
    assert "23 pixels of 7, 8, 12 and 1 more, which classes.json does not list; list them, null for" in message
    rgb = np.zeros((8, 8, 3), np.uint8)
    rgb[:4, :4] = 0, 128, 255
    Image.fromarray(rgb).save(tmp_path / "a.png")
    assert "16 pixels of #0080ff, which" in _refused(tmp_path / "a.png", COLOURS)


@pytest.mark.parametrize("kernel", ["BILINEAR", "BICUBIC", "LANCZOS", "HAMMING"])
@pytest.mark.parametrize("scale", [0.4, 0.5, 1.7])
def test_interpolated_edges_are_recognised(tmp_path: Path, kernel: str, scale: float) -> None:
    size = (int(64 * scale), int(48 * scale))
    blurred = Image.fromarray(_disc(255)).resize(size, Image.Resampling[kernel])
    blurred.save(tmp_path / "a.png")
    assert "resize masks with nearest neighbour" in _refused(tmp_path / "a.png", BINARY)
    red = Image.merge("RGB", [blurred, Image.new("L", size), Image.new("L", size)])
    red.save(tmp_path / "b.png")
    assert "resize masks with nearest neighbour" in _refused(tmp_path / "b.png", COLOURS)


def test_a_png_that_was_a_jpeg_is_recognised(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(_disc(255)).save(buffer, "JPEG", quality=90)
    Image.open(buffer).save(tmp_path / "a.png")
    assert "which classes.json does not list" in _refused(tmp_path / "a.png", BINARY)


def test_a_thin_class_that_is_not_listed_is_not_taken_for_an_edge(tmp_path: Path) -> None:
    values = _disc(1)
    values[:, 40:42] = 7  # a thread, brighter than both sides
    assert "list them" in _refused(_save(tmp_path / "a.png", values))


def test_between_needs_a_lower_and_a_higher_neighbour() -> None:
    row = np.array([0, 0, 0, 0, 1, 2, 2, 2, 2, 0, 0, 0, 0, 1, 0, 0, 0], np.uint8)
    found = between(np.tile(row, (9, 1))[..., None])
    assert found.any(0).tolist() == [value == 1 and i == 4 for i, value in enumerate(row)]


def test_masks_are_as_large_as_their_upright_images(tmp_path: Path) -> None:
    mask = _save(tmp_path / "mask.png", _disc(1, 20, 40))
    image = Image.new("RGB", (20, 40))
    image.save(tmp_path / "plain.jpg")
    message = _refused(mask, image=(tmp_path / "plain.jpg", image))
    assert "40 x 20 px, its image plain.jpg 20 x 40; a mask must be" in message
    exif = Image.Exif()
    exif[0x0112] = 6
    image.rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif)
    assert "once turned as its EXIF says; turn the mask, too" in _refused(mask, image=(tmp_path / "turned.jpg", image))
    upright = _save(tmp_path / "upright.png", _disc(1, 40, 20))
    assert read_mask(upright, IDS, 32, "pad", (tmp_path / "turned.jpg", image)).shape == (32, 32)


def test_a_mask_is_turned_by_its_own_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(_disc(1, 20, 40)).save(tmp_path / "a.png", exif=exif)
    assert open_mask(tmp_path / "a.png", IDS).size == (20, 40)


def test_masks_become_square_without_new_ids() -> None:
    wide = np.zeros((32, 64), np.uint8)
    wide[:, :8] = 2
    wide[8:24, 24:40] = 1
    padded = square_mask(wide, 32, "pad")
    assert (padded[:8] == IGNORE).all()
    assert (padded[24:] == IGNORE).all()
    np.testing.assert_array_equal(padded[8:24], wide[1::2, 1::2])
    cropped = square_mask(wide, 32, "crop")
    np.testing.assert_array_equal(cropped, wide[:, 16:48])
    assert shown(padded, IDS.space) == ("hook", "clip")
    assert shown(cropped, IDS.space) == ("hook",)
