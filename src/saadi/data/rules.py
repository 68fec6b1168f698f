"""What the method needs of labelled frames, wherever they come from, and what follows where a class is poorly shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from saadi.records import SPLITS, Frame, LabelSpace, Split, Task

MIN_TRAIN = 4
"""Training images a class needs: with fewer, a cross-fitted critic has members that never saw the class."""

_LEAVE_OUT: dict[Task, str] = {
    "classification": "leave the class out (of a set: data.leave_out)",
    "segmentation": "map it to null in classes.json, or of a set name it in data.leave_out",
    "presence": "remove its column",
}
_MEASURE: dict[Task, str] = {"segmentation": "its Dice there", "presence": "what is measured of it there"}


def group_problems(frames: Sequence[Frame], where: str) -> list[str]:
    """Groups in two splits, one line each."""
    first: dict[str, dict[Split, str]] = {}
    for frame in frames:
        first.setdefault(frame.group, {}).setdefault(frame.split, frame.file)
    problems = []
    for group, splits in first.items():
        if len(splits) > 1:
            seen = " and ".join(f"{split} ({file})" for split, file in splits.items())
            problems.append(f"{where}: group {group} is in {seen}; put all images of a group into one split")
    return problems


def groups_of(frames: Sequence[Frame]) -> dict[str, set[str]]:
    """The groups that show a class, by class."""
    groups: dict[str, set[str]] = {}
    for frame in frames:
        for label in frame.labels:
            groups.setdefault(label, set()).add(frame.group)
    return groups


def _class_problems(space: LabelSpace, train: Sequence[Frame], task: Task, least: int) -> Iterator[str]:
    """What is wrong with the classes in the training images."""
    trained = Counter(label for frame in train for label in frame.labels)
    if len(space.asked) == 1:
        (name,) = space.asked
        if task == "classification":
            yield f"only one class ({name}); at least two are needed"
        elif task == "presence" and train and trained[name] == len(train):
            yield f"the only class, {name}, is in every training image; add images that do not show it"
    leave_out = _LEAVE_OUT[task]
    for name in (name for name in space.asked if not trained[name]):
        hint = " (a mask's 255 is ignored unless classes.json lists it)" if task == "segmentation" else ""
        yield f"class {name} has no training images{hint}; move a group that shows it into train, or {leave_out}"
    for name in (name for name in space.asked if 0 < trained[name] < least):
        yield f"class {name} has {trained[name]} training images; {least} are needed: add some or {leave_out}"


def training_problems(
    space: LabelSpace, frames: Sequence[Frame], where: str, task: Task, least: int = MIN_TRAIN
) -> list[str]:
    """Why the method cannot be trained on these frames, one line each.

    Only one class of classification; a class with fewer than `least` training images; fewer than two training groups;
    an empty val or test, or a val that shows nothing; for classification also a class in one training group only, whose
    images the critic's member without that group would never have seen: that member says nothing of the class, and
    there would be no pairs.
    """
    train = [frame for frame in frames if frame.split == "train"]
    problems = list(_class_problems(space, train, task, least))
    groups = sorted({frame.group for frame in train})
    if len(groups) < 2:
        problems.append(f"{len(groups)} groups in train; the critic is cross-fitted by group and needs 2 or more")
    elif task == "classification":
        problems += [
            f"class {name} occurs in 1 training group; 2 are needed to cross-fit the critic: "
            f"move another group that shows it into train, or {_LEAVE_OUT[task]}"
            for name, shown_in in sorted(groups_of(train).items())
            if len(shown_in) == 1
        ]
    held = {frame.split for frame in frames}
    for split in SPLITS[1:]:
        if split not in held:
            example = groups[-1] if groups else "NAME"
            how = f"move some groups there, or name them in the configuration, as in data.{split}: [{example}]"
            problems.append(f"no images in {split}; {how}")
    if "val" in held and not any(frame.labels for frame in frames if frame.split == "val"):
        problems.append(
            "no image in val shows any class; move a group there that shows some (of `saadi folds`: give fewer --parts)"
        )
    return [f"{where}: {problem}" for problem in problems]


def _alike(space: LabelSpace) -> list[str]:
    """Classes whose names differ only in case or in blanks, one line for each such name."""
    spelt: dict[str, list[str]] = {}
    for name in space.names:
        spelt.setdefault(" ".join(name.casefold().split()), []).append(name)
    return [
        f"classes {', '.join(map(repr, names))} differ only in case or in blanks; if they are one, spell it one way"
        for names in spelt.values()
        if len(names) > 1
    ]


def class_warnings(space: LabelSpace, frames: Sequence[Frame], task: Task) -> list[str]:
    """Classes of which less will be known than of others, and what follows, one line each.

    Names that differ only in case or in blanks: one class, most likely, that a slip has made two. Classes without
    images in val or test, where these have any; and, where that is no error, in one training group only; of
    presence, in every training image.
    """
    warnings = _alike(space)
    follows = f"{_MEASURE[task]} is no evidence" if task in _MEASURE else "nothing can be said about it there"
    for split in SPLITS[1:]:
        held = [frame for frame in frames if frame.split == split]
        shown = {label for frame in held for label in frame.labels}
        missing = [name for name in space.asked if held and name not in shown]
        warnings += [f"class {name} has no images in {split}: {follows}" for name in missing]
    if task == "classification":
        return warnings
    train = [frame for frame in frames if frame.split == "train"]
    groups = groups_of(train)
    for name in space.asked:
        if len(groups.get(name, ())) == 1:
            (group,) = groups[name]
            warnings.append(
                f"class {name} occurs in 1 training group ({group}): the critic's member without that group never saw "
                "it, so of this class the critic's scores are no evidence"
            )
        if task == "presence" and len(space) > 1 and train and all(name in frame.labels for frame in train):
            warnings.append(f"class {name} is in every training image: no model learns from these to miss it")
    return warnings


def duplicates(frames: Sequence[Frame], digests: Sequence[str]) -> tuple[list[str], list[str]]:
    """Files of the same bytes, whose `digests` are given: errors, those in two splits, and warnings, those in one."""
    copies: dict[str, list[Frame]] = {}
    for frame, digest in zip(frames, digests, strict=True):
        copies.setdefault(digest, []).append(frame)
    errors, warnings = [], []
    for same in (same for same in copies.values() if len(same) > 1):
        first = {frame.split: frame for frame in reversed(same)}  # of each split: many copies must not hide the other
        across = len(first) > 1
        shown = [frame for frame in same if frame is first[frame.split]] if across else same[:4]
        files = ", ".join(f"{frame.file} ({', '.join((frame.split, *frame.labels))})" for frame in shown)
        if across:
            errors.append(f"the same image in two splits: {files}; keep one")
            continue
        files += ", ..." if len(same) > len(shown) else ""
        under = " under two labels" if len({frame.labels for frame in same}) > 1 else " twice"
        warnings.append(f"the same image{under}: {files}")
    return errors, warnings
