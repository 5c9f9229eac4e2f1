"""Clips in: read them, check them, bring them to a model's sample rate.

A clip is any of

- a path (str or os.PathLike) to a file that libsndfile reads: wav, flac, ogg, mp3
  and others, at any rate, with any number of channels, integer or float;
- a ``(path, start, end)`` segment of such a file, in seconds; ``start`` may be None
  (the beginning), ``end`` may be None (the end of the file); only the segment is read;
- a 1-D array-like of samples: list, numpy array, row of a 2-D array, torch tensor on
  any device; its rate is the `sample_rate` that the caller states;
- a dict ``{"array", "sampling_rate"}`` or ``{"bytes" | "path"}``, as in 🤗 datasets;
- a torchcodec ``AudioDecoder``.

Samples are float32 in mono. Several channels are averaged. Integer samples are PCM and
scaled to [-1, 1): int8, int16 and int32 by their largest magnitude, uint8 around its
middle, 128. int64, which is also what a list of Python ints becomes, states no such
scale and is taken as it is. Floats are never scaled or clipped. A wav or mp3 file that
ends before the length its header promises yields the samples that are there.
"""

import io
import math
import os
import stat
from collections.abc import Mapping
from numbers import Real
from typing import NamedTuple

import numpy as np

from skaudioemb.clips import (
    AudioError,
    check_clips,
    check_rate,
    describe,
    is_bound,
    is_missing,
    is_segment,
    is_sparse,
)
from skaudioemb.prefetch import load_ahead
from skaudioemb.resampling import import_torchaudio, n_resampled, resample

__all__ = [
    "AudioError",
    "Waveform",
    "check_clips",
    "check_rate",
    "describe",
    "import_torchaudio",
    "load",
    "load_ahead",
    "n_resampled",
    "resample",
    "to_host",
]

MAX_CHANNELS = 8  # of a 2-D array given as one clip
PCM_SCALES = {"int8": 2**7, "uint8": 2**7, "int16": 2**15, "int32": 2**31}
READ_FRAMES = 2**18  # frames decoded at a time, so that channels are never all held


class Waveform(NamedTuple):
    """One clip's samples in mono, at the rate they were recorded with."""

    samples: np.ndarray
    """ndarray of shape (n_samples,), float32, finite, contiguous and writable; it may
    share memory with the clip"""
    rate: int
    """samples per second, in Hz"""


def load(clip, sample_rate):
    """Read a clip as mono samples at its own rate.

    Parameters
    ----------
    clip : clip
        Any of the forms that this module's docstring lists.
    sample_rate : int
        Rate of bare arrays, in Hz. Clips that know their own rate ignore it.

    Returns
    -------
    waveform : Waveform

    Raises
    ------
    AudioError
        If the clip is missing, cannot be decoded, is empty, is not one clip, or holds
        NaN or infinity. The message names the clip; `AudioError.at` adds its position.

    Examples
    --------
    >>> from skaudioemb.audio import load
    >>> load([0.0, 0.5, -0.5], sample_rate=16000)
    Waveform(samples=array([ 0. ,  0.5, -0.5], dtype=float32), rate=16000)
    """
    try:
        waveform = Waveform(*_read(clip, sample_rate))
        _check_samples(waveform)
    except AudioError as error:
        raise AudioError(error.reason, describe(clip)) from error.__cause__
    return waveform


def _read(clip, sample_rate):
    if isinstance(clip, str | os.PathLike):
        return _read_path(clip)
    if is_segment(clip):
        if len(clip) != 3 or not all(map(is_bound, clip[1:])):
            raise AudioError(
                f"found {clip!r}: a segment is (path, start, end), both in seconds, "
                "None for the file's own start or end."
            )
        return _read_path(*clip)
    if isinstance(clip, Mapping):
        return _read_dict(clip)
    if hasattr(clip, "get_all_samples"):
        return _read_decoder(clip)
    return _read_array(clip), check_rate(sample_rate, "sample_rate")


def _read_dict(clip):
    if clip.get("array") is not None:
        if "sampling_rate" not in clip:
            raise AudioError('the dict has an "array" but no "sampling_rate" in Hz.')
        rate = check_rate(clip["sampling_rate"], "sampling_rate")
        return _read_array(clip["array"]), rate
    content = clip.get("bytes")
    if isinstance(content, bytes | bytearray | memoryview):
        if len(content) == 0:
            raise AudioError('"bytes" is empty: it must hold a whole audio file.')
        return _decode(io.BytesIO(content))
    if isinstance(clip.get("path"), str | os.PathLike):
        return _read_path(clip["path"])
    raise AudioError(
        f"found a dict with the keys {sorted(map(str, clip))}: it needs an array under "
        '"array" and its rate in Hz under "sampling_rate", or a file\'s content under '
        '"bytes", or a path under "path".'
    )


def _read_decoder(decoder):
    try:
        decoded = decoder.get_all_samples()
    except Exception as error:
        # Whatever a decoder raises, it is this clip that cannot be had.
        raise AudioError(
            f"the decoder failed ({type(error).__name__}: {error}): replace the clip "
            "or leave it out."
        ) from error
    channels = np.asarray(to_host(decoded.data))
    rate = check_rate(decoded.sample_rate, "sample_rate")
    if channels.size == 0:
        return np.empty(0, np.float32), rate
    return _mean_of_channels([_to_float32(channel) for channel in channels]), rate


def _read_array(clip):
    if isinstance(clip, bytes | bytearray | memoryview) or hasattr(clip, "read"):
        raise AudioError(
            'an encoded file is given by its path or as {"bytes": content}.'
        )
    if is_missing(clip):
        raise AudioError(
            f"found {clip!r}, a missing value: give a path or an array, or leave the "
            "clip out."
        )
    if isinstance(clip, tuple) and _is_cut_array(clip):
        raise AudioError(
            "a segment is (path, start, end): cut an array with a slice instead."
        )
    if is_sparse(clip):
        raise AudioError("sparse audio is not supported: pass clip.toarray().ravel().")
    try:
        array = np.asarray(to_host(clip))
    except (ValueError, TypeError) as error:
        raise AudioError(f"it is no array of samples ({error}).") from error
    if array.dtype.kind not in "fiu" or array.dtype in (np.uint16, np.uint32, "uint64"):
        raise AudioError(
            f"found {_kind_of(array)}; samples are floats in about [-1, 1], or PCM in "
            "int8, uint8, int16 or int32, or int64 taken as it is: convert them."
        )
    if array.ndim == 0:
        raise AudioError(
            f"found the number {array}, not a path or an array: X has to be a sequence "
            "of clips."
        )
    if array.size == 0 or array.ndim == 1:
        return _to_float32(array.reshape(-1))
    return _mean_of_channels([_to_float32(c) for c in _channels_first(array)])


def _is_cut_array(clip):
    return (
        len(clip) == 3
        and not isinstance(clip[0], Real)
        and getattr(clip[0], "ndim", 1) != 0
        and all(map(is_bound, clip[1:]))
    )


def _kind_of(array):
    names = {"b": "bool", "c": "complex", "U": "text", "S": "bytes", "O": "object"}
    name = names.get(array.dtype.kind, str(array.dtype))
    return f"{array.item()!r}" if array.ndim == 0 else f"an array of dtype {name}"


def _channels_first(array):
    small = [axis for axis, size in enumerate(array.shape) if size <= MAX_CHANNELS]
    if array.ndim != 2 or len(small) != 1:
        raise AudioError(
            f"found an array of shape {array.shape}; a clip is 1-D, or 2-D with exactly"
            f" one axis of at most {MAX_CHANNELS} channels: average the channels first."
        )
    return array if small == [0] else array.T


def to_host(clip):
    """Return a torch tensor as one that numpy can read; anything else as it is."""
    if not hasattr(clip, "detach"):
        return clip
    tensor = clip.detach().cpu()
    return tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor


def _to_float32(array):
    scale = PCM_SCALES.get(array.dtype.name)
    # A float64 beyond float32 becomes infinity, which `load` reports as such.
    with np.errstate(over="ignore"):
        samples = np.require(array, np.float32, ["C", "W"])
    if scale is None:
        return samples
    if array.dtype == np.uint8:
        samples = samples - np.float32(scale)
    return samples / np.float32(scale)


def _mean_of_channels(channels):
    """Average in the order of the channels, the same for files and arrays."""
    if len(channels) == 1:
        return np.require(channels[0], np.float32, ["C", "W"])
    total = channels[0].copy()
    for channel in channels[1:]:
        total += channel
    return total / np.float32(len(channels))


def _read_path(path, start=None, end=None):
    path = os.fspath(path)
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        where = "" if os.path.isabs(path) else f" in the folder {os.getcwd()}"
        raise AudioError(
            f"there is no file {path!r}{where}: check the path."
        ) from error
    except (OSError, ValueError) as error:
        raise AudioError(f"the path {path!r} cannot be opened: {error}.") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{path!r} is a folder: list its files and pass those.")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{path!r} is a device or a pipe: pass a regular file.")
    if status.st_size == 0:
        raise AudioError("the file holds 0 bytes: replace it or leave it out.")
    if not os.access(path, os.R_OK):
        raise AudioError(f"there is no permission to read {path!r}.")
    # As bytes, for a name that is not valid UTF-8 is a name all the same.
    return _decode(os.fsencode(path) if os.name == "posix" else path, start, end)


def _decode(source, start=None, end=None):
    import soundfile

    try:
        with soundfile.SoundFile(source) as file:
            first, last = _frames_of_segment(file, start, end)
            if first:
                file.seek(first)
            return _read_frames(file, last - first), file.samplerate
    except (soundfile.SoundFileError, TypeError) as error:
        reason = getattr(error, "error_string", str(error))
        reason = reason.removeprefix("Error : ").strip().rstrip(".")
        # libsndfile says so of an mp3 that it cannot decode; the file is there.
        if "does not exist" in reason:
            reason = "the content is broken"
        raise AudioError(
            f"libsndfile cannot decode it ({reason}); it reads wav, flac, ogg, mp3 and "
            "others that name their format: convert or replace it."
        ) from error


def _frames_of_segment(file, start, end):
    if start is None and end is None:
        return 0, file.frames
    seconds = file.frames / file.samplerate
    start = 0.0 if start is None else float(start)
    end = seconds if end is None else float(end)
    inside = 0 <= start <= end < math.inf
    inside = inside and round(end * file.samplerate) <= file.frames
    if not inside:
        raise AudioError(
            f"the segment goes from {start:g} s to {end:g} s, the file from 0 s to "
            f"{seconds:g} s: start and end must lie inside it, in this order."
        )
    return round(start * file.samplerate), round(end * file.samplerate)


def _read_frames(file, n_frames):
    parts = []
    while n_frames > 0:
        block = file.read(min(n_frames, READ_FRAMES), dtype="float32", always_2d=True)
        if len(block) == 0:
            break
        n_frames -= len(block)
        parts.append(_mean_of_channels(list(block.T)))
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _check_samples(waveform):
    samples, rate = waveform
    if len(samples) == 0:
        raise AudioError("it holds no samples: a clip needs at least one.")
    # One pass without a mask; only what overflows or is bad is looked at again.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(samples.sum()):
            return
    bad = np.flatnonzero(~np.isfinite(samples))
    if len(bad):
        n_nan = int(np.isnan(samples).sum())
        raise AudioError(
            f"{len(bad)} of {len(samples)} samples are not finite ({n_nan} NaN, "
            f"{len(bad) - n_nan} infinity), the first at {bad[0] / rate:.3f} s: mend "
            "the recording, as with numpy.nan_to_num, or leave it out."
        )
