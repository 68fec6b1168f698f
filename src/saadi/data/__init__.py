"""Stage 0: the real images, from a folder or rendered, in one form."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saadi.records import Frame, LabelSpace, Split, Task


@dataclass(frozen=True)
class Dataset:
    """Labelled real images in memory or mapped from disk.

    `images` [N, S, S, 3] uint8 RGB and, for segmentation, `masks` [N, S, S] uint8, class ids or `IGNORE`: row i belongs
    to `frames[i]`. `notes`: what was converted on the way, for people.
    """

    space: LabelSpace
    frames: tuple[Frame, ...]
    images: NDArray[np.uint8]
    notes: tuple[str, ...] = ()
    masks: NDArray[np.uint8] | None = None

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class ids [N] of classification. Raises `ValueError` where an image shows none or several."""
        return np.array([self.space.id(frame.label) for frame in self.frames], np.int64)

    @property
    def presence(self) -> NDArray[np.bool_]:
        """Which of the asked classes each frame shows [N, A], in the order of `space.asked`."""
        shown = [[name in frame.labels for name in self.space.asked] for frame in self.frames]
        return np.array(shown, np.bool_).reshape(len(self.frames), len(self.space.asked))

    def targets(self, task: Task) -> NDArray[Any]:
        """What a downstream model of a task is to say: class ids [N], id maps [N, S, S], or 0 and 1 [N, A]."""
        if task == "segmentation":
            assert self.masks is not None
            return self.masks
        return self.presence.astype(np.int64) if task == "presence" else self.labels

    @property
    def groups(self) -> NDArray[np.str_]:
        """Patients or videos [N]."""
        return np.array([frame.group for frame in self.frames])

    def take(self, index: NDArray[np.int64]) -> Dataset:
        """The rows `index`, in that order."""
        masks = None if self.masks is None else self.masks[index]
        return replace(self, frames=tuple(self.frames[i] for i in index), images=self.images[index], masks=masks)

    def split(self, name: Split) -> Dataset:
        """The images of one split."""
        return self.take(np.flatnonzero([frame.split == name for frame in self.frames]))

    def counts(self) -> dict[str, int]:
        """Images that show a class, every asked class named."""
        seen = Counter(label for frame in self.frames for label in frame.labels)
        return {name: seen[name] for name in self.space.asked}
