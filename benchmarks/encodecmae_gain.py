"""What pretraining gives a small EncodecMAE: probes before and after it.

Run as ``python -m benchmarks.encodecmae_gain FOLDER [FOLDER ...]``. A folder is one
probe. It holds ``<label>_<speaker>_<number>.wav`` (the Free Spoken Digit Dataset),
``<label>/<speaker>_nohash_<number>.wav`` (Speech Commands), or a task of HEAR with
``fold*.json``, whose folds stand for speakers. For each seed a third of the speakers of
every folder is set apart; one model is pretrained on the recordings of all others,
without labels, on mel bands with random-projection targets, so that no weights are
needed. Then the words of the speakers set apart are told by a linear probe on the
embeddings of the pretrained model and of the same model with random weights. Over three
seeds every speaker is set apart once.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.timing import print_table
from skaudioemb import EncodecMAE

N_SEEDS = 3
POOLINGS = ("mean", "mean+max")


def recordings_in(folder, n_least):
    """Return paths, labels and speakers of the labels with enough recordings.

    Parameters
    ----------
    folder : Path
    n_least : int
        Recordings that a label needs, to be told from few of them.

    Returns
    -------
    paths, labels, speakers : ndarray of shape (n_recordings,)
    """
    paths, labels, speakers = (
        np.array(part) for part in zip(*_rows_of(folder), strict=True)
    )
    names, counts = np.unique(labels, return_counts=True)
    kept = np.isin(labels, names[counts >= n_least])
    kept &= ~np.char.startswith(labels.astype(str), "_")
    return paths[kept], labels[kept], speakers[kept]


def _rows_of(folder):
    """Yield path, label and speaker of each recording."""
    folds = sorted(folder.glob("fold*.json"))
    for fold in folds:
        for name, (label,) in json.loads(fold.read_text()).items():
            yield next(folder.rglob(f"{fold.stem}/{name}")), str(label), fold.stem
    for path in [] if folds else sorted(folder.rglob("*.wav")):
        if "_nohash_" in path.name:
            yield path, path.parent.name, path.name.split("_")[0]
        elif path.name.count("_") == 2:
            label, speaker, _ = path.name.split("_")
            yield path, label, speaker


def split(recordings, seed):
    """Return the places of training and test recordings, speakers apart."""
    paths, labels, speakers = recordings
    folds = GroupKFold(N_SEEDS, shuffle=True, random_state=0)
    return list(folds.split(paths, labels, speakers))[seed]


def score(embedder, recordings, train, test):
    """Return the accuracy of a linear probe on the test recordings."""
    paths, labels, _ = recordings
    embeddings = embedder.transform(paths)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    probe.fit(embeddings[train], labels[train])
    return probe.score(embeddings[test], labels[test])


def run(embedder, probes, seed):
    """Return rows of seed, probe and accuracies; print them as they come.

    Parameters
    ----------
    embedder : EncodecMAE
    probes : dict of str to tuple
        From :func:`recordings_in`, by name.
    seed : int

    Returns
    -------
    rows : list of (str, float, float)
        Name of the probe, accuracy with random weights, and after pretraining.
    """
    splits = {name: split(probe, seed) for name, probe in probes.items()}
    heard = [probes[name][0][train] for name, (train, _) in splits.items()]
    started = time.perf_counter()
    learned = clone(embedder).set_params(random_state=seed)
    learned.fit(np.concatenate(heard))
    seconds = time.perf_counter() - started
    random = clone(embedder).set_params(random_state=seed, max_epochs=0)
    first, last = (learned.history_[i]["loss"] for i in (0, -1))
    print(f"seed {seed}: {seconds:.0f} s, loss {first:.3f} to {last:.3f}", flush=True)
    rows = []
    for name, probe in probes.items():
        for pooling in POOLINGS:
            models = (m.set_params(pooling=pooling) for m in (random, learned))
            scores = [score(model, probe, *splits[name]) for model in models]
            rows.append((f"{name}, {pooling}", *scores))
            print(f"  {name}, {pooling}: random {scores[0]:.3f}", end=", ")
            print(f"pretrained {scores[1]:.3f}", flush=True)
    return rows


def make_embedder(arguments):
    """Return the model to pretrain."""
    size = {
        **{"n_layers": arguments.layers, "n_features": arguments.width},
        **{"n_heads": 4, "n_hidden": 4 * arguments.width},
    }
    return EncodecMAE(
        None,
        size=size,
        front_end="mel",
        targets="mel",
        n_codebooks=4,
        n_codes=256,
        n_decoder_layers=1,
        mask_share=0.6,
        mask_length=6,
        crop_seconds=0.5,
        max_epochs=arguments.epochs,
        batch_size=64,
        lr=arguments.lr,
        self_train=arguments.self_train,
        n_clusters=64,
        device="cpu",
        n_threads=1,
    )


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=N_SEEDS)
    parser.add_argument("--self-train", action="store_true")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--least", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    probes = {f.name: recordings_in(f, arguments.least) for f in arguments.folders}
    with tempfile.TemporaryDirectory() as memory:
        embedder = make_embedder(arguments).set_params(memory=memory)
        seeds = range(arguments.seeds)
        rows = [row for seed in seeds for row in run(embedder, probes, seed)]
    table = []
    for name in dict.fromkeys(row[0] for row in rows):
        random, learned = np.mean([row[1:] for row in rows if row[0] == name], axis=0)
        gain = learned - random
        table.append((name, f"{random:.3f}", f"{learned:.3f}", f"{gain:+.3f}"))
    title = f"Accuracy on speakers set apart, means of {arguments.seeds} seeds"
    print_table(title, ("probe", "random", "pretrained", "gain"), table)


if __name__ == "__main__":
    main()
