"""From a batch of crops to what a masked autoencoder sees and what it has to tell."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from skaudioemb.encoders.encodecmae_codec import Convolution
from skaudioemb.encoders.encodecmae_frontends import (
    HOP_SAMPLES,
    SAMPLE_RATE,
    MelChunks,
    MelFrontEnd,
)
from skaudioemb.pretraining.targets import CodecTargets, frames_of, places_of


@dataclass(frozen=True)
class Heard:
    """Frames of a batch of crops.

    Attributes
    ----------
    features : tensor of shape (n_clips, n_frames, n_inputs)
        What the encoder takes.
    material : tensor of shape (n_clips, n_frames, n_channels) or None
        What is quantised to targets: the codec's frames, or mel spectra.
    n_whole : ndarray of shape (n_clips,), int
        Frames of each clip that lie in it as a whole; what follows is padding.
    """

    features: torch.Tensor
    material: torch.Tensor | None
    n_whole: np.ndarray

    def padding(self):
        """Return True where no frame is whole, (n_clips, n_frames); None if all are."""
        n_frames = self.features.shape[1]
        if self.n_whole.min() == n_frames:
            return None
        padding = np.arange(n_frames) >= self.n_whole[:, None]
        return torch.from_numpy(padding).to(self.features.device)


class Hearing:
    """Front end and frozen codec, none of which is trained or saved.

    No module, so that no call of ``train`` can reach the codec.

    Parameters
    ----------
    front_end : MelFrontEnd or CodecFrontEnd
        Copied.
    targets : {"codec", "mel"}
    codec : transformers model or None
        See :class:`~skaudioemb.pretraining.targets.CodecTargets`.
    n_codebooks : int
    device : torch.device

    Attributes
    ----------
    rate, hop : int
        Of waveforms in Hz, and of the front end's frames in samples, as they count
        when it comes to how many are whole.

    Raises
    ------
    ValueError
        If the codec is missing, or does not fit.
    """

    def __init__(self, front_end, targets, codec, n_codebooks, device):
        self.front_end = copy.deepcopy(front_end).to(device).eval()
        self.device = device
        self.codec = self.mel = None
        self.rate, self.hop = SAMPLE_RATE, _hop_of(front_end)
        is_mel = isinstance(front_end, MelFrontEnd)
        if targets == "codec":
            self.codec = _codec_targets(codec, n_codebooks, device)
            if is_mel and self.codec.rate != SAMPLE_RATE:
                raise ValueError(
                    f"The codec works at {self.codec.rate} Hz, mel spectra at "
                    f"{SAMPLE_RATE} Hz. Choose a codec of {SAMPLE_RATE} Hz."
                )
            self.rate = self.codec.rate
        else:
            self.mel = self.front_end if is_mel else MelFrontEnd(device)
        self._has_mel = is_mel or self.mel is not None
        # Then the codec runs once for both.
        self._is_one = self.codec is not None and self.codec.shares_encoder(front_end)

    @torch.no_grad()
    def __call__(self, batch, with_material=True):
        """Run the front ends, in full precision.

        Parameters
        ----------
        batch : Batch
            Of crops with zeros after them.
        with_material : bool, default=True
            Whether targets are wanted.

        Returns
        -------
        heard : Heard
        """
        waveforms = self._waveforms(batch)
        material = None
        with torch.autocast(self.device.type, enabled=False):
            features = frames_of(self.front_end, waveforms)
            if with_material:
                is_known = self._is_one or self.mel is self.front_end
                material = features if is_known else self._material(waveforms)
        if material is not None:
            features, material = self._aligned(features, material)
        counts = self._n_whole(batch, self.hop, self._has_mel)
        return Heard(features, material, np.clip(counts, 1, features.shape[1]))

    @torch.no_grad()
    def whole_material(self, batch):
        """Return what is quantised alone, without padding.

        Parameters
        ----------
        batch : Batch

        Returns
        -------
        frames : tensor of shape (n_frames of all clips, n_channels)
        """
        material = self._material(self._waveforms(batch))
        counts = self._n_whole(batch, self._material_hop, self.mel is not None)
        counts = np.clip(counts, 1, material.shape[1])
        return torch.cat([m[:n] for m, n in zip(material, counts, strict=True)])

    def _waveforms(self, batch):
        waveforms = batch.waveforms.to(self.device, non_blocking=True)
        missing = MelChunks.window - waveforms.shape[1]
        return F.pad(waveforms, (0, max(0, missing)))

    def _material(self, waveforms):
        if self.codec is None:
            return frames_of(self.mel, waveforms)
        return self.codec.latents(waveforms)

    @property
    def _material_hop(self):
        return HOP_SAMPLES if self.codec is None else self.codec.hop

    def _n_whole(self, batch, hop, has_mel):
        lengths = batch.lengths.numpy()
        if not has_mel:
            return lengths // hop
        # Spectra lie nearer to each other, but the last one reaches further.
        last = (lengths - MelChunks.window) // MelChunks.shift
        return np.minimum(lengths // hop, last + 1)

    def _aligned(self, features, material):
        """Cut both to the shorter, at the pace of the features."""
        hop = self._material_hop
        places = places_of(features.shape[1], self.hop, material.shape[1], hop)
        features = features[:, : len(places)]
        if hop == self.hop:
            return features, material[:, : len(places)]
        return features, material[:, places.to(self.device)]


def _codec_targets(codec, n_codebooks, device):
    if codec is None:
        raise ValueError(
            "targets='codec' needs a codec and found none. Give one, or choose "
            "targets='mel', which needs none."
        )
    return CodecTargets(codec, n_codebooks, device)


def _hop_of(front_end):
    if isinstance(front_end, MelFrontEnd):
        return HOP_SAMPLES
    strides = (b.stride for b in front_end.blocks if isinstance(b, Convolution))
    return int(np.prod(list(strides)))
