"""Peak memory over the weights, in processes of their own.

Run ``python -m benchmarks.memory``: one 600 s clip through models of wav2vec 2.0
large's width, and short clips through base models of different depth. ``--depth 24``
takes the long clip through as many layers (a quarter of an hour on two cores).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile

import numpy as np

from benchmarks.models import LARGE, SAMPLE_RATE, save_wav2vec2
from benchmarks.timing import print_table


def measure(folder, seconds):
    """Print the peak memory of embedding ``seconds`` of noise, in bytes."""
    from skaudioemb import Wav2Vec2

    rng = np.random.default_rng(0)
    embedder = Wav2Vec2(folder, device="cpu", layers="mean")
    embedder.transform([rng.normal(0, 0.1, 8000)])
    before = peak()
    lengths = [seconds] if seconds > 60 else [seconds] * 6
    embedder.transform([rng.normal(0, 0.1, n * SAMPLE_RATE) for n in lengths])
    print(json.dumps([before, peak()]))


def peak():
    """Return the largest resident set of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_a_process(seconds, **config):
    with tempfile.TemporaryDirectory() as folder:
        save_wav2vec2(folder, **config)
        command = [sys.executable, "-m", "benchmarks.memory", folder, str(seconds)]
        output = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(output.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="measure this model only")
    parser.add_argument("seconds", nargs="?", type=int)
    parser.add_argument(
        "--depth", type=int, default=3, help="layers of the large model"
    )
    arguments = parser.parse_args()
    if arguments.folder:
        return measure(arguments.folder, arguments.seconds)
    rows = []
    for name, seconds, config in [
        ("base width, 3 layers, 6 clips of 10 s", 10, {"num_hidden_layers": 3}),
        ("base width, 12 layers, 6 clips of 10 s", 10, {"num_hidden_layers": 12}),
        (
            f"large width, {arguments.depth} layers, one clip of 600 s",
            600,
            {**LARGE, "num_hidden_layers": arguments.depth},
        ),
    ]:
        loaded, highest = in_a_process(seconds, **config)
        rows.append(
            (name, f"{loaded / 2**30:.2f}", f"{(highest - loaded) / 2**30:.2f}")
        )
    print_table(
        "Peak resident memory, layers averaged",
        ("", "loaded, GiB", "on top, GiB"),
        rows,
        packages=("torch", "transformers"),
    )


if __name__ == "__main__":
    main()
