"""The torch side of wav2vec 2.0, HuBERT and WavLM.

Golden vectors of stock transformers are in golden/fusion; the embedders on top are
tested in test_common.py.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from skaudioemb.encoders import conv_stem, packed, ragged
from skaudioemb.encoders.wav2vec2 import Wav2Vec2Spec, standardised
from tests.speech_models import (
    BASE_LIKE,
    LARGE_LIKE,
    MODELS,
    layers_of,
    noise,
    stock_layers,
)

GOLDEN = Path(__file__).parent / "golden" / "fusion"
CHECKPOINTS = (
    "wav2vec2-large-like",
    "hubert-xlarge-like",
    "hubert-large-like",
    "wav2vec2-base-like",
    "hubert-base-like",
)
SCALINGS = {"raw": "none", "norm": "zero-mean-unit-var"}
SETS = {
    "A": ("n16000", "n23456", "n08000", "n12345"),
    "B": ("n08000", "n05000"),
    "C": ("n01600", "n00400"),
    "D": (
        *("n23456", "n16080", "n16000", "n12345"),
        *("n08000", "n05000", "n01600", "n00400"),
    ),
    "E": ("n05000", "n01600", "n05000", "n16000"),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads cost tiny networks more than they give."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def clips():
    with np.load(GOLDEN / "clips.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def hidden_states():
    with np.load(GOLDEN / "hidden_states.npz") as file:
        return {name: file[name] for name in file.files}


def golden_spec(checkpoint, scaling="none"):
    return Wav2Vec2Spec(
        str(GOLDEN / "checkpoints" / checkpoint),
        normalize=scaling,
        architecture=checkpoint.split("-")[0],
    )


@pytest.mark.parametrize("mode", SCALINGS)
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_golden_hidden_states(checkpoint, mode, clips, hidden_states):
    results = layers_of(golden_spec(checkpoint, SCALINGS[mode]), list(clips.values()))
    for name, result in zip(clips, results, strict=True):
        prefix = f"{checkpoint}/{mode}/{name}"
        expected = hidden_states[f"{prefix}/hidden_states"]
        np.testing.assert_allclose(result, expected, rtol=0, atol=2e-4)
        np.testing.assert_allclose(
            result[-1], hidden_states[f"{prefix}/last_hidden_state"], rtol=0, atol=2e-4
        )
        np.testing.assert_allclose(result.mean(0), expected.mean(0), rtol=0, atol=2e-4)


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("names", SETS.values(), ids=SETS)
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_a_clip_does_not_depend_on_its_batch(checkpoint, names, is_reversed, clips):
    spec = golden_spec(checkpoint, "zero-mean-unit-var")
    names = names[::-1] if is_reversed else names
    together = layers_of(spec, [clips[name] for name in names])
    for name, result in zip(names, together, strict=True):
        (alone,) = layers_of(spec, [clips[name]])
        scale = np.abs(alone).max()
        np.testing.assert_allclose(result, alone, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("kind", [BASE_LIKE, LARGE_LIKE], ids=["base", "large"])
@pytest.mark.parametrize("architecture", MODELS)
def test_equals_stock_transformers(architecture, kind, save_model):
    folder, model = save_model(architecture, **kind)
    waveforms = noise(400, 30000, 16000, 16000, 5000)
    spec = Wav2Vec2Spec(str(folder), normalize="none", architecture=architecture)
    for waveform, result in zip(waveforms, layers_of(spec, waveforms), strict=True):
        expected = stock_layers(model, waveform)
        atol = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(result, expected, rtol=0, atol=atol)


def test_wavlm_bias_in_blocks_of_queries(save_model, monkeypatch):
    # Longer than 800 frames, beyond which the bias stays the same.
    (waveform,) = noise(320 * 1000)
    folder, model = save_model("wavlm", **BASE_LIKE)
    monkeypatch.setattr(ragged, "BIAS_ELEMENTS", 4 * 1000 * 77)
    spec = Wav2Vec2Spec(str(folder), architecture="wavlm")
    (result,) = layers_of(spec, [waveform])
    expected = stock_layers(model, waveform)
    atol = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(result, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("hubert", {"feat_proj_layer_norm": False, "conv_pos_batch_norm": True}),
        ("wav2vec2", {"adapter_attn_dim": 5, **LARGE_LIKE}),
        ("wav2vec2", {"num_conv_pos_embeddings": 15, "hidden_act": "relu"}),
        (
            "wav2vec2",
            {
                "conv_dim": (8, 12, 16),
                "conv_kernel": (8, 4, 3),
                "conv_stride": (4, 3, 1),
            },
        ),
    ],
    ids=["hubert-options", "attention-adapter", "odd-kernel", "other-convolutions"],
)
def test_unusual_configurations(architecture, settings, save_model):
    folder, model = save_model(architecture, **settings)
    waveforms = noise(3001, 2000, 2000)
    spec = Wav2Vec2Spec(str(folder), normalize="none", architecture=architecture)
    for waveform, result in zip(waveforms, layers_of(spec, waveforms), strict=True):
        expected = stock_layers(model, waveform)
        atol = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(result, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("kind", [BASE_LIKE, LARGE_LIKE], ids=["base", "large"])
def test_chunks_along_time_change_nothing(kind, save_model, monkeypatch):
    folder, _ = save_model("wav2vec2", **kind)
    waveforms = noise(40000, 400, 7000, 7000)
    spec = Wav2Vec2Spec(str(folder))
    whole = layers_of(spec, waveforms)
    monkeypatch.setitem(conv_stem.CHUNK_FRAMES, "cpu", 7)
    monkeypatch.setattr(conv_stem, "_MOMENT_WINDOWS", 11)
    monkeypatch.setitem(ragged.FEED_FORWARD_FRAMES, "cpu", 5)
    for result, expected in zip(layers_of(spec, waveforms), whole, strict=True):
        atol = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(result, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("is_packed", [True, False])
def test_packed_and_plain_products_agree(is_packed, clips, hidden_states, monkeypatch):
    if is_packed and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(packed, "packing_pays", lambda dtype: is_packed)
    spec = golden_spec("wav2vec2-base-like")
    (result,) = layers_of(spec, [clips["n16000"]])
    expected = hidden_states["wav2vec2-base-like/raw/n16000/hidden_states"]
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-4)


def test_packing_is_refused_where_the_operator_is_missing(monkeypatch):
    def missing(weight):
        raise AttributeError("no such operator")

    monkeypatch.setattr(packed, "_pack", missing)
    assert packed.packing_pays.__wrapped__(torch.float32) is False


# Networks of 16 features average out less rounding than real ones; stock transformers
# in bfloat16 comes as close.
@pytest.mark.parametrize(
    ("dtype", "least"), [(torch.bfloat16, 0.997), (torch.float16, 0.9999)]
)
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_half_precision_is_close(checkpoint, dtype, least, clips):
    waveforms = [clips[name] for name in SETS["A"]]
    spec = golden_spec(checkpoint, "zero-mean-unit-var")
    exact = layers_of(spec, waveforms)
    for result, expected in zip(layers_of(spec, waveforms, dtype), exact, strict=True):
        pooled = [np.mean(layers, axis=1) for layers in (result, expected)]
        cosine = np.sum(pooled[0] * pooled[1], axis=1) / np.prod(
            [np.linalg.norm(vectors, axis=1) for vectors in pooled], axis=0
        )
        assert cosine.min() > least


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_golden_hidden_states_on_cuda(checkpoint, clips, hidden_states):
    spec = golden_spec(checkpoint)
    results = layers_of(spec, list(clips.values()), device="cuda")
    for name, result in zip(clips, results, strict=True):
        expected = hidden_states[f"{checkpoint}/raw/{name}/hidden_states"]
        np.testing.assert_allclose(result, expected, rtol=0, atol=2e-4)


def test_yielded_frames_stay_as_they_were(clips):
    encoder = golden_spec("hubert-large-like").load(torch.device("cpu"), torch.float32)
    kept = []
    for _, frames in encoder([clips["n05000"], clips["n08000"]]):
        assert not frames.requires_grad
        kept.append((frames, frames.clone()))
    for frames, copy in kept:
        assert torch.equal(frames, copy)


def test_a_silent_clip_is_finite(save_model):
    for kind in (BASE_LIKE, LARGE_LIKE):
        folder, model = save_model("wav2vec2", **kind)
        spec = Wav2Vec2Spec(str(folder), normalize="zero-mean-unit-var")
        (result,) = layers_of(spec, [torch.zeros(4000)])
        expected = stock_layers(model, torch.zeros(4000))
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)


def test_standardised(clips):
    with np.load(GOLDEN / "clips_normalized.npz") as file:
        for name, clip in clips.items():
            result = standardised(clip)
            assert result.dtype == torch.float32
            np.testing.assert_allclose(result, file[name], rtol=0, atol=5e-6)


def test_frames_and_times():
    spec = golden_spec("wav2vec2-base-like")
    assert (spec.sample_rate, spec.min_samples, spec.hop_samples) == (16000, 400, 320)
    assert (spec.n_features, spec.n_layers) == (16, 3)
    lengths = [1, 400, 719, 720, 16000, 16080, 160000]
    assert [spec.n_frames(n) for n in lengths] == [1, 1, 1, 2, 49, 50, 499]
    np.testing.assert_allclose(spec.frame_times(3), [0.0125, 0.0325, 0.0525])


def test_receptive_field_of_other_convolutions(save_model):
    convolutions = {"conv_kernel": (8, 4, 3), "conv_stride": (4, 3, 1)}
    folder, model = save_model("wav2vec2", conv_dim=(8, 8, 8), **convolutions)
    spec = Wav2Vec2Spec(str(folder))
    assert spec.hop_samples == 12
    for length in range(spec.min_samples, spec.min_samples + 30):
        n_frames = int(model._get_feat_extract_output_lengths(length))
        assert spec.n_frames(length) == n_frames
