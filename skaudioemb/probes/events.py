"""Sound event detection: a probe that looks at every frame of a clip."""

from functools import partial
from numbers import Real

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, _fit_context, clone
from sklearn.utils import check_random_state, get_tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skaudioemb.frames import Frames
from skaudioemb.probes.event_frames import FrameTable, checked_clips, iter_frames
from skaudioemb.probes.event_targets import check_targets, closed, sorted_labels
from skaudioemb.probes.event_training import LabelledClips, final_step, fit_probe
from skaudioemb.probes.event_tuning import (
    HEAR_POSTPROCESSING,
    EventScoring,
    PostProcessing,
    expand_grid,
    label_probabilities,
)
from skaudioemb.probes.mlp import MLPProbe
from skaudioemb.probes.postprocessing import frames_to_events
from skaudioemb.probes.rows import hold_out
from skaudioemb.scores.events import event_onset_fms

__all__ = ["HEAR_POSTPROCESSING", "EventDetector", "PostProcessing"]


class EventDetector(MetaEstimatorMixin, BaseEstimator):
    """Detect sound events with a probe on an embedder's frames.

    The probe learns which labels are active at each frame, those of all clips
    together. Its probabilities are median-filtered along time; a run of frames above
    the threshold is an event, unless it is too short. This is how the HEAR benchmark
    does its event tasks [1]_.

    Parameters
    ----------
    embedder : Embedder or Fusion
        Gives the frames. With ``memory`` it runs no clip twice, in whatever search
        the detector is.
    probe : classifier or None, default=None
        A classifier of frames with several labels and ``predict_proba``. None is
        ``MLPProbe()``; a Pipeline that ends in an MLPProbe can scale the frames
        before. The detector sets the ``validation`` of an MLPProbe.
    median_filter : float, default=0.25
        Length of the median filter in seconds; 0 is none.
    min_duration : float, default=0.125
        Seconds from an event's first frame to its last; shorter ones are left out.
    threshold : float, default=0.5
        A frame is active if its filtered probability is above it.
    validation : float, tuple (X, y) or None, default=0.1
        Clips to validate on: the part in (0, 1) of all clips to hold out, such that
        no label is lost for training, or other clips with their events. They stop an
        MLPProbe's training and choose the post-processing. With None, or if no clip
        can be spared, all clips are trained on for the probe's ``max_epochs``.
    scoring : {"event_onset_fms"} or None, default=None
        What the checks of an MLPProbe's training compare. None is the probe's own
        ``scoring`` of frames; "event_onset_fms" the F-measure of the events that the
        frames amount to, with the best post-processing of the grid, as HEAR does.
    postprocessing_grid : dict or None, default=None
        Values of ``median_filter``, ``min_duration`` and ``threshold`` to try on the
        validation clips after the probe is trained, for instance
        ``HEAR_POSTPROCESSING``. The best onset F-measure wins, the larger values of
        several. What is not in the grid is as the parameters say.
    collar : float, default=0.2
        Allowed difference of onsets in seconds, in every F-measure.
    max_memory : float, default=2**31
        Bytes of frames to hold in memory for training; up to twice as many are taken
        while they are put together. If there are more, they are trained on from a
        memory map of a temporary file. Results are the same.
    random_state : int, RandomState instance or None, default=None
        Determines the clips held out, and all of the default probe. Other probes have
        a ``random_state`` of their own.

    Attributes
    ----------
    classes_ : ndarray of shape (n_labels,)
        The labels in ``fit``, sorted. Labels are compared as text.
    embedder_ : Embedder or Fusion
        The fitted embedder.
    probe_ : classifier
        The fitted probe.
    postprocessing_ : PostProcessing
        What ``predict`` uses: ``median_filter``, ``min_duration``, ``threshold``.
    postprocessing_scores_ : dict of PostProcessing to float
        Onset F-measures on the validation clips; empty without a grid.
    validation_clips_ : ndarray of int
        Which clips of X were held out.
    n_features_in_ : int
        Samples of each clip, if X was a 2-D array.

    See Also
    --------
    skaudioemb.hear.scores.make_hear_scorer : Other scores of events for searches.
    skaudioemb.probes.postprocessing.frames_to_events : The post-processing.

    Notes
    -----
    An event labels the frames from its start to its end, both included. It may begin
    before its clip or end after it.

    A search over ``median_filter``, ``min_duration`` or ``threshold`` trains a probe
    for each value; ``postprocessing_grid`` tries them with one.

    Frames are read clip by clip. Before the training they stand in one float32 array,
    in the order of X; an MLPProbe reads its batches from it and copies nothing else,
    while a Pipeline's earlier steps hold what they return in memory. Where the array is
    a memory map far larger than the memory, the probe's ``shuffle=False`` spares the
    disk: it reads the rows one after the other.

    References
    ----------
    .. [1] J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations",
       Proceedings of Machine Learning Research 176 (NeurIPS 2021), 2022. Details
       follow its code, heareval 2021.1.3.

    Examples
    --------
    >>> from skaudioemb import EventDetector, LogMel, MLPProbe
    >>> from skaudioemb.datasets import make_events
    >>> X, y = make_events(24, kinds=["beep", "hiss"], return_X_y=True, random_state=0)
    >>> probe = MLPProbe(hidden_units=32, lr=1e-2, max_epochs=30, random_state=0)
    >>> detector = EventDetector(LogMel(hop=0.05), probe, random_state=0)
    >>> detector.fit(X[:16], y[:16]).score(X[16:], y[16:]) > 0.8
    True
    >>> [event.label for event in detector.predict([X[18]])[0]]
    ['beep', 'hiss', 'beep']
    """

    _parameter_constraints: dict = {
        "embedder": [HasMethods(["fit", "frames"])],
        "probe": [HasMethods(["fit", "predict_proba"]), None],
        "median_filter": [Interval(Real, 0, None, closed="left")],
        "min_duration": [Interval(Real, 0, None, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="left")],
        "validation": [Interval(Real, 0, 1, closed="neither"), tuple, list, None],
        "scoring": [StrOptions({"event_onset_fms"}), None],
        "postprocessing_grid": [dict, None],
        "collar": [Interval(Real, 0, None, closed="left")],
        "max_memory": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        embedder,
        probe=None,
        *,
        median_filter=0.25,
        min_duration=0.125,
        threshold=0.5,
        validation=0.1,
        scoring=None,
        postprocessing_grid=None,
        collar=0.2,
        max_memory=2**31,
        random_state=None,
    ):
        self.embedder = embedder
        self.probe = probe
        self.median_filter = median_filter
        self.min_duration = min_duration
        self.threshold = threshold
        self.validation = validation
        self.scoring = scoring
        self.postprocessing_grid = postprocessing_grid
        self.collar = collar
        self.max_memory = max_memory
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y):
        """Train the probe on the frames of all clips, and choose the post-processing.

        Parameters
        ----------
        X : sequence of clips or array-like of shape (n_clips, n_samples)
            Recordings; see :func:`skaudioemb.audio.load` for the forms of a clip.
        y : list of n_clips lists of Event, or array-like of shape (n_clips,)
            What is heard in each clip: (label, start, end), times in seconds from the
            start of the clip, labels of any type. Or one label per clip that is heard
            throughout.

        Returns
        -------
        self : EventDetector
            The fitted detector.

        Raises
        ------
        TypeError
            If y does not hold lists of events.
        ValueError
            If a parameter or an event is not valid, X and y differ in length, or there
            is no event at all.
        AudioError
            At the first bad clip, if the embedder has ``on_error="raise"``. Clips that
            it lets pass are left out.
        """
        default = self._own_postprocessing()
        settings = expand_grid(self.postprocessing_grid or {}, default)
        rng = check_random_state(self.random_state)
        probe = self._make_probe(rng)
        self.embedder_ = clone(self.embedder).fit(X)
        X = checked_clips(self.embedder_, X)
        targets = check_targets(y, len(X))
        self.classes_ = sorted_labels(targets)
        given = self._given_validation()
        with FrameTable(self.max_memory) as table:
            table.add(iter_frames(self.embedder_, X))
            train, valid = self._split(table, targets, given, rng)
            self._check_validation(valid is not None)
            scoring = valid and EventScoring(
                valid.times,
                valid.events,
                self.classes_.tolist(),
                settings,
                partial(event_onset_fms, collar=self.collar, zero_division=0),
            )
            self.probe_ = fit_probe(probe, train, valid, self.scoring and scoring)
            self.postprocessing_, self.postprocessing_scores_ = default, {}
            if self.postprocessing_grid is not None:
                scores = scoring.scores(self._probabilities(valid.X))
                ranked = dict(zip(settings, scores.tolist(), strict=True))
                self.postprocessing_scores_ = ranked
                self.postprocessing_ = max(ranked, key=ranked.get)
            # A memory map must be let go before its file is removed.
            del train, valid
        return self

    def predict(self, X):
        """Return the events of each clip.

        Parameters
        ----------
        X : sequence of clips or array-like of shape (n_clips, n_samples)
            Recordings.

        Returns
        -------
        events : list of n_clips lists of Event
            Sorted by start, then by label, in seconds. Empty for a clip that could
            not be read, if the embedder has ``on_error="nan"``.
        """
        check_is_fitted(self, "probe_")
        X = checked_clips(self.embedder_, X)
        labels, settings = self.classes_.tolist(), self.postprocessing_._asdict()
        events = [[] for _ in range(len(X))]
        for index, (values, times) in self._iter_probabilities(X):
            events[index] = frames_to_events(values, times, labels, **settings)
        return events

    def predict_proba(self, X):
        """Return the probabilities of each clip's frames.

        Parameters
        ----------
        X : sequence of clips or array-like of shape (n_clips, n_samples)
            Recordings.

        Returns
        -------
        frames : list of Frames
            For each clip ``values`` of shape (n_frames, n_labels), the columns as in
            ``classes_``, and ``times`` of shape (n_frames,) in seconds. One frame of
            NaN for a clip that could not be read, if the embedder has
            ``on_error="nan"``.
        """
        check_is_fitted(self, "probe_")
        X = checked_clips(self.embedder_, X)
        missing = np.full((1, len(self.classes_)), np.nan, np.float32)
        frames = [Frames(missing, np.full(1, np.nan)) for _ in range(len(X))]
        for index, probabilities in self._iter_probabilities(X):
            frames[index] = probabilities
        return frames

    def score(self, X, y):
        """Return the F-measure of labels and onsets, counted over all clips.

        Parameters
        ----------
        X : sequence of clips or array-like of shape (n_clips, n_samples)
            Recordings.
        y : list of n_clips lists of Event, or array-like of shape (n_clips,)
            The truth. Events of labels that ``fit`` did not see count as missed.

        Returns
        -------
        score : float
            1 is perfect; 0 if nothing is found.
        """
        events = self.predict(X)
        truth = [closed(target) for target in check_targets(y, len(events))]
        return event_onset_fms(truth, events, self.collar, zero_division=0)

    @property
    def n_features_in_(self):
        """Number of samples of each clip, if X was a 2-D array."""
        check_is_fitted(self, "embedder_")
        return self.embedder_.n_features_in_

    def _own_postprocessing(self):
        return PostProcessing(self.median_filter, self.min_duration, self.threshold)

    def _make_probe(self, rng):
        if self.probe is None:
            return MLPProbe(random_state=rng.randint(np.iinfo(np.int32).max))
        final = final_step(self.probe)
        if self.scoring is not None and not isinstance(final, MLPProbe):
            raise ValueError(
                f"scoring={self.scoring!r} needs checks during the training, which "
                f"{type(final).__name__} does not make. Use an MLPProbe, or None."
            )
        return clone(self.probe)

    def _split(self, table, targets, given, rng):
        """Return the training and the validation clips, None if there are none."""
        clips = self._labelled(table, targets)
        held_out = np.zeros(len(clips.clips), dtype=bool)
        if self.validation is not None and given is None:
            codes = np.array([active.any(axis=0) for active in clips.active])
            held_out = hold_out(codes, self.validation, rng)
        self.validation_clips_ = clips.clips[held_out]
        train = clips.take(~held_out).stacked(table)
        if given is not None:
            X, targets = given
            table.add(iter_frames(self.embedder_, X))
            return train, self._labelled(table, targets).stacked(table)
        return train, clips.take(held_out).stacked(table) if held_out.any() else None

    def _labelled(self, table, targets):
        clips = np.array(sorted(table.times), dtype=int)
        if not len(clips):
            raise ValueError(
                f"None of {len(targets)} clips could be embedded; see the warning."
            )
        times = [table.times[clip] for clip in clips.tolist()]
        targets = [targets[clip] for clip in clips.tolist()]
        return LabelledClips.of(clips, times, targets, self.classes_)

    def _given_validation(self):
        """Return the clips and targets of ``validation``, None if there are none."""
        if not isinstance(self.validation, tuple | list):
            self._check_validation(self.validation is not None)
            return None
        if len(self.validation) != 2:
            raise ValueError(
                f"validation is a sequence of {len(self.validation)} items. Give the "
                "pair (X_valid, y_valid), a fraction in (0, 1), or None."
            )
        X, y = self.validation
        X = checked_clips(self.embedder_, X)
        try:
            return X, check_targets(y, len(X))
        except (TypeError, ValueError) as error:
            message = f"The validation clips do not fit: {error}"
            raise type(error)(message) from error

    def _check_validation(self, there_is):
        names = ("postprocessing_grid", "scoring")
        needing = [name for name in names if getattr(self, name) is not None]
        if needing and not there_is:
            raise ValueError(
                f"{needing[0]} needs validation clips, but there are none: validation="
                f"{self.validation!r}. Give a fraction of the clips, (X, y), or more "
                "clips."
            )

    def _probabilities(self, X):
        return label_probabilities(self.probe_, X, self.classes_)

    def _iter_probabilities(self, X):
        for index, (values, times) in iter_frames(self.embedder_, X):
            yield index, Frames(self._probabilities(values), times)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.allow_nan = get_tags(self.embedder).input_tags.allow_nan
        return tags
