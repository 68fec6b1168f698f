"""Videos that several sets share: what is test here may be what a model was trained on there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saadi.data.sets.catalogue import SETS
from saadi.data.sets.declare import SurgicalSet, number
from saadi.records import Frame, Split


def shared_videos(
    chosen: SurgicalSet, held: Mapping[Split, Sequence[str]], other: SurgicalSet
) -> dict[Split, list[int]]:
    """Of the groups held out here, by split, the numbers of those that models are usually trained on in `other`."""
    found: dict[Split, list[int]] = {}
    for split, groups in held.items():
        numbers = {one for group in groups if (one := number(group)) is not None}
        if common := sorted(numbers & chosen.videos & other.usual):
            found[split] = common
    return found


def leak_warnings(name: str, frames: Sequence[Frame]) -> list[str]:
    """A line for each other set, and split of val and test, that some held-out videos are usually trained on in.

    `name`: as `data.set` has it.
    """
    chosen = SETS[name.partition("/")[0]]
    held: dict[Split, list[str]] = {
        split: sorted({frame.group for frame in frames if frame.split == split}) for split in ("test", "val")
    }
    return [
        f"videos {', '.join(f'{video:02d}' for video in videos)} of {split} are usually trained on in {other.title} "
        f"({other.name}): a model or weights from there have seen them"
        for other in SETS.values()
        if other is not chosen
        for split, videos in shared_videos(chosen, held, other).items()
    ]
