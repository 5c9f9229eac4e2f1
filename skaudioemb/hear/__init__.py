"""The HEAR 2021 benchmark: tasks, protocol, scores, runs and reports.

The public names are imported at first use.
"""

from importlib import import_module

_MODULES = {
    "HEARModel": "skaudioemb.embedders.hear_module",
    "Protocol": "skaudioemb.hear.protocol",
    "SCORES": "skaudioemb.hear.scores",
    "compare": "skaudioemb.hear.report",
    "evaluate": "skaudioemb.hear.evaluation",
    "find_tasks": "skaudioemb.hear.task",
    "get_task": "skaudioemb.hear.archive",
    "list_tasks": "skaudioemb.hear.registry",
    "load_leaderboard": "skaudioemb.hear.leaderboard",
    "load_results": "skaudioemb.hear.report",
    "load_task": "skaudioemb.hear.task",
    "make_hear_scorer": "skaudioemb.hear.scores",
    "make_report": "skaudioemb.hear.report",
    "run_benchmark": "skaudioemb.hear.benchmark",
    "write_report": "skaudioemb.hear.report",
    "write_task": "skaudioemb.hear.task_writing",
}

__all__ = [*_MODULES]


def __getattr__(name):
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_MODULES])
