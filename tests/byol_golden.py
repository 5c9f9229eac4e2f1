"""Reference vectors of BYOL's encoders, and the rule that their weights follow."""

import json
import zlib
from functools import lru_cache

import numpy as np
import torch

from skaudioemb.encoders.byol import make_byol_encoder
from tests.models import GOLDEN

FOLDER = GOLDEN / "byol"
# Names in the reference vectors and here.
ENCODERS = {
    "audiontt2020_d512": ("audiontt2020", 512),
    "audiontt2020_d2048": ("audiontt2020", 2048),
    "audiontt2022_d3072": ("audiontt2022", 3072),
    "resnetish34": ("resnetish34", None),
    "clstm": ("clstm", None),
    "cvt_64_256_512_mean+max": ("cvt", None),
}
FRONTENDS = {"byol-a-v1": "byol-a", "byol-a-v2": "byol-a-v2", "byol-s": "byol-s"}


@lru_cache
def arrays(name):
    """Return the arrays of one file."""
    with np.load(FOLDER / f"{name}.npz") as found:
        return dict(found)


@lru_cache
def meta():
    """Return names, sizes and statistics."""
    return json.loads((FOLDER / "meta.json").read_text())


def statistics_of(frontend):
    """Return the mean and the deviation by which the vectors are normalised."""
    return tuple(meta()["normalisation_mean_std"][frontend])


def rule_state(encoder):
    """Return the state dict that the rule gives an encoder or block."""
    tensors = meta()["encoders"][encoder]["tensors"]
    return {name: _rule(name, shape) for name, shape, _ in tensors}


def _rule(name, shape):
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.tensor(0)
    seed = np.random.PCG64(zlib.crc32(name.encode()))
    noise = np.random.Generator(seed).standard_normal(shape)
    if kind == "running_var":
        values = abs(1 + 0.1 * noise)
    elif kind == "g" or (kind == "weight" and len(shape) == 1):
        values = 1 + 0.1 * noise
    elif kind in ("running_mean", "b") or len(shape) < 2:
        values = 0.1 * noise
    else:
        values = noise / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values).astype(np.float32))


@lru_cache(maxsize=2)
def network(encoder):
    """Return an encoder with the rule's weights, in eval mode."""
    made = make_byol_encoder(*ENCODERS[encoder])
    made.load_state_dict(rule_state(encoder))
    return made.eval().requires_grad_(False)


def distance(got, expected):
    """Return the largest difference relative to the largest magnitude."""
    got = np.asarray(got)
    assert got.shape == expected.shape
    return np.abs(got - expected).max() / np.abs(expected).max()
