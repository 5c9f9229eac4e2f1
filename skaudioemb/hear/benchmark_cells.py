"""The cells of a benchmark: one embedder on one test split of one task.

All cells of an embedder and a task share a folder, which says by itself what is done:
``settings.json`` is what the results depend on, ``{split}.json`` and ``{split}.npz``
each finished cell, ``result.json`` that all are, ``error.json`` what failed last.
"""

import hashlib
import json
import os
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import joblib

from skaudioemb.hear.results import Result, SplitResult, read_json, write_json

ERRORS = "error.json"
_SETTINGS = "settings.json"
# How to run, not what to compute.
_RUNNING = ("memory", "device", "n_jobs", "batch_seconds", "verbose")
_PIECE = 4096
_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile)


class Failure(NamedTuple):
    """What went wrong with one cell, or with all of an embedder and a task.

    Attributes
    ----------
    embedder, task : str
    test : str or None
        The test split; None if it failed before any.
    error : str
        Type and message.
    traceback : str
        Where it happened; empty if the process died.
    """

    embedder: str
    task: str
    test: str | None
    error: str
    traceback: str

    def __str__(self):
        where = "" if self.test is None else f", {self.test}"
        return f"{self.embedder} on {self.task}{where}: {self.error}"


@dataclass(frozen=True)
class Pair:
    """An embedder and a task, whose cells belong together.

    Parameters
    ----------
    name : str
        Of the embedder.
    embedder : Embedder
    task : skaudioemb.hear.task.Task
    protocol : skaudioemb.hear.protocol.Protocol
    evaluation : callable
        Makes a :class:`skaudioemb.hear.evaluation.Evaluation` or what acts like one.
    folder : pathlib.Path
        Where the results are.
    """

    name: str
    embedder: object
    task: object
    protocol: object
    evaluation: object
    folder: Path

    def settings(self):
        """Return what the results depend on, as JSON would give it back."""
        content = {
            "embedder": _describe(self.embedder),
            "protocol": asdict(self.protocol),
            "task": {
                "name": self.task.name,
                "sample_rate": self.task.sample_rate,
                "sha256": _digest(self.task),
            },
        }
        return json.loads(json.dumps(content, default=repr))

    def difference(self):
        """Return what stored results depend on otherwise, as text, or None.

        Returns
        -------
        difference : str or None

        Raises
        ------
        ValueError
            If the folder holds something else than results.
        """
        path = self.folder / _SETTINGS
        if not path.exists():
            if not any(self.folder.glob("*.json")):
                return None
            raise ValueError(
                f"{self.folder} holds JSON files that are not of a benchmark. Choose "
                "another folder for the results."
            )
        now = self.settings()
        try:
            changes = list(_changes(json.loads(path.read_bytes()), now))
        except (OSError, ValueError, AttributeError, TypeError) as error:
            return f"{path} cannot be read ({error})"
        # Where nothing was finished, nothing depends on what has changed.
        if not changes or not any(self.folder.glob("*.npz")):
            return None
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        return f"{self.folder} was computed with {', '.join(changes[:3])}{more}"

    def begin(self, fresh):
        """Make the folder ready: note the settings; with ``fresh``, drop all results.

        Parameters
        ----------
        fresh : bool
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            found = [p for end in ("*.npz", "*.json") for p in self.folder.glob(end)]
            # The settings last: until then they tell what the others were.
            for path in sorted(found, key=lambda path: path.name == _SETTINGS):
                path.unlink()
        if fresh or not any(self.folder.glob("*.npz")):
            write_json(self.folder / _SETTINGS, self.settings())

    def result(self):
        """Return the finished Result, or None if there is none that can be read."""
        try:
            return Result.load(self.folder)
        except _DAMAGED:
            return None

    def split(self, test):
        """Return the finished SplitResult of a test split, or None."""
        try:
            return SplitResult.load(self.folder / f"{test}.json")
        except _DAMAGED:
            return None

    def failure(self, test, error):
        """Return the Failure for an exception that is being handled.

        Parameters
        ----------
        test : str or None
        error : BaseException

        Returns
        -------
        failure : Failure
        """
        message = f"{type(error).__name__}: {error}"
        return Failure(self.name, self.task.name, test, message, traceback.format_exc())

    def note(self, failures):
        """Write ``error.json``, or remove it if there is no failure."""
        path = self.folder / ERRORS
        if failures:
            content = [failure._asdict() for failure in failures]
            write_json(path, {"failures": content})
        else:
            path.unlink(missing_ok=True)


def run_cells(pair, which):
    """Run the cells of a pair that are not finished, and sum up once all are.

    Parameters
    ----------
    pair : Pair
    which : slice
        Which of the test splits; the first one has to be among them or finished.

    Returns
    -------
    failures : list of Failure
        Every other cell was finished and saved.
    """
    clock = _Clock()
    try:
        evaluation = pair.evaluation(
            pair.embedder, pair.task, pair.protocol, name=pair.name
        )
        first, *_ = tests = list(evaluation.tests)
    except Exception as error:
        return [pair.failure(None, error)]
    failures = []
    for test in tests[which]:
        if pair.split(test) is not None:
            continue
        try:
            _run_cell(pair, evaluation, test, None if test == first else first, clock)
        except Exception as error:
            failures.append(pair.failure(test, error))
            if test == first:
                # The others are trained with what was chosen here.
                return failures
    try:
        _sum_up(pair, evaluation, tests, clock)
    except Exception as error:
        failures.append(pair.failure(None, error))
    return failures


def _run_cell(pair, evaluation, test, chooser, clock):
    hyperparameters = None
    if chooser is not None:
        # As from the file, whether this process wrote it or an earlier one.
        hyperparameters = read_json(pair.folder / f"{chooser}.json")["hyperparameters"]
    result = evaluation.run(test, hyperparameters)
    result.seconds["total"] = clock.lap()
    result.save(pair.folder)


def _sum_up(pair, evaluation, tests, clock):
    splits = [pair.split(test) for test in tests]
    if None in splits or pair.result() is not None:
        return
    seconds = {}
    for split in splits:
        for name, value in split.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + value
    result = evaluation.result(splits, seconds)
    result.seconds["total"] = seconds["total"] + clock.lap()
    result.save(pair.folder)


class _Clock:
    def __init__(self):
        self._last = time.perf_counter()

    def lap(self):
        """Return the seconds since the last lap."""
        last, self._last = self._last, time.perf_counter()
        return self._last - last


def _describe(embedder):
    params = embedder.get_params(deep=True)
    return {
        "class": _text(type(embedder)),
        **{
            name: _text(value)
            for name, value in sorted(params.items())
            if name.rpartition("__")[2] not in _RUNNING
        },
    }


def _text(value):
    """Return a text that is the same for the same value in every process."""
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if hasattr(value, "get_params"):
        # Its parameters are listed by their own names.
        return _text(type(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, str | int | float | None):
        return repr(value)
    if isinstance(value, Path):
        return repr(str(value))
    return joblib.hash(value)


def _digest(task):
    """Return a checksum of the files that say what the task is, and of its clips.

    Of each recording the size and three pieces count, so that thousands take seconds.
    """
    digest = hashlib.sha256()
    names = ("task_metadata.json", "labelvocabulary.csv")
    for name in (*names, *(f"{split}.json" for split in task.splits)):
        path = Path(task.path) / name
        if path.exists():
            content = path.read_bytes()
            digest.update(f"{name} {len(content)} ".encode() + content)
    for path in task.X:
        size = os.path.getsize(path)
        digest.update(b"%d " % size)
        with open(path, "rb") as file:
            for start in (0, size // 2, max(0, size - _PIECE)):
                file.seek(start)
                digest.update(file.read(_PIECE))
    return digest.hexdigest()


def _changes(then, now, prefix=""):
    """Yield what differs between two nested dicts, a phrase each."""
    for name in {**then, **now}:
        old, new = (side.get(name, "nothing") for side in (then, now))
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _changes(old, new, f"{prefix}{name} ")
        elif old != new:
            yield f"{prefix}{name} = {old} (now {new})"
