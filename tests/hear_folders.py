"""Small task folders in HEAR's format, and archives of them."""

import json
import tarfile

import numpy as np
import soundfile

from tests.sounds import tone

RATE = 8000
HERTZ = {"low": 300, "high": 1100}


def write_folder(folder, name="tones-v1-small", n_folds=None, n_clips=8, seed=0):
    """Write a task of low and high tones, which any embedder tells apart."""
    path = folder / name
    splits = ["train", "valid", "test"]
    if n_folds:
        splits = [f"fold{i:02}" for i in range(n_folds)]
    random = np.random.default_rng(seed)
    for split in splits:
        audio = path / str(RATE) / split
        audio.mkdir(parents=True)
        labels = {}
        for i in range(n_clips):
            label = sorted(HERTZ)[i % 2]
            hertz = HERTZ[label] * random.uniform(0.9, 1.1)
            soundfile.write(audio / f"{split}{i}.wav", tone(hertz, RATE, 0.25), RATE)
            labels[f"{split}{i}.wav"] = [label]
        (path / f"{split}.json").write_text(json.dumps(labels))
    metadata = {
        "task_name": name.split("-")[0],
        "version": "v1",
        "mode": "small",
        "embedding_type": "scene",
        "prediction_type": "multiclass",
        "split_mode": "new_split_kfold" if n_folds else "trainvaltest",
        "splits": splits,
        "sample_duration": 0.25,
        "evaluation": ["top1_acc", "mAP"],
    }
    if n_folds:
        metadata["nfolds"] = n_folds
    (path / "task_metadata.json").write_text(json.dumps(metadata))
    return path


def pack(path, archive):
    """Write a tarball of a task folder, as HEAR's are."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(path, f"tasks/{path.name}")
    return archive
