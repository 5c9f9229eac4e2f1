"""Batches, memory exhaustion, devices and counts; numbers are in test_common."""

import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from skaudioemb import CREPE, AudioError, LogMel, Store, Wav2Vec2, devices, engine
from skaudioemb.encoders.logmel import LogMel as LogMelEncoder
from skaudioemb.encoders.logmel import LogMelSpec
from tests.models import CHECKPOINTS


@pytest.fixture
def batches(monkeypatch):
    """Record the lengths of the clips in every batch that LogMel runs."""
    seen = []
    forward = LogMelEncoder.forward

    def recording(self, waveforms):
        seen.append([len(waveform) for waveform in waveforms])
        return forward(self, waveforms)

    monkeypatch.setattr(LogMelEncoder, "forward", recording)
    return seen


def noise(*lengths):
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, n).astype(np.float32) for n in lengths]


def test_batches_are_sorted_by_length_and_limited(batches):
    clips = noise(4000, 16000, 3000, 15000, 9000, 40000)
    expected = np.concatenate([LogMel().transform([clip]) for clip in clips])
    batches.clear()
    embeddings = LogMel(batch_seconds=2.0).transform(clips)
    assert batches == [[40000], [16000, 15000], [9000, 4000, 3000]]
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)


def test_lengths_are_those_at_the_models_rate(batches):
    clips = [{"array": x, "sampling_rate": 48000} for x in noise(48000, 24000, 12000)]
    LogMel(batch_seconds=1.0).transform(clips)
    assert batches == [[16000], [8000, 4000]]


def test_twins_are_run_once(batches, tmp_path, counted):
    a, b = noise(4000, 4000 + 1)
    embeddings = LogMel(memory=tmp_path).transform([a, b, a, a])
    assert batches == [[4001, 4000]]
    assert counted()[:2] == (4, 2)
    np.testing.assert_array_equal(embeddings[[0, 0]], embeddings[[2, 3]])


def exhausted_beyond(limit, error):
    forward = LogMelEncoder.forward

    def limited(self, waveforms):
        if sum(map(len, waveforms)) > limit:
            raise error
        return forward(self, waveforms)

    return limited


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_batches_are_halved_when_memory_runs_out(monkeypatch, error, counted):
    clips = noise(4000, 8000, 5000, 6000, 7000)
    expected = LogMel().transform(clips)
    counted()
    monkeypatch.setattr(LogMelEncoder, "forward", exhausted_beyond(9000, error))
    np.testing.assert_allclose(LogMel().transform(clips), expected, atol=1e-5)
    assert counted().run == 5


def test_a_clip_too_long_for_the_memory_gets_a_sentence(monkeypatch):
    clips = noise(4000, 64000, 5000)
    expected = LogMel().transform(clips)
    limited = exhausted_beyond(20000, OUT_OF_MEMORY[0])
    monkeypatch.setattr(LogMelEncoder, "forward", limited)
    with pytest.raises(AudioError, match=r"clip 1: 4\.0 s of audio do not fit into"):
        LogMel().transform(clips)
    with pytest.warns(UserWarning, match="1 of 3 clips"):
        embeddings = LogMel(on_error="nan").transform(clips)
    assert np.isnan(embeddings[1]).all()
    np.testing.assert_allclose(embeddings[[0, 2]], expected[[0, 2]], atol=1e-5)


def test_other_failures_are_not_taken_for_exhaustion(monkeypatch):
    def broken(self, waveforms):
        raise RuntimeError("a bug")

    monkeypatch.setattr(LogMelEncoder, "forward", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        LogMel().transform(noise(4000))


def test_output_that_is_not_finite_is_refused_and_not_stored(monkeypatch, tmp_path):
    embedder = LogMel(memory=tmp_path)
    with monkeypatch.context() as patch:
        forward = LogMelEncoder.forward
        patch.setattr(
            LogMelEncoder,
            "forward",
            lambda self, waveforms: (
                (layer, frames * torch.inf)
                for layer, frames in forward(self, waveforms)
            ),
        )
        with pytest.raises(
            AudioError, match="clip 0: the model's output is not finite"
        ):
            embedder.transform(noise(4000))
    assert np.isfinite(embedder.transform(noise(4000))).all()


def test_what_is_done_is_kept_when_a_later_clip_fails(tmp_path, counted):
    clips = noise(*[16000] * 40)
    embedder = LogMel(memory=tmp_path, batch_seconds=1.0)
    with pytest.raises(AudioError, match="clip 39"):
        embedder.transform([*clips[:39], "nowhere.wav"])
    done = counted().run
    assert done >= 16
    embedder.transform(clips)
    assert counted().run == 40 - done


def test_a_store_that_evicts_changes_no_result(tmp_path):
    clips = noise(*range(4000, 4020))
    store = Store(tmp_path, max_bytes=4000)
    embedder = LogMel(memory=store, batch_seconds=0.5)
    np.testing.assert_allclose(
        embedder.transform(clips), LogMel().transform(clips), atol=1e-5
    )
    assert store.info().bytes <= 4000


def test_encoders_are_loaded_once_and_the_oldest_goes(counted):
    devices.clear_encoders()
    cpu = torch.device("cpu")
    specs = [LogMelSpec(n_mels=10 + number) for number in range(5)]
    first = devices.load_encoder(specs[0], cpu, "float32")
    assert devices.load_encoder(LogMelSpec(n_mels=10), cpu, "float32") is first
    for spec in specs[1:]:
        devices.load_encoder(spec, cpu, "float32")
    assert counted().loaded == 5
    assert devices.load_encoder(specs[0], cpu, "float32") is not first


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    "embedder",
    [
        CREPE("tiny"),
        LogMel(),
        Wav2Vec2(CHECKPOINTS / "wav2vec2-base-like"),
        Wav2Vec2(CHECKPOINTS / "wav2vec2-large-like"),
    ],
)
def test_half_precision_is_close(embedder, dtype):
    clips = noise(4000, 9000, 16000)
    embedder.set_params(dtype="float32")
    full = embedder.transform(clips)
    half = embedder.set_params(dtype=dtype).transform(clips)
    assert half.dtype == np.float32
    cosine = (full * half).sum(1) / np.linalg.norm(full, axis=1)
    assert (cosine / np.linalg.norm(half, axis=1) > 0.998).all()


def test_progress_bar_tells_throughput(capsys):
    LogMel(verbose=1).transform(noise(4000, 5000))
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "audio-s/s, 2 forwards" in shown
    LogMel().transform(noise(4000))
    assert capsys.readouterr().err == ""


SIGNALLED = """
    import signal
    import sys
    import numpy as np
    from skaudioemb import CREPE, Wav2Vec2

    clips = [np.random.default_rng(0).normal(0, 0.1, n) for n in (9000, 16000)]
    embedders = [CREPE(hop=0.02, device="cpu"), Wav2Vec2(sys.argv[1], device="cpu")]
    expected = [embedder.transform(clips) for embedder in embedders]
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    for _ in range(4):
        for embedder, before in zip(embedders, expected, strict=True):
            assert np.array_equal(embedder.transform(clips), before)
    signal.setitimer(signal.ITIMER_REAL, 0)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs POSIX signals")
def test_signals_do_no_harm():
    """Some oneDNN kernels corrupt the heap when a signal interrupts them."""
    checkpoint = CHECKPOINTS / "wav2vec2-large-like"
    code = textwrap.dedent(SIGNALLED)
    done = subprocess.run(
        [sys.executable, "-c", code, checkpoint], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_length_at_a_model_is_rounded_up_and_padded():
    assert engine.Length(44100, 44100).at(LogMelSpec()) == 16000
    assert engine.Length(44101, 44100).at(LogMelSpec()) == 16001
    assert engine.Length(1, 48000).at(LogMelSpec()) == 1
