"""A probe to be trained in a stack: its rows, its start, its checks and its end."""

import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from skaudioemb.probes.stacked import Shape
from skaudioemb.probes.training import StopTraining, TensorBatches, seeded

# The first weights come from torch's global generator.
_starting = threading.Lock()


@dataclass(eq=False)
class TrainingRows:
    """Rows to train on, shared by the members that have the same ones.

    Parameters
    ----------
    X : Tensor of shape (n_rows, n_features)
        On the device of the training, or in host memory if it is too large.
    index : Tensor of shape (n_samples,), int64
        The rows of X to train on, in the order of the batches.
    codes : Tensor of shape (n_samples,) or (n_samples, n_outputs)
        What the loss compares the outputs with.
    """

    X: torch.Tensor
    index: torch.Tensor
    codes: torch.Tensor


@dataclass(eq=False)
class ValidationRows:
    """Rows to validate on, shared by the members that have the same ones.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features)
    codes : Tensor of shape (n_samples,) or (n_samples, n_outputs)
    source : Rows
        The same rows as a scorer wants them.
    """

    X: torch.Tensor
    codes: torch.Tensor
    source: Any


@dataclass(eq=False)
class Training:
    """One probe to be trained on one fold, and afterwards what came of it.

    Parameters
    ----------
    probe : MLPProbe
        With the number of features and the labels of its fold.
    rows : TrainingRows
    valid : ValidationRows or None
    seed, batch_seed : int
        As ``MLPProbe.fit`` draws them.
    device : torch.device

    Attributes
    ----------
    net : ProbeNet or None
        The trained net; None if the probe could not be trained in a stack.
    monitor : BestWeights
    error : Exception or None
        What a scorer raised.
    seconds : float
        This member's part of the time that its stacks took.
    """

    probe: Any
    rows: TrainingRows
    valid: ValidationRows | None
    seed: int
    batch_seed: int
    device: torch.device
    net: Any = None
    monitor: Any = None
    error: Exception | None = None
    seconds: float = 0.0
    history: list = field(default_factory=list)

    @property
    def shape(self):
        """The shape of the network."""
        probe = self.probe
        return Shape(
            probe.n_features_in_,
            probe._targets.n_outputs,
            probe.hidden_layers,
            probe.hidden_units if probe.hidden_layers else 0,
            probe._targets.multilabel,
        )

    @property
    def stack_key(self):
        """What members of one stack have in common."""
        n_rows, batch_size = len(self.rows.index), self.probe.batch_size
        return self.shape, str(self.device), n_rows, min(batch_size, n_rows)

    @property
    def feed_key(self):
        """What members have in common that see the same batches."""
        return id(self.rows), self.batch_seed if self.probe.shuffle else None

    def start(self):
        """Make the net, with its first weights; return these."""
        self.monitor = self.probe._make_monitor()
        self.monitor.on_train_begin(None)
        self.history = []
        net = self.probe._make_net(None, self.monitor, self.batch_seed, self.device)
        with _starting, seeded(self.seed, self.device):
            self.net = net.initialize()
        return net.module_.state_dict()

    def is_due(self, epoch):
        """Tell whether the validation rows are scored after this epoch."""
        return self.valid is not None and epoch % self.probe.check_every == 0

    def check(self, state_dict):
        """Compare the last epoch with the best; return whether to go on."""
        module = SimpleNamespace(state_dict=state_dict)
        view = SimpleNamespace(history=self.history, module_=module)
        try:
            self.monitor.on_epoch_end(view)
        except StopTraining:
            return False
        return len(self.history) < self.probe.max_epochs

    def finish(self, state):
        """Give the best weights to the net, or the last ones if none were checked."""
        best = self.monitor.weights_
        self.net.module_.load_state_dict(state if best is None else best)
        self.monitor.weights_ = None
        for epoch in self.history:
            self.net.history.new_epoch()
            self.net.history.record("epoch", len(self.net.history))
            for name, value in epoch.items():
                self.net.history.record(name, value)

    def give_up(self, error):
        """Leave the probe to an ordinary fit, which will meet the same exception."""
        self.net = self.monitor = None
        self.error = error

    def keep(self):
        """Return the fitted probe."""
        self.probe._keep(self.net, self.monitor)
        return self.probe


class Feed:
    """The batches that some members share.

    Parameters
    ----------
    member : Training
        One of them.
    """

    def __init__(self, member):
        probe, self.rows, self.device = member.probe, member.rows, member.device
        self.multilabel = member.shape.multilabel
        self.plan = TensorBatches(
            SimpleNamespace(X=self.rows.index, y=self.rows.codes),
            probe.batch_size,
            seed=member.batch_seed if probe.shuffle else None,
            merge_single=probe.hidden_layers > 0,
        )
        self.only_batch = None

    def batches(self):
        """Yield the batches of an epoch: rows, and targets as the network has them."""
        if self.only_batch is not None:
            yield self.only_batch
            return
        for index, codes in self.plan:
            batch = self.rows.X[index].to(self.device), self._targets(codes)
            if len(self.plan) == 1:
                self.only_batch = batch
            yield batch

    def _targets(self, codes):
        codes = codes.to(self.device)
        return codes.T.contiguous() if self.multilabel else codes
