"""Events in time: what a clip's label holds, and from when to when."""

from typing import NamedTuple

import numpy as np


class Event(NamedTuple):
    """One event of a clip.

    Attributes
    ----------
    label : object
        What is heard. Labels are compared as text, so that 60 and "60" are one label.
    start, end : float
        Seconds from the start of the clip; ``end`` is not before ``start``.

    Examples
    --------
    >>> from skaudioemb.events import Event
    >>> Event("bark", 0.5, 1.25)
    Event(label='bark', start=0.5, end=1.25)
    """

    label: object
    start: float
    end: float


class EventTable(NamedTuple):
    """The events of several clips as columns.

    Attributes
    ----------
    clips : ndarray of shape (n_events,), int64
        Index of each event's clip.
    labels : list of str
        Labels as text.
    starts, ends : ndarray of shape (n_events,), float64
        Seconds.
    """

    clips: np.ndarray
    labels: list
    starts: np.ndarray
    ends: np.ndarray


def tabulate(events, name="events"):
    """Return the events of several clips as columns, checked.

    Parameters
    ----------
    events : list of list of Event
        One list per clip; an event may be any triple (label, start, end).
    name : str, default="events"
        What to call the argument in errors.

    Returns
    -------
    table : EventTable
        In the order of ``events``.

    Raises
    ------
    TypeError
        If ``events`` is not one list of triples per clip.
    ValueError
        If a time is NaN or infinite, or an event ends before it starts.

    Examples
    --------
    >>> from skaudioemb.events import tabulate
    >>> tabulate([[("a", 0.0, 1.5)], [], [("b", 2.0, 2.5)]]).clips
    array([0, 2])
    """
    if isinstance(events, dict):
        raise TypeError(
            f"{name} is a dict. Give a list with one list of events per clip; "
            "skaudioemb.hear.scores.align_files makes two such lists of two dicts."
        )
    try:
        flat = [event for clip in events for event in clip]
        labels, starts, ends = zip(*flat, strict=True) if flat else ((), (), ())
        labels = list(map(str, labels))
        starts = np.array(starts, dtype=np.float64)
        ends = np.array(ends, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must be a list with one list of events per clip, each event "
            f"(label, start, end) with times in seconds: {error}. For a single clip "
            "give [events]."
        ) from error
    counts = [len(clip) for clip in events]
    clips = np.repeat(np.arange(len(counts)), counts)
    _check_times(name, clips, labels, starts, ends)
    return EventTable(clips, labels, starts, ends)


def _check_times(name, clips, labels, starts, ends):
    with np.errstate(invalid="ignore"):
        good = np.isfinite(starts) & np.isfinite(ends) & (ends >= starts)
    if good.all():
        return
    bad = int(np.argmin(good))
    raise ValueError(
        f"An event of {name} (clip {clips[bad]}, label {labels[bad]!r}) goes from "
        f"{starts[bad]} to {ends[bad]}. Times must be finite, in seconds, and an event "
        "may not end before it starts."
    )
