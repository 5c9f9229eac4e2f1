"""Searches over probes: heareval's loop and GridSearchCV against ProbeSearchCV.

Run ``python -m benchmarks.probes``. The eight grid points that HEAR runs are trained on
made-up embeddings with early stopping on validation rows, and compared on test rows.

"heareval's loop" re-enacts its prediction stage: one fit after the other, row-wise
collated batches of 1024 that are never shuffled, every third epoch a validation with
two forward passes, outputs gathered row by row, and all scores of the task, and a
checkpoint file of weights and Adam's state whenever the score improves. It leaves out
what else PyTorch Lightning adds. All alternatives stop by the same rule.
"""

import argparse
import tempfile
import time
from functools import partial

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
HEAREVAL, GRID, STACKED = "heareval's loop", "GridSearchCV", "ProbeSearchCV"


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
    """Rows as heareval's loader meets them: one at a time, labels as indicators."""

    def __init__(self, X, y, n_classes):
        self.X = torch.stack([torch.from_numpy(row) for row in X])
        self.Y = torch.zeros(len(y), n_classes)
        self.Y[torch.arange(len(y)), torch.from_numpy(y)] = 1.0

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.Y[i]


def heareval_fit(point, train, valid, n_classes, checkpoint):
    """Train one grid point; return its best validation score and its network."""
    layers, init, lr = point
    train, valid = RowByRow(*train, n_classes), RowByRow(*valid, n_classes)
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
        score = heareval_score(network.eval(), valid, criterion)
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
def heareval_score(network, rows, criterion):
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


def run_heareval(X, y, rows, seed):
    """Return validation scores, test scores and epochs, one after the other."""
    torch.manual_seed(seed)
    train, valid, test = ((X[part], y[part]) for part in rows)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for point in POINTS:
            score, n_epochs, network = heareval_fit(
                point, train, valid, y.max() + 1, f"{folder}/best.ckpt"
            )
            with torch.no_grad():
                outputs = network(torch.from_numpy(test[0])).argmax(dim=1).numpy()
            found.append((score, np.mean(outputs == test[1]), n_epochs))
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
    names = ("hidden_layers", "init", "lr")
    grid = [
        {name: [value] for name, value in zip(names, point, strict=True)}
        for point in POINTS
    ]
    search = search_class(
        probe, grid, cv=[(train, test)], scoring=scores_of, refit=False
    )
    found = search.fit(X, y).cv_results_
    return np.stack([found[f"mean_test_{key}"] for key in ("valid", "test", "epochs")])


def compare(task, seeds):
    """Return rows of the table: seconds, ratios and scores of the alternatives."""
    calls = {
        HEAREVAL: run_heareval,
        GRID: partial(run_search, GridSearchCV),
        STACKED: partial(run_search, ProbeSearchCV),
    }
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
        lines.append(
            (
                name,
                f"{seconds[name]:.1f}",
                f"{seconds[HEAREVAL] / seconds[name]:.1f}",
                f"{epochs.sum(axis=1).mean():.0f}",
                f"{valid.mean():.3f}",
                f"{chosen.mean():.3f} ± {chosen.std():.3f}",
            )
        )
    return lines


def main(seeds, large):
    tasks = {"480 x 256, 10 classes": (make_task(480, 256, 10, 1.0), seeds)}
    if large:
        tasks["5000 x 768, 50 classes"] = (make_task(5000, 768, 50, 1.0), 1)
    header = ("", "seconds", "ratio", "epochs", "valid, all points", "test, chosen")
    for title, task in tasks.items():
        print_table(title, header, compare(*task), ("torch", "skorch"))
        print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--large", action="store_true", help="a quarter of an hour more"
    )
    options = parser.parse_args()
    main(options.seeds, options.large)
