"""Pretraining of EncodecMAE on recordings, and self-training after it."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from skaudioemb.devices import full_precision
from skaudioemb.encoders.encodecmae_checkpoint import under
from skaudioemb.pretraining.data import CropBatches
from skaudioemb.pretraining.encodecmae_stages import Stages
from skaudioemb.pretraining.fingerprints import plain_settings
from skaudioemb.pretraining.hearing import Hearing
from skaudioemb.probes.training import seeded


@dataclass(frozen=True)
class EncodecMAESettings:
    """How a masked autoencoder is pretrained; the defaults are the published ones.

    Where paper and published code differ, the attribute tells which is which.

    Attributes
    ----------
    max_epochs : int
        Epochs in all; an epoch is ``max(1, floor(d / crop_seconds))`` random crops of
        every clip of d seconds.
    batch_size : int
        Crops of a batch.
    accumulate : int
        Batches whose gradients are averaged into one step. Each batch has loss means
        of its own; with crops of one length that is the same as one larger batch.
    lr, weight_decay : float
        Of AdamW, whose betas are 0.9 and 0.95. All parameters decay, as in the
        published code.
    crop_seconds : float
        Length of a crop in seconds. Shorter clips are whole, with padding after them.
    targets : {"codec", "mel"}
        What frames are to be told by: the codec's codes; or those of a
        random-projection quantiser on log-mel spectra, which needs no codec.
    n_codebooks : int
        Streams of targets; of a codec the first so many codebooks.
    n_codes : int
        Codewords of a codebook, with ``targets="mel"`` alone.
    gamma : {"auto", "uniform"} or tuple of float
        Weights of the streams. "auto" takes the shares of the codec's quantisation
        error over 150 random crops, and equal ones with ``targets="mel"``.
    delta : float
        The share of the loss that hidden frames have.
    mask_share : float
        The share of frames that is hidden, rounded down to whole frames.
    mask_length : int
        Frames of one hidden run.
    mask_token : {"zeros", "learned"}
        What the decoder gets for a hidden frame, besides its position: zeros in the
        published code, a learned vector in the paper.
    share_feedforward : bool
        Whether all layers of the decoder have one feed-forward network, as in the
        published code; the paper does not say. The encoder is given.
    n_decoder_layers : int
    count_padding : bool
        Whether padding counts among the seen frames of the loss, as in the published
        code by oversight.
    loss_mean : {"batch", "clip"}
        Whether losses are means over the frames of a batch, as in the published code,
        or over those of each clip, as in the paper.
    self_train : bool
        Whether a second stage follows that has clusters of the encoder's own frames
        as a further stream of targets.
    self_train_epochs : int or None
        Epochs of the second stage; None is 3 in 10 of ``max_epochs``, as published,
        one at least.
    n_clusters : int
        Clusters, or as many as there are different frames to cluster.
    n_kmeans_frames : int
        Frames that are clustered, at most.
    keep_targets : bool
        Whether the first stage's streams stay, as in the paper and the first release
        of the code; in the second release they do not.
    teacher_stream : {"normed", "combined"}
        The frames to cluster: those of the last layer's normalised stream, as in the
        first release; or the embedding.
    sample_rate : int
        Rate of bare arrays in Hz.
    device : str
        As torch names it.
    dtype : {"float32", "bfloat16"}
        With bfloat16, forward passes run under autocast on CUDA. Front end and codec
        run in float32.
    compile : bool
        Whether networks are compiled on CUDA.
    seed : int
    n_threads : int or None
        Threads that decode clips.
    on_error : {"raise", "nan"}
        Whether a bad clip ends the training or is left out with a warning.
    checkpoint_dir : str or path or None
        Where the state is saved after each epoch, that of the second stage in its
        folder ``self_training``. A training finds its own checkpoint there and goes
        on from it, with the result of an unbroken one. Each training needs a folder
        of its own: one with other settings, recordings, codec or initial weights, or
        for fewer epochs than are done, is refused.
    verbose : int
        Whether a progress bar is shown.
    """

    max_epochs: int = 100
    batch_size: int = 128
    accumulate: int = 1
    lr: float = 1e-4
    weight_decay: float = 0.05
    crop_seconds: float = 4.0
    targets: str = "codec"
    n_codebooks: int = 8
    n_codes: int = 1024
    gamma: object = "auto"
    delta: float = 0.9
    mask_share: float = 0.5
    mask_length: int = 15
    mask_token: str = "zeros"
    share_feedforward: bool = True
    n_decoder_layers: int = 2
    count_padding: bool = False
    loss_mean: str = "batch"
    self_train: bool = False
    self_train_epochs: int | None = None
    n_clusters: int = 1024
    n_kmeans_frames: int = 10_000
    keep_targets: bool = True
    teacher_stream: str = "normed"
    sample_rate: int = 16000
    device: str = "cpu"
    dtype: str = "float32"
    compile: bool = False
    seed: int = 0
    n_threads: int | None = None
    on_error: str = "raise"
    checkpoint_dir: object = None
    verbose: int = 0

    @property
    def n_self_training_epochs(self):
        """Epochs of the second stage."""
        if self.self_train_epochs is not None:
            return self.self_train_epochs
        return max(1, round(0.3 * self.max_epochs))


class PretrainedEncodecMAE(NamedTuple):
    """What pretraining gives."""

    state_dict: dict
    """the FrameEncoder's state dict, on the CPU"""
    history: list
    """one dict an epoch: ``loss``, its parts ``masked`` and ``visible`` without the
    weights of both, ``seconds``, ``waiting``, the share of them spent waiting for
    data, and ``stage``, 1 in self-training and 0 before"""
    state: dict
    """what `pretrain_encodecmae` takes to go on"""


def pretrain_encodecmae(encoder, front_end, clips, settings, *, codec=None, state=None):
    """Pretrain a frame encoder as a masked autoencoder, without labels.

    Self-training differs from the published code in one point: there, one pass of
    random crops is labelled, stored and trained on; here, every epoch has new crops,
    which the frozen teacher labels as they come.

    Parameters
    ----------
    encoder : FrameEncoder
        Trained from the weights it has; it is left as it is.
    front_end : MelFrontEnd or CodecFrontEnd
        Frozen; it is left as it is.
    clips : sequence of clips
        In any of the forms that :mod:`skaudioemb.audio` lists.
    settings : EncodecMAESettings
    codec : transformers model or None, default=None
        Whose codes are the targets: EnCodec, DAC or Mimi. It is left as it is, and
        run in evaluation mode. If its encoder is the front end, it runs once for
        both.
    state : dict or None, default=None
        `PretrainedEncodecMAE.state` of an earlier call, from which to go on, with its
        weights of streams, its quantiser and its clusters; the epochs that settings
        state count its epochs too. A checkpoint goes before it.

    Returns
    -------
    pretrained : PretrainedEncodecMAE

    Raises
    ------
    AudioError
        If a clip cannot be read and ``on_error="raise"``.
    FloatingPointError
        If the training diverges.
    ValueError
        If codec and settings do not fit, crops are too short, or a checkpoint or
        state does not fit; that of the second stage is looked at before the first.

    Notes
    -----
    Recordings are told apart by what is cheap to have, see
    :func:`skaudioemb.pretraining.fingerprints.digest_of_clips`.

    References
    ----------
    L. Pepino, P. Riera and L. Ferrer, "EnCodecMAE: Leveraging neural codecs for
    universal audio representation learning", 2023, sections 2 and 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skaudioemb.encoders.encodecmae_frontends import MelFrontEnd
    >>> from skaudioemb.encoders.encodecmae_network import FrameEncoder, Size
    >>> from skaudioemb.pretraining.encodecmae import (
    ...     EncodecMAESettings, pretrain_encodecmae
    ... )
    >>> clips = np.random.default_rng(0).uniform(-1, 1, (4, 8000))
    >>> encoder = FrameEncoder(256, Size(n_layers=1, n_features=24, n_heads=4))
    >>> settings = EncodecMAESettings(max_epochs=2, targets="mel", n_codes=16)
    >>> done = pretrain_encodecmae(
    ...     encoder, MelFrontEnd(torch.device("cpu")), clips, settings
    ... )
    >>> len(done.history), done.state_dict.keys() == encoder.state_dict().keys()
    (2, True)
    """
    settings = plain_settings(settings)
    device = torch.device(settings.device)
    _check(settings, state)
    sources = settings.targets, codec, settings.n_codebooks
    hear = Hearing(front_end, *sources, device)
    batches = _make_batches(clips, hear, settings)
    stages = Stages(encoder, hear, batches, settings, codec=codec, state=state)
    stages.check()
    earlier = trained = None
    history = []
    if state is not None:
        trained = state["training"]
        history = [epoch for epoch in state["history"] if epoch["stage"] == 0]
    with seeded(settings.seed, device), full_precision(device, "float32"):
        if state is None or state["stage"] == 0:
            earlier, trained = stages.first(trained), None
            history = _tagged(earlier["history"], 0)
        if settings.self_train:
            trained = stages.second(trained, earlier)
            history = history + _tagged(trained["history"], 1)
    batches.warn_of_bad()
    last = trained or earlier
    return PretrainedEncodecMAE(
        under(last["task"], "network.encoder."),
        history,
        {"stage": int(settings.self_train), "training": last, "history": history},
    )


def _tagged(history, stage):
    return [{**epoch, "stage": float(stage)} for epoch in history]


def _check(settings, state):
    gamma = settings.gamma
    if not isinstance(gamma, str) and len(gamma) != settings.n_codebooks:
        raise ValueError(
            f"gamma has {len(gamma)} weights for n_codebooks={settings.n_codebooks} "
            "streams. Give one each, or 'auto' or 'uniform'."
        )
    if state is not None and state["stage"] == 1 and not settings.self_train:
        raise ValueError(
            "The state is of a self-training and self_train is False. Set it, or "
            "start afresh from the weights."
        )


def _make_batches(clips, hear, settings):
    n_samples = round(settings.crop_seconds * hear.rate)
    if n_samples < 2 * hear.hop:
        raise ValueError(
            f"crop_seconds={settings.crop_seconds:g} is too short: a crop has to hold "
            f"two frames of {hear.hop} samples at {hear.rate} Hz. Choose longer crops."
        )
    return CropBatches(
        clips,
        n_samples,
        hear.rate,
        settings.batch_size,
        settings.seed,
        sample_rate=settings.sample_rate,
        n_threads=settings.n_threads,
        on_error=settings.on_error,
        zeros="after",
        by_length=True,
    )
