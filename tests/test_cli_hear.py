"""``skaudioemb hear``, as it is typed."""

import os
import subprocess
import sys

import pytest

from skaudioemb.cli import main
from skaudioemb.hear.registry import get_task_info, list_tasks
from tests.hear_folders import pack, write_folder
from tests.hear_server import publish, serving
from tests.test_cli import command


class TestStart:
    @pytest.mark.parametrize("arguments", [["hear", "--help"], ["hear", "tasks"]])
    def test_imports_nothing_heavy(self, arguments):
        code = (
            "import sys\nfrom skaudioemb.cli import main\n"
            f"try:\n    main({arguments})\nexcept SystemExit:\n    pass\n"
            "print({'torch', 'sklearn', 'numpy'} & set(sys.modules))"
        )
        start = command()
        start["args"] = [sys.executable, "-c", code]
        assert subprocess.run(**start, check=True).stdout.endswith("set()\n")

    @pytest.mark.parametrize("arguments", [[], ["nothing"], ["get"], ["run"]])
    def test_what_is_missing_is_said(self, arguments, capsys):
        with pytest.raises(SystemExit) as caught:
            main(["hear", *arguments])
        assert caught.value.code == 2
        assert "usage: skaudioemb hear" in capsys.readouterr().err


class TestTasks:
    def test_list(self, capsys):
        assert main(["hear", "tasks"]) == 0
        head, *rows = capsys.readouterr().out.splitlines()
        assert head.split()[:2] == ["NAME", "KIND"]
        assert [row.split()[0] for row in rows] == list_tasks()
        assert main(["hear", "tasks", "mri*"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 3

    @pytest.mark.parametrize("name", list_tasks())
    def test_list_of_one(self, name, capsys):
        assert main(["hear", "tasks", name]) == 0
        out = capsys.readouterr().out
        info = get_task_info(name)
        for text in (info.title, info.archive, info.source, ", ".join(info.splits)):
            assert text in out
        assert ("LICENSE.txt" in out) == (not info.licence)

    def test_unknown(self, capsys):
        assert main(["hear", "tasks", "esc-51"]) == 2
        assert "There is no task called 'esc-51'" in capsys.readouterr().err

    def test_list_to_a_reader_that_left(self):
        """As with ``skaudioemb hear tasks | head``: no complaint, no traceback."""
        reader, writer = os.pipe()
        os.close(reader)
        start = command("hear", "tasks") | {"stdout": writer}
        process = subprocess.run(**start)
        os.close(writer)
        assert (process.returncode, process.stderr) == (0, "")


class TestGet:
    @pytest.fixture
    def record(self, tmp_path):
        """Serve one task as the public archive does, and return its address."""
        info = get_task_info("beijing_opera")
        path = write_folder(tmp_path / "made", info.folder, n_folds=3)
        content = pack(path, tmp_path / "made.tar.gz").read_bytes()
        with serving() as server:
            yield publish(server, info.archive, content)

    def test_patterns(self, record, tmp_path, capsys):
        line = ["hear", "get", "beijing*", "--out", str(tmp_path / "tasks")]
        assert main([*line, "--base-url", record, "--quiet"]) == 0
        assert len(list((tmp_path / "tasks").rglob("task_metadata.json"))) == 1

    def test_get(self, record, tmp_path, capsys):
        out = tmp_path / "tasks"
        line = ["hear", "get", "beijing_opera", "--out", str(out), "--quiet"]
        assert main([*line, "--base-url", record]) == 0
        assert capsys.readouterr().out == ""
        assert len(list(out.rglob("task_metadata.json"))) == 1
        assert main(line[:-1]) == 0
        assert "beijing_opera-v1.0-hear2021-full: 24 clips" in capsys.readouterr().out

    def test_one_of_two(self, record, tmp_path, capsys):
        names = ["esc50", "beijing_opera"]
        line = ["hear", "get", *names, "--out", str(tmp_path / "tasks")]
        assert main([*line, "--base-url", record]) == 1
        said = capsys.readouterr()
        assert "hear get: The archive" in said.err
        assert "has no hear2021-esc50" in said.err
        assert "beijing_opera" in said.out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["esc-51"], "no task called 'esc-51'"),
            (["nsynth_pitch"], "several folders"),
            (["nothing*"], "no task called 'nothing*'"),
            (["nsynth*", "--checksum", "0" * 32], "goes with one TASK"),
            (["esc50", "--checksum", "md5:1"], "is not a checksum"),
            (["esc50", "fsd50k", "--checksum", "0" * 32], "goes with one TASK"),
        ],
    )
    def test_refusals(self, arguments, message, tmp_path, capsys):
        out = tmp_path / "tasks"
        assert main(["hear", "get", *arguments, "--out", str(out)]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()


class TestRun:
    @pytest.fixture
    def line(self, tmp_path):
        write_folder(tmp_path / "tasks", "tones-v1-small", n_folds=3)
        return [
            *("hear", "run", "--tasks", str(tmp_path / "tasks"), "--model", "logmel"),
            *("--set", "n_mels=8", "--out", str(tmp_path / "out")),
            *("--protocol-set", "n_points=1", "--protocol-set", "grid=faster"),
        ]

    def test_run_report_and_compare(self, line, tmp_path, capsys):
        out = tmp_path / "out"
        assert main([*line, "--model", "crepe_tiny", "--set", "device=cpu"]) == 2
        assert "n_mels" in capsys.readouterr().err
        line = [part for part in line if part not in ("--set", "n_mels=8")]
        assert main([*line, "--model", "crepe_tiny"]) == 0
        said = capsys.readouterr().out.splitlines()
        assert [row.split()[:2] for row in said[1:3]] == [
            ["logmel", "tones-v1-small"],
            ["crepe_tiny", "tones-v1-small"],
        ]
        assert "neither embedding nor fitting" in said[-1]
        page = tmp_path / "report.html"
        assert main(["hear", "report", str(out), "--out", str(page)]) == 0
        assert "tones-v1-small" in page.read_text(encoding="utf-8")
        capsys.readouterr()
        assert main(["hear", "compare", "logmel", "crepe_tiny", str(out)]) == 0
        assert "tones-v1-small" in capsys.readouterr().out
        assert main(["hear", "compare", "logmel", "crepe", str(out)]) == 1
        assert "crepe" in capsys.readouterr().err

    def test_again(self, line, tmp_path, capsys, counted):
        assert main([*line, "--quiet"]) == 0
        assert capsys.readouterr().out == ""
        counted()
        assert main(line) == 0
        assert counted().asked == 0
        assert main([*line, "--set", "pooling=max"]) == 2
        assert "pooling = 'mean-std' (now 'max')" in capsys.readouterr().err
        assert main([*line, "--set", "pooling=max", "--overwrite"]) == 0

    def test_a_bad_clip(self, line, tmp_path, capsys):
        bad = next((tmp_path / "tasks").rglob("fold010.wav"))
        good = bad.read_bytes()
        bad.write_bytes(b"no audio")
        assert main(line) == 1
        said = capsys.readouterr().err
        assert "hear run: logmel on tones-v1-small" in said
        assert "fold010.wav" in said
        assert "1 failed, see error.json" in said
        bad.write_bytes(good)
        assert main(line) == 0

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"--model": "hubbert"}, "no model called 'hubbert'"),
            ({"--tasks": "nowhere"}, "There is no file or folder nowhere"),
            ({"--protocol-set": "n_dots=1"}, "no setting 'n_dots'. It has n_points"),
            ({"--protocol-set": "n_points=0"}, "n_points=0 must be a whole number"),
            ({"--set": "n_bels=1"}, "n_bels"),
        ],
    )
    def test_refusals(self, change, message, line, tmp_path, capsys):
        for option, value in change.items():
            line[line.index(option) + 1] = value
        assert main(line) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments", [["report", "nowhere", "--out", "a.html"], ["compare", "a", "b", "no"]]
)
def test_results_that_are_not_there(arguments, capsys):
    assert main(["hear", *arguments]) == 2
    assert "There is no folder no" in capsys.readouterr().err
