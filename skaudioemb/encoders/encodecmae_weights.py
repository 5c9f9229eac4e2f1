"""Weights of EncodecMAE that were learned here: held, saved, and found again.

A file of theirs is whole: a codec that the encoder hears lies in it too, and so does
what tensors do not tell, as the number of heads. A JSON file beside it tells that too.
"""

import functools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from skaudioemb.encoders import saved_weights
from skaudioemb.encoders.byol_tensors import digest_of
from skaudioemb.encoders.checkpoint import stamp_of
from skaudioemb.encoders.encodecmae_files import WEIGHTS_FILE
from skaudioemb.encoders.encodecmae_inputs import (
    CODEC_PREFIX,
    FRONT_ENDS,
    FileCodec,
    MelInput,
)
from skaudioemb.encoders.encodecmae_network import FrameEncoder, Size
from skaudioemb.encoders.saved_weights import read

FORMAT = "skaudioemb-encodecmae"
VERSION = 1
# What a layer has in common with the first one where all share it.
_REPEATED = re.compile(r"(stack\.encoder_layers)\.[1-9]\d*(\.ff_layer\..+)")


@dataclass(frozen=True)
class HeldWeights:
    """An encoder's weights in memory, as pretraining leaves them.

    Attributes
    ----------
    digest : str
        Names their content.
    size : Size
    hears : MelInput, CheckpointCodec or FileCodec
    """

    digest: str
    size: Size
    hears: object
    _state: dict = field(compare=False, repr=False)

    @classmethod
    def of(cls, state, size, hears):
        """Return the weights of a FrameEncoder's state dict, on the CPU."""
        state = {name: value.detach().cpu() for name, value in state.items()}
        state = {name: value.clone() for name, value in _compact(state).items()}
        return cls(digest_of(state), size, hears, state)

    def state(self):
        """Return the tensors, what layers share once."""
        return self._state

    def network(self):
        """Return a :class:`FrameEncoder` with the weights."""
        return _make_network(self._state, self.size)


@dataclass(frozen=True)
class SavedWeights:
    """An encoder's weights in a file that :func:`save` wrote.

    Attributes
    ----------
    path : str

    Raises
    ------
    ValueError
        By any attribute, if the file or the one beside it is not as it was written.
    """

    path: str

    @property
    def _told(self):
        path = Path(self.path)
        sidecar = saved_weights.sidecar_of(path)
        stamp = stamp_of(sidecar) if sidecar.is_file() else None
        return _describe(stamp_of(path), stamp)

    @property
    def digest(self):
        return self._told.digest

    @property
    def size(self):
        """Measures of the stack."""
        return self._told.size

    @property
    def hears(self):
        """What the encoder hears."""
        if self._told.front_end == "mel":
            return MelInput()
        return FileCodec(self.path, self._told.sample_rate)

    def state(self):
        """Return the encoder's tensors, what layers share once."""
        return _encoder_of(read(Path(self.path)))

    def network(self):
        """Return a :class:`FrameEncoder` with the weights."""
        try:
            return _make_network(self.state(), self.size)
        except (RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ValueError(
                f"The weights in {self.path!r} are not those of {self.size} as the "
                f"file beside it tells ({reason}). Save them again."
            ) from error


class _Told(NamedTuple):
    size: Size
    front_end: str
    sample_rate: int
    digest: str


@functools.lru_cache(maxsize=64)
def _describe(stamp, sidecar_stamp):
    path = Path(stamp[0])
    content, source = saved_weights.read_told(path)
    if content is None:
        raise ValueError(
            f"Beside {str(path)!r} there is no {saved_weights.sidecar_of(path).name}, "
            "which tells the number of heads, nor does the file itself tell it. Keep "
            "the two files that save_weights writes together."
        )
    numbers = [content.get(name) for name in (*Size._fields, "sample_rate")]
    if (
        content.get("format") != FORMAT
        or content.get("front_end") not in FRONT_ENDS
        or not all(type(number) is int and number > 0 for number in numbers)
    ):
        raise ValueError(
            f"{str(source)!r} does not tell of an EncodecMAE as save_weights writes "
            f"it. Give a folder or file of EncodecMAE's, or a published "
            f"{WEIGHTS_FILE}."
        )
    saved_weights.check_version(source, content, VERSION)
    state = read(path)
    own = _encoder_of(state)
    if (len(own) < len(state)) != (content["front_end"] == "codec"):
        holds = "a codec" if len(own) < len(state) else "no codec"
        raise ValueError(
            f"{str(source)!r} tells of front_end={content['front_end']!r}, but "
            f"{str(path)!r} holds {holds}. Save the weights again."
        )
    digest = digest_of(own)
    return _Told(Size(*numbers[:4]), content["front_end"], numbers[4], digest)


def _encoder_of(state):
    return {name: v for name, v in state.items() if not name.startswith(CODEC_PREFIX)}


def _compact(state):
    """Return a state dict with what all layers share under the first one only."""
    repeated = [name for name in state if _REPEATED.fullmatch(name)]
    if not all(
        torch.equal(state[n], state[_REPEATED.sub(r"\1.0\2", n)]) for n in repeated
    ):
        return state
    return {name: value for name, value in state.items() if name not in repeated}


def _make_network(state, size):
    shared = not any(map(_REPEATED.fullmatch, state))
    n_inputs = state["project.weight"].shape[1]
    with torch.device("meta"):
        network = FrameEncoder(n_inputs, size, shared)
    names = {
        name: _REPEATED.sub(r"\1.0\2", name) if shared else name
        for name in network.state_dict()
    }
    if set(names.values()) != set(state):
        wrong = sorted(set(names.values()) ^ set(state))
        raise KeyError(", ".join(wrong[:3]))
    network.to_empty(device="cpu")
    network.load_state_dict({name: state[own] for name, own in names.items()})
    return network


def save(path, weights):
    """Write weights as safetensors with a JSON file beside it.

    Parameters
    ----------
    path : str or path-like
        A file that ends in .safetensors, or a folder, which is made.
    weights : HeldWeights or SavedWeights

    Returns
    -------
    files : list of Path
        The two files.
    """
    hears = weights.hears
    codec = {CODEC_PREFIX + name: value for name, value in hears.state().items()}
    told = {
        **{"format": FORMAT, "version": VERSION, "front_end": hears.kind},
        **{"sample_rate": hears.chunks.sample_rate, **weights.size._asdict()},
    }
    return saved_weights.write(path, {**weights.state(), **codec}, told)
