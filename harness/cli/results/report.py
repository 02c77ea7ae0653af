"""``harness report``: the page that shows everything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import DataOption, SourceOption, TargetsOrAllArgument, complete_profiles, put


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(short_help="Write a page: verdicts, tables, figures and the evidence behind each number.")(report)


def report(
    targets: TargetsOrAllArgument = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            "--profile",
            "-p",
            help="The scale, such as paper, smoke or tiny; give it again for several side by side.",
            autocompletion=complete_profiles,
            show_default="paper",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="A new or empty folder, or an earlier report, which is replaced; with --single-file a .html file.",
            show_default="report, or report.html",
        ),
    ] = None,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Write one HTML file with everything in it, to send to somebody.")
    ] = False,
    data: DataOption = None,
    source: SourceOption = None,
) -> None:
    """Write a page that opens from the disk, without a network: does the paper hold, and what shows it.

    It has the verdicts, the tables with the evidence behind each number, claims, figures, deviations, costs and
    environment of the finished records. Images and logs are of runs whose folders are here. The same records give the
    same bytes.
    """
    from harness.planning.selection import records_elsewhere
    from harness.report.page.folder import check_out, write
    from harness.report.page.page import page_of
    from harness.report.page.scales import scales
    from harness.report.page.summary import in_one_line
    from harness.units import byte_size

    place = out or Path("report.html" if single_file else "report")
    check_out(place, single_file=single_file)
    chosen = scales(targets or "all", profile or ["paper"], data, source)
    found = page_of(chosen)
    written = write(found, place, single_file=single_file)
    for summary in found.summaries:
        put(in_one_line(summary))
    if len(chosen) == 1 and (elsewhere := records_elsewhere(chosen[0].selection)):
        put(elsewhere)
    files = "" if written.files == 1 else f" and {written.files - 1} files of data beside it"
    put(f"{written.page}{files}: {byte_size(written.size)}. Open it in a browser.")
