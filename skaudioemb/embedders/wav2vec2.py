"""Wav2Vec2 and HuBERT: self-supervised speech transformers."""

from skaudioemb.embedders.speech import SpeechEmbedder


class Wav2Vec2(SpeechEmbedder):
    """Embeddings of a wav2vec 2.0 checkpoint.

    Frames come every 20 ms, centred on 12.5 + 20 t ms. A clip's embedding does not
    depend on the batch: clips are never padded, and normalised one by one.

    Parameters
    ----------
    checkpoint : str or path-like, default="facebook/wav2vec2-base"
        A model id on the Hugging Face hub, or a folder written by
        ``save_pretrained``. Base and large kinds, also fine-tuned ones.
    revision : str or None, default=None
        Branch, tag or commit of a model id.
    layers : {"last", "mean", "all"}, int or list of int, default="last"
        The final output; the average of the embedding output and every block (Wu et
        al.); every layer side by side; one layer, 0 being the embedding output; or
        the average of some. Before "last", pre-norm models give the raw residual
        stream; "last" includes their closing layer norm.
    pooling : {"mean", "max", "mean+max"}, default="mean"
        How frames become a scene vector; "mean+max" is the sum of both.
    segments : int or None, default=None
        Number of equal groups of frames that are pooled apart and concatenated.
    normalize : {"checkpoint", "none", "zero-mean-unit-var", "layer-norm"}, \
            default="checkpoint"
        Scaling of each clip: what the checkpoint's preprocessor file says, none, or
        zero mean and unit variance with 1e-7, as transformers does, or 1e-5, as
        fairseq and SpeechBrain do, added to the variance.
    output_norm : bool, default=False
        Whether to scale the last layer of each clip to zero mean and unit variance
        over all of its frames and features, as SpeechBrain does.
    max_seconds : float or None, default=60.0
        Frames of longer clips attend within as few equal windows of at most this
        length as hold the clip, which bounds time and memory; the convolutions still
        see the whole clip, and no frame is lost or doubled. None sets no limit.
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

    Notes
    -----
    The model is frozen: ``fit`` checks the parameters and trains nothing. With
    ``memory``, a grid over ``layers`` and ``pooling`` runs each clip once; the first
    use of the maximum of a list of layers, of another ``segments``, or of the frames
    of another layer runs it again.

    References
    ----------
    A. Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of
    Speech Representations", NeurIPS 2020.

    Examples
    --------
    >>> from skaudioemb import Wav2Vec2
    >>> Wav2Vec2(layers="mean")
    Wav2Vec2(layers='mean')
    """

    _architecture = "wav2vec2"

    def __init__(
        self,
        checkpoint="facebook/wav2vec2-base",
        *,
        revision=None,
        layers="last",
        pooling="mean",
        segments=None,
        normalize="checkpoint",
        output_norm=False,
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
            checkpoint,
            revision=revision,
            layers=layers,
            pooling=pooling,
            segments=segments,
            normalize=normalize,
            output_norm=output_norm,
            max_seconds=max_seconds,
            sample_rate=sample_rate,
            device=device,
            dtype=dtype,
            batch_seconds=batch_seconds,
            memory=memory,
            on_error=on_error,
            n_jobs=n_jobs,
            verbose=verbose,
        )


class HuBERT(SpeechEmbedder):
    """Embeddings of a HuBERT checkpoint.

    Frames come every 20 ms, centred on 12.5 + 20 t ms. A clip's embedding does not
    depend on the batch: clips are never padded, and normalised one by one.

    Parameters
    ----------
    checkpoint : str or path-like, default="facebook/hubert-base-ls960"
        A model id on the Hugging Face hub, or a folder written by
        ``save_pretrained``. Base, large and xlarge kinds.
    revision : str or None, default=None
        Branch, tag or commit of a model id.
    layers : {"last", "mean", "all"}, int or list of int, default="last"
        The final output; the average of the embedding output and every block (Wu et
        al.); every layer side by side; one layer, 0 being the embedding output; or
        the average of some. Before "last", pre-norm models give the raw residual
        stream; "last" includes their closing layer norm.
    pooling : {"mean", "max", "mean+max"}, default="mean"
        How frames become a scene vector; "mean+max" is the sum of both.
    segments : int or None, default=None
        Number of equal groups of frames that are pooled apart and concatenated.
    normalize : {"checkpoint", "none", "zero-mean-unit-var", "layer-norm"}, \
            default="checkpoint"
        Scaling of each clip: what the checkpoint's preprocessor file says, none, or
        zero mean and unit variance with 1e-7, as transformers does, or 1e-5, as
        fairseq and SpeechBrain do, added to the variance.
    output_norm : bool, default=False
        Whether to scale the last layer of each clip to zero mean and unit variance
        over all of its frames and features, as SpeechBrain does.
    max_seconds : float or None, default=60.0
        Frames of longer clips attend within as few equal windows of at most this
        length as hold the clip, which bounds time and memory; the convolutions still
        see the whole clip, and no frame is lost or doubled. None sets no limit.
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

    Notes
    -----
    The model is frozen: ``fit`` checks the parameters and trains nothing. With
    ``memory``, a grid over ``layers`` and ``pooling`` runs each clip once; the first
    use of the maximum of a list of layers, of another ``segments``, or of the frames
    of another layer runs it again.

    References
    ----------
    W.-N. Hsu et al., "HuBERT: Self-Supervised Speech Representation Learning by
    Masked Prediction of Hidden Units", TASLP 2021.

    Examples
    --------
    >>> from skaudioemb import HuBERT
    >>> HuBERT(layers="mean")
    HuBERT(layers='mean')
    """

    _architecture = "hubert"

    def __init__(
        self,
        checkpoint="facebook/hubert-base-ls960",
        *,
        revision=None,
        layers="last",
        pooling="mean",
        segments=None,
        normalize="checkpoint",
        output_norm=False,
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
            checkpoint,
            revision=revision,
            layers=layers,
            pooling=pooling,
            segments=segments,
            normalize=normalize,
            output_norm=output_norm,
            max_seconds=max_seconds,
            sample_rate=sample_rate,
            device=device,
            dtype=dtype,
            batch_seconds=batch_seconds,
            memory=memory,
            on_error=on_error,
            n_jobs=n_jobs,
            verbose=verbose,
        )
