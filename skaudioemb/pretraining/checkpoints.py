"""Checkpoints of a training: written whole or not at all, read as tensors only."""

import os
import pickle
import tempfile
from pathlib import Path

import torch

_VERSION = 1
_NAME = "last.pt"


def save_checkpoint(folder, content):
    """Write a training's state, in place of the previous one, in one step.

    Parameters
    ----------
    folder : str or path
        Made if it does not exist.
    content : dict
        Tensors, numbers, strings, and lists and dicts of them. Must hold under
        ``"settings"`` what a training that resumes has to have in common with it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".writing-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save({"version": _VERSION, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, folder / _NAME)
    except BaseException:
        os.unlink(name)
        raise


def load_checkpoint(folder, settings):
    """Read the state of a training that began with the same settings.

    Parameters
    ----------
    folder : str or path
    settings : dict
        What the training that resumes states about itself.

    Returns
    -------
    content : dict or None
        As saved, on the CPU; None if there is no checkpoint yet.

    Raises
    ------
    ValueError
        If the file cannot be read, or if it belongs to a training with other
        settings; the message names them.
    """
    path = Path(folder) / _NAME
    if not path.exists():
        return None
    remedy = "Remove the file or choose another checkpoint_dir to start afresh."
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"The checkpoint {str(path)!r} cannot be read ({reason}). {remedy}"
        ) from error
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        raise ValueError(
            f"{str(path)!r} is no checkpoint of this version of skaudioemb. {remedy}"
        )
    found = content["settings"]
    differing = [name for name in settings if found.get(name) != settings[name]]
    if differing:
        pairs = ", ".join(
            f"{name}={found.get(name)!r} there, {settings[name]!r} here"
            for name in differing
        )
        raise ValueError(
            f"The checkpoint {str(path)!r} is of another training: {pairs}. Give the "
            f"same to resume it. {remedy}"
        )
    return content
