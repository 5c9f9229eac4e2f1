"""Odd outputs of transformers whose features are learned along."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, TransformerMixin

from skaudioemb import BYOLA
from skaudioemb.pretraining.handcrafted import HandcraftedTargets
from tests.sounds import noise
from tests.test_byol import TINY


class Loudness(TransformerMixin, BaseEstimator):
    """The mean and the largest magnitude of each clip, made odd by ``change``."""

    def __init__(self, change=None):
        self.change = change

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        magnitudes = np.abs(X)
        features = np.column_stack([magnitudes.mean(1), magnitudes.max(1)])
        return features if self.change is None else self.change(features)


def with_huge(features):
    return np.where(features == features.max(), 1e300, features)


@pytest.fixture
def crops():
    return noise(7, 40) * np.linspace(0.1, 1, 7)[:, None]


def test_a_sparse_matrix_is_as_good(crops):
    dense, sparse = (
        HandcraftedTargets(Loudness(change), 16000).fit(crops).transform(crops)
        for change in (None, csr_array)
    )
    np.testing.assert_array_equal(sparse, dense)


def test_huge_values_are_no_values(crops):
    targets = HandcraftedTargets(Loudness(with_huge), 16000).fit(crops)
    scaled = targets.transform(crops)
    assert np.isfinite(scaled).all()
    assert scaled[:, 0].std() > 0.5
    # The largest of all magnitudes is the huge one, and counts as 0.
    found = scaled[np.abs(crops).max(1).argmax(), 1]
    assert found == np.float32(-targets.mean_[1] / targets.std_[1])


def test_they_train():
    clips = [noise(2000, seed=k) * (k + 1) / 6 for k in range(6)]
    dense, sparse = (
        BYOLA(**TINY, handcrafted=Loudness(change)).fit(clips)
        for change in (None, csr_array)
    )
    assert dense.history_[0]["loss"] == sparse.history_[0]["loss"]
