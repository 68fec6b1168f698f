"""Where a synthetic frame is to show what: a training frame's own mask, or one of another group moved onto it.

Pure geometry on id maps. A layout asks for a mask exactly and blanks more than it: the blanked region grows beyond the
object by a random, uneven rim, and takes in places where nothing is asked for. Its purpose: that neither a seam nor the
texture of decoded pixels says where the object is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from saadi.imageconfig import LayoutConfig
from saadi.records import IGNORE

Mask = NDArray[np.bool_]
Ids = NDArray[np.uint8]
Box = tuple[slice, slice]

TRIES = 8
"""Moves tried until enough of an object is in view."""
IN_VIEW = 0.5
"""Share of the donor's object, and of its part that is asked for, that has to be in view after the move; by area and
apart from scale."""


@dataclass(frozen=True)
class Pass:
    """One painting: of class `label` (an id) where `object` is, into the blank `region`; both [S, S].

    `alpha` [S, S] in [0, 1]: how much of a pixel is new. It is 0 outside the region, and 1 on the object.
    """

    label: int
    object: Mask
    region: Mask
    alpha: NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """`target` [S, S]: the ids the finished frame is asked to show; `passes`: what is painted, in order.

    `pasted` [S, S]: where a moved object is; `move` (2 x 3, target to donor pixels, row first): where it comes from.
    """

    target: Ids
    passes: tuple[Pass, ...]
    pasted: Mask
    move: NDArray[np.float64] | None = None

    @property
    def region(self) -> Mask:
        """All that is not the original frame's [S, S]."""
        region: Mask = np.logical_or.reduce([one.region for one in self.passes])
        return region

    def shown_after(self, number: int) -> Ids:
        """`target` as far as pass `number` and those before it paint it: what later ones do is `IGNORE`."""
        later = [one.object for one in self.passes[number + 1 :]]
        ids: Ids = np.where(np.logical_or.reduce(later), IGNORE, self.target).astype(np.uint8) if later else self.target
        return ids


def to_cells(mask: Mask, cell: int) -> Mask:
    """Whole latent cells of `cell` pixels that `mask` [S, S] touches, as pixels [S, S]: a thin shaft is not lost."""
    side = mask.shape[0] // cell
    touched = mask.reshape(side, cell, side, cell).any((1, 3))
    return touched.repeat(cell, 0).repeat(cell, 1)


def _uneven(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """A smooth random field [S, S], uniform on [0, 1]."""
    field = ndimage.gaussian_filter(rng.standard_normal((size, size)), size / 12, mode="reflect")
    ranks = field.ravel().argsort().argsort().reshape(size, size)
    uniform: NDArray[np.float64] = ranks / (size * size - 1)
    return uniform


def grow(rng: np.random.Generator, mask: Mask, config: LayoutConfig, cell: int) -> Mask:
    """`mask` [S, S] grown by a rim of random, uneven width, in whole cells. Nothing grows from nothing."""
    size = mask.shape[0]
    if not mask.any():
        return mask.copy()
    least, most = config.rim
    width = size * (least + (most - least) * _uneven(rng, size))
    return to_cells(ndimage.distance_transform_edt(~mask) <= width, cell)


def feather(region: Mask, config: LayoutConfig) -> NDArray[np.float32]:
    """How new a pixel is [S, S]: 0 outside `region`, rising to 1 over `config.feather` of the side within it.

    What lies beyond the image's edge counts as inside: there is no seam.
    """
    inside = ndimage.distance_transform_edt(np.pad(region, 1, mode="edge"))[1:-1, 1:-1]
    alpha: NDArray[np.float32] = np.clip((inside - 0.5) / max(config.feather * len(region), 0.5), 0, 1)
    return alpha.astype(np.float32)


def whole_object(ids: Ids, label: int, things: Sequence[int]) -> Ids:
    """The object that shows most of class `label` [S, S], as ids, 0 elsewhere: `things` that touch are one object."""
    pieces, _ = ndimage.label(np.isin(ids, [*things, label]), np.ones((3, 3)))
    sizes = np.bincount(pieces[ids == label])
    if not len(sizes):
        return np.zeros_like(ids)
    sizes[0] = 0
    return np.where(pieces == sizes.argmax(), ids, 0).astype(np.uint8)


def draw_move(
    rng: np.random.Generator, centre: tuple[float, float], size: int, config: LayoutConfig
) -> NDArray[np.float64]:
    """A random move about `centre` (row, column): 2 x 3, from pixels of the new frame to those of the donor."""
    turn = math.radians(rng.uniform(-config.turn, config.turn))
    scale = math.exp(rng.uniform(-1, 1) * math.log(config.scale))
    mirror = rng.choice([-1.0, 1.0])
    shift = size * config.shift * rng.uniform(-1, 1, 2)
    turned = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]) / scale
    linear = turned @ np.diag([1.0, mirror])
    middle = np.array(centre)
    mirrored = np.array([middle[0], size - 1 - middle[1]]) if mirror < 0 else middle
    return np.concatenate([linear, (middle - linear @ (mirrored + shift))[:, None]], 1)


def picture(ids: Ids) -> Box:
    """The rows and columns of an id map [S, S] between which something is known: what lies beside them is padding."""
    box: Box
    (box,) = ndimage.find_objects((ids != IGNORE).astype(np.uint8)) or [_whole(ids)]
    return box


def _whole(ids: NDArray[Any]) -> Box:
    return slice(0, ids.shape[0]), slice(0, ids.shape[1])


def moved(plane: NDArray[Any], move: NDArray[np.float64], box: Box, order: int = 0) -> NDArray[Any]:
    """Ids or pixels [S, S] after a move, of spline `order`. At the edge of the picture, which lies in `box`, they go on
    as they end there: a shaft still comes from outside."""
    inside, shift = plane[box], move[:, 2] - [one.start for one in box]
    out: NDArray[Any] = ndimage.affine_transform(inside, move[:, :2], shift, plane.shape, order=order, mode="nearest")
    return out


def _place(
    rng: np.random.Generator, ids: Ids, label: int, box: Box, hidden: Mask, config: LayoutConfig
) -> tuple[Ids, NDArray[np.float64]]:
    """An object's ids [S, S], of a picture in `box`, at a new place, and the move: the first that keeps enough of it,
    and of its part `label`, in view and not `hidden` [S, S].

    If none of `TRIES` does, the one that shows most of the part: a small one may be lost in a move, or pushed out of
    view by the rest. If all lose it, the object stays where it is, or, where that is hidden, comes as it is to where a
    pixel of the part is not.
    """
    rows, columns = np.nonzero(ids)
    centre = (float(rows.mean()), float(columns.mean()))
    best, most = (np.where(hidden, 0, ids).astype(np.uint8), np.eye(2, 3)), 0.0
    for _ in range(TRIES):
        move = draw_move(rng, centre, len(ids), config)
        placed = np.where(hidden, 0, moved(ids, move, box)).astype(np.uint8)
        scale = 1 / abs(np.linalg.det(move[:, :2]))
        whole = (placed > 0).sum() / (scale * (ids > 0).sum())
        part = (placed == label).sum() / (scale * (ids == label).sum())
        if min(whole, part) >= IN_VIEW:
            return placed, move
        if part > most:
            best, most = (placed, move), part
    if not (best[0] == label).any() and not hidden.all():
        start, goal = rng.choice(np.argwhere(ids == label)), rng.choice(np.argwhere(~hidden))
        move = np.concatenate([np.eye(2), (start - goal)[:, None]], 1)
        return np.where(hidden, 0, moved(ids, move, box)).astype(np.uint8), move
    return best


def _decoy(
    rng: np.random.Generator, canvas: Ids, shape: Mask, taken: Mask, still: Ids, config: LayoutConfig, cell: int
) -> Mask:
    """A region [S, S] where nothing is asked for: an object's shape, moved to where there is one of the classes `still`
    and no edge of it, so that background, or a tissue, goes on as it is."""
    wide = config.model_copy(update={"shift": 0.5, "turn": 180.0, "scale": 1.5})
    placed, _ = _place(rng, shape.astype(np.uint8), 1, _whole(shape), np.zeros_like(shape), wide)
    free = np.zeros_like(shape)
    for number in still:
        own = canvas == number
        # Not up to another known class: pixels next to it are as likely that class's as not.
        free |= own & (ndimage.distance_transform_edt(own | (canvas == IGNORE)) > config.rim[0] * len(canvas))
    free &= ~taken
    decoy: Mask = grow(rng, (placed > 0) & free, config, cell) & ~to_cells(~free, cell)
    return decoy


def make_layout(
    rng: np.random.Generator,
    canvas: Ids,
    label: int,
    donor: Ids | None,
    things: Sequence[int],
    config: LayoutConfig,
    cell: int,
    *,
    erased: int = 0,
) -> Layout:
    """The layout of one synthetic frame on a training frame's ids `canvas` [S, S].

    Without a `donor` [S, S] the canvas's own class `label` is painted anew where it is; `label` 0 paints background
    where a decoy is. With one, which shows class `label`, its object is moved onto the canvas and takes the place of
    the canvas's `things` (ids): what these hid becomes `erased`. An object of several classes is painted class by
    class, `label` last. Regions and, for the prompt's sake, each object are made of whole `cell`s.
    """
    unknown = canvas == IGNORE
    # What the prompt names is background, or nothing that is there already
    still = np.setdiff1d(canvas, [*things, IGNORE]) if label else np.zeros(1, np.uint8)
    if donor is None:
        shape = (canvas == label) if label else np.isin(canvas, list(things))
        objects = {label: shape if label else np.zeros_like(shape)}
        target, gone, move = canvas, np.zeros_like(shape), None
        pasted = np.zeros_like(shape)
    else:
        placed, move = _place(rng, whole_object(donor, label, things), label, picture(donor), unknown, config)
        gone, pasted, shape = np.isin(canvas, list(things)), placed > 0, placed > 0
        target = np.where(pasted, placed, np.where(gone, erased, canvas)).astype(np.uint8)
        objects = {int(k): placed == k for k in [*sorted(set(np.unique(placed)) - {0, label}), label]}
    passes: list[Pass] = []
    for order, (number, found) in enumerate(objects.items()):
        region = grow(rng, found, config, cell)
        if not order:
            region |= grow(rng, gone | pasted, config, cell)
            if shape.any() and (rng.random() < config.decoys or not label):
                region |= _decoy(rng, canvas, shape, region, still, config, cell)
        region = to_cells(region, cell) & ~unknown
        passes.append(Pass(number, found, region, np.where(found, 1, feather(region, config)).astype(np.float32)))
    return Layout(target, tuple(passes), pasted, move)
