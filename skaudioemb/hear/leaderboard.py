"""The published scores of HEAR 2021: 34 systems on 19 tasks, as package data.

``leaderboard.csv`` is a copy of the benchmark's public leaderboard [1]_, with the
primary score of each task as a share, not in percent. The rows dated "HEAR 2021" are
the submissions to the challenge [2]_; those of 2023 were handed in by their authors.

References
----------
.. [1] https://hearbenchmark.com, from the file ``docs/leaderboard.csv`` of
   https://github.com/hearbenchmark/hear-benchmark
.. [2] J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations",
   Proceedings of Machine Learning Research 176 (NeurIPS 2021), 2022.
"""

import csv
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files

import numpy as np

from skaudioemb.hear.registry import get_task_info, list_tasks

SOURCE = "https://github.com/hearbenchmark/hear-benchmark, docs/leaderboard.csv"


@dataclass(frozen=True)
class Leaderboard:
    """Published scores of systems on tasks.

    Parameters
    ----------
    systems : tuple of str
        Names of the systems.
    tasks : tuple of str
        Names of the tasks as the leaderboard has them: titles of the registry's.
    values : ndarray of shape (n_systems, n_tasks), float64
        Primary scores; greater is better in all of them. NaN where a system was not
        run.
    urls, submitted : tuple of str
        Where each system comes from, and when it was handed in.
    source : str
        Where the figures are published.
    """

    systems: tuple
    tasks: tuple
    values: np.ndarray = field(repr=False)
    urls: tuple = field(repr=False)
    submitted: tuple = field(repr=False)
    source: str = SOURCE

    def column(self, task):
        """Return the scores of all systems on a task.

        Parameters
        ----------
        task : str
            One of ``tasks``.

        Returns
        -------
        scores : ndarray of shape (n_systems,), float64
            NaN where a system was not run.

        Raises
        ------
        ValueError
            If the leaderboard does not have the task.

        Examples
        --------
        >>> from skaudioemb.hear.leaderboard import load_leaderboard
        >>> leaderboard = load_leaderboard()
        >>> scores = leaderboard.column("ESC-50")
        >>> leaderboard.systems[scores.argmax()], round(float(scores.max()), 4)
        ('RedRice ced_base', 0.9665)
        """
        return self.values[:, self._index(task)]

    def rank(self, task, score):
        """Return the place that a score takes among the published ones.

        Parameters
        ----------
        task : str
            One of ``tasks``.
        score : float

        Returns
        -------
        rank : int or None
            1 plus the number of systems that are better; None for NaN.
        n_ranked : int
            The number of published scores plus this one.

        Raises
        ------
        ValueError
            If the leaderboard does not have the task.

        Examples
        --------
        >>> from skaudioemb.hear.leaderboard import load_leaderboard
        >>> load_leaderboard().rank("ESC-50", 0.96)
        (3, 35)
        """
        published = self.column(task)
        n_ranked = int(np.isfinite(published).sum()) + 1
        if np.isnan(score):
            return None, n_ranked
        return int((published > score).sum()) + 1, n_ranked

    def standardize(self, task, scores):
        """Return z-scores on a task, clipped to [-1, 1], as in the leaderboard's map.

        Mean and deviation are those of the published systems, so that their z-scores
        do not depend on what they are compared with. A missing score stays NaN; the
        leaderboard's own map fills it in by a regression on the other tasks before it
        takes means.

        Parameters
        ----------
        task : str
            One of ``tasks``.
        scores : array-like of float

        Returns
        -------
        z_scores : ndarray, float64

        Raises
        ------
        ValueError
            If the leaderboard does not have the task.

        Examples
        --------
        >>> from skaudioemb.hear.leaderboard import load_leaderboard
        >>> load_leaderboard().standardize("ESC-50", [0.0, 0.65, 1.0]).round(2)
        array([-1.  , -0.05,  1.  ])
        """
        published = self.column(task)
        mean, deviation = np.nanmean(published), np.nanstd(published)
        return np.clip((np.asarray(scores, np.float64) - mean) / deviation, -1, 1)

    def to_dataframe(self):
        """Return the scores as a table with a row per system; needs pandas.

        Returns
        -------
        table : DataFrame of shape (n_systems, n_tasks)

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        import pandas

        index = pandas.Index(self.systems, name="system")
        return pandas.DataFrame(self.values, index=index, columns=list(self.tasks))

    def _index(self, task):
        if task not in self.tasks:
            raise ValueError(
                f"The leaderboard has no task {task!r}. Its tasks are "
                f"{', '.join(self.tasks)}."
            )
        return self.tasks.index(task)


@lru_cache(maxsize=1)
def load_leaderboard():
    """Return the published scores of HEAR 2021.

    Returns
    -------
    leaderboard : Leaderboard
        34 systems on 19 tasks.

    Examples
    --------
    >>> from skaudioemb.hear.leaderboard import load_leaderboard
    >>> leaderboard = load_leaderboard()
    >>> leaderboard.values.shape
    (34, 19)
    """
    text = (files("skaudioemb.hear") / "leaderboard.csv").read_text(encoding="utf-8")
    (_, _, _, *tasks), *rows = csv.reader(text.splitlines())
    systems, urls, submitted, *columns = zip(*rows, strict=True)
    values = np.array([[float(cell or "nan") for cell in cells] for cells in columns]).T
    values.setflags(write=False)
    return Leaderboard(systems, tuple(tasks), values, urls, submitted)


def find_column(folder):
    """Return the leaderboard's name of a task.

    Parameters
    ----------
    folder : str
        Name of the task's folder.

    Returns
    -------
    task : str or None
        None if the leaderboard does not have this task in this version and size. Two
        folders are of the column "Beehive", and the leaderboard does not say how it
        was made of them.

    Examples
    --------
    >>> from skaudioemb.hear.leaderboard import find_column
    >>> find_column("esc50-v2.0.0-full")
    'ESC-50'
    >>> find_column("esc50-v2.0.0-small") is None
    True
    """
    return get_task_info(folder).title if folder in list_tasks() else None
