"""Convolutions along time as products in the frequency domain.

A kernel of 64 taps costs 64 multiplications per output, channel and filter. In the
frequency domain it costs two to three, and the transforms, being short, are dense
matrix products themselves. Everything here is a real matrix product in float32, on
arrays laid out time first, ``(n_samples, n_frames, n_channels)``: a transform is one
product with the leading axis, and no axis ever has to be moved.
"""

import math

import torch
from torch import nn


def circular_length(n_samples, kernel_size=64):
    """Return the shortest transform in which a "same" convolution does not wrap.

    Zeros before the first and after the last sample may be the same zeros.
    """
    return n_samples + min(kernel_size // 2, n_samples)


def transforms(n_samples, length):
    """Return the matrices into and out of the frequency domain.

    One complex product takes three real ones (Gauss): with ``x = a + bi`` and
    ``v = c + di`` they are ``c (a + b)``, ``a (d - c)`` and ``b (c + d)``. The sums of
    a and b, and those of the three products, are part of the two matrices.

    Parameters
    ----------
    n_samples : int
        Number of samples in time.
    length : int
        Length of the discrete Fourier transform, even.

    Returns
    -------
    forward : Tensor of shape (1.5 * length - 1, n_samples)
        Rows ``a + b``, then ``a``, then ``b`` of the complex bins, then the two real
        bins. Float64.
    inverse : Tensor of shape (n_samples, 1.5 * length - 1)
        Float64.
    """
    time = torch.arange(n_samples, dtype=torch.float64)
    bins = torch.arange(1, length // 2, dtype=torch.float64)
    angle = 2 * math.pi / length * torch.outer(bins, time)
    cos, sin = angle.cos(), angle.sin()
    real = torch.stack([torch.ones_like(time), torch.cos(math.pi * time)])
    forward = torch.cat([cos - sin, cos, -sin, real])
    inverse = torch.cat([2 * (cos - sin), -2 * sin, -2 * cos, real]).t() / length
    return forward, inverse


def kernel_spectrum(weight, n_samples, length):
    """Return the factors of the three products for a "same" kernel.

    Parameters
    ----------
    weight : Tensor of shape (n_outputs, n_inputs, kernel_size)
        Float64. Tap ``kernel_size // 2 - 1`` meets the sample at the output's place.
    n_samples, length : int
        As for :func:`transforms`.

    Returns
    -------
    factors : Tensor of shape (1.5 * length - 1, n_inputs, n_outputs)
        Rows ordered as those of ``forward``. Float32.
    """
    offset = torch.arange(weight.shape[2]) - (weight.shape[2] // 2 - 1)
    reached = offset.abs() < n_samples
    offset = offset[reached].double()
    bins = torch.arange(length // 2 + 1, dtype=torch.float64)
    angle = 2 * math.pi / length * torch.outer(bins, offset)
    taps = weight[:, :, reached].permute(2, 1, 0)
    c = torch.tensordot(angle.cos(), taps, dims=1)
    d = torch.tensordot(angle.sin(), taps, dims=1)
    n_bins = length // 2 - 1
    # Filled piece by piece: for a large kernel each takes as much as a small model.
    factors = torch.empty((3 * n_bins + 2, *c.shape[1:]))
    factors[:n_bins] = c[1:-1]
    factors[n_bins : 2 * n_bins] = (d - c)[1:-1]
    factors[2 * n_bins : -2] = (c + d)[1:-1]
    factors[-2:] = c[:: length // 2]
    return factors


class SpectralBlock(nn.Module):
    """A "same" convolution, ReLU and max-pooling by two, in the frequency domain.

    Parameters
    ----------
    weight : Tensor of shape (n_outputs, n_inputs, kernel_size)
        Float64.
    bias : Tensor of shape (n_samples, n_outputs)
        Float64; it may differ from sample to sample.
    device : torch.device
        The block stays on this device.
    """

    def __init__(self, weight, bias, device):
        super().__init__()
        n_samples = len(bias)
        length = circular_length(n_samples, weight.shape[2])
        forward, inverse = transforms(n_samples, length)
        factors = kernel_spectrum(weight, n_samples, length)
        # Even samples first, then odd ones: pooling is then one maximum of halves.
        self.half = n_samples // 2
        order = torch.arange(n_samples).view(-1, 2).t().reshape(-1)
        self.n_rows = len(forward)
        self.register_buffer("into", forward.float().to(device))
        self.register_buffer("out_of", inverse[order].float().to(device))
        self.register_buffer("bias", bias[order].float()[:, None].to(device))
        self.register_buffer("factors", factors.to(device))

    def transform(self, x):
        """Return the rows of the spectrum of ``x``.

        Parameters
        ----------
        x : Tensor of shape (n_samples, n_frames, n_inputs)

        Returns
        -------
        spectrum : Tensor of shape (n_rows, n_frames, n_inputs)
        """
        return (self.into @ x.flatten(1)).view(-1, *x.shape[1:])

    def forward(self, spectrum):
        """Return the block's output for the spectrum of its input.

        Parameters
        ----------
        spectrum : Tensor of shape (n_rows, n_frames, n_inputs)
            What :meth:`transform` returned.

        Returns
        -------
        y : Tensor of shape (n_samples / 2, n_frames, n_outputs)
        """
        products = torch.bmm(spectrum, self.factors)
        y = (self.out_of @ products.flatten(1)).view(-1, *products.shape[1:])
        y += self.bias
        return torch.maximum(y[: self.half], y[self.half :]).relu_()
