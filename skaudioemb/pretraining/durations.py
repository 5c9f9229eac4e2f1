"""How long clips are, as far as that can be told without decoding them."""

import io
import os
from collections.abc import Mapping

import numpy as np

from skaudioemb.clips import is_segment


def seconds_of(clip, sample_rate=16000):
    """Return the length of a clip in seconds, 0.0 if only decoding would tell.

    Parameters
    ----------
    clip : clip
        In any of the forms that :mod:`skaudioemb.audio` lists. What cannot be read
        has 0.0 here; the error is for who reads it.
    sample_rate : int, default=16000
        Rate of bare arrays in Hz.

    Returns
    -------
    seconds : float
        Of a segment, what the file has of it.

    Examples
    --------
    >>> from skaudioemb.pretraining.durations import seconds_of
    >>> seconds_of([0.0] * 8000), seconds_of(("missing.wav", 1.5, 4.0))
    (0.5, 0.0)
    """
    try:
        seconds = float(_seconds(clip, sample_rate))
    except (TypeError, ValueError, ArithmeticError):
        return 0.0
    return seconds if 0 < seconds < np.inf else 0.0


def _seconds(clip, sample_rate):
    if isinstance(clip, str | os.PathLike):
        return _of_file(os.fspath(clip))
    if is_segment(clip):
        return _of_segment(*clip) if len(clip) == 3 else 0.0
    if isinstance(clip, Mapping):
        return _of_dict(clip)
    if hasattr(clip, "get_all_samples") or isinstance(clip, bytes | bytearray):
        return 0.0
    return _n_samples(clip) / sample_rate


def _of_segment(path, start, end):
    present = _of_file(os.fspath(path))
    end = present if end is None else min(float(end), present)
    return end - float(start or 0.0)


def _of_dict(clip):
    if clip.get("array") is not None:
        return _n_samples(clip["array"]) / (clip.get("sampling_rate") or np.inf)
    content = clip.get("bytes")
    if isinstance(content, bytes | bytearray):
        return _of_file(io.BytesIO(content))
    path = clip.get("path")
    return _of_file(os.fspath(path)) if isinstance(path, str | os.PathLike) else 0.0


def _n_samples(clip):
    # An axis of channels is the shorter one.
    shape = clip.shape if hasattr(clip, "shape") else np.shape(clip)
    return max(shape, default=0)


def _of_file(file):
    import soundfile

    try:
        info = soundfile.info(file)
    except (soundfile.SoundFileError, TypeError, OSError):
        return 0.0
    return info.frames / info.samplerate
