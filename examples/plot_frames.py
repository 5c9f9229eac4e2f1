"""
Frames: embeddings over time
============================

``transform`` gives one vector per clip, ``frames`` one vector per moment, with the
time of its centre in seconds. The frames of a melody show where its notes begin.
"""

# %%
# A melody
# --------
# Six notes of one instrument, one after the other.

import matplotlib.pyplot as plt
import numpy as np

from skaudioemb import CREPE, LogMel
from skaudioemb.datasets import make_notes

pitches = ["C4", "E4", "G4", "C5", "A4", "F4"]
notes = make_notes(
    n_clips=len(pitches), pitches=pitches, n_timbres=1, noise=0.02, random_state=2
)
loud = [note / np.abs(note).max() for note in notes.data]
melody = np.concatenate(loud)
onsets = np.cumsum([0, *map(len, loud[:-1])]) / notes.sample_rate

# %%
# Frames
# ------
# Every embedder has its own rhythm: here 10 ms for log-mel bands, 20 ms for CREPE.

logmel = LogMel().frames([melody])[0]
crepe = CREPE("tiny", hop=0.02).frames([melody])[0]
print(f"LogMel: {logmel.values.shape}, CREPE: {crepe.values.shape}")

# %%
# How much the CREPE frames change
# --------------------------------
# The cosine distance between a frame and the one 40 ms later is large where the pitch
# moves and small within a note.

unit = crepe.values / np.linalg.norm(crepe.values, axis=1, keepdims=True)
change = 1 - np.sum(unit[:-2] * unit[2:], axis=1)
print(f"at onsets: {change[np.searchsorted(crepe.times, onsets[1:]) - 1].mean():.2f}")
print(f"altogether: {change.mean():.2f}")

figure, (bands, network, moves) = plt.subplots(
    3, 1, sharex=True, figsize=(8, 7), layout="constrained"
)
bands.pcolormesh(logmel.times, np.arange(logmel.values.shape[1]), logmel.values.T)
bands.set(title="LogMel", ylabel="band")
loudest = crepe.values[:, np.argsort(crepe.values.std(axis=0))[-64:]]
network.pcolormesh(crepe.times, np.arange(64), loudest.T)
network.set(title="CREPE, the 64 features that vary most", ylabel="feature")
moves.plot(crepe.times[1:-1], change)
for onset, name in zip(onsets, notes.target, strict=True):
    moves.axvline(onset, color="0.7", zorder=0)
    moves.text(onset, change.max(), f" {name}", va="top")
moves.set(title="Change of the CREPE frames", xlabel="time in seconds")
plt.show()
