"""EncodecMAE that is pretrained and self-trained through the estimator."""

import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from skaudioemb import EncodecMAE
from skaudioemb.encoders import checkpoint, encodecmae_files
from tests.models import ENCODECMAE, hf_folder, small_probe

CODEC = ENCODECMAE / "tiny-encodec"
SIZE = {"n_layers": 2, "n_features": 24, "n_heads": 4, "n_hidden": 48}
TINY = {
    **{"size": SIZE, "front_end": "mel", "targets": "mel", "n_codebooks": 2},
    **{"n_codes": 16, "crop_seconds": 0.2, "mask_length": 3, "batch_size": 4},
    **{"max_epochs": 1, "n_decoder_layers": 1, "device": "cpu", "lr": 1e-3},
}
ON_CODEC = {"front_end": "codec", "targets": "codec", "codec": CODEC}
SELF_TRAINED = {"self_train": True, "n_clusters": 4, "n_kmeans_frames": 40}


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(5)
    return [rng.normal(0, 0.1, n).astype(np.float32) for n in range(3000, 3006)]


def make(**params):
    return EncodecMAE(None, **{**TINY, **params})


def digest(embedder):
    return embedder.pretrained_weights_.digest


@parametrize_with_checks([make(), make(random_state=None, max_epochs=0)])
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"targets": "codec", "codec": CODEC},
        {"targets": "codec", "codec": hf_folder("mimi"), "n_codebooks": 1},
        ON_CODEC,
        {"front_end": "codec"},
    ],
)
def test_fit_without_a_checkpoint(params, X, counted):
    embedder = make(**{"codec": CODEC, **params})
    assert get_tags(embedder).requires_fit
    with pytest.raises(NotFittedError, match="no weights yet"):
        embedder.transform(X)
    embeddings = embedder.fit_transform(X)
    assert embeddings.shape == (6, 24)
    assert embedder.n_layers_ == 3
    (epoch,) = embedder.history_
    assert all(np.isfinite(epoch[name]) for name in ("loss", "masked", "visible"))
    pickled = pickle.dumps(embedder)
    again = pickle.loads(pickled)
    np.testing.assert_array_equal(again.transform(X), embeddings)
    frames = embedder.frames(X)
    np.testing.assert_allclose([f.values.mean(0) for f in frames], embeddings, 0, 1e-5)
    assert counted().loaded >= 1
    # Training moved every tensor.
    untrained = make(**{"codec": CODEC, **params, "max_epochs": 0}).transform(X)
    assert np.abs(untrained - embeddings).max() > 1e-3


def test_it_learns_and_is_repeatable(X):
    first, second, other = (
        make(random_state=seed, max_epochs=3).fit(X) for seed in (0, 0, 1)
    )
    assert digest(first) == digest(second) != digest(other)
    losses = [epoch["loss"] for epoch in make(max_epochs=20).fit(X).history_]
    assert losses[-1] < losses[0]
    generators = [np.random.RandomState(3) for _ in range(2)]
    drawn = [make(random_state=generator).fit(X) for generator in generators]
    assert digest(drawn[0]) == digest(drawn[1])
    assert digest(drawn[0]) != digest(drawn[0].fit(X))
    free = make(random_state=None)
    assert digest(free.fit(X)) != digest(free.fit(X))


def test_random_weights(X):
    """They follow from a number, and need neither data nor fit."""
    random = make(max_epochs=0)
    assert not get_tags(random).requires_fit
    expected = random.transform(X)
    fitted = clone(random).fit(X[:1])
    np.testing.assert_array_equal(fitted.transform(X), expected)
    assert not hasattr(fitted, "pretrained_weights_")
    other = make(max_epochs=0, random_state=None)
    assert get_tags(other).requires_fit
    with pytest.raises(NotFittedError, match="no weights yet"):
        other.transform(X)
    one = other.fit(X).transform(X)
    np.testing.assert_array_equal(other.transform(X), one)
    np.testing.assert_array_equal(
        make(max_epochs=0, random_state=other.seed_).transform(X), one
    )
    assert np.abs(other.fit(X).transform(X) - one).max() > 0.01


def test_training_starts_from_those_random_weights(X):
    expected = make(max_epochs=0, random_state=4).transform(X)
    still = make(random_state=4, lr=1e-12, weight_decay=0.0).fit(X)
    np.testing.assert_allclose(still.transform(X), expected, rtol=0, atol=1e-5)


def test_epoch_by_epoch(X):
    """Parts of a training give what the training gives."""
    whole = make(max_epochs=3).fit(X)
    parts = make()
    for _ in range(3):
        parts.partial_fit(X)
    assert digest(parts) == digest(whole)
    assert len(parts.history_) == 3
    parts = pickle.loads(pickle.dumps(parts)).partial_fit(X)
    assert len(parts.history_) == 4
    frozen = make(max_epochs=0)
    expected = frozen.transform(X)
    np.testing.assert_array_equal(frozen.partial_fit(X).transform(X), expected)
    # After a fit there is no decoder to go on with, but an encoder.
    before = digest(whole)
    assert digest(whole.partial_fit(X)) != before
    assert len(whole.history_) == 1


@pytest.mark.parametrize(
    ("file", "n_heads", "targets"),
    [("ec-ec-v1.pt", 4, "codec"), ("mel256-ec-v2_st.pt", 5, "mel")],
)
def test_from_published_weights(file, n_heads, targets, X, tmp_path):
    given = EncodecMAE(ENCODECMAE / file, n_heads=n_heads)
    expected = given.transform(X)
    options = {k: v for k, v in TINY.items() if k not in ("size", "front_end")}
    options |= {"targets": targets, "codec": CODEC, "weight_decay": 0.0, "lr": 1e-12}
    trained = clone(given).set_params(warm_start=True, **options).fit(X)
    np.testing.assert_allclose(trained.transform(X), expected, rtol=0, atol=1e-5)
    assert digest(trained) != digest(trained.set_params(lr=1e-3).fit(X))
    moved = trained.transform(X)
    assert np.abs(moved - expected).max() > 1e-3
    trained.save_weights(tmp_path)
    loaded = EncodecMAE(tmp_path)
    np.testing.assert_array_equal(loaded.transform(X), moved)
    # What was saved can be trained on, and without warm_start is frozen.
    again = loaded.set_params(warm_start=True, **options, n_threads=1).fit(X)
    np.testing.assert_allclose(again.transform(X), moved, rtol=0, atol=1e-5)
    trained.set_params(warm_start=False).fit(X)
    np.testing.assert_array_equal(trained.transform(X), expected)


def test_warm_start_goes_on_from_what_was_learned(X):
    embedder = make(lr=1e-12, weight_decay=0.0).fit(X)
    embedder.set_params(lr=1e-3).fit(X)
    cold = digest(embedder)
    assert digest(embedder.fit(X)) == cold
    assert digest(embedder.set_params(warm_start=True).fit(X)) != cold


@pytest.mark.parametrize("keep_targets", [True, False])
def test_self_training(keep_targets, X):
    plain = make(max_epochs=4).fit(X)
    trained = make(max_epochs=4, keep_targets=keep_targets, **SELF_TRAINED).fit(X)
    assert [epoch["stage"] for epoch in trained.history_] == [0, 0, 0, 0, 1]
    assert digest(trained) != digest(plain)
    longer = clone(trained).set_params(self_train_epochs=2).fit(X)
    assert len(longer.history_) == 6
    assert digest(longer) != digest(trained)


def test_other_weights_are_embedded_anew(X, tmp_path, counted):
    embedder = make(memory=tmp_path).fit(X)
    first = embedder.transform(X)
    counted()
    np.testing.assert_array_equal(clone(embedder).fit(X).transform(X), first)
    assert counted().run == 0
    assert np.abs(embedder.partial_fit(X).transform(X) - first).max() > 1e-4
    assert counted().run == len(X)


def test_every_setting_reaches_the_training(X):
    plain = digest(make().fit(X))
    changes = {
        **{"batch_size": 2, "accumulate": 2, "lr": 2e-3, "weight_decay": 0.9},
        **{"crop_seconds": 0.15, "n_codebooks": 1, "n_codes": 8, "delta": 0.1},
        **{"gamma": (0.9, 0.1), "mask_share": 0.2, "mask_length": 1},
        **{"mask_token": "learned", "n_decoder_layers": 2, "loss_mean": "clip"},
        **{"share_feedforward": False, "random_state": 1, "sample_rate": 8000},
        **{"targets": "codec"},
    }
    for name, value in changes.items():
        if name == "loss_mean":
            continue
        changed = make(codec=CODEC, **{name: value}).fit(X)
        assert digest(changed) != plain, name
    # These show where clips differ in length.
    short = [*X[:-1], X[-1][:1000]]
    plain = digest(make().fit(short))
    for name, value in (("loss_mean", "clip"), ("count_padding", True)):
        assert digest(make(**{name: value}).fit(short)) != plain, name


def test_in_a_pipeline(X):
    pipeline = make_pipeline(make(), small_probe(max_epochs=2)).fit(X, [0, 1] * 3)
    assert len(pipeline.predict(X)) == 6


def test_progress_shows_both_losses(X, capsys):
    make(verbose=1, max_epochs=2).fit(X)
    shown = capsys.readouterr().err
    for name in ("masked", "visible", "loss"):
        assert f"{name}=" in shown


TRAINING = """
import sys
import numpy as np
from tests.test_encodecmae_learning import SELF_TRAINED, make
rng = np.random.default_rng(5)
X = [rng.normal(0, 0.1, n).astype(np.float32) for n in range(3000, 3006)]
make(checkpoint_dir=sys.argv[1], max_epochs=100_000, n_threads=1).fit(X)
"""


def test_a_killed_training_ends_as_an_unbroken_one(X, tmp_path):
    folder = tmp_path / "checkpoints"
    process = subprocess.Popen([sys.executable, "-c", TRAINING, str(folder)])
    deadline = time.monotonic() + 60
    while not list(folder.glob("*.pt")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (file,) = folder.glob("*.pt")
    n_done = len(torch.load(file, weights_only=True)["history"])
    assert n_done >= 1
    resumed = make(checkpoint_dir=folder, max_epochs=n_done + 2).fit(X)
    assert len(resumed.history_) == n_done + 2
    assert digest(resumed) == digest(make(max_epochs=n_done + 2).fit(X))
    with pytest.raises(ValueError, match=r"lr=0\.001 there, 0\.5 here"):
        make(checkpoint_dir=folder, max_epochs=n_done + 2, lr=0.5).fit(X)


def test_bad_clips(X):
    with pytest.warns(UserWarning, match="nowhere"):
        make(on_error="nan").fit([*X, "nowhere.wav"])
    with pytest.raises(ValueError, match=r"clip 6.*nowhere"):
        make().fit([*X, "nowhere.wav"])


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"max_epochs": -1}, "'max_epochs' parameter"),
        ({"targets": "wave"}, "'targets' parameter"),
        ({"gamma": "loud"}, "'gamma' parameter"),
        ({"gamma": (1.0,)}, "gamma.*n_codebooks=2|gamma.*2"),
        ({"mask_token": "noise"}, "'mask_token' parameter"),
        ({"mask_share": 1.0}, "'mask_share' parameter"),
        ({"delta": 1.5}, "'delta' parameter"),
        ({"loss_mean": "frame"}, "'loss_mean' parameter"),
        ({"teacher_stream": "residual"}, "'teacher_stream' parameter"),
        ({"self_train_epochs": 0}, "'self_train_epochs' parameter"),
        ({"random_state": "x"}, "'random_state' parameter"),
        ({"crop_seconds": 0.01}, r"crop_seconds=0\.01"),
        ({"layers": 7}, "layers"),
        ({"pooling": "median"}, "pooling"),
        ({"front_end": "codec", "codec": hf_folder("data2vec")}, "is no EnCodec"),
        ({"targets": "codec", "codec": hf_folder("data2vec")}, "codec"),
        ({"targets": "codec", "codec": CODEC, "n_codebooks": 99}, "n_codebooks=99"),
    ],
)
def test_mistakes_get_a_sentence(params, match, X):
    with pytest.raises(ValueError, match=match):
        make(**params).fit(X)


@pytest.mark.parametrize(
    "params", [{"front_end": "codec"}, {"targets": "codec"}, ON_CODEC]
)
def test_no_codec_to_be_had(params, X, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    checkpoint._hub_folder.cache_clear()
    encodecmae_files._from_hub.cache_clear()
    embedder = make(**{**params, "codec": "facebook/encodec_24khz"})
    with pytest.raises(
        OSError, match=r"needs codec='facebook.*'mel' with targets='mel' needs no codec"
    ):
        embedder.fit(X)
