"""
Pretrain an encoder on your own recordings
==========================================

BYOL trains an encoder of spectrograms without labels: two distorted views of one
sound are to get the same embedding. This example pretrains a small encoder on the
recordings of some speakers and probes it on others, beside the same encoder with the
random weights that it began with.

Without recordings the sounds are made up, so that it runs in seconds. To run it on
recordings, name a folder of ``<label>_<speaker>_<number>.wav``. A few hundred of a
handful of speakers are too few: what is common to two views of a clip is then mostly
who speaks, and the probe may lose by it::

    python examples/plot_pretraining.py recordings
"""

# %%
# Recordings, labels, and who is heard
# ------------------------------------

import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skaudioemb import BYOLS
from skaudioemb.datasets import make_notes
from skaudioemb.encoders.byol import make_byol_encoder

if len(sys.argv) > 1:
    X = sorted(str(path) for path in Path(sys.argv[1]).glob("*_*_*.wav"))
    y, speakers = np.transpose([Path(path).name.split("_")[:2] for path in X])
    settings = {"n_features": 256, "batch_size": 64, "max_epochs": 20}
    seeds = range(3)
else:
    notes = make_notes(n_clips=96, pitches=range(60, 66), n_timbres=6, random_state=0)
    # Which instrument plays; notes stand for speakers, as views may change a pitch.
    X, y, speakers = notes.data, notes.timbre, notes.midi
    settings = {"n_features": 32, "batch_size": 16, "max_epochs": 3}
    settings |= {"projection_size": 16, "hidden_size": 64}
    seeds = range(2)
print(f"{len(X)} recordings, {len(set(y))} labels, {len(set(speakers))} speakers")

# %%
# Two encoders
# ------------
# ``fit`` pretrains where there are no ``weights``. With weights, here random ones, it
# learns no more than the mean and the deviation of the spectrograms.

settings |= {"crop_seconds": 0.5, "lr": 1e-3, "device": "cpu"}


def make_random(seed, folder):
    """Return the embedder with random weights."""
    torch.manual_seed(seed)
    path = Path(folder) / f"random-{seed}.pth"
    encoder = make_byol_encoder("audiontt2020", settings["n_features"])
    torch.save(encoder.state_dict(), path)
    return BYOLS(weights=path)


def probe(embedder, train, test):
    """Score a linear probe on held-out speakers; return the fitted embedder too."""
    train_clips, test_clips = ([X[i] for i in rows] for rows in (train, test))
    model = make_pipeline(
        embedder, StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)
    )
    model.fit(train_clips, y[train])
    return model.score(test_clips, y[test]), model[0]


# %%
# Held-out speakers
# -----------------
# A third of the speakers is heard in no training, neither of encoder nor of probe.

scores, histories = [], []
with tempfile.TemporaryDirectory() as temporary:
    for seed in seeds:
        splitter = GroupShuffleSplit(1, test_size=1 / 3, random_state=seed)
        train, test = next(splitter.split(X, y, speakers))
        random, _ = probe(make_random(seed, temporary), train, test)
        learned, byol = probe(BYOLS(random_state=seed, **settings), train, test)
        scores.append((random, learned))
        histories.append(byol.history_)
        print(f"seed {seed}: random {random:.3f}, pretrained {learned:.3f}")
random, learned = np.mean(scores, axis=0)
print(f"mean: random {random:.3f}, pretrained {learned:.3f}")

# %%
# How the training went
# ---------------------
# The loss falls. The second figure is the spread of the projections: near zero it
# would mean that all sounds get the same embedding, a collapse.

figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for axis, name in zip(axes, ("loss", "projection_std"), strict=True):
    for seed, history in zip(seeds, histories, strict=True):
        axis.plot([epoch[name] for epoch in history], label=f"seed {seed}")
    axis.set(xlabel="epoch", ylabel=name, ylim=(0, None))
axes[0].legend()
plt.show()
