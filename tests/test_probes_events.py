"""EventDetector: what it detects, its scores, and the events it is given."""

import pickle
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from skaudioemb import (
    CREPE,
    Event,
    EventDetector,
    Fusion,
    LogMel,
)
from skaudioemb.datasets import make_events
from skaudioemb.hear.scores import event_onset_fms, make_hear_scorer
from skaudioemb.probes.events import HEAR_POSTPROCESSING
from skaudioemb.probes.postprocessing import events_to_frames, frames_to_events
from tests.detectors import assert_same_weights, detector, recordings
from tests.models import small_probe

LISTS = "predict and predict_proba return lists of different lengths, not arrays"


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


@parametrize_with_checks(
    [detector(LogMel(n_mels=16), validation=0.1)],
    expected_failed_checks=lambda _: dict.fromkeys(
        (
            "check_estimators_pickle",
            "check_fit_idempotent",
            "check_methods_sample_order_invariance",
            "check_methods_subset_invariance",
        ),
        LISTS,
    ),
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


class TestDetection:
    def test_finds_most_onsets_of_other_clips(self, fitted, test):
        X, y = test
        assert fitted.score(X, y) > 0.8
        # By chance: the events of other clips.
        assert event_onset_fms(y, y[1:] + y[:1], 0.2) < 0.3

    def test_with_crepe_and_scaled_frames(self, train, test, tmp_path):
        probe = make_pipeline(StandardScaler(), small_probe(max_epochs=30))
        embedder = CREPE("tiny", hop=0.05, memory=tmp_path)
        fitted = detector(embedder, probe).fit(*train)
        assert fitted.score(*test) > 0.6
        final = fitted.probe_[-1]
        assert final.validation == small_probe().validation
        assert final.best_score_ > 0.6

    def test_with_a_fusion(self, train, test):
        members = [("mel", LogMel(hop=0.05)), ("wide", LogMel(hop=0.05, window=0.2))]
        fusion = Fusion(members)
        fitted = detector(fusion).fit(*train)
        assert fitted.score(*test) > 0.7
        assert fitted.probe_.n_features_in_ == 128

    def test_with_a_forest(self, train, test):
        forest = RandomForestClassifier(20, random_state=0)
        fitted = detector(probe=forest, postprocessing_grid=HEAR_POSTPROCESSING)
        fitted.fit(*train)
        assert fitted.score(*test) > 0.6
        (frames,) = fitted.predict_proba(test[0][:1])
        table = fitted.embedder_.frames(test[0][:1])[0].values
        each = fitted.probe_.predict_proba(table)
        np.testing.assert_allclose(frames.values, np.array(each)[:, :, 1].T)

    def test_with_the_default_probe(self, train):
        X, y = train
        twins = [
            EventDetector(LogMel(n_mels=4, hop=0.2), random_state=3).fit(X[:6], y[:6])
            for _ in range(2)
        ]
        assert twins[0].probe_.get_params()["hidden_units"] == 1024
        assert_same_weights(*twins)

    def test_probe_is_trained_as_one_would_by_hand(self, train):
        X, y = train
        fitted = detector().fit(X, y)
        held_out = set(fitted.validation_clips_.tolist())
        frames = LogMel(hop=0.05).frames(X)
        labels = sorted({event.label for clip in y for event in clip})
        targets = [
            events_to_frames(events, own.times, labels)
            for events, own in zip(y, frames, strict=True)
        ]

        def rows(clips):
            values = np.concatenate([frames[i].values for i in clips])
            return values, np.concatenate([targets[i] for i in clips])

        kept = [i for i in range(len(X)) if i not in held_out]
        probe = small_probe(max_epochs=40, validation=rows(sorted(held_out)))
        probe.fit(*rows(kept))
        assert fitted.classes_.tolist() == labels
        assert fitted.probe_.history_ == probe.history_
        np.testing.assert_array_equal(
            fitted.predict_proba(X[:1])[0].values,
            probe.predict_proba(frames[0].values),
        )

    def test_predictions_are_post_processed_probabilities(self, fitted, test):
        X, _ = test
        labels = fitted.classes_.tolist()
        frames = fitted.predict_proba(X)
        events = fitted.predict(X)
        assert sum(map(len, events)) > 10
        for found, (values, times) in zip(events, frames, strict=True):
            expected = frames_to_events(
                values,
                times,
                labels,
                median_filter=0.25,
                min_duration=0.125,
                threshold=0.5,
            )
            assert found == expected
            assert found == sorted(found, key=lambda event: event.start)
            assert all(type(event) is Event for event in found)

    def test_parameters_of_post_processing_count(self, train, test):
        X, y = train
        plain = detector(median_filter=0, min_duration=0, threshold=0.9)
        plain.fit(X, y)
        frames = plain.predict_proba(test[0][:3])
        expected = [
            frames_to_events(
                *own,
                plain.classes_.tolist(),
                median_filter=0,
                min_duration=0,
                threshold=0.9,
            )
            for own in frames
        ]
        assert plain.predict(test[0][:3]) == expected

    def test_does_not_depend_on_other_clips(self, fitted, test):
        X, _ = test
        together = fitted.predict_proba(X)
        assert all(frames.values.shape[1] == 5 for frames in together)
        backwards = fitted.predict_proba(X[::-1])[::-1]
        other = pickle.loads(pickle.dumps(fitted))
        other.embedder_.set_params(batch_seconds=2.0)
        for i, frames in enumerate(together):
            alone = other.predict_proba([X[i]])[0]
            for again in (alone, backwards[i]):
                np.testing.assert_allclose(again.values, frames.values, atol=1e-5)
                np.testing.assert_array_equal(again.times, frames.times)
        assert fitted.predict(X[::-1]) == fitted.predict(X)[::-1]

    def test_paths_and_series_are_welcome(self, fitted, train, test, wav):
        X, y = train
        series = pd.Series(X, index=np.arange(len(X)) + 7)
        again = detector().fit(series, pd.Series(y, index=series.index))
        assert_same_weights(again, fitted)
        assert len(fitted.predict([wav])) == 1


class TestScore:
    def test_is_the_onset_f_measure_of_all_clips(self, fitted, test):
        X, y = test
        assert fitted.score(X, y) == event_onset_fms(y, fitted.predict(X), 0.2)
        strict = pickle.loads(pickle.dumps(fitted)).set_params(collar=0.03)
        assert strict.score(X, y) == event_onset_fms(y, fitted.predict(X), 0.03)
        assert strict.score(X, y) < fitted.score(X, y)

    def test_unseen_labels_are_missed(self, fitted, test):
        X, y = test
        more = [[*events, Event("siren", 0.0, 1.0)] for events in y]
        found = fitted.predict(X)
        n_true, n_found = (sum(map(len, events)) for events in (y, found))
        matched = round(fitted.score(X, y) * (n_true + n_found) / 2)
        assert fitted.score(X, more) == pytest.approx(
            2 * matched / (n_true + len(X) + n_found)
        )

    def test_is_zero_where_nothing_is_found(self, fitted):
        silence = [np.zeros(8000, np.float32)]
        assert fitted.predict(silence) == [[]]
        assert fitted.score(silence, [[("bell", 0.1, 0.2)]]) == 0
        assert fitted.score(silence, [[]]) == 0

    def test_scorers_of_hear(self, fitted, test):
        X, y = test
        scorer = make_hear_scorer("event_onset_200ms_fms", "segment_1s_er")
        scores = scorer(fitted, X, y)
        assert scores["event_onset_200ms_fms"] == fitted.score(X, y)
        assert -1 < scores["segment_1s_er"] < 0


class TestEstimator:
    def test_pickles_small_and_without_sounds(self, fitted, test, tmp_path):
        crepe = detector(CREPE("tiny", hop=0.1), small_probe(max_epochs=1))
        content = pickle.dumps(crepe.fit(*test))
        assert len(content) < 200_000
        again = pickle.loads(pickle.dumps(fitted))
        assert again.predict(test[0]) == fitted.predict(test[0])

    def test_does_not_change_its_parts(self, train):
        embedder, probe = LogMel(hop=0.1), small_probe(max_epochs=1)
        fitted = EventDetector(embedder, probe).fit(*train)
        assert fitted.embedder is embedder
        assert not hasattr(embedder, "n_layers_")
        assert not hasattr(probe, "net_")

    def test_tags(self, fitted):
        tags = get_tags(fitted)
        assert tags.input_tags.two_d_array
        assert tags.target_tags.required
        assert not tags.input_tags.allow_nan
        assert get_tags(detector(LogMel(on_error="nan"))).input_tags.allow_nan

    def test_wants_to_be_fitted(self, test):
        for method in ("predict", "predict_proba"):
            with pytest.raises(NotFittedError):
                getattr(detector(), method)(test[0])

    def test_bad_clips_are_left_out(self, train, test, fitted):
        X, y = train
        embedder = LogMel(hop=0.05, on_error="nan")
        spoilt = [*X, [], np.full(999, np.nan)]
        base = detector(embedder, validation=test)
        with pytest.warns(UserWarning, match="2 of 26 clips could not be embedded"):
            found = base.fit(spoilt, [*y, [Event("bell", 0, 1)], []])
        assert_same_weights(found, detector(validation=test).fit(X, y))
        with pytest.warns(UserWarning, match="1 of 3 clips"):
            events = found.predict([X[0], [], X[2]])
        assert events[1] == []
        assert events[::2] == found.predict([X[0], X[2]])
        with pytest.warns(UserWarning, match="1 of 2 clips"):
            frames = found.predict_proba([[], X[0]])
        assert np.isnan(frames[0].values).all()
        assert frames[0].values.shape == (1, 5)
        assert np.isfinite(frames[1].values).all()
        with (
            pytest.warns(UserWarning, match="1 of 1 clips"),
            pytest.raises(ValueError, match="None of 1 clips could be embedded"),
        ):
            clone(found).fit([[]], [[Event("bell", 0, 1)]])


class TestLabels:
    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            ({"beep": 10, "hiss": 9}, [9, 10]),
            ({"beep": np.int64(10), "hiss": 9}, [9, 10]),
            ({"beep": ("a", 1), "hiss": ("a", 0)}, [("a", 0), ("a", 1)]),
            ({"beep": 3, "hiss": "loud"}, [3, "loud"]),
            ({"beep": True, "hiss": False}, [False, True]),
            ({"beep": 60, "hiss": "60"}, None),
        ],
    )
    def test_may_be_anything(self, names, expected):
        X, y = make_events(
            12, kinds=["beep", "hiss"], n_events=2, return_X_y=True, random_state=0
        )
        own = [[(names[kind], *rest) for kind, *rest in events] for events in y]
        fitted = detector().fit(X, own)
        if expected is None:
            assert [str(label) for label in fitted.classes_] == ["60"]
        else:
            assert fitted.classes_.tolist() == expected
            found = Counter(e.label for clip in fitted.predict(X) for e in clip)
            assert set(found) == set(expected)
            assert {type(label) for label in found} == set(map(type, expected))
        assert fitted.score(X, own) > 0.7

    def test_a_single_label(self):
        X, y = make_events(
            16, kinds="chirp", n_events=(0, 2), return_X_y=True, random_state=0
        )
        fitted = detector().fit(X[:12], y[:12])
        assert fitted.predict_proba(X[:1])[0].values.shape[1] == 1
        assert fitted.score(X[12:], y[12:]) > 0.8

    def test_one_label_per_clip_holds_throughout(self):
        X, y = make_events(
            20, kinds=["beep", "hiss"], n_events=1, return_X_y=True, random_state=0
        )
        cut = [
            clip[round(e.start * 16000) : round(e.end * 16000)]
            for clip, (e,) in zip(X, y, strict=True)
        ]
        labels = np.array([e.label for (e,) in y])
        fitted = detector(min_duration=0.1).fit(cut, labels)
        assert fitted.classes_.tolist() == ["beep", "hiss"]
        assert fitted.score(cut, labels) > 0.9
        whole = [
            [Event(label, 0.0, len(clip) / 16000)]
            for label, clip in zip(labels.tolist(), cut, strict=True)
        ]
        assert_same_weights(detector(min_duration=0.1).fit(cut, whole), fitted)

    def test_arrays_of_events(self):
        X, y = make_events(
            8, kinds=["beep", "hiss"], n_events=2, return_X_y=True, random_state=0
        )
        once = detector(probe=small_probe(max_epochs=2)).fit(X, y)
        for array in (np.array(y), np.array([*y, None], dtype=object)[:-1]):
            assert array.dtype.kind in "UO"
            assert_same_weights(clone(once).fit(X, array), once)

    def test_events_may_reach_out_of_their_clip(self, train):
        X, y = train
        wide = [[*events, Event("bell", -1.0, 0.3)] for events in y]
        wide[0] = [*wide[0], Event("bell", 4.5, 6.0)]
        fitted = detector(probe=small_probe(max_epochs=1)).fit(X, wide)
        assert fitted.classes_.tolist() == sorted({e.label for c in y for e in c})

    @pytest.mark.parametrize(
        ("y", "error", "message"),
        [
            ([[("a", 0, 1)]], ValueError, "events of 1 clips, but X has 2"),
            ([[], []], ValueError, "None of the 2 clips has an event"),
            ([("a", 0, 1), ("b", 0, 1)], TypeError, r"y\[0\] is one event"),
            ([[("a", 1, 0.5)], []], ValueError, r"clip 0, label 'a'\) goes from 1"),
            ([[("a", 0, np.nan)], []], ValueError, "Times must be finite"),
            ([[("a", 0, None)], []], ValueError, "Times must be finite"),
            ([[], [("a", 200, 900)]], ValueError, "clip 1 .* divide by 1000"),
            ([[("a", 0)], []], TypeError, "one list of events per clip"),
            ([["dog"], ["cat"]], TypeError, "one list of events per clip"),
            (["dog", [("a", 0, 1)]], TypeError, r"y\[0\] is 'dog', others are lists"),
            ({"a.wav": []}, TypeError, "y is a dict. Give one list of events"),
            ([[(None, 0, 1)], []], ValueError, "is None or NaN"),
            (None, ValueError, "requires y to be passed"),
        ],
    )
    def test_mistakes_get_a_sentence(self, y, error, message):
        X = [np.zeros(16000, np.float32)] * 2
        with pytest.raises(error, match=message):
            detector().fit(X, y)

    def test_mistakes_in_the_validation_clips(self, train, test):
        X, y = test
        with pytest.raises(ValueError, match="do not fit: y holds the events of 11"):
            detector(validation=(X, y[1:])).fit(*train)
        with pytest.raises(ValueError, match="a sequence of 3 items"):
            detector(validation=(X, y, y)).fit(*train)
        with pytest.raises(ValueError, match="events of 3 clips, but X has 12"):
            detector().fit(*train).score(X, y[:3])
