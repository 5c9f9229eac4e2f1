"""
What to pretrain on, and how: four studies
==========================================

What BYOL learns depends on what it hears, how long its crops are, what else it is to
tell, and the encoder. Elbanna et al. and Ogg studied these on thousands of hours; this
example repeats their studies with small encoders on a few minutes of recordings.

Without recordings the sounds are made up, so that it runs in seconds and shows no more
than how it is done. To run it on recordings, name two folders of
``<label>_<group>_<number>.wav``, one of speech, as the Free Spoken Digit Dataset has
it, and one of other sounds, as drums by kind and kit, and a number of seeds::

    python examples/plot_byol_studies.py digits drums 3
"""

# %%
# Recordings
# ----------
# Groups are speakers or kits. Half of them is heard in pretraining; their recordings
# are joined to longer ones, as crops of up to 2 s are to be cut from them.

import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skaudioemb import BYOLS, LogMel, audio
from skaudioemb.datasets import make_notes

RATE = 16000


def read(folder):
    """Return waveforms, labels and groups of a folder."""
    paths = sorted(Path(folder).glob("*_*_*.wav"))
    labels, groups = np.transpose([path.name.split("_")[:2] for path in paths])
    return (
        [audio.resample(audio.load(str(p), RATE), RATE) for p in paths],
        labels,
        groups,
    )


def make(rng, n_groups):
    """Return bursts of noise as `read` does; groups differ in pitch, labels in pace."""
    time_, sounds = np.arange(RATE // 2) / RATE, []
    for i in range(n_groups * 24):
        group, label = divmod(i, 24)
        pace = np.sin(2 * np.pi * (2 + 3 * (label % 4)) * time_ + rng.uniform(0, 6))
        tone = np.sin(2 * np.pi * 300 * 1.5**group * time_)
        noise = rng.standard_normal(len(time_))
        sounds.append((0.1 * (tone + noise) * (pace > 0)).astype(np.float32))
    labels = np.arange(len(sounds)) % 24 % 4
    return sounds, labels, np.repeat(np.arange(n_groups), 24)


if len(sys.argv) > 3:
    domains = {"speech": read(sys.argv[1]), "sounds": read(sys.argv[2])}
    seeds, n_draws = range(int(sys.argv[3])), 30
    settings = {"n_features": 128, "projection_size": 128, "hidden_size": 1024}
    settings |= {"max_epochs": 10, "batch_size": 64}
    encoders = ("audiontt2020", "audiontt2022", "clstm", "cvt")
else:
    notes = make_notes(n_clips=96, n_timbres=6, duration=0.5, random_state=0)
    speech = list(notes.data), notes.midi % 4, notes.timbre
    domains = {"speech": speech, "sounds": make(np.random.default_rng(0), 4)}
    seeds, n_draws = range(1), 5
    settings = {"n_features": 16, "projection_size": 16, "hidden_size": 32}
    settings |= {"max_epochs": 1, "batch_size": 16}
    encoders = ("audiontt2020",)
settings |= {"crop_seconds": 0.95, "device": "cpu", "n_threads": 1}


def halves(domain, seed):
    """Return which recordings are of groups set apart."""
    _, _, groups = domains[domain]
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    return np.isin(groups, names[: len(names) // 2])


def diet(domain, seed, n_recordings):
    """Return joined recordings of the groups that are heard, about 2.5 s each."""
    clips, _, groups = domains[domain]
    rng, heard = np.random.default_rng(seed), ~halves(domain, seed)
    joined = []
    while len(joined) < n_recordings:
        own = rng.permutation(np.flatnonzero(groups == rng.choice(groups[heard])))
        joined.append(np.concatenate([clips[i] for i in own[:6]])[: int(2.5 * RATE)])
    return joined


# %%
# Probes
# ------
# They tell labels from five recordings each, and of speech who speaks from one
# recording each, always of groups that were not heard.


def few_shots(embeddings, labels, n_each):
    """Return the mean accuracy of linear probes that know few recordings."""
    scores = []
    for draw in range(n_draws):
        order = np.random.default_rng(draw).permutation(len(labels))
        known = np.concatenate(
            [order[labels[order] == label][:n_each] for label in np.unique(labels)]
        )
        test = np.setdiff1d(order, known)
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        probe.fit(embeddings[known], labels[known])
        scores.append(probe.score(embeddings[test], labels[test]))
    return np.mean(scores)


def probe(embedder, seed):
    """Return the accuracies: speaker, word, sound."""
    scores = []
    for domain, (clips, labels, groups) in domains.items():
        apart = np.flatnonzero(halves(domain, seed))
        embeddings = embedder.transform([clips[i] for i in apart])
        if domain == "speech":
            scores.append(few_shots(embeddings, groups[apart], 1))
        scores.append(few_shots(embeddings, labels[apart], 5))
    return scores


def study(title, diets, variants):
    """Pretrain all variants with all seeds; print and return the mean accuracies."""
    print(f"{title:<28} speaker  word  sound  seconds")
    table = {}
    for name, changes in variants.items():
        scores, started = [], time.perf_counter()
        for seed in seeds:
            embedder = BYOLS(**{**settings, "random_state": seed, **changes})
            heard = [diet(d, seed, n) for d, n in diets.get(name, diets[None])]
            embedder.fit([clip for part in heard for clip in part])
            scores.append(probe(embedder, seed))
        seconds = (time.perf_counter() - started) / len(seeds)
        table[name] = np.mean(scores, axis=0)
        figures = "  ".join(f"{value:.3f}" for value in table[name])
        print(f"{name!s:<28} {figures}  {seconds:7.0f}", flush=True)
    return table


N = 400 if len(sys.argv) > 3 else 32
BOTH = [("speech", N // 2), ("sounds", N // 2)]

# %%
# Diets
# -----
# Ogg's table: as many recordings of speech, of other sounds, or half of each; and the
# encoder as it is before any training.

diets = study(
    "diet",
    {"speech": [("speech", N)], "sounds": [("sounds", N)], None: BOTH},
    {"none": {"max_epochs": 0}, "speech": {}, "sounds": {}, "both": {}},
)

# %%
# Length of crops
# ---------------
# The lengths of Elbanna et al., in seconds.

lengths = study(
    "crop", {None: BOTH}, {s: {"crop_seconds": s} for s in (0.5, 0.95, 1.425, 2.0)}
)

# %%
# Hybrid training
# ---------------
# Weights of the loss on targets made by hand and of BYOL's own. The targets here are
# mean and deviation of each mel band; ``OpenSMILE("ComParE_2016")`` is the authors'.

ratios = {"0:1": (0, 1), "1:4": (1, 4), "1:1": (1, 1), "4:1": (4, 1), "1:0": (1, 0)}
hybrids = study(
    "alpha:beta",
    {None: BOTH},
    {
        name: {
            "handcrafted": LogMel(pooling="mean-std"),
            "alpha": alpha / (alpha + beta),
            "beta": beta / (alpha + beta),
        }
        for name, (alpha, beta) in ratios.items()
    },
)

# %%
# Encoders
# --------
# Each with its random weights, and pretrained. Their widths differ as published, but
# for the first. Recurrent and deep ones take several times as long as AudioNTT.

variants = {}
for encoder in encoders:
    width = settings["n_features"] if encoder == "audiontt2020" else None
    own = {"encoder": encoder, "n_features": width}
    variants[f"{encoder}, random"] = {**own, "max_epochs": 0}
    variants[encoder] = own
networks = study("encoder", {None: BOTH}, variants)

# %%
# All of them
# -----------

tables = {"diet": diets, "crop (s)": lengths, "alpha:beta": hybrids}
figure, axes = plt.subplots(1, 4, figsize=(13, 3.5), layout="constrained", sharey=True)
for axis, (title, table) in zip(
    axes, [*tables.items(), ("encoder", networks)], strict=True
):
    for values, label in zip(
        np.transpose(list(table.values())), ("speaker", "word", "sound"), strict=True
    ):
        axis.plot([str(name) for name in table], values, "o-", label=label)
    axis.set(title=title)
    axis.tick_params("x", rotation=45)
axes[0].set(ylabel="accuracy", ylim=(0, 1))
axes[0].legend()
plt.show()
