"""The scores of the HEAR benchmark, as functions and as scikit-learn scorers.

:mod:`skaudioemb.scores.clips` holds the scores of probabilities,
:mod:`skaudioemb.scores.events` and :mod:`skaudioemb.scores.segments` those of
events, with their conventions; all are importable from here. ``SCORES`` lists them by
the names that HEAR's tasks use, and three more for any collar or segment.
:func:`make_hear_scorer` makes scorers of them for ``GridSearchCV`` and the like.
"""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import sparse

from skaudioemb.scores.clips import (
    aucroc,
    average_precisions,
    chroma_acc,
    d_prime,
    mAP,
    pitch_acc,
    roc_areas,
    top1_acc,
)
from skaudioemb.scores.events import (
    EventScores,
    event_onset_fms,
    event_onset_offset_fms,
    event_scores,
)
from skaudioemb.scores.segments import (
    SegmentScores,
    segment_error_rate,
    segment_scores,
)

__all__ = [
    "SCORES",
    "EventScores",
    "HearScorer",
    "Score",
    "SegmentScores",
    "align_files",
    "aucroc",
    "average_precisions",
    "chroma_acc",
    "d_prime",
    "event_onset_fms",
    "event_onset_offset_fms",
    "event_scores",
    "mAP",
    "make_hear_scorer",
    "pitch_acc",
    "roc_areas",
    "segment_error_rate",
    "segment_scores",
    "top1_acc",
]


class Score(NamedTuple):
    """What there is to know of a score.

    Attributes
    ----------
    function : callable
        Takes the truth and the predictions and returns a float.
    response : {"probabilities", "events"}
        What it compares: ``predict_proba`` of clips or frames, or ``predict`` of a
        detector of events.
    greater_is_better : bool
    details : callable or None
        For events, takes the same and returns a named tuple with precision, recall
        and counts besides.
    """

    function: object
    response: str = "probabilities"
    greater_is_better: bool = True
    details: object = None


def _of_events(function, details, greater_is_better=True, **settings):
    return Score(
        partial(function, **settings),
        "events",
        greater_is_better,
        partial(details, **settings),
    )


_onset = partial(_of_events, event_onset_fms, event_scores)
_onset_offset = partial(_of_events, event_onset_offset_fms, event_scores)
_segment = partial(_of_events, segment_error_rate, segment_scores, False)

SCORES = {
    "top1_acc": Score(top1_acc),
    "pitch_acc": Score(pitch_acc),
    "chroma_acc": Score(chroma_acc),
    "mAP": Score(mAP),
    "d_prime": Score(d_prime),
    "aucroc": Score(aucroc),
    "event_onset_200ms_fms": _onset(collar=0.2),
    "event_onset_50ms_fms": _onset(collar=0.05),
    "event_onset_offset_50ms_20perc_fms": _onset_offset(collar=0.05, offset_ratio=0.2),
    "segment_1s_er": _segment(segment=1.0),
    "event_onset_fms": _onset(collar=0.2),
    "event_onset_offset_fms": _onset_offset(collar=0.05, offset_ratio=0.2),
    "segment_error_rate": _segment(segment=1.0),
}


def make_hear_scorer(*names, **settings):
    """Return a scikit-learn scorer of one or several scores.

    Parameters
    ----------
    *names : str
        Keys of ``SCORES``. With several, the scorer returns a dict with all of them
        from one prediction, for which ``GridSearchCV`` needs its ``refit`` by name.
    **settings
        Settings of each score, such as ``collar``. For :func:`chroma_acc`,
        ``notes="classes"`` takes the notes from the estimator's ``classes_``.

    Returns
    -------
    scorer : HearScorer
        ``scorer(estimator, X, y)`` is a float, or a dict of floats, and greater is
        better: an error rate is negative. y holds one label per row or an indicator
        matrix; for scores of events, one list of events per clip.

    Raises
    ------
    ValueError
        If a name is not known, or names of both kinds are mixed.
    TypeError
        If a score does not have one of the settings.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skaudioemb.hear.scores import make_hear_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> search = GridSearchCV(
    ...     LogisticRegression(max_iter=999),
    ...     {"C": [0.01, 1]},
    ...     scoring=make_hear_scorer("mAP", "aucroc"),
    ...     refit="mAP",
    ... )
    >>> search.fit(X, y).best_params_
    {'C': 1}
    """
    return HearScorer(names, settings)


class HearScorer:
    """A scorer for scikit-learn, see :func:`make_hear_scorer`.

    Parameters
    ----------
    names : sequence of str
        Keys of ``SCORES``.
    settings : dict
        Settings of the scores.
    """

    def __init__(self, names, settings):
        unknown = [name for name in names if name not in SCORES]
        if unknown or not names:
            raise ValueError(
                f"There are no scores of the names {unknown}. Give one or several of "
                f"{', '.join(SCORES)}."
            )
        responses = {SCORES[name].response for name in names}
        if len(responses) > 1:
            raise ValueError(
                f"Of {', '.join(names)} some compare probabilities and some events. "
                "Make one scorer for each kind."
            )
        self.names = tuple(names)
        self.settings = settings
        self.response = responses.pop()
        self._functions = {name: _with_settings(name, settings) for name in names}

    def __call__(self, estimator, X, y):
        """Return the score, or a dict of scores, of the estimator's predictions.

        Parameters
        ----------
        estimator : estimator
            Fitted.
        X : array-like or list
            What the estimator predicts from.
        y : array-like or list
            The truth.

        Returns
        -------
        score : float or dict of str to float
            Greater is better.
        """
        if self.response == "events":
            truth, predictions = y, estimator.predict(X)
        else:
            truth, predictions = _truth(estimator, y), _probabilities(estimator, X)
        scores = {}
        for name, function in self._functions.items():
            score = _with_notes(function, estimator)(truth, predictions)
            scores[name] = score if SCORES[name].greater_is_better else -score
        return scores if len(scores) > 1 else scores[self.names[0]]

    def __repr__(self):
        settings = "".join(f", {key}={value!r}" for key, value in self.settings.items())
        return f"make_hear_scorer({', '.join(map(repr, self.names))}{settings})"


def _with_notes(function, estimator):
    """Return the function with its notes taken from the estimator, if it asks so."""
    notes = function.keywords.get("notes")
    if not isinstance(notes, str):
        return function
    if notes != "classes":
        raise ValueError(
            f'notes={notes!r}: give "classes" or the MIDI note number of each column.'
        )
    return partial(function, notes=np.asarray(estimator.classes_).astype(np.int64))


def _with_settings(name, settings):
    """Return the function of a score with its settings."""
    function = SCORES[name].function
    allowed = [*inspect.signature(function).parameters][2:]
    if unknown := settings.keys() - allowed:
        raise TypeError(
            f"The score {name} has no settings {sorted(unknown)}; it has "
            f"{', '.join(allowed) or 'none'}."
        )
    return partial(function, **settings)


def _probabilities(estimator, X):
    """Return the matrix of probabilities, with a column per class or label."""
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"{type(estimator).__name__} has no predict_proba, which the score needs. "
            "Use a classifier that predicts probabilities."
        )
    probabilities = estimator.predict_proba(X)
    if not isinstance(probabilities, list):
        return probabilities
    # Some classifiers of scikit-learn give a matrix per label, a column per value.
    return np.column_stack(
        [
            each @ (np.asarray(values) == 1)
            for each, values in zip(probabilities, estimator.classes_, strict=True)
        ]
    )


def _truth(estimator, y):
    """Return an indicator matrix or each row's column."""
    y = y.toarray() if sparse.issparse(y) else np.asarray(y)
    if y.ndim == 2 and y.shape[1] > 1:
        return y
    columns = {
        label: i for i, label in enumerate(np.ravel(estimator.classes_).tolist())
    }
    return np.array([columns.get(label, -1) for label in y.ravel().tolist()])


def align_files(reference, estimate):
    """Return two parallel lists of two dicts of events by file.

    As in HEAR, the files of ``estimate`` count: one that the reference does not have
    is a file without reference events, and one that only the reference has is left
    out.

    Parameters
    ----------
    reference, estimate : dict of str to list of Event
        The events of each file.

    Returns
    -------
    reference, estimate : list of list of Event
        In the order of ``estimate``.

    Raises
    ------
    TypeError
        If one is not a mapping.

    Examples
    --------
    >>> from skaudioemb.hear.scores import align_files, event_onset_fms
    >>> reference = {"a.wav": [("bark", 0.5, 1.0)], "b.wav": [("purr", 0.0, 1.0)]}
    >>> event_onset_fms(*align_files(reference, {"a.wav": [("bark", 0.5, 2.0)]}))
    1.0
    """
    for name, events in (("reference", reference), ("estimate", estimate)):
        if not isinstance(events, Mapping):
            raise TypeError(
                f"{name} is a {type(events).__name__}. Give a dict of file names to "
                "lists of events; lists that are parallel already need no aligning."
            )
    return [reference.get(file, []) for file in estimate], list(estimate.values())
