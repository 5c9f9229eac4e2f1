"""Names of models → configured embedders.

``fidelity="paper"`` gives what the published code of Wu et al. (NTU-GURA's HEAR 2021
submission) and HEAR's baselines computed; ``fidelity="corrected"`` the same systems
without what is a slip in that code. They differ in this:

1. Time. The code stretches CREPE's frames over the transformer's by frame number,
   although CREPE's frame ``i`` lies at ``i * hop`` and the transformer's frame ``t``
   at 12.5 + 20 t ms: CREPE is read up to 42 ms beside the moment, for scenes up to
   142 ms. ``align="index"`` for the paper, ``align="time"`` corrected.
2. Order. "Concatenation" interleaves features (``h0, w0, c0, h1, ...``) wherever CREPE
   takes part, and is in blocks for HuBERT with wav2vec 2.0 only. A probe does not mind,
   but feature names and pictures do. ``merge="interleave"`` against ``"concat"``.
3. Scale of the waveform. It goes in raw, though the large and extra large checkpoints
   were trained on clips of zero mean and unit variance: ``normalize="none"`` against
   ``"zero-mean-unit-var"``. The base checkpoints were trained on raw waveforms, so that
   "none" is right for them, whatever their preprocessor file on the hub says.
4. CREPE's hop. The code takes a CREPE frame every 50 ms for frames, and every 250 ms
   for scenes, which the paper does not mention. Corrected, scenes are averages of the
   same frames that ``frames`` gives.
5. Long clips. The code attends over the whole clip (``max_seconds=None``), however
   long; corrected, transformers see windows of 60 s, in bounded memory.
6. HEAR's wav2vec 2.0 baseline ran through SpeechBrain, which applies a layer norm to
   the whole batch of waveforms and again to the whole batch of outputs: its numbers
   depend on the batch. With the paper's fidelity ours are those of a batch of one
   clip; corrected, the clip is scaled as the checkpoint's preprocessor file says, and
   the output is left alone.
7. BYOL-S normalises a clip by the statistics of the list that it comes with, for one
   clip its own: ``normalize="clip"`` for the paper, those of the clips in ``fit``
   corrected. BYOL-A's first weights were trained on librosa's Slaney filters
   (corrected), and are shown with torchaudio's HTK filters (paper).

Paper and code disagree with each other as well. Both fidelities follow the code here:

1. Layers. Equation 1 averages the L transformer blocks; text and code average L + 1
   hidden states, the embedding output among them, and divide by L + 1.
2. The paper says that no model was fine-tuned. Its wav2vec 2.0 (in all fusions) is
   ``facebook/wav2vec2-large-960h-lv60-self``, fine-tuned for speech recognition and
   self-trained.
3. The rows "wav2vec 2.0" of Table 2 and "wav2vec 2.0 Large" of Table 3 are HEAR's
   baseline, another checkpoint (``hear_wav2vec2``) than the fused one of Table 3
   (``fusion_wav2vec2``): that pair compares more than the fusion of layers.
4. Table 4 uses HuBERT *large*, as its caption says, the other fusions extra large.
   Table 5's caption says large, its code uses extra large.
5. Table 6's row "cat xwc" holds the scores of ``fusion_cat_xwc``. The system called
   ``cat_xwc`` (last layers) is the leaderboard's "GURA Cat H+w+C", far below it on
   most tasks.
6. Widths. All members are resized to 1024 features by linear interpolation, HuBERT's
   1280 and CREPE's 2048 among them, which mixes neighbouring features. The paper does
   not mention it. Both fidelities keep it, for the published widths; with
   ``n_features=None`` concatenated members keep their own.
7. The grouped variant (k = 5) leaves out the last T mod 5 frames.

Where the code raises or gives NaN there is nothing to reproduce: clips under 400
samples, fewer frames than groups, and the lengths (as 16080 samples) at which a
rounding slip stops it all work here.

References
----------
T.-Y. Wu et al., "The Efficacy of Self-Supervised Speech Models as Audio
Representations", HEAR 2021, PMLR 166, 2022; its code at commit 9a5349f. J. Turian et
al., "HEAR: Holistic Evaluation of Audio Representations", PMLR 176, 2022.
"""

from fnmatch import fnmatch
from importlib import import_module

from skaudioemb.preset_table import ALIASES, PRESETS

FIDELITIES = ("corrected", "paper")
# What every embedder has and a Fusion has not: how to run, not what to compute.
_SHARED = (
    *("sample_rate", "device", "dtype", "batch_seconds", "on_error", "n_jobs"),
    "verbose",
)


def list_embedders(pattern="*"):
    """Return the known names.

    Parameters
    ----------
    pattern : str, default="*"
        Shell-style pattern that names must match.

    Returns
    -------
    names : list of str
        In alphabetical order.

    Examples
    --------
    >>> from skaudioemb import list_embedders
    >>> list_embedders("fusion_cat*")
    ['fusion_cat_xwc', 'fusion_cat_xwc_g']
    """
    return [name for name in sorted(PRESETS) if fnmatch(name, pattern)]


def get_preset(name):
    """Return what is known of a name.

    Parameters
    ----------
    name : str
        One of :func:`list_embedders`.

    Returns
    -------
    preset : skaudioemb.preset_table.Preset
        Models with their checkpoints and licences, settings, widths and source.

    Raises
    ------
    ValueError
        If there is none; the message lists those that there are.

    Examples
    --------
    >>> from skaudioemb.presets import get_preset
    >>> preset = get_preset("fusion_cat_xwc_g")
    >>> preset.n_features, preset.n_frame_features, preset.licence
    (15360, 3072, 'Apache-2.0, MIT')
    """
    name = ALIASES.get(name, name) if isinstance(name, str) else str(name)
    if name not in PRESETS:
        raise ValueError(
            f"There is no model called {name!r}. Known are "
            f"{', '.join(list_embedders())}."
        )
    return PRESETS[name]


def make_embedder(name, fidelity="corrected", **params):
    """Make the embedder called ``name``.

    Parameters
    ----------
    name : str
        One of :func:`list_embedders`.
    fidelity : {"corrected", "paper"}, default="corrected"
        Whether to compute what a published system should have computed, or what its
        code did compute, slips and all. :mod:`skaudioemb.presets` lists each
        difference, ``skaudioemb list NAME`` those of one name. Models that no paper's
        code ran are the same in both.
    **params : dict
        Parameters that differ from the preset's. Those of a fusion's members carry
        the member's name, which is ``hubert``, ``wav2vec2`` or ``crepe``:
        ``hubert__checkpoint=folder``. The same name is understood where that model is
        alone, so that one keyword serves many presets. ``sample_rate``, ``device``,
        ``dtype``, ``batch_seconds``, ``on_error``, ``n_jobs`` and ``verbose`` go to
        every member of a fusion, unless given for one.

    Returns
    -------
    embedder : Embedder or Fusion
        A plain estimator that can be cloned, changed and searched.

    Raises
    ------
    ValueError
        If the name, the fidelity or a parameter is not known.

    Notes
    -----
    ``normalize`` is set to what the preset's own checkpoint was trained with. Give it
    along with another checkpoint: ``hubert__normalize="checkpoint"`` does what that
    one's preprocessor file says.

    Fusions that contain wav2vec 2.0 have ``reference="wav2vec2"`` and resize every
    member to its width; where that member is dropped, set another reference along.

    Examples
    --------
    >>> from skaudioemb import make_embedder
    >>> make_embedder("crepe_tiny", hop=0.1)
    CREPE(hop=0.1, model='tiny')
    >>> make_embedder("fusion_hubert_xlarge", "paper", hubert__checkpoint="folder")
    HuBERT(checkpoint='folder', layers='mean', max_seconds=None, normalize='none')
    >>> fusion = make_embedder("cat_wc", device="cpu", memory="embeddings")
    >>> fusion.merge, fusion.align, fusion["crepe"]
    ('concat', 'time', CREPE(device='cpu'))
    """
    preset = get_preset(name)
    if fidelity not in FIDELITIES:
        raise ValueError(
            f"fidelity={fidelity!r} is not known. Choose 'corrected', for what the "
            "system should compute, or 'paper', for what the published code computed."
        )
    settings = {**preset.settings, **(preset.paper if fidelity == "paper" else {})}
    embedder = _assemble(preset).set_params(**_address(preset, settings))
    return embedder.set_params(**_address(preset, params))


def _assemble(preset):
    package = import_module("skaudioemb")
    members = [
        (name, getattr(package, model.estimator)(**model.params))
        for name, model in preset.members.items()
    ]
    return package.Fusion(members) if preset.is_fusion else members[0][1]


def _address(preset, params):
    """Return ``params`` by the names that the preset's estimator knows."""
    if preset.is_fusion:
        for name in params:
            member = name.partition("__")[0]
            if member != name and isinstance(params.get(member), str):
                raise ValueError(
                    f"{name} is given, but the member {member!r} is "
                    f"{params[member]!r}. Leave one of them out."
                )
        # A member that is given whole, or dropped, is as it was given.
        members = [name for name in preset.members if name not in params]
        everywhere = {
            f"{member}__{name}": params[name]
            for member in members
            for name in _SHARED
            if name in params
        }
        own = {name: value for name, value in params.items() if name not in _SHARED}
        return {**everywhere, **own}
    prefix = f"{next(iter(preset.members))}__"
    for name in params:
        if name.startswith(prefix) and name.removeprefix(prefix) in params:
            raise ValueError(
                f"{name} and {name.removeprefix(prefix)} are the same parameter here. "
                "Give one of them."
            )
    return {name.removeprefix(prefix): value for name, value in params.items()}
