"""Centred kernel alignment of activations, as sums over clips."""

import numpy as np

# Below this number of clips the unbiased estimate is not defined.
FEWEST = 4
# A layer whose energy is mean but for this share varies by rounding only.
_CONSTANT = 1e-12


class _Sums:
    """HSIC between the layers of two models, and of each layer with itself."""

    def matrix(self):
        """Return the alignment of what was taken in.

        Returns
        -------
        matrix : ndarray of shape (n_layers_a, n_layers_b), float64
            NaN for layers that do not vary.
        """
        both, own_a, own_b = self._hsics()
        own_a, own_b = (np.where(own > 0, own, np.nan) for own in (own_a, own_b))
        return both / np.sqrt(np.outer(own_a, own_b))

    def still(self):
        """Return the numbers of the layers of both models that do not vary.

        Returns
        -------
        still : list of two ndarray of int
        """
        return [np.flatnonzero(own <= 0) for own in self._hsics()[1:]]


class MinibatchCKA(_Sums):
    """Unbiased centred kernel alignment, from minibatch to minibatch.

    For activations of any origin; :func:`skaudioemb.analysis.cka` feeds it with those
    of embedders. Nothing but the sums of HSIC is kept.

    References
    ----------
    L. Song et al., "Feature Selection via Dependence Maximization", JMLR 13, 2012,
    equation 5.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb.analysis import MinibatchCKA
    >>> rng = np.random.default_rng(0)
    >>> sums = MinibatchCKA()
    >>> for _ in range(100):
    ...     x = rng.normal(size=(32, 8))
    ...     sums.update([x, rng.normal(size=(32, 4))], [2 * x[:, ::-1]])
    >>> abs(sums.matrix()).round(1).ravel().tolist()
    [1.0, 0.0]
    """

    def __init__(self):
        self.n_clips = 0
        self._sums = None

    def update(self, layers_a, layers_b):
        """Take in the activations of one minibatch.

        Parameters
        ----------
        layers_a, layers_b : list of ndarray of shape (n_clips, ...)
            Finite activations of the layers of both models for the same clips, 4 or
            more. All axes but the first are flattened.

        Raises
        ------
        ValueError
            If there are fewer than 4 clips, or not as many in each layer.
        """
        n_clips = len(layers_a[0])
        counts = sorted({len(values) for values in [*layers_a, *layers_b]})
        if counts != [n_clips] or n_clips < FEWEST:
            raise ValueError(
                f"The layers of a minibatch have {counts} clips. Give at least "
                f"{FEWEST}, and as many in each layer."
            )
        a = np.stack([_open_gram(values) for values in layers_a])
        b = a
        if layers_b is not layers_a:
            b = np.stack([_open_gram(values) for values in layers_b])
        own_a, own_b = (
            np.array([_hsic(gram[None], gram[None])[0, 0] for gram in grams])
            for grams in (a, b)
        )
        sums = [_hsic(a, b), own_a, own_b]
        if self._sums is not None:
            sums = [old + new for old, new in zip(self._sums, sums, strict=True)]
        self._sums = sums
        self.n_clips += n_clips

    def _hsics(self):
        if self._sums is None:
            raise ValueError("No minibatch was taken in yet. Call update first.")
        return self._sums


class FullCKA(_Sums):
    """Biased centred kernel alignment of all clips, which are held until the end.

    References
    ----------
    S. Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML
    2019, section 3.
    """

    def __init__(self):
        self.n_clips = 0
        self._parts = []
        self._found = None

    def update(self, layers_a, layers_b):
        """Take in the activations of some clips, as :class:`MinibatchCKA` does."""
        self._found = None
        self._parts.append((layers_a, layers_b))
        self.n_clips += len(layers_a[0])

    def _hsics(self):
        if self._found is None:
            a = self._grams([first for first, _ in self._parts])
            b = a
            if any(second is not first for first, second in self._parts):
                b = self._grams([second for _, second in self._parts])
            own = [np.einsum("ij,ij->i", grams, grams) for grams in (a, b)]
            self._found = (a @ b.T, *own)
        return self._found

    @staticmethod
    def _grams(parts):
        layers = zip(*parts, strict=True)
        return np.stack([_gram(np.concatenate(own)).ravel() for own in layers])


def _gram(values):
    """Return products between centred rows, ndarray of shape (n, n), float64.

    Centring changes no unbiased HSIC, but keeps large means from drowning the rest.
    """
    rows = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    energy = np.vdot(rows, rows)
    rows = rows - rows.mean(axis=0)
    if np.vdot(rows, rows) <= _CONSTANT * energy:
        return np.zeros((len(rows), len(rows)))
    return rows @ rows.T


def _open_gram(values):
    """Return products between different centred rows; the diagonal is 0."""
    gram = _gram(values)
    np.fill_diagonal(gram, 0)
    return gram


def _hsic(a, b):
    """Return unbiased HSIC of stacks of Gram matrices with zero diagonals.

    Song et al. 2012, equation 5, for each pair of shapes (n_a, n, n) and (n_b, n, n).
    """
    n = a.shape[-1]
    rows_a, rows_b = a.sum(axis=-1), b.sum(axis=-1)
    traces = a.reshape(len(a), -1) @ b.reshape(len(b), -1).T
    totals = np.outer(rows_a.sum(axis=-1), rows_b.sum(axis=-1)) / ((n - 1) * (n - 2))
    return (traces + totals - 2 / (n - 2) * (rows_a @ rows_b.T)) / (n * (n - 3))
