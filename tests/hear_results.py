"""Results made by hand: synthetic probabilities and events, as a benchmark has them."""

import numpy as np

from skaudioemb.events import Event
from skaudioemb.hear.registry import get_task_info
from skaudioemb.hear.results import Predictions, Result, SplitResult

ESC = "esc50-v2.0.0-full"
DCASE = "dcase2016_task2-hear2021-full"
SCENE_SCORES = ["top1_acc", "mAP", "d_prime", "aucroc"]


def multiclass(n_clips=60, n_classes=4, strength=2.0, seed=0):
    """Predictions that are right the more often, the greater the strength."""
    truth = np.arange(n_clips) % n_classes
    noise = np.random.default_rng(seed).normal(size=(n_clips, n_classes))
    return _predictions(truth, noise + strength * np.eye(n_classes)[truth])


def multilabel(n_clips=60, n_classes=4, strength=2.0, seed=0):
    truth = np.random.default_rng(99).random((n_clips, n_classes)) < 0.3
    noise = np.random.default_rng(seed).normal(size=truth.shape)
    return _predictions(truth.astype(np.uint8), noise + strength * truth)


def events(n_clips=12, share=0.7, seed=0):
    """Three events in each clip but the first, of which a share is found."""
    rng = np.random.default_rng(seed)
    truth, predicted = [[]], [[]]
    for i in range(1, n_clips):
        clip = [Event("ab"[(i + k) % 2], 2.0 * k, 2.0 * k + 1) for k in range(3)]
        truth.append(clip)
        kept = [event for event in clip if rng.random() < share]
        moved = [event._replace(start=event.start + 0.05) for event in kept]
        predicted.append([*moved, *[Event("b", 7.0, 7.5)] * (rng.random() < 0.5)])
    files = [f"{i}.wav" for i in range(n_clips)]
    return Predictions(files, ["a", "b"], truth, predicted)


def result(embedder, task, parts, scores=None, **changes):
    """A result with the given predictions, one for each test split."""
    names = scores or SCENE_SCORES
    tests = ["test"] if len(parts) == 1 else [f"fold{i:02}" for i in range(len(parts))]
    splits = [
        SplitResult(
            test=test,
            valid="valid",
            scores={name: part.score(name) for name in names},
            validation_score=0.5,
            hyperparameters={"hidden_layers": 1, "lr": 1e-3},
            postprocessing={"median_filter": 0.25} if part.kind == "events" else None,
            n_epochs=12,
            best_epoch=9,
            search=[],
            seconds={"fitting": 1.5},
            predictions=part,
        )
        for test, part in zip(tests, parts, strict=True)
    ]
    settings = {
        "parameters": f"{embedder}()",
        "protocol": {"n_points": 8, "seed": 42},
        "versions": {"skaudioemb": "0.1.0"},
        "seconds": {"embedding": 2.0, "fitting": 1.5, "total": 3.6},
        "n_clips": 2000,
        "n_features": 64,
    }
    settings |= {"task": task, "primary": names[0], "splits": splits}
    return Result(embedder, **settings | changes)


def published(embedder, task, *parts, **changes):
    """A result of a task of the leaderboard, with all its clips."""
    info = get_task_info(task)
    changes = {"n_clips": info.n_clips} | changes
    return result(embedder, task, parts, list(info.evaluation), **changes)


def two_embedders():
    """Two embedders on three tasks, one of them not published."""
    found = []
    for seed, embedder in enumerate(["poor", "good"]):
        clips = [multiclass(80, 5, 1 + 2 * seed, 10 * seed + fold) for fold in (0, 1)]
        sounds = events(20, 0.4 + 0.5 * seed, seed)
        own = ["segment_1s_er", "event_onset_200ms_fms"]
        found += [published(embedder, ESC, *clips), published(embedder, DCASE, sounds)]
        found.append(result(embedder, "mine-v1-small", [sounds], own, n_clips=20))
    return found


def save(results, folder):
    for each in results:
        each.save(folder / each.embedder / each.task)


def _predictions(truth, logits):
    files = [f"{i}.wav" for i in range(len(logits))]
    labels = [str(i) for i in range(logits.shape[1])]
    probabilities = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return Predictions(files, labels, truth, probabilities)
