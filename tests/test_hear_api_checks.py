"""The validator of HEAR's API: what it finds and what it lets pass."""

import numpy as np
import pytest
import torch

from skaudioemb.hear.api import Report, validate
from tests.hear_modules import variant


def fast(**changes):
    """Return a module with a hop of 50 ms, which the validator likes."""
    module = variant(**changes)
    load = module.load_model
    module.load_model = lambda *args, **options: load(*args, hop=0.05, **options)
    return module


def shake(embeddings, timestamps):
    return embeddings, timestamps + 3 * (torch.arange(timestamps.shape[1]) % 2)


ERRORS = {
    "shape": ({"timestamps": lambda e, t: (e[0], t)}, r"shape \(22, 32\)"),
    "dtype": ({"scenes": lambda e: e.double()}, "float64"),
    "sounds": ({"timestamps": lambda e, t: (e[:1], t[:1])}, "for 2 sounds"),
    "times": ({"timestamps": lambda e, t: (e, t[:, 1:])}, r"timestamps of shape"),
    "width": ({"scenes": lambda e: e[:, :3]}, "scene_embedding_size is 16"),
    "uneven": ({"timestamps": shake}, r"47 to 53 ms apart.*regular"),
    "late": ({"timestamps": lambda e, t: (e, t + 25)}, "a frame at 1075 ms"),
    "seconds": ({"timestamps": lambda e, t: (e, t / 1000)}, "these are seconds"),
    "NaN": ({"scenes": lambda e: e * torch.nan}, "not finite for white noise"),
    "raises": ({"scenes": lambda e: e.nothing()}, "failed: AttributeError"),
    "model": ({"load": lambda model: 3}, r"gave a builtins\.int"),
    "rate": (
        {"load": lambda model: setattr(model, "sample_rate", 8000) or model},
        "sample_rate is 8000",
    ),
    "int": (
        {"load": lambda m: setattr(m, "sample_rate", np.int64(16000)) or m},
        "int64.*int of Python",
    ),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_the_validator_finds_errors(kind):
    changes, match = ERRORS[kind]
    report = validate(fast(**changes))
    assert not report.ok
    with pytest.raises(ValueError, match=rf"(?s)does not speak HEAR.*{match}"):
        report.raise_errors()


WARNINGS = {
    "hop": ({"timestamps": lambda e, t: (e[:, ::2], t[:, ::2])}, "100 ms apart"),
    "start": ({"timestamps": lambda e, t: (e[:, 2:], t[:, 2:])}, "first frame at 100"),
    "end": (
        {"timestamps": lambda e, t: (e[:, :-2], t[:, :-2])},
        "120 ms before the end",
    ),
    "company": ({"scenes": lambda e: e + e.sum(0)}, "depends on the others"),
}


@pytest.mark.parametrize("kind", WARNINGS)
def test_the_validator_warns(kind):
    changes, match = WARNINGS[kind]
    report = validate(fast(**changes))
    assert report.ok
    assert any(match in warning for warning in report.warnings)
    assert all(f"warning: {warning}" in str(report) for warning in report.warnings)


def test_the_validator_is_content_with_a_good_module(tmp_path):
    assert validate(fast()) == Report("variant", (), ())
    assert validate("tests.hear_modules", hop=0.05).warnings == ()
    missing = validate("no_such_module")
    assert "ImportError" in missing.errors[0]
    wrong = validate("tests.hear_modules", str(tmp_path / "no.pt"))
    assert "no.pt" in wrong.errors[0]
