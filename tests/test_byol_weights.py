"""What files of BYOL weights tell, alone and with another beside them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from skaudioemb import BYOLA, BYOLS
from skaudioemb.encoders.byol_weights import find
from tests.models import byol_file


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
        BYOLA(weights=renamed).fit(clips)


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
