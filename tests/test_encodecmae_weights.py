"""Weights of EncodecMAE that are saved, passed on, and found again."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from sklearn.exceptions import NotFittedError

from skaudioemb import EncodecMAE
from skaudioemb.encoders import encodecmae_files
from skaudioemb.encoders.encodecmae_weights import HeldWeights, SavedWeights
from tests.models import ENCODECMAE
from tests.sounds import noise
from tests.test_byol import hub

CODEC = ENCODECMAE / "tiny-encodec"
SIZE = {"n_layers": 2, "n_features": 24, "n_heads": 4, "n_hidden": 48}
X = [noise(9000), noise(12001)]


def random(**params):
    """Return an embedder with random weights."""
    defaults = {"max_epochs": 0, "size": SIZE, "front_end": "mel", "codec": CODEC}
    return EncodecMAE(None, **{**defaults, **params})


SOURCES = {
    "random mel": random(),
    "random codec": random(front_end="codec"),
    "random unshared": random(share_feedforward=False),
    "published codec": EncodecMAE(ENCODECMAE / "ec-ec-v1.pt", n_heads=4),
    "published mel": EncodecMAE(ENCODECMAE / "mel256-ec-v2_st.pt", n_heads=5),
}


@pytest.mark.parametrize("name", ["folder", "encoder.safetensors"])
@pytest.mark.parametrize("source", SOURCES)
def test_they_load_again(source, name, tmp_path):
    embedder = SOURCES[source]
    files = embedder.save_weights(tmp_path / name)
    assert all(file.is_file() for file in files)
    assert sorted(files) == sorted(files[0].parent.iterdir())
    moved = tmp_path / "elsewhere"
    shutil.copytree(files[0].parent, moved)
    checkpoint = moved if name == "folder" else moved / name
    again = EncodecMAE(checkpoint)
    np.testing.assert_array_equal(again.transform(X), embedder.transform(X))
    for one, other in zip(again.frames(X), embedder.frames(X), strict=True):
        np.testing.assert_array_equal(one.times, other.times)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(again)).transform(X), again.transform(X)
    )


def test_the_files_tell_all_that_is_needed(tmp_path):
    path, sidecar = SOURCES["published codec"].save_weights(tmp_path)
    told = json.loads(sidecar.read_text())
    assert (told["front_end"], told["n_heads"], told["n_layers"]) == ("codec", 4, 3)
    assert told["sample_rate"] == 24000
    state = load_file(path)
    assert any(name.startswith("codec.") for name in state)
    # One network serves all layers, and lies in the file once.
    assert sum(".ff_layer.0.weight" in name for name in state) == 1
    unshared, _ = SOURCES["random unshared"].save_weights(tmp_path / "unshared")
    assert sum(".ff_layer.0.weight" in name for name in load_file(unshared)) == 2


@pytest.mark.parametrize("source", ["random mel", "published codec"])
def test_a_file_alone_is_enough(source, tmp_path):
    embedder = SOURCES[source]
    path, sidecar = embedder.save_weights(tmp_path)
    sidecar.unlink()
    renamed = path.rename(tmp_path / "elsewhere.safetensors")
    np.testing.assert_array_equal(
        EncodecMAE(renamed).transform(X), embedder.transform(X)
    )


def test_they_may_be_saved_over_themselves(tmp_path):
    SOURCES["random codec"].save_weights(tmp_path)
    again = EncodecMAE(tmp_path)
    expected = again.transform(X)
    again.save_weights(tmp_path)
    np.testing.assert_array_equal(EncodecMAE(tmp_path).transform(X), expected)


@pytest.mark.parametrize("source", ["published codec", "published mel"])
def test_the_same_weights_are_one_model_wherever_they_lie(source, tmp_path, counted):
    SOURCES[source].save_weights(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first = EncodecMAE(tmp_path / "a", memory=tmp_path / "store")
    expected = first.transform(X)
    counted()
    second = EncodecMAE(tmp_path / "b", memory=tmp_path / "store")
    np.testing.assert_array_equal(second.transform(X), expected)
    assert counted().run == 0
    second.set_params(stream="normed").transform(X)
    assert counted().run == len(X)


def test_other_weights_are_another_model():
    spec, other = (random(random_state=seed)._make_spec() for seed in (0, 1))
    weights = [
        HeldWeights.of(s.network().state_dict(), s.size, "mel")
        for s in (spec, spec, other)
    ]
    digests = [own.digest for own in weights]
    assert digests[0] == digests[1] != digests[2]


def test_a_file_may_be_replaced(tmp_path):
    SOURCES["random mel"].save_weights(tmp_path)
    embedder = EncodecMAE(tmp_path)
    before = embedder.transform(X)
    random(random_state=1).save_weights(tmp_path)
    assert np.abs(embedder.transform(X) - before).max() > 0.01


def test_from_the_hubs_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    encodecmae_files._from_hub.cache_clear()
    commit = "c" * 40
    cache = tmp_path / "models--somebody--mae"
    SOURCES["random codec"].save_weights(cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    expected = SOURCES["random codec"].transform(X)
    for revision in (None, commit):
        loaded = EncodecMAE("somebody/mae", revision=revision)
        np.testing.assert_array_equal(loaded.transform(X), expected)
    with pytest.raises(OSError, match="'somebody/none' is neither here"):
        EncodecMAE("somebody/none").fit(X)
    encodecmae_files._from_hub.cache_clear()


def test_to_the_hub(tmp_path, monkeypatch):
    embedder = random(size={"n_layers": 1, "n_features": 8, "n_heads": 2})
    with hub() as (address, files):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        url = embedder.push_to_hub("somebody/mae", token="secret")
    assert url.startswith(address)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(
        EncodecMAE(tmp_path).transform(X), embedder.transform(X)
    )


def test_without_weights(tmp_path):
    with pytest.raises(NotFittedError, match="no weights yet"):
        random(max_epochs=1).save_weights(tmp_path)
    assert not list(tmp_path.iterdir())


def spoil(folder, **changes):
    sidecar = folder / "config.json"
    told = {**json.loads(sidecar.read_text()), **changes}
    sidecar.write_text(json.dumps(told))


class TestMistakes:
    @pytest.fixture
    def folder(self, tmp_path):
        SOURCES["random mel"].save_weights(tmp_path)
        return tmp_path

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"format": "x"}, "does not tell of an EncodecMAE"),
            ({"n_heads": 0}, "does not tell of an EncodecMAE"),
            ({"front_end": "wave"}, "does not tell of an EncodecMAE"),
            ({"front_end": "codec"}, r"front_end='codec', but .* holds no codec"),
            ({"version": 2}, "a later version of skaudioemb"),
            ({"version": "1"}, "version='1', which is no number of a format"),
            ({"version": None}, "version=None, which is no"),
            ({"n_layers": 3}, r"not those of Size\(n_layers=3"),
            ({"n_features": 36}, r"not those of Size.*n_features=36"),
        ],
    )
    def test_beside_the_weights(self, changes, match, folder):
        spoil(folder, **changes)
        with pytest.raises(ValueError, match=match):
            EncodecMAE(folder).transform(X)

    def test_n_heads(self, folder):
        assert EncodecMAE(folder, n_heads=4).fit(X).n_layers_ == 3
        with pytest.raises(ValueError, match=r"n_heads=3, but .* saved with 4"):
            EncodecMAE(folder, n_heads=3).fit(X)

    def test_one_of_two_files(self, folder):
        (folder / "config.json").unlink()
        path = folder / "model.safetensors"
        save_file(load_file(path), path)
        with pytest.raises(ValueError, match=r"no config\.json, which tells"):
            EncodecMAE(folder).fit(X)

    def test_a_codec_that_is_not_told(self, tmp_path):
        SOURCES["random codec"].save_weights(tmp_path)
        spoil(tmp_path, front_end="mel")
        with pytest.raises(ValueError, match=r"front_end='mel', but .* holds a codec"):
            EncodecMAE(tmp_path).transform(X)

    def test_a_file_in_the_way(self, folder):
        for path in (folder / "config.json", folder / "config.json" / "deeper"):
            with pytest.raises(
                FileExistsError, match="a file where a folder is needed"
            ):
                SOURCES["random mel"].save_weights(path)

    def test_damaged(self, folder):
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(ValueError, match="cannot be read as safetensors"):
            EncodecMAE(folder).transform(X)

    def test_missing_tensors(self, folder):
        path = folder / "model.safetensors"
        state = load_file(path)
        state["stack.final_norm.shift"] = torch.zeros(24)
        del state["scale"]
        save_file(state, path)
        with pytest.raises(ValueError, match=r"scale, stack\.final_norm\.shift"):
            EncodecMAE(folder).transform(X)

    def test_another_model_of_transformers(self):
        with pytest.raises(ValueError, match="does not tell of an EncodecMAE"):
            _ = SavedWeights(str(CODEC / "model.safetensors")).size
