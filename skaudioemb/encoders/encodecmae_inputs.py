"""What an EncodecMAE hears, and the codec whose codes it learns.

What a network hears is named by content, whether it lies in a checkpoint of
transformers, in a published file, or in one that was saved here.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from skaudioemb.encoders import encodecmae_checkpoint as published
from skaudioemb.encoders.byol_tensors import digest_of
from skaudioemb.encoders.checkpoint import folder_of, stamp_of
from skaudioemb.encoders.encodecmae_codec import CodecFrontEnd, EnCodecSpec
from skaudioemb.encoders.encodecmae_frontends import (
    SAMPLE_RATE,
    CodecChunks,
    MelChunks,
    MelFrontEnd,
)
from skaudioemb.encoders.pretrained import load_pretrained
from skaudioemb.encoders.saved_weights import read

FRONT_ENDS = ("codec", "mel")
# What the names of a codec's tensors begin with in files that are saved here.
CODEC_PREFIX = "codec."


@dataclass(frozen=True)
class MelInput:
    """Mel bands as what an encoder hears."""

    kind = "mel"
    identity = "mel"
    chunks = MelChunks()

    def load(self, device):
        """Return the :class:`MelFrontEnd`."""
        return MelFrontEnd(device)

    def state(self):
        """Return its tensors: there are none to keep."""
        return {}


class _CodecInput:
    """A codec as what an encoder hears, from wherever its tensors are.

    Subclasses have ``state()``, its tensors by the names of transformers'
    ``EncodecEncoder``, and ``_facts``.
    """

    kind = "codec"

    @property
    def chunks(self):
        """The :class:`CodecChunks` of its rate and hop."""
        return CodecChunks(self._rate, self._facts.hop)

    @property
    def identity(self):
        return f"codec-{self._facts.digest}-{self._rate}"

    def load(self, device):
        """Return the :class:`CodecFrontEnd`."""
        return CodecFrontEnd(self.state(), device)


class _Facts(NamedTuple):
    hop: int
    digest: str


@dataclass(frozen=True)
class CheckpointCodec(_CodecInput):
    """The EnCodec of a transformers checkpoint.

    Attributes
    ----------
    checkpoint : str
        A model id on the Hugging Face hub, or a folder written by
        ``save_pretrained``.

    Raises
    ------
    OSError
        By any attribute, if the checkpoint cannot be found.
    ValueError
        By any attribute, if it is no causal EnCodec for one channel.
    """

    checkpoint: str

    @property
    def _rate(self):
        return plain_encodec(self.checkpoint).sample_rate

    @property
    def _facts(self):
        identity = plain_encodec(self.checkpoint).identity
        return _facts_of_checkpoint(self.checkpoint, identity)

    def state(self):
        """Return the encoder's tensors."""
        return plain_encodec(self.checkpoint).stock.family.load().state_dict()


@functools.lru_cache(maxsize=16)
def _facts_of_checkpoint(checkpoint, identity):
    state = CheckpointCodec(checkpoint).state()
    return _Facts(plain_encodec(checkpoint).chunks.hop, digest_of(state))


def plain_encodec(checkpoint):
    """Return the :class:`EnCodecSpec` of an EnCodec that an encoder can hear.

    Raises
    ------
    OSError
        If the checkpoint cannot be found.
    ValueError
        If it is no EnCodec, or none that is causal and for one channel.
    """
    spec = EnCodecSpec(checkpoint)
    if not spec.is_plain:
        raise ValueError(
            f"codec={checkpoint!r} is not a causal EnCodec for one channel, which "
            "EncodecMAE needs. Give 'facebook/encodec_24khz' or its like."
        )
    return spec


@dataclass(frozen=True)
class FileCodec(_CodecInput):
    """The codec inside a file of weights, a published one or one of ours.

    Attributes
    ----------
    path : str
    sample_rate : int
        In Hz, which tensors do not tell.
    """

    path: str
    sample_rate: int = SAMPLE_RATE

    @property
    def _rate(self):
        return self.sample_rate

    @property
    def _facts(self):
        return _facts_of_file(*stamp_of(self.path))

    def state(self):
        """Return the encoder's tensors."""
        path = Path(self.path)
        if path.suffix == ".safetensors":
            return published.under(read(path), CODEC_PREFIX)
        return published.load_codec(path)


@functools.lru_cache(maxsize=16)
def _facts_of_file(path, size, mtime_ns):
    state = FileCodec(path).state()
    return _Facts(published.hop_of(state), digest_of(state))


def input_of(front_end, codec):
    """Return what an encoder hears, by the names of an embedder's parameters.

    Parameters
    ----------
    front_end : {"codec", "mel"}
    codec : str
        Checkpoint of an EnCodec; unused for mel bands.
    """
    return MelInput() if front_end == "mel" else CheckpointCodec(codec)


def load_target_codec(checkpoint):
    """Return a codec of transformers whose codes pretraining is to predict.

    Parameters
    ----------
    checkpoint : str
        A model id on the Hugging Face hub, or a folder written by
        ``save_pretrained``, of any model that transformers' ``AutoModel`` loads.

    Returns
    -------
    codec : PreTrainedModel
        In eval mode, float32.

    Raises
    ------
    OSError
        If the checkpoint cannot be found.
    ValueError
        If weights are missing in it.
    """
    from transformers import AutoConfig, AutoModel

    folder = folder_of(checkpoint, None)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    return load_pretrained(folder, AutoModel, config, unused=("decoder",))
