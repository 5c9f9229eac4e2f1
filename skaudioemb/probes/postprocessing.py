"""Between frames and events: labels of frames, and events of predicted frames.

Both directions follow HEAR's code, heareval 2021.1.3, in seconds instead of
milliseconds.
"""

import numpy as np

from skaudioemb.events import Event, tabulate

# HEAR counts a frame in up to 0.0001 ms after an event's end, so that an end on a
# frame's time is in.
END_SLACK = 1e-7

# Times in seconds are hardly ever exact in binary. What differs by less than this
# counts as equal, so that five hops of 25 ms last 125 ms.
RESOLUTION = 1e-9


def events_to_frames(events, times, labels):
    """Return which labels are active at the frames of one clip.

    A frame at time t is in an event if ``start <= t < end + 1e-7``.

    Parameters
    ----------
    events : list of Event
        (label, start, end) in seconds, in any order.
    times : array-like of shape (n_frames,)
        Times of the frames in seconds, increasing.
    labels : sequence of length n_labels
        All labels, compared as text.

    Returns
    -------
    active : ndarray of shape (n_frames, n_labels), uint8
        Zeros and ones.

    Raises
    ------
    TypeError
        If an event is not a triple (label, start, end).
    ValueError
        If a time is not finite, times do not increase, an event ends before it
        starts, or labels are repeated or miss the label of an event.

    Examples
    --------
    >>> from skaudioemb.probes.postprocessing import events_to_frames
    >>> events_to_frames([("a", 0.05, 0.1)], [0, 0.05, 0.1, 0.15], ["a", "b"]).T
    array([[0, 1, 1, 0],
           [0, 0, 0, 0]], dtype=uint8)
    """
    times = _check_times(times)
    columns = _columns(labels)
    _, names, starts, ends = tabulate([events])
    active = np.zeros((len(times), len(columns)), dtype=np.uint8)
    first = np.searchsorted(times, starts - RESOLUTION)
    last = np.searchsorted(times, ends + END_SLACK)
    for name, start, stop in zip(names, first.tolist(), last.tolist(), strict=True):
        if name not in columns:
            raise ValueError(
                f"An event has the label {name!r}, which is not among the "
                f"{len(columns)} labels ({', '.join(list(columns)[:5])}, ...)."
            )
        active[start:stop, columns[name]] = 1
    return active


def frames_to_events(
    probabilities,
    times,
    labels,
    *,
    threshold=0.5,
    median_filter=0.25,
    min_duration=0.125,
):
    """Return the events that predicted frames of one clip amount to.

    The probabilities go through a median filter along time; a run of frames above the
    threshold is an event from the time of its first frame to that of its last one.

    Parameters
    ----------
    probabilities : array-like of shape (n_frames, n_labels)
        Probability of each label at each frame.
    times : array-like of shape (n_frames,)
        Times of the frames in seconds, increasing.
    labels : sequence of length n_labels
        Label of each column.
    threshold : float or array-like of shape (n_labels,), default=0.5
        A frame is active if its filtered probability is above it.
    median_filter : float, default=0.25
        Length of the filter in seconds; rounded to a number of frames, see
        :func:`filter_width`. 0 is no filter.
    min_duration : float, default=0.125
        Events that last less are left out, in seconds. An event of a single frame
        lasts 0 seconds.

    Returns
    -------
    events : list of Event
        Sorted by start, then by column.

    Raises
    ------
    ValueError
        If the shapes do not fit, a value is not finite, times do not increase, or a
        parameter is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb.probes.postprocessing import frames_to_events
    >>> times = np.arange(12) / 16
    >>> probabilities = np.zeros((12, 2))
    >>> probabilities[3:8, 0] = 0.9
    >>> frames_to_events(probabilities, times, ["bark", "purr"], median_filter=0.2)
    [Event(label='bark', start=0.1875, end=0.4375)]
    """
    times = _check_times(times)
    probabilities = _check_probabilities(probabilities, len(times), len(labels))
    for name, value in (
        ("median_filter", median_filter),
        ("min_duration", min_duration),
    ):
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name}={value!r}: give a finite number, at least 0.")
    # A single frame has no hop, and reflected edges make any filter leave it as it is.
    hop = np.mean(np.diff(times)) if len(times) > 1 else np.inf
    active = active_frames(probabilities, threshold, filter_width(median_filter, hop))
    columns, first, last = _runs(active)
    starts, ends = times[first], times[last]
    kept = ends - starts >= min_duration - RESOLUTION
    return [
        Event(labels[column], start, end)
        for column, start, end in zip(
            columns[kept].tolist(),
            starts[kept].tolist(),
            ends[kept].tolist(),
            strict=True,
        )
    ]


def filter_width(median_filter, hop):
    """Return the length of a filter in frames.

    Parameters
    ----------
    median_filter : float
        Length in seconds.
    hop : float
        Seconds from one frame to the next.

    Returns
    -------
    width : int
        The nearest whole number of hops, of two the even one.

    Examples
    --------
    >>> from skaudioemb.probes.postprocessing import filter_width
    >>> filter_width(0.25, 0.05), filter_width(0.125, 0.05), filter_width(0.25, 0.02)
    (5, 2, 12)
    """
    return round(round(float(median_filter / hop), 9))


def active_frames(probabilities, threshold=0.5, width=0):
    """Return where median-filtered probabilities are above a threshold.

    Equal to ``scipy.ndimage.median_filter(probabilities, (width, 1)) > threshold``
    with its reflected edges; an even window reaches one frame further back than
    ahead, and the upper of its two middle values counts. The median is above a
    threshold if enough values in the window are, and those are counted in a time that
    does not depend on the width.

    Parameters
    ----------
    probabilities : ndarray of shape (n_frames, n_labels)
    threshold : float or array-like of shape (n_labels,), default=0.5
    width : int, default=0
        Frames in the window; 0 and 1 are no filter.

    Returns
    -------
    active : ndarray of shape (n_frames, n_labels), bool
    """
    threshold = np.asarray(threshold, dtype=probabilities.dtype)
    active = probabilities > threshold
    if width < 2 or len(active) < 2:
        return active
    n_frames, before = len(active), width // 2
    # Frame i looks from i - before on; the sum before its window comes first.
    rows = np.arange(-before - 1, n_frames + width - before - 1) % (2 * n_frames)
    mirrored = np.minimum(rows, 2 * n_frames - 1 - rows)
    counts = np.cumsum(active[mirrored], axis=0, dtype=np.int32)
    return counts[width:] - counts[:-width] >= width - width // 2


def _runs(active):
    """Return column, first and last row of each run of true values.

    Sorted by first row, then by column.
    """
    padded = np.zeros((active.shape[1], len(active) + 2), dtype=bool)
    padded[:, 1:-1] = active.T
    # In a padded row the first change starts a run, the second ends it, and so on.
    columns, rows = np.nonzero(padded[:, 1:] != padded[:, :-1])
    first, last = rows[::2], rows[1::2] - 1
    order = np.argsort(first, kind="stable")
    return columns[::2][order], first[order], last[order]


def _check_times(times):
    times = np.asarray(times, dtype=np.float64)
    if times.ndim != 1:
        raise ValueError(
            f"times has the shape {times.shape}. Give the times of one clip's frames."
        )
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise ValueError(
            "times must be finite and increase from frame to frame, in seconds; "
            f"they begin with {times[:5].tolist()}."
        )
    return times


def _check_probabilities(probabilities, n_frames, n_labels):
    probabilities = np.asarray(probabilities)
    if probabilities.dtype not in (np.float32, np.float64):
        probabilities = probabilities.astype(np.float64)
    if probabilities.shape != (n_frames, n_labels):
        raise ValueError(
            f"probabilities has the shape {probabilities.shape}, but there are "
            f"{n_frames} times and {n_labels} labels. Give a row per frame and a "
            "column per label."
        )
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities holds NaN or infinity. Give finite values.")
    return probabilities


def _columns(labels):
    """Return the column of each label, as text."""
    columns = {str(label): column for column, label in enumerate(labels)}
    if len(columns) != len(labels):
        raise ValueError("labels holds the same label twice, compared as text.")
    return columns
