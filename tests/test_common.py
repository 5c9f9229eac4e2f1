"""scikit-learn's checks and the package's contracts, over every embedder."""

import pickle
import sqlite3
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from sklearn.base import clone
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from skaudioemb import AudioError, Frames, Fusion, HEARModel
from skaudioemb.frames import pool
from tests.models import embedders

EMBEDDERS = embedders()
SINGLE = {name: e for name, e in EMBEDDERS.items() if not isinstance(e, Fusion)}


@pytest.fixture(params=EMBEDDERS)
def embedder(request):
    return clone(EMBEDDERS[request.param])


@pytest.fixture(params=SINGLE)
def single(request):
    return clone(SINGLE[request.param])


def n_models(embedder):
    """Return the number of encoders behind an embedder."""
    if not isinstance(embedder, Fusion):
        return 1
    return sum(n_models(member) for _, member in embedder.embedders)


def set_everywhere(embedder, **params):
    """Set parameters of an embedder, or of every member of a fusion."""
    if not isinstance(embedder, Fusion):
        return embedder.set_params(**params)
    for _, member in embedder.embedders:
        set_everywhere(member, **params)
    return embedder


def assert_close(got, expected):
    """Equal within 1e-5 of the largest magnitude (contract 2)."""
    np.testing.assert_allclose(
        got, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


@parametrize_with_checks(list(EMBEDDERS.values()))
def test_sklearn_checks(estimator, check):
    check(estimator)


def test_a_clips_embedding_belongs_to_the_clip(embedder, clips):
    alone = np.concatenate([embedder.transform([clip]) for clip in clips])
    assert_close(embedder.transform(clips), alone)
    assert_close(embedder.transform(clips[::-1])[::-1], alone)
    set_everywhere(embedder, batch_seconds=0.4)
    assert_close(embedder.transform(clips), alone)
    twins = embedder.transform([clips[2], clips[4], clips[2]])
    assert_close(twins, alone[[2, 4, 2]])


def test_frames_belong_to_the_clip(embedder, clips):
    together = embedder.frames(clips)
    for clip, (values, times) in zip(clips, together, strict=True):
        (alone,) = embedder.frames([clip])
        assert_close(values, alone.values)
        np.testing.assert_array_equal(times, alone.times)


@pytest.mark.parametrize("pooling", ["mean", "max", "mean+max", "mean-std"])
@pytest.mark.parametrize("segments", [None, 3])
def test_pooled_frames_equal_transform(embedder, clips, pooling, segments):
    if pooling not in getattr(embedder, "_poolings", ("mean", "max", "mean+max")):
        return
    embedder.set_params(pooling=pooling, segments=segments)
    frames = embedder.frames(clips)
    pooled = [pool(values, pooling, segments) for values, _ in frames]
    assert_close(embedder.fit_transform(clips), pooled)


def test_frames_are_float32_and_their_times_inside_the_clip(embedder, clips):
    for clip, frames in zip(clips, embedder.frames(clips), strict=True):
        assert isinstance(frames, Frames)
        values, times = frames
        assert values.dtype == np.float32
        assert times.dtype == np.float64
        assert len(values) == len(times) >= 1
        assert times[0] >= 0
        assert times[-1] <= len(clip) / 16000
        # A last frame that the clip does not fill is placed inside of it.
        assert len(times) < 4 or np.ptp(np.diff(times)[:-1]) < 1e-9
        assert (np.diff(times) > 0).all()


def test_output(embedder, clips):
    embeddings = embedder.fit_transform(clips)
    names = embedder.get_feature_names_out()
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (len(clips), len(names))
    assert len(set(names)) == len(names)
    assert np.isfinite(embeddings).all()
    table = embedder.set_output(transform="pandas").fit_transform(clips)
    assert list(table.columns) == list(names)
    assert_close(table.to_numpy(), embeddings)


def test_unfitted_equals_fitted(embedder, clips):
    assert_close(embedder.transform(clips), clone(embedder).fit(clips).transform(clips))


def test_forms_of_a_clip_agree(embedder, clips, tmp_path):
    longest = np.round(clips[-1] * 2**15).astype(np.int16)
    path = tmp_path / "clip.wav"
    soundfile.write(path, longest, 16000)
    forms = [
        longest / np.float32(2**15),
        longest,
        path,
        str(path),
        (path, 0, None),
        {"array": longest, "sampling_rate": 16000},
        {"bytes": path.read_bytes(), "path": None},
        np.stack([longest, longest]),
    ]
    embeddings = embedder.transform(forms)
    assert_close(embeddings, np.repeat(embeddings[:1], len(forms), axis=0))
    series = embedder.transform(pd.Series([str(path)], index=[7]))
    assert_close(series, embeddings[:1])
    assert_close(embedder.transform(np.stack([forms[0]] * 2)), embeddings[:2])


def test_bare_arrays_have_the_embedders_rate(single, clips):
    """Half the samples at half the rate are about the same sound."""
    time = np.arange(16000) / 16000
    sound = (np.sin(2 * np.pi * 440 * time) * np.hanning(16000)).astype(np.float32)
    full = single.transform([sound])
    half = single.set_params(sample_rate=8000).transform([sound[::2]])
    wrong = single.transform([sound])
    assert np.abs(half - full).max() < 0.5 * np.abs(wrong - full).max()


def test_no_forward_twice(embedder, clips, tmp_path, counted):
    set_everywhere(embedder, memory=tmp_path)
    cold = embedder.fit_transform(clips)
    assert counted().run == n_models(embedder) * len(clips)
    paths = [tmp_path / f"{number}.wav" for number in range(len(clips))]
    for path, clip in zip(paths, clips, strict=True):
        soundfile.write(path, clip, 16000, subtype="FLOAT")
    set_everywhere(embedder, batch_seconds=1.0, device="cpu")
    assert_close(clone(embedder).fit_transform(clips), cold)
    assert_close(clone(embedder).fit_transform(clips[::-1])[::-1], cold)
    assert_close(clone(embedder).fit_transform(paths), cold)
    assert counted().run == 0


def test_layers_and_pooling_need_no_forward(single, clips, tmp_path, counted):
    single.set_params(memory=tmp_path).fit_transform(clips)
    counted()
    all_layers = (
        ["last", "mean", "all", 0, -1, [0, 1]] if hasattr(single, "layers") else [0]
    )
    for layers in all_layers:
        if hasattr(single, "layers"):
            single.set_params(layers=layers)
        for pooling in ("mean", "max", "mean+max"):
            if isinstance(layers, list) and "max" in pooling:
                continue
            stored = clone(single).set_params(pooling=pooling).transform(clips)
            assert counted().run == 0
            fresh = clone(single).set_params(pooling=pooling, memory=None)
            assert_close(stored, fresh.transform(clips))
            counted()


def test_one_store_serves_every_embedder(clips, tmp_path):
    """Different models and settings never mix in a shared store."""
    variants = [*SINGLE.values()]
    variants += [
        clone(SINGLE["crepe"]).set_params(hop=0.05),
        clone(SINGLE["logmel"]).set_params(f_min=100.0),
        clone(SINGLE["wav2vec2-base"]).set_params(normalize="none"),
        clone(SINGLE["wav2vec2-base"]).set_params(dtype="bfloat16"),
        clone(SINGLE["wav2vec2-base"]).set_params(sample_rate=8000),
    ]
    for variant in variants:
        expected = variant.transform(clips)
        shared = clone(variant).set_params(memory=tmp_path)
        for _ in range(2):
            assert_close(shared.transform(clips), expected)


def test_damaged_entries_are_run_again(single, clips, tmp_path, counted):
    single.set_params(memory=tmp_path)
    expected = single.transform(clips)
    (path,) = tmp_path.glob("*.sqlite")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE payloads SET data = zeroblob(length(data))")
    connection.close()
    counted()
    with pytest.warns(RuntimeWarning, match="damaged"):
        again = single.transform(clips)
    assert counted().run == len(clips)
    assert_close(again, expected)
    assert_close(single.transform(clips), expected)
    assert counted().run == 0


def test_pickles_hold_no_weights(embedder, clips):
    expected = embedder.fit_transform(clips)
    pickled = pickle.dumps(embedder)
    assert len(pickled) < 5000
    assert_close(pickle.loads(pickled).transform(clips), expected)


def test_clones_share_weights(embedder, clips, counted):
    embedder.fit_transform(clips[:1])
    counted()
    clone(embedder).fit_transform(clips[:1])
    clone(embedder).set_params(**embedder.get_params()).transform(clips[:1])
    assert counted().loaded == 0


def test_all_layers_side_by_side(single, clips):
    if hasattr(single, "layers"):
        single.set_params(layers="all")
    width = single.fit_transform(clips).shape[1]
    assert width % single.n_layers_ == 0
    assert (single.n_layers_ > 1) == hasattr(single, "layers")


def test_constructing_and_fitting_load_no_weights(single, clips, counted):
    single.fit(clips)
    # What speaks HEAR's API tells its widths by a loaded model only.
    assert counted().loaded <= isinstance(single, HEARModel)


def test_processes_give_the_same(single, clips, tmp_path, counted):
    expected = single.transform(clips)
    counted()
    with joblib.parallel_config("loky", n_jobs=2):
        assert_close(single.transform([*clips, clips[0]])[:-1], expected)
    single.set_params(n_jobs=2, memory=tmp_path)
    assert_close(single.transform([*clips, clips[0]])[:-1], expected)
    counted()
    assert_close(single.transform(clips), expected)
    assert counted() == (len(clips), 0, 0)


BAD = {
    "NaN": (np.array([0.0, np.nan]), "NaN"),
    "infinity": (np.array([0.0, -np.inf]), "infin"),
    "empty": (np.array([]), "empty|no samples|0 samples"),
    "missing": ("nowhere/clip.wav", "nowhere/clip.wav"),
    "text": (__file__, "test_common.py"),
    "strings": (np.array(["a", "b"]), "dtype text"),
    "keys": ({"samples": [0.0]}, "array.*sampling_rate"),
    "complex": (np.array([1j]), "[Cc]omplex"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_clips_get_a_sentence(embedder, clips, kind):
    bad, match = BAD[kind]
    with pytest.raises(AudioError, match=f"(?s)clip 1.*{match}"):
        embedder.transform([clips[0], bad])


def test_bad_clips_become_nan_rows(single, clips):
    mixed = [clips[0], *(bad for bad, _ in BAD.values()), clips[1]]
    single.set_params(on_error="nan")
    with pytest.warns(UserWarning, match="8 of 10 clips") as caught:
        embeddings = single.transform(mixed)
    assert len(caught) == 1
    assert all(f"clip {index} " in str(caught[0].message) for index in range(1, 9))
    assert np.isnan(embeddings[1:-1]).all()
    assert_close(embeddings[[0, -1]], single.transform(clips[:2]))
    with pytest.warns(UserWarning, match="8 of 10 clips"):
        frames = single.frames(mixed)
    assert [np.isnan(values).all() for values, _ in frames] == [
        False,
        *[True] * 8,
        False,
    ]


def test_bad_clips_of_a_fusion(clips):
    fusion = set_everywhere(clone(EMBEDDERS["nested"]), on_error="nan")
    with pytest.warns(UserWarning, match="1 of 3 clips"):
        embeddings = fusion.fit_transform([clips[0], "nowhere.wav", clips[1]])
    assert np.isnan(embeddings).all(axis=1).tolist() == [False, True, False]
    with pytest.warns(UserWarning, match="1 of 1 clips"):
        assert np.isnan(fusion.transform(["nowhere.wav"])).all()


class Lazy:
    """A column that decodes at access, one clip of which is broken."""

    def __init__(self, clips):
        self.clips = clips

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        if index == 1:
            raise RuntimeError("could not decode")
        return self.clips[index]


def test_columns_that_fail_at_access(clips):
    embedder = clone(EMBEDDERS["logmel"])
    with pytest.raises(AudioError, match=r"clip 1: it could not be had.*not decode"):
        embedder.transform(Lazy(clips))
    with pytest.warns(UserWarning, match="1 of 6 clips"):
        embeddings = embedder.set_params(on_error="nan").transform(Lazy(clips))
    assert np.isnan(embeddings).all(axis=1).tolist() == [False, True, *[False] * 4]


def test_tensors_are_tables_too(embedder):
    rows = torch.randn(2, 2000, generator=torch.Generator().manual_seed(0))
    expected = embedder.transform(rows.numpy())
    assert_close(embedder.transform(rows.clone().requires_grad_()), expected)
    half = rows.bfloat16()
    assert_close(embedder.transform(half), embedder.transform(half.float().numpy()))


def test_allow_nan_follows_on_error(embedder):
    assert not get_tags(embedder).input_tags.allow_nan
    set_everywhere(embedder, on_error="nan")
    assert get_tags(embedder).input_tags.allow_nan


@pytest.mark.parametrize("n_samples", [1, 2, 399, 400, 719, 720])
def test_very_short_and_silent_clips(embedder, n_samples):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silent, loud = embedder.transform([np.zeros(n_samples), np.ones(n_samples)])
    assert np.isfinite(silent).all()
    assert np.isfinite(loud).all()


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"pooling": "median"}, "pooling"),
        ({"segments": 0}, "segments"),
        ({"dtype": "float64"}, "dtype"),
        ({"on_error": "ignore"}, "on_error"),
        ({"batch_seconds": 0.0}, "batch_seconds"),
        ({"sample_rate": 16000.5}, "sample_rate"),
        ({"device": "tpu-9"}, "device"),
        ({"n_jobs": 0}, "n_jobs"),
    ],
)
def test_bad_parameters_get_a_sentence(single, clips, params, match):
    with pytest.raises(ValueError, match=match):
        single.set_params(**params).fit(clips).transform(clips)


@pytest.mark.parametrize("X", ["clip.wav", np.zeros(100), [], {"a": 1}])
def test_x_that_is_no_sequence_of_clips(embedder, X):
    with pytest.raises(ValueError, match=r"X is|0 sample|[Ee]mpty|1D array"):
        embedder.fit(X)
