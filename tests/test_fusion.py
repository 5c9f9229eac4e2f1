"""Fusion: merging, alignment, grids of frames, and one forward per grid."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skaudioemb import CREPE, Fusion, HuBERT, LogMel, MLPProbe, make_fusion
from tests.models import CHECKPOINTS


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


def nested_fusion(**crepe):
    inner = Fusion([("logmel", LogMel(n_mels=8)), ("crepe", CREPE("tiny", **crepe))])
    return small_fusion().set_params(crepe=inner)


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("segments", [None, 3])
@pytest.mark.parametrize("align", ["time", "index"])
@pytest.mark.parametrize("reference", ["hubert", "crepe"])
@pytest.mark.parametrize("nested", [False, True])
def test_scenes_from_other_frames(clips, nested, reference, align, segments, pooling):
    """A member's own hop for scenes leaves the frames of a fusion alone."""

    params = {"reference": reference, "align": align}
    params.update(segments=segments, pooling=pooling)

    def fusion(**crepe):
        made = (
            nested_fusion(**crepe)
            if nested
            else small_fusion().set_params(crepe=CREPE("tiny", **crepe))
        )
        return made.set_params(**params)

    both = fusion(hop=0.05, scene_hop=0.2)
    scenes = both.fit_transform(clips)
    np.testing.assert_array_equal(scenes, fusion(hop=0.2).fit_transform(clips))
    assert np.abs(scenes - fusion(hop=0.05).transform(clips)).max() > 0.01
    for got, expected in zip(
        both.frames(clips), fusion(hop=0.05).frames(clips), strict=True
    ):
        np.testing.assert_array_equal(got.values, expected.values)
        np.testing.assert_array_equal(got.times, expected.times)


def test_scenes_from_other_frames_run_once(clips, tmp_path, counted):
    fusion = small_fusion(memory=tmp_path).set_params(crepe__scene_hop=0.2)
    fusion.fit_transform(clips)
    assert counted().run == 3 * len(clips)
    for changes in (
        {"align": "index", "reference": "crepe"},
        {"merge": "mean", "reference": "hubert"},
        {"crepe__hop": 0.1},
        {"logmel": "drop"},
    ):
        fusion.set_params(**changes).fit_transform(clips)
        assert counted().run == 0


def test_scenes_from_other_frames_of_a_member_that_comes_back(clips, tmp_path, counted):
    fusion = small_fusion(memory=tmp_path).set_params(crepe__scene_hop=0.2)
    clone(fusion).set_params(crepe="drop").fit_transform(clips)
    assert counted().run == 2 * len(clips)
    fusion.set_params(reference="crepe").fit_transform(clips)
    assert counted().run == len(clips)


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
