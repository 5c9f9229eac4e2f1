"""Audio transformers that see a spectrogram of one size as an image."""

import numpy as np
import torch

from skaudioemb.encoders.base import Window
from skaudioemb.encoders.huggingface.spectrograms import (
    FixedWindow,
    Spectrograms,
    Windowed,
)
from skaudioemb.resampling import import_torchaudio


class Patches(Windowed):
    """Models whose frames are the patches of one moment.

    Attributes
    ----------
    patch_samples : int
        What a patch sees.
    """

    def n_frames(self, n_samples):
        return max(1, (n_samples - self.patch_samples) // self.frame_hop + 1)

    def times_of(self, n_samples):
        starts = np.arange(self.n_frames(n_samples)) * self.frame_hop
        # A patch that is not full is that of the whole clip.
        middle = min(self.patch_samples, n_samples) / 2
        return (starts + middle) / self.sample_rate


class AST(Patches, FixedWindow):
    """Audio Spectrogram Transformer (Gong et al., 2021).

    The model sees ``max_length`` spectra of 25 ms every 10 ms as a grid of patches.
    The patches of one moment are averaged over frequency to a frame; the two tokens
    of the whole are left out, and so are patches past the end of a clip.
    """

    extractor_class = "ASTFeatureExtractor"

    def __init__(self, config, preprocessor, source):
        # Without torchaudio the extractor gives other numbers.
        import_torchaudio()
        super().__init__(config, preprocessor, source)
        self.check("max_length", self.extractor.max_length, config.max_length)
        self.check("num_mel_bins", self.extractor.num_mel_bins, config.num_mel_bins)
        patch, stride = config.patch_size, config.time_stride
        self.min_samples = int(self.sample_rate * 0.025)
        self.spectrum_hop = int(self.sample_rate * 0.01)
        self.frame_hop = stride * self.spectrum_hop
        self.patch_samples = (patch - 1) * self.spectrum_hop + self.min_samples
        self.window_frames = (config.max_length - patch) // stride + 1
        self.window_samples = (
            self.window_frames - 1
        ) * self.frame_hop + self.patch_samples

    def usual_settings(self):
        names = ("max_length", "num_mel_bins")
        return {name: getattr(self.config, name) for name in names}

    def load(self):
        from transformers import ASTModel

        return self.source.load(ASTModel, self.config)

    def blocks(self, model):
        return model.layers

    def run(self, model, waveforms):
        features = [self.extract(waveform)["input_values"] for waveform in waveforms]
        return model(torch.cat(features)).last_hidden_state

    def frames(self, hidden, lengths):
        patches = hidden[:, 2:].unflatten(1, (-1, self.window_frames))
        return super().frames(patches.float().mean(dim=1), lengths)


class EAT(Patches):
    """Efficient Audio Transformer (Chen et al., 2024), by the checkpoint's own code.

    The model has no feature extractor: the spectrogram is the one that its authors
    describe, 128 mel bands of 25 ms every 10 ms, scaled by the mean and deviation of
    AudioSet. Shorter clips are completed to 1024 spectra, for it was trained on 10 s.
    """

    # Every clip is completed to the same size, so that any clips may share a batch.
    mixes_lengths = True
    mean, deviation = -4.268, 4.569

    def __init__(self, config, preprocessor, source):
        self.fbank = import_torchaudio().compliance.kaldi.fbank
        self.config, self.preprocessor, self.source = config, preprocessor, source
        self.sample_rate, self.n_layers = 16000, 1
        self.n_features = config.embed_dim
        self.min_samples, spectrum_hop, patch = 400, 160, 16
        self.n_spectra, self.n_bands = 1024, 128
        self.frame_hop = patch * spectrum_hop
        self.patch_samples = (patch - 1) * spectrum_hop + self.min_samples
        self.window_frames = self.n_spectra // patch
        self.window_samples = (
            self.window_frames - 1
        ) * self.frame_hop + self.patch_samples

    def load(self):
        model_class = self.source.own_class(self.source.own_classes["AutoModel"])
        return self.source.load(model_class, self.config)

    def prepare(self, waveform):
        return waveform - waveform.mean()

    def run(self, model, waveforms):
        images = torch.stack([self._image(waveform) for waveform in waveforms])
        return model.extract_features(images.to(waveforms[0].device))

    def _image(self, waveform):
        """Return the scaled spectrogram, shape (1, n_spectra, n_bands)."""
        with torch.autocast("cpu", enabled=False):
            spectra = self.fbank(
                waveform[None].cpu(),
                htk_compat=True,
                sample_frequency=self.sample_rate,
                use_energy=False,
                window_type="hanning",
                num_mel_bins=self.n_bands,
                dither=0.0,
                frame_shift=10,
            )
        image = torch.zeros(self.n_spectra, self.n_bands)
        image[: len(spectra)] = spectra
        return ((image - self.mean) / (2 * self.deviation))[None]

    def frames(self, hidden, lengths):
        # The first token stands for the whole clip.
        patches = hidden[:, 1:].unflatten(1, (self.window_frames, -1))
        return super().frames(patches.float().mean(dim=2), lengths)


class CLAP(Spectrograms):
    """The audio tower of CLAP (Wu et al., 2023), with its projection.

    The model embeds 10 s as one vector of unit length, a shorter clip by repetition.
    Of a longer clip, transformers' extractor takes crops at random; here it runs in
    windows of 10 s, each of which gives one frame. The last window begins earlier, so
    that it is full too.
    """

    extractor_class = "ClapFeatureExtractor"

    def __init__(self, config, preprocessor, source):
        config = getattr(config, "audio_config", config)
        super().__init__(config, preprocessor, source)
        self.n_features, self.n_layers = config.projection_dim, 1
        self.check("feature_size", self.extractor.feature_size, config.num_mel_bins)
        if not config.enable_fusion:
            # "fusion" would stack four spectrograms where the model takes one.
            self.check("truncation", self.extractor.truncation, "rand_trunc")
        self.window_samples = int(self.extractor.nb_max_samples)

    def usual_settings(self):
        truncation = "fusion" if self.config.enable_fusion else "rand_trunc"
        return {**super().usual_settings(), "truncation": truncation}

    def own_windows(self, n_samples):
        size = min(self.window_samples, n_samples)
        starts = [*range(0, n_samples - size, size), n_samples - size]
        return [Window(start, start + size) for start in starts]

    def n_frames(self, n_samples):
        return 1

    def times_of(self, n_samples):
        return np.array([n_samples / 2 / self.sample_rate])

    def load(self):
        from transformers import ClapAudioModelWithProjection

        return self.source.load(ClapAudioModelWithProjection, self.config)

    def run(self, model, waveforms):
        features = [self.extract(waveform)["input_features"] for waveform in waveforms]
        # The extractor calls a random clip of a batch longer than the window.
        is_longer = torch.zeros(len(features), 1, dtype=torch.bool)
        embeddings = model(torch.cat(features), is_longer=is_longer).audio_embeds
        return torch.nn.functional.normalize(embeddings, dim=-1)[:, None]
