"""HEAR's folds: each one once the test rows, and the next one the validation rows."""

import numpy as np
from sklearn.utils.validation import column_or_1d


class RotatingFolds:
    """A splitter with validation rows, as HEAR has it for tasks in folds.

    For each fold i the test rows are fold i, the validation rows fold i + 1 (after the
    last comes the first), and the training rows all others, fold after fold.
    :class:`ProbeSearchCV` gives the validation rows to the probe in place of its own
    ``validation``; other searches leave them out.

    Parameters
    ----------
    folds : array-like of shape (n_samples,)
        Name of the fold of each row; at least three folds.
    test_folds : list or None, default=None
        Names of the folds to test on. None is all; HEAR searches its grid with the
        first one only.

    References
    ----------
    .. [1] J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations",
       Proceedings of Machine Learning Research 176 (NeurIPS 2021), 2022. The order
       follows its code, heareval 2021.1.3.

    Examples
    --------
    >>> from skaudioemb.probes.folds import RotatingFolds
    >>> folds = RotatingFolds(["a", "b", "c", "d", "a"], test_folds=["c", "d"])
    >>> [(train.tolist(), test.tolist()) for train, test in folds.split()]
    [([0, 4, 1], [2]), ([1, 2], [3])]
    >>> [rows.tolist() for rows in folds.validation_rows()]
    [[3], [0, 4]]
    """

    def __init__(self, folds, test_folds=None):
        self.folds = folds
        self.test_folds = test_folds

    def _splits(self):
        """Return training, validation and test rows of each split."""
        names, codes = np.unique(column_or_1d(self.folds), return_inverse=True)
        if len(names) < 3:
            raise ValueError(
                f"Found {len(names)} folds, {names.tolist()}, but training, "
                "validation and test rows need at least three."
            )
        known = names.tolist()
        wanted = known if self.test_folds is None else list(self.test_folds)
        unknown = [name for name in wanted if name not in known]
        if unknown or not wanted:
            raise ValueError(
                f"test_folds={wanted} has to name at least one fold, and only those "
                f"that there are: {known}."
            )
        rows = [np.flatnonzero(codes == i) for i in range(len(names))]
        splits = []
        for test in map(known.index, wanted):
            valid = (test + 1) % len(names)
            rest = [rows[i] for i in range(len(names)) if i not in (test, valid)]
            splits.append((np.concatenate(rest), rows[valid], rows[test]))
        return splits

    def get_n_splits(self, X=None, y=None, groups=None):
        """Return the number of splits.

        Parameters
        ----------
        X, y, groups : object
            Not used.

        Returns
        -------
        n_splits : int
        """
        return len(self._splits())

    def split(self, X=None, y=None, groups=None):
        """Yield the training rows and the test rows of each split.

        Parameters
        ----------
        X, y, groups : object
            Not used.

        Yields
        ------
        train, test : ndarray of int
        """
        for train, _, test in self._splits():
            yield train, test

    def validation_rows(self):
        """Return the validation rows of each split.

        Returns
        -------
        rows : list of ndarray of int
        """
        return [valid for _, valid, _ in self._splits()]
