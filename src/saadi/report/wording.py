"""What the page says: numbers as text, the names of the arms, and the result in a sentence, honest either way."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

ARMS = {
    "real": ("real only", "The real images alone: what one has without any synthetic image."),
    "real-augmented": (
        "real, augmented",
        "Real images alone, turned, zoomed and recoloured without end as well as mirrored: what augmentation can do.",
    ),
    "real-randaugment": (
        "real, RandAugment",
        "Real images alone, varied by RandAugment: a strong recipe without images.",
    ),
    "real-mixup": ("real, mixup", "Real images alone, blended with each other: a strong recipe without images."),
    "real-cutmix": ("real, CutMix", "Real images alone, cut into each other: a strong recipe without images."),
    "real-strong": (
        "real, strong model",
        "Real images alone, and another model by a recipe of its own: what choosing the model can do.",
    ),
    "real-pretrained": (
        "real, pretrained",
        "Control: real images alone; the classifier first learned from the scenes the diffusion model started from.",
    ),
    "real-scratch": (
        "real, from scratch",
        "Control: real images alone, and a classifier that has not seen the scenes the diffusion model started from.",
    ),
    "unaligned": ("unaligned", "Real images and images of the diffusion model before any alignment."),
    "copy-paste": (
        "copy-paste",
        "The rival without a diffusion model: real objects pasted onto real frames, at the same places.",
    ),
    "reconstructed": (
        "reconstructed",
        "Control: real images, and real images sent through the model's autoencoder: what its texture alone does.",
    ),
    "feedback": (
        "feedback",
        "The rival without alignment: real images and unaligned ones, led and picked in the same way.",
    ),
    "rejection": ("rejection", "Real images and the best of many unaligned images, picked by the same critic."),
    "winners": (
        "winners only",
        "Real images and images of a model that was simply trained on with the preferred images.",
    ),
    "round-k": (
        "aligned, round k",
        "The method: real images and images drawn after k rounds of alignment, led and picked as far as the run has "
        "it so: by the critic and, of what it is sure of, by the model that learnt from real images alone.",
    ),
    "unpicked": (
        "aligned, unpicked",
        "Control: real images and images drawn after the last round as they come: the method without its pick.",
    ),
    "unled": (
        "aligned, unled",
        "Control: real images and images drawn after the last round, neither led nor picked: alignment alone.",
    ),
}


@dataclass(frozen=True)
class Words:
    """How a task is spoken of. `model`: what is trained. `by_class`: the figure of a class and, `meaning`, what it is.
    `draws`: what the diffusion model does. `seen`: what the judge's agreement is. `shown`, `missed`: what is said of a
    sample in which the critic sees what was asked for, or does not."""

    model: str
    by_class: str
    meaning: str
    draws: str
    seen: str
    shown: str
    missed: str


WORDS = {
    "classification": Words(
        model="classifier",
        by_class="recall",
        meaning="of the real images of a class, the share that the classifier names rightly",
        draws="A diffusion model learns to draw the real training images, class by class.",
        seen="how often an independent judge recognises the class",
        shown="class recognised",
        missed="class not recognised",
    ),
    "segmentation": Words(
        model="segmenter",
        by_class="Dice",
        meaning="twice the overlap of the segmenter's mask and the real one over the sum of both, all images as one",
        draws="A diffusion model learns to paint into real frames, where a mask asks for it.",
        seen="the Dice score of the mask that was asked for and the one an independent judge finds",
        shown="mask found",
        missed="mask not found",
    ),
    "presence": Words(
        model="classifier",
        by_class="average precision",
        meaning="how purely the real images with the class come first where the classifier orders all by its certainty",
        draws="A diffusion model learns to draw the real training images, by the classes each of them shows.",
        seen="how often an independent judge sees just the classes that were asked for",
        shown="set recognised",
        missed="set not recognised",
    ),
}
"""By task."""
METRICS = {"dice": "Dice score"}
"""Names of metrics that are not their key's words."""
FURTHER = {
    "macro_f1": ("macro-F1", 100.0),
    "calibration_error": ("calibration error", 100.0),
    "iou": ("IoU", 100.0),
    "iou_with_background": ("IoU with background", 100.0),
    "dice_with_background": ("Dice with background", 100.0),
    "dice_of_images": ("Dice, mean of images", 100.0),
    "surface_distance": ("surface distance, pixels", 1.0),
}
"""Further figures of an arm: title and factor."""
Verdict = Literal["gain", "harm", "none", "unmeasured"]


def measured(value: object) -> float:
    """A number of the results; nan where nothing was measured, for which results.json has null."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def number(value: object, digits: int = 1, scale: float = 100.0, sign: bool = False) -> str:
    """A number as text, by default a fraction in points, with a true minus sign; a dash where there is none."""
    known = measured(value)
    if not math.isfinite(known):
        return "–"
    text = f"{known * scale:{'+' if sign else ''}.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def span(pair: object, scale: float = 100.0) -> str:
    """An interval of fractions as text, by default in points: `1.2 to 7.0`; a dash where there is none."""
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(math.isfinite(measured(end)) for end in pair):
        return "–"
    return f"{number(pair[0], scale=scale)} to {number(pair[1], scale=scale)}"


def estimate(mean: object, interval: object, scale: float = 100.0, sign: bool = False) -> str:
    """A mean and its interval as text: `4.1 (1.2 to 7.0)`, or `not measured`."""
    if not math.isfinite(measured(mean)):
        return "not measured"
    return f"{number(mean, scale=scale, sign=sign)} ({span(interval, scale)})"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.{int(seconds < 10)}f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def short(name: str, limit: int = 24) -> str:
    """A name that fits beside an axis, on one line and printable."""
    clean = "".join(letter if letter.isprintable() else " " for letter in name)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def arm_name(arm: str) -> str:
    """An arm as people call it."""
    match = re.fullmatch(r"round-(\d+)", arm)
    return f"aligned, round {match[1]}" if match else ARMS.get(arm, (arm,))[0]


def contrast_name(name: str) -> str:
    """A difference of two arms as people write it: `round-2 - real` is `round 2 − real`."""
    return " − ".join(arm.replace("-", " ") for arm in name.split(" - "))


def last_round(arms: Iterable[str]) -> str | None:
    """The aligned arm of the last round, if there is one."""
    rounds = [int(match[1]) for match in (re.fullmatch(r"round-(\d+)", arm) for arm in arms) if match]
    return f"round-{max(rounds)}" if rounds else None


def told_round(results: Mapping[str, Any]) -> str | None:
    """The aligned arm that results are about: on test images the one that val chose, as the method has it.

    On val itself it is the last round's: a choice flatters itself on the images it was made by.
    """
    last = last_round(results.get("arms") or {})
    chosen = (results.get("val_choices") or {}).get("round")
    return str(chosen) if chosen and last and results.get("split") == "test" else last


def interval_of(row: Mapping[str, Any], key: str = "ci95") -> tuple[float, float]:
    """The interval of a row of results; not a number where it has none."""
    low, high = row.get(key) or (None, None)
    return measured(low), measured(high)


def verdict(gain: Mapping[str, Any], key: str = "ci95") -> Verdict:
    """What an interval says of a difference: `gain` if all of it is above zero, `harm` if all below, else `none`.

    `unmeasured` where there is no interval.
    """
    low, high = interval_of(gain, key)
    if math.isnan(low) or math.isnan(high):
        return "unmeasured"
    return "gain" if low > 0 else "harm" if high < 0 else "none"


def unseen(results: Mapping[str, Any], arm: str) -> list[str]:
    """The classes of which the results show nothing, since there was no image of them."""
    recalls = (results.get("arms") or {}).get(arm, {}).get("per_class") or {}
    return [name for name, value in recalls.items() if math.isnan(measured(value))]


def metric_name(results: Mapping[str, Any]) -> str:
    """The metric of some results in words."""
    key = str(results.get("metric") or "the metric")
    return METRICS.get(key, key.replace("_", " "))


def words_of(task: object) -> Words:
    """How a run's task is spoken of; of a run that has no results yet, as of classification."""
    return WORDS.get(str(task), WORDS["classification"])
