"""What EncodecMAE learns, where its weights come from, and how it passes them on."""

import os
from dataclasses import fields
from numbers import Integral, Real

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import Interval, StrOptions

from skaudioemb import devices
from skaudioemb.embedders.base import Embedder
from skaudioemb.embedders.sharing import (
    SharedWeights,
    check_unchanged,
    seed_of,
    unchanged_on_failure,
)
from skaudioemb.summaries import resolve_layers

_COUNT = Interval(Integral, 1, None, closed="left")
_POSITIVE = Interval(Real, 0, None, closed="neither")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_SHARE = Interval(Real, 0, 1, closed="both")


class EncodecMAELearning(SharedWeights, Embedder):
    """Base of EncodecMAE: everything but its parameters' names and words."""

    _parameter_constraints: dict = {
        **Embedder._parameter_constraints,
        "checkpoint": [str, os.PathLike, None],
        "revision": [str, None],
        "n_heads": [_COUNT, None],
        "size": [StrOptions({"small", "base", "large"}), dict],
        "share_feedforward": ["boolean"],
        "front_end": [StrOptions({"codec", "mel"})],
        "codec": [str, os.PathLike],
        "random_state": ["random_state"],
        "stream": [StrOptions({"combined", "normed", "residual"})],
        "pooling": [StrOptions(set(Embedder._poolings))],
        "warm_start": ["boolean"],
        "max_epochs": [Interval(Integral, 0, None, closed="left")],
        "batch_size": [_COUNT],
        "accumulate": [_COUNT],
        "lr": [_POSITIVE],
        "weight_decay": [_NOT_NEGATIVE],
        "crop_seconds": [_POSITIVE],
        "targets": [StrOptions({"codec", "mel"})],
        "n_codebooks": [_COUNT],
        "n_codes": [Interval(Integral, 2, None, closed="left")],
        "gamma": [StrOptions({"auto", "uniform"}), "array-like"],
        "delta": [_SHARE],
        "mask_share": [Interval(Real, 0, 1, closed="neither")],
        "mask_length": [_COUNT],
        "mask_token": [StrOptions({"zeros", "learned"})],
        "n_decoder_layers": [_COUNT],
        "count_padding": ["boolean"],
        "loss_mean": [StrOptions({"batch", "clip"})],
        "self_train": ["boolean"],
        "self_train_epochs": [_COUNT, None],
        "n_clusters": [_COUNT],
        "n_kmeans_frames": [_COUNT],
        "keep_targets": ["boolean"],
        "teacher_stream": [StrOptions({"normed", "combined"})],
        "checkpoint_dir": [str, os.PathLike, None],
        "n_threads": [_COUNT, None],
        "compile": ["boolean"],
    }

    def fit(self, X, y=None):
        """Pretrain on recordings where there is no checkpoint; else check parameters.

        With ``checkpoint`` and without ``warm_start`` nothing is trained, nor with
        ``max_epochs=0``.

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
            If the checkpoint or the codec cannot be found.
        AudioError
            At the first bad clip of a training if ``on_error="raise"``.
        FloatingPointError
            If the training diverges.
        """
        self._validate_params()
        with unchanged_on_failure(self):
            if not self.warm_start:
                self._forget()
            if self._learns():
                self._pretrain(self._check_clips(X, reset=True))
            elif self.checkpoint is None and not self._is_pretrained():
                self.seed_ = self._seed(self.checkpoint_dir)
            return super().fit(X)

    def partial_fit(self, X, y=None):
        """Pretrain for one more epoch on X, from the weights that there are.

        What :meth:`fit` would leave as it is, this leaves too.

        Parameters
        ----------
        X : sequence of clips or array-like of shape (n_clips, n_samples)
            Recordings.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The embedder. Decoder and optimiser are kept as ``training_state_``.
            Self-training is no part of it, nor are checkpoints. After :meth:`fit`,
            which keeps none, the first call begins with a new decoder and a new
            ``history_``.

        Raises
        ------
        ValueError
            If parameters are others than in earlier calls that decide what networks
            and targets are like.
        """
        self._validate_params()
        with unchanged_on_failure(self):
            X = self._check_clips(X, reset=not hasattr(self, "n_features_in_"))
            if self._learns():
                self._pretrain(X, True)
            elif self.checkpoint is None:
                self.seed_ = self._seed()
            return super().fit(X)

    def save_weights(self, path):
        """Write the encoder's weights, and those of a codec that it hears.

        Weights of a published checkpoint are written in the same form.

        Parameters
        ----------
        path : str or path-like
            A folder, which is made, for ``model.safetensors`` and ``config.json``; or
            a file that ends in .safetensors, with a .json of the same name beside it.
            Both can be given as ``checkpoint``.

        Returns
        -------
        files : list of Path
            The two files.

        Raises
        ------
        NotFittedError
            If there are no weights yet.
        """
        from skaudioemb.encoders.encodecmae_pretrained import weights_of
        from skaudioemb.encoders.encodecmae_weights import save

        self._validate_params()
        return save(path, weights_of(self._make_spec()))

    def _forget(self):
        learned = ("pretrained_weights_", "history_", "training_state_", "seed_")
        for name in (*learned, "_learned_with"):
            vars(self).pop(name, None)

    def _learns(self):
        """Tell whether ``fit`` trains."""
        return self.max_epochs > 0 and (self.checkpoint is None or self.warm_start)

    def _is_pretrained(self):
        return hasattr(self, "pretrained_weights_")

    def _make_spec(self):
        if not self._is_pretrained() and self._needs_training():
            raise NotFittedError(
                f"This {type(self).__name__} has no weights yet. Call fit to pretrain "
                "it on recordings, give a checkpoint, or set max_epochs=0 for random "
                "weights."
            )
        return self._present_spec()

    def _needs_training(self):
        return self.checkpoint is None and (self.max_epochs > 0 or self._is_unseeded())

    def _is_unseeded(self):
        """Tell whether random weights are still to be drawn."""
        return not isinstance(self.random_state, Integral) and not hasattr(
            self, "seed_"
        )

    def _present_spec(self):
        """Return the spec of what there is, a training's begin if need be."""
        from skaudioemb.encoders.encodecmae import RandomEncodecMAESpec
        from skaudioemb.encoders.encodecmae_network import make_size
        from skaudioemb.encoders.encodecmae_pretrained import (
            PretrainedEncodecMAESpec,
            make_checkpoint_spec,
        )

        if self._is_pretrained():
            return PretrainedEncodecMAESpec(self.pretrained_weights_, self.stream)
        if self.checkpoint is not None:
            return make_checkpoint_spec(
                os.fspath(self.checkpoint), self.revision, self.n_heads, self.stream
            )
        return RandomEncodecMAESpec(
            make_size(self.size),
            self.front_end,
            os.fspath(self.codec),
            self._seed(),
            self.stream,
            bool(self.share_feedforward),
        )

    def _seed(self, folder=None):
        """Return the seed of weights and training; a number is its own."""
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        if hasattr(self, "seed_"):
            return self.seed_
        return seed_of(self.random_state, folder)

    def _pretrain(self, X, once=False):
        """Train the encoder; for one epoch from what there is if ``once``."""
        import torch

        from skaudioemb.encoders.encodecmae_pretrained import input_heard
        from skaudioemb.encoders.encodecmae_weights import HeldWeights
        from skaudioemb.pretraining.encodecmae import pretrain_encodecmae

        self.seed_ = self._seed(None if once else self.checkpoint_dir)
        if self._is_pretrained():
            remedy = "Set them back, or call fit without warm_start."
            check_unchanged(self._learned_with, self._encoder_parameters(), remedy)
        spec, codec = self._load_codec()
        resolve_layers(self.layers, spec.n_layers)
        state = self._state_to_go_on_from() if once else None
        result = pretrain_encodecmae(
            spec.network(),
            spec.load_front_end(torch.device("cpu")),
            X,
            self._training_settings(once, state),
            codec=codec,
            state=state,
        )
        self.pretrained_weights_ = HeldWeights.of(
            result.state_dict, spec.size, input_heard(spec)
        )
        self.history_ = result.history
        self._learned_with = self._encoder_parameters()
        vars(self).pop("training_state_", None)
        if once:
            parameters = self._training_parameters()
            self.training_state_ = {**result.state, "parameters": parameters}

    def _encoder_parameters(self):
        """Return the parameters that the encoder is made by, if it is made here."""
        from skaudioemb.encoders.encodecmae_network import make_size

        if self.checkpoint is not None:
            return {}
        told = {
            "size": make_size(self.size)._asdict(),
            "share_feedforward": bool(self.share_feedforward),
            "front_end": self.front_end,
        }
        if self.front_end == "codec":
            told["codec"] = os.fspath(self.codec)
        return told

    def _training_parameters(self):
        """Return the parameters that decide decoder and targets."""
        decoder = ("share_feedforward", "n_decoder_layers", "mask_token")
        told = {name: getattr(self, name) for name in (*decoder, "n_codebooks")}
        told |= {"targets": self.targets, "gamma": self._plain_gamma()}
        if self.targets == "mel":
            return {**told, "n_codes": self.n_codes}
        return {**told, "codec": os.fspath(self.codec)}

    def _state_to_go_on_from(self):
        state = getattr(self, "training_state_", None)
        if state is not None:
            remedy = "partial_fit needs the same; set them back, or call fit."
            check_unchanged(state["parameters"], self._training_parameters(), remedy)
        return state

    def _plain_gamma(self):
        if isinstance(self.gamma, str):
            return self.gamma
        weights = np.asarray(self.gamma)
        good = weights.ndim == 1 and weights.dtype.kind in "iuf"
        if not good or (weights < 0).any() or not 0 < weights.sum() < np.inf:
            raise ValueError(
                f"gamma={self.gamma!r} are no weights of codebooks. Give one number "
                f"for each of n_codebooks={self.n_codebooks}, none negative and not "
                "all 0, or 'auto' or 'uniform'."
            )
        return tuple(map(float, weights))

    def _load_codec(self):
        """Return the spec to start from, and the codec whose codes are targets."""
        from skaudioemb.encoders.encodecmae_inputs import load_target_codec

        codec = os.fspath(self.codec)
        try:
            spec = self._present_spec()
            # An unknown codec shows itself here, whether heard or predicted.
            _ = spec.sample_rate
            return spec, load_target_codec(codec) if self.targets == "codec" else None
        except OSError as error:
            if self.checkpoint is not None and self.targets != "codec":
                raise
            raise OSError(
                f"Pretraining with front_end={self.front_end!r} and "
                f"targets={self.targets!r} needs codec={codec!r}, which cannot be "
                f"had. {error} front_end='mel' with targets='mel' needs no codec."
            ) from error

    def _training_settings(self, once, state):
        from skaudioemb.pretraining.encodecmae import EncodecMAESettings

        names = {field.name for field in fields(EncodecMAESettings)}
        params = {k: v for k, v in self.get_params(deep=False).items() if k in names}
        params["seed"] = self.seed_
        params["device"] = str(devices.resolve_device(self.device))
        params["gamma"] = self._plain_gamma()
        if self.dtype == "float16":
            # Gradients would underflow in it.
            params["dtype"] = "float32"
        if once:
            done = 0 if state is None else len(self.history_)
            params |= {"max_epochs": done + 1, "checkpoint_dir": None}
            params |= {"self_train": False}
        return EncodecMAESettings(**params)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = self._needs_training()
        return tags
