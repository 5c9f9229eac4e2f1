"""Pretraining and self-training of EncodecMAE: what is learned, kept, and resumed."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from skaudioemb.pretraining.encodecmae import EncodecMAESettings
from tests.pretraining_encodecmae import (
    TINY,
    codec_front_end,
    load_codec,
    make_clips,
    make_encoder,
    run,
    same,
)
from tests.sounds import noise

CODEC = replace(TINY, targets="codec")
TWO_STAGES = replace(TINY, self_train=True, self_train_epochs=2)
FIGURES = {"loss", "masked", "visible", "seconds", "waiting", "stage"}


class Interrupted(Exception):
    pass


def interrupt_after(monkeypatch, n_epochs):
    """Let the training stop after so many checkpoints, whatever the stage."""
    from skaudioemb.pretraining import trainer

    n_saved = []
    save = trainer.save_checkpoint

    def save_and_count(*args):
        save(*args)
        n_saved.append(1)
        if len(n_saved) == n_epochs:
            raise Interrupted

    monkeypatch.setattr(trainer, "save_checkpoint", save_and_count)


def test_the_loss_drops_on_eight_clips_in_fifty_steps():
    encoder = make_encoder()
    before = copy.deepcopy(encoder.state_dict())
    settings = replace(TINY, max_epochs=25, lr=3e-3)
    done = run(settings, encoder)
    assert all(epoch.keys() == FIGURES for epoch in done.history)
    assert len(done.history) == 25
    for figure in ("loss", "masked", "visible"):
        values = [epoch[figure] for epoch in done.history]
        assert np.mean(values[-3:]) < 0.8 * values[0], figure
    # An untrained model knows nothing of sixteen classes.
    assert 0.9 * np.log(16) < done.history[0]["loss"] < 1.5 * np.log(16)
    first = done.history[0]
    parts = 0.9 * first["masked"] + 0.1 * first["visible"]
    assert first["loss"] == pytest.approx(parts, rel=1e-5)
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), "the caller's encoder has changed"
    assert done.state_dict.keys() == before.keys()
    assert not torch.equal(done.state_dict["scale"], before["scale"])
    make_encoder().load_state_dict(done.state_dict)


def test_codec_and_its_buffers_stay_as_they_are():
    codec = load_codec()
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    front_end = codec_front_end()
    frozen = {name: value.clone() for name, value in front_end.state_dict().items()}
    codec.train()
    try:
        done = run(CODEC, front_end=front_end, codec=codec)
        assert codec.training
    finally:
        codec.eval()
    eval_too = run(CODEC, front_end=front_end, codec=codec)
    assert same(done, eval_too)
    for module, kept in ((codec, before), (front_end, frozen)):
        assert kept
        for name, value in module.state_dict().items():
            assert torch.equal(value, kept[name]), name
    assert not any("codec" in name for name in done.state["training"]["task"])


@pytest.mark.parametrize("targets", ["codec", "mel"])
@pytest.mark.parametrize("is_codec", [True, False])
def test_every_front_end_takes_every_target(targets, is_codec):
    settings = replace(TINY, targets=targets, max_epochs=1)
    done = run(
        settings,
        front_end=codec_front_end() if is_codec else None,
        codec=load_codec() if targets == "codec" else None,
    )
    assert np.isfinite(done.history[0]["loss"])


def test_it_repeats_with_the_seed():
    first = run()
    torch.rand(3)
    assert same(first, run(replace(TINY, n_threads=3)))
    other = run(replace(TINY, seed=1))
    assert other.history[0]["loss"] != first.history[0]["loss"]


def test_a_state_is_gone_on_from():
    settings = replace(CODEC, max_epochs=3)
    options = {"front_end": codec_front_end(), "codec": load_codec()}
    whole = run(settings, **options)
    part = run(replace(settings, max_epochs=1), **options)
    rest = run(settings, state=part.state, **options)
    assert same(whole, rest)


def test_a_state_keeps_what_it_learned_of_the_first_clips():
    part = run()
    louder = [0.1 * clip for clip in make_clips()[:4]]
    more = run(replace(TINY, max_epochs=3), clips=louder, state=part.state)
    assert len(more.history) == 3
    tasks = [p.state["training"]["task"] for p in (part, more)]
    for name in ("projection.mean", "projection.deviation", "gamma"):
        assert torch.equal(tasks[0][name], tasks[1][name])


@pytest.mark.parametrize("n_epochs", [1, 2, 3])
def test_interrupted_and_resumed_it_ends_as_an_unbroken_one(
    tmp_path, monkeypatch, n_epochs
):
    whole = run(TWO_STAGES)
    settings = replace(TWO_STAGES, checkpoint_dir=tmp_path)
    with monkeypatch.context() as patched:
        interrupt_after(patched, n_epochs)
        with pytest.raises(Interrupted):
            run(settings)
    resumed = run(settings)
    assert same(whole, resumed)
    assert [epoch["stage"] for epoch in resumed.history] == [0, 0, 1, 1]
    # Nothing is left to do.
    assert same(whole, run(settings))


def test_a_state_of_self_training_is_gone_on_from():
    whole = run(replace(TWO_STAGES, self_train_epochs=3))
    part = run(replace(TWO_STAGES, self_train_epochs=1))
    rest = run(replace(TWO_STAGES, self_train_epochs=3), state=part.state)
    assert same(whole, rest)
    with pytest.raises(ValueError, match="is of a self-training and self_train is"):
        run(state=part.state)


def test_self_training_goes_on_from_the_first_stage():
    first = run()
    both = run(TWO_STAGES, state=first.state)
    assert same(both, run(TWO_STAGES))
    task = both.state["training"]["task"]
    teacher = {
        name.removeprefix("clusters.teacher."): value
        for name, value in task.items()
        if name.startswith("clusters.teacher.")
    }
    assert teacher.keys() == first.state_dict.keys()
    for name, value in teacher.items():
        assert torch.equal(value, first.state_dict[name]), name
    assert task["clusters.centres"].shape == (6, 24)
    assert not torch.equal(both.state_dict["scale"], first.state_dict["scale"])


def test_self_training_begins_with_all_that_was_learned():
    first = run()
    begun = run(replace(TWO_STAGES, self_train_epochs=0), state=first.state)
    tasks = [p.state["training"]["task"] for p in (first, begun)]
    names = tasks[0].keys()
    assert {name.split(".")[1] for name in names if name.startswith("network.")} == {
        "encoder",
        "decoder",
        "heads",
    }
    for name in names:
        assert torch.equal(tasks[0][name], tasks[1][name]), name


def test_the_optimiser_is_the_published_one():
    settings = replace(TINY, max_epochs=1, lr=3e-4, weight_decay=0.02)
    optimizer = run(settings).state["training"]["optimizer"]
    (group,) = optimizer["param_groups"]
    assert tuple(group["betas"]) == (0.9, 0.95)
    assert (group["lr"], group["weight_decay"], group["eps"]) == (3e-4, 0.02, 1e-8)


def test_an_epoch_is_as_many_crops_as_fit():
    # Six crops of half a second, in batches of four at most.
    clips = [noise(3 * 24000)]
    optimizer = run(replace(TINY, max_epochs=1), clips=clips).state["training"][
        "optimizer"
    ]
    assert optimizer["state"][0]["step"] == 2


def test_streams_are_kept_or_dropped():
    kept, dropped = (run(replace(TWO_STAGES, keep_targets=k)) for k in (True, False))
    names = [
        {n.split(".")[2] for n in p.state["training"]["task"] if "heads" in n}
        for p in (kept, dropped)
    ]
    assert names == [{"targets", "clusters"}, {"clusters"}]
    assert all(np.isfinite(epoch["loss"]) for epoch in dropped.history)


def test_self_training_lowers_its_loss():
    done = run(replace(TWO_STAGES, self_train_epochs=20, lr=3e-3))
    losses = [epoch["loss"] for epoch in done.history if epoch["stage"] == 1]
    assert len(losses) == 20
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("max_epochs", "given", "expected"), [(100, None, 30), (2, None, 1), (9, 4, 4)]
)
def test_length_of_self_training(max_epochs, given, expected):
    settings = EncodecMAESettings(max_epochs=max_epochs, self_train_epochs=given)
    assert settings.n_self_training_epochs == expected


def test_two_batches_make_one_step_of_a_larger_one():
    """Without a mask's randomness: crops of one length, and nothing hidden."""
    clips = [clip[:10300] for clip in make_clips()]
    settings = replace(TINY, max_epochs=1, mask_share=0.0)
    whole = run(replace(settings, batch_size=8), clips=clips)
    halves = run(replace(settings, batch_size=4, accumulate=2), clips=clips)
    assert whole.history[0]["loss"] == pytest.approx(halves.history[0]["loss"])
    for name, value in whole.state_dict.items():
        torch.testing.assert_close(
            value, halves.state_dict[name], rtol=1e-3, atol=2e-5, msg=name
        )


@pytest.mark.parametrize(
    "change",
    [
        {"mask_token": "learned"},
        {"share_feedforward": False},
        {"loss_mean": "clip"},
        {"count_padding": True},
        {"delta": 0.5},
        {"gamma": (0.6, 0.3, 0.1)},
        {"mask_share": 0.7},
        {"mask_length": 4},
    ],
)
def test_every_choice_changes_the_training(change):
    base = replace(TINY, max_epochs=1, n_decoder_layers=2)
    plain, changed = run(base), run(replace(base, **change))
    assert np.isfinite(changed.history[0]["loss"])
    assert not torch.equal(
        plain.state_dict["project.weight"], changed.state_dict["project.weight"]
    )


def test_layers_of_the_encoder_share_their_copy():
    state = run(replace(TINY, max_epochs=1)).state_dict
    names = [f"stack.encoder_layers.{k}.ff_layer.0.weight" for k in (0, 1)]
    assert state[names[0]].data_ptr() == state[names[1]].data_ptr()


def test_bad_clips_are_left_out_on_request():
    clips = [*make_clips(), np.full(12000, np.nan)]
    with pytest.warns(UserWarning, match="1 of 9 clips cannot be used"):
        run(replace(TINY, on_error="nan"), clips=clips)


def test_a_single_clip_and_very_short_ones_train():
    run(clips=make_clips(1))
    run(clips=[clip[:100] for clip in make_clips(3)])
    lengths = (5, 700, 4000)
    done = run(clips=[c[:n] for c, n in zip(make_clips(3), lengths, strict=True)])
    assert np.isfinite(done.history[-1]["loss"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_seconds": 0.02}, r"crop_seconds=0\.02 is too short.* 24000 Hz"),
        ({"gamma": (0.5, 0.5)}, "gamma has 2 weights for n_codebooks=3"),
        ({"targets": "codec"}, "needs a codec and found none.*targets='mel'"),
    ],
)
def test_mistakes_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        run(replace(TINY, **change))


def test_autocast_is_left_to_cuda():
    plain, half = run(), run(replace(TINY, dtype="bfloat16", compile=True))
    assert same(plain, half)
