import math
import sys

import numpy as np
import pytest
import torch

from skaudioemb import resampling
from skaudioemb.audio import (
    AudioError,
    Waveform,
    import_torchaudio,
    n_resampled,
    resample,
)


def tone(hertz, rate, seconds=0.5):
    times = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * hertz * times)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-0.7, 0.7, shape).astype(np.float32)


RATES = [
    (44100, 16000),
    (48000, 16000),
    (8000, 16000),
    (11025, 16000),
    (22050, 16000),
    (96000, 16000),
    (16000, 48000),
    (44100, 48000),
    (22254, 16000),
    (12345, 16000),
]


@pytest.mark.parametrize(("source", "target"), RATES)
def test_tones_below_both_limits_are_kept(source, target):
    hertz = 0.4 * min(source, target)
    found = resample(Waveform(tone(hertz, source).astype("f4"), source), target)
    expected = tone(hertz, target)[: len(found)]
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    middle = slice(len(found) // 4, -len(found) // 4)
    error = found[middle] - expected[middle]
    assert np.linalg.norm(error) < 1e-4 * np.linalg.norm(expected[middle])  # 80 dB


@pytest.mark.parametrize(("source", "target"), [r for r in RATES if r[0] > r[1]])
def test_tones_above_the_limit_are_removed(source, target):
    hertz = 0.53 * target
    found = resample(Waveform(tone(hertz, source).astype("f4"), source), target)
    middle = found[len(found) // 4 : -len(found) // 4]
    assert np.abs(middle).max() < 0.5e-4


@pytest.mark.parametrize("n_samples", [1, 2, 17, 440, 441, 442, 30_000])
@pytest.mark.parametrize(("source", "target"), [*RATES, (16000, 16000)])
def test_lengths_are_exact(source, target, n_samples):
    found = resample(Waveform(noise(n_samples), source), target)
    assert len(found) == n_resampled(n_samples, source, target)
    assert len(found) == math.ceil(n_samples * target / source)


@pytest.mark.parametrize(("source", "target"), [(44100, 16000), (16000, 22050)])
def test_chunks_join_without_a_seam(source, target, monkeypatch):
    waveform = Waveform(noise(30_000), source)
    whole = resample(waveform, target)
    monkeypatch.setattr(resampling, "CHUNK", 5000)
    np.testing.assert_allclose(resample(waveform, target), whole, atol=2e-6)


def test_the_filter_is_that_of_torchaudio():
    samples = noise(50_000)
    expected = import_torchaudio().transforms.Resample(
        44100,
        16000,
        resampling_method="sinc_interp_kaiser",
        lowpass_filter_width=64,
        rolloff=0.9475937167399596,
        beta=14.769656459379492,
    )(torch.from_numpy(samples))
    found = resample(Waveform(samples, 44100), 16000)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_rates_without_a_common_divisor_use_the_same_filter(monkeypatch):
    waveform = Waveform(noise(50_000), 44100)
    expected = resample(waveform, 16000)
    monkeypatch.setattr(resampling, "MAX_KERNEL", 0)
    np.testing.assert_allclose(resample(waveform, 16000), expected, atol=2e-5)


def test_equal_rates_change_nothing():
    samples = noise(100)
    assert resample(Waveform(samples, 8000), 8000) is samples


@pytest.mark.parametrize("rate", [0, -8000, 44100.5, "8000"])
def test_resampling_needs_whole_rates(rate):
    with pytest.raises(AudioError, match="must be a positive whole number of Hz"):
        resample(Waveform(noise(10), 16000), rate)


def test_import_torchaudio_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(ImportError) as caught:
        import_torchaudio()
    message = str(caught.value)
    assert f"torch: {torch.__version__.split('+')[0]}" in message
    assert 'pip install "torch>=2.11,<2.15" "torchaudio>=2.11,<2.12"' in message
