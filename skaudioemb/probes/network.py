"""The classification network of the HEAR benchmark, and one that weighs layers."""

from math import sqrt

import torch
from torch import nn
from torch.nn import functional

INITS = {
    "xavier_normal": nn.init.xavier_normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
}
_RELU_GAIN = sqrt(2.0)


class ProbeNetwork(nn.Module):
    """A multilayer perceptron as the HEAR benchmark trains it.

    ``hidden_layers`` blocks of linear layer, batch normalisation, dropout and ReLU, in
    this order, and a linear layer that gives the logits. Without hidden layers it is
    that one linear layer, a logistic regression.

    Parameters
    ----------
    n_features : int
        Number of values per row.
    n_outputs : int
        Number of logits per row.
    hidden_layers : int, default=1
        Number of hidden blocks.
    hidden_units : int, default=1024
        Width of each hidden block.
    dropout : float, default=0.1
        Probability that a hidden value is set to zero in training.
    init : {"xavier_uniform", "xavier_normal"}, default="xavier_uniform"
        Distribution of the first weights. The gain is 1 for the layer that sees the
        features and sqrt(2) for every later one, the output layer included. Biases
        start as PyTorch's default has them.

    References
    ----------
    .. [1] J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations",
       Proceedings of Machine Learning Research 176 (NeurIPS 2021), 2022.

    Examples
    --------
    >>> import torch
    >>> from skaudioemb.probes.network import ProbeNetwork
    >>> ProbeNetwork(256, 10, hidden_units=64)(torch.zeros(3, 256)).shape
    torch.Size([3, 10])
    """

    def __init__(
        self,
        n_features,
        n_outputs,
        hidden_layers=1,
        hidden_units=1024,
        dropout=0.1,
        init="xavier_uniform",
    ):
        super().__init__()
        blocks, width, gain = [], n_features, 1.0
        for _ in range(hidden_layers):
            blocks += [
                _linear(width, hidden_units, init, gain),
                nn.BatchNorm1d(hidden_units),
                nn.Dropout(dropout),
                nn.ReLU(),
            ]
            width, gain = hidden_units, _RELU_GAIN
        self.hidden = nn.Sequential(*blocks)
        self.projection = _linear(width, n_outputs, init, gain)

    def forward(self, X):
        """Return the logits, [B, n_outputs], of the rows X, [B, n_features]."""
        return self.projection(self.hidden(X))


class LayerWeightedNetwork(ProbeNetwork):
    """A probe network on the weighted sum of layers, with weights that it learns.

    The weights are the softmax of ``layer_logits``, one for each layer, which start at
    zero: first the sum is the mean of the layers [1]_.

    Parameters
    ----------
    n_features : int
        Number of values per row, those of all segments and layers.
    n_outputs : int
        Number of logits per row.
    n_layers : int
        Number of layers.
    segments : int, default=1
        Number of groups of layers in a row; the layers of each get the same weights.
    layer_norm : bool, default=False
        Give each layer of each row zero mean and unit variance before the sum.
    **params
        The other parameters of :class:`ProbeNetwork`.

    References
    ----------
    .. [1] S.-w. Yang et al., "SUPERB: Speech Processing Universal PERformance
       Benchmark", Interspeech 2021, section 3.2.

    Examples
    --------
    >>> import torch
    >>> from skaudioemb.probes.network import LayerWeightedNetwork
    >>> network = LayerWeightedNetwork(13 * 256, 10, n_layers=13, hidden_units=64)
    >>> network(torch.zeros(3, 13 * 256)).shape
    torch.Size([3, 10])
    """

    def __init__(
        self, n_features, n_outputs, n_layers, segments=1, layer_norm=False, **params
    ):
        super().__init__(n_features // n_layers, n_outputs, **params)
        self.shape = (segments, n_layers, n_features // (segments * n_layers))
        self.layer_norm = layer_norm
        self.layer_logits = nn.Parameter(torch.zeros(n_layers))

    @property
    def layer_weights(self):
        """The weights of the layers, [n_layers]; their sum is 1."""
        return self.layer_logits.softmax(0)

    def forward(self, X):
        """Return the logits, [B, n_outputs], of the rows X, [B, n_features].

        The values of a row go segment by segment, and in each layer by layer.
        """
        layers = X.unflatten(1, self.shape)
        if self.layer_norm:
            layers = functional.layer_norm(layers, self.shape[-1:])
        return super().forward((self.layer_weights @ layers).flatten(1))


def _linear(n_inputs, n_outputs, init, gain):
    layer = nn.Linear(n_inputs, n_outputs)
    INITS[init](layer.weight, gain=gain)
    return layer
