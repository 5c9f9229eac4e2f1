"""Crops with zeros after them, and as many of a clip as fit into it."""

import io

import numpy as np
import pytest
import soundfile
import torch
from numpy.testing import assert_array_equal

from skaudioemb import audio
from skaudioemb.pretraining.data import CropBatches, read_piece
from skaudioemb.pretraining.durations import seconds_of
from tests.sounds import noise

RATE = 16000


def make_batches(clips, batch_size=4, n_samples=100, **options):
    options = {"zeros": "after", "by_length": True, **options}
    return CropBatches(clips, n_samples, RATE, batch_size, 0, **options)


def test_zeros_lie_after_a_short_clip_and_its_length_is_told():
    clips = [np.full(n, k + 1.0) for k, n in enumerate((30, 100, 7, 250, 60))]
    seen = {}
    for batch in make_batches(clips, batch_size=3, by_length=False).epoch(0):
        assert batch.lengths.dtype == torch.int64
        assert batch.waveforms.shape[1] == batch.lengths.max()
        for row, length in zip(batch.waveforms.numpy(), batch.lengths, strict=True):
            assert (row[:length] == row[0]).all()
            assert (row[length:] == 0).all()
            seen[row[0]] = int(length)
    assert seen == {1: 30, 2: 100, 3: 7, 4: 100, 5: 60}


def test_a_clip_comes_as_often_as_crops_fit_into_it():
    clips = [k + np.arange(n) / n for k, n in enumerate((30, 199, 200, 1050))]
    batches = make_batches(clips)
    assert len(batches) == 4
    parts = [batch.waveforms.numpy() for batch in batches.epoch(0)]
    begins = np.concatenate([part[:, 0] for part in parts])
    counts = np.bincount(begins.astype(int))
    assert counts.tolist() == [1, 1, 2, 10]
    # Each has a place of its own.
    assert len(np.unique(begins)) == 14


def test_fewer_crops_on_request():
    clips = [noise(1000, seed=k) for k in range(3)]
    batches = make_batches(clips)
    assert sum(len(b.waveforms) for b in batches.epoch(0, limit=5)) == 5


def test_lengths_of_every_form_of_clip(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(12000), 8000)
    content = path.read_bytes()
    forms = {
        1.5: [path, str(path), {"path": str(path)}, {"bytes": content}],
        0.5: [(path, 1.0, None), (path, 0.5, 1.0), [str(path), None, 0.5]],
        0.25: [
            np.zeros(4000),
            np.zeros((4000, 2)),
            torch.zeros(2, 4000),
            {"array": np.zeros(2000), "sampling_rate": 8000},
        ],
        0.0: [tmp_path / "missing.wav", {"bytes": b"no audio"}, {}, b"", (path, 1.0)],
    }
    for seconds, clips in forms.items():
        for clip in clips:
            assert seconds_of(clip, RATE) == pytest.approx(seconds), clip


def test_a_decoder_is_not_asked():
    class Decoder:
        def get_all_samples(self):
            raise AssertionError

    assert seconds_of(Decoder()) == 0.0


def test_crops_are_counted_in_seconds(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(11025), 11025)
    assert len(make_batches([path], n_samples=RATE // 2).items) == 2


def test_pieces_have_no_zeros():
    assert_array_equal(read_piece([1.0, 2.0, 3.0], 0.9, 5, RATE), [1.0, 2.0, 3.0])
    assert (
        len(read_piece({"array": noise(50), "sampling_rate": 8000}, 0, 400, RATE))
        == 100
    )
    buffer = io.BytesIO()
    soundfile.write(buffer, noise(300), RATE, format="WAV")
    assert len(read_piece({"bytes": buffer.getvalue()}, 0.5, 120, RATE)) == 120


class TestSmallBatches:
    """Only batch normalisation needs two crops in a batch."""

    @pytest.mark.parametrize(
        ("n_clips", "batch_size", "sizes"),
        [(5, 1, [1] * 5), (6, 4, [3, 3]), (5, 2, [2, 2, 1]), (1, 8, [1])],
    )
    def test_sizes(self, n_clips, batch_size, sizes):
        batches = make_batches([noise(60)] * n_clips, batch_size)
        assert len(batches) == len(sizes)
        assert [len(batch.waveforms) for batch in batches.epoch(0)] == sizes

    def test_in_pairs_on_request(self):
        batches = make_batches([noise(60)] * 5, 1, in_pairs=True)
        assert [len(batch.waveforms) for batch in batches.epoch(0)] == [3, 2]

    @pytest.mark.parametrize("in_pairs", [False, True])
    @pytest.mark.parametrize("place", range(5))
    def test_no_good_clip_is_lost(self, place, in_pairs):
        clips = [np.full(60, k + 1.0) for k in range(4)]
        clips.insert(place, np.full(60, np.nan))
        for zeros in ("around", "after"):
            batches = make_batches(
                clips, 2, zeros=zeros, on_error="nan", in_pairs=in_pairs
            )
            for number in range(5):
                rows = [b.waveforms.numpy() for b in batches.epoch(number)]
                assert sorted(np.concatenate(rows).max(1)) == [1, 2, 3, 4]
                assert min(map(len, rows)) >= 1 + in_pairs
                assert max(map(len, rows)) <= 2 + 2 * in_pairs

    @pytest.mark.parametrize("in_pairs", [False, True])
    def test_many_bad_clips_make_no_larger_batches(self, in_pairs):
        clips = [np.full(60, np.nan if k % 5 else k + 1.0) for k in range(60)]
        batches = make_batches(clips, 4, on_error="nan", in_pairs=in_pairs)
        sizes = [len(batch.waveforms) for batch in batches.epoch(0)]
        assert sum(sizes) == 12
        assert max(sizes) <= 4 + in_pairs

    @pytest.mark.parametrize(
        ("n_bad", "in_pairs", "match"),
        [
            (1, True, r"1 of 2 clips cannot .* two good clips are needed\.\nclip 0"),
            (2, False, r"2 of 2 clips cannot .* one good clip is needed\.\nclip 0"),
            (20, False, r"needed\.\n(clip .*\n){10}and 10 more$"),
        ],
    )
    def test_too_few_good_clips(self, n_bad, in_pairs, match):
        clips = [np.full(60, np.nan)] * n_bad + [noise(60)] * (2 - n_bad)
        batches = make_batches(clips, 4, on_error="nan", in_pairs=in_pairs)
        with pytest.raises(ValueError, match=match):
            list(batches.epoch(0))


class TestLengthsThatMislead:
    def test_a_segment_is_no_longer_than_its_file(self, tmp_path):
        path = tmp_path / "a.wav"
        soundfile.write(path, noise(16000), RATE)
        assert seconds_of((path, 0.25, 3e6)) == 0.75
        assert seconds_of((path, 0.25, 0.5)) == 0.25
        assert seconds_of((path, 2.0, 3.0)) == 0.0
        assert len(make_batches([(path, 0, 3e6)], n_samples=8000).items) == 2

    @pytest.mark.parametrize(
        "clip",
        [
            ("a.wav", "x", None),
            ("a.wav", 0.0, float("nan")),
            {"array": noise(50), "sampling_rate": "x"},
            {"array": noise(50), "sampling_rate": float("nan")},
            {"array": noise(50), "sampling_rate": -1},
            [[1.0], [1.0, 2.0]],
        ],
    )
    def test_nonsense_is_left_to_who_reads_it(self, clip):
        assert seconds_of(clip) == 0.0
        clips = [noise(60), clip, noise(60)]
        batches = make_batches(clips, on_error="nan")
        assert [len(batch.waveforms) for batch in batches.epoch(0)] == [2]
        with pytest.warns(UserWarning, match=r"1 of 3 clips cannot be used.*\nclip 1"):
            batches.warn_of_bad()
        with pytest.raises(audio.AudioError, match="clip 1"):
            list(make_batches(clips).epoch(0))
