"""One image file, checked and brought into the one form the method knows: square 8-bit RGB."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from saadi.errors import BadInput
from saadi.files import file_digest

MAX_PIXELS = 100_000_000
"""Larger images are refused: no camera in an operating theatre makes them, and one of them can fill the memory."""

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""The decoders in use. Pillow has others, some of which start foreign programs (EPS): those stay shut."""

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `MAX_PIXELS` decides, in one line
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # what cannot be read, we say in one line, too

_KINDS = {"1": "1-bit", "L": "grey", "LA": "grey-alpha", "P": "palette", "PA": "palette"}
_FIX = "replace it or remove it from the data"
_ORIENTATION = 0x0112
"""The EXIF tag that says how the camera was held."""

T = TypeVar("T")
Window = tuple[int, int, int, int]
"""Left, top, width and height of what is used of an image, pixels."""


def find_outside(path: Path, root: Path) -> None:
    """Raise `BadInput` if `path`, links followed, is not inside the folder `root`."""
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # links in a circle
        inside = False
    if not inside:
        raise BadInput(f"{path}: lies outside the data folder {root}; move it into the folder")


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB from any mode: 16-bit grey by its full range, transparency on black."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
    return image.convert("RGB")


def stored_as(image: Image.Image) -> str:
    """Pillow's name for how a file holds its pixels, as "L;4". Read before they are: it is forgotten on the way."""
    raw = [tile[3] if isinstance(tile[3], str) else (tile[3] or ("",))[0] for tile in getattr(image, "tile", [])]
    return next((mode for mode in raw if isinstance(mode, str)), "")


def _kind(image: Image.Image) -> str:
    """What the file holds, for people."""
    deep = image.mode.startswith("I;16") or ";16" in stored_as(image)
    name = "grey" if image.mode.startswith("I;16") else _KINDS.get(image.mode, image.mode)
    return f"16-bit {name}" if deep else name


def open_checked(path: Path, read: Callable[[Image.Image], T]) -> T:
    """What `read` makes of an image file, whose header alone is decoded when it is called.

    Raises `BadInput`: missing, empty, not an image, over `MAX_PIXELS`, or damaged, as `read` may be the one to meet.
    """
    huge = f"{path}: more than {MAX_PIXELS // 1_000_000} megapixels; scale it down first"
    try:
        if not path.stat().st_size:
            raise BadInput(f"{path}: empty file (0 bytes); {_FIX}")
        with Image.open(path, formats=FORMATS) as probe:
            if probe.width * probe.height > MAX_PIXELS:
                raise BadInput(huge)
            probe.verify()
        with Image.open(path, formats=FORMATS) as image:  # `verify` leaves a file unusable: open it anew
            return read(image)
    except BadInput:
        raise
    except FileNotFoundError:
        raise BadInput(f"{path}: no such image; {_FIX}") from None
    except UnidentifiedImageError:
        raise BadInput(f"{path}: not an image ({', '.join(FORMATS)}); {_FIX}") from None
    except Image.DecompressionBombError:
        raise BadInput(huge) from None
    except Exception as error:  # on damaged files Pillow's decoders raise what they happen to meet
        raise BadInput(f"{path}: damaged or unreadable image ({' '.join(str(error).split())}); {_FIX}") from None


def identity(path: Path, image: Image.Image) -> str:
    """What a file's copies share: the SHA-256 of its bytes. An image of one colour shows nothing and is nobody's copy:
    of that its path."""
    pixels = np.asarray(image)
    return str(path) if (pixels == pixels[0, 0]).all() else file_digest(path)


def open_rgb(path: Path) -> tuple[Image.Image, str | None]:
    """Read a whole file as 8-bit RGB, upright as its EXIF says; of a file of many pages, the first.

    Returns the image and, where its kind was changed, a note such as "RGBA converted to RGB" (else None).
    Raises `BadInput` as `open_checked` does, and for 32-bit pixels.
    """

    def read(image: Image.Image) -> tuple[Image.Image, str]:
        kind = _kind(image)
        if image.mode in ("I", "F"):
            raise BadInput(f"{path}: 32-bit pixels have no agreed range; save it as 8-bit RGB")
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image)), kind

    rgb, kind = open_checked(path, read)
    return rgb, None if kind == "RGB" else f"{kind} converted to RGB"


def cut(image: Image.Image, window: Window | None) -> Image.Image:
    """What lies in `window` of an image that is large enough to have it; others were cut before, and stay."""
    if window is None:
        return image
    x, y, width, height = window
    holds = image.width >= x + width and image.height >= y + height
    return image.crop((x, y, x + width, y + height)) if holds else image


def is_turned(path: Path) -> bool:
    """Whether EXIF turns or mirrors this image, which can be opened."""
    with Image.open(path, formats=FORMATS) as image:
        return image.getexif().get(_ORIENTATION, 1) in range(2, 9)


def to_square(
    image: Image.Image,
    size: int,
    square: Literal["pad", "crop"],
    resample: Image.Resampling = Image.Resampling.LANCZOS,
    blank: int = 0,
) -> Image.Image:
    """An RGB or grey image [size, size]: cropped about the centre, or padded with `blank`, and resized.

    Antialiased (Lanczos) for images; masks, whose values are names, take the nearest pixel.
    """
    if square == "crop":
        return ImageOps.fit(image, (size, size), resample)
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    canvas = Image.new(image.mode, (size, size), blank)
    canvas.paste(image.resize((width, height), resample), ((size - width) // 2, (size - height) // 2))
    return canvas


def summarise(notes: Iterable[str | None]) -> tuple[str, ...]:
    """Notes counted by kind, most frequent first: "12 RGBA images converted to RGB"."""
    counts = Counter(note for note in notes if note)
    return tuple(
        f"{count} " + note.replace(" converted", " images converted" if count > 1 else " image converted", 1)
        for note, count in counts.most_common()
    )
