"""The result in words: one sentence, and what has to be said beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saadi.report.wording import (
    contrast_name,
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


def headline(results: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The result in one sentence, and what has to be said beside it: the rivals, the rare and the unseen classes.

    The sentence is about one round against real images alone, gain or not, measured or not: `told_round` says which.
    """
    arms, gains = results.get("arms") or {}, results.get("gains") or {}
    told, last, metric = told_round(results), last_round(arms), metric_name(results)
    gain = gains.get(f"{told} - real")
    if told is None or last is None or not gain:
        return "These results do not compare aligned images with real images alone.", []
    who, size = f"ligned images ({contrast_name(told)})", number(abs(measured(gain.get("mean"))))
    basis = f"(95 % interval {span(gain.get('ci95'))}, {_basis(results)})"
    change = f"changes by {number(gain.get('mean'), sign=True)} points against real images alone"
    sentence = {
        "gain": f"A{who} add {size} points of {metric} over real images alone {basis}.",
        "harm": f"A{who} do harm: they cost {size} points of {metric} against real images alone {basis}.",
        "none": f"No gain shown: with a{who} {metric} {change}, and the interval includes zero {basis}.",
        "unmeasured": f"How a{who} compare with real images alone was not measured ({_basis(results)}).",
    }[verdict(gain)]
    more = []
    chosen = (results.get("val_choices") or {}).get("round", last)
    other = gains.get(f"{last if told == chosen else chosen} - real")
    if chosen != last and other and verdict(other) != "unmeasured":
        points = (
            f"{number(other['mean'], sign=True)} points over real images alone (95 % interval {span(other['ci95'])})"
        )
        after = f"; the last round, {contrast_name(last)}, has" if told == chosen else ":"
        more.append(f"Validation images chose {contrast_name(chosen)}{after} {points}.")
    used = {"lead": results.get("led", "unled" in arms), "pick": results.get("picked", "unpicked" in arms)}
    parts = [word for word, there in used.items() if there]
    control = next((arm for arm in ("unled", "unpicked") if arm in arms), None if parts else told)
    alone = f"Alignment alone{'' if told == last or not parts else f' (after {contrast_name(last)})'}"
    whole = f"The method, {', '.join(('alignment', *parts[:-1]))} and {parts[-1]}," if parts else "Alignment"
    method = "The method" if parts else "Alignment"
    without = " and ".join(f"the {part}" for part in parts)
    alike = "led and picked" if used["pick"] else "led"
    by_itself = [(f"{alone}, without {without},", f"{control} - unaligned", "unaligned images")]
    for who, pair, name in (
        (whole, f"{told} - unaligned", "unaligned images"),
        *(by_itself if parts else ()),
        (method, f"{told} - feedback", f"unaligned images that the critic {alike} alike"),
        (method, f"{told} - rejection", "rejection sampling with the same critic"),
    ):
        other = gains.get(pair)
        if other and verdict(other) != "unmeasured":
            size, interval = number(abs(other["mean"])), f"(95 % interval {span(other.get('ci95'))})"
            tie = f"is not shown to differ from {name}: {number(other['mean'], sign=True)} points"
            said = {"gain": f"beats {name} by {size} points", "harm": f"falls {size} points behind {name}", "none": tie}
            more.append(f"{who} {said[verdict(other)]} {interval}.")
    absent, so = unseen(results, told), verdict(gain, "rare_ci95")
    rare = [name for name in results.get("rare_classes", ()) if name not in absent]
    if rare and so != "unmeasured":
        end = {"gain": "", "harm": ", a loss", "none": ", which includes zero"}[so]
        points = f"{number(gain.get('rare'), sign=True)} points over real images alone"
        more.append(f"Rare classes ({', '.join(rare)}): {points} (95 % interval {span(gain.get('rare_ci95'))}{end}).")
    if absent:
        kind = "test" if results.get("split") == "test" else "validation"
        more.append(f"Not measured, since no {kind} image shows them: {', '.join(absent)}.")
    judged, seen = results.get("judge_gains") or {}, words_of(results.get("task")).seen
    led = "unled" in arms and ("unpicked" if "unpicked" in arms else last)
    for who, arm in ((alone, control), ("With the critic's lead it", led)):
        judge = judged.get(f"{arm} - unaligned") or {}
        if verdict(judge) != "unmeasured":
            raised = f"{number(judge['mean'], sign=True)} points (95 % interval {span(judge['ci95'])}"
            more.append(f"{who} changes {seen} by {raised}, {judge['n']} images of the same noise).")
    return sentence, more


def _basis(results: Mapping[str, Any]) -> str:
    """The ground a comparison stands on: images, patients, trainings."""
    split, unit = str(results.get("split", "val")), str(results.get("interval", {}).get("unit", ""))
    people = next((word for word in ("patient", "video") if word in unit), "group")
    counts = [
        (results.get(f"n_{split}", 0), {"test": "test image", "val": "validation image"}.get(split, "image")),
        (len(results.get("groups", {}).get(split, ())), people),
        (len(results.get("seeds", ())), "training"),
    ]
    images, groups, trainings = (f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)
    return f"n = {images} of {groups}, {trainings}"
