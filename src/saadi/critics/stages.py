"""Stage 2 in a run's folder: fit the critic and the judge, draw candidates, score them, make pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from saadi.config import ClassifierConfig, RunConfig
from saadi.critics.crossfit import CrossFitted, deal_folds, fit_member
from saadi.critics.downstream import Labelled, Network, restore, train_network
from saadi.critics.surroundings import TrainingViews
from saadi.critics.tasks import TASKS, Downstream
from saadi.data import Dataset
from saadi.data.conditions import conditions_of, requests_of
from saadi.data.phantom import oracle_images
from saadi.data.stages import data_of
from saadi.diffusion.painting import Sampler, read_images, read_masks
from saadi.features import Embedder, load_embedder, nearest_mirrored
from saadi.foundation import backbone_path, foundation_folder
from saadi.pairing import budgets, make_pairs
from saadi.penalties import penalised
from saadi.preferences import CRITERIA, mean_gradient, score
from saadi.records import Condition, Pair, Sample, Score, read_records, write_atomic, write_records
from saadi.runtime import device_of
from saadi.seeds import seed_of
from saadi.store import Run, file_digest
from saadi.training import Progress
from saadi.workers import Context


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

    @cached_property
    def features(self) -> NDArray[np.float64]:
        """Features [N, D] of the training images."""
        return self.embedder.embed(self.train.images)

    @cached_property
    def mirrored(self) -> NDArray[np.float64]:
        """Features [N, D] of their mirror images: training shows the members these, too."""
        return self.embedder.embed(self.train.images[:, :, ::-1])

    @cached_property
    def views(self) -> TrainingViews:
        """The training images as the eyes see them."""
        return TrainingViews(self.features, self.mirrored, self.train)

    def nearest_groups(self, images: NDArray[np.uint8]) -> NDArray[np.str_]:
        """The group [M] of the training image that each of images [M, S, S, 3], or its mirror image, is nearest to."""
        near = nearest_mirrored(self.embedder.embed(images), self.features, self.mirrored)
        return self.train.groups[near.key]

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

    def scores(self, run: Run, samples: Sequence[Sample]) -> list[Score]:
        """Scores of samples on disk, each by the member that never saw the patient it is nearest to, with penalties."""
        images = read_images(run.folder, samples)
        maps = read_masks(run.folder, samples) if run.config.task == "segmentation" else None
        conditions, ids = [sample.condition for sample in samples], [sample.id for sample in samples]
        judged = self.verdicts(images, conditions, maps, self.nearest_groups(images), ids)
        weights = run.config.preferences.penalties
        if not weights:
            return judged
        around = self.views.around(self.embedder.embed(images), conditions)
        return penalised(judged, around, weights, [condition.id for condition in conditions])


def fit_network(context: Context, out: Path, *, number: int | None) -> None:
    """A job: train a member of the critic into `member-<number>.safetensors`; None: the judge."""
    config, device = context.config, device_of(context.config)
    data, task = data_of(context), TASKS[config.task]
    train, classes = data.split("train"), len(data.space)
    real = Labelled(train.images, train.targets(config.task))
    if number is not None:
        dealt = _deal(config, train)
        copy, fold = divmod(number, config.critic.folds)
        seed = seed_of(config.seed, "copy", copy) if copy else config.seed
        member = fit_member(task, config.critic, real, train.groups, dealt, fold, classes, seed, device)
        save_network(out / f"member-{number}.safetensors", member)
        return
    plenty = plenty_of(config)
    lesson = Labelled(*oracle_images(plenty, config.data.size, config.seed, config.task)) if plenty else real
    judge = train_network(task, config.critic.judge, lesson, classes, seed_of(config.seed, "judge"), device=device)
    save_network(out / "judge.safetensors", judge)


def _deal(config: RunConfig, train: Dataset) -> dict[str, int]:
    """The fold of each training group."""
    return deal_folds(train.presence, train.groups, config.critic.folds, config.seed)


def plenty_of(config: RunConfig) -> int:
    """How many rendered images of other patients the judge learns from; 0: it learns from the training images."""
    return config.data.phantom.oracle if config.data.source == "phantom" else 0


def fit_critics(run: Run, data: Dataset) -> Critic:
    """Train the members, fit their temperatures, train the judge; all on training images only."""
    config, device = run.config, device_of(run.config)
    train, val, classes = data.split("train"), data.split("val"), len(data.space)
    task, dealt = TASKS[config.task], _deal(config, train)
    plenty, members_wanted = plenty_of(config), config.critic.folds * config.critic.copies

    def opened(folder: Path) -> tuple[tuple[Network, ...], Network]:
        members = tuple(
            _open(folder / f"member-{k}.safetensors", task, config.critic.classifier, classes, device)
            for k in range(members_wanted)
        )
        return members, _open(folder / "judge.safetensors", task, config.critic.judge, classes, device)

    def make(folder: Path, progress: Progress) -> None:
        facts: dict[str, object] = {"model": config.critic.classifier.model, "folds": config.critic.folds}
        names = {"judge.safetensors": None} | {f"member-{k}.safetensors": k for k in range(members_wanted)}
        missing = [number for name, number in names.items() if not (folder / name).exists()]
        jobs = [run.crew.job(fit_network, number=number) for number in missing]
        for done, fetch in enumerate(jobs, len(names) - len(jobs) + 1):
            fetch(folder)
            progress(done, len(names))
        members, judge = opened(folder)
        unseen, among = Labelled(val.images, val.targets(config.task)), data.space.asked_ids
        facts |= {
            "temperature": [member.temperature for member in members],
            f"val_{task.metric}": float(np.mean([member.level(unseen, classes, among) for member in members])),
            "judge_model": config.critic.judge.model,
            "judge_learnt_from": f"{plenty} rendered images of other patients" if plenty else "the training images",
            f"judge_val_{task.metric}": judge.level(unseen, classes, among),
            "fold_of_group": dealt,
        }
        write_atomic(folder / "critic.json", json.dumps(facts, indent=1))

    eyes = file_digest(backbone_path(foundation_folder()))  # they say which member judges a sample
    settings = [config.critic.model_dump(mode="json"), config.seed, config.threads, plenty, eyes]
    members, judge = opened(run.stage("critic", make, settings=settings, inputs=["data"]))
    return Critic(
        CrossFitted(members, dealt, config.critic.copies),
        judge,
        load_embedder(foundation_folder()),
        train,
        config,
    )


def _open(path: Path, task: Downstream, config: ClassifierConfig, classes: int, device: torch.device) -> Network:
    from safetensors import safe_open

    with safe_open(path, "pt") as handle:
        temperature = float(handle.metadata()["temperature"])
    return restore(task, config, load_file(path), classes, temperature, device)


def draw_candidates(run: Run, sampler: Sampler, critic: Critic, round_: int, inputs: list[str]) -> list[Sample]:
    """Candidates of a round: as many for each class, then more where too few are right, up to the budget."""
    config = run.config.preferences
    condition = conditions_of(run.config, critic.train, f"round-{round_}")

    def asked(label: str, index: int) -> Condition:
        return condition(label, index // config.draws)

    def make(folder: Path, progress: Progress) -> None:
        names, budget = list(sampler.space.asked), budgets(critic.train.counts(), config)
        requests = [(asked(label, index), index) for index in range(config.candidates) for label in names]
        samples = sampler.draw(folder, requests, f"round-{round_}", progress, f"round-{round_}")
        drawn = config.candidates
        while drawn < config.max_candidates:
            right = {sample.label: 0 for sample in samples}
            for sample, judged in zip(samples, critic.scores(run, samples), strict=True):
                right[sample.label] += judged.right
            short = [label for label in names if right[label] < budget[label]]
            more = min(config.candidates, config.max_candidates - drawn)
            requests = [(asked(label, index), index) for index in range(drawn, drawn + more) for label in short]
            if not requests:
                break
            samples += sampler.draw(folder, requests, f"round-{round_}", progress, f"round-{round_}")
            drawn += more
        write_records(folder / "samples.jsonl", samples)

    keys = ("candidates", "max_candidates", "pairs", "rare_power", "rare_cap", "criterion", "draws")
    settings = [
        {key: getattr(config, key) for key in keys},
        run.config.sampling.model_dump(mode="json"),
        list(sampler.adapters),
    ]
    folder = run.stage(f"round-{round_}/samples", make, settings=settings, inputs=inputs)
    return read_records(folder / "samples.jsonl", Sample)


def score_candidates(run: Run, samples: list[Sample], critic: Critic, round_: int) -> list[Score]:
    """Score a round's candidates."""

    def make(folder: Path, progress: Progress) -> None:
        write_records(folder / "scores.jsonl", critic.scores(run, samples))

    inputs = ["critic", f"round-{round_}/samples"]
    settings = [run.config.preferences.criterion, run.config.preferences.penalties]
    folder = run.stage(f"round-{round_}/scores", make, settings=settings, inputs=inputs)
    return read_records(folder / "scores.jsonl", Score)


def pair_candidates(
    run: Run, samples: list[Sample], scores: list[Score], counts: Mapping[str, int], round_: int
) -> list[Pair]:
    """Make a round's preference pairs and say how many candidates were right, by class.

    `counts`: training images of each class, by which budgets are shared out.
    """
    config, seed = run.config.preferences, run.config.seed
    budget = budgets(counts, config)

    def make(folder: Path, progress: Progress) -> None:
        pairs = make_pairs(samples, scores, config, budget, seed)
        label_of = {sample.id: sample.label for sample in samples}
        summary = {label: {"candidates": 0, "right": 0, "pairs": 0} for label in dict.fromkeys(label_of.values())}
        for item in scores:
            summary[label_of[item.sample]]["candidates"] += 1
            summary[label_of[item.sample]]["right"] += item.right
        for pair in pairs:
            summary[pair.label]["pairs"] += 1
        write_records(folder / "pairs.jsonl", pairs)
        write_atomic(folder / "summary.json", json.dumps(summary, indent=1))

    inputs = [f"round-{round_}/scores"]
    settings = [config.model_dump(mode="json"), budget, seed]
    folder = run.stage(f"round-{round_}/pairs", make, settings=settings, inputs=inputs)
    return read_records(folder / "pairs.jsonl", Pair)
