"""Checkpoints as files, and what tells one training from another."""

import os
import stat
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from sklearn.decomposition import PCA
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.random_projection import GaussianRandomProjection

from skaudioemb import LogMel
from skaudioemb.pretraining.byol import BYOLSettings
from skaudioemb.pretraining.checkpoints import load_checkpoint, saved_seed
from skaudioemb.pretraining.checkpoints import save_checkpoint as save
from skaudioemb.pretraining.fingerprints import (
    describe_transformer,
    digest_of_clips,
    digest_of_module,
    digest_of_state,
    digest_of_targets,
    plain,
    stated,
)
from skaudioemb.pretraining.handcrafted import HandcraftedTargets
from tests.sounds import noise

CONTENT = {"settings": {"lr": 0.1, "seed": 7}, "history": [{}, {}]}


def test_the_seed_is_read(tmp_path):
    assert saved_seed(None) is None
    assert saved_seed(tmp_path / "none") is None
    assert saved_seed(tmp_path) is None
    save(tmp_path, CONTENT)
    assert saved_seed(tmp_path) == saved_seed(str(tmp_path)) == 7


@pytest.mark.parametrize("n_asked", [0, 1])
def test_a_checkpoint_of_more_epochs_is_refused(tmp_path, n_asked):
    save(tmp_path, CONTENT)
    assert load_checkpoint(tmp_path, {}, 2)["history"] == [{}, {}]
    message = f"has 2 epochs, and {n_asked} in all are asked for. Ask for 2 or more"
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path, {}, n_asked)


def test_a_checkpoint_is_as_readable_as_other_files(tmp_path):
    before = os.umask(0o027)
    try:
        save(tmp_path, CONTENT)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "last.pt").stat().st_mode) == 0o640


@pytest.mark.parametrize("inside", [".", "inside/further"])
def test_a_file_in_place_of_the_folder_is_told(tmp_path, inside):
    path = tmp_path / "a file"
    path.write_text("of another kind")
    message = "has to be a folder, and .*a file' is a file. Choose another"
    for call in (lambda f: save(f, CONTENT), lambda f: load_checkpoint(f, {})):
        with pytest.raises(ValueError, match=message):
            call(path / inside)
    with pytest.raises(ValueError, match=message):
        saved_seed(path)


@pytest.mark.parametrize(
    "content",
    [{"version": 1, "settings": {}}, {"version": 2}, {"version": 2, "settings": 1}, 5],
)
def test_other_versions_are_told(tmp_path, content):
    torch.save(content, tmp_path / "last.pt")
    for call in (saved_seed, lambda folder: load_checkpoint(folder, {"lr": 0.1})):
        with pytest.raises(ValueError, match="no checkpoint of this version"):
            call(tmp_path)


def test_settings_are_stated_in_plain_numbers():
    numbers = replace(
        BYOLSettings(),
        lr=np.float64(0.5),
        batch_size=np.int64(8),
        tau=np.float32(0.25),
        compile=np.bool_(True),
        supervised_on=np.str_("prediction"),
        canvas=(np.float64(1.0), 1.5),
    )
    found = stated(numbers, ("seed",))
    types = {type(value) for value in found.values()}
    assert types == {float, int, bool, str, list, type(None)}
    assert set(map(type, found["canvas"])) == {float}
    assert "seed" not in found
    expected = replace(
        BYOLSettings(), lr=0.5, batch_size=8, tau=0.25, compile=True, canvas=[1.0, 1.5]
    )
    assert found == stated(expected, ("seed",))
    assert plain([np.array([1, 2]), None, {"a": (np.int8(3),)}]) == [
        [1, 2],
        None,
        {"a": (3,)},
    ]


def test_weights_are_told_by_kind_name_form_and_value():
    layer = torch.nn.Linear(2, 3)
    weights = layer.state_dict()
    changed = {**weights, "bias": weights["bias"] + 1e-6}
    renamed = {"weight": weights["weight"], "other": weights["bias"]}
    formed = {**weights, "weight": weights["weight"].reshape(2, 3)}
    half = {**weights, "bias": weights["bias"].half()}
    states = [weights, changed, renamed, formed, half]
    assert len({digest_of_state(state) for state in states}) == len(states)
    layout = {name: weights[name].t().contiguous().t() for name in reversed(weights)}
    assert digest_of_state(layout) == digest_of_state(weights)

    class Other(torch.nn.Linear):
        pass

    other = Other(2, 3)
    other.load_state_dict(weights)
    assert digest_of_module(other) != digest_of_module(layer)


def test_every_clip_counts_and_the_order_too():
    clips = [noise(3000, seed=k) for k in range(12)]
    digests = {digest_of_clips(clips), digest_of_clips(clips[::-1])}
    for k in range(12):
        for other in (noise(3000, seed=99), clips[k][:2999], 0.5 * clips[k]):
            digests.add(digest_of_clips([*clips[:k], other, *clips[k + 1 :]]))
    assert len(digests) == 2 + 12 * 3
    assert digest_of_clips(np.stack(clips)) == digest_of_clips(clips)
    assert digest_of_clips([clip.tolist() for clip in clips]) == digest_of_clips(clips)
    assert digest_of_clips(list(map(torch.from_numpy, clips))) == digest_of_clips(clips)


def test_files_are_told_by_name_and_content(tmp_path):
    paths = [tmp_path / place / "a.wav" for place in ("one", "two", "three")]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        path.parent.mkdir()
        soundfile.write(path, noise(5000, seed=seed), 16000)
    one, moved, other = ([path] for path in paths)
    assert digest_of_clips(one) == digest_of_clips(moved) != digest_of_clips(other)
    assert digest_of_clips(list(map(str, one))) == digest_of_clips(one)
    renamed = paths[0].rename(tmp_path / "b.wav")
    path, content = str(paths[1]), paths[1].read_bytes()
    forms = [
        renamed,
        path,
        (path, 0.0, 0.1),
        (path, 0.1, None),
        {"bytes": content},
        {"bytes": paths[2].read_bytes()},
        {"array": noise(5000), "sampling_rate": 16000},
        {"array": noise(5000), "sampling_rate": 8000},
        "missing.wav",
        "missing\0.wav",
    ]
    assert len({digest_of_clips([form]) for form in forms}) == len(forms)
    assert digest_of_clips([{"path": path}]) == digest_of_clips([path])
    segments = [(path, 0.5, 1.0)], [(path, np.float32(0.5), np.float64(1.0))]
    assert digest_of_clips(segments[0]) == digest_of_clips(segments[1])


def test_decoders_are_told_by_what_they_decode():
    class Decoded:
        def __init__(self, seed):
            self.data, self.sample_rate = torch.from_numpy(noise(2, 400, seed=seed)), 8

    class Decoder:
        def __init__(self, seed):
            self.seed = seed

        def get_all_samples(self):
            return Decoded(self.seed)

    class Failing:
        def get_all_samples(self):
            raise RuntimeError("no samples")

    one, again, other = (digest_of_clips([Decoder(seed)]) for seed in (0, 0, 1))
    assert one == again != other
    assert digest_of_clips([Failing()]) not in (one, other)


@pytest.mark.parametrize("clip", [None, [], {}, b"", 3.0, ["a", "b"], [[1.0], []], {1}])
def test_what_is_no_clip_is_left_to_who_reads_it(clip):
    assert digest_of_clips([clip, noise(9)]) == digest_of_clips([clip, noise(9)])
    assert digest_of_clips([clip]) != digest_of_clips([noise(9)])


def level(X):
    return np.stack([X.std(1), X.max(1)], 1)


def test_hand_made_targets_are_told_by_parameters_and_scale():
    crops = np.stack([(k + 1) / 9 * noise(64, seed=k) for k in range(8)])

    def digest(transformer, crops=crops):
        return digest_of_targets(HandcraftedTargets(transformer, 16000).fit(crops))

    kinds = [
        FunctionTransformer(level),
        FunctionTransformer(lambda X: level(X)),
        FunctionTransformer(lambda X: level(X)[:, ::-1]),
        FunctionTransformer(lambda X: np.c_[level(X), 0 * X[:, 0]]),
        StandardScaler(),
        StandardScaler(with_mean=False),
    ]
    digests = [digest(kind) for kind in kinds]
    assert len(set(digests)) == len(kinds) - 1
    # A function without a name is told by what it gives, not by its address.
    assert digests[1] == digest(FunctionTransformer(lambda X: 1 * level(X)))
    reducers = [PCA(2, svd_solver="full"), PCA(np.int64(2), svd_solver="full")]
    assert digest(reducers[0]) == digest(reducers[1]) != digest(PCA(2, whiten=True))
    pairs = [FeatureUnion([("level", kinds[0])], n_jobs=n) for n in (None, 1)]
    assert digest(pairs[0]) == digest(pairs[1])
    assert digest(kinds[0], 2 * crops) != digests[0]
    assert digest_of_targets(None) is None


def test_transformers_are_told_by_what_they_give():
    def described(seed, columns, n_jobs):
        parts = [("mel", LogMel(n_jobs=n_jobs)), ("scaled", StandardScaler())]
        projection = GaussianRandomProjection(3, random_state=seed)
        own = FunctionTransformer(test_other_versions_are_told, kw_args=columns)
        return describe_transformer(Pipeline([*parts, ("p", projection), ("f", own)]))

    drawn = [np.random.RandomState(0) for _ in range(2)]
    # Two equal sets that are listed in different orders.
    first, second = {0, 8}, {8, 0}
    assert list(first) != list(second)
    told = described(drawn[0], {"columns": first}, None)
    assert told == described(drawn[1], {"columns": second}, 2)
    one, other = {"a": 1, "b": first}, {"b": second, "a": 1}
    assert described(0, one, None) == described(0, other, None)
    assert told != described(drawn[0], {"columns": {0, 9}}, None)
    assert "0x" not in told


def test_bounds_of_segments_are_numbers():
    whole, part = ("a.wav", 0, 1), ("a.wav", 0, 2)
    assert digest_of_clips([whole]) == digest_of_clips([("a.wav", None, 1.0)])
    assert digest_of_clips([whole]) != digest_of_clips([part])


@pytest.mark.parametrize("n_kept", range(0, 2000, 160))
def test_damage_is_told(n_kept, tmp_path):
    save(tmp_path, CONTENT)
    path = next(tmp_path.iterdir())
    content = path.read_bytes()
    middle = np.random.default_rng(n_kept).bytes(40)
    path.write_bytes(content[:n_kept] + middle + content[n_kept + 40 :])
    with suppress(ValueError):
        loaded = load_checkpoint(tmp_path, CONTENT["settings"])
        assert loaded["history"] == CONTENT["history"]
