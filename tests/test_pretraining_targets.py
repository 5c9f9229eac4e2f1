"""Targets of a masked autoencoder: a codec's codes, or random projections."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    MimiConfig,
    MimiModel,
)

from skaudioemb.encoders.encodecmae_frontends import MelFrontEnd
from skaudioemb.pretraining.hearing import Hearing
from skaudioemb.pretraining.random_projection import RandomProjectionTargets
from skaudioemb.pretraining.targets import (
    CodecTargets,
    codec_frames,
    frames_of,
    places_of,
    shares_of,
)
from tests.encodecmae_models import golden_arrays, golden_clips
from tests.pretraining_encodecmae import (
    CPU,
    TINY,
    batch_of,
    codec_front_end,
    load_codec,
    make_clips,
    run,
)
from tests.sounds import noise


@pytest.fixture(scope="module")
def golden():
    return golden_arrays()["ec_ec"]


@pytest.fixture(scope="module")
def targets():
    return CodecTargets(load_codec(), 8, CPU)


def make_dac():
    config = DacConfig(
        encoder_hidden_size=4,
        downsampling_ratios=[2, 4, 5, 8],
        decoder_hidden_size=16,
        n_codebooks=4,
        codebook_size=16,
        codebook_dim=4,
        sampling_rate=24000,
    )
    torch.manual_seed(0)
    return DacModel(config).eval()


def make_mimi():
    config = MimiConfig(
        hidden_size=16,
        num_filters=2,
        upsample_groups=16,
        num_hidden_layers=1,
        intermediate_size=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        codebook_size=16,
        codebook_dim=8,
        vector_quantization_hidden_dimension=8,
        num_quantizers=4,
    )
    torch.manual_seed(0)
    codec = MimiModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    for module in codec.quantizer.modules():
        if hasattr(module, "embed_sum"):
            module.embed_sum.normal_(std=0.01, generator=generator)
    return codec


def test_codes_equal_the_published_ones(targets, golden):
    waveform = torch.from_numpy(golden_clips()["clip0"])[None]
    latents = targets.latents(waveform)
    np.testing.assert_allclose(latents[0], golden["clip0/features"], atol=1e-3)
    codes = targets.codes(latents)[0].T.numpy()
    clear = np.logical_and.accumulate(golden["clip0/rvq_margin"] > 1e-3, axis=0)
    assert clear.mean() > 0.9
    assert np.array_equal(codes[clear], golden["clip0/rvq_codes"][clear])


def test_gamma_equals_the_published_error(targets, golden):
    latents = torch.from_numpy(golden["clip2/features"])[None]
    energy = targets.errors(latents)[0].mean(0)
    np.testing.assert_allclose(energy, golden["gamma/residual_energy_clip2"], 1e-4)
    gamma = shares_of(energy)
    np.testing.assert_allclose(gamma, golden["gamma/normalised_clip2"], 1e-4)
    assert gamma.sum().item() == pytest.approx(1)


def test_a_perfect_codec_has_equal_shares():
    assert torch.equal(shares_of(torch.zeros(4)), torch.full((4,), 0.25))


def test_gamma_is_learned_from_whole_frames_of_the_crops(targets):
    # Zeros after a clip would count as frames else.
    clips = [make_clips(1)[0][:9600], make_clips(2)[1][:4800]]
    found = run(
        replace(TINY, targets="codec", max_epochs=1),
        clips=clips,
        front_end=codec_front_end(),
        codec=load_codec(),
    ).state["training"]["task"]["gamma"]
    errors = [targets.errors(targets.latents(torch.from_numpy(c)[None])) for c in clips]
    expected = shares_of(torch.cat(errors, dim=1)[0].sum(0))[:3]
    torch.testing.assert_close(found, expected / expected.sum(), rtol=1e-4, atol=0)


def test_gamma_is_equal_or_given():
    for gamma, expected in (
        ("auto", [1 / 3] * 3),
        ("uniform", [1 / 3] * 3),
        ((0.5, 0.3, 0.2), [0.5, 0.3, 0.2]),
    ):
        done = run(replace(TINY, max_epochs=1, gamma=gamma))
        found = done.state["training"]["task"]["gamma"]
        torch.testing.assert_close(found, torch.tensor(expected))


def test_the_codec_runs_once_where_it_is_the_front_end(targets):
    assert targets.shares_encoder(codec_front_end())
    other = codec_front_end()
    other.last.bias += 1
    assert not targets.shares_encoder(other)
    assert not targets.shares_encoder(MelFrontEnd(CPU))
    batch = batch_of(make_clips(2))
    shared, apart = (
        Hearing(front_end, "codec", load_codec(), 8, CPU)(batch)
        for front_end in (codec_front_end(), other)
    )
    assert shared.material.data_ptr() == shared.features.data_ptr()
    assert torch.equal(shared.material, apart.material)
    assert not torch.equal(apart.material, apart.features)


def test_all_clips_at_once_have_the_frames_of_one_by_one():
    waveforms = torch.from_numpy(noise(3, 5000))
    front_end = codec_front_end()
    together = codec_frames(front_end, waveforms)
    torch.testing.assert_close(together, frames_of(front_end, waveforms))


@pytest.mark.parametrize(
    ("make", "options"),
    [(make_dac, {"n_quantizers": 3}), (make_mimi, {"num_quantizers": 3})],
)
def test_other_codecs_give_the_codes_that_they_give(make, options):
    codec = make()
    targets = CodecTargets(codec, 3, CPU)
    waveforms = torch.from_numpy(np.stack([noise(24000, seed=k) for k in range(2)]))
    latents = targets.latents(waveforms)
    codes = targets.codes(latents)
    expected = codec.encode(waveforms[:, None], **options).audio_codes
    assert torch.equal(codes.transpose(1, 2), expected)
    assert codes.unique().numel() > 4
    errors = targets.errors(latents).mean((0, 1))
    assert errors.shape == (3,)
    assert (errors > 0).all()
    done = run(replace(TINY, targets="codec", max_epochs=1), codec=codec)
    assert np.isfinite(done.history[0]["loss"])


def test_errors_fall_from_codebook_to_codebook(targets):
    latents = targets.latents(torch.from_numpy(np.stack(make_clips(1))))
    errors = targets.errors(latents).mean((0, 1))
    assert (errors.diff() < 0).all()


def test_frames_have_the_code_nearest_in_time():
    assert places_of(75, 320, 74, 320).tolist() == list(range(74))
    assert places_of(6, 320, 9, 160).tolist() == [1, 3, 5, 7]
    coarse = places_of(300, 320, 50, 1920)
    assert coarse.bincount().tolist() == [6] * 50


def test_frames_and_targets_have_one_length():
    batch = batch_of([noise(24000), noise(20000)])
    for front_end, kind in ((codec_front_end(), "mel"), (MelFrontEnd(CPU), "codec")):
        hear = Hearing(front_end, kind, load_codec(), 8, CPU)
        heard = hear(batch)
        # Of 74 spectra and 75 codes, and of 61 and 62.
        assert heard.features.shape[1] == heard.material.shape[1] == 74
        assert heard.n_whole.tolist() == [74, 61]
        if kind == "codec":
            latents = hear.codec.latents(batch.waveforms)
            assert torch.equal(heard.material, latents[:, :74])
    plain = Hearing(codec_front_end(), "codec", load_codec(), 8, CPU)
    assert plain(batch).n_whole.tolist() == [75, 62]
    coarse = Hearing(MelFrontEnd(CPU), "codec", make_mimi(), 2, CPU)
    heard = coarse(batch)
    latents = coarse.codec.latents(batch.waveforms)
    assert torch.equal(heard.material[:, 6:12], latents[:, 1:2].expand(-1, 6, -1))


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (lambda: make_encodec(audio_channels=2), "EnCodec of several channels"),
        (lambda: make_encodec(normalize=True), "changes levels"),
        (make_dac, r"n_codebooks=8 of a codec that has 4"),
    ],
)
def test_codecs_that_do_not_fit_are_told(codec, message):
    with pytest.raises(ValueError, match=message):
        CodecTargets(codec(), 8, CPU)


def test_a_codec_of_another_rate_needs_its_own_front_end():
    codec = make_encodec(sampling_rate=16000)
    with pytest.raises(ValueError, match="works at 16000 Hz, mel spectra at 24000"):
        Hearing(MelFrontEnd(CPU), "codec", codec, 1, CPU)


def make_encodec(**options):
    tiny = {"num_filters": 2, "hidden_size": 16, "codebook_size": 16}
    return EncodecModel(EncodecConfig(**tiny, num_lstm_layers=1, **options))


def test_another_model_is_no_codec():
    config = BertConfig(
        vocab_size=4,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
    )
    with pytest.raises(ValueError, match=r"type 'bert'; .* 'encodec', 'dac'"):
        CodecTargets(BertModel(config), 8, CPU)


@pytest.fixture(scope="module")
def spectra():
    front_end = MelFrontEnd(CPU)
    return front_end([torch.from_numpy(clip) for clip in make_clips(8)])


def make_projection(**options):
    options = {"n_codebooks": 4, "n_codes": 64, "seed": 0, **options}
    return RandomProjectionTargets(256, **options)


def test_random_codes_are_those_of_the_smallest_angle(spectra):
    targets = make_projection().learn([spectra])
    codes = targets(spectra)
    frame, k = spectra[11], 2
    scaled = (frame - spectra.mean(0)) / spectra.std(0, correction=0)
    scaled = torch.where(spectra.std(0) > 0, scaled, torch.zeros(()))
    projected = scaled @ targets.projections[k]
    words = targets.codewords[k].T
    torch.testing.assert_close(words.norm(dim=1), torch.ones(64))
    angles = torch.nn.functional.cosine_similarity(projected[None], words)
    assert codes[11, k] == angles.argmax()


def test_random_codes_spread(spectra):
    codes = make_projection().learn([spectra])(spectra)
    for k in range(4):
        shares = codes[:, k].bincount() / len(codes)
        entropy = -(shares * shares.clamp_min(1e-9).log()).sum()
        assert entropy.exp() > 16
    assert not torch.equal(codes[:, 0], codes[:, 1])


def test_statistics_of_spectra_do_not_depend_on_the_parts(spectra):
    whole, parts = make_projection().learn([spectra]), make_projection()
    parts.learn(iter(spectra.split(37)))
    torch.testing.assert_close(whole.mean, parts.mean)
    torch.testing.assert_close(whole.deviation, parts.deviation)
    torch.testing.assert_close(whole.mean, spectra.mean(0))


def test_a_constant_feature_and_silence_have_codes():
    frames = torch.full((20, 256), -2.0)
    silence = make_projection().learn([frames])(frames)
    assert (silence == silence[0]).all()
    frames[:, 7] = torch.arange(20.0)
    assert make_projection().learn([frames])(frames).unique().numel() > 1


def test_random_matrices_follow_the_seed(spectra):
    one, same, other = (
        make_projection(seed=seed).learn([spectra]) for seed in (3, 3, 4)
    )
    assert torch.equal(one(spectra), same(spectra))
    assert not torch.equal(one(spectra), other(spectra))


def test_no_frames_are_told():
    with pytest.raises(ValueError, match="no clip can be used"):
        make_projection().learn([])
