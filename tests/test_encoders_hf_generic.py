"""HFAudioModel on models without a family: of transformers, or with code of their own.

Also what is said where a model is no audio encoder.
"""

import json
import pickle
import shutil
import sys

import numpy as np
import pytest
import torch
import transformers
from joblib.externals.loky import get_reusable_executor
from transformers import AutoFeatureExtractor, AutoModel

from skaudioemb import HFAudioModel
from skaudioemb.encoders import checkpoint
from skaudioemb.encoders.huggingface.spec import HFAudioSpec
from tests.hf_models import FAMILIES, save
from tests.hf_other_models import save_remote
from tests.speech_models import layers_of, noise, quiet

KINDS = ("speech_to_text", "glmasr", "pe_audio")
REMOTE = ("named", "tensor", "tuple", "dict", "clip", "MelEars")
LENGTHS = (1, 500, 5000, 5001, 9000, 9000, 16000)


pytestmark = pytest.mark.usefixtures("code_cache")


def save_any(kind, folder):
    """Save a model of KINDS or REMOTE, and return parameters of HFAudioModel."""
    if kind in KINDS:
        FAMILIES[kind](folder)
        rate = 48000 if kind == "pe_audio" else 16000
        return {"checkpoint": folder, "sample_rate": rate}
    output = {"name": kind} if kind == "MelEars" else {"output": kind}
    save_remote(folder, **output)
    return {"checkpoint": folder, "trust_remote_code": True, "sample_rate": 8000}


@pytest.fixture(scope="module", params=[*KINDS, *REMOTE])
def saved(request, tmp_path_factory):
    """The kind, and parameters."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, save_any(request.param, folder)


def spec_of(parameters):
    trusted = parameters.get("trust_remote_code", False)
    return HFAudioSpec(str(parameters["checkpoint"]), trust_remote_code=trusted)


@torch.inference_mode()
def stock_layers(kind, folder, clip):
    """Return (n_layers, n_frames, n_features) as a user of transformers has them."""
    trust = {"trust_remote_code": kind in REMOTE}
    with quiet():
        model = AutoModel.from_pretrained(folder, dtype=torch.float32, **trust).eval()
    if kind in KINDS or kind == "MelEars":
        extractor = AutoFeatureExtractor.from_pretrained(folder, **trust)
        rate = extractor.sampling_rate
        inputs = extractor(clip.numpy(), sampling_rate=rate, return_tensors="pt")
        if kind == "speech_to_text":
            output = model.encoder(**inputs, output_hidden_states=True)
            return torch.cat(output.hidden_states)
        if kind == "glmasr":
            output = model(**inputs, output_hidden_states=True)
            states = [*output.hidden_states[:-1], output.last_hidden_state]
            # 30 s give 1500 frames of 320 samples.
            return torch.cat(states)[:, : -(-len(clip) // 320)]
        return model(**inputs).last_hidden_state
    layers = [model.stem(clip[None, None]).transpose(1, 2)]
    for block in model.blocks:
        layers.append(block(layers[-1]))
    layers = torch.cat(layers)
    return layers[-1:].mean(1, keepdim=True) if kind == "clip" else layers


def close(result, expected, tolerance=1e-5):
    scale = np.abs(np.asarray(expected)).max()
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance * scale)


def test_equals_stock_transformers(saved):
    kind, parameters = saved
    spec = spec_of(parameters)
    assert spec.sample_rate == parameters["sample_rate"]
    for length in (1000, 4999, 5000, 16000):
        (clip,) = noise(length, seed=length)
        (result,) = layers_of(spec, [clip])
        expected = stock_layers(kind, parameters["checkpoint"], clip)
        close(result, expected)
        assert (spec.n_layers, spec.n_features) == (len(expected), expected.shape[2])


def test_frames_lie_evenly(saved):
    kind, parameters = saved
    spec = spec_of(parameters)
    rate = spec.sample_rate
    for length in (spec.min_samples, 5000, 16000):
        times = spec.times_of(length)
        assert len(times) == spec.n_frames(length)
        duration = 0.02 * len(times) if kind == "glmasr" else length / rate
        expected = (np.arange(len(times)) + 0.5) * duration / len(times)
        np.testing.assert_allclose(times, expected, rtol=1e-9)


@pytest.mark.parametrize("batch_seconds", [60.0, 0.5])
def test_a_clip_does_not_depend_on_its_batch(saved, batch_seconds):
    embedder = HFAudioModel(**saved[1], layers="all", batch_seconds=batch_seconds)
    clips = [clip.numpy() for clip in noise(*LENGTHS)]
    alone = np.concatenate([embedder.transform([clip]) for clip in clips])
    assert np.isfinite(alone).all()
    close(embedder.transform(clips), alone)
    close(embedder.transform(clips[::-1]), alone[::-1])


def test_silent_and_short_clips(saved):
    _, parameters = saved
    clips = [np.zeros(5000, np.float32), np.full(1, 0.5, np.float32)]
    assert np.isfinite(HFAudioModel(**parameters).transform(clips)).all()


def test_shortest_clip(saved):
    kind, parameters = saved
    expected = {"speech_to_text": 400, "glmasr": 1, "pe_audio": 1, "MelEars": 160}
    assert spec_of(parameters).min_samples == expected.get(kind, 200)


def test_long_clips_run_in_pieces(saved):
    kind, parameters = saved
    rate = parameters["sample_rate"]
    embedder = HFAudioModel(**parameters, max_seconds=5000 / rate)
    clip = noise(12001)[0].numpy()
    values, times = embedder.frames([clip])[0]
    if kind == "glmasr":
        # It has a window of its own, of 30 s.
        assert len(values) == 38
        return
    pieces = np.split(clip, [4000, 8000])
    rows = embedder.set_params(max_seconds=None).frames(pieces)
    close(values, np.concatenate([row.values for row in rows]))
    starts = (0, 4000 / rate, 8000 / rate)
    expected = [row.times + start for row, start in zip(rows, starts, strict=True)]
    np.testing.assert_allclose(times, np.concatenate(expected), rtol=1e-6)


def test_windows_of_an_extractor(tmp_path):
    """What an extractor would cut off runs in another window."""
    FAMILIES["glmasr"](tmp_path)
    (clip,) = noise(30 * 16000 + 4000)
    values, times = HFAudioModel(tmp_path).frames([clip.numpy()])[0]
    assert values.shape == (1513, 24)
    np.testing.assert_allclose(np.diff(times[:-1]), 0.02, rtol=1e-6)
    (alone,) = layers_of(HFAudioSpec(str(tmp_path)), [clip[480000:]])
    close(values[1500:], alone[-1])


def test_bfloat16_is_close(saved):
    clips = [clip.numpy() for clip in noise(5000, 16000)]
    exact = HFAudioModel(**saved[1]).transform(clips)
    half = HFAudioModel(**saved[1], dtype="bfloat16").transform(clips)
    assert half.dtype == np.float32
    cosine = (half * exact).sum(1) / np.linalg.norm(half, axis=1)
    assert (cosine / np.linalg.norm(exact, axis=1) > 0.99).all()
    assert not np.array_equal(half, exact)


def test_stored_embeddings(saved, tmp_path, counted):
    clips = [clip.numpy() for clip in noise(5000, 9000)]
    first = HFAudioModel(**saved[1], memory=tmp_path).transform(clips)
    assert counted().run == 2
    again = HFAudioModel(**saved[1], memory=tmp_path).transform(clips)
    assert counted().run == 0
    np.testing.assert_array_equal(again, first)


def test_pickles_and_workers(tmp_path):
    """Workers, which import the code anew, give the same numbers."""
    save_remote(tmp_path, name="MelEars")
    embedder = HFAudioModel(tmp_path, trust_remote_code=True, n_jobs=2)
    clips = [clip.numpy() for clip in noise(5000, 9000, 9001)]
    expected = pickle.loads(pickle.dumps(embedder)).set_params(n_jobs=1)
    expected = expected.transform(clips)
    # Workers that are there already keep code in the user's cache.
    get_reusable_executor().shutdown(wait=True)
    try:
        close(embedder.transform(clips), expected)
    finally:
        get_reusable_executor().shutdown(wait=True)


def test_code_runs_only_if_it_is_trusted(tmp_path):
    save_remote(tmp_path)
    marker = tmp_path / "ran"
    for path in tmp_path.glob("*.py"):
        trap = f"open({str(marker)!r}, 'a').close()\n"
        path.write_text(path.read_text() + trap)
    clips = [noise(5000)[0].numpy()]
    embedder = HFAudioModel(tmp_path)
    with pytest.raises(ValueError, match=r"'tiny-ears'.*pass trust_remote_code=True"):
        embedder.fit(clips)
    assert not marker.exists()
    embedder.set_params(trust_remote_code=True).transform(clips)
    assert marker.exists()


def test_own_feature_extractor_runs_only_if_it_is_trusted(tmp_path):
    FAMILIES["speech_to_text"](tmp_path)
    path = tmp_path / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    settings["auto_map"] = {"AutoFeatureExtractor": "features.Bands"}
    settings["feature_extractor_type"] = "Bands"
    path.write_text(json.dumps(settings))
    (tmp_path / "features.py").write_text("raise SystemError('it ran')")
    with pytest.raises(ValueError, match=r"feature extractor.*trust_remote_code=True"):
        HFAudioModel(tmp_path).fit([noise(5000)[0].numpy()])


def test_code_of_a_known_kind(tmp_path, counted):
    """Trusted code replaces that of transformers, also in the store."""
    save_remote(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace("tiny-ears", "data2vec-audio"))
    source = tmp_path / "configuration_ears.py"
    source.write_text(source.read_text().replace("tiny-ears", "data2vec-audio"))
    trusted = HFAudioSpec(str(tmp_path), trust_remote_code=True)
    plain = HFAudioSpec(str(tmp_path))
    assert (trusted.n_features, plain.n_features) == (24, 768)
    assert trusted.identity != plain.identity


def test_a_part_that_does_not_run_alone(tmp_path):
    """The name of a part does not make it an encoder."""
    save_remote(tmp_path)
    path = tmp_path / "modeling_ears.py"
    path.write_text(path.read_text().replace("self.blocks", "self.audio_encoder"))
    spec = HFAudioSpec(str(tmp_path), trust_remote_code=True)
    assert (spec.n_layers, spec.n_features, spec.n_frames(8000)) == (3, 24, 98)


def test_arguments_without_a_name(tmp_path):
    save_remote(tmp_path)
    path = tmp_path / "modeling_ears.py"
    code = path.read_text().replace("(self, waveform):", "(self, *args):")
    path.write_text(code.replace("stem(waveform[", "stem(args[0]["))
    spec = HFAudioSpec(str(tmp_path), trust_remote_code=True)
    assert (spec.n_layers, spec.n_frames(8000)) == (3, 98)


def test_changed_code_is_another_model(tmp_path):
    save_remote(tmp_path)
    embedder = HFAudioModel(tmp_path, trust_remote_code=True, memory=tmp_path / "store")
    clips = [noise(5000)[0].numpy()]
    before = embedder.transform(clips)
    path = tmp_path / "modeling_ears.py"
    path.write_text(path.read_text().replace("hidden + self", "hidden - self"))
    after = embedder.transform(clips)
    assert np.abs(after - before).max() > 1e-2 * np.abs(before).max()


def test_changed_features_are_another_model(tmp_path):
    FAMILIES["speech_to_text"](tmp_path)
    before = HFAudioSpec(str(tmp_path)).identity
    path = tmp_path / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "normalize_vars": False}))
    assert HFAudioSpec(str(tmp_path)).identity != before


def test_code_from_the_hub(tmp_path, monkeypatch):
    """The commit's code runs, found by the model's id."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    checkpoint._hub_folder.cache_clear()
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "models--somebody--tiny-ears"
    (cache / "snapshots" / commit).mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    save_remote(cache / "snapshots" / commit, name="MelEars")
    local = tmp_path / "local"
    shutil.copytree(cache / "snapshots" / commit, local)
    clips = [noise(5000)[0].numpy()]
    expected = HFAudioModel(local, trust_remote_code=True).transform(clips)
    hub = HFAudioModel("somebody/tiny-ears", trust_remote_code=True)
    np.testing.assert_array_equal(hub.transform(clips), expected)
    code = [name for name in sys.modules if "tiny_hyphen_ears" in name]
    assert any(commit in name for name in code)
    checkpoint._hub_folder.cache_clear()


def test_lengths_between_tried_ones_are_not_tried(tmp_path, monkeypatch):
    save_remote(tmp_path)
    spec = HFAudioSpec(str(tmp_path), trust_remote_code=True)
    tried = []
    run = spec.family.hearing.hidden

    def watched(model, waveforms):
        tried.append(len(waveforms[0]))
        return run(model, waveforms)

    monkeypatch.setattr(spec.family.hearing, "hidden", watched)
    lengths = (4040, 4119, 4080, 4041, 4119, 4120, 4039)
    counts = [spec.family.n_frames(length) for length in lengths]
    assert counts == [(length - 200) // 80 + 1 for length in lengths]
    assert tried == [4040, 4119, 4120, 4039]


def test_rate_without_a_feature_extractor(tmp_path):
    save_remote(tmp_path)
    assert HFAudioSpec(str(tmp_path), trust_remote_code=True).sample_rate == 8000
    source = tmp_path / "configuration_ears.py"
    source.write_text(source.read_text().replace("self.sampling_rate", "_"))
    assert HFAudioSpec(str(tmp_path), trust_remote_code=True).sample_rate == 16000


def test_feature_extractor_within_a_processor(tmp_path):
    FAMILIES["speech_to_text"](tmp_path)
    expected = HFAudioModel(tmp_path).transform([noise(5000)[0].numpy()])
    path = tmp_path / "preprocessor_config.json"
    nested = {"feature_extractor": json.loads(path.read_text())}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    path.unlink()
    found = HFAudioModel(tmp_path).transform([noise(5000)[0].numpy()])
    np.testing.assert_array_equal(found, expected)


_TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
}


def test_models_that_hear_nothing(tmp_path):
    bert = transformers.BertModel(transformers.BertConfig(vocab_size=20, **_TINY))
    save(tmp_path, bert)
    clips = [noise(5000)[0].numpy()]
    with pytest.raises(ValueError, match=r"'bert' model.*no audio encoder.*n_frames"):
        HFAudioModel(tmp_path).fit(clips)
    vit = transformers.ViTConfig(image_size=32, **_TINY)
    vit = transformers.ViTModel(vit)
    save(tmp_path, vit)
    with pytest.raises(ValueError, match=r"'vit' model.*no audio encoder.*n_frames"):
        HFAudioModel(tmp_path).fit(clips)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor"}'
    )
    with pytest.raises(ValueError, match=r"'vit' model without a feature extractor"):
        HFAudioModel(tmp_path).fit(clips)


def test_models_that_make_sound(tmp_path):
    save_remote(tmp_path, output="sound")
    with pytest.raises(ValueError, match=r"'tiny-ears'.*the output is a waveform"):
        HFAudioModel(tmp_path, trust_remote_code=True).fit([noise(5000)[0].numpy()])


def test_models_that_cannot_be_loaded(tmp_path):
    clips = [noise(5000)[0].numpy()]
    embedder = HFAudioModel(tmp_path, trust_remote_code=True)
    (tmp_path / "config.json").write_text('{"model_type": "no-such-kind"}')
    with pytest.raises(ValueError, match=r"'no-such-kind' model.*does not know"):
        embedder.fit(clips)
    save_remote(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"holds no weights"):
        embedder.fit(clips).transform(clips)
    (tmp_path / "other").mkdir()
    save_remote(tmp_path / "other", name="MelEars")
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path)
    with pytest.raises(ValueError, match=r"lack 14 of the encoder's tensors"):
        HFAudioModel(tmp_path, trust_remote_code=True).transform(clips)
