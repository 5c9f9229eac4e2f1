"""Clips that are no clips, and files with unusual names."""

import os

import numpy as np
import pytest
import soundfile

from skaudioemb import AudioError
from skaudioemb.audio import load


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_a_name_that_is_not_utf8(tmp_path):
    path = tmp_path / "a\udcff\n.wav"
    soundfile.write(os.fsencode(path), np.zeros(10), 8000, format="WAV")
    assert len(load(path, 16000).samples) == 10
    os.truncate(path, 20)
    with pytest.raises(AudioError, match=r"^a\\udcff\\n\.wav: "):
        load(path, 16000)


@pytest.mark.parametrize(
    ("clip", "match"),
    [
        (None, "found None, a missing value"),
        (float("nan"), "found nan, a missing value"),
        ((np.zeros(9), 0, 0.2), "cut an array with a slice"),
        (({"path": "a.wav"}, 0, None), "cut an array with a slice"),
    ],
)
def test_mistaken_clips(clip, match):
    with pytest.raises(AudioError, match=match):
        load(clip, 16000)


def test_a_segment_without_end(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(100), 8000)
    with pytest.raises(AudioError, match="from 0 s to inf s"):
        load((path, 0, float("inf")), 16000)
