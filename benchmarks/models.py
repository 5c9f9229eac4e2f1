"""Random-weight checkpoints of real size, and the clips to run them on."""

import numpy as np
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

SAMPLE_RATE = 16000
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}


def save_wav2vec2(folder, **config):
    """Save a random wav2vec 2.0, of base size unless ``config`` says otherwise."""
    torch.manual_seed(0)
    Wav2Vec2Model(Wav2Vec2Config(**config)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)


def noise_clips(n_clips, shortest, longest):
    """Return clips of random lengths, in seconds, in random order."""
    rng = np.random.default_rng(0)
    lengths = rng.uniform(shortest, longest, n_clips) * SAMPLE_RATE
    return [rng.normal(0, 0.1, int(length)).astype(np.float32) for length in lengths]
