"""Random-weight checkpoints of real size, and the clips to run them on."""

import numpy as np
import torch
import transformers

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
XLARGE = {
    **LARGE,
    "hidden_size": 1280,
    "num_hidden_layers": 48,
    "intermediate_size": 5120,
}
# transformers' classes by those of ours.
_CLASSES = {"Wav2Vec2": "Wav2Vec2", "HuBERT": "Hubert", "WavLM": "WavLM"}


def save_speech_model(folder, kind="Wav2Vec2", **config):
    """Save a random model of a class of ours, of base size unless told otherwise."""
    name = _CLASSES[kind]
    torch.manual_seed(0)
    configuration = getattr(transformers, f"{name}Config")(**config)
    getattr(transformers, f"{name}Model")(configuration).save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)
    extractor.save_pretrained(folder)


def noise_clips(n_clips, shortest, longest):
    """Return clips of random lengths, in seconds, in random order."""
    rng = np.random.default_rng(0)
    lengths = rng.uniform(shortest, longest, n_clips) * SAMPLE_RATE
    return [rng.normal(0, 0.1, int(length)).astype(np.float32) for length in lengths]
