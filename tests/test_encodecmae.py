"""EncodecMAE and EnCodec as estimators: scenes, frames, times, names."""

import numpy as np
import pytest
import torch

from skaudioemb import EnCodec, EncodecMAE, HFAudioModel, make_embedder
from skaudioemb.encoders.encodecmae_network import SIZES, parameter_counts
from skaudioemb.presets import get_preset, list_embedders
from tests.encodecmae_models import close, golden_arrays, golden_clips
from tests.models import ENCODECMAE, hf_folder
from tests.sounds import noise

CODEC = ENCODECMAE / "tiny-encodec"
TINY = {"n_layers": 2, "n_features": 24, "n_heads": 4, "n_hidden": 48}


@pytest.fixture(scope="module")
def clips():
    return golden_clips()


@pytest.fixture(scope="module")
def golden():
    return golden_arrays()


def make(file="ec-ec-v1.pt", **params):
    return EncodecMAE(
        ENCODECMAE / file, **{"n_heads": 4, "sample_rate": 24000, **params}
    )


@pytest.mark.parametrize(
    ("file", "arrays"), [("ec-ec-v1.pt", "ec_ec"), ("mel256-ec-v2.pt", "mel256_ec")]
)
def test_scenes_are_means_of_all_frames(file, arrays, clips, golden):
    names = ["clip0", "clip1", "clip2", "clip3"]
    X = [clips[name] for name in names]
    expected = np.stack([golden[arrays][f"{name}/scene"] for name in names])
    close(make(file).fit_transform(X), expected)
    for frames, name in zip(make(file).frames(X), names, strict=True):
        close(frames.values, golden[arrays][f"{name}/combined"])
    close(
        make(file).transform([clips["clip2_tail"]])[0],
        golden[arrays]["clip2_tail/scene_tail_kept"],
    )


def test_layers(clips, golden):
    expected = golden["ec_ec"]["clip2/x0_layers"]
    (frames,) = make(layers=[1, 2]).frames([clips["clip2"]])
    close(frames.values, expected[:2].mean(0))
    teacher = make(stream="normed").transform([clips["clip2"]])
    close(teacher[0], expected[-1].mean(0))
    (every,) = make(layers="all").fit_transform([clips["clip2"]])
    close(every.reshape(4, 24)[1:3], expected[:2].mean(1))


def test_long_clips_run_in_any_batches(clips):
    long = np.concatenate([clips["clip2"], clips["clip1"], clips["clip3"]])
    expected = make(pooling="max", segments=3).transform([long, clips["clip0"]])
    for seconds in (0.5, 9.0):
        embedder = make(pooling="max", segments=3, batch_seconds=seconds)
        close(embedder.transform([long, clips["clip0"]]), expected, 1e-5)


def test_times_are_seconds(clips):
    (codec,) = make().frames([clips["clip2"]])
    np.testing.assert_allclose(codec.times[:-1], (np.arange(397) + 0.5) / 75)
    # The last frame has but 160 samples.
    assert codec.times[-1] == len(clips["clip2"]) / 24000
    (mel,) = make("mel256-ec-v2.pt").frames([clips["clip2"]])
    np.testing.assert_allclose(mel.times, (np.arange(len(mel.times)) + 0.5) / 75)


@pytest.mark.parametrize("n_samples", [96036, 96300, 96636])
def test_a_tail_too_short_for_a_spectrum_changes_nothing(n_samples):
    whole = noise(n_samples, seed=0)
    embedder = make("mel256-ec-v2.pt")
    alone = embedder.transform([whole])
    close(alone, embedder.transform([whole[:96000]]), 1e-6)
    beside = embedder.transform([whole, noise(200_000, seed=1)])
    close(beside[:1], alone, 1e-5)


@pytest.mark.parametrize("n_samples", [1, 2, 100, 319])
def test_clips_shorter_than_a_frame_are_not_padded(n_samples):
    # As the last chunk of a longer clip, which always kept its length.
    tail = noise(n_samples, seed=n_samples)
    (longer,) = make().frames([np.concatenate([noise(96000), tail])])
    (alone,) = make().frames([tail])
    assert alone.values.shape == (1, 24)
    close(alone.values, longer.values[300:], 1e-5)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_any_rate_is_resampled_to_24_khz(rate, clips):
    seconds = 1.0
    times = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * 440 * times) * np.hanning(len(times))
    (frames,) = make(sample_rate=rate).frames([tone])
    assert len(frames.times) == 75


def test_encodec_is_the_codec_baseline(clips, golden):
    names = ["clip0", "clip1", "clip2", "clip3"]
    model = EnCodec(CODEC, sample_rate=24000)
    expected = np.stack([golden["ec_ec"][f"{name}/ec_baseline"] for name in names])
    close(model.fit_transform([clips[name] for name in names]), expected)
    (frames,) = model.frames([clips["clip2"]])
    close(frames.values, golden["ec_ec"]["clip2/features"])
    close(
        model.transform([clips["clip2_tail"]])[0],
        golden["ec_ec"]["clip2_tail/ec_baseline_tail_kept"],
    )


def test_encodec_equals_hfaudiomodel_up_to_4_seconds(clips):
    folder = hf_folder("encodec")
    X = [clips["clip0"], clips["clip3"][:40001]]
    expected = HFAudioModel(folder, sample_rate=24000).transform(X)
    close(EnCodec(folder, sample_rate=24000).transform(X), expected, 1e-5)


def test_stereo_codecs_run_as_hfaudiomodel_runs_them():
    folder, X = hf_folder("encodec-stereo"), [noise(9000), noise(4001)]
    np.testing.assert_array_equal(
        EnCodec(folder).fit_transform(X), HFAudioModel(folder).fit_transform(X)
    )


def test_encodec_of_another_model():
    with pytest.raises(ValueError, match=r"is no EnCodec\. Use HFAudioModel"):
        EnCodec(hf_folder("data2vec")).fit([noise(4000)])


def test_untrained_models_hear_the_same_codec(clips):
    X = [clips["clip2_tail"]]
    untrained = EncodecMAE(
        None, max_epochs=0, size=TINY, codec=CODEC, sample_rate=24000
    )
    one, same, other = (
        untrained.set_params(random_state=seed).transform(X) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01
    assert untrained.fit(X).n_layers_ == 3


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"size": "tiny"}, "size"),
        ({"size": {"n_layers": 1}}, "size=.*n_features"),
        ({"front_end": "wave"}, "front_end"),
        ({"random_state": -1}, "random_state"),
        ({"checkpoint": ENCODECMAE / "ec-ec-v1.pt", "n_heads": 7}, "n_heads=7"),
        ({"checkpoint": ENCODECMAE / "ec-ec-v1.pt", "stream": "x0"}, "stream"),
        ({"checkpoint": CODEC / "config.json"}, r"config\.json"),
    ],
)
def test_bad_parameters_get_a_sentence(params, match):
    embedder = EncodecMAE(
        **{"checkpoint": None, "max_epochs": 0, "front_end": "mel", **params}
    )
    with pytest.raises(ValueError, match=match):
        embedder.fit([noise(4000)])


def test_every_row_of_the_papers_table_has_a_name():
    rows = [get_preset(name).source for name in list_embedders("encodec*")]
    for row in ("EC", "ECMAE-R", *(f"ECMAE-{s}" for s in ("S", "B", "L"))):
        assert sum(source.endswith(f"Table 1, {row}") for source in rows) == 1
    for row in ("ECMAE-B+ST", "ECMAE-L+ST"):
        assert sum(source.endswith(f"Table 1, {row}") for source in rows) == 1


@pytest.mark.parametrize("name", list_embedders("encodecmae*"))
def test_presets_state_widths_and_parameters(name):
    preset = get_preset(name)
    size = SIZES[next((s for s in SIZES if s in name), "base")]
    inputs = (256, 0) if "mel256" in name else (128, 7_425_792)
    unique, per_layer = parameter_counts(size, *inputs)
    assert preset.n_features == preset.n_frame_features == size.n_features
    assert f"{size.n_layers} layers" in preset.summary
    assert f" {unique / 1e6:.1f}M parameters" in preset.summary
    if "Table 1" in preset.source and "large" not in name:
        assert f"({per_layer / 1e6:.0f}M as the paper" in preset.summary


def test_presets_make_embedders(clips):
    random = make_embedder("encodecmae_random", codec=CODEC, size=TINY)
    (model,) = get_preset("encodecmae_random").members.values()
    assert (random.checkpoint, model.weights, model.revision) == (None, "", None)
    assert random.fit_transform([clips["clip0"]]).shape == (1, 24)
    assert make_embedder("encodec").checkpoint == "facebook/encodec_24khz"
    mel = make_embedder("encodecmae_mel256_ec_base_st")
    assert mel.checkpoint == "lpepino/encodecmae-v2/mel256-ec-base_st.pt"


@pytest.mark.parametrize(("n_attended", "n_heads"), [(24, 12), (16, 16)])
def test_heads_are_those_that_fit_the_queries(n_attended, n_heads, clips, tmp_path):
    content = torch.load(ENCODECMAE / "mel256-ec-v2.pt", weights_only=True)
    state = content["state_dict"]
    for name, value in state.items():
        if ".att_layer.w" in name:
            last = name.endswith(".wo.weight")
            state[name] = value[:, :n_attended] if last else value[:n_attended]
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    found, expected = (
        EncodecMAE(tmp_path / "w.pt", n_heads=n).transform([clips["clip0"]])
        for n in (None, n_heads)
    )
    np.testing.assert_array_equal(found, expected)
