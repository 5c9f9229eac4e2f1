"""EncodecMAE with weights that were learned here, and from which they were learned."""

from dataclasses import dataclass
from functools import cached_property

from skaudioemb.encoders import encodecmae_checkpoint as files
from skaudioemb.encoders.encodecmae import EncodecMAESpec, StackSpec
from skaudioemb.encoders.encodecmae_files import find_file
from skaudioemb.encoders.encodecmae_inputs import FileCodec, MelInput, input_of
from skaudioemb.encoders.encodecmae_weights import HeldWeights, SavedWeights


@dataclass(frozen=True)
class PretrainedEncodecMAESpec(StackSpec):
    """An EncodecMAE that was pretrained here.

    Attributes
    ----------
    weights : HeldWeights or SavedWeights
    stream : {"combined", "normed", "residual"}
        See :class:`EncodecMAEEncoder`.

    Raises
    ------
    OSError
        By any attribute, if a codec cannot be found.
    ValueError
        By any attribute, if a file is not as it was written.
    """

    weights: object
    stream: str = "combined"

    def __reduce__(self):
        return type(self), (self.weights, self.stream)

    @cached_property
    def size(self):
        """Measures of the stack."""
        return self.weights.size

    @cached_property
    def chunks(self):
        """How clips are cut, and where frames lie."""
        return self.weights.hears.chunks

    @property
    def identity(self):
        content, heard = self.weights.digest, self.weights.hears.identity
        return f"encodecmae-{content}-{self.size.n_heads}-{self.stream}-{heard}"

    def network(self):
        """Return the :class:`FrameEncoder` with the weights."""
        return self.weights.network()

    def load_front_end(self, device):
        """Return the front end with its weights, if it has any."""
        return self.weights.hears.load(device)


def input_heard(spec):
    """Return what the encoder of a spec hears, to be kept along with its weights.

    Parameters
    ----------
    spec : EncodecMAESpec, RandomEncodecMAESpec or PretrainedEncodecMAESpec

    Returns
    -------
    hears : MelInput, CheckpointCodec or FileCodec
    """
    if isinstance(spec, PretrainedEncodecMAESpec):
        return spec.weights.hears
    if not isinstance(spec, EncodecMAESpec):
        return input_of(spec.front_end, spec.codec)
    return MelInput() if spec.layout.front_end == "mel" else FileCodec(str(spec.path))


def weights_of(spec):
    """Return the weights of a spec, in a form that can be saved.

    Parameters
    ----------
    spec : EncodecMAESpec, RandomEncodecMAESpec or PretrainedEncodecMAESpec

    Returns
    -------
    weights : HeldWeights or SavedWeights
    """
    if isinstance(spec, PretrainedEncodecMAESpec):
        return spec.weights
    return HeldWeights.of(spec.network().state_dict(), spec.size, input_heard(spec))


def make_checkpoint_spec(checkpoint, revision, n_heads, stream):
    """Return the spec of a published file, or of one that was saved here.

    Parameters
    ----------
    checkpoint : str
        See :func:`skaudioemb.encoders.encodecmae_files.find_file`.
    revision : str or None
    n_heads : int or None
        None is 12 for a published file, or 16 where only that fits its queries.
    stream : {"combined", "normed", "residual"}

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If a saved file tells another number of heads.
    """
    path = find_file(checkpoint, revision)
    if path.suffix != ".safetensors":
        n_heads = _likely_heads(path) if n_heads is None else n_heads
        return EncodecMAESpec(checkpoint, revision, n_heads, stream)
    spec = PretrainedEncodecMAESpec(SavedWeights(str(path)), stream)
    if n_heads not in (None, spec.size.n_heads):
        raise ValueError(
            f"n_heads={n_heads}, but {checkpoint!r} was saved with "
            f"{spec.size.n_heads}. Leave n_heads out."
        )
    return spec


def _likely_heads(path):
    layout = files.describe(path)
    fitting = (n for n in (12, 16) if layout.n_features // n * n == layout.n_attended)
    return next(fitting, 12)
