"""HEAR's tasks from the public archive: find, download, verify, unpack."""

import json
import tempfile
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from skaudioemb.hear.download import DownloadError, download, parse_checksum
from skaudioemb.hear.registry import RECORD, get_task_info
from skaudioemb.hear.task import load_task
from skaudioemb.hear.task_folders import task_folders

_SUFFIXES = (".tar.gz", ".tgz", ".tar")


def get_task(
    name_or_url,
    folder,
    *,
    checksum=None,
    base_url=RECORD,
    keep_archive=False,
    retries=5,
    progress=True,
):
    """Download a task, verify it and unpack it.

    Nothing is downloaded where ``folder`` already holds the task or its whole archive.
    The archive is unpacked into a folder of its name, by tarfile's data filter, and
    removed.

    Parameters
    ----------
    name_or_url : str
        A name that :func:`skaudioemb.hear.registry.get_task_info` knows, the name of
        another ``.tar.gz`` of the archive, or the address of an archive anywhere.
    folder : path-like
        Where to put the task; made if it does not exist.
    checksum : str or None, default=None
        ``"md5:..."``, ``"sha256:..."`` or the hexadecimal digits alone. None takes
        what the public archive states, and for an address nothing: then only the
        length and gzip's own checksum tell whether the file is whole.
    base_url : str, default=RECORD
        Address of the archive's record, a JSON document as Zenodo gives it. Not used
        for addresses.
    keep_archive : bool, default=False
        Whether the tarball stays beside the task.
    retries : int, default=5
        How often to try again, with growing pauses, when the server is busy or hangs
        up and nothing new has arrived.
    progress : bool, default=True
        Whether to show a progress bar.

    Returns
    -------
    task : skaudioemb.hear.task.Task

    Raises
    ------
    ValueError
        If the name or the checksum is not one, or the tarball is damaged, unsafe or
        no task.
    DownloadError
        If the archive does not have it, cannot be reached, hands out something else
        than the checksum says, or the disk is too small.

    Examples
    --------
    >>> from skaudioemb.hear.archive import get_task
    >>> task = get_task("mridangam_tonic", "tasks")  # doctest: +SKIP
    """
    checksum = None if checksum is None else parse_checksum(checksum)
    folder = Path(folder)
    is_url = "://" in name_or_url
    name = _name_of(name_or_url) if is_url else _archive_of(name_or_url)
    present = _find(folder, name)
    if present is not None:
        return load_task(present)
    if is_url:
        url, size = name_or_url, None
    else:
        url, size, stated = _look_up(name, base_url, retries)
        checksum = checksum or stated
    path = folder / name
    download(
        url, path, checksum=checksum, size=size, retries=retries, progress=progress
    )
    try:
        task = load_task(path)
    except ValueError:
        # Without a checksum, what is damaged may have come so: it must not stay.
        if checksum is None:
            path.unlink()
        raise
    if not keep_archive:
        path.unlink()
    return task


def _look_up(name, base_url, retries):
    """Return address, size and checksum of a file of the archive's record."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.json"
        download(base_url, path, retries=retries, progress=False)
        try:
            entries = {
                entry["key"]: (
                    urljoin(base_url, entry["links"]["self"]),
                    int(entry["size"]),
                    parse_checksum(entry["checksum"]),
                )
                for entry in json.loads(path.read_bytes())["files"]
            }
        except (KeyError, TypeError, ValueError) as error:
            raise DownloadError(
                f"{base_url} is no record with a list of files ({error!r}). Give the "
                "address of the archive's JSON document."
            ) from error
    if name not in entries:
        raise DownloadError(
            f"The archive {base_url} has no {name}. It has {', '.join(entries)}."
        )
    return entries[name]


def _archive_of(name):
    return name if name.endswith(".tar.gz") else get_task_info(name).archive


def _name_of(url):
    """Return the file name of an address; Zenodo's end in ``NAME/content``."""
    parts = [unquote(part) for part in urlsplit(url).path.split("/") if part]
    if parts[-1:] == ["content"]:
        parts.pop()
    name = parts[-1] if parts else ""
    if not name.endswith(_SUFFIXES) or Path(name).name != name or "\\" in name:
        raise ValueError(
            f"{url!r} does not end in the name of an archive, {' or '.join(_SUFFIXES)}."
        )
    return name


def _find(folder, archive):
    """Return the folder that holds what was in that archive, if there is one."""
    stem = next(archive.removesuffix(end) for end in _SUFFIXES if archive.endswith(end))
    if (folder / stem).is_dir():
        return folder / stem
    name = stem.removeprefix("hear2021-").removesuffix("-48000")
    found = (path for path in task_folders(folder) if path.name == name)
    return next(found, None)
