"""Train on 200 MB of frames with room for 90 MB more; test_probes_events runs this."""

import resource
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator

from skaudioemb import Event, EventDetector, Frames, MLPProbe

N_CLIPS, N_FRAMES, N_FEATURES = 25, 2000, 1000
ROOM = 90e6


class Wide(BaseEstimator):
    """Frames of many features, the first of which tells when something is heard."""

    def fit(self, X, y=None):
        """Learn nothing."""
        return self

    def frames(self, X):
        """Return the frames of each clip."""
        return [frames for _, frames in self.iter_frames(X)]

    def iter_frames(self, X):
        """Yield the number and the frames of each clip."""
        for index, seed in enumerate(X):
            random = np.random.default_rng(seed)
            values = random.random((N_FRAMES, N_FEATURES), dtype=np.float32)
            values[:, 0] = np.arange(N_FRAMES) // 50 % 2 * 10
            yield index, Frames(values, np.arange(N_FRAMES) / 20)


def fit(n_clips, **params):
    """Fit a detector to some clips."""
    events = [Event("tone", t + 2.5, t + 4.95) for t in range(0, 100, 5)]
    probe = MLPProbe(
        hidden_layers=0, max_epochs=2, check_every=1, lr=1e-2, random_state=0
    )
    return EventDetector(Wide(), probe, random_state=0, **params).fit(
        list(range(n_clips)), [events] * n_clips
    )


def main():
    """Train with a memory map, and then without."""
    fit(2)
    # What is taken from here on counts, memory maps of files do not.
    status = Path("/proc/self/status").read_text().split()
    taken = int(status[status.index("VmData:") + 1]) * 1024
    limit = int(taken + ROOM)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    fitted = fit(N_CLIPS, max_memory=20e6)
    print("mapped: fits" if fitted.probe_.best_score_ > 0.9 else "mapped: fails")
    try:
        fit(N_CLIPS)
    except MemoryError:
        print("held: MemoryError")


if __name__ == "__main__":
    main()
