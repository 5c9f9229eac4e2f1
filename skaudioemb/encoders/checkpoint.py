"""Files of a transformers checkpoint: found, checked and named by content.

A checkpoint is a folder written by ``save_pretrained`` or a model id of the Hugging
Face hub, which becomes the folder of one commit in the hub's local cache. From then
on both are read alike, and nothing asks the network again.
"""

import functools
import json
import os
from hashlib import blake2b
from pathlib import Path

CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
# Holds the settings of an extractor that was saved along with a tokenizer.
PROCESSOR_FILE = "processor_config.json"
# In the order in which transformers prefers them; an index lists parts of weights.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_HASHED_AT_ONCE = 1 << 20


def folder_of(checkpoint, revision):
    """Return the folder that holds a checkpoint's configuration.

    Parameters
    ----------
    checkpoint : str or path-like
        A folder, or a model id.
    revision : str or None
        Branch, tag or commit of a model id.

    Returns
    -------
    folder : Path

    Raises
    ------
    OSError
        If there is neither such a folder nor, on the hub or in its cache, such a
        model.
    """
    folder = Path(checkpoint).expanduser()
    if not folder.is_dir():
        return _hub_folder(os.fspath(checkpoint), revision)
    if not (folder / CONFIG_FILE).is_file():
        raise OSError(
            f"The folder {str(checkpoint)!r} holds no {CONFIG_FILE}. Give a folder "
            "written by save_pretrained of transformers."
        )
    return folder


@functools.cache
def _hub_folder(model_id, revision):
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(model_id, CONFIG_FILE, revision=revision)).parent
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        at = "" if revision is None else f" at revision {revision!r}"
        raise OSError(
            f"The checkpoint {model_id!r}{at} is neither a folder here nor a model "
            "that could be had from the Hugging Face hub or its local cache "
            f"({type(error).__name__}). Give a folder written by save_pretrained, "
            "or download the model once with network, or check the spelling."
        ) from error


def is_cached(folder):
    """Tell whether ``folder`` is a commit in the hub's cache."""
    return folder.parent.name == "snapshots" and folder.parent.parent.name.startswith(
        "models--"
    )


def fetch(folder, name):
    """Return the path of one file of a checkpoint, or None if it has no such file.

    Parameters
    ----------
    folder : Path
        From :func:`folder_of`.
    name : str

    Raises
    ------
    OSError
        If the file is not in the hub's cache, and the hub cannot be asked.
    """
    path = folder / name
    if path.is_file():
        return path
    return _fetch_from_hub(folder, name) if is_cached(folder) else None


def hub_place(folder):
    """Return where a commit in the hub's cache comes from.

    Returns
    -------
    model_id : str
    where : dict
        ``cache_dir`` and ``revision`` as the functions of huggingface_hub take them.
    """
    cache = folder.parent.parent
    model_id = cache.name.removeprefix("models--").replace("--", "/")
    return model_id, {"cache_dir": cache.parent, "revision": folder.name}


@functools.cache
def _fetch_from_hub(folder, name):
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    model_id, where = hub_place(folder)
    known = try_to_load_from_cache(model_id, name, **where)
    if known is not None and not isinstance(known, str):
        return None
    try:
        return Path(hf_hub_download(model_id, name, **where))
    except LocalEntryNotFoundError as error:
        raise OSError(
            f"{name} of {model_id!r} is not in the local cache, and the Hugging Face "
            "hub cannot be reached. Download the model once with network, or give a "
            "folder written by save_pretrained."
        ) from error
    except EntryNotFoundError:
        return None


def read_json(path):
    """Return the object in a JSON file, or raise a ValueError that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, not an object")
    except ValueError as error:
        raise ValueError(
            f"{path.name} of the checkpoint {str(path.parent)!r} is not valid JSON "
            f"({error}). Save or download the checkpoint again."
        ) from error
    return content


def weight_files(folder):
    """Return the paths of a checkpoint's weights, downloading what is missing.

    Raises
    ------
    OSError
        If there are none.
    """
    # What is here already goes first, so that a cached checkpoint needs no network.
    here = [name for name in WEIGHT_FILES if (folder / name).is_file()]
    for name in here or WEIGHT_FILES:
        path = fetch(folder, name)
        if path is not None:
            return _with_parts(folder, path)
    raise OSError(
        f"The checkpoint {str(folder)!r} holds no weights: none of "
        f"{', '.join(WEIGHT_FILES)}. Give a folder written by save_pretrained."
    )


def _with_parts(folder, path):
    if path.suffix != ".json":
        return [path]
    names = sorted(set(read_json(path)["weight_map"].values()))
    parts = [(name, fetch(folder, name)) for name in names]
    missing = [name for name, part in parts if part is None]
    if missing:
        raise OSError(
            f"The checkpoint {str(folder)!r} lacks {', '.join(missing)}, which "
            f"{path.name} lists. Save or download it again."
        )
    return [path, *(part for _, part in parts)]


def content_of(folder):
    """Return a name for the content of configuration, weights and code.

    A commit of the hub names its content; the files of a folder are hashed, once
    for as long as their size and time of change stay.
    """
    if is_cached(folder):
        model_id, where = hub_place(folder)
        return f"{model_id}@{where['revision']}"
    content = blake2b(digest_size=16)
    for path in [folder / CONFIG_FILE, *weight_files(folder), *code_files(folder)]:
        content.update(_digest(*stamp_of(path)))
    return content.hexdigest()


def code_files(folder):
    """Return the paths of the Python files of a checkpoint, in order."""
    return sorted(folder.glob("*.py"))


def stamp_of(path):
    """Return what changes when a file does: path, size, and time of change in ns."""
    status = os.stat(path)
    return os.path.abspath(path), status.st_size, status.st_mtime_ns


def stamps_of(folder):
    """Return the stamps of all small files that say how a checkpoint is run."""
    names = (CONFIG_FILE, PREPROCESSOR_FILE, PROCESSOR_FILE)
    paths = [*(folder / name for name in names), *code_files(folder)]
    return tuple(stamp_of(path) for path in paths if path.is_file())


@functools.lru_cache(maxsize=256)
def _digest(path, size, mtime_ns):
    content = blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(_HASHED_AT_ONCE):
            content.update(block)
    return content.digest()
