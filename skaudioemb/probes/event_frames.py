"""Frames of many clips as rows of one array, in memory or on disk."""

import tempfile
from pathlib import Path

import numpy as np


def checked_clips(embedder, X):
    """Return X as the sequence of clips that a fitted embedder takes it for."""
    check = getattr(embedder, "_check_clips", None)
    return X if check is None else check(X, reset=False)


def iter_frames(embedder, clips):
    """Yield (index, Frames) of the clips that can be read, in any order.

    Parameters
    ----------
    embedder : Embedder, Fusion, or any object with ``frames``
        Fitted.
    clips : sequence of clips
    """
    if hasattr(embedder, "iter_frames"):
        yield from embedder.iter_frames(clips)
    else:
        yield from enumerate(embedder.frames(clips))


class FrameTable:
    """Frames that arrive clip by clip and leave as rows of one array.

    A context manager, at whose end nothing is left on disk.

    Parameters
    ----------
    max_bytes : float
        Frames beyond this size wait on disk, and then rows come as a memory map.

    Attributes
    ----------
    times : dict of int to ndarray
        Times of the frames of each clip in seconds.
    """

    def __init__(self, max_bytes):
        self.max_bytes = max_bytes
        self.times = {}
        self._held = {}
        self._folder = None
        self._n_bytes = 0
        self._n_stacked = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, numbered):
        """Take in the frames of clips.

        Parameters
        ----------
        numbered : iterable of (int, Frames)
            Numbers of clips and their frames, in any order.
        """
        for clip, frames in numbered:
            self.times[clip] = frames.times
            self._n_bytes += frames.values.nbytes
            if self._n_bytes > self.max_bytes:
                np.save(self._path(f"clip-{clip}"), frames.values)
            else:
                # A view would keep alive the batch that it was cut from.
                self._held[clip] = np.array(frames.values, dtype=np.float32)

    def stack(self, clips):
        """Return the frames of some clips as rows, and forget them.

        Parameters
        ----------
        clips : sequence of int
            Numbers of clips, in the order of the rows.

        Returns
        -------
        rows : ndarray of shape (n_frames, n_features), float32
        """
        starts = np.cumsum([0, *(len(self.times.pop(clip)) for clip in clips)])
        rows = None
        for clip, start in zip(clips, starts[:-1], strict=True):
            values = self._take(clip)
            if rows is None:
                rows = self._make((int(starts[-1]), values.shape[1]))
            rows[start : start + len(values)] = values
        return rows

    def _make(self, shape):
        if self._folder is None:
            return np.empty(shape, dtype=np.float32)
        self._n_stacked += 1
        path = self._path(f"rows-{self._n_stacked}")
        # Writable, or torch would copy it.
        return np.lib.format.open_memmap(path, "w+", dtype=np.float32, shape=shape)

    def _take(self, clip):
        if clip in self._held:
            return self._held.pop(clip)
        path = self._path(f"clip-{clip}")
        values = np.load(path)
        path.unlink()
        return values

    def _path(self, name):
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(
                prefix="skaudioemb-", ignore_cleanup_errors=True
            )
        return Path(self._folder.name, f"{name}.npy")
