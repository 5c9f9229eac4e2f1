"""Which frames a masked autoencoder does not see: runs of them, exactly so many."""

from typing import NamedTuple

import numpy as np
import torch


def draw_mask(n_frames, share, length, rng):
    """Draw a mask of runs that hides an exact number of frames.

    Parameters
    ----------
    n_frames : int
    share : float
        The share of frames to hide, rounded down to whole frames.
    length : int
        Frames of a run; runs may overlap.
    rng : numpy.random.Generator

    Returns
    -------
    mask : ndarray of shape (n_frames,), bool
        True where hidden.

    References
    ----------
    Pepino et al., "EnCodecMAE" (2023), section 2. The paper draws the runs' starts
    without replacement; as the published code, this draws them with replacement and
    hides no frame too many.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb.pretraining.masks import draw_mask
    >>> draw_mask(300, 0.5, 15, np.random.default_rng(0)).sum().item()
    150
    """
    n_masked = int(share * n_frames)
    last = max(0, n_frames - length)
    return mask_of_runs(_starts(rng, last), n_frames, n_masked, length)


def _starts(rng, last):
    while True:
        yield from rng.integers(0, last, 16, endpoint=True).tolist()


def mask_of_runs(starts, n_frames, n_masked, length):
    """Hide runs until enough frames are hidden, and show again what is too much.

    Frames too many are shown at the begin of the first run that does not end with the
    clip; of the first run if there is none.

    Parameters
    ----------
    starts : iterable of int
        Where runs begin; as many are taken as needed.
    n_frames, n_masked, length : int
        Frames of the clip, to be hidden, and of a run.

    Returns
    -------
    mask : ndarray of shape (n_frames,), bool
    """
    mask = np.zeros(n_frames, bool)
    taken, missing, starts = [], n_masked, iter(starts)
    while missing > 0:
        start = next(starts)
        run = mask[start : start + length]
        missing -= len(run) - int(np.count_nonzero(run))
        run[:] = True
        taken.append(start)
    if missing < 0:
        inner = (start for start in taken if start < n_frames - length)
        first = next(inner, taken[0])
        mask[first : first - missing] = False
    return mask


class Masking(NamedTuple):
    """Which frames of a batch are hidden, and where the seen ones stand.

    ``Masking(...).to(device)`` has all tensors on a device.
    """

    masked: torch.Tensor
    """tensor of shape (n_clips, n_frames), bool: True where hidden"""
    padding: torch.Tensor
    """tensor of shape (n_clips, n_frames), bool: True where there is no clip"""
    places: torch.Tensor
    """tensor of shape (n_clips, n_visible), int64: places of the frames that are
    seen, a clip's own first and in order"""
    filler: torch.Tensor | None
    """tensor of shape (n_clips, n_visible), bool: True where a place is none; None if
    all are some"""
    has_padding: bool
    """whether there is any padding"""

    def to(self, device):
        """Move the tensors to a device."""
        return Masking(
            *(
                part.to(device, non_blocking=True)
                if isinstance(part, torch.Tensor)
                else part
                for part in self
            )
        )


def make_masking(masked, n_whole):
    """Find the places of the frames that are seen.

    Parameters
    ----------
    masked : ndarray of shape (n_clips, n_frames), bool
        True where hidden.
    n_whole : ndarray of shape (n_clips,), int
        Frames of each clip; what follows is padding.

    Returns
    -------
    masking : Masking
        On the CPU.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb.pretraining.masks import make_masking
    >>> masked = np.array([[0, 1, 0], [1, 0, 0]], bool)
    >>> masking = make_masking(masked, np.array([3, 2]))
    >>> masking.places, masking.filler
    (tensor([[0, 2], [1, 0]]), tensor([[False, False], [False,  True]]))
    """
    padding = np.arange(masked.shape[1]) >= np.asarray(n_whole)[:, None]
    hidden = masked | padding
    n_visible = (~hidden).sum(1)
    width = int(n_visible.max())
    # A stable sort of False and True brings the places of False first, in order.
    places = np.argsort(hidden, axis=1, kind="stable")[:, :width]
    filler = np.arange(width) >= n_visible[:, None]
    places = np.where(filler, 0, places)
    return Masking(
        torch.from_numpy(masked),
        torch.from_numpy(padding),
        torch.from_numpy(places),
        torch.from_numpy(filler) if filler.any() else None,
        bool(padding.any()),
    )


def draw_masking(n_frames, n_whole, share, length, rng):
    """Draw a mask for each clip of a batch, over its own frames alone.

    Parameters
    ----------
    n_frames : int
        Of the batch, padding included.
    n_whole : ndarray of shape (n_clips,), int
    share, length, rng
        As for :func:`draw_mask`.

    Returns
    -------
    masking : Masking
        On the CPU.
    """
    masked = np.zeros((len(n_whole), n_frames), bool)
    for row, count in zip(masked, n_whole, strict=True):
        row[:count] = draw_mask(int(count), share, length, rng)
    return make_masking(masked, n_whole)
