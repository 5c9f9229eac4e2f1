"""The one split of tasks that HEAR divides into train, valid and test."""

import numpy as np

from skaudioemb.hear.task_files import TRAIN_VALID_TEST


class TrainValidTest:
    """A splitter of one split, with validation rows.

    It has the interface of :class:`~skaudioemb.probes.folds.RotatingFolds`: the test
    rows are those named "test", and :class:`ProbeSearchCV` gives the validation rows
    to the probe in place of its own ``validation``.

    Parameters
    ----------
    split : array-like of shape (n_samples,)
        "train", "valid" or "test" for each row.

    Examples
    --------
    >>> from skaudioemb.hear.task_splits import TrainValidTest
    >>> cv = TrainValidTest(["train", "test", "train", "valid"])
    >>> [(train.tolist(), test.tolist()) for train, test in cv.split()]
    [([0, 2], [1])]
    >>> [rows.tolist() for rows in cv.validation_rows()]
    [[3]]
    """

    def __init__(self, split):
        self.split_names = split

    def _rows(self):
        """Return training, validation and test rows."""
        names = np.asarray(self.split_names)
        if set(names.tolist()) != set(TRAIN_VALID_TEST):
            raise ValueError(
                f"Found the splits {sorted(set(names.tolist()))}; there must be rows "
                f"of {', '.join(TRAIN_VALID_TEST)}, and no others."
            )
        return [np.flatnonzero(names == name) for name in TRAIN_VALID_TEST]

    def get_n_splits(self, X=None, y=None, groups=None):
        """Return the number of splits, 1.

        Parameters
        ----------
        X, y, groups : object
            Not used.

        Returns
        -------
        n_splits : int
        """
        return 1

    def split(self, X=None, y=None, groups=None):
        """Yield the training rows and the test rows.

        Parameters
        ----------
        X, y, groups : object
            Not used.

        Yields
        ------
        train, test : ndarray of int
        """
        train, _, test = self._rows()
        yield train, test

    def validation_rows(self):
        """Return the validation rows, in a list.

        Returns
        -------
        rows : list of ndarray of int
        """
        return [self._rows()[1]]
