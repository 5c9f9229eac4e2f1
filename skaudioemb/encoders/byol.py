"""BYOL-A and BYOL-S: their encoders by name, and as upstream models of clips."""

from skaudioemb.encoders.byol_blocks import (
    CLSTM,
    AudioNTT2020,
    AudioNTT2022,
    ResNetish34,
)
from skaudioemb.encoders.byol_cvt import CvT

ENCODERS = {
    "audiontt2020": AudioNTT2020,
    "audiontt2022": AudioNTT2022,
    "resnetish34": ResNetish34,
    "clstm": CLSTM,
    "cvt": CvT,
    "cvt-512": lambda: CvT("mean"),
}
# Those whose width is free, with the width that is meant by None.
FREE_WIDTHS = {"audiontt2020": 2048, "audiontt2022": 3072}


def make_byol_encoder(name, n_features=None):
    """Make an encoder with new weights.

    Parameters
    ----------
    name : {"audiontt2020", "audiontt2022", "resnetish34", "clstm", "cvt", "cvt-512"}
        The first and the second encoder of BYOL-A, and those of BYOL-S; "cvt-512" is
        CvT without its mel bands kept apart.
    n_features : int or None, default=None
        Width of the embedding, which only the first two leave open: 2048 and 3072
        unless given.

    Returns
    -------
    encoder : ByolNet
        In training mode, with weights drawn from torch's generator.

    Raises
    ------
    ValueError
        If the name is not known, or the encoder has another width.

    Examples
    --------
    >>> from skaudioemb.encoders.byol import make_byol_encoder
    >>> encoder = make_byol_encoder("audiontt2020", 512)
    >>> sum(p.numel() for p in encoder.parameters()), encoder.min_frames
    (600192, 8)
    """
    if name not in ENCODERS:
        known = ", ".join(map(repr, ENCODERS))
        raise ValueError(f"encoder={name!r} is not known. Choose one of {known}.")
    if name in FREE_WIDTHS:
        return ENCODERS[name](FREE_WIDTHS[name] if n_features is None else n_features)
    encoder = ENCODERS[name]()
    if n_features not in (None, encoder.n_features):
        raise ValueError(
            f"n_features={n_features}, but embeddings of {name!r} have "
            f"{encoder.n_features} features. Leave n_features=None, or use "
            "'audiontt2020', which has any width."
        )
    return encoder
