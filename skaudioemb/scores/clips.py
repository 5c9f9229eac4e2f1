"""Scores of predicted probabilities of clips.

Conventions
-----------
``y_true`` is an indicator matrix of shape (n_samples, n_classes), or a vector of
column indices of shape (n_samples,), -1 where a row's class has no column. ``y_score``
holds a score for each row and column, of which only the order within a row or a column
counts. Means over classes are plain ones (macro average).

Metrics
-------
- :func:`top1_acc` and :func:`pitch_acc`: accuracy of the highest score.
- :func:`chroma_acc`: the same, where notes an octave apart are equal.
- :func:`mAP`: mean average precision.
- :func:`aucroc`: mean area under the ROC curve.
- :func:`d_prime`: mean sensitivity index.

All follow HEAR [1]_ and its code, heareval 2021.1.3; :func:`mAP` and :func:`aucroc`
equal scikit-learn's macro averages.

References
----------
.. [1] J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations",
   Proceedings of Machine Learning Research 176 (NeurIPS 2021), 2022.
"""

import numpy as np
from scipy.special import ndtri


def top1_acc(y_true, y_score):
    """Return the share of rows whose highest score is at the true class.

    The first of equal scores wins. Of a row with several true classes the first
    counts, and a row of an indicator matrix without any counts as the first class, as
    in HEAR.

    Parameters
    ----------
    y_true : array-like of shape (n_samples, n_classes) or (n_samples,)
        Indicator matrix or column indices.
    y_score : array-like of shape (n_samples, n_classes)
        Probabilities or other scores.

    Returns
    -------
    score : float

    Raises
    ------
    ValueError
        If the shapes differ, there is no row, ``y_true`` holds other values, or
        ``y_score`` holds NaN or infinity.

    Examples
    --------
    >>> from skaudioemb.hear.scores import top1_acc
    >>> top1_acc([0, 2], [[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]])
    0.5
    """
    true, predicted = _top_columns(y_true, y_score)
    return float(np.mean(true == predicted))


def pitch_acc(y_true, y_score):
    """Return the share of rows with the right pitch: :func:`top1_acc` by HEAR's name.

    Parameters
    ----------
    y_true : array-like of shape (n_samples, n_classes) or (n_samples,)
        Indicator matrix or column indices.
    y_score : array-like of shape (n_samples, n_classes)
        Probabilities or other scores.

    Returns
    -------
    score : float

    Raises
    ------
    ValueError
        See :func:`top1_acc`.
    """
    return top1_acc(y_true, y_score)


def chroma_acc(y_true, y_score, *, notes=None):
    """Return the share of rows with the right pitch class, whatever the octave.

    Parameters
    ----------
    y_true : array-like of shape (n_samples, n_classes) or (n_samples,)
        Indicator matrix or column indices.
    y_score : array-like of shape (n_samples, n_classes)
        Probabilities or other scores.
    notes : array-like of shape (n_classes,) or None, default=None
        MIDI note number of each column. None compares column indices modulo 12, as
        HEAR does: that is wrong where the columns leave out a note between them.

    Returns
    -------
    score : float

    Raises
    ------
    ValueError
        See :func:`top1_acc`; or if ``notes`` are not one whole number per column.

    Examples
    --------
    Column 1 is an octave above column 0.

    >>> from skaudioemb.hear.scores import chroma_acc
    >>> chroma_acc([0], [[0.25, 0.75]], notes=[60, 72])
    1.0
    >>> chroma_acc([0], [[0.25, 0.75]])
    0.0
    """
    true, predicted = _top_columns(y_true, y_score)
    n_classes = np.shape(y_score)[1]
    notes = np.arange(n_classes) if notes is None else _as_notes(notes, n_classes)
    same = notes[true] % 12 == notes[predicted] % 12
    return float(np.mean(same & (true >= 0)))


def mAP(y_true, y_score):
    """Return the mean over classes of the average precision.

    Equal to scikit-learn's ``average_precision_score`` with macro average on an
    indicator matrix: a class without a true row counts as 0, here without a warning.

    Parameters
    ----------
    y_true : array-like of shape (n_samples, n_classes) or (n_samples,)
        Indicator matrix or column indices.
    y_score : array-like of shape (n_samples, n_classes)
        Probabilities or other scores.

    Returns
    -------
    score : float

    Raises
    ------
    ValueError
        See :func:`top1_acc`.

    Examples
    --------
    >>> from skaudioemb.hear.scores import mAP
    >>> mAP([[1, 0], [0, 1], [0, 0]], [[0.8, 0.1], [0.4, 0.7], [0.6, 0.9]])
    0.75
    """
    return float(np.mean(average_precisions(y_true, y_score)))


def aucroc(y_true, y_score):
    """Return the mean over classes of the area under the ROC curve.

    Equal to scikit-learn's ``roc_auc_score`` with macro average on an indicator
    matrix.

    Parameters
    ----------
    y_true : array-like of shape (n_samples, n_classes) or (n_samples,)
        Indicator matrix or column indices.
    y_score : array-like of shape (n_samples, n_classes)
        Probabilities or other scores.

    Returns
    -------
    score : float
        NaN as soon as one class is true in no row or in every row.

    Raises
    ------
    ValueError
        See :func:`top1_acc`.

    Examples
    --------
    >>> from skaudioemb.hear.scores import aucroc
    >>> aucroc([[1, 0], [0, 1], [0, 1]], [[0.8, 0.1], [0.4, 0.7], [0.9, 0.3]])
    0.75
    """
    return float(np.mean(roc_areas(y_true, y_score)))


def d_prime(y_true, y_score):
    """Return the mean over classes of sqrt(2) times the normal quantile of the AUC.

    Parameters
    ----------
    y_true : array-like of shape (n_samples, n_classes) or (n_samples,)
        Indicator matrix or column indices.
    y_score : array-like of shape (n_samples, n_classes)
        Probabilities or other scores.

    Returns
    -------
    score : float
        0 is chance. NaN where :func:`aucroc` is NaN, or if one class has an area of 0
        and another of 1; infinite as soon as one class has such an area.

    Raises
    ------
    ValueError
        See :func:`top1_acc`.

    Examples
    --------
    >>> from skaudioemb.hear.scores import d_prime
    >>> d_prime([0, 1, 0, 1], [[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]])
    0.953...
    """
    quantiles = ndtri(roc_areas(y_true, y_score))
    with np.errstate(invalid="ignore"):
        return float(np.sqrt(2) * np.mean(quantiles))


def average_precisions(y_true, y_score):
    """Return the average precision of each class.

    Parameters
    ----------
    y_true : array-like of shape (n_samples, n_classes) or (n_samples,)
        Indicator matrix or column indices.
    y_score : array-like of shape (n_samples, n_classes)
        Probabilities or other scores.

    Returns
    -------
    scores : ndarray of shape (n_classes,), float64
        0 for a class without a true row.

    Raises
    ------
    ValueError
        See :func:`top1_acc`.
    """
    precisions = np.zeros(np.shape(y_score)[1:])
    for column, (everything, hits) in enumerate(_sorted_columns(y_true, y_score)):
        if len(hits):
            n_above = len(everything) - np.searchsorted(everything, hits)
            n_hits = len(hits) - np.searchsorted(hits, hits)
            precisions[column] = np.mean(n_hits / n_above)
    return precisions


def roc_areas(y_true, y_score):
    """Return the area under the ROC curve of each class.

    Parameters
    ----------
    y_true : array-like of shape (n_samples, n_classes) or (n_samples,)
        Indicator matrix or column indices.
    y_score : array-like of shape (n_samples, n_classes)
        Probabilities or other scores.

    Returns
    -------
    scores : ndarray of shape (n_classes,), float64
        NaN for a class that is true in no row or in every row.

    Raises
    ------
    ValueError
        See :func:`top1_acc`.
    """
    areas = np.full(np.shape(y_score)[1:], np.nan)
    for column, (everything, hits) in enumerate(_sorted_columns(y_true, y_score)):
        n_hits, n_others = len(hits), len(everything) - len(hits)
        if n_hits and n_others:
            below = np.searchsorted(everything, hits).sum()
            not_above = np.searchsorted(everything, hits, side="right").sum()
            # Among themselves the hits win half of all comparisons.
            wins = (below + not_above - n_hits**2) / 2
            areas[column] = wins / (n_hits * n_others)
    return areas


def _sorted_columns(y_true, y_score):
    """Yield for each class all scores and those of the true rows, both sorted."""
    y_true, y_score = _check(y_true, y_score)
    columns = np.array(y_score.T, order="C")
    if y_true.ndim == 1:
        rows = np.argsort(y_true, kind="stable")
        counts = np.bincount(y_true + 1, minlength=len(columns) + 1)
        rows = rows[counts[0] :]
        hits, counts = columns[y_true[rows], rows], counts[1:]
    else:
        hits = columns[y_true.T]
        counts = y_true.sum(axis=0)
    bounds = np.cumsum([0, *counts])
    for column, start, stop in zip(columns, bounds[:-1], bounds[1:], strict=True):
        column.sort()
        yield column, np.sort(hits[start:stop])


def _top_columns(y_true, y_score):
    """Return the true and the predicted column of each row."""
    y_true, y_score = _check(y_true, y_score)
    if y_true.ndim == 2:
        y_true = y_true.argmax(axis=1)
    return y_true, y_score.argmax(axis=1)


def _check(y_true, y_score):
    """Return column indices or a boolean matrix, and finite scores."""
    y_true, y_score = np.asarray(y_true), np.asarray(y_score)
    if y_score.dtype not in (np.float32, np.float64):
        y_score = y_score.astype(np.float64)
    if y_score.ndim != 2 or not y_score.size:
        raise ValueError(
            f"y_score has the shape {y_score.shape}. Give a matrix with a row per "
            "sample and a column per class, with at least one of each."
        )
    if y_true.shape not in (y_score.shape, y_score.shape[:1]):
        raise ValueError(
            f"y_true has the shape {y_true.shape}, y_score {y_score.shape}. Give an "
            "indicator matrix of the same shape or one column index per row."
        )
    if not np.isfinite(y_score).all():
        raise ValueError("y_score holds NaN or infinity. Give finite scores.")
    if y_true.ndim == 1:
        return _check_columns(y_true, y_score.shape[1]), y_score
    indicators = y_true != 0
    if not (y_true == indicators).all():
        raise ValueError("y_true is a matrix with other values than zeros and ones.")
    return indicators, y_score


def _check_columns(y_true, n_classes):
    if y_true.dtype.kind not in "iu" or y_true.min() < -1 or y_true.max() >= n_classes:
        raise ValueError(
            f"y_true is a vector of {y_true.dtype} such as {y_true[:5].tolist()}. Give "
            f"integers from 0 to {n_classes - 1}, the column of each row's class, or "
            "-1 for a class without a column."
        )
    return y_true.astype(np.intp)


def _as_notes(notes, n_classes):
    notes = np.asarray(notes)
    if notes.shape != (n_classes,) or (notes % 1 != 0).any():
        raise ValueError(
            f"notes has the shape {notes.shape}. Give one MIDI note number, a whole "
            f"number, for each of the {n_classes} columns."
        )
    return notes
