"""Pretraining through the estimators, and weights from elsewhere."""

import hashlib
import pickle
import shutil

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

from skaudioemb import BYOLA, BYOLS, LogMel
from skaudioemb.encoders import byol_published, byol_weights
from skaudioemb.encoders.byol_published import Published
from tests.hear_server import serving
from tests.models import byol_file, small_probe
from tests.test_byol import TINY


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(5)
    return [rng.normal(0, 0.1, n).astype(np.float32) for n in range(2000, 2006)]


class TestPretraining:
    def test_fit_without_weights(self, X, counted):
        embedder = BYOLA(**TINY)
        assert get_tags(embedder).requires_fit
        with pytest.raises(NotFittedError, match="no weights yet"):
            embedder.transform(X)
        embeddings = embedder.fit_transform(X)
        assert embeddings.shape == (6, 8)
        assert len(embedder.history_) == 1
        assert np.isfinite(embedder.history_[0]["loss"])
        values = embedder.set_params(window=0.1, hop=0.05).frames(X[:1])[0].values
        assert values.shape == (3, 8)
        again = pickle.loads(pickle.dumps(embedder))
        np.testing.assert_array_equal(again.transform(X), embeddings)
        assert counted().loaded >= 2

    def test_it_learns_something_and_is_repeatable(self, X):
        first, second, other = (
            BYOLA(**{**TINY, "random_state": seed}).fit(X) for seed in (0, 0, 1)
        )
        digests = [e.pretrained_weights_.digest for e in (first, second, other)]
        assert digests[0] == digests[1] != digests[2]
        longer = clone(first).set_params(max_epochs=2).fit(X)
        assert longer.pretrained_weights_.digest != digests[0]
        assert len(longer.history_) == 2

    def test_epoch_by_epoch(self, X):
        """Parts of a training give what the training gives."""
        whole = BYOLA(**{**TINY, "max_epochs": 3}).fit(X)
        parts = BYOLA(**TINY)
        for _ in range(3):
            parts.partial_fit(X)
        assert parts.pretrained_weights_.digest == whole.pretrained_weights_.digest
        statistics = parts.mean_, parts.std_
        parts = pickle.loads(pickle.dumps(parts)).partial_fit([10 * x for x in X])
        assert (parts.mean_, parts.std_) == statistics
        assert len(parts.history_) == 4
        whole.partial_fit([10 * x for x in X])
        assert (whole.mean_, whole.std_) == statistics

    def test_from_weights(self, X):
        tiny = {**TINY, "n_features": None, "lr": 1e-9}
        given = BYOLS(weights=byol_file(), normalize=(-4.0, 3.0))
        expected = given.transform(X)
        trained = clone(given).set_params(warm_start=True, **tiny).fit(X)
        assert (trained.mean_, trained.std_) == (-4.0, 3.0)
        parameters, before = (
            [v for n, v in w.state().items() if n.endswith(("weight", "bias"))]
            for w in (trained.pretrained_weights_, byol_weights.find(byol_file()))
        )
        assert len(parameters) == len(before)
        for new, old in zip(parameters, before, strict=True):
            torch.testing.assert_close(new.float(), old.float(), rtol=0, atol=1e-7)
        first = trained.pretrained_weights_.digest
        assert trained.fit(X).pretrained_weights_.digest != first
        # Without it, weights that were learned earlier are forgotten.
        trained.set_params(warm_start=False).fit(X)
        np.testing.assert_array_equal(trained.transform(X), expected)

    def test_saved_weights_go_on(self, X, tmp_path):
        learned = BYOLA("clstm", **{**TINY, "n_features": None, "crop_seconds": 0.12})
        learned.fit(X[:2]).save_weights(tmp_path)
        loaded = BYOLA("clstm", weights=tmp_path, normalize="weights")
        np.testing.assert_array_equal(loaded.transform(X), learned.transform(X))
        assert loaded.fit(X).mean_ == learned.mean_

    def test_handcrafted_targets(self, X):
        hybrid = BYOLS(**TINY, handcrafted=LogMel(8))
        assert hybrid.fit(X).targets_ is not None
        assert len(hybrid.get_params()) > len(hybrid.get_params(deep=False))
        plain = BYOLS(**TINY).fit(X)
        none = clone(hybrid).set_params(alpha=0.0).fit(X)
        digests = [e.pretrained_weights_.digest for e in (hybrid, plain, none)]
        assert digests[0] != digests[1] == digests[2]

    @pytest.mark.parametrize(
        "change",
        [
            {"crop_scales": (0.9, 1.0)},
            {"canvas": [1.0, 1.2]},
            {"log_mixup_exp": False},
            {"memory_size": 1},
        ],
    )
    def test_views_are_parameters(self, change, X):
        plain = BYOLA(**{**TINY, "max_epochs": 2})
        changed = clone(plain).set_params(**change)
        histories = [embedder.fit(X).history_ for embedder in (plain, changed)]
        assert histories[0][-1]["loss"] != histories[1][-1]["loss"]

    @pytest.mark.parametrize(
        "change",
        [
            {"supervised_on": "projection"},
            {"supervised_loss": "mse"},
            {"target_clip": 0.1},
        ],
    )
    def test_hybrid_loss_is_a_parameter(self, change, X):
        plain = BYOLA(**TINY, handcrafted=LogMel(n_mels=4))
        changed = clone(plain).set_params(**change)
        histories = [embedder.fit(X).history_ for embedder in (plain, changed)]
        assert histories[0][0]["loss"] != histories[1][0]["loss"]

    def test_what_partial_fit_cannot_change(self, X):
        hybrid = BYOLA(**TINY, handcrafted=LogMel(n_mels=4)).partial_fit(X)
        with pytest.raises(ValueError, match="target_clip"):
            hybrid.set_params(target_clip=0.1).partial_fit(X)
        plain = BYOLA(**TINY).partial_fit(X)
        with pytest.raises(ValueError, match="memory_size"):
            plain.set_params(memory_size=9).partial_fit(X)
        # Neither is there then.
        none = BYOLA(**TINY, mixup=0.0).partial_fit(X)
        none.set_params(memory_size=9, target_clip=0.1).partial_fit(X)
        assert len(none.history_) == 2

    def test_in_a_pipeline(self, X):
        y = [0, 1] * 3
        pipeline = make_pipeline(BYOLA(**TINY), small_probe(max_epochs=2)).fit(X, y)
        assert len(pipeline.predict(X)) == 6

    def test_bad_clips(self, X):
        with pytest.warns(UserWarning, match="nowhere"):
            BYOLA(**TINY, on_error="nan").fit([*X, "nowhere.wav"])
        with pytest.raises(ValueError, match=r"clip 6.*nowhere"):
            BYOLA(**TINY).fit([*X, "nowhere.wav"])

    @pytest.mark.parametrize(
        ("params", "match"),
        [
            ({"crop_seconds": 0.01}, r"crop_seconds=0\.01 is too short"),
            ({"encoder": "vit"}, "'encoder' parameter"),
            ({"encoder": "cvt"}, "n_features=8, but embeddings of 'cvt'"),
            ({"tau": 1.5}, "'tau' parameter"),
            ({"normalize": "weights"}, "normalize='weights', but beside"),
            ({"normalize": (0.0, 0.0)}, "a positive deviation"),
            ({"normalize": (1.0,)}, "a pair of|no pair"),
            ({"handcrafted": 3}, "'handcrafted' parameter"),
            ({"max_seconds": 0.1}, "'max_seconds' parameter"),
            (
                {"canvas": (0.5, 1.5)},
                r"canvas=\(0.5, 1.5\) is no pair",
            ),
            ({"crop_scales": (0.6,)}, r"crop_scales=\(0.6,\) is no pair"),
            ({"crop_scales": ("1", 2)}, "is no pair of numbers from 0 to 100"),
            ({"crop_scales": (0.6, 1e20)}, "is no pair of numbers from 0 to 100"),
            ({"canvas": (1, 10**400)}, "is no pair of numbers"),
            ({"crop_scales": (1, float("nan"))}, "is no pair of numbers"),
            ({"supervised_on": "both"}, "'supervised_on' parameter"),
        ],
    )
    def test_mistakes_get_a_sentence(self, params, match, X):
        with pytest.raises(ValueError, match=match):
            BYOLA(**{**TINY, **params}).fit(X)


class TestWeights:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SKAUDIOEMB_CACHE", str(tmp_path / "cache"))
        byol_weights._download.cache_clear()
        yield tmp_path / "cache"
        byol_weights._download.cache_clear()

    def test_from_an_address(self, X, cache):
        content = byol_file().read_bytes()
        expected = BYOLS(weights=byol_file(), normalize="clip").transform(X)
        digits = hashlib.sha256(content).hexdigest()
        with serving() as server:
            server.files["w.pth"] = content
            address = server.address("w.pth")
            wrong = f"{address}#sha256={'0' * 64}"
            with pytest.raises(OSError, match="has the checksum"):
                BYOLS(weights=wrong, normalize="clip").transform(X)
            embedder = BYOLS(weights=f"{address}#sha256={digits}", normalize="clip")
            np.testing.assert_array_equal(embedder.transform(X), expected)
            n_asked = len(server.asked)
            byol_weights._download.cache_clear()
            embedder.fit(X).transform(X)
            assert len(server.asked) == n_asked
        assert [file.suffix for file in (cache / "weights").iterdir()] == [".pth"]
        for bare in (address, f"{address}#sha256=12"):
            with pytest.raises(ValueError, match="has no checksum"):
                BYOLS(weights=bare).fit(X)

    def test_from_a_published_name(self, X, monkeypatch):
        content = byol_file().read_bytes()
        with serving() as server:
            server.files["w.pth"] = content
            published = Published(
                server.address("w.pth"),
                *("audiontt2020", 32, "", ""),
                sha256=hashlib.sha256(content).hexdigest(),
            )
            monkeypatch.setitem(byol_published.PUBLISHED, "byol_s_cvt", published)
            embedder = BYOLS(weights="byol_s_cvt", normalize="clip")
            assert embedder.fit_transform(X).shape == (6, 32)

    @pytest.mark.parametrize(
        ("params", "match"),
        [
            ({"n_features": 64}, r"are of n_features=32, but n_features=64\. Set n_f"),
            ({"encoder": "cvt"}, "are of encoder='audiontt2020', but encoder='cvt'"),
            ({"window": 0.05}, r"window=0\.05 is 800 samples.*Give at least 0\.07 s"),
            ({"weights": "byol_a_2048"}, "not fetched by name. NTT's licence"),
            ({"weights": "byol_s_resnetish34"}, "No checksum of it is known here"),
        ],
    )
    def test_mistakes_get_a_sentence(self, params, match, X):
        embedder = BYOLS(weights=byol_file()).set_params(**params)
        with pytest.raises(ValueError, match=match):
            embedder.fit(X)

    def test_another_front_end_is_an_error(self, X, tmp_path):
        BYOLS(weights=byol_file()).fit(X).save_weights(tmp_path)
        with pytest.raises(
            ValueError, match="frontend='byol-s', but frontend='byol-a'"
        ):
            BYOLA(weights=tmp_path, frontend="byol-a").fit(X)

    def test_weights_are_read_from_where_they_are_now(self, X, tmp_path):
        path = shutil.copy(byol_file(), tmp_path / "w.pth")
        embedder = BYOLS(weights=path, normalize="clip")
        before = embedder.transform(X)
        state = torch.load(path, weights_only=True)
        torch.save({name: value * 2 for name, value in state.items()}, path)
        assert np.abs(embedder.transform(X) - before).max() > 0
