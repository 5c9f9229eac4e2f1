"""HFAudioModel on speech transformers that transformers' own code runs."""

import numpy as np
import pytest
import torch

from skaudioemb import CREPE, Fusion, HFAudioModel, devices
from skaudioemb.encoders.huggingface.spec import HFAudioSpec
from skaudioemb.encoders.wav2vec2 import standardised
from tests.hf_models import FAMILIES
from tests.speech_models import layers_of, noise, stock_layers

KINDS = ("data2vec", "conformer", "sew", "sew-d")
LENGTHS = (720, 999, 5000, 5001, 9000, 9000, 16000)


@pytest.fixture(scope="module", params=KINDS)
def saved(request, tmp_path_factory):
    """The kind, a folder, and the model that was saved there."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, FAMILIES[request.param](folder)


def stock_frames(kind, model, clip):
    """Return (n_layers, n_frames, n_features) of stock transformers."""
    if not kind.startswith("sew"):
        return stock_layers(model, standardised(clip))
    with torch.inference_mode():
        output = model(standardised(clip)[None], output_hidden_states=True)
    # Within the blocks, frames come at half the rate.
    n_frames = 2 * output.hidden_states[0].shape[1]
    inner = [h[0].repeat_interleave(2, dim=0) for h in output.hidden_states[:-1]]
    return torch.stack([*inner, output.last_hidden_state[0, :n_frames]]).numpy()


def test_equals_stock_transformers(saved):
    kind, folder, model = saved
    spec = HFAudioSpec(str(folder))
    assert (spec.sample_rate, spec.n_features, spec.n_layers) == (16000, 24, 4)
    for length in LENGTHS:
        (clip,) = noise(length, seed=length)
        (result,) = layers_of(spec, [clip])
        expected = stock_frames(kind, model, clip)
        np.testing.assert_allclose(result, expected, rtol=0, atol=2e-5)


def test_last_layer_of_sew_is_never_the_padding(saved):
    kind, folder, model = saved
    if not kind.startswith("sew"):
        return
    # 49 frames of the stem: the model completes its 48 with zeros.
    with torch.inference_mode():
        output = model(noise(16000)[0][None]).last_hidden_state[0]
    assert output.shape[0] == 49
    assert (output[-1] == 0).all()
    assert HFAudioSpec(str(folder)).n_frames(16000) == 48


@pytest.mark.parametrize("batch_seconds", [60.0, 0.5])
def test_a_clip_does_not_depend_on_its_batch(saved, batch_seconds):
    embedder = HFAudioModel(saved[1], layers="all", batch_seconds=batch_seconds)
    clips = [clip.numpy() for clip in noise(*LENGTHS)]
    alone = np.concatenate([embedder.transform([clip]) for clip in clips])
    for order in (clips, clips[::-1]):
        together = embedder.transform(order)
        expected = alone if order is clips else alone[::-1]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(together, expected, rtol=0, atol=1e-5 * scale)


def test_only_equal_lengths_run_together(saved, monkeypatch):
    spec = HFAudioSpec(str(saved[1]))
    encoder = devices.load_encoder(spec, torch.device("cpu"), "float32")
    shapes = []
    run = encoder.family.run

    def watched(model, waveforms):
        shapes.append([len(waveform) for waveform in waveforms])
        return run(model, waveforms)

    monkeypatch.setattr(encoder.family, "run", watched)
    HFAudioModel(saved[1], max_seconds=None).transform(
        [clip.numpy() for clip in noise(5000, 9000, 5000)]
    )
    assert shapes == [[9000], [5000, 5000]]


def test_bfloat16_is_close(saved):
    clips = [clip.numpy() for clip in noise(*LENGTHS)]
    exact = HFAudioModel(saved[1]).transform(clips)
    half = HFAudioModel(saved[1], dtype="bfloat16").transform(clips)
    assert half.dtype == np.float32
    cosine = (half * exact).sum(1) / np.linalg.norm(half, axis=1)
    assert (cosine / np.linalg.norm(exact, axis=1) > 0.99).all()
    assert not np.array_equal(half, exact)


def test_times_are_centres(saved):
    """Turning samples around changes the frames around them most."""
    kind, folder, _ = saved
    spec = HFAudioSpec(str(folder))
    clips = noise(16000, 16000)
    clips[1] = clips[0].clone()
    clips[1][8000:8100] *= -1.0
    first = layers_of(spec, clips[:1])[0][0]
    turned = layers_of(spec, clips[1:])[0][0]
    distance = np.abs(first - turned).sum(axis=1)
    time = spec.times_of(16000)[distance.argmax()]
    assert abs(time - 8050 / 16000) < (0.04 if kind.startswith("sew") else 0.02)


@pytest.mark.parametrize("n_samples", [1, 100, 199, 201, 400, 719])
def test_times_of_padded_clips_increase(saved, n_samples):
    crepe, clip = CREPE("tiny", hop=0.02), noise(n_samples)[0].numpy()
    embedder = HFAudioModel(saved[1])
    (frames,) = embedder.frames([clip])
    assert (np.diff(frames.times) > 0).all()
    assert 0 <= frames.times[0] <= frames.times[-1] <= n_samples / 16000
    fusion = Fusion([("crepe", crepe), ("model", embedder)], reference="model")
    scene = fusion.fit_transform([clip])[0]
    expected = fusion.frames([clip])[0].values.mean(axis=0)
    np.testing.assert_allclose(scene, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["data2vec", "sew", "parakeet"])
def test_windows_hold_what_the_model_needs(kind, tmp_path):
    FAMILIES[kind](tmp_path)
    embedder = HFAudioModel(tmp_path, max_seconds=0.001)
    clips = [clip.numpy() for clip in noise(2600, 4000, 9001)]
    for clip, scene in zip(clips, embedder.fit_transform(clips), strict=True):
        assert np.isfinite(scene).all()
        whole = HFAudioModel(tmp_path).frames([clip])[0]
        np.testing.assert_allclose(embedder.frames([clip])[0].times, whole.times)
