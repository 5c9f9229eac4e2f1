"""A warm store against the forward pass of wav2vec 2.0 base.

Run ``python -m benchmarks.store``. For 3,000 clips of 0.5 to 3 s, vectors of the shapes
that the model gives are stored under its keys; they are random, for only reading is
measured. The forward pass is ours, timed on a share of the clips and scaled up.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.models import SAMPLE_RATE, noise_clips, save_speech_model
from benchmarks.timing import compare, print_table
from skaudioemb import Store, Wav2Vec2, devices


def fill(embedder, clips, rng):
    """Store random vectors of the right shapes under the keys of ``clips``.

    The model runs on no clip: only reading is measured.
    """
    from skaudioemb import engine
    from skaudioemb.embedders.base import ExtraPlan

    spec = embedder._make_spec()
    extra = ExtraPlan(spec, False, ())
    store = Store.open(embedder.memory)
    settings = engine.Settings(store=store)
    runner = engine._Runner(clips, engine.Request(spec, extra, extra), settings)
    for stretch in runner.stretches(range(len(clips))):
        items = {}
        for clip in stretch:
            for summary in extra(clip.length):
                layers = 1 if getattr(summary, "selection", None) else spec.n_layers
                shape = (layers, 1, spec.n_features)
                items[runner._key(clip, summary)] = rng.random(shape, np.float32)
        store.put(items)
    store.close()


def main(n_clips=3000, n_forward=60):
    rng = np.random.default_rng(0)
    clips = [
        (clip.clip(-1, 1) * 32767).astype(np.int16)
        for clip in noise_clips(n_clips, 0.5, 3)
    ]
    with tempfile.TemporaryDirectory() as folder:
        save_speech_model(Path(folder, "model"))
        paths = [Path(folder, f"{number}.wav") for number in range(n_clips)]
        for path, clip in zip(paths, clips, strict=True):
            soundfile.write(path, clip, SAMPLE_RATE)
        cold = Wav2Vec2(Path(folder, "model"), device="cpu")
        warm = Wav2Vec2(
            Path(folder, "model"), device="cpu", memory=Path(folder, "store")
        )
        fill(warm, clips, rng)
        forwards = devices.tally().run
        seconds = compare(
            {
                "paths": lambda: warm.transform(paths),
                "arrays": lambda: warm.transform(clips),
                "paths, n_jobs=2": lambda: warm.set_params(n_jobs=2).transform(paths),
            },
            repeats=3,
        )
        assert devices.tally().run == forwards
        assert devices.tally().loaded == 0
        cold.transform(clips[:4])
        start = time.perf_counter()
        cold.transform(clips[:n_forward])
        forward = time.perf_counter() - start
    share = sum(map(len, clips)) / sum(map(len, clips[:n_forward]))
    seconds = {"forward pass, scaled up": forward * share, **seconds}
    rows = [
        (name, f"{taken:.2f}", f"{forward * share / taken:.0f}")
        for name, taken in seconds.items()
    ]
    print_table(
        f"{n_clips} clips of wav2vec 2.0 base size, stored already",
        ("", "seconds", "ratio"),
        rows,
        packages=("torch", "transformers"),
    )


if __name__ == "__main__":
    main()
