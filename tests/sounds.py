"""Sounds, and what loading them gives."""

import numpy as np
import pytest

from skaudioemb.audio import (
    AudioError,
    describe,
    load,
)

RATE = 16000


def tone(hertz, rate, seconds=0.5):
    times = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * hertz * times)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-0.7, 0.7, shape).astype(np.float32)


def same(waveform, samples, rate=RATE):
    assert waveform.rate == rate
    assert isinstance(waveform.rate, int)
    assert waveform.samples.dtype == np.float32
    assert waveform.samples.ndim == 1
    assert waveform.samples.flags.c_contiguous
    assert waveform.samples.flags.writeable
    np.testing.assert_array_equal(waveform.samples, np.asarray(samples, np.float32))
    return True


def reason_of(clip, sample_rate=RATE):
    with pytest.raises(AudioError) as caught:
        load(clip, sample_rate)
    message = str(caught.value)
    assert message.startswith(describe(clip) + ": ")
    assert message.endswith(".")
    return message
