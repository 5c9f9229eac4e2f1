"""CREPE over many short clips, against torchcrepe file by file.

Run as ``python -m benchmarks.crepe``.
"""

import argparse

import numpy as np
import torch
import torchcrepe

from benchmarks.timing import compare, print_table
from skaudioemb.encoders.crepe import CrepeSpec

BATCH = 16


def make_clips(n_clips, seed=0):
    """Return float32 clips of 0.3 to 1 s at 16 kHz: a tone each, in noise."""
    rng = np.random.default_rng(seed)
    clips = []
    for n_samples in rng.integers(4800, 16000, n_clips):
        phase = 2 * np.pi * rng.uniform(80, 1000) * np.arange(n_samples) / 16000
        clip = 0.3 * np.sin(phase) + 0.05 * rng.standard_normal(n_samples)
        clips.append(torch.from_numpy(clip.astype(np.float32)))
    return clips


def file_by_file(clips, spec):
    """Return torchcrepe's frames, one call a clip."""
    with torch.inference_mode():
        frames = [
            torchcrepe.embed(
                clip[None],
                spec.sample_rate,
                spec.hop_samples,
                spec.model,
                batch_size=512,
            )
            for clip in clips
        ]
    return torch.cat([part.reshape(-1, spec.n_features) for part in frames])


def in_batches(clips, encoder):
    """Return the encoder's frames, ``BATCH`` clips a call."""
    parts = []
    for start in range(0, len(clips), BATCH):
        parts += [frames for _, frames in encoder(clips[start : start + BATCH])]
    return torch.cat(parts)


def measure(model, hop, clips, repeats):
    """Return the rows of the table for one model and one hop."""
    spec = CrepeSpec(model, hop)
    encoder = spec.load("cpu", torch.float32)
    alternatives = {
        "torchcrepe, file by file": lambda: file_by_file(clips, spec),
        f"skaudioemb, {BATCH} clips a batch": lambda: in_batches(clips, encoder),
    }
    reference, ours = (call() for call in alternatives.values())
    difference = f"{(reference - ours).abs().max():.1e}"
    seconds = compare(alternatives, repeats)
    baseline, fast = seconds.values()
    names = list(alternatives)
    label = f"{model}, {1000 * hop:.0f} ms"
    audio = sum(map(len, clips)) / spec.sample_rate
    return [
        (label, names[0], f"{baseline:.2f}", f"{audio / baseline:.1f}", "1.0", ""),
        (
            label,
            names[1],
            f"{fast:.2f}",
            f"{audio / fast:.1f}",
            f"{baseline / fast:.1f}",
            difference,
        ),
    ]


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--hop", type=float, default=0.05, help="seconds")
    parser.add_argument("--models", nargs="+", default=["full", "tiny"])
    arguments = parser.parse_args()
    clips = make_clips(arguments.clips)
    rows = []
    for model in arguments.models:
        rows += measure(model, arguments.hop, clips, arguments.repeats)
    print_table(
        f"{len(clips)} clips of 0.3 to 1 s, float32",
        ("model, hop", "way", "seconds", "audio s/s", "ratio", "max difference"),
        rows,
        ("torch", "torchcrepe"),
    )


if __name__ == "__main__":
    main()
