"""The README's snippets, run in order as one session."""

import re
import warnings
from pathlib import Path

README = Path(__file__).parents[1] / "README.rst"


def snippets(language):
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(rf"code-block:: {language}\n\n((?:    .*\n|\n)+)", text)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in blocks]


def test_snippets_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "1 of 60 clips could not be embedded")
        for snippet in snippets("python"):
            exec(compile(snippet, str(README), "exec"), namespace)
    assert namespace["embeddings"].shape == (60, 256)
    assert namespace["scores"].mean() > 0.3
    assert namespace["search"].best_score_ > 0.3
    assert len(snippets("python")) >= 5


def test_commands_are_those_of_ci():
    ci = (README.parent / ".ci" / "run").read_text()
    commands = "".join(snippets("console"))
    tests = "python -m pip install '.[tests]' && python -m pytest"
    assert f"$ {tests}\n" in commands
    assert tests in ci
