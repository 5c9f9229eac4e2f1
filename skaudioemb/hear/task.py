"""HEAR's tasks as scikit-learn sees data: X, y, and how to split them.

:func:`load_task` reads a task folder, or an archive of one; :func:`find_tasks` all of
them in a tree. No recording is opened: X holds paths, which every embedder reads.
"""

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import PredefinedSplit
from sklearn.utils import Bunch

from skaudioemb.hear.task_files import (
    TRAIN_VALID_TEST,
    VOCABULARY,
    TaskError,
    find_audio,
    read_metadata,
    read_split,
    read_vocabulary,
    sort_labels,
)
from skaudioemb.hear.task_folders import (
    extract_archive,
    is_archive,
    task_archives,
    task_folders,
)
from skaudioemb.hear.task_splits import TrainValidTest
from skaudioemb.probes.folds import RotatingFolds

__all__ = ["Task", "TaskError", "TrainValidTest", "find_tasks", "load_task"]


@dataclass(eq=False, repr=False)
class Task:
    """A task of HEAR: clips, what they should be told to be, and the splits.

    Made by :func:`load_task`. Rows are sorted by split, and within a split they are in
    the order of its JSON file.

    Attributes
    ----------
    name : str
        Name of the task's folder, such as ``"esc50-v2.0.0-full"``.
    path : Path
        The folder.
    metadata : dict
        Content of ``task_metadata.json``; its times are milliseconds.
    labels : list of str
        The vocabulary, in its order.
    splits : list of str
        ``["train", "valid", "test"]``, or the folds, sorted.
    sample_rate : int
        Rate of the recordings that were chosen, in Hz.
    files : list of str
        Names of the clips.
    X : list of str
        Their paths.
    y : ndarray or list
        Scenes, multiclass: ndarray of shape (n_clips,), labels as text. Scenes,
        multilabel: indicators, ndarray of shape (n_clips, n_labels), uint8. Events:
        list of n_clips lists of Event, in seconds.
    split : ndarray of shape (n_clips,), str
        The split of each clip.
    """

    name: str
    path: Path
    metadata: dict
    labels: list
    splits: list
    sample_rate: int
    files: list
    X: list
    y: object
    split: np.ndarray

    @property
    def embedding_type(self):
        """Either "scene", one label per clip, or "event", labels in time."""
        return self.metadata["embedding_type"]

    @property
    def prediction_type(self):
        """Either "multiclass" or "multilabel"."""
        return self.metadata["prediction_type"]

    @property
    def evaluation(self):
        """Names of the scores, of ``skaudioemb.hear.scores.SCORES``."""
        return list(self.metadata["evaluation"])

    @property
    def primary(self):
        """Name of the score that counts."""
        return self.evaluation[0]

    @property
    def sample_duration(self):
        """Length of each clip in seconds; None if they differ."""
        return self.metadata["sample_duration"]

    @property
    def is_kfold(self):
        """Whether the splits are folds."""
        return self.metadata["split_mode"] != "trainvaltest"

    @property
    def cv(self):
        """The splitter of HEAR's protocol, for all rows.

        :class:`~skaudioemb.probes.folds.RotatingFolds` of the folds, or
        :class:`TrainValidTest`. It has ``validation_rows`` beside scikit-learn's
        ``split``, whose test rows are those to report. To choose parameters without a
        look at them, search ``task.part("train", "valid")``.
        """
        return (RotatingFolds if self.is_kfold else TrainValidTest)(self.split)

    def part(self, *splits):
        """Return some of the splits as data of its own.

        Parameters
        ----------
        *splits : str
            Names of splits; all by default.

        Returns
        -------
        part : Bunch
            X, y, files : list or ndarray
                Of the clips, split after split as they are named.
            rows : ndarray of int
                Where they stand in the task.
            cv : PredefinedSplit or None
                The last split named is tested on, the others are trained on. None if
                there is but one.

        Raises
        ------
        ValueError
            If the task has no split of that name, or one is named twice.
        """
        splits = splits or self.splits
        if not set(splits) <= set(self.splits) or len(set(splits)) < len(splits):
            raise ValueError(
                f"{self.name} has the splits {', '.join(self.splits)}; found "
                f"{', '.join(map(repr, splits))}. Name some of them, each once."
            )
        by_split = [np.flatnonzero(self.split == name) for name in splits]
        rows = np.concatenate(by_split)
        folds = np.full(len(rows), -1)
        folds[len(rows) - len(by_split[-1]) :] = 0
        y = [self.y[i] for i in rows] if isinstance(self.y, list) else self.y[rows]
        return Bunch(
            X=[self.X[i] for i in rows],
            y=y,
            files=[self.files[i] for i in rows],
            rows=rows,
            cv=PredefinedSplit(folds) if len(splits) > 1 else None,
        )

    def heareval_order(self):
        """Return the rows in the order in which heareval trains on them.

        In each split, as the metadata order them, the files are shuffled in place by
        one generator that all splits share, seeded with 0 (heareval 2021.1.3).

        Returns
        -------
        rows : ndarray of shape (n_clips,), int
        """
        generator, order = random.Random(0), []
        for name in self.metadata["splits"]:
            rows = np.flatnonzero(self.split == name).tolist()
            generator.shuffle(rows)
            order += rows
        return np.array(order)

    def __repr__(self):
        counts = Counter(self.split.tolist())
        sizes = ", ".join(f"{counts[name]} {name}" for name in self.splits)
        if self.is_kfold:
            sizes = f"{len(self.splits)} folds"
        return (
            f"<Task {self.name}: {self.embedding_type} {self.prediction_type}, "
            f"{len(self.X)} clips ({sizes}), {len(self.labels)} labels, {self.primary}>"
        )


def load_task(path, sample_rate=None, *, extract_to=None):
    """Read a task in HEAR's format.

    Parameters
    ----------
    path : path-like
        A task folder, a folder that holds one anywhere below, or an archive (.tar.gz,
        .tgz or .tar), which is extracted the first time.
    sample_rate : int or None, default=None
        Take the recordings at this rate, in Hz, if there are such. Otherwise, and by
        default, those at the highest rate are taken; embedders resample them.
    extract_to : path-like or None, default=None
        Folder in which to extract an archive, into a folder of its name; beside the
        archive by default.

    Returns
    -------
    task : Task

    Raises
    ------
    TaskError
        If there is no task, or several, or the folder or the archive is damaged.

    Notes
    -----
    As in heareval, the JSON files say which clips there are: a recording that none of
    them names is left out, also in tasks of events, where HEAR names no clip without
    events. Without ``labelvocabulary.csv`` the labels are the sorted union over all
    splits. Labels are compared as text.

    References
    ----------
    J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations", Proceedings
    of Machine Learning Research 176 (NeurIPS 2021), 2022. The format is that of its
    code, hearpreprocess 2021.1.1.
    """
    path = Path(path)
    if not path.exists():
        raise TaskError(f"There is no {path}: give a task's folder or archive.")
    if not path.is_dir():
        if not is_archive(path):
            raise TaskError(
                f"{path} is neither a folder nor an archive named .tar.gz, .tgz or "
                ".tar."
            )
        path = extract_archive(path, extract_to)
    folders = task_folders(path)
    if len(folders) != 1:
        found = ", ".join(map(str, folders)) or "none"
        raise TaskError(
            f"{path} must be, or hold somewhere below, one folder with a "
            f"task_metadata.json; found {found}. For several tasks use find_tasks."
        )
    return _read_task(folders[0], sample_rate)


def find_tasks(folder, sample_rate=None, *, extract=False):
    """Read all tasks in a tree.

    Parameters
    ----------
    folder : path-like
        Where to look; the tasks may lie anywhere below.
    sample_rate : int or None, default=None
        As in :func:`load_task`.
    extract : bool, default=False
        Extract archives of tasks first, each beside itself.

    Returns
    -------
    tasks : list of Task
        Sorted by name. Of copies of one task, as archives for several sample rates
        give them, the one at the wanted rate is taken, or else at the highest.

    Raises
    ------
    TaskError
        If a task is damaged, or different tasks have the same name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TaskError(f"There is no folder {folder} in which to look for tasks.")
    if extract:
        for archive in task_archives(folder):
            extract_archive(archive)
    tasks = {}
    for path in task_folders(folder):
        task = _read_task(path, sample_rate)
        known = tasks.setdefault(task.name, task)
        if task.files != known.files or task.metadata != known.metadata:
            raise TaskError(
                f"{known.path} and {path} are different tasks of the same name: rename "
                "or remove one of the folders."
            )
        tasks[task.name] = max(
            known, task, key=lambda t: (t.sample_rate == sample_rate, t.sample_rate)
        )
    return [tasks[name] for name in sorted(tasks)]


def _read_task(folder, sample_rate):
    metadata = read_metadata(folder)
    is_kfold = metadata["split_mode"] != "trainvaltest"
    splits = sorted(metadata["splits"]) if is_kfold else list(TRAIN_VALID_TEST)
    annotations = {split: read_split(folder, split, metadata) for split in splits}
    audio, rate = find_audio(folder, annotations, sample_rate)
    rows = [(split, name) for split in splits for name in annotations[split]]
    content = [annotations[split][name] for split, name in rows]
    labels = _vocabulary(folder, rows, content)
    return Task(
        name=folder.resolve().name,
        path=folder,
        metadata=metadata,
        labels=labels,
        splits=splits,
        sample_rate=rate,
        files=[name for _, name in rows],
        X=[str(audio / split / name) for split, name in rows],
        y=_as_target(content, labels, metadata),
        split=np.array([split for split, _ in rows]),
    )


def _vocabulary(folder, rows, content):
    """Return the labels; check that the file, if there is one, has all that occur."""
    texts = [[getattr(item, "label", item) for item in items] for items in content]
    labels = read_vocabulary(folder)
    if labels is None:
        return sort_labels(label for clip in texts for label in clip)
    known = set(labels)
    for (split, name), clip in zip(rows, texts, strict=True):
        if not known.issuperset(clip):
            unknown = next(label for label in clip if label not in known)
            raise TaskError(
                f"{folder / f'{split}.json'}, {name!r}: the label {unknown!r} is not "
                f"in {VOCABULARY}, which has {len(labels)}. Add it there, or remove "
                "that file to have the labels taken from the splits."
            )
    return labels


def _as_target(content, labels, metadata):
    if metadata["embedding_type"] == "event":
        return content
    if metadata["prediction_type"] == "multiclass":
        return np.array([label for (label,) in content])
    columns = {label: column for column, label in enumerate(labels)}
    y = np.zeros((len(content), len(labels)), dtype=np.uint8)
    for row, clip in enumerate(content):
        y[row, [columns[label] for label in clip]] = 1
    return y
