"""A detector that learns a small set of events within a fraction of a second."""

from functools import lru_cache

import numpy as np

from skaudioemb import EventDetector, LogMel
from skaudioemb.datasets import make_events
from tests.models import small_probe


@lru_cache
def recordings():
    """Return clips and their events."""
    return make_events(36, return_X_y=True, random_state=0)


def detector(embedder=None, probe=None, **params):
    """Return a detector that is fast to train."""
    defaults = {"random_state": 0, "validation": 0.25}
    return EventDetector(
        LogMel(hop=0.05) if embedder is None else embedder,
        small_probe(max_epochs=40) if probe is None else probe,
        **{**defaults, **params},
    )


def weights(fitted):
    """Return the weights of a fitted detector's probe."""
    return [p.detach().numpy() for p in fitted.probe_.net_.module_.parameters()]


def assert_same_weights(one, other):
    """Equal bit for bit."""
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)
