"""A task as rows for a probe: one per clip, or one per frame of every clip."""

import numpy as np

from skaudioemb.hear.results import Predictions
from skaudioemb.probes.event_frames import FrameTable, iter_frames
from skaudioemb.probes.event_targets import check_targets
from skaudioemb.probes.event_training import LabelledClips
from skaudioemb.probes.event_tuning import (
    EventScoring,
    as_indicators,
    label_probabilities,
)
from skaudioemb.probes.postprocessing import frames_to_events


class SceneRows:
    """Clips, each a row.

    Parameters
    ----------
    embedder : Embedder
        Fitted.
    task : Task
    order : ndarray of int
        Rows of the task in the order wanted here.

    Attributes
    ----------
    X : ndarray of shape (n_rows, n_features)
    y : ndarray of shape (n_rows,) or (n_rows, n_columns)
        Columns of the right labels, or indicators.
    split : ndarray of shape (n_rows,), str
    """

    postprocessing = None

    def __init__(self, embedder, task, order):
        self.task, self.order = task, order
        self.X = np.asarray(embedder.transform([task.X[i] for i in order]))
        _check_finite(np.isfinite(self.X).all(axis=1), [task.files[i] for i in order])
        self.split = task.split[order]
        if task.prediction_type == "multilabel":
            self.truth = np.asarray(task.y)[order]
            self.y = as_indicators(self.truth)
        else:
            columns = {label: i for i, label in enumerate(task.labels)}
            self.truth = np.array([columns[task.y[i]] for i in order])
            self.y = self.truth

    def scorer(self, score, sign, valid):
        """Return what the checks of a training compare.

        Parameters
        ----------
        score : callable
            The primary score.
        sign : {1, -1}
            -1 if lower scores are better.
        valid : str
            The split that is validated on.

        Returns
        -------
        scorer : callable
        """
        return ColumnScorer(score, sign, len(self.task.labels))

    def predictions(self, probe, test, valid, scorer):
        """Return the predictions for a split.

        Parameters
        ----------
        probe : MLPProbe
            Fitted.
        test, valid : str
        scorer : callable
            What the checks compared.

        Returns
        -------
        predictions : Predictions
        postprocessing : PostProcessing or None
            How frames became events.
        """
        rows = np.flatnonzero(self.split == test)
        labels = self.task.labels
        probabilities = all_columns(probe, self.X[rows], len(labels))
        files = [self.task.files[i] for i in self.order[rows]]
        return Predictions(files, labels, self.truth[rows], probabilities), None


class FrameRows:
    """Frames of clips with events, each a row; see :class:`SceneRows`.

    Parameters
    ----------
    embedder, task, order
        As of SceneRows.
    settings : list of PostProcessing
        Ways to turn probabilities into events, the preferred ones first.
    max_memory : float
        Bytes of frames to hold in memory; more are read from a memory map.
    """

    def __init__(self, embedder, task, order, settings, max_memory):
        self.task, self.order, self.settings = task, order, settings
        self.table = FrameTable(max_memory)
        self.table.add(iter_frames(embedder, [task.X[i] for i in order]))
        found = np.isin(np.arange(len(order)), list(self.table.times))
        _check_finite(found, [task.files[i] for i in order])
        times = [self.table.times[i] for i in range(len(order))]
        targets = check_targets([task.y[i] for i in order], len(order))
        self.clips = LabelledClips.of(
            np.arange(len(order)), times, targets, np.array(task.labels, dtype=object)
        )
        self.X = self.clips.stacked(self.table).X
        self.y = self.clips.indicators
        self.split = np.repeat(task.split[order], [len(own) for own in times])

    def clips_of(self, split):
        """Return the LabelledClips of a split."""
        return self.clips.take(self.task.split[self.order] == split)

    def scorer(self, score, sign, valid):
        """Return what the checks of a training compare; see SceneRows."""
        clips = self.clips_of(valid)
        return EventScoring(
            *(clips.times, clips.events, self.task.labels, self.settings),
            lambda truth, found: sign * score(truth, found),
        )

    def predictions(self, probe, test, valid, scorer):
        """Return events predicted with the setting that validates best.

        See SceneRows.
        """
        chosen = self.settings[0]
        if len(self.settings) > 1:
            scores = scorer.scores(self._probabilities(probe, valid))
            chosen = self.settings[np.nan_to_num(scores).argmax()]
        clips, labels = self.clips_of(test), self.task.labels
        bounds = np.cumsum([len(times) for times in clips.times])[:-1]
        parts = np.split(self._probabilities(probe, test), bounds)
        found = [
            frames_to_events(part, times, labels, **chosen._asdict())
            for part, times in zip(parts, clips.times, strict=True)
        ]
        files = [self.task.files[self.order[i]] for i in clips.clips]
        return Predictions(files, labels, clips.events, found), chosen

    def _probabilities(self, probe, split):
        X = self.X[np.flatnonzero(self.split == split)]
        return label_probabilities(probe, X, self.task.labels)


class ColumnScorer:
    """A scorer of probabilities with a column for each label of a task.

    Parameters
    ----------
    score : callable
        Takes columns of the right labels, or indicators, and probabilities.
    sign : {1, -1}
        -1 if lower scores are better.
    n_labels : int
    """

    def __init__(self, score, sign, n_labels):
        self.score = score
        self.sign = sign
        self.n_labels = n_labels

    def __call__(self, estimator, X, y):
        """Return the score of an estimator's probabilities."""
        truth = y if y.ndim == 1 else y[:, : self.n_labels]
        return self.sign * self.score(truth, all_columns(estimator, X, self.n_labels))


def all_columns(probe, X, n_labels):
    """Return probabilities with a column for each label of a task.

    Parameters
    ----------
    probe : MLPProbe
        Fitted to columns of labels, or to indicators.
    X : ndarray of shape (n_rows, n_features)
    n_labels : int

    Returns
    -------
    probabilities : ndarray of shape (n_rows, n_labels), float32
        0 for labels that no training row has.
    """
    probabilities = probe.predict_proba(X)
    if probe.classes_.ndim == 2:
        return probabilities[:, :n_labels]
    columns = np.zeros((len(probabilities), n_labels), dtype=np.float32)
    columns[:, probe.classes_] = probabilities
    return columns


def _check_finite(finite, files):
    bad = [file for file, good in zip(files, finite, strict=True) if not good]
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(files)} clips have no finite embedding: "
            f"{', '.join(bad[:5])}{', ...' if len(bad) > 5 else ''}. Every clip of a "
            "task counts; see the embedder's warning, or use on_error='raise'."
        )
