"""
Layers: which one, the mean, or learned weights
===============================================

A speech model has a dozen layers or more, and which one serves a task best is seldom
the last. This example scores each of them, their mean, and a probe that learns how
much each counts, with one forward per clip.
"""

# %%
# A model
# -------
# So that it runs without a network, this example saves a small HuBERT with random
# weights and loads that. Its numbers show how the tools work and say nothing about
# HuBERT. With a network, write ``HuBERT("facebook/hubert-base-ls960", ...)`` and
# ``n_layers = 13``: the embedding output and 12 blocks.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import transformers
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skaudioemb import HuBERT, LayerWeightedProbe, MLPProbe
from skaudioemb.datasets import make_notes
from skaudioemb.devices import tally

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
config = transformers.HubertConfig(
    hidden_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=128,
    conv_dim=(32,) * 7,
    num_conv_pos_embeddings=32,
    num_conv_pos_embedding_groups=4,
    feat_extract_norm="layer",
    do_stable_layer_norm=True,
    initializer_range=0.2,
)
transformers.utils.logging.disable_progress_bar()
torch.manual_seed(0)
transformers.HubertModel(config).save_pretrained(folder / "hubert")
n_layers = config.num_hidden_layers + 1

# %%
# Recordings
# ----------
# Notes of six made-up instruments; the task is to tell who plays.

notes = make_notes(n_clips=288, pitches=["C3", "G3", "E4"], noise=0.05, random_state=0)
X, y = notes.data, notes.timbre

# %%
# One forward per clip
# --------------------
# Whatever ``layers`` asks for, the store that ``memory`` names keeps every layer of a
# clip when the clip is first run.

hubert = HuBERT(folder / "hubert", memory=folder / "store")
settings = {"hidden_units": 64, "lr": 1e-2, "max_epochs": 60, "random_state": 0}


def make_model(layers, probe):
    """Return a pipeline from clips to labels."""
    embedder = HuBERT(**{**hubert.get_params(), "layers": layers})
    return make_pipeline(embedder, StandardScaler(), probe)


weighted = make_model("all", LayerWeightedProbe(n_layers, layer_lr=0.05, **settings))
models = {
    **{str(i): make_model(i, MLPProbe(**settings)) for i in range(n_layers)},
    "mean": make_model("mean", MLPProbe(**settings)),
    "learned": weighted,
}
before = tally()
scores = {name: cross_val_score(model, X, y, cv=3) for name, model in models.items()}
weights = weighted.fit(X, y)[-1].layer_weights_
print(f"{len(models)} models in 3 folds, {len(X)} clips")
print(f"clips run through HuBERT: {tally().run - before.run}")
temporary.cleanup()

# %%
# Score against layer
# -------------------
# A layer that is chosen by its score here is chosen on the test folds: for a fair
# number put ``layers`` into the grid of a nested search. The learned weights need none,
# as they see training rows only.

numbers = np.arange(n_layers)
means = {name: values.mean() for name, values in scores.items()}
single = [scores[str(i)] for i in numbers]
for name, mean in means.items():
    print(f"{name:>8}: {mean:.2f}")

figure, (top, bottom) = plt.subplots(2, 1, sharex=True, layout="constrained")
top.errorbar(
    numbers, np.mean(single, axis=1), np.std(single, axis=1), marker="o", label="one"
)
top.axhline(means["mean"], color="C1", label="mean")
top.axhline(means["learned"], color="C2", label="learned weights")
top.set(ylabel="accuracy", title="Scores, mean ± std of 3 folds")
top.legend(title="layers")

# %%
# The learned weights
# -------------------
# They start equal. The scaler puts the layers on one scale, so that their weights can
# be compared. Layers that tell the same can share weight in many ways, all as good:
# read them as a tendency, not as the score of a layer.

bottom.bar(numbers, weights, color="C2")
bottom.axhline(1 / n_layers, color="0.5", linestyle="--")
bottom.set(xlabel="layer, 0 is the embedding output", ylabel="weight")
plt.show()
