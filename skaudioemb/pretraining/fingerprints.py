"""What tells one training from another, so that neither goes on from the other's."""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from hashlib import blake2b
from numbers import Integral, Real

import numpy as np
import torch

from skaudioemb.clips import describe, is_segment

# Places of a file or an array that are looked at, and bytes at each place of a file.
_N_FILE_PLACES, _N_BYTES = 5, 256
_N_ARRAY_PLACES = 256
# Parameters of transformers that change nothing of what they give.
_NEUTRAL = frozenset(
    ("n_jobs", "memory", "verbose", "device", "batch_seconds", "on_error")
)
# Columns of hand-made targets whose scale is looked at.
_N_COLUMNS = 16


def plain(value):
    """Return a value in Python's own types.

    Parameters
    ----------
    value : object
        A number, a string, an array, a list, tuple or dict of these; anything else
        is returned as it is.

    Returns
    -------
    value : object
        An array becomes a list.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb.pretraining.fingerprints import plain
    >>> plain({"lr": np.float64(0.5), "gamma": (np.float32(0.25), np.bool_(True))})
    {'lr': 0.5, 'gamma': (0.25, True)}
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return (tuple if isinstance(value, tuple) else list)(map(plain, value))
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    return value


def plain_settings(settings):
    """Return settings whose values are of Python's own types.

    Parameters
    ----------
    settings : dataclass instance

    Returns
    -------
    settings : dataclass instance
    """
    values = {f.name: plain(getattr(settings, f.name)) for f in fields(settings)}
    return replace(settings, **values)


def stated(settings, left_out):
    """Return the settings that a checkpoint states.

    Parameters
    ----------
    settings : dataclass instance
    left_out : collection of str

    Returns
    -------
    stated : dict
    """
    values = plain(asdict(settings))
    return {
        # A pair is the same as a list of two.
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if name not in left_out
    }


def digest_of_state(state):
    """Return a digest of a state dict, wherever its tensors are.

    Parameters
    ----------
    state : dict of str to tensor

    Returns
    -------
    digest : str
    """
    digest = _Digest()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.add(name, str(value.dtype), tuple(value.shape))
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.text()


def digest_of_module(module):
    """Return the kind of a module with a digest of its weights.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    digest : str
    """
    return f"{type(module).__name__} {digest_of_state(module.state_dict())}"


def digest_of_targets(targets):
    """Return the kind of hand-made targets with a digest of what they are.

    Parameters
    ----------
    targets : HandcraftedTargets or None
        Fitted.

    Returns
    -------
    digest : str or None
    """
    if targets is None:
        return None
    digest, transformer = _Digest(), targets.transformer_
    digest.add(describe_transformer(transformer))
    digest.update(np.ascontiguousarray(targets.kept_, np.int64))
    shown = np.linspace(0, len(targets.kept_) - 1, _N_COLUMNS).astype(int)
    for scale in (targets.mean_, targets.std_):
        # Rounded, as the last digits may depend on the machine.
        digest.add(*(f"{value:.3g}" for value in scale[shown]))
    return f"{type(transformer).__name__} {digest.text()}"


def digest_of_clips(clips):
    """Return a digest of recordings, of which no file is decoded.

    A file is told by its name, its size and some of its bytes, so that it may have
    moved to another folder; an array by its shape and some of its samples. Decoders
    alone have to decode. The order counts, as it decides what is trained on when.

    Parameters
    ----------
    clips : sequence of clips
        In any of the forms that :mod:`skaudioemb.audio` lists. What is none of them
        counts with its type alone.

    Returns
    -------
    digest : str

    Examples
    --------
    >>> from skaudioemb.pretraining.fingerprints import digest_of_clips
    >>> one, other = [0.0, 0.5, 0.0], [0.0, 0.25, 0.0]
    >>> digest_of_clips([one, other]) == digest_of_clips([other, one])
    False
    """
    digest = _Digest()
    for index in range(len(clips)):
        _add_clip(digest, clips[index])
    return digest.text()


def describe_transformer(transformer):
    """Return what a transformer is, the same in every process.

    Parameters
    ----------
    transformer : object
        With ``get_params``, as scikit-learn's have it.

    Returns
    -------
    described : str
        Its type and its parameters, those of its parts included, without those that
        change nothing of what it gives.

    Examples
    --------
    >>> from skaudioemb import LogMel
    >>> from skaudioemb.pretraining.fingerprints import describe_transformer
    >>> one, other = LogMel(n_jobs=2), LogMel(batch_seconds=1.0)
    >>> describe_transformer(one) == describe_transformer(other)
    True
    """
    params = sorted(transformer.get_params(deep=True).items())
    kept = [
        f"{name}={_described(value)}"
        for name, value in params
        if name.rpartition("__")[2] not in _NEUTRAL
    ]
    return f"{type(transformer).__name__}({', '.join(kept)})"


def _described(value):
    if hasattr(value, "get_params"):
        # Its parameters have names of their own.
        return type(value).__name__
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_described, value))}]"
    if isinstance(value, Mapping):
        items = (f"{_described(k)}: {_described(v)}" for k, v in value.items())
        return f"{{{', '.join(sorted(items))}}}"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(_described, value)))}}}"
    # An address is another one in every process.
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(plain(value)))


class _Digest:
    """A digest of values one after the other, none of which runs into the next."""

    def __init__(self):
        self._hash = blake2b(digest_size=8)

    def add(self, *values):
        self._hash.update(repr(values).encode("utf-8", "surrogateescape"))

    def update(self, content):
        self._hash.update(content)

    def text(self):
        return self._hash.hexdigest()


def _add_clip(digest, clip):
    if isinstance(clip, str | os.PathLike):
        _add_file(digest, clip)
    elif is_segment(clip):
        bounds = [float(b) if isinstance(b, Real) else b for b in map(plain, clip[1:])]
        if bounds[:1] == [None]:
            bounds[0] = 0.0
        digest.add("segment", *bounds)
        _add_file(digest, clip[0])
    elif isinstance(clip, Mapping):
        _add_dict(digest, clip)
    elif hasattr(clip, "get_all_samples"):
        _add_decoder(digest, clip)
    else:
        _add_array(digest, clip)


def _add_dict(digest, clip):
    content, path = clip.get("bytes"), clip.get("path")
    if clip.get("array") is not None:
        digest.add("rate", plain(clip.get("sampling_rate")))
        _add_array(digest, clip["array"])
    elif isinstance(content, bytes | bytearray | memoryview):
        digest.add("bytes", len(content))
        for start in _places(len(content)):
            digest.update(bytes(content[start : start + _N_BYTES]))
    elif isinstance(path, str | os.PathLike):
        _add_file(digest, path)
    else:
        digest.add(describe(clip))


def _add_decoder(digest, decoder):
    try:
        decoded = decoder.get_all_samples()
    except Exception as error:
        # Whatever a decoder raises, who reads the clip says so.
        digest.add("no clip", type(error).__name__)
        return
    digest.add("decoder", plain(decoded.sample_rate))
    _add_array(digest, decoded.data)


def _add_file(digest, path):
    path = os.fspath(path)
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            digest.add("file", os.path.basename(path), size)
            for start in _places(size):
                file.seek(start)
                digest.update(file.read(_N_BYTES))
    except (OSError, ValueError):
        # Whoever reads it says why it cannot be read.
        digest.add("no file", path)


def _places(size):
    return np.linspace(0, max(0, size - _N_BYTES), _N_FILE_PLACES).astype(int).tolist()


def _add_array(digest, clip):
    try:
        array = clip if hasattr(clip, "shape") else np.asarray(clip)
        flat = array.reshape(-1)
        n_places = min(len(flat), _N_ARRAY_PLACES)
        samples = flat[np.linspace(0, len(flat) - 1, n_places).astype(int)]
        samples = samples.detach().cpu() if hasattr(samples, "detach") else samples
        samples = np.ascontiguousarray(samples, np.float64)
    except (AttributeError, IndexError, TypeError, ValueError):
        digest.add("no clip", type(clip).__name__)
        return
    digest.add("array", tuple(array.shape))
    digest.update(samples)
