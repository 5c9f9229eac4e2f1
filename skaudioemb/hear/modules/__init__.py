"""A module for every preset that speaks HEAR's common API, for any HEAR tool.

``skaudioemb.hear.modules.fusion_cat_xwc`` is what
``make_embedder("fusion_cat_xwc")`` makes. Options of ``load_model`` are those of
:func:`skaudioemb.make_embedder`, as ``fidelity="paper"``.
"""
