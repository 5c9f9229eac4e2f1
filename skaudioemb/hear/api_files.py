"""Embedders written down as one-file modules that speak HEAR's common API."""

import os
from inspect import signature
from pathlib import Path
from textwrap import indent

import numpy as np
from sklearn.base import BaseEstimator

from skaudioemb import make_embedder

_WIDTH = 64


def write_module(embedder, path):
    """Write a one-file module through which any HEAR tool can use an embedder.

    Parameters
    ----------
    embedder : Embedder or Fusion or str
        What computes; or the name of a preset. Paths among its parameters are written
        as they are: give absolute ones if tools run elsewhere.
    path : str or path-like
        The file, whose name ends in .py. An existing one is replaced.

    Returns
    -------
    path : Path

    Raises
    ------
    TypeError
        If it is no embedder, or a parameter cannot be written as text.
    ValueError
        If the name of the file cannot be that of a module, or there is no such preset.

    Examples
    --------
    >>> from skaudioemb import CREPE
    >>> from skaudioemb.hear.api import write_module
    >>> path = write_module(CREPE("tiny", hop=0.025), "my_crepe.py")  # doctest: +SKIP
    """
    check_source(embedder)
    path = Path(path)
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise ValueError(
            f"path={str(path)!r} is no name of a module. Use letters, digits and _ "
            "before .py, as 'my_embedder.py'."
        )
    classes = set()
    source = repr(embedder)
    if not isinstance(embedder, str):
        source = _source_of(embedder, "embedder", classes)
    lines = ['"""An embedder of skaudioemb that speaks HEAR\'s common API."""', ""]
    if classes:
        lines.append(f"from skaudioemb import {', '.join(sorted(classes))}")
    lines += [
        "from skaudioemb.hear.api import functions_of",
        "",
        f"EMBEDDER = {source}",
        "",
        "load_model, get_timestamp_embeddings, get_scene_embeddings = functions_of(",
        "    EMBEDDER",
        ")",
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _source_of(value, name, classes):
    """Return Python source for a parameter; add the classes that it names."""
    if isinstance(value, BaseEstimator):
        kind = type(value).__name__
        classes.add(kind)
        known = signature(type(value)).parameters
        texts = [
            f"{key}={_source_of(each, f'{name}.{key}', classes)}"
            for key, each in value.get_params(deep=False).items()
            if repr(each) != repr(known[key].default)
        ]
        return _bracketed(f"{kind}(", texts, ")")
    if isinstance(value, list | tuple):
        texts = [_source_of(each, name, classes) for each in value]
        if isinstance(value, list):
            return _bracketed("[", texts, "]")
        return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"
    if isinstance(value, dict):
        texts = [f"{k!r}: {_source_of(v, name, classes)}" for k, v in value.items()]
        return f"{{{', '.join(texts)}}}"
    if isinstance(value, os.PathLike):
        return repr(os.fspath(value))
    if isinstance(value, np.generic):
        return repr(value.item())
    if value is None or isinstance(value, str | bool | int | float):
        return repr(value)
    raise TypeError(
        f"{name} is {value!r}, which a file cannot hold. Give text, a path, a number, "
        "or lists of these."
    )


def _bracketed(start, texts, end):
    """Join texts in one line, or one a line where that is too long."""
    line = f"{start}{', '.join(texts)}{end}"
    if len(line) <= _WIDTH and "\n" not in line:
        return line
    lines = indent(",\n".join(texts), "    ")
    return f"{start}\n{lines},\n{end}"


def check_source(embedder):
    """Raise unless it is an embedder or the name of a preset."""
    if isinstance(embedder, str):
        make_embedder(embedder)
    elif not hasattr(embedder, "frames") or not hasattr(embedder, "transform"):
        raise TypeError(
            f"{embedder!r} is no embedder. Give one of skaudioemb, a fusion, or the "
            "name of a preset."
        )
