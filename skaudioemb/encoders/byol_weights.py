"""Files of BYOL weights: found, fetched, described, and written.

A JSON file of the same name may tell front end and statistics, which tensors cannot;
files that are saved here tell them themselves, should they be parted from it.
"""

import csv
import functools
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from skaudioemb.encoders.byol import ENCODERS
from skaudioemb.encoders.byol_frontend import FRONTENDS
from skaudioemb.encoders.byol_published import PUBLISHED
from skaudioemb.encoders.byol_tensors import digest_of, family_of, read
from skaudioemb.encoders.checkpoint import fetch, folder_of, stamp_of
from skaudioemb.encoders.saved_weights import (
    WEIGHTS_FILE,
    check_version,
    read_told,
    sidecar_of,
    write,
)

FORMAT = "skaudioemb-byol"
VERSION = 1
_OGG_FILES = ("checkpoint.pth", "stats.csv")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


class Description(NamedTuple):
    """What a file of weights tells.

    Attributes
    ----------
    encoder : str
        Name of the encoder; "cvt" also stands for "cvt-512", whose tensors are alike.
    n_features : int or None
        Width, where the encoder's is free.
    digest : str
        Names the content of the tensors, whatever file holds them.
    frontend : str or None
    mean, std : float or None
        Statistics of the log-mel that the weights were trained with.
    """

    encoder: str
    n_features: int | None
    digest: str
    frontend: str | None = None
    mean: float | None = None
    std: float | None = None


@dataclass(frozen=True)
class WeightsFile:
    """Weights in a file.

    Attributes
    ----------
    path : str
    """

    path: str

    @property
    def digest(self):
        return self.description.digest

    @property
    def description(self):
        """The file's :class:`Description`, read once as long as it stays the same."""
        return _describe(*_stamps(Path(self.path)))

    def state(self):
        """Return the encoder's state dict."""
        return read(Path(self.path))[2]


@dataclass(frozen=True)
class HeldWeights:
    """Weights in memory, as pretraining leaves them.

    Attributes
    ----------
    digest : str
        Names their content.
    description : Description or None
        What they were trained as, if that is known.
    """

    digest: str
    _state: dict = field(compare=False, repr=False)
    description: Description | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, state, encoder=None, n_features=None, frontend=None):
        """Return the weights of a state dict, on the CPU."""
        state = {name: value.detach().cpu().clone() for name, value in state.items()}
        digest = digest_of(state)
        told = None
        if encoder is not None:
            told = Description(encoder, n_features, digest, frontend)
        return cls(digest, state, told)

    def state(self):
        """Return the encoder's state dict."""
        return self._state


def find(weights):
    """Return the file that ``weights`` stands for, downloading it if need be.

    Parameters
    ----------
    weights : str or path-like
        A file, a folder that :func:`save` wrote, a name of ``PUBLISHED``, an address
        that ends in ``#sha256=`` and a checksum, or a repository "owner/name" on the
        Hugging Face hub, "@revision" after it or not.

    Returns
    -------
    file : WeightsFile

    Raises
    ------
    OSError
        If there is no such file or it cannot be had.
    ValueError
        If an address has no checksum, or a published file is not to be had by name.
    """
    text = os.fspath(weights)
    if text.startswith(("http://", "https://")):
        return WeightsFile(_fetch(text))
    if text in PUBLISHED:
        published = PUBLISHED[text]
        if not published.is_free_to_fetch:
            raise ValueError(published.refusal(text))
        return WeightsFile(_fetch(f"{published.url}#sha256={published.sha256}"))
    path = Path(text).expanduser()
    if path.is_dir():
        path = _file_of(path)
    elif not path.exists() and _REPOSITORY.fullmatch(text) and not path.suffix:
        path = _from_hub(text)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file of weights {text!r}. Give a path, an address with "
            "'#sha256=' and a checksum, 'owner/name' of the Hugging Face hub, or one "
            f"of {', '.join(PUBLISHED)}."
        )
    return WeightsFile(str(path))


def _file_of(folder):
    for name in (WEIGHTS_FILE, _OGG_FILES[0]):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"The folder {str(folder)!r} holds neither {WEIGHTS_FILE}, as save_weights "
        f"writes it, nor {_OGG_FILES[0]}. Give the file itself if it has another name."
    )


def _fetch(address):
    url, _, fragment = address.partition("#")
    name, _, digits = fragment.partition("=")
    if name != "sha256" or not re.fullmatch("[0-9a-fA-F]{64}", digits):
        raise ValueError(
            f"The address {address!r} has no checksum. Add '#sha256=' and the 64 "
            "digits that the file's source states, or download it and give its path."
        )
    home = os.environ.get("SKAUDIOEMB_CACHE") or Path.home() / ".cache" / "skaudioemb"
    return _download(url, digits.lower(), Path(home).expanduser() / "weights")


@functools.cache
def _download(url, digits, folder):
    from skaudioemb.hear.download import download

    path = folder / f"{digits[:16]}-{url.rpartition('/')[2]}"
    return str(download(url, path, checksum=f"sha256:{digits}"))


def _from_hub(repository):
    name, _, revision = repository.partition("@")
    try:
        folder = folder_of(name, revision or None)
        path = fetch(folder, WEIGHTS_FILE)
    except OSError as error:
        raise FileNotFoundError(
            f"weights={repository!r} is no file here, no published name, and no "
            f"repository that could be had from the Hugging Face hub or its cache "
            f"({error}). Published names are {', '.join(PUBLISHED)}."
        ) from error
    return folder / WEIGHTS_FILE if path is None else path


def _sidecar_of(path):
    """Return where a file's front end and statistics may be told."""
    if path.name == _OGG_FILES[0]:
        return path.with_name(_OGG_FILES[1])
    return sidecar_of(path)


def _stamps(path):
    sidecar = _sidecar_of(path)
    return stamp_of(path), stamp_of(sidecar) if sidecar.is_file() else None


@functools.lru_cache(maxsize=64)
def _describe(stamp, sidecar_stamp):
    path = Path(stamp[0])
    encoder, n_features, state = read(path)
    told, source = _told_of(path, sidecar_stamp)
    stated, width = told.pop("encoder", encoder), told.pop("n_features", None)
    other_width = n_features is not None and width not in (None, n_features)
    if family_of(stated) != encoder or other_width:
        raise ValueError(
            f"{str(source)!r} tells of {stated!r} with {width} features, but the "
            f"weights in {str(path)!r} are of {encoder!r} with {n_features}. They do "
            "not belong together; save the weights again."
        )
    return Description(stated, n_features, digest_of(state), **told)


def _told_of(path, sidecar_stamp):
    """Return what is told of weights beside them or with them, and where."""
    if sidecar_stamp is not None and sidecar_stamp[0].endswith(".csv"):
        source = Path(sidecar_stamp[0])
        return _read_statistics(source), source
    content, source = read_told(path)
    return {} if content is None else _checked(content, source), source


def _checked(content, path):
    fields = ("encoder", "n_features", "frontend", "mean", "std")
    told = {name: content.get(name) for name in fields}
    if (
        content.get("format") != FORMAT
        or told["encoder"] not in ENCODERS
        or told["frontend"] not in FRONTENDS
        or not _are_statistics(told["mean"], told["std"])
    ):
        raise ValueError(
            f"What {str(path)!r} tells of the weights is not as save_weights writes "
            "it. Save the weights again, or move a JSON file away to use them without."
        )
    check_version(path, content, VERSION)
    return told


def _are_statistics(mean, std):
    """Tell whether these are a mean and a deviation, or neither of them is known."""
    if mean is None or std is None:
        return mean is std
    numbers = all(type(value) in (int, float) for value in (mean, std))
    return numbers and math.isfinite(mean) and 0 < std < math.inf


def _read_statistics(path):
    """Read the mean and the deviation that stand beside a checkpoint of Ogg's."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            row = next(csv.DictReader(file, skipinitialspace=True))
        told = {name: float(row[name]) for name in ("mean", "std")}
        if not _are_statistics(told["mean"], told["std"]):
            raise ValueError("mean and a deviation above 0 are needed")
        return {"frontend": "byol-a", **told}
    except (ValueError, TypeError, KeyError, StopIteration, csv.Error) as error:
        raise ValueError(
            f"{str(path)!r} beside the weights should hold the columns mean and std "
            f"and one row of numbers ({type(error).__name__}: {error})."
        ) from error


def save(path, state, **told):
    """Write weights as safetensors with a JSON file beside it.

    Parameters
    ----------
    path : str or path-like
        A file that ends in .safetensors, or a folder, which is made.
    state : dict of str to Tensor
    **told : dict
        ``encoder``, ``n_features``, ``frontend``, ``mean`` and ``std``.

    Returns
    -------
    files : list of Path
        The two files.
    """
    return write(path, state, {"format": FORMAT, "version": VERSION, **told})
