"""The command ``skaudioemb``: demo, embed, hear, list, info.

Nothing heavy is imported until a subcommand needs it, so that help comes at once.
"""

import argparse
import ast
import platform
from importlib import metadata
from pathlib import Path

from skaudioemb import __version__
from skaudioemb.cli_common import Refusal, check_out, one_line, print_table, say
from skaudioemb.cli_embed import SUFFIXES, embed
from skaudioemb.cli_hear import add_hear

_PACKAGES = (
    "numpy scikit-learn torch torchaudio transformers skorch torchcrepe joblib "
    "soundfile pandas pyarrow matplotlib"
).split()
_DTYPES = ("float32", "bfloat16", "float16")


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
    except Refusal as error:
        say(f"skaudioemb {args.command}: {error}")
        return 2
    except (ValueError, OSError, ImportError) as error:
        say(f"skaudioemb {args.command}: {one_line(error)}")
        return 1
    except KeyboardInterrupt:
        say(f"skaudioemb {args.command}: interrupted. {args.after_interrupt}")
        return 130


def _make_parser():
    parser = argparse.ArgumentParser(
        prog="skaudioemb", description="Audio embeddings as scikit-learn estimators."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (_add_demo, _add_embed, _add_list, _add_info):
        add(commands)
    add_hear(commands, _assignment)
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
        embed,
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
    command = _add(
        commands,
        "list",
        _list,
        "list the known models",
        "FEATURES are those of a clip, and of a frame where they differ. A whole name "
        "gives all that is known of it: members, checkpoints, widths, licences, and "
        "what fidelity='paper' changes.",
    )
    command.add_argument(
        "pattern",
        nargs="?",
        default="*",
        help="names to list, as 'wav*', or one name to describe",
    )


def _add_info(commands):
    command = _add(commands, "info", _info, "show versions, devices and a store")
    command.add_argument(
        "--memory", metavar="PATH", help="a store whose size to show as well"
    )


def _demo(args):
    check_out(args.out, (".png",))
    from skaudioemb.demo import run_demo

    run_demo(args.out, memory=args.memory, seed=args.seed)


def _list(args):
    from skaudioemb.cli_list import list_presets

    list_presets(args)


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
    print_table(rows)


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
            return f"{version}, does not load: {one_line(error)}"
    return version


def _libsndfile():
    try:
        import soundfile
    except (ImportError, OSError) as error:
        return f"does not load: {one_line(error)}"
    return soundfile.__libsndfile_version__


def _devices():
    try:
        import torch
    except (ImportError, OSError) as error:
        return [("devices", f"unknown, torch does not load: {one_line(error)}")]
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
