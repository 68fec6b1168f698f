"""Can synthetic images be told from real ones, training images from others: closed-form cases."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from small_diffusion import small_generator
from torch import Tensor, nn

from saadi.config import RunConfig
from saadi.data import Dataset
from saadi.data.phantom import make_phantom
from saadi.diffusion.drawing import encode_images
from saadi.diffusion.generator import Generator
from saadi.diffusion.objective import Schedule, target
from saadi.evaluation.audits import auc, interval, probe
from saadi.evaluation.membership import errors_of, others_of
from saadi.imageconfig import DataConfig, PhantomConfig
from saadi.records import Frame, LabelSpace

NUMBERS = st.lists(st.integers(-5, 5), min_size=1, max_size=8)


def test_the_area_counts_pairs_in_order() -> None:
    assert auc(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 1
    assert auc(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 0
    assert auc(np.array([1.0, 3.0]), np.array([2.0, 3.0])) == (0 + 0 + 1 + 0.5) / 4


@given(NUMBERS, NUMBERS)
def test_the_area_is_the_share_of_pairs_whatever_the_numbers(a: list[int], b: list[int]) -> None:
    higher, lower = np.array(a, float), np.array(b, float)
    pairs = [(x > y) + 0.5 * (x == y) for x in a for y in b]
    assert auc(higher, lower) == pytest.approx(np.mean(pairs))
    assert auc(lower, higher) == pytest.approx(1 - auc(higher, lower))
    assert auc(np.exp(higher), np.exp(lower)) == pytest.approx(auc(higher, lower))


def test_the_interval_shrinks_with_the_images_and_stays_within_bounds() -> None:
    narrow, wide = interval(0.7, 400, 400), interval(0.7, 20, 20)
    assert wide[0] < narrow[0] < 0.7 < narrow[1] < wide[1]
    assert interval(1.0, 5, 5) == (1.0, 1.0)
    # Of 50 against 50 at 0.5 the formula gives, worked out by hand:
    low, high = interval(0.5, 50, 50)
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt((0.25 + 2 * 49 * (1 / 3 - 0.25)) / 2500))
    # Of exponential distributions, y of scale 1 is below one of scale s with E exp(-y / s) = s / (s + 1). Of many of
    # scale s, what is above it varies with y alone: E exp(-2y / s) = s / (s + 2), less that squared.
    low, _ = interval(0.8, 10**9, 1)  # s = 4
    assert 0.8 - low == pytest.approx(1.96 * np.sqrt(4 / 6 - 0.8**2))


def test_a_probe_tells_what_differs_and_only_that() -> None:
    rng = np.random.default_rng(0)
    groups = np.array([f"P{i % 6}" for i in range(240)])
    real, same = rng.normal(size=(240, 8)), rng.normal(size=(200, 8))
    assert 0.4 < probe(real, same, groups) < 0.6
    assert probe(real, same + np.eye(8)[0] * 8, groups) > 0.99
    assert probe(real * 100 + 3, same * 100 + 3, groups) == pytest.approx(probe(real, same, groups), abs=1e-3)


def test_a_probe_is_asked_about_patients_it_has_not_seen() -> None:
    """Each patient has a mark of its own, and nothing else tells real from fake."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(30), 8)
    real = np.concatenate([rng.normal(size=(240, 4)), np.eye(30)[patient] * 5], 1)
    fake = np.concatenate([rng.normal(size=(240, 4)), np.zeros((240, 30))], 1)
    by_image = probe(real, fake, np.arange(240).astype(str))
    assert by_image > 0.95
    assert probe(real, fake, patient.astype(str)) < by_image - 0.2


@pytest.mark.parametrize("patients", [2, 4])
def test_few_patients_are_as_many_folds(patients: int) -> None:
    """A mark of each patient's own tells it from fakes only if it has been seen."""
    rng = np.random.default_rng(0)
    patient = np.arange(240) % patients
    real = np.concatenate([rng.normal(size=(240, 4)), np.eye(patients)[patient] * 5], 1)
    fake = np.concatenate([rng.normal(size=(240, 4)), np.zeros((240, patients))], 1)
    assert probe(real, fake, patient.astype(str)) < 0.7
    assert probe(real, fake, np.full(240, "one")) > 0.95  # of a single patient other images are all that there is


def test_too_few_images_for_folds_say_nothing() -> None:
    assert np.isnan(probe(np.ones((1, 2)), np.ones((1, 2)), np.array(["a"])))


def _images(count: int) -> Dataset:
    rng = np.random.default_rng(0)
    frames = tuple(Frame(f"{row}", (("hook", "clip")[row % 2],), f"P{row}", "train") for row in range(count))
    return Dataset(LabelSpace(("hook", "clip")), frames, rng.integers(0, 256, (count, 16, 16, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def generator() -> Generator:
    return small_generator()


def test_an_images_error_is_its_own_whatever_is_asked_beside_it(generator: Generator) -> None:
    config, images = RunConfig(), _images(40)
    whole = errors_of(config, generator, images)
    assert whole.shape == (40,)
    assert (whole > 0).all()
    assert np.allclose(errors_of(config, generator, images.take(np.arange(7))), whole[:7], rtol=1e-4)


class ByHeart(nn.Module):
    """A denoiser that takes whatever it is shown for the one image it knows."""

    def __init__(self, schedule: Schedule, known: Tensor) -> None:
        super().__init__()
        self.schedule, self.known = schedule, nn.Parameter(known)
        self.config = SimpleNamespace(in_channels=4, out_channels=4)

    def forward(self, x: Tensor, t: Tensor, told: Tensor) -> SimpleNamespace:
        signal = self.schedule.signal(t)
        noise = (x - signal.sqrt() * self.known) / (1 - signal).sqrt()
        return SimpleNamespace(sample=target(self.schedule, self.known.expand_as(x), noise, t))


def test_a_model_that_knows_an_image_by_heart_gives_it_away() -> None:
    config, images, generator = RunConfig(), _images(9), small_generator()
    knows = ByHeart(generator.schedule, encode_images(generator, images.images[:1]))
    missed = errors_of(config, replace(generator, unet=cast("UNet2DConditionModel", knows)), images)
    assert missed[0] == pytest.approx(0, abs=1e-6)
    assert (missed[1:] > 1e-5).all()
    assert auc(missed[1:], missed[:1]) == 1


def test_others_are_fresh_images_of_the_same_patients_where_they_can_be_rendered() -> None:
    phantom = PhantomConfig(train=24, val=8, test=16, patients=(3, 1, 2), tail=0.5)
    config = RunConfig(data=DataConfig(source="phantom", size=32, phantom=phantom))
    data = make_phantom(phantom, 32, 0, "classification")
    train = data.split("train")
    others, against = others_of(config, data, train)
    assert np.bincount(others.labels).tolist() == np.bincount(train.labels).tolist()
    assert "training patients" in against
    assert {*others.groups.tolist()} <= {*train.groups.tolist()}
    assert not any((image == train.images).all((1, 2, 3)).any() for image in others.images)
    table = RunConfig(data=DataConfig(source="table"))
    assert others_of(table, data, train)[0].frames == data.split("val").frames
