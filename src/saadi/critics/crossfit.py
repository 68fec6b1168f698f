"""Cross-fitting by group: a sample is judged by a member that never saw the training group it lies nearest to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from saadi.config import CriticConfig
from saadi.critics.classifier import Classifier, Labelled, train_classifier
from saadi.preferences import log_softmax
from saadi.seeds import numpy_rng, seed_of

_DEALS = 64


def deal_folds(labels: NDArray[np.int64], groups: NDArray[np.str_], folds: int, seed: int) -> dict[str, int]:
    """Deal groups to folds so that every member, trained on the *other* folds, sees as much of each class as possible.

    Greedy: largest groups first, each to the fold that then holds the smallest share of the classes the group brings.
    Where that leaves all of a class in one fold, whose member would never see it, other orders are tried.
    """
    names = sorted(set(groups.tolist()))
    classes = int(labels.max()) + 1
    counts = np.array([np.bincount(labels[groups == name], minlength=classes) for name in names], float)
    shares = counts / counts.sum(0).clip(1)
    rng = numpy_rng(seed, "folds")
    order = np.argsort(-shares.max(1) + 1e-6 * rng.random(len(names)), kind="stable")
    best: dict[str, int] = {}
    fewest = np.inf
    for _ in range(_DEALS):
        load = np.zeros((folds, classes))
        dealt: dict[str, int] = {}
        for g in order:
            fold = int(np.argmin(((load + shares[g]) ** 2).sum(1) - (load**2).sum(1) + 1e-3 * load.sum(1)))
            load[fold] += shares[g]
            dealt[names[g]] = fold
        unseen = int((load.max(0) > 1 - 1e-9).sum())  # classes that lie in one fold
        if unseen < fewest:
            best, fewest = dealt, unseen
        if not unseen:
            break
        order = rng.permutation(len(names))
    return best


def fit_temperature(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The temperature in [0.2, 20] that minimises the cross-entropy of `logits` / T (Guo et al., arXiv:1706.04599)."""

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(logits / np.exp(log_temperature))[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.2), np.log(20.0)), method="bounded").x))


@dataclass(frozen=True)
class CrossFitted:
    """Members and the fold each training group was dealt to; member k has not seen fold k."""

    members: tuple[Classifier, ...]
    fold_of_group: dict[str, int]

    def judge(self, images: NDArray[np.uint8], nearest_groups: NDArray[np.str_]) -> NDArray[np.float64]:
        """Calibrated logits [N, C], each image's by the member that never saw `nearest_groups[n]`."""
        folds = np.array([self.fold_of_group[group] for group in nearest_groups])
        out: NDArray[np.float64] | None = None
        for fold, member in enumerate(self.members):
            rows = np.flatnonzero(folds == fold)
            if len(rows):
                logits = member.logits(images[rows])
                out = np.zeros((len(images), logits.shape[1])) if out is None else out
                out[rows] = logits
        assert out is not None
        return out


def fit_member(
    config: CriticConfig,
    real: Labelled,
    groups: NDArray[np.str_],
    dealt: dict[str, int],
    fold: int,
    classes: int,
    seed: int,
    device: torch.device,
) -> Classifier:
    """The member of one fold: trained without it, its temperature fitted on it."""
    held = np.array([dealt[group] == fold for group in groups])
    seen = Labelled(real.images[~held], real.labels[~held])
    member = train_classifier(config.classifier, seen, classes, seed_of(seed, "critic", fold), device=device)
    return replace(member, temperature=fit_temperature(member.logits(real.images[held]), real.labels[held]))
