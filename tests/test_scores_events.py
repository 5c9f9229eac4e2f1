"""Scores of events, against sed_eval's values and against plain definitions."""

import json
from math import ceil, floor, nan

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from skaudioemb.events import Event
from skaudioemb.hear.scores import (
    SCORES,
    align_files,
    event_onset_fms,
    event_onset_offset_fms,
    event_scores,
    segment_error_rate,
    segment_scores,
)
from tests.models import GOLDEN

CASES = json.loads((GOLDEN / "hear" / "events.json").read_text())
COUNTS = {
    "Ntp": "n_true_positive",
    "Ntn": "n_true_negative",
    "Nfp": "n_false_positive",
    "Nfn": "n_false_negative",
    "Nref": "n_reference",
    "Nsys": "n_estimated",
    "S": "n_substitutions",
    "D": "n_deletions",
    "I": "n_insertions",
}
EVENT_SCORES = [
    "event_onset_200ms_fms",
    "event_onset_50ms_fms",
    "event_onset_offset_50ms_20perc_fms",
]


def in_seconds(files):
    return {
        name: [Event(e["label"], e["start"] / 1000, e["end"] / 1000) for e in events]
        for name, events in files.items()
    }


@pytest.fixture(params=CASES)
def case(request):
    case = CASES[request.param]
    reference, estimate = in_seconds(case["reference"]), in_seconds(case["estimate"])
    return (*align_files(reference, estimate), case["expected"], case["labels"])


def assert_equal(found, expected):
    """Equal to 1e-9, NaN to NaN."""
    np.testing.assert_allclose(found, float(expected), rtol=1e-9, atol=1e-9)


class TestReference:
    @pytest.mark.parametrize("name", EVENT_SCORES)
    def test_events(self, case, name):
        reference, estimate, expected, _ = case
        scores = SCORES[name].details(reference, estimate)
        for part in ("f_measure", "precision", "recall"):
            assert_equal(getattr(scores, part), expected[name][part])
        counts = expected[name]["counts"]
        assert scores[3:] == (counts["Nref"], counts["Nsys"], counts["Ntp"])
        value = SCORES[name].function(reference, estimate)
        assert_equal(value, expected[name]["f_measure"])

    def test_segments(self, case):
        reference, estimate, expected, labels = case
        expected = expected["segment_1s_er"]
        scores = segment_scores(reference, estimate, labels=labels)
        assert_equal(scores.error_rate, expected["error_rate"])
        for part, value in expected["sub_scores"].items():
            assert_equal(getattr(scores, part), value)
        for count, value in expected["counts"].items():
            assert getattr(scores, COUNTS[count]) == value
        assert_equal(scores.seconds, expected["seconds"])
        value = SCORES["segment_1s_er"].function(reference, estimate)
        assert_equal(value, expected["error_rate"])

    def test_collars(self):
        """At the collar and a thousandth of a millisecond beside it."""
        path = GOLDEN / "hear" / "event_collars.json"
        rows = np.array(json.loads(path.read_text())["rows"])
        assert len(rows) > 200
        times, expected = rows[:, :4] / 1000, rows[:, 4:]
        found = [
            [
                SCORES[name].function([[("a", *row[:2])]], [[("a", *row[2:])]])
                for name in EVENT_SCORES
            ]
            for row in times.tolist()
        ]
        np.testing.assert_array_equal(found, expected)


def dense_events(rng, n_clips=3, n_events=40):
    """Events of two labels, close together, on a grid on which collars tie."""
    return [
        [
            Event(rng.choice(["a", "b"]), start / 20, (start + rng.integers(1, 9)) / 20)
            for start in rng.integers(0, 60, n_events).tolist()
        ]
        for _ in range(n_clips)
    ]


class TestMatching:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("ratio", [None, 0.2, 0.5])
    def test_as_many_pairs_as_can_be(self, seed, ratio):
        rng = np.random.default_rng(seed)
        reference = dense_events(rng)
        estimate = dense_events(rng, n_events=40 + 10 * seed)
        collar = [0.05, 0.1, 0.0, 0.2, 1.0][seed]
        n_matched = 0
        for true, guess in zip(reference, estimate, strict=True):
            fits = np.array(
                [
                    [
                        t.label == g.label
                        and abs(t.start - g.start) <= collar
                        and (
                            ratio is None
                            or abs(t.end - g.end)
                            <= max(collar, ratio * (t.end - t.start))
                        )
                        for g in guess
                    ]
                    for t in true
                ]
            )
            pairs = maximum_bipartite_matching(csr_array(fits), perm_type="column")
            n_matched += np.sum(pairs >= 0)
        found = event_scores(reference, estimate, collar, ratio)
        assert found.n_matched == n_matched > 5

    def test_the_order_of_events_and_clips_does_not_matter(self):
        rng = np.random.default_rng(0)
        reference, estimate = dense_events(rng), dense_events(rng)
        expected = event_scores(reference, estimate, 0.05, 0.2)
        backwards = [[clip[::-1] for clip in x[::-1]] for x in (reference, estimate)]
        assert event_scores(*backwards, 0.05, 0.2) == expected
        swapped = event_scores(estimate, reference, 0.05)
        assert swapped.f_measure == event_onset_fms(reference, estimate, 0.05)

    def test_clips_do_not_mix(self):
        reference = [[("a", 0, 1)], [("a", 5, 6)]]
        assert event_onset_fms(reference, reference[::-1]) == 0

    def test_labels_are_text(self):
        reference = [[(60, 0, 1), ("61", 0, 1)]]
        estimate = [[("60", 0, 1), (np.int64(61), 0, 1)]]
        assert event_onset_offset_fms(reference, estimate) == 1
        assert segment_error_rate(reference, estimate) == 0


class TestSegments:
    @pytest.mark.parametrize("segment", [0.25, 0.5, 1.0, 3.0])
    def test_against_a_plain_count(self, segment):
        rng = np.random.default_rng(1)
        reference, estimate = dense_events(rng, 4, 3), dense_events(rng, 4, 4)
        errors, n_active, n_both = np.zeros(3), 0, 0
        for clips in zip(reference, estimate, strict=True):
            true, guess = (
                {
                    (label, index)
                    for label, start, end in clip
                    for index in range(floor(start / segment), ceil(end / segment))
                }
                for clip in clips
            )
            for index in {index for _, index in true | guess}:
                t, g = (
                    {x for x, i in active if i == index} for active in (true, guess)
                )
                missed, false = len(t - g), len(g - t)
                both = min(missed, false)
                errors += both, missed - both, false - both
            n_active += len(true)
            n_both += len(true & guess)
        scores = segment_scores(reference, estimate, segment)
        assert scores[13:16] == tuple(errors)
        assert scores.n_reference == n_active
        assert scores.recall == pytest.approx(n_both / n_active)
        assert errors.sum() > 0

    def test_more_labels_are_more_true_negatives(self):
        events = [[("a", 0.5, 2.5)]]
        assert segment_scores(events, events).n_true_negative == 0
        assert segment_scores(events, events, labels="abc").n_true_negative == 6

    def test_what_lies_before_the_clip_is_cut_off(self):
        assert segment_error_rate([[("a", -2.5, 1)]], [[("a", 0, 1)]]) == 0
        assert segment_scores([[("a", -2.5, -1)]], [[]]).n_reference == 0


@pytest.mark.parametrize(
    ("reference", "estimate"), [([[]], [[]]), ([[("a", 0, 1)]], [[]]), ([], [])]
)
def test_zero_division(reference, estimate):
    np.testing.assert_equal(event_onset_fms(reference, estimate), nan)
    assert event_onset_fms(reference, estimate, zero_division=0) == 0
    assert event_onset_offset_fms(reference, estimate, zero_division=0) == 0
    assert segment_scores(reference, estimate, zero_division=0).f_measure == 0


@pytest.mark.parametrize(
    ("reference", "estimate", "error", "words"),
    [
        ([[], []], [[]], ValueError, "events of 2 clips, estimate those of 1"),
        ([("a", 0, 1)], [[]], TypeError, r"reference must .* give \[events\]"),
        ([("abc", 0, 1)], [[]], TypeError, "reference must be a list"),
        ([[]], [[("a", 0)]], TypeError, "estimate must be a list"),
        ([[]], [[("a", "now", 1)]], TypeError, "estimate must be a list"),
        ({}, {}, TypeError, "reference is a dict.*align_files"),
        ([[]], [[("a", 0, nan)]], ValueError, "estimate.*clip 0, label 'a'"),
        ([[], [("b", 2, 1)]], [[], []], ValueError, "clip 1, label 'b'.*2.0 to 1.0"),
        ([[("b", -np.inf, 1)]], [[]], ValueError, "finite"),
    ],
)
def test_events_that_are_none(reference, estimate, error, words):
    for score in (event_onset_fms, event_onset_offset_fms, segment_error_rate):
        with pytest.raises(error, match=words):
            score(reference, estimate)


def test_parameters_that_are_wrong():
    with pytest.raises(ValueError, match="collar=-1"):
        event_onset_fms([[]], [[]], -1)
    with pytest.raises(ValueError, match="offset_ratio=nan"):
        event_onset_offset_fms([[]], [[]], offset_ratio=nan)
    with pytest.raises(ValueError, match="segment=0"):
        segment_error_rate([[]], [[]], 0)
    with pytest.raises(ValueError, match=r"labels \['b'\]"):
        segment_scores([[("b", 0, 1)]], [[]], labels=["a"])


def test_only_files_of_the_estimate_are_aligned():
    reference, estimate = align_files({"x": [1], "y": [2]}, {"z": [3], "y": [4]})
    assert reference == [[], [2]]
    assert estimate == [[3], [4]]
    with pytest.raises(TypeError, match="estimate is a list"):
        align_files({}, [])
