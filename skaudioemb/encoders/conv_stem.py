"""The convolutional feature encoder of wav2vec 2.0, over the clips of a batch.

The clips lie one after the other in one stream of samples, each starting at a
multiple of the total stride. Frames are rows and channels columns, so that every
convolution is a product of (overlapping) windows of rows with one matrix, and no
clip is padded to the length of another. The few frames whose window reaches into
the next clip are dropped at the end. The stream is cut along time: memory does not
grow with the length of a clip, and what is computed stays in the cache.
"""

from bisect import bisect_right
from math import ceil, prod

import torch
from torch import nn

from skaudioemb.encoders.packed import PackedLinear

# Frames that run through the convolutions together: on a CPU few enough for the
# cache, on an accelerator enough to keep it busy.
CHUNK_FRAMES = {"cpu": 128, "accelerator": 1500}
# Windows whose products are summed together in the statistics of the group norm.
_MOMENT_WINDOWS = 65536


class ConvStem(nn.Module):
    """Frames of many clips, each as if it were alone.

    Parameters
    ----------
    extractor : Module
        ``feature_extractor`` of a transformers model.
    config : PreTrainedConfig
    device : torch.device
    dtype : torch.dtype
        The first convolution is computed in float32 in any case.
    """

    def __init__(self, extractor, config, device, dtype):
        super().__init__()
        self.stride = prod(config.conv_stride)
        self.window = receptive_field(config.conv_kernel, config.conv_stride)
        self.width = config.conv_dim[-1]
        self.dtype = dtype
        first, *others = extractor.conv_layers
        norm = getattr(first, "layer_norm", None)
        kind = _GroupNormConv if isinstance(norm, nn.GroupNorm) else _Conv
        self.first = kind(first, device, torch.float32)
        self.others = nn.ModuleList(_Conv(layer, device, dtype) for layer in others)
        where = "cpu" if device.type == "cpu" else "accelerator"
        self.chunk_frames = CHUNK_FRAMES[where]

    def n_frames(self, n_samples):
        return (n_samples - self.window) // self.stride + 1

    def forward(self, waveforms):
        """Return the frames of all clips, shape (sum of n_frames, n_channels)."""
        counts = [self.n_frames(len(waveform)) for waveform in waveforms]
        # A clip's last window ends in the slots that follow its frames.
        tail = ceil(self.window / self.stride) - 1
        starts = [0]
        for count in counts:
            starts.append(starts[-1] + count + tail)
        stream = self._stream(waveforms, counts, starts)
        affines = self.first.affines(waveforms)
        n_slots = starts[-1]
        frames = stream.new_empty(n_slots, self.width, dtype=self.dtype)
        for start in range(0, n_slots, self.chunk_frames):
            stop = min(start + self.chunk_frames, n_slots)
            piece = stream[start * self.stride : (stop - 1) * self.stride + self.window]
            frames[start:stop] = self._convolve(piece, start, starts, affines)
        valid = [
            torch.arange(start, start + count)
            for start, count in zip(starts, counts, strict=False)
        ]
        return frames[torch.cat(valid).to(frames.device)]

    def _stream(self, waveforms, counts, starts):
        n_samples = (starts[-1] - 1) * self.stride + self.window
        stream = waveforms[0].new_zeros(n_samples)
        for waveform, count, start in zip(waveforms, counts, starts, strict=False):
            used = waveform[: (count - 1) * self.stride + self.window]
            offset = start * self.stride
            stream[offset : offset + len(used)] = used
        return stream

    def _convolve(self, piece, start, starts, affines):
        rows_per_frame = self.stride // self.first.stride
        bounds = [(slot - start) * rows_per_frame for slot in starts]
        rows = self.first(piece[:, None], bounds, affines).to(self.dtype)
        for layer in self.others:
            rows = layer(rows)
        return rows


class _Conv(nn.Module):
    """Convolution, layer norm if there is one, and activation, over rows."""

    def __init__(self, layer, device, dtype):
        super().__init__()
        weight = layer.conv.weight.detach()
        self.kernel, self.stride = weight.shape[2], layer.conv.stride[0]
        self.product = PackedLinear(
            weight.permute(0, 2, 1).flatten(1), layer.conv.bias, device, dtype
        )
        norm = getattr(layer, "layer_norm", None)
        self.norm = norm.to(device, dtype) if isinstance(norm, nn.LayerNorm) else None
        self.activation = layer.activation

    def affines(self, waveforms):
        return None

    def forward(self, rows, bounds=None, affines=None):
        rows = self.product(windows_of(rows, self.kernel, self.stride))
        if self.norm is not None:
            rows = self.norm(rows)
        return self.activation(rows)


class _GroupNormConv(nn.Module):
    """First convolution, normalised per clip and channel over the clip's length.

    A convolution is linear in its windows. So the mean and the variance of every
    channel follow from the mean and the covariance of the clip's windows, which
    are no larger than the kernel: the statistics need no pass over the channels,
    and the normalisation becomes part of the clip's own weights.
    """

    def __init__(self, layer, device, dtype):
        super().__init__()
        weight = layer.conv.weight.detach().flatten(1).to(device, dtype)
        self.kernel, self.stride = weight.shape[1], layer.conv.stride[0]
        norm = layer.layer_norm
        self.eps = norm.eps
        self.register_buffer("weight", weight)
        self.register_buffer("gain", norm.weight.detach().to(weight))
        self.register_buffer("offset", norm.bias.detach().to(weight))
        self.activation = layer.activation

    def affines(self, waveforms):
        """Return each clip's weights, (kernel, n_channels), and offsets."""
        return [self._affine(waveform) for waveform in waveforms]

    def _affine(self, waveform):
        mean, covariance = window_moments(waveform, self.kernel, self.stride)
        weight = self.weight.to(mean)
        variance = ((weight @ covariance) * weight).sum(1).clamp_min(0.0)
        gain = self.gain.to(mean) / torch.sqrt(variance + self.eps)
        # The bias of the convolution is part of the mean, and so drops out.
        offset = self.offset.to(mean) - gain * (weight @ mean)
        scaled = (weight * gain[:, None]).T.contiguous()
        return scaled.to(self.weight), offset.to(self.weight)

    def forward(self, rows, bounds, affines):
        windows = windows_of(rows, self.kernel, self.stride)
        n_rows = len(windows)
        result = rows.new_empty(n_rows, len(self.weight))
        clip = max(bisect_right(bounds, 0) - 1, 0)
        start = 0
        while start < n_rows:
            is_last = clip + 1 >= len(affines)
            stop = n_rows if is_last else min(bounds[clip + 1], n_rows)
            weight, offset = affines[clip]
            result[start:stop] = torch.addmm(offset, windows[start:stop], weight)
            start, clip = stop, clip + 1
        return self.activation(result)


def receptive_field(kernels, strides):
    """Return the number of samples that one frame of a stack of convolutions sees.

    Examples
    --------
    >>> from skaudioemb.encoders.conv_stem import receptive_field
    >>> receptive_field((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
    400
    """
    field = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        field = (field - 1) * stride + kernel
    return field


def windows_of(rows, kernel, stride):
    """Return overlapping windows of rows as a view of shape (n, kernel * width).

    ``rows`` is a contiguous tensor of shape (n_rows, width).

    Examples
    --------
    >>> import torch
    >>> from skaudioemb.encoders.conv_stem import windows_of
    >>> windows_of(torch.arange(10).view(5, 2), kernel=3, stride=2)
    tensor([[0, 1, 2, 3, 4, 5],
            [4, 5, 6, 7, 8, 9]])
    """
    n_rows, width = rows.shape
    n_windows = (n_rows - kernel) // stride + 1
    return rows.as_strided(
        (n_windows, kernel * width), (stride * width, 1), rows.storage_offset()
    )


def window_moments(waveform, kernel, stride):
    """Return mean and covariance of a clip's windows, in float64 where there is one.

    Parameters
    ----------
    waveform : Tensor of shape (n_samples,)
    kernel, stride : int

    Returns
    -------
    mean : Tensor of shape (kernel,)
    covariance : Tensor of shape (kernel, kernel)
        Population covariance.
    """
    if waveform.device.type == "mps":
        waveform = waveform.cpu()
    # Without its offset, the clip's covariance suffers no cancellation.
    offset = waveform.double().mean()
    windows = waveform.unfold(0, kernel, stride)
    total = torch.zeros(kernel, dtype=torch.float64, device=waveform.device)
    products = total.new_zeros(kernel, kernel)
    for part in windows.split(_MOMENT_WINDOWS):
        part = part.double() - offset
        total += part.sum(0)
        products += part.T @ part
    mean = total / len(windows)
    covariance = products / len(windows) - torch.outer(mean, mean)
    return mean + offset, covariance
