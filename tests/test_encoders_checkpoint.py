"""Checkpoints as users have them: folders, hub ids, other kinds, broken ones."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
import transformers

from skaudioemb.encoders.wav2vec2 import Wav2Vec2Spec
from tests.speech_models import (
    BASE_LIKE,
    LARGE_LIKE,
    TINY,
    layers_of,
    noise,
    quiet,
    stock_layers,
)

SCALED = "zero-mean-unit-var"


def test_spec_is_a_value(save_model):
    folder, _ = save_model("hubert")
    spec = Wav2Vec2Spec(str(folder), architecture="hubert")
    twin = Wav2Vec2Spec(str(folder), architecture="hubert")
    assert spec.n_layers == 4
    assert spec == twin
    assert hash(spec) == hash(twin)
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert len(pickle.dumps(spec)) < 1000


def test_identity_follows_content(save_model, tmp_path):
    folder, _ = save_model("wav2vec2")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    spec = Wav2Vec2Spec(str(folder))
    identity = spec.identity
    assert Wav2Vec2Spec(str(copy)).identity == identity
    assert str(folder) not in identity
    scaled = Wav2Vec2Spec(str(folder), normalize="zero-mean-unit-var")
    assert scaled.identity != identity
    other, _ = save_model("wav2vec2", seed=1)
    shutil.copy(other / "model.safetensors", copy / "model.safetensors")
    assert Wav2Vec2Spec(str(copy)).identity != identity


def test_a_changed_folder_is_noticed(save_model, tmp_path):
    folder, _ = save_model("wav2vec2")
    shutil.copytree(folder, tmp_path / "model")
    spec = Wav2Vec2Spec(str(tmp_path / "model"))
    assert (spec.sample_rate, spec.scaling) == (16000, "none")
    settings = {"sampling_rate": 24000, "do_normalize": True}
    text = json.dumps(settings)
    (tmp_path / "model" / "preprocessor_config.json").write_text(text)
    spec = Wav2Vec2Spec(str(tmp_path / "model"))
    assert (spec.sample_rate, spec.scaling) == (24000, SCALED)


def test_normalisation_without_preprocessor_file(save_model):
    for kind, expected in ((BASE_LIKE, "none"), (LARGE_LIKE, SCALED)):
        folder, _ = save_model("wav2vec2", **kind)
        assert Wav2Vec2Spec(str(folder)).scaling == expected
        assert Wav2Vec2Spec(str(folder), normalize="none").scaling == "none"


def test_ctc_and_half_precision_checkpoints(tmp_path, capfd):
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(**TINY, vocab_size=7)
    model = transformers.Wav2Vec2ForCTC(config).eval()
    with quiet():
        model.save_pretrained(tmp_path / "full")
        model.half().save_pretrained(tmp_path / "half")
    (waveform,) = noise(4000)
    expected = stock_layers(model.float().wav2vec2, waveform)
    capfd.readouterr()
    for name in ("full", "half"):
        spec = Wav2Vec2Spec(str(tmp_path / name))
        (result,) = layers_of(spec, [waveform])
        # Rounding the weights to half precision is all that may differ.
        np.testing.assert_allclose(result, expected, rtol=0, atol=2e-2)
    assert capfd.readouterr() == ("", "")


def test_weights_in_parts_and_pickled_weights(save_model, tmp_path):
    folder, model = save_model("wav2vec2")
    (waveform,) = noise(4000)
    expected = stock_layers(model, waveform)
    parts, pickled = tmp_path / "parts", tmp_path / "pickled"
    with quiet():
        model.save_pretrained(parts, max_shard_size="20KB")
    assert len(list(parts.glob("*.safetensors"))) > 1
    pickled.mkdir()
    shutil.copy(folder / "config.json", pickled)
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    for path in (parts, pickled):
        spec = Wav2Vec2Spec(str(path))
        assert spec.identity
        (result,) = layers_of(spec, [waveform])
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def test_missing_weights_are_an_error(save_model, tmp_path):
    folder, _ = save_model("wav2vec2")
    shutil.copytree(folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = 5
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"lack 32 of the encoder's tensors"):
        Wav2Vec2Spec(str(tmp_path / "model")).load(torch.device("cpu"), torch.float32)


@pytest.mark.parametrize(
    ("found", "expected", "advice"),
    [
        ("wav2vec2", "hubert", r"'wav2vec2' model, but HuBERT.*Use Wav2Vec2 for it"),
        ("hubert", "wavlm", r"'hubert' model, but WavLM.*Use HuBERT for it"),
        ("whisper", "wav2vec2", r"is a 'whisper' model.*Use HFAudioModel for it"),
    ],
)
def test_another_kind_is_an_error(found, expected, advice, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": found}))
    with pytest.raises(ValueError, match=advice):
        _ = Wav2Vec2Spec(str(tmp_path), architecture=expected).n_layers


def test_an_adapter_is_an_error(save_model):
    folder, _ = save_model("wav2vec2", add_adapter=True)
    with pytest.raises(ValueError, match=r"add_adapter=True.*another frame rate"):
        _ = Wav2Vec2Spec(str(folder)).n_layers


def test_folders_that_are_no_checkpoints(tmp_path, save_model):
    with pytest.raises(OSError, match=r"holds no config\.json.*save_pretrained"):
        _ = Wav2Vec2Spec(str(tmp_path)).n_layers
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json.*not valid JSON"):
        _ = Wav2Vec2Spec(str(tmp_path)).n_layers
    folder, _ = save_model("wav2vec2")
    shutil.copy(folder / "config.json", tmp_path / "config.json")
    with pytest.raises(OSError, match=r"holds no weights: none of model\.safetensors"):
        Wav2Vec2Spec(str(tmp_path)).load(torch.device("cpu"), torch.float32)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and no network."""
    from huggingface_hub import constants

    from skaudioemb.encoders import checkpoint

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    checkpoint._hub_folder.cache_clear()
    yield tmp_path
    checkpoint._hub_folder.cache_clear()


@pytest.mark.parametrize("name", ["somebody/no-such-model", "/no/such/folder"])
def test_a_checkpoint_that_cannot_be_found(name, hub_cache):
    with pytest.raises(OSError, match=r"neither a folder.*save_pretrained") as caught:
        _ = Wav2Vec2Spec(name).n_layers
    assert repr(name) in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_cached_model_needs_no_network(hub_cache, save_model):
    folder, model = save_model("wav2vec2", **LARGE_LIKE)
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = hub_cache / "models--somebody--speech-model"
    shutil.copytree(folder, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    spec = Wav2Vec2Spec("somebody/speech-model")
    with pytest.warns(UserWarning, match=r"preprocessor_config\.json.*not in the"):
        assert spec.scaling == SCALED
    assert f"somebody/speech-model@{commit}" in spec.identity
    assert str(hub_cache) not in spec.identity
    pinned = Wav2Vec2Spec("somebody/speech-model", revision=commit, normalize="none")
    (waveform,) = noise(2000)
    (result,) = layers_of(pinned, [waveform])
    expected = stock_layers(model, waveform)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def cut_weights(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def widen(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))


@pytest.mark.parametrize("damage", [cut_weights, widen])
def test_weights_that_do_not_fit(damage, save_model):
    folder, _ = save_model("hubert")
    damage(folder)
    spec = Wav2Vec2Spec(str(folder), architecture="hubert")
    with pytest.raises(ValueError, match="damaged, or shapes differ"):
        spec.load(torch.device("cpu"), torch.float32)


def test_configuration_that_is_no_object(save_model):
    folder, _ = save_model("hubert")
    (folder / "config.json").write_text("[]")
    spec = Wav2Vec2Spec(str(folder), architecture="hubert")
    with pytest.raises(ValueError, match=r"config\.json.*holds a list, not an object"):
        assert spec.n_layers
