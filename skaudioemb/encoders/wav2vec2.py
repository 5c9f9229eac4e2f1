"""wav2vec 2.0, HuBERT and WavLM checkpoints of transformers as encoders.

transformers reads the files and names the parameters; the arithmetic is done here,
on the packed frames of all clips of a batch, so that a clip's frames are those of
the clip alone, and no layer outlives its turn.
"""

import functools
from dataclasses import astuple, dataclass
from math import ceil

import torch
from torch.nn import functional as F

from skaudioemb.encoders import checkpoint as files
from skaudioemb.encoders.base import Encoder, EncoderSpec, RegularFrames
from skaudioemb.encoders.conv_stem import ConvStem
from skaudioemb.encoders.packed import PackedLinear
from skaudioemb.encoders.positions import PositionalConv
from skaudioemb.encoders.ragged import (
    Attention,
    Block,
    RelativeAttention,
    position_biases,
    runs_of,
)
from skaudioemb.encoders.speech_checkpoint import describe, load_model

# Added to the variance of a clip, so that silence stays finite: by transformers'
# Wav2Vec2FeatureExtractor, and by torch's layer norm.
_VARIANCE_FLOORS = {"zero-mean-unit-var": 1e-7, "layer-norm": 1e-5}


@dataclass(frozen=True)
class Wav2Vec2Spec(RegularFrames, EncoderSpec):
    """A checkpoint of wav2vec 2.0, HuBERT, WavLM, UniSpeech or UniSpeech-SAT.

    Attributes are read from ``config.json`` and ``preprocessor_config.json``; a
    checkpoint without the latter is taken to expect 16 kHz, and normalised clips if
    its feature encoder uses layer norm, as all released ones do.

    Attributes
    ----------
    checkpoint : str
        A model id on the Hugging Face hub, or a folder written by
        ``save_pretrained``.
    revision : str or None
        Branch, tag or commit of a model id.
    normalize : {"checkpoint", "none", "zero-mean-unit-var", "layer-norm"}
        Scaling of each clip: what the checkpoint's preprocessor file says, none, or
        to zero mean and unit variance with 1e-7 or 1e-5 added to the variance.
    architecture : {"wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat"}
        The kind that the checkpoint has to be.
    output_norm : bool
        Whether the last layer of each clip is scaled to zero mean and unit variance
        over all of its frames and features.
    max_seconds : float or None
        Frames of longer clips attend within windows of at most this length.

    Raises
    ------
    OSError
        By any attribute, if the checkpoint cannot be found.
    ValueError
        By any attribute, if it is of another kind.
    """

    checkpoint: str
    revision: str | None = None
    normalize: str = "checkpoint"
    architecture: str = "wav2vec2"
    output_norm: bool = False
    max_seconds: float | None = None

    def __reduce__(self):
        return type(self), astuple(self)

    # Files are looked at once for as long as a spec lives: an embedder makes a new
    # one for every call, which asks it several times a clip.
    @functools.cached_property
    def _description(self):
        folder = files.folder_of(self.checkpoint, self.revision)
        return describe(folder, self.architecture)

    @property
    def sample_rate(self):
        return self._description.sample_rate

    @property
    def n_features(self):
        return self._description.config.hidden_size

    @property
    def n_layers(self):
        return self._description.config.num_hidden_layers + 1

    @property
    def min_samples(self):
        return self._description.window

    @property
    def hop_samples(self):
        return self._description.stride

    @property
    def scaling(self):
        """How each clip is scaled: as ``normalize``, but never "checkpoint"."""
        if self.normalize != "checkpoint":
            return self.normalize
        return "zero-mean-unit-var" if self._description.do_normalize else "none"

    @property
    def max_frames(self):
        """Largest number of frames that attend to each other, or None."""
        if self.max_seconds is None:
            return None
        return max(1, int(self.max_seconds * self.sample_rate / self.hop_samples))

    @functools.cached_property
    def identity(self):
        folder = files.folder_of(self.checkpoint, self.revision)
        content = files.content_of(folder)
        name = f"{self.architecture}-{content}-{self.sample_rate}-{self.scaling}"
        if self.output_norm:
            name += "-normed"
        return name if self.max_frames is None else f"{name}-{self.max_frames}"

    def load(self, device, dtype):
        """Return the encoder with the checkpoint's weights.

        Raises
        ------
        OSError
            If there are no weights.
        ValueError
            If weights of the encoder are missing among them.
        """
        folder = files.folder_of(self.checkpoint, self.revision)
        config = self._description.config
        model = load_model(folder, config, self.architecture)
        network = SpeechTransformer(model, self, torch.device(device), dtype)
        return network.requires_grad_(False).eval()


class SpeechTransformer(Encoder):
    """The network of all these models, over the packed frames of a batch.

    Parameters
    ----------
    model : PreTrainedModel
        Its modules are taken over and must not be used any more.
    spec : Wav2Vec2Spec
    device : torch.device
    dtype : torch.dtype
        Of matrix products and attention; residuals and norms are float32. With
        float16 the convolutions stay float32, for they overflow.

    References
    ----------
    A. Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of
    Speech Representations", NeurIPS 2020. W.-N. Hsu et al., "HuBERT", TASLP 2021.
    S. Chen et al., "WavLM", JSTSP 2022.
    """

    def __init__(self, model, spec, device, dtype):
        super().__init__()
        config = model.config
        self.variance_floor = _VARIANCE_FLOORS.get(spec.scaling)
        self.has_output_norm = spec.output_norm
        self.max_frames = spec.max_frames
        self.dtype = dtype
        self.is_pre_norm = config.do_stable_layer_norm
        stem_dtype = torch.float32 if dtype == torch.float16 else dtype
        self.stem = ConvStem(model.feature_extractor, config, device, stem_dtype)
        projection = model.feature_projection
        has_norm = getattr(config, "feat_proj_layer_norm", True)
        self.stem_norm = (
            projection.layer_norm.to(device, torch.float32) if has_norm else None
        )
        self.project = PackedLinear.of(projection.projection, device, dtype)
        encoder = model.encoder
        self.positions = PositionalConv(encoder.pos_conv_embed, device)
        self.norm = encoder.layer_norm.to(device, torch.float32)
        attentions = _attentions(encoder.layers, config, device, dtype)
        self.blocks = torch.nn.ModuleList(
            Block(layer, attention, self.is_pre_norm, device, dtype)
            for layer, attention in zip(encoder.layers, attentions, strict=True)
        )

    def forward(self, waveforms):
        counts = [self.stem.n_frames(len(waveform)) for waveform in waveforms]
        # The convolutions see whole clips, whatever the windows.
        windows = [size for count in counts for size in self._windows(count)]
        runs = runs_of(windows)
        frames = self._embed(waveforms, windows)
        yield 0, frames
        for layer, block in enumerate(self.blocks, start=1):
            frames = block(frames, runs)
            if layer == len(self.blocks):
                frames = self._finish(frames, counts)
            yield layer, frames

    def _windows(self, count):
        """Return the sizes of as few equal windows as hold ``count`` frames."""
        if self.max_frames is None or count <= self.max_frames:
            return [count]
        n_windows = ceil(count / self.max_frames)
        size, n_longer = divmod(count, n_windows)
        return [size + 1] * n_longer + [size] * (n_windows - n_longer)

    def _embed(self, waveforms, windows):
        """Return the input of the first block."""
        if self.variance_floor is not None:
            waveforms = [
                standardised(waveform, self.variance_floor) for waveform in waveforms
            ]
        frames = self.stem(waveforms).float()
        if self.stem_norm is not None:
            frames = self.stem_norm(frames)
        frames = self.project(frames.to(self.dtype)).float()
        frames = frames + self.positions(frames, windows)
        return frames if self.is_pre_norm else self.norm(frames)

    def _finish(self, frames, counts):
        if self.is_pre_norm:
            frames = self.norm(frames)
        if not self.has_output_norm:
            return frames
        clips = [F.layer_norm(clip, clip.shape) for clip in frames.split(counts)]
        return torch.cat(clips)


def _attentions(layers, config, device, dtype):
    if config.model_type != "wavlm":
        return [Attention(layer.attention, device, dtype) for layer in layers]
    embedding = layers[0].attention.rel_attn_embed.weight.detach()
    biases = position_biases(embedding.float(), config.max_bucket_distance).to(device)
    return [
        RelativeAttention(layer.attention, biases, device, dtype) for layer in layers
    ]


def standardised(waveform, variance_floor=1e-7):
    """Return a clip scaled to zero mean and unit variance, float32.

    Parameters
    ----------
    waveform : Tensor of shape (n_samples,)
    variance_floor : float, default=1e-7
        Added to the variance; the default is Wav2Vec2FeatureExtractor's.

    Returns
    -------
    scaled : Tensor of shape (n_samples,)
        (x - mean) / sqrt(population variance + floor), computed in float64.

    Examples
    --------
    >>> import torch
    >>> from skaudioemb.encoders.wav2vec2 import standardised
    >>> standardised(torch.tensor([0.0, 4.0]))
    tensor([-1.,  1.])
    """
    wide = waveform.cpu() if waveform.device.type == "mps" else waveform
    wide = wide.double()
    centred = wide - wide.mean()
    deviation = torch.sqrt(centred.square().mean() + variance_floor)
    return (centred / deviation).to(waveform.device, torch.float32)
