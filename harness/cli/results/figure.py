"""``harness figure``: the paper's figures and those of results, with their numbers and verdicts on what they show."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from detector.errors import UsageError
from harness.cli.completion import several
from harness.cli.options import (
    AsJson,
    DataOption,
    ForceOption,
    ProfileOption,
    SourceOption,
    TargetsOrAllArgument,
    print_json,
    put,
    say,
)
from harness.figures.catalogue import FIGURES, known
from harness.figures.figure import Width

if TYPE_CHECKING:
    from harness.figures.figure import Figure
    from harness.planning.selection import Selection

TALLEST: Final = 8.9  # inches of text on a page of the paper


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("figure", short_help="Draw a figure of the paper or of our results, with its numbers.")(figure)


def figure(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help=f"{', '.join(FIGURES)}; several as fig2,fig3; or all that the records allow.",
            autocompletion=several(("all", *FIGURES)),
        ),
    ],
    targets: TargetsOrAllArgument = None,
    profile: ProfileOption = "paper",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE|FOLDER",
            help="A .svg, .pdf or .png file; the numbers go beside it as .csv. For several figures: a folder, for SVG.",
            show_default="NAME.svg, or the folder figures",
        ),
    ] = None,
    width: Annotated[
        Width, typer.Option("--width", help="As wide as a column of the paper, or as its page.")
    ] = "column",
    data: DataOption = None,
    source: SourceOption = None,
    force: ForceOption = False,
    as_json: AsJson = False,
) -> None:
    """Draw a figure from the finished records, and say whether what the paper states of it holds.

    fig2, fig3 and fig4 are the paper's. The same records give the same files; one that would not change is left as it
    is. Of several figures, those that the records do not allow are left out, with the reason.
    """
    from harness.figures.catalogue import build
    from harness.figures.output import FORMATS, format_of
    from harness.planning.selection import Selection, records_elsewhere

    names = list(FIGURES) if name == "all" else [known(part) for part in dict.fromkeys(name.split(","))]
    several = name == "all" or len(names) > 1
    place = out or Path("figures" if several else f"{names[0]}.svg")
    if several and place.suffix.lower().lstrip(".") in FORMATS and not place.is_dir():
        raise UsageError(f"Several figures go into a folder, as SVG: got --out {place}. Name one figure for one file.")
    paths = {each: place / f"{each}.svg" if several else place for each in names}
    for path in paths.values():
        format_of(path)
    selection = Selection(targets or "all", profile, [], data, source=source)
    figures = [build(each, selection) for each in names]
    lacking = [f"{each.name}: {each.missing}" for each in figures if each.missing]
    shown = [each for each in figures if not each.missing]
    elsewhere = records_elsewhere(selection)
    if not shown:
        raise UsageError("\n".join([*lacking, elsewhere]).strip())
    written = _write({each.name: (each, paths[each.name]) for each in shown}, width, force=force)
    verdicts = _verdicts(shown, selection)
    found = [_described(each, written[each.name], verdicts) for each in shown]
    if as_json:
        print_json(found)
    else:
        put(_texts(found))
    for line in lacking:
        say(f"left out: {line}")
    for each in shown:
        if each.height[width] > TALLEST:
            say(_too_tall(each, width))
    if elsewhere and not {"fig2", "fig3"}.issuperset(names):  # which need no record
        say(elsewhere)


def _too_tall(figure: Figure, width: Width) -> str:
    """A note on a figure that no page of a paper has room for."""
    fits = width == "column" and figure.height["page"] <= TALLEST
    other = ", or give --width page" if fits else ""
    return (
        f"{figure.name} is {figure.height[width]:.1f} inches high, more than a page of a paper: name fewer rows{other}."
    )


def _write(figures: dict[str, tuple[Figure, Path]], width: Width, *, force: bool) -> dict[str, list[str]]:
    """The files of each figure, by its name. Nothing is written where one may not be.

    Raises UsageError for a file that is there with other content, unless ``force``.
    """
    from detector.storage.files import write_atomic
    from detector.storage.outputs import claim_file, holds_file
    from detector.storage.reading import first_bytes
    from harness.figures.output import files

    contents = {name: files(figure, path, width) for name, (figure, path) in figures.items()}
    wanted = {path: content for found in contents.values() for path, content in found.items()}
    changed = {
        path: content
        for path, content in wanted.items()
        if not holds_file(path) or first_bytes(path, len(content) + 1, raises=UsageError) != content
    }
    for path in changed:
        claim_file(path, force=force)
    for path, content in changed.items():
        write_atomic(path, content)
    return {name: [str(path) for path in found] for name, found in contents.items()}


def _verdicts(figures: Sequence[Figure], selection: Selection) -> dict[str, Any]:
    """By id, the verdicts on the claims that the figures show: as ``harness check all`` gives them."""
    if not any(each.claims for each in figures):
        return {}
    from harness.planning.selection import Selection
    from harness.report.views import judge

    source = selection.store.source
    view = judge(Selection("all", selection.profile.name, [], selection.given_data, source=source))
    parts = [part for part in (view.paper, view.own) if part is not None]
    return {verdict.claim.id: verdict for part in parts for verdict in part.claims}


def _described(figure: Figure, paths: list[str], verdicts: dict[str, Any]) -> dict[str, Any]:
    """What is said of a figure, as data."""
    claims = [verdicts[name] for name in figure.claims if name in verdicts]
    return {
        "name": figure.name,
        "title": figure.title,
        "files": paths,
        "caption": figure.caption,
        "statements": [
            {"text": each.text, "where": each.where, "measured": each.measured, "holds": each.holds}
            for each in figure.statements
        ],
        "claims": [
            {"id": each.claim.id, "text": each.claim.text, "outcome": each.outcome, "reason": each.reason}
            for each in claims
        ],
    }


def _texts(found: Sequence[dict[str, Any]]) -> str:
    """The same for a terminal, as wide as it is, with the meaning of its abbreviations at the end."""
    from harness.console.legend import legend

    wide = max(40, shutil.get_terminal_size((100, 24)).columns)
    texts = ["\n".join(_wrapped(line, wide) for line in _lines(each)) for each in found]
    words = legend("\n".join(texts))
    return "\n\n".join([*texts, *([_wrapped(words, wide)] if words else [])])


def _lines(found: dict[str, Any]) -> list[str]:
    """Files, caption, and what is said of each statement and claim."""
    lines = [f"wrote {', '.join(found['files'])}", found["title"], found["caption"]]
    for each in found["statements"]:
        lines.append(f"  {'holds' if each['holds'] else 'does not hold'}: {each['text']} ({each['where']})")
    for each in found["claims"]:
        reason = f" ({each['reason']})" if each["reason"] else ""
        lines.append(f"  {each['outcome']}: {each['id']}: {each['text']}{reason}")
    return lines


def _wrapped(line: str, wide: int) -> str:
    """A line on as many as it takes; what follows an indented one stands further in."""
    inner = "    " if line.startswith(" ") else ""
    return textwrap.fill(line, wide, subsequent_indent=inner, break_long_words=False, break_on_hyphens=False)
