"""What must hold for any names, scores, groups and errors."""

from __future__ import annotations

import itertools
import math
import unicodedata
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from saadi.config import PreferenceConfig
from saadi.critics.crossfit import deal_folds
from saadi.diffusion.objective import Schedule, epsilon_errors, noised, stratified_timesteps, target
from saadi.diffusion.presets import PROMPT_TOKENS, build_tokenizer
from saadi.pairing import hold_out, make_pairs
from saadi.preferences import critic_loss, logit_margin
from saadi.records import Condition, Pair, Sample, Score
from saadi.seeds import numpy_rng
from saadi.training import Recipe

quick = settings(max_examples=60, deadline=None, derandomize=True)
keys = st.integers(0, 2**32 - 1)
letters = st.characters(categories=("Lu", "Ll", "Lt", "Lo"))


@cache
def tokenizer() -> CLIPTokenizer:
    return build_tokenizer()


def normal(name: str) -> str:
    """As CLIP reads it: composed, lower case, one space between words."""
    return " ".join("".join(letter.lower() for letter in unicodedata.normalize("NFC", name)).split())


def ids(name: str) -> tuple[int, ...]:
    out = tuple(tokenizer()(name).input_ids)
    assume(len(out) <= PROMPT_TOKENS)
    return out


@settings(quick, max_examples=200)
@given(*[st.lists(st.text(letters, min_size=1, max_size=5), min_size=1, max_size=3).map(" ".join)] * 2)
@example("bi polar", "bipolar")
@example("Groß", "gross")
@example("ножницы", "ножницы2")
@example("鉗子", "鉗")
def test_different_names_get_different_ids(one: str, two: str) -> None:
    assert (ids(one) == ids(two)) == (normal(one) == normal(two))


@settings(quick, max_examples=200)
@given(st.text(max_size=10), st.text(max_size=10))
@example("tool1", "tool2")
@example("a/b", "a-b")
@example("🔪", "🔧")
def test_names_of_any_characters_differ_if_they_differ_in_more_than_spaces(one: str, two: str) -> None:
    assume(normal(one).replace(" ", "") != normal(two).replace(" ", ""))
    assert ids(one) != ids(two)


@quick
@given(st.integers(1, 40), st.integers(40, 1000), keys)
def test_stratified_timesteps_have_one_in_each_stratum(batch: int, total: int, key: int) -> None:
    t = stratified_timesteps(batch, total, torch.Generator().manual_seed(key)).sort().values.tolist()
    assert len(t) == batch
    edges = torch.sigmoid(torch.special.ndtri(torch.arange(batch + 1, dtype=torch.float64) / batch)) * total
    for step, low, high in zip(t, edges.tolist(), edges.tolist()[1:], strict=False):
        assert math.floor(low) <= step <= min(total - 1, math.floor(high))


def test_timesteps_are_logit_normal() -> None:
    t = stratified_timesteps(100_000, 1000, torch.Generator().manual_seed(0)).double().add(0.5).div(1000)
    logit = (t / (1 - t)).log()
    assert abs(float(logit.mean())) < 0.01
    assert abs(float(logit.std()) - 1) < 0.02


@quick
@given(keys, st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4))
def test_epsilon_and_v_are_two_names_of_one_error(key: int, alpha_bar: list[float]) -> None:
    rng = torch.Generator().manual_seed(key)
    t, shape = torch.arange(len(alpha_bar)), (len(alpha_bar), 2, 3, 3)
    x0, noise, off = (torch.randn(shape, generator=rng) for _ in range(3))
    epsilon, v = (Schedule(torch.tensor(alpha_bar), name) for name in ("epsilon", "v_prediction"))
    a, s = v.signal(t).sqrt(), (1 - v.signal(t)).sqrt()
    said = target(v, x0, noise, t) + off
    implied = a * said + s * noised(v, x0, noise, t)
    ours, theirs = epsilon_errors(v, said, x0, noise, t), epsilon_errors(epsilon, implied, x0, noise, t)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@st.composite
def candidates(draw: st.DrawFn) -> tuple[list[Sample], list[Score]]:
    rows = draw(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(-9, 9).map(float), st.booleans()), max_size=24))
    samples = [Sample(f"s{i:02d}", Condition.of(label), 1, i, "") for i, (label, _, _) in enumerate(rows)]
    return samples, [Score(f"s{i:02d}", "critic-loss", value, right, {}) for i, (_, value, right) in enumerate(rows)]


@settings(quick, max_examples=150)
@given(candidates(), st.integers(1, 5), st.sampled_from([0.0, 0.5, 4.0]), keys)
def test_pairs_keep_their_promises_in_any_order(
    drawn: tuple[list[Sample], list[Score]], most: int, margin: float, key: int
) -> None:
    samples, scores = drawn
    config = PreferenceConfig(pairs=most, margin=margin)
    pairs = make_pairs(samples, scores, config)
    score_of, label_of = {one.sample: one for one in scores}, {one.id: one.label for one in samples}
    used = [name for pair in pairs for name in (pair.winner, pair.loser)]
    assert len(used) == len(set(used))
    for pair in pairs:
        assert score_of[pair.winner].right
        assert label_of[pair.winner] == label_of[pair.loser] == pair.label
        assert pair.margin == score_of[pair.winner].value - score_of[pair.loser].value
        assert pair.margin > 0
        assert pair.margin >= margin
    for label in "xyz":
        made = [pair for pair in pairs if pair.label == label]
        assert len(made) <= most
        members = [score_of[name] for name, own in label_of.items() if own == label]
        possible = [one.value - two.value for one in members if one.right for two in members]
        assert bool(made) == any(gap > 0 and gap >= margin for gap in possible)
    order = np.random.default_rng(key)
    shuffled = make_pairs(
        [samples[i] for i in order.permutation(len(samples))],
        [scores[i] for i in order.permutation(len(scores))],
        config,
    )
    assert sorted(map(str, shuffled)) == sorted(map(str, pairs))


@quick
@given(st.integers(0, 40), st.floats(0, 1), keys)
def test_hold_out_splits_and_keeps_the_order(count: int, share: float, key: int) -> None:
    pairs = [Pair(f"w{row:02}", f"l{row:02}", "hook", 1.0) for row in range(count)]
    kept, held = hold_out(pairs, share, key)
    assert sorted([*kept, *held], key=str) == pairs
    assert kept == sorted(kept, key=str)
    assert held == sorted(held, key=str)
    if count >= 2:
        assert kept
        assert bool(held) == (share > 0)
        assert abs(len(held) - share * count) <= 1


@quick
@given(keys, st.integers(2, 6), st.floats(-50, 50))
def test_criteria_ignore_a_shift_of_the_logits(key: int, classes: int, shift: float) -> None:
    rng = np.random.default_rng(key)
    logits, labels = rng.normal(0, 3, (7, classes)), rng.integers(0, classes, 7)
    for criterion in (critic_loss, logit_margin):
        np.testing.assert_allclose(criterion(logits + shift, labels), criterion(logits, labels), atol=1e-9)
    assert (critic_loss(logits, labels) <= 0).all()
    np.testing.assert_array_equal(logit_margin(logits, labels) > 0, logits.argmax(1) == labels)


def spread(labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]], folds: list[int]) -> bool:
    """Whether each class lies in two folds or more, so that every member, trained on the others, sees it."""
    return all(len({folds[i] for i in np.flatnonzero(labels == c)}) > 1 for c in np.unique(labels))


@quick
@given(keys, st.integers(2, 6), st.integers(2, 4), st.integers(2, 3))
def test_every_member_sees_every_class_wherever_a_deal_allows_it(
    key: int, n_groups: int, classes: int, folds: int
) -> None:
    rng = np.random.default_rng(key)
    size = rng.integers(1, 12, (n_groups, classes)) * (rng.random((n_groups, classes)) < 0.6)
    size[rng.integers(n_groups), classes - 1] += 1  # the last class exists
    group, labels = (part.repeat(size.ravel()) for part in np.indices(size.shape).reshape(2, -1))
    names = np.array([f"g{g}" for g in group])
    shown = labels[:, None] == np.arange(classes)
    dealt = deal_folds(shown, names, folds, key)
    assert set(dealt) == set(names)
    assert set(dealt.values()) <= set(range(folds))
    assert dealt == deal_folds(shown, names, folds, key)
    order = rng.permutation(len(labels))
    assert dealt == deal_folds(shown[order], names[order], folds, key)
    allowed = any(spread(labels, [deal[g] for g in group]) for deal in itertools.product(range(folds), repeat=n_groups))
    ours = [dealt[name] for name in names]
    assert spread(labels, ours) == allowed
    if allowed:
        for fold in range(folds):
            assert set(labels[np.array(ours) != fold]) == set(labels)


@quick
@given(st.integers(1, 200), st.floats(0, 0.5), st.floats(0, 1))
def test_rate_stays_between_zero_and_its_peak(steps: int, warmup: float, floor: float) -> None:
    recipe = Recipe(steps, 0.3, warmup=warmup, floor=floor)
    rates = [recipe.rate(step) for step in range(steps)]
    assert all(0 < rate <= 0.3 + 1e-12 for rate in rates)
    ramp = max(1, round(warmup * steps))
    assert rates[ramp - 1] == pytest.approx(0.3)
    assert rates[:ramp] == sorted(rates[:ramp])
    assert all(one >= two - 1e-12 for one, two in itertools.pairwise(rates[ramp - 1 :]))


@quick
@given(st.lists(st.one_of(st.integers(0, 99), st.text(max_size=4)), min_size=1, max_size=4))
def test_a_draw_depends_on_its_keys_alone(path: list[int | str]) -> None:
    assert numpy_rng(*path).random() == numpy_rng(*path).random()
    assert numpy_rng(*path).random() != numpy_rng(*path, "more").random()
