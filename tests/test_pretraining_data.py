"""Random crops of recordings: which, from where, and how much is read."""

import numpy as np
import pytest
import soundfile
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skaudioemb import audio
from skaudioemb.encoders.byol_spec import MIN_STD
from skaudioemb.pretraining.data import CropBatches, read_crop, statistics
from tests.sounds import noise

RATE = 16000


def make_batches(clips, batch_size=4, seed=0, n_samples=100, **options):
    options = {"in_pairs": True, **options}
    return CropBatches(clips, n_samples, RATE, batch_size, seed, **options)


def epoch_of(batches, number):
    return [batch.waveforms.numpy() for batch in batches.epoch(number)]


def ramps(n_clips, n_samples=400):
    """Clips in which every sample tells its clip and its place."""
    return [k + np.arange(n_samples) / n_samples for k in range(n_clips)]


def test_an_epoch_holds_one_crop_of_every_clip():
    parts = epoch_of(make_batches(ramps(11)), 0)
    assert [len(part) for part in parts] == [4, 4, 3]
    crops = np.concatenate(parts)
    assert crops.dtype == np.float32
    assert sorted(np.floor(crops[:, 0])) == list(range(11))
    assert_allclose(np.diff(crops, axis=1), 1 / 400, atol=1e-5)


def test_crops_differ_between_epochs_and_repeat_with_the_seed():
    clips = ramps(9)
    first, again, other = (make_batches(clips, seed=seed) for seed in (0, 0, 1))
    assert_array_equal(
        np.concatenate(epoch_of(first, 3)), np.concatenate(epoch_of(again, 3))
    )
    places = [
        sorted(np.concatenate(epoch_of(batches, number))[:, 0])
        for batches, number in ((first, 0), (first, 1), (other, 0))
    ]
    assert not np.allclose(places[0], places[1])
    assert not np.allclose(places[0], places[2])


def test_threads_do_not_change_an_epoch():
    clips = ramps(20)
    one, many = (epoch_of(make_batches(clips, n_threads=n), 2) for n in (1, 5))
    assert_array_equal(np.concatenate(one), np.concatenate(many))


@pytest.mark.parametrize(
    ("n_clips", "batch_size", "sizes"),
    [(2, 256, [2]), (5, 4, [3, 2]), (3, 2, [3]), (8, 4, [4, 4]), (5, 1, [3, 2])],
)
def test_no_batch_holds_one_clip(n_clips, batch_size, sizes):
    batches = make_batches(ramps(n_clips), batch_size)
    assert [len(part) for part in epoch_of(batches, 0)] == sizes
    assert len(batches) == len(sizes)


def test_crops_begin_anywhere_in_the_clip():
    clip = np.arange(120.0)
    begins = {int(read_crop(clip, u, 100, RATE)[0]) for u in np.linspace(0, 1, 200)}
    assert begins == set(range(21))


def test_short_clips_lie_in_the_middle():
    crop = read_crop(np.ones(5), 0.7, 12, RATE)
    assert_array_equal(crop, [0] * 3 + [1] * 5 + [0] * 4)


@pytest.mark.parametrize(
    ("suffix", "rate"), [("wav", 16000), ("flac", 8000), ("wav", 44100)]
)
@pytest.mark.parametrize("place", [0.0, 0.37, 0.999])
def test_a_file_gives_the_crop_of_its_whole(tmp_path, suffix, rate, place):
    samples = noise(3 * rate)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, samples, rate)
    decoded = soundfile.read(path, dtype="float32")[0]
    n_samples = RATE // 2
    expected = read_crop(
        {"array": decoded, "sampling_rate": rate}, place, n_samples, RATE
    )
    assert expected.shape == (n_samples,)
    for clip in (path, {"path": str(path)}):
        assert_allclose(read_crop(clip, place, n_samples, RATE), expected, atol=1e-5)


def test_resampled_crops_are_free_of_edges():
    waveform = audio.Waveform(noise(8000), 8000)
    whole = audio.resample(waveform, RATE)
    crop = read_crop(
        {"array": waveform.samples, "sampling_rate": 8000}, 0.5, 4000, RATE
    )
    begin = 2 * int(0.5 * (8000 - 2000 + 1))
    assert_allclose(crop, whole[begin : begin + 4000], atol=1e-5)


def test_only_the_crop_is_read(tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    soundfile.write(path, noise(60 * 1000), 1000)
    n_read = []
    read = soundfile.SoundFile.read

    def spy(file, frames=-1, **options):
        block = read(file, frames, **options)
        n_read.append(len(block))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", spy)
    read_crop(path, 0.5, RATE, RATE)
    assert 1000 <= sum(n_read) < 1300


def test_a_segment_is_cropped_inside(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.repeat([0.1, 0.5, 0.9], RATE), RATE, subtype="FLOAT")
    for place in (0.0, 0.5, 0.999):
        crop = read_crop((path, 1.0, 2.0), place, RATE // 2, RATE)
        assert_allclose(crop, 0.5)


def test_bad_clips_are_named(tmp_path):
    clips = [*ramps(3), tmp_path / "missing.wav", *ramps(2)]
    with pytest.raises(
        audio.AudioError, match=r"^clip 3 \(missing\.wav\): there is no"
    ):
        epoch_of(make_batches(clips), 0)


def test_bad_clips_are_left_out_on_request():
    clips = [*ramps(3), np.full(400, np.nan), *ramps(2)]
    batches = make_batches(clips, on_error="nan")
    assert sum(map(len, epoch_of(batches, 0))) == 5
    with pytest.warns(UserWarning, match=r"1 of 6 clips .*\nclip 3 .*not finite"):
        batches.warn_of_bad()


def test_targets_belong_to_their_crops():
    batches = make_batches(ramps(9), targets=lambda crops: crops[:, :1] * 2)
    for batch in batches.epoch(0):
        assert torch.equal(batch.targets, batch.waveforms[:, :1] * 2)


def test_a_failure_of_the_targets_ends_the_epoch():
    def fail(crops):
        raise audio.AudioError("the crop is too short.")

    with pytest.raises(audio.AudioError, match="too short"):
        epoch_of(make_batches(ramps(9), targets=fail), 0)


def test_statistics_are_those_of_all_values():
    batches = make_batches(ramps(10))
    crops = np.concatenate(epoch_of(batches, 0)).astype(np.float64)
    mean, std = statistics(batches, lambda waveforms: waveforms)
    assert mean == pytest.approx(crops.mean(), abs=1e-9)
    assert std == pytest.approx(crops.std(), abs=1e-9)
    few, _ = statistics(batches, lambda waveforms: waveforms, max_clips=4)
    assert few == pytest.approx(crops[:4].mean(), abs=1e-9)


def test_statistics_of_silence_have_the_floor_of_embeddings():
    batches = make_batches([np.zeros(400)] * 4)
    assert statistics(batches, lambda waveforms: waveforms) == (0.0, MIN_STD)


def test_statistics_of_no_good_clip_name_the_bad_ones():
    batches = make_batches([np.full(400, np.nan)] * 6, on_error="nan")
    for limit in (4, 100):
        with pytest.raises(ValueError, match=r"of 6 clips cannot.*\nclip [0-5] "):
            statistics(batches, lambda waveforms: waveforms, max_clips=limit)
