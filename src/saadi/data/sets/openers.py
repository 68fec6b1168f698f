"""The forms in which public sets keep masks, each read as values uint8 [H, W, K]: ids (K = 1) or RGB (K = 3).

All of them raise `BadInput` in one line for files that cannot be read or hold something else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from saadi.data.images import Window, cut, open_checked
from saadi.errors import BadInput

Pixels = NDArray[np.uint8]
Opener = Callable[[Path], Pixels]
HALF = 127
"""JPEG blurs the two values of a binary mask: what is brighter than this is the class."""


def _plain(path: Path) -> Pixels:
    """Grey values or palette indices [H, W], or RGB [H, W, 3]. Alpha says nothing of classes and is dropped."""

    def read(image: Image.Image) -> Pixels:
        image.load()
        if image.mode in ("LA", "RGBA"):
            image = image.convert(image.mode[:-1])
        if image.mode not in ("1", "L", "P", "RGB"):
            raise BadInput(f"{path}: {image.mode} pixels; expected 8-bit grey, palette or RGB, as the set is published")
        return np.asarray(image).astype(np.uint8)

    return open_checked(path, read)


def light(pixels: Pixels) -> Pixels:
    """1 where a binary mask's pixels [H, W] are bright, else 0; pixels of one bit are 0 and 1."""
    return (pixels > (HALF if pixels.max(initial=0) > 1 else 0)).astype(np.uint8)


def grey(path: Path) -> Pixels:
    """Values of a grey mask, whatever it is stored as: grey, palette, or RGB of three equal channels."""
    pixels = _plain(path)
    if pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            raise BadInput(f"{path}: coloured pixels; expected a mask of grey values, as the set is published")
        pixels = pixels[..., 0]
    return pixels[..., None]


def rgb(path: Path) -> Pixels:
    """The colours of a mask."""
    pixels = _plain(path)
    if pixels.ndim == 2:
        raise BadInput(f"{path}: grey pixels; expected a mask of colours, as the set is published")
    return pixels


def bright(path: Path) -> Pixels:
    """1 where a binary mask is bright, else 0: also of JPEG, which blurs its edges, and of one bit a pixel."""
    pixels = _plain(path)
    return light(pixels if pixels.ndim == 2 else pixels.max(-1))[..., None]


def layers(pattern: Path) -> list[Path]:
    """The files of a mask that is spread over several: those that a path with `*` in it names, sorted."""
    at = next(i for i, part in enumerate(pattern.parts) if "*" in part)
    return sorted(Path(*pattern.parts[:at]).glob("/".join(pattern.parts[at:])))


def layered(value: Callable[[Path, Pixels], Pixels], window: Window | None = None) -> Opener:
    """Masks spread over files of one object each. `value`: from a file and its grey pixels [H, W] to ids, 0 elsewhere.

    Where layers meet, the later file lies on top. `window`: what is used of the result.
    """

    def read(pattern: Path) -> Pixels:
        merged: Pixels | None = None
        for path in layers(pattern):
            layer = value(path, grey(path)[..., 0])
            if merged is not None and merged.shape != layer.shape:
                raise BadInput(f"{path}: another size than the masks beside it; take the set as it is published")
            merged = layer if merged is None else np.where(layer > 0, layer, merged)
        if merged is None:
            raise BadInput(f"{pattern}: no such mask; take the set as it is published")
        return np.asarray(cut(Image.fromarray(merged.astype(np.uint8)), window))[..., None]

    return read


def supervisely(ids: Mapping[str, int]) -> Opener:
    """Polygons of Supervisely's JSON, drawn in the order of their ids: what has a higher id lies on top."""

    def draw(thing: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
        canvas = Image.new("L", size)
        pen = ImageDraw.Draw(canvas)
        rings = [(thing["points"]["exterior"], 1), *((hole, 0) for hole in thing["points"].get("interior", []))]
        for ring, fill in rings:
            pen.polygon([(float(x), float(y)) for x, y in ring], fill=fill)
        return np.asarray(canvas) > 0

    def read(path: Path) -> Pixels:
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
            height, width = int(entries["size"]["height"]), int(entries["size"]["width"])
            mask = np.zeros((height, width), np.uint8)
            for thing in entries["objects"]:
                if thing["classTitle"] not in ids:
                    raise BadInput(f"{path}: unknown class {thing['classTitle']!r:.40}; expected {', '.join(ids)}")
                if thing.get("geometryType", "polygon") != "polygon":
                    raise BadInput(f"{path}: a {thing['geometryType']!r:.40}; expected polygons only")
            for thing in sorted(entries["objects"], key=lambda thing: ids[thing["classTitle"]]):
                mask[draw(thing, (width, height))] = ids[thing["classTitle"]]
        except FileNotFoundError:
            raise BadInput(f"{path}: no such annotation; take the set as it is published") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__} {error}"
            raise BadInput(f"{path}: no annotation of Supervisely ({' '.join(reason.split()):.80})") from None
        return mask[..., None]

    return read
