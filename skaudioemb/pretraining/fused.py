"""Convolution, batch normalisation, ReLU and pooling in fewer passes over memory.

In the encoders of BYOL-A most time on a CPU goes not into products but into reading
and writing the maps between convolution and pooling. The blocks here give what the
separate layers give, up to rounding, in training mode:

- a maximum commutes with an increasing function, so that normalising and ReLU come
  after pooling, on a quarter of the values;
- where a convolution reads one channel, the mean and the variance of its output
  follow from those of its input's patches, so that the normalisation becomes a part
  of the convolution's own weights.
"""

import torch
import torch.nn.functional as F
from torch import nn

# The covariance of patches costs as much as a convolution to this many channels.
_MAX_PATCH = 32
# Clips at a time: their maps stay in the processor's cache.
_CHUNK = 4


def fuse(module):
    """Let every block of a network run fused in training; weights stay in place.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place: each ``nn.Sequential`` that holds a ``Conv2d``, a
        ``BatchNorm2d``, a ``ReLU`` and a 2 x 2 ``MaxPool2d`` in a row becomes a
        :class:`FusedSequential` of the same layers, with the same state dict.

    Returns
    -------
    module : torch.nn.Module

    Examples
    --------
    >>> from torch import nn
    >>> from skaudioemb.pretraining.fused import fuse
    >>> layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    >>> type(fuse(nn.ModuleDict({"features": nn.Sequential(*layers)}))["features"])
    <class 'skaudioemb.pretraining.fused.FusedSequential'>
    """
    for name, child in module.named_children():
        if type(child) is nn.Sequential and any(_blocks(list(child))):
            setattr(module, name, FusedSequential(*child))
        else:
            fuse(child)
    return module


class FusedSequential(nn.Sequential):
    """An ``nn.Sequential`` whose pooled convolutions run fused while training."""

    def forward(self, x):
        """Run the layers; as ``nn.Sequential`` does when not training.

        Parameters
        ----------
        x : tensor of shape (n_clips, n_channels, height, width)

        Returns
        -------
        y : tensor
        """
        layers = list(self)
        starts = _blocks(layers)
        position = 0
        while position < len(layers):
            if starts[position] and layers[position + 1].training:
                x = _pooled_block(x, layers[position], layers[position + 1])
                position += 4
            else:
                x = layers[position](x)
                position += 1
        return x


def _blocks(layers):
    """Tell for each layer whether a block that can be fused begins with it."""
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d)
    return [
        len(layers) >= start + 4
        and all(type(a) is b for a, b in zip(layers[start:], kinds, strict=False))
        and _is_plain(layers[start + 1], layers[start + 3])
        for start in range(len(layers))
    ]


def _is_plain(norm, pool):
    halves = pool.kernel_size in (2, (2, 2)) and pool.stride in (2, (2, 2))
    plain = pool.padding in (0, (0, 0)) and pool.dilation in (1, (1, 1))
    return halves and plain and not pool.ceil_mode and norm.affine


def _pooled_block(x, conv, norm):
    n_taps = conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1]
    if n_taps <= _MAX_PATCH and conv.groups == 1 and conv.padding_mode == "zeros":
        return _folded(x, conv, norm)
    y = conv(x)
    pooled, mean, variance = PooledNorm.apply(y, norm.weight, norm.bias, norm.eps)
    _track(norm, mean, variance, y.numel() // y.shape[1])
    return pooled


def _folded(x, conv, norm):
    """Normalise by the convolution's weights, from the statistics of its patches."""
    options = (conv.dilation, conv.padding, conv.stride)
    patches = F.unfold(x, conv.kernel_size, *options).transpose(0, 1).flatten(1)
    centre = patches.mean(1)
    patches = patches - centre[:, None]
    taps = conv.weight.flatten(1)
    covariance = patches @ patches.T / patches.shape[1]
    variance = ((taps @ covariance) * taps).sum(1)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    weight = conv.weight * scale[:, None, None, None]
    # The bias of the convolution moves its output and the output's mean alike.
    shift = norm.bias - (taps @ centre) * scale
    mean = taps.detach() @ centre.detach()
    mean = mean if conv.bias is None else mean + conv.bias.detach()
    _track(norm, mean, variance.detach(), patches.shape[1])
    geometry = (conv.stride, conv.padding, conv.dilation)
    return PooledConvolution.apply(x, weight, shift, geometry).relu()


@torch.no_grad()
def _track(norm, mean, variance, count):
    """Update running statistics as torch's batch normalisation does."""
    if not norm.track_running_stats:
        return
    norm.num_batches_tracked.add_(1)
    rate = norm.momentum
    if rate is None:
        rate = 1.0 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, rate)
    norm.running_var.lerp_(variance * (count / (count - 1)), rate)


class PooledConvolution(torch.autograd.Function):
    """2 x 2 maxima of a convolution, whose own output is never held as a whole."""

    @staticmethod
    def forward(ctx, x, weight, bias, geometry):
        """Return the maxima, of a few clips at a time."""
        ctx.geometry = geometry
        parts = []
        for chunk in x.split(_CHUNK):
            parts.append(
                _peaks(_channels_last(F.conv2d(chunk, weight, bias, *geometry)))
            )
        peaks = torch.cat(parts)
        ctx.save_for_backward(x, weight, bias, peaks)
        return peaks

    @staticmethod
    def backward(ctx, grad):
        """Return the gradients; the convolution is run again, as it is cheap."""
        x, weight, bias, peaks = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        totals, grads_x = [None, 0, 0], []
        chunks = (tensor.split(_CHUNK) for tensor in (x, grad, peaks))
        for part, grad_part, peak in zip(*chunks, strict=True):
            y = _channels_last(F.conv2d(part, weight, bias, *ctx.geometry))
            spread = _add_at_peaks(torch.zeros_like(y), grad_part, y, peak)
            grads = torch.ops.aten.convolution_backward(
                *(spread, part, weight, [len(bias)], *ctx.geometry),
                *(False, (0, 0), 1, wanted),
            )
            grads_x.append(grads[0])
            totals[1:] = [a + b for a, b in zip(totals[1:], grads[1:], strict=True)]
        if wanted[0]:
            totals[0] = torch.cat(grads_x)
        return *totals, None


class PooledNorm(torch.autograd.Function):
    """Batch normalisation, ReLU and 2 x 2 maxima of a map, and its statistics."""

    @staticmethod
    def forward(ctx, y, weight, bias, eps):
        """Return the pooled map, and mean and biased variance of each channel."""
        y = _channels_last(y)
        # Over rows in memory's order, which torch.var_mean would be slow to find.
        rows = y.permute(0, 2, 3, 1).flatten(0, 2)
        mean = rows.mean(0)
        variance = (rows - mean).square_().mean(0)
        rstd = (variance + eps).rsqrt()
        sign = torch.where(weight < 0, -1.0, 1.0).to(weight)
        peaks = _peaks(y * _map(sign) if (weight < 0).any() else y) * _map(sign)
        scale = weight * rstd
        out = torch.addcmul(_map(bias - mean * scale), peaks, _map(scale)).relu_()
        ctx.save_for_backward(y, peaks, out, weight, mean, rstd)
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    def backward(ctx, grad, *_):
        """Return the gradients of the map, the weight and the bias."""
        y, peaks, out, weight, mean, rstd = ctx.saved_tensors
        grad = torch.ops.aten.threshold_backward(grad, out, 0)
        grad_bias = grad.sum((0, 2, 3))
        grad_weight = ((grad * peaks).sum((0, 2, 3)) - mean * grad_bias) * rstd
        scale = weight * rstd
        count = y.numel() // y.shape[1]
        slope = -scale * rstd * grad_weight / count
        offset = -scale * grad_bias / count - slope * mean
        grad_y = torch.addcmul(_map(offset), y, _map(slope))
        return _add_at_peaks(grad_y, grad * _map(scale), y, peaks), *(
            grad_weight,
            grad_bias,
            None,
        )


def _corners(y):
    """Return the four elements of each 2 x 2 square, row by row, as views."""
    height, width = y.shape[2] // 2 * 2, y.shape[3] // 2 * 2
    return [y[:, :, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]


def _peaks(y):
    # Several times as fast as max_pool2d, whose indices cost most of its time.
    a, b, c, d = _corners(y)
    return torch.maximum(torch.maximum(a, b), torch.maximum(c, d))


def _add_at_peaks(total, grad, y, peaks):
    """Add each gradient where its square has the peak; at the first of equal ones."""
    left = grad
    for values, target in zip(_corners(y), _corners(total), strict=True):
        # What this passes on is not taken: a mask of booleans would be far slower.
        distance = (peaks - values).abs_()
        rest = torch.ops.aten.threshold_backward(left, distance, 0)
        target.add_(left).sub_(rest)
        left = rest
    return total


def _channels_last(y):
    return y.contiguous(memory_format=torch.channels_last)


def _map(values):
    return values[:, None, None]
