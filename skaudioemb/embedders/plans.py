"""What an embedder asks the engine for, as functions of a clip's length.

Plans are known before a model runs, and can be sent to other processes.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from skaudioemb.encoders.base import EncoderSpec
from skaudioemb.frames import mean_weights
from skaudioemb.summaries import ALL, Reduced, Weighted


@dataclass(frozen=True)
class ScenePlan:
    """The summaries behind a scene vector, and how they combine into it."""

    spec: EncoderSpec
    pooling: str
    segments: int | None
    selection: tuple | str

    def __call__(self, length):
        n_frames = self.spec.n_frames(length.at(self.spec))
        return _scene_summaries(n_frames, self.pooling, self.segments, self.selection)

    def combine(self, result):
        """Return the vector, group after group and layer by layer."""
        first, *second = (select(values, self.selection) for values in result)
        if self.pooling == "mean+max":
            first = first + second[0]
        elif self.pooling == "mean-std":
            first = np.concatenate([first, second[0]], axis=-1)
        return first.reshape(-1)


@dataclass(frozen=True)
class WeightedPlan:
    """One weighted sum per group of frames."""

    weights: object

    def __call__(self, length):
        return (Weighted(self.weights(length)),)


@dataclass(frozen=True)
class FramesPlan:
    """The frames of a selection of layers."""

    summaries: tuple

    def __call__(self, length):
        return self.summaries


@dataclass(frozen=True)
class ExtraPlan:
    """What is stored whenever a clip is run, so that no grid runs it again.

    The mean and the maximum of every layer, the maximum of their average, the
    deviation where the embedder offers it, and the weighted sums that a fusion
    may ask for when its members change.
    """

    spec: EncoderSpec
    deviation: bool
    weights: tuple

    def __call__(self, length):
        n_frames = self.spec.n_frames(length.at(self.spec))
        layers = self.spec.n_layers
        mean = tuple(range(layers))
        return (
            *_scene_summaries(n_frames, "mean+max", None, (0,)),
            *((Reduced("max", None, mean),) if layers > 1 else ()),
            *((Reduced("std"),) if self.deviation else ()),
            *(Weighted(weights(length)) for weights in self.weights),
        )


def frame_times(spec, length):
    """Times of a clip's frames in seconds, increasing, not behind its end.

    Half a sample behind it does not count, as windows begin at the nearest sample.
    Frames of a clip that had to be padded can lie behind it. Where several do, all
    frames are spread over the clip.
    """
    times = spec.times_of(length.at(spec))
    end = length.n_samples / length.rate
    if len(times) > 1 and times[-2] >= end:
        return (np.arange(len(times)) + 0.5) * (end / len(times))
    return np.where(times > end + 0.5 / spec.sample_rate, end, times)


@lru_cache(maxsize=4096)
def _scene_summaries(n_frames, pooling, segments, selection):
    averaged = selection if selection != ALL and len(selection) > 1 else None
    parts = {
        "mean": lambda: Weighted(mean_weights(n_frames, segments)),
        "max": lambda: Reduced("max", segments, averaged),
        "std": lambda: Reduced("std", segments, averaged),
    }
    return tuple(parts[part]() for part in pooling.replace("-", "+").split("+"))


def select(values, selection):
    """Return (n_groups, n_layers or 1, n_features) of (n_layers, n_groups, ...)."""
    if selection != ALL and len(values) > 1:
        values = values[list(selection)].mean(axis=0, keepdims=True)
    return values.swapaxes(0, 1)
