"""Which checkpoints a training of EncodecMAE goes on from, in both stages."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from skaudioemb.pretraining.checkpoints import load_checkpoint, saved_seed
from tests.pretraining_encodecmae import (
    TINY,
    codec_front_end,
    load_codec,
    make_clips,
    make_encoder,
    run,
    same,
)

CODEC = replace(TINY, targets="codec", max_epochs=1)
TWO_STAGES = replace(TINY, self_train=True, self_train_epochs=2)


def contents_of(folder):
    """Return the bytes of all files below a folder by name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def refused_untouched(folder, message, settings, **options):
    """Tell whether a training is refused and leaves the folder as it is."""
    before = contents_of(folder)
    assert before
    with pytest.raises(ValueError, match=message):
        run(replace(settings, checkpoint_dir=folder), **options)
    return contents_of(folder) == before


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    settings = replace(TWO_STAGES, checkpoint_dir=tmp_path)
    run(settings)
    with pytest.raises(ValueError, match=r"delta=0\.9 there, 0\.5 here"):
        run(replace(settings, delta=0.5))
    with pytest.raises(ValueError, match=r"n_clusters=6 there, 5 here"):
        run(replace(settings, n_clusters=5))
    run(replace(settings, self_train=False, max_epochs=3))
    with pytest.raises(ValueError, match=r"max_epochs=2 there, 3 here"):
        run(replace(settings, max_epochs=3))
    quiet = [0.1 * clip for clip in make_clips()]
    with pytest.raises(ValueError, match=r"of another training: recordings=.* there, "):
        run(settings, clips=quiet)


def test_checkpoints_hold_both_stages(tmp_path):
    settings = replace(TWO_STAGES, checkpoint_dir=tmp_path)
    run(settings)
    first = torch.load(tmp_path / "last.pt", weights_only=True)
    second = torch.load(tmp_path / "self_training" / "last.pt", weights_only=True)
    assert "clusters.centres" not in first["task"]
    assert "clusters.centres" in second["task"]
    assert load_checkpoint(tmp_path, first["settings"]) is not None
    # The optimiser begins afresh: of two epochs of two batches, four steps.
    steps = [state["optimizer"]["state"][0]["step"] for state in (first, second)]
    assert steps == [4, 4]


def test_a_second_stage_that_does_not_fit_is_told_before_the_first(tmp_path):
    settings = replace(TWO_STAGES, checkpoint_dir=tmp_path)
    run(settings)
    longer = replace(settings, max_epochs=5)
    assert refused_untouched(tmp_path, "max_epochs=2 there, 5 here", longer)
    fewer = replace(settings, self_train_epochs=1)
    assert refused_untouched(tmp_path, "has 2 epochs, and 1 in all are", fewer)
    shorter = replace(settings, max_epochs=1, self_train=False)
    assert refused_untouched(tmp_path, "has 2 epochs, and 1 in all are", shorter)


def test_a_second_stage_belongs_to_its_first(tmp_path):
    settings = replace(TWO_STAGES, checkpoint_dir=tmp_path)
    whole = run(settings)
    (tmp_path / "last.pt").unlink()
    message = "self_training.* another training: initial_weights=.* there, "
    other = make_encoder(seed=1)
    assert refused_untouched(tmp_path, message, settings, encoder=other)
    # The same begin leads to the same teacher.
    assert same(whole, run(settings))
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    content["task"]["network.encoder.project.weight"] += 1e-3
    torch.save(content, tmp_path / "last.pt")
    message = "self_training.* of another training: teacher=.* there, "
    assert refused_untouched(tmp_path, message, settings)


@pytest.mark.parametrize("k", range(8))
def test_every_recording_tells_trainings_apart(tmp_path, k):
    settings = replace(TINY, max_epochs=0, checkpoint_dir=tmp_path)
    run(replace(settings, max_epochs=1), clips=make_clips(8, 3000))
    clips = make_clips(9, 3000)
    clips[k] = clips.pop()
    message = "of another training: recordings=.* there, "
    assert refused_untouched(tmp_path, message, settings, clips=clips)


def test_initial_weights_tell_trainings_apart(tmp_path):
    part = run(replace(TINY, max_epochs=1))
    run(replace(TINY, checkpoint_dir=tmp_path))
    message = "of another training: initial_weights=.* there, "
    other = make_encoder(seed=1)
    assert refused_untouched(tmp_path, message, TINY, encoder=other)
    assert refused_untouched(tmp_path, message, TINY, state=part.state)


def test_codec_and_front_end_tell_trainings_apart(tmp_path):
    settings = replace(CODEC, checkpoint_dir=tmp_path)
    options = {"front_end": codec_front_end(), "codec": load_codec()}
    done = run(settings, **options)
    assert same(done, run(settings, **options))
    codec = copy.deepcopy(load_codec())
    codec.quantizer.layers[0].codebook.embed += 0.01
    message = r"of another training: codec=.* there, 'EncodecModel .*' here\."
    assert refused_untouched(tmp_path, message, settings, **{**options, "codec": codec})
    front_end = codec_front_end()
    with torch.no_grad():
        next(front_end.parameters()).mul_(1.01)
    message = "of another training: front_end=.* there, 'CodecFrontEnd "
    options["front_end"] = front_end
    assert refused_untouched(tmp_path, message, settings, **options)


def test_a_checkpoint_takes_numbers_of_numpy(tmp_path):
    plain = {"mask_length": 4, "delta": 0.75, "lr": 0.002, "gamma": (0.5, 0.25, 0.25)}
    numbers = {
        "mask_length": np.int64(4),
        "delta": np.float32(0.75),
        "lr": np.float64(0.002),
        "gamma": np.array([0.5, 0.25, 0.25]),
        "keep_targets": np.bool_(True),
        "mask_token": np.str_("zeros"),
        "n_clusters": np.int16(6),
        "checkpoint_dir": tmp_path,
    }
    whole = run(replace(TWO_STAGES, **plain))
    part = replace(TWO_STAGES, **numbers, self_train_epochs=1)
    assert len(run(part).history) == 3
    assert same(whole, run(replace(TWO_STAGES, **numbers)))
    plain["checkpoint_dir"] = tmp_path
    assert same(whole, run(replace(TWO_STAGES, **plain)))
    assert saved_seed(tmp_path) == saved_seed(tmp_path / "self_training") == 0
