"""A step of EncodecMAE's pretraining: its parts, and what hiding frames saves.

Run ``python -m benchmarks.encodecmae_step``. Weights are random and of the published
sizes: the small network on mel spectra with random-projection targets, and the same on
EnCodec for 24 kHz with its codes as targets. The shares are those of a step's seconds.

The naive step sends all frames through the encoder, the hidden ones as zeros, scores
all classes at once, and runs EnCodec by transformers, once for the frames and once for
the codes. Both ways take the same crops, masks and weights, in turns; the figures are
medians.
"""

import argparse
import copy
import statistics
import time
from collections import defaultdict
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F
from transformers import EncodecConfig, EncodecModel

from benchmarks.timing import print_table
from skaudioemb.encoders.encodecmae_codec import CodecFrontEnd
from skaudioemb.encoders.encodecmae_frontends import MelFrontEnd
from skaudioemb.encoders.encodecmae_network import SIZES, FrameEncoder
from skaudioemb.pretraining.autoencoder import MaskedAutoencoder
from skaudioemb.pretraining.data import Batch
from skaudioemb.pretraining.encodecmae import EncodecMAESettings
from skaudioemb.pretraining.encodecmae_task import EncodecMAETask
from skaudioemb.pretraining.hearing import Hearing
from skaudioemb.pretraining.masks import draw_masking
from skaudioemb.pretraining.random_projection import RandomProjectionTargets

CPU, RATE = torch.device("cpu"), 24000
N_STREAMS, N_CODES = 8, 1024
PARTS = (
    "front end and codec",
    "targets",
    "encoder",
    "decoder",
    "heads and loss",
    "backward",
    "optimiser",
)


def make_codec():
    """Return an EnCodec with random weights and codebooks."""
    torch.manual_seed(0)
    codec = EncodecModel(EncodecConfig()).eval()
    for layer in codec.quantizer.layers:
        layer.codebook.embed.normal_(std=0.1)
    return codec


class OurStep:
    """A step of the trainer's task; each call gives the seconds of its parts.

    Parameters
    ----------
    kind : {"mel", "codec"}
        Front end and targets.
    codec : EncodecModel
    size : str
    """

    def __init__(self, kind, codec, size):
        is_mel = kind == "mel"
        state = codec.encoder.state_dict()
        front_end = MelFrontEnd(CPU) if is_mel else CodecFrontEnd(state, CPU)
        torch.manual_seed(0)
        encoder = FrameEncoder(front_end.n_features, SIZES[size])
        generator = torch.Generator().manual_seed(0)
        heads = {"targets": (N_STREAMS, N_CODES)}
        network = MaskedAutoencoder(encoder.initialise(generator), heads)
        self.network = network.initialise(generator)
        self.hear = Hearing(front_end, kind, codec, N_STREAMS, CPU)
        projection = RandomProjectionTargets(256, N_STREAMS, N_CODES, seed=0)
        self.task = EncodecMAETask(
            self.network,
            self.hear,
            replace(EncodecMAESettings(), targets=kind),
            torch.full((N_STREAMS,), 1 / N_STREAMS),
            projection=projection if is_mel else None,
        )
        self.optimizer = torch.optim.AdamW(self.network.parameters(), 1e-4, fused=True)

    def __call__(self, batch):
        seconds = defaultdict(float)
        mark = time.perf_counter()

        def lap(part):
            nonlocal mark
            now = time.perf_counter()
            seconds[part] += now - mark
            mark = now

        self.optimizer.zero_grad()
        heard = self.hear(batch)
        lap("front end and codec")
        self.run(heard, masking_of(heard), lap)
        lap("backward")
        self.optimizer.step()
        lap("optimiser")
        return seconds

    def run(self, heard, masking, lap):
        """Do forward and backward pass; hooks mark the borders of parts."""
        modules = {
            "encoder": self.network.encoder.stack,
            "decoder": self.network.decoder,
        }
        codes = self.task.codes

        def timed_codes(heard):
            found = codes(heard)
            lap("targets")
            return found

        hooks = [
            module.register_forward_hook(lambda *_, part=part: lap(part))
            for part, module in modules.items()
        ]
        self.task.codes = timed_codes
        loss = self.task.loss(heard, masking)["loss"]
        lap("heads and loss")
        for hook in hooks:
            hook.remove()
        del self.task.codes
        loss.backward()


class NaiveStep:
    """All frames through the encoder, and all scores at once.

    Parameters
    ----------
    ours : OurStep
        Whose weights are copied.
    codec : EncodecModel
    """

    def __init__(self, ours, codec):
        self.ours, self.codec = ours, codec
        self.network = copy.deepcopy(ours.network)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), 1e-4, fused=True)

    def __call__(self, batch):
        start = time.perf_counter()
        self.optimizer.zero_grad()
        heard, codes = self.hear(batch)
        masked = masking_of(heard).masked
        network = self.network
        tokens = network.encoder.embed(heard.features)
        tokens = tokens.masked_fill(masked[..., None], 0.0)
        projected = network.decoder.project(network.encoder.stack(tokens))
        projected = projected.masked_fill(masked[..., None], 0.0)
        decoded = network.decoder.stack(projected)
        scores = network.heads["targets"](decoded).unflatten(-1, (N_STREAMS, -1))
        losses = F.cross_entropy(scores.movedim(-1, 1), codes, reduction="none").mean(2)
        (0.9 * losses[masked].mean() + 0.1 * losses[~masked].mean()).backward()
        self.optimizer.step()
        return {"all": time.perf_counter() - start}

    @torch.no_grad()
    def hear(self, batch):
        """Return frames and codes."""
        hear, task = self.ours.hear, self.ours.task
        if hear.codec is None:
            heard = hear(batch)
            return heard, task.codes(heard)["targets"]
        frames, again = (
            self.codec.encoder(batch.waveforms[:, None]).transpose(1, 2)
            for _ in range(2)
        )
        n_whole = np.full(len(frames), frames.shape[1])
        heard = type("Frames", (), {"features": frames, "n_whole": n_whole})
        return heard, hear.codec.codes(again)


def masking_of(heard):
    """Return the masking of a step, drawn anew."""
    rng = np.random.default_rng(0)
    return draw_masking(heard.features.shape[1], heard.n_whole, 0.5, 15, rng)


def measure(kind, size, n_crops, seconds, repeats):
    """Return medians of the seconds of a step's parts, and of the naive step."""
    rng = np.random.default_rng(0)
    crops = rng.uniform(-0.5, 0.5, (n_crops, round(seconds * RATE)))
    lengths = torch.full((n_crops,), crops.shape[1])
    batch = Batch(torch.from_numpy(crops).float(), None, lengths)
    codec = make_codec()
    ours = OurStep(kind, codec, size)
    naive = NaiveStep(ours, codec)
    ours(batch), naive(batch)
    rounds = [(ours(batch), naive(batch)["all"]) for _ in range(repeats)]
    parts = {
        part: statistics.median(own.get(part, 0.0) for own, _ in rounds)
        for part in PARTS
    }
    return parts, statistics.median(other for _, other in rounds)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--crops", type=int, default=4, help="of a batch")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a crop")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(argv)
    found = {
        kind: measure(
            kind, options.size, options.crops, options.seconds, options.repeats
        )
        for kind in ("mel", "codec")
    }
    rows = [
        (part, *(f"{parts[part] / sum(parts.values()):.1%}" for parts, _ in values))
        for values in [found.values()]
        for part in PARTS
    ]
    totals = {kind: sum(parts.values()) for kind, (parts, _) in found.items()}
    rows.append(("seconds of a step", *(f"{totals[kind]:.2f}" for kind in found)))
    rows.append(
        ("naive step, seconds", *(f"{naive:.2f}" for _, naive in found.values()))
    )
    ratios = (naive / totals[kind] for kind, (_, naive) in found.items())
    rows.append(("ratio", *(f"{ratio:.2f}" for ratio in ratios)))
    print_table(
        f"EncodecMAE {options.size}, {options.crops} crops of {options.seconds:g} s",
        ("", "mel", "EnCodec"),
        rows,
        ("torch", "transformers"),
    )


if __name__ == "__main__":
    main()
