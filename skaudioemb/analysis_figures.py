"""The figure of an analysis."""

import numpy as np

_MISSING = "#d4d4d4"
# Names of layers beyond these are left out at regular distances.
_MOST_NAMES = 30


def draw_alignment(alignment, ax=None):
    """Draw the similarity of all layers of two models as a heat map.

    Parameters
    ----------
    alignment : skaudioemb.analysis.Alignment
    ax : matplotlib Axes or None, default=None
        Where to draw; None is a new figure of pyplot.

    Returns
    -------
    ax : matplotlib Axes
    """
    from matplotlib import colormaps

    if ax is None:
        from matplotlib import pyplot

        _, ax = pyplot.subplots(layout="constrained")
    colours = colormaps["magma"].with_extremes(bad=_MISSING)
    image = ax.imshow(alignment.matrix, cmap=colours, vmin=0, vmax=1, origin="lower")
    ax.set(xlabel=alignment.name_b, ylabel=alignment.name_a)
    for axis, names in ((ax.xaxis, alignment.layers_b), (ax.yaxis, alignment.layers_a)):
        places = np.arange(0, len(names), 1 + (len(names) - 1) // _MOST_NAMES)
        axis.set_ticks(places, [names[place] for place in places])
    if max(map(len, alignment.layers_b)) > 3:
        ax.tick_params(axis="x", labelrotation=90)
    ax.figure.colorbar(image, ax=ax, label="centred kernel alignment")
    return ax
