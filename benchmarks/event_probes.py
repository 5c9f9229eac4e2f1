"""Searches over probes of events: heareval's loop against ProbeSearchCV.

Run ``python -m benchmarks.event_probes``; it needs ``pip install pytorch-lightning
sed_eval dcase_util``. 2,400 training frames of 64 values with 25 labels, and as many
to validate and to test on: in one file of 120 s each, the length that HEAR's event
tasks have, with 1,170 events, as many as MAESTRO has notes in that time, or with 400,
or in twelve files of 10 s with 16 events. ``--epochs 6`` compares the cost of six
epochs of every point, which is the same but for how long each trains. The eight grid
points that HEAR runs are scored at every check by the onset F-measure of the better of
two post-processing settings.
"""

import argparse
import tempfile
from functools import partial

import numpy as np
import torch

from benchmarks import heareval_loop
from benchmarks.probes import (
    CHECK_EVERY,
    HEADER,
    PATIENCE,
    POINTS,
    RowByRow,
    compare,
    grid_of_points,
)
from benchmarks.timing import print_table
from skaudioemb.events import Event
from skaudioemb.hear.scores import event_onset_fms
from skaudioemb.probes.event_tuning import (
    HEAR_POSTPROCESSING,
    EventScoring,
    PostProcessing,
    expand_grid,
)
from skaudioemb.probes.mlp import MLPProbe
from skaudioemb.probes.postprocessing import events_to_frames, frames_to_events
from skaudioemb.probes.search import ProbeSearchCV

N_FEATURES, N_LABELS, N_FRAMES, HOP = 64, 25, 2400, 0.05
LABELS = [str(number) for number in range(N_LABELS)]
SETTINGS = expand_grid(HEAR_POSTPROCESSING, PostProcessing(0.25, 0.125, 0.5))


class Part:
    """Files with their events and frames.

    Parameters
    ----------
    n_files, n_events : int
        Events are those of a file.
    patterns : ndarray of shape (N_LABELS, N_FEATURES)
        What each label adds to a frame.
    rng : Generator
    """

    def __init__(self, n_files, n_events, patterns, rng):
        own = np.arange(N_FRAMES // n_files) * HOP
        self.times = [own] * n_files
        self.events = [_draw_events(n_events, own[-1], rng) for _ in range(n_files)]
        active = [events_to_frames(events, own, LABELS) for events in self.events]
        self.Y = np.concatenate(active)
        noise = rng.normal(0, 2.0, (len(self.Y), N_FEATURES))
        self.X = (self.Y @ patterns + noise).astype(np.float32)


def _draw_events(n_events, seconds, rng):
    starts = rng.uniform(0, seconds - 2, n_events)
    ends = starts + rng.uniform(0.3, 2.0, n_events)
    names = rng.choice(LABELS, n_events)
    return sorted(map(Event, names.tolist(), starts.tolist(), ends.tolist()))


def run_heareval(train, valid, test, seed):
    """Return validation score, test score and epochs of each point."""
    torch.manual_seed(seed)
    milliseconds = [1000 * times for times in valid.times]
    scores = heareval_loop.EventScores(milliseconds, valid.events, LABELS)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for point in POINTS:
            rows = [RowByRow(part.X, part.Y) for part in (train, valid)]
            module = heareval_loop.Prediction(N_FEATURES, N_LABELS, point, True, scores)
            fitted = heareval_loop.fit(module, *rows, CHECK_EVERY, folder)
            with torch.no_grad():
                outputs = fitted.module.probabilities(torch.from_numpy(test.X))
            reached = test_score(outputs.numpy(), test)
            found.append((fitted.score, reached, fitted.n_epochs))
    return np.transpose(found)


def run_search(train, valid, test, seed):
    """Return the same of a search with stacked probes."""
    X, Y = (np.concatenate([getattr(p, n) for p in (train, test)]) for n in "XY")
    rows = np.split(np.arange(len(X)), [len(train.X)])
    score = partial(event_onset_fms, collar=0.2, zero_division=0)
    probe = MLPProbe(
        check_every=CHECK_EVERY,
        patience=PATIENCE,
        max_epochs=heareval_loop.MAX_EPOCHS,
        validation=(valid.X, valid.Y),
        scoring=EventScoring(valid.times, valid.events, LABELS, SETTINGS, score),
        shuffle=False,
        ties="first",
        random_state=seed,
    )

    def scores_of(probe, X, y):
        return {
            "valid": probe.best_score_,
            "test": test_score(probe.predict_proba(X), test),
            "epochs": probe.n_epochs_,
        }

    search = ProbeSearchCV(
        probe, grid_of_points(), cv=[rows], scoring=scores_of, refit=False
    )
    found = search.fit(X, Y).cv_results_
    return np.stack([found[f"mean_test_{key}"] for key in ("valid", "test", "epochs")])


def test_score(probabilities, part):
    """Return the onset F of a part with the first post-processing setting."""
    each = np.split(probabilities, np.cumsum([len(t) for t in part.times])[:-1])
    events = [
        frames_to_events(values, times, LABELS, **SETTINGS[-1]._asdict())
        for values, times in zip(each, part.times, strict=True)
    ]
    return event_onset_fms(part.events, events, 0.2, zero_division=0)


def main(seeds, epochs):
    heareval_loop.MAX_EPOCHS = epochs
    calls = {"heareval's loop": run_heareval, "ProbeSearchCV": run_search}
    packages = ("torch", "pytorch-lightning", "sed_eval", "scipy")
    for n_files, n_events in ((1, 1170), (1, 400), (12, 16)):
        rng = np.random.default_rng(0)
        patterns = rng.normal(0, 1, (N_LABELS, N_FEATURES))
        parts = [Part(n_files, n_events, patterns, rng) for _ in range(3)]
        title = f"{N_FRAMES} frames x {N_FEATURES}, {N_LABELS} labels, "
        title += f"files: {n_files}, events in each: {n_events}"
        print_table(title, HEADER, compare(calls, parts, seeds), packages)
        print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=500)
    options = parser.parse_args()
    main(options.seeds, options.epochs)
