"""Event scores against sed_eval, and clip scores against scikit-learn.

Run ``python -m benchmarks.scores``. 1,000 reference events of 10 labels, in 25 clips of
60 s or in one of 25 min, and an estimate with jittered, missing, false and wrongly
labelled events; sed_eval evaluates clip by clip as HEAR makes it do, with its
containers built before the clock starts. Without sed_eval (``pip install sed_eval
dcase_util``) its part is left out. The clip scores are those of 2,400 frames with 25
labels, a check of a timestamp task.
"""

import warnings
from functools import partial

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.timing import compare, print_table
from skaudioemb.events import Event
from skaudioemb.hear.scores import (
    aucroc,
    event_onset_fms,
    event_onset_offset_fms,
    mAP,
    segment_error_rate,
)

LABELS = [str(number) for number in range(10)]


def make_events(n_clips, n_events=1000, seconds=1500.0):
    """Return reference events and an estimate of them, one list per clip."""
    n_events, seconds = n_events // n_clips, seconds / n_clips
    n_errors = n_events // 10
    rng = np.random.default_rng(0)
    reference, estimate = [], []
    for _ in range(n_clips):
        starts = rng.uniform(0, seconds - 3, n_events)
        ends = starts + rng.uniform(0.1, 3, n_events)
        labels = rng.choice(LABELS, n_events)
        reference.append(list(map(Event, labels, starts, ends)))
        found = rng.permutation(n_events)[: n_events - n_errors]
        wrong = rng.random(len(found)) < 0.1
        near = starts[found] + rng.normal(0, 0.03, len(found)).clip(-0.1, 0.1)
        near = near.clip(0)
        guesses = np.where(wrong, rng.choice(LABELS, len(found)), labels[found])
        later = np.maximum(near, ends[found] + rng.normal(0, 0.1, len(found)))
        estimate.append(list(map(Event, guesses, near, later)))
        false = rng.uniform(0, seconds - 1, n_errors)
        estimate[-1] += map(Event, rng.choice(LABELS, n_errors), false, false + 0.5)
    return reference, estimate


def contain(clips):
    """Return the events of each clip as sed_eval takes them."""
    from dcase_util.containers import MetaDataContainer

    return [
        MetaDataContainer(
            [
                {"event_label": label, "event_onset": start, "event_offset": end}
                for label, start, end in clip
            ]
        )
        for clip in clips
    ]


def sed_eval_score(reference, estimate, labels, score, collar=0.2):
    """Return a score of sed_eval from clips in its own containers.

    Parameters
    ----------
    reference, estimate : list of MetaDataContainer
    labels : list of str
    score : {"onset", "onset and offset", "segment"}
    collar : float
        Seconds.
    """
    import sed_eval

    if score == "segment":
        metrics = sed_eval.sound_event.SegmentBasedMetrics(
            event_label_list=labels, time_resolution=1.0
        )
        part = key = "error_rate"
    else:
        offsets = score == "onset and offset"
        metrics = sed_eval.sound_event.EventBasedMetrics(
            event_label_list=labels,
            t_collar=collar,
            percentage_of_length=0.2 if offsets else 0.5,
            evaluate_offset=offsets,
        )
        part = key = "f_measure"
    for true, guess in zip(reference, estimate, strict=True):
        metrics.evaluate(reference_event_list=true, estimated_event_list=guess)
    return metrics.results_overall_metrics()[part][key]


def sed_eval_scores(reference, estimate):
    """Return sed_eval's scores as callables without arguments, by name."""
    files = contain(reference), contain(estimate)
    scores = {
        "onset F, 50 ms": "onset",
        "onset and offset F": "onset and offset",
        "segment error rate": "segment",
    }
    return {
        name: partial(sed_eval_score, *files, LABELS, score, 0.05)
        for name, score in scores.items()
    }


def compare_events(n_clips, repeats):
    reference, estimate = make_events(n_clips)
    ours = {
        "onset F, 50 ms": lambda: event_onset_fms(reference, estimate, 0.05),
        "onset and offset F": lambda: event_onset_offset_fms(reference, estimate),
        "segment error rate": lambda: segment_error_rate(reference, estimate),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            theirs = sed_eval_scores(reference, estimate)
        except ImportError as error:
            print(f"sed_eval is not installed ({error}); event scores are left out.")
            return
        rows = [
            measure(name, theirs[name], call, repeats) for name, call in ours.items()
        ]
    print_table(
        f"{sum(map(len, reference))} events, {n_clips} clips",
        ("", "sed_eval, ms", "skaudioemb, ms", "ratio", "difference"),
        rows,
        packages=("sed_eval", "scipy"),
    )


def compare_clips(n_rows=2400, n_labels=25, repeats=9):
    rng = np.random.default_rng(0)
    truth = (rng.random((n_rows, n_labels)) < 0.1).astype(np.uint8)
    scores = rng.random((n_rows, n_labels), dtype=np.float32)
    pairs = {"mAP": average_precision_score, "aucroc": roc_auc_score}
    rows = [
        measure(
            name,
            lambda theirs=theirs: theirs(truth, scores),
            lambda ours=ours: ours(truth, scores),
            repeats,
        )
        for (name, theirs), ours in zip(pairs.items(), (mAP, aucroc), strict=True)
    ]
    print_table(
        f"{n_rows} rows with {n_labels} labels",
        ("", "scikit-learn, ms", "skaudioemb, ms", "ratio", "difference"),
        rows,
        packages=("scikit-learn", "numpy"),
    )


def measure(name, theirs, ours, repeats):
    """Return a row of the table: both times, their ratio, how far the values are."""
    difference = abs(theirs() - ours())
    seconds = compare({"theirs": theirs, "ours": ours}, repeats)
    return (
        name,
        f"{1e3 * seconds['theirs']:.2f}",
        f"{1e3 * seconds['ours']:.2f}",
        f"{seconds['theirs'] / seconds['ours']:.0f}",
        f"{difference:.1e}",
    )


def main():
    compare_events(n_clips=25, repeats=5)
    compare_events(n_clips=1, repeats=1)
    compare_clips()


if __name__ == "__main__":
    main()
