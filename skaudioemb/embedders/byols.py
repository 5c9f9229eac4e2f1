"""BYOLS: BYOL-A on speech, with other encoders and handcrafted targets."""

from skaudioemb.embedders.byol import BYOLA


class BYOLS(BYOLA):
    """Embeddings of BYOL-S, which is BYOL-A trained on speech, and of its hybrid.

    The log-mel has shorter windows, and more encoders are published. With
    ``handcrafted`` targets, pretraining is that of hybrid BYOL-S.

    Parameters
    ----------
    encoder : {"audiontt2020", "audiontt2022", "resnetish34", "clstm", "cvt", \
            "cvt-512"}, default="audiontt2020"
        The networks of BYOL-A, first and second version, and of BYOL-S; "cvt-512" is
        CvT with one mean over mel bands and time.
    weights : str, path-like or None, default=None
        None pretrains on the recordings given to ``fit``. Otherwise a file or folder,
        an address that ends in ``#sha256=`` and a checksum, a repository "owner/name"
        on the Hugging Face hub, or one of the names in
        :data:`skaudioemb.encoders.byol_published.PUBLISHED`, as
        "byol_s_default512". Its hybrid CvT is for research, for openSMILE's
        licence extends to what is made with it.
    n_features : int or None, default=None
        Width of "audiontt2020" and "audiontt2022"; None is that of the weights, or
        2048 and 3072 without weights.
    frontend : {"auto", "byol-a", "byol-a-v2", "byol-s"}, default="auto"
        Log-mel with windows of 1024 samples on HTK's mel scale, the same on Slaney's,
        or windows of 400 samples on HTK's scale. "auto" is that of the weights, if
        they tell it or have the name of a published file, else "byol-s".
    normalize : {"fit", "clip", "weights"} or (float, float), default="fit"
        Mean and deviation by which log-mel is normalised: of all recordings given to
        ``fit``, of each clip, those stored beside the weights, or two numbers. Never
        of a batch.
    pooling : {"auto", "mean", "max", "mean+max"}, default="auto"
        How frames become a vector: "auto" as in the papers, which is the sum of mean
        and maximum, for "cvt-512" the mean, for "clstm" the last frame.
    segments : int or None, default=None
        Number of equal groups of frames that are pooled apart and concatenated.
    frames_from : {"windows", "encoder"}, default="windows"
        What :meth:`frames` gives: embeddings of windows around every ``hop`` seconds,
        or the encoder's frames before pooling, every 40 to 160 ms. Scene vectors are
        always of the latter, over the whole clip.
    window : float, default=1.0
        Length of windows in seconds.
    hop : float, default=0.05
        Distance of windows in seconds.
    max_seconds : float or None, default=30.0
        Longer clips go through the encoder in equal parts of at most this length, each
        seen with one more frame on either side, and are pooled as a whole. With the
        AudioNTT encoders this changes nothing but the memory that is needed; to others
        it limits what a frame can see. None sets no limit.
    max_epochs : int, default=100
        Epochs of pretraining; one random crop of every recording an epoch. 0 leaves
        the random weights, for comparison.
    batch_size : int, default=256
        Crops in one step of pretraining.
    lr : float, default=3e-4
        Learning rate of Adam.
    weight_decay : float, default=0.0
        Decoupled weight decay, as AdamW does it.
    crop_seconds : float, default=0.95
        Length of crops in seconds.
    projection_size : int, default=256
        Width of the projections that are compared.
    hidden_size : int, default=4096
        Width of the hidden layer of projector and predictor.
    tau : float, default=0.99
        What the target network keeps of itself in each step.
    mixup : float, default=0.4
        Largest share of an earlier recording that is mixed in.
    memory_size : int, default=2048
        Latest recordings that may be mixed in.
    log_mixup_exp : bool, default=True
        Whether sounds are mixed as such, or else the logarithms of their mel bands.
    crop_scales : (float, float), default=(0.6, 1.5)
        Smallest and largest size of the random resize crop, relative to the
        spectrogram, in both axes.
    canvas : (float, float), default=(1.0, 1.5)
        Size of what is cropped from, in mel bands and in frames, relative to the
        spectrogram. With ``crop_scales=(1, 1)`` and ``canvas=(1, 1)`` nothing is
        cropped.
    fader : float, default=0.0
        Gain of the random linear fader; 1.0 in BYOL-A's second version.
    handcrafted : transformer or None, default=None
        Gives targets beside BYOL's own, from clips: hybrid training.
    alpha : float, default=1.0
        Weight of the loss on handcrafted targets.
    beta : float, default=1.0
        Weight of BYOL's own loss beside that; without handcrafted targets it is the
        only one, and has no weight.
    supervised_on : {"prediction", "projection"}, default="prediction"
        The output that is to resemble the handcrafted targets.
    supervised_loss : {"cosine", "mse"}, default="cosine"
        Its distance from them: that of unit vectors, as in BYOL's own loss, or the
        mean squared error.
    target_clip : float, default=5.0
        Largest magnitude of the standardised targets.
    checkpoint_dir : str, path-like or None, default=None
        Where pretraining is saved after every epoch, to go on from after a kill; with
        ``random_state=None`` by the seed that was drawn then. Every training needs a
        folder of its own, so also each candidate and fold of a search.
    warm_start : bool, default=False
        Whether ``fit`` pretrains from the weights that there are.
    n_threads : int or None, default=None
        Threads that decode recordings during pretraining; None leaves it to the
        number of processors.
    random_state : int, RandomState or None, default=None
        Makes pretraining repeatable.
    sample_rate : int, default=16000
        Rate of bare arrays in Hz. Files know their own.
    device : str, default="auto"
        A torch device; "auto" takes CUDA if there is one.
    dtype : {"float32", "bfloat16", "float16"}, default="float32"
        Precision of the network; embeddings are float32 in any case.
    batch_seconds : float, default=60.0
        Audio in one batch, in seconds.
    memory : str, path-like, Store, joblib.Memory or None, default=None
        Where embeddings are kept, so that no clip is run twice. Other weights or
        statistics give other embeddings.
    on_error : {"raise", "nan"}, default="raise"
        What a clip that cannot be read does: raise, or become a row of NaN.
    n_jobs : int or None, default=None
        Number of processes; None is 1 unless in a ``joblib.parallel_config``.
    verbose : int, default=0
        Show a progress bar if positive.

    Attributes
    ----------
    mean_, std_ : float
        What log-mel is normalised by, unless by each clip's own.
    pretrained_weights_ : HeldWeights
        The encoder's weights, if ``fit`` pretrained it.
    history_ : list of dict
        Loss and figures of each epoch, if ``fit`` pretrained it; or of each call of
        :meth:`partial_fit` since the latest ``fit``.
    targets_ : HandcraftedTargets or None
        The fitted handcrafted targets, if ``fit`` pretrained it.
    training_state_ : dict
        From which :meth:`partial_fit` goes on. Only that leaves it, with all
        spectrograms that may be mixed in: about 50 MB in a pickle.
    n_features_in_ : int
        Samples of each clip, if X was a 2-D array.
    n_layers_ : int
        Always 1.

    Notes
    -----
    Statistics belong to the recordings, not to the weights: the authors ask for those
    of the task's own recordings, which is what ``fit`` learns in one pass, from all
    frames alike. Pretraining learns them from random crops of up to 10,000 recordings.

    Clips shorter than the encoder needs, 32 to 90 ms, are padded with zeros.

    References
    ----------
    G. Elbanna et al., "BYOL-S: Learning Self-supervised Speech Representations by
    Bootstrapping", HEAR 2021, PMLR 166, 2022.

    Examples
    --------
    >>> from skaudioemb import BYOLS
    >>> BYOLS("cvt", normalize=(-5.0, 3.1))
    BYOLS(encoder='cvt', normalize=(-5.0, 3.1))
    """

    _own_frontend = "byol-s"

    def __init__(
        self,
        encoder="audiontt2020",
        *,
        weights=None,
        n_features=None,
        frontend="auto",
        normalize="fit",
        pooling="auto",
        segments=None,
        frames_from="windows",
        window=1.0,
        hop=0.05,
        max_seconds=30.0,
        max_epochs=100,
        batch_size=256,
        lr=3e-4,
        weight_decay=0.0,
        crop_seconds=0.95,
        projection_size=256,
        hidden_size=4096,
        tau=0.99,
        mixup=0.4,
        memory_size=2048,
        log_mixup_exp=True,
        crop_scales=(0.6, 1.5),
        canvas=(1.0, 1.5),
        fader=0.0,
        handcrafted=None,
        alpha=1.0,
        beta=1.0,
        supervised_on="prediction",
        supervised_loss="cosine",
        target_clip=5.0,
        checkpoint_dir=None,
        warm_start=False,
        n_threads=None,
        random_state=None,
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
            encoder,
            weights=weights,
            n_features=n_features,
            frontend=frontend,
            normalize=normalize,
            pooling=pooling,
            segments=segments,
            frames_from=frames_from,
            window=window,
            hop=hop,
            max_seconds=max_seconds,
            max_epochs=max_epochs,
            batch_size=batch_size,
            lr=lr,
            weight_decay=weight_decay,
            crop_seconds=crop_seconds,
            projection_size=projection_size,
            hidden_size=hidden_size,
            tau=tau,
            mixup=mixup,
            memory_size=memory_size,
            log_mixup_exp=log_mixup_exp,
            crop_scales=crop_scales,
            canvas=canvas,
            fader=fader,
            handcrafted=handcrafted,
            alpha=alpha,
            beta=beta,
            supervised_on=supervised_on,
            supervised_loss=supervised_loss,
            target_clip=target_clip,
            checkpoint_dir=checkpoint_dir,
            warm_start=warm_start,
            n_threads=n_threads,
            random_state=random_state,
            sample_rate=sample_rate,
            device=device,
            dtype=dtype,
            batch_seconds=batch_seconds,
            memory=memory,
            on_error=on_error,
            n_jobs=n_jobs,
            verbose=verbose,
        )
