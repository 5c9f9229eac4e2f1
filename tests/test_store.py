import copy
import os
import sqlite3
from types import SimpleNamespace

import joblib
import numpy as np
import pytest

from skaudioemb.store import Store, StoreError
from skaudioemb.storefile import FILE_NAME
from tests.stores import array_of, change, key_of, numbers_in, put_numbers


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(24, dtype=np.float64).reshape(2, 3, 4).transpose(2, 0, 1),
        np.arange(10, dtype=np.float16)[::-2],
        np.arange(5, dtype=">f4"),
        np.arange(5, dtype=">i8"),
        np.array(3.5),
        np.empty((0,), np.float32),
        np.empty((4, 0, 2), np.int16),
        np.array([True, False, True]),
        np.array([1 + 2j, np.nan], np.complex64),
        np.array([np.nan, np.inf, -0.0]),
        np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
        np.float32(2.0),
        [[1, 2], [3, 4]],
    ],
    ids=lambda value: f"{np.asarray(value).dtype}{np.shape(value)}",
)
def test_values_come_back_as_they_were(store, value):
    store.put({b"a": value})
    store.close()
    found = store.get([b"a"])[b"a"]
    expected = np.asarray(value)
    assert found.dtype == expected.dtype.newbyteorder("<")
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)
    assert found.flags.c_contiguous
    assert not found.flags.writeable


@pytest.mark.parametrize(
    "value", [np.array(["text"]), np.array([{}]), np.array([b"x"]), None]
)
def test_only_numbers_are_stored(store, value):
    with pytest.raises(TypeError, match="only numbers and booleans"):
        store.put({b"good": np.ones(2), b"bad": value})
    assert store.get([b"good"]) == {}


def test_missing_keys_are_absent_and_nothing_is_created_by_asking(store):
    assert store.get([b"a"]) == {}
    assert store.get([]) == {}
    assert store.info()[:3] == (0, 0, 0)
    store.clear()
    assert not store.path.parent.exists()
    put_numbers(store, [1])
    assert numbers_in(store) == {1}


def test_put_takes_pairs_and_overwrites(store):
    store.put((key_of(n), array_of(n + 1)) for n in range(3))
    put_numbers(store, range(3))
    assert numbers_in(store) == {0, 1, 2}
    assert store.info().entries == 3
    assert store.info().bytes == 3 * array_of(0).nbytes


def test_more_keys_than_a_query_admits(store):
    put_numbers(store, range(2345))
    assert numbers_in(store, stop=3000) == set(range(2345))


def test_an_array_beyond_the_limit_is_left_out_with_a_warning(store, monkeypatch):
    monkeypatch.setattr("skaudioemb.storefile.MAX_BYTES", 100)
    with pytest.warns(RuntimeWarning, match="1 arrays of more than 100 bytes"):
        store.put({key_of(1): array_of(1), b"large": np.zeros(26, np.float32)})
    assert numbers_in(store) == {1}
    assert store.get([b"large"]) == {}


@pytest.mark.parametrize("name", ["a.sqlite", "a.sqlite3", "a.db"])
def test_location_may_be_a_file(tmp_path, name):
    store = Store(tmp_path / "new" / name)
    put_numbers(store, [1])
    store.close()
    assert (tmp_path / "new" / name).is_file()


def test_location_may_be_a_folder_or_an_existing_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = Store("folder")
    assert relative.path == tmp_path / "folder" / FILE_NAME
    (tmp_path / "folder.db").mkdir()
    assert Store("folder.db").path == tmp_path / "folder.db" / FILE_NAME
    (tmp_path / "cache").touch()
    store = Store("cache")
    assert store.path == tmp_path / "cache"
    put_numbers(store, [1])
    monkeypatch.chdir("/")
    assert numbers_in(store) == {1}
    store.close()


def test_open_takes_what_estimators_call_memory(tmp_path):
    assert Store.open(None) is None
    assert Store.open(joblib.Memory(None)) is None
    store = Store(tmp_path)
    assert Store.open(store) is store
    for memory in (tmp_path, str(tmp_path), joblib.Memory(tmp_path, verbose=0)):
        assert Store.open(memory).path == store.path
    with pytest.raises(TypeError, match=r"memory is of type int.*joblib\.Memory"):
        Store.open(3)
    with pytest.raises(TypeError, match="location is of type SimpleNamespace"):
        Store(SimpleNamespace())


@pytest.mark.parametrize("max_bytes", [0, -1])
def test_limit_must_be_positive(tmp_path, max_bytes):
    with pytest.raises(ValueError, match=f"max_bytes is {max_bytes}: it must be"):
        Store(tmp_path, max_bytes=max_bytes)


def test_info_counts_and_clear_shrinks(store):
    rng = np.random.default_rng(0)
    store.put({key_of(n): rng.standard_normal(5000) for n in range(50)})
    full = store.info()
    assert full.entries == 50
    assert full.bytes == 50 * 5000 * 8
    assert full.file_bytes > full.bytes
    assert full.path == str(store.path)
    store.clear()
    empty = store.info()
    assert (empty.entries, empty.bytes) == (0, 0)
    assert empty.file_bytes < full.file_bytes / 10
    put_numbers(store, [7])
    assert numbers_in(store) == {7}


def test_least_recently_used_entries_go_first(tmp_path):
    size = array_of(0).nbytes
    with Store(tmp_path, max_bytes=4 * size) as store:
        put_numbers(store, [0, 1])
        put_numbers(store, [2, 3])
        assert numbers_in(store, stop=1) == {0}  # a use of 0
        put_numbers(store, [4])
        assert numbers_in(copy.deepcopy(store)) == {0, 2, 3, 4}
        put_numbers(store, [5, 6, 7])
        assert len(numbers_in(store)) == 4
        assert {5, 6, 7} < numbers_in(store)
        put_numbers(store, range(10, 16))
        assert numbers_in(store) == {12, 13, 14, 15}
        assert store.info().bytes == 4 * size


def test_reading_without_a_limit_writes_nothing(store):
    put_numbers(store, range(3))
    store.close()
    before = store.path.read_bytes()
    numbers_in(store)
    store.close()
    assert store.path.read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE payloads SET data = zeroblob(24) WHERE id = 2",
        "UPDATE payloads SET data = substr(data, 1, 20) WHERE id = 2",
        "UPDATE payloads SET data = 'text' WHERE id = 2",
        "UPDATE entries SET header = CAST('<O8 2 3' AS BLOB) WHERE id = 2",
        "UPDATE entries SET header = x'ff00ff' WHERE id = 2",
        "UPDATE entries SET header = 7 WHERE id = 2",
        "UPDATE entries SET checksum = 'text' WHERE id = 2",
        "DELETE FROM payloads WHERE id = 2",
    ],
)
def test_damaged_entries_are_dropped_with_one_warning(store, statement):
    put_numbers(store, range(5))
    change(store, statement)
    with pytest.warns(RuntimeWarning, match="1 damaged entries") as caught:
        assert numbers_in(store) == {0, 2, 3, 4}
    assert len(caught) == 1
    assert store.info().entries == 4
    assert numbers_in(store) == {0, 2, 3, 4}
    put_numbers(store, [1])
    assert numbers_in(store) == {0, 1, 2, 3, 4}


def test_any_flipped_bit_of_a_value_is_noticed(store):
    for bit in range(0, 24 * 8, 23):
        put_numbers(store, [1])
        data = bytearray(array_of(1).tobytes())
        data[bit // 8] ^= 1 << bit % 8
        change(store, "UPDATE payloads SET data = ?", bytes(data))
        with pytest.warns(RuntimeWarning, match="1 damaged entries"):
            assert numbers_in(store) == set()


def test_a_value_does_not_pass_for_that_of_another_key(store):
    put_numbers(store, [1, 2])
    change(store, "UPDATE payloads SET id = 3 - id + 10")
    change(store, "UPDATE payloads SET id = id - 10")
    with pytest.warns(RuntimeWarning, match="2 damaged entries"):
        assert numbers_in(store) == set()


@pytest.mark.parametrize("kept", [1, 50, 99, 100, 5000, 0.3, 0.7, 0.97])
def test_a_truncated_file_never_gives_wrong_values(store, kept):
    put_numbers(store, range(2000))
    store.close()
    size = store.path.stat().st_size
    os.truncate(store.path, kept if kept >= 1 else int(kept * size))
    with pytest.warns(RuntimeWarning, match=r"renamed to .*\.damaged|damaged entries"):
        assert numbers_in(store, stop=2000) < set(range(2000))
    put_numbers(store, range(2000))
    assert numbers_in(store, stop=2000) == set(range(2000))


@pytest.mark.parametrize("seed", range(10))
# The garbage may lie where nothing is, and then there is nothing to warn of.
@pytest.mark.filterwarnings("ignore:.*damaged:RuntimeWarning")
def test_garbage_anywhere_in_the_file_never_gives_wrong_values(store, seed):
    rng = np.random.default_rng(seed)
    put_numbers(store, range(2000))
    store.close()
    broken = bytearray(store.path.read_bytes())
    start = rng.integers(100, len(broken) - 3000)
    broken[start : start + 3000] = rng.bytes(3000)
    store.path.write_bytes(broken)
    assert numbers_in(store, stop=2000) <= set(range(2000))
    put_numbers(store, range(2000))
    assert numbers_in(store, stop=2000) == set(range(2000))


def test_earlier_damaged_files_are_kept(store):
    for n in range(1, 4):
        put_numbers(store, [1])
        store.close()
        store.path.write_bytes(b"garbage %d" % n)
        with pytest.warns(RuntimeWarning, match="does not begin as a database"):
            assert numbers_in(store) == set()
    names = sorted(file.name for file in store.path.parent.glob("*damaged*"))
    assert names == [f"{FILE_NAME}.damaged{n}" for n in ("", 2, 3)]


def test_an_open_store_notices_that_its_file_was_replaced(store):
    put_numbers(store, [1])
    other = copy.deepcopy(store)
    assert numbers_in(other) == {1}
    store.close()
    store.path.unlink()
    put_numbers(other, [2])
    assert numbers_in(store) == {2}
    other.close()
    assert numbers_in(store) == {2}


def test_a_file_of_another_kind_is_refused_and_left_as_it_is(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("my notes")
    store = Store(file)
    for use in (
        lambda: store.get([b"a"]),
        lambda: put_numbers(store, [1]),
        store.clear,
    ):
        with pytest.raises(StoreError, match=r"notes\.txt is no embedding store"):
            use()
    assert file.read_text() == "my notes"
    assert list(tmp_path.iterdir()) == [file]


def test_a_foreign_database_is_refused_and_left_as_it_is(tmp_path):
    file = tmp_path / "photos.db"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE photos (name)")
    connection.close()
    content = file.read_bytes()
    with pytest.raises(StoreError, match="a database of another application"):
        put_numbers(Store(file), [1])
    assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_another_format_is_refused(store):
    put_numbers(store, [1])
    change(store, "PRAGMA user_version = 99")
    change(store, "PRAGMA wal_checkpoint(TRUNCATE)")
    with pytest.raises(StoreError, match="has format 99, this skaudioemb reads"):
        numbers_in(store)


def test_a_location_that_cannot_be_written_gets_a_sentence(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match=r"cannot be opened .*choose a location"):
        put_numbers(Store(tmp_path / "file" / "store"), [1])


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_read_only_folder_gets_a_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="choose"):
        put_numbers(Store(tmp_path), [1])


def test_a_full_disk_gets_a_sentence_and_loses_nothing(store):
    put_numbers(store, [1])
    # SQLite raises the same error for its own limit as for a full disk.
    store._connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StoreError, match=r"is full.*free space on the disk"):
        store.put({key_of(2): array_of(2), b"large": np.zeros(100_000)})
    assert numbers_in(store) == {1}
    put_numbers(store, [2])
    assert numbers_in(store) == {1, 2}
