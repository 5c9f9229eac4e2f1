"""The report of a benchmark: tables, figures and a page, against published systems.

Functions
---------
- :func:`load_results`, :func:`load_failures`: read a benchmark's folder.
- :func:`make_report`: scores with intervals, and their places among the published.
- :func:`write_report`: the same as one self-contained HTML page, and figures.
- :func:`compare`: two embedders, task by task.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from skaudioemb.hear.comparison import Comparison, align, compare_results
from skaudioemb.hear.leaderboard import load_leaderboard
from skaudioemb.hear.report_figures import draw_figures
from skaudioemb.hear.report_notes import make_notes
from skaudioemb.hear.report_page import render_page
from skaudioemb.hear.result_folders import (
    describe_failure,
    load_failures,
    load_results,
    read_folder,
)
from skaudioemb.hear.results import Result
from skaudioemb.hear.standings import Standing, make_standings, match_column
from skaudioemb.hear.statistics import Interval, bootstrap_interval

__all__ = [
    "Comparison",
    "Entry",
    "Report",
    "Standing",
    "compare",
    "load_failures",
    "load_results",
    "make_report",
    "write_report",
]

_PAGE = "report.html"


class Entry(NamedTuple):
    """What an embedder reached on a task.

    Attributes
    ----------
    result : Result
    interval : Interval or None
        Of the primary score over the tested clips; None if no draws were asked for.
    place : int or None
        Among the embedders of the report on this task, 1 being the best; None for NaN.
    column : str or None
        The leaderboard's name of the task; None if the score cannot be compared with
        the published ones.
    reason : str
        Why not; empty if it can.
    """

    result: Result
    interval: Interval | None
    place: int | None
    column: str | None
    reason: str


class Report:
    """Scores of embedders on tasks, set beside the published ones.

    Printing it shows two tables: the results, and their places on the leaderboard.

    Parameters
    ----------
    results : list of Result
        At least one; of several with the same embedder and task, an error.
    failures : list of dict, default=()
        As :func:`load_failures` gives them.
    confidence : float, default=0.95
        Of the intervals.
    n_resamples : int, default=1000
        Draws for each interval; 0 for no intervals.
    seed : int, default=0
        Of the draws.

    Attributes
    ----------
    embedders, tasks : list of str
        In the order of the results.
    entries : list of Entry
        One per result.
    standings : list of Standing
        One per embedder and column of the leaderboard that can be compared.
    leaderboard : Leaderboard

    Raises
    ------
    ValueError
        If there is no result, or two of the same embedder and task.
    """

    def __init__(
        self, results, failures=(), *, confidence=0.95, n_resamples=1000, seed=0
    ):
        _check_results(results)
        self.failures = list(failures)
        self.leaderboard = load_leaderboard()
        self.embedders = list(dict.fromkeys(result.embedder for result in results))
        self.tasks = list(dict.fromkeys(result.task for result in results))
        options = {"confidence": confidence, "n_resamples": n_resamples}
        self.entries = [
            Entry(
                result,
                bootstrap_interval(result, random_state=seed, **options)
                if n_resamples
                else None,
                _place(result, results),
                *match_column(result),
            )
            for result in results
        ]
        self.standings = make_standings(results)

    @property
    def columns(self):
        """Tasks of the leaderboard on which an embedder stands, in its order."""
        found = {standing.column for standing in self.standings}
        return [task for task in self.leaderboard.tasks if task in found]

    def interval_of(self, standing):
        """Return the interval of a standing's score.

        Parameters
        ----------
        standing : Standing

        Returns
        -------
        interval : Interval or None
            None if the standing is of several folders, or no draws were asked for.
        """
        wanted = (standing.embedder, standing.column)
        found = [
            entry.interval
            for entry in self.entries
            if (entry.result.embedder, entry.column) == wanted
        ]
        return found[0] if len(found) == 1 else None

    def notes(self):
        """Return what to know before the scores are trusted.

        Returns
        -------
        notes : list of str
        """
        return make_notes(self)

    def write(self, out):
        """Write the page and, beside it in a folder, the figures.

        Parameters
        ----------
        out : path-like
            A name that ends in ``.html``, or a folder, made if it does not exist, for
            ``report.html`` and PNG files.

        Returns
        -------
        page : Path
        """
        out = Path(out)
        figures = draw_figures(self)
        if out.suffix.lower() in (".html", ".htm") and not out.is_dir():
            page = out
        else:
            out.mkdir(parents=True, exist_ok=True)
            page = out / _PAGE
            for name, image in figures.items():
                (out / f"{name}.png").write_bytes(image)
        page.write_text(render_page(self, figures), encoding="utf-8")
        return page

    def __str__(self):
        blocks = ["Results", align(self._result_rows())]
        if self.standings:
            n_systems = len(self.leaderboard.systems)
            blocks += ["", f"Among {n_systems} published systems"]
            blocks += [align(self._standing_rows())]
        if self.failures:
            blocks += ["", f"Failures: {len(self.failures)}"]
            blocks += [describe_failure(failure) for failure in self.failures]
        return "\n".join(blocks)

    def _result_rows(self):
        rows = [["embedder", "task", "score", "value", "interval", "place"]]
        for entry in self.entries:
            result = entry.result
            interval = entry.interval.ends if entry.interval else ""
            place = str(entry.place or "-")
            row = [result.embedder, result.task, result.primary]
            rows.append([*row, f"{result.score:.3f}", interval, place])
        return rows

    def _standing_rows(self):
        rows = [["embedder", "task", "value", "rank", "best published", "median"]]
        for each in self.standings:
            row = [each.embedder, each.column, f"{each.score:.3f}"]
            best = f"{each.best:.3f} {each.best_system}"
            rank = f"{each.rank or '-'} of {each.n_ranked}"
            rows.append([*row, rank, best, f"{each.median:.3f}"])
        return rows


def make_report(results, **options):
    """Return the report of results, or of a benchmark's folder.

    Parameters
    ----------
    results : list of Result or path-like
    **options
        ``confidence``, ``n_resamples`` and ``seed``; see :class:`Report`.

    Returns
    -------
    report : Report

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If there is no result, or two of the same embedder and task.
    """
    if isinstance(results, list | tuple):
        return Report(list(results), **options)
    found, failures = read_folder(results)
    if not found:
        raise ValueError(
            f"There is no finished result below {results}, and {len(failures)} "
            "failures. Run the benchmark first."
        )
    return Report(found, failures, **options)


def write_report(results, out, **options):
    """Write the report of results, or of a benchmark's folder, as an HTML page.

    The page needs no other file and no network.

    Parameters
    ----------
    results : list of Result or path-like
    out : path-like
        A name that ends in ``.html``, or a folder for the page and its figures.
    **options
        ``confidence``, ``n_resamples`` and ``seed``; see :class:`Report`.

    Returns
    -------
    page : Path
        What was written.

    Raises
    ------
    FileNotFoundError, ValueError
        See :func:`make_report`.

    Examples
    --------
    >>> from skaudioemb.hear.report import write_report
    >>> write_report("results", "report.html")  # doctest: +SKIP
    """
    return make_report(results, **options).write(out)


def compare(results, a, b, *, confidence=0.95, n_resamples=1000, seed=0):
    """Compare two embedders on all tasks that both were run on.

    Parameters
    ----------
    results : list of Result or path-like
        Results, or a benchmark's folder.
    a, b : str
        Names of the embedders.
    confidence : float, default=0.95
        Of the intervals.
    n_resamples : int, default=1000
        Draws for each interval, and for each p-value.
    seed : int, default=0
        Of the draws.

    Returns
    -------
    comparison : Comparison
        Prints as a table; has ``rows``.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If there is no result of one of them, or no task in common.
    """
    if not isinstance(results, list | tuple):
        results = load_results(results)
    options = {"confidence": confidence, "n_resamples": n_resamples, "seed": seed}
    return compare_results(results, a, b, **options)


def _check_results(results):
    if not results:
        raise ValueError("There is no result to report. Run the benchmark first.")
    pairs = [(result.embedder, result.task) for result in results]
    for pair in pairs:
        if pairs.count(pair) > 1:
            raise ValueError(
                f"There are {pairs.count(pair)} results of {pair[0]} on {pair[1]}. "
                "Give one each, or other names."
            )


def _place(result, results):
    """Return the place among the embedders on the same task and score."""
    if np.isnan(result.score):
        return None
    sign = 1 if result.greater_is_better else -1
    others = [
        sign * other.score
        for other in results
        if (other.task, other.primary) == (result.task, result.primary)
    ]
    return 1 + sum(score > sign * result.score for score in others)
