"""Checkpoints of wav2vec 2.0 and its kin, read by transformers."""

import functools
import warnings
from math import prod
from typing import Any, NamedTuple

from skaudioemb.encoders import checkpoint as files
from skaudioemb.encoders.conv_stem import receptive_field
from skaudioemb.encoders.pretrained import load_pretrained

# Class of the embedder, and names of transformers' classes, by architecture.
_CLASSES = {
    "wav2vec2": ("Wav2Vec2", "Wav2Vec2Config", "Wav2Vec2Model"),
    "hubert": ("HuBERT", "HubertConfig", "HubertModel"),
    "wavlm": ("WavLM", "WavLMConfig", "WavLMModel"),
    "unispeech": ("HFAudioModel", "UniSpeechConfig", "UniSpeechModel"),
    "unispeech-sat": ("HFAudioModel", "UniSpeechSatConfig", "UniSpeechSatModel"),
}
# MERT is a HuBERT under another name, unless its options say otherwise.
_SAME_AS = {"mert_model": "hubert"}
_MERT_OPTIONS = ("feature_extractor_cqt", "deepnorm")


def architecture_of(model_type):
    """Return the architecture behind "model_type" of a configuration, or None."""
    found = _SAME_AS.get(model_type, model_type)
    return found if found in _CLASSES else None


class Description(NamedTuple):
    """What the small files of a checkpoint say."""

    config: Any
    sample_rate: int
    do_normalize: bool
    window: int
    stride: int


def describe(folder, architecture):
    """Return the :class:`Description` of a checkpoint of a known architecture.

    Raises
    ------
    ValueError
        If the checkpoint is of another kind, or has parts that are not known.
    """
    return _describe_once(folder, architecture, files.stamps_of(folder))


@functools.lru_cache(maxsize=64)
def _describe_once(folder, architecture, stamps):
    config = _read_config(folder, architecture)
    preprocessor = read_preprocessor(folder)
    return Description(
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
    found = _SAME_AS.get(found, found)
    embedder, config_class, _ = _CLASSES[architecture]
    if found != architecture:
        right = _CLASSES.get(found, ("HFAudioModel",))[0]
        raise ValueError(
            f"The checkpoint {str(folder)!r} is a {found!r} model, but {embedder} "
            f"expects {architecture!r}. Use {right} for it."
        )
    odd = [option for option in _MERT_OPTIONS if settings.get(option)]
    if odd:
        raise ValueError(
            f"The checkpoint {str(folder)!r} has {odd[0]}=true, which a plain HuBERT "
            "has not. Use HFAudioModel(..., trust_remote_code=True) for it, if you "
            "trust the code that it comes with."
        )
    config = getattr(transformers, config_class).from_dict(settings)
    if getattr(config, "add_adapter", False):
        raise ValueError(
            f"The checkpoint {str(folder)!r} has add_adapter=True: its adapter gives "
            "the last layer another frame rate than the layers before. Save the model "
            "without it (config.add_adapter = False)."
        )
    return config


def read_preprocessor(folder):
    """Return the settings of a checkpoint's feature extractor, {} if it has none."""
    try:
        path = files.fetch(folder, files.PREPROCESSOR_FILE)
        if path is not None:
            return files.read_json(path)
        path = files.fetch(folder, files.PROCESSOR_FILE)
    except OSError as error:
        warnings.warn(
            f"{error} Until then, sample rate and normalisation are those that are "
            "usual for the model's kind.",
            UserWarning,
            stacklevel=2,
        )
        return {}
    return {} if path is None else files.read_json(path).get("feature_extractor", {})


def load_model(folder, config, architecture):
    """Return the transformers model with float32 weights, or raise if some lack."""
    import transformers

    return load_pretrained(
        folder, getattr(transformers, _CLASSES[architecture][2]), config
    )
