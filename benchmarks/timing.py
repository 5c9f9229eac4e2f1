"""Interleaved timing: all alternatives in one process, one after the other."""

import statistics
import time
from importlib.metadata import version

import torch


def compare(alternatives, repeats=5):
    """Time alternatives in turns, so that a disturbance meets them all alike.

    Parameters
    ----------
    alternatives : dict of str to callable
        Called without arguments, once before the timing starts and then in the
        dictionary's order in every round.
    repeats : int, default=5
        Number of rounds.

    Returns
    -------
    seconds : dict of str to float
        Median wall-clock seconds of one call.
    """
    for call in alternatives.values():
        call()
    seconds = {name: [] for name in alternatives}
    for _ in range(repeats):
        for name, call in alternatives.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def print_table(title, header, rows, packages=("torch",)):
    """Print a table under a title and above the versions that it holds for.

    Parameters
    ----------
    title : str
    header : sequence of str
        One name a column.
    rows : list of sequence of str
    packages : sequence of str, default=("torch",)
        Distributions whose versions are printed.
    """
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(title)
    for first, *others in lines:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True)]
        print("  ".join(cells).rstrip())
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    print(f"{versions}, {torch.get_num_threads()} CPU threads")
