"""The figures of a report, as PNG images."""

from io import BytesIO

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from skaudioemb.hear.leaderboard import load_leaderboard
from skaudioemb.hear.standings import map_scores

_DPI = 110
_GREY = "#9a9a9a"
_LIGHT = "#ececec"
_MISSING = "#d4d4d4"
_OWN = "#b3261e"
_MARKERS = "oDs^vPX"


def draw_figures(report):
    """Draw all figures that a report has the scores for.

    Parameters
    ----------
    report : Report

    Returns
    -------
    figures : dict of str to bytes
        PNG images: "scores" always; "leaderboard", the map of mean z-scores, and
        "ranks" if there is a score that can be compared with published ones.
    """
    figures = {}
    if any(np.isfinite(standing.score) for standing in report.standings):
        figures["leaderboard"] = draw_score_map(report.standings)
        figures["ranks"] = draw_ranks(report)
    figures["scores"] = draw_scores(report)
    return {name: _as_png(figure) for name, figure in figures.items()}


def draw_score_map(standings):
    """Draw the z-scores of all systems on the tasks of some standings.

    Parameters
    ----------
    standings : list of Standing

    Returns
    -------
    figure : matplotlib.figure.Figure
        A row per system, sorted by mean z-score, and a column per task. Embedders are
        red and marked by an arrow.
    """
    scores = map_scores(standings)
    n_names, n_columns = scores.z_scores.shape
    cells = np.column_stack([scores.means, scores.z_scores])
    figure = Figure(figsize=(4.2 + 0.52 * n_columns, 2.4 + 0.25 * n_names))
    axes = figure.add_subplot()
    colours = colormaps["RdBu_r"].with_extremes(bad=_MISSING)
    image = axes.imshow(cells, cmap=colours, vmin=-1, vmax=1, aspect="auto")
    for row, column in np.ndindex(n_names, n_columns):
        if np.isfinite(score := scores.scores[row, column]):
            _write_cell(axes, row, column + 1, f"{100 * score:.1f}", cells)
    for row, mean in enumerate(scores.means):
        _write_cell(axes, row, 0, f"{mean:+.2f}", cells)
    axes.axvline(0.5, color="white", linewidth=8)
    axes.set_xticks(range(n_columns + 1), ["mean z-score", *scores.columns])
    axes.xaxis.tick_top()
    for label in axes.get_xticklabels():
        label.set(rotation=90, va="bottom", fontsize=9)
    own = scores.own
    names = [
        f"▶ {_short(name)}" if mine else name
        for name, mine in zip(scores.names, own, strict=True)
    ]
    axes.set_yticks(range(n_names), names, fontsize=8.5)
    for label, mine in zip(axes.get_yticklabels(), own, strict=True):
        label.set(color=_OWN if mine else "black", weight="bold" if mine else "normal")
    _strip(axes)
    bar = figure.colorbar(image, ax=axes, shrink=min(1, 8 / n_names), pad=0.02)
    bar.set_label("z-score, clipped")
    return figure


def draw_ranks(report):
    """Draw where embedders stand among the published scores of each task.

    Parameters
    ----------
    report : Report

    Returns
    -------
    figure : matplotlib.figure.Figure
        A row per task: published scores as grey lines, those of the embedders as
        marks with their ranks.
    """
    board, standings = load_leaderboard(), report.standings
    columns = list(dict.fromkeys(standing.column for standing in standings))
    n_own = len(report.embedders)
    step = 0.24
    height = step * (n_own + 1)
    figure = Figure(figsize=(9, 1.5 + 0.9 * height * len(columns) + 0.22 * n_own))
    axes = figure.add_subplot()
    for row, column in enumerate(columns):
        top = row * height
        published = board.column(column)
        published = published[np.isfinite(published)]
        lines = (top - step / 2, top + height - 1.5 * step)
        axes.vlines(published, *lines, color=_GREY, linewidth=1, alpha=0.7)
        axes.axhline(lines[1] + step / 2, color=_LIGHT, linewidth=1)
    for standing in standings:
        if np.isfinite(standing.score):
            own = report.embedders.index(standing.embedder)
            y = columns.index(standing.column) * height + step * own
            _mark(axes, standing.score, y, own, report.interval_of(standing))
            text = f" {standing.rank}/{standing.n_ranked}"
            axes.text(1.02, y, text, va="center", fontsize=8, color=_colour(own))
    middle = np.arange(len(columns)) * height + step * (n_own - 1) / 2
    axes.set_yticks(middle, columns)
    axes.set(ylim=(height * len(columns) - step, -step), xlim=(-0.02, 1.1))
    axes.set_xlabel("score; grey: published systems; right: rank among them")
    _add_legend(axes, report.embedders)
    _strip(axes)
    return figure


def draw_scores(report):
    """Draw all scores with their intervals.

    Parameters
    ----------
    report : Report

    Returns
    -------
    figure : matplotlib.figure.Figure
        A row per task, a mark per embedder.
    """
    tasks, n_own = report.tasks, len(report.embedders)
    step = 0.24
    height = step * (n_own + 1)
    figure = Figure(figsize=(9, 1.5 + 0.9 * height * len(tasks) + 0.22 * n_own))
    axes = figure.add_subplot()
    names = {}
    for entry in report.entries:
        result = entry.result
        less = "" if result.greater_is_better else ", less is better"
        names[result.task] = f"{_short(result.task)}\n({result.primary}{less})"
        if np.isfinite(result.score):
            own = report.embedders.index(result.embedder)
            y = tasks.index(result.task) * height + step * own
            _mark(axes, result.score, y, own, entry.interval)
    for row in range(len(tasks)):
        axes.axhline((row + 1) * height - step, color=_LIGHT, linewidth=1)
    middle = np.arange(len(tasks)) * height + step * (n_own - 1) / 2
    axes.set_yticks(middle, [names[task] for task in tasks], fontsize=9)
    axes.set(ylim=(height * len(tasks) - step, -step), xlabel="primary score")
    axes.grid(axis="x", color=_LIGHT)
    axes.set_axisbelow(True)
    _add_legend(axes, report.embedders)
    _strip(axes)
    return figure


def _write_cell(axes, row, column, text, cells):
    colour = "white" if abs(cells[row, column]) > 0.7 else "black"
    options = {"ha": "center", "va": "center", "fontsize": 7.5, "color": colour}
    axes.text(column, row, text, **options)


def _mark(axes, score, y, own, interval):
    if interval is not None and np.isfinite([interval.low, interval.high]).all():
        axes.hlines(y, interval.low, interval.high, color=_colour(own), linewidth=2)
    marker = _MARKERS[own % len(_MARKERS)]
    axes.plot([score], [y], marker, color=_colour(own), markersize=6, clip_on=False)


def _colour(own):
    return colormaps["tab10"](own % 10)


def _add_legend(axes, embedders):
    for own, name in enumerate(embedders):
        marker = _MARKERS[own % len(_MARKERS)]
        axes.plot([], [], marker, color=_colour(own), label=_short(name))
    options = {"loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False}
    longest = max(len(_short(name)) for name in embedders)
    n_columns = max(1, min(len(embedders), 80 // (longest + 5)))
    axes.legend(**options, ncols=n_columns, fontsize=9)


def _strip(axes):
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _short(name, length=40):
    """Return a name that fits beside a figure; dollars would start a formula."""
    name = name if len(name) <= length else f"{name[: length - 1]}…"
    return name.replace("$", r"\$")


def _as_png(figure):
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight")
    return buffer.getvalue()
