"""Tiny random models of the kinds that HFAudioModel reads, saved as users save them.

A builder takes a folder and a seed, saves a model and its feature extractor there,
and returns the model. ``FAMILIES`` names every builder.
"""

import torch
import transformers
from transformers import Wav2Vec2FeatureExtractor

from tests.speech_models import TINY, quiet

FAMILIES = {}


def family(name):
    """Register a builder under ``name``."""

    def register(build):
        FAMILIES[name] = build
        return build

    return register


def random_model(model_class, config, seed=0):
    """Return a model in eval mode whose biases and gains differ from 0 and 1."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = model_class(config).eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def save(folder, model, extractor=None):
    with quiet():
        model.save_pretrained(folder)
    if extractor is not None:
        extractor.save_pretrained(folder)
    return model


def _speech(config_class, model_class, **settings):
    def build(folder, seed=0):
        model = random_model(model_class, config_class(**{**TINY, **settings}), seed)
        return save(folder, model, Wav2Vec2FeatureExtractor(do_normalize=True))

    return build


family("data2vec")(
    _speech(
        transformers.Data2VecAudioConfig,
        transformers.Data2VecAudioModel,
        num_conv_pos_embeddings=3,
        conv_pos_kernel_size=7,
    )
)
family("conformer")(
    _speech(
        transformers.Wav2Vec2ConformerConfig,
        transformers.Wav2Vec2ConformerModel,
        conv_depthwise_kernel_size=7,
    )
)
_STEM = {"conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2)}
family("sew")(
    _speech(transformers.SEWConfig, transformers.SEWModel, squeeze_factor=2, **_STEM)
)
family("sew-d")(
    _speech(
        transformers.SEWDConfig,
        transformers.SEWDModel,
        squeeze_factor=2,
        position_buckets=8,
        max_position_embeddings=16,
        **_STEM,
    )
)
for _name in ("UniSpeech", "UniSpeechSat"):
    family(_name.lower())(
        _speech(
            getattr(transformers, f"{_name}Config"),
            getattr(transformers, f"{_name}Model"),
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
        )
    )

# The other builders register themselves, with what is above.
from tests import hf_other_models, hf_spectrogram_models  # noqa: E402, F401
