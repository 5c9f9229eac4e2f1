"""A server of files on this machine, which does wrong what it is asked to."""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest


class HangUp(NamedTuple):
    """Send so many bytes of what was promised."""

    n_bytes: int


class Server(ThreadingHTTPServer):
    """Files by path, and what to do wrong with the next requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.troubles = []
        self.ranges = True
        self.lengths = True
        self.asked = []

    def address(self, path):
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def handle_error(self, request, client_address):
        """Say nothing of readers that hang up."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        trouble = server.troubles.pop(0) if server.troubles else None
        if isinstance(trouble, int):
            self.send_error(trouble)
            return
        content = server.files.get(self.path[1:])
        if content is None:
            self.send_error(404)
            return
        start = 0
        if wanted and server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if wanted and server.ranges else 200)
        if wanted and server.ranges:
            last = f"{len(content) - 1}/{len(content)}"
            first = 0 if trouble == "wrong part" else start
            self.send_header("Content-Range", f"bytes {first}-{last}")
        if server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        n_sent = trouble.n_bytes if isinstance(trouble, HangUp) else len(content)
        self.wfile.write(content[start : start + n_sent])

    def log_message(self, *args):
        """Say nothing."""


@contextmanager
def serving():
    with Server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def publish(server, key, content):
    """Serve a file as Zenodo does, and return the address of the record."""
    server.files["files/content"] = content
    entry = {
        "key": key,
        "size": len(content),
        "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
        "links": {"self": server.address("files/content")},
    }
    server.files["record"] = json.dumps({"id": 1, "files": [entry]}).encode()
    return server.address("record")
