"""Any audio encoder of transformers as an encoder of ours."""

import functools
import json
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import astuple, dataclass
from hashlib import blake2b
from itertools import pairwise
from math import ceil

import numpy as np
import torch

from skaudioemb.encoders import checkpoint as files
from skaudioemb.encoders.base import Encoder, EncoderSpec, Window
from skaudioemb.encoders.huggingface.registry import family_of, model_type_of
from skaudioemb.encoders.speech_checkpoint import architecture_of
from skaudioemb.encoders.wav2vec2 import Wav2Vec2Spec


@dataclass(frozen=True)
class HFAudioSpec(EncoderSpec):
    """A checkpoint of any audio encoder that transformers loads.

    Attributes
    ----------
    checkpoint : str
        A model id on the Hugging Face hub, or a folder written by
        ``save_pretrained``.
    revision : str or None
        Branch, tag or commit of a model id.
    trust_remote_code : bool
        Whether code that comes with the checkpoint may run.
    max_seconds : float or None
        Longer clips run in windows of at most this length, where the model has no
        window of its own.

    Raises
    ------
    OSError
        By any attribute, if the checkpoint cannot be found.
    ValueError
        By any attribute, if it is no audio encoder that is known.
    """

    checkpoint: str
    revision: str | None = None
    trust_remote_code: bool = False
    max_seconds: float | None = None

    def __reduce__(self):
        return type(self), astuple(self)

    @functools.cached_property
    def _folder(self):
        return files.folder_of(self.checkpoint, self.revision)

    @functools.cached_property
    def family(self):
        """The :class:`~skaudioemb.encoders.huggingface.base.Family`."""
        return family_of(self._folder, self.trust_remote_code)

    @property
    def sample_rate(self):
        return self.family.sample_rate

    @property
    def n_features(self):
        return self.family.n_features

    @property
    def n_layers(self):
        return self.family.n_layers

    @property
    def min_samples(self):
        return self.family.min_samples

    @property
    def mixes_lengths(self):
        return self.family.mixes_lengths

    @functools.cached_property
    def identity(self):
        content = files.content_of(self._folder)
        extractor = json.dumps(self.family.preprocessor, sort_keys=True).encode()
        features = blake2b(extractor, digest_size=8).hexdigest()
        kind = model_type_of(self._folder)
        own = "-own-code" if self.family.source.own_classes else ""
        limit = "" if self._max_hops is None else f"-{self._max_hops}"
        return f"hf-{kind}-{content}-{features}-{self.sample_rate}{own}{limit}"

    @property
    def _max_hops(self):
        """Largest size of a window that the model does not set itself, or None."""
        hop = self.family.hop_samples
        if self.max_seconds is None or hop is None:
            return None
        # A window, the last one too, holds what the model needs at least.
        least = ceil(self.min_samples / hop) + 1
        return max(least, int(self.max_seconds * self.sample_rate / hop))

    def n_frames(self, n_samples):
        windows = self.windows(max(n_samples, self.min_samples))
        return sum(self.family.n_frames(w.stop - w.start) - w.skip for w in windows)

    def times_of(self, n_samples):
        times = []
        for window in self.windows(max(n_samples, self.min_samples)):
            own = self.family.times_of(window.stop - window.start)[window.skip :]
            times.append(own + window.start / self.sample_rate)
        return np.concatenate(times)

    def windows(self, n_samples):
        if self.family.window_samples is not None:
            return self.family.own_windows(n_samples)
        limit, hop = self._max_hops, self.family.frames_per_hop
        if limit is not None and hop is None:
            return _pieces(n_samples, limit * self.family.hop_samples, self.min_samples)
        if limit is None or self.family.n_frames(n_samples) <= limit * hop:
            return [Window(0, n_samples)]
        return _equal_windows(self.family, n_samples, limit)

    def run_samples(self, n_samples):
        size = self.family.window_samples
        return n_samples if size is None else size * len(self.windows(n_samples))

    def load(self, device, dtype):
        """Return the encoder with the checkpoint's weights.

        Raises
        ------
        OSError
            If there are no weights.
        ValueError
            If weights are missing among them.
        """
        model = self.family.load().to(device).requires_grad_(False)
        return HFAudioEncoder(model, self.family, torch.device(device), dtype).eval()


def make_spec(checkpoint, revision, trust_remote_code, max_seconds):
    """Return the spec that reads a checkpoint.

    wav2vec 2.0 and its kin have an encoder of their own here, which packs clips of
    all lengths; everything else runs by transformers' code.

    Raises
    ------
    OSError
        If the checkpoint cannot be found.
    """
    kind = model_type_of(files.folder_of(checkpoint, revision))
    architecture = architecture_of(kind)
    if architecture is None or (trust_remote_code and kind != architecture):
        return HFAudioSpec(checkpoint, revision, trust_remote_code, max_seconds)
    return Wav2Vec2Spec(
        checkpoint, revision, architecture=architecture, max_seconds=max_seconds
    )


def _equal_windows(family, n_samples, max_hops):
    """Cut a clip between frames into as few equal windows as hold it.

    The last window begins earlier where the frames do not divide evenly, and skips
    the frames that have been given: all windows are equally long, and no frame has
    less context than another.
    """
    n_hops = family.n_frames(n_samples) // family.frames_per_hop
    size = ceil(n_hops / ceil(n_hops / max_hops))
    windows = []
    for first in range(0, n_hops, size):
        start = min(first, n_hops - size)
        stop = (start + size - 1) * family.hop_samples + family.min_samples
        skip = (first - start) * family.frames_per_hop
        windows.append(Window(start * family.hop_samples, min(stop, n_samples), skip))
    return windows


def _pieces(n_samples, max_samples, min_samples):
    """Cut a clip into as few pieces as possible, equal to the sample."""
    count = ceil(n_samples / max_samples)
    count = max(1, min(count, n_samples // min_samples))
    bounds = [i * n_samples // count for i in range(count + 1)]
    return [Window(start, stop) for start, stop in pairwise(bounds)]


class HFAudioEncoder(Encoder):
    """A model of transformers that gives its layers as they come.

    Parameters
    ----------
    model : Module
    family : Family
    device : torch.device
    dtype : torch.dtype
        Half precision runs under autocast: weights and norms stay float32.
    """

    def __init__(self, model, family, device, dtype):
        super().__init__()
        self.model = model
        self.family = family
        self.device = device
        self.dtype = dtype
        # Hooks belong to the model, which clones and threads share.
        self.lock = threading.Lock()

    def prepare(self, waveform):
        return self.family.prepare(waveform)

    def forward(self, waveforms):
        layers = []
        waveforms = [self.prepare(waveform) for waveform in waveforms]
        self.stream(waveforms, lambda layer, frames: layers.append((layer, frames)))
        yield from layers

    def stream(self, waveforms, consume):
        lengths = [len(waveform) for waveform in waveforms]

        def give(layer, hidden):
            with torch.autocast(self.device.type, enabled=False):
                consume(layer, torch.cat(self.family.frames(hidden, lengths)))

        with self.lock, self._watched(give), self._precision():
            last = self.family.run(self.model, waveforms)
        give(self.family.n_layers - 1, last)

    def _precision(self):
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @contextmanager
    def _watched(self, give):
        """Hand the input of every block to ``give`` while the model runs."""
        handles = [
            block.register_forward_pre_hook(
                functools.partial(_give_input, give, layer), with_kwargs=True
            )
            for layer, block in enumerate(self.family.blocks(self.model))
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _give_input(give, layer, module, args, kwargs):
    give(layer, args[0] if args else kwargs["hidden_states"])
