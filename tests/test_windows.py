"""Summaries of clips that run in windows."""

import numpy as np
import pytest
import torch

from skaudioemb.encoders.huggingface.spec import HFAudioSpec
from skaudioemb.summaries import ALL, Collector, Kept, Reduced, Weighted
from skaudioemb.windows import summarise
from tests.hf_models import FAMILIES
from tests.speech_models import noise

LENGTHS = (16000, 16000, 16000)
SUMMARIES = [
    Reduced("max"),
    Reduced("max", 3),
    Reduced("max", 20, (0, 2)),
    Reduced("std"),
    Reduced("std", 4),
    Reduced("std", 7, (1, 2, 3)),
    Kept((1, 3)),
    Kept(ALL),
]


def assert_close(got, expected):
    np.testing.assert_allclose(
        got, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


def random_weights(n_frames):
    rng = np.random.default_rng(n_frames)
    return [Weighted(rng.random((n_groups, n_frames))) for n_groups in (1, 3)]


def constant_weights(n_frames):
    return [Weighted(np.full((1, n_frames), 1 / n_frames))]


@pytest.fixture(scope="module", params=["data2vec", "sew"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    FAMILIES[request.param](folder)
    return str(folder)


@torch.inference_mode()
def run(folder, max_seconds, waveforms, max_samples=10**9):
    """Return each clip's results, and the same computed from all of its frames."""
    spec = HFAudioSpec(folder, max_seconds=max_seconds)
    encoder = spec.load("cpu", torch.float32)
    n_frames = [spec.n_frames(len(waveform)) for waveform in waveforms]
    wanted = [[*SUMMARIES, *random_weights(n), *constant_weights(n)] for n in n_frames]
    results = summarise(encoder, spec, waveforms, wanted, max_samples)
    expected = []
    for result, own, count in zip(results, wanted, n_frames, strict=True):
        layers = np.split(result[Kept(ALL).name], spec.n_layers, axis=1)
        collector = Collector([count], [own], spec.n_layers)
        for layer, frames in enumerate(layers):
            collector.add(layer, torch.from_numpy(frames))
        expected += collector.results()
    return results, expected


@pytest.mark.parametrize("max_seconds", [None, 0.25, 0.1])
@pytest.mark.parametrize("max_samples", [1, 9000, 10**9])
def test_windows_are_put_together(folder, max_seconds, max_samples):
    waveforms = noise(*LENGTHS)
    results, expected = run(folder, max_seconds, waveforms, max_samples)
    for result, summaries in zip(results, expected, strict=True):
        assert result.keys() == summaries.keys()
        for name, values in summaries.items():
            assert result[name].dtype == np.float32
            assert_close(result[name], values)


def test_frames_do_not_depend_on_the_batch_of_windows(folder):
    together, _ = run(folder, 0.1, noise(*LENGTHS))
    alone, _ = run(folder, 0.1, noise(*LENGTHS), max_samples=1)
    for a, b in zip(together, alone, strict=True):
        name = Kept(ALL).name
        assert_close(a[name], b[name])


@pytest.mark.parametrize("n_samples", [720, 2000, 7999, 8000, 16001, 40000])
def test_windows_cover_every_frame_once(folder, n_samples):
    whole = HFAudioSpec(folder)
    cut = HFAudioSpec(folder, max_seconds=0.1)
    windows = cut.windows(n_samples)
    assert len({window.stop - window.start for window in windows}) == 1
    assert all(0 <= w.start < w.stop <= n_samples for w in windows)
    assert max(w.stop - w.start for w in windows) < 0.1 * 16000 + 2 * whole.min_samples
    assert cut.n_frames(n_samples) == whole.n_frames(n_samples)
    np.testing.assert_allclose(cut.times_of(n_samples), whole.times_of(n_samples))
