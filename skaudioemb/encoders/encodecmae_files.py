"""Where a published or saved file of EncodecMAE lies: here, or on the hub."""

import functools
import os
from pathlib import Path

from skaudioemb.encoders.saved_weights import SIDECAR_FILE
from skaudioemb.encoders.saved_weights import WEIGHTS_FILE as SAVED_FILE

# What a folder or a repository of the first generation calls its weights.
WEIGHTS_FILE = "model.pt"


def find_file(checkpoint, revision=None):
    """Return the path of a file of weights, downloading it if need be.

    Parameters
    ----------
    checkpoint : str or path-like
        A file; a folder with ``model.safetensors``, ``model.pt`` or one ``.pt`` file;
        a repository of the Hugging Face hub with ``model.pt``, as
        "lpepino/encodecmae-base", or with ``model.safetensors``; or a file in one, as
        "lpepino/encodecmae-v2/mel256-ec-base.pt".
    revision : str or None, default=None
        Branch, tag or commit of the repository.

    Returns
    -------
    path : Path

    Raises
    ------
    OSError
        If there is neither such a file here nor on the hub or in its cache.
    """
    path = Path(checkpoint).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return _in_folder(path)
    owner, *rest = os.fspath(checkpoint).split("/")
    is_one_file = len(rest) == 1 and rest[0].endswith((".pt", ".safetensors"))
    if not rest or is_one_file or owner[:1] in ("", ".", "~"):
        raise OSError(
            f"There is no file or folder {str(checkpoint)!r}. Give a file of weights, "
            f"a folder with {WEIGHTS_FILE} or {SAVED_FILE}, or the name of a "
            "repository of the Hugging Face hub, as 'lpepino/encodecmae-base'."
        )
    name = "/".join(rest[1:]) or WEIGHTS_FILE
    name = name if name.endswith(".pt") else f"{name}.pt"
    return _from_hub(f"{owner}/{rest[0]}", name, revision, or_saved=not rest[1:])


def _in_folder(folder):
    if (folder / SAVED_FILE).is_file():
        return folder / SAVED_FILE
    found = sorted(folder.glob("*.pt"))
    if folder / WEIGHTS_FILE in found:
        return folder / WEIGHTS_FILE
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found) or "none"
    raise OSError(
        f"The folder {str(folder)!r} holds neither {SAVED_FILE}, as save_weights "
        f"writes it, nor {WEIGHTS_FILE}, and its .pt files leave open which one is "
        f"meant ({names}). Give the path of a file."
    )


@functools.cache
def _from_hub(model_id, name, revision, or_saved=False):
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
    )

    try:
        try:
            return Path(hf_hub_download(model_id, name, revision=revision))
        except EntryNotFoundError:
            if not or_saved:
                raise
            hf_hub_download(model_id, SIDECAR_FILE, revision=revision)
            return Path(hf_hub_download(model_id, SAVED_FILE, revision=revision))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        at = "" if revision is None else f" at revision {revision!r}"
        raise OSError(
            f"The file {name!r} of {model_id!r}{at} is neither here nor could it be "
            f"had from the Hugging Face hub or its local cache ({type(error).__name__})"
            ". Give a file of weights, or download it once with network, or check the "
            "spelling."
        ) from error
