"""What BYOLA and BYOLS share: weights, statistics, pretraining."""

import os
from dataclasses import fields
from numbers import Integral, Real

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from skaudioemb.embedders.base import Embedder
from skaudioemb.embedders.byol_learning import ByolLearning, LastPlan
from skaudioemb.embedders.plans import ScenePlan
from skaudioemb.embedders.sharing import unchanged_on_failure

_ENCODERS = ("audiontt2020", "audiontt2022", "resnetish34", "clstm", "cvt", "cvt-512")
_FRONTENDS = ("auto", "byol-a", "byol-a-v2", "byol-s")
_NORMALIZATIONS = ("fit", "clip", "weights")
_POSITIVE = Interval(Real, 0, None, closed="neither")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_SHARE = Interval(Real, 0, 1, closed="both")
_COUNT = Interval(Integral, 1, None, closed="left")


class ByolEmbedder(ByolLearning, Embedder):
    """Base of the embedders around encoders that BYOL trained.

    Its subclasses differ in defaults and words. Fitted attributes that hold what was
    learned are ``mean_`` and ``std_`` and, after pretraining, ``pretrained_weights_``.
    """

    _poolings = ("auto", "mean", "max", "mean+max")
    _own_frontend = "byol-a"

    _parameter_constraints: dict = {
        **Embedder._parameter_constraints,
        "encoder": [StrOptions(set(_ENCODERS))],
        "weights": [str, os.PathLike, None],
        "n_features": [_COUNT, None],
        "frontend": [StrOptions(set(_FRONTENDS))],
        "normalize": [StrOptions(set(_NORMALIZATIONS)), tuple, list],
        "frames_from": [StrOptions({"windows", "encoder"})],
        "window": [_POSITIVE],
        "hop": [Interval(Real, 0.0001, None, closed="left")],
        "max_seconds": [Interval(Real, 1.0, None, closed="left"), None],
        "max_epochs": [Interval(Integral, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "lr": [_POSITIVE],
        "weight_decay": [_NOT_NEGATIVE],
        "crop_seconds": [_POSITIVE],
        "projection_size": [_COUNT],
        "hidden_size": [_COUNT],
        "tau": [_SHARE],
        "mixup": [_SHARE],
        "memory_size": [_COUNT],
        "log_mixup_exp": ["boolean"],
        "crop_scales": [tuple, list],
        "canvas": [tuple, list],
        "fader": [_NOT_NEGATIVE],
        "alpha": [_NOT_NEGATIVE],
        "beta": [_NOT_NEGATIVE],
        "supervised_on": [StrOptions({"prediction", "projection"})],
        "supervised_loss": [StrOptions({"cosine", "mse"})],
        "target_clip": [_POSITIVE],
        "checkpoint_dir": [str, os.PathLike, None],
        "warm_start": ["boolean"],
        "handcrafted": [HasMethods("transform"), None],
        "n_threads": [_COUNT, None],
        "random_state": ["random_state"],
    }

    def fit(self, X, y=None):
        """Learn the statistics of the log-mel, and the encoder where there is none.

        With ``weights``, one pass over X learns ``mean_`` and ``std_`` if
        ``normalize="fit"``, and nothing else. Without, or with ``warm_start=True``, the
        encoder is pretrained on X by BYOL; with ``max_epochs=0`` it stays as
        pretraining would begin, with the statistics that pretraining learns.

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
            If a parameter, the weights or a row of a 2-D X is not valid, or if
            ``warm_start`` is to go on from weights of other parameters.
        OSError
            If the weights cannot be found.
        AudioError
            At the first bad clip if ``on_error="raise"``.
        """
        self._check_parameters()
        with unchanged_on_failure(self):
            if not self.warm_start:
                self._forget()
            if self.weights is None or self.warm_start:
                self._pretrain(self._check_clips(X, reset=True))
            else:
                self._check_weights()
                self._learn_statistics(self._check_clips(X, reset=True))
            return super().fit(X)

    def partial_fit(self, X, y=None):
        """Pretrain for one more epoch on X, from the weights that there are.

        Parameters
        ----------
        X : sequence of clips or array-like of shape (n_clips, n_samples)
            Recordings.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The embedder. Statistics stay those of the first call, and the state of
            the optimiser is kept as ``training_state_``. After :meth:`fit`, which
            keeps none, the first call begins with a new one and a new ``history_``.

        Raises
        ------
        ValueError
            If parameters are others than in earlier calls that decide the sizes of
            what is trained.
        """
        self._check_parameters()
        with unchanged_on_failure(self):
            self._pretrain(self._check_clips(X, reset=not self._is_pretrained()), True)
            return super().fit(X)

    def _check_parameters(self):
        self._validate_params()
        self._statistics_given()
        for name, lowest in (("crop_scales", 0), ("canvas", 1)):
            pair = getattr(self, name)
            numbers = len(pair) == 2 and all(isinstance(v, Real) for v in pair)
            if not numbers or not all(lowest <= value <= 100 for value in pair):
                raise ValueError(
                    f"{name}={pair!r} is no pair of numbers from {lowest} to 100."
                )

    def _check_weights(self, learned=False):
        """Raise if the weights are not those of the encoder that is asked for.

        These are the ones given, or those that were learned.
        """
        from skaudioemb.encoders.byol_weights import family_of, find

        if learned:
            told = self.pretrained_weights_.description
            named = "The weights that were learned"
            remedy = ", or call fit without warm_start to learn others."
        else:
            told = find(self.weights).description
            named, remedy = f"The weights {str(self.weights)!r}", "."
        wanted = {
            "encoder": (self.encoder, told.encoder),
            "n_features": (self.n_features, told.n_features),
            "frontend": (self.frontend, told.frontend),
        }
        if self.frontend == "auto":
            wanted.pop("frontend")
        if family_of(self.encoder) == family_of(told.encoder):
            wanted.pop("encoder")
        for name, (asked, found) in wanted.items():
            if None not in (asked, found) and asked != found:
                raise ValueError(
                    f"{named} are of {name}={found!r}, but {name}={asked!r}. Set "
                    f"{name}={found!r}{remedy}"
                )
        return told

    def _is_pretrained(self):
        return hasattr(self, "pretrained_weights_")

    def _weights(self):
        """Return the weights in use: those that were learned, or those given."""
        if self._is_pretrained():
            self._check_weights(learned=True)
            return self.pretrained_weights_
        if self.weights is None:
            raise NotFittedError(
                f"This {type(self).__name__} has no weights yet. Call fit to pretrain "
                "it on recordings, or give weights."
            )
        from skaudioemb.encoders.byol_weights import find

        self._check_weights()
        return find(self.weights)

    def _encoder_width(self):
        """Return the number of features of the encoder."""
        from skaudioemb.encoders.byol_spec import shape_of

        width, learned = self.n_features, self._is_pretrained()
        if width is None and (learned or self.weights is not None):
            width = self._check_weights(learned).n_features
        return shape_of(self.encoder, width).n_features

    def _resolved_frontend(self):
        """Return the front end that is meant by "auto"."""
        if self.frontend != "auto":
            return self.frontend
        learned = self._is_pretrained()
        if learned or self.weights is not None:
            from skaudioemb.encoders.byol_published import frontend_of

            told = self._check_weights(learned).frontend
            if told is None and self.weights is not None:
                told = frontend_of(self.weights)
            if told is not None:
                return told
        return self._own_frontend

    def _statistics_given(self):
        """Return a pair of numbers given as ``normalize``, or None."""
        if isinstance(self.normalize, str):
            return None
        pair = tuple(self.normalize)
        numbers = all(isinstance(value, Real) for value in pair)
        if len(pair) != 2 or not numbers or not np.isfinite(pair).all() or pair[1] <= 0:
            raise ValueError(
                f"normalize={self.normalize!r} is no pair of a mean and a positive "
                "deviation. Give one, or 'fit', 'clip' or 'weights'."
            )
        return float(pair[0]), float(pair[1])

    def _known_statistics(self):
        """Return mean and deviation as far as they are known, else None and None."""
        fitted = getattr(self, "mean_", None), getattr(self, "std_", None)
        given = self._statistics_given()
        if given is None and self.normalize == "weights" and not self._is_pretrained():
            given = self._stored_statistics()
        return given or fitted

    def _statistics(self):
        """Return mean and deviation for the spec, or "clip"."""
        if self.normalize == "clip":
            return "clip"
        pair = self._known_statistics()
        if None in pair:
            raise NotFittedError(
                f"This {type(self).__name__} does not know the mean and the deviation "
                "of the recordings' log-mel yet. Call fit with recordings, or set "
                "normalize to a pair of numbers or to 'clip'."
            )
        return pair

    def _stored_statistics(self):
        told = None if self.weights is None else self._check_weights()
        if told is None or None in (told.mean, told.std):
            raise ValueError(
                f"normalize='weights', but beside the weights {str(self.weights)!r} no "
                "mean and deviation are stored. Use 'fit', or a pair of numbers."
            )
        return told.mean, told.std

    def _make_scene_spec(self):
        from skaudioemb.encoders.byol_spec import ByolSpec

        return ByolSpec(
            self._weights(),
            self.encoder,
            self._encoder_width(),
            self._resolved_frontend(),
            self._statistics(),
            self.max_seconds,
        )

    def _make_spec(self):
        from skaudioemb.encoders.byol_spec import ByolWindowsSpec

        spec = self._make_scene_spec()
        if self.frames_from == "encoder":
            return spec
        settings = {field.name: getattr(spec, field.name) for field in fields(spec)}
        return ByolWindowsSpec(
            **settings,
            pooling=self._resolved_pooling(spec),
            window=float(self.window),
            hop=float(self.hop),
        )

    def _resolved_pooling(self, spec):
        return spec.shape.aggregation if self.pooling == "auto" else self.pooling

    def _scene_plan(self):
        spec = self._validate(scene=True)
        selection = self._selection(spec)
        pooling = self._resolved_pooling(spec)
        if pooling == "last":
            return spec, LastPlan(spec, self.segments)
        return spec, ScenePlan(spec, pooling, self.segments, selection)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        normalize = self.normalize if isinstance(self.normalize, str) else "given"
        tags.requires_fit = self.weights is None or normalize == "fit"
        return tags
