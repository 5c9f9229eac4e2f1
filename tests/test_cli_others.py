"""``skaudioemb list``, ``info`` and ``demo``."""

import re
import sys
from functools import partial

import numpy as np
import pytest

import skaudioemb
from skaudioemb import Store, cli, demo, list_embedders
from skaudioemb.cli import main


class TestListAndInfo:
    def test_list(self, capsys):
        assert main(["list"]) == 0
        head, *rows = capsys.readouterr().out.splitlines()
        assert [row.split()[0] for row in rows] == list_embedders()
        assert head.split()[:3] == ["NAME", "CLASS", "CHECKPOINT"]
        assert main(["list", "crepe*"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 3

    def test_info(self, capsys, monkeypatch):
        monkeypatch.setattr(cli, "_PACKAGES", ("torch", "torchaudio", "no-such-thing"))
        assert main(["info"]) == 0
        shown = dict(
            line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()
        )
        assert shown["skaudioemb"] == skaudioemb.__version__
        assert shown["no-such-thing"] == "not installed"
        assert shown["torchaudio"].endswith("loads beside this torch")
        assert re.fullmatch(r"\d+ threads", shown["cpu"])
        assert re.match(r"\d+\.\d+", shown["libsndfile"])

    @pytest.mark.parametrize(
        ("missing", "line"), [("torchaudio", "torchaudio"), ("soundfile", "libsndfile")]
    )
    def test_info_without_a_package(self, missing, line, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, missing, None)
        assert main(["info"]) == 0
        assert re.search(rf"^{line} .*does not load: ", capsys.readouterr().out, re.M)

    def test_info_of_a_store(self, tmp_path, capsys):
        path = tmp_path / "store.sqlite"
        assert main(["info", "--memory", str(path)]) == 0
        assert f"{path}: not there yet" in capsys.readouterr().out
        assert not path.exists()
        with Store(path) as store:
            store.put({b"key": np.zeros(10)})
        assert main(["info", "--memory", str(path)]) == 0
        assert f"{path}: 1 entries of 80 bytes" in capsys.readouterr().out


def test_demo(tmp_path, capsys, monkeypatch):
    searches = []
    run_demo = partial(demo.run_demo, n_clips=48)
    monkeypatch.setattr(
        demo, "run_demo", lambda *args, **kw: searches.append(run_demo(*args, **kw))
    )
    out, store = tmp_path / "demo.png", tmp_path / "store.sqlite"
    assert main(["demo", "--out", str(out), "--memory", str(store)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    text = capsys.readouterr().out
    (search,) = searches
    results = search.cv_results_
    n_search, n_held = 36, 12
    n_run = sum(results[f"split{k}_test_run"].sum() for k in range(3))
    n_asked = sum(results[f"split{k}_test_asked"].sum() for k in range(3))
    assert n_run == 2 * n_search
    assert n_asked == 3 * n_search * sum(
        1 if "fusion__crepe" in params or "fusion__logmel" in params else 2
        for params in results["params"]
    )
    assert len(re.findall(r"± \d\.\d{3}", text)) == len(results["params"])
    assert len(re.findall(r"^\* (CREPE|LogMel)", text, re.M)) == 1
    assert f" {n_run + 2 * n_held:.0f} went through a model" in text
