"""No shortcut: a probe that is shown seams and the texture of decoded pixels alone does not find what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from saadi.config import ClassifierConfig, RunConfig
from saadi.critics.downstream import Labelled, train_network
from saadi.critics.tasks import TASKS
from saadi.data import Dataset
from saadi.data.conditions import conditions_of, layout_of
from saadi.data.layouts import Layout
from saadi.data.phantom import make_phantom
from saadi.diffusion.drawing import decode_latents, encode_images
from saadi.diffusion.generator import load_generator
from saadi.foundation import foundation_folder
from saadi.imageconfig import LayoutConfig, PhantomConfig
from saadi.records import LabelSpace

PROBE = ClassifierConfig(model="small-unet", steps=240, batch=16, lr=3e-3, balance=0.0)
TRAIN, TEST = 160, 80
LOUDER = 7
"""How many times as far decoded pixels are from real ones where the probe has to find them: of what the autoencoder
does, three grey levels, it finds nothing even in a plain cut-out."""
Images = NDArray[np.uint8]


@pytest.fixture(scope="module", params=[1, 2], ids=["whole", "in two parts"])
def frames(request: pytest.FixtureRequest) -> Dataset:
    """Frames of one instrument each, of which nothing is painted over; or each is of two classes, painted in turn."""
    config = PhantomConfig(train=64, val=8, test=8, patients=(8, 1, 1), tail=1.0)
    whole = make_phantom(config, 64, 5, "segmentation").split("train")
    if request.param == 1:
        return whole
    assert whole.masks is not None
    masks = (np.asarray(whole.masks) > 0).astype(np.uint8)
    for mask in masks:
        rows, columns = np.nonzero(mask)
        far = columns > columns.mean()
        mask[rows[far], columns[far]] = 2
    frames = tuple(replace(frame, labels=("left", "right")) for frame in whole.frames)
    return Dataset(LabelSpace(("background", "left", "right"), background=True), frames, whole.images, (), masks)


def layouts_on(frames: Dataset, **settings: object) -> tuple[list[int], list[Layout]]:
    """Objects moved onto frames of other patients, where they were not: in these places is nothing of theirs to see."""
    config = RunConfig(task="segmentation", layouts=LayoutConfig(moved=1.0, **settings))
    condition = conditions_of(config, frames, "probe")
    labels = frames.space.asked
    chosen = [condition(labels[k % len(labels)], k // len(labels)) for k in range(TRAIN + TEST)]
    return [one.place[0] for one in chosen], [layout_of(config, frames, one, 2) for one in chosen]


def level(images: Images, layouts: Sequence[Layout]) -> float:
    """The Dice score of a probe, trained on some images, on others: where is what was asked for?"""
    wanted = np.stack([layout.pasted for layout in layouts]).astype(np.uint8)
    lesson = Labelled(images[:TRAIN], wanted[:TRAIN])
    probe = train_network(TASKS["segmentation"], PROBE, lesson, 2, 1)
    return probe.level(Labelled(images[TRAIN:], wanted[TRAIN:]), 2, [1])


def test_seams_and_texture_do_not_tell_where_an_object_was_asked_for(frames: Dataset) -> None:
    """Frames are sent through the autoencoder, and what was decoded is laid into them where a layout would paint.

    Of frames that nothing is laid into, the probe learns where tools come from, and no more. Were the object's pixels
    alone decoded, and several times as far from the real ones, it would find them; what we lay in, it must not.
    """
    rows, layouts = layouts_on(frames)
    plain = np.asarray(frames.images[rows])
    generator = load_generator(foundation_folder(inpainting=True))
    laid = plain
    once = decode_latents(generator, encode_images(generator, plain)).astype(np.float32)
    for turn in range(max(len(layout.passes) for layout in layouts)):
        none = np.zeros(plain.shape[1:3], np.float32)
        one = [layout.passes[turn].alpha if turn < len(layout.passes) else none for layout in layouts]
        decoded = decode_latents(generator, encode_images(generator, laid)).astype(np.float32)
        laid = (laid + np.stack(one)[..., None] * (decoded - laid) + 0.5).astype(np.uint8)

    ours = level(laid, layouts)
    objects = np.stack([layout.pasted for layout in layouts])[..., None]
    naive = level((plain + LOUDER * objects * (once - plain) + 0.5).clip(0, 255).astype(np.uint8), layouts)
    nothing = level(plain, layouts)
    print(f"Dice of the probe: {nothing:.2f} without seams, {ours:.2f} with ours, {naive:.2f} with plain ones")
    assert naive > nothing + 0.25  # the probe sees texture where it is to be seen
    assert ours < nothing + 0.1
