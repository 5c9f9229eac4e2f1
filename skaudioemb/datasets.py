"""Small synthetic sets of recordings, in the manner of ``sklearn.datasets.make_*``."""

import re
from numbers import Real
from typing import NamedTuple

import numpy as np
from sklearn.utils import Bunch, check_random_state

from skaudioemb.event_data import make_events
from skaudioemb.rhythm_data import make_rhythms

# These write sets of this module in HEAR's format, and so import it.
_WRITERS = ("write_hear_tasks", "write_speech_commands_task")

__all__ = [
    "make_events",
    "make_notes",
    "make_rhythms",
    "note_name",
    "note_number",
    *_WRITERS,
]

_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_A4_MIDI, _A4_HZ = 69, 440.0
_QUIETEST_DB = -30.0
_DEFAULT_PITCHES = tuple(range(40, 52))
_MAX_PARTIALS = 40
_MAX_VIBRATO = 20.0  # cents

_DESCR = """\
Synthetic notes
---------------
{n_clips} clips of one note each, in mono at {sample_rate} Hz, {shortest:.2f} to \
{longest:.2f} s long:
{n_pitches} pitches ({lowest} to {highest}, ``target``) played by {n_timbres} \
instruments (``timbre``).
Every instrument has its own spectral envelope, attack, decay and vibrato; every
note its own loudness, length, tuning (up to {detune:g} cents off) and noise."""


def __getattr__(name):
    if name in _WRITERS:
        from skaudioemb import task_data

        return getattr(task_data, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def make_notes(
    n_clips=120,
    *,
    pitches=_DEFAULT_PITCHES,
    n_timbres=6,
    duration=(0.3, 1.0),
    detune=40.0,
    noise=0.2,
    sample_rate=16000,
    return_X_y=False,
    random_state=None,
):
    """Make recordings of single notes, played by made-up instruments.

    A note is a sum of harmonics. Its instrument gives it a spectral envelope (slope,
    strength of the even harmonics, two resonances), an attack, a decay that is faster
    for higher harmonics, and a vibrato. Loudness varies by 30 dB from note to note.
    Pitches and timbres are balanced and drawn independently of each other, so that
    neither gives the other away.

    Parameters
    ----------
    n_clips : int, default=120
        Number of clips.
    pitches : sequence of int or str, default=(40, 41, ..., 51)
        The pitches to choose from: MIDI numbers (60 is middle C), or names such as
        ``"C4"``, ``"F#3"`` or ``"Bb2"``. The default goes from E2 to D#3,
        where neighbours lie closer than a mel band is wide.
    n_timbres : int, default=6
        Number of instruments.
    duration : float or tuple of (float, float), default=(0.3, 1.0)
        Length of a clip in seconds, or the range to draw it from.
    detune : float, default=40.0
        Largest deviation from the pitch to either side, in cents.
    noise : float, default=0.2
        Root mean square of the white noise relative to that of the note; 0.1 is a
        signal-to-noise ratio of 20 dB, 0 is none.
    sample_rate : int, default=16000
        Samples per second, in Hz.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.
    random_state : int, RandomState instance or None, default=None
        Determines instruments and notes. Pass an int for the same clips each time.

    Returns
    -------
    notes : Bunch
        data : list of n_clips ndarrays of shape (n_samples,), float32
            The clips, within [-1, 1].
        target : ndarray of shape (n_clips,), str
            Names of the pitches.
        target_names : list of str
            The names that occur, from low to high.
        midi : ndarray of shape (n_clips,), int
            The pitches as MIDI numbers.
        timbre : ndarray of shape (n_clips,), int
            Which instrument plays, from 0.
        sample_rate : int
            In Hz.
        DESCR : str
            Description of the set.
    (data, target) : tuple
        If ``return_X_y=True``.

    Raises
    ------
    ValueError
        If an argument is out of range, or a pitch lies too high for the sample rate.

    Examples
    --------
    >>> from skaudioemb.datasets import make_notes
    >>> notes = make_notes(n_clips=6, pitches=["A3", "C4"], random_state=0)
    >>> len(notes.data), notes.data[0].dtype
    (6, dtype('float32'))
    >>> notes.target
    array(['C4', 'A3', 'A3', 'C4', 'A3', 'C4'], dtype='<U2')
    >>> X, y = make_notes(n_clips=6, return_X_y=True, random_state=0)
    """
    duration = _check(n_clips, n_timbres, duration, detune, noise, sample_rate)
    midi_numbers = _check_pitches(pitches, detune, sample_rate)
    random = check_random_state(random_state)
    timbres = [_draw_timbre(random) for _ in range(n_timbres)]
    midi = random.permutation(np.resize(midi_numbers, n_clips))
    timbre = _spread_timbres(midi, n_timbres, random)
    data = []
    for pitch, player in zip(midi, timbre, strict=True):
        n_samples = max(1, round(random.uniform(*duration) * sample_rate))
        cents = random.uniform(-detune, detune)
        note = _Note(_frequency(pitch + cents / 100), n_samples, sample_rate)
        data.append(_record(note, timbres[player], noise, random))
    target = np.array([note_name(pitch) for pitch in midi])
    if return_X_y:
        return data, target
    names = [note_name(pitch) for pitch in np.unique(midi)]
    notes = Bunch(
        data=data,
        target=target,
        target_names=names,
        midi=midi,
        timbre=timbre,
        sample_rate=sample_rate,
    )
    return Bunch(**notes, DESCR=_describe(notes, n_timbres, detune))


def _describe(notes, n_timbres, detune):
    seconds = [len(clip) / notes.sample_rate for clip in notes.data]
    return _DESCR.format(
        n_clips=len(notes.data),
        sample_rate=notes.sample_rate,
        shortest=min(seconds),
        longest=max(seconds),
        n_pitches=len(notes.target_names),
        lowest=notes.target_names[0],
        highest=notes.target_names[-1],
        n_timbres=n_timbres,
        detune=detune,
    )


def note_name(midi):
    """Name a pitch.

    Parameters
    ----------
    midi : int
        MIDI number; 60 is middle C.

    Returns
    -------
    name : str

    Examples
    --------
    >>> from skaudioemb.datasets import note_name
    >>> note_name(69), note_name(61)
    ('A4', 'C#4')
    """
    octave, step = divmod(int(midi), 12)
    return f"{_NAMES[step]}{octave - 1}"


def note_number(name):
    """Give the MIDI number of a note's name.

    Parameters
    ----------
    name : str
        A letter, perhaps ``#`` or ``b``, and the octave.

    Returns
    -------
    midi : int

    Raises
    ------
    ValueError
        If it is no such name.

    Examples
    --------
    >>> from skaudioemb.datasets import note_number
    >>> note_number("A4"), note_number("Bb2")
    (69, 46)
    """
    match = re.fullmatch(r"([A-G])([#b]?)(-?\d+)", name)
    if match is None:
        raise ValueError(
            f"{name!r} is no pitch. Write a letter from A to G, # or b if needed, and "
            "the octave, as in 'C4' or 'F#3'."
        )
    letter, accidental, octave = match.groups()
    shift = {"": 0, "#": 1, "b": -1}[accidental]
    return 12 * (int(octave) + 1) + _NAMES.index(letter) + shift


class _Timbre(NamedTuple):
    """What an instrument sounds like; frequencies in Hz, times in seconds."""

    slope: float
    even: float
    resonances: tuple
    attack: float
    decay: float
    vibrato_rate: float
    vibrato_depth: float


class _Note(NamedTuple):
    """What is played: frequency in Hz, length in samples, samples per second."""

    frequency: float
    n_samples: int
    sample_rate: int


def _draw_timbre(random):
    resonances = tuple(
        (random.uniform(300, 3000), random.uniform(0.15, 0.5), random.uniform(1, 5))
        for _ in range(2)
    )
    return _Timbre(
        slope=random.uniform(0.6, 1.8),
        even=random.choice([0.15, 1.0]),
        resonances=resonances,
        attack=random.uniform(0.005, 0.08),
        decay=random.choice([0.3, 1.5, 5.0]),
        vibrato_rate=random.uniform(4.5, 6.5),
        vibrato_depth=random.choice([0.0, 8.0, _MAX_VIBRATO]),
    )


def _spread_timbres(midi, n_timbres, random):
    """Deal the timbres out within each pitch, as evenly as they go."""
    timbre = np.empty(len(midi), dtype=np.int64)
    for pitch in np.unique(midi):
        own = np.flatnonzero(midi == pitch)
        timbre[own] = np.resize(random.permutation(n_timbres), len(own))
    return timbre


def _record(note, timbre, noise, random):
    samples = _play(note, timbre, random)
    level = noise * np.sqrt(np.mean(samples**2))
    samples = samples + level * random.standard_normal(note.n_samples)
    peak = 10 ** (random.uniform(_QUIETEST_DB, 0.0) / 20)
    samples *= peak / max(np.abs(samples).max(), np.finfo(np.float32).tiny)
    return np.clip(samples.astype(np.float32), -1.0, 1.0)


def _play(note, timbre, random):
    times = np.arange(note.n_samples) / note.sample_rate
    cents = timbre.vibrato_depth * np.sin(
        2 * np.pi * (timbre.vibrato_rate * times + random.uniform())
    )
    frequency = note.frequency * 2 ** (cents / 1200)
    phase = 2 * np.pi * np.cumsum(frequency) / note.sample_rate
    samples = np.zeros(note.n_samples)
    for number in range(1, _MAX_PARTIALS + 1):
        # Beyond it a partial would fold back below half the sample rate.
        if number * frequency.max() >= note.sample_rate / 2:
            break
        gain = _gain(number, number * note.frequency, timbre)
        fading = np.exp(-timbre.decay * np.sqrt(number) * times)
        offset = random.uniform(0, 2 * np.pi)
        samples += gain * fading * np.sin(number * phase + offset)
    rise = np.minimum(1.0, (times + 1 / note.sample_rate) / timbre.attack)
    fall = np.minimum(1.0, (times[-1] - times + 1 / note.sample_rate) / 0.01)
    return samples * rise * fall


def _gain(number, frequency, timbre):
    gain = number**-timbre.slope * (timbre.even if number % 2 == 0 else 1.0)
    octaves = [
        (np.log2(frequency / centre) / width, boost)
        for centre, width, boost in timbre.resonances
    ]
    return gain * (1 + sum(b * np.exp(-0.5 * distance**2) for distance, b in octaves))


def _frequency(midi):
    return _A4_HZ * 2 ** ((midi - _A4_MIDI) / 12)


def _check(n_clips, n_timbres, duration, detune, noise, sample_rate):
    """Refuse what is out of range; return ``duration`` as (shortest, longest)."""
    counts = {"n_clips": n_clips, "n_timbres": n_timbres, "sample_rate": sample_rate}
    for name, value in counts.items():
        if value != int(value) or value < 1:
            raise ValueError(f"{name}={value!r} must be a whole number of at least 1.")
    for name, value in {"detune": detune, "noise": noise}.items():
        if not 0 <= value < np.inf:
            raise ValueError(f"{name}={value!r} must be 0 or a positive number.")
    bounds = (duration, duration) if isinstance(duration, Real) else tuple(duration)
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] < np.inf:
        raise ValueError(
            f"duration={duration!r} must be a positive number of seconds, or the "
            "shortest and the longest such as (0.3, 1.0)."
        )
    return bounds


def _check_pitches(pitches, detune, sample_rate):
    pitches = [pitches] if isinstance(pitches, str | Real) else list(pitches)
    numbers = [note_number(p) if isinstance(p, str) else p for p in pitches]
    if not numbers:
        raise ValueError("pitches is empty: name at least one.")
    if len(set(numbers)) < len(numbers) or any(n != int(n) for n in numbers):
        raise ValueError(
            f"pitches={pitches!r} must be whole MIDI numbers or names, each once."
        )
    highest = max(numbers) + (detune + _MAX_VIBRATO) / 100
    if _frequency(highest) >= sample_rate / 2:
        raise ValueError(
            f"pitches go up to {note_name(max(numbers))}, "
            f"{_frequency(max(numbers)):.0f} Hz, which sample_rate={sample_rate} Hz "
            "cannot hold: choose lower pitches or a higher rate."
        )
    return np.array(numbers, dtype=np.int64)
