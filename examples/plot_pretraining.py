"""
Pretrain an encoder on your own recordings
==========================================

BYOL trains an encoder of spectrograms without labels: two distorted views of one
sound are to get the same embedding. This example pretrains a small encoder on the
recordings of some speakers, and asks of others, whom it never heard, who speaks when
one recording of each is known. Beside it stands the same encoder with the random
weights that it began with.

Without recordings the sounds are made up, so that it runs in seconds and shows no more
than how it is done. To run it on recordings, name a folder of
``<label>_<speaker>_<number>.wav``::

    python examples/plot_pretraining.py recordings

A few hundred recordings of a handful of speakers teach it voices. They do not teach it
words: what two views of a clip have in common is mostly who speaks, and a probe of
words loses by it.
"""

# %%
# Recordings and who is heard
# ---------------------------

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skaudioemb import BYOLS, audio
from skaudioemb.datasets import make_notes

RATE = 16000
if len(sys.argv) > 1:
    paths = sorted(Path(sys.argv[1]).glob("*_*_*.wav"))
    X = [audio.resample(audio.load(str(path), RATE), RATE) for path in paths]
    speakers = np.array([path.name.split("_")[1] for path in paths])
    settings = {"n_features": 128, "batch_size": 64, "max_epochs": 10}
    settings |= {"projection_size": 128, "hidden_size": 1024}
    seeds = range(3)
else:
    notes = make_notes(n_clips=120, pitches=range(60, 66), n_timbres=6, random_state=0)
    # Instruments stand for speakers.
    X, speakers = list(notes.data), notes.timbre
    settings = {"n_features": 32, "batch_size": 16, "max_epochs": 3}
    settings |= {"projection_size": 16, "hidden_size": 64}
    seeds = range(2)
print(f"{len(X)} recordings, {len(set(speakers))} speakers")

# %%
# Two encoders
# ------------
# ``fit`` pretrains where there are no ``weights``. With ``max_epochs=0`` it leaves the
# random weights, and learns no more than the mean and the deviation of the
# spectrograms.

settings |= {"crop_seconds": 0.95, "device": "cpu"}
models = {"random": {"max_epochs": 0}, "pretrained": {}}


def who_speaks(embeddings, speakers, n_draws=60):
    """Return the mean accuracy of probes that know one recording of each speaker."""
    scores = []
    for draw in range(n_draws):
        order = np.random.default_rng(draw).permutation(len(speakers))
        _, first = np.unique(speakers[order], return_index=True)
        known, test = order[first], np.delete(order, first)
        probe = make_pipeline(StandardScaler(), LogisticRegression())
        probe.fit(embeddings[known], speakers[known])
        scores.append(probe.score(embeddings[test], speakers[test]))
    return np.mean(scores)


# %%
# Speakers set apart
# ------------------
# Half of them is never heard in pretraining. Recordings of the others are joined to
# longer ones: crops of single words would show by the zeros around them how long a word
# is, which is the easiest to learn and of no use.


def join(names, n_recordings, seed):
    """Return recordings of 2.5 s, each of several of one of the speakers."""
    rng, joined = np.random.default_rng(seed), []
    for speaker in rng.choice(names, n_recordings):
        own = rng.permutation(np.flatnonzero(speakers == speaker))[:6]
        joined.append(np.concatenate([X[i] for i in own])[: int(2.5 * RATE)])
    return joined


scores, histories = [], []
for seed in seeds:
    names = np.random.default_rng(seed).permutation(np.unique(speakers))
    apart = np.isin(speakers, names[: len(names) // 2])
    heard = join(speakers[~apart], np.sum(~apart), seed)
    unheard = [X[i] for i in np.flatnonzero(apart)]
    row = []
    for changes in models.values():
        byol = BYOLS(**{**settings, "random_state": seed, **changes}).fit(heard)
        row.append(who_speaks(byol.transform(unheard), speakers[apart]))
    scores.append(row)
    histories.append(byol.history_)
    print(f"seed {seed}: random {row[0]:.3f}, pretrained {row[1]:.3f}")
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
