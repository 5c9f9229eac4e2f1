"""Log-mel spectrogram: no weights, the baseline that every model has to beat."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from skaudioemb.audio import import_torchaudio
from skaudioemb.encoders.base import Encoder, EncoderSpec

# Below the quietest sound of 16-bit audio, so that silence has a finite logarithm.
_FLOOR = float(np.finfo(np.float32).eps)
# Frames transformed at once.
CHUNK = 4096


@dataclass(frozen=True)
class LogMelSpec(EncoderSpec):
    """A log-mel spectrogram with frames centred on multiples of the hop.

    Attributes
    ----------
    n_mels : int
        Number of bands.
    window, hop : float
        Length of the Hann window and distance of frames, in seconds.
    f_min, f_max : float
        Edges of the lowest and the highest band in Hz.
    """

    n_mels: int = 64
    window: float = 0.064
    hop: float = 0.01
    f_min: float = 60.0
    f_max: float = 7800.0

    sample_rate = 16000
    n_layers = 1
    min_samples = 1

    def __post_init__(self):
        if self.f_min >= self.f_max:
            raise ValueError(
                f"f_min={self.f_min} is not below f_max={self.f_max}. Give the lower "
                "edge of the lowest band and the upper edge of the highest in Hz."
            )

    @property
    def n_features(self):
        return self.n_mels

    @property
    def hop_samples(self):
        return round(self.hop * self.sample_rate)

    @property
    def window_samples(self):
        return round(self.window * self.sample_rate)

    @property
    def identity(self):
        return (
            f"logmel-{self.n_mels}-{self.window_samples}-{self.hop_samples}-"
            f"{self.f_min}-{self.f_max}"
        )

    def n_frames(self, n_samples):
        return 1 + n_samples // self.hop_samples

    def frame_times(self, n_frames):
        return np.arange(n_frames, dtype=np.float64) * (
            self.hop_samples / self.sample_rate
        )

    def load(self, device, dtype):
        # The transform of a clip is float32 whatever ``dtype``: the power of quiet
        # bands is lost in half precision, and there is nothing to gain.
        return LogMel(self).to(device)


class LogMel(Encoder):
    """Spectrogram, mel bands and logarithm of the frames of all clips.

    Parameters
    ----------
    spec : LogMelSpec
    """

    def __init__(self, spec):
        super().__init__()
        functional = import_torchaudio().functional
        n_fft = spec.window_samples
        self.hop_samples = spec.hop_samples
        self.register_buffer("window", torch.hann_window(n_fft))
        filters = functional.melscale_fbanks(
            n_fft // 2 + 1, spec.f_min, spec.f_max, spec.n_mels, spec.sample_rate
        )
        self.register_buffer("filters", filters)

    def forward(self, waveforms):
        # Few operations on the frames of all clips: most clips are too short to be
        # worth one each.
        frames = torch.cat([self._cut(waveform) for waveform in waveforms])
        yield 0, torch.cat([self._log_mel(part) for part in frames.split(CHUNK)])

    def _cut(self, waveform):
        """Return the windows centred on multiples of the hop, zeros around the clip."""
        half = len(self.window) // 2
        padded = F.pad(waveform, (half, len(self.window) - half))
        return padded.unfold(0, len(self.window), self.hop_samples)

    def _log_mel(self, frames):
        power = torch.fft.rfft(frames * self.window).abs().square()
        return torch.log(power @ self.filters + _FLOOR)
