"""What a clip and a sequence of clips may be; names and errors for them."""

import math
import os
from collections.abc import Mapping
from numbers import Real

import numpy as np


class AudioError(ValueError):
    """A clip, or a sequence of clips, that cannot be used.

    Parameters
    ----------
    reason : str
        What was found, what is allowed and what to do.
    clip : str or None, default=None
        Short name of the clip, as `describe` gives it.
    index : int or None, default=None
        Position of the clip among the caller's clips.

    Examples
    --------
    >>> from skaudioemb.audio import AudioError
    >>> print(AudioError("the file is empty.", "a.wav").at(3))
    clip 3 (a.wav): the file is empty.
    """

    def __init__(self, reason, clip=None, index=None):
        super().__init__(reason, clip, index)
        self.reason = reason
        self.clip = clip
        self.index = index

    def __str__(self):
        if self.index is None:
            return self.reason if self.clip is None else f"{self.clip}: {self.reason}"
        name = "" if self.clip is None else f" ({self.clip})"
        return f"clip {self.index}{name}: {self.reason}"

    def at(self, index):
        """Give the same error with the clip's position in its message.

        Parameters
        ----------
        index : int
            Position of the clip among the caller's clips.

        Returns
        -------
        error : AudioError
        """
        error = AudioError(self.reason, self.clip, index)
        error.__cause__ = self.__cause__
        return error


def check_clips(X):
    """Check that X is a sequence of clips, without decoding any.

    Parameters
    ----------
    X : sequence of clips or array-like of shape (n_clips, n_samples)
        Lists, tuples, numpy arrays, torch tensors, pandas Series, 🤗 datasets columns.

    Returns
    -------
    clips : sequence of length n_clips
        Indexed from 0. Lazy sequences stay lazy.

    Raises
    ------
    AudioError
        If X is one clip instead of several, has no order, no length, or no entries.
    TypeError
        If a 2-D array of objects holds one that is not a number.

    Examples
    --------
    >>> from skaudioemb.audio import check_clips
    >>> len(check_clips(["a.wav", ("b.flac", 0.5, 2.0)]))
    2
    >>> check_clips("a.wav")
    Traceback (most recent call last):
    skaudioemb.clips.AudioError: X is a single path, 'a.wav', ...
    """
    _refuse_single_clips(X)
    if hasattr(X, "columns") or hasattr(X, "column_names"):
        X = _numbers_of_table(X)
    elif hasattr(X, "to_numpy"):
        X = X.to_numpy()
    elif not hasattr(X, "__len__") and hasattr(X, "__array__"):
        X = np.asarray(X)
    if not (hasattr(X, "__len__") and hasattr(X, "__getitem__")):
        raise AudioError(
            f"X is of type {type(X).__name__}, which cannot be read twice or by "
            "position: pass a sequence of clips, for instance list(X)."
        )
    if getattr(X, "ndim", 1) == 2:
        return _check_matrix(X)
    _refuse_samples(X)
    if len(X) == 0:
        raise AudioError("X is empty: pass at least one clip.")
    return X


def _refuse_single_clips(X):
    if isinstance(X, str | os.PathLike):
        what = "a folder" if os.path.isdir(X) else "a single path"
        todo = "list its files" if os.path.isdir(X) else "wrap it in a list"
        raise AudioError(
            f"X is {what}, {os.fspath(X)!r}, not a sequence of clips: {todo}."
        )
    if isinstance(X, bytes | bytearray | memoryview) or hasattr(X, "read"):
        raise AudioError(
            f"X is of type {type(X).__name__}: pass a list of clips, a file's content "
            'among them as {"bytes": content}.'
        )
    if isinstance(X, Mapping):
        one_clip = {"array", "bytes", "path"} & set(X)
        columns = any(isinstance(X.get(key), list | tuple) for key in ("bytes", "path"))
        todo = "pass one of its columns, as in X['path']"
        if one_clip and not columns:
            todo = "wrap this one clip in a list"
        raise AudioError(f"X is a dict with the keys {sorted(map(str, X))}: {todo}.")
    if isinstance(X, set | frozenset):
        raise AudioError("X is a set, which has no order: pass sorted(X).")
    if is_sparse(X):
        raise AudioError(
            "X is a sparse matrix, and sparse audio is not supported: pass X.toarray()."
        )
    if (
        isinstance(X, tuple)
        and is_segment(X)
        and len(X) == 3
        and all(map(is_bound, X[1:]))
    ):
        raise AudioError(f"X is one segment, {X!r}: wrap it in a list.")
    if hasattr(X, "get_all_samples"):
        raise AudioError(f"X is one {type(X).__name__}: wrap it in a list.")


def _numbers_of_table(X):
    numbers = X.to_numpy() if hasattr(X, "to_numpy") else None
    if numbers is None or numbers.dtype.kind not in "fiu":
        names = list(getattr(X, "columns", getattr(X, "column_names", ())))
        raise AudioError(
            f"X is a table with the columns {names}, and not all of them hold numbers: "
            "pass the column of clips alone, as in X['path']; a ColumnTransformer "
            "does so when its column is given as a string and not as a list."
        )
    return numbers


def _check_matrix(X):
    kind = getattr(getattr(X, "dtype", None), "kind", "f")
    if kind == "c":
        raise AudioError("Complex data not supported: pass real samples.")
    if kind == "O":
        try:
            X = X.astype(np.float64)
        except TypeError as error:
            raise TypeError(f"X holds something that is no sample: {error}") from error
        except ValueError as error:
            raise AudioError(f"X holds something that is no sample: {error}") from error
    elif kind not in "fiu":
        raise AudioError(
            f"X is a 2-D array of dtype {X.dtype}: its rows must hold real numbers; "
            "paths go into a 1-D array or a list."
        )
    if X.shape[0] == 0:
        raise AudioError(f"X is empty (shape={tuple(X.shape)}): pass at least one row.")
    if X.shape[1] == 0:
        # The wording that scikit-learn's own checks look for.
        raise AudioError(
            f"Found array with 0 feature(s) (shape={tuple(X.shape)}) while a minimum "
            "of 1 is required: a row is a clip, and a clip needs samples."
        )
    return X


def _refuse_samples(X):
    in_memory = isinstance(X, list | tuple | np.ndarray) or hasattr(X, "detach")
    if getattr(X, "ndim", 1) == 0:
        raise AudioError(f"X is a single number, {X}: pass a sequence of clips.")
    # Both ends, as a column of paths may begin with a NaN for a missing one.
    if in_memory and len(X) and _is_number(X[0]) and _is_number(X[-1]):
        raise AudioError(
            f"X is one clip of {len(X)} samples, not a sequence of clips. Reshape your "
            "data with X.reshape(1, -1) or pass [X] if it is a single clip."
        )


def _is_number(value):
    if isinstance(value, str):  # numpy.str_ has ndim 0
        return False
    return isinstance(value, Real | np.bool_) or getattr(value, "ndim", 1) == 0


def is_sparse(value):
    return hasattr(value, "toarray") and hasattr(value, "nnz")


def is_missing(value):
    """Tell None, NaN and pandas' NA, which stand for a clip that is not there."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and math.isnan(value)


def is_segment(clip):
    return (
        isinstance(clip, tuple | list)
        and len(clip) > 0
        and isinstance(clip[0], str | os.PathLike)
    )


def is_bound(value):
    return value is None or isinstance(value, Real)


def describe(clip):
    """Name a clip in a few words, for messages.

    Parameters
    ----------
    clip : object
        Anything; what is no clip is named by its type.

    Returns
    -------
    name : str
        A file's name, or the kind and size of what is given in memory.

    Examples
    --------
    >>> from skaudioemb.audio import describe
    >>> describe("songs/a.wav"), describe(("songs/a.wav", 1.5, None))
    ('a.wav', 'a.wav from 1.5 s to None')
    >>> describe([0.0, 0.5, 1.0])
    'array of 3 samples'
    """
    if isinstance(clip, str | os.PathLike):
        path = os.fspath(clip)
        name = os.path.basename(os.path.normpath(path)) if path else "empty path"
        # A message lists clips line by line.
        return name if name.isprintable() else ascii(name)[1:-1]
    if is_segment(clip):
        bounds = [f"{b:g} s" if isinstance(b, Real) else str(b) for b in clip[1:]]
        return " ".join([describe(clip[0]), "from", " to ".join(bounds)])
    if isinstance(clip, Mapping):
        for key in ("path", "array", "bytes"):
            if clip.get(key) is not None:
                return describe(clip[key])
        return f"dict with the keys {sorted(map(str, clip))}"
    if isinstance(clip, bytes | bytearray | memoryview):
        return f"{len(clip)} bytes"
    shape = getattr(clip, "shape", None)
    if shape is None and isinstance(clip, list | tuple):
        shape = (len(clip),)
    if shape is None or is_sparse(clip) or len(shape) == 0:
        return type(clip).__name__
    if len(shape) == 1:
        return f"array of {shape[0]} samples"
    return f"array of shape {tuple(shape)}"


def check_rate(rate, name):
    """Check that a rate is a positive whole number of Hz.

    Parameters
    ----------
    rate : number
        The rate to check; a float that is whole is accepted.
    name : str
        What the message calls it.

    Returns
    -------
    rate : int

    Raises
    ------
    AudioError
        If it is not a number, not whole, or not positive.
    """
    whole = isinstance(rate, Real) and not isinstance(rate, bool)
    whole = whole and math.isfinite(rate) and rate == int(rate)
    if not whole or rate <= 0:
        raise AudioError(
            f"{name} is {rate!r}: it must be a positive whole number of Hz, as 44100."
        )
    return int(rate)
