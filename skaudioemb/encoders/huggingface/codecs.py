"""Neural codecs: what goes into the quantiser, before anything is rounded.

Padding reaches the frames of a codec through convolutions without a mask, so clips
run with clips of their length. Long clips run in pieces, each encoded by itself:
recurrence and attention begin anew at a cut.
"""

from math import ceil

import numpy as np
import torch
from torch.nn import functional as F

from skaudioemb.encoders.base import Window
from skaudioemb.encoders.huggingface.base import Family

# Parts that encode nothing, which a checkpoint may have left out.
_DECODING = ("decoder", "quantizer", "upsample")


class Codec(Family):
    """A codec that gives a frame for every ``frame_samples`` samples, begun or whole.

    Attributes
    ----------
    frame_samples : int
        Product of the strides.
    """

    def __init__(self, config, preprocessor, source):
        self.config = config
        self.preprocessor = preprocessor
        self.source = source
        self.sample_rate = preprocessor.get("sampling_rate", config.sampling_rate)
        self.n_features = config.hidden_size
        self.n_layers = 1
        self.frame_samples = self._frame_samples()
        self.hop_samples = self.min_samples = self.frame_samples

    def _frame_samples(self):
        return int(self.config.hop_length)

    def n_frames(self, n_samples):
        return ceil(n_samples / self.frame_samples)

    def times_of(self, n_samples):
        positions = np.arange(self.n_frames(n_samples)) + 0.5
        return positions * self.frame_samples / self.sample_rate

    def load(self):
        from transformers import MODEL_MAPPING

        model_class = MODEL_MAPPING[type(self.config)]
        return self.source.load(model_class, self.config, unused=_DECODING).encoder

    def run(self, model, waveforms):
        return model(self.batch_of(waveforms)).transpose(1, 2)

    def batch_of(self, waveforms):
        """Return the input of the model, (n_clips, n_channels, n_samples)."""
        return torch.stack(waveforms)[:, None]


class DAC(Codec):
    """The Descript Audio Codec.

    Clips are completed with zeros to a whole number of frames, as the feature
    extractor of transformers and the published code do.

    Kumar et al., High-Fidelity Audio Compression with Improved RVQGAN, NeurIPS 2023.
    """

    def batch_of(self, waveforms):
        batch = super().batch_of(waveforms)
        return F.pad(batch, (0, -batch.shape[-1] % self.frame_samples))


class EnCodec(Codec):
    """EnCodec, whose encoder ends in a recurrent network.

    Stereo models hear a clip on both channels. Models that encode chunks, as the one
    of 48 kHz does with 1 s, do so here in windows of that length. The model lets
    chunks overlap by a hundredth, for its decoder to fade from one to the next; here
    they follow each other, the last one begins early enough to be whole, and a
    shorter clip is not completed with zeros, which would change its scale.

    Défossez et al., High Fidelity Neural Audio Compression, TMLR 2023, section 3.
    """

    def __init__(self, config, preprocessor, source):
        super().__init__(config, preprocessor, source)
        if config.chunk_length is not None:
            n_frames = max(1, config.chunk_length // self.frame_samples)
            self.window_samples = n_frames * self.frame_samples
            self.hop_samples = None

    def own_windows(self, n_samples):
        size = self.window_samples // self.frame_samples
        n_frames = self.n_frames(n_samples)
        windows = []
        for first in range(0, n_frames, size):
            start = max(0, min(first, n_frames - size))
            stop = min(start * self.frame_samples + self.window_samples, n_samples)
            windows.append(Window(start * self.frame_samples, stop, first - start))
        return windows

    def batch_of(self, waveforms):
        batch = super().batch_of(waveforms)
        if self.config.normalize:
            # The constant of the model.
            batch = batch / (batch.square().mean(-1, keepdim=True).sqrt() + 1e-8)
        return batch.expand(-1, self.config.audio_channels, -1)


class Mimi(Codec):
    """Mimi, whose frames go through a transformer and are halved in number.

    Défossez et al., Moshi: a speech-text foundation model for real-time dialogue,
    2024, section 3.3.
    """

    def _frame_samples(self):
        return round(self.config.sampling_rate / self.config.frame_rate)

    def load(self):
        from transformers import MimiModel

        model = self.source.load(MimiModel, self.config, unused=_DECODING)
        # Which of them holds the three parts depends on the version of transformers.
        return model.encoder if hasattr(model.encoder, "downsample") else model

    def run(self, model, waveforms):
        stem = getattr(model, "encoder_seanet", None) or model.encoder
        frames = stem(self.batch_of(waveforms)).transpose(1, 2)
        hidden = model.encoder_transformer(frames).last_hidden_state
        return model.downsample(hidden.transpose(1, 2)).transpose(1, 2)
