"""Cross-fitting: who has not seen what, who judges, and the temperature."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from saadi.config import ClassifierConfig, CriticConfig, PreferenceConfig, RunConfig, SamplingConfig
from saadi.critics.architectures import Architecture
from saadi.critics.crossfit import CrossFitted, deal_folds, fit_member, fit_temperature
from saadi.critics.downstream import Labelled, Network
from saadi.critics.judging import Critic
from saadi.critics.networks import SmallCNN
from saadi.critics.stages import fit_critics
from saadi.critics.tasks import TASKS, Downstream
from saadi.data import Dataset
from saadi.errors import Interrupted
from saadi.evaluation.metrics import balanced_accuracy, confusion
from saadi.features import Embedder
from saadi.imageconfig import DataConfig, PhantomConfig
from saadi.preferences import critic_loss, influence, mean_gradient, presence_loss
from saadi.records import IGNORE, Condition, Frame, LabelSpace
from saadi.store import Run


class Says(nn.Module):
    """A member that answers with its own number, whatever it is shown."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([float(self.number), 10.0 * self.number]).expand(len(x), 2)


TASK = TASKS["classification"]


def network(net: nn.Module, task: Downstream = TASK, temperature: float = 1.0) -> Network:
    return Network(task, net, Architecture("as given", lambda classes: net, (0, 0, 0), (1, 1, 1)), temperature)


def member(number: int) -> Network:
    return network(Says(number))


def images(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(8, 1).repeat(8, 2).repeat(3, 3)


def test_an_image_is_judged_by_the_member_that_never_saw_its_nearest_group() -> None:
    critic = CrossFitted((member(0), member(1), member(2)), {"anna": 2, "ben": 0, "cleo": 1, "dan": 2})
    nearest = np.array(["cleo", "anna", "ben", "dan", "cleo"])
    np.testing.assert_array_equal(critic.judge(images(5), nearest)[:, 0], [1, 2, 0, 2, 1])
    np.testing.assert_array_equal(critic.judge(images(2), nearest[:2])[:, 1], [10, 20])


def mirror_pair(key: int) -> NDArray[np.uint8]:
    """Noise [8, 8, 3] that is brighter to the left."""
    noise = np.random.default_rng(key).integers(0, 100, (8, 8, 3))
    noise[:, :4] += 150
    return noise.astype(np.uint8)


class Pixels(Embedder):
    """Eyes that see every pixel where it is."""

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        return images.reshape(len(images), -1) / 255


def critic_of(crossfit: CrossFitted, train: Dataset, config: RunConfig) -> Critic:
    eyes = Pixels(SmallCNN(2))
    seen = eyes.embed(train.images), eyes.embed(train.images[:, :, ::-1])
    return Critic(crossfit, member(2), eyes, train, config, *seen)


def test_a_mirrored_copy_is_judged_by_the_member_that_never_saw_the_original() -> None:
    """Training mirrors its images: who saw an image knows its mirror image, too."""
    anna, ben = mirror_pair(0), mirror_pair(1)[:, ::-1]
    frames = tuple(Frame(name, ("hook",), name, "train") for name in ("anna", "ben"))
    train = Dataset(LabelSpace(("hook", "clip")), frames, np.stack([anna, ben]))
    crossfit = CrossFitted((member(0), member(1)), {"anna": 0, "ben": 1})
    critic = critic_of(crossfit, train, RunConfig())
    copies = np.stack([anna, anna[:, ::-1], ben, ben[:, ::-1]])
    seen = critic.embedder.embed(copies)
    near = critic.groups_of(seen, [Condition.of("hook")] * 4)
    assert near.tolist() == ["anna", "anna", "ben", "ben"]
    painted = [Condition(str(k), ("hook",), 1, 0) for k in range(4)]  # into ben's frame, whatever it came to look like
    assert critic.groups_of(seen, painted).tolist() == ["ben"] * 4
    edits = replace(critic, config=RunConfig(sampling=SamplingConfig(strength=0.5)))
    assert edits.groups_of(seen, painted).tolist() == ["anna"] * 4  # whose object was pasted before it was painted over
    started = [Condition(str(k), ("hook",), start=0) for k in range(4)]
    assert edits.groups_of(seen, started).tolist() == ["anna"] * 4
    np.testing.assert_array_equal(crossfit.judge(copies, near)[:, 0], [0, 0, 1, 1])


def test_balanced_accuracy_is_that_of_the_evaluation() -> None:
    labels = np.array([0, 0, 0, 2, 2, 1, 2])

    class Guesses(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot((255 * x[:, 0, 0, 0]).round().long() % 3, 4).float()

    expected = balanced_accuracy(confusion(labels, np.arange(len(labels)) % 3, 4))
    assert 0 < expected < 1
    assert network(Guesses()).level(Labelled(images(len(labels)), labels), 4) == pytest.approx(expected)


def settings_of(config: RunConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """What the critic's stage is keyed by; nothing is trained."""
    seen: list[object] = []

    def stage(self: Run, name: str, make: object, *, settings: object, inputs: list[str], together: bool) -> Path:
        seen.append(settings)
        raise Interrupted

    monkeypatch.setattr(Run, "stage", stage)
    frames = tuple(Frame(f"{g}{i}", (name,), g, "train") for g in "pq" for i, name in enumerate(("hook", "clip")))
    with pytest.raises(Interrupted):
        fit_critics(Run(folder, config), Dataset(LabelSpace(("hook", "clip")), frames, images(4)))
    return seen[0]


def test_the_critic_depends_on_the_judges_lesson_and_on_the_eyes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(oracle: int, source: Literal["phantom", "table"] = "phantom") -> object:
        data = DataConfig(source=source, phantom=PhantomConfig(oracle=oracle))
        return settings_of(RunConfig(data=data, critic=CriticConfig(folds=2)), tmp_path, monkeypatch)

    assert settings(0) == settings(0)
    assert settings(0) != settings(8)
    assert settings(0, "table") == settings(8, "table")  # nothing but a phantom can be rendered
    before = settings(0)
    (tmp_path / "other").write_bytes(b"other eyes")
    monkeypatch.setattr("saadi.critics.stages.backbone_path", lambda _: tmp_path / "other")
    assert settings(0) != before


def test_temperature_divides_the_logits() -> None:
    one = network(Says(3), temperature=2.0)
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
    assert fit_temperature(scale * logits, np.array(labels), critic_loss) == pytest.approx(scale, rel=0.06)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_temperature_of_sets_recovers_a_known_scaling(scale: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (6000, 3))
    sets = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    assert fit_temperature(scale * logits, sets, presence_loss) == pytest.approx(scale, rel=0.06)


def test_temperature_stays_within_bounds_where_all_is_right_or_wrong() -> None:
    logits, labels = np.array([[5.0, 0.0], [0.0, 5.0]]), np.array([0, 1])
    assert fit_temperature(logits, labels, critic_loss) == pytest.approx(0.2, rel=0.01)
    assert fit_temperature(logits, 1 - labels, critic_loss) == pytest.approx(20, rel=0.01)


def test_groups_of_equal_make_are_dealt_evenly() -> None:
    groups = np.repeat([f"g{i}" for i in range(6)], 10)
    labels = np.tile([0, 1], 30)
    dealt = deal_folds(TASK.shows(labels, 2), groups, 3, seed=0)
    assert sorted(dealt.values()) == [0, 0, 1, 1, 2, 2]


@given(st.integers(2, 5), st.integers(0, 6), st.integers(0, 2**16))
def test_no_fold_is_empty(folds: int, negative: int, seed: int) -> None:
    """Groups that show no class, of which presence and segmentation may have many, fill folds, too."""
    names = [f"g{i}" for i in range(max(1, folds - negative) + negative)]
    shown = np.zeros((2 * len(names), 2), bool)
    shown[2 * negative :, seed % 2] = True
    dealt = deal_folds(shown, np.repeat(names, 2), folds, seed)
    assert {*dealt.values()} == {*range(folds)}


def test_a_deal_that_hides_a_class_is_dealt_again() -> None:
    """The greedy deal puts g0 and g1 together, so that one member would see no image of class 1."""
    groups = np.repeat(["g0", "g1", "g2"], [7, 7, 8])
    labels = np.repeat([0, 1, 1, 0], [5, 2, 7, 8])
    for seed in range(20):
        dealt = deal_folds(TASK.shows(labels, 2), groups, 2, seed)
        assert dealt["g1"] == dealt["g2"] != dealt["g0"]


def test_a_member_is_trained_without_its_fold_and_its_temperature_fitted_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[Labelled] = []
    asked: list[int] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            asked.extend((255 * x[:, 0, 0, 0]).round().int().tolist())
            return torch.stack([x[:, 0, 0, 0], 1 - x[:, 0, 0, 0]], 1)

    def train(
        task: Downstream, config: ClassifierConfig, real: Labelled, classes: int, seed: int, **rest: object
    ) -> Network:
        trained.append(real)
        return network(Spy(), task)

    monkeypatch.setattr("saadi.critics.crossfit.train_network", train)
    real = Labelled(images(6), np.array([0, 1, 0, 1, 0, 1]))
    groups, dealt = np.array(["a", "a", "b", "b", "c", "c"]), {"a": 0, "b": 1, "c": 0}
    out = fit_member(TASK, CriticConfig(), real, groups, dealt, 0, 2, 5, torch.device("cpu"))
    assert trained[0].images[:, 0, 0, 0].tolist() == [2, 3]
    assert trained[0].targets.tolist() == [0, 1]
    assert asked == [0, 1, 4, 5]
    assert out.temperature != 1.0


def test_a_segmenters_temperature_is_fitted_on_the_known_pixels_of_its_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network says 3 : 0 for class 1 everywhere. Of the known pixels three in four show it, so 3 / T = log 3."""

    class Bold(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([0.0, 3.0]).view(1, 2, 1, 1).expand(len(x), 2, *x.shape[2:])

    monkeypatch.setattr("saadi.critics.crossfit.train_network", lambda task, *_, **__: network(Bold(), task))
    masks = np.zeros((4, 8, 8), np.uint8)
    masks[:2] = np.arange(8) % 4 > 0
    masks[:2, :4] = IGNORE
    groups, dealt, real = np.array(["a", "a", "b", "b"]), {"a": 0, "b": 1}, Labelled(images(4), masks)
    out = fit_member(TASKS["segmentation"], CriticConfig(), real, groups, dealt, 0, 2, 5, torch.device("cpu"))
    assert out.temperature == pytest.approx(3 / np.log(3), rel=0.01)


def test_maps_are_judged_by_the_member_that_never_saw_the_group_too() -> None:
    class Everywhere(Says):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, :, None, None].expand(-1, -1, *x.shape[2:])

    members = tuple(network(Everywhere(k), TASKS["segmentation"]) for k in range(3))
    critic = CrossFitted(members, {"anna": 2, "ben": 0})
    logits = critic.judge(images(3), np.array(["anna", "ben", "anna"]))
    assert logits.shape == (3, 2, 8, 8)
    np.testing.assert_array_equal(logits[:, 1, 3, 3], [20, 0, 20])


def test_several_members_of_a_fold_judge_by_the_mean_of_their_logits() -> None:
    critic = CrossFitted(tuple(member(k) for k in range(4)), {"anna": 0, "ben": 1}, copies=2)
    assert [[says.net.number for says in critic.unseeing(fold)] for fold in (0, 1)] == [[0, 2], [1, 3]]
    np.testing.assert_array_equal(critic.judge(images(2), np.array(["ben", "anna"])), [[2, 20], [1, 10]])


def test_influence_is_measured_on_images_of_the_groups_that_the_judging_member_never_saw() -> None:
    torch.manual_seed(0)
    members = tuple(network(SmallCNN(2).eval()) for _ in range(2))
    shown = (("hook", "anna"), ("clip", "anna"), ("hook", "ben"), ("clip", "ben"))
    frames = tuple(Frame(f"{i}", (label,), group, "train") for i, (label, group) in enumerate(shown))
    pictures = np.stack([mirror_pair(key) for key in range(4)])
    train = Dataset(LabelSpace(("hook", "clip")), frames, pictures)
    config = RunConfig(preferences=PreferenceConfig(criterion="influence"))
    critic = critic_of(CrossFitted(members, {"anna": 0, "ben": 1}), train, config)
    towards = []
    for one, own in zip(members, (slice(0, 2), slice(2, 4)), strict=True):
        towards.append(mean_gradient(one.logits(pictures[own]), train.labels[own], one.features(pictures[own])))
    for found, expected in zip(critic.held_out_gradients, towards, strict=True):
        np.testing.assert_allclose(found, expected)
    samples, asked = pictures[:2] // 2, [Condition.of("hook"), Condition.of("clip")]
    values = [one.value for one in critic.verdicts(samples, asked, None, np.array(["ben", "anna"]))]
    for value, i, fold in zip(values, (0, 1), (1, 0), strict=True):
        one, image = members[fold], samples[i : i + 1]
        expected = influence(one.logits(image), np.array([i]), one.features(image), towards[fold])
        assert value == pytest.approx(float(expected[0]))
