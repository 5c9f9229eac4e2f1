"""What a report says besides its numbers."""

from dataclasses import asdict

from skaudioemb.hear.protocol import Protocol

_ABOUT_PUBLISHED = (
    "Published scores have no intervals. Those of 2021 were, by the dates of HEAR's "
    "code, trained with batches in a fixed order; those of 2023 were handed in by "
    "their authors.",
    "Exact zeros on DCASE 2016 and Maestro can come from HEAR's code, which ended "
    "training at the first check without a predicted event.",
)
_ABOUT_BEEHIVE = (
    "Beehive is one column of the leaderboard and two folders. How the column was made "
    "of them is not published; the mean of both is compared with it, once an embedder "
    "was run on both."
)


def make_notes(report):
    """Return what to know before the scores of a report are trusted.

    Parameters
    ----------
    report : Report

    Returns
    -------
    notes : list of str
    """
    reasons = {each.result.task: each.reason for each in report.entries if each.reason}
    notes = [
        f"{task} is not compared with published scores: {reason}."
        for task, reason in reasons.items()
    ]
    columns = {entry.column for entry in report.entries}
    if "Beehive" in columns:
        notes.append(_ABOUT_BEEHIVE)
    if report.standings:
        notes += _ABOUT_PUBLISHED
    notes += _about_protocols([entry.result.protocol for entry in report.entries])
    return notes + _about_intervals(report.entries)


def _about_protocols(protocols):
    names = dict.fromkeys(name for protocol in protocols for name in protocol)
    differing = [
        name
        for name in names
        if any(each.get(name) != protocols[0].get(name) for each in protocols)
    ]
    notes = []
    if differing:
        notes.append(
            "The results were made by protocols that differ in "
            f"{', '.join(differing)}; compare them with care."
        )
    changed = [
        f"{name}={protocols[0][name]} (heareval: {value})"
        for name, value in asdict(Protocol.heareval()).items()
        if name not in differing and protocols[0].get(name, value) != value
    ]
    if changed:
        notes.append(
            "The protocol is not that of the published scores, which were made with "
            f"HEAR's code, heareval: {', '.join(changed)}."
        )
    return notes


def _about_intervals(entries):
    entries = [entry for entry in entries if entry.interval]
    if not entries:
        return []
    interval = entries[0].interval
    about = (
        f"Intervals are of {interval.confidence:.0%}, from {interval.n_resamples} "
        "draws of the tested clips. Training clips, folds and the probe's seed stayed "
        "the same, so that the truth is less sure than they say."
    )
    return [about] + [
        f"{entry.result.embedder} on {entry.result.task}: "
        f"{entry.interval.n_undefined} draws without a defined score were left out."
        for entry in entries
        if entry.interval.n_undefined
    ]
