"""Rows of embeddings with their labels: held out, and handed to torch."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from skorch.dataset import Dataset

from skaudioemb.probes.targets import UNSEEN, Targets, label_array


@dataclass(frozen=True)
class Rows:
    """Embeddings and labels.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features), float32
    given : ndarray of shape (n_samples,) or None
        Labels as they were given; None for an indicator matrix.
    codes : ndarray of shape (n_samples,) or (n_samples, n_labels)
        As the loss needs them; see :meth:`Targets.encode`.
    """

    X: np.ndarray
    given: np.ndarray | None
    codes: np.ndarray

    @classmethod
    def encode(cls, X, y, targets: Targets):
        """Return rows of X and y, checked against ``targets``."""
        codes = targets.encode(y)
        return cls(X, None if targets.multilabel else label_array(y), codes)

    @property
    def labels(self):
        """Labels as a scorer compares them with predictions."""
        return self.codes.astype(np.int64) if self.given is None else self.given

    def take(self, mask):
        """Return the rows where ``mask`` is true."""
        given = None if self.given is None else self.given[mask]
        return Rows(self.X[mask], given, self.codes[mask])

    def to_dataset(self, device):
        """Return the rows as tensors, on ``device`` if they leave room there."""
        return Dataset(placed(self.X, device), placed(self.codes, device))


def report_unseen(rows, targets):
    """Warn of validation rows whose label no training row has.

    Parameters
    ----------
    rows : Rows
    targets : Targets
        Of the training rows.

    Raises
    ------
    ValueError
        If that holds for all of them.
    """
    unseen = rows.codes == UNSEEN
    if not unseen.any():
        return
    n_unseen, n_rows = np.count_nonzero(unseen), len(rows.X)
    found = ", ".join(map(repr, np.unique(rows.labels[unseen]).tolist()[:5]))
    if n_unseen == n_rows:
        raise ValueError(
            "No label of the validation rows occurs in the training rows: found "
            f"{found}, known are {targets.classes[:5].tolist()}. Use the same labels, "
            "of the same type, in both."
        )
    warnings.warn(
        f"{n_unseen} of {n_rows} validation rows have labels that no training row has "
        f"({found}). They count as errors.",
        stacklevel=6,
    )


def as_tensor(array):
    """Return a C-contiguous array as a tensor that shares its memory if it may."""
    # torch warns about memory that it could write to but must not.
    return torch.from_numpy(np.require(array, requirements=("C", "W")))


def placed(array, device):
    """Return a C-contiguous array as a tensor, on ``device`` if it leaves room there.

    Parameters
    ----------
    array : ndarray
    device : torch.device

    Returns
    -------
    tensor : Tensor
    """
    tensor = as_tensor(array)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What stays in host memory is moved to the device batch by batch.
        return tensor if tensor.nbytes > free // 2 else tensor.to(device)
    return tensor.to(device)


def hold_out(codes, fraction, rng):
    """Choose rows for validation so that no class is lost from the training rows.

    Classes are held out in proportion to their frequency, and always keep a row for
    training; a label of an indicator matrix always keeps a positive row. At least one
    row is held out, and at least two are left, where the data permit.

    Parameters
    ----------
    codes : ndarray of shape (n_samples,) or (n_samples, n_labels)
        As :meth:`Targets.encode` returns them.
    fraction : float
        Part of the rows to hold out, in (0, 1).
    rng : RandomState

    Returns
    -------
    held_out : ndarray of shape (n_samples,), bool
        True for the validation rows.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb.probes.rows import hold_out
    >>> codes = np.array([0] * 10 + [1] * 5 + [2])
    >>> held_out = hold_out(codes, 0.2, np.random.RandomState(0))
    >>> np.bincount(codes[held_out], minlength=3)
    array([2, 1, 0])
    """
    n_rows = len(codes)
    wanted = min(max(1, round(fraction * n_rows)), n_rows - 2)
    choose = _choose_labelled if codes.ndim == 2 else _choose_stratified
    held_out = np.zeros(n_rows, dtype=bool)
    held_out[choose(codes, wanted, rng)] = True
    return held_out


def _choose_stratified(codes, wanted, rng):
    counts = np.bincount(codes)
    spare = counts - 1
    quota = np.minimum(wanted * counts / len(codes), spare)
    taken = quota.astype(int)
    # Rows still wanted go to the largest remainders, equal ones in random order;
    # classes with nothing to spare stand at the end.
    while (missing := min(wanted, spare.sum()) - taken.sum()) > 0:
        open_ = np.flatnonzero(taken < spare)
        remainder = (quota - taken)[open_]
        order = np.lexsort((rng.random_sample(len(open_)), -remainder))
        taken[open_[order[:missing]]] += 1
    rows = rng.permutation(len(codes))
    ranked = rows[np.argsort(codes[rows], kind="stable")]
    starts = np.cumsum(counts) - counts
    within = np.arange(len(codes)) - np.repeat(starts, counts)
    return ranked[within < np.repeat(taken, counts)]


def _choose_labelled(codes, wanted, rng):
    positive = codes > 0
    left = positive.sum(axis=0)
    chosen = []
    for row in rng.permutation(len(codes)):
        if len(chosen) >= wanted:
            break
        if (left[positive[row]] > 1).all():
            left -= positive[row]
            chosen.append(row)
    return np.array(chosen, dtype=int)
