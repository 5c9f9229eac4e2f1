"""Clips that run in windows: cut, summarised part by part, and put together.

A summary of a whole clip is asked of each window for the frames that lie in it, and
the answers are combined: sums add, maxima compete, deviations combine through their
means, frames are joined. So no clip's frames are ever held together.
"""

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from skaudioemb.encoders.base import Window
from skaudioemb.frames import mean_weights, segment_bounds
from skaudioemb.summaries import Collector, Kept, Reduced, Weighted


def summarise(encoder, spec, waveforms, summaries, max_samples):
    """Run a batch of clips through an encoder and return their summaries.

    Parameters
    ----------
    encoder : Encoder
    spec : EncoderSpec
    waveforms : list of Tensor of shape (n_samples,)
    summaries : list of list
        The summaries wanted of each clip.
    max_samples : int
        Samples that run together at most, unless a single window is longer.

    Returns
    -------
    results : list of dict
        From a summary's name to its ndarray, for each clip.
    """
    waveforms = [encoder.prepare(waveform) for waveform in waveforms]
    rows = [
        row
        for clip, waveform in enumerate(waveforms)
        for row in _rows(spec, clip, len(waveform))
    ]
    if len(rows) == len(waveforms):
        # One window may leave out the end of its clip.
        pieces = [waveforms[r.clip][r.window.start : r.window.stop] for r in rows]
        return _run(encoder, spec, pieces, rows, summaries)
    n_frames = {row.clip: row.stop for row in rows}
    clips = [_Clip(own, n_frames[clip]) for clip, own in enumerate(summaries)]
    for batch in _batches(rows, spec, max_samples):
        pieces = [waveforms[r.clip][r.window.start : r.window.stop] for r in batch]
        wanted = [clips[row.clip].restricted(row) for row in batch]
        results = _run(encoder, spec, pieces, batch, wanted)
        for row, result in zip(batch, results, strict=True):
            clips[row.clip].add(row, result)
    return [clip.results() for clip in clips]


class _Row(NamedTuple):
    """One window of a clip, and the frames of the clip that it gives."""

    clip: int
    window: Window
    start: int
    stop: int


def _rows(spec, clip, n_samples):
    windows = spec.windows(n_samples)
    if len(windows) == 1:
        return [_Row(clip, windows[0], 0, spec.n_frames(n_samples))]
    counts = [spec.n_frames(w.stop - w.start) - w.skip for w in windows]
    bounds = pairwise(np.cumsum([0, *counts]).tolist())
    return [
        _Row(clip, window, start, stop)
        for window, (start, stop) in zip(windows, bounds, strict=True)
    ]


def _batches(rows, spec, max_samples):
    """Cut rows into batches that may run together."""
    batch, total = [], 0
    for row in rows:
        length = row.window.stop - row.window.start
        first = batch[0].window if batch else row.window
        differs = not spec.mixes_lengths and length != first.stop - first.start
        cost = spec.run_samples(length)
        if batch and (differs or total + cost > max_samples):
            yield batch
            batch, total = [], 0
        batch.append(row)
        total += cost
    yield batch


def _run(encoder, spec, waveforms, rows, summaries):
    counts = [row.stop - row.start for row in rows]
    whole = [count + row.window.skip for count, row in zip(counts, rows, strict=True)]
    collector = Collector(counts, summaries, spec.n_layers)

    def consume(layer, frames):
        if len(frames) != sum(whole):
            raise AssertionError(
                f"{type(encoder).__name__} gave {len(frames)} frames where its spec "
                f"promises {sum(whole)}."
            )
        if whole != counts:
            kept = zip(frames.split(whole), rows, strict=True)
            frames = torch.cat([own[row.window.skip :] for own, row in kept])
        collector.add(layer, frames)

    encoder.stream(waveforms, consume)
    return collector.results()


class _Clip:
    """The summaries of one clip, put together from those of its windows."""

    def __init__(self, summaries, n_frames):
        self.weighted = [s for s in summaries if isinstance(s, Weighted)]
        self.kept = [s for s in summaries if isinstance(s, Kept)]
        self.reduced = [s for s in summaries if isinstance(s, Reduced)]
        self.bounds = [segment_bounds(n_frames, s.segments) for s in self.reduced]
        # Deviations are combined through the means of their groups.
        means = [mean_weights(n_frames, s.segments) for s in self.reduced]
        weights = [*(summary.weights for summary in self.weighted), *means]
        self.weights = np.concatenate(weights or [np.zeros((1, n_frames))])
        self.splits = np.cumsum([len(rows) for rows in weights])
        self.windows = []

    def restricted(self, row):
        """Return the summaries to ask of one window."""
        asked = (self._reduced_in(row, i) for i in range(len(self.reduced)))
        return [
            Weighted(self.weights[:, row.start : row.stop]),
            *(inner for inner, groups in asked if groups),
            *self.kept,
        ]

    def _reduced_in(self, row, i):
        """Return what to ask for a reduction, and the groups that it concerns."""
        shared = {
            group: (max(start, row.start) - row.start, min(stop, row.stop) - row.start)
            for group, (start, stop) in enumerate(self.bounds[i])
            if start < row.stop and stop > row.start
        }
        return replace(self.reduced[i], bounds=tuple(shared.values())), list(shared)

    def add(self, row, result):
        """Take in what one window answered."""
        sums = result.pop(self.restricted(row)[0].name).astype(np.float64)
        self.windows.append((row, np.split(sums, self.splits, axis=1), result))

    def results(self):
        """Return a dict from name to ndarray."""
        results = {}
        for i, summary in enumerate(self.weighted):
            total = sum(sums[i] for _, sums, _ in self.windows)
            results[summary.name] = total.astype(np.float32)
        for summary in self.kept:
            frames = [result[summary.name] for _, _, result in self.windows]
            results[summary.name] = np.concatenate(frames)
        for i, summary in enumerate(self.reduced):
            combine = self._maximum if summary.kind == "max" else self._deviation
            results[summary.name] = combine(i).astype(np.float32)
        return results

    def _maximum(self, i):
        maximum = None
        for row, _, result in self.windows:
            inner, groups = self._reduced_in(row, i)
            if not groups:
                continue
            values = result[inner.name]
            if maximum is None:
                shape = (len(values), len(self.bounds[i]), values.shape[-1])
                maximum = np.full(shape, -np.inf, np.float32)
            maximum[:, groups] = np.maximum(maximum[:, groups], values)
        return maximum

    def _deviation(self, i):
        """Combine variances by the law of total variance."""
        sizes = np.array([[stop - start] for start, stop in self.bounds[i]])
        mean = sum(self._mean(sums, i) for _, sums, _ in self.windows)
        squares = np.zeros_like(mean)
        for row, sums, result in self.windows:
            inner, groups = self._reduced_in(row, i)
            if not groups:
                continue
            inside = np.array([[stop - start] for start, stop in inner.bounds])
            own_mean = self._mean(sums, i)[:, groups] * sizes[groups] / inside
            variance = result[inner.name].astype(np.float64) ** 2
            distance = (own_mean - mean[:, groups]) ** 2
            squares[:, groups] += inside * (variance + distance)
        return np.sqrt(squares / sizes)

    def _mean(self, sums, i):
        """Return a window's share of the mean of each group of a reduction."""
        share = sums[len(self.weighted) + i]
        selection = self.reduced[i].selection
        if selection is None:
            return share
        return share[list(selection)].mean(axis=0, keepdims=True)
