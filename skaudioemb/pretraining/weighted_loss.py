"""Cross-entropy of many classifiers on the same frames, in little memory.

Eight heads of 1024 classes give 32 kB a frame: more than all else that a small model
holds of it. So a head's scores are made, used for the loss and its gradient, and
forgotten before the next head's.
"""

import torch
from torch.nn import functional as F


class _WeightedCrossEntropy(torch.autograd.Function):
    """The weights are known beforehand, and with them the gradient of the sum."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, codes, weights):
        n_streams = codes.shape[1]
        losses = torch.empty_like(weights)
        gradients = [torch.zeros_like(p) for p in (hidden, weight, bias)]
        of_weight, of_bias = (g.unflatten(0, (n_streams, -1)) for g in gradients[1:])
        matrices, offsets = (p.unflatten(0, (n_streams, -1)) for p in (weight, bias))
        for k in range(n_streams):
            scores = F.linear(hidden, matrices[k], offsets[k]).to(losses.dtype)
            code = codes[:, k : k + 1]
            norms = scores.logsumexp(1, keepdim=True)
            losses[:, k] = (norms - scores.gather(1, code))[:, 0]
            # Of a frame's loss by its scores: the posteriors less the right class.
            slope = scores.sub_(norms).exp_()
            slope.scatter_add_(1, code, torch.full_like(norms, -1.0))
            slope *= weights[:, k : k + 1]
            gradients[0] += slope @ matrices[k]
            of_weight[k] = slope.T @ hidden
            of_bias[k] = slope.sum(0)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(losses)
        return (losses * weights).sum(), losses

    @staticmethod
    def backward(ctx, slope, _):
        return (*(slope * gradient for gradient in ctx.saved_tensors), None, None)


def weighted_cross_entropy(hidden, weight, bias, codes, weights):
    """Return the weighted sum of cross-entropies, and these.

    Parameters
    ----------
    hidden : tensor of shape (n_frames, n_features)
    weight : tensor of shape (n_streams * n_classes, n_features)
        Of a linear layer that scores the classes of one stream after the other's.
    bias : tensor of shape (n_streams * n_classes,)
    codes : tensor of shape (n_frames, n_streams), int64
        The right class of each frame in each stream.
    weights : tensor of shape (n_frames, n_streams)
        What each frame's loss counts; no gradient flows through it.

    Returns
    -------
    total : tensor of shape ()
    losses : tensor of shape (n_frames, n_streams)
        Unweighted, and without a gradient.

    Examples
    --------
    >>> import torch
    >>> from skaudioemb.pretraining.weighted_loss import weighted_cross_entropy
    >>> codes, weights = torch.zeros(4, 2, dtype=torch.int64), torch.ones(4, 2)
    >>> parameters = torch.zeros(10, 3), torch.zeros(10)
    >>> total, losses = weighted_cross_entropy(
    ...     torch.ones(4, 3), *parameters, codes, weights
    ... )
    >>> total, losses.shape
    (tensor(12.8755), torch.Size([4, 2]))
    """
    return _WeightedCrossEntropy.apply(hidden, weight, bias, codes, weights)
