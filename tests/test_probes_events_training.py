"""EventDetector: validation, tuning, memory, and searches over it."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score
from sklearn.model_selection import (
    GridSearchCV,
    ParameterGrid,
    cross_val_score,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skaudioemb import (
    CREPE,
    Event,
    Frames,
    LogMel,
    ProbeSearchCV,
)
from skaudioemb.hear.scores import event_onset_fms, make_hear_scorer
from skaudioemb.probes.event_frames import FrameTable
from skaudioemb.probes.event_tuning import EventScoring, PostProcessing, expand_grid
from skaudioemb.probes.events import HEAR_POSTPROCESSING
from skaudioemb.probes.postprocessing import events_to_frames, frames_to_events
from tests.detectors import assert_same_weights, detector, recordings, weights
from tests.models import small_probe

GRID = {
    "median_filter": [0, 0.15, 0.25],
    "min_duration": [0, 0.1, 0.3],
    "threshold": [0.3, 0.5, 0.7],
}


@pytest.fixture(scope="module")
def train():
    X, y = recordings()
    return X[:24], y[:24]


@pytest.fixture(scope="module")
def test():
    X, y = recordings()
    return X[24:], y[24:]


@pytest.fixture(scope="module")
def fitted(train):
    return detector().fit(*train)


class TestValidation:
    def test_holds_out_clips_such_that_no_label_is_lost(self, train):
        X, y = train
        rare = [*y[:5], [Event("once", 0.2, 1.0)], *y[6:]]
        fitted = detector(probe=small_probe(max_epochs=1), validation=0.5).fit(X, rare)
        assert len(fitted.validation_clips_) == 12
        assert 5 not in fitted.validation_clips_
        kept = set(range(24)) - set(fitted.validation_clips_.tolist())
        heard = {event.label for i in kept for event in rare[i]}
        assert heard == set(fitted.classes_)

    def test_given_clips(self, train, test):
        fitted = detector(validation=test).fit(*train)
        assert len(fitted.validation_clips_) == 0
        assert fitted.probe_.best_score_ > 0.5
        assert fitted.probe_.validation == small_probe().validation
        other = [[Event("siren", 0.1, 1.0)], [Event("bell", 0.0, 3.0)]]
        fitted = detector(
            validation=(test[0][:2], other), postprocessing_grid={"threshold": [0.5]}
        ).fit(*train)
        assert max(fitted.postprocessing_scores_.values()) < 1
        assert "siren" not in fitted.classes_

    @pytest.mark.parametrize("n_clips", [2, 24])
    def test_none(self, train, n_clips):
        X, y = train
        probe = small_probe(max_epochs=7)
        params = {"validation": None} if n_clips > 2 else {"validation": 0.5}
        fitted = detector(probe=probe, **params).fit(X[:n_clips], y[:n_clips])
        assert fitted.probe_.n_epochs_ == 7
        assert fitted.probe_.best_score_ is None
        assert len(fitted.validation_clips_) == 0

    def test_checks_can_compare_events(self, train, test):
        grid = {"min_duration": [0.1, 0.2, 0.4], "threshold": [0.4, 0.5]}
        params = {"scoring": "event_onset_fms", "postprocessing_grid": grid}
        fitted = detector(validation=test, **params).fit(*train)
        assert fitted.probe_.scoring is None
        best = max(fitted.postprocessing_scores_.values())
        # The kept weights are those of the best check, and so is its best setting.
        assert fitted.probe_.best_score_ == pytest.approx(best, abs=0)
        assert fitted.score(*test) == pytest.approx(best, abs=0)
        checks = [e["score"] for e in fitted.probe_.history_ if "score" in e]
        assert max(checks) == best
        assert checks[0] < best
        frames = detector(validation=test, postprocessing_grid=grid).fit(*train)
        assert frames.score(*test) <= best

    @pytest.mark.parametrize("final", ["forest", "pipeline"])
    def test_checks_need_a_probe_that_makes_them(self, train, counted, final):
        probe = RandomForestClassifier()
        if final == "pipeline":
            probe = make_pipeline(StandardScaler(), probe)
        counted()
        with pytest.raises(ValueError, match="which RandomForestClassifier does not"):
            detector(probe=probe, scoring="event_onset_fms").fit(*train)
        assert counted().asked == 0

    def test_pipelines_scale_the_validation_frames_too(self, train, test, tmp_path):
        def fit(probe):
            return detector(probe=probe, validation=test).fit(*train)

        steps = StandardScaler(), small_probe(max_epochs=9)
        scaled = fit(make_pipeline(*steps))
        frames = np.concatenate([f.values for f in LogMel(hop=0.05).frames(train[0])])
        mean = StandardScaler().fit(frames).mean_
        np.testing.assert_allclose(scaled.probe_[0].mean_, mean, rtol=1e-5)
        probabilities = scaled.predict_proba(test[0])
        labels = [
            events_to_frames(events, own.times, scaled.classes_)
            for events, own in zip(test[1], probabilities, strict=True)
        ]
        precision = average_precision_score(
            np.concatenate(labels), np.concatenate([p.values for p in probabilities])
        )
        assert scaled.probe_[1].best_score_ == pytest.approx(precision, abs=1e-5)
        kept = fit(make_pipeline(*steps, memory=str(tmp_path)))
        assert kept.probe_[1].history_ == scaled.probe_[1].history_
        assert kept.predict(test[0]) == scaled.predict(test[0])
        alone = fit(make_pipeline(small_probe(max_epochs=9)))
        plain = fit(small_probe(max_epochs=9))
        assert alone.probe_[0].history_ == plain.probe_.history_


class TestTuning:
    @pytest.fixture(scope="class")
    @classmethod
    def tuned(cls, train, test):
        probe = small_probe(max_epochs=10)
        return detector(probe=probe, validation=test, postprocessing_grid=GRID).fit(
            *train
        )

    def test_equals_brute_force(self, tuned, test):
        X, y = test
        probabilities = tuned.predict_proba(X)
        labels = tuned.classes_.tolist()
        expected = {}
        for params in ParameterGrid(GRID):
            events = [frames_to_events(*p, labels, **params) for p in probabilities]
            expected[PostProcessing(**params)] = event_onset_fms(
                y, events, 0.2, zero_division=0
            )
        assert tuned.postprocessing_scores_ == expected
        assert len(set(expected.values())) > 5
        best = max(expected.values())
        winners = [setting for setting, f in expected.items() if f == best]
        assert tuned.postprocessing_ == max(winners)
        assert tuned.score(X, y) == best

    def test_needs_no_other_training(self, tuned, train, test):
        plain = detector(probe=small_probe(max_epochs=10), validation=test)
        assert_same_weights(plain.fit(*train), tuned)
        assert plain.postprocessing_ == PostProcessing(0.25, 0.125, 0.5)
        assert plain.postprocessing_scores_ == {}

    def test_ties_take_the_larger_values(self):
        times = [np.arange(20) / 20]
        probabilities = np.zeros((20, 1), np.float32)
        probabilities[5:15] = 0.9
        default = PostProcessing(0.25, 0.125, 0.5)
        settings = expand_grid(HEAR_POSTPROCESSING, default)
        assert [s.min_duration for s in settings] == [0.25, 0.125]
        truth = [[("a", 0.25, 0.7)]]
        scoring = EventScoring(times, truth, ["a"], settings, event_onset_fms)
        assert scoring.scores(probabilities).tolist() == [1, 1]
        assert np.isnan(scoring.scores(np.zeros_like(probabilities))).all()

    @pytest.mark.parametrize(
        ("grid", "message"),
        [
            ({"median": [0.1]}, "has the key 'median'. Its keys are median_filter, "),
            ({"threshold": []}, r"has threshold=\[\]. Give at least one value"),
            ({"threshold": [0.5, 1.5]}, "of at least 0 and below 1"),
            ({"min_duration": [-1]}, "of at least 0"),
            ({"median_filter": ["long"]}, "only numbers"),
        ],
    )
    def test_refuses_a_grid_that_makes_no_sense(self, train, grid, message):
        with pytest.raises(ValueError, match=message):
            detector(postprocessing_grid=grid).fit(*train)

    @pytest.mark.parametrize(
        "params", [{"postprocessing_grid": GRID}, {"scoring": "event_onset_fms"}]
    )
    def test_needs_validation_clips(self, train, params):
        message = f"{next(iter(params))} needs validation clips, but there are none"
        with pytest.raises(ValueError, match=message):
            detector(validation=None, **params).fit(*train)
        with pytest.raises(ValueError, match=message):
            detector(validation=0.5, **params).fit(train[0][:2], train[1][:2])


class TestMemory:
    def test_a_memory_map_changes_nothing(self, fitted, train, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        mapped = detector(max_memory=20_000).fit(*train)
        assert_same_weights(mapped, fitted)
        assert mapped.probe_.history_ == fitted.probe_.history_
        assert not list(tmp_path.iterdir())
        failing = small_probe(scoring=lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            detector(probe=failing, max_memory=0).fit(*train)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("max_bytes", [0, 200, 1e9])
    def test_rows_come_in_order(self, max_bytes):
        rng = np.random.default_rng(0)
        clips = {
            i: Frames(rng.random((n, 3), dtype=np.float32), np.arange(n) / 10)
            for i, n in enumerate((4, 1, 9, 5))
        }
        with FrameTable(max_bytes) as table:
            table.add((i, clips[i]) for i in (2, 0, 3, 1))
            for order in ([0, 3], [1, 2]):
                rows = table.stack(order)
                expected = np.concatenate([clips[i].values for i in order])
                np.testing.assert_array_equal(rows, expected)
                assert isinstance(rows, np.memmap) == (max_bytes < 1e9)
            assert table.times == {}
            del rows

    @pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's")
    def test_trains_on_more_frames_than_fit(self, tmp_path):
        root = Path(__file__).parents[1]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(tmp_path),
            "PYTHONPATH": os.pathsep.join([str(root), *sys.path]),
        }
        done = subprocess.run(
            [sys.executable, "-W", "error", root / "tests" / "limited_memory.py"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["mapped: fits", "held: MemoryError"]
        assert not list(tmp_path.iterdir())


class TestSearches:
    def test_a_grid_costs_one_forward_a_clip(self, train, tmp_path, counted):
        X, y = train
        embedder = CREPE("tiny", hop=0.1, memory=tmp_path)
        grid = {
            "probe__lr": [1e-2, 1e-3],
            "median_filter": [0, 0.3],
            "embedder__pooling": ["mean", "max"],
        }
        counted()
        search = GridSearchCV(
            detector(embedder, small_probe(max_epochs=4)),
            grid,
            cv=2,
            error_score="raise",
        ).fit(X, y)
        assert counted().run == len(X)
        scores = search.cv_results_["mean_test_score"]
        assert len(scores) == 8
        # Pooling makes scene vectors of frames, and changes no frame.
        first = [p["embedder__pooling"] == "mean" for p in search.cv_results_["params"]]
        np.testing.assert_array_equal(scores[np.array(first)], scores[~np.array(first)])
        assert len(set(scores)) > 2
        assert len(search.predict(X[:3])) == 3
        assert counted().run == 0

    def test_probe_search_falls_back(self, train):
        X, y = train
        grid = {"probe__lr": [1e-2, 1e-4], "threshold": [0.3]}
        base = detector(probe=small_probe(max_epochs=5))
        plain, stacked = (
            search(base, grid, cv=2, error_score="raise").fit(X, y)
            for search in (GridSearchCV, ProbeSearchCV)
        )
        assert stacked.n_stacked_ == 0
        np.testing.assert_array_equal(
            stacked.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"]
        )
        assert stacked.best_params_ == plain.best_params_

    def test_cross_validation_and_splits_take_lists(self):
        X, y = recordings()
        parts = train_test_split(X, y, random_state=0)
        assert [len(part) for part in parts] == [27, 9, 27, 9]
        base = detector(probe=small_probe(max_epochs=6))
        scores = cross_val_score(
            base, X, y, cv=3, scoring=make_hear_scorer("event_onset_50ms_fms")
        )
        assert scores.shape == (3,)
        assert (scores > 0.1).all()

    def test_nested_parameters(self, train):
        base = detector().set_params(
            embedder__n_mels=8, probe__hidden_layers=0, threshold=0.25
        )
        assert clone(base).get_params()["embedder__n_mels"] == 8
        fitted = base.fit(*train)
        assert weights(fitted)[0].shape == (5, 8)
        assert fitted.postprocessing_.threshold == 0.25
