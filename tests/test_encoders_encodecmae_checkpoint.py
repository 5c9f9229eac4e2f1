"""The published files of EncodecMAE: found, read by names and shapes, refused."""

import shutil

import numpy as np
import pytest
import torch
from transformers import EncodecModel

from skaudioemb.encoders import encodecmae_checkpoint as files
from skaudioemb.encoders import encodecmae_files
from skaudioemb.encoders.encodecmae import EncodecMAESpec
from skaudioemb.encoders.encodecmae_files import find_file
from tests.encodecmae_models import (
    CODEC,
    MODELS,
    close,
    golden_clips,
    make_spec,
    run,
)
from tests.models import ENCODECMAE


@pytest.fixture(scope="module")
def clips():
    return golden_clips()


def save(path, state):
    torch.save({"state_dict": state}, path)
    return EncodecMAESpec(str(path), n_heads=4)


def read(name="ec-ec-v1.pt"):
    return torch.load(ENCODECMAE / name, weights_only=True)["state_dict"]


@pytest.mark.parametrize("name", ["ec-ec-v1.pt", "ec-ec-v2.pt", "mel256-ec-v2.pt"])
@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod."])
def test_wrapped_models(name, prefix, clips, tmp_path):
    state = {f"{prefix}{key}": value for key, value in read(name).items()}
    torch.save({"model": state}, tmp_path / "w.pt")
    found, expected = (
        EncodecMAESpec(str(path), n_heads=4)
        for path in (tmp_path / "w.pt", ENCODECMAE / name)
    )
    assert found.layout == expected.layout
    wrapped, plain = (run(spec, [clips["clip1"]])[0] for spec in (found, expected))
    np.testing.assert_array_equal(wrapped, plain)


def test_of_two_models_the_published_names_count(tmp_path):
    state = read("mel256-ec-v2.pt")
    average = {f"ema.{name}": 2 * value for name, value in state.items()}
    stray = {"head.feat_projector.weight": torch.zeros(2)}
    assert files.load_state(saved(tmp_path, {**average, **stray, **state})).keys() > (
        state.keys()
    )
    wrapped = {f"model.{name}": value for name, value in state.items()}
    found = files.load_state(saved(tmp_path, {**stray, **wrapped}))
    assert found.keys() == state.keys()
    with pytest.raises(ValueError, match="does not hold the weights"):
        files.describe(saved(tmp_path, {**average, **wrapped}))


def saved(folder, state):
    torch.save({"state_dict": state}, folder / "two.pt")
    return folder / "two.pt"


def test_one_feed_forward_network_serves_all_layers():
    spec = make_spec("v1")
    assert spec.layout.share_feedforward
    network = spec.network()
    assert len({id(layer.ff_layer) for layer in network.stack.encoder_layers}) == 1
    state = {f"stack.{name}": t for name, t in network.stack.state_dict().items()}
    published = read()
    for name, tensor in state.items():
        original = published[name.replace("stack.", "visible_encoder.")]
        assert torch.equal(tensor, original)
    encoder = spec.load("cpu", torch.float32)
    assert len({id(block.feed_forward) for block in encoder.blocks}) == 1


def test_files_whose_layers_have_networks_of_their_own(tmp_path, clips):
    state = {name: tensor.clone() for name, tensor in read().items()}
    state["visible_encoder.encoder_layers.1.ff_layer.2.weight"] *= 2
    spec = save(tmp_path / "own.pt", state)
    assert not spec.layout.share_feedforward
    changed, published = (run(s, [clips["clip0"]]) for s in (spec, make_spec("v1")))
    np.testing.assert_array_equal(changed[1], published[1])
    assert np.abs(changed[2] - published[2]).max() > 1e-2
    front_end = spec.load_front_end(torch.device("cpu"))
    with torch.no_grad():
        frames = spec.network()(front_end([torch.from_numpy(clips["clip0"])])[None])
    close(changed[3], frames[0].numpy(), 1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_what_the_shapes_tell(name):
    layout = make_spec(name).layout
    codec = name in ("v1", "v2")
    assert layout.generation == (1 if name == "v1" else 2)
    assert layout.front_end == ("codec" if codec else "mel")
    assert layout.n_inputs == (16 if codec else 256)
    assert (layout.n_layers, layout.n_features, layout.n_hidden) == (3, 24, 48)
    assert layout.hop == 320


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_the_codec_inside_is_the_one_of_transformers(name):
    stock = EncodecModel.from_pretrained(CODEC).encoder.state_dict()
    inside = files.load_codec(make_spec(name).path)
    assert inside.keys() == stock.keys()
    assert all(torch.equal(inside[key], stock[key]) for key in stock)


def without(name):
    state = read()
    del state[name]
    return state


def test_files_that_do_not_fit(tmp_path):
    spec = save(tmp_path / "a.pt", without("feat_projector.bias"))
    with pytest.raises(ValueError, match=r"a\.pt.*feat|a\.pt.*project\.bias"):
        spec.load("cpu", torch.float32)
    spec = save(tmp_path / "b.pt", without("positional_encoder.scale"))
    with pytest.raises(ValueError, match=r"b\.pt.*lacks positional_encoder\.scale"):
        _ = spec.n_layers
    state = {k: v for k, v in read().items() if not k.startswith("wav_encoder")}
    spec = save(tmp_path / "c.pt", state)
    with pytest.raises(ValueError, match=r"no codec inside.*16 inputs.*256 mel"):
        _ = spec.n_layers
    with pytest.raises(ValueError, match=r"n_heads=5 .*24 components.*would have 20"):
        _ = EncodecMAESpec(str(ENCODECMAE / "ec-ec-v1.pt"), n_heads=5).n_features


class Harmful:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("code of the file was run",)


def test_nothing_but_tensors_is_unpickled(tmp_path):
    torch.save({"state_dict": read(), "config": Harmful()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt holds more than tensors"):
        _ = EncodecMAESpec(str(tmp_path / "a.pt")).n_layers


def test_damaged_files(tmp_path):
    whole = (ENCODECMAE / "ec-ec-v1.pt").read_bytes()
    for name, content in (("half", whole[: len(whole) // 2]), ("text", b"weights")):
        path = tmp_path / f"{name}.pt"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}\.pt"):
            _ = EncodecMAESpec(str(path)).n_layers


def test_files_in_the_format_before_archives(tmp_path, clips):
    path = tmp_path / "old.pt"
    torch.save(read(), path, _use_new_zipfile_serialization=False)
    old = run(EncodecMAESpec(str(path), n_heads=4), [clips["clip0"]])
    np.testing.assert_array_equal(old[-1], run(make_spec("v1"), [clips["clip0"]])[-1])


def test_a_file_may_be_written_over_while_it_is_in_use(tmp_path, clips):
    path = tmp_path / "model.pt"
    shutil.copy(ENCODECMAE / "ec-ec-v1.pt", path)
    spec = EncodecMAESpec(str(path), n_heads=4)
    encoder, identity = spec.load("cpu", torch.float32), spec.identity
    waveform = torch.from_numpy(clips["clip0"])
    before = [frames.clone() for _, frames in encoder([waveform])]
    torch.save({"state_dict": {}}, path)
    after = [frames for _, frames in encoder([waveform])]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert EncodecMAESpec(str(path), n_heads=4).identity != identity


def test_identity_follows_content_and_settings(tmp_path):
    spec = make_spec("v1")
    copied = shutil.copy(ENCODECMAE / "ec-ec-v1.pt", tmp_path / "model.pt")
    for path in (copied, tmp_path):
        assert EncodecMAESpec(str(path), n_heads=4).identity == spec.identity
    variants = [make_spec("v2"), make_spec("v1", stream="normed"), make_spec("mel")]
    assert len({spec.identity, *(v.identity for v in variants)}) == 4
    assert str(ENCODECMAE) not in spec.identity


def test_folders(tmp_path):
    (tmp_path / "a.pt").touch()
    assert find_file(tmp_path).name == "a.pt"
    (tmp_path / "b.pt").touch()
    with pytest.raises(OSError, match=r"nor model\.pt.*\(a\.pt, b\.pt\)"):
        find_file(tmp_path)
    (tmp_path / "model.pt").touch()
    assert find_file(tmp_path).name == "model.pt"
    with pytest.raises(OSError, match="There is no file or folder"):
        find_file(tmp_path / "nowhere" / "model.pt")
    for name in ("encodecmae-base", "weights/model.pt", "./weights/model"):
        with pytest.raises(OSError, match="There is no file or folder"):
            find_file(name)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    encodecmae_files._from_hub.cache_clear()
    yield tmp_path
    encodecmae_files._from_hub.cache_clear()


def test_names_on_the_hub(hub_cache):
    commit = "0123456789abcdef0123456789abcdef01234567"
    for repository, name, source in (
        ("encodecmae-base", "model.pt", "ec-ec-v1.pt"),
        ("encodecmae-v2", "mel256-ec-base.pt", "mel256-ec-v2.pt"),
    ):
        cache = hub_cache / f"models--lpepino--{repository}"
        (cache / "snapshots" / commit).mkdir(parents=True)
        shutil.copy(ENCODECMAE / source, cache / "snapshots" / commit / name)
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text(commit)
    first = EncodecMAESpec("lpepino/encodecmae-base", n_heads=4)
    assert first.identity == make_spec("v1").identity
    for name in ("mel256-ec-base", "mel256-ec-base.pt"):
        second = EncodecMAESpec(f"lpepino/encodecmae-v2/{name}", n_heads=4)
        assert second.identity == make_spec("mel").identity
    with pytest.raises(OSError, match=r"'ec-ec-base\.pt' of 'lpepino/encodecmae-v2'"):
        _ = EncodecMAESpec("lpepino/encodecmae-v2/ec-ec-base").n_layers
