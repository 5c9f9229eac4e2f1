"""Peak memory over the weights, in processes of their own.

Run ``python -m benchmarks.memory``: one clip of 600 s through every preset, with random
weights of the real width and of ``--depth`` layers, and short clips through models of
different depth.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.models import LARGE, SAMPLE_RATE, XLARGE, save_speech_model
from benchmarks.timing import print_table
from skaudioemb.presets import get_preset, list_embedders, make_embedder

_SIZES = {768: {}, 1024: LARGE, 1280: XLARGE}


def measure(name, fidelity, folder, seconds):
    """Print the peak memory before and after embedding noise, in bytes."""
    rng = np.random.default_rng(0)
    checkpoints = {
        f"{member}__checkpoint": str(Path(folder, member))
        for member in get_preset(name).members
        if Path(folder, member).is_dir()
    }
    embedder = make_embedder(name, fidelity, **checkpoints)
    embedder.transform([rng.normal(0, 0.1, 8000)])
    before = peak()
    lengths = [seconds] if seconds > 60 else [seconds] * 6
    clips = [rng.normal(0, 0.1, n * SAMPLE_RATE).astype("f4") for n in lengths]
    embedder.transform(clips)
    print(json.dumps([before, peak()]))


def peak():
    """Return the largest resident set of this process so far, in bytes.

    From Linux: ``getrusage`` would count the process that started this one as well.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def in_a_process(name, fidelity, seconds, depth):
    """Measure a preset whose transformers have ``depth`` layers."""
    with tempfile.TemporaryDirectory() as folder:
        for member, model in get_preset(name).members.items():
            if model.estimator in ("HuBERT", "Wav2Vec2", "WavLM"):
                size = {**_SIZES[model.n_features], "num_hidden_layers": depth}
                save_speech_model(Path(folder, member), model.estimator, **size)
        arguments = [name, fidelity, folder, str(seconds)]
        command = [sys.executable, "-m", "benchmarks.memory", *arguments]
        output = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(output.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measured", nargs="*", help="measure this only")
    parser.add_argument("--depth", type=int, default=2, help="layers of each model")
    parser.add_argument("--pattern", default="*", help="names of the presets to run")
    arguments = parser.parse_args()
    if arguments.measured:
        name, fidelity, folder, seconds = arguments.measured
        return measure(name, fidelity, folder, int(seconds))
    runs = [("wav2vec2", "corrected", 10, depth) for depth in (2, 12)]
    runs += [
        (name, fidelity, 600, arguments.depth)
        for name in list_embedders(arguments.pattern)
        if get_preset(name).estimator not in ("EnCodec", "EncodecMAE")
        for fidelity in ("corrected", "paper")
    ]
    rows = []
    for name, fidelity, seconds, depth in runs:
        loaded, highest = in_a_process(name, fidelity, seconds, depth)
        clips = "6 clips of 10 s" if seconds == 10 else f"one of {seconds} s"
        figures = (f"{loaded / 2**30:.2f}", f"{(highest - loaded) / 2**30:.2f}")
        rows.append((name, fidelity, clips, str(depth), *figures))
    print_table(
        "Peak resident memory",
        ("preset", "fidelity", "clips", "layers", "loaded, GiB", "on top, GiB"),
        rows,
        packages=("torch", "transformers"),
    )


if __name__ == "__main__":
    main()
