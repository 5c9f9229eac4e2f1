"""Small models, one of each family, as a user would load them."""

import atexit
import shutil
import tempfile
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from skaudioemb import (
    BYOLS,
    CREPE,
    EnCodec,
    EncodecMAE,
    Fusion,
    HEARModel,
    HFAudioModel,
    HuBERT,
    LogMel,
    MLPProbe,
    OpenSMILE,
    Wav2Vec2,
    WavLM,
)
from tests.hf_models import FAMILIES
from tests.speech_models import save_speech_model

GOLDEN = Path(__file__).parent / "golden"
CHECKPOINTS = GOLDEN / "fusion" / "checkpoints"
ENCODECMAE = GOLDEN / "encodecmae"


def embedders():
    """Return one instance of every embedder, and fusions of them, by name."""
    hubert = HuBERT(CHECKPOINTS / "hubert-large-like")
    return {
        "logmel": LogMel(n_mels=16),
        "crepe": CREPE("tiny", hop=0.1),
        "wav2vec2-base": Wav2Vec2(CHECKPOINTS / "wav2vec2-base-like"),
        "wav2vec2-large": Wav2Vec2(CHECKPOINTS / "wav2vec2-large-like", layers="mean"),
        "hubert": hubert,
        "wavlm": WavLM(wavlm_folder()),
        "huggingface": HFAudioModel(hf_folder("data2vec"), layers="mean"),
        "windows": HFAudioModel(hf_folder("sew"), max_seconds=0.15),
        "encodecmae": EncodecMAE(ENCODECMAE / "ec-ec-v1.pt", n_heads=4),
        "encodecmae-saved": EncodecMAE(encodecmae_folder()),
        "encodec": EnCodec(ENCODECMAE / "tiny-encodec"),
        "byol": BYOLS(
            weights=byol_file(),
            normalize=(-5.0, 4.0),
            frames_from="encoder",
            batch_size=4,
            projection_size=8,
            hidden_size=8,
        ),
        "hear": HEARModel("tests.hear_modules", pooling="mean"),
        **opensmiles(),
        "fusion": Fusion([("hubert", hubert), ("logmel", LogMel(n_mels=16))]),
        "nested": Fusion(
            [
                ("crepe", CREPE("tiny", hop=0.1)),
                ("inner", Fusion([("hubert", hubert), ("logmel", LogMel(n_mels=8))])),
            ],
            merge="interleave",
            n_features=12,
        ),
    }


def opensmiles():
    """Return an OpenSMILE by its name if the package opensmile is installed."""
    if find_spec("opensmile") is None:
        return {}
    return {"opensmile": OpenSMILE("IS09", pooling="mean")}


def temporary_folder(prefix):
    """Return a new folder that is removed at the end of the process."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@lru_cache
def hf_folder(kind):
    """Save a small random model of one of FAMILIES and return its folder."""
    folder = temporary_folder("hf-")
    FAMILIES[kind](folder)
    return folder


@lru_cache
def wavlm_folder():
    """Save a small random WavLM and return its folder."""
    from transformers import Wav2Vec2FeatureExtractor

    folder = temporary_folder("wavlm-")
    save_speech_model(folder, "wavlm")
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    return folder


@lru_cache
def byol_file(encoder="audiontt2020", n_features=32):
    """Save a random encoder of BYOL's and return the file."""
    import torch

    from skaudioemb.encoders.byol import make_byol_encoder

    path = temporary_folder("byol-") / "weights.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(make_byol_encoder(encoder, n_features).state_dict(), path)
    return path


@lru_cache
def encodecmae_folder():
    """Save a small random EncodecMAE that hears mel bands and return the folder."""
    folder = temporary_folder("encodecmae-")
    size = {"n_layers": 2, "n_features": 24, "n_heads": 4, "n_hidden": 48}
    EncodecMAE(None, max_epochs=0, size=size, front_end="mel").save_weights(folder)
    return folder


def small_probe(**params):
    """Return a probe that learns small sets within a fraction of a second."""
    defaults = {"hidden_units": 32, "lr": 1e-2, "max_epochs": 60, "random_state": 0}
    return MLPProbe(**{**defaults, **params})
