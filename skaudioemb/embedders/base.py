"""What all embedders share: clips in, scene vectors or frames out."""

import warnings
from abc import ABC, abstractmethod
from functools import partial
from numbers import Integral, Real

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import validate_data

from skaudioemb import audio, devices, engine
from skaudioemb.embedders.plans import (
    ExtraPlan,
    FramesPlan,
    ScenePlan,
    WeightedPlan,
    frame_times,
    select,
)
from skaudioemb.frames import Frames
from skaudioemb.store import Store
from skaudioemb.summaries import ALL, Kept, resolve_layers


class ClipsTransformer(TransformerMixin, BaseEstimator):
    """A transformer of clips: tags, and the checks of X.

    Subclasses have a parameter ``on_error`` or are made of embedders that do.
    """

    def _check_clips(self, X, *, reset):
        """Return X as a sequence of clips; a 2-D array is one clip a row.

        Widths are compared between fit and transform for 2-D arrays only: the
        clips of a list may have any length.
        """
        if not _is_table(X) or hasattr(X, "columns"):
            clips = audio.check_clips(X)
        if not _is_table(X):
            return clips
        if hasattr(X, "detach"):
            X = audio.to_host(X).numpy()
        X = validate_data(
            self, X, reset=reset, dtype="numeric", ensure_all_finite=False
        )
        if getattr(self, "on_error", "raise") == "raise":
            for index in np.flatnonzero(~np.isfinite(X).all(axis=1))[:1]:
                try:
                    audio.load(X[index], 1)
                except audio.AudioError as error:
                    raise error.at(int(index)) from None
        return X

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.allow_nan = getattr(self, "on_error", "raise") == "nan"
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


class Embedder(ClassNamePrefixFeaturesOutMixin, ClipsTransformer, ABC):
    """Base class of the frozen upstream models.

    A subclass names its parameters, the keyword-only tail below among them, and
    implements ``_make_spec``, and ``_make_scene_spec`` if its scene vectors come from
    other frames than :meth:`frames` gives. Weights are never held by the estimator:
    they live in one cache a process (:func:`skaudioemb.devices.load_encoder`), so
    that clones share them and pickles stay small.
    """

    _poolings = ("mean", "max", "mean+max")

    _parameter_constraints: dict = {
        "sample_rate": [Interval(Integral, 1, None, closed="left")],
        "device": [str],
        "dtype": [StrOptions(set(devices.DTYPES))],
        "batch_seconds": [Interval(Real, 0, None, closed="neither")],
        "n_jobs": [
            Interval(Integral, None, -1, closed="right"),
            Interval(Integral, 1, None, closed="left"),
            None,
        ],
        "on_error": [StrOptions({"raise", "nan"})],
        "segments": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        *,
        sample_rate,
        device,
        dtype,
        batch_seconds,
        memory,
        on_error,
        n_jobs,
        verbose,
    ):
        self.sample_rate = sample_rate
        self.device = device
        self.dtype = dtype
        self.batch_seconds = batch_seconds
        self.memory = memory
        self.on_error = on_error
        self.n_jobs = n_jobs
        self.verbose = verbose

    @abstractmethod
    def _make_spec(self):
        """Return the EncoderSpec of the frames that :meth:`frames` gives."""

    def _make_scene_spec(self):
        """Return the EncoderSpec of the frames behind scene vectors.

        It may differ from that of :meth:`frames` in when frames come, but neither in
        their width nor in the layers.
        """
        return self._make_spec()

    def fit(self, X, y=None):
        """Check the parameters and learn the numbers of features and layers.

        Parameters
        ----------
        X : sequence of clips or array-like of shape (n_clips, n_samples)
            Recordings; see :func:`skaudioemb.audio.load` for the forms of a clip.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The embedder.

        Raises
        ------
        ValueError
            If a parameter or a row of a 2-D X is not valid.
        OSError
            If the checkpoint cannot be found.
        """
        spec = self._validate()
        self._check_clips(X, reset=True)
        self._n_features_out = self._n_scene_features(spec)
        self.n_layers_ = spec.n_layers
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
            A clip that could not be read is a row of NaN if ``on_error="nan"``.

        Raises
        ------
        AudioError
            At the first bad clip if ``on_error="raise"``.
        """
        spec, plan = self._scene_plan()
        X = self._check_clips(X, reset=False)
        embeddings = np.full((len(X), self._n_scene_features(spec)), np.nan, np.float32)
        for index, _, result in self._run(X, spec, plan):
            embeddings[index] = plan.combine(result)
        return embeddings

    def frames(self, X):
        """Embed each clip as a sequence of frames ("timestamp embeddings").

        Parameters
        ----------
        X : sequence of clips or array-like of shape (n_clips, n_samples)
            Recordings; see :func:`skaudioemb.audio.load` for the forms of a clip.

        Returns
        -------
        frames : list of Frames
            For each clip ``values`` of shape (n_frames, n_features), float32, and
            ``times`` of shape (n_frames,), the centres in seconds. A clip that could
            not be read is one frame of NaN if ``on_error="nan"``.

        Raises
        ------
        AudioError
            At the first bad clip if ``on_error="raise"``.
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

    def _validate(self, scene=False):
        """Check the parameters; return the spec of the frames, or of the scenes."""
        self._validate_params()
        if self.pooling not in self._poolings:
            raise ValueError(
                f"pooling={self.pooling!r} is not known to {type(self).__name__}. "
                f"Choose one of {', '.join(map(repr, self._poolings))}."
            )
        spec, scene_spec = self._make_spec(), self._make_scene_spec()
        self._selection(spec)
        return scene_spec if scene else spec

    def _scene_plan(self):
        """Return the spec and the plan behind scene vectors."""
        spec = self._validate(scene=True)
        selection = self._selection(spec)
        return spec, ScenePlan(spec, self.pooling, self.segments, selection)

    def _selection(self, spec):
        return resolve_layers(getattr(self, "layers", "last"), spec.n_layers)

    def _width(self):
        spec = self._make_spec()
        return spec.n_features * (spec.n_layers if self._selection(spec) == ALL else 1)

    def _n_scene_features(self, spec):
        halves = 2 if self.pooling == "mean-std" else 1
        return self._width() * (self.segments or 1) * halves

    def _grid(self, scene=False):
        """Return a callable from a clip's Length to its frame times in seconds.

        The frames are those behind scene vectors if ``scene``.
        """
        spec = self._make_scene_spec() if scene else self._make_spec()
        return partial(frame_times, spec)

    def _iter_frames(self, X, scene=False):
        """Yield (index, Frames) of the good clips, in any order; see _grid."""
        spec = self._validate(scene)
        plan = FramesPlan((Kept(self._selection(spec)),))
        for index, length, (values,) in self._run(X, spec, plan):
            yield index, Frames(values, frame_times(spec, length))

    def _pool_weighted(self, X, weights, extra_weights=()):
        """Return weighted sums of the frames behind each clip's scene vector.

        Parameters
        ----------
        X : sequence of clips
        weights : MeanWeights or PulledBack
            Maps a clip's Length to an ndarray of shape (n_groups, n_frames).
        extra_weights : sequence of MeanWeights or PulledBack
            Likewise; stored along for later, never returned.

        Returns
        -------
        pooled : ndarray of shape (n_clips, n_groups, n_features), float32
        """
        spec = self._validate(scene=True)
        selection = self._selection(spec)
        plan = WeightedPlan(weights)
        shape = (len(X), weights.n_groups, self._width())
        pooled = np.full(shape, np.nan, np.float32)
        for index, _, (values,) in self._run(X, spec, plan, extra_weights):
            pooled[index] = select(values, selection).reshape(shape[1:])
        return pooled

    def _run(self, X, spec, plan, extra_weights=()):
        """Yield (index, length, result) of good clips; warn once of the others."""
        extra = ExtraPlan(spec, "mean-std" in self._poolings, tuple(extra_weights))
        settings = engine.Settings(
            sample_rate=self.sample_rate,
            device=self.device,
            dtype=self.dtype,
            batch_seconds=self.batch_seconds,
            store=Store.open(self.memory),
            on_error=self.on_error,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )
        bad = {}
        for index, length, result in engine.run(
            X, engine.Request(spec, plan, extra), settings
        ):
            if isinstance(result, Exception):
                bad[index] = result
            else:
                yield index, length, result
        if bad:
            listed = "\n".join(str(bad[index]) for index in sorted(bad))
            warnings.warn(
                f"{len(bad)} of {len(X)} clips could not be embedded and are NaN:\n"
                f"{listed}",
                stacklevel=3,
            )


def _is_table(X):
    """Tell a 2-D array, DataFrame or sparse matrix from a list of clips."""
    if isinstance(X, list | tuple):
        return False
    return len(getattr(X, "shape", ())) == 2 or (
        not hasattr(X, "shape") and hasattr(X, "__array__")
    )
