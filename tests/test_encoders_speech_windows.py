"""wav2vec 2.0 and its kin: windows, other scalings, and other names."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from skaudioemb import HFAudioModel, HuBERT, Wav2Vec2
from skaudioemb.encoders.wav2vec2 import Wav2Vec2Spec
from tests.hf_models import FAMILIES
from tests.speech_models import (
    BASE_LIKE,
    LARGE_LIKE,
    layers_of,
    noise,
    stock_layers,
)


@torch.inference_mode()
def last_layer_in_windows(model, waveform, bounds):
    """Return stock transformers' last layer where frames attend within windows."""
    features = model.feature_extractor(waveform[None]).transpose(1, 2)
    frames = model.feature_projection(features)
    frames = frames[0] if isinstance(frames, tuple) else frames
    parts = [model.encoder(frames[:, start:stop])[0][0] for start, stop in bounds]
    return torch.cat(parts).numpy()


@pytest.mark.parametrize("kind", [BASE_LIKE, LARGE_LIKE], ids=["base", "large"])
@pytest.mark.parametrize("architecture", ["wav2vec2", "hubert", "wavlm"])
def test_long_clips_attend_within_equal_windows(architecture, kind, save_model):
    folder, model = save_model(architecture, **kind)
    spec = Wav2Vec2Spec(
        str(folder), normalize="none", architecture=architecture, max_seconds=0.4
    )
    long, short = noise(16000, 5000)
    results = layers_of(spec, [long, short])
    # 49 frames in windows of at most 20.
    windows = [(0, 17), (17, 33), (33, 49)]
    expected = last_layer_in_windows(model, long, windows)
    np.testing.assert_allclose(results[0][-1], expected, rtol=0, atol=1e-4)
    expected = stock_layers(model, short)
    np.testing.assert_allclose(results[1], expected, rtol=0, atol=1e-4)


def test_windows_belong_to_the_model(save_model, clips, tmp_path, counted):
    """Another max_seconds is another model to the store."""
    folder, _ = save_model("wav2vec2", **BASE_LIKE)
    wav2vec2 = Wav2Vec2(folder, memory=tmp_path)
    whole = wav2vec2.transform(clips)
    cut = wav2vec2.set_params(max_seconds=0.2).transform(clips)
    assert counted().run == 2 * len(clips)
    assert np.abs(cut[-1] - whole[-1]).max() > 1e-3
    np.testing.assert_allclose(cut[:2], whole[:2], atol=1e-5)
    frames = wav2vec2.frames(clips)
    assert [len(values) for values, _ in frames] == [1, 2, 15, 15, 27, 49]


def test_scaling_as_speechbrain_does(save_model):
    """Layer norm of the clip going in, and of its last layer coming out."""
    folder, model = save_model("wav2vec2", **LARGE_LIKE)
    spec = Wav2Vec2Spec(str(folder), normalize="layer-norm", output_norm=True)
    clips = [clip * 0.003 for clip in noise(16000, 5000)]
    for clip, result in zip(clips, layers_of(spec, clips), strict=True):
        expected = stock_layers(model, F.layer_norm(clip, clip.shape))
        last = torch.from_numpy(expected[-1])
        expected[-1] = F.layer_norm(last, last.shape)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["unispeech", "unispeechsat"])
def test_unispeech(kind, tmp_path, clips):
    model = FAMILIES[kind](tmp_path)
    embedder = HFAudioModel(tmp_path, layers="all")
    for clip, (values, _) in zip(clips[1:], embedder.frames(clips[1:]), strict=True):
        waveform = torch.from_numpy((clip - clip.mean()) / clip.std())
        expected = stock_layers(model, waveform)
        layers = np.split(values, len(expected), axis=1)
        np.testing.assert_allclose(layers, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("option", ["feature_extractor_cqt", "deepnorm", None])
def test_mert_is_a_hubert(option, save_model, clips):
    folder, _ = save_model("hubert", **BASE_LIKE)
    expected = HuBERT(folder).transform(clips)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mert_model", "attention_relax": -1.0}
    if option is not None:
        config[option] = True
    (folder / "config.json").write_text(json.dumps(config))
    for embedder in (HuBERT(folder), HFAudioModel(folder)):
        if option is None:
            np.testing.assert_array_equal(embedder.transform(clips), expected)
            continue
        with pytest.raises(ValueError, match=f"{option}=true.*trust_remote_code"):
            embedder.fit(clips)


def test_other_kinds_are_told_where_to_go(tmp_path, clips):
    FAMILIES["unispeechsat"](tmp_path)
    with pytest.raises(ValueError, match=r"'unispeech-sat'.*Use HFAudioModel for it"):
        HuBERT(tmp_path).fit(clips)
    (tmp_path / "sew").mkdir()
    FAMILIES["sew"](tmp_path / "sew")
    with pytest.raises(ValueError, match=r"'sew'.*Use HFAudioModel for it"):
        HuBERT(tmp_path / "sew").fit(clips)
