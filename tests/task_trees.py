"""Small task folders in HEAR's format, written without the package."""

import json

VOCABULARY = "idx,label\n0,dog\n1,cat\n"

SCENES = {
    "annotations": {
        "train": {"b.wav": ["cat"], "a.wav": ["dog"], "c.wav": ["cat"]},
        "valid": {"d.wav": ["dog"]},
        "test": {"e.wav": ["cat"]},
    },
    "vocabulary": VOCABULARY,
}
FOLDS = {
    "annotations": {
        "fold00": {"a.wav": [9], "b.wav": [10]},
        "fold01": {"a.wav": [10], "b.wav": [9]},
        "fold02": {"a.wav": ["9"], "c.wav": [10]},
    },
    "vocabulary": "idx,label\n0,9\n1,10\n",
    "more": {"split_mode": "new_split_kfold", "nfolds": 3},
}
TAGS = {
    "annotations": {
        "train": {"a.wav": ["wind", "NA"], "b.wav": []},
        "valid": {"c.wav": ["rain"]},
        "test": {"d.wav": ["wind", "wind"]},
    },
    "vocabulary": "idx,label\n0,NA\n1,rain\n2,wind\n",
    "more": {"prediction_type": "multilabel", "sample_duration": None},
}
EVENTS = {
    "annotations": {
        "train": {
            "a.wav": [
                {"label": "60", "start": 500, "end": 1250.0},
                {"label": 62, "start": 0, "end": 100},
            ],
            "b.wav": [],
        },
        "valid": {"c.wav": [{"label": 7, "start": 1000.0, "end": 1000.0}]},
        "test": {"d.wav": [{"label": 60, "start": 1.0, "end": 2000.0}]},
    },
    "vocabulary": "idx,label\n0,7\n1,60\n2,62\n",
    "more": {
        "embedding_type": "event",
        "prediction_type": "multilabel",
        "evaluation": ["event_onset_200ms_fms", "segment_1s_er"],
        "evaluation_params": {"event_postprocessing_grid": {"min_duration": [125]}},
    },
}


def make_task(
    parent,
    annotations,
    *,
    name="toy-1.0-full",
    vocabulary=None,
    rates=(48000,),
    more=(),
):
    """Write a task folder whose recordings are empty files."""
    folder = parent / name
    folder.mkdir(parents=True)
    metadata = {
        "task_name": "toy",
        "version": "1.0",
        "embedding_type": "scene",
        "prediction_type": "multiclass",
        "split_mode": "trainvaltest",
        "sample_duration": 1.0,
        "evaluation": ["top1_acc", "mAP"],
        "splits": list(annotations),
        **dict(more),
    }
    (folder / "task_metadata.json").write_text(json.dumps(metadata))
    if vocabulary is not None:
        (folder / "labelvocabulary.csv").write_text(vocabulary)
    for split, clips in annotations.items():
        (folder / f"{split}.json").write_text(json.dumps(clips))
        for rate in rates:
            (folder / str(rate) / split).mkdir(parents=True)
            for clip in clips:
                (folder / str(rate) / split / clip).touch()
    return folder
