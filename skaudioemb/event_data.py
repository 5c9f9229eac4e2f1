"""Synthetic recordings in which several sound events may overlap."""

from numbers import Real

import numpy as np
from sklearn.utils import Bunch, check_random_state

from skaudioemb.events import Event

# Seconds between two events of one kind in one clip.
_PAUSE = 0.3
_ATTEMPTS = 50
_QUIETEST_DB = -12.0

_DESCR = """\
Synthetic sound events
----------------------
{n_clips} clips in mono at {sample_rate} Hz, {shortest:.2f} to {longest:.2f} s long, \
with {n_events} events
(``target``) of {n_kinds} kinds ({kinds}). Events of different kinds may
overlap. Every event has its own pitch, loudness and length; every clip has noise."""


def make_events(
    n_clips=40,
    *,
    kinds=("beep", "bell", "chirp", "hiss", "knock"),
    n_events=(0, 6),
    duration=(2.0, 4.0),
    noise=0.05,
    sample_rate=16000,
    return_X_y=False,
    random_state=None,
):
    """Make recordings of overlapping sound events, and tell what is heard when.

    Events begin at random, in clips of noise. Those of one kind are at least 0.3 s
    apart; those of different kinds may overlap. Loudness varies by 12 dB.

    Parameters
    ----------
    n_clips : int, default=40
        Number of clips.
    kinds : sequence of str
        The sounds to choose from, by default all there are: "beep" (a steady tone),
        "bell" (inharmonic partials that fade), "chirp" (a rising tone), "hiss" (noise
        of high frequencies) and "knock" (a burst of low ones).
    n_events : int or tuple of (int, int), default=(0, 6)
        Events in a clip, or the range to draw it from, both ends included. Fewer if
        there is no room.
    duration : float or tuple of (float, float), default=(2.0, 4.0)
        Length of a clip in seconds, or the range to draw it from.
    noise : float, default=0.05
        Root mean square of the white noise relative to that of the loudest events; 0
        is none.
    sample_rate : int, default=16000
        Samples per second, in Hz, at least 8000.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.
    random_state : int, RandomState instance or None, default=None
        Determines the clips. Pass an int for the same clips each time.

    Returns
    -------
    events : Bunch
        data : list of n_clips ndarrays of shape (n_samples,), float32
            The clips, within [-1, 1].
        target : list of n_clips lists of Event
            What is heard in each clip, sorted by start, in seconds.
        target_names : list of str
            The kinds.
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
    >>> from skaudioemb.datasets import make_events
    >>> events = make_events(n_clips=3, n_events=1, random_state=0)
    >>> len(events.data), events.data[0].dtype
    (3, dtype('float32'))
    >>> [event.label for clip in events.target for event in clip]
    ['beep', 'bell', 'beep']
    """
    kinds, n_events, duration = _check(
        n_clips, kinds, n_events, duration, noise, sample_rate
    )
    random = check_random_state(random_state)
    data, target = [], []
    for _ in range(n_clips):
        n_samples = max(1, round(random.uniform(*duration) * sample_rate))
        count = random.randint(n_events[0], n_events[1] + 1)
        events = _place(count, kinds, n_samples / sample_rate, random)
        data.append(_record(events, n_samples, sample_rate, noise, random))
        target.append(events)
    if return_X_y:
        return data, target
    bunch = Bunch(
        data=data, target=target, target_names=list(kinds), sample_rate=sample_rate
    )
    return Bunch(**bunch, DESCR=_describe(bunch))


def _describe(events):
    seconds = [len(clip) / events.sample_rate for clip in events.data]
    return _DESCR.format(
        n_clips=len(events.data),
        sample_rate=events.sample_rate,
        shortest=min(seconds),
        longest=max(seconds),
        n_events=sum(map(len, events.target)),
        n_kinds=len(events.target_names),
        kinds=", ".join(events.target_names),
    )


def _place(count, kinds, seconds, random):
    """Draw kinds and times such that no kind overlaps with itself."""
    placed = []
    for _ in range(count):
        for _ in range(_ATTEMPTS):
            kind = kinds[random.randint(len(kinds))]
            length = random.uniform(*_SOUNDS[kind][1])
            if length > seconds:
                continue
            start = random.uniform(0, seconds - length)
            event = Event(kind, round(start, 4), round(start + length, 4))
            if all(_apart(event, other) for other in placed):
                placed.append(event)
                break
    return sorted(placed, key=lambda event: event.start)


def _apart(one, other):
    return (
        one.label != other.label
        or one.start > other.end + _PAUSE
        or other.start > one.end + _PAUSE
    )


def _record(events, n_samples, sample_rate, noise, random):
    samples = noise * random.standard_normal(n_samples)
    for kind, start, end in events:
        first = round(start * sample_rate)
        length = min(round((end - start) * sample_rate), n_samples - first)
        times = np.arange(length) / sample_rate
        sound = _SOUNDS[kind][0](times, sample_rate, random)
        level = 10 ** (random.uniform(_QUIETEST_DB, 0) / 20)
        ramp = np.minimum(times, times[::-1]) / 0.005
        sound *= level / np.sqrt(np.mean(sound**2)) * np.minimum(1.0, ramp)
        samples[first : first + length] += sound
    return (samples / max(1.0, np.abs(samples).max())).astype(np.float32)


def _beep(times, sample_rate, random):
    frequency = random.uniform(800, 1200)
    return sum(np.sin(2 * np.pi * n * frequency * times) / n for n in (1, 2, 3))


def _bell(times, sample_rate, random):
    lowest = random.uniform(300, 450)
    partials = [1.0, 2.76, 5.4, 8.93]
    return sum(
        np.exp(-2 * n * times) * np.sin(2 * np.pi * ratio * lowest * times)
        for n, ratio in enumerate(partials, start=1)
        if ratio * lowest < sample_rate / 2
    )


def _chirp(times, sample_rate, random):
    low = random.uniform(1500, 2000)
    rise = random.uniform(1000, 1500) / times[-1]
    return np.sin(2 * np.pi * (low + rise * times / 2) * times)


def _hiss(times, sample_rate, random):
    spectrum = np.fft.rfft(random.standard_normal(len(times)))
    spectrum[np.fft.rfftfreq(len(times), 1 / sample_rate) < 3000] = 0
    return np.fft.irfft(spectrum, len(times))


def _knock(times, sample_rate, random):
    frequency = random.uniform(80, 150)
    # Four knocks a second, and the last one to the end of the event.
    return np.exp(-20 * (times % 0.25)) * np.sin(2 * np.pi * frequency * times)


# What makes a sound, and the range of its length in seconds.
_SOUNDS = {
    "beep": (_beep, (0.3, 0.8)),
    "bell": (_bell, (0.4, 0.8)),
    "chirp": (_chirp, (0.3, 0.6)),
    "hiss": (_hiss, (0.3, 1.0)),
    "knock": (_knock, (0.5, 1.0)),
}


def _check(n_clips, kinds, n_events, duration, noise, sample_rate):
    """Refuse what is out of range; return the kinds and both ranges as tuples."""
    for name, value, least in (
        ("n_clips", n_clips, 1),
        ("sample_rate", sample_rate, 8000),
    ):
        if value != int(value) or value < least:
            raise ValueError(
                f"{name}={value!r} must be a whole number of at least {least}."
            )
    if not 0 <= noise < np.inf:
        raise ValueError(f"noise={noise!r} must be 0 or a positive number.")
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if not kinds or not set(kinds) <= _SOUNDS.keys():
        raise ValueError(f"kinds={kinds!r}: choose from {', '.join(_SOUNDS)}.")
    counts = (n_events, n_events) if isinstance(n_events, Real) else tuple(n_events)
    whole = all(count == int(count) for count in counts)
    if len(counts) != 2 or not whole or not 0 <= counts[0] <= counts[1]:
        raise ValueError(
            f"n_events={n_events!r} must be a whole number, or the fewest and the "
            "most such as (0, 6)."
        )
    bounds = (duration, duration) if isinstance(duration, Real) else tuple(duration)
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] < np.inf:
        raise ValueError(
            f"duration={duration!r} must be a positive number of seconds, or the "
            "shortest and the longest such as (2.0, 4.0)."
        )
    return kinds, counts, bounds
