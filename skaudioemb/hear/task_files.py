"""What the files of a HEAR task folder say, checked: metadata, vocabulary, splits.

Times are milliseconds in the files and seconds from here on.
"""

import csv
import json
import math
import re
from numbers import Real
from pathlib import Path

from skaudioemb.events import Event
from skaudioemb.hear.scores import SCORES
from skaudioemb.hear.task_settings import find_problem

METADATA = "task_metadata.json"
VOCABULARY = "labelvocabulary.csv"
TRAIN_VALID_TEST = ("train", "valid", "test")

_CHOICES = {
    "embedding_type": ("scene", "event"),
    "prediction_type": ("multiclass", "multilabel"),
    "split_mode": ("trainvaltest", "new_split_kfold", "presplit_kfold"),
}
# A split's name becomes that of a file, in the task and among its results.
_NAME = re.compile(r"(?!\.)[\w.-]+")
_RESERVED = ("result", "settings", "error", "task_metadata")
_REQUIRED = ("task_name", *_CHOICES, "sample_duration", "evaluation", "splits")


class TaskError(ValueError):
    """A task folder, or an archive of one, that cannot be read.

    The message names the file and the field, what was found, what is allowed and what
    to do.
    """


def read_metadata(folder):
    """Read ``task_metadata.json``.

    Parameters
    ----------
    folder : Path
        The task's folder.

    Returns
    -------
    metadata : dict
        As in the file, with every key that HEAR's own evaluation reads.

    Raises
    ------
    TaskError
        If the file is missing or no JSON, or a field is missing or not as in HEAR.
    """
    path = folder / METADATA
    metadata = _read_json(path)
    check_metadata(metadata, path)
    return metadata


def check_metadata(metadata, path):
    """Check what a task's metadata say.

    Parameters
    ----------
    metadata : dict
        Content of the file.
    path : Path
        The file, for messages.

    Raises
    ------
    TaskError
        If a field is missing or not as in HEAR.
    """
    if missing := [key for key in _REQUIRED if key not in metadata]:
        raise TaskError(
            f"{path} lacks {_listed(missing)}. HEAR's tasks have {_listed(_REQUIRED)}: "
            "add what is missing."
        )
    for key, choices in _CHOICES.items():
        if metadata[key] not in choices:
            raise TaskError(
                f'{path}: "{key}" is {metadata[key]!r}; it must be one of '
                f"{_listed(choices)}."
            )
    _check_duration(path, metadata["sample_duration"])
    _check_evaluation(path, metadata["evaluation"], metadata["embedding_type"])
    _check_splits(path, metadata["splits"], metadata["split_mode"])
    if problem := find_problem(metadata):
        raise TaskError(f"{path}: {problem}")


def _check_duration(path, duration):
    if duration is not None and not (_is_number(duration) and duration > 0):
        raise TaskError(
            f'{path}: "sample_duration" is {duration!r}; it must be the length of all '
            "clips in seconds, or null if they differ."
        )


def _check_evaluation(path, names, embedding_type):
    response = "events" if embedding_type == "event" else "probabilities"
    allowed = [name for name, score in SCORES.items() if score.response == response]
    if not isinstance(names, list) or not names:
        raise TaskError(
            f'{path}: "evaluation" is {names!r}; it must be a list of scores, the one '
            f"that counts first, of {_listed(allowed)}."
        )
    if unknown := [name for name in names if name not in allowed]:
        raise TaskError(
            f'{path}: "evaluation" names {_listed(unknown)}. The scores of a task with '
            f'"embedding_type" {embedding_type!r} are {_listed(allowed)}.'
        )


def _check_splits(path, splits, split_mode):
    texts = isinstance(splits, list) and all(isinstance(name, str) for name in splits)
    if not texts or len(set(splits)) < len(splits):
        raise TaskError(
            f'{path}: "splits" is {splits!r}; it must be a list of names, each once, '
            "such as fold00."
        )
    bad = [s for s in splits if not _NAME.fullmatch(s) or s in _RESERVED]
    if bad:
        raise TaskError(
            f'{path}: "splits" names {_listed(bad)}. A name is made of letters, digits '
            f"and _.-, does not begin with a dot, and is none of {_listed(_RESERVED)}."
        )
    if split_mode == "trainvaltest":
        if sorted(splits) != sorted(TRAIN_VALID_TEST):
            raise TaskError(
                f'{path}: "splits" is {splits!r}, but with "split_mode" '
                f"{split_mode!r} it must name {_listed(TRAIN_VALID_TEST)}."
            )
    elif len(splits) < 3:
        raise TaskError(
            f'{path}: "splits" is {splits!r}, but with "split_mode" {split_mode!r} '
            "there must be at least three folds: one to test, one to validate, and "
            "the rest to train."
        )


def read_vocabulary(folder):
    """Read ``labelvocabulary.csv``.

    Parameters
    ----------
    folder : Path
        The task's folder.

    Returns
    -------
    labels : list of str or None
        In the order of their indices; None if there is no such file. A label such as
        "NA" or "null" is text like any other.

    Raises
    ------
    TaskError
        If it has no columns idx and label, a label comes twice, or the indices are
        not 0, 1, 2 and so on.
    """
    path = folder / VOCABULARY
    if not path.exists():
        return None
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"idx", "label"} <= set(reader.fieldnames or ()):
            raise TaskError(
                f"{path} begins with {','.join(reader.fieldnames or ())!r}; its first "
                "line must be 'idx,label'. Without the file, the labels are taken "
                "from the splits."
            )
        rows = [(row["idx"], row["label"]) for row in reader]
    labels = {}
    for number, (index, label) in enumerate(rows, start=2):
        if label is None or not re.fullmatch(r"\d+", index or ""):
            raise TaskError(
                f"{path}, line {number}: found idx {index!r} and label {label!r}; a "
                "line must be a number, a comma, and a label."
            )
        labels.setdefault(int(index), []).append(label)
    flat = [label for index in sorted(labels) for label in labels[index]]
    if sorted(labels) != list(range(len(rows))) or not rows:
        raise TaskError(
            f"{path}: the indices are {_listed(index for index, _ in rows)}; they must "
            f"be 0 to {max(len(rows) - 1, 0)}, each once. Number the labels again, or "
            "remove the file to have them taken from the splits."
        )
    if len(set(flat)) < len(flat):
        twice = sorted({label for label in flat if flat.count(label) > 1})
        raise TaskError(f"{path}: {_listed(twice)} stands there twice: keep one line.")
    return flat


def read_split(folder, split, metadata):
    """Read the annotations of one split.

    Parameters
    ----------
    folder : Path
        The task's folder.
    split : str
        Its name.
    metadata : dict
        As :func:`read_metadata` returns it.

    Returns
    -------
    annotations : dict of str to list
        For each clip, in the file's order, its labels as text, or its events in
        seconds.

    Raises
    ------
    TaskError
        If the file is missing, no JSON or empty, or a clip's annotation is not as its
        kind of task has it.
    """
    path = folder / f"{split}.json"
    content = _read_json(path)
    if not content:
        raise TaskError(f"{path} names no clips: a split needs at least one.")
    is_event = metadata["embedding_type"] == "event"
    is_multiclass = not is_event and metadata["prediction_type"] == "multiclass"
    annotations = {}
    for name, values in content.items():
        if not isinstance(values, list):
            raise TaskError(
                f"{path}, {name!r}: found {values!r}; it must be a list of "
                f"{'events' if is_event else 'labels'}."
            )
        if is_multiclass and len(values) != 1:
            raise TaskError(
                f"{path}, {name!r}: found {len(values)} labels, {values!r}, but with "
                "\"prediction_type\" 'multiclass' a clip has exactly one. Mend the "
                f"clip, or {METADATA} if the task is 'multilabel'."
            )
        read = _read_event if is_event else _read_label
        annotations[name] = [read(path, name, value) for value in values]
    return annotations


def _read_label(path, name, label):
    # Missing values are what other readers make of a label such as "NA".
    lost = label is None or (isinstance(label, float) and math.isnan(label))
    if lost or isinstance(label, dict | list):
        raise TaskError(
            f"{path}, {name!r}: found {label!r} in place of a label; a label is text "
            "or a number. Write it in quotes."
        )
    return str(label)


def _read_event(path, name, event):
    if not isinstance(event, dict) or not {"label", "start", "end"} <= event.keys():
        raise TaskError(
            f"{path}, {name!r}: found {event!r}; an event must have a label, and its "
            "start and end in milliseconds."
        )
    start, end = event["start"], event["end"]
    if not (_is_number(start) and _is_number(end) and start <= end):
        raise TaskError(
            f"{path}, {name!r}: an event of {event['label']!r} goes from "
            f'"start" {start!r} to "end" {end!r}; both must be milliseconds, and the '
            "end not before the start."
        )
    return Event(_read_label(path, name, event["label"]), start / 1000, end / 1000)


def sort_labels(labels):
    """Return labels in the order that HEAR gives them in a vocabulary.

    Parameters
    ----------
    labels : iterable of str or int
        A label may come several times.

    Returns
    -------
    labels : list of str
        Each once, as text: by number if all are whole numbers, else by text.

    Examples
    --------
    >>> from skaudioemb.hear.task_files import sort_labels
    >>> sort_labels([10, 9, 10]), sort_labels(["10", "9", "b"])
    (['9', '10'], ['10', '9', 'b'])
    """
    labels = sorted({str(label) for label in labels})
    if all(re.fullmatch(r"-?[0-9]+", label) for label in labels):
        labels.sort(key=int)
    return labels


def find_audio(folder, annotations, sample_rate=None):
    """Find the recordings of a task.

    Parameters
    ----------
    folder : Path
        The task's folder.
    annotations : dict of str to dict
        The clips of each split.
    sample_rate : int or None, default=None
        Rate to take the recordings at, in Hz. If there are none at that rate, or for
        None, they are those at the highest rate.

    Returns
    -------
    audio : Path
        Folder that holds a folder for each split.
    sample_rate : int
        Rate that it is named after, in Hz.

    Raises
    ------
    TaskError
        If there is no such folder, or a clip is not in it.
    """
    rates = {int(path.name): path for path in folder.iterdir() if _is_rate(path)}
    if not rates:
        raise TaskError(
            f"{folder} holds no recordings: there must be a folder named after their "
            "sample rate in Hz, such as 48000, with a folder for each split. Extract "
            "the task's archive again."
        )
    whole = [
        rate
        for rate, path in rates.items()
        if all((path / split).is_dir() for split in annotations)
    ]
    rate = sample_rate if sample_rate in whole else max(whole or rates)
    for split, clips in annotations.items():
        _check_recordings(rates[rate] / split, clips, f"{split}.json")
    return rates[rate], rate


def _check_recordings(folder, clips, source):
    if not folder.is_dir():
        raise TaskError(
            f"There is no folder {folder} with the recordings that {source} names. "
            "Extract the task's archive again."
        )
    present = {path.name for path in folder.iterdir()}
    if missing := [name for name in clips if name not in present]:
        raise TaskError(
            f"{folder} lacks {len(missing)} of the {len(clips)} recordings that "
            f"{source} names: {_listed(missing)}. Extract the task's archive again, "
            f"or remove them from {source}."
        )


def _is_rate(path):
    return bool(re.fullmatch("[1-9][0-9]*", path.name)) and path.is_dir()


def _read_json(path):
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise TaskError(
            f"There is no {path.name} in {path.parent}: a task folder needs it. "
            "Extract the task's archive again."
        ) from error
    except (ValueError, RecursionError) as error:
        raise TaskError(
            f"{path} is no JSON: {error}. Extract the task's archive again, or mend it."
        ) from error
    if not isinstance(content, dict):
        raise TaskError(
            f"{path} holds a {type(content).__name__}; it must be an object with keys."
        )
    return content


def _is_number(value):
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _listed(names, most=8):
    """Join names for a message, the first ones if there are many."""
    names = [str(name) for name in names]
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
