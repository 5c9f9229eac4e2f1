"""Weights as safetensors, with a JSON file beside them for what tensors cannot tell."""

import json
import os
from pathlib import Path

WEIGHTS_FILE = "model.safetensors"
SIDECAR_FILE = "config.json"


def sidecar_of(path):
    """Return the path of the JSON file beside a file of weights.

    Examples
    --------
    >>> from pathlib import Path
    >>> from skaudioemb.encoders.saved_weights import sidecar_of
    >>> sidecar_of(Path("model.safetensors")).name, sidecar_of(Path("a.pth")).name
    ('config.json', 'a.json')
    """
    if path.name == WEIGHTS_FILE:
        return path.with_name(SIDECAR_FILE)
    return path.with_suffix(".json")


def read(path):
    """Return the tensors in a safetensors file by their names.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ValueError
        If it is damaged or none.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as safetensors ({error}): it is damaged, or "
            "was not downloaded whole. Get it again."
        ) from error


def write(path, state, told):
    """Write weights, and what is told of them.

    Parameters
    ----------
    path : str or path-like
        A file that ends in .safetensors, or a folder, which is made.
    state : dict of str to Tensor
        No two of them may share memory.
    told : dict
        What JSON can hold.

    Returns
    -------
    files : list of Path
        The two files.
    """
    from safetensors.torch import save_file

    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        path = path / WEIGHTS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    # Tensors to be written may lie in the very file that is written over.
    unfinished = path.with_name(f".{path.name}.writing")
    try:
        save_file({k: v.contiguous() for k, v in state.items()}, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    sidecar = sidecar_of(path)
    sidecar.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return [path, sidecar]


def check_version(path, told, known):
    """Raise if a later version wrote the JSON file.

    Parameters
    ----------
    path : Path
    told : dict
        What it holds; ``"version"`` among it.
    known : int
        The latest version that is known here.

    Raises
    ------
    ValueError
        If it did.
    """
    if told["version"] > known:
        raise ValueError(
            f"{str(path)!r} was written by a later version of skaudioemb (format "
            f"{told['version']}, known is {known}). Upgrade skaudioemb."
        )
