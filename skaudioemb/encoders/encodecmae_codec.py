"""The encoder of EnCodec over the chunks of many clips, without padding.

Convolutions run chunk by chunk, and the recurrent layers over all chunks together:
they are causal, so that what follows a chunk cannot reach it.
"""

from dataclasses import astuple, dataclass
from functools import cached_property

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from skaudioemb.encoders.base import Encoder
from skaudioemb.encoders.encodecmae_checkpoint import NORM, by_layer, under
from skaudioemb.encoders.encodecmae_frontends import (
    CHUNK_SECONDS,
    ChunkedSpec,
    CodecChunks,
)
from skaudioemb.encoders.huggingface.codecs import EnCodec as EnCodecFamily
from skaudioemb.encoders.huggingface.spec import HFAudioSpec

# Samples of a residual block at once: what lies between its steps stays in the cache.
COLUMNS = 8192


class Convolution(nn.Module):
    """A causal convolution whose input is reflected at both ends.

    Parameters
    ----------
    state : dict of str to Tensor
        Tensors of one convolution by transformers' names, weight norm included.
    stride : int
    """

    def __init__(self, state, stride=1):
        super().__init__()
        weight = state.get("weight")
        if weight is None:
            weight = torch._weight_norm(state[f"{NORM}1"], state[f"{NORM}0"], 0)
        self.register_buffer("weight", weight.detach().contiguous())
        self.register_buffer("bias", state["bias"].detach())
        self.stride = stride

    def forward(self, x):
        left = self.weight.shape[2] - self.stride
        right = -x.shape[-1] % self.stride
        x = _reflect(x, left, right) if left or right else x
        return F.conv1d(x, self.weight, self.bias, self.stride)


class ResidualBlock(nn.Module):
    """Two convolutions beside a third, or beside nothing.

    Parameters
    ----------
    state : dict of str to Tensor
    """

    def __init__(self, state):
        super().__init__()
        self.first = Convolution(under(state, "block.1.conv."))
        self.second = Convolution(under(state, "block.3.conv."))
        shortcut = under(state, "shortcut.conv.")
        self.shortcut = Convolution(shortcut) if shortcut else nn.Identity()

    def forward(self, x):
        context = self.first.weight.shape[2] - 1
        padded = _reflect(x, context, 0)
        result = torch.empty_like(x)
        step = COLUMNS if x.device.type == "cpu" else x.shape[-1]
        for start in range(0, x.shape[-1], step):
            stop = start + step
            part = F.elu(padded[..., start : stop + context])
            hidden = F.conv1d(part, self.first.weight, self.first.bias)
            hidden = self.second(F.elu(hidden, inplace=True))
            result[..., start:stop] = hidden + self.shortcut(x[..., start:stop])
        return result


class CodecFrontEnd(nn.Module):
    """EnCodec's encoder, built from its tensors alone.

    Parameters
    ----------
    state : dict of str to Tensor
        By the names of transformers' ``EncodecEncoder``. Float32.
    device : torch.device

    References
    ----------
    A. Défossez et al., "High Fidelity Neural Audio Compression", TMLR 2023,
    section 3.1.
    """

    def __init__(self, state, device):
        super().__init__()
        layers = by_layer(state)
        (recurrent,) = (i for i, own in layers.items() if under(own, "lstm."))
        first, *middle = (i for i in layers if i < recurrent)
        (last,) = (i for i in layers if i > recurrent)
        self.first = Convolution(under(layers[first], "conv."))
        self.blocks = nn.ModuleList(_block(layers[i]) for i in middle)
        self.recurrent = _recurrent(under(layers[recurrent], "lstm."))
        self.last = Convolution(under(layers[last], "conv."))
        self.n_features = len(self.last.bias)
        self.to(device).requires_grad_(False)
        self.recurrent.flatten_parameters()

    def forward(self, waveforms):
        """Return the frames of all chunks, (sum of n_frames, n_features).

        Parameters
        ----------
        waveforms : list of Tensor of shape (n_samples,)
        """
        inputs = [self._convolve(waveform) for waveform in waveforms]
        outputs, _ = self.recurrent(pad_sequence(inputs))
        frames = []
        for i, own in enumerate(inputs):
            hidden = F.elu(own + outputs[: len(own), i])
            frames.append(self.last(hidden.T[None])[0].T)
        return torch.cat(frames)

    def _convolve(self, waveform):
        """Return the input of the recurrent layers, (n_frames, n_channels)."""
        x = self.first(waveform[None, None])
        for block in self.blocks:
            is_residual = isinstance(block, ResidualBlock)
            x = block(x if is_residual else F.elu(x, inplace=True))
        return x[0].T


def _block(state):
    """Return a residual block, or a convolution that halves its window as stride."""
    if under(state, "block."):
        return ResidualBlock(state)
    own = under(state, "conv.")
    kernel = own.get("weight", own.get(f"{NORM}1")).shape[2]
    return Convolution(own, stride=kernel // 2)


def _recurrent(state):
    width = state["weight_hh_l0"].shape[1]
    n_layers = sum(name.startswith("weight_hh_l") for name in state)
    lstm = nn.LSTM(width, width, n_layers, device="meta")
    lstm.load_state_dict({k: v.detach() for k, v in state.items()}, assign=True)
    return lstm


def _reflect(x, left, right):
    """Pad by reflection; what is too short is completed with zeros before."""
    missing = max(0, max(left, right) + 1 - x.shape[-1])
    padded = F.pad(F.pad(x, (0, missing)), (left, right), mode="reflect")
    return padded[..., : padded.shape[-1] - missing]


@dataclass(frozen=True)
class EnCodecSpec(ChunkedSpec):
    """A causal EnCodec for one channel, whose clips run in chunks of 4 s.

    Attributes
    ----------
    checkpoint : str
        A model id on the Hugging Face hub, or a folder written by
        ``save_pretrained``.
    revision : str or None
        Branch, tag or commit of a model id.

    Raises
    ------
    OSError
        By any attribute, if the checkpoint cannot be found.
    ValueError
        By any attribute, if it is no EnCodec.
    """

    checkpoint: str
    revision: str | None = None

    n_layers = 1

    def __reduce__(self):
        return type(self), astuple(self)

    @cached_property
    def stock(self):
        """The HFAudioSpec of the same checkpoint, which reads its files."""
        spec = HFAudioSpec(self.checkpoint, self.revision)
        if not isinstance(spec.family, EnCodecFamily):
            raise ValueError(
                f"The checkpoint {self.checkpoint!r} is no EnCodec. Use HFAudioModel "
                "for other codecs and models."
            )
        return spec

    @property
    def is_plain(self):
        """Whether it has one channel, causal convolutions and no chunks of its own."""
        config = self.stock.family.config
        return (
            config.norm_type == "weight_norm"
            and config.pad_mode == "reflect"
            and config.use_causal_conv
            and not config.normalize
            and config.audio_channels == 1
            and config.chunk_length is None
            and config.num_residual_layers == 1
        )

    @cached_property
    def chunks(self):
        """The :class:`CodecChunks` of its rate and hop."""
        return CodecChunks(self.stock.sample_rate, self.stock.family.frame_samples)

    @property
    def n_features(self):
        return self.stock.n_features

    @property
    def identity(self):
        return f"encodec-{self.stock.identity}-{self.chunks.chunk_samples}"

    def load_front_end(self, device):
        """Return the :class:`CodecFrontEnd` with the checkpoint's weights."""
        return CodecFrontEnd(self.stock.family.load().state_dict(), device)

    def load(self, device, dtype):
        # Float32 whatever ``dtype``: recurrence adds rounding up over 300 frames.
        return EnCodecEncoder(self.load_front_end(torch.device(device))).eval()


def make_codec_spec(checkpoint, revision):
    """Return the spec that runs an EnCodec.

    Stereo models and those with chunks of their own run as
    :class:`~skaudioemb.HFAudioModel` runs them.
    """
    spec = EnCodecSpec(checkpoint, revision)
    if spec.is_plain:
        return spec
    return HFAudioSpec(checkpoint, revision, max_seconds=float(CHUNK_SECONDS))


class EnCodecEncoder(Encoder):
    """The front end as a model of one layer.

    Parameters
    ----------
    front_end : CodecFrontEnd
    """

    def __init__(self, front_end):
        super().__init__()
        self.front_end = front_end

    @torch.no_grad()
    def forward(self, waveforms):
        yield 0, self.front_end(waveforms)
