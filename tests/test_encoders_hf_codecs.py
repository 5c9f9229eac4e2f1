"""HFAudioModel on codecs: EnCodec, DAC and Mimi before quantisation."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoFeatureExtractor

from skaudioemb import HFAudioModel
from skaudioemb.encoders.huggingface.spec import HFAudioSpec
from tests.hf_models import FAMILIES
from tests.speech_models import layers_of, noise

HOPS = {"encodec": 160, "encodec-stereo": 160, "dac": 80, "mimi": 320}
RATES = {"encodec": 24000, "encodec-stereo": 48000, "dac": 16000, "mimi": 24000}
# Whole numbers of frames, one sample more or less, and the chunk of the stereo model.
LENGTHS = (320, 321, 640, 3999, 4000, 4001, 4800)


@pytest.fixture(scope="module", params=HOPS)
def saved(request, tmp_path_factory):
    """The kind, a folder, and the model that was saved there."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, FAMILIES[request.param](folder)


class Quantised(Exception):
    """Carries what a model hands to its quantiser."""


@torch.inference_mode()
def stock_frames(kind, folder, model, clip):
    """Return what stock transformers quantises, (n_frames, n_features)."""

    def catch(embeddings, *_):
        raise Quantised(embeddings)

    if kind == "dac":
        extractor = AutoFeatureExtractor.from_pretrained(folder)
        inputs = extractor(clip.numpy(), sampling_rate=16000, return_tensors="pt")
        batch = inputs["input_values"]
    else:
        batch = clip.expand(1, model.config.audio_channels, -1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.quantizer, "forward" if kind == "dac" else "encode", catch)
        with pytest.raises(Quantised) as caught:
            model.encode(batch)
    return caught.value.args[0][0].T.numpy()


def close(result, expected, tolerance=1e-5):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance * scale)


def test_equals_stock_transformers(saved):
    kind, folder, model = saved
    spec = HFAudioSpec(str(folder))
    assert (spec.sample_rate, spec.n_features) == (
        RATES[kind],
        model.config.hidden_size,
    )
    assert spec.n_layers == 1
    for length in LENGTHS:
        (clip,) = noise(length, seed=length)
        (result,) = layers_of(spec, [clip])
        close(result[0], stock_frames(kind, folder, model, clip))


def test_frames_of_every_length(saved):
    kind, folder, model = saved
    spec, hop = HFAudioSpec(str(folder)), HOPS[kind]
    assert spec.min_samples == hop
    for length in (*range(hop, 2 * hop + 2, 7), 3 * hop - 1, 3 * hop, 3 * hop + 1):
        n_frames = len(stock_frames(kind, folder, model, torch.zeros(length)))
        assert spec.n_frames(length) == n_frames
        times = spec.times_of(length)
        expected = (np.arange(n_frames) + 0.5) * hop / RATES[kind]
        np.testing.assert_allclose(times, expected, rtol=1e-12)


def test_times_are_centres(saved):
    """Turning samples around changes the frames around them, causally or not."""
    kind, folder, _ = saved
    spec, hop = HFAudioSpec(str(folder)), HOPS[kind]
    first = noise(4800)[0]
    turned = first.clone()
    turned[2080:2120] *= -1.0
    results = [layers_of(spec, [clip])[0][0] for clip in (first, turned)]
    distance = np.abs(results[0] - results[1]).sum(axis=1)
    if kind in ("encodec", "mimi"):
        assert np.flatnonzero(distance)[0] == 2080 // hop
    else:
        time = spec.times_of(4800)[distance.argmax()]
        assert abs(time - 2100 / RATES[kind]) < 2.5 * hop / RATES[kind]


@pytest.mark.parametrize("batch_seconds", [60.0, 0.5])
def test_a_clip_does_not_depend_on_its_batch(saved, batch_seconds):
    kind, folder, _ = saved
    embedder = HFAudioModel(
        folder, pooling="max", batch_seconds=batch_seconds, sample_rate=RATES[kind]
    )
    clips = [clip.numpy() for clip in noise(1, 200, 5000, 5001, 9000, 9000, 9600)]
    alone = np.concatenate([embedder.transform([clip]) for clip in clips])
    close(embedder.transform(clips), alone)
    close(embedder.transform(clips[::-1]), alone[::-1])


def test_pieces_of_long_clips(saved):
    """Pieces are encoded by themselves, are equally long, and give every frame."""
    kind, folder, model = saved
    rate, hop = RATES[kind], HOPS[kind]
    # 4800 samples, as long as a chunk of the stereo model.
    spec = HFAudioSpec(str(folder), max_seconds=4800 / rate)
    (clip,) = noise(4800 * 2 + 4 * hop - 1)
    embedder = HFAudioModel(folder, max_seconds=4800 / rate, sample_rate=rate)
    values, times = embedder.frames([clip.numpy()])[0]
    n_frames = len(stock_frames(kind, folder, model, torch.zeros(len(clip) % 4800)))
    n_frames += 2 * 4800 // hop
    assert len(values) == len(times) == spec.n_frames(len(clip)) == n_frames
    np.testing.assert_allclose(np.diff(times), hop / rate, rtol=1e-9)
    rows = []
    for start, stop, skip in spec.windows(len(clip)):
        assert start % hop == 0
        assert stop - start <= 4800
        rows.append(stock_frames(kind, folder, model, clip[start:stop])[skip:])
    assert len(rows) == 3
    close(values, np.concatenate(rows))
    # Summaries put together from pieces are those of the frames.
    for pooling, expected in (("mean", values.mean(0)), ("max", values.max(0))):
        scene = embedder.set_params(pooling=pooling).transform([clip.numpy()])[0]
        close(scene, expected)


def test_mono_on_both_channels_at_its_own_scale(tmp_path):
    FAMILIES["encodec-stereo"](tmp_path)
    (clip,) = noise(4000)
    embedder = HFAudioModel(tmp_path, sample_rate=48000)
    loud, quiet = embedder.transform([clip.numpy(), 0.01 * clip.numpy()])
    close(quiet, loud, 1e-4)


def test_silent_and_short_clips(saved):
    kind, folder, _ = saved
    embedder = HFAudioModel(folder, sample_rate=RATES[kind])
    clips = [np.zeros(4000, np.float32), np.full(1, 0.5, np.float32)]
    assert np.isfinite(embedder.transform(clips)).all()
    assert len(embedder.frames(clips)[1].values) == 1


def test_bfloat16_is_close(saved):
    kind, folder, _ = saved
    clips = [clip.numpy() for clip in noise(3000, 4800)]
    exact = HFAudioModel(folder, sample_rate=RATES[kind]).transform(clips)
    half = HFAudioModel(folder, sample_rate=RATES[kind], dtype="bfloat16")
    half = half.transform(clips)
    assert half.dtype == np.float32
    cosine = (half * exact).sum(1) / np.linalg.norm(half, axis=1)
    assert (cosine / np.linalg.norm(exact, axis=1) > 0.99).all()
    assert not np.array_equal(half, exact)


def test_stored_embeddings(saved, tmp_path, counted):
    kind, folder, _ = saved
    clips = [clip.numpy() for clip in noise(3000, 4800)]
    settings = {"sample_rate": RATES[kind], "memory": tmp_path}
    first = HFAudioModel(folder, **settings).transform(clips)
    assert counted().run == 2
    again = HFAudioModel(folder, **settings).transform(clips)
    assert counted().run == 0
    np.testing.assert_array_equal(again, first)


def test_a_decoder_may_be_missing(saved, tmp_path):
    kind, folder, model = saved
    model.config.save_pretrained(tmp_path)
    kept = ("encoder.", "encoder_transformer.", "downsample.")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {key: value for key, value in weights.items() if key.startswith(kept)},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    (clip,) = noise(4000)
    whole = HFAudioModel(folder, sample_rate=RATES[kind]).transform([clip.numpy()])
    part = HFAudioModel(tmp_path, sample_rate=RATES[kind]).transform([clip.numpy()])
    np.testing.assert_array_equal(part, whole)
