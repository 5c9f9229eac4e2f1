"""Download a file over HTTP such that it is whole, right, or not there.

Bytes go to ``NAME.part``, which gets its name when all of them are there and their
checksum is right. Interrupted in whatever way, the next call goes on where it was.
"""

import hashlib
import shutil
import time
from http.client import HTTPException
from os import replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm.auto import tqdm

_TIMEOUT = 60
_PAUSE = 0.5
_CHUNK = 1 << 20
_DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
_BUSY = (408, 425, 429, 500, 502, 503, 504)


class DownloadError(OSError):
    """A file could not be had; the message says why and what to do."""


def download(url, path, *, checksum=None, size=None, retries=5, progress=True):
    """Download a file, going on from what an earlier call left in ``PATH.part``.

    Parameters
    ----------
    url : str
        Begins with http:// or https://.
    path : path-like
        The file to write. One that exists is kept if its checksum is right, or if
        there is none to compare with.
    checksum : str or None, default=None
        ``"md5:..."``, ``"sha256:..."`` or the hexadecimal digits alone.
    size : int or None, default=None
        Bytes of the file, where known beforehand.
    retries : int, default=5
        How often to try again, with growing pauses, when the server is busy or hangs
        up and nothing new has arrived.
    progress : bool, default=True
        Whether to show a progress bar.

    Returns
    -------
    path : pathlib.Path

    Raises
    ------
    ValueError
        If the address or the checksum is not one.
    DownloadError
        If there is no such file, the server cannot be reached, hands out something
        else than the checksum says, or the disk is too small.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url!r} does not begin with http:// or https://.")
    checksum = None if checksum is None else parse_checksum(checksum)
    path = Path(path)
    if path.exists() and (checksum is None or _digest(path, checksum) == checksum):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    resumed = part.exists()
    _Transfer(url, part, size, progress).run(retries)
    if checksum is not None and resumed and _digest(part, checksum) != checksum:
        # The part may be of another version of the file: once more from the start.
        part.unlink()
        _Transfer(url, part, size, progress).run(retries)
    if checksum is not None and (found := _digest(part, checksum)) != checksum:
        part.unlink()
        raise DownloadError(
            f"{url} has the checksum {found}, expected was {checksum}; it was deleted. "
            "Try again, and if that does not help, compare the checksum with its "
            "source."
        )
    replace(part, path)
    return path


def parse_checksum(text):
    """Return a checksum as ``"algorithm:digits"``.

    Parameters
    ----------
    text : str
        That, or hexadecimal digits whose number tells the algorithm.

    Returns
    -------
    checksum : str

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> from skaudioemb.hear.download import parse_checksum
    >>> parse_checksum("D41D8CD98F00B204E9800998ECF8427E")
    'md5:d41d8cd98f00b204e9800998ecf8427e'
    """
    algorithm, _, digits = text.lower().rpartition(":")
    lengths = {length: name for name, length in _DIGITS.items()}
    algorithm = algorithm or lengths.get(len(digits))
    right = len(digits) == _DIGITS.get(algorithm) and not digits.strip(
        "0123456789abcdef"
    )
    if not right:
        raise ValueError(
            f"{text!r} is not a checksum. Give md5:, sha1:, sha256: or sha512: and the "
            "hexadecimal digits."
        )
    return f"{algorithm}:{digits}"


class _Transfer:
    """One file on its way to ``part``."""

    def __init__(self, url, part, size, progress):
        self.url = url
        self.part = part
        self.size = size
        self.progress = progress

    @property
    def n_bytes(self):
        """Bytes that have arrived."""
        return self.part.stat().st_size if self.part.exists() else 0

    def run(self, retries):
        """Fetch until all is there; an attempt that brings something is no failure."""
        failures = 0
        while self.size is None or self.n_bytes != self.size:
            before = self.n_bytes
            try:
                self._fetch()
                if self.size is None:
                    return
                problem = f"it ended after {self.n_bytes} of {self.size} bytes"
                pause = 0
            except HTTPError as error:
                if error.code not in _BUSY:
                    raise DownloadError(_refusal(self.url, error)) from error
                problem = f"the server says {error.code} {error.reason}"
                pause = _asked_pause(error)
            except (HTTPException, OSError) as error:
                if isinstance(error, DownloadError):
                    raise
                problem, pause = str(error) or type(error).__name__, 0
            failures = 0 if self.n_bytes > before else failures + 1
            if failures > retries:
                raise DownloadError(
                    f"{self.url} could not be had: {problem}. What has arrived is kept "
                    f"in {self.part}; the same call goes on from it."
                )
            time.sleep(max(_PAUSE * 2.0 ** min(failures, 5), pause))

    def _fetch(self):
        """Ask once for what is missing and write what comes."""
        start = self.n_bytes
        if self.size is not None and start > self.size:
            self.part.unlink()
            start = 0
        # A server that compresses on the way would make lengths meaningless.
        headers = {"User-Agent": "skaudioemb", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            response = urlopen(Request(self.url, headers=headers), timeout=_TIMEOUT)
        except HTTPError as error:
            if error.code == 416 and start:
                self._settle(start, error.headers.get("Content-Range", ""))
                return
            raise
        with response:
            self._write(response, self._where(response, start))

    def _settle(self, start, content_range):
        """Find out why there is nothing after ``start``: all is there, or too much."""
        if content_range == f"bytes */{start}" and self.size in (None, start):
            self.size = start
            return
        self.part.unlink()
        raise OSError("the file has changed since its first part came")

    def _where(self, response, start):
        """Return where in the file the response begins, and note the file's size."""
        length = response.headers.get("Content-Length")
        total = None if length is None else int(length)
        if response.status == 206:
            span, _, whole = response.headers.get("Content-Range", "").partition("/")
            if span != f"bytes {start}-{span.rpartition('-')[2]}":
                self.part.unlink()
                raise OSError("the server sent another part than was asked for")
            total = int(whole) if whole.isdigit() else total and total + start
        else:
            start = 0
        if self.size is None:
            self.size = total
        elif total is not None and total != self.size:
            raise DownloadError(
                f"{self.url} has {total} bytes, expected were {self.size}. Compare "
                "the address with its source."
            )
        return start

    def _write(self, response, start):
        if self.size is not None:
            _check_space(self.part.parent, 2 * self.size - start, self.url)
        bar = tqdm(
            desc=self.part.stem,
            total=self.size,
            initial=start,
            unit="B",
            unit_scale=True,
            disable=not self.progress,
        )
        with bar, open(self.part, "ab" if start else "wb") as file:
            while data := response.read(_CHUNK):
                file.write(data)
                bar.update(len(data))


def _check_space(folder, needed, url):
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{url} needs {needed / 1e9:.1f} GB in {folder}, for the archive and at "
            f"least as much for what is in it, but {free / 1e9:.1f} GB are free. Make "
            "room or choose another folder."
        )


def _asked_pause(error):
    """Return the seconds that a busy server asks to wait, two minutes at most."""
    text = error.headers.get("Retry-After", "")
    return min(float(text), 120.0) if text.isdigit() else 0.0


def _refusal(url, error):
    advice = {
        401: "It is not public.",
        403: "It is not public.",
        404: "There is no such file; compare the address with its source.",
        410: "It was removed.",
    }
    said = f"{url} could not be had: the server says {error.code} {error.reason}."
    return f"{said} {advice.get(error.code, '')}".rstrip()


def _digest(path, checksum):
    algorithm = checksum.partition(":")[0]
    with open(path, "rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
