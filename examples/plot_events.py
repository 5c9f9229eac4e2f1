"""
Sound events: what is heard, and when
=====================================

A detector is a probe that looks at every frame of an embedder. It is trained on lists
of events, with labels and times in seconds, and gives such lists for new clips.
"""

# %%
# Recordings with events
# ----------------------
# In these clips up to six sounds begin at random, and different ones overlap.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skaudioemb import CREPE, EventDetector, Fusion, LogMel, MLPProbe
from skaudioemb.datasets import make_events
from skaudioemb.hear.scores import event_scores

events = make_events(60, random_state=0)
X_train, X_test = events.data[:45], events.data[45:]
y_train, y_test = events.target[:45], events.target[45:]
for label, start, end in y_train[0]:
    print(f"{label:6} {start:.2f} s to {end:.2f} s")

# %%
# Train a detector
# ----------------
# A fifth of the clips is held out. On them training is stopped, and then every
# post-processing of the grid is tried on the same probabilities: how long the median
# filter is, how sure the probe has to be, and how short an event may be.

embedder = Fusion([("mel", LogMel(hop=0.025)), ("pitch", CREPE("tiny", hop=0.05))])
probe = MLPProbe(hidden_units=128, lr=3e-3, max_epochs=60, random_state=0)
detector = EventDetector(
    embedder,
    make_pipeline(StandardScaler(), probe),
    validation=0.2,
    postprocessing_grid={
        "median_filter": [0.0, 0.1, 0.15, 0.25],
        "min_duration": [0.05, 0.125, 0.25],
        "threshold": [0.3, 0.5, 0.7],
    },
    random_state=0,
).fit(X_train, y_train)
print(detector.postprocessing_)

tried = detector.postprocessing_scores_.values()
print(f"onset F-measures on the validation clips: {min(tried):.2f} to {max(tried):.2f}")

# %%
# How good is it?
# ---------------
# ``score`` is the F-measure of onsets that are found within 200 ms.

found = detector.predict(X_test)
print(f"onset F-measure on new clips: {detector.score(X_test, y_test):.2f}")
for name in events.target_names:
    only = [
        [[e for e in clip if e.label == name] for clip in y] for y in (y_test, found)
    ]
    scores = event_scores(*only)
    print(f"{name:6} precision {scores.precision:.2f}, recall {scores.recall:.2f}")

# %%
# One clip in detail
# ------------------
# The probabilities of the frames, below them what they amount to (wide) and what is
# really there (narrow).

clip = max(range(len(y_test)), key=lambda i: len(y_test[i]))
probabilities, times = detector.predict_proba([X_test[clip]])[0]
rows = {label: row for row, label in enumerate(detector.classes_)}

figure, (top, bottom) = plt.subplots(
    2, 1, sharex=True, figsize=(8, 6), layout="constrained"
)
top.pcolormesh(times, np.arange(len(rows)), probabilities.T, vmin=0, vmax=1)
top.set(title="Probabilities", yticks=range(len(rows)), yticklabels=rows)
for events_of_clip, height, colour in (
    (found[clip], 0.6, "tab:blue"),
    (y_test[clip], 0.2, "black"),
):
    for label, start, end in events_of_clip:
        bottom.barh(rows[label], end - start, height, start, color=colour)
bottom.set(title="Events", yticks=range(len(rows)), yticklabels=rows)
bottom.set(xlabel="time in seconds", ylim=(-0.5, len(rows) - 0.5))
plt.show()
