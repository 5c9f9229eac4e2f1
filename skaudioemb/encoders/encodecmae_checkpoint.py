"""The published files of EncodecMAE, of both generations, read by names and shapes.

A file is a dictionary with a ``state_dict``; the text of a configuration may lie
beside it and is never looked at. Only tensors are unpickled.
"""

import functools
import pickle
import re
import zipfile
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import torch

from skaudioemb.devices import is_out_of_memory
from skaudioemb.encoders import checkpoint as files
from skaudioemb.encoders.encodecmae_frontends import HOP_SAMPLES, MelFrontEnd
from skaudioemb.encoders.encodecmae_network import FrameEncoder, Size

# How transformers names the two parts of a weight under weight norm.
NORM = "parametrizations.weight.original"
_STACK = "visible_encoder."
_HASHED_AT_ONCE = 1 << 20


class Names(NamedTuple):
    """Where a generation keeps what an embedding needs."""

    project: str
    scale: str
    codec: str


NAMES = {
    1: Names("feat_projector", "positional_encoder.scale", "wav_encoder.model.model."),
    2: Names(
        "wav_encoder.post_net",
        "masker.positional_encoder.scale",
        "wav_encoder.encoder.model.model.",
    ),
}


class Layout(NamedTuple):
    """What the shapes in a file tell.

    Attributes
    ----------
    generation : {1, 2}
    front_end : {"codec", "mel"}
    n_inputs : int
        Width of the front end's frames.
    n_layers, n_features, n_hidden : int
        As in :class:`~skaudioemb.encoders.encodecmae_network.Size`.
    n_attended : int
        Width of all queries together.
    share_feedforward : bool
        Whether all layers have the same feed-forward network.
    hop : int
        Samples of one frame of the codec, 320 for the other front end.
    """

    generation: int
    front_end: str
    n_inputs: int
    n_layers: int
    n_features: int
    n_hidden: int
    n_attended: int
    share_feedforward: bool
    hop: int

    def size(self, n_heads):
        """Return the Size with a number of heads, which no shape tells.

        Raises
        ------
        ValueError
            If the queries cannot be those of so many heads.
        """
        size = Size(self.n_layers, self.n_features, n_heads, self.n_hidden)
        if size.n_attended != self.n_attended:
            raise ValueError(
                f"n_heads={n_heads} does not fit weights whose queries have "
                f"{self.n_attended} components for {self.n_features} features: "
                f"{n_heads} heads would have {size.n_attended}. All published models "
                "have 12."
            )
        return size


def content_of(path):
    """Return a name for a file's content, computed once as long as it stays."""
    return _digest(*files.stamp_of(path))


@functools.lru_cache(maxsize=64)
def _digest(path, size, mtime_ns):
    content = blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(_HASHED_AT_ONCE):
            content.update(block)
    return content.hexdigest()


def load_state(path):
    """Return the tensors in a file by their names; nothing else is unpickled.

    They stay in the file until they are used, where its format allows it.

    Raises
    ------
    ValueError
        If the file is damaged, or holds more than tensors and plain values.
    """
    try:
        content = _read(path)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name} holds more than tensors and plain values, or is no file of "
            "weights. Unpickling the rest could run code, so it is left alone. Give a "
            "file as it was published."
        ) from error
    except (RuntimeError, EOFError) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"{path.name} cannot be read ({type(error).__name__}): it is damaged, or "
            "was not downloaded whole. Get it again."
        ) from error
    state = content if isinstance(content, dict) else {}
    for name in ("state_dict", "model", "state_dict"):
        state = state[name] if isinstance(state.get(name), dict) else state
    tensors = {k: v.detach() for k, v in state.items() if isinstance(v, torch.Tensor)}
    return _without_prefix(tensors)


def _without_prefix(state):
    """Return tensors without what a wrapper put before the names of one model.

    Names as they were published go first; of two wrapped models none is picked.
    """
    found = []
    for names in NAMES.values():
        known = f"{names.project}.weight"
        prefixes = [name.removesuffix(known) for name in state if name.endswith(known)]
        found += [prefix for prefix in prefixes if prefix + names.scale in state]
    if "" in found or len(found) != 1:
        return state
    return under(state, found[0])


def _read(path):
    # Only archives can be mapped; the format before them is read whole.
    is_archive = zipfile.is_zipfile(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)


def describe(path):
    """Return the :class:`Layout` of a file, computed once as long as it stays.

    Raises
    ------
    ValueError
        If the file is none of EncodecMAE's.
    """
    return _describe_once(*files.stamp_of(path))


@functools.lru_cache(maxsize=64)
def _describe_once(path, size, mtime_ns):
    path = Path(path)
    state = load_state(path)
    generation = 1 if f"{NAMES[1].project}.weight" in state else 2
    names = NAMES[generation]
    first = f"{_STACK}encoder_layers.0."
    needed = {
        "project": f"{names.project}.weight",
        "scale": names.scale,
        "queries": f"{first}att_layer.wq.weight",
        "hidden": f"{first}ff_layer.0.weight",
    }
    missing = [name for name in needed.values() if name not in state]
    if missing:
        raise ValueError(
            f"{path.name} does not hold the weights of an EncodecMAE: it lacks "
            f"{', '.join(missing)}. Give a file of 'lpepino/encodecmae-base' or its "
            "kin, or one with the same names."
        )
    n_features, n_inputs = state[needed["project"]].shape
    has_codec = any(name.startswith(names.codec) for name in state)
    if not has_codec and n_inputs != MelFrontEnd.n_features:
        raise ValueError(
            f"{path.name} has no codec inside, and its {n_inputs} inputs are not the "
            f"{MelFrontEnd.n_features} mel bands of the other front end. Give the "
            "whole file."
        )
    return Layout(
        generation,
        "codec" if has_codec else "mel",
        n_inputs,
        _n_layers(state),
        n_features,
        len(state[needed["hidden"]]),
        len(state[needed["queries"]]),
        _is_shared(state),
        hop_of(_codec(state, names)) if has_codec else HOP_SAMPLES,
    )


def load_frame_encoder(path, n_heads):
    """Return the :class:`FrameEncoder` with a file's weights, float32.

    Raises
    ------
    ValueError
        If weights are missing, or do not fit together.
    """
    layout = describe(path)
    state, names = load_state(path), NAMES[layout.generation]
    size = layout.size(n_heads)
    with torch.device("meta"):
        encoder = FrameEncoder(layout.n_inputs, size, layout.share_feedforward)
    renamed = {"scale": state[names.scale]}
    for prefix, ours in ((f"{names.project}.", "project."), (_STACK, "stack.")):
        for name, tensor in under(state, prefix).items():
            renamed[ours + name] = tensor
    wanted = encoder.state_dict().keys()
    kept = {name: tensor for name, tensor in renamed.items() if name in wanted}
    try:
        encoder.load_state_dict(_copied(kept), assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(
            f"The weights in {path.name} do not make an EncodecMAE ({reason}). Get the "
            "file again."
        ) from error
    return encoder


def load_codec(path):
    """Return the codec's tensors in a file, by the names that transformers uses."""
    return _copied(_codec(load_state(path), NAMES[describe(path).generation]))


def _codec(state, names):
    own = under(state, names.codec)
    return {transformers_name(name): tensor for name, tensor in own.items()}


def _copied(state):
    """Return the tensors in memory, float32: the file may be written over in use.

    What several names share is copied once.
    """
    copies = {}
    for tensor in state.values():
        place = tensor.data_ptr(), tensor.shape
        if place not in copies:
            copies[place] = tensor.to(torch.float32, copy=True)
    return {name: copies[t.data_ptr(), t.shape] for name, t in state.items()}


def transformers_name(name):
    """Return the name in transformers' EncodecEncoder of a tensor of the original.

    Examples
    --------
    >>> from skaudioemb.encoders.encodecmae_checkpoint import transformers_name
    >>> transformers_name("1.block.3.conv.conv.weight_g")
    'layers.1.block.3.conv.parametrizations.weight.original0'
    """
    name = name.replace("conv.conv.", "conv.")
    name = name.replace("weight_g", "parametrizations.weight.original0")
    return "layers." + name.replace("weight_v", "parametrizations.weight.original1")


def _n_layers(state):
    found = (re.match(rf"{_STACK}encoder_layers\.(\d+)\.", name) for name in state)
    return 1 + max(int(match[1]) for match in found if match)


def _is_shared(state):
    """Tell whether the feed-forward networks of all layers are one."""
    first, *others = (
        under(state, f"{_STACK}encoder_layers.{layer}.ff_layer.")
        for layer in range(_n_layers(state))
    )
    return all(
        own.keys() == first.keys()
        and all(torch.equal(own[name], first[name]) for name in own)
        for own in others
    )


def under(state, prefix):
    """Return the tensors whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def by_layer(codec):
    """Return {layer: its tensors} of a codec, in the order of the layers."""
    layers = {}
    for name, tensor in codec.items():
        _, layer, own = name.split(".", 2)
        layers.setdefault(int(layer), {})[own] = tensor
    return dict(sorted(layers.items()))


def hop_of(codec):
    """Return the samples of one frame, from the shapes of a codec's tensors.

    Convolutions with a stride are twice as wide as it, and lie between the first
    layer and the recurrent one.
    """
    hop = 1
    for layer, own in by_layer(codec).items():
        if under(own, "lstm."):
            break
        if layer > 0 and f"conv.{NORM}1" in own:
            hop *= own[f"conv.{NORM}1"].shape[2] // 2
    return hop
