"""EncodecMAE, and EnCodec whose frames it learned to complete."""

from numbers import Integral
from os import PathLike

from sklearn.utils._param_validation import Interval, StrOptions

from skaudioemb.embedders.base import Embedder


class EncodecMAE(Embedder):
    """Embeddings of an EncodecMAE checkpoint, or of one before training.

    Clips are resampled to 24 kHz and cut into chunks of 4 s, which are embedded one by
    one; positions begin anew in each. Frames come at 75 Hz, frame ``i`` centred on
    ``(i + 0.5) / 75`` s; with the mel front end every 13.25 ms, where their windows
    are. A last frame that the clip does not fill is embedded too, but no frame
    attends to it. A clip's embedding does not depend on the batch.

    Parameters
    ----------
    checkpoint : str, path-like or None, default="lpepino/encodecmae-base"
        A published file of weights, or a folder with one; a repository of the Hugging
        Face hub with ``model.pt``; or a file in one, as
        "lpepino/encodecmae-v2/mel256-ec-base.pt". Both generations are known by the
        names of their tensors; nothing but tensors is unpickled, and the text of
        their configuration is not used. None stands for random weights.
    revision : str or None, default=None
        Branch, tag or commit of a repository.
    n_heads : int, default=12
        Number of attention heads of the checkpoint. The file does not tell it; all
        published ones have 12.
    size : {"small", "base", "large"} or dict, default="base"
        Measures of a model with random weights: 5 layers of 768 features, 10 of 768,
        or 20 of 1024; or ``n_layers``, ``n_features``, ``n_heads`` and ``n_hidden``.
        Only used with ``checkpoint=None``, like the next three.
    front_end : {"codec", "mel"}, default="codec"
        What it hears: frames of a codec before quantisation, or 256 mel bands.
    codec : str or path-like, default="facebook/encodec_24khz"
        The frozen EnCodec: a model id on the Hugging Face hub, or a folder written by
        ``save_pretrained``.
    random_state : int, default=0
        Decides the random weights.
    layers : {"last", "mean", "all"}, int or list of int, default="last"
        The final output; the average of the input of the first block and every
        block; every one side by side; one, 0 being the input of the first block; or
        the average of some. What the published code calls layer ``i`` is ``i + 1``.
    stream : {"combined", "normed", "residual"}, default="combined"
        Blocks carry two streams, one normalised after each sum and one never. As
        published, layers are the normalised one, and the last is the sum of both,
        the other normalised; "normed" leaves that sum out, as the teacher of the
        paper's self-training; "residual" is the other stream of every layer.
    pooling : {"mean", "max", "mean+max"}, default="mean"
        How frames become a scene vector; "mean+max" is the sum of both.
    segments : int or None, default=None
        Number of equal groups of frames that are pooled apart and concatenated.
    sample_rate : int, default=16000
        Rate of bare arrays in Hz. Files know their own.
    device : str, default="auto"
        A torch device; "auto" takes CUDA if there is one.
    dtype : {"float32", "bfloat16", "float16"}, default="float32"
        Precision of the blocks; front end and embeddings are float32 in any case.
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
        Number of layers, the input of the first block included.

    See Also
    --------
    EnCodec : The codec's frames alone.

    Notes
    -----
    The model is frozen: ``fit`` checks the parameters and trains nothing. With
    ``memory``, a grid over ``layers`` and ``pooling`` runs each clip once.

    One feed-forward network serves all layers of a model. The base model has 37.4
    million parameters, with EnCodec's encoder and without the decoder of its
    training; the paper's 94 million count that network once a layer.

    The published code differs where it slips. Its first release masks the last frame
    of the first clip of a batch only. Its second leaves out tails of at most 2048
    samples, never masks the last frame of clips over 4 s, and in a batch masks frames
    of a clip because of its place there. For single clips up to 4 s it gives the same.

    The mel front end gives no frames for a tail under 637 samples (27 ms).

    References
    ----------
    L. Pepino, P. Riera and L. Ferrer, "EnCodecMAE: Leveraging neural codecs for
    universal audio representation learning", 2023, sections 2 and 3.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb import EncodecMAE
    >>> clips = [np.sin(np.arange(n) / 8) for n in (8000, 16000)]
    >>> size = {"n_layers": 2, "n_features": 24, "n_heads": 4, "n_hidden": 48}
    >>> untrained = EncodecMAE(None, size=size, front_end="mel", layers="mean")
    >>> untrained.fit_transform(clips).shape
    (2, 24)
    >>> [len(times) for _, times in untrained.frames(clips)]
    [36, 74]
    """

    _parameter_constraints: dict = {
        **Embedder._parameter_constraints,
        "checkpoint": [str, PathLike, None],
        "revision": [str, None],
        "n_heads": [Interval(Integral, 1, None, closed="left")],
        "size": [StrOptions({"small", "base", "large"}), dict],
        "front_end": [StrOptions({"codec", "mel"})],
        "codec": [str, PathLike],
        "random_state": [Interval(Integral, 0, None, closed="left")],
        "stream": [StrOptions({"combined", "normed", "residual"})],
    }

    def __init__(
        self,
        checkpoint="lpepino/encodecmae-base",
        *,
        revision=None,
        n_heads=12,
        size="base",
        front_end="codec",
        codec="facebook/encodec_24khz",
        random_state=0,
        layers="last",
        stream="combined",
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
        self.n_heads = n_heads
        self.size = size
        self.front_end = front_end
        self.codec = codec
        self.random_state = random_state
        self.layers = layers
        self.stream = stream
        self.pooling = pooling
        self.segments = segments

    def _make_spec(self):
        from skaudioemb.encoders.encodecmae import EncodecMAESpec, RandomEncodecMAESpec
        from skaudioemb.encoders.encodecmae_network import make_size

        if self.checkpoint is None:
            return RandomEncodecMAESpec(
                make_size(self.size),
                self.front_end,
                str(self.codec),
                int(self.random_state),
                self.stream,
            )
        return EncodecMAESpec(
            str(self.checkpoint), self.revision, int(self.n_heads), self.stream
        )


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
