"""From the paper's tables as data to trainings, records, tables and verdicts; in Python as on the command line.

    >>> import harness
    >>> harness.table("table2", profile="tiny")  # doctest: +SKIP

Each name below is explained by ``help(harness.table)`` and so on. Importing this package loads neither torch nor pandas
(PEP 562); the first use of a name loads pandas.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing is slow to import, and Ctrl-C is handled later only
if TYPE_CHECKING:
    from typing import Any

    from harness.api.records import records
    from harness.api.runs import curves, plan, run
    from harness.api.tables import claims, table

__all__ = ["claims", "curves", "plan", "records", "run", "table"]

# No room may have one of these names: a submodule, once imported, would hide the function.
_MODULES = {
    "claims": "harness.api.tables",
    "curves": "harness.api.runs",
    "plan": "harness.api.runs",
    "records": "harness.api.records",
    "run": "harness.api.runs",
    "table": "harness.api.tables",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
