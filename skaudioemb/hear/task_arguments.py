"""The arguments of ``write_task``, checked and brought to one form."""

import re
from numbers import Integral
from typing import NamedTuple

import numpy as np
from scipy import sparse

from skaudioemb.events import tabulate
from skaudioemb.hear.task_files import TRAIN_VALID_TEST, sort_labels

KINDS = {
    "multiclass": ("scene", "multiclass"),
    "multilabel": ("scene", "multilabel"),
    "events": ("event", "multilabel"),
}


class Target(NamedTuple):
    """What the clips hold.

    Attributes
    ----------
    kind : {"multiclass", "multilabel", "events"}
    labels : list of str
        The vocabulary.
    content : list of list
        For each clip its labels, or its events as tuples with seconds.
    """

    kind: str
    labels: list
    content: list


def read_target(y, kind, labels):
    """Read the labels or events of all clips.

    Parameters
    ----------
    y, kind, labels : object
        As :func:`~skaudioemb.hear.task_writing.write_task` takes them.

    Returns
    -------
    target : Target

    Raises
    ------
    TypeError or ValueError
        If they do not fit together.
    """
    if kind not in (None, *KINDS):
        raise ValueError(f"kind={kind!r} must be one of {', '.join(KINDS)}, or None.")
    if getattr(y, "ndim", 1) == 2:
        if kind not in (None, "multilabel"):
            raise ValueError(f"y is a matrix of indicators, but kind={kind!r}.")
        kind, content = "multilabel", _labels_of_indicators(y, labels)
    else:
        content = y.tolist() if isinstance(y, np.ndarray) else list(y)
        kind = kind or _kind_of(content)
    if kind == "events":
        tabulate(content, "y")
        content = [
            [(_plain(label), float(start), float(end)) for label, start, end in clip]
            for clip in content
        ]
        found = {event[0] for clip in content for event in clip}
    else:
        if kind == "multiclass":
            content = [[label] for label in content]
        elif texts := [clip for clip in content if isinstance(clip, str | Integral)]:
            raise ValueError(
                f"y has {texts[0]!r} for a clip; for several labels per clip it must "
                "be a list of them."
            )
        content = [[_plain(label) for label in clip] for clip in content]
        found = {label for clip in content for label in clip}
    return Target(kind, _check_labels(labels, found), content)


def _labels_of_indicators(y, labels):
    matrix = y.toarray() if sparse.issparse(y) else np.asarray(y)
    if labels is None or len(labels) != matrix.shape[1]:
        raise ValueError(
            f"y has {matrix.shape[1]} columns; labels must name each, and names "
            f"{0 if labels is None else len(labels)}."
        )
    if not np.isin(matrix, (0, 1)).all():
        raise ValueError("y is a matrix and must hold nothing but 0 and 1.")
    return [[labels[column] for column in np.flatnonzero(row)] for row in matrix]


def _kind_of(content):
    """Tell what y holds by its first clip that has a label."""
    if not any(isinstance(clip, list | tuple | np.ndarray) for clip in content):
        return "multiclass"
    first = next((clip[0] for clip in content if len(clip)), None)
    if first is None:
        raise ValueError(
            "No clip of y has a label or an event: say by kind what y would hold."
        )
    return "events" if isinstance(first, list | tuple) else "multilabel"


def _plain(label):
    """Return a label as JSON has it."""
    if isinstance(label, bool) or not isinstance(label, str | Integral):
        raise ValueError(
            f"y has the label {label!r}; a label must be text or a whole number."
        )
    return str(label) if isinstance(label, str) else int(label)


def _check_labels(labels, found):
    if labels is None:
        if not found:
            raise ValueError("y has no labels at all: name the vocabulary by labels.")
        return sort_labels(found)
    labels = [str(_plain(label)) for label in labels]
    unknown = sort_labels(label for label in found if str(label) not in labels)
    if unknown or len(set(labels)) < len(labels):
        raise ValueError(
            f"labels={labels} must name all labels of y, each once; it lacks {unknown}."
        )
    return labels


def check_splits(splits):
    """Check the split of each clip.

    Parameters
    ----------
    splits : sequence of str or int
        As :func:`~skaudioemb.hear.task_writing.write_task` takes them.

    Returns
    -------
    names : list of str
        The split of each clip.
    order : list of str
        The splits, in HEAR's order.

    Raises
    ------
    ValueError
        If they are neither train, valid and test nor at least three folds.
    """
    names = [
        f"fold{split:02d}" if isinstance(split, Integral) else str(split)
        for split in splits
    ]
    found = sorted(set(names))
    if set(found) == set(TRAIN_VALID_TEST):
        return names, list(TRAIN_VALID_TEST)
    if len(found) < 3 or not all(re.fullmatch("fold[0-9]{2,}", name) for name in found):
        raise ValueError(
            f"splits has {', '.join(found)}; it must have all of "
            f"{', '.join(TRAIN_VALID_TEST)}, or at least three folds, as 0, 1, 2."
        )
    return names, found


def check_files(files, splits, n_clips):
    """Check the names of the files, or make them up.

    Parameters
    ----------
    files : sequence of str or None
        As :func:`~skaudioemb.hear.task_writing.write_task` takes them.
    splits : list of str
        The split of each clip.
    n_clips : int
        Number of clips.

    Returns
    -------
    names : list of str
        With ".wav" at the end.

    Raises
    ------
    ValueError
        If one is no name of a file, or comes twice in a split.
    """
    if files is None:
        width = len(str(n_clips))
        return [f"clip{number:0{width}d}.wav" for number in range(n_clips)]
    names = [str(file) for file in files]
    names = [name if name.endswith(".wav") else f"{name}.wav" for name in names]
    for name in names:
        if re.search(r"[/\\\x00]", name) or name.startswith("."):
            raise ValueError(
                f"files has {name!r}; a file name may hold no / or \\, and may not "
                "begin with a dot."
            )
    # Some systems take a.wav and A.wav for one file.
    keys = [
        (split, name.casefold()) for split, name in zip(splits, names, strict=False)
    ]
    if len(set(keys)) < len(keys):
        split, name = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(
            f"files has {name!r} twice in the split {split}: give each clip of a "
            "split a name of its own."
        )
    return names


def check_lengths(**sequences):
    """Check that there is an entry for each clip everywhere.

    Parameters
    ----------
    **sequences : sequence
        By the names that messages call them.

    Raises
    ------
    ValueError
        If they are not all of one length.
    """
    lengths = {name: len(sequence) for name, sequence in sequences.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise ValueError(f"There must be one entry for each clip, but {found}.")
