"""Synthetic recordings of rhythms, played by made-up drum kits."""

from itertools import product
from numbers import Real
from typing import NamedTuple

import numpy as np
from sklearn.utils import Bunch, check_random_state

_QUIETEST_DB = -20.0
_SOFTEST = 0.6  # of the loudest stroke
_LATEST = 0.008  # seconds before or after its time that a stroke may come
_STROKE = 0.4  # seconds that the longest stroke sounds


class _Pattern(NamedTuple):
    """What each drum plays in a bar: x is a stroke, and all rows are equally long."""

    steps_per_beat: int
    low: str
    mid: str
    high: str


_PATTERNS = {
    "clave": _Pattern(4, "x.......x.......", "x..x..x...x.x...", "................"),
    "gallop": _Pattern(4, "x.xxx.xxx.xxx.xx", "....x.......x...", "................"),
    "rock": _Pattern(4, "x.......x.......", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "shuffle": _Pattern(3, "x.....x.....", "...x.....x..", "x.xx.xx.xx.x"),
    "tresillo": _Pattern(4, "x..x..x.x..x..x.", "................", "..x...x...x...x."),
    "waltz": _Pattern(4, "x...........", "....x...x...", "....x...x..."),
}

_DESCR = """\
Synthetic rhythms
-----------------
{n_clips} clips in mono at {sample_rate} Hz, {shortest:.2f} to {longest:.2f} s long, \
of {n_patterns} rhythms
(``target``: {patterns}), played by
{n_kits} drum kits (``kit``) at {slowest:.0f} to {fastest:.0f} beats per minute \
(``tempo``).
A clip begins anywhere in the bar; strokes vary in loudness and come a little early
or late."""


def make_rhythms(
    n_clips=60,
    *,
    patterns=tuple(_PATTERNS),
    n_kits=5,
    tempo=(90.0, 150.0),
    duration=(2.5, 3.5),
    noise=0.02,
    sample_rate=16000,
    return_X_y=False,
    random_state=None,
):
    """Make recordings of drum rhythms, played by made-up kits.

    A kit has three drums: a low one whose pitch falls, a middle one with rattling
    noise, and a high one of noise alone, each with its own pitch, decay and loudness.
    Rhythms and kits are balanced and drawn independently of each other, and so is the
    tempo. Loudness varies by 20 dB.

    Parameters
    ----------
    n_clips : int, default=60
        Number of clips.
    patterns : sequence of str
        The rhythms to choose from, by default all there are: "clave", "gallop",
        "rock", "shuffle", "tresillo" and "waltz".
    n_kits : int, default=5
        Number of drum kits.
    tempo : float or tuple of (float, float), default=(90.0, 150.0)
        Beats per minute, or the range to draw them from.
    duration : float or tuple of (float, float), default=(2.5, 3.5)
        Length of a clip in seconds, or the range to draw it from.
    noise : float, default=0.02
        Root mean square of the white noise relative to the loudest stroke's peak; 0 is
        none.
    sample_rate : int, default=16000
        Samples per second, in Hz, at least 8000.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.
    random_state : int, RandomState instance or None, default=None
        Determines kits and clips. Pass an int for the same clips each time.

    Returns
    -------
    rhythms : Bunch
        data : list of n_clips ndarrays of shape (n_samples,), float32
            The clips, within [-1, 1].
        target : ndarray of shape (n_clips,), str
            Names of the rhythms.
        target_names : list of str
            The names that occur, sorted.
        tempo : ndarray of shape (n_clips,), float
            Beats per minute.
        kit : ndarray of shape (n_clips,), int
            Which kit plays, from 0.
        sample_rate : int
            In Hz.
        DESCR : str
            Description of the set.
    (data, target) : tuple
        If ``return_X_y=True``.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> from skaudioemb.datasets import make_rhythms
    >>> rhythms = make_rhythms(n_clips=4, patterns=["rock", "waltz"], random_state=0)
    >>> len(rhythms.data), rhythms.data[0].dtype
    (4, dtype('float32'))
    >>> rhythms.target
    array(['waltz', 'rock', 'waltz', 'rock'], dtype='<U5')
    """
    patterns, tempo, duration = _check(
        n_clips, patterns, n_kits, tempo, duration, noise, sample_rate
    )
    random = check_random_state(random_state)
    kits = [_draw_kit(random, sample_rate) for _ in range(n_kits)]
    pairs = random.permutation(list(product(range(len(patterns)), range(n_kits))))
    # Dealt out again and again, the pairs stay as balanced as they go.
    pairs = random.permutation(np.resize(pairs, (n_clips, 2)))
    tempos = random.uniform(*tempo, size=n_clips)
    data = []
    for (pattern, kit), beats in zip(pairs, tempos, strict=True):
        n_samples = max(1, round(random.uniform(*duration) * sample_rate))
        played = _PATTERNS[patterns[pattern]]
        strokes = _strokes(played, beats, n_samples / sample_rate, random)
        samples = _play(strokes, kits[kit], n_samples, sample_rate, random)
        data.append(_record(samples, noise, random))
    target = np.array(patterns)[pairs[:, 0]]
    if return_X_y:
        return data, target
    rhythms = Bunch(
        data=data,
        target=target,
        target_names=np.unique(target).tolist(),
        tempo=tempos,
        kit=pairs[:, 1],
        sample_rate=sample_rate,
    )
    return Bunch(**rhythms, DESCR=_describe(rhythms))


def _describe(rhythms):
    seconds = [len(clip) / rhythms.sample_rate for clip in rhythms.data]
    return _DESCR.format(
        n_clips=len(rhythms.data),
        sample_rate=rhythms.sample_rate,
        shortest=min(seconds),
        longest=max(seconds),
        n_patterns=len(rhythms.target_names),
        patterns=", ".join(rhythms.target_names),
        n_kits=len(np.unique(rhythms.kit)),
        slowest=rhythms.tempo.min(),
        fastest=rhythms.tempo.max(),
    )


def _draw_kit(random, sample_rate):
    """Return the sound of the low, the middle and the high drum, peak at most 1."""
    times = np.arange(round(_STROKE * sample_rate)) / sample_rate
    hiss = random.standard_normal((2, len(times)))

    pitch = random.uniform(50, 100) * (1 + 2 * np.exp(-times / 0.02))
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    low = np.sin(phase) * np.exp(-times / random.uniform(0.05, 0.15))

    tone = np.sin(2 * np.pi * random.uniform(150, 400) * times)
    rattle = random.uniform(0.1, 0.8)
    mid = (1 - rattle) * tone + rattle * hiss[0] / 3
    mid *= np.exp(-times / random.uniform(0.03, 0.1))

    spectrum = np.fft.rfft(hiss[1])
    below = np.fft.rfftfreq(len(times), 1 / sample_rate) < random.uniform(2000, 3500)
    spectrum[below] = 0
    high = np.fft.irfft(spectrum, len(times))
    high *= np.exp(-times / random.uniform(0.01, 0.08))

    sounds = np.stack([low, mid, high]) * np.minimum(1.0, times[::-1] / 0.01)
    levels = random.uniform([0.7, 0.5, 0.2], [1.0, 0.9, 0.5])
    return sounds * (levels / np.abs(sounds).max(axis=1))[:, None]


def _strokes(pattern, tempo, seconds, random):
    """Return pairs of drum and time, in seconds from the start of the clip."""
    step = 60 / tempo / pattern.steps_per_beat
    bar = len(pattern.low) * step
    # A whole bar before the clip, of which the last strokes still sound.
    begin = random.uniform(bar, 2 * bar)
    n_bars = 1 + int((begin + seconds) / bar)
    return [
        (drum, number * bar + position * step - begin)
        for number in range(n_bars)
        for drum, row in enumerate((pattern.low, pattern.mid, pattern.high))
        for position, sign in enumerate(row)
        if sign == "x"
    ]


def _play(strokes, sounds, n_samples, sample_rate, random):
    samples = np.zeros(n_samples)
    for drum, time in strokes:
        first = round((time + random.uniform(-_LATEST, _LATEST)) * sample_rate)
        level = random.uniform(_SOFTEST, 1.0)
        sound = level * sounds[drum, max(0, -first) :]
        place = samples[max(0, first) :][: len(sound)]
        place += sound[: len(place)]
    return samples


def _record(samples, noise, random):
    samples = samples + noise * random.standard_normal(len(samples))
    peak = 10 ** (random.uniform(_QUIETEST_DB, 0) / 20)
    samples *= peak / max(np.abs(samples).max(), np.finfo(np.float32).tiny)
    return np.clip(samples.astype(np.float32), -1.0, 1.0)


def _check(n_clips, patterns, n_kits, tempo, duration, noise, sample_rate):
    """Refuse what is out of range; return patterns and ranges as tuples."""
    for name, value, least in (
        ("n_clips", n_clips, 1),
        ("n_kits", n_kits, 1),
        ("sample_rate", sample_rate, 8000),
    ):
        if value != int(value) or value < least:
            raise ValueError(
                f"{name}={value!r} must be a whole number of at least {least}."
            )
    if not 0 <= noise < np.inf:
        raise ValueError(f"noise={noise!r} must be 0 or a positive number.")
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if not patterns or not set(patterns) <= _PATTERNS.keys():
        raise ValueError(f"patterns={patterns!r}: choose from {', '.join(_PATTERNS)}.")
    if len(set(patterns)) < len(patterns):
        raise ValueError(f"patterns={patterns!r} must name each rhythm once.")
    tempo = _check_range("tempo", tempo, "beats per minute", "(90.0, 150.0)")
    return patterns, tempo, _check_range("duration", duration, "seconds", "(2.5, 3.5)")


def _check_range(name, value, unit, example):
    bounds = (value, value) if isinstance(value, Real) else tuple(value)
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] < np.inf:
        raise ValueError(
            f"{name}={value!r} must be a positive number of {unit}, or the least and "
            f"the most such as {example}."
        )
    return bounds
