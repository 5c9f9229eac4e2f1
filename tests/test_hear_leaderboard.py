"""The published scores: whole, in place, and ranked the right way."""

import numpy as np
import pytest

from skaudioemb.hear.leaderboard import find_column, load_leaderboard
from skaudioemb.hear.registry import get_task_info, list_tasks
from skaudioemb.hear.scores import SCORES


@pytest.fixture(scope="module")
def leaderboard():
    return load_leaderboard()


def test_every_system_and_task(leaderboard):
    assert leaderboard.values.shape == (34, 19)
    assert len(set(leaderboard.systems)) == 34
    assert set(leaderboard.tasks) == {
        get_task_info(task).title for task in list_tasks()
    }
    assert all(url.startswith("https://") for url in leaderboard.urls)
    assert leaderboard.submitted.count("HEAR 2021") == 29
    values = leaderboard.values[np.isfinite(leaderboard.values)]
    assert values.min() == 0
    assert values.max() < 1


@pytest.mark.parametrize(
    ("system", "task", "score"),
    [
        ("GURA Fuse Cat H+w+C", "Maestro 5h", 0.441270781),
        ("CREPE", "Beehive", 0.593195409),
        ("RedRice ced_base", "VoxLingua107 top 10", 0.385746759),
        ("AMAAI Lab wav2vec2+DDSP", "Beehive", np.nan),
    ],
)
def test_figures(leaderboard, system, task, score):
    found = leaderboard.column(task)[leaderboard.systems.index(system)]
    np.testing.assert_equal(found, score)


def test_values_cannot_be_changed(leaderboard):
    with pytest.raises(ValueError, match="read-only"):
        leaderboard.values[0, 0] = 1


def test_greater_is_better_in_all_columns():
    assert all(
        SCORES[get_task_info(task).primary].greater_is_better for task in list_tasks()
    )


class TestRank:
    def test_extremes(self, leaderboard):
        assert leaderboard.rank("Beehive", 1.0) == (1, 17)
        assert leaderboard.rank("Beehive", 0.0) == (17, 17)
        assert leaderboard.rank("Beehive", np.nan) == (None, 17)

    def test_published_score_ties_with_itself(self, leaderboard):
        scores = leaderboard.column("ESC-50")
        ranks = [leaderboard.rank("ESC-50", score)[0] for score in scores]
        assert ranks == [1 + int(np.sum(scores > score)) for score in scores]

    def test_unknown_task(self, leaderboard):
        with pytest.raises(ValueError, match=r"no task 'esc50-v2.0.0-full'.*ESC-50"):
            leaderboard.rank("esc50-v2.0.0-full", 0.5)


class TestStandardize:
    def test_published_scores_have_mean_0_and_deviation_1(self, leaderboard):
        scores = leaderboard.column("FSD50K")
        z_scores = leaderboard.standardize("FSD50K", scores)
        expected = (scores - np.nanmean(scores)) / np.nanstd(scores)
        inner = np.abs(expected) < 1
        np.testing.assert_allclose(z_scores[inner], expected[inner])
        assert np.nanmax(z_scores) == 1
        assert np.nanmin(z_scores) == -1
        np.testing.assert_array_equal(np.isnan(z_scores), np.isnan(scores))

    def test_infinite(self, leaderboard):
        np.testing.assert_equal(leaderboard.standardize("ESC-50", np.inf), 1.0)


class TestFindColumn:
    def test_each_folder(self, leaderboard):
        assert {find_column(task) for task in list_tasks()} == set(leaderboard.tasks)

    @pytest.mark.parametrize(
        "folder", ["esc50-v2.0.0-small", "esc50", "ESC-50", "spoken_digit-1.0.9-small"]
    )
    def test_other_versions_have_none(self, folder):
        assert find_column(folder) is None


def test_to_dataframe(leaderboard):
    pytest.importorskip("pandas")
    table = leaderboard.to_dataframe()
    assert table.loc["CREPE", "NSynth Pitch 5h"] == pytest.approx(0.87)
    assert table.isna().to_numpy().sum() == np.isnan(leaderboard.values).sum()
