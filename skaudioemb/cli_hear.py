"""``skaudioemb hear``: the benchmark's tasks, runs, reports and comparisons."""

import os
import sys
from dataclasses import fields, replace
from pathlib import Path

from skaudioemb.cli_common import (
    Refusal,
    check_folder,
    one_line,
    print_table,
    printable,
    say,
)


def add_hear(commands, assignment):
    """Add the subcommand to those of the command line.

    Parameters
    ----------
    commands : argparse subparsers
    assignment : callable
        Splits PARAM=VALUE.
    """
    parser = commands.add_parser(
        "hear",
        help="run the HEAR 2021 benchmark",
        description="Run the HEAR 2021 benchmark: tasks, runs, reports.",
    )
    inner = parser.add_subparsers(dest="hear_command", metavar="COMMAND", required=True)
    _add_tasks(inner)
    _add_get(inner)
    _add_run(inner, assignment)
    _add_report(inner)
    _add_compare(inner)


def _add(commands, name, run, summary, details=""):
    command = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {details}"
    )
    command.set_defaults(
        run=run, command=f"hear {name}", after_interrupt="Nothing was written."
    )
    return command


def _add_tasks(commands):
    command = _add(
        commands,
        "tasks",
        _tasks,
        "list the benchmark's tasks",
        "FOLDS is tvt where there is one training, validation and test split. A whole "
        "name gives all that is known of the task.",
    )
    command.add_argument(
        "pattern",
        nargs="?",
        default="*",
        help="names to list, as 'nsynth*', or one name to describe",
    )


def _add_get(commands):
    command = _add(
        commands,
        "get",
        _get,
        "download tasks from the public archive, verify and unpack them",
        "The archive has them at 48 kHz; embedders resample. Exits with 0 if all "
        "tasks are there, 1 if one could not be had, 2 if a name is not known.",
    )
    command.set_defaults(
        after_interrupt="What has arrived is kept: the same command goes on from it."
    )
    command.add_argument(
        "tasks",
        nargs="+",
        metavar="TASK",
        help="see `skaudioemb hear tasks`; patterns as 'nsynth*', or the address of an "
        "archive, work as well",
    )
    command.add_argument(
        "--out", required=True, type=Path, metavar="FOLDER", help="where to put them"
    )
    command.add_argument(
        "--checksum",
        metavar="SUM",
        help="md5:..., sha256:... of the one archive (default: as the archive states)",
    )
    command.add_argument(
        "--base-url", metavar="URL", help="another record in the manner of Zenodo's"
    )
    command.add_argument(
        "--keep-archive", action="store_true", help="keep the tarballs as well"
    )
    command.add_argument("--quiet", action="store_true", help="show no progress")


def _add_run(commands, assignment):
    command = _add(
        commands,
        "run",
        _run,
        "evaluate models on tasks",
        "Every finished test split is kept: interrupted or killed, the same command "
        "goes on where it was. Exits with 0 if all results are there, 1 if some "
        "failed, 2 if it could not begin.",
    )
    command.set_defaults(
        after_interrupt="What was finished is kept: the same command goes on from it."
    )
    command.add_argument(
        "--tasks",
        required=True,
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="folders and archives of tasks, which may lie anywhere below",
    )
    command.add_argument(
        "--model",
        required=True,
        action="append",
        metavar="NAME",
        help="see `skaudioemb list`; may be repeated",
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        type=assignment,
        metavar="PARAM=VALUE",
        help="a parameter of all models, as device=cpu; may be repeated",
    )
    command.add_argument(
        "--protocol",
        choices=("hear2021", "heareval"),
        default="hear2021",
        help="HEAR 2021's with heareval's defects corrected, or with them (default: "
        "%(default)s)",
    )
    command.add_argument(
        "--protocol-set",
        action="append",
        default=[],
        type=assignment,
        metavar="PARAM=VALUE",
        help="a setting of the protocol, as n_points=16; may be repeated",
    )
    command.add_argument(
        "--out", required=True, type=Path, metavar="FOLDER", help="where results go"
    )
    command.add_argument("--n-jobs", type=int, metavar="N", help="number of processes")
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="compute results of other settings again, instead of refusing to begin",
    )
    command.add_argument(
        "--quiet", action="store_true", help="show neither progress nor scores"
    )


def _add_report(commands):
    command = _add(
        commands,
        "report",
        _report,
        "write a page that compares results with the published systems",
    )
    command.add_argument("results", type=Path, metavar="FOLDER", help="of `hear run`")
    command.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="HTML",
        help="the page to write, or a folder for the page and its figures",
    )


def _add_compare(commands):
    command = _add(
        commands, "compare", _compare, "compare two models on the tasks of both"
    )
    command.add_argument("a", metavar="A", help="name of a model in FOLDER")
    command.add_argument("b", metavar="B", help="name of another")
    command.add_argument("results", type=Path, metavar="FOLDER", help="of `hear run`")


def _tasks(args):
    from skaudioemb.hear.registry import get_task_info, list_tasks

    names = list_tasks(args.pattern)
    try:
        if names and names != [args.pattern]:
            print_table(list(_rows(map(get_task_info, names))))
        else:
            _describe(args.pattern)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough, as `head` does. What is left in the buffer must
        # not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _rows(infos):
    yield ("NAME", "KIND", "SCORE", "FOLDS", "SECONDS", "CLIPS", "LABELS", "LICENCE")
    for info in infos:
        yield (
            info.folder,
            f"{info.embedding_type} {info.prediction_type}",
            info.primary,
            "tvt" if info.n_folds is None else str(info.n_folds),
            *map(_text, (info.duration, info.n_clips, info.n_labels, info.licence)),
        )


def _describe(name):
    from skaudioemb.hear.registry import LICENCES, get_task_info

    try:
        info = get_task_info(name)
    except ValueError as error:
        raise Refusal(one_line(error)) from error
    print_table([(name, _text(value)) for name, value in _facts(info)])
    if not info.licence:
        print(f"The licence is in {LICENCES}.")


def _facts(info):
    yield from vars(info).items()
    yield "splits", info.splits
    yield "archive", info.archive


def _text(value):
    if value is None or value == "":
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _get(args):
    from skaudioemb.hear.archive import get_task
    from skaudioemb.hear.download import parse_checksum

    names = [name for text in args.tasks for name in _wanted(text)]
    if args.checksum:
        if len(names) > 1:
            raise Refusal("--checksum goes with one TASK. Run one command for each.")
        try:
            parse_checksum(args.checksum)
        except ValueError as error:
            raise Refusal(one_line(error)) from error
    options = {} if args.base_url is None else {"base_url": args.base_url}
    failures = 0
    for name in names:
        try:
            task = get_task(
                name,
                args.out,
                checksum=args.checksum,
                keep_archive=args.keep_archive,
                progress=not args.quiet,
                **options,
            )
        except (ValueError, OSError) as error:
            failures += 1
            say(f"skaudioemb hear get: {one_line(error)}")
        else:
            if not args.quiet:
                print(f"{task.name}: {len(task.X)} clips in {printable(task.path)}")
    return min(failures, 1)


def _wanted(text):
    """Return the tasks that a word of the command line stands for."""
    from skaudioemb.hear.registry import get_task_info, list_tasks

    if "://" in text or text.endswith(".tar.gz"):
        return [text]
    names = list_tasks(text)
    if names:
        return names
    try:
        return [get_task_info(text).folder]
    except ValueError as error:
        raise Refusal(one_line(error)) from error


def _run(args):
    """Evaluate all models on all tasks, print scores and failures."""
    from skaudioemb import make_embedder

    check_folder(
        next(p for p in (args.out, *args.out.absolute().parents) if p.exists())
    )
    for path in args.tasks:
        if not path.exists():
            raise Refusal(f"There is no file or folder {printable(path)}.")
    from skaudioemb.hear.benchmark import run_benchmark

    try:
        embedders = [
            (name, make_embedder(name, **dict(args.set))) for name in args.model
        ]
        benchmark = run_benchmark(
            embedders,
            args.tasks,
            args.out,
            protocol=_protocol(args.protocol, dict(args.protocol_set)),
            n_jobs=args.n_jobs,
            overwrite=args.overwrite,
            verbose=0 if args.quiet else 1,
        )
    except (ValueError, TypeError) as error:
        raise Refusal(one_line(error)) from error
    for failure in benchmark.failures:
        say(f"skaudioemb hear run: {one_line(failure)}")
    if benchmark.failures:
        say(
            f"{len(benchmark.failures)} failed, see error.json in the folders below "
            f"{args.out}. The same command tries them again."
        )
    if not args.quiet:
        _print_scores(benchmark)
    return 1 if benchmark.failures else 0


def _protocol(name, settings):
    from skaudioemb.hear.protocol import as_protocol

    protocol = as_protocol(name)
    known = [field.name for field in fields(protocol)]
    for setting in settings:
        if setting not in known:
            raise Refusal(
                f"The protocol has no setting {setting!r}. It has {', '.join(known)}."
            )
    return replace(protocol, **settings)


def _print_scores(benchmark):
    rows = [("MODEL", "TASK", "SCORE", "VALUE", "STD", "SECONDS")]
    for result in benchmark.results:
        rows.append(
            (
                result.embedder,
                result.task,
                result.primary,
                f"{result.score:.4f}",
                f"{result.deviations[result.primary]:.4f}",
                f"{result.seconds['total']:.1f}",
            )
        )
    print_table(rows)
    if benchmark.results:
        print(f"{benchmark.overhead:.1%} of the time neither embedding nor fitting.")


def _report(args):
    _check_results(args.results)
    check_folder(next(p for p in args.out.absolute().parents if p.exists()))
    from skaudioemb.hear.report import write_report

    page = write_report(args.results, args.out)
    print(f"Wrote {page}.")


def _compare(args):
    _check_results(args.results)
    from skaudioemb.hear.report import compare

    print(compare(args.results, args.a, args.b))


def _check_results(folder):
    if not folder.is_dir():
        raise Refusal(
            f"There is no folder {printable(folder)}. Name the one that was --out of "
            "`skaudioemb hear run`."
        )
