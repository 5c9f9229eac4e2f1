"""BYOL-A and BYOL-S as upstream models: clips in, frames or windows out."""

import functools
import itertools
import math
import weakref
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from skaudioemb.encoders.base import Encoder, EncoderSpec
from skaudioemb.encoders.byol import make_byol_encoder
from skaudioemb.encoders.byol_blocks import aggregate
from skaudioemb.encoders.byol_frontend import (
    HOP,
    MIN_SAMPLES,
    SAMPLE_RATE,
    ByolFrontend,
    n_mel_frames,
)
from skaudioemb.encoders.byol_weights import HeldWeights, WeightsFile

# A clip without any change in level has no deviation to divide by.
MIN_STD = 1e-3
# Windows through the network at once.
WINDOWS_AT_ONCE = 32
# Specs that differ in statistics or windows share one network.
_networks = weakref.WeakValueDictionary()


@dataclass(frozen=True)
class ByolSpec(EncoderSpec):
    """An encoder's frames before temporal aggregation.

    Attributes
    ----------
    weights : WeightsFile or HeldWeights
    encoder : str
    n_features : int
    frontend : str
    statistics : tuple of (float, float) or "clip"
        Mean and deviation by which log-mel is normalised; "clip" takes each clip's own.
    max_seconds : float or None
        Longer clips go through the network in parts of at most this length.
    """

    weights: WeightsFile | HeldWeights
    encoder: str
    n_features: int
    frontend: str
    statistics: tuple | str
    max_seconds: float | None = None

    sample_rate = SAMPLE_RATE
    n_layers = 1
    mixes_lengths = False

    @property
    def shape(self):
        """The encoder's :class:`~skaudioemb.encoders.byol_blocks.ByolNet`, no weights.

        It knows strides and widths.
        """
        return shape_of(self.encoder, self.n_features)

    @property
    def min_samples(self):
        return max(MIN_SAMPLES, (self.shape.min_frames - 1) * HOP)

    @property
    def model_identity(self):
        """Names weights, front end and statistics."""
        statistics = self.statistics
        if statistics != "clip":
            statistics = ",".join(map(repr, map(float, statistics)))
        return f"byol-{self.encoder}-{self.weights.digest}|{self.frontend}|{statistics}"

    @property
    def identity(self):
        return f"{self.model_identity}|{self.max_seconds}"

    def n_frames(self, n_samples):
        return self.frames_of(n_mel_frames(max(n_samples, self.min_samples)))

    def frames_of(self, n_mels):
        """Return the number of frames that ``n_mels`` log-mel frames give."""
        return (n_mels - self.shape.min_frames) // self.shape.frame_stride + 1

    def frame_times(self, n_frames):
        centres = self.shape.frame_offset + np.arange(n_frames, dtype=np.float64) * (
            self.shape.frame_stride
        )
        return centres * (HOP / SAMPLE_RATE)

    def load(self, device, dtype):
        return FramesEncoder(self, torch.device(device), dtype).eval()


@dataclass(frozen=True)
class ByolWindowsSpec(ByolSpec):
    """One embedding for each of many overlapping windows around regular moments.

    Attributes
    ----------
    pooling : {"mean", "max", "mean+max", "last"}
        How the frames of a window become its embedding.
    window, hop : float
        Length of windows, and distance of their centres, in seconds.

    Raises
    ------
    ValueError
        If a window is too short for the encoder.
    """

    pooling: str = "mean+max"
    window: float = 1.0
    hop: float = 0.05

    min_samples = 1

    def __post_init__(self):
        needed = ByolSpec.min_samples.fget(self)
        if self.window_samples < needed:
            raise ValueError(
                f"window={self.window} is {self.window_samples} samples at "
                f"{SAMPLE_RATE} Hz, and {self.encoder!r} needs {needed}. Give at least "
                f"{needed / SAMPLE_RATE} s."
            )

    @property
    def window_samples(self):
        return round(self.window * SAMPLE_RATE)

    @property
    def hop_samples(self):
        """Distance of windows in samples, not always a whole number."""
        # 0.05 s are 800 samples, whatever the product of the floats is.
        return round(self.hop * SAMPLE_RATE, 6)

    @property
    def identity(self):
        return (
            f"{self.model_identity}|{self.pooling}|{self.window_samples}|"
            f"{self.hop_samples}"
        )

    def starts(self, n_samples):
        """Return where windows start in the padded clip, ndarray of int."""
        n_windows = math.floor(n_samples / self.hop_samples) + 2
        starts = np.round(np.arange(n_windows) * self.hop_samples).astype(np.int64)
        return starts[starts <= n_samples]

    def n_frames(self, n_samples):
        return len(self.starts(n_samples))

    def frame_times(self, n_frames):
        return np.arange(n_frames, dtype=np.float64) * (self.hop_samples / SAMPLE_RATE)

    def load(self, device, dtype):
        return WindowsEncoder(self, torch.device(device), dtype).eval()


@dataclass(frozen=True)
class StatisticsSpec(EncoderSpec):
    """Mean and variance of each clip's log-mel, the one "frame" of the clip.

    Attributes
    ----------
    frontend : str
    """

    frontend: str

    sample_rate = SAMPLE_RATE
    n_features = 2
    n_layers = 1
    min_samples = MIN_SAMPLES
    mixes_lengths = False

    @property
    def identity(self):
        return f"byol-statistics|{self.frontend}"

    def n_frames(self, n_samples):
        return 1

    def times_of(self, n_samples):
        return np.array([n_samples / SAMPLE_RATE / 2])

    def load(self, device, dtype):
        return StatisticsEncoder(self.frontend).to(device).eval()


class StatisticsEncoder(Encoder):
    """Log-mel, averaged and squared.

    Parameters
    ----------
    frontend : str
    """

    def __init__(self, frontend):
        super().__init__()
        self.frontend = ByolFrontend(frontend)

    def forward(self, waveforms):
        log_mel = self.frontend(torch.stack(waveforms)).double()
        variance, mean = torch.var_mean(log_mel, dim=(1, 2, 3), correction=0)
        yield 0, torch.stack([mean, variance], dim=1).float()


class FramesEncoder(Encoder):
    """Frames of clips of one length.

    Parameters
    ----------
    spec : ByolSpec
    device : torch.device
    dtype : torch.dtype
        Of the network; log-mel is float32 in any case.
    """

    def __init__(self, spec, device, dtype):
        super().__init__()
        self.spec = spec
        self.dtype = dtype
        self.frontend = ByolFrontend(spec.frontend).to(device)
        self.network = _network_of(spec, device, dtype)
        self.max_frames = math.inf
        if spec.max_seconds is not None:
            stride = spec.shape.frame_stride * HOP
            self.max_frames = max(1, int(spec.max_seconds * SAMPLE_RATE) // stride)

    def forward(self, waveforms):
        log_mel = self.frontend(torch.stack(waveforms))
        x = self._normalise(log_mel, log_mel).to(self.dtype)
        frames = [self._part(x, *bounds) for bounds in self._bounds(x.shape[-1])]
        yield 0, torch.cat(frames, dim=1).flatten(0, 1)

    def _normalise(self, x, whole):
        """Return log-mel ``x`` normalised as its clip's, which is ``whole``."""
        mean, std = self.spec.statistics if self.spec.statistics != "clip" else (0, 0)
        if self.spec.statistics == "clip":
            std, mean = torch.std_mean(whole, dim=(1, 2, 3), keepdim=True)
            std = std.clamp_min(MIN_STD)
        return (x - mean) / std

    def _bounds(self, n_mels):
        """Return the first frame, and that after the last, of each part of a clip."""
        n_frames = self.spec.frames_of(n_mels)
        n_parts = math.ceil(n_frames / self.max_frames) or 1
        edges = [round(i * n_frames / n_parts) for i in range(n_parts + 1)]
        return list(itertools.pairwise(edges))

    def _part(self, x, start, stop):
        """Return some frames, seen with one more on either side.

        That is all that the frames of AudioNTT encoders see of their surroundings.
        """
        shape = self.spec.shape
        stride = shape.frame_stride
        first = max(start - 1, 0)
        last = stop * stride + shape.min_frames + stride - 1
        frames = self.network.frames(x[..., first * stride : last])
        return frames[:, start - first : stop - first]


class WindowsEncoder(FramesEncoder):
    """Embeddings of overlapping windows of clips of one length.

    Half a window of zeros stands before and after a clip; each window has a log-mel of
    its own, reflected at the window's ends.

    Parameters
    ----------
    spec : ByolWindowsSpec
    device : torch.device
    dtype : torch.dtype
    """

    def forward(self, waveforms):
        spec = self.spec
        before = spec.window_samples // 2
        starts = torch.from_numpy(spec.starts(len(waveforms[0]))).to(
            waveforms[0].device
        )
        embeddings = []
        for waveform in waveforms:
            whole = self._log_mel_of(waveform)
            padded = F.pad(waveform, (before, spec.window_samples - before))
            windows = padded.unfold(0, spec.window_samples, 1)
            for part in starts.split(WINDOWS_AT_ONCE):
                x = self._normalise(self.frontend(windows[part]), whole)
                frames = self.network.frames(x.to(self.dtype))
                embeddings.append(aggregate(frames, spec.pooling))
        yield 0, torch.cat(embeddings)

    def _log_mel_of(self, waveform):
        """Return the log-mel whose statistics are the clip's, if they are asked for."""
        if self.spec.statistics != "clip":
            return None
        missing = max(0, MIN_SAMPLES - len(waveform))
        return self.frontend(F.pad(waveform, (0, missing))[None])


def shape_of(encoder, n_features):
    """Return the network of an encoder, without weights."""
    # A number of numpy's would stay in the cache for all that equal it.
    return _shape_of(encoder, None if n_features is None else int(n_features))


@functools.lru_cache(maxsize=32)
def _shape_of(encoder, n_features):
    with torch.device("meta"):
        return make_byol_encoder(encoder, n_features)


def _network_of(spec, device, dtype):
    """Return the network, in eval mode, one for all specs with the same weights."""
    key = (spec.encoder, spec.n_features, spec.weights.digest, str(device), dtype)
    network = _networks.get(key)
    if network is None:
        with torch.device("meta"):
            network = make_byol_encoder(spec.encoder, spec.n_features)
        network.load_state_dict(spec.weights.state(), assign=True)
        network = _folded(network.eval().requires_grad_(False))
        # On CPUs, convolutions are faster by half with channels last.
        layout = torch.channels_last if device.type == "cpu" else torch.preserve_format
        network = network.to(device=device, dtype=dtype, memory_format=layout)
        _networks[key] = network
    return network


def _folded(network):
    """Return a network whose batch norms are part of the convolutions before them."""
    for module in list(network.modules()):
        if not isinstance(module, nn.Sequential):
            continue
        for i, (first, second) in enumerate(itertools.pairwise(module)):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                module[i] = fuse_conv_bn_eval(first, second)
                module[i + 1] = nn.Identity()
    return network
