"""The 19 tasks of HEAR 2021 in 20 folders: what is known of each, without its data.

The table is ``tasks.csv`` beside this file. Names, versions, scores and folds follow
HEAR's preprocessing code, hearpreprocess 2021.1.1; numbers of clips and labels,
durations and sources its website; licences the archive's LICENSE.txt and, for FSD50K,
the data set's own. What could not be confirmed is None or empty there. Both folders of
Beehive together are one task and one column of the leaderboard.

References
----------
J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations", Proceedings of
Machine Learning Research 176 (NeurIPS 2021), 2022.
"""

import csv
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from importlib.resources import files

RECORD = "https://zenodo.org/api/records/6332517"
"""Address of the public archive's list of files, HEAR 2021 datasets on Zenodo."""

LICENCES = "https://zenodo.org/record/5887964/files/LICENSE.txt"
"""Where the archive's makers say what each task may be used for."""

_ARCHIVE = "hear2021-{folder}-48000.tar.gz"


@dataclass(frozen=True)
class TaskInfo:
    """What is known of one folder of HEAR's tasks.

    Parameters
    ----------
    folder : str
        Name of the task's folder, such as ``"esc50-v2.0.0-full"``.
    name, version, mode : str
        Its parts.
    title : str
        The task's column in the leaderboard.
    embedding_type : {"scene", "event"}
        Whether clips or moments are labelled.
    prediction_type : {"multiclass", "multilabel"}
        Whether exactly one label is right at a time.
    n_folds : int or None
        Number of folds; None where there is one training, validation and test split.
    folds : {"new", "predefined"} or None
        Whether HEAR drew the folds or found them in the data set.
    duration : float or None
        Length of all clips in seconds; None where each has its own.
    evaluation : tuple of str
        Names of the scores; the first is the primary one.
    n_clips : int
        Number of clips.
    n_labels : int or None
        Size of the vocabulary; None where it is not known without the data.
    licence : str
        Of the data, or empty where only :data:`LICENCES` says it.
    source : str
        Address of the original data set or of its paper.
    """

    folder: str
    name: str
    version: str
    mode: str
    title: str
    embedding_type: str
    prediction_type: str
    n_folds: int | None
    folds: str | None
    duration: float | None
    evaluation: tuple
    n_clips: int
    n_labels: int | None
    licence: str
    source: str

    @property
    def primary(self):
        """Name of the score that counts."""
        return self.evaluation[0]

    @property
    def splits(self):
        """Names of the splits, a list."""
        if self.n_folds is None:
            return ["train", "valid", "test"]
        return [f"fold{i:02}" for i in range(self.n_folds)]

    @property
    def archive(self):
        """Name of the file in the public archive, which is sampled at 48 kHz."""
        return _ARCHIVE.format(folder=self.folder)


def list_tasks(pattern="*"):
    """Return the folder names of HEAR's tasks.

    Parameters
    ----------
    pattern : str, default="*"
        Shell-style pattern that names must match.

    Returns
    -------
    names : list of str
        In the order of the leaderboard's website.

    Examples
    --------
    >>> from skaudioemb.hear.registry import list_tasks
    >>> len(list_tasks())
    20
    >>> list_tasks("nsynth*")
    ['nsynth_pitch-v2.2.3-5h', 'nsynth_pitch-v2.2.3-50h']
    """
    return [name for name in _table() if fnmatch(name, pattern)]


def get_task_info(name):
    """Return what is known of a task.

    Parameters
    ----------
    name : str
        One of :func:`list_tasks`, the name of its archive, or the task's own name or
        title where that has one folder only.

    Returns
    -------
    info : TaskInfo

    Raises
    ------
    ValueError
        If no folder or more than one has that name; the message lists them.

    Examples
    --------
    >>> from skaudioemb.hear.registry import get_task_info
    >>> info = get_task_info("esc50")
    >>> info.folder, info.primary, info.n_folds, info.n_clips
    ('esc50-v2.0.0-full', 'top1_acc', 5, 2000)
    """
    table = _table()
    if name in table:
        return table[name]
    found = [
        info for info in table.values() if name in (info.name, info.title, info.archive)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(info.folder for info in found)
        raise ValueError(f"{name!r} has several folders: {names}. Name one of them.")
    raise ValueError(f"There is no task called {name!r}. Known are {', '.join(table)}.")


@cache
def _table():
    with files("skaudioemb.hear").joinpath("tasks.csv").open(encoding="utf-8") as file:
        rows = [_as_info(row) for row in csv.DictReader(file)]
    return {info.folder: info for info in rows}


def _as_info(row):
    numbers = {"n_folds": int, "duration": float, "n_clips": int, "n_labels": int}
    values = {
        name: convert(row[name]) if row[name] else None
        for name, convert in numbers.items()
    }
    evaluation = tuple(row["evaluation"].split())
    return TaskInfo(
        **{**row, **values, "evaluation": evaluation, "folds": row["folds"] or None}
    )
