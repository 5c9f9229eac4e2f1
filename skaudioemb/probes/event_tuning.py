"""Event scores of frame probabilities, and the post-processing that scores best."""

from itertools import product
from numbers import Real
from typing import NamedTuple

import numpy as np

from skaudioemb.probes.postprocessing import RESOLUTION, frames_to_events

# What HEAR tries for every task without a grid of its own.
HEAR_POSTPROCESSING = {"median_filter": [0.25], "min_duration": [0.125, 0.25]}


class PostProcessing(NamedTuple):
    """How probabilities of frames become events.

    Attributes
    ----------
    median_filter, min_duration : float
        Seconds.
    threshold : float
        Probability.
    """

    median_filter: float
    min_duration: float
    threshold: float


def expand_grid(grid, default):
    """Return all settings of a grid, larger values first.

    Parameters
    ----------
    grid : dict of str to sequence of float
        Values to try by name.
    default : PostProcessing
        Values of what the grid does not name.

    Returns
    -------
    settings : list of PostProcessing

    Raises
    ------
    ValueError
        If the grid has other names, no values, or values out of range.

    Examples
    --------
    >>> from skaudioemb.probes.event_tuning import PostProcessing, expand_grid
    >>> expand_grid({"min_duration": [0, 0.5]}, PostProcessing(0.25, 0.125, 0.5))
    [PostProcessing(median_filter=0.25, min_duration=0.5, threshold=0.5),
     PostProcessing(median_filter=0.25, min_duration=0, threshold=0.5)]
    """
    values = {name: [value] for name, value in default._asdict().items()}
    for name, tried in grid.items():
        if name not in values:
            raise ValueError(
                f"postprocessing_grid has the key {name!r}. Its keys are "
                f"{', '.join(values)}."
            )
        tried = [tried] if isinstance(tried, Real) else list(tried)
        top = 1 if name == "threshold" else np.inf
        if not tried or not all(isinstance(v, Real) and 0 <= v < top for v in tried):
            raise ValueError(
                f"postprocessing_grid has {name}={tried!r}. Give at least one value, "
                f"and only numbers of at least 0 and below {top}."
            )
        values[name] = tried
    return sorted(set(map(PostProcessing._make, product(*values.values()))))[::-1]


class EventScoring:
    """Scores of the events that frame probabilities amount to, for several settings.

    Called with a classifier and its rows, it is a scorer for a probe's ``scoring``,
    and returns the score of the best setting.

    Parameters
    ----------
    times : list of ndarray of shape (n_frames,)
        Times of the frames of each clip in seconds; rows follow clip by clip.
    events : list of list of Event
        The true events of each clip.
    labels : sequence of length n_labels
    settings : list of PostProcessing
    score : callable
        Takes true and predicted events; greater is better, and NaN counts as 0 when
        settings are compared.
    """

    def __init__(self, times, events, labels, settings, score):
        self.times = times
        self.events = events
        self.labels = labels
        self.settings = settings
        self.score = score

    def __sklearn_clone__(self):
        # It holds data and never changes.
        return self

    def __call__(self, estimator, X, y):
        """Return the best setting's score of the estimator's probabilities."""
        scores = self.scores(label_probabilities(estimator, X, self.labels))
        return float(scores[np.nan_to_num(scores).argmax()])

    def scores(self, probabilities):
        """Return the score of each setting.

        Parameters
        ----------
        probabilities : ndarray of shape (n_rows, n_labels)

        Returns
        -------
        scores : ndarray of shape (n_settings,)
        """
        bounds = np.cumsum([len(times) for times in self.times])[:-1]
        parts = np.split(probabilities, bounds)
        scores = np.empty(len(self.settings))
        runs = {}
        for number, setting in enumerate(self.settings):
            # The length of events is all that min_duration looks at.
            shared = setting._replace(min_duration=0)
            if shared not in runs:
                runs[shared] = [
                    frames_to_events(part, times, self.labels, **shared._asdict())
                    for part, times in zip(parts, self.times, strict=True)
                ]
            shortest = setting.min_duration - RESOLUTION
            found = [
                [event for event in clip if event.end - event.start >= shortest]
                for clip in runs[shared]
            ]
            scores[number] = self.score(self.events, found)
        return scores


def label_probabilities(probe, X, labels):
    """Return the probability of each label, whatever form the probe gives it in.

    Parameters
    ----------
    probe : classifier
        Fitted to the matrix that :func:`as_indicators` makes.
    X : ndarray of shape (n_rows, n_features)
    labels : sequence of length n_labels

    Returns
    -------
    probabilities : ndarray of shape (n_rows, n_labels)
    """
    probabilities = probe.predict_proba(X)
    if isinstance(probabilities, list):
        # Some classifiers of scikit-learn give a matrix per label, a column per value.
        probabilities = np.column_stack(
            [
                each @ (np.asarray(values) == 1)
                for each, values in zip(probabilities, probe.classes_, strict=True)
            ]
        )
    return probabilities[:, : len(labels)]


def as_indicators(active):
    """Return labels of frames as a matrix of at least two columns.

    To scikit-learn a single column is a vector of two classes. A single label is
    given twice instead, so that it is learned like one of many.

    Parameters
    ----------
    active : ndarray of shape (n_rows, n_labels)

    Returns
    -------
    indicators : ndarray of shape (n_rows, max(2, n_labels))
    """
    return active if active.shape[1] > 1 else np.repeat(active, 2, axis=1)
