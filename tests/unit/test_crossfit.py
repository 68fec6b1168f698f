"""Cross-fitting: who has not seen what, who judges, and the temperature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saadi.config import ClassifierConfig, CriticConfig
from saadi.critics.classifier import Classifier, Labelled
from saadi.critics.crossfit import CrossFitted, deal_folds, fit_member, fit_temperature


class Says(nn.Module):
    """A member that answers with its own number, whatever it is shown."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([float(self.number), 10.0 * self.number]).expand(len(x), 2)


def member(number: int) -> Classifier:
    return Classifier(Says(number), torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1))


def images(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(8, 1).repeat(8, 2).repeat(3, 3)


def test_an_image_is_judged_by_the_member_that_never_saw_its_nearest_group() -> None:
    critic = CrossFitted((member(0), member(1), member(2)), {"anna": 2, "ben": 0, "cleo": 1, "dan": 2})
    nearest = np.array(["cleo", "anna", "ben", "dan", "cleo"])
    np.testing.assert_array_equal(critic.judge(images(5), nearest)[:, 0], [1, 2, 0, 2, 1])
    np.testing.assert_array_equal(critic.judge(images(2), nearest[:2])[:, 1], [10, 20])


def test_temperature_divides_the_logits() -> None:
    one = Classifier(Says(3), torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1), temperature=2.0)
    np.testing.assert_allclose(one.logits(images(1)), [[1.5, 15]])


def draw_calibrated(count: int) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float64]], list[int]]:
    """Logits, and labels drawn from their very probabilities."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (count, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return logits, [int(rng.choice(4, p=row)) for row in probabilities]


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_temperature_recovers_a_known_scaling(scale: float) -> None:
    logits, labels = draw_calibrated(6000)
    assert fit_temperature(scale * logits, np.array(labels)) == pytest.approx(scale, rel=0.06)


def test_temperature_stays_within_bounds_where_all_is_right_or_wrong() -> None:
    logits, labels = np.array([[5.0, 0.0], [0.0, 5.0]]), np.array([0, 1])
    assert fit_temperature(logits, labels) == pytest.approx(0.2, rel=0.01)
    assert fit_temperature(logits, 1 - labels) == pytest.approx(20, rel=0.01)


def test_groups_of_equal_make_are_dealt_evenly() -> None:
    groups = np.repeat([f"g{i}" for i in range(6)], 10)
    labels = np.tile([0, 1], 30)
    dealt = deal_folds(labels, groups, 3, seed=0)
    assert sorted(dealt.values()) == [0, 0, 1, 1, 2, 2]


def test_a_deal_that_hides_a_class_is_dealt_again() -> None:
    """The greedy deal puts g0 and g1 together, so that one member would see no image of class 1."""
    groups = np.repeat(["g0", "g1", "g2"], [7, 7, 8])
    labels = np.repeat([0, 1, 1, 0], [5, 2, 7, 8])
    for seed in range(20):
        dealt = deal_folds(labels, groups, 2, seed)
        assert dealt["g1"] == dealt["g2"] != dealt["g0"]


def test_a_member_is_trained_without_its_fold_and_its_temperature_fitted_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[Labelled] = []
    asked: list[int] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            asked.extend((255 * x[:, 0, 0, 0]).round().int().tolist())
            return torch.stack([x[:, 0, 0, 0], 1 - x[:, 0, 0, 0]], 1)

    def train(config: ClassifierConfig, real: Labelled, classes: int, seed: int, **rest: object) -> Classifier:
        trained.append(real)
        return Classifier(Spy(), torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1))

    monkeypatch.setattr("saadi.critics.crossfit.train_classifier", train)
    real = Labelled(images(6), np.array([0, 1, 0, 1, 0, 1]))
    groups, dealt = np.array(["a", "a", "b", "b", "c", "c"]), {"a": 0, "b": 1, "c": 0}
    out = fit_member(CriticConfig(), real, groups, dealt, 0, 2, 5, torch.device("cpu"))
    assert trained[0].images[:, 0, 0, 0].tolist() == [2, 3]
    assert trained[0].labels.tolist() == [0, 1]
    assert asked == [0, 1, 4, 5]
    assert out.temperature != 1.0
