"""Random crops of recordings, decoded in threads ahead of the training."""

import os
import warnings
from collections.abc import Mapping
from contextlib import closing
from math import ceil
from typing import NamedTuple

import numpy as np
import torch

from skaudioemb import audio
from skaudioemb.encoders.byol_spec import MIN_STD
from skaudioemb.pretraining.durations import seconds_of

# Formats in which libsndfile finds a place without decoding all before it.
_SEEKABLE = frozenset(
    ("WAV", "WAVEX", "FLAC", "AIFF", "AU", "CAF", "RF64", "W64", "OGG", "NIST")
)
# Zero crossings of the resampler's filter to either side, with some to spare.
_FILTER_CROSSINGS = 70
# Bad clips that an error lists.
_N_LISTED = 10


class Batch(NamedTuple):
    """Crops that are trained on together."""

    waveforms: torch.Tensor
    """tensor of shape (n_clips, n_samples), float32, on the CPU"""
    targets: torch.Tensor | None
    """tensor of shape (n_clips, n_targets), float32, if there are any"""
    lengths: torch.Tensor | None = None
    """tensor of shape (n_clips,), int64: samples before the zeros, if these lie at the
    end"""


class CropBatches:
    """Batches of random crops: new ones in every epoch, the same for the same seed.

    An epoch is one crop of every clip in random order, or as many as fit into it.
    Batches differ in size by at most one crop and are no larger than asked for; only
    where no batch may have a single crop, one with another left over is.

    Parameters
    ----------
    clips : sequence of clips
        In any of the forms that :mod:`skaudioemb.audio` lists.
    n_samples : int
        Length of a crop at `rate`.
    rate : int
        Rate of the crops in Hz.
    batch_size : int
    seed : int
    sample_rate : int, default=16000
        Rate of bare arrays in Hz.
    n_threads : int or None, default=None
        Threads that decode; None means one per processor, at most 8.
    on_error : {"raise", "nan"}, default="raise"
        Whether a bad clip ends the training or is left out with a warning.
    targets : callable or None, default=None
        Maps an array of crops of shape (n_clips, n_samples) to one of shape
        (n_clips, n_targets). It is called in a thread.
    zeros : {"around", "after"}, default="around"
        Where clips that are shorter get zeros: at both ends alike, up to `n_samples`;
        or at the end, up to the longest of the batch, whose lengths are told then.
    by_length : bool, default=False
        Whether a clip of d seconds comes ``max(1, floor(d / crop))`` times an epoch,
        with a crop of its own each time. A clip whose length only decoding would
        tell comes once.
    in_pairs : bool, default=False
        Whether a batch has two crops at least, as a network with batch normalisation
        needs.
    """

    def __init__(
        self,
        clips,
        n_samples,
        rate,
        batch_size,
        seed,
        *,
        sample_rate=16000,
        n_threads=None,
        on_error="raise",
        targets=None,
        zeros="around",
        by_length=False,
        in_pairs=False,
    ):
        self.clips = audio.check_clips(clips)
        self.n_samples, self.rate = n_samples, rate
        self.batch_size, self.seed = batch_size, seed
        self.sample_rate = sample_rate
        self.n_threads = n_threads
        self.on_error = on_error
        self.targets = targets
        self.zeros = zeros
        self.in_pairs = in_pairs
        self.items = np.arange(len(self.clips))
        if by_length:
            self.items = np.repeat(self.items, self._crops_of_clips())
        self.bad = {}

    def _crops_of_clips(self):
        seconds = [seconds_of(clip, self.sample_rate) for clip in self.clips]
        crops = np.array(seconds) * self.rate / self.n_samples
        return np.maximum(1, crops.astype(int))

    def __len__(self):
        """Count the batches of an epoch."""
        n_batches = ceil(len(self.items) / self.batch_size)
        if self.in_pairs:
            n_batches = min(n_batches, len(self.items) // 2)
        return max(1, n_batches)

    def epoch(self, number, limit=None):
        """Yield the batches of an epoch.

        Parameters
        ----------
        number : int
            Counted from 0; any can be asked for at any time.
        limit : int or None, default=None
            Crops to take at most.

        Yields
        ------
        batch : Batch

        Raises
        ------
        AudioError
            At a bad clip, if ``on_error="raise"``.
        ValueError
            If so many clips are bad that there is no batch.
        """
        rng = np.random.default_rng([self.seed, number])
        order = rng.permutation(len(self.items))[:limit]
        places = rng.random(len(self.items))
        jobs = ((int(self.items[item]), places[item]) for item in order)
        crops = audio.load_ahead(jobs, self._read, n_threads=self.n_threads)
        n_batches = max(1, round(len(self) * len(order) / len(self.items)))
        sizes = [len(part) for part in np.array_split(order, n_batches)]
        n_yielded = 0
        with closing(self._collate(crops, sizes)) as collated:
            ahead = audio.load_ahead(collated, self._finish, n_threads=1, ahead=2)
            with closing(ahead):
                for batch in ahead:
                    if isinstance(batch, Exception):
                        raise batch
                    n_yielded += 1
                    yield batch
        if n_yielded == 0 and len(order) == len(self.items):
            raise self.too_few()

    def _read(self, job):
        index, place = job
        try:
            clip = self.clips[index]
            crop = read_piece(clip, place, self.n_samples, self.rate, self.sample_rate)
        except audio.AudioError as error:
            raise error.at(index) from error.__cause__
        return crop

    def _collate(self, crops, sizes):
        least = 2 if self.in_pairs and sum(sizes) > 1 else 1
        rows, pending = [], list(sizes)
        try:
            for size in sizes:
                more = (self._judge(next(crops)) for _ in range(size))
                rows += [row for row in more if row is not None]
                # Bad clips may leave less than a batch, which waits for the next.
                while len(rows) - pending[0] >= least:
                    yield rows[: pending[0]]
                    rows = rows[pending.pop(0) :]
            if len(rows) >= least:
                yield rows
        finally:
            crops.close()

    def _judge(self, crop):
        if not isinstance(crop, Exception):
            return crop
        index = getattr(crop, "index", None)
        if self.on_error == "raise" or index is None:
            raise crop
        self.bad[index] = crop
        return None

    def _finish(self, crops):
        targets = lengths = None
        if self.zeros == "around":
            crops = np.stack([_centred(crop, self.n_samples) for crop in crops])
        else:
            lengths = torch.tensor([len(crop) for crop in crops])
            longest = int(lengths.max())
            crops = np.stack([np.pad(c, (0, longest - len(c))) for c in crops])
        if self.targets is not None:
            targets = torch.from_numpy(self.targets(crops))
        return Batch(torch.from_numpy(crops), targets, lengths)

    def too_few(self):
        """Return the ValueError that says which clips are bad, so that few are left."""
        needed = "two good clips are" if self.in_pairs else "one good clip is"
        lines = [str(self.bad[index]) for index in sorted(self.bad)]
        if len(lines) > _N_LISTED:
            lines[_N_LISTED:] = [f"and {len(lines) - _N_LISTED} more"]
        return ValueError(
            f"{len(self.bad)} of {len(self.clips)} clips cannot be used, and of those "
            f"tried too few are left: at least {needed} needed.\n" + "\n".join(lines)
        )

    def warn_of_bad(self):
        """Warn once of all clips that were left out."""
        if self.bad:
            lines = [str(self.bad[index]) for index in sorted(self.bad)]
            warnings.warn(
                f"{len(lines)} of {len(self.clips)} clips cannot be used and were not "
                "trained on:\n" + "\n".join(lines),
                UserWarning,
                stacklevel=2,
            )


def read_crop(clip, place, n_samples, rate, sample_rate=16000):
    """Read a crop of a clip; of a file no more than the crop, where it can be sought.

    Parameters
    ----------
    clip : clip
        In any of the forms that :mod:`skaudioemb.audio` lists.
    place : float
        Where the crop begins, from 0, the clip's begin, to 1, the last place at which
        a whole crop is left.
    n_samples : int
        Length of the crop at `rate`.
    rate : int
        Rate of the crop in Hz.
    sample_rate : int, default=16000
        Rate of bare arrays in Hz.

    Returns
    -------
    crop : ndarray of shape (n_samples,), float32
        A clip that is shorter lies in the middle of zeros.

    Raises
    ------
    AudioError
        If the clip cannot be read.

    Examples
    --------
    >>> from skaudioemb.pretraining.data import read_crop
    >>> read_crop([1.0, 2.0, 3.0, 4.0], 1.0, 2, 16000)
    array([3., 4.], dtype=float32)
    >>> read_crop([1.0, 2.0], 0.0, 4, 16000)
    array([0., 1., 2., 0.], dtype=float32)
    """
    return _centred(read_piece(clip, place, n_samples, rate, sample_rate), n_samples)


def _centred(piece, n_samples):
    missing = n_samples - len(piece)
    return np.pad(piece, (missing // 2, missing - missing // 2))


def read_piece(clip, place, n_samples, rate, sample_rate=16000):
    """Read a crop as :func:`read_crop` does, without zeros around a short clip.

    Parameters
    ----------
    clip, place, n_samples, rate, sample_rate
        As there.

    Returns
    -------
    piece : ndarray of shape (at most n_samples,), float32

    Raises
    ------
    AudioError
        If the clip cannot be read.
    """
    part, place = _part_of_file(clip, place, n_samples, rate)
    waveform = audio.load(clip if part is None else part, sample_rate)
    wanted, margin = _needed(n_samples, rate, waveform.rate)
    first = _first(place, len(waveform.samples), wanted)
    before = min(first, margin) if waveform.rate != rate else 0
    piece = waveform.samples[first - before : first + wanted + margin]
    samples = audio.resample(audio.Waveform(piece, waveform.rate), rate)
    skipped = round(before * rate / waveform.rate)
    return samples[skipped : skipped + n_samples].astype(np.float32, copy=False)


def _first(place, n_present, n_wanted):
    room = max(0, n_present - n_wanted)
    return min(int(place * (room + 1)), room)


def _needed(n_samples, rate, own_rate):
    """Return the samples to resample to a crop, and those to have around them.

    The second keep the filter from meeting an edge that is none of the clip's.
    """
    wanted = ceil(n_samples * own_rate / rate)
    return wanted, ceil(_FILTER_CROSSINGS * max(1.0, own_rate / rate))


def _part_of_file(clip, place, n_samples, rate):
    """Return the part of a file to read and the place in it; None for the whole."""
    path = clip.get("path") if isinstance(clip, Mapping) else clip
    given = isinstance(clip, Mapping) and (
        clip.get("array") is not None or clip.get("bytes") is not None
    )
    if given or not isinstance(path, str | os.PathLike):
        return None, place
    import soundfile

    try:
        info = soundfile.info(os.fspath(path))
    except (soundfile.SoundFileError, TypeError, OSError):
        return None, place  # the same failure meets `load`, which explains it
    wanted, margin = _needed(n_samples, rate, info.samplerate)
    if info.format not in _SEEKABLE or info.frames <= wanted + 2 * margin:
        return None, place
    first = _first(place, info.frames, wanted)
    begin = max(0, first - margin)
    end = min(info.frames, first + wanted + margin)
    room = end - begin - wanted
    # The place that `_first` turns into this crop's begin within the part.
    inside = (first - begin + 0.5) / (room + 1)
    return (path, begin / info.samplerate, end / info.samplerate), inside


def statistics(batches, transform, *, max_clips=10_000):
    """Return mean and standard deviation over all values of transformed crops.

    One pass over random crops; nothing grows with their number.

    Parameters
    ----------
    batches : CropBatches
    transform : callable
        Maps waveforms of shape (n_clips, n_samples) to a tensor.
    max_clips : int, default=10000
        Clips to look at, as many as BYOL-A's second version does.

    Returns
    -------
    mean, std : float
        The standard deviation is that of a population, at least ``MIN_STD``.

    Raises
    ------
    ValueError
        If no clip that was looked at is good.

    References
    ----------
    Niizumi et al., "BYOL for Audio: Exploring Pre-trained General-purpose Audio
    Representations" (2023), section III-A.
    """
    count, mean, moment = 0, 0.0, 0.0
    with torch.no_grad():
        for batch in batches.epoch(0, limit=max_clips):
            values = transform(batch.waveforms).double()
            n_new, new_mean = values.numel(), values.mean().item()
            distance, total = new_mean - mean, count + n_new
            moment += (values - new_mean).square().sum().item()
            moment += distance**2 * count * n_new / total
            mean += distance * n_new / total
            count = total
    if count == 0:
        raise batches.too_few()
    return mean, max((moment / count) ** 0.5, MIN_STD)
