"""One trainer for every way of pretraining, on skorch.

What is trained is a *task*: a module whose ``forward`` takes a batch and returns a
dict of 0-D tensors, among them ``"loss"``, the others figures to show. Everything
that has to survive an interruption is in the task's state dict; everything random
is drawn from generators that :func:`train` seeds anew at the start of each epoch, so
that an epoch depends on the state before it and on its number alone.
"""

import copy
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn
from tqdm.auto import tqdm

from skaudioemb.pretraining.checkpoints import (
    load_checkpoint,
    remove_unfinished,
    save_checkpoint,
)
from skaudioemb.pretraining.fingerprints import plain_settings
from skaudioemb.probes.training import seeded

AUTOCAST = {"float32": None, "bfloat16": torch.bfloat16}


class Task(nn.Module):
    """What the trainer trains. Subclasses implement ``forward``."""

    name = "pretraining"

    def forward(self, batch, generator):
        """Return the loss of a batch, and figures.

        Parameters
        ----------
        batch : object
            What the batches yield; the task moves it to its own device.
        generator : torch.Generator
            On the task's device, seeded for this epoch.

        Returns
        -------
        figures : dict of str to tensor
            0-D each; ``"loss"`` is minimised, the others are averaged and shown.
        """
        raise NotImplementedError

    def after_step(self):
        """Do what follows a step of the optimiser."""


@dataclass(frozen=True)
class TrainSettings:
    """How a task is trained.

    Attributes
    ----------
    max_epochs : int
        Epochs in all, those of an earlier state included.
    lr : float
        Of AdamW.
    device : torch.device
    weight_decay : float
        Of AdamW; without it that is Adam.
    betas : pair of float
        Of AdamW.
    accumulate : int
        Batches whose gradients are averaged into one step.
    seed : int
        Of everything that is random.
    dtype : {"float32", "bfloat16"}
        With bfloat16, forward passes run under autocast; on CUDA only.
    checkpoint_dir : str or path or None
        Where the state is saved after each epoch, and resumed from; of one training
        at a time.
    fingerprint : dict
        What a checkpoint has to have in common with this training; numbers, strings,
        None, and lists of them.
    verbose : int
        Whether a progress bar is shown.
    """

    max_epochs: int
    lr: float
    device: torch.device
    weight_decay: float = 0.0
    betas: tuple = (0.9, 0.999)
    accumulate: int = 1
    seed: int = 0
    dtype: str = "float32"
    checkpoint_dir: object = None
    fingerprint: dict = field(default_factory=dict)
    verbose: int = 0


def train(task, batches, settings, state=None):
    """Train a task; go on from a checkpoint if there is one.

    Parameters
    ----------
    task : Task
        Trained in place.
    batches : object
        ``epoch(number)`` yields the batches of an epoch, ``len`` counts them.
    settings : TrainSettings
    state : dict or None, default=None
        What an earlier call returned, to go on from.

    Returns
    -------
    state : dict
        ``"task"`` and ``"optimizer"`` state dicts, and ``"history"``: a list of one
        dict of floats an epoch, the figures' means, the seconds that the epoch
        took, and the share of them spent waiting for data.

    Raises
    ------
    FloatingPointError
        If the loss becomes NaN or infinite.
    ValueError
        If the checkpoint cannot be read, is of another training, or has more epochs
        than ``max_epochs``.
    """
    # A checkpoint with numpy's numbers in it would not be read again.
    settings = plain_settings(settings)
    folder = settings.checkpoint_dir
    if folder is not None:
        saved = load_checkpoint(folder, settings.fingerprint, settings.max_epochs)
        state = saved or state
        remove_unfinished(folder)
    net = PretrainingNet(
        task,
        criterion=nn.Identity,
        optimizer=torch.optim.AdamW,
        optimizer__betas=settings.betas,
        optimizer__weight_decay=settings.weight_decay,
        # One pass over the weights instead of a dozen.
        optimizer__fused=settings.device.type in ("cpu", "cuda"),
        lr=settings.lr,
        max_epochs=settings.max_epochs,
        settings=settings,
        train_split=None,
        callbacks=_callbacks(settings),
        device=str(settings.device),
        verbose=0,
    )
    return net.train(batches, state)


def _callbacks(settings):
    callbacks = []
    if settings.checkpoint_dir is not None:
        callbacks.append(Checkpoints())
    if settings.verbose:
        callbacks.append(BatchBar())
    return callbacks


class PretrainingNet(NeuralNet):
    """A skorch net that trains a :class:`Task` on batches of any kind.

    Parameters
    ----------
    *args, **kwargs
        As :class:`skorch.NeuralNet` takes them.
    settings : TrainSettings
    """

    def __init__(self, *args, settings, **kwargs):
        super().__init__(*args, **kwargs)
        self.settings = settings

    def get_default_callbacks(self):
        """Return none: the epoch's means are taken on the device."""
        return []

    def train(self, batches, state):
        """Train for the epochs that are left; a keyboard interrupt is passed on.

        Parameters
        ----------
        batches : object
        state : dict or None

        Returns
        -------
        state : dict
        """
        self.initialize()
        if state is not None:
            self.resume(state)
        self.notify("on_train_begin", X=batches, y=None)
        try:
            while len(self.history) < self.max_epochs:
                self.run_epoch(batches)
        finally:
            self.notify("on_train_end", X=batches, y=None)
        return self.snapshot()

    def resume(self, state):
        """Take over weights, the optimiser's memory, and the history.

        Parameters
        ----------
        state : dict
        """
        self.module_.load_state_dict(state["task"])
        # Else the caller's own tensors would be trained on.
        self.optimizer_.load_state_dict(copy.deepcopy(state["optimizer"]))
        for group in self.optimizer_.param_groups:
            group["lr"] = self.lr
        for epoch in state["history"]:
            self.history.new_epoch()
            self.history.record("epoch", len(self.history))
            for name, value in epoch.items():
                self.history.record(name, value)

    def snapshot(self):
        """Return the state that :meth:`resume` takes, on the CPU.

        Returns
        -------
        state : dict
        """
        history = [
            {k: float(v) for k, v in epoch.items() if k not in ("epoch", "batches")}
            for epoch in self.history
        ]
        return {
            "task": _on_cpu(self.module_.state_dict()),
            "optimizer": _on_cpu(self.optimizer_.state_dict()),
            "history": history,
        }

    def run_epoch(self, batches):
        """Train on the batches of the next epoch.

        Parameters
        ----------
        batches : object
        """
        number, settings = len(self.history), self.settings
        seed = np.random.default_rng([settings.seed, number]).integers(2**31).item()
        generator = torch.Generator(settings.device).manual_seed(seed)
        self.module_.train()
        self.notify("on_epoch_begin", dataset_train=batches, dataset_valid=None)
        meter = _Meter(batches.epoch(number))
        group = []
        with seeded(seed, settings.device), meter:
            for batch in meter:
                group.append(batch)
                if len(group) == settings.accumulate:
                    meter.add(self.optimise(group, generator))
                    group = []
            if group:
                meter.add(self.optimise(group, generator))
        for name, value in meter.means().items():
            self.history.record(name, value)
        if not np.isfinite(self.history[-1]["loss"]):
            raise FloatingPointError(
                f"The training diverged: the loss of epoch {number + 1} is "
                f"{self.history[-1]['loss']}. Lower lr (now {self.lr:g})."
            )
        self.notify("on_epoch_end", dataset_train=batches, dataset_valid=None)

    def optimise(self, group, generator):
        """Do one step of the optimiser on the mean loss of some batches.

        Parameters
        ----------
        group : list of batch
        generator : torch.Generator

        Returns
        -------
        figures : dict of str to tensor
        """
        total = {}
        self.optimizer_.zero_grad()
        for batch in group:
            self.notify("on_batch_begin", batch=batch, training=True)
            with self.precision():
                figures = self.module_(batch, generator)
            (figures["loss"] / len(group)).backward()
            for name, value in figures.items():
                total[name] = total.get(name, 0) + value.detach().float() / len(group)
        self.optimizer_.step()
        self.module_.after_step()
        self.notify("on_batch_end", batch=group, training=True, figures=total)
        return total

    def precision(self):
        """Return the context of a forward pass."""
        dtype = AUTOCAST[self.settings.dtype]
        if dtype is None or self.settings.device.type != "cuda":
            return nullcontext()
        return torch.autocast("cuda", dtype=dtype)


def _on_cpu(value, copies=None):
    """Copy a state to the CPU, whatever it is made of.

    What layers share, and a state dict names for each, is copied once.
    """
    copies = {} if copies is None else copies
    if isinstance(value, torch.Tensor):
        key = value.data_ptr(), value.dtype, value.shape, value.stride()
        if key not in copies:
            copies[key] = value.detach().to("cpu", copy=True)
        return copies[key]
    if isinstance(value, dict):
        return {key: _on_cpu(item, copies) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_on_cpu(item, copies) for item in value]
    return value


class _Meter(ExitStack):
    """Hands batches on, times the waits for them, and averages figures."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches
        self.callback(batches.close)
        self.totals, self.n_steps = {}, 0
        self.waited, self.started = 0.0, time.perf_counter()

    def __iter__(self):
        while True:
            before = time.perf_counter()
            batch = next(self.batches, None)
            self.waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    def add(self, figures):
        self.n_steps += 1
        for name, value in figures.items():
            self.totals[name] = self.totals.get(name, 0) + value

    def means(self):
        if not self.n_steps:
            raise ValueError("There was no batch to train on: no clip can be used.")
        means = {name: float(v) / self.n_steps for name, v in self.totals.items()}
        seconds = time.perf_counter() - self.started
        return {**means, "seconds": seconds, "waiting": self.waited / seconds}


class Checkpoints(Callback):
    """Saves the state of the training after each epoch."""

    def on_epoch_end(self, net, **kwargs):
        """Save it, in place of the previous one."""
        settings = net.settings
        content = {**net.snapshot(), "settings": settings.fingerprint}
        save_checkpoint(settings.checkpoint_dir, content)


class BatchBar(Callback):
    """A progress bar over the steps, with the latest figures."""

    def on_train_begin(self, net, X=None, **kwargs):
        """Open the bar, at the step that is next."""
        total = -(-len(X) // net.settings.accumulate)
        self.bar_ = tqdm(
            total=total * net.max_epochs,
            initial=total * len(net.history),
            desc=net.module_.name,
            unit="step",
        )
        self.shown_ = 0.0

    def on_batch_end(self, net, figures=None, **kwargs):
        """Advance the bar; read the figures twice a second, as that waits for CUDA."""
        if time.monotonic() - self.shown_ > 0.5:
            self.shown_ = time.monotonic()
            shown = {name: f"{float(value):.4g}" for name, value in figures.items()}
            epoch = f"{len(net.history)}/{net.max_epochs}"
            self.bar_.set_postfix({"epoch": epoch, **shown}, refresh=False)
        self.bar_.update()

    def on_train_end(self, net, **kwargs):
        """Close the bar."""
        self.bar_.close()
