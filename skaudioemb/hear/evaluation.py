"""An embedder on a task of HEAR: embed, search the grid, test.

:func:`evaluate` does it all; :class:`Evaluation` split by split, so that what is
finished can be kept.
"""

import platform
import time
from dataclasses import asdict
from importlib import metadata

import numpy as np
from joblib import parallel_config
from sklearn.base import clone
from sklearn.utils import get_tags

from skaudioemb.hear.protocol import as_protocol
from skaudioemb.hear.results import Result, SplitResult
from skaudioemb.hear.scores import SCORES
from skaudioemb.hear.task import Task, TrainValidTest, load_task
from skaudioemb.hear.task_rows import FrameRows, SceneRows
from skaudioemb.presets import make_embedder
from skaudioemb.probes.folds import RotatingFolds
from skaudioemb.probes.mlp import MLPProbe
from skaudioemb.probes.search import ProbeSearchCV

_STAGES = ("embedding", "fitting", "scoring")
_PACKAGES = ("skaudioemb", "numpy", "scikit-learn", "torch", "transformers", "skorch")


def evaluate(embedder, task, *, protocol="hear2021", name=None, verbose=0):
    """Return what an embedder reaches on a task of HEAR.

    Parameters
    ----------
    embedder : Embedder, Fusion or str
        Or the name of a preset. Tasks of events need its ``frames``.
    task : Task or path-like
        As :func:`skaudioemb.hear.task.load_task` returns or takes it.
    protocol : {"hear2021", "heareval"} or Protocol, default="hear2021"
        HEAR's protocol with its defects corrected, or with all of them, or a
        :class:`~skaudioemb.hear.protocol.Protocol`.
    name : str or None, default=None
        Name of the embedder in the result; None is that of its class or preset.
    verbose : int, default=0
        If positive, show a progress bar over the training.

    Returns
    -------
    result : Result
        Scores of each test split and their mean, choices and predictions.

    Raises
    ------
    TaskError
        If the task's folder is damaged.
    AudioError, ValueError
        If a clip cannot be embedded.

    See Also
    --------
    skaudioemb.hear.benchmark.run_benchmark : Many embedders and tasks, resumable.

    References
    ----------
    .. [1] J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations",
       Proceedings of Machine Learning Research 176 (NeurIPS 2021), 2022.

    Examples
    --------
    >>> import tempfile
    >>> from skaudioemb import LogMel
    >>> from skaudioemb.datasets import write_hear_tasks
    >>> from skaudioemb.hear.evaluation import evaluate
    >>> from skaudioemb.hear.protocol import Protocol
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path] = write_hear_tasks(folder, ["notes"])
    ...     result = evaluate(LogMel(), path, protocol=Protocol(n_points=1))
    >>> result.primary, result.score > 0.1
    ('pitch_acc', True)
    """
    evaluation = Evaluation(embedder, task, protocol, name, verbose=verbose)
    start = time.perf_counter()
    first, *others = evaluation.tests
    splits = [evaluation.run(first)]
    chosen = splits[0].hyperparameters
    splits += [evaluation.run(test, chosen) for test in others]
    seconds = {
        key: sum(split.seconds[key] for split in splits) for key in splits[0].seconds
    }
    seconds["total"] = time.perf_counter() - start
    return evaluation.result(splits, seconds)


class Evaluation:
    """The evaluation of an embedder on a task, one test split at a time.

    Every clip is embedded once, at the first split. An embedder that learns in ``fit``
    is fitted to the training clips of each split instead, and embeds all clips again.

    Parameters
    ----------
    embedder, task, protocol, name, verbose
        As :func:`evaluate` takes them.
    max_memory : float, default=2**31
        Bytes of frames to hold in memory for a task of events; more are trained on
        from a memory map of a temporary file.

    Attributes
    ----------
    tests : list of str
        Names of the test splits. The first one is where the grid is searched.
    probes : dict of str to MLPProbe or list of MLPProbe
        The chosen probe of each test split, or with ``keep_probes`` all of them.
    """

    def __init__(
        self,
        embedder,
        task,
        protocol="hear2021",
        name=None,
        *,
        verbose=0,
        max_memory=2**31,
    ):
        if isinstance(embedder, str):
            name, embedder = name or embedder, make_embedder(embedder)
        self.embedder = embedder
        self.name = type(embedder).__name__ if name is None else name
        self.task = task if isinstance(task, Task) else load_task(task)
        self.protocol = as_protocol(protocol)
        self.verbose = verbose
        self.max_memory = max_memory
        self.tests = list(self.task.splits) if self.task.is_kfold else ["test"]
        self.probes = {}
        self._scores = self.protocol.score_functions(self.task)
        self._rows = None

    def run(self, test, hyperparameters=None):
        """Train, choose, and test on a split.

        Parameters
        ----------
        test : str
            One of ``tests``.
        hyperparameters : dict or None, default=None
            What another split has chosen; None searches the grid.

        Returns
        -------
        result : SplitResult
        """
        valid = self._valid(test)
        clock = [time.perf_counter()]
        rows = self.rows(test)
        clock.append(time.perf_counter())
        scorer = self.scorer(rows, valid)
        points = [hyperparameters] if hyperparameters else None
        kept = self._search(rows, test, scorer, points)
        clock.append(time.perf_counter())
        predictions, setting = rows.predictions(kept.probe, test, valid, scorer)
        found = (predictions.truth, predictions.predicted)
        scores = {name: float(score(*found)) for name, score in self._scores.items()}
        clock.append(time.perf_counter())
        self.probes[test] = kept.all if self.protocol.keep_probes else kept.probe
        return SplitResult(
            test=test,
            valid=valid,
            scores=scores,
            validation_score=kept.validation_score(kept.number, self._sign),
            hyperparameters=kept.hyperparameters,
            postprocessing=None if setting is None else setting._asdict(),
            n_epochs=kept.probe.n_epochs_,
            best_epoch=kept.probe.best_epoch_,
            search=[] if hyperparameters else kept.records(self._sign),
            seconds=dict(zip(_STAGES, np.diff(clock).tolist(), strict=True)),
            predictions=predictions,
        )

    def result(self, splits, seconds):
        """Return the results of all splits as one.

        Parameters
        ----------
        splits : list of SplitResult
        seconds : dict of str to float

        Returns
        -------
        result : Result
        """
        return Result(
            embedder=self.name,
            parameters=repr(self.embedder),
            task=self.task.name,
            primary=self.task.primary,
            splits=splits,
            protocol=asdict(self.protocol),
            versions=_versions(),
            seconds=dict(seconds),
            n_clips=len(self.task.X),
            n_features=self.rows(self.tests[0]).X.shape[1],
        )

    def _valid(self, test):
        if test not in self.tests:
            raise ValueError(
                f"{self.task.name} has no test split {test!r}; it has "
                f"{', '.join(self.tests)}."
            )
        if not self.task.is_kfold:
            return "valid"
        return self.tests[(self.tests.index(test) + 1) % len(self.tests)]

    def scorer(self, rows, valid):
        """Return the scorer of the checks during a training.

        Parameters
        ----------
        rows : SceneRows or FrameRows
        valid : str
            The split that is validated on.

        Returns
        -------
        scorer : callable
            Of a probe and rows; higher is better.
        """
        score = check = self._scores[self.task.primary]
        if self.task.embedding_type == "event" and self.protocol.nonfinite != "stop":
            # Where no event is found, precision is not defined, and nothing is right.
            def check(truth, found):
                return np.nan_to_num(score(truth, found))

        return rows.scorer(check, self._sign, valid)

    @property
    def _sign(self):
        return 1 if SCORES[self.task.primary].greater_is_better else -1

    def rows(self, test):
        """Return the rows of all clips, as they are for a test split.

        Parameters
        ----------
        test : str

        Returns
        -------
        rows : SceneRows or FrameRows
            The same for all splits, unless the embedder learns in ``fit``: then it is
            fitted to the training clips of each.
        """
        for_test = test if get_tags(self.embedder).requires_fit else None
        if self._rows is None or self._rows_for != for_test:
            task, protocol = self.task, self.protocol
            order = np.arange(len(task.X))
            if protocol.order == "heareval":
                order = task.heareval_order()
            train, _ = next(self._folds(task.split, test).split())
            embedder = clone(self.embedder).fit([task.X[i] for i in train])
            if task.embedding_type == "scene":
                self._rows = SceneRows(embedder, task, order)
            else:
                settings = protocol.postprocessing(task)
                self._rows = FrameRows(embedder, task, order, settings, self.max_memory)
            self._rows_for = for_test
        return self._rows

    def _folds(self, split, test):
        return (
            RotatingFolds(split, [test])
            if self.task.is_kfold
            else TrainValidTest(split)
        )

    def _search(self, rows, test, scorer, points):
        """Train all points for a test split; return what is worth keeping."""
        kept = _Kept(self.protocol.keep_probes)
        params = self.protocol.probe_params(self.task)
        probe = MLPProbe(**{"scoring": scorer, **params})
        points = self.protocol.points(self.task) if points is None else points
        search = ProbeSearchCV(
            probe,
            [{name: [value] for name, value in point.items()} for point in points],
            cv=self._folds(rows.split, test),
            scoring=kept,
            refit=False,
            error_score="raise",
            verbose=self.verbose,
        )
        # What the scorer keeps must not be kept in another process.
        with parallel_config("sequential"):
            search.fit(rows.X, rows.y)
        kept.points = points
        return kept


class _Kept:
    """A scorer that notes how each probe of a search did, and keeps the best one.

    Parameters
    ----------
    keep_all : bool
        Keep the others too.
    """

    def __init__(self, keep_all):
        self.keep_all = keep_all
        self.points, self.found = [], []
        self.all, self.probe, self.number = [], None, None

    def __call__(self, probe, X, y):
        """Return a score that nobody compares: the best check decides, not the test."""
        score = -np.inf if probe.best_score_ is None else probe.best_score_
        if self.probe is None or score > max(score for score, _ in self.found):
            self.probe, self.number = probe, len(self.found)
        self.found.append((score, probe.n_epochs_))
        if self.keep_all:
            self.all.append(probe)
        return {"n_epochs": probe.n_epochs_}

    @property
    def hyperparameters(self):
        """The best probe's point of the grid."""
        return dict(self.points[self.number])

    def validation_score(self, number, sign):
        """Return the score of a probe's best check as the task has it."""
        score, _ = self.found[number]
        return score if self.probe.scoring == "loss" else sign * score

    def records(self, sign):
        """Return what is worth writing down of every point."""
        return [
            {
                "hyperparameters": dict(point),
                "validation_score": self.validation_score(number, sign),
                "n_epochs": self.found[number][1],
            }
            for number, point in enumerate(self.points)
        ]


def _versions():
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
