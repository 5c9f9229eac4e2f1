"""Searches over probes: heareval's loop and GridSearchCV against ProbeSearchCV.

Run ``python -m benchmarks.probes``. The eight grid points that HEAR runs are trained on
made-up embeddings with early stopping on validation rows, and compared on test rows.

"heareval's loop" re-enacts its prediction stage: one fit after the other, row-wise
collated batches of 1024 that are never shuffled, every third epoch a validation with
two forward passes, outputs gathered row by row, and all scores of the task, and a
checkpoint file of weights and Adam's state whenever the score improves; once on PyTorch
Lightning as heareval does it (left out without ``pip install pytorch-lightning``), and
once in plain torch, without anything that Lightning adds. All alternatives stop by the
same rule.
"""

import argparse
import tempfile
import time
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from sklearn.datasets import make_classification
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GridSearchCV
from torch.utils.data import DataLoader, Dataset

from benchmarks.timing import print_table
from skaudioemb.probes.mlp import MLPProbe
from skaudioemb.probes.network import ProbeNetwork
from skaudioemb.probes.search import ProbeSearchCV

# Layers, initialisation and learning rate of the default grid's first eight points.
POINTS = (
    (1, "xavier_normal", 1e-4),
    (2, "xavier_uniform", 1e-3),
    (1, "xavier_normal", 1e-3),
    (1, "xavier_normal", 3.2e-4),
    (2, "xavier_normal", 3.2e-4),
    (2, "xavier_uniform", 3.2e-4),
    (2, "xavier_normal", 3.2e-3),
    (2, "xavier_uniform", 3.2e-3),
)
BATCH_SIZE, CHECK_EVERY, PATIENCE, MAX_EPOCHS = 1024, 3, 20, 500
PLAIN, GRID, STACKED = "its loop, plain torch", "GridSearchCV", "ProbeSearchCV"


def make_task(n_train, n_features, n_classes, separation, seed=0):
    """Return float32 embeddings, codes, and the rows of training, validation, test."""
    n_held = n_train // 4
    X, y = make_classification(
        n_samples=n_train + 2 * n_held,
        n_features=n_features,
        n_informative=n_features // 4,
        n_classes=n_classes,
        n_clusters_per_class=1,
        class_sep=separation,
        random_state=seed,
    )
    rows = np.split(np.arange(len(X)), [n_train, n_train + n_held])
    return X.astype(np.float32), y, rows


class RowByRow(Dataset):
    """Rows as heareval's loader meets them: one at a time, with an indicator row."""

    def __init__(self, X, Y):
        self.X = torch.stack([torch.from_numpy(row) for row in X])
        self.Y = torch.from_numpy(Y.astype(np.float32))

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.Y[i]


def plain_fit(point, train, valid, n_classes, checkpoint):
    """Train one grid point; return its best validation score and its network."""
    layers, init, lr = point
    network = ProbeNetwork(train.X.shape[1], n_classes, layers, 1024, 0.1, init)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    criterion = torch.nn.CrossEntropyLoss()
    best_score, misses = -np.inf, 0
    for epoch in range(MAX_EPOCHS):
        network.train()
        for X, Y in DataLoader(train, BATCH_SIZE):
            optimizer.zero_grad()
            criterion(network(X), Y.argmax(dim=1)).backward()
            optimizer.step()
        if (epoch + 1) % CHECK_EVERY:
            continue
        score = plain_score(network.eval(), valid, criterion)
        misses = 0 if score > best_score else misses + 1
        if score > best_score:
            best_score = score
            state = {"network": network.state_dict(), "adam": optimizer.state_dict()}
            torch.save(state, checkpoint)
        if misses >= PATIENCE:
            break
    network.load_state_dict(torch.load(checkpoint)["network"])
    return best_score, epoch + 1, network.eval()


@torch.no_grad()
def plain_score(network, rows, criterion):
    """Return the accuracy; compute the other scores of such a task too."""
    probabilities, targets = [], []
    for X, Y in DataLoader(rows, BATCH_SIZE):
        logits = network(X)
        criterion(logits, Y.argmax(dim=1))
        probabilities += list(torch.softmax(network(X), dim=1))
        targets += list(Y)
    probabilities = torch.stack(probabilities).numpy()
    targets = torch.stack(targets).numpy()
    average_precision_score(targets, probabilities, average="macro")
    # Both the area and the sensitivity index are made of it.
    for _ in range(2):
        roc_auc_score(targets, probabilities, average=None)
    return np.mean(probabilities.argmax(axis=1) == targets.argmax(axis=1))


def run_plain(X, y, rows, seed):
    """Return validation scores, test scores and epochs, one after the other."""

    def fit(point, train, valid, folder):
        path = f"{folder}/best.ckpt"
        return plain_fit(point, train, valid, y.max() + 1, path)

    return run_loop(fit, X, y, rows, seed)


def run_lightning(X, y, rows, seed):
    """Return the same, on Lightning."""
    from benchmarks import heareval_loop

    def fit(point, train, valid, folder):
        module = heareval_loop.Prediction(
            *(X.shape[1], y.max() + 1, point, False, heareval_loop.clip_scores)
        )
        found = heareval_loop.fit(module, train, valid, CHECK_EVERY, folder)
        return found.score, found.n_epochs, found.module.net

    return run_loop(fit, X, y, rows, seed)


def run_loop(fit, X, y, rows, seed):
    torch.manual_seed(seed)
    Y = np.eye(y.max() + 1)[y]
    train, valid, test = ((X[part], Y[part]) for part in rows)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for point in POINTS:
            # heareval builds its rows anew for every point.
            made = RowByRow(*train), RowByRow(*valid)
            score, n_epochs, network = fit(point, *made, folder)
            with torch.no_grad():
                outputs = network(torch.from_numpy(test[0])).argmax(dim=1).numpy()
            found.append((score, np.mean(outputs == test[1].argmax(axis=1)), n_epochs))
    return np.transpose(found)


def scores_of(probe, X, y):
    """Return what the search keeps of a fitted probe."""
    return {
        "valid": probe.best_score_,
        "test": probe.score(X, y),
        "epochs": probe.n_epochs_,
    }


def run_search(search_class, X, y, rows, seed):
    """Return validation scores, test scores and epochs of a search."""
    train, valid, test = rows
    probe = MLPProbe(
        check_every=CHECK_EVERY,
        patience=PATIENCE,
        max_epochs=MAX_EPOCHS,
        validation=(X[valid], y[valid]),
        shuffle=False,
        ties="first",
        random_state=seed,
    )
    folds = [(train, test)]
    search = search_class(
        probe, grid_of_points(), cv=folds, scoring=scores_of, refit=False
    )
    found = search.fit(X, y).cv_results_
    return np.stack([found[f"mean_test_{key}"] for key in ("valid", "test", "epochs")])


def grid_of_points():
    """Return ``POINTS`` as a list of grids."""
    names = ("hidden_layers", "init", "lr")
    return [
        {name: [value] for name, value in zip(names, point, strict=True)}
        for point in POINTS
    ]


def compare(calls, task, seeds):
    """Return rows of the table: seconds, ratios and scores of the alternatives.

    Parameters
    ----------
    calls : dict of str to callable
        Each takes the items of ``task`` and a seed, and returns validation scores,
        test scores and epochs of all points. Ratios are to the first.
    task : tuple
    seeds : int
    """
    seconds = {name: [] for name in calls}
    found = {name: [] for name in calls}
    for seed in range(seeds):
        for name, call in calls.items():
            start = time.perf_counter()
            found[name].append(call(*task, seed))
            seconds[name].append(time.perf_counter() - start)
    seconds = {name: np.median(values) for name, values in seconds.items()}
    lines = []
    for name in calls:
        valid, test, epochs = np.moveaxis(np.stack(found[name]), 1, 0)
        chosen = test[np.arange(seeds), valid.argmax(axis=1)]
        ratios = [slower / seconds[name] for slower in seconds.values()]
        lines.append(
            (
                name,
                f"{seconds[name]:.1f}",
                " / ".join(f"{ratio:.1f}" for ratio in ratios[:-1]),
                f"{epochs.sum(axis=1).mean():.0f}",
                f"{valid.mean():.3f}",
                f"{chosen.mean():.3f} ± {chosen.std():.3f}",
            )
        )
    return lines


HEADER = ("", "seconds", "ratios", "epochs", "valid, all points", "test, chosen")


def main(seeds, large):
    tasks = {"480 x 256, 10 classes": (make_task(480, 256, 10, 1.0), seeds)}
    if large:
        tasks["5000 x 768, 50 classes"] = (make_task(5000, 768, 50, 1.0), 1)
    calls = {
        PLAIN: run_plain,
        GRID: partial(run_search, GridSearchCV),
        STACKED: partial(run_search, ProbeSearchCV),
    }
    packages = ["torch", "skorch"]
    if find_spec("pytorch_lightning"):
        calls = {"heareval's loop": run_lightning, **calls}
        packages.append("pytorch-lightning")
    for title, (task, n_seeds) in tasks.items():
        print_table(title, HEADER, compare(calls, task, n_seeds), packages)
        print("Ratios are to the rows in their order.\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--large", action="store_true", help="a quarter of an hour more"
    )
    options = parser.parse_args()
    main(options.seeds, options.large)
