"""Checks of what a module that speaks HEAR's common API gives.

Everything here is in the units of that API: timestamps are milliseconds.
"""

import numpy as np
import torch

# Timestamps that end within this share of a clip were taken for seconds, which end at
# a thousandth of it; milliseconds that do not lie in one corner end far behind.
_SECONDS = 1.5e-3


def check_embeddings(where, embeddings, n_sounds, size, *, timestamps):
    """Check the embeddings of a batch.

    Parameters
    ----------
    where : str
        The function, as messages call it.
    embeddings : object
        What it returned.
    n_sounds : int
        Sounds that it was given.
    size : int
        The width that the model states.
    timestamps : bool
        Whether there is an axis of time, the second one.

    Raises
    ------
    ValueError
        If they are not a float32 Tensor of shape (n_sounds, size) or
        (n_sounds, n_timestamps, size).
    """
    shape = (n_sounds, "n_timestamps", size) if timestamps else (n_sounds, size)
    allowed = f"({', '.join(map(str, shape))})"
    attribute = "timestamp_embedding_size" if timestamps else "scene_embedding_size"
    if not isinstance(embeddings, torch.Tensor):
        raise ValueError(
            f"{where} gave embeddings as {_describe(embeddings)}. HEAR's API asks for "
            f"a float32 Tensor of shape {allowed}."
        )
    found = tuple(embeddings.shape)
    if len(found) != len(shape) or found[0] != n_sounds:
        raise ValueError(
            f"{where} gave embeddings of shape {found} for {n_sounds} sounds. HEAR's "
            f"API asks for {allowed}."
        )
    if found[-1] != size:
        raise ValueError(
            f"{where} gave embeddings of shape {found}, but the model's {attribute} is "
            f"{size}. The last axis has to be as wide as that."
        )
    if embeddings.dtype != torch.float32:
        raise ValueError(
            f"{where} gave embeddings of dtype {_dtype(embeddings)}. HEAR's API asks "
            "for float32: convert them in the module."
        )


def check_timestamps(where, timestamps, shape, n_samples, rate):
    """Check the timestamps of a batch of sounds of one length.

    Parameters
    ----------
    where : str
        The function, as messages call it.
    timestamps : object
        What it returned.
    shape : tuple of int
        Sounds and frames of the embeddings.
    n_samples, rate : int
        Length of the sounds in samples, and their rate in Hz.

    Returns
    -------
    milliseconds : ndarray of shape (n_timestamps,), float64
        Those of the first sound.

    Raises
    ------
    ValueError
        If they are not numbers, of another shape, not finite, not increasing, before
        or far behind the clip, seconds, or not the same for all sounds.
    """
    if not isinstance(timestamps, torch.Tensor) or timestamps.dtype == torch.bool:
        raise ValueError(
            f"{where} gave timestamps as {_describe(timestamps)}. HEAR's API asks for "
            "a Tensor of milliseconds, one a frame of each sound."
        )
    if tuple(timestamps.shape) != tuple(shape):
        raise ValueError(
            f"{where} gave timestamps of shape {tuple(timestamps.shape)} for "
            f"embeddings of {shape[0]} sounds and {shape[1]} frames. HEAR's API asks "
            f"for {tuple(shape)}, one a frame of each sound."
        )
    if shape[1] == 0:
        raise ValueError(
            f"{where} gave no frame for sounds of {n_samples} samples. If they are too "
            "short for it, set min_seconds to what it needs."
        )
    rows = timestamps.detach().cpu().double().numpy()
    _check_order(where, rows)
    seconds = n_samples / rate
    _check_unit(where, float(rows[0, -1]), seconds)
    if np.abs(rows - rows[0]).max() > 1:
        raise ValueError(
            f"{where} gave sounds of one length timestamps that differ by up to "
            f"{np.abs(rows - rows[0]).max():.4g} ms. They have to follow from the "
            "length alone."
        )
    return rows[0]


def _check_order(where, rows):
    if not np.isfinite(rows).all():
        raise ValueError(
            f"{where} gave {np.count_nonzero(~np.isfinite(rows))} timestamps that are "
            "not finite. Each is the centre of a frame in milliseconds."
        )
    steps = np.diff(rows, axis=1)
    if rows.min() < 0 or (steps <= 0).any():
        below = np.argwhere(steps <= 0)
        found = f"the first at {rows.min():.6g} ms"
        if len(below):
            row, column = below[0]
            pair = rows[row, column : column + 2]
            found = f"{pair[1]:.6g} ms after {pair[0]:.6g} ms"
        raise ValueError(
            f"{where} gave timestamps that do not increase from 0 on: {found}. Frames "
            "come in the order of time, in milliseconds."
        )


def _check_unit(where, last, seconds):
    """Refuse last timestamps that cannot be milliseconds of a clip."""
    if 0 < last <= _SECONDS * 1000 * seconds:
        raise ValueError(
            f"{where} gave {last:.6g} as the last timestamp of a clip of "
            f"{seconds:.6g} s: these are seconds. HEAR's API asks for milliseconds: "
            "multiply by 1000 in the module."
        )
    if seconds >= 1 and last > 1500 * seconds:
        raise ValueError(
            f"{where} gave {last:.6g} as the last timestamp of a clip of "
            f"{seconds:.6g} s, which ends at {1000 * seconds:.6g} ms: these are "
            "samples, frames or microseconds. HEAR's API asks for milliseconds."
        )


def _describe(value):
    dtype = f" of dtype {_dtype(value)}" if hasattr(value, "dtype") else ""
    return f"a {type(value).__name__}{dtype}"


def _dtype(array):
    return str(array.dtype).removeprefix("torch.")
