"""The fusion paper's ablation study on given recordings, as one grid search."""

import tempfile
from contextlib import contextmanager
from numbers import Integral

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline

from skaudioemb.embedders.fusion import Fusion
from skaudioemb.probes.mlp import MLPProbe
from skaudioemb.studies.systems import ablation_grid
from skaudioemb.studies.tables import Ablation


def run_ablation(
    estimator,
    X,
    y=None,
    *,
    groups=None,
    probe=None,
    hubert_large=None,
    cv=None,
    scoring=None,
    memory=None,
    n_jobs=None,
    verbose=0,
):
    """Score the systems of the fusion paper's Tables 3 to 6 on given recordings.

    One grid search compares all of them, on the same folds. A system that stands in
    two tables is evaluated once, and each clip runs once through each model unless the
    fusion's pooling takes a maximum; see the notes of :class:`~skaudioemb.Fusion`.

    Parameters
    ----------
    estimator : Fusion or Pipeline
        A fusion as in :func:`ablation_grid`, or a pipeline with one such step.
    X : sequence of clips, or dict
        Recordings; see :func:`skaudioemb.audio.load` for the forms of a clip. A dict
        holds several tasks: ``{name: (X, y)}`` or ``{name: (X, y, groups)}``. Each
        becomes a column of the tables, and a search of its own.
    y : array-like or None, default=None
        Targets of the clips; None if ``X`` is a dict.
    groups : array-like of shape (n_clips,) or None, default=None
        Of the clips, such as their speakers, for ``cv``.
    probe : estimator or None, default=None
        What follows the fusion, a pipeline if features should be scaled, or a search
        if each system should have a probe tuned for it. None is
        ``MLPProbe(random_state=0)``; a given pipeline has its own.
    hubert_large : HuBERT or None, default=None
        The HuBERT of Table 4; None takes the fusion's own.
    cv : int, splitter, iterable or None, default=None
        As in :class:`~sklearn.model_selection.GridSearchCV`, None being five folds;
        but with groups a number is that of a
        :class:`~sklearn.model_selection.GroupKFold`, which keeps groups together.
    scoring : str, callable, list, dict or None, default=None
        As in GridSearchCV. Each score becomes a column of the tables.
    memory : str, path-like, Store, joblib.Memory or None, default=None
        Where embeddings are kept. None is the fusion's own, or else a temporary
        folder.
    n_jobs : int or None, default=None
        Processes of the search. Several that start with an empty ``memory`` may run
        the same clip; ``n_jobs`` of the members does not.
    verbose : int, default=0
        Of the search.

    Returns
    -------
    ablation : Ablation
        Prints as the four tables.

    Raises
    ------
    TypeError
        If ``estimator`` is neither a fusion nor a pipeline.
    ValueError
        If it has no fusion, or not the members, or if the tasks are not as above.

    References
    ----------
    T.-Y. Wu et al., "The Efficacy of Self-Supervised Speech Models as Audio
    Representations", HEAR 2021, section 5.2.

    Examples
    --------
    ``examples/plot_ablation.py`` runs this one on small models:

    >>> from skaudioemb import make_embedder
    >>> from skaudioemb.studies import run_ablation
    >>> fusion = make_embedder("fusion_cat_xwc")  # doctest: +SKIP
    >>> run_ablation(fusion, X, y, groups=speakers)  # doctest: +SKIP
    """
    pipeline, step = _as_pipeline(estimator, probe)
    fusion = pipeline.named_steps[step]
    grid = ablation_grid(fusion, step=step, hubert_large=hubert_large)
    tasks = _as_tasks(X, y, groups)
    # An iterator would be spent after the first task.
    cv = list(cv) if hasattr(cv, "__next__") else cv
    options = {"scoring": scoring, "n_jobs": n_jobs, "verbose": verbose}
    searches = {}
    with _remembering(fusion, memory):
        for name, (clips, targets, task_groups) in tasks.items():
            searches[name] = GridSearchCV(
                pipeline,
                grid,
                cv=_as_splitter(cv, task_groups),
                refit=False,
                error_score="raise",
                **options,
            ).fit(clips, targets, groups=task_groups)
    return Ablation(searches, stand_in=hubert_large is None)


@contextmanager
def _remembering(fusion, memory):
    """Give the fusion a memory, a temporary one if it has none."""
    if memory is not None:
        fusion.set_params(memory=memory)
    if fusion.memory is not None:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="skaudioemb-") as folder:
        fusion.set_params(memory=folder)
        yield
    fusion.set_params(memory=None)


def _as_pipeline(estimator, probe):
    """Return a pipeline, a clone or new, and the name of the fusion's step."""
    if isinstance(estimator, Fusion):
        probe = MLPProbe(random_state=0) if probe is None else probe
        steps = [("fusion", clone(estimator)), ("probe", clone(probe))]
        return Pipeline(steps), "fusion"
    if not isinstance(estimator, Pipeline):
        raise TypeError(
            f"{estimator!r} is neither a Fusion nor a Pipeline that has one."
        )
    if probe is not None:
        raise ValueError(
            "A pipeline has a probe of its own. Give a fusion with probe=..., or the "
            "pipeline without."
        )
    names = [name for name, step in estimator.steps if isinstance(step, Fusion)]
    if len(names) != 1:
        raise ValueError(
            f"The pipeline has {len(names)} Fusion steps among "
            f"{[name for name, _ in estimator.steps]}; the study needs one."
        )
    return clone(estimator), names[0]


def _as_tasks(X, y, groups):
    """Return the tasks by name: (X, y, groups)."""
    if not isinstance(X, dict):
        if y is None:
            raise ValueError("y is missing: give the targets of the clips.")
        return {None: (X, y, groups)}
    if y is not None or groups is not None:
        raise ValueError(
            "X is a dict of tasks: give their targets and groups in it, as "
            "{name: (X, y)} or {name: (X, y, groups)}, and neither y nor groups."
        )
    if not X:
        raise ValueError("X is an empty dict: give at least one task.")
    for name, task in X.items():
        if not (isinstance(task, list | tuple) and len(task) in (2, 3)):
            raise ValueError(
                f"Task {name!r} is a {type(task).__name__}; write (X, y) or "
                "(X, y, groups)."
            )
    return {name: (*task, None)[:3] for name, task in X.items()}


def _as_splitter(cv, groups):
    """Return ``cv``, with groups made one that heeds them."""
    if groups is None or not (cv is None or isinstance(cv, Integral)):
        return cv
    return GroupKFold(5 if cv is None else cv)
