"""The convolutional positional embedding of wav2vec 2.0, in the frequency domain."""

import torch
from torch import nn

# Blocks that are transformed together, which bounds the memory.
_BLOCKS_AT_ONCE = 64


class PositionalConv(nn.Module):
    """Grouped convolution along time, each clip zero-padded on its own.

    The kernel is 128 frames long in released models. By overlap-save, the products
    in the frequency domain need a thirtieth of the arithmetic, and blocks of all
    clips share them. Always in float32: half precision would not be faster.

    Parameters
    ----------
    embedding : Module
        ``pos_conv_embed`` of a transformers model; its weight norm is folded.
    device : torch.device
    """

    def __init__(self, embedding, device):
        super().__init__()
        conv = embedding.conv
        weight = conv.weight.detach().to(device, torch.float32)
        self.groups, self.kernel = conv.groups, weight.shape[2]
        self.padding = conv.padding[0]
        self.size = 1 << (2 * self.kernel - 1).bit_length()
        self.hop = self.size - self.kernel + 1
        width = weight.shape[1]
        # A convolution layer correlates, hence the conjugate.
        spectrum = torch.fft.rfft(weight, n=self.size).conj()
        spectrum = spectrum.reshape(self.groups, width, width, -1).permute(3, 0, 2, 1)
        # (frequency, group, input channel, output channel)
        self.register_buffer("spectrum", spectrum.contiguous())
        self.register_buffer("bias", conv.bias.detach().to(weight))
        norm = getattr(embedding, "batch_norm", None)
        self.norm = None if norm is None else norm.to(device, torch.float32).eval()
        self.activation = embedding.activation

    def forward(self, frames, counts):
        """Return the embedding of packed frames of shape (n_frames, n_features)."""
        if self.norm is not None:
            frames = self.norm(frames)
        # One row of zeros, which all padding points to.
        frames = torch.cat([frames, frames.new_zeros(1, frames.shape[1])])
        sources, n_valid = self._blocks(counts)
        result = torch.empty_like(frames[:-1])
        done = 0
        for part, valid in zip(
            sources.split(_BLOCKS_AT_ONCE), n_valid.split(_BLOCKS_AT_ONCE), strict=True
        ):
            blocks = self._convolve(frames[part.to(frames.device)])
            is_valid = torch.arange(self.hop) < valid[:, None]
            rows = blocks[is_valid.to(frames.device)]
            result[done : done + len(rows)] = self.activation(rows + self.bias)
            done += len(rows)
        return result

    def _blocks(self, counts):
        """Return each block's rows in ``frames``, and its number of valid outputs."""
        zero_row = sum(counts)
        sources, n_valid, first = [], [], 0
        for count in counts:
            starts = torch.arange(0, count, self.hop)
            rows = starts[:, None] + torch.arange(self.size) - self.padding
            is_inside = (rows >= 0) & (rows < count)
            sources.append(torch.where(is_inside, rows + first, zero_row))
            n_valid.append((count - starts).clamp_max(self.hop))
            first += count
        return torch.cat(sources), torch.cat(n_valid)

    def _convolve(self, blocks):
        n_blocks, _, n_features = blocks.shape
        spectrum = torch.fft.rfft(blocks, dim=1)
        spectrum = spectrum.view(n_blocks, -1, self.groups, n_features // self.groups)
        product = torch.matmul(spectrum.permute(1, 2, 0, 3), self.spectrum)
        product = product.permute(2, 0, 1, 3).reshape(n_blocks, -1, n_features)
        return torch.fft.irfft(product, n=self.size, dim=1)[:, : self.hop]
