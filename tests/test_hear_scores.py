"""Scores of probabilities, against HEAR's values and scikit-learn; and scorers."""

import json
import pickle
from math import isinf, nan

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skaudioemb.hear.scores import (
    SCORES,
    aucroc,
    average_precisions,
    chroma_acc,
    d_prime,
    event_onset_fms,
    make_hear_scorer,
    mAP,
    pitch_acc,
    roc_areas,
    segment_error_rate,
    top1_acc,
)
from tests.models import GOLDEN, small_probe

CASES = json.loads((GOLDEN / "hear" / "scores.json").read_text())
CLIP_SCORES = [top1_acc, pitch_acc, chroma_acc, mAP, d_prime, aucroc]


@pytest.fixture(scope="module")
def arrays():
    with np.load(GOLDEN / "hear" / "scores.npz") as file:
        return dict(file)


class TestReference:
    @pytest.mark.parametrize("case", CASES)
    def test_scores(self, arrays, case):
        truth, scores = arrays[f"{case}/targets"], arrays[f"{case}/predictions"]
        forms = [truth, truth.astype(float), truth.astype(bool)]
        if CASES[case]["prediction_type"] == "multiclass":
            forms.append(truth.argmax(axis=1))
        for name, expected in CASES[case]["expected"].items():
            for form in forms:
                np.testing.assert_allclose(
                    SCORES[name].function(form, scores), float(expected), atol=1e-9
                )

    @pytest.mark.parametrize("case", CASES)
    def test_each_class(self, arrays, case):
        pair = arrays[f"{case}/targets"], arrays[f"{case}/predictions"]
        expected = np.array(CASES[case]["ap_per_class"], dtype=float)
        np.testing.assert_allclose(average_precisions(*pair), expected, atol=1e-12)
        expected = np.array(CASES[case]["auc_per_class"], dtype=float)
        np.testing.assert_allclose(roc_areas(*pair), expected, atol=1e-12)

    @pytest.mark.parametrize("case", ["pitch_88", "pitch_37", "pitch_gaps"])
    def test_chroma_by_notes(self, arrays, case):
        found = chroma_acc(
            arrays[f"{case}/targets"],
            arrays[f"{case}/predictions"],
            notes=list(map(int, CASES[case]["labels"])),
        )
        assert found == pytest.approx(CASES[case]["chroma_acc_by_midi"], abs=1e-9)

    def test_inputs_stay_as_they_are(self, arrays):
        truth, scores = (
            arrays[f"ml_ties/{name}"].copy(order="F")
            for name in ("targets", "predictions")
        )
        before = truth.copy(), scores.copy()
        for score in CLIP_SCORES:
            score(truth, scores)
        np.testing.assert_array_equal(truth, before[0])
        np.testing.assert_array_equal(scores, before[1])


class TestAgainstScikitLearn:
    @pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64])
    def test_ties_of_any_type(self, kind):
        rng = np.random.default_rng(0)
        truth = rng.random((80, 5)) < 0.3
        scores = rng.integers(-9, 9, (80, 5)).astype(kind)
        expected = average_precision_score(truth, scores)
        assert mAP(truth, scores) == pytest.approx(expected, abs=1e-12)
        expected = roc_auc_score(truth, scores)
        assert aucroc(truth, scores) == pytest.approx(expected, abs=1e-12)

    def test_close_scores_are_told_apart(self):
        scores = 0.5 + 1e-16 * np.arange(400).reshape(100, 4)
        truth = np.random.default_rng(0).random((100, 4)) < 0.5
        expected = roc_auc_score(truth, scores)
        assert aucroc(truth, scores) == pytest.approx(expected, abs=1e-12)


def test_a_class_without_a_column_is_an_error():
    scores = np.eye(3)
    for score in (top1_acc, pitch_acc, chroma_acc):
        assert score([0, 1, 2], scores) == 1
        assert score([0, 1, -1], scores) == pytest.approx(2 / 3)
    assert chroma_acc([0, 1, -1], scores, notes=[60, 72, 84]) == pytest.approx(2 / 3)
    rng = np.random.default_rng(0)
    columns, scores = rng.integers(-1, 4, 60), rng.random((60, 4))
    indicators = columns[:, None] == np.arange(4)
    for score in (mAP, aucroc):
        assert score(columns, scores) == score(indicators, scores)


def test_opposite_infinite_classes_have_no_mean():
    scores = np.array([[0.9, 0.9], [0.1, 0.1]])
    np.testing.assert_equal(d_prime([[1, 0], [0, 1]], scores), nan)
    assert isinf(d_prime([[1, 1], [0, 0]], scores))


@pytest.mark.parametrize("score", CLIP_SCORES)
@pytest.mark.parametrize(
    ("truth", "scores", "words"),
    [
        ([0, 1], [[nan, 1], [0, 1]], "y_score holds NaN"),
        ([0, 1], [[np.inf, 1], [0, 1]], "infinity"),
        ([0, 1], [0.5, 0.5], r"y_score has the shape \(2,\)"),
        ([], np.empty((0, 3)), r"y_score has the shape \(0, 3\)"),
        ([0, 1, 1], np.eye(2), r"y_true has the shape \(3,\)"),
        ([[0, 1]], np.eye(2), r"y_true has the shape \(1, 2\)"),
        ([0, 2], np.eye(2), "integers from 0 to 1"),
        ([0, -2], np.eye(2), "integers from 0 to 1"),
        ([0.0, 1.0], np.eye(2), "vector of float64"),
        (["a", "b"], np.eye(2), r"vector of <U1 such as \['a', 'b'\]"),
        ([[0, 2], [1, 0]], np.eye(2), "other values than zeros and ones"),
    ],
)
def test_mistakes(score, truth, scores, words):
    with pytest.raises(ValueError, match=words):
        score(truth, scores)


def test_notes_that_do_not_fit():
    for notes in ([60], [60.5, 61], [[60, 61]]):
        with pytest.raises(ValueError, match="each of the 2 columns"):
            chroma_acc([0, 1], np.eye(2), notes=notes)


class TestScorers:
    @pytest.mark.parametrize("names", [["x", "y", "z"], [3, 1, 2]])
    def test_one_label_per_row(self, blobs, names):
        X, y = blobs[0], np.asarray(names)[blobs[1]]
        probe = small_probe().fit(X, y)
        truth = y[:, None] == probe.classes_
        for name in ("top1_acc", "mAP", "aucroc", "d_prime"):
            found = make_hear_scorer(name)(probe, X, y.tolist())
            assert found == SCORES[name].function(truth, probe.predict_proba(X))

    def test_two_classes_count_both(self, blobs):
        X, y = blobs[0], blobs[1] > 0
        model = LogisticRegression(C=1e-3).fit(X, y)
        found = make_hear_scorer("mAP")(model, X, y)
        scores = model.predict_proba(X)
        assert found == pytest.approx(
            average_precision_score(np.column_stack([~y, y]), scores)
        )
        assert abs(found - average_precision_score(y, scores[:, 1])) > 1e-3

    @pytest.mark.parametrize("form", [np.asarray, sparse.csr_array, np.ndarray.tolist])
    @pytest.mark.parametrize(
        "model",
        [
            small_probe(),
            OneVsRestClassifier(LogisticRegression()),
            RandomForestClassifier(9, max_depth=3, random_state=0),
            make_pipeline(StandardScaler(), small_probe()),
        ],
        ids=["probe", "one vs rest", "matrix per label", "pipeline"],
    )
    def test_several_labels_per_row(self, indicators, model, form):
        X, y = indicators
        model = clone(model).fit(X, y)
        scores = model.predict_proba(X)
        if isinstance(scores, list):
            scores = np.column_stack([each[:, 1] for each in scores])
        found = make_hear_scorer("mAP", "aucroc")(model, X, form(y))
        assert found["mAP"] == pytest.approx(average_precision_score(y, scores))
        assert found["aucroc"] == pytest.approx(roc_auc_score(y, scores))

    def test_a_label_that_is_always_or_never_there(self, indicators):
        X, y = indicators[0], indicators[1].copy()
        y[:, 0], y[:, 1] = 1, 0
        forest = RandomForestClassifier(5, max_depth=3, random_state=0).fit(X, y)
        assert [len(each) for each in forest.classes_] == [1, 1, 2, 2]
        rest = forest.predict_proba(X)[2:]
        parts = [average_precision_score(y[:, i + 2], rest[i][:, 1]) for i in (0, 1)]
        expected = np.mean([1, 0, *parts])
        assert make_hear_scorer("mAP")(forest, X, y) == pytest.approx(expected)

    @pytest.mark.parametrize("data", ["blobs", "indicators"])
    def test_in_a_grid_search(self, data, request):
        X, y = request.getfixturevalue(data)
        search = GridSearchCV(
            small_probe(max_epochs=12),
            {"lr": [1e-6, 1e-2]},
            scoring=make_hear_scorer("mAP"),
            cv=PredefinedSplit(np.arange(len(X)) % 2),
            error_score="raise",
        ).fit(X, y)
        assert search.best_params_ == {"lr": 1e-2}
        assert search.score(X, y) == make_hear_scorer("mAP")(search, X, y)
        several = clone(search).set_params(
            scoring=make_hear_scorer("top1_acc", "mAP"), refit="mAP"
        )
        np.testing.assert_array_equal(
            several.fit(X, y).cv_results_["mean_test_mAP"],
            search.cv_results_["mean_test_score"],
        )

    def test_stops_a_probe(self, indicators):
        X, y = indicators
        probe = small_probe(
            validation=(X[:40], y[:40]),
            scoring=make_hear_scorer("aucroc"),
            ties="first",
        ).fit(X[40:], y[40:])
        found = aucroc(y[:40], probe.predict_proba(X[:40]))
        assert probe.best_score_ == pytest.approx(found, abs=1e-6)

    def test_classes_that_training_did_not_see(self, blobs):
        X, y = blobs
        probe = small_probe(validation=None).fit(X[y < 2], y[y < 2])
        accuracy = make_hear_scorer("top1_acc")(probe, X, y)
        assert accuracy == np.mean(probe.predict(X) == y) < 0.8

    def test_notes_of_the_classes(self, blobs):
        """The labels sort as text, so that columns tell nothing of notes."""
        X, y = blobs[0], np.array(["98", "104", "110"])[blobs[1]]
        probe = small_probe(max_epochs=3, lr=1e-4).fit(X, y)
        assert probe.classes_.tolist() == ["104", "110", "98"]
        found = make_hear_scorer("chroma_acc", notes="classes")(probe, X, y)
        predicted = probe.predict(X).astype(int)
        assert found == np.mean(predicted % 12 == y.astype(int) % 12)
        assert found > make_hear_scorer("chroma_acc")(probe, X, y)
        given = make_hear_scorer("chroma_acc", notes=probe.classes_.astype(int))
        assert given(probe, X, y) == found
        with pytest.raises(ValueError, match="notes='midi': give \"classes\""):
            make_hear_scorer("chroma_acc", notes="midi")(probe, X, y)

    def test_copies(self, blobs):
        X, y = blobs
        scorer = make_hear_scorer("chroma_acc", notes=[60, 72, 61])
        assert repr(scorer) == "make_hear_scorer('chroma_acc', notes=[60, 72, 61])"
        probe = small_probe(max_epochs=3).fit(X, y)
        again = pickle.loads(pickle.dumps(scorer))
        assert again(probe, X, y) == scorer(probe, X, y)

    def test_names_and_settings_that_are_not_known(self):
        with pytest.raises(ValueError, match=r"names \['map'\].* mAP, d_prime"):
            make_hear_scorer("map", "mAP")
        with pytest.raises(ValueError, match="one or several"):
            make_hear_scorer()
        with pytest.raises(ValueError, match="some compare probabilities"):
            make_hear_scorer("mAP", "segment_1s_er")
        with pytest.raises(TypeError, match=r"mAP has no settings \['collar'\].*none"):
            make_hear_scorer("mAP", collar=0.1)
        with pytest.raises(TypeError, match="collar, zero_division"):
            make_hear_scorer("event_onset_fms", notes=[60])

    def test_a_model_without_probabilities(self, blobs):
        with pytest.raises(TypeError, match="LinearSVC has no predict_proba"):
            make_hear_scorer("mAP")(LinearSVC().fit(*blobs), *blobs)


class Shifted(BaseEstimator):
    """A detector whose X is events already, and which is late."""

    def __init__(self, late=0.0):
        self.late = late

    def fit(self, X, y=None):
        return self

    def predict(self, X):
        return [[(x, a + self.late, b + self.late) for x, a, b in clip] for clip in X]


class TestEventScorers:
    events = [[("a", 0.5, 1.5), ("b", 2.0, 4.0)], [("a", 1.0, 9.0)], [("b", 3.0, 3.5)]]

    def test_any_collar(self):
        detector = Shifted(0.125)
        score = make_hear_scorer("event_onset_fms", collar=0.1)
        assert score(detector, self.events, self.events) == 0
        score = make_hear_scorer("event_onset_fms", collar=0.125)
        assert score(detector, self.events, self.events) == 1
        empty = [[], [], []]
        np.testing.assert_equal(score(detector, empty, self.events), nan)
        score = make_hear_scorer("event_onset_fms", zero_division=0)
        assert score(detector, empty, self.events) == 0

    def test_error_rates_are_negative(self):
        detector = Shifted(2.0)
        score = make_hear_scorer("segment_1s_er")(detector, self.events, self.events)
        late = detector.predict(self.events)
        assert score == -segment_error_rate(self.events, late) < 0

    def test_in_a_grid_search(self):
        search = GridSearchCV(
            Shifted(),
            {"late": [0.3, 0.1, 0.0]},
            scoring=make_hear_scorer("event_onset_200ms_fms", "segment_1s_er"),
            refit="segment_1s_er",
            cv=3,
            error_score="raise",
        ).fit(self.events, self.events)
        assert search.best_params_ == {"late": 0.0}
        name = "mean_test_event_onset_200ms_fms"
        np.testing.assert_array_equal(search.cv_results_[name], [0, 1, 1])

    def test_in_cross_validation(self):
        found = cross_validate(
            Shifted(0.1),
            self.events,
            self.events,
            scoring=make_hear_scorer("event_onset_fms", collar=0.2),
            cv=3,
        )
        expected = event_onset_fms(self.events, Shifted(0.1).predict(self.events))
        np.testing.assert_array_equal(found["test_score"], expected)
