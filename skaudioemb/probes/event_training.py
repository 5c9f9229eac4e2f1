"""What a detector's probe is trained on, and how."""

from dataclasses import dataclass, replace

import numpy as np
from sklearn.pipeline import Pipeline

from skaudioemb.probes.event_targets import active_labels, check_within, closed
from skaudioemb.probes.event_tuning import as_indicators
from skaudioemb.probes.mlp import MLPProbe


@dataclass(frozen=True)
class LabelledClips:
    """Clips with the events in them and the labels of their frames.

    Parameters
    ----------
    clips : ndarray of int
        Numbers of the clips.
    times : list of ndarray of shape (n_frames,)
        Times of the frames of each clip in seconds.
    events : list of list of Event
    active : list of ndarray of shape (n_frames, n_labels), uint8
    X : ndarray of shape (n_rows, n_features) or None
        The frames of all clips.
    """

    clips: np.ndarray
    times: list
    events: list
    active: list
    X: np.ndarray | None = None

    @classmethod
    def of(cls, clips, times, targets, classes):
        """Return clips with the labels of their frames.

        Parameters
        ----------
        clips : ndarray of int
        times : list of ndarray
        targets : list of list of Event
            Of each clip, as :func:`check_targets` returns them.
        classes : ndarray of shape (n_labels,)

        Raises
        ------
        ValueError
            If an event is far outside of its clip.
        """
        events = [
            closed(target, own[-1]) for target, own in zip(targets, times, strict=True)
        ]
        for clip, found, own in zip(clips, events, times, strict=True):
            check_within(found, own, clip)
        active = [
            active_labels(found, own, classes)
            for found, own in zip(events, times, strict=True)
        ]
        return cls(clips, times, events, active)

    def take(self, mask):
        """Return the clips where ``mask`` is true."""
        chosen = np.flatnonzero(mask)
        lists = ([own[i] for i in chosen] for own in self._lists())
        return LabelledClips(self.clips[mask], *lists)

    def stacked(self, table):
        """Return the clips with their frames from a FrameTable."""
        return replace(self, X=table.stack(self.clips.tolist()))

    @property
    def indicators(self):
        """Labels of all frames, ndarray of shape (n_rows, max(2, n_labels))."""
        return as_indicators(np.concatenate(self.active))

    def _lists(self):
        return self.times, self.events, self.active


def final_step(probe):
    """Return the last step of a Pipeline; any other probe as it is."""
    return probe.steps[-1][1] if isinstance(probe, Pipeline) else probe


def fit_probe(probe, train, valid, scoring):
    """Fit a probe to frames, and an MLPProbe with validation frames of other clips.

    Parameters
    ----------
    probe : classifier
        Fitted in place. Its parameters are as before afterwards.
    train : LabelledClips
        With frames.
    valid : LabelledClips or None
        Likewise.
    scoring : callable or None
        Scorer of the validation frames for an MLPProbe; None leaves its own.

    Returns
    -------
    probe : classifier
    """
    final = final_step(probe)
    if not isinstance(final, MLPProbe):
        return probe.fit(train.X, train.indicators)
    X, X_valid = train.X, None if valid is None else valid.X
    if final is not probe and len(probe.steps) > 1:
        first = probe[:-1]
        X = first.fit_transform(X, train.indicators)
        X_valid = None if valid is None else first.transform(X_valid)
        # A Pipeline with a memory has fitted copies.
        probe.steps = [*first.steps, probe.steps[-1]]
    own = final.validation, final.scoring
    final.validation = None if valid is None else (X_valid, valid.indicators)
    final.scoring = own[1] if scoring is None else scoring
    try:
        final.fit(X, train.indicators)
    finally:
        final.validation, final.scoring = own
    return probe
