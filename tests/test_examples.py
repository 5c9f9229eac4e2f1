"""Every example runs as a script, offline, and leaves nothing behind."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.py"))


def run(name, folder):
    """Run an example between two folders of its own; return what became of it."""
    working, temporary = folder / "working", folder / "temporary"
    working.mkdir()
    temporary.mkdir()
    environment = {
        **os.environ,
        "MPLBACKEND": "Agg",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(temporary),
        "PYTHONPATH": os.pathsep.join([str(EXAMPLES.parent), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name],
        cwd=working,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return done, [*working.iterdir(), *temporary.iterdir()]


@pytest.fixture(scope="module")
def runs(request, tmp_path_factory):
    """Return the examples' runs, as many at a time as there are processors."""
    selected = [
        item.callspec.params["name"]
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    ]
    pool = ThreadPoolExecutor(os.cpu_count())
    yield {
        name: pool.submit(run, name, tmp_path_factory.mktemp("example"))
        for name in selected
    }
    pool.shutdown(cancel_futures=True)


def test_there_are_examples():
    assert "plot_quickstart.py" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_runs(name, runs):
    done, left = runs[name].result()
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not left
