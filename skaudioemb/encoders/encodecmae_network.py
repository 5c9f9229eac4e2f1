"""The network of EncodecMAE in the layout of its published files, for any use.

It takes batches with a padding mask and has gradients. What extracts embeddings is
:class:`skaudioemb.encoders.encodecmae.EncodecMAEEncoder`, made from it.
"""

import math
from numbers import Integral
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class Size(NamedTuple):
    """Measures of a stack of layers.

    Attributes
    ----------
    n_layers : int
    n_features : int
        Width of a frame.
    n_heads : int
        Heads are ``n_features // n_heads`` wide: 85 in the large model, whose queries
        have 1020 components.
    n_hidden : int
        Hidden units of the feed-forward network.
    """

    n_layers: int
    n_features: int
    n_heads: int = 12
    n_hidden: int = 4096

    @property
    def n_attended(self):
        """Width of all queries together."""
        return self.n_features // self.n_heads * self.n_heads


# Pepino et al. 2023, section 3.1.
SIZES = {"small": Size(5, 768), "base": Size(10, 768), "large": Size(20, 1024)}


def make_size(size):
    """Return the Size that a name or a dictionary of measures stands for.

    Raises
    ------
    ValueError
        If the name or a measure is not known, or a measure is no positive int.

    Examples
    --------
    >>> from skaudioemb.encoders.encodecmae_network import make_size
    >>> make_size({"n_layers": 2, "n_features": 36})
    Size(n_layers=2, n_features=36, n_heads=12, n_hidden=4096)
    """
    if isinstance(size, str) and size in SIZES:
        return SIZES[size]
    known = Size._fields
    if (
        not isinstance(size, dict)
        or not {"n_layers", "n_features"} <= size.keys() <= set(known)
        or not all(isinstance(v, Integral) and v > 0 for v in size.values())
    ):
        raise ValueError(
            f"size={size!r} is not known. Choose one of {', '.join(map(repr, SIZES))}, "
            f"or give n_layers and n_features, and if they differ from the published "
            "n_heads and n_hidden, as a dict of positive ints."
        )
    measures = Size(**{name: int(value) for name, value in size.items()})
    if measures.n_heads > measures.n_features:
        raise ValueError(
            f"size={size!r} has more heads ({measures.n_heads}) than features "
            f"({measures.n_features}). Give n_heads of at most n_features."
        )
    return measures


class SelfAttention(nn.Module):
    """Attention without biases, whose head is the fastest index of its projections.

    Parameters
    ----------
    size : Size
    """

    def __init__(self, size):
        super().__init__()
        self.n_heads = size.n_heads
        inner, outer = size.n_attended, size.n_features
        self.wq, self.wk, self.wv = (nn.Linear(outer, inner, False) for _ in range(3))
        self.wo = nn.Linear(inner, outer, False)

    def forward(self, frames, mask=None):
        # To reorder weights costs less than to reorder what they give, and one
        # product less than three.
        linears = (self.wq, self.wk, self.wv)
        weight = torch.cat([self._by_head(linear.weight) for linear in linears])
        projected = F.linear(frames, weight).unflatten(-1, (3, self.n_heads, -1))
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(queries, keys, values, mask)
        attended = attended.transpose(1, 2).flatten(2)
        return F.linear(attended, self._by_head(self.wo.weight.T).T)

    def _by_head(self, weight):
        """Return rows ordered by head; they come with the head as fastest index."""
        return weight.unflatten(0, (-1, self.n_heads)).transpose(0, 1).flatten(0, 1)


class ResiDualLayer(nn.Module):
    """A layer on two streams: one is normalised after every sum, one never.

    Parameters
    ----------
    size : Size
    feed_forward : Module
        The published models have one that all layers share.
    """

    def __init__(self, size, feed_forward):
        super().__init__()
        self.att_layer = SelfAttention(size)
        self.ff_layer = feed_forward
        self.norm1 = nn.LayerNorm(size.n_features)
        self.norm2 = nn.LayerNorm(size.n_features)

    def forward(self, normed, residual, mask=None):
        attended = self.att_layer(normed, mask)
        normed = self.norm1(normed + attended)
        hidden = self.ff_layer(normed)
        return self.norm2(normed + hidden), residual + attended + hidden


class ResiDualStack(nn.Module):
    """Layers with dual residual connections.

    Parameters
    ----------
    size : Size
    share_feedforward : bool, default=True
        Whether all layers use one feed-forward network, as the published models do
        and the paper does not say.

    References
    ----------
    S. Xie et al., "ResiDual: Transformer with Dual Residual Connections", 2023,
    section 2.2.
    """

    def __init__(self, size, share_feedforward=True):
        super().__init__()
        shared = _feed_forward(size) if share_feedforward else None
        self.encoder_layers = nn.ModuleList(
            ResiDualLayer(size, shared or _feed_forward(size))
            for _ in range(size.n_layers)
        )
        self.final_norm = nn.LayerNorm(size.n_features)

    def forward(self, frames, padding=None):
        """Return the frames of the last layer, both streams combined.

        Parameters
        ----------
        frames : Tensor of shape (n_clips, n_frames, n_features)
        padding : bool Tensor of shape (n_clips, n_frames) or None
            True where no frame attends to; a clip needs at least one that is not.

        Returns
        -------
        frames : Tensor of shape (n_clips, n_frames, n_features)
        """
        normed, residual = list(self.streams(frames, padding))[-1]
        return normed + self.final_norm(residual)

    def streams(self, frames, padding=None):
        """Yield the normalised and the other stream after each layer."""
        mask = None if padding is None else ~padding[:, None, None]
        normed = residual = frames
        for layer in self.encoder_layers:
            normed, residual = layer(normed, residual, mask)
            yield normed, residual


class FrameEncoder(nn.Module):
    """From codec frames or spectra to embedded frames: projection, position, stack.

    Parameters
    ----------
    n_inputs : int
        Width of what comes in.
    size : Size
    share_feedforward : bool, default=True

    References
    ----------
    L. Pepino, P. Riera and L. Ferrer, "EnCodecMAE: Leveraging neural codecs for
    universal audio representation learning", 2023, section 2.

    Examples
    --------
    >>> import torch
    >>> from skaudioemb.encoders.encodecmae_network import FrameEncoder, Size
    >>> encoder = FrameEncoder(128, Size(n_layers=2, n_features=24, n_heads=4))
    >>> encoder(torch.zeros(1, 75, 128)).shape
    torch.Size([1, 75, 24])
    """

    def __init__(self, n_inputs, size, share_feedforward=True):
        super().__init__()
        self.project = nn.Linear(n_inputs, size.n_features)
        self.scale = nn.Parameter(torch.ones(()))
        self.stack = ResiDualStack(size, share_feedforward)

    def forward(self, features, padding=None):
        return self.stack(self.embed(features), padding)

    def embed(self, features):
        """Return the input of the first layer, (n_clips, n_frames, n_features)."""
        frames = self.project(features)
        # As precise as the weights, and with it the streams, whatever autocast does.
        codes = sinusoids(frames.shape[1], frames.shape[2]).to(self.scale)
        return frames + self.scale * codes

    def initialise(self, generator):
        """Draw the weights as the published code does before training.

        Parameters
        ----------
        generator : torch.Generator
        """
        return initialise(self, generator)


def initialise(module, generator):
    """Draw weights as the published code does before training.

    Matrices are uniform after Glorot, biases zeros, all else ones.

    Parameters
    ----------
    module : Module
        Changed in place.
    generator : torch.Generator

    Returns
    -------
    module : Module
    """
    for name, parameter in module.named_parameters():
        if parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter, generator=generator)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.ones_(parameter)
    return module


def sinusoids(n_frames, n_features):
    """Return the code of each position, shape (n_frames, n_features), float32.

    Examples
    --------
    >>> from skaudioemb.encoders.encodecmae_network import sinusoids
    >>> sinusoids(2, 2)
    tensor([[0.0000, 1.0000],
            [0.8415, 0.5403]])
    """
    rates = torch.exp(torch.arange(0, n_features, 2) * (-math.log(1e4) / n_features))
    angles = torch.arange(n_frames)[:, None] * rates
    codes = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return codes[:, :n_features]


def parameter_counts(size, n_inputs=128, n_codec=7_425_792):
    """Count the parameters behind an embedding.

    Parameters
    ----------
    size : Size
    n_inputs : int, default=128
        Width of the front end's frames.
    n_codec : int, default=7425792
        Parameters of the front end, those of EnCodec's encoder by default.

    Returns
    -------
    unique : int
        As they are: all layers share one feed-forward network.
    per_layer : int
        As the paper counts them: as if each layer had its own.

    Examples
    --------
    >>> from skaudioemb.encoders.encodecmae_network import SIZES, parameter_counts
    >>> parameter_counts(SIZES["base"])
    (37446401, 94113281)
    """
    counts = []
    for share_feedforward in (True, False):
        with torch.device("meta"):
            encoder = FrameEncoder(n_inputs, size, share_feedforward)
        counts.append(n_codec + sum(p.numel() for p in encoder.parameters()))
    return tuple(counts)


def _feed_forward(size):
    return nn.Sequential(
        nn.Linear(size.n_features, size.n_hidden),
        nn.ReLU(),
        nn.Linear(size.n_hidden, size.n_features),
    )
