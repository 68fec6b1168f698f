"""One mask, checked and brought into the one form the method knows: class ids of the square image's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.ndimage import maximum_filter, minimum_filter

from saadi.data.classes import UNKNOWN, ClassTable
from saadi.data.images import is_turned, open_checked, stored_as, to_square
from saadi.errors import BadInput
from saadi.records import IGNORE, LabelSpace

LOSSY = ("JPEG", "WEBP")
WINDOW = 5
"""Side of the square in which a pixel's neighbours are looked at, pixels: an interpolated edge is about as wide."""

MOSTLY = 0.9
"""Values are called interpolated if this share of their pixels lies between those of neighbours."""

NEAREST = "interpolated edges? resize masks with nearest neighbour"
_FIX_OF_TABLE = "list them, null for pixels of which nothing is known"
_SCALED = {"L;2": 85, "L;4": 17}
"""Pillow spreads grey of few bits over 0 .. 255, by these factors; the ids are what the file holds."""


@dataclass(frozen=True)
class Mask:
    """A mask as large as its file. `channels` [H, W, K] uint8: what the file holds, ids (K = 1) or RGB (K = 3);
    `values` [H, W]: the same, ids or 0xRRGGBB; `ids` [H, W] uint8: class ids, `IGNORE` or `UNKNOWN`."""

    channels: NDArray[np.uint8]
    values: NDArray[np.integer]
    ids: NDArray[np.uint8]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        height, width = self.ids.shape
        return width, height


def open_mask(path: Path, table: ClassTable) -> Mask:
    """Read a PNG as what `table` lists: ids, which are grey values or palette indices, or colours.

    A table with an `opener` is read by that. Turned by its own EXIF, as images are. Raises `BadInput`: what
    `open_checked` refuses, any format but PNG, 16-bit values, colours where ids are listed, transparent pixels.
    """

    def read(image: Image.Image) -> NDArray[np.uint8]:
        if image.format in LOSSY:
            raise BadInput(f"{path}: a {image.format} file, whose compression blurs ids at edges; export masks as PNG")
        if image.format != "PNG":
            raise BadInput(f"{path}: a {image.format} file; save masks as PNG")
        raw = stored_as(image)
        if image.mode.startswith("I") or ";16" in raw:
            raise BadInput(f"{path}: 16-bit values; save masks as 8-bit PNG")
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("LA", "RGBA"):
            if upright.getchannel("A").getextrema() != (255, 255):
                raise BadInput(f"{path}: has transparent pixels, which are of no class; save it without transparency")
            upright = upright.convert(upright.mode[:-1])
        if table.colours:
            upright.info.pop("transparency", None)  # of a palette: its colours are asked for, not what they are laid on
            return np.asarray(upright.convert("RGB"))
        if upright.mode not in ("1", "L", "P"):
            raise BadInput(
                f"{path}: {upright.mode} pixels, but classes.json lists ids; list colours there (#rrggbb), "
                "or save masks as grey or palette PNG"
            )
        return np.asarray(upright).astype(np.uint8)[..., None] // np.uint8(_SCALED.get(raw, 1))

    channels = table.opener(path) if table.opener else open_checked(path, read)
    values: NDArray[np.integer] = channels[..., 0]
    if table.colours:
        red, green, blue = np.moveaxis(channels.astype(np.uint32), 2, 0)
        values = (red << 16) | (green << 8) | blue
    return Mask(channels, values, table.lookup[values])


def between(channels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where [H, W] the value of a pixel [H, W, K] lies strictly between those of neighbours, as on interpolated edges.

    In each channel in which the neighbours differ, and in one at least.
    """
    window = (WINDOW, WINDOW, 1)
    low, high = minimum_filter(channels, window), maximum_filter(channels, window)
    inside, flat = (low < channels) & (channels < high), low == high
    found: NDArray[np.bool_] = (inside | flat).all(-1) & inside.any(-1)
    return found


def unknown_values(path: Path, mask: Mask, table: ClassTable) -> str | None:
    """What is wrong with a mask that holds values which its table does not list, or None."""
    unknown = mask.ids == UNKNOWN
    if not unknown.any():
        return None
    values, counts = np.unique(mask.values[unknown], return_counts=True)
    shown = ", ".join(table.say(int(value)) for value in values[np.argsort(-counts, kind="stable")[:3]])
    more = f" and {len(values) - 3} more" if len(values) > 3 else ""
    blurred = between(mask.channels)[unknown].mean() >= MOSTLY
    fix = NEAREST if blurred else _FIX_OF_TABLE if table.opener is None else "are these the masks of this set?"
    return f"{path}: {counts.sum()} pixels of {shown}{more}, which {table.listed} does not list; {fix}"


def nothing_known(path: Path, mask: Mask) -> str | None:
    """What is wrong with a mask that is ignored everywhere, or None."""
    everywhere = bool((mask.ids == IGNORE).all())
    return f"{path}: every pixel is ignored, so nothing is known of the frame; leave it out" if everywhere else None


def other_size(path: Path, mask: Mask, image_path: Path, image: Image.Image) -> str | None:
    """What is wrong with a mask that is not as large as its upright image, or None."""
    if mask.size == image.size:
        return None
    sizes = " x ".join(map(str, mask.size)), " x ".join(map(str, image.size))
    if mask.size == image.size[::-1] and is_turned(image_path):
        return f"{path}: {sizes[0]} px, its image {sizes[1]} once turned as its EXIF says; turn the mask, too"
    return f"{path}: {sizes[0]} px, its image {image_path.name} {sizes[1]}; a mask must be as large as its image"


def square_mask(ids: NDArray[np.uint8], size: int, square: Literal["pad", "crop"]) -> NDArray[np.uint8]:
    """Class ids [size, size] of a mask [H, W], laid as its image is: of the nearest pixel, `IGNORE` beside it."""
    return np.asarray(to_square(Image.fromarray(ids), size, square, Image.Resampling.NEAREST, IGNORE))


def read_mask(
    path: Path,
    table: ClassTable,
    size: int,
    square: Literal["pad", "crop"],
    image: tuple[Path, Image.Image] | None = None,
) -> NDArray[np.uint8]:
    """Read one mask as class ids and `IGNORE`, uint8 [size, size]. Raises `BadInput` with the first problem.

    `image`: where its image lies, and that image upright; None leaves it to others to compare the sizes.
    """
    mask = open_mask(path, table)
    size_problem = image and other_size(path, mask, *image)
    if problem := size_problem or unknown_values(path, mask, table) or nothing_known(path, mask):
        raise BadInput(problem)
    return square_mask(mask.ids, size, square)


def shown(ids: NDArray[np.uint8], space: LabelSpace) -> tuple[str, ...]:
    """The asked classes of which a mask holds a pixel, in the order of their ids."""
    there = np.bincount(ids.ravel(), minlength=256) > 0
    return tuple(name for name in space.asked if there[space.id(name)])
