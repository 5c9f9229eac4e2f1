"""Fusion: merging, alignment, the published vectors, and one forward per grid."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skaudioemb import CREPE, Fusion, HuBERT, LogMel, MLPProbe, Wav2Vec2, make_fusion
from tests.models import CHECKPOINTS, GOLDEN

W = Wav2Vec2(CHECKPOINTS / "wav2vec2-large-like", normalize="none")
HX = HuBERT(CHECKPOINTS / "hubert-xlarge-like", normalize="none")
HL = HuBERT(CHECKPOINTS / "hubert-large-like", normalize="none")
C = CREPE()
MEAN_W, MEAN_HX = (clone(model).set_params(layers="mean") for model in (W, HX))
# As NTU-GURA merged them: stretched by index, resized to the width of wav2vec 2.0.
PUBLISHED = {
    "fusion_cat_xwc": ([MEAN_HX, MEAN_W, C], "interleave", None),
    "fusion_cat_xwc_time": ([MEAN_HX, MEAN_W, C], "interleave", 5),
    "cat_xwc": ([HX, W, C], "interleave", None),
    "avg_xwc": ([HX, W, C], "mean", None),
    "cat_wc": ([W, C], "interleave", None),
    "avg_hubert_crepe": ([HX, C], "mean", None),
    "cat_hubert_wav2vec2": ([HL, W], "concat", None),
    "avg_hubert_wav2vec2": ([HL, W], "mean", None),
}
# These two are shorter than the five groups; the reference gives NaN.
TOO_SHORT = ("n01600", "n00400")


@pytest.fixture(scope="module")
def golden_fusion():
    with np.load(GOLDEN / "fusion" / "fusion.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for all published fusions: each model runs each clip once."""
    return tmp_path_factory.mktemp("store")


def as_published(name, crepe_hop, store):
    members, merge, segments = PUBLISHED[name]
    fusion = make_fusion(
        *map(clone, members), merge=merge, align="index", n_features=16, memory=store
    )
    if merge != "concat" or C in members:
        crepe = {"crepe__hop": crepe_hop} if "crepe" in fusion.named_embedders else {}
        fusion.set_params(segments=segments, **crepe)
    return fusion


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_frames(name, golden_clips, golden_fusion, store):
    clips = {
        c: x
        for c, x in golden_clips.items()
        if f"{name}/{c}/timestamp" in golden_fusion
    }
    assert len(clips) >= 7
    fusion = as_published(name, 0.05, store)
    for clip, frames in zip(clips, fusion.frames(list(clips.values())), strict=True):
        expected = golden_fusion[f"{name}/{clip}/timestamp"]
        np.testing.assert_allclose(frames.values, expected, rtol=0, atol=2e-4)
        milliseconds = golden_fusion[f"{name}/{clip}/timestamps_ms"]
        np.testing.assert_array_equal((frames.times * 1000).astype("f4"), milliseconds)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_scenes(name, golden_clips, golden_fusion, store):
    clips = {
        c: x for c, x in golden_clips.items() if f"{name}/{c}/scene" in golden_fusion
    }
    if name.endswith("_time"):
        assert not set(clips) & set(TOO_SHORT)
    scenes = as_published(name, 0.25, store).fit_transform(list(clips.values()))
    for clip, scene in zip(clips, scenes, strict=True):
        expected = golden_fusion[f"{name}/{clip}/scene"]
        np.testing.assert_allclose(scene, expected, rtol=0, atol=1e-4)


def test_length_at_which_the_reference_stops(golden_clips, golden_fusion, store):
    clip = golden_clips["n16080"]
    frames = as_published("fusion_cat_xwc", 0.05, store).frames([clip])[0]
    expected = golden_fusion["asserts_off/fusion_cat_xwc/n16080/timestamp"]
    np.testing.assert_allclose(frames.values, expected, rtol=0, atol=2e-4)
    np.testing.assert_allclose(frames.times, 0.0125 + 0.02 * np.arange(50))
    scene = as_published("fusion_cat_xwc", 0.25, store).transform([clip])[0]
    expected = golden_fusion["asserts_off/fusion_cat_xwc/n16080/scene"]
    np.testing.assert_allclose(scene, expected, rtol=0, atol=1e-4)


def test_features_resized_to_more_than_there_are(golden_clips, golden_fusion):
    fusion = make_fusion(
        clone(HX), CREPE(), merge="mean", align="index", n_features=1024
    )
    for clip in ("n05000", "n01600"):
        frames = fusion.frames([golden_clips[clip]])[0]
        expected = golden_fusion[f"avg_hubert_crepe_1024/{clip}/timestamp"]
        np.testing.assert_allclose(frames.values, expected, rtol=0, atol=2e-4)


def small_fusion(**params):
    return Fusion(
        [
            ("hubert", HuBERT(CHECKPOINTS / "hubert-large-like")),
            ("crepe", CREPE("tiny", hop=0.05)),
            ("logmel", LogMel(n_mels=8, hop=0.02)),
        ],
        **params,
    )


@pytest.mark.parametrize("merge", ["concat", "interleave", "mean"])
@pytest.mark.parametrize("align", ["time", "index"])
@pytest.mark.parametrize("reference", [None, "crepe", "logmel"])
def test_scene_is_the_mean_of_merged_frames(clips, merge, align, reference):
    fusion = small_fusion(merge=merge, align=align, reference=reference)
    scenes = fusion.fit_transform(clips)
    for scene, frames in zip(scenes, fusion.frames(clips), strict=True):
        np.testing.assert_allclose(scene, frames.values.mean(axis=0), atol=1e-5)


def test_time_alignment_reads_members_at_the_references_centres(clips):
    fusion = small_fusion(reference="hubert")
    (merged,), (hubert,), (crepe,) = (
        e.frames(clips[-1:]) for e in (fusion, fusion["hubert"], fusion["crepe"])
    )
    np.testing.assert_array_equal(merged.times, hubert.times)
    np.testing.assert_allclose(merged.values[:, :16], hubert.values, atol=1e-5)
    for feature in (0, 100, 255):
        expected = np.interp(hubert.times, crepe.times, crepe.values[:, feature])
        np.testing.assert_allclose(merged.values[:, 16 + feature], expected, atol=1e-5)


def test_reference_is_the_member_with_the_most_frames(clips):
    fusion = small_fusion()
    assert len(fusion.frames(clips[-1:])[0].times) == 1 + 16000 // 320
    fusion.set_params(logmel="drop")
    assert len(fusion.frames(clips[-1:])[0].times) == (16000 - 400) // 320 + 1


def test_widths(clips):
    def width(**params):
        return small_fusion(**params).fit_transform(clips[:2]).shape[1]

    assert width() == 16 + 256 + 8
    assert width(n_features=10) == 30
    assert width(n_features="reference", reference="hubert") == 48
    assert width(merge="interleave", reference="hubert") == 48
    assert width(merge="mean", reference="crepe") == 256
    assert width(segments=4) == 4 * 280
    assert width(segments=4, pooling="max") == 4 * 280


def test_feature_names(clips):
    fusion = small_fusion(n_features=2, merge="interleave", segments=2).fit(clips)
    assert fusion.get_feature_names_out().tolist()[:7] == [
        "segment0__hubert__0",
        "segment0__crepe__0",
        "segment0__logmel__0",
        "segment0__hubert__1",
        "segment0__crepe__1",
        "segment0__logmel__1",
        "segment1__hubert__0",
    ]


def test_members_are_parameters(clips):
    fusion = small_fusion()
    assert fusion.get_params()["hubert__layers"] == "last"
    last = fusion.fit_transform(clips)
    mean = clone(fusion).set_params(hubert__layers="mean").fit_transform(clips)
    assert np.abs(mean[:, :16] - last[:, :16]).max() > 0.1
    np.testing.assert_array_equal(mean[:, 16:], last[:, 16:])
    replaced = clone(fusion).set_params(crepe=LogMel(n_mels=4), logmel="drop")
    assert replaced.fit_transform(clips).shape[1] == 16 + 4


def test_fit_leaves_the_given_members_alone(clips, tmp_path):
    fusion = small_fusion(memory=tmp_path).fit(clips)
    assert fusion["hubert"].memory is None
    assert dict(fusion.embedders_)["hubert"].memory == tmp_path
    assert list(tmp_path.glob("*")) == []


@pytest.mark.parametrize(
    ("members", "params", "error", "match"),
    [
        ([("a", "drop")], {}, ValueError, "Every member is dropped"),
        ([("a", 3)], {}, TypeError, "Member 'a' is 3"),
        ([LogMel()], {}, TypeError, "no .name, embedder. pair.*make_fusion"),
        ([("a", LogMel()), ("a", LogMel())], {}, ValueError, "not unique"),
        ([("a", LogMel())], {"reference": "b"}, ValueError, r"not among .* \['a'\]"),
        ([("a", LogMel())], {"merge": "sum"}, ValueError, "merge"),
        ([("a", LogMel())], {"n_features": 0}, ValueError, "n_features"),
    ],
)
def test_bad_fusions_get_a_sentence(clips, members, params, error, match):
    with pytest.raises(error, match=match):
        Fusion(members, **params).fit(clips)


@pytest.fixture
def labelled(clips):
    rng = np.random.default_rng(1)
    more = [rng.normal(0, 0.1, n).astype(np.float32) for n in range(6000, 6012)]
    return clips + more, np.arange(len(clips) + len(more)) % 2


def test_a_grid_runs_each_clip_once_through_each_model(labelled, tmp_path, counted):
    X, y = labelled
    pipeline = make_pipeline(
        small_fusion(memory=tmp_path), MLPProbe(hidden_units=8, max_epochs=3)
    )
    grid = {
        "fusion__merge": ["concat", "interleave", "mean"],
        "fusion__hubert__layers": ["last", "mean", [0, 1]],
        "fusion__logmel": ["drop", LogMel(n_mels=8, hop=0.02)],
        "mlpprobe__lr": [1e-2, 1e-3],
    }
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 36
    assert counted().run == 3 * len(X)
    search.predict(X)
    assert counted().run == 0


@pytest.mark.parametrize("name", ["hubert", "crepe", "logmel"])
def test_dropping_any_member_first_runs_nothing_twice(
    labelled, tmp_path, counted, name
):
    """Even when the reference changes with the member that is dropped."""
    X, y = labelled
    fusion = small_fusion(memory=tmp_path)
    # The pipeline's own memory clones the fusion, which must not forget its members.
    pipeline = make_pipeline(
        fusion, LogisticRegression(max_iter=10_000), memory=str(tmp_path / "pipeline")
    )
    grid = {
        f"fusion__{name}": ["drop", fusion[name]],
        "fusion__align": ["time", "index"],
        "fusion__reference": [None, "logmel" if name == "crepe" else "crepe"],
    }
    if name == "logmel":
        grid["fusion__reference"] = [None, "hubert"]
    GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert counted().run == 3 * len(X)


def test_max_pooling_holds_one_clip_and_leaves_no_files(clips, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fusion = small_fusion(pooling="max", merge="mean")
    scenes = fusion.fit_transform(clips)
    for scene, frames in zip(scenes, fusion.frames(clips), strict=True):
        np.testing.assert_allclose(scene, frames.values.max(axis=0), atol=1e-5)
    assert list(tmp_path.iterdir()) == []


def test_make_fusion_names_members():
    fusion = make_fusion(LogMel(), CREPE(), LogMel(n_mels=8), merge="mean")
    assert list(fusion.named_embedders) == ["logmel-1", "crepe", "logmel-2"]
    assert fusion.merge == "mean"
