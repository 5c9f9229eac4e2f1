"""What pretraining gives a small encoder: probes with its weights and with random ones.

Run as ``python -m benchmarks.pretraining_gain FOLDER``. The folder holds
``<label>_<speaker>_<number>.wav``, as the Free Spoken Digit Dataset does. The speakers
are cut in two halves. An encoder is pretrained without labels on one half and on what
``--also`` names, a folder of any recordings, and probed with recordings of the other
half, whose speakers it never heard; then the halves change places. Beside it stands the
same encoder with the random weights that its training began with.

There are three probes, all logistic regressions. "speaker": who of the speakers set
apart it is, from one labelled recording of each. "label": which label it is, from five
recordings of each by the speakers set apart. "label, from others": the same, from all
recordings of the speakers that were heard. The first two are means of 60 random draws.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks.timing import print_table
from skaudioemb import BYOLS, EncodecMAE, audio

N_DRAWS = 60
EPOCHS = {"byols": 25, "encodecmae": 50}
RATE = 16000


def read_folder(folder):
    """Return paths, labels and speakers of a folder's recordings."""
    paths = sorted(Path(folder).glob("*_*_*.wav"))
    labels, speakers = np.transpose([path.name.split("_")[:2] for path in paths])
    return np.array([str(path) for path in paths]), labels, speakers


def join(paths, speakers, seed):
    """Return as many recordings, each of several of one speaker's, about 2.5 s long.

    Crops of single words would show by their zeros how long the word is, which is
    the easiest that BYOL can learn.
    """
    rng = np.random.default_rng(seed)
    words = [audio.resample(audio.load(path, RATE), RATE) for path in paths]
    joined = []
    for speaker in rng.choice(speakers, len(speakers)):
        own = rng.permutation(np.flatnonzero(speakers == speaker))[:6]
        joined.append(np.concatenate([words[i] for i in own])[: int(2.5 * RATE)])
    return joined


def scaled(embeddings, apart):
    """Return embeddings less their mean, divided by one number.

    So no model gains by how large its outputs are. Features are not scaled one by one:
    what hardly varies would count as much as all else.
    """
    known = embeddings[~apart]
    return (embeddings - known.mean(axis=0)) / known.std()


def few_shots(embeddings, labels, n_each):
    """Return the mean accuracy of probes that know a few recordings of each label."""
    scores = []
    for draw in range(N_DRAWS):
        order = np.random.default_rng(draw).permutation(len(labels))
        ranks = np.zeros(len(labels), int)
        for label in np.unique(labels):
            own = order[labels[order] == label]
            ranks[own] = np.arange(len(own))
        known = ranks < n_each
        probe = LogisticRegression(max_iter=1000).fit(embeddings[known], labels[known])
        scores.append(probe.score(embeddings[~known], labels[~known]))
    return np.mean(scores)


def probe_all(embedder, folder, apart):
    """Return the accuracy of each probe."""
    paths, labels, speakers = folder
    embeddings = scaled(embedder.transform(paths), apart)
    others = LogisticRegression(max_iter=1000)
    others.fit(embeddings[~apart], labels[~apart])
    return {
        "speaker, 1 recording each": few_shots(embeddings[apart], speakers[apart], 1),
        "label, 5 recordings each": few_shots(embeddings[apart], labels[apart], 5),
        "label, from others": others.score(embeddings[apart], labels[apart]),
    }


def make_embedder(arguments, seed, max_epochs):
    """Return a small embedder that learns from recordings alone."""
    common = {
        "max_epochs": max_epochs,
        "batch_size": 64,
        "random_state": seed,
        "device": "cpu",
        "n_threads": 1,
    }
    if arguments.model == "byols":
        return BYOLS(
            arguments.encoder,
            n_features=arguments.width,
            crop_seconds=0.95,
            projection_size=128,
            hidden_size=1024,
            **common,
        )
    width = arguments.width or 128
    return EncodecMAE(
        None,
        size={"n_layers": 3, "n_features": width, "n_heads": 4, "n_hidden": 4 * width},
        front_end="mel",
        targets="mel",
        n_codebooks=4,
        n_codes=256,
        n_decoder_layers=1,
        mask_share=0.6,
        mask_length=6,
        crop_seconds=0.5,
        lr=1e-3,
        self_train=arguments.self_train,
        n_clusters=64,
        **common,
    )


def run(arguments, folder, also, seed, apart):
    """Return the accuracies with random and with pretrained weights."""
    paths, _, speakers = (column[~apart] for column in folder)
    heard = list(paths)
    if arguments.model == "byols":
        heard = join(paths, speakers, seed)
    heard += also
    scores = []
    for max_epochs in (0, arguments.epochs):
        started = time.perf_counter()
        embedder = make_embedder(arguments, seed, max_epochs).fit(heard)
        seconds = time.perf_counter() - started
        scores.append(probe_all(embedder, folder, apart))
    print(f"seed {seed}, {len(heard)} recordings, {seconds:.0f} s:", end=" ")
    pairs = zip(*(score.values() for score in scores), strict=True)
    parts = (
        f"{name} {a:.3f} {b:.3f}" for name, (a, b) in zip(scores[0], pairs, strict=True)
    )
    print("; ".join(parts), flush=True)
    return scores


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--also", type=Path)
    parser.add_argument("--model", choices=sorted(EPOCHS), default="byols")
    parser.add_argument("--encoder", default="audiontt2022", help="of byols")
    parser.add_argument("--epochs", type=int, help=f"default: {EPOCHS}")
    parser.add_argument("--width", type=int, help="default: as published, 128")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--self-train", action="store_true")
    arguments = parser.parse_args()
    if arguments.epochs is None:
        arguments.epochs = EPOCHS[arguments.model]
    torch.set_num_threads(1)
    folder = read_folder(arguments.folder)
    also = [] if arguments.also is None else sorted(arguments.also.rglob("*.wav"))
    names = np.unique(folder[2])
    first = np.isin(folder[2], names[: len(names) // 2])
    rows = []
    for seed in range(arguments.seeds):
        halves = [run(arguments, folder, also, seed, a) for a in (first, ~first)]
        for name in halves[0][0]:
            means = [np.mean([half[i][name] for half in halves]) for i in (0, 1)]
            rows.append((name, seed, *means))
    table = []
    for name in dict.fromkeys(row[0] for row in rows):
        own = [row[1:] for row in rows if row[0] == name]
        own.append(("mean", *np.mean([row[1:] for row in own], axis=0)))
        table += [
            (name, str(s), f"{a:.3f}", f"{b:.3f}", f"{b - a:+.3f}") for s, a, b in own
        ]
    title = f"{arguments.model}: accuracy on recordings of speakers never heard"
    print_table(title, ("probe", "seed", "random", "pretrained", "gain"), table)


if __name__ == "__main__":
    main()
