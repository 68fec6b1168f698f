"""Stage 2: which of two samples of one condition is preferred. Rules of pairing are pure functions of scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from saadi.config import PreferenceConfig
from saadi.errors import BadInput
from saadi.records import Pair, Sample, Score, by_condition, by_label
from saadi.seeds import numpy_rng

_LEAST = 1e-9
"""A pair differs by more than rounding, whatever margin is asked for."""


@dataclass(frozen=True)
class Judged:
    """What a rule of pairing sees: samples with their scores by id, and what is asked of pairs.

    `margin`: the least difference within a pair, above 0. `budget`: the most pairs of a class, by label. `seed`: of
    rules that draw.
    """

    samples: Sequence[Sample]
    score_of: Mapping[str, Score]
    margin: float
    budget: Mapping[str, int]
    seed: int

    def conditions(self) -> Iterator[list[Sample]]:
        """The samples of each condition, best first; ties by id, so that the order they come in changes nothing."""
        for members in by_condition(self.samples).values():
            yield sorted(members, key=lambda sample: (-self.score_of[sample.id].value, sample.id))

    def right(self, ranked: Sequence[Sample]) -> list[Sample]:
        """Those that the critic sees what was asked for in: nothing else may win."""
        return [sample for sample in ranked if self.score_of[sample.id].right]

    def pair(self, winner: Sample, loser: Sample) -> Pair:
        """A preference, and by how much the winner's score exceeds the loser's."""
        margin = self.score_of[winner.id].value - self.score_of[loser.id].value
        return Pair(winner.id, loser.id, winner.label, margin)

    def shuffled(self, ranked: Sequence[Sample]) -> list[Sample]:
        """The samples of a condition in a random order, always the same."""
        rng = numpy_rng(self.seed, "pairing", ranked[0].condition.id, ranked[0].round)
        return [ranked[i] for i in rng.permutation(len(ranked))]

    def widest(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Of each class as many pairs as its budget allows, those with the widest margins."""
        kept: list[Pair] = []
        for label, own in by_label(pairs).items():
            kept += sorted(own, key=lambda pair: -pair.margin)[: self.budget[label]]
        return kept


Rule = Callable[[Judged], list[Pair]]
PAIRINGS: dict[str, Rule] = {}


def pairing(name: str) -> Callable[[Rule], Rule]:
    """Register a rule under the name the configuration uses."""

    def register(function: Rule) -> Rule:
        PAIRINGS[name] = function
        return function

    return register


@pairing("best-worst")
def best_worst(judged: Judged) -> list[Pair]:
    """The i-th best right sample of a condition beats its i-th worst sample."""
    pairs: list[Pair] = []
    for ranked in judged.conditions():
        # No image is in two: winners come down from the top, losers up from the bottom, and a margin parts them.
        for winner, loser in zip(judged.right(ranked), reversed(ranked), strict=False):
            pair = judged.pair(winner, loser)
            if pair.margin < judged.margin:
                break
            pairs.append(pair)
    return judged.widest(pairs)


@pairing("best-random")
def best_random(judged: Judged) -> list[Pair]:
    """The best right sample of a condition beats any other that is worse by the margin, drawn at random; then the next.

    A loser is seldom an extreme one, so what is learnt is less how a hopeless image looks.
    """
    pairs: list[Pair] = []
    for ranked in judged.conditions():
        used: set[str] = set()
        order = judged.shuffled(ranked)
        for winner in judged.right(ranked):
            free = [loser for loser in order if loser.id not in used] if winner.id not in used else []
            worse = (pair for pair in (judged.pair(winner, loser) for loser in free) if pair.margin >= judged.margin)
            if found := next(worse, None):
                pairs.append(found)
                used |= {found.winner, found.loser}
    return judged.widest(pairs)


@pairing("random")
def random_pairs(judged: Judged) -> list[Pair]:
    """A control, never for use: as many pairs of each condition as `best_worst` has, of any two samples, either first.

    What it gains is what fine-tuning on one's own samples does, whatever they show. Margins may be negative.
    """
    wanted: dict[str, int] = {}
    condition_of = {sample.id: sample.condition.id for sample in judged.samples}
    for pair in best_worst(judged):
        wanted[condition_of[pair.winner]] = wanted.get(condition_of[pair.winner], 0) + 1
    pairs: list[Pair] = []
    for ranked in judged.conditions():
        order = judged.shuffled(ranked)[: 2 * wanted.get(ranked[0].condition.id, 0)]
        pairs += [judged.pair(first, second) for first, second in zip(order[::2], order[1::2], strict=True)]
    return pairs


@pairing("reversed")
def reversed_pairs(judged: Judged) -> list[Pair]:
    """A control, never for use: the pairs of `best_worst` with winner and loser exchanged. Margins are negative.

    If preferences matter, it does harm.
    """
    return [Pair(pair.loser, pair.winner, pair.label, -pair.margin) for pair in best_worst(judged)]


def budgets(counts: Mapping[str, int], config: PreferenceConfig) -> dict[str, int]:
    """The most pairs of each class, from its number of training images n_c: more for rare ones.

    `config.pairs` times (n_max / n_c) ^ `config.rare_power`, `config.rare_cap` times `config.pairs` at most.
    """
    most = max(counts.values())
    return {
        label: round(config.pairs * min((most / count) ** config.rare_power, config.rare_cap))
        for label, count in counts.items()
    }


def make_pairs(
    samples: Sequence[Sample],
    scores: Sequence[Score],
    config: PreferenceConfig,
    budget: Mapping[str, int] | None = None,
    seed: int = 0,
) -> list[Pair]:
    """Preference pairs within each condition, by the rule `config.pairing`.

    A winner must be right in absolute terms. A pair needs a margin of `config.margin` or more. No image is in two. Of a
    class's pairs the `budget` with the widest margins are kept; without one, `config.pairs` of every class. The
    controls keep to the number of pairs alone. Raises `BadInput` for an unknown rule.
    """
    if config.pairing not in PAIRINGS:
        raise BadInput(f"preferences.pairing: unknown {config.pairing!r}; one of {', '.join(sorted(PAIRINGS))}")
    budget = budget or {sample.label: config.pairs for sample in samples}
    margin = max(config.margin, _LEAST)
    return PAIRINGS[config.pairing](Judged(samples, {one.sample: one for one in scores}, margin, budget, seed))


def ends(pair: Pair) -> tuple[str, str]:
    """The ids of a pair's two samples."""
    return pair.winner, pair.loser


def joined(own: Sequence[Pair], imported: Sequence[Pair]) -> list[Pair]:
    """The critic's own pairs and imported ones, before which every own one gives way that shares an image with them:
    it might say the contrary."""
    taken = {one for pair in imported for one in ends(pair)}
    return [*(pair for pair in own if taken.isdisjoint(ends(pair))), *imported]


def bundles(pairs: Sequence[Pair], places: Mapping[str, str] | None = None) -> list[list[Pair]]:
    """Pairs that share an image or, of samples that `places` names, where these are painted, directly or through
    others, together, in the order of the first of each. Pairs made here share no image; imported ones may."""
    of = places or {}
    links = [(pair.winner, pair.loser) for pair in pairs]
    links += [(one, f"at {of[one]}") for pair in pairs for one in ends(pair) if one in of]
    names = {name: row for row, name in enumerate(dict.fromkeys(name for link in links for name in link))}
    edges = np.array([[names[one] for one in link] for link in links], np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(len(names), len(names)))
    part = connected_components(graph, directed=False)[1]
    found: dict[int, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(int(part[names[pair.winner]]), []).append(pair)
    return list(found.values())


def hold_out(
    pairs: Sequence[Pair], share: float, *keys: int | str, places: Mapping[str, str] | None = None
) -> tuple[list[Pair], list[Pair]]:
    """Split pairs at random into (kept, held out), which share no image and none of the `places` (see `bundles`); at
    least one is held out where there are two or more. Where all hang together nothing could be held out: then, and only
    then, they are dealt one by one."""
    whole = bundles(pairs, places)
    parts = whole if len(whole) > 1 else [[pair] for pair in pairs]
    count = min(len(parts) - 1, max(1, round(share * len(parts)))) if len(parts) > 1 and share > 0 else 0
    chosen = set(numpy_rng(*keys).permutation(len(parts))[:count].tolist())
    sides = [
        [pair for row, part in enumerate(parts) if (row in chosen) is held for pair in part] for held in (False, True)
    ]
    return sides[0], sides[1]
