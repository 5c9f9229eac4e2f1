"""Where embedders stand among the systems of the leaderboard."""

from typing import NamedTuple

import numpy as np

from skaudioemb.hear.leaderboard import find_column, load_leaderboard
from skaudioemb.hear.registry import get_task_info, list_tasks

# HEAR's website and its archive differ by a few clips for some tasks.
_LEAST_SHARE = 0.9


class Standing(NamedTuple):
    """Where an embedder stands on a task of the leaderboard.

    Attributes
    ----------
    embedder, column : str
        Names of the embedder and of the leaderboard's task.
    score : float
        For Beehive, the mean of its two folders.
    rank, n_ranked : int
        1 plus the number of published systems that are better (None for NaN), and the
        number of published scores plus one.
    z_score : float
        With mean and deviation of the published scores, clipped to [-1, 1].
    best, best_system : float, str
        The best published score and whose it is.
    median : float
        Of the published scores.
    """

    embedder: str
    column: str
    score: float
    rank: int | None
    n_ranked: int
    z_score: float
    best: float
    best_system: str
    median: float


def match_column(result):
    """Return the column of the leaderboard that a result can be compared with.

    Parameters
    ----------
    result : Result

    Returns
    -------
    column : str or None
        The leaderboard's name of the task; None if there is no such column.
    reason : str
        Why there is none; empty if there is.
    """
    column = find_column(result.task)
    if column is None:
        return None, "no task of the leaderboard in this version and size"
    info = get_task_info(result.task)
    if result.primary != info.primary:
        return None, f"scored by {result.primary}, the leaderboard by {info.primary}"
    # The website does not say how many clips each folder of Beehive has.
    known = _count_folders(column) == 1
    if known and result.n_clips < _LEAST_SHARE * info.n_clips:
        return None, f"{result.n_clips} clips of the published {info.n_clips}"
    return column, ""


def make_standings(results):
    """Return where embedders stand on the tasks of the leaderboard.

    Parameters
    ----------
    results : list of Result

    Returns
    -------
    standings : list of Standing
        By task in the order of the leaderboard, for each embedder in the order of the
        results. One that was run on only one folder of Beehive is left out there.
    """
    found = {}
    for result in results:
        column, _ = match_column(result)
        if column is not None:
            found.setdefault((column, result.embedder), []).append(result.score)
    tasks = load_leaderboard().tasks
    return [
        _standing(embedder, column, float(np.mean(scores)))
        for (column, embedder), scores in sorted(
            found.items(), key=lambda item: tasks.index(item[0][0])
        )
        if len(scores) == _count_folders(column)
    ]


class ScoreMap(NamedTuple):
    """The published systems and some embedders on some tasks.

    Attributes
    ----------
    names : list of str
        Systems and embedders, by their mean from the best down.
    columns : list of str
        The leaderboard's names of the tasks.
    own : list of bool
        Which names are the embedders.
    means : ndarray of shape (n_names,)
        Mean z-scores, of the tasks that a system was run on.
    n_tasks : ndarray of shape (n_names,), int
        Number of these tasks.
    z_scores, scores : ndarray of shape (n_names, n_columns)
        NaN where a system was not run.
    """

    names: list
    columns: list
    own: list
    means: np.ndarray
    n_tasks: np.ndarray
    z_scores: np.ndarray
    scores: np.ndarray


def map_scores(standings):
    """Return mean z-scores of all systems on the tasks of some standings.

    Parameters
    ----------
    standings : list of Standing
        At least one.

    Returns
    -------
    scores : ScoreMap
        Of the tasks on which at least one embedder stands. Systems that were run on
        none of them are left out.
    """
    board = load_leaderboard()
    columns = list(dict.fromkeys(standing.column for standing in standings))
    embedders = list(dict.fromkeys(standing.embedder for standing in standings))
    own = np.full((len(embedders), len(columns)), np.nan)
    for standing in standings:
        position = embedders.index(standing.embedder), columns.index(standing.column)
        own[position] = standing.score
    published = np.column_stack([board.column(column) for column in columns])
    scores = np.concatenate([published, own])
    pairs = zip(columns, scores.T, strict=True)
    z_scores = np.column_stack([board.standardize(*pair) for pair in pairs])
    run = np.isfinite(z_scores)
    n_tasks = run.sum(axis=1)
    means = np.where(run, z_scores, 0).sum(axis=1) / np.maximum(n_tasks, 1)
    # Clipped z-scores tie often; then the scores themselves decide.
    means_of_scores = np.where(run, scores, 0).sum(axis=1) / np.maximum(n_tasks, 1)
    order = np.lexsort((-means_of_scores, -means.round(9)))
    kept = [i for i in order if n_tasks[i]]
    names = [*board.systems, *embedders]
    return ScoreMap(
        [names[i] for i in kept],
        columns,
        [bool(i >= len(board.systems)) for i in kept],
        *(values[kept] for values in (means, n_tasks, z_scores, scores)),
    )


def _standing(embedder, column, score):
    board = load_leaderboard()
    published = board.column(column)
    best = int(np.nanargmax(published))
    return Standing(
        *(embedder, column, score, *board.rank(column, score)),
        z_score=float(board.standardize(column, score)),
        best=float(published[best]),
        best_system=board.systems[best],
        median=float(np.nanmedian(published)),
    )


def _count_folders(column):
    return sum(find_column(folder) == column for folder in list_tasks())
