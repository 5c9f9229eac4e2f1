"""A grid search that trains all of its probes together."""

import copy
from collections import deque
from numbers import Integral

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV, ParameterSampler, check_cv
from sklearn.utils._param_validation import Interval
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import _num_samples

from skaudioemb.probes.stack_plan import Planner, Task
from skaudioemb.probes.stack_training import Progress, train_together


class ProbeSearchCV(GridSearchCV):
    """GridSearchCV for probes, with all fits trained as one stacked network.

    Parameters, attributes and results are those of
    :class:`sklearn.model_selection.GridSearchCV`. The difference is how the fits are
    made: candidates and folds whose networks have the same shape and number of
    training rows are trained together, with stacked weights and one pass over the
    data. Each keeps its own learning rate, first weights, dropout, early stopping and
    best weights, and leaves the stack when it is finished. With an int as the probe's
    ``random_state`` it starts from the weights, and sees the validation rows and
    batches, that ``MLPProbe.fit`` would give it; but dropout is drawn in another way,
    and biases in front of a batch normalisation, which the loss does not depend on,
    stay as they begin. But for rounding it does not matter which other fits are in the
    stack. On a CPU, where the wide layers of one network already fill a core, stacks
    are cut to the size of its cache and the cores train stacks of their own; a GPU
    trains all at once.

    Fits of anything but an :class:`MLPProbe`, or of a Pipeline that ends in one, are
    made as GridSearchCV makes them, and so are those with additional fit parameters.
    The earlier steps of a Pipeline are fitted once for each fold and each setting of
    their parameters.

    Parameters
    ----------
    estimator : estimator
        An :class:`MLPProbe`, a Pipeline that ends in one, or any other estimator.
    param_grid : dict or list of dict
        Lists of values by parameter name; with ``n_iter`` also distributions, as
        :class:`sklearn.model_selection.RandomizedSearchCV` takes them.
    n_iter : int or None, default=None
        Number of candidates to draw from ``param_grid``. None is all of them.
    scoring : str, callable, list, tuple, dict or None, default=None
        What the candidates are compared by. The checks during the training go by the
        probe's own ``scoring``.
    n_jobs : int or None, default=None
        Processes for fits that are not stacked, and for scoring. The stacks are
        trained in this process, on as many cores as ``torch.get_num_threads()``
        tells.
    refit : bool, str or callable, default=True
        Whether to fit the best candidate on all rows.
    cv : int, splitter, iterable or None, default=None
        The folds; None is 5. A splitter that has validation rows of its own, such as
        :class:`skaudioemb.probes.folds.RotatingFolds`, gives them to the probe in
        place of its parameter ``validation``; they go through the earlier steps of a
        Pipeline.
    verbose : int, default=0
        If positive, show a progress bar over the epochs of all stacked fits, and
        print what GridSearchCV does.
    pre_dispatch : int or str, default="2*n_jobs"
        Jobs that are dispatched at a time.
    error_score : "raise" or numeric, default=np.nan
        Score of a fit that fails.
    return_train_score : bool, default=False
        Whether ``cv_results_`` has training scores.
    random_state : int, RandomState instance or None, default=None
        Determines which candidates are drawn, with ``n_iter``. The probe has a
        ``random_state`` of its own.

    Attributes
    ----------
    cv_results_ : dict of str to ndarray
        As of GridSearchCV. The fit time of a stacked fit is its part of the time that
        the stack took.
    best_estimator_ : estimator
        Fitted on all rows, if ``refit``.
    best_score_ : float
        Mean score of the best candidate over the folds.
    best_params_ : dict
        Parameters of the best candidate.
    best_index_ : int
        Its place in ``cv_results_``.
    scorer_ : callable or dict
        What scored the held-out rows.
    n_splits_ : int
        Number of folds.
    refit_time_ : float
        Seconds that the last fit took, if ``refit``.
    multimetric_ : bool
        Whether there are several scores.
    n_stacked_ : int
        Number of fits that were trained in stacks.
    classes_ : ndarray
        Labels of the refitted estimator.
    n_features_in_ : int
        Number of columns of X, if ``refit``.
    feature_names_in_ : ndarray of str
        Their names, if ``refit`` and if they have any.

    See Also
    --------
    MLPProbe : The estimator to search over.

    References
    ----------
    .. [1] J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations",
       Proceedings of Machine Learning Research 176 (NeurIPS 2021), 2022, whose grid
       is that of the example.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import scale
    >>> from skaudioemb.probes.mlp import MLPProbe
    >>> from skaudioemb.probes.search import ProbeSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> probe = MLPProbe(hidden_units=32, max_epochs=60, random_state=0)
    >>> grid = {
    ...     "hidden_layers": [1, 2],
    ...     "lr": [3.2e-3, 1e-3, 3.2e-4, 1e-4],
    ...     "init": ["xavier_uniform", "xavier_normal"],
    ... }
    >>> search = ProbeSearchCV(probe, grid, cv=3).fit(scale(X), y)
    >>> search.best_params_["lr"]
    0.0032
    >>> search.n_stacked_
    48
    """

    _parameter_constraints: dict = {
        **GridSearchCV._parameter_constraints,
        "n_iter": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator,
        param_grid,
        *,
        n_iter=None,
        scoring=None,
        n_jobs=None,
        refit=True,
        cv=None,
        verbose=0,
        pre_dispatch="2*n_jobs",
        error_score=np.nan,
        return_train_score=False,
        random_state=None,
    ):
        super().__init__(
            estimator,
            param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.n_iter = n_iter
        self.random_state = random_state

    def fit(self, X, y=None, **params):
        """Train and score all candidates, and fit the best one on all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or what a Pipeline takes
            Embeddings.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Labels.
        **params : dict
            ``groups`` for the splitter, and further parameters for ``fit`` of the
            estimator and for the scorer, as GridSearchCV routes them.

        Returns
        -------
        self : ProbeSearchCV
            The fitted search.
        """
        # scikit-learn's own fit does all but the training. It runs on a stand-in,
        # whose estimator hands over trained clones of itself.
        search = copy.copy(self)
        stackable = all(name == "groups" for name in params)
        search._handover = _Handover(
            self.estimator, stackable, self.return_train_score, self.verbose
        )
        search.estimator = search._handover.original()
        folds = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        search.cv = _Folds(folds, search._handover.train)
        super(ProbeSearchCV, search).fit(X, y, **params)
        search._handover.end()
        found = vars(search).items()
        vars(self).update({k: v for k, v in found if k.endswith("_")})
        self.n_stacked_ = search._handover.n_stacked
        return self

    def _run_search(self, evaluate_candidates, *, callback_ctx=None):
        if self.n_iter is not None:
            drawn = ParameterSampler(
                self.param_grid, self.n_iter, random_state=self.random_state
            )
            self.param_grid = [{k: [v] for k, v in d.items()} for d in drawn]

        def evaluate(candidates, **options):
            self._handover.candidates = list(candidates)
            return evaluate_candidates(self._handover.candidates, **options)

        # scikit-learn has had callbacks since 1.9.
        context = {} if callback_ctx is None else {"callback_ctx": callback_ctx}
        super()._run_search(evaluate, **context)

    def _format_results(self, candidate_params, n_splits, out, more_results=None):
        for result, seconds in zip(out, self._handover.seconds, strict=True):
            if seconds is not None and result["fit_error"] is None:
                result["fit_time"] = seconds
        return super()._format_results(candidate_params, n_splits, out, more_results)


class _Folds:
    """A splitter that gives away what ``prepare`` makes of rows and folds.

    They are drawn once: a shuffling splitter gives other folds when asked again.
    """

    def __init__(self, folds, prepare):
        self.folds = folds
        self.prepare = prepare

    def get_n_splits(self, X=None, y=None, **params):
        """Return the number of folds."""
        return self.folds.get_n_splits(X, y, **params)

    def get_metadata_routing(self):
        """Return what the splitter itself asks for."""
        return get_routing_for_object(self.folds)

    def split(self, X, y=None, **params):
        """Return the training and test rows of each fold."""
        rows = np.arange(_num_samples(X))
        # A fold may be a mask.
        splits = [
            (rows[train], rows[test])
            for train, test in self.folds.split(X, y, **params)
        ]
        nothing = [None] * len(splits)
        valid = getattr(self.folds, "validation_rows", lambda: nothing)()
        return self.prepare(X, y, splits, valid)


class _Handover:
    """Trains probes together and hands them over one by one, as clones.

    GridSearchCV clones its estimator once, and that clone once for every candidate and
    fold, in this order. These clones come from here: their ``fit`` takes over what
    was trained already.

    Parameters
    ----------
    estimator : estimator
    stackable : bool
        Whether fits may be stacked.
    keep_rows : bool
        Whether training rows are scored too.
    verbose : int
        If positive, show a progress bar.
    """

    def __init__(self, estimator, stackable, keep_rows, verbose):
        self.estimator = estimator
        self.stackable = stackable
        self.keep_rows = keep_rows
        self.verbose = verbose
        self.candidates = []
        self.pending = deque()
        self.seconds = []
        self.n_stacked = 0

    def __getstate__(self):
        # Worker processes get the search along with every fit, but need none of this.
        return {}

    def original(self):
        """Return a clone of the estimator that has its clones made here."""
        self._original = clone(self.estimator)
        self._original.__sklearn_clone__ = self.cloned
        return self._original

    def cloned(self):
        """Return the next fit that is waiting; before and after, an ordinary clone."""
        if self.pending:
            return self.next()
        return clone(self.estimator) if self.seconds else self._original

    def train(self, X, y, splits, valid):
        """Train what can be stacked, and let all fits wait in their order.

        Returns
        -------
        splits : list of tuple
            Without most training rows, if nobody will look at them any more.
        """
        tasks = [None] * (len(self.candidates) * len(splits))
        if self.stackable:
            planner = Planner(self.estimator, X, y, splits, valid)
            tasks = planner.plan(self.candidates)
        trainings = [task.training for task in tasks if isinstance(task, Task)]
        progress = Progress(trainings, self.verbose)
        try:
            train_together(trainings, progress)
        finally:
            progress.close()
        for training in trainings:
            # What is left may go to another process.
            training.rows = training.valid = None
        done = [isinstance(t, Task) and t.training.net is not None for t in tasks]
        self.seconds += [
            task.training.seconds if stacked else None
            for task, stacked in zip(tasks, done, strict=True)
        ]
        self.n_stacked += sum(done)
        self.pending.extend(self._waiting(tasks, done, valid))
        if not all(done) or self.keep_rows:
            return splits
        # scikit-learn would make a copy of these rows for each candidate.
        return [(train[:2], test) for train, test in splits]

    def _waiting(self, tasks, done, valid):
        """Return a Task, an exception to raise, or None for each fit."""
        if all(rows is None for rows in valid):
            # An ordinary fit says itself why it fails.
            return [t if ok else None for t, ok in zip(tasks, done, strict=True)]
        waiting = [
            task.training.error if isinstance(task, Task) and not ok else task
            for task, ok in zip(tasks, done, strict=True)
        ]
        if None in waiting:
            raise ValueError(
                f"{waiting.count(None)} of {len(waiting)} fits cannot be stacked, and "
                "only those that are can use the validation rows of the splitter. "
                "Search over MLPProbe or a Pipeline that ends in it, without further "
                "fit parameters, or choose another cv."
            )
        return waiting

    def next(self):
        """Return an estimator for the next candidate and fold."""
        copied, task = clone(self.estimator), self.pending.popleft()
        if task is not None:
            copied.fit = _TakeOver(copied, task)
        return copied

    def end(self):
        """Let the original be an ordinary estimator."""
        vars(self._original).pop("__sklearn_clone__", None)


class _TakeOver:
    """The ``fit`` of an estimator that is trained already, or could not be."""

    def __init__(self, estimator, task):
        self.estimator = estimator
        self.task = task

    def __call__(self, X, y):
        """Turn the estimator into the trained one."""
        vars(self.estimator).pop("fit")
        if isinstance(self.task, Exception):
            raise self.task
        vars(self.estimator).update(vars(self.task.fitted()))
        return self.estimator
