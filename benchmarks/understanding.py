"""What makes a synthetic image worth something? A run's unaligned images, chosen or relabelled, and its arms.

    python benchmarks/understanding.py runs/demo-classification --steps 4000 --seeds 4 --out runs/understanding
    python benchmarks/understanding.py runs/demo-classification --steps 4000 --set model=test_resnet --only "arm "

For a finished run of classification on the phantom. A classifier (the run's recipe, with so many steps, and `--set` by
the names of `evaluation.classifier`) learns from the real images and some others, and is tested on 1,600 new images,
each of a patient seen nowhere else; the run's own test set is not read. The judge, who learnt from plenty, stands in
for an oracle. Real images alone, from a twentieth of them to four times as many of the same patients, say how many real
images an accuracy is worth. Resumable; a table, understanding.json. Intervals are t-intervals over trainings, given one
pool and these real images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lessons import SHARES, Lesson, Pool, lessons_of, picks_of
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from scipy import stats

from saadi.config import ClassifierConfig, RunConfig
from saadi.configfile import load_config
from saadi.critics.downstream import Labelled, restore, train_network
from saadi.critics.judging import Critic
from saadi.critics.stages import fit_critics
from saadi.critics.tasks import TASKS
from saadi.data import Dataset
from saadi.data.phantom import make_phantom, oracle_images
from saadi.data.stages import prepare_data
from saadi.diffusion.painting import read_images
from saadi.errors import BadInput
from saadi.evaluation.metrics import rare_classes
from saadi.files import digest
from saadi.preferences import log_softmax
from saadi.records import Sample, read_json, read_records, write_atomic
from saadi.seeds import seed_of
from saadi.store import Run

MORE = (2, 4)
WHOLE = f"real, {100 * SHARES[-1]:g} %"
NEW = 1600
POOLS = (
    "round-1/samples/samples.jsonl",
    "evaluation/sets/unaligned/drawn.jsonl",
    "evaluation/sets/rejection/drawn.jsonl",
)
"""Unaligned images of a finished run, each drawn once."""
LED = ("evaluation/sets/feedback/drawn.jsonl",)
STUDENT = "evaluation/trainings/real/mix-0/seed-0/model.safetensors"


def equivalent(level: float, sizes: Sequence[int], levels: Sequence[float]) -> float:
    """How many real images alone reach `level`: between sizes linear in their logarithm, on a curve made not to fall.

    0 below the first size's level, infinite above the last's.
    """
    rising = np.maximum.accumulate(levels)
    if level < rising[0]:
        return 0.0
    return float(np.exp(np.interp(level, rising, np.log(sizes)))) if level <= rising[-1] else float("inf")


def _log_probabilities(critic: Critic, images: NDArray[np.uint8], groups: NDArray[np.str_]) -> NDArray[np.float64]:
    found = np.empty((len(images), len(critic.train.space)))
    for rows, logits in critic.crossfit.verdicts(images, groups):
        found[rows] = log_softmax(logits)
    return found


def read_pool(run: Run, critic: Critic, files: Sequence[str]) -> Pool:
    """The images that some files of a finished run list."""
    samples = [one for file in files for one in read_records(run.folder / file, Sample)]
    images = read_images(run.folder, samples)
    groups = critic.groups_of(critic.embedder.embed(images), [sample.condition for sample in samples])
    asked = np.array([critic.train.space.id(sample.label) for sample in samples])
    task, recipe, weights = TASKS["classification"], run.config.evaluation.classifier, load_file(run.folder / STUDENT)
    student = restore(task, recipe, weights, len(critic.train.space), 1.0, torch.device("cpu"))
    own = _log_probabilities(critic, images, groups)
    return Pool(images, asked, own, *(log_softmax(one.logits(images)) for one in (critic.judge, student)))


def arms_of(folder: Path) -> list[str]:
    """The arms of a run whose images are of an aligned, led or otherwise tuned model: what the pool has not got."""
    found = (path.parent.name for path in folder.glob("evaluation/sets/*/samples.jsonl"))
    return sorted(name for name in found if name not in ("unaligned", "rejection"))


def _gather(folder: Path, config: RunConfig) -> tuple[Dataset, list[Lesson]]:
    with Run(folder, config) as run:
        data = prepare_data(run)
        critic = fit_critics(run, data)
        pool, led = read_pool(run, critic, POOLS), read_pool(run, critic, LED)
        sets = {
            name: read_records(folder / f"evaluation/sets/{name}/samples.jsonl", Sample) for name in arms_of(folder)
        }
    train, phantom = data.split("train"), config.data.phantom
    real = Labelled(np.array(train.images), train.labels)
    more = {}
    for times in MORE:
        larger = phantom.model_copy(
            update={"train": times * phantom.train, "val": len(data.space), "test": len(data.space)}
        )
        images = make_phantom(larger, config.data.size, config.seed, config.task).split("train")
        more[f"{times} times as many"] = Labelled(images.images, images.labels)
    own = _log_probabilities(critic, real.images, train.groups)
    count = config.evaluation.synthetic // len(data.space)
    lessons = lessons_of(pool, real, own, more, count)
    lessons += picks_of(led, real, count, "led") + picks_of(pool, real, count, "plain")
    for name, samples in sets.items():
        labels = np.array([data.space.id(sample.label) for sample in samples])
        lessons.append(Lesson(f"arm {name}", real, Labelled(read_images(folder, samples), labels)))
    return data, lessons


def learn(classifier: ClassifierConfig, lesson: Lesson, test: Labelled, classes: int, seed: int) -> list[float]:
    """Recall by class on the test images after one training."""
    torch.set_num_threads(1)
    task, share = TASKS["classification"], 0.5 if lesson.extra is not None else 0.0
    key = seed_of("understanding", seed)
    net = train_network(task, classifier, lesson.real, classes, key, synthetic=lesson.extra, share=share)
    said = net.answers(test.images).argmax(1)
    return [float((said[test.targets == k] == k).mean()) for k in range(classes)]


def _trained(
    lessons: Sequence[Lesson], seeds: int, log: Path, train: Callable[..., Iterator[list[float]]]
) -> dict[tuple[str, int], list[float]]:
    """Recalls by lesson and seed; what a log has already is not done again."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    done = {(row["lesson"], row["seed"]): row["recalls"] for row in map(json.loads, lines)}
    todo = [(lesson, seed) for seed in range(seeds) for lesson in lessons if (lesson.name, seed) not in done]
    with log.open("a", encoding="utf-8") as out:
        for number, ((lesson, seed), recalls) in enumerate(zip(todo, train(todo), strict=True), 1):
            done[lesson.name, seed] = recalls
            out.write(json.dumps({"lesson": lesson.name, "seed": seed, "recalls": recalls}) + "\n")
            out.flush()
            print(f"{number}/{len(todo)}: {lesson.name}, {100 * np.mean(recalls):.1f} %", flush=True)
    return done


def _half(values: NDArray[np.float64]) -> float:
    """Half of a 95 % t-interval of a mean."""
    if len(values) < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def table_of(
    lessons: Sequence[Lesson], recalls: Mapping[tuple[str, int], list[float]], rare: Sequence[int], seeds: int
) -> list[dict[str, Any]]:
    """A row a lesson: accuracy, and by how much it is above all real images alone, paired by seed."""
    curve = [one for one in lessons if one.extra is None]

    def levels(name: str, among: Sequence[int] | None = None) -> NDArray[np.float64]:
        values = np.array([recalls[name, seed] for seed in range(seeds)])
        return np.asarray(values.mean(1) if among is None else values[:, list(among)].mean(1), np.float64)

    sizes, heights = [len(one.real) for one in curve], [float(levels(one.name).mean()) for one in curve]
    rows = []
    for lesson in lessons:
        own = levels(lesson.name)
        gain, rare_gain = own - levels(WHOLE), levels(lesson.name, rare) - levels(WHOLE, rare)
        rows.append(
            {
                "lesson": lesson.name,
                "real": len(lesson.real),
                "others": 0 if lesson.extra is None else len(lesson.extra),
                "accuracy": float(own.mean()),
                "gain": float(gain.mean()),
                "half": _half(gain),
                "rare_gain": float(rare_gain.mean()),
                "worth": equivalent(float(own.mean()), sizes, heights) if len(curve) > 1 else None,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("runs/understanding"))
    parser.add_argument("--only", nargs="+", metavar="WORD", help="beside all real images, what has such a name")
    parser.add_argument(
        "--set", dest="extra", action="append", default=[], metavar="B=C", help="e.g. model=test_resnet"
    )
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    source, changes = arguments.run / "config.yaml", (f"steps={arguments.steps}", *arguments.extra)
    try:
        config = load_config(source)
        classifier = load_config(source, tuple(f"evaluation.classifier.{one}" for one in changes)).evaluation.classifier
    except BadInput as error:
        parser.error(str(error))
    if config.task != "classification" or config.data.source != "phantom":
        parser.error(f"{arguments.run}: expected a run of classification on the phantom")
    arguments.out.mkdir(parents=True, exist_ok=True)
    print("gathering images", flush=True)
    data, lessons = _gather(arguments.run, config)
    words = [WHOLE, *(arguments.only or [""])]
    lessons = [one for one in lessons if any(word in one.name for word in words)]
    classes, rare = len(data.space), [data.space.id(name) for name in rare_classes(data.split("train").counts())]
    test = Labelled(*oracle_images(NEW, config.data.size, seed_of(config.seed, "understanding"), config.task))
    learner = classifier.model_dump(mode="json") | {"run": read_json(arguments.run / "results.json").get("hashes")}
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:

        def train(todo: Sequence[tuple[Lesson, int]]) -> Iterator[list[float]]:
            jobs = [pool.submit(learn, classifier, lesson, test, classes, seed) for lesson, seed in todo]
            return (job.result() for job in jobs)

        recalls = _trained(lessons, arguments.seeds, arguments.out / f"trainings-{digest(learner)}.jsonl", train)
    rows = table_of(lessons, recalls, rare, arguments.seeds)
    write_atomic(
        arguments.out / "understanding.json",
        json.dumps({"learner": learner, "seeds": arguments.seeds, "rows": rows}, indent=1),
    )
    table = Table("learnt from", "real", "others", "accuracy", "above real alone", "rare", "worth real images")
    for row in rows:
        gain = f"{100 * row['gain']:+.1f} ± {100 * row['half']:.1f}"
        numbers = (f"{100 * row['accuracy']:.1f}", gain, f"{100 * row['rare_gain']:+.1f}")
        worth = "" if row["worth"] is None else f"{row['worth']:.0f}"
        table.add_row(row["lesson"], str(row["real"]), str(row["others"]), *numbers, worth)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
