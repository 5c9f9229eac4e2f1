"""Reading a benchmark's folder: finished results, and what went wrong."""

from pathlib import Path
from zipfile import BadZipFile

from skaudioemb.hear.results import SUMMARY, Result, read_json

_ERRORS = "error.json"
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile)


def load_results(folder):
    """Read all finished results below a folder.

    Parameters
    ----------
    folder : path-like
        What a benchmark was written to. What is not finished or cannot be read is left
        out; :func:`load_failures` tells of it.

    Returns
    -------
    results : list of Result
        Sorted by folder.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    """
    return read_folder(folder)[0]


def load_failures(folder):
    """Read what went wrong in a benchmark.

    Parameters
    ----------
    folder : path-like
        What the benchmark was written to.

    Returns
    -------
    failures : list of dict
        "embedder", "task", "test" (None if before any split) and "error", a text.
        Results that cannot be read are among them.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    """
    return read_folder(folder)[1]


def read_folder(folder):
    """Read both at once; see :func:`load_results` and :func:`load_failures`.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    results : list of Result
    failures : list of dict

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}. Name the folder that a benchmark was "
            "written to."
        )
    results, failures = [], []
    for path in sorted(folder.rglob(_ERRORS)):
        try:
            failures += [
                {key: each.get(key) for key in ("embedder", "task", "test", "error")}
                for each in read_json(path)["failures"]
            ]
        except (*_UNREADABLE, AttributeError) as error:
            failures.append(_unreadable(path, error))
    for path in sorted(folder.rglob(SUMMARY)):
        try:
            results.append(Result.load(path.parent))
        except _UNREADABLE as error:
            failures.append(_unreadable(path, error))
    return results, failures


def describe_failure(failure):
    """Return a failure as one line of text.

    Parameters
    ----------
    failure : dict
        As :func:`load_failures` gives it.

    Returns
    -------
    text : str
    """
    where = f" ({failure['test']})" if failure.get("test") else ""
    error = " ".join(str(failure.get("error")).split())
    return f"{failure.get('embedder')} on {failure.get('task')}{where}: {error}"


def _unreadable(path, error):
    message = f"{path} cannot be read: {type(error).__name__}: {error}"
    embedder, task = path.parts[-3:-1]
    return {"embedder": embedder, "task": task, "test": None, "error": message}
