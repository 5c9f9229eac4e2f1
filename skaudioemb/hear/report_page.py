"""The report as one HTML page that needs no other file."""

from base64 import b64encode
from html import escape

import numpy as np

from skaudioemb.hear.leaderboard import SOURCE
from skaudioemb.hear.result_folders import describe_failure

_CAPTIONS = {
    "leaderboard": "Scores in percent of all systems on the tasks below, coloured by "
    "z-score per task, clipped to [-1, 1], and sorted by mean z-score. Mean and "
    "deviation are those of the published systems; tasks that a system was not run on, "
    "in grey, are left out of its mean.",
    "ranks": "Scores and intervals among the published ones.",
    "scores": "Primary scores and intervals of all results.",
}

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem;
  padding: 0 1rem; background: Canvas; color: CanvasText; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; font-size: 0.9rem; }
th, td { padding: 0.25rem 0.7rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid color-mix(in srgb, CanvasText 18%, Canvas); }
td.number { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
figure { margin: 1rem 0 2rem; }
img { background: white; max-width: 100%; border-radius: 4px; }
figcaption, .small { font-size: 0.85rem; opacity: 0.8; }
code { font-size: 0.85rem; overflow-wrap: anywhere; }
"""


class _Number(str):
    """Text of a cell that is aligned to the right."""


def render_page(report, figures):
    """Return the report as HTML.

    Parameters
    ----------
    report : Report
    figures : dict of str to bytes
        PNG images by name, as ``draw_figures`` gives them.

    Returns
    -------
    page : str
    """
    sections = [
        ("Among the published systems", _standings(report, figures)),
        ("Results", _figure("scores", figures) + _results(report)),
        ("What was chosen", _choices(report)),
        ("Time", _times(report)),
        ("Failures", _list(map(describe_failure, report.failures))),
        ("Notes", _list(report.notes())),
        ("Protocol", _settings(report, "protocol")),
        ("Versions", _settings(report, "versions")),
        ("Embedders", _embedders(report)),
    ]
    body = "\n".join(f"<h2>{title}</h2>\n{text}" for title, text in sections if text)
    counts = f"{_count(report.embedders, 'embedder')}, {_count(report.tasks, 'task')}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>HEAR report</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>HEAR 2021: {counts}</h1>\n{body}\n</body>\n</html>\n"
    )


def _standings(report, figures):
    if not report.standings:
        return (
            "<p>None of the tasks is one of the leaderboard in the same version and "
            "size, so that no score is set beside the published ones.</p>"
        )
    head = ["embedder", "task", "score", "interval", "rank", "z-score"]
    head += ["best published", "best system", "median published"]
    rows = []
    for each in report.standings:
        rank = f"{each.rank or '-'} of {each.n_ranked}"
        row = [each.embedder, each.column, _number(each.score)]
        row += [_interval(report.interval_of(each)), _Number(rank)]
        row += [_number(each.z_score, "+.2f"), _number(each.best), each.best_system]
        rows.append([*row, _number(each.median)])
    return (
        _figure("leaderboard", figures)
        + _figure("ranks", figures)
        + _table(head, rows)
        + f'<p class="small">Published scores: {escape(SOURCE)}</p>'
    )


def _results(report):
    head = ["embedder", "task", "score", "mean", "interval", "deviation of splits"]
    head += ["place", "splits", "clips", "features", "other scores", "compared"]
    rows = []
    for entry in report.entries:
        result = entry.result
        others = ", ".join(
            f"{name} {_number(score)}"
            for name, score in result.scores.items()
            if name != result.primary
        )
        less = "" if result.greater_is_better else " (less is better)"
        row = [result.embedder, result.task, result.primary + less]
        row += [_number(result.score), _interval(entry.interval)]
        row += [_number(result.deviations[result.primary])]
        row += [_Number(entry.place or "-"), _Number(len(result.splits))]
        row += [_Number(result.n_clips), _Number(result.n_features), others]
        rows.append([*row, entry.reason or entry.column])
    return _table(head, rows)


def _choices(report):
    head = ["embedder", "task", "split", "score", "validation", "hyper-parameters"]
    head += ["events", "epochs (best)", "candidates"]
    rows = []
    for entry in report.entries:
        result = entry.result
        for split in result.splits:
            row = [result.embedder, result.task, split.test]
            row += [_number(split.scores[result.primary])]
            row += [_number(split.validation_score), _pairs(split.hyperparameters)]
            row += [_pairs(split.postprocessing or {})]
            row += [_Number(f"{split.n_epochs} ({split.best_epoch})")]
            rows.append([*row, _Number(len(split.search) or "")])
    return _table(head, rows)


def _times(report):
    results = [entry.result for entry in report.entries]
    names = list(dict.fromkeys(name for each in results for name in each.seconds))
    rows = [
        [each.embedder, each.task]
        + [_number(each.seconds.get(name, np.nan), ".1f") for name in names]
        for each in results
    ]
    return _table(["embedder", "task", *(f"{name} (s)" for name in names)], rows)


def _settings(report, attribute):
    """Return the settings of all results, one column for each variant of them."""
    variants = []
    for entry in report.entries:
        settings = getattr(entry.result, attribute)
        if settings not in variants:
            variants.append(settings)
    names = list(dict.fromkeys(name for settings in variants for name in settings))
    rows = [[name, *(str(each.get(name, "")) for each in variants)] for name in names]
    if len(variants) == 1:
        return _table(["", "all results"], rows)
    users = [
        ", ".join(
            f"{entry.result.embedder} on {entry.result.task}"
            for entry in report.entries
            if getattr(entry.result, attribute) == settings
        )
        for settings in variants
    ]
    return _table(["", *users], rows)


def _embedders(report):
    printed = {}
    for entry in report.entries:
        texts = printed.setdefault(entry.result.embedder, [])
        if entry.result.parameters not in texts:
            texts.append(entry.result.parameters)
    return "\n".join(
        f"<p>{escape(name)}: <code>{escape(text)}</code></p>"
        for name, texts in printed.items()
        for text in texts
    )


def _figure(name, figures):
    if name not in figures:
        return ""
    data = b64encode(figures[name]).decode("ascii")
    return (
        f'<figure><img alt="{escape(_CAPTIONS[name])}" '
        f'src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(_CAPTIONS[name])}</figcaption></figure>\n"
    )


def _table(head, rows):
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<div class="wide"><table>\n<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{lines}\n</tbody></table></div>\n"
    )


def _cell(text):
    kind = ' class="number"' if isinstance(text, _Number) else ""
    return f"<td{kind}>{escape(text)}</td>"


def _list(items):
    lines = "\n".join(f"<li>{escape(item)}</li>" for item in items)
    return f"<ul>\n{lines}\n</ul>" if lines else ""


def _number(value, form=".3f"):
    return _Number("-" if np.isnan(value) else format(value, form))


def _interval(interval):
    return _Number(interval.ends if interval else "")


def _pairs(settings):
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def _count(items, noun):
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"
