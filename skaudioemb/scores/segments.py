"""Scores of predicted events against reference events, segment by segment.

Conventions
-----------
As in :mod:`skaudioemb.scores.events`. A label is active in every segment that one
of its events touches, from the start rounded down to the end rounded up.

Metrics
-------
- :func:`segment_error_rate`: substitutions, deletions and insertions per active label
  and segment of the reference.

:func:`segment_scores` gives the same with its parts, F-measure and counts.

References
----------
.. [1] A. Mesaros, T. Heittola, T. Virtanen, "Metrics for polyphonic sound event
   detection", Applied Sciences 6(6), 2016.
"""

from typing import NamedTuple

import numpy as np

from skaudioemb.scores.events import f_measure_parts, tabulate_both


class SegmentScores(NamedTuple):
    """Agreement of activity in segments with a reference.

    Attributes
    ----------
    error_rate : float
        Sum of the three rates that follow.
    substitution_rate, deletion_rate, insertion_rate : float
        Errors per active label and segment of the reference.
    f_measure, precision, recall : float
        In [0, 1], or NaN where undefined.
    n_true_positive, n_true_negative, n_false_positive, n_false_negative : int
        Numbers of pairs of label and segment.
    n_reference, n_estimated : int
        Active pairs of label and segment.
    n_substitutions, n_deletions, n_insertions : int
        Errors: within a segment, a missed label and a false one are together one
        substitution.
    seconds : float
        Evaluated length, for each clip up to its last offset in either list.
    """

    error_rate: float
    substitution_rate: float
    deletion_rate: float
    insertion_rate: float
    f_measure: float
    precision: float
    recall: float
    n_true_positive: int
    n_true_negative: int
    n_false_positive: int
    n_false_negative: int
    n_reference: int
    n_estimated: int
    n_substitutions: int
    n_deletions: int
    n_insertions: int
    seconds: float


def segment_error_rate(reference, estimate, segment=1.0):
    """Return the errors per active label and segment of the reference.

    Parameters
    ----------
    reference, estimate : list of list of Event
        One list per clip.
    segment : float, default=1.0
        Length of a segment in seconds.

    Returns
    -------
    error_rate : float
        0 is perfect, 1 the rate of an empty estimate; without any active reference
        segment, the insertions divided by 2.2e-16.

    Raises
    ------
    TypeError, ValueError
        See :func:`segment_scores`.

    Examples
    --------
    >>> from skaudioemb.hear.scores import segment_error_rate
    >>> segment_error_rate([[("bark", 0.5, 3.5)]], [[("bark", 1.25, 3.0)]])
    0.5
    """
    return segment_scores(reference, estimate, segment).error_rate


def segment_scores(
    reference, estimate, segment=1.0, *, labels=None, zero_division=np.nan
):
    """Return error rate, F-measure and counts over segments.

    A label is active in every segment that one of its events touches, from the start
    rounded down to the end rounded up.

    Parameters
    ----------
    reference, estimate : list of list of Event
        One list per clip.
    segment : float, default=1.0
        Length of a segment in seconds.
    labels : sequence or None, default=None
        All labels; only the number of true negatives depends on it. None are those
        that occur.
    zero_division : float, default=nan
        As in :func:`event_onset_fms`, for precision and recall.

    Returns
    -------
    scores : SegmentScores

    Raises
    ------
    TypeError
        If an argument is not one list of events per clip.
    ValueError
        If the lists are not equally long, a time or parameter is not valid, or an
        event has a label that is not among ``labels``.

    Examples
    --------
    >>> from skaudioemb.hear.scores import segment_scores
    >>> scores = segment_scores([[("bark", 0.5, 3.5)]], [[("purr", 0.0, 5.0)]])
    >>> scores.n_substitutions, scores.n_insertions
    (4, 1)
    """
    if not (np.isfinite(segment) and segment > 0):
        raise ValueError(f"segment={segment!r}: give a positive number of seconds.")
    tables = tabulate_both(reference, estimate)
    known = _known_labels(tables, labels)
    ends = np.zeros(len(reference))
    for table in tables:
        np.maximum.at(ends, table.clips, table.ends)
    first = np.concatenate([[0], np.cumsum(np.ceil(ends / segment).astype(np.intp))])
    true, guess = (_activity(table, first, known, segment) for table in tables)
    return _segment_scores(true, guess, ends, zero_division)


def _known_labels(tables, labels):
    """Return the column of each label."""
    found = dict.fromkeys(label for table in tables for label in table.labels)
    if labels is None:
        return {label: column for column, label in enumerate(found)}
    known = {str(label): column for column, label in enumerate(labels)}
    if unknown := found.keys() - known.keys():
        raise ValueError(
            f"Events have the labels {sorted(unknown)[:5]}, which are not among the "
            f"{len(known)} of labels."
        )
    return known


def _activity(table, first, known, segment):
    """Return which labels are active in the segments of all clips, one after another.

    ``first`` holds the row of each clip's first segment, then the number of rows.
    """
    starts = np.maximum(np.floor(table.starts / segment), 0).astype(np.intp)
    ends = np.maximum(np.ceil(table.ends / segment), 0).astype(np.intp)
    offsets = first[table.clips]
    columns = [known[label] for label in table.labels]
    changes = np.zeros((first[-1] + 1, len(known)), dtype=np.intp)
    np.add.at(changes, (offsets + starts, columns), 1)
    np.add.at(changes, (offsets + ends, columns), -1)
    return np.cumsum(changes[:-1], axis=0) > 0


def _segment_scores(true, guess, ends, zero_division):
    n_true, n_guess = true.sum(axis=1), guess.sum(axis=1)
    hits = (true & guess).sum(axis=1)
    substitutions = int((np.minimum(n_true, n_guess) - hits).sum())
    deletions = int(np.maximum(n_true - n_guess, 0).sum())
    insertions = int(np.maximum(n_guess - n_true, 0).sum())
    n_reference, n_estimated = int(n_true.sum()), int(n_guess.sum())
    n_both = int(hits.sum())
    # sed_eval adds the least number that changes 1, so that nothing is divided by 0.
    per_active = n_reference + np.spacing(1.0)
    errors = (substitutions, deletions, insertions)
    rates = [float(count / per_active) for count in errors]
    return SegmentScores(
        rates[0] + rates[1] + rates[2],
        *rates,
        *f_measure_parts(n_reference, n_estimated, n_both, zero_division),
        n_both,
        true.size - n_reference - n_estimated + n_both,
        n_estimated - n_both,
        n_reference - n_both,
        n_reference,
        n_estimated,
        *errors,
        float(ends.sum()),
    )
