"""What the subcommands share: refusals, sentences, tables, checks of the output."""

import os
import sys
import tempfile


class Refusal(Exception):
    """The command cannot begin; the message says why and what to do."""


def check_out(out, suffixes):
    if out.suffix not in suffixes:
        raise Refusal(
            f"--out {out} does not end in {' or '.join(suffixes)}, which says what to "
            "write. Name such a file."
        )
    if out.is_dir():
        raise Refusal(f"--out {out} is a folder. Name a file.")
    check_folder(out.parent)


def check_folder(folder):
    if not folder.is_dir():
        raise Refusal(f"There is no folder {folder}. Make it first.")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise Refusal(
            f"The folder {folder} cannot be written to ({error.strerror}). Choose "
            "another one."
        ) from error


def print_table(rows):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def say(sentence):
    print(sentence, file=sys.stderr, flush=True)


def one_line(error):
    return " ".join(str(error).split())


def printable(path):
    """Return a path as text that any encoding holds; odd bytes become escapes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else ascii(text)[1:-1]
