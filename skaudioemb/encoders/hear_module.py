"""Modules that speak HEAR's common API, as encoders.

Such a module is a Python module with ``load_model``, ``get_timestamp_embeddings`` and
``get_scene_embeddings``. What it gives is known only once it has run: widths when the
model is loaded, the frames of a clip when a sound of that length went through it.
"""

import functools
import json
import weakref
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, fields

import numpy as np
import torch

from skaudioemb import devices
from skaudioemb.encoders.base import Encoder, EncoderSpec
from skaudioemb.encoders.hear_grids import Grid, Grids
from skaudioemb.encoders.hear_loading import (
    Sizes,
    digest_of,
    import_hear_module,
    load_hear_model,
    name_of,
    portable,
    versions_of,
)
from skaudioemb.encoders.hear_output import check_embeddings, check_timestamps

# Of the largest magnitude: what company may change, by rounding.
_ALIKE = 1e-3
# The specs of scenes and of frames share one model.
_models = weakref.WeakValueDictionary()


@dataclass(frozen=True)
class HEARSpec(EncoderSpec):
    """One of the two kinds of embeddings of a module that speaks HEAR's API.

    Attributes
    ----------
    module : str or module
    model_file_path : str
        File of weights, or empty.
    options : str
        Keyword arguments of ``load_model``, an object in JSON.
    output : {"timestamps", "scene"}
        A scene vector is the one frame of its clip.
    min_seconds : float
        Shorter clips are padded to it.
    batch_size : int or None
        Sounds that the module gets at once at most.
    place : tuple of (str, str)
        Device and precision with which frames are counted.

    Raises
    ------
    ImportError, OSError, TypeError
        By any attribute, if the model cannot be loaded.
    """

    module: object
    model_file_path: str = ""
    options: str = "{}"
    output: str = "timestamps"
    min_seconds: float = 0.0
    batch_size: int | None = None
    place: tuple = field(default=("auto", "float32"), compare=False)

    n_layers = 1
    mixes_lengths = False

    def __reduce__(self):
        values = [getattr(self, each.name) for each in fields(self)]
        return type(self), (portable(self.module), *values[1:])

    @property
    def _encoder(self):
        device, dtype = self.place
        return devices.load_encoder(self, devices.resolve_device(device), dtype)

    @functools.cached_property
    def sizes(self):
        """The :class:`Sizes` of the model, which is loaded to know them."""
        return self._encoder.sizes

    @property
    def sample_rate(self):
        return self.sizes.sample_rate

    @property
    def n_features(self):
        if self.output == "scene":
            return self.sizes.scene_embedding_size
        return self.sizes.timestamp_embedding_size

    @property
    def min_samples(self):
        return max(1, round(self.min_seconds * self.sample_rate))

    @functools.cached_property
    def model_identity(self):
        """Names the model: its module, code, weights and options."""
        weights = ""
        if self.model_file_path:
            weights = digest_of(self.model_file_path)
        versions = versions_of(self.module)
        return "|".join([name_of(self.module), *versions, weights, self.options])

    @property
    def identity(self):
        return f"hear-{self.model_identity}|{self.output}|{self.min_seconds}"

    def n_frames(self, n_samples):
        if self.output == "scene":
            return 1
        return self._encoder.grid(n_samples).n_frames

    def times_of(self, n_samples):
        if self.output == "scene":
            return np.array([n_samples / self.sample_rate / 2])
        return self._encoder.grid(n_samples).times()

    def load(self, device, dtype):
        """Return the encoder around the module's model."""
        found = import_hear_module(self.module)
        key = (id(found), self.model_identity, str(device))
        model = _models.get(key)
        if model is None:
            options = json.loads(self.options)
            model = load_hear_model(found, self.model_file_path, options)
            model = model.to(device).requires_grad_(False)
            _models[key] = model
        return HEAREncoder(model, self, torch.device(device), dtype).eval()


class HEAREncoder(Encoder):
    """A module's model, which sees clips of one length at a time.

    Parameters
    ----------
    model : Module
    spec : HEARSpec
    device : torch.device
    dtype : torch.dtype
        Half precision runs under autocast.
    """

    def __init__(self, model, spec, device, dtype):
        super().__init__()
        self.model = model
        self.functions = import_hear_module(spec.module)
        self.name = name_of(spec.module)
        self.output = spec.output
        self.batch_size = spec.batch_size
        self.device = device
        self.dtype = dtype
        self.sizes = Sizes(*(int(getattr(model, name)) for name in Sizes._fields))
        self.grids = Grids(self.sizes.sample_rate)
        self.company_is_checked = False

    def grid(self, n_samples):
        """Return the Grid of clips of ``n_samples``, by a run on noise if need be."""
        grid = self.grids.get(n_samples)
        if grid is None and self.grids.lengths and not self.grids.has_below(n_samples):
            # Clips come from the longest to the shortest: those between follow.
            with suppress(ValueError):
                self._try(max(1, n_samples // 2))
            grid = self.grids.get(n_samples)
        return grid or self._try(n_samples)

    def _try(self, n_samples):
        generator = torch.Generator().manual_seed(n_samples)
        noise = torch.rand(1, n_samples, generator=generator) * 2 - 1
        with torch.inference_mode():
            self._timestamps(noise.to(self.device))
        return self.grids.get(n_samples)

    def forward(self, waveforms):
        audio = torch.stack(waveforms)
        run = self._scenes if self.output == "scene" else self._timestamps
        size = self.batch_size or len(audio)
        parts = [run(part) for part in audio.split(size)]
        if size > 1 and not self.company_is_checked:
            self._check_company(run, audio[:size], parts[0])
        yield 0, torch.cat(parts)

    def _scenes(self, audio):
        where = f"{self.name}.get_scene_embeddings"
        embeddings = self._single(self._call("get_scene_embeddings", audio))
        size = self.sizes.scene_embedding_size
        check_embeddings(where, embeddings, len(audio), size, timestamps=False)
        return embeddings.to(self.device)

    def _timestamps(self, audio):
        where = f"{self.name}.get_timestamp_embeddings"
        result = self._call("get_timestamp_embeddings", audio)
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise ValueError(
                f"{where} gave a {type(result).__name__}. HEAR's API asks for the "
                "tuple (embeddings, timestamps)."
            )
        embeddings, timestamps = self._single(result[0]), result[1]
        size = self.sizes.timestamp_embedding_size
        check_embeddings(where, embeddings, len(audio), size, timestamps=True)
        n_samples, rate = audio.shape[1], self.sizes.sample_rate
        shape = tuple(embeddings.shape[:2])
        times = check_timestamps(where, timestamps, shape, n_samples, rate)
        self._compare(where, n_samples, Grid.of(times))
        return embeddings.to(self.device).flatten(0, 1)

    def _compare(self, where, n_samples, grid):
        known = self.grids.get(n_samples)
        if known is None:
            self.grids.add(n_samples, grid)
        elif not known.is_like(grid):
            raise ValueError(
                f"{where} gave {grid.n_frames} frames up to {grid.times()[-1]:.4f} s "
                f"for a sound of {n_samples} samples, and others of that length or "
                f"around it {known.n_frames} up to {known.times()[-1]:.4f} s. Frames "
                "and timestamps have to follow from the length alone."
            )

    def _single(self, embeddings):
        """Return embeddings in float32 if autocast made them coarser."""
        halves = (torch.bfloat16, torch.float16)
        coarse = self.dtype in halves and getattr(embeddings, "dtype", None) in halves
        return embeddings.float() if coarse else embeddings

    def _call(self, function, audio):
        try:
            with self._precision():
                return getattr(self.functions, function)(audio, self.model)
        except Exception as error:
            if devices.is_out_of_memory(error):
                raise
            seconds = audio.shape[1] / self.sizes.sample_rate
            raise ValueError(
                f"{self.name}.{function} failed on {len(audio)} sounds of "
                f"{audio.shape[1]} samples ({seconds:.4g} s): {type(error).__name__}: "
                f"{error}. If that is too short for the module, set min_seconds; if "
                "it takes one sound at a time only, batch_size=1."
            ) from error

    def _precision(self):
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def _check_company(self, run, audio, together):
        """Run one clip of the first mixed batch alone, and compare."""
        if self.dtype != torch.float32 or bool((audio == audio[0]).all()):
            return
        self.company_is_checked = True
        own = together.reshape(len(audio), -1)[-1]
        alone = run(audio[-1:]).flatten()
        difference = float((own - alone).abs().max())
        if difference > _ALIKE * float(alone.abs().max()):
            raise ValueError(
                f"The embedding that {self.name!r} gives a sound depends on the others "
                f"in the batch: it differs by {difference:.3g} from that of the sound "
                "alone. Set batch_size=1."
            )
