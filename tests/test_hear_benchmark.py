"""Many embedders on many tasks: what is kept, skipped, refused and survived."""

import json
from functools import partial

import numpy as np
import pytest
from joblib import parallel_config

from skaudioemb import CREPE, Fusion, LogMel, Store
from skaudioemb.hear.benchmark import run_benchmark
from skaudioemb.hear.evaluation import evaluate
from skaudioemb.hear.protocol import Protocol
from skaudioemb.hear.results import Result
from skaudioemb.hear.task import load_task
from tests.hear_evaluations import Deadly, Failing, Interrupted, Nearest, Settings
from tests.hear_folders import pack, write_folder

OPTIONS = {"protocol": Settings(), "evaluation": Nearest, "verbose": 0}


@pytest.fixture
def tasks(tmp_path):
    """Return a folder with two tasks."""
    folder = tmp_path / "tasks"
    write_folder(folder, "folds-v1-small", n_folds=4, n_clips=4)
    write_folder(folder, "split-v1-small", n_clips=4, seed=1)
    return folder


@pytest.fixture
def run(tasks, tmp_path):
    return partial(run_benchmark, tasks=tasks, out=tmp_path / "out", **OPTIONS)


@pytest.fixture
def models():
    return {"small": LogMel(n_mels=8), "large": LogMel(n_mels=16)}


def names(benchmark):
    return [(result.embedder, result.task) for result in benchmark.results]


def content_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in (".json", ".npz")
    }


class TestResults:
    def test_every_pair_has_one(self, run, models, tmp_path):
        benchmark = run(models)
        assert names(benchmark) == [
            (model, task)
            for model in models
            for task in ("folds-v1-small", "split-v1-small")
        ]
        assert benchmark.failures == []
        for result in benchmark.results:
            folder = tmp_path / "out" / result.embedder / result.task
            assert Result.load(folder).scores == result.scores
            assert not (folder / "error.json").exists()
            assert result.score == 1.0
        folds = benchmark.results[0]
        assert [split.test for split in folds.splits] == [f"fold0{i}" for i in range(4)]

    def test_other_folds_are_trained_with_the_first_ones_choice(self, run, models):
        result = run(models).results[0]
        assert len({str(split.hyperparameters) for split in result.splits}) == 1

    def test_no_clip_is_run_twice(self, run, models, tasks, tmp_path, counted):
        run(models)
        n_clips = sum(len(load_task(path).X) for path in tasks.iterdir())
        assert counted().run == 2 * n_clips
        assert Store(tmp_path / "out" / "embeddings.sqlite").info().entries > 0

    def test_a_memory_of_its_own_is_used(self, run, tmp_path):
        own = tmp_path / "own.sqlite"
        fusion = Fusion([("a", LogMel(n_mels=8)), ("b", LogMel(n_mels=4))], memory=own)
        run({"fusion": fusion})
        assert own.exists()
        assert not (tmp_path / "out" / "embeddings.sqlite").exists()
        assert fusion.memory == own

    def test_seconds(self, run, models):
        benchmark = run(models)
        for result in benchmark.results:
            parts = ("embedding", "fitting")
            used = sum(split.seconds[name] for split in result.splits for name in parts)
            assert sum(result.seconds[name] for name in parts) == pytest.approx(used)
            assert result.seconds["total"] > used
        total = sum(result.seconds["total"] for result in benchmark.results)
        spent = sum(
            r.seconds["embedding"] + r.seconds["fitting"] for r in benchmark.results
        )
        assert benchmark.overhead == pytest.approx(1 - spent / total)


class TestResuming:
    def test_nothing_is_computed_twice(self, run, models, tmp_path, counted):
        first = run(models)
        before = content_of(tmp_path / "out")
        counted()
        again = run(models, evaluation=Failing)
        assert counted().asked == 0
        assert content_of(tmp_path / "out") == before
        assert [r.scores for r in again.results] == [r.scores for r in first.results]

    def test_goes_on_at_the_fold(self, run, tmp_path):
        models = {"small": LogMel(n_mels=8)}
        with pytest.raises(KeyboardInterrupt):
            run(models, evaluation=Interrupted)
        folder = tmp_path / "out" / "small" / "folds-v1-small"
        done = {path.name for path in folder.glob("fold*.json")}
        assert done == {"fold00.json", "fold01.json"}
        kept = {name: (folder / name).read_bytes() for name in done}
        benchmark = run(models)
        assert len(benchmark.results) == 2
        resumed = benchmark.results[0]
        assert {name: (folder / name).read_bytes() for name in done} == kept
        other = run(models, out=tmp_path / "other").results[0]
        assert resumed.scores == other.scores

    def test_a_damaged_file_is_computed_again(self, run, models, tmp_path):
        first = run(models)
        folder = tmp_path / "out" / "small" / "folds-v1-small"
        (folder / "fold02.npz").write_bytes(b"PK")
        (folder / "fold03.json").write_text("{")
        again = run(models)
        assert [r.scores for r in again.results] == [r.scores for r in first.results]
        assert again.results[0].splits[2].predictions.files

    @pytest.mark.parametrize(
        "how", ["protocol", "embedder", "task", "audio", "sample rate"]
    )
    def test_other_settings_are_refused_or_computed_again(
        self, how, run, tasks, tmp_path, counted
    ):
        run({"a": LogMel(n_mels=8)})
        models, options, said = {"a": LogMel(n_mels=8)}, {}, ""
        if how == "protocol":
            options = {"protocol": Settings(seed=1)}
            said = r"folds-v1-small was computed with protocol seed = 0 \(now 1\) \(and"
        elif how == "embedder":
            models = {"a": LogMel(n_mels=8, pooling="max")}
            said = r"embedder pooling = 'mean-std' \(now 'max'\)"
        elif how == "task":
            path = tasks / "split-v1-small" / "train.json"
            labels = json.loads(path.read_text())
            name = next(iter(labels))
            labels[name] = ["high" if labels[name] == ["low"] else "low"]
            path.write_text(json.dumps(labels))
            said = r"split-v1-small was computed with task sha256 = "
        elif how == "audio":
            clip = tasks / "split-v1-small" / "8000" / "test" / "test0.wav"
            clip.write_bytes(clip.with_name("test1.wav").read_bytes())
            said = r"split-v1-small was computed with task sha256 = "
        else:
            rate = tasks / "split-v1-small" / "8000"
            rate.rename(rate.with_name("16000"))
            said = r"task sample_rate = 8000 \(now 16000\)"
        before = content_of(tmp_path / "out")
        with pytest.raises(ValueError, match=said):
            run(models, **options)
        assert content_of(tmp_path / "out") == before
        counted()
        assert len(run(models, overwrite=True, **options).results) == 2
        assert counted().asked > 0
        assert len(run(models, **options).results) == 2
        assert counted().asked == 0

    def test_only_what_changed_is_computed_again(self, run, tasks, counted):
        run({"a": LogMel(n_mels=8)}, tasks=tasks / "split-v1-small")
        run({"a": LogMel(n_mels=4)}, tasks=tasks / "folds-v1-small")
        counted()
        run({"a": LogMel(n_mels=4)}, overwrite=True)
        assert counted().asked == len(load_task(tasks / "split-v1-small").X)

    def test_what_does_not_change_results_is_no_change(self, run, counted):
        run({"a": LogMel(n_mels=8)})
        counted()
        other = LogMel(n_mels=8, device="cpu", batch_seconds=1.0, memory="elsewhere")
        assert len(run({"a": other}).results) == 2
        assert counted().asked == 0

    def test_a_folder_of_something_else_is_refused(self, run, tmp_path):
        folder = tmp_path / "out" / "a" / "split-v1-small"
        folder.mkdir(parents=True)
        (folder / "mine.json").write_text("{}")
        with pytest.raises(
            ValueError, match="holds JSON files that are not of a bench"
        ):
            run({"a": LogMel(n_mels=8)}, overwrite=True)
        assert (folder / "mine.json").exists()


class TestFailures:
    def test_a_crash_stops_nothing_else(self, run, models, tasks, tmp_path):
        write_folder(tasks, "bad-v1-small", n_clips=4)
        benchmark = run(models, evaluation=Failing)
        assert names(benchmark) == [(m, "split-v1-small") for m in models]
        assert [(f.embedder, f.task, f.test) for f in benchmark.failures] == [
            (model, task, test)
            for model in models
            for task, test in (("bad-v1-small", "test"), ("folds-v1-small", "fold01"))
        ]
        assert "RuntimeError: no luck with fold01" in str(benchmark.failures[1])
        folder = tmp_path / "out" / "small" / "folds-v1-small"
        (noted,) = json.loads((folder / "error.json").read_text())["failures"]
        assert noted["test"] == "fold01"
        assert "Traceback" in noted["traceback"]
        assert {path.stem for path in folder.glob("fold*.json")} == {
            *("fold00", "fold02", "fold03")
        }
        again = run(models)
        assert len(again.results) == 6
        assert again.failures == []
        assert not (folder / "error.json").exists()

    def test_an_embedder_that_cannot_begin(self, run):
        benchmark = run({"a": CREPE("huge")})
        assert benchmark.results == []
        assert [failure.test for failure in benchmark.failures] == ["fold00", "test"]
        assert all("'model'" in failure.error for failure in benchmark.failures)

    def test_a_task_that_cannot_begin(self, run, tasks):
        path = tasks / "split-v1-small" / "task_metadata.json"
        metadata = json.loads(path.read_text()) | {"evaluation": ["speed"]}
        path.write_text(json.dumps(metadata))
        with pytest.raises(ValueError, match="speed"):
            run({"a": LogMel(n_mels=8)})

    def test_a_process_that_dies(self, run, tasks):
        write_folder(tasks, "very_bad-v1-small", n_clips=4)
        benchmark = run({"a": LogMel(n_mels=8)}, evaluation=Deadly, n_jobs=2)
        assert names(benchmark) == [("a", "folds-v1-small"), ("a", "split-v1-small")]
        (failure,) = benchmark.failures
        assert failure.task == "very_bad-v1-small"
        assert "process that ran it died" in failure.error


class TestProcesses:
    @pytest.mark.parametrize("names_of_tasks", [["folds"], ["folds", "split"]])
    def test_same_results(self, run, models, tasks, tmp_path, names_of_tasks):
        """With one pair there are more processes than pairs: folds run side by side."""
        if len(names_of_tasks) == 1:
            del models["large"]
        paths = [tasks / f"{name}-v1-small" for name in names_of_tasks]
        expected = run(models, tasks=paths, out=tmp_path / "one")
        found = run(models, tasks=paths, n_jobs=2)
        assert names(found) == names(expected)
        for a, b in zip(found.results, expected.results, strict=True):
            assert a.scores == b.scores
            assert [s.hyperparameters for s in a.splits] == [
                s.hyperparameters for s in b.splits
            ]

    def test_failures(self, run, tasks):
        path = tasks / "folds-v1-small"
        model = {"a": LogMel(n_mels=8)}
        benchmark = run(model, tasks=path, evaluation=Failing, n_jobs=2)
        assert benchmark.results == []
        assert [failure.test for failure in benchmark.failures] == ["fold01"]

    def test_a_backend_of_the_users_choice(self, run, models):
        with parallel_config(backend="threading", n_jobs=2):
            assert len(run(models).results) == 4

    def test_dask(self, run, models):
        distributed = pytest.importorskip("distributed")
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None
            ) as cluster,
            distributed.Client(cluster),
            parallel_config(backend="dask"),
        ):
            assert len(run(models).results) == 4
            protocol = Protocol(n_points=2, grid="faster")
            benchmark = run(
                {"other": LogMel(n_mels=8)}, protocol=protocol, evaluation=None
            )
            assert benchmark.failures == []


class TestProtocol:
    """With the evaluation that everybody gets."""

    @pytest.fixture
    def run(self, tasks, tmp_path):
        protocol = Protocol(n_points=2, grid="faster")
        return partial(
            run_benchmark,
            tasks=tasks,
            out=tmp_path / "out",
            protocol=protocol,
            verbose=0,
        )

    def test_is_what_evaluate_gives(self, run, tasks):
        model = LogMel(n_mels=8)
        benchmark = run({"a": model})
        assert benchmark.failures == []
        for result in benchmark.results:
            alone = evaluate(
                model, tasks / result.task, protocol=Protocol(n_points=2, grid="faster")
            )
            assert alone.scores == result.scores
            for a, b in zip(alone.splits, result.splits, strict=True):
                assert a.hyperparameters == b.hyperparameters
                np.testing.assert_array_equal(
                    a.predictions.predicted, b.predictions.predicted
                )

    def test_resumed_from_a_fold(self, run, tasks, tmp_path):
        models = {"a": LogMel(n_mels=8)}
        path = tasks / "folds-v1-small"
        expected = run(models, tasks=path).results[0]
        folder = tmp_path / "out" / "a" / "folds-v1-small"
        for name in ("result.json", "fold01.json", "fold03.npz"):
            (folder / name).unlink()
        found = run(models, tasks=path).results[0]
        assert found.scores == expected.scores
        assert found.seconds["total"] > found.seconds["fitting"] > 0

    def test_names_of_protocols(self, run, tasks):
        (result,) = run(
            {"a": LogMel(n_mels=8)},
            tasks=tasks / "split-v1-small",
            protocol="heareval",
            evaluation=Nearest,
        ).results
        assert result.protocol["shuffle"] is False
        with pytest.raises(ValueError, match="protocol='hear'"):
            run({"a": LogMel()}, protocol="hear")


class TestArguments:
    def test_forms_of_tasks(self, run, tasks, tmp_path):
        model = {"a": LogMel(n_mels=8)}
        paths = sorted(tasks.iterdir())
        archive = pack(paths[1], tmp_path / "task.tar.gz")
        for form in (paths, [load_task(path) for path in paths], [paths[0], archive]):
            assert len(run(model, tasks=form).results) == 2
        assert len(run(model, tasks=load_task(paths[0])).results) == 1

    def test_forms_of_embedders(self, run, tasks):
        for form in ("logmel", ["logmel"], [("logmel", LogMel())]):
            benchmark = run(form, tasks=tasks / "split-v1-small")
            assert names(benchmark) == [("logmel", "split-v1-small")]

    @pytest.mark.parametrize(
        ("embedders", "message"),
        [
            ([], "There is no embedder"),
            ([("a", LogMel()), ("a", LogMel())], "Several embedders are called a"),
            ({"../a": LogMel()}, r"'\.\./a' cannot be the name of a folder"),
            ({"": LogMel()}, "'' cannot be the name"),
            ({"a": 3}, "Embedder 'a' is 3"),
            (["hubbert"], "There is no model called 'hubbert'"),
        ],
    )
    def test_wrong_embedders(self, run, embedders, message, tmp_path):
        with pytest.raises((ValueError, TypeError), match=message):
            run(embedders)
        assert not (tmp_path / "out").exists()

    def test_no_tasks(self, run, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match="empty holds no task"):
            run("logmel", tasks=tmp_path / "empty")
        with pytest.raises(ValueError, match="There is no task"):
            run("logmel", tasks=[])

    def test_progress(self, run, tasks, capsys):
        run("logmel", tasks=tasks / "split-v1-small", verbose=1)
        assert "benchmark: 100%" in capsys.readouterr().err
