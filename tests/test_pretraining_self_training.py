"""Clusters of a teacher's frames as targets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch.nn import functional as F

from skaudioemb.encoders.encodecmae_frontends import MelFrontEnd
from skaudioemb.pretraining.autoencoder import MaskedAutoencoder
from skaudioemb.pretraining.data import CropBatches
from skaudioemb.pretraining.encodecmae_task import EncodecMAETask, frame_weights
from skaudioemb.pretraining.hearing import Hearing
from skaudioemb.pretraining.masks import draw_masking
from skaudioemb.pretraining.random_projection import RandomProjectionTargets
from skaudioemb.pretraining.self_training import ClusterTargets, fit_centres
from tests.encodecmae_models import close, golden_clips, make_spec
from tests.encodecmae_models import run as run_golden
from tests.pretraining_encodecmae import (
    CPU,
    TINY,
    batch_of,
    make_clips,
    make_encoder,
    run,
)


@pytest.fixture(scope="module")
def hear():
    return Hearing(MelFrontEnd(CPU), "mel", None, 3, CPU)


@pytest.fixture(scope="module")
def heard(hear):
    return hear(batch_of(make_clips()))


def make_batches(clips=None, batch_size=4):
    options = {"zeros": "after", "by_length": True, "sample_rate": 24000}
    clips = make_clips() if clips is None else clips
    return CropBatches(clips, 12000, 24000, batch_size, 0, **options)


@pytest.mark.parametrize("stream", ["normed", "combined"])
def test_the_teacher_gives_the_frames_of_extraction(stream):
    clip = golden_clips()["clip0"]
    hear = Hearing(MelFrontEnd(CPU), "mel", None, 3, CPU)
    heard = hear(batch_of([clip]))
    spec = make_spec("mel", stream=stream)
    targets = ClusterTargets(spec.network(), stream)
    frames = targets.frames(heard.features, heard.padding())[0].numpy()
    close(frames, run_golden(spec, [clip])[-1])


def test_both_streams_differ(heard):
    frames = [
        ClusterTargets(make_encoder(), stream).frames(heard.features)
        for stream in ("normed", "combined")
    ]
    assert not torch.equal(*frames)
    settings = replace(TINY, max_epochs=1, self_train=True)
    centres = [
        run(replace(settings, teacher_stream=stream)).state["training"]["task"][
            "clusters.centres"
        ]
        for stream in ("normed", "combined")
    ]
    assert not torch.allclose(*centres)


def test_labels_are_those_of_scikit_learn(heard):
    targets = ClusterTargets(make_encoder(), "normed")
    frames = targets.frames(heard.features, heard.padding())
    flat = frames.flatten(0, 1).numpy()
    means = KMeans(5, random_state=3).fit(flat)
    targets.centres = fit_centres(flat, 5, seed=3)
    labels = targets(heard.features, heard.padding())
    assert labels.shape == frames.shape[:2]
    assert np.array_equal(labels.flatten(), means.predict(flat))


def test_frames_are_drawn_from_all_crops_alike(hear, monkeypatch):
    seen = []

    def keep(frames, n_clusters, seed):
        seen.append(frames)
        return fit_centres(frames, n_clusters, seed)

    monkeypatch.setattr("skaudioemb.pretraining.self_training.fit_centres", keep)
    targets = ClusterTargets(make_encoder(), "normed")
    targets.learn(make_batches(), hear, 4, 50, 0)
    (drawn,) = seen
    assert drawn.shape == (50, 24)
    assert targets.centres.shape == (4, 24)
    alone = [hear(batch_of([clip])) for clip in make_clips()]
    own = [targets.frames(h.features, h.padding())[0].numpy() for h in alone]
    # Seven of each of eight crops, six left out of 56.
    counts = [
        sum(np.abs(frames - row).max(1).min() < 1e-4 for row in drawn) for frames in own
    ]
    assert sum(counts) == 50
    assert min(counts) >= 1
    assert max(counts) <= 7
    again = ClusterTargets(make_encoder(), "normed")
    again.learn(make_batches(), hear, 4, 50, 0)
    assert torch.equal(targets.centres, again.centres)


def test_there_are_no_more_clusters_than_frames(hear):
    targets = ClusterTargets(make_encoder(), "normed")
    targets.learn(make_batches(make_clips(1)), hear, 1000, 10, 0)
    assert targets.centres.shape == (10, 24)
    silent = ClusterTargets(make_encoder(), "normed")
    silent.learn(make_batches([np.zeros(700)] * 3), hear, 8, 30, 0)
    assert len(silent.centres) == 1


def test_the_teacher_stays_as_it_is():
    targets = ClusterTargets(make_encoder(), "normed")
    assert not targets.train().training
    assert not targets.teacher.training
    assert not any(p.requires_grad for p in targets.parameters())
    first, both = run(), run(replace(TINY, self_train=True, self_train_epochs=3))
    task = both.state["training"]["task"]
    for name, value in first.state_dict.items():
        assert torch.equal(task[f"clusters.teacher.{name}"], value), name


def test_the_further_stream_weighs_as_much_as_all_others(hear, heard):
    gamma = torch.tensor([0.5, 0.3, 0.4])
    heads = {"targets": (3, 16), "clusters": (1, 5)}
    generator = torch.Generator().manual_seed(0)
    network = MaskedAutoencoder(make_encoder(), heads).initialise(generator)
    clusters = ClusterTargets(make_encoder(seed=1), "normed", 5)
    clusters.centres.normal_(generator=generator)
    projection = RandomProjectionTargets(256, 3, 16, seed=0)
    parts = {"projection": projection, "clusters": clusters}
    task = EncodecMAETask(network, hear, TINY, gamma, **parts)
    rng = np.random.default_rng(0)
    masking = draw_masking(heard.features.shape[1], heard.n_whole, 0.5, 15, rng)
    found = task.loss(heard, masking)
    decoded, codes = network(heard.features, masking), task.codes(heard)
    for name, weights in (("masked", 0), ("visible", 1)):
        counts = frame_weights(masking)[weights]
        expected = 0
        for head, streams in (("targets", gamma), ("clusters", gamma.sum()[None])):
            scores = network.heads[head](decoded).unflatten(-1, (len(streams), -1))
            losses = F.cross_entropy(
                scores.movedim(-1, 1), codes[head], reduction="none"
            )
            expected += (counts[..., None] * losses * streams).sum()
        torch.testing.assert_close(found[name], expected)
    assert not torch.isclose(found["masked"], found["visible"])
