"""Weights of BYOL-A and BYOL-S that their authors publish, by short names.

None comes with the package. A name is downloaded when it is first used, but only where
the licence allows use by everyone and the checksum is known here; otherwise the file
has to be given. What follows is as the authors' pages state it, none of it legal
advice.
"""

import os
from typing import NamedTuple

MIT = "MIT"
NTT = "NTT evaluation licence"
HYBRID = "MIT, research only (openSMILE)"

_SERAB = "https://github.com/Neclow/SERAB/raw/main/SERAB/checkpoints/"
_BYOLS = "https://github.com/GasserElbanna/serab-byols/raw/main/checkpoints/"
_NTT = "https://github.com/nttcslab/byol-a/raw/master/"
_ELBANNA = "Elbanna et al. 2022"
_CVT = "cvt_s1-d1-e64_s2-d1-e256_s3-d1-e512_BYOLAs64x96-"

_NOTICES = {
    NTT: (
        "NTT's licence allows internal evaluation only, no redistribution and no "
        "changes: read it, then download the file yourself"
    ),
    HYBRID: (
        "It was trained with openSMILE features, whose licence asks for a commercial "
        "one where products use models derived from them, so it is for research"
    ),
}


class Published(NamedTuple):
    """One published file.

    Attributes
    ----------
    url : str
    encoder : str
        See :func:`skaudioemb.encoders.byol.make_byol_encoder`.
    n_features : int
    summary : str
        One line on what it is.
    source : str
        Paper, and name on the HEAR 2021 leaderboard.
    licence : str
    sha256 : str or None
        Checksum where it is known.
    """

    url: str
    encoder: str
    n_features: int
    summary: str
    source: str
    licence: str = MIT
    sha256: str | None = None

    @property
    def family(self):
        """Name of the estimator for it."""
        return "BYOLA" if self.licence == NTT else "BYOLS"

    @property
    def settings(self):
        """What its estimator is told, and what the authors' code does otherwise.

        BYOL-A's first weights were trained on Slaney's mel scale, and are run on HTK's;
        the code of BYOL-S normalises by the clips of one call, which here is one clip.
        """
        if self.family == "BYOLS":
            return {"normalize": "fit"}, {"normalize": "clip"}
        first = self.encoder == "audiontt2020"
        return {"frontend": self.frontend}, {"frontend": "byol-a"} if first else {}

    @property
    def frontend(self):
        """The front end that it was trained with."""
        return "byol-a-v2" if self.family == "BYOLA" else "byol-s"

    @property
    def is_free_to_fetch(self):
        """Whether its name alone is enough to download it."""
        return self.licence == MIT and self.sha256 is not None

    def refusal(self, name):
        """Return why the name alone is not enough, and what to do."""
        notice = _NOTICES.get(self.licence, "No checksum of it is known here")
        return (
            f"The weights {name!r} are not fetched by name. {notice}. They are at "
            f"{self.url}; give weights= the path of the downloaded file, or that "
            "address followed by '#sha256=' and its checksum."
        )


PUBLISHED = {
    "byol_s_default512": Published(
        f"{_SERAB}default512_BYOLAs64x96-2107281850-e100-bs256-lr0003-rs42.pth",
        "audiontt2020",
        512,
        "BYOL-A's first encoder on speech, 512 features",
        _ELBANNA,
        sha256="449f5d0dc6b6fa8433d5e43769097520d3bc0fdae88977a7ac29e2e72ca51b52",
    ),
    "byol_s_default1024": Published(
        f"{_SERAB}default1024_BYOLAs64x96-2107292000-e100-bs256-lr0003-rs42.pth",
        "audiontt2020",
        1024,
        "BYOL-A's first encoder on speech, 1024 features",
        _ELBANNA,
    ),
    "byol_s_default2048": Published(
        f"{_BYOLS}default2048_BYOLAs64x96-2105311814-e100-bs256-lr0003-rs42.pth",
        "audiontt2020",
        2048,
        "BYOL-A's first encoder on speech, 2048 features",
        f"{_ELBANNA}; leaderboard Logitech AI SERAB BYOL-S",
    ),
    "byol_s_resnetish34": Published(
        f"{_BYOLS}resnetish34_BYOLAs64x96-2105271915-e100-bs256-lr0003-rs42.pth",
        "resnetish34",
        2048,
        "ResNetish-34 on speech",
        _ELBANNA,
    ),
    "byol_s_cvt": Published(
        f"{_SERAB}{_CVT}2107301623-e100-bs256-lr0003-rs42.pth",
        "cvt",
        2048,
        "CvT on speech, mel bands apart",
        _ELBANNA,
    ),
    "byol_s_cvt_512": Published(
        f"{_SERAB}{_CVT}2107021643-e100-bs512-lr0003-rs42.pth",
        "cvt-512",
        512,
        "CvT on speech, mel bands averaged",
        _ELBANNA,
    ),
    "byol_s_hybrid_cvt": Published(
        f"{_BYOLS}{_CVT}osandbyolaloss6373-e100-bs256-lr0003-rs42.pth",
        "cvt",
        2048,
        "CvT on speech, also told openSMILE's features (hybrid BYOL-S)",
        _ELBANNA,
        HYBRID,
    ),
    **{
        f"byol_a_{width}": Published(
            f"{_NTT}pretrained_weights/AudioNTT2020-BYOLA-64x96d{width}.pth",
            "audiontt2020",
            width,
            f"BYOL for Audio on AudioSet, {width} features",
            "Niizumi et al. 2021",
            NTT,
        )
        for width in (512, 1024, 2048)
    },
    "byol_a_v2": Published(
        f"{_NTT}v2/AudioNTT2022-BYOLA-64x96d2048.pth",
        "audiontt2022",
        3072,
        "BYOL for Audio on AudioSet, second version",
        "Niizumi et al. 2023",
        NTT,
    ),
}


def frontend_of(weights):
    """Return the front end of published weights by their name.

    Parameters
    ----------
    weights : str or path-like
        A name of ``PUBLISHED``, or a path or an address that ends in the name of its
        file.

    Returns
    -------
    frontend : str or None
        None if it is no name of a published file.

    Examples
    --------
    >>> from skaudioemb.encoders.byol_published import frontend_of
    >>> frontend_of("weights/AudioNTT2020-BYOLA-64x96d512.pth")
    'byol-a-v2'
    """
    name = os.fspath(weights)
    if name.startswith(("http://", "https://")):
        name = name.partition("#")[0].partition("?")[0]
    for own, published in PUBLISHED.items():
        if name == own or name.endswith(published.url.rpartition("/")[2]):
            return published.frontend
    return None
