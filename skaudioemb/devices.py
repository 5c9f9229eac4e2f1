"""Devices, precision, and the encoders that are loaded in this process."""

import threading
from collections import OrderedDict
from contextlib import nullcontext
from typing import NamedTuple

import torch

DTYPES = ("float32", "bfloat16", "float16")
_MAX_LOADED_ENCODERS = 4


class Tally(NamedTuple):
    """Clips asked for, clips run through an encoder, and encoders loaded."""

    asked: int = 0
    run: int = 0
    loaded: int = 0


_lock = threading.RLock()
_tally = Tally()
_encoders = OrderedDict()


def tally():
    """Return the counts of this process since it started.

    Returns
    -------
    tally : Tally
        ``asked``, ``run`` and ``loaded``; the difference of two tallies tells what
        happened between them. Clips that an embedder with ``n_jobs`` runs in worker
        processes are counted too, those of a search with ``n_jobs`` are not.
    """
    return _tally


def count(**increments):
    """Add to the counts of this process."""
    global _tally
    with _lock:
        _tally = Tally(*(a + increments.get(f, 0) for f, a in _tally._asdict().items()))


def resolve_device(device, *, fall_back=False):
    """Return the torch device that ``device`` names; "auto" prefers CUDA.

    Parameters
    ----------
    device : str
        "auto" or a device as torch names it.
    fall_back : bool, default=False
        Whether the CPU stands in for CUDA where there is none.

    Returns
    -------
    device : torch.device

    Raises
    ------
    ValueError
        If there is no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        if fall_back and resolved.type == "cuda" and not torch.cuda.is_available():
            return torch.device("cpu")
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device={device!r} cannot be used here ({str(error).splitlines()[0]}). "
            "Choose 'auto', 'cpu', 'cuda' or 'cuda:<index>'."
        ) from error
    return resolved


def load_encoder(spec, device, dtype):
    """Return the encoder of ``spec``, loading it once per process.

    At most a few encoders stay loaded; the one unused for longest goes first.

    Parameters
    ----------
    spec : EncoderSpec
    device : torch.device
    dtype : {"float32", "bfloat16", "float16"}

    Returns
    -------
    encoder : Encoder
    """
    key = (spec, spec.identity, str(device), dtype)
    with _lock:
        if key not in _encoders:
            while len(_encoders) >= _MAX_LOADED_ENCODERS:
                _encoders.popitem(last=False)
            _encoders[key] = spec.load(device, getattr(torch, dtype)).eval()
            count(loaded=1)
        _encoders.move_to_end(key)
        return _encoders[key]


def clear_encoders():
    """Forget every loaded encoder, so that its memory can be reused."""
    with _lock:
        _encoders.clear()


def full_precision(device, dtype):
    """Keep cuDNN from rounding float32 convolutions to TF32."""
    if device.type != "cuda" or dtype != "float32":
        return nullcontext()
    return torch.backends.cudnn.flags(
        enabled=torch.backends.cudnn.enabled, allow_tf32=False
    )


def is_out_of_memory(error):
    """Tell whether ``error`` says that memory did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    message = str(error).lower()
    return "can't allocate memory" in message or "out of memory" in message


def free_memory():
    """Give cached device memory back before a smaller batch is tried."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
