"""LogMel, the hand-made baseline."""

from numbers import Integral, Real

from sklearn.utils._param_validation import Interval

from skaudioemb.embedders.base import Embedder


class LogMel(Embedder):
    """Log-mel statistics: what a classifier gets without any upstream model.

    The scene vector is the mean and the standard deviation of each band over time;
    frames are the bands themselves. Clips are resampled to 16 kHz and padded with
    zeros, so that frame ``i`` is centred on ``i * hop`` seconds.

    Parameters
    ----------
    n_mels : int, default=64
        Number of mel bands (HTK scale).
    window : float, default=0.064
        Length of the Hann window in seconds.
    hop : float, default=0.01
        Distance between frames in seconds.
    f_min : float, default=60.0
        Lower edge of the lowest band in Hz.
    f_max : float, default=7800.0
        Upper edge of the highest band in Hz, at most 8000.
    pooling : {"mean-std", "mean", "max", "mean+max"}, default="mean-std"
        Scene vector: mean and deviation side by side, one of them, or the sum of
        mean and maximum.
    segments : int or None, default=None
        Number of equal groups of frames that are pooled apart and concatenated.
    sample_rate : int, default=16000
        Rate of bare arrays in Hz. Files know their own.
    device : str, default="auto"
        A torch device; "auto" takes CUDA if there is one.
    dtype : {"float32", "bfloat16", "float16"}, default="float32"
        Accepted like everywhere; the spectrogram is always computed in float32.
    batch_seconds : float, default=60.0
        Audio in one batch, in seconds.
    memory : str, path-like, Store, joblib.Memory or None, default=None
        Where embeddings are kept, so that no clip is run twice.
    on_error : {"raise", "nan"}, default="raise"
        What a clip that cannot be read does: raise, or become a row of NaN.
    n_jobs : int or None, default=None
        Number of processes; None is 1 unless in a ``joblib.parallel_config``.
    verbose : int, default=0
        Show a progress bar if positive.

    Attributes
    ----------
    n_features_in_ : int
        Samples of each clip, if X was a 2-D array.
    n_layers_ : int
        Always 1.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb import LogMel
    >>> clips = [np.sin(np.arange(n) / 8) for n in (8000, 16000)]
    >>> LogMel(n_mels=40).fit_transform(clips).shape
    (2, 80)
    """

    _poolings = ("mean-std", "mean", "max", "mean+max")

    _parameter_constraints: dict = {
        **Embedder._parameter_constraints,
        "n_mels": [Interval(Integral, 1, None, closed="left")],
        "window": [Interval(Real, 0.001, None, closed="left")],
        "hop": [Interval(Real, 0.0001, None, closed="left")],
        "f_min": [Interval(Real, 0, 8000, closed="left")],
        "f_max": [Interval(Real, 0, 8000, closed="right")],
    }

    def __init__(
        self,
        n_mels=64,
        *,
        window=0.064,
        hop=0.01,
        f_min=60.0,
        f_max=7800.0,
        pooling="mean-std",
        segments=None,
        sample_rate=16000,
        device="auto",
        dtype="float32",
        batch_seconds=60.0,
        memory=None,
        on_error="raise",
        n_jobs=None,
        verbose=0,
    ):
        super().__init__(
            sample_rate=sample_rate,
            device=device,
            dtype=dtype,
            batch_seconds=batch_seconds,
            memory=memory,
            on_error=on_error,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.n_mels = n_mels
        self.window = window
        self.hop = hop
        self.f_min = f_min
        self.f_max = f_max
        self.pooling = pooling
        self.segments = segments

    def _make_spec(self):
        from skaudioemb.encoders.logmel import LogMelSpec

        return LogMelSpec(self.n_mels, self.window, self.hop, self.f_min, self.f_max)
