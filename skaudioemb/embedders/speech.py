"""What Wav2Vec2, HuBERT and WavLM share."""

from numbers import Real
from os import PathLike

from sklearn.utils._param_validation import Interval, StrOptions

from skaudioemb.embedders.base import Embedder


class SpeechEmbedder(Embedder):
    """Base of the speech transformers, which differ in names only."""

    _parameter_constraints: dict = {
        **Embedder._parameter_constraints,
        "checkpoint": [str, PathLike],
        "revision": [str, None],
        "normalize": [
            StrOptions({"checkpoint", "none", "zero-mean-unit-var", "layer-norm"})
        ],
        "output_norm": ["boolean"],
        "max_seconds": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init__(
        self,
        checkpoint,
        *,
        revision,
        layers,
        pooling,
        segments,
        normalize,
        output_norm,
        max_seconds,
        sample_rate,
        device,
        dtype,
        batch_seconds,
        memory,
        on_error,
        n_jobs,
        verbose,
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
        self.checkpoint = checkpoint
        self.revision = revision
        self.layers = layers
        self.pooling = pooling
        self.segments = segments
        self.normalize = normalize
        self.output_norm = output_norm
        self.max_seconds = max_seconds

    def _make_spec(self):
        from skaudioemb.encoders.wav2vec2 import Wav2Vec2Spec

        return Wav2Vec2Spec(
            str(self.checkpoint),
            revision=self.revision,
            normalize=self.normalize,
            architecture=self._architecture,
            output_norm=self.output_norm,
            max_seconds=self.max_seconds,
        )
