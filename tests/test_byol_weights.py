"""What files of BYOL weights tell, alone and with another beside them."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from skaudioemb import BYOLA, BYOLS
from skaudioemb.encoders.byol_published import frontend_of
from skaudioemb.encoders.byol_weights import find
from tests.models import byol_file
from tests.sounds import noise


@pytest.fixture
def saved(clips, tmp_path):
    embedder = BYOLS(weights=byol_file()).fit(clips)
    embedder.save_weights(tmp_path / "w.safetensors")
    return embedder


def test_a_file_alone_tells_all(saved, clips, tmp_path):
    (tmp_path / "w.json").unlink()
    renamed = (tmp_path / "w.safetensors").rename(tmp_path / "v.safetensors")
    loaded = BYOLS(weights=renamed, normalize="weights")
    np.testing.assert_array_equal(loaded.transform(clips), saved.transform(clips))
    with pytest.raises(ValueError, match="frontend='byol-s', but frontend='byol-a'"):
        BYOLA(weights=renamed, frontend="byol-a").fit(clips)


def test_what_lies_beside_goes_first(saved, tmp_path):
    change(tmp_path, mean=1.5)
    told = find(tmp_path / "w.safetensors").description
    assert (told.mean, told.std) == (1.5, saved.std_)


def test_a_file_that_tells_nothing(saved, clips, tmp_path):
    (tmp_path / "w.json").unlink()
    path = tmp_path / "w.safetensors"
    save_file(load_file(path), path)
    assert find(path).description[3:] == (None, None, None)
    given = BYOLS(weights=path, normalize=(saved.mean_, saved.std_))
    np.testing.assert_array_equal(given.transform(clips), saved.transform(clips))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"version": "1"}, "version='1', which is no number of a format"),
        ({"version": None}, "version=None, which is no number"),
        ({"version": 2}, "later version"),
        ({"std": -1.0}, "not as save_weights writes it"),
        ({"std": 0}, "not as save_weights writes it"),
        ({"std": None}, "not as save_weights writes it"),
        ({"mean": float("nan")}, "not as save_weights writes it"),
        ({"mean": "1"}, "not as save_weights writes it"),
    ],
)
def test_wrong_values(changes, match, saved, tmp_path):
    change(tmp_path, **changes)
    with pytest.raises(ValueError, match=match):
        _ = find(tmp_path / "w.safetensors").description


def test_wrong_statistics_of_a_checkpoint(tmp_path):
    torch.save(torch.load(byol_file(), weights_only=True), tmp_path / "checkpoint.pth")
    (tmp_path / "stats.csv").write_text("mean,std\n-7.5,0.0\n")
    with pytest.raises(ValueError, match=r"stats\.csv.*a deviation above 0"):
        _ = find(tmp_path).description


@pytest.mark.parametrize(
    "text",
    ["mean, std\n-7.5, 4.25\n", '"std","mean"\n"4.25","-7.5"\n', "\ufeffmean,std\n"],
)
def test_statistics_as_spreadsheets_write_them(text, tmp_path):
    shutil.copy(byol_file(), tmp_path / "checkpoint.pth")
    text = text if "7.5" in text else f"{text}-7.5,4.25\n"
    (tmp_path / "stats.csv").write_text(text, encoding="utf-8")
    told = find(tmp_path).description
    assert (told.mean, told.std) == (-7.5, 4.25)


def own_state():
    return torch.load(byol_file(), weights_only=True)


def with_gradients():
    return {
        name: torch.nn.Parameter(value)
        for name, value in own_state().items()
        if value.is_floating_point()
    }


def with_others():
    own = {f"net.{name}": value for name, value in own_state().items()}
    return {
        **own,
        "net.head.weight": torch.zeros(2, 2),
        "net.to_spec.window": torch.ones(3),
    }


@pytest.mark.parametrize("make", [with_gradients, with_others])
def test_states_of_larger_models(make, tmp_path):
    torch.save(make(), tmp_path / "w.pth")
    assert find(tmp_path / "w.pth").digest == find(byol_file()).digest


def test_parts_of_two_models_are_not_joined(tmp_path):
    parts = ("online", "target")
    state = {f"{parts[i % 2]}.{n}": v for i, (n, v) in enumerate(own_state().items())}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="holds no weights of a BYOL encoder"):
        _ = find(tmp_path / "w.pth").digest


class TestFrontends:
    """What "auto" stands for."""

    def test_of_published_names(self, tmp_path):
        name = "AudioNTT2020-BYOLA-64x96d512.pth"
        shutil.copy(byol_file(), tmp_path / name)
        self.same(BYOLA(weights=tmp_path / name), BYOLA(frontend="byol-a-v2"))
        shutil.copy(byol_file(), tmp_path / "own.pth")
        self.same(BYOLA(weights=tmp_path / "own.pth"), BYOLA(frontend="byol-a"))
        self.same(BYOLS(weights=tmp_path / "own.pth"), BYOLA(frontend="byol-s"))

    @pytest.mark.parametrize(
        ("name", "frontend"),
        [
            ("a#b/AudioNTT2020-BYOLA-64x96d512.pth", "byol-a-v2"),
            (
                "https://x.org/AudioNTT2022-BYOLA-64x96d2048.pth?a=1#b",
                "byol-a-v2",
            ),
            ("byol_s_default512", "byol-s"),
            ("default512.pth", None),
        ],
    )
    def test_names(self, name, frontend):
        assert frontend_of(name) == frontend

    def test_of_a_checkpoint_with_statistics(self, tmp_path):
        shutil.copy(byol_file(), tmp_path / "checkpoint.pth")
        (tmp_path / "stats.csv").write_text("mean,std\n-5.0,4.0\n")
        self.same(BYOLS(weights=tmp_path), BYOLA(frontend="byol-a"))

    def test_of_saved_weights(self, saved, tmp_path):
        path = tmp_path / "w.safetensors"
        self.same(BYOLA(weights=path), BYOLA(frontend="byol-s"))

    def test_of_learned_weights(self, clips, tmp_path):
        params = {"n_features": 8, "max_epochs": 0, "random_state": 0}
        learned = BYOLA(frontend="byol-s", **params).fit(clips)
        expected = learned.transform(clips)
        learned.set_params(frontend="auto")
        np.testing.assert_array_equal(learned.transform(clips), expected)
        # Others are learned as if there were none.
        learned.fit(clips)
        other = BYOLA(frontend="byol-a", **params).fit(clips)
        np.testing.assert_array_equal(learned.transform(clips), other.transform(clips))

    def same(self, found, expected):
        clip = [noise(16000)]
        expected.set_params(weights=byol_file(), normalize=(-5.0, 4.0))
        found.set_params(normalize=(-5.0, 4.0))
        np.testing.assert_array_equal(found.transform(clip), expected.transform(clip))


def test_a_file_in_the_way(saved, tmp_path):
    with pytest.raises(FileExistsError, match="a file where a folder is needed"):
        saved.save_weights(tmp_path / "w.json")


def change(folder, **changes):
    sidecar = folder / "w.json"
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), **changes}))


def test_a_width_of_numpy(clips, tmp_path):
    byol = BYOLA(n_features=np.int64(24), max_epochs=0, random_state=0).fit(clips)
    byol.save_weights(tmp_path / "weights")
    read = BYOLA(weights=tmp_path / "weights", normalize="weights")
    np.testing.assert_array_equal(read.transform(clips), byol.transform(clips))
