"""
Pretrain and self-train a masked autoencoder
============================================

EncodecMAE hides half of a recording's frames and learns to tell which codes they have.
Self-training goes on with clusters of its own frames as further codes. This example
pretrains a small model on mel bands, whose codes come from a random projection, so
that no weights of others are needed; then it self-trains it, and probes both beside
the random weights that they began with.

Without recordings the sounds are made up, so that it runs in seconds. To run it on
recordings, name a folder of ``<label>_<speaker>_<number>.wav``; some minutes of
speech take some minutes of one processor's time::

    python examples/plot_encodecmae.py recordings
"""

# %%
# Recordings, labels, and groups
# ------------------------------
# The made-up sounds are chirps and bursts of noise, ever another one: what one of
# them is shows in how its frames follow each other.

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skaudioemb import EncodecMAE

RATE = 16000


def make_sound(kind, rng):
    """Return half a second of one of four kinds of sound."""
    time = np.arange(RATE // 2) / RATE
    low = rng.uniform(200, 1200)
    if kind == "noise":
        sound = rng.standard_normal(len(time)) * (np.sin(2 * np.pi * 6 * time) > 0)
    else:
        ends = {"up": (low, 3 * low), "down": (3 * low, low), "tone": (2 * low,) * 2}
        pitch = np.linspace(*ends[kind], len(time))
        sound = np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
    sound = rng.uniform(0.05, 0.4) * sound + 0.01 * rng.standard_normal(len(time))
    return sound.astype(np.float32)


if len(sys.argv) > 1:
    X = sorted(str(path) for path in Path(sys.argv[1]).glob("*_*_*.wav"))
    y, groups = np.transpose([Path(path).name.split("_")[:2] for path in X])
    settings = {"max_epochs": 50, "n_codes": 256, "mask_share": 0.6}
    width, seeds = 128, range(3)
else:
    rng = np.random.default_rng(0)
    y = np.repeat(["noise", "up", "down", "tone"], 30)
    X = [make_sound(kind, rng) for kind in y]
    groups = np.arange(len(X))
    settings = {"max_epochs": 60, "n_codes": 32}
    width, seeds = 32, range(1)
print(f"{len(X)} recordings, {len(set(y))} labels, {len(set(groups))} groups")

# %%
# Three models
# ------------
# ``fit`` pretrains where there is no checkpoint, and with ``max_epochs=0`` leaves the
# random weights. Self-training is a second stage of the same ``fit``.

size = {"n_layers": 2, "n_features": width, "n_heads": 4, "n_hidden": 4 * width}
pretrained = EncodecMAE(
    None,
    size=size,
    front_end="mel",
    targets="mel",
    n_codebooks=4,
    n_decoder_layers=1,
    mask_length=6,
    crop_seconds=0.5,
    batch_size=32,
    lr=1e-3,
    device="cpu",
    **settings,
)
models = {
    "random": clone(pretrained).set_params(max_epochs=0),
    "pretrained": pretrained,
    "self-trained": clone(pretrained).set_params(self_train=True, n_clusters=32),
}


def probe(embedder, train, test):
    """Score a linear probe on groups held out; return the fitted embedder too."""
    train_clips, test_clips = ([X[i] for i in rows] for rows in (train, test))
    model = make_pipeline(
        embedder, StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)
    )
    model.fit(train_clips, y[train])
    return model.score(test_clips, y[test]), model[0]


# %%
# Groups that are held out
# ------------------------
# A third of the speakers, or of the sounds, is heard in no training, neither of
# encoder nor of probe.

scores = {name: [] for name in models}
for seed in seeds:
    splitter = GroupShuffleSplit(1, test_size=1 / 3, random_state=seed)
    train, test = next(splitter.split(X, y, groups))
    for name, model in models.items():
        score, fitted = probe(clone(model).set_params(random_state=seed), train, test)
        scores[name].append(score)
    row = ", ".join(f"{name} {values[-1]:.3f}" for name, values in scores.items())
    print(f"seed {seed}: {row}")
print("mean:", ", ".join(f"{name} {np.mean(v):.3f}" for name, v in scores.items()))

# %%
# How the training went
# ---------------------
# Masked frames are harder to tell than visible ones, and both losses fall. When
# self-training begins, the clusters are new to the decoder.

history = fitted.history_
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for name in ("masked", "visible"):
    axis.plot([epoch[name] for epoch in history], label=f"{name} frames")
begin = sum(epoch["stage"] == 0 for epoch in history)
axis.axvline(begin - 0.5, color="gray", linestyle=":", label="self-training begins")
axis.set(xlabel="epoch", ylabel="cross-entropy", ylim=(0, None))
axis.legend()
plt.show()
