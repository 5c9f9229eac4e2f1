import io
import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from skaudioemb import audio
from skaudioemb.audio import (
    load,
)
from tests.sounds import RATE, noise, reason_of, same, tone


@pytest.mark.parametrize("n_channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8000, 11025, 44100, 96000])
@pytest.mark.parametrize(
    ("subtype", "step"),
    [
        ("PCM_U8", 2**-7),
        ("PCM_16", 2**-15),
        ("PCM_24", 2**-23),
        ("PCM_32", 2**-24),
        ("FLOAT", 2**-24),
        ("DOUBLE", 2**-24),
    ],
)
def test_wav_files_of_every_kind(tmp_path, subtype, step, rate, n_channels):
    samples = noise(rate // 10, n_channels)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype=subtype)
    waveform = load(tmp_path / "a.wav", RATE)
    assert waveform.rate == rate
    assert waveform.samples.shape == (rate // 10,)
    error = np.abs(waveform.samples - samples.mean(axis=1, dtype=np.float64))
    assert error.max() <= 1.01 * step + 1e-7


@pytest.mark.parametrize("rate", [16000, 22050, 48000])
@pytest.mark.parametrize(
    ("suffix", "tolerance"), [("flac", 1e-4), ("ogg", 0.05), ("mp3", 0.05)]
)
def test_compressed_files(tmp_path, suffix, tolerance, rate):
    left, right = tone(440, rate), tone(660, rate)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.stack([left, right], axis=1), rate)
    waveform = load(str(path), RATE)
    assert waveform.rate == rate
    assert waveform.samples.shape == left.shape
    error = np.abs(waveform.samples - (left + right) / 2)[500:-500]
    assert error.max() < tolerance


def test_blocks_of_a_long_file_join(tmp_path, monkeypatch):
    samples = noise(10_001, 2)
    for suffix in ("wav", "flac", "ogg", "mp3"):
        path = tmp_path / f"a.{suffix}"
        soundfile.write(path, samples, 44100)
        whole = load(path, RATE)
        monkeypatch.setattr(audio, "READ_FRAMES", 999)
        assert same(load(path, RATE), whole.samples, 44100)
        monkeypatch.undo()


def test_floats_beyond_one_are_kept(tmp_path):
    samples = np.array([3.5, -200.0, 0.0], np.float32)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    assert same(load(tmp_path / "a.wav", RATE), samples)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_segments_are_slices(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(24000, 2), 24000)
    whole = load(path, RATE).samples
    for start, end, begin, stop in [
        (0.25, 0.5, 6000, 12000),
        (None, 0.5, 0, 12000),
        (0, None, 0, None),
        (0.25, None, 6000, None),
        (None, None, 0, None),
        (np.float32(0.25), np.int64(1), 6000, None),
    ]:
        segment = load((path, start, end), RATE)
        assert segment.rate == 24000
        # An mp3 decoder's rounding depends on where it begins.
        np.testing.assert_allclose(segment.samples, whole[begin:stop], atol=3e-7)
    as_list = load([str(path), 0.25, 0.5], RATE)
    assert same(as_list, load((path, 0.25, 0.5), RATE).samples, 24000)


def test_a_segment_reads_nothing_else(tmp_path):
    samples = noise(16000)
    samples[:8000] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    assert same(load((tmp_path / "a.wav", 0.5, 1), RATE), samples[8000:])


@pytest.mark.parametrize(
    ("start", "end"), [(-0.1, 0.5), (0.5, 1.01), (0.7, 0.3), (2, None), (math.nan, 1)]
)
def test_a_segment_outside_its_file(wav, start, end):
    reason = reason_of((wav, start, end))
    assert "the segment goes from" in reason
    assert "the file from 0 s to 1 s" in reason


def test_a_segment_without_samples(wav):
    assert "holds no samples" in reason_of((wav, 0.5, 0.5))


@pytest.mark.parametrize("rest", [(), (1,), (0, 1, 2), ("0", 1), (0, [1])])
def test_a_malformed_segment(wav, rest):
    assert "a segment is (path, start, end)" in reason_of((wav, *rest))


def test_missing_files_name_the_folder_looked_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"'no.wav' in the folder {tmp_path}" in reason_of("no.wav")
    assert "in the folder" not in reason_of(tmp_path / "no.wav")
    (tmp_path / "file").touch()
    assert "cannot be opened" in reason_of(tmp_path / "file" / "a.wav")
    assert "cannot be opened" in reason_of("a\0.wav")


def test_a_folder_is_no_file(tmp_path):
    assert "is a folder: list its files" in reason_of(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    assert "is a device or a pipe" in reason_of(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.raw", "a"])
@pytest.mark.parametrize(
    "content", [b"These are my notes, no audio.\n" * 100, bytes(5000)]
)
def test_files_that_are_not_audio(tmp_path, name, content, capfd):
    (tmp_path / name).write_bytes(content)
    reason = reason_of(tmp_path / name)
    assert "libsndfile cannot decode it (" in reason
    assert "it reads wav, flac, ogg, mp3" in reason
    assert "does not exist" not in reason
    assert "cannot decode" in reason_of({"bytes": content})


def test_an_empty_file(tmp_path):
    (tmp_path / "a.wav").touch()
    assert "holds 0 bytes" in reason_of(tmp_path / "a.wav")
    soundfile.write(tmp_path / "b.wav", np.empty(0), RATE)
    assert "holds no samples" in reason_of(tmp_path / "b.wav")


def test_a_truncated_wav_gives_what_is_there(tmp_path):
    samples = noise(1000)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    os.truncate(tmp_path / "a.wav", os.path.getsize(tmp_path / "a.wav") - 2000)
    assert same(load(tmp_path / "a.wav", RATE), samples[:500])
    os.truncate(tmp_path / "a.wav", 30)
    assert "cannot decode" in reason_of(tmp_path / "a.wav")


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_a_truncated_lossy_file_gives_what_is_there(tmp_path, suffix, capfd):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(100_000), 44100)
    os.truncate(path, int(0.6 * path.stat().st_size))
    assert 0 < len(load(path, RATE).samples) < 100_000
    os.truncate(path, 200)
    assert "cannot decode" in reason_of(path)


def test_a_truncated_flac_fails(tmp_path):
    soundfile.write(tmp_path / "a.flac", noise(44100), 44100)
    os.truncate(tmp_path / "a.flac", 50_000)
    assert "cannot decode it (flac decoder lost sync)" in reason_of(tmp_path / "a.flac")


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (np.int8, [-128, 0, 127], [-1, 0, 127 / 128]),
        (np.uint8, [0, 128, 255], [-1, 0, 127 / 128]),
        (np.int16, [-32768, 0, 16384], [-1, 0, 0.5]),
        (np.int32, [-(2**31), 0, 2**30], [-1, 0, 0.5]),
        (np.int64, [-2, 0, 3], [-2, 0, 3]),
        (np.float16, [-2, 0, 0.5], [-2, 0, 0.5]),
        (np.float32, [-2, 0, 0.5], [-2, 0, 0.5]),
        (np.float64, [-2, 0, 0.5], [-2, 0, 0.5]),
        (">i2", [-32768, 0, 16384], [-1, 0, 0.5]),
        (">f8", [-2, 0, 0.5], [-2, 0, 0.5]),
    ],
)
def test_arrays_of_every_dtype(dtype, values, expected):
    array = np.array(values, dtype)
    assert same(load(array, RATE), expected)
    assert same(load(array[::-1], RATE), expected[::-1])
    assert same(load(np.stack([array] * 20)[3], RATE), expected)
    if array.dtype.isnative:
        assert same(load(torch.from_numpy(array), RATE), expected)


def test_pcm_arrays_equal_their_files(tmp_path):
    for dtype in (np.int16, np.int32):
        limits = np.iinfo(dtype)
        samples = np.random.default_rng(0).integers(
            limits.min, limits.max, (1000, 3), dtype, endpoint=True
        )
        subtype = f"PCM_{limits.bits}"
        soundfile.write(tmp_path / "a.wav", samples, RATE, subtype=subtype)
        from_file = load(tmp_path / "a.wav", RATE)
        assert same(load(samples, RATE), from_file.samples)
        assert same(load(samples.T, RATE), from_file.samples)


def test_python_numbers_and_three_samples():
    assert same(load([0.5, 1, -1], RATE), [0.5, 1, -1])
    assert same(load((1, 2, 3), RATE), [1, 2, 3])
    assert same(load([0.25], RATE), [0.25])
    assert same(load(pd.Series([0.5, 0.25], index=[7, 8]), 8000), [0.5, 0.25], 8000)


def test_torch_tensors_of_every_kind():
    expected = [0.5, -0.25]
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert same(load(torch.tensor(expected, dtype=dtype), RATE), expected)
    assert same(load(torch.tensor(expected, requires_grad=True), RATE), expected)
    assert same(load(torch.tensor([expected, expected] * 9)[1], RATE), expected)


def test_silence_and_large_values_are_fine():
    assert same(load(np.zeros(10), RATE), np.zeros(10))
    huge = np.full(10, 3e38, np.float32)
    assert same(load(huge, RATE), huge)


def test_a_read_only_array_becomes_writable():
    array = noise(10)
    array.flags.writeable = False
    assert same(load(array, RATE), array)


def test_channels_are_the_short_axis():
    stereo = noise(2, 100)
    mean = (stereo[0] + stereo[1]) / np.float32(2)
    assert same(load(stereo, RATE), mean)
    assert same(load(stereo.T, RATE), mean)
    assert same(load(stereo.tolist(), RATE), mean)
    assert same(load(torch.from_numpy(stereo), RATE), mean)
    assert same(load(stereo[:1], RATE), stereo[0])


@pytest.mark.parametrize("shape", [(2, 8), (3, 3), (9, 9), (100, 100), (2, 3, 100)])
def test_ambiguous_channels_are_refused(shape):
    assert f"array of shape {shape}; a clip is 1-D" in reason_of(np.zeros(shape))


@pytest.mark.parametrize(
    ("clip", "found"),
    [
        (np.array([True, False]), "dtype bool"),
        (np.array([1j, 2]), "dtype complex"),
        (np.array(["a", "b"]), "dtype text"),
        (np.array([b"a", b"b"]), "dtype bytes"),
        (np.array([0.5, None]), "dtype object"),
        (np.array([1, 2], np.uint16), "dtype uint16"),
        (np.array([1, 2], "M8[s]"), "dtype datetime64[s]"),
        (None, "found None"),
        (object, "found <class 'object'>"),
        (3.5, "found the number 3.5"),
        (float("nan"), "found nan, a missing value"),
        ([[1.0, 2.0], [3.0]], "it is no array of samples ("),
        (b"RIFF", 'given by its path or as {"bytes": content}'),
        (io.BytesIO(b"RIFF"), 'given by its path or as {"bytes": content}'),
    ],
)
def test_arrays_that_are_no_audio(clip, found):
    assert found in reason_of(clip)


@pytest.mark.parametrize("clip", [[], np.empty(0), np.empty((0, 2)), np.empty((2, 0))])
def test_empty_arrays(clip):
    assert "holds no samples: a clip needs at least one" in reason_of(clip)


def test_sparse_audio_is_refused():
    sparse = pytest.importorskip("scipy.sparse").csr_array(np.eye(3))
    assert "sparse audio is not supported" in reason_of(sparse)


@pytest.mark.parametrize("rate", [0, -1, 44.1, "16000", None, math.nan, math.inf, True])
def test_rates_are_positive_whole_numbers(rate):
    found = f"{rate!r}: it must be a positive whole number of Hz"
    assert f"sample_rate is {found}" in reason_of([0.5], rate)
    assert f"sampling_rate is {found}" in reason_of(
        {"array": [0.5], "sampling_rate": rate}
    )


def test_whole_rates_of_any_type():
    for rate in (8000, 8000.0, np.int32(8000), np.float32(8000)):
        assert same(load([0.5], rate), [0.5], 8000)


@pytest.mark.parametrize("as_file", [False, True])
def test_samples_that_are_not_finite(tmp_path, as_file):
    clip = noise(16000)
    clip[[4000, 5000]] = np.nan
    clip[6000] = -np.inf
    if as_file:
        soundfile.write(tmp_path / "a.wav", clip, RATE, subtype="FLOAT")
        clip = tmp_path / "a.wav"
    reason = reason_of(clip)
    assert "3 of 16000 samples are not finite (2 NaN, 1 infinity)" in reason
    assert "the first at 0.250 s" in reason


def test_float64_beyond_float32_is_infinite():
    assert "1 infinity" in reason_of(np.array([0.0, 1e300]))


def test_the_module_itself_loads_nothing_heavy():
    code = (
        "import sys, skaudioemb.audio, skaudioemb.store;"
        "heavy = {'torch', 'torchaudio', 'transformers', 'sklearn', 'pandas',"
        " 'soundfile'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
