"""The fusion paper's Tables 3 to 6, filled by a grid search."""

import numpy as np

from skaudioemb.studies.systems import SYSTEMS, TABLES

_LINE_WIDTH = 88
_DECIMALS = 3
_STAND_IN = "x is the HuBERT of the other tables, for want of a hubert_large."
_MISNAMED = "The paper gives the scores of fusion_cat_xwc as those of cat xwc."


class Ablation:
    """The scores of the systems of the fusion paper's Tables 3 to 6.

    :func:`run_ablation` makes it. Printing it shows the tables: mean and standard
    deviation over the folds, and a star at the best of each comparison, ties at the
    precision shown included. Comparisons are those in which the paper prints its
    best scores in bold.

    Parameters
    ----------
    searches : dict of str to GridSearchCV
        Fitted to :func:`ablation_grid`, by task; None is the name of a single task.
    stand_in : bool, default=False
        Whether Table 4 was made without a HuBERT Large.

    Notes
    -----
    All systems share their folds, so that two can be compared fold by fold. Standard
    deviations are those of ``cv_results_``: over the folds, which differ in
    difficulty, and thus no error bars of a difference between systems.

    Two rows of the paper are not what they are called. "wav2vec 2.0 Large" in Table 3
    is of another checkpoint than its fusion; here both are the same model. "cat xwc" in
    Table 6 has the scores of fusion_cat_xwc; here both are there.

    A search is not refitted. To have its best system, after a single ``scoring``:
    ``search = ablation.search_`` and
    ``clone(search.estimator).set_params(**search.best_params_).fit(X, y)``.
    """

    def __init__(self, searches, *, stand_in=False):
        self.searches = searches
        self.stand_in = stand_in

    @property
    def search_(self):
        """The fitted GridSearchCV, of the first task if there are several."""
        return next(iter(self.searches.values()))

    def rows(self, table=None):
        """Return the scores as a list of rows, for one table or for all.

        Parameters
        ----------
        table : {3, 4, 5, 6} or None, default=None
            Number of the table.

        Returns
        -------
        rows : list of dict
            One for each table, system and column, with "table", "system", "task",
            "score", "mean", "std", "folds" (the scores of the folds, in order) and
            "best" (of its comparison).

        Raises
        ------
        ValueError
            If there is no such table.
        """
        if table is None:
            return [row for number in TABLES for row in self.rows(number)]
        if table not in TABLES:
            raise ValueError(f"table={table!r} is none of {list(TABLES)}.")
        rows = []
        for systems in TABLES[table].comparisons:
            by_column = [self._compare(systems, *column) for column in self._columns()]
            for scores in zip(*by_column, strict=True):
                rows += [{"table": table, **score} for score in scores]
        return rows

    def __repr__(self):
        return "\n\n".join(self._format(number) for number in TABLES)

    def _columns(self):
        """Return (task, score) pairs."""
        return [
            (task, key.removeprefix("mean_test_"))
            for task, search in self.searches.items()
            for key in search.cv_results_
            if key.startswith("mean_test_")
        ]

    def _compare(self, systems, task, score):
        """Return one row for each system; see :meth:`rows`."""
        search = self.searches[task]
        rows = []
        for system in systems:
            index = list(SYSTEMS).index(system)
            mean, std, *folds = (
                float(search.cv_results_[f"{part}_test_{score}"][index])
                for part in ["mean", "std", *_splits(search)]
            )
            row = {"system": system, "task": task, "score": score, "mean": mean}
            rows.append({**row, "std": std, "folds": folds})
        shown = np.round([row["mean"] for row in rows], _DECIMALS)
        best = np.fmax.reduce(shown)
        return [
            {**row, "best": bool(mean == best)}
            for row, mean in zip(rows, shown, strict=True)
        ]

    def _format(self, number):
        """Write one table, in blocks of columns that fit into a line."""
        cells = {}
        for row in self.rows(number):
            cells.setdefault(row["system"], []).append(_cell(row))
        heads = [self._head(*column) for column in self._columns()]
        names = max(map(len, SYSTEMS))
        width = 2 + max(len(cell) for row in [heads, *cells.values()] for cell in row)
        n_columns = max(1, (_LINE_WIDTH - names) // width)
        lines = [f"Table {number}: {TABLES[number].title}"]
        for start in range(0, len(heads), n_columns):
            block = slice(start, start + n_columns)
            for name, columns in {"": heads, **cells}.items():
                columns = "".join(f"{cell:>{width}}" for cell in columns[block])
                lines.append(f"{name:<{names}}{columns}")
        return "\n".join([*lines, *self._notes(number)])

    def _notes(self, number):
        if number == 4 and self.stand_in:
            return [_STAND_IN]
        return [_MISNAMED] if number == 6 else []

    def _head(self, task, score):
        if score == "score" and isinstance(self.searches[task].scoring, str):
            score = self.searches[task].scoring
        if task is None:
            return f"{score} "
        return f"{task} " if score == "score" else f"{task} ({score}) "


def _cell(row):
    star = "*" if row["best"] else " "
    return f"{row['mean']:.{_DECIMALS}f} ± {row['std']:.{_DECIMALS}f}{star}"


def _splits(search):
    return [f"split{k}" for k in range(search.n_splits_)]
