"""OpenSMILE: hand-made features of speech and music."""

import numpy as np
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from skaudioemb import devices
from skaudioemb.embedders.base import Embedder
from skaudioemb.embedders.plans import ScenePlan
from skaudioemb.encoders.opensmile import FEATURE_SETS, OpenSMILESpec

FUNCTIONALS = "functionals"


class OpenSMILE(Embedder):
    """Hand-made features of openSMILE: functionals of clips, descriptors of frames.

    openSMILE describes a frame by pitch, loudness, spectrum and voice quality
    (low-level descriptors), and a clip by statistics of these, called functionals:
    means, percentiles, slopes, peaks. There are no weights. This class needs the
    package opensmile: ``pip install 'skaudioemb[opensmile]'``.

    Its licence, the audEERING Research License, admits research and evaluation, and
    forbids products; that holds for what is made with it, such as features and models
    trained on them, unless audEERING grants a commercial licence.

    Parameters
    ----------
    feature_set : str, default="ComParE_2016"
        Name of the set, with its functionals of a clip and descriptors of a frame:

        ============== =========== ===========
        set            functionals descriptors
        ============== =========== ===========
        "ComParE_2016" 6373        65
        "eGeMAPSv02"   88          25
        "eGeMAPSv01b"  88          23
        "eGeMAPSv01a"  88          23
        "GeMAPSv01b"   62          18
        "GeMAPSv01a"   62          18
        "emobase"      988         26
        "IS09"         384         16
        "IS10"         1582        38
        "IS11"         4368        59
        "IS12"         6125        64
        "IS13"         6373        65
        ============== =========== ===========

        The sets v01a and v01b are there for comparison: "eGeMAPSv02" and
        "GeMAPSv01b" have replaced them.
    descriptors : {"static", "deltas"}, default="static"
        What a frame is: the descriptors or their deltas, the slopes over five frames.
        The GeMAPS sets have no deltas. Functionals do not depend on it.
    pooling : {"functionals", "mean", "max", "mean+max", "mean-std"}, \
default="functionals"
        Scene vector: the set's functionals, or how the descriptors of the frames become
        one; "mean+max" is the sum of both, "mean-std" puts both side by side. In a
        fusion the descriptors are used in any case.
    segments : int or None, default=None
        Number of equal groups of frames that are pooled apart and concatenated. None
        with ``pooling="functionals"``.
    sample_rate : int, default=16000
        Rate of bare arrays in Hz. Files know their own.
    device : str, default="auto"
        Accepted like everywhere; openSMILE computes on the CPU.
    dtype : {"float32", "bfloat16", "float16"}, default="float32"
        Accepted like everywhere; openSMILE computes in float32.
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
    Clips are resampled to 16 kHz, and clipped to what 16 bits hold: openSMILE itself
    lets a sample of 1.0 wrap around to -1.0. It needs 60 ms ("IS10" to "IS12" 70 ms,
    "emobase" 40 ms, "IS09" 25 ms); shorter clips are padded with zeros to that length.

    Frame ``i`` begins at ``i * 10`` ms; its time is the centre of the window of 20 or
    25 ms behind most descriptors. Those of pitch and voice quality see 60 ms (in some
    sets 40) from the same beginning on. All are smoothed over three frames.

    A functional that is not defined for a clip, such as one of the pitch where nothing
    is voiced, is 0; openSMILE does so for most, and here the others follow.

    Functionals differ in scale by many orders of magnitude. Standardise them before
    anything that measures distances, as before joining them with other features.

    The store knows features by the version of the package opensmile, the set and the
    level.

    References
    ----------
    F. Eyben, M. Wöllmer and B. Schuller, "openSMILE: The Munich Versatile and Fast
    Open-Source Audio Feature Extractor", ACM Multimedia 2010. F. Weninger et al., "On
    the Acoustics of Emotion in Audio: What Speech, Music, and Sound Have in Common",
    Frontiers in Psychology 4, 2013 (ComParE). F. Eyben et al., "The Geneva Minimalistic
    Acoustic Parameter Set (GeMAPS)", IEEE Transactions on Affective Computing 7, 2016.

    Examples
    --------
    The systems "BYOL-S + OS" of G. Elbanna et al., "BYOL-S: Learning Self-supervised
    Speech Representations by Bootstrapping", HEAR 2021, put ComParE's functionals
    beside a learned embedding, each feature standardised on the training clips:

    >>> from sklearn.pipeline import make_pipeline, make_union
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skaudioemb import CREPE, MLPProbe, OpenSMILE
    >>> features = make_union(CREPE("tiny"), OpenSMILE("ComParE_2016"))
    >>> model = make_pipeline(features, StandardScaler(), MLPProbe())
    >>> model.fit(clips, labels)  # doctest: +SKIP
    """

    _poolings = (FUNCTIONALS, "mean", "max", "mean+max", "mean-std")

    _parameter_constraints: dict = {
        **Embedder._parameter_constraints,
        "feature_set": [StrOptions(set(FEATURE_SETS))],
        "descriptors": [StrOptions({"static", "deltas"})],
    }

    def __init__(
        self,
        feature_set="ComParE_2016",
        *,
        descriptors="static",
        pooling=FUNCTIONALS,
        segments=None,
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
        self.feature_set = feature_set
        self.descriptors = descriptors
        self.pooling = pooling
        self.segments = segments

    def get_feature_names_out(self, input_features=None):
        """Return the names of the features of a scene vector, as openSMILE has them.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        names : ndarray of str, shape (n_features,)
            Of descriptors that are pooled, with the kind of pooling at the end, and the
            number of the segment if there are several.

        Raises
        ------
        NotFittedError
            If the embedder is not fitted.
        ImportError
            If the package opensmile is not installed.
        """
        check_is_fitted(self, "_n_features_out")
        spec, _ = self._scene_plan()
        device = devices.resolve_device(self.device)
        names = devices.load_encoder(spec, device, self.dtype).feature_names
        if self.pooling != FUNCTIONALS:
            names = [f"{name}_{part}" for part in self._parts() for name in names]
        if self.segments is not None:
            names = [f"{name}_{i}" for i in range(self.segments) for name in names]
        return np.asarray(names, dtype=object)

    def _parts(self):
        return ("mean", "std") if self.pooling == "mean-std" else (self.pooling,)

    def _make_spec(self):
        return OpenSMILESpec(self.feature_set, self.descriptors)

    def _functionals(self):
        return OpenSMILESpec(self.feature_set, FUNCTIONALS)

    def _validate(self, scene=False):
        spec = super()._validate(scene)
        if self.pooling == FUNCTIONALS and self.segments is not None:
            raise ValueError(
                f"segments={self.segments} needs frames, and pooling='functionals' "
                "describes the whole clip. Use another pooling, or segments=None."
            )
        return spec

    def _scene_plan(self):
        if self.pooling != FUNCTIONALS:
            return super()._scene_plan()
        self._validate()
        spec = self._functionals()
        return spec, ScenePlan(spec, "mean", None, self._selection(spec))

    def _n_scene_features(self, spec):
        if self.pooling == FUNCTIONALS:
            return self._functionals().n_features
        return super()._n_scene_features(spec)
