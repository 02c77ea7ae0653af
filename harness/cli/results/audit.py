"""``harness audit``: evidence that cannot be trusted."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import AsJson, DataOption, ProfileOption, TargetsOrAllArgument, print_json, put
from harness.console import layout


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(short_help="Look for results that cannot be trusted, and say why.")(audit)


def audit(
    targets: TargetsOrAllArgument = None,
    profile: ProfileOption = "paper",
    data: DataOption = None,
    as_json: AsJson = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if anything was found.")] = False,
) -> None:
    """Look for records and comparisons that cannot be trusted: each with what it means and what to do.

    Record files that were edited, copied or belong to no row; rows that differ in more than they say; mixed code,
    libraries, hardware or inputs; runs that did not learn; tables that are shifted as a whole; verdicts without a
    measured deviation; seeds that are missing or were added late. Exits with 0 whatever is found, unless --strict is
    given.
    """
    from harness.audit.audit import audit as look
    from harness.audit.text import audit_text
    from harness.planning.selection import Selection, records_elsewhere

    selection = Selection(targets or "all", profile, [], data)
    view = look(selection)
    if as_json:
        print_json(view.as_data())
    else:
        elsewhere = "" if view.records else records_elsewhere(selection)
        put(audit_text(view, layout.columns(), elsewhere=elsewhere))
    if strict and view.findings:
        raise typer.Exit(1)
