"""ProbeSearchCV over folds: predefined, by group, rotating, with other classes."""

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, PredefinedSplit, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skaudioemb import ProbeSearchCV
from skaudioemb.probes.folds import RotatingFolds
from tests.test_probes_search import RATES, mean_scores, small


class TestFolds:
    def test_predefined_split_and_given_validation_rows(self, blobs):
        X, y = blobs
        fold = np.repeat([-1, 0], [80, 40])
        probe = small(validation=(X[80:], y[80:]), shuffle=False, ties="first")
        search = ProbeSearchCV(
            probe, {**RATES, "dropout": [0.0]}, cv=PredefinedSplit(fold), refit=False
        ).fit(X, y)
        alone = [
            clone(probe).set_params(lr=lr, dropout=0.0).fit(X[:80], y[:80])
            for lr in RATES["lr"]
        ]
        # The score that stopped the training is the score of the search.
        np.testing.assert_allclose(
            mean_scores(search), [probe.best_score_ for probe in alone], atol=0.026
        )

    def test_groups(self, blobs):
        groups = np.arange(120) % 4
        search = ProbeSearchCV(small(max_epochs=9), RATES, cv=GroupKFold(4))
        assert search.fit(*blobs, groups=groups).n_stacked_ == 8
        with pytest.raises(ValueError, match="groups"):
            search.fit(*blobs)

    def test_groups_by_routing(self, blobs):
        with config_context(enable_metadata_routing=True):
            search = ProbeSearchCV(small(max_epochs=3), RATES, cv=GroupKFold(4))
            search.fit(*blobs, groups=np.arange(120) % 4)
        assert search.n_stacked_ == 8

    def test_folds_of_a_shuffling_splitter_are_drawn_once(self, blobs):
        results = (
            ProbeSearchCV(
                small(max_epochs=9),
                RATES,
                cv=ShuffleSplit(2, test_size=1, random_state=np.random.RandomState(0)),
                scoring=lambda probe, X, y: X[0, 0],
                refit=False,
            )
            .fit(*blobs)
            .cv_results_
        )
        expected = ShuffleSplit(2, test_size=1, random_state=np.random.RandomState(0))
        values = [blobs[0][test[0], 0] for _, test in expected.split(blobs[0])]
        for i in range(2):
            assert set(results[f"split{i}_test_score"]) == {values[i]}

    @pytest.mark.parametrize("scaled", [False, True])
    def test_rotating_folds(self, blobs, scaled):
        X, y = blobs
        folds = np.arange(120) % 5
        cv = RotatingFolds(folds, test_folds=[0, 4])
        model = small(dropout=0.0, ties="first", shuffle=False)
        prefix = "mlpprobe__" if scaled else ""
        if scaled:
            model = make_pipeline(StandardScaler(), model)
        search = ProbeSearchCV(
            model,
            {f"{prefix}lr": [1e-2]},
            cv=cv,
            refit=False,
            scoring=lambda model, X, y: (model[-1] if scaled else model).best_score_,
        ).fit(X, y)
        for i, (test, valid) in enumerate([(0, 1), (4, 0)]):
            train = np.concatenate(
                [np.flatnonzero(folds == f) for f in range(5) if f not in (test, valid)]
            )
            held = np.flatnonzero(folds == valid)
            scaler = StandardScaler().fit(X[train]) if scaled else None
            A, B = (scaler.transform(X[r]) if scaled else X[r] for r in (train, held))
            alone = small(
                dropout=0.0, ties="first", shuffle=False, validation=(B, y[held])
            )
            assert search.cv_results_[f"split{i}_test_score"][0] == pytest.approx(
                alone.fit(A, y[train]).best_score_, abs=1.1 / 24
            )

    @pytest.mark.parametrize("scaled", [False, True])
    def test_rotating_folds_of_a_data_frame(self, blobs, scaled):
        X = pd.DataFrame(blobs[0]).add_prefix("e")
        model = small(max_epochs=3)
        if scaled:
            model = make_pipeline(
                StandardScaler().set_output(transform="pandas"), model
            )
        cv = RotatingFolds(np.arange(120) % 3)
        search = ProbeSearchCV(model, {}, cv=cv, refit=False).fit(X, blobs[1])
        assert search.n_stacked_ == 3

    def test_folds_that_cannot_rotate(self, blobs):
        with pytest.raises(ValueError, match=r"Found 2 folds, .* at least three"):
            RotatingFolds([0, 1, 0]).get_n_splits()
        with pytest.raises(ValueError, match=r"test_folds=\['z'\] has to name"):
            RotatingFolds(list("abc"), ["z"]).get_n_splits()
        search = ProbeSearchCV(
            LogisticRegression(), {"C": [1.0]}, cv=RotatingFolds(np.arange(120) % 3)
        )
        with pytest.raises(ValueError, match="3 of 3 fits cannot be stacked"):
            search.fit(*blobs)

    def test_folds_with_other_classes(self, blobs):
        X, y = blobs
        order = np.argsort(y, kind="stable")
        cv = [(order[:80], order[80:]), (order[20:], order[:20])]
        search = ProbeSearchCV(small(), RATES, cv=cv, refit=False).fit(X, y)
        assert search.n_stacked_ == 4
        assert set(search.cv_results_["split0_test_score"]) == {0.0}
