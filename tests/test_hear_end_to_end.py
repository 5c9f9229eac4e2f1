"""From task folders to a report: embedders, benchmark, files and commands together.

Tasks of real recordings are run where the environment variable SKAUDIOEMB_RECORDINGS
names a folder with HEAR's spoken_digit archive (in ``hear/``) and zips of Speech
Commands; they are not part of the package.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from skaudioemb import CREPE, Fusion, LogMel
from skaudioemb.cli import main
from skaudioemb.datasets import write_hear_tasks, write_speech_commands_task
from skaudioemb.hear import Protocol, compare, find_tasks, run_benchmark, write_report
from skaudioemb.hear.results import Result

MODELS = {
    "crepe": CREPE("tiny"),
    "logmel": LogMel(hop=0.05, pooling="mean-std"),
    "both": Fusion([("crepe", CREPE("tiny")), ("logmel", LogMel(hop=0.05))]),
}
PROTOCOL = Protocol(n_points=1, grid="fast")
CHANCE = {"notes": 1 / 24, "rhythms": 1 / 6, "events": 0.0}


@pytest.fixture(scope="module")
def recordings():
    """Return the folder of real recordings."""
    folder = os.environ.get("SKAUDIOEMB_RECORDINGS")
    if not folder:
        pytest.skip("SKAUDIOEMB_RECORDINGS does not name a folder of recordings")
    return Path(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the folder of results on the three tasks that can be made."""
    tasks, out = (tmp_path_factory.mktemp(name) for name in ("tasks", "results"))
    write_hear_tasks(tasks)
    benchmark = run_benchmark(MODELS, tasks, out, protocol=PROTOCOL, verbose=0)
    assert benchmark.failures == []
    return tasks, out, benchmark


class TestMadeTasks:
    def test_every_model_learns_every_task(self, made):
        tasks, _, benchmark = made
        assert len(benchmark.results) == len(MODELS) * len(find_tasks(tasks)) == 9
        for result in benchmark.results:
            name = result.task.partition("-")[0]
            assert result.score > 1.5 * CHANCE[name] + 0.05, result.embedder

    def test_little_time_goes_elsewhere(self, made):
        _, _, benchmark = made
        assert 0 <= benchmark.overhead < 0.1

    def test_nothing_is_run_again(self, made, counted):
        tasks, out, benchmark = made
        counted()
        again = run_benchmark(MODELS, tasks, out, protocol=PROTOCOL, verbose=0)
        assert counted().run == 0
        assert len(again.results) == len(benchmark.results)
        for found, expected in zip(again.results, benchmark.results, strict=True):
            np.testing.assert_equal(found.scores, expected.scores)

    def test_report_and_comparison(self, made, tmp_path):
        _, out, _ = made
        page = write_report(out, tmp_path / "report.html")
        text = Path(page).read_text()
        assert all(name in text for name in MODELS)
        assert "http-equiv" not in text
        table = str(compare(out, "both", "logmel"))
        assert all(name in table for name in ("notes", "rhythms", "events"))

    def test_the_commands_give_the_same(self, made, tmp_path, capsys):
        tasks, out, _ = made
        name = "notes-1.0-small"
        where = ["--tasks", str(tasks / name), "--out", str(tmp_path)]
        model = ["--model", "logmel", "--set", "pooling=mean-std", "--set", "hop=0.05"]
        protocol = ["--protocol-set", "n_points=1", "--protocol-set", "grid=fast"]
        assert main(["hear", "run", *where, *model, *protocol]) == 0
        found, expected = (Result.load(p / "logmel" / name) for p in (tmp_path, out))
        assert found.scores == expected.scores
        assert main(["hear", "compare", "both", "crepe", str(out)]) == 0
        assert "notes" in capsys.readouterr().out


class TestRecordings:
    def test_spoken_digits(self, recordings, tmp_path):
        [archive] = (recordings / "hear").glob("*spoken_digit*.tar.gz")
        (tmp_path / archive.name).symlink_to(archive)
        benchmark = run_benchmark(
            MODELS, tmp_path, tmp_path / "out", protocol=PROTOCOL, verbose=0
        )
        assert benchmark.failures == []
        # Ten digits.
        assert max(result.score for result in benchmark.results) > 0.3

    def test_speech_commands(self, recordings, tmp_path):
        zips = sorted(recordings.glob("speech_commands*.zip"))
        words = "yes no up down left right on off stop go".split()
        path = write_speech_commands_task(zips, tmp_path / "tasks", words=words)
        benchmark = run_benchmark(
            MODELS, path, tmp_path / "out", protocol=PROTOCOL, verbose=0
        )
        assert benchmark.failures == []
        # Ten words, said by others than those who were trained on.
        assert max(result.score for result in benchmark.results) > 0.15
