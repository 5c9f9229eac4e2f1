"""What BYOLA keeps and forgets from one fit to the next."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skaudioemb import BYOLA, LogMel
from skaudioemb.encoders.byol import make_byol_encoder
from skaudioemb.encoders.byol_spec import MIN_STD
from tests.test_byol import TINY


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(6)
    return [rng.normal(0, 0.1, n).astype(np.float32) for n in range(2000, 2006)]


def digest(embedder):
    return embedder.pretrained_weights_.digest


def parameters(embedder):
    state = embedder.pretrained_weights_.state()
    learned = dict(make_byol_encoder("audiontt2020", 8).named_parameters())
    return torch.cat([state[name].flatten() for name in learned])


class TestNoEpochs:
    def test_random_weights_are_those_that_training_begins_with(self, X):
        untrained = BYOLA(**{**TINY, "max_epochs": 0, "random_state": 3}).fit(X)
        assert untrained.history_ == []
        still = clone(untrained).set_params(max_epochs=1, lr=1e-12).fit(X)
        assert (still.mean_, still.std_) == (untrained.mean_, untrained.std_)
        torch.testing.assert_close(
            parameters(still), parameters(untrained), rtol=0, atol=1e-9
        )
        trained = clone(still).set_params(lr=1e-2).fit(X)
        assert (parameters(trained) - parameters(untrained)).abs().max() > 1e-3
        assert untrained.transform(X).shape == (6, 8)

    def test_they_are_a_new_encoder(self, X):
        seed = np.random.RandomState(3).randint(2**31)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            expected = make_byol_encoder("audiontt2020", 8).state_dict()
        untrained = BYOLA(**{**TINY, "max_epochs": 0, "random_state": 3}).fit(X)
        state = untrained.pretrained_weights_.state()
        assert state.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, rtol=0, atol=0)

    def test_a_generator_draws_the_same_for_both(self, X):
        options = {**TINY, "lr": 1e-12}
        still, untrained = (
            BYOLA(**{**options, "max_epochs": n})
            .set_params(random_state=np.random.RandomState(7))
            .fit(X)
            for n in (1, 0)
        )
        torch.testing.assert_close(
            parameters(still), parameters(untrained), rtol=0, atol=1e-9
        )

    def test_a_folder_is_left_alone(self, X, tmp_path):
        options = {**TINY, "checkpoint_dir": tmp_path / "c"}
        BYOLA(**{**options, "max_epochs": 0}).fit(X)
        assert not (tmp_path / "c").exists()


class TestForgetting:
    def test_fit_forgets_what_was_learned_before(self, X):
        embedder = BYOLA(**TINY).partial_fit(X)
        first = digest(embedder)
        embedder.partial_fit(X).fit(X)
        assert not hasattr(embedder, "training_state_")
        assert len(embedder.history_) == 1
        assert digest(embedder) == first

    def test_partial_fit_begins_from_the_weights_after_a_fit(self, X, tmp_path):
        BYOLA(**{**TINY, "random_state": 9}).fit(X).save_weights(tmp_path)
        given = BYOLA(**TINY, weights=tmp_path)
        expected = clone(given).partial_fit(X)
        embedder = clone(given).partial_fit(X).fit(X)
        for name in ("training_state_", "history_", "targets_", "pretrained_weights_"):
            assert not hasattr(embedder, name)
        assert digest(embedder.partial_fit(X)) == digest(expected)
        assert len(embedder.history_) == 1

    @pytest.mark.parametrize("method", ["fit", "partial_fit"])
    def test_a_failure_changes_nothing(self, method, X):
        embedder = BYOLA(**TINY).partial_fit(X)
        before = vars(embedder).copy()
        with pytest.raises(ValueError, match="nowhere"):
            getattr(embedder, method)([*X, "nowhere.wav"])
        assert vars(embedder) == before

    def test_a_failed_fit_with_weights_changes_nothing(self, X, tmp_path):
        BYOLA(**TINY).fit(X).save_weights(tmp_path)
        embedder = BYOLA(weights=tmp_path).fit(X)
        statistics = embedder.mean_, embedder.std_
        with pytest.raises(ValueError, match="nowhere"):
            embedder.fit([*X, "nowhere.wav"])
        assert (embedder.mean_, embedder.std_) == statistics


class TestChangedParameters:
    @pytest.mark.parametrize(
        ("params", "match"),
        [
            (
                {"n_features": 16},
                r"learned are of n_features=8, but n_features=16\. Se",
            ),
            (
                {"encoder": "clstm", "n_features": None, "crop_seconds": 0.12},
                "encoder='audiontt2020', but encoder='clstm'",
            ),
            ({"frontend": "byol-s"}, "are of frontend='byol-a', but frontend='byol-s'"),
        ],
    )
    def test_other_weights_are_needed(self, params, match, X):
        embedder = BYOLA(**TINY).fit(X).set_params(**params)
        with pytest.raises(ValueError, match=match):
            embedder.transform(X)
        for options in ({"warm_start": True}, {}):
            method = "fit" if options else "partial_fit"
            with pytest.raises(ValueError, match=match):
                getattr(embedder.set_params(**options), method)(X)
        assert embedder.set_params(warm_start=False).fit_transform(X).shape[0] == 6

    def test_a_width_left_open_is_that_of_the_weights(self, X):
        embedder = BYOLA(**TINY).fit(X)
        expected = embedder.transform(X)
        np.testing.assert_array_equal(
            embedder.set_params(n_features=None).transform(X), expected
        )

    @pytest.mark.parametrize(
        ("params", "match"),
        [
            ({"hidden_size": 16}, "has hidden_size=8, but hidden_size=16. partial"),
            ({"projection_size": 4}, "has projection_size=8, but"),
            (
                {"crop_seconds": 0.2},
                r"has crop_seconds=0\.1, but crop_seconds=0\.2",
            ),
            ({"mixup": 0.0}, r"has mixup='above 0'.* but mixup=0\.0"),
            (
                {"handcrafted": LogMel(8)},
                r"handcrafted=None, but .*LogMel\(.*n_mels=8",
            ),
        ],
    )
    def test_sizes_of_the_training(self, params, match, X):
        embedder = BYOLA(**TINY).partial_fit(X)
        before = digest(embedder)
        with pytest.raises(ValueError, match=match):
            embedder.set_params(**params).partial_fit(X)
        assert digest(embedder) == before
        embedder.fit(X).partial_fit(X)

    def test_other_handcrafted_targets(self, X):
        embedder = BYOLA(**TINY, handcrafted=LogMel(8)).partial_fit(X)
        assert len(embedder.partial_fit(X).history_) == 2
        with pytest.raises(ValueError, match=r"n_mels=8.*LogMel\(.*n_mels=9"):
            embedder.set_params(handcrafted__n_mels=9).partial_fit(X)

    def test_what_may_change(self, X):
        embedder = BYOLA(**TINY).partial_fit(X)
        embedder.set_params(lr=1e-4, mixup=0.2, tau=0.9).partial_fit(X)
        assert len(embedder.history_) == 2


def test_without_a_seed_a_checkpoint_has_it(X, tmp_path):
    free = {**TINY, "random_state": None}
    kept = BYOLA(**free, checkpoint_dir=tmp_path).fit(X)
    assert len(kept.history_) == 1
    longer = clone(kept).set_params(max_epochs=2).fit(X)
    assert longer.history_[0] == kept.history_[0]
    assert len(longer.history_) == 2
    # What it began with can be had from the folder too.
    begins = [clone(kept).set_params(max_epochs=0).fit(X) for _ in range(2)]
    assert digest(begins[0]) == digest(begins[1])
    assert digest(begins[0]) != digest(BYOLA(**{**free, "max_epochs": 0}).fit(X))
    # partial_fit keeps nothing there, and so takes nothing from there.
    assert digest(clone(kept).partial_fit(X)) != digest(kept)


def test_too_few_good_clips_are_named(X):
    bad = np.full(2000, np.nan)
    with pytest.raises(ValueError, match=r"1 of 2 clips cannot.*two good clips are.*"):
        BYOLA(**TINY, on_error="nan").fit([X[0], bad])


def test_silence_gives_tame_embeddings(X):
    silent = [np.zeros(2000)] * 4
    learned = BYOLA(**{**TINY, "max_epochs": 0}).fit(silent)
    given = clone(learned).set_params(normalize=(learned.mean_, learned.std_))
    assert learned.std_ == MIN_STD
    assert np.abs(given.fit(silent).transform(X)).max() < 1e5
