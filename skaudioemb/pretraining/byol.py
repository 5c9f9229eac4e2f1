"""Pretraining by BYOL for audio, plain (BYOL-A, BYOL-S) and hybrid."""

import copy
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from skaudioemb.devices import full_precision
from skaudioemb.pretraining.augmentations import Views
from skaudioemb.pretraining.byol_task import Byol, ByolTask, prepare
from skaudioemb.pretraining.data import CropBatches, statistics
from skaudioemb.pretraining.fingerprints import (
    digest_of_clips,
    digest_of_module,
    digest_of_state,
    digest_of_targets,
    plain,
    plain_settings,
    stated,
)
from skaudioemb.pretraining.handcrafted import MAX_FITTED, HandcraftedTargets
from skaudioemb.pretraining.trainer import TrainSettings, train
from skaudioemb.probes.training import seeded

# What may differ between a checkpoint and the training that resumes it.
_FREE = (
    "max_epochs",
    "n_threads",
    "compile",
    "verbose",
    "on_error",
    "device",
    "checkpoint_dir",
)


@dataclass(frozen=True)
class BYOLSettings:
    """How an encoder is pretrained; the defaults are those of the BYOL-S paper.

    Attributes
    ----------
    max_epochs : int
        Epochs in all; an epoch is one random crop of every clip.
    batch_size : int
    lr, weight_decay : float
        Of AdamW; without weight decay it is Adam.
    crop_seconds : float
        Length of a crop in seconds.
    projection_size, hidden_size : int
        Widths of the projector's and the predictor's output and hidden layer. With
        hand-made targets the output is as wide as they are.
    tau : float
        The share of its own weights that the target network keeps in a step.
    mixup : float
        The largest share of another sound in a view.
    memory_size : int
        Spectrograms kept to mix in.
    log_mixup_exp : bool
        Whether sounds are mixed as such, or else their logarithms.
    crop_scales : pair of float
        Sizes of a view's random crop relative to the spectrogram.
    canvas : pair of float
        Size of what is cropped from, in mels and frames, relative to the spectrogram.
    fader : float
        The largest change of level at either end of a view; 1.0 in BYOL-A's second
        version.
    alpha, beta : float
        Weights of the supervised loss and of BYOL's loss in hybrid training. With
        ``alpha=0`` hand-made targets are not even computed.
    supervised_on : {"prediction", "projection"}
        The output that is to resemble the hand-made targets.
    supervised_loss : {"cosine", "mse"}
        Between unit vectors, in the form of BYOL's own, or plain.
    target_clip : float
        The largest magnitude of a standardised target.
    sample_rate : int
        Rate of bare arrays in Hz.
    device : str
        As torch names it.
    dtype : {"float32", "bfloat16"}
        With bfloat16, forward passes run under autocast on CUDA.
    compile : bool
        Whether networks are compiled on CUDA.
    seed : int
    n_threads : int or None
        Threads that decode clips.
    on_error : {"raise", "nan"}
        Whether a bad clip ends the training or is left out with a warning.
    checkpoint_dir : str or path or None
        Where the state is saved after each epoch. A training finds its own
        checkpoint there and goes on from it, with the result of an unbroken one. Each
        training needs a folder of its own: one with other settings, recordings or
        initial weights, or for fewer epochs than are done, is refused.
    verbose : int
        Whether a progress bar is shown.
    """

    max_epochs: int = 100
    batch_size: int = 256
    lr: float = 3e-4
    weight_decay: float = 0.0
    crop_seconds: float = 0.95
    projection_size: int = 256
    hidden_size: int = 4096
    tau: float = 0.99
    mixup: float = 0.4
    memory_size: int = 2048
    log_mixup_exp: bool = True
    crop_scales: tuple = (0.6, 1.5)
    canvas: tuple = (1.0, 1.5)
    fader: float = 0.0
    alpha: float = 1.0
    beta: float = 1.0
    supervised_on: str = "prediction"
    supervised_loss: str = "cosine"
    target_clip: float = 5.0
    sample_rate: int = 16000
    device: str = "cpu"
    dtype: str = "float32"
    compile: bool = False
    seed: int = 0
    n_threads: int | None = None
    on_error: str = "raise"
    checkpoint_dir: object = None
    verbose: int = 0


class Pretrained(NamedTuple):
    """What pretraining gives."""

    state_dict: dict
    """the encoder's state dict, on the CPU"""
    mean: float
    """mean of the log-mel spectrograms"""
    std: float
    """their standard deviation"""
    history: list
    """one dict an epoch: ``loss``, ``projection_std`` (near 0 after a collapse,
    near ``1 / sqrt(projection_size)`` else), ``seconds`` and ``waiting``, the share
    of them spent waiting for data; in hybrid training the two losses too"""
    targets: HandcraftedTargets | None
    """the fitted hand-made targets, in hybrid training"""
    state: dict
    """what `pretrain_byol` takes to go on"""


def pretrain_byol(
    encoder,
    frontend,
    clips,
    settings,
    *,
    state=None,
    handcrafted=None,
    normalization=None,
):
    """Pretrain an encoder on recordings without labels.

    Parameters
    ----------
    encoder : torch.nn.Module
        Maps log-mel spectrograms of shape (n_clips, 1, n_mels, n_frames) to
        embeddings; has ``n_features`` and ``min_frames``. It is left as it is.
    frontend : torch.nn.Module
        Maps waveforms of shape (n_clips, n_samples) to spectrograms; has
        ``sample_rate`` in Hz and ``min_samples``.
    clips : sequence of clips
        In any of the forms that :mod:`skaudioemb.audio` lists; at least two.
    settings : BYOLSettings
    state : dict or None, default=None
        `Pretrained.state` of an earlier call, from which to go on, with its
        normalisation and targets; ``max_epochs`` counts its epochs too. A checkpoint
        goes before it.
    handcrafted : object or None, default=None
        A scikit-learn transformer of clips whose output the encoder learns along, as
        in hybrid BYOL-S.
    normalization : pair of float or None, default=None
        Mean and standard deviation of spectrograms; None has them learned from the
        clips, in one pass.

    Returns
    -------
    pretrained : Pretrained

    Raises
    ------
    AudioError
        If a clip cannot be read and ``on_error="raise"``.
    FloatingPointError
        If the training diverges.
    ValueError
        If there are fewer than two clips, crops are too short for the encoder, or a
        checkpoint does not fit.

    Notes
    -----
    Recordings are told apart by what is cheap to have, see
    :func:`skaudioemb.pretraining.fingerprints.digest_of_clips`.

    References
    ----------
    Niizumi et al., "BYOL for Audio" (2021); Elbanna et al., "BYOL-S: Learning
    Self-supervised Speech Representations by Bootstrapping" (2022).
    """
    settings = plain_settings(settings)
    batches = _make_batches(frontend, clips, settings)
    device = torch.device(settings.device)
    shape = _check_crops(encoder, frontend, batches)
    frontend = copy.deepcopy(frontend).to(device)
    if state is not None:
        mean, std = state["mean"], state["std"]
    else:
        to_mel = partial(_spectrograms, frontend, device)
        mean, std = plain(normalization or statistics(batches, to_mel))
    targets = None if state is None else state["targets"]
    if handcrafted is None or settings.alpha == 0:
        targets = None
    elif targets is None:
        targets = _fit_targets(handcrafted, batches, settings)
    batches.targets = targets and targets.transform
    n_outputs = len(targets.kept_) if targets else settings.projection_size
    with seeded(settings.seed, device), full_precision(device, "float32"):
        sizes = encoder.n_features, settings.hidden_size, n_outputs
        byol = prepare(Byol(encoder, *sizes, settings.tau), device, settings.compile)
        views = _make_views(shape, settings)
        task = ByolTask(byol, frontend, views, mean, std, settings).to(device)
        about = _describe(settings, batches, encoder, frontend, state, targets)
        # Rounded, as the last digits may depend on the machine.
        about |= {"mean": round(mean, 3), "std": round(std, 3)}
        trained = train(task, batches, _train_settings(settings, device, about), state)
    batches.warn_of_bad()
    learned = {"mean": mean, "std": std, "targets": targets}
    return Pretrained(
        _encoder_weights(trained["task"]),
        mean,
        std,
        trained["history"],
        targets,
        {**trained, **learned},
    )


def _spectrograms(frontend, device, waveforms):
    return frontend(waveforms.to(device))


def _make_views(shape, settings):
    return Views(
        shape,
        mixup_ratio=settings.mixup,
        memory_size=settings.memory_size,
        log_mixup_exp=settings.log_mixup_exp,
        scales=settings.crop_scales,
        canvas=settings.canvas,
        fader_gain=settings.fader,
    )


def _encoder_weights(weights):
    prefix = "byol.online.encoder."
    return {
        name.removeprefix(prefix): value.contiguous()
        for name, value in weights.items()
        if name.startswith(prefix)
    }


def _make_batches(frontend, clips, settings):
    batches = CropBatches(
        clips,
        round(settings.crop_seconds * frontend.sample_rate),
        frontend.sample_rate,
        settings.batch_size,
        settings.seed,
        sample_rate=settings.sample_rate,
        n_threads=settings.n_threads,
        on_error=settings.on_error,
        in_pairs=True,
    )
    if len(batches.clips) < 2:
        raise ValueError(
            "Pretraining found 1 clip and needs at least 2: batch normalisation "
            "cannot train on one."
        )
    return batches


def _check_crops(encoder, frontend, batches):
    """Return mels and frames of a crop's spectrogram."""
    n_samples, rate = batches.n_samples, batches.rate
    if n_samples >= frontend.min_samples:
        with torch.inference_mode():
            shape = tuple(frontend(torch.zeros(1, n_samples)).shape[2:])
        if shape[1] >= encoder.min_frames:
            return shape
    raise ValueError(
        f"crop_seconds={n_samples / rate:g} is too short: the spectrogram needs at "
        f"least {frontend.min_samples} samples at {rate} Hz, the encoder "
        f"{encoder.min_frames} frames. Choose longer crops."
    )


def _fit_targets(handcrafted, batches, settings):
    parts, n_crops = [], 0
    for batch in batches.epoch(0, limit=MAX_FITTED):
        parts.append(batch.waveforms.numpy())
        n_crops += len(parts[-1])
    targets = HandcraftedTargets(handcrafted, batches.rate, settings.target_clip)
    return targets.fit(np.concatenate(parts))


def _describe(settings, batches, encoder, frontend, state, targets):
    """State what a checkpoint and the training that resumes it have in common."""
    if settings.checkpoint_dir is None:
        return {}
    begin = encoder.state_dict() if state is None else state["task"]
    return {
        **stated(settings, _FREE),
        "n_clips": len(batches.clips),
        "recordings": digest_of_clips(batches.clips),
        "frontend": digest_of_module(frontend),
        "encoder": type(encoder).__name__,
        "initial_weights": digest_of_state(begin),
        "handcrafted": digest_of_targets(targets),
    }


def _train_settings(settings, device, fingerprint):
    return TrainSettings(
        max_epochs=settings.max_epochs,
        lr=settings.lr,
        device=device,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        dtype=settings.dtype,
        checkpoint_dir=settings.checkpoint_dir,
        fingerprint=fingerprint,
        verbose=settings.verbose,
    )
