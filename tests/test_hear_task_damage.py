"""Damaged task folders: the message names the file, the field and what was found."""

import json
import shutil

import pytest

from skaudioemb.hear.task import TaskError, load_task
from tests.task_trees import EVENTS, FOLDS, SCENES, TAGS, make_task

TASKS = {"scenes": SCENES, "tags": TAGS, "events": EVENTS, "folds": FOLDS}


def edit(name, **changes):
    """Return a function that changes keys of a JSON file, or removes them."""

    def change(folder):
        content = json.loads((folder / name).read_text()) | changes
        content = {key: value for key, value in content.items() if value != "remove"}
        (folder / name).write_text(json.dumps(content))

    return change


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def delete(name):
    def remove(folder):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


METADATA, VOCABULARY = "task_metadata.json", "labelvocabulary.csv"
EVENT = {"label": "60", "start": 1.0, "end": 2.0}
DAMAGE = {
    "metadata no JSON": ("scenes", write(METADATA, "{"), r"metadata\.json is no JSON"),
    "metadata no object": ("scenes", write(METADATA, "[]"), "holds a list; it must be"),
    "keys": (
        "scenes",
        edit(METADATA, splits="remove", evaluation="remove"),
        r"metadata\.json lacks evaluation, splits\. HEAR's",
    ),
    "embedding type": (
        "scenes",
        edit(METADATA, embedding_type="clip"),
        "\"embedding_type\" is 'clip'; it must be one of scene, event",
    ),
    "split mode": (
        "scenes",
        edit(METADATA, split_mode="loo"),
        "\"split_mode\" is 'loo'; it must be one of trainvaltest, new_split_kfold",
    ),
    "duration": (
        "scenes",
        edit(METADATA, sample_duration="1 s"),
        "\"sample_duration\" is '1 s'; it must be the length",
    ),
    "no score": ("scenes", edit(METADATA, evaluation=[]), 'evaluation" is \\[\\]; it'),
    "unknown score": (
        "scenes",
        edit(METADATA, evaluation=["top1_acc", "f2"]),
        r'"evaluation" names f2\. The scores .* are top1_acc',
    ),
    "score of clips for events": (
        "events",
        edit(METADATA, evaluation=["mAP"]),
        "names mAP. The scores of a task with \"embedding_type\" 'event' are event_",
    ),
    "no valid": (
        "scenes",
        edit(METADATA, splits=["train", "test"]),
        "with \"split_mode\" 'trainvaltest' it must name train, valid, test",
    ),
    "two folds": (
        "folds",
        edit(METADATA, splits=["fold00", "fold01"]),
        "at least three folds: one to test",
    ),
    "splits no list": (
        "folds",
        edit(METADATA, splits="fold00"),
        "\"splits\" is 'fold00'; it must be a list",
    ),
    "splits that lead elsewhere": (
        "folds",
        edit(METADATA, splits=["../fold00", "fold01", "fold02"]),
        r'"splits" names \.\./fold00. A name is made of letters',
    ),
    "splits like files of results": (
        "folds",
        edit(METADATA, splits=["result", "fold01", "fold02"]),
        '"splits" names result. A name',
    ),
    "params no object": (
        "scenes",
        edit(METADATA, evaluation_params=None),
        '"evaluation_params" is None; it must be an object',
    ),
    "grid no list": (
        "scenes",
        edit(METADATA, evaluation_params={"task_specific_param_grid": {"lr": 0.1}}),
        "'lr' is 0.1; it must be a list of numbers of at least 0",
    ),
    "unknown parameter": (
        "scenes",
        edit(METADATA, evaluation_params={"task_specific_param_grid": {"mom": [1]}}),
        "has 'mom'; known are batch_size, ",
    ),
    "unknown initialisation": (
        "scenes",
        edit(
            METADATA,
            evaluation_params={"task_specific_param_grid": {"initialization": [1]}},
        ),
        "it must be a list of xavier_uniform_ or",
    ),
    "thresholds": (
        "events",
        edit(
            METADATA,
            evaluation_params={"event_postprocessing_grid": {"threshold": [0.5]}},
        ),
        "has 'threshold'; known are median_filter_ms, min_duration",
    ),
    "no filter": (
        "events",
        edit(
            METADATA,
            evaluation_params={"event_postprocessing_grid": {"median_filter_ms": []}},
        ),
        r"'median_filter_ms' is \[\]; it must be a list",
    ),
    "name no text": ("scenes", edit(METADATA, task_name=["x"]), '"task_name" is'),
    "deep": ("scenes", write(METADATA, "[" * 99999), r"metadata\.json is no JSON"),
    "split missing": ("scenes", delete("valid.json"), r"no valid\.json in .*toy"),
    "split empty": ("scenes", write("valid.json", "{}"), r"valid\.json names no clips"),
    "no list": (
        "scenes",
        edit("train.json", **{"a.wav": "dog"}),
        r"train\.json, 'a\.wav': found 'dog'; it must be a list of labels",
    ),
    "two labels": (
        "scenes",
        edit("train.json", **{"a.wav": ["dog", "cat"]}),
        r"train\.json, 'a\.wav': found 2 labels, \['dog', 'cat'\], but",
    ),
    "no label": ("scenes", edit("test.json", **{"e.wav": []}), "found 0 labels"),
    "label lost": (
        "tags",
        edit("train.json", **{"a.wav": [float("nan")]}),
        r"'a\.wav': found nan in place of a label; .* in quotes",
    ),
    "label unknown": (
        "scenes",
        edit("valid.json", **{"d.wav": ["cow"]}),
        r"valid\.json, 'd\.wav': the label 'cow' is not in labelvocabulary\.csv",
    ),
    "event label unknown": (
        "events",
        edit("test.json", **{"d.wav": [EVENT | {"label": 61}]}),
        r"test\.json, 'd\.wav': the label '61' is not in",
    ),
    "event backwards": (
        "events",
        edit("test.json", **{"d.wav": [EVENT | {"end": 0.5}]}),
        r"test\.json, 'd\.wav': an event of '60' goes from \"start\" 1\.0 to \"end\" 0",
    ),
    "event time": (
        "events",
        edit("test.json", **{"d.wav": [EVENT | {"start": "0"}]}),
        "goes from \"start\" '0' to",
    ),
    "event keys": (
        "events",
        edit("test.json", **{"d.wav": [{"label": "60"}]}),
        "an event must have a label, and its start and end in milliseconds",
    ),
    "vocabulary header": (
        "scenes",
        write(VOCABULARY, "dog\ncat\n"),
        "begins with 'dog'; its first line must be 'idx,label'",
    ),
    "vocabulary indices": (
        "scenes",
        write(VOCABULARY, "idx,label\n0,dog\n2,cat\n"),
        "the indices are 0, 2; they must be 0 to 1, each once",
    ),
    "vocabulary line": (
        "scenes",
        write(VOCABULARY, "idx,label\n0,dog\none,cat\n"),
        "line 3: found idx 'one' and label 'cat'",
    ),
    "vocabulary twice": (
        "scenes",
        write(VOCABULARY, "idx,label\n0,dog\n1,cat\n2,dog\n"),
        "dog stands there twice",
    ),
    "no recordings": ("scenes", delete("48000"), "holds no recordings: there must be"),
    "no split folder": ("scenes", delete("48000/test"), r"no folder .*48000/test with"),
    "recording": (
        "scenes",
        delete("48000/train/a.wav"),
        r"48000/train lacks 1 of the 3 recordings that train\.json names: a\.wav",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(tmp_path, case):
    kind, damage, message = DAMAGE[case]
    folder = make_task(tmp_path, **TASKS[kind])
    load_task(folder)
    damage(folder)
    with pytest.raises(TaskError, match=message):
        load_task(folder)
