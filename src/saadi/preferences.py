"""Stage 2: what is preferred. Criteria score samples, and pairs are made within one condition; all pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from saadi.config import PreferenceConfig
from saadi.errors import BadInput
from saadi.records import Pair, Sample, Score, by_condition, by_label
from saadi.seeds import numpy_rng

Array = NDArray[np.float64]
Criterion = Callable[[Array, NDArray[np.int64]], Array]
"""Calibrated logits [N, C] and intended labels [N] to values [N]; higher is better."""

CRITERIA: dict[str, Criterion] = {}


def criterion(name: str) -> Callable[[Criterion], Criterion]:
    """Register a criterion under the name the configuration uses."""

    def register(function: Criterion) -> Criterion:
        CRITERIA[name] = function
        return function

    return register


def log_softmax(logits: Array) -> Array:
    """Log-probabilities [N, C]."""
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities: Array = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return log_probabilities


@criterion("critic-loss")
def critic_loss(logits: Array, labels: NDArray[np.int64]) -> Array:
    """Minus the cross-entropy on the intended label, in nats: what the downstream model itself would be trained on."""
    values: Array = log_softmax(logits)[np.arange(len(labels)), labels]
    return values


@criterion("margin")
def logit_margin(logits: Array, labels: NDArray[np.int64]) -> Array:
    """The intended label's logit minus the best other one: positive exactly where the critic is right."""
    rows = np.arange(len(labels))
    values: Array = logits[rows, labels] - logits[rows, rivals(logits, labels)]
    return values


def rivals(logits: Array, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The likeliest class [N] other than the intended one: what a wrong image is seen as, a right one nearly was."""
    others = logits.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    found: NDArray[np.int64] = others.argmax(1)
    return found


def score(name: str, samples: Sequence[Sample], logits: Array, labels: NDArray[np.int64]) -> list[Score]:
    """Scores of samples by a registered criterion. Raises `BadInput` for an unknown name."""
    if name not in CRITERIA:
        raise BadInput(f"preferences.criterion: unknown {name!r}; one of {', '.join(sorted(CRITERIA))}")
    values, margins = CRITERIA[name](logits, labels), logit_margin(logits, labels)
    nearest = rivals(logits, labels)
    probabilities = np.exp(log_softmax(logits))
    return [
        Score(
            sample=sample.id,
            criterion=name,
            value=float(value),
            right=bool(margin > 0),
            parts={
                "probability": float(row[label]),
                "seen": float(row.argmax()),
                "seen_probability": float(row.max()),
                "rival": float(rival),
            },
        )
        for sample, value, margin, row, label, rival in zip(
            samples, values, margins, probabilities, labels, nearest, strict=True
        )
    ]


def make_pairs(samples: Sequence[Sample], scores: Sequence[Score], config: PreferenceConfig) -> list[Pair]:
    """Best against worst within each condition: the i-th best right sample beats the i-th worst sample.

    A winner must be right in absolute terms. A pair needs a margin of `config.margin` or more. No image is in two. Of a
    class's pairs the `config.pairs` with the widest margins are kept.
    """
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
    used: set[str] = set()
    unique = []
    for pair in pairs:
        if not {pair.winner, pair.loser} & used:
            unique.append(pair)
            used |= {pair.winner, pair.loser}
    kept: list[Pair] = []
    for own in by_label(unique).values():
        kept += sorted(own, key=lambda pair: -pair.margin)[: config.pairs]
    return kept


Item = TypeVar("Item")


def hold_out(items: Sequence[Item], share: float, *keys: int | str) -> tuple[list[Item], list[Item]]:
    """Split items at random into (kept, held out); at least one is held out where there are two or more."""
    count = min(len(items) - 1, max(1, round(share * len(items)))) if len(items) > 1 and share > 0 else 0
    chosen = set(numpy_rng(*keys).permutation(len(items))[:count].tolist())
    return [x for i, x in enumerate(items) if i not in chosen], [x for i, x in enumerate(items) if i in chosen]
