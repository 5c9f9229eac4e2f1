"""Embeddings kept between runs: one SQLite file, shared by threads and processes.

Values are numpy arrays, written as raw little-endian bytes next to their dtype, their
shape and a checksum; nothing is ever unpickled. The file is in WAL mode: readers never
wait, writers wait for each other, and whatever `Store.put` has returned from survives
the death of the process. SQLite's locks need a file system of this machine: do not
share one store between machines over a network.
"""

import os
import sqlite3
import threading
import warnings
import weakref
from pathlib import Path
from typing import NamedTuple

from skaudioemb import storefile
from skaudioemb.storefile import StoreError

_stores = weakref.WeakSet()


class StoreInfo(NamedTuple):
    """What a store holds."""

    entries: int
    """number of arrays"""
    bytes: int
    """bytes of all arrays together"""
    file_bytes: int
    """bytes that the store takes on disk"""
    path: str
    """the SQLite file"""


class Store:
    """Arrays by key in one SQLite file, safe between threads and processes.

    Nothing is opened or created before the first use. Copies, pickles and forked
    processes share the file and open it on their own.

    Parameters
    ----------
    location : str or os.PathLike
        An existing file, or a name that ends in .sqlite, .sqlite3 or .db; anything else
        is a folder, in which the file is ``embeddings.sqlite``. Both are created.
    max_bytes : int or None, default=None
        When the arrays together exceed it after a `put`, the ones least recently put
        or got are dropped. The file keeps its largest size until `clear`. Uses are
        noted only while a limit is set, so that plain readers never write.

    Attributes
    ----------
    path : pathlib.Path
        The SQLite file, absolute.

    Notes
    -----
    An entry whose checksum fails is dropped with a warning and counts as missing. A
    file that SQLite finds damaged is renamed to ``*.damaged`` with a warning and a new
    one begun. A file of another kind is never touched.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from skaudioemb.store import Store
    >>> with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
    ...     store.put({b"key": np.arange(3.0)})
    ...     store.get([b"key", b"other"])
    {b'key': array([0., 1., 2.])}
    """

    def __init__(self, location, max_bytes=None):
        if not isinstance(location, str | os.PathLike):
            raise TypeError(
                f"location is of type {type(location).__name__}: it must be the path "
                "of a file or a folder."
            )
        if max_bytes is not None and not max_bytes > 0:
            raise ValueError(
                f"max_bytes is {max_bytes!r}: it must be a positive number of bytes, "
                "or None for no limit."
            )
        self.location = location
        self.max_bytes = max_bytes
        self.path = storefile.file_of(location)
        self._begin()

    def _begin(self):
        self._lock = threading.Lock()
        self._connection = None
        self._identity = None
        _stores.add(self)

    @classmethod
    def open(cls, memory):
        """Make a store of what estimators accept as their `memory`.

        Parameters
        ----------
        memory : None, Store, str, os.PathLike or object with a `location`
            The last as joblib.Memory, whose location may be None.

        Returns
        -------
        store : Store or None

        Raises
        ------
        TypeError
            If `memory` is none of these.
        """
        if memory is None or isinstance(memory, Store):
            return memory
        if isinstance(memory, str | os.PathLike):
            return cls(memory)
        if hasattr(memory, "location"):
            return cls.open(memory.location)
        raise TypeError(
            f"memory is of type {type(memory).__name__}: it must be None, a path, a "
            "skaudioemb.store.Store or a joblib.Memory."
        )

    def get(self, keys):
        """Look up arrays.

        Parameters
        ----------
        keys : iterable of bytes

        Returns
        -------
        found : dict of bytes to ndarray
            Read-only arrays. Keys that are missing or whose entry is damaged are not
            in it.

        Raises
        ------
        StoreError
            If the file cannot be used.

        Warns
        -----
        RuntimeWarning
            If entries were damaged; they are dropped.
        """
        keys = list(dict.fromkeys(keys))
        if not keys or not self.path.exists():
            return {}
        found, damaged = self._run(lambda db: storefile.select(db, keys))
        if damaged:
            self._run(lambda db: storefile.delete(db, damaged))
        if found and self.max_bytes is not None:
            self._run(lambda db: storefile.note_use(db, list(found)))
        if damaged:
            warnings.warn(
                f"{len(damaged)} damaged entries were dropped from the store "
                f"{self.path}; they will be computed again.",
                RuntimeWarning,
                stacklevel=2,
            )
        return found

    def put(self, items):
        """Write arrays in one transaction: all of them or, on an error, none.

        Parameters
        ----------
        items : dict of bytes to array, or iterable of (key, array) pairs
            Arrays of numbers or booleans, of any shape; they come back C-contiguous
            and little-endian. A key that exists is overwritten.

        Raises
        ------
        TypeError
            If an array holds anything but numbers or booleans.
        StoreError
            If the file cannot be written.

        Warns
        -----
        RuntimeWarning
            If an array is too large for SQLite (1 GB); it is left out.
        """
        # All of it before the lock: the caller's code runs here.
        rows = [storefile.encode(key, value) for key, value in dict(items).items()]
        fitting = [row for row in rows if len(row.data) <= storefile.MAX_BYTES]
        if fitting:
            self._run(lambda db: storefile.insert(db, fitting, self.max_bytes))
        if len(fitting) < len(rows):
            warnings.warn(
                f"{len(rows) - len(fitting)} arrays of more than "
                f"{storefile.MAX_BYTES} bytes were not stored: pool them, "
                "or ask for fewer layers.",
                RuntimeWarning,
                stacklevel=2,
            )

    def info(self):
        """Count entries and bytes.

        Returns
        -------
        info : StoreInfo

        Raises
        ------
        StoreError
            If the file cannot be used.
        """
        entries = n_bytes = 0
        if self.path.exists():
            entries, n_bytes = self._run(
                lambda connection: connection.execute(
                    "SELECT COUNT(*), COALESCE(SUM(n_bytes), 0) FROM entries"
                ).fetchone()
            )
        files = [f for f in map(Path, storefile.files(self.path)) if f.exists()]
        file_bytes = sum(file.stat().st_size for file in files)
        return StoreInfo(entries, n_bytes, file_bytes, str(self.path))

    def clear(self):
        """Drop all entries and shrink the file.

        Raises
        ------
        StoreError
            If the file cannot be written.
        """
        if self.path.exists():
            self._run(storefile.clear)

    def close(self):
        """Close the file; the next use opens it again."""
        with self._lock:
            self._close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __del__(self):
        # Not through the lock, which a collection in the middle of a call may hold.
        if self.__dict__.get("_connection") is not None:
            self._close()

    def __repr__(self):
        limit = "" if self.max_bytes is None else f", max_bytes={self.max_bytes}"
        return f"Store({str(self.location)!r}{limit})"

    def __getstate__(self):
        return {name: self.__dict__[name] for name in ("location", "max_bytes", "path")}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._begin()

    def _run(self, work):
        """Call ``work(connection)``, again on a new file if this one is damaged."""
        with self._lock:
            try:
                return work(self._connected())
            except sqlite3.Error as error:
                self._close()
                if not storefile.means_damage(error):
                    raise StoreError(storefile.sentence(error, self.path)) from error
                storefile.set_aside(self.path, self._identity, error)
            try:
                return work(self._connected())
            except sqlite3.Error as error:
                self._close()
                raise StoreError(storefile.sentence(error, self.path)) from error

    def _connected(self):
        # Another process may have set the file aside, or the user deleted it.
        moved = storefile.identity_of(self.path) != self._identity
        if self._connection is not None and moved:
            self._close()
        if self._connection is None:
            # In case of damage it is set aside only if it is still this file.
            self._identity = storefile.identity_of(self.path)
            opened = storefile.open_file(self.path)
            self._connection, self._identity = self._opened = opened
        return self._connection

    def _close(self):
        if self._connection is not None:
            storefile.close_file(*self._opened)
            self._connection = None


def _before_fork():
    # A connection must not cross a fork: SQLite's locks belong to one process.
    _forking.acquire()
    _held.extend(_stores)
    for store in _held:
        store._lock.acquire()
        store._close()
    storefile.guard.acquire()


def _after_fork():
    storefile.guard.release()
    while _held:
        _held.pop()._lock.release()
    _forking.release()


_held = []
_forking = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
