"""Audio embeddings as scikit-learn estimators.

The public names are imported at first use, so that ``import skaudioemb`` loads
neither torch nor scikit-learn.
"""

from importlib import import_module

__version__ = "0.1.0"

_MODULES = {
    "AudioError": "skaudioemb.audio",
    "BYOLA": "skaudioemb.embedders.byol",
    "BYOLS": "skaudioemb.embedders.byols",
    "CREPE": "skaudioemb.embedders.crepe",
    "EnCodec": "skaudioemb.embedders.encodec",
    "EncodecMAE": "skaudioemb.embedders.encodecmae",
    "Event": "skaudioemb.events",
    "EventDetector": "skaudioemb.probes.events",
    "Frames": "skaudioemb.frames",
    "Fusion": "skaudioemb.embedders.fusion",
    "HEARModel": "skaudioemb.embedders.hear_module",
    "HFAudioModel": "skaudioemb.embedders.huggingface",
    "HuBERT": "skaudioemb.embedders.wav2vec2",
    "LayerWeightedProbe": "skaudioemb.probes.layers",
    "LogMel": "skaudioemb.embedders.logmel",
    "MLPProbe": "skaudioemb.probes.mlp",
    "OpenSMILE": "skaudioemb.embedders.opensmile",
    "ProbeSearchCV": "skaudioemb.probes.search",
    "Store": "skaudioemb.store",
    "Wav2Vec2": "skaudioemb.embedders.wav2vec2",
    "WavLM": "skaudioemb.embedders.wavlm",
    "list_embedders": "skaudioemb.presets",
    "make_embedder": "skaudioemb.presets",
    "make_fusion": "skaudioemb.embedders.fusion",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name):
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_MODULES])
