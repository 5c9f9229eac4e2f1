"""Which family reads a checkpoint."""

import functools
import os
from importlib import import_module

from skaudioemb.encoders import checkpoint as files
from skaudioemb.encoders.huggingface.base import Source
from skaudioemb.encoders.speech_checkpoint import read_preprocessor

_HERE = "skaudioemb.encoders.huggingface"
# "model_type" of config.json → module and class. Everything else is generic.
_FAMILIES = {
    "audio-spectrogram-transformer": ("patches", "AST"),
    "clap": ("patches", "CLAP"),
    "clap_audio_model": ("patches", "CLAP"),
    "dac": ("codecs", "DAC"),
    "data2vec-audio": ("speech", "Waveforms"),
    "encodec": ("codecs", "EnCodec"),
    "mimi": ("codecs", "Mimi"),
    "moonshine": ("moonshine", "Moonshine"),
    "parakeet_ctc": ("spectrograms", "Parakeet"),
    "parakeet_encoder": ("spectrograms", "Parakeet"),
    "parakeet_rnnt": ("spectrograms", "Parakeet"),
    "parakeet_tdt": ("spectrograms", "Parakeet"),
    "qwen2_audio": ("spectrograms", "Qwen2Audio"),
    "qwen2_audio_encoder": ("spectrograms", "Qwen2Audio"),
    "sew": ("speech", "Squeezed"),
    "sew-d": ("speech", "Squeezed"),
    "voxtral": ("spectrograms", "Voxtral"),
    "voxtral_encoder": ("spectrograms", "Voxtral"),
    "wav2vec2-bert": ("spectrograms", "Wav2Vec2Bert"),
    "wav2vec2-conformer": ("speech", "Waveforms"),
    "whisper": ("spectrograms", "Whisper"),
}
# Models that run by the checkpoint's own code and need more than that says.
_OWN_CODE = {"eat": ("patches", "EAT")}
_GENERIC = ("generic", "Generic")


def model_type_of(folder):
    """Return "model_type" of a checkpoint's configuration, or None."""
    return files.read_json(folder / files.CONFIG_FILE).get("model_type")


def family_of(folder, trust_remote_code):
    """Return the :class:`~skaudioemb.encoders.huggingface.base.Family`.

    Parameters
    ----------
    folder : Path
    trust_remote_code : bool

    Raises
    ------
    ValueError
        If transformers does not know the model and its own code is not trusted, or
        if it is no audio encoder.
    """
    return _family_once(folder, trust_remote_code, files.stamps_of(folder))


@functools.lru_cache(maxsize=64)
def _family_once(folder, trust_remote_code, stamps):
    source = Source(folder, trust_remote_code)
    known = _OWN_CODE if source.own_classes else _FAMILIES
    module, name = known.get(model_type_of(folder), _GENERIC)
    family = getattr(import_module(f"{_HERE}.{module}"), name)
    return family(_config_of(source), read_preprocessor(folder), source)


def _config_of(source):
    from transformers import CONFIG_MAPPING

    own = source.own_classes.get("AutoConfig")
    if own is not None:
        folder = os.fspath(source.folder)
        return source.own_class(own).from_pretrained(folder, local_files_only=True)
    settings = files.read_json(source.folder / files.CONFIG_FILE)
    kind = settings.get("model_type")
    if kind in CONFIG_MAPPING:
        return CONFIG_MAPPING[kind].from_dict(settings)
    if "auto_map" in settings and not source.trust_remote_code:
        raise ValueError(
            f"The checkpoint {str(source.folder)!r} is a {kind!r} model, which runs "
            "code of its own. Read that code, and pass trust_remote_code=True if you "
            "trust it."
        )
    raise ValueError(
        f"The checkpoint {str(source.folder)!r} is a {kind!r} model, which this "
        "version of transformers does not know. Install the version that the "
        "checkpoint was made with, or give another checkpoint."
    )
