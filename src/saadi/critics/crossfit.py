"""Cross-fitting by group: a sample is judged by a member that never saw the training group it lies nearest to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from saadi.config import CriticConfig
from saadi.critics.downstream import Labelled, Network, train_network
from saadi.critics.tasks import Downstream, Logits, Targets
from saadi.seeds import numpy_rng, seed_of

_DEALS = 64


def deal_folds(shown: NDArray[np.bool_], groups: NDArray[np.str_], folds: int, seed: int) -> dict[str, int]:
    """Deal groups to folds so that every member, trained on the *other* folds, sees as much of each class as possible.

    `shown` [N, C]: the classes that each image shows; `groups` [N].
    Greedy: largest groups first, each to the fold that then holds the smallest share of the classes the group brings.
    Where that leaves all of a class in one fold, whose member would never see it, other orders are tried.
    """
    names = sorted(set(groups.tolist()))
    classes = shown.shape[1]
    counts = np.array([shown[groups == name].sum(0) for name in names], float)
    shares = counts / counts.sum(0).clip(1)
    rng = numpy_rng(seed, "folds")
    order = np.argsort(-shares.max(1) + 1e-6 * rng.random(len(names)), kind="stable")
    best: dict[str, int] = {}
    fewest = np.inf
    for _ in range(_DEALS):
        load, held = np.zeros((folds, classes)), np.zeros(folds)
        dealt: dict[str, int] = {}
        for g in order:
            cost = ((load + shares[g]) ** 2).sum(1) - (load**2).sum(1) + 1e-3 * load.sum(1)
            fold = int(np.argmin(cost + 1e-9 * held))  # groups without any class, too, fill empty folds first
            held[fold] += 1
            load[fold] += shares[g]
            dealt[names[g]] = fold
        unseen = int((load.max(0) > 1 - 1e-9).sum())  # classes that lie in one fold
        if unseen < fewest:
            best, fewest = dealt, unseen
        if not unseen:
            break
        order = rng.permutation(len(names))
    return best


def fit_temperature(
    logits: Logits, targets: Targets, likelihood: Callable[[Logits, Targets], NDArray[np.float64]]
) -> float:
    """The temperature in [0.2, 20] with the greatest `likelihood` of `logits` / T (Guo et al., arXiv:1706.04599)."""

    def loss(log_temperature: float) -> float:
        return float(-likelihood(logits / np.exp(log_temperature), targets).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.2), np.log(20.0)), method="bounded").x))


@dataclass(frozen=True)
class CrossFitted:
    """Members and the fold each training group was dealt to; of K folds, member k has not seen fold k modulo K.

    `copies`: members of each fold, K each of them.
    """

    members: tuple[Network, ...]
    fold_of_group: dict[str, int]
    copies: int = 1

    @property
    def folds(self) -> int:
        return len(self.members) // self.copies

    def unseeing(self, fold: int) -> tuple[Network, ...]:
        """The members that never saw `fold`."""
        return self.members[fold :: self.folds]

    def verdicts(
        self, images: NDArray[np.uint8], nearest_groups: NDArray[np.str_]
    ) -> Iterator[tuple[NDArray[np.int64], Logits]]:
        """Calibrated logits, each image's by the member that never saw `nearest_groups[n]`, with the rows of `images`
        they belong to, of one fold; batch by batch, since those of every pixel of many images are a lot of memory.

        Where several never saw it, the mean of their logits: classes on which they differ come out less likely.
        """
        for rows, members in self._turns(nearest_groups):
            for pieces in zip(*(member.pieces(images[rows]) for member in members), strict=True):
                yield rows[pieces[0][0]], np.mean([logits for _, logits in pieces], 0)

    def _turns(self, nearest_groups: NDArray[np.str_]) -> Iterator[tuple[NDArray[np.int64], tuple[Network, ...]]]:
        """The rows of each fold and the members that are to judge them."""
        folds = np.array([self.fold_of_group[group] for group in nearest_groups])
        for fold in range(self.folds):
            yield np.flatnonzero(folds == fold), self.unseeing(fold)

    def saliency(
        self, images: NDArray[np.uint8], targets: Targets, nearest_groups: NDArray[np.str_]
    ) -> NDArray[np.float32]:
        """How much each pixel of images [N, S, S, 3] moves the loss of the members that judge it, [N, S, S], on
        average."""
        found = np.zeros(images.shape[:3], np.float32)
        for rows, members in self._turns(nearest_groups):
            found[rows] = np.mean([member.saliency(images[rows], targets[rows]) for member in members], 0)
        return found

    def judge(self, images: NDArray[np.uint8], nearest_groups: NDArray[np.str_]) -> Logits:
        """Calibrated logits of one image or more, [N, C] or [N, C, S, S], as `verdicts` has them."""
        out: Logits | None = None
        for rows, logits in self.verdicts(images, nearest_groups):
            out = np.zeros((len(images), *logits.shape[1:])) if out is None else out
            out[rows] = logits
        assert out is not None
        return out


def fit_member(
    task: Downstream,
    config: CriticConfig,
    real: Labelled,
    groups: NDArray[np.str_],
    dealt: dict[str, int],
    fold: int,
    classes: int,
    seed: int,
    device: torch.device,
) -> Network:
    """The member of one fold: trained without it, its temperature fitted on it."""
    inside = np.array([dealt[group] == fold for group in groups])
    held = real.take(inside)
    member = train_network(
        task, config.classifier, real.take(~inside), classes, seed_of(seed, "critic", fold), device=device
    )
    found: list[tuple[Any, Any]] = [
        task.witnesses(logits, held.targets[piece]) for piece, logits in member.pieces(held.images)
    ]
    logits, targets = (np.concatenate(part) for part in zip(*found, strict=True))
    return replace(member, temperature=fit_temperature(logits, targets, task.likelihood))
