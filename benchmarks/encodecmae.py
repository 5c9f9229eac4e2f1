"""EncodecMAE over clips of 1 to 10 s, against the plain modules clip by clip.

Run as ``python -m benchmarks.encodecmae``. Weights are random and of the published
sizes: EnCodec's encoder by transformers, and the network in the layout of its files.
``--memory`` measures the peak memory of one clip of 600 s instead.
"""

import argparse
import tempfile

import numpy as np
import torch
from transformers import EncodecConfig, EncodecModel

from benchmarks.memory import peak
from benchmarks.timing import compare, print_table
from skaudioemb import EncodecMAE
from skaudioemb.encoders.encodecmae import RandomEncodecMAESpec
from skaudioemb.encoders.encodecmae_frontends import MelFrontEnd
from skaudioemb.encoders.encodecmae_network import SIZES

SAMPLE_RATE, CHUNK = 24000, 96000


def make_clips(n_clips, seed=0):
    """Return float32 clips of 1 to 10 s at 24 kHz: a tone each, in noise."""
    rng = np.random.default_rng(seed)
    clips = []
    for n_samples in rng.integers(SAMPLE_RATE, 10 * SAMPLE_RATE, n_clips):
        phase = 2 * np.pi * rng.uniform(80, 1000) * np.arange(n_samples) / SAMPLE_RATE
        clip = 0.3 * np.sin(phase) + 0.05 * rng.standard_normal(n_samples)
        clips.append(clip.astype(np.float32))
    return clips


class ClipByClip:
    """Scene vectors as a script would compute them: chunk after chunk.

    Parameters
    ----------
    spec : RandomEncodecMAESpec
    """

    def __init__(self, spec):
        self.is_mel = spec.front_end == "mel"
        self.chunks = spec.chunks
        self.network = spec.network().eval()
        if self.is_mel:
            self.front_end = MelFrontEnd(torch.device("cpu"))
        else:
            self.front_end = EncodecModel.from_pretrained(spec.codec).encoder.eval()

    @torch.inference_mode()
    def __call__(self, clips):
        return np.stack([self._scene(torch.from_numpy(clip)) for clip in clips])

    def _scene(self, clip):
        windows = self.chunks.windows(len(clip))
        frames = [self._frames(clip[w.start : w.stop]) for w in windows]
        return torch.cat(frames).mean(0).numpy()

    def _frames(self, chunk):
        if self.is_mel:
            features = self.front_end([chunk])[None]
        else:
            features = self.front_end(chunk[None, None]).transpose(1, 2)
        positions = torch.arange(features.shape[1])
        padding = positions >= self.chunks.n_whole(len(chunk))
        return self.network(features, padding[None])[0]


def measure(size, front_end, codec, clips, repeats):
    """Return the rows of the table for one model."""
    spec = RandomEncodecMAESpec(SIZES[size], front_end, codec)
    embedder = EncodecMAE(
        None,
        size=size,
        front_end=front_end,
        codec=codec,
        max_epochs=0,
        sample_rate=SAMPLE_RATE,
    )
    plain = ClipByClip(spec)
    alternatives = {
        "clip by clip": lambda: plain(clips),
        "skaudioemb": lambda: embedder.transform(clips),
    }
    reference, ours = (call() for call in alternatives.values())
    error = np.abs(reference - ours).max() / np.abs(reference).max()
    seconds = compare(alternatives, repeats)
    label = f"{size}, {front_end}"
    return [
        (
            *(label, name, f"{value:.2f}", f"{len(clips) / value:.2f}"),
            f"{seconds['clip by clip'] / value:.2f}",
            f"{error:.0e}" if name == "skaudioemb" else "",
        )
        for name, value in seconds.items()
    ]


def measure_memory(size, front_end, codec, seconds):
    """Return the row of the table for one long clip, after a short one."""
    embedder = EncodecMAE(
        None,
        size=size,
        front_end=front_end,
        codec=codec,
        max_epochs=0,
        sample_rate=SAMPLE_RATE,
    )
    rng = np.random.default_rng(0)
    clip = (0.1 * rng.standard_normal(seconds * SAMPLE_RATE)).astype(np.float32)
    embedder.transform([clip[:SAMPLE_RATE]])
    loaded = peak()
    embedder.transform([clip])
    figures = (f"{value / 2**30:.2f}" for value in (loaded, peak() - loaded))
    return (f"{size}, {front_end}", f"{seconds} s", *figures)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", default=["base"], choices=SIZES)
    parser.add_argument("--front-ends", nargs="+", default=["codec", "mel"])
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--seconds", type=int, default=600, help="of the long clip")
    arguments = parser.parse_args()
    models = [(s, f) for s in arguments.sizes for f in arguments.front_ends]
    with tempfile.TemporaryDirectory() as codec:
        torch.manual_seed(0)
        EncodecModel(EncodecConfig()).save_pretrained(codec)
        if arguments.memory:
            title = "Peak resident memory of one clip"
            header = ("model", "clip", "loaded, GiB", "on top, GiB")
            # A process's peak never falls: one model a run.
            rows = [measure_memory(*models[0], codec, arguments.seconds)]
        else:
            clips = make_clips(arguments.clips)
            title = f"{len(clips)} clips of 1 to 10 s, float32"
            header = ("model", "way", "seconds", "clips/s", "ratio", "error")
            repeats = arguments.repeats
            rows = [r for m in models for r in measure(*m, codec, clips, repeats)]
    print_table(title, header, rows, ("torch", "transformers"))


if __name__ == "__main__":
    main()
