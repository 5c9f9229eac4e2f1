"""Fusion: several embedders aligned in time, resized, merged and pooled."""

from contextlib import suppress
from numbers import Integral

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skaudioemb.embedders.alignment import Alignment, MeanWeights, PulledBack
from skaudioemb.embedders.base import Embedder
from skaudioemb.embedders.composition import Composition
from skaudioemb.embedders.spill import Spill
from skaudioemb.engine import Length
from skaudioemb.frames import (
    Frames,
    index_positions,
    interpolate,
    merge,
    pool,
    resize_features,
    time_positions,
)

# Long enough for every model to give several frames.
_PROBE_LENGTH = Length(160_000, 16_000)


class Fusion(Composition):
    """Merge the frames of several embedders and pool them into scene vectors.

    Each member's frames are interpolated linearly to the frames of one reference
    member, resized to a common width where needed, and merged. Members run one after
    the other. Averages over time are taken as weighted sums of the members' own
    frames, so that interpolated frames are never held. Where a member takes other
    frames for scene vectors than for ``frames``, as CREPE with ``scene_hop``, so does
    the fusion.

    Parameters
    ----------
    embedders : list of (str, Embedder or Fusion or "drop")
        Named members. A member can be replaced, or left out as ``"drop"``, through
        ``set_params``; fusions nest.
    merge : {"concat", "interleave", "mean"}, default="concat"
        Side by side; feature by feature in turn (``a0, b0, a1, b1, ...``, as NTU-GURA's
        HEAR submission merged with CREPE); or averaged.
    reference : str or None, default=None
        The member whose frames the others are aligned to. None takes the one with
        the most frames (those of ``frames``), the first of these if there are several.
    align : {"time", "index"}, default="time"
        Interpolate at the true centres of the reference's frames, or stretch by frame
        number as the published code does, which is off by up to 40 ms for CREPE.
    n_features : int, "reference" or None, default=None
        Width that every member is resized to by linear interpolation along the
        features. None keeps the widths when members are concatenated, and takes the
        reference's when they are interleaved or averaged.
    pooling : {"mean", "max", "mean+max"}, default="mean"
        How merged frames become a scene vector. The members' own ``pooling`` and
        ``segments`` are for use outside of a fusion.
    segments : int or None, default=None
        Number of equal groups of frames that are pooled apart and concatenated.
    memory : str, path-like, Store, joblib.Memory or None, default=None
        Where the embeddings of members without a ``memory`` of their own are kept.

    Attributes
    ----------
    embedders_ : list of (str, Embedder or Fusion)
        The fitted members, without those dropped.
    named_embedders : Bunch
        The members by name.
    n_features_in_ : int
        Samples of each clip, if X was a 2-D array.

    Notes
    -----
    With a store, a grid over ``merge``, ``align``, ``reference``, ``n_features``,
    dropped members, members' ``layers`` and the probe runs each clip once through each
    model: whenever a clip is run, its average towards every other member's frames is
    stored along. A clip is run again for each other value of ``segments``, for the
    frames that a ``pooling`` with a maximum needs, once a layer, and for a member that
    appears only after the first use: let the fusion that a grid starts from hold every
    member, and drop some, rather than the reverse.

    References
    ----------
    T.-Y. Wu et al., "The Efficacy of Self-Supervised Speech Models as Audio
    Representations", HEAR 2021, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb import CREPE, Fusion, LogMel
    >>> fusion = Fusion([("crepe", CREPE("tiny")), ("logmel", LogMel())])
    >>> clips = [np.sin(np.arange(n) / 8) for n in (4000, 8000)]
    >>> fusion.fit_transform(clips).shape
    (2, 320)
    >>> fusion.set_params(merge="mean", crepe__hop=0.1).fit_transform(clips).shape
    (2, 64)
    """

    _parameter_constraints: dict = {
        "embedders": [list, tuple],
        "merge": [StrOptions({"concat", "interleave", "mean"})],
        "reference": [str, None],
        "align": [StrOptions({"time", "index"})],
        "n_features": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"reference"}),
            None,
        ],
        "pooling": [StrOptions(set(Embedder._poolings))],
        "segments": Embedder._parameter_constraints["segments"],
    }

    def __init__(
        self,
        embedders,
        *,
        merge="concat",
        reference=None,
        align="time",
        n_features=None,
        pooling="mean",
        segments=None,
        memory=None,
    ):
        self.embedders = embedders
        self.merge = merge
        self.reference = reference
        self.align = align
        self.n_features = n_features
        self.pooling = pooling
        self.segments = segments
        self.memory = memory

    def fit(self, X, y=None):
        """Fit clones of the members; frozen models train nothing.

        Parameters
        ----------
        X : sequence of clips or array-like of shape (n_clips, n_samples)
            Recordings; see :func:`skaudioemb.audio.load` for the forms of a clip.
        y : array-like or None, default=None
            Handed to the members.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If a parameter or a row of a 2-D X is not valid.
        """
        self._validate()
        X = self._check_clips(X, reset=True)
        self.embedders_ = [
            (name, member.fit(X, y)) for name, member in self._prepared()
        ]
        self._n_features_out = self._width() * (self.segments or 1)
        return self

    def transform(self, X):
        """Embed each clip as one scene vector.

        Parameters
        ----------
        X : sequence of clips or array-like of shape (n_clips, n_samples)
            Recordings; see :func:`skaudioemb.audio.load` for the forms of a clip.

        Returns
        -------
        embeddings : ndarray of shape (n_clips, n_features), float32
            A clip that could not be read is a row of NaN if the members have
            ``on_error="nan"``.

        Raises
        ------
        AudioError
            At the first bad clip if the members have ``on_error="raise"``.
        """
        self._validate()
        X = self._check_clips(X, reset=False)
        if self.pooling != "mean":
            return self._pool_frames(X)
        weights = MeanWeights(self._grid(scene=True), self.segments)
        extra = [MeanWeights(grid, self.segments) for grid in self._other_grids()]
        pooled = self._pool_weighted(X, weights, extra).reshape(len(X), -1)
        pooled[np.isnan(pooled).any(axis=1)] = np.nan
        return pooled

    def frames(self, X):
        """Embed each clip as the merged frames of all members.

        Parameters
        ----------
        X : sequence of clips or array-like of shape (n_clips, n_samples)
            Recordings; see :func:`skaudioemb.audio.load` for the forms of a clip.

        Returns
        -------
        frames : list of Frames
            At the times of the reference member.
        """
        self._validate()
        X = self._check_clips(X, reset=False)
        missing = np.full((1, self._width()), np.nan, np.float32)
        results = [Frames(missing, np.full(1, np.nan)) for _ in range(len(X))]
        for index, frames in self._iter_frames(X):
            results[index] = frames
        return results

    def iter_frames(self, X):
        """Yield the frames of clip after clip, without holding all of them.

        Parameters
        ----------
        X : sequence of clips or array-like of shape (n_clips, n_samples)
            Recordings.

        Yields
        ------
        index : int
            Number of the clip in X. Clips come in any order, and those that could not
            be read do not come if ``on_error="nan"``.
        frames : Frames
            As :meth:`frames` returns them.
        """
        self._validate()
        yield from self._iter_frames(self._check_clips(X, reset=False))

    def get_feature_names_out(self, input_features=None):
        """Return the names of the output features.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        names : ndarray of str
            ``member__i`` for concatenated or interleaved members, ``fusion<i>`` for
            averaged ones, prefixed with ``segment<k>__`` if there are segments.
        """
        check_is_fitted(self, "_n_features_out")
        names = [
            [f"{name}__{i}" for i in range(width)]
            for name, width in zip(self._members(), self._widths(), strict=True)
        ]
        if self.merge == "mean":
            merged = [f"fusion{i}" for i in range(self._width())]
        elif self.merge == "interleave":
            merged = [name for column in zip(*names, strict=True) for name in column]
        else:
            merged = [name for own in names for name in own]
        if self.segments is not None:
            merged = [
                f"segment{k}__{name}" for k in range(self.segments) for name in merged
            ]
        return np.asarray(merged, dtype=object)

    def _validate(self):
        self._validate_params()
        kept = self._validate_members()
        if self.reference is not None and self.reference not in kept:
            raise ValueError(
                f"reference={self.reference!r} is not among the members {kept}. Name "
                "one of them, or use None for the one with the most frames."
            )

    def _reference_name(self):
        if self.reference is not None:
            return self.reference
        counts = {
            name: len(member._grid()(_PROBE_LENGTH))
            for name, member in self._members().items()
        }
        return max(counts, key=counts.get)

    def _reference_member(self):
        return self._members()[self._reference_name()]

    def _grid(self, scene=False):
        """Return the reference's grid; see Embedder._grid."""
        return self._reference_member()._grid(scene)

    def _other_grids(self):
        """Return the scenes' grids of every member, and of dropped ones if found."""
        grids = [member._grid(scene=True) for member in self._members().values()]
        for member in getattr(self, "_dropped", {}).values():
            with suppress(OSError):
                grids.append(member._grid(scene=True))
        return grids

    def _widths(self):
        """Return the width of each member after resizing."""
        widths = [member._width() for member in self._members().values()]
        n_features = self.n_features
        if n_features is None and self.merge != "concat":
            n_features = "reference"
        if n_features == "reference":
            n_features = self._reference_member()._width()
        return widths if n_features is None else [n_features] * len(widths)

    def _width(self):
        widths = self._widths()
        return widths[0] if self.merge == "mean" else sum(widths)

    def _merge(self, parts):
        """Merge arrays that differ in their last axis only."""
        parts = [
            resize_features(part, width)
            for part, width in zip(parts, self._widths(), strict=True)
        ]
        return merge(parts, self.merge)

    def _pool_weighted(self, X, weights, extra_weights=()):
        """Return weighted sums of merged frames; see Embedder._pool_weighted."""
        grid = self._grid(scene=True)
        pooled = []
        for member in self._members().values():
            source = member._grid(scene=True)
            own = PulledBack(weights, Alignment(source, grid, self.align))
            extra = [
                PulledBack(other, Alignment(source, other.grid, align))
                for other in extra_weights
                for align in ("time", "index")
            ]
            pooled.append(member._pool_weighted(X, own, extra))
        return self._merge(pooled)

    def _iter_frames(self, X, scene=False):
        """Yield (index, Frames); see Embedder._iter_frames.

        Members run one after the other, so frames wait on disk, and only one clip's
        are in memory at a time.
        """
        members = list(self._members().values())
        reference = list(self._members()).index(self._reference_name())
        with Spill() as spill:
            for member in members:
                spill.add(member._iter_frames(X, scene))
            for index, parts in spill:
                times = parts[reference].times
                aligned = [self._align(part, times) for part in parts]
                yield index, Frames(self._merge(aligned), times)

    def _align(self, frames, times):
        if self.align == "index":
            positions = index_positions(len(times), len(frames.times))
        else:
            positions = time_positions(times, frames.times)
        return interpolate(frames.values, positions)

    def _pool_frames(self, X):
        width = self._width() * (self.segments or 1)
        embeddings = np.full((len(X), width), np.nan, np.float32)
        for index, frames in self._iter_frames(X, scene=True):
            embeddings[index] = pool(frames.values, self.pooling, self.segments)
        return embeddings


def make_fusion(*embedders, **params):
    """Make a :class:`Fusion`, naming the members after their classes.

    Parameters
    ----------
    *embedders : Embedder or Fusion
        The members. Names are lower-cased class names, numbered from the second of
        a class on.
    **params : dict
        Keyword parameters of :class:`Fusion`.

    Returns
    -------
    fusion : Fusion

    Examples
    --------
    >>> from skaudioemb import CREPE, make_fusion
    >>> fusion = make_fusion(CREPE(), CREPE("tiny"), merge="interleave")
    >>> list(fusion.named_embedders)
    ['crepe-1', 'crepe-2']
    """
    return Fusion(_name_estimators(embedders), **params)


def _name_estimators(embedders):
    names = [type(embedder).__name__.lower() for embedder in embedders]
    numbered = []
    for position, name in enumerate(names):
        if names.count(name) > 1:
            name = f"{name}-{names[: position + 1].count(name)}"
        numbered.append(name)
    return list(zip(numbered, embedders, strict=True))
