"""Frames that wait on disk until every member of a fusion has run."""

import tempfile
from pathlib import Path

import numpy as np

from skaudioemb.frames import Frames


class Spill:
    """Join the frames of several members, clip by clip, holding one clip.

    A context manager, at whose end nothing is left on disk. Iterating over it, once,
    yields (index, list of Frames, one per member) of the clips that every member had.
    """

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="skaudioemb-")
        self._indices = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._folder.cleanup()

    def add(self, numbered):
        """Take in the next member's (index, Frames), in any order."""
        number = len(self._indices)
        self._indices.append(set())
        for index, frames in numbered:
            np.savez(self._path(number, index), **frames._asdict())
            self._indices[-1].add(index)

    def __iter__(self):
        for index in sorted(set.intersection(*self._indices)):
            yield index, [self._take(n, index) for n in range(len(self._indices))]

    def _take(self, number, index):
        path = self._path(number, index)
        with np.load(path) as arrays:
            frames = Frames(arrays["values"], arrays["times"])
        path.unlink()
        return frames

    def _path(self, number, index):
        return Path(self._folder.name, f"{number}-{index}.npz")
