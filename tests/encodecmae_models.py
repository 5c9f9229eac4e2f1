"""Models and golden arrays of EncodecMAE that several test files share."""

from functools import lru_cache

import numpy as np
import torch

from skaudioemb.encoders.encodecmae import EncodecMAESpec
from skaudioemb.encoders.encodecmae_checkpoint import NAMES
from skaudioemb.encoders.encodecmae_network import SIZES, FrameEncoder
from tests.models import ENCODECMAE, temporary_folder

CODEC = str(ENCODECMAE / "tiny-encodec")
# File, number of heads, golden arrays, and what comes before their names.
MODELS = {
    "v1": ("ec-ec-v1.pt", 4, "ec_ec", ""),
    "v2": ("ec-ec-v2.pt", 4, "ec_ec", ""),
    "mel": ("mel256-ec-v2.pt", 4, "mel256_ec", ""),
    "mel self-trained": ("mel256-ec-v2_st.pt", 5, "mel256_ec", "st/"),
}


def golden_clips():
    """Return clips at 24 kHz by name."""
    with np.load(ENCODECMAE / "clips.npz") as arrays:
        clips = {name: arrays[name] / np.float32(32768) for name in arrays}
    return {**clips, "clip2_tail": clips["clip2"][:97500]}


def golden_arrays():
    """Return what the published code gives, by front end and name."""
    return {
        name: dict(np.load(ENCODECMAE / f"{name}.npz"))
        for name in ("ec_ec", "mel256_ec")
    }


def make_spec(name, **params):
    file, n_heads, *_ = MODELS[name]
    return EncodecMAESpec(str(ENCODECMAE / file), n_heads=n_heads, **params)


def run(spec, waveforms, dtype=torch.float32):
    """Return the layers of chunks, cut as the spec says, that run together."""
    pieces = [
        torch.as_tensor(waveform[window.start : window.stop])
        for waveform in waveforms
        for window in spec.windows(len(waveform))
    ]
    encoder = spec.load("cpu", dtype)
    return [frames.numpy().copy() for _, frames in encoder(pieces)]


def close(result, expected, tolerance=1e-4):
    assert np.shape(result) == np.shape(expected)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance * scale)


def encodecmae_params(model):
    """Return what gives a preset's EncodecMAE or EnCodec its measures, no weights."""
    if model.estimator == "EnCodec":
        return {"checkpoint": encodec_folder()}
    if model.estimator != "EncodecMAE":
        return {}
    if not model.weights:
        return {"codec": encodec_folder()}
    size = next(size for size in SIZES if size in model.weights)
    return {"checkpoint": encodecmae_file(size, "mel256" in model.weights)}


@lru_cache
def encodec_folder():
    """Save the configuration of the 24 kHz EnCodec alone and return its folder."""
    from transformers import EncodecConfig

    folder = temporary_folder("encodec-")
    EncodecConfig().save_pretrained(folder)
    return folder


@lru_cache
def encodecmae_file(size, is_mel):
    """Save a file of a published size, whose tensors all are one zero."""
    project, scale, codec = NAMES[2]
    network = FrameEncoder(256 if is_mel else 128, SIZES[size])
    renamed = {"project": project, "scale": scale, "stack": "visible_encoder"}
    zeros = {f"{codec}13.lstm.weight_hh_l0": torch.zeros(1, 1)}
    state = {} if is_mel else zeros
    for name, tensor in network.state_dict().items():
        first, dot, rest = name.partition(".")
        state[renamed[first] + dot + rest] = torch.zeros(()).expand(tensor.shape)
    path = temporary_folder("encodecmae-") / f"{size}.pt"
    torch.save({"state_dict": state}, path)
    return path
