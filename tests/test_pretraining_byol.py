"""Pretraining by BYOL: repetition, resumption, hybrid training."""

import copy
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from skaudioemb.encoders.byol_frontend import ByolFrontend
from skaudioemb.pretraining.byol import BYOLSettings, pretrain_byol
from skaudioemb.pretraining.checkpoints import saved_seed
from skaudioemb.pretraining.handcrafted import HandcraftedTargets
from tests.sounds import noise

TINY = BYOLSettings(
    max_epochs=2,
    batch_size=4,
    crop_seconds=0.2,
    projection_size=8,
    hidden_size=16,
    memory_size=6,
)


class TinyEncoder(nn.Module):
    """An encoder with all that pretraining may meet: blocks, dropout, mean + max."""

    n_features, min_frames = 12, 4

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.features = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.fc = nn.Sequential(nn.Linear(96, 12), nn.ReLU(), nn.Dropout(0.3))

    def forward(self, x):
        frames = self.fc(self.features(x).permute(0, 3, 2, 1).flatten(2))
        return frames.mean(1) + frames.amax(1)


@pytest.fixture(scope="module")
def clips():
    return [noise(5000 + 100 * k, seed=k) for k in range(9)]


@pytest.fixture(scope="module")
def frontend():
    return ByolFrontend("byol-s")


def pretrain(frontend, clips, encoder=None, *, options=None, **settings):
    changed = replace(TINY, **settings)
    encoder = encoder or TinyEncoder()
    return pretrain_byol(encoder, frontend, clips, changed, **(options or {}))


def same(one, other):
    for name, value in one.state_dict.items():
        assert torch.equal(value, other.state_dict[name]), name
    losses = [[epoch["loss"] for epoch in p.history] for p in (one, other)]
    assert losses[0] == losses[1]
    return True


def test_pretraining_lowers_the_loss_and_changes_the_weights(frontend, clips):
    encoder = TinyEncoder()
    before = copy.deepcopy(encoder.state_dict())
    done = pretrain(frontend, clips, encoder, max_epochs=12, lr=3e-3)
    losses = [epoch["loss"] for epoch in done.history]
    assert np.mean(losses[-3:]) < 0.9 * losses[0]
    assert done.history[0].keys() == {"loss", "projection_std", "seconds", "waiting"}
    assert 0.05 < done.history[-1]["projection_std"] < 0.5
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), "the caller's encoder has changed"
    assert done.state_dict.keys() == before.keys()
    assert not torch.equal(done.state_dict["fc.0.weight"], before["fc.0.weight"])
    # Two views a batch, three batches an epoch.
    assert done.state_dict["features.1.num_batches_tracked"] == 2 * 3 * 12
    TinyEncoder().load_state_dict(done.state_dict)


def test_normalisation_is_learned_or_given(frontend, clips):
    done = pretrain(frontend, clips, max_epochs=1)
    crops = [torch.from_numpy(clip[None, 1000:4200]) for clip in clips]
    about = torch.cat([frontend(crop).flatten() for crop in crops])
    assert done.mean == pytest.approx(about.mean().item(), abs=0.1)
    assert done.std == pytest.approx(about.std().item(), rel=0.1)
    given = pretrain(
        frontend, clips, max_epochs=1, options={"normalization": (-3.0, 2.0)}
    )
    assert (given.mean, given.std) == (-3.0, 2.0)
    assert not torch.equal(
        given.state_dict["fc.0.weight"], done.state_dict["fc.0.weight"]
    )


def test_it_repeats_with_the_seed(frontend, clips):
    first = pretrain(frontend, clips)
    torch.rand(3)
    assert same(first, pretrain(frontend, clips, n_threads=3))
    other = pretrain(frontend, clips, seed=1)
    assert other.history[0]["loss"] != first.history[0]["loss"]


def test_a_state_is_gone_on_from(frontend, clips):
    whole = pretrain(frontend, clips, max_epochs=4)
    part = pretrain(frontend, clips, max_epochs=1)
    rest = pretrain(frontend, clips, max_epochs=4, options={"state": part.state})
    assert same(whole, rest)
    assert (rest.mean, rest.std) == (whole.mean, whole.std)


def test_a_state_takes_other_clips(frontend, clips):
    part = pretrain(frontend, clips, max_epochs=1)
    more = pretrain(frontend, clips[:5], max_epochs=2, options={"state": part.state})
    assert len(more.history) == 2
    assert more.mean == part.mean


SCRIPT = """
import sys
import numpy as np
import torch
from dataclasses import replace
from skaudioemb.encoders.byol_frontend import ByolFrontend
from skaudioemb.pretraining.byol import pretrain_byol
from tests.sounds import noise
from tests.test_pretraining_byol import TINY, TinyEncoder

torch.set_num_threads(1)
clips = [noise(5000 + 100 * k, seed=k) for k in range(9)]
settings = replace(TINY, max_epochs=int(sys.argv[2]), checkpoint_dir=sys.argv[1])
pretrain_byol(TinyEncoder(), ByolFrontend("byol-s"), clips, settings)
"""


def start(folder, max_epochs):
    """Start a training in a process of its own."""
    root = Path(__file__).parents[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(root), *sys.path])
    arguments = [sys.executable, "-c", SCRIPT, str(folder), str(max_epochs)]
    return subprocess.Popen(arguments, env=environment)


def test_a_killed_training_ends_as_an_unbroken_one(tmp_path, frontend, clips):
    killed = start(tmp_path, 100_000)
    path = tmp_path / "last.pt"
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    n_done = len(torch.load(path, weights_only=True)["history"])
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = pretrain(frontend, clips, max_epochs=n_done + 2)
        resumed = pretrain(
            frontend, clips, max_epochs=n_done + 2, checkpoint_dir=tmp_path
        )
    finally:
        torch.set_num_threads(n_threads)
    assert same(whole, resumed)
    optimizers = whole.state["optimizer"]["state"], resumed.state["optimizer"]["state"]
    for one, other in zip(*(states.values() for states in optimizers), strict=True):
        assert torch.equal(one["exp_avg_sq"], other["exp_avg_sq"])


def test_a_checkpoint_of_other_settings_is_refused(tmp_path, frontend, clips):
    pretrain(frontend, clips, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"tau=0\.99 there, 0\.9 here"):
        pretrain(frontend, clips, checkpoint_dir=tmp_path, tau=0.9)


def test_a_checkpoint_of_other_recordings_is_refused(tmp_path, frontend, clips):
    pretrain(frontend, clips, checkpoint_dir=tmp_path)
    quiet = [0.1 * clip for clip in clips]
    with pytest.raises(ValueError, match=r"training: recordings=.* there, .* mean="):
        pretrain(frontend, quiet, checkpoint_dir=tmp_path)


GIVEN = {"normalization": (-5.0, 4.0)}


@pytest.mark.parametrize(
    "at",
    [
        "recordings",
        "n_clips",
        "order",
        "initial_weights",
        "state",
        "frontend",
        "handcrafted",
        "mean",
    ],
)
def test_a_checkpoint_of_another_begin_is_refused(tmp_path, frontend, clips, at):
    options = {**GIVEN, "handcrafted": LOUDNESS}
    if at == "state":
        options["state"] = pretrain(
            frontend, clips, max_epochs=1, options=options
        ).state

    def train(frontend=frontend, clips=clips[:6], encoder=None, **others):
        given = {**options, **others}
        return pretrain(
            frontend, clips, encoder, checkpoint_dir=tmp_path, options=given
        )

    done = train()
    assert same(done, train())
    changed = {
        "recordings": {"clips": [*clips[:5], clips[7]]},
        "n_clips": {"clips": clips[:5]},
        "order": {"clips": clips[5::-1]},
        "initial_weights": {"encoder": TinyEncoder(1)},
        "state": {"state": None},
        "frontend": {"frontend": ByolFrontend("byol-a")},
        "handcrafted": {"handcrafted": FunctionTransformer(level_and_peak)},
        "mean": {"normalization": (-4.0, 4.0)},
    }
    named = {"order": "recordings", "state": "initial_weights"}.get(at, at)
    with pytest.raises(ValueError, match=f"of another training: .*{named}=.* there, "):
        train(**changed[at])


def level_and_peak(X):
    return np.stack([np.abs(X).mean(1), X.max(1), 0 * X[:, 0]], 1)


def test_a_checkpoint_takes_numbers_of_numpy(tmp_path, frontend, clips):
    plain = {"lr": 0.002, "batch_size": 3, "tau": 0.75, "weight_decay": 0.5}
    numbers = {
        "lr": np.float64(0.002),
        "batch_size": np.int64(3),
        "tau": np.float32(0.75),
        "weight_decay": np.float16(0.5),
        "supervised_loss": np.str_("cosine"),
        "seed": np.int32(0),
        "checkpoint_dir": tmp_path,
    }
    options = {"normalization": (np.float64(-5.0), np.float32(4.0))}
    whole = pretrain(frontend, clips, **plain, options=GIVEN)
    pretrain(frontend, clips, **numbers, max_epochs=1, options=options)
    assert same(whole, pretrain(frontend, clips, **numbers, options=options))
    plain["checkpoint_dir"] = tmp_path
    assert same(whole, pretrain(frontend, clips, **plain, options=GIVEN))
    assert saved_seed(tmp_path) == 0


def test_a_checkpoint_of_more_epochs_is_refused(tmp_path, frontend, clips):
    pretrain(frontend, clips, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="has 2 epochs, and 1 in all are asked for"):
        pretrain(frontend, clips, checkpoint_dir=tmp_path, max_epochs=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_seconds": 0.03}, "crop_seconds=0.03 is too short: the spectrogram"),
        ({"crop_seconds": 0.001}, "at least 513 samples at 16000 Hz"),
    ],
)
def test_crops_too_short_are_told(frontend, clips, settings, message):
    encoder = TinyEncoder()
    encoder.min_frames = 8
    with pytest.raises(ValueError, match=message):
        pretrain(frontend, clips, encoder, **settings)


def test_one_clip_is_not_enough(frontend, clips):
    with pytest.raises(ValueError, match="found 1 clip and needs at least 2"):
        pretrain(frontend, clips[:1])


LOUDNESS = FunctionTransformer(lambda X: np.stack([X.std(1), X.max(1), 0 * X[:, 0]], 1))


def test_hybrid_without_its_share_is_plain(frontend, clips):
    plain = pretrain(frontend, clips)
    hybrid = pretrain(frontend, clips, alpha=0.0, options={"handcrafted": LOUDNESS})
    assert same(plain, hybrid)
    assert hybrid.targets is None


@pytest.mark.parametrize("on", ["prediction", "projection"])
@pytest.mark.parametrize("loss", ["cosine", "mse"])
def test_hybrid_learns_both(frontend, clips, on, loss):
    options = {"handcrafted": LOUDNESS}
    chosen = {"supervised_on": on, "supervised_loss": loss}
    done = pretrain(frontend, clips, options=options, alpha=0.5, beta=2.0, **chosen)
    assert done.targets.kept_.tolist() == [0, 1]
    assert done.state["task"]["byol.predictor.3.bias"].shape == (2,)
    for epoch in done.history:
        parts = 0.5 * epoch["supervised"] + 2.0 * epoch["byol"]
        assert epoch["loss"] == pytest.approx(parts, rel=1e-5)


def test_hybrid_lowers_the_supervised_loss():
    loud = [noise(5000, seed=k) * 10.0 ** -(k % 3) for k in range(12)]
    done = pretrain(
        ByolFrontend("byol-s"),
        loud,
        options={"handcrafted": LOUDNESS},
        max_epochs=25,
        lr=1e-2,
        beta=0.0,
    )
    losses = [epoch["supervised"] for epoch in done.history]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_hybrid_resumes_as_an_unbroken_one(tmp_path, frontend, clips):
    options = {"handcrafted": LOUDNESS}
    whole = pretrain(frontend, clips, options=options, max_epochs=3)
    pretrain(frontend, clips, options=options, max_epochs=1, checkpoint_dir=tmp_path)
    resumed = pretrain(
        frontend, clips, options=options, max_epochs=3, checkpoint_dir=tmp_path
    )
    assert same(whole, resumed)


class Columns(TransformerMixin, BaseEstimator):
    """Gives the first columns of X; knows a sample rate."""

    def __init__(self, sample_rate=1):
        self.sample_rate = sample_rate

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.asarray(X, np.float64)[:, :4]


def test_targets_are_standardised_and_clipped():
    rng = np.random.default_rng(0)
    crops = rng.normal(size=(500, 6)) * [1e9, 1e-3, 0, 1, 1, 1] + [0, 5, 7, 0, 0, 0]
    crops[0, 3] = 1e3
    crops[1, 3] = np.nan
    targets = HandcraftedTargets(Columns(), 16000).fit(crops)
    assert targets.kept_.tolist() == [0, 1, 3]
    assert targets.transformer_.sample_rate == 16000
    found = targets.transform(crops)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, :2].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found[:, :2].std(0), 1, atol=1e-3)
    assert np.abs(found).max() == 5
    # NaN counts as a feature of 0, whatever the mean.
    assert found[1, 2] == np.float32(-targets.mean_[2] / targets.std_[2])
    plain = crops[:, :2]
    expected = (plain[2] - plain.mean(0)) / plain.std(0)
    np.testing.assert_allclose(found[2, :2], expected, rtol=1e-5)


def test_targets_that_are_all_constant_are_refused():
    constant = FunctionTransformer(lambda X: np.ones((len(X), 3)))
    with pytest.raises(ValueError, match="gives the same 3 values for all of 4 crops"):
        HandcraftedTargets(constant, 16000).fit(np.ones((4, 6)))


def test_targets_of_another_shape_are_refused():
    flat = FunctionTransformer(lambda X: X[:, 0])
    with pytest.raises(ValueError, match=r"shape \(4,\) for 4 crops"):
        HandcraftedTargets(flat, 16000).fit(np.ones((4, 6)))
