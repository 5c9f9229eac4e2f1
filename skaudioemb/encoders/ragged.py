"""Transformer blocks over the packed frames of clips of different lengths.

Frames of all clips lie one after the other in one matrix of shape (sum of lengths,
n_features). Whatever works frame by frame works on this matrix; attention works
within each clip. Nothing is padded and nothing needs a mask, so that a clip's
frames are those of the clip alone.
"""

import math
from itertools import groupby

import torch
from torch import nn
from torch.nn import functional as F

from skaudioemb.encoders.packed import PackedLinear

# Frames whose hidden units are held at once: on a CPU few enough for the cache.
FEED_FORWARD_FRAMES = {"cpu": 1024, "accelerator": 16384}
# Largest number of elements of the position bias that is held at once.
BIAS_ELEMENTS = 2**25


def runs_of(counts):
    """Return (n_clips, n_frames) of each run of neighbours of equal length.

    Examples
    --------
    >>> from skaudioemb.encoders.ragged import runs_of
    >>> runs_of([3, 3, 5])
    [(2, 3), (1, 5)]
    """
    return [(len(list(run)), count) for count, run in groupby(counts)]


class Block(nn.Module):
    """Attention and feed-forward network with residuals around them.

    The residual stream is float32, and so are the norms; matrix products run in
    ``dtype``.

    Parameters
    ----------
    layer : Module
        One of ``encoder.layers`` of a transformers model.
    attention : Attention
    is_pre_norm : bool
        Whether norms come before ("stable layer norm") or after the residuals.
    device : torch.device
    dtype : torch.dtype
    """

    def __init__(self, layer, attention, is_pre_norm, device, dtype):
        super().__init__()
        self.attention = attention
        self.is_pre_norm = is_pre_norm
        self.dtype = dtype
        self.norm = layer.layer_norm.to(device, torch.float32)
        self.final_norm = layer.final_layer_norm.to(device, torch.float32)
        feed_forward = layer.feed_forward
        self.expand = PackedLinear.of(feed_forward.intermediate_dense, device, dtype)
        self.contract = PackedLinear.of(feed_forward.output_dense, device, dtype)
        self.activation = feed_forward.intermediate_act_fn
        adapter = getattr(layer, "adapter_layer", None)
        self.adapter = None if adapter is None else adapter.to(device, torch.float32)
        where = "cpu" if device.type == "cpu" else "accelerator"
        self.n_at_once = FEED_FORWARD_FRAMES[where]

    def forward(self, frames, runs):
        if self.is_pre_norm:
            attended = self.attention(self.norm(frames).to(self.dtype), runs)
            frames = frames + attended
        else:
            attended = self.attention(frames.to(self.dtype), runs)
            frames = self.norm(frames + attended)
        result = torch.empty_like(frames)
        for start in range(0, len(frames), self.n_at_once):
            part = slice(start, start + self.n_at_once)
            result[part] = self._feed_forward(frames[part])
        return result

    def _feed_forward(self, frames):
        hidden = self.final_norm(frames) if self.is_pre_norm else frames
        hidden = self.activation(self.expand(hidden.to(self.dtype)))
        frames = frames + self.contract(hidden)
        if not self.is_pre_norm:
            return self.final_norm(frames)
        return frames if self.adapter is None else frames + self.adapter(frames)


class Attention(nn.Module):
    """Multi-head self-attention within each clip.

    Parameters
    ----------
    attention : Module
        ``attention`` of a transformers layer.
    device : torch.device
    dtype : torch.dtype
    """

    def __init__(self, attention, device, dtype):
        super().__init__()
        self.n_heads = attention.num_heads
        inputs = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.project_in = PackedLinear(
            torch.cat([linear.weight.detach() for linear in inputs]),
            torch.cat([linear.bias.detach() for linear in inputs]),
            device,
            dtype,
        )
        self.project_out = PackedLinear.of(attention.out_proj, device, dtype)

    def forward(self, frames, runs):
        projected = self.project_in(frames)
        result = torch.empty_like(frames)
        start = 0
        for n_clips, n_frames in runs:
            rows = slice(start, start + n_clips * n_frames)
            # (query or key or value, clip, head, frame, channel)
            heads = projected[rows].view(n_clips, n_frames, 3, self.n_heads, -1)
            heads = heads.permute(2, 0, 3, 1, 4)
            attended = self._attend(frames[rows], *heads)
            result[rows] = attended.transpose(1, 2).reshape(-1, frames.shape[1])
            start = rows.stop
        return self.project_out(result)

    def _attend(self, frames, queries, keys, values):
        return F.scaled_dot_product_attention(queries, keys, values)


class RelativeAttention(Attention):
    """Attention with the gated relative position bias of WavLM.

    The bias of query i and key j depends on j - i, times a gate that depends on the
    query. It is built for some queries at a time, so that memory grows with the
    length of a clip and not with its square.

    Parameters
    ----------
    attention : Module
        ``attention`` of a layer of a transformers WavLM.
    biases : Tensor of shape (n_heads, 2 * max_distance + 1)
        From :func:`position_biases`; shared by all layers.
    device : torch.device
    dtype : torch.dtype

    References
    ----------
    S. Chen et al., "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack
    Speech Processing", JSTSP 2022, section III-A.
    """

    def __init__(self, attention, biases, device, dtype):
        super().__init__(attention, device, dtype)
        linear = attention.gru_rel_pos_linear
        # The model adds up four outputs for each of the two gates.
        weight = linear.weight.detach().view(2, 4, -1).sum(1)
        bias = linear.bias.detach().view(2, 4).sum(1)
        self.register_buffer("gate_weight", weight.to(device, torch.float32))
        self.register_buffer("gate_bias", bias.to(device, torch.float32))
        scale = attention.gru_rel_pos_const.detach().view(-1)
        self.register_buffer("gate_scale", scale.to(device, torch.float32))
        self.biases = biases

    def _attend(self, frames, queries, keys, values):
        n_clips, n_heads, n_frames, _ = queries.shape
        gates = self._gates(frames.view(n_clips, n_frames, n_heads, -1))
        lags = torch.arange(1 - n_frames, n_frames, device=frames.device)
        reach = self.biases.shape[1] // 2
        biases = self.biases[:, lags.clamp(-reach, reach) + reach]
        # Row r holds the biases of query n_frames - 1 - r, as a view: turning the
        # queries round is cheaper than turning the biases.
        shifted = biases.unfold(1, n_frames, 1)
        queries, gates = queries.flip(2), gates.flip(2)
        n_at_once = max(1, BIAS_ELEMENTS // (n_clips * n_heads * n_frames))
        result = torch.empty_like(queries)
        for start in range(0, n_frames, n_at_once):
            rows = slice(start, start + n_at_once)
            bias = gates[:, :, rows, None] * shifted[:, rows]
            result[:, :, rows] = F.scaled_dot_product_attention(
                queries[:, :, rows], keys, values, bias.to(queries.dtype)
            )
        return result.flip(2)

    def _gates(self, frames):
        """Return the gates, (n_clips, n_heads, n_frames), of each head's frames."""
        gates = F.linear(frames.float(), self.gate_weight, self.gate_bias).sigmoid()
        update, reset = gates.unbind(-1)
        return (update * (reset * self.gate_scale - 1.0) + 2.0).transpose(1, 2)


def position_biases(embedding, max_distance):
    """Return the biases of all relative positions up to where they stay the same.

    Half of the buckets is for keys after the query. Half of each half holds one
    position each; the rest grow logarithmically up to ``max_distance``.

    Parameters
    ----------
    embedding : Tensor of shape (n_buckets, n_heads)
    max_distance : int
        In frames.

    Returns
    -------
    biases : Tensor of shape (n_heads, 2 * max_distance + 1)
        Column ``max_distance + j - i`` for query i and key j.
    """
    n_buckets = len(embedding) // 2
    n_exact = n_buckets // 2
    lags = torch.arange(-max_distance, max_distance + 1, device=embedding.device)
    distances = lags.abs()
    octaves = torch.log(distances.float() / n_exact) / math.log(max_distance / n_exact)
    coarse = (n_exact + octaves * (n_buckets - n_exact)).clamp(0, n_buckets - 1).long()
    buckets = torch.where(distances < n_exact, distances, coarse)
    return embedding[buckets + (lags > 0) * n_buckets].T.contiguous()
