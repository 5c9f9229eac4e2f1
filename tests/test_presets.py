"""Names of models."""

import pytest

from skaudioemb import LogMel, list_embedders, make_embedder
from skaudioemb.presets import get_preset


def test_every_name_makes_an_embedder_of_its_kind():
    assert list_embedders() == sorted(list_embedders())
    for name in list_embedders():
        preset = get_preset(name)
        embedder = make_embedder(name)
        assert type(embedder).__name__ == preset.estimator
        assert preset.params.items() <= embedder.get_params().items()


@pytest.mark.parametrize("name", ["crepe", "crepe_tiny", "logmel"])
def test_widths_are_as_listed(name, clips):
    embedder = make_embedder(name).fit(clips)
    assert len(embedder.get_feature_names_out()) == get_preset(name).n_features


def test_patterns_and_parameters():
    assert list_embedders("wav*") == [
        *("wav2vec2", "wav2vec2_large"),
        *("wavlm", "wavlm_large"),
    ]
    assert make_embedder("logmel", n_mels=8).get_params() == LogMel(8).get_params()


def test_unknown_names_and_parameters():
    with pytest.raises(ValueError, match=r"no model called 'crep'\. Known are crepe,"):
        make_embedder("crep")
    with pytest.raises(ValueError, match="Invalid parameter 'bands'"):
        make_embedder("logmel", bands=8)
