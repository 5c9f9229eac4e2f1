"""The score of a probe in training, without a second pass through its net."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import get_scorer

from skaudioemb.scores.clips import mAP


def resolve_scorer(scoring):
    """Return the scorer that ``scoring`` names; None and "loss" need none.

    Parameters
    ----------
    scoring : str, callable or None

    Returns
    -------
    scorer : callable or None

    Raises
    ------
    ValueError
        If scikit-learn has no scorer of that name.
    """
    if scoring is None or scoring == "loss":
        return None
    try:
        return get_scorer(scoring)
    except ValueError as error:
        raise ValueError(
            f"scoring={scoring!r} is not known. Use None, 'loss', a callable, or one "
            "of the names that sklearn.metrics.get_scorer_names() lists."
        ) from error


class ValidationScore:
    """The score of a net's outputs for the validation rows.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,) or (n_samples, n_labels)
        Labels as the user gave them.
    targets : Targets
    scorer : callable or None
        A scikit-learn scorer; None is accuracy, or for several labels a row macro
        average precision.
    """

    def __init__(self, X, y, targets, scorer):
        self.X = X
        self.y = y
        self.targets = targets
        self.scorer = scorer

    def __call__(self, net, dataset, codes):
        """Return the score, a float; NaN where the outputs are not finite."""
        probabilities = net.predict_proba(dataset)
        if not np.isfinite(probabilities).all():
            return np.nan
        if self.scorer is not None:
            known = KnownPredictions(probabilities, self.targets)
            return float(self.scorer(known, self.X, self.y))
        if self.targets.multilabel:
            return mAP(codes, probabilities)
        return float(np.mean(probabilities.argmax(axis=1) == codes))


class KnownPredictions(ClassifierMixin, BaseEstimator):
    """A fitted classifier for rows whose probabilities are known already.

    It lets any scikit-learn scorer look at the outputs of a training net without a
    second pass through it.

    Parameters
    ----------
    probabilities : ndarray of shape (n_samples, n_outputs)
    targets : Targets
    """

    def __init__(self, probabilities, targets):
        self.probabilities = probabilities
        self.targets = targets

    @property
    def classes_(self):
        """The labels, as a fitted classifier has them."""
        return self.targets.classes

    def __sklearn_is_fitted__(self):
        return True

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def predict_proba(self, X):
        """Return the known probabilities; X must be the validation rows."""
        if len(X) != len(self.probabilities):
            raise ValueError(
                f"The scorer asked for predictions of {len(X)} rows, but while a "
                f"probe trains only the {len(self.probabilities)} validation rows are "
                "known. Let it score those, all together."
            )
        return self.probabilities

    def predict(self, X):
        """Return the known labels; X must be the validation rows."""
        return self.targets.decode(self.predict_proba(X))
