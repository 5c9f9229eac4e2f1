"""Loading in threads, ahead of whoever consumes."""

import os
import threading

from skaudioemb.clips import AudioError


def load_ahead(clips, load_one, *, n_threads=None, ahead=64, max_bytes=2**28):
    """Load clips in threads, ahead of whoever consumes them, in order.

    Parameters
    ----------
    clips : iterable
        The clips; it is advanced by one thread at a time, no further than needed.
    load_one : callable
        Called with one clip in a thread. Arrays in what it returns, also within tuples
        and lists, count as bytes.
    n_threads : int or None, default=None
        How many threads load; None means one per processor, at most 8.
    ahead : int, default=64
        How many clips may be loaded or loading before they are asked for.
    max_bytes : int, default=2**28
        How many bytes of results may wait to be asked for. The next clip is loaded
        whatever its size; until a size has been seen, one clip per thread is.

    Yields
    ------
    result : object
        What `load_one` returned; or the AudioError or OSError that it raised, an
        AudioError with the clip's position in it. Any other exception is raised here.

    Examples
    --------
    >>> from skaudioemb.audio import load_ahead
    >>> list(load_ahead([1, 2, 3], float, n_threads=2, ahead=2))
    [1.0, 2.0, 3.0]
    """
    queue = _Ahead(clips, load_one, ahead, max_bytes)
    threads = [
        threading.Thread(target=queue.work, name=f"load-ahead-{i}", daemon=True)
        for i in range(n_threads or min(8, os.cpu_count() or 1))
    ]
    try:
        for thread in threads:
            thread.start()
        while (taken := queue.take()) is not None:
            result, raised = taken
            if raised:
                raise result
            yield result
    finally:
        queue.stop()
        for thread in threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join()


class _Ahead:
    """What the threads of `load_ahead` and its consumer share."""

    def __init__(self, clips, load_one, ahead, max_bytes):
        self.clips, self.load_one = iter(clips), load_one
        self.ahead, self.max_bytes = ahead, max_bytes
        # Apart from `changed`, so that a slow iterator holds up no finished result.
        self.advancing = threading.Lock()
        self.changed = threading.Condition()
        self.results = {}
        self.n_started = self.n_taken = self.n_loading = 0
        self.waiting_bytes = self.largest = 0
        self.exhausted = self.stopped = False

    def work(self):
        while (started := self._start()) is not None:
            index, clip = started
            result, raised = self._load(index, clip)
            self._finish(index, result, raised)

    def _start(self):
        with self.advancing:
            with self.changed:
                self.changed.wait_for(self._may_go_on)
                if self.stopped or self.exhausted:
                    return None
                index = self.n_started
                self.n_started += 1
                self.n_loading += 1
            try:
                return index, next(self.clips)
            except StopIteration:
                self._finish(index, None, False, exhausted=True)
            except BaseException as error:
                self._finish(index, error, True, exhausted=True)
        return None

    def _may_go_on(self):
        # The next clip is always let through, or the consumer might wait forever.
        if self.stopped or self.exhausted or self.n_started == self.n_taken:
            return True
        # What is being loaded is taken to be as large as the largest seen.
        expected = self.waiting_bytes + (self.n_loading + 1) * self.largest
        few = self.n_started - self.n_taken < self.ahead
        return few and expected <= self.max_bytes

    def _load(self, index, clip):
        try:
            return self.load_one(clip), False
        except AudioError as error:
            return (error.at(index) if error.index is None else error), False
        except OSError as error:
            return error, False
        except BaseException as error:
            return error, True

    def _finish(self, index, result, raised, exhausted=False):
        size = _n_bytes(result)
        with self.changed:
            self.n_loading -= 1
            self.exhausted = self.exhausted or exhausted
            if raised or not exhausted:
                self.results[index] = result, raised, size
                self.waiting_bytes += size
                self.largest = max(self.largest, size)
            else:
                self.n_started -= 1
            self.changed.notify_all()

    def take(self):
        """Wait for the next result; None behind the last one."""
        with self.changed:
            self.changed.wait_for(self._is_next_known)
            if self.n_taken not in self.results:
                return None
            result, raised, size = self.results.pop(self.n_taken)
            self.waiting_bytes -= size
            self.n_taken += 1
            self.changed.notify_all()
            return result, raised

    def _is_next_known(self):
        return self.n_taken in self.results or (
            self.exhausted and self.n_taken == self.n_started
        )

    def stop(self):
        with self.changed:
            self.stopped = True
            self.results.clear()
            self.changed.notify_all()


def _n_bytes(result):
    if isinstance(result, tuple | list):
        return sum(map(_n_bytes, result))
    size = getattr(result, "nbytes", 0)
    return size if isinstance(size, int) else 0
