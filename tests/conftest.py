"""Clips and counters that several test files share."""

import sys

import numpy as np
import pytest
import soundfile
from sklearn.datasets import make_classification, make_multilabel_classification
from transformers import dynamic_module_utils

from skaudioemb import devices
from skaudioemb.store import Store
from tests.models import GOLDEN
from tests.sounds import noise
from tests.speech_models import save_speech_model


@pytest.fixture(scope="session")
def golden_clips():
    with np.load(GOLDEN / "fusion" / "clips.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def clips():
    """Clips of different lengths, one of them shorter than any receptive field."""
    rng = np.random.default_rng(0)
    lengths = (300, 1000, 5000, 5001, 9000, 16000)
    return [rng.uniform(-0.5, 0.5, n).astype(np.float32) for n in lengths]


@pytest.fixture
def counted():
    """Return a callable that gives the engine's counts since the last call."""
    last = devices.tally()

    def since():
        nonlocal last
        now = devices.tally()
        difference = devices.Tally(*(b - a for a, b in zip(last, now, strict=True)))
        last = now
        return difference

    return since


@pytest.fixture(scope="session")
def save_model(tmp_path_factory):
    """Return a function that saves a tiny speech model; it gives folder and model."""

    def save(architecture, seed=0, **settings):
        folder = tmp_path_factory.mktemp(architecture)
        return folder, save_speech_model(folder, architecture, seed, **settings)

    return save


@pytest.fixture(scope="session")
def blobs():
    return make_classification(
        n_samples=120,
        n_features=12,
        n_informative=8,
        n_classes=3,
        class_sep=2.0,
        random_state=0,
    )


@pytest.fixture(scope="session")
def indicators():
    return make_multilabel_classification(
        n_samples=120, n_features=12, n_classes=4, random_state=0
    )


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as store:
        yield store


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(8000), 8000, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def code_cache(tmp_path_factory):
    """Keep transformers' copies of checkpoints' code out of the user's cache."""
    folder = str(tmp_path_factory.mktemp("modules"))
    with pytest.MonkeyPatch.context() as patch:
        _forget_code()
        patch.setattr(sys, "path", sys.path[:])
        patch.setenv("HF_MODULES_CACHE", folder)
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", folder)
        yield folder
        _forget_code()


def _forget_code():
    for name in [name for name in sys.modules if name.startswith("transformers_mod")]:
        del sys.modules[name]
