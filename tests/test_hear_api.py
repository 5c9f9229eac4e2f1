"""Our embedders as modules of HEAR's common API, and the checks of its validator."""

import copy
import importlib
import pickle
import pkgutil
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skaudioemb import (
    CREPE,
    AudioError,
    Fusion,
    HEARModel,
    HuBERT,
    LogMel,
    list_embedders,
    make_embedder,
)
from skaudioemb.hear import modules
from skaudioemb.hear.api import as_module, functions_of, validate, write_module
from skaudioemb.presets import get_preset
from skaudioemb.store import Store
from tests.models import CHECKPOINTS, ENCODECMAE, byol_file, wavlm_folder
from tests.sounds import tone

LENGTHS = (3000, 8000, 8000, 16000, 17120)


@pytest.fixture
def sounds():
    rng = np.random.default_rng(2)
    return [rng.uniform(-0.5, 0.5, n).astype(np.float32) for n in LENGTHS]


@pytest.fixture
def audio():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 17120, generator=generator) * 2 - 1


def close(got, expected, tolerance=1e-5):
    scale = np.abs(np.asarray(expected)).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale)


def tiny(name):
    """Return options that put small checkpoints in the place of a preset's own."""
    own = {
        "hubert__checkpoint": str(CHECKPOINTS / "hubert-xlarge-like"),
        "wav2vec2__checkpoint": str(CHECKPOINTS / "wav2vec2-large-like"),
        "wavlm__checkpoint": str(wavlm_folder()),
        "crepe__model": "tiny",
    }
    members = get_preset(name).members
    options = {key: own[key] for key in own if key.partition("__")[0] in members}
    for member, model in members.items():
        options |= {
            f"{member}__{key}": value for key, value in standing_in(model).items()
        }
    return options


def standing_in(model):
    """Return parameters that replace the weights of one model of a preset."""
    if model.estimator in ("BYOLA", "BYOLS"):
        file = byol_file(model.params["encoder"], model.n_features)
        return {"weights": str(file), "normalize": "clip"}
    # HEAR knows no rate of 24 kHz: recordings come at twice that and are resampled.
    if model.estimator == "EnCodec":
        return {"checkpoint": str(ENCODECMAE / "tiny-encodec"), "sample_rate": 48000}
    if model.estimator == "EncodecMAE":
        mel = "mel256" in str(model.weights)
        file = ENCODECMAE / ("mel256-ec-v2.pt" if mel else "ec-ec-v1.pt")
        return {"checkpoint": str(file), "n_heads": 4, "sample_rate": 48000}
    return {}


UNPADDED = {"HuBERT", "Wav2Vec2", "WavLM", "OpenSMILE", "EnCodec", "EncodecMAE"}


def fusion(**params):
    return Fusion(
        [
            ("hubert", HuBERT(CHECKPOINTS / "hubert-large-like")),
            ("crepe", CREPE("tiny")),
        ],
        **params,
    )


def test_every_preset_has_a_module():
    found = [module.name for module in pkgutil.iter_modules(modules.__path__)]
    assert sorted(found) == list_embedders()


@pytest.mark.parametrize("name", list_embedders())
def test_presets_meet_the_checks_of_the_validator(name):
    """Without errors; models that do not pad begin late or end early."""
    models = {model.estimator for model in get_preset(name).members.values()}
    if "OpenSMILE" in models:
        pytest.importorskip("opensmile")
    report = validate(f"skaudioemb.hear.modules.{name}", **tiny(name))
    report.raise_errors()
    assert report.ok
    early = [w for w in report.warnings if "than the hop of" in w]
    assert list(report.warnings) == early
    assert bool(early) <= bool(models & UNPADDED)


@pytest.mark.parametrize("name", ["fusion_cat_xwc", "fusion_cat_xwc_g", "logmel"])
@pytest.mark.parametrize("fidelity", ["corrected", "paper"])
def test_modules_give_what_presets_give(name, fidelity, audio):
    module = importlib.import_module(f"skaudioemb.hear.modules.{name}")
    model = module.load_model(fidelity=fidelity, **tiny(name))
    embedder = make_embedder(name, fidelity, **tiny(name))
    clips = list(audio.numpy())
    scenes = module.get_scene_embeddings(audio, model)
    values, timestamps = module.get_timestamp_embeddings(audio, model)
    close(scenes, embedder.fit_transform(clips))
    close(values, [frames.values for frames in embedder.frames(clips)])
    times = [frames.times * 1000 for frames in embedder.frames(clips)]
    np.testing.assert_allclose(timestamps, times, rtol=1e-6)
    for each in (scenes, values, timestamps):
        assert each.dtype == torch.float32
    widths = model.scene_embedding_size, model.timestamp_embedding_size
    assert [type(width) for width in widths] == [int, int]
    assert widths == (scenes.shape[1], values.shape[2])


def test_grouped_scenes_are_wider_than_frames(audio):
    module = as_module(fusion(segments=5))
    model = module.load_model()
    assert model.scene_embedding_size == 5 * model.timestamp_embedding_size
    assert module.get_scene_embeddings(audio, model).shape == (3, 5 * (16 + 256))
    assert validate(module).ok


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_timestamps_do_not_drift(rate):
    """A click late in a clip lies in the frame whose timestamp is nearest."""
    seconds, hop = 61.37, 0.025
    module = as_module(LogMel(hop=hop, window=0.025, sample_rate=rate))
    model = module.load_model()
    assert model.sample_rate == rate
    audio = torch.zeros(1, round(seconds * rate))
    audio[0, round(60.0 * rate)] = 1
    values, timestamps = module.get_timestamp_embeddings(audio, model)
    expected = np.arange(values.shape[1]) * 1000 * hop
    np.testing.assert_allclose(timestamps[0], expected, rtol=1e-6)
    assert abs(seconds * 1000 - float(timestamps[0, -1])) <= 1000 * hop
    assert float(timestamps[0, values[0].sum(1).argmax()]) == 60_000


@pytest.mark.parametrize(
    "embedder",
    [
        LogMel(hop=0.025),
        LogMel(hop=0.025, sample_rate=44100),
        CREPE("tiny"),
        CREPE("tiny", scene_hop=0.25, segments=2),
        fusion(merge="interleave", n_features=16),
    ],
    ids=["logmel", "logmel-44100", "crepe", "crepe-groups", "fusion"],
)
def test_round_trip(embedder, sounds):
    """An embedder around the module of an embedder is that embedder."""
    rate = embedder.get_params().get("sample_rate", 16000)
    again = HEARModel(as_module(embedder), sample_rate=rate)
    close(again.fit_transform(sounds), clone(embedder).fit_transform(sounds))
    for got, expected in zip(
        again.frames(sounds), embedder.frames(sounds), strict=True
    ):
        close(got.values, expected.values)
        np.testing.assert_allclose(got.times, expected.times, atol=1e-6)


def test_stores_tell_embedders_apart(sounds, tmp_path):
    variants = [LogMel(), LogMel(n_mels=32), LogMel(f_min=100.0), CREPE("tiny")]
    for _ in range(2):
        for embedder in variants:
            again = HEARModel(as_module(embedder, "skaudioemb_test"), memory=tmp_path)
            close(again.transform(sounds), embedder.transform(sounds))
    del sys.modules["skaudioemb_test"]


def test_options_are_parameters(audio):
    module = as_module(LogMel())
    model = module.load_model(n_mels=20, pooling="max", sample_rate=22050)
    assert (model.scene_embedding_size, model.sample_rate) == (20, 22050)
    assert module.load_model().scene_embedding_size == 128
    with pytest.raises(ValueError, match="n_bands"):
        module.load_model(n_bands=20)


def test_a_file_path_is_the_checkpoint(audio, tmp_path):
    module = as_module(HuBERT(str(tmp_path / "nowhere")))
    path = str(CHECKPOINTS / "hubert-large-like")
    model = module.load_model(path, layers="mean")
    expected = HuBERT(path, layers="mean").transform(audio.numpy())
    close(module.get_scene_embeddings(audio, model), expected)
    with pytest.raises(ValueError, match=r"LogMel has no checkpoint.*hubert__check"):
        as_module(LogMel()).load_model(path)
    with pytest.raises(OSError, match="nowhere"):
        module.load_model()


def test_the_model_is_a_module_of_torch(audio):
    module = as_module(fusion(), "skaudioemb_test")
    model = module.load_model()
    assert isinstance(model, torch.nn.Module)
    assert [*model.parameters()] == []
    again = pickle.loads(pickle.dumps(model.eval().to("cpu")))
    expected = module.get_scene_embeddings(audio, model)
    close(module.get_scene_embeddings(audio, again), expected)
    del sys.modules["skaudioemb_test"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_work_is_done_where_the_model_is(audio):
    module = as_module(fusion())
    model = module.load_model()
    expected = module.get_scene_embeddings(audio, model)
    model = model.to("cuda")
    for given in (audio, audio.to("cuda")):
        scenes = module.get_scene_embeddings(given, model)
        values, timestamps = module.get_timestamp_embeddings(given, model)
        assert {each.device.type for each in (scenes, values, timestamps)} == {"cuda"}
        close(scenes.cpu(), expected, 1e-4)
    assert module.get_scene_embeddings(audio, model.to("cpu")).device.type == "cpu"


def test_a_move_sets_the_device_of_every_member():
    model = as_module(fusion()).load_model()
    model.place = torch.empty(0, device="meta")
    members = dict(model.prepared().embedders)
    assert {member.device for member in members.values()} == {"meta"}


@pytest.mark.parametrize("name", [None, "skaudioemb_test"])
def test_copies_and_pickles_of_modules(sounds, name):
    """Other processes make the module anew, also one that only this one can import."""
    module = as_module(LogMel(n_mels=8), name)
    assert copy.deepcopy(module) is module
    embedder = HEARModel(module).fit(sounds)
    expected = embedder.transform(sounds)
    close(clone(embedder).transform(sounds), expected)
    close(pickle.loads(pickle.dumps(embedder)).transform(sounds), expected)
    embedder.set_params(n_jobs=2, pooling="mean")
    frames = embedder.frames(sounds)
    close(embedder.transform(sounds), [values.mean(axis=0) for values, _ in frames])
    sys.modules.pop(name, None)


def test_names():
    module = as_module("crepe_tiny", "skaudioemb_test")
    assert importlib.import_module("skaudioemb_test") is module
    assert HEARModel("skaudioemb_test").fit([tone(440, 16000)])._n_features_out == 256
    assert as_module(LogMel(), "skaudioemb_test") is sys.modules["skaudioemb_test"]
    del sys.modules["skaudioemb_test"]
    with pytest.raises(ValueError, match="'json' is the name of another module"):
        as_module(LogMel(), "json")
    assert as_module(LogMel()).__name__ not in sys.modules


@pytest.mark.parametrize(
    ("embedder", "error", "match"),
    [
        ("logmell", ValueError, "no model called 'logmell'"),
        (3, TypeError, "3 is no embedder"),
    ],
)
def test_no_embedders(embedder, error, match, tmp_path):
    for function in (as_module, functions_of):
        with pytest.raises(error, match=match):
            function(embedder)
    with pytest.raises(error, match=match):
        write_module(embedder, tmp_path / "a.py")


def test_rates_that_hear_has_not():
    with pytest.raises(ValueError, match=r"sample_rate=8000.*16000, 22050.*resamples"):
        as_module(LogMel(sample_rate=8000)).load_model()
    mixed = Fusion([("a", LogMel()), ("b", LogMel(sample_rate=48000))])
    with pytest.raises(ValueError, match=r"\[16000, 48000\].*give them the same"):
        as_module(mixed).load_model()


def test_bad_audio():
    module = as_module(LogMel())
    model = module.load_model()
    for audio, match in ((torch.zeros(9), r"\(9,\)"), ([0.0], "list")):
        with pytest.raises(ValueError, match=f"{match}.*n_sounds, n_samples"):
            module.get_scene_embeddings(audio, model)
    with pytest.raises(AudioError, match=r"clip 1.*NaN"):
        module.get_timestamp_embeddings(torch.tensor([[0.0], [torch.nan]]), model)


@pytest.mark.parametrize(
    "embedder",
    [
        "crepe_tiny",
        LogMel(n_mels=np.int64(20), f_min=50.5, pooling="mean"),
        fusion(segments=2, merge="mean", n_features="reference"),
        HEARModel("tests.hear_modules", options={"hop": 0.05, "seed": 3}),
    ],
    ids=["preset", "logmel", "fusion", "hear"],
)
def test_written_modules(embedder, tmp_path, monkeypatch, audio):
    name = f"written_{type(embedder).__name__.lower()}"
    path = write_module(embedder, tmp_path / f"{name}.py")
    assert path == tmp_path / f"{name}.py"
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(name)
    assert validate(name).ok
    if isinstance(embedder, str):
        embedder = make_embedder(embedder)
    expected = clone(embedder).fit_transform(list(audio.numpy()))
    close(module.get_scene_embeddings(audio, module.load_model()), expected)
    close(HEARModel(name).transform(list(audio.numpy())), expected)


def test_what_is_written(tmp_path):
    embedder = Fusion(
        [("hubert", HuBERT(tmp_path, layers=[0, 1], max_seconds=None))], segments=2
    )
    text = write_module(embedder, tmp_path / "mine.py").read_text()
    assert "from skaudioemb import Fusion, HuBERT\n" in text
    assert f"checkpoint={str(tmp_path)!r}" in text
    assert "layers=[0, 1]" in text
    # What is at its default is left out.
    assert "pooling" not in text
    assert max(map(len, text.splitlines())) <= 88 + len(str(tmp_path))


def test_modules_that_cannot_be_written(tmp_path):
    with pytest.raises(TypeError, match=r"embedder\.memory is .*Store"):
        write_module(LogMel(memory=Store(tmp_path)), tmp_path / "a.py")
    for name in ("a.txt", "2.py", "my-module.py"):
        with pytest.raises(ValueError, match="no name of a module"):
            write_module(LogMel(), tmp_path / name)
    assert [*tmp_path.iterdir()] == []
