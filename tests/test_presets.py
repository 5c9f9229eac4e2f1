"""Names of models: what they set, how they are changed, how wide they are."""

import re

import numpy as np
import pytest
import transformers
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import skaudioemb
from skaudioemb import (
    CREPE,
    Fusion,
    HuBERT,
    LogMel,
    Wav2Vec2,
    list_embedders,
    make_embedder,
    presets,
)
from skaudioemb.encoders.byol_published import PUBLISHED
from skaudioemb.preset_table import PRESETS
from skaudioemb.presets import FIDELITIES, get_preset
from tests.encodecmae_models import encodecmae_params
from tests.models import CHECKPOINTS, byol_file, small_probe

# Sizes of the published checkpoints: features and blocks.
SIZES = {
    "facebook/hubert-base-ls960": (768, 12),
    "facebook/hubert-large-ll60k": (1024, 24),
    "facebook/hubert-xlarge-ll60k": (1280, 48),
    "facebook/wav2vec2-base": (768, 12),
    "facebook/wav2vec2-large-100k-voxpopuli": (1024, 24),
    "facebook/wav2vec2-large-960h-lv60-self": (1024, 24),
    "microsoft/wavlm-base-plus": (768, 12),
    "microsoft/wavlm-large": (1024, 24),
}
ESTIMATORS = {m.estimator for p in PRESETS.values() for m in p.members.values()}
CLASSES = {name: getattr(skaudioemb, name) for name in (*ESTIMATORS, "Fusion")}
CONFIGS = {
    "HuBERT": transformers.HubertConfig,
    "Wav2Vec2": transformers.Wav2Vec2Config,
    "WavLM": transformers.WavLMConfig,
}
TINY = {
    "hubert__checkpoint": CHECKPOINTS / "hubert-xlarge-like",
    "wav2vec2__checkpoint": CHECKPOINTS / "wav2vec2-large-like",
}


def make_tiny(name, *args, **params):
    """Make a preset with the tiny checkpoints in the place of its own."""
    members = get_preset(name).members
    tiny = {key: TINY[key] for key in TINY if key.partition("__")[0] in members}
    return make_embedder(name, *args, **{**tiny, **params})


def both(function):
    """Run a test for every name in both fidelities."""
    function = pytest.mark.parametrize("fidelity", FIDELITIES)(function)
    return pytest.mark.parametrize("name", list_embedders())(function)


def at_home(preset, name):
    """Return a nested parameter's name as the preset's estimator has it."""
    return name if preset.is_fusion else name.partition("__")[2]


@both
def test_every_name_makes_a_plain_embedder(name, fidelity):
    preset = get_preset(name)
    embedder = make_embedder(name, fidelity)
    params = embedder.get_params()
    assert type(embedder).__name__ == preset.estimator
    for member, model in preset.members.items():
        own = embedder[member] if preset.is_fusion else embedder
        assert type(own).__name__ == model.estimator
        assert model.params.items() <= own.get_params().items()
    settings = {**preset.settings, **(preset.paper if fidelity == "paper" else {})}
    for key, value in settings.items():
        assert params[at_home(preset, key)] == value
    shown = repr(embedder)
    assert repr(eval(shown, CLASSES)) == shown
    assert repr(clone(embedder)) == shown
    assert repr(clone(embedder).set_params(**params)) == shown


@pytest.mark.parametrize("name", list_embedders())
def test_fidelities_differ_in_what_is_listed_only(name):
    preset = get_preset(name)
    corrected, paper = (make_embedder(name, f).get_params() for f in FIDELITIES)
    differing = {
        key: value
        for key, value in paper.items()
        if repr(value) != repr(corrected[key]) and "(" not in repr(value)
    }
    assert differing == {at_home(preset, k): v for k, v in preset.paper.items()}
    assert make_embedder(name).get_params().keys() == corrected.keys()
    assert repr(make_embedder(name)) == repr(make_embedder(name, "corrected"))


@pytest.mark.parametrize("name", list_embedders())
def test_transformers_get_the_waveform_they_were_trained_with(name):
    """The base ones were trained on raw waveforms, the larger ones on scaled clips."""
    preset = get_preset(name)
    for member, model in preset.members.items():
        if model.weights not in SIZES or name == "hear_wav2vec2":
            continue
        wide = SIZES[model.weights][0] > 768
        expected = "zero-mean-unit-var" if wide else "none"
        assert preset.settings[f"{member}__normalize"] == expected


@pytest.fixture(scope="module")
def published_sizes(tmp_path_factory):
    """Return a function from a model to a folder that has its sizes, no weights."""

    def save(model):
        width, blocks = SIZES[model.weights]
        folder = tmp_path_factory.mktemp("sizes")
        CONFIGS[model.estimator](
            hidden_size=width, num_hidden_layers=blocks, num_attention_heads=16
        ).save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text('{"do_normalize": true}')
        return folder

    return save


@both
def test_widths_are_as_listed(name, fidelity, clips, published_sizes):
    preset = get_preset(name)
    if preset.estimator == "OpenSMILE":
        pytest.importorskip("opensmile")
    folders = {
        f"{member}__checkpoint": published_sizes(model)
        for member, model in preset.members.items()
        if model.weights in SIZES
    }
    for member, model in preset.members.items():
        if model.weights in PUBLISHED:
            file = byol_file(model.params["encoder"], model.n_features)
            folders[f"{member}__weights"] = file
    for member, model in preset.members.items():
        for key, value in encodecmae_params(model).items():
            folders[f"{member}__{key}"] = value
    for model in preset.members.values():
        if model.weights in SIZES:
            assert model.n_features == SIZES[model.weights][0]
    embedder = make_embedder(name, fidelity, **folders).fit(clips)
    assert len(embedder.get_feature_names_out()) == preset.n_features
    # The mean over frames, undivided, is as wide as a frame.
    frames = clone(embedder).set_params(segments=None, pooling="mean").fit(clips)
    assert len(frames.get_feature_names_out()) == preset.n_frame_features


@pytest.mark.parametrize("name", ["crepe", "crepe_tiny", "logmel"])
def test_bundled_models_run(name, clips):
    preset = get_preset(name)
    embedder = make_embedder(name)
    assert embedder.fit_transform(clips[:2]).shape == (2, preset.n_features)
    assert embedder.frames(clips[:1])[0].values.shape[1] == preset.n_frame_features


def test_corrected_is_the_fusion_that_is_documented(clips):
    """True times, blocks, one hop, the scale that each checkpoint was trained with."""
    scaled = {"layers": "mean", "normalize": "zero-mean-unit-var"}
    by_hand = Fusion(
        [
            ("hubert", HuBERT(TINY["hubert__checkpoint"], **scaled)),
            ("wav2vec2", Wav2Vec2(TINY["wav2vec2__checkpoint"], **scaled)),
            ("crepe", CREPE(hop=0.05)),
        ],
        merge="concat",
        align="time",
        reference="wav2vec2",
        n_features=16,
    )
    preset = make_tiny("fusion_cat_xwc")
    expected = by_hand.fit_transform(clips)
    np.testing.assert_allclose(preset.fit_transform(clips), expected, atol=1e-5)
    scenes = [frames.values.mean(axis=0) for frames in preset.frames(clips)]
    np.testing.assert_allclose(scenes, expected, atol=1e-5)
    groups = make_tiny("fusion_cat_xwc_g").fit_transform(clips)
    expected = by_hand.set_params(segments=5).fit_transform(clips)
    np.testing.assert_allclose(groups, expected, atol=1e-5)


@pytest.mark.parametrize(
    "difference",
    [
        *("align", "merge", "hubert__normalize", "wav2vec2__normalize"),
        "crepe__scene_hop",
    ],
)
def test_each_difference_between_the_fidelities_matters(difference, clips, tmp_path):
    name = "fusion_cat_xwc"
    corrected = make_tiny(name, memory=tmp_path).fit_transform(clips)
    published = {difference: get_preset(name).paper[difference]}
    changed = make_tiny(name, memory=tmp_path, **published).fit_transform(clips)
    assert np.abs(changed - corrected).max() > 1e-3


def test_long_clips_are_cut_into_windows_unless_as_published():
    time = np.arange(63 * 16000) / 16000
    clip = (0.1 * np.sin(2 * np.pi * 300 * time * (1 + time / 60))).astype("f4")
    published, windows, whole = (
        make_tiny("hubert_xlarge", fidelity, normalize="none", **params)
        .frames([clip])[0]
        .values
        for fidelity, params in (
            ("paper", {}),
            ("corrected", {}),
            ("corrected", {"max_seconds": None}),
        )
    )
    np.testing.assert_array_equal(published, whole)
    assert published.shape == windows.shape
    assert np.abs(published - windows).max() > 1e-3


def test_one_keyword_serves_many_presets():
    folder = TINY["hubert__checkpoint"]
    names = [name for name in list_embedders() if "hubert" in get_preset(name).members]
    assert {"hubert_xlarge", "fusion_cat_xwc"} < set(names)
    for name in names:
        embedder = make_embedder(name, hubert__checkpoint=folder, hubert__layers=3)
        hubert = embedder["hubert"] if isinstance(embedder, Fusion) else embedder
        assert (hubert.checkpoint, hubert.layers) == (folder, 3)
    alone = make_embedder("hubert", checkpoint=folder)
    assert repr(alone) == repr(make_embedder("hubert", hubert__checkpoint=folder))
    assert make_embedder("crepe_tiny", crepe__hop=0.1).hop == 0.1


def test_parameters_of_a_fusion_and_of_all_its_members(tmp_path):
    fusion = make_embedder(
        "avg_xwc",
        n_features=16,
        segments=2,
        memory=tmp_path,
        on_error="nan",
        batch_seconds=5.0,
        device="cpu",
        crepe__batch_seconds=9.0,
    )
    assert (fusion.n_features, fusion.segments, fusion.memory) == (16, 2, tmp_path)
    assert fusion.on_error == "nan"
    members = fusion.named_embedders.values()
    assert [member.batch_seconds for member in members] == [5.0, 5.0, 9.0]
    assert {member.device for member in members} == {"cpu"}
    own = LogMel(n_mels=8)
    changed = make_embedder("avg_xwc", device="cpu", crepe=own, hubert="drop")
    assert changed["crepe"] is own
    assert own.device == "auto"
    assert changed["hubert"] == "drop"
    assert changed["wav2vec2"].device == "cpu"


def test_without_resizing_members_keep_their_widths(clips, published_sizes):
    preset = get_preset("fusion_cat_xwc")
    folders = {
        f"{name}__checkpoint": published_sizes(preset.members[name])
        for name in ("hubert", "wav2vec2")
    }
    fusion = make_embedder("fusion_cat_xwc", n_features=None, **folders).fit(clips)
    assert len(fusion.get_feature_names_out()) == 1280 + 1024 + 2048


def test_a_grid_over_a_preset(clips, tmp_path, counted):
    rng = np.random.default_rng(2)
    X = [rng.normal(0, 0.1, n).astype("f4") for n in range(6000, 6012)]
    y = np.arange(len(X)) % 2
    fusion = make_tiny("cat_xwc", memory=tmp_path)
    grid = {
        "fusion__merge": ["concat", "interleave", "mean"],
        "fusion__hubert__layers": ["last", "mean"],
        "fusion__crepe": ["drop", fusion["crepe"]],
        "fusion__n_features": ["reference", 8],
    }
    pipeline = make_pipeline(fusion, small_probe(max_epochs=2))
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 24
    assert counted().run == 3 * len(X)


def test_patterns_and_aliases():
    assert list_embedders() == sorted(list_embedders())
    assert list_embedders("wav2*") == ["wav2vec2", "wav2vec2_large"]
    assert "fusion_cat_xwc_time" not in list_embedders()
    assert get_preset("fusion_cat_xwc_time") is get_preset("fusion_cat_xwc_g")
    assert make_embedder("fusion_cat_xwc_time").segments == 5
    assert make_embedder("logmel", n_mels=8).get_params() == LogMel(8).get_params()


def test_what_is_known_of_each_name():
    for name in list_embedders():
        preset = get_preset(name)
        assert preset.paper.keys() <= preset.settings.keys()
        assert all((preset.summary, preset.source, preset.licence))
        for model in preset.members.values():
            has_checkpoint = model.params.get("checkpoint") is not None
            assert (model.revision is None) == (not has_checkpoint)
    assert get_preset("hear_wav2vec2").licence == "CC BY-NC 4.0"
    documented = set(re.findall(r"``(\w+)=", presets.__doc__))
    assert {"align", "merge", "normalize", "max_seconds"} <= documented


@pytest.mark.parametrize(
    ("name", "params", "match"),
    [
        ("crep", {}, r"no model called 'crep'\. Known are avg_hubert_crepe, "),
        ("crepe", {"fidelity": "exact"}, "fidelity='exact' .*'corrected'.*'paper'"),
        ("logmel", {"bands": 8}, "Invalid parameter 'bands'"),
        ("hubert", {"crepe__hop": 0.1}, "Invalid parameter 'crepe'"),
        ("avg_xwc", {"hop": 0.1}, "Invalid parameter 'hop'"),
        ("avg_xwc", {"hubert__hop": 0.1}, "Invalid parameter 'hop'"),
        ("hubert", {"layers": 1, "hubert__layers": 2}, "hubert__layers and layers are"),
        (
            "cat_wc",
            {"crepe": "drop", "crepe__hop": 0.1},
            r"crepe__hop.*'crepe' is",
        ),
        (None, {}, "no model called 'None'"),
        (["crepe"], {}, r"no model called .\['crepe'\]"),
    ],
)
def test_mistakes_get_a_sentence(name, params, match):
    with pytest.raises(ValueError, match=match):
        make_embedder(name, **params)
