"""Write clips and labels as a task in HEAR's format."""

import csv
import json
import re
import warnings
from numbers import Real
from pathlib import Path

import numpy as np

from skaudioemb.audio import AudioError, Waveform, check_clips, check_rate
from skaudioemb.audio import load as load_clip
from skaudioemb.hear.task_arguments import (
    KINDS,
    check_files,
    check_lengths,
    check_splits,
    read_target,
)
from skaudioemb.hear.task_files import (
    METADATA,
    TRAIN_VALID_TEST,
    VOCABULARY,
    check_metadata,
)
from skaudioemb.hear.task_folders import whole_folder
from skaudioemb.resampling import resample

# What HEAR scores most tasks of each kind by.
_EVALUATION = {
    "multiclass": ["top1_acc", "mAP", "d_prime", "aucroc"],
    "multilabel": ["mAP", "d_prime", "aucroc", "top1_acc"],
    "events": ["event_onset_200ms_fms", "segment_1s_er"],
}
_PCM16 = 2**15


def write_task(
    folder,
    name,
    clips,
    y,
    splits,
    *,
    kind=None,
    labels=None,
    evaluation=None,
    duration=None,
    sample_rate=16000,
    clip_rate=16000,
    files=None,
    version="1.0",
    mode="full",
    metadata=None,
    overwrite=False,
):
    """Write recordings and their labels as a task in HEAR's format.

    The recordings become mono wav files of 16 bits. :func:`load_task` reads the task,
    and so does any tool for HEAR.

    Parameters
    ----------
    folder : path-like
        Where to make the task's folder, ``{name}-{version}-{mode}``.
    name : str
        Name of the task.
    clips : sequence of n_clips clips
        Anything that embedders take: paths, segments, arrays.
    y : sequence of length n_clips or array-like of shape (n_clips, n_labels)
        A label per clip (text or whole number); or a list of labels per clip, or an
        indicator matrix; or a list of :class:`~skaudioemb.Event` per clip, in seconds.
    splits : sequence of str or int of length n_clips
        "train", "valid" or "test" for each clip, or its fold, from 0: at least three
        folds. HEAR writes fold 0 as "fold00", which may be given as well.
    kind : {"multiclass", "multilabel", "events"} or None, default=None
        What ``y`` holds. None tells by the first clip that has a label; lists that are
        all empty need it.
    labels : sequence of str or int or None, default=None
        The vocabulary, in its order, with all labels that occur. It names the columns
        of an indicator matrix. None is all that occur, sorted.
    evaluation : sequence of str or None, default=None
        Names of scores in ``skaudioemb.hear.scores.SCORES``, the one that counts
        first. None is what HEAR uses for most tasks of this kind.
    duration : float or None, default=None
        Length to give each clip, in seconds: longer ones lose their end, shorter ones
        are followed by silence, and events are cut likewise. None keeps the lengths.
    sample_rate : int or sequence of int, default=16000
        Rate to write, in Hz, or several.
    clip_rate : int, default=16000
        Rate of clips that are bare arrays, in Hz.
    files : sequence of str or None, default=None
        A file name per clip, each once in a split; ".wav" is added where it is
        missing. None numbers the clips.
    version, mode : str
        Parts of the folder's name.
    metadata : dict or None, default=None
        More entries for ``task_metadata.json``, such as ``evaluation_params``, whose
        times are milliseconds.
    overwrite : bool, default=False
        Replace the folder if it is there already.

    Returns
    -------
    path : Path
        The task's folder. It appears only when it is whole.

    Raises
    ------
    ValueError
        If the arguments do not fit together, or a clip cannot be read.
    FileExistsError
        If the folder is there already, and ``overwrite`` is false.

    Warns
    -----
    UserWarning
        If samples beyond [-1, 1] were cut off.

    References
    ----------
    J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations", Proceedings
    of Machine Learning Research 176 (NeurIPS 2021), 2022. The format is that of its
    code, hearpreprocess 2021.1.1.

    Examples
    --------
    >>> import tempfile
    >>> from skaudioemb.datasets import make_notes
    >>> from skaudioemb.hear.task import load_task
    >>> from skaudioemb.hear.task_writing import write_task
    >>> X, y = make_notes(6, pitches=["C4", "A4"], return_X_y=True, random_state=0)
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = write_task(folder.name, "notes", X, y, [0, 0, 1, 1, 2, 2])
    >>> load_task(path)
    <Task notes-1.0-full: scene multiclass, 6 clips (3 folds), 2 labels, top1_acc>
    >>> folder.cleanup()
    """
    clips = check_clips(clips)
    target = read_target(y, kind, labels)
    splits, order = check_splits(splits)
    files = check_files(files, splits, len(clips))
    check_lengths(clips=clips, y=target.content, splits=splits, files=files)
    rates = _check_rates(sample_rate)
    if duration is not None and not 0 < duration < np.inf:
        raise ValueError(
            f"duration={duration!r} must be a positive number of seconds, or None."
        )
    content = _metadata(name, version, mode, target.kind, evaluation, duration, order)
    if clash := content.keys() & (metadata or {}).keys():
        raise ValueError(
            f"metadata has the keys {sorted(clash)}, which follow from other "
            "arguments: leave them out."
        )
    content |= metadata or {}
    path = Path(folder) / f"{name}-{version}-{mode}"
    check_metadata(content, path / METADATA)
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"There is a folder {path} already: choose another version or mode, or "
            "set overwrite=True."
        )
    with whole_folder(path, overwrite) as partial:
        _write_json(partial / METADATA, content)
        _write_vocabulary(partial / VOCABULARY, target.labels)
        _write_splits(partial, target, splits, files, duration)
        _write_clips(partial, clips, splits, files, rates, clip_rate, duration)
    return path


def _check_rates(rates):
    rates = [rates] if isinstance(rates, Real) else list(rates)
    if not rates:
        raise ValueError("sample_rate is empty: name at least one rate, in Hz.")
    # As a dict, for a rate that is named twice is written once.
    return list(dict.fromkeys(check_rate(rate, "sample_rate") for rate in rates))


def _metadata(name, version, mode, kind, evaluation, duration, order):
    for argument, text in {"name": name, "version": version, "mode": mode}.items():
        if not re.fullmatch(r"\w[\w.+-]*", text):
            raise ValueError(
                f"{argument}={text!r} becomes a part of the folder's name: it must "
                "begin with a letter or a digit, and hold no more than letters, "
                "digits and . _ + -"
            )
    is_kfold = order[0] != TRAIN_VALID_TEST[0]
    embedding_type, prediction_type = KINDS[kind]
    folds = {"nfolds": len(order)} if is_kfold else {}
    return {
        "task_name": name,
        "version": version,
        "embedding_type": embedding_type,
        "prediction_type": prediction_type,
        "split_mode": "presplit_kfold" if is_kfold else "trainvaltest",
        **folds,
        "sample_duration": duration,
        "evaluation": list(_EVALUATION[kind] if evaluation is None else evaluation),
        "default_mode": mode,
        "mode": mode,
        "splits": order,
    }


def _write_json(path, content):
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text, encoding="utf-8")


def _write_vocabulary(path, labels):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["idx", "label"])
        writer.writerows(enumerate(labels))


def _write_splits(folder, target, splits, files, duration):
    for split in set(splits):
        content = {
            file: _as_json(target.content[i], target.kind, duration)
            for i, file in enumerate(files)
            if splits[i] == split
        }
        # HEAR sorts the files by name, and their order is that of the rows.
        _write_json(folder / f"{split}.json", dict(sorted(content.items())))


def _as_json(content, kind, duration):
    if kind != "events":
        return content
    end_of_clip = np.inf if duration is None else duration
    return [
        {"label": label, "start": 1000 * start, "end": 1000 * min(end, end_of_clip)}
        for label, start, end in sorted(content, key=lambda event: event[1])
        if start < end_of_clip
    ]


def _write_clips(folder, clips, splits, files, rates, clip_rate, duration):
    import soundfile

    for split in set(splits):
        for rate in rates:
            (folder / str(rate) / split).mkdir(parents=True)
    n_loud = 0
    for i, (split, file) in enumerate(zip(splits, files, strict=True)):
        try:
            waveform = load_clip(clips[i], clip_rate)
        except AudioError as error:
            raise error.at(i) from None
        samples = _cut(waveform.samples, waveform.rate, duration)
        n_loud += np.abs(samples).max() > 1
        for rate in rates:
            resampled = resample(Waveform(samples, waveform.rate), rate)
            path = folder / str(rate) / split / file
            soundfile.write(path, _as_pcm(_cut(resampled, rate, duration)), rate)
    if n_loud:
        warnings.warn(
            f"{n_loud} of {len(files)} clips have samples beyond [-1, 1], which were "
            "cut off: scale the clips down first.",
            stacklevel=3,
        )


def _cut(samples, rate, duration):
    """Drop what is beyond the duration, or add zeros up to it."""
    if duration is None:
        return samples
    n_samples = max(1, round(duration * rate))
    return np.pad(samples[:n_samples], (0, max(0, n_samples - len(samples))))


def _as_pcm(samples):
    # By the factor that reading divides by, so that files of 16 bits stay as they are.
    scaled = np.rint(samples * np.float32(_PCM16))
    return np.clip(scaled, -_PCM16, _PCM16 - 1).astype(np.int16)
