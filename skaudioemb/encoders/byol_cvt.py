"""CvT, the convolutional vision transformer of BYOL-S, on log-mel spectrograms."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from skaudioemb.encoders.byol_blocks import ByolNet, flatten_map

HEAD_WIDTH = 64
MLP_FACTOR = 4
NORM_EPS = 1e-5


class Stage(NamedTuple):
    """One stage: a strided convolution, then one transformer block."""

    width: int
    kernel: int
    stride: int
    n_heads: int


STAGES = (Stage(64, 7, 4, 1), Stage(256, 3, 2, 3), Stage(512, 3, 2, 6))


class ChannelNorm(nn.Module):
    """Layer norm over the channels of every pixel; eps is added to the deviation."""

    def __init__(self, n_channels):
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, n_channels, 1, 1))
        self.b = nn.Parameter(torch.zeros(1, n_channels, 1, 1))

    def forward(self, x):
        std, mean = torch.std_mean(x, dim=1, correction=0, keepdim=True)
        return (x - mean) / (std + NORM_EPS) * self.g + self.b


class _Normed(nn.Module):
    """A function of the channel-normed input."""

    def __init__(self, n_channels, function):
        super().__init__()
        self.norm = ChannelNorm(n_channels)
        self.fn = function

    def forward(self, x):
        return self.fn(self.norm(x))


class _Projection(nn.Module):
    """A 3x3 convolution of each channel, batch norm, and a mix of the channels."""

    def __init__(self, n_inputs, n_outputs, stride):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(
                n_inputs, n_inputs, 3, stride, padding=1, groups=n_inputs, bias=False
            ),
            nn.BatchNorm2d(n_inputs),
            nn.Conv2d(n_inputs, n_outputs, 1, bias=False),
        )

    def forward(self, x):
        return self.net(x)


class _Attention(nn.Module):
    """Every pixel attends to the pixels of a map of half the height and width."""

    def __init__(self, n_channels, n_heads):
        super().__init__()
        inner = n_heads * HEAD_WIDTH
        self.n_heads = n_heads
        self.to_q = _Projection(n_channels, inner, 1)
        self.to_kv = _Projection(n_channels, 2 * inner, 2)
        self.to_out = nn.Sequential(nn.Conv2d(inner, n_channels, 1))

    def forward(self, x):
        queries = self.to_q(x)
        heads = (queries, *self.to_kv(x).chunk(2, dim=1))
        attended = F.scaled_dot_product_attention(*map(self._split, heads))
        return self.to_out(attended.transpose(2, 3).reshape(queries.shape))

    def _split(self, x):
        """Return shape (n_clips, n_heads, n_pixels, HEAD_WIDTH), contiguous."""
        x = x.view(len(x), self.n_heads, HEAD_WIDTH, -1)
        return x.transpose(2, 3).contiguous()


class _FeedForward(nn.Module):
    def __init__(self, n_channels):
        super().__init__()
        inner = MLP_FACTOR * n_channels
        # The published names leave a place for dropout, which is zero.
        self.net = nn.Sequential(
            nn.Conv2d(n_channels, inner, 1),
            nn.GELU(),
            nn.Identity(),
            nn.Conv2d(inner, n_channels, 1),
        )

    def forward(self, x):
        return self.net(x)


class Transformer(nn.Module):
    """One block of attention and feed-forward network, each with a shortcut.

    Parameters
    ----------
    n_channels : int
    n_heads : int
    """

    def __init__(self, n_channels, n_heads):
        super().__init__()
        attention = _Normed(n_channels, _Attention(n_channels, n_heads))
        feed_forward = _Normed(n_channels, _FeedForward(n_channels))
        self.layers = nn.ModuleList([nn.ModuleList([attention, feed_forward])])

    def forward(self, x):
        for attention, feed_forward in self.layers:
            x = x + attention(x)
            x = x + feed_forward(x)
        return x


class CvT(ByolNet):
    """Three stages of CvT of 64, 256 and 512 channels, one transformer block each.

    Parameters
    ----------
    pool : {"mean+max", "mean"}, default="mean+max"
        "mean+max" keeps the four mel bands apart, 2048 features; "mean" averages them,
        512 features. Both have the same tensors.

    References
    ----------
    H. Wu et al., "CvT: Introducing Convolutions to Vision Transformers", ICCV 2021;
    G. Elbanna et al., "BYOL-S: Learning Self-supervised Speech Representations by
    Bootstrapping", HEAR 2021, PMLR 166, 2022, section 2.3.
    """

    min_frames = 1
    frame_stride = 16
    frame_offset = 0.0

    def __init__(self, pool="mean+max"):
        super().__init__()
        self.aggregation = pool
        width = STAGES[-1].width
        self.n_features = width if pool == "mean" else 4 * width
        n_channels, layers = 1, []
        for stage in STAGES:
            layers.append(
                nn.Sequential(
                    nn.Conv2d(
                        n_channels,
                        stage.width,
                        stage.kernel,
                        stage.stride,
                        padding=stage.kernel // 2,
                    ),
                    ChannelNorm(stage.width),
                    Transformer(stage.width, stage.n_heads),
                )
            )
            n_channels = stage.width
        self.layers = nn.Sequential(*layers)

    def frames(self, x):
        x = self.layers(x)
        if self.aggregation == "mean":
            return x.mean(dim=2).transpose(1, 2)
        return flatten_map(x)
