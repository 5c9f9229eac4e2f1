"""HEARModel: modules that speak HEAR's common API, and some that do so badly."""

import pickle

import joblib
import numpy as np
import pytest
import soundfile
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from skaudioemb import Fusion, HEARModel, LogMel, devices
from tests import hear_modules
from tests.hear_modules import Bands, variant
from tests.sounds import tone

NAME = "tests.hear_modules"
LENGTHS = (1, 300, 5000, 9000, 9000, 9000, 16000)


@pytest.fixture
def sounds():
    rng = np.random.default_rng(1)
    return [rng.uniform(-0.5, 0.5, n).astype(np.float32) for n in LENGTHS]


def close(got, expected, tolerance=1e-5):
    scale = np.abs(np.asarray(expected)).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale)


@parametrize_with_checks([HEARModel(NAME)])
def test_sklearn_checks(estimator, check):
    check(estimator)


def test_gives_what_the_module_gives(sounds):
    embedder = HEARModel(NAME)
    model = hear_modules.load_model().eval()
    scenes, frames = embedder.fit_transform(sounds), embedder.frames(sounds)
    assert scenes.shape == (len(sounds), 16)
    assert len(embedder.get_feature_names_out()) == 16
    for sound, scene, (values, times) in zip(sounds, scenes, frames, strict=True):
        audio = torch.from_numpy(sound)[None]
        with torch.no_grad():
            expected, stamps = hear_modules.get_timestamp_embeddings(audio, model)
            close(scene, hear_modules.get_scene_embeddings(audio, model)[0])
        close(values, expected[0])
        np.testing.assert_allclose(times, stamps[0] / 1000, atol=1e-6)


@pytest.mark.parametrize("pooling", ["scene", "mean"])
@pytest.mark.parametrize("batch_seconds", [60.0, 0.4])
def test_a_clip_does_not_depend_on_its_batch(sounds, pooling, batch_seconds):
    embedder = HEARModel(NAME, pooling=pooling, batch_seconds=batch_seconds)
    alone = np.concatenate([embedder.transform([sound]) for sound in sounds])
    close(embedder.transform(sounds), alone)
    close(embedder.transform(sounds[::-1])[::-1], alone)


def test_only_equal_lengths_run_together(sounds):
    seen = []

    def watch(embeddings):
        seen.append(len(embeddings))
        return embeddings

    HEARModel(variant(scenes=watch)).transform(sounds)
    # The clips of 9000 samples, and one of them again to see that company is harmless.
    assert sorted(seen) == [1, 1, 1, 1, 1, 3]
    seen.clear()
    HEARModel(variant(scenes=watch), batch_size=2).transform(sounds)
    assert sorted(seen) == [1, 1, 1, 1, 1, 1, 2]


def test_scenes_are_run_once_with_a_store(sounds, tmp_path, counted):
    embedder = HEARModel(NAME, memory=tmp_path)
    cold = embedder.transform(sounds)
    assert counted().run == len(sounds)
    np.testing.assert_array_equal(clone(embedder).transform(sounds[::-1])[::-1], cold)
    again = clone(embedder).set_params(batch_size=1, device="cpu")
    np.testing.assert_array_equal(again.transform(sounds), cold)
    assert counted().run == 0
    embedder.set_params(pooling="mean").transform(sounds)
    assert counted().run == len(sounds)
    embedder.set_params(pooling="max").transform(sounds)
    assert counted().run == 0


def test_one_model_serves_scenes_and_frames(sounds):
    loads = []

    def load(model):
        loads.append(model)
        return model

    embedder = HEARModel(variant(load=load))
    embedder.fit(sounds).transform(sounds)
    embedder.frames(sounds)
    clone(embedder).set_params(pooling="max").fit_transform(sounds)
    assert len(loads) == 1
    embedder.set_params(options={"seed": 3}).transform(sounds)
    assert len(loads) == 2


@pytest.mark.parametrize(("hop", "rate"), [(0.1, 16000), (0.025, 44100)])
@pytest.mark.parametrize("descending", [True, False])  # as batches, or as they come
def test_few_lengths_tell_the_frames_of_all(hop, rate, descending):
    """The model is run on noise for a few of many lengths."""
    spec = HEARModel(
        NAME, options={"hop": hop, "rate": rate}, device="cpu"
    )._make_spec()
    lengths = np.random.default_rng(0).integers(rate // 2, 3 * rate, 600).tolist()
    lengths += [round(hop * rate) * i + j for i in range(40, 60) for j in (-1, 0, 1)]
    devices.clear_encoders()
    np.random.default_rng(1).shuffle(lengths)
    for length in sorted(lengths, reverse=True) if descending else lengths:
        assert spec.n_frames(length) == 1 + length // round(hop * rate)
    assert len(spec._encoder.grids.known) < 100
    seen = len(spec._encoder.grids.known)
    assert spec.n_frames(rate) == 1 + rate // round(hop * rate)
    assert len(spec._encoder.grids.known) <= seen + 1


def test_modules_that_treat_short_clips_otherwise():
    """Clips under half a second are padded by the module, others are not."""

    def at_least_half(function):
        def padded(audio, model):
            missing = max(0, 8000 - audio.shape[1])
            return function(torch.nn.functional.pad(audio, (0, missing)), model)

        return padded

    module = variant()
    module.get_timestamp_embeddings = at_least_half(module.get_timestamp_embeddings)
    rng = np.random.default_rng(0)
    clips = [rng.uniform(-1, 1, n) for n in range(30000, 900, -997)]
    for clip, (values, times) in zip(
        clips, HEARModel(module).frames(clips), strict=True
    ):
        assert len(values) == 1 + max(8000, len(clip)) // 1600
        assert times[-1] <= len(clip) / 16000


def test_one_run_on_noise_for_clips_of_one_length():
    seen = []

    def watch(embeddings, timestamps):
        seen.append(len(timestamps))
        return embeddings, timestamps

    clips = np.random.default_rng(0).uniform(-1, 1, (4, 8000))
    HEARModel(variant(watch)).frames(clips)
    # Noise, the batch, and one clip of it alone.
    assert seen == [1, 4, 1]


def test_dropout_is_off(sounds):
    def load(model):
        model.noise = torch.nn.Dropout(0.5)
        return model

    module = variant(load=load)
    get = module.get_scene_embeddings
    module.get_scene_embeddings = lambda audio, model: model.noise(get(audio, model))
    close(
        HEARModel(module).transform(sounds),
        HEARModel(NAME).transform(sounds),
    )


def test_clips_come_at_the_rate_of_the_model(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(440, 16000, 2), 16000, subtype="FLOAT")
    embedder = HEARModel(NAME, options={"rate": 44100}, sample_rate=44100)
    from_file, bare = embedder.transform([path, tone(440, 44100, 2)])
    close(from_file, bare, 0.05)
    (values, times), _ = embedder.frames([path, tone(440, 44100, 2)])
    assert len(values) == 21
    np.testing.assert_allclose(times, np.arange(21) / 10, atol=1e-4)
    # The band of 430 to 517 Hz, not the one where 440 samples a cycle would lie.
    assert (values[5:15].argmax(axis=1) == int(440 / (44100 / 64))).all()


def test_weights_and_options_are_told_apart(sounds, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(Bands(seed=1).state_dict(), path)
    store = {"memory": tmp_path / "store"}
    plain = HEARModel(NAME, **store).transform(sounds)
    first = HEARModel(NAME, model_file_path=path, **store).transform(sounds)
    close(first, HEARModel(NAME, options={"seed": 1}, **store).transform(sounds))
    assert np.abs(first - plain).max() > 1
    torch.save(Bands(seed=2).state_dict(), path)
    second = HEARModel(NAME, model_file_path=str(path), **store).transform(sounds)
    close(second, HEARModel(NAME, options={"seed": 2}).transform(sounds))


def test_padding_is_told_apart(sounds, tmp_path):
    plain = HEARModel(NAME, memory=tmp_path)
    padded = HEARModel(NAME, min_seconds=0.5, memory=tmp_path)
    expected = HEARModel(NAME).transform([np.pad(sounds[1], (0, 7700)), sounds[-1]])
    for _ in range(2):
        plain.transform(sounds)
        close(padded.transform([sounds[1], sounds[-1]]), expected)
    assert np.abs(plain.transform(sounds)[1] - expected[0]).max() > 1


def test_processes_and_pickles(sounds):
    embedder = HEARModel(hear_modules)
    expected = embedder.fit_transform(sounds)
    pickled = pickle.dumps(embedder)
    assert len(pickled) < 1500
    assert pickle.loads(pickled).module == NAME
    close(pickle.loads(pickled).transform(sounds), expected)
    with joblib.parallel_config("loky", n_jobs=2):
        close(HEARModel(NAME).transform(sounds), expected)


def test_module_objects_can_be_cloned(sounds):
    embedder = HEARModel(variant(), options={"hop": 0.05})
    twin = clone(embedder)
    assert twin.module is embedder.module
    assert twin.options == embedder.options
    assert twin.options is not embedder.options
    assert clone(twin.set_output(transform="pandas")).fit_transform(sounds).shape[1]
    fusion = clone(Fusion([("hear", embedder), ("logmel", LogMel(n_mels=8))]))
    assert fusion.fit_transform(sounds).shape == (len(sounds), 40)


def test_a_fusion_takes_the_frames(sounds):
    hear = HEARModel(NAME)
    fusion = Fusion([("hear", hear), ("logmel", LogMel(n_mels=8))], reference="hear")
    pooled = fusion.fit_transform(sounds)
    close(pooled[:, :32], clone(hear).set_params(pooling="mean").transform(sounds))
    (first, *_), (own, *_) = fusion.frames(sounds), hear.frames(sounds)
    close(first.values[:, :32], own.values)


def test_embeddings_that_are_not_finite(sounds):
    embedder = HEARModel(variant(scenes=lambda e: e / 0), on_error="nan")
    with pytest.warns(UserWarning, match="7 of 7 clips .*NaN"):
        assert np.isnan(embedder.transform(sounds)).all()


def with_attribute(name, value):
    def load(model):
        setattr(model, name, value)
        return model

    return load


BAD_MODELS = {
    "rate": (with_attribute("sample_rate", None), "sample_rate=None.*positive int"),
    "float": (with_attribute("sample_rate", 16000.0), r"sample_rate=16000\.0"),
    "scene": (with_attribute("scene_embedding_size", 0), "scene_embedding_size=0"),
    "frame": (with_attribute("timestamp_embedding_size", "32"), "='32'"),
    "kind": (lambda model: {"model": model}, r"builtins\.dict.*torch\.nn\.Module"),
}


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_bad_models_get_a_sentence(sounds, kind):
    load, match = BAD_MODELS[kind]
    with pytest.raises(TypeError, match=f"variant.*{match}"):
        HEARModel(variant(load=load)).fit(sounds)


@pytest.mark.parametrize("pooling", ["scene", "mean"])
def test_company_that_changes_an_embedding_is_refused(pooling):
    noise = np.random.default_rng(0).uniform(-1, 1, (3, 8000))
    module = variant(lambda e, t: (e - e.mean(0), t), lambda e: e + e.sum(0))
    embedder = HEARModel(module, pooling=pooling)
    with pytest.raises(ValueError, match=r"depends on the others.*batch_size=1"):
        embedder.transform(noise)
    alone = embedder.set_params(batch_size=1).transform(noise)
    expected = np.concatenate([embedder.transform(row[None]) for row in noise])
    np.testing.assert_array_equal(alone, expected)


def test_failures_tell_the_length(sounds):
    def demand(audio, model):
        if audio.shape[1] < 4000:
            raise RuntimeError("Calculated padded input size: too small")
        return hear_modules.get_scene_embeddings(audio, model)

    module = variant()
    module.get_scene_embeddings = demand
    match = r"variant\.get_scene_embeddings failed on 1 .*\(0\.01875 s\).*min_seconds"
    with pytest.raises(ValueError, match=match) as caught:
        HEARModel(module).transform([sounds[1]])
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert HEARModel(module, min_seconds=0.25).transform(sounds).shape == (7, 16)


@pytest.mark.parametrize(
    ("module", "match"),
    [
        ("hear21passt.base", "pip install hear21passt"),
        ("wav2clip_hear", r"pip install git\+https://.*wav2clip-hear"),
        ("no_such_module", "no_such_module.*spelling"),
        ("tests.no_such_module", r"tests\.no_such_module.*spelling"),
    ],
)
def test_missing_modules(sounds, module, match):
    with pytest.raises(ImportError, match=match):
        HEARModel(module).fit(sounds)


def test_modules_that_need_what_is_missing(sounds, tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import not_there.at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"'needs_more' needs 'not_there'.*Install"):
        HEARModel("needs_more").fit(sounds)


def test_modules_that_speak_otherwise(sounds):
    with pytest.raises(TypeError, match=r"no load_model and no .*submodule"):
        HEARModel("numpy").fit(sounds)


@pytest.mark.parametrize(
    ("params", "error", "match"),
    [
        ({"options": {"seed": {1}}}, TypeError, "JSON"),
        ({"options": "seed"}, ValueError, "options"),
        ({"module": 3}, ValueError, "module"),
        ({"model_file_path": "nowhere.pt"}, FileNotFoundError, "nowhere.pt"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"min_seconds": -1}, ValueError, "min_seconds"),
        ({"segments": 2}, ValueError, "segments=2 needs frames"),
        ({"pooling": "median"}, ValueError, "'scene', 'mean'"),
    ],
)
def test_bad_parameters(sounds, params, error, match):
    with pytest.raises(error, match=match):
        HEARModel(NAME).set_params(**params).fit(sounds)


def test_frames_that_lie_behind_short_clips(sounds):
    """A clip that is padded for the model has its frames inside all the same."""
    embedder = HEARModel(NAME, min_seconds=1.0)
    for sound, (values, times) in zip(sounds, embedder.frames(sounds), strict=True):
        assert len(values) == 11
        assert times[-1] <= len(sound) / 16000
        assert (np.diff(times) > 0).all()


def test_uneven_timestamps_are_kept():
    def stretch(embeddings, timestamps):
        return embeddings, timestamps**2 / 1000

    (frames,) = HEARModel(variant(stretch)).frames([np.zeros(16000)])
    np.testing.assert_allclose(frames.times, (np.arange(11) / 10) ** 2, atol=1e-6)


def test_half_precision_runs_under_autocast(sounds):
    exact = HEARModel(NAME).transform(sounds)
    coarse = HEARModel(NAME, dtype="bfloat16").transform(sounds)
    assert coarse.dtype == np.float32
    assert 0 < np.abs(coarse - exact).max() < 0.02 * np.abs(exact).max()
