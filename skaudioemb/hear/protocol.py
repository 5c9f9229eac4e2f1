"""How HEAR trains and chooses probes: its grid, its settings, and its defects by name.

Times are in seconds here; HEAR's own files have milliseconds.
"""

import random
from dataclasses import dataclass, fields
from functools import partial
from numbers import Integral

import numpy as np
from sklearn.model_selection import ParameterGrid

from skaudioemb.hear.scores import SCORES
from skaudioemb.probes.event_tuning import PostProcessing, expand_grid

_RATES = [3.2e-3, 1e-3, 3.2e-4, 1e-4]
_FIXED = {
    "batch_size": [1024],
    "dropout": [0.1],
    "initialization": ["xavier_uniform_", "xavier_normal_"],
    "lr": _RATES,
}
# By heareval's names, whose alphabetical order decides which points are drawn.
GRIDS = {
    "default": {
        **_FIXED,
        "check_val_every_n_epoch": [3],
        "hidden_dim": [1024],
        "hidden_layers": [1, 2],
        "max_epochs": [500],
        "patience": [20],
    },
    "fast": {
        **_FIXED,
        "check_val_every_n_epoch": [3, 10],
        "hidden_dim": [1024],
        "hidden_layers": [1, 2],
        "max_epochs": [10, 50],
        "patience": [20],
    },
    "faster": {
        **_FIXED,
        "check_val_every_n_epoch": [1],
        "hidden_dim": [64, 128],
        "hidden_layers": [0, 1],
        "max_epochs": [10],
        "patience": [1, 3],
    },
}
_NAMES = {
    "check_val_every_n_epoch": "check_every",
    "hidden_dim": "hidden_units",
    "initialization": "init",
}
# heareval has this in its code, not in the task's metadata.
_TASK_GRIDS = {"dcase2016_task2": {"check_val_every_n_epoch": [10]}}
_POSTPROCESSING = {"median_filter_ms": [250], "min_duration": [125, 250]}
_CHOICES = {
    "grid": tuple(GRIDS),
    "order": ("task", "heareval"),
    "nonfinite": ("continue", "stop"),
    "ties": ("loss", "first"),
    "chroma": ("notes", "columns"),
}


@dataclass(frozen=True)
class Protocol:
    """HEAR 2021's protocol, with its defects corrected unless asked for.

    For each of ``n_points`` points of a grid a probe is trained and stopped by the
    task's primary score on the validation split; the best one is tested. Of tasks in
    folds, only the first fold searches the grid; its choice is trained again for every
    other one. :meth:`heareval` gives all of heareval's defects at once.

    Parameters
    ----------
    n_points : int, default=8
        Points to try. They are drawn as heareval draws them with its seed 42.
    grid : {"default", "fast", "faster"}, default="default"
        heareval's grids of 16, 64 and 64 points.
    seed : int, default=42
        Seed of the probes' weights, batches and dropout; the points do not depend on
        it.
    shuffle : bool, default=True
        Whether batches are drawn anew in every epoch. False is heareval's defect.
    order : {"task", "heareval"}, default="task"
        Order of the clips: that of the task's files, or as heareval mixes them. It
        matters where ``shuffle`` is False.
    nonfinite : {"continue", "stop"}, default="continue"
        Whether a score that is not finite, as that of a check without any event, ends
        the training. "stop" is heareval's defect, by which a hardly trained probe
        could win.
    ties : {"loss", "first"}, default="loss"
        Which of several checks with the same score is kept: that with the lowest
        loss, or as in heareval the first.
    chroma : {"notes", "columns"}, default="notes"
        What ``chroma_acc`` compares modulo 12: MIDI notes, if the labels are such, or
        as in heareval the numbers of the columns, which is wrong where the vocabulary
        leaves out a note.
    keep_probes : bool, default=False
        Keep every trained probe, as heareval's memory does, instead of the best one.

    References
    ----------
    .. [1] J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations",
       Proceedings of Machine Learning Research 176 (NeurIPS 2021), 2022. Details
       follow its code, heareval 2021.1.3.

    Examples
    --------
    >>> from skaudioemb.hear.protocol import Protocol
    >>> Protocol(n_points=3, seed=0).shuffle
    True
    >>> Protocol.heareval().nonfinite
    'stop'
    """

    n_points: int = 8
    grid: str = "default"
    seed: int = 42
    shuffle: bool = True
    order: str = "task"
    nonfinite: str = "continue"
    ties: str = "loss"
    chroma: str = "notes"
    keep_probes: bool = False

    def __post_init__(self):
        for name, allowed in _CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                known = ", ".join(map(repr, allowed))
                raise ValueError(f"{name}={value!r}: choose from {known}.")
        for name, least in (("n_points", 1), ("seed", 0)):
            value = getattr(self, name)
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            if not whole or value < least:
                raise ValueError(
                    f"{name}={value!r} must be a whole number of at least {least}."
                )
        for name in ("shuffle", "keep_probes"):
            if not isinstance(value := getattr(self, name), bool):
                raise ValueError(f"{name}={value!r} must be True or False.")

    @classmethod
    def heareval(cls, **params):
        """Return the protocol with everything that heareval 2021.1.3 does.

        Parameters
        ----------
        **params
            Other parameters, or exceptions.

        Returns
        -------
        protocol : Protocol
        """
        defects = {
            "shuffle": False,
            "order": "heareval",
            "nonfinite": "stop",
            "ties": "first",
            "chroma": "columns",
            "keep_probes": True,
        }
        return cls(**defects | params)

    def points(self, task):
        """Return the points of the grid for a task, as parameters of MLPProbe.

        Parameters
        ----------
        task : Task

        Returns
        -------
        points : list of dict
            At most ``n_points``.
        """
        grid = {**GRIDS[self.grid], **_TASK_GRIDS.get(task.metadata["task_name"], {})}
        own = task.metadata.get("evaluation_params", {})
        grid |= own.get("task_specific_param_grid", {})
        points = list(ParameterGrid(grid))
        random.Random(42).shuffle(points)
        return [_as_params(point) for point in points[: self.n_points]]

    def probe_params(self, task):
        """Return the parameters of MLPProbe that the grid leaves open.

        Parameters
        ----------
        task : Task

        Returns
        -------
        params : dict
        """
        by_score = task.metadata.get("use_scoring_for_early_stopping", True)
        return {
            "shuffle": self.shuffle,
            "nonfinite": self.nonfinite,
            "ties": self.ties,
            "random_state": self.seed,
            **({} if by_score else {"scoring": "loss"}),
        }

    def score_functions(self, task):
        """Return the scores of a task, in its order.

        Parameters
        ----------
        task : Task

        Returns
        -------
        functions : dict of str to callable
            Each takes the truth and the predictions.

        Raises
        ------
        ValueError
            If the task asks for a score that is not known.
        """
        unknown = [name for name in task.evaluation if name not in SCORES]
        if unknown:
            raise ValueError(
                f"Task {task.name}: evaluation names {unknown}; known scores are "
                f"{', '.join(SCORES)}."
            )
        functions = {name: SCORES[name].function for name in task.evaluation}
        notes = _as_notes(task.labels)
        if "chroma_acc" in functions and self.chroma == "notes" and notes is not None:
            functions["chroma_acc"] = partial(functions["chroma_acc"], notes=notes)
        return functions

    def postprocessing(self, task):
        """Return the settings that turn frames into events, larger values first.

        Parameters
        ----------
        task : Task

        Returns
        -------
        settings : list of PostProcessing

        Raises
        ------
        ValueError
            If there are several for a task whose training is stopped by the loss.
        """
        own = task.metadata.get("evaluation_params", {})
        grid = own.get("event_postprocessing_grid", _POSTPROCESSING)
        seconds = {
            name.removesuffix("_ms"): (np.asarray(values) / 1000).tolist()
            for name, values in grid.items()
        }
        settings = expand_grid(seconds, PostProcessing(0.0, 0.0, 0.5))
        by_score = task.metadata.get("use_scoring_for_early_stopping", True)
        if not by_score and len(settings) > 1:
            raise ValueError(
                f"Task {task.name} is stopped by the loss, which cannot choose from "
                f"{len(settings)} settings: give one in event_postprocessing_grid."
            )
        return settings


def as_protocol(protocol):
    """Return a Protocol from its name or from itself.

    Parameters
    ----------
    protocol : {"hear2021", "heareval"} or Protocol
        "hear2021" is the protocol with the defects corrected, "heareval" with them.

    Returns
    -------
    protocol : Protocol

    Raises
    ------
    ValueError
        If there is no protocol of that name.
    """
    if isinstance(protocol, Protocol):
        return protocol
    named = {"hear2021": Protocol, "heareval": Protocol.heareval}
    if protocol not in named:
        raise ValueError(
            f"protocol={protocol!r}: choose from {', '.join(map(repr, named))}, or "
            f"give a Protocol({', '.join(field.name for field in fields(Protocol))})."
        )
    return named[protocol]()


def _as_params(point):
    params = {_NAMES.get(name, name): value for name, value in point.items()}
    return {**params, "init": params["init"].rstrip("_")}


def _as_notes(labels):
    """Return the labels as MIDI notes, None if they are not such."""
    if not all(label.isdigit() and int(label) < 128 for label in labels):
        return None
    return np.array(labels, dtype=np.int64)
