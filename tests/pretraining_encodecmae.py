"""What several tests of EncodecMAE's pretraining share."""

from functools import lru_cache

import numpy as np
import torch
from transformers import EncodecModel

from skaudioemb.encoders import encodecmae_checkpoint as files
from skaudioemb.encoders.encodecmae_codec import CodecFrontEnd
from skaudioemb.encoders.encodecmae_frontends import MelFrontEnd
from skaudioemb.encoders.encodecmae_network import FrameEncoder, Size
from skaudioemb.pretraining.autoencoder import MaskedAutoencoder
from skaudioemb.pretraining.data import Batch
from skaudioemb.pretraining.encodecmae import EncodecMAESettings, pretrain_encodecmae
from tests.encodecmae_models import CODEC
from tests.models import ENCODECMAE
from tests.sounds import noise

CPU = torch.device("cpu")
SIZE = Size(2, 24, 4, 32)
TINY = EncodecMAESettings(
    max_epochs=2,
    batch_size=4,
    crop_seconds=0.5,
    targets="mel",
    n_codebooks=3,
    n_codes=16,
    n_decoder_layers=1,
    lr=1e-3,
    n_clusters=6,
    n_kmeans_frames=60,
    sample_rate=24000,
)


@lru_cache
def load_codec():
    """Return the golden EnCodec."""
    return EncodecModel.from_pretrained(CODEC).eval()


def codec_front_end():
    state = load_codec().encoder.state_dict()
    return CodecFrontEnd({name: value.clone() for name, value in state.items()}, CPU)


def make_encoder(n_inputs=256, size=SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return FrameEncoder(n_inputs, size).initialise(generator)


def make_clips(n_clips=8, n_samples=12000):
    """Return clips of a tone each, in noise; every second one is shorter."""
    times = np.arange(n_samples) / 24000
    clips = []
    for k in range(n_clips):
        tone = np.sin(2 * np.pi * 110 * 2 ** (k / 2) * times)
        clip = 0.4 * tone + 0.1 * noise(n_samples, seed=k)
        clips.append(clip[: n_samples - 1700 * (k % 2)].astype(np.float32))
    return clips


def batch_of(clips):
    """Return clips as a batch, with zeros after the shorter ones."""
    lengths = torch.tensor([len(clip) for clip in clips])
    width = int(lengths.max())
    padded = [np.pad(clip, (0, width - len(clip))) for clip in clips]
    return Batch(torch.from_numpy(np.stack(padded)), None, lengths)


def run(settings=TINY, encoder=None, clips=None, *, front_end=None, **options):
    if encoder is None:
        encoder = make_encoder(16 if isinstance(front_end, CodecFrontEnd) else 256)
    clips = make_clips() if clips is None else clips
    front_end = front_end or MelFrontEnd(CPU)
    return pretrain_encodecmae(encoder, front_end, clips, settings, **options)


def published_network(name):
    """Return a golden file as the networks of a training."""
    path = ENCODECMAE / f"{name}.pt"
    state = torch.load(path, weights_only=True)["state_dict"]
    network = MaskedAutoencoder(
        files.load_frame_encoder(path, 4), {"targets": (8, 16)}, n_decoder_layers=2
    )
    is_first = "decoder_projector.weight" in state
    project = "decoder_projector." if is_first else "visible_encoder.post_net."
    scale = "positional_encoder.scale"
    scale = scale if is_first else f"decoder.{scale}"
    own = {f"project.{k}": v for k, v in files.under(state, project).items()}
    stack = files.under(state, "decoder.")
    own |= {f"stack.{k}": v for k, v in stack.items() if not k.startswith("posi")}
    network.decoder.load_state_dict({**own, "scale": state[scale]})
    network.heads["targets"].load_state_dict(files.under(state, "head.layer."))
    return network


def same(one, other):
    assert one.state_dict.keys() == other.state_dict.keys()
    for name, value in one.state_dict.items():
        assert torch.equal(value, other.state_dict[name]), name
    figures = [
        [(e["loss"], e["masked"], e["visible"], e["stage"]) for e in p.history]
        for p in (one, other)
    ]
    assert figures[0] == figures[1]
    tasks = one.state["training"]["task"], other.state["training"]["task"]
    assert tasks[0].keys() == tasks[1].keys()
    for name, value in tasks[0].items():
        assert torch.equal(value, tasks[1][name]), name
    return True
