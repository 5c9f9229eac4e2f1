"""Linear layers with weights laid out once for the fastest product at hand.

On some processors oneDNN multiplies float32 matrices at twice the rate of the BLAS
that torch calls; it wants the weights reordered, which pays when they are frozen.
On others it loses. So the two are timed against each other once per process.
"""

import functools
import time

import torch
from torch import nn
from torch.nn import functional as F

# Size of the product that is timed: a few milliseconds of the real work.
_TRIAL_ROWS, _TRIAL_WIDTH = 256, 768
_TRIAL_REPEATS = 5
# Largest difference, relative to the largest value, that rounding explains.
_ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


class PackedLinear(nn.Module):
    """A frozen linear layer, in the layout that is fastest here.

    Parameters
    ----------
    weight : Tensor of shape (out_features, in_features)
    bias : Tensor of shape (out_features,) or None
    device : torch.device
        The layer stays on this device.
    dtype : torch.dtype
        Precision of weights, input and output.
    """

    def __init__(self, weight, bias, device, dtype):
        super().__init__()
        weight = weight.detach().to(device, dtype).contiguous()
        self.bias = None if bias is None else bias.detach().to(device, dtype)
        self.is_packed = weight.device.type == "cpu" and packing_pays(dtype)
        self.weight = _pack(weight) if self.is_packed else weight

    @classmethod
    def of(cls, linear, device, dtype):
        """Return the layer with the parameters of an ``nn.Linear``."""
        return cls(linear.weight, linear.bias, device, dtype)

    def forward(self, rows):
        if self.is_packed:
            return _packed_product(rows, self.weight, self.bias)
        return F.linear(rows, self.weight, self.bias)


@functools.cache
def packing_pays(dtype):
    """Tell whether oneDNN's packed product is the faster one on this processor.

    Measured at the first call for a dtype and remembered for the process, so that
    no embedding depends on the batch in which it was computed.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(_TRIAL_ROWS, _TRIAL_WIDTH, generator=generator).to(dtype)
    weight = torch.randn(_TRIAL_WIDTH, _TRIAL_WIDTH, generator=generator).to(dtype)
    try:
        packed = _pack(weight)
        result = _packed_product(rows, packed, None)
    except (AttributeError, NotImplementedError, RuntimeError):
        # The operators are not a public interface: another torch may lack them,
        # or support fewer dtypes.
        return False
    plain = F.linear(rows, weight)
    error = (plain.float() - result.float()).abs().max() / plain.float().abs().max()
    if not error <= _ROUNDING.get(dtype, 0.0):
        return False
    seconds = {"plain": [], "packed": []}
    for _ in range(_TRIAL_REPEATS):
        seconds["plain"].append(_seconds(F.linear, rows, weight))
        seconds["packed"].append(_seconds(_packed_product, rows, packed, None))
    # Disturbances only ever add time.
    return min(seconds["packed"]) < min(seconds["plain"])


def _pack(weight):
    return torch.ops.mkldnn._reorder_linear_weight(weight)


def _packed_product(rows, weight, bias):
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


def _seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start
