"""What a module of HEAR's API gives is checked: units, shapes, values."""

import numpy as np
import pytest
import torch

from skaudioemb import HEARModel
from tests.hear_modules import variant

NAME = "tests.hear_modules"
LENGTHS = (1, 300, 5000, 9000, 9000, 9000, 16000)


def seconds(embeddings, timestamps):
    return embeddings, timestamps / 1000


@pytest.mark.parametrize("length", [0.01, 0.15, 0.3, 1.0, 1.2, 30.0])
@pytest.mark.parametrize("centre", [0.0, 12.5])
def test_seconds_are_refused_and_milliseconds_are_not(length, centre):
    """Also for a clip with a single frame, unless that lies at 0 in any unit."""

    def later(embeddings, timestamps):
        return embeddings, timestamps + centre

    sound = np.random.default_rng(0).uniform(-1, 1, round(length * 16000))
    n_frames = 1 + int(length * 16000) // 1600
    (good,) = HEARModel(variant(later)).frames([sound])
    assert len(good.times) == n_frames
    wrong = HEARModel(variant(lambda *result: seconds(*later(*result))))
    if n_frames == 1 and centre == 0:
        np.testing.assert_array_equal(wrong.frames([sound])[0].times, good.times)
        return
    with pytest.raises(ValueError, match=r"variant\.get_timestamp.* are seconds.*1000"):
        wrong.frames([sound])
    # Scenes have no timestamps.
    assert np.isfinite(wrong.transform([sound])).all()


BAD_TIMESTAMPS = {
    "samples": (lambda e, t: (e, t * 16), "16000 as the last .* samples, frames or"),
    "unsorted": (lambda e, t: (e, t.flip(1)), "900 ms after 1000 ms"),
    "constant": (lambda e, t: (e, t * 0), "do not increase"),
    "negative": (lambda e, t: (e, t - 10), "the first at -10 ms"),
    "NaN": (lambda e, t: (e, t.where(t < 500, torch.nan)), "6 timestamps .* not fin"),
    "one axis": (lambda e, t: (e, t[0]), r"shape \(11,\) .*asks for \(1, 11\)"),
    "too few": (lambda e, t: (e, t[:, :-1]), r"shape \(1, 10\)"),
    "list": (lambda e, t: (e, t.tolist()), "timestamps as a list"),
    "no tuple": (lambda e, t: e, "gave a Tensor.*tuple"),
    "none": (lambda e, t: (e[:, :0], t[:, :0]), "no frame.*min_seconds"),
    "no time": (lambda e, t: (e.mean(1), t), r"shape \(1, 32\).*n_timestamps, 32\)"),
    "dtype": (lambda e, t: (e.double(), t), "dtype float64.*float32"),
    "numpy": (lambda e, t: (e.numpy(), t), "ndarray of dtype float32.*Tensor"),
    "width": (lambda e, t: (e[..., 1:], t), r"timestamp_embedding_size is 32"),
    "content": (
        lambda e, t: (e[:, : 5 + int(e[0, 0, 0] > 0)], t[:, : 5 + int(e[0, 0, 0] > 0)]),
        "5 frames up to .* length alone",
    ),
}


@pytest.mark.parametrize("kind", BAD_TIMESTAMPS)
def test_bad_timestamp_embeddings_get_a_sentence(kind):
    change, match = BAD_TIMESTAMPS[kind]
    embedder = HEARModel(variant(change))
    with pytest.raises(ValueError, match=rf"(?s)^variant\.get_timestamp.*{match}"):
        embedder.frames([np.zeros(16000)])


def test_sounds_of_one_length_have_the_same_timestamps():
    def shift(embeddings, timestamps):
        return embeddings, timestamps + 5 * torch.arange(len(embeddings))[:, None]

    noise = np.random.default_rng(0).uniform(-1, 1, (2, 8000))
    with pytest.raises(ValueError, match="differ by up to 5 ms"):
        HEARModel(variant(shift)).frames(noise)


BAD_SCENES = {
    "dtype": (lambda e: e.half(), "dtype float16.*float32"),
    "axes": (lambda e: e[:, None], r"shape \(1, 1, 16\).*\(1, 16\)"),
    "sounds": (lambda e: e[0], r"shape \(16,\) for 1 sounds"),
    "width": (lambda e: e[:, 1:], "scene_embedding_size is 16"),
    "type": (lambda e: None, "a NoneType"),
}


@pytest.mark.parametrize("kind", BAD_SCENES)
def test_bad_scene_embeddings_get_a_sentence(kind):
    change, match = BAD_SCENES[kind]
    embedder = HEARModel(variant(scenes=change))
    with pytest.raises(ValueError, match=rf"(?s)^variant\.get_scene.*{match}"):
        embedder.transform([np.zeros(16000)])
