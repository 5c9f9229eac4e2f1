"""EnCodec, whose frames EncodecMAE learned to complete."""

from os import PathLike

from skaudioemb.embedders.base import Embedder


class EnCodec(Embedder):
    """Frames of EnCodec's encoder before quantisation: what a codec knows untrained.

    Clips are resampled to the codec's rate and cut into chunks of 4 s, which are
    encoded one by one, as EncodecMAE hears them. Frame ``i`` of the 24 kHz model is
    centred on ``(i + 0.5) / 75`` s. A clip's embedding does not depend on the batch.

    Parameters
    ----------
    checkpoint : str or path-like, default="facebook/encodec_24khz"
        A model id on the Hugging Face hub, or a folder written by
        ``save_pretrained``.
    revision : str or None, default=None
        Branch, tag or commit of a model id.
    pooling : {"mean", "max", "mean+max"}, default="mean"
        How frames become a scene vector; "mean+max" is the sum of both.
    segments : int or None, default=None
        Number of equal groups of frames that are pooled apart and concatenated.
    sample_rate : int, default=16000
        Rate of bare arrays in Hz. Files know their own.
    device : str, default="auto"
        A torch device; "auto" takes CUDA if there is one.
    dtype : {"float32", "bfloat16", "float16"}, default="float32"
        Accepted like everywhere; the codec is always computed in float32.
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

    See Also
    --------
    EncodecMAE : What was trained on these frames.
    HFAudioModel : The same frames in longer chunks, and those of other codecs.

    Notes
    -----
    Models with chunks of their own, as the one of 48 kHz, keep them, and run as
    :class:`HFAudioModel` runs them.

    References
    ----------
    A. Défossez, J. Copet, G. Synnaeve and Y. Adi, "High Fidelity Neural Audio
    Compression", TMLR 2023, section 3.1. As a baseline: L. Pepino, P. Riera and L.
    Ferrer, "EnCodecMAE", 2023, Table 1, row EC.

    Examples
    --------
    >>> from skaudioemb import EnCodec
    >>> EnCodec(pooling="mean+max")
    EnCodec(pooling='mean+max')
    """

    _parameter_constraints: dict = {
        **Embedder._parameter_constraints,
        "checkpoint": [str, PathLike],
        "revision": [str, None],
    }

    def __init__(
        self,
        checkpoint="facebook/encodec_24khz",
        *,
        revision=None,
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
        self.checkpoint = checkpoint
        self.revision = revision
        self.pooling = pooling
        self.segments = segments

    def _make_spec(self):
        from skaudioemb.encoders.encodecmae_codec import make_codec_spec

        return make_codec_spec(str(self.checkpoint), self.revision)
