"""Evaluation of an embedder on a task, against heareval's own runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone

from skaudioemb import Event, Frames, LogMel
from skaudioemb.datasets import write_hear_tasks
from skaudioemb.hear.evaluation import Evaluation, evaluate
from skaudioemb.hear.protocol import Protocol
from skaudioemb.hear.results import Result
from skaudioemb.hear.scores import SCORES, event_onset_fms
from skaudioemb.hear.task import load_task
from skaudioemb.probes.postprocessing import frames_to_events
from tests.stored_tasks import HEAR, Stored, digits, office
from tests.task_trees import EVENTS, FOLDS, TAGS, make_task

RUNS = json.loads((HEAR / "reference_runs.json").read_text())["runs"]
FAST = Protocol(n_points=2, grid="faster", seed=0)


def reference(task):
    return [run for run in RUNS if run["task"] == task]


@pytest.fixture(scope="module")
def faithful(tmp_path_factory):
    task, embedder = office(tmp_path_factory.mktemp("office"))
    # The stored rows stand in heareval's order already.
    protocol = Protocol.heareval(n_points=3, order="task")
    return task, embedder, evaluate(embedder, task, protocol=protocol)


@pytest.fixture(scope="module")
def rhythms(tmp_path_factory):
    [path] = write_hear_tasks(tmp_path_factory.mktemp("rhythms"), ["rhythms"])
    return load_task(path)


@pytest.fixture(scope="module")
def result(rhythms):
    return evaluate(LogMel(), rhythms, protocol=FAST, name="baseline")


class TestAgainstHeareval:
    def test_events_score_as_heareval_does(self, faithful):
        _, _, result = faithful
        found = [run["test_score"] for run in reference("office-v1")]
        spread = np.std(found, ddof=1)
        assert result.score == pytest.approx(np.mean(found), abs=3 * spread)
        best = [run["validation_score"] for run in reference("office-v1")]
        [split] = result.splits
        assert split.validation_score == pytest.approx(np.mean(best), abs=0.06)

    def test_every_point_validates_as_in_heareval(self, faithful):
        _, _, result = faithful
        [split] = result.splits
        fits = np.array(
            [[fit[4] for fit in run["fits"]] for run in reference("office-v1")]
        )
        found = [record["validation_score"] for record in split.search]
        # The reference's own seeds differ by up to 0.06.
        np.testing.assert_allclose(found, fits.mean(axis=0), atol=0.06)
        assert split.postprocessing["min_duration"] == 0

    def test_scores_are_those_of_the_predictions(self, faithful):
        task, _, result = faithful
        [split] = result.splits
        assert list(split.scores) == task.evaluation
        for name, score in split.scores.items():
            assert score == split.predictions.score(name)
        assert split.predictions.files == task.part("test").files
        assert split.predictions.truth == task.part("test").y

    def test_postprocessing_is_the_best_on_the_validation_clips(self, faithful):
        task, embedder, _ = faithful
        protocol = Protocol(n_points=1, grid="faster")
        evaluation = Evaluation(embedder, task, protocol)
        split = evaluation.run("test")
        probe, valid = evaluation.probes["test"], task.part("valid")
        frames = embedder.frames(valid.X)
        scores = {}
        for setting in protocol.postprocessing(task):
            events = [
                frames_to_events(
                    *(probe.predict_proba(values), times, task.labels),
                    **setting._asdict(),
                )
                for values, times in frames
            ]
            scores[setting] = event_onset_fms(valid.y, events, 0.2, zero_division=0)
        best = max(scores.values())
        assert scores[tuple(split.postprocessing.values())] == best
        assert split.validation_score == pytest.approx(best)

    def test_scenes_score_as_heareval_does(self, tmp_path):
        task, embedder = digits(tmp_path)
        [run] = reference("digit-v1")
        protocol = Protocol.heareval(n_points=3, order="task")
        result = evaluate(embedder, task, protocol=protocol)
        # 120 clips near the level of chance: three standard errors of a share.
        error = np.sqrt(run["test_score"] * (1 - run["test_score"]) / 120)
        assert result.score == pytest.approx(run["test_score"], abs=3 * error)
        [split] = result.splits
        expected = [fit[4] for fit in run["fits"][:3]]
        found = [record["validation_score"] for record in split.search]
        assert np.mean(found) == pytest.approx(np.mean(expected), abs=0.04)
        assert split.validation_score == max(found)
        points = [tuple(fit[1:4]) for fit in run["fits"][:3]]
        for record, (layers, init, lr) in zip(split.search, points, strict=True):
            params = record["hyperparameters"]
            assert params["hidden_layers"] == layers
            assert params["init"] == init.rstrip("_")
            assert params["lr"] == lr


class TestFolds:
    def test_the_first_fold_chooses_for_all(self, rhythms, result):
        assert [split.test for split in result.splits] == rhythms.splits
        assert [split.valid for split in result.splits] == [
            *rhythms.splits[1:],
            rhythms.splits[0],
        ]
        first, *others = result.splits
        assert len(first.search) == 2
        found = [record["validation_score"] for record in first.search]
        assert first.validation_score == max(found)
        for split in others:
            assert split.search == []
            assert split.hyperparameters == first.hyperparameters

    def test_every_clip_is_tested_once(self, rhythms, result):
        tested = [file for split in result.splits for file in split.predictions.files]
        assert sorted(tested) == sorted(rhythms.files)

    def test_what_is_told(self, rhythms, result):
        assert result.embedder == "baseline"
        assert result.task == rhythms.name
        assert result.n_clips == len(rhythms.X)
        assert result.n_features == LogMel().transform(rhythms.X[:1]).shape[1]
        scores = [split.scores["top1_acc"] for split in result.splits]
        assert result.score == pytest.approx(np.mean(scores))
        assert result.deviations["top1_acc"] == pytest.approx(np.std(scores, ddof=1))
        assert result.seconds.keys() == {"embedding", "fitting", "scoring", "total"}
        assert result.protocol["seed"] == 0
        assert set(result.versions) >= {"python", "torch", "numpy"}
        assert eval(result.parameters).get_params() == LogMel().get_params()

    def test_survives_a_file(self, result, tmp_path):
        result.save(tmp_path)
        loaded = Result.load(tmp_path)
        assert loaded.scores == result.scores
        assert loaded.splits[0].search == result.splits[0].search

    def test_splits_one_by_one_give_the_same(self, rhythms, result):
        evaluation = Evaluation(LogMel(), rhythms, FAST)
        last = result.splits[-1]
        alone = evaluation.run(last.test, last.hyperparameters)
        assert alone.scores == last.scores
        np.testing.assert_array_equal(
            alone.predictions.predicted, last.predictions.predicted
        )

    def test_test_clips_are_not_looked_at(self, rhythms, result):
        class Blind(LogMel):
            def transform(self, X):
                values = super().transform(X)
                return np.where(test[:, None], 1e3, values)

        test = rhythms.split == rhythms.splits[0]
        blind = Evaluation(Blind(), rhythms, FAST).run(rhythms.splits[0])
        assert blind.search == result.splits[0].search
        assert blind.hyperparameters == result.splits[0].hyperparameters

    def test_an_embedder_that_learns_sees_training_clips_only(self, rhythms):
        class Learning(TransformerMixin, BaseEstimator):
            """Remembers the clips that it was fitted to, which is all it has seen."""

            def fit(self, X, y=None):
                seen.append(set(X))
                return self

            def transform(self, X):
                return np.array([[len(Path(path).name), 1.0] for path in X])

        seen = []
        evaluation = Evaluation(Learning(), rhythms, FAST)
        for test in rhythms.splits[:3]:
            split = evaluation.run(test, {"max_epochs": 3})
            held_out = rhythms.part(split.test, split.valid).X
            assert not seen[-1] & set(held_out)
        assert len(seen) == 3

    def test_unknown_split(self, rhythms):
        with pytest.raises(ValueError, match="has no test split 'test'; it has fold00"):
            Evaluation(LogMel(), rhythms).run("test")


class TestSwitches:
    def test_a_score_that_is_not_finite(self, tmp_path):
        task, embedder = office(tmp_path)
        # No event lasts longer than its clip, so that there is never one to score.
        grid = {"median_filter_ms": [250], "min_duration": [20000]}
        task.metadata["evaluation_params"] = {"event_postprocessing_grid": grid}
        params = {**vars(FAST), "n_points": 1}
        stopped = evaluate(
            embedder, task, protocol=Protocol(**params | {"nonfinite": "stop"})
        )
        [split] = stopped.splits
        assert split.n_epochs == 1
        assert split.validation_score == -np.inf
        assert np.isnan(split.scores["event_onset_200ms_fms"])
        [split] = evaluate(embedder, task, protocol=Protocol(**params)).splits
        assert split.n_epochs > 1
        assert split.validation_score == 0

    def test_keep_probes(self, tmp_path):
        task, embedder = digits(tmp_path)
        kept = Evaluation(
            embedder, task, Protocol(**vars(FAST) | {"keep_probes": True})
        )
        kept.run("test")
        assert len(kept.probes["test"]) == 2
        dropped = Evaluation(embedder, task, FAST)
        dropped.run("test")
        assert dropped.probes["test"].n_epochs_ > 0

    def test_order_of_heareval(self, tmp_path):
        task, embedder = digits(tmp_path)
        params = {**vars(FAST), "shuffle": False}
        one, other = (
            Evaluation(embedder, task, Protocol(**params | {"order": order}))
            for order in ("task", "heareval")
        )
        one, other = one.run("test").predictions, other.run("test").predictions
        expected = [task.files[i] for i in task.heareval_order()]
        assert other.files == [file for file in expected if file in set(one.files)]
        assert other.files != one.files
        assert sorted(other.files) == sorted(one.files)

    def test_seed(self, tmp_path):
        task, embedder = digits(tmp_path)
        probabilities = [
            Evaluation(embedder, task, Protocol(n_points=1, grid="faster", seed=seed))
            .run("test")
            .predictions.predicted
            for seed in (0, 0, 1)
        ]
        np.testing.assert_array_equal(probabilities[0], probabilities[1])
        assert (probabilities[0] != probabilities[2]).any()


class TestKindsOfTasks:
    def table(self, task, width=6, seed=0):
        rng = np.random.default_rng(seed)
        return Stored({name: rng.normal(size=width) for name in task.files})

    def test_several_labels_or_none(self, tmp_path):
        more = {**TAGS["more"], "evaluation": ["mAP", "top1_acc"]}
        annotations = {
            split: {f"{split}{i}.wav": clips[i % len(clips)] for i in range(6)}
            for split, clips in (
                ("train", [["wind"], ["rain", "wind"], []]),
                ("valid", [["rain"], ["NA"]]),
                ("test", [[], ["wind"], ["rain"]]),
            )
        }
        vocabulary = TAGS["vocabulary"]
        task = load_task(
            make_task(tmp_path, annotations, vocabulary=vocabulary, more=more)
        )
        [split] = evaluate(self.table(task), task, protocol=FAST).splits
        assert split.predictions.kind == "multilabel"
        assert split.predictions.predicted.shape == (6, 3)
        np.testing.assert_array_equal(split.predictions.truth, task.part("test").y)
        assert split.scores["mAP"] == split.predictions.score("mAP")

    def test_labels_keep_the_order_of_the_vocabulary(self, tmp_path):
        annotations = {
            fold: {f"{fold}-{i}.wav": [9 + i % 2] for i in range(8)}
            for fold in ("fold00", "fold01", "fold02")
        }
        folder = make_task(
            *(tmp_path, annotations), vocabulary=FOLDS["vocabulary"], more=FOLDS["more"]
        )
        task = load_task(folder)
        assert task.labels == ["9", "10"]
        table = {
            name: np.array([10.0 * (int(label) - 9), 1.0])
            for name, label in zip(task.files, task.y, strict=True)
        }
        result = evaluate(Stored(table), task, protocol=Protocol(n_points=2))
        assert result.scores["top1_acc"] == 1
        assert result.splits[0].predictions.truth.tolist() == [0, 1] * 4

    def test_a_label_that_is_not_trained_on(self, tmp_path):
        annotations = {
            "train": {f"a{i}.wav": ["xy"[i % 2]] for i in range(8)},
            "valid": {f"b{i}.wav": ["xy"[i % 2]] for i in range(4)},
            "test": {"c0.wav": ["x"], "c1.wav": ["y"], "c2.wav": ["z"]},
        }
        task = load_task(make_task(tmp_path, annotations))
        [split] = evaluate(self.table(task), task, protocol=FAST).splits
        assert split.predictions.predicted.shape == (3, 3)
        assert (split.predictions.predicted[:, 2] == 0).all()

    @pytest.mark.parametrize("primary", ["segment_1s_er", "event_onset_50ms_fms"])
    def test_other_scores_of_events(self, tmp_path, primary):
        task, embedder = office(tmp_path)
        task.metadata["evaluation"] = [primary, "event_onset_200ms_fms"]
        [split] = evaluate(embedder, task, protocol=FAST).splits
        found = [record["validation_score"] for record in split.search]
        best = max(found) if SCORES[primary].greater_is_better else min(found)
        assert split.validation_score == best
        assert best >= 0

    def test_training_stopped_by_the_loss(self, tmp_path):
        task, embedder = office(tmp_path)
        task.metadata["use_scoring_for_early_stopping"] = False
        grid = {"median_filter_ms": [150], "min_duration": [50]}
        task.metadata["evaluation_params"] = {"event_postprocessing_grid": grid}
        [split] = evaluate(embedder, task, protocol=FAST).splits
        assert split.validation_score < 0
        found = [record["validation_score"] for record in split.search]
        assert split.validation_score == max(found)
        assert split.postprocessing["median_filter"] == 0.15

    def test_clips_without_events(self, tmp_path):
        annotations = {**EVENTS["annotations"]}
        annotations["test"] = {**annotations["test"], "e.wav": []}
        task = load_task(make_task(tmp_path, annotations, more=EVENTS["more"]))
        rng = np.random.default_rng(0)
        times = np.arange(40) * 0.05 + 0.025
        table = {
            name: Frames(rng.normal(size=(40, 5)).astype(np.float32), times)
            for name in task.files
        }
        [split] = evaluate(Stored(table), task, protocol=FAST).splits
        assert split.predictions.truth == [[Event("60", 0.001, 2.0)], []]


def test_a_clip_that_cannot_be_embedded(tmp_path):
    task, embedder = digits(tmp_path)
    spoiled = dict(embedder.table)
    spoiled[task.files[3]] = np.full(256, np.nan)
    with pytest.raises(ValueError, match=f"1 of 720 clips have no .*: {task.files[3]}"):
        evaluate(Stored(spoiled), task, protocol=FAST)


def test_the_embedder_is_left_as_it_was(tmp_path):
    [path] = write_hear_tasks(tmp_path, ["notes"])
    embedder = LogMel(n_mels=20)
    result = evaluate(embedder, path, protocol=FAST)
    assert vars(embedder) == vars(clone(embedder))
    assert result.n_features == 40
    assert result.embedder == "LogMel"
