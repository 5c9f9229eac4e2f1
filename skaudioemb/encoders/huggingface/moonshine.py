"""The encoder of Moonshine."""

import numpy as np
import torch

from skaudioemb.encoders.conv_stem import receptive_field
from skaudioemb.encoders.huggingface.base import Family
from skaudioemb.encoders.huggingface.spectrograms import load_part
from skaudioemb.encoders.wav2vec2 import standardised

# They are fixed in the model's code.
_KERNELS, _STRIDES = (127, 7, 3), (64, 3, 2)


class Moonshine(Family):
    """The encoder of Moonshine (Jeffries et al., 2024), which takes samples.

    Its stem normalises over all of a clip, so that clips run with clips of their
    length.
    """

    min_samples = receptive_field(_KERNELS, _STRIDES)
    hop_samples = 64 * 3 * 2

    def __init__(self, config, preprocessor, source):
        super().__init__(config, preprocessor, source)
        self.n_layers = config.encoder_num_hidden_layers + 1

    def n_frames(self, n_samples):
        return (n_samples - self.min_samples) // self.hop_samples + 1

    def times_of(self, n_samples):
        starts = np.arange(self.n_frames(n_samples)) * self.hop_samples
        return (starts + self.min_samples / 2) / self.sample_rate

    def load(self):
        from transformers.models.moonshine.modeling_moonshine import MoonshineEncoder

        return load_part(self.source, MoonshineEncoder, self.config, "encoder.")

    def prepare(self, waveform):
        is_scaled = self.preprocessor.get("do_normalize", False)
        return standardised(waveform) if is_scaled else waveform

    def blocks(self, model):
        return model.layers

    def run(self, model, waveforms):
        return model(torch.stack(waveforms)).last_hidden_state
