"""What holds of criteria, penalties and pairs, whatever the scores are."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from saadi.config import PreferenceConfig
from saadi.pairing import budgets, make_pairs
from saadi.penalties import combined, ranks
from saadi.preferences import influence, learnability, logit_margin, mean_gradient
from saadi.records import Condition, Pair, Sample, Score, by_condition, by_label

quick = settings(max_examples=60, deadline=None, derandomize=True)
Array = NDArray[np.float64]
USES, CONTROLS = ("best-worst", "best-random"), ("random", "reversed")
coarse = st.integers(-8, 8).map(float)
"""Values that sums and products of a few keep exact, so that ties stay ties."""


@st.composite
def judged(draw: st.DrawFn) -> tuple[list[Sample], list[Score]]:
    """Samples of two conditions of each of two classes."""
    rows = draw(st.lists(st.tuples(st.sampled_from(["x1", "x2", "y1", "y2"]), coarse, st.booleans()), max_size=24))
    samples = [Sample(f"s{i:02d}", Condition(name, (name[0],)), 1, i, "") for i, (name, _, _) in enumerate(rows)]
    return samples, [Score(f"s{i:02d}", "critic-loss", value, right, {}) for i, (_, value, right) in enumerate(rows)]


def pairs_as_they_were(samples: list[Sample], scores: list[Score], config: PreferenceConfig) -> list[Pair]:
    """Before there were rules: best against worst, as the first release had it."""
    score_of = {item.sample: item for item in scores}
    pairs: list[Pair] = []
    for members in by_condition(samples).values():
        ranked = sorted(members, key=lambda sample: (-score_of[sample.id].value, sample.id))
        winners = [sample for sample in ranked if score_of[sample.id].right]
        for winner, loser in zip(winners, reversed(ranked), strict=False):
            margin = score_of[winner.id].value - score_of[loser.id].value
            if margin < max(config.margin, 1e-9):
                break
            pairs.append(Pair(winner.id, loser.id, winner.label, margin))
    kept: list[Pair] = []
    for own in by_label(pairs).values():
        kept += sorted(own, key=lambda pair: -pair.margin)[: config.pairs]
    return kept


@settings(quick, max_examples=150)
@given(judged(), st.integers(1, 5), st.sampled_from([0.0, 0.5, 4.0]))
def test_the_default_pairs_are_what_they_were(
    drawn: tuple[list[Sample], list[Score]], most: int, margin: float
) -> None:
    config = PreferenceConfig(pairs=most, margin=margin)
    assert make_pairs(*drawn, config) == pairs_as_they_were(*drawn, config)
    equal = budgets({"x": 40, "y": 3}, config)
    assert make_pairs(*drawn, config, equal, seed=5) == pairs_as_they_were(*drawn, config)


@settings(quick, max_examples=150)
@given(
    judged(),
    st.sampled_from(USES),
    st.sampled_from([0.0, 4.0]),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 99),
)
def test_rules_in_use_keep_their_promises(
    drawn: tuple[list[Sample], list[Score]], rule: str, margin: float, of_x: int, of_y: int, seed: int
) -> None:
    samples, scores = drawn
    config, budget = PreferenceConfig(pairing=rule, margin=margin), {"x": of_x, "y": of_y}
    pairs = make_pairs(samples, scores, config, budget, seed)
    score_of, sample_of = {one.sample: one for one in scores}, {one.id: one for one in samples}
    used = [name for pair in pairs for name in (pair.winner, pair.loser)]
    assert len(used) == len(set(used))
    for pair in pairs:
        assert score_of[pair.winner].right
        assert sample_of[pair.winner].condition == sample_of[pair.loser].condition
        assert pair.label == sample_of[pair.winner].label
        assert pair.margin == score_of[pair.winner].value - score_of[pair.loser].value
        assert pair.margin > 0
        assert pair.margin >= margin
    for label, most in budget.items():
        assert sum(pair.label == label for pair in pairs) <= most
    order = np.random.default_rng(seed)
    shuffled = make_pairs(
        [samples[i] for i in order.permutation(len(samples))],
        [scores[i] for i in order.permutation(len(scores))],
        config,
        {"x": 99, "y": 99},
        seed,
    )
    every = make_pairs(samples, scores, config, {"x": 99, "y": 99}, seed)
    assert sorted(map(str, shuffled)) == sorted(map(str, every))
    assert make_pairs(samples, scores, config, budget, seed) == pairs


@quick
@given(judged(), st.sampled_from(CONTROLS), st.integers(1, 4), st.integers(0, 99))
def test_controls_have_as_many_pairs_of_a_condition_and_no_image_twice(
    drawn: tuple[list[Sample], list[Score]], rule: str, most: int, seed: int
) -> None:
    samples, scores = drawn
    condition_of = {sample.id: sample.condition.id for sample in samples}

    def made(name: str) -> list[Pair]:
        return make_pairs(samples, scores, PreferenceConfig(pairing=name, pairs=most), None, seed)

    control, use = made(rule), made("best-worst")
    used = [name for pair in control for name in (pair.winner, pair.loser)]
    assert len(used) == len(set(used))
    assert all(condition_of[pair.winner] == condition_of[pair.loser] for pair in control)
    assert sorted(condition_of[pair.winner] for pair in control) == sorted(condition_of[pair.winner] for pair in use)
    assert control == made(rule)


@quick
@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(1, 400), min_size=1),
    st.integers(1, 40),
    st.floats(0, 2),
    st.floats(1, 9),
)
def test_rarer_classes_have_no_smaller_budgets_and_none_beyond_the_cap(
    counts: dict[str, int], pairs: int, power: float, cap: float
) -> None:
    budget = budgets(counts, PreferenceConfig(pairs=pairs, rare_power=power, rare_cap=cap))
    by_count = sorted(counts, key=lambda label: counts[label])
    made = [budget[label] for label in by_count]
    assert made == sorted(made, reverse=True)
    assert made[-1] == pairs
    assert made[0] <= round(cap * pairs)
    assert set(budgets(counts, PreferenceConfig(pairs=pairs)).values()) == {pairs}


values = st.integers(1, 12).flatmap(lambda n: arrays(np.float64, n, elements=coarse))


@quick
@given(values, st.sampled_from([0.5, 1.0, 4.0]), coarse)
def test_ranks_ignore_scale_and_zero_turn_with_the_sign_and_sum_to_nothing(
    drawn: Array, scale: float, shift: float
) -> None:
    np.testing.assert_array_equal(ranks(scale * drawn + shift), ranks(drawn))
    np.testing.assert_allclose(ranks(-drawn), -ranks(drawn), atol=1e-12)
    assert abs(ranks(drawn).sum()) < 1e-9
    assert np.abs(ranks(drawn)).max() <= 1
    assert not ranks(np.full(len(drawn), shift)).any()


@st.composite
def penalties(draw: st.DrawFn) -> tuple[Array, dict[str, Array], dict[str, float], list[str]]:
    count = draw(st.integers(1, 12))
    column = arrays(np.float64, count, elements=coarse)
    weights = draw(st.fixed_dictionaries({"one": st.floats(0, 2), "two": st.floats(0, 2)}))
    conditions = draw(st.lists(st.sampled_from("pq"), min_size=count, max_size=count))
    return draw(column), {"one": draw(column), "two": draw(column)}, weights, conditions


@quick
@given(penalties(), st.integers(0, 99), st.sampled_from([0.5, 4.0]), coarse)
def test_combined_values_ignore_the_scale_of_the_criterion_and_follow_the_samples(
    drawn: tuple[Array, dict[str, Array], dict[str, float], list[str]], key: int, scale: float, shift: float
) -> None:
    own, parts, weights, conditions = drawn
    out = combined(own, parts, weights, conditions)
    if any(weights.values()):
        np.testing.assert_array_equal(combined(scale * own + shift, parts, weights, conditions), out)
    order = np.random.default_rng(key).permutation(len(own))
    moved = combined(own[order], {k: v[order] for k, v in parts.items()}, weights, [conditions[i] for i in order])
    np.testing.assert_allclose(moved, out[order], atol=1e-12)
    # What belongs to another condition is nobody's business.
    here = np.array(conditions) == conditions[0]
    alone = combined(
        own[here],
        {k: v[here] for k, v in parts.items()},
        weights,
        [name for name in conditions if name == conditions[0]],
    )
    np.testing.assert_array_equal(alone, out[here])


@quick
@given(penalties())
def test_without_penalties_values_are_what_they_were(
    drawn: tuple[Array, dict[str, Array], dict[str, float], list[str]],
) -> None:
    own, parts, weights, conditions = drawn
    for none in ({}, dict.fromkeys(weights, 0.0)):
        assert combined(own, parts, none, conditions).tobytes() == own.tobytes()


@quick
@given(st.integers(0, 2**31), st.integers(2, 6), st.floats(0.1, 30))
def test_a_wrong_sample_never_outranks_a_right_one_by_learnability(key: int, classes: int, scale: float) -> None:
    rng = np.random.default_rng(key)
    logits, labels = rng.normal(0, scale, (30, classes)), rng.integers(0, classes, 30)
    found, right = learnability(logits, labels), logit_margin(logits, labels) > 0
    assert (found[right] >= 0).all()
    assert (found[right] <= np.log(classes) + 1e-9).all()
    assert (found[~right] <= -np.log(2) + 1e-9).all()


@quick
@given(st.integers(0, 2**31), st.floats(0.1, 10))
def test_influence_is_a_cosine_and_ignores_lengths(key: int, scale: float) -> None:
    rng = np.random.default_rng(key)
    logits, labels, features = rng.normal(0, 2, (9, 4)), rng.integers(0, 4, 9), rng.normal(0, 1, (9, 5))
    towards = mean_gradient(logits[:5], labels[:5], features[:5])
    found = influence(logits, labels, features, towards)
    assert (np.abs(found) <= 1 + 1e-12).all()
    np.testing.assert_allclose(influence(logits, labels, scale * features, scale * towards), found, atol=1e-12)
    np.testing.assert_allclose(influence(logits, labels, features, -towards), -found, atol=1e-12)
