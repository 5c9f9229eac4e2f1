"""What write_task writes is what load_task and any reader of the format find."""

import csv
import json
import os

import numpy as np
import pytest
import soundfile
from scipy import sparse

from skaudioemb import Event
from skaudioemb.audio import load
from skaudioemb.datasets import make_events
from skaudioemb.hear.task import TaskError, load_task
from skaudioemb.hear.task_writing import write_task
from tests.sounds import noise

TVT = ["train", "test", "valid", "train"]


def sounds(*lengths):
    return [noise(length, seed=length) for length in lengths]


CLIPS = sounds(800, 801, 900, 1600)


def test_labels_come_back(tmp_path):
    y = np.array(["NA", "b, c", "null", "NA"])
    path = write_task(tmp_path, "toy", CLIPS, y, TVT)
    assert path == tmp_path / "toy-1.0-full"
    task = load_task(path)
    assert task.split.tolist() == ["train", "train", "valid", "test"]
    assert task.files == ["clip0.wav", "clip3.wav", "clip2.wav", "clip1.wav"]
    assert task.y.tolist() == ["NA", "NA", "null", "b, c"]
    assert task.labels == ["NA", "b, c", "null"]
    assert task.evaluation == ["top1_acc", "mAP", "d_prime", "aucroc"]
    assert task.sample_duration is None
    assert not task.is_kfold


def test_files_are_as_hears(tmp_path):
    path = write_task(
        tmp_path, "toy", CLIPS, [10, 9, 10, 9], [2, 0, 1, 0], duration=0.1, mode="5h"
    )
    with open(path / "labelvocabulary.csv") as file:
        assert list(csv.reader(file)) == [["idx", "label"], ["0", "9"], ["1", "10"]]
    fold = json.loads((path / "fold00.json").read_text())
    assert fold == {"clip1.wav": [9], "clip3.wav": [9]}
    assert list(fold) == sorted(fold)
    metadata = json.loads((path / "task_metadata.json").read_text())
    assert metadata == {
        "task_name": "toy",
        "version": "1.0",
        "embedding_type": "scene",
        "prediction_type": "multiclass",
        "split_mode": "presplit_kfold",
        "nfolds": 3,
        "sample_duration": 0.1,
        "evaluation": ["top1_acc", "mAP", "d_prime", "aucroc"],
        "default_mode": "5h",
        "mode": "5h",
        "splits": ["fold00", "fold01", "fold02"],
    }
    info = soundfile.info(path / "16000" / "fold00" / "clip3.wav")
    assert (info.subtype, info.channels, info.samplerate) == ("PCM_16", 1, 16000)
    assert info.frames == 1600
    assert load_task(path).labels == ["9", "10"]


@pytest.mark.parametrize("form", ["lists", "matrix", "sparse"])
def test_several_labels_come_back(tmp_path, form):
    indicators = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 1]])
    y, labels = {
        "lists": ([["c", "a"], [], ["b"], ("c",)], None),
        "matrix": (indicators, ["a", "b", "c"]),
        "sparse": (sparse.csr_matrix(indicators), ["a", "b", "c"]),
    }[form]
    path = write_task(tmp_path, "toy", CLIPS, y, TVT, labels=labels)
    task = load_task(path)
    order = [0, 3, 2, 1]
    assert task.y.tolist() == indicators[order].tolist()
    assert (task.prediction_type, task.primary) == ("multilabel", "mAP")


def test_events_come_back(tmp_path):
    events = make_events(8, duration=1.0, n_events=(1, 3), random_state=0)
    events.target[1] = []
    splits = ["train"] * 4 + ["valid"] * 2 + ["test"] * 2
    grid = {"event_postprocessing_grid": {"median_filter_ms": [150]}}
    path = write_task(
        tmp_path,
        "toy",
        events.data,
        events.target,
        splits,
        labels=events.target_names[::-1],
        metadata={"evaluation_params": grid},
    )
    task = load_task(path)
    assert task.y[1] == []
    for found, clip in zip(task.y, events.target, strict=True):
        assert [event.label for event in found] == [event.label for event in clip]
        for event, other in zip(found, clip, strict=True):
            assert event[1:] == pytest.approx(other[1:], rel=1e-15)
    assert task.labels == events.target_names[::-1]
    assert task.metadata["evaluation_params"] == grid
    assert task.evaluation == ["event_onset_200ms_fms", "segment_1s_er"]
    first = json.loads((path / "train.json").read_text())["clip0.wav"][0]
    assert first["start"] == pytest.approx(1000 * events.target[0][0].start)


def test_duration_cuts_and_fills_clips_and_cuts_events(tmp_path):
    clips = sounds(16000, 4000, 8000)
    y = [[("a", 0.2, 0.9), ("b", 0.5, 0.6), ("b", 0.1, 0.3)], [], [("a", 0.5, 0.5)]]
    splits = ["train", "valid", "test"]
    path = write_task(tmp_path, "toy", clips, y, splits, duration=0.5)
    task = load_task(path)
    assert task.y == [[Event("b", 0.1, 0.3), Event("a", 0.2, 0.5)], [], []]
    read = [load(clip, 1).samples for clip in task.X]
    assert [len(samples) for samples in read] == [8000] * 3
    np.testing.assert_allclose(read[0], clips[0][:8000], atol=2**-16)
    assert not read[1][4000:].any()
    assert task.sample_duration == 0.5


def test_recordings_of_16_bits_stay_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    pcm = rng.integers(-(2**15), 2**15, size=(3, 500)).astype(np.int16)
    pcm[0, :2] = -(2**15), 2**15 - 1
    paths = []
    for i, samples in enumerate(pcm):
        paths.append(tmp_path / f"{i}.flac")
        soundfile.write(paths[-1], samples, 8000, subtype="PCM_16")
    task = load_task(
        write_task(tmp_path, "toy", paths, ["a", "b", "a"], [0, 1, 2], sample_rate=8000)
    )
    read = [soundfile.read(path, dtype="int16")[0] for path in task.X]
    np.testing.assert_array_equal(read, pcm)


def test_several_rates_and_durations_that_do_not_divide(tmp_path):
    times = np.arange(44100) / 44100
    tone = 0.5 * np.sin(2 * np.pi * 440 * times).astype(np.float32)
    path = write_task(
        tmp_path,
        "toy",
        [tone, tone, tone[:100]],
        ["a", "b", "a"],
        ["train", "valid", "test"],
        clip_rate=44100,
        sample_rate=[16000, 22050, 16000],
        duration=0.81,
    )
    for rate in (16000, 22050):
        task = load_task(path, rate)
        assert task.sample_rate == rate
        waveform = load(task.X[0], 1)
        assert len(waveform.samples) == round(0.81 * rate)
        spectrum = np.abs(np.fft.rfft(waveform.samples, 8 * rate))
        assert spectrum.argmax() / 8 == pytest.approx(440, abs=1)


def test_names_of_files(tmp_path):
    path = write_task(
        tmp_path, "toy", CLIPS, list("abab"), TVT, files=["z", "x.wav", "x.wav", "a"]
    )
    task = load_task(path)
    assert task.files == ["a.wav", "z.wav", "x.wav", "x.wav"]
    assert task.y.tolist() == ["b", "a", "a", "b"]


def test_loud_clips_are_cut_off_with_a_warning(tmp_path):
    clips = [np.array([0.5, 2.0, -2.0], np.float32), *CLIPS[:3]]
    with pytest.warns(UserWarning, match=r"1 of 4 clips have samples beyond \[-1, 1\]"):
        path = write_task(tmp_path, "toy", clips, list("abab"), TVT)
    samples = load(load_task(path).X[0], 1).samples
    np.testing.assert_allclose(samples, [0.5, 1.0, -1.0], atol=1e-4)


def test_overwrite(tmp_path):
    write_task(tmp_path, "toy", CLIPS, list("abab"), TVT)
    with pytest.raises(FileExistsError, match=r"toy-1\.0-full already: choose another"):
        write_task(tmp_path, "toy", CLIPS, list("abab"), TVT)
    path = write_task(tmp_path, "toy", CLIPS, list("cdcd"), TVT, overwrite=True)
    assert load_task(path).labels == ["c", "d"]
    assert os.listdir(tmp_path) == ["toy-1.0-full"]


def test_a_bad_clip_leaves_what_was_there(tmp_path):
    path = write_task(tmp_path, "toy", CLIPS, list("abab"), TVT)
    bad = [*CLIPS[:3], tmp_path / "none.wav"]
    with pytest.raises(ValueError, match=r"clip 3 \(none\.wav\): there is no file"):
        write_task(tmp_path, "toy", bad, list("cdcd"), TVT, overwrite=True)
    assert os.listdir(tmp_path) == ["toy-1.0-full"]
    assert load_task(path).labels == ["a", "b"]


def test_nothing_known_but_the_kind(tmp_path):
    path = write_task(
        tmp_path, "toy", CLIPS, [[]] * 4, TVT, kind="events", labels=["a"]
    )
    assert load_task(path).y == [[]] * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": list("aba")}, "one entry for each clip, but clips has 4, y has 3, spli"),
        ({"files": ["a"]}, "one entry for each clip.*files has 1"),
        ({"splits": ["train", "test"] * 2}, "splits has test, train; it must have all"),
        ({"splits": [0, 1, 0, 1]}, "at least three folds"),
        ({"splits": ["a", "b", "c", "d"]}, "splits has a, b, c, d"),
        ({"y": [0.5, 1.0, 0.5, 1.0]}, "the label 0.5; a label must be text or"),
        ({"y": [True, False] * 2}, "the label True"),
        ({"y": [[]] * 4}, "say by kind what y would hold"),
        ({"y": [[]] * 4, "kind": "events"}, "no labels at all: name the vocabulary"),
        ({"kind": "scene"}, "kind='scene' must be one of multiclass, multilabel, ev"),
        ({"kind": "multilabel"}, "y has 'a' for a clip; .* a list of them"),
        ({"y": np.eye(4)}, "y has 4 columns; labels must name each, and names 0"),
        ({"y": 2 * np.eye(4), "labels": list("abcd")}, "nothing but 0 and 1"),
        ({"y": np.eye(4), "kind": "events"}, "a matrix of indicators, but kind="),
        ({"y": [[("a", 2.0, 1.0)], [], [], []]}, "may not end before it starts"),
        ({"labels": ["a"]}, r"labels=\['a'\] must name all labels .* lacks \['b'\]"),
        ({"labels": ["a", "b", "a"]}, "must name all labels of y, each once"),
        ({"files": ["a", "b/c", "d", "e"]}, "files has 'b/c.wav'"),
        ({"files": ["a", "b", "c", "A.wav"]}, "'a.wav' twice in the split train"),
        ({"name": "a/b"}, "name='a/b' becomes a part of the folder's name"),
        ({"version": ""}, "version='' becomes a part"),
        ({"duration": 0}, "duration=0 must be a positive number of seconds"),
        ({"sample_rate": 0.5}, "sample_rate is 0.5: it must be a positive whole"),
        ({"sample_rate": []}, "sample_rate is empty: name at least one"),
        ({"metadata": {"splits": []}}, r"metadata has the keys \['splits'\], which"),
    ],
)
def test_refusals(tmp_path, changes, message):
    arguments = {"name": "toy", "clips": CLIPS, "y": list("abab"), "splits": TVT}
    with pytest.raises(ValueError, match=message):
        write_task(tmp_path, **arguments | changes)
    assert os.listdir(tmp_path) == []


def test_unknown_scores_are_refused(tmp_path):
    with pytest.raises(
        TaskError, match=r"task_metadata\.json: .* names accuracy\. The"
    ):
        write_task(tmp_path, "toy", CLIPS, list("abab"), TVT, evaluation=["accuracy"])
    assert os.listdir(tmp_path) == []
