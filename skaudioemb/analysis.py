"""Centred kernel alignment: how alike two embedders see the same recordings."""

import warnings
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from sklearn.utils import check_random_state
from tqdm.auto import tqdm

from skaudioemb import audio
from skaudioemb.analysis_layers import make_reader
from skaudioemb.analysis_sums import FEWEST, FullCKA, MinibatchCKA

__all__ = ["Alignment", "MinibatchCKA", "cka"]


def cka(
    model_a,
    model_b,
    X,
    *,
    activations="scenes",
    modules="*",
    batch_size=64,
    debiased=True,
    shuffle=False,
    random_state=None,
    verbose=0,
):
    """Compare all layers of two embedders by centred kernel alignment.

    Two layers are alike, near 1, if clips that are near each other in the one are so in
    the other, whatever their widths, rotations and scales; unrelated ones are near 0.
    Minibatches of clips run through both models, and only sums are kept.

    Parameters
    ----------
    model_a, model_b : Embedder, Fusion or fitted transformer of clips
        What is compared. Models with a parameter ``layers`` are compared layer by
        layer, whatever it is set to; others are one layer.
    X : sequence of clips or array-like of shape (n_clips, n_samples)
        Recordings; see :func:`skaudioemb.audio.load` for the forms of a clip.
    activations : {"scenes", "frames", "modules"}, default="scenes"
        What a layer's activations are: its frames pooled over time as the model's
        ``pooling`` says; its frames side by side, as the tool torch_cka has it; or what
        each module of the network behind scene vectors returns, side by side, for
        models of one layer whose insides are wanted. The last two need clips of equal
        length, and put clips into batches by it. Modules are those of the encoder as it
        runs in this package, which arranges some networks in its own way.
    modules : str or list of str, default="*"
        With ``activations="modules"``, shell-style patterns of the names of modules
        that are compared, of those without modules of their own.
    batch_size : int, default=64
        Clips in a minibatch, at least 4. Those that do not fill one are left out,
        unless there are fewer from the start.
    debiased : bool, default=True
        Whether to use the unbiased estimate, averaged over minibatches. If false, all
        clips are compared with all by the biased estimate, which overrates similarity
        where a layer is wider than there are clips; the activations of all clips are
        held, and clips squared numbers a layer.
    shuffle : bool, default=False
        Whether to shuffle the clips first. Do so if they are sorted, for each minibatch
        has to look like the whole.
    random_state : int, RandomState or None, default=None
        Of the shuffling.
    verbose : int, default=0
        Show a progress bar if positive.

    Returns
    -------
    alignment : Alignment
        ``matrix`` of shape (n_layers_a, n_layers_b), with ``heat_map`` to draw it.

    Raises
    ------
    ValueError
        If a parameter is not valid, if there are too few clips or, where lengths
        matter, too few of one length.
    TypeError
        If a model is no transformer of clips, or has no modules to look into.
    AudioError
        At the first bad clip; with a model's ``on_error="nan"`` it is left out.

    Notes
    -----
    Activations are not standardised: features of large scale decide, such as some of
    openSMILE's functionals, and layers of transformers may be led by few features. Put
    such a model into a pipeline with a fitted ``StandardScaler``.

    The ratio is that of sums over minibatches, HSIC(a, b) / sqrt(HSIC(a, a) HSIC(b,
    b)), with the unbiased HSIC of Song et al. It can be slightly negative or above 1. A
    layer that is the same for all clips is similar to nothing: its entries are NaN, and
    a warning names it.

    References
    ----------
    S. Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML
    2019. L. Song et al., "Feature Selection via Dependence Maximization", JMLR 13,
    2012, equation 5. T. Nguyen, M. Raghu and S. Kornblith, "Do Wide and Deep Networks
    Learn the Same Things?", ICLR 2021, section 3, for minibatches. G. Elbanna et al.,
    "BYOL-S: Learning Self-supervised Speech Representations by Bootstrapping", HEAR
    2021, Figure 3, for audio.

    Examples
    --------
    >>> from skaudioemb import CREPE, LogMel
    >>> from skaudioemb.analysis import cka
    >>> from skaudioemb.datasets import make_notes
    >>> X = make_notes(n_clips=32, random_state=0).data
    >>> alignment = cka(LogMel(), CREPE("tiny", hop=0.1), X, batch_size=16)
    >>> alignment.matrix.shape, alignment.n_clips
    ((1, 1), 32)
    """
    _check(batch_size, debiased)
    clips = audio.check_clips(X)
    readers = [make_reader(model_a, activations, modules)]
    if model_b is not model_a:
        readers.append(make_reader(model_b, activations, modules))
    order = np.arange(len(clips))
    if shuffle:
        check_random_state(random_state).shuffle(order)
    groups = [order.tolist()]
    if activations != "scenes":
        groups = _of_equal_length(clips, groups[0], _is_lenient(model_a, model_b))
    sums = MinibatchCKA() if debiased else FullCKA()
    batches = _batches(groups, batch_size, keep_rest=not debiased)
    for batch in tqdm(batches, unit="batch", disable=not verbose):
        layers = [_read(reader, clips, batch) for reader in readers]
        good = np.logical_and.reduce([_is_finite(each) for each in layers])
        if good.sum() >= FEWEST or not debiased:
            kept = [[values[good] for values in each] for each in layers]
            sums.update(kept[0], kept[-1])
    return _conclude(sums, readers, (model_a, model_b), debiased)


@dataclass(frozen=True, eq=False)
class Alignment:
    """Similarity of the layers of two models.

    Attributes
    ----------
    matrix : ndarray of shape (n_layers_a, n_layers_b), float64
        Centred kernel alignment; NaN for layers that do not vary.
    layers_a, layers_b : list of str
        Names of the layers.
    name_a, name_b : str
        Names of the models.
    n_clips : int
        Clips that were compared.
    debiased : bool
        Whether the estimate is unbiased.
    """

    matrix: np.ndarray
    layers_a: list
    layers_b: list
    name_a: str
    name_b: str
    n_clips: int
    debiased: bool

    def heat_map(self, ax=None):
        """Draw the matrix.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw; None is a new figure of pyplot.

        Returns
        -------
        ax : matplotlib Axes
            Layers of the first model from the bottom to the top, of the second from
            the left to the right, colours from 0 to 1.
        """
        from skaudioemb.analysis_figures import draw_alignment

        return draw_alignment(self, ax)


def _check(batch_size, debiased):
    if not isinstance(batch_size, Integral) or batch_size < FEWEST:
        raise ValueError(
            f"batch_size={batch_size!r} is no number of clips from {FEWEST} on. Below "
            "that the unbiased estimate is not defined."
        )
    if not isinstance(debiased, bool | np.bool_):
        raise ValueError(f"debiased={debiased!r} is neither True nor False.")


def _is_lenient(*models):
    """Tell whether clips that cannot be read are to be left out."""
    return all(getattr(model, "on_error", "raise") == "nan" for model in models)


def _of_equal_length(clips, order, skips):
    """Return the numbers of the clips that can be read, in groups of equal length."""
    groups = {}
    for index in order:
        try:
            # Bare arrays have one rate for all, and so need none here.
            waveform = audio.load(clips[index], 1)
        except audio.AudioError as error:
            if skips:
                continue
            raise error.at(index) from None
        length = (len(waveform.samples), waveform.rate)
        groups.setdefault(length, []).append(index)
    return list(groups.values())


def _batches(groups, batch_size, keep_rest):
    """Cut the clips of each group into full minibatches."""
    if keep_rest and len(groups) > 1:
        raise ValueError(
            f"X has clips of {len(groups)} lengths, which debiased=False cannot "
            "compare with activations='frames' or 'modules'. Cut them to (path, start, "
            "end) segments of one length, or use activations='scenes'."
        )
    largest = max(map(len, groups), default=0)
    if largest < FEWEST:
        raise ValueError(
            f"X has {largest} clips{' of one length' if len(groups) > 1 else ''} at "
            f"most, but at least {FEWEST} are needed. Give more, cut them to (path, "
            "start, end) segments of one length, or use activations='scenes'."
        )
    size = min(batch_size, largest)
    return [
        group[start : start + size]
        for group in groups
        for start in range(0, len(group) if keep_rest else len(group) - size + 1, size)
    ]


def _read(reader, clips, batch):
    """Return the activations of a batch; errors carry a clip's number in X."""
    try:
        return reader.read([clips[index] for index in batch])
    except audio.AudioError as error:
        if error.index is None:
            raise
        raise error.at(batch[error.index]) from None


def _is_finite(layers):
    """Tell for each clip whether all of its activations are finite."""
    rows = [np.isfinite(values.reshape(len(values), -1)) for values in layers]
    return np.logical_and.reduce([each.all(axis=1) for each in rows])


def _conclude(sums, readers, models, debiased):
    if sums.n_clips < FEWEST:
        raise ValueError(
            f"Only {sums.n_clips} clips are left without those that could not be read; "
            f"at least {FEWEST} are needed."
        )
    matrix = sums.matrix()
    names = [reader.layer_names for reader in (readers[0], readers[-1])]
    labels = [type(model).__name__ for model in models]
    for label, own_names, still in zip(labels, names, sums.still(), strict=True):
        if len(still):
            listed = ", ".join(own_names[number] for number in still)
            warnings.warn(
                f"Layers of {label} that do not vary over the clips, or too little for "
                f"so few: {listed}. Their alignment is NaN.",
                stacklevel=3,
            )
    return Alignment(matrix, *names, *labels, sums.n_clips, bool(debiased))
