"""What is kept of a clip's frames while the layers stream past.

A summary has a ``name``, under which the store keeps it, and is an array:

- :class:`Weighted`, shape (n_layers, n_groups, n_features): weighted sums of the
  frames of every layer;
- :class:`Reduced`, the same shape: a maximum or standard deviation over time of
  every layer, or of the average of some layers (then n_layers is 1);
- :class:`Kept`, shape (n_frames, n_features): the frames themselves.

:class:`Collector` computes any number of them for the clips of one batch in one
pass over the layers, holding one layer at a time.
"""

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np

from skaudioemb.frames import segment_bounds

ALL = "all"


def resolve_layers(layers, n_layers):
    """Turn a user's ``layers`` into the tuple of averaged layers, or ``"all"``.

    Parameters
    ----------
    layers : {"last", "mean", "all"}, int or list of int
        As given to an embedder.
    n_layers : int
        Number of layers of the encoder, the embedding output included.

    Returns
    -------
    selection : tuple of int or "all"
        Ascending layer numbers from 0.

    Raises
    ------
    ValueError
        If a layer does not exist.
    TypeError
        If ``layers`` is none of the above.

    Examples
    --------
    >>> from skaudioemb.summaries import resolve_layers
    >>> resolve_layers("last", 13), resolve_layers([2, -1], 4)
    ((12,), (2, 3))
    """
    if isinstance(layers, str):
        names = {"last": (n_layers - 1,), "mean": tuple(range(n_layers))}
        names[ALL] = ALL if n_layers > 1 else (0,)
        if layers not in names:
            raise ValueError(
                f"layers={layers!r} is not known. Choose 'last', 'mean', 'all', an int "
                "or a list of ints."
            )
        return names[layers]
    numbers = [layers] if _is_int(layers) else layers
    if not isinstance(numbers, list | tuple | np.ndarray | range) or not all(
        _is_int(number) for number in numbers
    ):
        raise TypeError(
            f"layers={layers!r} is not known. Choose 'last', 'mean', 'all', an int or "
            "a list of ints."
        )
    if len(numbers) == 0:
        raise ValueError("layers is an empty list. Name at least one layer.")
    for number in numbers:
        if not -n_layers <= number < n_layers:
            raise ValueError(
                f"layers={layers!r} names layer {number}, but the model has "
                f"{n_layers}: 0 (the embedding output) to {n_layers - 1}, or "
                f"-{n_layers} to -1."
            )
    return tuple(sorted({int(number) % n_layers for number in numbers}))


@dataclass(frozen=True, eq=False)
class Weighted:
    """Weighted sums over time of every layer.

    Attributes
    ----------
    weights : ndarray of shape (n_groups, n_frames)
    """

    weights: np.ndarray

    @cached_property
    def name(self):
        weights = np.ascontiguousarray(self.weights, dtype="<f4")
        if len(weights) == 1 and np.ptp(weights) == 0:
            return "mean"
        digest = blake2b(weights.tobytes(), digest_size=12)
        return f"weighted-{len(weights)}-{digest.hexdigest()}"


@dataclass(frozen=True)
class Reduced:
    """Maximum or population standard deviation over time.

    Attributes
    ----------
    kind : {"max", "std"}
    segments : int or None
    selection : tuple of int or None
        The layers that are averaged before; None keeps every layer apart.
    bounds : tuple of (int, int) or None
        The groups of frames, where they are not those of ``segments``.
    """

    kind: str
    segments: int | None = None
    selection: tuple | None = None
    bounds: tuple | None = None

    @property
    def name(self):
        layers = "" if self.selection is None else "-" + _selection_name(self.selection)
        groups = self.segments or "whole"
        if self.bounds is not None:
            groups = ".".join(f"{start}-{stop}" for start, stop in self.bounds)
        return f"{self.kind}-{groups}{layers}"


@dataclass(frozen=True)
class Kept:
    """The frames of one selection of layers.

    Attributes
    ----------
    selection : tuple of int or "all"
        Averaged layers, or every layer side by side.
    """

    selection: tuple | str

    @property
    def name(self):
        return "frames-" + _selection_name(self.selection)


class Collector:
    """Compute the summaries of the clips of one batch from streaming layers.

    Parameters
    ----------
    n_frames : list of int
        Frames of each clip, in the batch's order.
    summaries : list of list
        The summaries wanted of each clip.
    n_layers : int
        Number of layers that will be added.
    """

    def __init__(self, n_frames, summaries, n_layers):
        ends = np.cumsum(n_frames)
        self._spans = [
            (int(end - n), int(end)) for end, n in zip(ends, n_frames, strict=True)
        ]
        self._summaries = summaries
        self._n_layers = n_layers
        self._results = [{} for _ in n_frames]
        self._sums = {
            selection: None
            for wanted in summaries
            for summary in wanted
            if isinstance(selection := getattr(summary, "selection", None), tuple)
        }
        self._weights = None

    def add(self, layer, frames):
        """Take in the packed frames of ``layer``, a Tensor on any device."""
        frames = frames.float()
        if self._weights is None:
            self._weights = [self._stack_weights(i, frames) for i in self._clips()]
        for selection in self._sums:
            self._accumulate(selection, layer, frames)
        for clip in self._clips():
            start, stop = self._spans[clip]
            self._summarise(clip, layer, frames[start:stop])

    def results(self):
        """Return one dict from name to ndarray per clip."""
        for clip in self._clips():
            for summary in self._summaries[clip]:
                if isinstance(summary, Kept) or getattr(summary, "selection", None):
                    self._finish(clip, summary)
        return [
            {name: _to_numpy(value) for name, value in result.items()}
            for result in self._results
        ]

    def _clips(self):
        return range(len(self._spans))

    def _stack_weights(self, clip, frames):
        weights = [s.weights for s in self._summaries[clip] if isinstance(s, Weighted)]
        if not weights:
            return None
        return frames.new_tensor(np.concatenate(weights))

    def _accumulate(self, selection, layer, frames):
        if layer not in selection:
            return
        if self._sums[selection] is None:
            self._sums[selection] = frames.clone()
        else:
            self._sums[selection] += frames

    def _summarise(self, clip, layer, frames):
        result = self._results[clip]
        weights = self._weights[clip]
        products = None if weights is None else weights @ frames
        row = 0
        for summary in self._summaries[clip]:
            if isinstance(summary, Weighted):
                stop = row + len(summary.weights)
                self._slot(result, summary.name, products[row:stop])[layer] = products[
                    row:stop
                ]
                row = stop
            elif isinstance(summary, Reduced) and summary.selection is None:
                reduced = _reduce(frames, summary)
                self._slot(result, summary.name, reduced)[layer] = reduced
            elif isinstance(summary, Kept) and summary.selection == ALL:
                # Frames leave the device layer by layer: they are the one summary
                # that grows with depth.
                result.setdefault(summary.name, []).append(frames.cpu())

    def _slot(self, result, name, like):
        if name not in result:
            result[name] = like.new_empty((self._n_layers, *like.shape))
        return result[name]

    def _finish(self, clip, summary):
        result = self._results[clip]
        if summary.selection == ALL:
            result[summary.name] = np.concatenate(
                [_to_numpy(layer) for layer in result[summary.name]], axis=1
            )
            return
        start, stop = self._spans[clip]
        frames = self._sums[summary.selection][start:stop] / len(summary.selection)
        if isinstance(summary, Kept):
            result[summary.name] = frames
        else:
            result[summary.name] = _reduce(frames, summary)[None]


def _reduce(frames, summary):
    import torch

    bounds = summary.bounds
    if bounds is None:
        bounds = segment_bounds(len(frames), summary.segments)
    groups = [frames[start:stop] for start, stop in bounds]
    if summary.kind == "max":
        return torch.stack([group.amax(dim=0) for group in groups])
    return torch.stack([group.std(dim=0, correction=0) for group in groups])


def _to_numpy(value):
    return value if isinstance(value, np.ndarray) else value.cpu().numpy()


def _is_int(value):
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _selection_name(selection):
    return selection if selection == ALL else ".".join(map(str, selection))
