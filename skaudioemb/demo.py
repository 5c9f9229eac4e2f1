"""What ``skaudioemb demo`` does: the main job, from notes to a picture, offline."""

import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager

import numpy as np
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import (
    GridSearchCV,
    ParameterGrid,
    StratifiedKFold,
    train_test_split,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from skaudioemb import CREPE, Fusion, LogMel, MLPProbe
from skaudioemb.datasets import make_notes
from skaudioemb.devices import tally

N_CLIPS = 144
N_FOLDS = 3
_BLUES = ("#c6dbef", "#9ecae1", "#6baed6", "#2171b5")

_NEXT = """
Try next, on recordings of your own:
  skaudioemb embed FOLDER --model crepe --out embeddings.npz
  skaudioemb list"""


def run_demo(out, *, memory=None, seed=0, n_clips=N_CLIPS):
    """Make notes, search a grid over fusion and probe, tell and draw the result.

    Parameters
    ----------
    out : path-like
        The PNG to write.
    memory : path-like or None, default=None
        The embedding store; None takes a temporary one.
    seed : int, default=0
        Of the notes, folds and probes.
    n_clips : int, default=144
        Number of notes; a quarter is held out of the search.

    Returns
    -------
    search : GridSearchCV
        The fitted search; its ``cv_results_`` has the counts of clips as
        ``mean_test_asked`` and ``mean_test_run``.

    Raises
    ------
    OSError
        If the picture or the store cannot be written.
    """
    began, before = time.perf_counter(), tally()
    notes = make_notes(n_clips, random_state=seed)
    _print_notes(notes)
    X, X_held, y, y_held = train_test_split(
        notes.data, notes.target, stratify=notes.target, random_state=seed
    )
    with ExitStack() as stack:
        if memory is None:
            memory = stack.enter_context(tempfile.TemporaryDirectory())
        search = make_search(memory, seed)
        n_fits = N_FOLDS * len(ParameterGrid(search.param_grid))
        with (
            tqdm(total=n_fits, desc="Fits of the grid", unit="fit") as fits,
            _watching_forwards(2 * len(X)),
        ):
            search.set_params(scoring=CountingScorer(fits)).fit(X, y)
        predicted = search.predict(X_held)
        embeddings = search.best_estimator_[:-1].transform(notes.data)
        counts = np.subtract(tally(), before)
    _print_table(search)
    _print_summary(search, np.mean(predicted == y_held), len(y_held), counts)
    _draw(out, search, notes, embeddings, (y_held, predicted))
    print(f"Wrote {out}. All of it took {time.perf_counter() - began:.0f} s.\n{_NEXT}")
    return search


def make_search(memory, seed):
    """Return the demo's grid search.

    Parameters
    ----------
    memory : path-like
        The embedding store.
    seed : int
        Of folds and probes.

    Returns
    -------
    search : GridSearchCV
        Without ``scoring``, which has to give a dict with "accuracy" in it.
    """
    fusion = Fusion(
        [("crepe", CREPE("full", hop=0.1)), ("logmel", LogMel())],
        reference="crepe",
        memory=memory,
    )
    probe = MLPProbe(
        hidden_units=64, max_epochs=100, batch_size=32, random_state=seed, device="cpu"
    )
    both = {"fusion__merge": ["concat", "interleave", "mean"]}
    only_crepe = {"fusion__logmel": ["drop"]}
    only_logmel = {"fusion__crepe": ["drop"], "fusion__reference": [None]}
    probes = {"probe__hidden_layers": [0, 1], "probe__lr": [1e-2, 3e-3]}
    return GridSearchCV(
        Pipeline([("fusion", fusion), ("scale", StandardScaler()), ("probe", probe)]),
        [{**members, **probes} for members in (both, only_crepe, only_logmel)],
        refit="accuracy",
        cv=StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed),
        error_score="raise",
    )


class CountingScorer:
    """A scorer that tells the clips asked for and run in each fit as well.

    GridSearchCV calls it once after each fit, in the same process, so that what was
    counted since its last call belongs to that fit.
    """

    def __init__(self, bar):
        self.bar = bar
        self.last = tally()

    def __call__(self, estimator, X, y):
        accuracy = estimator.score(X, y)
        asked, run, _ = np.subtract(tally(), self.last)
        self.last = tally()
        self.bar.update(1)
        return {"accuracy": accuracy, "asked": asked, "run": run}


def describe(params):
    """Say in a few words what a candidate of the grid is.

    Parameters
    ----------
    params : dict
        One of ``cv_results_["params"]``.

    Returns
    -------
    features, probe : str
    """
    if params.get("fusion__logmel") == "drop":
        features = "CREPE alone"
    elif params.get("fusion__crepe") == "drop":
        features = "LogMel alone"
    else:
        features = f"CREPE + LogMel, {params['fusion__merge']}"
    layers = params["probe__hidden_layers"]
    probe = f"{layers} hidden layer{'' if layers == 1 else 's'}"
    return features, f"{probe}, lr {params['probe__lr']:g}"


@contextmanager
def _watching_forwards(n_expected):
    """Show how many clips went through a model, fewer if the store knew some."""
    before, done = tally().run, threading.Event()
    bar = tqdm(total=n_expected, desc="Clips through a model", unit="clip")

    def watch():
        while not done.wait(0.2):
            bar.update(tally().run - before - bar.n)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        bar.total = tally().run - before
        bar.update(bar.total - bar.n)
        bar.close()


def _print_notes(notes):
    seconds = sum(map(len, notes.data)) / notes.sample_rate
    print(
        f"{len(notes.data)} notes, {seconds:.0f} s of audio: "
        f"{len(notes.target_names)} pitches from {notes.target_names[0]} to "
        f"{notes.target_names[-1]} on {len(np.unique(notes.timbre))} instruments.\n"
        "Which pitch is it? One grid search compares CREPE, log-mel statistics, and "
        "fusions of both,\neach with probes of several kinds.\n",
        flush=True,
    )


def _print_table(search):
    results = search.cv_results_
    print(
        f"\n  {'FEATURES':<28}{'PROBE':<26}{'ACCURACY':<13}{'SECONDS':>9}"
        f"{'FORWARDS RUN':>14} / CLIPS ASKED"
    )
    for i, params in enumerate(results["params"]):
        features, probe = describe(params)
        mean, std = (results[f"{stat}_test_accuracy"][i] for stat in ("mean", "std"))
        seconds = sum(results[f"mean_{part}_time"][i] for part in ("fit", "score"))
        run, asked = (_total(results, name, i) for name in ("run", "asked"))
        print(
            f"{'*' if i == search.best_index_ else ' '} {features:<28}{probe:<26}"
            f"{mean:.3f} ± {std:.3f}{seconds * N_FOLDS:>9.1f}{run:>14} / {asked}"
        )


def _total(results, name, index):
    return sum(int(results[f"split{k}_test_{name}"][index]) for k in range(N_FOLDS))


def _print_summary(search, accuracy, n_held, counts):
    asked, run, _ = counts
    features, probe = describe(search.best_params_)
    print(
        f"\n* The best: {features}; {probe}.\n"
        f"  On {n_held} notes that the search never saw it names "
        f"{accuracy:.0%} of the pitches.\n\n"
        f"{asked:,} clips were asked for, {run:,} went through a model: the store "
        "keeps what it has seen.\n"
    )


def _draw(out, search, notes, embeddings, held):
    # Not through pyplot, which would look for a screen.
    figure = Figure(figsize=(15, 5), layout="constrained")
    bars, map_, matrix = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    _draw_scores(bars, search.cv_results_)
    _draw_map(map_, notes, embeddings)
    display = ConfusionMatrixDisplay.from_predictions(
        *held, labels=notes.target_names, ax=matrix, cmap="Blues", colorbar=False
    )
    for count in display.text_.flat:
        count.set_visible(count.get_text() != "0")
    matrix.set_title("Pitches of notes that were held out")
    figure.suptitle("skaudioemb demo: which pitch is it?", weight="bold")
    figure.savefig(out, dpi=120)


def _draw_scores(axes, results):
    rows = {}
    for params, mean, std in zip(
        results["params"],
        results["mean_test_accuracy"],
        results["std_test_accuracy"],
        strict=True,
    ):
        features, probe = describe(params)
        rows.setdefault(probe, {})[features] = (mean, std)
    height = 0.8 / len(rows)
    for k, (probe, scores) in enumerate(rows.items()):
        means, stds = zip(*scores.values(), strict=True)
        places = np.arange(len(scores)) + (k - (len(rows) - 1) / 2) * height
        axes.barh(
            places, means, height, xerr=stds, label=probe, color=_BLUES[k], ecolor="0.4"
        )
    axes.set_yticks(range(len(scores)), [f.replace(", ", "\n") for f in scores])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel=f"accuracy, mean ± std of {N_FOLDS} folds")
    axes.set_title("Every configuration of the grid")
    axes.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_map(axes, notes, embeddings):
    points = PCA(2, random_state=0).fit_transform(embeddings)
    cloud = axes.scatter(*points.T, c=notes.midi, cmap="viridis", s=40, edgecolor="w")
    ticks = np.unique(notes.midi)
    bar = axes.figure.colorbar(cloud, ax=axes, ticks=ticks)
    bar.set_ticklabels(notes.target_names)
    axes.set_title("Best features of all notes, by pitch")
    axes.set(xlabel="first principal component", ylabel="second", xticks=[], yticks=[])
