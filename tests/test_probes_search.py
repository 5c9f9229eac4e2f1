"""ProbeSearchCV as GridSearchCV's stand-in: results, pipelines, fall-backs."""

import pickle
from math import nan

import numpy as np
import pandas as pd
import pytest
from scipy.stats import loguniform
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skaudioemb import ProbeSearchCV
from skaudioemb.probes.folds import RotatingFolds
from skaudioemb.probes.mlp import MLPProbe
from tests.models import small_probe

RATES = {"lr": [1e-2, 1e-3]}


def small(**params):
    return small_probe(**{"max_epochs": 30, **params})


def mean_scores(search):
    return search.cv_results_["mean_test_score"]


def spread(X, y, grid, scoring=None, **params):
    """Return scores by kind of search and seed: (2, n_seeds, n_candidates)."""
    return np.array(
        [
            [
                mean_scores(
                    kind(
                        small(random_state=seed, **params),
                        grid,
                        cv=3,
                        scoring=scoring,
                        refit=False,
                        error_score="raise",
                    ).fit(X, y)
                )
                for seed in range(3)
            ]
            for kind in (GridSearchCV, ProbeSearchCV)
        ]
    )


# scikit-learn's check_cv casts a y that holds infinity, GridSearchCV's too.
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
@parametrize_with_checks(
    [ProbeSearchCV(small(max_epochs=9), RATES, cv=2, error_score="raise")]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


class TestResults:
    def test_attributes_are_those_of_grid_search(self, blobs):
        X, y = pd.DataFrame(blobs[0]).add_prefix("e"), blobs[1]
        names = np.array(["low", "mid", "high"])[y]
        fits = [
            kind(small(), RATES, cv=3, return_train_score=True).fit(X, names)
            for kind in (GridSearchCV, ProbeSearchCV)
        ]
        expected, found = fits
        assert found.n_stacked_ == 6
        assert found.cv_results_.keys() == expected.cv_results_.keys()
        assert found.cv_results_["params"] == expected.cv_results_["params"]
        assert vars(found).keys() - vars(expected).keys() == {
            "n_iter",
            "random_state",
            "n_stacked_",
        }
        assert found.best_params_ == expected.best_params_
        np.testing.assert_array_equal(found.classes_, expected.classes_)
        np.testing.assert_array_equal(
            found.feature_names_in_, expected.feature_names_in_
        )
        assert found.cv_results_["mean_fit_time"].min() > 1e-4
        # The last fit is an ordinary one in both.
        np.testing.assert_array_equal(
            found.best_estimator_.predict_proba(X),
            small(**found.best_params_).fit(X, names).predict_proba(X),
        )
        assert found.score(X, names) == found.best_estimator_.score(X, names)

    def test_without_dropout_only_rounding_differs(self, blobs):
        grid = {"hidden_layers": [0, 1], **RATES}
        expected, found = spread(
            *blobs, grid, "neg_log_loss", dropout=0.0, max_epochs=9
        )
        np.testing.assert_allclose(found, expected, atol=1e-3)

    @pytest.mark.parametrize("multilabel", [False, True])
    def test_scores_differ_as_those_of_seeds_do(self, blobs, indicators, multilabel):
        X, y = indicators if multilabel else blobs
        grid = {"hidden_layers": [1, 2], "dropout": [0.1, 0.5], "max_epochs": [15]}
        scoring = "average_precision" if multilabel else "neg_log_loss"
        expected, found = spread(X, y, grid, scoring, batch_size=20)
        allowed = 3 * expected.std(axis=0).mean()
        np.testing.assert_allclose(
            found.mean(axis=0), expected.mean(axis=0), atol=allowed
        )

    def test_several_scores(self, blobs):
        search = ProbeSearchCV(
            small(),
            RATES,
            cv=2,
            scoring=["accuracy", "neg_log_loss"],
            refit="neg_log_loss",
        ).fit(*blobs)
        assert search.multimetric_
        scores = search.cv_results_["mean_test_neg_log_loss"]
        assert search.best_score_ == scores.max() == scores[search.best_index_]
        chosen = ProbeSearchCV(
            small(), RATES, cv=2, refit=lambda results: len(results["params"]) - 1
        ).fit(*blobs)
        assert chosen.best_params_ == {"lr": 1e-3}

    def test_scorers_meet_the_fitted_probe(self, blobs):
        def found(probe, X, y):
            return {
                "valid": probe.best_score_,
                "epochs": probe.n_epochs_,
                "test": probe.score(X, y),
            }

        results = (
            ProbeSearchCV(small(patience=2), RATES, cv=2, scoring=found, refit=False)
            .fit(*blobs)
            .cv_results_
        )
        assert set(results["split0_test_epochs"]) <= set(range(3, 31, 3))
        assert results["mean_test_valid"].max() <= 1

    def test_drawn_candidates(self, blobs):
        search = ProbeSearchCV(
            small(max_epochs=3),
            {"lr": loguniform(1e-4, 1e-1), "dropout": [0.0, 0.2]},
            n_iter=5,
            cv=2,
            random_state=0,
        )
        drawn = search.fit(*blobs).cv_results_["params"]
        assert len({candidate["lr"] for candidate in drawn}) == 5
        assert drawn == clone(search).fit(*blobs).cv_results_["params"]
        assert search.n_stacked_ == 10
        with pytest.raises(ValueError, match=r"'n_iter' .* Got 0"):
            search.set_params(n_iter=0).fit(*blobs)

    def test_fitted_search_is_an_ordinary_object(self, blobs):
        search = ProbeSearchCV(small(max_epochs=6), RATES, cv=2).fit(*blobs)
        again = pickle.loads(pickle.dumps(search))
        np.testing.assert_array_equal(again.predict(blobs[0]), search.predict(blobs[0]))
        assert "fit" not in vars(again.best_estimator_)
        assert search.estimator.get_params() == small(max_epochs=6).get_params()
        refitted = search.best_estimator_.set_params(max_epochs=3).fit(*blobs)
        assert refitted.n_epochs_ == 3
        scores = cross_val_score(search, *blobs, cv=2)
        assert scores.min() > 0.5

    def test_equal_seeds_give_equal_results(self, blobs):
        grid = {"hidden_layers": [1, 2], **RATES}
        fits = [
            mean_scores(
                ProbeSearchCV(
                    small(batch_size=20), grid, cv=2, scoring="neg_log_loss"
                ).fit(*blobs)
            )
            for _ in range(2)
        ]
        np.testing.assert_array_equal(*fits)

    def test_two_processes_give_the_scores_of_one(self, blobs):
        fits = [
            mean_scores(
                ProbeSearchCV(small(), RATES, cv=2, n_jobs=n, refit=False).fit(*blobs)
            )
            for n in (None, 2)
        ]
        np.testing.assert_array_equal(*fits)


class Counted(TransformerMixin, BaseEstimator):
    """Scales the columns and counts its calls in a list that clones share."""

    calls = []

    def __init__(self, factor=1.0):
        self.factor = factor

    def fit(self, X, y=None):
        self.calls.append(("fit", len(X)))
        return self

    def transform(self, X):
        self.calls.append(("transform", len(X)))
        return self.factor * np.asarray(X)


class TestPipelines:
    def test_earlier_steps_run_once_per_setting_and_fold(self, blobs):
        model = make_pipeline(Counted(), StandardScaler(), small())
        grid = {
            "counted__factor": [1.0, 2.0],
            "mlpprobe__hidden_layers": [0, 1],
            "mlpprobe__lr": [1e-2, 1e-3],
        }
        Counted.calls.clear()
        search = ProbeSearchCV(
            model, grid, cv=3, refit=False, return_train_score=True
        ).fit(*blobs)
        assert search.n_stacked_ == 24
        assert Counted.calls.count(("fit", 80)) == 6
        # Once to train on, once to score on.
        assert Counted.calls.count(("transform", 80)) == 12
        assert Counted.calls.count(("transform", 40)) == 6
        assert len(Counted.calls) == 24

    def test_scores_are_those_of_grid_search(self, blobs):
        model = Pipeline([("scale", None), ("probe", small(dropout=0.0, max_epochs=6))])
        grid = {
            "scale": [StandardScaler(), MinMaxScaler(), "passthrough"],
            "probe__lr": [1e-2, 1e-3],
        }
        expected, found = (
            kind(model, grid, cv=3, scoring="neg_log_loss").fit(*blobs)
            for kind in (GridSearchCV, ProbeSearchCV)
        )
        assert found.n_stacked_ == 18
        np.testing.assert_allclose(mean_scores(found), mean_scores(expected), rtol=0.02)
        assert found.best_params_.keys() == expected.best_params_.keys()

    def test_rows_that_are_no_matrix(self):
        class Length(TransformerMixin, BaseEstimator):
            def fit(self, X, y=None):
                return self

            def transform(self, X):
                return np.array([[len(clip), clip.mean()] for clip in X])

        rng = np.random.default_rng(0)
        clips = [rng.normal(size=n) for n in rng.integers(1, 9, 40)]
        y = [len(clip) > 4 for clip in clips]
        model = make_pipeline(Length(), small(max_epochs=60))
        search = ProbeSearchCV(model, {"mlpprobe__lr": [1e-2, 1e-1]}, cv=2)
        assert search.fit(clips, y).best_score_ > 0.8
        assert search.n_stacked_ == 4

    def test_of_a_single_step(self, blobs):
        model = make_pipeline(small(max_epochs=3))
        search = ProbeSearchCV(model, {"mlpprobe__lr": [1e-2]}, cv=2).fit(*blobs)
        assert search.n_stacked_ == 2

    def test_as_the_last_step(self, blobs):
        search = ProbeSearchCV(small(), RATES, cv=2)
        model = make_pipeline(StandardScaler(), search).fit(*blobs)
        assert model.score(*blobs) > 0.8
        assert model[-1].n_stacked_ == 4


class Flat(MLPProbe):
    """A probe that may train in another way."""


class TestParametersAndFolds:
    def test_numbers_of_numpy(self, blobs):
        grid = {
            "lr": np.array([1e-2, 1e-3]),
            "dropout": np.linspace(0, 0.2, 2),
            "batch_size": np.array([32, 64]),
        }
        plain = {name: values.tolist() for name, values in grid.items()}
        found, expected = (
            ProbeSearchCV(small(max_epochs=9), values, cv=2).fit(*blobs)
            for values in (grid, plain)
        )
        assert found.n_stacked_ == 16
        np.testing.assert_array_equal(mean_scores(found), mean_scores(expected))

    def test_folds_as_masks(self, blobs):
        first = np.arange(len(blobs[0])) % 2 == 0
        rows = np.flatnonzero(first), np.flatnonzero(~first)
        found, expected = (
            ProbeSearchCV(small(max_epochs=9), RATES, cv=[cv]).fit(*blobs)
            for cv in ((first, ~first), rows)
        )
        np.testing.assert_array_equal(mean_scores(found), mean_scores(expected))

    def test_a_failing_fit_with_given_validation_rows_says_why(self, blobs):
        folds = RotatingFolds(np.arange(len(blobs[0])) % 3)
        search = ProbeSearchCV(small(max_epochs=9), {"lr": [1e-2, -1.0]}, cv=folds)
        with pytest.warns(FitFailedWarning, match="3 fits failed .* of a total of 6"):
            with pytest.warns(UserWarning, match="non-finite"):
                search.fit(*blobs)
        assert np.isnan(mean_scores(search)).tolist() == [False, True]
        with pytest.raises(ValueError, match=r"'lr' .* Got -1.0"):
            search.set_params(error_score="raise").fit(*blobs)

        def refuse(probe, X, y):
            raise RuntimeError("not today")

        search = ProbeSearchCV(
            small(scoring=refuse), RATES, cv=folds, error_score="raise"
        )
        with pytest.raises(RuntimeError, match="not today"):
            search.fit(*blobs)


class TestFallBack:
    def test_other_estimators_are_fitted_as_ever(self, blobs):
        model = Pipeline([("scale", StandardScaler()), ("probe", small())])
        candidates = [small(), LogisticRegression(), Flat(max_epochs=9)]
        search = ProbeSearchCV(model, {"probe": candidates}, cv=2).fit(*blobs)
        assert search.n_stacked_ == 2
        assert mean_scores(search).min() > 0.5

    def test_a_wrong_parameter_is_reported(self, blobs):
        grid = {"lr": [1e-2, -1.0]}
        search = ProbeSearchCV(small(max_epochs=9), grid, cv=2)
        with pytest.warns(FitFailedWarning, match="2 fits failed .* of a total of 4"):
            with pytest.warns(UserWarning, match="non-finite"):
                search.fit(*blobs)
        assert np.isnan(mean_scores(search)).tolist() == [False, True]
        with pytest.raises(ValueError, match=r"'lr' .* Got -1.0"):
            search.set_params(error_score="raise").fit(*blobs)
        with pytest.raises(ValueError, match="Invalid parameter 'rate'"):
            ProbeSearchCV(small(), {"rate": [1]}).fit(*blobs)

    def test_a_check_that_raises_concerns_its_candidate_only(self, blobs):
        def refuse(probe, X, y):
            raise RuntimeError("not today")

        search = ProbeSearchCV(
            small(max_epochs=9), {"scoring": [None, "loss", refuse]}, cv=2
        )
        with pytest.warns(FitFailedWarning, match="not today"):
            with pytest.warns(UserWarning, match="non-finite"):
                search.fit(*blobs)
        assert search.n_stacked_ == 4
        assert np.isnan(mean_scores(search)).tolist() == [False, False, True]

    def test_rows_that_cannot_be_used(self, blobs):
        X = blobs[0].copy()
        X[[0, -1], 0] = nan
        with pytest.raises(ValueError, match="All the 4 fits failed"):
            ProbeSearchCV(small(), RATES, cv=2).fit(X, blobs[1])

    def test_distributions_without_a_number_to_draw(self, blobs):
        with pytest.raises(TypeError, match="lr"):
            ProbeSearchCV(small(), {"lr": loguniform(1e-4, 1e-1)}).fit(*blobs)


def test_progress_bar(blobs, capsys):
    ProbeSearchCV(small(), RATES, cv=2).fit(*blobs)
    assert capsys.readouterr() == ("", "")
    probe = small(patience=1, max_epochs=100)
    ProbeSearchCV(probe, RATES, cv=2, verbose=1).fit(*blobs)
    out, err = capsys.readouterr()
    assert "totalling 4 fits" in out
    assert "ProbeSearchCV: 100%" in err
    assert "4/4 fits" in err
