"""Where HEAR's tasks lie: folders below a folder, and archives of them."""

import errno
import os
import shutil
import tarfile
import uuid
import zlib
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from skaudioemb.hear.task_files import METADATA, TaskError

_ENDINGS = (".tar.gz", ".tgz", ".tar")
_BLOCK = 2**20  # bytes
_NO_WRITING = (errno.EACCES, errno.EPERM, errno.EROFS)


def task_folders(folder):
    """Find the task folders in a tree.

    Parameters
    ----------
    folder : path-like
        May be a task folder itself.

    Returns
    -------
    folders : list of Path
        Those with a ``task_metadata.json``, sorted. Nothing is looked for within a
        task folder.
    """
    found, seen = [], set()
    for parent, children, files in os.walk(folder, followlinks=True):
        # A link may lead back to where the walk has been.
        real = os.path.realpath(parent)
        is_task = METADATA in files
        if real in seen or is_task:
            children.clear()
        if is_task and real not in seen:
            found.append(Path(parent))
        seen.add(real)
        children[:] = [name for name in children if not name.startswith(".")]
    return sorted(found)


def is_archive(path):
    """Tell whether a path is named like an archive: .tar.gz, .tgz or .tar.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    result : bool
    """
    return Path(path).name.endswith(_ENDINGS)


def task_archives(folder):
    """Find the archives with a task in a tree.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    archives : list of Path
        Sorted. Other archives are left out.
    """
    named = (path for ending in _ENDINGS for path in Path(folder).rglob(f"*{ending}"))
    return sorted(path for path in named if path.is_file() and _holds_task(path))


def _holds_task(path):
    with _open(path) as archive:
        return any(PurePosixPath(member.name).name == METADATA for member in archive)


def extract_archive(archive, extract_to=None):
    """Extract an archive, unless that has been done before.

    Members that would be written elsewhere, links that lead elsewhere and devices are
    refused (the "data" filter of :mod:`tarfile`). The folder appears only when it is
    whole, so that an interrupted extraction is started again.

    Parameters
    ----------
    archive : path-like
        Its name ends in .tar.gz, .tgz or .tar.
    extract_to : path-like or None, default=None
        Where to make the folder; beside the archive by default.

    Returns
    -------
    folder : Path
        Named as the archive without the ending. If it is there already, the archive
        is not opened.

    Raises
    ------
    TaskError
        If the archive is damaged or a member is refused; nothing is left behind.
    """
    archive = Path(archive)
    ending = next(ending for ending in _ENDINGS if archive.name.endswith(ending))
    parent = archive.parent if extract_to is None else Path(extract_to)
    folder = parent / archive.name.removesuffix(ending)
    if folder.is_dir():
        return folder
    try:
        with whole_folder(folder) as partial, _open(archive) as members:
            members.extractall(partial, filter="data")
            _read_to_the_end(members)
    except tarfile.FilterError as error:
        raise TaskError(
            f"{archive} is refused, for it would write outside its folder or make "
            f"something that is no file: {error}. Get the archive from a source that "
            "you trust."
        ) from error
    except FileExistsError:
        # Another process has extracted it in the meantime.
        if not folder.is_dir():
            raise
    except OSError as error:
        if error.errno not in _NO_WRITING:
            raise
        raise TaskError(
            f"{archive} cannot be extracted into {parent}: {error.strerror}. Name "
            "another folder as extract_to."
        ) from error
    return folder


def _read_to_the_end(archive):
    # For tarfile a broken header is the end, and gzip's checksum comes at the very end.
    while archive.fileobj.read(_BLOCK):
        pass


@contextmanager
def _open(path):
    try:
        with tarfile.open(path) as archive:
            yield archive
    except tarfile.FilterError:
        raise
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        # What gzip says of wrong bytes has no error number.
        if error.errno is not None:
            raise
        raise _damaged(path, error) from error


def _damaged(path, error):
    return TaskError(
        f"{path} is damaged or no archive ({str(error).rstrip('.')}): fetch it again."
    )


@contextmanager
def whole_folder(folder, overwrite=False):
    """Make a folder that appears under its name only when it is whole.

    Parameters
    ----------
    folder : path-like
        Its parents are made as needed.
    overwrite : bool, default=False
        Replace a folder of this name at the end.

    Yields
    ------
    partial : Path
        The folder to fill. It is removed if the block raises.

    Raises
    ------
    FileExistsError
        If there is a folder of this name, and ``overwrite`` is false.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    partial.mkdir()
    try:
        yield partial
        _put_in_place(partial, folder, overwrite)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial, folder, overwrite):
    if not os.path.lexists(folder):
        os.rename(partial, folder)
        return
    if not overwrite:
        raise FileExistsError(f"There is a folder {folder} already.")
    old = partial.with_name(f"{partial.name}.old")
    os.rename(folder, old)
    os.rename(partial, folder)
    shutil.rmtree(old)
