"""The file behind a store: its format, its checks, and what is done to its rows."""

import contextlib
import os
import sqlite3
import threading
import time
import warnings
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

FILE_NAME = "embeddings.sqlite"
SUFFIXES = (".sqlite", ".sqlite3", ".db")
MAGIC = b"SQLite format 3\0"
APPLICATION_ID = int.from_bytes(b"SkAE")
SCHEMA_VERSION = 1
BUSY_SECONDS = 60
KEYS_PER_QUERY = 500  # SQLite before 3.32 admits 999 variables
MAX_BYTES = 999_000_000  # SQLite's own limit for a row is 10**9
PAGE_BYTES = 16384
DAMAGED_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

# Payloads apart from the rest: SQLite rewrites a whole row when a use is noted.
SCHEMA = """
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    header BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    n_bytes INTEGER NOT NULL,
    used INTEGER NOT NULL
);
CREATE INDEX entries_used ON entries (used);
CREATE TABLE payloads (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
"""
SELECT = """
SELECT entries.key, header, checksum, data
FROM entries LEFT JOIN payloads USING (id) WHERE entries.key IN ({})
"""


# The garbage collector may close a store in the middle of opening another.
guard = threading.RLock()
_n_connections = Counter()


class StoreError(OSError):
    """The store's file cannot be used; the message says why and what to do."""


def file_of(location):
    path = Path(location).expanduser().absolute()
    is_file = path.is_file() or (path.suffix in SUFFIXES and not path.is_dir())
    return path if is_file else path / FILE_NAME


def files(path):
    return [f"{path}{suffix}" for suffix in ("", "-wal", "-shm")]


def identity_of(path):
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def open_file(path):
    """Return a connection to a checked file, and the file's identity.

    POSIX drops all locks of a process on a file when the process closes it anywhere:
    what looks into the file must not do so beside a connection of this process.
    """
    with guard:
        if not _n_connections[identity_of(path)]:
            check_file(path)
        connection = connect(path)
        identity = identity_of(path)
        _n_connections[identity] += 1
    return connection, identity


def close_file(connection, identity):
    with guard:
        connection.close()
        _n_connections[identity] -= 1


def check_file(path):
    """Make the folder; refuse a file of another kind, set a damaged one aside."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(
            f"The store {path} cannot be opened ({error.strerror}): choose a location "
            "where files can be read and written."
        ) from error
    if not header:
        return
    if header[: len(MAGIC)] != MAGIC or len(header) < 100:
        if path.suffix not in SUFFIXES:
            raise StoreError(
                f"{path} is no embedding store and is left as it is: choose another "
                "location."
            )
        set_aside(path, identity_of(path), "it does not begin as a database does")
        return
    # Offsets of SQLite's file format, section 1.3: user version and application id.
    version, application = header[60:64], header[68:72]
    if int.from_bytes(application) != APPLICATION_ID:
        raise StoreError(
            f"{path} is a database of another application and is left as it is: choose "
            "another location."
        )
    if int.from_bytes(version) != SCHEMA_VERSION:
        raise StoreError(
            f"The store {path} has format {int.from_bytes(version)}, this skaudioemb "
            f"reads format {SCHEMA_VERSION}: choose another location or delete it."
        )


def set_aside(path, identity, reason):
    """Rename a damaged file, unless another process has done so already."""
    if identity is None or identity_of(path) != identity:
        return
    target, n = f"{path}.damaged", 1
    while os.path.exists(target):
        n += 1
        target = f"{path}.damaged{n}"
    # The log goes first: a new file must never find the old one's.
    for source in reversed(files(path)):
        with contextlib.suppress(FileNotFoundError):
            os.replace(source, target + source[len(str(path)) :])
    warnings.warn(
        f"The store {path} is damaged ({reason}). It was renamed to {target}, and a "
        "new one is begun; its entries will be computed again.",
        RuntimeWarning,
        stacklevel=5,
    )


def connect(path):
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        if not connection.execute("PRAGMA application_id").fetchone()[0]:
            _create(connection)
        _patiently(connection, "PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {2**26}")
    except BaseException:
        connection.close()
        raise
    return connection


def _create(connection):
    with _transaction(connection):
        # Whoever waited here for another process finds the schema made.
        if connection.execute("PRAGMA application_id").fetchone()[0]:
            return
        for statement in SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _patiently(connection, statement):
    """Wait where SQLite does not: a change of journal mode skips the busy timeout."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return connection.execute(statement)
        except sqlite3.OperationalError as error:
            busy = _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def _transaction(connection):
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _code(error):
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def means_damage(error):
    # A table that is gone from a file with our mark is damage as well.
    return _code(error) in DAMAGED_CODES or "no such" in str(error)


def sentence(error, path):
    todo = {
        sqlite3.SQLITE_FULL: "free space on the disk, or clear the store",
        sqlite3.SQLITE_READONLY: "make it writable, or choose another location",
        sqlite3.SQLITE_CANTOPEN: "make it writable, or choose another location",
        sqlite3.SQLITE_BUSY: f"another process has kept it for {BUSY_SECONDS} s; "
        "end that process or choose another location",
    }.get(_code(error), "choose another location or delete it")
    return f"The store {path} cannot be used ({error}): {todo}."


class _Row(NamedTuple):
    key: bytes
    header: bytes
    checksum: int
    data: np.ndarray


def encode(key, value):
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise TypeError(
            f"An array of dtype {array.dtype} cannot be stored: only numbers and "
            "booleans can."
        )
    array = np.require(array, array.dtype.newbyteorder("<"), ["C"])
    header = " ".join([array.dtype.str, *map(str, array.shape)]).encode()
    data = array.reshape(-1).view(np.uint8)
    return _Row(key, header, _checksum(key, header, data), data)


def _decode(header, data):
    dtype, *shape = header.decode().split(" ")
    return np.frombuffer(data, np.dtype(dtype)).reshape(list(map(int, shape)))


def _checksum(key, header, data):
    return zlib.crc32(data, zlib.crc32(b"%d %b%b" % (len(key), key, header)))


def _marks(keys):
    return ",".join("?" * len(keys))


def _pieces(keys):
    starts = range(0, len(keys), KEYS_PER_QUERY)
    return [keys[start : start + KEYS_PER_QUERY] for start in starts]


def select(connection, keys):
    found, damaged = {}, []
    for piece in _pieces(keys):
        rows = connection.execute(SELECT.format(_marks(piece)), piece)
        for key, header, checksum, data in rows:
            # SQLite checks no types: a damaged row may hold text or NULL here.
            try:
                if checksum != _checksum(key, header, data):
                    raise ValueError("the checksum differs")
                found[key] = _decode(header, data)
            except (TypeError, ValueError, AttributeError):
                damaged.append(key)
    return found, damaged


def delete(connection, keys):
    with _transaction(connection):
        for piece in _pieces(keys):
            where = f"WHERE key IN ({_marks(piece)})"
            connection.execute(
                f"DELETE FROM payloads WHERE id IN (SELECT id FROM entries {where})",
                piece,
            )
            connection.execute(f"DELETE FROM entries {where}", piece)


def _next_use(connection):
    """Give a stamp above all others; unlike a clock it never goes backwards."""
    query = "SELECT COALESCE(MAX(used), 0) + 1 FROM entries"
    return connection.execute(query).fetchone()[0]


def note_use(connection, keys):
    with _transaction(connection):
        stamp = _next_use(connection)
        for piece in _pieces(keys):
            connection.execute(
                f"UPDATE entries SET used = ? WHERE key IN ({_marks(piece)})",
                [stamp, *piece],
            )


def insert(connection, rows, max_bytes):
    with _transaction(connection):
        stamp = _next_use(connection)
        for key, header, checksum, data in rows:
            old = connection.execute("SELECT id FROM entries WHERE key = ?", (key,))
            for (entry,) in old.fetchall():
                connection.execute("DELETE FROM payloads WHERE id = ?", (entry,))
                connection.execute("DELETE FROM entries WHERE id = ?", (entry,))
            entry = connection.execute(
                "INSERT INTO entries (key, header, checksum, n_bytes, used) "
                "VALUES (?, ?, ?, ?, ?)",
                (key, header, checksum, len(data), stamp),
            ).lastrowid
            connection.execute(
                "INSERT OR REPLACE INTO payloads (id, data) VALUES (?, ?)",
                (entry, data),
            )
        if max_bytes is not None:
            _evict(connection, max_bytes)


def _evict(connection, max_bytes):
    total = connection.execute("SELECT SUM(n_bytes) FROM entries").fetchone()[0]
    oldest = connection.execute("SELECT id, n_bytes FROM entries ORDER BY used, id")
    dropped = []
    while total > max_bytes and (row := oldest.fetchone()):
        dropped.append((row[0],))
        total -= row[1]
    oldest.close()
    connection.executemany("DELETE FROM payloads WHERE id = ?", dropped)
    connection.executemany("DELETE FROM entries WHERE id = ?", dropped)


def clear(connection):
    with _transaction(connection):
        connection.execute("DELETE FROM payloads")
        connection.execute("DELETE FROM entries")
    _patiently(connection, "VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
