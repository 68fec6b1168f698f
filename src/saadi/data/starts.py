"""What a sample starts from where that is not noise alone: a training image (SDEdit, Meng et al., arXiv:2108.01073)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from saadi.data import Dataset
from saadi.data.layouts import Box, Layout, moved, picture
from saadi.records import Condition

Image = NDArray[np.uint8]
EDGE = 0.7
"""Sigma of a pasted object's soft edge, pixels."""
BLUR = 1 / 16
"""Sigma, as a share of the side, of what fills the place of a thing that was taken away."""


def paste(image: Image, donor: Image, layout: Layout, box: Box) -> Image:
    """The donor's object, pixels and all, where the layout has it in the frame: images [S, S, 3], the donor's picture
    in `box`.

    Nothing is painted over (Ghiasi et al., arXiv:2012.07177). Where nothing is moved it is the frame as it is.
    """
    if layout.move is None:
        return image
    pixels = np.stack([moved(donor[..., k].astype(np.float32), layout.move, box, order=1) for k in range(3)], -1)
    soft = ndimage.gaussian_filter(layout.pasted.astype(np.float32), EDGE)[..., None]
    made: Image = np.clip(image + soft * (pixels - image) + 0.5, 0, 255).astype(np.uint8)
    return made


def cleared(image: Image, gone: NDArray[np.bool_]) -> Image:
    """The image [S, S, 3] with what is around them, blurred, in place of the pixels `gone` [S, S]."""
    if not gone.any() or gone.all():
        return image
    nearest = ndimage.distance_transform_edt(gone, return_distances=False, return_indices=True)
    filled = image[tuple(nearest)].astype(np.float32)
    blurred = ndimage.gaussian_filter(filled, (BLUR * len(image), BLUR * len(image), 0))
    return np.where(gone[..., None], blurred + 0.5, image).astype(np.uint8)


def start_of(train: Dataset, condition: Condition, layout: Layout | None = None) -> Image:
    """The image [S, S, 3] from which a sample of a condition starts.

    Text to image: the training image that the condition names. Inpainting: the frame, without the things that the
    layout takes away and with the donor's object where the layout has it; it is then painted over, in part.
    """
    if layout is None:
        if condition.start is None:
            raise ValueError(f"condition {condition.id} names no image to start from")
        return np.asarray(train.images[condition.start])
    assert train.masks is not None
    frame, donor = condition.place
    image = np.asarray(train.images[frame])
    if layout.move is None:
        return image
    gone = (np.asarray(train.masks[frame]) != layout.target) & ~layout.pasted
    box = picture(np.asarray(train.masks[donor]))
    return paste(cleared(image, gone), np.asarray(train.images[donor]), layout, box)


def starts_of(train: Dataset, conditions: Sequence[Condition], layouts: Sequence[Layout | None]) -> Image:
    """The same for N conditions, [N, S, S, 3]."""
    return np.stack([start_of(train, one, layout) for one, layout in zip(conditions, layouts, strict=True)])
