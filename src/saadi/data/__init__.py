"""Stage 0: the real images, from a folder or rendered, in one form."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from saadi.records import Frame, LabelSpace, Split


@dataclass(frozen=True)
class Dataset:
    """Labelled real images in memory or mapped from disk.

    `images` [N, S, S, 3] uint8 RGB, row i belongs to `frames[i]`; `notes`: what was converted on the way, for people.
    """

    space: LabelSpace
    frames: tuple[Frame, ...]
    images: NDArray[np.uint8]
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class ids [N]."""
        return np.array([self.space.id(frame.label) for frame in self.frames], np.int64)

    @property
    def groups(self) -> NDArray[np.str_]:
        """Patients or videos [N]."""
        return np.array([frame.group for frame in self.frames])

    def take(self, index: NDArray[np.int64]) -> Dataset:
        """The rows `index`, in that order."""
        return replace(self, frames=tuple(self.frames[i] for i in index), images=self.images[index])

    def split(self, name: Split) -> Dataset:
        """The images of one split."""
        return self.take(np.flatnonzero([frame.split == name for frame in self.frames]))

    def counts(self) -> dict[str, int]:
        """Images by class, every class named."""
        seen = Counter(frame.label for frame in self.frames)
        return {name: seen[name] for name in self.space.names}
