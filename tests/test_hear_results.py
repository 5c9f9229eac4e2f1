"""Results as files: what is written is read again, or refused."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import inf, isnan, nan

import numpy as np
import pytest

from skaudioemb.events import Event
from skaudioemb.hear.results import (
    Predictions,
    Result,
    SplitResult,
    read_json,
    write_json,
)
from tests.hear_results import events, multiclass, multilabel, result

KINDS = {"multiclass": multiclass, "multilabel": multilabel, "events": events}


def assert_same(found, expected):
    assert found.files == expected.files
    assert found.labels == expected.labels
    assert found.kind == expected.kind
    for one, other in (
        (found.truth, expected.truth),
        (found.predicted, expected.predicted),
    ):
        if expected.kind == "events":
            assert one == other
        else:
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype


class TestPredictions:
    @pytest.mark.parametrize("kind", KINDS)
    def test_round_trip(self, kind, tmp_path):
        predictions = KINDS[kind]()
        assert predictions.kind == kind
        predictions.save(tmp_path / "test.npz")
        assert_same(Predictions.load(tmp_path / "test.npz"), predictions)

    @pytest.mark.parametrize(
        ("truth", "predicted"),
        [
            ([[], []], [[], []]),
            ([[], [Event("é 1", 0.125, 2.0)]], [[], []]),
            ([[], []], [[Event("a", 0.0, 0.0), Event("a", 0.0, 0.0)], []]),
            ([], []),
        ],
    )
    def test_round_trip_of_few_events(self, truth, predicted, tmp_path):
        files = [f"clip {i} ü.wav" for i in range(len(truth))]
        predictions = Predictions(files, ["a", "é 1"], truth, predicted)
        predictions.save(tmp_path / "test.npz")
        assert_same(Predictions.load(tmp_path / "test.npz"), predictions)

    def test_labels_of_events_become_text(self, tmp_path):
        events = [[Event(60, 0.5, 1.0)]]
        Predictions(["0.wav"], ["60"], events, events).save(tmp_path / "test.npz")
        assert Predictions.load(tmp_path / "test.npz").truth == [[("60", 0.5, 1.0)]]

    @pytest.mark.parametrize("kind", KINDS)
    def test_take(self, kind):
        predictions = KINDS[kind]()
        taken = predictions.take([3, 1, 3])
        assert taken.files == ["3.wav", "1.wav", "3.wav"]
        assert taken.kind == kind
        for row, source in enumerate([3, 1, 3]):
            np.testing.assert_array_equal(taken.truth[row], predictions.truth[source])
            np.testing.assert_array_equal(
                taken.predicted[row], predictions.predicted[source]
            )

    def test_no_pickles_are_read(self, tmp_path):
        arrays = {"files": np.array(["a"]), "labels": np.array(["a"])}
        arrays |= {"truth": np.array([{}], object), "predicted": np.zeros((1, 1))}
        np.savez(tmp_path / "test.npz", **arrays)
        with pytest.raises(ValueError, match="allow_pickle"):
            Predictions.load(tmp_path / "test.npz")


class TestSplitResult:
    @pytest.mark.parametrize("kind", KINDS)
    def test_round_trip(self, kind, tmp_path):
        names = ["segment_1s_er"] if kind == "events" else ["mAP"]
        (split,) = result("a", "t", [KINDS[kind]()], names).splits
        candidates = [{"hyperparameters": {"lr": 1e-4}, "validation_score": -inf}]
        split = replace(split, search=candidates, validation_score=-inf)
        split.save(tmp_path / "new")
        found = SplitResult.load(tmp_path / "new" / "test.json")
        assert_same(found.predictions, split.predictions)
        assert replace(found, predictions=None) == replace(split, predictions=None)

    def test_predictions_are_not_copied_into_the_text(self, tmp_path):
        (split,) = result("a", "t", [events()], ["segment_1s_er"]).splits
        split.save(tmp_path)
        content = json.loads((tmp_path / "test.json").read_text())
        assert content["predictions"] == "test.npz"
        assert split.predictions.kind == "events"


class TestResult:
    def test_round_trip(self, tmp_path):
        whole = result("a", "t", [multiclass(seed=seed) for seed in range(3)])
        whole.save(tmp_path)
        found = Result.load(tmp_path)
        assert [split.test for split in found.splits] == ["fold00", "fold01", "fold02"]
        assert found.scores == whole.scores
        for one, other in zip(found.splits, whole.splits, strict=True):
            assert_same(one.predictions, other.predictions)
        assert replace(found, splits=[]) == replace(whole, splits=[])

    def test_means_and_deviations(self):
        parts = [multiclass(seed=seed) for seed in range(3)]
        whole = result("a", "t", parts)
        scores = [part.score("top1_acc") for part in parts]
        assert whole.score == pytest.approx(np.mean(scores))
        assert whole.deviations["top1_acc"] == pytest.approx(np.std(scores, ddof=1))
        assert whole.greater_is_better
        assert not result("a", "t", [events()], ["segment_1s_er"]).greater_is_better

    def test_one_split_has_no_deviation(self):
        assert isnan(result("a", "t", [multiclass()]).deviations["mAP"])

    def test_scores_that_are_not_finite(self, tmp_path):
        whole = result("a", "t", [multiclass(), multiclass(seed=1)])
        for split, score in zip(whole.splits, (inf, 2.0), strict=True):
            split.scores |= {"d_prime": score, "mAP": nan}
        whole.save(tmp_path)
        found = Result.load(tmp_path)
        assert found.scores["d_prime"] == inf
        assert isnan(found.scores["mAP"])
        assert isnan(found.deviations["d_prime"])
        assert found.splits[0].scores["d_prime"] == inf

    def test_summary_is_readable_without_this_package(self, tmp_path):
        whole = result("a", "t", [multiclass(), multiclass(seed=1)])
        whole.save(tmp_path)
        content = json.loads((tmp_path / "result.json").read_text())
        assert content["scores"] == whole.scores
        assert content["splits"] == ["fold00.json", "fold01.json"]

    def test_unfinished(self, tmp_path):
        for split in result("a", "t", [multiclass()]).splits:
            split.save(tmp_path)
        with pytest.raises(FileNotFoundError):
            Result.load(tmp_path)

    def test_another_format(self, tmp_path):
        result("a", "t", [multiclass()]).save(tmp_path)
        content = read_json(tmp_path / "result.json") | {"format": 99}
        write_json(tmp_path / "result.json", content)
        with pytest.raises(
            ValueError, match=r"not a result of format 1. Run the bench"
        ):
            Result.load(tmp_path)


class TestFiles:
    def test_values_that_are_not_finite(self, tmp_path):
        content = {
            "scores": {"a": nan, "b": [inf, {"c": -inf}]},
            "name": "nan",
            "c": np.float32(0.5),
            "d": None,
        }
        write_json(tmp_path / "a.json", content)
        json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
        found = read_json(tmp_path / "a.json")
        assert isnan(found["scores"].pop("a"))
        numbers = {"b": [inf, {"c": -inf}]}
        assert found == {"scores": numbers, "name": "nan", "c": 0.5, "d": None}

    def test_a_failed_write_leaves_the_old_file(self, tmp_path):
        write_json(tmp_path / "a.json", {"a": 1})
        with pytest.raises(TypeError):
            write_json(tmp_path / "a.json", {"a": object()})
        assert read_json(tmp_path / "a.json") == {"a": 1}
        assert os.listdir(tmp_path) == ["a.json"]

    def test_a_failed_write_of_arrays_leaves_nothing(self, tmp_path):
        broken = multiclass()
        broken.files = [b"\xff", "1.wav", ["2.wav"]]
        with pytest.raises(ValueError, match="inhomogeneous"):
            broken.save(tmp_path / "test.npz")
        assert os.listdir(tmp_path) == []

    def test_many_writers_of_one_file(self, tmp_path):
        contents = [{"a": [i] * 1000} for i in range(40)]
        path = tmp_path / "a.json"
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda content: write_json(path, content), contents))
        assert read_json(path) in contents
        assert os.listdir(tmp_path) == ["a.json"]

    def test_half_written_files_are_errors(self, tmp_path):
        result("a", "t", [multiclass()]).save(tmp_path)
        for name in ("test.npz", "result.json"):
            data = (tmp_path / name).read_bytes()
            (tmp_path / name).write_bytes(data[: len(data) // 2])
            with pytest.raises(
                Exception, match=r"zip|Unterminated|Expecting|delimiter"
            ):
                Result.load(tmp_path)
            (tmp_path / name).write_bytes(data)
        assert Result.load(tmp_path).task == "t"
