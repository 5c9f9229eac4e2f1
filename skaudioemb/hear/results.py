"""What one embedder reached on one task: scores, choices and predictions, as files.

A :class:`Result` is a folder: ``result.json`` sums up, and every split that was tested
has ``{split}.json`` beside its predictions in ``{split}.npz``. Arrays are stored
without pickles, and times in seconds.
"""

import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from skaudioemb.events import Event
from skaudioemb.hear.scores import SCORES

SUMMARY = "result.json"
_FORMAT = 1
_NOT_FINITE = ("nan", "inf", "-inf")
_NUMERIC = ("scores", "std", "validation_score", "seconds")


@dataclass
class Predictions:
    """The truth and the predictions of the clips of one split.

    Parameters
    ----------
    files : list of str
        Names of the clips.
    labels : list of str
        The task's vocabulary, as the columns of probabilities are.
    truth : ndarray of shape (n_clips,) or (n_clips, n_labels), or list of list of Event
        Columns of the right classes, an indicator matrix, or the events of each clip.
    predicted : ndarray of shape (n_clips, n_labels), or list of list of Event
        Probabilities, float32, or the events of each clip.
    """

    files: list
    labels: list
    truth: object
    predicted: object

    @property
    def kind(self):
        """One of "multiclass", "multilabel" and "events"."""
        if isinstance(self.predicted, list):
            return "events"
        return "multiclass" if np.ndim(self.truth) == 1 else "multilabel"

    def score(self, name):
        """Return one of ``skaudioemb.hear.scores.SCORES``.

        Parameters
        ----------
        name : str

        Returns
        -------
        score : float
        """
        return float(SCORES[name].function(self.truth, self.predicted))

    def take(self, clips):
        """Return the predictions of some clips; one may be taken several times.

        Parameters
        ----------
        clips : array-like of int

        Returns
        -------
        predictions : Predictions
        """
        if self.kind == "events":
            truth, predicted = (
                [events[i] for i in clips] for events in (self.truth, self.predicted)
            )
        else:
            truth, predicted = self.truth[clips], self.predicted[clips]
        return Predictions(
            [self.files[i] for i in clips], self.labels, truth, predicted
        )

    def save(self, path):
        """Write everything to one file.

        Parameters
        ----------
        path : path-like
            Ends in ``.npz``.
        """
        arrays = {"truth": self.truth, "predicted": self.predicted}
        if self.kind == "events":
            arrays = {
                f"{name}_{column}": values
                for name, events in arrays.items()
                for column, values in _as_columns(events).items()
            }
        arrays |= {"files": np.array(self.files), "labels": np.array(self.labels)}
        _write(path, lambda file: np.savez_compressed(file, **arrays))

    @classmethod
    def load(cls, path):
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        predictions : Predictions
        """
        # Of a damaged file, numpy would leave open what it opened itself.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            files, labels = arrays["files"].tolist(), arrays["labels"].tolist()
            if "truth" in arrays:
                return cls(files, labels, arrays["truth"], arrays["predicted"])
            truth, predicted = (
                _as_events(arrays, name, len(files)) for name in ("truth", "predicted")
            )
        return cls(files, labels, truth, predicted)


@dataclass
class SplitResult:
    """What came out for one test split.

    Parameters
    ----------
    test, valid : str
        Names of the splits that were tested and validated on.
    scores : dict of str to float
        All scores of the task on the test split, the primary one first. NaN where a
        score is not defined.
    validation_score : float
        The primary score, or minus the loss where the task is stopped by that, of the
        best check.
    hyperparameters : dict
        Parameters of the probe that was chosen.
    postprocessing : dict or None
        ``median_filter``, ``min_duration`` and ``threshold`` of events.
    n_epochs, best_epoch : int
        Epochs trained, and those after which the kept weights were reached.
    search : list of dict
        ``hyperparameters``, ``validation_score`` and ``n_epochs`` of every candidate,
        in order; empty if another split chose.
    seconds : dict of str to float
        Time of embedding, fitting and scoring.
    predictions : Predictions
    """

    test: str
    valid: str
    scores: dict
    validation_score: float
    hyperparameters: dict
    postprocessing: dict | None
    n_epochs: int
    best_epoch: int
    search: list
    seconds: dict
    predictions: Predictions = field(repr=False)

    def save(self, folder):
        """Write ``{test}.npz``, and then ``{test}.json``.

        Parameters
        ----------
        folder : path-like
            Made if it does not exist.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.predictions.save(folder / f"{self.test}.npz")
        content = vars(self) | {"predictions": f"{self.test}.npz"}
        write_json(folder / f"{self.test}.json", content)

    @classmethod
    def load(cls, path):
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : path-like
            The JSON file.

        Returns
        -------
        result : SplitResult
        """
        content = read_json(path)
        file = Path(path).parent / content["predictions"]
        return cls(**content | {"predictions": Predictions.load(file)})


@dataclass
class Result:
    """What an embedder reached on a task.

    Parameters
    ----------
    embedder : str
        Name of the embedder.
    parameters : str
        The embedder as it prints.
    task : str
        Folder name of the task, such as ``"esc50-v2.0.0-full"``.
    primary : str
        Name of the score that counts.
    splits : list of SplitResult
        One per test split.
    protocol : dict
        The protocol's settings, with its seed.
    versions : dict of str to str
        Of Python and the packages.
    seconds : dict of str to float
        Time of embedding, fitting and scoring, and ``total``.
    n_clips, n_features : int
        Clips of the task and width of their embeddings.
    """

    embedder: str
    parameters: str
    task: str
    primary: str
    splits: list
    protocol: dict
    versions: dict
    seconds: dict
    n_clips: int
    n_features: int

    @property
    def greater_is_better(self):
        """Whether a greater primary score is better."""
        return SCORES[self.primary].greater_is_better

    @property
    def scores(self):
        """Mean of each score over the splits, a dict."""
        return self._over_splits(np.mean)

    @property
    def deviations(self):
        """Standard deviation (ddof=1) of each score over the splits; NaN for one."""
        return self._over_splits(
            lambda values: np.std(values, ddof=1) if len(values) > 1 else np.nan
        )

    @property
    def score(self):
        """Mean of the primary score."""
        return self.scores[self.primary]

    def _over_splits(self, function):
        names = self.splits[0].scores
        # A d' may be infinite, which has no deviation.
        with np.errstate(invalid="ignore"):
            return {
                name: float(function([split.scores[name] for split in self.splits]))
                for name in names
            }

    def save(self, folder):
        """Write the splits, and last ``result.json``, which makes the folder whole.

        Parameters
        ----------
        folder : path-like
        """
        for split in self.splits:
            split.save(folder)
        content = {
            **{"format": _FORMAT, "scores": self.scores, "std": self.deviations},
            **{name: value for name, value in vars(self).items() if name != "splits"},
            "splits": [f"{split.test}.json" for split in self.splits],
        }
        write_json(Path(folder) / SUMMARY, content)

    @classmethod
    def load(cls, folder):
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        folder : path-like

        Returns
        -------
        result : Result

        Raises
        ------
        FileNotFoundError
            If the folder holds no finished result.
        ValueError
            If it was written by another version of this format.
        """
        content = read_json(Path(folder) / SUMMARY)
        if content.pop("format", None) != _FORMAT:
            raise ValueError(
                f"{Path(folder) / SUMMARY} is not a result of format {_FORMAT}. "
                "Run the benchmark again into another folder."
            )
        del content["scores"], content["std"]
        names = content.pop("splits")
        splits = [SplitResult.load(Path(folder) / name) for name in names]
        return cls(splits=splits, **content)


def write_json(path, content):
    """Write a JSON file such that it is never seen half written.

    Numbers that are not finite become the texts "nan", "inf" and "-inf", as in HEAR's
    own files; :func:`read_json` knows by their names which values are numbers.

    Parameters
    ----------
    path : path-like
    content : dict
    """
    text = json.dumps(_plain(content), indent=1, allow_nan=False)
    _write(path, lambda file: file.write(text.encode()))


def read_json(path):
    """Return what :func:`write_json` wrote.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    content : dict
    """
    return _revived(json.loads(Path(path).read_text(encoding="utf-8")))


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value


def _revived(value, numeric=False):
    if isinstance(value, dict):
        return {
            key: _revived(item, numeric or key in _NUMERIC)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_revived(item, numeric) for item in value]
    return float(value) if numeric and value in _NOT_FINITE else value


def _write(path, write):
    path = Path(path)
    # Two processes may write the same file; each has a name of its own until then.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(partial, "wb") as file:
            write(file)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _as_columns(events):
    flat = [(i, *event) for i, clip in enumerate(events) for event in clip]
    clips, labels, starts, ends = zip(*flat, strict=True) if flat else ([], [], [], [])
    return {
        "clips": np.array(clips, np.int64),
        "labels": np.array([str(label) for label in labels], str),
        "starts": np.array(starts, np.float64),
        "ends": np.array(ends, np.float64),
    }


def _as_events(arrays, name, n_clips):
    columns = (
        arrays[f"{name}_{column}"].tolist()
        for column in ("clips", "labels", "starts", "ends")
    )
    events = [[] for _ in range(n_clips)]
    for clip, *event in zip(*columns, strict=True):
        events[clip].append(Event(*event))
    return events
