"""BYOLA and BYOLS as users have them: weights, statistics, windows, pretraining."""

import base64
import contextlib
import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from skaudioemb import BYOLA, BYOLS, Fusion, LogMel, make_embedder
from skaudioemb.encoders import byol_weights, checkpoint
from skaudioemb.encoders.byol_frontend import ByolFrontend
from skaudioemb.frames import pool
from tests.byol_golden import arrays, distance, meta, rule_state, statistics_of
from tests.models import byol_file

TINY = {
    **{"n_features": 8, "hidden_size": 8, "projection_size": 8, "batch_size": 4},
    **{"max_epochs": 1, "crop_seconds": 0.1, "random_state": 0, "device": "cpu"},
}


@pytest.fixture(scope="module")
def rule_file(tmp_path_factory):
    """The reference weights of AudioNTT2020 with 512 features."""
    path = tmp_path_factory.mktemp("rule") / "weights.pth"
    torch.save(rule_state("audiontt2020_d512"), path)
    return path


@pytest.fixture
def fitted(clips):
    return BYOLS(weights=byol_file()).fit(clips)


def assert_close(got, expected):
    np.testing.assert_allclose(
        got, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


@parametrize_with_checks([BYOLA(weights=byol_file()), BYOLA(**TINY)])
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("key", [k for k in arrays("embeddings") if "_d512/" in k])
def test_scenes_are_those_of_the_reference(key, rule_file):
    _, frontend, clip = key.split("/")
    name = {"byol-a-v1": "byol-a"}.get(frontend, frontend)
    statistics = statistics_of(frontend)
    embedder = BYOLS(weights=rule_file, normalize=statistics, frontend=name)
    waveform = arrays("clips")[clip.partition("_")[0]]
    assert distance(embedder.transform([waveform])[0], arrays("embeddings")[key]) < 2e-4


@pytest.mark.parametrize(
    "key", [k.rpartition("/")[0] for k in arrays("timestamps") if k.endswith("_ms")]
)
def test_windows_are_those_of_the_reference(key, rule_file, request):
    kind, clip, sizes = key.split("/")
    file = rule_file if kind == "rule" else request.getfixturevalue("real_file")
    window, hop = (float(s) / 1000 for s in sizes.removeprefix("win").split("_hop"))
    embedder = BYOLS(weights=file, normalize=statistics_of("byol-s"))
    embedder.set_params(window=window, hop=hop)
    ((values, times),) = embedder.frames([arrays("clips")[clip]])
    assert distance(values, arrays("timestamps")[f"{key}/embedding"]) < 2e-4
    expected = arrays("timestamps")[f"{key}/time_ms"]
    np.testing.assert_allclose(times * 1000, expected, rtol=0, atol=1e-3)


@pytest.fixture(scope="session")
def real_file():
    """The published weights of BYOL-S with 512 features, where they are."""
    folder = os.environ.get("SKAUDIOEMB_WEIGHTS")
    if folder is None:
        pytest.skip("the folder of weights, SKAUDIOEMB_WEIGHTS, is not set")
    (path,) = Path(folder).glob("default512_BYOLAs64x96-*.pth")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == meta()["real_weights_sha256"]
    return path


def test_published_weights(real_file):
    embedder = make_embedder("byol_s_default512", weights=real_file)
    embedder.set_params(normalize=statistics_of("byol-s"))
    for key, expected in arrays("real_weights").items():
        clip = arrays("clips")[key.removeprefix("embedding/")]
        assert distance(embedder.transform([clip])[0], expected) < 2e-4


class TestStatistics:
    def log_mel(self, clips, frontend="byol-s"):
        padded = [np.pad(clip, (0, max(0, 513 - len(clip)))) for clip in clips]
        return [ByolFrontend(frontend)(torch.tensor(c)[None]).numpy() for c in padded]

    def test_they_are_those_of_all_frames(self, fitted, clips):
        values = np.concatenate([x.ravel() for x in self.log_mel(clips)])
        assert fitted.mean_ == pytest.approx(values.mean(dtype=float), abs=1e-5)
        assert fitted.std_ == pytest.approx(values.std(dtype=float), abs=1e-5)
        given = BYOLS(weights=byol_file(), normalize=(fitted.mean_, fitted.std_))
        np.testing.assert_array_equal(fitted.transform(clips), given.transform(clips))

    def test_they_do_not_depend_on_order_or_company(self, fitted, clips):
        alone = np.concatenate([fitted.transform([clip]) for clip in clips])
        assert_close(fitted.transform(clips), alone)
        again = clone(fitted).set_params(batch_seconds=0.3).fit(clips[::-1])
        assert (again.mean_, again.std_) == pytest.approx((fitted.mean_, fitted.std_))

    def test_they_are_stored_by_clip(self, clips, tmp_path, counted):
        embedder = BYOLS(weights=byol_file(), memory=tmp_path).fit(clips)
        assert counted().run == len(clips)
        half = clone(embedder).fit(clips[:3])
        assert counted().run == 0
        assert half.mean_ != embedder.mean_
        fresh = clone(half).set_params(memory=None).fit(clips[:3])
        # Other statistics are another model to the store.
        embedder.transform(clips)
        assert_close(half.transform(clips), fresh.transform(clips))

    def test_bad_clips_are_left_out(self, clips, fitted):
        embedder = BYOLS(weights=byol_file(), on_error="nan")
        with pytest.warns(UserWarning, match="1 of 7 clips"):
            embedder.fit([*clips, "nowhere.wav"])
        assert embedder.mean_ == pytest.approx(fitted.mean_)
        with (
            pytest.warns(UserWarning, match="1 of 1 clips"),
            pytest.raises(ValueError, match="No clip of X could be read"),
        ):
            embedder.fit(["nowhere.wav"])

    def test_of_each_clip(self, clips):
        embedder = BYOLS(weights=byol_file(), normalize="clip").fit(clips)
        assert not hasattr(embedder, "mean_")
        rows = embedder.transform(clips)
        for row, clip, x in zip(rows, clips, self.log_mel(clips), strict=True):
            if len(clip) >= 1120:
                pair = (float(x.mean()), float(x.std(ddof=1)))
                own = clone(embedder).set_params(normalize=pair)
                assert_close(row, own.transform([clip])[0])
                # Windows are normalised by their clip, not by themselves.
                assert_close(
                    embedder.frames([clip])[0].values, own.frames([clip])[0].values
                )

    def test_silence(self):
        silence = [np.zeros(4000), np.zeros(2000)]
        for normalize in ("fit", "clip"):
            embedder = BYOLS(weights=byol_file(), normalize=normalize)
            assert np.isfinite(embedder.fit_transform(silence)).all()

    def test_unknown_ones_are_an_error(self, clips):
        embedder = BYOLS(weights=byol_file())
        with pytest.raises(NotFittedError, match="does not know the mean"):
            embedder.transform(clips)
        assert get_tags(embedder).requires_fit
        assert not get_tags(embedder.set_params(normalize="clip")).requires_fit
        with pytest.raises(ValueError, match="normalize='weights', but beside"):
            embedder.set_params(normalize="weights").transform(clips)


class TestFrames:
    def test_of_the_encoder_pool_to_the_scene(self, fitted, clips):
        fitted.set_params(frames_from="encoder")
        pooled = [pool(values, "mean+max") for values, _ in fitted.frames(clips)]
        assert_close(fitted.transform(clips), pooled)

    def test_a_window_is_the_scene_of_what_it_spans(self, fitted, clips):
        fitted.set_params(window=0.2, hop=0.1, pooling="max")
        values, times = fitted.frames([clips[-1]])[0]
        assert times.tolist() == pytest.approx(np.arange(11) / 10)
        part = clips[-1][6400:9600]
        assert_close(values[5], fitted.transform([part])[0])

    def test_windows_begin_at_the_nearest_sample(self):
        embedder = BYOLS(weights=byol_file(), normalize=(-5.0, 4.0), hop=0.0333)
        (frames,) = embedder.frames([np.zeros(1598, np.float32)])
        np.testing.assert_allclose(frames.times, [0, 0.0333, 0.0666, 0.0999], rtol=1e-9)

    def test_windows_belong_to_the_clip(self, clips, tmp_path, counted):
        embedder = BYOLS(
            weights=byol_file(), normalize=(-4.0, 3.0), memory=tmp_path, window=0.3
        )
        together = embedder.frames([*clips, clips[-1][::-1]])[:-1]
        counted()
        for clip, (values, times) in zip(clips, together, strict=True):
            assert_close(values, clone(embedder).frames([clip])[0].values)
            assert_close(
                values, clone(embedder).set_params(memory=None).frames([clip])[0].values
            )
            assert len(times) == len(clip) // 800 + 1
        assert counted().run == len(clips)

    def test_last_frame_of_clstm(self, clips):
        embedder = BYOLS(
            "clstm",
            weights=byol_file("clstm", None),
            normalize=(-4.0, 3.0),
            frames_from="encoder",
        )
        frames = embedder.frames(clips[-2:])
        expected = [values[-1] for values, _ in frames]
        assert_close(embedder.fit_transform(clips[-2:]), expected)
        grouped = embedder.set_params(segments=2).fit_transform(clips[-2:])
        assert grouped.shape == (2, 2048)
        size = len(frames[0].values) // 2
        assert_close(grouped[0, :1024], frames[0].values[size - 1])

    @pytest.mark.parametrize("encoder", ["resnetish34", "cvt", "cvt-512"])
    def test_other_encoders(self, encoder, clips):
        file = byol_file(encoder, None)
        embedder = BYOLS(encoder, weights=file, normalize=(-4.0, 3.0))
        alone = [embedder.transform([clip])[0] for clip in clips[:3]]
        together = embedder.transform([*clips[:3], clips[2][::-1]])
        assert_close(together[:3], alone)
        assert together.shape[1] == (512 if encoder == "cvt-512" else 2048)

    def test_in_a_fusion(self, fitted, clips):
        members = [("byol", clone(fitted)), ("logmel", LogMel(8))]
        assert Fusion(members).fit_transform(clips).shape == (len(clips), 40)


class TestSavedWeights:
    @pytest.mark.parametrize("name", ["folder", "byol.safetensors"])
    def test_they_load_again(self, name, fitted, clips, tmp_path, counted):
        files = fitted.save_weights(tmp_path / name)
        assert all(file.is_file() for file in files)
        told = json.loads(files[1].read_text())
        assert (told["encoder"], told["frontend"]) == ("audiontt2020", "byol-s")
        fitted.set_params(memory=tmp_path / "store")
        expected = fitted.transform(clips)
        counted()
        loaded = BYOLS(
            weights=tmp_path / name, normalize="weights", memory=tmp_path / "store"
        )
        np.testing.assert_array_equal(loaded.transform(clips), expected)
        # The same weights and statistics are the same model, wherever they lie.
        assert counted().run == 0
        assert clone(loaded).fit(clips).mean_ == fitted.mean_

    def test_from_the_hubs_cache(self, fitted, clips, tmp_path, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        checkpoint._hub_folder.cache_clear()
        commit = "c" * 40
        cache = tmp_path / "models--somebody--byol"
        fitted.save_weights(cache / "snapshots" / commit)
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text(commit)
        for weights in ("somebody/byol", f"somebody/byol@{commit}"):
            loaded = BYOLS(weights=weights, normalize="weights")
            np.testing.assert_array_equal(
                loaded.transform(clips), fitted.transform(clips)
            )
        with pytest.raises(FileNotFoundError, match=r"'somebody/none' is no file here"):
            BYOLS(weights="somebody/none").fit(clips)
        checkpoint._hub_folder.cache_clear()

    def test_to_the_hub(self, fitted, tmp_path, monkeypatch):
        with hub() as (address, files):
            monkeypatch.setattr(constants, "ENDPOINT", address)
            url = fitted.push_to_hub("somebody/byol", token="secret")
        assert url.startswith(address)
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        told = byol_weights.find(tmp_path).description
        assert told.digest == byol_weights.find(byol_file()).digest
        assert told.mean == fitted.mean_

    def test_without_weights(self, tmp_path):
        with pytest.raises(NotFittedError, match="no weights yet"):
            BYOLA().save_weights(tmp_path)


@contextlib.contextmanager
def hub():
    """Serve as much of the hub's interface as a commit of small files needs."""
    files = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            address = f"http://{self.headers['Host']}/somebody/byol"
            answer = {"url": address, "name": "somebody/byol"}
            if "/preupload/" in self.path:
                names = [file["path"] for file in json.loads(body)["files"]]
                keys = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
                answer = {"files": [{"path": name, **keys} for name in names]}
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        content = base64.b64decode(line["value"]["content"])
                        files[line["value"]["path"]] = content
                commit = f"{address}/commit/{'c' * 40}"
                answer = {"commitUrl": commit, "commitOid": "c" * 40}
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
