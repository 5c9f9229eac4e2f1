"""Many embedders on many tasks: resumable, parallel, and proof against crashes."""

import math
import re
from concurrent.futures.process import BrokenProcessPool
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from joblib import Parallel, delayed, effective_n_jobs
from sklearn.base import clone
from tqdm.auto import tqdm

from skaudioemb.hear.benchmark_cells import Failure, Pair, run_cells
from skaudioemb.hear.evaluation import Evaluation
from skaudioemb.hear.protocol import as_protocol
from skaudioemb.hear.task import find_tasks, load_task
from skaudioemb.presets import make_embedder

_STORE = "embeddings.sqlite"
_NAME = re.compile(r"(?!\.)[\w .,+=@()-]+")


class Benchmark(NamedTuple):
    """What a benchmark gave.

    Attributes
    ----------
    results : list of skaudioemb.hear.results.Result
        Of every embedder and task that is finished, embedder by embedder.
    failures : list of Failure
        What was not; the next run tries again.
    """

    results: list
    failures: list

    @property
    def overhead(self):
        """Share of the results' time spent neither on embedding nor on fitting.

        In [0, 1], or NaN without results. It is that of the run that computed each
        result: decoding, forwards and the store count as embedding, training and
        validation as fitting; scoring, files and all else as overhead.
        """
        total = sum(result.seconds["total"] for result in self.results)
        used = sum(
            result.seconds.get(name, 0.0)
            for result in self.results
            for name in ("embedding", "fitting")
        )
        return 1 - used / total if total else math.nan


def run_benchmark(
    embedders,
    tasks,
    out,
    *,
    protocol=None,
    n_jobs=None,
    overwrite=False,
    evaluation=None,
    verbose=1,
):
    """Evaluate every embedder on every task and keep all that was finished.

    A cell is one embedder on one test split of one task. It is saved as soon as it is
    finished and never computed again: interrupted or killed, the same call goes on
    where it was. A cell that fails is recorded in ``error.json`` and leaves the others
    alone. All embedders without a ``memory`` of their own share one store in ``out``,
    through which a model sees no clip twice, whatever the number of folds.

    Parameters
    ----------
    embedders : dict of str to Embedder, list of str, or list of (str, Embedder)
        The names are those of folders; names alone are those of
        :func:`skaudioemb.make_embedder`.
    tasks : path-like, or list of Task and path-like
        Tasks, or folders and tarballs that hold them.
    out : path-like
        Folder of the results, ``{out}/{embedder}/{task}/result.json``; made if it does
        not exist.
    protocol : Protocol, str or None, default=None
        See :func:`skaudioemb.hear.protocol.as_protocol`. None is "hear2021", with
        HEAR's defects corrected.
    n_jobs : int or None, default=None
        Number of processes, each with models of its own. What
        ``joblib.parallel_config`` says counts, other backends as "dask" among it. All
        workers have to see the same ``out`` and tasks; workers on several machines
        must not share a store, so give embedders a ``memory`` on each one's disk.
    overwrite : bool, default=False
        What to do with results in ``out`` that were computed with another protocol,
        other parameters of the embedder or another version of the task: False refuses
        to begin, True drops and computes them again. Results with the same settings
        are kept in both cases; delete their folder to compute them again.
    evaluation : callable or None, default=None
        Another class with the methods of
        :class:`skaudioemb.hear.evaluation.Evaluation`, which None is. It is not part
        of what stored results are compared by.
    verbose : int, default=1
        Whether to show a progress bar.

    Returns
    -------
    benchmark : Benchmark
        ``results`` and ``failures``.

    Raises
    ------
    TypeError, ValueError
        If embedders or tasks are not such, two of them have the same name, or stored
        results have other settings.
    """
    pairs = _make_pairs(embedders, tasks, Path(out).absolute(), protocol, evaluation)
    differences = {pair.folder: pair.difference() for pair in pairs}
    found = [text for text in differences.values() if text]
    if found and not overwrite:
        others = f" (and so on for {len(found) - 1} others)" if len(found) > 1 else ""
        raise ValueError(
            f"{found[0]}{others}. Choose another folder, or overwrite=True to compute "
            "these results again."
        )
    for pair in pairs:
        pair.begin(fresh=differences[pair.folder] is not None)
    failures = _run(pairs, n_jobs, verbose)
    results = [result for pair in pairs if (result := pair.result()) is not None]
    named = {(failure.embedder, failure.task) for failure in failures}
    known = named | {(result.embedder, result.task) for result in results}
    for pair in pairs:
        if (pair.name, pair.task.name) not in known:
            message = f"No finished result can be read from {pair.folder}."
            failures.append(Failure(pair.name, pair.task.name, None, message, ""))
    return Benchmark(results, failures)


def _make_pairs(embedders, tasks, out, protocol, evaluation):
    if protocol is None or isinstance(protocol, str):
        protocol = as_protocol(protocol or "hear2021")
    embedders = _as_embedders(embedders, out / _STORE)
    tasks = _as_tasks(tasks)
    _check_names("embedder", [name for name, _ in embedders])
    _check_names("task", [task.name for task in tasks])
    return [
        Pair(
            name,
            embedder,
            task,
            protocol,
            evaluation or Evaluation,
            out / name / task.name,
        )
        for name, embedder in embedders
        for task in tasks
    ]


def _as_embedders(embedders, store):
    """Return pairs of name and embedder, which all have a memory if they can."""
    if isinstance(embedders, str):
        embedders = [embedders]
    items = embedders.items() if hasattr(embedders, "items") else embedders
    pairs = []
    for item in items:
        name, embedder = (item, make_embedder(item)) if isinstance(item, str) else item
        if not (hasattr(embedder, "get_params") and hasattr(embedder, "transform")):
            raise TypeError(
                f"Embedder {name!r} is {embedder!r}. Give embedders of skaudioemb, as "
                "a dict by name, as (name, embedder) pairs, or names of presets."
            )
        embedder = clone(embedder)
        if embedder.get_params(deep=False).get("memory", store) is None:
            embedder.set_params(memory=str(store))
        pairs.append((name, embedder))
    return pairs


def _as_tasks(tasks):
    if isinstance(tasks, str | PathLike) or hasattr(tasks, "splits"):
        tasks = [tasks]
    found = []
    for task in tasks:
        if not isinstance(task, str | PathLike):
            found.append(task)
        elif Path(task).is_dir():
            found += _tasks_in(task)
        else:
            found.append(load_task(task))
    return found


def _tasks_in(folder):
    tasks = find_tasks(folder, extract=True)
    if not tasks:
        raise ValueError(
            f"{folder} holds no task, that is, no folder with a task_metadata.json."
        )
    return tasks


def _check_names(kind, names):
    if not names:
        raise ValueError(f"There is no {kind}. Give at least one.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"Several {kind}s are called {', '.join(twice)}. Give each another name."
        )
    for name in names:
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise ValueError(
                f"{name!r} cannot be the name of a folder. Call the {kind} by letters, "
                "digits, and signs among .,+-=_@() and spaces; not with a dot first."
            )


def _run(pairs, n_jobs, verbose):
    """Run all cells of the pairs that are not finished and return the failures."""
    pairs = [pair for pair in pairs if pair.result() is None]
    if not pairs:
        return []
    n_chunks = math.ceil(effective_n_jobs(n_jobs) / len(pairs))
    stages = [[slice(None)]]
    if n_chunks > 1:
        # The first split chooses for the others, which then run side by side.
        stages = [[slice(1)], [slice(1 + i, None, n_chunks) for i in range(n_chunks)]]
    failures = {pair.folder: [] for pair in pairs}
    with tqdm(desc="benchmark", total=0, disable=not verbose) as bar:
        for stage in stages:
            jobs = [
                (pair, which)
                for pair in pairs
                if pair.result() is None and not failures[pair.folder]
                for which in stage
            ]
            bar.total += len(jobs)
            for (pair, _), failed in _outcomes(jobs, n_jobs):
                failures[pair.folder] += failed
                pair.note(failures[pair.folder])
                bar.update()
    return [failure for some in failures.values() for failure in some]


def _outcomes(jobs, n_jobs):
    """Yield every job with its failures, as they end."""
    left = dict(enumerate(jobs))
    try:
        for number, failed in _parallel(left, n_jobs):
            yield left.pop(number), failed
    except BrokenProcessPool:
        # One process died and took the pool along. Which one will show when each of
        # the jobs that are left has a pool of its own.
        pass
    for number, (pair, which) in left.items():
        try:
            [(_, failed)] = _parallel({number: (pair, which)}, 2)
        except BrokenProcessPool as error:
            message = f"The process that ran it died: {' '.join(str(error).split())}"
            failed = [Failure(pair.name, pair.task.name, None, message, "")]
        yield (pair, which), failed


def _parallel(jobs, n_jobs):
    run = delayed(_run_numbered)
    return Parallel(n_jobs=n_jobs, return_as="generator_unordered")(
        run(number, *job) for number, job in list(jobs.items())
    )


def _run_numbered(number, pair, which):
    return number, run_cells(pair, which)
