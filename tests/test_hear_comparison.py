"""Two embedders, task by task."""

import numpy as np
import pytest
from scipy.stats import wilcoxon

from skaudioemb.hear.report import Comparison, compare
from skaudioemb.hear.statistics import paired_test
from tests.hear_results import ESC, multiclass, result, save, two_embedders

FAST = {"n_resamples": 50}


@pytest.fixture(scope="module")
def results():
    return two_embedders()


def test_tasks_in_common(results, tmp_path):
    save(results, tmp_path)
    for source in (results, tmp_path):
        comparison = compare(source, "good", "poor", n_resamples=199)
        assert comparison.wins == (3, 0, 0)
        rows = {row.task: row for row in comparison.rows}
        assert rows["mine-v1-small"].test.difference < 0
        assert rows[ESC].test.p_value == 1 / 200
        assert rows[ESC].p_adjusted <= 3 / 200
        assert np.isnan(comparison.p_over_tasks)
        text = str(comparison)
        assert "segment_1s_er (less is better)" in text
        assert "Better: good on 3, poor on 0, neither on 0 of 3 tasks." in text


def test_holm():
    """Its definition: p times the number of those not smaller, never falling."""
    made = paired_test(multiclass(), multiclass(seed=1), "mAP", n_resamples=9)
    p_values = [0.03, 0.01, np.nan, 0.04, 0.9]
    tests = {f"task{k}": made._replace(p_value=p) for k, p in enumerate(p_values)}
    rows = Comparison("a", "b", tests, {}).rows
    adjusted = [row.p_adjusted for row in rows]
    np.testing.assert_allclose(adjusted, [0.09, 0.04, np.nan, 0.09, 0.9])


def test_wilcoxon():
    strengths = [0.2, 0.5, 1.0, 1.4, 1.8, 2.2, 3.0]
    results = [
        result(embedder, f"task{k}", [multiclass(40, 4, strength + shift, seed + k)])
        for k, strength in enumerate(strengths)
        for embedder, shift, seed in (("a", 0.3, 0), ("b", 0.0, 100))
    ]
    comparison = compare(results, "a", "b", n_resamples=99)
    gains = [row.test.difference for row in comparison.rows]
    assert comparison.p_over_tasks == wilcoxon(gains).pvalue
    assert "Wilcoxon" in str(comparison)


def test_task_with_other_clips_is_left_out(results):
    other = multiclass()
    other.files[0] = "other.wav"
    pair = [result("good", "t", [multiclass()]), result("poor", "t", [other])]
    comparison = compare([*results, *pair], "good", "poor", **FAST)
    assert len(comparison.rows) == 3
    assert "not in both" in comparison.skipped["t"]
    assert "Left out: t. The two were tested on" in str(comparison)
    alone = compare(pair, "good", "poor", **FAST)
    assert "no task that both can be compared on" in str(alone)


def test_mistakes(results):
    with pytest.raises(ValueError, match=r"an embedder 'bad'. .* poor, good"):
        compare(results, "good", "bad")
    with pytest.raises(ValueError, match="Both embedders are 'good'"):
        compare(results, "good", "good")
    with pytest.raises(ValueError, match=r"Run both on a task in common"):
        compare([results[0], results[4]], "good", "poor")
