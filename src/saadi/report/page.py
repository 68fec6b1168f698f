"""A run's folder told as one page, and as the table printed at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from saadi.records import Score, write_atomic
from saadi.report import figures
from saadi.report.figures import Interval, Line, Sprite
from saadi.report.reader import Round, Row, Run, read_run
from saadi.report.wording import (
    ARMS,
    arm_name,
    contrast_name,
    duration,
    estimate,
    headline,
    interval_of,
    last_round,
    measured,
    number,
    span,
    unseen,
    verdict,
)


def results_table(results: dict[str, Any]) -> str:
    """The plain-text table printed at the end: a line an arm, in points, with 95 % intervals; no newline at its end."""
    head = (
        "arm",
        str(results.get("metric", "metric")).replace("_", " "),
        "rare classes",
        "gain over real",
        "generated",
    )
    rows = [head]
    for arm, row in results.get("arms", {}).items():
        gain = (results.get("gains") or {}).get(f"{arm} - real")
        value, rare = (estimate(row.get(key), row.get(ci)) for key, ci in (_MAIN, _RARE))
        over = estimate(gain.get("mean"), gain.get("ci95"), sign=True) if gain else ""
        rows.append((arm, value, rare, over, number(row.get("n_generated"), 0, 1)))
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


_MAIN, _RARE = ("mean", "ci95"), ("rare_mean", "rare_ci95")


def _spread(count: int, most: int = 6) -> list[int]:
    """Up to `most` places spread evenly over a list: nobody picks by eye, and many patients are seen."""
    return sorted({int(k) for k in np.linspace(0, count - 1, min(count, most)).round()}) if count else []


def grids(run: Run) -> list[dict[str, Any]]:
    """By class: the number of training images, and for real, unaligned and last aligned images a title, a sprite (None:
    not there yet) and how often the judge sees the class in them. All as drawn: a pick is told in a figure only."""
    drawn = {of.number: of.samples for of in run.rounds if of.samples}
    last, newest = last_round(run.sets), max(drawn, default=1)
    unaligned = run.sets.get("unaligned") or drawn.get(1, ())
    shown = "unpicked" if "unpicked" in run.sets else last or ""
    aligned = run.sets[shown] if shown else drawn[newest] if newest > 1 else ()
    title = arm_name(last or f"round-{max(newest - 1, 1)}")
    agreement = {arm: row.get("judge_by_class", {}) for arm, row in run.results.get("synthetic", {}).items()}
    out = []
    for label in run.classes:
        real = [k for k, frame in enumerate(run.frames) if label in frame.labels and frame.split == "train"]
        tiles = [run.real(real[k]) for k in _spread(len(real))]
        image = figures.sprite(tiles, 3) if tiles else None
        cells: list[dict[str, Any]] = [{"title": "real", "image": image, "seen": {}}]
        for name, samples, *arms in (("unaligned", unaligned, "unaligned"), (title, aligned, shown, last)):
            own = [sample for sample in samples if sample.label == label]
            tiles = [run.picture(own[k].file) for k in _spread(len(own))]
            image = figures.sprite(tiles, 3) if tiles else None
            seen = {arm: agreement[arm].get(label) for arm in arms if arm in agreement}
            cells.append({"title": name, "image": image, "seen": seen})
        out.append({"label": label, "count": len(real), "cells": cells})
    return out


def _seen(score: Score | None, classes: Sequence[str]) -> dict[str, Any] | None:
    """What the critic saw in a sample: the class it judged it to be, the probabilities of that and of the meant one."""
    if score is None:
        return None
    seen = int(score.parts.get("seen", -1))
    return {
        "value": score.value,
        "right": score.right,
        "judged": classes[seen] if 0 <= seen < len(classes) else None,
        "sure": score.parts.get("seen_probability"),
        "meant": score.parts.get("probability"),
    }


def pair_cards(run: Run, of: Round) -> list[dict[str, Any]]:
    """Up to two pairs a class: the one with the widest margin and the one with the narrowest."""
    files = {sample.id: sample.file for sample in of.samples}
    cards = []
    for label in run.classes:
        own = sorted((pair for pair in of.pairs if pair.label == label), key=lambda pair: -pair.margin)
        for pair, kind in zip(own[:1] + own[1:][-1:], ("widest margin", "narrowest margin"), strict=False):
            ids = (pair.winner, pair.loser)
            image = figures.sprite([run.picture(files.get(name, "")) for name in ids], 2)
            seen = [_seen(of.scores.get(name), run.classes) for name in ids]
            cards.append({"label": label, "kind": kind, "margin": pair.margin, "image": image, "seen": seen})
    return cards


def neighbour_cards(run: Run, arm: str, most: int = 6) -> list[dict[str, Any]]:
    """The synthetic images of an arm that lie nearest to a training image, each beside it, most alike first."""
    cards = []
    for item in run.neighbours[arm][:most]:
        image = figures.sprite([run.picture(item.get("sample")), run.real(item.get("train_index"))], 2)
        cards.append({"label": item.get("label", ""), "distance": item.get("distance"), "image": image})
    return cards


def _interval(name: str, row: Row, strong: bool) -> Interval:
    low, high = interval_of(row)
    dots = tuple(100 * measured(value) for value in row.get("per_seed", ()))
    return Interval(name, 100 * measured(row.get("mean")), 100 * low, 100 * high, strong, dots)


def result_plots(run: Run) -> dict[str, Markup]:
    """The drawings of the results: `arms`, `gains`, `bars` and `seconds`, those there is data for."""
    results, out = run.results, dict[str, Markup]()
    arms, gains, seconds = (results.get(key) or {} for key in ("arms", "gains", "seconds"))
    last, metric = last_round(arms), str(results.get("metric", "")).replace("_", " ")
    if arms:
        rows = [_interval(arm_name(arm), row, arm == last) for arm, row in arms.items()]
        out["arms"] = figures.intervals(rows, f"{metric}, %", f"{metric} of every arm with 95 % intervals")
        picked = [arm for arm in ("real", "unaligned", "rejection", last) if arm in arms]
        by_arm = {arm_name(str(arm)): arms[arm].get("per_class") or {} for arm in picked}
        recall = {name: [100 * measured(values.get(c)) for c in run.classes] for name, values in by_arm.items()}
        rare = {k for k, name in enumerate(run.classes) if name in results.get("rare_classes", ())}
        names = [f"{name} ({count})" for name, count in run.counts.items()]
        out["bars"] = figures.bars(names, recall, rare, "recall, %", "recall by class and arm")
    if gains:
        rows = [_interval(contrast_name(name), row, name.startswith(f"{last} - ")) for name, row in gains.items()]
        label = "differences between arms with 95 % intervals"
        out["gains"] = figures.intervals(rows, "difference, points", label, zero=True)
    if seconds:
        out["seconds"] = figures.durations(seconds, "wall time of every stage")
    return out


def training_plots(run: Run) -> dict[str, Markup]:
    """The curves of `base` and of every `round-k` that has a log."""
    out = dict[str, Markup]()
    base = [row for row in run.base_log if "loss" in row]
    if base:
        x, y = [row["step"] for row in base], [row["loss"] for row in base]
        lines = [Line("as logged", x, y), Line("running mean", x, figures.smooth(y, len(y) // 12), strong=True)]
        out["base"] = figures.curves({"denoising loss": lines}, "training loss of the base model")
    keys = ("pair_accuracy", "winner_change", "loser_change")
    for of in run.rounds:
        held = [row for row in of.log if "pair_accuracy" in row]
        if held:
            x = [row["step"] for row in held]
            accuracy, winner, loser = ([100 * row.get(key, float("nan")) for row in held] for key in keys)
            first, second = "held-out pairs ranked rightly, %", "change of the denoising error, %"
            panels = {
                first: [Line("accuracy", x, accuracy, strong=True)],
                second: [Line("preferred", x, winner, strong=True), Line("non-preferred", x, loser)],
            }
            label = f"alignment of round {of.number}"
            out[f"round-{of.number}"] = figures.curves(panels, label, {first: 50.0, second: 0.0})
    return out


def stages(run: Run) -> list[tuple[str, bool]]:
    """The stages of the run as people call them, and whether each has left something."""
    done = {of.number: of for of in run.rounds}
    out = [("real images", bool(run.frames)), ("base model", bool(run.base_log))]
    for k in range(1, max(run.planned, len(run.rounds)) + 1):
        of = done.get(k)
        out += [
            (f"round {k}: samples", of is not None and bool(of.samples)),
            (f"round {k}: judged pairs", of is not None and bool(of.pairs)),
            (f"round {k}: alignment", of is not None and bool(of.log)),
        ]
    return [*out, ("results", bool(run.results.get("arms")))]


def _image(image: Sprite, alt: str) -> Markup:
    kind = "exact" if image.uri.startswith("data:image/png") else "photo"
    tag = Markup('<img class="{}" src="{}" width="{}" height="{}" alt="{}">')
    return tag.format(kind, image.uri, image.width, image.height, alt)


def write_page(run_folder: Path, out: Path | None = None) -> Path:
    """Write the page of a run, by default `report.html` in its folder; returns its path. Raises `BadInput`.

    One file without scripts and without requests to anywhere. What the run has not reached yet is said to be missing.
    """
    run = read_run(run_folder)
    environment = Environment(
        loader=PackageLoader("saadi", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": number, "span": span, "arm": arm_name, "contrast": contrast_name, "verdict": verdict,
        "duration": duration, "image": _image, "yaml": lambda values: yaml.safe_dump(values, sort_keys=False),
    }  # fmt: skip
    arms = run.results.get("arms") or {}
    order = [arm for arm in arms if arm in run.neighbours] + [arm for arm in run.neighbours if arm not in arms]
    first, more = headline(run.results) if arms else ("", [])
    page = environment.get_template("page.html.j2").render(
        run=run,
        results=run.results,
        headline=first,
        more=more,
        plots=result_plots(run) | training_plots(run),
        grids=grids(run),
        cards={of.number: pair_cards(run, of) for of in run.rounds},
        near={arm: neighbour_cards(run, arm) for arm in order},
        stages=stages(run),
        last=last_round(arms),
        unseen=unseen(run.results, next(iter(arms), "")),
        explained=ARMS,
    )
    path = out or run_folder / "report.html"
    # A name from a foreign file system may hold half a character, which UTF-8 cannot.
    write_atomic(path, page.encode("utf-8", "replace").decode())
    return path
