"""HFAudioModel: any audio encoder that transformers loads."""

from numbers import Real
from os import PathLike

from sklearn.utils._param_validation import Interval

from skaudioemb.embedders.base import Embedder


class HFAudioModel(Embedder):
    """Embeddings of any audio encoder of transformers.

    What the model needs to know is read from the checkpoint: sample rate, feature
    extraction, layers, frames and their times, and windows. A clip's embedding does
    not depend on the batch: clips run together only where that is exact.

    Parameters
    ----------
    checkpoint : str or path-like
        A model id on the Hugging Face hub, or a folder written by
        ``save_pretrained``.
    revision : str or None, default=None
        Branch, tag or commit of a model id.
    trust_remote_code : bool, default=False
        Whether Python code that comes with the checkpoint may run, with all rights of
        this process. Read it first.
    layers : {"last", "mean", "all"}, int or list of int, default="last"
        The final output; the average of every hidden state; every one side by side;
        one, 0 being the input of the first block; or the average of some. Before
        "last", pre-norm models give the raw residual stream; "last" includes their
        closing norm. Models whose layers differ in shape have one.
    pooling : {"mean", "max", "mean+max"}, default="mean"
        How frames become a scene vector; "mean+max" is the sum of both.
    segments : int or None, default=None
        Number of equal groups of frames that are pooled apart and concatenated.
    max_seconds : float or None, default=60.0
        Longer clips run in equal windows of about this length at most, cut between
        frames. Models with a window of their own keep it. None sets no limit.
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
        Number of layers, the embedding output included.

    See Also
    --------
    Wav2Vec2, HuBERT, WavLM : The same numbers for their kinds of checkpoints.

    Examples
    --------
    >>> from skaudioemb import HFAudioModel
    >>> HFAudioModel("openai/whisper-base", layers="mean")
    HFAudioModel(checkpoint='openai/whisper-base', layers='mean')
    """

    _parameter_constraints: dict = {
        **Embedder._parameter_constraints,
        "checkpoint": [str, PathLike],
        "revision": [str, None],
        "trust_remote_code": ["boolean"],
        "max_seconds": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init__(
        self,
        checkpoint,
        *,
        revision=None,
        trust_remote_code=False,
        layers="last",
        pooling="mean",
        segments=None,
        max_seconds=60.0,
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
        self.checkpoint = checkpoint
        self.revision = revision
        self.trust_remote_code = trust_remote_code
        self.layers = layers
        self.pooling = pooling
        self.segments = segments
        self.max_seconds = max_seconds

    def _make_spec(self):
        from skaudioemb.encoders.huggingface.spec import make_spec

        return make_spec(
            str(self.checkpoint),
            self.revision,
            self.trust_remote_code,
            self.max_seconds,
        )
