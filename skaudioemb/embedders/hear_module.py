"""HEARModel: any module that speaks HEAR's common API."""

import copy
import json
import os
from numbers import Integral, Real
from os import PathLike
from types import ModuleType

from sklearn.base import _clone_parametrized
from sklearn.utils._param_validation import Interval

from skaudioemb.embedders.base import Embedder
from skaudioemb.embedders.plans import ScenePlan


class HEARModel(Embedder):
    """Embeddings of any module that speaks the common API of HEAR 2021.

    Such a module has ``load_model``, ``get_timestamp_embeddings`` and
    ``get_scene_embeddings``, as the submissions to HEAR and what
    :func:`skaudioemb.hear.api.as_module` makes. Clips are resampled to the model's rate
    and run with clips of their own length only. What the module gives is checked:
    shapes, widths, float32, finite values, and timestamps that increase, do not leave
    the clip, and are milliseconds.

    Parameters
    ----------
    module : str or module
        Name of an installed module, as "hear21passt.base", or the module itself. A
        name can be sent to other processes. Importing it runs its code.
    model_file_path : str or path-like, default=""
        File of weights that ``load_model`` is given; empty if it needs none.
    options : dict or None, default=None
        Keyword arguments of ``load_model``, of what JSON can hold.
    pooling : {"scene", "mean", "max", "mean+max"}, default="scene"
        Scene vector: what ``get_scene_embeddings`` gives, or how the frames of
        ``get_timestamp_embeddings`` become one; "mean+max" is the sum of both. In a
        fusion the frames are used in any case.
    segments : int or None, default=None
        Number of equal groups of frames that are pooled apart and concatenated. None
        with ``pooling="scene"``.
    min_seconds : float, default=0.0
        Shorter clips are padded with zeros to this length, for modules that fail on
        a few samples.
    batch_size : int or None, default=None
        Number of clips that the module gets at once at most; None sets no limit but
        ``batch_seconds``. Give 1 where company changes a clip's embedding.
    sample_rate : int, default=16000
        Rate of bare arrays in Hz. Files know their own.
    device : str, default="auto"
        A torch device; "auto" takes CUDA if there is one.
    dtype : {"float32", "bfloat16", "float16"}, default="float32"
        Precision of the network, by autocast; embeddings are float32 in any case.
    batch_seconds : float, default=60.0
        Audio in one batch, in seconds.
    memory : str, path-like, Store, joblib.Memory or None, default=None
        Where embeddings are kept, so that no clip is run twice.
    on_error : {"raise", "nan"}, default="raise"
        What a clip that cannot be read does: raise, or become a row of NaN.
    n_jobs : int or None, default=None
        Number of processes; None is 1 unless in a ``joblib.parallel_config``.
    verbose : int, default=0
        Show a progress bar if positive.

    Attributes
    ----------
    n_features_in_ : int
        Samples of each clip, if X was a 2-D array.
    n_layers_ : int
        Always 1.

    Notes
    -----
    ``fit`` loads the model, for nothing else tells how wide its embeddings are. The
    number of frames of a clip is found by a run on noise of its length, unless it
    follows from runs on shorter and longer ones: a few dozen runs for any number of
    lengths, one if all are equal. Scene vectors of ``get_scene_embeddings`` need none.

    The first batch of different clips is used to see that company does not change an
    embedding by more than 0.1 % of its largest magnitude, which would otherwise
    depend on the order of the clips.

    The store knows a module by its name, ``__version__``, distribution and file, by the
    content of the file of weights, and by the options. Clear the store when other files
    of a module change and its version does not.

    References
    ----------
    J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations", PMLR 176,
    2022, section 2; the API is at https://hearbenchmark.com/hear-api.html.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb import HEARModel
    >>> clips = [np.sin(np.arange(n) / 8) for n in (8000, 16000)]
    >>> model = HEARModel("skaudioemb.hear.modules.crepe_tiny", options={"hop": 0.1})
    >>> model.fit_transform(clips).shape
    (2, 256)
    >>> [len(times) for _, times in model.frames(clips)]
    [6, 11]
    """

    _poolings = ("scene", "mean", "max", "mean+max")

    _parameter_constraints: dict = {
        **Embedder._parameter_constraints,
        "module": [str, ModuleType],
        "model_file_path": [str, PathLike],
        "options": [dict, None],
        "min_seconds": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        module,
        *,
        model_file_path="",
        options=None,
        pooling="scene",
        segments=None,
        min_seconds=0.0,
        batch_size=None,
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
        self.module = module
        self.model_file_path = model_file_path
        self.options = options
        self.pooling = pooling
        self.segments = segments
        self.min_seconds = min_seconds
        self.batch_size = batch_size

    def __getstate__(self):
        from skaudioemb.encoders.hear_loading import portable

        return {**super().__getstate__(), "module": portable(self.module)}

    def __sklearn_clone__(self):
        # Modules cannot be copied: the name stands in while all else is.
        named = copy.copy(self)
        named.module = str(self.module)
        twin = _clone_parametrized(named)
        twin.module = self.module
        return twin

    def _make_spec(self):
        return self._spec("timestamps")

    def _spec(self, output):
        from skaudioemb.encoders.hear_loading import portable
        from skaudioemb.encoders.hear_module import HEARSpec

        path = os.fspath(self.model_file_path)
        if path and not os.path.exists(path):
            raise FileNotFoundError(
                f"There is no model_file_path={path!r}. Give the file of weights that "
                "comes with the module, or '' if it needs none."
            )
        return HEARSpec(
            portable(self.module),
            path,
            self._options_text(),
            output,
            float(self.min_seconds),
            self.batch_size,
            (self.device, self.dtype),
        )

    def _options_text(self):
        try:
            return json.dumps(self.options or {}, sort_keys=True)
        except TypeError as error:
            raise TypeError(
                f"options={self.options!r} holds what JSON cannot ({error}). Give "
                "text, numbers, booleans, None, and lists and dicts of these."
            ) from error

    def _validate(self, scene=False):
        spec = super()._validate(scene)
        if self.pooling == "scene" and self.segments is not None:
            raise ValueError(
                f"segments={self.segments} needs frames, and pooling='scene' takes the "
                "module's own scene vector. Use pooling='mean', or segments=None."
            )
        return spec

    def _scene_plan(self):
        if self.pooling != "scene":
            return super()._scene_plan()
        self._validate()
        spec = self._spec("scene")
        return spec, ScenePlan(spec, "mean", None, self._selection(spec))

    def _n_scene_features(self, spec):
        if self.pooling == "scene":
            return self._spec("scene").n_features
        return super()._n_scene_features(spec)
