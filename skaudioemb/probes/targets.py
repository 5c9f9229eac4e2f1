"""Labels to and from what the network sees."""

import numpy as np
from scipy import sparse
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

UNSEEN = -100  # the code that torch's cross-entropy leaves out


class Targets:
    """The labels of a classification problem and their codes.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_labels)
        One label of any type per row, or an indicator matrix, dense or sparse.

    Attributes
    ----------
    multilabel : bool
        Whether y was an indicator matrix.
    classes : ndarray of shape (n_classes,) or (n_labels, 2)
        The sorted labels; for an indicator matrix the two values of each column.
    n_outputs : int
        Number of classes or of label columns.
    """

    def __init__(self, y):
        y = label_array(y)
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y")
        if kind == "multiclass-multioutput":
            raise ValueError(
                f"y has the shape {y.shape} and holds several classes per column "
                "(multiclass-multioutput). Give one label per row, or an indicator "
                "matrix of zeros and ones with a column per label."
            )
        self.multilabel = kind == "multilabel-indicator"
        if self.multilabel:
            self.n_outputs = y.shape[1]
            # A matrix tells scikit-learn's scorers that there are several labels, even
            # if there are two; its length lets cross_val_predict count them.
            self.classes = np.tile([0, 1], (self.n_outputs, 1))
        else:
            self.classes = LabelEncoder().fit(y).classes_
            self.n_outputs = len(self.classes)

    def encode(self, y):
        """Return the codes of y.

        Parameters
        ----------
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Labels of the same kind as those that this object was made of.

        Returns
        -------
        codes : ndarray
            int64 of shape (n_samples,), ``UNSEEN`` where the label is not among the
            classes; or float32 of shape (n_samples, n_labels), zeros and ones.

        Raises
        ------
        ValueError
            If y is not of that kind.
        """
        y = label_array(y)
        multilabel = type_of_target(y).startswith("multilabel")
        if multilabel != self.multilabel or (
            multilabel and y.shape[1] != self.n_outputs
        ):
            expected = "(n_samples,)"
            if self.multilabel:
                expected = f"(n_samples, {self.n_outputs}), zeros and ones,"
            raise ValueError(
                f"The labels have the shape {y.shape}, the labels of the training "
                f"rows {expected} instead. Give both in the same form."
            )
        if multilabel:
            dense = y.toarray() if sparse.issparse(y) else y
            return np.ascontiguousarray(dense, dtype=np.float32)
        code_of = {label: code for code, label in enumerate(self.classes.tolist())}
        return np.array([code_of.get(label, UNSEEN) for label in y.tolist()])

    def decode(self, probabilities):
        """Return the labels that probabilities stand for.

        Parameters
        ----------
        probabilities : ndarray of shape (n_samples, n_outputs)

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_labels)
            The likeliest class, the first of equals; or the indicator matrix of the
            labels whose probability exceeds 0.5.
        """
        if self.multilabel:
            return (probabilities > 0.5).astype(np.int64)
        return self.classes[probabilities.argmax(axis=1)]


def label_array(y):
    """Return y as an array; a matrix of one column becomes a vector, with a warning."""
    if sparse.issparse(y):
        return y.tocsr()
    y = np.asarray(y)
    return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
