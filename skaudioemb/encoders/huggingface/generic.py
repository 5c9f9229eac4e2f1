"""Models that no family of their own reads: asked what they do with a clip.

A copy of the model without weights runs on clips of noise. The shapes that come out
tell whether it is an audio encoder, how many frames it gives for how many samples,
and where its layers are.
"""

import functools
import inspect
import textwrap
import threading
from bisect import bisect_left
from collections.abc import Mapping
from fractions import Fraction
from itertools import product
from math import ceil

import numpy as np
import torch
from torch import nn

from skaudioemb.encoders.huggingface.base import Family
from skaudioemb.encoders.pretrained import quiet_transformers

# What transformers and others call the encoder of sound within a larger model,
_TOWERS = ("audio_tower", "audio_encoder", "speech_encoder")
# the number of its blocks,
_DEPTHS = ("num_hidden_layers", "encoder_layers", "num_layers", "n_layer", "depth")
# and its sample rate.
_RATES = ("sampling_rate", "sample_rate")
# A model has to run at one of these lengths.
_TRIED_SECONDS = (1, 10)


class Generic(Family):
    """Any model that AutoModel loads, that hears, and that gives frames.

    The input is what the checkpoint's feature extractor makes of a clip, or the
    waveform. The output is ``last_hidden_state``, or the first tensor of three
    dimensions (batch, frames, features), or the first of two, one frame for a clip.
    Frames are taken to lie evenly over a clip. Long clips run in equal pieces, or in
    windows of the length to which the extractor completes every clip.

    Raises
    ------
    ValueError
        If the model is no audio encoder.
    """

    hop_samples = 1
    frames_per_hop = None

    def __init__(self, config, preprocessor, source):
        self.config = config
        self.preprocessor = preprocessor
        self.source = source
        self.model_class = self._find_class()
        extractor = self._make_extractor()
        self.sample_rate = _rate_of(extractor, config)
        self.hearing = _Hearing(extractor, self.sample_rate)
        self.empty = self._make_empty()
        self.n_features = self.empty.shape_of(self.empty.n_tried)[1]
        self.blocks_name = self.empty.find_blocks()
        self.n_layers = len(self.blocks(self.empty.model)) + 1
        fixed = getattr(extractor, "n_samples", None)
        if fixed is not None and self.empty.has_fixed_length:
            self.window_samples, self.hop_samples = fixed, None

    @property
    def _described(self):
        kind = getattr(self.config, "model_type", None)
        return f"The checkpoint {str(self.source.folder)!r} is a {kind!r} model"

    def _find_class(self):
        from transformers import MODEL_MAPPING

        own = self.source.own_classes
        if "AutoModel" in own:
            return self.source.own_class(own["AutoModel"])
        if type(self.config) not in MODEL_MAPPING:
            raise ValueError(
                f"{self._described}, which AutoModel of transformers does not load. "
                "Give the checkpoint of a base model."
            )
        found = MODEL_MAPPING[type(self.config)]
        return found[0] if isinstance(found, tuple) else found

    def _make_extractor(self):
        from transformers import AutoFeatureExtractor

        if not self.preprocessor:
            return None
        own = self.preprocessor.get("auto_map") or self.source.own_classes
        if self.source.trust_remote_code and "AutoFeatureExtractor" in own:
            found = self.source.own_class(own["AutoFeatureExtractor"])
            return found.from_pretrained(self.source.folder, local_files_only=True)
        try:
            return AutoFeatureExtractor.from_pretrained(
                self.source.folder, trust_remote_code=False, local_files_only=True
            )
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self._described} without a feature extractor for audio "
                f"({_first_line(error)}). Give an audio encoder; if the extractor is "
                "code of its own that you trust, pass trust_remote_code=True."
            ) from error

    def _make_empty(self):
        """Return the model without weights, having found out how it hears."""
        failures = {}
        for device, empty in self._candidates():
            failure = empty.attune()
            if failure is None:
                return empty
            failures.setdefault(device, failure)
            if isinstance(failure, MakesSound):
                break
        failure = list(failures.values())[-1]
        raise ValueError(
            f"{self._described}, which gives no frames for a clip "
            f"({type(failure).__name__}: {_first_line(failure)}). It is no audio "
            "encoder, or its input is made by code outside the checkpoint. Give a "
            "model that takes waveforms of shape (batch, n_samples) or the features "
            "of its own feature extractor, and gives (batch, n_frames, n_features)."
        ) from failure

    def _candidates(self):
        for device in ("meta", "cpu"):
            try:
                model = _empty_model(self.model_class, self.config, device)
            except Exception:
                # Some code cannot be run without numbers.
                if device == "cpu":
                    raise
                continue
            for part, seconds in product(range(len(_parts_of(model))), _TRIED_SECONDS):
                n_tried = seconds * self.sample_rate
                yield device, _Empty(model, part, self.hearing, n_tried)

    @functools.cached_property
    def min_samples(self):
        """Length of the shortest clip that runs."""
        return self.empty.shortest()

    def n_frames(self, n_samples):
        return ceil(n_samples / self._frame_samples(n_samples))

    def times_of(self, n_samples):
        positions = np.arange(self.n_frames(n_samples)) + 0.5
        return positions * float(self._frame_samples(n_samples)) / self.sample_rate

    def _frame_samples(self, n_samples):
        """Return the distance of frames in samples."""
        n_samples = self.window_samples or n_samples
        return Fraction(n_samples, self.empty.shape_of(n_samples)[0])

    def load(self):
        unused = self.empty.names_beside()
        model = self.source.load(self.model_class, self.config, unused=unused)
        return _parts_of(model)[self.empty.part]

    def blocks(self, model):
        return model.get_submodule(self.blocks_name) if self.blocks_name else ()

    def run(self, model, waveforms):
        return self.hearing.hidden(model, waveforms)


class MakesSound(ValueError):
    """A model turned out to give waveforms instead of frames."""


class _Hearing:
    """How clips are put into a model, and frames are taken out."""

    def __init__(self, extractor, sample_rate):
        self.extractor = extractor
        self.sample_rate = sample_rate
        self.has_channels = False
        self.features_first = False

    def hidden(self, model, waveforms):
        """Return (n_clips, n_frames, n_features)."""
        device = next(model.parameters()).device
        inputs = {k: v.to(device) for k, v in self._inputs(model, waveforms).items()}
        names = _arguments_of(model)
        first = self._sound_in(inputs)
        args = () if first in names else (inputs.pop(first),)
        known = {name: value for name, value in inputs.items() if name in names}
        hidden = _frames_in(model(*args, **known))
        return hidden.transpose(1, 2) if self.features_first else hidden

    def _sound_in(self, inputs):
        """Return the name of the input that is the sound, not its mask."""
        wanted = getattr(self.extractor, "model_input_names", ())
        return next((name for name in wanted if name in inputs), next(iter(inputs)))

    def _inputs(self, model, waveforms):
        if self.extractor is None:
            names = _arguments_of(model)
            # A model that does not say takes "input_ids" by its name alone.
            name = getattr(model, "main_input_name", None)
            name = name if name in names else next(iter(names), None)
            if name == "input_ids":
                raise TypeError("the model takes input_ids, which stand for text")
            batch = torch.stack(waveforms)
            return {name: batch[:, None] if self.has_channels else batch}
        made = [self._features(waveform) for waveform in waveforms]
        return {name: torch.cat([own[name] for own in made]) for name in made[0]}

    def _features(self, waveform):
        full_precision = torch.autocast("cpu", enabled=False)
        with np.errstate(divide="ignore", invalid="ignore"), full_precision:
            features = self.extractor(
                waveform.cpu().numpy(),
                sampling_rate=self.sample_rate,
                return_tensors="pt",
            )
        # Where an extractor divides by a deviation, silence has none.
        return {
            name: values.nan_to_num(0.0, 0.0, 0.0)
            for name, values in features.items()
            if torch.is_tensor(values)
        }


class _Empty:
    """A model without weights, or with random ones, whose shapes tell of it."""

    def __init__(self, whole, part, hearing, n_tried):
        self.whole = whole
        self.part = part
        self.model = _parts_of(whole)[part]
        self.hearing = hearing
        self.n_tried = n_tried
        self.has_fixed_length = False
        self._lock = threading.Lock()
        self._lengths, self._shapes = [], {}

    def attune(self):
        """Find out how the model hears; return why it does not, or None."""
        channels = (False, True) if self.hearing.extractor is None else (False,)
        failure = None
        for has_channels in channels:
            self.hearing.has_channels = has_channels
            self.hearing.features_first = False
            try:
                once, twice = (self._shape_of(k * self.n_tried) for k in (1, 2))
            except Exception as error:
                failure = failure or error
                continue
            self.hearing.features_first = once[0] == twice[0] and once[1] != twice[1]
            self.has_fixed_length = once == twice
            width = once[0 if self.hearing.features_first else 1]
            return None if width > 1 else MakesSound("the output is a waveform")
        return failure

    def shape_of(self, n_samples):
        """Return the number of frames of a clip, and their width.

        Between lengths that give as many frames, others are not tried.
        """
        with self._lock:
            at = bisect_left(self._lengths, n_samples)
            around = self._lengths[max(0, at - 1) : at + 1]
            if n_samples in around:
                return self._shapes[n_samples]
            shapes = {self._shapes[length] for length in around}
            if len(around) == 2 and len(shapes) == 1:
                return shapes.pop()
            shape = self._shape_of(n_samples)
            self._lengths.insert(at, n_samples)
            self._shapes[n_samples] = shape
            return shape

    @torch.no_grad()
    def _shape_of(self, n_samples):
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(n_samples, generator=generator) - 0.5
        hidden = self.hearing.hidden(self.model, [noise])
        if hidden.shape[0] != 1 or 0 in hidden.shape:
            raise ValueError(f"the output has the shape {tuple(hidden.shape)}")
        return tuple(hidden.shape[1:])

    def names_beside(self):
        """Return parts of the names of weights that sound never meets."""
        if self.model is self.whole:
            return ()
        return tuple(
            f"{name}."
            for name, child in self.whole.named_children()
            if all(part is not self.model for part in child.modules())
        )

    def shortest(self):
        """Return the length of the shortest clip that runs."""
        runs = 1
        while not self._runs(runs):
            runs *= 2
        fails = runs // 2
        while runs - fails > 1:
            middle = (runs + fails) // 2
            if self._runs(middle):
                runs = middle
            else:
                fails = middle
        return runs

    def _runs(self, n_samples):
        if n_samples >= self.n_tried:
            return True
        try:
            self.shape_of(n_samples)
        except Exception:
            return False
        return True

    def find_blocks(self):
        """Return the name of the list of blocks, or None.

        Their number is in the configuration, and every one takes what the model
        gives, once.
        """
        config = getattr(self.model, "config", None)
        depths = {getattr(config, name, None) for name in _DEPTHS}
        shape = (1, *self.shape_of(self.n_tried))
        for name, module in self.model.named_modules():
            is_list = isinstance(module, (nn.ModuleList, nn.Sequential))
            if is_list and len(module) in depths and self._takes(module, shape):
                return name
        return None

    def _takes(self, blocks, shape):
        seen = []

        def look(module, args, kwargs):
            hidden = args[0] if args else kwargs.get("hidden_states")
            seen.append(tuple(getattr(hidden, "shape", ())))

        hooks = [b.register_forward_pre_hook(look, with_kwargs=True) for b in blocks]
        try:
            self._shape_of(self.n_tried)
        finally:
            for hook in hooks:
                hook.remove()
        return seen == [shape] * len(blocks)


def _empty_model(model_class, config, device):
    with quiet_transformers(), torch.random.fork_rng([]), torch.device(device):
        # Some parameters are made where the context has no say.
        return model_class(config).to(device).eval().requires_grad_(False)


def _arguments_of(model):
    parameters = inspect.signature(model.forward).parameters.values()
    return [
        p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def _parts_of(model):
    """Return the parts of a model that may encode sound, the whole one last."""
    parts = [getattr(model, name, None) for name in _TOWERS]
    if getattr(model.config, "is_encoder_decoder", False):
        parts.append(model.get_encoder())
    return [part for part in parts if isinstance(part, nn.Module)] + [model]


def _frames_in(output):
    """Return the tensor of an output that holds frames, (batch, frames, features)."""
    if isinstance(output, Mapping):
        last = output.get("last_hidden_state")
        output = [last, *output.values()]
    tensors = [output] if torch.is_tensor(output) else list(output)
    tensors = [t for t in tensors if torch.is_tensor(t) and t.is_floating_point()]
    for tensor in tensors:
        if tensor.ndim == 3:
            return tensor
    for tensor in tensors:
        if tensor.ndim == 2:
            return tensor[:, None]
    shapes = [tuple(tensor.shape) for tensor in tensors]
    raise ValueError(f"no frames among outputs of the shapes {shapes}")


def _rate_of(extractor, config):
    for owner in (extractor, config):
        for name in _RATES:
            rate = getattr(owner, name, None)
            if rate is not None:
                return int(rate)
    return 16000


def _first_line(error):
    return textwrap.shorten(str(error).strip().split("\n")[0], 200)
