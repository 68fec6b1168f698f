"""Does scarcity hurt on the phantom? Balanced accuracy of the real-only arm against training images and steps.

    python benchmarks/scarcity.py --train 25 50 100 --steps 1200 2400 4800 9600 --seeds 3 --tenfold

The demo's classifier at every size with the largest number of steps but one, and at the largest size (the demo's,
unless said) with every number of steps: it has converged where twice the steps move it by less than a point.
`--tenfold` adds ten times that size. One JSON line each on standard output.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from saadi.configfile import demo_config
from saadi.critics.downstream import Labelled, train_network
from saadi.critics.tasks import TASKS
from saadi.data.phantom import make_phantom
from saadi.evaluation.metrics import balanced_accuracy, confusion, recalls
from saadi.seeds import seed_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, nargs="+", default=[])
    parser.add_argument("--steps", type=int, nargs="+", default=[], help="default: the demo's, and twice that")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each")
    parser.add_argument("--tenfold", action="store_true")
    parser.add_argument("--set", dest="assignments", action="append", default=[], metavar="A.B=C")
    arguments = parser.parse_args()
    config = demo_config(0, tuple(arguments.assignments))
    phantom, classifier = config.data.phantom, config.evaluation.classifier
    sizes = arguments.train or [phantom.train]
    lengths = sorted(arguments.steps or [classifier.steps, 2 * classifier.steps])
    long = lengths[-2] if len(lengths) > 1 else lengths[0]
    jobs = [(max(sizes), steps) for steps in lengths] + [(10 * max(sizes), long)] * arguments.tenfold
    jobs += [(size, long) for size in sizes if size < max(sizes)]
    test = None
    for size, steps in jobs:
        smaller = phantom.model_copy(update={"train": size})
        data = make_phantom(smaller, config.data.size, config.seed, config.task)
        train = data.split("train")
        test = test or data.split("test")
        levels, tables = [], []
        begun = time.monotonic()
        for seed in range(arguments.seeds):
            recipe = classifier.model_copy(update={"steps": steps})
            real = Labelled(np.array(train.images), train.labels)
            key = seed_of(config.seed, "downstream", seed)
            model = train_network(TASKS["classification"], recipe, real, len(data.space), key)
            table = confusion(test.labels, model.logits(test.images).argmax(1), len(data.space))
            levels.append(balanced_accuracy(table))
            tables.append(recalls(table))
        row = {
            "train": size,
            "steps": steps,
            "balanced_accuracy": round(float(np.mean(levels)), 4),
            "per_seed": [round(level, 4) for level in levels],
            "recall": dict(zip(data.space.names, np.mean(tables, 0).round(3).tolist(), strict=True)),
            "images_per_second": round(arguments.seeds * steps * recipe.batch / (time.monotonic() - begun)),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
