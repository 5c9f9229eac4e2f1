"""The activations of an embedder's layers for clips of a minibatch."""

import copy
from contextlib import ExitStack
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import nn

from skaudioemb import audio, devices, windows
from skaudioemb.embedders.base import Embedder
from skaudioemb.summaries import Kept

_IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)
ACTIVATIONS = ("scenes", "frames", "modules")


def make_reader(model, activations, modules="*"):
    """Return what reads the activations of a model.

    Parameters
    ----------
    model : Embedder, Fusion or fitted transformer of clips
        Stays as it is.
    activations : {"scenes", "frames", "modules"}
    modules : str or list of str, default="*"

    Returns
    -------
    reader : ScenesReader, FramesReader or ModulesReader
        ``read(clips)`` gives a list of ndarray of shape (n_clips, ...), one a layer;
        ``layer_names`` are known after it.

    Raises
    ------
    ValueError
        If ``activations`` is not known.
    TypeError
        If the model cannot give them.
    """
    if activations not in ACTIVATIONS:
        raise ValueError(
            f"activations={activations!r} is not known. Choose one of "
            f"{', '.join(map(repr, ACTIVATIONS))}."
        )
    needed = {"scenes": "transform", "frames": "frames"}.get(activations)
    if activations == "modules" and not isinstance(model, Embedder):
        raise TypeError(
            f"activations='modules' needs an embedder with a network of its own, and "
            f"{type(model).__name__} is none."
        )
    if isinstance(model, type) or (needed and not hasattr(model, needed)):
        raise TypeError(
            f"{model!r} has no {needed or 'network'}. Give an embedder of skaudioemb, "
            "or with activations='scenes' any fitted transformer of clips."
        )
    if activations == "modules":
        return ModulesReader(model, [modules] if isinstance(modules, str) else modules)
    return ScenesReader(model) if activations == "scenes" else FramesReader(model)


class _LayersReader:
    """A model, with all of its layers side by side."""

    def __init__(self, model):
        self.layer_names = [type(model).__name__]
        self.model = model
        if isinstance(model, Embedder) and "layers" in model.get_params(deep=False):
            # A copy, for a clone would forget what the model was fitted to.
            self.model = copy.copy(model).set_params(layers="all")
            n_layers = self.model._make_spec().n_layers
            self.layer_names = [str(number) for number in range(n_layers)]


class ScenesReader(_LayersReader):
    """Scene vectors, layer by layer."""

    def read(self, clips):
        embeddings = np.asarray(self.model.transform(clips))
        segments = getattr(self.model, "segments", None) or 1
        shape = (len(clips), segments, len(self.layer_names), -1)
        if len(self.layer_names) == 1:
            return [embeddings]
        return list(np.moveaxis(embeddings.reshape(shape), 2, 0))


class FramesReader(_LayersReader):
    """Frames side by side, layer by layer; clips have to be equally long."""

    def read(self, clips):
        frames = [values for values, _ in self.model.frames(clips)]
        longest = max(map(len, frames))
        # A clip that could not be read is one frame of NaN.
        frames = [
            np.full((longest, values.shape[1]), np.nan, np.float32)
            if np.isnan(values).all()
            else values
            for values in frames
        ]
        values = np.stack(frames)
        shape = (*values.shape[:2], len(self.layer_names), -1)
        return list(np.moveaxis(values.reshape(shape), 2, 0))


class ModulesReader:
    """What the modules of an embedder's network return, clip by clip.

    Parameters
    ----------
    model : Embedder
    patterns : list of str
        Of the names of modules.
    """

    def __init__(self, model, patterns):
        self.model = model
        self.patterns = patterns
        self.layer_names = None

    def read(self, clips):
        spec = self.model._validate(scene=True)
        device = devices.resolve_device(self.model.device)
        encoder = devices.load_encoder(spec, device, self.model.dtype)
        outputs = [self._run(encoder, spec, device, clip) for clip in clips]
        if self.layer_names is None:
            self.layer_names = list(outputs[0])
        self._check(outputs)
        return [np.stack([each[name] for each in outputs]) for name in self.layer_names]

    def _run(self, encoder, spec, device, clip):
        """Return a dict from a module's name to all it returned, flattened."""
        waveform = audio.load(clip, self.model.sample_rate)
        samples = audio.resample(waveform, spec.sample_rate)
        samples = np.pad(samples, (0, max(0, spec.min_samples - len(samples))))
        wanted = [[Kept((spec.n_layers - 1,))]]
        limit = self.model.batch_seconds * spec.sample_rate
        with ExitStack() as stack, torch.inference_mode():
            parts = self._watch(encoder, stack)
            tensors = [torch.from_numpy(samples).to(device)]
            windows.summarise(encoder, spec, tensors, wanted, limit)
        return {name: np.concatenate(own) for name, own in parts.items()}

    def _watch(self, encoder, stack):
        """Return a dict that fills while the encoder runs, as long as ``stack`` is."""
        parts = {}

        def keep(name):
            def hook(module, inputs, output):
                if torch.is_tensor(output):
                    # A copy, before the next module may overwrite it.
                    values = output.detach().float().cpu().numpy().ravel().copy()
                    parts.setdefault(name, []).append(values)

            return hook

        for name, module in encoder.named_modules():
            # Parametrizations make weights, and dropout hands on what it gets.
            is_layer = (
                next(module.children(), None) is None
                and ".parametrizations." not in name
                and not isinstance(module, _IDENTITIES)
            )
            if is_layer and any(fnmatchcase(name, each) for each in self.patterns):
                handle = module.register_forward_hook(keep(name))
                stack.callback(handle.remove)
        return parts

    def _check(self, outputs):
        if not self.layer_names:
            raise TypeError(
                f"No module of {type(self.model).__name__}'s network that is called "
                f"matches modules={self.patterns!r}."
            )
        shapes = {tuple((n, len(v)) for n, v in each.items()) for each in outputs}
        if len(shapes) > 1:
            raise ValueError(
                f"Modules of {type(self.model).__name__} return more for some clips of "
                "a length than for others. Use activations='frames'."
            )
