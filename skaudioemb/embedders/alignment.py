"""Weights over time, as functions of a clip's length.

A grid is a callable from a clip's Length to its frame times in seconds. Everything
here is known before a model runs, and can be sent to other processes.
"""

from dataclasses import dataclass

import numpy as np

from skaudioemb.frames import (
    index_positions,
    mean_weights,
    pull_back,
    time_positions,
)


@dataclass(frozen=True)
class MeanWeights:
    """Weights that average the frames of ``grid``, in groups."""

    grid: object
    segments: int | None

    @property
    def n_groups(self):
        return self.segments or 1

    def __call__(self, length):
        return mean_weights(len(self.grid(length)), self.segments)


@dataclass(frozen=True)
class Alignment:
    """Positions among the ``source`` frames of each ``target`` frame."""

    source: object
    target: object
    how: str

    def __call__(self, length):
        """Return positions, or None if the frames coincide, and the source count."""
        source, target = self.source(length), self.target(length)
        if len(source) == len(target) and (
            self.how == "index" or np.array_equal(source, target)
        ):
            return None, len(source)
        if self.how == "index":
            return index_positions(len(target), len(source)), len(source)
        return time_positions(target, source), len(source)


@dataclass(frozen=True)
class PulledBack:
    """Weights of a member's own frames that equal ``weights`` on the aligned ones."""

    weights: object
    alignment: Alignment

    @property
    def n_groups(self):
        return self.weights.n_groups

    @property
    def grid(self):
        return self.alignment.source

    def __call__(self, length):
        positions, n_in = self.alignment(length)
        weights = self.weights(length)
        return weights if positions is None else pull_back(weights, positions, n_in)
