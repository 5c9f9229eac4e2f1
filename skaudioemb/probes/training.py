"""What skorch needs to train a probe quickly and to stop it as HEAR does."""

from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EpochScoring, PassthroughScoring
from tqdm import tqdm

# Products of one forward pass that a single core does in about half a millisecond.
_TINY_STEP = 10_000_000


class StopTraining(Exception):
    """Raised by a callback when further epochs would not help."""


class TensorBatches:
    """An iterator over a dataset that slices its tensors instead of collating rows.

    Parameters
    ----------
    dataset : skorch.dataset.Dataset
        Its X, and its y if it has one, are indexed as a whole.
    batch_size : int
        Rows per batch.
    seed : int or None, default=None
        Seed of the order of the rows, new in every epoch; None keeps them in place.
    merge_single : bool, default=False
        Give a last batch of one row to the batch before it: batch normalisation
        cannot train on one row.
    """

    def __init__(self, dataset, batch_size, seed=None, merge_single=False):
        self.X = torch.as_tensor(dataset.X)
        self.y = None if dataset.y is None else torch.as_tensor(dataset.y)
        self.starts = list(range(0, len(self.X), batch_size))
        if merge_single and len(self.starts) > 1 and len(self.X) % batch_size == 1:
            self.starts.pop()
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __len__(self):
        return len(self.starts)

    def __iter__(self):
        ends = [*self.starts[1:], len(self.X)]
        # The order within the only batch of an epoch does not matter.
        if self.generator is None or len(self.starts) == 1:
            rows = [slice(*bounds) for bounds in zip(self.starts, ends, strict=True)]
        else:
            order = torch.randperm(len(self.X), generator=self.generator)
            order = order.to(self.X.device)
            rows = [order[a:b] for a, b in zip(self.starts, ends, strict=True)]
        for chosen in rows:
            # skorch unpacks pairs, so that missing targets need a stand-in.
            yield self.X[chosen], 0 if self.y is None else self.y[chosen]


class ProbeNet(NeuralNet):
    """A skorch net that validates every ``check_every`` epochs.

    Parameters
    ----------
    *args, **kwargs
        As :class:`skorch.NeuralNet` takes them.
    check_every : int, default=1
        Epochs from one pass over the validation data to the next.
    """

    def __init__(self, *args, check_every=1, **kwargs):
        super().__init__(*args, **kwargs)
        self.check_every = check_every

    def get_default_callbacks(self):
        """Return the callbacks that average the losses of an epoch; print nothing."""
        return [
            ("train_loss", PassthroughScoring("train_loss", on_train=True)),
            ("valid_loss", PassthroughScoring("valid_loss")),
        ]

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run an epoch as skorch does, but skip validation between two checks."""
        if training or len(self.history) % self.check_every == 0:
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)

    def train(self, dataset):
        """Train new weights; unlike in ``fit``, a keyboard interrupt is passed on.

        Parameters
        ----------
        dataset : skorch.dataset.Dataset

        Returns
        -------
        self : ProbeNet
        """
        self.initialize()
        n_weights = sum(value.numel() for value in self.module_.parameters())
        self.notify("on_train_begin", X=dataset, y=None)
        try:
            with threads_for(n_weights * min(len(dataset), self.batch_size)):
                self.fit_loop(dataset)
        except StopTraining:
            pass
        finally:
            self.notify("on_train_end", X=dataset, y=None)
        return self

    def move_to(self, device):
        """Move the trained module to ``device`` and go on there.

        Parameters
        ----------
        device : torch.device

        Returns
        -------
        self : ProbeNet
        """
        self.device = str(device)
        self.module_.to(device)
        return self


class CheckScoring(EpochScoring):
    """skorch's scoring from cached outputs, in epochs that validated."""

    def on_epoch_end(self, net, *args, **kwargs):
        """Score the outputs of this epoch's validation batches, if there are any."""
        if self.y_preds_:
            super().on_epoch_end(net, *args, **kwargs)


class BestWeights(Callback):
    """Keeps the weights of the best check and stops after ``patience`` misses.

    Only a strict improvement of the monitored value counts, and NaN is worse than any
    number.

    Parameters
    ----------
    monitor : str
        Name of the value in the net's history.
    sign : {1, -1}
        -1 if lower values are better.
    patience : int
        Checks without improvement after which training stops.
    ties : {"loss", "first"}
        Which of the best checks with equal values is kept.
    nonfinite : {"continue", "stop"}
        Whether training goes on after a value that is NaN or infinite.

    Attributes
    ----------
    best_score_ : float or None
        ``sign`` times the best value; None before the first check.
    best_epoch_ : int or None
        Epochs trained when the kept weights were reached.
    misses_ : int
        Checks since the value last improved.
    """

    def __init__(self, monitor, sign, patience, ties, nonfinite):
        self.monitor = monitor
        self.sign = sign
        self.patience = patience
        self.ties = ties
        self.nonfinite = nonfinite

    def on_train_begin(self, net, **kwargs):
        """Forget the previous training."""
        self.best_score_, self.best_epoch_, self.misses_ = None, None, 0
        self.weights_, self.loss_ = None, None

    def on_epoch_end(self, net, **kwargs):
        """Compare this epoch's value, if it has one, with the best so far."""
        check = net.history[-1]
        if self.monitor not in check:
            return
        value, loss = float(check[self.monitor]), check["valid_loss"]
        score = -np.inf if np.isnan(value) else self.sign * value
        improved = self.best_score_ is None or score > self.best_score_
        self.misses_ = 0 if improved else self.misses_ + 1
        tied = self.ties == "loss" and score == self.best_score_
        if improved or (tied and loss < self.loss_):
            self.best_score_, self.best_epoch_ = score, len(net.history)
            state = net.module_.state_dict()
            self.weights_ = {name: value.clone() for name, value in state.items()}
            self.loss_ = loss
        ended = self.nonfinite == "stop" and not np.isfinite(value)
        if ended or self.misses_ >= self.patience:
            raise StopTraining

    def on_train_end(self, net, **kwargs):
        """Put the best weights back."""
        if self.weights_ is not None and self.best_epoch_ != len(net.history):
            net.module_.load_state_dict(self.weights_)


class EpochBar(Callback):
    """A progress bar over epochs with the latest losses and score."""

    def on_train_begin(self, net, **kwargs):
        """Open the bar."""
        self.shown_ = {}
        self.bar_ = tqdm(total=net.max_epochs, desc="MLPProbe", unit="epoch")

    def on_epoch_end(self, net, **kwargs):
        """Advance the bar."""
        names = ("train_loss", "valid_loss", "score")
        epoch = net.history[-1]
        self.shown_ |= {name: f"{epoch[name]:.4g}" for name in names if name in epoch}
        self.bar_.set_postfix(self.shown_, refresh=False)
        self.bar_.update()

    def on_train_end(self, net, **kwargs):
        """Close the bar."""
        self.bar_.close()


@contextmanager
def threads_for(n_products):
    """Let tiny training steps run in one thread, where others would mostly wait.

    Parameters
    ----------
    n_products : int
        Multiplications of one forward pass.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if n_products < _TINY_STEP else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def seeded(seed, device):
    """Seed torch's generators of the CPU and of ``device``; put them back at the end.

    Parameters
    ----------
    seed : int
    device : torch.device
    """
    on_cuda = device.type == "cuda"
    # torch.manual_seed would seed the generators of every other device too.
    with (
        torch.cuda.device(device) if on_cuda else nullcontext(),
        torch.random.fork_rng([torch.cuda.current_device()] if on_cuda else []),
    ):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            torch.cuda.manual_seed(seed)
        yield
