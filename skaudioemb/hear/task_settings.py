"""What a task's metadata may ask of the training and of the post-processing."""

import math
from numbers import Integral, Real

# heareval's parameters that a task may set: the kind of number, and the least one.
_PARAMS = {
    "batch_size": (Integral, 2),
    "check_val_every_n_epoch": (Integral, 1),
    "dropout": (Real, 0),
    "hidden_dim": (Integral, 1),
    "hidden_layers": (Integral, 0),
    "lr": (Real, 0),
    "max_epochs": (Integral, 1),
    "patience": (Integral, 1),
}
_INITS = ("xavier_uniform_", "xavier_normal_")
# Milliseconds.
_POSTPROCESSING = {"median_filter_ms": (Real, 0), "min_duration": (Real, 0)}


def find_problem(metadata):
    """Return a sentence on what optional metadata must not be, or None.

    Parameters
    ----------
    metadata : dict
        Content of ``task_metadata.json``.

    Returns
    -------
    problem : str or None
        It names the field, what was found and what is allowed.
    """
    if not isinstance(metadata["task_name"], str):
        return f'"task_name" is {metadata["task_name"]!r}; it must be text.'
    by_score = metadata.get("use_scoring_for_early_stopping", True)
    if not isinstance(by_score, bool):
        return (
            f'"use_scoring_for_early_stopping" is {by_score!r}; it must be true or '
            "false."
        )
    params = metadata.get("evaluation_params", {})
    if not isinstance(params, dict):
        return f'"evaluation_params" is {params!r}; it must be an object with keys.'
    return _problem_of(
        "event_postprocessing_grid", params, _POSTPROCESSING
    ) or _problem_of("task_specific_param_grid", params, _PARAMS)


def _problem_of(name, params, allowed):
    """Return a sentence on a grid; its values are lists."""
    if name not in params:
        return None
    grid = params[name]
    if not isinstance(grid, dict):
        return f'"{name}" is {grid!r}; it must be an object of lists.'
    for key, values in grid.items():
        if key == "initialization" and allowed is _PARAMS:
            fits, wanted = (lambda value: value in _INITS), " or ".join(_INITS)
        elif key in allowed:
            kind, least = allowed[key]
            fits = _is_number(kind, least)
            numbers = "whole numbers" if kind is Integral else "numbers"
            wanted = f"{numbers} of at least {least}"
        else:
            return f'"{name}" has {key!r}; known are {", ".join(sorted(allowed))}.'
        if not isinstance(values, list) or not values or not all(map(fits, values)):
            return f'"{name}": {key!r} is {values!r}; it must be a list of {wanted}.'
    return None


def _is_number(kind, least):
    def fits(value):
        number = isinstance(value, kind) and not isinstance(value, bool)
        return number and math.isfinite(value) and value >= least

    return fits
