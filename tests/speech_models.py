"""Tiny speech transformers, and the arithmetic of stock transformers on them."""

import numpy as np
import torch
import transformers

TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
BASE_LIKE = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
LARGE_LIKE = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
MODELS = {
    "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model),
    "hubert": (transformers.HubertConfig, transformers.HubertModel),
    "wavlm": (transformers.WavLMConfig, transformers.WavLMModel),
}


def save_speech_model(folder, architecture, seed=0, **settings):
    """Save a tiny random model into ``folder`` and return it."""
    config_class, model_class = MODELS[architecture]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = model_class(config_class(**{**TINY, **settings})).eval()
        for name, parameter in model.named_parameters():
            # Biases start at zero and gates at one, which would hide mistakes.
            if parameter.ndim == 1 or "gru_rel_pos_const" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
            if "attention" in name and parameter.ndim == 2:
                parameter.mul_(10.0)
    with quiet():
        model.save_pretrained(folder)
    return model


class quiet:
    def __enter__(self):
        transformers.logging.disable_progress_bar()

    def __exit__(self, *_):
        transformers.logging.enable_progress_bar()


def layers_of(spec, waveforms, dtype=torch.float32, device="cpu"):
    """Return a list of clips, each an array (n_layers, n_frames, n_features)."""
    encoder = spec.load(torch.device(device), dtype)
    counts = [spec.n_frames(len(waveform)) for waveform in waveforms]
    waveforms = [waveform.to(device) for waveform in waveforms]
    numbers, outputs = [], []
    with torch.inference_mode():
        for layer, frames in encoder(waveforms):
            numbers.append(layer)
            outputs.append(frames.float().cpu().numpy().copy())
    assert numbers == list(range(spec.n_layers))
    return np.split(np.stack(outputs), np.cumsum(counts)[:-1], axis=1)


@torch.inference_mode()
def stock_layers(model, waveform):
    """Return stock transformers' layers, the last one being last_hidden_state."""
    output = model(waveform[None], output_hidden_states=True)
    layers = [*output.hidden_states[:-1], output.last_hidden_state]
    return torch.cat(layers).float().numpy()


def noise(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, generator=generator) * 0.1 for length in lengths]
