"""From candidates and folds to trainings that can share a stack."""

import hashlib
from numbers import Number

import numpy as np
import torch
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import _safe_split

from skaudioemb.devices import resolve_device
from skaudioemb.probes.mlp import MLPProbe
from skaudioemb.probes.rows import as_tensor, placed
from skaudioemb.probes.stack_members import Training, TrainingRows, ValidationRows
from skaudioemb.probes.targets import Targets


class Task:
    """A candidate on a fold.

    Parameters
    ----------
    model : MLPProbe or Pipeline
        With the candidate's parameters; earlier steps are fitted.
    training : Training
        Of the model's last step.
    """

    def __init__(self, model, training):
        self.model = model
        self.training = training

    def fitted(self):
        """Return the fitted model."""
        self.training.keep()
        return self.model


class Planner:
    """Finds out which fits can be stacked, and prepares those.

    Rows are checked, split and moved to the device once for all candidates that share
    them. Earlier steps of a pipeline are fitted once for each fold and each setting
    of their parameters.

    Parameters
    ----------
    estimator : estimator
        What is searched over.
    X, y : array-like
        All rows.
    splits : list of (ndarray, ndarray)
        Numbers of the training and test rows of each fold.
    valid : list of ndarray or None
        Numbers of the validation rows of each fold; with None the probe's parameter
        ``validation`` stands.
    """

    def __init__(self, estimator, X, y, splits, valid):
        self.estimator = estimator
        self.X, self.y = X, y
        self.splits = splits
        self.valid = valid
        self.tables = {}
        self.shared = {}

    def plan(self, candidates):
        """Return what is planned for each candidate and fold, folds changing fastest.

        None stands for a fit that cannot be stacked, an exception for one that would
        fail.

        Parameters
        ----------
        candidates : list of dict

        Returns
        -------
        tasks : list of Task, Exception or None
        """
        return [
            self._task(parameters, split)
            for parameters in candidates
            for split in range(len(self.splits))
        ]

    def _task(self, parameters, split):
        try:
            model = clone(self.estimator).set_params(**clone(parameters, safe=False))
            probe = _probe_of(model)
            if probe is None:
                return None
            table, index = self._table(model, parameters, split)
            training = self._training(probe, table, index, split)
        except Exception as error:
            return error
        n_rows = len(training.rows.index)
        if n_rows < 2:
            return ValueError(
                f"A probe needs two training rows, but there are {n_rows}."
            )
        if table.prefix is not None:
            model.steps = [*table.prefix.steps, model.steps[-1]]
        return Task(model, training)

    def _table(self, model, parameters, split):
        """Return the rows that the probe sees, and which of them it trains on."""
        train, _ = self.splits[split]
        if not isinstance(model, Pipeline) or len(model.steps) == 1:
            table = self._once(None, lambda: Table(self.X, self.y, None))
            return table, np.arange(len(table.X))[train]
        key = (split, _prefix_key(parameters, model.steps[-1][0]))

        def fitted():
            X, y = _safe_split(model, self.X, self.y, train)
            prefix = model[:-1]
            table = Table(prefix.fit_transform(X, y), y, prefix)
            remember_transforms(prefix)
            return table

        table = self._once(key, fitted)
        return table, np.arange(len(table.X))

    def _once(self, key, make):
        """Return the table of a key; raise again what making it has raised."""
        if key not in self.tables:
            try:
                self.tables[key] = make()
            except Exception as error:
                self.tables[key] = error
        if isinstance(self.tables[key], Exception):
            raise self.tables[key]
        return self.tables[key]

    def _training(self, probe, table, index, split):
        probe._validate_params()
        _make_plain(probe)
        device = resolve_device(probe.device)
        y = table.y[index]
        vars(probe).update(table.columns)
        if self.valid[split] is not None:
            probe.validation = self._share(
                (id(table), split, "given"), lambda: self._given(table, split)
            )
            # These rows are a bare array by now.
            vars(probe).pop("feature_names_in_", None)
        # The order of these draws is that of MLPProbe.fit.
        rng = check_random_state(probe.random_state)
        seed, batch_seed = rng.randint(np.iinfo(np.int32).max, size=2).tolist()
        key = (id(table), split)
        probe._targets = self._share((key, "targets"), lambda: Targets(y))
        train, valid = probe._split(index, y, rng)
        vars(probe).update(table.columns)
        key = (*key, str(device))
        rows = self._share(
            (key, _digest(train.X)), lambda: _training_rows(table, train, device)
        )
        if valid is not None:
            valid = self._share(
                (key, "valid", _digest(valid.X, valid.codes)),
                lambda: _validation_rows(table, valid, device),
            )
        return Training(probe, rows, valid, seed, batch_seed, device)

    def _given(self, table, split):
        """Return the validation rows of a fold as the probe sees them."""
        rows = self.valid[split]
        if table.prefix is None:
            return table.X[rows], table.y[rows]
        X, y = _safe_split(self.estimator, self.X, self.y, rows)
        return np.asarray(table.prefix.transform(X)), y

    def _share(self, key, make):
        if key not in self.shared:
            self.shared[key] = make()
        return self.shared[key]


class Table:
    """Rows as the probe sees them, checked.

    Parameters
    ----------
    X, y : array-like
    prefix : Pipeline or None
        The fitted steps that X went through.
    """

    def __init__(self, X, y, prefix):
        probe = MLPProbe()
        self.X, self.y = probe._check_rows(X, y, reset=True)
        self.columns = {
            name: value for name, value in vars(probe).items() if name.endswith("_in_")
        }
        self.prefix = prefix
        self._placed = {}

    def on(self, device):
        """Return X as a tensor, on a device if it leaves room there."""
        if device not in self._placed:
            self._placed[device] = placed(self.X, device)
        return self._placed[device]


def _training_rows(table, train, device):
    X = table.on(device)
    index = torch.from_numpy(train.X).to(X.device)
    return TrainingRows(X, index, as_tensor(train.codes).to(X.device))


def _validation_rows(table, valid, device):
    if valid.X.ndim == 1:
        valid = type(valid)(table.X[valid.X], valid.given, valid.codes)
    codes = as_tensor(valid.codes).to(device)
    return ValidationRows(placed(valid.X, device), codes, valid)


def _probe_of(model):
    """Return the MLPProbe that a model ends in, or None.

    A subclass may train in its own way, and so may a subclass of Pipeline.
    """
    if type(model) is Pipeline and getattr(model, "transform_input", None) is None:
        model = model.steps[-1][1]
    return model if type(model) is MLPProbe else None


def _make_plain(probe):
    """Turn numpy's numbers among the parameters, as grids have them, into Python's."""
    for name, value in probe.get_params(deep=False).items():
        if isinstance(value, np.generic):
            setattr(probe, name, value.item())


def _prefix_key(parameters, last):
    """Return what tells settings of the earlier steps of a pipeline apart."""
    return tuple(
        (name, type(value), value if _is_plain(value) else id(value))
        for name, value in sorted(parameters.items())
        if name != last and not name.startswith(f"{last}__")
    )


def _is_plain(value):
    return value is None or isinstance(value, str | bytes | Number)


def _digest(*arrays):
    digest = hashlib.blake2b()
    for array in arrays:
        digest.update(f"{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data.cast("B"))
    return digest.digest()


def remember_transforms(pipeline):
    """Let the steps of a fitted pipeline remember the last rows they transformed.

    All candidates of a fold are scored on the same rows.

    Parameters
    ----------
    pipeline : Pipeline
    """
    for _, step in pipeline.steps:
        if hasattr(step, "transform"):
            step.transform = Remembered(step.transform)


class Remembered:
    """A function of rows that is not computed again for equal rows.

    Parameters
    ----------
    function : callable
        Takes rows, and perhaps keyword arguments; with these nothing is remembered.
    """

    def __init__(self, function):
        self.function = function
        self.known = []

    def __call__(self, X, **options):
        if options:
            return self.function(X, **options)
        for rows, result in self.known:
            if _equal(rows, X):
                return result
        result = self.function(X)
        # Training rows and test rows, if both are scored.
        self.known = [*self.known[-1:], (X, result)]
        return result


def _equal(a, b):
    """Tell whether two collections of rows are surely the same."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray) and a.dtype != object:
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, np.ndarray | list | tuple):
        return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))
    return hasattr(a, "equals") and a.equals(b)
