"""What a kind of model has to tell so that any checkpoint of it can be run."""

import os
from abc import ABC, abstractmethod
from typing import NamedTuple

from skaudioemb.encoders import checkpoint as files
from skaudioemb.encoders.base import Window
from skaudioemb.encoders.pretrained import load_pretrained


class Source(NamedTuple):
    """A checkpoint's folder, and whether code in it may run.

    Attributes
    ----------
    folder : Path
    trust_remote_code : bool
    """

    folder: object
    trust_remote_code: bool = False

    @property
    def own_classes(self):
        """The checkpoint's own classes by the name of what they replace.

        Empty if it has none, or if its code is not trusted.
        """
        if not self.trust_remote_code:
            return {}
        return files.read_json(self.folder / files.CONFIG_FILE).get("auto_map", {})

    def own_class(self, reference):
        """Return a class of the checkpoint's own code, which runs.

        Parameters
        ----------
        reference : str
            Module and class, as ``auto_map`` gives them.

        Raises
        ------
        OSError
            If the code can be had neither from the folder nor from the hub.
        """
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        folder, where = os.fspath(self.folder), {}
        if files.is_cached(self.folder):
            # The code may not have been downloaded yet.
            folder, where = files.hub_place(self.folder)
        return get_class_from_dynamic_module(reference, folder, **where)

    def load(self, model_class, config, unused=()):
        """Return a model; see :func:`skaudioemb.encoders.pretrained.load_pretrained`.

        Code of the checkpoint runs if it is trusted.
        """
        options = {"trust_remote_code": True} if self.trust_remote_code else {}
        return load_pretrained(
            self.folder, model_class, config, unused=unused, **options
        )


class Family(ABC):
    """How models of one kind take samples in and give frames out.

    One instance belongs to one checkpoint and is made from its small files alone.

    Parameters
    ----------
    config : PreTrainedConfig
    preprocessor : dict
        Content of ``preprocessor_config.json``, {} if there is none.
    source : Source

    Attributes
    ----------
    sample_rate : int
        In Hz.
    n_features : int
        Width of a frame.
    n_layers : int
        Number of hidden states, the input of the first block among them.
    min_samples : int
        Shorter clips are zero-padded to this length.
    hop_samples : int or None
        Distance in samples of places where a clip can be cut into windows: the ``i``-th
        group of ``frames_per_hop`` frames sees ``min_samples`` samples from
        ``i * hop_samples`` on. None where a clip cannot be cut.
    frames_per_hop : int or None
        None where windows give as many frames as if they were clips, whatever the
        whole clip would give.
    window_samples : int or None
        Length of the model's own window: longer clips are cut into such windows, and
        the family completes a shorter one.
    mixes_lengths : bool
        Whether :meth:`run` may get clips of different lengths because a clip's frames
        come out as if it were alone.
    """

    min_samples = 1
    hop_samples = None
    frames_per_hop = 1
    window_samples = None
    mixes_lengths = False

    def __init__(self, config, preprocessor, source):
        self.config = config
        self.preprocessor = preprocessor
        self.source = source
        self.sample_rate = preprocessor.get("sampling_rate", 16000)
        self.n_features = config.hidden_size
        self.n_layers = config.num_hidden_layers + 1

    @abstractmethod
    def n_frames(self, n_samples):
        """Return the number of frames of one window of ``n_samples`` samples."""

    @abstractmethod
    def times_of(self, n_samples):
        """Return the centres of its frames in seconds from its start, float64."""

    @abstractmethod
    def load(self):
        """Return the model, float32, in eval mode."""

    def own_windows(self, n_samples):
        """Return the :class:`~skaudioemb.encoders.base.Window` that a clip is cut into.

        Asked only of models with ``window_samples``.
        """
        size = self.window_samples
        starts = range(0, n_samples, size)
        return [Window(start, min(start + size, n_samples)) for start in starts]

    def prepare(self, waveform):
        """Return a whole clip as the model expects it, before it is cut up.

        Parameters
        ----------
        waveform : Tensor of shape (n_samples,)
        """
        return waveform

    def blocks(self, model):
        """Return the modules whose inputs are the hidden states before the last."""
        return ()

    @abstractmethod
    def run(self, model, waveforms):
        """Return the last hidden state.

        Parameters
        ----------
        model : Module
        waveforms : list of Tensor of shape (n_samples,)
            Of one length, unless ``mixes_lengths``, and no longer than
            ``window_samples``.

        Returns
        -------
        hidden : Tensor of shape (n_clips, n_positions, n_features)
        """

    def frames(self, hidden, lengths):
        """Return the frames of each clip of a hidden state.

        Parameters
        ----------
        hidden : Tensor of shape (n_clips, n_positions, n_features)
            Of any layer.
        lengths : list of int
            Samples of each clip.

        Returns
        -------
        frames : list of Tensor of shape (n_frames, n_features)
        """
        counts = [self.n_frames(length) for length in lengths]
        return [clip[:count] for clip, count in zip(hidden, counts, strict=True)]
