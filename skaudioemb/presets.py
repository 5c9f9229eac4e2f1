"""Names of models → configured embedders."""

from fnmatch import fnmatch
from importlib import import_module
from typing import NamedTuple


class Preset(NamedTuple):
    """One named configuration.

    Attributes
    ----------
    estimator : str
        Name of the class in :mod:`skaudioemb`.
    params : dict
        Its parameters.
    n_features : int
        Width of a scene vector.
    licence : str
        Licence of the weights.
    summary : str
        One line on what it is.
    """

    estimator: str
    params: dict
    n_features: int
    licence: str
    summary: str


_APACHE = "Apache-2.0"
_PRESETS = {
    "crepe": Preset("CREPE", {}, 2048, "MIT", "pitch network, fifth block"),
    "crepe_tiny": Preset("CREPE", {"model": "tiny"}, 256, "MIT", "small CREPE"),
    "hubert": Preset(
        "HuBERT",
        {"checkpoint": "facebook/hubert-base-ls960"},
        768,
        _APACHE,
        "HuBERT base, LibriSpeech 960 h",
    ),
    "hubert_large": Preset(
        "HuBERT",
        {"checkpoint": "facebook/hubert-large-ll60k"},
        1024,
        _APACHE,
        "HuBERT large, Libri-Light 60,000 h",
    ),
    "hubert_xlarge": Preset(
        "HuBERT",
        {"checkpoint": "facebook/hubert-xlarge-ll60k"},
        1280,
        _APACHE,
        "HuBERT extra large, Libri-Light 60,000 h",
    ),
    "logmel": Preset("LogMel", {}, 128, "none", "log-mel mean and deviation"),
    "wav2vec2": Preset(
        "Wav2Vec2",
        {"checkpoint": "facebook/wav2vec2-base"},
        768,
        _APACHE,
        "wav2vec 2.0 base, LibriSpeech 960 h",
    ),
    "wav2vec2_large": Preset(
        "Wav2Vec2",
        {"checkpoint": "facebook/wav2vec2-large-960h-lv60-self"},
        1024,
        _APACHE,
        "wav2vec 2.0 large, fine-tuned and self-trained",
    ),
    "wavlm": Preset(
        "WavLM",
        {"checkpoint": "microsoft/wavlm-base-plus"},
        768,
        "CC BY-SA 3.0",
        "WavLM base plus, 94,000 h",
    ),
    "wavlm_large": Preset(
        "WavLM",
        {"checkpoint": "microsoft/wavlm-large"},
        1024,
        "CC BY-SA 3.0",
        "WavLM large, 94,000 h",
    ),
}


def list_embedders(pattern="*"):
    """Return the known names.

    Parameters
    ----------
    pattern : str, default="*"
        Shell-style pattern that names must match.

    Returns
    -------
    names : list of str
        In alphabetical order.

    Examples
    --------
    >>> from skaudioemb import list_embedders
    >>> list_embedders("crepe*")
    ['crepe', 'crepe_tiny']
    """
    return [name for name in sorted(_PRESETS) if fnmatch(name, pattern)]


def get_preset(name):
    """Return the :class:`Preset` called ``name``.

    Raises
    ------
    ValueError
        If there is none; the message lists those that there are.
    """
    if name not in _PRESETS:
        raise ValueError(
            f"There is no model called {name!r}. Known are {', '.join(_PRESETS)}."
        )
    return _PRESETS[name]


def make_embedder(name, **params):
    """Make the embedder called ``name``.

    Parameters
    ----------
    name : str
        One of :func:`list_embedders`.
    **params : dict
        Parameters that differ from the preset's.

    Returns
    -------
    embedder : Embedder
        A plain estimator that can be cloned, changed and searched.

    Raises
    ------
    ValueError
        If the name or a parameter is not known.

    Examples
    --------
    >>> from skaudioemb import make_embedder
    >>> make_embedder("crepe_tiny", hop=0.1)
    CREPE(hop=0.1, model='tiny')
    """
    preset = get_preset(name)
    embedder = getattr(import_module("skaudioemb"), preset.estimator)(**preset.params)
    return embedder.set_params(**params)
