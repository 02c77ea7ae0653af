"""Arguments and options that several commands share, with their completion, and how commands print."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from detector.errors import UsageError
from detector.storage.shown import shown
from harness.cli import completion
from harness.console import layout
from harness.units import MAX_SEEDS

ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="NAME",
        help="Submit to this Slurm cluster and return at once: a file in $HARNESS_CLUSTERS, or a path (.yaml).",
        autocompletion=completion.clusters,
    ),
]
CheckedClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="NAME",
        help="Check this Slurm cluster with one short job: a file in $HARNESS_CLUSTERS, or a path (.yaml).",
        autocompletion=completion.clusters,
    ),
]


def finite(value: float | None) -> float | None:
    """The value of an option. Refuses NaN, which lies in every range that is tested by its ends."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


MAX_WAIT = 10_080  # minutes: a week
MAX_BATCH = 65_536  # images
WaitOption = Annotated[
    float | None,
    typer.Option(
        "--wait",
        metavar="MINUTES",
        min=0,
        max=MAX_WAIT,
        callback=finite,
        help="With --cluster: how long the job may wait in the queue before it is cancelled. Default: 10.",
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="With --cluster: print the scripts and their runs; submit nothing.")
]


complete_targets, complete_profiles = completion.targets, completion.profiles
_TARGETS = "all (the paper's tables), a table such as table2, a row such as table2/L6; or several of them."
TargetsArgument = Annotated[
    list[str], typer.Argument(metavar="TARGET", help=_TARGETS, autocompletion=complete_targets, show_default=False)
]
TargetsOrAllArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="TARGET", help=_TARGETS, autocompletion=complete_targets, show_default="all"),
]
ProfileOption = Annotated[
    str,
    typer.Option(
        "--profile",
        "-p",
        help="The scale, such as paper, smoke or tiny; 'harness list' names all.",
        autocompletion=complete_profiles,
    ),
]
OnlyProfileOption = Annotated[
    str | None,
    typer.Option("--profile", "-p", help="Only this profile's records.", autocompletion=complete_profiles),
]
SeedsOption = Annotated[
    int, typer.Option("--seeds", "-n", min=1, max=MAX_SEEDS, help="Runs per row, with seeds 0, 1, ... up to 999.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Override one setting, such as optimizer.lr=0.005 (repeatable).",
        autocompletion=completion.settings,
    ),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        min=1,
        max=MAX_BATCH,
        help="Images per batch. Learning rate, iterations, warm-up and milestones follow (the paper's Remark 2).",
    ),
]
SourceOption = Annotated[
    Literal["local", "committed"] | None,
    typer.Option(
        "--source",
        metavar="local|committed",
        help="Only records of the runs folder, or only of the results folder. Default: both, local ones first.",
        autocompletion=completion.choices(("local", "committed")),
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="COCO root: annotations/, train2017/, val2017/. Default: $HARNESS_DATA."
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="A file to start from instead of a download: the backbone's ImageNet weights that the recipe names.",
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed",
        min=0,
        max=MAX_SEEDS - 1,
        help="Which of the row's runs, by its seed: 0 to 999.",
        autocompletion=completion.seeds,
    ),
]
DEVICES = ("auto", "cpu", "cuda")
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device", help="cpu, cuda, or auto (a GPU if there is one).", autocompletion=completion.choices(DEVICES)
    ),
]
FORMATS = ("text", "md", "latex", "csv", "json", "html")
FormatOption = Annotated[
    str,
    typer.Option(
        "--format", "-f", help="text, md, latex, csv, json or html.", autocompletion=completion.choices(FORMATS)
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace files of an earlier command that are there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def refuse(context: typer.Context, names: Iterable[str], why: str) -> None:
    """Raise UsageError where the command line has one of these parameters, which mean nothing with what else it has.

    why: the end of the sentence that begins with the option.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name)) if parameter.name in names else None
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{max(parameter.opts, key=len)} {why}")


def refuse_two_forms(context: typer.Context, fmt: str, *, as_json: bool) -> None:
    """Raise UsageError where --json comes with another --format."""
    if as_json and fmt != "json":
        refuse(context, ["fmt"], f"{fmt} and --json contradict each other. Give one of them.")


def print_json(value: Any) -> None:
    """Indented JSON on the standard output."""
    put(msgspec.json.format(msgspec.json.encode(value), indent=2).decode(), exact=True)


def print_metrics(metrics: dict[str, float | None]) -> None:
    """One line per metric: percent, or 0..1 for mean scores."""
    for name, value in metrics.items():
        put(f"{name:15} {'none of that size' if value is None else f'{value:.3f}'}")


def pick_device(name: str) -> Literal["cpu", "cuda"]:
    """cpu or cuda. Raises UsageError for another name, and for cuda where there is none."""
    if name not in ("cpu", "cuda", "auto"):
        raise UsageError(f"Unknown device {name!r}. Known: cpu, cuda, auto.")
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no GPU here. Run 'harness doctor', or give --device cpu.")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def say(text: str) -> None:
    """Tell the person at the terminal: on stderr, so that stdout holds data only. Nothing in the text acts on it."""
    typer.echo(layout.wrapped(shown(text), layout.columns(sys.stderr)), err=True)


def put(text: object, *, nl: bool = True, exact: bool = False) -> None:
    """A command's result, on stdout; nothing in the text acts on a terminal, whose width its lines keep to.

    nl: whether a line end follows. exact: leave lines as they are: they are for a program, or to be copied.
    """
    lines = shown(str(text))
    typer.echo(lines if exact else layout.wrapped(lines, layout.columns()), nl=nl)


def run_options(overrides: list[str] | None, batch_size: int | None, data: Path | None) -> tuple[str, ...]:
    """The options of ``run`` other than target, profile and seeds, as words of a command line."""
    sets = [part for override in overrides or [] for part in ("--set", override)]
    batch = ["--batch-size", str(batch_size)] if batch_size is not None else []
    root = ["--data", str(data)] if data is not None else []
    return (*sets, *batch, *root)
