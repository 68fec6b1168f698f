"""The critic at work: scores of samples, each by the member that never saw the patient it is nearest to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from saadi.config import ClassifierConfig, RunConfig
from saadi.critics.crossfit import CrossFitted
from saadi.critics.downstream import Network, restore
from saadi.critics.surroundings import TrainingViews
from saadi.critics.tasks import TASKS, Downstream
from saadi.data import Dataset
from saadi.data.conditions import requests_of
from saadi.data.stages import data_of
from saadi.diffusion.painting import read_images, read_masks
from saadi.features import Embedder, load_embedder, nearest_mirrored
from saadi.files import save_array
from saadi.foundation import foundation_folder
from saadi.penalties import penalised
from saadi.preferences import CRITERIA, mean_gradient, score
from saadi.records import Condition, Sample, Score, read_records, to_record, write_records
from saadi.runtime import device_of
from saadi.store import Run
from saadi.workers import Context

AT_ONCE = 128
"""Samples judged in one job: no more of them are in memory together."""
WORK = "judged"
"""Within a stage's folder: what was judged so far, for resuming."""


def save_network(path: Path, model: Network) -> None:
    """Weights as safetensors, the temperature in its metadata."""
    state = {name: tensor.contiguous() for name, tensor in model.net.state_dict().items()}
    save_file(state, path, {"temperature": repr(model.temperature)})


@dataclass(frozen=True)
class Critic:
    """The cross-fitted critic, the judge that takes no part in pairing, and the eyes that find the nearest patient."""

    crossfit: CrossFitted
    judge: Network
    embedder: Embedder
    train: Dataset
    config: RunConfig

    features: NDArray[np.float64]
    """[N, D] of the training images."""
    mirrored: NDArray[np.float64]
    """[N, D] of their mirror images: training shows the members these, too."""

    def groups_of(self, seen: NDArray[np.float64], conditions: Sequence[Condition]) -> NDArray[np.str_]:
        """The group [M] that a critic of each of some images must not have seen: of one that is painted into a training
        frame, the frame's, or, where the object starts from a donor's pixels, the donor's; of one that starts from a
        training image, that one's; else of the training image that it, or its mirror image, is nearest to, by its
        features `seen` [M, D]."""
        nearest = nearest_mirrored(seen, self.features, self.mirrored).key
        edits = self.config.sampling.strength < 1
        named = [one.start if one.frame is None else one.donor if edits else one.frame for one in conditions]
        rows = [near if row is None else row for near, row in zip(nearest, named, strict=True)]
        return self.train.groups[np.array(rows, np.int64)]

    def verdicts(
        self,
        images: NDArray[np.uint8],
        conditions: Sequence[Condition],
        maps: NDArray[np.uint8] | None,
        groups: NDArray[np.str_],
        ids: Sequence[str] = (),
    ) -> list[Score]:
        """Scores of images [N, S, S, 3] against what they are to show, each by the member that never saw its group."""
        requests = requests_of(self.config, self.train, conditions, maps)
        names, criterion = ids or [""] * len(images), self.config.preferences.criterion
        found: dict[int, Score] = {}
        for rows, logits in self.crossfit.verdicts(images, groups):
            asked, gradients = [request[rows] for request in requests], tuple[NDArray[np.float64], ...]()
            if CRITERIA[criterion].gradients:
                fold = self.crossfit.fold_of_group[groups[rows[0]]]
                (member,) = self.crossfit.unseeing(fold)
                gradients = member.features(images[rows]), self.held_out_gradients[fold]
            judged = score(criterion, [names[row] for row in rows], logits, *asked, gradients=gradients)
            found |= zip(rows.tolist(), judged, strict=True)
        return [found[row] for row in range(len(images))]

    def saliency(
        self,
        images: NDArray[np.uint8],
        conditions: Sequence[Condition],
        maps: NDArray[np.uint8] | None,
        groups: NDArray[np.str_],
    ) -> NDArray[np.float32]:
        """How much each pixel of images [N, S, S, 3] moves the loss on what they are to show, [N, S, S]: that of the
        member that never saw their group."""
        wanted, *_ = requests_of(self.config, self.train, conditions, maps)
        return self.crossfit.saliency(images, wanted, groups)

    @cached_property
    def held_out_gradients(self) -> list[NDArray[np.float64]]:
        """By fold, the mean gradient [C, D] of its training images, by the last layer of the member that never saw
        them. Never of `val`, which is to say later what the chosen images are worth."""
        folds = np.array([self.crossfit.fold_of_group[group] for group in self.train.groups])
        found = []
        for fold in range(self.crossfit.folds):
            (member,), own = self.crossfit.unseeing(fold), folds == fold
            images = self.train.images[own]
            found.append(mean_gradient(member.logits(images), self.train.labels[own], member.features(images)))
        return found


def read_networks(folder: Path, config: RunConfig, classes: int) -> tuple[tuple[Network, ...], Network]:
    """The members of the critic and the judge in the folder of their stage."""
    task, critic, device = TASKS[config.task], config.critic, device_of(config)
    members = tuple(
        _open(folder / f"member-{k}.safetensors", task, critic.classifier, classes, device)
        for k in range(critic.folds * critic.copies)
    )
    return members, _open(folder / "judge.safetensors", task, critic.judge, classes, device)


def save_views(folder: Path, train: Dataset) -> None:
    """Write what the eyes see in the training images and in their mirror images."""
    eyes = load_embedder(foundation_folder())
    save_array(folder / "features.npy", eyes.embed(train.images))
    save_array(folder / "mirrored.npy", eyes.embed(train.images[:, :, ::-1]))


def read_critic(folder: Path, config: RunConfig, data: Dataset) -> Critic:
    """All that the critic's stage has written into its folder."""
    members, judge = read_networks(folder, config, len(data.space))
    dealt = json.loads((folder / "critic.json").read_text(encoding="utf-8"))["fold_of_group"]
    seen = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("features", "mirrored"))
    crossfit = CrossFitted(members, dealt, config.critic.copies)
    return Critic(crossfit, judge, load_embedder(foundation_folder()), data.split("train"), config, *seen)


def _open(path: Path, task: Downstream, config: ClassifierConfig, classes: int, device: torch.device) -> Network:
    with safe_open(path, "pt") as handle:
        temperature = float(handle.metadata()["temperature"])
    return restore(task, config, load_file(path), classes, temperature, device)


def _piece(samples: Sequence[Sample]) -> str:
    """The name of what is kept of some samples that are judged together: the last piece of a pool may have grown."""
    return f"{samples[0].id}-{len(samples)}"


def judge(context: Context, out: Path, *, samples: list[dict[str, Any]]) -> None:
    """A job: the scores of some samples, as `dataclasses.asdict` has them, and their features, named by `_piece`."""
    critic = context.keep(
        "critic", None, lambda: read_critic(context.root / "critic", context.config, data_of(context))
    )
    wanted = [to_record(values, Sample) for values in samples]
    images = read_images(context.root, wanted)
    maps = read_masks(context.root, wanted) if context.config.task == "segmentation" else None
    conditions, seen = [sample.condition for sample in wanted], critic.embedder.embed(images)
    groups = critic.groups_of(seen, conditions)
    judged = critic.verdicts(images, conditions, maps, groups, [sample.id for sample in wanted])
    write_records(out / f"{_piece(wanted)}.jsonl", judged)
    save_array(out / f"{_piece(wanted)}.npy", seen)


def forget_scores(run: Run, folder: Path) -> None:
    """Clear away what `scored` keeps in a stage's `folder`."""
    run.team.wait()  # all have read it
    if run.team.leads:
        shutil.rmtree(folder / WORK, ignore_errors=True)


def scored(run: Run, critic: Critic, samples: Sequence[Sample], folder: Path) -> list[Score]:
    """Scores of samples on disk, with penalties. They are kept in a stage's `folder` until `forget_scores`, so that
    nothing is judged twice."""
    work = folder / WORK
    work.mkdir(exist_ok=True)
    chunks = [samples[start : start + AT_ONCE] for start in range(0, len(samples), AT_ONCE)]
    missing = run.team.lacking(
        chunks, lambda chunk: all((work / f"{_piece(chunk)}{end}").exists() for end in (".jsonl", ".npy"))
    )
    for fetch in [run.crew.job(judge, samples=[asdict(sample) for sample in chunk]) for chunk in missing]:
        fetch(work)
    of = {one.sample: one for path in sorted(work.glob("*.jsonl")) for one in read_records(path, Score)}
    judged, weights = [of[sample.id] for sample in samples], run.config.preferences.penalties
    if not weights:
        return judged
    seen = np.concatenate([np.load(work / f"{_piece(chunk)}.npy", allow_pickle=False) for chunk in chunks])
    conditions = [sample.condition for sample in samples]
    views = TrainingViews(critic.features, critic.mirrored, critic.train)
    return penalised(judged, views.around(seen, conditions), weights, [condition.id for condition in conditions])
