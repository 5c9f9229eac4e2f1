"""The synthetic notes: their form, their pitches, and how hard they are."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skaudioemb import LogMel
from skaudioemb.datasets import make_notes, note_name, note_number


def cents_off(clip, midi, sample_rate):
    """Return the deviation whose harmonics hold the most power, in cents."""
    candidates = np.arange(-300, 301, 2)
    frequencies = 440 * 2 ** ((midi - 69 + candidates / 100) / 12)
    n_bins = 2**18
    spectrum = np.abs(np.fft.rfft(clip * np.hanning(len(clip)), n_bins)) ** 2
    bins = np.outer(np.arange(1, 9), frequencies) * n_bins / sample_rate
    power = spectrum[bins.round().astype(int)].sum(axis=0)
    return candidates[power.argmax()]


def test_form():
    notes = make_notes(n_clips=30, n_timbres=4, duration=(0.2, 0.5), random_state=0)
    assert all(clip.dtype == np.float32 and clip.ndim == 1 for clip in notes.data)
    lengths = np.array([len(clip) for clip in notes.data])
    assert lengths.min() >= 3200
    assert lengths.max() <= 8000
    assert len(np.unique(lengths)) > 20
    assert len(notes.data) == len(notes.target) == len(notes.timbre) == 30
    assert [note_name(midi) for midi in notes.midi] == list(notes.target)
    assert notes.sample_rate == 16000
    assert "30 clips" in notes.DESCR


def test_clips_stay_within_one_and_differ_in_loudness():
    notes = make_notes(n_clips=60, noise=0.5, random_state=1)
    peaks = np.array([np.abs(clip).max() for clip in notes.data])
    assert peaks.max() <= 1
    assert 20 * np.log10(peaks.max() / peaks.min()) > 15


def test_pitches_and_timbres_are_balanced_and_crossed():
    notes = make_notes(n_clips=72, pitches=range(60, 72), n_timbres=3, random_state=0)
    pairs = list(zip(notes.midi, notes.timbre, strict=True))
    assert {pairs.count(pair) for pair in pairs} == {2}
    assert len(set(pairs)) == 36


@pytest.mark.parametrize("sample_rate", [16000, 22050])
def test_notes_sound_at_their_pitch(sample_rate):
    notes = make_notes(
        n_clips=24, detune=30, noise=0, sample_rate=sample_rate, random_state=0
    )
    pairs = zip(notes.data, notes.midi, strict=True)
    cents = np.array([cents_off(clip, midi, sample_rate) for clip, midi in pairs])
    # The detuning, and the part of a vibrato that a short note has room for.
    assert np.abs(cents).max() <= 30 + 20
    assert cents.std() > 10


def test_noise_is_a_ratio():
    quiet, noisy = (
        make_notes(
            1, pitches=[40], n_timbres=1, duration=1.0, noise=noise, random_state=3
        ).data[0]
        for noise in (0.0, 1.0)
    )
    # Above the highest partial there is nothing but the noise.
    spectra = [np.abs(np.fft.rfft(clip))[6000:] for clip in (quiet, noisy)]
    assert (spectra[1] ** 2).mean() > 100 * (spectra[0] ** 2).mean()


def test_random_state():
    first, again, other = (make_notes(8, random_state=seed) for seed in (5, 5, 6))
    for a, b in zip(first.data, again.data, strict=True):
        np.testing.assert_array_equal(a, b)
    assert list(first.target) == list(again.target)
    assert any(
        len(a) != len(b) or (a != b).any()
        for a, b in zip(first.data, other.data, strict=True)
    )
    state = np.random.RandomState(5)
    np.testing.assert_array_equal(
        make_notes(8, random_state=state).data[0], first.data[0]
    )


def test_return_X_y():
    X, y = make_notes(5, return_X_y=True, random_state=0)
    notes = make_notes(5, random_state=0)
    assert all((a == b).all() for a, b in zip(X, notes.data, strict=True))
    assert list(y) == list(notes.target)


def test_names_of_pitches():
    notes = make_notes(4, pitches=["F#3", "Bb2"], random_state=0)
    assert notes.target_names == ["A#2", "F#3"]
    assert set(notes.midi) == {46, 54}
    assert [note_number(note_name(midi)) for midi in range(128)] == list(range(128))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_clips": 0}, "n_clips=0 must be a whole number"),
        ({"n_timbres": 1.5}, "n_timbres=1.5 must be a whole number"),
        ({"duration": (1.0, 0.5)}, "duration=.* must be a positive number of sec"),
        ({"duration": 0.0}, "duration=0.0 must be a positive number"),
        ({"detune": -1}, "detune=-1 must be 0 or a positive"),
        ({"noise": np.nan}, "noise=nan must be 0 or a positive"),
        ({"pitches": []}, "pitches is empty"),
        ({"pitches": [60, "C4"]}, "each once"),
        ({"pitches": [60.5]}, "whole MIDI numbers"),
        ({"pitches": ["H4"]}, "'H4' is no pitch"),
        ({"pitches": [120]}, "pitches go up to C9, 8372 Hz"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_notes(**arguments)


def test_log_mel_statistics_find_some_pitches_but_not_all():
    X, y = make_notes(120, return_X_y=True, random_state=0)
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    score = cross_val_score(linear, LogMel().fit_transform(X), y, cv=3).mean()
    assert 0.3 < score < 0.9
