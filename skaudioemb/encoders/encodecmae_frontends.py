"""What EncodecMAE hears: frames of a codec before quantisation, or mel spectra.

Clips are cut into chunks of 4 s that know nothing of each other. Both front ends give
the frames of many chunks one after the other, each as if it were alone.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import nn

from skaudioemb.audio import import_torchaudio
from skaudioemb.encoders.base import EncoderSpec, Window

SAMPLE_RATE = 24000
CHUNK_SECONDS = 4
# Samples that count as one frame when it comes to which frames are whole; the mel
# front end's frames are nearer to each other by two samples.
HOP_SAMPLES = 320
# Mean and deviation of the logarithms over the training set.
_MEL_MEAN, _MEL_DEVIATION = -6.12, 4.82
# Frames transformed at once.
_MEL_FRAMES = 1024


class Chunks:
    """Frames of clips that run in chunks.

    A subclass has ``sample_rate``, ``chunk_samples``, ``min_samples`` (of a clip) and
    ``min_tail`` (of its last chunk), ``hop`` between frames, and counts frames.
    """

    min_tail = 1

    def windows(self, n_samples):
        """Return the :class:`~skaudioemb.encoders.base.Window` of each chunk."""
        starts = range(0, n_samples, self.chunk_samples)
        windows = [Window(s, min(s + self.chunk_samples, n_samples)) for s in starts]
        if len(windows) > 1 and n_samples - windows[-1].start < self.min_tail:
            windows.pop()
        return windows

    def n_frames(self, n_samples):
        """Return the number of frames of a clip."""
        windows = self.windows(max(n_samples, self.min_samples))
        return sum(self.chunk_frames(w.stop - w.start) for w in windows)

    def times_of(self, n_samples):
        """Return the times of a clip's frames in seconds, float64."""
        windows = self.windows(max(n_samples, self.min_samples))
        counts = [self.chunk_frames(w.stop - w.start) for w in windows]
        places = [
            w.start + (np.arange(n) + 0.5) * self.hop
            for w, n in zip(windows, counts, strict=True)
        ]
        return np.concatenate(places) / self.sample_rate

    def n_whole(self, n_samples):
        """Return how many frames of a chunk are attended to: whole ones, or the only.

        A last frame that has but begun is embedded, but no frame attends to it.
        """
        return min(max(1, n_samples // self.hop), self.chunk_frames(n_samples))


@dataclass(frozen=True)
class CodecChunks(Chunks):
    """A frame for every ``hop`` samples, begun or whole.

    Examples
    --------
    >>> from skaudioemb.encoders.encodecmae_frontends import CodecChunks
    >>> chunks = CodecChunks()
    >>> chunks.n_frames(120001), chunks.n_whole(24001)
    (376, 75)
    """

    sample_rate: int = SAMPLE_RATE
    hop: int = HOP_SAMPLES
    min_samples = 1

    @property
    def chunk_samples(self):
        return CHUNK_SECONDS * self.sample_rate // self.hop * self.hop

    def chunk_frames(self, n_samples):
        return ceil(n_samples / self.hop)


@dataclass(frozen=True)
class MelChunks(Chunks):
    """A frame of 637 samples every 318; a tail under 637 samples has none.

    Frame ``i`` stands at ``(i + 0.5) / 75`` s, as in the published code: up to 7 ms
    before the centre of its window where a chunk begins, and 18 ms behind it where a
    full one ends.

    Examples
    --------
    >>> from skaudioemb.encoders.encodecmae_frontends import MelChunks
    >>> MelChunks().n_frames(24000), MelChunks().times_of(24000)[:2]
    (74, array([0.00666667, 0.02      ]))
    """

    sample_rate = SAMPLE_RATE
    chunk_samples = CHUNK_SECONDS * SAMPLE_RATE
    hop = HOP_SAMPLES
    # 26.56 and 13.28 ms, floored.
    window = min_samples = min_tail = 637
    shift = 318

    def chunk_frames(self, n_samples):
        return 1 + (n_samples - self.window) // self.shift


class ChunkedSpec(EncoderSpec):
    """What follows from an attribute ``chunks``."""

    @property
    def sample_rate(self):
        return self.chunks.sample_rate

    @property
    def min_samples(self):
        return self.chunks.min_samples

    def n_frames(self, n_samples):
        return self.chunks.n_frames(n_samples)

    def times_of(self, n_samples):
        return self.chunks.times_of(n_samples)

    def windows(self, n_samples):
        return self.chunks.windows(n_samples)


class MelFrontEnd(nn.Module):
    """Normalised logarithms of 256 mel bands, as Kaldi computes them.

    The mean of each frame is removed, high frequencies are raised by a first
    difference with 0.97, and a symmetric Hann window is applied; bands lie between 20
    and 12000 Hz.

    Parameters
    ----------
    device : torch.device
    """

    n_features = 256

    def __init__(self, device):
        super().__init__()
        import_torchaudio()
        from torchaudio.compliance import kaldi

        self.n_fft = 1024
        banks, _ = kaldi.get_mel_banks(
            self.n_features, self.n_fft, SAMPLE_RATE, 20.0, 0.0, 100.0, -500.0, 1.0
        )
        banks = torch.nn.functional.pad(banks, (0, 1))
        window = torch.hann_window(MelChunks.window, periodic=False)
        self.register_buffer("banks", banks.T.contiguous().to(device))
        self.register_buffer("window", window.to(device))

    def forward(self, waveforms):
        """Return the spectra of all chunks, (sum of n_frames, 256).

        Parameters
        ----------
        waveforms : list of Tensor of shape (n_samples,)
        """
        frames = [
            clip.unfold(0, MelChunks.window, MelChunks.shift) for clip in waveforms
        ]
        parts = torch.cat(frames).split(_MEL_FRAMES)
        return torch.cat([self._log_mel(part) for part in parts])

    def _log_mel(self, frames):
        frames = frames - frames.mean(1, keepdim=True)
        before = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
        frames = (frames - 0.97 * before) * self.window
        power = torch.fft.rfft(frames, n=self.n_fft).abs().square()
        mel = (power @ self.banks).clamp_min(torch.finfo(torch.float32).eps).log()
        return (mel - _MEL_MEAN) / _MEL_DEVIATION
