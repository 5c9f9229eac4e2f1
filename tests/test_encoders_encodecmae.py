"""EncodecMAE's encoder against its golden vectors, its plain network and itself."""

import shutil

import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi
from transformers import EncodecModel

from skaudioemb.encoders import encodecmae_checkpoint as files
from skaudioemb.encoders.encodecmae import (
    STREAMS,
    RandomEncodecMAESpec,
)
from skaudioemb.encoders.encodecmae_codec import CodecFrontEnd, EnCodecSpec
from skaudioemb.encoders.encodecmae_frontends import (
    CodecChunks,
    MelChunks,
    MelFrontEnd,
)
from skaudioemb.encoders.encodecmae_network import (
    SIZES,
    FrameEncoder,
    Size,
    make_size,
    parameter_counts,
    sinusoids,
)
from tests.encodecmae_models import (
    CODEC,
    MODELS,
    close,
    golden_arrays,
    golden_clips,
    make_spec,
    run,
)
from tests.sounds import noise

TINY = Size(2, 24, 4, 48)


@pytest.fixture(scope="module")
def clips():
    return golden_clips()


@pytest.fixture(scope="module")
def golden():
    return golden_arrays()


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_published_code(name, clips, golden):
    *_, arrays, prefix = MODELS[name]
    spec = make_spec(name)
    for clip, waveform in clips.items():
        expected = golden[arrays].get(f"{prefix}{clip}/combined")
        if expected is None:
            continue
        layers = run(spec, [waveform])
        assert len(layers) == spec.n_layers == 4
        assert spec.n_frames(len(waveform)) == len(spec.times_of(len(waveform)))
        close(layers[-1], expected)
        close(layers[-1].mean(0), golden[arrays][f"{prefix}{clip}/scene"])


@pytest.mark.parametrize("name", ["v1", "v2", "mel"])
def test_layers_and_both_streams(name, clips, golden):
    arrays = golden[MODELS[name][2]]
    combined, normed, residual = (
        run(make_spec(name, stream=stream), [clips["clip2"]]) for stream in STREAMS
    )
    for layer, expected in enumerate(arrays["clip2/x0_layers"], start=1):
        close(normed[layer], expected)
        if layer < 3:
            close(combined[layer], expected)
    close(residual[-1], arrays["clip2/x1_last"])
    for layers in (normed, residual):
        np.testing.assert_array_equal(layers[0], combined[0])


@pytest.mark.parametrize("name", ["v1", "mel"])
def test_front_ends(name, clips, golden):
    arrays = golden[MODELS[name][2]]
    front_end = make_spec(name).load_front_end(torch.device("cpu"))
    frames = front_end([torch.from_numpy(clips["clip0"])]).numpy()
    np.testing.assert_allclose(frames, arrays["clip0/features"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["v1", "mel"])
def test_short_tails_are_kept(name, clips, golden):
    arrays = golden[MODELS[name][2]]
    clip = clips["clip2_tail"]
    *_, last = run(make_spec(name), [clip])
    tail = arrays["clip2_tail/combined_of_tail"]
    close(last[-len(tail) :], tail)
    close(last.mean(0), arrays["clip2_tail/scene_tail_kept"])
    dropped = arrays["clip2_tail/scene_tail_dropped"]
    close(last[: -len(tail)].mean(0), dropped)
    assert np.abs(last.mean(0) - dropped).max() > 1e-3 * np.abs(dropped).max()


@pytest.mark.parametrize("name", ["v1", "mel"])
def test_frames_that_are_not_whole_are_not_attended_to(name, clips, golden):
    arrays = golden[MODELS[name][2]]
    chunks = make_spec(name).chunks
    for clip in ("clip0", "clip1", "clip2", "clip3"):
        masked = []
        for start, stop, _ in chunks.windows(len(clips[clip])):
            frames = np.arange(chunks.chunk_frames(stop - start))
            masked += [frames >= chunks.n_whole(stop - start)]
        np.testing.assert_array_equal(
            np.concatenate(masked), arrays[f"{clip}/key_masked"]
        )


@pytest.mark.parametrize("name", MODELS)
def test_a_chunk_is_as_if_it_were_alone(name, clips):
    spec = make_spec(name)
    waveforms = [clips["clip3"], clips["clip0"], clips["clip0"][:700], clips["clip3"]]
    together = run(spec, waveforms)
    alone = [run(spec, [waveform]) for waveform in waveforms]
    for layer, frames in enumerate(together):
        parts = np.concatenate([own[layer] for own in alone])
        close(frames, parts, 1e-5)


@pytest.mark.parametrize("name", ["v1", "mel self-trained"])
def test_equals_the_plain_network_in_padded_batches(name, clips):
    """The network in the file's own layout: heads innermost, padding masked."""
    spec = make_spec(name)
    network = spec.network().eval()
    front_end = spec.load_front_end(torch.device("cpu"))
    waveforms = [torch.from_numpy(clips["clip0"][:n]) for n in (24000, 20000, 9001)]
    features = [front_end([waveform]) for waveform in waveforms]
    counts = [len(own) for own in features]
    batch = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
    whole = torch.tensor([[spec.chunks.n_whole(len(w))] for w in waveforms])
    padding = torch.arange(batch.shape[1]) >= whole
    with torch.no_grad():
        frames = network(batch, padding)
    expected = [own[:count] for own, count in zip(frames, counts, strict=True)]
    *_, last = run(spec, waveforms)
    close(last, torch.cat(expected).numpy(), 1e-5)


def test_half_precision_is_near(clips):
    exact = run(make_spec("v1"), [clips["clip0"]])
    rounded = run(make_spec("v1"), [clips["clip0"]], torch.bfloat16)
    assert rounded[-1].dtype == np.float32
    close(rounded[-1], exact[-1], 0.05)
    assert np.abs(rounded[-1] - exact[-1]).max() > 0


LENGTHS = (1, 2, 319, 320, 321, 700, 9001)


@pytest.mark.parametrize("shortcut", [True, False])
@torch.no_grad()
def test_codec_equals_stock_transformers(shortcut):
    torch.manual_seed(0)
    config = EncodecModel.config_class.from_pretrained(
        CODEC, use_conv_shortcut=shortcut, num_lstm_layers=2, upsampling_ratios=[5, 4]
    )
    stock = EncodecModel(config).eval().encoder
    front_end = CodecFrontEnd(stock.state_dict(), torch.device("cpu"))
    waveforms = [torch.from_numpy(noise(n, seed=n)) for n in LENGTHS]
    expected = torch.cat([stock(w[None, None])[0].T for w in waveforms])
    close(front_end(waveforms).numpy(), expected.numpy(), 1e-5)
    assert files.hop_of(stock.state_dict()) == 20


def test_mel_equals_kaldi_of_torchaudio():
    waveforms = [torch.from_numpy(noise(n, seed=n)) for n in (637, 1000, 24000)]
    waveforms.append(torch.zeros(2000))
    options = {
        "sample_frequency": 24000,
        "frame_length": 26.56,
        "frame_shift": 13.28,
        "num_mel_bins": 256,
        "window_type": "hanning",
        "htk_compat": True,
        "use_energy": False,
        "dither": 0.0,
    }
    expected = torch.cat([kaldi.fbank(w[None], **options) for w in waveforms])
    front_end = MelFrontEnd(torch.device("cpu"))
    expected = (expected + 6.12) / 4.82
    np.testing.assert_allclose(front_end(waveforms), expected, rtol=0, atol=1e-5)
    counts = [MelChunks().n_frames(len(waveform)) for waveform in waveforms]
    assert sum(counts) == len(expected)


@pytest.mark.parametrize("chunks", [CodecChunks(), MelChunks()])
def test_counts_and_times(chunks):
    for seconds, codec, mel in ((1, 75, 74), (4, 300, 300), (5, 375, 374)):
        expected = codec if isinstance(chunks, CodecChunks) else mel
        assert chunks.n_frames(24000 * seconds) == expected
    for n_samples in (1, 320, 637, 96001, 96636, 96637, 200000):
        times = chunks.times_of(n_samples)
        assert len(times) == chunks.n_frames(n_samples) >= 1
        assert (np.diff(times) > 0).all()
        windows = chunks.windows(max(n_samples, chunks.min_samples))
        assert [window.start % 96000 for window in windows] == [0] * len(windows)


def test_tails_too_short_for_a_spectrum_give_no_frames():
    assert len(MelChunks().windows(96636)) == 1
    assert len(MelChunks().windows(96637)) == 2
    assert len(CodecChunks().windows(96001)) == 2
    assert MelChunks().times_of(96637)[-1] == (96000 + 320 / 2) / 24000


def test_times_of_the_codec_are_those_of_the_published_code():
    times = CodecChunks().times_of(127200)
    np.testing.assert_allclose(times, (np.arange(398) + 0.5) / 75, rtol=1e-12)


def test_random_weights_are_those_of_the_published_start():
    state = torch.random.get_rng_state()
    spec = RandomEncodecMAESpec(TINY, "codec", CODEC, seed=3)
    network = spec.network()
    assert torch.equal(state, torch.random.get_rng_state())
    assert network.scale == 1
    for name, parameter in network.named_parameters():
        if parameter.ndim == 2:
            bound = np.sqrt(6 / sum(parameter.shape))
            assert 0.9 * bound < parameter.abs().max() <= bound
        elif "norm" in name and name.endswith("weight"):
            assert (parameter == 1).all()
        elif name != "scale":
            assert (parameter == 0).all()


@pytest.mark.parametrize("front_end", ["codec", "mel"])
def test_a_seed_decides_random_weights(front_end, clips):
    one, same, other = (
        RandomEncodecMAESpec(TINY, front_end, CODEC, seed) for seed in (0, 0, 1)
    )
    assert one.identity == same.identity != other.identity
    layers = [run(spec, [clips["clip2_tail"]])[-1] for spec in (one, same, other)]
    np.testing.assert_array_equal(layers[0], layers[1])
    assert np.abs(layers[0] - layers[2]).max() > 0.1
    assert len(layers[0]) == one.n_frames(97500)


def test_random_weights_on_a_codec_that_does_not_fit(tmp_path):
    shutil.copytree(CODEC, tmp_path, dirs_exist_ok=True)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(
        config.replace('"use_causal_conv": true', '"use_causal_conv": false')
    )
    spec = RandomEncodecMAESpec(TINY, "codec", str(tmp_path))
    with pytest.raises(ValueError, match="not a causal EnCodec for one channel"):
        _ = spec.sample_rate
    assert not EnCodecSpec(str(tmp_path)).is_plain


def test_positions_are_coded_by_sines_at_even_and_cosines_at_odd_features():
    codes = sinusoids(300, 24)
    rate = 10000 ** (-6 / 24)
    np.testing.assert_allclose(codes[7, 6], np.sin(7 * rate), atol=1e-5)
    np.testing.assert_allclose(codes[7, 7], np.cos(7 * rate), atol=1e-5)


def test_parameters_of_the_published_models():
    """As the specification counts them; the paper says 51, 94 and 269 million."""
    stack = {"small": 18_109_696, "base": 29_921_536, "large": 92_036_096}
    for name, size in SIZES.items():
        projection = 129 * size.n_features + 1
        unique, per_layer = parameter_counts(size)
        assert unique == stack[name] + projection + 7_425_792
        network = 2 * size.n_features * 4096 + 4096 + size.n_features
        assert per_layer == unique + (size.n_layers - 1) * network
    assert SIZES["large"].n_attended == 1020


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    network = FrameEncoder(16, TINY)
    network(torch.randn(2, 9, 16)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize(
    "size",
    [
        "huge",
        {"n_layers": 2},
        {"n_layers": 0, "n_features": 8},
        {"n_layers": 2, "n_features": 8, "depth": 1},
        {"n_layers": 2, "n_features": 8, "n_heads": 9},
        {"n_layers": 2.0, "n_features": 8},
    ],
)
def test_sizes_that_are_not_known(size):
    with pytest.raises(ValueError, match="size="):
        make_size(size)
