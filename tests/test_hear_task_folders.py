"""Archives of tasks: extracted once, whole, and never outside their folder."""

import errno
import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from skaudioemb.hear import task_folders
from skaudioemb.hear.task import TaskError, find_tasks, load_task
from tests.task_trees import FOLDS, SCENES, make_task


def make_archive(path, *tasks, members=()):
    """Pack folders as HEAR does, below hear-2021.0.6/tasks, and more members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix != ".tar" else "w") as archive:
        for task in tasks:
            archive.add(task, f"hear-2021.0.6/tasks/{task.name}")
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


@pytest.fixture
def task_folder(tmp_path):
    return make_task(tmp_path / "source", **SCENES)


@pytest.mark.parametrize("name", ["toy.tar.gz", "hear-2021.0.6-toy-1.0.tgz", "toy.tar"])
def test_archive(tmp_path, task_folder, name):
    archive = make_archive(tmp_path / "down" / name, task_folder)
    task = load_task(archive, 48000)
    assert task.files == load_task(task_folder).files
    stem = name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    expected = tmp_path / "down" / stem / "hear-2021.0.6" / "tasks" / task_folder.name
    assert task.path == expected
    assert sorted(os.listdir(tmp_path / "down")) == sorted([name, stem])


def test_extracted_once(tmp_path, task_folder):
    archive = make_archive(tmp_path / "toy.tar.gz", task_folder)
    first = load_task(archive, extract_to=tmp_path / "there")
    assert first.path.is_relative_to(tmp_path / "there" / "toy")
    assert not (tmp_path / "toy").exists()
    archive.write_bytes(b"nothing that could be opened")
    assert load_task(archive, extract_to=tmp_path / "there").path == first.path


def test_find_tasks_extracts_archives_of_tasks_only(tmp_path, task_folder):
    second = make_task(tmp_path / "source", name="second", **FOLDS)
    packed = tmp_path / "packed"
    make_archive(packed / "a.tar.gz", task_folder)
    make_archive(packed / "below" / "b.tar", second)
    make_archive(packed / "photos.tar.gz", members=[tarfile.TarInfo("cat.jpg")])
    assert find_tasks(packed) == []
    assert [task.name for task in find_tasks(packed, extract=True)] == [
        "second",
        "toy-1.0-full",
    ]
    assert not (packed / "photos").exists()
    assert len(find_tasks(packed)) == 2


def linked(name, target, kind):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def device(name):
    member = tarfile.TarInfo(name)
    member.type = tarfile.CHRTYPE
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../evil.txt"),
        tarfile.TarInfo("tasks/../../evil.txt"),
        linked("link", "/etc", tarfile.SYMTYPE),
        linked("link", "../..", tarfile.SYMTYPE),
        linked("link", "../../evil.txt", tarfile.LNKTYPE),
        device("null"),
    ],
    ids=["parent", "deep parent", "absolute", "upwards", "hard", "device"],
)
def test_members_that_lead_elsewhere_are_refused(tmp_path, task_folder, member):
    archive = tmp_path / "down" / "toy.tar.gz"
    make_archive(archive, task_folder, members=[member])
    with pytest.raises(TaskError, match=r"toy\.tar\.gz is refused.*that you trust"):
        load_task(archive)
    assert os.listdir(tmp_path / "down") == ["toy.tar.gz"]
    assert not (tmp_path / "evil.txt").exists()


def test_absolute_names_stay_within(tmp_path, task_folder):
    outside = tmp_path / "outside.txt"
    archive = make_archive(
        tmp_path / "toy.tar.gz", task_folder, members=[tarfile.TarInfo(str(outside))]
    )
    load_task(archive)
    assert not outside.exists()


def test_damaged_archives(tmp_path, task_folder):
    archive = make_archive(tmp_path / "down" / "toy.tar.gz", task_folder)
    content = archive.read_bytes()
    n = len(content)
    damaged = {
        "cut": content[: n // 2],
        "cut at the end": content[:-4],
        "text": b"404 not found",
        "packed text": gzip.compress(b"404 not found" * 100),
    }
    for i in range(n // 8, n - 8, n // 8):
        damaged[f"byte {i}"] = (
            content[:i] + bytes([content[i] ^ 255]) + content[i + 1 :]
        )
    for name, data in damaged.items():
        archive.write_bytes(data)
        with pytest.raises(TaskError, match=r"toy\.tar\.gz is damaged or no archive"):
            load_task(archive)
        assert os.listdir(tmp_path / "down") == ["toy.tar.gz"], name


def test_archives_without_a_task_and_other_files(tmp_path):
    archive = make_archive(tmp_path / "a.tar", members=[tarfile.TarInfo("cat.jpg")])
    with pytest.raises(TaskError, match=r"task_metadata\.json; found none"):
        load_task(archive)
    text = tmp_path / "toy.zip"
    text.touch()
    with pytest.raises(TaskError, match=r"toy\.zip is neither a folder nor an archive"):
        load_task(text)


def test_interrupted_extraction_leaves_nothing(tmp_path, task_folder, monkeypatch):
    archive = make_archive(tmp_path / "down" / "toy.tar.gz", task_folder)

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load_task(archive)
    assert os.listdir(tmp_path / "down") == ["toy.tar.gz"]
    assert load_task(archive).name == task_folder.name


def test_folders_that_cannot_be_written(tmp_path, task_folder, monkeypatch):
    archive = make_archive(tmp_path / "toy.tar.gz", task_folder)

    def refuse(path, *args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(TaskError, match=r"Read-only file system\. Name another folder"):
        load_task(archive)


def test_whole_folder(tmp_path):
    folder = tmp_path / "a" / "b"
    with task_folders.whole_folder(folder) as partial:
        (partial / "new").touch()
        assert not folder.exists()
    assert os.listdir(folder) == ["new"]
    with (
        pytest.raises(FileExistsError, match="There is a folder"),
        task_folders.whole_folder(folder),
    ):
        pass
    with task_folders.whole_folder(folder, overwrite=True) as partial:
        (partial / "newer").touch()
    assert os.listdir(folder) == ["newer"]
    assert os.listdir(tmp_path / "a") == ["b"]
