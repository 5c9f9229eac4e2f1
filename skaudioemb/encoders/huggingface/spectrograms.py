"""Speech transformers that take the log-mel spectrogram of a feature extractor.

Features are extracted by transformers' own extractor, clip by clip and on the CPU, so
that no clip's features depend on the batch. Where an extractor normalises a clip by
its own mean, deviation or maximum and the clip runs in windows, each window is
normalised by itself, as the model saw its training clips.
"""

from abc import abstractmethod
from importlib import import_module
from math import ceil

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from skaudioemb.encoders import checkpoint as files
from skaudioemb.encoders.base import Window
from skaudioemb.encoders.huggingface.base import Family
from skaudioemb.encoders.pretrained import load_pretrained


class Spectrograms(Family):
    """Models with a feature extractor.

    Attributes
    ----------
    extractor_class : str
        Name of the extractor in transformers.
    extractor : SequenceFeatureExtractor
        With the settings of the checkpoint, or else with those that are usual for the
        model's kind.

    Raises
    ------
    ValueError
        If the checkpoint comes with an extractor of another kind, or with one that
        does not fit the model.
    """

    extractor_class = None
    mixes_lengths = True

    def __init__(self, config, preprocessor, source):
        super().__init__(config, preprocessor, source)
        self.extractor = self._make_extractor()
        self.sample_rate = self.extractor.sampling_rate

    def _make_extractor(self):
        import transformers

        extractor_class = getattr(transformers, self.extractor_class)
        if not self.preprocessor:
            return extractor_class(**self.usual_settings())
        found = self.preprocessor.get("feature_extractor_type", self.extractor_class)
        if found != self.extractor_class:
            raise ValueError(
                f"{files.PREPROCESSOR_FILE} of {str(self.source.folder)!r} describes a "
                f"{found}, but a {self.config.model_type!r} model takes the features "
                f"of a {self.extractor_class}. Save the model's own extractor there, "
                "or remove the file for the usual settings."
            )
        return extractor_class.from_dict(self.preprocessor)

    def usual_settings(self):
        """Return settings of the extractor that fit the model, a dict."""
        return {"feature_size": self.config.num_mel_bins}

    def check(self, what, found, expected):
        """Raise a ValueError if a setting of the extractor does not fit the model."""
        if found != expected:
            raise ValueError(
                f"{files.PREPROCESSOR_FILE} of {str(self.source.folder)!r} gives "
                f"{what} = {found}, but the {self.config.model_type!r} model takes "
                f"{expected}. Save the extractor that the model was trained with."
            )

    def extract(self, waveform):
        """Return what the extractor gives for one clip, on the model's device.

        Parameters
        ----------
        waveform : Tensor of shape (n_samples,)

        Returns
        -------
        inputs : dict
            From the name of an input to a Tensor whose first axis has length 1.
        """
        samples = waveform.cpu().numpy()
        # Half precision is for the network: spectrograms are not exact in it.
        with torch.autocast("cpu", enabled=False):
            inputs = self.extractor(
                samples, sampling_rate=self.sample_rate, return_tensors="pt"
            )
        return {name: value.to(waveform.device) for name, value in inputs.items()}


class Masked(Spectrograms):
    """Models whose attention mask makes padded features exact."""

    def run(self, model, waveforms):
        inputs = [self.extract(waveform) for waveform in waveforms]
        return model(
            **{
                name: pad_sequence([own[name][0] for own in inputs], batch_first=True)
                for name in ("input_features", "attention_mask")
            }
        ).last_hidden_state


class Wav2Vec2Bert(Masked):
    """Wav2Vec2-BERT (Seamless Communication et al., 2023).

    A frame is a group of ``stride`` spectra of 25 ms every 10 ms. Each mel band has
    zero mean and unit variance over the clip, or over the window of a long clip.
    """

    extractor_class = "SeamlessM4TFeatureExtractor"

    def __init__(self, config, preprocessor, source):
        super().__init__(config, preprocessor, source)
        if config.add_adapter:
            raise ValueError(
                f"The checkpoint {str(source.folder)!r} has add_adapter=True: its "
                "adapter gives the last layer another frame rate than the layers "
                "before. Save the model without it (config.add_adapter = False)."
            )
        extractor = self.extractor
        # The extractor's mask has no frames for any other stride.
        self.check("stride", extractor.stride, 2)
        self.check(
            "num_mel_bins * stride",
            extractor.num_mel_bins * extractor.stride,
            config.feature_projection_input_dim,
        )
        # Kaldi's spectra, which the extractor computes, at 16 kHz.
        self.hop_samples = 160 * extractor.stride
        self.min_samples = 400 + 160 * (extractor.stride - 1)

    def usual_settings(self):
        n_mels = self.config.feature_projection_input_dim // 2
        return {"feature_size": n_mels, "num_mel_bins": n_mels}

    def n_frames(self, n_samples):
        return (n_samples - self.min_samples) // self.hop_samples + 1

    def times_of(self, n_samples):
        starts = np.arange(self.n_frames(n_samples)) * self.hop_samples
        return (starts + self.min_samples / 2) / self.sample_rate

    def load(self):
        from transformers import Wav2Vec2BertModel

        return self.source.load(Wav2Vec2BertModel, self.config)

    def blocks(self, model):
        return model.encoder.layers


class Parakeet(Masked):
    """The encoder of Parakeet, a FastConformer (Rekesh et al., 2023).

    Spectra are centred on multiples of 10 ms, and every eighth is a frame. Each mel
    band has zero mean and unit variance over the clip, or over the window of a long
    clip.
    """

    extractor_class = "ParakeetFeatureExtractor"

    def __init__(self, config, preprocessor, source):
        config = getattr(config, "encoder_config", config)
        super().__init__(config, preprocessor, source)
        self.check("feature_size", self.extractor.feature_size, config.num_mel_bins)
        self.spectrum_hop = self.extractor.hop_length
        self.hop_samples = self.spectrum_hop * config.subsampling_factor
        self.min_samples = self.hop_samples

    def load(self):
        from transformers import ParakeetEncoder

        return load_part(self.source, ParakeetEncoder, self.config, "encoder.")

    def n_frames(self, n_samples):
        n_spectra = n_samples // self.spectrum_hop
        return ceil(n_spectra / self.config.subsampling_factor)

    def times_of(self, n_samples):
        starts = np.arange(self.n_frames(n_samples)) * self.hop_samples
        return starts / self.sample_rate

    def blocks(self, model):
        return model.layers


class Windowed(Family):
    """Models that see a window of one length, which is completed for a shorter clip.

    A long clip runs in such windows. They begin on the grid of frames, and the last
    one begins earlier, so that it is full too; it skips the frames that the window
    before has given.

    Attributes
    ----------
    window_frames : int
    frame_hop : int
        In samples.
    """

    def own_windows(self, n_samples):
        total, windows = self.n_frames(n_samples), []
        for first in range(0, total, self.window_frames):
            frame = max(0, min(first, total - self.window_frames))
            start = frame * self.frame_hop
            stop = min(start + self.window_samples, n_samples)
            windows.append(Window(start, stop, first - frame))
        return windows

    @abstractmethod
    def n_frames(self, n_samples):
        """Return the number of frames of ``n_samples`` samples, window or more."""


class FixedWindow(Windowed, Spectrograms):
    """Models whose extractor completes the window."""


class Whisper(FixedWindow):
    """The encoder of Whisper (Radford et al., 2022).

    The model hears 30 s, silence after a shorter clip's end; frames of that silence
    are left out. Frames are centred on multiples of 20 ms. Spectra are raised to 80 dB
    below the loudest one of their window.
    """

    extractor_class = "WhisperFeatureExtractor"
    # Module and class in transformers, and the name of the encoder in a whole model.
    encoder = ("whisper", "WhisperEncoder", "encoder.")

    def __init__(self, config, preprocessor, source):
        super().__init__(config, preprocessor, source)
        # Noise of an extractor's dither would change embeddings from run to run.
        self.extractor.dither = 0.0
        self.window_frames = config.max_source_positions
        self.frame_hop = 2 * self.extractor.hop_length
        self.window_samples = self.window_frames * self.frame_hop
        self.check("feature_size", self.extractor.feature_size, config.num_mel_bins)
        self.check(
            "chunk_length * sampling_rate",
            self.extractor.n_samples,
            self.window_samples,
        )

    def usual_settings(self):
        seconds = self.config.max_source_positions * 320 // 16000
        return {**super().usual_settings(), "chunk_length": seconds}

    def n_frames(self, n_samples):
        return ceil(n_samples / self.frame_hop)

    def times_of(self, n_samples):
        return np.arange(self.n_frames(n_samples)) * self.frame_hop / self.sample_rate

    def load(self):
        module, name, prefix = self.encoder
        code = import_module(f"transformers.models.{module}.modeling_{module}")
        return load_part(self.source, getattr(code, name), self.config, prefix)

    def blocks(self, model):
        return model.layers

    def run(self, model, waveforms):
        features = [self.extract(waveform)["input_features"] for waveform in waveforms]
        return model(torch.cat(features)).last_hidden_state


class Voxtral(Whisper):
    """The audio encoder of Voxtral (Liu et al., 2025), of the form of Whisper's."""

    encoder = ("voxtral", "VoxtralEncoder", "audio_tower.")

    def __init__(self, config, preprocessor, source):
        super().__init__(getattr(config, "audio_config", config), preprocessor, source)


class Qwen2Audio(Voxtral):
    """The audio encoder of Qwen2-Audio (Chu et al., 2024).

    It has the form of Whisper's, but averages pairs of frames after the last block.
    Those of the blocks are averaged here, too, so that every layer has one rate.
    """

    encoder = ("qwen2_audio", "Qwen2AudioEncoder", "audio_tower.")

    def __init__(self, config, preprocessor, source):
        super().__init__(config, preprocessor, source)
        self.position_hop = self.frame_hop
        self.window_frames, self.frame_hop = self.window_frames // 2, 2 * self.frame_hop

    def n_frames(self, n_samples):
        # A last position without a partner in the clip is left out.
        return max(1, ceil(n_samples / self.position_hop) // 2)

    def times_of(self, n_samples):
        return super().times_of(n_samples) + self.position_hop / 2 / self.sample_rate

    def frames(self, hidden, lengths):
        if hidden.shape[1] > self.window_frames:
            hidden = hidden.unflatten(1, (-1, 2)).mean(dim=2)
        return super().frames(hidden, lengths)


def load_part(source, model_class, config, prefix):
    """Return one part of a model, without ever holding the others.

    Parameters
    ----------
    source : Source
    model_class : type
        Class of the part in transformers.
    config : PreTrainedConfig
    prefix : str
        The part's name in the whole, with a dot. ``model.`` may stand before it.

    Raises
    ------
    OSError
        If there are no weights.
    ValueError
        If weights of the part are missing.
    """
    renamed = {rf"^(model\.)?{prefix}": ""}
    return load_pretrained(source.folder, model_class, config, key_mapping=renamed)
