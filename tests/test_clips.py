import io
import math
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from skaudioemb.audio import (
    AudioError,
    check_clips,
    describe,
    load,
)

RATE = 16000


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-0.7, 0.7, shape).astype(np.float32)


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(8000), 8000, subtype="FLOAT")
    return path


@pytest.mark.parametrize(
    ("clip", "name"),
    [
        ("folder/a.wav", "a.wav"),
        ("folder/", "folder"),
        ("", "empty path"),
        (Path("folder/a.wav"), "a.wav"),
        (np.str_("folder/a.wav"), "a.wav"),
        (("folder/a.wav", 0.5, None), "a.wav from 0.5 s to None"),
        ([0.0, 1.0], "array of 2 samples"),
        (np.zeros(5), "array of 5 samples"),
        (torch.zeros(2, 50), "array of shape (2, 50)"),
        ({"bytes": b"1234", "path": None}, "4 bytes"),
        ({"bytes": b"1234", "path": "x/a.wav"}, "a.wav"),
        ({"array": [1.0], "sampling_rate": 8000}, "array of 1 samples"),
        ({}, "dict with the keys []"),
        (None, "NoneType"),
        (3.5, "float"),
    ],
)
def test_describe(clip, name):
    assert describe(clip) == name


def test_errors_carry_clip_and_index_through_pickles():
    with pytest.raises(AudioError) as caught:
        load("no.wav", RATE)
    error = pickle.loads(pickle.dumps(caught.value.at(3)))
    assert (error.clip, error.index) == ("no.wav", 3)
    assert str(error) == f"clip 3 (no.wav): {caught.value.reason}"
    assert str(AudioError("a reason.").at(0)) == "clip 0: a reason."
    assert isinstance(error, ValueError)


class Decoder:
    """As torchcodec.decoders.AudioDecoder, which torch alone does not bring."""

    def __init__(self, data, sample_rate=8000):
        self.samples = SimpleNamespace(data=data, sample_rate=sample_rate)

    def get_all_samples(self):
        if self.samples.data is None:
            raise RuntimeError("no audio stream found")
        return self.samples


def test_sequences_of_clips(wav):
    paths = [str(wav)] * 2
    for X in (
        paths,
        tuple(paths),
        np.array(paths),
        np.array(paths, object),
        pd.Series(paths, index=[5, 3]),
        pd.Series(paths, dtype="string"),
        [(wav, 0, 0.5), (wav, 0.5, None)],
        [{"path": wav}, {"path": wav}],
        pd.Series([{"path": wav}, {"path": wav}], index=[5, 3]),
        noise(2, 100),
        noise(2, 100).tolist(),
        torch.zeros(2, 100),
        pd.DataFrame(noise(2, 100)),
        noise(2, 100).astype(object),
        [noise(10), noise(20)],
        [[0.5], [0.25]],
    ):
        clips = check_clips(X)
        assert len(clips) == 2
        for i in range(2):
            assert load(clips[i], RATE).samples.dtype == np.float32


def test_a_missing_path_in_a_series_is_named():
    for missing in (None, math.nan):
        clips = check_clips(pd.Series([missing, "a.wav"], dtype=object))
        with pytest.raises(AudioError, match=r"found (None|nan), a missing value"):
            load(clips[0], RATE)


def test_lazy_sequences_stay_lazy():
    class Column:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            raise AssertionError("decoded")

    column = Column()
    assert check_clips(column) is column


def test_objects_that_only_turn_into_arrays():
    class OnlyArray:
        def __array__(self, dtype=None, copy=None):
            return noise(2, 100)

    assert check_clips(OnlyArray()).shape == (2, 100)


@pytest.mark.parametrize(
    ("X", "found"),
    [
        ("a.wav", "X is a single path, 'a.wav'.*wrap it in a list"),
        (Path("a.wav"), "X is a single path, 'a.wav'.*wrap it in a list"),
        (Path(__file__).parent, "X is a folder.*list its files"),
        (b"RIFF", "X is of type bytes"),
        (io.BytesIO(), "X is of type BytesIO"),
        ({"array": [0.5], "sampling_rate": 1}, "wrap this one clip in a list"),
        ({"file": ["a.wav"]}, "the keys .'file'.: pass one of its columns"),
        ({"a.wav"}, r"X is a set.*sorted\(X\)"),
        ((c for c in ["a.wav"]), r"X is of type generator.*list\(X\)"),
        (None, "X is of type NoneType"),
        (3, "X is of type int"),
        (np.array(3.0), "X is a single number"),
        (("a.wav", 0, None), "X is one segment"),
        (Decoder(None), "X is one Decoder"),
        ([0.1, 0.2, 0.3], "X is one clip of 3 samples.*Reshape your data"),
        (np.zeros(5), "X is one clip of 5 samples.*Reshape your data"),
        (torch.zeros(5), "X is one clip of 5 samples.*Reshape your data"),
        (pd.Series([0.5, 0.5]), "X is one clip of 2 samples"),
        ([], "X is empty"),
        (np.empty(0, object), "X is empty"),
        (np.empty((0, 5)), "X is empty"),
        (np.empty((5, 0)), r"0 feature\(s\) \(shape=\(5, 0\)\) while a minimum of 1 "),
        (np.zeros((2, 5), complex), "Complex data not supported"),
        (np.zeros((2, 5), bool), "2-D array of dtype bool"),
        (np.array([["a.wav"], ["b.wav"]]), "paths go into a 1-D array"),
        (np.array([["a.wav"], ["b.wav"]], object), "could not convert string"),
        (pd.DataFrame({"file": ["a.wav"]}), "a table with the columns .'file'."),
        (SimpleNamespace(column_names=["audio"]), "a table with the columns .'audio'"),
    ],
)
def test_what_is_no_sequence_of_clips(X, found):
    with pytest.raises(AudioError, match=found):
        check_clips(X)


def test_a_matrix_of_objects_that_are_no_numbers():
    with pytest.raises(TypeError, match=r"argument must be .* string.* number"):
        check_clips(np.array([[0.5, {}], [0.5, 0.5]], object))


def test_sparse_matrices_are_refused():
    sparse = pytest.importorskip("scipy.sparse").csr_array(np.eye(3))
    with pytest.raises(AudioError, match="sparse audio is not supported"):
        check_clips(sparse)
