"""The trainer by itself: steps, epochs, checkpoints."""

import copy
import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from skaudioemb.pretraining.checkpoints import load_checkpoint, save_checkpoint
from skaudioemb.pretraining.trainer import Task, TrainSettings, train


class Regression(Task):
    """Fits a line to points with noise from the epoch's generator."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)
        self.register_buffer("n_steps", torch.zeros((), dtype=torch.int64))

    def forward(self, batch, generator):
        noise = torch.rand(len(batch), 3, generator=generator) + 0.1 * torch.rand(1)
        error = self.layer(batch + noise).squeeze(1) - batch.sum(1)
        return {"loss": error.square().mean(), "size": torch.tensor(float(len(batch)))}

    def after_step(self):
        self.n_steps += 1


class Points:
    """Batches of points, others in every epoch."""

    def __init__(self, sizes=(4, 4, 2)):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def epoch(self, number):
        generator = torch.Generator().manual_seed(number)
        yield from torch.rand(sum(self.sizes), 3, generator=generator).split(self.sizes)


def settings(max_epochs=3, lr=0.05, **options):
    return TrainSettings(max_epochs, lr, torch.device("cpu"), **options)


def same(one, other):
    assert one["task"].keys() == other["task"].keys()
    for name in one["task"]:
        assert torch.equal(one["task"][name], other["task"][name]), name
    for a, b in zip(one["history"], other["history"], strict=True):
        assert a["loss"] == b["loss"]
    return True


def test_it_learns_and_records_every_epoch():
    state = train(Regression(), Points(), settings(30))
    losses = [epoch["loss"] for epoch in state["history"]]
    assert len(losses) == 30
    assert losses[-1] < 0.2 * losses[0]
    assert state["history"][0]["size"] == pytest.approx(10 / 3)
    assert all(0 <= epoch["waiting"] <= 1 for epoch in state["history"])
    assert state["task"]["n_steps"] == 90


def test_it_repeats_with_the_seed_and_leaves_torchs_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    task, again, other = Regression(), Regression(), Regression()
    torch.random.set_rng_state(before)
    first = train(task, Points(), settings())
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert same(first, train(again, Points(), settings()))
    different = train(other, Points(), settings(seed=1))
    assert different["history"][0]["loss"] != first["history"][0]["loss"]


def test_a_state_is_gone_on_from():
    whole = train(Regression(), Points(), settings(5))
    part = train(Regression(), Points(), settings(2))
    assert same(whole, train(Regression(), Points(), settings(5), part))


def test_a_checkpoint_is_gone_on_from(tmp_path):
    whole = train(Regression(), Points(), settings(5))
    train(Regression(), Points(), settings(2, checkpoint_dir=tmp_path))
    resumed = train(Regression(), Points(), settings(5, checkpoint_dir=tmp_path))
    assert same(whole, resumed)
    done = train(Regression(), Points(), settings(5, checkpoint_dir=tmp_path))
    assert same(whole, done)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_what_is_gone_on_from_stays_as_it_is():
    part = train(Regression(), Points(), settings(2))
    before = copy.deepcopy(part)
    train(Regression(), Points(), settings(5, lr=0.5), part)
    assert same(part, before)
    assert part["optimizer"]["param_groups"] == before["optimizer"]["param_groups"]
    for number, memory in before["optimizer"]["state"].items():
        for name, value in memory.items():
            assert torch.equal(part["optimizer"]["state"][number][name], value), name


def test_checkpoints_are_read_whatever_the_numbers_are(tmp_path):
    options = {"weight_decay": np.float32(0.25), "betas": (np.float64(0.9), 0.999)}
    about = {"fingerprint": {"lr": np.float64(0.05), "name": np.str_("a")}}
    whole = train(Regression(), Points(), settings(3, **options))
    options |= {"lr": np.float64(0.05), "seed": np.int64(0), **about}
    options["checkpoint_dir"] = tmp_path
    train(Regression(), Points(), settings(np.int64(2), **options))
    assert same(whole, train(Regression(), Points(), settings(3, **options)))
    about = {"lr": 0.05, "name": "a"}
    assert load_checkpoint(tmp_path, about)["settings"] == about


def test_a_checkpoint_of_more_epochs_is_refused(tmp_path):
    train(Regression(), Points(), settings(3, checkpoint_dir=tmp_path))
    with pytest.raises(ValueError, match="has 3 epochs, and 2 in all are asked for"):
        train(Regression(), Points(), settings(2, checkpoint_dir=tmp_path))


def test_what_a_killed_training_left_is_removed(tmp_path):
    (tmp_path / ".writing-abc").write_bytes(b"half of a checkpoint")
    (tmp_path / "notes.txt").write_text("of the user")
    train(Regression(), Points(), settings(0, checkpoint_dir=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_in_place_of_the_folder_is_told_before_the_training(tmp_path):
    class Untrainable(Regression):
        def forward(self, batch, generator):
            raise AssertionError

    (tmp_path / "file").write_text("of the user")
    with pytest.raises(ValueError, match=r"checkpoint_dir=.*file' has to be a folder"):
        train(Untrainable(), Points(), settings(checkpoint_dir=tmp_path / "file"))


def test_a_lower_rate_holds_after_resuming():
    part = train(Regression(), Points(), settings(1, lr=1.0))
    before = part["task"]["layer.weight"].clone()
    after = train(Regression(), Points(), settings(2, lr=1e-9), part)
    assert torch.allclose(before, after["task"]["layer.weight"], atol=1e-7)


def test_batches_are_accumulated_into_one_step():
    class Mean(Regression):
        def forward(self, batch, generator):
            return {"loss": (self.layer(batch) - batch.sum(1)).square().mean()}

    apart = train(Mean(), Points((4, 4)), settings(3, accumulate=2))
    batch = next(Points((8,)).epoch(0))
    task = Mean()
    loss = sum(task(part, None)["loss"] / 2 for part in batch.split(4))
    assert apart["history"][0]["loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert apart["task"]["n_steps"] == 3
    odd = train(Mean(), Points((4, 4, 4)), settings(1, accumulate=2))
    assert odd["task"]["n_steps"] == 2


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_steps_are_those_of_adamw(weight_decay):
    class Plain(Regression):
        def forward(self, batch, generator):
            return {"loss": (self.layer(batch)[:, 0] - batch.sum(1)).square().mean()}

    found = train(Plain(), Points(), settings(2, weight_decay=weight_decay))
    task = Plain()
    options = {"lr": 0.05, "weight_decay": weight_decay, "fused": False}
    optimizer = torch.optim.AdamW(task.parameters(), **options)
    for number in range(2):
        for batch in Points().epoch(number):
            optimizer.zero_grad()
            task(batch, None)["loss"].backward()
            optimizer.step()
    expected = task.state_dict()["layer.weight"]
    torch.testing.assert_close(found["task"]["layer.weight"], expected)


def test_divergence_is_told(tmp_path):
    class Diverging(Regression):
        def forward(self, batch, generator):
            loss = super().forward(batch, generator)["loss"]
            return {"loss": loss * (math.nan if self.n_steps >= 3 else 1)}

    message = "the loss of epoch 2 is nan. Lower lr (now 0.05)"
    with pytest.raises(FloatingPointError, match=re.escape(message)):
        train(Diverging(), Points(), settings(checkpoint_dir=tmp_path))
    kept = load_checkpoint(tmp_path, {})
    assert len(kept["history"]) == 1
    assert all(value.isfinite().all() for value in kept["task"].values())


def test_no_batch_is_told():
    with pytest.raises(ValueError, match="no clip can be used"):
        train(Regression(), Points(()), settings())


def test_the_bar_shows_the_loss(capsys):
    train(Regression(), Points(), settings(2, verbose=1))
    shown = capsys.readouterr().err
    assert "pretraining" in shown
    assert "loss=" in shown
    assert "6/6" in shown
    train(Regression(), Points(), settings(2))
    assert capsys.readouterr().err == ""


def test_checkpoints_of_other_trainings_are_refused(tmp_path):
    save_checkpoint(tmp_path, {"settings": {"lr": 0.1, "seed": 0}})
    assert load_checkpoint(tmp_path, {"lr": 0.1})["settings"]["seed"] == 0
    with pytest.raises(ValueError, match=r"lr=0\.1 there, 0\.2 here\."):
        load_checkpoint(tmp_path, {"lr": 0.2, "seed": 0})


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04broken"])
def test_broken_checkpoints_are_told(tmp_path, content):
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be read .* Remove the file or"):
        load_checkpoint(tmp_path, {})


def test_files_that_run_code_are_refused(tmp_path):
    torch.save({"version": 1, "settings": Points()}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        load_checkpoint(tmp_path, {})


def test_a_checkpoint_that_cannot_be_written_leaves_the_previous_one(tmp_path):
    save_checkpoint(tmp_path, {"settings": {"lr": 0.1}})
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(tmp_path, {"settings": lambda: None})
    assert load_checkpoint(tmp_path, {"lr": 0.1}) is not None
    assert len(list(tmp_path.iterdir())) == 1
