"""The commands of ``harness --help`` in groups, and what is said of a command that there is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from typer.core import TyperGroup

from detector.errors import UsageError, did_you_mean

# Every command, in the order in which it is listed.
GROUPS: Mapping[str, Sequence[str]] = {
    "See the results": ("list", "table", "check", "show", "compare", "audit", "explain", "figure", "report", "images"),
    "Train and evaluate": ("plan", "run", "status", "logs", "cancel", "clean", "trace", "doctor"),
    "Pass results on": ("collect", "bundle", "dump", "export", "record"),
    "Use detectors, weights and data": ("eval", "score", "detect", "weights", "data", "new", "schema"),
}


class Commands(TyperGroup):
    """Commands of which an unknown one gets one message, as every other wrong word."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names. Raises UsageError with the known ones."""
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            known = [name for name, command in self.commands.items() if not command.hidden]
            raise UsageError(
                f"Unknown command {name!r}. Known: {', '.join(known)}. Run '{ctx.command_path} --help'."
                f"{did_you_mean(name, known)}"
            )
        return super().resolve_command(ctx, args)


class GroupedCommands(Commands):
    """Lists its commands by group, those of no group last."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the groups that have a command, with their texts in one column."""
        names = [name for name in self.list_commands(ctx) if not self.commands[name].hidden]
        width = max(map(len, names), default=0)
        for title, group in _grouped(names):
            with formatter.section(title):
                limit = formatter.width - 6 - width
                lines = [(f"{name:{width}}", self.commands[name].get_short_help_str(limit)) for name in group]
                formatter.write_dl(lines)


def _grouped(names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    for title, group in GROUPS.items():
        if listed := [name for name in group if name in names]:
            yield title, listed
    known = {name for group in GROUPS.values() for name in group}
    if rest := [name for name in names if name not in known]:
        yield "Others", rest
