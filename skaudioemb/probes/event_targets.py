"""The targets of a detector: one list of events per clip, checked."""

from collections.abc import Mapping
from numbers import Real

import numpy as np
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import column_or_1d

from skaudioemb.events import Event, tabulate
from skaudioemb.probes.postprocessing import events_to_frames

# An event that ends later than this many lengths of its clip, and as many seconds, is
# taken for a mistake.
_FAR = 10


def check_targets(y, n_clips):
    """Return one list of events per clip.

    Parameters
    ----------
    y : list of list of Event, or array-like of shape (n_clips,)
        Events, or one label per clip, which holds throughout it.
    n_clips : int
        Expected length.

    Returns
    -------
    targets : list of list of Event
        An event of a clip's label has the end None.

    Raises
    ------
    TypeError
        If y is neither.
    ValueError
        If y has another length, a label is missing, a time is not finite, or an event
        ends before it starts.
    """
    if y is None:
        raise ValueError(
            "EventDetector requires y to be passed, but the target y is None. Give "
            "one list of events per clip."
        )
    if isinstance(y, str | Mapping) or hasattr(y, "columns"):
        raise TypeError(
            f"y is a {type(y).__name__}. Give one list of events (label, start, end) "
            "per clip, in the order of X; [] for a clip without events."
        )
    if getattr(y, "ndim", 1) == 2:
        y = column_or_1d(y, warn=True)
    if hasattr(y, "dtype"):
        assert_all_finite(y, input_name="y", allow_nan=False)
    items = list(y)
    if len(items) != n_clips:
        raise ValueError(
            f"y holds the events of {len(items)} clips, but X has {n_clips}. Give one "
            "list per clip, and an empty list for a clip without events."
        )
    held = [_is_list(item, index) for index, item in enumerate(items)]
    if not any(held):
        return [[Event(_plain(label), 0.0, None)] for label in items]
    if not all(held):
        index = held.index(False)
        raise TypeError(
            f"y[{index}] is {items[index]!r}, others are lists. Give one list of "
            "events per clip, or one label per clip for all of them."
        )
    tabulate(items, "y")
    return [
        [Event(_plain(label), float(start), float(end)) for label, start, end in item]
        for item in items
    ]


def closed(events, end=None):
    """Return events with ``end`` where they have none, or else with their start."""
    return [
        Event(label, start, own if own is not None else (start if end is None else end))
        for label, start, own in events
    ]


def sorted_labels(targets):
    """Return the labels that occur, sorted; two of the same text are one.

    Parameters
    ----------
    targets : list of list of Event

    Returns
    -------
    classes : ndarray of shape (n_labels,)

    Raises
    ------
    ValueError
        If there is no event, or a label is missing.
    """
    known = {}
    for events in targets:
        for label, _, _ in events:
            known.setdefault(str(label), label)
    if not known:
        raise ValueError(
            f"None of the {len(targets)} clips has an event, so there is nothing to "
            "learn. Give at least one event (label, start, end)."
        )
    labels = list(known.values())
    if any(label is None or label != label for label in labels):
        raise ValueError(
            "The label of an event is None or NaN. Name it, or leave the event out."
        )
    try:
        labels = sorted(labels)
    except TypeError:
        labels = sorted(labels, key=str)
    if len({type(label) for label in labels}) == 1 and np.isscalar(labels[0]):
        return np.array(labels)
    classes = np.empty(len(labels), dtype=object)
    classes[:] = labels
    return classes


def active_labels(events, times, classes):
    """Return which labels are active at the frames of a clip; unknown ones are not.

    Parameters
    ----------
    events : list of Event
    times : ndarray of shape (n_frames,)
    classes : ndarray of shape (n_labels,)

    Returns
    -------
    active : ndarray of shape (n_frames, n_labels), uint8
    """
    labels = classes.tolist()
    known = set(map(str, labels))
    events = [event for event in events if str(event.label) in known]
    return events_to_frames(events, times, labels)


def check_within(events, times, clip):
    """Refuse events so far outside of their clip that the unit must be wrong.

    Others may begin before the clip or end after it: clips are cut from longer
    recordings.

    Parameters
    ----------
    events : list of Event
    times : ndarray of shape (n_frames,)
        Times of the clip's frames in seconds.
    clip : int
        Index of the clip, for the error.
    """
    limit = _FAR * times[-1] + _FAR
    for label, start, end in events:
        if end > limit:
            raise ValueError(
                f"An event of clip {clip} (label {label!r}) goes from {start} to "
                f"{end}, but the clip's last frame is at {times[-1]:.2f} seconds. "
                "Events are in seconds from the start of their clip: divide by 1000 "
                "if these are milliseconds, by the sample rate if they are samples."
            )


def _is_list(item, index):
    """Tell a list of events from a label; refuse a bare event."""
    if isinstance(item, Event) or (
        isinstance(item, tuple)
        and len(item) == 3
        and all(isinstance(value, Real) for value in item[1:])
    ):
        raise TypeError(
            f"y[{index}] is one event, {item!r}. Give a list of events per clip, also "
            "if there is only one: [event]."
        )
    return isinstance(item, list | tuple | np.ndarray)


def _plain(label):
    return label.item() if isinstance(label, np.generic) else label
