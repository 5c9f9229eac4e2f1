"""make_events: what it says is heard, and when it is heard."""

import numpy as np
import pytest

from skaudioemb.datasets import make_events

KINDS = ["beep", "bell", "chirp", "hiss", "knock"]


def test_events_are_where_the_sound_is():
    events = make_events(30, n_events=1, noise=0.0, random_state=0)
    assert {e.label for clip in events.target for e in clip} == set(KINDS)
    for clip, ((_, start, end),) in zip(events.data, events.target, strict=True):
        heard = np.flatnonzero(np.abs(clip) > 1e-3) / events.sample_rate
        assert heard[0] == pytest.approx(start, abs=0.02)
        # Bells and knocks fade before their end.
        assert end - 0.25 < heard[-1] <= end + 1e-3


def test_form():
    events = make_events(30, duration=(1.0, 2.0), n_events=(1, 3), random_state=0)
    assert events.target_names == KINDS
    lengths = np.array([len(clip) for clip in events.data]) / 16000
    assert 1 <= lengths.min() < 1.2
    assert 1.8 < lengths.max() <= 2
    assert {len(clip) for clip in events.target} == {1, 2, 3}
    for clip, length, own in zip(events.data, lengths, events.target, strict=True):
        assert clip.dtype == np.float32
        assert np.abs(clip).max() <= 1
        assert own == sorted(own, key=lambda event: event.start)
        assert all(0 <= e.start < e.end <= length + 1e-4 for e in own)
    assert f"{sum(map(len, events.target))} events" in events.DESCR


def test_only_different_kinds_overlap():
    events = make_events(30, n_events=6, random_state=0)
    n_overlaps = 0
    for clip in events.target:
        for i, one in enumerate(clip):
            for other in clip[i + 1 :]:
                n_overlaps += other.start < one.end
                assert one.label != other.label or other.start > one.end + 0.3
    assert n_overlaps > 30


def test_noise_and_silence():
    (silence,) = make_events(1, n_events=0, noise=0, random_state=0).data
    assert not silence.any()
    (noise,) = make_events(1, n_events=0, noise=0.1, random_state=0).data
    assert noise.std() == pytest.approx(0.1, rel=0.05)


def test_random_state_and_return_X_y():
    events = make_events(4, random_state=5)
    X, y = make_events(4, random_state=5, return_X_y=True)
    assert all((a == b).all() for a, b in zip(X, events.data, strict=True))
    assert y == events.target
    assert make_events(4, random_state=6).target != y


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_clips": 0}, "n_clips=0 must be a whole number"),
        (
            {"sample_rate": 4000},
            "sample_rate=4000 must be a whole number of at least 8",
        ),
        ({"kinds": ["moo"]}, "choose from beep, bell, chirp, hiss, knock"),
        ({"kinds": []}, "choose from beep"),
        ({"n_events": (3, 1)}, "n_events=.* the fewest and the most"),
        ({"n_events": 1.5}, "n_events=1.5 must be a whole number"),
        ({"duration": (2.0, 1.0)}, "duration=.* must be a positive number of seconds"),
        ({"noise": -1}, "noise=-1 must be 0 or a positive"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_events(**arguments)
