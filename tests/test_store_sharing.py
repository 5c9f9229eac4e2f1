"""One store in copies, threads, processes and forks."""

import copy
import os
import pickle
import signal
import threading

import pytest

from skaudioemb.store import Store
from tests.stores import key_of, numbers_in, put_numbers, run_python


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, "pickle"])
def test_copies_share_the_file_and_no_connection(store, duplicate):
    put_numbers(store, [1])
    if duplicate == "pickle":
        twin = pickle.loads(pickle.dumps(store))
    else:
        twin = duplicate(store)
    put_numbers(twin, [2])
    store.close()
    assert numbers_in(twin) == numbers_in(store) == {1, 2}
    assert repr(twin) == repr(store) == f"Store({str(store.location)!r})"
    twin.close()


def test_a_limit_survives_copies(tmp_path):
    store = pickle.loads(pickle.dumps(Store(tmp_path, max_bytes=10)))
    assert store.max_bytes == 10
    assert repr(store) == f"Store({str(tmp_path)!r}, max_bytes=10)"


def test_threads_share_one_store(store):
    failures = []

    def work(first):
        try:
            for n in range(first, first + 10):
                put_numbers(store, [n])
                assert n in numbers_in(store)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[10 * i]) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert numbers_in(store) == set(range(60))


def test_two_stores_of_one_process_and_another_process(tmp_path):
    """Looking into the file must not take the locks of an open connection."""
    first, second = Store(tmp_path / "s.db"), Store(tmp_path / "s.db")
    put_numbers(first, [0])
    assert numbers_in(second) == {0}
    other = """
        import sys
        from skaudioemb.store import Store
        from tests.stores import numbers_in, put_numbers

        with Store(sys.argv[1]) as store:
            put_numbers(store, [int(sys.argv[2])])
            print(sorted(numbers_in(store)))
    """
    run_python(other, first.path, 1).communicate()
    assert (tmp_path / "s.db-wal").exists()
    put_numbers(first, [2])
    found, _ = run_python(other, first.path, 3).communicate()
    assert found.strip() == "[0, 1, 2, 3]"
    first.close()
    second.close()


WRITER = """
    import sys
    import numpy as np
    from skaudioemb.store import Store

    store, first, last = Store(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for n in range(first, last):
        store.put({b"key %d" % n: np.full((2, 3), n, np.float32)})
        print(n, flush=True)
"""


def test_processes_write_a_new_store_at_once(store):
    writers = [
        run_python(WRITER, store.location, first, first + 40) for first in (0, 40, 80)
    ]
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    assert numbers_in(store, stop=120) == set(range(120))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("n_reported", [1, 30])
def test_a_killed_writer_loses_nothing_it_reported(store, n_reported):
    writer = run_python(WRITER, store.location, 0, 1_000_000)
    reported = [int(writer.stdout.readline()) for _ in range(n_reported)]
    writer.send_signal(signal.SIGKILL)
    # Not communicate(), which would lose what readline() has buffered.
    rest = writer.stdout.read()
    writer.wait(timeout=60)
    writer.stdout.close()
    reported += [int(line) for line in rest.split("\n")[:-1]]
    kept = numbers_in(store, stop=len(reported) + 1)
    assert kept >= set(reported)
    put_numbers(store, [5000])
    assert store.get([key_of(5000)])


FORKER = """
    import os
    import sys
    import numpy as np
    from skaudioemb.store import Store

    store = Store(sys.argv[1])
    store.put({b"parent": np.ones(3)})
    child = os.fork()
    if not child:
        try:
            assert store._connection is None
            assert b"parent" in store.get([b"parent"])
            store.put({b"child": np.ones(3)})
        except BaseException:
            os._exit(1)
        os._exit(0)
    store.put({b"parent too": np.ones(3)})
    assert os.waitpid(child, 0)[1] == 0
    assert len(store.get([b"parent", b"child", b"parent too"])) == 3
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_parent_and_child_of_a_fork_both_go_on(store):
    process = run_python(FORKER, store.location)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert store.info().entries == 3
