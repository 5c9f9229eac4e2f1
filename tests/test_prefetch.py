import threading
import time

import numpy as np
import pytest

from skaudioemb.audio import (
    load,
    load_ahead,
)

RATE = 16000


@pytest.mark.parametrize("n_threads", [1, 3])
def test_clips_come_in_order(n_threads):
    def slowly(n):
        time.sleep(0.002 * (n % 3))
        return n

    for clips in (range(50), iter(range(50))):
        loaded = load_ahead(clips, slowly, n_threads=n_threads, ahead=4)
        assert list(loaded) == list(range(50))
    assert list(load_ahead([], slowly)) == []


def test_bad_clips_come_in_their_places():
    clips = [[0.5], "no.wav", [], [0.25]]
    loaded = list(load_ahead(clips, lambda clip: load(clip, RATE)))
    assert loaded[0].samples.tolist() == [0.5]
    assert loaded[3].samples.tolist() == [0.25]
    assert str(loaded[1]).startswith("clip 1 (no.wav): there is no file")
    assert str(loaded[2]).startswith("clip 2 (array of 0 samples): it holds no")

    loaded = list(load_ahead([wav_that_is_away], lambda clip: clip()))
    assert isinstance(loaded[0], ConnectionError)


def wav_that_is_away():
    raise ConnectionError("away")


def test_other_exceptions_are_raised():
    loaded = load_ahead([1, 0, 1], lambda n: 1 / n)
    assert next(loaded) == 1
    with pytest.raises(ZeroDivisionError):
        next(loaded)


def test_an_exception_of_the_iterator_is_raised_in_its_place():
    def clips():
        yield 1
        raise KeyError("broken")

    loaded = load_ahead(clips(), float)
    assert next(loaded) == 1
    with pytest.raises(KeyError, match="broken"):
        next(loaded)


def settle(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    return condition()


def test_no_more_clips_are_loaded_than_asked_for():
    started = []
    loaded = load_ahead(range(100), started.append, n_threads=3, ahead=5)
    next(loaded)
    assert settle(lambda: len(started) == 6)
    for _ in range(10):
        next(loaded)
    assert settle(lambda: len(started) == 16)
    loaded.close()
    assert len(started) == 16


@pytest.mark.parametrize(("max_bytes", "n_waiting"), [(3500, 3), (10, 1)])
def test_no_more_bytes_wait_than_allowed(max_bytes, n_waiting):
    started = []

    def load_one(n):
        started.append(n)
        return n, [np.zeros(250, np.float32)]

    options = {"n_threads": 1, "ahead": 50, "max_bytes": max_bytes}
    loaded = load_ahead(range(100), load_one, **options)
    for n in range(20):
        assert next(loaded)[0] == n
        assert settle(lambda n=n: len(started) == n + 1 + n_waiting)
    loaded.close()


def test_threads_end_when_the_consumer_stops():
    before = threading.active_count()
    loaded = load_ahead(range(100), float, n_threads=3)
    next(loaded)
    assert threading.active_count() > before
    loaded.close()
    assert threading.active_count() == before
    list(load_ahead(range(100), float, n_threads=3))
    assert threading.active_count() == before
