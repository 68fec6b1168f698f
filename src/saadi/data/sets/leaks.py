"""Videos that several sets share: what is test here may be what a model was trained on there, and the reverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saadi.data.sets.catalogue import SETS
from saadi.data.sets.declare import SurgicalSet, number
from saadi.records import Frame, Split


def shared_videos(
    chosen: SurgicalSet, groups: Mapping[Split, Sequence[str]], other: SurgicalSet
) -> dict[Split, list[int]]:
    """Of the groups here, by split, the numbers of those that `other` holds, too."""
    both = chosen.videos & other.videos
    found = {split: sorted(both & {number(group) for group in named}) for split, named in groups.items()}
    return {split: [video for video in videos if video is not None] for split, videos in found.items() if videos}


def _listed(videos: Sequence[int]) -> str:
    return ", ".join(f"{video:02d}" for video in videos)


def leak_warnings(name: str, frames: Sequence[Frame]) -> list[str]:
    """A line for each other set and split with videos in common: held-out ones that models from there may have seen,
    and training ones that are held out there.

    `name`: as `data.set` has it.
    """
    chosen = SETS[name.partition("/")[0]]
    order: tuple[Split, ...] = ("test", "val", "train")
    groups: dict[Split, list[str]] = {
        split: sorted({frame.group for frame in frames if frame.split == split}) for split in order
    }
    lines = []
    for other in SETS.values():
        if other is chosen:
            continue
        if why := chosen.shares.get(other.name) or other.shares.get(chosen.name):
            lines.append(
                f"{why}: use no model or weights from {other.title} ({other.name}), and do not test them there"
            )
        held_there = {video for numbers in other.held.values() for video in numbers}
        for split, videos in shared_videos(chosen, groups, other).items():
            if split == "train":
                if seen := [video for video in videos if video in held_there]:
                    lines.append(
                        f"videos {_listed(seen)} of train are usually val or test in {other.title} ({other.name}): "
                        "what is trained here must not be tested on them there"
                    )
                continue
            usual = [video for video in videos if video in other.usual]
            seen_there = "them" if usual == videos else f"video {_listed(usual)}"
            trained = f", where models are usually trained on {seen_there}" if usual else ""
            lines.append(
                f"videos {_listed(videos)} of {split} are in {other.title} ({other.name}), too{trained}: use no model "
                "or weights from there that have seen them"
            )
    return lines
