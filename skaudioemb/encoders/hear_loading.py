"""Modules that speak HEAR's common API: imported, and their models loaded."""

import functools
import hashlib
import importlib
import importlib.metadata
import os
import sys
from numbers import Integral
from types import ModuleType
from typing import NamedTuple

from torch import nn

from skaudioemb.encoders.checkpoint import stamp_of

FUNCTIONS = ("load_model", "get_timestamp_embeddings", "get_scene_embeddings")
# What pip needs to be told for the submissions that are installed under other names.
_REPOSITORIES = {
    "hear_mn": "git+https://github.com/fschmid56/EfficientAT_HEAR.git",
    "serab_byols": "git+https://github.com/GasserElbanna/serab-byols.git",
    "wav2clip_hear": "git+https://github.com/hohsiangwu/wav2clip-hear.git",
}
_ON_PYPI = ("hear21passt", "hearbaseline")


def name_of(module):
    """Return the name of a module given by name or as an object."""
    return module if isinstance(module, str) else getattr(module, "__name__", "module")


def portable(module):
    """Return the name of a module that other processes import by it, else itself."""
    if isinstance(module, ModuleType) and getattr(module, "__spec__", None) is not None:
        if sys.modules.get(module.__name__) is module:
            return module.__name__
    return module


def import_hear_module(module):
    """Import a module and see that it has the functions of HEAR's common API.

    Parameters
    ----------
    module : str or module

    Returns
    -------
    module : module

    Raises
    ------
    ImportError
        If there is no such module, or it cannot be imported.
    TypeError
        If it lacks a function.
    """
    name = name_of(module)
    if isinstance(module, str):
        module = _import(name)
    missing = [f for f in FUNCTIONS if not callable(getattr(module, f, None))]
    if missing:
        raise TypeError(
            f"The module {name!r} has no {' and no '.join(missing)}: it does not speak "
            f"HEAR's API, which asks for the functions {', '.join(FUNCTIONS)}. Often "
            "they are in a submodule, as in 'hear21passt.base'."
        )
    return module


def _import(name):
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise ImportError(
                f"The module {name!r} needs {error.name!r}, which is not installed. "
                "Install the package that it is in."
            ) from error
        top = name.partition(".")[0]
        source = top if top in _ON_PYPI else _REPOSITORIES.get(top)
        advice = "Install the package that it is in, or check the spelling."
        if source is not None:
            advice = f"Install it: python -m pip install {source}"
        raise ImportError(
            f"There is no module {error.name!r}, which module={name!r} names. {advice}"
        ) from error


def load_hear_model(module, model_file_path="", options=None):
    """Load the model of a module as heareval does, and check what it states.

    Parameters
    ----------
    module : str or module
    model_file_path : str, default=""
        File of weights, handed on unless empty.
    options : dict or None, default=None
        Keyword arguments of ``load_model``.

    Returns
    -------
    model : Module

    Raises
    ------
    ImportError, TypeError
        If it is no such module.
    TypeError
        If the model is no ``torch.nn.Module``, or does not state its rate and widths
        as ints.
    """
    found, name = import_hear_module(module), name_of(module)
    paths = [model_file_path] if model_file_path else []
    model = found.load_model(*paths, **(options or {}))
    if not isinstance(model, nn.Module):
        kind = f"{type(model).__module__}.{type(model).__qualname__}"
        raise TypeError(
            f"{name}.load_model gave a {kind}. It has to give a torch.nn.Module; "
            "TensorFlow models are not run here."
        )
    for attribute in Sizes._fields:
        value = getattr(model, attribute, None)
        number = isinstance(value, Integral) and not isinstance(value, bool)
        if not number or value < 1:
            raise TypeError(
                f"The model of {name!r} has {attribute}={value!r}. HEAR's API asks for "
                "a positive int."
            )
    return model


class Sizes(NamedTuple):
    """What a model of HEAR's API states of itself."""

    sample_rate: int
    scene_embedding_size: int
    timestamp_embedding_size: int


def versions_of(module):
    """Yield what is known of a module's version and of its code's content."""
    found = import_hear_module(module)
    top = found.__name__.partition(".")[0]
    for place in dict.fromkeys((found, sys.modules.get(top, found))):
        yield str(getattr(place, "__version__", ""))
    for distribution in sorted(set(_distributions().get(top, ()))):
        yield f"{distribution} {importlib.metadata.version(distribution)}"
    path = getattr(found, "__file__", None)
    if path is not None and os.path.isfile(path):
        yield digest_of(path)


def digest_of(path):
    """Return the hash of a file, read once as long as its size and time stay."""
    return _digest(*stamp_of(path))


@functools.lru_cache(maxsize=256)
def _digest(path, size, mtime_ns):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def _distributions():
    return importlib.metadata.packages_distributions()
