"""EncodecMAE: a masked autoencoder's encoder over codec frames or mel spectra.

The arithmetic is done on the packed frames of all chunks of a batch, so that a clip's
frames are those of the clip alone, and no layer outlives its turn.
"""

from dataclasses import astuple, dataclass
from functools import cached_property

import torch
from torch import nn
from torch.nn import functional as F

from skaudioemb.encoders import encodecmae_checkpoint as files
from skaudioemb.encoders.base import Encoder
from skaudioemb.encoders.encodecmae_codec import CodecFrontEnd
from skaudioemb.encoders.encodecmae_files import find_file
from skaudioemb.encoders.encodecmae_frontends import (
    ChunkedSpec,
    CodecChunks,
    MelChunks,
    MelFrontEnd,
)
from skaudioemb.encoders.encodecmae_inputs import plain_encodec
from skaudioemb.encoders.encodecmae_network import FrameEncoder, Size, sinusoids
from skaudioemb.encoders.packed import PackedLinear
from skaudioemb.encoders.ragged import FEED_FORWARD_FRAMES, runs_of

STREAMS = ("combined", "normed", "residual")


class StackSpec(ChunkedSpec):
    """What follows from ``size`` and from the parts that are loaded."""

    @property
    def n_features(self):
        return self.size.n_features

    @property
    def n_layers(self):
        return self.size.n_layers + 1

    def load(self, device, dtype):
        """Return the :class:`EncodecMAEEncoder`."""
        device = torch.device(device)
        front_end = self.load_front_end(device)
        encoder = EncodecMAEEncoder(front_end, self.network(), self, device, dtype)
        return encoder.requires_grad_(False).eval()


@dataclass(frozen=True)
class EncodecMAESpec(StackSpec):
    """A published file of EncodecMAE, of either generation.

    Attributes
    ----------
    checkpoint : str
        See :func:`skaudioemb.encoders.encodecmae_files.find_file`.
    revision : str or None
        Branch, tag or commit of a repository.
    n_heads : int
        Number of attention heads, which the file does not tell.
    stream : {"combined", "normed", "residual"}
        See :class:`EncodecMAEEncoder`.

    Raises
    ------
    OSError
        By any attribute, if the file cannot be found.
    ValueError
        By any attribute, if it is none of EncodecMAE's.
    """

    checkpoint: str
    revision: str | None = None
    n_heads: int = 12
    stream: str = "combined"

    def __reduce__(self):
        return type(self), astuple(self)

    @cached_property
    def path(self):
        """The file."""
        return find_file(self.checkpoint, self.revision)

    @cached_property
    def layout(self):
        """The :class:`~skaudioemb.encoders.encodecmae_checkpoint.Layout` of it."""
        return files.describe(self.path)

    @cached_property
    def size(self):
        """Measures of the stack."""
        return self.layout.size(self.n_heads)

    @property
    def chunks(self):
        """How clips are cut, and where frames lie."""
        if self.layout.front_end == "mel":
            return MelChunks()
        return CodecChunks(hop=self.layout.hop)

    @property
    def identity(self):
        content = files.content_of(self.path)
        return f"encodecmae-{content}-{self.n_heads}-{self.stream}"

    def network(self):
        """Return the :class:`FrameEncoder` with the file's weights."""
        return files.load_frame_encoder(self.path, self.n_heads)

    def load_front_end(self, device):
        """Return the front end with the file's weights, if it has any."""
        if self.layout.front_end == "mel":
            return MelFrontEnd(device)
        return CodecFrontEnd(files.load_codec(self.path), device)


@dataclass(frozen=True)
class RandomEncodecMAESpec(StackSpec):
    """An EncodecMAE as it is before training: the paper's ECMAE-R.

    Attributes
    ----------
    size : Size
    front_end : {"codec", "mel"}
    codec : str
        Checkpoint of the frozen EnCodec, unused with ``front_end="mel"``.
    seed : int
        Decides the weights.
    stream : {"combined", "normed", "residual"}
        See :class:`EncodecMAEEncoder`.
    share_feedforward : bool
        Whether all layers have one feed-forward network.
    """

    size: Size
    front_end: str = "codec"
    codec: str = "facebook/encodec_24khz"
    seed: int = 0
    stream: str = "combined"
    share_feedforward: bool = True

    def __reduce__(self):
        return type(self), astuple(self)

    @cached_property
    def codec_spec(self):
        """The codec's own spec."""
        return plain_encodec(self.codec)

    @property
    def chunks(self):
        """How clips are cut, and where frames lie."""
        return MelChunks() if self.front_end == "mel" else self.codec_spec.chunks

    @property
    def identity(self):
        own = "mel" if self.front_end == "mel" else self.codec_spec.identity
        measures = "-".join(map(str, self.size))
        measures += "" if self.share_feedforward else "-unshared"
        return f"encodecmae-random-{measures}-{self.seed}-{self.stream}-{own}"

    def network(self):
        """Return the :class:`FrameEncoder` with the weights that the seed gives."""
        is_mel = self.front_end == "mel"
        n_inputs = MelFrontEnd.n_features if is_mel else self.codec_spec.n_features
        with torch.device("meta"):
            encoder = FrameEncoder(n_inputs, self.size, self.share_feedforward)
        generator = torch.Generator().manual_seed(self.seed)
        return encoder.to_empty(device="cpu").initialise(generator)

    def load_front_end(self, device):
        """Return the front end; a codec comes with its checkpoint's weights."""
        if self.front_end == "mel":
            return MelFrontEnd(device)
        return self.codec_spec.load_front_end(device)


class EncodecMAEEncoder(Encoder):
    """The network over the packed frames of chunks.

    Layer 0 is the input of the first block: projected frames plus positions. Of the two
    streams of the blocks, ``stream="combined"`` gives the normalised one after each
    block, and after the last one the sum of both, as the published models; "normed"
    gives the normalised one there too; "residual" gives the other after each block.

    Parameters
    ----------
    front_end : MelFrontEnd or CodecFrontEnd
    network : FrameEncoder
        Its modules are taken over and must not be used any more.
    spec : EncodecMAESpec, RandomEncodecMAESpec or PretrainedEncodecMAESpec
    device : torch.device
    dtype : torch.dtype
        Of matrix products and attention; front end, streams and norms are float32.

    References
    ----------
    L. Pepino, P. Riera and L. Ferrer, "EnCodecMAE: Leveraging neural codecs for
    universal audio representation learning", 2023, section 2.
    """

    def __init__(self, front_end, network, spec, device, dtype):
        super().__init__()
        self.front_end = front_end
        self.chunks = spec.chunks
        self.stream_kind = spec.stream
        self.dtype = dtype
        self.project = PackedLinear.of(network.project, device, torch.float32)
        n_positions = self.chunks.chunk_frames(self.chunks.chunk_samples)
        codes = network.scale.detach() * sinusoids(n_positions, spec.n_features)
        self.register_buffer("codes", codes.to(device))
        shared = {}
        self.blocks = nn.ModuleList()
        for layer in network.stack.encoder_layers:
            # One packed copy serves all layers that share their network.
            key = id(layer.ff_layer)
            if key not in shared:
                shared[key] = FeedForward(layer.ff_layer, device, dtype)
            self.blocks.append(Block(layer, shared[key], device, dtype))
        self.final_norm = network.stack.final_norm.to(device, torch.float32)

    @torch.no_grad()
    def forward(self, waveforms):
        lengths = [len(waveform) for waveform in waveforms]
        sizes = [(self.chunks.chunk_frames(n), self.chunks.n_whole(n)) for n in lengths]
        frames = self.project(self.front_end(waveforms))
        frames = frames + torch.cat([self.codes[:count] for count, _ in sizes])
        yield 0, frames
        runs = runs_of(sizes)
        normed = residual = frames
        for layer, block in enumerate(self.blocks, start=1):
            normed, residual = block(normed, residual, runs)
            yield layer, self._output(normed, residual, layer == len(self.blocks))

    def _output(self, normed, residual, is_last):
        if self.stream_kind == "residual":
            return residual
        if is_last and self.stream_kind == "combined":
            return normed + self.final_norm(residual)
        return normed


class Block(nn.Module):
    """A ResiDual layer over packed frames.

    Parameters
    ----------
    layer : ResiDualLayer
    feed_forward : FeedForward
    device : torch.device
    dtype : torch.dtype
    """

    def __init__(self, layer, feed_forward, device, dtype):
        super().__init__()
        self.dtype = dtype
        self.attention = Attention(layer.att_layer, device, dtype)
        self.feed_forward = feed_forward
        self.norm1 = layer.norm1.to(device, torch.float32)
        self.norm2 = layer.norm2.to(device, torch.float32)

    def forward(self, normed, residual, runs):
        attended = self.attention(normed.to(self.dtype), runs).float()
        normed = self.norm1(normed + attended)
        hidden = self.feed_forward(normed.to(self.dtype)).float()
        return self.norm2(normed + hidden), residual + attended + hidden


class FeedForward(nn.Module):
    """Two linear layers with ReLU between, on some frames at a time.

    Parameters
    ----------
    layers : Sequential
    device : torch.device
    dtype : torch.dtype
    """

    def __init__(self, layers, device, dtype):
        super().__init__()
        self.expand = PackedLinear.of(layers[0], device, dtype)
        self.contract = PackedLinear.of(layers[2], device, dtype)
        where = "cpu" if device.type == "cpu" else "accelerator"
        self.n_at_once = FEED_FORWARD_FRAMES[where]

    def forward(self, frames):
        parts = frames.split(self.n_at_once)
        return torch.cat([self.contract(self.expand(p).relu_()) for p in parts])


class Attention(nn.Module):
    """Attention within each chunk, to its whole frames.

    Parameters
    ----------
    attention : SelfAttention
        The head is the fastest index of its projections; here it becomes the slowest.
    device : torch.device
    dtype : torch.dtype
    """

    def __init__(self, attention, device, dtype):
        super().__init__()
        self.n_heads = attention.n_heads
        inputs = (attention.wq, attention.wk, attention.wv)
        weights = [_head_major(linear.weight, self.n_heads) for linear in inputs]
        self.project_in = PackedLinear(torch.cat(weights), None, device, dtype)
        weight = _head_major(attention.wo.weight.T, self.n_heads).T
        self.project_out = PackedLinear(weight, None, device, dtype)

    def forward(self, frames, runs):
        projected = self.project_in(frames)
        result = projected.new_empty(len(frames), projected.shape[1] // 3)
        start = 0
        for n_chunks, (n_frames, n_whole) in runs:
            rows = slice(start, start + n_chunks * n_frames)
            # (query or key or value, chunk, head, frame, channel)
            heads = projected[rows].view(n_chunks, n_frames, 3, self.n_heads, -1)
            queries, keys, values = heads.permute(2, 0, 3, 1, 4)
            attended = F.scaled_dot_product_attention(
                queries, keys[:, :, :n_whole], values[:, :, :n_whole]
            )
            result[rows] = attended.transpose(1, 2).reshape(-1, result.shape[1])
            start = rows.stop
        return self.project_out(result)


def _head_major(weight, n_heads):
    """Return rows ordered by head; they come with the head as fastest index."""
    return weight.detach().unflatten(0, (-1, n_heads)).transpose(0, 1).flatten(0, 1)
