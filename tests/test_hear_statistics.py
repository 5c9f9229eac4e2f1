"""Intervals and paired tests, against scores of drawn clips, scipy and simulations."""

import time

import numpy as np
import pytest
from scipy import stats

from skaudioemb.events import Event
from skaudioemb.hear.results import Predictions
from skaudioemb.hear.statistics import bootstrap_interval, paired_test
from skaudioemb.hear.weighted_scores import make_weighted_score
from tests.hear_results import events, multiclass, multilabel, result

CLIP_SCORES = ["top1_acc", "pitch_acc", "chroma_acc", "mAP", "d_prime", "aucroc"]
EVENT_SCORES = [
    "event_onset_200ms_fms",
    "event_onset_50ms_fms",
    "event_onset_offset_50ms_20perc_fms",
    "segment_1s_er",
]


def coins(hits):
    """Predictions of two classes of which the given ones are right."""
    truth = np.arange(len(hits)) % 2
    guess = np.where(hits, truth, 1 - truth)
    files = [f"{i}.wav" for i in range(len(hits))]
    return Predictions(files, ["a", "b"], truth, np.eye(2)[guess])


def rounded(predictions, decimals=1):
    """Probabilities with many ties."""
    predictions.predicted = predictions.predicted.round(decimals)
    return predictions


class TestWeightedScores:
    """A clip of weight 2 is a clip that is there twice."""

    CASES = [
        *[(multiclass(), name) for name in CLIP_SCORES],
        *[(multilabel(), name) for name in CLIP_SCORES],
        *[(rounded(multiclass()), name) for name in CLIP_SCORES],
        *[(multiclass(n_clips=90, n_classes=14), "chroma_acc")],
        *[(events(), name) for name in EVENT_SCORES],
    ]

    @pytest.mark.parametrize(("predictions", "name"), CASES)
    def test_equal_scores_of_drawn_clips(self, predictions, name):
        n_clips = len(predictions.files)
        rng = np.random.default_rng(1)
        draws = rng.integers(n_clips, size=(5, n_clips))
        counts = [np.bincount(clips, minlength=n_clips) for clips in draws]
        weights = np.array(counts, np.float32).T
        expected = [predictions.take(clips).score(name) for clips in draws]
        scores = make_weighted_score(predictions, name)(weights)
        np.testing.assert_allclose(scores, expected, rtol=1e-12)

    def test_class_that_is_not_drawn_is_left_out(self):
        predictions = multiclass(n_clips=40, n_classes=4)
        weights = (predictions.truth != 3).astype(np.float32)[:, None]
        kept = predictions.take(np.flatnonzero(predictions.truth != 3))
        kept = Predictions(
            kept.files, ["0", "1", "2"], kept.truth, kept.predicted[:, :3]
        )
        for name in ("mAP", "d_prime", "aucroc"):
            score = make_weighted_score(predictions, name)(weights)
            np.testing.assert_allclose(score, kept.score(name))

    @pytest.mark.parametrize("name", ["mAP", "d_prime", "aucroc"])
    def test_class_that_the_split_lacks_counts_as_in_the_score(self, name):
        predictions = multiclass(n_clips=40, n_classes=4)
        predictions = predictions.take(np.flatnonzero(predictions.truth != 3))
        weights = np.ones((len(predictions.files), 1), np.float32)
        score = make_weighted_score(predictions, name)(weights)
        np.testing.assert_allclose(score, predictions.score(name))

    def test_class_without_a_column_is_never_right(self):
        predictions = coins(np.ones(10, bool))
        predictions.truth[:5] = -1
        weights = np.ones((10, 1), np.float32)
        for name in ("top1_acc", "chroma_acc"):
            np.testing.assert_allclose(
                make_weighted_score(predictions, name)(weights), predictions.score(name)
            )


class TestInterval:
    def test_equals_scipy_on_accuracy(self):
        hits = np.random.default_rng(0).random(200) < 0.7
        found = bootstrap_interval(coins(hits), "top1_acc", n_resamples=4000)
        options = {"method": "percentile", "n_resamples": 4000, "rng": 1}
        expected = stats.bootstrap((hits.astype(float),), np.mean, **options)
        assert found.score == hits.mean()
        np.testing.assert_allclose(
            (found.low, found.high), expected.confidence_interval, atol=0.011
        )

    def test_splits_are_drawn_apart(self):
        """Two splits of sure clips have no spread, however much they differ."""
        parts = [coins(np.ones(30, bool)), coins(np.zeros(30, bool))]
        found = bootstrap_interval(result("a", "t", parts, ["top1_acc"]))
        assert (found.score, found.low, found.high) == (0.5, 0.5, 0.5)

    def test_score_of_a_result_is_its_own(self):
        parts = [multiclass(seed=seed) for seed in range(3)]
        whole = result("a", "t", parts)
        for name in ("top1_acc", "mAP"):
            found = bootstrap_interval(whole, name, n_resamples=50)
            assert found.score == pytest.approx(whole.scores[name])
            assert found.low < found.score < found.high

    @pytest.mark.parametrize("confidence", [0.8, 0.95])
    def test_coverage_of_accuracy(self, confidence):
        rng = np.random.default_rng(0)
        inside = []
        for seed in range(300):
            hits = rng.random(150) < 0.6
            options = {"n_resamples": 200, "random_state": seed}
            found = bootstrap_interval(
                coins(hits), "top1_acc", confidence=confidence, **options
            )
            inside.append(found.low <= 0.6 <= found.high)
        low, high = stats.binom.interval(0.999, 300, confidence)
        assert low - 6 <= sum(inside) <= high + 6

    @pytest.mark.parametrize("name", ["mAP", "d_prime"])
    def test_coverage_of_the_score_to_expect(self, name):
        """Ten clips a class, where plain percentiles lie too high."""
        parts = [multiclass(150, 15, seed=seed) for seed in range(300)]
        scores = [part.score(name) for part in parts]
        expected = np.mean(scores, where=np.isfinite(scores))
        found = [
            bootstrap_interval(part, name, n_resamples=150)
            for part, score in zip(parts, scores, strict=True)
            if np.isfinite(score)
        ]
        inside = np.mean([each.low <= expected <= each.high for each in found])
        assert inside > 0.88

    def test_undefined_draws_are_left_out_and_counted(self):
        truth = [[Event("a", 0.0, 1.0)] for _ in range(4)]
        guess = [truth[0], [], [], []]
        files = [f"{i}.wav" for i in range(4)]
        found = bootstrap_interval(
            Predictions(files, ["a"], truth, guess), "event_onset_200ms_fms"
        )
        assert found.n_undefined == pytest.approx(1000 * 0.75**4, abs=60)
        assert 0 < found.low < found.high <= 1

    def test_no_draw_has_a_score(self):
        nothing = Predictions(["0.wav"], ["a"], [[Event("a", 0.0, 1.0)]], [[]])
        found = bootstrap_interval(nothing, "event_onset_200ms_fms", n_resamples=10)
        assert np.isnan([found.score, found.low, found.high]).all()
        assert found.n_undefined == 10

    def test_infinite_score(self):
        sure = coins(np.ones(20, bool))
        found = bootstrap_interval(sure, "d_prime", n_resamples=20)
        assert (found.score, found.low, found.high) == (np.inf, np.inf, np.inf)

    def test_random_state(self):
        drawn = [
            bootstrap_interval(multiclass(), "mAP", n_resamples=300, random_state=seed)
            for seed in (0, 0, 1)
        ]
        assert drawn[0] == drawn[1] != drawn[2]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"score": None}, "no primary score. Give one of top1_acc"),
            ({"score": "segment_1s_er"}, "no score of probabilities. Give one of top1"),
            ({"score": "accuracy"}, "score='accuracy' is no score"),
            ({"confidence": 95}, "confidence=95: give a number between 0 and 1"),
            ({"n_resamples": 0}, "n_resamples=0: give at least 1"),
        ],
    )
    def test_mistakes(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            bootstrap_interval(multiclass(), **{"score": "mAP"} | arguments)


class TestPairedTest:
    def test_interval_and_p_value_equal_scipy_on_accuracy(self):
        rng = np.random.default_rng(0)
        hits = rng.random((2, 100)) < [[0.75], [0.6]]
        test = paired_test(*map(coins, hits), "top1_acc", n_resamples=4000)
        gains = hits[0].astype(float) - hits[1]
        expected = stats.permutation_test(
            (gains,),
            np.mean,
            permutation_type="samples",
            n_resamples=4000,
            rng=1,
        )
        assert test.difference == pytest.approx(gains.mean())
        assert test.p_value == pytest.approx(expected.pvalue, abs=0.02)
        drawn = stats.bootstrap((gains,), np.mean, method="percentile", rng=1)
        np.testing.assert_allclose(
            (test.low, test.high), drawn.confidence_interval, atol=0.021
        )

    @pytest.mark.parametrize("name", ["top1_acc", "mAP", "event_onset_200ms_fms"])
    def test_p_values_are_uniform_if_nothing_differs(self, name):
        make = events if name.startswith("event") else multiclass
        p_values = [
            paired_test(
                make(seed=2 * seed),
                make(seed=2 * seed + 1),
                name,
                n_resamples=99,
                random_state=seed,
            ).p_value
            for seed in range(150)
        ]
        # Ties of discrete scores make p-values larger, which is the safe side.
        assert stats.kstest(p_values, "uniform", alternative="greater").pvalue > 1e-3
        assert np.mean(p_values) < 0.65

    @pytest.mark.parametrize("name", CLIP_SCORES)
    def test_finds_a_difference_of_clips(self, name):
        good, poor = multiclass(strength=2, seed=1), multiclass(strength=0.5, seed=2)
        test = paired_test(good, poor, name, n_resamples=199)
        assert test.p_value == 1 / 200
        assert 0 < test.low <= test.difference <= test.high
        assert test.better == "a"

    def test_finds_a_difference_of_events_in_splits(self):
        names = ["segment_1s_er", "event_onset_200ms_fms"]
        good, poor = (
            result(name, "t", [events(20, share, seed) for seed in (1, 2)], names)
            for name, share in (("good", 0.9), ("poor", 0.3))
        )
        test = paired_test(poor, good, n_resamples=199)
        assert test.name == "segment_1s_er"
        assert test.n_clips == 40
        assert test.p_value == 1 / 200
        assert 0 < test.low < test.high
        assert test.better == "b"

    def test_same_predictions(self):
        test = paired_test(multiclass(), multiclass(), "mAP", n_resamples=50)
        assert (test.difference, test.low, test.high, test.p_value) == (0, 0, 0, 1)
        assert test.better is None

    @pytest.mark.parametrize(
        ("make", "name"), [(multiclass, "aucroc"), (events, "segment_1s_er")]
    )
    def test_order_of_clips_does_not_matter(self, make, name):
        a, b = make(seed=1), make(seed=2)
        shuffled = b.take(np.random.default_rng(0).permutation(len(b.files)))
        options = {"n_resamples": 50}
        assert paired_test(a, b, name, **options) == paired_test(
            a, shuffled, name, **options
        )

    def test_swapped_sides(self):
        a, b = multiclass(seed=1), multiclass(seed=2)
        one, other = paired_test(a, b, "top1_acc"), paired_test(b, a, "top1_acc")
        assert (one.low, one.high) == (-other.high, -other.low)
        assert one.p_value == other.p_value

    def test_score_that_is_not_defined(self):
        truth = [[Event("a", 0.0, 1.0)]] * 3
        files = [f"{i}.wav" for i in range(3)]
        found, nothing = (
            Predictions(files, ["a"], truth, guess) for guess in (truth, [[], [], []])
        )
        test = paired_test(found, nothing, "event_onset_200ms_fms", n_resamples=20)
        assert np.isnan([test.difference, test.low, test.p_value]).all()
        assert test.better is None

    def test_infinite_scores(self):
        sure = coins(np.ones(20, bool))
        test = paired_test(sure, sure, "d_prime", n_resamples=20)
        assert np.isnan([test.difference, test.low, test.p_value]).all()

    def test_refuses_other_clips(self):
        a, b = multiclass(), multiclass()
        b.files[3] = "other.wav"
        with pytest.raises(ValueError, match=r"2 of which .*'3.wav', 'other.wav'"):
            paired_test(a, b, "mAP")

    def test_refuses_names_that_occur_twice(self):
        a = multiclass()
        a.files[3] = a.files[4]
        with pytest.raises(ValueError, match="each named once"):
            paired_test(a, a, "mAP")

    def test_refuses_another_truth(self):
        a, b = multiclass(), multiclass()
        b.truth = b.truth.copy()
        b.truth[7] = 0
        with pytest.raises(ValueError, match=r"another truth for 7.wav"):
            paired_test(a, b, "mAP")

    def test_refuses_other_labels(self):
        a, b = multiclass(), multiclass()
        b.labels = b.labels[::-1]
        with pytest.raises(ValueError, match="their labels differ"):
            paired_test(a, b, "mAP")

    def test_refuses_other_splits_and_scores(self):
        one = result("a", "t", [multiclass()])
        with pytest.raises(ValueError, match=r"\['test'\], the other on \['fold00'"):
            paired_test(one, result("b", "t", [multiclass()] * 2))
        with pytest.raises(ValueError, match="primary scores are top1_acc and mAP"):
            paired_test(one, result("b", "t", [multiclass()], ["mAP"]))


def test_fast_on_many_clips():
    """Measured: 0.02 s for accuracy and 0.08 s for mAP; the bound is for slow hosts."""
    many = multiclass(2000, 50)
    start = time.perf_counter()
    bootstrap_interval(many, "top1_acc")
    bootstrap_interval(many, "mAP")
    assert time.perf_counter() - start < 5
