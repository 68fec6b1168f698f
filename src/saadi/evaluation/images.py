"""What the synthetic images are like, arm by arm: fidelity, coverage, copies, and what an independent judge sees."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saadi.config import RunConfig
from saadi.critics.judging import Critic
from saadi.data import Dataset
from saadi.data.conditions import requests_of
from saadi.data.phantom import fresh_images
from saadi.diffusion.painting import read_images, read_masks, save_png
from saadi.evaluation.arms import Arm
from saadi.evaluation.audits import probe
from saadi.evaluation.fidelity import cosine_kid, precision_recall_coverage
from saadi.evaluation.memorisation import memorised_by_class, memorised_share
from saadi.evaluation.metrics import ratio
from saadi.evaluation.statistics import paired_mean
from saadi.features import nearest_mirrored
from saadi.preferences import READINGS
from saadi.records import Sample, by_label, spread, write_atomic
from saadi.store import Run
from saadi.training import Progress

Features = NDArray[np.float64]
NEIGHBOURS = 8
FRESH = 60
"""Fresh phantom images of each class: enough for a threshold that three of them undercut."""

COPY_QUANTILE = 0.005
"""`saadi sample` holds back an image nearer to a training image than all but this share of fresh real ones."""


def yardstick(config: RunConfig, data: Dataset, critic: Critic) -> tuple[Features, NDArray[np.int64], str]:
    """Features and labels of fresh real images, whose distance to training tells copies, and what these images are."""
    if config.data.source == "phantom":
        patients = set(critic.train.groups.tolist())
        images, labels, _ = fresh_images(config.data.phantom, config.data.size, config.seed, patients, FRESH)
        return critic.embedder.embed(images), labels, "fresh images of the training patients"
    val = data.split("val")
    rows, labels = np.nonzero(val.presence)  # an image is of every class it shows
    return critic.embedder.embed(val.images)[rows], labels, "validation images, which show other patients than training"


def judge_images(
    run: Run, critic: Critic, samples: Sequence[Sample], images: NDArray[np.uint8]
) -> tuple[Features, list[NDArray[np.uint8]]]:
    """How far the judge sees in each image [N, S, S, 3] what it was asked to show, 0 .. 1.

    1 or 0 where that is a class or a set of classes; for segmentation the Dice score of the requested mask, over the
    painted region and its rim. Of segmentation also the ids [S, S] that the judge sees in each.
    """
    maps = read_masks(run.folder, samples) if run.config.task == "segmentation" else None
    requests = requests_of(run.config, critic.train, [sample.condition for sample in samples], maps)
    parts, seen = [], list[NDArray[np.uint8]]()
    for rows, logits in critic.judge.pieces(images):
        parts.append(READINGS[run.config.task](logits, *(request[rows] for request in requests)).agreement)
        seen += [] if maps is None else list(logits.argmax(1).astype(np.uint8))
    return np.concatenate(parts), seen


def _keep_shown(folder: Path, samples: Sequence[Sample], seen: Sequence[NDArray[np.uint8]]) -> None:
    """Keep what the judge sees of the samples that the page shows."""
    folder.mkdir(parents=True, exist_ok=True)  # of a run that was stopped here
    maps = {sample.id: ids for sample, ids in zip(samples, seen, strict=True)}
    for own in by_label(samples).values():
        for k in spread(len(own)):
            save_png(folder / f"{own[k].id}.png", maps[own[k].id])


def judge_gains(agreement: Mapping[str, Features], arms: Sequence[Arm], config: RunConfig) -> dict[str, object]:
    """By how much the judge agrees more with arms than with `unaligned`, of those that are of its very noise and
    conditions: they differ by their models and by what led them, and by nothing that was picked."""
    drawn = {arm.name: [(sample.condition.id, sample.seed) for sample in arm.samples] for arm in arms}
    gains = dict[str, object]()
    for name in drawn:
        if name != "unaligned" and drawn[name] == drawn["unaligned"]:
            differences = agreement[name] - agreement["unaligned"]
            mean, interval = paired_mean(differences, config.evaluation.bootstrap, config.seed)
            gains[f"{name} - unaligned"] = {"mean": mean, "ci95": list(interval), "n": len(differences)}
    return gains


def measure_images(run: Run, data: Dataset, arms: Sequence[Arm], critic: Critic) -> None:
    """Measure each arm's synthetic set against the validation images, into `evaluation/images`."""

    def make(folder: Path, progress: Progress) -> None:
        eyes, classes = critic.embedder, len(data.space.asked)
        train, mirrored, val = critic.features, critic.mirrored, data.split("val")
        real, groups = eyes.embed(val.images), val.groups
        fresh, fresh_labels, description = yardstick(run.config, data, critic)
        fresh_distance = nearest_mirrored(fresh, train, mirrored).distance

        def copied(distance: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
            return memorised_by_class(distance, labels, fresh_distance, fresh_labels, classes)[0]

        table: dict[str, dict[str, object]] = {}
        neighbours: dict[str, list[dict[str, object]]] = {}
        agreement: dict[str, Features] = {}
        for done, arm in enumerate(arms, 1):
            images = read_images(run.folder, arm.samples)
            labels = np.array([data.space.asked.index(sample.label) for sample in arm.samples])
            features = eyes.embed(images)
            near = nearest_mirrored(features, train, mirrored)
            by_class = copied(near.distance, labels)
            agrees, seen = judge_images(run, critic, arm.samples, images)
            agreement[arm.name] = agrees
            if seen:
                _keep_shown(folder / "seen" / arm.name, arm.samples, seen)
            judged = ratio(np.bincount(labels, agrees, classes), np.bincount(labels, minlength=classes))
            fidelity = precision_recall_coverage(real, features)
            table[arm.name] = {
                "n": len(images),
                "kid": cosine_kid(real, features),
                "precision": fidelity.precision,
                "recall": fidelity.recall,
                "coverage": fidelity.coverage,
                "told_apart": probe(real, features, groups),
                # Some classes are more uniform than others: over all at once, they alone would set the threshold.
                "memorised": float(np.nanmean(by_class)),
                "memorised_by_class": _named(data, by_class),
                "judge_agreement": float(agrees.mean()),
                "judge_by_class": _named(data, judged),
            }
            neighbours[arm.name] = [
                {
                    "sample": arm.samples[i].file,
                    "train_index": int(critic_row(data, near.key[i])),
                    "distance": float(near.distance[i]),
                    "label": arm.samples[i].label,
                }
                for i in np.argsort(near.distance, kind="stable")[:NEIGHBOURS]
            ]
            progress(done, len(arms))
        threshold = memorised_share(fresh_distance, fresh_distance, COPY_QUANTILE).threshold
        facts = {
            "synthetic": table,
            "yardstick": description,
            # 5 % by construction, or the next share that a class of few fresh images can show
            "memorised_fresh": float(np.nanmean(copied(fresh_distance, fresh_labels))),
            "copy_threshold": threshold,
            "judge_gains": judge_gains(agreement, arms, run.config),
        }
        write_atomic(folder / "images.json", json.dumps(facts, indent=1, allow_nan=False))
        write_atomic(folder / "neighbours.json", json.dumps(neighbours, indent=1))

    inputs = ["data", "critic", *sorted({stage for arm in arms for stage in arm.inputs})]
    settings = [run.config.data.model_dump(mode="json"), FRESH, COPY_QUANTILE, run.config.evaluation.bootstrap]
    run.stage("evaluation/images", make, settings=settings, inputs=inputs)


def critic_row(data: Dataset, train_row: int) -> int:
    """The row in the whole data set of a row of its training split."""
    return int(np.flatnonzero([frame.split == "train" for frame in data.frames])[train_row])


def _named(data: Dataset, values: NDArray[np.float64]) -> dict[str, float | None]:
    """Values [C] by class name; None for a class without any."""
    return {
        name: None if np.isnan(value) else float(value) for name, value in zip(data.space.asked, values, strict=True)
    }
