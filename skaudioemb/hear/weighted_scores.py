"""Scores of weighted clips, for many sets of weights at once.

A clip of weight 2 counts as two clips, one of weight 0 is not there. Drawing clips with
replacement is a choice of weights, and so is choosing for each clip one of two
predictions; :mod:`skaudioemb.hear.statistics` does both. Whatever does not depend on
the weights, such as the order of the probabilities, is computed once.
"""

import numpy as np
from scipy.sparse import csr_array
from scipy.special import ndtri

from skaudioemb.hear.scores import SCORES
from skaudioemb.scores.events import EventScores

_ACCURACIES = ("top1_acc", "pitch_acc", "chroma_acc")


def make_weighted_score(predictions, name):
    """Return a score as a function of the clips' weights.

    Parameters
    ----------
    predictions : Predictions
    name : str
        A key of ``SCORES``, of the kind of the predictions.

    Returns
    -------
    score : callable
        Takes whole numbers as weights, ndarray of shape (n_clips, n_sets), float32,
        and returns an ndarray of shape (n_sets,), float64. Where all weights are 1 its
        value is the score's. A class without a clip of weight in a set is left out of
        the mean over classes, unless it has no clip at all: then it counts as in
        ``SCORES``.
    """
    if predictions.kind == "events":
        return _EventScore(predictions, name)
    if name in _ACCURACIES:
        return _Accuracy(predictions, name)
    return _RankedScore(predictions, name)


class _Accuracy:
    def __init__(self, predictions, name):
        truth, guess = predictions.truth, predictions.predicted.argmax(axis=1)
        truth = truth if truth.ndim == 1 else truth.argmax(axis=1)
        octave = 12 if name == "chroma_acc" else predictions.predicted.shape[1]
        same = truth % octave == guess % octave
        self.hits = (same & (truth >= 0)).astype(np.float32)

    def __call__(self, weights):
        return np.float64(self.hits @ weights) / weights.sum(axis=0, dtype=np.float64)


class _EventScore:
    """Counts of events add up over clips; the score is a ratio of their sums."""

    def __init__(self, predictions, name):
        details = SCORES[name].details
        clips = zip(predictions.truth, predictions.predicted, strict=True)
        found = [details([truth], [guess]) for truth, guess in clips]
        self.counts = np.array([_counts(clip) for clip in found], np.float64).T

    def __call__(self, weights):
        sums = self.counts @ weights
        if len(sums) == 2:
            return sums[0] / (sums[1] + np.spacing(1.0))
        n_reference, n_estimated, n_matched = sums
        defined = (n_reference > 0) & (n_estimated > 0)
        with np.errstate(invalid="ignore"):
            f_measure = 2 * n_matched / (n_reference + n_estimated)
        return np.where(defined, f_measure, np.nan)


def _counts(scores):
    if isinstance(scores, EventScores):
        return scores.n_reference, scores.n_estimated, scores.n_matched
    errors = scores.n_substitutions + scores.n_deletions + scores.n_insertions
    return errors, scores.n_reference


class _RankedScore:
    """A mean over classes of what the order of the probabilities gives.

    Of each class only the clips that it is true for matter one by one; between them,
    the weights are summed by a sparse matrix, which is many times faster than
    cumulative sums over all clips.
    """

    def __init__(self, predictions, name):
        self.name = name
        probabilities = predictions.predicted
        truth = predictions.truth
        if truth.ndim == 1:
            truth = truth[:, None] == np.arange(probabilities.shape[1])
        columns = zip(truth.T != 0, probabilities.T, strict=True)
        self.classes = [_RankedClass(*column) for column in columns]

    def __call__(self, weights):
        total, n_classes = np.zeros((2, weights.shape[1]))
        for each in self.classes:
            if self.name == "mAP" and not each.n_hits:
                n_classes += 1
                continue
            if self.name != "mAP" and each.n_hits in (0, len(weights)):
                return np.full(weights.shape[1], np.nan)
            values = self._of_class(each, weights)
            defined = ~np.isnan(values)
            if self.name == "d_prime":
                values = np.sqrt(2) * ndtri(values)
            with np.errstate(invalid="ignore"):
                total += np.where(defined, values, 0)
            n_classes += defined
        with np.errstate(invalid="ignore"):
            return total / n_classes

    def _of_class(self, each, weights):
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.name == "mAP":
                return each.average_precision(weights)
            return each.area(weights)


class _RankedClass:
    """The clips of a class, sorted by the probability of the class."""

    def __init__(self, is_true, probabilities):
        order = np.argsort(probabilities, kind="stable")
        self.hits = order[is_true[order]]
        self.n_hits = len(self.hits)
        true = probabilities[self.hits]
        self.hits_below = np.searchsorted(true, true)
        self.hits_up_to = np.searchsorted(true, true, side="right")
        everything = probabilities[order]
        below = np.searchsorted(everything, true)
        up_to = np.searchsorted(everything, true, side="right")
        edges = np.unique(np.concatenate([[0], below, up_to, [len(order)]]))
        ones = np.ones(len(order), np.float32)
        shape = (len(edges) - 1, len(order))
        self.sections = csr_array((ones, order, edges), shape=shape)
        self.below = np.searchsorted(edges, below)
        self.up_to = np.searchsorted(edges, up_to)

    def average_precision(self, weights):
        """Return the average precision, NaN without a true clip.

        Parameters
        ----------
        weights : ndarray of shape (n_clips, n_sets), float32

        Returns
        -------
        values : ndarray of shape (n_sets,)
        """
        hits, sums, hit_sums = self._sums(weights)
        n_above = sums[-1] - sums[self.below]
        n_hits_above = hit_sums[-1] - hit_sums[self.hits_below]
        # A clip of weight 0 at the top has nothing above it, and counts nothing.
        precisions = n_hits_above / np.maximum(n_above, 1)
        return (hits * precisions).sum(axis=0) / hit_sums[-1]

    def area(self, weights):
        """Return the area under the ROC curve, NaN without true or other clips.

        Parameters
        ----------
        weights : ndarray of shape (n_clips, n_sets), float32

        Returns
        -------
        values : ndarray of shape (n_sets,)
        """
        hits, sums, hit_sums = self._sums(weights)
        below = sums[self.below] - hit_sums[self.hits_below]
        up_to = sums[self.up_to] - hit_sums[self.hits_up_to]
        n_others = sums[-1] - hit_sums[-1]
        return (hits * (below + up_to)).sum(axis=0) / (2 * hit_sums[-1] * n_others)

    def _sums(self, weights):
        """Return the weights of the true clips, and cumulative ones of all and true."""
        hits = weights[self.hits].astype(np.float64)
        sections = (self.sections @ weights).astype(np.float64)
        return hits, _cumulative(sections), _cumulative(hits)


def _cumulative(values):
    sums = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=sums[1:])
    return sums
