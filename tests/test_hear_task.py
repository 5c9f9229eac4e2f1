"""Task folders in HEAR's format: what is read, in which order, and what is refused."""

import json
import pickle
import random
import shutil

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate

from skaudioemb import Event, MLPProbe, ProbeSearchCV
from skaudioemb.hear.task import TaskError, find_tasks, load_task
from skaudioemb.hear.task_splits import TrainValidTest
from skaudioemb.probes.folds import RotatingFolds
from tests.models import GOLDEN
from tests.task_trees import EVENTS, FOLDS, SCENES, TAGS, make_task


def test_scenes(tmp_path):
    task = load_task(make_task(tmp_path, **SCENES))
    assert task.name == "toy-1.0-full"
    assert task.splits == ["train", "valid", "test"]
    assert task.files == ["b.wav", "a.wav", "c.wav", "d.wav", "e.wav"]
    assert task.y.tolist() == ["cat", "dog", "cat", "dog", "cat"]
    assert task.split.tolist() == ["train"] * 3 + ["valid", "test"]
    assert task.labels == ["dog", "cat"]
    assert task.X[3] == str(task.path / "48000" / "valid" / "d.wav")
    assert (task.embedding_type, task.prediction_type) == ("scene", "multiclass")
    assert (task.evaluation, task.primary) == (["top1_acc", "mAP"], "top1_acc")
    assert (task.sample_rate, task.sample_duration, task.is_kfold) == (48000, 1, False)
    assert repr(task) == (
        "<Task toy-1.0-full: scene multiclass, 5 clips (3 train, 1 valid, 1 test), "
        "2 labels, top1_acc>"
    )


def test_several_labels_or_none(tmp_path):
    task = load_task(make_task(tmp_path, **TAGS))
    assert task.labels == ["NA", "rain", "wind"]
    assert task.y.dtype == np.uint8
    assert task.y.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert task.sample_duration is None


def test_events_are_in_seconds(tmp_path):
    task = load_task(make_task(tmp_path, **EVENTS))
    assert task.y == [
        [Event("60", 0.5, 1.25), Event("62", 0.0, 0.1)],
        [],
        [Event("7", 1.0, 1.0)],
        [Event("60", 0.001, 2.0)],
    ]
    assert task.labels == ["7", "60", "62"]
    assert task.metadata["evaluation_params"] == EVENTS["more"]["evaluation_params"]


def test_folds(tmp_path):
    task = load_task(make_task(tmp_path, **FOLDS))
    assert task.is_kfold
    assert task.splits == ["fold00", "fold01", "fold02"]
    assert task.split.tolist() == ["fold00"] * 2 + ["fold01"] * 2 + ["fold02"] * 2
    # Whole numbers are labels, and equal the text in the vocabulary.
    assert task.y.tolist() == ["9", "10", "10", "9", "9", "10"]
    assert task.labels == ["9", "10"]
    assert isinstance(task.cv, RotatingFolds)
    assert [test.tolist() for _, test in task.cv.split()] == [[0, 1], [2, 3], [4, 5]]
    assert "(3 folds)" in repr(task)


def test_vocabulary_is_rebuilt_in_hears_order(tmp_path):
    for name, vocabulary in (("text", ["b", "10", "9"]), ("numbers", ["11", "10", 9])):
        annotations = {
            split: {"x.wav": [vocabulary[i]]}
            for i, split in enumerate(("train", "valid", "test"))
        }
        folder = make_task(tmp_path, name=name, annotations=annotations)
        expected = {"text": ["10", "9", "b"], "numbers": ["9", "10", "11"]}
        assert load_task(folder).labels == expected[name]


def test_vocabulary_keeps_its_own_order_and_labels_that_look_missing(tmp_path):
    vocabulary = 'idx,label\n2,null\n0,NA\n1,"a, b"\n'
    annotations = {
        "train": {"1.wav": ["null"]},
        "valid": {"2.wav": ["a, b"]},
        "test": {"3.wav": ["NA"]},
    }
    folder = make_task(tmp_path, annotations=annotations, vocabulary=vocabulary)
    assert load_task(folder).labels == ["NA", "a, b", "null"]


def test_sample_rates(tmp_path):
    folder = make_task(tmp_path, **SCENES, rates=(16000, 48000, 22050))
    assert load_task(folder).sample_rate == 48000
    assert load_task(folder, 22050).sample_rate == 22050
    assert load_task(folder, 44100).sample_rate == 48000
    # An archive for another rate may have been extracted in part.
    shutil.rmtree(folder / "48000" / "test")
    assert load_task(folder, 48000).sample_rate == 22050
    assert "/22050/train/" in load_task(folder).X[0]


def test_recordings_that_no_json_names_are_left_out(tmp_path):
    folder = make_task(tmp_path, **EVENTS)
    (folder / "48000" / "train" / "silent.wav").touch()
    assert "silent.wav" not in load_task(folder).files


def test_heareval_order(tmp_path):
    golden = json.loads((GOLDEN / "hear" / "task_order.json").read_text())
    annotations = {
        split: {name: ["x"] for name in sorted(golden["files"][split])}
        for split in golden["splits"]
    }
    task = load_task(make_task(tmp_path, annotations=annotations))
    files = [task.files[row] for row in task.heareval_order()]
    assert files == [
        name for split in golden["splits"] for name in golden["files"][split]
    ]
    assert files != task.files


def test_heareval_order_follows_the_metadata(tmp_path):
    order = ["fold02", "fold00", "fold01"]
    names = [f"{i}.wav" for i in range(9)]
    annotations = {split: {name: ["x"] for name in names} for split in order}
    more = {"split_mode": "new_split_kfold"}
    task = load_task(make_task(tmp_path, annotations=annotations, more=more))
    generator, expected = random.Random(0), []
    for split in order:
        shuffled = list(names)
        generator.shuffle(shuffled)
        expected += [(split, name) for name in shuffled]
    rows = task.heareval_order()
    assert [(task.split[row], task.files[row]) for row in rows] == expected
    assert task.splits == sorted(order)


def test_part(tmp_path):
    task = load_task(make_task(tmp_path, **SCENES))
    part = task.part("train", "valid")
    assert part.files == ["b.wav", "a.wav", "c.wav", "d.wav"]
    assert part.y.tolist() == task.y[:4].tolist()
    ((train, test),) = part.cv.split()
    assert (train.tolist(), test.tolist()) == ([0, 1, 2], [3])
    part = task.part("test", "train")
    assert part.rows.tolist() == [4, 0, 1, 2]
    assert part.X == [task.X[i] for i in (4, 0, 1, 2)]
    assert task.part("test").cv is None
    assert task.part().files == task.files
    for names in (("train", "dev"), ("train", "train")):
        with pytest.raises(
            ValueError, match="has the splits train, valid, test; found"
        ):
            task.part(*names)


def test_part_of_events(tmp_path):
    task = load_task(make_task(tmp_path, **EVENTS))
    assert task.part("valid", "train").y == [task.y[i] for i in (2, 0, 1)]


def many_clips(tmp_path, *splits):
    annotations = {
        split: {f"{i}.wav": ["ab"[i % 2]] for i in range(12)} for split in splits
    }
    kfold = {} if "train" in splits else {"split_mode": "presplit_kfold"}
    return load_task(make_task(tmp_path, annotations=annotations, more=kfold))


@pytest.mark.parametrize("splits", [("train", "valid", "test"), ("f0", "f1", "f2")])
def test_cv_in_searches(tmp_path, splits):
    task = many_clips(tmp_path, *splits)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(36, 4)).astype(np.float32) + (task.y == "a")[:, None] * 3
    n_splits = task.cv.get_n_splits()
    assert n_splits == (1 if splits[0] == "train" else 3)
    logistic = LogisticRegression()
    scores = cross_validate(logistic, X, task.y, cv=task.cv)["test_score"]
    assert len(scores) == n_splits
    train, test = next(task.cv.split())
    assert scores[0] == logistic.fit(X[train], task.y[train]).score(
        X[test], task.y[test]
    )
    grid = GridSearchCV(logistic, {"C": [0.1, 1.0]}, cv=task.cv).fit(X, task.y)
    assert grid.n_splits_ == n_splits
    probe = MLPProbe(max_epochs=30, hidden_units=8, device="cpu", random_state=0)
    search = ProbeSearchCV(probe, {"lr": [1e-3, 1e-2]}, cv=task.cv).fit(X, task.y)
    assert search.n_splits_ == n_splits
    assert search.best_score_ > 0.8


def test_train_valid_test_wants_all_three():
    cv = TrainValidTest(["train", "test"])
    with pytest.raises(ValueError, match=r"splits \['test', 'train'\]; there must be"):
        cv.validation_rows()


def test_pickles(tmp_path):
    task = load_task(make_task(tmp_path, **FOLDS))
    copy = pickle.loads(pickle.dumps(task))
    assert repr(copy) == repr(task)
    assert copy.y.tolist() == task.y.tolist()


def test_anywhere_in_the_tree(tmp_path):
    folder = make_task(tmp_path / "hear-2021.0.6" / "tasks", **SCENES)
    assert load_task(tmp_path).path == folder
    assert load_task(str(tmp_path / "hear-2021.0.6")).name == "toy-1.0-full"
    make_task(tmp_path / "tasks", name="second", **FOLDS)
    with pytest.raises(TaskError, match=r"found .*toy.*second.*use find_tasks"):
        load_task(tmp_path)
    assert [task.name for task in find_tasks(tmp_path)] == ["second", "toy-1.0-full"]


def test_find_tasks_knows_copies_and_namesakes(tmp_path):
    for rate in (16000, 48000, 22050):
        make_task(tmp_path / str(rate), **SCENES, rates=(rate,))
    assert [task.sample_rate for task in find_tasks(tmp_path)] == [48000]
    assert [task.sample_rate for task in find_tasks(tmp_path, 16000)] == [16000]
    make_task(tmp_path / "other", **FOLDS)
    with pytest.raises(TaskError, match="different tasks of the same name"):
        find_tasks(tmp_path)


def test_find_tasks_follows_links_once(tmp_path):
    make_task(tmp_path / "disk", **SCENES)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tasks").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "data")
    assert len(find_tasks(tmp_path / "data")) == 1


def test_nothing_to_find(tmp_path):
    assert find_tasks(tmp_path) == []
    with pytest.raises(TaskError, match="There is no folder"):
        find_tasks(tmp_path / "none")
    with pytest.raises(TaskError, match=r"There is no .*none: give a task's folder"):
        load_task(tmp_path / "none")
    with pytest.raises(TaskError, match=r"task_metadata\.json; found none"):
        load_task(tmp_path)
