"""Samples that start from training images: which image, what of it is kept, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from small_diffusion import small_generator

from saadi.config import RunConfig, SamplingConfig
from saadi.data import Dataset
from saadi.data.conditions import conditions_of
from saadi.data.layouts import Layout, picture
from saadi.data.starts import cleared, paste, start_of
from saadi.diffusion.drawing import Canvas, decode_latents, draw, encode_images, unet_passes
from saadi.diffusion.generator import Generator, encode_prompts
from saadi.records import Condition, Frame, LabelSpace
from saadi.seeds import numpy_rng

SIZE, COUNT = 16, 6
EDITS = SamplingConfig(steps=10, batch=2, strength=0.3)
Images = NDArray[np.uint8]


def _frames(labels: str, masks: Images | None = None) -> Dataset:
    images = numpy_rng("starts").integers(0, 256, (len(labels), SIZE, SIZE, 3)).astype(np.uint8)
    frames = tuple(
        Frame(f"{row}.png", ("hook" if one == "h" else "clip",), f"P{row % 3}", "train")
        for row, one in enumerate(labels)
    )
    names = ("hook", "clip") if masks is None else ("background", "hook", "clip")
    return Dataset(LabelSpace(names, background=masks is not None), frames, images, masks=masks)


def test_a_condition_names_an_image_of_its_class_and_they_take_turns() -> None:
    data = _frames("hchhc")
    config = RunConfig(sampling=EDITS)
    asked = conditions_of(config, data, "set")
    conditions = [asked("hook", number) for number in range(6)]
    assert sorted(one.start or 0 for one in conditions[:3]) == sorted(one.start or 0 for one in conditions[3:])
    assert {one.start for one in conditions} == {0, 2, 3}
    assert len({one.id for one in conditions}) == 6
    assert all(one.labels == ("hook",) and one.frame is None for one in conditions)
    assert conditions == [conditions_of(config, data, "set")("hook", number) for number in range(6)]
    assert conditions_of(RunConfig(), data, "set")("hook", 0) == Condition.of("hook")
    assert np.array_equal(start_of(data, conditions[0]), data.images[conditions[0].start])
    with pytest.raises(ValueError, match="names no image"):
        start_of(data, Condition.of("hook"))


def _drawn(generator: Generator, config: SamplingConfig, starts: Images | None, canvas: Canvas | None = None) -> Images:
    told, blank = encode_prompts(generator, ["a hook", ""])[:, None]
    told = told.expand(COUNT, -1, -1)
    return np.stack(list(draw(generator, told, blank, range(COUNT), config, canvas, starts)))


def _distance(made: Images, to: Images) -> float:
    return float(np.abs(made.astype(float) - to).mean())


def test_the_less_noise_the_nearer_to_the_start() -> None:
    generator = small_generator()
    starts = numpy_rng("smooth").integers(60, 200, (COUNT, 1, 1, 3)).repeat(SIZE, 1).repeat(SIZE, 2).astype(np.uint8)
    kept = decode_latents(generator, encode_images(generator, starts))
    apart = [
        _distance(_drawn(generator, EDITS.model_copy(update={"strength": strength}), starts), kept)
        for strength in (0.1, 0.3, 0.9)
    ]
    assert apart[0] < apart[1] < apart[2]
    assert not np.array_equal(_drawn(generator, EDITS, starts), _drawn(generator, EDITS, np.flip(starts, 0).copy()))
    again = _drawn(generator, EDITS, starts)
    assert np.array_equal(again, _drawn(generator, EDITS, starts))


def test_from_noise_alone_the_start_does_not_matter() -> None:
    generator = small_generator()
    starts = np.zeros((COUNT, SIZE, SIZE, 3), np.uint8)
    whole = EDITS.model_copy(update={"strength": 1.0})
    assert np.array_equal(_drawn(generator, whole, starts), _drawn(generator, whole, None))


def test_painting_starts_from_what_it_is_given_and_leaves_the_rest() -> None:
    generator = small_generator(inpainting=True)
    images = numpy_rng("frames").integers(0, 256, (COUNT, SIZE, SIZE, 3)).astype(np.uint8)
    objects, regions = np.zeros((2, COUNT, SIZE, SIZE), bool)
    objects[:, 5:7, 6:12] = True
    regions[:, 4:12, 4:16] = True
    canvas = Canvas(images, objects, regions, regions.astype(np.float32))
    dark, light = np.zeros_like(images), np.full_like(images, 255)
    apart = []
    for strength in (0.1, 0.9, 1.0):
        config = EDITS.model_copy(update={"strength": strength})
        made = [_drawn(generator, config, starts, canvas) for starts in (dark, light)]
        for one in made:
            assert np.array_equal(one[~regions], images[~regions])
        apart.append(_distance(*made))
    assert apart[0] > apart[1] > apart[2] == 0


def test_a_thing_that_is_taken_away_leaves_what_is_around_it() -> None:
    image = np.full((SIZE, SIZE, 3), 90, np.uint8)
    gone = np.zeros((SIZE, SIZE), bool)
    gone[4:8, 4:8] = True
    image[gone] = 250
    assert np.array_equal(cleared(image, gone), np.full((SIZE, SIZE, 3), 90, np.uint8))
    assert np.array_equal(cleared(image, np.zeros_like(gone)), image)
    assert np.array_equal(cleared(image, np.ones_like(gone)), image)


def test_a_moved_object_is_pasted_and_the_frames_own_is_cleared() -> None:
    masks = np.zeros((2, SIZE, SIZE), np.uint8)
    masks[0, 10:14, 10:14], masks[1, 2:6, 2:6] = 1, 1
    data = _frames("hh", masks)
    data.images[0], data.images[1] = 50, 50
    data.images[0][masks[0] == 1], data.images[1][masks[1] == 1] = 200, 120
    target, pasted = np.zeros((2, SIZE, SIZE), np.uint8)
    target[2:6, 2:6] = pasted[2:6, 2:6] = 1
    stay = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    condition = Condition("x", ("hook",), frame=0, donor=1)
    made = start_of(data, condition, Layout(target, (), pasted.astype(bool), stay))
    assert np.abs(made[3:5, 3:5].astype(int) - 120).max() <= 1  # a soft edge
    assert (made[10:14, 10:14] == 50).all()  # the frame's own hook is gone
    whole = start_of(data, condition, Layout(masks[0], (), np.zeros((SIZE, SIZE), bool)))
    assert np.array_equal(whole, data.images[0])
    unmoved = Layout(target, (), pasted.astype(bool))
    assert np.array_equal(paste(data.images[0], data.images[1], unmoved, picture(masks[1])), whole)


def test_a_start_from_an_image_costs_its_share_of_the_steps() -> None:
    whole = SamplingConfig(steps=10, guidance=1.5)
    assert unet_passes(7, whole) == 140
    assert unet_passes(7, whole.model_copy(update={"strength": 0.45})) == 7 * 4 * 2
    generator, calls = small_generator(), [0]
    generator.unet.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    _drawn(generator, EDITS, np.zeros((COUNT, SIZE, SIZE, 3), np.uint8))
    assert calls[0] * EDITS.batch * 2 == unet_passes(COUNT, EDITS)  # with and without the prompt in one batch
