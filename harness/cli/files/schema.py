"""``harness schema``: the JSON Schema of experiment files, for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from detector.errors import UsageError, did_you_mean
from detector.storage.files import write_atomic
from detector.storage.outputs import claim_file
from harness.cli import completion
from harness.cli.options import ForceOption, put

KINDS = ("table", "recipe", "profile", "claims", "ledger", "speeds", "cluster")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(short_help="Print the JSON Schema of an experiment file.")(schema)


def schema(
    kind: Annotated[
        str,
        typer.Argument(
            help="table, recipe, profile, claims, ledger, speeds or cluster.", autocompletion=completion.choices(KINDS)
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of stdout.")] = None,
    force: ForceOption = False,
) -> None:
    """Print the JSON Schema of an experiment file, for editors that check YAML."""
    from harness.registry.declarations import FILE_KINDS
    from harness.registry.schemas import file_schema
    from harness.slurm.clusters import Cluster

    kinds: dict[str, type[msgspec.Struct]] = {**FILE_KINDS, "cluster": Cluster}
    if kind not in kinds:
        raise UsageError(f"Unknown kind of file {kind!r}. Known: {', '.join(kinds)}.{did_you_mean(kind, kinds)}")
    text = msgspec.json.format(msgspec.json.encode(file_schema(kinds[kind])), indent=2).decode()
    if out is None:
        put(text, exact=True)
    else:
        write_atomic(claim_file(out, force=force), f"{text}\n".encode())
