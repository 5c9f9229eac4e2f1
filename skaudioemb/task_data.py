"""Tasks in HEAR's format: synthetic ones, and one of recordings of commands."""

import os
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils import check_random_state

from skaudioemb.datasets import make_events, make_notes, make_rhythms
from skaudioemb.hear.task_writing import write_task

_PITCHES = range(48, 72)
_N_TIMBRES = 6
_N_FOLDS = 5
_SIZES = {
    "small": {
        "notes": {"n_clips": 144, "duration": 0.5},
        "events": {"n_clips": 30, "duration": 4.0},
        "rhythms": {"n_clips": 90, "duration": 2.5},
    },
    "medium": {
        "notes": {"n_clips": 1152, "duration": 1.0},
        "events": {"n_clips": 120, "duration": 10.0},
        "rhythms": {"n_clips": 600, "duration": 4.0},
    },
}
# What heareval uses for tasks that do not say.
_POSTPROCESSING = {"median_filter_ms": [250], "min_duration": [125, 250]}
_UNKNOWN = "_unknown_"
_NOISE_FOLDER = "_background_noise_"
_ATTEMPTS = 100


def write_hear_tasks(
    folder,
    names=("notes", "events", "rhythms"),
    size="small",
    random_state=0,
    *,
    overwrite=False,
):
    """Write synthetic tasks in HEAR's format.

    "notes" are those of :func:`make_notes`: 24 pitches, their MIDI numbers as labels,
    split into train, valid and test by instrument. "events" are the mixtures of
    :func:`make_events`, to be found in time. "rhythms" are those of
    :func:`make_rhythms`, in five folds by drum kit.

    Parameters
    ----------
    folder : path-like
        Where to make the tasks' folders, such as ``notes-1.0-small``.
    names : sequence of str, default=("notes", "events", "rhythms")
        Which of them.
    size : {"small", "medium"}, default="small"
        About seven minutes of audio in all, or an hour and twenty minutes.
    random_state : int, RandomState instance or None, default=0
        Determines the clips. A task is the same whichever others are written.
    overwrite : bool, default=False
        Replace folders that are there already.

    Returns
    -------
    paths : list of Path
        The tasks' folders, in the order of ``names``.

    Raises
    ------
    ValueError
        If there is no task of a name, or no such size.
    FileExistsError
        If a folder is there already, and ``overwrite`` is false.

    Examples
    --------
    >>> import tempfile
    >>> from skaudioemb.datasets import write_hear_tasks
    >>> from skaudioemb.hear.task import load_task
    >>> folder = tempfile.TemporaryDirectory()
    >>> (path,) = write_hear_tasks(folder.name, names=["events"])
    >>> load_task(path)
    <Task events-1.0-small: event multilabel, 30 clips (18 train, 6 valid, 6 test), \
5 labels, event_onset_200ms_fms>
    >>> folder.cleanup()
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names or not set(names) <= _WRITERS.keys() or len(set(names)) < len(names):
        raise ValueError(
            f"names={names!r} must name some of {', '.join(_WRITERS)}, each once."
        )
    if size not in _SIZES:
        raise ValueError(f"size={size!r} must be one of {', '.join(_SIZES)}.")
    random = check_random_state(random_state)
    seeds = {name: random.randint(2**31) for name in _WRITERS}
    paths = []
    for name in names:
        settings = {**_SIZES[size][name], "random_state": seeds[name]}
        data, y, splits, more = _WRITERS[name](settings)
        path = write_task(
            folder,
            name,
            data,
            y,
            splits,
            duration=settings["duration"],
            mode=size,
            overwrite=overwrite,
            **more,
        )
        paths.append(path)
    return paths


def _notes(settings):
    notes = make_notes(pitches=_PITCHES, n_timbres=_N_TIMBRES, **settings)
    last = {_N_TIMBRES - 2: "valid", _N_TIMBRES - 1: "test"}
    splits = [last.get(timbre, "train") for timbre in notes.timbre.tolist()]
    # A vocabulary without gaps, for chroma_acc counts its columns by twelve.
    more = {"evaluation": ["pitch_acc", "chroma_acc"], "labels": _PITCHES}
    return notes.data, notes.midi, splits, more


def _events(settings):
    events = make_events(n_events=(1, 8), **settings)
    n_clips = len(events.data)
    splits = np.repeat(["train", "valid", "test"], np.array([6, 2, 2]) * n_clips // 10)
    grid = {"event_postprocessing_grid": _POSTPROCESSING}
    more = {"labels": events.target_names, "metadata": {"evaluation_params": grid}}
    return events.data, events.target, splits, more


def _rhythms(settings):
    rhythms = make_rhythms(n_kits=_N_FOLDS, **settings)
    return rhythms.data, rhythms.target, rhythms.kit, {}


_WRITERS = {"notes": _notes, "events": _events, "rhythms": _rhythms}


def write_speech_commands_task(
    source,
    folder,
    *,
    words=None,
    unknown=False,
    n_folds=5,
    name="speech_commands",
    version="1.0",
    mode="full",
    random_state=0,
    overwrite=False,
):
    """Write a task in HEAR's format of recordings that lie in a folder per word.

    It reads Speech Commands [1]_ and sets of the same form: one folder per word, with
    one wav file per recording, whose name begins with the speaker's, ahead of
    ``_nohash_``. A file whose name has no such part is a speaker of its own. All
    recordings of a speaker are in one split, every label is in every split, and every
    clip gets a length of one second. The folder ``_background_noise_`` is left out.

    Parameters
    ----------
    source : path-like or sequence of path-like
        A folder or a zip archive, or several, as the set and its test set. Of
        recordings with the same word and name one is taken.
    folder : path-like
        Where to make the task's folder, ``{name}-{version}-{mode}``.
    words : sequence of str or None, default=None
        The words to tell apart. None is all that have a folder.
    unknown : bool, default=False
        Take recordings of other words too, with the label "_unknown_".
    n_folds : int or None, default=5
        Number of folds, at least 3. None is one split into train, valid and test, of
        about 60, 20 and 20 % of the clips.
    name, version, mode : str
        Parts of the folder's name.
    random_state : int, RandomState instance or None, default=0
        Determines the splits.
    overwrite : bool, default=False
        Replace the folder if it is there already.

    Returns
    -------
    path : Path
        The task's folder.

    Raises
    ------
    ValueError
        If there are no recordings of a word, or too few speakers to have each word in
        each split.
    FileExistsError
        If the folder is there already, and ``overwrite`` is false.

    References
    ----------
    .. [1] P. Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech
       Recognition", arXiv:1804.03209, 2018.
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    with _Recordings(sources) as clips:
        labels = clips.take_words(words, unknown)
        files = [
            f"{label}_{number:05d}_{path.stem}.wav"
            for number, (label, (_, path)) in enumerate(
                zip(labels, clips.members, strict=True)
            )
        ]
        return write_task(
            folder,
            name,
            clips,
            labels,
            _split_by_speaker(labels, clips.speakers, n_folds, random_state),
            evaluation=["top1_acc"],
            duration=1.0,
            files=files,
            version=version,
            mode=mode,
            overwrite=overwrite,
        )


class _Recordings(Sequence):
    """The wav files in folders and zip archives, read one at a time.

    ``members`` holds pairs of source and path within it, sorted by word and name.
    """

    def __init__(self, sources):
        self._archives = {}
        found = {}
        for source in map(Path, sources):
            for member in _list_recordings(source):
                word = member.parent.name
                if word != _NOISE_FOLDER:
                    found.setdefault((word, member.name), (source, member))
        self.members = [found[key] for key in sorted(found)]
        if not found:
            listed = ", ".join(map(str, sources))
            raise ValueError(
                f"{listed}: found no wav files in folders, such as yes/1_nohash_0.wav."
            )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for archive in self._archives.values():
            archive.close()

    def __len__(self):
        return len(self.members)

    def __getitem__(self, index):
        source, path = self.members[index]
        if source.is_dir():
            return source / path
        if source not in self._archives:
            self._archives[source] = zipfile.ZipFile(source)
        content = self._archives[source].read(str(path))
        return {"bytes": content, "path": str(path)}

    @property
    def speakers(self):
        """The speaker of each recording."""
        return [path.stem.split("_nohash_")[0] for _, path in self.members]

    def take_words(self, words, unknown):
        """Leave out recordings of other words; return the label of each other."""
        found = [path.parent.name for _, path in self.members]
        if words is None:
            return np.array(found)
        words = [words] if isinstance(words, str) else list(words)
        if missing := [word for word in words if word not in found]:
            raise ValueError(
                f"There are no recordings of {', '.join(missing)}. There are some of "
                f"{', '.join(sorted(set(found)))}."
            )
        taken = [i for i, word in enumerate(found) if unknown or word in words]
        self.members = [self.members[i] for i in taken]
        return np.array([found[i] if found[i] in words else _UNKNOWN for i in taken])


def _list_recordings(source):
    """Return the paths of wav files within a folder or a zip archive."""
    if source.is_dir():
        members = (path.relative_to(source) for path in source.rglob("*.wav"))
        members = map(PurePosixPath, members)
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            members = map(PurePosixPath, archive.namelist())
    else:
        raise ValueError(f"{source} must be a folder or a zip archive that is there.")
    return [
        path
        for path in members
        if path.suffix == ".wav" and path.parent.name and not path.name.startswith(".")
    ]


def _split_by_speaker(labels, speakers, n_folds, random_state):
    n_parts = 5 if n_folds is None else n_folds
    if n_parts != int(n_parts) or n_parts < 3:
        raise ValueError(f"n_folds={n_folds!r} must be at least 3, or None.")
    pairs = set(zip(labels.tolist(), speakers, strict=True))
    label, n_speakers = Counter(label for label, _ in pairs).most_common()[-1]
    splits = None
    if n_speakers >= n_parts:
        random = check_random_state(random_state)
        splits = _try_to_split(labels, speakers, n_parts, random)
    if splits is None:
        raise ValueError(
            f"The {len(labels)} recordings cannot be split into {n_parts} parts by "
            f"speaker with every label in each: {label!r} has {n_speakers} speakers. "
            "Choose fewer folds or fewer words, or add recordings."
        )
    if n_folds is not None:
        return splits
    return np.array(["test", "valid", "train", "train", "train"])[splits]


def _try_to_split(labels, speakers, n_parts, random):
    """Return the part of each recording; None if some part lacks a label each time."""
    n_labels = len(np.unique(labels))
    for _ in range(_ATTEMPTS):
        seed = random.randint(2**31)
        folds = StratifiedGroupKFold(n_parts, shuffle=True, random_state=seed)
        parts = np.empty(len(labels), dtype=np.int64)
        whole = True
        for number, (_, test) in enumerate(folds.split(labels, labels, speakers)):
            parts[test] = number
            whole = whole and len(np.unique(labels[test])) == n_labels
        if whole:
            return parts
    return None
