"""A run's folder told as one page, and as the table printed at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from saadi.records import Sample, Score, spread, write_atomic
from saadi.report import figures
from saadi.report.figures import Interval, Line, Sprite
from saadi.report.headline import headline
from saadi.report.reader import Pixels, Round, Row, Run, read_run
from saadi.report.wording import (
    ARMS,
    FURTHER,
    arm_name,
    contrast_name,
    duration,
    estimate,
    interval_of,
    last_round,
    measured,
    metric_name,
    number,
    span,
    told_round,
    unseen,
    verdict,
    words_of,
)


def results_table(results: dict[str, Any]) -> str:
    """The plain-text table printed at the end: a line an arm, in points, with 95 % intervals; no newline at its end."""
    head = (
        "arm",
        metric_name(results),
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


def grids(run: Run) -> list[dict[str, Any]]:
    """By class: the number of training images, and for real, unaligned and last aligned images a title, a sprite (None:
    not there yet) and how far the judge sees in them what they should show; of segmentation also what was asked for.
    All as drawn: a pick is told in a figure only."""
    drawn = {of.number: of.samples for of in run.rounds if of.samples}
    last, newest = last_round(run.sets), max(drawn, default=1)
    unaligned = run.sets.get("unaligned") or drawn.get(1, ())
    shown = "unpicked" if "unpicked" in run.sets else last or ""
    aligned = run.sets[shown] if shown else drawn[newest] if newest > 1 else ()
    arms_after = [shown, last] if last else []
    title = arm_name(last or f"round-{max(newest - 1, 1)}")
    agreement = {arm: row.get("judge_by_class", {}) for arm, row in run.results.get("synthetic", {}).items()}
    out = []
    for label in run.classes:
        real = [k for k, frame in enumerate(run.frames) if label in frame.labels and frame.split == "train"]
        tiles = [_outlined(run, run.real(real[k]), label, run.mask(real[k])) for k in spread(len(real))]
        cells = [_cell("real", tiles, {})]
        if run.masks is not None:
            places = [sample for sample in unaligned if sample.label == label]
            tiles = [_place(run, places[k]) for k in spread(len(places))]
            cells.append(_cell("asked for", tiles, {}))
        for name, samples, arms in (("unaligned", unaligned, ["unaligned"]), (title, aligned, arms_after)):
            own = [sample for sample in samples if sample.label == label]
            tiles = [_tile(run, own[k], *arms[:1]) for k in spread(len(own))]
            cells.append(_cell(name, tiles, {arm: agreement[arm].get(label) for arm in arms if arm in agreement}))
        out.append({"label": label, "count": len(real), "cells": cells})
    return out


def _cell(title: str, tiles: Sequence[Pixels | None], seen: dict[str, Any]) -> dict[str, Any]:
    return {"title": title, "image": figures.sprite(tiles, 3) if tiles else None, "seen": seen}


def _outlined(
    run: Run, image: Pixels | None, label: str, wanted: Pixels | None, found: Pixels | None = None
) -> Pixels | None:
    """An image with a class outlined in the ids [S, S] that were asked for and found, as far as there are any."""
    lines = [(ids, colour) for ids, colour in ((found, figures.FOUND), (wanted, figures.WANTED)) if ids is not None]
    if image is None or not lines or label not in run.names:
        return image
    return figures.outlined(image, [(ids == run.names.index(label), colour) for ids, colour in lines])


def _tile(run: Run, sample: Sample, arm: str = "") -> Pixels | None:
    """A sample; if its mask is kept, with that outlined, and with what the judge sees in it, if that is."""
    wanted = run.picture(sample.mask, "L") if sample.mask else None
    return _outlined(run, run.picture(sample.file), sample.label, wanted, run.judged(arm, sample))


def _place(run: Run, sample: Sample) -> Pixels | None:
    """The training frame that a sample was painted on, with the outline of what it was to show."""
    train = [row for row, frame in enumerate(run.frames) if frame.split == "train"]
    row = -1 if sample.condition.frame is None else sample.condition.frame
    image = run.real(train[row]) if 0 <= row < len(train) else None
    return _outlined(run, image, sample.label, run.picture(sample.mask, "L"))


def _seen(score: Score | None, label: str, run: Run) -> list[str]:
    """What the critic saw in a sample, in lines: how it scores it, and as what, or how well, it sees it."""
    if score is None:
        return ["score not kept"]
    lines, words = [f"score {number(score.value, 2, 1)}"], words_of(run.task)
    parts, seen = score.parts, int(score.parts.get("seen", -1))
    if run.task == "classification" and 0 <= seen < len(run.names):
        lines.append(f"judged {run.names[seen]}, {number(parts.get('seen_probability'), 0)}\N{NO-BREAK SPACE}%")
        if run.names[seen] != label:
            lines.append(f"{label}: {number(parts.get('probability'), 0)}\N{NO-BREAK SPACE}%")
        return lines
    lines.append(words.shown if score.right else words.missed)
    if run.task == "segmentation":
        lines.append(f"Dice {number(parts.get('agreement'), 0)}\N{NO-BREAK SPACE}%")
    return lines


def pair_cards(run: Run, of: Round) -> list[dict[str, Any]]:
    """Up to two pairs a class: the one with the widest margin and the one with the narrowest."""
    samples = {sample.id: sample for sample in of.samples}
    cards = []
    for label in run.classes:
        own = sorted((pair for pair in of.pairs if pair.label == label), key=lambda pair: -pair.margin)
        for pair, kind in zip(own[:1] + own[1:][-1:], ("widest margin", "narrowest margin"), strict=False):
            ids = (pair.winner, pair.loser)
            both = [samples.get(name) for name in ids]
            image = figures.sprite([None if one is None else _tile(run, one) for one in both], 2)
            seen = [_seen(of.scores.get(name), label, run) for name in ids]
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
    told, metric = told_round(results), metric_name(results)
    if arms:
        rows = [_interval(arm_name(arm), row, arm == told) for arm, row in arms.items()]
        out["arms"] = figures.intervals(rows, f"{metric}, %", f"{metric} of every arm with 95 % intervals")
        picked = [arm for arm in ("real", "unaligned", "rejection", told) if arm in arms]
        by_arm = {arm_name(str(arm)): arms[arm].get("per_class") or {} for arm in picked}
        recall = {name: [100 * measured(values.get(c)) for c in run.classes] for name, values in by_arm.items()}
        rare = {k for k, name in enumerate(run.classes) if name in results.get("rare_classes", ())}
        names = [f"{name} ({count})" for name, count in run.counts.items()]
        figure = words_of(run.task).by_class
        out["bars"] = figures.bars(names, recall, rare, f"{figure}, %", f"{figure} by class and arm")
    if gains:
        rows = [_interval(contrast_name(name), row, name.startswith(f"{told} - ")) for name, row in gains.items()]
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
        told=told_round(run.results),
        unseen=unseen(run.results, next(iter(arms), "")),
        words=words_of(run.task),
        metric=metric_name(run.results),
        further={key: value for key, value in FURTHER.items() if any(key in row for row in arms.values())},
        explained={key: told for key, told in ARMS.items() if key == "round-k" or key in arms},
    )
    path = out or run_folder / "report.html"
    # A name from a foreign file system may hold half a character, which UTF-8 cannot.
    write_atomic(path, page.encode("utf-8", "replace").decode())
    return path
