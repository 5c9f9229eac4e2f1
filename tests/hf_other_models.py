"""Tiny random codecs, and models that no family of their own reads.

Those of transformers are registered among the builders of :mod:`tests.hf_models`.
"""

import json

import torch
import transformers
from safetensors.torch import save_file

from tests.hf_models import family, random_model, save


def _encodec(**settings):
    def build(folder, seed=0):
        config = transformers.EncodecConfig(
            hidden_size=24,
            num_filters=4,
            upsampling_ratios=(8, 5, 4),
            codebook_size=16,
            target_bandwidths=(1.5, 3.0),
            **settings,
        )
        model = random_model(transformers.EncodecModel, config, seed)
        extractor = transformers.EncodecFeatureExtractor(
            feature_size=config.audio_channels,
            sampling_rate=config.sampling_rate,
            chunk_length_s=config.chunk_length_s,
            overlap=config.overlap,
        )
        return save(folder, model, extractor)

    return build


family("encodec")(_encodec())
family("encodec-stereo")(
    _encodec(
        sampling_rate=48000,
        audio_channels=2,
        normalize=True,
        chunk_length_s=0.1,
        overlap=0.01,
        norm_type="time_group_norm",
        use_causal_conv=False,
    )
)


@family("dac")
def dac(folder, seed=0):
    config = transformers.DacConfig(
        encoder_hidden_size=4,
        decoder_hidden_size=16,
        downsampling_ratios=(2, 5, 8),
        n_codebooks=2,
        codebook_size=16,
        codebook_dim=4,
    )
    model = random_model(transformers.DacModel, config, seed)
    extractor = transformers.DacFeatureExtractor(hop_length=config.hop_length)
    return save(folder, model, extractor)


@family("mimi")
def mimi(folder, seed=0):
    config = transformers.MimiConfig(
        hidden_size=24,
        num_filters=4,
        upsampling_ratios=[8, 5, 4],
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=40,
        sliding_window=20,
        layer_scale_initial_scale=0.5,
        codebook_size=16,
        codebook_dim=8,
        vector_quantization_hidden_dimension=8,
        num_quantizers=4,
        upsample_groups=24,
    )
    model = random_model(transformers.MimiModel, config, seed)
    return save(folder, model, transformers.EncodecFeatureExtractor())


@family("speech_to_text")
def speech_to_text(folder, seed=0):
    config = transformers.Speech2TextConfig(
        vocab_size=20,
        d_model=24,
        encoder_layers=3,
        decoder_layers=1,
        encoder_ffn_dim=40,
        decoder_ffn_dim=40,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        conv_channels=16,
    )
    model = random_model(transformers.Speech2TextModel, config, seed)
    return save(folder, model, transformers.Speech2TextFeatureExtractor())


@family("glmasr")
def glmasr(folder, seed=0):
    config = transformers.AutoConfig.for_model(
        "glmasr_encoder",
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_mel_bins=128,
    )
    model_class = transformers.MODEL_MAPPING[type(config)]
    extractor = transformers.WhisperFeatureExtractor(feature_size=128)
    return save(folder, random_model(model_class, config, seed), extractor)


@family("pe_audio")
def pe_audio(folder, seed=0):
    config = transformers.PeAudioEncoderConfig(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=8,
        dac_config={
            "encoder_hidden_size": 4,
            "downsampling_ratios": [2, 8, 10, 12],
            "decoder_hidden_size": 16,
        },
    )
    extractor = transformers.PeAudioFeatureExtractor()
    model = random_model(transformers.PeAudioEncoder, config, seed)
    return save(folder, model, extractor)


_CONFIGURATION = """
from transformers import PretrainedConfig


class EarsConfig(PretrainedConfig):
    model_type = "tiny-ears"

    def __init__(self, width=24, depth=2, output="named", sampling_rate=8000, **other):
        super().__init__(**other)
        self.width = width
        self.depth = depth
        self.output = output
        self.sampling_rate = sampling_rate
"""

_MODELING = """
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .configuration_ears import EarsConfig


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)

    def forward(self, hidden):
        normed = self.norm(hidden)
        return hidden + self.attention(normed, normed, normed)[0]


class Ears(PreTrainedModel):
    config_class = EarsConfig

    def __init__(self, config):
        super().__init__(config)
        self.stem = nn.Conv1d(1, config.width, 200, 80)
        self.blocks = nn.ModuleList([Block(config.width) for _ in range(config.depth)])
        self.post_init()

    def forward(self, waveform):
        hidden = self.stem(waveform[:, None]).transpose(1, 2)
        for block in self.blocks:
            hidden = block(hidden)
        outputs = {
            "named": lambda: BaseModelOutput(last_hidden_state=hidden),
            "tensor": lambda: hidden,
            "tuple": lambda: (hidden.mean(1), hidden.transpose(1, 2)),
            "dict": lambda: {"x": hidden, "states": [hidden]},
            "clip": lambda: hidden.mean(1),
            "sound": lambda: waveform[:, :, None],
        }
        return outputs[self.config.output]()


class MelEars(PreTrainedModel):
    config_class = EarsConfig
    main_input_name = "input_features"

    def __init__(self, config):
        super().__init__(config)
        self.project = nn.Linear(16, config.width)
        self.post_init()

    def forward(self, input_features, attention_mask):
        if not bool(attention_mask.any()):
            raise ValueError("nothing to hear")
        return BaseModelOutput(last_hidden_state=self.project(input_features).tanh())
"""

_FEATURES = """
import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor


class Bands(SequenceFeatureExtractor):
    model_input_names = ["input_features"]

    def __call__(self, sound, sampling_rate=None, return_tensors=None):
        if sampling_rate != self.sampling_rate:
            raise ValueError("another rate")
        frames = np.lib.stride_tricks.sliding_window_view(sound, 160)[::80]
        bands = np.log(np.abs(np.fft.rfft(frames)[:, :16]) + 1e-3)[None]
        mask = np.ones(bands.shape[:2], np.int64)
        features = {"attention_mask": mask, "input_features": bands.astype(np.float32)}
        return BatchFeature(features, tensor_type=return_tensors)
"""


def save_remote(folder, seed=0, *, name="Ears", **settings):
    """Save a model whose code comes with it, and return nothing.

    Parameters
    ----------
    folder : Path
    seed : int
    name : {"Ears", "MelEars"}
        Takes waveforms, or the features of an extractor of its own.
    **settings : dict
        Of the configuration: ``output`` is what the model returns.
    """
    (folder / "configuration_ears.py").write_text(_CONFIGURATION)
    (folder / "modeling_ears.py").write_text(_MODELING)
    classes = {
        "AutoConfig": "configuration_ears.EarsConfig",
        "AutoModel": f"modeling_ears.{name}",
    }
    config = {"model_type": "tiny-ears", "auto_map": classes, **settings}
    (folder / "config.json").write_text(json.dumps(config))
    if name == "MelEars":
        (folder / "features_ears.py").write_text(_FEATURES)
        features = {
            "feature_extractor_type": "Bands",
            "auto_map": {"AutoFeatureExtractor": "features_ears.Bands"},
            "feature_size": 16,
            "sampling_rate": 8000,
            "padding_value": 0.0,
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(features))
    save_file(_weights(name, seed), folder / "model.safetensors", {"format": "pt"})


def _weights(name, seed):
    shapes = {"project.weight": (24, 16), "project.bias": (24,)}
    if name == "Ears":
        shapes = {"stem.weight": (24, 1, 200), "stem.bias": (24,)}
        for block in ("blocks.0", "blocks.1"):
            shapes |= {
                f"{block}.norm.weight": (24,),
                f"{block}.norm.bias": (24,),
                f"{block}.attention.in_proj_weight": (72, 24),
                f"{block}.attention.in_proj_bias": (72,),
                f"{block}.attention.out_proj.weight": (24, 24),
                f"{block}.attention.out_proj.bias": (24,),
            }
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(shape, generator=generator) * 0.2
        for key, shape in shapes.items()
    }
