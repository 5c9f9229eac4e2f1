"""Targets of hybrid training: hand-made features of each crop, brought to one scale."""

import numpy as np
from scipy.sparse import issparse
from sklearn.base import clone

MAX_FITTED = 2048  # crops by which features are fitted and scaled
# Beyond it, squares would overflow.
_LARGEST = 1e100


class HandcraftedTargets:
    """Features by a scikit-learn transformer, standardised and clipped.

    Raw acoustic features span many orders of magnitude: of ComParE's 6373, one holds
    nearly all of the energy, so that neither a distance nor an angle between raw
    vectors tells two sounds apart. Hence each is standardised over the recordings,
    clipped, and left out if constant.

    Parameters
    ----------
    transformer : object
        A scikit-learn transformer of crops, which it gets as the rows of an array at
        `rate`. It is cloned and fitted once.
    rate : int
        Rate of the crops in Hz; a transformer with a parameter ``sample_rate`` is
        told.
    clip : float, default=5.0
        The largest magnitude of a standardised feature.

    Attributes
    ----------
    transformer_ : object
        The fitted clone.
    kept_ : ndarray of int64
        Columns of the transformer's output that are not constant.
    mean_, std_ : ndarray of shape (n_targets,)
        By which the kept columns are standardised.

    References
    ----------
    Elbanna et al., "BYOL-S: Learning Self-supervised Speech Representations by
    Bootstrapping" (2022), section 2.2.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from skaudioemb.pretraining.handcrafted import HandcraftedTargets
    >>> loudness = FunctionTransformer(lambda X: np.abs(X).mean(1, keepdims=True))
    >>> crops = np.array([[0.0, 0.0], [0.1, 0.1]], np.float32)
    >>> HandcraftedTargets(loudness, 16000).fit(crops).transform(crops)
    array([[-1.], [ 1.]], dtype=float32)
    """

    def __init__(self, transformer, rate, clip=5.0):
        self.transformer = transformer
        self.rate = rate
        self.clip = clip

    def fit(self, crops):
        """Fit the transformer, and learn the scale of what it gives.

        Parameters
        ----------
        crops : ndarray of shape (n_clips, n_samples)

        Returns
        -------
        self : HandcraftedTargets

        Raises
        ------
        ValueError
            If the transformer gives no feature that differs between crops.
        """
        self.transformer_ = clone(self.transformer)
        if "sample_rate" in self.transformer_.get_params(deep=False):
            self.transformer_.set_params(sample_rate=self.rate)
        self.transformer_.fit(crops)
        features = self._features(crops)
        mean, std = features.mean(0), features.std(0)
        scale = np.maximum(np.abs(mean), 1.0)
        self.kept_ = np.flatnonzero(std > 1e-7 * scale)
        if len(self.kept_) == 0:
            raise ValueError(
                f"handcrafted={self.transformer!r} gives the same {features.shape[1]} "
                f"values for all of {len(features)} crops: choose another transformer."
            )
        self.mean_, self.std_ = mean[self.kept_], std[self.kept_]
        return self

    def transform(self, crops):
        """Return the targets of crops.

        Parameters
        ----------
        crops : ndarray of shape (n_clips, n_samples)

        Returns
        -------
        targets : ndarray of shape (n_clips, n_targets), float32
            NaN, infinity and magnitudes above 1e100 count as features of 0.
        """
        scaled = (self._features(crops)[:, self.kept_] - self.mean_) / self.std_
        return np.clip(scaled, -self.clip, self.clip).astype(np.float32)

    def _features(self, crops):
        raw = self._raw(crops)
        return np.where(np.isfinite(raw), raw, 0.0)

    def _raw(self, crops):
        features = self.transformer_.transform(crops)
        if issparse(features):
            features = features.toarray()
        features = np.asarray(features, np.float64)
        if features.ndim != 2 or len(features) != len(crops):
            raise ValueError(
                f"handcrafted={self.transformer!r} gives an array of shape "
                f"{features.shape} for {len(crops)} crops: it has to give one row of "
                "features a crop."
            )
        return np.where(np.abs(features) > _LARGEST, np.nan, features)
