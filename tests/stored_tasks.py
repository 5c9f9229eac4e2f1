"""The tasks of heareval's reference runs, with the embeddings that it saw."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from skaudioemb import Frames
from skaudioemb.hear.task import load_task
from tests.models import GOLDEN
from tests.task_trees import make_task

HEAR = GOLDEN / "hear"
_OWN = ("task_name", "labels", "data")


class Stored(TransformerMixin, BaseEstimator):
    """Embeddings by the name of the clip; scenes or frames.

    Parameters
    ----------
    table : dict of str to ndarray or Frames
    """

    def __init__(self, table):
        self.table = table

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.stack([self.table[Path(path).name] for path in X])

    def frames(self, X):
        return [self.table[Path(path).name] for path in X]

    def __sklearn_clone__(self):
        return self


@lru_cache
def _arrays(name):
    with np.load(HEAR / f"embeddings_{name}.npz") as arrays:
        return dict(arrays)


def digits(parent):
    """Return the task of spoken digits and its embeddings of 256 values."""
    golden = json.loads((HEAR / "embeddings_scenes.json").read_text())
    content = golden["tasks"]["digit-v1"]
    rows = _arrays("scenes")["crepe_tiny"].astype(np.float32)
    table, annotations = {}, {}
    for split, data in content["data"].items():
        annotations[split] = {}
        for row, target in zip(data["rows"], data["targets"], strict=True):
            name = Path(golden["clips"][row]).name
            annotations[split][name] = [content["labels"][target]]
            table[name] = rows[row]
    return _task(parent, "digit-v1-full", content, annotations), Stored(table)


def office(parent):
    """Return the task of events and its embeddings of 64 values."""
    golden = json.loads((HEAR / "embeddings_events.json").read_text())
    content = golden["tasks"]["office-v1"]
    arrays = _arrays("events")
    table, annotations = {}, {}
    for split, data in content["data"].items():
        values = arrays[f"office-v1/{split}/logmel64"].astype(np.float32)
        times = arrays[f"office-v1/{split}/timestamps"].astype(np.float64) / 1000
        ends = np.cumsum(data["frames"])[:-1]
        parts = zip(np.split(values, ends), np.split(times, ends), strict=True)
        table |= dict(zip(data["files"], map(Frames._make, parts), strict=True))
        annotations[split] = {name: data["events"][name] for name in data["files"]}
    return _task(parent, "office-v1-full", content, annotations), Stored(table)


def _task(parent, name, content, annotations):
    more = {key: value for key, value in content.items() if key not in _OWN}
    rows = "".join(f"{i},{label}\n" for i, label in enumerate(content["labels"]))
    folder = make_task(
        *(parent, annotations), name=name, vocabulary=f"idx,label\n{rows}", more=more
    )
    return load_task(folder)
