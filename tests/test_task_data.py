"""Rhythms, the tasks that are written of synthetic sounds, and those of commands."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skaudioemb import LogMel, datasets
from skaudioemb.audio import load
from skaudioemb.datasets import (
    make_rhythms,
    write_hear_tasks,
    write_speech_commands_task,
)
from skaudioemb.hear.task import find_tasks, load_task
from tests.sounds import noise

# Beats in a bar.
BARS = {"clave": 4, "gallop": 4, "rock": 4, "shuffle": 4, "tresillo": 4, "waltz": 3}


def likeness(clip, lag):
    """Correlate a clip's loudness with itself, so many seconds later."""
    loudness = np.add.reduceat(clip**2, np.arange(0, len(clip), 160)) ** 0.25
    n_frames = round(lag * 100)
    return np.corrcoef(loudness[n_frames:], loudness[:-n_frames])[0, 1]


class TestRhythms:
    def test_form(self):
        rhythms = make_rhythms(24, n_kits=3, duration=(0.5, 1.0), random_state=0)
        lengths = np.array([len(clip) for clip in rhythms.data]) / 16000
        assert 0.5 <= lengths.min() < 0.7 < 0.9 < lengths.max() <= 1
        for clip in rhythms.data:
            assert clip.dtype == np.float32
            assert 0 < np.abs(clip).max() <= 1
        assert rhythms.target_names == sorted(BARS)
        assert 90 <= rhythms.tempo.min() < 100 < 140 < rhythms.tempo.max() <= 150
        assert "24 clips" in rhythms.DESCR
        assert "3 drum kits" in rhythms.DESCR

    def test_rhythms_and_kits_are_balanced_and_crossed(self):
        rhythms = make_rhythms(36, n_kits=3, duration=0.1, random_state=0)
        pairs = list(zip(rhythms.target, rhythms.kit, strict=True))
        assert len(set(pairs)) == 18
        assert {pairs.count(pair) for pair in pairs} == {2}

    @pytest.mark.parametrize("pattern", BARS)
    @pytest.mark.parametrize("tempo", [100.0, 140.0])
    def test_bars_repeat_in_tempo(self, pattern, tempo):
        rhythms = make_rhythms(
            6, patterns=pattern, tempo=tempo, duration=10.0, noise=0, random_state=0
        )
        bar = BARS[pattern] * 60 / tempo
        for clip in rhythms.data:
            assert likeness(clip, bar) > 0.6
            assert max(likeness(clip, 0.92 * bar), likeness(clip, 1.09 * bar)) < 0.2

    def test_random_state_and_return_X_y(self):
        rhythms = make_rhythms(4, random_state=5)
        X, y = make_rhythms(4, random_state=5, return_X_y=True)
        assert all((a == b).all() for a, b in zip(X, rhythms.data, strict=True))
        assert y.tolist() == rhythms.target.tolist()
        other = make_rhythms(4, random_state=6)
        assert not np.array_equal(other.tempo, rhythms.tempo)

    def test_log_mel_statistics_find_some_but_not_all(self):
        rhythms = make_rhythms(120, random_state=0)
        linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        X = LogMel().fit_transform(rhythms.data)
        score = cross_val_score(linear, X, rhythms.target, cv=3).mean()
        assert 0.3 < score < 0.95

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"n_clips": 0}, "n_clips=0 must be a whole number"),
            ({"n_kits": 0.5}, "n_kits=0.5 must be a whole number"),
            ({"sample_rate": 4000}, "sample_rate=4000 must be .* at least 8000"),
            ({"patterns": ["polka"]}, "choose from clave, gallop"),
            ({"patterns": ["rock", "rock"]}, "name each rhythm once"),
            ({"tempo": 0}, "tempo=0 must be a positive number of beats"),
            ({"duration": (2.0, 1.0)}, "duration=.* must be a positive number of sec"),
            ({"noise": -1}, "noise=-1 must be 0 or a positive"),
        ],
    )
    def test_refusals(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            make_rhythms(**arguments)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    return folder, [load_task(path) for path in write_hear_tasks(folder)]


class TestHearTasks:
    def test_they_are_found(self, small):
        folder, tasks = small
        assert [task.name for task in tasks] == [
            "notes-1.0-small",
            "events-1.0-small",
            "rhythms-1.0-small",
        ]
        assert [task.name for task in find_tasks(folder)] == sorted(os.listdir(folder))
        for task in tasks:
            samples = {len(load(clip, 1).samples) for clip in task.X}
            assert samples == {round(task.sample_duration * 16000)}

    def test_notes_are_split_by_timbre(self, small):
        _, (task, _, _) = small
        assert task.evaluation == ["pitch_acc", "chroma_acc"]
        assert task.labels == [str(midi) for midi in range(48, 72)]
        for split, n_timbres in (("train", 4), ("valid", 1), ("test", 1)):
            counts = [np.sum(task.part(split).y == label) for label in task.labels]
            assert counts == [n_timbres] * 24

    def test_events(self, small):
        _, (_, task, _) = small
        assert (task.embedding_type, task.prediction_type) == ("event", "multilabel")
        assert task.evaluation == ["event_onset_200ms_fms", "segment_1s_er"]
        assert task.metadata["evaluation_params"]["event_postprocessing_grid"] == {
            "median_filter_ms": [250],
            "min_duration": [125, 250],
        }
        assert all(task.y)
        for split in task.splits:
            found = {e.label for clip in task.part(split).y for e in clip}
            assert found == set(task.labels)

    def test_rhythms(self, small):
        _, (_, _, task) = small
        assert task.splits == [f"fold0{i}" for i in range(5)]
        assert task.evaluation == ["top1_acc", "mAP", "d_prime", "aucroc"]
        for fold in task.splits:
            y = task.part(fold).y
            assert [np.sum(y == label) for label in task.labels] == [3] * 6

    def test_a_task_is_the_same_alone(self, small, tmp_path):
        _, (_, _, task) = small
        (path,) = write_hear_tasks(tmp_path, "rhythms")
        again = load_task(path)
        assert again.y.tolist() == task.y.tolist()
        assert Path(again.X[7]).read_bytes() == Path(task.X[7]).read_bytes()
        (path,) = write_hear_tasks(tmp_path, "rhythms", random_state=1, overwrite=True)
        other = load_task(path)
        assert Path(other.X[7]).read_bytes() != Path(task.X[7]).read_bytes()

    def test_refusals(self, tmp_path):
        with pytest.raises(ValueError, match="name some of notes, events, rhythms, ea"):
            write_hear_tasks(tmp_path, ["notes", "chords"])
        with pytest.raises(ValueError, match="size='huge' must be one of small, med"):
            write_hear_tasks(tmp_path, size="huge")

    def test_unknown_names_of_the_module(self):
        with pytest.raises(AttributeError, match="no attribute 'make_chords'"):
            datasets.make_chords  # noqa: B018
        assert set(datasets.__all__) <= {*dir(datasets), *datasets._WRITERS}


def write_words(folder, words, n_speakers, takes=1):
    """Write recordings of words by speakers, in 8 kHz and of many lengths."""
    for word in words:
        (folder / word).mkdir(parents=True)
        for speaker in range(n_speakers):
            for take in range(takes):
                path = folder / word / f"{speaker:08x}_nohash_{take}.wav"
                soundfile.write(path, noise(4000 + 1000 * speaker, seed=speaker), 8000)
    return folder


def speakers_by_split(task):
    """Return the sets of speakers, whom file names have before "_nohash_"."""
    speakers = [name.split("_nohash_")[0].split("_")[-1] for name in task.files]
    return [
        {who for who, name in zip(speakers, task.split, strict=True) if name == split}
        for split in task.splits
    ]


class TestSpeechCommands:
    def test_folds_by_speaker(self, tmp_path):
        source = write_words(tmp_path / "in", ["yes", "no"], 9, takes=2)
        (source / "_background_noise_").mkdir()
        soundfile.write(source / "_background_noise_" / "tap.wav", noise(100), 8000)
        task = load_task(write_speech_commands_task(source, tmp_path / "out"))
        assert task.name == "speech_commands-1.0-full"
        assert task.labels == ["no", "yes"]
        assert len(task.X) == 36
        assert len(task.splits) == 5
        groups = speakers_by_split(task)
        assert sum(map(len, groups)) == len(set.union(*groups)) == 9
        for split in task.splits:
            assert set(task.part(split).y) == {"no", "yes"}
        assert task.evaluation == ["top1_acc"]
        waveform = load(task.X[0], 1)
        assert (len(waveform.samples), waveform.rate) == (16000, 16000)

    def test_train_valid_test(self, tmp_path):
        source = write_words(tmp_path / "in", ["yes", "no"], 10)
        task = load_task(
            write_speech_commands_task(source, tmp_path / "out", n_folds=None)
        )
        assert [len(task.part(split).X) for split in task.splits] == [12, 4, 4]
        groups = speakers_by_split(task)
        assert sum(map(len, groups)) == len(set.union(*groups))

    def test_zips_and_words(self, tmp_path):
        source = write_words(tmp_path / "in", ["yes", "no", "bird", "cat"], 5)
        other = write_words(tmp_path / "more", ["yes", "_silence_"], 6)
        archive = tmp_path / "words.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for path in source.rglob("*.wav"):
                file.write(path, f"set/{path.relative_to(source)}")
        task = load_task(
            write_speech_commands_task(
                [archive, other],
                tmp_path / "out",
                words=["yes", "no", "_silence_"],
                unknown=True,
                n_folds=3,
            )
        )
        counts = {label: int(np.sum(task.y == label)) for label in task.labels}
        # The five recordings that are in both are taken once.
        assert counts == {"_silence_": 6, "_unknown_": 10, "no": 5, "yes": 6}
        path = write_speech_commands_task(
            archive, tmp_path / "out", words="no yes".split(), version="2", n_folds=3
        )
        task = load_task(path)
        assert task.labels == ["no", "yes"]
        row = next(i for i, name in enumerate(task.files) if "00000002" in name)
        samples = load(task.X[row], 1).samples
        assert np.abs(samples[:12000]).max() > 0.5
        assert not samples[12200:].any()

    def test_the_random_state_decides(self, tmp_path):
        source = write_words(tmp_path / "in", ["yes", "no"], 12)
        splits = [
            load_task(
                write_speech_commands_task(
                    source, tmp_path / "out", random_state=seed, overwrite=True
                )
            )
            for seed in (0, 0, 1)
        ]
        files = [[task.part(name).files for name in task.splits] for task in splits]
        assert files[0] == files[1] != files[2]

    def test_refusals(self, tmp_path):
        source = write_words(tmp_path / "in", ["yes", "no"], 4)
        for arguments, message in (
            ({"words": ["yes", "bird"]}, "no recordings of bird. There are some of no"),
            ({}, "cannot be split into 5 parts .*: 'no|yes' has 4 speakers"),
            ({"n_folds": 2}, "n_folds=2 must be at least 3, or None"),
        ):
            with pytest.raises(ValueError, match=message):
                write_speech_commands_task(source, tmp_path / "out", **arguments)
        with pytest.raises(ValueError, match="found no wav files in folders, such as"):
            write_speech_commands_task(tmp_path / "in" / "yes", tmp_path / "out")
        with pytest.raises(ValueError, match="must be a folder or a zip archive"):
            write_speech_commands_task(tmp_path / "none", tmp_path / "out")
