"""A module that speaks HEAR's common API: bands of a spectrum, and variations of it."""

from types import ModuleType

import torch
from torch import nn
from torch.nn import functional as F

WINDOW = 1024
N_BANDS = 32


class Bands(nn.Module):
    """Log energies of bands, frames centred on multiples of 100 ms.

    Scene vectors are the means of frames times random weights: half as wide.
    """

    def __init__(self, hop=0.1, rate=16000, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.sample_rate = rate
        self.timestamp_embedding_size = N_BANDS
        self.scene_embedding_size = N_BANDS // 2
        self.hop = round(hop * rate)
        weights = torch.randn(N_BANDS, N_BANDS // 2, generator=generator)
        self.weights = nn.Parameter(weights)

    def forward(self, audio):
        padded = F.pad(audio, (WINDOW // 2, WINDOW // 2))
        frames = padded.unfold(1, WINDOW, self.hop) * torch.hann_window(
            WINDOW, device=audio.device
        )
        power = torch.fft.rfft(frames).abs().square()[..., : WINDOW // 2]
        return power.unflatten(-1, (N_BANDS, -1)).sum(-1).add(1e-6).log()

    def milliseconds(self, audio):
        n_frames = 1 + audio.shape[1] // self.hop
        times = torch.arange(n_frames) * (1000 * self.hop / self.sample_rate)
        return times.expand(len(audio), -1)


def load_model(model_file_path="", **options):
    model = Bands(**options)
    if model_file_path:
        model.load_state_dict(torch.load(model_file_path, weights_only=True))
    return model


def get_timestamp_embeddings(audio, model):
    return model(audio), model.milliseconds(audio)


def get_scene_embeddings(audio, model):
    return model(audio).mean(1) @ model.weights


def variant(timestamps=None, scenes=None, load=None):
    """Return a module like this one, with the results of its functions changed.

    Parameters
    ----------
    timestamps : callable or None, default=None
        Maps embeddings and timestamps to what is returned.
    scenes : callable or None, default=None
        Maps embeddings to what is returned.
    load : callable or None, default=None
        Maps the model to what is returned.
    """
    module = ModuleType("variant")
    module.load_model = lambda *args, **options: (load or _same)(
        load_model(*args, **options)
    )
    module.get_timestamp_embeddings = lambda audio, model: (timestamps or _pair)(
        *get_timestamp_embeddings(audio, model)
    )
    module.get_scene_embeddings = lambda audio, model: (scenes or _same)(
        get_scene_embeddings(audio, model)
    )
    return module


def _same(value):
    return value


def _pair(embeddings, timestamps):
    return embeddings, timestamps
