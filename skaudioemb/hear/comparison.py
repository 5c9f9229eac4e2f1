"""Two embedders on all tasks that both were run on."""

from typing import NamedTuple

import numpy as np
from scipy.stats import wilcoxon

from skaudioemb.hear.scores import SCORES
from skaudioemb.hear.statistics import PairedTest, paired_test

# With fewer tasks, the rank test can reach no p-value under 0.05.
_FEWEST_TASKS = 6


class ComparedTask(NamedTuple):
    """One row of a :class:`Comparison`.

    Attributes
    ----------
    task : str
        Folder name of the task.
    test : PairedTest
        Scores, difference, interval and p-value.
    p_adjusted : float
        The p-value after Holm's correction for the number of tasks.
    """

    task: str
    test: PairedTest
    p_adjusted: float


class Comparison:
    """What :func:`compare_results` found; prints as a table.

    Parameters
    ----------
    a, b : str
        Names of the embedders.
    tests : dict of str to PairedTest
        By task.
    skipped : dict of str to str
        Tasks that both were run on and that cannot be compared, with the reason.

    Attributes
    ----------
    rows : list of ComparedTask
        In the order of the tests.
    wins : tuple of int
        Tasks on which a is better, those on which b is, and the others.
    p_over_tasks : float
        Of Wilcoxon's signed-rank test on the differences, turned so that greater is
        better; NaN for fewer than six tasks.
    """

    def __init__(self, a, b, tests, skipped):
        self.a, self.b = a, b
        self.skipped = skipped
        adjusted = _holm([test.p_value for test in tests.values()])
        self.rows = [
            ComparedTask(task, test, p)
            for (task, test), p in zip(tests.items(), adjusted, strict=True)
        ]

    @property
    def wins(self):
        """Tasks on which a is better, on which b is, and the others."""
        better = [row.test.better for row in self.rows]
        return tuple(better.count(side) for side in ("a", "b", None))

    @property
    def p_over_tasks(self):
        """p-value of the signed-rank test over tasks."""
        gains = [_gain(row.test) for row in self.rows]
        gains = [gain for gain in gains if np.isfinite(gain)]
        if len(gains) < _FEWEST_TASKS or not any(gains):
            return np.nan
        return float(wilcoxon(gains, method="auto").pvalue)

    def __str__(self):
        head = ["task", "score", self.a, self.b, "a - b", "interval", "p", "p (Holm)"]
        table = align([head, *map(_cells, self.rows)]) if self.rows else ""
        return "\n".join([f"a = {self.a}, b = {self.b}", table, *self._notes()])

    def _notes(self):
        if not self.rows:
            return ["There is no task that both can be compared on.", *self._reasons()]
        a, b, ties = self.wins
        test = self.rows[0].test
        notes = [
            "",
            f"Better: {self.a} on {a}, {self.b} on {b}, neither on {ties} of "
            f"{len(self.rows)} tasks.",
            f"Intervals: {test.confidence:.0%}, from {test.n_resamples} draws of the "
            "tested clips. p: permutation test, each clip's predictions swapped at "
            "random.",
        ]
        if np.isfinite(self.p_over_tasks):
            notes.append(
                f"Over tasks: p = {self.p_over_tasks:.3g} (Wilcoxon's signed ranks)."
            )
        return notes + self._reasons()

    def _reasons(self):
        return [f"Left out: {task}. {why}" for task, why in self.skipped.items()]


def compare_results(results, a, b, *, confidence=0.95, n_resamples=1000, seed=0):
    """Compare two embedders on all tasks that both were run on.

    Parameters
    ----------
    results : list of Result
    a, b : str
        Names of the embedders.
    confidence : float, default=0.95
        Of the intervals.
    n_resamples : int, default=1000
        Draws for each interval, and for each p-value.
    seed : int, default=0
        Of the draws on each task.

    Returns
    -------
    comparison : Comparison

    Raises
    ------
    ValueError
        If there is no result of one of them, both are the same, or there is no task in
        common.
    """
    by_name = {}
    for result in results:
        by_name.setdefault(result.embedder, {})[result.task] = result
    _check_names(by_name, a, b)
    common = [task for task in by_name[a] if task in by_name[b]]
    if not common:
        raise ValueError(
            f"{a} was run on {', '.join(by_name[a])}, {b} on {', '.join(by_name[b])}. "
            "Run both on a task in common."
        )
    tests, skipped = {}, {}
    options = {"confidence": confidence, "n_resamples": n_resamples}
    for task in common:
        pair = by_name[a][task], by_name[b][task]
        try:
            tests[task] = paired_test(*pair, **options, random_state=seed)
        except ValueError as error:
            skipped[task] = str(error)
    return Comparison(a, b, tests, skipped)


def align(rows):
    """Return rows of cells as text with aligned columns.

    Parameters
    ----------
    rows : list of list of str

    Returns
    -------
    text : str
        Two spaces between columns.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _check_names(by_name, a, b):
    for name in (a, b):
        if name not in by_name:
            raise ValueError(
                f"There is no result of an embedder {name!r}. There are results of "
                f"{', '.join(by_name) or 'none'}."
            )
    if a == b:
        raise ValueError(f"Both embedders are {a!r}. Name two.")


def _gain(test):
    return test.difference * (1 if SCORES[test.name].greater_is_better else -1)


def _cells(row):
    test = row.test
    better = SCORES[test.name].greater_is_better
    return [
        row.task,
        test.name if better else f"{test.name} (less is better)",
        f"{test.a:.3f}",
        f"{test.b:.3f}",
        f"{test.difference:+.3f}",
        f"[{test.low:+.3f}, {test.high:+.3f}]",
        f"{test.p_value:.3g}",
        f"{row.p_adjusted:.3g}",
    ]


def _holm(p_values):
    """Return p-values after Holm's correction; NaN stays and does not count."""
    p_values = np.array(p_values, np.float64)
    adjusted = np.full(len(p_values), np.nan)
    order = [i for i in np.argsort(p_values) if not np.isnan(p_values[i])]
    largest = 0.0
    for position, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - position) * p_values[i]))
        adjusted[i] = largest
    return adjusted.tolist()
