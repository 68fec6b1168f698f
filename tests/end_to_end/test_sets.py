"""What a finished run learnt from and drew: real anchors, sets of one noise, what is picked."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Finished
from safetensors.torch import load_file

from saadi.alignment.focus import saliency_weight
from saadi.alignment.tables import anchored, pair_table
from saadi.configfile import load_config
from saadi.critics.downstream import restore
from saadi.critics.judging import WORK, scored
from saadi.critics.stages import fit_critics
from saadi.critics.tasks import TASKS
from saadi.data.stages import prepare_data
from saadi.diffusion.drawing import encode_images
from saadi.diffusion.generator import encode_prompts
from saadi.diffusion.lessons import anchors_of, prompt_of
from saadi.diffusion.painting import read_images
from saadi.diffusion.stages import model_at
from saadi.preferences import log_softmax
from saadi.records import Pair, Sample, Score, read_records
from saadi.store import Run


def _set(run: Path, arm: str, kind: str) -> list[Sample]:
    return read_records(run / f"evaluation/sets/{arm}/{kind}.jsonl", Sample)


def test_the_sets_of_two_models_start_from_the_same_noise(finished: Finished) -> None:
    sets = [_set(finished.folder, name, "drawn") for name in ("unaligned", "winners", "round-1", "round-2")]
    first, *others = [[(sample.label, sample.seed) for sample in samples[:8]] for samples in sets]
    assert len(set(first)) == 8
    assert all(other == first for other in others)
    assert [len(samples) for samples in sets] == [8, 8, 24, 24]
    assert len({sample.id for sample in chain(*sets)}) == 64


@pytest.mark.parametrize("rounds", [1, 2])
def test_of_what_an_aligned_model_drew_the_critic_is_sure_and_the_student_is_not(
    rounds: int, finished: Finished, tmp_path: Path
) -> None:
    drawn, used = (_set(finished.folder, f"round-{rounds}", kind) for kind in ("drawn", "samples"))
    assert {sample.round for sample in drawn} == {rounds}
    assert len(drawn) + 48 * rounds == finished.results["arms"][f"round-{rounds}"]["n_generated"] == 24 + 48 * rounds
    with Run(finished.copy(tmp_path), load_config(finished.config)) as run:
        data = prepare_data(run)
        scores = scored(run, fit_critics(run, data), drawn, tmp_path)
    rank = {score.sample: (score.right, score.value) for score in scores}
    weights = load_file(finished.folder / "evaluation/trainings/real/mix-0/seed-0/model.safetensors")
    recipe, classes = run.config.evaluation.classifier, len(data.space)
    student = restore(TASKS["classification"], recipe, weights, classes, 1.0, torch.device("cpu"))
    likely = log_softmax(student.logits(read_images(finished.folder, drawn)))
    known = {sample.id: row[data.space.id(sample.label)] for sample, row in zip(drawn, likely, strict=True)}
    assert {sample.id for sample in used} < rank.keys()
    for label in {sample.label for sample in drawn}:
        of_class = [sample.id for sample in drawn if sample.label == label]
        (best,) = [sample.id for sample in used if sample.label == label]
        *sure, _ = sorted(of_class, key=lambda name: rank[name], reverse=True)  # half of three, rounded up
        assert best == min(sure, key=lambda name: (not rank[name][0], known[name]))


def test_a_pool_that_grows_is_judged_as_a_whole(finished: Finished, tmp_path: Path) -> None:
    drawn = _set(finished.folder, "round-1", "drawn")
    with Run(finished.copy(tmp_path), load_config(finished.config)) as run:
        critic = fit_critics(run, prepare_data(run))
        for count in (5, 9, len(drawn)):  # the last piece grows, and is no whole one before it does
            scores = scored(run, critic, drawn[:count], tmp_path)
            assert [score.sample for score in scores] == [sample.id for sample in drawn[:count]]
        for end in (".jsonl", ".npy"):  # killed between the two files of a piece
            next((tmp_path / WORK).glob(f"*{end}")).unlink()
            assert scored(run, critic, drawn, tmp_path) == scores


def test_a_round_learns_from_its_pairs_their_prompts_and_anchors(finished: Finished, tmp_path: Path) -> None:
    config, folder = load_config(finished.config), finished.copy(tmp_path)
    samples = read_records(folder / "round-1/samples/samples.jsonl", Sample)
    scores = read_records(folder / "round-1/scores/scores.jsonl", Score)
    pairs = read_records(folder / "round-1/pairs/pairs.jsonl", Pair)
    with Run(folder, config) as run:
        data, generator = prepare_data(run), model_at(run.folder, config, [])
        critic = fit_critics(run, data)
        table, watched = (
            pair_table(run, generator, data, critic, samples, scores, pairs, tmp_path / name, round_=round_)
            for name, round_ in (("train", 1), ("held-out", None))
        )
    of, right = {one.id: one for one in samples}, {one.sample: one.right for one in scores}
    first = watched.take(torch.arange(len(watched)))
    for side, ids in ((first.winner, [one.winner for one in pairs]), (first.loser, [one.loser for one in pairs])):
        seen = encode_images(generator, read_images(folder, [of[one] for one in ids]))
        torch.testing.assert_close(side.latents, seen)
    wrong, anchors = sum(not right[one.loser] for one in pairs), config.alignment.anchors * len(data.space)
    assert [len(watched), len(table)] == [len(pairs), 2 * len(pairs) + wrong + anchors]
    again = table.take(torch.arange(len(pairs)))
    assert torch.equal(again.winner.latents, first.winner.latents)
    labels = [prompt_of(config, [one.label]) for one in pairs]
    torch.testing.assert_close(first.embedding, encode_prompts(generator, labels))
    assert torch.equal(first.embedding, first.loser_embedding)
    others = table.take(torch.arange(len(pairs), len(table)))
    assert torch.equal(others.winner.latents, others.loser.latents)
    assert (others.embedding != others.loser_embedding).flatten(1).any(1).all()


def test_an_anchor_is_better_under_its_own_prompt_than_under_what_another_patients_critic_sees(
    finished: Finished, tmp_path: Path
) -> None:
    made_with = load_config(finished.config)
    config = made_with.model_copy(update={"alignment": made_with.alignment.model_copy(update={"anchors": 3})})
    with Run(finished.copy(tmp_path), made_with) as run:
        data = prepare_data(run)
        critic, generator = fit_critics(run, data), model_at(run.folder, config, [])
        train = data.split("train")
        found = anchored(config, generator, train, critic, 1)
        rows = anchors_of(config, generator, train, 1).rows
        looking = config.model_copy(update={"alignment": config.alignment.model_copy(update={"focus": "saliency"})})
        seen = anchored(looking, generator, train, critic, 1).images
    assert np.array_equal(train.labels[rows], np.repeat(np.unique(train.labels), 3))
    prompts = [prompt_of(config, [name]) for name in data.space.names]
    torch.testing.assert_close(found.images.latents, encode_images(generator, train.images[rows]))
    assert found.asked == [prompts[label] for label in train.labels[rows]]
    assert torch.equal(seen.latents, found.images.latents)
    unseen = critic.crossfit.members[critic.crossfit.fold_of_group[train.groups[rows[0]]]]
    where = unseen.saliency(train.images[rows[:1]], train.labels[rows[:1]])
    height, width = seen.latents.shape[2:]
    torch.testing.assert_close(seen.weight[:1], saliency_weight(torch.from_numpy(where), (height, width)))
    for row, rival in zip(rows, found.rivals, strict=True):
        unseen = critic.crossfit.members[critic.crossfit.fold_of_group[train.groups[row]]]
        logits = unseen.logits(train.images[[row]])[0]
        logits[train.labels[row]] = -np.inf
        assert rival == prompts[logits.argmax()]


def test_the_images_that_were_measured_are_found_as_the_docs_say(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mine").symlink_to(finished.folder)
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs/exchange.md").read_text(encoding="utf-8")
    known: dict[str, Any] = {}
    exec(page.split("```python")[1].split("```")[0], known)
    of_class = Counter(labels[0] for path, labels, mask in known["synthetic"] if path.is_file() and mask is None)
    assert len({*of_class.values()}) == 1  # balanced
    assert of_class.total() == finished.results["arms"]["round-1"]["n_synthetic"]
