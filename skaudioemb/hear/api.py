"""HEAR's common API: our embedders as modules that any HEAR tool loads.

A module speaks that API if it has ``load_model(model_file_path="", **options)``,
``get_timestamp_embeddings(audio, model)`` and ``get_scene_embeddings(audio, model)``.
:mod:`skaudioemb.hear.modules` holds one for every preset::

    python -m heareval.embeddings.runner skaudioemb.hear.modules.fusion_cat_xwc

:func:`as_module` and :func:`write_module` make others, :func:`validate` checks any.
For the other way, see :class:`skaudioemb.HEARModel`.

References
----------
J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations", PMLR 176, 2022,
section 2; the API is at https://hearbenchmark.com/hear-api.html.
"""

import os
import sys
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from torch import nn

from skaudioemb import __version__, make_embedder
from skaudioemb.hear.api_checks import SAMPLE_RATES, Report, validate
from skaudioemb.hear.api_files import check_source, write_module

# Seconds that two steps of one hop may differ by.
_JITTER = 1e-4

__all__ = ["Report", "as_module", "functions_of", "validate", "write_module"]


def as_module(embedder, name=None):
    """Return a module through which any HEAR tool can use an embedder.

    Parameters
    ----------
    embedder : Embedder or Fusion or str
        What computes; or the name of a preset. Its ``sample_rate``, in Hz, becomes the
        model's: the rate of the audio that tools hand over.
    name : str or None, default=None
        Name under which ``import`` finds the module from now on, in this process.
        None registers nothing.

    Returns
    -------
    module : module
        With ``load_model``, ``get_timestamp_embeddings`` and ``get_scene_embeddings``;
        see :func:`functions_of`.

    Raises
    ------
    TypeError
        If it is no embedder.
    ValueError
        If there is no such preset, or another module has the name.

    Examples
    --------
    >>> import torch
    >>> from skaudioemb import LogMel
    >>> from skaudioemb.hear.api import as_module
    >>> module = as_module(LogMel(hop=0.05))
    >>> model = module.load_model()
    >>> model.scene_embedding_size, model.timestamp_embedding_size
    (128, 64)
    >>> audio = torch.zeros(2, 16000)
    >>> embeddings, timestamps = module.get_timestamp_embeddings(audio, model)
    >>> embeddings.shape, timestamps[0, :3]
    (torch.Size([2, 21, 64]), tensor([  0.,  50., 100.]))
    """
    known = sys.modules.get(name) if name is not None else None
    if known is not None and not isinstance(known, _EmbedderModule):
        raise ValueError(
            f"name={name!r} is the name of another module. Choose one of your own."
        )
    module = _EmbedderModule(embedder, name)
    if name is not None:
        sys.modules[name] = module
    return module


class _EmbedderModule(ModuleType):
    """A module that is made of an embedder; copies and pickles are made of it too."""

    def __init__(self, embedder, name=None):
        kind = embedder if isinstance(embedder, str) else type(embedder).__name__
        super().__init__(
            name or f"skaudioemb_hear_{kind.lower()}",
            "An embedder of skaudioemb that speaks HEAR's common API.",
        )
        self._source = embedder, name
        self.load_model, self.get_timestamp_embeddings, self.get_scene_embeddings = (
            functions_of(embedder)
        )

    def __reduce__(self):
        return as_module, self._source

    def __deepcopy__(self, memo):
        return self

    @cached_property
    def __version__(self):
        """Names the numbers, so that stores tell embedders apart."""
        embedder = self._source[0]
        content = blake2b(digest_size=8)
        content.update((embedder if isinstance(embedder, str) else "").encode())
        if isinstance(embedder, BaseEstimator):
            for name, value in sorted(embedder.get_params(deep=True).items()):
                content.update(f"{name}={value!r}".encode() + _content_of(value))
        return f"{__version__}+{content.hexdigest()}"


def _content_of(value):
    """Return a name for the content of a folder that holds a checkpoint."""
    from skaudioemb.encoders.checkpoint import content_of

    if isinstance(value, str | os.PathLike) and Path(value, "config.json").is_file():
        return content_of(Path(value)).encode()
    return b""


def functions_of(embedder):
    """Return the three functions of HEAR's common API for an embedder.

    A module that assigns them speaks the API. Options of ``load_model`` are parameters
    of the embedder, as in ``heareval --model-options '{"layers": "last"}'``; for a
    preset ``fidelity`` is one too. ``model_file_path`` is the checkpoint of an embedder
    that has one.

    The model is a ``torch.nn.Module``. Its work is done on the device that it was
    moved to, and embeddings are returned there.

    Parameters
    ----------
    embedder : Embedder or Fusion or str
        What computes; or the name of a preset.

    Returns
    -------
    load_model, get_timestamp_embeddings, get_scene_embeddings : callable

    Raises
    ------
    TypeError
        If it is no embedder.
    ValueError
        If there is no such preset.
    """
    check_source(embedder)

    def load_model(model_file_path="", **options):
        return EmbedderModel(_configured(embedder, model_file_path, options))

    return load_model, get_timestamp_embeddings, get_scene_embeddings


def get_timestamp_embeddings(audio, model):
    """Return frames and the milliseconds at which they lie.

    Parameters
    ----------
    audio : Tensor of shape (n_sounds, n_samples)
        Mono audio in [-1, 1] at ``model.sample_rate``.
    model : EmbedderModel

    Returns
    -------
    embeddings : Tensor of shape (n_sounds, n_frames, timestamp_embedding_size), float32
    timestamps : Tensor of shape (n_sounds, n_frames), float32
        Centres of the frames in milliseconds. HEAR wants them at equal distances: a
        last frame that the sounds do not fill, as codecs have it, is left out.

    Raises
    ------
    ValueError
        If ``audio`` has another shape, or holds NaN or infinity.
    """
    frames = model.prepared().frames(_rows_of(audio))
    values = torch.from_numpy(np.stack([values for values, _ in frames]))
    times = np.stack([times for _, times in frames])
    steps = np.diff(times[0])
    if len(steps) > 1 and steps[-1] < steps[0] - _JITTER:
        values, times = values[:, :-1], times[:, :-1]
    # In float64, and to float32 only once they are milliseconds.
    timestamps = torch.from_numpy((times * 1000).astype(np.float32))
    device = model.place.device
    return values.to(device), timestamps.to(device)


def get_scene_embeddings(audio, model):
    """Return one vector a sound.

    Parameters
    ----------
    audio : Tensor of shape (n_sounds, n_samples)
        Mono audio in [-1, 1] at ``model.sample_rate``.
    model : EmbedderModel

    Returns
    -------
    embeddings : Tensor of shape (n_sounds, scene_embedding_size), float32

    Raises
    ------
    ValueError
        If ``audio`` has another shape, or holds NaN or infinity.
    """
    embeddings = model.prepared().transform(_rows_of(audio))
    return torch.from_numpy(np.asarray(embeddings)).to(model.place.device)


class EmbedderModel(nn.Module):
    """An embedder as the model of HEAR's common API.

    Parameters
    ----------
    embedder : Embedder or Fusion

    Attributes
    ----------
    sample_rate : int
        Rate of audio in Hz.
    scene_embedding_size, timestamp_embedding_size : int
        Widths of a scene vector and of a frame.

    Raises
    ------
    ValueError
        If a parameter is not valid, the members of a fusion differ in their rates, or
        HEAR has no audio at that rate.
    OSError
        If a checkpoint cannot be found.
    """

    def __init__(self, embedder):
        super().__init__()
        self.embedder = _set_everywhere(
            clone(embedder), n_jobs=1, verbose=0, on_error="raise"
        )
        self.sample_rate = _rate_of(embedder)
        self.scene_embedding_size = self._width()
        self.timestamp_embedding_size = self._width(pooling="mean", segments=None)
        # Follows the model from device to device.
        self.register_buffer("place", torch.empty(0), persistent=False)

    def prepared(self):
        """Return the embedder, set to work where the model is."""
        return _set_everywhere(self.embedder, device=str(self.place.device))

    def _width(self, **params):
        twin = clone(self.embedder).set_params(**params)
        twin.fit([np.zeros(self.sample_rate, np.float32)])
        return len(twin.get_feature_names_out())


def _configured(embedder, model_file_path, options):
    """Return a new embedder with the options of ``load_model``."""
    if not isinstance(embedder, str):
        embedder = clone(embedder).set_params(**options)
    else:
        embedder = make_embedder(embedder, **options)
    if model_file_path:
        if "checkpoint" not in embedder.get_params(deep=False):
            raise ValueError(
                f"model_file_path={model_file_path!r} is given, but "
                f"{type(embedder).__name__} has no checkpoint of its own. Leave it "
                "out; the checkpoints of a fusion's members are options, as "
                '{"hubert__checkpoint": "folder"}.'
            )
        embedder.set_params(checkpoint=model_file_path)
    return embedder


def _set_everywhere(embedder, **params):
    """Set parameters of an embedder, or of all members of a fusion."""
    for name, value in params.items():
        known = embedder.get_params(deep=True)
        keys = [key for key in known if key.rpartition("__")[2] == name]
        embedder.set_params(**dict.fromkeys(keys, value))
    return embedder


def _rate_of(embedder):
    params = embedder.get_params(deep=True)
    rates = {
        int(value)
        for key, value in params.items()
        if key.rpartition("__")[2] == "sample_rate"
    }
    if len(rates) != 1:
        raise ValueError(
            f"The members of the fusion have sample_rate {sorted(rates)}. HEAR hands "
            "over audio at one rate: give them the same."
        )
    (rate,) = rates
    if rate not in SAMPLE_RATES:
        raise ValueError(
            f"sample_rate={rate}, but HEAR has audio at {SAMPLE_RATES} Hz. Choose one "
            "of these; the embedder resamples."
        )
    return rate


def _rows_of(audio):
    if getattr(audio, "ndim", None) != 2:
        shape = tuple(audio.shape) if hasattr(audio, "shape") else type(audio).__name__
        raise ValueError(
            f"audio is {shape}. HEAR's API hands over a Tensor of shape (n_sounds, "
            "n_samples)."
        )
    return list(torch.as_tensor(audio).detach().cpu().float().numpy())
