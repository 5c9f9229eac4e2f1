"""Clips as 🤗 datasets and torchcodec give them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from skaudioemb.audio import (
    load,
)
from tests.sounds import RATE, noise, reason_of, same


def test_dicts_of_arrays():
    samples = noise(100)
    clip = {"array": samples, "sampling_rate": 8000, "path": "a.wav"}
    assert same(load(clip, RATE), samples, 8000)
    clip = {"array": samples.tolist(), "sampling_rate": np.int64(8000)}
    assert same(load(clip, RATE), samples, 8000)


def test_dicts_of_files(wav):
    expected = load(wav, RATE).samples
    content = wav.read_bytes()
    for clip in (
        {"path": wav},
        {"path": str(wav), "bytes": None},
        {"bytes": content},
        {"bytes": bytearray(content), "path": None},
        {"bytes": memoryview(content), "path": "of no file"},
    ):
        assert same(load(clip, RATE), expected, 8000)


@pytest.mark.parametrize(
    ("clip", "found"),
    [
        ({}, "found a dict with the keys []"),
        ({"audio": [1.0], 3: 4}, "found a dict with the keys ['3', 'audio']"),
        ({"bytes": None, "path": None}, "found a dict with the keys ['bytes', 'path']"),
        ({"bytes": "text"}, "found a dict with the keys ['bytes']"),
        ({"array": [1.0]}, 'no "sampling_rate"'),
        ({"bytes": b""}, '"bytes" is empty'),
        ({"path": "no.wav"}, "there is no file"),
    ],
)
def test_dicts_without_what_is_needed(clip, found):
    assert found in reason_of(clip)


class Decoder:
    """As torchcodec.decoders.AudioDecoder, which torch alone does not bring."""

    def __init__(self, data, sample_rate=8000):
        self.samples = SimpleNamespace(data=data, sample_rate=sample_rate)

    def get_all_samples(self):
        if self.samples.data is None:
            raise RuntimeError("no audio stream found")
        return self.samples


def test_decoders():
    stereo = noise(2, 100)
    decoder = Decoder(torch.from_numpy(stereo))
    assert same(load(decoder, RATE), (stereo[0] + stereo[1]) / np.float32(2), 8000)
    assert same(load(Decoder(torch.ones(2, 3)), RATE), np.ones(3), 8000)
    assert "holds no samples" in reason_of(Decoder(torch.ones(2, 0)))
    assert "the decoder failed (RuntimeError: no audio stream found)" in reason_of(
        Decoder(None)
    )
