"""The command line, as it is typed: in this process, and in others to be killed."""

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import skaudioemb
from skaudioemb import CREPE, HuBERT, LogMel, Store
from skaudioemb.cli import main
from skaudioemb.datasets import make_notes
from tests.models import CHECKPOINTS

TINY = ["--model", "crepe_tiny", "--set", "hop=0.1"]


def command(*arguments):
    """Return what starts the command in a process of its own."""
    path = os.pathsep.join([str(Path(skaudioemb.__file__).parents[1]), *sys.path])
    return {
        "args": [sys.executable, "-m", "skaudioemb", *map(str, arguments)],
        # One thread, so that a busy machine does not make the threads wait in turn.
        "env": {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }


def counts(text):
    """Return clips, run and stored of the closing line."""
    found = re.search(r"(\d+) clips: (\d+) run, (\d+) from the store", text)
    return tuple(map(int, found.groups()))


@pytest.fixture
def recordings(tmp_path):
    """A folder of six notes in two formats and a subfolder, and what is no audio."""
    folder = tmp_path / "recordings"
    (folder / "more").mkdir(parents=True)
    names = ["b.wav", "a.flac", "more/d.WAV", "more/c.wav", "e.wav", "f.wav"]
    notes = make_notes(n_clips=6, random_state=0)
    for name, clip in zip(names, notes.data, strict=True):
        soundfile.write(folder / name, clip, 16000, subtype="PCM_16")
    (folder / "notes.txt").write_text("no audio")
    (folder / "._b.wav").write_text("what some systems leave behind")
    return folder


@pytest.fixture
def in_order(recordings):
    names = ["a.flac", "b.wav", "e.wav", "f.wav", "more/c.wav", "more/d.WAV"]
    return [str(recordings / name) for name in names]


class TestStart:
    @pytest.mark.parametrize("arguments", [["--help"], ["list"], ["embed", "--help"]])
    def test_imports_nothing_heavy(self, arguments):
        code = (
            "import sys\nfrom skaudioemb.cli import main\n"
            f"try:\n    main({arguments})\nexcept SystemExit:\n    pass\n"
            "print({'torch', 'sklearn', 'numpy'} & set(sys.modules))"
        )
        start = command()
        start["args"] = [sys.executable, "-c", code]
        assert subprocess.run(**start, check=True).stdout.endswith("set()\n")

    def test_help_comes_at_once(self):
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            done = subprocess.run(**command("--help"), check=True)
            seconds.append(time.perf_counter() - began)
        assert min(seconds) < 0.5
        assert all(name in done.stdout for name in ("demo", "embed", "list", "info"))

    def test_version(self, capsys):
        with pytest.raises(SystemExit, match="0"):
            main(["--version"])
        assert capsys.readouterr().out == f"{skaudioemb.__version__}\n"

    def test_no_command(self, capsys):
        with pytest.raises(SystemExit, match="2"):
            main([])
        assert "COMMAND" in capsys.readouterr().err


class TestEmbed:
    def test_npz(self, recordings, in_order, tmp_path, capsys):
        out = tmp_path / "out.npz"
        assert main(["embed", str(recordings), *TINY, "--out", str(out)]) == 0
        with np.load(out, allow_pickle=False) as arrays:
            assert list(arrays["paths"]) == in_order
            expected = CREPE("tiny", hop=0.1).fit_transform(in_order)
            np.testing.assert_allclose(arrays["embeddings"], expected, atol=1e-4)
            assert arrays["feature_names"][1] == "crepe1"
        captured = capsys.readouterr()
        assert counts(captured.out) == (6, 6, 0)
        assert str(tmp_path / "out.sqlite") in captured.out
        assert "6/6" in captured.err
        assert sorted(p.name for p in tmp_path.glob("out*")) == [
            "out.npz",
            "out.sqlite",
        ]

    def test_parquet(self, recordings, in_order, tmp_path):
        out = tmp_path / "out.parquet"
        arguments = ["embed", str(recordings), "--model", "logmel", "--out", str(out)]
        assert main(arguments) == 0
        table = pd.read_parquet(out)
        assert list(table["path"]) == in_order
        assert list(table.columns[1:3]) == ["logmel0", "logmel1"]
        expected = LogMel().fit_transform(in_order)
        np.testing.assert_allclose(table.iloc[:, 1:].to_numpy(), expected, rtol=1e-4)

    @pytest.mark.parametrize("suffix", ["npz", "parquet"])
    def test_frames(self, suffix, recordings, in_order, tmp_path):
        out = tmp_path / f"out.{suffix}"
        arguments = ["embed", str(recordings), *TINY, "--frames", "--out", str(out)]
        assert main(arguments) == 0
        expected = CREPE("tiny", hop=0.1).frames(in_order)
        if suffix == "npz":
            with np.load(out, allow_pickle=False) as arrays:
                bounds = arrays["offsets"][1:-1]
                values = np.split(arrays["values"], bounds)
                times = np.split(arrays["times"], bounds)
                paths = list(arrays["paths"])
        else:
            groups = list(pd.read_parquet(out).groupby("path", sort=False))
            paths = [path for path, _ in groups]
            values = [group.iloc[:, 2:].to_numpy() for _, group in groups]
            times = [group["time"] for _, group in groups]
        assert paths == in_order
        for frames, value, time_ in zip(expected, values, times, strict=True):
            np.testing.assert_allclose(value, frames.values, atol=1e-4)
            np.testing.assert_array_equal(time_, frames.times)

    def test_parameters_of_the_model(self, recordings, in_order, tmp_path):
        out, checkpoint = tmp_path / "out.npz", CHECKPOINTS / "hubert-large-like"
        model = ["--model", "hubert", "--set", f"checkpoint={checkpoint}"]
        layers = ["--set", "layers=[0, 1]"]
        arguments = ["embed", str(recordings), *model, *layers, "--out", str(out)]
        assert main(arguments) == 0
        hubert = HuBERT(checkpoint, layers=[0, 1], normalize="none")
        expected = hubert.fit_transform(in_order)
        with np.load(out) as arrays:
            np.testing.assert_allclose(arrays["embeddings"], expected, atol=1e-4)

    def test_files_and_patterns(self, recordings, in_order, tmp_path, capsys):
        out = tmp_path / "out.npz"
        inputs = [in_order[0], str(recordings)]
        arguments = ["embed", *inputs, *TINY, "--out", str(out)]
        assert main([*arguments, "--pattern", "[ac].*", "--pattern", "f.wav"]) == 0
        with np.load(out) as arrays:
            assert list(arrays["paths"]) == [in_order[i] for i in (0, 3, 4)]

    def test_second_run_reads_the_store(self, recordings, tmp_path, capsys):
        store = ["--memory", str(tmp_path / "store")]
        for suffix, run in (("npz", 6), ("parquet", 0)):
            out = str(tmp_path / f"out.{suffix}")
            assert main(["embed", str(recordings), *TINY, *store, "--out", out]) == 0
            assert counts(capsys.readouterr().out) == (6, run, 6 - run)
        assert Store(tmp_path / "store").info().entries > 0

    def test_quiet(self, recordings, tmp_path, capsys):
        out = str(tmp_path / "out.npz")
        assert main(["embed", str(recordings), *TINY, "--quiet", "--out", out]) == 0
        assert capsys.readouterr() == ("", "")


class TestBadFiles:
    @pytest.fixture
    def broken(self, recordings):
        (recordings / "more" / "a0.wav").write_text("this is no recording")
        (recordings / "z.wav").touch()
        return [str(recordings / "more" / "a0.wav"), str(recordings / "z.wav")]

    def test_become_nan_and_are_listed(self, recordings, broken, tmp_path, capsys):
        out = tmp_path / "out.npz"
        arguments = ["embed", str(recordings), *TINY, "--out", str(out)]
        assert main([*arguments, "--on-error", "nan"]) == 0
        captured = capsys.readouterr()
        assert counts(captured.out) == (8, 6, 0)
        *_, head, first, second = captured.err.splitlines()
        assert head.startswith("2 bad files are NaN")
        assert first.startswith(f"{broken[0]}: libsndfile cannot decode it")
        assert second.startswith(f"{broken[1]}: the file holds 0 bytes")
        with np.load(out) as arrays:
            is_nan = np.isnan(arrays["embeddings"]).all(axis=1)
            assert list(arrays["paths"][is_nan]) == broken
            assert np.isfinite(arrays["embeddings"][~is_nan]).all()

    def test_become_one_frame_of_nan(self, recordings, broken, tmp_path):
        out = tmp_path / "out.parquet"
        arguments = ["embed", str(recordings), *TINY, "--frames", "--out", str(out)]
        assert main([*arguments, "--on-error", "nan"]) == 0
        table = pd.read_parquet(out)
        bad = table[table["path"].isin(broken)]
        assert len(bad) == 2
        assert bad.drop(columns="path").isna().all(axis=None)

    def test_end_the_command_otherwise(self, recordings, broken, tmp_path, capsys):
        out = tmp_path / "out.npz"
        arguments = ["embed", str(recordings), *TINY, "--quiet", "--out", str(out)]
        assert main(arguments) == 1
        captured = capsys.readouterr()
        sentence = f"skaudioemb embed: ({'|'.join(map(re.escape, broken))}): .*\n"
        assert re.fullmatch(sentence, captured.err)
        assert not out.exists()


class TestRefusals:
    def refused(self, capsys, *arguments):
        """Run, check that it was refused before any work, return the sentence."""
        assert main(list(map(str, arguments))) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert re.fullmatch(r"skaudioemb \w+: .*\.\n", captured.err)
        return captured.err

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"--out": "out.csv"}, "does not end in .parquet or .npz"),
            ({"--out": "no/such/out.npz"}, "There is no folder"),
            ({"--out": "recordings/b.wav/out.npz"}, "There is no folder"),
            ({"--model": "no-such-model"}, "There is no model called 'no-such-model'"),
            ({"--set": "hops=1"}, "Invalid parameter 'hops'"),
            ({"--set": "hop=far"}, "The 'hop' parameter"),
            ({"--set": "model=huge"}, "The 'model' parameter"),
            ({"--batch-seconds": "-1"}, "The 'batch_seconds' parameter"),
            ({"--device": "abacus"}, "device='abacus'"),
            ({"--memory": "recordings/b.wav"}, "b.wav"),
            ({"--pattern": "*.mid"}, "No recordings found in"),
        ],
    )
    def test_embed(self, changes, sentence, recordings, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        options = {"--model": "crepe_tiny", "--out": "out.npz", **changes}
        flat = [part for option in options.items() for part in option]
        assert sentence in self.refused(capsys, "embed", "recordings", *flat)
        assert [path.name for path in tmp_path.iterdir()] == ["recordings"]

    def test_missing_input(self, tmp_path, capsys):
        arguments = ["embed", tmp_path / "no.wav", *TINY, "--out", tmp_path / "o.npz"]
        assert "There is no file or folder" in self.refused(capsys, *arguments)

    def test_name_that_is_no_text(self, tmp_path, capsys):
        arguments = ["embed", "g\udcff.wav", *TINY, "--out", tmp_path / "o.npz"]
        assert "file or folder g\\xff.wav." in self.refused(capsys, *arguments)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
    def test_device_that_is_not_there(self, recordings, tmp_path, capsys):
        arguments = ["embed", recordings, *TINY, "--out", tmp_path / "o.npz"]
        sentence = self.refused(capsys, *arguments, "--device", "cuda")
        assert "device='cuda' cannot be used" in sentence

    def test_checkpoint_that_is_not_there(self, recordings, tmp_path, capsys):
        model = ["--model", "hubert", "--set", f"checkpoint={tmp_path}"]
        arguments = ["embed", recordings, *model, "--out", tmp_path / "out.npz"]
        assert str(tmp_path) in self.refused(capsys, *arguments)

    def test_folder_that_cannot_be_written_to(self, recordings, tmp_path, capsys):
        folder = tmp_path / "sealed"
        folder.mkdir()
        folder.chmod(0o500)
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write anywhere")
        arguments = ["embed", recordings, *TINY, "--out", folder / "out.npz"]
        assert "cannot be written to" in self.refused(capsys, *arguments)

    @pytest.mark.parametrize("missing", ["pandas", "pyarrow"])
    def test_parquet_without_its_extra(
        self, missing, recordings, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setitem(sys.modules, missing, None)
        arguments = ["embed", recordings, *TINY, "--out", tmp_path / "out.parquet"]
        sentence = self.refused(capsys, *arguments)
        assert "python -m pip install 'skaudioemb[parquet]'" in sentence
        assert not (tmp_path / "out.sqlite").exists()

    def test_assignment(self, capsys):
        with pytest.raises(SystemExit, match="2"):
            main(["embed", "x.wav", "--model", "crepe", "--out", "o.npz", "--set", "3"])
        assert "'3' is not of the form PARAM=VALUE" in capsys.readouterr().err

    def test_list(self, capsys):
        assert "No name matches 'bird*'" in self.refused(capsys, "list", "bird*")

    def test_demo(self, tmp_path, capsys):
        out = tmp_path / "demo.gif"
        assert "does not end in .png" in self.refused(capsys, "demo", "--out", out)


class TestInterruption:
    @pytest.fixture
    def many(self, tmp_path):
        folder = tmp_path / "many"
        folder.mkdir()
        notes = make_notes(n_clips=60, duration=0.4, random_state=0)
        for i, clip in enumerate(notes.data):
            soundfile.write(folder / f"{i:02d}.wav", clip, 16000)
        return folder

    def stop_in_the_middle(self, with_signal, folder, out):
        """Start the command, stop it once something is stored; return its end."""
        store = Store(out.with_suffix(".sqlite"))
        # Small batches of many frames, so that there is a middle to meet.
        slow = ["--model", "crepe_tiny", "--set", "hop=0.02", "--batch-seconds", "1"]
        self.again = command("embed", folder, *slow, "--out", out)
        # Where the tests run in the background, signals may be ignored from the start.
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        with subprocess.Popen(**self.again, preexec_fn=heed) as process:
            while process.poll() is None and store.info().entries == 0:
                time.sleep(0.005)
            process.send_signal(with_signal)
            errors = process.communicate()[1]
        assert not out.exists()
        return process.returncode, errors

    def test_killed(self, many, tmp_path):
        out = tmp_path / "out.npz"
        code, _ = self.stop_in_the_middle(signal.SIGKILL, many, out)
        assert code == -signal.SIGKILL
        entries = Store(out.with_suffix(".sqlite")).info().entries
        n_clips, n_run, n_stored = counts(subprocess.run(**self.again).stdout)
        per_clip = Store(out.with_suffix(".sqlite")).info().entries / 60
        assert n_clips == n_run + n_stored == 60
        assert 0 < n_stored < 60
        # Whatever had been written was neither lost nor run again.
        assert n_stored == entries / per_clip
        with np.load(out) as arrays:
            embeddings, paths = arrays["embeddings"], list(arrays["paths"])
        assert paths == sorted(map(str, many.iterdir()))
        expected = CREPE("tiny", hop=0.02).fit_transform(paths)
        np.testing.assert_allclose(embeddings, expected, atol=1e-4)

    def test_interrupted(self, many, tmp_path):
        out = tmp_path / "out.npz"
        code, errors = self.stop_in_the_middle(signal.SIGINT, many, out)
        assert code == 130
        assert "Traceback" not in errors
        assert "the same command goes on from it" in errors.splitlines()[-1]
        n_clips, n_run, n_stored = counts(subprocess.run(**self.again).stdout)
        assert n_clips == n_run + n_stored == 60
        assert n_stored > 0
