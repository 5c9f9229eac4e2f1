"""openSMILE's feature sets: descriptors of frames, and their functionals over a clip.

The arithmetic is that of the package opensmile, which is imported when a clip runs.
Everything else is known without it.
"""

import warnings
from dataclasses import dataclass
from importlib import metadata
from typing import NamedTuple

import numpy as np
import torch

from skaudioemb.encoders.base import Encoder, EncoderSpec

LEVELS = {
    "functionals": "Functionals",
    "static": "LowLevelDescriptors",
    "deltas": "LowLevelDescriptors_Deltas",
}
# The largest sample that survives openSMILE's cast to 16 bits; 1.0 would wrap to -1.0.
_PEAK = 32767 / 32768


class FeatureSet(NamedTuple):
    """What is known of a feature set at 16 kHz, without the package.

    Attributes
    ----------
    n_functionals, n_descriptors : int
        Width of a clip's functionals, and of a frame.
    min_samples : int
        Samples below which openSMILE gives no frame at all.
    window : int
        Samples of the window of spectral and energy descriptors.
    has_deltas : bool
        Whether there is a level of deltas.
    """

    n_functionals: int
    n_descriptors: int
    min_samples: int
    window: int
    has_deltas: bool


FEATURE_SETS = {
    "ComParE_2016": FeatureSet(6373, 65, 960, 320, True),
    "eGeMAPSv02": FeatureSet(88, 25, 960, 320, False),
    "eGeMAPSv01b": FeatureSet(88, 23, 960, 320, False),
    "eGeMAPSv01a": FeatureSet(88, 23, 960, 320, False),
    "GeMAPSv01b": FeatureSet(62, 18, 960, 320, False),
    "GeMAPSv01a": FeatureSet(62, 18, 960, 320, False),
    "emobase": FeatureSet(988, 26, 640, 400, True),
    "IS09": FeatureSet(384, 16, 400, 400, True),
    "IS10": FeatureSet(1582, 38, 1120, 400, True),
    "IS11": FeatureSet(4368, 59, 1120, 320, True),
    "IS12": FeatureSet(6125, 64, 1120, 320, True),
    "IS13": FeatureSet(6373, 65, 960, 320, True),
}


@dataclass(frozen=True)
class OpenSMILESpec(EncoderSpec):
    """One level of one feature set.

    Attributes
    ----------
    feature_set : str
        One of FEATURE_SETS.
    level : {"functionals", "static", "deltas"}
        The functionals of a clip are its one frame.
    """

    feature_set: str
    level: str

    sample_rate = 16000
    n_layers = 1
    hop_samples = 160

    def __post_init__(self):
        if self.level == "deltas" and not self._set.has_deltas:
            having = [name for name, each in FEATURE_SETS.items() if each.has_deltas]
            raise ValueError(
                f"descriptors='deltas' is not part of {self.feature_set}. Use "
                f"descriptors='static', or one of {', '.join(having)}."
            )

    @property
    def _set(self):
        return FEATURE_SETS[self.feature_set]

    @property
    def n_features(self):
        if self.level == "functionals":
            return self._set.n_functionals
        return self._set.n_descriptors

    @property
    def min_samples(self):
        return self._set.min_samples

    @property
    def identity(self):
        return f"opensmile-{find_version()}-{self.feature_set}-{self.level}"

    def n_frames(self, n_samples):
        if self.level == "functionals":
            return 1
        # One more than windows of the longest kind fit, for the smoothing over three
        # frames goes on past the last of them.
        return (n_samples - self.min_samples) // self.hop_samples + 2

    def times_of(self, n_samples):
        if self.level == "functionals":
            return np.array([n_samples / self.sample_rate / 2])
        starts = np.arange(self.n_frames(n_samples), dtype=np.float64)
        return (starts * self.hop_samples + self._set.window / 2) / self.sample_rate

    def load(self, device, dtype):
        # openSMILE computes in float32 on the CPU, whatever is asked for.
        return OpenSMILEEncoder(self)


class OpenSMILEEncoder(Encoder):
    """openSMILE, which sees one clip at a time.

    Parameters
    ----------
    spec : OpenSMILESpec

    Attributes
    ----------
    feature_names : list of str
        As openSMILE calls them.
    """

    def __init__(self, spec):
        super().__init__()
        self.spec = spec
        opensmile = import_opensmile()
        level = getattr(opensmile.FeatureLevel, LEVELS[spec.level])
        with warnings.catch_warnings():
            # That a set has a newer version is in our documentation.
            warnings.filterwarnings("ignore", "Feature set ", UserWarning)
            feature_set = getattr(opensmile.FeatureSet, spec.feature_set)
            self.smile = opensmile.Smile(feature_set, level)
        self.feature_names = list(self.smile.feature_names)

    def forward(self, waveforms):
        frames = [self._describe(waveform) for waveform in waveforms]
        yield 0, torch.cat(frames).to(waveforms[0].device)

    def _describe(self, waveform):
        """Return a clip's frames, a Tensor of shape (n_frames, n_features)."""
        samples = waveform.cpu().numpy()
        values = self.smile(np.clip(samples, -1, _PEAK), self.spec.sample_rate)[0].T
        # Deltas go on for two frames past the descriptors that they belong to.
        values = values[: self.spec.n_frames(len(samples))]
        if np.isfinite(values).any():
            values = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def find_version():
    """Return the version of the package opensmile.

    Returns
    -------
    version : str

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        return metadata.version("opensmile")
    except metadata.PackageNotFoundError as error:
        raise _missing() from error


def import_opensmile():
    """Return the package opensmile.

    Returns
    -------
    opensmile : module

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import opensmile
    except ImportError as error:
        raise _missing() from error
    return opensmile


def _missing():
    return ImportError(
        "OpenSMILE needs the package opensmile, whose licence admits research and "
        "forbids use in products. Install it with: pip install 'skaudioemb[opensmile]'"
    )
