"""``skaudioemb embed``: from files and folders to one file of embeddings."""

import os
import re
import warnings
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

from skaudioemb.cli_common import (
    Refusal,
    check_folder,
    check_out,
    one_line,
    printable,
    say,
)

SUFFIXES = tuple(
    ".aif .aifc .aiff .au .caf .flac .mp3 .oga .ogg .opus .snd .w64 .wav".split()
)
_OUT_SUFFIXES = (".parquet", ".npz")


def embed(args):
    check_out(args.out, _OUT_SUFFIXES)
    paths = find_files(args.inputs, args.pattern)
    memory = args.memory or args.out.with_suffix(".sqlite")
    try:
        embedder = _prepare(args, paths, memory)
    except (ValueError, OSError, ImportError) as error:
        raise Refusal(one_line(error)) from error
    if not args.quiet:
        print(
            f"{len(paths)} files. Finished ones are kept in {memory}, from which the "
            "same command goes on if it is stopped.",
            flush=True,
        )
    from skaudioemb.devices import tally

    before = tally()
    rows, complaints = _compute(embedder, paths, args.frames)
    n_asked, n_run, _ = (b - a for a, b in zip(before, tally(), strict=True))
    _write(args.out, paths, rows, embedder)
    n_bad = sum(map(_is_bad, rows))
    if n_bad:
        say("\n".join([f"{n_bad} bad files are NaN in {args.out}:", *complaints]))
    if not args.quiet:
        n_models = n_asked // len(paths)
        through = f" through {n_models} models" if n_models > 1 else ""
        n_stored = n_asked - n_run - n_bad * n_models
        print(f"{len(paths)} clips{through}: {n_run} run, {n_stored} from the store.")
        print(f"Wrote {args.out}.")


def _prepare(args, paths, memory):
    """Return a fitted embedder, having tried all that can be known beforehand."""
    if args.out.suffix == ".parquet":
        _check_parquet()
    from skaudioemb import Store, make_embedder
    from skaudioemb.devices import resolve_device

    store = Store(memory)
    store.info()
    check_folder(next(p for p in store.path.parents if p.exists()))
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
    resolve_device(params["device"])
    return embedder


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
            say(f"{warning.category.__name__}: {one_line(warning.message)}")
    # Every member of a fusion complains of the same files.
    return rows, list(dict.fromkeys(complaints))


def _with_path(sentence, paths):
    """Put a file's path in the place of "clip 3 (a.wav)"."""
    match = re.match(r"clip (\d+)", sentence, re.IGNORECASE)
    if match is None:
        return sentence
    path = paths[int(match[1])]
    rest = sentence[match.end() :].removeprefix(f" ({Path(path).name})")
    return f"{printable(path)}: {rest.removeprefix(': ')}"


def _is_bad(row):
    values = getattr(row, "values", row)
    return bool((values != values).all())


def _write(out, paths, rows, embedder):
    """Write the file under another name first, so that it is whole or not there."""
    names = [printable(path) for path in paths]
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
        for name in ("pandas", "pyarrow"):
            import_module(name)
    except ImportError as error:
        raise ImportError(
            f"Writing .parquet needs pandas and pyarrow ({error}). Run "
            "python -m pip install 'skaudioemb[parquet]', or write .npz."
        ) from error


def find_files(inputs, patterns):
    """Return the paths of all recordings, each once; folders in order of names."""
    paths = []
    for name in inputs:
        if os.path.isdir(name):
            paths += sorted(_walk(name, patterns))
        elif os.path.exists(name):
            paths.append(name)
        else:
            raise Refusal(f"There is no file or folder {printable(name)}.")
    if not paths:
        sought = patterns or [f"*{suffix}" for suffix in SUFFIXES]
        raise Refusal(
            f"No recordings found in {printable(', '.join(inputs))}. Names that match "
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
