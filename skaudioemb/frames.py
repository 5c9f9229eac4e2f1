"""Frames of one clip: interpolation along time or features, and pooling.

Every operation here but the maximum is linear, so that "interpolate, then
average" is one weight per frame. :func:`pull_back` finds those weights, and a
scene vector of interpolated frames never needs the interpolated frames.
"""

from typing import NamedTuple

import numpy as np


class Frames(NamedTuple):
    """Frame ("timestamp") embeddings of one clip.

    Attributes
    ----------
    values : ndarray of shape (n_frames, n_features), float32
        One embedding per frame.
    times : ndarray of shape (n_frames,), float64
        Centres of the frames in seconds from the start of the clip.
    """

    values: np.ndarray
    times: np.ndarray


def index_positions(n_out, n_in):
    """Half-pixel source positions that stretch ``n_in`` points over ``n_out``.

    Point ``i`` reads position ``(i + 0.5) * n_in / n_out - 0.5``, clamped to the
    ends: linear resizing without aligned corners and without a low-pass.

    Parameters
    ----------
    n_out, n_in : int
        Number of points after and before.

    Returns
    -------
    positions : ndarray of shape (n_out,), float64
        Fractional indices between 0 and ``n_in - 1``.

    Examples
    --------
    >>> from skaudioemb.frames import index_positions
    >>> index_positions(4, 2)
    array([0.  , 0.25, 0.75, 1.  ])
    """
    positions = (np.arange(n_out, dtype=np.float64) + 0.5) * (n_in / n_out) - 0.5
    return np.clip(positions, 0, n_in - 1)


def time_positions(times_out, times_in):
    """Source positions of points in time; beyond the ends the end frame holds.

    Parameters
    ----------
    times_out, times_in : ndarray of shape (n_out,) and (n_in,)
        Increasing times in seconds.

    Returns
    -------
    positions : ndarray of shape (n_out,), float64
        Fractional indices between 0 and ``n_in - 1``.
    """
    return np.interp(times_out, times_in, np.arange(len(times_in), dtype=np.float64))


def interpolate(values, positions, axis=0):
    """Read ``values`` at fractional ``positions`` along ``axis``.

    Parameters
    ----------
    values : ndarray
        Any shape.
    positions : ndarray of shape (n_out,)
        Fractional indices along ``axis``.
    axis : int, default=0
        The axis to interpolate along.

    Returns
    -------
    out : ndarray
        Like ``values``, with ``n_out`` points along ``axis``; same dtype.
    """
    lower, upper, fraction = _neighbours(positions, values.shape[axis])
    shape = [1] * values.ndim
    shape[axis] = len(fraction)
    fraction = fraction.astype(values.dtype).reshape(shape)
    low = np.take(values, lower, axis=axis)
    return low + (np.take(values, upper, axis=axis) - low) * fraction


def resize_features(values, n_features):
    """Resize the last axis to ``n_features`` by linear interpolation.

    Parameters
    ----------
    values : ndarray of shape (..., n_in)
        Frames or pooled vectors.
    n_features : int
        The wanted width.

    Returns
    -------
    out : ndarray of shape (..., n_features)
        ``values`` itself if the width is right already.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb.frames import resize_features
    >>> resize_features(np.array([[0.0, 2.0, 4.0, 6.0]]), 2)
    array([[1., 5.]])
    """
    n_in = values.shape[-1]
    if n_in == n_features:
        return values
    return interpolate(values, index_positions(n_features, n_in), axis=-1)


def segment_bounds(n_frames, segments=None):
    """Starts and ends of the groups of frames that are pooled.

    Without ``segments`` one group holds every frame. With ``segments=k`` the
    first ``n_frames // k * k`` frames form ``k`` equal groups, and the remainder
    is left out (Wu et al., "The Efficacy of Self-Supervised Speech Models as Audio
    Representations", the grouped variant). A clip with fewer frames than groups
    repeats its frames.

    Parameters
    ----------
    n_frames : int
        Frames of the clip.
    segments : int or None, default=None
        Number of groups.

    Returns
    -------
    bounds : list of (int, int)
        Half-open ranges, one per group.

    Examples
    --------
    >>> from skaudioemb.frames import segment_bounds
    >>> segment_bounds(11, 5)
    [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10)]
    >>> segment_bounds(2, 3)
    [(0, 1), (0, 1), (1, 2)]
    """
    if segments is None:
        return [(0, n_frames)]
    size = n_frames // segments
    if size == 0:
        picks = [group * n_frames // segments for group in range(segments)]
        return [(pick, pick + 1) for pick in picks]
    return [(group * size, (group + 1) * size) for group in range(segments)]


def mean_weights(n_frames, segments=None):
    """Weights that average the frames of each group.

    Parameters
    ----------
    n_frames : int
        Frames of the clip.
    segments : int or None, default=None
        Number of groups, see :func:`segment_bounds`.

    Returns
    -------
    weights : ndarray of shape (n_groups, n_frames), float64
        Each row sums to 1.
    """
    bounds = segment_bounds(n_frames, segments)
    weights = np.zeros((len(bounds), n_frames))
    for row, (start, stop) in zip(weights, bounds, strict=True):
        row[start:stop] = 1 / (stop - start)
    return weights


def pull_back(weights, positions, n_in):
    """Weights on the source frames that equal ``weights`` on interpolated ones.

    For any ``values`` of ``n_in`` frames,
    ``pull_back(weights, positions, n_in) @ values`` equals
    ``weights @ interpolate(values, positions)``.

    Parameters
    ----------
    weights : ndarray of shape (n_groups, n_out)
        Weights of the interpolated frames.
    positions : ndarray of shape (n_out,)
        Fractional source indices.
    n_in : int
        Number of source frames.

    Returns
    -------
    weights : ndarray of shape (n_groups, n_in), float64
    """
    lower, upper, fraction = _neighbours(positions, n_in)
    return np.stack(
        [
            np.bincount(lower, row * (1 - fraction), minlength=n_in)
            + np.bincount(upper, row * fraction, minlength=n_in)
            for row in weights
        ]
    )


def pool(values, pooling="mean", segments=None):
    """Pool the frames of one clip into its scene vector.

    Parameters
    ----------
    values : ndarray of shape (n_frames, n_features)
        Frames.
    pooling : {"mean", "max", "mean+max", "mean-std"}, default="mean"
        ``"mean+max"`` is the sum of both (BYOL-A), ``"mean-std"`` both side by
        side.
    segments : int or None, default=None
        Number of groups that are pooled apart, see :func:`segment_bounds`.

    Returns
    -------
    vector : ndarray of shape (n_groups * n_features,), float32
        Group after group; twice as long for ``"mean-std"``.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb.frames import pool
    >>> pool(np.array([[1.0, 2.0], [3.0, 2.0]]), "mean+max")
    array([5., 4.], dtype=float32)
    """
    groups = [
        values[start:stop] for start, stop in segment_bounds(len(values), segments)
    ]
    statistics = {
        "mean": lambda group: group.mean(axis=0),
        "max": lambda group: group.max(axis=0),
        "mean+max": lambda group: group.mean(axis=0) + group.max(axis=0),
        "mean-std": lambda group: np.concatenate(
            [group.mean(axis=0), group.std(axis=0)]
        ),
    }
    pooled = [statistics[pooling](group) for group in groups]
    return np.concatenate(pooled).astype(np.float32, copy=False)


def merge(parts, how="concat"):
    """Merge arrays along their last axis.

    Parameters
    ----------
    parts : list of ndarray of shape (..., n_features)
        Alike but for the last axis; equally wide unless concatenated.
    how : {"concat", "interleave", "mean"}, default="concat"
        Side by side, feature by feature in turn, or averaged.

    Returns
    -------
    merged : ndarray of shape (..., n_merged)

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb.frames import merge
    >>> merge([np.array([1, 2]), np.array([10, 20])], "interleave")
    array([ 1, 10,  2, 20])
    """
    if how == "concat":
        return np.concatenate(parts, axis=-1)
    stacked = np.stack(parts, axis=-1)
    if how == "mean":
        return stacked.mean(axis=-1)
    return stacked.reshape(*stacked.shape[:-2], -1)


def _neighbours(positions, n_in):
    lower = np.minimum(np.floor(positions).astype(np.intp), n_in - 1)
    upper = np.minimum(lower + 1, n_in - 1)
    return lower, upper, positions - lower
