"""State dicts of BYOL encoders: read, and recognised by their tensors.

A file is a state dict, saved by torch or as safetensors; names may carry a prefix, and
dicts may be nested, as in training checkpoints.
"""

import functools
import re
from hashlib import blake2b

import torch

from skaudioemb.encoders.byol import ENCODERS, FREE_WIDTHS, make_byol_encoder

_COUNTER = "num_batches_tracked"


def family_of(encoder):
    """Return the encoder whose tensors have the same names and shapes."""
    return "cvt" if encoder == "cvt-512" else encoder


def read(path):
    """Read a file of weights and recognise the encoder.

    Parameters
    ----------
    path : Path

    Returns
    -------
    encoder : str
        "cvt" also stands for "cvt-512".
    n_features : int or None
        Width, where the encoder's is free.
    state : dict of str to Tensor
        Under the encoder's own names, float32.

    Raises
    ------
    ValueError
        If it is no file of weights, or not of a known encoder.
    """
    content, names = _load(path), _names_of_tensors()
    for state in _dicts_of_tensors(content):
        # The tensors of one may lie among those of a larger one.
        for encoder in sorted(names, key=lambda name: -len(names[name])):
            own = _own_tensors(state, encoder)
            if own is not None:
                return encoder, *_checked(path, encoder, own)
    found = [str(name) for name in content][:3] if isinstance(content, dict) else []
    raise ValueError(
        f"{str(path)!r} holds no weights of a BYOL encoder"
        + (f" (it begins with {', '.join(found)})" if found else "")
        + f". Known are those of {', '.join(names)}."
    )


def _load(path):
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Which exception a wrong file causes depends on its first bytes.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        reason = re.sub(r"\x1b\[\d*m", "", reason)
        raise ValueError(
            f"{str(path)!r} could not be read as weights ({reason}). Give a state dict "
            "saved by torch.save or as safetensors; files that hold other Python "
            "objects are not loaded, for that would run their code."
        ) from error


def _dicts_of_tensors(content):
    """Yield the dicts of tensors in a checkpoint, outermost first."""
    waiting = [content]
    while waiting:
        content = waiting.pop(0)
        if isinstance(content, dict):
            tensors = {
                name: value
                for name, value in content.items()
                if isinstance(name, str) and isinstance(value, torch.Tensor)
            }
            if tensors:
                yield tensors
            waiting += content.values()


@functools.cache
def _names_of_tensors():
    """Return the names of each encoder's tensors, counters left out."""
    with torch.device("meta"):
        networks = {
            name: make_byol_encoder(name)
            for name in ENCODERS
            if family_of(name) == name
        }
    return {
        name: frozenset(n for n in network.state_dict() if not n.endswith(_COUNTER))
        for name, network in networks.items()
    }


def _own_tensors(state, encoder):
    """Return an encoder's tensors under its own names, None if they are not all here.

    A target network, which training keeps beside the encoder, is not meant. Other
    tensors may lie beside them.
    """
    names = _names_of_tensors()[encoder]
    first = min(names)
    prefixes = [name.removesuffix(first) for name in state if name.endswith(first)]
    for prefix in sorted(prefixes, key=lambda prefix: ("target" in prefix, prefix)):
        if all(f"{prefix}{name}" in state for name in names):
            return {name: state[f"{prefix}{name}"] for name in names}
    return None


def _checked(path, encoder, own):
    """Return the width and the complete state dict, or raise if shapes are wrong."""
    n_features = None
    if encoder in FREE_WIDTHS:
        n_features = len(own["fc.3.weight"])
        if encoder == "audiontt2022":
            n_features += own["fc.0.weight"].shape[1]
    with torch.device("meta"):
        expected = make_byol_encoder(encoder, n_features).state_dict()
    state = {}
    for name, value in expected.items():
        if name.endswith(_COUNTER):
            state[name] = torch.zeros((), dtype=torch.long)
            continue
        if own[name].shape != value.shape:
            raise ValueError(
                f"{name} in {str(path)!r} has the shape {tuple(own[name].shape)}, that "
                f"of {encoder!r} is {tuple(value.shape)}. It is a variant that is not "
                "known here."
            )
        state[name] = own[name].detach().float()
    return n_features, state


def digest_of(state):
    """Return a name for the content of a state dict, counters left out."""
    content = blake2b(digest_size=16)
    for name in sorted(state):
        if not name.endswith(_COUNTER):
            value = state[name].float().contiguous()
            content.update(f"{name}{tuple(value.shape)}".encode())
            content.update(value.numpy())
    return content.hexdigest()
