"""What EncodecMAE keeps and forgets from one fit to the next."""

import numpy as np
import pytest
from sklearn.base import clone

from tests.test_encodecmae_learning import CODEC, SIZE, digest, make


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(6)
    return [rng.normal(0, 0.1, n).astype(np.float32) for n in range(3000, 3006)]


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_failure_changes_nothing(method, X):
    embedder = make(random_state=None).partial_fit(X)
    before = vars(embedder).copy()
    with pytest.raises(ValueError, match="nowhere"):
        getattr(embedder, method)([*X, "nowhere.wav"])
    assert vars(embedder) == before


class TestChangedParameters:
    @pytest.mark.parametrize(
        ("params", "match"),
        [
            ({"size": {**SIZE, "n_layers": 3}}, r"'n_layers': 2.*but size=.*: 3"),
            ({"front_end": "codec"}, "has front_end='mel', but front_end='codec'"),
            ({"share_feedforward": False}, "has share_feedforward=True, but"),
        ],
    )
    def test_another_encoder_is_needed(self, params, match, X):
        embedder = make(codec=CODEC).fit(X)
        before = digest(embedder)
        embedder.set_params(**params, warm_start=True)
        for method in ("fit", "partial_fit"):
            with pytest.raises(ValueError, match=f"{match}.*fit without warm_start"):
                getattr(embedder, method)(X)
        assert digest(embedder) == before
        expected = digest(clone(embedder).fit(X))
        assert digest(embedder.set_params(warm_start=False).fit(X)) == expected

    def test_another_codec_is_heard(self, X):
        embedder = make(front_end="codec", codec=CODEC).fit(X)
        embedder.set_params(codec="elsewhere", warm_start=True)
        with pytest.raises(ValueError, match="but codec='elsewhere'"):
            embedder.fit(X)

    @pytest.mark.parametrize(
        ("params", "match"),
        [
            ({"n_codes": 8}, "has n_codes=16, but n_codes=8. partial_fit needs"),
            ({"n_codebooks": 1}, "has n_codebooks=2, but n_codebooks=1"),
            ({"n_decoder_layers": 2}, "has n_decoder_layers=1, but"),
            ({"mask_token": "learned"}, "has mask_token='zeros', but"),
            ({"gamma": [0.9, 0.1]}, r"gamma='auto', but gamma=\(0\.9, 0\.1\)"),
            ({"targets": "codec"}, "has targets='mel', but targets='codec'"),
        ],
    )
    def test_of_decoder_and_targets(self, params, match, X):
        embedder = make(codec=CODEC).partial_fit(X)
        before = digest(embedder)
        with pytest.raises(ValueError, match=match):
            embedder.set_params(**params).partial_fit(X)
        assert digest(embedder) == before
        # After a fit there is a new decoder in any case.
        embedder.fit(X).partial_fit(X)

    def test_what_may_change(self, X):
        embedder = make().partial_fit(X)
        changes = {"lr": 1e-4, "delta": 0.5, "codec": "elsewhere", "batch_size": 2}
        embedder.set_params(**changes).partial_fit(X)
        assert len(embedder.history_) == 2


@pytest.mark.parametrize(
    "gamma", [(0.5, np.nan), (0.0, 0.0), (1.0, -0.5), [[0.5, 0.5]], ("a", "b")]
)
def test_weights_of_codebooks(gamma, X):
    with pytest.raises(ValueError, match=r"gamma=.*are no weights.*n_codebooks=2"):
        make(gamma=gamma).fit(X)
    assert make(gamma=np.array([1, 0])).fit(X).history_


def test_without_a_seed_a_checkpoint_has_it(X, tmp_path):
    kept = make(random_state=None, checkpoint_dir=tmp_path).fit(X)
    longer = clone(kept).set_params(max_epochs=2).fit(X)
    assert longer.seed_ == kept.seed_
    assert longer.history_[0] == kept.history_[0]
    assert len(longer.history_) == 2
    begin = clone(kept).set_params(max_epochs=0).fit(X)
    assert begin.seed_ == kept.seed_
    assert clone(kept).partial_fit(X).seed_ != kept.seed_


def test_one_good_clip_is_enough(X):
    bad = np.full(2000, np.nan)
    for clips in ([X[0], bad], [bad, X[0], bad]):
        with pytest.warns(UserWarning, match=f"{len(clips) - 1} of {len(clips)} clips"):
            learned = make(on_error="nan", crop_seconds=4.0).fit(clips)
        assert len(learned.history_) == 1
    with pytest.raises(ValueError, match=r"2 of 2 clips cannot.*one good clip is"):
        make(on_error="nan").fit([bad, bad])


def test_a_batch_of_one(X):
    one, two = (make(batch_size=size).fit(X) for size in (1, 2))
    assert digest(one) != digest(two)


def test_clips_of_unknown_length_are_left_to_who_reads_them(X):
    bad = ("nowhere.wav", "a", None)
    with pytest.warns(UserWarning, match="1 of 3 clips"):
        make(on_error="nan").fit([bad, *X[:2]])
