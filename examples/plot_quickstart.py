"""
Quickstart: embed, fuse, search
===============================

Which pitch does a short recording hold? Two embedders look at it, a fusion merges what
they see, a probe decides, and one grid search compares the choices.
"""

# %%
# Recordings
# ----------
# Any sequence of clips will do: paths, arrays, segments of files. Here are arrays,
# notes of made-up instruments.

import tempfile

import matplotlib.pyplot as plt
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skaudioemb import CREPE, Fusion, LogMel, MLPProbe
from skaudioemb.datasets import make_notes

X, y = make_notes(n_clips=72, return_X_y=True, random_state=0)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

# %%
# Embeddings
# ----------
# An embedder is a transformer: clips in, one vector per clip out.

embeddings = CREPE("tiny", hop=0.1).fit_transform(X_train)
print(f"{len(X_train)} clips of any length became a matrix of {embeddings.shape}")

# %%
# A grid over everything
# ----------------------
# Members of a fusion and parameters of the probe are searched alike. The store that
# ``memory`` names keeps what has been embedded, so that no clip is run twice.

folder = tempfile.TemporaryDirectory()
fusion = Fusion(
    [("crepe", CREPE("tiny", hop=0.1)), ("logmel", LogMel())], memory=folder.name
)
probe = MLPProbe(hidden_units=64, batch_size=32, max_epochs=60, random_state=0)
search = GridSearchCV(
    make_pipeline(fusion, StandardScaler(), probe),
    [
        {"fusion__crepe": ["drop"], "mlpprobe__lr": [1e-2, 3e-3]},
        {"fusion__logmel": ["drop"], "mlpprobe__lr": [1e-2, 3e-3]},
        {"fusion__merge": ["concat"], "mlpprobe__lr": [1e-2, 3e-3]},
    ],
    cv=3,
).fit(X_train, y_train)
print(f"accuracy on notes never seen: {search.score(X_test, y_test):.2f}")
folder.cleanup()

# %%
# The result is scikit-learn's own.

results = search.cv_results_
features = ["LogMel"] * 2 + ["CREPE"] * 2 + ["both"] * 2
labels = [
    f"{name}, lr {params['mlpprobe__lr']:g}"
    for name, params in zip(features, results["params"], strict=True)
]
figure, axes = plt.subplots(layout="constrained")
axes.barh(labels, results["mean_test_score"], xerr=results["std_test_score"])
axes.invert_yaxis()
axes.set(xlabel="accuracy, mean ± std of 3 folds", xlim=(0, 1), title="The grid")
plt.show()
