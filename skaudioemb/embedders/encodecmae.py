"""EncodecMAE: from published weights, or pretrained and self-trained by ``fit``."""

from skaudioemb.embedders.encodecmae_learning import EncodecMAELearning


class EncodecMAE(EncodecMAELearning):
    """Embeddings of a masked autoencoder: published, or trained by ``fit``.

    An encoder learned to tell from the visible frames of a recording which codes its
    masked frames have. Clips are resampled to 24 kHz and cut into chunks of 4 s, which
    are embedded one by one; positions begin anew in each. Frames come at 75 Hz, frame
    ``i`` at ``(i + 0.5) / 75`` s, with the mel front end too, where the centre of its
    window lies up to 7 ms later or 18 ms earlier. A last frame that the clip does not
    fill is embedded too, but no frame attends to it. A clip's embedding does not depend
    on the batch.

    Parameters
    ----------
    checkpoint : str, path-like or None, default="lpepino/encodecmae-base"
        None pretrains on the recordings given to ``fit``. Otherwise the encoder is
        frozen: a published file of weights, or one that :meth:`save_weights` wrote; a
        folder with one; a repository of the Hugging Face hub with ``model.pt`` or
        ``model.safetensors``; or a file in one, as
        "lpepino/encodecmae-v2/mel256-ec-base.pt". Both published generations are known
        by the names of their tensors; nothing but tensors is unpickled, and the text
        of their configuration is not used.
    revision : str or None, default=None
        Branch, tag or commit of a repository.
    n_heads : int or None, default=None
        Number of attention heads of a published file, which does not tell it; None is
        12, which all of them should have, or 16 where only that fits the queries.
        Saved weights tell it.
    size : {"small", "base", "large"} or dict, default="base"
        Measures of a model without a checkpoint: 5 layers of 768 features, 10 of 768,
        or 20 of 1024; or ``n_layers``, ``n_features``, ``n_heads`` and ``n_hidden``.
        Only used with ``checkpoint=None``, like the next two.
    share_feedforward : bool, default=True
        Whether all layers have one feed-forward network. All published weights do;
        the paper does not say so, and counts parameters as if they did not.
    front_end : {"codec", "mel"}, default="codec"
        What it hears: frames of a codec before quantisation, or 256 mel bands.
    codec : str or path-like, default="facebook/encodec_24khz"
        Of ``front_end="codec"`` and of ``targets="codec"``: a model id on the Hugging
        Face hub, or a folder written by ``save_pretrained``. It is frozen. An encoder
        hears EnCodec alone; mel bands may have targets of another codec that
        transformers loads and that works at 24 kHz, as Mimi.
    random_state : int, RandomState or None, default=0
        Decides the weights before training, and makes training repeatable.
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
    warm_start : bool, default=False
        Whether ``fit`` trains, from the weights that there are: those that it learned
        before, or those of ``checkpoint``.
    max_epochs : int, default=100
        Epochs of pretraining. In one, a recording gives as many random crops as it
        has room for. 0 leaves random weights, the paper's ECMAE-R.
    batch_size : int, default=128
        Crops in one batch.
    accumulate : int, default=1
        Batches in one step of the optimiser.
    lr : float, default=1e-4
        Learning rate of AdamW, which is constant.
    weight_decay : float, default=0.05
        Decoupled weight decay of all parameters.
    crop_seconds : float, default=4.0
        Length of crops in seconds. Shorter recordings are padded.
    targets : {"codec", "mel"}, default="codec"
        What is to be predicted of masked frames: the codec's codes, or codes of a
        random projection of mel bands, as in BEST-RQ, which need no codec.
    n_codebooks : int, default=8
        Codes of each frame that are predicted; of a codec, those of the first
        quantisers.
    n_codes : int, default=1024
        Different codes with ``targets="mel"``.
    gamma : {"auto", "uniform"} or sequence of float, default="auto"
        Weights of the codebooks' losses. "auto" is in proportion to the error that
        each quantiser leaves on random crops, as the paper says; with
        ``targets="mel"`` it is uniform.
    delta : float, default=0.9
        Share of the loss that masked frames have.
    mask_share : float, default=0.5
        Share of frames that are masked.
    mask_length : int, default=15
        Frames of one masked run.
    mask_token : {"zeros", "learned"}, default="zeros"
        What the decoder gets for masked frames. The paper says a learned vector; the
        published code, and so its weights, have zeros.
    n_decoder_layers : int, default=2
        Layers of the decoder, which is thrown away after training.
    count_padding : bool, default=False
        Whether padding counts as visible frames in the loss, as in the published
        code, where silence of short recordings lowers it.
    loss_mean : {"batch", "clip"}, default="batch"
        Whether the loss is averaged over the frames of a batch, as in the published
        code, or over each crop first, as the paper's formula says.
    self_train : bool, default=False
        Whether a second stage follows, whose targets are clusters of the first
        one's frames.
    self_train_epochs : int or None, default=None
        Epochs of the second stage; None is 3 in 10 of ``max_epochs``, as in the paper.
    n_clusters : int, default=1024
        Clusters of k-means.
    n_kmeans_frames : int, default=10000
        Frames that k-means learns from.
    keep_targets : bool, default=True
        Whether the codes stay targets beside the clusters, as in the paper and the
        first release. The second release has clusters alone.
    teacher_stream : {"normed", "combined"}, default="normed"
        Which frames are clustered, in the words of ``stream``: those of the first
        release, which are also the second's default, or what embeddings are.
    checkpoint_dir : str, path-like or None, default=None
        Where training is saved after every epoch, to go on from after a kill; with
        ``random_state=None`` by the seed that was drawn then. Every training needs a
        folder of its own, so also each candidate and fold of a search.
    n_threads : int or None, default=None
        Threads that decode recordings during training; None leaves it to the number
        of processors.
    compile : bool, default=False
        Whether networks are compiled for training on CUDA.
    sample_rate : int, default=16000
        Rate of bare arrays in Hz. Files know their own.
    device : str, default="auto"
        A torch device; "auto" takes CUDA if there is one.
    dtype : {"float32", "bfloat16", "float16"}, default="float32"
        Precision of the blocks; front end and embeddings are float32 in any case.
        Training takes bfloat16 on CUDA alone, and float16 for float32.
    batch_seconds : float, default=60.0
        Audio in one batch of embeddings, in seconds.
    memory : str, path-like, Store, joblib.Memory or None, default=None
        Where embeddings are kept, so that no clip is run twice. Other weights give
        other embeddings.
    on_error : {"raise", "nan"}, default="raise"
        What a clip that cannot be read does: raise, or become a row of NaN. Training
        leaves it out with a warning.
    n_jobs : int or None, default=None
        Number of processes; None is 1 unless in a ``joblib.parallel_config``.
    verbose : int, default=0
        Show a progress bar if positive.

    Attributes
    ----------
    pretrained_weights_ : HeldWeights
        The encoder's weights, if ``fit`` trained it.
    history_ : list of dict
        Of each epoch of training ``loss``, its parts ``masked`` and ``visible``,
        ``seconds``, ``waiting``, the share of them spent waiting for data, and
        ``stage``, which is 1 in self-training; or of each call of
        :meth:`partial_fit` since the latest ``fit``.
    training_state_ : dict
        From which :meth:`partial_fit` goes on. Only that leaves it.
    seed_ : int
        What random weights were drawn with.
    n_features_in_ : int
        Samples of each clip, if X was a 2-D array.
    n_layers_ : int
        Number of layers, the input of the first block included.

    See Also
    --------
    EnCodec : The codec's frames alone.
    BYOLA : Another way to learn from recordings without labels.

    Notes
    -----
    With ``memory``, a grid over ``layers`` and ``pooling`` runs each clip once.

    One feed-forward network serves all layers of a model. The base model has 37.4
    million parameters, with EnCodec's encoder and without the decoder of its
    training; the paper's 94 million count that network once a layer.

    The published code differs where it slips. Its first release masks the last frame
    of the first clip of a batch only. Its second leaves out tails of at most 2048
    samples, never masks the last frame of clips over 4 s, and in a batch masks frames
    of a clip because of its place there. For single clips up to 4 s it gives the same.
    Its training lets the codec's codebooks move; here a codec stays as it is.

    The mel front end gives no frames for a tail under 637 samples (27 ms).

    References
    ----------
    L. Pepino, P. Riera and L. Ferrer, "EnCodecMAE: Leveraging neural codecs for
    universal audio representation learning", 2023, sections 2 and 3. C.-C. Chiu, J.
    Qin, Y. Zhang, J. Yu and Y. Wu, "Self-supervised Learning with Random-projection
    Quantizer for Speech Recognition", ICML 2022, section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb import EncodecMAE
    >>> clips = [np.sin(np.arange(n) / 8) for n in (8000, 16000)]
    >>> size = {"n_layers": 2, "n_features": 24, "n_heads": 4, "n_hidden": 48}
    >>> model = EncodecMAE(
    ...     None, size=size, front_end="mel", targets="mel", n_codes=16,
    ...     crop_seconds=0.5, max_epochs=2, layers="mean",
    ... )
    >>> model.fit_transform(clips).shape
    (2, 24)
    >>> len(model.history_)
    2
    >>> [len(times) for _, times in model.frames(clips)]
    [36, 74]
    """

    def __init__(
        self,
        checkpoint="lpepino/encodecmae-base",
        *,
        revision=None,
        n_heads=None,
        size="base",
        share_feedforward=True,
        front_end="codec",
        codec="facebook/encodec_24khz",
        random_state=0,
        layers="last",
        stream="combined",
        pooling="mean",
        segments=None,
        warm_start=False,
        max_epochs=100,
        batch_size=128,
        accumulate=1,
        lr=1e-4,
        weight_decay=0.05,
        crop_seconds=4.0,
        targets="codec",
        n_codebooks=8,
        n_codes=1024,
        gamma="auto",
        delta=0.9,
        mask_share=0.5,
        mask_length=15,
        mask_token="zeros",
        n_decoder_layers=2,
        count_padding=False,
        loss_mean="batch",
        self_train=False,
        self_train_epochs=None,
        n_clusters=1024,
        n_kmeans_frames=10000,
        keep_targets=True,
        teacher_stream="normed",
        checkpoint_dir=None,
        n_threads=None,
        compile=False,
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
        self.share_feedforward = share_feedforward
        self.front_end = front_end
        self.codec = codec
        self.random_state = random_state
        self.layers = layers
        self.stream = stream
        self.pooling = pooling
        self.segments = segments
        self.warm_start = warm_start
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.lr = lr
        self.weight_decay = weight_decay
        self.crop_seconds = crop_seconds
        self.targets = targets
        self.n_codebooks = n_codebooks
        self.n_codes = n_codes
        self.gamma = gamma
        self.delta = delta
        self.mask_share = mask_share
        self.mask_length = mask_length
        self.mask_token = mask_token
        self.n_decoder_layers = n_decoder_layers
        self.count_padding = count_padding
        self.loss_mean = loss_mean
        self.self_train = self_train
        self.self_train_epochs = self_train_epochs
        self.n_clusters = n_clusters
        self.n_kmeans_frames = n_kmeans_frames
        self.keep_targets = keep_targets
        self.teacher_stream = teacher_stream
        self.checkpoint_dir = checkpoint_dir
        self.n_threads = n_threads
        self.compile = compile
