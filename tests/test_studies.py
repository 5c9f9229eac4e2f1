"""The fusion paper's ablation study: systems, tables, folds and forwards."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    ParameterGrid,
    StratifiedGroupKFold,
    cross_val_score,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skaudioemb import (
    CREPE,
    Fusion,
    HuBERT,
    LogMel,
    Wav2Vec2,
    make_embedder,
    make_fusion,
)
from skaudioemb.datasets import make_notes
from skaudioemb.studies import ablation_grid, run_ablation
from tests.models import CHECKPOINTS, GOLDEN, small_probe

HUBERT_LARGE = HuBERT(CHECKPOINTS / "hubert-large-like", normalize="none")
SYSTEMS = {
    3: [
        "wav2vec 2.0 Large",
        "Fusion wav2vec 2.0 Large",
        "HuBERT xLarge",
        "Fusion HuBERT xLarge",
    ],
    4: ["avg xw", "cat xw"],
    5: ["HuBERT xLarge", "avg xc"],
    6: ["cat wc", "cat xwc", "fusion_cat_xwc"],
}
# In the order of the grid; names as in tests/golden/fusion.
PUBLISHED = [
    None,
    "fusion_wav2vec2",
    "hubert_xlarge",
    "fusion_hubert_xlarge",
    "avg_hubert_wav2vec2",
    "cat_hubert_wav2vec2",
    "avg_hubert_crepe",
    "cat_wc",
    "cat_xwc",
    "fusion_cat_xwc",
]


def members(crepe):
    return [
        ("hubert", HuBERT(CHECKPOINTS / "hubert-xlarge-like", normalize="none")),
        ("wav2vec2", Wav2Vec2(CHECKPOINTS / "wav2vec2-large-like", normalize="none")),
        ("crepe", crepe),
    ]


@pytest.fixture
def fusion():
    return Fusion(members(CREPE("tiny", hop=0.1)))


@pytest.fixture(scope="module")
def notes():
    return make_notes(n_clips=24, pitches=["A2", "A3"], n_timbres=4, random_state=0)


@pytest.fixture(scope="module")
def ablation(notes):
    """Two tasks, two scores: four columns."""
    return run_ablation(
        Fusion(members(CREPE("tiny", hop=0.1))),
        {
            "pitch": (notes.data, notes.target),
            "timbre": (notes.data, notes.timbre % 2, notes.midi),
        },
        probe=LogisticRegression(max_iter=10_000),
        cv=2,
        scoring=["accuracy", "f1_macro"],
    )


def test_systems_equal_the_published_ones(golden_clips, tmp_path):
    """The names of the golden scenes say what the authors' code computed."""
    fusion = Fusion(
        members(CREPE(hop=0.25)), merge="interleave", align="index", memory=tmp_path
    )
    grid = ParameterGrid(ablation_grid(fusion, step=None, hubert_large=HUBERT_LARGE))
    with np.load(GOLDEN / "fusion" / "fusion.npz") as arrays:
        golden = dict(arrays)
    checked = 0
    for name, params in zip(PUBLISHED, grid, strict=True):
        known = [c for c in golden_clips if f"{name}/{c}/scene" in golden]
        system = clone(fusion).set_params(**clone(params, safe=False))
        for clip in known:
            scene = system.fit_transform([golden_clips[clip]])[0]
            expected = golden[f"{name}/{clip}/scene"]
            np.testing.assert_allclose(scene, expected, rtol=0, atol=1e-4)
        checked += bool(known)
    assert checked == len(PUBLISHED) - 1


@pytest.mark.parametrize(
    ("n_features", "expected"),
    [
        (None, [16, 16, 20, 20, 16, 32, 16, 32, 48, 48]),
        ("reference", [16, 16, 20, 20, 16, 32, 16, 32, 48, 48]),
        (24, [16, 16, 20, 20, 24, 48, 24, 48, 72, 72]),
    ],
)
def test_fused_members_have_the_width_of_wav2vec2(
    fusion, notes, tmp_path, n_features, expected
):
    fusion.set_params(n_features=n_features, memory=tmp_path, merge="mean")
    grid = ParameterGrid(ablation_grid(fusion, step=None))
    systems = [clone(fusion).set_params(**params) for params in grid]
    widths = [s.fit_transform(notes.data[:1]).shape[1] for s in systems]
    assert widths == expected


def test_concatenations_with_crepe_merge_as_the_fusion_does(fusion):
    def merges(merge):
        grid = ablation_grid(fusion.set_params(merge=merge))
        return [params["fusion__merge"][0] for params in grid]

    assert merges("concat")[4:] == ["mean", "concat", "mean", *["concat"] * 3]
    assert merges("mean") == merges("concat")
    assert merges("interleave")[4:7] == ["mean", "concat", "mean"]
    assert merges("interleave")[7:] == ["interleave"] * 3


@pytest.mark.parametrize("hubert_large", [None, HUBERT_LARGE])
def test_each_clip_runs_once_through_each_model(fusion, notes, counted, hubert_large):
    ablation = run_ablation(
        fusion,
        notes.data,
        notes.target,
        probe=small_probe(max_epochs=3),
        hubert_large=hubert_large,
        cv=3,
    )
    assert len(ablation.search_.cv_results_["params"]) == 10
    counts = counted()
    assert counts.run == (3 if hubert_large is None else 4) * len(notes.data)
    assert counts.asked > 10 * counts.run


@pytest.mark.parametrize("name", ["fusion_cat_xwc", "fusion_cat_xwc_g"])
@pytest.mark.parametrize("fidelity", ["paper", "corrected"])
def test_preset_fusions_can_be_given(notes, counted, name, fidelity):
    fusion = make_embedder(
        name,
        fidelity=fidelity,
        hubert__checkpoint=CHECKPOINTS / "hubert-xlarge-like",
        wav2vec2__checkpoint=CHECKPOINTS / "wav2vec2-large-like",
        crepe__model="tiny",
    )
    X, y = notes.data[:12], notes.target[:12]
    run_ablation(fusion, X, y, probe=KNeighborsClassifier(1), cv=2)
    assert counted().run == 3 * len(X)


def test_tasks_on_the_same_clips_share_the_forwards(fusion, notes, counted):
    tasks = {"pitch": (notes.data, notes.target), "high": (notes.data, notes.midi > 50)}
    run_ablation(fusion, tasks, probe=small_probe(max_epochs=3), cv=2)
    assert counted().run == 3 * len(notes.data)


def test_memory_serves_the_next_study(fusion, notes, counted, tmp_path):
    options = {"probe": KNeighborsClassifier(1), "cv": 2}
    X, y = notes.data[:8], notes.target[:8]
    first = run_ablation(fusion, X, y, memory=tmp_path, **options)
    assert counted().run == 3 * len(X)
    second = run_ablation(fusion.set_params(memory=tmp_path), X, y, **options)
    assert counted().run == 0
    assert str(first) == str(second)


def test_leaves_nothing_behind(fusion, notes, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = str(fusion.get_params())
    probe = KNeighborsClassifier(1)
    ablation = run_ablation(fusion, notes.data[:8], notes.target[:8], probe=probe, cv=2)
    assert list(tmp_path.iterdir()) == []
    assert str(fusion.get_params()) == before
    assert not hasattr(probe, "classes_")
    search = ablation.search_
    best = clone(search.estimator).set_params(**search.best_params_)
    assert best.fit(notes.data[:8], notes.target[:8]).predict(notes.data[8:9]).shape
    assert list(tmp_path.iterdir()) == []


def test_a_row_is_what_cross_validation_of_the_system_gives(ablation, notes):
    system = Fusion(members(CREPE("tiny", hop=0.1)), merge="mean", n_features=16)
    system.set_params(wav2vec2="drop")
    pipeline = make_pipeline(system, LogisticRegression(max_iter=10_000))
    scores = cross_val_score(pipeline, notes.data, notes.target, cv=2)
    rows = [row for row in ablation.rows(5) if row["system"] == "avg xc"]
    assert (rows[0]["task"], rows[0]["score"]) == ("pitch", "accuracy")
    assert rows[0]["folds"] == scores.tolist()
    assert rows[0]["mean"] == pytest.approx(scores.mean())
    assert rows[0]["std"] == pytest.approx(scores.std())


def test_rows_are_those_of_the_paper(ablation):
    columns = [(t, s) for t in ("pitch", "timbre") for s in ("accuracy", "f1_macro")]
    for number, systems in SYSTEMS.items():
        rows = ablation.rows(number)
        assert {row["table"] for row in rows} == {number}
        assert [row["system"] for row in rows[:: len(columns)]] == systems
        assert [(row["task"], row["score"]) for row in rows[: len(columns)]] == columns
    assert ablation.rows() == [row for n in SYSTEMS for row in ablation.rows(n)]


def test_a_system_of_two_tables_has_one_score(ablation):
    def scores(number):
        rows = [r for r in ablation.rows(number) if r["system"] == "HuBERT xLarge"]
        return [row["folds"] for row in rows]

    assert scores(3) == scores(5)


def test_best_of_each_comparison(ablation):
    comparisons = [SYSTEMS[3][:2], SYSTEMS[3][2:], SYSTEMS[4], SYSTEMS[5], SYSTEMS[6]]
    tables = [3, 3, 4, 5, 6]
    for number, systems in zip(tables, comparisons, strict=True):
        for column in {(row["task"], row["score"]) for row in ablation.rows(number)}:
            rows = [
                row
                for row in ablation.rows(number)
                if row["system"] in systems and (row["task"], row["score"]) == column
            ]
            assert len(rows) == len(systems)
            top = max(round(row["mean"], 3) for row in rows)
            assert [row["best"] for row in rows] == [
                round(row["mean"], 3) == top for row in rows
            ]


def test_text_has_the_shape_of_the_tables(ablation):
    tables = str(ablation).split("\n\n")
    assert [table.split(":")[0] for table in tables] == [f"Table {n}" for n in SYSTEMS]
    for number, table in zip(SYSTEMS, tables, strict=True):
        rows = ablation.rows(number)
        lines = table.splitlines()
        assert max(map(len, lines)) <= 88
        for system in SYSTEMS[number]:
            cells = [
                f"{row['mean']:.3f} ± {row['std']:.3f}{'*' if row['best'] else ''}"
                for row in rows
                if row["system"] == system
            ]
            own = [line for line in lines if line.startswith(f"{system} ")]
            written = " ".join(line.removeprefix(system) for line in own)
            assert written.split() == " ".join(cells).split()
        heads = ["pitch (accuracy)", "pitch (f1_macro)", "timbre (accuracy)"]
        assert all(table.count(head) == 1 for head in heads)
    assert "want of a hubert_large" in tables[1]
    assert "fusion_cat_xwc as those of cat xwc" in tables[3]


def test_one_score_of_one_task(fusion, notes):
    X, y = notes.data[:8], notes.target[:8]
    options = {"probe": KNeighborsClassifier(2), "cv": 2, "hubert_large": HUBERT_LARGE}
    ablation = run_ablation(fusion, X, y, scoring="balanced_accuracy", **options)
    text = str(ablation)
    assert text.splitlines()[1].split() == ["balanced_accuracy"]
    assert "want of a hubert_large" not in text
    constant = run_ablation(fusion, X, y, scoring=lambda *_: 0.5, **options)
    assert str(constant).splitlines()[1].split() == ["score"]
    assert str(constant).count("0.500 ± 0.000*") == 11


def test_all_systems_share_the_folds(fusion, notes):
    class Counted(KFold):
        calls = 0

        def split(self, *args, **kwargs):
            Counted.calls += 1
            return super().split(*args, **kwargs)

    cv = Counted(3, shuffle=True)
    run_ablation(fusion, notes.data, notes.target, probe=KNeighborsClassifier(), cv=cv)
    assert Counted.calls == 1


@pytest.mark.parametrize("cv", [None, 3])
def test_a_number_of_folds_heeds_groups(fusion, notes, cv):
    """Each group is a class of its own, so that no fold can know the others'."""
    groups = np.arange(len(notes.data)) % 6
    probe = KNeighborsClassifier(1)
    ablation = run_ablation(
        fusion, notes.data, groups, groups=groups, probe=probe, cv=cv
    )
    assert {row["mean"] for row in ablation.rows()} == {0.0}
    assert len(ablation.rows()[0]["folds"]) == (cv or 5)


def test_a_given_splitter_is_taken(fusion, notes):
    ablation = run_ablation(
        fusion,
        notes.data,
        notes.target,
        groups=notes.timbre,
        probe=KNeighborsClassifier(),
        cv=StratifiedGroupKFold(2),
    )
    assert isinstance(ablation.search_.cv, StratifiedGroupKFold)


def test_splits_from_an_iterator_serve_every_task(fusion, notes):
    task = (notes.data, notes.target)
    ablation = run_ablation(
        fusion,
        {"a": task, "b": task},
        probe=KNeighborsClassifier(),
        cv=KFold(2).split(notes.data),
    )
    a, b = (
        [row["mean"] for row in ablation.rows() if row["task"] == name] for name in "ab"
    )
    assert a == b


def test_pipelines_and_searched_probes(fusion, notes, counted):
    tuned = GridSearchCV(LogisticRegression(max_iter=10_000), {"C": [0.1, 1]}, cv=2)
    pipeline = Pipeline([("embed", fusion), ("scale", StandardScaler()), ("p", tuned)])
    ablation = run_ablation(pipeline, notes.data, notes.target, cv=2)
    assert "embed__wav2vec2__layers" in ablation.search_.cv_results_["params"][0]
    assert counted().run == 3 * len(notes.data)
    probe = make_pipeline(StandardScaler(), tuned)
    other = run_ablation(fusion, notes.data, notes.target, probe=probe, cv=2)
    assert other.rows() == ablation.rows()


def with_logmel(name):
    pairs = dict(members(CREPE("tiny")))
    return Fusion(list({**pairs, name: LogMel()}.items()))


@pytest.mark.parametrize(
    ("estimator", "error", "match"),
    [
        (LogisticRegression(), TypeError, "neither a Fusion nor a Pipeline"),
        (make_pipeline(LogMel(), LogisticRegression()), ValueError, "has 0 Fusion"),
        (make_fusion(LogMel()), ValueError, r"\['hubert', 'wav2vec2', 'crepe'\] not"),
        (
            Fusion(members("drop")),
            ValueError,
            r"none of them dropped: \['crepe'\] not found",
        ),
        (with_logmel("hubert"), ValueError, "'hubert' is LogMel.* no layers"),
    ],
)
def test_bad_estimators_get_a_sentence(notes, estimator, error, match):
    with pytest.raises(error, match=match):
        run_ablation(estimator, notes.data, notes.target)


def test_bad_arguments_get_a_sentence(fusion, notes, ablation):
    X, y = notes.data, notes.target
    with pytest.raises(TypeError, match=r"CREPE.* is no Fusion"):
        ablation_grid(CREPE())
    with pytest.raises(ValueError, match="y is missing"):
        run_ablation(fusion, X)
    with pytest.raises(ValueError, match="neither y nor groups"):
        run_ablation(fusion, {"pitch": (X, y)}, y)
    with pytest.raises(ValueError, match="empty dict"):
        run_ablation(fusion, {})
    with pytest.raises(ValueError, match=r"Task 'pitch' is a list.*\(X, y\)"):
        run_ablation(fusion, {"pitch": X})
    with pytest.raises(ValueError, match=r"Member 'hubert_large'.*no layers"):
        run_ablation(fusion, X, y, hubert_large=CREPE())
    pipeline = make_pipeline(fusion, KNeighborsClassifier())
    with pytest.raises(ValueError, match="a probe of its own"):
        run_ablation(pipeline, X, y, probe=KNeighborsClassifier())
    with pytest.raises(ValueError, match=r"table=2 is none of \[3, 4, 5, 6\]"):
        ablation.rows(2)
