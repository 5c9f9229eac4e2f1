"""MLPProbe as an estimator: scikit-learn's checks, labels, pickles, pipelines."""

import pickle
from math import inf, nan

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from tests.models import small_probe as small


@parametrize_with_checks([small()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


class TestLabels:
    @pytest.mark.parametrize(
        "names",
        [
            ["cat", "dog", "eel"],
            [-3, 7, 1000],
            [0.0, 1.0, 2.0],
            np.array(["x", "y", "z"], dtype=object),
            np.array([2, 3, 5], dtype=np.uint8),
        ],
    )
    def test_any_type_of_label(self, blobs, names):
        X, y = blobs[0], np.asarray(names)[blobs[1]]
        probe = small(validation=None).fit(X, y)
        np.testing.assert_array_equal(probe.classes_, np.unique(y))
        assert probe.predict(X).dtype == y.dtype
        assert probe.score(X, y) > 0.9
        probabilities = probe.predict_proba(X)
        assert probabilities.shape == (120, 3)
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)

    def test_booleans_and_a_single_class(self, blobs):
        X, y = blobs
        probe = small().fit(X, y == 1)
        assert probe.predict(X).dtype == bool
        assert probe.score(X, y == 1) > 0.9
        assert set(small().fit(X, ["one"] * len(X)).predict(X)) == {"one"}

    @pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.coo_array])
    def test_indicator_matrices(self, indicators, form):
        X, y = indicators
        learner = small(validation=None)
        dense, probe = clone(learner).fit(X, y), learner.fit(X, form(y))
        np.testing.assert_array_equal(probe.predict_proba(X), dense.predict_proba(X))
        labels = probe.predict(X)
        assert labels.dtype.kind == "i"
        np.testing.assert_array_equal(labels, probe.predict_proba(X) > 0.5)
        assert (labels == y).mean() > 0.85

    def test_a_label_without_a_row(self, indicators):
        X, y = indicators[0], indicators[1].copy()
        y[:, 2] = 0
        assert not small().fit(X, y).predict(X)[:, 2].any()

    @pytest.mark.parametrize("n_labels", [2, 4])
    @pytest.mark.parametrize("scoring", ["average_precision", "roc_auc", "f1_macro"])
    def test_scikit_learn_scores_indicators(self, indicators, n_labels, scoring):
        X, y = indicators[0], indicators[1][:, :n_labels]
        probe = small(max_epochs=20)
        scores = cross_val_score(probe, X, y, scoring=scoring, error_score="raise")
        assert scores.mean() > 0.5

    def test_several_classes_in_a_column_are_refused(self, blobs):
        X, y = blobs
        with pytest.raises(ValueError, match="indicator matrix"):
            small().fit(X, np.column_stack([y, y]))


class TestBatches:
    def test_a_single_last_row_does_not_break_the_training(self, blobs):
        X, y = blobs[0][:65], blobs[1][:65]
        probe = small(batch_size=16, validation=None, max_epochs=20).fit(X, y)
        assert probe.score(X, y) > 0.9


class TestReproducible:
    def test_equal_seeds_give_equal_bits(self, blobs):
        X, y = blobs
        fits = [small(batch_size=20, random_state=s).fit(X, y) for s in (1, 1, 2)]
        found = [probe.predict_proba(X) for probe in fits]
        np.testing.assert_array_equal(found[0], found[1])
        assert not np.array_equal(found[0], found[2])
        assert fits[0].history_ == fits[1].history_

    def test_global_generators_are_left_alone(self, blobs):
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        small().fit(*blobs)
        assert torch.equal(torch.get_rng_state(), before[0])
        np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002

    def test_state_of_torch_does_not_matter(self, blobs):
        torch.manual_seed(1)
        first = small().fit(*blobs)
        torch.manual_seed(2)
        second = small().fit(*blobs)
        assert first.history_ == second.history_

    def test_dtype_and_layout_of_the_rows_do_not_matter(self, blobs):
        X, y = blobs[0].astype(np.float32), blobs[1]
        readonly = X.copy()
        readonly.flags.writeable = False
        expected = small(validation=None).fit(X, y).predict_proba(X)
        forms = [X.astype(np.float64), np.asfortranarray(X), readonly, X[::-1][::-1]]
        for form in forms:
            probe = small(validation=None).fit(form, y)
            np.testing.assert_array_equal(probe.predict_proba(form), expected)


class TestPickle:
    def test_holds_weights_and_no_rows(self, blobs):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(2000, 50)).astype(np.float32)
        y = X[:, :3].argmax(axis=1)
        probe = small(max_epochs=6).fit(X, y)
        data = pickle.dumps(probe)
        n_weights = sum(v.numel() for v in probe.net_.module_.state_dict().values())
        assert len(data) < 4 * n_weights + 20_000 < X.nbytes / 4
        again = pickle.loads(data)
        np.testing.assert_array_equal(again.predict_proba(X), probe.predict_proba(X))
        assert again.history_ == probe.history_

    def test_of_indicators(self, indicators):
        probe = small(max_epochs=6).fit(*indicators)
        again = pickle.loads(pickle.dumps(probe))
        expected = probe.predict_proba(indicators[0])
        np.testing.assert_array_equal(again.predict_proba(indicators[0]), expected)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without it")
    def test_probe_of_a_cuda_machine_predicts_without(self, blobs):
        probe = small().fit(*blobs).set_params(device="cuda")
        again = pickle.loads(pickle.dumps(probe))
        expected = probe.predict(blobs[0])
        np.testing.assert_array_equal(again.predict(blobs[0]), expected)
        with pytest.raises(ValueError, match="device='cuda' cannot be used here"):
            probe.fit(*blobs)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
    def test_probe_trained_on_cuda_is_pickled_on_the_cpu(self, blobs):
        before = torch.cuda.get_rng_state()
        fits = [small(device="cuda").fit(*blobs) for _ in range(2)]
        assert torch.equal(torch.cuda.get_rng_state(), before)
        assert next(fits[0].net_.module_.parameters()).is_cuda
        again = pickle.loads(pickle.dumps(fits[0]))
        assert not next(again.net_.module_.parameters()).is_cuda
        for other in (again, fits[1]):
            np.testing.assert_allclose(
                other.predict_proba(blobs[0]),
                fits[0].predict_proba(blobs[0]),
                atol=1e-5,
            )
        assert small(device="cpu").fit(*blobs).score(*blobs) > 0.9


class TestComposition:
    def test_grid_search_over_a_pipeline(self, blobs):
        X, y = blobs[0], np.array(["low", "mid", "high"])[blobs[1]]
        grid = {
            "mlpprobe__hidden_layers": [0, 2],
            "mlpprobe__lr": [1e-2],
            "mlpprobe__init": ["xavier_uniform", "xavier_normal"],
            "mlpprobe__dropout": [0.0, 0.5],
        }
        model = make_pipeline(StandardScaler(), small(max_epochs=15))
        search = GridSearchCV(model, grid, cv=2, error_score="raise", refit=False)
        scores = search.fit(X, y).cv_results_["mean_test_score"]
        assert scores.min() > 0.5
        assert len(set(scores)) > 1

    def test_two_processes_give_the_scores_of_one(self, blobs):
        grid = {"lr": [1e-3, 1e-2]}
        both = [
            GridSearchCV(small(max_epochs=6), grid, cv=2, n_jobs=n).fit(*blobs)
            for n in (1, 2)
        ]
        alone, shared = (s.cv_results_["mean_test_score"] for s in both)
        np.testing.assert_array_equal(alone, shared)

    def test_cross_val_predict_of_probabilities(self, blobs, indicators):
        for (X, y), width in ((blobs, 3), (indicators, 4)):
            found = cross_val_predict(
                small(max_epochs=6), X, y, method="predict_proba", cv=2
            )
            assert found.shape == (len(X), width)

    def test_clone_keeps_given_validation_rows(self, blobs):
        probe = small(validation=(blobs[0][:20], blobs[1][:20]), max_epochs=9)
        copied = clone(probe).fit(*blobs)
        assert copied.best_score_ == probe.fit(*blobs).best_score_

    def test_tiny_steps_use_one_thread_and_give_the_others_back(self, blobs):
        before, seen = torch.get_num_threads(), []

        def score(*_):
            seen.append(torch.get_num_threads())
            return 0.0

        for units in (32, 30_000):
            small(hidden_units=units, max_epochs=3, scoring=score).fit(*blobs)
        assert seen == [1, before]
        assert torch.get_num_threads() == before

    def test_data_frames(self, blobs):
        X = pd.DataFrame(blobs[0]).add_prefix("e")
        probe = small(validation=None).fit(X, pd.Series(blobs[1], dtype="category"))
        assert list(probe.feature_names_in_) == list(X.columns)
        assert probe.score(X, blobs[1]) > 0.9


class TestParameters:
    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"init": "he"}, "'init' .*'xavier_(normal|uniform)', 'xavier.* Got 'he'"),
            ({"hidden_layers": -1}, r"'hidden_layers' .*\[0, inf\). Got -1"),
            ({"hidden_units": 1.5}, "'hidden_units' .* Got 1.5"),
            ({"dropout": 1.0}, r"'dropout' .*\[0.0, 1.0\). Got 1.0"),
            ({"lr": 0.0}, "'lr' .* Got 0.0"),
            ({"batch_size": 1}, r"'batch_size' .*\[2, inf\). Got 1"),
            ({"patience": 0}, "'patience' .* Got 0"),
            ({"validation": 1.0}, "'validation' .* Got 1.0"),
            ({"device": "gpu"}, "device='gpu' cannot be used here"),
        ],
    )
    def test_illegal_values_are_named(self, blobs, params, message):
        with pytest.raises(ValueError, match=message):
            small(**params).fit(*blobs)

    def test_rows_too_large_for_float32_are_refused(self, blobs):
        X = blobs[0].copy()
        X[0, 0] = 1e300
        with pytest.raises(ValueError, match="infinity or a value too large"):
            small().fit(X, blobs[1])

    def test_not_fitted(self, blobs):
        with pytest.raises(NotFittedError):
            small().predict(blobs[0])
        probe = small(validation=(1, 2, 3))
        with pytest.raises(ValueError, match="sequence of 3 items"):
            probe.fit(*blobs)
        with pytest.raises(NotFittedError):
            probe.predict(blobs[0])


def test_progress_bar(blobs, capsys):
    small(max_epochs=6).fit(*blobs)
    assert capsys.readouterr() == ("", "")
    small(max_epochs=6, verbose=1).fit(*blobs)
    out, err = capsys.readouterr()
    assert out == ""
    for part in ("MLPProbe", "6/6", "train_loss=", "valid_loss=", "score="):
        assert part in err


def test_best_score_is_minus_infinity_if_no_score_was_a_number(blobs):
    probe = small(scoring=lambda *_: nan, patience=2).fit(*blobs)
    assert (probe.best_score_, probe.n_epochs_) == (-inf, 9)
