"""The log-mel encoder against torchaudio's spectrogram of one clip at a time."""

import numpy as np
import pytest
import torch
import torchaudio

from skaudioemb import LogMel
from skaudioemb.encoders import logmel


@pytest.mark.parametrize(
    "params", [{}, {"n_mels": 20, "window": 0.025, "hop": 0.02, "f_min": 100.0}]
)
def test_equals_torchaudio(clips, params, monkeypatch):
    monkeypatch.setattr(logmel, "CHUNK", 30)
    embedder = LogMel(**params)
    spec = embedder._make_spec()
    reference = torchaudio.transforms.MelSpectrogram(
        16000,
        n_fft=spec.window_samples,
        hop_length=spec.hop_samples,
        f_min=spec.f_min,
        f_max=spec.f_max,
        n_mels=spec.n_mels,
        pad_mode="constant",
    )
    for clip, frames in zip(clips, embedder.frames(clips), strict=True):
        expected = torch.log(reference(torch.from_numpy(clip)).T + 2**-23).numpy()
        np.testing.assert_allclose(frames.values, expected, rtol=0, atol=2e-4)
        np.testing.assert_allclose(
            frames.times, np.arange(len(expected)) * spec.hop_samples / 16000
        )


def test_silence_is_finite():
    assert np.isfinite(LogMel().transform([np.zeros(1000)])).all()


def test_edges_in_the_wrong_order(clips):
    with pytest.raises(ValueError, match=r"f_min=5000\.0 is not below f_max=4000\.0"):
        LogMel(f_min=5000.0, f_max=4000.0).fit(clips)
