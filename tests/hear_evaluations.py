"""Evaluations that are quick, or that fail, with the methods of the real one."""

import os
import time
from dataclasses import asdict, dataclass

import numpy as np
from sklearn.base import clone
from sklearn.neighbors import KNeighborsClassifier

from skaudioemb.hear.results import Predictions, Result, SplitResult


@dataclass(frozen=True)
class Settings:
    """A protocol."""

    seed: int = 0


class Nearest:
    """Train and test nearest neighbours on real embeddings of a scene task."""

    candidates = ({"n_neighbors": 1}, {"n_neighbors": 3})

    def __init__(self, embedder, task, protocol, name=None):
        self.embedder = clone(embedder)
        self.task = task
        self.protocol = protocol
        self.name = name

    @property
    def tests(self):
        return self.task.splits if self.task.is_kfold else ["test"]

    def run(self, test, hyperparameters=None):
        start = time.perf_counter()
        Z = self.embedder.fit_transform(self.task.X)
        embedded = time.perf_counter()
        number = self.tests.index(test)
        (train, rows) = list(self.task.cv.split())[number]
        valid = self.task.cv.validation_rows()[number]
        codes = np.searchsorted(self.task.labels, self.task.y)
        candidates = self.candidates
        if hyperparameters is not None:
            candidates = [hyperparameters]
        probes = [
            KNeighborsClassifier(**candidate).fit(Z[train], codes[train])
            for candidate in candidates
        ]
        scores = [probe.score(Z[valid], codes[valid]) for probe in probes]
        best = int(np.argmax(scores))
        predictions = Predictions(
            [self.task.files[i] for i in rows],
            self.task.labels,
            codes[rows],
            probes[best].predict_proba(Z[rows]).astype(np.float32),
        )
        fitted = time.perf_counter()
        return SplitResult(
            test=test,
            valid=str(self.task.split[valid[0]]),
            scores={name: predictions.score(name) for name in self.task.evaluation},
            validation_score=scores[best],
            hyperparameters=candidates[best],
            postprocessing=None,
            n_epochs=1,
            best_epoch=1,
            search=[],
            seconds={"embedding": embedded - start, "fitting": fitted - embedded},
            predictions=predictions,
        )

    def result(self, splits, seconds):
        return Result(
            embedder=self.name,
            parameters=repr(self.embedder),
            task=self.task.name,
            primary=self.task.primary,
            splits=splits,
            protocol=asdict(self.protocol),
            versions={},
            seconds=dict(seconds),
            n_clips=len(self.task.X),
            n_features=1,
        )


class Failing(Nearest):
    """Fail at fold01 of every task, and at the only test of tasks called "bad"."""

    def run(self, test, hyperparameters=None):
        if test == "fold01" or "bad" in self.task.name:
            raise RuntimeError(f"no luck with {test}")
        return super().run(test, hyperparameters)


class Deadly(Nearest):
    """Die at once on tasks called "bad", as a process without memory does."""

    def run(self, test, hyperparameters=None):
        if "bad" in self.task.name:
            os._exit(3)
        return super().run(test, hyperparameters)


class Interrupted(Nearest):
    """Be interrupted at fold02."""

    def run(self, test, hyperparameters=None):
        if test == "fold02":
            raise KeyboardInterrupt
        return super().run(test, hyperparameters)
