"""Stage 2 in a run's folder: fit the critic and the judge, draw candidates, score them, make pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from saadi.config import RunConfig
from saadi.critics.architectures import contents
from saadi.critics.crossfit import deal_folds, fit_member
from saadi.critics.downstream import Labelled, train_network
from saadi.critics.judging import (
    Critic,
    forget_scores,
    read_critic,
    read_networks,
    save_network,
    save_views,
    scored,
)  # fmt: skip
from saadi.critics.tasks import TASKS
from saadi.data import Dataset
from saadi.data.conditions import conditions_of
from saadi.data.phantom import oracle_images
from saadi.data.stages import data_of
from saadi.diffusion.painting import Sampler
from saadi.exchange import read_imported
from saadi.files import file_digest
from saadi.foundation import backbone_path, foundation_folder
from saadi.pairing import budgets, joined, make_pairs
from saadi.records import Condition, Pair, Sample, Score, read_records, write_atomic, write_records
from saadi.runtime import device_of
from saadi.seeds import seed_of
from saadi.store import Run
from saadi.training import Progress
from saadi.workers import Context


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
    config, train, val = run.config, data.split("train"), data.split("val")
    task, classes, plenty = TASKS[config.task], len(data.space), plenty_of(run.config)

    def make(folder: Path, progress: Progress) -> None:
        facts: dict[str, object] = {"model": config.critic.classifier.model, "folds": config.critic.folds}
        numbers = range(config.critic.folds * config.critic.copies)
        names = {"judge.safetensors": None} | {f"member-{k}.safetensors": k for k in numbers}
        missing = run.team.lacking(list(names), lambda name: (folder / name).exists())
        jobs = [run.crew.job(fit_network, number=names[name]) for name in missing]
        for done, fetch in enumerate(jobs, len(names) - len(jobs) + 1):
            fetch(folder)
            progress(done, len(names))
        if not run.team.leads:
            return
        members, judge = read_networks(folder, config, classes)
        save_views(folder, train)
        unseen, among = Labelled(val.images, val.targets(config.task)), data.space.asked_ids
        facts |= {
            "temperature": [member.temperature for member in members],
            f"val_{task.metric}": float(np.mean([member.level(unseen, classes, among) for member in members])),
            "judge_model": config.critic.judge.model,
            "judge_learnt_from": f"{plenty} rendered images of other patients" if plenty else "the training images",
            f"judge_val_{task.metric}": judge.level(unseen, classes, among),
            "fold_of_group": _deal(config, train),
        }
        write_atomic(folder / "critic.json", json.dumps(facts, indent=1))

    eyes = file_digest(backbone_path(foundation_folder()))  # they say which member judges a sample
    settings = [config.critic.model_dump(mode="json"), config.seed, config.threads, plenty, eyes]
    settings += [*contents(config.critic.classifier.model), *contents(config.critic.judge.model)]
    folder = run.stage("critic", make, settings=settings, inputs=["data"], together=True)
    return read_critic(folder, config, data)


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
            for sample, judged in zip(samples, scored(run, critic, samples, folder), strict=True):
                right[sample.label] += judged.right
            short = [label for label in names if right[label] < budget[label]]
            more = min(config.candidates, config.max_candidates - drawn)
            requests = [(asked(label, index), index) for index in range(drawn, drawn + more) for label in short]
            if not requests:
                break
            samples += sampler.draw(folder, requests, f"round-{round_}", progress, f"round-{round_}")
            drawn += more
        forget_scores(run, folder)
        if run.team.leads:
            write_records(folder / "samples.jsonl", samples)

    keys = ("candidates", "max_candidates", "pairs", "rare_power", "rare_cap", "criterion", "draws")
    settings = [
        {key: getattr(config, key) for key in keys},
        run.config.sampling.model_dump(mode="json"),
        list(sampler.adapters),
    ]
    folder = run.stage(f"round-{round_}/samples", make, settings=settings, inputs=inputs, together=True)
    return read_records(folder / "samples.jsonl", Sample)


def score_candidates(run: Run, samples: list[Sample], critic: Critic, round_: int) -> list[Score]:
    """Score a round's candidates."""

    def make(folder: Path, progress: Progress) -> None:
        judged = scored(run, critic, samples, folder)
        forget_scores(run, folder)
        if run.team.leads:
            write_records(folder / "scores.jsonl", judged)

    inputs = ["critic", f"round-{round_}/samples"]
    settings = [run.config.preferences.criterion, run.config.preferences.penalties]
    folder = run.stage(f"round-{round_}/scores", make, settings=settings, inputs=inputs, together=True)
    return read_records(folder / "scores.jsonl", Score)


def pair_candidates(
    run: Run, samples: list[Sample], scores: list[Score], counts: Mapping[str, int], round_: int
) -> list[Pair]:
    """Make a round's preference pairs and say how many candidates were right, by class.

    `counts`: training images of each class, by which budgets are shared out.
    """
    config, seed = run.config.preferences, run.config.seed
    budget, imported = budgets(counts, config), read_imported(run.folder, round_)

    def make(folder: Path, progress: Progress) -> None:
        own = [] if imported and imported.use == "replace" else make_pairs(samples, scores, config, budget, seed)
        pairs = joined(own, imported.pairs if imported else ())
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
    settings = [config.model_dump(mode="json"), budget, seed, asdict(imported) if imported else None]
    folder = run.stage(f"round-{round_}/pairs", make, settings=settings, inputs=inputs)
    return read_records(folder / "pairs.jsonl", Pair)
