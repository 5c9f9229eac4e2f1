"""What every encoder offers: a spec known without weights, and a network."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from torch import nn


class Window(NamedTuple):
    """A part of a clip that runs through the encoder by itself.

    Attributes
    ----------
    start, stop : int
        Its samples.
    skip : int
        Leading frames that the window before has given already.
    """

    start: int
    stop: int
    skip: int = 0


class EncoderSpec(ABC):
    """Everything known of an encoder before its weights are loaded.

    Subclasses are frozen dataclasses whose fields are hashable: two equal specs
    name the same network, and the process-wide cache of weights relies on it.
    They set these attributes, as fields or properties.

    Attributes
    ----------
    sample_rate : int
        Rate of the waveforms that the network takes, in Hz.
    n_features : int
        Width of one frame.
    n_layers : int
        Number of layers that :meth:`Encoder.forward` yields.
    min_samples : int
        Length of the receptive field; shorter clips are zero-padded to it.
    identity : str
        Names the numbers that come out: the model, its weights' content and every
        setting that changes frames. Never a path, a device or a batch size.
    mixes_lengths : bool
        Whether clips of different lengths can run together.
    """

    mixes_lengths = True

    @abstractmethod
    def n_frames(self, n_samples):
        """Return the number of frames of a clip of ``n_samples`` samples."""

    def times_of(self, n_samples):
        """Return the centres of a clip's frames in seconds, float64.

        Where these follow from the number of frames, a subclass has ``frame_times``
        instead.
        """
        return self.frame_times(self.n_frames(n_samples))

    def windows(self, n_samples):
        """Return the :class:`Window` that a clip is cut into, whole by default."""
        return [Window(0, n_samples)]

    def run_samples(self, n_samples):
        """Return how many samples go through the network for ``n_samples``.

        More than these where the model completes its windows.
        """
        return n_samples

    @abstractmethod
    def load(self, device, dtype):
        """Return the :class:`Encoder`, in eval mode, ready on ``device``."""


class RegularFrames:
    """Frame arithmetic of a stack of strided windows without padding.

    Needs ``sample_rate``, ``min_samples`` (window) and ``hop_samples``.
    """

    def n_frames(self, n_samples):
        return (max(n_samples, self.min_samples) - self.min_samples) // (
            self.hop_samples
        ) + 1

    def frame_times(self, n_frames):
        starts = np.arange(n_frames, dtype=np.float64) * self.hop_samples
        return (starts + self.min_samples / 2) / self.sample_rate


class Encoder(nn.Module, ABC):
    """A frozen network from waveforms to the frames of every layer."""

    @abstractmethod
    def forward(self, waveforms):
        """Yield the frames of one layer after the other.

        Parameters
        ----------
        waveforms : list of Tensor of shape (n_samples,)
            Float32 clips at the encoder's rate on the encoder's device, each at
            least ``min_samples`` long. Lengths may differ.

        Yields
        ------
        layer : int
            From 0 to ``n_layers - 1``, ascending.
        frames : Tensor of shape (sum of n_frames, n_features)
            The clips' frames one clip after the other. A clip's frames do not
            depend on its neighbours. The consumer may keep no reference to it
            beyond the next iteration.
        """

    def prepare(self, waveform):
        """Return a whole clip as its windows see it, at its old length."""
        return waveform

    def stream(self, waveforms, consume):
        """Call ``consume(layer, frames)`` with what :meth:`forward` yields."""
        for layer, frames in self(waveforms):
            consume(layer, frames)
