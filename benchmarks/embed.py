"""wav2vec 2.0 base: ours against what users would write with transformers.

Run ``python -m benchmarks.embed``. The model has random weights; 64 clips of 0.3 to
4 s are embedded as means of the last layer. "error" is the largest difference to one
clip at a time, relative to the largest magnitude.
"""

import tempfile
from functools import partial

import numpy as np
import torch
from transformers import Wav2Vec2Model

from benchmarks.models import SAMPLE_RATE, noise_clips, save_speech_model
from benchmarks.timing import compare, print_table
from skaudioemb import Wav2Vec2


def one_at_a_time(model, clips):
    """Embed as HEAR's evaluation kit and NTU-GURA do for clips of any length."""
    with torch.inference_mode():
        return np.stack(
            [
                model(torch.from_numpy(clip)[None]).last_hidden_state[0].mean(0).numpy()
                for clip in clips
            ]
        )


def padded_batches(model, clips, size=16):
    """Embed zero-padded batches in file order, averaging each clip's own frames."""
    embeddings = []
    with torch.inference_mode():
        for start in range(0, len(clips), size):
            batch = [torch.from_numpy(clip) for clip in clips[start : start + size]]
            padded = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
            frames = model(padded).last_hidden_state
            for clip, own in zip(batch, frames, strict=True):
                n_frames = (len(clip) - 400) // 320 + 1
                embeddings.append(own[:n_frames].mean(0).numpy())
    return np.stack(embeddings)


def main(n_clips=64, repeats=3):
    clips = noise_clips(n_clips, 0.3, 4.0)
    with tempfile.TemporaryDirectory() as folder:
        save_speech_model(folder)
        model = Wav2Vec2Model.from_pretrained(folder, dtype=torch.float32)
        ours = Wav2Vec2(folder, device="cpu")
        half = Wav2Vec2(folder, device="cpu", dtype="bfloat16")
        results = {}
        calls = {
            "transformers, one clip at a time": partial(one_at_a_time, model),
            "transformers, padded batches of 16": partial(padded_batches, model),
            "skaudioemb, float32": ours.transform,
            "skaudioemb, bfloat16": half.transform,
        }

        def keep(name):
            results[name] = calls[name](clips)

        seconds = compare({name: partial(keep, name) for name in calls}, repeats)
    baseline = "transformers, one clip at a time"
    audio_seconds = sum(map(len, clips)) / SAMPLE_RATE
    scale = np.abs(results[baseline]).max()
    rows = [
        (
            name,
            f"{audio_seconds / seconds[name]:.1f}",
            f"{seconds[baseline] / seconds[name]:.2f}",
            f"{np.abs(results[name] - results[baseline]).max() / scale:.1e}",
        )
        for name in calls
    ]
    print_table(
        f"wav2vec 2.0 base, {n_clips} clips, {audio_seconds:.0f} s of audio",
        ("", "audio-s/s", "ratio", "error"),
        rows,
        packages=("torch", "transformers"),
    )


if __name__ == "__main__":
    main()
