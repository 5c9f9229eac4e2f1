"""Scores of predicted events against reference events.

Conventions
-----------
``reference`` and ``estimate`` are lists with one list of events per clip; an event is
``(label, start, end)`` in seconds, see :class:`skaudioemb.events.Event`. Labels are
compared as text. Counts are summed over clips and labels before any ratio is taken
(micro average). All values equal those of sed_eval 0.2.1 [1]_ as HEAR uses it [2]_,
with HEAR's milliseconds divided by 1000: a precision without estimated events and a
recall without reference events are NaN, and an F-measure of NaN is NaN.

Metrics
-------
- :func:`event_onset_fms`: F-measure of events whose onsets agree.
- :func:`event_onset_offset_fms`: F-measure of events whose onsets and offsets agree.

:func:`event_scores` gives the same with precision, recall and counts.

References
----------
.. [1] A. Mesaros, T. Heittola, T. Virtanen, "Metrics for polyphonic sound event
   detection", Applied Sciences 6(6), 2016.
.. [2] J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations",
   Proceedings of Machine Learning Research 176 (NeurIPS 2021), 2022.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from skaudioemb.events import tabulate


class EventScores(NamedTuple):
    """Agreement of events with a reference.

    Attributes
    ----------
    f_measure, precision, recall : float
        In [0, 1], or NaN where undefined.
    n_reference, n_estimated, n_matched : int
        Numbers of events; each event is matched at most once.
    """

    f_measure: float
    precision: float
    recall: float
    n_reference: int
    n_estimated: int
    n_matched: int


def event_onset_fms(reference, estimate, collar=0.2, *, zero_division=np.nan):
    """Return the F-measure of events with the right label and onset.

    Parameters
    ----------
    reference, estimate : list of list of Event
        One list per clip.
    collar : float, default=0.2
        Allowed difference of onsets in seconds, inclusive.
    zero_division : float, default=nan
        Value of a precision without estimated events and of a recall without
        reference events. With 0, the score is 0 instead of NaN.

    Returns
    -------
    f_measure : float
        1 is perfect.

    Raises
    ------
    TypeError, ValueError
        See :func:`event_scores`.

    Examples
    --------
    >>> from skaudioemb.hear.scores import event_onset_fms
    >>> reference = [[("bark", 0.5, 1.0), ("bark", 2.0, 2.5)]]
    >>> event_onset_fms(reference, [[("bark", 0.625, 3.0), ("purr", 2.0, 2.5)]])
    0.5
    """
    return event_scores(
        reference, estimate, collar, zero_division=zero_division
    ).f_measure


def event_onset_offset_fms(
    reference, estimate, collar=0.05, offset_ratio=0.2, *, zero_division=np.nan
):
    """Return the F-measure of events with the right label, onset and offset.

    Parameters
    ----------
    reference, estimate : list of list of Event
        One list per clip.
    collar : float, default=0.05
        Allowed difference of onsets in seconds, inclusive, and the least allowed
        difference of offsets.
    offset_ratio : float, default=0.2
        Allowed difference of offsets as a share of the reference event's length,
        where that is more than ``collar``.
    zero_division : float, default=nan
        As in :func:`event_onset_fms`.

    Returns
    -------
    f_measure : float
        1 is perfect.

    Raises
    ------
    TypeError, ValueError
        See :func:`event_scores`.

    Examples
    --------
    >>> from skaudioemb.hear.scores import event_onset_offset_fms
    >>> event_onset_offset_fms([[("bark", 0.5, 1.5)]], [[("bark", 0.5, 1.625)]])
    1.0
    """
    return event_scores(
        reference, estimate, collar, offset_ratio, zero_division=zero_division
    ).f_measure


def event_scores(
    reference, estimate, collar=0.2, offset_ratio=None, *, zero_division=np.nan
):
    """Return F-measure, precision, recall and counts of matched events.

    Parameters
    ----------
    reference, estimate : list of list of Event
        One list per clip.
    collar : float, default=0.2
        Allowed difference of onsets in seconds, inclusive.
    offset_ratio : float or None, default=None
        If given, offsets have to agree as well, within the larger of ``collar`` and
        this share of the reference event's length.
    zero_division : float, default=nan
        As in :func:`event_onset_fms`.

    Returns
    -------
    scores : EventScores
        For as many pairs of one reference and one estimated event as can be formed.

    Raises
    ------
    TypeError
        If an argument is not one list of events per clip.
    ValueError
        If the lists are not equally long, or a time or parameter is not valid.

    Examples
    --------
    >>> from skaudioemb.hear.scores import event_scores
    >>> estimate = [[("bark", 0.625, 1.0), ("bark", 1.5, 2.0)]]
    >>> event_scores([[("bark", 0.5, 1.0)]], estimate).precision
    0.5
    """
    _check_not_negative("collar", collar)
    true, guess = tabulate_both(reference, estimate)
    true, guess = _grouped(true, guess)
    if offset_ratio is None:
        n_matched = _count_onsets(true, guess, collar)
    else:
        _check_not_negative("offset_ratio", offset_ratio)
        n_matched = _count_matching(true, guess, collar, offset_ratio)
    counts = len(true.groups), len(guess.groups), n_matched
    return EventScores(*f_measure_parts(*counts, zero_division), *counts)


# Seconds by which the search for pairs looks beyond the collar; an exact test follows.
MARGIN = 1e-6


class _Grouped(NamedTuple):
    """Events sorted by group (clip and label), then onset."""

    groups: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def _check_not_negative(name, value):
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"{name}={value!r}: give a finite number, at least 0.")


def tabulate_both(reference, estimate):
    """Return the events of both as columns.

    Parameters
    ----------
    reference, estimate : list of list of Event
        One list per clip.

    Returns
    -------
    true, guess : EventTable

    Raises
    ------
    TypeError
        If an argument is not one list of events per clip.
    ValueError
        If the lists are not equally long, or a time is not valid.
    """
    true, guess = tabulate(reference, "reference"), tabulate(estimate, "estimate")
    if len(reference) != len(estimate):
        raise ValueError(
            f"reference holds the events of {len(reference)} clips, estimate those of "
            f"{len(estimate)}. Give one list per clip in both, in the same order, and "
            "an empty list where there is no event."
        )
    return true, guess


def _grouped(*tables):
    """Return tables with the events of each clip and label together."""
    names = dict.fromkeys(label for table in tables for label in table.labels)
    codes = {label: code for code, label in enumerate(names)}
    grouped = []
    for clips, labels, starts, ends in tables:
        groups = clips * len(codes) + [codes[label] for label in labels]
        order = np.lexsort((starts, groups))
        grouped.append(_Grouped(groups[order], starts[order], ends[order]))
    return grouped


def _count_onsets(true, guess, collar):
    """Return the most pairs with near onsets.

    What an onset may be paired with is an interval that moves with the onset, in
    floating point too, so that pairing the first that fit is optimal.
    """
    # One by one, Python's own numbers are faster than numpy's.
    true_groups, true_starts = true.groups.tolist(), true.starts.tolist()
    groups, starts = guess.groups.tolist(), guess.starts.tolist()
    n_matched = i = j = 0
    while i < len(true_groups) and j < len(groups):
        ahead = groups[j] - true_groups[i] or starts[j] - true_starts[i]
        if groups[j] == true_groups[i] and abs(ahead) <= collar:
            n_matched += 1
            i += 1
            j += 1
        elif ahead > 0:
            i += 1
        else:
            j += 1
    return n_matched


def _count_matching(true, guess, collar, offset_ratio):
    """Return the most pairs with near onsets and offsets."""
    pairs = _near_pairs(true, guess, collar, offset_ratio)
    shape = (len(true.groups), len(guess.groups))
    if 0 in shape:
        return 0
    graph = csr_array((np.ones(len(pairs[0]), np.int8), pairs), shape=shape)
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())


def _near_pairs(true, guess, collar, offset_ratio):
    """Return the indices of all pairs that may be matched, as two arrays."""
    # Complex numbers are ordered by their real part first, here the group.
    wanted, given = (table.groups + 1j * table.starts for table in (true, guess))
    reach = 1j * (collar + MARGIN)
    first = np.searchsorted(given, wanted - reach)
    counts = np.searchsorted(given, wanted + reach) - first
    i = np.repeat(np.arange(len(wanted)), counts)
    j = np.arange(len(i)) + np.repeat(first - np.cumsum(counts) + counts, counts)
    tolerance = np.maximum(collar, offset_ratio * (true.ends - true.starts))
    near = np.abs(true.starts[i] - guess.starts[j]) <= collar
    near &= np.abs(true.ends[i] - guess.ends[j]) <= tolerance[i]
    return i[near], j[near]


def f_measure_parts(n_reference, n_estimated, n_matched, zero_division):
    """Return F-measure, precision and recall of counts.

    Parameters
    ----------
    n_reference, n_estimated, n_matched : int
    zero_division : float
        Value of a ratio without a denominator.

    Returns
    -------
    f_measure, precision, recall : float
    """
    precision = n_matched / n_estimated if n_estimated else float(zero_division)
    recall = n_matched / n_reference if n_reference else float(zero_division)
    if precision == recall == 0:
        return 0.0, precision, recall
    return 2 * precision * recall / (precision + recall), precision, recall
