"""HFAudioModel on models that take the features of an extractor."""

import json
from math import ceil

import numpy as np
import pytest
import torch
import torchaudio
import transformers

from skaudioemb import HFAudioModel
from skaudioemb.encoders.huggingface.spec import HFAudioSpec
from skaudioemb.frames import pool
from tests import hf_spectrogram_models as models
from tests.hf_models import FAMILIES, save
from tests.speech_models import layers_of, noise

KINDS = (
    "wav2vec2-bert",
    "parakeet",
    "parakeet-ctc",
    "whisper",
    "whisper-asr",
    "qwen2-audio",
    "voxtral",
    "moonshine",
    "ast",
    "clap",
    "clap-fused",
    "clap-audio",
)
LENGTHS = (1500, 3001, 9000, 9000, 15500)
SPEECH = ("wav2vec2-bert", "parakeet", "whisper", "qwen2-audio", "moonshine")
# One case of every encoder, where the form of the checkpoint makes no difference.
ENCODERS = (*SPEECH, "ast", "clap", "clap-fused")
# Samples that the model sees at once.
WINDOWS = {
    "whisper": 32000,
    "qwen2-audio": 32000,
    "ast": 9 * 1600 + 1200,
    "clap": 48000,
    "clap-fused": 48000,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a function from a kind to its folder and the model saved there."""
    made = {}

    def build(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            made[kind] = folder, FAMILIES[kind](folder)
        return made[kind]

    return build


def full_patches(clip, config):
    """Return the number of time patches that lie in a clip."""
    spectra = torchaudio.compliance.kaldi.fbank(clip[None], window_type="hanning")
    starts = range(0, config.max_length, config.time_stride)
    return max(1, sum(start + config.patch_size <= len(spectra) for start in starts))


def ast_grid(layers, clip, config):
    patches = layers[:, 2:]
    n_bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    grid = patches.reshape(len(layers), n_bands, -1, layers.shape[-1])
    return grid.mean(dim=1)[:, : full_patches(clip, config)]


def pairs(layer):
    """Average neighbours, shape (1, n_positions, n_features)."""
    return (layer[:, ::2] + layer[:, 1::2]) / 2


@torch.inference_mode()
def stock(kind, folder, model, clip):
    """Return stock transformers' (n_layers, n_frames, n_features) of one clip."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(
        clip.numpy(), sampling_rate=extractor.sampling_rate, return_tensors="pt"
    )
    if kind.startswith("clap"):
        inputs["is_longer"] = torch.zeros(1, 1, dtype=torch.bool)
        if kind != "clap-audio":
            return model.get_audio_features(**inputs).pooler_output[None].numpy()
        embeddings = model(**inputs).audio_embeds
        return torch.nn.functional.normalize(embeddings, dim=-1)[None].numpy()
    output = model(**inputs, output_hidden_states=True)
    layers = [*output.hidden_states[:-1], output.last_hidden_state]
    if kind == "qwen2-audio":
        layers[:-1] = [pairs(layer) for layer in layers[:-1]]
    layers = torch.cat(layers)
    if kind == "qwen2-audio":
        layers = layers[:, : max(1, ceil(len(clip) / 320) // 2)]
    elif kind.startswith("parakeet"):
        layers = layers[:, output.attention_mask[0].bool()]
    elif kind in ("whisper", "whisper-asr", "voxtral"):
        layers = layers[:, : ceil(len(clip) / 320)]
    elif kind == "ast":
        layers = ast_grid(layers, clip, model.config)
    elif kind == "wav2vec2-bert":
        layers = layers[:, inputs["attention_mask"][0].bool()]
    return layers.numpy()


def assert_close(got, expected, relative=1e-5):
    atol = relative * np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


def side_by_side(layers):
    """Return (n_frames, n_layers * n_features), as ``layers="all"`` has it."""
    return np.concatenate(list(layers), axis=1)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_stock_transformers(saved, kind):
    folder, model = saved(kind)
    spec = HFAudioSpec(str(folder))
    for length in LENGTHS:
        (clip,) = noise(length, seed=length)
        (result,) = layers_of(spec, [clip])
        assert result.shape == (spec.n_layers, spec.n_frames(length), spec.n_features)
        assert_close(result, stock(kind, folder, model, clip))


@pytest.mark.parametrize("batch_seconds", [60.0, 0.5])
@pytest.mark.parametrize("kind", ENCODERS)
def test_a_clip_does_not_depend_on_its_batch(saved, kind, batch_seconds):
    folder, _ = saved(kind)
    embedder = HFAudioModel(folder, layers="all", batch_seconds=batch_seconds)
    clips = [clip.numpy() for clip in noise(300, 700, 5000, 5001, 9000, 9000, 40000)]
    alone = np.concatenate([embedder.transform([clip]) for clip in clips])
    assert_close(embedder.transform(clips), alone)
    assert_close(embedder.transform(clips[::-1])[::-1], alone)
    assert_close(embedder.transform([clips[2], clips[6], clips[2]]), alone[[2, 6, 2]])


@pytest.mark.parametrize("n_samples", [19000, 33000, 64000, 100123])
@pytest.mark.parametrize("kind", ENCODERS)
def test_a_long_clip_runs_in_windows(saved, kind, n_samples):
    """Each window comes out as stock transformers' result on its samples."""
    folder, model = saved(kind)
    spec = HFAudioSpec(str(folder), max_seconds=0.5)
    embedder = HFAudioModel(
        folder, layers="all", max_seconds=0.5, sample_rate=spec.sample_rate
    )
    (clip,) = noise(n_samples)
    (frames,) = embedder.frames([clip.numpy()])
    pieces = []
    for start, stop, skip in spec.windows(n_samples):
        assert 0 <= start < stop <= n_samples
        piece = stock(kind, folder, model, clip[start:stop])
        pieces.append(side_by_side(piece)[skip:])
    assert len(pieces) > 1 or n_samples <= WINDOWS[kind]
    assert_close(frames.values, np.concatenate(pieces))


@pytest.mark.parametrize("kind", [*SPEECH, "ast"])
def test_windows_leave_times_even(saved, kind):
    folder, _ = saved(kind)
    for n_samples in (19000, 33000, 64000, 100123):
        cut = HFAudioSpec(str(folder), max_seconds=0.5).times_of(n_samples)
        whole = HFAudioSpec(str(folder)).times_of(n_samples)
        np.testing.assert_allclose(cut, whole, rtol=0, atol=1e-9)
        assert np.ptp(np.diff(cut)) < 1e-9
        hop = cut[1] - cut[0]
        assert n_samples / 16000 - 2.4 * hop < cut[-1] < n_samples / 16000


def test_windows_of_clap_are_full(saved):
    spec = HFAudioSpec(str(saved("clap")[0]))
    assert [(w.start, w.stop) for w in spec.windows(100000)] == [
        (0, 48000),
        (48000, 96000),
        (52000, 100000),
    ]
    assert [(w.start, w.stop) for w in spec.windows(96000)] == [
        (0, 48000),
        (48000, 96000),
    ]
    np.testing.assert_allclose(spec.times_of(100000) * 48000, [24000, 72000, 76000])
    np.testing.assert_allclose(spec.times_of(480), [0.005])


@pytest.mark.parametrize("kind", [*SPEECH, "ast"])
def test_times_are_centres(kind, tmp_path):
    """What a click changes lies around the click, without a lean."""
    clicks, elsewhere, leans = range(3000, 9000, 631), 14500, []
    for seed in range(3):
        FAMILIES[kind](tmp_path, seed)
        spec = HFAudioSpec(str(tmp_path))
        times = spec.times_of(15600)
        (clip,) = noise(15600, seed=seed)
        # Only moved: the statistics of the whole clip hardly change.
        away = first_layer(spec, clip, elsewhere)
        for position in clicks:
            near = first_layer(spec, clip, position)
            change = np.square(near - away).sum(axis=1) * (times < 0.7)
            change[change < 0.1 * change.max()] = 0.0
            leans.append(change @ times / change.sum() - (position + 2) / 16000)
    hop = times[1] - times[0]
    assert abs(np.mean(leans)) < 0.2 * hop
    assert np.abs(leans).max() < hop


def first_layer(spec, clip, position):
    clicked = clip.clone()
    clicked[position : position + 4] += 0.5
    return layers_of(spec, [clicked])[0][0]


@pytest.mark.parametrize("n_samples", [1, 2, 399, 400, 560, 719, 720, 1280])
@pytest.mark.parametrize("kind", ENCODERS)
def test_short_and_silent_clips(saved, kind, n_samples):
    spec = HFAudioSpec(str(saved(kind)[0]))
    embedder = HFAudioModel(saved(kind)[0], layers="all", sample_rate=spec.sample_rate)
    clips = [noise(n_samples)[0].numpy(), np.zeros(n_samples, np.float32)]
    clips.append(np.zeros(16000, np.float32))
    for clip, (values, times) in zip(clips, embedder.frames(clips), strict=True):
        assert values.shape == (spec.n_frames(len(clip)), embedder_width(spec))
        assert len(times) == len(values) >= 1
        assert np.isfinite(values).all()
        assert times[0] >= 0


def embedder_width(spec):
    return spec.n_layers * spec.n_features


@pytest.mark.parametrize("kind", ENCODERS)
def test_bfloat16_is_close(saved, kind):
    clips = [clip.numpy() for clip in noise(*LENGTHS)]
    exact = HFAudioModel(saved(kind)[0]).transform(clips)
    half = HFAudioModel(saved(kind)[0], dtype="bfloat16").transform(clips)
    assert half.dtype == np.float32
    cosine = (half * exact).sum(1) / np.linalg.norm(half, axis=1)
    assert (cosine / np.linalg.norm(exact, axis=1) > 0.99).all()
    assert not np.array_equal(half, exact)


@pytest.mark.parametrize("kind", ["whisper", "parakeet"])
def test_spectrograms_are_exact_in_half_precision(saved, kind):
    spec = HFAudioSpec(str(saved(kind)[0]))
    (clip,) = noise(16000)
    exact = spec.family.extract(clip)["input_features"]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(spec.family.extract(clip)["input_features"], exact)


@pytest.mark.parametrize("layers", ["last", "mean", "all"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_store_and_frames_agree_with_transform(saved, kind, layers, tmp_path, counted):
    clips = [clip.numpy() for clip in noise(800, 9000, 40000, 9000)]
    embedder = HFAudioModel(saved(kind)[0], layers=layers)
    expected = embedder.transform(clips)
    pooled = [pool(frames.values, "mean") for frames in embedder.frames(clips)]
    assert_close(np.stack(pooled), expected)
    embedder.set_params(memory=tmp_path)
    counted()
    assert_close(embedder.transform(clips), expected)
    assert counted().run == len(clips)
    assert_close(embedder.transform(clips), expected)
    assert counted().run == 0


@pytest.mark.parametrize(
    "kind", ["whisper", "whisper-asr", "voxtral", "qwen2-audio", "parakeet-ctc", "clap"]
)
def test_only_the_encoder_is_loaded(saved, kind):
    folder, model = saved(kind)
    loaded = HFAudioSpec(str(folder)).family.load()
    parts = [model]
    if kind == "clap":
        parts = [model.audio_model, model.audio_projection]
    expected = sum(p.numel() for part in parts for p in part.parameters())
    assert sum(p.numel() for p in loaded.parameters()) == expected
    assert all(p.dtype == torch.float32 for p in loaded.parameters())


def test_weights_under_a_head(tmp_path):
    """A classifier's checkpoint has its encoder's weights under another name."""
    clips = [noise(9000)[0].numpy()]
    model = models.ast(tmp_path, model_class=transformers.ASTForAudioClassification)
    expected = stock(
        "ast", tmp_path, model.audio_spectrogram_transformer, torch.tensor(clips[0])
    )
    assert_close(HFAudioModel(tmp_path).frames(clips)[0].values, expected[-1])


@pytest.mark.parametrize("kind", ENCODERS)
def test_without_a_preprocessor_the_usual_settings_hold(saved, kind, tmp_path):
    folder, _ = saved(kind)
    if kind.startswith("clap"):
        # A window of 10 s is usual, and this model is too small for it.
        save(tmp_path, saved(kind)[1])
        family = HFAudioSpec(str(tmp_path)).family
        assert family.window_samples == 480000
        truncation = "fusion" if kind == "clap-fused" else "rand_trunc"
        assert family.extractor.truncation == truncation
        return
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    clips = [noise(9000)[0].numpy()]
    expected = HFAudioModel(folder, layers="all").transform(clips)
    assert_close(HFAudioModel(tmp_path, layers="all").transform(clips), expected)


def test_whisper_of_the_usual_size(tmp_path):
    """30 s windows: nothing is cut off silently."""
    model = models.whisper(tmp_path, seconds=30)
    (clip,) = noise(16000 * 31)
    embedder = HFAudioModel(tmp_path, max_seconds=None)
    (frames,) = embedder.frames([clip.numpy()])
    assert frames.values.shape == (50 * 31, 24)
    first = stock("whisper", tmp_path, model, clip[: 16000 * 30])[-1]
    last = stock("whisper", tmp_path, model, clip[16000:])[-1]
    assert_close(frames.values[:1500], first)
    assert_close(frames.values[1500:], last[-50:])


def edit(folder, name, **settings):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


@pytest.mark.parametrize("kind", ["clap", "clap-fused"])
def test_no_random_crops(saved, kind):
    embedder = HFAudioModel(saved(kind)[0], sample_rate=48000)
    clips = [noise(100000)[0].numpy()]
    first = embedder.transform(clips)
    np.testing.assert_array_equal(embedder.transform(clips), first)


def test_no_dither(tmp_path):
    models.whisper(tmp_path)
    clips = noise(9000)
    expected = layers_of(HFAudioSpec(str(tmp_path)), clips)
    edit(tmp_path, "preprocessor_config.json", dither=1.0)
    np.testing.assert_array_equal(
        layers_of(HFAudioSpec(str(tmp_path)), clips), expected
    )


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("whisper", {"chunk_length": 3}, "chunk_length .* = 48000, .* takes 32000"),
        ("whisper", {"feature_size": 40}, "feature_size = 40, .* takes 80"),
        ("ast", {"max_length": 100}, "max_length = 100, .* takes 96"),
        ("ast", {"num_mel_bins": 32}, "num_mel_bins = 32, .* takes 64"),
        ("clap", {"truncation": "fusion"}, "truncation = fusion, .* takes rand_trunc"),
        ("parakeet", {"feature_size": 80}, "feature_size = 80, .* takes 40"),
        ("wav2vec2-bert", {"stride": 4}, "stride = 4, .* takes 2"),
        ("wav2vec2-bert", {"num_mel_bins": 40}, "stride = 80, .* takes 160"),
        (
            "ast",
            {"feature_extractor_type": "WhisperFeatureExtractor"},
            "describes a WhisperFeatureExtractor, but .* of a ASTFeatureExtractor",
        ),
    ],
)
def test_an_extractor_that_does_not_fit(kind, settings, message, tmp_path):
    FAMILIES[kind](tmp_path)
    edit(tmp_path, "preprocessor_config.json", **settings)
    with pytest.raises(ValueError, match=message):
        HFAudioModel(tmp_path).fit([np.zeros(800, np.float32)])


def test_an_adapter_is_refused(tmp_path):
    models.wav2vec2_bert(tmp_path)
    edit(tmp_path, "config.json", add_adapter=True)
    with pytest.raises(ValueError, match="add_adapter=True"):
        HFAudioModel(tmp_path).fit([np.zeros(800, np.float32)])


@pytest.mark.parametrize("positions", ["relative", "rotary", None])
def test_position_embeddings_of_wav2vec2_bert(positions, tmp_path):
    model = models.wav2vec2_bert(tmp_path, position_embeddings_type=positions)
    clips = noise(5000, 16000, 9000)
    results = layers_of(HFAudioSpec(str(tmp_path)), clips)
    for clip, result in zip(clips, results, strict=True):
        assert_close(result, stock("wav2vec2-bert", tmp_path, model, clip))


def test_missing_weights(tmp_path):
    models.whisper(tmp_path)
    edit(tmp_path, "config.json", encoder_layers=4)
    with pytest.raises(ValueError, match=r"lack .* of the encoder's tensors"):
        HFAudioModel(tmp_path).transform([np.zeros(800, np.float32)])
