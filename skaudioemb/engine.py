"""From clips to summaries: look up, batch the misses by length, run, write.

The engine is the one place that runs encoders. It decodes clips in threads ahead
of the model, takes from the store what is there, sorts the rest by length into
batches, and yields each clip's summaries as soon as they are known, so that
nothing but the caller's own result grows with the number of clips.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import ceil
from typing import NamedTuple

import joblib
import numpy as np
import torch

from skaudioemb import audio, devices, windows
from skaudioemb.encoders.base import EncoderSpec
from skaudioemb.store import Store

# Changes when the arithmetic behind stored embeddings does.
_NUMERICS = "1"
# Clips are sorted by length within stretches of this many batches, which bounds
# the decoded audio that waits in memory.
_BATCHES_PER_STRETCH = 16


class Length(NamedTuple):
    """Length of a clip as it came: samples and rate in Hz."""

    n_samples: int
    rate: int

    def at(self, spec):
        """Return the number of samples at the rate of ``spec``, padding included."""
        n_samples = audio.n_resampled(self.n_samples, self.rate, spec.sample_rate)
        return max(n_samples, spec.min_samples)


@dataclass(frozen=True)
class Request:
    """What is asked of an encoder.

    Attributes
    ----------
    spec : EncoderSpec
    wanted : callable
        Maps a clip's :class:`Length` to the summaries that are returned.
    extra : callable
        Maps it to summaries that are stored along when a clip has to be run.
    """

    spec: EncoderSpec
    wanted: Callable
    extra: Callable


@dataclass(frozen=True)
class Settings:
    """How the engine runs; none of it changes a result beyond rounding."""

    sample_rate: int = 16000
    device: str = "auto"
    dtype: str = "float32"
    batch_seconds: float = 60.0
    store: Store | None = None
    on_error: str = "raise"
    n_jobs: int | None = None
    verbose: int = 0


def run(clips, request, settings):
    """Yield the summaries of each clip, in the order in which they are known.

    Parameters
    ----------
    clips : sequence of clips
        See :mod:`skaudioemb.audio` for the forms of a clip.
    request : Request
    settings : Settings

    Yields
    ------
    index : int
        Position in ``clips``.
    length : Length or None
        The clip's length; None if it could not be read.
    result : list of ndarray, or AudioError
        The wanted summaries in their order; the error if the clip is bad and
        ``on_error="nan"``.

    Raises
    ------
    AudioError
        At the first bad clip with ``on_error="raise"``.
    """
    n_jobs = min(joblib.effective_n_jobs(settings.n_jobs), len(clips))
    devices.count(asked=len(clips))
    with ExitStack() as stack:
        bar = stack.enter_context(_progress_bar(len(clips), settings.verbose))
        if settings.store is not None:
            stack.enter_context(closing(settings.store))
        runner = _Runner(clips, request, settings)
        everything = range(len(clips))
        results = runner.run(everything) if n_jobs == 1 else None
        for index, length, result in results or _run_sharded(runner, n_jobs):
            bar.update(1)
            bar.set_postfix_str(runner.rate(bar), refresh=False)
            if isinstance(result, Exception) and settings.on_error == "raise":
                raise result
            yield index, length, result


def _progress_bar(total, verbose):
    from tqdm.auto import tqdm

    return tqdm(total=total, unit="clip", disable=not verbose)


class _Clip(NamedTuple):
    index: int
    length: Length
    samples: np.ndarray
    digest: bytes | None

    @property
    def nbytes(self):
        return self.samples.nbytes


class _Runner:
    """One pass over clips in one process."""

    def __init__(self, clips, request, settings):
        self.clips = clips
        self.request = request
        self.settings = settings
        self.audio_seconds = 0.0
        self.n_run = 0
        # Halved when the device runs out of memory.
        self._batch_seconds = settings.batch_seconds
        self._prefix = "|".join(
            (_NUMERICS, request.spec.identity, settings.dtype)
        ).encode()

    def run(self, indices):
        """Yield (index, length, result) for the clips at ``indices``."""
        for stretch in self.stretches(indices):
            results, misses = self.look_up(stretch)
            yield from results
            yield from self._compute(misses)

    def look_up(self, stretch):
        """Split a stretch into known (index, length, result) and missing clips."""
        bad = [known for known in stretch if not isinstance(known, _Clip)]
        clips = [clip for clip in stretch if isinstance(clip, _Clip)]
        store = self.settings.store
        if store is None:
            return bad, clips
        keys = [
            [self._key(clip, summary) for summary in self.request.wanted(clip.length)]
            for clip in clips
        ]
        found = store.get([key for own in keys for key in own])
        hits, misses = [], []
        for clip, own in zip(clips, keys, strict=True):
            if all(key in found for key in own):
                hits.append((clip.index, clip.length, [found[key] for key in own]))
                self.audio_seconds += clip.length.n_samples / clip.length.rate
            else:
                misses.append(clip)
        return bad + hits, misses

    def rate(self, bar):
        """Return the throughput for the progress bar."""
        elapsed = bar.format_dict["elapsed"] or 1e-9
        return f"{self.audio_seconds / elapsed:.0f} audio-s/s, {self.n_run} forwards"

    def stretches(self, indices):
        """Yield lists of clips, or of (index, None, error), as they are decoded."""
        limit = _BATCHES_PER_STRETCH * self.settings.batch_seconds
        stretch, seconds = [], 0.0
        for clip in audio.load_ahead(indices, self._load):
            stretch.append(clip)
            if isinstance(clip, _Clip):
                seconds += clip.length.n_samples / clip.length.rate
            if seconds >= limit:
                yield stretch
                stretch, seconds = [], 0.0
        if stretch:
            yield stretch

    def _load(self, index):
        try:
            clip = self.clips[index]
        except Exception as error:
            # A lazy column decodes here, and raises what it likes for a bad file.
            reason = f"it could not be had from X ({type(error).__name__}: {error})."
            failure = audio.AudioError(reason, index=index)
            failure.__cause__ = error
            return index, None, failure
        try:
            waveform = audio.load(clip, self.settings.sample_rate)
        except audio.AudioError as error:
            return index, None, error.at(index)
        length = Length(len(waveform.samples), waveform.rate)
        digest = None
        if self.settings.store is not None:
            content = blake2b(waveform.samples, digest_size=16)
            content.update(str(waveform.rate).encode())
            digest = content.digest()
        return _Clip(index, length, waveform.samples, digest)

    def _key(self, clip, summary):
        key = blake2b(self._prefix, digest_size=16)
        key.update(clip.digest)
        key.update(summary.name.encode())
        return key.digest()

    def _compute(self, misses):
        twins = {}
        for clip in misses:
            twins.setdefault(clip.digest or clip.index, []).append(clip)
        firsts = [clips[0] for clips in twins.values()]
        batches = self._batches(firsts)
        prepared = audio.load_ahead(batches, self._prepare, n_threads=1, ahead=1)
        for batch, waveforms in prepared:
            for clip, result in self._run_batch(batch, waveforms):
                for twin in twins[clip.digest or clip.index]:
                    yield twin.index, twin.length, result

    def _batches(self, clips):
        """Cut clips sorted by length, the longest first, into batches."""
        spec = self.request.spec
        lengths = {clip.index: clip.length.at(spec) for clip in clips}
        clips = sorted(clips, key=lambda clip: -lengths[clip.index])
        limit = self._batch_seconds * spec.sample_rate
        batch, total = [], 0
        for clip in clips:
            length = lengths[clip.index]
            differs = batch and length != lengths[batch[-1].index]
            cost = spec.run_samples(length)
            apart = differs and not spec.mixes_lengths
            if batch and (apart or total + cost > limit):
                yield batch
                batch, total = [], 0
            batch.append(clip)
            total += cost
        if batch:
            yield batch

    def _prepare(self, batch):
        spec = self.request.spec
        waveforms = []
        for clip in batch:
            waveform = audio.Waveform(clip.samples, clip.length.rate)
            samples = audio.resample(waveform, spec.sample_rate)
            missing = spec.min_samples - len(samples)
            waveforms.append(np.pad(samples, (0, missing)) if missing > 0 else samples)
        return batch, waveforms

    def _run_batch(self, batch, waveforms):
        """Yield (clip, result) for a batch, in halves if memory does not suffice."""
        try:
            results = self._forward(batch, waveforms)
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            results = None
            failure = str(error)
        if results is not None:
            self._write(batch, results)
            yield from self._judge(batch, results)
        elif len(batch) == 1:
            yield batch[0], self._too_long(batch[0], failure)
        else:
            devices.free_memory()
            half = len(batch) // 2
            self._batch_seconds = max(self._batch_seconds / 2, 1.0)
            yield from self._run_batch(batch[:half], waveforms[:half])
            yield from self._run_batch(batch[half:], waveforms[half:])

    def _forward(self, batch, waveforms):
        spec, settings = self.request.spec, self.settings
        device = devices.resolve_device(settings.device)
        encoder = devices.load_encoder(spec, device, settings.dtype)
        summaries = [self._summaries(clip) for clip in batch]
        max_samples = self._batch_seconds * spec.sample_rate
        with torch.inference_mode(), devices.full_precision(device, settings.dtype):
            tensors = [torch.from_numpy(samples).to(device) for samples in waveforms]
            results = windows.summarise(encoder, spec, tensors, summaries, max_samples)
        devices.count(run=len(batch))
        self.n_run += len(batch)
        self.audio_seconds += sum(map(len, waveforms)) / spec.sample_rate
        return results

    def _summaries(self, clip):
        wanted = self.request.wanted(clip.length)
        extra = self.request.extra(clip.length) if self.settings.store else []
        return list({summary.name: summary for summary in [*extra, *wanted]}.values())

    def _write(self, batch, results):
        if self.settings.store is None:
            return
        items = {}
        for clip, result in zip(batch, results, strict=True):
            if _is_finite(result):
                for summary in self._summaries(clip):
                    items[self._key(clip, summary)] = result[summary.name]
        self.settings.store.put(items)

    def _judge(self, batch, results):
        for clip, result in zip(batch, results, strict=True):
            if _is_finite(result):
                wanted = self.request.wanted(clip.length)
                yield clip, [result[summary.name] for summary in wanted]
            else:
                yield clip, self._not_finite(clip)

    def _not_finite(self, clip):
        dtype, advice = self.settings.dtype, "Check the checkpoint."
        if dtype != "float32":
            advice = "Use dtype='float32' or 'bfloat16', or check the checkpoint."
        return audio.AudioError(
            f"the model's output is not finite in {dtype}. {advice}", index=clip.index
        )

    def _too_long(self, clip, failure):
        seconds = clip.length.n_samples / clip.length.rate
        device = devices.resolve_device(self.settings.device)
        return audio.AudioError(
            f"{seconds:.1f} s of audio do not fit into the memory of {device} even "
            f"alone ({failure}). Cut it into (path, start, end) segments, or choose "
            "another device or dtype='bfloat16'.",
            index=clip.index,
        )


def _run_sharded(runner, n_jobs):
    """Yield (index, length, result); the clips that are not stored run in workers."""
    clips, missing = runner.clips, {}
    if runner.settings.store is None:
        missing = {index: [index] for index in range(len(clips))}
    else:
        for stretch in runner.stretches(range(len(clips))):
            results, misses = runner.look_up(stretch)
            yield from results
            for clip in misses:
                missing.setdefault(clip.digest, []).append(clip.index)
    twins = {indices[0]: indices for indices in missing.values()}
    firsts = list(twins)
    # A few shards per worker even out clips of different lengths.
    size = max(1, ceil(len(firsts) / (4 * n_jobs)))
    shards = [firsts[i : i + size] for i in range(0, len(firsts), size)]
    settings = replace(runner.settings, n_jobs=1, verbose=0, on_error="nan")
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    jobs = (
        joblib.delayed(_run_shard)(
            {index: clips[index] for index in shard}, runner.request, settings
        )
        for shard in shards
    )
    for results, n_run, audio_seconds, pid in parallel(jobs) if shards else ():
        runner.n_run += n_run
        runner.audio_seconds += audio_seconds
        if pid != os.getpid():
            devices.count(run=n_run)
        for index, length, result in results:
            for twin in twins[index]:
                yield twin, length, result


def _run_shard(clips, request, settings):
    store = settings.store
    runner = _Runner(clips, request, settings)
    with closing(store) if store is not None else nullcontext():
        results = list(runner.run(list(clips)))
    return results, runner.n_run, runner.audio_seconds, os.getpid()


def _is_finite(result):
    return all(np.isfinite(value).all() for value in result.values())
