"""Augmentations of BYOL-A on batches of log-mel spectrograms, on their device.

A batch has the shape (n_clips, n_mels, n_frames) and holds normalised natural
logarithms. Every random draw comes from the generator that the caller gives. What is
drawn and what it does are apart, so that the second can be tested by itself.
"""

import math

import torch
from torch import nn

_EPS = torch.finfo(torch.float32).eps
_CUBIC = -0.75  # the sharpness of torch's bicubic interpolation


class MemoryBank(nn.Module):
    """The latest spectrograms, first in first out; a part of the state dict.

    Parameters
    ----------
    size : int
        How many are kept.
    shape : tuple of int
        Shape of one, as (n_mels, n_frames).

    Examples
    --------
    >>> import torch
    >>> from skaudioemb.pretraining.augmentations import MemoryBank
    >>> bank = MemoryBank(2, (1, 1))
    >>> bank.push(torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1))
    >>> len(bank), bank.get(torch.tensor([0, 1])).flatten()
    (2, tensor([2., 3.]))
    """

    def __init__(self, size, shape):
        super().__init__()
        self.register_buffer("items", torch.zeros(size, *shape))
        self.register_buffer("n_pushed", torch.zeros((), dtype=torch.int64))
        # On the host as well, so that no step waits for a device.
        self._n_pushed = 0

    def __len__(self):
        return min(self._n_pushed, len(self.items))

    def get(self, indices):
        """Return the spectrograms at places counted from the oldest.

        Parameters
        ----------
        indices : int64 tensor of shape (n_clips,)
            Each from 0 to ``len(bank) - 1``.

        Returns
        -------
        z : tensor of shape (n_clips, n_mels, n_frames)
        """
        return self.items[(self._n_pushed - len(self) + indices) % len(self.items)]

    def push(self, x):
        """Append a batch; the oldest leave.

        Parameters
        ----------
        x : tensor of shape (n_clips, n_mels, n_frames)
        """
        kept = x.detach()[-len(self.items) :]
        first = self._n_pushed + len(x) - len(kept)
        places = torch.arange(first, first + len(kept), device=x.device)
        self.items[places % len(self.items)] = kept
        self._n_pushed += len(x)
        self.n_pushed.fill_(self._n_pushed)

    def _load_from_state_dict(self, *args):
        super()._load_from_state_dict(*args)
        self._n_pushed = int(self.n_pushed)


def mixup(x, z, ratios, log_mixup_exp=True):
    """Mix in other spectrograms as their sounds would mix: in the linear domain.

    Parameters
    ----------
    x, z : tensor of shape (n_clips, n_mels, n_frames)
        The spectrograms and those to mix in.
    ratios : tensor of shape (n_clips,)
        The share of `z`, from 0 to 1.
    log_mixup_exp : bool, default=True
        Whether to leave the logarithm for mixing.

    Returns
    -------
    mixed : tensor of shape (n_clips, n_mels, n_frames)
        ``log((1 - ratio) * exp(x) + ratio * exp(z) + eps)``, or without leaving the
        logarithm ``(1 - ratio) * x + ratio * z``.

    References
    ----------
    Niizumi et al., "BYOL for Audio" (2021), section III-B.

    Examples
    --------
    >>> import torch
    >>> from skaudioemb.pretraining.augmentations import mixup
    >>> mixup(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), torch.tensor([0.5])).item()
    0.620...
    """
    ratios = ratios[:, None, None]
    if not log_mixup_exp:
        return (1 - ratios) * x + ratios * z
    return torch.log((1 - ratios) * x.exp() + ratios * z.exp() + _EPS)


def draw_crops(n_crops, n_mels, n_frames, scales, canvas, generator):
    """Draw crops of a canvas that is larger than the spectrogram.

    Parameters
    ----------
    n_crops : int
    n_mels, n_frames : int
        Size of the spectrograms.
    scales : pair of float
        The least and the largest size of a crop, as multiples of the spectrogram's,
        drawn for either axis by itself.
    canvas : pair of float
        Size of the canvas in mels and in frames, as multiples of the spectrogram's.
    generator : torch.Generator

    Returns
    -------
    crops : tensor of shape (n_crops, 4), int64
        Top, left, height and width on the canvas.
    """
    device = generator.device
    bounds = [math.floor(canvas[0] * n_mels), math.floor(canvas[1] * n_frames)]
    full = torch.tensor([n_mels, n_frames], device=device)
    limits = torch.tensor(bounds, device=device)
    draws = torch.rand(2, n_crops, 2, device=device, generator=generator)
    sizes = crop_sizes(scales[0] + (scales[1] - scales[0]) * draws[0], full, limits)
    room = limits - sizes
    corners = torch.minimum((draws[1] * (room + 1)).long(), room)
    return torch.cat([corners, sizes], dim=1)


def crop_sizes(factors, full, limits):
    """Return the whole sizes of crops that lie within a canvas.

    Parameters
    ----------
    factors : tensor of shape (n_crops, 2)
        Multiples of the full size, in mels and in frames.
    full : tensor of shape (2,)
        Mels and frames of the spectrogram.
    limits : tensor of shape (2,), int64
        Mels and frames of the canvas.

    Returns
    -------
    sizes : tensor of shape (n_crops, 2), int64
    """
    sizes = (factors * full).long().clamp(min=1)
    return torch.minimum(sizes, limits)


def resize_crops(x, crops, n_canvas_frames, n_canvas_mels=None):
    """Cut crops out of zero canvases around spectrograms and resize them bicubically.

    Both axes are resized by one product of matrices for the whole batch, which also
    stand for the canvas: its zeros are never written.

    Parameters
    ----------
    x : tensor of shape (n_clips, n_mels, n_frames)
    crops : tensor of shape (n_clips, 4), int64
        Top, left, height and width on the canvas.
    n_canvas_frames : int
        Width of the canvas; the spectrogram lies in its middle.
    n_canvas_mels : int or None, default=None
        Height of the canvas; None means that of the spectrogram.

    Returns
    -------
    resized : tensor of shape (n_clips, n_mels, n_frames)
        As ``interpolate(mode="bicubic", align_corners=True)`` gives crop by crop.

    References
    ----------
    Niizumi et al., "BYOL for Audio" (2021), section III-C.
    """
    top, left, height, width = crops.unbind(1)
    above = ((n_canvas_mels or x.shape[1]) - x.shape[1]) // 2
    before = (n_canvas_frames - x.shape[2]) // 2
    rows = _interpolation(top - above, height, x.shape[1]).to(x)
    columns = _interpolation(left - before, width, x.shape[2]).to(x)
    return rows @ x @ columns.transpose(1, 2)


def _interpolation(starts, sizes, n_points):
    """Return (n_crops, n_points, n_points) weights from an axis to a resized crop.

    A crop starts at a place on the axis, which may lie before it or behind its end:
    what is outside counts as zero, what is beyond the crop as its border.
    """
    device = starts.device
    steps = torch.arange(n_points, device=device, dtype=torch.float32)
    places = steps * ((sizes - 1) / max(n_points - 1, 1))[:, None]
    below = places.floor()
    weights = _cubic_weights(places - below)
    offsets = torch.arange(-1, 3, device=device)
    taps = below.long()[..., None] + offsets
    taps = torch.minimum(taps.clamp(min=0), (sizes - 1)[:, None, None])
    taps = taps + starts[:, None, None]
    outside = (taps < 0) | (taps >= n_points)
    weights = weights.masked_fill(outside, 0)
    matrix = torch.zeros(*places.shape, n_points, device=device, dtype=weights.dtype)
    return matrix.scatter_add_(2, taps.clamp(0, n_points - 1), weights)


def _cubic_weights(fractions):
    """Return the weights of the four taps around a place, in the last axis."""
    near = torch.stack([fractions, 1 - fractions], -1)
    far = near + 1
    a = _CUBIC
    inner = ((a + 2) * near - (a + 3)) * near * near + 1
    outer = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    return torch.stack(
        [outer[..., 0], inner[..., 0], inner[..., 1], outer[..., 1]], dim=-1
    )


def fade(x, heads, tails):
    """Add a straight line over time: a volume that rises or falls.

    Parameters
    ----------
    x : tensor of shape (n_clips, n_mels, n_frames)
    heads, tails : tensor of shape (n_clips,)
        What is added to the first and to the last frame.

    Returns
    -------
    faded : tensor of shape (n_clips, n_mels, n_frames)

    References
    ----------
    Niizumi et al., "BYOL for Audio: Exploring Pre-trained General-purpose Audio
    Representations" (2023), section III-D (random linear fader).
    """
    slopes = torch.linspace(0, 1, x.shape[-1], device=x.device, dtype=x.dtype)
    lines = heads[:, None] + (tails - heads)[:, None] * slopes
    return x + lines[:, None]


def normalize_batch(x):
    """Give a batch mean 0 and standard deviation 1, over all its values.

    Parameters
    ----------
    x : tensor

    Returns
    -------
    normalized : tensor
        The standard deviation is the unbiased one, at least float32's epsilon.
    """
    std, mean = torch.std_mean(x)
    return (x - mean) / std.clamp(min=_EPS)


class Views(nn.Module):
    """Makes the two views of BYOL-A: mixup, random resize crop, linear fader.

    Parameters
    ----------
    shape : pair of int
        Mels and frames of a spectrogram.
    mixup_ratio : float, default=0.4
        The largest share of another sound; 0 leaves mixup out.
    memory_size : int, default=2048
        Spectrograms that may be mixed in: the latest ones.
    log_mixup_exp : bool, default=True
        Whether sounds mix as such, or their logarithms.
    scales : pair of float, default=(0.6, 1.5)
        Sizes of a crop relative to the spectrogram, in both axes.
    canvas : pair of float, default=(1.0, 1.5)
        Size of the canvas in mels and in frames, relative to the spectrogram.
    fader_gain : float, default=0.0
        The largest change at either end of a view; 0 leaves the fader out.
    """

    def __init__(
        self,
        shape,
        *,
        mixup_ratio=0.4,
        memory_size=2048,
        log_mixup_exp=True,
        scales=(0.6, 1.5),
        canvas=(1.0, 1.5),
        fader_gain=0.0,
    ):
        super().__init__()
        self.mixup_ratio = mixup_ratio
        self.log_mixup_exp = log_mixup_exp
        self.scales = scales
        self.canvas = canvas
        self.fader_gain = fader_gain
        self.bank = MemoryBank(memory_size if mixup_ratio else 0, shape)

    def forward(self, x, generator):
        """Make two views of each spectrogram.

        Sounds to mix in come from earlier batches only, drawn for either view by
        itself; the batch joins the memory, unmixed, once both views are made.

        Parameters
        ----------
        x : tensor of shape (n_clips, n_mels, n_frames)
            Normalised log-mel spectrograms.
        generator : torch.Generator
            On the device of `x`.

        Returns
        -------
        views : pair of tensor of shape (n_clips, n_mels, n_frames)
            Normalised together.
        """
        both = torch.cat([x, x])
        draw = _Draw(len(both), generator)
        if self.mixup_ratio and len(self.bank):
            indices = (draw() * len(self.bank)).long().clamp(max=len(self.bank) - 1)
            others, ratios = self.bank.get(indices), self.mixup_ratio * draw()
            both = mixup(both, others, ratios, self.log_mixup_exp)
        if self.mixup_ratio:
            self.bank.push(x)
        n_mels, n_frames = x.shape[1:]
        crops = draw_crops(
            len(both), n_mels, n_frames, self.scales, self.canvas, generator
        )
        sizes = (
            math.floor(self.canvas[1] * n_frames),
            math.floor(self.canvas[0] * n_mels),
        )
        both = resize_crops(both, crops, *sizes)
        if self.fader_gain:
            heads, tails = (self.fader_gain * (2 * draw() - 1) for _ in range(2))
            both = fade(both, heads, tails)
        return normalize_batch(both).chunk(2)


class _Draw:
    """Draws one number from [0, 1) a clip."""

    def __init__(self, n_clips, generator):
        self.n_clips, self.generator = n_clips, generator

    def __call__(self):
        device = self.generator.device
        return torch.rand(self.n_clips, generator=self.generator, device=device)
