"""Weights as safetensors, with a JSON file beside them for what tensors cannot tell.

The same lies in the file of weights too, for the day when the two are parted.
"""

import json
import os
from pathlib import Path

from skaudioemb.encoders.checkpoint import read_json

WEIGHTS_FILE = "model.safetensors"
SIDECAR_FILE = "config.json"
_KEY = "skaudioemb"


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


def read_told(path):
    """Return what is told of the weights in a file, and where it is told.

    Parameters
    ----------
    path : Path

    Returns
    -------
    told : dict or None
        From the JSON file beside it; if there is none, from the file itself; None if
        neither tells anything.
    source : Path

    Raises
    ------
    ValueError
        If one of the two is damaged.
    """
    sidecar = sidecar_of(path)
    if sidecar.is_file():
        return read_json(sidecar), sidecar
    if path.suffix != ".safetensors":
        return None, path
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_KEY)
        told = None if text is None else json.loads(text)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise _damaged(path, error) from error
    return told, path


def _damaged(path, error):
    return ValueError(
        f"{str(path)!r} cannot be read as safetensors ({error}): it is damaged, or "
        "was not downloaded whole. Get it again."
    )


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
        raise _damaged(path, error) from error


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

    Raises
    ------
    FileExistsError
        If there is a file where a folder is needed.
    """
    from safetensors.torch import save_file

    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        path = path / WEIGHTS_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise FileExistsError(
            f"Weights cannot be saved in {str(path.parent)!r}, for there is a file "
            "where a folder is needed. Give a folder, or a file that ends in "
            ".safetensors."
        ) from error
    # Tensors to be written may lie in the very file that is written over.
    unfinished = path.with_name(f".{path.name}.writing")
    try:
        tensors = {name: value.contiguous() for name, value in state.items()}
        save_file(tensors, unfinished, metadata={_KEY: json.dumps(told)})
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
        If it did, or if that is no version.
    """
    version = told.get("version")
    if type(version) is not int or version < 1:
        raise ValueError(
            f"{str(path)!r} has version={version!r}, which is no number of a format. "
            "Save the weights again."
        )
    if version > known:
        raise ValueError(
            f"{str(path)!r} was written by a later version of skaudioemb (format "
            f"{version}, known is {known}). Upgrade skaudioemb."
        )
