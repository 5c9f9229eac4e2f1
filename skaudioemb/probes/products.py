"""Products of stacked float32 matrices, by the faster of two libraries on a CPU."""

import functools
import time

import torch

# Multiplications below which a product costs less than its call.
_SMALL = 2**20
_TRIAL_SHAPE = (256, 512, 256)
_TRIAL_REPEATS = 5
_ROUNDING = 1e-5


def product(left, right):
    """Return the matrix product of each member of a stack.

    The method depends on the size of one member's matrices, never on how many are
    stacked. Small ones may still be rounded in another order in a larger stack.

    Parameters
    ----------
    left : Tensor of shape (K, m, r)
    right : Tensor of shape (K, r, n) or (r, n)
        Without the first dimension it is every member's.

    Returns
    -------
    product : Tensor of shape (K, m, n)

    Examples
    --------
    >>> import torch
    >>> from skaudioemb.probes.products import product
    >>> product(torch.ones(2, 1, 3), torch.ones(3, 4)).shape
    torch.Size([2, 1, 4])
    """
    n_members, m, r = left.shape
    n = right.shape[-1]
    if left.is_cuda and right.ndim == 2 and left.is_contiguous():
        return (left.view(-1, r) @ right).view(n_members, m, n)
    right = right.expand(n_members, r, n)
    large = m * r * n >= _SMALL
    if large and left.device.type == "cpu" and onednn_pays():
        parts = [_onednn(a, b) for a, b in zip(left, right, strict=True)]
        return parts[0].unsqueeze(0) if n_members == 1 else torch.stack(parts)
    return torch.bmm(left, right)


@functools.cache
def onednn_pays():
    """Tell whether oneDNN multiplies faster here than the BLAS that torch calls.

    Measured at the first call and remembered for the process.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    m, r, n = _TRIAL_SHAPE
    left = torch.randn(m, r, generator=generator)
    right = torch.randn(r, n, generator=generator)
    try:
        result = _onednn(left, right)
    except (AttributeError, NotImplementedError, RuntimeError):
        # The operator is not a public interface: another torch may lack it.
        return False
    plain = left @ right
    if not (plain - result).abs().max() <= _ROUNDING * plain.abs().max():
        return False
    seconds = {torch.mm: [], _onednn: []}
    for _ in range(_TRIAL_REPEATS):
        for method, found in seconds.items():
            start = time.perf_counter()
            method(left, right)
            found.append(time.perf_counter() - start)
    # Disturbances only ever add time.
    return min(seconds[_onednn]) < min(seconds[torch.mm])


def _onednn(left, right):
    return torch.ops.mkldnn._linear_pointwise(left, right.T, None, "none", [], "")
