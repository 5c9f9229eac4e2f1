"""Small numbered arrays in a store, and processes that use one."""

import os
import sqlite3
import subprocess
import sys
import textwrap

import numpy as np


def array_of(number):
    return np.full((2, 3), number, np.float32)


def key_of(number):
    return b"key %d" % number


def put_numbers(store, numbers):
    store.put({key_of(n): array_of(n) for n in numbers})


def numbers_in(store, stop=100):
    found = store.get([key_of(n) for n in range(stop)])
    for key, value in found.items():
        assert np.array_equal(value, array_of(int(key.split()[1])))
    return {int(key.split()[1]) for key in found}


def change(store, statement, *values):
    store.close()
    connection = sqlite3.connect(store.path)
    with connection:
        connection.execute(statement, values)
    connection.close()


def run_python(code, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        **options,
    )
