"""When frames come, learned from a module that is run on clips of a few lengths."""

from bisect import bisect, insort
from typing import NamedTuple

import numpy as np

# Seconds: the times of two clips are the same to this.
_SAME = 1e-3
# Samples around the length at which one more frame begins, where none is foretold.
_MARGIN = 1.0


class Grid(NamedTuple):
    """Frames of the clips of one length; times in seconds."""

    n_frames: int
    first: float
    hop: float
    uneven: np.ndarray | None = None

    @classmethod
    def of(cls, milliseconds):
        """Return the grid of timestamps, without their float32 rounding if even."""
        times = milliseconds / 1000
        n_frames = len(times)
        hop = (times[-1] - times[0]) / max(1, n_frames - 1)
        even = cls(n_frames, float(times[0]), float(hop))
        rounding = np.finfo(np.float32).eps * times[-1]
        if np.abs(even.times() - times).max() <= rounding:
            return even
        return even._replace(uneven=times)

    def is_like(self, other):
        """Tell whether frames are as many, at the same times."""
        return self.n_frames == other.n_frames and bool(
            np.abs(self.times() - other.times()).max() <= _SAME
        )

    def times(self):
        """Return the times, ndarray of shape (n_frames,)."""
        if self.uneven is not None:
            return self.uneven.copy()
        return self.first + np.arange(self.n_frames) * self.hop


class Grids:
    """The grids of clips by their length.

    Modules that cut a clip into windows give ``1 + (n_samples + padding) // hop``
    frames. Each known length narrows the padding down; between two known lengths of
    several frames, others follow once only one number of frames is left. No length
    outside of the known ones does, for modules often treat short and long clips
    otherwise.

    Parameters
    ----------
    rate : int
        Sample rate in Hz.
    """

    def __init__(self, rate):
        self.rate = rate
        self.known = {}
        self.lengths = []
        self.is_regular = True
        self.like = None
        self.least, self.most = -np.inf, np.inf

    def get(self, n_samples):
        """Return the Grid of clips of ``n_samples``, None if it has to be found."""
        if n_samples in self.known:
            return self.known[n_samples]
        place = bisect(self.lengths, n_samples)
        if not self.is_regular or not 0 < place < len(self.lengths):
            return None
        counts = {
            self._count(n_samples + padding)
            for padding in (self.least - _MARGIN, self.most + _MARGIN)
        }
        return self.like._replace(n_frames=counts.pop()) if len(counts) == 1 else None

    def add(self, n_samples, grid):
        """Take in what a run has shown."""
        self.known[n_samples] = grid
        if grid.n_frames == 1:
            return
        insort(self.lengths, n_samples)
        self.like = self.like or grid
        start = abs(grid.first - self.like.first)
        step = abs(grid.hop - self.like.hop) * grid.n_frames
        hop = self._hop_samples
        self.least = max(self.least, (grid.n_frames - 1) * hop - n_samples)
        self.most = min(self.most, grid.n_frames * hop - n_samples)
        self.is_regular = (
            self.is_regular
            and grid.uneven is None
            and max(start, step) <= _SAME
            and self.least <= self.most + _MARGIN
        )

    def has_below(self, n_samples):
        """Tell whether a shorter length is known."""
        return bool(self.lengths) and self.lengths[0] < n_samples

    @property
    def _hop_samples(self):
        return self.like.hop * self.rate

    def _count(self, padded):
        return 1 + int(padded // self._hop_samples)
