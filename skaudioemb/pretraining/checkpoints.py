"""Checkpoints of a training: written whole or not at all, read as tensors only."""

import os
import secrets
from pathlib import Path

import torch

_VERSION = 2
_NAME = "last.pt"
_WRITING = ".writing-"
_REMEDY = "Remove the file or choose another checkpoint_dir to start afresh."


def save_checkpoint(folder, content):
    """Write a training's state, in place of the previous one, in one step.

    Parameters
    ----------
    folder : str or path
        Made if it does not exist.
    content : dict
        Tensors, numbers, strings, and lists and dicts of them. Must hold under
        ``"settings"`` what a training that resumes has to have in common with it.

    Raises
    ------
    ValueError
        If the folder is a file.
    """
    folder = check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = folder / f"{_WRITING}{secrets.token_hex(8)}"
    try:
        # Not by tempfile, whose files nobody else may read.
        with open(name, "xb") as file:
            torch.save({"version": _VERSION, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, folder / _NAME)
    except BaseException:
        name.unlink(missing_ok=True)
        raise


def load_checkpoint(folder, settings, max_epochs=None):
    """Read the state of a training that began with the same settings.

    Parameters
    ----------
    folder : str or path
    settings : dict
        What the training that resumes states about itself.
    max_epochs : int or None, default=None
        Epochs that it shall have in all.

    Returns
    -------
    content : dict or None
        As saved, on the CPU; None if there is no checkpoint yet.

    Raises
    ------
    ValueError
        If the folder is a file; if the checkpoint cannot be read, has more epochs, or
        belongs to a training with other settings; the message names them.
    """
    content = _read(folder)
    if content is None:
        return None
    path, found = str(Path(folder) / _NAME), content["settings"]
    differing = [name for name in settings if found.get(name) != settings[name]]
    if differing:
        pairs = ", ".join(
            f"{name}={found.get(name)!r} there, {settings[name]!r} here"
            for name in differing
        )
        raise ValueError(
            f"The checkpoint {path!r} is of another training: {pairs}. Give the "
            f"same to resume it. {_REMEDY}"
        )
    n_done = len(content.get("history", ()))
    if max_epochs is not None and n_done > max_epochs:
        raise ValueError(
            f"The checkpoint {path!r} has {n_done} epochs, and {max_epochs} in all are "
            f"asked for. Ask for {n_done} or more to use it. {_REMEDY}"
        )
    return content


def saved_seed(folder):
    """Return the seed of the training whose checkpoint a folder holds.

    Parameters
    ----------
    folder : str, path or None

    Returns
    -------
    seed : int or None
        None without folder or checkpoint.

    Raises
    ------
    ValueError
        If the folder is a file, or the checkpoint cannot be read.

    Examples
    --------
    >>> from skaudioemb.pretraining.checkpoints import saved_seed
    >>> saved_seed("no such folder") is None
    True
    """
    content = None if folder is None else _read(folder)
    return None if content is None else content["settings"].get("seed")


def remove_unfinished(folder):
    """Remove what a training that was killed while it wrote has left in a folder.

    Parameters
    ----------
    folder : str or path
        Of one training at a time.
    """
    for path in Path(folder).glob(f"{_WRITING}*"):
        path.unlink(missing_ok=True)


def check_folder(folder):
    """Check that a checkpoint's folder is one, or can be made.

    Parameters
    ----------
    folder : str or path

    Returns
    -------
    folder : Path

    Raises
    ------
    ValueError
        If it is a file, or lies in one.
    """
    folder = Path(folder)
    for part in (folder, *folder.parents):
        if part.is_dir():
            break
        if part.exists():
            raise ValueError(
                f"checkpoint_dir={str(folder)!r} has to be a folder, and "
                f"{str(part)!r} is a file. Choose another checkpoint_dir."
            )
    return folder


def _read(folder):
    """Return the content of a folder's checkpoint, None if there is none."""
    path = check_folder(folder) / _NAME
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged file raises whatever it is taken for.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"The checkpoint {str(path)!r} cannot be read ({reason}). {_REMEDY}"
        ) from error
    is_own = isinstance(content, dict) and content.get("version") == _VERSION
    if not is_own or not isinstance(content.get("settings"), dict):
        raise ValueError(
            f"{str(path)!r} is no checkpoint of this version of skaudioemb. {_REMEDY}"
        )
    return content
