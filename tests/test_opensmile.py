"""OpenSMILE: against the package opensmile itself, and as an estimator."""

import pickle
import sys
import warnings
from importlib import metadata
from importlib.util import find_spec

import numpy as np
import pytest
import soundfile
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler

from skaudioemb import CREPE, AudioError, Fusion, LogMel, OpenSMILE, make_embedder
from skaudioemb.datasets import make_notes
from skaudioemb.encoders import opensmile as encoders
from skaudioemb.encoders.opensmile import FEATURE_SETS, LEVELS, OpenSMILESpec
from skaudioemb.presets import get_preset
from tests.models import small_probe

installed = pytest.mark.skipif(
    find_spec("opensmile") is None, reason="the package opensmile is not installed"
)
SPECS = [
    (feature_set, level)
    for feature_set, known in FEATURE_SETS.items()
    for level in LEVELS
    if known.has_deltas or level != "deltas"
]


@pytest.fixture
def voice():
    """A second of a gliding, pulsing tone with overtones at 16 kHz."""
    time = np.arange(16000) / 16000
    phase = 2 * np.pi * np.cumsum(150 + 30 * np.sin(5 * time)) / 16000
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    noise = np.random.default_rng(0).normal(0, 0.003, len(time))
    return np.float32(0.2 * tone * (0.6 + 0.4 * np.sin(15 * time)) + noise)


def on_grid(samples):
    """Return samples that 16 bits hold."""
    return np.float32(np.round(samples * 32768) / 32768)


def smile(feature_set, level="functionals"):
    """Return what openSMILE itself calls a set and a level."""
    import opensmile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return opensmile.Smile(
            opensmile.FeatureSet[feature_set], opensmile.FeatureLevel[LEVELS[level]]
        )


@installed
@pytest.mark.parametrize(("feature_set", "level"), SPECS)
def test_what_is_known_without_the_package_holds(feature_set, level, voice):
    spec = OpenSMILESpec(feature_set, level)
    encoder = spec.load("cpu", torch.float32)
    assert len(encoder.feature_names) == spec.n_features
    shortest = spec.min_samples
    lengths = (shortest, shortest + 159, shortest + 160, 4321)
    clips = [torch.from_numpy(voice[:n]) for n in lengths]
    ((layer, frames),) = encoder(clips)
    assert layer == 0
    counts = [spec.n_frames(n) for n in lengths]
    assert frames.shape == (sum(counts), spec.n_features)
    assert frames.dtype == torch.float32
    assert torch.isfinite(frames).all()
    for n_samples, count in zip(lengths, counts, strict=True):
        times = spec.times_of(n_samples)
        assert len(times) == count
        assert 0 < times[0] < times[-1] + 1e-9 <= n_samples / 16000 + 1e-9
    with pytest.warns(UserWarning, match="Segment too short"):
        too_short = encoder.smile(voice[: shortest - 1], 16000)
    assert np.isnan(too_short).all()


@installed
@pytest.mark.parametrize("feature_set", ["ComParE_2016", "eGeMAPSv02"])
def test_functionals_are_opensmiles(feature_set, voice):
    clips = [on_grid(voice[:n]) for n in (16000, 5000)]
    embedder = OpenSMILE(feature_set).fit(clips)
    found, own = embedder.transform(clips), smile(feature_set)
    for row, clip in zip(found, clips, strict=True):
        expected = own.process_signal(clip, 16000)
        np.testing.assert_array_equal(row, expected.to_numpy()[0])
    assert list(embedder.get_feature_names_out()) == list(expected.columns)
    assert found.dtype == np.float32


@installed
def test_descriptors_are_opensmiles_with_the_centres_of_its_windows(voice):
    [(values, times)] = OpenSMILE("eGeMAPSv02").frames([on_grid(voice)])
    expected = smile("eGeMAPSv02", "static").process_signal(on_grid(voice), 16000)
    np.testing.assert_array_equal(values, expected.to_numpy())
    start, end = (
        expected.index.get_level_values(name).total_seconds()
        for name in ("start", "end")
    )
    # The end of the last is that of the clip.
    np.testing.assert_allclose(times[:-1], (start + end)[:-1] / 2, atol=1e-9)
    np.testing.assert_allclose(np.diff(times), 0.01, atol=1e-9)


@installed
@pytest.mark.parametrize("feature_set", ["ComParE_2016", "IS09", "IS11", "emobase"])
def test_a_click_is_found_at_its_time(feature_set):
    clip = np.random.default_rng(0).normal(0, 1e-3, 16000)
    clip[8000:8040] += 0.5
    embedder = OpenSMILE(feature_set, pooling="mean").fit([clip])
    [(values, times)] = embedder.frames([clip])
    names = embedder.get_feature_names_out()
    (tilt,) = (i for i, name in enumerate(names) if "mfcc" in name and "[1]" in name)
    change = np.abs(values[:, tilt] - np.median(values[:, tilt]))
    centre = np.average(times, weights=change > change.max() / 4)
    assert abs(centre - 8020 / 16000) < 0.005


@installed
@pytest.mark.parametrize("feature_set", ["ComParE_2016", "IS12", "IS10", "IS09"])
def test_deltas_are_the_slopes_of_the_descriptors(feature_set, voice):
    embedders = [
        OpenSMILE(feature_set, descriptors=descriptors, pooling="mean").fit([voice])
        for descriptors in ("static", "deltas")
    ]
    static, deltas = (embedder.frames([voice])[0] for embedder in embedders)
    np.testing.assert_array_equal(static.times, deltas.times)
    x = static.values.astype(np.float64)
    slopes = (x[3:-1] - x[1:-3] + 2 * (x[4:] - x[:-4])) / 10
    scale = np.abs(x).max(axis=0)
    error = np.abs(slopes - deltas.values[2:-2]) / np.maximum(scale, 1e-9)
    # Slopes of what voice has alone stop where it does.
    voiced = ("F0final", "voicing", "jitter", "shimmer", "logHNR")
    names = embedders[0].get_feature_names_out()
    others = [not name.startswith(voiced) for name in names]
    assert sum(others) >= 14
    assert error[:, others].max() < 1e-4


@installed
def test_loud_samples_are_clipped_not_wrapped(voice):
    loud = np.clip(on_grid(voice) * 8, -1, 1)
    loud[100:5000:700] = 1.0
    largest = np.minimum(loud, np.float32(32767 / 32768))
    found = OpenSMILE("eGeMAPSv02").transform([loud, largest, loud * 1.5, -loud])
    np.testing.assert_array_equal(found[0], found[1])
    own = smile("eGeMAPSv02")
    wrapped, expected = (own(clip, 16000)[0, :, 0] for clip in (loud, largest))
    np.testing.assert_array_equal(found[0], expected)
    assert np.mean(~np.isclose(wrapped, expected, rtol=0.05)) > 0.1
    assert np.isfinite(found).all()


@installed
@pytest.mark.parametrize("pooling", ["functionals", "mean"])
def test_short_clips_are_padded_with_zeros(voice, pooling):
    embedder = OpenSMILE("eGeMAPSv02", pooling=pooling)
    clips = [voice[:n] for n in (1, 300, 959)]
    padded = [np.pad(clip, (0, 960 - len(clip))) for clip in clips]
    found = embedder.transform([*clips, np.zeros(5), np.zeros(9000), np.ones(700)])
    np.testing.assert_array_equal(found[:3], embedder.transform(padded))
    assert np.isfinite(found).all()
    for clip, (values, times) in zip(clips, embedder.frames(clips), strict=True):
        assert len(values) == len(times) == 2
        assert 0 <= times[0] < times[1] <= len(clip) / 16000


@installed
def test_features_that_are_not_finite(voice, monkeypatch):
    """No sound is known for which there are some, so openSMILE's answer is changed."""
    encoder = OpenSMILESpec("IS09", "functionals").load("cpu", torch.float32)
    answer = encoder.smile(voice, 16000)
    damaged = answer.copy()
    damaged[0, :3, 0] = np.nan, np.inf, -np.inf
    clip = torch.from_numpy(voice)
    monkeypatch.setattr(encoder, "smile", lambda *_: damaged)
    ((_, values),) = encoder([clip])
    assert values[0, :3].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(values[0, 3:], answer[0, 3:, 0])
    monkeypatch.setattr(encoder, "smile", lambda *_: np.full_like(answer, np.nan))
    ((_, values),) = encoder([clip])
    assert torch.isnan(values).all()


@installed
def test_functionals_belong_to_the_clip(clips, tmp_path, counted):
    embedder = OpenSMILE("eGeMAPSv02")
    alone = np.concatenate([embedder.transform([clip]) for clip in clips])
    np.testing.assert_array_equal(embedder.fit_transform(clips[::-1])[::-1], alone)
    forked = clone(embedder).set_params(n_jobs=2)
    np.testing.assert_array_equal(forked.transform(clips), alone)
    embedder.set_params(memory=tmp_path, batch_seconds=0.3)
    counted()
    np.testing.assert_array_equal(embedder.transform(clips), alone)
    assert counted().run == len(clips)
    embedder.set_params(batch_seconds=60.0, dtype="float32", device="cpu")
    again = pickle.loads(pickle.dumps(embedder)).transform(clips)
    np.testing.assert_array_equal(again, alone)
    assert counted().run == 0


@installed
def test_the_store_knows_version_set_and_level(clips, tmp_path, counted, monkeypatch):
    variants = [
        OpenSMILE("eGeMAPSv02"),
        OpenSMILE("eGeMAPSv01b"),
        OpenSMILE("IS09", pooling="mean"),
        OpenSMILE("IS09", pooling="mean", descriptors="deltas"),
        OpenSMILE("IS09"),
    ]
    counted()
    for variant in variants:
        expected = variant.transform(clips)
        shared = clone(variant).set_params(memory=tmp_path)
        for _ in range(2):
            np.testing.assert_array_equal(shared.transform(clips), expected)
    assert counted().run == 2 * len(variants) * len(clips)
    # Functionals do not depend on the descriptors of frames.
    variants[-1].set_params(descriptors="deltas", memory=tmp_path).transform(clips)
    assert counted().run == 0
    monkeypatch.setattr(encoders, "find_version", lambda: "99.0")
    variants[-1].transform(clips)
    assert counted().run == len(clips)


@installed
def test_names_of_pooled_descriptors(voice):
    own = smile("eGeMAPSv02", "static").feature_names
    embedder = OpenSMILE("eGeMAPSv02", pooling="mean-std", segments=2).fit([voice])
    names = list(embedder.get_feature_names_out())
    assert names[:25] == [f"{name}_mean_0" for name in own]
    assert names[75:] == [f"{name}_std_1" for name in own]
    row = dict(zip(names, embedder.transform([voice])[0], strict=True))
    [(values, _)] = embedder.frames([voice])
    second = values[len(values) // 2 :, 0]
    assert np.isclose(row[f"{own[0]}_mean_1"], second.mean(), rtol=1e-5)
    assert np.isclose(row[f"{own[0]}_std_1"], second.std(), rtol=1e-4)
    table = (
        OpenSMILE("GeMAPSv01b").set_output(transform="pandas").fit_transform([voice])
    )
    assert table["F0semitoneFrom27.5Hz_sma3nz_amean"].between(20, 40).all()


@installed
def test_files_of_another_rate(voice, tmp_path):
    from scipy.signal import resample_poly

    path = tmp_path / "voice.wav"
    soundfile.write(path, resample_poly(voice, 3, 1), 48000, subtype="FLOAT")
    embedder = OpenSMILE("eGeMAPSv02", pooling="mean").fit([voice])
    found, expected = embedder.transform([path, voice])
    names = list(embedder.get_feature_names_out())
    pitch = names.index("F0semitoneFrom27.5Hz_sma3nz_mean")
    assert abs(found[pitch] - expected[pitch]) < 0.2


@installed
def test_beside_a_learned_embedding(tmp_path):
    """The paper's "+ OS": both standardised and put side by side."""
    notes = make_notes(n_clips=36, noise=0.05, random_state=0)
    X, y = notes.data, notes.timbre
    crepe = CREPE("tiny", hop=0.1, memory=tmp_path)
    models = crepe, OpenSMILE("ComParE_2016", memory=tmp_path)
    features = make_pipeline(make_union(*models), StandardScaler())
    rows = features.fit_transform(X)
    assert rows.shape == (36, 256 + 6373)
    varying = np.ptp(rows, axis=0) > 0
    assert varying.sum() > 5000
    np.testing.assert_allclose(rows[:, varying].std(axis=0), 1, atol=0.01)
    names = features.get_feature_names_out()
    assert names[256] == "opensmile__audspec_lengthL1norm_sma_range"
    apart = make_union(*(make_pipeline(e, StandardScaler()) for e in models))
    np.testing.assert_allclose(apart.fit_transform(X), rows, atol=1e-5)

    model = make_pipeline(make_union(*models), StandardScaler(), small_probe())
    grid = {"featureunion__opensmile__feature_set": ["ComParE_2016", "IS09"]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, y)
    assert search.best_score_ > 2 / len(set(y))


@installed
def test_in_a_fusion(clips):
    fusion = Fusion([("crepe", CREPE("tiny", hop=0.1)), ("smile", OpenSMILE("IS09"))])
    embeddings = fusion.fit_transform(clips)
    assert embeddings.shape == (len(clips), 256 + 16)
    frames = OpenSMILE("IS09", pooling="mean").transform(clips)
    assert np.corrcoef(embeddings[:, -16], frames[:, 0])[0, 1] > 0.9


@installed
def test_bad_clips(clips):
    X = [clips[0], np.array([0.0, np.nan]), clips[1]]
    with pytest.raises(AudioError, match=r"clip 1.*NaN"):
        OpenSMILE("IS09").transform(X)
    with pytest.warns(UserWarning, match="1 of 3 clips"):
        rows = OpenSMILE("IS09", on_error="nan").transform(X)
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"feature_set": "ComParE"}, "feature_set.*ComParE_2016"),
        (
            {"feature_set": "eGeMAPSv02", "descriptors": "deltas"},
            "not part of eGeMAPSv02",
        ),
        ({"descriptors": "lld"}, "descriptors"),
        ({"segments": 2}, "segments=2 needs frames"),
        ({"pooling": "scene"}, "'functionals', 'mean', 'max'"),
    ],
)
def test_mistakes_get_a_sentence(clips, params, match):
    with pytest.raises(ValueError, match=f"(?s){match}"):
        OpenSMILE(**params).fit(clips)


def test_without_the_package(clips, monkeypatch):
    """Widths are known; the first clip asks for the package, and says how."""
    monkeypatch.setitem(sys.modules, "opensmile", None)

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    embedder = OpenSMILE("IS10").fit(clips)
    for ask in (
        lambda: embedder.transform(clips),
        lambda: embedder.frames(clips),
        embedder.get_feature_names_out,
        encoders.import_opensmile,
    ):
        with pytest.raises(ImportError, match=r"pip install 'skaudioemb\[opensmile\]'"):
            ask()
    assert LogMel().transform(clips).shape == (len(clips), 128)


@pytest.mark.parametrize(
    ("name", "widths"), [("compare_2016", (6373, 65)), ("egemapsv02", (88, 25))]
)
def test_presets_state_widths_and_licence(name, widths, clips):
    preset = get_preset(name)
    assert (preset.n_features, preset.n_frame_features) == widths
    embedder = make_embedder(name).fit(clips)
    assert embedder._n_features_out == widths[0]
    assert embedder._make_spec().n_features == widths[1]
    assert "audEERING" in preset.licence
    assert "forbids products" in " ".join(OpenSMILE.__doc__.split())
