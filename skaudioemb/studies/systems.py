"""The systems of the fusion paper's ablation study, as a parameter grid."""

from numbers import Integral
from typing import NamedTuple

from sklearn.base import clone

from skaudioemb.embedders.fusion import Fusion

_MEMBERS = ("hubert", "wav2vec2", "crepe")


class System(NamedTuple):
    """One row of the paper's tables.

    Attributes
    ----------
    hubert, wav2vec2 : {"last", "mean"} or None
        The layers of the member, None if it is not used.
    crepe : bool
        Whether CREPE is used.
    merge : {"mean", "concat"} or None
        None leaves it to the fusion how members are concatenated.
    large : bool
        Whether HuBERT is the Large model in the paper.
    """

    hubert: str | None = None
    wav2vec2: str | None = None
    crepe: bool = False
    merge: str | None = None
    large: bool = False


SYSTEMS = {
    "wav2vec 2.0 Large": System(wav2vec2="last"),
    "Fusion wav2vec 2.0 Large": System(wav2vec2="mean"),
    "HuBERT xLarge": System(hubert="last"),
    "Fusion HuBERT xLarge": System(hubert="mean"),
    "avg xw": System(hubert="last", wav2vec2="last", merge="mean", large=True),
    "cat xw": System(hubert="last", wav2vec2="last", merge="concat", large=True),
    "avg xc": System(hubert="last", crepe=True, merge="mean"),
    "cat wc": System(wav2vec2="last", crepe=True),
    "cat xwc": System(hubert="last", wav2vec2="last", crepe=True),
    "fusion_cat_xwc": System(hubert="mean", wav2vec2="mean", crepe=True),
}


class Table(NamedTuple):
    """One table of the paper.

    Attributes
    ----------
    title : str
        What it compares.
    comparisons : tuple of tuple of str
        Its rows, put together as the paper marks the best of them.
    """

    title: str
    comparisons: tuple


TABLES = {
    3: Table(
        "last layer or mean of all layers",
        (
            ("wav2vec 2.0 Large", "Fusion wav2vec 2.0 Large"),
            ("HuBERT xLarge", "Fusion HuBERT xLarge"),
        ),
    ),
    4: Table("average or concatenation", (("avg xw", "cat xw"),)),
    5: Table("without and with CREPE", (("HuBERT xLarge", "avg xc"),)),
    6: Table("without and with HuBERT", (("cat wc", "cat xwc", "fusion_cat_xwc"),)),
}


def ablation_grid(fusion, *, step="fusion", hubert_large=None):
    """Return the systems of the fusion paper's Tables 3 to 6 as a parameter grid.

    The grid has one candidate for each distinct row, in the order of the tables:
    wav2vec 2.0 and HuBERT alone, each with its last layer and with the mean of all;
    the average (avg) and concatenation (cat) of HuBERT and wav2vec 2.0 (xw); HuBERT
    averaged with CREPE (avg xc); the concatenations of wav2vec 2.0 and CREPE, without
    and with HuBERT (cat wc, cat xwc), and the latter with the mean of all layers
    (fusion_cat_xwc).

    Parameters
    ----------
    fusion : Fusion
        What the candidates change. It has the members "hubert" and "wav2vec2", which
        have a parameter ``layers``, and "crepe". They need not be the models of the
        paper.
    step : str or None, default="fusion"
        Name of the fusion's step in the pipeline; None if there is no pipeline.
    hubert_large : HuBERT or None, default=None
        The HuBERT of Table 4, where the paper has the Large model and not the xLarge
        one. None takes the fusion's own.

    Returns
    -------
    param_grid : list of dict
        For :class:`~sklearn.model_selection.GridSearchCV`; ten dicts that stand for
        one candidate each.

    Raises
    ------
    TypeError
        If ``fusion`` is none.
    ValueError
        If a member is missing, dropped, or without layers.

    Notes
    -----
    As in the paper, members are aligned to wav2vec 2.0, or to HuBERT where there is no
    wav2vec 2.0, and all are resized to the width of wav2vec 2.0; a whole number as the
    fusion's ``n_features`` takes precedence. Everything else is left as it is given:
    with ``merge="interleave"`` the concatenations with CREPE are interleaved, as the
    published code does.

    References
    ----------
    T.-Y. Wu et al., "The Efficacy of Self-Supervised Speech Models as Audio
    Representations", HEAR 2021, section 5.2.

    Examples
    --------
    >>> from skaudioemb import CREPE, Fusion, HuBERT, Wav2Vec2
    >>> from skaudioemb.studies import ablation_grid
    >>> fusion = Fusion(
    ...     [("hubert", HuBERT()), ("wav2vec2", Wav2Vec2()), ("crepe", CREPE())],
    ...     n_features=768,
    ... )
    >>> grid = ablation_grid(fusion)
    >>> len(grid)
    10
    >>> grid[0]["fusion__wav2vec2__layers"], grid[0]["fusion__hubert"]
    (['last'], ['drop'])
    """
    _check_fusion(fusion)
    if hubert_large is not None:
        _check_layers("hubert_large", hubert_large)
    prefix = "" if step is None else f"{step}__"
    width = _shared_width(fusion)
    grid = []
    for system in SYSTEMS.values():
        params = _member_params(system, hubert_large)
        params |= _merge_params(system, fusion, width)
        grid.append({prefix + name: [value] for name, value in params.items()})
    return grid


def _member_params(system, hubert_large):
    """Return the members that a system drops, and the layers of those it keeps."""
    params = {} if system.crepe else {"crepe": "drop"}
    for name in ("hubert", "wav2vec2"):
        layers = getattr(system, name)
        if layers is None:
            params[name] = "drop"
        else:
            params[f"{name}__layers"] = layers
    if system.large and hubert_large is not None:
        params["hubert"] = hubert_large
    return params


def _merge_params(system, fusion, width):
    """Return how a system's members are merged; one alone stays as it is."""
    n_members = sum(map(bool, (system.hubert, system.wav2vec2, system.crepe)))
    if n_members == 1:
        return {"merge": "concat", "reference": None, "n_features": None}
    own = "concat" if fusion.merge == "mean" else fusion.merge
    reference = "wav2vec2" if system.wav2vec2 else "hubert"
    return {
        "merge": system.merge or own,
        "reference": reference,
        "n_features": width,
    }


def _shared_width(fusion):
    """Return the width to which members of fused systems are resized."""
    if isinstance(fusion.n_features, Integral):
        return fusion.n_features
    return clone(fusion["wav2vec2"]).set_params(layers="last")._width()


def _check_fusion(fusion):
    if not isinstance(fusion, Fusion):
        raise TypeError(f"{fusion!r} is no Fusion; the study needs one.")
    members = {name: m for name, m in fusion.embedders if m != "drop"}
    missing = [name for name in _MEMBERS if name not in members]
    if missing:
        raise ValueError(
            f"The fusion has the members {list(members)}; the study needs "
            f"{list(_MEMBERS)}, none of them dropped: {missing} not found. Name them "
            "so, whatever models they are."
        )
    for name in ("hubert", "wav2vec2"):
        _check_layers(name, members[name])


def _check_layers(name, member):
    if "layers" not in getattr(member, "get_params", dict)():
        raise ValueError(
            f"Member {name!r} is {member!r}, which has no layers to choose from. Give "
            "a HuBERT, Wav2Vec2 or another embedder with layers."
        )
