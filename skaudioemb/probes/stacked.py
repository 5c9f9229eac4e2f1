"""Several probe networks of one shape, trained as one network with stacked weights.

Activations stand with the rows last, [K, units, rows] for K members: a product of the
whole stack is then one batched product, and batch normalisation, whose statistics run
over the rows of each unit, is layer normalisation over the last dimension.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

import numpy as np
import torch
from torch.optim.adam import adam

from skaudioemb.probes.products import product

_BETAS, _ADAM_EPS = (0.9, 0.999), 1e-8
_NORM_EPS, _NORM_MOMENTUM = 1e-5, 0.1
_LEVELS = 2**8  # of the random numbers that dropout compares
# Values of a member's tensor from which the passes over it take most of the time.
_LARGE = 2**15


@dataclass(frozen=True)
class Shape:
    """What the members of a stack have in common.

    Parameters
    ----------
    n_features, n_outputs, hidden_layers, hidden_units : int
        As :class:`ProbeNetwork` takes them.
    multilabel : bool
        Whether the loss is the binary cross-entropy of each output, instead of the
        cross-entropy of them all.
    """

    n_features: int
    n_outputs: int
    hidden_layers: int
    hidden_units: int
    multilabel: bool

    @property
    def n_weights(self):
        """Weights of one member."""
        widths = [self.n_features, *[self.hidden_units] * self.hidden_layers]
        inner = sum(a * b for a, b in pairwise(widths))
        return inner + widths[-1] * self.n_outputs


class StackedNetwork:
    """K multilayer perceptrons of one shape, and Adam's state of each.

    Gradients are written out by hand: with weights that no tape has to watch, a step
    is some twenty operations for the whole stack, whatever K is. Biases in front of a
    batch normalisation keep their first values, since the loss does not depend on
    them.

    Parameters
    ----------
    states : list of dict of str to Tensor
        State dicts of K :class:`ProbeNetwork` of this shape.
    shape : Shape
    lrs, dropouts : list of float
        Learning rate and dropout probability of each member.
    seeds : list of int
        Seed of each member's dropout.
    device : torch.device

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015,
    algorithm 1. S. Ioffe and C. Szegedy, "Batch Normalization", ICML 2015,
    algorithm 1.
    """

    def __init__(self, states, shape, lrs, dropouts, seeds, device):
        self.shape = shape
        self.device = device
        self.n_steps = 0
        stacked = {
            name: torch.stack([state[name] for state in states]).to(device)
            for name in states[0]
        }
        self._take_state(stacked)
        self.first_moments = [torch.zeros_like(p) for p in self._parameters()]
        self.second_moments = [torch.zeros_like(p) for p in self._parameters()]
        self.lrs = torch.tensor(lrs, dtype=torch.float32, device=device).view(-1, 1, 1)
        self.dropout = _Dropout(dropouts, seeds, device)

    def __len__(self):
        return len(self.lrs)

    def _take_state(self, state):
        layers = range(self.shape.hidden_layers)
        linear = [f"hidden.{4 * i}" for i in layers] + ["projection"]
        norms = [f"hidden.{4 * i + 1}" for i in layers]
        self.weights = [state[f"{name}.weight"] for name in linear]
        self.biases = [state[f"{name}.bias"].unsqueeze(-1) for name in linear]
        self.gammas = [state[f"{name}.weight"].unsqueeze(-1) for name in norms]
        self.betas = [state[f"{name}.bias"].unsqueeze(-1) for name in norms]
        self.means = [state[f"{name}.running_mean"].unsqueeze(-1) for name in norms]
        self.variances = [state[f"{name}.running_var"].unsqueeze(-1) for name in norms]

    def _parameters(self):
        """Return what Adam changes, in the order of the gradients."""
        return [*self.weights, *self.gammas, *self.betas, self.biases[-1]]

    def state_of(self, member):
        """Return the weights of a member as ProbeNetwork names them; these are views.

        Parameters
        ----------
        member : int

        Returns
        -------
        state : dict of str to Tensor
        """
        state = {}
        for i in range(self.shape.hidden_layers):
            state[f"hidden.{4 * i}.weight"] = self.weights[i][member]
            state[f"hidden.{4 * i}.bias"] = self.biases[i][member, :, 0]
            norm = f"hidden.{4 * i + 1}"
            state[f"{norm}.weight"] = self.gammas[i][member, :, 0]
            state[f"{norm}.bias"] = self.betas[i][member, :, 0]
            state[f"{norm}.running_mean"] = self.means[i][member, :, 0]
            state[f"{norm}.running_var"] = self.variances[i][member, :, 0]
            state[f"{norm}.num_batches_tracked"] = torch.tensor(self.n_steps)
        state["projection.weight"] = self.weights[-1][member]
        state["projection.bias"] = self.biases[-1][member, :, 0]
        return state

    def keep(self, members):
        """Drop all but the given members.

        Parameters
        ----------
        members : list of int
        """
        for tensors in (
            *(self.weights, self.biases, self.gammas, self.betas),
            *(self.means, self.variances, self.first_moments, self.second_moments),
        ):
            tensors[:] = [tensor[members] for tensor in tensors]
        self.lrs = self.lrs[members]
        self.dropout.keep(members)

    def logits(self, X, members=slice(None)):
        """Return the logits of rows as they are predicted.

        Parameters
        ----------
        X : Tensor of shape (n_samples, n_features)
        members : slice or list of int, default=slice(None)
            Which members to ask.

        Returns
        -------
        logits : Tensor of shape (n_members, n_outputs, n_samples)
        """
        values = X.T
        for i in range(self.shape.hidden_layers):
            deviation = (self.variances[i][members] + _NORM_EPS).sqrt_()
            scale = self.gammas[i][members] / deviation
            shift = self.betas[i][members] - scale * (
                self.means[i][members] - self.biases[i][members]
            )
            values = product(self.weights[i][members], values)
            values = values.mul_(scale).add_(shift).relu_()
        return product(self.weights[-1][members], values).add_(self.biases[-1][members])

    def step(self, X, targets):
        """Train on one batch.

        Parameters
        ----------
        X : Tensor of shape (n_samples, n_features) or (K, n_samples, n_features)
            The rows of all members, or of each.
        targets : Tensor of shape ([K,] n_samples) or ([K,] n_outputs, n_samples)
            Class codes, or zeros and ones.

        Returns
        -------
        losses : Tensor of shape (K,)
        """
        inputs, saved = X.mT, []
        for i in range(self.shape.hidden_layers):
            saved.append((inputs, *self._hidden(i, inputs)))
            inputs = saved[-1][-1]
        logits = product(self.weights[-1], inputs).add_(self.biases[-1])
        loss = multilabel_loss if self.shape.multilabel else multiclass_loss
        losses, gradient = loss(logits, targets)
        self._descend(self._gradients(gradient, inputs, saved))
        return losses

    def _hidden(self, i, inputs):
        """Return what a hidden block computes; the last item is its output."""
        values = product(self.weights[i], inputs)
        n_rows = values.shape[-1]
        normed, mean, rstd = torch.native_layer_norm(
            values, [n_rows], None, None, _NORM_EPS
        )
        variance = (rstd.double() ** -2 - _NORM_EPS).clamp_min_(0)
        variance *= n_rows / max(n_rows - 1, 1)
        self.means[i].lerp_(mean + self.biases[i], _NORM_MOMENTUM)
        self.variances[i].lerp_(variance.float(), _NORM_MOMENTUM)
        # Scaling before ReLU is scaling after it, and costs nothing here.
        scale = self.gammas[i] * self.dropout.scale
        output = normed.mul(scale).add_(self.betas[i] * self.dropout.scale).relu_()
        return values, normed, mean, rstd, scale, self.dropout.apply_(output)

    def _gradients(self, gradient, inputs, saved):
        """Return the gradients of the parameters from that of the logits."""
        last_bias = gradient.sum(-1, keepdim=True)
        weights, gammas, betas = [product(gradient, inputs.mT)], [], []
        for i in reversed(range(self.shape.hidden_layers)):
            gradient = product(self.weights[i + 1].mT, gradient)
            inputs, values, normed, mean, rstd, scale, output = saved[i]
            # What dropout has set to zero is zero in the output too.
            gradient = torch.ops.aten.threshold_backward(gradient, output, 0)
            betas.append(gradient.sum(-1, keepdim=True).mul_(self.dropout.scale))
            moments = (gradient * normed).sum(-1, keepdim=True)
            gammas.append(moments.mul_(self.dropout.scale))
            gradient, _, _ = torch.ops.aten.native_layer_norm_backward(
                gradient.mul_(scale),
                *(values, [values.shape[-1]], mean, rstd, None, None),
                [True, False, False],
            )
            weights.append(product(gradient, inputs.mT))
        return [*weights[::-1], *gammas[::-1], *betas[::-1], last_bias]

    def _descend(self, gradients):
        """Take one step of Adam, each member with its own learning rate."""
        self.n_steps += 1
        each = (self._parameters(), gradients, self.first_moments, self.second_moments)
        large = []
        for tensors in zip(*each, strict=True):
            if self.device.type == "cpu" and tensors[0][0].numel() >= _LARGE:
                large.append(tensors)
            else:
                self._descend_together(*tensors)
        if large:
            for i, lr in enumerate(self.lrs.flatten().tolist()):
                self._descend_alone([[t[i] for t in part] for part in large], lr)

    def _descend_together(self, parameter, gradient, mean, square):
        first, second = _BETAS
        correction = sqrt(1 - second**self.n_steps)
        rates = self.lrs * (correction / (1 - first**self.n_steps))
        mean.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        # The gradient is not needed any more; its memory is.
        change = torch.sqrt(square, out=gradient).add_(_ADAM_EPS * correction)
        torch.div(mean, change, out=change)
        parameter.sub_(change.mul_(rates))

    def _descend_alone(self, tensors, lr):
        """Do the same for one member in a single pass over its large tensors."""
        parameters, gradients, means, squares = map(list, zip(*tensors, strict=True))
        steps = [torch.tensor(self.n_steps - 1.0) for _ in parameters]
        adam(
            *(parameters, gradients, means, squares, [], steps),
            fused=True,
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=lr,
            weight_decay=0.0,
            eps=_ADAM_EPS,
            maximize=False,
        )


class _Dropout:
    """Dropout with a probability for each member and a generator for each seed.

    Values are kept by comparing random bytes with a level. It is drawn anew each time,
    from the two whole numbers around 256 times the probability, so that on average
    this is met.
    """

    def __init__(self, probabilities, seeds, device):
        self.device = device
        self.members = list(zip(probabilities, seeds, strict=True))
        scales = [1 / (1 - p) for p in probabilities]
        scales = torch.tensor(scales, dtype=torch.float32, device=device)
        self.scale = scales.view(-1, 1, 1)
        # On a CPU, numpy's generator is several times as fast as torch's.
        self.generators = {s: np.random.Generator(np.random.SFC64(s)) for s in seeds}
        self.on_device = {}
        if device.type != "cpu":
            make = torch.Generator
            self.on_device = {s: make(device).manual_seed(s) for s in seeds}

    def keep(self, members):
        self.scale = self.scale[members]
        self.members = [self.members[i] for i in members]

    def apply_(self, values):
        """Set values of [K, units, rows] to zero in place; the scale is not applied."""
        if not any(probability for probability, _ in self.members):
            return values
        seeds = dict.fromkeys(seed for _, seed in self.members)
        offsets = {seed: self.generators[seed].random() for seed in seeds}
        bytes_ = {seed: self._random_bytes(seed, values[0]) for seed in seeds}
        lowest = [
            min(int(_LEVELS * probability + offsets[seed]), _LEVELS - 1) - _LEVELS // 2
            for probability, seed in self.members
        ]
        kept = torch.empty_like(values)
        if self.device.type != "cpu" and len(seeds) == 1:
            levels = torch.tensor(lowest, dtype=torch.int8, device=self.device)
            torch.ge(*bytes_.values(), levels.view(-1, 1, 1), out=kept)
            return values.mul_(kept)
        for (_, seed), level, member in zip(self.members, lowest, kept, strict=True):
            torch.ge(bytes_[seed], level, out=member)
        return values.mul_(kept)

    def _random_bytes(self, seed, like):
        """Return a random int8 for each element of a tensor."""
        n_words = -(-like.numel() // 8)
        if self.device.type == "cpu":
            words = self.generators[seed].integers(0, 2**64, n_words, np.uint64)
            words = torch.from_numpy(words.view(np.int64))
        else:
            words = torch.empty(n_words, dtype=torch.int64, device=self.device)
            words.random_(-(2**63), None, generator=self.on_device[seed])
        return words.view(torch.int8)[: like.numel()].view(like.shape)


def multiclass_loss(logits, codes):
    """Return cross-entropies and their gradients.

    Parameters
    ----------
    logits : Tensor of shape (K, n_classes, n_samples)
    codes : Tensor of shape (n_samples,) or (K, n_samples), int64

    Returns
    -------
    losses : Tensor of shape (K,)
        Means over the rows.
    gradients : Tensor of shape (K, n_classes, n_samples)
    """
    log_probabilities = torch.log_softmax(logits, dim=1)
    index = codes.expand(len(logits), -1).unsqueeze(1)
    losses = -log_probabilities.gather(1, index).mean(dim=(1, 2))
    gradients = log_probabilities.exp_()
    gradients.scatter_add_(1, index, torch.full_like(index, -1, dtype=torch.float32))
    return losses, gradients.div_(logits.shape[-1])


def multilabel_loss(logits, targets):
    """Return binary cross-entropies and their gradients.

    Parameters
    ----------
    logits : Tensor of shape (K, n_labels, n_samples)
    targets : Tensor of shape ([K,] n_labels, n_samples), float32
        Zeros and ones.

    Returns
    -------
    losses : Tensor of shape (K,)
        Means over rows and labels.
    gradients : Tensor of shape (K, n_labels, n_samples)
    """
    losses = torch.nn.functional.softplus(logits) - logits * targets
    gradients = torch.sigmoid(logits).sub_(targets)
    return losses.mean(dim=(1, 2)), gradients.div_(logits[0].numel())
