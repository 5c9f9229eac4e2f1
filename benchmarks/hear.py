"""The HEAR benchmark: its prediction stage, and what it costs around the work.

Run ``python -m benchmarks.hear``. Three embedders (CREPE tiny, log-mel, their fusion)
run on the tasks that :func:`skaudioemb.datasets.write_hear_tasks` writes, on
``--tasks FOLDER`` besides, and the table shows where the time went. With ``--loop``
(``pip install pytorch-lightning sed_eval dcase_util``) the prediction stage, from
embeddings to scores of test clips, is compared with heareval's loop on those
embeddings, for the tasks of the first embedder in train, valid and test.
"""

import argparse
import tempfile
import time

import numpy as np
import torch

from benchmarks.timing import print_table
from skaudioemb import CREPE, Fusion, LogMel
from skaudioemb.datasets import write_hear_tasks
from skaudioemb.hear import Protocol, find_tasks, run_benchmark
from skaudioemb.hear.evaluation import Evaluation

STAGES = ("embedding", "fitting", "scoring", "total")


def make_models():
    """Return the embedders by name."""
    logmel = LogMel(hop=0.05, pooling="mean-std")
    crepe = CREPE("tiny", hop=0.05)
    both = Fusion([("crepe", crepe), ("logmel", LogMel(hop=0.05))])
    return {"logmel": logmel, "crepe": crepe, "both": both}


def run_stage(embedder, task, protocol):
    """Return seconds and the test score of a prediction stage, and its evaluation."""
    evaluation = Evaluation(embedder, task, protocol)
    split = evaluation.run("test")
    seconds = split.seconds["fitting"] + split.seconds["scoring"]
    return seconds, split.scores[task.primary], evaluation


def run_loop(evaluation, protocol):
    """Return seconds and test score of heareval's loop on the same embeddings."""
    from benchmarks import heareval_loop
    from benchmarks.probes import RowByRow

    task, rows = evaluation.task, evaluation.rows("test")
    multilabel = task.prediction_type == "multilabel"
    Y = rows.y if multilabel else np.eye(len(task.labels))[rows.y]
    scores = heareval_loop.clip_scores
    if task.embedding_type == "event":
        valid = rows.clips_of("valid")
        times = [1000 * own for own in valid.times]
        scores = heareval_loop.EventScores(times, valid.events, task.labels)
    start = time.perf_counter()
    torch.manual_seed(protocol.seed)
    best = None
    with tempfile.TemporaryDirectory() as folder:
        for point in protocol.points(task):
            train, valid = (
                RowByRow(rows.X[rows.split == name], Y[rows.split == name])
                for name in ("train", "valid")
            )
            module = heareval_loop.Prediction(
                *(rows.X.shape[1], Y.shape[1]),
                (point["hidden_layers"], point["init"], point["lr"]),
                *(multilabel, scores),
            )
            fitted = heareval_loop.fit(
                module, train, valid, point["check_every"], folder
            )
            if best is None or fitted.score > best.score:
                best = fitted
    seconds = time.perf_counter() - start
    probe = Predicting(best.module)
    predictions, _ = rows.predictions(
        probe, "test", "valid", evaluation.scorer(rows, "valid")
    )
    return seconds, predictions.score(task.primary)


class Predicting:
    """A module of heareval's loop as the rest of the stage sees a probe.

    Parameters
    ----------
    module : Prediction
    """

    def __init__(self, module):
        self.module = module
        n_outputs = module.net.projection.out_features
        self.classes_ = np.arange(n_outputs)
        if module.multilabel:
            self.classes_ = np.tile([0, 1], (n_outputs, 1))

    def predict_proba(self, X):
        with torch.no_grad():
            return self.module.probabilities(torch.from_numpy(X)).numpy()


def compare_stages(tasks):
    embedder = make_models()["logmel"]
    lines = []
    for task in tasks:
        if task.is_kfold:
            continue
        protocol = Protocol.heareval(keep_probes=False)
        ours, score, evaluation = run_stage(embedder, task, protocol)
        theirs, reference = run_loop(evaluation, protocol)
        lines.append(
            (
                task.name,
                f"{theirs:.1f}",
                f"{ours:.1f}",
                f"{theirs / ours:.1f}",
                f"{reference:.3f}",
                f"{score:.3f}",
            )
        )
    header = ("", "loop, s", "ours, s", "ratio", "score, loop", "score, ours")
    print_table("prediction stage", header, lines, ("torch", "pytorch-lightning"))


def main(more, n_points, loop):
    with tempfile.TemporaryDirectory() as folder:
        write_hear_tasks(folder)
        tasks = find_tasks(folder) + (find_tasks(more, extract=True) if more else [])
        if loop:
            compare_stages(tasks)
            return
        protocol = Protocol(n_points=n_points)
        done = run_benchmark(make_models(), tasks, f"{folder}/out", protocol=protocol)
    lines = [
        (r.embedder, r.task, *(f"{r.seconds[stage]:.1f}" for stage in STAGES))
        for r in done.results
    ]
    print_table("seconds", ("embedder", "task", *STAGES), lines)
    print(f"outside of embedding and fitting: {100 * done.overhead:.2f} %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", help="a folder with more tasks")
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--loop", action="store_true", help="compare with heareval")
    options = parser.parse_args()
    main(options.tasks, options.points, options.loop)
