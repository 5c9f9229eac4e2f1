"""``skaudioemb list``: a table of the known models, or all that is known of one."""

import os
import sys

from skaudioemb.cli_common import Refusal, print_table
from skaudioemb.presets import FIDELITIES, get_preset, list_embedders


def list_presets(args):
    names = list_embedders(args.pattern)
    try:
        if names and names != [args.pattern]:
            print_table(_rows(names))
        else:
            _describe(args.pattern)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough, as `head` does. What is left in the buffer must
        # not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _rows(names):
    rows = [("NAME", "MODEL", "CHECKPOINT", "FEATURES", "LICENCE", "SOURCE")]
    for name in names:
        preset = get_preset(name)
        models = preset.members.values()
        # Owners are left out, for the width; `skaudioemb list NAME` gives them.
        weights = [model.weights.rpartition("/")[2] for model in models]
        rows.append(
            (
                name,
                "+".join(preset.members) if preset.is_fusion else preset.estimator,
                "+".join(weights) or "-",
                _widths(preset),
                preset.licence,
                preset.source,
            )
        )
    return rows


def _widths(preset):
    """Return the width of a clip's vector, and of a frame where it differs."""
    both = (preset.n_features, preset.n_frame_features)
    return "/".join(map(str, dict.fromkeys(both)))


def _describe(name):
    try:
        preset = get_preset(name)
    except ValueError as error:
        known = ", ".join(list_embedders())
        raise Refusal(f"No name matches {name!r}. Known are {known}.") from error
    width = f"{preset.n_features} a clip, {preset.n_frame_features} a frame"
    rows = [("what it is", preset.summary), ("source", preset.source)]
    rows += [("features", width), ("licence", preset.licence)]
    rows += [(f"member {name}", _one(model)) for name, model in preset.members.items()]
    print_table([(name, preset.estimator), *rows])
    settings = [("SETTING", *FIDELITIES)]
    for key, value in preset.settings.items():
        settings.append((key, repr(value), repr(preset.paper.get(key, value))))
    if len(settings) > 1:
        print()
        print_table(settings)


def _one(model):
    parts = [f"{model.estimator} {model.weights}".rstrip()]
    if model.revision is not None:
        parts.append(f"revision {model.revision}")
    return ", ".join([*parts, f"{model.n_features} features", model.licence])
