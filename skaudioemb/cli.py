"""The command ``skaudioemb``: demo, embed, list, info.

Nothing heavy is imported until a subcommand needs it, so that help comes at once.
"""

import argparse
import ast
import os
import platform
import re
import sys
import tempfile
import warnings
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

from skaudioemb import __version__

SUFFIXES = tuple(
    ".aif .aifc .aiff .au .caf .flac .mp3 .oga .ogg .opus .snd .w64 .wav".split()
)
_OUT_SUFFIXES = (".parquet", ".npz")
_PACKAGES = (
    "numpy scikit-learn torch torchaudio transformers skorch torchcrepe joblib "
    "soundfile pandas pyarrow matplotlib"
).split()
_DTYPES = ("float32", "bfloat16", "float16")


class _Refusal(Exception):
    """The command cannot begin; the message says why and what to do."""


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : list of str or None, default=None
        Arguments; None takes those of the process.

    Returns
    -------
    code : int
        0 if all went well, 1 if the work failed, 2 if it could not begin, 130 if it
        was interrupted.
    """
    args = _make_parser().parse_args(argv)
    try:
        return args.run(args) or 0
    except _Refusal as error:
        _say(f"skaudioemb {args.command}: {error}")
        return 2
    except (ValueError, OSError, ImportError) as error:
        _say(f"skaudioemb {args.command}: {_one_line(error)}")
        return 1
    except KeyboardInterrupt:
        _say(f"skaudioemb {args.command}: interrupted. {args.after_interrupt}")
        return 130


def _make_parser():
    parser = argparse.ArgumentParser(
        prog="skaudioemb", description="Audio embeddings as scikit-learn estimators."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (_add_demo, _add_embed, _add_list, _add_info):
        add(commands)
    return parser


def _add(commands, name, run, summary, details=""):
    command = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {details}"
    )
    command.set_defaults(run=run, after_interrupt="Nothing was written.")
    return command


def _add_demo(commands):
    command = _add(
        commands,
        "demo",
        _demo,
        "make notes, embed and fuse them, search a grid, draw a picture",
        "Runs offline in about a minute.",
    )
    command.add_argument(
        "--out",
        type=Path,
        default="skaudioemb-demo.png",
        metavar="PNG",
        help="the picture to write (default: %(default)s)",
    )
    command.add_argument(
        "--memory",
        metavar="PATH",
        help="keep the embeddings in this store, for a second run without a forward "
        "pass (default: a temporary one)",
    )
    command.add_argument(
        "--seed", type=int, default=0, help="of notes, folds and probes (default: 0)"
    )


def _add_embed(commands):
    command = _add(
        commands,
        "embed",
        _embed,
        "embed recordings and write the vectors to one file",
        "Finished clips are kept in a store while it runs: interrupted or killed, the "
        "same command goes on where it was. Exits with 0 if the file was written, "
        "even if --on-error nan let bad files pass; 1 if the work failed; 2 if it "
        "could not begin.",
    )
    command.set_defaults(
        after_interrupt="What was embedded is kept: the same command goes on from it."
    )
    command.add_argument(
        "inputs",
        nargs="+",
        metavar="FILES_OR_FOLDER",
        help="audio files, or folders that are searched for them, subfolders and all, "
        "in the order of their names",
    )
    command.add_argument(
        "--model", required=True, metavar="NAME", help="see `skaudioemb list`"
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        type=_assignment,
        metavar="PARAM=VALUE",
        help="a parameter of the model, as layers=mean or checkpoint=FOLDER; may be "
        "repeated",
    )
    command.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="FILE",
        help="the file to write, .parquet or .npz; one that exists is replaced",
    )
    command.add_argument(
        "--pattern",
        action="append",
        metavar="GLOB",
        help="take only files of folders whose name matches, as '*.wav'; may be "
        f"repeated (default: all names that end in {', '.join(SUFFIXES)})",
    )
    _add_settings(command)


def _add_settings(command):
    command.add_argument(
        "--memory",
        metavar="PATH",
        help="the store (default: the name of FILE, ending in .sqlite; it may be "
        "deleted once FILE is written)",
    )
    command.add_argument(
        "--frames",
        action="store_true",
        help="one row per frame, with its time in seconds, instead of one per clip",
    )
    command.add_argument(
        "--on-error",
        choices=("raise", "nan"),
        default="raise",
        help="what a bad file does: end the command, or become a row of NaN and be "
        "reported (default: %(default)s)",
    )
    command.add_argument("--device", default="auto", help="default: CUDA if any")
    command.add_argument("--dtype", choices=_DTYPES, default="float32")
    command.add_argument("--n-jobs", type=int, metavar="N", help="number of processes")
    command.add_argument(
        "--batch-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="audio in one batch, in seconds (default: %(default)g)",
    )
    command.add_argument(
        "--quiet", action="store_true", help="show neither progress nor summary"
    )


def _add_list(commands):
    command = _add(commands, "list", _list, "list the known models")
    command.add_argument(
        "pattern", nargs="?", default="*", help="names to list, as 'wav*'"
    )


def _add_info(commands):
    command = _add(commands, "info", _info, "show versions, devices and a store")
    command.add_argument(
        "--memory", metavar="PATH", help="a store whose size to show as well"
    )


def _demo(args):
    _check_out(args.out, (".png",))
    from skaudioemb.demo import run_demo

    run_demo(args.out, memory=args.memory, seed=args.seed)


def _embed(args):
    _check_out(args.out, _OUT_SUFFIXES)
    paths = _find_files(args.inputs, args.pattern)
    memory = args.memory or args.out.with_suffix(".sqlite")
    try:
        embedder = _prepare(args, paths, memory)
    except (ValueError, OSError, ImportError) as error:
        raise _Refusal(_one_line(error)) from error
    if not args.quiet:
        print(
            f"{len(paths)} files. Finished ones are kept in {memory}, from which the "
            "same command goes on if it is stopped.",
            flush=True,
        )
    from skaudioemb.devices import tally

    n_run = -tally().run
    rows, complaints = _compute(embedder, paths, args.frames)
    n_run += tally().run
    _write(args.out, paths, rows, embedder)
    n_bad = sum(map(_is_bad, rows))
    if n_bad:
        _say("\n".join([f"{n_bad} bad files are NaN in {args.out}:", *complaints]))
    if not args.quiet:
        n_stored = len(paths) - n_run - n_bad
        print(f"{len(paths)} clips: {n_run} run, {n_stored} from the store.")
        print(f"Wrote {args.out}.")


def _prepare(args, paths, memory):
    """Return a fitted embedder, having tried all that can be known beforehand."""
    if args.out.suffix == ".parquet":
        _check_parquet()
    from skaudioemb import Store, make_embedder

    store = Store(memory)
    store.info()
    _check_folder(next(p for p in store.path.parents if p.exists()))
    params = {
        "memory": store,
        "on_error": args.on_error,
        "device": args.device,
        "dtype": args.dtype,
        "n_jobs": args.n_jobs,
        "batch_seconds": args.batch_seconds,
        "verbose": 0 if args.quiet else 1,
        **dict(args.set),
    }
    embedder = make_embedder(args.model, **params).fit(paths)
    _check_device(embedder.device)
    return embedder


def _check_device(name):
    import torch

    from skaudioemb.devices import resolve_device

    device = resolve_device(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device={name!r} cannot be used here ({_one_line(error).rstrip('.')}). "
            "Choose 'auto' or 'cpu'."
        ) from error


def _compute(embedder, paths, frames):
    """Return the scene vectors or Frames, and what was wrong with bad files."""
    from skaudioemb import AudioError

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            rows = embedder.frames(paths) if frames else embedder.transform(paths)
        except AudioError as error:
            raise AudioError(_with_path(str(error), paths)) from error
    complaints = []
    for warning in caught:
        first, *lines = str(warning.message).splitlines()
        if "could not be embedded" in first:
            complaints += [_with_path(line, paths) for line in lines]
        else:
            _say(f"{warning.category.__name__}: {_one_line(warning.message)}")
    return rows, complaints


def _with_path(sentence, paths):
    """Put a file's path in the place of "clip 3 (a.wav)"."""
    match = re.match(r"clip (\d+)", sentence, re.IGNORECASE)
    if match is None:
        return sentence
    path = paths[int(match[1])]
    rest = sentence[match.end() :].removeprefix(f" ({Path(path).name})")
    return f"{_printable(path)}: {rest.removeprefix(': ')}"


def _is_bad(row):
    values = getattr(row, "values", row)
    return bool((values != values).all())


def _write(out, paths, rows, embedder):
    """Write the file under another name first, so that it is whole or not there."""
    names = [_printable(path) for path in paths]
    partial = out.with_name(f"{out.name}.part")
    write_as = _write_parquet if out.suffix == ".parquet" else _write_npz
    write_as(partial, names, rows, embedder)
    os.replace(partial, out)


def _write_npz(file, names, rows, embedder):
    import numpy as np

    if isinstance(rows, np.ndarray):
        columns = embedder.get_feature_names_out().astype(str)
        arrays = {"embeddings": rows, "feature_names": columns}
    else:
        arrays = {
            "values": np.concatenate([frames.values for frames in rows]),
            "times": np.concatenate([frames.times for frames in rows]),
            "offsets": np.cumsum([0, *(len(frames.times) for frames in rows)]),
        }
    with open(file, "wb") as stream:
        np.savez(stream, paths=np.array(names), **arrays)


def _write_parquet(file, names, rows, embedder):
    import numpy as np
    import pandas as pd

    if isinstance(rows, np.ndarray):
        table = pd.DataFrame(rows, columns=embedder.get_feature_names_out())
    else:
        values = np.concatenate([frames.values for frames in rows])
        prefix = type(embedder).__name__.lower()
        columns = [f"{prefix}{i}" for i in range(values.shape[1])]
        table = pd.DataFrame(values, columns=columns)
        times = np.concatenate([frames.times for frames in rows])
        table.insert(0, "time", times)
        names = np.repeat(names, [len(frames.times) for frames in rows])
    table.insert(0, "path", names)
    table.to_parquet(file, index=False)


def _check_parquet():
    try:
        import pandas  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"Writing .parquet needs pandas and pyarrow ({error}). Run "
            "python -m pip install 'skaudioemb[parquet]', or write .npz."
        ) from error


def _check_out(out, suffixes):
    if out.suffix not in suffixes:
        raise _Refusal(
            f"--out {out} does not end in {' or '.join(suffixes)}, which says what to "
            "write. Name such a file."
        )
    if out.is_dir():
        raise _Refusal(f"--out {out} is a folder. Name a file.")
    _check_folder(out.parent)


def _check_folder(folder):
    if not folder.is_dir():
        raise _Refusal(f"There is no folder {folder}. Make it first.")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _Refusal(
            f"The folder {folder} cannot be written to ({error.strerror}). Choose "
            "another one."
        ) from error


def _find_files(inputs, patterns):
    """Return the paths of all recordings, each once; folders in order of names."""
    paths = []
    for name in inputs:
        if os.path.isdir(name):
            paths += sorted(_walk(name, patterns))
        elif os.path.exists(name):
            paths.append(name)
        else:
            raise _Refusal(f"There is no file or folder {_printable(name)}.")
    if not paths:
        sought = patterns or [f"*{suffix}" for suffix in SUFFIXES]
        raise _Refusal(
            f"No recordings found in {_printable(', '.join(inputs))}. Names that match "
            f"{', '.join(sought)} are taken; --pattern takes others."
        )
    return list(dict.fromkeys(paths))


def _walk(folder, patterns):
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if patterns:
                wanted = any(fnmatch(name, pattern) for pattern in patterns)
            else:
                wanted = name.lower().endswith(SUFFIXES)
            if wanted and not name.startswith("."):
                yield os.path.join(parent, name)


def _list(args):
    from skaudioemb.presets import get_preset, list_embedders

    names = list_embedders(args.pattern)
    if not names:
        known = ", ".join(list_embedders())
        raise _Refusal(f"No name matches {args.pattern!r}. Known are {known}.")
    rows = [("NAME", "CLASS", "CHECKPOINT", "FEATURES", "LICENCE", "WHAT IT IS")]
    for name in names:
        preset = get_preset(name)
        checkpoint = preset.params.get("checkpoint", "-")
        rows.append((name, preset.estimator, checkpoint, str(preset.n_features)))
        rows[-1] += (preset.licence, preset.summary)
    _print_table(rows)


def _info(args):
    rows = [("skaudioemb", __version__), ("python", platform.python_version())]
    rows += [(name, _version(name)) for name in _PACKAGES]
    rows += [("libsndfile", _libsndfile()), *_devices()]
    if args.memory is not None:
        from skaudioemb.store import Store

        store = Store(args.memory)
        text = f"{store.path}: not there yet"
        if store.path.exists():
            entries, n_bytes, file_bytes, path = store.info()
            text = f"{path}: {entries} entries of {n_bytes} bytes, file {file_bytes}"
        rows.append(("store", text))
    _print_table(rows)


def _version(name):
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
    if name == "torchaudio":
        try:
            from skaudioemb.audio import import_torchaudio

            import_torchaudio()
            return f"{version}, loads beside this torch"
        except ImportError as error:
            return f"{version}, does not load: {_one_line(error)}"
    return version


def _libsndfile():
    try:
        import soundfile
    except (ImportError, OSError) as error:
        return f"does not load: {_one_line(error)}"
    return soundfile.__libsndfile_version__


def _devices():
    try:
        import torch
    except (ImportError, OSError) as error:
        return [("devices", f"unknown, torch does not load: {_one_line(error)}")]
    rows = [("cpu", f"{torch.get_num_threads()} threads")]
    for index in range(torch.cuda.device_count()):
        rows.append((f"cuda:{index}", torch.cuda.get_device_name(index)))
    return rows


def _assignment(text):
    """Split PARAM=VALUE; VALUE is a Python literal, or else a string."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form PARAM=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _print_table(rows):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _say(sentence):
    print(sentence, file=sys.stderr, flush=True)


def _one_line(error):
    return " ".join(str(error).split())


def _printable(path):
    """Return a path as text that any encoding holds; odd bytes become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
