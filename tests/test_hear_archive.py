"""HEAR's archive, served by this machine, with all that goes wrong on the way."""

import hashlib
import io
import tarfile

import pytest

from skaudioemb.hear import download
from skaudioemb.hear.archive import get_task
from skaudioemb.hear.download import DownloadError, parse_checksum
from skaudioemb.hear.download import download as fetch
from skaudioemb.hear.registry import get_task_info
from tests.hear_folders import pack, write_folder
from tests.hear_server import HangUp, publish, serving

CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "_PAUSE", 0.001)
    with serving() as server:
        server.files["file"] = CONTENT
        yield server


@pytest.fixture
def get(server, tmp_path):
    """Return a function that downloads the file and gives its bytes."""

    def get(path="file", **options):
        options = {"progress": False, **options}
        return fetch(server.address(path), tmp_path / "file.bin", **options)

    return get


def md5(content):
    return f"md5:{hashlib.md5(content).hexdigest()}"


class TestDownload:
    def test_whole(self, get, tmp_path):
        path = get(checksum=md5(CONTENT), size=len(CONTENT))
        assert path == tmp_path / "file.bin"
        assert path.read_bytes() == CONTENT
        assert list(tmp_path.iterdir()) == [path]

    def test_an_existing_file_is_kept_if_it_is_right(self, get, server, tmp_path):
        (tmp_path / "file.bin").write_bytes(CONTENT)
        get(checksum=hashlib.sha256(CONTENT).hexdigest())
        assert not server.asked
        (tmp_path / "file.bin").write_bytes(b"old")
        assert get(checksum=md5(CONTENT)).read_bytes() == CONTENT

    def test_goes_on_after_hang_ups(self, get, server):
        server.troubles = [HangUp(1000), HangUp(70_000), HangUp(50)]
        assert get(checksum=md5(CONTENT)).read_bytes() == CONTENT
        begun = [wanted for _, wanted in server.asked]
        assert begun == [None, "bytes=1000-", "bytes=71000-", "bytes=71050-"]

    def test_goes_on_in_the_next_call(self, get, server, tmp_path):
        server.troubles = [HangUp(3000), HangUp(0), HangUp(0)]
        with pytest.raises(DownloadError, match=r"ended after 3000 of 1024000 bytes"):
            get(retries=1)
        assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:3000]
        assert not (tmp_path / "file.bin").exists()
        server.asked.clear()
        assert get().read_bytes() == CONTENT
        assert server.asked == [("/file", "bytes=3000-")]

    def test_goes_on_after_an_interrupt(self, get, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(download, "_CHUNK", 5000)
            patch.setattr(download, "tqdm", Interrupting)
            with pytest.raises(KeyboardInterrupt):
                get()
        part = tmp_path / "file.bin.part"
        assert part.read_bytes() == CONTENT[:5000]
        assert get(checksum=md5(CONTENT)).read_bytes() == CONTENT
        assert not part.exists()

    def test_without_ranges_it_begins_again(self, get, server, tmp_path):
        server.ranges = False
        (tmp_path / "file.bin.part").write_bytes(b"x" * 100)
        assert get().read_bytes() == CONTENT

    def test_without_a_length_the_end_is_the_end(self, get, server):
        server.lengths = False
        assert get().read_bytes() == CONTENT

    def test_a_whole_part_is_finished(self, get, server, tmp_path):
        (tmp_path / "file.bin.part").write_bytes(CONTENT)
        assert get().read_bytes() == CONTENT
        assert [wanted for _, wanted in server.asked] == [f"bytes={len(CONTENT)}-"]

    @pytest.mark.parametrize("length", [len(CONTENT) + 1, len(CONTENT), 500])
    @pytest.mark.parametrize("size", [len(CONTENT), None])
    def test_a_part_of_another_file(self, get, tmp_path, length, size):
        (tmp_path / "file.bin.part").write_bytes(b"x" * length)
        path = get(checksum=md5(CONTENT), size=size)
        assert path.read_bytes() == CONTENT

    def test_a_server_that_sends_another_part(self, get, server, tmp_path):
        (tmp_path / "file.bin.part").write_bytes(CONTENT[:500])
        server.troubles = ["wrong part"]
        assert get().read_bytes() == CONTENT

    def test_a_busy_server_is_asked_again(self, get, server):
        server.troubles = [503, 429]
        assert get().read_bytes() == CONTENT
        assert len(server.asked) == 3

    def test_a_server_that_stays_busy(self, get, server):
        server.troubles = [503] * 9
        with pytest.raises(DownloadError, match="the server says 503"):
            get(retries=2)
        assert len(server.asked) == 3

    def test_a_wrong_checksum(self, get, tmp_path):
        with pytest.raises(DownloadError, match=f"{md5(CONTENT)}, expected was md5:0"):
            get(checksum="md5:" + "0" * 32)
        assert not list(tmp_path.iterdir())

    def test_a_wrong_size(self, get, tmp_path):
        with pytest.raises(DownloadError, match="has 1024000 bytes, expected were 7"):
            get(size=7)
        assert not list(tmp_path.iterdir())

    def test_no_such_file(self, get, server):
        with pytest.raises(DownloadError, match=r"404 Not Found\. There is no such"):
            get("other")
        assert len(server.asked) == 1

    def test_no_server(self, tmp_path, server):
        server.server_close()
        with pytest.raises(DownloadError, match="could not be had"):
            fetch(server.address("file"), tmp_path / "a", retries=1, progress=False)

    def test_no_room(self, get, monkeypatch):
        usage = type("Usage", (), {"free": 1000})
        monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(
            DownloadError, match=r"needs 0\.0 GB .* are free\. Make room"
        ):
            get()

    def test_progress(self, get, server, capsys):
        server.troubles = [HangUp(512_000)]
        get(progress=True)
        assert "file.bin: 100%" in capsys.readouterr().err

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a", "a.tar.gz"])
    def test_other_addresses_are_refused(self, url, tmp_path):
        with pytest.raises(ValueError, match="does not begin with http"):
            fetch(url, tmp_path / "a")


class Interrupting:
    """A progress bar at which somebody presses Ctrl-C."""

    def __init__(self, **options):
        self.options = options

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def update(self, n_bytes):
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["md5", "sha1", "sha256", "sha512"])
def test_checksums_by_length(name):
    digits = hashlib.new(name, b"a").hexdigest()
    assert parse_checksum(digits.upper()) == parse_checksum(f"{name}:{digits}")
    assert parse_checksum(digits) == f"{name}:{digits}"


@pytest.mark.parametrize("text", ["", "md5", "md5:12", "crc32:00000000", "g" * 32])
def test_other_checksums_are_refused(text):
    with pytest.raises(ValueError, match="is not a checksum"):
        parse_checksum(text)


@pytest.fixture
def tarball(tmp_path):
    """Return the archive of a task with the name of one of HEAR's, as bytes."""
    name = get_task_info("beijing_opera").folder
    path = write_folder(tmp_path / "made", name, n_folds=3)
    return pack(path, tmp_path / "archive.tar.gz").read_bytes()


@pytest.fixture
def record(server, tarball):
    return publish(server, get_task_info("beijing_opera").archive, tarball)


class TestGetTask:
    def test_by_name(self, record, server, tmp_path):
        folder = tmp_path / "new" / "tasks"
        options = {"base_url": record, "progress": False}
        task = get_task("beijing_opera", folder, **options)
        assert task.name == "beijing_opera-v1.0-hear2021-full"
        assert len(task.X) == 24
        assert folder in task.path.parents
        assert not list(folder.glob("*.tar.gz*"))
        n_asked = len(server.asked)
        again = get_task("beijing_opera", folder, **options)
        assert again.path == task.path
        assert len(server.asked) == n_asked

    def test_a_task_that_lies_elsewhere_in_the_folder(self, server, tmp_path):
        name = get_task_info("gunshot_triangulation").folder
        path = write_folder(tmp_path / "a" / "b", name, n_folds=3)
        task = get_task("gunshot_triangulation", tmp_path, base_url="http://unused")
        assert task.path == path
        assert not server.asked

    def test_by_the_name_of_the_archive(self, record, tmp_path):
        name = get_task_info("beijing_opera").archive
        folder = tmp_path / "out"
        task = get_task(
            name, folder, base_url=record, keep_archive=True, progress=False
        )
        assert (folder / name).exists()
        assert task.is_kfold

    def test_by_address(self, server, tarball, tmp_path):
        server.files["x/my%20task.tgz/content?download=1"] = tarball
        url = server.address("x/my%20task.tgz/content?download=1")
        checksum = hashlib.sha256(tarball).hexdigest()
        task = get_task(url, tmp_path / "out", checksum=checksum, progress=False)
        assert "my task" in str(task.path)

    def test_interrupted_and_resumed(self, record, server, tarball, tmp_path):
        server.troubles = [None, HangUp(100), HangUp(0), HangUp(0)]
        options = {"base_url": record, "progress": False, "retries": 1}
        with pytest.raises(DownloadError, match=r"is kept in .*\.part"):
            get_task("beijing_opera", tmp_path / "out", **options)
        server.asked.clear()
        get_task("beijing_opera", tmp_path / "out", **options)
        assert server.asked == [("/record", None), ("/files/content", "bytes=100-")]

    def test_another_content_than_the_record_says(self, record, server, tmp_path):
        content = server.files["files/content"]
        server.files["files/content"] = content[:-1] + b"?"
        with pytest.raises(DownloadError, match="has the checksum"):
            get_task("beijing_opera", tmp_path / "o", base_url=record, progress=False)
        assert not list((tmp_path / "o").iterdir())

    def test_a_task_that_the_archive_does_not_have(self, record, tmp_path):
        with pytest.raises(DownloadError, match=r"has no hear2021-esc50.*It has hear"):
            get_task("esc50", tmp_path, base_url=record)

    @pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"files": [{"key": 1}]}'])
    def test_no_record(self, server, content, tmp_path):
        server.files["record"] = content
        with pytest.raises(DownloadError, match="is no record"):
            get_task("esc50", tmp_path, base_url=server.address("record"))

    def test_an_unknown_name(self, tmp_path):
        with pytest.raises(ValueError, match="no task called 'esc'"):
            get_task("esc", tmp_path)

    @pytest.mark.parametrize("path", ["", "a/", "a/..%2f..%2fb.tar.gz", "a.zip"])
    def test_an_address_of_no_archive(self, path, tmp_path):
        with pytest.raises(ValueError, match="does not end in the name"):
            get_task(f"http://host/{path}", tmp_path)

    def test_a_damaged_archive_does_not_stay(self, server, tarball, tmp_path):
        server.files["task.tar.gz"] = tarball[: len(tarball) // 2]
        url = server.address("task.tar.gz")
        with pytest.raises(ValueError, match="damaged"):
            get_task(url, tmp_path / "out", progress=False)
        assert not list((tmp_path / "out").iterdir())
        server.files["task.tar.gz"] = tarball
        get_task(url, tmp_path / "out", progress=False)


def hostile(kind, outside):
    """Return a tarball that writes or reads outside its folder."""
    member = tarfile.TarInfo("tasks/x/task_metadata.json")
    data = b"{}"
    if kind == "above":
        member.name = "../../escaped"
    elif kind == "absolute":
        member.name = f"{outside}/escaped"
    elif kind in ("symlink", "hardlink"):
        data = b""
        member.type = tarfile.SYMTYPE if kind == "symlink" else tarfile.LNKTYPE
        member.linkname = "../../../escaped"
    elif kind == "device":
        data = b""
        member.type = tarfile.CHRTYPE
    member.size = len(data)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("above", "is refused"),
        ("symlink", "is refused"),
        ("hardlink", "is refused|damaged"),
        ("device", "is refused"),
        # Its path counts from the folder; there it is no task.
        ("absolute", "found none"),
    ],
)
def test_hostile_archives(kind, message, server, tmp_path):
    server.files["task.tar.gz"] = hostile(kind, tmp_path)
    out = tmp_path / "a" / "b"
    with pytest.raises(ValueError, match=message):
        get_task(server.address("task.tar.gz"), out, progress=False)
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path / "a" / "escaped").exists()
    assert not (out / "task.tar.gz").exists()
