"""Speech transformers that take samples, cousins of wav2vec 2.0."""

from math import prod

import numpy as np
import torch

from skaudioemb.encoders.conv_stem import receptive_field
from skaudioemb.encoders.huggingface.base import Family
from skaudioemb.encoders.wav2vec2 import standardised


class Waveforms(Family):
    """data2vec and Conformers: a convolutional stem, and a transformer.

    Padding would leak through the stacked positional convolutions, or through the
    convolutions of the blocks, past any mask: clips run with clips of their length.
    """

    def __init__(self, config, preprocessor, source):
        super().__init__(config, preprocessor, source)
        self.min_samples = receptive_field(config.conv_kernel, config.conv_stride)
        self.hop_samples = prod(config.conv_stride)
        # data2vec has layer norm without saying so.
        norm = getattr(config, "feat_extract_norm", "layer")
        self.do_normalize = preprocessor.get("do_normalize", norm == "layer")

    def n_frames(self, n_samples):
        return (n_samples - self.min_samples) // self.hop_samples + 1

    def times_of(self, n_samples):
        starts = np.arange(self.n_frames(n_samples)) * self.hop_samples
        return (starts + self.min_samples / 2) / self.sample_rate

    def load(self):
        from transformers import MODEL_MAPPING

        return self.source.load(MODEL_MAPPING[type(self.config)], self.config)

    def prepare(self, waveform):
        return standardised(waveform) if self.do_normalize else waveform

    def blocks(self, model):
        return model.encoder.layers

    def run(self, model, waveforms):
        return model(torch.stack(waveforms)).last_hidden_state


class Squeezed(Waveforms):
    """SEW and SEW-D, whose blocks run at half the frame rate of their output.

    Hidden states are repeated to the output's rate. Where the stem gives an odd
    number of frames, the model completes its output with a frame of zeros, which is
    left out.
    """

    def __init__(self, config, preprocessor, source):
        super().__init__(config, preprocessor, source)
        self.frames_per_hop = config.squeeze_factor
        self.frame_samples, self.frame_hop = self.min_samples, self.hop_samples
        self.min_samples += (self.frames_per_hop - 1) * self.frame_hop
        self.hop_samples *= self.frames_per_hop

    def n_frames(self, n_samples):
        return super().n_frames(n_samples) * self.frames_per_hop

    def times_of(self, n_samples):
        starts = np.arange(self.n_frames(n_samples)) * self.frame_hop
        return (starts + self.frame_samples / 2) / self.sample_rate

    def blocks(self, model):
        encoder = getattr(model.encoder, "encoder", model.encoder)
        return getattr(encoder, "layers", None) or encoder.layer

    def frames(self, hidden, lengths):
        count = self.n_frames(lengths[0])
        if hidden.shape[1] < count:
            hidden = hidden.repeat_interleave(self.frames_per_hop, dim=1)
        return list(hidden[:, :count])
