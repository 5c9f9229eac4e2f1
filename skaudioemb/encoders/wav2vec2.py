"""wav2vec 2.0, HuBERT and WavLM checkpoints of transformers as encoders.

transformers reads the files and names the parameters; the arithmetic is done here,
on the packed frames of all clips of a batch, so that a clip's frames are those of
the clip alone, and no layer outlives its turn.
"""

import functools
import os
import warnings
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from math import prod
from typing import Any, NamedTuple

import torch

from skaudioemb.encoders import checkpoint as files
from skaudioemb.encoders.base import Encoder, EncoderSpec, RegularFrames
from skaudioemb.encoders.conv_stem import ConvStem, receptive_field
from skaudioemb.encoders.packed import PackedLinear
from skaudioemb.encoders.positions import PositionalConv
from skaudioemb.encoders.ragged import (
    Attention,
    Block,
    RelativeAttention,
    position_biases,
    runs_of,
)

# Class of the embedder, and names of transformers' classes, by architecture.
_CLASSES = {
    "wav2vec2": ("Wav2Vec2", "Wav2Vec2Config", "Wav2Vec2Model"),
    "hubert": ("HuBERT", "HubertConfig", "HubertModel"),
    "wavlm": ("WavLM", "WavLMConfig", "WavLMModel"),
}
# Keeps the normalisation of a silent clip finite (Wav2Vec2FeatureExtractor).
_VARIANCE_FLOOR = 1e-7
# Only training uses it, and not every checkpoint has it.
_UNUSED_WEIGHTS = {"masked_spec_embed"}


class _Description(NamedTuple):
    """What the small files of a checkpoint say."""

    config: Any
    sample_rate: int
    do_normalize: bool
    window: int
    stride: int


@dataclass(frozen=True)
class Wav2Vec2Spec(RegularFrames, EncoderSpec):
    """A checkpoint of wav2vec 2.0, HuBERT or WavLM.

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
    normalize : {"checkpoint", "none", "zero-mean-unit-var"}
        Scaling of each clip: what the checkpoint's preprocessor file says, none, or
        to zero mean and unit variance.
    architecture : {"wav2vec2", "hubert", "wavlm"}
        The kind that the checkpoint has to be.

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

    def __reduce__(self):
        return type(self), astuple(self)

    # Files are looked at once for as long as a spec lives: an embedder makes a new
    # one for every call, which asks it several times a clip.
    @functools.cached_property
    def _description(self):
        folder = files.folder_of(self.checkpoint, self.revision)
        return _describe(folder, self.architecture)

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
    def do_normalize(self):
        """Whether clips are scaled to zero mean and unit variance."""
        if self.normalize == "checkpoint":
            return self._description.do_normalize
        return self.normalize == "zero-mean-unit-var"

    @functools.cached_property
    def identity(self):
        folder = files.folder_of(self.checkpoint, self.revision)
        scaling = "zero-mean-unit-var" if self.do_normalize else "raw"
        content = files.content_of(folder)
        return f"{self.architecture}-{content}-{self.sample_rate}-{scaling}"

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
        model = _load_model(folder, config, self.architecture)
        network = SpeechTransformer(
            model, config, self.do_normalize, torch.device(device), dtype
        )
        return network.requires_grad_(False).eval()


def _describe(folder, architecture):
    config_path = folder / files.CONFIG_FILE
    preprocessor_path = folder / files.PREPROCESSOR_FILE
    stamps = (
        files.stamp_of(config_path),
        (files.stamp_of(preprocessor_path) if preprocessor_path.is_file() else None),
    )
    return _describe_once(folder, architecture, stamps)


@functools.lru_cache(maxsize=64)
def _describe_once(folder, architecture, stamps):
    config = _read_config(folder, architecture)
    preprocessor = _read_preprocessor(folder)
    return _Description(
        config=config,
        sample_rate=preprocessor.get("sampling_rate", 16000),
        do_normalize=preprocessor.get(
            "do_normalize", config.feat_extract_norm == "layer"
        ),
        window=receptive_field(config.conv_kernel, config.conv_stride),
        stride=prod(config.conv_stride),
    )


def _read_config(folder, architecture):
    import transformers

    if architecture not in _CLASSES:
        raise ValueError(
            f"architecture={architecture!r} is not known. Choose one of "
            f"{', '.join(map(repr, _CLASSES))}."
        )
    settings = files.read_json(folder / files.CONFIG_FILE)
    found = settings.get("model_type", architecture)
    embedder, config_class, _ = _CLASSES[architecture]
    if found != architecture:
        known = _CLASSES.get(found)
        advice = (
            f"Use {known[0]} for it."
            if known
            else f"{embedder} reads {architecture!r} checkpoints only."
        )
        raise ValueError(
            f"The checkpoint {str(folder)!r} is a {found!r} model, but {embedder} "
            f"expects {architecture!r}. {advice}"
        )
    config = getattr(transformers, config_class).from_dict(settings)
    if getattr(config, "add_adapter", False):
        raise ValueError(
            f"The checkpoint {str(folder)!r} has add_adapter=True: its adapter gives "
            "the last layer another frame rate than the layers before. Save the model "
            "without it (config.add_adapter = False)."
        )
    return config


def _read_preprocessor(folder):
    try:
        path = files.fetch(folder, files.PREPROCESSOR_FILE)
    except OSError as error:
        warnings.warn(
            f"{error} Until then, sample rate and normalisation are those that are "
            "usual for the model's kind.",
            UserWarning,
            stacklevel=2,
        )
        return {}
    return {} if path is None else files.read_json(path)


def _load_model(folder, config, architecture):
    """Return the transformers model with float32 weights, or raise if some lack."""
    import transformers

    files.weight_files(folder)
    model_class = getattr(transformers, _CLASSES[architecture][2])
    with _quiet_transformers():
        model, report = model_class.from_pretrained(
            os.fspath(folder),
            config=config,
            # The default is the dtype of the file, which may be half precision.
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
        )
    missing = sorted(set(report["missing_keys"]) - _UNUSED_WEIGHTS)
    if missing:
        raise ValueError(
            f"The weights in {str(folder)!r} lack {len(missing)} of the encoder's "
            f"tensors ({', '.join(missing[:3])}, ...). They are not those of the "
            f"{architecture} model that {files.CONFIG_FILE} describes; save or "
            "download the checkpoint again."
        )
    return model.eval()


@contextmanager
def _quiet_transformers():
    """Silence progress bars and the report on the heads that are left out."""
    from transformers.utils import logging

    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()


class SpeechTransformer(Encoder):
    """The network of all three models, over the packed frames of a batch.

    Parameters
    ----------
    model : PreTrainedModel
        Its modules are taken over and must not be used any more.
    config : PreTrainedConfig
    do_normalize : bool
        Scale each clip to zero mean and unit variance.
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

    def __init__(self, model, config, do_normalize, device, dtype):
        super().__init__()
        self.do_normalize = do_normalize
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
        runs = runs_of(counts)
        frames = self._embed(waveforms, counts)
        yield 0, frames
        for layer, block in enumerate(self.blocks, start=1):
            frames = block(frames, runs)
            if self.is_pre_norm and layer == len(self.blocks):
                frames = self.norm(frames)
            yield layer, frames

    def _embed(self, waveforms, counts):
        """Return the input of the first block."""
        if self.do_normalize:
            waveforms = [zero_mean_unit_variance(waveform) for waveform in waveforms]
        frames = self.stem(waveforms).float()
        if self.stem_norm is not None:
            frames = self.stem_norm(frames)
        frames = self.project(frames.to(self.dtype)).float()
        frames = frames + self.positions(frames, counts)
        return frames if self.is_pre_norm else self.norm(frames)


def _attentions(layers, config, device, dtype):
    if config.model_type != "wavlm":
        return [Attention(layer.attention, device, dtype) for layer in layers]
    embedding = layers[0].attention.rel_attn_embed.weight.detach()
    biases = position_biases(embedding.float(), config.max_bucket_distance).to(device)
    return [
        RelativeAttention(layer.attention, biases, device, dtype) for layer in layers
    ]


def zero_mean_unit_variance(waveform):
    """Return a clip scaled as Wav2Vec2FeatureExtractor does, float32.

    Parameters
    ----------
    waveform : Tensor of shape (n_samples,)

    Returns
    -------
    scaled : Tensor of shape (n_samples,)
        (x - mean) / sqrt(population variance + 1e-7), computed in float64.

    Examples
    --------
    >>> import torch
    >>> from skaudioemb.encoders.wav2vec2 import zero_mean_unit_variance
    >>> zero_mean_unit_variance(torch.tensor([0.0, 4.0]))
    tensor([-1.,  1.])
    """
    wide = waveform.cpu() if waveform.device.type == "mps" else waveform
    wide = wide.double()
    centred = wide - wide.mean()
    deviation = torch.sqrt(centred.square().mean() + _VARIANCE_FLOOR)
    return (centred / deviation).to(waveform.device, torch.float32)
