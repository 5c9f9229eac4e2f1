"""Log-mel spectrograms as BYOL-A and BYOL-S see them.

Three settings are in use, and they are not exchangeable: the Hann window is 1024 or 400
samples long, mel bands follow the HTK or the Slaney scale.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from skaudioemb.audio import import_torchaudio
from skaudioemb.encoders.byol_blocks import N_MELS

SAMPLE_RATE = 16000
HOP = 160
N_FFT = 1024
# What reflection at the edges needs.
MIN_SAMPLES = N_FFT // 2 + 1
LOG_EPS = float(np.finfo(np.float32).eps)
# Frames transformed at once.
CHUNK = 4096


class _Settings(NamedTuple):
    win_length: int
    mel_scale: str
    norm: str | None


FRONTENDS = {
    "byol-a": _Settings(1024, "htk", None),
    "byol-a-v2": _Settings(1024, "slaney", "slaney"),
    "byol-s": _Settings(400, "htk", None),
}


def n_mel_frames(n_samples):
    """Return the number of log-mel frames of ``n_samples`` samples at 16 kHz."""
    return n_samples // HOP + 1


class ByolFrontend(nn.Module):
    """Waveforms to log-mel spectrograms of 64 bands from 60 to 7800 Hz.

    Frames come every 10 ms, frame ``i`` centred on sample ``160 * i``; the clip is
    reflected at its ends. Power, natural logarithm, not normalised.

    Parameters
    ----------
    name : {"byol-a", "byol-a-v2", "byol-s"}
        A window of 1024 samples and HTK's mel scale, that window and Slaney's scale
        with bands of equal area, or a window of 400 samples and HTK's scale.

    Raises
    ------
    ValueError
        If ``name`` is not known.

    References
    ----------
    D. Niizumi et al., IJCNN 2021, section IV-A; the same, TASLP 2023, section V-A;
    G. Elbanna et al., HEAR 2021, PMLR 166, section 3.1. Window, scale and padding are
    those of their code.

    Examples
    --------
    >>> import torch
    >>> from skaudioemb.encoders.byol_frontend import ByolFrontend
    >>> ByolFrontend("byol-s")(torch.zeros(2, 15200)).shape
    torch.Size([2, 1, 64, 96])
    """

    sample_rate = SAMPLE_RATE
    hop = HOP
    min_samples = MIN_SAMPLES

    def __init__(self, name):
        super().__init__()
        if name not in FRONTENDS:
            known = ", ".join(map(repr, FRONTENDS))
            raise ValueError(f"frontend={name!r} is not known. Choose one of {known}.")
        self.name = name
        settings = FRONTENDS[name]
        self.mel = import_torchaudio().transforms.MelSpectrogram(
            SAMPLE_RATE,
            n_fft=N_FFT,
            win_length=settings.win_length,
            hop_length=HOP,
            f_min=60.0,
            f_max=7800.0,
            n_mels=N_MELS,
            power=2.0,
            center=False,
            norm=settings.norm,
            mel_scale=settings.mel_scale,
        )

    def forward(self, waveforms):
        """Return log-mel spectrograms.

        Parameters
        ----------
        waveforms : Tensor of shape (n_clips, n_samples)
            Float32 at 16 kHz, in [-1, 1], at least 513 samples.

        Returns
        -------
        log_mel : Tensor of shape (n_clips, 1, 64, n_samples // 160 + 1)

        Raises
        ------
        ValueError
            If there are fewer samples.
        """
        n_samples = waveforms.shape[-1]
        if n_samples < MIN_SAMPLES:
            raise ValueError(
                f"The waveforms have {n_samples} samples, and reflection at their ends "
                f"needs {MIN_SAMPLES}. Pad them with zeros."
            )
        padded = F.pad(waveforms[:, None], (N_FFT // 2, N_FFT // 2), mode="reflect")
        n_frames = n_mel_frames(n_samples)
        parts = [
            self._log_mel(padded[..., start * HOP : (stop - 1) * HOP + N_FFT])
            for start, stop in _spans(n_frames, CHUNK)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _log_mel(self, padded):
        return torch.log(self.mel(padded) + LOG_EPS)


def _spans(total, size):
    return [(start, min(start + size, total)) for start in range(0, total, size)]
