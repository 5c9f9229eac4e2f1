"""How sure a score is, and whether two embedders differ: intervals and paired tests.

Clips are drawn anew, files where events are scored, within each test split; the score
is the mean over the splits, as in a :class:`~skaudioemb.hear.results.Result`. What
varies is thus which clips were tested. The training clips, the probe's initial weights
and the split into folds stay as they were, so that the truth is less sure than an
interval says.

Functions
---------
- :func:`bootstrap_interval`: a percentile interval of a score [1]_.
- :func:`paired_test`: difference of two results on the same clips, with an interval and
  the p-value of a permutation test [2]_.

Notes
-----
A class that a drawn set of clips leaves out is left out of that set's mean over
classes, although HEAR's scores count it as 0 (mAP) or are NaN (aucroc, d_prime): those
values would say more about the draw than about the embedder. A class that is missing
from the whole split counts as it does in the score. Where a score is not defined
without predicted events, such draws are left out and counted.

A clip that is drawn twice ties with itself, which raises mAP, most where a class has
few clips. The intervals of scores that depend on the order of probabilities (mAP,
aucroc, d_prime) are therefore moved such that the draws' median is the score. On
simulated clips 88 to 94 of 100 such intervals then hold the score to be expected of
another set of as many clips, instead of 74 to 94; few clips of few classes are at the
lower end.

References
----------
.. [1] B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
.. [2] The same, chapter 15; E. W. Noreen, "Computer-Intensive Methods for Testing
   Hypotheses", 1989.
"""

from typing import NamedTuple

import numpy as np

from skaudioemb.hear.results import Predictions
from skaudioemb.hear.scores import SCORES
from skaudioemb.hear.weighted_scores import make_weighted_score

# Sets of weights at a time, so that those of many clips stay in the cache.
_BLOCK = 128

# Scores that compare the probabilities of different clips with each other.
_ORDERED = ("mAP", "aucroc", "d_prime")


class Interval(NamedTuple):
    """A score and the interval that it may lie in.

    Attributes
    ----------
    score : float
        Of all clips.
    low, high : float
        Ends of the interval, NaN if no draw has a score.
    confidence : float
        Share of intervals like this that hold the true score.
    n_resamples : int
        Sets of clips that were drawn.
    n_undefined : int
        Those among them on which the score is not defined, and which were left out.
    """

    score: float
    low: float
    high: float
    confidence: float
    n_resamples: int
    n_undefined: int

    @property
    def ends(self):
        """Both ends as text."""
        return f"[{self.low:.3f}, {self.high:.3f}]"

    def __str__(self):
        return f"{self.score:.3f} {self.ends}"


class PairedTest(NamedTuple):
    """Two results on the same clips.

    Attributes
    ----------
    name : str
        Name of the score.
    a, b : float
        The scores.
    difference : float
        a - b.
    low, high : float
        Ends of the interval of the difference.
    p_value : float
        Probability of a difference as large, in either direction, if it did not matter
        which of the two made a clip's prediction. NaN if a score is.
    confidence : float
        Of the interval.
    n_resamples : int
        Draws for the interval, and as many for the p-value.
    n_clips : int
        Tested clips, in all splits.
    """

    name: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    confidence: float
    n_resamples: int
    n_clips: int

    @property
    def better(self):
        """The better one: "a", "b", or None if they are equal or not defined."""
        gain = self.difference
        if not SCORES[self.name].greater_is_better:
            gain = -gain
        return "a" if gain > 0 else "b" if gain < 0 else None

    def __str__(self):
        return (
            f"{self.name}: {self.a:.3f} - {self.b:.3f} = {self.difference:+.3f} "
            f"[{self.low:+.3f}, {self.high:+.3f}], p = {self.p_value:.3g}"
        )


# Two infinite d' have no difference and, with opposite signs, no mean.
@np.errstate(invalid="ignore")
def bootstrap_interval(
    predictions, score=None, *, confidence=0.95, n_resamples=1000, random_state=0
):
    """Return a score with a percentile interval over the clips that were tested.

    Parameters
    ----------
    predictions : Result or Predictions
        Of one split, or all that an embedder reached on a task.
    score : str or None, default=None
        A key of ``SCORES``. None is the primary score of a Result. ``chroma_acc``
        compares columns modulo 12, whatever the protocol of a Result says.
    confidence : float, default=0.95
        Of the interval, between 0 and 1.
    n_resamples : int, default=1000
        Sets of clips to draw.
    random_state : int, numpy.random.Generator or None, default=0
        Of the draws.

    Returns
    -------
    interval : Interval

    Raises
    ------
    ValueError
        If there is no such score, or a number is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb.hear.results import Predictions
    >>> from skaudioemb.hear.statistics import bootstrap_interval
    >>> truth, guess = np.repeat([0, 1], 50), np.repeat([0, 1, 0], [60, 30, 10])
    >>> files = [f"{i}.wav" for i in range(100)]
    >>> right = Predictions(files, ["a", "b"], truth, np.eye(2)[guess])
    >>> print(bootstrap_interval(right, "top1_acc"))
    0.800 [0.720, 0.880]
    """
    _check_numbers(confidence, n_resamples)
    parts, score = _parts(predictions, score)
    rng = np.random.default_rng(random_state)
    draws = [_resample([part], score, n_resamples, rng)[0] for part in parts]
    estimate = _mean_score(parts, score)
    draws, n_undefined = _defined(np.mean(draws, axis=0), score, estimate)
    low, high = _percentiles(draws, confidence)
    return Interval(estimate, low, high, confidence, n_resamples, n_undefined)


@np.errstate(invalid="ignore")
def paired_test(a, b, score=None, *, confidence=0.95, n_resamples=1000, random_state=0):
    """Return the difference of two results on the same clips, and how sure it is.

    The interval comes from drawing clips, the same for both. The p-value comes from a
    permutation test: by the flip of a coin for each clip, the two swap their
    predictions.

    Parameters
    ----------
    a, b : Result or Predictions
        Of the same task and splits. The order of the clips may differ.
    score : str or None, default=None
        A key of ``SCORES``. None is the primary score of two Results.
    confidence : float, default=0.95
        Of the interval, between 0 and 1.
    n_resamples : int, default=1000
        Draws for the interval, and as many for the p-value, which is at least
        1 / (n_resamples + 1).
    random_state : int, numpy.random.Generator or None, default=0
        Of the draws.

    Returns
    -------
    test : PairedTest

    Raises
    ------
    ValueError
        If the two were not tested on the same clips with the same truth, there is no
        such score, or a number is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb.hear.results import Predictions
    >>> from skaudioemb.hear.statistics import paired_test
    >>> truth, guess = np.repeat([0, 1], 50), np.repeat([0, 1], [60, 40])
    >>> files = [f"{i}.wav" for i in range(100)]
    >>> a = Predictions(files, ["a", "b"], truth, np.eye(2)[truth])
    >>> b = Predictions(files, ["a", "b"], truth, np.eye(2)[guess])
    >>> print(paired_test(a, b, "top1_acc"))
    top1_acc: 1.000 - 0.900 = +0.100 [+0.050, +0.160], p = 0.003
    """
    _check_numbers(confidence, n_resamples)
    parts_a, score_a = _parts(a, score)
    parts_b, score_b = _parts(b, score)
    _check_tasks(a, b, score_a, score_b)
    pairs = [_aligned(*pair) for pair in zip(parts_a, parts_b, strict=True)]
    rng = np.random.default_rng(random_state)
    drawn = [_resample(pair, score_a, n_resamples, rng) for pair in pairs]
    draws = np.subtract(*np.mean(drawn, axis=0))
    swapped = [_swap(*pair, score_a, n_resamples, rng) for pair in pairs]
    mean_a, mean_b = _mean_score(parts_a, score_a), _mean_score(parts_b, score_a)
    draws, _ = _defined(draws, score_a, mean_a - mean_b)
    low, high = _percentiles(draws, confidence)
    return PairedTest(
        *(score_a, mean_a, mean_b, mean_a - mean_b, low, high),
        p_value=_p_value(np.mean(swapped, axis=0), mean_a - mean_b),
        confidence=confidence,
        n_resamples=n_resamples,
        n_clips=sum(len(part.files) for part in parts_a),
    )


def _check_numbers(confidence, n_resamples):
    if not 0 < confidence < 1:
        raise ValueError(
            f"confidence={confidence!r}: give a number between 0 and 1, such as 0.95."
        )
    if n_resamples < 1:
        raise ValueError(f"n_resamples={n_resamples!r}: give at least 1.")


def _parts(predictions, score):
    """Return the predictions of each split, and the name of the score."""
    if isinstance(predictions, Predictions):
        parts = [predictions]
    else:
        parts = [split.predictions for split in predictions.splits]
        score = predictions.primary if score is None else score
    if score is None:
        raise ValueError(
            "Predictions have no primary score. Give one of "
            f"{', '.join(SCORES)} as score."
        )
    response = "events" if parts[0].kind == "events" else "probabilities"
    allowed = [name for name in SCORES if SCORES[name].response == response]
    if score not in allowed:
        raise ValueError(
            f"score={score!r} is no score of {response}. Give one of "
            f"{', '.join(allowed)}."
        )
    return parts, score


def _check_tasks(a, b, score_a, score_b):
    """Refuse what cannot be compared before the clips are looked at."""
    if score_a != score_b:
        raise ValueError(
            f"The primary scores are {score_a} and {score_b}. Give one of them as "
            "score."
        )
    tests_a, tests_b = (
        [split.test for split in getattr(side, "splits", [])] for side in (a, b)
    )
    if tests_a != tests_b:
        raise ValueError(
            f"One was tested on the splits {tests_a}, the other on {tests_b}. Compare "
            "results of the same task."
        )


def _aligned(a, b):
    """Return both, with the clips of the second in the order of the first."""
    rows = {file: row for row, file in enumerate(b.files)}
    if sorted(a.files) != sorted(b.files) or len(rows) < len(b.files):
        others = sorted(set(a.files).symmetric_difference(b.files))
        raise ValueError(
            f"The two were tested on {len(a.files)} and {len(b.files)} clips, "
            f"{len(others)} of which are not in both, such as {others[:3]}. Compare "
            "results of the same clips, each named once."
        )
    if (a.kind, a.labels) != (b.kind, b.labels):
        raise ValueError(
            f"The two predict {a.kind} of {len(a.labels)} labels and {b.kind} of "
            f"{len(b.labels)}, or their labels differ. Compare results of the same "
            "task."
        )
    b = b.take([rows[file] for file in a.files])
    for file, one, other in zip(a.files, a.truth, b.truth, strict=True):
        if not np.array_equal(one, other):
            raise ValueError(
                f"The two have another truth for {file}. Compare results of the same "
                "version of the task."
            )
    return a, b


def _mean_score(parts, score):
    return float(np.mean([part.score(score) for part in parts]))


def _resample(parts, score, n_resamples, rng):
    """Return the scores of the same drawn clips for each of some predictions."""
    functions = [make_weighted_score(part, score) for part in parts]
    n_clips = len(parts[0].files)
    values = []
    for n in _blocks(n_resamples):
        drawn = rng.integers(n_clips, size=(n, n_clips)) * n + np.arange(n)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n_clips * n)
        weights = counts.reshape(n_clips, n).astype(np.float32)
        values.append([function(weights) for function in functions])
    return np.concatenate(values, axis=1)


def _swap(a, b, score, n_resamples, rng):
    """Return differences of the scores after clips were swapped at random."""
    function = make_weighted_score(_stacked(a, b), score)
    values = []
    for n in _blocks(n_resamples):
        kept = rng.integers(2, size=(len(a.files), n)).astype(np.float32)
        first, second = (
            np.concatenate([kept, 1 - kept]),
            np.concatenate([1 - kept, kept]),
        )
        values.append(function(first) - function(second))
    return np.concatenate(values)


def _blocks(n):
    return [min(_BLOCK, n - start) for start in range(0, n, _BLOCK)]


def _stacked(a, b):
    """Return the predictions of both, one below the other."""
    if a.kind == "events":
        truth, predicted = a.truth + b.truth, a.predicted + b.predicted
    else:
        truth = np.concatenate([a.truth, b.truth])
        predicted = np.concatenate([a.predicted, b.predicted])
    return Predictions(a.files + b.files, a.labels, truth, predicted)


def _defined(draws, score, estimate):
    """Return the draws that have a score, and how many do not."""
    defined = draws[~np.isnan(draws)]
    n_undefined = len(draws) - len(defined)
    if score in _ORDERED and len(defined):
        shift = estimate - float(np.median(defined))
        defined = defined + shift if np.isfinite(shift) else defined
    return defined, n_undefined


def _percentiles(draws, confidence):
    """Return both ends of the interval."""
    if not len(draws):
        return np.nan, np.nan
    tail = (1 - confidence) / 2
    # Values that were drawn, not ones between: a d' may be infinite.
    low = np.quantile(draws, tail, method="lower")
    high = np.quantile(draws, 1 - tail, method="higher")
    return float(low), float(high)


def _p_value(differences, observed):
    """Return the share of differences that are as large, this one among them."""
    if np.isnan(observed):
        return np.nan
    # What is not defined counts against a difference; rounding must not count for it.
    smaller = np.abs(differences) < abs(observed) - 1e-9
    return float((1 + np.sum(~smaller)) / (1 + len(differences)))
