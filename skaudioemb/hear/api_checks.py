"""The checks of HEAR's validator, for any module that speaks HEAR's common API.

References
----------
The checks are those of hear-validator, https://github.com/hearbenchmark/hear-validator;
the API is at https://hearbenchmark.com/hear-api.html.
"""

from dataclasses import dataclass

import numpy as np
import torch

from skaudioemb.encoders.hear_loading import (
    Sizes,
    import_hear_module,
    load_hear_model,
    name_of,
)
from skaudioemb.encoders.hear_output import check_embeddings, check_timestamps

# Hz; the rates at which HEAR's tasks are published.
SAMPLE_RATES = (16000, 22050, 32000, 44100, 48000)
# Seconds of noise, and sounds of it.
_TIMESTAMP_SECONDS = (1.07, 1.98, 4.0)
_N_TIMESTAMP_SOUNDS = 2
_SCENE_SECONDS = 2.74
_N_SCENE_SOUNDS = 4
# Milliseconds. Onsets are scored with a tolerance of the first.
_LONGEST_HOP = 50.0
_UNEVEN = 1.0
# Of the largest magnitude.
_ALIKE = 1e-3


@dataclass(frozen=True)
class Report:
    """What :func:`validate` found.

    Attributes
    ----------
    module : str
    errors : tuple of str
        What breaks the API: the benchmark would fail, or score nonsense.
    warnings : tuple of str
        What is allowed and costs score.
    """

    module: str
    errors: tuple
    warnings: tuple

    @property
    def ok(self):
        """Whether there is no error."""
        return not self.errors

    def raise_errors(self):
        """Raise a ValueError that lists the errors, if there are."""
        if self.errors:
            raise ValueError(str(self))

    def __str__(self):
        verdict = "speaks" if self.ok else "does not speak"
        lines = [f"{self.module} {verdict} HEAR's common API."]
        lines += [f"error: {error}" for error in self.errors]
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)


def validate(module, model_file_path="", **options):
    """Check that a module speaks HEAR's common API.

    The model is loaded and run, where it loads, on white noise of a few seconds.

    Parameters
    ----------
    module : str or module
        The module, or its name.
    model_file_path : str or path-like, default=""
        File of weights that ``load_model`` is given; empty if it needs none.
    **options : dict
        Further arguments of ``load_model``.

    Returns
    -------
    report : Report
        Errors and warnings in sentences. Nothing is raised; call
        ``report.raise_errors()`` for that.

    Examples
    --------
    >>> from skaudioemb.hear.api import validate
    >>> print(validate("skaudioemb.hear.modules.logmel"))
    skaudioemb.hear.modules.logmel speaks HEAR's common API.
    >>> validate("skaudioemb.hear").ok
    False
    """
    try:
        functions = import_hear_module(module)
        model = load_hear_model(functions, model_file_path, options)
    except Exception as error:
        return Report(name_of(module), (f"{type(error).__name__}: {error}",), ())
    checks = _Checks(name_of(module), functions, model)
    checks.attributes()
    with torch.no_grad():
        for seconds in _TIMESTAMP_SECONDS:
            checks.timestamps(seconds)
        checks.scenes()
    return checks.report()


class _Checks:
    """The checks of one model; what they find is kept, each once."""

    def __init__(self, name, functions, model):
        self.name = name
        self.functions = functions
        self.model = model
        self.errors = {}
        self.warnings = {}

    def report(self):
        return Report(self.name, tuple(self.errors), tuple(self.warnings))

    def attributes(self):
        for attribute in Sizes._fields:
            value = getattr(self.model, attribute)
            if type(value) is not int:
                self._error(
                    f"the model's {attribute} is {value!r}, a {type(value).__name__}. "
                    "It has to be an int of Python."
                )
        if self.model.sample_rate not in SAMPLE_RATES:
            self._error(
                f"the model's sample_rate is {self.model.sample_rate}. HEAR has audio "
                f"at {', '.join(map(str, SAMPLE_RATES))} Hz."
            )

    def timestamps(self, seconds):
        where = f"{self.name}.get_timestamp_embeddings"
        audio = self._noise(_N_TIMESTAMP_SOUNDS, seconds)
        try:
            values, times = self.functions.get_timestamp_embeddings(audio, self.model)
            size = self.model.timestamp_embedding_size
            check_embeddings(where, values, len(audio), size, timestamps=True)
            shape = tuple(values.shape[:2])
            rate = self.model.sample_rate
            times = check_timestamps(where, times, shape, audio.shape[1], rate)
            alone, _ = self.functions.get_timestamp_embeddings(audio[:1], self.model)
        except Exception as error:
            self._error(_sentence(where, error))
            return
        self._compare(where, values[:1], alone)
        self._grid(where, times, 1000 * audio.shape[1] / rate)

    def scenes(self):
        where = f"{self.name}.get_scene_embeddings"
        audio = self._noise(_N_SCENE_SOUNDS, _SCENE_SECONDS)
        try:
            values = self.functions.get_scene_embeddings(audio, self.model)
            size = self.model.scene_embedding_size
            check_embeddings(where, values, len(audio), size, timestamps=False)
            alone = self.functions.get_scene_embeddings(audio[:1], self.model)
        except Exception as error:
            self._error(_sentence(where, error))
            return
        self._compare(where, values[:1], alone)

    def _noise(self, n_sounds, seconds):
        n_samples = int(seconds * self.model.sample_rate)
        generator = torch.Generator().manual_seed(n_samples)
        noise = torch.rand(n_sounds, n_samples, generator=generator) * 2 - 1
        anchors = [*self.model.parameters(), *self.model.buffers()]
        return noise.to(anchors[0].device) if anchors else noise

    def _grid(self, where, times, duration):
        """Check when frames come, in milliseconds."""
        at = f"in {duration:.6g} ms of audio"
        # As float32 the end of a clip may be a bit later than it is.
        if times[-1] > np.float32(duration):
            self._error(
                f"{where} gave a frame at {times[-1]:.6g} ms {at}. Frames have to lie "
                "inside."
            )
        steps = np.diff(times)
        if not len(steps):
            self._warn(f"{where} gave one frame {at}: nothing can be located in it.")
            return
        mean = steps.mean()
        if np.abs(steps - mean).max() > _UNEVEN:
            self._error(
                f"{where} gave frames {steps.min():.4g} to {steps.max():.4g} ms apart "
                f"{at}. They have to be regular, to {_UNEVEN:g} ms."
            )
        if steps.max() > _LONGEST_HOP:
            self._warn(
                f"{where} gives frames {steps.max():.4g} ms apart. Onsets are scored "
                f"with a tolerance of {_LONGEST_HOP:g} ms: take a hop of at most that."
            )
        if times[0] > mean:
            self._warn(
                f"{where} gave its first frame at {times[0]:.4g} ms {at}, later than "
                f"the hop of {mean:.4g} ms: pad the start."
            )
        missed = duration - times[-1]
        for reach, name in ((mean, "hop"), (_LONGEST_HOP, "tolerance of onsets")):
            if missed > reach:
                self._warn(
                    f"{where} gave its last frame {missed:.4g} ms before the end "
                    f"{at}, more than the {name} of {reach:.4g} ms: pad the end."
                )

    def _compare(self, where, together, alone):
        if together.shape != alone.shape:
            self._error(f"{where} gives a sound alone another number of frames.")
            return
        if not bool(torch.isfinite(together).all()):
            self._error(f"{where} gave embeddings that are not finite for white noise.")
        elif float((together - alone).abs().max()) > _ALIKE * float(alone.abs().max()):
            self._warn(
                f"{where}: the embedding of a sound depends on the others in its "
                "batch, and with that on how a tool makes batches."
            )

    def _error(self, sentence):
        self.errors[sentence] = None

    def _warn(self, sentence):
        self.warnings[sentence] = None


def _sentence(where, error):
    text = str(error)
    return text if where in text else f"{where} failed: {type(error).__name__}: {text}"
